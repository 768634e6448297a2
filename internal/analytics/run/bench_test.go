package run_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// The benchmarks report rows per second of processor time, which neighbours on
// the machine disturb less than the clock.

var sensor = []plan.ColumnInfo{
	{Name: "ID", Type: sql.Type{Kind: sql.KindVarchar, Length: 16}},
	{Name: "KIND", Type: sql.Type{Kind: sql.KindVarchar, Length: 16}},
	{Name: "N", Type: sql.Type{Kind: sql.KindInteger}},
	{Name: "V", Type: sql.Type{Kind: sql.KindDouble}},
	{Name: "W", Type: sql.Type{Kind: sql.KindDouble}},
}

const create = `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, S DOUBLE, A DOUBLE);
CREATE PUMP P AS INSERT INTO "OUT" `

const sides = `CREATE STREAM L (K VARCHAR(16), V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(16), V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'b';`

// programs are what the benchmarks run.
var programs = map[string]string{
	"tumbling":        create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND)`,
	"tumbling minute": create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO MINUTE)`,
	"tumbling two":    create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" GROUP BY "ID", "KIND", FLOOR("IN".ROWTIME TO SECOND)`,
	"filter":          create + `SELECT STREAM "ID", "N", "V" * 2, "W" FROM "IN" WHERE "V" > 50 AND "KIND" = 'b'`,
	"sliding range":   create + `SELECT STREAM "ID", COUNT(*) OVER W, SUM("V") OVER W, AVG("V") OVER W FROM "IN" WINDOW W AS (PARTITION BY "ID" RANGE INTERVAL '60' SECOND PRECEDING)`,
	"sliding rows":    create + `SELECT STREAM "ID", COUNT(*) OVER W, SUM("V") OVER W, AVG("V") OVER W FROM "IN" WINDOW W AS (PARTITION BY "ID" ROWS 100 PRECEDING)`,
	"sliding extreme": create + `SELECT STREAM "ID", COUNT(*) OVER W, MIN("V") OVER W, MAX("V") OVER W FROM "IN" WINDOW W AS (PARTITION BY "ID" RANGE INTERVAL '60' SECOND PRECEDING)`,
	"join":            sides + create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '10' SECOND PRECEDING) JOIN R OVER (RANGE INTERVAL '10' SECOND PRECEDING) ON L.K = R.K`,
	"join condition":  sides + create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '10' SECOND PRECEDING) LEFT JOIN R OVER (RANGE INTERVAL '10' SECOND PRECEDING) ON L.K = R.K AND L.V < R.V`,
	"forest":          `CREATE STREAM "OUT" (V DOUBLE, S DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V", ANOMALY_SCORE FROM TABLE(RANDOM_CUT_FOREST(CURSOR(SELECT STREAM "V" FROM "IN"), 100, 256, 100000, 1))`,
	"session":         create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" WINDOWED BY SESSION (PARTITION BY "ID" GAP INTERVAL '1' SECOND)`,
	"stagger":         create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" WINDOWED BY STAGGER (PARTITION BY "ID" RANGE INTERVAL '1' SECOND)`,
	"top":             `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM * FROM TABLE(TOP_K_ITEMS_TUMBLING(CURSOR(SELECT STREAM * FROM "IN"), 'ID', 10, 1))`,
	"items":           `CREATE STREAM "OUT" (N BIGINT); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM NUMBER_OF_DISTINCT_ITEMS FROM TABLE(COUNT_DISTINCT_ITEMS_TUMBLING(CURSOR(SELECT STREAM * FROM "IN"), 'ID', 1))`,
	"sort":            create + `SELECT STREAM "ID", "N", "V", "W" FROM "IN" ORDER BY FLOOR("IN".ROWTIME TO SECOND), "V" DESC`,
	"union":           sides + create + `SELECT STREAM K, 1, V, V FROM L UNION ALL SELECT STREAM K, 2, V, V FROM R`,
}

func start(b testing.TB, program string) *run.Application { return startWith(b, program, 1) }

func startWith(b testing.TB, program string, workers int) *run.Application {
	b.Helper()
	p, err := plan.Compile(programs[program], plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{Extensions: true})
	if err != nil {
		b.Fatal(err)
	}
	a := run.New(p, run.Options{Seed: 1, Workers: workers, Now: func() time.Time { return time.UnixMilli(0) }})
	a.Start()
	return a
}

// measured runs a benchmark's loop, each round of so many rows.
func measured(b *testing.B, rows int, round func()) {
	b.ReportAllocs()
	b.ResetTimer()
	before := processorSeconds(b)
	for i := 0; i < b.N; i++ {
		round()
	}
	used := processorSeconds(b) - before
	b.StopTimer()
	if used > 0 {
		b.ReportMetric(float64(b.N)*float64(rows)/used, "rows/cpu-s")
	}
}

const batchRows = 1000

func names(keys int) []string {
	list := make([]string, keys)
	for i := range list {
		list[i] = fmt.Sprintf("sensor-%05d", i)
	}
	return list
}

// feed inserts rows of so many keys, perMilli of them in a millisecond of ROWTIME.
func feed(b *testing.B, a *run.Application, keys int, perMilli int64) (insert func()) {
	null := plan.Value{Null: true}
	names := names(keys)
	n, key, next := int64(0), uint32(1), 0
	var batches []*run.Batch
	for range max(16, min(200, 2*keys/batchRows)) {
		rows := run.NewRows(append(append([]plan.ColumnInfo(nil), sensor...), plan.HiddenColumns...))
		for range batchRows {
			key = key*1664525 + 1013904223
			rows.Add(0, plan.Value{S: names[int(key>>8)%keys]}, plan.Value{S: string("ab"[key>>30&1])}, plan.Value{I: int64(key >> 20)}, plan.Value{F: float64(key>>16&127) + 0.5}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
		}
		batches = append(batches, rows.Batch())
	}
	return func() {
		batch := batches[next%len(batches)]
		next++
		for r := range batch.Time {
			batch.Time[r] = n / perMilli
			n++
		}
		if err := a.Insert("IN", batch); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmark runs a program; warm are rounds before the clock runs, which fill
// windows.
func benchmark(b *testing.B, program string, keys int, perMilli int64, warm int) {
	a := start(b, program)
	out := 0
	if err := a.Tap("OUT", func(b *run.Batch) { out += len(b.Sel) }); err != nil {
		b.Fatal(err)
	}
	insert := feed(b, a, keys, perMilli)
	for range warm {
		insert()
	}
	measured(b, batchRows, insert)
	if out == 0 && b.N > 1000 && program != "session" {
		b.Fatal("nothing came out")
	}
}

func BenchmarkTumbling(b *testing.B) {
	b.Run("window=1s", func(b *testing.B) { benchmark(b, "tumbling", 10000, 100, 100) })
	b.Run("window=60s", func(b *testing.B) { benchmark(b, "tumbling minute", 10000, 100, 6000) })
	b.Run("keys=2", func(b *testing.B) { benchmark(b, "tumbling two", 10000, 100, 100) })
}

func BenchmarkFilter(b *testing.B) { benchmark(b, "filter", 10000, 100, 0) }

// Windows are full before the clock runs: 600 rows of each key in 60 seconds.
func BenchmarkSliding(b *testing.B) {
	for _, form := range []string{"range", "rows", "extreme"} {
		b.Run(form, func(b *testing.B) { benchmark(b, "sliding "+form, 1000, 10, 700) })
	}
	b.Run("keys=10000", func(b *testing.B) { benchmark(b, "sliding range", 10000, 10, 700) })
}

// A row meets about one of the other side.
func BenchmarkJoin(b *testing.B) {
	b.Run("keys=10000", func(b *testing.B) { benchmark(b, "join", 10000, 2, 30) })
	b.Run("condition", func(b *testing.B) { benchmark(b, "join condition", 10000, 2, 30) })
}

func BenchmarkForest(b *testing.B) { benchmark(b, "forest", 10, 100, 10) }

// BenchmarkKeys shows whether a row costs more where there are more keys.
func BenchmarkKeys(b *testing.B) {
	for _, program := range []string{"session", "stagger", "top", "items", "sort", "union"} {
		for _, keys := range []int{100, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/keys=%d", program, keys), func(b *testing.B) { benchmark(b, program, keys, 100, 200) })
		}
	}
}

const record = `{"id":"sensor-%05d","kind":"%s","n":%d,"v":%.3f,"w":0.5,"site":"north-east-7","comment":"calibrated in may","firmware":"4.11.2","ok":true}`

func sensorFormat() run.Format {
	var f run.Format
	for _, c := range sensor {
		f.Columns = append(f.Columns, run.SourceColumn{Name: c.Name, Type: c.Type, Mapping: "$." + strings.ToLower(c.Name)})
	}
	return f
}

// records are JSON texts of some 150 bytes.
func records(keys, n int) []string {
	list := make([]string, n)
	key := uint32(1)
	for i := range list {
		key = key*1664525 + 1013904223
		list[i] = fmt.Sprintf(record, int(key>>8)%keys, []string{"a", "b"}[key>>30&1], key>>20, float64(key>>8&0xFFFF)/1000+35)
	}
	return list
}

func BenchmarkParse(b *testing.B) {
	p, err := run.NewParser(sensorFormat())
	if err != nil {
		b.Fatal(err)
	}
	list := records(10000, batchRows)
	rows := run.NewRows(sensor)
	measured(b, batchRows, func() {
		rows.Reset()
		for _, r := range list {
			p.Parse(rows, r, 0, nil, func(_, message, _ string) { b.Fatal(message) })
		}
	})
	b.SetBytes(int64(len(list[0]) * batchRows))
}

// encoders write the rows of the benchmarks.
func BenchmarkEncode(b *testing.B) {
	p, err := run.NewParser(sensorFormat())
	if err != nil {
		b.Fatal(err)
	}
	rows := run.NewRows(sensor)
	for _, r := range records(10000, batchRows) {
		p.Parse(rows, r, 0, nil, func(_, message, _ string) { b.Fatal(message) })
	}
	batch := rows.Batch()
	var buffer []byte
	for _, form := range []string{"json", "csv"} {
		b.Run(form, func(b *testing.B) {
			e := run.NewEncoder(sensor, form == "csv")
			measured(b, batchRows, func() {
				buffer = buffer[:0]
				for _, i := range batch.Sel {
					buffer = e.Append(buffer, batch, i)
				}
			})
		})
	}
}

// BenchmarkPipeline goes from JSON to JSON: everything but reading and writing
// streams.
func BenchmarkPipeline(b *testing.B) {
	for _, program := range []string{"tumbling minute", "filter"} {
		b.Run(strings.Fields(program)[0], func(b *testing.B) {
			a := start(b, program)
			columns, _ := a.Stream("OUT")
			var buffer []byte
			e := run.NewEncoder(columns, false)
			if err := a.Tap("OUT", func(b *run.Batch) {
				for _, i := range b.Sel {
					buffer = e.Append(buffer[:0], b, i)
				}
			}); err != nil {
				b.Fatal(err)
			}
			p, err := run.NewParser(sensorFormat())
			if err != nil {
				b.Fatal(err)
			}
			list := records(10000, 20*batchRows)
			null := plan.Value{Null: true}
			hidden := []plan.Value{{I: 0}, null, null, null}
			rows := run.NewRows(append(append([]plan.ColumnInfo(nil), sensor...), plan.HiddenColumns...))
			at, round := int64(0), 0
			measured(b, batchRows, func() {
				rows.Reset()
				first := round % 20 * batchRows
				round++
				for _, r := range list[first : first+batchRows] {
					p.Parse(rows, r, at, hidden, func(_, message, _ string) { b.Fatal(message) })
				}
				at += 10
				if err := a.Insert("IN", rows.Batch()); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkState measures what a key of a window takes: the live heap with a
// million keys less that without.
func BenchmarkState(b *testing.B) {
	const keys = 1_000_000
	for i := 0; i < b.N; i++ {
		a := start(b, "tumbling minute")
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		rows := run.NewRows(append(append([]plan.ColumnInfo(nil), sensor...), plan.HiddenColumns...))
		null := plan.Value{Null: true}
		page := ""
		for k := range keys {
			if k%batchRows == 0 {
				// Keys are parts of the page they came in, as a parser leaves them.
				if err := a.Insert("IN", rows.Batch()); err != nil {
					b.Fatal(err)
				}
				rows.Reset()
				var text []byte
				for r := range batchRows {
					text = fmt.Appendf(text, "%0150d", k+r)
				}
				page = string(text)
			}
			at := (k%batchRows + 1) * 150
			rows.Add(0, plan.Value{S: page[at-10 : at]}, plan.Value{S: "a"}, plan.Value{I: 1}, plan.Value{F: float64(k)}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
		}
		if err := a.Insert("IN", rows.Batch()); err != nil {
			b.Fatal(err)
		}
		rows, page = nil, ""
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		b.ReportMetric(float64(after.HeapSys-before.HeapSys)/1e6, "MB-system")
		runtime.KeepAlive(a)
	}
}
