package run

import (
	"slices"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// sink takes what an operator puts out.
type sink interface {
	// rows takes a batch, no row of which is older than a bound given before.
	rows(b *Batch)
	// bound promises that no later row will be older than t.
	bound(t int64)
	// end says that nothing comes any more; only tables end.
	end()
}

// builder makes the operators of one query.
type builder struct {
	app *Application
	x   *context
	// report is told about rows that failed.
	report func(b *Batch, columns []plan.ColumnInfo, row int32, f failure)
	// refuse is what report does, for a row whose data has been written out.
	refuse func(f failure, rowtime int64, data string)
	part   *part // nil while tables are read
	// promoted is where promotions keep their state: beside the pump's own.
	promoted *part
	scans    func(s *plan.Stream, to sink)
	tables   func(t *plan.Table, to sink) // this and values during the reading of tables only
	values   func(n *plan.Rows, to sink)
	// subquery is the query in an expression that is built.
	subquery *subquery
}

// keep has an operator's state go into snapshots, and be measured under a name.
func keep[T interface {
	stateful
	measured
}](c *builder, name string, op T) T {
	if c.part != nil {
		c.part.ops = append(c.part.ops, op)
		c.measures(name, op)
	}
	return op
}

// build makes the operators of a node, which feed to.
func (c *builder) build(n plan.Node, to sink) {
	switch n := n.(type) {
	case *plan.Scan:
		c.scans(n.Stream, to)
	case *plan.TableScan:
		c.tables(n.Table, to)
	case *plan.Rows:
		c.values(n, to)
	case *plan.Filter:
		if c.subquery != nil && c.matched(n, to) {
			return
		}
		c.chain(n, n.Input, to)
	case *plan.Project:
		if n.Time != nil {
			to = c.promotion(n, to)
		}
		c.chain(n, n.Input, to)
	case *plan.Aggregate:
		if f := c.forkAggregate(n, to); f != nil {
			c.build(n.Input, f)
			return
		}
		c.build(n.Input, keep(c, "GROUP BY", newAggregate(c, n, to)))
	case *plan.Stagger:
		c.build(n.Input, keep(c, staggerName(n), newStagger(c, n, to)))
	case *plan.Distinct:
		if f := c.forkDistinct(n, to); f != nil {
			c.build(n.Input, f)
			return
		}
		c.build(n.Input, keep(c, "SELECT DISTINCT", &distinct{c: c, n: n, seen: newGroups(n.Columns()), next: to}))
	case *plan.Windowed:
		if f := c.forkWindowed(n, to); f != nil {
			c.build(n.Input, f)
			return
		}
		c.build(n.Input, keep(c, "OVER", newWindowed(c, n, to)))
	case *plan.Join:
		if f := c.forkJoin(n, to); f != nil {
			c.build(n.Left, f.side(0))
			c.build(n.Right, f.side(1))
			return
		}
		j := keep(c, "JOIN", newJoin(c, n, n.Columns(), to))
		c.build(n.Left, j.side(0))
		c.build(n.Right, j.side(1))
	case *plan.SemiJoin:
		j := keep(c, "the query in WHERE", newSemiJoin(c, n, to))
		c.build(n.Input, j.side(0))
		c.build(n.Other, j.side(1))
	case *plan.Lookup:
		l := newLookup(c, n, to)
		c.build(n.Input, l)
		c.app.lookups = append(c.app.lookups, l)
	case *plan.Union:
		if !plan.Streaming(n) {
			u := &concat{next: to, open: len(n.Branches)}
			for _, b := range n.Branches {
				c.build(b, u)
			}
			return
		}
		m := keep(c, "UNION ALL", newMerge(n.Columns(), len(n.Branches), to))
		for i, b := range n.Branches {
			c.build(b, m.side(i))
		}
	case *plan.SetOp:
		s := &setOp{n: n, next: to, left: newTable(n.Columns()), right: newTable(n.Columns())}
		c.build(n.Left, &collector{t: s.left, done: s.finish})
		c.build(n.Right, &collector{t: s.right, done: s.finish})
	case *plan.Sort:
		c.build(n.Input, keep(c, "ORDER BY", newSort(c, n, to)))
	case *plan.Limit:
		l := &limit{left: n.Count, next: to}
		if c.part != nil {
			c.part.ops = append(c.part.ops, l)
		}
		c.build(n.Input, l)
	case *plan.TableFunction:
		c.build(n.Input, newTableFunction(c, n, to))
	}
}

func staggerName(n *plan.Stagger) string {
	if n.Session {
		return "WINDOWED BY SESSION"
	}
	return "WINDOWED BY STAGGER"
}

// chain makes the operator of a node without state, or those of several.
func (c *builder) chain(n, input plan.Node, to sink) {
	if head, rest := c.slice(n, to); head != nil {
		c.build(rest, head)
		return
	}
	c.build(input, c.stateless(n, to))
}

// stateless makes a filter or a projection.
func (c *builder) stateless(n plan.Node, to sink) sink {
	switch n := n.(type) {
	case *plan.Filter:
		return &filter{c: c, cond: compile(n.Condition), columns: n.Input.Columns(), next: to}
	case *plan.Project:
		p := &project{c: c, columns: n.Input.Columns(), next: to}
		for _, e := range n.Exprs {
			p.exprs = append(p.exprs, compile(e))
		}
		if n.Time != nil {
			p.time = compile(n.Time)
		}
		return p
	}
	panic("run: a node with state is no link of a chain")
}

// filter lets rows pass for which its condition is true.
type filter struct {
	c       *builder
	cond    eval
	columns []plan.ColumnInfo
	sel     []int32
	next    sink
}

func (f *filter) rows(b *Batch) {
	f.c.x.begin(b.N)
	v := f.cond(f.c.x, b, b.Sel)
	f.sel = f.sel[:0]
	bad := f.c.x.bad
	if v.Null == nil && len(f.c.x.fails) == 0 {
		for _, i := range b.Sel {
			if v.I[i] != 0 {
				f.sel = append(f.sel, i)
			}
		}
	} else {
		for _, i := range b.Sel {
			if !bad[i] && !v.null(i) && v.I[i] != 0 {
				f.sel = append(f.sel, i)
			}
		}
		f.c.reported(b, f.columns)
	}
	if len(f.sel) > 0 {
		f.next.rows(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: f.sel})
	}
}

func (f *filter) bound(t int64) { f.next.bound(t) }
func (f *filter) end()          { f.next.end() }

// reported hands the failures of a batch on.
func (c *builder) reported(b *Batch, columns []plan.ColumnInfo) {
	for _, f := range c.x.fails {
		c.report(b, columns, f.row, f.failure)
	}
}

// project computes columns, and the row's time where it is promoted.
type project struct {
	c       *builder
	exprs   []eval
	time    eval
	columns []plan.ColumnInfo
	cols    []*Vector
	sel     []int32
	times   []int64
	next    sink
}

func (p *project) rows(b *Batch) {
	x := p.c.x
	x.begin(b.N)
	p.cols = p.cols[:0]
	for _, e := range p.exprs {
		p.cols = append(p.cols, e(x, b, b.Sel))
	}
	out := &Batch{N: b.N, Time: b.Time, Cols: p.cols, Sel: b.Sel}
	if p.time != nil {
		v := p.time(x, b, b.Sel)
		p.times = append(p.times[:0], b.Time...)
		for _, i := range b.Sel {
			if v.null(i) {
				x.failed(i, fail(nullViolation, "ROWTIME cannot be NULL"))
				continue
			}
			if !x.bad[i] {
				p.times[i] = v.I[i]
			}
		}
		out.Time = p.times
	}
	if len(x.fails) > 0 {
		p.sel = x.good(b.Sel, p.sel)
		out.Sel = p.sel
		p.c.reported(b, p.columns)
	}
	if len(out.Sel) == 0 {
		return
	}
	p.next.rows(out)
	if p.time != nil {
		// Time goes on as the promoted instants do, and no clock moves it.
		high := out.Time[out.Sel[0]]
		for _, i := range out.Sel {
			high = max(high, out.Time[i])
		}
		p.next.bound(high)
	}
}

func (p *project) bound(t int64) {
	if p.time == nil {
		p.next.bound(t)
	}
}
func (p *project) end() { p.next.end() }

// promotion refuses rows whose promoted time goes back. A stream does that by
// itself; it is for queries inside of others, whose operators count on it.
type promotion struct {
	c       *builder
	columns []plan.ColumnInfo
	high    int64
	any     bool
	sel     []int32
	next    sink
}

func (c *builder) promotion(n *plan.Project, to sink) sink {
	switch to.(type) {
	case *target, *checked:
		return to
	}
	p := &promotion{c: c, columns: n.Columns(), next: to}
	if c.promoted != nil {
		c.promoted.ops = append(c.promoted.ops, p)
	}
	return p
}

func (p *promotion) rows(b *Batch) {
	p.sel = p.sel[:0]
	for _, i := range b.Sel {
		if p.any && b.Time[i] < p.high {
			p.c.report(b, p.columns, i, failure{lateRow, "the row is older than one before it"})
			continue
		}
		p.any, p.high = true, b.Time[i]
		p.sel = append(p.sel, i)
	}
	if len(p.sel) > 0 {
		p.next.rows(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: p.sel})
	}
}

func (p *promotion) bound(t int64) { p.next.bound(t) }
func (p *promotion) end()          { p.next.end() }

// limit ends after a number of rows.
type limit struct {
	left int64
	next sink
}

func (l *limit) rows(b *Batch) {
	if l.left <= 0 {
		return
	}
	if int64(len(b.Sel)) > l.left {
		c := *b
		c.Sel = b.Sel[:l.left]
		b = &c
	}
	l.left -= int64(len(b.Sel))
	l.next.rows(b)
}
func (l *limit) bound(t int64) { l.next.bound(t) }
func (l *limit) end()          { l.next.end() }

// distinct lets the first of equal rows pass, for as long as its key stays.
type distinct struct {
	c    *builder
	n    *plan.Distinct
	seen *groups
	key  plan.Value
	any  bool
	sel  []int32
	next sink
}

func (d *distinct) rows(b *Batch) {
	d.sel = d.sel[:0]
	for _, i := range b.Sel {
		if d.n.Key >= 0 {
			k := b.Cols[d.n.Key].at(&d.n.Columns()[d.n.Key].Type, i)
			if !d.any || !equalValues(k, d.key) {
				d.seen.clear()
				d.key, d.any = kept(k), true
			}
		}
		if _, fresh := d.seen.find(b.Cols, i); fresh {
			d.sel = append(d.sel, i)
		}
	}
	if len(d.sel) > 0 {
		d.next.rows(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: d.sel})
	}
}
func (d *distinct) bound(t int64) { d.next.bound(t) }
func (d *distinct) end()          { d.next.end() }

func equalValues(a, b plan.Value) bool {
	return a.Null == b.Null && (a.Null || a.I == b.I && a.S == b.S && a.F == b.F)
}

// concat joins tables, one after the other.
type concat struct {
	open int
	next sink
}

func (u *concat) rows(b *Batch) { u.next.rows(b) }
func (u *concat) bound(int64)   {}
func (u *concat) end() {
	if u.open--; u.open == 0 {
		u.next.end()
	}
}

// collector keeps a table's rows.
type collector struct {
	t    *table
	done func()
}

func (c *collector) rows(b *Batch) {
	for _, i := range b.Sel {
		c.t.add(b, i)
	}
}
func (c *collector) bound(int64) {}
func (c *collector) end() {
	if c.done != nil {
		c.done()
	}
}

// setOp is UNION, EXCEPT and INTERSECT of tables.
type setOp struct {
	n           *plan.SetOp
	left, right *table
	ended       int
	next        sink
}

func (s *setOp) finish() {
	if s.ended++; s.ended < 2 {
		return
	}
	g := newGroups(s.n.Columns())
	l, r := s.left.batch(), s.right.batch()
	counts := map[int]int{}
	var sel []int32
	switch s.n.Op {
	case "UNION":
		for _, i := range l.Sel {
			if _, fresh := g.find(l.Cols, i); fresh {
				sel = append(sel, i)
			}
		}
		s.put(l, sel)
		sel = sel[:0]
		for _, i := range r.Sel {
			if _, fresh := g.find(r.Cols, i); fresh {
				sel = append(sel, i)
			}
		}
		s.put(r, sel)
	default:
		for _, i := range r.Sel {
			id, _ := g.find(r.Cols, i)
			counts[id]++
		}
		out := map[int]bool{}
		for _, i := range l.Sel {
			id, _ := g.find(l.Cols, i)
			there := counts[id] > 0
			if s.n.All {
				if there {
					counts[id]--
				}
			} else {
				if out[id] {
					continue
				}
				out[id] = there == (s.n.Op == "INTERSECT")
			}
			if there == (s.n.Op == "INTERSECT") {
				sel = append(sel, i)
			}
		}
		s.put(l, sel)
	}
	s.next.end()
}

func (s *setOp) put(b *Batch, sel []int32) {
	if len(sel) > 0 {
		s.next.rows(&Batch{N: b.N, Time: b.Time, Cols: b.Cols, Sel: sel})
	}
}

// merge joins streams in order of time. Rows of one instant keep the order of the
// branches.
type merge struct {
	queues []*table
	bounds []int64
	told   int64 // the bound that was passed on
	next   sink
}

const never = int64(-1) << 62

func newMerge(columns []plan.ColumnInfo, n int, next sink) *merge {
	m := &merge{next: next, told: never}
	for range n {
		m.queues = append(m.queues, newTable(columns))
		m.bounds = append(m.bounds, never)
	}
	return m
}

type mergeSide struct {
	m *merge
	i int
}

func (m *merge) side(i int) sink { return &mergeSide{m, i} }

func (s *mergeSide) rows(b *Batch) {
	for _, i := range b.Sel {
		s.m.queues[s.i].add(b, i)
	}
	if last := b.Time[b.Sel[len(b.Sel)-1]]; last > s.m.bounds[s.i] {
		s.m.bounds[s.i] = last
	}
	s.m.drain()
}

func (s *mergeSide) bound(t int64) {
	if t > s.m.bounds[s.i] {
		s.m.bounds[s.i] = t
	}
	s.m.drain()
}

func (s *mergeSide) end() {}

// due reports whether a row of a branch can be put out: no branch before it can
// still have a row of that time, none behind it an older one.
func due(bounds []int64, branch int, t int64) bool {
	for i, b := range bounds {
		if i < branch && b <= t || i > branch && b < t {
			return false
		}
	}
	return true
}

// pick is the branch whose oldest row comes next; -1 if none can.
func pick(queues []*table, taken []int, bounds []int64) int {
	best := -1
	for i, q := range queues {
		if taken[i] < q.len() && (best < 0 || q.time[taken[i]] < queues[best].time[taken[best]]) {
			best = i
		}
	}
	if best < 0 || !due(bounds, best, queues[best].time[taken[best]]) {
		return -1
	}
	return best
}

func (m *merge) drain() {
	taken := make([]int, len(m.queues))
	// Runs of one branch go out together.
	for {
		i := pick(m.queues, taken, m.bounds)
		if i < 0 {
			break
		}
		from := taken[i]
		for {
			taken[i]++
			if pick(m.queues, taken, m.bounds) != i {
				break
			}
		}
		b := m.queues[i].batch()
		sel := make([]int32, 0, taken[i]-from)
		for r := from; r < taken[i]; r++ {
			sel = append(sel, int32(r))
		}
		b.Sel = sel
		m.next.rows(b)
	}
	for i, n := range taken {
		m.queues[i].drop(n)
	}
	if low := slices.Min(m.bounds); low > m.told {
		m.told = low
		m.next.bound(low)
	}
}

// sorter collects the rows of a batch and puts them out in order.
type sorter struct {
	c       *builder
	n       *plan.Sort
	kept    *table
	key     plan.Value
	keyType sql.Type
	time    func(t int64) plan.Value // the first key as a function of time
	due     int64                    // when the batch is complete, if that is known
	next    sink
}

func newSort(c *builder, n *plan.Sort, next sink) *sorter {
	s := &sorter{c: c, n: n, kept: newTable(n.Columns()), next: next, keyType: n.Columns()[n.Keys[0].Column].Type}
	if n.Time != nil && !n.Grouped && !n.Table {
		s.time = timeFunction(c.x, n.Time)
	}
	return s
}

func (s *sorter) rows(b *Batch) {
	first := s.n.Keys[0].Column
	for _, i := range b.Sel {
		k := b.Cols[first].at(&s.keyType, i)
		if !s.n.Table {
			if s.kept.len() > 0 && !equalValues(k, s.key) {
				switch last := s.kept.time[s.kept.len()-1]; {
				case s.n.Grouped:
					s.flush(last) // the batch was complete with its window
				case s.time == nil:
					s.flush(max(b.Time[i], last))
				default:
					s.flush(s.due)
				}
			}
			if s.kept.len() == 0 {
				s.key = kept(k)
				if s.time != nil {
					s.due = boundary(s.time, b.Time[i])
				}
			}
		}
		s.kept.add(b, i)
	}
}

func (s *sorter) bound(t int64) {
	switch {
	case s.n.Table:
	case s.kept.len() == 0:
	case s.n.Grouped:
		if last := s.kept.time[s.kept.len()-1]; t >= last {
			s.flush(last)
		}
	case s.time != nil:
		if t >= s.due {
			s.flush(s.due)
		}
	}
	if s.kept.len() > 0 {
		// The batch will carry a later time than its rows have.
		t = min(t, s.kept.time[0])
	}
	s.next.bound(t)
}

func (s *sorter) end() {
	if s.kept.len() > 0 {
		s.flush(s.kept.time[s.kept.len()-1])
	}
	s.next.end()
}

// flush puts the batch out, all of it with one time.
func (s *sorter) flush(at int64) {
	b := s.kept.batch()
	sel := slices.Clone(b.Sel)
	columns := s.n.Columns()
	slices.SortStableFunc(sel, func(i, j int32) int {
		for _, k := range s.n.Keys {
			v := b.Cols[k.Column]
			if c := compareRows(v, columns[k.Column].Type, i, j, k.NullsFirst, k.Descending); c != 0 {
				return c
			}
		}
		return 0
	})
	times := make([]int64, b.N)
	for i := range times {
		times[i] = at
	}
	out := &Batch{N: b.N, Time: times, Cols: b.Cols, Sel: sel}
	s.next.rows(compact(out, columns))
	s.kept.clear()
}

// compact copies the selected rows in their order, so that positions ascend.
func compact(b *Batch, columns []plan.ColumnInfo) *Batch {
	t := newTable(columns)
	for _, i := range b.Sel {
		t.time = append(t.time, b.Time[i])
	}
	for c, col := range t.cols {
		col.gather(b.Cols[c], b.Sel)
	}
	return t.batch()
}

func compareRows(v *Vector, t sql.Type, i, j int32, nullsFirst, descending bool) int {
	switch a, b := v.null(i), v.null(j); {
	case a && b:
		return 0
	case a || b:
		if a == nullsFirst {
			return -1
		}
		return 1
	}
	c := 0
	switch plan.ClassOf(t) {
	case plan.ClassInt:
		c = compare(v.I[i], v.I[j])
	case plan.ClassFloat:
		c = compare(v.F[i], v.F[j])
	case plan.ClassString:
		c = compare(v.S[i], v.S[j])
	}
	if descending {
		return -c
	}
	return c
}

func compare[T int64 | float64 | string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// timeFunction makes a function of an expression over Rowtime.
func timeFunction(x *context, e plan.Expr) func(t int64) plan.Value {
	f := compile(e)
	typ := e.Type()
	return func(t int64) plan.Value {
		// It may be asked in the middle of another evaluation.
		own := &context{now: x.now, start: x.start}
		own.begin(1)
		v := f(own, &Batch{N: 1, Time: []int64{t}, Sel: identity[:1]}, identity[:1])
		if own.bad[0] {
			return plan.Value{Null: true}
		}
		return v.at(&typ, 0)
	}
}

// boundary is the first instant after t at which a function of time has another
// value than at t.
func boundary(f func(t int64) plan.Value, t int64) int64 {
	const horizon = int64(1) << 44 // some 500 years
	here := f(t)
	step := int64(1)
	for equalValues(f(t+step), here) {
		if step *= 2; step > horizon {
			return t + horizon
		}
	}
	low, high := t+step/2, t+step // at low the value is the same, at high it is not
	if step == 1 {
		low = t
	}
	for high-low > 1 {
		mid := low + (high-low)/2
		if equalValues(f(mid), here) {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
