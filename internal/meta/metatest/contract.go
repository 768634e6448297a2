package metatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Contract checks what the documentation of meta.Store says, across restarts
// and crashes.
func Contract(t *testing.T, fresh func(t testing.TB) Environment) {
	t.Run("acknowledged commits survive a crash", func(t *testing.T) { crashKeepsCommits(t, fresh(t)) })
	t.Run("one history under any restarts", func(t *testing.T) { anyRestarts(t, fresh) })
	t.Run("group commit keeps every caller's answer", func(t *testing.T) { groups(t, fresh(t)) })
	t.Run("shard numbers stay unique", func(t *testing.T) { shardNumbers(t, fresh(t)) })
	t.Run("a watcher can rebuild the state", func(t *testing.T) { watcher(t, fresh(t)) })
	t.Run("a given up commit is there or not", func(t *testing.T) { givenUp(t, fresh(t)) })
}

// state is a store's content as text.
func state(s *meta.Store) string {
	var b strings.Builder
	for _, r := range s.List("", "", 0) {
		fmt.Fprintf(&b, "%s@%d=%q\n", r.Key, r.Version, r.Value)
	}
	return b.String()
}

func crashKeepsCommits(t *testing.T, e Environment) {
	want := ""
	for round := range 8 {
		s := e.Open(t, meta.Options{SnapshotBytes: 300})
		if got := state(s); got != want {
			t.Fatalf("round %d: got\n%swant\n%s", round, got, want)
		}
		for i := range 20 {
			key := fmt.Sprintf("key/%d", (round*7+i)%30)
			if _, err := s.Commit(t.Context(), meta.Op{Key: key, Value: fmt.Append(nil, round, i)}, meta.Op{Key: key + "x", Delete: i%2 == 0}); err != nil {
				t.Fatal(err)
			}
		}
		want = state(s)
		after := e.Crash(t, uint64(round))
		e.Close(t)
		e = after
	}
}

// anyRestarts runs one random history with snapshots and restarts at different
// places; what clients see must not depend on them.
func anyRestarts(t *testing.T, fresh func(t testing.TB) Environment) {
	seeds := 3
	if Torture() {
		seeds = 100
	}
	for seed := range seeds {
		plain := runHistory(t, fresh(t), uint64(seed), 0)
		for variant := range 3 {
			if got := runHistory(t, fresh(t), uint64(seed), uint64(variant+1)); got != plain {
				t.Fatalf("seed %d, variant %d: got\n%swithout restarts\n%s", seed, variant+1, got, plain)
			}
		}
	}
}

func runHistory(t *testing.T, e Environment, seed, variant uint64) string {
	t.Helper()
	var out strings.Builder
	o := meta.Options{SnapshotBytes: 1 << 30}
	if variant > 1 {
		o.SnapshotBytes = 500
	}
	s := e.Open(t, o)
	defer func() { e.Close(t) }()
	history := rand.New(rand.NewPCG(seed, 0))
	interruptions := rand.New(rand.NewPCG(seed, variant))
	versions := map[string]meta.Version{}
	for range 200 {
		var ops []meta.Op
		for range 1 + history.IntN(3) {
			key := fmt.Sprintf("k%d", history.IntN(8))
			op := meta.Op{Key: key, Cond: meta.Cond(history.IntN(4)), Delete: history.IntN(4) == 0, Version: versions[key]}
			if !op.Delete {
				op.Value = fmt.Append(nil, history.IntN(1000))
			}
			ops = append(ops, op)
		}
		version, err := s.Commit(t.Context(), ops...)
		var conflict *meta.ConflictError
		switch {
		case errors.As(err, &conflict):
			fmt.Fprintf(&out, "conflict over %s, which has %d\n", conflict.Key, conflict.Version)
		case err != nil:
			t.Fatal(err)
		default:
			fmt.Fprintf(&out, "committed at %d\n", version)
			for _, op := range ops {
				versions[op.Key] = version
			}
		}
		if variant > 0 && interruptions.IntN(20) == 0 {
			switch interruptions.IntN(3) {
			case 0:
				if err := s.Snapshot(t.Context()); err != nil {
					t.Fatal(err)
				}
			case 1:
				e.Close(t)
				s = e.Open(t, o)
			case 2:
				after := e.Crash(t, interruptions.Uint64())
				e.Close(t)
				e = after
				s = e.Open(t, o)
			}
		}
	}
	out.WriteString(state(s))
	return out.String()
}

func groups(t *testing.T, e Environment) {
	s := e.Open(t, meta.Options{SnapshotBytes: 2000})
	const callers, each = 16, 25
	var mu sync.Mutex
	won := map[string]int{}
	versions := map[meta.Version]bool{}
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for i := range each {
				key := fmt.Sprintf("race/%d", i)
				version, err := s.Commit(context.Background(), meta.Op{Key: key, Value: fmt.Append(nil, caller), Cond: meta.Absent})
				var conflict *meta.ConflictError
				if errors.As(err, &conflict) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				won[key]++
				if versions[version] {
					t.Errorf("version %d was given twice", version)
				}
				versions[version] = true
				mu.Unlock()
				if r, ok := s.Get(key); !ok || r.Version != version || string(r.Value) != fmt.Sprint(caller) {
					t.Errorf("%s is %+v after caller %d won it at %d", key, r, caller, version)
				}
			}
		})
	}
	group.Wait()
	if len(won) != each || slices.Max(slices.Collect(maps.Values(won))) != 1 {
		t.Errorf("winners: %v", won)
	}
	want := state(s)
	e.Close(t)
	if got := state(e.Open(t, meta.Options{})); got != want {
		t.Errorf("reopened as\n%swas\n%s", got, want)
	}
	e.Close(t)
}

func shardNumbers(t *testing.T, e Environment) {
	given := map[driver.ShardID]bool{}
	for round := range 6 {
		s := e.Open(t, meta.Options{SnapshotBytes: 50})
		for range 5 {
			first, err := s.NextShardID(t.Context(), 3)
			if err != nil {
				t.Fatal(err)
			}
			for i := range driver.ShardID(3) {
				if given[first+i] || first < 16 {
					t.Errorf("%d was given again", first+i)
				}
				given[first+i] = true
			}
		}
		after := e.Crash(t, uint64(round))
		e.Close(t)
		e = after
	}
}

func watcher(t *testing.T, e Environment) {
	for range 2 { // the second time the first call brings everything
		s := e.Open(t, meta.Options{})
		var mu sync.Mutex
		copied := map[string]meta.Change{}
		stop := make(chan struct{})
		var group sync.WaitGroup
		for w := range 4 {
			group.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), 3))
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					op := meta.Op{Key: fmt.Sprintf("w/%d", r.IntN(20)), Value: fmt.Append(nil, w, n), Delete: r.IntN(3) == 0, Cond: meta.Cond(r.IntN(3))}
					_, err := s.Commit(context.Background(), op, meta.Op{Key: "elsewhere"})
					var conflict *meta.ConflictError
					if err != nil && !errors.As(err, &conflict) {
						t.Error(err)
						return
					}
				}
			})
		}
		calls := 0
		done := make(chan struct{})
		cancel := s.Watch("w/", func(changes []meta.Change) {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range changes {
				if before, ok := copied[c.Key]; ok && c.Version <= before.Version {
					t.Errorf("%s went from version %d to %d", c.Key, before.Version, c.Version)
				}
				if c.Deleted {
					delete(copied, c.Key)
				} else {
					copied[c.Key] = c
				}
			}
			if calls++; calls == 200 {
				close(done)
			}
		})
		<-done
		close(stop)
		group.Wait()
		cancel()
		for _, r := range s.List("w/", "", 0) {
			c, ok := copied[r.Key]
			if !ok || c.Version != r.Version || string(c.Value) != string(r.Value) {
				t.Errorf("%s is %+v, the watcher has %+v", r.Key, r, c)
			}
			delete(copied, r.Key)
		}
		if len(copied) > 0 {
			t.Errorf("the watcher still has %v", copied)
		}
		e.Close(t)
	}
}

func givenUp(t *testing.T, e Environment) {
	s := e.Open(t, meta.Options{})
	outcome := map[string]bool{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 20 {
				ctx, cancel := context.WithCancel(context.Background())
				var cancelling sync.WaitGroup
				cancelling.Go(cancel)
				key := fmt.Sprintf("%d-%d", w, i)
				_, err := s.Commit(ctx, meta.Op{Key: key})
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				mu.Lock()
				outcome[key] = err == nil
				mu.Unlock()
				cancelling.Wait()
			}
		})
	}
	group.Wait()
	check := func(s *meta.Store) {
		for key, stored := range outcome {
			if _, ok := s.Get(key); ok != stored {
				t.Errorf("%s: there %v, answered %v", key, ok, stored)
			}
		}
	}
	check(s)
	e.Close(t)
	check(e.Open(t, meta.Options{}))
	e.Close(t)
}
