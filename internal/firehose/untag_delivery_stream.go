package firehose

import (
	"context"
	"maps"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// UntagDeliveryStream removes tags of a delivery stream in any state but
// DELETING; keys that are not there are ignored.
func (s *Service) UntagDeliveryStream(ctx context.Context, call *api.Call, in *firehose.UntagDeliveryStreamInput) (*firehose.UntagDeliveryStreamOutput, error) {
	err := s.changeTags(ctx, call, in.DeliveryStreamName, func(_ *stream, tags map[string]string) (map[string]string, error) {
		next := maps.Clone(tags)
		for _, k := range in.TagKeys {
			delete(next, k)
		}
		return next, nil
	})
	if err != nil {
		return nil, err
	}
	return &firehose.UntagDeliveryStreamOutput{}, nil
}
