package postgres

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// all reads an input; a row that cannot be loaded is shown as !reason.
func all(t *testing.T, options string, columns []column, paths, input string) string {
	t.Helper()
	o, err := ParseCopyOptions(options)
	if err != nil {
		t.Fatal(err)
	}
	var steps [][]pathStep
	if paths != "" {
		if steps, err = ParseJSONPaths([]byte(paths)); err != nil {
			t.Fatal(err)
		}
	}
	tab, err := newTable(o, columns, steps)
	if err != nil {
		return "!!" + err.Error()
	}
	whole := drain(tab.read(strings.NewReader(input)))
	if slow := drain(tab.read(iotest.OneByteReader(strings.NewReader(input)))); slow != whole {
		t.Errorf("byte by byte it reads %q, at once %q", slow, whole)
	}
	return whole
}

func drain(r *rows) string {
	var out []byte
	for {
		var bad *rowError
		var err error
		out, err = r.next(out)
		switch {
		case errors.Is(err, io.EOF):
			return string(out)
		case errors.As(err, &bad):
			out = append(out, "!"+err.Error()+"\n"...)
		case err != nil:
			return string(out) + "!!" + err.Error()
		}
	}
}

var abc = []column{{name: "a", typ: "int4"}, {name: "b", typ: "varchar", length: 5}, {name: "c", typ: "timestamp"}}

func TestRows(t *testing.T) {
	for _, c := range []struct{ name, options, paths, input, want string }{
		{"bars by default", "", "", "1|x|2026-07-13\n2|y z|\n", "1\tx\t2026-07-13\n2\ty z\t\\N\n"},
		{"the last line needs no end", "", "", "1|x|", "1\tx\t\\N\n"},
		{"a delimiter after the last field", "", "", "1|x||\n", "1\tx\t\\N\n"},
		{"too few and too many fields", "", "", "1|x\n1|x|2|3\n", "!Delimiter not found\n!Extra column(s) found\n"},
		{"FILLRECORD", "FILLRECORD", "", "1\n", "1\t\\N\t\\N\n"},
		{"NULL AS, EMPTYASNULL, BLANKSASNULL", `NULL AS 'nil' EMPTYASNULL BLANKSASNULL`, "", "nil|nil|nil\n||\n |  | \n", "\\N\t\\N\t\\N\n\\N\t\\N\t\\N\n\\N\t\\N\t\\N\n"},
		{"empty text is no NULL", "", "", "||\n", "\\N\t\t\\N\n"},
		{"the default of NULL", "", "", `\N|\N|\N`, "\\N\t\\N\t\\N\n"},
		{"ESCAPE", `DELIMITER ',' ESCAPE`, "", "1,a\\,b\\\\,\n2,c\\\nd,\n", "1\ta,b\\\\\t\\N\n2\tc\\nd\t\\N\n"},
		{"without ESCAPE a backslash is one", `DELIMITER ','`, "", `1,a\b,`, "1\ta\\\\b\t\\N\n"},
		{"a delimiter of a control character", `DELIMITER '\001'`, "", "1\x01x\x01", "1\tx\t\\N\n"},
		{"a tab", `DELIMITER '\t'`, "", "1\tx\t", "1\tx\t\\N\n"},
		{"REMOVEQUOTES", `REMOVEQUOTES`, "", `"1"|'a|b'|""`, "1\ta|b\t\\N\n"},
		{"CSV", "CSV", "", "1,\"a,\"\"b\"\"\",\r\n2,\"c\nd\",\n", "1\ta,\"b\"\t\\N\n2\tc\\nd\t\\N\n"},
		{"CSV with other quotes", `CSV QUOTE AS '%' DELIMITER ';'`, "", "1;%a;b%;\n", "1\ta;b\t\\N\n"},
		{"CSV that does not end", "CSV", "", "1,\"a,\n", "!a quoted field does not end\n"},
		{"FIXEDWIDTH", `FIXEDWIDTH 'a:3,b:4,c:10'`, "", "1  äx  2026-07-13\n22 yyyy\n", "1\täx\t2026-07-13\n22\tyyyy\t\\N\n"},
		{"IGNOREHEADER and IGNOREBLANKLINES", "IGNOREHEADER 1 IGNOREBLANKLINES", "", "a|b|c\n\n1|x|\n\n", "1\tx\t\\N\n"},
		{"TRUNCATECOLUMNS", "TRUNCATECOLUMNS", "", "1|äöüßéè|\n", "1\täöüßé\t\\N\n"},
		{"TRIMBLANKS", "TRIMBLANKS", "", "1|x  |\n", "1\tx\t\\N\n"},
		{"invalid UTF-8 is refused", "", "", "1|\xff|\n2|a\x00b|\n3|ok|\n", "!column b: invalid UTF-8 or a zero byte; ACCEPTINVCHARS would replace it\n!column b: invalid UTF-8 or a zero byte; ACCEPTINVCHARS would replace it\n3\tok\t\\N\n"},
		{"ACCEPTINVCHARS", "ACCEPTINVCHARS", "", "1|a\xff\xfe|\n2|a\x00b|\n", "1\ta??\t\\N\n2\ta?b\t\\N\n"},
		{"ACCEPTINVCHARS with a character", "ACCEPTINVCHARS AS '^'", "", "1|a\xe2\x28|\n", "1\ta^(\t\\N\n"},
		{"TIMEFORMAT epochsecs", "TIMEFORMAT 'epochsecs'", "", "1|x|1783951509.25\n", "1\tx\t2026-07-13 14:05:09.25+00:00\n"},
		{"TIMEFORMAT epochmillisecs", "TIMEFORMAT AS 'epochmillisecs'", "", "1|x|1783951509123\n2|x|noon\n", "1\tx\t2026-07-13 14:05:09.123+00:00\n!column c: \"noon\" is no number of seconds or milliseconds\n"},
		{"TIMEFORMAT of one's own", "TIMEFORMAT 'DD.MM.YYYY HH:MI:SS AM'", "", "1|x|13.07.2026 02:05:09 PM\n2|x|31.02.2026 02:05:09 PM\n", "1\tx\t2026-07-13 14:05:09+00:00\n!column c: \"31.02.2026 02:05:09 PM\" does not fit the format: there is no such day\n"},
		{"ACCEPTANYDATE", "TIMEFORMAT 'YYYY-MM-DD' ACCEPTANYDATE", "", "1|x|whenever\n", "1\tx\t\\N\n"},
		{"UTF-16", "ENCODING UTF16", "", "\xff\xfe1\x00|\x00\xe4\x00|\x00\n\x00", "1\tä\t\\N\n"},
		{"UTF-16 with surrogates", "ENCODING AS UTF16BE", "", "\x001\x00|\xd8\x3d\xde\x00\x00|\x00\n", "1\t😀\t\\N\n"},

		{"JSON 'auto'", "JSON 'auto'", "", `{"a":1,"b":"x\ty","c":"2026-07-13","d":[1]} {"b":null}` + "\n" + `{"a":"7","B":"no","b":{"k": [1, 2]}}`, "1\tx\\ty\t2026-07-13\n\\N\t\\N\t\\N\n7\t{\"k\": [1, 2]}\t\\N\n"},
		{"objects side by side", "FORMAT JSON 'auto'", "", `{"a":1}{"a":2}`, "1\t\\N\t\\N\n2\t\\N\t\\N\n"},
		{"braces in strings", "JSON 'auto'", "", `{"b":"}{\"\\"}`, "\\N\t}{\"\\\\\t\\N\n"},
		{"JSON 'auto ignorecase'", "JSON 'auto ignorecase'", "", `{"A":1,"B":"x"}`, "1\tx\t\\N\n"},
		{"bad JSON between good", "JSON 'auto'", "", "{\"a\":1}\nnonsense\n{\"a\":}\n{\"a\":2}\n[1]\n{\"a\":3}\n{\"a\"", "1\t\\N\t\\N\n!Invalid JSON: 'n' where an object should begin\n!Invalid JSON: invalid character '}' looking for beginning of value\n2\t\\N\t\\N\n!Invalid JSON: '[' where an object should begin\n3\t\\N\t\\N\n!Invalid JSON: an object does not end\n"},
		{"JSONPaths", "JSON 's3://b/paths'", `{"jsonpaths":["$.x.y","$['l'][1]","$.at"]}`, `{"x":{"y":5},"l":["p","q"],"at":null}{"x":7}`, "5\tq\t\\N\n\\N\t\\N\t\\N\n"},
		{"JSONPaths of another length", "JSON 's3://b/paths'", `{"jsonpaths":["$.x"]}`, `{}`, "!!COPY option JSON: the JSONPaths file has 1 paths for 3 columns"},
		{"widths of another length", "FIXEDWIDTH 'a:1'", "", "x", "!!COPY option FIXEDWIDTH: it has 1 columns, 3 are to be loaded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := all(t, c.options, abc, c.paths, c.input); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestColumnsOfOtherTypes(t *testing.T) {
	columns := []column{{name: "j", typ: "jsonb"}, {name: "l", typ: "_text"}, {name: "d", typ: "date"}}
	const input = `{"j":"text","l":["a","b\"c",null,[1]],"d":"13/07/26"}{"j":{"k":1},"l":[]}`
	const want = "\"text\"\t{\"a\",\"b\\\\\"c\",NULL,{\"1\"}}\t2026-07-13\n{\"k\":1}\t{}\t\\N\n"
	if got := all(t, "JSON 'auto' DATEFORMAT 'DD/MM/YY'", columns, "", input); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := all(t, "JSON 'noshred'", columns[:1], "", `{"k":[1]}`); got != "{\"k\":[1]}\n" {
		t.Errorf("noshred: %q", got)
	}
}

func TestOptionsThatCannotBeFollowed(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{"PARQUET", "is for the service's own servers"},
		{"LZOP", "is for the service's own servers"},
		{"GIZP", "is not known"},
		{"JSON 'car'", "must be 'auto'"},
		{"JSON 'auto' DELIMITER ','", "cannot go together with JSON"},
		{"CSV ESCAPE", "cannot go together with CSV"},
		{"QUOTE '%'", "needs CSV"},
		{"CSV QUOTE ','", "is the delimiter"},
		{"DELIMITER 'ab'", "single character"},
		{"DELIMITER", "needs a text in quotes"},
		{"NULL AS 'a|b'", "contains the delimiter"},
		{"MAXERROR many", "needs a number"},
		{"MAXERROR 100001", "needs a number"},
		{"FIXEDWIDTH 'a:0'", "cannot read"},
		{"TIMEFORMAT 'ZZZ-QQ'", "is no part of a date"},
		{"DATEFORMAT 'epochsecs'", "must be 'auto'"},
		{"ENCODING latin1", "must be UTF8"},
		{"ACCEPTINVCHARS 'ä'", "single ASCII"},
		{"NULL 'never ends", "does not end"},
		{"NOLOAD", "would load nothing"},
		{"GZIP $$", "cannot be read"},
	} {
		_, err := ParseCopyOptions(c.options)
		var option *OptionError
		if !errors.As(err, &option) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.options, err, c.want)
		}
	}
	o, err := ParseCopyOptions("json 'auto' gzip region 'eu-west-1' statupdate off compupdate preset comprows 5 iam_role default maxerror as 7 manifest;")
	if err != nil || o.Compression != "gzip" || o.MaxErrors != 7 || o.Layout != JSONAuto {
		t.Errorf("options without meaning here: %+v, %v", o, err)
	}
}

func TestListsOfColumns(t *testing.T) {
	columns := []column{{name: "id", generated: true}, {name: "a"}, {name: "B"}}
	for _, c := range []struct {
		list     string
		explicit bool
		want     string
	}{
		{"", false, "a,B"},
		{"", true, "id,a,B"},
		{`A, "B"`, false, "a,B"},
		{`("B",id)`, false, "B,id"},
		{"b", false, "ColumnNotFound"},
		{"a,a", false, "ColumnSpecifiedMoreThanOnce"},
		{"a,", false, "SyntaxError"},
		{"a b", false, "SyntaxError"},
		{`a); DROP TABLE x; --`, false, "SyntaxError"},
		{`"a`, false, "SyntaxError"},
	} {
		chosen, err := choose(columns, c.list, c.explicit)
		var got []string
		for _, k := range chosen {
			got = append(got, k.name)
		}
		text := strings.Join(got, ",")
		var coded *codedError
		if errors.As(err, &coded) {
			text = coded.code
		}
		if text != c.want {
			t.Errorf("%q: %s (%v), want %s", c.list, text, err, c.want)
		}
	}
}

func FuzzRows(f *testing.F) {
	for _, options := range []string{"", "CSV", "JSON 'auto ignorecase'", "ESCAPE REMOVEQUOTES FILLRECORD", "FIXEDWIDTH 'a:1,b:2,c:3'", "ENCODING UTF16 ACCEPTINVCHARS", "TIMEFORMAT 'MON DD YY HH:MI:SSOF' TRUNCATECOLUMNS"} {
		for _, input := range []string{"1|x|2026-07-13\n", "\"a\",\"b\n\"\"\",c", `{"a":1,"b":"\u00e9","c":[{}]}`, "\xff\xfe\x00\xd8"} {
			f.Add(options, []byte(input))
		}
	}
	paths, err := ParseJSONPaths([]byte(`{"jsonpaths":["$.a[0]","$['b'].c","$.c"]}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, options string, input []byte) {
		o, err := ParseCopyOptions(options)
		if err != nil {
			return
		}
		var steps [][]pathStep
		if o.Layout == JSONPaths {
			steps = paths
		}
		tab, err := newTable(o, abc, steps)
		if err != nil {
			return
		}
		r := tab.read(strings.NewReader(string(input)))
		var line []byte
		for rows := 0; rows < 10_000; rows++ {
			line, err = r.next(line[:0])
			var bad *rowError
			switch {
			case errors.As(err, &bad):
				if len(line) > 0 {
					t.Fatalf("a refused row leaves %q", line)
				}
			case err != nil:
				return
			case strings.Count(string(line), "\n") != 1 || strings.Count(string(line), "\t") != len(abc)-1:
				t.Fatalf("%q is not one line of %d columns", line, len(abc))
			}
		}
	})
}

func FuzzJSONPaths(f *testing.F) {
	f.Add([]byte(`{"jsonpaths":["$.a","$['b'][0].c"]}`), []byte(`{"a":{},"b":[{"c":1}]}`))
	f.Fuzz(func(t *testing.T, file, object []byte) {
		paths, err := ParseJSONPaths(file)
		if err != nil {
			return
		}
		o := &CopyOptions{Layout: JSONPaths, Encoding: "utf8"}
		columns := make([]column, len(paths))
		tab, err := newTable(o, columns, paths)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = tab.read(strings.NewReader(string(object))).next(nil)
	})
}
