package logs

import (
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	const line = `127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`
	const doc = `{"level":"error","code":42,"big":1.5e3,"ok":true,"none":null,"user":{"name":"Ann Lee","id":"u-7","tags":["a","b"]},"dotted.key":1,"list":[{"x":1},{"x":2}]}`
	for _, c := range []struct {
		pattern, message string
		want             bool
	}{
		{"", "anything", true}, {"  ", "", true},
		{"ERROR", "an ERROR here", true}, {"ERROR", "an error here", false}, {"ERROR", "ERRORS", true},
		{"a b", "b and a", true}, {"a b", "a only", false},
		{`"not found"`, "it was not found.", true}, {`"not found"`, "not was found", false}, {`"a \"b\" \\c"`, `x a "b" \c y`, true},
		{"a -b", "a c", true}, {"a -b", "a b", false}, {`-"b c"`, "b  c", true}, {"-b", "b", false},
		{"?a ?b", "xbx", true}, {"?a ?b", "xcx", false}, {"?a ?b c", "c", true}, {"?a ?b c", "a", false}, {"?a -b", "a b", false},
		{"%[0-9]+ms%", "took 15ms", true}, {"%[0-9]+ms%", "took ms", false}, {"took %^took%", "took 1", true},

		{`{ $.level = "error" }`, doc, true}, {`{ $.level = error }`, doc, true}, {`{ $.level = "err*" }`, doc, true}, {`{ $.level = "*rr*r" }`, doc, true}, {`{ $.level = "*x*" }`, doc, false},
		{`{ $.level != "error" }`, doc, false}, {`{ $.missing != "error" }`, doc, false}, {`{ $.level = %^err% }`, doc, true},
		{`{ $.code = 42 }`, doc, true}, {`{ $.code = 42.0 }`, doc, true}, {`{ $.code > 41 }`, doc, true}, {`{ $.code < 42 }`, doc, false}, {`{ $.code <= 42 }`, doc, true}, {`{ $.code >= 43 }`, doc, false},
		{`{ $.big = 1500 }`, doc, true}, {`{ $.big > 1e3 }`, doc, true}, {`{ $.code = 4* }`, doc, true}, {`{ $.level > 3 }`, doc, false},
		{`{ $.ok IS TRUE }`, doc, true}, {`{ $.ok IS FALSE }`, doc, false}, {`{ $.ok = true }`, doc, true}, {`{ $.none IS NULL }`, doc, true}, {`{ $.ok IS NULL }`, doc, false},
		{`{ $.nope NOT EXISTS }`, doc, true}, {`{ $.none NOT EXISTS }`, doc, false}, {`{ $.user.name.x NOT EXISTS }`, doc, true},
		{`{ $.user.name = "Ann*" }`, doc, true}, {`{ $.user.tags[1] = "b" }`, doc, true}, {`{ $.user.tags[2] = "b" }`, doc, false}, {`{ $.list[1].x = 2 }`, doc, true},
		{`{ $["dotted.key"] = 1 }`, doc, true}, {`{ $.user["id"] = "u-7" }`, doc, true}, {`{ $.user = "x" }`, doc, false},
		{`{ $.level = "error" && $.code = 1 }`, doc, false}, {`{ $.level = "info" || $.code = 42 }`, doc, true},
		{`{ ($.level = "info" || $.code = 42) && ($.ok IS TRUE) }`, doc, true}, {`{ $.level = "x" && $.code = 1 || $.ok IS TRUE }`, doc, true}, {`{$.code=42&&$.ok IS TRUE}`, doc, true},
		{`{ $.level = "error" }`, "no JSON", false}, {`{ $.level = "error" }`, `["error"]`, false},

		{"[ip, user, name, time, request, status, bytes]", line, true}, {"[ip, user, name, time, request, status]", line, false},
		{"[ip, user, name, time, request, status = 4*, bytes]", line, true}, {"[ip, user, name, time, request, status = 5*, bytes]", line, false},
		{"[..., status = 404, bytes > 1000]", line, true}, {"[..., bytes > 2000]", line, false}, {"[ip = 127.0.0.1, ...]", line, true}, {"[ip = 10.*, ...]", line, false},
		{"[ip, ..., request = *index*, status, bytes]", line, true}, {"[a, ..., b]", "x", false}, {"[..., (s = 404 || s = 500), b]", line, true},
		{"[..., s != 404 && s != 500, b]", line, false}, {`[..., r = "GET*", s, b]`, line, true}, {"[]", "", true}, {"[]", "x", false},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.Match([]byte(c.message)); got != c.want {
			t.Errorf("%s on %.60s: %v", c.pattern, c.message, got)
		}
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		"a.b":                          "Invalid character(s) in term 'a.b'",
		`"open`:                        "Unterminated quote",
		"-":                            "a term is missing",
		"? a":                          "Invalid character(s) in term ''",
		"%[%":                          "Invalid regular expression %[%",
		"%x":                           "Unterminated regular expression",
		"{ }":                          "unexpected '}'",
		"{ $ = 1 }":                    "unexpected '= 1 }'",
		"{ $.a }":                      "unexpected '}'",
		"{ $.a = }":                    "unexpected '}'",
		"{ $.a = 1":                    "it ends too early",
		"{ $.a = 1 } x":                "unexpected 'x'",
		"{ $.a > x }":                  "> compares numbers only",
		"{ $.a IS }":                   "unexpected '}'",
		"{ $.a[x] = 1 }":               "unexpected 'x] = 1 }'",
		"{ ($.a = 1 }":                 "unexpected '}'",
		"[a b]":                        "unexpected 'b]'",
		"[a, b = 1 && c = 2]":          "unexpected",
		"[..., a, ...]":                "more than one ellipsis",
		"[a":                           "it ends too early",
		"{ " + strings.Repeat("(", 40): "more than 32 parentheses",
	} {
		_, err := ParsePattern(pattern)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", pattern, err, want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{`{ ($.a = "b*") && $.c[1] > 3 }`, "[a, b=1, ...]", `-x ?y "z w" %a+%`} {
		f.Add(s, `{"a":"b"}`)
	}
	f.Fuzz(func(t *testing.T, pattern, message string) {
		p, err := ParsePattern(pattern)
		if err == nil {
			p.Match([]byte(message))
		}
	})
}
