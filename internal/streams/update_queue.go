package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateQueue changes the visibility timeout or the dead-letter handling of an
// ACTIVE queue; attributes that are not given stay. Records in flight keep the
// timeout they were received with. A queue in another state is ResourceInUse.
func (s *Service) UpdateQueue(ctx context.Context, call *api.Call, in *kinesis.UpdateQueueInput) (*kinesis.UpdateQueueOutput, error) {
	for {
		v, err := s.queues.find(call, *in.QueueARN)
		if err != nil {
			return nil, err
		}
		if status := v.record.status(s.now()); status != kinesis.QueueStatusActive {
			return nil, resourceInUse("Queue %s under account %s not ACTIVE, instead in state %s", v.name.name, v.name.account, status)
		}
		record := v.record
		if err := setQueueAttributes(&record, in.QueueAttributes); err != nil {
			return nil, err
		}
		record.Status, record.Due = s.queueStatus(kinesis.QueueStatusUpdating)
		conflict, err := s.commit(ctx, v.update(record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			v.record = record
			return &kinesis.UpdateQueueOutput{QueueDescription: s.describeQueue(v)}, nil
		}
	}
}
