package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// RestoreDeadLetterQueueRecords makes dead-letter records ordinary ones again,
// visible at once and with a receive count of zero. Entries fail one by one.
func (s *Service) RestoreDeadLetterQueueRecords(ctx context.Context, call *api.Call, in *kinesis.RestoreDeadLetterQueueRecordsInput) (*kinesis.RestoreDeadLetterQueueRecordsOutput, error) {
	v, err := s.queues.deliverable(call, *in.QueueARN)
	if err != nil {
		return nil, err
	}
	handles := make([]string, len(in.Entries))
	for i := range in.Entries {
		handles[i] = *in.Entries[i].ReceiptHandle
	}
	failed, err := s.changeDeliveries(ctx, v, true, handles, true, false, func(_ int, d deliveryRecord) *deliveryRecord {
		d.Dead, d.Count, d.VisibleAt = false, 0, s.now().UnixMilli()
		return &d
	})
	if err != nil {
		return nil, err
	}
	out := &kinesis.RestoreDeadLetterQueueRecordsOutput{Successful: []kinesis.RestoreDeadLetterQueueRecordsResultEntry{}, Failed: []kinesis.RestoreDeadLetterQueueRecordsErrorEntry{}}
	for i, f := range failed {
		if f != nil {
			out.Failed = append(out.Failed, kinesis.RestoreDeadLetterQueueRecordsErrorEntry{ReceiptHandle: &handles[i], ErrorCode: &f.code, ErrorMessage: &f.message})
			continue
		}
		out.Successful = append(out.Successful, kinesis.RestoreDeadLetterQueueRecordsResultEntry{ReceiptHandle: &handles[i]})
	}
	return out, nil
}
