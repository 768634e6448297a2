package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// Every case is planned, or refused where it says so.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("../testdata/cases/*.json")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	type column struct{ Name, Type string }
	for _, name := range files {
		var c struct {
			SQL    string `json:"sql"`
			Error  string `json:"expect_error"`
			Inputs []struct {
				Stream  string
				Columns []column
			}
			Reference []struct {
				Table   string
				Columns []column
			}
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		relation := func(name string, columns []column) Relation {
			r := Relation{Name: name}
			for _, col := range columns {
				typ, err := sql.ParseType(col.Type)
				if err != nil {
					t.Fatal(err)
				}
				r.Columns = append(r.Columns, ColumnInfo{Name: col.Name, Type: typ})
			}
			return r
		}
		var catalog Catalog
		for _, in := range c.Inputs {
			catalog.Sources = append(catalog.Sources, relation(in.Stream, in.Columns))
		}
		for _, ref := range c.Reference {
			catalog.Tables = append(catalog.Tables, relation(ref.Table, ref.Columns))
		}
		_, err = Compile(c.SQL, catalog, Options{})
		if c.Error == "" && err != nil {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
		if c.Error != "" {
			if err == nil {
				t.Errorf("%s is not refused", filepath.Base(name))
			}
		}
	}
}

// Every operator can be shown.
func TestExplain(t *testing.T) {
	program := `CREATE STREAM "OUT" ("K" VARCHAR(4), "N" BIGINT);
CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "K", COUNT(*) FROM "S" WHERE "V" > 1.5 AND "K" <> 'x' GROUP BY "K", FLOOR("S".ROWTIME TO MINUTE) HAVING COUNT(*) > 2 ORDER BY FLOOR("S".ROWTIME TO MINUTE), COUNT(*) DESC;
CREATE STREAM "MAX" ("K" VARCHAR(4), "M" DOUBLE);
CREATE PUMP Q AS INSERT INTO "MAX" SELECT STREAM a."K", MAX(a."V") OVER (PARTITION BY a."K" RANGE INTERVAL '1' MINUTE PRECEDING) FROM "S" AS a;`
	columns := []ColumnInfo{{Name: "K", Type: varchar(4)}, {Name: "V", Type: doubleType}}
	p, err := Compile(program, Catalog{Sources: []Relation{{Name: "S", Columns: columns}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `pump P into "OUT"
  project K, "EXPR$1"
    project K, "EXPR$1"
      sort each batch of one KEY; keeps one batch
        project K, "COUNT", KEY
          filter ("COUNT" > 2)
            group by K, floor(ROWTIME minute): count(*); complete when floor(ROWTIME minute) changes; keeps the groups of one window
              filter ((V > 1.5) and (K <> 'x'))
                input stream S
pump Q into "MAX"
  project K, "EXPR$1"
    project K, "MAX"
      window max(V) over each K, the last 1m0s
        input stream S
`
	if got := Explain(p); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A name that is not there is answered with the one that is nearest.
func TestNamesThatAreNearlyRight(t *testing.T) {
	catalog := Catalog{Sources: []Relation{{Name: "SOURCE_SQL_STREAM_001", Columns: []ColumnInfo{{Name: "price", Type: doubleType}}}}}
	for query, want := range map[string]string{
		`SELECT STREAM "SOURCE_SQL_STREAM_01".ROWTIME FROM "SOURCE_SQL_STREAM_001"`: "line 2, column 52: there is no table or column SOURCE_SQL_STREAM_01 here (did you mean SOURCE_SQL_STREAM_001?)",
		`SELECT STREAM price FROM "SOURCE_SQL_STREAM_001"`:                          `line 2, column 52: there is no column PRICE (the name is case-sensitive; write "price")`,
		`SELECT STREAM s."prize" FROM "SOURCE_SQL_STREAM_001" s`:                    `line 2, column 52: there is no column "prize" (did you mean "price"?)`,
		`SELECT STREAM ABBS("price") FROM "SOURCE_SQL_STREAM_001"`:                  "line 2, column 52: there is no function ABBS (did you mean ABS?)",
		`SELECT STREAM "price" FROM "SOURCE_SQL_STREAM_002"`:                        "line 2, column 65: there is no stream or table SOURCE_SQL_STREAM_002 (did you mean SOURCE_SQL_STREAM_001?)",
	} {
		_, err := Compile("CREATE STREAM \"OUT\" (V DOUBLE);\nCREATE PUMP \"P\" AS INSERT INTO \"OUT\" "+query, catalog, Options{})
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n%v\nwant\n%s", query, err, want)
		}
	}
}
