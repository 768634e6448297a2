package plan

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/sql"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testCatalog has two streams and two tables with columns of all types.
func testCatalog(t testing.TB) Catalog {
	t.Helper()
	relation := func(name string, columns ...string) Relation {
		r := Relation{Name: name}
		for _, c := range columns {
			n, typ, _ := strings.Cut(c, " ")
			kind, err := sql.ParseType(typ)
			if err != nil {
				t.Fatal(err)
			}
			r.Columns = append(r.Columns, ColumnInfo{Name: n, Type: kind})
		}
		return r
	}
	columns := []string{"K VARCHAR(16)", "I INTEGER", "B BIGINT", "D DECIMAL(10,2)", "F DOUBLE", "TS TIMESTAMP", "DT DATE", "TM TIME", "YES BOOLEAN", "X VARBINARY(8)", "price DOUBLE"}
	return Catalog{
		Sources: []Relation{relation("S", columns...), relation("S2", columns...), relation("SOURCE_SQL_STREAM_001", "ticker_symbol VARCHAR(4)", "price DOUBLE")},
		Tables:  []Relation{relation("T", "K VARCHAR(16)", "N INTEGER"), relation("companies", "ticker VARCHAR(4)", "Company VARCHAR(64)")},
	}
}

// testdata/refused.txt holds programs that are wrong, and what a user is told:
// the place with a caret, the reason, and what to write instead. A block that
// begins with SELECT stands in a pump into a stream that takes anything.
func TestRefusedPrograms(t *testing.T) {
	path := filepath.Join("testdata", "refused.txt")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	catalog := testCatalog(t)
	var out strings.Builder
	seen := map[string]bool{}
	blocks := strings.Split(strings.TrimSuffix(string(raw), "\n====\n"), "\n====\n")
	for _, block := range blocks {
		text, want, _ := strings.Cut(block, "\n----\n")
		if seen[text] {
			t.Errorf("twice: %s", text)
		}
		seen[text] = true
		got := refusal(t, text, catalog)
		if !*update && got != want {
			t.Errorf("%s\n  is refused with\n%s\n  want\n%s", text, got, want)
		}
		out.WriteString(text + "\n----\n" + got + "\n====\n")
	}
	if len(blocks) < 100 {
		t.Errorf("only %d programs", len(blocks))
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func refusal(t *testing.T, text string, catalog Catalog) string {
	t.Helper()
	program := text
	if strings.HasPrefix(text, "SELECT") || strings.HasPrefix(text, "(SELECT") || strings.HasPrefix(text, "WITH") {
		program = "CREATE STREAM O (A VARCHAR(16)); CREATE PUMP P AS INSERT INTO O\n" + text
	}
	_, err := Compile(program, catalog, Options{})
	var refused sql.Errors
	if !errors.As(err, &refused) {
		t.Errorf("%s\nis not refused: %v", text, err)
		return "is not refused"
	}
	var lines []string
	for _, e := range refused {
		if e.Line < 1 || e.Column < 1 {
			t.Errorf("%s\n%+v has no place", text, e)
		}
		lines = append(lines, e.Error(), e.Excerpt(program))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}
