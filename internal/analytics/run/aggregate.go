package run

import (
	"hash/maphash"
	"math"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// groups numbers distinct rows of keys: open addressing over numbers of groups,
// whose keys are kept in columns.
type groups struct {
	columns []plan.ColumnInfo
	keys    *table
	hashes  []uint64
	slots   []int32 // group number + 1
	mask    uint64
}

var seed = maphash.MakeSeed()

func newGroups(columns []plan.ColumnInfo) *groups {
	g := &groups{columns: columns, keys: newTable(columns)}
	g.slots, g.mask = make([]int32, 16), 15
	return g
}

func (g *groups) len() int { return len(g.hashes) }

func (g *groups) clear() {
	g.keys.clear()
	g.hashes = g.hashes[:0]
	if len(g.slots) > 1<<12 {
		g.slots, g.mask = make([]int32, 16), 15
	} else {
		clear(g.slots)
	}
}

func mix(h, v uint64) uint64 {
	h ^= v
	h *= 0x9E3779B97F4A7C15
	return h ^ h>>29
}

// hash is the hash of a row of keys.
func hashRow(columns []plan.ColumnInfo, cols []*Vector, i int32) uint64 {
	h := uint64(0x243F6A8885A308D3)
	for k := range columns {
		v := cols[k]
		if v.null(i) {
			h = mix(h, 0xA0761D6478BD642F)
			continue
		}
		switch plan.ClassOf(columns[k].Type) {
		case plan.ClassInt:
			h = mix(h, uint64(v.I[i]))
		case plan.ClassFloat:
			f := v.F[i]
			if f == 0 {
				f = 0 // minus zero is zero
			}
			h = mix(h, math.Float64bits(f))
		case plan.ClassString:
			s := v.S[i]
			if columns[k].Type.Kind == sql.KindChar {
				s = trimRight(s)
			}
			h = mix(h, maphash.String(seed, s))
		}
	}
	return h
}

// find is the number of a row's group; fresh if it is a new one.
func (g *groups) find(cols []*Vector, i int32) (id int, fresh bool) {
	h := hashRow(g.columns, cols, i)
	for at := h & g.mask; ; at = (at + 1) & g.mask {
		slot := g.slots[at]
		if slot == 0 {
			id = len(g.hashes)
			g.slots[at] = int32(id + 1)
			g.hashes = append(g.hashes, h)
			g.keys.time = append(g.keys.time, 0)
			for k, c := range g.keys.cols {
				c.add(cols[k], i)
			}
			if len(g.hashes)*4 > len(g.slots)*3 {
				g.grow()
			}
			return id, true
		}
		if g.hashes[slot-1] == h && g.same(int(slot-1), cols, i) {
			return int(slot - 1), false
		}
	}
}

// look is find without making a group; -1 if there is none.
func (g *groups) look(cols []*Vector, i int32) int {
	h := hashRow(g.columns, cols, i)
	for at := h & g.mask; ; at = (at + 1) & g.mask {
		slot := g.slots[at]
		if slot == 0 {
			return -1
		}
		if g.hashes[slot-1] == h && g.same(int(slot-1), cols, i) {
			return int(slot - 1)
		}
	}
}

func (g *groups) same(id int, cols []*Vector, i int32) bool {
	for k := range g.columns {
		mine, v := &g.keys.cols[k].Vector, cols[k]
		if a, b := mine.null(int32(id)), v.null(i); a || b {
			if a != b {
				return false
			}
			continue
		}
		switch plan.ClassOf(g.columns[k].Type) {
		case plan.ClassInt:
			if mine.I[id] != v.I[i] {
				return false
			}
		case plan.ClassFloat:
			if mine.F[id] != v.F[i] && !(mine.F[id] != mine.F[id] && v.F[i] != v.F[i]) {
				return false
			}
		case plan.ClassString:
			if mine.S[id] != v.S[i] && (g.columns[k].Type.Kind != sql.KindChar || trimRight(mine.S[id]) != trimRight(v.S[i])) {
				return false
			}
		}
	}
	return true
}

func (g *groups) grow() {
	g.slots = make([]int32, len(g.slots)*2)
	g.mask = uint64(len(g.slots) - 1)
	for id, h := range g.hashes {
		at := h & g.mask
		for g.slots[at] != 0 {
			at = (at + 1) & g.mask
		}
		g.slots[at] = int32(id + 1)
	}
}

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
	ids       []int32
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

func newStates(aggs []plan.Agg) (args []eval, states []state) {
	for _, agg := range aggs {
		if agg.Arg == nil {
			args = append(args, nil)
		} else {
			args = append(args, compile(agg.Arg))
		}
		states = append(states, newState(agg))
	}
	return args, states
}

func (a *aggregate) rows(b *Batch) {
	x := a.c.x
	x.begin(b.N)
	a.vectors = a.vectors[:0]
	for _, k := range a.keys {
		a.vectors = append(a.vectors, k(x, b, b.Sel))
	}
	values := make([]*Vector, len(a.args))
	for i, f := range a.args {
		if f != nil {
			values[i] = f(x, b, b.Sel)
		}
	}
	sel := b.Sel
	if len(x.fails) > 0 {
		sel = x.good(b.Sel, nil)
		a.c.reported(b, a.n.Input.Columns())
	}
	for len(sel) > 0 {
		n := a.segment(b, sel)
		a.add(b, sel[:n], values)
		sel = sel[n:]
	}
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
		a.open, a.order = true, k
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
func (a *aggregate) add(b *Batch, sel []int32, values []*Vector) {
	if cap(a.ids) < b.N {
		a.ids = make([]int32, b.N, b.N+b.N/4)
	}
	a.ids = a.ids[:b.N]
	if len(a.keys) == 0 {
		if a.groups.len() == 0 {
			a.groups.find(nil, 0)
		}
		for _, i := range sel {
			a.ids[i] = 0
		}
	} else {
		for _, i := range sel {
			id, _ := a.groups.find(a.vectors, i)
			a.ids[i] = int32(id)
		}
	}
	if a.ordered {
		a.note(sel)
	}
	for i, s := range a.states {
		s.grow(a.groups.len())
		s.add(a.ids, sel, values[i], b.Time)
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

// stagger has a window per key, which opens with the key's first row.
type stagger struct {
	c       *builder
	n       *plan.Stagger
	keys    []eval
	keyCols []plan.ColumnInfo
	args    []eval
	groups  *groups
	windows []staggerWindow // by number of group
	queue   []int32         // open windows by due time; sessions are checked again when they come up
	vectors []*Vector
	next    sink
}

type staggerWindow struct {
	open   bool
	due    int64
	states []state
}

func newStagger(c *builder, n *plan.Stagger, next sink) *stagger {
	s := &stagger{c: c, n: n, next: next}
	for _, k := range n.Keys {
		s.keys = append(s.keys, compile(k))
		s.keyCols = append(s.keyCols, plan.ColumnInfo{Type: k.Type()})
	}
	s.groups = newGroups(s.keyCols)
	s.args, _ = newStates(n.Aggs)
	return s
}

func (s *stagger) rows(b *Batch) {
	x := s.c.x
	x.begin(b.N)
	s.vectors = s.vectors[:0]
	for _, k := range s.keys {
		s.vectors = append(s.vectors, k(x, b, b.Sel))
	}
	values := make([]*Vector, len(s.args))
	for i, f := range s.args {
		if f != nil {
			values[i] = f(x, b, b.Sel)
		}
	}
	sel := b.Sel
	if len(x.fails) > 0 {
		sel = x.good(b.Sel, nil)
		s.c.reported(b, s.n.Input.Columns())
	}
	zeros := make([]int32, b.N)
	for at, i := range sel {
		t := b.Time[i]
		s.flush(t)
		id, fresh := s.groups.find(s.vectors, i)
		if fresh {
			w := staggerWindow{}
			_, w.states = newStates(s.n.Aggs)
			for _, st := range w.states {
				st.grow(1)
			}
			s.windows = append(s.windows, w)
		}
		w := &s.windows[id]
		if !w.open {
			w.open, w.due = true, t+s.n.Length
			s.queue = append(s.queue, int32(id))
		} else if s.n.Session {
			w.due = t + s.n.Length
		}
		for j, st := range w.states {
			st.add(zeros, sel[at:at+1], values[j], b.Time)
		}
	}
}

func (s *stagger) bound(t int64) {
	s.flush(t)
	s.next.bound(t + 1) // what is open, or will be, is due later than now
}

func (s *stagger) end() { s.next.end() }

// flush puts out the windows that are due at t.
func (s *stagger) flush(t int64) {
	for len(s.queue) > 0 {
		id := s.queue[0]
		w := &s.windows[id]
		if s.n.Session && len(s.queue) > 1 {
			// Sessions that went on have moved back in the order.
			best := 0
			for i, q := range s.queue {
				if s.windows[q].due < s.windows[s.queue[best]].due {
					best = i
				}
			}
			s.queue[0], s.queue[best] = s.queue[best], s.queue[0]
			id = s.queue[0]
			w = &s.windows[id]
		}
		if w.due > t {
			return
		}
		s.queue = s.queue[1:]
		out := &Batch{N: 1, Time: []int64{w.due}, Sel: all(1)}
		for k := range s.keyCols {
			c := newColumn(s.keyCols[k].Type)
			c.addValue(s.groups.keys.cols[k].value(int(id)))
			out.Cols = append(out.Cols, &c.Vector)
		}
		var bad []int32
		var why []error
		for i, st := range w.states {
			c := newColumn(s.n.Aggs[i].T)
			v, err := st.result(0, w.due)
			if err != nil {
				bad, why = append(bad, 0), append(why, err)
				v = plan.Value{Null: true}
			}
			c.addValue(v)
			out.Cols = append(out.Cols, &c.Vector)
			st.reset()
			st.grow(1)
		}
		w.open = false
		if len(bad) > 0 {
			out.Sel = s.c.without(out, s.n.Columns(), bad, why)
		}
		if len(out.Sel) > 0 {
			s.next.rows(out)
		}
		if len(s.queue) == 0 || len(s.windows) > 1024 && len(s.queue)*2 < len(s.windows) {
			s.forget()
		}
	}
}

// forget drops the keys that have no open window.
func (s *stagger) forget() {
	groups, windows, queue := newGroups(s.keyCols), []staggerWindow(nil), []int32(nil)
	cols := s.groups.keys.batch().Cols
	for _, id := range s.queue {
		to, _ := groups.find(cols, id)
		windows = append(windows, s.windows[id])
		queue = append(queue, int32(to))
	}
	s.groups, s.windows, s.queue = groups, windows, queue
}
