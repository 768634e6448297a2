package streams

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DescribeStreamConsumer describes a consumer in any state, named by its ARN or
// by stream ARN and name.
func (s *Service) DescribeStreamConsumer(ctx context.Context, call *api.Call, in *kinesis.DescribeStreamConsumerInput) (*kinesis.DescribeStreamConsumerOutput, error) {
	c, err := s.resolveConsumer(call, in.StreamARN, in.ConsumerName, in.ConsumerARN)
	if err != nil {
		return nil, err
	}
	return &kinesis.DescribeStreamConsumerOutput{ConsumerDescription: &kinesis.ConsumerDescription{
		ConsumerName: &c.name, ConsumerARN: &c.arn, ConsumerStatus: &c.status,
		ConsumerCreationTimestamp: api.Ptr(time.UnixMilli(c.createdAt)), StreamARN: api.Ptr(c.stream.arn()),
	}}, nil
}
