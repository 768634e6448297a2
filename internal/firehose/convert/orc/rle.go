package orc

import (
	"encoding/binary"
	"math/bits"
)

// Values wait in a buffer and are encoded when it is full, so that runs can be
// found; the buffer's length is part of every position, as readers skip so many
// values behind the place in the stream.

const (
	minRun     = 3
	maxRun     = 130 // of bytes, and of version 1
	maxLiteral = 128
	maxPending = 512
)

// byteEncoder writes runs of bytes.
type byteEncoder struct {
	out     *stream
	pending []byte
}

func (e *byteEncoder) add(b byte) {
	e.pending = append(e.pending, b)
	if len(e.pending) == maxPending {
		e.flush()
	}
}

func (e *byteEncoder) flush() {
	p := e.pending
	literal := 0 // where the literals begin
	emit := func(to int) {
		for literal < to {
			n := min(to-literal, maxLiteral)
			e.out.writeByte(byte(-n))
			e.out.write(p[literal : literal+n])
			literal += n
		}
	}
	for i := 0; i < len(p); {
		n := 1
		for i+n < len(p) && n < maxRun && p[i+n] == p[i] {
			n++
		}
		if n < minRun {
			i += n
			continue
		}
		emit(i)
		e.out.writeByte(byte(n - minRun))
		e.out.writeByte(p[i])
		i += n
		literal = i
	}
	emit(len(p))
	e.pending = p[:0]
}

func (e *byteEncoder) position(dst []uint64) []uint64 {
	return append(e.out.position(dst), uint64(len(e.pending)))
}

// bitEncoder writes runs of bits, the highest first in each byte.
type bitEncoder struct {
	bytes byteEncoder
	last  byte
	used  int // bits of last
}

func (e *bitEncoder) add(bit bool) {
	if bit {
		e.last |= 0x80 >> e.used
	}
	if e.used++; e.used == 8 {
		e.bytes.add(e.last)
		e.last, e.used = 0, 0
	}
}

func (e *bitEncoder) flush() {
	if e.used > 0 {
		e.bytes.add(e.last)
		e.last, e.used = 0, 0
	}
	e.bytes.flush()
}

func (e *bitEncoder) position(dst []uint64) []uint64 {
	return append(e.bytes.position(dst), uint64(e.used))
}

// intEncoder writes runs of integers, in version 1 or 2 of the encoding.
type intEncoder struct {
	out     *stream
	signed  bool
	old     bool // version 1
	pending []int64
	buf     []byte
	zigzag  []uint64
}

func (e *intEncoder) add(v int64) {
	e.pending = append(e.pending, v)
	if len(e.pending) == maxPending {
		e.flush()
	}
}

func (e *intEncoder) flush() {
	if len(e.pending) == 0 {
		return
	}
	e.buf = e.buf[:0]
	if e.old {
		e.encodeOld(e.pending)
	} else {
		e.encode(e.pending)
	}
	e.out.write(e.buf)
	e.pending = e.pending[:0]
}

func (e *intEncoder) position(dst []uint64) []uint64 {
	return append(e.out.position(dst), uint64(len(e.pending)))
}

// delta is b-a, if that does not overflow.
func delta(a, b int64) (int64, bool) {
	d := b - a
	return d, (d < 0) == (b < a)
}

// run is how many values from the first on have equal distances, and which; at
// least 1.
func run(p []int64) (n int, distance int64) {
	if len(p) < 2 {
		return len(p), 0
	}
	distance, ok := delta(p[0], p[1])
	if !ok {
		return 1, 0
	}
	n = 2
	for n < len(p) {
		if d, ok := delta(p[n-1], p[n]); !ok || d != distance {
			break
		}
		n++
	}
	return n, distance
}

func (e *intEncoder) varint(v int64) {
	if e.signed {
		e.buf = binary.AppendVarint(e.buf, v)
	} else {
		e.buf = binary.AppendUvarint(e.buf, uint64(v))
	}
}

func (e *intEncoder) encodeOld(p []int64) {
	literal := 0
	emit := func(to int) {
		for literal < to {
			n := min(to-literal, maxLiteral)
			e.buf = append(e.buf, byte(-n))
			for _, v := range p[literal : literal+n] {
				e.varint(v)
			}
			literal += n
		}
	}
	for i := 0; i < len(p); {
		n, distance := run(p[i:])
		n = min(n, maxRun)
		if n < minRun || distance < -128 || distance > 127 {
			i += max(1, n-1) // the last of them may begin another run
			continue
		}
		emit(i)
		e.buf = append(e.buf, byte(n-minRun), byte(distance))
		e.varint(p[i])
		i += n
		literal = i
	}
	emit(len(p))
}

// minFixed is how long a run of equal, not zero distances must be to be worth
// interrupting packed values.
const minFixed = 6

// encode writes version 2: short repeats, runs of equal distances, and packed
// values, or packed distances where these are narrower.
func (e *intEncoder) encode(p []int64) {
	from := 0
	for i := 0; i < len(p); {
		n, distance := run(p[i:])
		if n < minRun || distance != 0 && n < minFixed {
			i += max(1, n-1)
			continue
		}
		e.packed(p[from:i])
		switch {
		case distance == 0 && n <= 10:
			e.shortRepeat(p[i], n)
		default:
			e.fixedDelta(p[i], distance, n)
		}
		i += n
		from = i
	}
	e.packed(p[from:])
}

// unsigned is a value as it is packed.
func (e *intEncoder) unsigned(v int64) uint64 {
	if e.signed {
		return uint64(v<<1) ^ uint64(v>>63)
	}
	return uint64(v)
}

func (e *intEncoder) shortRepeat(v int64, n int) {
	u := e.unsigned(v)
	width := max(1, (bits.Len64(u)+7)/8)
	e.buf = append(e.buf, byte((width-1)<<3|(n-minRun)))
	for i := width - 1; i >= 0; i-- {
		e.buf = append(e.buf, byte(u>>(8*i)))
	}
}

// header begins a run of n values: its kind, the code of a width, the length.
func (e *intEncoder) header(kind, code, n int) {
	e.buf = append(e.buf, byte(kind<<6|code<<1|(n-1)>>8), byte(n-1))
}

const (
	packedKind = 1
	deltaKind  = 3
)

func (e *intEncoder) fixedDelta(first, distance int64, n int) {
	e.header(deltaKind, 0, n)
	e.varint(first)
	e.buf = binary.AppendVarint(e.buf, distance)
}

// width rounds a number of bits up to one that can be encoded, and gives its
// code.
func width(n int) (w, code int) {
	switch {
	case n <= 1:
		return 1, 0
	case n <= 24:
		return n, n - 1
	case n <= 32:
		w = (n + 1) &^ 1
		return w, 24 + (w-26)/2
	}
	w = (n + 7) &^ 7
	return w, 28 + (w-40)/8
}

// packed writes values with equal numbers of bits, or their distances.
func (e *intEncoder) packed(p []int64) {
	if len(p) == 0 {
		return
	}
	widest := uint64(0)
	e.zigzag = e.zigzag[:0]
	for _, v := range p {
		u := e.unsigned(v)
		e.zigzag = append(e.zigzag, u)
		widest |= u
	}
	w, code := width(bits.Len64(widest))
	if len(p) > 2 && e.monotonic(p, w) {
		return
	}
	e.header(packedKind, code, len(p))
	e.pack(e.zigzag, w)
}

// monotonic writes values that never fall, or never rise, as distances, if these
// are narrower than w bits.
func (e *intEncoder) monotonic(p []int64, w int) bool {
	first, ok := delta(p[0], p[1])
	// The sign of all distances is the first one's, so that it must have one.
	if !ok || first == 0 {
		return false
	}
	widest := uint64(0)
	for i := 2; i < len(p); i++ {
		d, ok := delta(p[i-1], p[i])
		if !ok || d != 0 && (d < 0) != (first < 0) {
			return false
		}
		if d < 0 {
			d = -d
		}
		widest |= uint64(d)
	}
	// A width of 1 would be the code of equal distances.
	dw, code := width(max(2, bits.Len64(widest)))
	if dw >= w {
		return false
	}
	e.header(deltaKind, code, len(p))
	e.varint(p[0])
	e.buf = binary.AppendVarint(e.buf, first)
	e.zigzag = e.zigzag[:0]
	for i := 2; i < len(p); i++ {
		d := p[i] - p[i-1]
		if d < 0 {
			d = -d
		}
		e.zigzag = append(e.zigzag, uint64(d))
	}
	e.pack(e.zigzag, dw)
	return true
}

// pack appends values of w bits each, the highest bit first.
func (e *intEncoder) pack(values []uint64, w int) {
	var acc byte
	free := 8
	for _, v := range values {
		for left := w; left > 0; {
			n := min(left, free)
			acc |= byte(v>>(left-n)&(1<<n-1)) << (free - n)
			left -= n
			if free -= n; free == 0 {
				e.buf = append(e.buf, acc)
				acc, free = 0, 8
			}
		}
	}
	if free < 8 {
		e.buf = append(e.buf, acc)
	}
}
