package sql

import (
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxIdentifier is the longest identifier, in characters.
const MaxIdentifier = 128

type lexer struct {
	text string
	at   int
}

func (l *lexer) fail(from int, hint, format string, args ...any) *Error {
	return NewError(l.text, Span{Pos(from), Pos(max(l.at, from+1))}, hint, format, args...)
}

// next reads one token. After an error the lexer stands behind what was wrong.
func (l *lexer) next() (token, *Error) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	from := l.at
	if from == len(l.text) {
		return token{kind: kindEnd, span: Span{Pos(from), Pos(from)}}, nil
	}
	done := func(k kind, text string) (token, *Error) {
		return token{kind: k, text: text, span: Span{Pos(from), Pos(l.at)}}, nil
	}
	c := l.text[from]
	switch {
	case isDigit(c), c == '.' && isDigit(l.peek(1)):
		return l.number()
	case c == '\'':
		text, err := l.quoted('\'', "string")
		if err != nil {
			return token{}, err
		}
		return done(kindString, text)
	case c == '"':
		text, err := l.quoted('"', "quoted identifier")
		if err != nil {
			return token{}, err
		}
		if err := l.checkQuoted(from, text); err != nil {
			return token{}, err
		}
		return done(kindQuoted, text)
	case (c == 'u' || c == 'U') && l.peek(1) == '&' && l.peek(2) == '\'':
		l.at += 2
		text, err := l.quoted('\'', "string")
		if err != nil {
			return token{}, err
		}
		return done(kindUnicode, text)
	case (c == 'x' || c == 'X') && l.peek(1) == '\'':
		l.at++
		text, err := l.quoted('\'', "binary string")
		if err != nil {
			return token{}, err
		}
		raw, bad := hex.DecodeString(text)
		if bad != nil {
			return token{}, l.fail(from, "", "a binary string is an even number of hexadecimal digits, as in X'3F67'")
		}
		return done(kindBinary, string(raw))
	case isLetter(c):
		for l.at < len(l.text) && (isLetter(l.text[l.at]) || isDigit(l.text[l.at])) {
			l.at++
		}
		if l.at-from > MaxIdentifier {
			return token{}, l.fail(from, "", "an identifier has at most %d characters", MaxIdentifier)
		}
		return done(kindWord, strings.ToUpper(l.text[from:l.at]))
	}
	for _, symbol := range []string{"<>", "!=", "<=", ">=", "||"} {
		if strings.HasPrefix(l.text[from:], symbol) {
			l.at += 2
			return done(kindSymbol, symbol)
		}
	}
	if strings.IndexByte("()+-*/,.;=<>[]:?", c) >= 0 {
		l.at++
		return done(kindSymbol, string(c))
	}
	r, size := utf8.DecodeRuneInString(l.text[from:])
	l.at += size
	switch {
	case r == '–' || r == '—' || r == '−':
		return token{}, l.fail(from, "replace it with -", "%q is a typographic dash", r)
	case r == '‘' || r == '’' || r == '“' || r == '”':
		return token{}, l.fail(from, "strings stand in ' and names in \"", "%q is a typographic quotation mark", r)
	case r == '`':
		return token{}, l.fail(from, "names stand in \"", "` does not quote names")
	case unicode.IsLetter(r):
		return token{}, l.fail(from, "put the name in \"", "an unquoted name cannot contain %q", r)
	case r == utf8.RuneError && size == 1:
		return token{}, l.fail(from, "", "the text is not UTF-8 here")
	}
	return token{}, l.fail(from, "", "%q has no meaning here", r)
}

func (l *lexer) peek(n int) byte {
	if l.at+n < len(l.text) {
		return l.text[l.at+n]
	}
	return 0
}

// skip passes over white space and comments.
func (l *lexer) skip() *Error {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			l.at++
		case c == '-' && l.peek(1) == '-', c == '/' && l.peek(1) == '/':
			if end := strings.IndexByte(l.text[l.at:], '\n'); end >= 0 {
				l.at += end + 1
			} else {
				l.at = len(l.text)
			}
		case c == '/' && l.peek(1) == '*':
			end := strings.Index(l.text[l.at+2:], "*/")
			if end < 0 {
				from := l.at
				l.at = len(l.text)
				return NewError(l.text, Span{Pos(from), Pos(from + 2)}, "close it with */", "a comment begins here and does not end")
			}
			l.at += end + 4
		case c == 0xEF && strings.HasPrefix(l.text[l.at:], "\uFEFF"), c == 0xC2 && strings.HasPrefix(l.text[l.at:], "\u00A0"):
			// A byte order mark and no-break spaces come along with copied text.
			_, size := utf8.DecodeRuneInString(l.text[l.at:])
			l.at += size
		default:
			return nil
		}
	}
	return nil
}

// quoted reads a text in quotes, in which a doubled quote stands for one.
func (l *lexer) quoted(quote byte, what string) (string, *Error) {
	from := l.at
	l.at++
	var b strings.Builder
	for {
		end := strings.IndexByte(l.text[l.at:], quote)
		if end < 0 {
			l.at = len(l.text)
			return "", NewError(l.text, Span{Pos(from), Pos(from + 1)}, "", "a %s begins here and does not end", what)
		}
		b.WriteString(l.text[l.at : l.at+end])
		l.at += end + 1
		if l.peek(0) != quote {
			return b.String(), nil
		}
		b.WriteByte(quote)
		l.at++
	}
}

func (l *lexer) checkQuoted(from int, name string) *Error {
	if name == "" {
		return l.fail(from, "", "a name cannot be empty")
	}
	if utf8.RuneCountInString(name) > MaxIdentifier {
		return l.fail(from, "", "an identifier has at most %d characters", MaxIdentifier)
	}
	for _, r := range name {
		if r < 0x20 {
			return l.fail(from, "", "a name cannot contain control characters")
		}
	}
	return nil
}

// number reads 42, 2.50, .5, 5., 1e3.
func (l *lexer) number() (token, *Error) {
	from, kind := l.at, kindInteger
	digits := func() {
		for l.at < len(l.text) && isDigit(l.text[l.at]) {
			l.at++
		}
	}
	digits()
	if l.peek(0) == '.' {
		l.at++
		kind = kindDecimal
		digits()
	}
	if c := l.peek(0); c == 'e' || c == 'E' {
		mark := l.at
		l.at++
		if s := l.peek(0); s == '+' || s == '-' {
			l.at++
		}
		if isDigit(l.peek(0)) {
			kind = kindDouble
			digits()
		} else {
			l.at = mark
		}
	}
	if l.at < len(l.text) && isLetter(l.text[l.at]) {
		for l.at < len(l.text) && (isLetter(l.text[l.at]) || isDigit(l.text[l.at])) {
			l.at++
		}
		return token{}, l.fail(from, "a name that begins with a digit stands in \"", "%q is neither a number nor a name", l.text[from:l.at])
	}
	return token{kind: kind, text: l.text[from:l.at], span: Span{Pos(from), Pos(l.at)}}, nil
}

// unescape undoes the \xxxx forms of a u&'…' string. Characters beyond four
// digits are written as the two halves that UTF-16 has for them.
func unescape(text string, escape byte) (string, bool) {
	var b strings.Builder
	var half rune
	for i := 0; i < len(text); {
		if text[i] != escape {
			b.WriteByte(text[i])
			i++
			continue
		}
		if i+1 < len(text) && text[i+1] == escape {
			if half != 0 {
				return "", false
			}
			b.WriteByte(escape)
			i += 2
			continue
		}
		if i+5 > len(text) {
			return "", false
		}
		raw, err := hex.DecodeString(text[i+1 : i+5])
		if err != nil {
			return "", false
		}
		r := rune(raw[0])<<8 | rune(raw[1])
		i += 5
		switch {
		case half != 0:
			if r = utf16.DecodeRune(half, r); r == unicode.ReplacementChar {
				return "", false
			}
			half = 0
		case r >= 0xD800 && r < 0xDC00 && i < len(text) && text[i] == escape:
			half = r
			continue
		case utf16.IsSurrogate(r):
			return "", false
		}
		b.WriteRune(r)
	}
	return b.String(), half == 0
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
