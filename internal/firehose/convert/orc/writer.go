// Package orc writes rows as ORC files, of version 0.12 or 0.11.
//
// The one idea: every column is a handful of streams that grow side by side. A
// row group of RowIndexStride rows notes where it begins in each of them and what
// it holds; a stripe is all streams so far, behind their indexes and before a
// footer that says which is which; the file is stripes, and a footer that says
// where they are:
//
//	"ORC"
//	stripe:  row indexes and Bloom filters │ streams │ stripe footer
//	…
//	metadata (statistics of stripes) │ footer │ postscript │ its length
//
// Streams are compressed in chunks as they grow (stream.go), values are encoded
// in runs (rle.go), and what a column writes for a type is in column.go. A stripe
// leaves once its streams take maxStripeBytes, however large the configured one
// is, so that memory stays bounded.
//
// There is no reader here but that of the tests, and no union, no encryption.
package orc

import (
	"fmt"
	"io"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// Options of files. The zero value is the service's defaults.
type Options struct {
	// StripeBytes is about how large stripes get; 64 MiB if zero. They are smaller
	// where memory demands it.
	StripeBytes int64
	// BlockBytes is the size of blocks that Padding aligns stripes to; 256 MiB if
	// zero.
	BlockBytes int64
	// RowIndexStride is how many rows an entry of the row index covers; 10,000 if
	// zero.
	RowIndexStride int
	Compression    Compression // Snappy if empty
	// Padding keeps stripes from straddling blocks, where that wastes at most
	// PaddingTolerance of a stripe; 0.05 if nil.
	Padding          bool
	PaddingTolerance *float64
	// BloomColumns are the columns with Bloom filters, by name, of
	// BloomFalsePositives, 0.05 if zero. Names that the table does not have, and
	// those of nested and boolean columns, mean nothing.
	BloomColumns        []string
	BloomFalsePositives float64
	// DictionaryThreshold is the share of different values among all, up to which
	// columns of text use a dictionary. 0 is never, 1 always.
	DictionaryThreshold float64
	// OldFormat writes the run lengths of version 0.11.
	OldFormat bool
	// MemoryBytes bounds stripes further; as much as there may be if zero.
	MemoryBytes int64
}

const (
	defaultStripeBytes = 64 << 20
	defaultBlockBytes  = 256 << 20
	defaultStride      = 10_000
	defaultTolerance   = 0.05
	defaultBloomShare  = 0.05
	// maxStripeBytes bounds the streams that wait for their stripe's end.
	maxStripeBytes = 24 << 20
	// sliceRows is how many rows are added before the stripe's size is looked at.
	sliceRows = 2048
	// maxBloomEntries bounds the values that a filter is made for.
	maxBloomEntries = 1 << 20
)

const magic = "ORC"

// writerVersion is that of the rules that statistics and filters follow: times in
// UTC, texts in UTF-8. It is counted by the first implementation, for which
// readers take files that name no other.
const writerVersion = 6

// Writer writes one file.
type Writer struct {
	out     io.Writer
	at      int64
	codec   *codec
	options Options
	limit   int

	root    *columnWriter
	columns []*columnWriter // by number
	stripes [][]byte        // messages StripeInformation
	stats   []byte          // message Metadata
	rows    uint64

	stripeRows, groupRows int
	scratch               []byte
}

// New begins a file of the given columns. Nothing is written before the first
// stripe is full.
func New(out io.Writer, fields []hive.Field, o *Options) (*Writer, error) {
	w := &Writer{out: out, options: *o}
	var err error
	if w.codec, err = newCodec(o.Compression); err != nil {
		return nil, err
	}
	if w.options.StripeBytes <= 0 {
		w.options.StripeBytes = defaultStripeBytes
	}
	if w.options.BlockBytes <= 0 {
		w.options.BlockBytes = defaultBlockBytes
	}
	if w.options.RowIndexStride <= 0 {
		w.options.RowIndexStride = defaultStride
	}
	share := o.BloomFalsePositives
	if !(share > 0 && share < 1) {
		share = defaultBloomShare
	}
	w.limit = int(min(w.options.StripeBytes, maxStripeBytes))
	if o.MemoryBytes > 0 {
		w.limit = min(w.limit, int(o.MemoryBytes))
	}
	next := 0
	w.root = newColumn(&hive.Type{Kind: hive.Struct, Fields: fields}, &next, w.codec, &w.options)
	w.root.each(func(c *columnWriter) { w.columns = append(w.columns, c) })
	for _, name := range o.BloomColumns {
		for i, f := range fields {
			if strings.EqualFold(f.Name, name) {
				w.root.kids[i].withBloom(min(w.options.RowIndexStride, maxBloomEntries), share)
			}
		}
	}
	return w, nil
}

// Write adds rows.
func (w *Writer) Write(b *column.Batch) error {
	for from := 0; from < b.Rows; {
		if w.groupRows == 0 {
			for _, c := range w.columns {
				c.beginGroup()
			}
		}
		to := min(from+sliceRows, b.Rows, from+w.options.RowIndexStride-w.groupRows)
		w.root.group.count += uint64(to - from)
		for i, c := range b.Columns {
			w.root.kids[i].write(c, from, to)
		}
		w.stripeRows += to - from
		w.groupRows += to - from
		from = to
		if w.groupRows == w.options.RowIndexStride {
			w.endGroup()
		}
		size := 0
		for _, c := range w.columns {
			size += c.size()
		}
		if size >= w.limit {
			if err := w.endStripe(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Writer) endGroup() {
	for _, c := range w.columns {
		c.endGroup()
	}
	w.groupRows = 0
}

func (w *Writer) write(p []byte) error {
	n, err := w.out.Write(p)
	w.at += int64(n)
	if err != nil {
		return fmt.Errorf("orc: %w", err)
	}
	return nil
}

// pad moves to the next block if a stripe of so many bytes would straddle two.
func (w *Writer) pad(size int64) error {
	if !w.options.Padding {
		return nil
	}
	tolerance := defaultTolerance
	if t := w.options.PaddingTolerance; t != nil {
		tolerance = *t
	}
	left := w.options.BlockBytes - w.at%w.options.BlockBytes
	if size <= left || float64(left) > tolerance*float64(w.options.StripeBytes) {
		return nil
	}
	zeros := make([]byte, min(left, 64<<10))
	for left > 0 {
		n := min(left, int64(len(zeros)))
		if err := w.write(zeros[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// endStripe writes the stripe.
func (w *Writer) endStripe() error {
	if w.stripeRows == 0 {
		return nil
	}
	if w.groupRows > 0 {
		w.endGroup()
	}
	if w.at == 0 {
		if err := w.write([]byte(magic)); err != nil {
			return err
		}
	}
	var footer []byte
	note := func(kind uint64, c *columnWriter, n int) {
		footer = message(footer, 1, uintField(uintField(uintField(nil, 1, kind), 2, uint64(c.id)), 3, uint64(n)))
	}
	// The indexes are small beside the streams, which are written where they are.
	index := w.scratch[:0]
	for _, c := range w.columns {
		c.finish()
		before := len(index)
		var err error
		if index, err = w.codec.compressAll(index, c.rowIndex()); err != nil {
			return err
		}
		note(rowIndexStream, c, len(index)-before)
		if c.filter != nil {
			before = len(index)
			if index, err = w.codec.compressAll(index, c.bloomIndex()); err != nil {
				return err
			}
			note(bloomFilterStream, c, len(index)-before)
		}
	}
	data := 0
	for _, c := range w.columns {
		for _, s := range c.streams() {
			if s.err != nil {
				return s.err
			}
			note(s.kind, c, len(s.done))
			data += len(s.done)
		}
	}
	var stats []byte
	for _, c := range w.columns {
		footer = message(footer, 2, c.encoding())
		stats = message(stats, 1, c.stripe.encode(c.t))
	}
	footer = message(footer, 3, []byte("UTC"))
	packedFooter, err := w.codec.compressAll(nil, footer)
	if err != nil {
		return err
	}
	if err := w.pad(int64(len(index) + data + len(packedFooter))); err != nil {
		return err
	}
	info := uintField(nil, 1, uint64(w.at))
	info = uintField(info, 2, uint64(len(index)))
	info = uintField(info, 3, uint64(data))
	info = uintField(info, 4, uint64(len(packedFooter)))
	info = uintField(info, 5, uint64(w.stripeRows))
	if err := w.write(index); err != nil {
		return err
	}
	w.scratch = index
	for _, c := range w.columns {
		for _, s := range c.streams() {
			if len(s.done) == 0 {
				continue
			}
			if err := w.write(s.done); err != nil {
				return err
			}
		}
	}
	if err := w.write(packedFooter); err != nil {
		return err
	}
	w.stripes = append(w.stripes, info)
	w.stats = message(w.stats, 1, stats)
	w.rows += uint64(w.stripeRows)
	w.stripeRows = 0
	for _, c := range w.columns {
		c.reset()
	}
	return nil
}

// Close writes what is left, and the footer.
func (w *Writer) Close() error {
	if err := w.endStripe(); err != nil {
		return err
	}
	if w.at == 0 {
		if err := w.write([]byte(magic)); err != nil {
			return err
		}
	}
	content := w.at
	metadata, err := w.codec.compressAll(nil, w.stats)
	if err != nil {
		return err
	}
	b := uintField(nil, 1, uint64(len(magic)))
	b = uintField(b, 2, uint64(content))
	for _, s := range w.stripes {
		b = message(b, 3, s)
	}
	for _, c := range w.columns {
		b = message(b, 4, c.typeMessage())
	}
	b = uintField(b, 6, w.rows)
	for _, c := range w.columns {
		b = message(b, 7, c.file.encode(c.t))
	}
	b = uintField(b, 8, uint64(w.options.RowIndexStride))
	footer, err := w.codec.compressAll(nil, b)
	if err != nil {
		return err
	}
	version := []uint64{0, 12}
	if w.options.OldFormat {
		version[1] = 11
	}
	ps := uintField(nil, 1, uint64(len(footer)))
	ps = uintField(ps, 2, w.codec.number())
	if w.codec.kind != None {
		ps = uintField(ps, 3, chunkBytes)
	}
	ps = packed(ps, 4, version...)
	ps = uintField(ps, 5, uint64(len(metadata)))
	ps = uintField(ps, 6, writerVersion)
	ps = message(ps, 8000, []byte(magic))
	if len(ps) > math.MaxUint8 {
		return fmt.Errorf("orc: a postscript of %d bytes", len(ps))
	}
	for _, p := range [][]byte{metadata, footer, ps, {byte(len(ps))}} {
		if err := w.write(p); err != nil {
			return err
		}
	}
	return nil
}

// typeMessage is the message Type.
func (c *columnWriter) typeMessage() []byte {
	kinds := map[hive.Kind]uint64{
		hive.Boolean: 0, hive.TinyInt: 1, hive.SmallInt: 2, hive.Int: 3, hive.BigInt: 4, hive.Float: 5, hive.Double: 6, hive.String: 7,
		hive.Binary: 8, hive.Timestamp: 9, hive.Array: 10, hive.Map: 11, hive.Struct: 12, hive.Decimal: 14, hive.Date: 15,
		hive.Varchar: 16, hive.Char: 17,
	}
	b := uintField(nil, 1, kinds[c.t.Kind])
	if len(c.kids) > 0 {
		var ids []byte
		for _, k := range c.kids {
			ids = protowire.AppendVarint(ids, uint64(k.id))
		}
		b = message(b, 2, ids)
	}
	for _, f := range c.t.Fields {
		b = message(b, 3, []byte(f.Name))
	}
	switch c.t.Kind {
	case hive.Char, hive.Varchar:
		b = uintField(b, 4, uint64(c.t.Length))
	case hive.Decimal:
		b = uintField(uintField(b, 5, uint64(c.t.Precision)), 6, uint64(c.t.Scale))
	}
	return b
}
