package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// DeleteQueue ends a queue: what is in flight is not delivered again, receipt
// handles become invalid. The stream and its records stay. Deleting a queue that
// is DELETING succeeds without effect.
func (s *Service) DeleteQueue(ctx context.Context, call *api.Call, in *kinesis.DeleteQueueInput) (*kinesis.DeleteQueueOutput, error) {
	for {
		v, err := s.queues.find(call, *in.QueueARN)
		if err != nil {
			return nil, err
		}
		record := v.record
		if record.status(s.now()) == kinesis.QueueStatusDeleting {
			return &kinesis.DeleteQueueOutput{}, nil
		}
		// Receives that are under way fail on the record's version from here on.
		record.Status, record.Due = kinesis.QueueStatusDeleting, s.now().Add(s.stateDelay).UnixMilli()
		conflict, err := s.commit(ctx, v.update(record))
		if err != nil {
			return nil, err
		}
		if conflict {
			continue
		}
		if s.stateDelay <= 0 {
			// The deletion is durable; what cannot be cleared now is by the sweep.
			if err := s.queues.sweep(context.WithoutCancel(ctx)); err != nil {
				s.logger.Error("remove a deleted queue; it is tried again", "queue", v.arn, "error", err)
			}
		}
		s.nudge()
		return &kinesis.DeleteQueueOutput{}, nil
	}
}
