package meta

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// maxScratchOps is how many decoded operations apply keeps room for.
const maxScratchOps = 1 << 12

// run stores what is queued and applies the log until Close or a failure. It
// is the only one who changes applied.
func (s *Store) run() {
	err := s.follow()
	s.queueMu.Lock()
	if s.err == nil { // not closed: something broke
		s.err = fmt.Errorf("metadata: stopped: %w", err)
		s.options.Logger.Error("metadata cannot be followed any more; commits are refused", "error", err)
	}
	queue := s.queue
	s.queue = nil
	err = s.err
	s.queueMu.Unlock()
	for _, c := range queue {
		c.err = err
		close(c.done)
	}
}

func (s *Store) follow() error {
	ctx := context.Background() // what is under way is finished, see Close
	for {
		next, changed := s.log.Tail(LogShard)
		switch {
		case next == 0:
			if _, err := s.log.Bounds(ctx, LogShard); err != nil {
				return err
			}
			continue
		case next > s.applied+1:
			if err := s.replay(ctx, next); err != nil {
				return err
			}
		}
		select {
		case <-s.stop:
			return ErrClosed
		default:
		}
		select {
		case <-s.stop:
			return ErrClosed
		case <-changed:
		case <-s.queued:
			if err := s.store(ctx, s.take()); err != nil {
				return err
			}
		}
		s.snapshotIfDue()
	}
}

// store appends a group to the log and applies it. The error is of the kind
// that ends the store; an append that failed is its callers' to know.
func (s *Store) store(ctx context.Context, group []*commit) error {
	if len(group) == 0 {
		return nil
	}
	commands := make([][]byte, len(group))
	for i, c := range group {
		commands[i] = c.command
	}
	batch := shardlog.NewBatch(LogShard, commands...)
	err := s.log.Append(ctx, []*driver.Batch{batch})
	if err == nil {
		err = batch.Err
	}
	if err == nil {
		// What others appended before us comes first.
		if base := batch.Base; base > s.applied+1 {
			err = s.replay(ctx, base)
		}
		if err == nil {
			return s.applyAll(batch.Base, group)
		}
		defer finish(group, err)
		return err
	}
	finish(group, err)
	return nil
}

func finish(group []*commit, err error) {
	for _, c := range group {
		c.err = fmt.Errorf("commit metadata: %w", err)
		close(c.done)
	}
}

// replay reads the log from the last applied command and applies it up to, not
// including, index end.
func (s *Store) replay(ctx context.Context, end driver.Index) error {
	var buf []byte
	var group []*commit
	for s.applied+1 < end {
		batches, b, err := s.log.Read(ctx, LogShard, s.applied+1, replayBytes, buf[:0])
		if err != nil {
			return err
		}
		buf = b
		if len(batches) == 0 {
			return fmt.Errorf("metadata log ends at index %d instead of %d", s.applied, end-1)
		}
		for _, batch := range batches {
			group = group[:0]
			base := batch.Base
			for record, err := range shardlog.Records(batch) {
				if err != nil {
					return err
				}
				switch {
				case record.Index <= s.applied:
					base = record.Index + 1
				case record.Index < end:
					group = append(group, &commit{command: record.Data})
				}
			}
			if base != s.applied+1 {
				return fmt.Errorf("metadata log continues at index %d, where %d is due", base, s.applied+1)
			}
			if err := s.applyAll(base, group); err != nil {
				return err
			}
			if s.applied+1 >= end {
				break
			}
		}
	}
	return nil
}

// applyAll applies consecutive commands, tells the watchers, and gives every
// commit its answer.
func (s *Store) applyAll(base driver.Index, group []*commit) error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	changes := make([][]Change, len(group))
	failed := len(group)
	var failure error
	s.mu.Lock()
	for i, c := range group {
		if changes[i], failure = s.applyLocked(base+driver.Index(i), c); failure != nil {
			failed = i
			break
		}
	}
	s.mu.Unlock()
	for i, c := range group[:failed] {
		for _, w := range s.watchers {
			if matching := within(changes[i], w.prefix); len(matching) > 0 {
				w.f(matching)
			}
		}
		if c.done != nil {
			close(c.done)
		}
	}
	for _, c := range group[failed:] {
		if c.done != nil {
			c.err = failure
			close(c.done)
		}
	}
	return failure
}

// applyLocked is the state machine: what a command at an index does. The
// outcome depends on nothing but the state and the command.
func (s *Store) applyLocked(index driver.Index, c *commit) ([]Change, error) {
	ops, err := decodeCommand(c.command, s.ops[:0])
	if err != nil {
		if errors.Is(err, driver.ErrNewerVersion) {
			return nil, fmt.Errorf("metadata log, index %d: %w", index, err)
		}
		return nil, &driver.CorruptError{File: fmt.Sprintf("metadata log, index %d", index), Reason: err.Error()}
	}
	if cap(ops) <= maxScratchOps {
		s.ops = ops
		defer clear(ops) // they point into a buffer that others reuse or want to forget
	}
	s.applied = index
	s.logged += int64(len(c.command))
	c.version = Version(index)
	for i := range ops {
		e, ok := s.records.Get(string(ops[i].key))
		if !ops[i].cond.holds(e.version, ok, ops[i].version) {
			c.err = &ConflictError{Key: string(ops[i].key), Version: e.version}
			return nil, nil
		}
	}
	var changes []Change
	if len(s.watchers) > 0 {
		changes = make([]Change, 0, len(ops))
	}
	for i := range ops {
		change := Change{Key: string(ops[i].key), Version: Version(index), Deleted: ops[i].delete}
		if change.Deleted {
			if _, ok := s.records.Delete(change.Key); !ok {
				continue
			}
		} else {
			change.Value = append(make([]byte, 0, len(ops[i].value)), ops[i].value...)
			s.records.Set(change.Key, entry{version: change.Version, value: change.Value})
		}
		if len(s.watchers) > 0 {
			changes = append(changes, change)
		}
	}
	return changes, nil
}

func (c Cond) holds(current Version, present bool, want Version) bool {
	switch c {
	case Absent:
		return !present
	case Present:
		return present
	case IfVersion:
		return present && current == want
	default:
		return true
	}
}

// within returns the changes of keys with the prefix; the slice itself where
// that is all of them.
func within(changes []Change, prefix string) []Change {
	for i := range changes {
		if strings.HasPrefix(changes[i].Key, prefix) {
			continue
		}
		matching := append([]Change(nil), changes[:i]...)
		for _, c := range changes[i+1:] {
			if strings.HasPrefix(c.Key, prefix) {
				matching = append(matching, c)
			}
		}
		return matching
	}
	return changes
}
