package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// AddTagsToStream merges tags into those of a stream in any state but DELETING.
// At most 50 in total; keys that begin with aws: are reserved.
func (s *Service) AddTagsToStream(ctx context.Context, call *api.Call, in *kinesis.AddTagsToStreamInput) (*kinesis.AddTagsToStreamOutput, error) {
	for {
		st, err := s.resolve(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status == kinesis.StreamStatusDeleting {
			return nil, notActive(st)
		}
		conflict, err := s.addTags(ctx, st.resource(), in.Tags)
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.AddTagsToStreamOutput{}, nil
		}
	}
}
