// Package encode writes the objects of named destinations in formats that the
// service does not have: newline-delimited JSON and Avro container files.
//
// The one idea: a record is one or more JSON values, each of which becomes a
// line or a row; a record that is anything else, or does not fit the schema, is
// told and leaves no trace in the object. The same batch makes the same bytes,
// so that an object that is written again is not another one.
//
// Converter fits what the destinations for objects and files want of one.
package encode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Formats.
const (
	NDJSON = "ndjson"
	Avro   = "avro"
)

// Config is one format.
type Config struct {
	Format string `yaml:"format"`
	// Schema is the file with Avro's schema, a record in JSON.
	Schema string `yaml:"schema"`
	// Compression: of NDJSON one of package compress; of Avro's blocks none, deflate
	// (the default), snappy or zstandard.
	Compression string `yaml:"compression"`
}

// Converter writes batches. It may be used concurrently.
type Converter struct {
	format  string
	pack    compress.Format // of NDJSON
	codec   string          // of Avro
	schema  *row
	meta    []byte // the schema as files show it
	scratch sync.Pool
}

// New makes a converter. It reads the schema.
func New(c Config) (*Converter, error) {
	k := &Converter{format: c.Format, scratch: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	switch c.Format {
	case NDJSON:
		if c.Schema != "" {
			return nil, errors.New("ndjson has no schema")
		}
		pack, err := compress.Parse(c.Compression)
		if err != nil {
			return nil, err
		}
		k.pack = pack
	case Avro:
		if c.Schema == "" {
			return nil, errors.New("avro needs a schema")
		}
		text, err := os.ReadFile(c.Schema)
		if err != nil {
			return nil, fmt.Errorf("read Avro schema: %w", err)
		}
		if err := k.parseSchema(text); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Schema, err)
		}
		switch c.Compression {
		case "":
			k.codec = "deflate"
		case "none":
			k.codec = "null"
		case "deflate", "snappy", "zstandard":
			k.codec = c.Compression
		default:
			return nil, fmt.Errorf("Avro's compression %q is none of none, deflate, snappy, zstandard", c.Compression)
		}
	default:
		return nil, fmt.Errorf("format %q is neither ndjson nor avro", c.Format)
	}
	return k, nil
}

// Extension is what the names of the objects end with.
func (k *Converter) Extension() string {
	if k.format == Avro {
		return ".avro"
	}
	return ".ndjson" + compress.Extension(k.pack)
}

// ContentEncoding is the header of that name; empty is none.
func (k *Converter) ContentEncoding() string { return compress.ContentEncoding(k.pack) }

// Convert writes the records that can be written, and tells the others.
func (k *Converter) Convert(ctx context.Context, b *record.Batch, w io.Writer) (rows int, failed []dest.Failure, err error) {
	out, err := k.writer(b, w)
	if err != nil {
		return 0, nil, err
	}
	buffer := k.scratch.Get().(*bytes.Buffer)
	defer k.scratch.Put(buffer)
	var ends []int
	err = b.Each(func(i int, r *record.Record) error {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		buffer.Reset()
		var err error
		ends, err = out.append(buffer, r.Data, ends[:0])
		if err != nil {
			failed = append(failed, dest.Failure{Index: i, Code: code(err), Message: err.Error()})
			return nil
		}
		rows += len(ends)
		return out.write(buffer.Bytes(), ends)
	})
	if e := out.close(); err == nil {
		err = e
	}
	if err != nil {
		return 0, nil, err
	}
	return rows, failed, nil
}

// Codes of records that cannot be written.
const (
	codeParse     = "DataFormatConversion.ParseError"    // no JSON
	codeMalformed = "DataFormatConversion.MalformedData" // JSON that does not fit
)

// parseError says that a record is not JSON.
type parseError struct{ error }

func code(err error) string {
	var p parseError
	if errors.As(err, &p) {
		return codeParse
	}
	return codeMalformed
}

// output is a file under way.
type output interface {
	// append adds the rows of a record to b, and to ends where in b each of them
	// ends. After an error what it added has no meaning.
	append(b *bytes.Buffer, data []byte, ends []int) ([]int, error)
	write(rows []byte, ends []int) error
	close() error
}

func (k *Converter) writer(b *record.Batch, w io.Writer) (output, error) {
	if k.format == NDJSON {
		return &lines{compress.NewWriter(k.pack, w, b.ID+".ndjson")}, nil
	}
	sync := sha256.Sum256([]byte(b.ID))
	return newFile(k, w, [16]byte(sync[:16]))
}

// lines writes newline-delimited JSON.
type lines struct{ w io.WriteCloser }

func (lines) append(b *bytes.Buffer, data []byte, ends []int) ([]int, error) {
	err := values(data, func(value []byte) error {
		var err error
		if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
			_, err = b.Write(value)
		} else {
			err = json.Compact(b, value)
		}
		b.WriteByte('\n')
		ends = append(ends, b.Len())
		return err
	})
	return ends, err
}

func (l lines) write(rows []byte, _ []int) error {
	_, err := l.w.Write(rows)
	return err
}

func (l lines) close() error { return l.w.Close() }

var errEmpty = errors.New("The record holds no JSON value.")

// values calls f for every JSON value of a record. Values may stand one behind
// another, with or without space between them.
func values(data []byte, f func([]byte) error) error {
	data = bytes.Trim(data, " \t\r\n")
	switch {
	case len(data) == 0:
		return parseError{errEmpty}
	case !utf8.Valid(data):
		return parseError{errors.New("The record is not UTF-8.")}
	case json.Valid(data):
		return f(data)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var value json.RawMessage
		if err := d.Decode(&value); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return parseError{fmt.Errorf("The record is not JSON: %w", err)}
		}
		if err := f(value); err != nil {
			return err
		}
	}
}
