package run

import (
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// join joins two streams. Rows of both sides are taken in order of time, the left
// ones first where times are equal; each meets the rows of the other side that
// are still in their window. So every pair is made once, by its later row.
type join struct {
	c      *builder
	n      *plan.Join
	queues []*table
	bounds []int64
	told   int64
	sides  [2]*joinSide
	cond   eval
	width  [2]int // columns of a side, without its time
	out    *table // results not yet put out
	next   sink
}

// joinSide keeps the rows of one side that can still meet others.
type joinSide struct {
	rows    *table
	matched []bool
	keys    []eval
	keyCols []plan.ColumnInfo
	groups  *groups
	byKey   []keyRows
	of      []int32 // the key of each row
	window  int64
	byRows  bool
	outer   bool  // rows that met none are put out
	passed  int64 // rows that ever were
}

// keyRows are the numbers of the rows with one key, ascending.
type keyRows struct{ rows []int64 }

func newJoin(c *builder, n *plan.Join, next sink) *join {
	j := &join{c: c, n: n, next: next, bounds: []int64{never, never}, told: never, out: newTable(n.Columns())}
	for i, in := range []plan.Node{n.Left, n.Right} {
		columns := in.Columns()
		s := &joinSide{rows: newTable(columns)}
		keys := n.LeftKeys
		s.window, s.byRows = n.LeftWindow, n.LeftRows
		s.outer = n.Kind == sql.LeftJoin || n.Kind == sql.FullJoin
		if i == 1 {
			keys = n.RightKeys
			s.window, s.byRows = n.RightWindow, n.RightRows
			s.outer = n.Kind == sql.RightJoin || n.Kind == sql.FullJoin
		}
		for k, e := range keys {
			s.keys = append(s.keys, compile(e))
			s.keyCols = append(s.keyCols, plan.ColumnInfo{Type: keyType(n.LeftKeys[k].Type(), n.RightKeys[k].Type())})
		}
		s.groups = newGroups(s.keyCols)
		j.sides[i] = s
		j.queues = append(j.queues, newTable(columns))
		j.width[i] = len(columns)
	}
	if n.Condition != nil {
		j.cond = compile(n.Condition)
	}
	return j
}

// keyType is CHAR where one of the two is, so that trailing blanks do not count.
func keyType(a, b sql.Type) sql.Type {
	if a.Kind == sql.KindChar || b.Kind == sql.KindChar {
		return sql.Type{Kind: sql.KindChar, Length: max(a.Length, b.Length)}
	}
	return a
}

type joinInput struct {
	j *join
	i int
}

func (j *join) side(i int) sink { return &joinInput{j, i} }

func (s *joinInput) rows(b *Batch) {
	for _, i := range b.Sel {
		s.j.queues[s.i].add(b, i)
	}
	if last := b.Time[b.Sel[len(b.Sel)-1]]; last > s.j.bounds[s.i] {
		s.j.bounds[s.i] = last
	}
	s.j.drain()
}

func (s *joinInput) bound(t int64) {
	if t > s.j.bounds[s.i] {
		s.j.bounds[s.i] = t
	}
	s.j.drain()
}

func (s *joinInput) end() {}

// drain takes the rows whose turn has come.
func (j *join) drain() {
	taken := []int{0, 0}
	var keys [2][]*Vector
	for i, q := range j.queues {
		if q.len() > 0 {
			b := q.batch()
			j.c.x.begin(b.N)
			for _, k := range j.sides[i].keys {
				keys[i] = append(keys[i], copied(k(j.c.x, b, b.Sel), b.N))
			}
			// A key that cannot be computed meets nothing; the row fails once, now.
			for _, f := range j.c.x.fails {
				j.c.report(b, j.input(i), f.row, f.failure)
			}
		}
	}
	for {
		i := pick(j.queues, taken, j.bounds)
		if i < 0 {
			break
		}
		j.take(i, int32(taken[i]), keys[i])
		taken[i]++
	}
	for i, n := range taken {
		j.queues[i].drop(n)
	}
	low := min(j.bounds[0], j.bounds[1])
	if low > never {
		j.pass(low)
	}
	j.put()
	if low > j.told {
		j.told = low
		j.next.bound(low)
	}
}

func (j *join) input(i int) []plan.ColumnInfo {
	if i == 0 {
		return j.n.Left.Columns()
	}
	return j.n.Right.Columns()
}

// copied keeps a vector beyond the next evaluation.
func copied(v *Vector, n int) *Vector {
	c := *v
	cut := func(m int) int { return min(n, m) }
	c.I = append([]int64(nil), v.I[:cut(len(v.I))]...)
	c.F = append([]float64(nil), v.F[:cut(len(v.F))]...)
	c.S = append([]string(nil), v.S[:cut(len(v.S))]...)
	if v.Null != nil {
		c.Null = append([]bool(nil), v.Null[:cut(len(v.Null))]...)
	}
	return &c
}

// take processes one row.
func (j *join) take(side int, row int32, keys []*Vector) {
	mine, other := j.sides[side], j.sides[1-side]
	q := j.queues[side]
	t := q.time[row]
	j.pass(t)
	b := q.batch()
	null := false
	for _, k := range keys {
		null = null || k.null(row)
	}
	mine.rows.add(b, row)
	mine.matched = append(mine.matched, false)
	number := mine.passed
	mine.passed++
	group := int32(-1)
	if !null {
		if len(mine.keys) == 0 {
			group = 0
			if mine.groups.len() == 0 {
				mine.groups.find(nil, 0)
			}
		} else {
			id, _ := mine.groups.find(keys, row)
			group = int32(id)
		}
		for int(group) >= len(mine.byKey) {
			mine.byKey = append(mine.byKey, keyRows{})
		}
		mine.byKey[group].rows = append(mine.byKey[group].rows, number)
	}
	mine.of = append(mine.of, group)
	if mine.byRows {
		for mine.passed-mine.rows.head > mine.window+1 {
			j.leave(side, t)
		}
	}
	if null {
		return
	}
	var candidates []int64
	if len(other.keys) == 0 {
		if len(other.byKey) > 0 {
			candidates = other.byKey[0].rows
		}
	} else if id := other.groups.look(keys, row); id >= 0 && id < len(other.byKey) {
		candidates = other.byKey[id].rows
	}
	mineIndex := int(number - mine.rows.head)
	for _, c := range candidates {
		at := int(c - other.rows.head)
		if at < 0 || !other.byRows && other.rows.time[at] < t-other.window {
			continue
		}
		j.pair(side, mineIndex, at, t)
		if j.out.len() >= outRows {
			j.put()
		}
	}
}

// outRows bounds what operators that multiply rows collect before they put it out.
var outRows = 1 << 16

// put hands results on.
func (j *join) put() {
	if j.out.len() > 0 {
		j.next.rows(j.out.batch())
		j.out.clear()
	}
}

// pair puts two rows out if they meet the condition.
func (j *join) pair(side, mineIndex, otherIndex int, t int64) {
	at := [2]int{mineIndex, otherIndex}
	if side == 1 {
		at[0], at[1] = at[1], at[0]
	}
	j.out.time = append(j.out.time, t)
	col := 0
	for s, index := range at {
		for _, c := range j.sides[s].rows.cols {
			j.out.cols[col].add(&c.Vector, int32(index))
			col++
		}
		j.out.cols[col].addValue(plan.Value{I: j.sides[s].rows.time[index]})
		col++
	}
	if j.cond != nil {
		b := j.out.batch()
		last := int32(b.N - 1)
		x := j.c.x
		x.begin(b.N)
		v := j.cond(x, b, []int32{last})
		keep := !x.bad[last] && !v.null(last) && v.I[last] != 0
		for _, f := range x.fails {
			j.c.report(b, j.n.Columns(), f.row, f.failure)
		}
		if !keep {
			j.shorten()
			return
		}
	}
	j.sides[0].matched[at[0]] = true
	j.sides[1].matched[at[1]] = true
}

// shorten takes the last result back.
func (j *join) shorten() {
	n := len(j.out.time) - 1
	j.out.time = j.out.time[:n]
	for _, c := range j.out.cols {
		c.shorten(n)
	}
}

func (c *column) shorten(n int) {
	c.n = n
	if c.Null != nil {
		c.Null = c.Null[:n]
	}
	switch c.class {
	case plan.ClassInt:
		c.I = c.I[:n]
	case plan.ClassFloat:
		c.F = c.F[:n]
	case plan.ClassString:
		c.S = c.S[:n]
	case plan.ClassRow:
		for f := range c.t.Fields {
			member := column{class: plan.ClassOf(c.t.Fields[f].Type), t: c.t.Fields[f].Type, Vector: *c.R[f]}
			member.shorten(n)
			*c.R[f] = member.Vector
		}
	}
}

// pass lets the rows leave whose window has ended before t, oldest end first.
func (j *join) pass(t int64) {
	for {
		best, end := -1, int64(0)
		for i, s := range j.sides {
			if s.byRows || s.rows.len() == 0 {
				continue
			}
			if e := s.rows.time[0] + s.window; e < t && (best < 0 || e < end) {
				best, end = i, e
			}
		}
		if best < 0 {
			return
		}
		j.leave(best, end)
	}
}

// leave drops the oldest row of a side; one that met none is put out if its side
// is kept.
func (j *join) leave(side int, t int64) {
	s := j.sides[side]
	if s.outer && !s.matched[0] {
		j.out.time = append(j.out.time, t)
		col := 0
		for i := range j.sides {
			for k := range j.width[i] {
				if i == side {
					j.out.cols[col].add(&s.rows.cols[k].Vector, 0)
				} else {
					j.out.cols[col].addValue(plan.Value{Null: true})
				}
				col++
			}
			if i == side {
				j.out.cols[col].addValue(plan.Value{I: s.rows.time[0]})
			} else {
				j.out.cols[col].addValue(plan.Value{Null: true})
			}
			col++
		}
	}
	if g := s.of[0]; g >= 0 {
		s.byKey[g].rows = s.byKey[g].rows[1:]
	}
	s.rows.drop(1)
	s.matched, s.of = s.matched[1:], s.of[1:]
	if s.rows.len() == 0 && len(s.byKey) > 64 {
		s.groups.clear()
		s.byKey = s.byKey[:0]
	}
}

// lookup joins a stream with a table.
type lookup struct {
	c         *builder
	n         *plan.Lookup
	keys      []eval
	keyCols   []plan.ColumnInfo
	tableKeys []eval
	cond      eval
	table     *table
	groups    *groups
	byKey     [][]int32
	build     func() // reads the table
	next      sink
}

func newLookup(c *builder, n *plan.Lookup, next sink) *lookup {
	l := &lookup{c: c, n: n, next: next}
	for i, k := range n.InputKeys {
		l.keys = append(l.keys, compile(k))
		l.tableKeys = append(l.tableKeys, compile(n.TableKeys[i]))
		l.keyCols = append(l.keyCols, plan.ColumnInfo{Type: keyType(k.Type(), n.TableKeys[i].Type())})
	}
	if n.Condition != nil {
		l.cond = compile(n.Condition)
	}
	l.build = func() {
		t := newTable(n.Table.Columns())
		c.app.readTable(c, n.Table, &collector{t: t})
		groups, byKey := newGroups(l.keyCols), [][]int32(nil)
		b := t.batch()
		c.x.begin(b.N)
		var keys []*Vector
		for _, k := range l.tableKeys {
			keys = append(keys, copied(k(c.x, b, b.Sel), b.N))
		}
	rows:
		for _, i := range b.Sel {
			for _, k := range keys {
				if k.null(i) || c.x.bad[i] {
					continue rows
				}
			}
			id := 0
			if len(keys) > 0 {
				id, _ = groups.find(keys, i)
			}
			for id >= len(byKey) {
				byKey = append(byKey, nil)
			}
			byKey[id] = append(byKey[id], i)
		}
		l.table, l.groups, l.byKey = t, groups, byKey
	}
	return l
}

func (l *lookup) rows(b *Batch) {
	if l.table == nil {
		l.build()
	}
	x := l.c.x
	x.begin(b.N)
	var keys []*Vector
	for _, k := range l.keys {
		keys = append(keys, k(x, b, b.Sel))
	}
	sel := b.Sel
	if len(x.fails) > 0 {
		sel = x.good(b.Sel, nil)
		l.c.reported(b, l.n.Input.Columns())
	}
	width := len(b.Cols)
	out := newTable(l.n.Columns())
	var from []int32 // the input row of each result
	put := func(i, match int32) {
		out.time = append(out.time, b.Time[i])
		for c, col := range b.Cols {
			out.cols[c].add(col, i)
		}
		for c, col := range l.table.cols {
			if match < 0 {
				out.cols[width+c].addValue(plan.Value{Null: true})
			} else {
				out.cols[width+c].add(&col.Vector, match)
			}
		}
		from = append(from, i)
	}
	done := 0 // rows whose results were put out
	flush := func(to int) {
		if l.cond != nil {
			l.filtered(b, sel[done:to], out, from, put)
		} else if out.len() > 0 {
			l.next.rows(out.batch())
		}
		out.clear()
		from, done = from[:0], to
	}
	for at, i := range sel {
		if out.len() >= outRows {
			flush(at)
		}
		null := false
		for _, k := range keys {
			null = null || k.null(i)
		}
		n := 0
		if !null {
			id := 0
			if len(keys) > 0 {
				id = l.groups.look(keys, i)
			}
			if id >= 0 && id < len(l.byKey) {
				for _, m := range l.byKey[id] {
					put(i, m)
					n++
				}
			}
		}
		if n == 0 && l.n.Left && l.cond == nil {
			put(i, -1)
		}
	}
	flush(len(sel))
}

// filtered applies the rest of the condition, and then keeps the rows that met
// none.
func (l *lookup) filtered(b *Batch, sel []int32, out *table, from []int32, put func(i, match int32)) {
	x := l.c.x
	r := out.batch()
	x.begin(r.N)
	keep := map[int32][]int32{}
	if r.N > 0 {
		v := l.cond(x, r, r.Sel)
		for _, i := range r.Sel {
			if !x.bad[i] && !v.null(i) && v.I[i] != 0 {
				keep[from[i]] = append(keep[from[i]], i)
			}
		}
		l.c.reported(r, l.n.Columns())
	}
	var chosen []int32
	for _, i := range sel {
		if rows := keep[i]; rows != nil {
			chosen = append(chosen, rows...)
		} else if l.n.Left {
			put(i, -1)
			chosen = append(chosen, int32(out.len()-1))
		}
	}
	if len(chosen) > 0 {
		r = out.batch()
		r.Sel = chosen
		l.next.rows(compact(r, l.n.Columns()))
	}
}

func (l *lookup) bound(t int64) { l.next.bound(t) }
func (l *lookup) end()          { l.next.end() }
