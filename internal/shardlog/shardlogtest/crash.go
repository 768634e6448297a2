package shardlogtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// Opener opens an engine on a file system, with small segments so that little
// data goes through all of its machinery. maintain does its periodic work.
type Opener func(ctx context.Context, fsys vfs.FS, segmentBytes int) (d driver.Driver, maintain func(context.Context) error, err error)

// Long tells whether the long forms of the suites are asked for.
func Long() bool { return os.Getenv("MILLRACE_TORTURE") == "1" }

// ledger is what a history has had acknowledged, and what it may have left.
type ledger struct {
	shards map[driver.ShardID]*ledgerShard
}

type ledgerShard struct {
	acknowledged []string // one a record
	attempted    []string // acknowledged, or possibly there
	first        driver.Index
	gone         bool // a delete was started
	deleted      bool // and acknowledged
}

func (l *ledger) clone() *ledger {
	c := &ledger{shards: map[driver.ShardID]*ledgerShard{}}
	for id, s := range l.shards {
		copied := *s
		copied.acknowledged, copied.attempted = slices.Clone(s.acknowledged), slices.Clone(s.attempted)
		c.shards[id] = &copied
	}
	return c
}

// record is the payload of one record; with its number, so that no two are equal.
func record(id driver.ShardID, n int) string {
	return fmt.Sprintf("shard %d record %d %0*d", id, n, n*37%900, 7)
}

// history makes one deterministic sequence of calls, keeping the ledger, until
// something fails or it is over.
func history(ctx context.Context, d driver.Driver, maintain func(context.Context) error, seed uint64, steps int, l *ledger, next *driver.ShardID) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	live := func() []driver.ShardID {
		return slices.Sorted(maps.Keys(maps.Collect(func(yield func(driver.ShardID, bool) bool) {
			for id, s := range l.shards {
				if !s.gone && !yield(id, true) {
					return
				}
			}
		})))
	}
	for range steps {
		ids := live()
		switch n := rng.IntN(40); {
		case len(ids) < 3 || n == 0:
			var shards []driver.Shard
			for range 1 + rng.IntN(4) {
				shards = append(shards, driver.Shard{ID: *next, Retention: time.Duration(rng.IntN(3)) * 24 * time.Hour})
				*next++
			}
			if err := d.Create(ctx, shards); err != nil {
				return err
			}
			for _, s := range shards {
				l.shards[s.ID] = &ledgerShard{first: 1}
			}
		case n == 1:
			id := ids[rng.IntN(len(ids))]
			l.shards[id].gone = true
			if err := d.Delete(ctx, id); err != nil {
				return err
			}
			l.shards[id].deleted = true
		case n == 2:
			id := ids[rng.IntN(len(ids))]
			s := l.shards[id]
			before := driver.Index(rng.IntN(len(s.acknowledged)+1) + 1)
			if err := d.Truncate(ctx, id, before); err != nil {
				return err
			}
			s.first = max(s.first, before)
		case n == 3:
			if err := d.SetRetention(ctx, time.Duration(1+rng.IntN(200))*time.Hour, ids[rng.IntN(len(ids))]); err != nil {
				return err
			}
		case n == 4:
			if err := maintain(ctx); err != nil {
				return err
			}
		default:
			var batches []*driver.Batch
			for range 1 + rng.IntN(4) {
				id := ids[rng.IntN(len(ids))]
				s := l.shards[id]
				payload := record(id, len(s.attempted)+1)
				s.attempted = append(s.attempted, payload)
				batches = append(batches, batch(id, 1, payload))
			}
			if err := d.Append(ctx, batches); err != nil {
				return err
			}
			for _, b := range batches {
				if b.Err != nil {
					return b.Err
				}
				s := l.shards[b.Shard]
				s.acknowledged = append(s.acknowledged, string(b.Payload.(driver.Bytes)))
				if int(b.Base) != len(s.acknowledged) {
					return fmt.Errorf("shard %d: record %d got index %d", b.Shard, len(s.acknowledged), b.Base)
				}
			}
		}
	}
	return nil
}

// check compares an engine with a ledger: what was acknowledged is there, once,
// in order, unaltered; beyond it there is at most what was attempted. Without
// lost nothing may be truncated further back than it was.
func (l *ledger) check(ctx context.Context, d driver.Driver) error {
	for id, s := range l.shards {
		bounds, err := d.Bounds(ctx, id)
		if errors.Is(err, driver.ErrNotFound) && s.gone {
			continue
		}
		if err != nil {
			return fmt.Errorf("shard %d: %w", id, err)
		}
		if s.deleted {
			return fmt.Errorf("shard %d is there again after its deletion", id)
		}
		if int(bounds.Next) < len(s.acknowledged)+1 || int(bounds.Next) > len(s.attempted)+1 {
			return fmt.Errorf("shard %d ends at %d: %d records were acknowledged, %d attempted", id, bounds.Next, len(s.acknowledged), len(s.attempted))
		}
		if bounds.First > max(s.first, 1) {
			return fmt.Errorf("shard %d starts at %d, truncated to %d", id, bounds.First, s.first)
		}
		from := bounds.First
		var buf []byte
		for from < bounds.Next {
			var batches []driver.StoredBatch
			batches, buf, err = d.Read(ctx, id, from, 700, buf[:0])
			if err != nil {
				return fmt.Errorf("shard %d from %d: %w", id, from, err)
			}
			if len(batches) == 0 {
				return fmt.Errorf("shard %d: nothing to read from %d, though it ends at %d", id, from, bounds.Next)
			}
			for _, b := range batches {
				if b.Base != from || b.Count != 1 {
					return fmt.Errorf("shard %d: read index %d, want %d", id, b.Base, from)
				}
				if want := s.attempted[from-1]; string(b.Payload) != want {
					return fmt.Errorf("shard %d: record %d is %q, want %q", id, from, b.Payload, want)
				}
				from = b.Next()
			}
		}
		s.acknowledged = s.attempted[: bounds.Next-1 : bounds.Next-1]
		s.attempted = slices.Clone(s.acknowledged)
	}
	return nil
}

// RunCrash loses power at every point where something becomes durable, before and
// after, with several outcomes each, and checks what is found afterwards; then
// goes on writing there and checks again.
func RunCrash(t *testing.T, open Opener) {
	steps, seeds := 60, uint64(2)
	if Long() {
		steps, seeds = 300, 4
	}
	ctx := context.Background()
	memory := vfs.NewMemory()
	l := &ledger{shards: map[driver.ShardID]*ledgerShard{}}
	next := driver.ShardID(1)

	type crash struct {
		at     string
		fs     *vfs.Memory
		ledger *ledger
	}
	var crashes []crash
	faults := &vfs.Faults{}
	// The hook runs in the engine's goroutines; the ledger is the history's. One
	// channel hands control back and forth, so that they never touch it at once.
	// The clone is taken in the hook and its ledger is the newest that was
	// acknowledged before: the history publishes copies.
	var published = make(chan *ledger, 1)
	published <- l.clone()
	faults.OnSync = func(before bool, kind vfs.Kind, name string) {
		// Held while cloning: the history cannot begin its next call meanwhile.
		state := <-published
		defer func() { published <- state }()
		for seed := range seeds {
			if seed > 0 && !before {
				continue
			}
			crashes = append(crashes, crash{fmt.Sprintf("%v of %s, before=%v, seed %d", kind, name, before, seed), nil, state})
			crashes[len(crashes)-1].fs = memory.CrashClone(seed)
		}
	}
	// The engine syncs from several goroutines: one at a time is what the hook
	// and this history need.
	hook := faults.OnSync
	turn := make(chan struct{}, 1)
	turn <- struct{}{}
	faults.OnSync = func(before bool, kind vfs.Kind, name string) {
		<-turn
		hook(before, kind, name)
		turn <- struct{}{}
	}
	d, maintain, err := open(ctx, vfs.WithFaults(memory, faults), 64<<10)
	must(t, err)
	for step := range steps {
		// One call a time, so that the published ledger is what was acknowledged
		// before the call and attempted by it.
		before := l.clone()
		planned := l.clone()
		plannedNext := next
		_ = history(ctx, recorder{Driver: d, ledger: planned}, func(context.Context) error { return nil }, uint64(step), 1, planned, &plannedNext)
		merged := before
		for id, s := range planned.shards {
			have := merged.shards[id]
			if have == nil {
				continue // may or may not have been created
			}
			have.attempted = s.attempted
			have.gone = s.gone
			have.first = max(have.first, s.first)
		}
		<-published
		published <- merged
		must(t, history(ctx, d, maintain, uint64(step), 1, l, &next))
		<-published
		published <- l.clone()
	}
	must(t, d.Close())

	t.Logf("%d crashes", len(crashes))
	for i, c := range crashes {
		d, maintain, err := open(ctx, c.fs, 64<<10)
		if err != nil {
			t.Fatalf("crash %d (%s): open: %v", i, c.at, err)
		}
		state := c.ledger.clone()
		if err := state.check(ctx, d); err != nil {
			t.Fatalf("crash %d (%s): %v", i, c.at, err)
		}
		if i%5 == 0 {
			// Life goes on, and a second crash finds it.
			another := driver.ShardID(1 << 20)
			for id, s := range state.shards {
				if _, err := d.Bounds(ctx, id); err != nil {
					s.gone = true
				}
			}
			if err := history(ctx, d, maintain, uint64(i), 20, state, &another); err != nil {
				t.Fatalf("crash %d (%s): going on: %v", i, c.at, err)
			}
			second := c.fs.CrashClone(uint64(i))
			must(t, d.Close())
			if d, _, err = open(ctx, second, 64<<10); err != nil {
				t.Fatalf("crash %d (%s): open after second crash: %v", i, c.at, err)
			}
			if err := state.check(ctx, d); err != nil {
				t.Fatalf("crash %d (%s): after second crash: %v", i, c.at, err)
			}
		}
		must(t, d.Close())
	}
}

// recorder is a driver that does nothing, for finding out what a history will
// attempt.
type recorder struct {
	driver.Driver
	ledger *ledger
}

func (recorder) Create(context.Context, []driver.Shard) error                         { return nil }
func (recorder) Delete(context.Context, ...driver.ShardID) error                      { return nil }
func (recorder) Truncate(context.Context, driver.ShardID, driver.Index) error         { return nil }
func (recorder) SetRetention(context.Context, time.Duration, ...driver.ShardID) error { return nil }
func (r recorder) Append(_ context.Context, batches []*driver.Batch) error {
	for i, b := range batches {
		earlier := 0
		for _, o := range batches[:i] {
			if o.Shard == b.Shard {
				earlier++
			}
		}
		b.Base = driver.Index(len(r.ledger.shards[b.Shard].acknowledged) + 1 + earlier)
	}
	return nil
}

// RunFaults fails the n-th call to the file system, for every n, with EIO and
// with ENOSPC: nothing acknowledged is lost, neither in the running engine nor
// after a restart.
func RunFaults(t *testing.T, open Opener) {
	const steps = 150
	ctx := context.Background()
	count := func() int {
		faults := &vfs.Faults{}
		d, maintain, err := open(ctx, vfs.WithFaults(vfs.NewMemory(), faults), 64<<10)
		must(t, err)
		next := driver.ShardID(1)
		must(t, history(ctx, d, maintain, 1, steps, &ledger{shards: map[driver.ShardID]*ledgerShard{}}, &next))
		must(t, d.Close())
		return faults.Count(vfs.AnyCall)
	}()
	stride := 1
	if !Long() {
		stride = max(1, count/60)
	}
	for _, failure := range []error{syscall.EIO, syscall.ENOSPC} {
		for _, sticky := range []bool{false, true} {
			for n := 1; n <= count; n += stride {
				memory := vfs.NewMemory()
				faults := &vfs.Faults{}
				if sticky {
					faults.FailFrom(vfs.WriteCall, n, failure)
				} else {
					faults.Fail(vfs.AnyCall, n, failure)
				}
				where := fmt.Sprintf("%v at call %d, sticky=%v", failure, n, sticky)
				l := &ledger{shards: map[driver.ShardID]*ledgerShard{}}
				d, maintain, err := open(ctx, vfs.WithFaults(memory, faults), 64<<10)
				if err == nil {
					next := driver.ShardID(1)
					limited, cancel := context.WithTimeout(ctx, 30*time.Second)
					err := history(limited, d, maintain, 1, steps, l, &next)
					if err != nil && !errors.Is(err, driver.ErrFull) && !errors.Is(err, driver.ErrReadOnly) {
						t.Fatalf("%s: %v", where, err)
					}
					cancel()
					copied := l.clone()
					for id, s := range copied.shards {
						if _, err := d.Bounds(ctx, id); errors.Is(err, driver.ErrNotFound) && !s.gone {
							t.Fatalf("%s: shard %d is gone", where, id)
						}
					}
					faults.Heal()
					if err := copied.check(ctx, d); err != nil {
						t.Fatalf("%s: still running: %v", where, err)
					}
					d.Close()
				}
				d, _, err = open(ctx, memory.CrashClone(uint64(n)), 64<<10)
				if err != nil {
					t.Fatalf("%s: reopen: %v", where, err)
				}
				if err := l.check(ctx, d); err != nil {
					t.Fatalf("%s: reopened: %v", where, err)
				}
				must(t, d.Close())
			}
		}
	}
}
