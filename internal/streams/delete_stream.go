package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DeleteStream deletes a stream in any state but DELETING, with its records,
// tags, policy and consumers. Open subscriptions end with ResourceNotFound.
// ResourceInUse if it has consumers and EnforceConsumerDeletion is not true, and
// if it has channels or queues, which are never deleted along with it.
// Differs from the service: reads and writes are refused from DELETING on, which
// the service may still take for moments; deleting twice is ResourceInUse.
func (s *Service) DeleteStream(ctx context.Context, call *api.Call, in *kinesis.DeleteStreamInput) (*kinesis.DeleteStreamOutput, error) {
	for {
		st, err := s.resolve(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status == kinesis.StreamStatusDeleting {
			return nil, notActive(st)
		}
		if !api.Val(in.EnforceConsumerDeletion) && len(s.registry.consumersOf(streamName{st.account, st.region, st.name})) > 0 {
			return nil, resourceInUse("DeleteStream can't delete %s:%s because there are consumers associated with this data stream. "+
				"To delete %s anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the consumers that are associated with it.",
				st.account, st.name, st.name)
		}
		if n := s.channelCount(st); n > 0 {
			return nil, resourceInUse("DeleteStream can't delete %s:%s because there are channels associated with this data stream. Delete them first.", st.account, st.name)
		}
		if s.queues.count(st.id) > 0 {
			return nil, resourceInUse("DeleteStream can't delete %s:%s because there are queues associated with this data stream. Delete them first.", st.account, st.name)
		}
		record := st.record
		record.Status = kinesis.StreamStatusDeleting
		t := transition{Kind: kindDelete}
		if p := record.Pending; p != nil {
			t.NextLog, t.EndLog = p.NextLog, p.EndLog
		}
		conflict, err := s.accept(ctx, st, record, t)
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.DeleteStreamOutput{}, nil
		}
	}
}
