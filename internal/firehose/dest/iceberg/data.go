package iceberg

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// Bounds of files in the making. Pages and finished pages of a row group wait in
// memory; a file of a partition that is closed early has another one after it.
const (
	maxRowGroupBytes = 24 << 20
	maxPageBytes     = 1 << 20
	minPageBytes     = 8 << 10
	maxOpenFiles     = 32
	sliceRows        = 512     // rows between looks at the sizes
	sliceBytes       = 4 << 20 // of the values of those rows, about
)

// outputs are the files that rows go to, one a partition.
type outputs struct {
	c       *change
	content iceberg.ManifestEntryContent
	columns []iceberg.NestedField
	fields  []iceberg.PartitionField
	sources [][]int // ways to the sources of the partition fields; nil for none
	types   []iceberg.Type
	codec   compress.Codec

	open map[string]*output
	list []*output // those that are open, the oldest first
	done []iceberg.DataFile
	key  []byte
}

// store writes rows as files.
func (c *change) store(content iceberg.ManifestEntryContent, columns []iceberg.NestedField, rows func(func(row []any) error) error) ([]iceberg.DataFile, error) {
	o := &outputs{c: c, content: content, columns: columns, open: map[string]*output{}, codec: c.codec(content)}
	for _, f := range c.table.meta.spec.Fields() {
		way, t := find(columns, f.SourceID())
		if _, void := f.Transform.(iceberg.VoidTransform); way == nil && !void {
			return nil, fmt.Errorf("partition field %s has no column", f.Name)
		}
		o.fields, o.sources, o.types = append(o.fields, f), append(o.sources, way), append(o.types, t)
	}
	err := rows(o.add)
	for err == nil && len(o.list) > 0 {
		err = o.close(o.list[0])
	}
	for _, f := range o.list {
		f.out.abandon()
	}
	return o.done, err
}

// find is the way to a column through structs.
func find(columns []iceberg.NestedField, id int) ([]int, iceberg.Type) {
	for i, f := range columns {
		if f.ID == id {
			return []int{i}, f.Type
		}
		if s, ok := f.Type.(*iceberg.StructType); ok {
			if way, t := find(s.FieldList, id); way != nil {
				return append([]int{i}, way...), t
			}
		}
	}
	return nil, nil
}

// codec is how pages are compressed, as the table wants it.
func (c *change) codec(content iceberg.ManifestEntryContent) compress.Codec {
	name := c.table.meta.property("write.parquet.compression-codec", "zstd")
	if content != iceberg.EntryContentData {
		name = c.table.meta.property("write.delete.parquet.compression-codec", name)
	}
	switch name {
	case "uncompressed":
		return &parquet.Uncompressed
	case "snappy":
		return &parquet.Snappy
	case "gzip":
		return &parquet.Gzip
	}
	return pages
}

// pages compresses by default.
var pages = &zstd.Codec{Level: zstd.SpeedFastest, Concurrency: 1}

// tuple is the values of a partition as the library looks at them.
type tuple []any

func (t tuple) Size() int          { return len(t) }
func (t tuple) Get(i int) any      { return t[i] }
func (t tuple) Set(i int, val any) { t[i] = val }

// add writes a row to the file of its partition.
func (o *outputs) add(row []any) error {
	o.key = o.key[:0]
	var values tuple
	for i := range o.fields {
		f := &o.fields[i]
		var v any
		if way := o.sources[i]; way != nil {
			v = any(structValue(row))
			for _, step := range way {
				if s, ok := v.(structValue); ok {
					v = s[step]
				}
			}
		}
		var image []byte
		if v != nil {
			literal, err := iceberg.LiteralFromBytes(o.types[i], single(o.types[i], v))
			if err != nil {
				return fmt.Errorf("partition field %s: %w", f.Name, err)
			}
			v = nil
			if made := f.Transform.Apply(iceberg.Optional[iceberg.Literal]{Val: literal, Valid: true}); made.Valid {
				v = made.Val.Any()
				if image, err = made.Val.MarshalBinary(); err != nil {
					return fmt.Errorf("partition field %s: %w", f.Name, err)
				}
			}
		}
		values = append(values, v)
		if v == nil {
			o.key = append(o.key, 0)
			continue
		}
		o.key = append(binary.AppendUvarint(append(o.key, 1), uint64(len(image))), image...)
	}
	f := o.open[string(o.key)]
	if f == nil {
		if len(o.list) == maxOpenFiles {
			if err := o.close(o.list[0]); err != nil {
				return err
			}
		}
		var err error
		if f, err = o.begin(string(o.key), values); err != nil {
			return err
		}
	}
	return f.add(row)
}

// output is one file in the making.
type output struct {
	key       string
	partition tuple
	address   string
	out       *writer
	parquet   *parquet.Writer
	columns   []*parquet.ColumnWriter
	root      *node
	leaves    []*node
	rows      int64
	waiting   int // rows whose values are with the leaves
	bytes     int // of those
	began     int64
}

// begin opens a file.
func (o *outputs) begin(key string, partition tuple) (*output, error) {
	f := &output{key: key, partition: partition}
	f.address = o.c.table.meta.dataPath() + "/"
	if spec := o.c.table.meta.spec; spec.NumFields() > 0 {
		f.address += spec.PartitionToPath(partition, o.c.schema) + "/"
	}
	f.address += uuid.NewString() + ".parquet"
	f.root = &node{required: true}
	group := f.root.group(o.columns, &f.leaves)
	schema, err := json.Marshal(o.c.schema)
	if err != nil {
		return nil, err
	}
	if f.out, err = o.c.files.create(f.address); err != nil {
		return nil, err
	}
	page := max(minPageBytes, min(maxPageBytes, maxRowGroupBytes/2/max(1, len(f.leaves))))
	f.parquet = parquet.NewWriter(f.out, parquet.NewSchema("table", group),
		parquet.Compression(o.codec), parquet.PageBufferSize(page), parquet.WriteBufferSize(0), parquet.DataPageVersion(1),
		parquet.DictionaryMaxBytes(int64(page)), parquet.ColumnPageBuffers(buffers), parquet.CreatedBy("millrace", "1", "delivery"),
		parquet.DataPageStatistics(false), parquet.KeyValueMetadata("iceberg.schema", string(schema)))
	f.columns = f.parquet.ColumnWriters()
	if len(f.columns) != len(f.leaves) {
		f.out.abandon()
		return nil, fmt.Errorf("parquet: %d columns for %d leaves", len(f.columns), len(f.leaves))
	}
	o.open[key], o.list = f, append(o.list, f)
	return f, nil
}

var buffers = parquet.NewChunkBufferPool(16 << 10)

// add takes a row.
func (f *output) add(row []any) error {
	for i, n := range f.root.children {
		f.bytes += n.put(row[i], 0, 0)
	}
	f.rows++
	if f.waiting++; f.waiting < sliceRows && f.bytes < sliceBytes {
		return nil
	}
	return f.slice()
}

// slice hands the values that wait to the format.
func (f *output) slice() error {
	f.waiting, f.bytes = 0, 0
	for i, n := range f.leaves {
		_, err := f.columns[i].WriteRowValues(n.values)
		if err != nil {
			return fmt.Errorf("parquet: %w", err)
		}
		clear(n.values) // lets go of the records
		n.values = n.values[:0]
	}
	if f.parquet.Size()-f.began < maxRowGroupBytes {
		return nil
	}
	if err := f.parquet.Flush(); err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	f.began = f.parquet.Size()
	return nil
}

// close ends a file and notes it.
func (o *outputs) close(f *output) error {
	if err := f.slice(); err != nil {
		return err
	}
	if err := f.parquet.Close(); err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	if err := f.out.Close(); err != nil {
		return err
	}
	delete(o.open, f.key)
	for i := range o.list {
		if o.list[i] == f {
			o.list = append(o.list[:i], o.list[i+1:]...)
			break
		}
	}
	spec := o.c.table.meta.spec
	partition := map[int]any{}
	for i := range o.fields {
		partition[o.fields[i].FieldID] = f.partition[i]
	}
	b, err := iceberg.NewDataFileBuilder(spec, o.content, f.address, iceberg.ParquetFile, partition, nil, nil, f.rows, f.out.size)
	if err != nil {
		return err
	}
	sizes, counts, nulls, nans := map[int]int64{}, map[int]int64{}, map[int]int64{}, map[int]int64{}
	lower, upper := map[int][]byte{}, map[int][]byte{}
	var splits []int64
	for _, g := range f.parquet.File().Metadata().RowGroups {
		for i, chunk := range g.Columns {
			sizes[f.leaves[i].id] += chunk.MetaData.TotalCompressedSize
			if i == 0 {
				start := chunk.MetaData.DataPageOffset
				if d := chunk.MetaData.DictionaryPageOffset; d > 0 && d < start {
					start = d
				}
				splits = append(splits, start)
			}
		}
	}
	for _, n := range f.leaves {
		if n.lists > 0 {
			continue
		}
		counts[n.id], nulls[n.id] = n.count, n.nulls
		switch n.typ.(type) {
		case iceberg.Float32Type, iceberg.Float64Type:
			nans[n.id] = n.nans
		}
		if low, high, ok := n.bounds(); ok {
			lower[n.id] = low
			if high != nil {
				upper[n.id] = high
			}
		}
	}
	b.ColumnSizes(sizes).ValueCounts(counts).NullValueCounts(nulls).NaNValueCounts(nans).LowerBoundValues(lower).UpperBoundValues(upper).SplitOffsets(splits)
	if o.content == iceberg.EntryContentEqDeletes {
		var ids []int
		for _, f := range o.columns {
			ids = append(ids, f.ID)
		}
		b.EqualityFieldIDs(ids)
	}
	o.done = append(o.done, b.Build())
	return nil
}

// node is a column in a file, or what is nested in one.
type node struct {
	id       int
	typ      iceberg.Type
	required bool
	absent   bool // from files, for nothing can be written to it
	lists    int  // repeated groups on the way
	children []*node

	// Of a leaf only:
	values       []parquet.Value // those that wait
	count, nulls int64
	nans         int64
	low, high    any // nil if there is no value
}

// put appends a value and answers about how many bytes it takes. rep is the
// repetition level of the first value below, def the definition level of what is
// around it.
func (n *node) put(v any, rep, def int) int {
	if n.absent {
		return 0
	}
	if v == nil {
		return n.none(rep, def)
	}
	if !n.required {
		def++
	}
	switch v := v.(type) {
	case structValue:
		size := 0
		for i, c := range n.children {
			size += c.put(v[i], rep, def)
		}
		return size
	case listValue:
		if len(v) == 0 {
			return n.none(rep, def)
		}
		size, element := 0, n.children[0]
		for _, e := range v {
			size += element.put(e, rep, def+1)
			rep = n.lists + 1
		}
		return size
	case mapValue:
		if len(v.keys) == 0 {
			return n.none(rep, def)
		}
		size := 0
		for i := range v.keys {
			size += n.children[0].put(v.keys[i], rep, def+1) + n.children[1].put(v.values[i], rep, def+1)
			rep = n.lists + 1
		}
		return size
	}
	return n.append(v, rep, def)
}

// valueBytes is what a value takes by itself.
const valueBytes = 24

// none says in all leaves below that there is no value.
func (n *node) none(rep, def int) int {
	if n.absent {
		return 0
	}
	if len(n.children) > 0 {
		size := 0
		for _, c := range n.children {
			size += c.none(rep, def)
		}
		return size
	}
	var v parquet.Value
	v.SetRepetitionLevel(rep)
	v.SetDefinitionLevel(def)
	n.values = append(n.values, v)
	n.count++
	n.nulls++
	return valueBytes
}

// append adds a leaf's value.
func (n *node) append(v any, rep, def int) int {
	var p parquet.Value
	size := valueBytes
	switch v := v.(type) {
	case bool:
		p = parquet.BooleanValue(v)
	case int32:
		p = parquet.Int32Value(v)
	case int64:
		p = parquet.Int64Value(v)
	case float32:
		p = parquet.FloatValue(v)
	case float64:
		p = parquet.DoubleValue(v)
	case string:
		p = parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(v), len(v))) // only ever read
		size += len(v)
	case []byte:
		if _, variable := n.typ.(iceberg.BinaryType); variable {
			p = parquet.ByteArrayValue(v)
		} else {
			p = parquet.FixedLenByteArrayValue(v)
		}
		size += len(v)
	case *big.Int:
		switch t := n.typ.(iceberg.DecimalType); {
		case t.Precision() <= maxDigits32:
			p = parquet.Int32Value(int32(v.Int64()))
		case t.Precision() <= maxDigits64:
			p = parquet.Int64Value(v.Int64())
		default:
			p = parquet.FixedLenByteArrayValue(complement(v, decimalWidth(t.Precision())))
		}
	}
	p.SetRepetitionLevel(rep)
	p.SetDefinitionLevel(def)
	n.values = append(n.values, p)
	n.count++
	if n.lists == 0 {
		n.widen(v)
	}
	return size
}

// widen lets the bounds include a value.
func (n *node) widen(v any) {
	switch f := v.(type) {
	case float32:
		if f != f {
			n.nans++
			return
		}
	case float64:
		if f != f {
			n.nans++
			return
		}
	}
	if n.low == nil {
		n.low, n.high = v, v
		return
	}
	if less(v, n.low) {
		n.low = v
	} else if less(n.high, v) {
		n.high = v
	}
}

// less compares two values of a column.
func less(a, b any) bool {
	switch a := a.(type) {
	case bool:
		return !a && b.(bool)
	case int32:
		return a < b.(int32)
	case int64:
		return a < b.(int64)
	case float32:
		return a < b.(float32)
	case float64:
		return a < b.(float64)
	case string:
		return a < b.(string)
	case []byte:
		return bytes.Compare(a, b.([]byte)) < 0
	case *big.Int:
		return a.Cmp(b.(*big.Int)) < 0
	}
	return false
}

// maxBound is how many characters or bytes of a bound are kept.
const maxBound = 16

// bounds are what no value is below or above, in the form of metadata; high is
// nil if there is no short one.
func (n *node) bounds() (low, high []byte, ok bool) {
	if n.low == nil {
		return nil, nil, false
	}
	switch n.typ.(type) {
	case iceberg.StringType:
		l, h := n.low.(string), n.high.(string)
		return []byte(l[:cut(l)]), above(h), true
	case iceberg.BinaryType:
		l, h := n.low.([]byte), n.high.([]byte)
		low, high = l[:min(len(l), maxBound)], h
		if len(h) > maxBound {
			high = nil
			for i := maxBound - 1; i >= 0 && high == nil; i-- {
				if h[i] < 0xff {
					high = append(bytes.Clone(h[:i]), h[i]+1)
				}
			}
		}
		return low, high, true
	case iceberg.Float32Type, iceberg.Float64Type:
		// Zeros are equal and have two forms: bounds take the outer ones.
		l, h := single(n.typ, n.low), single(n.typ, n.high)
		sign := len(l) - 1
		if bytes.Equal(l[:sign], make([]byte, sign)) && l[sign] == 0 {
			l[sign] = 0x80
		}
		if bytes.Equal(h[:sign], make([]byte, sign)) && h[sign] == 0x80 {
			h[sign] = 0
		}
		return l, h, true
	}
	return single(n.typ, n.low), single(n.typ, n.high), true
}

// cut is where the part of a text ends that a bound keeps.
func cut(s string) int {
	count := 0
	for i := range s {
		if count == maxBound {
			return i
		}
		count++
	}
	return len(s)
}

// above is a short text that is not below s; nil if there is none.
func above(s string) []byte {
	end := cut(s)
	if end == len(s) {
		return []byte(s)
	}
	short := []rune(s[:end])
	for i := len(short) - 1; i >= 0; i-- {
		next := short[i] + 1
		if next == 0xd800 { // no characters
			next = 0xe000
		}
		if next <= utf8.MaxRune {
			return []byte(string(append(short[:i:i], next)))
		}
	}
	return nil
}

// single is a value in the form that metadata has for it.
func single(t iceberg.Type, v any) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return []byte{1}
		}
		return []byte{0}
	case int32:
		return binary.LittleEndian.AppendUint32(nil, uint32(v))
	case int64:
		return binary.LittleEndian.AppendUint64(nil, uint64(v))
	case float32:
		return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v))
	case float64:
		return binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))
	case string:
		return []byte(v)
	case []byte:
		return v
	case *big.Int:
		return complement(v, v.BitLen()/8+1)
	}
	panic(fmt.Sprintf("iceberg: %T is no value of type %s", v, t))
}

// complement is a number in big-endian two's complement.
func complement(v *big.Int, width int) []byte {
	if v.Sign() < 0 {
		v = new(big.Int).Add(v, new(big.Int).Lsh(big.NewInt(1), uint(8*width)))
	}
	return v.FillBytes(make([]byte, width))
}

// Decimals of few digits are integers in files.
const (
	maxDigits32 = 9
	maxDigits64 = 18
)

// decimalWidth is how many bytes hold every number of so many digits.
func decimalWidth(precision int) int { return ten(precision).BitLen()/8 + 1 }
