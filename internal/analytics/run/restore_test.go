package run_test

import (
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// A pump keeps its state when another one comes to the stream that it writes, and
// when that one goes again.
func TestAPumpGoesOnBesideANewOneOfItsStream(t *testing.T) {
	const stream = `CREATE STREAM "OUT" (n BIGINT);
		CREATE PUMP "P" AS INSERT INTO "OUT" SELECT STREAM COUNT(*) OVER (ROWS 99 PRECEDING) FROM "IN";`
	const more = stream + ` CREATE PUMP "Q" AS INSERT INTO "OUT" SELECT STREAM CAST(-1 AS BIGINT) FROM "IN" WHERE FALSE;`
	open := func(text string) *run.Application {
		program, err := plan.Compile(text, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return run.New(program, run.Options{})
	}
	before := open(stream)
	before.Start()
	insert(t, before, 3, 0)
	for _, text := range []string{more, stream} {
		after := open(text)
		kept, err := after.Restore(before.Snapshot(nil))
		if err != nil || !slices.Contains(kept, "pump P") {
			t.Fatalf("%v went on, %v, with %s", kept, err, text)
		}
		before = after
	}
	lines := output(t, before)
	insert(t, before, 1, 1000)
	if err := before.Advance("IN", 5000); err != nil {
		t.Fatal(err)
	}
	if len(*lines) != 1 || (*lines)[0] != `1970-01-01T00:00:01Z{"N":4}` {
		t.Errorf("the fourth row is counted as %q", *lines)
	}
}
