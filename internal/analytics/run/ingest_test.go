package run_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// parsed reads a record into rows, as JSON, and refusals.
func parsed(t testing.TB, f run.Format, record string) (rows, refused []string) {
	t.Helper()
	p, err := run.NewParser(f)
	if err != nil {
		t.Fatal(err)
	}
	var columns []plan.ColumnInfo
	for _, c := range f.Columns {
		columns = append(columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
	}
	dst := run.NewRows(columns)
	p.Parse(dst, record, 5, nil, func(name, message, row string) { refused = append(refused, name+" "+row) })
	b := dst.Batch()
	for _, i := range b.Sel {
		rows = append(rows, string(run.AppendJSON(nil, columns, b, i)))
	}
	return rows, refused
}

func source(t testing.TB, columns ...string) run.Format {
	var f run.Format
	for i, c := range columns {
		typ, mapping, _ := strings.Cut(c, " $")
		f.Columns = append(f.Columns, run.SourceColumn{Name: string(rune('a' + i)), Type: typed(t, typ), Mapping: "$" + mapping})
	}
	return f
}

// Every kind of value, brought to every kind of column; refused is an error.
func TestConversionOfSourceValues(t *testing.T) {
	types := []string{"TINYINT", "INTEGER", "BIGINT", "DECIMAL(5,2)", "REAL", "DOUBLE", "BOOLEAN", "CHAR(4)", "VARCHAR(6)", "BINARY(2)", "VARBINARY(2)", "DATE", "TIME", "TIMESTAMP"}
	const x = "refused"
	for _, c := range []struct {
		value string
		want  []string
	}{
		{`null`, []string{"null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null"}},
		{`true`, []string{"1", "1", "1", "1.00", "1", "1", "true", `"true"`, `"true"`, `"AAE="`, `"AQ=="`, x, x, x}},
		{`false`, []string{"0", "0", "0", "0.00", "0", "0", "false", `"fals"`, `"false"`, `"AAA="`, `"AA=="`, x, x, x}},
		{`12`, []string{"12", "12", "12", "12.00", "12", "12", "true", `"12  "`, `"12"`, x, x, x, x, x}},
		{`0`, []string{"0", "0", "0", "0.00", "0", "0", "false", `"0   "`, `"0"`, x, x, x, x, x}},
		{`-0`, []string{"0", "0", "0", "0.00", "-0", "-0", "false", `"-0  "`, `"-0"`, x, x, x, x, x}},
		{`12.5`, []string{x, x, x, "12.50", "12.5", "12.5", "true", `"12.5"`, `"12.5"`, x, x, x, x, x}},
		{`1.20e1`, []string{"12", "12", "12", "12.00", "12", "12", "true", `"1.20"`, `"1.20e1"`, x, x, x, x, x}},
		{`300`, []string{x, "300", "300", "300.00", "300", "300", "true", `"300 "`, `"300"`, x, x, x, x, x}},
		{`1.005`, []string{x, x, x, "1.01", "1.005", "1.005", "true", `"1.00"`, `"1.005"`, x, x, x, x, x}},
		{`9223372036854775807`, []string{x, x, "9223372036854775807", x, "9223372000000000000", "9223372036854776000", "true", `"9223"`, `"922337"`, x, x, x, x, x}},
		{`9223372036854775808`, []string{x, x, x, x, "9223372000000000000", "9223372036854776000", "true", `"9223"`, `"922337"`, x, x, x, x, x}},
		{`-9223372036854775808`, []string{x, x, "-9223372036854775808", x, "-9223372000000000000", "-9223372036854776000", "true", `"-922"`, `"-92233"`, x, x, x, x, x}},
		{`9223372036854775807.5`, []string{x, x, x, x, "9223372000000000000", "9223372036854776000", "true", `"9223"`, `"922337"`, x, x, x, x, x}},
		{`4503599627370496.5`, []string{x, x, x, x, "4503599600000000", "4503599627370496", "true", `"4503"`, `"450359"`, x, x, x, x, x}},
		{`9007199254740993.5`, []string{x, x, x, x, "9007199000000000", "9007199254740994", "true", `"9007"`, `"900719"`, x, x, x, x, x}},
		{`1e400`, []string{x, x, x, x, x, x, "true", `"1e40"`, `"1e400"`, x, x, x, x, x}},
		{`1e-400`, []string{x, x, x, "0.00", "0", "0", "false", `"1e-4"`, `"1e-400"`, x, x, x, x, x}},
		{`"12"`, []string{"12", "12", "12", "12.00", "12", "12", "false", `"12  "`, `"12"`, x, x, x, x, x}},
		{`" 12.5 "`, []string{x, x, x, "12.50", "12.5", "12.5", "false", `" 12."`, `" 12.5 "`, x, x, x, x, x}},
		{`"TrUe"`, []string{x, x, x, x, x, x, "true", `"TrUe"`, `"TrUe"`, x, x, x, x, x}},
		{`"yes, really"`, []string{x, x, x, x, x, x, "false", `"yes,"`, `"yes, r"`, x, x, x, x, x}},
		{`"ä\u00f6ü𝄞x"`, []string{x, x, x, x, x, x, "false", `"äöü𝄞"`, `"äöü𝄞x"`, x, x, x, x, x}},
		{`""`, []string{x, x, x, x, x, x, "false", `"    "`, `""`, x, x, x, x, x}},
		{`"NaN"`, []string{x, x, x, x, x, x, "false", `"NaN "`, `"NaN"`, x, x, x, x, x}},
		{`"X'3F67'"`, []string{x, x, x, x, x, x, "false", `"X'3F"`, `"X'3F67"`, `"P2c="`, `"P2c="`, x, x, x}},
		{`"x'3f'"`, []string{x, x, x, x, x, x, "false", `"x'3f"`, `"x'3f'"`, `"PwA="`, `"Pw=="`, x, x, x}},
		{`"X'3F6701'"`, []string{x, x, x, x, x, x, "false", `"X'3F"`, `"X'3F67"`, x, x, x, x, x}},
		{`"X'3F6'"`, []string{x, x, x, x, x, x, "false", `"X'3F"`, `"X'3F6'"`, x, x, x, x, x}},
		{`"1992-02-14"`, []string{x, x, x, x, x, x, "false", `"1992"`, `"1992-0"`, x, x, `"1992-02-14"`, x, x}},
		{`"1992-02-30"`, []string{x, x, x, x, x, x, "false", `"1992"`, `"1992-0"`, x, x, x, x, x}},
		{`"18:35:44"`, []string{x, x, x, x, x, x, "false", `"18:3"`, `"18:35:"`, x, x, x, `"18:35:44"`, x}},
		{`"1992-02-14 18:35:44.0"`, []string{x, x, x, x, x, x, "false", `"1992"`, `"1992-0"`, x, x, x, x, `"1992-02-14 18:35:44.000"`}},
		{`"1992-02-14T18:35:44.123456"`, []string{x, x, x, x, x, x, "false", `"1992"`, `"1992-0"`, x, x, x, x, `"1992-02-14 18:35:44.123"`}},
		{`"1992-02-14T18:35:44Z"`, []string{x, x, x, x, x, x, "false", `"1992"`, `"1992-0"`, x, x, x, x, `"1992-02-14 18:35:44.000"`}},
		{`[1, 2]`, []string{x, x, x, x, x, x, x, `"[1, "`, `"[1, 2]"`, x, x, x, x, x}},
		{`{"q":1}`, []string{x, x, x, x, x, x, x, `"{\"q\""`, `"{\"q\":1"`, x, x, x, x, x}},
	} {
		for i, typ := range types {
			rows, refused := parsed(t, source(t, typ+" $.v"), `{"v":`+c.value+`}`)
			got := x
			if len(rows) == 1 && len(refused) == 0 {
				got = strings.TrimSuffix(strings.TrimPrefix(rows[0], `{"a":`), "}")
			} else if len(rows) != 0 || len(refused) != 1 || !strings.HasPrefix(refused[0], "COERCION_ERROR ") {
				t.Errorf("%s as %s: %v, %v", c.value, typ, rows, refused)
			}
			if got != c.want[i] {
				t.Errorf("%s as %s is %s, want %s", c.value, typ, got, c.want[i])
			}
		}
	}
}

func TestRecordsOfJSON(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"x":`, n) + "1" + strings.Repeat("}", n) }
	for name, c := range map[string]struct {
		columns []string
		rowPath string
		record  string
		want    string // rows, then refusals
	}{
		"nested":                         {columns: []string{"INTEGER $.x.y.z", "INTEGER $.x.q"}, record: `{"x":{"y":{"z":1,"Z":2}}}`, want: `{"a":1,"b":null}`},
		"case matters":                   {columns: []string{"INTEGER $.X"}, record: `{"x":1}`, want: `{"a":null}`},
		"a path through what is none":    {columns: []string{"INTEGER $.x.y"}, record: `{"x":5} {"x":[{"y":1}]} {"x":null} 7 [] "s"`, want: `{"a":null} {"a":null} {"a":null} {"a":null} {"a":null} {"a":null}`},
		"whole and part":                 {columns: []string{"VARCHAR(50) $.x", "INTEGER $.x.y", "VARCHAR(50) $"}, record: `{"x": {"y": 1}}`, want: `{"a":"{\"y\": 1}","b":1,"c":"{\"x\": {\"y\": 1}}"}`},
		"the same path twice":            {columns: []string{"INTEGER $.x", "VARCHAR(5) $.x", "VARCHAR(9) $.l[0:]", "VARCHAR(2) $.l[0:]"}, record: `{"x":1,"l":[1]}`, want: `{"a":1,"b":"1","c":"[1]","d":"[1"}`},
		"the last of two members counts": {columns: []string{"INTEGER $.x"}, record: `{"x":1,"x":2}`, want: `{"a":2}`},
		"a whole array":                  {columns: []string{"VARCHAR(50) $.l[0:]", "INTEGER $.n"}, record: `{"l":[1, {"x":[]}],"n":3}`, want: `{"a":"[1, {\"x\":[]}]","b":3}`},
		"flattened":                      {columns: []string{"INTEGER $.n", "INTEGER $.l[0:].x", "VARCHAR(9) $.l[0:].y.z", "VARCHAR(9) $.m[0:]"}, record: `{"l":[{"x":1,"y":{"z":"q"}},{"x":2},{},5,null],"n":3,"m":[7]}`, want: `{"a":3,"b":1,"c":"q","d":"[7]"} {"a":3,"b":2,"c":null,"d":"[7]"} {"a":3,"b":null,"c":null,"d":"[7]"} {"a":3,"b":null,"c":null,"d":"[7]"} {"a":3,"b":null,"c":null,"d":"[7]"}`},
		"flattened and whole":            {columns: []string{"INTEGER $.l[0:].x", "VARCHAR(30) $.l[0:]"}, record: `{"l":[{"x":1},{"x":2}]}`, want: `{"a":1,"b":"[{\"x\":1},{\"x\":2}]"} {"a":2,"b":"[{\"x\":1},{\"x\":2}]"}`},
		"an empty array is one row":      {columns: []string{"INTEGER $.n", "INTEGER $.l[0:].x"}, record: `{"l":[],"n":3} {"n":4} {"l":null,"n":5} {"l":{"x":1},"n":6}`, want: `{"a":3,"b":null} {"a":4,"b":null} {"a":5,"b":null} {"a":6,"b":null}`},
		"an element is wrong":            {columns: []string{"INTEGER $.l[0:].x"}, record: `{"l":[{"x":1},{"x":"q"},{"x":3}]}`, want: `{"a":1} {"a":3} COERCION_ERROR {"l":[{"x":1},{"x":"q"},{"x":3}]}`},
		"an array within an array":       {columns: []string{"VARCHAR(9) $.l[0:].x[0:]"}, record: `{"l":[{"x":[1,2]},{"x":[]}]}`, want: `{"a":"[1,2]"} {"a":"[]"}`},
		"documents":                      {columns: []string{"INTEGER $.x"}, record: " {\"x\":1}{\"x\":2}\r\n\t{\"x\":3} ", want: `{"a":1} {"a":2} {"a":3}`},
		"nothing":                        {columns: []string{"INTEGER $.x"}, record: " \n"},
		"broken behind a good one":       {columns: []string{"INTEGER $.x"}, record: `{"x":1} {"x":2,} {"x":3}`, want: `{"a":1} PARSE_ERROR {"x":2,} {"x":3}`},
		"rows at a path":                 {columns: []string{"INTEGER $.x"}, rowPath: "$.data.rows[0:]", record: `{"data":{"rows":[{"x":1},{"x":2}]},"x":9}`, want: `{"a":1} {"a":2}`},
		"an object at a path":            {columns: []string{"INTEGER $.x"}, rowPath: "$.data", record: `{"data":{"x":1}} {"other":1} {"data":{"x":"q"}}`, want: `{"a":1} COERCION_ERROR {"x":"q"}`},
		"broken rows at a path":          {columns: []string{"INTEGER $.x"}, rowPath: "$.rows[0:]", record: `{"rows":[{"x":1},{"x":2}`, want: `PARSE_ERROR {"rows":[{"x":1},{"x":2}`},
		"rows of rows at a path":         {columns: []string{"INTEGER $.l[0:].x", "INTEGER $.n"}, rowPath: "$[0:]", record: `[{"n":1,"l":[{"x":1},{"x":2}]},{"n":2}]`, want: `{"a":1,"b":1} {"a":2,"b":1} {"a":null,"b":2}`},
		"escapes":                        {columns: []string{"VARCHAR(50) $.x"}, record: `{"\u0078":"\"\\\/\b\f\n\r\t\u00e9\ud834\udd1e"}`, want: `{"a":"\"\\/\b\f\n\r\té𝄞"}`},
		"half surrogates":                {columns: []string{"VARCHAR(50) $.x"}, record: `{"x":"\ud834 \udd1e\ud834\u0041\ud834"}`, want: `{"a":"` + "\ufffd \ufffd\ufffdA\ufffd" + `"}`},
		"deep":                           {columns: []string{"INTEGER $.n"}, record: deep(90), want: `{"a":null}`},
		"too deep":                       {columns: []string{"INTEGER $.n"}, record: deep(200), want: "PARSE_ERROR " + deep(200)},
		"too deep in arrays":             {columns: []string{"INTEGER $.n"}, record: strings.Repeat("[", 100000), want: "PARSE_ERROR " + strings.Repeat("[", 100000)},
	} {
		f := source(t, c.columns...)
		f.RowPath = c.rowPath
		rows, refused := parsed(t, f, c.record)
		got := strings.Join(append(rows, refused...), " ")
		var a, b any
		if json.Unmarshal([]byte(got), &a) == nil && json.Unmarshal([]byte(c.want), &b) == nil && fmt.Sprint(a) == fmt.Sprint(b) {
			continue // written in another way
		}
		if got != c.want {
			t.Errorf("%s: %.300s\nwant %.300s", name, got, c.want)
		}
	}
}

func TestFormatsThatAreNone(t *testing.T) {
	for name, f := range map[string]run.Format{
		"no columns":                source(t),
		"two arrays":                source(t, "INTEGER $.l[0:].x", "INTEGER $.m[0:].x"),
		"an array through an array": source(t, "INTEGER $.l[0:].x[0:].y"),
		"a path without $":          {Columns: []run.SourceColumn{{Name: "a", Type: typed(t, "INTEGER"), Mapping: "x"}}},
		"an element":                source(t, "INTEGER $.l[1]"),
		"a row path without $":      {RowPath: "x", Columns: source(t, "INTEGER $.x").Columns},
		"no delimiters":             {CSV: true, Columns: source(t, "INTEGER $.x").Columns},
		"1001 columns":              source(t, strings.Split(strings.TrimSuffix(strings.Repeat("INTEGER $.x,", 1001), ","), ",")...),
	} {
		if _, err := run.NewParser(f); err == nil {
			t.Errorf("%s is a format", name)
		}
	}
}

func TestRecordsOfCSV(t *testing.T) {
	for name, c := range map[string]struct {
		row, column string
		record      string
		want        string
	}{
		"rows":                    {"\n", ",", "1,x\n2,y", `{"a":1,"b":"x"} {"a":2,"b":"y"}`},
		"a last delimiter":        {"\n", ",", "1,x\n", `{"a":1,"b":"x"}`},
		"missing fields":          {"\n", ",", "1\n,\n", `{"a":1,"b":null} {"a":null,"b":""}`},
		"more fields":             {"\n", ",", "1,x,y,z", `{"a":1,"b":"x"}`},
		"a wrong one":             {"\n", ",", "1,x\nq,y\n3,z", `{"a":1,"b":"x"} {"a":3,"b":"z"} COERCION_ERROR q,y`},
		"quotes":                  {"\n", ",", "\"1\",\"a,\"\"b\nc\"\n2,d\"e", `{"a":1,"b":"a,\"b\nc"} {"a":2,"b":"d\"e"}`},
		"an open quote":           {"\n", ",", "1,\"x\n2,y", `{"a":1,"b":"x\n2,y"}`},
		"text behind a quote":     {"\n", ",", "1,\"x\"y\n2,z", `{"a":1,"b":"xy"} {"a":2,"b":"z"}`},
		"long delimiters":         {"<br>", "||", "1||x<br>2||y|<br>", `{"a":1,"b":"x"} {"a":2,"b":"y|"}`},
		"one begins as the other": {"\r\n", "\r", "1\rx\r\n2\ry", `{"a":1,"b":"x"} {"a":2,"b":"y"}`},
		"a column's is longer":    {";", ";;", "1;;x;2;;y", `{"a":1,"b":"x"} {"a":2,"b":"y"}`},
		"nothing":                 {"\n", ",", "", ``},
		"a header is a row":       {"\n", ",", "n,name\n1,x", `{"a":1,"b":"x"} COERCION_ERROR n,name`},
		"characters":              {"\n", "é", "1éüü\n2éy", `{"a":1,"b":"üü"} {"a":2,"b":"y"}`},
	} {
		f := source(t, "INTEGER $", "VARCHAR(10) $")
		f.CSV, f.RowDelimiter, f.ColumnDelimiter = true, c.row, c.column
		rows, refused := parsed(t, f, c.record)
		if got := strings.Join(append(rows, refused...), " "); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
	for value, want := range map[string]string{"true": "true", "TRUE": "true", "1": "false", "": "null", "x": "false"} {
		f := source(t, "BOOLEAN $")
		f.CSV, f.RowDelimiter, f.ColumnDelimiter = true, "\n", ","
		if rows, _ := parsed(t, f, value+"\n"); strings.Join(rows, " ") != `{"a":`+want+`}` {
			t.Errorf("%q as BOOLEAN is %v", value, rows)
		}
	}
}

// What encoding/json takes is taken, with the same values; what it refuses is
// refused, but for several documents in a record and a bound on depth.
func FuzzParser(f *testing.F) {
	for _, seed := range []string{`{"s":"\ud834\udd1e\u00e9","n":1.5e3,"l":[{"x":1},{"x":"2"}],"o":{"p":true}}`, `{"n":-0}`, `{"n":01}`, `{"s":"a` + "\x01" + `"}`, `[1,2`, `{"a":1,}`, `nul`, `"\x"`, `{"s":"` + "\xff" + `"}`, ` {} `, `-`, `1.`, `.5`, `1e`, `{"n":1e999}`} {
		f.Add(seed)
	}
	format := run.Format{Columns: []run.SourceColumn{
		{Name: "s", Type: typed(f, "VARCHAR(65535)"), Mapping: "$.s"}, {Name: "n", Type: typed(f, "VARCHAR(65535)"), Mapping: "$.n"}, {Name: "x", Type: typed(f, "VARCHAR(65535)"), Mapping: "$.l[0:].x"}, {Name: "p", Type: typed(f, "VARCHAR(65535)"), Mapping: "$.o.p"},
	}}
	var columns []plan.ColumnInfo
	for _, c := range format.Columns {
		columns = append(columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
	}
	// as is the text of a value in a VARCHAR.
	as := func(raw json.RawMessage, ok bool) string {
		raw = bytes.TrimSpace(raw)
		switch {
		case !ok || string(raw) == "null":
			return "\x00null"
		case raw[0] == '"':
			var s string
			_ = json.Unmarshal(raw, &s)
			return s
		}
		return string(raw)
	}
	f.Fuzz(func(t *testing.T, record string) {
		if len(record) > 2000 || strings.Count(record, "[")+strings.Count(record, "{") > 90 {
			return
		}
		parser, err := run.NewParser(format)
		if err != nil {
			t.Fatal(err)
		}
		rows, refused := run.NewRows(columns), 0
		parser.Parse(rows, record, 0, nil, func(string, string, string) { refused++ })
		// All documents up to the end, or to where they are none.
		decoder := json.NewDecoder(strings.NewReader(record))
		var want []string
		bad := 0
		for {
			var raw json.RawMessage
			if err := decoder.Decode(&raw); err != nil {
				if err.Error() != "EOF" {
					bad = 1
				}
				break
			}
			if c := bytes.TrimSpace(raw)[0]; c != '{' && c != '[' && c != '"' {
				return // numbers and words need white space between them
			}
			members := func(raw json.RawMessage) map[string]json.RawMessage {
				var m map[string]json.RawMessage
				_ = json.Unmarshal(raw, &m)
				return m
			}
			m := members(raw)
			s, sok := m["s"]
			n, nok := m["n"]
			p, pok := members(m["o"])["p"]
			if strings.Count(record, `"l"`) > 1 || strings.Count(record, `"o"`) > 1 || strings.Contains(record, `\u006`) {
				return // a member twice: the paths join what stands in both
			}
			var list []json.RawMessage
			if json.Unmarshal(m["l"], &list) != nil || len(list) == 0 {
				list = []json.RawMessage{nil}
			}
			for _, element := range list {
				x, xok := members(element)["x"]
				want = append(want, fmt.Sprintf("%q", []string{as(s, sok), as(n, nok), as(x, xok), as(p, pok)}))
			}
		}
		if refused != bad {
			t.Fatalf("%q: %d refusals, encoding/json: %d", record, refused, bad)
		}
		b := rows.Batch()
		var got []string
		for _, i := range b.Sel {
			var row []string
			for c := range columns {
				v := b.Value(columns, c, i)
				if v.Null {
					v.S = "\x00null"
				}
				row = append(row, strings.ToValidUTF8(v.S, "\ufffd"))
			}
			got = append(got, fmt.Sprintf("%q", row))
		}
		for i := range want {
			want[i] = strings.ToValidUTF8(want[i], "\ufffd")
		}
		if strings.ContainsRune(strings.ToValidUTF8(record, "\ufffd"), '\ufffd') {
			return // which bytes make one replacement character differs
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("%q: %q\nencoding/json: %q", record, got, want)
		}
	})
}
