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

// MaxDecompressed bounds what one record may decompress to, in bytes. A record
// has at most 1,000 KiB, of which an honest compressor made no more than this.
const MaxDecompressed = 32 << 20

var errBomb = fmt.Errorf("the record decompresses to more than %d bytes", MaxDecompressed)

// gunzipper is a reader of gzip and a place for what it reads.
type gunzipper struct {
	source bytes.Reader
	reader gzip.Reader
	out    []byte
}

var gunzippers = sync.Pool{New: func() any { return new(gunzipper) }}

// gunzip gives what b, one or more gzip members, was made of.
func gunzip(b []byte) ([]byte, error) {
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
			if len(out) > MaxDecompressed {
				return nil, errBomb
			}
			grown := make([]byte, len(out), min(max(4*len(out), 64<<10), MaxDecompressed+1))
			copy(grown, out)
			out = grown
		}
		n, err := g.reader.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if cap(out) <= mib {
			g.out = out // the larger ones are not worth keeping
		}
		if len(out) > MaxDecompressed {
			return nil, errBomb
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
	r.filter(func(rec *record.Record) bool {
		out, err := gunzip(rec.Data)
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
