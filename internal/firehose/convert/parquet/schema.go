package parquet

import (
	"fmt"
	"reflect"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// group is a group whose members keep their order; the library's own sorts them
// by name, and readers that go by position would meet other columns.
type group struct {
	of     parquet.Type // what the group stands for
	fields []parquet.Field
}

func (g *group) ID() int                            { return 0 }
func (g *group) String() string                     { return fmt.Sprintf("group of %d", len(g.fields)) }
func (g *group) Type() parquet.Type                 { return g.of }
func (g *group) Optional() bool                     { return false }
func (g *group) Repeated() bool                     { return false }
func (g *group) Required() bool                     { return true }
func (g *group) Leaf() bool                         { return false }
func (g *group) Fields() []parquet.Field            { return g.fields }
func (g *group) Encoding() encoding.Encoding        { return nil }
func (g *group) Compression() compress.Codec        { return nil }
func (g *group) GoType() reflect.Type               { return reflect.TypeFor[struct{}]() } // rows are never Go values
func (g *group) add(name string, node parquet.Node) { g.fields = append(g.fields, &field{node, name}) }

// field is a named member.
type field struct {
	parquet.Node
	name string
}

func (f *field) Name() string                           { return f.name }
func (f *field) Value(base reflect.Value) reflect.Value { return base }

var (
	plainGroup = parquet.Group{}.Type()
	listGroup  = parquet.List(parquet.Leaf(parquet.ByteArrayType)).Type()
	mapGroup   = parquet.Map(parquet.String(), parquet.String()).Type()
)

// leaf is a column of the file: the way to it through the table's columns.
type leaf struct {
	column int       // of the batch
	path   []int     // children to take, one a nested type on the way
	names  []string  // in the file
	kind   hive.Kind // of the values
	width  int       // bytes of a decimal
	maxDef int
	// required is set for the keys of maps, which cannot be null.
	required []bool // by depth, the top first
}

// layout is a table's schema as a file has it.
type layout struct {
	schema *parquet.Schema
	leaves []leaf
	blobs  [][]string // paths of columns of bytes, whose bounds say nothing
}

// newLayout lays a table out the way Hive does: everything optional, arrays as
// groups named bag of array_element, maps as groups named key_value.
func newLayout(fields []hive.Field, o *Options, encode func(parquet.Node) parquet.Node) *layout {
	l := &layout{}
	root := &group{of: plainGroup}
	for i, f := range fields {
		root.add(f.Name, l.node(leaf{column: i, names: []string{f.Name}}, f.Type, o, encode, false))
	}
	l.schema = parquet.NewSchema("hive_schema", root)
	return l
}

// node makes a value's node and notes the leaves below it.
func (l *layout) node(at leaf, t *hive.Type, o *Options, encode func(parquet.Node) parquet.Node, required bool) parquet.Node {
	if !required {
		at.maxDef++
	}
	at.required = append(at.required[:len(at.required):len(at.required)], required)
	below := func(child int, names ...string) leaf {
		next := at
		next.names = append(at.names[:len(at.names):len(at.names)], names...)
		next.path = append(at.path[:len(at.path):len(at.path)], child)
		return next
	}
	var n parquet.Node
	switch t.Kind {
	case hive.Array:
		next := below(0, "bag", "array_element")
		next.maxDef++
		bag := &group{of: plainGroup}
		bag.add("array_element", l.node(next, t.Elem, o, encode, false))
		list := &group{of: listGroup}
		list.add("bag", parquet.Repeated(bag))
		n = list
	case hive.Map:
		key, value := below(0, "key_value", "key"), below(1, "key_value", "value")
		key.maxDef++
		value.maxDef++
		entry := &group{of: plainGroup}
		entry.add("key", l.node(key, t.Key, o, encode, true))
		entry.add("value", l.node(value, t.Elem, o, encode, false))
		m := &group{of: mapGroup}
		m.add("key_value", parquet.Repeated(entry))
		n = m
	case hive.Struct:
		g := &group{of: plainGroup}
		for i, f := range t.Fields {
			g.add(f.Name, l.node(below(i, f.Name), f.Type, o, encode, false))
		}
		n = g
	default:
		at.kind = t.Kind
		n = encode(scalar(t, o, &at))
		l.leaves = append(l.leaves, at)
		if t.Kind == hive.Binary {
			l.blobs = append(l.blobs, at.names)
		}
	}
	if required {
		return parquet.Required(n)
	}
	return parquet.Optional(n)
}

// scalar is the node of a plain value.
func scalar(t *hive.Type, o *Options, at *leaf) parquet.Node {
	switch t.Kind {
	case hive.Boolean:
		return parquet.Leaf(parquet.BooleanType)
	case hive.TinyInt:
		return parquet.Int(8)
	case hive.SmallInt:
		return parquet.Int(16)
	case hive.Int:
		return parquet.Leaf(parquet.Int32Type)
	case hive.BigInt:
		return parquet.Leaf(parquet.Int64Type)
	case hive.Float:
		return parquet.Leaf(parquet.FloatType)
	case hive.Double:
		return parquet.Leaf(parquet.DoubleType)
	case hive.Decimal:
		at.width = decimalWidth(t.Precision)
		return parquet.Decimal(t.Scale, t.Precision, parquet.FixedLenByteArrayType(at.width))
	case hive.Date:
		return parquet.Date()
	case hive.Timestamp:
		if o.Timestamps == TimestampMicros {
			return parquet.TimestampAdjusted(parquet.Microsecond, false)
		}
		return parquet.Leaf(parquet.Int96Type)
	case hive.Binary:
		return parquet.Leaf(parquet.ByteArrayType)
	}
	return parquet.String()
}

// decimalWidth is how many bytes hold every number of so many digits.
func decimalWidth(precision int) int {
	// 2^(8n-1) > 10^precision, for 1 to 38 digits.
	widths := [...]int{1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 8, 8, 9, 9, 9, 10, 10, 11, 11, 11, 12, 12, 13, 13, 13, 14, 14, 15, 15, 16, 16, 16}
	return widths[precision-1]
}
