package run_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

var sensor = []plan.ColumnInfo{
	{Name: "ID", Type: sql.Type{Kind: sql.KindVarchar, Length: 16}},
	{Name: "KIND", Type: sql.Type{Kind: sql.KindVarchar, Length: 16}},
	{Name: "N", Type: sql.Type{Kind: sql.KindInteger}},
	{Name: "V", Type: sql.Type{Kind: sql.KindDouble}},
	{Name: "W", Type: sql.Type{Kind: sql.KindDouble}},
}

const create = `CREATE STREAM "OUT" (K VARCHAR(16), N BIGINT, S DOUBLE, A DOUBLE);
CREATE PUMP P AS INSERT INTO "OUT" `

// programs are what the benchmarks run.
var programs = map[string]string{
	"tumbling": create + `SELECT STREAM "ID", COUNT(*), SUM("V"), AVG("V") FROM "IN" GROUP BY "ID", FLOOR("IN".ROWTIME TO SECOND)`,
	"filter":   create + `SELECT STREAM "ID", "N", "V" * 2, "W" FROM "IN" WHERE "V" > 50 AND "KIND" = 'b'`,
	"sliding":  create + `SELECT STREAM "ID", COUNT(*) OVER W, SUM("V") OVER W, AVG("V") OVER W FROM "IN" WINDOW W AS (PARTITION BY "ID" RANGE INTERVAL '60' SECOND PRECEDING)`,
	"join": `CREATE STREAM L (K VARCHAR(16), V DOUBLE); CREATE PUMP LP AS INSERT INTO L SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'a';
CREATE STREAM R (K VARCHAR(16), V DOUBLE); CREATE PUMP RP AS INSERT INTO R SELECT STREAM "ID", "V" FROM "IN" WHERE "KIND" = 'b';` +
		create + `SELECT STREAM L.K, 1, L.V, R.V FROM L OVER (RANGE INTERVAL '10' SECOND PRECEDING) JOIN R OVER (RANGE INTERVAL '10' SECOND PRECEDING) ON L.K = R.K`,
	"forest": `CREATE STREAM "OUT" (V DOUBLE, S DOUBLE); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V", ANOMALY_SCORE FROM TABLE(RANDOM_CUT_FOREST(CURSOR(SELECT STREAM "V" FROM "IN")))`,
}

func start(b testing.TB, program string) *run.Application {
	p, err := plan.Compile(programs[program], plan.Catalog{Sources: []plan.Relation{{Name: "IN", Columns: sensor}}}, plan.Options{})
	if err != nil {
		b.Fatal(err)
	}
	a := run.New(p, run.Options{Seed: 1, Now: func() time.Time { return time.UnixMilli(0) }})
	a.Start()
	return a
}

const batchRows = 1000

// benchmark inserts rows of so many keys, perMilli of them in a millisecond of
// ROWTIME.
func benchmark(b *testing.B, program string, keys int, perMilli int64) {
	a := start(b, program)
	null := plan.Value{Null: true}
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("sensor-%05d", i)
	}
	out := 0
	if err := a.Tap("OUT", func(b *run.Batch) { out += len(b.Sel) }); err != nil {
		b.Fatal(err)
	}
	n, key := int64(0), uint32(1)
	b.ReportAllocs()
	var batches []*run.Batch
	for range 16 {
		rows := run.NewRows(append(append([]plan.ColumnInfo(nil), sensor...), plan.HiddenColumns...))
		for range batchRows {
			key = key*1664525 + 1013904223
			rows.Add(0, plan.Value{S: names[int(key>>8)%keys]}, plan.Value{S: string("ab"[key>>30&1])}, plan.Value{I: int64(key >> 20)}, plan.Value{F: float64(key>>16&127) + 0.5}, plan.Value{F: 1}, plan.Value{I: 0}, null, null, null)
		}
		batches = append(batches, rows.Batch())
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		batch := batches[i%len(batches)]
		for r := range batch.Time {
			batch.Time[r] = n / perMilli
			n++
		}
		if err := a.Insert("IN", batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*batchRows/b.Elapsed().Seconds(), "rows/s")
	if out == 0 && b.N > 1000 {
		b.Fatal("nothing came out")
	}
}

func BenchmarkTumbling(b *testing.B) { benchmark(b, "tumbling", 10000, 100) }
func BenchmarkFilter(b *testing.B)   { benchmark(b, "filter", 10000, 100) }
func BenchmarkSliding(b *testing.B)  { benchmark(b, "sliding", 10000, 100) }

// A row meets about one of the other side.
func BenchmarkJoin(b *testing.B)   { benchmark(b, "join", 10000, 2) }
func BenchmarkForest(b *testing.B) { benchmark(b, "forest", 10, 100) }

func BenchmarkParse(b *testing.B) {
	var f run.Format
	for _, c := range sensor {
		f.Columns = append(f.Columns, run.SourceColumn{Name: c.Name, Type: c.Type, Mapping: "$." + strings.ToLower(c.Name)})
	}
	p, err := run.NewParser(f)
	if err != nil {
		b.Fatal(err)
	}
	record := `{"id":"sensor-00042","kind":"temperature","n":12345,"v":21.375,"w":0.5,"site":"north-east-7","comment":"calibrated in may","firmware":"4.11.2","ok":true}`
	rows := run.NewRows(sensor)
	b.SetBytes(int64(len(record)))
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		if i%1000 == 0 {
			rows.Reset()
		}
		p.Parse(rows, record, 0, nil, func(_, message, _ string) { b.Fatal(message) })
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
