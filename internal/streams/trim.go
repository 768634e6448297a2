package streams

import (
	"context"
	"errors"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// trimBatch is how many expired shards leave the metadata in one commit.
const trimBatch = 1000

// trim gives back what has expired. Nobody can see any of it: the trim horizon
// decides what is visible, exactly and without waiting for this.
func (s *Service) trim(ctx context.Context) {
	s.trimAll(ctx, s.registry.all())
}

func (s *Service) trimAll(ctx context.Context, all []*stream) {
	for _, st := range all {
		if ctx.Err() != nil {
			return
		}
		if !st.readable() {
			continue
		}
		err := s.trimStream(ctx, st)
		if errors.Is(err, driver.ErrNotFound) {
			if now := s.current(st); now == nil || !now.readable() {
				continue // deleted meanwhile, logs first
			}
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("trim a stream", "stream", st.name, "error", err)
		}
	}
}

func (s *Service) trimStream(ctx context.Context, st *stream) error {
	horizon := st.trimHorizon(s.now())
	var expired []*shard
	for _, sh := range st.shards {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if sh.expired(horizon) {
			expired = append(expired, sh)
			continue
		}
		b, err := s.log.Bounds(ctx, sh.log)
		if err != nil {
			return err
		}
		if b.First == b.Next {
			continue
		}
		first, err := s.log.FirstAt(ctx, sh.log, horizon)
		if err != nil {
			return err
		}
		if first > b.First {
			if err := s.log.Truncate(ctx, sh.log, first); err != nil {
				return err
			}
		}
	}
	for len(expired) > 0 {
		n := min(len(expired), trimBatch)
		if again, err := s.removeShards(ctx, st, expired[:n]); err != nil || again {
			return err // what is left goes next time
		}
		expired = expired[n:]
		if st = s.current(st); st == nil {
			return nil
		}
	}
	return nil
}

// removeShards unlists closed shards for good, then drops their logs. An
// interruption in between would leave logs that nobody knows, so the logs go
// first; the records of a shard that has expired are out of reach already.
func (s *Service) removeShards(ctx context.Context, st *stream, shards []*shard) (conflict bool, err error) {
	ids := make([]driver.ShardID, len(shards))
	ops := make([]meta.Op, len(shards), len(shards)+1)
	for i, sh := range shards {
		ids[i] = sh.log
		ops[i] = meta.Op{Key: shardKey(st.id, sh.index), Delete: true}
		if sh.index < st.record.Initial {
			ops[i] = meta.Op{Key: ops[i].Key, Value: shardTable.Encode(shardRecord{Gone: true})}
		}
	}
	if err := s.log.Delete(ctx, ids...); err != nil {
		return false, err
	}
	return s.commit(ctx, append(ops, st.update(st.record))...)
}
