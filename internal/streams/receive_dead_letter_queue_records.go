package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ReceiveDeadLetterQueueRecords is ReceiveQueueRecords for the records that
// were received too often without being acknowledged.
func (s *Service) ReceiveDeadLetterQueueRecords(ctx context.Context, call *api.Call, in *kinesis.ReceiveDeadLetterQueueRecordsInput) (*kinesis.ReceiveDeadLetterQueueRecordsOutput, error) {
	records, err := s.receive(ctx, call, *in.QueueARN, newReceiveRequest(true, in.Limit, in.WaitTimeSeconds, in.VisibilityTimeoutSeconds))
	if err != nil {
		return nil, err
	}
	return &kinesis.ReceiveDeadLetterQueueRecordsOutput{QueueRecords: records}, nil
}
