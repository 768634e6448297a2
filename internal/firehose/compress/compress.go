// Package compress writes what the objects of a delivery stream consist of.
//
// The one idea: every format is a writer with the same three steps, and the
// expensive part of it, tables and windows, is kept between objects. The bytes
// are those of the service, not of whatever the name suggests:
//
//	GZIP           one gzip stream
//	ZIP            an archive with one deflated entry
//	Snappy         snappy-java's stream:  magic, 1, 1, { length, raw snappy of 32 KiB }
//	HADOOP_SNAPPY  Hadoop's blocks:       { length before, { length after, raw snappy } }
//	ZSTD           one zstd frame; not a format of the service
//
// Lengths are 4 bytes, big end first. Start reading at NewWriter.
package compress

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Format is a compression, by the name the API has for it.
type Format string

// The formats.
const (
	None         Format = "UNCOMPRESSED"
	GZIP         Format = "GZIP"
	ZIP          Format = "ZIP"
	Snappy       Format = "Snappy"
	HadoopSnappy Format = "HADOOP_SNAPPY"
	Zstd         Format = "ZSTD"
)

// Parse finds the format of a name; empty is None.
func Parse(name string) (Format, error) {
	switch f := Format(name); f {
	case "":
		return None, nil
	case None, GZIP, ZIP, Snappy, HadoopSnappy, Zstd:
		return f, nil
	}
	return "", fmt.Errorf("compression format %q is none of UNCOMPRESSED, GZIP, ZIP, Snappy, HADOOP_SNAPPY, ZSTD", name)
}

// Extension is what names of objects end with.
func Extension(f Format) string {
	switch f {
	case GZIP:
		return ".gz"
	case ZIP:
		return ".zip"
	case Snappy, HadoopSnappy:
		return ".snappy"
	case Zstd:
		return ".zst"
	}
	return ""
}

// ContentEncoding is the header of that name that objects carry; empty is none.
func ContentEncoding(f Format) string {
	switch f {
	case GZIP:
		return "gzip"
	case ZIP:
		return "zip"
	case Snappy:
		return "snappy-java"
	case HadoopSnappy:
		return "hadoop-snappy"
	case Zstd:
		return "zstd"
	}
	return ""
}

// NewWriter compresses what is written to it into w. Close ends the format and
// gives the writer's memory to later ones; w stays open. name is the archive's
// entry in a ZIP and means nothing elsewhere. An unknown format writes as None.
// The same writes give the same bytes.
func NewWriter(f Format, w io.Writer, name string) io.WriteCloser {
	switch f {
	case GZIP:
		z := gzipWriters.Get().(*gzip.Writer)
		z.Reset(w)
		return &pooled[*gzip.Writer]{z, &gzipWriters}
	case ZIP:
		return newZip(w, name)
	case Snappy:
		return newBlocks(w, xerialBlock, xerialHeader, false)
	case HadoopSnappy:
		return newBlocks(w, hadoopBlock, "", true)
	case Zstd:
		z := zstdWriters.Get().(*zstd.Encoder)
		z.Reset(w)
		return &pooled[*zstd.Encoder]{z, &zstdWriters}
	}
	return plain{w}
}

// Level 1 of this encoder is about as small as level 4 of zlib on JSON, at
// several times its speed; the next levels cost more than they save.
var gzipWriters = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic("compress: " + err.Error())
	}
	return z
}}

// The fastest level makes logs smaller than the one above it. One goroutine an
// encoder: objects are compressed side by side already.
var zstdWriters = sync.Pool{New: func() any {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("compress: " + err.Error())
	}
	return z
}}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// pooled is an encoder that goes back to its pool when it is closed.
type pooled[E io.WriteCloser] struct {
	encoder E
	pool    *sync.Pool
}

func (p *pooled[E]) Write(b []byte) (int, error) {
	if p.pool == nil {
		return 0, io.ErrClosedPipe
	}
	return p.encoder.Write(b)
}

// Close may be called twice.
func (p *pooled[E]) Close() error {
	if p.pool == nil {
		return nil
	}
	err := p.encoder.Close()
	if r, ok := any(p.encoder).(interface{ Reset(io.Writer) }); ok {
		r.Reset(nil) // an idle encoder holds no writer
	}
	p.pool.Put(p.encoder)
	p.pool = nil
	return err
}
