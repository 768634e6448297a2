package run_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// What encoding/csv reads is read, with the same fields; beyond that, anything
// goes but a failure.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"a,b,c", "a,\"b\"\"c\",d\n1,2,3\n", ",,", "\"a\nb\",c", "a\n\nb", "\"", "a\"b,c", "\"a\"b,c", "x,y,z,w", "é,\xff,\x00"} {
		f.Add(seed)
	}
	format := run.Format{CSV: true, RowDelimiter: "\n", ColumnDelimiter: ","}
	var columns []plan.ColumnInfo
	for _, name := range []string{"A", "B", "C"} {
		c := plan.ColumnInfo{Name: name, Type: typed(f, "VARCHAR(65535)")}
		columns = append(columns, c)
		format.Columns = append(format.Columns, run.SourceColumn{Name: c.Name, Type: c.Type})
	}
	f.Fuzz(func(t *testing.T, record string) {
		if len(record) > 4000 {
			return
		}
		p, err := run.NewParser(format)
		if err != nil {
			t.Fatal(err)
		}
		rows := run.NewRows(columns)
		p.Parse(rows, record, 0, nil, func(string, string, string) {})
		if strings.Contains(record, "\r") || strings.Contains(record, "\n\n") || strings.HasPrefix(record, "\n") || strings.ToValidUTF8(record, "") != record {
			return // lines that are empty, and ends of lines, are no matter of the other
		}
		r := csv.NewReader(strings.NewReader(record))
		r.FieldsPerRecord = -1
		want, err := r.ReadAll()
		if err != nil {
			return
		}
		b := rows.Batch()
		if len(b.Sel) != len(want) {
			t.Fatalf("%q has %d rows, want %d", record, len(b.Sel), len(want))
		}
		for k, i := range b.Sel {
			for c := range columns {
				v := b.Value(columns, c, i)
				field := "NULL"
				if c < len(want[k]) {
					field = want[k][c]
				}
				if v.Null && field != "" && field != "NULL" || !v.Null && v.S != field {
					t.Fatalf("%q: field %d of row %d is %q, want %q", record, c, k, v.S, field)
				}
			}
		}
	})
}

// A program that is planned runs over any rows without harm, and puts out the same
// however they are cut into batches.
func FuzzProgram(f *testing.F) {
	shared(f)
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, block := range strings.Split(string(raw), "\n====\n") {
			for _, line := range strings.Split(block, "\n") {
				if _, query, ok := strings.Cut(line, "SELECT STREAM "); ok {
					f.Add(strings.TrimSuffix(query, ";"))
				}
			}
		}
	}
	for _, query := range []string{
		"K, SUM(V) OVER (PARTITION BY K ROWS 2 PRECEDING) FROM S", "K, COUNT(*) FROM S GROUP BY K, STEP(S.ROWTIME BY INTERVAL '3' SECOND)", "V / (V - 3) FROM S",
		"CAST(K AS INTEGER) FROM S", "SUBSTRING(K FROM V FOR V), OVERLAY(K PLACING 'é' FROM V) FROM S", "S.K FROM S OVER (ROWS 3 PRECEDING) FULL JOIN S AS B ON S.V = B.V",
		"K, LAG(V, V) OVER (ROWS 5 PRECEDING), NTH_VALUE(V, V) FROM LAST OVER (ROWS 5 PRECEDING) FROM S", "TS + INTERVAL '1' MONTH, FLOOR(TS TO YEAR), D * D / V FROM S",
		"DISTINCT FLOOR(S.ROWTIME TO MINUTE), K FROM S", "REGEX_REPLACE(K, 'a*', 'b', 1, V) FROM S", "V FROM S ORDER BY FLOOR(S.ROWTIME TO SECOND), V DESC",
	} {
		f.Add(query)
	}
	columns := []plan.ColumnInfo{{Name: "K", Type: typed(f, "VARCHAR(8)")}, {Name: "V", Type: typed(f, "INTEGER")}, {Name: "D", Type: typed(f, "DECIMAL(8,3)")}, {Name: "F", Type: typed(f, "DOUBLE")}, {Name: "TS", Type: typed(f, "TIMESTAMP")}}
	table := []plan.ColumnInfo{{Name: "K", Type: typed(f, "VARCHAR(8)")}, {Name: "N", Type: typed(f, "INTEGER")}}
	catalog := plan.Catalog{Sources: []plan.Relation{{Name: "S", Columns: columns}, {Name: "B", Columns: columns}}, Tables: []plan.Relation{{Name: "T", Columns: table}}}
	f.Fuzz(func(t *testing.T, query string) {
		if len(query) > 1500 || strings.Contains(strings.ToUpper(query), "CURRENT_") || strings.Contains(query, "LOCALTIME") || strings.Count(query, "FOREST")+strings.Count(query, "forest") > 0 {
			return
		}
		// The stream takes what the query has, as far as its types are these.
		var program *plan.Program
		for _, types := range []string{"VARCHAR(300)", "DOUBLE", "TIMESTAMP", "VARCHAR(300), DOUBLE", "VARCHAR(300), VARCHAR(300)", "DOUBLE, DOUBLE", "VARCHAR(300), DOUBLE, DOUBLE"} {
			var named []string
			for i, typ := range strings.Split(types, ", ") {
				named = append(named, fmt.Sprintf("C%d %s", i, typ))
			}
			var err error
			if program, err = plan.Compile("CREATE STREAM O ("+strings.Join(named, ", ")+"); CREATE PUMP P AS INSERT INTO O SELECT STREAM "+query, catalog, plan.Options{Extensions: true}); err == nil {
				break
			}
		}
		if program == nil {
			return
		}
		once := func(batch int, resume bool) string {
			now := testStart
			var out, problems []string
			open := func() *run.Application {
				app := run.New(program, run.Options{Now: func() time.Time { return time.UnixMilli(now) }, Workers: 1 + batch%3})
				reference := run.NewRows(table)
				for i, k := range []string{"a", "b", "", "é"} {
					reference.Add(0, plan.Value{S: k, Null: k == ""}, plan.Value{I: int64(i) - 1})
				}
				if err := app.SetTable("T", reference); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"O", plan.ErrorStream} {
					if err := app.Tap(name, func(b *run.Batch) {
						types, _ := app.Stream(name)
						for _, i := range b.Sel {
							if name == plan.ErrorStream {
								problems = append(problems, b.Cols[2].S[i]+" "+b.Cols[3].S[i]+" "+b.Cols[5].S[i]+"\n")
								continue
							}
							out = append(out, fmt.Sprintf("%d %s", b.Time[i]-testStart, run.AppendJSON(nil, types, b, i)))
						}
					}); err != nil {
						t.Fatal(err)
					}
				}
				return app
			}
			app := open()
			app.Start()
			for i := 0; i < 24; {
				name := []string{"S", "S", "B"}[i/6%3]
				rows := run.NewRows(append(append([]plan.ColumnInfo(nil), columns...), plan.HiddenColumns...))
				for n := 0; n < batch && (n == 0 || i%6 > 0) && i < 24; n, i = n+1, i+1 {
					k := []string{"a", "b", "", "é", "ab cd", "12"}[i%6]
					now = testStart + int64(i)*700
					rows.Add(now, plan.Value{S: k, Null: i%7 == 3}, plan.Value{I: int64(i%9) - 2, Null: i%5 == 4}, plan.Value{I: int64(i*i*i*37) - 5000, Null: i%11 == 2}, plan.Value{F: float64(i) / 3, Null: i%6 == 1},
						plan.Value{I: testStart - int64(i)*1_000_000_007, Null: i%8 == 0}, plan.Value{I: now}, plan.Value{Null: true}, plan.Value{Null: true}, plan.Value{Null: true})
				}
				if err := app.Insert(name, rows.Batch()); err != nil {
					t.Fatal(err)
				}
				if resume {
					snapshot := app.Snapshot(nil)
					app = open()
					if _, err := app.Restore(snapshot); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, name := range []string{"S", "B"} {
				if err := app.Advance(name, testStart+3_600_000); err != nil {
					t.Fatal(err)
				}
			}
			sort.Strings(problems) // of the rows of a batch, in any order
			return strings.Join(append(out, problems...), "")
		}
		want := once(1, false)
		for _, batch := range []int{2, 6} {
			for _, resume := range []bool{false, true} {
				if got := once(batch, resume); got != want {
					t.Fatalf("%s\nin batches of %d, resumed %t:\n%s\none by one:\n%s", query, batch, resume, got, want)
				}
			}
		}
	})
}
