package run

import (
	"math"

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
	args      []*frameArg
	fs        []*windowFunction
	vectors   []*Vector
}

// frameArg is an expression whose values functions of a frame share.
type frameArg struct {
	key    string
	t      sql.Type
	eval   eval
	values *Vector
}

// partition are the rows of one key that are in the frame: their times, and the
// values of each argument.
type partition struct {
	time []int64
	args []*ring
	fs   []slider
}

// windowFunction is what a function of a frame shares between partitions.
type windowFunction struct {
	w       plan.Window
	index   int // in the operator's windows
	arg     int // in the frame's; -1 for COUNT(*)
	offset  eval
	other   eval // the default of LAG
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
		wf := &windowFunction{w: win, index: i, arg: -1}
		if win.Arg != nil {
			wf.arg = f.argument(win.Arg)
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

// argument is the place of an expression among the frame's.
func (f *frame) argument(e plan.Expr) int {
	key := plan.Key(e)
	for i, a := range f.args {
		if a.key == key {
			return i
		}
	}
	f.args = append(f.args, &frameArg{key: key, t: e.Type(), eval: compile(e)})
	return len(f.args) - 1
}

func (f *frame) newPartition() *partition {
	p := &partition{}
	for _, a := range f.args {
		p.args = append(p.args, &ring{class: plan.ClassOf(a.t), t: a.t})
	}
	for _, wf := range f.fs {
		var r *ring
		if wf.arg >= 0 {
			r = p.args[wf.arg]
		}
		p.fs = append(p.fs, newSlider(wf, r))
	}
	return p
}

func (w *windowed) rows(b *Batch) {
	x := w.c.x
	x.begin(b.N)
	for _, f := range w.frames {
		f.vectors = f.vectors[:0]
		for _, k := range f.keys {
			f.vectors = append(f.vectors, k(x, b, b.Sel))
		}
		for _, a := range f.args {
			a.values = a.eval(x, b, b.Sel)
		}
		for _, wf := range f.fs {
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
	classes := make([]plan.Class, len(w.n.Windows))
	for i, win := range w.n.Windows {
		results[i] = &Vector{}
		classes[i] = plan.ClassOf(win.T)
		results[i].resize(classes[i], b.N)
	}
	var v plan.Value
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
				p = f.newPartition()
				f.parts[id] = p
			}
			p.expire(f, b.Time[i])
			p.push(f, b.Time[i], i)
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
				if err := p.fs[j].result(&offset, &other, &v); err != nil {
					bad, why = append(bad, i), append(why, err)
					continue
				}
				set(results[wf.index], classes[wf.index], b.N, i, &v)
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
func set(v *Vector, class plan.Class, n int, i int32, value *plan.Value) {
	if value.Null {
		if v.Null == nil {
			v.Null = make([]bool, n)
		}
		v.Null[i] = true
		return
	}
	switch class {
	case plan.ClassInt:
		v.I[i] = value.I
	case plan.ClassFloat:
		v.F[i] = value.F
	case plan.ClassString:
		v.S[i] = value.S
	}
}

// push takes the newest row.
func (p *partition) push(f *frame, t int64, i int32) {
	p.time = append(p.time, t)
	for k, r := range p.args {
		r.pushFrom(f.args[k].values, i)
	}
	for _, s := range p.fs {
		s.add(t)
	}
}

// drop forgets the oldest row.
func (p *partition) drop() {
	t := p.time[0]
	p.time = p.time[1:]
	for _, s := range p.fs {
		s.drop(t)
	}
	for _, r := range p.args {
		r.pop()
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
	// add takes the newest row, whose value is the last of the ring.
	add(t int64)
	// drop takes the oldest row back, whose value is still the first of the ring.
	drop(t int64)
	result(offset, other, v *plan.Value) error
}

func newSlider(wf *windowFunction, r *ring) slider {
	w := &wf.w
	switch w.Func {
	case "first_value", "last_value", "lag", "nth_value":
		return &ringSlider{w: w, ring: r}
	case "min", "max":
		return &dequeSlider{ring: r, max: w.Func == "max"}
	}
	s := &sumSlider{w: w, ring: r}
	switch w.Func {
	case "count":
		s.kind = sumCount
	case "sum", "avg":
		s.kind = sumInts
		if r.class == plan.ClassFloat {
			s.kind = sumFloats
		}
	case "exp_avg":
		s.kind = sumDecayed
	default:
		s.kind = sumMoments
	}
	if w.Distinct {
		s.seen = map[distinctKey]int{}
	}
	return s
}

// ring is a queue of values of one class.
type ring struct {
	class plan.Class
	t     sql.Type
	null  []bool // nil if none ever was
	i     []int64
	f     []float64
	s     []string
	row   []plan.Value
	n     int
}

func (r *ring) pushFrom(v *Vector, at int32) {
	null := v.null(at)
	if null && r.null == nil {
		r.null = make([]bool, r.n, r.n*2+1)
	}
	if r.null != nil {
		r.null = append(r.null, null)
	}
	r.n++
	switch r.class {
	case plan.ClassInt:
		r.i = append(r.i, v.I[at])
	case plan.ClassFloat:
		r.f = append(r.f, v.F[at])
	case plan.ClassString:
		if null {
			r.s = append(r.s, "")
		} else {
			r.s = append(r.s, v.S[at])
		}
	default:
		r.row = append(r.row, v.at(&r.t, at))
	}
}

// push is pushFrom for a single value.
func (r *ring) push(v plan.Value) {
	if v.Null && r.null == nil {
		r.null = make([]bool, r.n, r.n*2+1)
	}
	if r.null != nil {
		r.null = append(r.null, v.Null)
	}
	r.n++
	switch r.class {
	case plan.ClassInt:
		r.i = append(r.i, v.I)
	case plan.ClassFloat:
		r.f = append(r.f, v.F)
	case plan.ClassString:
		r.s = append(r.s, v.S)
	default:
		r.row = append(r.row, v)
	}
}

func (r *ring) pop() {
	r.n--
	if r.null != nil {
		r.null = r.null[1:]
	}
	switch r.class {
	case plan.ClassInt:
		r.i = r.i[1:]
	case plan.ClassFloat:
		r.f = r.f[1:]
	case plan.ClassString:
		r.s[0] = ""
		r.s = r.s[1:]
	default:
		r.row[0] = plan.Value{}
		r.row = r.row[1:]
	}
}

func (r *ring) isNull(i int) bool { return r.null != nil && r.null[i] }

func (r *ring) at(i int) plan.Value {
	if r.isNull(i) {
		return plan.Value{Null: true}
	}
	switch r.class {
	case plan.ClassInt:
		return plan.Value{I: r.i[i]}
	case plan.ClassFloat:
		return plan.Value{F: r.f[i]}
	case plan.ClassString:
		return plan.Value{S: r.s[i]}
	}
	return r.row[i]
}

type sumKind uint8

const (
	sumCount sumKind = iota
	sumInts
	sumFloats
	sumMoments
	sumDecayed
)

// sumSlider is COUNT, SUM, AVG, variances and EXP_AVG.
type sumSlider struct {
	w     *plan.Window
	kind  sumKind
	ring  *ring // nil for COUNT(*)
	n     int64 // rows, or values that are not null
	i     int64
	over  int64
	f     float64
	lost  float64
	m     moments
	d     decayed
	times []int64 // of the values of EXP_AVG
	seen  map[distinctKey]int
	left  int // rows that have left since the sums were made anew
	// mass is what the sums are made of: the squares' sum of a variance, the weights
	// times the amounts of EXP_AVG. Where it has shrunk to a small part of its peak,
	// taking values back has left mostly what rounding left, and the sums are made
	// anew.
	mass, peak float64
}

func (s *sumSlider) add(t int64) {
	if s.ring == nil {
		s.n++
		return
	}
	at := s.ring.n - 1
	if s.ring.isNull(at) {
		return
	}
	if s.seen != nil {
		k := keyOf(s.ring.at(at), s.ring.t)
		if s.seen[k]++; s.seen[k] > 1 {
			return
		}
	}
	s.take(at, t)
}

// take adds the value at a place of the ring.
func (s *sumSlider) take(at int, t int64) {
	s.n++
	switch s.kind {
	case sumInts:
		v := s.ring.i[at]
		sum := s.i + v
		if v > 0 && sum < s.i {
			s.over++
		} else if v < 0 && sum > s.i {
			s.over--
		}
		s.i = sum
	case sumFloats:
		s.f, s.lost = compensated(s.f, s.lost, s.ring.f[at])
	case sumMoments:
		s.m.add(s.ring.f[at])
		s.peak = max(s.peak, s.m.m2)
	case sumDecayed:
		x := s.ring.f[at]
		faded := s.d.fade(t, float64(s.w.HalfLife))
		s.d.add(x, t, float64(s.w.HalfLife))
		s.mass = s.mass*faded + math.Abs(x)
		s.peak = max(s.peak*faded, s.mass)
		s.times = append(s.times, t)
	}
}

func (s *sumSlider) drop(t int64) {
	if s.ring == nil {
		s.n--
		return
	}
	if s.ring.isNull(0) {
		return
	}
	if s.kind == sumDecayed {
		s.times = s.times[1:]
	}
	if s.seen != nil {
		k := keyOf(s.ring.at(0), s.ring.t)
		if s.seen[k]--; s.seen[k] > 0 {
			return
		}
		delete(s.seen, k)
	}
	s.n--
	switch s.kind {
	case sumCount:
		return
	case sumInts:
		v := s.ring.i[0]
		sum := s.i - v
		if v < 0 && sum < s.i {
			s.over++
		} else if v > 0 && sum > s.i {
			s.over--
		}
		s.i = sum
		return
	case sumFloats:
		s.f, s.lost = compensated(s.f, s.lost, -s.ring.f[0])
		if s.n == 0 {
			s.f, s.lost = 0, 0
		}
	case sumMoments:
		s.m.remove(s.ring.f[0])
		s.mass = s.m.m2
	case sumDecayed:
		x := s.ring.f[0]
		s.mass -= math.Abs(x) * math.Exp2(-float64(s.d.at-t)/float64(s.w.HalfLife))
		s.d.remove(x, t, float64(s.w.HalfLife))
	}
	// What rounding left behind does not add up for ever, and a sum that was too
	// large is none any more.
	if s.left++; s.left >= max(1024, 2*s.ring.n) || s.mass < s.peak*1e-4 || s.f-s.f != 0 {
		s.anew()
	}
}

// anew computes the sums from the rows that stay, all but the first.
func (s *sumSlider) anew() {
	times := s.times
	s.left, s.n, s.f, s.lost, s.m, s.d, s.mass, s.peak, s.times = 0, 0, 0, 0, moments{}, decayed{}, 0, 0, nil
	var had map[distinctKey]bool
	if s.seen != nil {
		had = make(map[distinctKey]bool, len(s.seen))
	}
	for i := 1; i < s.ring.n; i++ {
		if s.ring.isNull(i) {
			continue
		}
		if had != nil {
			k := keyOf(s.ring.at(i), s.ring.t)
			if had[k] {
				continue
			}
			had[k] = true
		}
		var t int64
		if times != nil {
			t, times = times[0], times[1:]
		}
		s.take(i, t)
	}
	s.mass = max(s.mass, s.peak)
}

func (s *sumSlider) result(_, _, v *plan.Value) error {
	*v = plan.Value{}
	if s.kind == sumCount {
		v.I = s.n
		return nil
	}
	if s.n == 0 {
		v.Null = true
		return nil
	}
	switch s.kind {
	case sumDecayed:
		*v = s.d.result()
		return nil
	case sumMoments:
		*v = s.m.result(s.w.Func)
		return nil
	case sumFloats:
		var err error
		v.F, err = floatResult(total(s.f, s.lost), s.n, s.w.Func == "avg", s.w.T)
		return err
	}
	if s.w.Func == "avg" {
		v.I = meanOf(s.over, s.i, s.n)
		return nil
	}
	if s.over != 0 {
		return overflow(s.w.T)
	}
	if isInteger(s.w.T.Kind) {
		if low, high := intLimits(s.w.T.Kind); s.i < low || s.i > high {
			return overflow(s.w.T)
		}
		v.I = s.i
		return nil
	}
	var err error
	*v, err = checkedDecimal(s.i, s.w.T)
	return err
}

// dequeSlider is MIN and MAX: the values that could still become the answer, best
// first.
type dequeSlider struct {
	ring  *ring
	max   bool
	seq   []int64
	v     []plan.Value
	next  int64 // number of the next row
	first int64 // number of the oldest row
}

func (s *dequeSlider) better(a, b *plan.Value) bool {
	c := 0
	switch s.ring.class {
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

func (s *dequeSlider) add(int64) {
	seq := s.next
	s.next++
	v := s.ring.at(s.ring.n - 1)
	if v.Null {
		return
	}
	for n := len(s.v); n > 0 && s.better(&v, &s.v[n-1]); n-- {
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

func (s *dequeSlider) result(_, _, v *plan.Value) error {
	if len(s.v) == 0 {
		*v = plan.Value{Null: true}
	} else {
		*v = s.v[0]
	}
	return nil
}

// ringSlider is FIRST_VALUE, LAST_VALUE, LAG and NTH_VALUE.
type ringSlider struct {
	w    *plan.Window
	ring *ring
}

func (s *ringSlider) add(int64)  {}
func (s *ringSlider) drop(int64) {}

// nth finds the k-th row, from 0, forwards or backwards from a row.
func (s *ringSlider) nth(k int64, from, step int) (int, bool) {
	n := s.ring.n
	if !s.w.IgnoreNulls {
		if k > int64(n) {
			return 0, false
		}
		from += step * int(k)
		return from, from >= 0 && from < n
	}
	for i := from; i >= 0 && i < n; i += step {
		if s.ring.isNull(i) {
			continue
		}
		if k == 0 {
			return i, true
		}
		k--
	}
	return 0, false
}

func (s *ringSlider) result(offset, other, v *plan.Value) error {
	*v = plan.Value{Null: true}
	at, ok := 0, false
	switch s.w.Func {
	case "first_value":
		at, ok = s.nth(0, 0, 1)
	case "last_value":
		at, ok = s.nth(0, s.ring.n-1, -1)
	case "nth_value":
		if offset.Null {
			return nil
		}
		if offset.I < 1 {
			return fail(functionError, "NTH_VALUE counts from 1")
		}
		if s.w.FromLast {
			at, ok = s.nth(offset.I-1, s.ring.n-1, -1)
		} else {
			at, ok = s.nth(offset.I-1, 0, 1)
		}
	default:
		if offset.Null {
			return nil
		}
		if offset.I < 0 {
			return fail(functionError, "LAG looks back by 0 rows or more")
		}
		if offset.I == 0 {
			at, ok = s.ring.n-1, true
		} else if at, ok = s.nth(offset.I-1, s.ring.n-2, -1); !ok {
			*v = *other
			return nil
		}
	}
	if ok {
		*v = s.ring.at(at)
	}
	return nil
}
