package streams

import (
	"context"
	"strconv"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// PutRecords stores up to 500 records, durable at return, and says of each where
// it went or why not. Records of a shard are stored in the order of the list, all
// or none of them; those of other shards are independent. A malformed record
// fails the call and stores nothing.
//
// Checks in order: the stream, sizes and partition keys against the stream, the
// total, hash keys, the key of an encrypted stream, the shards' rates.
func (s *Service) PutRecords(ctx context.Context, call *api.Call, in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
	start := s.now()
	st, err := writable(s.resolve(call, in.StreamName, in.StreamARN))
	if err != nil {
		return nil, err
	}
	var bad failures
	total := 0
	for i := range in.Records {
		r := &in.Records[i]
		total += len(r.Data)
		if r.PartitionKey != nil {
			total += len(*r.PartitionKey)
		}
		bad.check(st, func() string { return "records." + strconv.Itoa(i+1) + ".member." }, r.Data, r.PartitionKey)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	if total > maxPutBytes {
		return nil, invalidArgument("Records size exceeds 10 MB limit")
	}
	p := newPut()
	call.OnFinish(p.done)
	for i := range in.Records {
		r := &in.Records[i]
		if err := p.add(s, st, r.Data, r.PartitionKey, r.ExplicitHashKey); err != nil {
			return nil, err
		}
	}
	if api.Val(in.DryRun) {
		return nil, s.dryPut(st)
	}
	p.reserve()
	p.begin(st, start)
	throttled := s.admit(p)
	if err := s.putAll(ctx, p); err != nil {
		st.series.Add(PutRecordsSuccess, 0)
		return nil, err
	}

	out := &p.output
	if cap(p.results) < len(p.records) {
		p.results = make([]kinesis.PutRecordsResultEntry, 0, max(len(p.records), 16))
	}
	p.results = p.results[:len(p.records)]
	n := len(p.records)
	p.failed = 0
	for i := range p.records {
		r, e := &p.records[i], &p.results[i]
		if r.ok {
			e.SequenceNumber, e.ShardId = &p.texts[i], &p.texts[n+i]
			continue
		}
		p.failed++
		e.ErrorCode, e.ErrorMessage = r.err, r.reason
	}
	p.count = int32(p.failed)
	out.FailedRecordCount, out.Records = &p.count, p.results
	if p.stream.encryption != nil {
		out.EncryptionType = &kmsEncryption
	}
	s.countPutRecords(st, p, throttled, float64(s.now().Sub(start).Microseconds())/1000)
	return out, nil
}

// dryPut is the end of a put that is not to happen.
func (s *Service) dryPut(st *stream) error {
	if st.encryption != nil && s.keyring != nil {
		if _, err := s.keyring.DataKey(st.encryption.dataKey); err != nil {
			return keyError(st, err)
		}
	}
	return dryRun()
}

func (s *Service) countPutRecords(st *stream, p *put, throttled int, millis float64) {
	n := len(p.records)
	success := 0.0
	if p.failed < n {
		success = 1
	}
	st.series.Add(PutRecordsSuccess, success)
	st.series.Add(PutRecordsLatency, millis)
	st.series.Add(PutRecordsBytes, float64(p.bytes))
	st.series.Add(PutRecordsTotalRecords, float64(n))
	st.series.Add(PutRecordsSuccessfulRecords, float64(n-p.failed))
	st.series.Add(PutRecordsFailedRecords, float64(p.failed-throttled))
	st.series.Add(PutRecordsThrottledRecords, float64(throttled))
	st.series.Add(IncomingBytes, float64(p.bytes))
	st.series.Add(IncomingRecords, float64(n-p.failed))
	if throttled > 0 {
		st.series.Add(WriteProvisionedThroughputExceeded, float64(throttled))
	}
}
