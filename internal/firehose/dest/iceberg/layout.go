package iceberg

import (
	"fmt"
	"reflect"

	"github.com/apache/iceberg-go"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"
)

// group is a group whose members keep their order; that of the library sorts
// them by name.
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

// group makes the nodes of a struct's fields below n.
func (n *node) group(fields []iceberg.NestedField, leaves *[]*node) *group {
	g := &group{of: plainGroup}
	for _, f := range fields {
		if !writable(f.Type) {
			n.children = append(n.children, &node{absent: true})
			continue
		}
		g.add(f.Name, n.child(f.ID, f.Type, f.Required, n.lists, leaves))
	}
	return g
}

// child makes a node below n, as a file has it: by its field id.
func (n *node) child(id int, t iceberg.Type, required bool, lists int, leaves *[]*node) parquet.Node {
	c := &node{id: id, typ: t, required: required, lists: lists}
	n.children = append(n.children, c)
	var p parquet.Node
	switch t := t.(type) {
	case *iceberg.StructType:
		p = c.group(t.FieldList, leaves)
	case *iceberg.ListType:
		entry := &group{of: plainGroup}
		entry.add("element", c.child(t.ElementID, t.Element, t.ElementRequired, lists+1, leaves))
		list := &group{of: listGroup}
		list.add("list", parquet.Repeated(entry))
		p = list
	case *iceberg.MapType:
		entry := &group{of: plainGroup}
		entry.add("key", c.child(t.KeyID, t.KeyType, true, lists+1, leaves))
		entry.add("value", c.child(t.ValueID, t.ValueType, t.ValueRequired, lists+1, leaves))
		m := &group{of: mapGroup}
		m.add("key_value", parquet.Repeated(entry))
		p = m
	default:
		*leaves = append(*leaves, c)
		p = scalar(t)
		if p.Type().Kind() == parquet.Boolean {
			p = parquet.Encoded(p, &parquet.Plain)
		} else {
			p = parquet.Encoded(p, &parquet.RLEDictionary)
		}
	}
	if required {
		p = parquet.Required(p)
	} else {
		p = parquet.Optional(p)
	}
	return parquet.FieldID(p, id)
}

// writable says that values of a type can be made. Columns of other types are
// not in the files, which readers take for nulls.
func writable(t iceberg.Type) bool {
	switch t := t.(type) {
	case *iceberg.StructType:
		for _, f := range t.FieldList {
			if writable(f.Type) {
				return true
			}
		}
		return false
	case *iceberg.ListType:
		return writable(t.Element)
	case *iceberg.MapType:
		return writable(t.KeyType) && writable(t.ValueType)
	}
	return scalar(t) != nil
}

// scalar is the node of a plain value; nil for types that no value can be made
// of.
func scalar(t iceberg.Type) parquet.Node {
	switch t := t.(type) {
	case iceberg.BooleanType:
		return parquet.Leaf(parquet.BooleanType)
	case iceberg.Int32Type:
		return parquet.Leaf(parquet.Int32Type)
	case iceberg.Int64Type:
		return parquet.Leaf(parquet.Int64Type)
	case iceberg.Float32Type:
		return parquet.Leaf(parquet.FloatType)
	case iceberg.Float64Type:
		return parquet.Leaf(parquet.DoubleType)
	case iceberg.DecimalType:
		switch p := t.Precision(); {
		case p <= maxDigits32:
			return parquet.Decimal(t.Scale(), p, parquet.Int32Type)
		case p <= maxDigits64:
			return parquet.Decimal(t.Scale(), p, parquet.Int64Type)
		default:
			return parquet.Decimal(t.Scale(), p, parquet.FixedLenByteArrayType(decimalWidth(p)))
		}
	case iceberg.DateType:
		return parquet.Date()
	case iceberg.TimeType:
		return parquet.TimeAdjusted(parquet.Microsecond, false)
	case iceberg.TimestampType:
		return parquet.TimestampAdjusted(parquet.Microsecond, false)
	case iceberg.TimestampTzType:
		return parquet.TimestampAdjusted(parquet.Microsecond, true)
	case iceberg.TimestampNsType:
		return parquet.TimestampAdjusted(parquet.Nanosecond, false)
	case iceberg.TimestampTzNsType:
		return parquet.TimestampAdjusted(parquet.Nanosecond, true)
	case iceberg.UUIDType:
		return parquet.UUID()
	case iceberg.FixedType:
		return parquet.Leaf(parquet.FixedLenByteArrayType(t.Len()))
	case iceberg.StringType:
		return parquet.String()
	case iceberg.BinaryType:
		return parquet.Leaf(parquet.ByteArrayType)
	}
	return nil
}
