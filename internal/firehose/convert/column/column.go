// Package column holds rows the way columnar files want them: one buffer a
// column.
//
// The one idea: a deserializer appends values where they will be encoded from,
// so that a record is never an object of its own. A record that turns out to be
// bad half-way is taken back by cutting every buffer to where it stood, which
// needs no bookkeeping: the length of each buffer follows from the rows.
package column

import (
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// Int128 is the unscaled value of a decimal: two's complement.
type Int128 struct {
	Hi int64
	Lo uint64
}

// Column is the values of one column of rows, of one member of structures, or
// of all elements of arrays. Each kind uses the buffers it needs; every buffer
// has an entry for nulls too (zero, or empty), so that index i is value i
// everywhere.
type Column struct {
	Type  *hive.Type
	Valid []bool // false is null

	Ints     []int64   // booleans (0, 1), integers, dates (days since 1970), timestamps (nanoseconds since 1970)
	Floats   []float64 // float and double
	Decimals []Int128
	Data     []byte // characters and bytes, one value after another
	// Ends are, by value, the end in Data, or in the children of arrays and maps.
	Ends []uint32
	// Children are the members of a structure, the elements of an array, or the
	// keys and the values of a map.
	Children []*Column
}

// New makes an empty column.
func New(t *hive.Type) *Column {
	c := &Column{Type: t}
	switch t.Kind {
	case hive.Array:
		c.Children = []*Column{New(t.Elem)}
	case hive.Map:
		c.Children = []*Column{New(t.Key), New(t.Elem)}
	case hive.Struct:
		for _, f := range t.Fields {
			c.Children = append(c.Children, New(f.Type))
		}
	}
	return c
}

// Len is how many values there are, nulls included.
func (c *Column) Len() int { return len(c.Valid) }

// Start is where value i begins in Data or in the children.
func (c *Column) Start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return c.Ends[i-1]
}

// Bytes is value i of a column of characters or bytes.
func (c *Column) Bytes(i int) []byte { return c.Data[c.Start(i):c.Ends[i]] }

// AppendInt appends a value of Ints.
func (c *Column) AppendInt(v int64) {
	c.Ints = append(c.Ints, v)
	c.Valid = append(c.Valid, true)
}

// AppendFloat appends a value of Floats.
func (c *Column) AppendFloat(v float64) {
	c.Floats = append(c.Floats, v)
	c.Valid = append(c.Valid, true)
}

// AppendDecimal appends a value of Decimals.
func (c *Column) AppendDecimal(v Int128) {
	c.Decimals = append(c.Decimals, v)
	c.Valid = append(c.Valid, true)
}

// AppendBytes appends a value of Data.
func (c *Column) AppendBytes(v []byte) {
	c.Data = append(c.Data, v...)
	c.EndBytes()
}

// EndBytes ends a value whose bytes were appended to Data already.
func (c *Column) EndBytes() {
	c.Ends = append(c.Ends, uint32(len(c.Data)))
	c.Valid = append(c.Valid, true)
}

// EndList ends an array or a map whose elements were appended to its children.
func (c *Column) EndList() {
	c.Ends = append(c.Ends, uint32(c.Children[0].Len()))
	c.Valid = append(c.Valid, true)
}

// EndStruct ends a structure whose members were appended to its children.
func (c *Column) EndStruct() { c.Valid = append(c.Valid, true) }

// AppendNull appends a null.
func (c *Column) AppendNull() {
	switch c.Type.Kind {
	case hive.Float, hive.Double:
		c.Floats = append(c.Floats, 0)
	case hive.Decimal:
		c.Decimals = append(c.Decimals, Int128{})
	case hive.String, hive.Char, hive.Varchar, hive.Binary:
		c.Ends = append(c.Ends, uint32(len(c.Data)))
	case hive.Array, hive.Map:
		c.Ends = append(c.Ends, uint32(c.Children[0].Len()))
	case hive.Struct:
		for _, child := range c.Children {
			child.AppendNull()
		}
	default:
		c.Ints = append(c.Ints, 0)
	}
	c.Valid = append(c.Valid, false)
}

// Truncate keeps the first n values. What was appended behind them, a value
// that was not ended included, is gone.
func (c *Column) Truncate(n int) {
	switch c.Type.Kind {
	case hive.Float, hive.Double:
		c.Floats = c.Floats[:n]
	case hive.Decimal:
		c.Decimals = c.Decimals[:n]
	case hive.String, hive.Char, hive.Varchar, hive.Binary:
		c.Ends = c.Ends[:n]
		c.Data = c.Data[:c.Start(n)]
	case hive.Array, hive.Map:
		c.Ends = c.Ends[:n]
		for _, child := range c.Children {
			child.Truncate(int(c.Start(n)))
		}
	case hive.Struct:
		for _, child := range c.Children {
			child.Truncate(n)
		}
	default:
		c.Ints = c.Ints[:n]
	}
	c.Valid = c.Valid[:n]
}

// Size is about how many bytes the values take.
func (c *Column) Size() int {
	n := len(c.Valid) + 8*len(c.Ints) + 8*len(c.Floats) + 16*len(c.Decimals) + len(c.Data) + 4*len(c.Ends)
	for _, child := range c.Children {
		n += child.Size()
	}
	return n
}

// Room is about how many bytes of memory the buffers hold, used or not.
func (c *Column) Room() int {
	n := cap(c.Valid) + 8*cap(c.Ints) + 8*cap(c.Floats) + 16*cap(c.Decimals) + cap(c.Data) + 4*cap(c.Ends)
	for _, child := range c.Children {
		n += child.Room()
	}
	return n
}

// Batch is some rows.
type Batch struct {
	Fields  []hive.Field
	Columns []*Column
	Rows    int
}

// NewBatch makes an empty batch of a table's columns.
func NewBatch(fields []hive.Field) *Batch {
	b := &Batch{Fields: fields}
	for _, f := range fields {
		b.Columns = append(b.Columns, New(f.Type))
	}
	return b
}

// EndRow ends a row: columns it did not name get a null.
func (b *Batch) EndRow() {
	b.Rows++
	for _, c := range b.Columns {
		if c.Len() < b.Rows {
			c.AppendNull()
		}
	}
}

// Truncate keeps the first n rows, and takes back a row that was begun.
func (b *Batch) Truncate(n int) {
	b.Rows = n
	for _, c := range b.Columns {
		c.Truncate(n)
	}
}

// Size is about how many bytes the rows take.
func (b *Batch) Size() int {
	n := 0
	for _, c := range b.Columns {
		n += c.Size()
	}
	return n
}

// Room is about how many bytes of memory the batch holds, used or not.
func (b *Batch) Room() int {
	n := 0
	for _, c := range b.Columns {
		n += c.Room()
	}
	return n
}

// Equal compares two values of a column that is not nested.
func (c *Column) Equal(i, j int) bool {
	if c.Valid[i] != c.Valid[j] {
		return false
	}
	switch {
	case c.Ends != nil:
		return string(c.Bytes(i)) == string(c.Bytes(j))
	case c.Floats != nil:
		return c.Floats[i] == c.Floats[j]
	case c.Decimals != nil:
		return c.Decimals[i] == c.Decimals[j]
	}
	return c.Ints[i] == c.Ints[j]
}

// Image is a value of a column that is not nested, as bytes that are equal where
// values are.
func (c *Column) Image(i int) []byte {
	switch {
	case c.Ends != nil:
		return c.Bytes(i)
	case c.Floats != nil:
		return binary.LittleEndian.AppendUint64(nil, math.Float64bits(c.Floats[i]))
	case c.Decimals != nil:
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, c.Decimals[i].Lo), uint64(c.Decimals[i].Hi))
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(c.Ints[i]))
}

// AppendFrom appends value i of a column of the same type.
func (c *Column) AppendFrom(from *Column, i int) {
	if !from.Valid[i] {
		c.AppendNull()
		return
	}
	switch c.Type.Kind {
	case hive.Float, hive.Double:
		c.AppendFloat(from.Floats[i])
	case hive.Decimal:
		c.AppendDecimal(from.Decimals[i])
	case hive.String, hive.Char, hive.Varchar, hive.Binary:
		c.AppendBytes(from.Bytes(i))
	case hive.Array, hive.Map:
		for j := from.Start(i); j < from.Ends[i]; j++ {
			for k, child := range c.Children {
				child.AppendFrom(from.Children[k], int(j))
			}
		}
		c.EndList()
	case hive.Struct:
		for k, child := range c.Children {
			child.AppendFrom(from.Children[k], i)
		}
		c.EndStruct()
	default:
		c.AppendInt(from.Ints[i])
	}
}
