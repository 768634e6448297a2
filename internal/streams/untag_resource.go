package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UntagResource removes tags from a stream, consumer, channel or queue. Keys
// that it does not have are ignored.
func (s *Service) UntagResource(ctx context.Context, call *api.Call, in *kinesis.UntagResourceInput) (*kinesis.UntagResourceOutput, error) {
	for {
		r, err := s.resolveResource(call, api.Val(in.ResourceARN))
		if err != nil {
			return nil, err
		}
		conflict, err := s.removeTags(ctx, r, in.TagKeys)
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.UntagResourceOutput{}, nil
		}
	}
}
