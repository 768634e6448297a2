package run

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
)

// Frames are what snapshots are cut into: a length, so many bytes, and the CRC-32C
// of everything from the beginning of the snapshot on. A frame of no bytes ends a
// section. So a snapshot can be written while it is made and read while it is
// checked, with no more than a frame in memory.

const (
	frameSize = 1 << 16 // a frame is written when it has so much
	frameMost = 1 << 20 // a longer one is neither written nor taken
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frameWriter struct {
	w   io.Writer
	crc uint32
	err error // the first of w
}

func (f *frameWriter) raw(p []byte) {
	f.crc = crc32.Update(f.crc, castagnoli, p)
	if f.err == nil {
		_, f.err = f.w.Write(p)
	}
}

func (f *frameWriter) frame(p []byte) {
	var head [binary.MaxVarintLen64]byte
	f.raw(head[:binary.PutUvarint(head[:], uint64(len(p)))])
	if len(p) > 0 {
		f.raw(p)
	}
	var sum [4]byte
	binary.LittleEndian.PutUint32(sum[:], f.crc)
	f.raw(sum[:])
}

type frameReader struct {
	r    io.Reader
	left int64 // bytes that have not been read
	crc  uint32
	one  [4]byte
	err  error // the first of r that is not an early end
}

// read fills p; it panics with errDecode where the snapshot ends too soon.
func (f *frameReader) read(p []byte) {
	if int64(len(p)) > f.left {
		panic(errDecode)
	}
	if _, err := io.ReadFull(f.r, p); err != nil {
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			f.err = err
		}
		panic(errDecode)
	}
	f.left -= int64(len(p))
}

func (f *frameReader) magic() {
	var p [len(snapshotMagic)]byte
	f.read(p[:])
	if string(p[:]) != snapshotMagic {
		panic(errDecode)
	}
	f.crc = crc32.Update(0, castagnoli, p[:])
}

// next appends the next frame to dst; nothing at the end of a section.
func (f *frameReader) next(dst []byte) []byte {
	n, shift := uint64(0), 0
	for {
		p := f.one[:1]
		f.read(p)
		f.crc = crc32.Update(f.crc, castagnoli, p)
		n |= uint64(p[0]&0x7F) << shift
		if p[0] < 0x80 {
			break
		}
		if shift += 7; shift > 28 {
			panic(errDecode)
		}
	}
	if n > frameMost || int64(n) > f.left {
		panic(errDecode)
	}
	from := len(dst)
	dst = slices.Grow(dst, int(n))[:from+int(n)]
	f.read(dst[from:])
	f.crc = crc32.Update(f.crc, castagnoli, dst[from:])
	f.read(f.one[:])
	if binary.LittleEndian.Uint32(f.one[:]) != f.crc {
		panic(errDecode)
	}
	f.crc = crc32.Update(f.crc, castagnoli, f.one[:])
	return dst
}

// encoder collects the bytes of a section. They go on to a writer, if there is
// one, in frames that end anywhere.
type encoder struct {
	b       []byte
	to      *frameWriter
	workers *crew
}

// mark is called now and then, so that what is full goes on.
func (e *encoder) mark() {
	if len(e.b) >= frameSize && e.to != nil {
		e.flush()
	}
}

func (e *encoder) flush() {
	for p := e.b; len(p) > 0; {
		n := min(len(p), frameMost)
		e.to.frame(p[:n])
		p = p[n:]
	}
	e.b = e.b[:0]
}

// end ends a section.
func (e *encoder) end() {
	e.flush()
	e.to.frame(nil)
}

// records encodes n records of about so many bytes each, in order, on all workers.
func (e *encoder) records(n, weight int, save func(e *encoder, i int)) {
	per := min(max(frameSize/max(weight, 1), 1), 4096)
	if e.to == nil || e.workers.size() == 1 || n < 2*per {
		for i := range n {
			save(e, i)
			e.mark()
		}
		return
	}
	pieces := make([]encoder, 4*e.workers.size())
	for from := 0; from < n; from += per * len(pieces) {
		full := min(len(pieces), (n-from+per-1)/per)
		e.workers.do(full, func(k int) {
			p := &pieces[k]
			p.b = p.b[:0]
			for i := from + k*per; i < min(n, from+(k+1)*per); i++ {
				save(p, i)
			}
		})
		e.flush()
		for k := range full {
			// Without a copy: the piece is a frame, or a few.
			whole := encoder{b: pieces[k].b, to: e.to}
			whole.flush()
		}
	}
}

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) float(f float64) { e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(f)) }
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}
func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

// times encodes instants that hardly ever go back.
func (e *encoder) times(list []int64) {
	e.uint(uint64(len(list)))
	before := int64(0)
	for _, v := range list {
		e.int(v - before)
		before = v
		e.mark()
	}
}

func (e *encoder) floats(list []float64) {
	e.uint(uint64(len(list)))
	for _, v := range list {
		e.float(v)
		e.mark()
	}
}

func (e *encoder) value(v plan.Value) {
	if v.Null {
		e.b = append(e.b, 0)
		return
	}
	kind := byte(1)
	switch {
	case v.Row != nil:
		kind = 4
	case v.S != "":
		kind = 3
	case v.F != 0 || math.Signbit(v.F):
		kind = 2
	}
	e.b = append(e.b, kind)
	switch kind {
	case 1:
		e.int(v.I)
	case 2:
		e.float(v.F)
	case 3:
		e.string(v.S)
	case 4:
		e.uint(uint64(len(v.Row)))
		for _, f := range v.Row {
			e.value(f)
		}
	}
}

var errDecode = errors.New("decode")

// decoder reads what an encoder wrote; it panics with errDecode where that ends
// too soon, and counts nothing that the bytes left cannot hold.
type decoder struct {
	b    []byte // what is left of the frames read
	buf  []byte
	from *frameReader
	last bool // the section has no more frames
	// Texts are cut from blocks: a state has many, and they are short.
	block strings.Builder
}

// fill brings n bytes into b, or as many as the section has.
func (d *decoder) fill(n int) {
	for len(d.b) < n && !d.last {
		d.buf = append(d.buf[:0], d.b...)
		kept := len(d.buf)
		d.buf = d.from.next(d.buf)
		d.b = d.buf
		d.last = len(d.buf) == kept
	}
}

// ended ends a section, of which nothing may be left.
func (d *decoder) ended() bool {
	d.fill(1)
	if len(d.b) > 0 {
		return false
	}
	d.last = false
	return true
}

func (d *decoder) end() {
	if !d.ended() {
		panic(errDecode)
	}
}

// skip passes over a section.
func (d *decoder) skip() {
	for !d.ended() {
		d.b = nil
	}
}

func (d *decoder) uint() uint64 {
	if len(d.b) < binary.MaxVarintLen64 {
		d.fill(binary.MaxVarintLen64)
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		panic(errDecode)
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v := d.uint()
	return int64(v>>1) ^ -int64(v&1)
}

// count is the number of things that follow, each of at least a byte.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.b))+uint64(d.from.left) {
		panic(errDecode)
	}
	return int(v)
}

// room is how many of n things to make room for before the first is read: what
// they take may be more than what they were encoded in.
func room(n int) int { return min(n, 1<<10) }

func (d *decoder) float() float64 {
	d.fill(8)
	if len(d.b) < 8 {
		panic(errDecode)
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(d.b))
	d.b = d.b[8:]
	return v
}

func (d *decoder) byte() byte {
	d.fill(1)
	if len(d.b) == 0 {
		panic(errDecode)
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool { return d.byte() != 0 }

func (d *decoder) string() string {
	const short, block = 1 << 8, 1 << 13
	n := d.count()
	if n == 0 {
		return ""
	}
	if n <= short {
		d.fill(n)
		if len(d.b) < n {
			panic(errDecode)
		}
		if d.block.Cap()-d.block.Len() < n {
			d.block = strings.Builder{}
			d.block.Grow(block)
		}
		from := d.block.Len()
		d.block.Write(d.b[:n])
		d.b = d.b[n:]
		return d.block.String()[from:]
	}
	var s []byte
	for n > 0 {
		d.fill(1)
		if len(d.b) == 0 {
			panic(errDecode)
		}
		m := min(n, len(d.b))
		s = append(s, d.b[:m]...)
		d.b = d.b[m:]
		n -= m
	}
	return string(s)
}

func (d *decoder) times() []int64 {
	n := d.count()
	list := make([]int64, 0, room(n))
	before := int64(0)
	for range n {
		before += d.int()
		list = append(list, before)
	}
	return list
}

func (d *decoder) floats() []float64 {
	n := d.count()
	list := make([]float64, 0, room(n))
	for range n {
		list = append(list, d.float())
	}
	return list
}

func (d *decoder) value() plan.Value {
	switch d.byte() {
	case 0:
		return plan.Value{Null: true}
	case 1:
		return plan.Value{I: d.int()}
	case 2:
		return plan.Value{F: d.float()}
	case 3:
		return plan.Value{S: d.string()}
	case 4:
		n := d.count()
		row := make([]plan.Value, 0, room(n))
		for range n {
			row = append(row, d.value())
		}
		return plan.Value{Row: row}
	}
	panic(errDecode)
}
