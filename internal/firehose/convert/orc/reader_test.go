package orc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// A reader of what the writer writes, by the format's description and nothing of
// the writer's code. It reads values as text, from the beginning of a stripe or
// from a row group of its index.

// fieldsOf are the fields of a message: numbers, or bytes.
type fieldsOf map[protowire.Number][]field

type field struct {
	n uint64
	b []byte
}

func parse(t testing.TB, b []byte) fieldsOf {
	t.Helper()
	m := fieldsOf{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal("bad tag")
		}
		b = b[n:]
		var f field
		switch kind {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
		case protowire.Fixed64Type:
			f.n, n = protowire.ConsumeFixed64(b)
		default:
			t.Fatalf("field %d of kind %d", number, kind)
		}
		if n < 0 {
			t.Fatal("bad field")
		}
		b = b[n:]
		m[number] = append(m[number], f)
	}
	return m
}

func (m fieldsOf) number(i protowire.Number) uint64 {
	if len(m[i]) == 0 {
		return 0
	}
	return m[i][0].n
}

func (m fieldsOf) bytes(i protowire.Number) []byte {
	if len(m[i]) == 0 {
		return nil
	}
	return m[i][0].b
}

func (f field) numbers(t testing.TB) (list []uint64) {
	for b := f.b; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			t.Fatal("bad packed numbers")
		}
		list = append(list, v)
		b = b[n:]
	}
	return list
}

type fileReader struct {
	t       testing.TB
	data    []byte
	codec   uint64
	types   []fieldsOf
	footer  fieldsOf
	meta    fieldsOf
	version []uint64
	stripes []*stripeReader
}

// unpack reads chunks from a place in a stream on.
func (r *fileReader) unpack(b []byte) []byte {
	if r.codec == 0 {
		return b
	}
	var out []byte
	for len(b) > 0 {
		header := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		chunk := b[3 : 3+header>>1]
		b = b[3+header>>1:]
		switch {
		case header&1 == 1:
			out = append(out, chunk...)
		case r.codec == 1:
			p, err := io.ReadAll(flate.NewReader(bytes.NewReader(chunk)))
			if err != nil {
				r.t.Fatal(err)
			}
			out = append(out, p...)
		default:
			p, err := snappy.Decode(nil, chunk)
			if err != nil {
				r.t.Fatal(err)
			}
			out = append(out, p...)
		}
	}
	return out
}

func openFile(t testing.TB, data []byte) *fileReader {
	t.Helper()
	if !bytes.HasPrefix(data, []byte("ORC")) {
		t.Fatal("no ORC file")
	}
	r := &fileReader{t: t, data: data}
	size := int(data[len(data)-1])
	end := len(data) - 1 - size
	ps := parse(t, data[end:len(data)-1])
	if string(ps.bytes(8000)) != "ORC" {
		t.Fatal("no postscript")
	}
	r.codec, r.version = ps.number(2), ps[4][0].numbers(t)
	footerAt := end - int(ps.number(1))
	r.footer = parse(t, r.unpack(data[footerAt:end]))
	r.meta = parse(t, r.unpack(data[footerAt-int(ps.number(5)):footerAt]))
	if got, want := int(r.footer.number(2)), footerAt-int(ps.number(5)); got != want {
		t.Errorf("the content is %d bytes, the footer says %d", want, got)
	}
	for _, f := range r.footer[4] {
		r.types = append(r.types, parse(t, f.b))
	}
	if len(r.meta[1]) != len(r.footer[3]) {
		t.Errorf("statistics of %d stripes of %d", len(r.meta[1]), len(r.footer[3]))
	}
	for _, f := range r.footer[3] {
		info := parse(t, f.b)
		at := int(info.number(1))
		s := &stripeReader{file: r, rows: int(info.number(5)), raw: map[[2]uint64][]byte{}}
		dataAt := at + int(info.number(2))
		footAt := dataAt + int(info.number(3))
		foot := parse(t, r.unpack(data[footAt:footAt+int(info.number(4))]))
		for _, f := range foot[1] {
			m := parse(t, f.b)
			n := int(m.number(3))
			s.raw[[2]uint64{m.number(2), m.number(1)}] = data[at : at+n]
			at += n
			if m.number(1) == rowIndexStream && at > dataAt || at > footAt {
				t.Error("a stream is not where it belongs")
			}
		}
		if at != footAt {
			t.Errorf("streams end at %d, the footer begins at %d", at, footAt)
		}
		for _, f := range foot[2] {
			s.encodings = append(s.encodings, parse(t, f.b))
		}
		if string(foot.bytes(3)) != "UTC" {
			t.Errorf("time zone %q", foot.bytes(3))
		}
		r.stripes = append(r.stripes, s)
	}
	return r
}

type stripeReader struct {
	file      *fileReader
	rows      int
	raw       map[[2]uint64][]byte // by column and kind
	encodings []fieldsOf
}

// place is where to read a column from: nil is the beginning.
type place struct{ positions []uint64 }

func (p *place) next() int {
	v := p.positions[0]
	p.positions = p.positions[1:]
	return int(v)
}

// source opens a stream at the place.
func (s *stripeReader) source(column, kind uint64, p *place) *runReader {
	raw, ok := s.raw[[2]uint64{column, kind}]
	if !ok {
		s.file.t.Fatalf("column %d has no stream %d", column, kind)
	}
	if p == nil {
		return &runReader{t: s.file.t, b: s.file.unpack(raw)}
	}
	raw = raw[p.next():]
	b := s.file.unpack(raw)
	if s.file.codec != 0 {
		b = b[p.next():]
	}
	return &runReader{t: s.file.t, b: b}
}

type runReader struct {
	t testing.TB
	b []byte
	// ints and bytes that a run had more of
	ints  []int64
	bytes []byte
	bit   int
}

func (r *runReader) take(n int) []byte {
	if n > len(r.b) {
		r.t.Fatalf("%d bytes wanted, %d left", n, len(r.b))
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *runReader) byteRun() byte {
	if len(r.bytes) == 0 {
		c := int8(r.take(1)[0])
		if c < 0 {
			r.bytes = append(r.bytes, r.take(-int(c))...)
		} else {
			r.bytes = bytes.Repeat(r.take(1), int(c)+3)
		}
	}
	b := r.bytes[0]
	r.bytes = r.bytes[1:]
	return b
}

func (r *runReader) bool() bool {
	if r.bit == 0 {
		// Peek: the byte is used up by its eighth bit.
		b := r.byteRun()
		r.bytes = append([]byte{b}, r.bytes...)
	}
	v := r.bytes[0]&(0x80>>r.bit) != 0
	if r.bit++; r.bit == 8 {
		r.bytes, r.bit = r.bytes[1:], 0
	}
	return v
}

func (r *runReader) varint() uint64 {
	v, n := protowire.ConsumeVarint(r.b)
	if n < 0 {
		r.t.Fatal("bad varint")
	}
	r.b = r.b[n:]
	return v
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

func (r *runReader) value(signed bool) int64 {
	if signed {
		return unzigzag(r.varint())
	}
	return int64(r.varint())
}

func (r *runReader) int(old, signed bool) int64 {
	if len(r.ints) == 0 {
		if old {
			r.oldRun(signed)
		} else {
			r.newRun(signed)
		}
	}
	v := r.ints[0]
	r.ints = r.ints[1:]
	return v
}

func (r *runReader) oldRun(signed bool) {
	c := int8(r.take(1)[0])
	if c < 0 {
		for range -int(c) {
			r.ints = append(r.ints, r.value(signed))
		}
		return
	}
	distance := int64(int8(r.take(1)[0]))
	v := r.value(signed)
	for range int(c) + 3 {
		r.ints = append(r.ints, v)
		v += distance
	}
}

func widthOf(code int) int {
	switch {
	case code < 24:
		return code + 1
	case code < 28:
		return 26 + 2*(code-24)
	}
	return 40 + 8*(code-28)
}

func (r *runReader) bits(n, width int) (list []uint64) {
	p := r.take((n*width + 7) / 8)
	at := 0
	for range n {
		v := uint64(0)
		for range width {
			v = v<<1 | uint64(p[at/8]>>(7-at%8)&1)
			at++
		}
		list = append(list, v)
	}
	return list
}

func (r *runReader) newRun(signed bool) {
	decode := func(v uint64) int64 {
		if signed {
			return unzigzag(v)
		}
		return int64(v)
	}
	h := int(r.take(1)[0])
	switch h >> 6 {
	case 0:
		v := uint64(0)
		for _, c := range r.take(h>>3&7 + 1) {
			v = v<<8 | uint64(c)
		}
		for range h&7 + 3 {
			r.ints = append(r.ints, decode(v))
		}
	case 1:
		n := (h&1)<<8 + int(r.take(1)[0]) + 1
		for _, v := range r.bits(n, widthOf(h>>1&31)) {
			r.ints = append(r.ints, decode(v))
		}
	case 3:
		n := (h&1)<<8 + int(r.take(1)[0]) + 1
		v := r.value(signed)
		distance := unzigzag(r.varint())
		r.ints = append(r.ints, v)
		if code := h >> 1 & 31; code == 0 {
			for range n - 1 {
				v += distance
				r.ints = append(r.ints, v)
			}
			return
		} else if n > 1 {
			v += distance
			r.ints = append(r.ints, v)
			for _, d := range r.bits(n-2, widthOf(code)) {
				if distance < 0 {
					v -= int64(d)
				} else {
					v += int64(d)
				}
				r.ints = append(r.ints, v)
			}
		}
	default:
		r.t.Fatal("a run of a kind that is not written")
	}
}

// skipInts, skipBytes and skipBits go behind the values that a position counts.
func (r *runReader) skipInts(p *place, old, signed bool) *runReader {
	if p != nil {
		for range p.next() {
			r.int(old, signed)
		}
	}
	return r
}

func (r *runReader) skipBits(p *place) *runReader {
	if p != nil {
		for range p.next() {
			r.byteRun()
		}
		for range p.next() {
			r.bool()
		}
	}
	return r
}

// columnReader reads the values of a column one after another.
type columnReader struct {
	present *runReader
	next    func() string
}

func (c *columnReader) value() string {
	if c.present != nil && !c.present.bool() {
		return "null"
	}
	return c.next()
}

// column opens a column at the row group, or at the beginning if that is negative.
func (s *stripeReader) column(id uint64, group int) *columnReader {
	t := s.file.t
	m := s.file.types[id]
	var p *place
	if group >= 0 {
		index := parse(t, s.file.unpack(s.raw[[2]uint64{id, rowIndexStream}]))
		e := parse(t, index[1][group].b)
		p = &place{}
		if len(e[1]) > 0 {
			p.positions = e[1][0].numbers(t)
		}
		defer func() {
			if len(p.positions) != 0 {
				t.Errorf("column %d: %d positions too many", id, len(p.positions))
			}
		}()
	}
	c := &columnReader{}
	if _, ok := s.raw[[2]uint64{id, presentStream}]; ok {
		c.present = s.source(id, presentStream, p).skipBits(p)
	}
	encoding := s.encodings[id].number(1)
	old := encoding < 2
	kids := []*columnReader{}
	if len(m[2]) > 0 {
		for _, k := range m[2][0].numbers(t) {
			kids = append(kids, s.column(k, group))
		}
	}
	ints := func(kind uint64, signed bool) func() int64 {
		r := s.source(id, kind, p).skipInts(p, old, signed)
		return func() int64 { return r.int(old, signed) }
	}
	switch kind := m.number(1); kind {
	case 0:
		r := s.source(id, dataStream, p).skipBits(p)
		c.next = func() string { return fmt.Sprint(r.bool()) }
	case 1:
		r := s.source(id, dataStream, p)
		if p != nil {
			for range p.next() {
				r.byteRun()
			}
		}
		c.next = func() string { return fmt.Sprint(int8(r.byteRun())) }
	case 2, 3, 4, 15:
		v := ints(dataStream, true)
		c.next = func() string { return fmt.Sprint(v()) }
	case 5:
		r := s.source(id, dataStream, p)
		c.next = func() string { return fmt.Sprint(math.Float32frombits(binary.LittleEndian.Uint32(r.take(4)))) }
	case 6:
		r := s.source(id, dataStream, p)
		c.next = func() string { return fmt.Sprint(math.Float64frombits(binary.LittleEndian.Uint64(r.take(8)))) }
	case 7, 8, 16, 17:
		if encoding&1 == 1 {
			v := ints(dataStream, false)
			keys, lengths := s.source(id, dictionaryDataStream, nil), s.source(id, lengthStream, nil)
			var texts []string
			for range s.encodings[id].number(2) {
				text := string(keys.take(int(lengths.int(old, false))))
				if len(texts) > 0 && text <= texts[len(texts)-1] {
					t.Error("the dictionary is not in order")
				}
				texts = append(texts, text)
			}
			c.next = func() string { return fmt.Sprintf("%q", texts[v()]) }
			break
		}
		r := s.source(id, dataStream, p)
		n := ints(lengthStream, false)
		c.next = func() string { return fmt.Sprintf("%q", r.take(int(n()))) }
	case 9:
		seconds, nanos := ints(dataStream, true), ints(secondaryStream, false)
		c.next = func() string {
			at, n := seconds()+1420070400, nanos()
			fraction := n >> 3
			if zeros := n & 7; zeros > 0 {
				for range zeros + 1 {
					fraction *= 10
				}
			}
			if at < 0 && fraction > 999_999 {
				at--
			}
			return fmt.Sprintf("%d.%09d", at, fraction)
		}
	case 14:
		r := s.source(id, dataStream, p)
		scale := ints(secondaryStream, true)
		c.next = func() string {
			v := new(big.Int)
			for shift := uint(0); ; shift += 7 {
				b := r.take(1)[0]
				v.Or(v, new(big.Int).Lsh(big.NewInt(int64(b&0x7f)), shift))
				if b < 0x80 {
					break
				}
			}
			negative := v.Bit(0) == 1
			v.Rsh(v, 1)
			if negative {
				v.Neg(v.Add(v, big.NewInt(1)))
			}
			return fmt.Sprintf("%se-%d", v, scale())
		}
	case 10, 11:
		n := ints(lengthStream, false)
		c.next = func() string {
			var parts []string
			for range n() {
				s := kids[0].value()
				if kind == 11 {
					s += ":" + kids[1].value()
				}
				parts = append(parts, s)
			}
			return "[" + strings.Join(parts, ",") + "]"
		}
	case 12:
		c.next = func() string {
			var parts []string
			for _, k := range kids {
				parts = append(parts, k.value())
			}
			return "(" + strings.Join(parts, ",") + ")"
		}
	default:
		t.Fatalf("type %d", kind)
	}
	return c
}
