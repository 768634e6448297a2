package run

import (
	"encoding/hex"
	"slices"

	"github.com/millrace/millrace/internal/analytics/plan"
)

// How a large batch is shared by workers.
//
// Operators without state (sliced) take a piece of the batch each. Operators that
// keep their state by key (forked) have it divided into lanes by a hash of the key,
// and each lane takes the rows whose keys are its own: the same rows in the same
// order as if there were no others, so what it computes is the same too. What the
// lanes put out comes together again in the order in which one operator would have
// put it out: by the place of the row in the stream, and for a group by the place
// of its first row. Everything else, inserting into streams among it, is the
// caller's alone.

// forkRows is how many rows are worth the work of sharing them, which is some
// microseconds.
var forkRows = 512

// lane is what a worker has of its own.
type lane struct {
	c        *builder // with evaluators, failures and reports of its own
	failures []laneFailure
	place    func(b *Batch, row int32) int64
	direct   bool // the caller has it do the whole batch
}

// laneFailure is a row that failed in a lane.
type laneFailure struct {
	failure
	place, time int64
	data        string
}

func newLane(c *builder) *lane {
	l := &lane{place: func(_ *Batch, row int32) int64 { return int64(row) }}
	own := *c
	own.x = &context{now: c.x.now, start: c.x.start, app: c.x.app}
	own.part = nil
	own.report = func(b *Batch, columns []plan.ColumnInfo, row int32, f failure) {
		if l.direct {
			c.report(b, columns, row, f)
			return
		}
		l.failures = append(l.failures, laneFailure{f, l.place(b, row), b.Time[row], hex.EncodeToString(AppendJSON(nil, columns, b, row))})
	}
	c.app.contexts = append(c.app.contexts, own.x)
	l.c = &own
	return l
}

// collected reports what failed in lanes, in the order of the rows.
func (c *builder) collected(lanes ...*lane) {
	var all []laneFailure
	for _, l := range lanes {
		all = append(all, l.failures...)
		l.failures = l.failures[:0]
	}
	if len(all) == 0 {
		return
	}
	slices.SortStableFunc(all, func(a, b laneFailure) int {
		switch {
		case a.place < b.place:
			return -1
		case a.place > b.place:
			return 1
		}
		return 0
	})
	for _, f := range all {
		c.refuse(f.failure, f.time, f.data)
	}
}

// shares reports whether the query's operators may have several lanes.
func (c *builder) shares() bool {
	return c.part != nil && c.subquery == nil && c.app.workers.size() > 1
}

// alone reports whether an expression needs more than its row: queries over
// tables remember answers.
func alone(e plan.Expr) bool {
	yes := true
	if e == nil {
		return yes
	}
	plan.Walk(e, func(part plan.Expr) {
		switch part.(type) {
		case *plan.Subquery, *plan.Param:
			yes = false
		}
	})
	return yes
}

// sliced is a chain of operators without state.
type sliced struct {
	c      *builder
	lanes  []*slice
	effort int // of a row, in parts of expressions
	next   sink
}

// slice is a copy of the chain.
type slice struct {
	*lane
	s    *sliced
	head sink
	in   Batch
	out  []event
}

// event is something that a chain has put out: rows, or a bound if there are none.
type event struct {
	b     *Batch
	bound int64
}

func (s *slice) rows(b *Batch) {
	if s.direct {
		s.s.next.rows(b)
		return
	}
	s.out = append(s.out, event{b: b})
}

func (s *slice) bound(t int64) {
	if s.direct {
		s.s.next.bound(t)
		return
	}
	s.out = append(s.out, event{bound: t})
}

func (s *slice) end() {}

// slice makes a chain of a node and those below it; rest is what feeds it, nil if
// there is no chain worth the name.
func (c *builder) slice(n plan.Node, to sink) (head sink, rest plan.Node) {
	if !c.shares() {
		return nil, nil
	}
	var chain []plan.Node
	effort := 0
	weigh := func(e plan.Expr) bool {
		if e == nil {
			return true
		}
		plan.Walk(e, func(part plan.Expr) {
			switch part.(type) {
			case *plan.Call, *plan.Case, *plan.Cast:
				effort++
			}
		})
		return alone(e)
	}
chain:
	for {
		switch m := n.(type) {
		case *plan.Filter:
			if !weigh(m.Condition) {
				break chain
			}
			chain, n = append(chain, m), m.Input
			continue
		case *plan.Project:
			if m.Time != nil && len(chain) > 0 {
				break chain // its rows are looked at in their order
			}
			ok := weigh(m.Time)
			for _, e := range m.Exprs {
				ok = ok && weigh(e)
			}
			if !ok {
				break chain
			}
			chain, n = append(chain, m), m.Input
			continue
		}
		break
	}
	if effort == 0 || len(chain) == 0 {
		return nil, nil
	}
	s := &sliced{c: c, effort: effort, next: to}
	for range c.app.workers.size() {
		l := &slice{lane: newLane(c), s: s}
		l.head = l
		for _, n := range chain {
			l.head = l.c.stateless(n, l.head)
		}
		s.lanes = append(s.lanes, l)
	}
	return s, n
}

func (s *sliced) rows(b *Batch) {
	n := len(b.Sel)
	first := s.lanes[0]
	if n < 2 || n*s.effort < 20*forkRows {
		first.direct = true
		first.head.rows(b)
		first.direct = false
		return
	}
	each := max((n+len(s.lanes)-1)/len(s.lanes), 1)
	used := s.lanes[:(n+each-1)/each]
	s.c.app.workers.do(len(used), func(i int) {
		l := used[i]
		l.in = *b
		l.in.Sel = b.Sel[i*each : min(n, (i+1)*each)]
		l.head.rows(&l.in)
	})
	for _, l := range used {
		s.c.collected(l.lane)
	}
	for _, l := range used {
		for _, e := range l.out {
			if e.b != nil {
				s.next.rows(e.b)
			} else {
				s.next.bound(e.bound)
			}
		}
		clear(l.out)
		l.out, l.in = l.out[:0], Batch{}
	}
}

func (s *sliced) bound(t int64) {
	first := s.lanes[0]
	first.direct = true
	first.head.bound(t)
	first.direct = false
}

func (s *sliced) end() { s.next.end() }

// forked is an operator whose state is divided between lanes.
type forked struct {
	c       *builder
	keys    []eval
	columns []plan.ColumnInfo // of keys
	lanes   []*fork
	key     []*Vector
	share   int      // a batch of so many times forkRows is worth sharing
	owners  []uint8  // of the batch's rows: the number of the lane
	hashes  []uint64 // of the batch's rows: of their keys
	place   int64    // positions in batches before this one
	newest  int      // the lane of the last row
	joins
	next sink
}

// joins is what becomes of the lanes' output.
type joins interface {
	// begin gets ready for a batch.
	begin(b *Batch)
	// take keeps what a lane has put out. Lanes call it side by side.
	take(f *fork, b *Batch)
	// flush puts out what was taken.
	flush(b *Batch, next sink)
}

// fork is one lane.
type fork struct {
	*lane
	f       *forked
	number  uint8
	op      forkable
	in      Batch
	sel     []int32
	told    int64  // the bound that the lane passes on
	out     *table // rows taken and not put out
	places  []int64
	rowsOut []int32 // positions taken, where the batch stays as it is
	nulls   []bool  // by column: whether the lane had nulls
}

// forkable is an operator that can be a lane.
type forkable interface {
	sink
	divisible
	measured
	// take over what another lane has besides records.
	shareHead(from forkable)
}

func (f *fork) rows(b *Batch) { f.f.take(f, b) }
func (f *fork) bound(t int64) { f.told = t }
func (f *fork) end()          {}

// fork divides an operator that operator makes.
func (c *builder) fork(name string, keys []plan.Expr, to sink, j joins, operator func(c *builder, to sink) forkable) *forked {
	f := &forked{c: c, joins: j, next: to, share: 1}
	for _, k := range keys {
		f.keys = append(f.keys, compile(k))
		f.columns = append(f.columns, plan.ColumnInfo{Type: k.Type()})
	}
	for i := range c.app.workers.size() {
		l := &fork{lane: newLane(c), f: f, number: uint8(i), told: never}
		l.op = operator(l.c, l)
		l.lane.place = func(b *Batch, row int32) int64 {
			if b == &l.in || b.N == l.in.N && len(b.Cols) > 0 && len(l.in.Cols) > 0 && b.Cols[0] == l.in.Cols[0] {
				return f.place + int64(row)
			}
			if a, ok := l.op.(*aggregate); ok {
				return a.firsts[row]
			}
			return int64(row)
		}
		f.lanes = append(f.lanes, l)
	}
	return keep(c, name, f)
}

// laneOf is which of n lanes a key belongs to.
func laneOf(columns []plan.ColumnInfo, key []*Vector, i int32, n int) int {
	return laneOfHash(hashRow(columns, key, i), n)
}

func laneOfHash(h uint64, n int) int { return int((h >> 32) * uint64(n) >> 32) }

func (f *forked) rows(b *Batch) {
	x := f.c.x
	x.begin(b.N)
	f.key = f.key[:0]
	if f.keys == nil {
		f.key = append(f.key, b.Cols[:len(f.columns)]...)
	}
	for _, k := range f.keys {
		f.key = append(f.key, k(x, b, b.Sel))
	}
	if cap(f.owners) < b.N {
		f.owners = make([]uint8, b.N, b.N+b.N/4)
	}
	f.hashes = sized(f.hashes, b.N)
	owners, hashes := f.owners[:b.N], f.hashes
	own := func(sel []int32) {
		for _, i := range sel {
			owners[i] = 0 // where a key that fails does so again, and is reported
			if len(x.fails) == 0 || !x.bad[i] {
				hashes[i] = hashRow(f.columns, f.key, i)
				owners[i] = uint8(laneOfHash(hashes[i], len(f.lanes)))
			}
		}
	}
	n := len(b.Sel)
	if n >= 8*forkRows {
		each := (n + len(f.lanes) - 1) / len(f.lanes)
		f.c.app.workers.do(len(f.lanes), func(k int) { own(b.Sel[min(n, k*each):min(n, (k+1)*each)]) })
	} else {
		own(b.Sel)
	}
	last := b.Sel[n-1]
	f.begin(b)
	f.each(n >= f.share*forkRows, func(l *fork) {
		l.sel = l.sel[:0]
		for _, i := range b.Sel {
			if owners[i] == l.number {
				l.sel = append(l.sel, i)
			}
		}
		if len(l.sel) > 0 {
			l.in = *b
			l.in.Sel = l.sel
			switch op := l.op.(type) {
			case *aggregate:
				op.place, op.hashes = f.place, hashes
			case *windowed:
				op.hashes = hashes
			}
			if l.sel[len(l.sel)-1] == last {
				f.newest = int(l.number)
			}
			l.op.rows(&l.in)
			l.in = Batch{}
		}
		if a, ok := l.op.(*aggregate); ok {
			a.bound(b.Time[last]) // windows end for all lanes together
		}
	})
	f.place += int64(b.N)
	f.collect()
	f.flush(b, f.next)
}

func (f *forked) each(large bool, do func(l *fork)) {
	if large {
		f.c.app.workers.do(len(f.lanes), func(i int) { do(f.lanes[i]) })
		return
	}
	for _, l := range f.lanes {
		do(l)
	}
}

func (f *forked) collect() {
	for _, l := range f.lanes {
		if len(l.failures) > 0 {
			all := make([]*lane, len(f.lanes))
			for i, l := range f.lanes {
				all[i] = l.lane
			}
			f.c.collected(all...)
			return
		}
	}
}

func (f *forked) bound(t int64) {
	groups := 0
	for _, l := range f.lanes {
		if a, ok := l.op.(*aggregate); ok && a.open && t >= a.windowEnd {
			groups += a.groups.len()
		}
	}
	f.begin(nil)
	f.each(groups >= forkRows, func(l *fork) { l.op.bound(t) })
	f.collect()
	f.flush(nil, f.next)
	f.next.bound(f.lanes[0].told)
}

func (f *forked) end() { f.next.end() }

func (f *forked) ops() []divisible {
	ops := make([]divisible, len(f.lanes))
	for i, l := range f.lanes {
		ops[i] = l.op
	}
	return ops
}

func (f *forked) save(e *encoder) {
	f.settle()
	saveDivided(e, f.ops())
}

// settle brings the head of the state to the first lane.
func (f *forked) settle() {
	from := f.lanes[f.newest].op
	for _, l := range f.lanes {
		if a, ok := l.op.(*aggregate); ok && a.open {
			from = a
		}
	}
	for _, l := range f.lanes {
		if l.op != from {
			l.op.shareHead(from)
		}
	}
}

func (f *forked) load(d *decoder) {
	loadDivided(d, f.ops(), func(columns []plan.ColumnInfo, key []*Vector) int {
		f.place++
		return laneOf(columns, key, 0, len(f.lanes))
	})
	for _, l := range f.lanes[1:] {
		l.op.shareHead(f.lanes[0].op)
	}
}

// An aggregate's window is the same in all lanes, but one without rows in it.
func (a *aggregate) shareHead(from forkable) {
	o := from.(*aggregate)
	a.open, a.windowEnd, a.order = o.open, o.windowEnd, o.order
}

func (w *windowed) shareHead(from forkable) { w.swept = from.(*windowed).swept }

// A lane that has had no row of the newest key has those of an older one.
func (d *distinct) shareHead(from forkable) {
	o := from.(*distinct)
	if d.any && (!o.any || !equalValues(d.key, o.key)) {
		d.seen.clear()
	}
	d.any, d.key = o.any, o.key
}

// byFirst joins groups in the order in which they were first seen.
type byFirst struct {
	columns []plan.ColumnInfo
	lanes   []*fork // with something to put out
	all     func() []*fork
	out     *table
}

func (j *byFirst) begin(*Batch) {}

func (j *byFirst) take(f *fork, b *Batch) {
	if f.out == nil {
		f.out = newTable(j.columns)
	}
	firsts := f.op.(*aggregate).firsts
	for _, i := range b.Sel {
		f.out.time = append(f.out.time, b.Time[i])
		f.places = append(f.places, firsts[i])
	}
	for c, col := range f.out.cols {
		col.gather(b.Cols[c], b.Sel)
	}
}

// gather appends the values at some positions.
func (c *column) gather(v *Vector, sel []int32) {
	if c.Null != nil || v.Null != nil || c.class == plan.ClassRow {
		for _, i := range sel {
			c.add(v, i)
		}
		return
	}
	switch c.class {
	case plan.ClassInt:
		for _, i := range sel {
			c.I = append(c.I, v.I[i])
		}
	case plan.ClassFloat:
		for _, i := range sel {
			c.F = append(c.F, v.F[i])
		}
	case plan.ClassString:
		for _, i := range sel {
			c.S = append(c.S, v.S[i])
		}
	}
	c.n += len(sel)
}

func (j *byFirst) flush(_ *Batch, next sink) {
	j.lanes = j.lanes[:0]
	rows := 0
	for _, l := range j.all() {
		if len(l.places) > 0 {
			j.lanes = append(j.lanes, l)
			rows += len(l.places)
		}
	}
	if rows == 0 {
		return
	}
	// One lane's rows after the other's, then in their order.
	first := make([]int32, len(j.lanes))
	for i, l := range j.lanes {
		first[i] = int32(j.out.len())
		j.out.time = append(j.out.time, l.out.time...)
		for c, col := range l.out.cols {
			j.out.cols[c].gather(&col.Vector, all(l.out.len()))
		}
	}
	order := make([]int32, 0, rows)
	var heads [maxLanes]int
	for range rows {
		best := -1
		for i, l := range j.lanes {
			// A later window's rows come later than all of an earlier one's.
			if heads[i] < len(l.places) && (best < 0 || l.places[heads[i]] < j.lanes[best].places[heads[best]]) {
				best = i
			}
		}
		order = append(order, first[best]+int32(heads[best]))
		heads[best]++
	}
	for _, l := range j.lanes {
		l.out.clear()
		l.places = l.places[:0]
	}
	b := j.out.batch()
	b.Sel = order
	next.rows(compact(b, j.columns))
	j.out.clear()
}

// byPosition joins batches whose rows stay where they are, with columns appended.
type byPosition struct {
	width    int // columns that are the input's
	appended []plan.ColumnInfo
	cols     []*Vector
	nulls    [][]bool
	owned    []bool // positions that a lane has put out
	sel      []int32
	all      func() []*fork
}

func (j *byPosition) begin(b *Batch) {
	if b == nil {
		return
	}
	if cap(j.owned) < b.N {
		j.owned = make([]bool, b.N, b.N+b.N/4)
	}
	j.owned = j.owned[:b.N]
	clear(j.owned)
	for i, c := range j.appended {
		j.cols[i].resize(plan.ClassOf(c.Type), b.N)
		j.cols[i].nulls(&j.nulls[i], b.N)
	}
}

func (j *byPosition) take(f *fork, b *Batch) {
	f.rowsOut = append(f.rowsOut[:0], b.Sel...)
	for _, i := range b.Sel {
		j.owned[i] = true
	}
	for k, c := range j.appended {
		from, to := b.Cols[j.width+k], j.cols[k]
		if from.Null != nil {
			f.nulls[k] = true
			for _, i := range b.Sel {
				to.Null[i] = from.Null[i]
			}
		}
		switch plan.ClassOf(c.Type) {
		case plan.ClassInt:
			for _, i := range b.Sel {
				to.I[i] = from.I[i]
			}
		case plan.ClassFloat:
			for _, i := range b.Sel {
				to.F[i] = from.F[i]
			}
		case plan.ClassString:
			for _, i := range b.Sel {
				to.S[i] = from.S[i]
			}
		}
	}
}

func (j *byPosition) flush(b *Batch, next sink) {
	if b == nil {
		return
	}
	out := &Batch{N: b.N, Time: b.Time, Cols: append([]*Vector(nil), b.Cols...)}
	j.sel = j.sel[:0]
	for _, i := range b.Sel {
		if j.owned[i] {
			j.sel = append(j.sel, i)
		}
	}
	for k, col := range j.cols {
		any := false
		for _, l := range j.all() {
			any = any || l.nulls[k]
			l.nulls[k] = false
		}
		if !any {
			col.Null = nil
		}
		out.Cols = append(out.Cols, col)
	}
	if out.Sel = j.sel; len(out.Sel) > 0 {
		next.rows(out)
	}
}

// forkAggregate divides the groups of windows; nil if they cannot be.
func (c *builder) forkAggregate(n *plan.Aggregate, to sink) *forked {
	if !c.shares() || n.Time == nil || len(n.Keys) < 2 {
		return nil
	}
	var keys []plan.Expr
	for i, k := range n.Keys {
		if !alone(k) {
			return nil
		}
		if i != n.TimeIndex {
			keys = append(keys, k)
		}
	}
	for _, a := range n.Aggs {
		if !alone(a.Arg) {
			return nil
		}
	}
	j := &byFirst{columns: n.Columns(), out: newTable(n.Columns())}
	f := c.fork("GROUP BY", keys, to, j, func(c *builder, to sink) forkable {
		a := newAggregate(c, n, to)
		a.ordered = true
		return a
	})
	j.all = func() []*fork { return f.lanes }
	f.share = 4 // a row of a group is cheap
	return f
}

// forkWindowed divides the partitions of sliding windows; nil if they have none in
// common.
func (c *builder) forkWindowed(n *plan.Windowed, to sink) *forked {
	if !c.shares() {
		return nil
	}
	var keys []plan.Expr
	first := ""
	for i, w := range n.Windows {
		key := ""
		for _, p := range w.PartitionBy {
			if !alone(p) {
				return nil
			}
			key += plan.Key(p) + ";"
		}
		if i == 0 {
			first, keys = key, w.PartitionBy
		}
		if key == "" || key != first || !alone(w.Arg) || !alone(w.Offset) || !alone(w.Default) || plan.ClassOf(w.T) == plan.ClassRow {
			return nil
		}
	}
	width := len(n.Input.Columns())
	return c.forkInPlace("OVER", keys, width, n.Columns()[width:], to, func(c *builder, to sink) forkable { return newWindowed(c, n, to) })
}

// forkDistinct divides the rows that were seen.
func (c *builder) forkDistinct(n *plan.Distinct, to sink) *forked {
	if !c.shares() || n.Key < 0 {
		return nil
	}
	f := c.forkInPlace("SELECT DISTINCT", nil, len(n.Columns()), nil, to, func(c *builder, to sink) forkable {
		return &distinct{c: c, n: n, seen: newGroups(n.Columns()), next: to}
	})
	f.columns = n.Columns()
	return f
}

func (c *builder) forkInPlace(name string, keys []plan.Expr, width int, appended []plan.ColumnInfo, to sink, operator func(c *builder, to sink) forkable) *forked {
	j := &byPosition{width: width, appended: appended, nulls: make([][]bool, len(appended))}
	for range appended {
		j.cols = append(j.cols, &Vector{})
	}
	f := c.fork(name, keys, to, j, operator)
	for _, l := range f.lanes {
		l.nulls = make([]bool, len(appended))
	}
	j.all = func() []*fork { return f.lanes }
	return f
}
