// Package process changes records between their source and their destination.
//
// The one idea: a chain is a fixed order of steps, whatever the order they were
// listed in, and a record that a step cannot handle leaves the chain with the
// reason, alone. Only a function that cannot be invoked at all takes the records
// it was to see with it.
//
//	Decompression → CloudWatchLogProcessing → RecordDeAggregation → Lambda
//	             → MetadataExtraction → AppendDelimiterToRecord
//
// A chain works on a batch of records of one lane and keeps their order. It has
// no goroutines, no buffers and no state: gathering batches, running several at
// a time and putting their order back is up to the caller, as are opening
// aggregated records before and converting formats after it.
//
// Everything from outside has a bound: what a record decompresses to, what a
// function may answer, how long a query runs and how much it makes.
//
// Start reading at Parse for what users configure and at Chain.Process for what
// happens; function.go is the contract with functions.
package process

import (
	"context"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
)

// The types of error outputs that a chain has records for.
const (
	ErrorTypeProcessing    = "processing-failed"
	ErrorTypeDecompression = "decompression-failed"
)

// The codes of failures that are not a function's.
const (
	CodeDecompression = "Decompression.InvalidData"
	CodeLogEnvelope   = "CloudWatchLogProcessing.InvalidEnvelope"
	CodeMetadata      = "DynamicPartitioning.MetadataExtractionFailed"
)

// SubRecords is how many parts of one record have places of their own: with
// RecordDeAggregation, part p of the record at Sub s is at Sub s×SubRecords+p.
const SubRecords = 512

// maxSubRecords is how many parts a record may have; more, and it is not taken
// apart.
const maxSubRecords = 500

// Source is where records come from, as functions are told.
type Source uint8

// The sources.
const (
	DirectPut Source = iota
	Kinesis
	Kafka
)

// SourceMeta is what all records of a batch have in common.
type SourceMeta struct {
	Stream record.Stream
	Source Source
}

// Failed is a record that left the chain. Its Record has the bytes it had before
// the step that failed, and Original where that is what an error output shows.
type Failed struct {
	Record        record.Record
	ErrorType     string
	Code, Message string
	Attempts      int
	Ended         time.Time // of the last attempt
	FunctionARN   string    // empty if no function is to blame
}

// Count is an amount of records.
type Count struct {
	Records int
	Bytes   int64
}

func (c *Count) add(n int) {
	c.Records++
	c.Bytes += int64(n)
}

// Stats is what happened in one call, for metrics.
type Stats struct {
	// Invocations counts attempts, FailedInvocations those that failed, and
	// InvocationTime is what they took together.
	Invocations, FailedInvocations int
	InvocationTime                 time.Duration
	// Processed are the records that functions were done with, dropped ones
	// included, in the size they had before.
	Processed Count
	// Dropped are those of them that the function wanted gone.
	Dropped int
	// Decompressed is what came out, DecompressionFailed what could not go in.
	Decompressed, DecompressionFailed Count
	// QueryTime is what MetadataExtraction took.
	QueryTime time.Duration
}

// Chain is the steps that are configured for a delivery stream. It is immutable;
// all methods may be called concurrently.
type Chain struct {
	config  Config
	invoker Invoker
	pause   func(attempt int) time.Duration
}

// NewChain makes a chain. invoker may be nil if the configuration has no
// function.
func NewChain(c Config, invoker Invoker) *Chain {
	if c.Function != nil && invoker == nil {
		panic("process: a function and nothing to invoke it")
	}
	return &Chain{config: c, invoker: invoker, pause: backOff}
}

// Config is what the chain was made of.
func (c *Chain) Config() Config { return c.config }

// Empty reports whether Process gives back what it gets.
func (c *Chain) Empty() bool { return c == nil || c.config.Empty() }

// BatchLimits say how records are gathered for one call of Process: the hints of
// the function. They are zero if there is none; then any batch will do. Process
// splits what is larger.
func (c *Chain) BatchLimits() record.Hints {
	if c == nil || c.config.Function == nil {
		return record.Hints{}
	}
	return c.config.Function.Buffer
}

// Process runs in, records of one lane in order, through the chain. Records and
// bytes of the results may share memory with in, which is not changed; what is
// not shared belongs to the caller. An error, always that of ctx, means that
// nothing is decided: the same records have to be processed again.
func (c *Chain) Process(ctx context.Context, in []record.Record, meta SourceMeta) (out []record.Record, failed []Failed, stats Stats, err error) {
	if c.Empty() {
		return in, nil, Stats{}, nil
	}
	return c.ProcessOwn(ctx, slices.Clone(in), meta)
}

// ProcessOwn is Process where in belongs to the chain from now on: out may be
// made of it.
func (c *Chain) ProcessOwn(ctx context.Context, in []record.Record, meta SourceMeta) (out []record.Record, failed []Failed, stats Stats, err error) {
	if c.Empty() || len(in) == 0 {
		return in, nil, Stats{}, nil
	}
	r := run{chain: c, meta: meta, records: in}
	if c.config.Decompress {
		r.decompress()
	}
	if c.config.LogMessages {
		r.logMessages()
	}
	if c.config.Split != nil {
		r.split()
	}
	if c.config.Function != nil {
		if err := r.invoke(ctx); err != nil {
			return nil, nil, r.stats, err
		}
	}
	if c.config.Query != nil {
		if err := r.query(ctx); err != nil {
			return nil, nil, r.stats, err
		}
	}
	if c.config.Append != nil {
		r.appendDelimiter()
	}
	return r.records, r.failed, r.stats, nil
}

// run is one call of Process.
type run struct {
	chain   *Chain
	meta    SourceMeta
	records []record.Record // those still in the chain; the slice is the run's own
	failed  []Failed
	stats   Stats
	// abandoned says that an invocation ended without an answer.
	abandoned bool
}

func (r *run) fail(rec *record.Record, errorType, code, message string) {
	r.failed = append(r.failed, Failed{
		Record: *rec, ErrorType: errorType, Code: code, Message: message, Attempts: 1, Ended: time.Now(),
	})
}

// filter runs step on every record, in place, and drops those it answers false
// for.
func (r *run) filter(step func(rec *record.Record) bool) {
	kept := r.records[:0]
	for i := range r.records {
		if step(&r.records[i]) {
			kept = append(kept, r.records[i])
		}
	}
	clear(r.records[len(kept):])
	r.records = kept
}

// appendDelimiter adds the delimiter to every record, even to one that ends with
// it. All of them share one allocation.
func (r *run) appendDelimiter() {
	delimiter := r.chain.config.Append
	size := len(r.records) * len(delimiter)
	for i := range r.records {
		size += len(r.records[i].Data)
	}
	all := make([]byte, 0, size)
	for i := range r.records {
		start := len(all)
		all = append(append(all, r.records[i].Data...), delimiter...)
		r.records[i].Data = all[start:len(all):len(all)]
	}
}
