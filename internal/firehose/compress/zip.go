package compress

import (
	"archive/zip"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

var flateWriters = sync.Pool{New: func() any {
	z, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic("compress: " + err.Error())
	}
	return z
}}

// zipWriter is an archive with one entry. Sizes follow the data, so nothing is
// held back.
type zipWriter struct {
	archive *zip.Writer
	entry   io.Writer
	err     error
}

func newZip(w io.Writer, name string) *zipWriter {
	z := &zipWriter{archive: zip.NewWriter(w)}
	z.archive.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		f := flateWriters.Get().(*flate.Writer)
		f.Reset(w)
		return &pooled[*flate.Writer]{f, &flateWriters}, nil
	})
	// No time of modification: an object made again is the same.
	z.entry, z.err = z.archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
	return z
}

func (z *zipWriter) Write(b []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	return z.entry.Write(b)
}

func (z *zipWriter) Close() error {
	if z.err != nil {
		return z.err
	}
	err := z.archive.Close()
	z.err = io.ErrClosedPipe
	return err
}
