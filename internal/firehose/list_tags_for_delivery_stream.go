package firehose

import (
	"context"
	"maps"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// ListTagsForDeliveryStream lists tags by key, bytewise, behind
// ExclusiveStartTagKey, which need not exist; at most 50 or Limit.
func (s *Service) ListTagsForDeliveryStream(ctx context.Context, call *api.Call, in *firehose.ListTagsForDeliveryStreamInput) (*firehose.ListTagsForDeliveryStreamOutput, error) {
	st, err := s.resolve(call, in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	limit := maxTags
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := &firehose.ListTagsForDeliveryStreamOutput{Tags: []firehose.Tag{}, HasMoreTags: api.Ptr(false)}
	for _, key := range slices.Sorted(maps.Keys(st.record.Tags)) {
		if in.ExclusiveStartTagKey != nil && key <= *in.ExclusiveStartTagKey {
			continue
		}
		if len(out.Tags) == limit {
			out.HasMoreTags = api.Ptr(true)
			break
		}
		out.Tags = append(out.Tags, firehose.Tag{Key: &key, Value: api.Ptr(st.record.Tags[key])})
	}
	return out, nil
}
