package encode

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// file is an Avro container file under way:
//
//	"Obj" 1, the metadata as a map, sync
//	{ rows, bytes, the rows compressed, sync } …
//
// It is written here and not by the library, whose header has its entries in any
// order: the same batch must make the same bytes.
type file struct {
	k     *Converter
	w     io.Writer
	sync  [16]byte
	rows  int64
	block []byte
	out   []byte
	flate *flate.Writer
	zstd  *zstd.Encoder
}

// blockBytes is about how many bytes of rows a block holds before compression.
const blockBytes = 64 << 10

func newFile(k *Converter, w io.Writer, sync [16]byte) (*file, error) {
	f := &file{k: k, w: w, sync: sync}
	var err error
	switch k.codec {
	case "deflate":
		f.flate, err = flate.NewWriter(nil, flate.DefaultCompression)
	case "zstandard":
		f.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	}
	if err != nil {
		return nil, fmt.Errorf("begin Avro file: %w", err)
	}
	head := append([]byte("Obj\x01"), appendLong(nil, 2)...)
	for _, entry := range [][2][]byte{{[]byte("avro.codec"), []byte(k.codec)}, {[]byte("avro.schema"), k.meta}} {
		for _, part := range entry {
			head = append(appendLong(head, int64(len(part))), part...)
		}
	}
	head = append(append(head, 0), sync[:]...)
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	return f, nil
}

// flush writes a block of what has come together.
func (f *file) flush() error {
	if f.rows == 0 {
		return nil
	}
	data := f.block
	switch f.k.codec {
	case "deflate":
		var b bytes.Buffer
		f.flate.Reset(&b)
		if _, err := f.flate.Write(data); err != nil {
			return err
		}
		if err := f.flate.Close(); err != nil {
			return err
		}
		data = b.Bytes()
	case "snappy":
		sum := crc32.ChecksumIEEE(data)
		data = binary.BigEndian.AppendUint32(snappy.Encode(nil, data), sum)
	case "zstandard":
		data = f.zstd.EncodeAll(data, nil)
	}
	f.out = appendLong(appendLong(f.out[:0], f.rows), int64(len(data)))
	f.out = append(append(f.out, data...), f.sync[:]...)
	f.rows, f.block = 0, f.block[:0]
	_, err := f.w.Write(f.out)
	return err
}

func (f *file) append(b *bytes.Buffer, data []byte, ends []int) ([]int, error) {
	err := values(data, func(value []byte) error {
		d := json.NewDecoder(bytes.NewReader(value))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return parseError{fmt.Errorf("The record is not JSON: %w", err)}
		}
		row, err := f.k.schema.append(b.AvailableBuffer(), v)
		if err != nil {
			return fmt.Errorf("The record does not fit the schema: %w", err)
		}
		b.Write(row)
		ends = append(ends, b.Len())
		return nil
	})
	return ends, err
}

func (f *file) write(rows []byte, ends []int) error {
	f.block = append(f.block, rows...)
	f.rows += int64(len(ends))
	if len(f.block) < blockBytes {
		return nil
	}
	return f.flush()
}

func (f *file) close() error {
	err := f.flush()
	if f.zstd != nil {
		err = errors.Join(err, f.zstd.Close())
	}
	return err
}

// node encodes JSON values of one schema.
type node interface {
	append(dst []byte, v any) ([]byte, error)
}

// row is the schema of rows: a record.
type row struct{ node }

func (k *Converter) parseSchema(text []byte) error {
	schema, err := avro.ParseBytesWithCache(text, "", &avro.SchemaCache{})
	if err != nil {
		return fmt.Errorf("not a schema: %w", err)
	}
	if schema.Type() != avro.Record {
		return errors.New("the schema of rows must be a record")
	}
	c := compiler{known: map[avro.Schema]*late{}}
	n, err := c.compile(schema)
	if err != nil {
		return err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return err
	}
	k.schema, k.meta = &row{n}, compact.Bytes()
	return nil
}

// compiler turns schemas into nodes; known ends the recursion of named ones.
type compiler struct{ known map[avro.Schema]*late }

// late is a node that is being made.
type late struct{ node }

func (c compiler) compile(s avro.Schema) (node, error) {
	if ref, ok := s.(*avro.RefSchema); ok {
		s = ref.Schema()
	}
	if n := c.known[s]; n != nil {
		return n, nil
	}
	switch s := s.(type) {
	case *avro.RecordSchema:
		l := &late{}
		c.known[s] = l
		r := &recordNode{name: s.FullName()}
		for _, f := range s.Fields() {
			n, err := c.compile(f.Type())
			if err != nil {
				return nil, err
			}
			m := member{name: f.Name(), node: n}
			switch {
			case f.HasDefault():
				if m.missing, err = encodeDefault(n, f.Default()); err != nil {
					return nil, fmt.Errorf("default of %s: %w", f.Name(), err)
				}
				m.optional = true
			default:
				if u, ok := n.(*unionNode); ok && u.null >= 0 {
					m.missing, m.optional = appendLong(nil, int64(u.null)), true
				}
			}
			r.members = append(r.members, m)
		}
		l.node = r
		return l, nil
	case *avro.EnumSchema:
		e := &enumNode{symbols: map[string]int64{}, other: -1}
		for i, symbol := range s.Symbols() {
			e.symbols[symbol] = int64(i)
		}
		if s.HasDefault() {
			e.other = e.symbols[s.Default()]
		}
		return e, nil
	case *avro.ArraySchema:
		n, err := c.compile(s.Items())
		return &arrayNode{n}, err
	case *avro.MapSchema:
		n, err := c.compile(s.Values())
		return &mapNode{n}, err
	case *avro.UnionSchema:
		u := &unionNode{null: -1}
		for i, t := range s.Types() {
			n, err := c.compile(t)
			if err != nil {
				return nil, err
			}
			name := string(t.Type())
			if named, ok := t.(avro.NamedSchema); ok {
				name = named.FullName()
			}
			if ref, ok := t.(*avro.RefSchema); ok {
				name = ref.Schema().FullName()
			}
			if t.Type() == avro.Null {
				u.null = i
			}
			u.branches = append(u.branches, branch{name, n})
		}
		return u, nil
	case *avro.FixedSchema:
		f := &bytesNode{size: s.Size()}
		return f, f.logical(s.Logical())
	case *avro.NullSchema:
		return nullNode{}, nil
	case *avro.PrimitiveSchema:
		var logical avro.LogicalType
		if s.Logical() != nil {
			logical = s.Logical().Type()
		}
		switch s.Type() {
		case avro.String:
			return stringNode{}, nil
		case avro.Bytes:
			b := &bytesNode{size: -1}
			return b, b.logical(s.Logical())
		case avro.Int:
			return &integerNode{math.MinInt32, math.MaxInt32, logical}, nil
		case avro.Long:
			return &integerNode{math.MinInt64, math.MaxInt64, logical}, nil
		case avro.Float:
			return floatNode{32}, nil
		case avro.Double:
			return floatNode{64}, nil
		case avro.Boolean:
			return booleanNode{}, nil
		case avro.Null:
			return nullNode{}, nil
		}
	}
	return nil, fmt.Errorf("type %s is not supported", s.Type())
}

// encodeDefault encodes the value that a missing member has. A union's default
// is of its first branch.
func encodeDefault(n node, v any) ([]byte, error) {
	if raw, ok := v.([]byte); ok {
		if u, ok := n.(*unionNode); ok && len(u.branches) > 0 {
			rest, err := encodeDefault(u.branches[0].node, v)
			return append(appendLong(nil, 0), rest...), err
		}
		if b, ok := n.(*bytesNode); ok && b.size >= 0 {
			return raw, nil
		}
		return append(appendLong(nil, int64(len(raw))), raw...), nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		return nil, err
	}
	return n.append(nil, plain)
}

// appendLong appends a number in zigzag form with variable length.
func appendLong(dst []byte, n int64) []byte { return binary.AppendVarint(dst, n) }

func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + v.String()[:min(40, len(v.String()))]
	case string:
		return "a string"
	case []any:
		return "an array"
	}
	return "an object"
}

func mismatch(v any, want string) error { return fmt.Errorf("%s where %s is expected", kind(v), want) }

type nullNode struct{}

func (nullNode) append(dst []byte, v any) ([]byte, error) {
	if v != nil {
		return dst, mismatch(v, "null")
	}
	return dst, nil
}

type booleanNode struct{}

func (booleanNode) append(dst []byte, v any) ([]byte, error) {
	is, ok := v.(bool)
	if !ok {
		return dst, mismatch(v, "a boolean")
	}
	if is {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

type stringNode struct{}

func (stringNode) append(dst []byte, v any) ([]byte, error) {
	s, ok := v.(string)
	if !ok {
		return dst, mismatch(v, "a string")
	}
	return append(appendLong(dst, int64(len(s))), s...), nil
}

type floatNode struct{ bits int }

func (n floatNode) append(dst []byte, v any) ([]byte, error) {
	number, ok := v.(json.Number)
	if !ok {
		return dst, mismatch(v, "a number")
	}
	f, err := strconv.ParseFloat(number.String(), n.bits)
	if err != nil {
		return dst, mismatch(v, "a number that fits")
	}
	if n.bits == 32 {
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(f))), nil
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), nil
}

// integerNode is an int or a long. Dates and times may be texts too.
type integerNode struct {
	min, max int64
	logical  avro.LogicalType
}

func (n *integerNode) append(dst []byte, v any) ([]byte, error) {
	var i int64
	switch v := v.(type) {
	case json.Number:
		parsed, err := strconv.ParseInt(v.String(), 10, 64)
		if err != nil {
			// 1.0 and 1e3 are whole numbers as well.
			f, ok := new(big.Rat).SetString(v.String()[:min(len(v.String()), 64)])
			if !ok || !f.IsInt() || !f.Num().IsInt64() || len(v.String()) > 64 {
				return dst, mismatch(v, "a whole number that fits")
			}
			parsed = f.Num().Int64()
		}
		i = parsed
	case string:
		at, ok := n.time(v)
		if !ok {
			return dst, mismatch(v, "a whole number")
		}
		i = at
	default:
		return dst, mismatch(v, "a whole number")
	}
	if i < n.min || i > n.max {
		return dst, mismatch(v, "a whole number that fits")
	}
	return appendLong(dst, i), nil
}

// time reads a text by the logical type: RFC 3339, with or without the zone for
// local times.
func (n *integerNode) time(text string) (int64, bool) {
	parse := func(layouts ...string) (time.Time, bool) {
		for _, layout := range layouts {
			if t, err := time.Parse(layout, text); err == nil {
				return t, true
			}
		}
		return time.Time{}, false
	}
	day := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	switch n.logical {
	case avro.Date:
		t, ok := parse(time.DateOnly)
		return t.Unix() / 86400, ok
	case avro.TimeMillis:
		t, ok := parse("15:04:05")
		return t.Sub(day).Milliseconds(), ok
	case avro.TimeMicros:
		t, ok := parse("15:04:05")
		return t.Sub(day).Microseconds(), ok
	case avro.TimestampMillis:
		t, ok := parse(time.RFC3339, "2006-01-02 15:04:05Z07:00")
		return t.UnixMilli(), ok
	case avro.TimestampMicros:
		t, ok := parse(time.RFC3339, "2006-01-02 15:04:05Z07:00")
		return t.UnixMicro(), ok
	case avro.LocalTimestampMillis:
		t, ok := parse("2006-01-02T15:04:05", time.DateTime)
		return t.UnixMilli(), ok
	case avro.LocalTimestampMicros:
		t, ok := parse("2006-01-02T15:04:05", time.DateTime)
		return t.UnixMicro(), ok
	}
	return 0, false
}

// bytesNode is bytes or, with a size, fixed: a text each of whose characters is
// a byte, as Avro writes them in JSON. Decimals may be numbers or texts of them.
type bytesNode struct {
	size             int
	decimal          bool
	precision, scale int
}

// maxPrecision bounds what a number may cost.
const maxPrecision = 1000

func (n *bytesNode) logical(l avro.LogicalSchema) error {
	if d, ok := l.(*avro.DecimalLogicalSchema); ok {
		n.decimal, n.precision, n.scale = true, d.Precision(), d.Scale()
		if n.precision > maxPrecision {
			return fmt.Errorf("a precision of %d is not supported", n.precision)
		}
	}
	return nil
}

func (n *bytesNode) append(dst []byte, v any) ([]byte, error) {
	var raw []byte
	switch v := v.(type) {
	case json.Number:
		if !n.decimal {
			return dst, mismatch(v, "a string of bytes")
		}
		unscaled, err := n.unscaled(v.String())
		if err != nil {
			return dst, err
		}
		raw = unscaled
	case string:
		if n.decimal {
			if unscaled, err := n.unscaled(v); err == nil {
				raw = unscaled
				break
			}
			return dst, mismatch(v, "a decimal")
		}
		for _, r := range v {
			if r > 0xff {
				return dst, mismatch(v, "a string of bytes")
			}
			raw = append(raw, byte(r))
		}
	default:
		return dst, mismatch(v, "a string of bytes")
	}
	if n.size >= 0 {
		if len(raw) != n.size {
			return dst, fmt.Errorf("%d bytes where %d are expected", len(raw), n.size)
		}
		return append(dst, raw...), nil
	}
	return append(appendLong(dst, int64(len(raw))), raw...), nil
}

// unscaled is a decimal's integer in two's complement, big end first.
func (n *bytesNode) unscaled(text string) ([]byte, error) {
	wrong := fmt.Errorf("a number where a decimal of %d digits with %d behind the point is expected", n.precision, n.scale)
	if len(text) > maxPrecision+8 {
		return nil, wrong
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok {
		if e, err := strconv.Atoi(exponent); err != nil || e > maxPrecision || e < -maxPrecision {
			return nil, wrong
		}
	}
	if strings.ContainsAny(text, "/xXoObBpP_") {
		return nil, wrong
	}
	f, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, wrong
	}
	f.Mul(f, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n.scale)), nil)))
	if !f.IsInt() || f.Num().CmpAbs(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n.precision)), nil)) >= 0 {
		return nil, wrong
	}
	i := f.Num()
	size := i.BitLen()/8 + 1
	if n.size >= 0 {
		if size > n.size {
			return nil, wrong
		}
		size = n.size
	}
	if i.Sign() < 0 {
		i = new(big.Int).Add(i, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	return i.FillBytes(make([]byte, size)), nil
}

type enumNode struct {
	symbols map[string]int64
	other   int64 // of symbols that do not exist; -1 refuses them
}

func (n *enumNode) append(dst []byte, v any) ([]byte, error) {
	s, ok := v.(string)
	if !ok {
		return dst, mismatch(v, "a symbol")
	}
	i, ok := n.symbols[s]
	if !ok {
		if i = n.other; i < 0 {
			return dst, fmt.Errorf("%q is no symbol of the enumeration", s[:min(len(s), 40)])
		}
	}
	return appendLong(dst, i), nil
}

type arrayNode struct{ item node }

func (n *arrayNode) append(dst []byte, v any) ([]byte, error) {
	list, ok := v.([]any)
	if !ok {
		return dst, mismatch(v, "an array")
	}
	if len(list) > 0 {
		dst = appendLong(dst, int64(len(list)))
		for i, item := range list {
			var err error
			if dst, err = n.item.append(dst, item); err != nil {
				return dst, fmt.Errorf("[%d]: %w", i, err)
			}
		}
	}
	return append(dst, 0), nil
}

type mapNode struct{ value node }

func (n *mapNode) append(dst []byte, v any) ([]byte, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return dst, mismatch(v, "an object")
	}
	if len(object) > 0 {
		names := make([]string, 0, len(object))
		for name := range object {
			names = append(names, name)
		}
		slices.Sort(names)
		dst = appendLong(dst, int64(len(names)))
		for _, name := range names {
			dst = append(appendLong(dst, int64(len(name))), name...)
			var err error
			if dst, err = n.value.append(dst, object[name]); err != nil {
				return dst, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return append(dst, 0), nil
}

type branch struct {
	name string
	node node
}

// unionNode takes a plain value for the first branch that it fits, and an object
// whose only member names a branch as Avro writes unions in JSON.
type unionNode struct {
	branches []branch
	null     int // index of null; -1
}

func (n *unionNode) append(dst []byte, v any) ([]byte, error) {
	if object, ok := v.(map[string]any); ok && len(object) == 1 {
		for name, inner := range object {
			for i, b := range n.branches {
				if b.name == name {
					if out, err := b.node.append(appendLong(dst, int64(i)), inner); err == nil {
						return out, nil
					}
				}
			}
		}
	}
	before := len(dst)
	var last error
	for i, b := range n.branches {
		out, err := b.node.append(appendLong(dst[:before], int64(i)), v)
		if err == nil {
			return out, nil
		}
		if i != n.null {
			last = err
		}
	}
	if last == nil || len(n.branches) > 2 {
		last = fmt.Errorf("%s, which fits no branch of the union", kind(v))
	}
	return dst[:before], last
}

type member struct {
	name     string
	node     node
	missing  []byte // encoded, if optional
	optional bool
}

type recordNode struct {
	name    string
	members []member
}

func (n *recordNode) append(dst []byte, v any) ([]byte, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return dst, mismatch(v, "an object")
	}
	for _, m := range n.members {
		value, ok := object[m.name]
		if !ok {
			if !m.optional {
				return dst, fmt.Errorf("%s is missing", m.name)
			}
			dst = append(dst, m.missing...)
			continue
		}
		var err error
		if dst, err = m.node.append(dst, value); err != nil {
			return dst, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return dst, nil
}
