// Package dest is the contract between delivery and a destination.
//
// The one idea: a destination tries once and tells exactly what happened to
// every record. Whether to try again, for how long, with which pause, and where
// to keep what failed in the end is decided in one place for all of them, by
// package delivery. Every destination passes the suite of desttest.
package dest

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
)

// Destination sends batches somewhere. Deliver may be called concurrently for
// different batches.
type Destination interface {
	// Deliver makes one attempt. With a nil error every record that Result.Failed
	// does not list is stored durably over there. With an error (of type *Error
	// wherever the destination can say more) nothing is known to be stored, and
	// the whole batch counts as failed; Result.Waited counts all the same.
	Deliver(ctx context.Context, b *record.Batch) (Result, error)
	// Close ends connections. No Deliver is running.
	Close() error
}

// Result is what one attempt achieved.
type Result struct {
	// Objects are the things written, for the ledger.
	Objects []Object
	// Failed are the records that were refused, in order of their index.
	Failed []Failure
	// Waited is time that the retry duration does not count: waiting for answers
	// and acknowledgements.
	Waited time.Duration
}

// Object is one thing written: an object's key, a table, a request's id.
type Object struct {
	Name    string // s3://bucket/key, file:…, index or table name, URL
	Records int
	Bytes   int64 // as written
}

// Failure is one refused record.
type Failure struct {
	Index         int // in the batch
	Code, Message string
	// Retry says that the same record may be accepted later.
	Retry bool
	// Fields are members of the failure record that this destination adds, in
	// order (esDocumentId, esIndexName, EventId …).
	Fields []Field
}

// Field is a member of a failure record.
type Field struct {
	Name  string
	Value any // string, int64, float64, bool, nil or []Field for an object
}

// Annotator is implemented by destinations whose failure records say more about
// every record, whatever went wrong: EventId, dataId. The fields come before
// those of Failure.Fields.
type Annotator interface {
	FailureFields(r *record.Record) []Field
}

// Placer is implemented by destinations that keep failures of some records apart:
// those of a table. ErrorOutput names the error output that a record belongs to
// when it fails; empty is that of the destination.
type Placer interface {
	ErrorOutput(r *record.Record) string
}

// Abandoner is implemented by destinations that keep what they were given when
// delivery gives up on it, so that no failure records need to be written: staged
// objects with a manifest that can be loaded by hand. With a nil error the batch
// is over; otherwise Abandon is called again later.
type Abandoner interface {
	Abandon(ctx context.Context, b *record.Batch, cause error) (Result, error)
}

// Error is an attempt that failed as a whole.
type Error struct {
	Code, Message string
	// Permanent says that trying again cannot help.
	Permanent bool
	// After is how long the other side asked to be left alone; 0 if it did not.
	After time.Duration
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Message) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Retry is how a destination's failures are repeated.
type Retry struct {
	// Duration ends it: 0 makes one attempt, negative goes on for ever.
	Duration time.Duration
	// FromFirstAttempt starts the clock at the first attempt and counts
	// everything (OpenSearch, Redshift); otherwise it starts at the first failure
	// and leaves out Result.Waited (Splunk, HTTP endpoints).
	FromFirstAttempt bool
	// Initial, Max and Factor shape the back-off, Jitter is its share of chance
	// (0.15 = ±15 %). Zero values: 1 s, 2 min, 2, 0.15.
	Initial, Max time.Duration
	Factor       float64
	Jitter       float64
}
