package run

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// Options of an Application.
type Options struct {
	// Now is the application's clock; time.Now if nil.
	Now func() time.Time
	// Seed makes what is random repeatable: the forests of RANDOM_CUT_FOREST.
	Seed uint64
	// Workers is how many goroutines share the work of a large batch, at most; 0 is
	// one per processor that Go may use, 1 has the caller do everything. Results do
	// not depend on it, nor does what a snapshot can be restored into.
	Workers int
	// MemoryLimit is how many bytes the state may take; 0 is no limit. It is compared
	// with what is measured between rows: as the room for what is kept doubles, a
	// state can be past it by most of it before that is seen.
	MemoryLimit int64
}

// Application is a program that runs. Its methods are called one at a time.
type Application struct {
	program *plan.Program
	options Options
	x       *context
	streams map[*plan.Stream]*stream
	names   map[string]*stream
	tables  map[*plan.Table]*table
	lookups []*lookup
	errors  *stream
	parts   []*part
	meters  []*meter
	workers *crew
	// contexts are those of the workers, beside x.
	contexts []*context
	working  bool // operators are at work
	failures []failedRow

	rows, fed int64 // rows and bytes that have gone into streams
	checked   int64 // what fed was when the state was looked at
	step      int64 // what it grows by until the next look
	full      error // ErrMemory with its reason, once the limit was reached
	started   bool
}

// stream is a running in-application stream.
type stream struct {
	app     *Application
	plan    *plan.Stream
	readers []sink
	taps    []func(*Batch)
	high    int64 // time of the newest row
	told    int64 // the newest bound
}

// ErrorColumns are those of the error stream.
var ErrorColumns = []plan.ColumnInfo{
	{Name: "ERROR_TIME", Type: sql.Type{Kind: sql.KindTimestamp}},
	{Name: "ERROR_LEVEL", Type: sql.Type{Kind: sql.KindVarchar, Length: 10}},
	{Name: "ERROR_NAME", Type: sql.Type{Kind: sql.KindVarchar, Length: 32}},
	{Name: "MESSAGE", Type: sql.Type{Kind: sql.KindVarchar, Length: 4096}},
	{Name: "DATA_ROWTIME", Type: sql.Type{Kind: sql.KindTimestamp}},
	{Name: "DATA_ROW", Type: sql.Type{Kind: sql.KindVarchar, Length: 49152}},
	{Name: "PUMP_NAME", Type: sql.Type{Kind: sql.KindVarchar, Length: 128}},
}

// New makes an application ready to start.
func New(program *plan.Program, o Options) *Application {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Application{program: program, options: o, x: &context{now: o.Now, start: o.Now().UnixMilli()},
		streams: map[*plan.Stream]*stream{}, names: map[string]*stream{}, tables: map[*plan.Table]*table{}}
	a.x.app = a
	a.workers = newCrew(o.Workers)
	for _, s := range program.Streams {
		st := &stream{app: a, plan: s, high: never, told: never}
		a.streams[s], a.names[s.Name] = st, st
	}
	a.errors = &stream{app: a, plan: &plan.Stream{Name: plan.ErrorStream, Columns: ErrorColumns}, high: never, told: never}
	a.names[plan.ErrorStream] = a.errors
	for _, t := range program.Tables {
		a.tables[t] = newTable(t.Columns)
	}
	merges := map[*plan.Stream]*merge{}
	branch := map[*plan.Stream]int{}
	for _, s := range program.Streams {
		running := 0
		for _, p := range program.Pumps {
			if p.Target == s && !p.Stopped {
				running++
			}
		}
		if running > 1 {
			m := newMerge(s.Columns, running, &target{app: a, s: a.streams[s]})
			merges[s] = m
			// Rows that wait belong to their stream; the pumps that feed it are its text.
			p := &part{name: "stream " + s.Name, ops: []stateful{m}}
			a.meters = append(a.meters, &meter{name: "rows that wait for others in " + p.name, op: m})
			for _, pump := range program.Pumps {
				if pump.Target == s && !pump.Stopped {
					p.text += pump.Text + ";"
				}
			}
			a.parts = append(a.parts, p)
		}
	}
	for _, p := range program.Pumps {
		if p.Stopped {
			continue
		}
		kept := &part{name: "pump " + p.Name, text: p.Text}
		var to sink = &target{app: a, s: a.streams[p.Target], pump: p.Name}
		if m := merges[p.Target]; m != nil {
			// What a row fails for is known before rows of several pumps are merged.
			ch := &checked{target: target{app: a, s: a.streams[p.Target], pump: p.Name}, next: m.side(branch[p.Target])}
			branch[p.Target]++
			to = ch
			// By itself: the pump keeps its state when another comes to its stream, or goes.
			a.parts = append(a.parts, &part{name: "merged pump " + p.Name, text: p.Text, ops: []stateful{ch}})
		}
		name := p.Name
		a.parts = append(a.parts, kept)
		promoted := &part{name: "promoted pump " + p.Name, text: p.Text}
		c := &builder{app: a, x: a.x, part: kept, promoted: promoted,
			report: func(b *Batch, columns []plan.ColumnInfo, row int32, f failure) {
				a.errorRow(f, b.Time[row], hex.EncodeToString(AppendJSON(nil, columns, b, row)), &name)
			},
			refuse: func(f failure, rowtime int64, data string) { a.errorRow(f, rowtime, data, &name) },
			scans:  func(s *plan.Stream, to sink) { a.streams[s].readers = append(a.streams[s].readers, to) },
		}
		c.build(p.Root, to)
		if promoted.ops != nil {
			a.parts = append(a.parts, promoted)
		}
	}
	a.meters = append(a.meters, &meter{name: "reference tables", op: tableMeter{a}})
	a.look()
	return a
}

// Stream names the stream with its columns; ok is false if there is none.
func (a *Application) Stream(name string) (columns []plan.ColumnInfo, ok bool) {
	s := a.names[name]
	if s == nil {
		return nil, false
	}
	return s.plan.Columns, true
}

// Tap has f called for every batch that is inserted into a stream. The batch is
// f's until it returns.
func (a *Application) Tap(name string, f func(b *Batch)) error {
	s := a.names[name]
	if s == nil {
		return fmt.Errorf("there is no stream %s", sql.Quote(name))
	}
	s.taps = append(s.taps, f)
	return nil
}

// SetTable puts rows in place of a reference table's.
func (a *Application) SetTable(name string, rows *Rows) error {
	for p := range a.tables {
		if p.Name == name {
			t := newTable(p.Columns)
			b := rows.Batch()
			for _, i := range b.Sel {
				t.add(b, i)
			}
			a.tables[p] = t
			for _, l := range a.lookups {
				l.table = nil
			}
			a.look()
			return nil
		}
	}
	return fmt.Errorf("there is no reference table %s", sql.Quote(name))
}

// readTable runs a query over tables.
func (a *Application) readTable(c *builder, n plan.Node, to sink) {
	var scans []func()
	reader := *c
	reader.part = nil
	reader.tables = func(t *plan.Table, to sink) {
		scans = append(scans, func() {
			if b := a.tables[t].batch(); b.N > 0 {
				to.rows(b)
			}
			to.end()
		})
	}
	reader.values = func(n *plan.Rows, to sink) {
		scans = append(scans, func() {
			if t := a.constants(n.Columns(), n.Values, nil); t.len() > 0 {
				to.rows(t.batch())
			}
			to.end()
		})
	}
	before := len(a.lookups)
	reader.build(n, to)
	a.lookups = a.lookups[:before]
	for _, scan := range scans {
		scan()
	}
}

// Start runs what runs once.
func (a *Application) Start() {
	if a.started {
		return
	}
	a.started = true
	for _, in := range a.program.Inserts {
		to := &target{app: a, s: a.streams[in.Target]}
		if t := a.constants(in.Target.Columns, in.Rows, in.Times); t.len() > 0 {
			to.rows(t.batch())
		}
	}
}

// constants computes the rows of VALUES, and their times if they have some of
// their own. A row that fails is reported and left out.
func (a *Application) constants(columns []plan.ColumnInfo, rows [][]plan.Expr, times []plan.Expr) *table {
	now := a.options.Now().UnixMilli()
	t := newTable(columns)
	one := &Batch{N: 1, Time: []int64{now}, Sel: all(1)}
	for r, row := range rows {
		a.x.begin(1)
		at := now
		if times != nil {
			typ := times[r].Type()
			v := compile(times[r])(a.x, one, one.Sel).at(&typ, 0)
			if v.Null {
				a.x.failed(0, fail(nullViolation, "ROWTIME cannot be NULL"))
			}
			at = v.I
		}
		values := make([]plan.Value, len(row))
		for i, e := range row {
			typ := e.Type()
			values[i] = compile(e)(a.x, one, one.Sel).at(&typ, 0)
		}
		if len(a.x.fails) > 0 {
			a.errorRow(a.x.fails[0].failure, now, "", nil)
			continue
		}
		t.time = append(t.time, at)
		for i, v := range values {
			t.cols[i].addValue(v)
		}
	}
	return t
}

// Insert puts rows into an input stream, in order of time. Times never go back;
// what is older than a bound given before is brought up to it.
func (a *Application) Insert(name string, b *Batch) error {
	s := a.names[name]
	if s == nil || !s.plan.Source {
		return fmt.Errorf("there is no input stream %s", sql.Quote(name))
	}
	if len(b.Sel) == 0 {
		return nil
	}
	low := max(s.high, s.told)
	for _, i := range b.Sel {
		if b.Time[i] < low {
			b.Time[i] = low
		}
		low = b.Time[i]
	}
	return a.run(func() { s.insert(b) })
}

// Advance promises that no row of an input stream will be older than t.
func (a *Application) Advance(name string, t int64) error {
	s := a.names[name]
	if s == nil || !s.plan.Source {
		return fmt.Errorf("there is no input stream %s", sql.Quote(name))
	}
	return a.run(func() { s.bound(t) })
}

// run has operators work. What rows fail for is put out in the end, in order of
// the rows' time: operators come one after the other for a whole batch, and that
// should not show. Failures of one instant are in no particular order.
func (a *Application) run(work func()) (err error) {
	if a.full != nil {
		return a.full
	}
	a.working = true
	defer func() {
		a.working = false
		if r := recover(); r != nil {
			full, ok := r.(fullError)
			if !ok {
				panic(r)
			}
			a.full = full.error
			err = a.full
		}
	}()
	work()
	if a.fed-a.checked >= a.step {
		a.check(false)
	}
	slices.SortStableFunc(a.failures, func(f, g failedRow) int { return cmp.Compare(f.rowtime, g.rowtime) })
	for _, f := range a.failures {
		a.putError(f)
	}
	clear(a.failures)
	a.failures = a.failures[:0]
	return nil
}

func (s *stream) insert(b *Batch) {
	s.app.account(b)
	s.high = b.Time[b.Sel[len(b.Sel)-1]]
	for _, tap := range s.taps {
		tap(b)
	}
	for _, r := range s.readers {
		r.rows(b)
	}
	s.bound(s.high)
}

func (s *stream) bound(t int64) {
	if t <= s.told {
		return
	}
	s.told = t
	for _, r := range s.readers {
		r.bound(t)
	}
}

// target inserts a pump's rows into its stream.
type target struct {
	app  *Application
	s    *stream
	pump string
	sel  []int32
}

// accepted are the rows that the stream takes: NOT NULL columns have values.
func (t *target) accepted(b *Batch) []int32 {
	columns := t.s.plan.Columns
	sel := b.Sel
	for c, col := range columns {
		if !col.NotNull || b.Cols[c].Null == nil {
			continue
		}
		t.sel = t.sel[:0]
		for _, i := range sel {
			if b.Cols[c].null(i) {
				t.refuse(b, i, failure{nullViolation, fmt.Sprintf("the column %s of %s cannot be NULL", sql.Quote(col.Name), sql.Quote(t.s.plan.Name))})
				continue
			}
			t.sel = append(t.sel, i)
		}
		sel = append([]int32(nil), t.sel...)
	}
	return sel
}

func (t *target) refuse(b *Batch, i int32, f failure) {
	var name *string
	if t.pump != "" {
		name = &t.pump
	}
	t.app.errorRow(f, b.Time[i], hex.EncodeToString(AppendJSON(nil, t.s.plan.Columns, b, i)), name)
}

func (t *target) rows(b *Batch) {
	sel := t.accepted(b)
	// Rows never go back in time.
	high := t.s.high
	late := false
	for _, i := range sel {
		if b.Time[i] < high {
			late = true
			break
		}
		high = b.Time[i]
	}
	if late {
		kept := make([]int32, 0, len(sel))
		high = t.s.high
		for _, i := range sel {
			if b.Time[i] < high {
				t.refuse(b, i, failure{lateRow, "the row is older than what the stream has already"})
				continue
			}
			high = b.Time[i]
			kept = append(kept, i)
		}
		sel = kept
	}
	if len(sel) > 0 {
		t.s.insert(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: sel})
	}
}

func (t *target) bound(at int64) { t.s.bound(at) }
func (t *target) end()           {}

// checked refuses what a stream does not take, before rows are merged.
type checked struct {
	target
	high int64
	any  bool
	next sink
}

func (c *checked) rows(b *Batch) {
	sel := c.accepted(b)
	kept := make([]int32, 0, len(sel))
	for _, i := range sel {
		if c.any && b.Time[i] < c.high {
			c.refuse(b, i, failure{lateRow, "the row is older than what its pump has put out already"})
			continue
		}
		c.any, c.high = true, b.Time[i]
		kept = append(kept, i)
	}
	if len(kept) > 0 {
		c.next.rows(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: kept})
	}
}

func (c *checked) bound(at int64) { c.next.bound(at) }

// failedRow is a row of the error stream.
type failedRow struct {
	failure
	rowtime int64
	data    string
	pump    *string
}

// errorRow inserts a row into the error stream.
func (a *Application) errorRow(f failure, rowtime int64, data string, pump *string) {
	if len(a.errors.taps) == 0 {
		return
	}
	if row := (failedRow{f, rowtime, data, pump}); a.working {
		a.failures = append(a.failures, row)
	} else {
		a.putError(row)
	}
}

func (a *Application) putError(f failedRow) {
	now := a.options.Now().UnixMilli()
	t := newTable(ErrorColumns)
	at := max(now, a.errors.high)
	t.time = append(t.time, at)
	name := plan.Value{Null: true}
	if f.pump != nil {
		name = plan.Value{S: *f.pump}
	}
	for i, v := range []plan.Value{{I: now}, {S: "ERROR"}, {S: f.name}, {S: fit(f.message, ErrorColumns[3].Type)}, {I: f.rowtime}, {S: fit(f.data, ErrorColumns[5].Type)}, name} {
		t.cols[i].addValue(v)
	}
	a.errors.insert(t.batch())
}

// Refuse reports a record, or a row of one, that could not be read from a source.
func (a *Application) Refuse(name, message, row string, at int64) {
	a.errorRow(failure{name, message}, at, hex.EncodeToString([]byte(row)), nil)
}
