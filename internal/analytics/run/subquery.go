package run

import (
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// maxAnswers and maxAnswerRows bound what is remembered of the answers of a query
// that depends on the row outside: of more, all are forgotten and found again.
const (
	maxAnswers    = 1 << 16
	maxAnswerRows = 1 << 18
)

// subquery evaluates a query that is a value. What it reads are tables, which
// stay the same from one load to the next, so answers are kept: one, or, if the
// query depends on the row outside, one for each combination of the values it
// takes from there.
type subquery struct {
	e       *plan.Subquery
	tables  []*plan.Table
	loaded  []*table // what the answers were found in
	outer   []eval
	operand []eval
	keys    []plan.ColumnInfo // of answers
	answers *groups
	list    []*answer
	rows    int // in all answers
	matches map[*plan.Filter]*matching
	nested  map[*plan.Subquery]*subquery
}

// answer is what a query has said.
type answer struct {
	failed *failure
	rows   int
	value  plan.Value
	// Of IN: the distinct rows without NULLs, and all that have some.
	groups *groups
	loose  [][]plan.Value
}

func compileSubquery(e *plan.Subquery) eval {
	s := &subquery{e: e, tables: plan.Tables(e.Query)}
	types := make([]sql.Type, len(e.Operand))
	for _, o := range e.Outer {
		s.outer = append(s.outer, compile(o))
		s.keys = append(s.keys, plan.ColumnInfo{Type: o.Type()})
	}
	for i, o := range e.Operand {
		s.operand = append(s.operand, compile(o))
		types[i] = o.Type()
	}
	class := plan.ClassOf(e.T)
	var out Vector
	own := s
	return func(x *context, b *Batch, sel []int32) *Vector {
		s := own
		if x.nested != nil {
			// The query around it is built for each row outside; this one's answers stay.
			if s = x.nested[e]; s == nil {
				s = own
				x.nested[e] = s
			}
		}
		s.fresh(x)
		// The evaluators may share memory.
		outer, operand := make([]*Vector, len(s.outer)), make([]*Vector, len(s.operand))
		for i, f := range s.outer {
			outer[i] = copied(f(x, b, sel), b.N)
		}
		for i, f := range s.operand {
			operand[i] = copied(f(x, b, sel), b.N)
		}
		out.resize(class, b.N)
		for _, i := range sel {
			if x.bad[i] {
				continue
			}
			a := s.answer(x, outer, i)
			if a.failed != nil {
				x.failed(i, a.failed)
				continue
			}
			v := a.value
			switch e.Kind {
			case plan.ExistsQuery:
				v = truthOf(a.rows > 0)
			case plan.InQuery:
				v = a.has(operand, types, i)
			}
			set(&out, class, b.N, i, &v)
		}
		return &out
	}
}

func truthOf(yes bool) plan.Value {
	if yes {
		return plan.Value{I: 1}
	}
	return plan.Value{}
}

// fresh forgets the answers if a table has been loaded since.
func (s *subquery) fresh(x *context) {
	same := s.answers != nil
	for i, t := range s.tables {
		same = same && s.loaded[i] == x.app.tables[t]
	}
	if same {
		return
	}
	s.loaded = make([]*table, len(s.tables))
	for i, t := range s.tables {
		s.loaded[i] = x.app.tables[t]
	}
	s.matches, s.nested = map[*plan.Filter]*matching{}, map[*plan.Subquery]*subquery{}
	s.forget()
}

func (s *subquery) forget() {
	s.answers, s.list, s.rows = newGroups(s.keys), nil, 0
}

// answer is what the query says to a row.
func (s *subquery) answer(x *context, outer []*Vector, i int32) *answer {
	if len(s.list) >= maxAnswers || s.rows >= maxAnswerRows && len(s.list) > 1 {
		s.forget()
	}
	id := 0
	if len(outer) > 0 {
		id, _ = s.answers.find(outer, i)
	}
	if id < len(s.list) {
		return s.list[id]
	}
	params := make([]plan.Value, len(outer))
	for k, v := range outer {
		params[k] = v.at(&s.keys[k].Type, i)
	}
	a := s.ask(x, params)
	s.list = append(s.list, a)
	if a.groups != nil {
		s.rows += a.groups.len() + len(a.loose)
	}
	return a
}

// ask runs the query. It does so in an application of its own, which has the
// tables in common: it may be asked in the middle of an evaluation.
func (s *subquery) ask(x *context, params []plan.Value) *answer {
	a := &answer{}
	app := &Application{program: x.app.program, options: x.app.options, tables: x.app.tables}
	app.x = &context{now: x.now, start: x.start, app: app, params: params, nested: s.nested}
	c := &builder{app: app, x: app.x, subquery: s,
		report: func(_ *Batch, _ []plan.ColumnInfo, _ int32, f failure) {
			if a.failed == nil {
				a.failed = &f
			}
		}}
	t := newTable(s.e.Query.Columns())
	app.readTable(c, s.e.Query, &collector{t: t})
	if a.failed != nil {
		return a
	}
	a.rows = t.len()
	switch s.e.Kind {
	case plan.ScalarQuery:
		switch a.rows {
		case 0:
			a.value.Null = true
		case 1:
			a.value = t.cols[0].value(0)
		default:
			a.failed = &failure{functionError, "a query that is a value has more than one row"}
		}
	case plan.InQuery:
		s.collect(app.x, a, t)
	}
	return a
}

// collect keeps the rows that IN looks among.
func (s *subquery) collect(x *context, a *answer, t *table) {
	b := t.batch()
	var columns []plan.ColumnInfo
	found := make([]*Vector, len(s.e.Found))
	x.begin(b.N)
	for i, e := range s.e.Found {
		found[i] = copied(compile(e)(x, b, b.Sel), b.N)
		columns = append(columns, plan.ColumnInfo{Type: keyType(e.Type(), s.e.Operand[i].Type())})
	}
	if len(x.fails) > 0 {
		a.failed = &x.fails[0].failure
		return
	}
	a.groups = newGroups(columns)
	for _, i := range b.Sel {
		null := false
		for _, v := range found {
			null = null || v.null(i)
		}
		switch {
		case !null:
			a.groups.find(found, i)
		case len(found) > 1 || len(a.loose) == 0:
			row := make([]plan.Value, len(found))
			for k, v := range found {
				typ := columns[k].Type
				row[k] = v.at(&typ, i)
			}
			a.loose = append(a.loose, row)
		}
	}
}

// has is whether a row of values is among the answer's: unknown if it is not, but
// could be if a NULL had a value.
func (a *answer) has(operand []*Vector, types []sql.Type, i int32) plan.Value {
	if a.rows == 0 {
		return plan.Value{}
	}
	row := make([]plan.Value, len(operand))
	null := false
	for k, v := range operand {
		row[k] = v.at(&types[k], i)
		null = null || row[k].Null
	}
	if !null && a.groups.look(operand, i) >= 0 {
		return plan.Value{I: 1}
	}
	may := func(other []plan.Value) bool {
		for k := range row {
			if !row[k].Null && !other[k].Null && keyOf(row[k], a.groups.columns[k].Type) != keyOf(other[k], a.groups.columns[k].Type) {
				return false
			}
		}
		return true
	}
	for _, other := range a.loose {
		if may(other) {
			return plan.Value{Null: true}
		}
	}
	if null {
		other := make([]plan.Value, len(row))
		for g := range a.groups.len() {
			for k, c := range a.groups.keys.cols {
				other[k] = c.value(g)
			}
			if may(other) {
				return plan.Value{Null: true}
			}
		}
	}
	return plan.Value{}
}

// compileParam is a value of the row outside, the same for all rows.
func compileParam(e *plan.Param) eval {
	class := plan.ClassOf(e.T)
	var out Vector
	return func(x *context, b *Batch, sel []int32) *Vector {
		out.resize(class, b.N)
		v := &x.params[e.Index]
		for _, i := range sel {
			set(&out, class, b.N, i, v)
		}
		return &out
	}
}

// matching is a filter of which a part compares what it reads with values from
// outside: an index finds the rows.
type matching struct {
	rows   *table
	keys   []plan.Expr // over the rows
	outer  []plan.Expr // over parameters
	rest   []plan.Expr
	groups *groups
	byKey  [][]int32
	failed *failure // of a row, while it was read
	none   bool     // there are no keys, or the rows themselves depend on the outside
}

// matched builds a filter of a query that depends on the row outside with the
// help of an index, if there can be one.
func (c *builder) matched(n *plan.Filter, to sink) bool {
	s := c.subquery
	if s == nil || len(s.e.Outer) == 0 {
		return false
	}
	m := s.matches[n]
	if m == nil {
		m = s.index(c, n)
		s.matches[n] = m
	}
	if m.none {
		return false
	}
	columns := n.Input.Columns()
	next := to
	for _, e := range m.rest {
		next = &filter{c: c, cond: compile(e), columns: columns, next: next}
	}
	// It is put out when the query's sources are read, as theirs would be.
	c.values(&plan.Rows{}, &matchedRows{m: m, c: c, next: next})
	return true
}

// index reads what the filter reads, if that is the same for all rows outside.
func (s *subquery) index(c *builder, n *plan.Filter) *matching {
	m := &matching{}
	for _, e := range plan.Split(n.Condition) {
		call, ok := e.(*plan.Call)
		if ok && call.Func == "=" && scaleOf(call.Args[0].Type()) == scaleOf(call.Args[1].Type()) {
			l, r := call.Args[0], call.Args[1]
			if plan.HasParams(l) {
				l, r = r, l
			}
			if !plan.HasParams(l) && plan.HasParams(r) && !hasColumns(r) {
				m.keys, m.outer = append(m.keys, l), append(m.outer, r)
				continue
			}
		}
		m.rest = append(m.rest, e)
	}
	if len(m.keys) == 0 || plan.DependsOnRow(n.Input) {
		m.none = true
		return m
	}
	m.rows = newTable(n.Input.Columns())
	reader := *c
	reader.subquery = nil
	reader.report = func(_ *Batch, _ []plan.ColumnInfo, _ int32, f failure) {
		if m.failed == nil {
			m.failed = &f
		}
	}
	c.app.readTable(&reader, n.Input, &collector{t: m.rows})
	b := m.rows.batch()
	x := c.x
	x.begin(b.N)
	var columns []plan.ColumnInfo
	var keys []*Vector
	for i, k := range m.keys {
		columns = append(columns, plan.ColumnInfo{Type: keyType(k.Type(), m.outer[i].Type())})
		keys = append(keys, copied(compile(k)(x, b, b.Sel), b.N))
	}
	if len(x.fails) > 0 && m.failed == nil {
		m.failed = &x.fails[0].failure
	}
	m.groups = newGroups(columns)
rows:
	for _, i := range b.Sel {
		for _, k := range keys {
			if k.null(i) {
				continue rows
			}
		}
		id, fresh := m.groups.find(keys, i)
		if fresh {
			m.byKey = append(m.byKey, nil)
		}
		m.byKey[id] = append(m.byKey[id], i)
	}
	return m
}

func hasColumns(e plan.Expr) bool {
	found := false
	plan.Walk(e, func(part plan.Expr) {
		switch part.(type) {
		case *plan.Column, *plan.Rowtime, *plan.Subquery:
			found = true
		}
	})
	return found
}

// matchedRows puts out the rows of an index that meet the row outside.
type matchedRows struct {
	m    *matching
	c    *builder
	next sink
}

func (r *matchedRows) rows(*Batch) {}
func (r *matchedRows) bound(int64) {}
func (r *matchedRows) end() {
	m, x := r.m, r.c.x
	one := &Batch{N: 1, Time: []int64{0}, Sel: all(1)}
	if m.failed != nil {
		r.c.report(one, nil, 0, *m.failed)
		r.next.end()
		return
	}
	x.begin(1)
	null := false
	var keys []*Vector
	for _, e := range m.outer {
		v := copied(compile(e)(x, one, one.Sel), 1)
		null = null || v.null(0)
		keys = append(keys, v)
	}
	switch {
	case len(x.fails) > 0:
		r.c.report(one, nil, 0, x.fails[0].failure)
	case !null:
		if id := m.groups.look(keys, 0); id >= 0 {
			b := m.rows.batch()
			b.Sel = m.byKey[id]
			r.next.rows(b)
		}
	}
	r.next.end()
}

// semiJoin lets rows of a stream pass by what another has in its window. A row
// waits until all that could be in the window has come, so that the answer does
// not depend on which of two rows of one instant came first.
type semiJoin struct {
	c      *builder
	n      *plan.SemiJoin
	queues []*table // rows that wait; rows of the other stream
	bounds []int64
	told   int64
	in     []eval
	other  []eval
	groups *groups
	byKey  [][]int64 // numbers of the other's rows with one key, ascending
	loose  []int64   // and of those with a NULL where it counts
	keyed  int64     // how many of the other's rows ever were put under their keys
	taken  int64     // how many of them are not later than the last row that was asked for
	low    int64     // the first of them that is in its window, at least
	cond   eval
	pair   *table
	next   sink
}

func newSemiJoin(c *builder, n *plan.SemiJoin, next sink) *semiJoin {
	s := &semiJoin{c: c, n: n, next: next, bounds: []int64{never, never}, told: never}
	var columns []plan.ColumnInfo
	for i, k := range n.InputKeys {
		s.in, s.other = append(s.in, compile(k)), append(s.other, compile(n.OtherKeys[i]))
		columns = append(columns, plan.ColumnInfo{Type: keyType(k.Type(), n.OtherKeys[i].Type())})
	}
	s.groups = newGroups(columns)
	for _, in := range n.Inputs() {
		s.queues = append(s.queues, newTable(in.Columns()))
	}
	if n.Condition != nil {
		s.cond = compile(n.Condition)
		time := plan.ColumnInfo{Type: sql.Type{Kind: sql.KindTimestamp}}
		both := append(append([]plan.ColumnInfo(nil), n.Input.Columns()...), time)
		s.pair = newTable(append(append(both, n.Other.Columns()...), time))
	}
	return s
}

type semiJoinInput struct {
	s *semiJoin
	i int
}

func (s *semiJoin) side(i int) sink { return &semiJoinInput{s, i} }

func (in *semiJoinInput) rows(b *Batch) {
	s := in.s
	for _, i := range b.Sel {
		s.queues[in.i].add(b, i)
	}
	if last := b.Time[b.Sel[len(b.Sel)-1]]; last > s.bounds[in.i] {
		s.bounds[in.i] = last
	}
	s.drain()
}

func (in *semiJoinInput) bound(t int64) {
	if t > in.s.bounds[in.i] {
		in.s.bounds[in.i] = t
	}
	in.s.drain()
}

func (in *semiJoinInput) end() {}

// index puts the rows of the other stream that have come under their keys.
func (s *semiJoin) index() {
	q := s.queues[1]
	from := int32(s.keyed - q.head)
	if int(from) == q.len() {
		return
	}
	b := q.batch()
	b.Sel = b.Sel[from:]
	s.c.x.begin(b.N)
	var keys []*Vector
	for _, k := range s.other {
		keys = append(keys, copied(k(s.c.x, b, b.Sel), b.N))
	}
	strict := len(keys) - s.n.Loose
rows:
	for _, i := range b.Sel {
		number := q.head + int64(i)
		s.keyed = number + 1
		if s.c.x.bad[i] {
			continue // it meets nothing, and fails once
		}
		null := false
		for k, v := range keys {
			if v.null(i) {
				if k < strict {
					continue rows
				}
				null = true
			}
		}
		if null {
			s.loose = append(s.loose, number)
			continue
		}
		id := 0
		if len(keys) > 0 {
			id, _ = s.groups.find(keys, i)
		}
		for id >= len(s.byKey) {
			s.byKey = append(s.byKey, nil)
		}
		s.byKey[id] = append(s.byKey[id], number)
	}
	s.c.reported(b, s.n.Other.Columns())
}

func (s *semiJoin) drain() {
	in := s.queues[0]
	ready := 0
	for ready < in.len() && in.time[ready] < s.bounds[1] {
		ready++
	}
	if ready > 0 {
		s.index()
		b := in.batch()
		b.Sel = b.Sel[:ready]
		x := s.c.x
		x.begin(b.N)
		var keys []*Vector
		for _, k := range s.in {
			keys = append(keys, copied(k(x, b, b.Sel), b.N))
		}
		sel := x.good(b.Sel, nil)
		s.c.reported(b, s.n.Input.Columns())
		kept := make([]int32, 0, len(sel))
		for _, i := range sel {
			if meets, ok := s.meets(b, i, keys); ok && meets != s.n.Anti {
				kept = append(kept, i)
			}
		}
		if len(kept) > 0 {
			s.next.rows(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: kept})
		}
		in.drop(ready)
	}
	// Nothing older than this will be asked for.
	low := s.bounds[0]
	if in.len() > 0 {
		low = in.time[0]
	}
	s.evict(low)
	if low = min(low, s.bounds[1]); low > s.told {
		s.told = low
		s.next.bound(low)
	}
}

// window is which rows of the other stream a row at t can meet, by number.
func (s *semiJoin) window(t int64) (low, high int64) {
	q := s.queues[1]
	for s.taken < q.head+int64(q.len()) && q.time[s.taken-q.head] <= t {
		s.taken++
	}
	high = s.taken
	if s.n.Rows {
		return high - s.n.Window - 1, high
	}
	s.low = max(s.low, q.head)
	for s.low < high && q.time[s.low-q.head] < t-s.n.Window {
		s.low++
	}
	return s.low, high
}

// evict forgets the rows that no row at t or later can meet.
func (s *semiJoin) evict(t int64) {
	q := s.queues[1]
	if q.len() == 0 || t == never {
		return
	}
	low := q.head
	if s.n.Rows {
		if low, _ = s.window(t - 1); low <= q.head {
			return
		}
	} else {
		for int(low-q.head) < q.len() && q.time[low-q.head] < t-s.n.Window {
			low++
		}
	}
	n := int(low - q.head)
	if n <= 0 {
		return
	}
	s.index()
	q.drop(n)
	s.taken = max(s.taken, q.head)
	if q.len() == 0 {
		s.groups.clear()
		s.byKey, s.loose = nil, nil
		return
	}
	for len(s.loose) > 0 && s.loose[0] < low {
		s.loose = s.loose[1:]
	}
	// The lists of keys are cut where they are read; all of them when that pays.
	if live := 0; len(s.byKey) > 64 && len(s.byKey) > 2*q.len() {
		groups, byKey := newGroups(s.groups.columns), make([][]int64, 0, q.len())
		cols := s.groups.keys.batch().Cols
		for id, list := range s.byKey {
			if list = from(list, low); len(list) > 0 {
				groups.find(cols, int32(id))
				byKey = append(byKey, list)
				live++
			}
		}
		s.groups, s.byKey = groups, byKey
	}
}

// from is the part of an ascending list that is not below low.
func from(list []int64, low int64) []int64 {
	for len(list) > 0 && list[0] < low {
		list = list[1:]
	}
	return list
}

// meets reports whether a row has a partner; ok is false if that cannot be said,
// for the condition failed.
func (s *semiJoin) meets(b *Batch, i int32, keys []*Vector) (yes, ok bool) {
	low, high := s.window(b.Time[i])
	q := s.queues[1]
	strict := len(keys) - s.n.Loose
	null := false
	for k, v := range keys {
		if v.null(i) {
			if k < strict {
				return false, true
			}
			null = true
		}
	}
	try := func(numbers []int64) bool {
		for _, n := range numbers {
			if n >= high {
				return false
			}
			if n < low || n < q.head {
				continue
			}
			if s.cond == nil {
				yes = true
				return true
			}
			met, good := s.check(b, i, int32(n-q.head))
			if !good {
				ok = false
				return true
			}
			if met {
				yes = true
				return true
			}
		}
		return false
	}
	ok = true
	if null {
		for n := max(low, q.head); n < high; n++ {
			if try([]int64{n}) {
				return yes, ok
			}
		}
		return yes, ok
	}
	id := 0
	if len(keys) > 0 {
		id = s.groups.look(keys, i)
	}
	if id >= 0 && id < len(s.byKey) {
		s.byKey[id] = from(s.byKey[id], q.head)
		if try(s.byKey[id]) {
			return yes, ok
		}
	}
	try(s.loose)
	return yes, ok
}

// check evaluates the condition for a pair of rows.
func (s *semiJoin) check(b *Batch, i, other int32) (met, ok bool) {
	s.pair.clear()
	s.pair.time = append(s.pair.time, b.Time[i])
	col := 0
	for side, row := range []int32{i, other} {
		from := b
		if side == 1 {
			from = s.queues[1].batch()
		}
		for _, v := range from.Cols {
			s.pair.cols[col].add(v, row)
			col++
		}
		s.pair.cols[col].addValue(plan.Value{I: from.Time[row]})
		col++
	}
	p := s.pair.batch()
	x := s.c.x
	x.begin(1)
	v := s.cond(x, p, p.Sel)
	if len(x.fails) > 0 {
		s.c.report(b, s.n.Input.Columns(), i, x.fails[0].failure)
		return false, false
	}
	return !v.null(0) && v.I[0] != 0, true
}

func (s *semiJoin) save(e *encoder) {
	e.int(s.told)
	e.int(s.taken)
	for i, q := range s.queues {
		e.int(s.bounds[i])
		q.save(e)
	}
}

func (s *semiJoin) load(d *decoder) {
	s.told = d.int()
	s.taken = d.int()
	for i, q := range s.queues {
		s.bounds[i] = d.int()
		q.load(d)
	}
	q := s.queues[1]
	if s.taken < q.head || s.taken > q.head+int64(q.len()) {
		panic(errDecode)
	}
	s.groups.clear()
	s.byKey, s.loose, s.keyed = nil, nil, q.head
	// Rows that failed once do not again.
	own, quiet := s.c, *s.c
	quiet.report = func(*Batch, []plan.ColumnInfo, int32, failure) {}
	s.c = &quiet
	s.index()
	s.c = own
}

// plainNumber is a number as it is written, without zeros at its end.
func plainNumber(v int64, scale int) string {
	for scale > 0 && v%10 == 0 {
		v, scale = v/10, scale-1
	}
	return string(appendDecimal(nil, v, scale))
}
