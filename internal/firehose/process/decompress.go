package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/millrace/millrace/internal/firehose/record"
)

const (
	// MaxDecompressed bounds what one record may decompress to, in bytes. A record
	// has at most 1,000 KiB, of which an honest compressor made no more than this.
	MaxDecompressed = 32 << 20
	// All records of a call together may decompress to batchDecompressed bytes, and
	// maxRatio more for each byte they have. Logs shrink to a tenth or a
	// thirtieth, and a bomb to a thousandth.
	batchDecompressed = 128 << 20
	maxRatio          = 64
)

var errBomb = errors.New("it decompresses to more than")

// gunzipper is a reader of gzip and a place for what it reads.
type gunzipper struct {
	source bytes.Reader
	reader gzip.Reader
	out    []byte
}

var gunzippers = sync.Pool{New: func() any { return new(gunzipper) }}

// gunzip gives what b, one or more gzip members, was made of, if that is no more
// than limit bytes.
func gunzip(b []byte, limit int) ([]byte, error) {
	g := gunzippers.Get().(*gunzipper)
	defer gunzippers.Put(g)
	g.source.Reset(b)
	defer g.source.Reset(nil)
	if err := g.reader.Reset(&g.source); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	out := g.out[:0]
	for {
		if len(out) == cap(out) {
			grown := make([]byte, len(out), min(max(4*len(out), 64<<10), limit+1))
			copy(grown, out)
			out = grown
		}
		n, err := g.reader.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if cap(out) <= mib {
			g.out = out // the larger ones are not worth keeping
		}
		if len(out) > limit {
			return nil, fmt.Errorf("%w %d bytes", errBomb, limit)
		}
		if errors.Is(err, io.EOF) {
			return bytes.Clone(out), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (r *run) decompress() {
	left := batchDecompressed
	for i := range r.records {
		left += maxRatio * len(r.records[i].Data)
	}
	r.filter(func(rec *record.Record) bool {
		out, err := gunzip(rec.Data, min(left, MaxDecompressed))
		left -= len(out)
		if err != nil {
			r.stats.DecompressionFailed.add(len(rec.Data))
			r.fail(rec, ErrorTypeDecompression, CodeDecompression, "Data could not be decompressed as GZIP: "+err.Error())
			return false
		}
		r.stats.Decompressed.add(len(out))
		if out == nil {
			out = []byte{}
		}
		rec.Original, rec.Data = rec.Data, out
		return true
	})
}
