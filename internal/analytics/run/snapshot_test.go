package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// filled is an application of a program with some rows in it.
func filled(t testing.TB, program string, rows int) *run.Application {
	a := start(t, program)
	insert(t, a, rows, 0)
	return a
}

func insert(t testing.TB, a *run.Application, n int, from int64) {
	r := rand.New(rand.NewPCG(1, uint64(from)))
	null := plan.Value{Null: true}
	rows := run.NewRows(append(append([]plan.ColumnInfo(nil), sensor...), plan.HiddenColumns...))
	for i := range n {
		rows.Add(from+int64(i)*7, plan.Value{S: string(rune('a' + r.IntN(5)))}, plan.Value{S: string(rune('a' + r.IntN(2)))}, plan.Value{I: r.Int64N(100)}, plan.Value{F: 100 * r.Float64()}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
	}
	if err := a.Insert("IN", rows.Batch()); err != nil {
		t.Fatal(err)
	}
}

// output collects what a stream gets.
func output(t testing.TB, a *run.Application) *[]string {
	var lines []string
	columns, _ := a.Stream("OUT")
	if err := a.Tap("OUT", func(b *run.Batch) {
		for _, i := range b.Sel {
			lines = append(lines, time.UnixMilli(b.Time[i]).UTC().Format(time.RFC3339Nano)+string(run.AppendJSON(nil, columns, b, i)))
		}
	}); err != nil {
		t.Fatal(err)
	}
	return &lines
}

// What goes on from a snapshot gives the rows of what never stopped.
func TestGoingOnFromASnapshot(t *testing.T) {
	for program := range programs {
		if program == "forest" {
			continue // its cuts are drawn anew
		}
		t.Run(program, func(t *testing.T) {
			straight := filled(t, program, 500)
			want := output(t, straight)
			resumed := start(t, program)
			got := output(t, resumed)
			snapshot := straight.Snapshot(nil)
			if _, err := resumed.Restore(snapshot); err != nil {
				t.Fatal(err)
			}
			for _, a := range []*run.Application{straight, resumed} {
				insert(t, a, 500, 4000)
				if err := a.Advance("IN", 200_000); err != nil {
					t.Fatal(err)
				}
			}
			if len(*want) == 0 || len(*got) != len(*want) {
				t.Fatalf("%d rows, want %d", len(*got), len(*want))
			}
			seen := map[string]int{}
			for i := range *want {
				seen[(*want)[i]]++
				seen[(*got)[i]]--
			}
			for line, n := range seen {
				if n != 0 {
					t.Errorf("%+d %s", n, line)
				}
			}
		})
	}
}

func TestASnapshotOfAnotherProgram(t *testing.T) {
	snapshot := filled(t, "tumbling", 100).Snapshot(nil)
	kept, err := start(t, "sliding range").Restore(snapshot)
	if err != nil || len(kept) != 0 {
		t.Errorf("a pump with another query goes on: %v, %v", kept, err)
	}
}

// remembered is a small snapshot of each of the programs that keep something.
func remembered(t testing.TB) (names []string, snapshots map[string][]byte) {
	snapshots = map[string][]byte{}
	for name, program := range keepers {
		names = append(names, name)
		a := opened(t, program, run.Options{Workers: 1})
		if err := distinctRows(a, 0, 30); err != nil {
			t.Fatal(err)
		}
		snapshots[name] = a.Snapshot(nil)
	}
	slices.Sort(names)
	return names, snapshots
}

// A snapshot of which a byte is another, that ends too soon, that goes on too long
// or that a later version wrote is refused, for every operator.
func TestDamagedSnapshotsAreRefused(t *testing.T) {
	names, snapshots := remembered(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			snapshot := snapshots[name]
			refused := func(what string, damaged []byte) {
				t.Helper()
				if kept, err := opened(t, keepers[name], run.Options{Workers: 2}).Restore(damaged); !errors.Is(err, run.ErrSnapshot) || kept != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			step := len(snapshot)/500 + 1
			for i := 0; i < len(snapshot); i += step {
				damaged := slices.Clone(snapshot)
				damaged[i] ^= 0x40
				refused(fmt.Sprintf("byte %d is damaged", i), damaged)
				refused(fmt.Sprintf("cut at %d", i), snapshot[:i])
			}
			refused("bytes too many", append(slices.Clone(snapshot), 0))
			later, at := slices.Clone(snapshot), len("MRSQL")
			for later[at] >= 0x80 {
				at++ // the length of the first frame
			}
			later[at+1]++
			refused("of a later version", run.Resealed(later))
			if kept, err := opened(t, keepers[name], run.Options{Workers: 2}).Restore(snapshot); err != nil || len(kept) == 0 {
				t.Errorf("undamaged: %v, %v", kept, err)
			}
		})
	}
}

// What the reader of a snapshot fails with is what Restore says.
func TestRestoreSaysWhatReadingFailedWith(t *testing.T) {
	_, snapshots := remembered(t)
	snapshot := snapshots["OVER"]
	broken := errors.New("the disk is gone")
	r := io.MultiReader(bytes.NewReader(snapshot[:len(snapshot)/2]), iotest.ErrReader(broken))
	if _, err := opened(t, keepers["OVER"], run.Options{}).ReadSnapshot(r, int64(len(snapshot))); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if err := opened(t, keepers["OVER"], run.Options{}).WriteSnapshot(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// A frozen state is what it was, whatever comes after, and is written by one
// goroutine while another inserts.
func TestFrozenStateStaysAsItWas(t *testing.T) {
	for name, program := range keepers {
		t.Run(name, func(t *testing.T) {
			a := opened(t, program, run.Options{Workers: 2})
			if err := distinctRows(a, 0, 3000); err != nil {
				t.Fatal(err)
			}
			want := a.Snapshot(nil)
			frozen := a.Freeze()
			var got bytes.Buffer
			var writing sync.WaitGroup
			writing.Go(func() { _, _ = frozen.WriteTo(&got) })
			err := distinctRows(a, 3000, 3000)
			writing.Wait()
			if err != nil || int64(got.Len()) != frozen.Size() {
				t.Fatal(err, got.Len(), frozen.Size())
			}
			// Sets have no order, so bytes may differ where states do not.
			b := opened(t, program, run.Options{Workers: 2})
			if kept, err := b.Restore(got.Bytes()); err != nil || len(kept) == 0 {
				t.Fatal(kept, err)
			}
			if again := b.Snapshot(nil); len(again) != len(want) {
				t.Errorf("%d bytes, want %d", len(again), len(want))
			}
		})
	}
}

// Bytes of any kind, with checksums that are right, are refused or taken; they are
// no reason to fail, then or later, and make no more of themselves than their
// length allows.
func FuzzRestore(f *testing.F) {
	names, snapshots := remembered(f)
	for i, name := range names {
		f.Add(uint8(i), uint8(i), snapshots[name])
	}
	f.Fuzz(func(t *testing.T, which, workers uint8, raw []byte) {
		a := opened(t, keepers[names[int(which)%len(names)]], run.Options{Workers: int(workers%3) + 1, MemoryLimit: 64 << 20})
		raw = run.Resealed(raw)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := a.Restore(raw)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20+256*uint64(len(raw)) {
			t.Errorf("%d bytes were made of %d", took, len(raw))
		}
		if err != nil {
			return
		}
		if err := distinctRows(a, 0, 50); err != nil && !errors.Is(err, run.ErrMemory) {
			t.Fatal(err)
		}
		if err := a.Advance("IN", 1<<50); err != nil && !errors.Is(err, run.ErrMemory) {
			t.Fatal(err)
		}
		a.Snapshot(nil)
	})
}
