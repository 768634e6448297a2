package text

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// LogColumn is a column of VARIABLE_COLUMN_LOG_PARSE or FIXED_COLUMN_LOG_PARSE.
type LogColumn struct {
	Name    string
	Type    sql.Type
	Format  *DatePattern // of dates and times; nil for the type's own form
	NotNull bool
	Start   int // of a fixed column, in characters from 0
	Length  int // of a fixed column; -1 is up to the next one
}

// ParseColumns reads NAME TYPE t [NOT NULL], …; with START i [FOR n] if fixed.
func ParseColumns(spec string, fixed bool) ([]LogColumn, error) {
	var columns []LogColumn
	for _, part := range splitColumns(spec) {
		c, err := parseColumn(strings.TrimSpace(part), fixed)
		if err != nil {
			return nil, err
		}
		columns = append(columns, c)
	}
	if len(columns) == 0 || len(columns) > 1000 {
		return nil, errors.New("the list of columns has 1 to 1000 of them")
	}
	for i := range columns {
		if fixed && columns[i].Length < 0 && i+1 < len(columns) {
			if columns[i].Length = columns[i+1].Start - columns[i].Start; columns[i].Length < 0 {
				return nil, fmt.Errorf("the column %s begins behind the next one; say how long it is with FOR", columns[i].Name)
			}
		}
	}
	return columns, nil
}

// splitColumns cuts at commas outside parentheses and quotes.
func splitColumns(spec string) []string {
	var parts []string
	depth, quote, from := 0, byte(0), 0
	for i := range len(spec) {
		switch c := spec[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, spec[from:i])
			from = i + 1
		}
	}
	if strings.TrimSpace(spec[from:]) != "" {
		parts = append(parts, spec[from:])
	}
	return parts
}

var columnForm = regexp.MustCompile(`(?is)^("(?:[^"]|"")+"|[a-z_][a-z0-9_]*)\s+TYPE\s+([a-z]+(?:\s+(?:varying|precision))?(?:\s*\([^)]*\))?)(?:\s*'((?:[^']|'')*)')?(\s+NOT\s+NULL)?(?:\s+START\s+(\d{1,9})(?:\s+FOR\s+(\d{1,9}))?)?(\s+NOT\s+NULL)?$`)

func parseColumn(part string, fixed bool) (LogColumn, error) {
	m := columnForm.FindStringSubmatch(part)
	form := "NAME TYPE type"
	if fixed {
		form += " START place FOR length"
	}
	if m == nil || fixed != (m[5] != "") {
		return LogColumn{}, fmt.Errorf("a column is written %s, not %q", form, part)
	}
	c := LogColumn{Length: -1, NotNull: m[4] != "" || m[7] != ""}
	if strings.HasPrefix(m[1], `"`) {
		c.Name = strings.ReplaceAll(m[1][1:len(m[1])-1], `""`, `"`)
	} else {
		c.Name = strings.ToUpper(m[1])
	}
	t, err := sql.ParseType(m[2])
	if err != nil || t.Kind == sql.KindInterval {
		return LogColumn{}, fmt.Errorf("the column %s has no type: %q", c.Name, m[2])
	}
	c.Type = t
	if m[3] != "" {
		if t.Kind != sql.KindDate && t.Kind != sql.KindTime && t.Kind != sql.KindTimestamp {
			return LogColumn{}, fmt.Errorf("only dates and times have a format, and the column %s is a %s", c.Name, t)
		}
		if c.Format, err = CompileDatePattern(strings.ReplaceAll(m[3], "''", "'")); err != nil {
			return LogColumn{}, err
		}
	}
	if m[5] != "" {
		c.Start, _ = strconv.Atoi(m[5])
	}
	if m[6] != "" {
		c.Length, _ = strconv.Atoi(m[6])
	}
	return c, nil
}

// FixedColumns cuts the fields of fixed columns out of s. A field behind the end
// is not OK.
func FixedColumns(dst []Group, s string, columns []LogColumn) []Group {
	runes := []rune(s)
	for _, c := range columns {
		if c.Start >= len(runes) {
			dst = append(dst, Group{})
			continue
		}
		end := len(runes)
		if c.Length >= 0 {
			end = min(end, c.Start+c.Length)
		}
		dst = append(dst, Group{string(runes[c.Start:end]), true})
	}
	return dst
}

// VariableColumns cuts s at delimiters into count fields. A delimiter behind the
// escape character or between quotes is none. Quote has one character, or one
// that opens and one that closes. Missing fields are not OK.
func VariableColumns(dst []Group, s string, count int, delimiter, escape, quote string) []Group {
	var open, closing string
	if quote != "" {
		runes := []rune(quote)
		open, closing = string(runes[0]), string(runes[len(runes)-1])
	}
	through := false
	for range count {
		if through {
			dst = append(dst, Group{})
			continue
		}
		var b strings.Builder
		quoted, ended := false, false
		i := 0
		for i < len(s) {
			rest := s[i:]
			switch {
			case escape != "" && strings.HasPrefix(rest, escape) && len(rest) > len(escape):
				i += len(escape)
				r := s[i]
				n := 1
				for r >= 0x80 && i+n < len(s) && s[i+n]&0xC0 == 0x80 {
					n++
				}
				b.WriteString(s[i : i+n])
				i += n
			case quoted && strings.HasPrefix(rest, closing):
				i += len(closing)
				if open == closing && strings.HasPrefix(s[i:], closing) {
					b.WriteString(closing)
					i += len(closing)
				} else {
					quoted = false
				}
			case !quoted && open != "" && strings.HasPrefix(rest, open) && b.Len() == 0:
				quoted = true
				i += len(open)
			case !quoted && strings.HasPrefix(rest, delimiter):
				ended = true
			default:
				b.WriteByte(s[i])
				i++
			}
			if ended {
				break
			}
		}
		dst = append(dst, Group{b.String(), true})
		if ended {
			s = s[i+len(delimiter):]
		} else {
			through = true
		}
	}
	return dst
}

// SysLog reads a line of syslog, Mon DD HH:MM:SS rest, the year being now's.
func SysLog(s string, now time.Time) (millis int64, rest string, ok bool) {
	if len(s) < 15 {
		return 0, "", false
	}
	t, err := time.Parse("Jan _2 15:04:05", s[:15])
	if err != nil {
		return 0, "", false
	}
	day := t.Day()
	t = time.Date(now.UTC().Year(), t.Month(), day, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
	if t.Day() != day {
		return 0, "", false
	}
	return t.UnixMilli(), strings.TrimPrefix(s[15:], " "), true
}

// W3C is a compiled format of web servers' logs.
type W3C struct {
	re      *regexp.Regexp
	columns int
}

var w3cFormats = map[string]string{
	"COMMON":            `%h %l %u %t "%r" %>s %b`,
	"COMMON WITH VHOST": `%v %h %l %u %t "%r" %>s %b`,
	"NCSA EXTENDED":     `%h %l %u %t "%r" %>s %b "%[Referer]i" "%[User-agent]i"`,
	"REFERER":           `%[Referer]i ---> %U`,
	"AGENT":             `%[User-agent]i`,
	"IIS":               `%a, %u, %1, %2, %3, %v, %A, %D, %I, %O, %>s, %4, %m, %U, %q`,
}

var specifier = regexp.MustCompile(`%(?:[!0-9,]*)[<>]?(?:\{[^}]*\}|\[[^\]]*\])?(?:\^?[A-Za-z]{1,2}|[0-9])`)

// CompileW3C compiles the name of a format, or a format of Apache's LogFormat.
func CompileW3C(format string) (*W3C, error) {
	if named, ok := w3cFormats[strings.ToUpper(strings.TrimSpace(format))]; ok {
		format = named
	}
	if len(format) > 4096 {
		return nil, errors.New("the log format is too long")
	}
	var b strings.Builder
	b.WriteString(`^(?s:`)
	n := 0
	for i := 0; i < len(format); {
		if format[i] != '%' {
			b.WriteString(regexp.QuoteMeta(format[i : i+1]))
			i++
			continue
		}
		if strings.HasPrefix(format[i:], "%%") {
			b.WriteString("%")
			i += 2
			continue
		}
		at := specifier.FindStringIndex(format[i:])
		if at == nil || at[0] != 0 {
			return nil, fmt.Errorf("the log format %q has a %% without a specifier", format)
		}
		// Two letters are one only where the first is a caret form.
		end := i + at[1]
		if s := format[i:end]; len(s) > 2 && isWord(s[len(s)-1]) && isWord(s[len(s)-2]) && s[len(s)-3] != '^' {
			end--
		}
		last := format[end-1]
		quoted := i > 0 && format[i-1] == '"' && end < len(format) && format[end] == '"'
		n++
		switch {
		case last == 't' && !strings.ContainsAny(format[i:end], "{["):
			b.WriteString(`(\[[^\]]*\])`)
		case quoted:
			b.WriteString(`((?:[^"\\]|\\.)*)`)
		case end == len(format):
			b.WriteString(`(.*)`)
		default:
			next := format[end : end+1]
			if next == "%" {
				b.WriteString(`(\S*?)`)
			} else {
				b.WriteString(`([^` + regexp.QuoteMeta(next) + `]*)`)
			}
		}
		i = end
	}
	if n == 0 {
		return nil, fmt.Errorf("%q is neither a log format nor the name of one", format)
	}
	b.WriteString(`)\s*$`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, err
	}
	return &W3C{re, n}, nil
}

func isWord(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// Columns is the number of specifiers.
func (w *W3C) Columns() int { return w.columns }

// Parse appends the fields of a line; ok is false if it is not of the format.
func (w *W3C) Parse(dst []Group, s string) ([]Group, bool) {
	s = strings.TrimRight(s, "\r\n")
	at := w.re.FindStringSubmatchIndex(s)
	if at == nil {
		return dst, false
	}
	for g := 1; g <= w.columns; g++ {
		dst = append(dst, Group{s[at[2*g]:at[2*g+1]], true})
	}
	return dst, true
}

// FastRegex is a compiled pattern of FAST_REGEX_LOG_PARSE: pieces that are
// matched one after the other, each as short as possible, and never again.
type FastRegex struct {
	pieces []*regexp.Regexp // anchored; with one group, or none
	groups int
}

// CompileFastRegex compiles a pattern.
func CompileFastRegex(pattern string) (*FastRegex, error) {
	if len(pattern) > MaxRegexp {
		return nil, errors.New("the pattern is too long")
	}
	type piece struct {
		group  bool
		source string
	}
	var pieces []piece
	plain := func(s string) {
		if s == "" {
			return
		}
		if n := len(pieces); n > 0 && !pieces[n-1].group {
			pieces[n-1].source += s
		} else {
			pieces = append(pieces, piece{false, s})
		}
	}
	rest := pattern
	f := &FastRegex{}
	for rest != "" {
		if rest[0] == '|' {
			// An alternative at the top is one piece, with no group of its own.
			source, n, err := fastAlternatives(pattern)
			if err != nil {
				return nil, err
			}
			if n != len(pattern) {
				return nil, fmt.Errorf("the pattern %q has a ) without its (", pattern)
			}
			pieces, rest, f.groups = []piece{{false, source}}, "", 0
			break
		}
		if rest[0] == '(' && !strings.HasPrefix(rest, "()") {
			source, n, err := fastAlternatives(rest[1:])
			if err != nil {
				return nil, err
			}
			if 1+n >= len(rest) || rest[1+n] != ')' {
				return nil, fmt.Errorf("the pattern %q has a ( without its )", pattern)
			}
			after := rest[n+2:]
			if q, used, err := fastQuantifier(after); err != nil {
				return nil, err
			} else if used > 0 {
				plain("(?:" + source + ")" + q)
				rest = after[used:]
				continue
			}
			pieces = append(pieces, piece{true, source})
			f.groups++
			rest = after
			continue
		}
		if rest[0] == ')' {
			return nil, fmt.Errorf("the pattern %q has a ) without its (", pattern)
		}
		source, n, err := fastAtom(rest)
		if err != nil {
			return nil, err
		}
		plain(source)
		rest = rest[n:]
	}
	// What stands between two groups ends the piece of the first: so a lazy group
	// stops where the text after it begins.
	for i := 0; i < len(pieces); i++ {
		source := "(" + pieces[i].source + ")"
		if !pieces[i].group {
			source = "(?:" + pieces[i].source + ")"
		}
		if pieces[i].group && i+1 < len(pieces) && !pieces[i+1].group {
			i++
			source += "(?:" + pieces[i].source + ")"
		}
		if i == len(pieces)-1 {
			source += "$"
		}
		re, err := regexp.Compile("^(?s:" + source + ")")
		if err != nil {
			return nil, fmt.Errorf("the pattern %q is wrong: %v", pattern, err)
		}
		f.pieces = append(f.pieces, re)
	}
	return f, nil
}

// fastAlternatives translates up to a closing parenthesis or the end and returns
// how much it read.
func fastAlternatives(s string) (source string, n int, err error) {
	var b strings.Builder
	for n < len(s) && s[n] != ')' {
		switch {
		case s[n] == '|':
			b.WriteByte('|')
			n++
		case s[n] == '&':
			return "", 0, errors.New("& in a pattern is not supported")
		case s[n] == '(' && !strings.HasPrefix(s[n:], "()"):
			inner, used, err := fastAlternatives(s[n+1:])
			if err != nil {
				return "", 0, err
			}
			if n+1+used >= len(s) {
				return "", 0, errors.New("the pattern has a ( without its )")
			}
			n += used + 2
			q, used, err := fastQuantifier(s[n:])
			if err != nil {
				return "", 0, err
			}
			b.WriteString("(?:" + inner + ")" + q)
			n += used
		default:
			part, used, err := fastAtom(s[n:])
			if err != nil {
				return "", 0, err
			}
			b.WriteString(part)
			n += used
		}
	}
	return b.String(), n, nil
}

var fastClasses = map[string]string{
	"Digit": `[0-9]`, "Upper": `[A-Z]`, "Lower": `[a-z]`, "Alpha": `[A-Za-z]`, "Alnum": `[0-9A-Za-z]`, "Punct": `[[:punct:]]`, "Blank": `[ \t]`,
	"Space": `[\s\v]`, "Cntrl": `[[:cntrl:]]`, "XDigit": `[0-9A-Fa-f]`, "Print": `[[:print:]]`, "Graph": `[[:graph:]]`, "ASCII": `[[:ascii:]]`,
}

// fastAtom translates one character, class or literal with its quantifier.
func fastAtom(s string) (source string, n int, err error) {
	switch c := s[0]; c {
	case '.':
		source, n = `.`, 1
	case '#':
		source, n = `[^\x{0}-\x{10FFFF}]`, 1
	case '@':
		source, n = `(?:.*?)`, 1
	case '"':
		end := strings.IndexByte(s[1:], '"')
		if end < 0 {
			return "", 0, errors.New(`a text in the pattern begins with " and has no other`)
		}
		source, n = "(?:"+regexp.QuoteMeta(s[1:1+end])+")", end+2
	case '(': // ()
		source, n = `(?:)`, 2
	case '<':
		end := strings.IndexByte(s, '>')
		if end < 0 {
			return "", 0, errors.New("a name in the pattern begins with < and has no >")
		}
		name := s[1:end]
		n = end + 1
		if class, ok := fastClasses[name]; ok {
			source = class
		} else if source, err = numberRange(name); err != nil {
			return "", 0, err
		}
	case '[':
		end := strings.IndexByte(s[1:], ']')
		if end < 1 {
			return "", 0, errors.New("a set in the pattern begins with [ and has no ]")
		}
		source, n = s[:end+2], end+2
		source = strings.ReplaceAll(source, "&&", `&\&`)
	case '\\':
		if len(s) < 2 {
			return "", 0, errors.New(`the pattern ends with \`)
		}
		size := 1
		for 1+size < len(s) && s[1+size]&0xC0 == 0x80 {
			size++
		}
		source, n = regexp.QuoteMeta(s[1:1+size]), 1+size
	case '*', '+', '?', '{', '&', '}', ']', '>':
		return "", 0, fmt.Errorf("%c in the pattern has nothing before it", c)
	default:
		size := 1
		for size < len(s) && s[size]&0xC0 == 0x80 {
			size++
		}
		source, n = regexp.QuoteMeta(s[:size]), size
	}
	q, used, err := fastQuantifier(s[n:])
	if err != nil {
		return "", 0, err
	}
	return source + q, n + used, nil
}

// fastQuantifier reads ? * + {n} {n,} {n,m} and makes it lazy.
func fastQuantifier(s string) (source string, n int, err error) {
	if s == "" {
		return "", 0, nil
	}
	switch s[0] {
	case '?', '*', '+':
		return s[:1] + "?", 1, nil
	case '{':
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return "", 0, errors.New("a number of repetitions begins with { and has no }")
		}
		low, high, two := strings.Cut(s[1:end], ",")
		a, err := strconv.Atoi(low)
		if err != nil || a < 0 || a > 1000 {
			return "", 0, fmt.Errorf("%s is not a number of repetitions", s[:end+1])
		}
		if two && high != "" {
			if b, err := strconv.Atoi(high); err != nil || b < a || b > 1000 {
				return "", 0, fmt.Errorf("%s is not a number of repetitions", s[:end+1])
			}
		}
		return s[:end+1] + "?", end + 1, nil
	}
	return "", 0, nil
}

// numberRange translates <n-m>, the numbers from n to m.
func numberRange(name string) (string, error) {
	low, high, ok := strings.Cut(name, "-")
	a, err1 := strconv.Atoi(low)
	b, err2 := strconv.Atoi(high)
	if !ok || err1 != nil || err2 != nil || a < 0 || b < a || b-a > 10000 {
		return "", fmt.Errorf("<%s> in the pattern is neither a class nor a range of numbers", name)
	}
	parts := make([]string, 0, b-a+1)
	for i := a; i <= b; i++ {
		parts = append(parts, strconv.Itoa(i))
	}
	return "(?:" + strings.Join(parts, "|") + ")", nil
}

// Groups is the number of groups.
func (f *FastRegex) Groups() int { return f.groups }

// Parse appends what the groups matched; ok is false if the text as a whole does
// not match.
func (f *FastRegex) Parse(dst []Group, s string) ([]Group, bool) {
	n := len(dst)
	for _, re := range f.pieces {
		at := re.FindStringSubmatchIndex(s)
		if at == nil {
			return dst[:n], false
		}
		if len(at) > 2 {
			dst = append(dst, Group{s[at[2]:at[3]], true})
		}
		s = s[at[1]:]
	}
	return dst, s == ""
}
