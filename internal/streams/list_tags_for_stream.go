package streams

import (
	"context"
	"maps"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ListTagsForStream lists a stream's tags by key, in code-point order, behind
// ExclusiveStartTagKey. Limit is 50 at most, which is all there can be.
func (s *Service) ListTagsForStream(ctx context.Context, call *api.Call, in *kinesis.ListTagsForStreamInput) (*kinesis.ListTagsForStreamOutput, error) {
	st, err := s.resolve(call, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	tags := sortedTags(s.registry.attributesOf(st.arn).Tags)
	if in.ExclusiveStartTagKey != nil {
		tags = slices.DeleteFunc(tags, func(t kinesis.Tag) bool { return *t.Key <= *in.ExclusiveStartTagKey })
	}
	limit := maxTags
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	more := len(tags) > limit
	return &kinesis.ListTagsForStreamOutput{Tags: tags[:min(len(tags), limit)], HasMoreTags: &more}, nil
}

func sortedTags(tags map[string]string) []kinesis.Tag {
	out := make([]kinesis.Tag, 0, len(tags))
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, kinesis.Tag{Key: api.Ptr(k), Value: api.Ptr(tags[k])})
	}
	return out
}
