package run

import (
	"sort"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// join joins two streams. Rows of both sides are taken in order of time, the left
// ones first where times are equal; each meets the rows of the other side that
// are still in their window. So every pair is made once, by its later row.
type join struct {
	c       *builder
	n       *plan.Join
	columns []plan.ColumnInfo // of results
	queues  []*table
	bounds  []int64
	told    int64
	sides   [2]*joinSide
	cond    eval
	pairs   []pairing // results not yet put out
	at      [2][]int32
	out     *table
	sel     []int32
	next    sink
}

// pairing are two rows, by number, that may be a result; a row without another is
// one if it has met none.
type pairing struct {
	rows [2]int64 // noRow where there is none
	time int64
}

const noRow = int64(-1)

// joinSide keeps the rows of one side that can still meet others. The first rows of
// the table have left already; they go when they are many.
type joinSide struct {
	rows    *table
	gone    int
	matched []bool  // by place in the table
	of      []int32 // the key of each row, -1 if it has none
	after   []int64 // the next row with the same key, noRow if it is the last
	keys    []eval
	vectors []*Vector
	keyCols []plan.ColumnInfo
	groups  *groups
	ends    []keyRows // by key
	keyless []bool    // rows of the queue that meet nothing
	window  int64
	byRows  bool
	outer   bool // rows that met none are put out
}

// keyRows are the first and the last row with a key.
type keyRows struct{ first, last int64 }

// newJoin makes a join that puts out so many columns.
func newJoin(c *builder, n *plan.Join, columns []plan.ColumnInfo, next sink) *join {
	j := &join{c: c, n: n, columns: columns, next: next, bounds: []int64{never, never}, told: never, out: newTable(columns)}
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
	}
	if n.Condition != nil {
		j.cond = compile(n.Condition)
	}
	return j
}

// outRows bounds what operators that multiply rows collect before they put it out.
var outRows = 1 << 12

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

// drain takes the rows whose turn has come: those of the left side up to the
// right one's bound, of the right side before the left one's.
func (j *join) drain() {
	left, right := j.queues[0], j.queues[1]
	n := [2]int{
		sort.Search(left.len(), func(i int) bool { return left.time[i] > j.bounds[1] }),
		sort.Search(right.len(), func(i int) bool { return right.time[i] >= j.bounds[0] }),
	}
	for side := range n {
		if n[side] > 0 {
			j.evaluate(side, n[side])
		}
	}
	for l, r := 0, 0; l < n[0] || r < n[1]; {
		if r == n[1] || l < n[0] && left.time[l] <= right.time[r] {
			j.take(0, int32(l))
			l++
		} else {
			j.take(1, int32(r))
			r++
		}
	}
	for i, q := range j.queues {
		q.drop(n[i])
	}
	low := min(j.bounds[0], j.bounds[1])
	if low > never {
		j.pass(low)
	}
	j.put()
	for _, s := range j.sides {
		if s.gone > 256 && s.gone > s.rows.len()/2 || s.gone == s.rows.len() {
			s.tidy()
		}
	}
	if low > j.told {
		j.told = low
		j.next.bound(low)
	}
}

// evaluate computes the keys of the first n rows of a queue.
func (j *join) evaluate(side, n int) {
	s, x := j.sides[side], j.c.x
	b := j.queues[side].batch()
	b.Sel = b.Sel[:n]
	x.begin(b.N)
	s.vectors = evaluated(s.vectors, s.keys, x, b)
	s.keyless = sized(s.keyless, n)
	copy(s.keyless, x.bad)
	for _, k := range s.vectors {
		if k.Null != nil {
			for i := range s.keyless {
				s.keyless[i] = s.keyless[i] || k.Null[i]
			}
		}
	}
	// A key that cannot be computed meets nothing; the row fails once, now.
	j.c.reported(b, j.input(side))
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

// take processes one row of a queue.
func (j *join) take(side int, row int32) {
	mine, other := j.sides[side], j.sides[1-side]
	q := j.queues[side]
	t := q.time[row]
	j.pass(t)
	number := mine.rows.head + int64(mine.rows.len())
	mine.rows.time = append(mine.rows.time, t)
	for k, c := range mine.rows.cols {
		c.show(&q.cols[k].Vector, row) // the queue has copied the texts
	}
	mine.matched = append(mine.matched, false)
	mine.after = append(mine.after, noRow)
	group, met := -1, -1
	if !mine.keyless[row] {
		h := folded(hashRow(mine.keyCols, mine.vectors, row))
		group = mine.enter(h, row, number)
		met = other.groups.lookHashed(h, mine.vectors, row)
	}
	mine.of = append(mine.of, int32(group))
	if mine.byRows {
		for int64(mine.rows.len()-mine.gone) > mine.window+1 {
			j.leave(side, t)
		}
	}
	if met < 0 || met >= len(other.ends) {
		return
	}
	p := pairing{time: t}
	p.rows[side] = number
	for at := other.ends[met].first; at != noRow; {
		p.rows[1-side] = at
		k := at - other.rows.head
		if j.cond == nil {
			other.matched[k] = true
			mine.matched[number-mine.rows.head] = true
		}
		at = other.after[k]
		if j.pairs = append(j.pairs, p); len(j.pairs) >= outRows {
			j.put()
		}
	}
}

// enter puts a row behind those with its key.
func (s *joinSide) enter(h uint32, row int32, number int64) (group int) {
	group, fresh := s.groups.findHashed(h, s.vectors, row)
	s.ends = grown(s.ends, s.groups.len())
	if e := &s.ends[group]; fresh {
		*e = keyRows{number, number}
	} else {
		s.after[e.last-s.rows.head] = number
		e.last = number
	}
	return group
}

// put hands on the results that meet the condition.
func (j *join) put() {
	if len(j.pairs) == 0 {
		return
	}
	col := 0
	for i, s := range j.sides {
		j.at[i] = j.at[i][:0]
		for k := range j.pairs {
			at := int32(-1)
			if number := j.pairs[k].rows[i]; number != noRow {
				at = int32(number - s.rows.head)
			}
			j.at[i] = append(j.at[i], at)
		}
		for _, c := range s.rows.cols {
			j.out.cols[col].choose(&c.Vector, j.at[i])
			col++
		}
		j.out.cols[col].choose(&Vector{I: s.rows.time}, j.at[i])
		col++
	}
	for k := range j.pairs {
		j.out.time = append(j.out.time, j.pairs[k].time)
	}
	out := j.out.batch()
	if j.cond != nil {
		out.Sel = j.met(out)
	}
	j.pairs = j.pairs[:0]
	if len(out.Sel) > 0 {
		j.next.rows(out)
	}
	j.out.clear()
}

// met are the pairs that meet the condition, and the rows that have met none when
// their turn comes.
func (j *join) met(out *Batch) []int32 {
	x := j.c.x
	j.sel = j.sel[:0]
	for k := range j.pairs {
		if p := &j.pairs[k]; p.rows[0] != noRow && p.rows[1] != noRow {
			j.sel = append(j.sel, int32(k))
		}
	}
	x.begin(out.N)
	v := j.cond(x, out, j.sel)
	j.sel = j.sel[:0]
	for k := range j.pairs {
		l, r := j.at[0][k], j.at[1][k]
		switch {
		case l < 0:
			if j.sides[1].matched[r] {
				continue
			}
		case r < 0:
			if j.sides[0].matched[l] {
				continue
			}
		case x.bad[k] || v.null(int32(k)) || v.I[k] == 0:
			continue
		default:
			j.sides[0].matched[l], j.sides[1].matched[r] = true, true
		}
		j.sel = append(j.sel, int32(k))
	}
	j.c.reported(out, j.columns)
	return j.sel
}

// pass lets the rows leave whose window has ended before t, oldest end first.
func (j *join) pass(t int64) {
	for {
		best, end := -1, int64(0)
		for i, s := range j.sides {
			if s.byRows || s.gone == s.rows.len() {
				continue
			}
			if e := s.rows.time[s.gone] + s.window; e < t && (best < 0 || e < end) {
				best, end = i, e
			}
		}
		if best < 0 {
			return
		}
		j.leave(best, end)
	}
}

// leave takes the oldest row of a side out; one that met none is put out if its
// side is kept.
func (j *join) leave(side int, t int64) {
	s := j.sides[side]
	at := s.gone
	s.gone++
	if s.outer && !s.matched[at] {
		p := pairing{rows: [2]int64{noRow, noRow}, time: t}
		p.rows[side] = s.rows.head + int64(at)
		if j.pairs = append(j.pairs, p); len(j.pairs) >= outRows {
			j.put()
		}
	}
	if g := s.of[at]; g >= 0 {
		if s.ends[g].first = s.after[at]; s.ends[g].first == noRow {
			s.groups.remove(int(g))
		}
	}
}

// tidy drops the rows that have left, and gives up the room of keys that have none.
func (s *joinSide) tidy() {
	s.rows.drop(s.gone)
	s.matched, s.of, s.after = dropped(s.matched, s.gone), dropped(s.of, s.gone), dropped(s.after, s.gone)
	s.gone = 0
	if s.groups.sparse() {
		s.compact()
	}
}

func (s *joinSide) compact() {
	n := s.groups.len()
	if s.groups.live() == n {
		return
	}
	old := s.groups.compact()
	s.ends = picked(s.ends, old)
	fresh := renumbering(n, old)
	for i, g := range s.of {
		if g >= 0 {
			s.of[i] = fresh[g]
		}
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
