package text

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// ErrTime says that a regular expression took too long on a text.
var ErrTime = errors.New("the regular expression takes too long on this text")

// matchTime bounds the backtracking engine.
const matchTime = 250 * time.Millisecond

// MaxRegexp is the longest regular expression, in bytes.
const MaxRegexp = 16 << 10

// Regexp is a compiled Java regular expression.
type Regexp struct {
	java   *javaRegexp
	linear *regexp.Regexp // if it can be
	whole  *regexp.Regexp // the same, for the whole text
	// empty says that it can match the empty text.
	empty bool
	back  *regexp2.Regexp
	backW *regexp2.Regexp
}

// CompileRegexp compiles a Java regular expression.
func CompileRegexp(pattern string) (*Regexp, error) {
	if len(pattern) > MaxRegexp {
		return nil, errors.New("it is too long")
	}
	java, err := translateJava(pattern)
	if err != nil {
		return nil, err
	}
	r := &Regexp{java: java}
	if java.linear != "" {
		if tree, err := syntax.Parse(java.linear, syntax.Perl); err == nil {
			r.empty = canBeEmpty(tree)
		}
		if r.linear, err = regexp.Compile(java.linear); err == nil {
			if r.whole, err = regexp.Compile(`\A(?:` + java.linear + `)\z`); err != nil {
				r.linear = nil
			}
		}
	}
	if r.back, err = regexp2.Compile(java.back, regexp2.None); err != nil {
		return nil, err
	}
	if r.backW, err = regexp2.Compile(`\A(?:`+java.back+`)\z`, regexp2.None); err != nil {
		return nil, err
	}
	r.back.MatchTimeout, r.backW.MatchTimeout = matchTime, matchTime
	return r, nil
}

// canBeEmpty reports whether an expression may match the empty text.
func canBeEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral, syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpNoMatch:
		return false
	case syntax.OpCapture, syntax.OpPlus:
		return canBeEmpty(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || canBeEmpty(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if !canBeEmpty(sub) {
				return false
			}
		}
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, canBeEmpty)
	}
	return true
}

// linearFor reports whether the linear engine finds in s what Java does.
func (r *Regexp) linearFor(s string) bool {
	if r.linear == nil {
		return false
	}
	if r.java.dollar && s != "" {
		switch last, _ := utf8.DecodeLastRuneInString(s); last {
		case '\n', '\r', 0x85, 0x2028, 0x2029:
			return false
		}
	}
	if r.java.boundary {
		for i := range len(s) {
			if s[i] >= utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

// Groups is the number of its groups.
func (r *Regexp) Groups() int { return r.java.groups }

// Find is the first match in s.
func (r *Regexp) Find(s string) (match string, ok bool, err error) {
	if r.linearFor(s) {
		at := r.linear.FindStringIndex(s)
		if at == nil {
			return "", false, nil
		}
		return s[at[0]:at[1]], true, nil
	}
	m, err := r.back.FindStringMatch(s)
	if err != nil {
		return "", false, ErrTime
	}
	if m == nil {
		return "", false, nil
	}
	return m.String(), true, nil
}

// Group is what a group matched; OK is false if it took no part.
type Group struct {
	Text string
	OK   bool
}

// Whole matches all of s and appends its groups to dst; ok is false if s does
// not match.
func (r *Regexp) Whole(dst []Group, s string) (groups []Group, ok bool, err error) {
	if r.linearFor(s) {
		at := r.whole.FindStringSubmatchIndex(s)
		if at == nil {
			return dst, false, nil
		}
		for g := 1; g <= r.java.groups; g++ {
			if at[2*g] < 0 {
				dst = append(dst, Group{})
			} else {
				dst = append(dst, Group{s[at[2*g]:at[2*g+1]], true})
			}
		}
		return dst, true, nil
	}
	m, err := r.backW.FindStringMatch(s)
	if err != nil {
		return dst, false, ErrTime
	}
	if m == nil {
		return dst, false, nil
	}
	for g := 1; g <= r.java.groups; g++ {
		group := m.GroupByNumber(g)
		if group == nil || len(group.Captures) == 0 {
			dst = append(dst, Group{})
		} else {
			dst = append(dst, Group{group.String(), true})
		}
	}
	return dst, true, nil
}

// Replace puts replacement, in which $1 and ${name} stand for groups and \ takes
// the meaning of the next character away, in place of matches from the start-th
// character on: of all if occurrence is 0, else of that one.
func (r *Regexp) Replace(s, replacement string, start, occurrence int64) (string, error) {
	at := 0
	for i := int64(1); i < start; i++ {
		if at >= len(s) {
			return s, nil
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	if at >= len(s) && start > 1 {
		return s, nil
	}
	head, tail := s[:at], s[at:]
	var b strings.Builder
	b.WriteString(head)
	from, n := 0, int64(0)
	emit := func(begin, end int, group func(int) string) error {
		n++
		if occurrence > 0 && n != occurrence {
			return nil
		}
		b.WriteString(tail[from:begin])
		from = end
		return r.expand(&b, replacement, group)
	}
	// Go's engine finds no empty match right behind another one, and Java's does.
	if !r.empty && r.linearFor(tail) {
		limit := -1
		if occurrence > 0 {
			limit = int(min(occurrence, 1<<30))
		}
		for _, m := range r.linear.FindAllStringSubmatchIndex(tail, limit) {
			if err := emit(m[0], m[1], func(g int) string {
				if m[2*g] < 0 {
					return ""
				}
				return tail[m[2*g]:m[2*g+1]]
			}); err != nil {
				return "", err
			}
		}
		b.WriteString(tail[from:])
		return b.String(), nil
	}
	m, err := r.back.FindStringMatch(tail)
	// Where the characters that the engine counts in begin.
	var offsets []int
	if m != nil {
		offsets = make([]int, 0, len(tail)+1)
		for i := range tail {
			offsets = append(offsets, i)
		}
		offsets = append(offsets, len(tail))
	}
	for ; err == nil && m != nil; m, err = r.back.FindNextMatch(m) {
		if err := emit(offsets[m.Index], offsets[m.Index+m.Length], func(g int) string {
			group := m.GroupByNumber(g)
			if group == nil || len(group.Captures) == 0 {
				return ""
			}
			return tail[offsets[group.Index]:offsets[group.Index+group.Length]]
		}); err != nil {
			return "", err
		}
		if occurrence > 0 && n >= occurrence {
			break
		}
	}
	if err != nil {
		return "", ErrTime
	}
	b.WriteString(tail[from:])
	return b.String(), nil
}

func (r *Regexp) expand(b *strings.Builder, replacement string, group func(int) string) error {
	for i := 0; i < len(replacement); i++ {
		switch c := replacement[i]; {
		case c == '\\':
			if i++; i == len(replacement) {
				return errors.New(`the replacement ends with \`)
			}
			b.WriteByte(replacement[i])
		case c == '$' && strings.HasPrefix(replacement[i:], "${"):
			name, _, ok := strings.Cut(replacement[i+2:], "}")
			g := r.java.names[name]
			if !ok || g == 0 {
				return errors.New("the replacement names a group that the regular expression does not have")
			}
			b.WriteString(group(g))
			i += len(name) + 2
		case c == '$':
			if i+1 == len(replacement) || replacement[i+1] < '0' || replacement[i+1] > '9' {
				return errors.New("$ in a replacement is followed by the number of a group")
			}
			i++
			g := int(replacement[i] - '0')
			if g > r.java.groups {
				return errors.New("the replacement names a group that the regular expression does not have")
			}
			// More digits belong to the number as long as there is such a group.
			for i+1 < len(replacement) && replacement[i+1] >= '0' && replacement[i+1] <= '9' && g*10+int(replacement[i+1]-'0') <= r.java.groups {
				i++
				g = g*10 + int(replacement[i]-'0')
			}
			b.WriteString(group(g))
		default:
			b.WriteByte(c)
		}
	}
	return nil
}
