package orc

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/snappy"
)

// Compression of streams.
type Compression string

// The codecs.
const (
	None   Compression = "NONE"
	ZLIB   Compression = "ZLIB"
	Snappy Compression = "SNAPPY"
)

// chunkBytes is how much of a stream is compressed at a time.
const chunkBytes = 256 << 10

// codec compresses chunks. It belongs to one writer.
type codec struct {
	kind    Compression
	deflate *flate.Writer
	buf     bytes.Buffer
	scratch []byte
}

func newCodec(c Compression) (*codec, error) {
	switch c {
	case "":
		c = Snappy
	case None, ZLIB, Snappy:
	default:
		return nil, fmt.Errorf("orc: unknown compression %q", c)
	}
	return &codec{kind: c}, nil
}

// number is the codec's in the postscript.
func (c *codec) number() uint64 {
	switch c.kind {
	case ZLIB:
		return 1
	case Snappy:
		return 2
	}
	return 0
}

// appendChunk appends data as one chunk: three bytes of header (the length, and
// whether it is stored as it is), then the bytes.
func (c *codec) appendChunk(dst, data []byte) ([]byte, error) {
	packed := data
	switch c.kind {
	case ZLIB:
		c.buf.Reset()
		if c.deflate == nil {
			w, err := flate.NewWriter(&c.buf, flate.DefaultCompression)
			if err != nil {
				return dst, fmt.Errorf("orc: %w", err)
			}
			c.deflate = w
		} else {
			c.deflate.Reset(&c.buf)
		}
		if _, err := c.deflate.Write(data); err != nil {
			return dst, fmt.Errorf("orc: %w", err)
		}
		if err := c.deflate.Close(); err != nil {
			return dst, fmt.Errorf("orc: %w", err)
		}
		packed = c.buf.Bytes()
	case Snappy:
		if n := snappy.MaxEncodedLen(len(data)); cap(c.scratch) < n {
			c.scratch = make([]byte, n)
		}
		packed = snappy.Encode(c.scratch[:cap(c.scratch)], data)
	}
	header := len(packed) << 1
	if len(packed) >= len(data) {
		packed, header = data, len(data)<<1|1
	}
	dst = append(dst, byte(header), byte(header>>8), byte(header>>16))
	return append(dst, packed...), nil
}

// compressAll is data as chunks, or as it is without compression.
func (c *codec) compressAll(dst, data []byte) ([]byte, error) {
	if c.kind == None {
		return append(dst, data...), nil
	}
	var err error
	for len(data) > 0 && err == nil {
		n := min(len(data), chunkBytes)
		dst, err = c.appendChunk(dst, data[:n])
		data = data[n:]
	}
	return dst, err
}

// Kinds of streams.
const (
	presentStream        = 0
	dataStream           = 1
	lengthStream         = 2
	dictionaryDataStream = 3
	secondaryStream      = 5
	rowIndexStream       = 6
	bloomFilterStream    = 8 // of UTF-8
)

// stream is one stream of a column in the stripe being filled.
type stream struct {
	codec *codec
	kind  uint64
	done  []byte // chunks; everything, without compression
	open  []byte // of the chunk being filled
	err   error
}

func (s *stream) write(p []byte) {
	if s.codec.kind == None {
		s.done = append(s.done, p...)
		return
	}
	for len(p) > 0 {
		n := min(len(p), chunkBytes-len(s.open))
		s.open = append(s.open, p[:n]...)
		p = p[n:]
		if len(s.open) == chunkBytes {
			s.flush()
		}
	}
}

func (s *stream) writeByte(b byte) {
	if s.codec.kind == None {
		s.done = append(s.done, b)
		return
	}
	s.open = append(s.open, b)
	if len(s.open) == chunkBytes {
		s.flush()
	}
}

// flush ends the chunk.
func (s *stream) flush() {
	if len(s.open) == 0 || s.err != nil {
		return
	}
	s.done, s.err = s.codec.appendChunk(s.done, s.open)
	s.open = s.open[:0]
}

// position is where the next byte will be: the chunk and the place in it.
func (s *stream) position(dst []uint64) []uint64 {
	dst = append(dst, uint64(len(s.done)))
	if s.codec.kind != None {
		dst = append(dst, uint64(len(s.open)))
	}
	return dst
}

func (s *stream) size() int { return len(s.done) + len(s.open) }

func (s *stream) reset() { s.done, s.open = s.done[:0], s.open[:0] }
