package iceberg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/jsonscan"
	"github.com/millrace/millrace/internal/firehose/dest/loaded"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Members of a snapshot's summary: whose records, of which batch, and which.
const (
	summaryStream = "millrace.stream"
	summaryBatch  = "millrace.batch"
	summarySpans  = "millrace.records"
)

// change is one table's part of a batch on its way.
type change struct {
	*part
	d     *Destination
	ctx   context.Context
	batch *record.Batch
	table *state
	files *files

	schema  *iceberg.Schema
	columns []iceberg.NestedField
	earlier loaded.Set
	spans   loaded.Spans

	keys    []int           // indexes of the unique key's columns
	last    map[string]int  // by key: the index of the last update or delete
	deletes [][]any         // values of the keys, each once
	refused map[int]failure // in the first pass, by index

	failed []dest.Failure

	doubtful bool // whether the snapshot was committed
}

type failure struct{ code, message string }

// change makes one snapshot of a part.
func (d *Destination) change(ctx context.Context, b *record.Batch, p *part) (dest.Object, []dest.Failure, error) {
	unlock, err := d.lock(ctx, p.database, p.name)
	if err != nil {
		return dest.Object{}, nil, err
	}
	defer unlock()
	c := &change{part: p, d: d, ctx: ctx, batch: b, files: &files{ctx: ctx, store: d.deps.Store}}
	if err := c.open(); err != nil {
		return dest.Object{}, nil, err
	}
	if p.changes {
		if err := c.first(); err != nil {
			return dest.Object{}, nil, err
		}
	}
	snapshot, err := c.write()
	if err != nil {
		return dest.Object{}, nil, err
	}
	object := dest.Object{Name: p.database + "." + p.name, Records: len(p.indexes) - len(c.failed), Bytes: c.files.bytes}
	if snapshot != 0 {
		object.Name += "@" + strconv.FormatInt(snapshot, 10)
	}
	return object, c.failed, nil
}

// attempts is how often a change is brought to a table that others change too.
const attempts = 5

// open loads the table, makes it or widens it, and finds what it has already.
func (c *change) open() error {
	for attempt := 1; ; attempt++ {
		t, err := c.d.catalog.load(c.ctx, c.database, c.name)
		if errors.Is(err, errNoTable) {
			if !c.d.config.TableCreation {
				return err
			}
			if err := c.create(); err != nil && !errors.Is(err, errTableExists) && !errors.Is(err, errCommit) {
				return err
			}
			t, err = c.d.catalog.load(c.ctx, c.database, c.name)
		}
		if err != nil {
			return err
		}
		if err := usable(t); err != nil {
			return err
		}
		c.use(t)
		if c.earlier, err = account(t, c.batch); err != nil {
			return err
		}
		if c.d.config.SchemaEvolution {
			err = c.evolve()
		}
		if !errors.Is(err, errCommit) || attempt == attempts {
			return err
		}
	}
}

func (c *change) use(t *state) {
	c.table, c.schema, c.columns = t, t.meta.schema, t.meta.schema.Fields()
}

// account collects what the table's snapshots say about the delivery stream.
func account(t *state, b *record.Batch) (loaded.Set, error) {
	var set loaded.Set
	for _, s := range t.meta.snapshots {
		if s.Summary[summaryStream] != b.Stream.ARN {
			continue
		}
		spans, err := parseSpans(s.Summary[summarySpans])
		if err != nil {
			return nil, fmt.Errorf("snapshot %d: %w", s.ID, err)
		}
		for _, p := range spans {
			if p.Newest >= b.Oldest && p.Oldest <= b.Newest {
				set = append(set, p)
			}
		}
	}
	return set, nil
}

// stored is a span as it stands in a summary.
type stored struct {
	Lane   string    `json:"lane"`
	First  [2]uint64 `json:"first"`
	Last   [2]uint64 `json:"last"`
	Oldest int64     `json:"oldest"`
	Newest int64     `json:"newest"`
}

func parseSpans(text string) ([]loaded.Span, error) {
	if text == "" {
		return nil, nil
	}
	var list []stored
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("read the account of records: %w", err)
	}
	spans := make([]loaded.Span, 0, len(list))
	for _, s := range list {
		spans = append(spans, loaded.Span{
			Lane: s.Lane, Oldest: s.Oldest, Newest: s.Newest,
			First: record.Position{Index: s.First[0], Sub: uint32(s.First[1])}, Last: record.Position{Index: s.Last[0], Sub: uint32(s.Last[1])},
		})
	}
	return spans, nil
}

func formatSpans(spans []loaded.Span) string {
	list := make([]stored, 0, len(spans))
	for _, s := range spans {
		list = append(list, stored{s.Lane, [2]uint64{s.First.Index, uint64(s.First.Sub)}, [2]uint64{s.Last.Index, uint64(s.Last.Sub)}, s.Oldest, s.Newest})
	}
	text, _ := json.Marshal(list) // it always can be
	return string(text)
}

// each calls f for the part's records that the table does not have yet.
func (c *change) each(f func(i int, r *record.Record, operation string) error) error {
	k := 0
	var stopped error
	err := c.batch.Each(func(i int, r *record.Record) error {
		if k == len(c.indexes) || c.indexes[k] != i {
			return nil
		}
		k++
		if c.earlier.Has(r) {
			return nil
		}
		p, _, _ := c.d.route(r)
		stopped = f(i, r, p.operation)
		return stopped
	})
	if err != nil && !errors.Is(err, stopped) {
		return &errBatch{err}
	}
	return stopped
}

// object is the JSON object in a record.
func object(data []byte) ([]byte, *failure) {
	data = bytes.TrimSpace(data)
	switch {
	case !json.Valid(data):
		return nil, &failure{codeMalformed, "the record is not exactly one JSON document"}
	case data[0] != '{':
		return nil, &failure{codeMalformed, "the record is no JSON object"}
	case depth(data) > maxDepth:
		return nil, &failure{codeMalformed, fmt.Sprintf("the record is nested more than %d levels deep", maxDepth)}
	}
	return data, nil
}

// row makes a record's values.
func (c *change) row(data []byte, into []any) *failure {
	o, bad := object(data)
	if bad != nil {
		return bad
	}
	known, err := fields("", c.columns, o, into)
	var mismatched *typeError
	switch {
	case err == nil && known == 0:
		return &failure{codeMissingColumn, "no member of the record bears the name of a column; upper and lower case differ"}
	case err == nil:
		return nil
	case errors.As(err, &mismatched) && mismatched.missing:
		return &failure{codeMissingColumn, err.Error()}
	}
	return &failure{codeMismatch, err.Error()}
}

// uniqueKeys finds the columns by which rows are found.
func (c *change) uniqueKeys() error {
	wanted := c.d.settings(c.place).UniqueKeys
	columns := c.columns
	bad := func(format string, a ...any) error {
		return &dest.Error{Code: codeUniqueKeys, Message: fmt.Sprintf("table %s.%s: ", c.database, c.name) + fmt.Sprintf(format, a...)}
	}
	for i, f := range columns {
		key := false
		for _, name := range wanted {
			key = key || name == f.Name
		}
		if len(wanted) == 0 {
			for _, id := range c.schema.IdentifierFieldIDs {
				key = key || id == f.ID
			}
		}
		if !key {
			continue
		}
		switch f.Type.(type) {
		case iceberg.Float32Type, iceberg.Float64Type, *iceberg.StructType, *iceberg.ListType, *iceberg.MapType:
			return bad("column %s of type %s cannot be part of a unique key", f.Name, f.Type)
		}
		c.keys = append(c.keys, i)
	}
	switch {
	case len(c.keys) == 0:
		return bad("updates and deletes need unique keys, and there are none")
	case len(wanted) > 0 && len(c.keys) != len(wanted):
		return bad("not all of the unique keys %s are columns", strings.Join(wanted, ", "))
	}
	spec := c.table.meta.spec
	for _, f := range spec.Fields() {
		_, found := f.Transform.(iceberg.VoidTransform)
		for _, k := range c.keys {
			found = found || columns[k].ID == f.SourceID()
		}
		if !found {
			name, _ := c.schema.FindColumnName(f.SourceID())
			return bad("it is partitioned by %s, which must be one of the unique keys for updates and deletes", name)
		}
	}
	return nil
}

// keyOf is a text that is the same for equal keys; null says that a part of the
// key has no value.
func (c *change) keyOf(row []any) (key string, null bool) {
	var b strings.Builder
	for _, k := range c.keys {
		null = null || row[k] == nil
		text := fmt.Sprint(row[k])
		fmt.Fprintf(&b, "%d:%s", len(text), text)
	}
	return b.String(), null
}

// first goes through a part with updates or deletes: it finds which keys go, and
// for each the last record that makes it go. What stands before that in the
// batch has no effect.
func (c *change) first() error {
	if err := c.uniqueKeys(); err != nil {
		return err
	}
	c.last, c.refused = map[string]int{}, map[int]failure{}
	columns := c.columns
	row := make([]any, len(columns))
	return c.each(func(i int, r *record.Record, operation string) error {
		if operation == "insert" {
			return nil
		}
		var bad *failure
		if operation == "delete" { // needs the key only
			bad = c.keyRow(r.Data, row)
		} else {
			bad = c.row(r.Data, row)
		}
		var key string
		if bad == nil {
			var null bool
			if key, null = c.keyOf(row); null {
				bad = &failure{codeMissingColumn, "the record has no value for a column of the unique key"}
			}
		}
		if bad != nil {
			c.refused[i] = *bad
			return nil
		}
		if _, ok := c.last[key]; !ok {
			values := make([]any, 0, len(c.keys))
			for _, k := range c.keys {
				values = append(values, row[k])
			}
			c.deletes = append(c.deletes, values)
		}
		c.last[key] = i
		return nil
	})
}

// keyRow makes the values of the unique key's columns only.
func (c *change) keyRow(data []byte, into []any) *failure {
	o, bad := object(data)
	if bad != nil {
		return bad
	}
	columns := c.columns
	clear(into)
	for key, raw := range jsonscan.Members(o) {
		name := string(jsonscan.Unquote(key))
		for _, k := range c.keys {
			if columns[k].Name == name && raw[0] != 'n' {
				v, err := value(name, columns[k].Type, raw)
				if err != nil {
					return &failure{codeMismatch, err.Error()}
				}
				into[k] = v
			}
		}
	}
	return nil
}

// rows calls f with the rows that are to be written; a row is valid until the
// next one.
func (c *change) rows(f func(row []any) error) error {
	row := make([]any, len(c.columns))
	return c.each(func(i int, r *record.Record, operation string) error {
		c.spans.Add(r)
		bad, refused := c.refused[i]
		if !refused && operation != "delete" {
			if f := c.row(r.Data, row); f != nil {
				bad, refused = *f, true
			}
		}
		if refused {
			c.failed = append(c.failed, dest.Failure{Index: i, Code: bad.code, Message: bad.message})
			return nil
		}
		if operation == "delete" {
			return nil
		}
		if c.last != nil {
			if key, _ := c.keyOf(row); c.last[key] > i {
				return nil
			}
		}
		return f(row)
	})
}

// write stores the part's rows and deletes and commits them; 0 is no snapshot,
// because there was nothing to do.
func (c *change) write() (snapshot int64, err error) {
	defer func() {
		// What was written is of no use, unless it may have been committed.
		if err != nil && !c.doubtful {
			c.files.clean()
		}
	}()
	added, err := c.store(iceberg.EntryContentData, c.columns, c.rows)
	if err != nil {
		return 0, err
	}
	var removed []iceberg.DataFile
	if len(c.deletes) > 0 {
		var columns []iceberg.NestedField
		for _, k := range c.keys {
			columns = append(columns, c.columns[k])
		}
		removed, err = c.store(iceberg.EntryContentEqDeletes, columns, func(f func(row []any) error) error {
			for _, values := range c.deletes {
				if err := f(values); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	if len(added)+len(removed) == 0 {
		return 0, nil
	}
	next, err := c.prepare(added, removed)
	if err != nil {
		return 0, err
	}
	return c.commit(next)
}

// maxNewColumns bounds what one batch adds to a schema, or a struct has.
const maxNewColumns = 500

// unknown collects the members of a part's records that have no column, with
// types for them.
func (c *change) unknown(has func(name string) bool, next func() int) ([]iceberg.NestedField, error) {
	var found []iceberg.NestedField
	at := map[string]int{}
	err := c.each(func(_ int, r *record.Record, operation string) error {
		o, bad := object(r.Data)
		if bad != nil || operation == "delete" {
			return nil
		}
		for key, raw := range jsonscan.Members(o) {
			name := string(jsonscan.Unquote(key))
			if has(name) || name == "" {
				continue
			}
			i, ok := at[name]
			if !ok {
				if t := infer(raw, next); t != nil && len(found) < maxNewColumns {
					at[name] = len(found)
					found = append(found, iceberg.NestedField{ID: next(), Name: name, Type: t})
				}
				continue
			}
			// What is not whole in one record is not in the column.
			if found[i].Type == iceberg.PrimitiveTypes.Int64 && infer(raw, next) == iceberg.PrimitiveTypes.Float64 {
				found[i].Type = iceberg.PrimitiveTypes.Float64
			}
		}
		return nil
	})
	return found, err
}

// create makes the table with a column for every member of the part's records.
func (c *change) create() error {
	ids := 0
	columns, err := c.unknown(func(string) bool { return false }, func() int { ids++; return ids })
	if err != nil {
		return err
	}
	if len(columns) == 0 {
		return &dest.Error{Code: codeNoSuchTable, Message: "the table is missing, and no record says which columns it should have"}
	}
	var spec *iceberg.PartitionSpec
	var partitions []iceberg.PartitionField
	for n, name := range c.d.settings(c.place).Partition {
		for _, f := range columns {
			if f.Name == name {
				partitions = append(partitions, iceberg.PartitionField{
					SourceIDs: []int{f.ID}, FieldID: 1000 + n, Name: name, Transform: iceberg.IdentityTransform{},
				})
			}
		}
		if len(partitions) != n+1 {
			return &dest.Error{Code: codeNoSuchTable, Message: fmt.Sprintf("the table is missing and is to be partitioned by %s, which no record has", name)}
		}
	}
	if len(partitions) > 0 {
		s := iceberg.NewPartitionSpec(partitions...)
		spec = &s
	}
	return c.d.catalog.create(c.ctx, c.database, c.name, iceberg.NewSchema(0, columns...), spec)
}

// evolve adds columns for members that have none.
func (c *change) evolve() error {
	known := map[string]bool{}
	for _, f := range c.columns {
		known[f.Name] = true
	}
	m := c.table.meta
	ids := m.LastColumn
	columns, err := c.unknown(func(name string) bool { return known[name] }, func() int { ids++; return ids })
	if err != nil || len(columns) == 0 {
		return err
	}
	last := m.CurrentSchema
	for _, text := range m.Schemas {
		var s struct {
			ID int `json:"schema-id"`
		}
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		last = max(last, s.ID)
	}
	schema := iceberg.NewSchemaWithIdentifiers(last+1, c.schema.IdentifierFieldIDs, append(c.columns[:len(c.columns):len(c.columns)], columns...)...)
	if _, err := iceberg.IndexByName(schema); err != nil {
		return &dest.Error{Code: codeMismatch, Message: clipMessage("columns cannot be added: " + err.Error()), Err: err}
	}
	t, err := c.d.catalog.commit(c.ctx, c.table, widen(m, schema))
	if err != nil {
		return err
	}
	if err := usable(t); err != nil {
		return err
	}
	c.use(t)
	return nil
}
