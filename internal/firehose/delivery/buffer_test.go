package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/vfs"
)

func fill(b *buffer, rng *rand.Rand, n int) []record.Record {
	var out []record.Record
	for i := range n {
		r := record.Record{Data: make([]byte, rng.IntN(9000)), Arrival: rng.Int64N(1 << 40)}
		if rng.IntN(50) == 0 {
			r.Data = make([]byte, 300<<10)
		}
		for k := range r.Data {
			r.Data[k] = byte(rng.Uint32())
		}
		r.Index, r.Sub = uint64(i), uint32(rng.IntN(3))
		if rng.IntN(2) == 0 {
			r.PartitionKey = fmt.Append(nil, "key", i)
		}
		if rng.IntN(4) == 0 {
			r.Original = []byte("original")
		}
		if rng.IntN(4) == 0 {
			r.Table = &record.Table{Database: "d", Name: fmt.Sprint("t", rng.IntN(2)), Operation: "insert"}
		}
		out = append(out, r)
		b.append(uint32(i), &r)
	}
	return out
}

func check(t *testing.T, b *buffer, want []record.Record) {
	t.Helper()
	n := 0
	err := b.each(func(serial uint32) record.Lane { return &lane{name: fmt.Sprint(serial)} }, func(i int, r *record.Record) error {
		w := want[i]
		if i != n || !bytes.Equal(r.Data, w.Data) || !bytes.Equal(r.PartitionKey, w.PartitionKey) || (r.PartitionKey == nil) != (w.PartitionKey == nil) ||
			!bytes.Equal(r.Original, w.Original) || r.Arrival != w.Arrival || r.Position != w.Position || r.Lane.Name() != fmt.Sprint(w.Index) {
			t.Errorf("record %d: %.60v", i, r)
		}
		if (r.Table == nil) != (w.Table == nil) || r.Table != nil && *r.Table != *w.Table {
			t.Errorf("record %d: %+v", i, r.Table)
		}
		n++
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("%d of %d records: %v", n, len(want), err)
	}
}

// What was appended comes back as it was, from memory, from a file, and from
// both.
func TestBuffersKeepRecords(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMemory(), "disk": vfs.OS(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			m, err := newMemory(1<<30, fs)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			b := &buffer{memory: m}
			want := fill(b, rng, 100)
			check(t, b, want)
			for range 3 {
				held := b.held.Load()
				if n, err := b.spill(); err != nil || n != held || m.used != 0 {
					t.Errorf("spilled %d of %d, %d are left: %v", n, held, m.used, err)
				}
				check(t, b, want)
				want = append(want, fill(b, rng, 60)...)
				check(t, b, want)
			}
			b.close()
			b.close()
			if m.used != 0 || len(m.buffers) != 0 {
				t.Errorf("%d bytes of %d buffers are left", m.used, len(m.buffers))
			}
			if err := b.each(nil, nil); err == nil {
				t.Error("read after its end")
			}
			if names, err := fs.ReadDir("."); err != nil || len(names) != 0 {
				t.Errorf("%v, %v", names, err)
			}
		})
	}
}

// The largest buffers make room, unless somebody reads them.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMemory()
		m, err := newMemory(1<<20, fs)
		if err != nil {
			t.Fatal(err)
		}
		small, large := &buffer{memory: m}, &buffer{memory: m}
		small.append(0, &record.Record{Data: make([]byte, 200<<10)})
		large.append(0, &record.Record{Data: make([]byte, 900<<10)})
		if err := m.reserve(t.Context(), 100<<10); err != nil || large.held.Load() != 0 || small.held.Load() == 0 {
			t.Errorf("%v; %d and %d are held", err, large.held.Load(), small.held.Load())
		}
		large.append(0, &record.Record{Data: make([]byte, 900<<10)})
		small.pins.Add(1)
		large.pins.Add(1)
		done := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			defer close(done)
			if err := m.reserve(t.Context(), 100<<10); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if isClosed(done) {
			t.Error("there was no room")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.reserve(ctx, 100<<10); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		large.pins.Add(-1)
		large.close()
		group.Wait()
		small.pins.Add(-1)
		small.close()
	})
}

func TestSpoolIsClearedAtTheStart(t *testing.T) {
	fs := vfs.NewMemory()
	if err := vfs.WriteFile(fs, "0000000000000001"+spoolExtension, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(fs, "other", []byte("not ours")); err != nil {
		t.Fatal(err)
	}
	if _, err := newMemory(1, fs); err != nil {
		t.Fatal(err)
	}
	names, err := fs.ReadDir(".")
	if err != nil || len(names) != 1 || names[0].Name != "other" {
		t.Errorf("%v, %v", names, err)
	}
}

// A disk that is full, or breaks, keeps records in memory; it does not lose them.
func TestFailedSpillsKeepRecords(t *testing.T) {
	fs := vfs.NewMemory()
	m, err := newMemory(1<<30, fs)
	if err != nil {
		t.Fatal(err)
	}
	b := &buffer{memory: m}
	want := fill(b, rand.New(rand.NewPCG(1, 2)), 100)
	var faults vfs.Faults
	m.spool = vfs.WithFaults(fs, &faults)
	for n := 1; n <= 5; n += 2 {
		faults.Fail(vfs.WriteCall, n, errBroken)
		if n, err := b.spill(); err == nil || n != 0 {
			t.Errorf("%d, %v", n, err)
		}
		check(t, b, want)
	}
	if _, err := b.spill(); err != nil {
		t.Error(err)
	}
	check(t, b, want)
	b.close()
}

// Bytes that are not what append wrote end in an error, not in a panic.
func FuzzChunk(f *testing.F) {
	b := &buffer{memory: &memory{max: 1 << 30, buffers: map[*buffer]struct{}{}, freed: make(chan struct{})}}
	fill(b, rand.New(rand.NewPCG(1, 2)), 2)
	f.Add([]byte(b.chunks[0]))
	f.Add([]byte{7, 0, 1, 1, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, chunk []byte) {
		w := walker{laneOf: func(uint32) record.Lane { return nil }, f: func(int, *record.Record) error { return nil }}
		_ = w.chunk(chunk)
	})
}
