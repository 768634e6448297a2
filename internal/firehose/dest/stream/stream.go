// Package stream delivers records to a data stream of the same server: a
// destination that the service does not have.
//
// The one idea: a record is put as if by PutRecords, without the way through the
// API; it is durable when the attempt ends. Records of one key keep their order.
// What delivery repeats after a failed attempt may be stored twice.
package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Config is one data stream.
type Config struct {
	// Stream is an ARN, or a name in the account and region of the delivery stream.
	Stream string `yaml:"stream"`
	Key    Key    `yaml:"key"`
}

// Key is what records are keyed by, and so sorted into shards.
type Key string

// The keys.
const (
	// KeySource is that of the source, or the record's number if there is none:
	// the default.
	KeySource   Key = "partition_key"
	KeySequence Key = "sequence"  // the record's number: all shards get the same share
	KeyPrefix   Key = "partition" // the evaluated prefix, or the delivery stream's name
	KeyLane     Key = "lane"      // the source's shard: keeps the order of each
)

// Writer writes to one data stream, as long as it is the same.
type Writer interface {
	// Write stores records durably and tells of each what became of it. With an
	// error nothing is known to be stored. Data is not kept.
	Write(ctx context.Context, records []Record) ([]Result, error)
}

// Record is one record to be written.
type Record struct {
	Key  string // 1 to 256 characters
	Data []byte
}

// Result is what became of one record.
type Result struct {
	Code, Message string // empty if it is stored
	Retry         bool
}

// Deps is what a destination stands on.
type Deps struct {
	// Open finds a stream by its ARN.
	Open func(arn string) (Writer, error)
}

const (
	maxRecords = 500
	maxBytes   = 4 << 20
)

// Destination is a dest.Destination.
type Destination struct {
	config Config
	deps   Deps

	mu      sync.Mutex
	writers map[string]Writer // by ARN
}

// New makes a destination. The stream need not exist yet.
func New(c Config, d Deps) (*Destination, error) {
	switch c.Key {
	case "":
		c.Key = KeySource
	case KeySource, KeySequence, KeyPrefix, KeyLane:
	default:
		return nil, fmt.Errorf("data stream: %q is no key", c.Key)
	}
	if c.Stream == "" {
		return nil, errors.New("data stream: no stream is named")
	}
	return &Destination{config: c, deps: d, writers: map[string]Writer{}}, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error { return nil }

func (d *Destination) arn(s record.Stream) string {
	if strings.HasPrefix(d.config.Stream, "arn:") {
		return d.config.Stream
	}
	partition := "aws"
	if parts := strings.SplitN(s.ARN, ":", 3); len(parts) == 3 && parts[1] != "" {
		partition = parts[1]
	}
	return "arn:" + partition + ":kinesis:" + s.Region + ":" + s.Account + ":stream/" + d.config.Stream
}

func (d *Destination) writer(arn string) (Writer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.writers[arn]; w != nil {
		return w, nil
	}
	w, err := d.deps.Open(arn)
	if err == nil {
		d.writers[arn] = w
	}
	return w, err
}

// forget makes the next attempt find the stream again: it may have been made
// anew.
func (d *Destination) forget(arn string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.writers, arn)
}

// Deliver implements dest.Destination.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	arn := d.arn(b.Stream)
	if ctx.Err() != nil {
		return dest.Result{}, fmt.Errorf("deliver to %s: %w", arn, context.Cause(ctx))
	}
	if arn == b.Stream.SourceARN {
		return dest.Result{}, &dest.Error{Code: "Kinesis.Loop", Permanent: true, Message: "The data stream is the source of the delivery stream."}
	}
	w, err := d.writer(arn)
	if err != nil {
		return dest.Result{}, failure(err)
	}
	a := attempt{Destination: d, ctx: ctx, writer: w, batch: b}
	err = b.Each(func(i int, r *record.Record) error {
		if a.stopped != nil {
			a.fail(i, a.stopped)
			return nil
		}
		if len(a.group) > 0 && (len(a.group) == maxRecords || len(a.buffer)+len(r.Data) > maxBytes) {
			a.flush()
		}
		if a.stopped != nil {
			a.fail(i, a.stopped)
			return nil
		}
		a.add(i, r)
		return nil
	})
	if err != nil {
		return dest.Result{}, fmt.Errorf("read the batch: %w", err)
	}
	if a.stopped == nil {
		a.flush()
	}
	if ctx.Err() != nil {
		return dest.Result{}, fmt.Errorf("deliver to %s: %w", arn, context.Cause(ctx))
	}
	if a.stopped != nil {
		d.forget(arn)
		if a.stored == 0 && !a.refused {
			return dest.Result{}, a.stopped
		}
	}
	r := dest.Result{Failed: a.failed}
	if a.stored > 0 {
		r.Objects = []dest.Object{{Name: arn, Records: a.stored, Bytes: a.bytes}}
	}
	return r, nil
}

// attempt is one Deliver under way.
type attempt struct {
	*Destination
	ctx    context.Context
	writer Writer
	batch  *record.Batch

	group   []Record
	indexes []int
	ends    []int // of the records' data in the buffer
	buffer  []byte

	stored  int
	bytes   int64
	failed  []dest.Failure
	refused bool        // some of them for good
	stopped *dest.Error // the write that failed as a whole
}

func (a *attempt) fail(i int, e *dest.Error) {
	a.refused = a.refused || e.Permanent
	a.failed = append(a.failed, dest.Failure{Index: i, Code: e.Code, Message: e.Message, Retry: !e.Permanent})
}

// add puts a record into the group. Its bytes are copied: they are gone when the
// batch goes on.
func (a *attempt) add(i int, r *record.Record) {
	a.buffer = append(a.buffer, r.Data...)
	a.ends = append(a.ends, len(a.buffer))
	a.indexes = append(a.indexes, i)
	a.group = append(a.group, Record{Key: a.key(r)})
}

// key is never empty and at most 256 characters long.
func (a *attempt) key(r *record.Record) string {
	text := ""
	switch a.config.Key {
	case KeySource:
		text = string(r.PartitionKey)
	case KeyPrefix:
		if text = a.batch.Partition; text == "" {
			text = a.batch.Stream.Name
		}
	case KeyLane:
		if r.Lane != nil {
			text = r.Lane.Name()
		}
	}
	if text == "" && r.Lane != nil {
		text = r.Lane.SequenceNumber(r.Index, r.Arrival)
		if r.Sub > 0 {
			text += "." + strconv.FormatUint(uint64(r.Sub), 10)
		}
	}
	if text == "" {
		text = strconv.FormatUint(r.Index, 10)
	}
	n := 0
	for at := range text {
		if n == 256 {
			return text[:at]
		}
		n++
	}
	return text
}

// flush writes the group.
func (a *attempt) flush() {
	if len(a.group) == 0 {
		return
	}
	from := 0
	for n, end := range a.ends {
		a.group[n].Data = a.buffer[from:end:end]
		from = end
	}
	results, err := a.writer.Write(a.ctx, a.group)
	if err == nil && len(results) != len(a.group) {
		err = fmt.Errorf("%d results for %d records", len(results), len(a.group))
	}
	if err != nil {
		a.stopped = failure(err)
		for _, i := range a.indexes {
			a.fail(i, a.stopped)
		}
	} else {
		for n, r := range results {
			if r.Code == "" {
				a.stored, a.bytes = a.stored+1, a.bytes+int64(len(a.group[n].Data))
				continue
			}
			a.fail(a.indexes[n], &dest.Error{Code: "Kinesis." + r.Code, Message: r.Message, Permanent: !r.Retry})
		}
	}
	a.group, a.indexes, a.ends, a.buffer = a.group[:0], a.indexes[:0], a.ends[:0], a.buffer[:0]
}

// failure gives an error of a whole write its code. All may pass: a stream can
// be made again.
func failure(err error) *dest.Error {
	e := &dest.Error{Code: "Kinesis.InternalFailure", Message: err.Error(), Err: err}
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		e.Code = "Kinesis." + coded.ErrorCode()
	}
	return e
}
