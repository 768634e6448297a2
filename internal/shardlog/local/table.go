package local

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// classOf is the number of the class that data of a retention is filed under.
func (l *Log) classOf(retention time.Duration) int {
	best := -1
	for i, c := range l.classes {
		fits := c == 0 || retention != 0 && c >= retention
		if fits && (best < 0 || l.classes[best] == 0 || c != 0 && c < l.classes[best]) {
			best = i
		}
	}
	return best
}

// Create implements driver.Driver.
func (l *Log) Create(ctx context.Context, shards []driver.Shard) error {
	if len(shards) == 0 {
		return nil
	}
	if l.closing.Load() {
		return driver.ErrClosed
	}
	sorted := slices.Clone(shards)
	slices.SortFunc(sorted, func(a, b driver.Shard) int {
		return cmp.Or(cmp.Compare(a.Retention, b.Retention), cmp.Compare(a.NotBefore, b.NotBefore), cmp.Compare(a.ID, b.ID))
	})
	l.commandMu.Lock()
	defer l.commandMu.Unlock()
	seen := make(map[driver.ShardID]struct{}, len(sorted))
	l.tableMu.RLock()
	for _, s := range sorted {
		_, twice := seen[s.ID]
		if _, exists := l.shards[s.ID]; exists || twice {
			l.tableMu.RUnlock()
			return fmt.Errorf("create shard log %d: %w", s.ID, driver.ErrExists)
		}
		seen[s.ID] = struct{}{}
	}
	l.tableMu.RUnlock()

	var commands []command
	for len(sorted) > 0 {
		head, n := sorted[0], 1
		if head.Retention < 0 {
			return fmt.Errorf("create shard log %d: retention %v is negative", head.ID, head.Retention)
		}
		for n < len(sorted) && sorted[n].Retention == head.Retention && sorted[n].NotBefore == head.NotBefore {
			n++
		}
		ids := make([]driver.ShardID, n)
		for i, s := range sorted[:n] {
			ids[i] = s.ID
		}
		commands = append(commands, command{code: commandCreate, retention: head.Retention, notBefore: head.NotBefore, shards: runsOf(ids)})
		sorted = sorted[n:]
	}
	return l.logCommands(commands, nil)
}

// SetRetention implements driver.Driver.
func (l *Log) SetRetention(ctx context.Context, retention time.Duration, shards ...driver.ShardID) error {
	if l.closing.Load() {
		return driver.ErrClosed
	}
	if retention < 0 {
		return fmt.Errorf("retention %v is negative", retention)
	}
	if len(shards) == 0 {
		return nil
	}
	l.commandMu.Lock()
	defer l.commandMu.Unlock()
	for _, id := range shards {
		if l.lookup(id) == nil {
			return fmt.Errorf("set retention of shard log %d: %w", id, driver.ErrNotFound)
		}
	}
	return l.logCommands([]command{{code: commandRetention, retention: retention, shards: runsOf(slices.Clone(shards))}}, nil)
}

// Delete implements driver.Driver.
func (l *Log) Delete(ctx context.Context, shards ...driver.ShardID) error {
	if l.closing.Load() {
		return driver.ErrClosed
	}
	l.commandMu.Lock()
	defer l.commandMu.Unlock()
	var known []driver.ShardID
	var states []*shard
	for _, id := range shards {
		if s := l.lookup(id); s != nil {
			known = append(known, id)
			states = append(states, s)
		}
	}
	if len(known) == 0 {
		return nil
	}
	return l.logCommands([]command{{code: commandDelete, shards: runsOf(known)}}, func() {
		for _, s := range states {
			s.deleted = true
		}
	})
}

// apply puts durable commands into effect. Doing so again, or after a state that
// already has them, changes nothing.
func (l *Log) apply(commands []command) {
	var gone []*shard
	for _, c := range commands {
		switch c.code {
		case commandCreate:
			l.tableMu.Lock()
			for _, r := range c.shards {
				made := make([]shard, r.count) // one allocation a run
				for i := range made {
					id := r.first + driver.ShardID(i)
					if l.shards[id] != nil {
						continue
					}
					s := &made[i]
					*s = shard{id: id, assigned: 1, first: 1, next: 1, sealed: 1, lastAt: c.notBefore, durableAt: c.notBefore, retention: c.retention}
					l.shards[id] = s
				}
			}
			l.tableMu.Unlock()
		case commandDelete:
			l.tableMu.Lock()
			l.eachOf(c.shards, func(s *shard) {
				delete(l.shards, s.id)
				gone = append(gone, s)
			})
			l.tableMu.Unlock()
		case commandRetention:
			l.tableMu.RLock()
			l.eachOf(c.shards, func(s *shard) {
				s.mu.Lock()
				s.retention = c.retention
				s.mu.Unlock()
			})
			l.tableMu.RUnlock()
			l.noteTrimmed()
		}
	}
	for _, s := range gone {
		s.mu.Lock()
		s.gone = true
		s.refs = nil
		next, at := s.next, s.durableAt
		s.mu.Unlock()
		l.noteTrimmed()
		if l.notify != nil {
			// Whoever waits for the shard finds out that it is gone.
			l.notify(s.id, next, at)
		}
	}
}

// eachOf calls f for the existing shards of runs.
func (l *Log) eachOf(runs []run, f func(*shard)) {
	for _, r := range runs {
		for i := range r.count {
			if s := l.shards[r.first+driver.ShardID(i)]; s != nil {
				f(s)
			}
		}
	}
}

// Truncate implements driver.Driver. The point is kept by the next manifest.
func (l *Log) Truncate(ctx context.Context, id driver.ShardID, before driver.Index) error {
	s, err := l.readable(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before = min(before, s.next)
	if before > s.first {
		s.first = before
		l.noteTrimmed()
	}
	s.mu.Unlock()
	return nil
}

// Bounds implements driver.Driver.
func (l *Log) Bounds(ctx context.Context, id driver.ShardID) (driver.Bounds, error) {
	s, err := l.readable(id)
	if err != nil {
		return driver.Bounds{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return driver.Bounds{First: s.first, Next: s.next, LastAt: s.durableAt}, nil
}

// readable is the shard of a call that reads.
func (l *Log) readable(id driver.ShardID) (*shard, error) {
	if l.closing.Load() {
		return nil, driver.ErrClosed
	}
	s := l.lookup(id)
	if s == nil {
		return nil, fmt.Errorf("shard log %d: %w", id, driver.ErrNotFound)
	}
	return s, nil
}

// noteTrimmed remembers that something readable is so no more: the manifest has
// to say it, and the space can be had back.
func (l *Log) noteTrimmed() {
	l.trimmed.Store(true)
	l.reclaimable.Store(true)
}
