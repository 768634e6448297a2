package run

import "github.com/millrace/millrace/internal/analytics/plan"

// aggregate groups rows into tumbling windows.
type aggregate struct {
	c         *builder
	n         *plan.Aggregate
	keys      []eval // without the time key
	keyCols   []plan.ColumnInfo
	args      []eval
	states    []state
	groups    *groups
	time      func(t int64) plan.Value
	open      bool
	windowEnd int64
	order     plan.Value // of the key that never goes back
	vectors   []*Vector
	values    []*Vector
	ids       []int32 // the group of each row of a batch
	hashes    []uint64
	next      sink

	// Where the groups are divided between several operators, ordered is set, and
	// firsts are the places in the stream of the groups' first rows; place is that
	// of the batch's first row.
	ordered bool
	firsts  []int64
	place   int64
}

func newAggregate(c *builder, n *plan.Aggregate, next sink) *aggregate {
	a := &aggregate{c: c, n: n, next: next}
	for i, k := range n.Keys {
		if n.Time != nil && i == n.TimeIndex {
			a.time = timeFunction(c.x, n.Time)
			continue
		}
		a.keys = append(a.keys, compile(k))
		a.keyCols = append(a.keyCols, plan.ColumnInfo{Type: k.Type()})
	}
	a.groups = newGroups(a.keyCols)
	a.args, a.states = newStates(n.Aggs)
	return a
}

func (a *aggregate) rows(b *Batch) {
	x := a.c.x
	x.begin(b.N)
	a.vectors = a.vectors[:0]
	for _, k := range a.keys {
		a.vectors = append(a.vectors, k(x, b, b.Sel))
	}
	a.values = evaluated(a.values, a.args, x, b)
	sel := b.Sel
	if len(x.fails) > 0 {
		sel = x.good(b.Sel, nil)
		a.c.reported(b, a.n.Input.Columns())
	}
	for len(sel) > 0 {
		n := a.segment(b, sel)
		a.add(b, sel[:n])
		sel = sel[n:]
	}
}

// evaluated computes the arguments of aggregates; nil where there is none.
func evaluated(values []*Vector, args []eval, x *context, b *Batch) []*Vector {
	values = values[:0]
	for _, f := range args {
		if f == nil {
			values = append(values, nil)
		} else {
			values = append(values, f(x, b, b.Sel))
		}
	}
	return values
}

// segment opens a window if none is, closes it if the next row is not its own,
// and returns how many rows are.
func (a *aggregate) segment(b *Batch, sel []int32) int {
	switch {
	case a.time != nil:
		t := b.Time[sel[0]]
		if a.open && t >= a.windowEnd {
			a.close(a.windowEnd)
		}
		if !a.open {
			a.open, a.windowEnd = true, boundary(a.time, t)
		}
		if b.Time[sel[len(sel)-1]] < a.windowEnd {
			return len(sel)
		}
		n := 1
		for n < len(sel) && b.Time[sel[n]] < a.windowEnd {
			n++
		}
		return n
	case a.n.Order >= 0:
		at := func(i int32) plan.Value { return a.vectors[a.n.Order].at(&a.keyCols[a.n.Order].Type, i) }
		k := at(sel[0])
		if a.open && !equalValues(k, a.order) {
			a.close(b.Time[sel[0]])
		}
		if !a.open {
			a.open, a.order = true, kept(k)
		}
		n := 1
		for n < len(sel) && equalValues(at(sel[n]), k) {
			n++
		}
		return n
	}
	a.open = true
	return len(sel)
}

// add puts rows into their groups.
func (a *aggregate) add(b *Batch, sel []int32) {
	a.ids = sized(a.ids, b.N)
	if len(a.keys) == 0 {
		if a.groups.len() == 0 {
			a.groups.find(nil, 0)
		}
		for _, i := range sel {
			a.ids[i] = 0
		}
	} else {
		a.groups.findAll(a.vectors, sel, a.ids, a.hashes)
	}
	if a.ordered {
		a.note(sel)
	}
	for i, s := range a.states {
		s.grow(a.groups.len())
		s.add(a.ids, sel, a.values[i], b.Time)
	}
}

// note remembers where groups were first seen. New ones have ascending numbers.
func (a *aggregate) note(sel []int32) {
	for _, i := range sel {
		if len(a.firsts) == a.groups.len() {
			return
		}
		if int(a.ids[i]) == len(a.firsts) {
			a.firsts = append(a.firsts, a.place+int64(i))
		}
	}
}

func (a *aggregate) bound(t int64) {
	if a.time != nil && a.open && t >= a.windowEnd {
		a.close(a.windowEnd)
	}
	if a.time != nil {
		t++ // windows that are open, or will be, end later than now
	}
	a.next.bound(t)
}

func (a *aggregate) end() {
	if a.open || len(a.n.Keys) == 0 {
		if len(a.n.Keys) == 0 && a.groups.len() == 0 {
			a.groups.find(nil, 0)
			for _, s := range a.states {
				s.grow(1)
			}
		}
		a.close(0)
	}
	a.next.end()
}

// close puts the groups out.
func (a *aggregate) close(at int64) {
	n := a.groups.len()
	out := &Batch{N: n, Time: make([]int64, n), Sel: all(n)}
	for i := range out.Time {
		out.Time[i] = at
	}
	k := 0
	for i, col := range a.n.Columns()[:len(a.n.Keys)] {
		if a.time != nil && i == a.n.TimeIndex {
			c := newColumn(col.Type)
			v := a.time(at - 1)
			for range n {
				c.addValue(v)
			}
			out.Cols = append(out.Cols, &c.Vector)
			continue
		}
		out.Cols = append(out.Cols, &a.groups.keys.cols[k].Vector)
		k++
	}
	var bad []int32
	var why []error
	for i, s := range a.states {
		c := newColumn(a.n.Aggs[i].T)
		for g := range n {
			v, err := s.result(g, at)
			if err != nil {
				bad, why = append(bad, int32(g)), append(why, err)
				v = plan.Value{Null: true}
			}
			c.addValue(v)
		}
		out.Cols = append(out.Cols, &c.Vector)
	}
	if len(bad) > 0 {
		out.Sel = a.c.without(out, a.n.Columns(), bad, why)
	}
	if len(out.Sel) > 0 {
		a.next.rows(out)
	}
	a.groups.clear()
	a.firsts = a.firsts[:0]
	for _, s := range a.states {
		s.reset()
	}
	a.open = false
}

// without reports rows that failed and selects the others.
func (c *builder) without(b *Batch, columns []plan.ColumnInfo, bad []int32, why []error) []int32 {
	c.x.begin(b.N)
	for i, row := range bad {
		c.x.failed(row, why[i])
	}
	sel := c.x.good(b.Sel, nil)
	c.reported(b, columns)
	return sel
}

// stagger has a window per key, which opens with the key's first row. A key is
// forgotten with its window.
type stagger struct {
	c       *builder
	n       *plan.Stagger
	keys    []eval
	keyCols []plan.ColumnInfo
	args    []eval
	states  []state
	groups  *groups
	due     []int64 // by number of group
	queue   dueQueue
	opened  int64 // windows that ever were
	vectors []*Vector
	values  []*Vector
	ids     []int32
	out     *table // results that have not been put out
	bad     []int32
	why     []error
	next    sink
}

func newStagger(c *builder, n *plan.Stagger, next sink) *stagger {
	s := &stagger{c: c, n: n, next: next, out: newTable(n.Columns())}
	for _, k := range n.Keys {
		s.keys = append(s.keys, compile(k))
		s.keyCols = append(s.keyCols, plan.ColumnInfo{Type: k.Type()})
	}
	s.groups = newGroups(s.keyCols)
	s.args, s.states = newStates(n.Aggs)
	return s
}

func (s *stagger) rows(b *Batch) {
	x := s.c.x
	x.begin(b.N)
	s.vectors = evaluated(s.vectors, s.keys, x, b)
	s.values = evaluated(s.values, s.args, x, b)
	sel := b.Sel
	if len(x.fails) > 0 {
		sel = x.good(b.Sel, nil)
		s.c.reported(b, s.n.Input.Columns())
	}
	s.ids = sized(s.ids, b.N)
	from := 0
	for at, i := range sel {
		t := b.Time[i]
		if len(s.queue) > 0 && s.queue[0].due <= t {
			s.add(b, sel[from:at])
			from = at
			s.flush(t)
		}
		id, fresh := s.groups.find(s.vectors, i)
		s.ids[i] = int32(id)
		switch {
		case fresh:
			s.due = grown(s.due, id+1)
			s.due[id] = t + s.n.Length
			s.queue.push(dueWindow{due: s.due[id], opened: s.opened, id: int32(id)})
			s.opened++
		case s.n.Session:
			s.due[id] = t + s.n.Length
		}
	}
	s.add(b, sel[from:])
	s.put()
}

// add puts rows into their windows.
func (s *stagger) add(b *Batch, sel []int32) {
	if len(sel) == 0 {
		return
	}
	for i, st := range s.states {
		st.grow(s.groups.len())
		st.add(s.ids, sel, s.values[i], b.Time)
	}
}

func (s *stagger) bound(t int64) {
	s.flush(t)
	s.put()
	s.next.bound(t + 1) // what is open, or will be, is due later than now
}

func (s *stagger) end() { s.next.end() }

// flush closes the windows that are due at t, the one that was due first first.
func (s *stagger) flush(t int64) {
	for len(s.queue) > 0 && s.queue[0].due <= t {
		w := s.queue[0]
		if s.due[w.id] > w.due {
			// A session that went on is due later than it was when it was put here.
			s.queue[0].due = s.due[w.id]
			s.queue.down(0)
			continue
		}
		s.queue.pop()
		id := int(w.id)
		s.out.time = append(s.out.time, w.due)
		for k, key := range s.groups.keys.cols {
			s.out.cols[k].show(&key.Vector, w.id)
		}
		for i, st := range s.states {
			v, err := st.result(id, w.due)
			if err != nil {
				s.bad, s.why = append(s.bad, int32(s.out.len()-1)), append(s.why, err)
				v = plan.Value{Null: true}
			}
			s.out.cols[len(s.keyCols)+i].addValue(v)
			st.wipe(id)
		}
		s.groups.remove(id)
	}
	if s.groups.sparse() {
		s.compact()
	}
}

// put hands the results on.
func (s *stagger) put() {
	if s.out.len() == 0 {
		return
	}
	out := s.out.batch()
	if len(s.bad) > 0 {
		out.Sel = s.c.without(out, s.n.Columns(), s.bad, s.why)
		s.bad, s.why = s.bad[:0], s.why[:0]
	}
	if len(out.Sel) > 0 {
		s.next.rows(out)
	}
	s.out.clear()
}

// compact gives up the room of windows that are no more.
func (s *stagger) compact() {
	n := s.groups.len()
	if s.groups.live() == n {
		return
	}
	old := s.groups.compact()
	s.due = picked(s.due, old)
	for _, st := range s.states {
		st.grow(n)
		st.pick(old)
	}
	s.queue.renumber(n, old)
}

// dueQueue is a heap of windows: the one that is due first, and of those the one
// that was opened first, is at the front.
type dueQueue []dueWindow

type dueWindow struct {
	due    int64
	opened int64 // number of the window in order of opening
	id     int32
}

func (q dueQueue) less(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].opened < q[j].opened
}

func (q *dueQueue) push(w dueWindow) {
	*q = append(*q, w)
	h := *q
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *dueQueue) pop() {
	h := *q
	last := len(h) - 1
	h[0] = h[last]
	*q = h[:last]
	q.down(0)
}

func (q dueQueue) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q.less(child+1, child) {
			child++
		}
		if !q.less(child, i) {
			return
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}

// renumber follows groups that got new numbers, which were below n.
func (q dueQueue) renumber(n int, old []int32) {
	fresh := renumbering(n, old)
	for i := range q {
		q[i].id = fresh[q[i].id]
	}
}
