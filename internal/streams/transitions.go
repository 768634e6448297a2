package streams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// retryAfter is when Run tries a failed transition again.
const retryAfter = time.Second

// finishing lets one goroutine at a time work on a stream's transition.
type finishing struct {
	mu   sync.Mutex
	busy map[uint64]chan struct{} // by stream id; closed when free
}

// lock waits until nobody works on a stream's transition.
func (f *finishing) lock(ctx context.Context, id uint64) error {
	for {
		f.mu.Lock()
		wait, taken := f.busy[id]
		if !taken {
			if f.busy == nil {
				f.busy = map[uint64]chan struct{}{}
			}
			f.busy[id] = make(chan struct{})
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *finishing) unlock(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.busy[id])
	delete(f.busy, id)
}

// begin accepts a change of an ACTIVE stream: the record becomes UPDATING with
// the transition, together with more operations; then the change is finished if
// there is no delay. conflict means that the stream has changed since st was
// read.
func (s *Service) begin(ctx context.Context, st *stream, record streamRecord, t transition, more ...meta.Op) (conflict bool, err error) {
	record.Status = kinesis.StreamStatusUpdating
	return s.accept(ctx, st, record, t, more...)
}

// accept is begin for a status of the caller's choice.
func (s *Service) accept(ctx context.Context, st *stream, record streamRecord, t transition, more ...meta.Op) (conflict bool, err error) {
	t.Due = s.now().Add(s.stateDelay).UnixMilli()
	record.Pending = &t
	if conflict, err = s.commit(ctx, append(more, st.update(record))...); conflict || err != nil {
		return conflict, err
	}
	s.settle(ctx, st.id, streamName{st.account, st.region, st.name})
	return false, nil
}

// settle finishes an accepted change at once if there is no delay. The change
// is accepted and durable, so the caller's going away does not stop it, and a
// failure is left to Run.
func (s *Service) settle(ctx context.Context, id uint64, name streamName) {
	if s.stateDelay > 0 {
		return
	}
	if err := s.finish(context.WithoutCancel(ctx), id, name); err != nil {
		s.logger.Error("finish a change of a stream; it is tried again", "stream", name.name, "error", err)
		s.nudge()
	}
}

// finishDue finishes what is due and returns how long until the next change is.
func (s *Service) finishDue(ctx context.Context) (wait time.Duration, any bool) {
	now := s.now()
	soonest := func(at time.Time) {
		if d := max(at.Sub(now), 0); !any || d < wait {
			wait, any = d, true
		}
	}
	for _, st := range s.registry.all() {
		p := st.record.Pending
		if p == nil {
			continue
		}
		if due := time.UnixMilli(p.Due); due.After(now) {
			soonest(due)
			continue
		}
		if err := s.finish(ctx, st.id, streamName{st.account, st.region, st.name}); err != nil {
			if ctx.Err() != nil {
				return 0, false
			}
			s.logger.Error("finish a change of a stream; it is tried again", "stream", st.name, "change", p.Kind, "error", err)
			soonest(now.Add(retryAfter))
		}
	}
	for _, c := range s.registry.allConsumers() {
		if c.due == 0 {
			continue
		}
		if due := time.UnixMilli(c.due); due.After(now) {
			soonest(due)
			continue
		}
		if err := s.finishConsumer(ctx, c); err != nil {
			if ctx.Err() != nil {
				return 0, false
			}
			s.logger.Error("finish a change of a consumer; it is tried again", "consumer", c.arn, "error", err)
			soonest(now.Add(retryAfter))
		}
	}
	for _, ch := range s.registry.allChannels() {
		if ch.Due == 0 {
			continue
		}
		if due := time.UnixMilli(ch.Due); due.After(now) {
			soonest(due)
			continue
		}
		if err := s.finishChannel(ctx, ch); err != nil {
			if ctx.Err() != nil {
				return 0, false
			}
			s.logger.Error("finish a change of a channel; it is tried again", "channel", ch.ARN, "error", err)
			soonest(now.Add(retryAfter))
		}
	}
	return wait, any
}

// finish brings a stream to the end of its transition. It may be repeated from
// any point at which it stopped.
func (s *Service) finish(ctx context.Context, id uint64, name streamName) error {
	if err := s.finishing.lock(ctx, id); err != nil {
		return err
	}
	defer s.finishing.unlock(id)
	for {
		st := s.registry.stream(name)
		if st == nil || st.id != id || st.record.Pending == nil {
			return nil
		}
		var done bool
		var err error
		switch p := st.record.Pending; p.Kind {
		case kindCreate:
			done, err = s.finishCreate(ctx, st)
		case kindDelete:
			done, err = s.finishDelete(ctx, st)
		case kindSplit:
			done, err = s.finishSplit(ctx, st)
		case kindMerge:
			done, err = s.finishMerge(ctx, st)
		case kindScale:
			done, err = s.finishScale(ctx, st)
		case kindSetting:
			done, err = s.finishSetting(ctx, st)
		default:
			return fmt.Errorf("stream %s has a change of unknown kind %q", name.name, p.Kind)
		}
		if err != nil {
			return fmt.Errorf("%s stream %s: %w", st.record.Pending.Kind, name.name, err)
		}
		// Not done: somebody changed the record in between (tags, a consumer, a
		// deletion), or there are more steps. Look again.
		if done {
			return nil
		}
	}
}

// settled is the record of a stream whose transition is over.
func settled(record streamRecord) streamRecord {
	record.Status, record.Pending = kinesis.StreamStatusActive, nil
	return record
}

func (s *Service) finishCreate(ctx context.Context, st *stream) (done bool, err error) {
	shards := make([]driver.Shard, st.record.Initial)
	for i := range shards {
		shards[i] = driver.Shard{ID: driver.ShardID(st.id + uint64(i)), Retention: st.retention}
	}
	// They may be there from an attempt that was cut off: all, or none.
	if err := s.log.Create(ctx, shards); err != nil && !errors.Is(err, driver.ErrExists) {
		return false, err
	}
	record := settled(st.record)
	record.NextShard = record.Initial
	conflict, err := s.commit(ctx, st.update(record))
	return !conflict, err
}

// finishSetting lets the new settings take effect.
func (s *Service) finishSetting(ctx context.Context, st *stream) (done bool, err error) {
	record, change := settled(st.record), st.record.Pending.Change
	if change == nil {
		change = &settings{}
	}
	if hours := change.RetentionHours; hours != nil {
		// What was trimmed under the old retention, or is by the new one, stays so.
		floor := s.now().Add(-time.Duration(min(*hours, record.RetentionHours)) * time.Hour).UnixMilli()
		record.TrimFloor = max(record.TrimFloor, floor)
		record.RetentionHours = *hours
		ids := make([]driver.ShardID, 0, len(st.shards))
		for _, sh := range st.shards {
			ids = append(ids, sh.log)
		}
		if err := s.log.SetRetention(ctx, time.Duration(*hours)*time.Hour, ids...); err != nil {
			return false, err
		}
	}
	record.set(change)
	conflict, err := s.commit(ctx, st.update(record))
	return !conflict, err
}

// set lets settings other than the retention period take effect.
func (record *streamRecord) set(change *settings) {
	if change.Mode != nil {
		record.Mode = *change.Mode
		if record.Mode == kinesis.StreamModeProvisioned {
			record.Auto, record.WarmTarget, record.WarmCurrent = false, 0, 0
		}
	}
	if change.MaxRecordKiB != nil {
		record.MaxRecordKiB = *change.MaxRecordKiB
	}
	if change.WarmCurrent != nil {
		record.WarmCurrent = *change.WarmCurrent
	}
	if change.SetMonitoring {
		record.Monitoring = change.Monitoring
	}
	if change.KeyID != nil {
		record.KeyID, record.DataKey = *change.KeyID, change.DataKey
	}
}

// deleteChunk is how many metadata records or logs go at a time.
const deleteChunk = 10_000

// finishDelete drops a stream's records and logs, and last the stream itself,
// so that an interruption leaves a stream that is still DELETING.
func (s *Service) finishDelete(ctx context.Context, st *stream) (done bool, err error) {
	ids := make([]driver.ShardID, 0, len(st.shards))
	for _, sh := range st.shards {
		ids = append(ids, sh.log)
	}
	if st.record.neverActive() {
		for i := range st.record.Initial {
			ids = append(ids, driver.ShardID(st.id+uint64(i)))
		}
	}
	for id := st.record.Pending.NextLog; id < st.record.Pending.EndLog; id++ { // logs of a scaling that was cut short
		ids = append(ids, driver.ShardID(id))
	}
	for len(ids) > 0 {
		n := min(len(ids), deleteChunk)
		if err := s.log.Delete(ctx, ids[:n]...); err != nil {
			return false, err
		}
		ids = ids[n:]
	}
	prefix := shardTable.Key(fmt.Sprintf("%016x", st.id)) + "/"
	for {
		records := s.meta.List(prefix, "", deleteChunk)
		if len(records) == 0 {
			break
		}
		ops := make([]meta.Op, len(records))
		for i, r := range records {
			ops[i] = meta.Op{Key: r.Key, Delete: true}
		}
		if _, err := s.commit(ctx, ops...); err != nil {
			return false, err
		}
	}
	name := streamName{st.account, st.region, st.name}
	ops := []meta.Op{
		{Key: streamKey(name), Delete: true, Cond: meta.IfVersion, Version: st.version},
		{Key: attributesTable.Key(st.arn), Delete: true},
	}
	for _, c := range s.registry.consumersOf(name) {
		ops = append(ops, meta.Op{Key: consumerKey(name, c.name), Delete: true}, meta.Op{Key: attributesTable.Key(c.arn), Delete: true})
	}
	created := st.record.Created
	for _, sh := range st.shards {
		created = max(created, sh.created)
	}
	account := accountName{st.account, st.region}
	now := s.now().Unix()
	ops = append(ops, touchAccount(account, s.registry.usage(account).account, func(a *accountRecord) {
		kept := []deletedStream{}
		for _, d := range a.Deleted {
			if d.Created >= now && d.Name != st.name {
				kept = append(kept, d)
			}
		}
		if created >= now-1 {
			kept = append(kept, deletedStream{st.name, created})
		}
		a.Deleted = kept
	}))
	conflict, err := s.commit(ctx, ops...)
	return !conflict, err
}
