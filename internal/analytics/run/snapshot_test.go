package run_test

import (
	"errors"
	"math/rand/v2"
	"testing"
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
	kept, err := start(t, "sliding").Restore(snapshot)
	if err != nil || len(kept) != 0 {
		t.Errorf("a pump with another query goes on: %v, %v", kept, err)
	}
	for i := range snapshot {
		damaged := append([]byte(nil), snapshot...)
		damaged[i] ^= 0x40
		if _, err := start(t, "tumbling").Restore(damaged); !errors.Is(err, run.ErrSnapshot) {
			t.Fatalf("byte %d is damaged: %v", i, err)
		}
		if _, err := start(t, "tumbling").Restore(snapshot[:i]); !errors.Is(err, run.ErrSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// Bytes of any kind, with a checksum that is right, are refused or taken; they
// are no reason to fail, and allocate no more than they are long.
func FuzzRestore(f *testing.F) {
	names := []string{"tumbling", "sliding", "join", "filter", "forest"}
	for i, program := range names {
		f.Add(uint8(i), filled(f, program, 20).Snapshot(nil))
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		if len(raw) < 4 {
			return
		}
		a := start(t, names[int(which)%len(names)])
		raw = run.Resealed(raw)
		if _, err := a.Restore(raw); err == nil {
			a.Snapshot(nil)
		}
	})
}
