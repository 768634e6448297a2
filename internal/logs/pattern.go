package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Pattern is a filter pattern: what decides whether an event is wanted. Its three
// forms are those of CloudWatch Logs:
//
//	error -debug "not found" ?warn          terms of a text
//	{ ($.level = "error") && ($.code > 4) } selectors of a JSON document
//	[ip, user, ..., status = 4*, bytes]     fields between blanks
//
// The zero Pattern matches everything.
type Pattern struct {
	required, excluded, anyOf []matcher
	document                  node     // of the second form
	fields                    []column // of the third
	fieldExpression           bool
}

// maxDepth bounds how deep parentheses of a pattern may lie in each other.
const maxDepth = 32

// ParsePattern reads a pattern. Its errors are for the caller.
func ParsePattern(text string) (*Pattern, error) {
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return &Pattern{}, nil
	case trimmed[0] == '{':
		return parseSelectors(trimmed)
	case trimmed[0] == '[':
		return parseFields(trimmed)
	}
	return parseTerms(trimmed)
}

// Match decides about one message.
func (p *Pattern) Match(message []byte) bool {
	switch {
	case p.document != nil:
		d := json.NewDecoder(bytes.NewReader(message))
		d.UseNumber()
		var v any
		if d.Decode(&v) != nil {
			return false
		}
		if _, ok := v.(map[string]any); !ok {
			return false
		}
		return p.document.match(v)
	case p.fieldExpression:
		return p.matchFields(string(message))
	}
	for _, m := range p.required {
		if !m.in(message) {
			return false
		}
	}
	for _, m := range p.excluded {
		if m.in(message) {
			return false
		}
	}
	// Beside a term that must be there, optional ones decide nothing.
	if len(p.anyOf) == 0 || len(p.required) > 0 {
		return true
	}
	return slices.ContainsFunc(p.anyOf, func(m matcher) bool { return m.in(message) })
}

// matcher finds a text or an expression anywhere.
type matcher struct {
	text []byte
	re   *regexp.Regexp
}

func (m matcher) in(message []byte) bool {
	if m.re != nil {
		return m.re.Match(message)
	}
	return bytes.Contains(message, m.text)
}

func compile(text string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("Invalid regular expression %%%s%%", text)
	}
	return re, nil
}

// scanner reads a pattern from left to right.
type scanner struct {
	rest  string
	depth int
}

func (s *scanner) blanks() { s.rest = strings.TrimLeftFunc(s.rest, unicode.IsSpace) }

// take moves over a text if it comes next.
func (s *scanner) take(text string) bool {
	s.blanks()
	rest, ok := strings.CutPrefix(s.rest, text)
	if ok {
		s.rest = rest
	}
	return ok
}

// word moves over a key word, in any case, that ends there.
func (s *scanner) word(text string) bool {
	s.blanks()
	if len(s.rest) < len(text) || !strings.EqualFold(s.rest[:len(text)], text) {
		return false
	}
	if len(s.rest) > len(text) && isWord(rune(s.rest[len(text)])) {
		return false
	}
	s.rest = s.rest[len(text):]
	return true
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// quoted reads a text in double quotes, in which a backslash saves the next one.
func (s *scanner) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '\\' && i+1 < len(s.rest) && (s.rest[i+1] == '"' || s.rest[i+1] == '\\'):
			i++
			b.WriteByte(s.rest[i])
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String(), nil
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("Unterminated quote in the filter pattern")
}

// expression reads %…%.
func (s *scanner) expression() (*regexp.Regexp, error) {
	end := strings.IndexByte(s.rest[1:], '%')
	if end < 0 {
		return nil, fmt.Errorf("Unterminated regular expression in the filter pattern")
	}
	text := s.rest[1 : 1+end]
	s.rest = s.rest[end+2:]
	return compile(text)
}

func parseTerms(text string) (*Pattern, error) {
	p := &Pattern{}
	s := &scanner{rest: text}
	for s.blanks(); s.rest != ""; s.blanks() {
		into := &p.required
		switch s.rest[0] {
		case '-':
			into = &p.excluded
			s.rest = s.rest[1:]
		case '?':
			into = &p.anyOf
			s.rest = s.rest[1:]
		}
		var m matcher
		var err error
		switch {
		case s.rest == "":
			return nil, fmt.Errorf("Invalid filter pattern: a term is missing")
		case s.rest[0] == '"':
			var t string
			t, err = s.quoted()
			m.text = []byte(t)
		case s.rest[0] == '%':
			m.re, err = s.expression()
		default:
			end := strings.IndexFunc(s.rest, unicode.IsSpace)
			if end < 0 {
				end = len(s.rest)
			}
			term := s.rest[:end]
			s.rest = s.rest[end:]
			if strings.ContainsFunc(term, func(r rune) bool { return !isWord(r) }) || term == "" {
				err = fmt.Errorf("Invalid character(s) in term '%s'", term)
			}
			m.text = []byte(term)
		}
		if err != nil {
			return nil, err
		}
		*into = append(*into, m)
	}
	return p, nil
}

// node is a part of an expression over selectors or fields.
type node interface{ match(v any) bool }

type (
	both    struct{ a, b node }
	either  struct{ a, b node }
	compare struct {
		path  []step
		op    string // = != < > <= >= null missing true false
		value value
	}
	step struct {
		key   string
		index int // -1: key
	}
)

// value is what a selector is compared with.
type value struct {
	text   string
	glob   bool // the text has stars that stand for anything
	number float64
	isNum  bool
	re     *regexp.Regexp
}

func (n both) match(v any) bool   { return n.a.match(v) && n.b.match(v) }
func (n either) match(v any) bool { return n.a.match(v) || n.b.match(v) }

func (n compare) match(v any) bool {
	found := true
	for _, s := range n.path {
		switch c := v.(type) {
		case map[string]any:
			v, found = c[s.key]
			if s.index >= 0 {
				found = false
			}
		case []any:
			found = s.index >= 0 && s.index < len(c)
			if found {
				v = c[s.index]
			}
		default:
			found = false
		}
		if !found {
			break
		}
	}
	if n.op == "missing" {
		return !found
	}
	if !found {
		return false
	}
	switch n.op {
	case "null":
		return v == nil
	case "true":
		return v == true
	case "false":
		return v == false
	}
	switch v := v.(type) {
	case string:
		return n.value.holds(v, n.op)
	case json.Number:
		return n.value.holds(v.String(), n.op)
	case bool:
		return n.value.holds(strconv.FormatBool(v), n.op)
	}
	return false
}

// holds compares a text with the value.
func (w value) holds(text, op string) bool {
	equal := func() bool {
		switch {
		case w.re != nil:
			return w.re.MatchString(text)
		case w.isNum:
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				return f == w.number
			}
		case w.glob:
			return matchGlob(w.text, text)
		}
		return text == w.text
	}
	switch op {
	case "=":
		return equal()
	case "!=":
		return !equal()
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !w.isNum {
		return false
	}
	switch op {
	case "<":
		return f < w.number
	case "<=":
		return f <= w.number
	case ">":
		return f > w.number
	}
	return f >= w.number
}

// matchGlob compares a text with a pattern in which stars stand for anything.
func matchGlob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[last])
}

func invalid(s *scanner) error {
	rest := strings.TrimLeftFunc(s.rest, unicode.IsSpace)
	if len(rest) > 40 {
		rest = rest[:40]
	}
	if strings.TrimSpace(rest) == "" {
		return fmt.Errorf("Invalid filter pattern: it ends too early")
	}
	return fmt.Errorf("Invalid filter pattern: unexpected '%s'", strings.ToValidUTF8(rest, "?"))
}

func parseSelectors(text string) (*Pattern, error) {
	s := &scanner{rest: text[1:]}
	n, err := s.alternatives(s.selector)
	if err != nil {
		return nil, err
	}
	if !s.take("}") {
		return nil, invalid(s)
	}
	if s.blanks(); s.rest != "" {
		return nil, invalid(s)
	}
	return &Pattern{document: n}, nil
}

// alternatives reads a || b, sequences a && b, and parentheses.
func (s *scanner) alternatives(leaf func() (node, error)) (node, error) {
	n, err := s.sequences(leaf)
	for err == nil && s.take("||") {
		var b node
		b, err = s.sequences(leaf)
		n = either{n, b}
	}
	return n, err
}

func (s *scanner) sequences(leaf func() (node, error)) (node, error) {
	n, err := s.group(leaf)
	for err == nil && s.take("&&") {
		var b node
		b, err = s.group(leaf)
		n = both{n, b}
	}
	return n, err
}

func (s *scanner) group(leaf func() (node, error)) (node, error) {
	if !s.take("(") {
		return leaf()
	}
	if s.depth++; s.depth > maxDepth {
		return nil, fmt.Errorf("Invalid filter pattern: more than %d parentheses in each other", maxDepth)
	}
	defer func() { s.depth-- }()
	n, err := s.alternatives(leaf)
	if err == nil && !s.take(")") {
		err = invalid(s)
	}
	return n, err
}

// selector reads $.a.b[0] and what is asked of it.
func (s *scanner) selector() (node, error) {
	if !s.take("$") {
		return nil, invalid(s)
	}
	var c compare
	for {
		switch {
		case strings.HasPrefix(s.rest, "."):
			s.rest = s.rest[1:]
			end := strings.IndexFunc(s.rest, func(r rune) bool { return !isWord(r) && r != '-' && r != '@' && r != '$' && r != '#' })
			if end < 0 {
				end = len(s.rest)
			}
			if end == 0 {
				return nil, invalid(s)
			}
			c.path = append(c.path, step{key: s.rest[:end], index: -1})
			s.rest = s.rest[end:]
			continue
		case strings.HasPrefix(s.rest, "["):
			s.rest = s.rest[1:]
			s.blanks()
			if strings.HasPrefix(s.rest, `"`) {
				key, err := s.quoted()
				if err != nil {
					return nil, err
				}
				c.path = append(c.path, step{key: key, index: -1})
			} else {
				end := strings.IndexFunc(s.rest, func(r rune) bool { return r < '0' || r > '9' })
				n, err := strconv.Atoi(s.rest[:max(end, 0)])
				if err != nil {
					return nil, invalid(s)
				}
				s.rest = s.rest[end:]
				c.path = append(c.path, step{index: n})
			}
			if !s.take("]") {
				return nil, invalid(s)
			}
			continue
		}
		break
	}
	if len(c.path) == 0 {
		return nil, invalid(s)
	}
	if err := s.condition(&c); err != nil {
		return nil, err
	}
	return c, nil
}

// condition reads an operator and what it compares with.
func (s *scanner) condition(c *compare) error {
	switch {
	case s.word("IS"):
		switch {
		case s.word("NULL"):
			c.op = "null"
		case s.word("TRUE"):
			c.op = "true"
		case s.word("FALSE"):
			c.op = "false"
		default:
			return invalid(s)
		}
		return nil
	case s.word("NOT"):
		if !s.word("EXISTS") {
			return invalid(s)
		}
		c.op = "missing"
		return nil
	}
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
		if s.take(op) {
			c.op = op
			break
		}
	}
	if c.op == "" {
		return invalid(s)
	}
	s.blanks()
	var err error
	switch {
	case strings.HasPrefix(s.rest, `"`):
		c.value.text, err = s.quoted()
		c.value.glob = strings.Contains(c.value.text, "*")
	case strings.HasPrefix(s.rest, "%"):
		c.value.re, err = s.expression()
	default:
		end := strings.IndexFunc(s.rest, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`)}],&|"`, r) })
		if end < 0 {
			end = len(s.rest)
		}
		if end == 0 {
			return invalid(s)
		}
		c.value.text = s.rest[:end]
		s.rest = s.rest[end:]
		if f, e := strconv.ParseFloat(c.value.text, 64); e == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			c.value.number, c.value.isNum = f, true
		}
		c.value.glob = strings.Contains(c.value.text, "*")
	}
	if err == nil && !c.value.isNum && c.op != "=" && c.op != "!=" {
		err = fmt.Errorf("Invalid filter pattern: %s compares numbers only", c.op)
	}
	return err
}

// column is a field of the third form: its name and what is asked of it.
type column struct {
	name string
	rest bool // "...": any number of fields
	test node // nil: anything
}

func parseFields(text string) (*Pattern, error) {
	s := &scanner{rest: text[1:]}
	p := &Pattern{fieldExpression: true}
	ellipses := 0
	for !s.take("]") {
		if len(p.fields) > 0 && !s.take(",") {
			return nil, invalid(s)
		}
		if s.take("...") {
			if ellipses++; ellipses > 1 {
				return nil, fmt.Errorf("Invalid filter pattern: more than one ellipsis")
			}
			p.fields = append(p.fields, column{rest: true})
			continue
		}
		c := column{}
		start := *s
		s.take("(")
		c.name = s.name()
		if c.name == "" {
			return nil, invalid(s)
		}
		if next := *s; next.take(",") || next.take("]") {
			p.fields = append(p.fields, c)
			continue
		}
		*s = start
		var err error
		c.test, err = s.alternatives(func() (node, error) {
			if s.name() != c.name {
				return nil, invalid(s)
			}
			var n compare
			err := s.condition(&n)
			return n, err
		})
		if err != nil {
			return nil, err
		}
		p.fields = append(p.fields, c)
	}
	if s.blanks(); s.rest != "" {
		return nil, invalid(s)
	}
	return p, nil
}

func (s *scanner) name() string {
	s.blanks()
	end := strings.IndexFunc(s.rest, func(r rune) bool { return !isWord(r) && r != '-' })
	if end < 0 {
		end = len(s.rest)
	}
	name := s.rest[:end]
	s.rest = s.rest[end:]
	return name
}

// maxColumns bounds into how many fields a message is cut.
const maxColumns = 4096

// matchFields cuts a message at blanks, but not inside quotes and brackets.
func (p *Pattern) matchFields(message string) bool {
	var words []string
	for rest := strings.TrimLeft(message, " "); rest != "" && len(words) < maxColumns; rest = strings.TrimLeft(rest, " ") {
		end := -1
		switch rest[0] {
		case '"':
			end = strings.IndexByte(rest[1:], '"')
		case '[':
			end = strings.IndexByte(rest[1:], ']')
		}
		if end >= 0 {
			words = append(words, rest[1:1+end])
			rest = rest[end+2:]
			continue
		}
		if end = strings.IndexByte(rest, ' '); end < 0 {
			end = len(rest)
		}
		words = append(words, strings.TrimRight(rest[:end], "\r\n"))
		rest = rest[end:]
	}
	i := 0
	for n, c := range p.fields {
		if c.rest {
			// The fields behind it are counted from the end.
			i = max(i, len(words)-(len(p.fields)-n-1))
			continue
		}
		if i >= len(words) || c.test != nil && !c.test.match(words[i]) {
			return false
		}
		i++
	}
	return i == len(words)
}
