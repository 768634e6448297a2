package run

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

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
	kind  cellKind
	exact bool // a number that is n / 10^scale, of up to 18 digits
	scale int8 // fraction digits
	n     int64
	s     string // raw text; of strings without quotes and escapes undone
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
	leaf     bool      // one column ends here, and nothing else goes on
	members  []member
}

// member is what an object's member at some place began with in the records before:
// mostly it does again, and need not be read to be known.
type member struct {
	text        string    // the name, in quotes, to the colon
	child       *pathNode // nil if nothing is wanted of it
	misses      int
	first, last uint64 // words that text begins and ends with; of a shorter one, with zeros behind
	mask        uint64 // of the bytes of first that text has
}

func newMember(text string, child *pathNode) member {
	m := member{text: strings.Clone(text), child: child, mask: ^uint64(0)}
	if n := len(text); n < 8 {
		var padded [8]byte
		copy(padded[:], text)
		m.first, m.mask = word(string(padded[:]), 0), 1<<(8*n)-1
	} else {
		m.first, m.last = word(text, 0), word(text, n-8)
	}
	return m
}

// at reports whether the member's text stands at a place.
func (m *member) at(s string, i int) bool {
	n := len(m.text)
	if i+8 > len(s) || i+n > len(s) || n > 16 {
		return strings.HasPrefix(s[i:], m.text)
	}
	return (word(s, i)^m.first)&m.mask == 0 && (n <= 8 || word(s, i+n-8) == m.last)
}

const (
	knownMembers = 64  // of an object
	knownText    = 128 // bytes of a name
	knownMisses  = 8   // after which a place learns another name
)

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
	p.root.finish()
	return p, nil
}

func (n *pathNode) finish() {
	n.leaf = n.column >= 0 && n.more == nil && n.whole < 0 && n.children == nil && n.elements == nil
	for _, c := range n.children {
		c.finish()
	}
	if n.elements != nil {
		n.elements.finish()
	}
}

// learn finds the child of a name and remembers that its text was at a place among
// the members; next is the place of what should follow.
func (n *pathNode) learn(at int, text, name string) (child *pathNode, next int) {
	for _, c := range n.children {
		if c.name == name {
			child = c
			break
		}
	}
	if at >= knownMembers || len(text) > knownText {
		return child, at + 1
	}
	if at == len(n.members) {
		n.members = append(n.members, newMember(text, child))
		return child, at + 1
	}
	// A member that is left out now and then puts the others out of place.
	for k := at + 1; k < len(n.members) && k < at+4; k++ {
		if n.members[k].text == text {
			return child, k + 1
		}
	}
	m := &n.members[at]
	if m.misses++; m.misses >= knownMisses {
		*m = newMember(text, child)
	}
	return child, at + 1
}

// Refuse is told about a row, or a whole record, that could not be read.
type Refuse func(name, message, row string)

// Parse appends the rows of a record at an instant, followed by hidden values.
// Texts of the rows are parts of record, and may be looked at for as long as the
// rows are; an application copies what it keeps of rows that are inserted.
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

// ParseBytes is Parse without a copy of the record, which must not change before
// the rows have been inserted and dst has been reset.
func (p *Parser) ParseBytes(dst *Rows, record []byte, at int64, hidden []plan.Value, refuse Refuse) {
	p.Parse(dst, unsafe.String(unsafe.SliceData(record), len(record)), at, hidden, refuse)
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
	if n.leaf {
		if c := s.peek(); c != '{' && c != '[' {
			return s.scalar(&cells[n.column])
		}
	}
	var c cell
	switch s.peek() {
	case '{':
		if len(n.children) == 0 {
			if !s.skip(depth) {
				return false
			}
		} else if !p.object(s, n, cells, depth) {
			return false
		}
		c = cell{kind: jsonComposite, s: s.s[from:s.i]}
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
		c = cell{kind: jsonComposite, s: s.s[from:s.i]}
		if n.whole >= 0 {
			cells[n.whole] = c
		}
	default:
		if !s.scalar(&c) {
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

// object reads an object at a step of the paths.
func (p *Parser) object(s *scanner, n *pathNode, cells []cell, depth int) bool {
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
		return true
	}
	for k := 0; ; {
		s.space()
		var child *pathNode
		if k < len(n.members) && n.members[k].at(s.s, s.i) {
			m := &n.members[k]
			m.misses = 0
			s.i += len(m.text)
			child = m.child
			k++
		} else {
			from := s.i
			name, ok := s.str()
			if !ok || !s.colon() {
				return false
			}
			child, k = n.learn(k, s.s[from:s.i], name)
		}
		ok := false
		s.space()
		switch c := s.peek(); {
		case c == '"' && child == nil:
			ok = s.pass()
		case child == nil:
			ok = s.skip(depth + 1)
		case c == '"' && child.leaf:
			v := &cells[child.column]
			v.kind, v.exact = jsonString, false
			v.s, ok = s.str()
		case child.leaf && c != '{' && c != '[':
			ok = s.scalar(&cells[child.column])
		default:
			ok = p.value(s, child, cells, depth+1)
		}
		if !ok {
			return false
		}
		if more, ok := s.after('}'); !ok {
			return false
		} else if !more {
			return true
		}
	}
}

// put converts the cells of a row.
func (p *Parser) put(dst *Rows, cells []cell, at int64, hidden []plan.Value, raw string, refuse Refuse) {
	cols := dst.t.cols
	for i := range cells {
		if err := cols[i].addCell(&cells[i], &p.format.Columns[i].Type); err != nil {
			for _, c := range cols[:i] {
				c.shorten(c.n - 1)
			}
			refuse(coercionError, fmt.Sprintf("the column %s: %v", sql.Quote(p.format.Columns[i].Name), err), raw)
			return
		}
	}
	for i := range hidden {
		v, c := &hidden[i], cols[len(cells)+i]
		switch {
		case v.Null:
			c.addValue(*v)
		case c.class == plan.ClassInt:
			c.I = append(c.I, v.I)
			c.notNull()
		case c.class == plan.ClassString:
			c.S = append(c.S, v.S)
			c.notNull()
		default:
			c.addValue(*v)
		}
	}
	dst.t.time = append(dst.t.time, at)
}

var errNotNumber = errors.New("it is not a number")

// addCell converts a value of a source to its column's type.
func (c *column) addCell(v *cell, t *sql.Type) error {
	// Integers, doubles and texts are what most columns are.
	switch t.Kind {
	case sql.KindTinyint, sql.KindSmallint, sql.KindInteger, sql.KindBigint:
		if v.exact && v.scale == 0 {
			if low, high := intLimits(t.Kind); v.n < low || v.n > high {
				return overflow(*t)
			}
			c.I = append(c.I, v.n)
			c.notNull()
			return nil
		}
	case sql.KindDouble:
		if v.kind != jsonNumber {
			break
		}
		var f float64
		if v.exact && v.n < 1<<53 && v.n > -1<<53 {
			// Both are exact, and so the quotient is as near as can be.
			f = float64(v.n) / powers[v.scale]
		} else {
			var err error
			if f, err = strconv.ParseFloat(v.s, 64); err != nil {
				return overflow(*t)
			}
		}
		c.F = append(c.F, f)
		c.notNull()
		return nil
	case sql.KindDecimal:
		if !v.exact {
			break
		}
		if n, ok := rescale(v.n, int(v.scale), t.Scale); ok {
			d, err := checkedDecimal(n, *t)
			if err != nil {
				return err
			}
			c.I = append(c.I, d.I)
			c.notNull()
			return nil
		}
	case sql.KindVarchar:
		if v.kind != jsonString {
			break
		}
		s := v.s
		if len(s) > t.Length {
			s = fit(s, *t)
		}
		c.S = append(c.S, s)
		c.notNull()
		return nil
	}
	if v.kind == absent || v.kind == jsonNull {
		c.addValue(plan.Value{Null: true})
		return nil
	}
	value, err := convertCell(*v, t)
	if err != nil {
		return err
	}
	c.addValue(value)
	return nil
}

// notNull counts a value that has been appended.
func (c *column) notNull() {
	c.n++
	if c.Null != nil {
		c.Null = append(c.Null, false)
	}
}

// powers are those of ten that doubles have exactly and cells need.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

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
		return plan.Value{}, fmt.Errorf("%q is no %s", v.s, t.Kind)
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
				p.cells[i] = cell{kind: jsonString, s: p.fields[i]}
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
	for s.i < len(s.s) && s.s[s.i] <= ' ' {
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

// colon passes what is between a member's name and its value.
func (s *scanner) colon() bool {
	s.space()
	if s.peek() != ':' {
		return false
	}
	s.i++
	return true
}

// after passes what follows a member or an element: more says whether another one
// does, or the end.
func (s *scanner) after(end byte) (more, ok bool) {
	s.space()
	switch s.peek() {
	case ',':
		s.i++
		return true, true
	case end:
		s.i++
		return false, true
	}
	return false, false
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
		if !ok || !s.colon() {
			return false
		}
		s.space()
		if !f(name) {
			return false
		}
		if more, ok := s.after('}'); !ok || !more {
			return ok
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
		if more, ok := s.after(']'); !ok || !more {
			return ok
		}
	}
}

// skip passes over a value.
func (s *scanner) skip(depth int) bool {
	if depth > maxJSONDepth {
		return false
	}
	s.space()
	c := s.peek()
	switch c {
	case '"':
		return s.pass()
	case '{', '[':
	default:
		var c cell
		return s.scalar(&c)
	}
	s.i++
	s.space()
	end := c + 2 // '}' and ']' stand two behind what they close
	if s.peek() == end {
		s.i++
		return true
	}
	for {
		s.space()
		if c == '{' && (!s.pass() || !s.colon()) {
			return false
		}
		if !s.skip(depth + 1) {
			return false
		}
		if more, ok := s.after(end); !ok || !more {
			return ok
		}
	}
}

// scalar reads a string, number, true, false or null.
func (s *scanner) scalar(v *cell) bool {
	switch c := s.peek(); {
	case c == '"':
		text, ok := s.str()
		*v = cell{kind: jsonString, s: text}
		return ok
	case c == '-' || c >= '0' && c <= '9':
		return s.number(v)
	case c == 't':
		*v = cell{kind: jsonTrue, s: "true"}
		return s.word("true")
	case c == 'f':
		*v = cell{kind: jsonFalse, s: "false"}
		return s.word("false")
	case c == 'n':
		*v = cell{kind: jsonNull}
		return s.word("null")
	}
	return false
}

// number reads a number and, while it is small, its value.
func (s *scanner) number(v *cell) bool {
	from, negative := s.i, s.s[s.i] == '-'
	if negative {
		s.i++
	}
	first := s.i
	n := s.digits(0)
	whole := s.i - first
	if whole == 0 || whole > 1 && s.s[first] == '0' {
		return false
	}
	scale := 0
	if s.peek() == '.' {
		s.i++
		first := s.i
		n = s.digits(n)
		if scale = s.i - first; scale == 0 {
			return false
		}
	}
	v.kind, v.exact = jsonNumber, false
	if s.peek()|0x20 == 'e' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		first := s.i
		if s.digits(0); s.i == first {
			return false
		}
	} else if whole+scale <= 18 && !(negative && n == 0) { // minus zero is none of the integers
		v.exact, v.scale, v.n = true, int8(scale), int64(n)
		if negative {
			v.n = -v.n
		}
	}
	v.s = s.s[from:s.i]
	return true
}

// digits reads digits behind those that n has.
func (s *scanner) digits(n uint64) uint64 {
	i := s.i
	for i < len(s.s) {
		d := s.s[i] - '0'
		if d > 9 {
			break
		}
		n = n*10 + uint64(d)
		i++
	}
	s.i = i
	return n
}

func (s *scanner) word(w string) bool {
	if !strings.HasPrefix(s.s[s.i:], w) {
		return false
	}
	s.i += len(w)
	return true
}

// plain is the first place from i on where a string has something else than
// characters that stand for themselves: a quote, a backslash or a control
// character; len(t) if there is none.
func plain(t string, i int) int {
	for ; i+8 <= len(t); i += 8 {
		if found := special(word(t, i)); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(t); i++ {
		if c := t[i]; c == '"' || c == '\\' || c < 0x20 {
			return i
		}
	}
	return i
}

const ones, highs = 0x0101010101010101, 0x8080808080808080

// word are eight bytes of a text, the first one lowest. The bounds are checked once,
// and it is one load.
func word(t string, i int) uint64 {
	b := t[i : i+8]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// special marks quotes, backslashes and control characters among eight bytes: the
// high bit of the lowest one is set. Bits above it may be wrong.
func special(w uint64) uint64 {
	quote, slash := w^ones*'"', w^ones*'\\'
	return ((quote-ones)&^quote | (slash-ones)&^slash | (w-ones*0x20)&^w) & highs
}

// str reads a string and undoes its escapes.
func (s *scanner) str() (string, bool) {
	if s.peek() != '"' {
		return "", false
	}
	from := s.i + 1
	i := plain(s.s, from)
	s.i = i
	if i == len(s.s) {
		return "", false
	}
	switch s.s[i] {
	case '"':
		s.i++
		return s.s[from:i], true
	case '\\':
		return s.escaped(from, i)
	}
	return "", false
}

// pass passes over a string.
func (s *scanner) pass() bool {
	if s.peek() != '"' {
		return false
	}
	i := plain(s.s, s.i+1)
	for ; i < len(s.s); i = plain(s.s, i) {
		switch s.s[i] {
		case '"':
			s.i = i + 1
			return true
		case '\\':
		default:
			s.i = i
			return false
		}
		if i+1 == len(s.s) {
			break
		}
		i += 2
		switch s.s[i-1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			if _, ok := hexRune(s.s, i); !ok {
				s.i = i
				return false
			}
			i += 4
		default:
			s.i = i
			return false
		}
	}
	s.i = len(s.s)
	return false
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
