package run_test

import (
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// VALUES stands in FROM as a table, and what of it fails is reported and not put
// out.
func TestValues(t *testing.T) {
	program := `CREATE STREAM "OUT" ("K" VARCHAR(16), "N" INTEGER);
INSERT INTO "OUT" VALUES ('one', 1), ('bad', 1 / (2 - 2)), ('two', 3);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM s."ID", t."X" FROM "IN" AS s JOIN (VALUES ('a', 10), ('b', 20), ('b', 30)) AS t ("Y", "X") ON s."ID" = t."Y";
CREATE STREAM "BOTH" ("K" VARCHAR(16));
CREATE PUMP Q AS INSERT INTO "BOTH" SELECT STREAM s."ID" FROM "IN" AS s JOIN (VALUES ('a') UNION VALUES ('b') EXCEPT VALUES ('a')) AS t ("Y") ON s."ID" = t."Y";`
	p, err := plan.Compile(program, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := run.New(p, run.Options{Now: func() time.Time { return time.UnixMilli(1000) }})
	got := map[string][]string{}
	for _, name := range []string{"OUT", "BOTH", plan.ErrorStream} {
		columns, _ := a.Stream(name)
		if err := a.Tap(name, func(b *run.Batch) {
			for _, i := range b.Sel {
				if name == plan.ErrorStream {
					got[name] = append(got[name], b.Value(columns, 2, i).S)
				} else {
					got[name] = append(got[name], string(run.AppendJSON(nil, columns, b, i)))
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	a.Start()
	null := plan.Value{Null: true}
	rows := run.NewRows(append(slices.Clone(sensor), plan.HiddenColumns...))
	for _, id := range []string{"b", "a", "c"} {
		rows.Add(2000, plan.Value{S: id}, null, null, null, null, null, null, null, null)
	}
	if err := a.Insert("IN", rows.Batch()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"OUT":            {`{"K":"one","N":1}`, `{"K":"two","N":3}`, `{"K":"b","N":20}`, `{"K":"b","N":30}`, `{"K":"a","N":10}`},
		"BOTH":           {`{"K":"b"}`},
		plan.ErrorStream: {"DIVIDE_BY_ZERO"},
	} {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}
