// Package hive reads the type names that a catalog's tables use:
// "array<struct<sku:string,qty:int>>".
//
// The one idea: a type is parsed once, into a tree that everything behind it
// (deserializers, column buffers, file formats) walks. What Hive can name and a
// columnar file cannot hold (unions, the sets that crawlers invent) is an error
// here and nowhere else. Start with Parse.
package hive

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind is what a value is.
type Kind uint8

// The kinds, in the order of the catalog's documentation.
const (
	Boolean Kind = iota + 1
	TinyInt
	SmallInt
	Int
	BigInt
	Float
	Double
	Decimal
	String
	Char
	Varchar
	Binary
	Date
	Timestamp
	Array
	Map
	Struct
)

var kindNames = [...]string{
	Boolean: "boolean", TinyInt: "tinyint", SmallInt: "smallint", Int: "int", BigInt: "bigint",
	Float: "float", Double: "double", Decimal: "decimal", String: "string", Char: "char", Varchar: "varchar",
	Binary: "binary", Date: "date", Timestamp: "timestamp", Array: "array", Map: "map", Struct: "struct",
}

// String is the kind's name in a type.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Nested says that values of the kind are made of other values.
func (k Kind) Nested() bool { return k >= Array }

// Text says that values of the kind are characters.
func (k Kind) Text() bool { return k == String || k == Char || k == Varchar }

const (
	// MaxDepth bounds how deep types nest.
	MaxDepth = 32
	// MaxText bounds the length of a type's text; a catalog allows as much.
	MaxText = 131072
	// MaxPrecision is how many digits a decimal can have.
	MaxPrecision = 38
	// MaxCharLength and MaxVarcharLength bound the lengths of char and varchar.
	MaxCharLength    = 255
	MaxVarcharLength = 65535
)

// Type is a parsed type. It is immutable.
type Type struct {
	Kind      Kind
	Precision int     // of Decimal, 1 to MaxPrecision
	Scale     int     // of Decimal, 0 to Precision
	Length    int     // of Char and Varchar, in characters
	Key       *Type   // of Map
	Elem      *Type   // of Array, and the values of Map
	Fields    []Field // of Struct
}

// Field is a member of a structure, or a column of a table.
type Field struct {
	Name string
	Type *Type
}

// String is the type as a catalog writes it.
func (t *Type) String() string {
	switch t.Kind {
	case Decimal:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case Char, Varchar:
		return fmt.Sprintf("%s(%d)", t.Kind, t.Length)
	case Array:
		return "array<" + t.Elem.String() + ">"
	case Map:
		return "map<" + t.Key.String() + "," + t.Elem.String() + ">"
	case Struct:
		var b strings.Builder
		b.WriteString("struct<")
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteByte(',')
			}
			if plainName(f.Name) {
				b.WriteString(f.Name)
			} else {
				b.WriteString("`" + strings.ReplaceAll(f.Name, "`", "``") + "`")
			}
			b.WriteByte(':')
			b.WriteString(f.Type.String())
		}
		b.WriteByte('>')
		return b.String()
	}
	return t.Kind.String()
}

// Leaves is how many columns of plain values a value of the type takes.
func (t *Type) Leaves() int {
	switch t.Kind {
	case Array:
		return t.Elem.Leaves()
	case Map:
		return t.Key.Leaves() + t.Elem.Leaves()
	case Struct:
		n := 0
		for _, f := range t.Fields {
			n += f.Type.Leaves()
		}
		return n
	}
	return 1
}

// Parse reads a type. Names of types are known in any case; names of members
// keep theirs. Errors are in the words of Hive's own parser where it has some.
func Parse(text string) (*Type, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("Error: the type has more than %d characters", MaxText)
	}
	p := parser{text: text}
	p.next()
	t, err := p.parseType(0)
	if err != nil {
		return nil, err
	}
	if p.token != "" {
		return nil, fmt.Errorf("Error: unexpected character at the end of '%s'", text)
	}
	return t, nil
}

type parser struct {
	text   string
	at     int    // behind the token
	start  int    // of the token
	token  string // empty at the end
	quoted bool   // the token is a name between backquotes
}

// plainName tells names that need no quotes.
func plainName(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// nameByte tells the bytes of names: letters, digits, and what Hive lets pass in
// members ("order-id", "$ref"), all bytes of other alphabets included.
func nameByte(c byte) bool {
	switch c {
	case '<', '>', '(', ')', ',', ':', ';', ' ', '\t', '\n', '\r', '`':
		return false
	}
	return true
}

// next moves to the next token.
func (p *parser) next() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t' || p.text[p.at] == '\n' || p.text[p.at] == '\r') {
		p.at++
	}
	p.start, p.quoted = p.at, false
	if p.at == len(p.text) {
		p.token = ""
		return
	}
	switch c := p.text[p.at]; {
	case c == '`':
		p.at++
		var b strings.Builder
		for p.at < len(p.text) {
			if p.text[p.at] == '`' {
				if p.at+1 < len(p.text) && p.text[p.at+1] == '`' {
					p.at++
				} else {
					p.quoted = true
					break
				}
			}
			b.WriteByte(p.text[p.at])
			p.at++
		}
		if !p.quoted {
			p.token = "`" // never a name: the quote is not closed
			return
		}
		p.at++
		p.token = b.String()
		if p.token == "" {
			p.token, p.quoted = "`", false
		}
	case nameByte(c):
		for p.at < len(p.text) && nameByte(p.text[p.at]) {
			p.at++
		}
		p.token = p.text[p.start:p.at]
	default:
		p.at++
		p.token = p.text[p.start:p.at]
	}
}

// wrong is the error of a token that is not what must come.
func (p *parser) wrong(expected string) error {
	if p.token == "" {
		return fmt.Errorf("Error: %s expected at the end of '%s'", expected, p.text)
	}
	return fmt.Errorf("Error: %s expected at the position %d of '%s' but '%s' is found.", expected, p.start, p.text, p.token)
}

func (p *parser) expect(token string) error {
	if p.token != token || p.quoted {
		return p.wrong(token)
	}
	p.next()
	return nil
}

func (p *parser) parseType(depth int) (*Type, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("Error: types nest deeper than %d in '%s'", MaxDepth, p.text)
	}
	if p.token == "" || p.quoted {
		return nil, p.wrong("type")
	}
	t := &Type{}
	switch strings.ToLower(p.token) {
	case "boolean":
		t.Kind = Boolean
	case "tinyint":
		t.Kind = TinyInt
	case "smallint":
		t.Kind = SmallInt
	case "int", "integer":
		t.Kind = Int
	case "bigint":
		t.Kind = BigInt
	case "float":
		t.Kind = Float
	case "double":
		t.Kind = Double
	case "string":
		t.Kind = String
	case "binary":
		t.Kind = Binary
	case "date":
		t.Kind = Date
	case "timestamp":
		t.Kind = Timestamp
	case "decimal", "dec", "numeric":
		return p.parseDecimal()
	case "char":
		return p.parseLength(Char, MaxCharLength)
	case "varchar":
		return p.parseLength(Varchar, MaxVarcharLength)
	case "array":
		return p.parseArray(depth)
	case "map":
		return p.parseMap(depth)
	case "struct":
		return p.parseStruct(depth)
	default:
		return nil, p.wrong("type")
	}
	p.next()
	return t, nil
}

func (p *parser) parseNumber() (int, error) {
	n, err := strconv.Atoi(p.token)
	if err != nil || p.quoted || n < 0 || p.token[0] == '+' {
		return 0, p.wrong("number")
	}
	p.next()
	return n, nil
}

// parseDecimal reads decimal, decimal(p) and decimal(p,s).
func (p *parser) parseDecimal() (*Type, error) {
	t := &Type{Kind: Decimal, Precision: 10}
	p.next()
	if p.token != "(" {
		return t, nil
	}
	p.next()
	var err error
	if t.Precision, err = p.parseNumber(); err != nil {
		return nil, err
	}
	if p.token == "," {
		p.next()
		if t.Scale, err = p.parseNumber(); err != nil {
			return nil, err
		}
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	if t.Precision < 1 || t.Precision > MaxPrecision {
		return nil, fmt.Errorf("Decimal precision out of allowed range [1,%d]", MaxPrecision)
	}
	if t.Scale > t.Precision {
		return nil, fmt.Errorf("Decimal scale must be less than or equal to precision")
	}
	return t, nil
}

func (p *parser) parseLength(kind Kind, most int) (*Type, error) {
	t := &Type{Kind: kind}
	p.next()
	if err := p.expect("("); err != nil {
		return nil, err
	}
	n, err := p.parseNumber()
	if err != nil {
		return nil, err
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	if t.Length = n; n < 1 || n > most {
		return nil, fmt.Errorf("%s length %d out of allowed range [1, %d]", strings.ToUpper(kind.String()[:1])+kind.String()[1:], n, most)
	}
	return t, nil
}

func (p *parser) parseArray(depth int) (*Type, error) {
	p.next()
	if err := p.expect("<"); err != nil {
		return nil, err
	}
	elem, err := p.parseType(depth + 1)
	if err != nil {
		return nil, err
	}
	return &Type{Kind: Array, Elem: elem}, p.expect(">")
}

func (p *parser) parseMap(depth int) (*Type, error) {
	p.next()
	if err := p.expect("<"); err != nil {
		return nil, err
	}
	at := p.start
	key, err := p.parseType(depth + 1)
	if err != nil {
		return nil, err
	}
	if key.Kind.Nested() {
		return nil, fmt.Errorf("Error: primitive type expected at the position %d of '%s' but '%s' is found.", at, p.text, key.Kind)
	}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	elem, err := p.parseType(depth + 1)
	if err != nil {
		return nil, err
	}
	return &Type{Kind: Map, Key: key, Elem: elem}, p.expect(">")
}

func (p *parser) parseStruct(depth int) (*Type, error) {
	p.next()
	if err := p.expect("<"); err != nil {
		return nil, err
	}
	t := &Type{Kind: Struct}
	seen := map[string]bool{}
	for {
		if p.token == "" || !p.quoted && !plainName(p.token) {
			return nil, p.wrong("name")
		}
		name := p.token
		if fold := strings.ToLower(name); seen[fold] {
			return nil, fmt.Errorf("Error: the member '%s' appears twice in '%s'", name, p.text)
		} else {
			seen[fold] = true
		}
		p.next()
		if err := p.expect(":"); err != nil {
			return nil, err
		}
		member, err := p.parseType(depth + 1)
		if err != nil {
			return nil, err
		}
		t.Fields = append(t.Fields, Field{Name: name, Type: member})
		if p.token != "," {
			return t, p.expect(">")
		}
		p.next()
	}
}
