package meta_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

// scripted is a driver whose appends wait for a verdict: nil lets one through,
// an error is its answer.
type scripted struct {
	driver.Driver
	verdicts chan error
	counts   []int // records of each append that went through
}

func (d *scripted) Append(ctx context.Context, batches []*driver.Batch) error {
	if err := <-d.verdicts; err != nil {
		return err
	}
	d.counts = append(d.counts, batches[0].Count)
	return d.Driver.Append(ctx, batches)
}

func openScripted(t *testing.T) (*meta.Store, *scripted, func()) {
	t.Helper()
	d := &scripted{Driver: memory.New(memory.Options{}), verdicts: make(chan error)}
	log := shardlog.New(d, shardlog.Options{})
	s, err := meta.Open(t.Context(), log, nil, meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, d, func() {
		s.Close()
		log.Close()
	}
}

func TestConcurrentCommitsShareAnAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, end := openScripted(t)
		defer end()
		var group sync.WaitGroup
		group.Go(func() { s.Commit(t.Context(), put("first", "")) })
		synctest.Wait()
		for i := range 50 {
			group.Go(func() {
				if _, err := s.Commit(t.Context(), put(fmt.Sprint(i), "")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		d.verdicts <- nil
		d.verdicts <- nil
		group.Wait()
		if fmt.Sprint(d.counts) != "[1 50]" || s.Len() != 51 {
			t.Errorf("appends of %v commits", d.counts)
		}
	})
}

func TestCommitThatWaitsCanBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, end := openScripted(t)
		defer end()
		var group sync.WaitGroup
		taken, cancelTaken := context.WithCancel(t.Context())
		group.Go(func() {
			if _, err := s.Commit(taken, put("taken", "")); err != nil {
				t.Errorf("a commit that the log has: %v", err)
			}
		})
		synctest.Wait()
		cancelTaken()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Commit(ctx, put("waiting", "")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		d.verdicts <- nil
		group.Wait()
		if got := dump(s); got != "taken@1=\"\"\n" {
			t.Errorf("state is\n%s", got)
		}
	})
}

func TestQueuedBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, end := openScripted(t)
		defer end()
		value := make([]byte, 7<<20)
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				if _, err := s.Commit(t.Context(), meta.Op{Key: fmt.Sprint(i), Value: value}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Commit(ctx, meta.Op{Key: "more", Value: value}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fifth commit of 7 MiB: %v", err)
		}
		for range 4 {
			d.verdicts <- nil // two of them do not fit into one group
		}
		group.Wait()
		if fmt.Sprint(d.counts) != "[1 1 1 1]" {
			t.Errorf("appends of %v commits", d.counts)
		}
	})
}

func TestFullDiskIsAnAnswerAndNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, end := openScripted(t)
		defer end()
		var group sync.WaitGroup
		commit := func(key string, verdict error) (got error) {
			group.Go(func() { _, got = s.Commit(t.Context(), put(key, "")) })
			d.verdicts <- verdict
			group.Wait()
			return got
		}
		if err := commit("a", driver.ErrFull); !errors.Is(err, driver.ErrFull) {
			t.Errorf("got %v", err)
		}
		if err := commit("b", nil); err != nil {
			t.Errorf("with space again: %v", err)
		}
		if got := dump(s); got != "b@1=\"\"\n" {
			t.Errorf("state is\n%s", got)
		}
	})
}

func TestCloseFinishesWhatTheLogHasAndRefusesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, end := openScripted(t)
		var group sync.WaitGroup
		var stored, waiting error
		group.Go(func() { _, stored = s.Commit(t.Context(), put("a", "")) })
		synctest.Wait()
		group.Go(func() { _, waiting = s.Commit(t.Context(), put("b", "")) })
		synctest.Wait()
		group.Go(end)
		synctest.Wait()
		d.verdicts <- nil
		group.Wait()
		if stored != nil || !errors.Is(waiting, meta.ErrClosed) {
			t.Errorf("got %v and %v", stored, waiting)
		}
	})
}
