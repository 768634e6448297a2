package firehose

import (
	"context"
	"maps"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// maxTags bounds the tags of a delivery stream.
const maxTags = 50

// mergeTags is old with tags added, or LimitExceeded. Forms of keys and values
// are the model's. A tag without a value has the empty one.
func mergeTags(st streamName, old map[string]string, tags []firehose.Tag) (map[string]string, error) {
	next := maps.Clone(old)
	if next == nil {
		next = map[string]string{}
	}
	for _, t := range tags {
		next[api.Val(t.Key)] = api.Val(t.Value)
	}
	if len(next) > maxTags {
		return nil, limitExceeded("Failed to add tags to Firehose %s under account %s because a delivery stream cannot have more than %d tags.", st.name, st.account, maxTags)
	}
	return next, nil
}

// changeTags stores what change makes of the tags of a delivery stream.
func (s *Service) changeTags(ctx context.Context, call *api.Call, name *string, change func(st *stream, tags map[string]string) (map[string]string, error)) error {
	for {
		st, err := s.resolve(call, name)
		if err != nil {
			return err
		}
		if st.record.Status == firehose.DeliveryStreamStatusDeleting {
			return notActive(st)
		}
		record := st.record
		if record.Tags, err = change(st, record.Tags); err != nil {
			return err
		}
		if maps.Equal(record.Tags, st.record.Tags) {
			return nil
		}
		conflict, err := s.commit(ctx, st.update(record))
		if err != nil || !conflict {
			return err
		}
	}
}
