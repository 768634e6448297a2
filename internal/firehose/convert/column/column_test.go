package column

import (
	"reflect"
	"testing"

	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// row appends a row of every kind, with what n makes of it.
func row(b *Batch, n int) {
	var fill func(c *Column, n int)
	fill = func(c *Column, n int) {
		switch c.Type.Kind {
		case hive.Float, hive.Double:
			c.AppendFloat(float64(n))
		case hive.Decimal:
			c.AppendDecimal(Int128{Lo: uint64(n)})
		case hive.String, hive.Char, hive.Varchar, hive.Binary:
			c.AppendBytes([]byte{byte(n), byte(n)})
		case hive.Array, hive.Map:
			for i := range n {
				for _, child := range c.Children {
					fill(child, i)
				}
			}
			c.EndList()
		case hive.Struct:
			for _, child := range c.Children {
				fill(child, n)
			}
			c.EndStruct()
		default:
			c.AppendInt(int64(n))
		}
	}
	for _, c := range b.Columns {
		fill(c, n)
	}
	b.EndRow()
}

func fields(t *testing.T) []hive.Field {
	t.Helper()
	parsed, err := hive.Parse("struct<a:boolean,b:bigint,c:double,d:decimal(9,2),e:string,f:binary,g:date,h:timestamp,i:array<array<int>>,j:map<string,struct<x:int,y:array<string>>>,k:struct<x:float,y:map<int,int>>>")
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Fields
}

// contents are the batch's values without the room behind them.
func contents(b *Batch) any {
	var of func(c *Column) any
	of = func(c *Column) any {
		out := []any{append([]bool{}, c.Valid...), append([]int64{}, c.Ints...), append([]float64{}, c.Floats...), append([]Int128{}, c.Decimals...),
			append([]byte{}, c.Data...), append([]uint32{}, c.Ends...)}
		for _, child := range c.Children {
			out = append(out, of(child))
		}
		return out
	}
	var all []any
	for _, c := range b.Columns {
		all = append(all, of(c))
	}
	return append(all, b.Rows)
}

// TestTruncateTakesBackWhatWasBegun cuts a batch at every row, with another row
// half-way begun, and compares with a batch that never had more.
func TestTruncateTakesBackWhatWasBegun(t *testing.T) {
	list := fields(t)
	for n := range 6 {
		want, got := NewBatch(list), NewBatch(list)
		for i := range n {
			row(want, i)
			row(got, i)
		}
		for i := range 3 {
			row(got, 7+i)
		}
		// A row that ends in the middle of nested values.
		got.Columns[4].Data = append(got.Columns[4].Data, "begun"...)
		got.Columns[8].Children[0].Children[0].AppendInt(1)
		got.Columns[9].Children[0].AppendBytes([]byte("key"))
		got.Columns[9].Children[1].Children[1].Children[0].AppendBytes([]byte("x"))
		got.Columns[10].Children[0].AppendFloat(1)
		got.Truncate(n)
		if !reflect.DeepEqual(contents(got), contents(want)) {
			t.Errorf("%d rows are not what they were", n)
		}
	}
}

func TestAppendFromCopies(t *testing.T) {
	list := fields(t)
	from, to := NewBatch(list), NewBatch(list)
	for i := range 5 {
		row(from, i)
		from.EndRow() // of nulls
	}
	for i := range from.Rows {
		for j, c := range to.Columns {
			c.AppendFrom(from.Columns[j], i)
		}
		to.EndRow()
	}
	if !reflect.DeepEqual(contents(to), contents(from)) {
		t.Error("the copy differs")
	}
	for _, c := range from.Columns[:8] {
		if !c.Equal(0, 0) || c.Equal(0, 1) || !c.Equal(1, 3) || string(c.Image(0)) == string(c.Image(2)) || c.Valid[1] {
			t.Errorf("%s: equality", c.Type)
		}
	}
	if from.Size() == 0 || from.Room() < from.Size() {
		t.Errorf("%d bytes in room for %d", from.Size(), from.Room())
	}
}
