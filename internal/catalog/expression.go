package catalog

import (
	"math/big"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
)

// condition decides about the values of a partition, in the order of the keys.
type condition func(values []string) bool

// maxExpressionDepth bounds how deep conditions nest.
const maxExpressionDepth = 64

// parseExpression reads the filter of GetPartitions: comparisons of partition
// keys with literals, IN, BETWEEN, LIKE and IS NULL, joined with AND, OR, NOT and
// brackets. Keys of numeric types compare as numbers, others as text.
func parseExpression(text string, keys []glue.Column) (condition, error) {
	if strings.TrimSpace(text) == "" {
		return func([]string) bool { return true }, nil
	}
	p := expression{text: text, keys: keys}
	p.next()
	c, err := p.or(0)
	if err == nil && p.kind != endToken {
		err = p.wrong()
	}
	return c, err
}

type tokenKind uint8

const (
	endToken tokenKind = iota
	wordToken
	textToken // a literal in quotes
	numberToken
	signToken
)

type expression struct {
	text  string
	at    int
	kind  tokenKind
	token string
	keys  []glue.Column
}

func (p *expression) wrong() error {
	if p.kind == endToken {
		return invalid("Unsupported expression '%s': it ends too early.", p.text)
	}
	return invalid("Unsupported expression '%s': '%s' is not expected.", p.text, p.token)
}

func wordByte(c byte) bool {
	return c == '_' || c == '-' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func (p *expression) next() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	start := p.at
	if start == len(p.text) {
		p.kind, p.token = endToken, ""
		return
	}
	switch c := p.text[start]; {
	case c == '\'' || c == '"' || c == '`':
		var b strings.Builder
		p.at++
		for p.at < len(p.text) {
			if p.text[p.at] == c {
				if p.at+1 == len(p.text) || p.text[p.at+1] != c {
					p.at++
					p.kind, p.token = textToken, b.String()
					if c == '`' {
						p.kind = wordToken
					}
					return
				}
				p.at++
			}
			b.WriteByte(p.text[p.at])
			p.at++
		}
		p.kind, p.token = signToken, p.text[start:]
	case wordByte(c):
		for p.at < len(p.text) && wordByte(p.text[p.at]) {
			p.at++
		}
		p.kind, p.token = wordToken, p.text[start:p.at]
		if _, ok := rational(p.token); ok {
			p.kind = numberToken
		}
	default:
		p.at++
		if p.at < len(p.text) {
			switch p.text[start : p.at+1] {
			case "<=", ">=", "<>", "!=":
				p.at++
			}
		}
		p.kind, p.token = signToken, p.text[start:p.at]
	}
}

// word takes a keyword if it is next.
func (p *expression) word(w string) bool {
	if p.kind != wordToken || !strings.EqualFold(p.token, w) {
		return false
	}
	p.next()
	return true
}

func (p *expression) sign(s string) bool {
	if p.kind != signToken || p.token != s {
		return false
	}
	p.next()
	return true
}

func (p *expression) or(depth int) (condition, error) {
	left, err := p.and(depth)
	for err == nil && p.word("or") {
		var right condition
		before := left
		right, err = p.and(depth)
		left = func(v []string) bool { return before(v) || right(v) }
	}
	return left, err
}

func (p *expression) and(depth int) (condition, error) {
	left, err := p.not(depth)
	for err == nil && p.word("and") {
		var right condition
		before := left
		right, err = p.not(depth)
		left = func(v []string) bool { return before(v) && right(v) }
	}
	return left, err
}

func (p *expression) not(depth int) (condition, error) {
	if depth > maxExpressionDepth {
		return nil, invalid("Unsupported expression: it nests deeper than %d.", maxExpressionDepth)
	}
	switch {
	case p.word("not"):
		c, err := p.not(depth + 1)
		return func(v []string) bool { return !c(v) }, err
	case p.sign("("):
		c, err := p.or(depth + 1)
		if err == nil && !p.sign(")") {
			err = p.wrong()
		}
		return c, err
	}
	return p.comparison()
}

// literal takes a literal.
func (p *expression) literal() (string, error) {
	if (p.word("date") || p.word("timestamp")) && p.kind != textToken {
		return "", p.wrong()
	}
	if p.kind != textToken && p.kind != numberToken {
		return "", p.wrong()
	}
	s := p.token
	p.next()
	return s, nil
}

// comparison reads one condition on a key.
func (p *expression) comparison() (condition, error) {
	if p.kind != wordToken {
		return nil, p.wrong()
	}
	key := -1
	for i, k := range p.keys {
		if strings.EqualFold(api.Val(k.Name), p.token) {
			key = i
		}
	}
	if key < 0 {
		return nil, invalid("Unsupported expression '%s': '%s' is not a partition key.", p.text, p.token)
	}
	compare := comparer(api.Val(p.keys[key].Type))
	p.next()
	negated := p.word("not")
	var c condition
	switch {
	case p.word("in"):
		if !p.sign("(") {
			return nil, p.wrong()
		}
		var list []string
		for {
			s, err := p.literal()
			if err != nil {
				return nil, err
			}
			list = append(list, s)
			if !p.sign(",") {
				break
			}
		}
		if !p.sign(")") {
			return nil, p.wrong()
		}
		c = func(v []string) bool {
			for _, s := range list {
				if compare(v[key], s) == 0 {
					return true
				}
			}
			return false
		}
	case p.word("between"):
		low, err := p.literal()
		if err != nil {
			return nil, err
		}
		if !p.word("and") {
			return nil, p.wrong()
		}
		high, err := p.literal()
		if err != nil {
			return nil, err
		}
		c = func(v []string) bool { return compare(v[key], low) >= 0 && compare(v[key], high) <= 0 }
	case p.word("like"):
		like, err := p.literal()
		if err != nil {
			return nil, err
		}
		c = func(v []string) bool { return matchLike(v[key], like) }
	case !negated && p.word("is"):
		negated = p.word("not")
		if !p.word("null") {
			return nil, p.wrong()
		}
		c = func(v []string) bool { return v[key] == "__HIVE_DEFAULT_PARTITION__" }
	case !negated && p.kind == signToken:
		sign := p.token
		p.next()
		s, err := p.literal()
		if err != nil {
			return nil, err
		}
		test := map[string]func(int) bool{
			"=": func(n int) bool { return n == 0 }, "<>": func(n int) bool { return n != 0 }, "!=": func(n int) bool { return n != 0 },
			"<": func(n int) bool { return n < 0 }, "<=": func(n int) bool { return n <= 0 },
			">": func(n int) bool { return n > 0 }, ">=": func(n int) bool { return n >= 0 },
		}[sign]
		if test == nil {
			return nil, invalid("Unsupported expression '%s': '%s' is not a comparison.", p.text, sign)
		}
		c = func(v []string) bool { return test(compare(v[key], s)) }
	default:
		return nil, p.wrong()
	}
	if negated {
		inner := c
		c = func(v []string) bool { return !inner(v) }
	}
	return c, nil
}

// comparer compares values of a key of the given type.
func comparer(keyType string) func(a, b string) int {
	base, _, _ := strings.Cut(strings.ToLower(keyType), "(")
	switch strings.TrimSpace(base) {
	case "tinyint", "smallint", "int", "integer", "bigint", "float", "double", "decimal", "long", "short", "byte":
		return func(a, b string) int {
			x, okX := rational(a)
			y, okY := rational(b)
			if okX && okY {
				return x.Cmp(y)
			}
			return strings.Compare(a, b)
		}
	}
	return strings.Compare
}

// rational reads a decimal number of reasonable length. Exponents are none: they
// would make a short text a long number.
func rational(s string) (*big.Rat, bool) {
	if len(s) > 64 || strings.Trim(s, "+-.0123456789") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// matchLike matches a pattern of SQL: % is anything, _ one character.
func matchLike(s, like string) bool {
	text, pat := []rune(s), []rune(like)
	i, j, star, mark := 0, 0, -1, 0
	for i < len(text) {
		switch {
		case j < len(pat) && pat[j] == '%':
			star, mark = j, i
			j++
		case j < len(pat) && (pat[j] == '_' || pat[j] == text[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	for j < len(pat) && pat[j] == '%' {
		j++
	}
	return j == len(pat)
}
