package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// TagResource merges tags into those of a stream, consumer, channel or queue, by
// the rules of AddTagsToStream.
func (s *Service) TagResource(ctx context.Context, call *api.Call, in *kinesis.TagResourceInput) (*kinesis.TagResourceOutput, error) {
	for {
		r, err := s.resolveResource(call, api.Val(in.ResourceARN))
		if err != nil {
			return nil, err
		}
		conflict, err := s.addTags(ctx, r, in.Tags)
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.TagResourceOutput{}, nil
		}
	}
}
