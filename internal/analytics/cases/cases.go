// Package cases runs programs with their input against the rows they must
// produce, under a virtual clock.
//
// The one idea: a case is a JSON file that says everything: source streams with
// their mappings, rows with the instants at which they come, reference tables,
// where the clock stands in the end, and the complete contents of the streams
// that matter. So a case needs no network and no waiting, and can be run in other
// ways (in other batches, stopped and resumed) that must give the same rows.
package cases

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// Case is one program with its input and output.
type Case struct {
	Name      string                      `json:"name"`
	Doc       string                      `json:"doc,omitempty"`
	SQL       string                      `json:"sql"`
	Inputs    []Input                     `json:"inputs"`
	Reference []Reference                 `json:"reference,omitempty"`
	AdvanceTo time.Time                   `json:"advance_to"`
	Expect    map[string][]map[string]any `json:"expect"`
	Error     string                      `json:"expect_error,omitempty"`
	Unordered bool                        `json:"unordered"`
	Tolerance float64                     `json:"tolerance,omitempty"`
}

// Column is a column of an input or a reference table.
type Column struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Mapping string `json:"mapping,omitempty"`
}

// Input is a source stream with its records.
type Input struct {
	Stream          string   `json:"stream"`
	Format          string   `json:"format,omitempty"`
	RowDelimiter    string   `json:"row_delimiter,omitempty"`
	ColumnDelimiter string   `json:"column_delimiter,omitempty"`
	RowPath         string   `json:"row_path,omitempty"`
	Columns         []Column `json:"columns"`
	Rows            []Row    `json:"rows"`
}

// Row is a record and the instant at which it comes.
type Row struct {
	At   time.Time       `json:"at"`
	Data json.RawMessage `json:"data,omitempty"`
	Raw  *string         `json:"raw,omitempty"`
}

// Reference is a reference table.
type Reference struct {
	Table           string            `json:"table"`
	Format          string            `json:"format,omitempty"`
	RowDelimiter    string            `json:"row_delimiter,omitempty"`
	ColumnDelimiter string            `json:"column_delimiter,omitempty"`
	Columns         []Column          `json:"columns"`
	Rows            []json.RawMessage `json:"rows,omitempty"`
	Raw             string            `json:"raw,omitempty"`
}

// Parse reads a case file.
func Parse(raw []byte) (*Case, error) {
	c := &Case{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // BIGINT has more digits than a float64
	if err := d.Decode(c); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the case")
	}
	if c.SQL == "" {
		return nil, errors.New("a case has a program: sql")
	}
	return c, nil
}

// Options of a run.
type Options struct {
	// Batch is how many rows are inserted together at most; 0 is one by one.
	Batch int
	// Resume stops the program behind every insert, and has another go on from its
	// snapshot.
	Resume bool
	// Kill has every insert done twice: once, and again by another program that goes
	// on from the snapshot before. What the first one put out is forgotten.
	Kill bool
	// Workers is how many goroutines share the work; see run.Options.
	Workers int
	// Relay has programs that go on have other numbers of workers than the one
	// before.
	Relay bool
}

// Run runs a case. The error says in what the result differs from what is
// expected.
func (c *Case) Run(o Options) error {
	got, err := c.rows(o)
	if c.Error != "" {
		var refused sql.Errors
		switch {
		case err == nil:
			return fmt.Errorf("the program is not refused with %s", c.Error)
		case !errors.As(err, &refused):
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	var problems []string
	for _, name := range sortedKeys(c.Expect) {
		if p := c.compare(got[name], c.Expect[name]); p != "" {
			problems = append(problems, name+": "+p)
		}
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Load reads the rows of a reference table.
func (ref Reference) Load() (plan.Relation, *run.Rows, error) {
	columns := slices.Clone(ref.Columns)
	for i := range columns {
		if columns[i].Mapping == "" && ref.Format != "CSV" {
			columns[i].Mapping = "$." + columns[i].Name
		}
	}
	r, format, err := relation(ref.Table, columns, ref.Format, ref.RowDelimiter, ref.ColumnDelimiter)
	if err != nil {
		return r, nil, err
	}
	p, err := run.NewParser(format)
	if err != nil {
		return r, nil, fmt.Errorf("reference table %s: %w", ref.Table, err)
	}
	rows := run.NewRows(r.Columns)
	refuse := func(name, message, _ string) { err = fmt.Errorf("reference table %s: %s", ref.Table, message) }
	for _, raw := range ref.Rows {
		p.Parse(rows, string(raw), 0, nil, refuse)
	}
	p.Parse(rows, ref.Raw, 0, nil, refuse)
	return r, rows, err
}

// rows runs the program and collects what was inserted into each stream.
func (c *Case) rows(o Options) (map[string][]map[string]any, error) {
	var catalog plan.Catalog
	parsers := make([]*run.Parser, len(c.Inputs))
	for i, in := range c.Inputs {
		r, format, err := relation(in.Stream, in.Columns, in.Format, in.RowDelimiter, in.ColumnDelimiter)
		if err != nil {
			return nil, err
		}
		format.RowPath = in.RowPath
		if parsers[i], err = run.NewParser(format); err != nil {
			return nil, err
		}
		catalog.Sources = append(catalog.Sources, r)
	}
	tables := map[string]*run.Rows{}
	for _, ref := range c.Reference {
		r, rows, err := ref.Load()
		if err != nil {
			return nil, err
		}
		tables[ref.Table] = rows
		catalog.Tables = append(catalog.Tables, r)
	}
	// What the dialect refuses is refused without millrace's additions to it.
	program, err := plan.Compile(c.SQL, catalog, plan.Options{Extensions: c.Error == ""})
	if err != nil {
		return nil, err
	}
	clock := c.start()
	got := map[string][]map[string]any{}
	app, err := c.open(program, o, &clock, tables, got)
	if err != nil {
		return nil, err
	}
	app.Start()
	resume := func(snapshot []byte) error {
		if o.Relay {
			o.Workers = o.Workers%4 + 1
		}
		if app, err = c.open(program, o, &clock, tables, got); err != nil {
			return err
		}
		kept, err := app.Restore(snapshot)
		if err == nil && len(kept) < len(program.Pumps) {
			err = fmt.Errorf("only %v went on", kept)
		}
		return err
	}
	advance := func(to time.Time) error {
		clock = to
		for _, in := range c.Inputs {
			if err := app.Advance(in.Stream, to.UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	}
	insert := func(best int, next []int) error {
		in := c.Inputs[best]
		if err := advance(in.Rows[next[best]].At); err != nil {
			return err
		}
		rows := run.NewRows(append(slices.Clone(catalog.Sources[best].Columns), plan.HiddenColumns...))
		for n := 0; n < max(o.Batch, 1) && next[best] < len(in.Rows) && (n == 0 || c.uninterrupted(best, next)); n++ {
			row := in.Rows[next[best]]
			next[best]++
			clock = row.At
			hidden := []plan.Value{{I: row.At.UnixMilli()}, {Null: true}, {Null: true}, {S: "shardId-000000000000"}}
			record := string(row.Data)
			if row.Raw != nil {
				record = *row.Raw
			}
			parsers[best].Parse(rows, record, row.At.UnixMilli(), hidden, func(name, message, raw string) {
				app.Refuse(name, message, raw, row.At.UnixMilli())
			})
		}
		if rows.Len() > 0 {
			if err := app.Insert(in.Stream, rows.Batch()); err != nil {
				return err
			}
		}
		return nil
	}
	next := make([]int, len(c.Inputs))
	for {
		best := -1
		for i, in := range c.Inputs {
			if next[i] < len(in.Rows) && (best < 0 || in.Rows[next[i]].At.Before(c.Inputs[best].Rows[next[best]].At)) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		if o.Kill {
			snapshot, before := app.Snapshot(nil), map[string]int{}
			for name, rows := range got {
				before[name] = len(rows)
			}
			if err := insert(best, slices.Clone(next)); err != nil {
				return nil, err
			}
			for name := range got {
				got[name] = got[name][:before[name]]
			}
			if err := resume(snapshot); err != nil {
				return nil, err
			}
		}
		if err := insert(best, next); err != nil {
			return nil, err
		}
		if o.Resume {
			if err := resume(app.Snapshot(nil)); err != nil {
				return nil, err
			}
		}
	}
	if err := advance(c.AdvanceTo); err != nil {
		return nil, err
	}
	return got, nil
}

// open makes the application, whose rows go to got.
func (c *Case) open(program *plan.Program, o Options, clock *time.Time, tables map[string]*run.Rows, got map[string][]map[string]any) (*run.Application, error) {
	app := run.New(program, run.Options{Now: func() time.Time { return *clock }, Seed: 1, Workers: o.Workers})
	for name, rows := range tables {
		if err := app.SetTable(name, rows); err != nil {
			return nil, err
		}
	}
	for name := range c.Expect {
		columns, ok := app.Stream(name)
		if !ok {
			return nil, fmt.Errorf("the program makes no stream %s", name)
		}
		if err := app.Tap(name, func(b *run.Batch) {
			for _, i := range b.Sel {
				row := map[string]any{"ROWTIME": instant(b.Time[i])}
				for k, col := range columns {
					row[col.Name] = goValue(b.Value(columns, k, i), col.Type)
				}
				got[name] = append(got[name], row)
			}
		}); err != nil {
			return nil, err
		}
	}
	return app, nil
}

// uninterrupted reports whether no other input has a row before the next one of
// an input, so that it can go into the same batch.
func (c *Case) uninterrupted(input int, next []int) bool {
	at := c.Inputs[input].Rows[next[input]].At
	for i, in := range c.Inputs {
		if i != input && next[i] < len(in.Rows) && !in.Rows[next[i]].At.After(at) {
			return false
		}
	}
	return true
}

// start is an instant before all others.
func (c *Case) start() time.Time {
	at := c.AdvanceTo
	for _, in := range c.Inputs {
		for _, r := range in.Rows {
			if r.At.Before(at) {
				at = r.At
			}
		}
	}
	return at
}

func relation(name string, columns []Column, format, rowDelimiter, columnDelimiter string) (plan.Relation, run.Format, error) {
	r := plan.Relation{Name: name}
	f := run.Format{CSV: format == "CSV", RowDelimiter: rowDelimiter, ColumnDelimiter: columnDelimiter}
	for _, c := range columns {
		t, err := sql.ParseType(c.Type)
		if err != nil {
			return r, f, fmt.Errorf("column %s of %s: %w", c.Name, name, err)
		}
		r.Columns = append(r.Columns, plan.ColumnInfo{Name: c.Name, Type: t})
		f.Columns = append(f.Columns, run.SourceColumn{Name: c.Name, Type: t, Mapping: c.Mapping})
	}
	return r, f, nil
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// goValue is a value as a case file has it.
func goValue(v plan.Value, t sql.Type) any {
	if v.Null {
		return nil
	}
	switch t.Kind {
	case sql.KindBoolean:
		return v.I != 0
	case sql.KindTimestamp:
		return instant(v.I)
	case sql.KindDate:
		return time.UnixMilli(v.I).UTC().Format("2006-01-02")
	case sql.KindTime:
		return strings.TrimSuffix(time.UnixMilli(v.I).UTC().Format("15:04:05.000"), ".000")
	case sql.KindDecimal:
		return float64(v.I) / math.Pow10(t.Scale)
	case sql.KindBinary, sql.KindVarbinary:
		return base64.StdEncoding.EncodeToString([]byte(v.S))
	}
	switch plan.ClassOf(t) {
	case plan.ClassFloat:
		return v.F
	case plan.ClassString:
		return v.S
	}
	return v.I
}

// compare says in what rows differ from the expected ones, empty if in nothing.
func (c *Case) compare(got, want []map[string]any) string {
	for i := 1; i < len(got); i++ {
		if got[i]["ROWTIME"].(string) < got[i-1]["ROWTIME"].(string) {
			return fmt.Sprintf("row %d goes back in time: %s", i+1, text(got[i]))
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d rows, expected %d: %s", len(got), len(want), texts(got))
	}
	if !c.Unordered {
		for i := range want {
			if p := c.differs(got[i], want[i]); p != "" {
				return fmt.Sprintf("row %d: %s", i+1, p)
			}
		}
		return ""
	}
	left := slices.Clone(got)
	for i, w := range want {
		at := slices.IndexFunc(left, func(g map[string]any) bool { return c.differs(g, w) == "" })
		if at < 0 {
			return fmt.Sprintf("expected row %d is missing: %s; left are %s", i+1, text(w), texts(left))
		}
		left = slices.Delete(left, at, at+1)
	}
	return ""
}

func text(row map[string]any) string {
	raw, err := json.Marshal(row)
	if err != nil {
		return fmt.Sprint(row)
	}
	return string(raw)
}

func texts(rows []map[string]any) string {
	var list []string
	for _, r := range rows[:min(len(rows), 10)] {
		list = append(list, text(r))
	}
	return strings.Join(list, " ")
}

// differs compares the columns that the expected row has.
func (c *Case) differs(got, want map[string]any) string {
	for _, k := range sortedKeys(want) {
		g, ok := got[k]
		if !ok {
			return fmt.Sprintf("there is no column %s", k)
		}
		if !c.equal(g, want[k]) {
			return fmt.Sprintf("%s is %v, expected %v", k, g, want[k])
		}
	}
	return ""
}

func (c *Case) equal(got, want any) bool {
	number, ok := want.(json.Number)
	if !ok {
		return got == want
	}
	w, err := number.Float64()
	if err != nil {
		return false
	}
	var g float64
	switch got := got.(type) {
	case int64: // exactly
		if n, err := number.Int64(); err == nil {
			return n == got
		}
		return w == math.Trunc(w) && w == float64(got)
	case float64:
		g = got
	default:
		return false
	}
	if g == w {
		return true
	}
	if g == math.Trunc(g) && w == math.Trunc(w) && math.Abs(w) < 1<<53 && c.Tolerance == 0 {
		return false
	}
	tolerance := c.Tolerance
	if tolerance == 0 {
		tolerance = 1e-9
	}
	return math.Abs(g-w) <= tolerance*math.Max(math.Abs(g), math.Abs(w))
}
