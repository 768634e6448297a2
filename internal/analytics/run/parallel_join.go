package run

import (
	"errors"
	"fmt"
	"sync"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// forkedJoin is a join whose rows are divided between lanes by their keys. Rows
// carry their number along through a lane in a column of its own, from which
// follows where each result belongs: results go by their time; of one time, those
// that a left row completes come first, then those of a right row, then rows that
// have met none.
type forkedJoin struct {
	c     *builder
	sides [2]*joinSplit
	lanes []*joinLane
	heads []int
	keys  [][]resultPlace
	order []place
	out   *table
	told  int64
	next  sink
}

// joinSplit divides the rows of a side.
type joinSplit struct {
	f       *forkedJoin
	side    int
	keys    []eval
	columns []plan.ColumnInfo // of keys
	width   int
	vectors []*Vector
	owners  []uint8
	number  Vector // of the rows of a batch
	next    int64  // number of the next row
}

type joinLane struct {
	*lane
	f      *forkedJoin
	number uint8
	j      *join
	in     [2]sink
	b      Batch
	sel    []int32
	out    *table // results, with the numbers of their rows
	told   int64

	// Where results may be too many to be kept until all lanes are through, a lane
	// waits when it has laneRows of them, until those have been put out.
	waits  bool
	turn   chan struct{} // gets a token when the lane waits, or is through
	resume chan bool     // true to go on, false to give up
	over   bool
	failed any // what it panicked with
}

// A row can meet every row of the other side.
var (
	laneRows = 1 << 16 // results that a lane keeps
	fewRows  = 1 << 20 // results that lanes may keep without waiting
)

// errGivenUp unwinds a lane whose results nobody wants any more.
var errGivenUp = errors.New("given up")

// place is a row of a lane.
type place struct{ lane, row int32 }

// resultPlace says where a result belongs.
type resultPlace struct {
	time int64
	rank int8  // 0 and 1: a row of that side completes it; 2 and 3: one that met none
	a, b int64 // numbers of that row, and of the other
}

func (p resultPlace) before(q resultPlace) bool {
	switch {
	case p.time != q.time:
		return p.time < q.time
	case p.rank != q.rank:
		return p.rank < q.rank
	case p.a != q.a:
		return p.a < q.a
	}
	return p.b < q.b
}

// numbered is a node whose rows have numbers in a last column.
type numbered struct {
	plan.Node
	columns []plan.ColumnInfo
}

func (n numbered) Columns() []plan.ColumnInfo { return n.columns }

var numberColumn = plan.ColumnInfo{Name: "number", Type: sql.Type{Kind: sql.KindBigint}, Hidden: true}

func withNumber(n plan.Node) numbered {
	return numbered{n, append(append([]plan.ColumnInfo(nil), n.Columns()...), numberColumn)}
}

// forkJoin divides a join; nil if it cannot be.
func (c *builder) forkJoin(n *plan.Join, to sink) *forkedJoin {
	if !c.shares() || len(n.LeftKeys) == 0 || n.LeftRows || n.RightRows || !alone(n.Condition) {
		return nil
	}
	for i := range n.LeftKeys {
		if !alone(n.LeftKeys[i]) || !alone(n.RightKeys[i]) {
			return nil
		}
	}
	f := &forkedJoin{c: c, out: newTable(n.Columns()), told: never, next: to}
	// The lanes' output has a column more on each side: columns behind it move.
	left, all := len(n.Left.Columns()), n.Columns()
	var columns []plan.ColumnInfo
	columns = append(columns, all[:left]...)
	columns = append(columns, numberColumn)
	columns = append(columns, all[left:len(all)-1]...)
	columns = append(columns, numberColumn, all[len(all)-1])
	own := *n
	own.Left, own.Right = withNumber(n.Left), withNumber(n.Right)
	if n.Condition != nil {
		own.Condition = plan.Replace(n.Condition, func(e plan.Expr) plan.Expr {
			col, ok := e.(*plan.Column)
			if !ok || col.Index < left {
				return nil
			}
			moved := *col
			if moved.Index++; col.Index == len(all)-1 {
				moved.Index++
			}
			return &moved
		})
	}
	for i, in := range []plan.Node{n.Left, n.Right} {
		s := &joinSplit{f: f, side: i, width: len(in.Columns())}
		exprs := n.LeftKeys
		if i == 1 {
			exprs = n.RightKeys
		}
		for k, e := range exprs {
			s.keys = append(s.keys, compile(e))
			s.columns = append(s.columns, plan.ColumnInfo{Type: keyType(n.LeftKeys[k].Type(), n.RightKeys[k].Type())})
		}
		f.sides[i] = s
	}
	for i := range c.app.workers.size() {
		l := &joinLane{lane: newLane(c), f: f, number: uint8(i), out: newTable(columns), told: never, over: true, turn: make(chan struct{}), resume: make(chan bool)}
		l.j = newJoin(l.c, &own, columns, l)
		l.in = [2]sink{l.j.side(0), l.j.side(1)}
		f.lanes = append(f.lanes, l)
	}
	f.heads, f.keys = make([]int, len(f.lanes)), make([][]resultPlace, len(f.lanes))
	return keep(c, "JOIN", f)
}

func (f *forkedJoin) side(i int) sink { return f.sides[i] }

func (l *joinLane) rows(b *Batch) {
	for _, i := range b.Sel {
		l.out.time = append(l.out.time, b.Time[i])
	}
	for k, c := range l.out.cols {
		c.gather(b.Cols[k], b.Sel)
	}
	if limit := l.f.c.app.options.MemoryLimit; limit > 0 && int64(l.out.len())*int64(8*len(b.Cols)) > limit {
		panic(fullError{fmt.Errorf("%w: what JOIN of %s puts out at once does not fit into %d", ErrMemory, l.f.c.part.name, limit)})
	}
	if l.waits && l.out.len() >= laneRows {
		l.turn <- struct{}{}
		if !<-l.resume {
			panic(errGivenUp)
		}
	}
}

// work does a lane's part in a goroutine of its own.
func (l *joinLane) work(do func(l *joinLane)) {
	defer func() {
		if r := recover(); r != nil && r != errGivenUp {
			l.failed = r
		}
		l.waits, l.over = false, true
		l.turn <- struct{}{}
	}()
	do(l)
}

// await returns when a lane waits or is through.
func (l *joinLane) await() {
	<-l.turn
	if l.failed != nil {
		r := l.failed
		l.failed = nil
		panic(r)
	}
}
func (l *joinLane) bound(t int64) { l.told = t }
func (l *joinLane) end()          {}

// divide says whose the rows of a batch are, and gives them their numbers.
func (s *joinSplit) divide(b *Batch) {
	x := s.f.c.x
	x.begin(b.N)
	s.vectors = evaluated(s.vectors, s.keys, x, b)
	s.owners = sized(s.owners, b.N)
	s.number.I = sized(s.number.I, b.N)
	for _, i := range b.Sel {
		s.number.I[i] = s.next
		s.next++
		s.owners[i] = 0 // where a key that fails does so again, and is reported
		if len(x.fails) == 0 || !x.bad[i] {
			s.owners[i] = uint8(laneOf(s.columns, s.vectors, i, len(s.f.lanes)))
		}
	}
}

// own selects the rows of a batch that are a lane's.
func (s *joinSplit) own(l *joinLane, b *Batch) *Batch {
	l.sel = l.sel[:0]
	for _, i := range b.Sel {
		if s.owners[i] == l.number {
			l.sel = append(l.sel, i)
		}
	}
	l.b = Batch{N: b.N, Time: b.Time, Sel: l.sel, Cols: append(append(l.b.Cols[:0], b.Cols[:s.width]...), &s.number)}
	return &l.b
}

func (s *joinSplit) rows(b *Batch) {
	s.divide(b)
	last := b.Time[b.Sel[len(b.Sel)-1]]
	s.f.each(len(b.Sel), func(l *joinLane) {
		if own := s.own(l, b); len(own.Sel) > 0 {
			l.in[s.side].rows(own)
		}
		l.in[s.side].bound(last)
	})
}

func (s *joinSplit) bound(t int64) {
	s.f.each(0, func(l *joinLane) { l.in[s.side].bound(t) })
}

func (s *joinSplit) end() {}

// each has the lanes work, side by side if there are so many rows and others that
// wait, and puts out what they have put out.
func (f *forkedJoin) each(rows int, do func(l *joinLane)) {
	kept := rows
	for _, l := range f.lanes {
		queued := l.j.queues[0].len() + l.j.queues[1].len()
		rows += queued
		kept += queued + l.j.sides[0].rows.len() + l.j.sides[1].rows.len()
	}
	switch {
	case rows > 0 && kept > fewRows/rows && f.c.app.workers.observe == nil:
		f.together(do)
		return
	case rows >= forkRows:
		f.c.app.workers.do(len(f.lanes), func(i int) { do(f.lanes[i]) })
	default:
		for _, l := range f.lanes {
			do(l)
		}
	}
	f.flush()
}

// together has each lane work in a goroutine of its own and puts out their results
// while they make more.
func (f *forkedJoin) together(do func(l *joinLane)) {
	var all sync.WaitGroup
	for _, l := range f.lanes {
		l.waits, l.over = true, false
		all.Go(func() { l.work(do) })
	}
	awaited := 0
	defer func() {
		// There are some left only behind a panic.
		for i, l := range f.lanes {
			if i >= awaited {
				<-l.turn
			}
			if !l.over {
				l.resume <- false
				<-l.turn
			}
			l.failed = nil
		}
		all.Wait()
	}()
	for _, l := range f.lanes {
		awaited++
		l.await()
	}
	f.flush()
}

// flush puts out what the lanes have put out. A lane that waits goes on when all
// it had is out.
func (f *forkedJoin) flush() {
	f.order = f.order[:0]
	for i, l := range f.lanes {
		f.heads[i], f.keys[i] = 0, l.places(f.keys[i][:0])
	}
	for {
		best := -1
		for i, l := range f.lanes {
			if f.heads[i] == len(f.keys[i]) && !l.over {
				f.put()
				l.out.clear()
				l.resume <- true
				l.await()
				f.heads[i], f.keys[i] = 0, l.places(f.keys[i][:0])
			}
			if at := f.heads[i]; at < len(f.keys[i]) && (best < 0 || f.keys[i][at].before(f.keys[best][f.heads[best]])) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		f.order = append(f.order, place{int32(best), int32(f.heads[best])})
		f.heads[best]++
		if len(f.order) == outRows {
			f.put()
		}
	}
	f.put()
	for _, l := range f.lanes {
		l.out.clear()
		f.c.collected(l.lane)
	}
	if told := f.lanes[0].told; told > f.told {
		f.told = told
		f.next.bound(told)
	}
}

// put puts out the results that are next.
func (f *forkedJoin) put() {
	if len(f.order) == 0 {
		return
	}
	for _, p := range f.order {
		f.out.time = append(f.out.time, f.lanes[p.lane].out.time[p.row])
	}
	to := 0
	left := f.sides[0].width
	for k := range f.lanes[0].out.cols {
		if k == left || k == left+2+f.sides[1].width {
			continue // a number
		}
		f.out.cols[to].weave(f.lanes, k, f.order)
		to++
	}
	f.next.rows(f.out.batch())
	f.out.clear()
	f.order = f.order[:0]
}

// places says where a lane's results belong; they ascend.
func (l *joinLane) places(list []resultPlace) []resultPlace {
	left := l.f.sides[0].width
	right := left + 2 + l.f.sides[1].width
	ln, lt, rn, rt := l.out.cols[left], l.out.cols[left+1], l.out.cols[right], l.out.cols[right+1]
	for k, t := range l.out.time {
		i := int32(k)
		p := resultPlace{time: t}
		switch {
		case rn.null(i):
			p.rank, p.a = 2, ln.I[i]
		case ln.null(i):
			p.rank, p.a = 3, rn.I[i]
		case lt.I[i] > rt.I[i]:
			p.a, p.b = ln.I[i], rn.I[i]
		default:
			p.rank, p.a, p.b = 1, rn.I[i], ln.I[i]
		}
		list = append(list, p)
	}
	return list
}

// weave appends values of a column of the lanes' results, for as long as they keep
// their texts.
func (c *column) weave(lanes []*joinLane, k int, order []place) {
	plain := c.Null == nil && c.class != plan.ClassRow
	for _, l := range lanes {
		plain = plain && l.out.cols[k].Null == nil
	}
	if !plain {
		for _, p := range order {
			c.show(&lanes[p.lane].out.cols[k].Vector, p.row)
		}
		return
	}
	switch c.class {
	case plan.ClassInt:
		for _, p := range order {
			c.I = append(c.I, lanes[p.lane].out.cols[k].I[p.row])
		}
	case plan.ClassFloat:
		for _, p := range order {
			c.F = append(c.F, lanes[p.lane].out.cols[k].F[p.row])
		}
	case plan.ClassString:
		for _, p := range order {
			c.S = append(c.S, lanes[p.lane].out.cols[k].S[p.row])
		}
	}
	c.n += len(order)
}

func (f *forkedJoin) measure(g *gauge) {
	for _, l := range f.lanes {
		l.j.measure(g)
		l.out.measure(g)
	}
}

// A join is saved as its rows, those that wait and those that are in their windows,
// by the order in which they came.

func (j *join) save(e *encoder) {
	e.int(j.told)
	for i, s := range j.sides {
		e.int(j.bounds[i])
		s.tidy()
		e.uint(uint64(s.rows.len()))
		e.records(s.rows.len(), s.rows.weight(), func(e *encoder, k int) {
			e.bool(s.matched[k])
			s.rows.saveRow(e, k, len(s.rows.cols))
		})
		q := j.queues[i]
		e.uint(uint64(q.len()))
		e.records(q.len(), q.weight(), func(e *encoder, k int) { q.saveRow(e, k, len(q.cols)) })
	}
}

func (f *forkedJoin) save(e *encoder) {
	e.int(f.told)
	for i, s := range f.sides {
		e.int(f.lanes[0].j.bounds[i])
		tables := make([]*table, len(f.lanes))
		for k, l := range f.lanes {
			l.j.sides[i].tidy()
			tables[k] = l.j.sides[i].rows
		}
		order := s.inOrder(tables)
		e.uint(uint64(len(order)))
		e.records(len(order), tables[0].weight(), func(e *encoder, k int) {
			p := order[k]
			e.bool(f.lanes[p.lane].j.sides[i].matched[p.row])
			tables[p.lane].saveRow(e, int(p.row), s.width)
		})
		for k, l := range f.lanes {
			tables[k] = l.j.queues[i]
		}
		order = s.inOrder(tables)
		e.uint(uint64(len(order)))
		e.records(len(order), tables[0].weight(), func(e *encoder, k int) {
			tables[order[k].lane].saveRow(e, int(order[k].row), s.width)
		})
	}
}

// inOrder are the rows of the lanes by their numbers, which ascend in each.
func (s *joinSplit) inOrder(tables []*table) []place {
	total := 0
	for _, t := range tables {
		total += t.len()
	}
	order, heads := make([]place, 0, total), make([]int, len(tables))
	for range total {
		best, least := -1, int64(0)
		for i, t := range tables {
			if at := heads[i]; at < t.len() {
				if n := t.cols[s.width].I[at]; best < 0 || n < least {
					best, least = i, n
				}
			}
		}
		order = append(order, place{int32(best), int32(heads[best])})
		heads[best]++
	}
	return order
}

func (j *join) load(d *decoder) {
	j.told = d.int()
	for i := range j.sides {
		j.bounds[i] = d.int()
		loadRows(d, j.input(i), len(j.input(i)), true, func(b *Batch, matched []bool) { j.restore(i, b, matched) })
		loadRows(d, j.input(i), len(j.input(i)), false, func(b *Batch, _ []bool) {
			for _, k := range b.Sel {
				j.queues[i].add(b, k)
			}
		})
	}
}

func (f *forkedJoin) load(d *decoder) {
	f.told = d.int()
	for i, s := range f.sides {
		bound := d.int()
		for _, l := range f.lanes {
			l.j.told, l.told, l.j.bounds[i] = f.told, f.told, bound
		}
		columns := f.lanes[0].j.input(i)
		loadRows(d, columns, s.width, true, func(b *Batch, matched []bool) {
			s.divide(b)
			for _, l := range f.lanes {
				if own := s.own(l, b); len(own.Sel) > 0 {
					l.j.restore(i, own, matched)
				}
			}
		})
		loadRows(d, columns, s.width, false, func(b *Batch, _ []bool) {
			s.divide(b)
			for _, l := range f.lanes {
				own := s.own(l, b)
				for _, k := range own.Sel {
					l.j.queues[i].add(own, k)
				}
			}
		})
	}
}

// loadRows reads rows, of which a piece at a time is shown.
func loadRows(d *decoder, columns []plan.ColumnInfo, width int, marked bool, show func(b *Batch, matched []bool)) {
	const piece = 1 << 10
	t := newTable(columns[:width])
	var matched []bool
	for n := d.count(); n > 0; {
		t.clear()
		matched = matched[:0]
		for range min(n, piece) {
			if marked {
				matched = append(matched, d.bool())
			}
			t.loadRow(d)
			n--
		}
		show(t.batch(), matched)
	}
}

// restore takes rows that were in their window when a snapshot was taken.
func (j *join) restore(side int, b *Batch, matched []bool) {
	s, x := j.sides[side], j.c.x
	x.begin(b.N)
	s.vectors = evaluated(s.vectors, s.keys, x, b)
	for _, i := range b.Sel {
		keyless := x.bad[i] && len(x.fails) > 0
		for _, k := range s.vectors {
			keyless = keyless || k.null(i)
		}
		number := s.rows.head + int64(s.rows.len())
		s.rows.add(b, i)
		s.matched, s.after = append(s.matched, matched[i]), append(s.after, noRow)
		group := -1
		if !keyless {
			group = s.enter(folded(hashRow(s.keyCols, s.vectors, i)), i, number)
		}
		s.of = append(s.of, int32(group))
	}
}

// weight is about how many bytes a row takes.
func (t *table) weight() int { return 8 + 12*len(t.cols) }

// saveRow writes a row with its first columns.
func (t *table) saveRow(e *encoder, k, width int) {
	e.int(t.time[k])
	for _, c := range t.cols[:width] {
		e.value(c.value(k))
	}
}

func (t *table) loadRow(d *decoder) {
	t.time = append(t.time, d.int())
	for _, c := range t.cols {
		c.addValue(d.value())
	}
}
