package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateDeadLetterQueueRecordsVisibility is UpdateQueueRecordsVisibility for
// dead-letter records.
func (s *Service) UpdateDeadLetterQueueRecordsVisibility(ctx context.Context, call *api.Call, in *kinesis.UpdateDeadLetterQueueRecordsVisibilityInput) (*kinesis.UpdateDeadLetterQueueRecordsVisibilityOutput, error) {
	v, err := s.queues.deliverable(call, *in.QueueARN)
	if err != nil {
		return nil, err
	}
	handles := make([]string, len(in.Entries))
	for i := range in.Entries {
		handles[i] = *in.Entries[i].ReceiptHandle
	}
	failed, err := s.changeDeliveries(ctx, v, true, handles, true, false, func(i int, d deliveryRecord) *deliveryRecord {
		d.VisibleAt = s.visibleIn(in.Entries[i].VisibilityTimeoutSeconds)
		return &d
	})
	if err != nil {
		return nil, err
	}
	out := &kinesis.UpdateDeadLetterQueueRecordsVisibilityOutput{Successful: []kinesis.UpdateDeadLetterQueueRecordsVisibilityResultEntry{}, Failed: []kinesis.UpdateDeadLetterQueueRecordsVisibilityErrorEntry{}}
	for i, f := range failed {
		if f != nil {
			out.Failed = append(out.Failed, kinesis.UpdateDeadLetterQueueRecordsVisibilityErrorEntry{ReceiptHandle: &handles[i], ErrorCode: &f.code, ErrorMessage: &f.message})
			continue
		}
		out.Successful = append(out.Successful, kinesis.UpdateDeadLetterQueueRecordsVisibilityResultEntry{ReceiptHandle: &handles[i]})
	}
	return out, nil
}
