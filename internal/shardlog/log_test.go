package shardlog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gated is a driver whose appends wait until they are let through.
type gated struct {
	driver.Driver
	arrived atomic.Int32
	pass    chan struct{}
}

func (g *gated) Append(ctx context.Context, batches []*driver.Batch) error {
	g.arrived.Add(1)
	<-g.pass
	return g.Driver.Append(ctx, batches)
}

func newGated(t *testing.T, o shardlog.Options, shards ...driver.ShardID) (*shardlog.Log, *gated) {
	t.Helper()
	g := &gated{Driver: memory.New(memory.Options{}), pass: make(chan struct{})}
	log := shardlog.New(g, o)
	for _, id := range shards {
		if err := log.Create(t.Context(), []driver.Shard{{ID: id}}); err != nil {
			t.Fatal(err)
		}
	}
	return log, g
}

func newLog(t *testing.T, shards ...driver.ShardID) *shardlog.Log {
	t.Helper()
	log, g := newGated(t, shardlog.Options{}, shards...)
	close(g.pass)
	t.Cleanup(func() { log.Close() })
	return log
}

func appendOne(log *shardlog.Log, id driver.ShardID, data string) error {
	b := shardlog.NewBatch(id, []byte(data))
	if err := log.Append(context.Background(), []*driver.Batch{b}); err != nil {
		return err
	}
	return b.Err
}

func TestFenceWaitsForAppendsInFlightAndRefusesLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, g := newGated(t, shardlog.Options{}, 1, 2)
		first := make(chan error, 1)
		fenced := make(chan error, 2)
		var group sync.WaitGroup
		group.Go(func() { first <- appendOne(log, 1, "a") })
		synctest.Wait()
		group.Go(func() { fenced <- log.Fence(t.Context(), 1) })
		group.Go(func() { fenced <- log.Fence(t.Context(), 1) })
		synctest.Wait()
		if len(fenced) != 0 {
			t.Fatal("fenced while an append was in flight")
		}
		if err := appendOne(log, 1, "b"); !errors.Is(err, shardlog.ErrFenced) {
			t.Fatalf("append behind the fence: %v", err)
		}
		close(g.pass)
		synctest.Wait()
		if len(fenced) != 2 || len(first) != 1 || <-first != nil || <-fenced != nil {
			t.Fatal("fence did not end when the append did")
		}
		bounds, _ := log.Bounds(t.Context(), 1)
		if bounds.Next != 2 {
			t.Errorf("next is %d", bounds.Next)
		}

		// One call with both shards: the other is served.
		batches := []*driver.Batch{shardlog.NewBatch(2, []byte("x")), shardlog.NewBatch(1, []byte("y")), shardlog.NewBatch(2, []byte("z"))}
		if err := log.Append(t.Context(), batches); err != nil {
			t.Fatal(err)
		}
		if batches[0].Err != nil || !errors.Is(batches[1].Err, shardlog.ErrFenced) || batches[2].Err != nil || batches[2].Base != 2 {
			t.Errorf("got %v, %v, %v", batches[0].Err, batches[1].Err, batches[2].Err)
		}

		log.Unfence(1)
		if err := appendOne(log, 1, "c"); err != nil {
			t.Errorf("after unfence: %v", err)
		}
		group.Wait()
		log.Close()
	})
}

func TestFenceThatGivesUpLeavesTheShardOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, g := newGated(t, shardlog.Options{}, 1)
		var group sync.WaitGroup
		group.Go(func() { appendOne(log, 1, "a") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := log.Fence(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		close(g.pass)
		if err := appendOne(log, 1, "b"); err != nil {
			t.Errorf("append after it: %v", err)
		}
		group.Wait()
		log.Close()
	})
}

func TestDeletionEndsAFence(t *testing.T) {
	log := newLog(t, 1)
	if err := log.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := log.Delete(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := appendOne(log, 1, "a"); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

type counts struct {
	mu             sync.Mutex
	waited, gaveUp int
	batches        int
	records        int
	bytes          int64
	failed         int
}

func (c *counts) AppendDone(batches, records int, bytes int64, _ time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches, c.records, c.bytes = c.batches+batches, c.records+records, c.bytes+bytes
	if err != nil {
		c.failed++
	}
}

func (c *counts) AppendWaited(_ time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited++
	if err != nil {
		c.gaveUp++
	}
}

func TestAdmissionBoundsBytesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counts
		log, g := newGated(t, shardlog.Options{MaxInflightBytes: 100, Metrics: &c}, 1)
		record := string(make([]byte, 39)) // 40 bytes with its frame
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				if err := appendOne(log, 1, record); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := g.arrived.Load(); n != 2 {
			t.Fatalf("%d appends of 40 bytes in flight under a bound of 100", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := log.Append(ctx, []*driver.Batch{shardlog.NewBatch(1, []byte(record))})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waiting ended with %v", err)
		}
		// A fence does not wait for those that are not admitted yet.
		fenced := make(chan error, 1)
		group.Go(func() { fenced <- log.Fence(t.Context(), 2) })
		synctest.Wait()
		if len(fenced) != 1 {
			t.Error("fence of another shard waits")
		}
		close(g.pass)
		group.Wait()
		// More than the bound, alone.
		if err := appendOne(log, 1, string(make([]byte, 1000))); err != nil {
			t.Errorf("append over the bound: %v", err)
		}
		if c.waited != 2 || c.gaveUp != 1 || c.batches != 4 || c.records != 4 || c.bytes != 3*40+1002 || c.failed != 0 {
			t.Errorf("metrics: %+v", &c)
		}
		log.Close()
	})
}

func TestTailWakesEveryWaiterOnce(t *testing.T) {
	log := newLog(t, 1, 2)
	next, changed := log.Tail(1)
	_, same := log.Tail(1)
	_, other := log.Tail(2)
	if next != 1 || changed != same {
		t.Fatalf("next %d; waiters share a channel: %v", next, changed == same)
	}
	if err := appendOne(log, 1, "a"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("not woken")
	}
	select {
	case <-other:
		t.Error("waiter of another shard woken")
	default:
	}
	if next, _ := log.Tail(1); next != 2 {
		t.Errorf("next is %d", next)
	}
}

func TestTailEndsWithTheShardAndTheLog(t *testing.T) {
	log := newLog(t, 1, 2)
	_, deleted := log.Tail(1)
	_, ended := log.Tail(2)
	log.Delete(t.Context(), 1)
	<-deleted
	if next, changed := log.Tail(1); next != 0 {
		t.Errorf("next of a deleted shard is %d", next)
	} else {
		<-changed
	}
	log.Close()
	<-ended
	_, changed := log.Tail(2)
	<-changed
}

func TestTailLosesNoWakeUp(t *testing.T) {
	const appends, readers = 2000, 4
	log := newLog(t, 1)
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			from := driver.Index(1)
			var buf []byte
			for from <= appends {
				next, changed := log.Tail(1)
				if next == from {
					<-changed
					continue
				}
				batches, b, err := log.Read(context.Background(), 1, from, 1<<10, buf[:0])
				if err != nil || len(batches) == 0 {
					t.Errorf("read from %d below %d: %d batches, %v", from, next, len(batches), err)
					return
				}
				buf = b
				from = batches[len(batches)-1].Next()
			}
		})
	}
	for i := range appends {
		if err := appendOne(log, 1, fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
		if i%16 == 0 {
			runtime.Gosched()
		}
	}
	group.Wait()
}

// interrupted runs a function within Bounds, after the answer is decided.
type interrupted struct {
	driver.Driver
	between func()
}

func (d *interrupted) Bounds(ctx context.Context, id driver.ShardID) (driver.Bounds, error) {
	bounds, err := d.Driver.Bounds(ctx, id)
	if f := d.between; f != nil {
		d.between = nil
		f()
	}
	return bounds, err
}

func TestTailHearsOfWhatHappensWhileItLooks(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(log *shardlog.Log) error
	}{
		{"append", func(log *shardlog.Log) error { return appendOne(log, 1, "a") }},
		{"deletion", func(log *shardlog.Log) error { return log.Delete(context.Background(), 1) }},
		{"end", func(log *shardlog.Log) error { return log.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &interrupted{Driver: memory.New(memory.Options{})}
			log := shardlog.New(d, shardlog.Options{})
			defer log.Close()
			if err := log.Create(t.Context(), []driver.Shard{{ID: 1}}); err != nil {
				t.Fatal(err)
			}
			d.between = func() {
				if err := test.do(log); err != nil {
					t.Error(err)
				}
			}
			next, changed := log.Tail(1)
			if next != 1 {
				t.Fatalf("next is %d", next)
			}
			select {
			case <-changed:
			default:
				t.Error("nobody would ever tell")
			}
		})
	}
}

func TestWaitersThatWentAwayAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := make([]driver.ShardID, 1000)
		for i := range ids {
			ids[i] = driver.ShardID(i + 1)
		}
		log, g := newGated(t, shardlog.Options{}, ids...)
		close(g.pass)
		abandoned := make([]<-chan struct{}, len(ids))
		for i, id := range ids {
			_, abandoned[i] = log.Tail(id)
		}
		if n := log.Waiting(); n != len(ids) {
			t.Fatalf("%d channels", n)
		}
		time.Sleep(3 * time.Minute)
		// One of each stripe shows up.
		for _, id := range ids[:64] {
			log.Tail(id)
		}
		if n := log.Waiting(); n != 64 {
			t.Errorf("%d channels are kept", n)
		}
		for _, changed := range abandoned {
			<-changed // whoever does still wait, comes back
		}
		log.Close()
		if n := log.Waiting(); n != 0 {
			t.Errorf("%d channels after close", n)
		}
	})
}

func TestIdleShardsCostNothing(t *testing.T) {
	log := newLog(t, 1)
	for range 100 {
		if err := appendOne(log, 1, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if n := log.Gates() + log.Waiting(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, shards := range []int{1, 500} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			log := shardlog.New(discard{}, shardlog.Options{})
			batches := make([]*driver.Batch, shards)
			for i := range batches {
				batches[i] = shardlog.NewBatch(driver.ShardID(i), []byte("record"))
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := log.Append(b.Context(), batches); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// discard is a driver that takes every append and keeps nothing.
type discard struct{ driver.Driver }

func (discard) Append(context.Context, []*driver.Batch) error    { return nil }
func (discard) Notify(func(driver.ShardID, driver.Index, int64)) {}
