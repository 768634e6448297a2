package s3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

const contentType = "application/octet-stream"

// Writer makes objects. All methods may be called concurrently.
type Writer struct{ config Config }

// NewWriter makes a writer. It needs ErrorPrefix for error outputs.
func NewWriter(c Config) *Writer { return &Writer{c} }

// WriteBatch stores a batch as one object and gives its name, s3://bucket/key.
// With an error type it lies below the ErrorPrefix, otherwise below the Prefix.
// The object is durable at return; a batch without records makes none. Errors
// are those of Destination.Deliver, and a record that cannot be converted is one.
func (w *Writer) WriteBatch(ctx context.Context, b *record.Batch, errorType string) (name string, err error) {
	o, failed, err := w.batch(ctx, b, errorType)
	if err == nil && len(failed) > 0 {
		err = &dest.Error{Code: failed[0].Code, Message: failed[0].Message, Permanent: true}
	}
	return o.Name, err
}

// WriteFailures stores lines of an error output, which end with newlines, as one
// object below the ErrorPrefix and gives its name, s3://bucket/key. id is the
// object's, and at the arrival of the oldest record in it. The object is durable
// at return.
func (w *Writer) WriteFailures(ctx context.Context, stream record.Stream, errorType, id string, at time.Time, lines []byte) (name string, err error) {
	key, err := w.name(stream, errorType, id, at, nil)
	if err != nil {
		return "", unnamed(err)
	}
	o, err := w.object(ctx, key, id, false, func(to io.Writer) error {
		_, err := to.Write(lines)
		return err
	})
	return o.Name, err
}

// key names the object of a batch.
func (w *Writer) key(b *record.Batch, errorType string) (string, error) {
	return w.name(b.Stream, errorType, b.ID, time.UnixMilli(b.Oldest), b.Keys)
}

func (w *Writer) name(stream record.Stream, errorType, id string, at time.Time, keys *record.Keys) (string, error) {
	c := &w.config
	prefix, extension := c.Prefix, compress.Extension(c.Compression)
	if errorType != "" {
		prefix = c.ErrorPrefix
	} else {
		if c.Converter != nil {
			extension = c.Converter.Extension()
		}
		if c.Extension != "" {
			extension = c.Extension
		}
	}
	if prefix == nil {
		return "", errors.New("there is no ErrorOutputPrefix")
	}
	text, err := prefix.Evaluate(naming.Values{At: at, ErrorType: errorType, Keys: keys, ID: id})
	if err != nil {
		return "", err
	}
	return text + naming.ObjectName(stream.Name, stream.Version, at, c.Location, id, extension), nil
}

// batch writes the object of a batch.
func (w *Writer) batch(ctx context.Context, b *record.Batch, errorType string) (dest.Object, []dest.Failure, error) {
	if b.Count == 0 {
		return dest.Object{}, nil, nil
	}
	key, err := w.key(b, errorType)
	if err != nil {
		return dest.Object{}, nil, unnamed(err)
	}
	convert := w.config.Converter != nil && errorType == ""
	var failed []dest.Failure
	o, err := w.object(ctx, key, b.ID, convert, func(to io.Writer) error {
		if !convert {
			return w.raw(ctx, b, to)
		}
		rows, refused, err := w.config.Converter.Convert(ctx, b, to)
		failed = refused
		if err == nil && rows == 0 {
			err = errNothing
		}
		return err
	})
	if errors.Is(err, errNothing) {
		return dest.Object{}, failed, nil
	}
	if err != nil {
		return dest.Object{}, nil, err
	}
	o.Records = b.Count - len(failed)
	return o, failed, nil
}

// errNothing ends an object that would hold nothing.
var errNothing = errors.New("no record could be converted")

// raw writes the bytes of records one after another.
func (w *Writer) raw(ctx context.Context, b *record.Batch, to io.Writer) error {
	delimiter := w.config.Delimiter
	return b.Each(func(i int, r *record.Record) error {
		if i%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		_, err := to.Write(r.Data)
		if err == nil && len(delimiter) > 0 && !bytes.HasSuffix(r.Data, delimiter) {
			_, err = to.Write(delimiter)
		}
		return err
	})
}

// Pieces of this size pass through the pipe: large enough that the two sides
// meet rarely, small enough to have many deliveries at a time.
const pieceBytes = 128 << 10

var pieces = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, pieceBytes) }}

// object stores what fill writes. plain says that it is not to be compressed.
func (w *Writer) object(ctx context.Context, key, id string, plain bool, fill func(io.Writer) error) (dest.Object, error) {
	c := &w.config
	format, encoding := c.Compression, ""
	if plain {
		format = compress.None
	}
	if c.ContentEncoding {
		if encoding = compress.ContentEncoding(format); plain {
			encoding = c.Converter.ContentEncoding()
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, pipe := io.Pipe()
	var fillErr error
	var filled atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		fillErr = produce(pipe, format, id, fill)
		filled.Store(true)
		// The store must not take the end of a failed object for its end.
		_ = pipe.CloseWithError(fillErr)
		if fillErr != nil {
			cancel()
		}
	})
	counted := &countingReader{Reader: reader}
	_, err := c.Store.Put(ctx, c.Bucket, key, counted, -1, objects.PutOptions{
		Attributes: objects.Attributes{ContentType: contentType, ContentEncoding: encoding},
		KMSKey:     c.KMSKey,
	})
	// Who failed first has the reason: the other side fails in consequence.
	refused := err != nil && !filled.Load()
	_ = reader.CloseWithError(errStopped)
	group.Wait()
	switch {
	case fillErr != nil && !refused:
		return dest.Object{}, failure(fillErr)
	case err != nil:
		return dest.Object{}, failure(err)
	}
	base := c.Base
	if base == "" {
		base = "s3://" + c.Bucket + "/"
	}
	return dest.Object{Name: base + key, Bytes: counted.n}, nil
}

// errStopped tells the side that writes that the store has ended.
var errStopped = errors.New("the store stopped reading")

// produce writes one object's bytes into the pipe.
func produce(pipe io.Writer, format compress.Format, id string, fill func(io.Writer) error) error {
	piece := pieces.Get().(*bufio.Writer)
	piece.Reset(pipe)
	defer func() {
		piece.Reset(nil)
		pieces.Put(piece)
	}()
	encoder := compress.NewWriter(format, piece, entryName(id))
	if err := fill(encoder); err != nil {
		_ = encoder.Close() // gives its memory back; what it writes is thrown away
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	return piece.Flush()
}

// entryName is the name of an archive's entry: a UUID, as in the object's name.
func entryName(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// countingReader counts what was read.
type countingReader struct {
	io.Reader
	n int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n += int64(n)
	return n, err
}
