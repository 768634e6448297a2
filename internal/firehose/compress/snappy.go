package compress

import (
	"encoding/binary"
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
)

const (
	// xerialHeader is a magic number, a version, and the oldest version that can
	// read it.
	xerialHeader = "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
	xerialBlock  = 32 << 10
	// hadoopBlock is what Hadoop puts in a block, so that what comes of it fits its
	// buffer of 256 KiB even if it cannot be compressed.
	hadoopBlock = 256<<10 - (256<<10/6 + 32)
)

// blocks writes raw snappy in blocks behind their lengths.
type blocks struct {
	w      io.Writer
	in     []byte // what is not written yet, up to a block
	out    []byte
	block  int
	header string // still to be written
	hadoop bool
	err    error
}

var blockWriters = sync.Pool{New: func() any { return new(blocks) }}

func newBlocks(w io.Writer, block int, header string, hadoop bool) *blocksWriter {
	b := blockWriters.Get().(*blocks)
	*b = blocks{w: w, in: b.in[:0], out: b.out, block: block, header: header, hadoop: hadoop}
	return &blocksWriter{b}
}

// blocksWriter keeps a closed writer from touching what somebody else uses now.
type blocksWriter struct{ b *blocks }

func (w *blocksWriter) Write(p []byte) (int, error) {
	if w.b == nil {
		return 0, io.ErrClosedPipe
	}
	return w.b.write(p)
}

// Close may be called twice.
func (w *blocksWriter) Close() error {
	if w.b == nil {
		return nil
	}
	b := w.b
	w.b = nil
	if len(b.in) > 0 {
		b.flush(b.in)
	}
	b.begin()
	err := b.err
	b.w = nil
	blockWriters.Put(b)
	return err
}

func (b *blocks) write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && b.err == nil {
		if len(b.in) == 0 && len(p) >= b.block {
			b.flush(p[:b.block])
			p = p[b.block:]
			continue
		}
		take := min(len(p), b.block-len(b.in))
		b.in = append(b.in, p[:take]...)
		p = p[take:]
		if len(b.in) == b.block {
			b.flush(b.in)
			b.in = b.in[:0]
		}
	}
	return n - len(p), b.err
}

// begin writes the header, once, even if nothing follows.
func (b *blocks) begin() {
	if b.header != "" && b.err == nil {
		_, b.err = io.WriteString(b.w, b.header)
		b.header = ""
	}
}

// flush writes one block. Its lengths stand in the same buffer, so that a block
// is one write.
func (b *blocks) flush(block []byte) {
	b.begin()
	if b.err != nil {
		return
	}
	lengths := 4
	if b.hadoop {
		lengths = 8
	}
	if need := lengths + s2.MaxEncodedLen(b.block); cap(b.out) < need {
		b.out = make([]byte, need)
	}
	b.out = b.out[:cap(b.out)]
	encoded := s2.EncodeSnappy(b.out[lengths:], block)
	if b.hadoop {
		binary.BigEndian.PutUint32(b.out, uint32(len(block)))
	}
	binary.BigEndian.PutUint32(b.out[lengths-4:], uint32(len(encoded)))
	_, b.err = b.w.Write(b.out[:lengths+len(encoded)])
}
