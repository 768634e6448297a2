package plan

import "testing"

// A pump is the same in a changed program, and keeps its state, if what it
// computes is the same.
func TestPumpsThatStayTheSame(t *testing.T) {
	const program = `
CREATE FUNCTION F (X INTEGER) RETURNS INTEGER RETURN X + 1;
CREATE VIEW W AS SELECT STREAM K, V FROM S WHERE V > 0;
CREATE STREAM MID (K VARCHAR(4), V INTEGER);
CREATE PUMP P AS INSERT INTO MID SELECT STREAM K, F(V) FROM W;`
	compile := func(text string, columns ...ColumnInfo) string {
		t.Helper()
		if columns == nil {
			columns = []ColumnInfo{{Name: "K", Type: varchar(4)}, {Name: "V", Type: integerType}}
		}
		p, err := Compile(text, Catalog{Sources: []Relation{{Name: "S", Columns: columns}}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, pump := range p.Pumps {
			if pump.Name == "P" {
				return pump.Text
			}
		}
		t.Fatal("there is no pump P")
		return ""
	}
	const f = `CREATE FUNCTION F (X INTEGER) RETURNS INTEGER RETURN X + 1;`
	const w = `CREATE VIEW W AS SELECT STREAM K, V FROM S WHERE V > 0;`
	const mid = `CREATE STREAM MID (K VARCHAR(4), V INTEGER);`
	const p = `CREATE PUMP P AS INSERT INTO MID SELECT STREAM K, F(V) FROM W;`
	want := compile(program)
	for name, c := range map[string]struct {
		text    string
		columns []ColumnInfo
		same    bool
	}{
		"spaces, comments, capitals":      {text: f + w + mid + "create pump p as /* all */ insert into mid select stream k, f(v) -- it\nfrom w", same: true},
		"OR REPLACE":                      {text: f + w + mid + `CREATE OR REPLACE PUMP P AS INSERT INTO MID SELECT STREAM K, F(V) FROM W;`, same: true},
		"another pump beside it":          {text: f + w + mid + p + `CREATE STREAM O (K VARCHAR(4)); CREATE PUMP Q AS INSERT INTO O SELECT STREAM K FROM S;`, same: true},
		"another name of a parameter":     {text: `CREATE FUNCTION F (Y INTEGER) RETURNS INTEGER RETURN Y + 1;` + w + mid + p, same: true},
		"a function that does other":      {text: `CREATE FUNCTION F (X INTEGER) RETURNS INTEGER RETURN X + 2;` + w + mid + p},
		"a view with another condition":   {text: f + `CREATE VIEW W AS SELECT STREAM K, V FROM S WHERE V > 1;` + mid + p},
		"a target of another type":        {text: f + w + `CREATE STREAM MID (K VARCHAR(4), V BIGINT);` + p},
		"another query":                   {text: f + w + mid + `CREATE PUMP P AS INSERT INTO MID SELECT STREAM K, F(V + 1) FROM W;`},
		"a source with one column more":   {text: program, columns: []ColumnInfo{{Name: "K", Type: varchar(4)}, {Name: "V", Type: integerType}, {Name: "X", Type: integerType}}},
		"a source with a longer VARCHAR":  {text: program, columns: []ColumnInfo{{Name: "K", Type: varchar(5)}, {Name: "V", Type: integerType}}},
		"the same in the same words":      {text: program, same: true},
		"an order of statements changed":  {text: w + mid + f + p, same: true},
		"a view in place of another view": {text: f + `CREATE VIEW W AS SELECT STREAM V, K FROM S;` + `CREATE OR REPLACE VIEW W AS SELECT STREAM K, V FROM S WHERE V > 0;` + mid + p, same: true},
	} {
		if got := compile(c.text, c.columns...); (got == want) != c.same {
			t.Errorf("%s: the pump is the same: %t, want %t\n%s\n%s", name, got == want, c.same, got, want)
		}
	}
}
