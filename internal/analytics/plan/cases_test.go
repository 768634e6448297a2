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
