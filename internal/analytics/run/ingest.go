package run

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/analytics/text"
)

// Format says how the records of a source become rows.
type Format struct {
	Columns []SourceColumn
	CSV     bool
	// RowPath is the JSON path of the rows; empty is $.
	RowPath string
	// RowDelimiter and ColumnDelimiter cut CSV.
	RowDelimiter, ColumnDelimiter string
}

// SourceColumn is a column of a source.
type SourceColumn struct {
	Name    string
	Type    sql.Type
	Mapping string // JSON path
}

// Parser turns records into rows of a Format's columns.
type Parser struct {
	format Format
	root   *pathNode // of the paths within a row
	rows   []text.Step
	flat   bool // one path goes through the elements of an array
	cells  []cell
	tokens []cell // elements of the flattened array, columns wide each
	items  int
	fields []string
}

// cell is a value as it stands in the record.
type cell struct {
	kind cellKind
	s    string // raw text; of strings without quotes and escapes undone
}

type cellKind uint8

const (
	absent cellKind = iota
	jsonNull
	jsonTrue
	jsonFalse
	jsonNumber
	jsonString
	jsonComposite
)

// pathNode is a step that paths have in common.
type pathNode struct {
	name     string
	children []*pathNode
	column   int       // the column whose path ends here, -1 if none
	more     []int     // further columns with the same path
	elements *pathNode // of [0:] behind this step
	whole    int       // the column that takes the whole array, -1 if none
}

func newPathNode(name string) *pathNode { return &pathNode{name: name, column: -1, whole: -1} }

// NewParser compiles a format.
func NewParser(f Format) (*Parser, error) {
	p := &Parser{format: f, cells: make([]cell, len(f.Columns))}
	if len(f.Columns) == 0 || len(f.Columns) > 1000 {
		return nil, errors.New("a source has 1 to 1000 columns")
	}
	if f.CSV {
		if f.RowDelimiter == "" || f.ColumnDelimiter == "" {
			return nil, errors.New("the delimiters of CSV cannot be empty")
		}
		return p, nil
	}
	if f.RowPath == "" {
		f.RowPath = "$"
	}
	var err error
	if p.rows, err = text.ParsePath(f.RowPath); err != nil {
		return nil, err
	}
	p.root = newPathNode("$")
	var through *pathNode
	for i, c := range f.Columns {
		steps, err := text.ParsePath(c.Mapping)
		if err != nil {
			return nil, fmt.Errorf("the mapping of column %s: %w", sql.Quote(c.Name), err)
		}
		at := p.root
		arrays := 0
		for k, step := range steps {
			if step.Array {
				if k == len(steps)-1 {
					if at.whole < 0 {
						at.whole = i
					} else {
						at.more = append(at.more, i)
					}
					at = nil
					break
				}
				if arrays++; arrays > 1 {
					return nil, fmt.Errorf("the mapping of column %s goes through two arrays; one can be", sql.Quote(c.Name))
				}
				if at.elements == nil {
					at.elements = newPathNode("[0:]")
				}
				if through != nil && through != at {
					return nil, fmt.Errorf("the mapping of column %s goes through another array than one before; one can be", sql.Quote(c.Name))
				}
				through = at
				at = at.elements
				continue
			}
			var next *pathNode
			for _, child := range at.children {
				if child.name == step.Name {
					next = child
				}
			}
			if next == nil {
				next = newPathNode(step.Name)
				at.children = append(at.children, next)
			}
			at = next
		}
		if at == nil {
			continue
		}
		if at.column < 0 {
			at.column = i
		} else {
			at.more = append(at.more, i)
		}
	}
	p.flat = through != nil
	return p, nil
}

// Refuse is told about a row, or a whole record, that could not be read.
type Refuse func(name, message, row string)

// Parse appends the rows of a record at an instant, followed by hidden values.
// Strings of the rows are parts of record.
func (p *Parser) Parse(dst *Rows, record string, at int64, hidden []plan.Value, refuse Refuse) {
	if p.format.CSV {
		p.csv(dst, record, at, hidden, refuse)
		return
	}
	s := scanner{s: record}
	for {
		s.space()
		if s.i == len(s.s) {
			return
		}
		from := s.i
		if !p.document(&s, dst, at, hidden, refuse) {
			refuse(parseError, s.problem(), record[from:])
			return
		}
	}
}

// document reads one JSON document; false if it is none.
func (p *Parser) document(s *scanner, dst *Rows, at int64, hidden []plan.Value, refuse Refuse) bool {
	if len(p.rows) == 0 {
		return p.row(s, dst, at, hidden, refuse)
	}
	// The rows lie deeper: the document is passed over first, so that nothing of a
	// broken one becomes a row.
	from := s.i
	if !s.skip(0) {
		return false
	}
	inner := scanner{s: s.s[from:s.i]}
	return p.locate(&inner, p.rows, dst, at, hidden, refuse)
}

// locate follows the row path.
func (p *Parser) locate(s *scanner, steps []text.Step, dst *Rows, at int64, hidden []plan.Value, refuse Refuse) bool {
	s.space()
	if len(steps) == 0 {
		return p.row(s, dst, at, hidden, refuse)
	}
	if steps[0].Array {
		if s.peek() != '[' {
			return s.skip(0)
		}
		return s.array(func() bool { return p.locate(s, steps[1:], dst, at, hidden, refuse) })
	}
	if s.peek() != '{' {
		return s.skip(0)
	}
	return s.object(func(name string) bool {
		if name == steps[0].Name {
			return p.locate(s, steps[1:], dst, at, hidden, refuse)
		}
		return s.skip(0)
	})
}

// row reads one value as a row, or several if an array is flattened.
func (p *Parser) row(s *scanner, dst *Rows, at int64, hidden []plan.Value, refuse Refuse) bool {
	clear(p.cells)
	p.tokens, p.items = p.tokens[:0], 0
	from := s.i
	if !p.value(s, p.root, p.cells, 0) {
		return false
	}
	raw := s.s[from:s.i]
	if !p.flat || p.items == 0 {
		p.put(dst, p.cells, at, hidden, raw, refuse)
		return true
	}
	n := len(p.cells)
	for i := range p.items {
		item := p.tokens[i*n : (i+1)*n]
		for c := range item {
			if item[c].kind == absent {
				item[c] = p.cells[c]
			}
		}
		p.put(dst, item, at, hidden, raw, refuse)
	}
	return true
}

// value reads a value at a step of the paths into cells.
func (p *Parser) value(s *scanner, n *pathNode, cells []cell, depth int) bool {
	if depth > maxJSONDepth {
		return false
	}
	s.space()
	from := s.i
	var c cell
	switch s.peek() {
	case '{':
		if len(n.children) == 0 {
			if !s.skip(depth) {
				return false
			}
		} else if !s.object(func(name string) bool {
			for _, child := range n.children {
				if child.name == name {
					return p.value(s, child, cells, depth+1)
				}
			}
			return s.skip(depth + 1)
		}) {
			return false
		}
		c = cell{jsonComposite, s.s[from:s.i]}
	case '[':
		if n.elements == nil {
			if !s.skip(depth) {
				return false
			}
		} else if !s.array(func() bool {
			start := len(p.tokens)
			for range p.cells {
				p.tokens = append(p.tokens, cell{})
			}
			p.items++
			// The element's cells move if the tokens grow; it has none below it.
			element := make([]cell, len(p.cells))
			ok := p.value(s, n.elements, element, depth+1)
			copy(p.tokens[start:], element)
			return ok
		}) {
			return false
		}
		c = cell{jsonComposite, s.s[from:s.i]}
		if n.whole >= 0 {
			cells[n.whole] = c
		}
	default:
		var ok bool
		if c, ok = s.scalar(); !ok {
			return false
		}
		if n.whole >= 0 {
			cells[n.whole] = c
		}
	}
	if n.column >= 0 {
		cells[n.column] = c
	}
	for _, i := range n.more {
		cells[i] = c
	}
	return true
}

// put converts the cells of a row.
func (p *Parser) put(dst *Rows, cells []cell, at int64, hidden []plan.Value, raw string, refuse Refuse) {
	cols := dst.t.cols
	for i := range cells {
		if err := cols[i].addCell(cells[i], &p.format.Columns[i].Type); err != nil {
			for _, c := range cols[:i] {
				c.shorten(c.n - 1)
			}
			refuse(coercionError, fmt.Sprintf("the column %s: %v", sql.Quote(p.format.Columns[i].Name), err), raw)
			return
		}
	}
	for i, v := range hidden {
		cols[len(cells)+i].addValue(v)
	}
	dst.t.time = append(dst.t.time, at)
}

var errNotNumber = errors.New("it is not a number")

// addCell converts a value of a source to its column's type.
func (c *column) addCell(v cell, t *sql.Type) error {
	switch v.kind {
	case absent, jsonNull:
		c.addValue(plan.Value{Null: true})
		return nil
	}
	// Integers and texts are what most columns are.
	if c.Null == nil {
		switch {
		case v.kind == jsonNumber && isInteger(t.Kind):
			if n, ok := smallInt(v.s); ok {
				low, high := intLimits(t.Kind)
				if n < low || n > high {
					return overflow(*t)
				}
				c.I = append(c.I, n)
				c.n++
				return nil
			}
		case v.kind == jsonNumber && t.Kind == sql.KindDouble:
			f, err := strconv.ParseFloat(v.s, 64)
			if err != nil {
				return overflow(*t)
			}
			c.F = append(c.F, f)
			c.n++
			return nil
		case v.kind == jsonString && t.Kind == sql.KindVarchar:
			s := v.s
			if len(s) > t.Length {
				s = fit(s, *t)
			}
			c.S = append(c.S, s)
			c.n++
			return nil
		}
	}
	value, err := convertCell(v, t)
	if err != nil {
		return err
	}
	c.addValue(value)
	return nil
}

// smallInt reads an integer of up to 18 digits.
func smallInt(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	i, negative := 0, false
	if s[0] == '-' {
		i, negative = 1, true
	}
	var n int64
	if i == len(s) {
		return 0, false
	}
	for ; i < len(s); i++ {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	if negative {
		n = -n
	}
	return n, true
}

func convertCell(v cell, t *sql.Type) (plan.Value, error) {
	switch {
	case t.Kind == sql.KindBoolean:
		b := false
		switch v.kind {
		case jsonTrue:
			b = true
		case jsonFalse:
		case jsonNumber:
			f, _ := strconv.ParseFloat(v.s, 64)
			b = f != 0
		case jsonString:
			b = strings.EqualFold(v.s, "true")
		default:
			return plan.Value{}, errors.New("an object or array is no BOOLEAN")
		}
		if b {
			return plan.Value{I: 1}, nil
		}
		return plan.Value{}, nil
	case isCharacter(t.Kind):
		s := v.s
		switch v.kind {
		case jsonTrue:
			s = "true"
		case jsonFalse:
			s = "false"
		}
		return plan.Value{S: fit(s, *t)}, nil
	case isNumeric(t.Kind):
		switch v.kind {
		case jsonTrue:
			return number(plan.Value{I: 1}, sql.Type{Kind: sql.KindInteger}, *t)
		case jsonFalse:
			return number(plan.Value{}, sql.Type{Kind: sql.KindInteger}, *t)
		case jsonNumber, jsonString:
			return exactNumber(strings.TrimSpace(v.s), *t)
		}
		return plan.Value{}, errNotNumber
	case isBinary(t.Kind):
		switch v.kind {
		case jsonTrue, jsonFalse:
			b := byte(0)
			if v.kind == jsonTrue {
				b = 1
			}
			n := 1
			if t.Kind == sql.KindBinary {
				n = t.Length
			}
			return plan.Value{S: strings.Repeat("\x00", n-1) + string(rune(b))}, nil
		case jsonString:
			if len(v.s) >= 3 && v.s[0]|0x20 == 'x' && v.s[1] == '\'' && v.s[len(v.s)-1] == '\'' {
				if raw, err := hex.DecodeString(v.s[2 : len(v.s)-1]); err == nil && len(raw) <= t.Length {
					s := string(raw)
					if t.Kind == sql.KindBinary {
						s += strings.Repeat("\x00", t.Length-len(s))
					}
					return plan.Value{S: s}, nil
				}
			}
		}
		return plan.Value{}, errors.New("it is not written X'…'")
	}
	if v.kind != jsonString {
		return plan.Value{}, fmt.Errorf("a %s is given as text", t.Kind)
	}
	s := strings.TrimSpace(v.s)
	var ms int64
	ok := false
	switch t.Kind {
	case sql.KindDate:
		ms, ok = sql.ParseDate(s)
	case sql.KindTime:
		ms, ok = sql.ParseTime(s)
	case sql.KindTimestamp:
		s = strings.TrimSuffix(s, "Z")
		if len(s) > 10 && s[10] == 'T' {
			s = s[:10] + " " + s[11:]
		}
		ms, ok = sql.ParseTimestamp(s)
	}
	if !ok {
		return plan.Value{}, fmt.Errorf("%q is not a %s", v.s, t.Kind)
	}
	return plan.Value{I: ms}, nil
}

// exactNumber reads a number that must fit its type as it is: nothing is
// rounded but what a DECIMAL cannot hold.
func exactNumber(s string, t sql.Type) (plan.Value, error) {
	if s == "" || !numeric(s) || len(s) > 400 {
		return plan.Value{}, errNotNumber
	}
	if isInteger(t.Kind) {
		if n, ok := smallInt(s); ok {
			if low, high := intLimits(t.Kind); n < low || n > high {
				return plan.Value{}, overflow(t)
			}
			return plan.Value{I: n}, nil
		}
		v, err := parseNumber(s, t)
		if err != nil {
			return v, err
		}
		// parseNumber has seen to it that the exponent is small.
		if r, ok := new(big.Rat).SetString(s); !ok || !r.IsInt() {
			return plan.Value{}, fmt.Errorf("%s is not an integer", s)
		}
		return v, nil
	}
	return parseNumber(s, t)
}

// csv reads rows of fields.
func (p *Parser) csv(dst *Rows, record string, at int64, hidden []plan.Value, refuse Refuse) {
	rest := record
	for rest != "" {
		var raw string
		p.fields, raw, rest = csvRow(p.fields[:0], rest, p.format.RowDelimiter, p.format.ColumnDelimiter)
		clear(p.cells)
		for i := range p.cells {
			if i < len(p.fields) {
				p.cells[i] = cell{jsonString, p.fields[i]}
				if p.fields[i] == "" && !isCharacter(p.format.Columns[i].Type.Kind) {
					p.cells[i] = cell{kind: jsonNull}
				}
			}
		}
		p.put(dst, p.cells, at, hidden, raw, refuse)
	}
}

// csvRow takes one row off the text.
func csvRow(fields []string, s, rowDelimiter, columnDelimiter string) (out []string, raw, rest string) {
	start := s
	consumed := 0
	for {
		field, n, ended := "", 0, byte('e')
		if s != "" && s[0] == '"' {
			var b strings.Builder
			i := 1
			for i < len(s) {
				if s[i] == '"' {
					if i+1 < len(s) && s[i+1] == '"' {
						b.WriteByte('"')
						i += 2
						continue
					}
					i++
					break
				}
				b.WriteByte(s[i])
				i++
			}
			field, n = b.String(), i
			if i < len(s) && !strings.HasPrefix(s[i:], columnDelimiter) && !strings.HasPrefix(s[i:], rowDelimiter) {
				// Text behind the closing quote belongs to the field.
				tail, m := untilDelimiter(s[i:], rowDelimiter, columnDelimiter)
				field += tail
				n += m
			}
		} else {
			field, n = untilDelimiter(s, rowDelimiter, columnDelimiter)
		}
		fields = append(fields, field)
		s = s[n:]
		consumed += n
		switch {
		case s == "":
		case strings.HasPrefix(s, rowDelimiter) && (len(rowDelimiter) >= len(columnDelimiter) || !strings.HasPrefix(s, columnDelimiter)):
			ended = 'r'
		default:
			ended = 'c'
		}
		switch ended {
		case 'c':
			s = s[len(columnDelimiter):]
			consumed += len(columnDelimiter)
			if s == "" {
				return append(fields, ""), start, ""
			}
		case 'r':
			return fields, start[:consumed], s[len(rowDelimiter):]
		default:
			return fields, start, ""
		}
	}
}

func untilDelimiter(s, rowDelimiter, columnDelimiter string) (field string, n int) {
	end := len(s)
	if i := strings.Index(s, columnDelimiter); i >= 0 {
		end = i
	}
	if i := strings.Index(s[:min(len(s), end+len(rowDelimiter))], rowDelimiter); i >= 0 && i < end {
		end = i
	}
	return s[:end], end
}

const maxJSONDepth = 100

// scanner reads JSON text.
type scanner struct {
	s string
	i int
}

func (s *scanner) problem() string {
	return fmt.Sprintf("the record is not JSON at character %d", s.i+1)
}

func (s *scanner) space() {
	for s.i < len(s.s) {
		switch s.s[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.i < len(s.s) {
		return s.s[s.i]
	}
	return 0
}

// object reads an object; f reads each member's value.
func (s *scanner) object(f func(name string) bool) bool {
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
		return true
	}
	for {
		s.space()
		name, ok := s.str()
		if !ok {
			return false
		}
		s.space()
		if s.peek() != ':' {
			return false
		}
		s.i++
		s.space()
		if !f(name) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case '}':
			s.i++
			return true
		default:
			return false
		}
	}
}

// array reads an array; f reads each element.
func (s *scanner) array(f func() bool) bool {
	s.i++
	s.space()
	if s.peek() == ']' {
		s.i++
		return true
	}
	for {
		s.space()
		if !f() {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case ']':
			s.i++
			return true
		default:
			return false
		}
	}
}

// skip passes over a value.
func (s *scanner) skip(depth int) bool {
	if depth > maxJSONDepth {
		return false
	}
	s.space()
	switch s.peek() {
	case '{':
		return s.object(func(string) bool { return s.skip(depth + 1) })
	case '[':
		return s.array(func() bool { return s.skip(depth + 1) })
	}
	_, ok := s.scalar()
	return ok
}

// scalar reads a string, number, true, false or null.
func (s *scanner) scalar() (cell, bool) {
	switch c := s.peek(); {
	case c == '"':
		v, ok := s.str()
		return cell{jsonString, v}, ok
	case c == 't':
		return cell{jsonTrue, "true"}, s.word("true")
	case c == 'f':
		return cell{jsonFalse, "false"}, s.word("false")
	case c == 'n':
		return cell{kind: jsonNull}, s.word("null")
	case c == '-' || c >= '0' && c <= '9':
		from := s.i
		if c == '-' {
			s.i++
		}
		if !s.digits() {
			return cell{}, false
		}
		if s.s[from] == '0' && s.i-from > 1 || s.s[from] == '-' && s.i-from > 2 && s.s[from+1] == '0' {
			return cell{}, false
		}
		if s.peek() == '.' {
			s.i++
			if !s.digits() {
				return cell{}, false
			}
		}
		if s.peek()|0x20 == 'e' {
			s.i++
			if c := s.peek(); c == '+' || c == '-' {
				s.i++
			}
			if !s.digits() {
				return cell{}, false
			}
		}
		return cell{jsonNumber, s.s[from:s.i]}, true
	}
	return cell{}, false
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.s) && s.s[s.i] >= '0' && s.s[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) word(w string) bool {
	if !strings.HasPrefix(s.s[s.i:], w) {
		return false
	}
	s.i += len(w)
	return true
}

// str reads a string and undoes its escapes.
func (s *scanner) str() (string, bool) {
	if s.peek() != '"' {
		return "", false
	}
	from := s.i + 1
	for i := from; i < len(s.s); i++ {
		switch c := s.s[i]; {
		case c == '"':
			s.i = i + 1
			return s.s[from:i], true
		case c == '\\':
			return s.escaped(from, i)
		case c < 0x20:
			s.i = i
			return "", false
		}
	}
	s.i = len(s.s)
	return "", false
}

func (s *scanner) escaped(from, i int) (string, bool) {
	b := []byte(s.s[from:i])
	for i < len(s.s) {
		switch c := s.s[i]; {
		case c == '"':
			s.i = i + 1
			return string(b), true
		case c < 0x20:
			s.i = i
			return "", false
		case c != '\\':
			b = append(b, c)
			i++
			continue
		}
		if i+1 >= len(s.s) {
			break
		}
		i += 2
		switch c := s.s[i-1]; c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, ok := hexRune(s.s, i)
			if !ok {
				s.i = i
				return "", false
			}
			i += 4
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if strings.HasPrefix(s.s[i:], `\u`) {
					low, ok = hexRune(s.s, i+2)
				}
				if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
					i += 6
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			s.i = i
			return "", false
		}
	}
	s.i = len(s.s)
	return "", false
}

func hexRune(s string, i int) (rune, bool) {
	if i+4 > len(s) {
		return 0, false
	}
	v, err := strconv.ParseUint(s[i:i+4], 16, 16)
	return rune(v), err == nil
}
