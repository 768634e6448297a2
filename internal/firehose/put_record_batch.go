package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
)

// PutRecordBatch stores up to 500 records, durable at return, all of them or
// none: what is wrong with one fails the call. The exception is the delivery
// stream's rate: then the records at the front that are within it are stored,
// and those behind are answered with ServiceUnavailableException, each.
func (s *Service) PutRecordBatch(ctx context.Context, call *api.Call, in *firehose.PutRecordBatchInput) (*firehose.PutRecordBatchOutput, error) {
	start := s.now()
	st, err := s.writable(call, in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	total := 0
	for i := range in.Records {
		total += len(in.Records[i].Data)
	}
	if total > maxPutBytes {
		return nil, invalidArgument("Records size exceeds 4 MB limit")
	}
	p := newPut()
	call.OnFinish(p.done)
	for i := range in.Records {
		p.data = append(p.data, in.Records[i].Data)
	}
	n, err := s.admit(st, p.data)
	if err != nil {
		return nil, err
	}
	ids, err := s.store(ctx, st, p.data[:n])
	if err != nil {
		return nil, err
	}
	for i := range p.data {
		if i < n {
			p.responses = append(p.responses, firehose.PutRecordBatchResponseEntry{RecordId: &ids[i]})
			continue
		}
		total -= len(p.data[i])
		p.responses = append(p.responses, firehose.PutRecordBatchResponseEntry{ErrorCode: &codeThrottled, ErrorMessage: &textThrottled})
	}
	p.failed = int32(len(p.data) - n)
	p.output = firehose.PutRecordBatchOutput{FailedPutCount: &p.failed, Encrypted: encrypted(st), RequestResponses: p.responses}
	st.series.Add(delivery.IncomingBytes, float64(total))
	st.series.Add(delivery.IncomingRecords, float64(n))
	st.series.Add(delivery.IncomingPutRequests, 1)
	st.series.Add(putRecordBatchBytes, float64(total))
	st.series.Add(putRecordBatchRecords, float64(n))
	st.series.Add(putRecordBatchCalls, 1)
	st.series.Add(putRecordBatchLatency, since(start, s.now()))
	return &p.output, nil
}
