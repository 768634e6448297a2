package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/meta"
)

// follow reads a data stream: a lane for each shard, those of a resharding once
// their parents are drained.
func (s *stream) follow(ctx context.Context) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		err := s.followOne(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			pause = time.Second // it was deleted; another may come
			continue
		}
		s.setListed()
		s.problem("Kinesis.ResourceNotFound", "the source stream cannot be read: "+err.Error(), "", false)
		if !sleep(ctx, pause) {
			return
		}
	}
}

// followOne reads one incarnation of a stream to its deletion.
func (s *stream) followOne(ctx context.Context) error {
	s.mu.Lock()
	config := *s.version.Source.Stream
	s.mu.Unlock()
	st, err := s.engine.o.Streams.OpenStream(ctx, config.ARN)
	if err != nil {
		return err
	}
	if err := s.adopt(ctx, st.ID()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	defer lanes.Wait()
	defer cancel()
	for {
		resharded := st.Resharded()
		s.mu.Lock()
		progress := s.progress
		s.mu.Unlock()
		waiting, err := s.addShards(ctx, st, config, &lanes)
		s.setListed()
		if ctx.Err() != nil {
			return nil
		}
		if isClosed(st.Gone()) {
			return nil
		}
		if err != nil {
			return err
		}
		if !waiting {
			progress = nil
		}
		select {
		case <-resharded:
		case <-progress:
		case <-st.Gone():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// adopt forgets what is stored about the lanes of a stream that had the name
// before.
func (s *stream) adopt(ctx context.Context, id uint64) error {
	s.mu.Lock()
	same := s.row.Source == id
	s.mu.Unlock()
	if same {
		return nil
	}
	rows, err := s.storedLanes()
	if err != nil {
		return err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	clear(s.lanes) // buffers still know theirs
	row := s.row
	s.mu.Unlock()
	row.Source = id
	var ops []meta.Op
	for name := range rows {
		ops = append(ops, meta.Op{Key: laneTable.Key(s.id, name), Delete: true})
	}
	if _, err := s.engine.o.Meta.Commit(ctx, append(ops, streamTable.Put(row, s.id))...); err != nil {
		return fmt.Errorf("adopt source stream: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.row.Source = id
	s.finishPlansLocked() // of lanes that do not come back
	return nil
}

// addShards starts lanes for shards that have none. waiting says that there are
// shards whose parents are not drained.
func (s *stream) addShards(ctx context.Context, st Stream, config StreamConfig, lanes *sync.WaitGroup) (waiting bool, err error) {
	shards, err := st.Shards(ctx)
	if err != nil {
		return false, err
	}
	rows, err := s.storedLanes()
	if err != nil {
		return false, err
	}
	listed := map[uint32]string{}
	names := map[string]bool{}
	for _, sh := range shards {
		listed[sh.Number] = sh.Name
		names[sh.Name] = true
	}
	for _, sh := range shards {
		s.mu.Lock()
		known := s.lanes[sh.Name] != nil
		ready := true
		for _, parent := range sh.Parents {
			name, ok := listed[parent]
			if !ok {
				continue // expired: it was read, or nobody wants what was in it
			}
			if l := s.lanes[name]; l == nil || !s.drainedLocked(l) {
				ready = false
			}
		}
		s.mu.Unlock()
		if known {
			continue
		}
		if !ready {
			waiting = true
			continue
		}
		row, ok := rows[sh.Name]
		if !ok {
			// A child's records are younger than those of its parents, so the same
			// time is right for both.
			if row.Low, err = st.At(ctx, sh.Number, config.From); err != nil {
				return waiting, err
			}
			row.Low = max(row.Low, 1)
		}
		if _, err := s.addLane(ctx, sh.Name, &shardSource{stream: st, shard: sh}, &sh, nil, row, lanes); err != nil {
			return waiting, err
		}
	}
	s.prune(names, rows)
	return waiting, nil
}

// drainedLocked reports whether children of a shard may be read. Where lanes
// share buffers there is no order to keep, and nothing to wait for.
func (s *stream) drainedLocked(l *lane) bool {
	if !l.ended {
		return false
	}
	return s.version.Merge || s.version.Partitioning != nil || l.account.low() == l.account.next
}

// prune forgets lanes whose shards are not listed any more: they are done, or
// everything in them has expired.
func (s *stream) prune(listed map[string]bool, rows map[string]laneRow) {
	s.mu.Lock()
	var expired []*lane
	for name, row := range rows {
		if listed[name] {
			continue
		}
		l := s.lanes[name]
		if !row.End && (l == nil || !l.ended) {
			expired = append(expired, l)
		}
		if l != nil {
			l.cancel()
			l.ended = true
			delete(s.lanes, name) // buffers still know it
		}
		s.ops = append(s.ops, opRow{meta.Op{Key: laneTable.Key(s.id, name), Delete: true}})
		s.scheduleCommitLocked()
	}
	s.mu.Unlock()
	for range expired {
		s.problem("DataExpired", "A shard was removed from the source at the end of its retention before it was read to its end.", "", false)
	}
	if len(expired) == 0 {
		return
	}
	// The rows are gone before anybody asks whether their lanes will come.
	if err := s.persist(s.sending); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finishPlansLocked()
	}
}
