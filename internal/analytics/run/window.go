package run

import (
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// windowed appends the values of sliding windows to each row.
type windowed struct {
	c      *builder
	n      *plan.Windowed
	frames []*frame
	out    []*column // by window
	swept  int64
	next   sink
}

// frame are the windows that have their partition and size in common.
type frame struct {
	rows      bool
	preceding int64
	keys      []eval
	keyCols   []plan.ColumnInfo
	groups    *groups
	parts     []*partition
	fs        []*windowFunction
	vectors   []*Vector
}

// partition are the rows of one key that are in the frame: a ring of their times,
// and of the arguments of each function.
type partition struct {
	time  []int64
	first int64 // number of the oldest row, counted from the partition's first
	fs    []slider
}

// windowFunction is what the functions of a frame share between partitions.
type windowFunction struct {
	w       plan.Window
	index   int // in the operator's windows
	arg     eval
	offset  eval
	other   eval // the default of LAG
	t       sql.Type
	values  *Vector
	offsets *Vector
	others  *Vector
}

func newWindowed(c *builder, n *plan.Windowed, next sink) *windowed {
	w := &windowed{c: c, n: n, next: next, swept: never}
	frames := map[string]*frame{}
	for i, win := range n.Windows {
		key := ""
		for _, p := range win.PartitionBy {
			key += plan.Key(p) + ";"
		}
		if win.Rows {
			key += "rows"
		}
		key += string(appendPadded(nil, win.Preceding, 1))
		f := frames[key]
		if f == nil {
			f = &frame{rows: win.Rows, preceding: win.Preceding}
			for _, p := range win.PartitionBy {
				f.keys = append(f.keys, compile(p))
				f.keyCols = append(f.keyCols, plan.ColumnInfo{Type: p.Type()})
			}
			f.groups = newGroups(f.keyCols)
			frames[key] = f
			w.frames = append(w.frames, f)
		}
		wf := &windowFunction{w: win, index: i}
		if win.Arg != nil {
			wf.arg, wf.t = compile(win.Arg), win.Arg.Type()
		}
		if win.Offset != nil {
			wf.offset = compile(win.Offset)
		}
		if win.Default != nil {
			wf.other = compile(win.Default)
		}
		f.fs = append(f.fs, wf)
		w.out = append(w.out, newColumn(win.T))
	}
	return w
}

func (w *windowed) rows(b *Batch) {
	x := w.c.x
	x.begin(b.N)
	for _, f := range w.frames {
		f.vectors = f.vectors[:0]
		for _, k := range f.keys {
			f.vectors = append(f.vectors, k(x, b, b.Sel))
		}
		for _, wf := range f.fs {
			if wf.arg != nil {
				wf.values = wf.arg(x, b, b.Sel)
			}
			if wf.offset != nil {
				wf.offsets = wf.offset(x, b, b.Sel)
			}
			if wf.other != nil {
				wf.others = wf.other(x, b, b.Sel)
			}
		}
	}
	sel := b.Sel
	if len(x.fails) > 0 {
		sel = x.good(b.Sel, nil)
		w.c.reported(b, w.n.Input.Columns())
	}
	if len(sel) == 0 {
		return
	}
	out := &Batch{N: b.N, Time: b.Time, Sel: sel, Cols: append([]*Vector(nil), b.Cols...)}
	results := make([]*Vector, len(w.n.Windows))
	for i, win := range w.n.Windows {
		results[i] = &Vector{}
		results[i].resize(plan.ClassOf(win.T), b.N)
	}
	var bad []int32
	var why []error
	for _, f := range w.frames {
		for _, i := range sel {
			id := 0
			if len(f.keys) > 0 {
				id, _ = f.groups.find(f.vectors, i)
			}
			for id >= len(f.parts) {
				f.parts = append(f.parts, nil)
			}
			p := f.parts[id]
			if p == nil {
				p = &partition{}
				for _, wf := range f.fs {
					p.fs = append(p.fs, newSlider(wf))
				}
				f.parts[id] = p
			}
			p.expire(f, b.Time[i])
			p.time = append(p.time, b.Time[i])
			for j, wf := range f.fs {
				v := plan.Value{}
				if wf.values != nil {
					v = wf.values.at(&wf.t, i)
				}
				p.fs[j].add(v, b.Time[i])
			}
			if f.rows && f.preceding != plan.Unbounded {
				for int64(len(p.time)) > f.preceding+1 {
					p.drop()
				}
			}
			for j, wf := range f.fs {
				var offset, other plan.Value
				other.Null = true
				if wf.offsets != nil {
					offset = plan.Value{I: wf.offsets.I[i], Null: wf.offsets.null(i)}
				}
				if wf.others != nil {
					other = wf.others.at(&wf.w.T, i)
				}
				v, err := p.fs[j].result(offset, other)
				if err != nil {
					bad, why = append(bad, i), append(why, err)
					continue
				}
				set(results[wf.index], wf.w.T, b.N, i, v)
			}
		}
	}
	out.Cols = append(out.Cols, results...)
	if len(bad) > 0 {
		out.Sel = w.c.without(out, w.n.Columns(), bad, why)
	}
	if len(out.Sel) > 0 {
		w.next.rows(out)
	}
}

// set puts a single value into a vector.
func set(v *Vector, t sql.Type, n int, i int32, value plan.Value) {
	if value.Null {
		if v.Null == nil {
			v.Null = make([]bool, n)
		}
		v.Null[i] = true
		return
	}
	switch plan.ClassOf(t) {
	case plan.ClassInt:
		v.I[i] = value.I
	case plan.ClassFloat:
		v.F[i] = value.F
	case plan.ClassString:
		v.S[i] = value.S
	}
}

func (p *partition) drop() {
	t := p.time[0]
	p.time = p.time[1:]
	p.first++
	for _, s := range p.fs {
		s.drop(t)
	}
}

// expire drops the rows that are out of the frame at t.
func (p *partition) expire(f *frame, t int64) {
	if f.rows || f.preceding == plan.Unbounded {
		return
	}
	for len(p.time) > 0 && p.time[0] < t-f.preceding {
		p.drop()
	}
}

func (w *windowed) bound(t int64) {
	for _, f := range w.frames {
		// Keys that have no rows any more are forgotten, once in a window's length.
		if !f.rows && f.preceding != plan.Unbounded && len(f.parts) > 64 && t-w.swept > f.preceding+1000 {
			w.swept = t
			f.sweep(t)
		}
	}
	w.next.bound(t)
}

func (w *windowed) end() { w.next.end() }

func (f *frame) sweep(t int64) {
	live := 0
	for _, p := range f.parts {
		if p == nil {
			continue
		}
		p.expire(f, t)
		if len(p.time) > 0 {
			live++
		}
	}
	if live*2 > len(f.parts) {
		return
	}
	groups, parts := newGroups(f.keyCols), make([]*partition, 0, live)
	cols := f.groups.keys.batch().Cols
	for id, p := range f.parts {
		if p != nil && len(p.time) > 0 {
			if len(f.keys) > 0 {
				groups.find(cols, int32(id))
			}
			parts = append(parts, p)
		}
	}
	f.groups, f.parts = groups, parts
}

// slider is one function over one partition's frame.
type slider interface {
	// add takes the newest row, drop the oldest, whose time is given.
	add(v plan.Value, t int64)
	drop(t int64)
	result(offset, other plan.Value) (plan.Value, error)
	// kept are the values of the frame's rows, oldest first: enough to make the
	// slider anew.
	kept() []plan.Value
}

func newSlider(wf *windowFunction) slider {
	w := wf.w
	class := plan.ClassInt
	if w.Arg != nil {
		class = plan.ClassOf(w.Arg.Type())
	}
	switch w.Func {
	case "first_value", "last_value", "lag", "nth_value":
		return &ringSlider{w: &wf.w}
	case "min", "max":
		return &dequeSlider{class: class, max: w.Func == "max"}
	}
	s := &sumSlider{w: &wf.w, class: class}
	if w.Distinct {
		s.seen = map[distinctKey]int{}
	}
	return s
}

// ring is a queue of values.
type ring struct {
	v    []plan.Value
	head int
}

func (r *ring) push(v plan.Value) { r.v = append(r.v, v) }
func (r *ring) pop() plan.Value {
	v := r.v[r.head]
	r.v[r.head] = plan.Value{}
	if r.head++; r.head > 32 && r.head*2 > len(r.v) {
		r.v = append(r.v[:0], r.v[r.head:]...)
		r.head = 0
	}
	return v
}
func (r *ring) len() int            { return len(r.v) - r.head }
func (r *ring) at(i int) plan.Value { return r.v[r.head+i] }

// sumSlider is COUNT, SUM, AVG, variances and EXP_AVG.
type sumSlider struct {
	w     *plan.Window
	class plan.Class
	ring  ring
	n     int64 // rows, or values that are not null
	i     int64
	over  int64
	f     float64
	lost  float64
	m     moments
	d     decayed
	seen  map[distinctKey]int
	left  int // rows that have left since the sums were made anew
}

func (s *sumSlider) add(v plan.Value, t int64) {
	s.ring.push(v)
	if v.Null && s.w.Arg != nil {
		return
	}
	if s.seen != nil {
		k := keyOf(v, s.w.Arg.Type())
		if s.seen[k]++; s.seen[k] > 1 {
			return
		}
	}
	s.take(v, t)
}

func (s *sumSlider) take(v plan.Value, t int64) {
	s.n++
	switch s.w.Func {
	case "sum", "avg":
		if s.class == plan.ClassFloat {
			s.f, s.lost = compensated(s.f, s.lost, v.F)
		} else {
			sum := s.i + v.I
			if v.I > 0 && sum < s.i {
				s.over++
			} else if v.I < 0 && sum > s.i {
				s.over--
			}
			s.i = sum
		}
	case "exp_avg":
		s.d.add(v.F, t, float64(s.w.HalfLife))
	case "count":
	default:
		s.m.add(v.F)
	}
}

func (s *sumSlider) drop(t int64) {
	v := s.ring.pop()
	if v.Null && s.w.Arg != nil {
		return
	}
	if s.seen != nil {
		k := keyOf(v, s.w.Arg.Type())
		if s.seen[k]--; s.seen[k] > 0 {
			return
		}
		delete(s.seen, k)
	}
	s.n--
	switch s.w.Func {
	case "sum", "avg":
		if s.class == plan.ClassFloat {
			s.f, s.lost = compensated(s.f, s.lost, -v.F)
		} else {
			sum := s.i - v.I
			if v.I < 0 && sum < s.i {
				s.over++
			} else if v.I > 0 && sum > s.i {
				s.over--
			}
			s.i = sum
		}
	case "exp_avg":
		s.d.remove(v.F, t, float64(s.w.HalfLife))
	case "count":
		return
	default:
		s.m.remove(v.F)
	}
	if s.n == 0 {
		s.f, s.lost = 0, 0
	}
	if s.left++; s.left >= 1024 && s.seen == nil && s.class == plan.ClassFloat && s.w.Func != "exp_avg" {
		s.anew()
	}
}

// anew computes the sums from the rows, so that what rounding left behind does
// not add up.
func (s *sumSlider) anew() {
	s.left, s.n, s.f, s.lost, s.m = 0, 0, 0, 0, moments{}
	if s.ring.len() > 1024 {
		s.left = -s.ring.len()
	}
	for i := range s.ring.len() {
		if v := s.ring.at(i); !v.Null {
			s.take(v, 0)
		}
	}
}

func (s *sumSlider) result(_, _ plan.Value) (plan.Value, error) {
	if s.w.Func == "count" {
		return plan.Value{I: s.n}, nil
	}
	if s.n == 0 {
		return plan.Value{Null: true}, nil
	}
	switch s.w.Func {
	case "exp_avg":
		return s.d.result(), nil
	case "sum", "avg":
	default:
		return s.m.result(s.w.Func), nil
	}
	if s.class == plan.ClassFloat {
		v := total(s.f, s.lost)
		if s.w.Func == "avg" {
			v /= float64(s.n)
		}
		if s.w.T.Kind == sql.KindReal {
			v = float64(float32(v))
		}
		return plan.Value{F: v}, nil
	}
	if s.over != 0 {
		return plan.Value{}, overflow(s.w.T)
	}
	if s.w.Func == "avg" {
		return plan.Value{I: s.i / s.n}, nil
	}
	if isInteger(s.w.T.Kind) {
		if low, high := intLimits(s.w.T.Kind); s.i < low || s.i > high {
			return plan.Value{}, overflow(s.w.T)
		}
		return plan.Value{I: s.i}, nil
	}
	return checkedDecimal(s.i, s.w.T)
}

// dequeSlider is MIN and MAX: the values that could still become the answer, best
// first.
type dequeSlider struct {
	class plan.Class
	max   bool
	seq   []int64
	v     []plan.Value
	next  int64 // number of the next row
	first int64 // number of the oldest row
}

func (s *dequeSlider) better(a, b plan.Value) bool {
	c := 0
	switch s.class {
	case plan.ClassInt:
		c = compare(a.I, b.I)
	case plan.ClassFloat:
		c = compare(a.F, b.F)
	case plan.ClassString:
		c = compare(a.S, b.S)
	}
	if s.max {
		c = -c
	}
	return c <= 0
}

func (s *dequeSlider) add(v plan.Value, _ int64) {
	seq := s.next
	s.next++
	if v.Null {
		return
	}
	for n := len(s.v); n > 0 && s.better(v, s.v[n-1]); n-- {
		s.v, s.seq = s.v[:n-1], s.seq[:n-1]
	}
	s.v, s.seq = append(s.v, v), append(s.seq, seq)
}

func (s *dequeSlider) drop(int64) {
	if len(s.seq) > 0 && s.seq[0] == s.first {
		s.v, s.seq = s.v[1:], s.seq[1:]
	}
	s.first++
}

func (s *dequeSlider) result(_, _ plan.Value) (plan.Value, error) {
	if len(s.v) == 0 {
		return plan.Value{Null: true}, nil
	}
	return s.v[0], nil
}

// ringSlider is FIRST_VALUE, LAST_VALUE, LAG and NTH_VALUE.
type ringSlider struct {
	w    *plan.Window
	ring ring
}

func (s *ringSlider) add(v plan.Value, _ int64) { s.ring.push(v) }
func (s *ringSlider) drop(int64)                { s.ring.pop() }
func (s *ringSlider) kept() []plan.Value        { return s.ring.v[s.ring.head:] }
func (s *sumSlider) kept() []plan.Value         { return s.ring.v[s.ring.head:] }

// Rows that cannot become the answer any more are kept as nulls.
func (s *dequeSlider) kept() []plan.Value {
	list := make([]plan.Value, s.next-s.first)
	for i := range list {
		list[i].Null = true
	}
	for i, seq := range s.seq {
		list[seq-s.first] = s.v[i]
	}
	return list
}

func (s *ringSlider) result(offset, other plan.Value) (plan.Value, error) {
	null := plan.Value{Null: true}
	n := s.ring.len()
	// nth finds the k-th row, from 0, forwards or backwards from a row.
	nth := func(k int64, from, step int) (plan.Value, bool) {
		if !s.w.IgnoreNulls {
			if k > int64(n) {
				return null, false
			}
			if from += step * int(k); from < 0 || from >= n {
				return null, false
			}
			return s.ring.at(from), true
		}
		for i := from; i >= 0 && i < n; i += step {
			v := s.ring.at(i)
			if v.Null {
				continue
			}
			if k == 0 {
				return v, true
			}
			k--
		}
		return null, false
	}
	switch s.w.Func {
	case "first_value":
		v, _ := nth(0, 0, 1)
		return v, nil
	case "last_value":
		v, _ := nth(0, n-1, -1)
		return v, nil
	case "nth_value":
		if offset.Null {
			return null, nil
		}
		if offset.I < 1 {
			return null, fail(functionError, "NTH_VALUE counts from 1")
		}
		var v plan.Value
		if s.w.FromLast {
			v, _ = nth(offset.I-1, n-1, -1)
		} else {
			v, _ = nth(offset.I-1, 0, 1)
		}
		return v, nil
	}
	if offset.Null {
		return null, nil
	}
	if offset.I < 0 {
		return null, fail(functionError, "LAG looks back by 0 rows or more")
	}
	if offset.I == 0 {
		return s.ring.at(n - 1), nil
	}
	if v, ok := nth(offset.I-1, n-2, -1); ok {
		return v, nil
	}
	return other, nil
}
