package streams

import (
	"context"
	"errors"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// PutRecord stores one record, durable at return. SequenceNumberForOrdering is
// only checked: numbers of a shard increase in any case.
//
// Checks in order: the stream, size and partition key against the stream, hash
// key, the number for ordering, the key of an encrypted stream, the shard's rate.
func (s *Service) PutRecord(ctx context.Context, call *api.Call, in *kinesis.PutRecordInput) (*kinesis.PutRecordOutput, error) {
	start := s.now()
	st, err := writable(s.resolve(call, in.StreamName, in.StreamARN))
	if err != nil {
		return nil, err
	}
	var bad failures
	bad.check(st, func() string { return "" }, in.Data, in.PartitionKey)
	if err := bad.err(); err != nil {
		return nil, err
	}
	p := newPut()
	call.OnFinish(p.done)
	if err := p.add(s, st, in.Data, in.PartitionKey, in.ExplicitHashKey); err != nil {
		return nil, err
	}
	if in.SequenceNumberForOrdering != nil {
		n, ok := parseSequenceNumber(*in.SequenceNumberForOrdering)
		if !ok || n.version == 0 || n.at > start.Unix() {
			return nil, invalidArgument("ExclusiveMinimumSequenceNumber %s used in PutRecord on stream %s under account %s is invalid.",
				*in.SequenceNumberForOrdering, st.name, st.account)
		}
	}
	if api.Val(in.DryRun) {
		return nil, s.dryPut(st)
	}
	p.reserve()
	p.begin(st, start)
	throttled := s.admit(p)
	if throttled > 0 {
		st.series.Add(WriteProvisionedThroughputExceeded, 1)
		st.series.Add(PutRecordSuccess, 0)
		return nil, &kinesis.ProvisionedThroughputExceededException{Message: *p.records[0].reason}
	}
	if err := s.putAll(ctx, p); err != nil {
		st.series.Add(PutRecordSuccess, 0)
		return nil, err
	}
	if !p.records[0].ok {
		st.series.Add(PutRecordSuccess, 0)
		return nil, errors.New("put record: the shard did not take it")
	}
	st.series.Add(PutRecordSuccess, 1)
	st.series.Add(PutRecordLatency, float64(s.now().Sub(start).Microseconds())/1000)
	st.series.Add(PutRecordBytes, float64(p.bytes))
	st.series.Add(IncomingBytes, float64(p.bytes))
	st.series.Add(IncomingRecords, 1)
	out := &kinesis.PutRecordOutput{SequenceNumber: &p.texts[0], ShardId: &p.texts[1]}
	if p.stream.encryption != nil {
		out.EncryptionType = &kmsEncryption
	}
	return out, nil
}
