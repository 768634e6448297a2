package orc

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// maxDictionary bounds the texts of a column's dictionary, and the values that
// wait for it; then the column goes on without one.
const (
	maxDictionary       = 2 << 20
	maxDictionaryValues = 1 << 20
)

// entry is the index of a row group: where it begins in the column's streams, and
// what it holds.
type entry struct {
	present   []uint64 // in the stream of nulls, which may turn out not to be needed
	positions []uint64 // in the others
	stats     []byte
}

// columnWriter writes one column of the file. Columns are numbered in the order
// of the types: the root first, then each column before its children.
type columnWriter struct {
	id   int
	t    *hive.Type
	kids []*columnWriter
	old  bool // version 0.11

	present bitEncoder
	data    stream
	second  stream // lengths, nanoseconds, scales
	nulls   bool   // in the stripe

	bits  bitEncoder  // boolean
	bytes byteEncoder // tinyint
	ints  intEncoder  // data of integers, dates, timestamps, dictionaries
	more  intEncoder  // the second stream
	buf   []byte

	group, stripe, file statistics
	begin               entry // of the row group
	index               []entry

	bloomEntries int // values that a filter is made for; 0 is no filter
	bloomShare   float64
	filter       *bloom
	filters      [][]byte

	dictionary *dictionary // of the stripe; nil without, or once it was given up
	threshold  float64
	keys       stream // of a dictionary that is written
	useDict    bool
}

// dictionary collects the texts of a column until the stripe's end shows whether
// there are few.
type dictionary struct {
	ids    map[string]uint32
	texts  []string
	values []uint32 // ids, of values that are not null
	groups []int    // how many values there were at the beginning of each row group
	bytes  int
}

func newColumn(t *hive.Type, next *int, c *codec, o *Options) *columnWriter {
	w := &columnWriter{id: *next, t: t, old: o.OldFormat}
	*next++
	open := func(kind uint64) stream { return stream{codec: c, kind: kind} }
	present := open(presentStream)
	w.present.bytes.out = &present
	w.data = open(dataStream)
	w.second = open(secondaryStream)
	w.bits.bytes.out, w.bytes.out = &w.data, &w.data
	w.ints = intEncoder{out: &w.data, signed: true, old: o.OldFormat}
	w.more = intEncoder{out: &w.second, old: o.OldFormat}
	switch t.Kind {
	case hive.String, hive.Char, hive.Varchar, hive.Binary, hive.Array, hive.Map:
		w.second.kind = lengthStream
	case hive.Decimal:
		w.more.signed = true
	}
	if t.Kind.Text() && o.DictionaryThreshold > 0 {
		w.threshold = o.DictionaryThreshold
		w.keys = open(dictionaryDataStream)
		w.dictionary = newDictionary()
	}
	switch t.Kind {
	case hive.Array:
		w.kids = []*columnWriter{newColumn(t.Elem, next, c, o)}
	case hive.Map:
		w.kids = []*columnWriter{newColumn(t.Key, next, c, o), newColumn(t.Elem, next, c, o)}
	case hive.Struct:
		for _, f := range t.Fields {
			w.kids = append(w.kids, newColumn(f.Type, next, c, o))
		}
	}
	return w
}

func newDictionary() *dictionary { return &dictionary{ids: map[string]uint32{}} }

// withBloom gives a column filters, if its values can have them.
func (w *columnWriter) withBloom(entries int, share float64) {
	if w.t.Kind.Nested() || w.t.Kind == hive.Boolean {
		return
	}
	w.bloomEntries, w.bloomShare = entries, share
	w.filter = newBloom(entries, share)
}

// each visits the column and those below it, in the order of their numbers.
func (w *columnWriter) each(f func(*columnWriter)) {
	f(w)
	for _, k := range w.kids {
		k.each(f)
	}
}

// write adds values from to to of c. Below a value that is null there are none.
func (w *columnWriter) write(c *column.Column, from, to int) {
	for i := from; i < to; i++ {
		ok := c.Valid[i]
		w.present.add(ok)
		if !ok {
			w.nulls, w.group.hasNull = true, true
		}
	}
	switch w.t.Kind {
	case hive.Struct:
		for i := from; i < to; {
			for i < to && !c.Valid[i] {
				i++
			}
			start := i
			for i < to && c.Valid[i] {
				i++
			}
			w.group.count += uint64(i - start)
			for k, kid := range w.kids {
				kid.write(c.Children[k], start, i)
			}
		}
	case hive.Array, hive.Map:
		if from == to {
			return
		}
		at := c.Start(from)
		begin := at
		for i := from; i < to; i++ {
			if c.Valid[i] {
				w.group.count++
				w.more.add(int64(c.Ends[i] - at))
			}
			at = c.Ends[i]
		}
		for k, kid := range w.kids {
			kid.write(c.Children[k], int(begin), int(at))
		}
	default:
		for i := from; i < to; i++ {
			if c.Valid[i] {
				w.value(c, i)
			}
		}
	}
}

// epoch is where seconds of timestamps count from: 2015, in the time zone that the
// stripe names, UTC.
const epoch = 1420070400

// value adds a value that is not null.
func (w *columnWriter) value(c *column.Column, i int) {
	switch w.t.Kind {
	case hive.Boolean:
		v := c.Ints[i] != 0
		w.bits.add(v)
		w.group.count++
		if v {
			w.group.trues++
		}
	case hive.TinyInt:
		w.bytes.add(byte(c.Ints[i]))
		w.group.int(c.Ints[i])
		w.hash(c.Ints[i])
	case hive.SmallInt, hive.Int, hive.BigInt, hive.Date:
		w.ints.add(c.Ints[i])
		w.group.int(c.Ints[i])
		w.hash(c.Ints[i])
	case hive.Float:
		w.buf = binary.LittleEndian.AppendUint32(w.buf[:0], math.Float32bits(float32(c.Floats[i])))
		w.data.write(w.buf)
		w.group.float(c.Floats[i])
		w.hash(int64(math.Float64bits(c.Floats[i])))
	case hive.Double:
		w.buf = binary.LittleEndian.AppendUint64(w.buf[:0], math.Float64bits(c.Floats[i]))
		w.data.write(w.buf)
		w.group.float(c.Floats[i])
		w.hash(int64(math.Float64bits(c.Floats[i])))
	case hive.Decimal:
		w.decimal(c.Decimals[i])
	case hive.Timestamp:
		w.timestamp(c.Ints[i])
	case hive.Binary:
		v := c.Bytes(i)
		w.data.write(v)
		w.more.add(int64(len(v)))
		w.group.count++
		w.group.bytes += int64(len(v))
		w.hashBytes(v)
	default:
		w.text(c.Bytes(i))
	}
}

func (w *columnWriter) hash(v int64) {
	if w.filter != nil {
		w.filter.add(hashLong(v))
	}
}

func (w *columnWriter) hashBytes(v []byte) {
	if w.filter != nil {
		w.filter.add(hashBytes(v))
	}
}

// decimal writes the unscaled value as a zigzag varint of up to 128 bits, and its
// scale.
func (w *columnWriter) decimal(v column.Int128) {
	sign := uint64(v.Hi >> 63)
	hi, lo := uint64(v.Hi)<<1|v.Lo>>63, v.Lo<<1
	hi, lo = hi^sign, lo^sign
	w.buf = w.buf[:0]
	for hi != 0 || lo >= 0x80 {
		w.buf = append(w.buf, byte(lo)|0x80)
		lo = lo>>7 | hi<<57
		hi >>= 7
	}
	w.buf = append(w.buf, byte(lo))
	w.data.write(w.buf)
	w.more.add(int64(w.t.Scale))
	w.group.decimal(v)
	if w.filter != nil {
		w.hashBytes([]byte(decimalText(v, w.t.Scale)))
	}
}

// timestamp writes seconds, and nanoseconds without trailing zeros: their number,
// less one, is in the lowest three bits, if there are two at least.
func (w *columnWriter) timestamp(at int64) {
	t := time.Unix(0, at)
	seconds, nanos := t.Unix(), int64(t.Nanosecond())
	millis := t.UnixMilli()
	if seconds < 0 && nanos > 999_999 {
		// Readers take a second off where a time before 1970 has milliseconds: the
		// first writers rounded towards zero. Of the last second before 1970 they
		// cannot know, and read what the first writers meant them to: a second later.
		seconds++
	}
	w.ints.add(seconds - epoch)
	zeros := int64(0)
	if nanos != 0 && nanos%100 == 0 {
		nanos /= 100
		for zeros = 1; nanos%10 == 0 && zeros < 7; zeros++ {
			nanos /= 10
		}
	}
	w.more.add(nanos<<3 | zeros)
	w.group.int(millis)
	w.hash(millis)
}

func (w *columnWriter) text(v []byte) {
	if w.t.Kind == hive.Char {
		// Values of char have all their characters.
		if n := w.t.Length - utf8.RuneCount(v); n > 0 {
			w.buf = append(w.buf[:0], v...)
			for range n {
				w.buf = append(w.buf, ' ')
			}
			v = w.buf
		}
	}
	w.group.text(v)
	w.hashBytes(v)
	d := w.dictionary
	if d == nil {
		w.data.write(v)
		w.more.add(int64(len(v)))
		return
	}
	id, ok := d.ids[string(v)]
	if !ok {
		id = uint32(len(d.texts))
		text := string(v)
		d.texts = append(d.texts, text)
		d.ids[text] = id
		d.bytes += len(v) + 64
	}
	d.values = append(d.values, id)
	if d.bytes > maxDictionary || len(d.values) > maxDictionaryValues {
		w.giveUp()
	}
}

// giveUp writes what the dictionary holds as plain texts, and goes on without.
func (w *columnWriter) giveUp() {
	d := w.dictionary
	w.dictionary = nil
	group := 0
	mark := func(i int) {
		for group < len(d.groups) && d.groups[group] == i {
			positions := w.more.position(w.data.position(nil))
			if group < len(w.index) {
				w.index[group].positions = positions
			} else {
				w.begin.positions = positions
			}
			group++
		}
	}
	for i, id := range d.values {
		mark(i)
		text := d.texts[id]
		w.data.write([]byte(text))
		w.more.add(int64(len(text)))
	}
	mark(len(d.values))
}

// writeDictionary writes the column with its dictionary.
func (w *columnWriter) writeDictionary() {
	d := w.dictionary
	order := make([]uint32, len(d.texts))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(d.texts[a], d.texts[b]) })
	rank := make([]int64, len(order))
	for i, id := range order {
		rank[id] = int64(i)
		w.keys.write([]byte(d.texts[id]))
		w.more.add(int64(len(d.texts[id])))
	}
	w.ints.signed = false
	group := 0
	mark := func(i int) {
		for group < len(d.groups) && d.groups[group] == i {
			if group < len(w.index) {
				w.index[group].positions = w.ints.position(nil)
			}
			group++
		}
	}
	for i, id := range d.values {
		mark(i)
		w.ints.add(rank[id])
	}
	mark(len(d.values))
	w.useDict = true
}

// beginGroup notes where a row group begins.
func (w *columnWriter) beginGroup() {
	w.begin = entry{present: w.present.position(nil)}
	switch w.t.Kind {
	case hive.Boolean:
		w.begin.positions = w.bits.position(nil)
	case hive.TinyInt:
		w.begin.positions = w.bytes.position(nil)
	case hive.SmallInt, hive.Int, hive.BigInt, hive.Date:
		w.begin.positions = w.ints.position(nil)
	case hive.Float, hive.Double:
		w.begin.positions = w.data.position(nil)
	case hive.Decimal, hive.Binary:
		w.begin.positions = w.more.position(w.data.position(nil))
	case hive.Timestamp:
		w.begin.positions = w.more.position(w.ints.position(nil))
	case hive.Array, hive.Map:
		w.begin.positions = w.more.position(nil)
	case hive.String, hive.Char, hive.Varchar:
		if w.dictionary != nil {
			w.dictionary.groups = append(w.dictionary.groups, len(w.dictionary.values))
		} else {
			w.begin.positions = w.more.position(w.data.position(nil))
		}
	}
}

// endGroup notes what a row group holds.
func (w *columnWriter) endGroup() {
	w.begin.stats = w.group.encode(w.t)
	w.index = append(w.index, w.begin)
	w.stripe.merge(&w.group, w.t.Kind)
	w.group.reset()
	if w.filter != nil {
		w.filters = append(w.filters, w.filter.encode())
		clear(w.filter.bits)
	}
}

// finish encodes what is pending. The row groups have ended.
func (w *columnWriter) finish() {
	if d := w.dictionary; d != nil {
		if len(d.values) > 0 && float64(len(d.texts)) <= w.threshold*float64(len(d.values)) {
			w.writeDictionary()
		} else {
			w.giveUp()
		}
	}
	w.present.flush()
	w.bits.flush()
	w.bytes.flush()
	w.ints.flush()
	w.more.flush()
	for _, s := range w.streams() {
		s.flush()
	}
}

// streams are those of the column's values, in the order they stand in the
// stripe.
func (w *columnWriter) streams() []*stream {
	var list []*stream
	if w.nulls {
		list = append(list, w.present.bytes.out)
	}
	switch w.t.Kind {
	case hive.Struct:
	case hive.Array, hive.Map:
		list = append(list, &w.second)
	case hive.Decimal, hive.Timestamp, hive.Binary:
		list = append(list, &w.data, &w.second)
	case hive.String, hive.Char, hive.Varchar:
		list = append(list, &w.data, &w.second)
		if w.useDict {
			list = append(list, &w.keys)
		}
	default:
		list = append(list, &w.data)
	}
	return list
}

// encoding is the message ColumnEncoding.
func (w *columnWriter) encoding() []byte {
	kind := uint64(2) // with run lengths of version 2
	switch {
	case w.t.Kind == hive.Struct, w.t.Kind == hive.Boolean, w.t.Kind == hive.TinyInt, w.t.Kind == hive.Float, w.t.Kind == hive.Double:
		kind = 0
	case w.useDict:
		kind = 3
	}
	if w.old {
		kind &= 1
	}
	b := uintField(nil, 1, kind)
	if w.useDict {
		b = uintField(b, 2, uint64(len(w.dictionary.texts)))
	}
	return b
}

// rowIndex is the message RowIndex.
func (w *columnWriter) rowIndex() []byte {
	var b []byte
	for _, e := range w.index {
		var inner []byte
		positions := e.positions
		if w.nulls {
			positions = slices.Concat(e.present, e.positions)
		}
		if len(positions) > 0 {
			inner = packed(inner, 1, positions...)
		}
		b = message(b, 1, message(inner, 2, e.stats))
	}
	return b
}

// bloomIndex is the message BloomFilterIndex.
func (w *columnWriter) bloomIndex() []byte {
	var b []byte
	for _, f := range w.filters {
		b = message(b, 1, f)
	}
	return b
}

// size is about how many bytes the stripe takes so far.
func (w *columnWriter) size() int {
	n := w.present.bytes.out.size() + w.data.size() + w.second.size()
	if d := w.dictionary; d != nil {
		n += d.bytes + 4*len(d.values)
	}
	for _, f := range w.filters {
		n += len(f)
	}
	return n
}

// reset prepares for the next stripe.
func (w *columnWriter) reset() {
	w.file.merge(&w.stripe, w.t.Kind)
	w.stripe.reset()
	w.present.bytes.out.reset()
	w.data.reset()
	w.second.reset()
	w.keys.reset()
	w.nulls, w.useDict = false, false
	w.index, w.filters = w.index[:0], w.filters[:0]
	if w.threshold > 0 {
		w.dictionary = newDictionary()
		w.ints.signed = true
	}
}
