package text

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Matcher tells whether a whole text matches a pattern.
type Matcher interface{ Match(s string) bool }

// CheckPattern reports what is wrong with the pattern of LIKE or SIMILAR TO.
func CheckPattern(pattern, escape string, similar bool) error {
	_, err := compile(pattern, escape, similar)
	return err
}

func compile(pattern, escape string, similar bool) (Matcher, error) {
	if similar {
		return CompileSimilar(pattern, escape)
	}
	return CompileLike(pattern, escape)
}

// like is a pattern cut at its % signs; the pieces are matched from left to
// right, each as early as possible.
type like struct {
	pieces      [][]rune // any is '_'
	open, close bool     // begins, ends with %
}

const anyRune = rune(-1)

// CompileLike compiles the pattern of LIKE. escape is empty or one character.
func CompileLike(pattern, escape string) (Matcher, error) {
	esc, err := escapeRune(escape)
	if err != nil {
		return nil, err
	}
	l := &like{}
	var piece []rune
	plain := true
	first, last := true, false
	runes := []rune(pattern)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		last = false
		switch {
		case r == esc:
			if i++; i == len(runes) || runes[i] != '%' && runes[i] != '_' && runes[i] != esc {
				return nil, fmt.Errorf("in a pattern, %q is followed by %%, _ or itself", esc)
			}
			piece = append(piece, runes[i])
		case r == '%':
			if first {
				l.open = true
			}
			if len(piece) > 0 {
				l.pieces = append(l.pieces, piece)
				piece = nil
			}
			last = true
		case r == '_':
			piece = append(piece, anyRune)
			plain = false
		default:
			piece = append(piece, r)
		}
		first = false
	}
	if len(piece) > 0 {
		l.pieces = append(l.pieces, piece)
	}
	l.close = last
	if plain && len(l.pieces) <= 1 {
		text := ""
		if len(l.pieces) == 1 {
			text = string(l.pieces[0])
		}
		return plainLike{text, l.open, l.close}, nil
	}
	return l, nil
}

func escapeRune(escape string) (rune, error) {
	if escape == "" {
		return anyRune - 1, nil
	}
	r, size := utf8.DecodeRuneInString(escape)
	if size != len(escape) {
		return 0, errors.New("ESCAPE takes one character")
	}
	return r, nil
}

// plainLike is 'x', 'x%', '%x' or '%x%'.
type plainLike struct {
	text        string
	open, close bool
}

func (l plainLike) Match(s string) bool {
	switch {
	case l.open && l.close:
		return strings.Contains(s, l.text)
	case l.open:
		return strings.HasSuffix(s, l.text)
	case l.close:
		return strings.HasPrefix(s, l.text)
	}
	return s == l.text
}

// Match implements Matcher.
func (l *like) Match(s string) bool {
	pieces := l.pieces
	if !l.open {
		if len(pieces) == 0 {
			return s == "" || l.close
		}
		n, ok := prefix(s, pieces[0])
		if !ok {
			return false
		}
		s, pieces = s[n:], pieces[1:]
		if len(pieces) == 0 {
			return l.close || s == ""
		}
	}
	for i, p := range pieces {
		if i == len(pieces)-1 && !l.close {
			return suffix(s, p)
		}
		for {
			if n, ok := prefix(s, p); ok {
				s = s[n:]
				break
			}
			if s == "" {
				return false
			}
			_, size := utf8.DecodeRuneInString(s)
			s = s[size:]
		}
	}
	return true
}

func prefix(s string, piece []rune) (n int, ok bool) {
	for _, want := range piece {
		if n == len(s) {
			return 0, false
		}
		r, size := utf8.DecodeRuneInString(s[n:])
		if want != anyRune && r != want {
			return 0, false
		}
		n += size
	}
	return n, true
}

func suffix(s string, piece []rune) bool {
	for i := len(piece) - 1; i >= 0; i-- {
		if s == "" {
			return false
		}
		r, size := utf8.DecodeLastRuneInString(s)
		if piece[i] != anyRune && r != piece[i] {
			return false
		}
		s = s[:len(s)-size]
	}
	return true
}

type similar struct{ re *regexp.Regexp }

func (s similar) Match(text string) bool { return s.re.MatchString(text) }

// CompileSimilar compiles the pattern of SIMILAR TO.
func CompileSimilar(pattern, escape string) (Matcher, error) {
	source, err := similarSource(pattern, escape)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(`^(?s:` + source + `)$`)
	if err != nil {
		return nil, fmt.Errorf("the pattern %q is wrong: %v", pattern, errors.Unwrap(err))
	}
	return similar{re}, nil
}

func similarSource(pattern, escape string) (string, error) {
	esc, err := escapeRune(escape)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	runes := []rune(pattern)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case r == esc:
			if i++; i == len(runes) {
				return "", errors.New("the pattern ends with its escape character")
			}
			b.WriteString(regexp.QuoteMeta(string(runes[i])))
		case r == '%':
			b.WriteString(".*")
		case r == '_':
			b.WriteByte('.')
		case r == '[':
			n, class, err := set(runes[i:], esc)
			if err != nil {
				return "", err
			}
			b.WriteString(class)
			i += n - 1
		case strings.ContainsRune("|*+?{}(),", r):
			if r == ',' {
				b.WriteByte(',')
			} else if r == '(' {
				b.WriteString("(?:")
			} else {
				b.WriteRune(r)
			}
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	return b.String(), nil
}

// set reads [a-z], [^a-z] and [a-z^c], which is a to z without c.
func set(runes []rune, esc rune) (n int, class string, err error) {
	type interval struct{ low, high rune }
	var include, exclude []interval
	into := &include
	i := 1
	for ; ; i++ {
		if i >= len(runes) {
			return 0, "", errors.New("a set in the pattern begins with [ and has no ]")
		}
		r := runes[i]
		if r == ']' {
			break
		}
		if r == '^' {
			into = &exclude
			continue
		}
		if r == esc && i+1 < len(runes) {
			i++
			r = runes[i]
		}
		high := r
		if i+2 < len(runes) && runes[i+1] == '-' && runes[i+2] != ']' {
			i += 2
			if high = runes[i]; high == esc && i+1 < len(runes) {
				i++
				high = runes[i]
			}
		}
		if high < r {
			return 0, "", fmt.Errorf("the range %c-%c in the pattern goes backwards", r, high)
		}
		*into = append(*into, interval{r, high})
	}
	if len(include) == 0 && len(exclude) == 0 {
		return 0, "", errors.New("a set in the pattern is empty")
	}
	if len(include) == 0 {
		include = []interval{{0, utf8.MaxRune}}
	}
	for _, x := range exclude {
		var left []interval
		for _, in := range include {
			if x.high < in.low || x.low > in.high {
				left = append(left, in)
				continue
			}
			if in.low < x.low {
				left = append(left, interval{in.low, x.low - 1})
			}
			if in.high > x.high {
				left = append(left, interval{x.high + 1, in.high})
			}
		}
		include = left
	}
	if len(include) == 0 {
		return i + 1, `[^\x{0}-\x{10FFFF}]`, nil
	}
	var b strings.Builder
	b.WriteByte('[')
	for _, in := range include {
		fmt.Fprintf(&b, `\x{%x}-\x{%x}`, in.low, in.high)
	}
	b.WriteByte(']')
	return i + 1, b.String(), nil
}

// SubstringSimilar is the part of s that stands between the two e" of the
// pattern, e being the escape character.
func SubstringSimilar(s, pattern, escape string) (string, bool, error) {
	parts := strings.Split(pattern, escape+`"`)
	if escape == "" || len(parts) != 3 {
		return "", false, fmt.Errorf(`the pattern of SUBSTRING … SIMILAR has two marks %s"`, escape)
	}
	source := "^(?s:"
	for i, p := range parts {
		part, err := similarSource(p, escape)
		if err != nil {
			return "", false, err
		}
		if i == 1 {
			source += "(" + part + ")"
		} else {
			source += "(?:" + part + ")"
		}
	}
	re, err := regexp.Compile(source + ")$")
	if err != nil {
		return "", false, err
	}
	m := re.FindStringSubmatch(s)
	if m == nil {
		return "", false, nil
	}
	return m[1], true, nil
}
