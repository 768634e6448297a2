package plan

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// Whatever the text, it is planned or refused, at a place in it and for a reason;
// what is planned can be shown, and is planned the same way again from its
// canonical form.
func FuzzCompile(f *testing.F) {
	raw, err := os.ReadFile(filepath.Join("testdata", "refused.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, block := range strings.Split(string(raw), "\n====\n") {
		text, _, _ := strings.Cut(block, "\n----\n")
		f.Add(text)
	}
	files, err := filepath.Glob("../testdata/cases/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var c struct{ SQL string }
		if err := json.Unmarshal(raw, &c); err != nil {
			f.Fatal(err)
		}
		f.Add(c.SQL)
	}
	for _, query := range []string{
		`SELECT STREAM K, (SELECT MAX(N) FROM T WHERE T.K = S.K AND N IN (SELECT N FROM T AS U WHERE U.K <> S.K)) FROM S`,
		`SELECT STREAM K FROM S WHERE EXISTS (SELECT STREAM * FROM S2 OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS b WHERE b.K = S.K AND b.I < S.I)`,
		`SELECT STREAM K FROM S WHERE (I, K) NOT IN (SELECT STREAM I, K FROM S2 OVER (ROWS 3 PRECEDING))`,
		`WITH A AS (SELECT STREAM K, I FROM S) SELECT STREAM K, COUNT(DISTINCT I) FILTER (WHERE I > 1) FROM A GROUP BY K, FLOOR(A.ROWTIME TO MINUTE)`,
		`SELECT STREAM a.K, b.K FROM S OVER w AS a FULL JOIN S2 OVER w AS b ON a.K = b.K AND a.I < b.I WINDOW w AS (RANGE INTERVAL '1' MINUTE PRECEDING)`,
	} {
		f.Add(query)
	}
	catalog := testCatalog(f)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		if strings.HasPrefix(text, "SELECT") || strings.HasPrefix(text, "WITH") {
			text = "CREATE STREAM O (A VARCHAR(16)); CREATE PUMP P AS INSERT INTO O " + text
		}
		for _, extensions := range []bool{false, true} {
			program, err := Compile(text, catalog, Options{Extensions: extensions})
			if err != nil {
				var refused sql.Errors
				if !errors.As(err, &refused) || len(refused) == 0 {
					t.Fatalf("%T %v", err, err)
				}
				for _, e := range refused {
					if e.Line < 1 || e.Column < 1 || e.Message == "" || int(e.Span.End) > len(text) {
						t.Fatalf("%+v", e)
					}
					e.Excerpt(text)
				}
				continue
			}
			shown := Explain(program)
			tree, err := sql.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			var canonical strings.Builder
			for _, s := range tree.Statements {
				canonical.WriteString(sql.StatementText(s) + ";\n")
			}
			again, err := Compile(canonical.String(), catalog, Options{Extensions: extensions})
			if err != nil {
				t.Fatalf("%s\nis wrong as\n%s\n%v", text, canonical.String(), err)
			}
			if Explain(again) != shown {
				t.Fatalf("%s\n%s\nas\n%s\n%s", text, shown, canonical.String(), Explain(again))
			}
		}
	})
}
