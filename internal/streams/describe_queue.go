package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DescribeQueue shows a queue's status, attributes and starting position. The
// position has a time once the queue is no longer CREATING.
func (s *Service) DescribeQueue(_ context.Context, call *api.Call, in *kinesis.DescribeQueueInput) (*kinesis.DescribeQueueOutput, error) {
	v, err := s.queues.find(call, *in.QueueARN)
	if err != nil {
		return nil, err
	}
	return &kinesis.DescribeQueueOutput{QueueDescription: s.describeQueue(v)}, nil
}
