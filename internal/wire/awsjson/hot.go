package awsjson

import (
	"slices"
	"strconv"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// appendHot writes the outputs that carry records or one result a record. Each
// makes exactly what the generated EncodeTo makes, but grows dst once and writes
// members without asking whether a comma is due. It answers false for all other
// shapes.
func appendHot(dst []byte, v api.Shape) (out []byte, done bool) {
	switch v := v.(type) {
	case *kinesis.GetRecordsOutput:
		return appendGetRecords(dst, v), true
	case *kinesis.SubscribeToShardEvent:
		return appendSubscribeToShardEvent(dst, v), true
	case *kinesis.PutRecordsOutput:
		return appendPutRecords(dst, v), true
	case *kinesis.PutRecordOutput:
		return appendPutRecord(dst, v), true
	}
	return dst, false
}

// recordOverhead is more than the members of a record take besides its strings
// and its data: names, quotes, commas, the time and the encryption type.
const recordOverhead = 160

func recordsSize(records []kinesis.Record) int {
	n := 0
	for i := range records {
		r := &records[i]
		n += recordOverhead + base64x.StdEncoding.EncodedLen(len(r.Data)) +
			len(api.Val(r.PartitionKey)) + len(api.Val(r.SequenceNumber))
	}
	return n
}

// appendRecords writes `"Records":[…]`. dst has room for recordsSize.
func appendRecords(dst []byte, records []kinesis.Record) []byte {
	dst = append(dst, `"Records":[`...)
	for i := range records {
		r := &records[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		if r.SequenceNumber != nil {
			dst = append(dst, `"SequenceNumber":`...)
			dst = appendString(dst, *r.SequenceNumber)
			dst = append(dst, ',')
		}
		if r.ApproximateArrivalTimestamp != nil {
			dst = append(dst, `"ApproximateArrivalTimestamp":`...)
			dst = appendTime(dst, *r.ApproximateArrivalTimestamp)
			dst = append(dst, ',')
		}
		dst = append(dst, `"Data":"`...)
		dst = appendBase64(dst, r.Data)
		dst = append(dst, '"')
		if r.PartitionKey != nil {
			dst = append(dst, `,"PartitionKey":`...)
			dst = appendString(dst, *r.PartitionKey)
		}
		if r.EncryptionType != nil {
			dst = append(dst, `,"EncryptionType":`...)
			dst = appendString(dst, string(*r.EncryptionType))
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendGetRecords(dst []byte, v *kinesis.GetRecordsOutput) []byte {
	dst = slices.Grow(dst, recordsSize(v.Records)+len(api.Val(v.NextShardIterator))+128)
	dst = append(dst, '{')
	dst = appendRecords(dst, v.Records)
	if v.NextShardIterator != nil {
		dst = append(dst, `,"NextShardIterator":`...)
		dst = appendString(dst, *v.NextShardIterator)
	}
	if v.MillisBehindLatest != nil {
		dst = append(dst, `,"MillisBehindLatest":`...)
		dst = strconv.AppendInt(dst, *v.MillisBehindLatest, 10)
	}
	return append(appendChildShards(dst, v.ChildShards), '}')
}

func appendSubscribeToShardEvent(dst []byte, v *kinesis.SubscribeToShardEvent) []byte {
	dst = slices.Grow(dst, recordsSize(v.Records)+len(api.Val(v.ContinuationSequenceNumber))+128)
	dst = append(dst, '{')
	dst = appendRecords(dst, v.Records)
	if v.ContinuationSequenceNumber != nil {
		dst = append(dst, `,"ContinuationSequenceNumber":`...)
		dst = appendString(dst, *v.ContinuationSequenceNumber)
	}
	if v.MillisBehindLatest != nil {
		dst = append(dst, `,"MillisBehindLatest":`...)
		dst = strconv.AppendInt(dst, *v.MillisBehindLatest, 10)
	}
	return append(appendChildShards(dst, v.ChildShards), '}')
}

func appendChildShards(dst []byte, shards []kinesis.ChildShard) []byte {
	if shards == nil {
		return dst
	}
	dst = append(dst, `,"ChildShards":[`...)
	for i := range shards {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendShape(dst, &shards[i])
	}
	return append(dst, ']')
}

func putRecordsSize(v *kinesis.PutRecordsOutput) int {
	const entryOverhead = 80
	n := 128
	for i := range v.Records {
		r := &v.Records[i]
		n += entryOverhead + len(api.Val(r.SequenceNumber)) + len(api.Val(r.ShardId)) + len(api.Val(r.ErrorCode)) + len(api.Val(r.ErrorMessage))
	}
	return n
}

func appendPutRecords(dst []byte, v *kinesis.PutRecordsOutput) []byte {
	dst = append(slices.Grow(dst, putRecordsSize(v)), '{')
	if v.FailedRecordCount != nil {
		dst = append(dst, `"FailedRecordCount":`...)
		dst = strconv.AppendInt(dst, int64(*v.FailedRecordCount), 10)
		dst = append(dst, ',')
	}
	dst = append(dst, `"Records":[`...)
	for i := range v.Records {
		r := &v.Records[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		empty := len(dst)
		dst = appendMember(dst, `"SequenceNumber":`, r.SequenceNumber)
		dst = appendMember(dst, `"ShardId":`, r.ShardId)
		dst = appendMember(dst, `"ErrorCode":`, r.ErrorCode)
		dst = appendMember(dst, `"ErrorMessage":`, r.ErrorMessage)
		if len(dst) > empty {
			dst = dst[:len(dst)-1] // the last comma
		}
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	if v.EncryptionType != nil {
		dst = append(dst, `,"EncryptionType":`...)
		dst = appendString(dst, string(*v.EncryptionType))
	}
	return append(dst, '}')
}

func appendPutRecord(dst []byte, v *kinesis.PutRecordOutput) []byte {
	dst = append(dst, '{')
	empty := len(dst)
	dst = appendMember(dst, `"ShardId":`, v.ShardId)
	dst = appendMember(dst, `"SequenceNumber":`, v.SequenceNumber)
	dst = appendMember(dst, `"EncryptionType":`, (*string)(v.EncryptionType))
	if len(dst) > empty {
		dst = dst[:len(dst)-1] // the last comma
	}
	return append(dst, '}')
}

// appendMember writes a member and a comma.
func appendMember(dst []byte, name string, v *string) []byte {
	if v == nil {
		return dst
	}
	dst = append(dst, name...)
	dst = appendString(dst, *v)
	return append(dst, ',')
}
