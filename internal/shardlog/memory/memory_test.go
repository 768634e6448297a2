package memory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newClock() *clock { return &clock{now: time.UnixMilli(1_000_000)} }

func batch(id driver.ShardID, count int, data string) *driver.Batch {
	return &driver.Batch{Shard: id, Count: count, Size: len(data), Payload: driver.Bytes(data)}
}

func create(t *testing.T, d driver.Driver, shards ...driver.Shard) {
	t.Helper()
	if err := d.Create(t.Context(), shards); err != nil {
		t.Fatal(err)
	}
}

func store(t *testing.T, d driver.Driver, batches ...*driver.Batch) {
	t.Helper()
	if err := d.Append(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
	}
}

func wantBounds(t *testing.T, d driver.Driver, id driver.ShardID, first, next driver.Index) {
	t.Helper()
	b, err := d.Bounds(t.Context(), id)
	if err != nil || b.First != first || b.Next != next {
		t.Errorf("bounds of %d are [%d, %d), %v; want [%d, %d)", id, b.First, b.Next, err, first, next)
	}
}

func TestRetentionAndTruncation(t *testing.T) {
	c := newClock()
	d := memory.New(memory.Options{Now: c.Now})
	create(t, d, driver.Shard{ID: 1, Retention: time.Hour}, driver.Shard{ID: 2})
	store(t, d, batch(1, 3, "abc"), batch(2, 3, "abc"))
	c.now = c.now.Add(59 * time.Minute)
	store(t, d, batch(1, 2, "de"), batch(2, 2, "de"))
	wantBounds(t, d, 1, 1, 6)
	c.now = c.now.Add(time.Minute)
	store(t, d, batch(1, 1, "f"))
	wantBounds(t, d, 1, 4, 7)
	wantBounds(t, d, 2, 1, 6)

	// A shorter retention affects what is stored, a longer one brings nothing back.
	c.now = c.now.Add(time.Minute)
	if err := d.SetRetention(t.Context(), time.Minute+time.Second, 1, 2); err != nil {
		t.Fatal(err)
	}
	wantBounds(t, d, 1, 6, 7)
	wantBounds(t, d, 2, 6, 6)

	// Within a batch: the batch stays, its first record does not.
	store(t, d, batch(2, 4, "ghij"))
	if err := d.Truncate(t.Context(), 2, 8); err != nil {
		t.Fatal(err)
	}
	d.Truncate(t.Context(), 2, 3)
	wantBounds(t, d, 2, 8, 10)
	batches, _, err := d.Read(t.Context(), 2, 1, 100, nil)
	if err != nil || len(batches) != 1 || batches[0].Base != 6 {
		t.Errorf("got %+v, %v", batches, err)
	}
	if at, _ := d.FirstAt(t.Context(), 2, 0); at != 8 {
		t.Errorf("first at the beginning is %d", at)
	}
	d.Truncate(t.Context(), 2, 100)
	wantBounds(t, d, 2, 10, 10)
}

func TestMemoryIsBoundedAndComesBack(t *testing.T) {
	c := newClock()
	d := memory.New(memory.Options{Now: c.Now, MaxBytes: 10_000})
	create(t, d, driver.Shard{ID: 1, Retention: time.Hour}, driver.Shard{ID: 2})
	data := string(make([]byte, 900))
	stored := 0
	for ; stored < 100; stored++ {
		err := d.Append(t.Context(), []*driver.Batch{batch(1, 1, data)})
		if errors.Is(err, driver.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if stored < 5 || stored > 11 {
		t.Fatalf("%d batches of 900 bytes fit into 10,000", stored)
	}
	wantBounds(t, d, 1, 1, driver.Index(stored)+1) // nothing went early, reads go on
	c.now = c.now.Add(time.Hour)
	for range stored {
		store(t, d, batch(2, 1, data)) // shard 1's records have expired
	}
	wantBounds(t, d, 1, driver.Index(stored)+1, driver.Index(stored)+1)
	if err := d.Append(t.Context(), []*driver.Batch{batch(1, 1, data)}); !errors.Is(err, driver.ErrFull) {
		t.Fatalf("got %v", err)
	}
	if err := d.Delete(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	store(t, d, batch(1, 1, data))
}

func TestExpiredRecordsOfQuietShardsGo(t *testing.T) {
	c := newClock()
	d := memory.New(memory.Options{Now: c.Now})
	create(t, d, driver.Shard{ID: 1, Retention: time.Minute}, driver.Shard{ID: 2})
	store(t, d, batch(1, 1, "a"))
	c.now = c.now.Add(2 * time.Minute)
	store(t, d, batch(2, 1, "a"))
	wantBounds(t, d, 1, 2, 2)
}

func TestArrivalTimesNeverGoBack(t *testing.T) {
	c := newClock()
	d := memory.New(memory.Options{Now: c.Now})
	start := c.now.UnixMilli()
	create(t, d, driver.Shard{ID: 1, NotBefore: start + 500})
	b := batch(1, 1, "a")
	store(t, d, b)
	if b.At != start+500 {
		t.Errorf("before the floor: %d", b.At-start)
	}
	c.now = c.now.Add(time.Second)
	store(t, d, b)
	c.now = c.now.Add(-time.Hour)
	store(t, d, b)
	if b.At != start+1000 || b.Base != 3 {
		t.Errorf("at %d, base %d", b.At-start, b.Base)
	}
	for at, want := range map[int64]driver.Index{0: 1, 500: 1, 501: 2, 1000: 2, 1001: 4} {
		if got, _ := d.FirstAt(t.Context(), 1, start+at); got != want {
			t.Errorf("first at %d is %d, want %d", at, got, want)
		}
	}
}

func TestReadKeepsToItsLimits(t *testing.T) {
	d := memory.New(memory.Options{})
	create(t, d, driver.Shard{ID: 1})
	for i := range 10 {
		store(t, d, batch(1, 2, fmt.Sprintf("%010d", i)))
	}
	for _, test := range []struct {
		from     driver.Index
		maxBytes int
		base     driver.Index
		batches  int
	}{
		{0, 1 << 20, 1, 10}, {1, 20, 1, 2}, {1, 29, 1, 2}, {1, 1, 1, 1}, {4, 30, 3, 3}, {20, 100, 19, 1}, {21, 100, 0, 0}, {99, 100, 0, 0},
	} {
		buf := append(make([]byte, 0, 64), "keep"...)
		batches, buf, err := d.Read(t.Context(), 1, test.from, test.maxBytes, buf)
		if err != nil || len(batches) != test.batches {
			t.Errorf("from %d, %d bytes: %d batches, %v", test.from, test.maxBytes, len(batches), err)
			continue
		}
		if !bytes.HasPrefix(buf, []byte("keep")) || len(buf) != 4+10*test.batches {
			t.Errorf("buffer is %q", buf)
		}
		for i, b := range batches {
			if b.Base != test.base+driver.Index(2*i) || string(b.Payload) != fmt.Sprintf("%010d", (b.Base-1)/2) {
				t.Errorf("batch %d is %+v", i, b)
			}
			if &b.Payload[0] != &buf[4+10*i] {
				t.Error("payload lies outside the returned buffer")
			}
		}
	}
}

func TestErrors(t *testing.T) {
	d := memory.New(memory.Options{})
	create(t, d, driver.Shard{ID: 1})
	if err := d.Create(t.Context(), []driver.Shard{{ID: 5}, {ID: 1}}); !errors.Is(err, driver.ErrExists) {
		t.Errorf("create: %v", err)
	}
	if _, err := d.Bounds(t.Context(), 5); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("half of a failed create is there: %v", err)
	}
	batches := []*driver.Batch{
		batch(1, 1, "a"), batch(9, 1, "b"), batch(1, driver.MaxBatchRecords+1, "c"), batch(1, 1, ""),
		{Shard: 1, Count: 1, Size: driver.MaxBatchBytes + 1}, batch(1, 1, "d"),
	}
	if err := d.Append(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(batches[1].Err, driver.ErrNotFound) || !errors.Is(batches[2].Err, driver.ErrTooLarge) ||
		batches[3].Err == nil || !errors.Is(batches[4].Err, driver.ErrTooLarge) || batches[5].Err != nil || batches[5].Base != 2 {
		t.Errorf("got %v", batches)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Append(cancelled, batches[:1]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d.Close()
	d.Close()
	for name, err := range map[string]error{
		"append":    d.Append(t.Context(), batches[:1]),
		"create":    d.Create(t.Context(), nil),
		"delete":    d.Delete(t.Context(), 1),
		"truncate":  d.Truncate(t.Context(), 1, 1),
		"retention": d.SetRetention(t.Context(), 0, 1),
	} {
		if !errors.Is(err, driver.ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
}

// Many writers, readers and truncations at once: each shard's records follow
// each other without gaps, and what is read is what was written at that index.
func TestConcurrentUseKeepsOrder(t *testing.T) {
	d := memory.New(memory.Options{})
	var notified sync.Map
	d.Notify(func(id driver.ShardID, next driver.Index, _ int64) { notified.Store(id, next) })
	create(t, d, driver.Shard{ID: 1}, driver.Shard{ID: 2})
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 300 {
				var batches []*driver.Batch
				for range 1 + r.IntN(4) {
					count := 1 + r.IntN(3)
					batches = append(batches, &driver.Batch{Shard: driver.ShardID(1 + r.IntN(2)), Count: count, Size: 8 * count, Payload: stamp{}})
				}
				if err := d.Append(context.Background(), batches); err != nil {
					t.Error(err)
				}
				for _, b := range batches {
					if bounds, _ := d.Bounds(context.Background(), b.Shard); bounds.Next < b.Base+driver.Index(b.Count) {
						t.Error("not readable at return")
					}
				}
				if r.IntN(20) == 0 {
					d.Truncate(context.Background(), 1, batches[0].Base)
				}
			}
		})
	}
	for id := range driver.ShardID(2) {
		group.Go(func() {
			from := driver.Index(0)
			for range 2000 {
				batches, _, err := d.Read(context.Background(), id+1, from, 100, nil)
				if err != nil {
					t.Error(err)
				}
				for _, b := range batches {
					want := make([]byte, 8*b.Count)
					stamp{}.Encode(want, b.Base, b.At)
					if !bytes.Equal(b.Payload, want) {
						t.Errorf("batch at %d holds % x", b.Base, b.Payload)
					}
					if from > 0 && b.Base > from && id == 1 {
						t.Errorf("%d follows %d", b.Base, from)
					}
					from = b.Next()
				}
			}
		})
	}
	group.Wait()
}

// stamp is a payload that tells the index it was stored at.
type stamp struct{}

func (stamp) Encode(dst []byte, base driver.Index, _ int64) {
	for i := 0; i < len(dst); i += 8 {
		dst[i] = byte(base)
		dst[i+1] = byte(base >> 8)
		base++
	}
}

func BenchmarkIdleShard(b *testing.B) {
	const n = 100_000
	shards := make([]driver.Shard, n)
	for i := range shards {
		shards[i] = driver.Shard{ID: driver.ShardID(i + 1), Retention: time.Hour}
	}
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		d := memory.New(memory.Options{})
		if err := d.Create(b.Context(), shards); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/shard")
		runtime.KeepAlive(d)
	}
}
