package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ReceiveQueueRecords hands out up to Limit (10) visible records, in no order,
// and waits up to WaitTimeSeconds (9) for the first. Each becomes invisible for
// the visibility timeout and comes again unless it is acknowledged; after
// MaxReceiveCount receives it is a dead-letter record instead. A record whose
// retention period has ended is not delivered any more.
func (s *Service) ReceiveQueueRecords(ctx context.Context, call *api.Call, in *kinesis.ReceiveQueueRecordsInput) (*kinesis.ReceiveQueueRecordsOutput, error) {
	records, err := s.receive(ctx, call, *in.QueueARN, newReceiveRequest(false, in.Limit, in.WaitTimeSeconds, in.VisibilityTimeoutSeconds))
	if err != nil {
		return nil, err
	}
	return &kinesis.ReceiveQueueRecordsOutput{QueueRecords: records}, nil
}
