// Package parquet writes rows as Parquet files.
//
// The one idea: parquet-go does the format, this package brings the values to it
// column by column. Column buffers are cut into the values and levels of leaves
// (schema.go knows the way to each), pages are encoded and compressed as they
// fill, and a row group leaves once its pages take maxRowGroupBytes, however
// large the configured block is: memory stays bounded, and readers have more row
// groups to share.
package parquet

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// Compression of pages.
type Compression string

// The codecs.
const (
	Uncompressed Compression = "UNCOMPRESSED"
	GZIP         Compression = "GZIP"
	Snappy       Compression = "SNAPPY"
)

// Timestamps is how timestamps are stored.
type Timestamps uint8

// INT96 is what Hive writes; microseconds are what newer readers prefer.
const (
	TimestampINT96 Timestamps = iota
	TimestampMicros
)

// Options of files. The zero value is the service's defaults.
type Options struct {
	// BlockBytes is about how large row groups get; 256 MiB if zero. They are
	// smaller where memory demands it.
	BlockBytes int64
	// PageBytes is about how large pages get before compression; 1 MiB if zero.
	PageBytes   int
	Compression Compression // Snappy if empty
	// Dictionary encodes columns of few different values with a dictionary; a
	// column whose dictionary outgrows a page goes on without.
	Dictionary bool
	// DataPageVersion is 1 or 2; 1 if zero.
	DataPageVersion int
	Timestamps      Timestamps
	// MemoryBytes bounds row groups further, and half of it the pages being filled;
	// as much as there may be if zero.
	MemoryBytes int64
}

const (
	defaultBlockBytes = 256 << 20
	defaultPageBytes  = 1 << 20
	// maxRowGroupBytes bounds the pages that wait for their row group's end.
	maxRowGroupBytes = 24 << 20
	minPageBytes     = 8 << 10
	// sliceRows is how many rows are handed over at a time: pages end between.
	sliceRows = 1024
)

var buffers = parquet.NewChunkBufferPool(16 << 10)

// Writer writes one file.
type Writer struct {
	out     *parquet.Writer
	columns []*parquet.ColumnWriter
	layout  *layout
	micros  bool

	limit int64 // bytes of a row group
	began int64 // where the row group began, in out's count

	values []parquet.Value // scratch
	fixed  []byte          // bytes of values of fixed length
}

// New begins a file of the given columns. Nothing is written before the first
// row group is full.
func New(w io.Writer, fields []hive.Field, o *Options) (*Writer, error) {
	var codec compress.Codec = &parquet.Snappy
	switch o.Compression {
	case Uncompressed:
		codec = &parquet.Uncompressed
	case GZIP:
		codec = &parquet.Gzip
	case Snappy, "":
	default:
		return nil, fmt.Errorf("parquet: unknown compression %q", o.Compression)
	}
	encode := func(n parquet.Node) parquet.Node { return parquet.Encoded(n, &parquet.Plain) }
	if o.Dictionary {
		encode = func(n parquet.Node) parquet.Node {
			if n.Type().Kind() == parquet.Boolean {
				return parquet.Encoded(n, &parquet.Plain)
			}
			return parquet.Encoded(n, &parquet.RLEDictionary)
		}
	}
	p := &Writer{layout: newLayout(fields, o, encode), micros: o.Timestamps == TimestampMicros}
	page := o.PageBytes
	if page <= 0 {
		page = defaultPageBytes
	}
	memory := int64(maxRowGroupBytes)
	if o.MemoryBytes > 0 {
		memory = min(memory, o.MemoryBytes)
	}
	page = max(minPageBytes, min(page, int(memory/2)/max(1, len(p.layout.leaves))))
	p.limit = o.BlockBytes
	if p.limit <= 0 {
		p.limit = defaultBlockBytes
	}
	p.limit = min(p.limit, memory)
	version := o.DataPageVersion
	if version == 0 {
		version = 1
	}
	options := []parquet.WriterOption{
		p.layout.schema,
		parquet.Compression(codec),
		parquet.PageBufferSize(page),
		parquet.WriteBufferSize(0),
		parquet.DataPageVersion(version),
		parquet.DictionaryMaxBytes(int64(page)),
		parquet.ColumnPageBuffers(buffers),
		parquet.CreatedBy("millrace", "1", "delivery"),
		// Bounds in the headers of pages would be as long as the values, four times
		// over; the column index has them cut.
		parquet.DataPageStatistics(false),
	}
	for _, path := range p.layout.blobs {
		options = append(options, parquet.SkipPageBounds(path...))
	}
	p.out = parquet.NewWriter(w, options...)
	p.columns = p.out.ColumnWriters()
	if len(p.columns) != len(p.layout.leaves) {
		return nil, fmt.Errorf("parquet: %d columns for %d leaves", len(p.columns), len(p.layout.leaves))
	}
	return p, nil
}

// Write adds rows.
func (p *Writer) Write(b *column.Batch) error {
	for from := 0; from < b.Rows; from += sliceRows {
		to := min(from+sliceRows, b.Rows)
		for i := range p.layout.leaves {
			l := &p.layout.leaves[i]
			p.values, p.fixed = p.values[:0], p.fixed[:0]
			if c := b.Columns[l.column]; len(l.path) == 0 {
				p.flat(l, c, from, to)
			} else {
				for row := from; row < to; row++ {
					p.nested(l, c, row, 0, 0, 0, 0)
				}
			}
			if _, err := p.columns[i].WriteRowValues(p.values); err != nil {
				return fmt.Errorf("parquet: %w", err)
			}
		}
		if p.out.Size()-p.began >= p.limit {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Writer) flush() error {
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	p.began = p.out.Size()
	return nil
}

// Close writes what is left, and the footer.
func (p *Writer) Close() error {
	if err := p.out.Close(); err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	return nil
}

// flat appends the values of a column that is not nested. The library takes the
// column from the writer, so that values carry their levels only.
func (p *Writer) flat(l *leaf, c *column.Column, from, to int) {
	p.values = slices.Grow(p.values, to-from)[:to-from]
	values, valid := p.values, c.Valid[from:to]
	values = values[:len(valid)]
	clear(values)
	switch l.kind {
	case hive.String, hive.Char, hive.Varchar, hive.Binary:
		start := c.Start(from)
		for i, end := range c.Ends[from:to] {
			if valid[i] {
				values[i] = parquet.ByteArrayValue(c.Data[start:end])
				values[i].SetDefinitionLevel(1)
			}
			start = end
		}
	case hive.TinyInt, hive.SmallInt, hive.Int, hive.Date:
		for i, v := range c.Ints[from:to] {
			if valid[i] {
				values[i] = parquet.Int32Value(int32(v))
				values[i].SetDefinitionLevel(1)
			}
		}
	case hive.BigInt:
		for i, v := range c.Ints[from:to] {
			if valid[i] {
				values[i] = parquet.Int64Value(v)
				values[i].SetDefinitionLevel(1)
			}
		}
	case hive.Float:
		for i, v := range c.Floats[from:to] {
			if valid[i] {
				values[i] = parquet.FloatValue(float32(v))
				values[i].SetDefinitionLevel(1)
			}
		}
	case hive.Double:
		for i, v := range c.Floats[from:to] {
			if valid[i] {
				values[i] = parquet.DoubleValue(v)
				values[i].SetDefinitionLevel(1)
			}
		}
	default:
		for i := range values {
			if valid[i] {
				values[i] = p.value(l, c, from+i)
				values[i].SetDefinitionLevel(1)
			}
		}
	}
}

// nested appends what value i of c, at the given depth of the leaf's path, means
// for the leaf. rep is the repetition level of the first value; lists is how many
// repeated groups the way has passed.
func (p *Writer) nested(l *leaf, c *column.Column, i, depth, rep, def, lists int) {
	if !l.required[depth] {
		if !c.Valid[i] {
			p.append(parquet.Value{}, rep, def)
			return
		}
		def++
	}
	if depth == len(l.path) {
		p.append(p.value(l, c, i), rep, def)
		return
	}
	child := c.Children[l.path[depth]]
	if c.Type.Kind == hive.Struct {
		p.nested(l, child, i, depth+1, rep, def, lists)
		return
	}
	start, end := int(c.Start(i)), int(c.Ends[i])
	if start == end {
		p.append(parquet.Value{}, rep, def)
		return
	}
	lists++
	for j := start; j < end; j++ {
		p.nested(l, child, j, depth+1, rep, def+1, lists)
		rep = lists
	}
}

func (p *Writer) append(v parquet.Value, rep, def int) {
	v.SetRepetitionLevel(rep)
	v.SetDefinitionLevel(def)
	p.values = append(p.values, v)
}

// value is value i of a leaf.
func (p *Writer) value(l *leaf, c *column.Column, i int) parquet.Value {
	switch l.kind {
	case hive.Boolean:
		return parquet.BooleanValue(c.Ints[i] != 0)
	case hive.BigInt:
		return parquet.Int64Value(c.Ints[i])
	case hive.Float:
		return parquet.FloatValue(float32(c.Floats[i]))
	case hive.Double:
		return parquet.DoubleValue(c.Floats[i])
	case hive.Decimal:
		return parquet.FixedLenByteArrayValue(p.decimal(c.Decimals[i], l.width))
	case hive.Timestamp:
		if p.micros {
			return parquet.Int64Value(floorDiv(c.Ints[i], 1000))
		}
		return parquet.FixedLenByteArrayValue(p.int96(c.Ints[i]))
	case hive.String, hive.Char, hive.Varchar, hive.Binary:
		return parquet.ByteArrayValue(c.Bytes(i))
	}
	return parquet.Int32Value(int32(c.Ints[i]))
}

// room is n more bytes for a value of fixed length.
func (p *Writer) room(n int) []byte {
	if len(p.fixed)+n > cap(p.fixed) {
		// Values already made keep pointing into the old piece.
		p.fixed = make([]byte, 0, max(16*sliceRows, 2*cap(p.fixed)))
	}
	p.fixed = p.fixed[:len(p.fixed)+n]
	return p.fixed[len(p.fixed)-n:]
}

// decimal is a number in big-endian two's complement.
func (p *Writer) decimal(v column.Int128, width int) []byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(v.Hi))
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	out := p.room(width)
	copy(out, b[16-width:])
	return out
}

const (
	nanosPerDay   = 24 * 3600 * 1e9
	julianOf1970  = 2440588
	timestampSize = 12
)

// int96 is a timestamp as Hive stores it: nanoseconds of the day, and the Julian
// day. The value's bytes stand for a number of 96 bits; parquet-go takes such
// values as plain bytes, and would allocate for each otherwise.
func (p *Writer) int96(nanos int64) []byte {
	day := floorDiv(nanos, nanosPerDay)
	out := p.room(timestampSize)
	binary.LittleEndian.PutUint64(out, uint64(nanos-day*nanosPerDay))
	binary.LittleEndian.PutUint32(out[8:], uint32(day+julianOf1970))
	return out
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}
