package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// RemoveTagsFromStream removes tags from a stream in any state but DELETING.
// Keys that it does not have are ignored.
func (s *Service) RemoveTagsFromStream(ctx context.Context, call *api.Call, in *kinesis.RemoveTagsFromStreamInput) (*kinesis.RemoveTagsFromStreamOutput, error) {
	for {
		st, err := s.resolve(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status == kinesis.StreamStatusDeleting {
			return nil, notActive(st)
		}
		conflict, err := s.removeTags(ctx, st.resource(), in.TagKeys)
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.RemoveTagsFromStreamOutput{}, nil
		}
	}
}
