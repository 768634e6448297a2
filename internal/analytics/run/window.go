package run

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// windowed appends the values of sliding windows to each row.
type windowed struct {
	c       *builder
	n       *plan.Windowed
	frames  []*frame
	results []windowResult // by window
	cols    []*Vector
	bad     []int32
	why     []error
	longest int64    // size of the largest frame in time, -1 if there is none
	swept   int64    // when keys without rows were forgotten last
	hashes  []uint64 // of the keys of a batch's rows, if they are known
	next    sink
}

// windowResult are the values of one window for the rows of a batch.
type windowResult struct {
	Vector
	class plan.Class
	spare []bool
}

// frame are the windows that have their partition and size in common.
type frame struct {
	rows      bool
	preceding int64
	keys      []eval
	keyCols   []plan.ColumnInfo
	groups    *groups
	parts     []*partition // by number of group
	args      []*frameArg
	sums      []sumKey
	extremes  []extremeKey
	fs        []*windowFunction
	vectors   []*Vector
	ids       []int32
}

// frameArg is an expression whose values functions of a frame share.
type frameArg struct {
	key    string
	t      sql.Type
	class  plan.Class
	eval   eval
	sparse bool // the places of values that are not null are kept
	values *Vector
}

// sumKey is what a sum of a frame is about. Functions that need the same sums
// share them.
type sumKey struct {
	kind     sumKind
	arg      int
	distinct bool
	halfLife int64
}

// extremeKey is what a MIN or MAX of a frame is about.
type extremeKey struct {
	arg int
	max bool
}

// windowFunction is what a function of a frame shares between partitions.
type windowFunction struct {
	w       plan.Window
	index   int // in the operator's windows
	arg     int // in the frame's; -1 for COUNT(*)
	sum     int // in the frame's sums; -1 if it is none
	extreme int // in the frame's extremes; -1 if it is none
	offset  eval
	other   eval // the default of LAG
	offsets *Vector
	others  *Vector
	// own is where the default fails: only rows that need it fail for it. It is nil
	// if the default reads tables.
	own *context
}

func newWindowed(c *builder, n *plan.Windowed, next sink) *windowed {
	w := &windowed{c: c, n: n, next: next, longest: -1, swept: never}
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
		if !win.Rows && win.Preceding != plan.Unbounded {
			w.longest = max(w.longest, win.Preceding)
		}
		f.fs = append(f.fs, f.function(win, i))
		w.results = append(w.results, windowResult{class: plan.ClassOf(win.T)})
	}
	return w
}

// function takes a function into the frame.
func (f *frame) function(win plan.Window, index int) *windowFunction {
	wf := &windowFunction{w: win, index: index, arg: -1, sum: -1, extreme: -1}
	if win.Arg != nil {
		wf.arg = f.argument(win.Arg)
	}
	if win.Offset != nil {
		wf.offset = compile(win.Offset)
	}
	if win.Default != nil {
		if wf.other = compile(win.Default); alone(win.Default) {
			wf.own = &context{}
		}
	}
	switch win.Func {
	case "first_value", "last_value", "lag", "nth_value":
		f.args[wf.arg].sparse = f.args[wf.arg].sparse || win.IgnoreNulls
		return wf
	case "min", "max":
		k := extremeKey{wf.arg, win.Func == "max"}
		if wf.extreme = slices.Index(f.extremes, k); wf.extreme < 0 {
			wf.extreme = len(f.extremes)
			f.extremes = append(f.extremes, k)
		}
		return wf
	}
	if wf.arg < 0 {
		return wf // COUNT(*) is the number of rows
	}
	k := sumKey{kind: sumMoments, arg: wf.arg, distinct: win.Distinct}
	switch win.Func {
	case "count":
		k.kind = sumCount
	case "sum", "avg":
		k.kind = sumInts
		if f.args[wf.arg].class == plan.ClassFloat {
			k.kind = sumFloats
		}
	case "exp_avg":
		k.kind, k.halfLife = sumDecayed, win.HalfLife
	}
	if wf.sum = slices.Index(f.sums, k); wf.sum < 0 {
		wf.sum = len(f.sums)
		f.sums = append(f.sums, k)
	}
	return wf
}

// argument is the place of an expression among the frame's.
func (f *frame) argument(e plan.Expr) int {
	key := plan.Key(e)
	for i, a := range f.args {
		if a.key == key {
			return i
		}
	}
	f.args = append(f.args, &frameArg{key: key, t: e.Type(), class: plan.ClassOf(e.Type()), eval: compile(e)})
	return len(f.args) - 1
}

func (f *frame) newPartition() *partition {
	p := &partition{}
	if len(f.args) > 0 {
		p.args = make([]ring, len(f.args))
	}
	if len(f.sums) > 0 {
		p.sums = make([]sum, len(f.sums))
		for i, k := range f.sums {
			if k.distinct {
				p.sums[i].seen = map[distinctKey]int{}
			}
		}
	}
	if len(f.extremes) > 0 {
		p.extremes = make([]places, len(f.extremes))
	}
	return p
}

// partition is the partition with a number, made if need be.
func (f *frame) partition(id int) *partition {
	if id >= len(f.parts) {
		f.parts = grown(f.parts, id+1)
	}
	p := f.parts[id]
	if p == nil {
		p = f.newPartition()
		f.parts[id] = p
	}
	return p
}

func (w *windowed) rows(b *Batch) {
	x := w.c.x
	x.begin(b.N)
	for _, f := range w.frames {
		f.vectors = evaluated(f.vectors, f.keys, x, b)
		for _, a := range f.args {
			a.values = a.eval(x, b, b.Sel)
		}
		for _, wf := range f.fs {
			if wf.offset != nil {
				wf.offsets = wf.offset(x, b, b.Sel)
			}
			if wf.other != nil {
				wf.others = wf.other(wf.scratch(x, b), b, b.Sel)
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
	w.cols = append(w.cols[:0], b.Cols...)
	for i := range w.results {
		r := &w.results[i]
		r.resize(r.class, b.N)
		w.cols = append(w.cols, &r.Vector)
	}
	w.bad, w.why = w.bad[:0], w.why[:0]
	for _, f := range w.frames {
		w.slide(f, b, sel)
	}
	out := &Batch{N: b.N, Time: b.Time, Sel: sel, Cols: w.cols}
	if len(w.bad) > 0 {
		out.Sel = w.c.without(out, w.n.Columns(), w.bad, w.why)
	}
	if len(out.Sel) > 0 {
		w.next.rows(out)
	}
}

// scratch is the context in which the default of LAG is computed.
func (wf *windowFunction) scratch(x *context, b *Batch) *context {
	if wf.own == nil {
		return x
	}
	wf.own.now, wf.own.start, wf.own.app = x.now, x.start, x.app
	wf.own.begin(b.N)
	return wf.own
}

// slide takes rows into a frame and computes its functions for each.
func (w *windowed) slide(f *frame, b *Batch, sel []int32) {
	f.ids = sized(f.ids, b.N)
	if len(f.keys) > 0 {
		f.groups.findAll(f.vectors, sel, f.ids, w.hashes)
	} else {
		for _, i := range sel {
			f.ids[i] = 0
		}
	}
	most := math.MaxInt
	if f.rows && f.preceding != plan.Unbounded {
		most = int(min(f.preceding+1, math.MaxInt32))
	}
	var v plan.Value
	for _, i := range sel {
		p, t := f.partition(int(f.ids[i])), b.Time[i]
		p.expire(f, t)
		p.push(f, t, i)
		for p.n > most {
			p.drop(f)
		}
		for _, wf := range f.fs {
			if err := p.result(f, wf, i, &v); err != nil {
				w.bad, w.why = append(w.bad, i), append(w.why, err)
				continue
			}
			w.results[wf.index].set(b.N, i, &v)
		}
	}
}

// set puts a single value into the results.
func (r *windowResult) set(n int, i int32, value *plan.Value) {
	if value.Null {
		if r.Null == nil {
			r.nulls(&r.spare, n)
		}
		r.Null[i] = true
		return
	}
	switch r.class {
	case plan.ClassInt:
		r.I[i] = value.I
	case plan.ClassFloat:
		r.F[i] = value.F
	case plan.ClassString:
		r.S[i] = value.S
	}
}

func (w *windowed) bound(t int64) {
	// Keys that have no rows any more are forgotten, once in a window's length.
	if w.longest >= 0 && t-w.swept > w.longest+1000 {
		w.swept = t
		for _, f := range w.frames {
			if !f.rows && f.preceding != plan.Unbounded && len(f.parts) > 64 {
				f.sweep(t)
			}
		}
	}
	w.next.bound(t)
}

func (w *windowed) end() { w.next.end() }

func (f *frame) sweep(t int64) {
	if len(f.keys) == 0 {
		return
	}
	for id, p := range f.parts {
		if p == nil {
			continue
		}
		if p.expire(f, t); p.n == 0 {
			f.groups.remove(id)
			f.parts[id] = nil
		}
	}
	if f.groups.sparse() {
		f.compact()
	}
}

// compact gives up the room of keys that were forgotten.
func (f *frame) compact() {
	if n := f.groups.len(); f.groups.live() != n {
		f.parts = picked(grown(f.parts, n), f.groups.compact())
	}
}

// partition are the rows of one key that are in the frame: a ring of times and
// values, which have their places in common.
type partition struct {
	first    int64 // rows that have left
	head     int   // place of the oldest row
	n        int
	time     []int64 // a power of two of places
	args     []ring
	sums     []sum
	extremes []places
}

// ring are the values of an argument, by place; the slices of other classes are
// nil.
type ring struct {
	null   []bool // nil if none ever was
	i      []int64
	f      []float64
	s      []string
	row    []plan.Value
	values places // of values that are not null, if the argument is sparse
}

// place is where the k-th row is, the oldest being row 0.
func (p *partition) place(k int) int { return (p.head + k) & (len(p.time) - 1) }

const firstPlaces = 4

// resize gives the rings other room; the rows move to its beginning.
func (p *partition) resize(f *frame, n int) {
	p.time = moved(p.time, p.head, p.n, n)
	for k := range p.args {
		r := &p.args[k]
		if r.null != nil {
			r.null = moved(r.null, p.head, p.n, n)
		}
		switch f.args[k].class {
		case plan.ClassInt:
			r.i = moved(r.i, p.head, p.n, n)
		case plan.ClassFloat:
			r.f = moved(r.f, p.head, p.n, n)
		case plan.ClassString:
			r.s = moved(r.s, p.head, p.n, n)
		default:
			r.row = moved(r.row, p.head, p.n, n)
		}
	}
	p.head = 0
}

func moved[T any](ring []T, head, n, room int) []T {
	to := make([]T, room)
	if head+n <= len(ring) {
		copy(to, ring[head:head+n])
	} else {
		m := copy(to, ring[head:])
		copy(to[m:], ring[:n-m])
	}
	return to
}

// push takes the newest row.
func (p *partition) push(f *frame, t int64, i int32) {
	at := p.room(f, t)
	for k := range p.args {
		p.args[k].set(f.args[k], len(p.time), at, i)
	}
	p.entered(f, t)
}

// pushValues is push for single values.
func (p *partition) pushValues(f *frame, t int64, values []plan.Value) {
	at := p.room(f, t)
	for k := range p.args {
		p.args[k].setValue(f.args[k].class, len(p.time), at, values[k])
	}
	p.entered(f, t)
}

// room is the place of a new row.
func (p *partition) room(f *frame, t int64) int {
	if p.n == len(p.time) {
		p.resize(f, max(firstPlaces, 2*len(p.time)))
	}
	at := p.place(p.n)
	p.n++
	p.time[at] = t
	return at
}

func (r *ring) set(a *frameArg, room, at int, i int32) {
	v := a.values
	if r.null == nil && !v.null(i) {
		switch a.class {
		case plan.ClassInt:
			r.i[at] = v.I[i]
			return
		case plan.ClassFloat:
			r.f[at] = v.F[i]
			return
		}
	}
	r.setValue(a.class, room, at, kept(v.at(&a.t, i)))
}

func (r *ring) setValue(class plan.Class, room, at int, v plan.Value) {
	if v.Null && r.null == nil {
		r.null = make([]bool, room)
	}
	if r.null != nil {
		r.null[at] = v.Null
	}
	switch class {
	case plan.ClassInt:
		r.i[at] = v.I
	case plan.ClassFloat:
		r.f[at] = v.F
	case plan.ClassString:
		r.s[at] = v.S
	default:
		r.row[at] = v
	}
}

// entered tells the functions of the newest row.
func (p *partition) entered(f *frame, t int64) {
	number := p.first + int64(p.n-1)
	at := p.place(p.n - 1)
	for k, a := range f.args {
		if r := &p.args[k]; a.sparse && !r.isNull(at) {
			r.values.push(number)
		}
	}
	for k := range p.sums {
		key := &f.sums[k]
		if r := &p.args[key.arg]; !r.isNull(at) {
			p.sums[k].enter(key, r, f.args[key.arg], at, t)
		}
	}
	for k := range p.extremes {
		key := &f.extremes[k]
		r, class, q := &p.args[key.arg], f.args[key.arg].class, &p.extremes[k]
		if r.isNull(at) {
			continue
		}
		// Rows that are not better than the newest will not be the answer any more.
		for q.n > 0 && r.better(class, key.max, at, p.place(int(q.last()-p.first))) {
			q.popLast()
		}
		q.push(number)
	}
}

// drop forgets the oldest row.
func (p *partition) drop(f *frame) {
	at, t := p.head, p.time[p.head]
	for k := range p.sums {
		key := &f.sums[k]
		if r := &p.args[key.arg]; !r.isNull(at) {
			p.leave(f, k, at, t)
		}
	}
	for k := range p.extremes {
		if q := &p.extremes[k]; q.n > 0 && q.at(0) == p.first {
			q.pop()
		}
	}
	for k, a := range f.args {
		r := &p.args[k]
		if a.sparse && !r.isNull(at) {
			r.values.pop()
		}
		if r.s != nil {
			r.s[at] = ""
		}
		if r.row != nil {
			r.row[at] = plan.Value{}
		}
	}
	p.head = (p.head + 1) & (len(p.time) - 1)
	p.n--
	p.first++
	if p.n < len(p.time)/8 && len(p.time) > 2*firstPlaces {
		p.resize(f, len(p.time)/2)
	}
}

// expire drops the rows that are out of the frame at t.
func (p *partition) expire(f *frame, t int64) {
	if f.rows || f.preceding == plan.Unbounded {
		return
	}
	for p.n > 0 && p.time[p.head] < t-f.preceding {
		p.drop(f)
	}
}

func (r *ring) isNull(at int) bool { return r.null != nil && r.null[at] }

func (r *ring) at(class plan.Class, at int) plan.Value {
	if r.isNull(at) {
		return plan.Value{Null: true}
	}
	switch class {
	case plan.ClassInt:
		return plan.Value{I: r.i[at]}
	case plan.ClassFloat:
		return plan.Value{F: r.f[at]}
	case plan.ClassString:
		return plan.Value{S: r.s[at]}
	}
	return r.row[at]
}

// better reports that a value is the answer rather than an older one.
func (r *ring) better(class plan.Class, max bool, a, b int) bool {
	c := 0
	switch class {
	case plan.ClassInt:
		c = compare(r.i[a], r.i[b])
	case plan.ClassFloat:
		c = compare(r.f[a], r.f[b])
	case plan.ClassString:
		c = compare(r.s[a], r.s[b])
	}
	if max {
		c = -c
	}
	return c <= 0
}

// places is a queue of numbers of rows, which can also shrink at its end.
type places struct {
	head, n int
	ring    []int64
}

func (q *places) at(k int) int64 { return q.ring[(q.head+k)&(len(q.ring)-1)] }
func (q *places) last() int64    { return q.at(q.n - 1) }
func (q *places) popLast()       { q.n-- }

func (q *places) push(number int64) {
	if q.n == len(q.ring) {
		q.ring, q.head = moved(q.ring, q.head, q.n, max(firstPlaces, 2*len(q.ring))), 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = number
	q.n++
}

func (q *places) pop() {
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n < len(q.ring)/8 && len(q.ring) > 2*firstPlaces {
		q.ring, q.head = moved(q.ring, q.head, q.n, len(q.ring)/2), 0
	}
}

// result is the value of a function for the newest row, which is row i of the
// batch.
func (p *partition) result(f *frame, wf *windowFunction, i int32, v *plan.Value) error {
	switch {
	case wf.sum >= 0:
		return p.sums[wf.sum].result(f.sums[wf.sum].kind, &wf.w, v)
	case wf.extreme >= 0:
		*v = plan.Value{Null: true}
		if q := &p.extremes[wf.extreme]; q.n > 0 {
			*v = p.args[wf.arg].at(f.args[wf.arg].class, p.place(int(q.at(0)-p.first)))
		}
		return nil
	case wf.arg < 0:
		*v = plan.Value{I: int64(p.n)}
		return nil
	}
	return p.row(f, wf, i, v)
}

// nth finds the k-th row from the oldest, from 0, or backwards from the newest,
// nulls left out if they do not count.
func (p *partition) nth(r *ring, ignoreNulls, backwards bool, k int64) (at int, ok bool) {
	n := p.n
	if ignoreNulls {
		n = r.values.n
	}
	if k < 0 || k >= int64(n) {
		return 0, false
	}
	at = int(k)
	if backwards {
		at = n - 1 - at
	}
	if ignoreNulls {
		at = int(r.values.at(at) - p.first)
	}
	return p.place(at), true
}

// row is FIRST_VALUE, LAST_VALUE, LAG and NTH_VALUE.
func (p *partition) row(f *frame, wf *windowFunction, i int32, v *plan.Value) error {
	*v = plan.Value{Null: true}
	var offset int64
	if wf.offsets != nil {
		if wf.offsets.null(i) {
			return nil
		}
		offset = wf.offsets.I[i]
	}
	r, w := &p.args[wf.arg], &wf.w
	at, ok := 0, false
	switch w.Func {
	case "first_value":
		at, ok = p.nth(r, w.IgnoreNulls, false, 0)
	case "last_value":
		at, ok = p.nth(r, w.IgnoreNulls, true, 0)
	case "nth_value":
		if offset < 1 {
			return fail(functionError, "NTH_VALUE counts from 1")
		}
		at, ok = p.nth(r, w.IgnoreNulls, w.FromLast, offset-1)
	default:
		newest := p.place(p.n - 1)
		switch {
		case offset < 0:
			return fail(functionError, "LAG looks back by 0 rows or more")
		case offset == 0:
			at, ok = newest, true
		case w.IgnoreNulls && r.isNull(newest):
			at, ok = p.nth(r, true, true, offset-1)
		default:
			at, ok = p.nth(r, w.IgnoreNulls, true, offset)
		}
		if !ok {
			if wf.others == nil {
				return nil
			}
			if wf.own != nil && wf.own.bad[i] {
				return wf.own.failure(i)
			}
			*v = wf.others.at(&w.T, i)
			return nil
		}
	}
	if ok {
		*v = r.at(f.args[wf.arg].class, at)
	}
	return nil
}

type sumKind uint8

const (
	sumCount sumKind = iota
	sumInts
	sumFloats
	sumMoments
	sumDecayed
)

// sum is what COUNT, SUM, AVG, variances and EXP_AVG need.
type sum struct {
	n     int64 // values that are not null
	total intCell
	f     float64
	lost  float64
	m     *moments
	d     *decayed
	seen  map[distinctKey]int
	left  int // rows that have left since the sums were made anew
	// mass is what the sums are made of: the squares' sum of a variance, the weights
	// times the amounts of EXP_AVG. Where it has shrunk to a small part of its peak,
	// taking values back has left mostly what rounding left, and the sums are made
	// anew.
	mass, peak float64
}

// enter takes a value.
func (s *sum) enter(k *sumKey, r *ring, a *frameArg, at int, t int64) {
	if s.seen != nil {
		k := keyOf(r.at(a.class, at), a.t)
		if s.seen[k]++; s.seen[k] > 1 {
			return
		}
	}
	s.take(k, r, at, t)
}

// take adds the value at a place of the ring.
func (s *sum) take(k *sumKey, r *ring, at int, t int64) {
	s.n++
	switch k.kind {
	case sumInts:
		s.total.add(r.i[at])
	case sumFloats:
		s.f, s.lost = compensated(s.f, s.lost, r.f[at])
	case sumMoments:
		if s.m == nil {
			s.m = &moments{}
		}
		s.m.add(r.f[at])
		s.peak = max(s.peak, s.m.m2)
	case sumDecayed:
		if s.d == nil {
			s.d = &decayed{}
		}
		x := r.f[at]
		faded := s.d.fade(t, float64(k.halfLife))
		s.d.add(x, t, float64(k.halfLife))
		s.mass = s.mass*faded + math.Abs(x)
		s.peak = max(s.peak*faded, s.mass)
	}
}

// leave takes the oldest row's value out of a sum.
func (p *partition) leave(f *frame, k, at int, t int64) {
	s, key := &p.sums[k], &f.sums[k]
	r := &p.args[key.arg]
	if s.seen != nil {
		k := keyOf(r.at(f.args[key.arg].class, at), f.args[key.arg].t)
		if s.seen[k]--; s.seen[k] > 0 {
			return
		}
		delete(s.seen, k)
	}
	s.n--
	switch key.kind {
	case sumCount:
		return
	case sumInts:
		s.total.remove(r.i[at])
		return
	case sumFloats:
		s.f, s.lost = compensated(s.f, s.lost, -r.f[at])
		if s.n == 0 {
			s.f, s.lost = 0, 0
		}
	case sumMoments:
		s.m.remove(r.f[at])
		s.mass = s.m.m2
	case sumDecayed:
		x := r.f[at]
		s.d.remove(x, t, float64(key.halfLife))
		s.mass -= math.Abs(x) * math.Exp2(-float64(s.d.at-t)/float64(key.halfLife))
	}
	// What rounding left behind does not add up for ever, and a sum that was too
	// large is none any more.
	if s.left++; s.left >= max(1024, 2*p.n) || s.mass < s.peak*1e-4 || s.f-s.f != 0 {
		p.anew(f, s, key)
	}
}

// anew computes a sum from the rows that stay, all but the oldest.
func (p *partition) anew(f *frame, s *sum, key *sumKey) {
	*s = sum{seen: s.seen}
	r, a := &p.args[key.arg], f.args[key.arg]
	var had map[distinctKey]bool
	if s.seen != nil {
		had = make(map[distinctKey]bool, len(s.seen))
	}
	for i := 1; i < p.n; i++ {
		at := p.place(i)
		if r.isNull(at) {
			continue
		}
		if had != nil {
			k := keyOf(r.at(a.class, at), a.t)
			if had[k] {
				continue
			}
			had[k] = true
		}
		s.take(key, r, at, p.time[at])
	}
	s.mass = max(s.mass, s.peak)
}

func (s *sum) result(kind sumKind, w *plan.Window, v *plan.Value) error {
	*v = plan.Value{}
	if kind == sumCount {
		v.I = s.n
		return nil
	}
	if s.n == 0 {
		v.Null = true
		return nil
	}
	switch kind {
	case sumDecayed:
		*v = s.d.result()
		return nil
	case sumMoments:
		*v = s.m.result(w.Func)
		return nil
	case sumFloats:
		var err error
		v.F, err = floatResult(total(s.f, s.lost), s.n, w.Func == "avg", w.T)
		return err
	}
	s.total.n = s.n
	var err error
	*v, err = s.total.value(w.T, w.Func == "avg")
	return err
}

// kept are the parts of a sum that depend on what has left as well: computed anew
// from the rows alone, they would differ in their last bits.
func (s *sum) kept(kind sumKind) []*float64 {
	switch kind {
	case sumFloats:
		return []*float64{&s.f, &s.lost}
	case sumMoments:
		if s.m == nil {
			s.m = &moments{}
		}
		return []*float64{&s.m.mean, &s.m.m2, &s.mass, &s.peak}
	case sumDecayed:
		if s.d == nil {
			s.d = &decayed{}
		}
		return []*float64{&s.d.sum, &s.d.weight, &s.mass, &s.peak}
	}
	return nil
}

func (s *sum) save(e *encoder, kind sumKind) {
	parts := s.kept(kind)
	if parts == nil {
		return
	}
	values := make([]float64, len(parts))
	for i, v := range parts {
		values[i] = *v
	}
	e.floats(values)
	e.int(int64(s.left))
}

func (s *sum) load(d *decoder, kind sumKind) {
	parts := s.kept(kind)
	if parts == nil {
		return
	}
	values := d.floats()
	if len(values) != len(parts) {
		panic(errDecode)
	}
	for i, v := range values {
		*parts[i] = v
	}
	s.left = int(d.int())
}
