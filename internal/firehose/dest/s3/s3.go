// Package s3 writes batches as objects, in the layout of the service.
//
// The one idea: an object is made while it is stored. A batch is read, converted
// or compressed into one end of a pipe and the store reads the other, so the
// memory of a delivery does not depend on its size; and the object's key follows
// from the batch alone, so that a delivery that is repeated, even after a crash,
// overwrites what it wrote before.
//
// Destination delivers batches. Writer makes the objects of backups and error
// outputs, and failure.go the lines in the latter. Both use the object function
// of writer.go, where to start reading.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

// Converter writes batches in a format of their own. It may be called
// concurrently.
type Converter interface {
	// Convert writes the records of b that can be converted to w, and tells the
	// others. rows counts what w holds; with 0 nothing is kept of it. Records and
	// their bytes are not used after it returned. An error is no record's fault:
	// the batch will come again.
	Convert(ctx context.Context, b *record.Batch, w io.Writer) (rows int, failed []dest.Failure, err error)
	// Extension and ContentEncoding are those of the objects; either may be empty.
	Extension() string
	ContentEncoding() string
}

// Store takes objects; every objects.Store does. An error may be a *dest.Error,
// which is passed on, or an *objects.Error.
type Store interface {
	Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o objects.PutOptions) (objects.Info, error)
}

// Config is where objects go and what they are like.
type Config struct {
	Store  Store
	Bucket string
	// Base is what names of objects begin with in results; empty is
	// s3://bucket/.
	Base string
	// Prefix and ErrorPrefix name objects. ErrorPrefix may be nil for a
	// Destination, which never uses it.
	Prefix, ErrorPrefix *naming.Template
	// Location is the time zone of the instant in names; nil is UTC.
	Location *time.Location
	// Compression of objects; empty is none. It does not concern what Converter
	// writes.
	Compression compress.Format
	// Extension, if not empty, is what names end with, whatever the format.
	Extension string
	// Converter, if set, makes the objects; otherwise they hold the bytes of
	// records, one after another.
	Converter Converter
	// Delimiter is written behind every record that does not end with it. The
	// service never does that.
	Delimiter []byte
	// KMSKey asks the store to encrypt under that key.
	KMSKey string
	// ContentEncoding sets the header of that name to what the service sends.
	ContentEncoding bool
}

// Destination delivers batches as objects, one each. It implements
// dest.Destination.
type Destination struct{ writer *Writer }

// New makes a destination.
func New(c Config) *Destination { return &Destination{NewWriter(c)} }

// Deliver writes one object. Records that cannot be converted are told and are
// not in it; if that is all of them there is no object.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	o, failed, err := d.writer.batch(ctx, b, "")
	if err != nil {
		return dest.Result{}, err
	}
	result := dest.Result{Failed: failed}
	if o.Name != "" {
		result.Objects = []dest.Object{o}
	}
	return result, nil
}

// FailureFields implements dest.Annotator for converters that do.
func (d *Destination) FailureFields(r *record.Record) []dest.Field {
	if a, ok := d.writer.config.Converter.(dest.Annotator); ok {
		return a.FailureFields(r)
	}
	return nil
}

// Close does nothing: the store belongs to others.
func (d *Destination) Close() error { return nil }

// Key is the name that the object of a batch has, for those who want to know
// before.
func (d *Destination) Key(b *record.Batch) (string, error) { return d.writer.key(b, "") }

// failure makes a store's refusal the destination's. All of them may heal, but
// that of a name that is too long: buckets come back, policies are mended, and
// the service goes on for as long as it has the records.
func failure(err error) error {
	var known *dest.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &dest.Error{Code: "InternalError", Message: err.Error(), Err: err}
	var refused *objects.Error
	if errors.As(err, &refused) {
		e.Message = refused.Message
		if refused.Code != objects.CodeInternal {
			e.Code = "S3." + refused.Code
		}
		e.Permanent = refused.Code == "KeyTooLongError"
	}
	return e
}

// unnamed is the failure of an object that cannot be named.
func unnamed(err error) error {
	return &dest.Error{
		Code:      "S3.InvalidPrefixConfigurationException",
		Message:   fmt.Sprintf("The prefix cannot be evaluated: %v", err),
		Permanent: true, Err: err,
	}
}
