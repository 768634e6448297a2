package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// AcknowledgeQueueRecords has the queue forget records for good. Any handle of a
// record will do, also one of an earlier receive, and a record that was
// acknowledged before is a success. Entries fail one by one.
func (s *Service) AcknowledgeQueueRecords(ctx context.Context, call *api.Call, in *kinesis.AcknowledgeQueueRecordsInput) (*kinesis.AcknowledgeQueueRecordsOutput, error) {
	v, err := s.queues.deliverable(call, *in.QueueARN)
	if err != nil {
		return nil, err
	}
	handles := make([]string, len(in.Entries))
	for i := range in.Entries {
		handles[i] = *in.Entries[i].ReceiptHandle
	}
	failed, err := s.changeDeliveries(ctx, v, false, handles, false, true, func(int, deliveryRecord) *deliveryRecord { return nil })
	if err != nil {
		return nil, err
	}
	out := &kinesis.AcknowledgeQueueRecordsOutput{Successful: []kinesis.AcknowledgeQueueRecordsResultEntry{}, Failed: []kinesis.AcknowledgeQueueRecordsErrorEntry{}}
	for i, f := range failed {
		if f != nil {
			out.Failed = append(out.Failed, kinesis.AcknowledgeQueueRecordsErrorEntry{ReceiptHandle: &handles[i], ErrorCode: &f.code, ErrorMessage: &f.message})
			continue
		}
		out.Successful = append(out.Successful, kinesis.AcknowledgeQueueRecordsResultEntry{ReceiptHandle: &handles[i]})
	}
	return out, nil
}
