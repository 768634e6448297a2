// Package shardlogtest holds the suites that every engine passes: the contract,
// sentence by sentence of package driver's documentation, and for engines on a
// file system crashes, faults, damage and random histories.
//
// The idea is that an engine is judged only by what callers can see: RunContract
// and the model behind RunHistory know nothing of files. Start reading at
// RunContract.
package shardlogtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// RunContract checks everything package driver promises. open returns a fresh
// engine; the suite closes it.
func RunContract(t *testing.T, open func(t *testing.T) driver.Driver) {
	cases := []struct {
		name string
		run  func(t *testing.T, d driver.Driver)
	}{
		{"create makes all shards or none", testCreate},
		{"append assigns indexes without gaps in order", testIndexes},
		{"append reports failures by batch", testBatchErrors},
		{"arrival times never go back nor below the floor", testArrivalTimes},
		{"payload is told its place", testPayloadPlace},
		{"read returns whole batches within the limit", testReadLimits},
		{"read uses the caller's buffer", testReadBuffer},
		{"read of a missing shard fails", testReadMissing},
		{"first at finds the first record at or after a time", testFirstAt},
		{"truncate clamps and hides", testTruncate},
		{"delete drops shards and ignores unknown ones", testDelete},
		{"retention can be changed", testSetRetention},
		{"notification comes before append returns", testNotify},
		{"concurrent appends are all there once and in order", testConcurrent},
		{"ten thousand shards are created at once", testManyShards},
		{"everything fails after close", testClosed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			defer func() {
				if err := d.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.run(t, d)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, d driver.Driver, ids ...driver.ShardID) {
	t.Helper()
	shards := make([]driver.Shard, len(ids))
	for i, id := range ids {
		shards[i] = driver.Shard{ID: id, Retention: 24 * time.Hour}
	}
	must(t, d.Create(t.Context(), shards))
}

func batch(shard driver.ShardID, count int, payload string) *driver.Batch {
	return &driver.Batch{Shard: shard, Count: count, Size: len(payload), Payload: driver.Bytes(payload)}
}

func appendAll(t testing.TB, d driver.Driver, batches ...*driver.Batch) {
	t.Helper()
	must(t, d.Append(t.Context(), batches))
	for _, b := range batches {
		must(t, b.Err)
	}
}

func testCreate(t *testing.T, d driver.Driver) {
	create(t, d, 5)
	err := d.Create(t.Context(), []driver.Shard{{ID: 6}, {ID: 5}})
	if !errors.Is(err, driver.ErrExists) {
		t.Fatalf("creating an existing shard: %v, want ErrExists", err)
	}
	if _, err := d.Bounds(t.Context(), 6); !errors.Is(err, driver.ErrNotFound) {
		t.Fatalf("a shard of a failed create is there: %v", err)
	}
	if err := d.Create(t.Context(), []driver.Shard{{ID: 7}, {ID: 7}}); !errors.Is(err, driver.ErrExists) {
		t.Fatalf("creating a shard twice in one call: %v, want ErrExists", err)
	}
	must(t, d.Create(t.Context(), []driver.Shard{{ID: 6, NotBefore: 77}}))
	got, err := d.Bounds(t.Context(), 6)
	must(t, err)
	if want := (driver.Bounds{First: 1, Next: 1, LastAt: 77}); got != want {
		t.Fatalf("bounds of an empty shard are %+v, want %+v", got, want)
	}
	if batches, _, err := d.Read(t.Context(), 6, 0, 1<<20, nil); err != nil || len(batches) != 0 {
		t.Fatalf("reading an empty shard: %d batches, %v", len(batches), err)
	}
}

func testIndexes(t *testing.T, d driver.Driver) {
	create(t, d, 1, 2)
	batches := []*driver.Batch{batch(1, 3, "a"), batch(2, 1, "b"), batch(1, 2, "c")}
	appendAll(t, d, batches...)
	last := batch(1, 1, "d")
	appendAll(t, d, last)
	for i, want := range []driver.Index{1, 1, 4} {
		if batches[i].Base != want {
			t.Errorf("batch %d has base %d, want %d", i, batches[i].Base, want)
		}
	}
	if last.Base != 6 {
		t.Errorf("next append has base %d, want 6", last.Base)
	}
	got, _, err := d.Read(t.Context(), 1, 1, 1<<20, nil)
	must(t, err)
	var payloads []byte
	for _, b := range got {
		payloads = append(payloads, b.Payload...)
	}
	if string(payloads) != "acd" {
		t.Errorf("read %q, want the batches in order", payloads)
	}
}

func testBatchErrors(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	good := batch(1, 1, "good")
	missing := batch(2, 1, "missing")
	large := &driver.Batch{Shard: 1, Count: 1, Size: driver.MaxBatchBytes + 1, Payload: driver.Bytes(nil)}
	many := batch(1, driver.MaxBatchRecords+1, "many")
	after := batch(1, 1, "after")
	must(t, d.Append(t.Context(), []*driver.Batch{missing, good, large, many, after}))
	if !errors.Is(missing.Err, driver.ErrNotFound) {
		t.Errorf("batch of a missing shard: %v, want ErrNotFound", missing.Err)
	}
	for _, b := range []*driver.Batch{large, many} {
		if !errors.Is(b.Err, driver.ErrTooLarge) {
			t.Errorf("batch of %d records, %d bytes: %v, want ErrTooLarge", b.Count, b.Size, b.Err)
		}
	}
	if good.Err != nil || after.Err != nil || good.Base != 1 || after.Base != 2 {
		t.Errorf("good batches: %v at %d, %v at %d; want indexes 1 and 2", good.Err, good.Base, after.Err, after.Base)
	}
}

func testArrivalTimes(t *testing.T, d driver.Driver) {
	floor := time.Now().Add(time.Hour).UnixMilli()
	must(t, d.Create(t.Context(), []driver.Shard{{ID: 1, NotBefore: floor}, {ID: 2}}))
	b := batch(1, 1, "x")
	appendAll(t, d, b)
	if b.At != floor {
		t.Errorf("arrival time %d, want the floor %d", b.At, floor)
	}
	previous := int64(0)
	for range 20 {
		b := batch(2, 1, "x")
		appendAll(t, d, b)
		if b.At < previous {
			t.Errorf("arrival time went back from %d to %d", previous, b.At)
		}
		previous = b.At
	}
	got, err := d.Bounds(t.Context(), 2)
	must(t, err)
	if got.LastAt != previous {
		t.Errorf("LastAt is %d, want %d", got.LastAt, previous)
	}
}

// placed encodes its place.
type placed struct{}

func (placed) Encode(dst []byte, base driver.Index, at int64) {
	binary.BigEndian.PutUint64(dst, uint64(base))
	binary.BigEndian.PutUint64(dst[8:], uint64(at))
}

func testPayloadPlace(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	for range 3 {
		appendAll(t, d, &driver.Batch{Shard: 1, Count: 4, Size: 16, Payload: placed{}})
	}
	got, _, err := d.Read(t.Context(), 1, 1, 1<<20, nil)
	must(t, err)
	if len(got) != 3 {
		t.Fatalf("%d batches, want 3", len(got))
	}
	for _, b := range got {
		base, at := binary.BigEndian.Uint64(b.Payload), binary.BigEndian.Uint64(b.Payload[8:])
		if driver.Index(base) != b.Base || int64(at) != b.At {
			t.Errorf("payload was told index %d at %d, stored as %d at %d", base, at, b.Base, b.At)
		}
	}
}

func testReadLimits(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	for range 10 {
		appendAll(t, d, batch(1, 2, string(bytes.Repeat([]byte("x"), 100))))
	}
	tests := []struct {
		from      driver.Index
		max, want int
		base      driver.Index
	}{
		{0, 1 << 20, 10, 1},
		{1, 300, 3, 1},
		{1, 299, 2, 1},
		{1, 1, 1, 1},
		{1, 0, 1, 1},
		{2, 100, 1, 1},
		{3, 100, 1, 3},
		{20, 1 << 20, 1, 19},
		{21, 1 << 20, 0, 0},
		{math.MaxUint64, 1 << 20, 0, 0},
	}
	for _, test := range tests {
		got, _, err := d.Read(t.Context(), 1, test.from, test.max, nil)
		must(t, err)
		if len(got) != test.want || len(got) > 0 && got[0].Base != test.base {
			t.Errorf("read from %d of at most %d: %d batches %+v, want %d from %d", test.from, test.max, len(got), got, test.want, test.base)
		}
	}
}

func testReadBuffer(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	appendAll(t, d, batch(1, 1, "payload"))
	buf := append(make([]byte, 0, 4096), "kept"...)
	got, out, err := d.Read(t.Context(), 1, 1, 100, buf)
	must(t, err)
	if string(out[:4]) != "kept" || string(got[0].Payload) != "payload" {
		t.Fatalf("buffer %q, payload %q", out, got[0].Payload)
	}
	clear(out)
	again, _, err := d.Read(t.Context(), 1, 1, 100, nil)
	must(t, err)
	if string(again[0].Payload) != "payload" {
		t.Error("changing the returned buffer changed what is stored")
	}
}

func testReadMissing(t *testing.T, d driver.Driver) {
	if _, _, err := d.Read(t.Context(), 9, 1, 1, nil); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("read: %v, want ErrNotFound", err)
	}
	if _, err := d.Bounds(t.Context(), 9); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("bounds: %v, want ErrNotFound", err)
	}
	if _, err := d.FirstAt(t.Context(), 9, 1); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("first at: %v, want ErrNotFound", err)
	}
}

func testFirstAt(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	if got, err := d.FirstAt(t.Context(), 1, 0); err != nil || got != 1 {
		t.Fatalf("first at of an empty shard: %d, %v; want 1", got, err)
	}
	b := batch(1, 3, "x")
	appendAll(t, d, b)
	for _, test := range []struct {
		at   int64
		want driver.Index
	}{{0, 1}, {b.At, 1}, {b.At + 1, 4}, {math.MaxInt64, 4}} {
		got, err := d.FirstAt(t.Context(), 1, test.at)
		must(t, err)
		if got != test.want {
			t.Errorf("first at %d (records are at %d) is %d, want %d", test.at, b.At, got, test.want)
		}
	}
	must(t, d.Truncate(t.Context(), 1, 3))
	if got, err := d.FirstAt(t.Context(), 1, 0); err != nil || got != 3 {
		t.Errorf("first at after truncation: %d, %v; want 3", got, err)
	}
}

func testTruncate(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	for range 3 {
		appendAll(t, d, batch(1, 2, "x"))
	}
	for _, step := range []struct{ before, first driver.Index }{{0, 1}, {4, 4}, {2, 4}, {99, 7}} {
		must(t, d.Truncate(t.Context(), 1, step.before))
		got, err := d.Bounds(t.Context(), 1)
		must(t, err)
		if got.First != step.first || got.Next != 7 {
			t.Fatalf("after truncating before %d bounds are %+v, want first %d", step.before, got, step.first)
		}
		batches, _, err := d.Read(t.Context(), 1, 0, 1<<20, nil)
		must(t, err)
		for _, b := range batches {
			if b.Next() <= step.first {
				t.Errorf("batch %d–%d is readable below %d", b.Base, b.Next(), step.first)
			}
		}
	}
	b := batch(1, 1, "y")
	appendAll(t, d, b)
	if b.Base != 7 {
		t.Errorf("append after truncation has base %d, want 7", b.Base)
	}
}

func testDelete(t *testing.T, d driver.Driver) {
	create(t, d, 1, 2)
	appendAll(t, d, batch(1, 1, "x"), batch(2, 1, "y"))
	must(t, d.Delete(t.Context(), 1, 99))
	must(t, d.Delete(t.Context(), 1))
	must(t, d.Delete(t.Context()))
	testReadMissingShard(t, d, 1)
	b := batch(1, 1, "x")
	must(t, d.Append(t.Context(), []*driver.Batch{b}))
	if !errors.Is(b.Err, driver.ErrNotFound) {
		t.Errorf("append to a deleted shard: %v, want ErrNotFound", b.Err)
	}
	if got, err := d.Bounds(t.Context(), 2); err != nil || got.Next != 2 {
		t.Errorf("the other shard: %+v, %v", got, err)
	}
}

func testReadMissingShard(t *testing.T, d driver.Driver, id driver.ShardID) {
	t.Helper()
	if _, _, err := d.Read(t.Context(), id, 1, 1, nil); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("read of shard %d: %v, want ErrNotFound", id, err)
	}
}

func testSetRetention(t *testing.T, d driver.Driver) {
	create(t, d, 1, 2, 3)
	appendAll(t, d, batch(1, 1, "x"))
	must(t, d.SetRetention(t.Context(), 48*time.Hour, 1, 3))
	if got, _, err := d.Read(t.Context(), 1, 1, 10, nil); err != nil || len(got) != 1 {
		t.Errorf("%d batches, %v", len(got), err)
	}
}

func testNotify(t *testing.T, d driver.Driver) {
	type event struct {
		shard driver.ShardID
		next  driver.Index
		at    int64
	}
	var mu sync.Mutex
	var last event
	d.Notify(func(shard driver.ShardID, next driver.Index, at int64) {
		mu.Lock()
		defer mu.Unlock()
		last = event{shard, next, at}
	})
	create(t, d, 1)
	for i := range 5 {
		b := batch(1, 2, "x")
		appendAll(t, d, b)
		mu.Lock()
		if want := (event{1, driver.Index(2*i + 3), b.At}); last != want {
			t.Errorf("last notification is %+v, want %+v", last, want)
		}
		mu.Unlock()
	}
}

func testConcurrent(t *testing.T, d driver.Driver) {
	const writers, rounds, shards = 8, 40, 3
	create(t, d, 1, 2, 3)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range rounds {
				var batches []*driver.Batch
				for s := range shards {
					batches = append(batches, batch(driver.ShardID(s+1), 1+n%3, fmt.Sprintf("%d/%d", w, n)))
				}
				if err := d.Append(context.Background(), batches); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for s := range shards {
		id := driver.ShardID(s + 1)
		next := [writers]int{}
		from := driver.Index(1)
		for {
			got, _, err := d.Read(t.Context(), id, from, 100, nil)
			must(t, err)
			if len(got) == 0 {
				break
			}
			for _, b := range got {
				var w, n int
				fmt.Sscanf(string(b.Payload), "%d/%d", &w, &n)
				if b.Base != from || n != next[w] {
					t.Fatalf("shard %d: batch %q at %d, want number %d at %d", id, b.Payload, b.Base, next[w], from)
				}
				next[w]++
				from = b.Next()
			}
		}
		for w, n := range next {
			if n != rounds {
				t.Errorf("shard %d has %d batches of writer %d, want %d", id, n, w, rounds)
			}
		}
	}
}

func testManyShards(t *testing.T, d driver.Driver) {
	const n = 10_000
	shards := make([]driver.Shard, n)
	for i := range shards {
		shards[i] = driver.Shard{ID: driver.ShardID(100 + i), Retention: time.Hour}
	}
	must(t, d.Create(t.Context(), shards))
	var batches []*driver.Batch
	for i := 0; i < n; i += 100 {
		batches = append(batches, batch(driver.ShardID(100+i), 1, "x"))
	}
	appendAll(t, d, batches...)
	ids := make([]driver.ShardID, n)
	for i := range ids {
		ids[i] = driver.ShardID(100 + i)
	}
	must(t, d.Delete(t.Context(), ids...))
	testReadMissingShard(t, d, 100)
}

func testClosed(t *testing.T, d driver.Driver) {
	create(t, d, 1)
	must(t, d.Close())
	for name, err := range map[string]error{
		"create":    d.Create(t.Context(), []driver.Shard{{ID: 2}}),
		"append":    d.Append(t.Context(), []*driver.Batch{batch(1, 1, "x")}),
		"truncate":  d.Truncate(t.Context(), 1, 1),
		"delete":    d.Delete(t.Context(), 1),
		"retention": d.SetRetention(t.Context(), time.Hour, 1),
		"bounds":    func() error { _, err := d.Bounds(t.Context(), 1); return err }(),
		"read":      func() error { _, _, err := d.Read(t.Context(), 1, 1, 1, nil); return err }(),
		"first at":  func() error { _, err := d.FirstAt(t.Context(), 1, 1); return err }(),
	} {
		if !errors.Is(err, driver.ErrClosed) {
			t.Errorf("%s after close: %v, want ErrClosed", name, err)
		}
	}
}
