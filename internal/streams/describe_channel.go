package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DescribeChannel describes a channel in any state.
func (s *Service) DescribeChannel(ctx context.Context, call *api.Call, in *kinesis.DescribeChannelInput) (*kinesis.DescribeChannelOutput, error) {
	ch, err := s.resolveChannel(call, in.ChannelARN)
	if err != nil {
		return nil, err
	}
	return &kinesis.DescribeChannelOutput{ChannelDescription: ch.describe()}, nil
}
