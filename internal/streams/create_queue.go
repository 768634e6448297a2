package streams

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// CreateQueue makes a queue on an on-demand stream of the caller's account. Where
// delivery begins is fixed at the call: LATEST (the default) means what arrives
// afterwards.
// Queues count as consumers of their stream. The name must be free in the
// account and region (ResourceInUse), the list must have one stream, which must
// be ACTIVE or UPDATING.
// Differs from the service: nothing known.
func (s *Service) CreateQueue(ctx context.Context, call *api.Call, in *kinesis.CreateQueueInput) (*kinesis.CreateQueueOutput, error) {
	if len(in.StreamConfigurationList) != 1 {
		return nil, invalidArgument("StreamConfigurationList must have exactly one entry.")
	}
	config := in.StreamConfigurationList[0]
	record := queueRecord{ID: newQueueID(), Start: kinesis.QueueStartingPositionTypeLatest, Visibility: defaultVisibility, MaxReceive: defaultMaxReceiveCount}
	if p := config.StartingPosition; p != nil {
		record.Start = *p.Type
		switch at := record.Start == kinesis.QueueStartingPositionTypeAtTimestamp; {
		case at && p.Timestamp == nil:
			return nil, validation("Timestamp must be set when Type is AT_TIMESTAMP.")
		case !at && p.Timestamp != nil:
			return nil, validation("Timestamp must not be set when Type is %s.", record.Start)
		case at:
			record.Asked = p.Timestamp.UnixMilli()
		}
	}
	if err := setQueueAttributes(&record, in.QueueAttributes); err != nil {
		return nil, err
	}
	name := streamName{call.Account, call.Region, *in.QueueName}
	if err := checkTags("queue "+name.name, name.account, in.Tags, len(in.Tags)); err != nil {
		return nil, err
	}
	for {
		st, err := s.resolve(call, nil, config.StreamARN)
		if err != nil {
			return nil, err
		}
		switch {
		case st.account != call.Account:
			return nil, invalidArgument("A queue and its stream must be in the same account.")
		case !st.readable():
			return nil, notActive(st)
		case st.mode != kinesis.StreamModeOnDemand:
			return nil, invalidArgument("Stream %s under account %s is in Provisioned mode. Queues are only supported on streams in On-Demand mode.", st.name, st.account)
		}
		if old, ok := s.queues.named(name); ok {
			if old.record.status(s.now()) != "" {
				return nil, resourceInUse("Queue %s under account %s already exists.", name.name, name.account)
			}
			if err := s.removeQueue(ctx, old); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.checkConsumerLimit(st); err != nil {
			return nil, err
		}
		now := s.now()
		record.Stream, record.StreamID, record.StreamMade = st.name, st.id, st.createdAt
		record.CreatedAt = now.UnixMilli()
		record.Status, record.Due = s.queueStatus(kinesis.QueueStatusCreating)
		ops, err := s.startQueue(ctx, st, &record, now)
		if err != nil {
			return nil, err
		}
		v := queueView{queue: newQueue(name, record.ID), record: record}
		ops = append(ops, queueTable.Insert(record, name.account, name.region, name.name), st.update(st.record))
		if len(in.Tags) > 0 {
			ops = append(ops, attributesTable.Insert(attributesRecord{Tags: in.Tags}, v.arn))
		}
		conflict, err := s.commit(ctx, ops...)
		if err != nil {
			return nil, err
		}
		if !conflict {
			s.nudge()
			return &kinesis.CreateQueueOutput{QueueDescription: s.describeQueue(v)}, nil
		}
	}
}

// startQueue puts a cursor into every shard there is, and notes in the record
// which time that came to.
func (s *Service) startQueue(ctx context.Context, st *stream, record *queueRecord, now time.Time) ([]meta.Op, error) {
	horizon := st.trimHorizon(now)
	switch record.Start {
	case kinesis.QueueStartingPositionTypeLatest:
		record.StartAt = now.UnixMilli()
	case kinesis.QueueStartingPositionTypeTrimHorizon:
		record.StartAt = max(horizon, st.createdAt)
	default:
		record.StartAt = max(record.Asked, horizon, st.createdAt)
	}
	var ops []meta.Op
	for _, sh := range st.visible(now) {
		var next driver.Index
		if record.Start == kinesis.QueueStartingPositionTypeLatest {
			bounds, err := s.log.Bounds(ctx, sh.log)
			if err != nil {
				return nil, fmt.Errorf("start queue in shard %s: %w", sh.id(), err)
			}
			next = bounds.Next
		} else {
			var err error
			if next, err = s.log.FirstAt(ctx, sh.log, record.StartAt); err != nil {
				return nil, fmt.Errorf("start queue in shard %s: %w", sh.id(), err)
			}
		}
		ops = append(ops, cursorTable.Insert(cursorRecord{Next: uint64(next)}, cursorParts(record.ID, sh.index)...))
	}
	return ops, nil
}

// named returns the queue that has a name, even one that is gone but not yet
// removed.
func (q *queues) named(name streamName) (queueView, bool) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	qu := q.byName[name]
	if qu == nil {
		return queueView{}, false
	}
	return queueView{qu, qu.record, qu.version}, true
}
