package text

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func shown(groups []Group) string {
	var parts []string
	for _, g := range groups {
		if g.OK {
			parts = append(parts, g.Text)
		} else {
			parts = append(parts, "NULL")
		}
	}
	return strings.Join(parts, " | ")
}

func TestVariableColumns(t *testing.T) {
	for _, c := range []struct {
		s                        string
		count                    int
		delimiter, escape, quote string
		want                     string
	}{
		{"a,b,c", 3, ",", "", "", "a | b | c"},
		{"a,b", 3, ",", "", "", "a | b | NULL"},
		{"a,b,", 3, ",", "", "", "a | b | "},
		{"a,b,c,d", 3, ",", "", "", "a | b | c"},
		{"", 2, ",", "", "", " | NULL"},
		{",,", 3, ",", "", "", " |  | "},
		{"a::b:c::", 3, "::", "", "", "a | b:c | "},
		{`a\,b,c\\,d\`, 3, ",", `\`, "", `a,b | c\ | d\`},
		{`"a,b",c""d,"e""f"`, 3, ",", "", `"`, `a,b | c""d | e"f`},
		{`[a,b],c`, 2, ",", "", "[]", "a,b | c"},
		{`"open,x`, 2, ",", "", `"`, "open,x | NULL"},
		{`é\éé,ü`, 2, ",", `\`, "", "ééé | ü"},
		{"\x00end,b", 2, ",", "", "", "\x00end | b"},
		{"a,\x00end", 3, ",", "", "", "a | \x00end | NULL"},
	} {
		if got := shown(VariableColumns(nil, c.s, c.count, c.delimiter, c.escape, c.quote)); got != c.want {
			t.Errorf("%q at %q, escape %q, quotes %q: %q, want %q", c.s, c.delimiter, c.escape, c.quote, got, c.want)
		}
	}
}

func TestColumnLists(t *testing.T) {
	columns, err := ParseColumns(`id TYPE INTEGER NOT NULL, "A ""b" TYPE VARCHAR(10), ts TYPE TIMESTAMP 'dd/MMM/yyyy, HH''h''', d type DECIMAL(5, 2), v TYPE CHAR VARYING(3)`, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range columns {
		got = append(got, fmt.Sprint(c.Name, " ", c.Type, " ", c.NotNull, " ", c.Format != nil))
	}
	if want := `ID INTEGER true false; A "b VARCHAR(10) false false; TS TIMESTAMP false true; D DECIMAL(5,2) false false; V VARCHAR(3) false false`; strings.Join(got, "; ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, "; "), want)
	}
	columns, err = ParseColumns(`a TYPE INTEGER START 0 FOR 3, b TYPE VARCHAR(9) START 5, c TYPE VARCHAR(9) NOT NULL START 8`, true)
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{"123xxabcdef": "123 | abc | def", "1": "1 | NULL | NULL", "éé1xxüü": "éé1 | üü | NULL", "": "NULL | NULL | NULL"} {
		if got := shown(FixedColumns(nil, s, columns)); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
	for _, spec := range []string{"", "a", "a TYPE", "a TYPE NOTHING", "a TYPE INTEGER 'yyyy'", "a TYPE DATE 'b'", "a TYPE INTEGER START 1", "a TYPE INTERVAL DAY", "1 TYPE INTEGER", "a TYPE INTEGER,, b TYPE INTEGER", strings.Repeat("a TYPE INTEGER,", 1001)} {
		if _, err := ParseColumns(spec, false); err == nil {
			t.Errorf("%.40q is a list of columns", spec)
		}
	}
	for _, spec := range []string{"a TYPE INTEGER", "a TYPE INTEGER START x", "a TYPE INTEGER START 5, b TYPE INTEGER START 2", "a TYPE INTEGER START 1 FOR 9999999999"} {
		if _, err := ParseColumns(spec, true); err == nil {
			t.Errorf("%q is a list of fixed columns", spec)
		}
	}
}

func TestSysLog(t *testing.T) {
	now := time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"Oct 11 22:14:15 host app: it fails": "2024-10-11T22:14:15Z host app: it fails",
		"Oct  1 00:00:00 x":                  "2024-10-01T00:00:00Z x",
		"Feb 29 12:00:00 leap":               "2024-02-29T12:00:00Z leap",
		"Oct 11 22:14:15":                    "2024-10-11T22:14:15Z ",
		"Oct 11 22:14:15  two":               "2024-10-11T22:14:15Z  two",
		"Oct 11 25:14:15 x":                  "no",
		"Okt 11 22:14:15 x":                  "no",
		"Feb 30 22:14:15 x":                  "no",
		"":                                   "no",
		"Oct 11 22:14":                       "no",
	} {
		ms, rest, ok := SysLog(s, now)
		got := "no"
		if ok {
			got = time.UnixMilli(ms).UTC().Format(time.RFC3339) + " " + rest
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
	if _, _, ok := SysLog("Feb 29 12:00:00 x", now.AddDate(1, 0, 0)); ok {
		t.Error("29 February is a day of 2025")
	}
}

func TestW3C(t *testing.T) {
	const common = `127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a b.gif HTTP/1.0" 200 2326`
	const commonFields = `127.0.0.1 | - | frank | [10/Oct/2000:13:55:36 -0700] | GET /a b.gif HTTP/1.0 | 200 | 2326`
	for _, c := range []struct{ format, line, want string }{
		{"COMMON", common, commonFields},
		{" common ", common + "\r\n", commonFields},
		{"COMMON WITH VHOST", "www.example.com " + common, "www.example.com | " + commonFields},
		{"NCSA EXTENDED", common + ` "http://x/?q=\"1\"" "Mozilla/4.08 [en] (Win98)"`, commonFields + ` | http://x/?q=\"1\" | Mozilla/4.08 [en] (Win98)`},
		{"REFERER", "http://x/a.html ---> /b.gif", "http://x/a.html | /b.gif"},
		{"AGENT", "Mozilla/4.08 [en] (Win98; I ;Nav)", "Mozilla/4.08 [en] (Win98; I ;Nav)"},
		{"IIS", "172.16.255.255, anonymous, 03/20/01, 23:58:11, MSFTPSVC, SALES1, 192.168.114.201, 60, 275, 0, 0, 0, PASS, /Intro.htm, -,", "172.16.255.255 | anonymous | 03/20/01 | 23:58:11 | MSFTPSVC | SALES1 | 192.168.114.201 | 60 | 275 | 0 | 0 | 0 | PASS | /Intro.htm | -,"},
		{`%h %{Referer}i %D`, "1.2.3.4 http://x 55", "1.2.3.4 | http://x | 55"},
		{`%h:%p 100%% %>s`, "h:80 100% 404", "h | 80 | 404"},
		{`"%r" %400,501{User-agent}i`, `"GET / HTTP/1.1" curl`, "GET / HTTP/1.1 | curl"},
		{"COMMON", "no such line", "no"},
		{"COMMON", "", "no"},
	} {
		w, err := CompileW3C(c.format)
		if err != nil {
			t.Errorf("%s: %v", c.format, err)
			continue
		}
		groups, ok := w.Parse(nil, c.line)
		got := "no"
		if ok {
			if got = shown(groups); len(groups) != w.Columns() {
				t.Errorf("%s has %d columns, and a line %d", c.format, w.Columns(), len(groups))
			}
		}
		if got != c.want {
			t.Errorf("%s: %q\nwant %q", c.format, got, c.want)
		}
	}
	for _, format := range []string{"", "nothing", "100%", "% h", strings.Repeat("%h ", 5000)} {
		if _, err := CompileW3C(format); err == nil {
			t.Errorf("%.20q is a format", format)
		}
	}
}

func TestFastRegex(t *testing.T) {
	for _, c := range []struct{ pattern, s, want string }{
		{"(.*) (.*)", "a b", "a | b"},
		{"(.*)-(.*)-(.*)", "a-b-c-d", "a | b | c-d"},
		{"(<Digit>+) (<Alpha>*)", "123 abc", "123 | abc"},
		{"(<Digit>+)", "12x", "no"},
		{"(<0-255>).(.*)", "99 x", "9 |  x"},
		{`(<Digit>{2,3})":"(.*)`, "123:x", "123 | x"},
		{`(a|b)c`, "bc", "b"},
		{`a(b?)c`, "ac", ""},
		{`\(([^)]*)\)`, "(x y)", "x y"},
		{`("a.b")`, "a.b", "a.b"},
		{`("a.b")`, "axb", "no"},
		{`(é*)ü`, "ééü", "éé"},
		{`x()y(.*)`, "xyz", "z"},
		{`abc`, "abc", ""},
		{`abc`, "abcd", "no"},
		{`a|b`, "b", ""},
		{`(<XDigit>+)(<Punct>)(<Space>)(<Upper>)`, "f! Q", "f | ! |   | Q"},
		{`(<XDigit>+)(<Punct>)`, "fF!", "no"},
	} {
		p, err := CompileFastRegex(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		groups, ok := p.Parse([]Group{{"kept", true}}, c.s)
		got := "no"
		if groups[0].Text != "kept" {
			t.Errorf("%s: what was there is gone", c.pattern)
		}
		if ok {
			if got = shown(groups[1:]); len(groups)-1 != p.Groups() {
				t.Errorf("%s has %d groups and gives %d", c.pattern, p.Groups(), len(groups)-1)
			}
		} else if len(groups) != 1 {
			t.Errorf("%s: groups of no match", c.pattern)
		}
		if got != c.want {
			t.Errorf("%s on %q: %q, want %q", c.pattern, c.s, got, c.want)
		}
	}
	for _, pattern := range []string{"(", ")", "a)", "(a", "*", "a{", "a{x}", "a{2,1}", "a{9999}", "<Nope>", "<5-1>", "<1-99999999>", `"a`, "[a", "<a", `a\`, "a&b", strings.Repeat("a", MaxRegexp+1)} {
		if _, err := CompileFastRegex(pattern); err == nil {
			t.Errorf("%.20q is taken", pattern)
		}
	}
}

func TestPaths(t *testing.T) {
	for path, want := range map[string][]Step{
		"$": nil, "$.a.b": {{Name: "a"}, {Name: "b"}}, "$.a[0:].b": {{Name: "a"}, {Array: true}, {Name: "b"}}, "$[0:]": {{Array: true}}, "$['a.b'].c": {{Name: "a.b"}, {Name: "c"}}, `$["é x"]`: {{Name: "é x"}}, "$.a b-c": {{Name: "a b-c"}},
	} {
		if got, err := ParsePath(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	for _, path := range []string{"", "a", "$a", "$.", "$..a", "$.a.", "$[0]", "$[1:]", "$[", "$['a", "$['a\"]", "$[]", "$['']", "$.a]b[", "$" + strings.Repeat(".a", 101)} {
		if _, err := ParsePath(path); err == nil {
			t.Errorf("%.30q is a path", path)
		}
	}
}

// Whatever the description and the line, there are as many fields as were asked
// for.
func FuzzLogs(f *testing.F) {
	f.Add("a TYPE INTEGER START 0 FOR 3, b TYPE DATE 'yyyy' START 5", `1,"2",3`, ",", `\`, `"`)
	f.Add("COMMON", `1.1.1.1 - - [x] "r" 200 5`, "%h %l", "", "[]")
	f.Add(`(<Digit>+)":"(.*)`, "12:x", "|", "", "")
	f.Add("$.a[0:].b", "Oct 11 22:14:15 x", "x", "é", "«»")
	f.Fuzz(func(t *testing.T, spec, s, delimiter, escape, quote string) {
		if len(spec) > 500 {
			return
		}
		if columns, err := ParseColumns(spec, true); err == nil {
			if n := len(FixedColumns(nil, s, columns)); n != len(columns) {
				t.Fatalf("%d fields", n)
			}
		}
		_, _ = ParseColumns(spec, false)
		_, _ = ParsePath(spec)
		SysLog(s, time.UnixMilli(0))
		if delimiter != "" {
			if n := len(VariableColumns(nil, s, 5, delimiter, escape, quote)); n != 5 {
				t.Fatalf("%d fields", n)
			}
		}
		if w, err := CompileW3C(spec); err == nil {
			if groups, ok := w.Parse(nil, s); ok && len(groups) != w.Columns() {
				t.Fatalf("%d fields", len(groups))
			}
		}
		if p, err := CompileFastRegex(spec); err == nil {
			if groups, ok := p.Parse(nil, s); ok && len(groups) != p.Groups() {
				t.Fatalf("%d groups", len(groups))
			}
		}
	})
}
