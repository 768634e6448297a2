package text

import (
	"regexp"
	"strings"
	"testing"
)

func TestLike(t *testing.T) {
	for _, c := range []struct {
		pattern, escape string
		yes, no         []string
	}{
		{"", "", []string{""}, []string{"a"}},
		{"%", "", []string{"", "a", "a\nb"}, nil},
		{"%%", "", []string{"", "a"}, nil},
		{"_", "", []string{"a", "é", "𝄞", "\n"}, []string{"", "ab"}},
		{"abc", "", []string{"abc"}, []string{"ABC", "abcd", "xabc", ""}},
		{"a%", "", []string{"a", "abc"}, []string{"", "ba"}},
		{"%a", "", []string{"a", "bca"}, []string{"ab"}},
		{"%a%", "", []string{"a", "bab"}, []string{"b"}},
		{"a%b%c", "", []string{"abc", "axbxc", "abbcc"}, []string{"acb", "ab", "bc"}},
		{"%ab%ab%", "", []string{"abab", "xabxabx"}, []string{"ab", "aba"}},
		{"a%a", "", []string{"aa", "aba"}, []string{"a"}},
		{"_%_", "", []string{"ab", "abc"}, []string{"a", ""}},
		{"%_a", "", []string{"ba", "xba"}, []string{"a"}},
		{"a_%", "", []string{"ab", "abc"}, []string{"a"}},
		{"%a_b%c", "", []string{"xaxbyc", "aaxbbc"}, []string{"axb", "abc"}},
		{"h_llo", "", []string{"héllo", "hallo"}, []string{"hllo"}},
		{"50!%", "!", []string{"50%"}, []string{"50x", "50!%"}},
		{"a!_b!!", "!", []string{"a_b!"}, []string{"axb!"}},
		{"%!%%", "!", []string{"5%", "%"}, []string{"5"}},
		{".*[a]", "", []string{".*[a]"}, []string{"xa"}},
	} {
		m, err := CompileLike(c.pattern, c.escape)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.yes {
			if !m.Match(s) {
				t.Errorf("%q is not like %q", s, c.pattern)
			}
		}
		for _, s := range c.no {
			if m.Match(s) {
				t.Errorf("%q is like %q", s, c.pattern)
			}
		}
	}
	for _, c := range [][2]string{{"a!", "!"}, {"a!b", "!"}, {"a", "!!"}} {
		if CheckPattern(c[0], c[1], false) == nil {
			t.Errorf("the pattern %q with escape %q is taken", c[0], c[1])
		}
	}
}

func TestSimilar(t *testing.T) {
	for _, c := range []struct {
		pattern, escape string
		yes, no         []string
	}{
		{"abc", "", []string{"abc"}, []string{"abcd", "xabc"}},
		{"(ab|cd)+", "", []string{"ab", "abcd"}, []string{"", "abc"}},
		{"a|bc", "", []string{"a", "bc"}, []string{"ac", "abc"}},
		{"a*b?c+", "", []string{"c", "aabcc"}, []string{"ab"}},
		{"a{2}", "", []string{"aa"}, []string{"a", "aaa"}},
		{"a{1,2}", "", []string{"a", "aa"}, []string{"", "aaa"}},
		{"a{2,}", "", []string{"aa", "aaaa"}, []string{"a"}},
		{"a%b_", "", []string{"abc", "a\nxbé"}, []string{"ab"}},
		{"[abc]", "", []string{"a", "c"}, []string{"d", "ab"}},
		{"[a-e]+", "", []string{"abe"}, []string{"f"}},
		{"[^a-c]", "", []string{"d", "é", "\n"}, []string{"b"}},
		{"[a-e^c]", "", []string{"a", "b", "d", "e"}, []string{"c", "^"}},
		{"[a-z^b-y]", "", []string{"a", "z"}, []string{"b", "m", "y"}},
		{"[a^a]", "", nil, []string{"a", ""}},
		{"[!]!-a]+", "!", []string{"]-a"}, []string{"b"}},
		{"a!*", "!", []string{"a*"}, []string{"a", "aa"}},
		{"a.b", "", []string{"a.b"}, []string{"axb"}},
		{"^a$", "", []string{"^a$"}, []string{"a"}},
		{`\d`, "", []string{`\d`}, []string{"5"}},
		{"1,2", "", []string{"1,2"}, nil},
		{"x(y)?", "", []string{"x", "xy"}, nil},
	} {
		m, err := CompileSimilar(c.pattern, c.escape)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		for _, s := range c.yes {
			if !m.Match(s) {
				t.Errorf("%q is not similar to %q", s, c.pattern)
			}
		}
		for _, s := range c.no {
			if m.Match(s) {
				t.Errorf("%q is similar to %q", s, c.pattern)
			}
		}
	}
	for _, c := range [][2]string{{"(", ""}, {"[a", ""}, {"[]", ""}, {"*", ""}, {"[e-a]", ""}, {"a!", "!"}, {"a", "xx"}, {"a)", ""}} {
		if CheckPattern(c[0], c[1], true) == nil {
			t.Errorf("the pattern %q with escape %q is taken", c[0], c[1])
		}
	}
}

func TestSubstringSimilar(t *testing.T) {
	for _, c := range []struct {
		s, pattern, escape, want string
		ok, wrong                bool
	}{
		{"foobar", `%#"o_b#"%`, "#", "oob", true, false},
		{"foobar", `#"o_b#"%`, "#", "", false, false},
		{"foobar", `#"%#"`, "#", "foobar", true, false},
		{"abc", `a#"#"bc`, "#", "", true, false},
		{"a1b", `[a-z]#"[0-9]+#"b|c`, "#", "1", true, false},
		{"x", `x`, "#", "", false, true},
		{"x", `#"x`, "#", "", false, true},
		{"x", `#"x#"#"`, "#", "", false, true},
		{"x", `"x"`, "", "", false, true},
		{"x", `#"(#"`, "#", "", false, true},
	} {
		got, ok, err := SubstringSimilar(c.s, c.pattern, c.escape)
		if got != c.want || ok != c.ok || (err != nil) != c.wrong {
			t.Errorf("%q similar %q: %q, %v, %v", c.s, c.pattern, got, ok, err)
		}
	}
}

// LIKE is what a regular expression of its pieces is.
func FuzzLike(f *testing.F) {
	f.Add("a%b_c", "", "axxbyc")
	f.Add("!%%_", "!", "%%%")
	f.Add("%aab%aab_", "", "aaabaaaabx")
	f.Fuzz(func(t *testing.T, pattern, escape, s string) {
		_, _ = CompileSimilar(pattern, escape)
		_, _, _ = SubstringSimilar(s, pattern, escape)
		m, err := CompileLike(pattern, escape)
		if err != nil || strings.ContainsRune(pattern+" "+s+" "+escape, '\ufffd') || len(pattern) > 200 {
			return
		}
		var b strings.Builder
		escaped := false
		for _, r := range pattern {
			switch {
			case !escaped && escape != "" && string(r) == escape:
				escaped = true
				continue
			case !escaped && r == '%':
				b.WriteString(".*")
			case !escaped && r == '_':
				b.WriteString(".")
			default:
				b.WriteString(regexp.QuoteMeta(string(r)))
			}
			escaped = false
		}
		re, err := regexp.Compile(`\A(?s:` + b.String() + `)\z`)
		if err != nil {
			return
		}
		if got, want := m.Match(s), re.MatchString(s); got != want {
			t.Fatalf("%q like %q escape %q: %v", s, pattern, escape, got)
		}
	})
}
