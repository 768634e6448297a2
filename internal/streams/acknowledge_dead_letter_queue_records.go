package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// AcknowledgeDeadLetterQueueRecords discards dead-letter records. One that was
// discarded before is a success; entries fail one by one.
func (s *Service) AcknowledgeDeadLetterQueueRecords(ctx context.Context, call *api.Call, in *kinesis.AcknowledgeDeadLetterQueueRecordsInput) (*kinesis.AcknowledgeDeadLetterQueueRecordsOutput, error) {
	v, err := s.queues.deliverable(call, *in.QueueARN)
	if err != nil {
		return nil, err
	}
	handles := make([]string, len(in.Entries))
	for i := range in.Entries {
		handles[i] = *in.Entries[i].ReceiptHandle
	}
	failed, err := s.changeDeliveries(ctx, v, true, handles, false, true, func(int, deliveryRecord) *deliveryRecord { return nil })
	if err != nil {
		return nil, err
	}
	out := &kinesis.AcknowledgeDeadLetterQueueRecordsOutput{Successful: []kinesis.AcknowledgeDeadLetterQueueRecordsResultEntry{}, Failed: []kinesis.AcknowledgeDeadLetterQueueRecordsErrorEntry{}}
	for i, f := range failed {
		if f != nil {
			out.Failed = append(out.Failed, kinesis.AcknowledgeDeadLetterQueueRecordsErrorEntry{ReceiptHandle: &handles[i], ErrorCode: &f.code, ErrorMessage: &f.message})
			continue
		}
		out.Successful = append(out.Successful, kinesis.AcknowledgeDeadLetterQueueRecordsResultEntry{ReceiptHandle: &handles[i]})
	}
	return out, nil
}
