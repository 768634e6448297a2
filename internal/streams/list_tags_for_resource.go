package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ListTagsForResource lists all tags of a stream, consumer, channel or queue, by
// key.
func (s *Service) ListTagsForResource(ctx context.Context, call *api.Call, in *kinesis.ListTagsForResourceInput) (*kinesis.ListTagsForResourceOutput, error) {
	r, err := s.resolveResource(call, api.Val(in.ResourceARN))
	if err != nil {
		return nil, err
	}
	return &kinesis.ListTagsForResourceOutput{Tags: sortedTags(s.registry.attributesOf(r.arn).Tags)}, nil
}
