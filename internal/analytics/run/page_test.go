package run_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// textKeepers are programs whose operators keep texts, beside those of the benchmarks.
var textKeepers = []string{
	`CREATE STREAM "OUT" (A VARCHAR(16), B VARCHAR(16), C VARCHAR(16), D VARCHAR(16)); CREATE PUMP P AS INSERT INTO "OUT"
SELECT STREAM MIN("ID"), MAX("ID"), FIRST_VALUE("ID"), LAST_VALUE("ID") FROM "IN" GROUP BY "KIND", FLOOR("IN".ROWTIME TO SECOND)`,
	`CREATE STREAM "OUT" (A VARCHAR(16), B VARCHAR(16), C VARCHAR(16), D BIGINT); CREATE PUMP P AS INSERT INTO "OUT"
SELECT STREAM "ID", MIN("ID"), LAST_VALUE("ID"), COUNT(DISTINCT "ID") FROM "IN" WINDOWED BY STAGGER (PARTITION BY "ID", "KIND" RANGE INTERVAL '1' SECOND)`,
	`CREATE STREAM "OUT" (A VARCHAR(16), B VARCHAR(16), C VARCHAR(16), D VARCHAR(16)); CREATE PUMP P AS INSERT INTO "OUT"
SELECT STREAM FIRST_VALUE("ID") OVER W, MIN("ID") OVER W, LAG("ID", 3) OVER W, MAX("ID") OVER W FROM "IN" WINDOW W AS (PARTITION BY "KIND" RANGE INTERVAL '2' SECOND PRECEDING)`,
	`CREATE STREAM "OUT" (A VARCHAR(16), B BIGINT); CREATE PUMP P AS INSERT INTO "OUT"
SELECT STREAM "ID", COUNT(DISTINCT "ID") OVER (PARTITION BY "KIND" ROWS 20 PRECEDING) FROM "IN"`,
	`CREATE STREAM "OUT" (T TIMESTAMP, A VARCHAR(16)); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM DISTINCT FLOOR("IN".ROWTIME TO SECOND) AS T, "ID" FROM "IN"`,
	`CREATE STREAM "OUT" (A VARCHAR(16), B INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "ID", "RANK" FROM TABLE(GROUP_RANK(CURSOR(SELECT STREAM "ID", "N" FROM "IN"), 'N', 'RANK', 'desc', 'asc', 0, 0))`,
}

// An application copies what it keeps of the rows: a page of records can be written
// over once its rows have been inserted.
func TestPagesCanBeUsedAgain(t *testing.T) {
	texts := slices.Clone(textKeepers)
	for _, p := range programs {
		texts = append(texts, p)
	}
	columns := append(slices.Clone(sensor), plan.HiddenColumns...)
	null := plan.Value{Null: true}
	hidden := []plan.Value{{I: 0}, null, null, null}
	results := func(text string, reuse bool) []string {
		p, err := plan.Compile(text, plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{Extensions: true})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		a := run.New(p, run.Options{Seed: 1, Workers: 2, Now: func() time.Time { return time.UnixMilli(0) }})
		a.Start()
		out, ok := a.Stream("OUT")
		if !ok {
			t.Fatal("there is no stream OUT")
		}
		var list []string
		e := run.NewEncoder(out, false)
		if err := a.Tap("OUT", func(b *run.Batch) {
			for _, i := range b.Sel {
				list = append(list, string(e.Append(nil, b, i)))
			}
		}); err != nil {
			t.Fatal(err)
		}
		parser, err := run.NewParser(sensorFormat())
		if err != nil {
			t.Fatal(err)
		}
		rows := run.NewRows(columns)
		refuse := func(_, message, _ string) { t.Fatal(message) }
		const pages, perPage = 40, 50
		page := make([]byte, 0, perPage*256)
		list = nil
		for n, r := range records(20, pages*perPage) {
			at := int64(n) * 7
			if reuse {
				from := len(page)
				page = append(page, r...)
				parser.ParseBytes(rows, page[from:len(page):len(page)], at, hidden, refuse)
			} else {
				parser.Parse(rows, strings.Clone(r), at, hidden, refuse)
			}
			if (n+1)%perPage != 0 {
				continue
			}
			if err := a.Insert("IN", rows.Batch()); err != nil {
				t.Fatal(err)
			}
			rows.Reset()
			for i := range page {
				page[i] = '#'
			}
			page = make([]byte, 0, perPage*256)
		}
		if err := a.Advance("IN", 1e9); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, text := range texts {
		want, got := results(text, false), results(text, true)
		if len(want) == 0 {
			t.Errorf("%s: nothing comes out", text)
		}
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Errorf("%s\nresult %d of %d is %q, not %q", text, i, len(want), got[min(i, len(got)-1)], want[i])
				break
			}
		}
	}
}

// A parser remembers what records look like; that never changes what it reads.
func TestParsersThatHaveReadOtherRecords(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	members := []string{`"id":"a"`, `"kind" : "b"`, `"n":5`, `"v":1.5`, ` "w" :-2e1`, `"x":{"y":[1,"\""]}`, `"i\u0064":"c"`, `"n":null`, `"":0`, `"id":"\u00e4"`}
	used, err := run.NewParser(sensorFormat())
	if err != nil {
		t.Fatal(err)
	}
	read := func(p *run.Parser, record string) string {
		rows := run.NewRows(sensor)
		refused := ""
		p.Parse(rows, record, 0, nil, func(name, message, row string) { refused += fmt.Sprint(name, message, row) })
		if rows.Len() == 0 {
			return refused
		}
		return refused + string(run.AppendJSON(nil, sensor, rows.Batch(), 0))
	}
	for range 3000 {
		some := slices.Clone(members)
		if r.IntN(3) == 0 {
			r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		}
		some = slices.DeleteFunc(some, func(string) bool { return r.IntN(4) == 0 })
		record := "{" + strings.Join(some, ",") + "}"
		if r.IntN(10) == 0 {
			record = record[:r.IntN(len(record))] + "?"
		}
		fresh, err := run.NewParser(sensorFormat())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := read(used, record), read(fresh, record); got != want {
			t.Fatalf("%s is read as %s, not %s", record, got, want)
		}
	}
}
