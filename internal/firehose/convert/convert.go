// Package convert turns batches of JSON records into Parquet or ORC objects, by
// the schema of a catalog's table.
//
// The one idea: columns from the first byte. A deserializer (serde) appends the
// values of records to column buffers (column), a format (parquet, orc) encodes
// the buffers as soon as they hold a little, and row groups leave as soon as they
// are worth it. So a batch of any size is converted in one pass and in bounded
// memory, and a record that does not fit fails alone.
//
// The schema is read again for every batch when the table's version is LATEST,
// so that changes of the table are followed; a numbered version is read once.
// When the catalog fails, the schema of the last batch serves; without one the
// batch is an error that delivery repeats. A table that cannot be converted at
// all (no columns, types that no column can have) is no fault of the catalog: its
// records fail, and say so in the error output.
//
// Types are parsed by package hive. Start with Converter.Convert.
package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
	"github.com/millrace/millrace/internal/firehose/convert/orc"
	"github.com/millrace/millrace/internal/firehose/convert/parquet"
	"github.com/millrace/millrace/internal/firehose/convert/serde"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

const (
	// ErrorType names the error output of conversions.
	ErrorType = "format-conversion-failed"
	// CodePrefix begins every code of a conversion.
	CodePrefix = "DataFormatConversion."
	// DefaultBatchBytes is how much input is decoded before it is encoded.
	DefaultBatchBytes = 1 << 20

	// maxBatchValues bounds the values of a batch before it is encoded: wide
	// tables make many of few bytes.
	maxBatchValues = 1 << 20
	// maxLeaves bounds the columns of a file: each has buffers of its own.
	maxLeaves = 4096
	// maxKeptRoom is how large the buffers of a conversion may be to be kept for
	// the next.
	maxKeptRoom = 16 << 20
)

// Converter converts the batches of one configuration. Convert may be called
// concurrently.
type Converter struct {
	options Options
	fields  []dest.Field // of every failure record, shared

	mu     sync.Mutex
	cached *plan // of the newest schema that was read

	scratch sync.Pool // of *state, all of plans that were current once
}

// plan is a schema made ready.
type plan struct {
	version    string
	columns    []Column
	timestamps string // TimestampsParameter
	fields     []hive.Field
	parquet    *parquet.Options
	err        *serde.Error // why no record can be converted
}

// state is what one conversion works with.
type state struct {
	plan    *plan
	decoder *serde.Decoder
	batch   *column.Batch
}

// New makes a converter. It does not ask the catalog.
func New(o Options) (*Converter, error) {
	if o.Schemas == nil {
		return nil, errors.New("convert: no catalog")
	}
	if (o.Parquet == nil) == (o.ORC == nil) {
		return nil, errors.New("convert: one output format is needed")
	}
	if err := o.Input.Check(); err != nil {
		return nil, err
	}
	if o.Table.Version == "" {
		o.Table.Version = Latest
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = DefaultBatchBytes
	}
	c := &Converter{options: o}
	catalog := o.Table.CatalogID
	if catalog == "" {
		catalog = o.Table.Account
	}
	c.fields = []dest.Field{{Name: "dataCatalogTable", Value: []dest.Field{
		{Name: "catalogId", Value: catalog},
		{Name: "databaseName", Value: o.Table.Database},
		{Name: "tableName", Value: o.Table.Name},
		{Name: "region", Value: o.Table.Region},
		{Name: "versionId", Value: o.Table.Version},
		{Name: "roleArn", Value: o.Table.RoleARN},
	}}}
	return c, nil
}

// Extension is what names of objects end in.
func (c *Converter) Extension() string {
	if c.options.ORC != nil {
		return ".orc"
	}
	return ".parquet"
}

// ContentEncoding is the header that the service sends with converted objects:
// "hadoop-snappy" with Parquet, whatever its compression; none with ORC.
func (c *Converter) ContentEncoding() string {
	if c.options.ORC != nil {
		return ""
	}
	return "hadoop-snappy"
}

// Convert writes the batch's records to w as one object and returns how many rows
// it has. Records that cannot be converted are in failed, in order; if none can,
// rows is 0 and nothing was written to w. An error is about the batch: of the
// catalog (*dest.Error), of reading it, or of w.
func (c *Converter) Convert(ctx context.Context, b *record.Batch, w io.Writer) (rows int, failed []dest.Failure, err error) {
	p, err := c.plan(ctx)
	if err != nil {
		return 0, nil, err
	}
	bad := failures{fields: c.fields}
	if p.err != nil {
		err := b.Each(func(i int, _ *record.Record) error {
			bad.add(i, p.err)
			return ctx.Err()
		})
		return 0, bad.list, err
	}
	s, err := c.state(p)
	if err != nil {
		return 0, nil, err
	}
	defer c.release(s)
	active.Add(1)
	defer active.Add(-1)
	var out writer // begun with the first row
	flush := func() error {
		if s.batch.Rows == 0 {
			return nil
		}
		if out == nil {
			var err error
			if out, err = c.writer(w, p); err != nil {
				return err
			}
		}
		if err := out.Write(s.batch); err != nil {
			return err
		}
		s.batch.Truncate(0)
		return nil
	}
	maxRows := max(1, maxBatchValues/max(1, leaves(p.fields)))
	decoded := 0
	err = b.Each(func(i int, r *record.Record) error {
		n, err := s.decoder.Decode(r.Data, s.batch)
		if err != nil {
			var why *serde.Error
			if !errors.As(err, &why) {
				return err
			}
			bad.add(i, why)
		}
		rows += n
		if decoded += len(r.Data); decoded < c.options.BatchBytes && s.batch.Rows < maxRows {
			return nil
		}
		decoded = 0
		if err := ctx.Err(); err != nil {
			return err
		}
		return flush()
	})
	if err != nil {
		return 0, nil, fmt.Errorf("convert records: %w", err)
	}
	if rows == 0 {
		return 0, bad.list, nil
	}
	if err := flush(); err != nil {
		return 0, nil, fmt.Errorf("convert records: %w", err)
	}
	if err := out.Close(); err != nil {
		return 0, nil, fmt.Errorf("finish object: %w", err)
	}
	return rows, bad.list, nil
}

func leaves(fields []hive.Field) int {
	n := 0
	for _, f := range fields {
		n += f.Type.Leaves()
	}
	return n
}

// writer is a format.
type writer interface {
	// Write encodes rows. Nothing of the batch is referred to afterwards.
	Write(b *column.Batch) error
	// Close ends the object.
	Close() error
}

// active counts the conversions of the process. What waits for the end of a row
// group or a stripe is shared among them: alone they may be as large as they get,
// and many side by side make smaller ones.
var active atomic.Int64

const (
	sharedMemory = 48 << 20
	minMemory    = 4 << 20
)

func (c *Converter) writer(w io.Writer, p *plan) (writer, error) {
	memory := max(minMemory, sharedMemory/max(1, active.Load()))
	if c.options.ORC != nil {
		o := *c.options.ORC
		o.MemoryBytes = memory
		return orc.New(w, p.fields, &o)
	}
	o := *p.parquet
	o.MemoryBytes = memory
	return parquet.New(w, p.fields, &o)
}

// state takes buffers for a conversion by a plan.
func (c *Converter) state(p *plan) (*state, error) {
	if s, ok := c.scratch.Get().(*state); ok && s.plan == p {
		return s, nil
	}
	d, err := serde.New(p.fields, c.options.Input)
	if err != nil {
		return nil, err
	}
	return &state{plan: p, decoder: d, batch: column.NewBatch(p.fields)}, nil
}

func (c *Converter) release(s *state) {
	s.batch.Truncate(0)
	if s.batch.Room() <= maxKeptRoom {
		c.scratch.Put(s)
	}
}

// plan is that of the current schema.
func (c *Converter) plan(ctx context.Context) (*plan, error) {
	c.mu.Lock()
	cached := c.cached
	c.mu.Unlock()
	if cached != nil && c.options.Table.Version != Latest {
		return cached, nil
	}
	// The lock is not held while the catalog is asked: a slow answer must not
	// stop conversions that have one.
	schema, err := c.options.Schemas.Schema(ctx, c.options.Table)
	if err != nil {
		if cached != nil && ctx.Err() == nil {
			return cached, nil
		}
		return nil, catalogError(err)
	}
	if cached != nil && cached.version == schema.Version && slices.Equal(cached.columns, schema.Columns) && cached.timestamps == schema.Parameters[TimestampsParameter] {
		return cached, nil
	}
	p := c.prepare(schema)
	c.mu.Lock()
	c.cached = p
	c.mu.Unlock()
	return p, nil
}

// Texts of catalog faults that the service has words for.
var faultTexts = map[string]string{
	"EntityNotFound": "The specified table/database could not be found. Please ensure that the table/database exists and that the values " +
		"provided in the schema configuration are correct, especially with regards to casing.",
}

func catalogError(err error) error {
	e := &dest.Error{Code: CodePrefix + "InternalError", Message: "The table's schema could not be read.", Err: err}
	var fault *SchemaError
	if errors.As(err, &fault) {
		e.Code, e.Message = CodePrefix+fault.Code, fault.Message
		if text, ok := faultTexts[fault.Code]; ok {
			e.Message = text
		}
	}
	return e
}

// prepare reads the types of a schema.
func (c *Converter) prepare(s *Schema) *plan {
	p := &plan{version: s.Version, columns: s.Columns, timestamps: s.Parameters[TimestampsParameter]}
	fields, err := Fields(s.Columns, c.options.Input.Dialect)
	if c.options.Parquet != nil {
		o := *c.options.Parquet
		switch strings.ToLower(p.timestamps) {
		case "":
		case "int96":
			o.Timestamps = parquet.TimestampINT96
		case "micros":
			o.Timestamps = parquet.TimestampMicros
		default:
			err = fmt.Errorf("The table parameter %s is neither int96 nor micros.", TimestampsParameter)
		}
		p.parquet = &o
	}
	if err != nil {
		p.err = &serde.Error{Code: invalidSchema, Message: "The schema is invalid. " + err.Error()}
	}
	p.fields = fields
	return p
}

// Fields reads the columns of a table for a deserializer. Errors are whole
// sentences, for people.
func Fields(columns []Column, dialect serde.Dialect) ([]hive.Field, error) {
	if len(columns) == 0 {
		return nil, errors.New("The specified table has no columns.")
	}
	fields := make([]hive.Field, 0, len(columns))
	seen := map[string]bool{}
	for _, column := range columns {
		t, err := hive.Parse(column.Type)
		if err != nil {
			return nil, fmt.Errorf("Error parsing the schema: %w", err)
		}
		name := strings.ToLower(column.Name)
		switch {
		case name == "":
			return nil, errors.New("Error parsing the schema: a column has no name.")
		case seen[name]:
			return nil, fmt.Errorf("Error parsing the schema: the column '%s' appears twice.", column.Name)
		case dialect == serde.Hive && strings.Contains(name, "."):
			return nil, fmt.Errorf("Error parsing the schema: the column '%s' has a dot in its name.", column.Name)
		}
		seen[name] = true
		fields = append(fields, hive.Field{Name: column.Name, Type: t})
	}
	if n := leaves(fields); n > maxLeaves {
		return nil, fmt.Errorf("The table has %d columns, members included; at most %d can be converted.", n, maxLeaves)
	}
	return fields, nil
}

// failures collects the records of a batch that could not be converted. A batch
// may have millions of them, so that what is kept of each is little: fields are
// shared, and so are equal messages; beyond maxMessages different ones, messages
// leave the record's own values out.
type failures struct {
	fields   []dest.Field
	list     []dest.Failure
	messages map[string]string
}

const maxMessages = 10_000

// generic are messages without values of the record.
var generic = map[string]string{
	serde.ParseError:    "Encountered malformed JSON.",
	serde.MalformedData: "Data does not match the schema.",
}

func (f *failures) add(i int, err *serde.Error) {
	message, ok := f.messages[err.Message]
	switch {
	case ok:
	case len(f.messages) < maxMessages || generic[err.Code] == "":
		if f.messages == nil {
			f.messages = map[string]string{}
		}
		message = err.Message
		f.messages[message] = message
	default:
		message = generic[err.Code]
	}
	f.list = append(f.list, dest.Failure{Index: i, Code: codes[err.Code], Message: message, Fields: f.fields})
}

// codes are those of records, as failure records name them.
var codes = map[string]string{
	serde.ParseError: CodePrefix + serde.ParseError, serde.MalformedData: CodePrefix + serde.MalformedData, invalidSchema: CodePrefix + invalidSchema,
}

const invalidSchema = "InvalidSchema"

// FailureFields implements dest.Annotator: the place of a record, as far as it has
// one.
func (c *Converter) FailureFields(r *record.Record) []dest.Field {
	number, sub := dest.Field{Name: "sequenceNumber"}, dest.Field{Name: "subSequenceNumber"}
	if r.Lane != nil {
		number.Value = r.Lane.SequenceNumber(r.Index, r.Arrival)
	}
	if r.Sub > 0 {
		sub.Value = int64(r.Sub)
	}
	return []dest.Field{number, sub}
}
