package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// TagDeliveryStream merges tags into those of a delivery stream in any state but
// DELETING. At most 50 in total, else LimitExceeded.
func (s *Service) TagDeliveryStream(ctx context.Context, call *api.Call, in *firehose.TagDeliveryStreamInput) (*firehose.TagDeliveryStreamOutput, error) {
	err := s.changeTags(ctx, call, in.DeliveryStreamName, func(st *stream, tags map[string]string) (map[string]string, error) {
		return mergeTags(st.streamName, tags, in.Tags)
	})
	if err != nil {
		return nil, err
	}
	return &firehose.TagDeliveryStreamOutput{}, nil
}
