package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateQueueRecordsVisibility sets how long from now records in flight stay
// invisible; 0 makes them visible at once. Only the newest handle of a record is
// accepted, an earlier one would take the record from whoever has it now.
// Entries fail one by one.
func (s *Service) UpdateQueueRecordsVisibility(ctx context.Context, call *api.Call, in *kinesis.UpdateQueueRecordsVisibilityInput) (*kinesis.UpdateQueueRecordsVisibilityOutput, error) {
	v, err := s.queues.deliverable(call, *in.QueueARN)
	if err != nil {
		return nil, err
	}
	handles := make([]string, len(in.Entries))
	for i := range in.Entries {
		handles[i] = *in.Entries[i].ReceiptHandle
	}
	failed, err := s.changeDeliveries(ctx, v, false, handles, true, false, func(i int, d deliveryRecord) *deliveryRecord {
		d.VisibleAt = s.visibleIn(in.Entries[i].VisibilityTimeoutSeconds)
		return &d
	})
	if err != nil {
		return nil, err
	}
	out := &kinesis.UpdateQueueRecordsVisibilityOutput{Successful: []kinesis.UpdateQueueRecordsVisibilityResultEntry{}, Failed: []kinesis.UpdateQueueRecordsVisibilityErrorEntry{}}
	for i, f := range failed {
		if f != nil {
			out.Failed = append(out.Failed, kinesis.UpdateQueueRecordsVisibilityErrorEntry{ReceiptHandle: &handles[i], ErrorCode: &f.code, ErrorMessage: &f.message})
			continue
		}
		out.Successful = append(out.Successful, kinesis.UpdateQueueRecordsVisibilityResultEntry{ReceiptHandle: &handles[i]})
	}
	return out, nil
}
