package run_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// What is kept by key is kept for as long as the key has rows: an application that
// sees new keys all the time has a state that does not grow.
func TestKeysWithoutRowsAreForgotten(t *testing.T) {
	null := plan.Value{Null: true}
	columns := append(append([]plan.ColumnInfo(nil), sensor...), plan.HiddenColumns...)
	for _, program := range []string{"tumbling", "session", "stagger", "join", "join condition", "sliding range", "sliding extreme"} {
		for _, workers := range []int{1, 2} {
			a := startWith(t, program, workers)
			rows := run.NewRows(columns)
			var before int64
			n := 0
			insert := func(batches int) {
				for range batches {
					rows.Reset()
					for range 500 {
						// Two rows of a key, one of each kind; 50 milliseconds to a row.
						rows.Add(int64(n)*50, plan.Value{S: fmt.Sprintf("sensor-%08d", n/2)}, plan.Value{S: string("ab"[n&1])}, plan.Value{I: 1}, plan.Value{F: 1}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
						n++
					}
					if err := a.Insert("IN", rows.Batch()); err != nil {
						t.Fatal(err)
					}
				}
			}
			insert(40)
			before = a.Measured()
			insert(120)
			if after := a.Measured(); after > before*3/2 {
				t.Errorf("%s, %d workers: the state has grown from %d to %d bytes", program, workers, before, after)
			}
		}
	}
}
