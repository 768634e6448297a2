package meta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLog(t *testing.T) *shardlog.Log {
	t.Helper()
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	t.Cleanup(func() { log.Close() })
	return log
}

func open(t *testing.T, log *shardlog.Log, fs vfs.FS, o meta.Options) *meta.Store {
	t.Helper()
	s, err := meta.Open(t.Context(), log, fs, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func commit(t *testing.T, s *meta.Store, ops ...meta.Op) meta.Version {
	t.Helper()
	v, err := s.Commit(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func put(key, value string) meta.Op { return meta.Op{Key: key, Value: []byte(value)} }

// dump is the state as text, for comparing.
func dump(s *meta.Store) string {
	text := ""
	for _, r := range s.List("", "", 0) {
		text += fmt.Sprintf("%s@%d=%.40q\n", r.Key, r.Version, r.Value)
	}
	return text
}

func TestConditionsAreDecidedInOrder(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	v := commit(t, s, put("a", "1"))
	for _, test := range []struct {
		name     string
		op       meta.Op
		conflict bool
	}{
		{"absent key that is there", meta.Op{Key: "a", Cond: meta.Absent}, true},
		{"absent key that is not there", meta.Op{Key: "b", Cond: meta.Absent}, false},
		{"present key that is not there", meta.Op{Key: "c", Cond: meta.Present}, true},
		{"delete of what is not there", meta.Op{Key: "c", Delete: true}, false},
		{"conditional delete of what is not there", meta.Op{Key: "c", Delete: true, Cond: meta.Present}, true},
		{"version of a key that is not there", meta.Op{Key: "c", Cond: meta.IfVersion, Version: 0}, true},
		{"other version", meta.Op{Key: "a", Cond: meta.IfVersion, Version: v + 1}, true},
		{"same version", meta.Op{Key: "a", Value: []byte("2"), Cond: meta.IfVersion, Version: v}, false},
		{"version from before", meta.Op{Key: "a", Cond: meta.IfVersion, Version: v}, true},
		{"present", meta.Op{Key: "a", Value: []byte("3"), Cond: meta.Present}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := s.Commit(t.Context(), test.op)
			var conflict *meta.ConflictError
			if got := errors.As(err, &conflict); got != test.conflict {
				t.Fatalf("got error %v, want conflict: %v", err, test.conflict)
			}
			if test.conflict && conflict.Key != test.op.Key {
				t.Errorf("conflict names %q", conflict.Key)
			}
		})
	}
	if r, _ := s.Get("a"); string(r.Value) != "3" {
		t.Errorf("a is %q", r.Value)
	}
}

func TestAFailedConditionUndoesTheWholeCommit(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	commit(t, s, put("here", "1"))
	before := dump(s)
	_, err := s.Commit(t.Context(), put("x", "1"), meta.Op{Key: "here", Delete: true}, meta.Op{Key: "here", Cond: meta.Absent})
	var conflict *meta.ConflictError
	if !errors.As(err, &conflict) || conflict.Key != "here" || conflict.Version != 1 {
		t.Fatalf("got %v", err)
	}
	if after := dump(s); after != before {
		t.Errorf("state is now\n%s", after)
	}
}

func TestListIsOrderedAndPaged(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	var ops []meta.Op
	for i := range 300 {
		ops = append(ops, put(fmt.Sprintf("t/%03d", i), "v"))
	}
	commit(t, s, append(ops, put("s", "v"), put("t", "v"), put("u", "v"))...)
	var keys []string
	for after := ""; ; {
		page := s.List("t/", after, 7)
		for _, r := range page {
			keys = append(keys, r.Key)
		}
		if len(page) < 7 {
			break
		}
		after = page[6].Key
	}
	if len(keys) != 300 || !slices.IsSorted(keys) || keys[0] != "t/000" || keys[299] != "t/299" {
		t.Errorf("got %d keys: %v", len(keys), keys)
	}
	if got := s.List("t/", "t/299x", 0); len(got) != 0 {
		t.Errorf("after the last: %v", got)
	}
	if got := s.List("t/", "a", 1); len(got) != 1 || got[0].Key != "t/000" {
		t.Errorf("after something before the prefix: %v", got)
	}
}

func TestWatchSeesEveryCommitOnceBeforeItReturns(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	commit(t, s, put("w/0", "old"), put("other", "x"))
	var mu sync.Mutex
	seen := map[string]int{}
	var versions []meta.Version
	cancel := s.Watch("w/", func(changes []meta.Change) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range changes {
			seen[c.Key]++
			versions = append(versions, c.Version)
		}
	})
	if seen["w/0"] != 1 || len(seen) != 1 {
		t.Fatalf("first call showed %v", seen)
	}
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 50 {
				key := fmt.Sprintf("w/%d-%d", w, i)
				if _, err := s.Commit(context.Background(), put(key, "x"), put("other", "y")); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if seen[key] != 1 {
					t.Errorf("%s was shown %d times when its commit returned", key, seen[key])
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(seen) != 401 || !slices.IsSorted(versions) {
		t.Errorf("%d keys seen, in order: %v", len(seen), slices.IsSorted(versions))
	}
	v := commit(t, s, meta.Op{Key: "w/0", Delete: true}, meta.Op{Key: "w/none", Delete: true})
	if seen["w/0"] != 2 || seen["w/none"] != 0 || versions[len(versions)-1] != v {
		t.Errorf("deletion was shown as %v", seen)
	}
	cancel()
	cancel()
	commit(t, s, put("w/later", "x"))
	if seen["w/later"] != 0 {
		t.Error("called after cancel")
	}
}

func TestAnotherStoreOnTheSameLogFollows(t *testing.T) {
	log := newLog(t)
	a, b := open(t, log, nil, meta.Options{}), open(t, log, nil, meta.Options{})
	arrived := make(chan meta.Change, 1)
	cancel := b.Watch("", func(changes []meta.Change) {
		for _, c := range changes {
			arrived <- c
		}
	})
	commit(t, a, put("k", "1"))
	select {
	case c := <-arrived:
		if c.Key != "k" || c.Version != 1 {
			t.Errorf("got %+v", c)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing arrived")
	}
	cancel()
	// Both compete; each verdict is the log's.
	var group sync.WaitGroup
	for _, s := range []*meta.Store{a, b} {
		group.Go(func() {
			for i := 0; i < 100; {
				r, _ := s.Get("n")
				op := meta.Op{Key: "n", Value: append(slices.Clone(r.Value), 'x'), Cond: meta.IfVersion, Version: r.Version}
				if r.Version == 0 {
					op.Cond = meta.Absent
				}
				_, err := s.Commit(context.Background(), op)
				var conflict *meta.ConflictError
				switch {
				case err == nil:
					i++
				case !errors.As(err, &conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	commit(t, a, put("end", ""))
	commit(t, b, put("end", ""))
	if r, _ := b.Get("n"); len(r.Value) != 200 {
		t.Errorf("%d of 200 increments took effect", len(r.Value))
	}
}

func TestShardNumbersAreNeverGivenTwice(t *testing.T) {
	log := newLog(t)
	s := open(t, log, nil, meta.Options{})
	var mu sync.Mutex
	given := map[driver.ShardID]bool{}
	take := func(s *meta.Store, n int) {
		first, err := s.NextShardID(context.Background(), n)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range n {
			id := first + driver.ShardID(i)
			if given[id] || id < 16 {
				t.Errorf("%d given again", id)
			}
			given[id] = true
		}
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := range 10 {
				take(s, n+1)
			}
		})
	}
	group.Wait()
	s.Close()
	take(open(t, log, nil, meta.Options{}), 3)
	if !given[16] || len(given) != 8*55+3 {
		t.Errorf("%d given", len(given))
	}
	if _, err := s.NextShardID(t.Context(), 0); err == nil {
		t.Error("none were allotted without complaint")
	}
}

func TestCommitRefusesWhatIsTooLarge(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	big := make([]byte, meta.MaxCommitBytes)
	if _, err := s.Commit(t.Context(), meta.Op{Key: "k", Value: big}); !errors.Is(err, meta.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Commit(t.Context(), meta.Op{Key: "k", Value: big[:len(big)-100]}); err != nil {
		t.Errorf("got %v", err)
	}
	for _, key := range []string{"", string(make([]byte, meta.MaxKeyBytes+1))} {
		if _, err := s.Commit(t.Context(), meta.Op{Key: key}); !errors.Is(err, meta.ErrKey) {
			t.Errorf("key of %d bytes: %v", len(key), err)
		}
	}
}

func TestClosedStoreRefusesCommitsAndGoesOnReading(t *testing.T) {
	s := open(t, newLog(t), nil, meta.Options{})
	commit(t, s, put("k", "v"))
	s.Close()
	if _, err := s.Commit(t.Context(), put("k", "w")); !errors.Is(err, meta.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if r, ok := s.Get("k"); !ok || string(r.Value) != "v" {
		t.Error("cannot be read")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheEndOfTheLogEndsTheStore(t *testing.T) {
	log := newLog(t)
	s := open(t, log, nil, meta.Options{})
	log.Close()
	if _, err := s.Commit(t.Context(), put("k", "v")); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestKeysAreUnambiguous(t *testing.T) {
	for _, test := range []struct {
		parts []string
		want  string
	}{
		{[]string{"streams", "a"}, "streams/a"},
		{[]string{"a/b", "c%"}, "a%2Fb/c%25"},
		{[]string{"", "x", ""}, "%/x/%"},
		{[]string{"\x00\x1f\x7f", "ü"}, "%00%1F%7F/ü"},
		{[]string{"%"}, "%25"},
	} {
		got := meta.Key(test.parts...)
		if got != test.want {
			t.Errorf("Key(%q) = %q, want %q", test.parts, got, test.want)
		}
		if back, err := meta.SplitKey(got); err != nil || !slices.Equal(back, test.parts) {
			t.Errorf("SplitKey(%q) = %q, %v", got, back, err)
		}
	}
	for _, key := range []string{"", "a//b", "a/", "a%", "%2f", "%41", "a%2", "%%"} {
		if parts, err := meta.SplitKey(key); err == nil {
			t.Errorf("SplitKey(%q) = %q", key, parts)
		}
	}
}
