package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sort"

	"github.com/millrace/millrace/internal/analytics/plan"
)

// A snapshot is everything that operators keep, so that an application made anew
// goes on as if it had never stopped. Its form is docs/formats/analytics-snapshot.md.
//
// Parts are named after the pump they belong to. A part whose pump has another
// query now is left out, and the pump begins anew: that is how a changed program
// keeps the state of what did not change.

const (
	snapshotMagic   = "MRSQL"
	snapshotVersion = 1
)

// stateful is an operator with something to keep.
type stateful interface {
	save(e *encoder)
	load(d *decoder)
}

// part are the operators of one pump, in the order in which they were built.
type part struct {
	name, text string
	ops        []stateful
}

// ErrSnapshot says that bytes are not a snapshot of this form, or damaged.
var ErrSnapshot = errors.New("the snapshot is damaged or of another version")

// Snapshot appends the state of the application to dst. It is called between
// inserts.
func (a *Application) Snapshot(dst []byte) []byte {
	e := &encoder{b: append(dst, snapshotMagic...)}
	start := len(dst)
	e.uint(snapshotVersion)
	e.int(a.x.start)
	e.bool(a.started)
	names := make([]string, 0, len(a.names))
	for n := range a.names {
		names = append(names, n)
	}
	sort.Strings(names)
	e.uint(uint64(len(names)))
	for _, n := range names {
		s := a.names[n]
		e.string(n)
		e.int(s.high)
		e.int(s.told)
	}
	e.uint(uint64(len(a.parts)))
	for _, p := range a.parts {
		e.string(p.name)
		e.string(p.text)
		inner := &encoder{}
		for _, op := range p.ops {
			op.save(inner)
		}
		e.string(string(inner.b))
	}
	return binary.LittleEndian.AppendUint32(e.b, crc32.Checksum(e.b[start:], castagnoli))
}

// WriteSnapshot writes what Snapshot appends.
func (a *Application) WriteSnapshot(w io.Writer) error {
	_, err := w.Write(a.Snapshot(nil))
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Restore brings a new application, which has taken no rows yet, to the state of
// a snapshot. Pumps that have changed since begin anew; kept says which went on.
func (a *Application) Restore(snapshot []byte) (kept []string, err error) {
	n := len(snapshot) - 4
	if n < len(snapshotMagic) || string(snapshot[:len(snapshotMagic)]) != snapshotMagic ||
		crc32.Checksum(snapshot[:n], castagnoli) != binary.LittleEndian.Uint32(snapshot[n:]) {
		return nil, ErrSnapshot
	}
	d := &decoder{b: snapshot[len(snapshotMagic):n]}
	defer func() {
		if r := recover(); r != nil {
			if r != errDecode {
				panic(r)
			}
			kept, err = nil, ErrSnapshot
		}
	}()
	if d.uint() != snapshotVersion {
		return nil, ErrSnapshot
	}
	a.x.start = d.int()
	a.started = d.bool()
	for range d.count() {
		name := d.string()
		high, told := d.int(), d.int()
		if s := a.names[name]; s != nil {
			s.high, s.told = high, told
		}
	}
	parts := map[string]*part{}
	for _, p := range a.parts {
		parts[p.name] = p
	}
	for range d.count() {
		name, text, body := d.string(), d.string(), d.string()
		p := parts[name]
		if p == nil || p.text != text {
			continue
		}
		inner := &decoder{b: []byte(body)}
		for _, op := range p.ops {
			op.load(inner)
		}
		if len(inner.b) > 0 {
			return nil, fmt.Errorf("%w: the state of %s has bytes too many", ErrSnapshot, name)
		}
		kept = append(kept, name)
	}
	if len(d.b) > 0 {
		return nil, ErrSnapshot
	}
	return kept, nil
}

type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) float(f float64) { e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(f)) }
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}
func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) ints(list []int64) {
	e.uint(uint64(len(list)))
	for _, v := range list {
		e.int(v)
	}
}

func (e *encoder) floats(list []float64) {
	e.uint(uint64(len(list)))
	for _, v := range list {
		e.float(v)
	}
}

func (e *encoder) value(v plan.Value) {
	if v.Null {
		e.b = append(e.b, 0)
		return
	}
	kind := byte(1)
	switch {
	case v.Row != nil:
		kind = 4
	case v.S != "":
		kind = 3
	case v.F != 0 || math.Signbit(v.F):
		kind = 2
	}
	e.b = append(e.b, kind)
	switch kind {
	case 1:
		e.int(v.I)
	case 2:
		e.float(v.F)
	case 3:
		e.string(v.S)
	case 4:
		e.uint(uint64(len(v.Row)))
		for _, f := range v.Row {
			e.value(f)
		}
	}
}

func (e *encoder) values(list []plan.Value) {
	e.uint(uint64(len(list)))
	for _, v := range list {
		e.value(v)
	}
}

var errDecode = errors.New("decode")

// decoder reads what an encoder wrote; it panics with errDecode where that ends
// too soon, and counts nothing that the bytes left cannot hold.
type decoder struct{ b []byte }

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		panic(errDecode)
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		panic(errDecode)
	}
	d.b = d.b[n:]
	return v
}

// count is the number of things that follow, each of at least a byte.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.b)) {
		panic(errDecode)
	}
	return int(v)
}

func (d *decoder) float() float64 {
	if len(d.b) < 8 {
		panic(errDecode)
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(d.b))
	d.b = d.b[8:]
	return v
}

func (d *decoder) bool() bool {
	if len(d.b) == 0 {
		panic(errDecode)
	}
	v := d.b[0] != 0
	d.b = d.b[1:]
	return v
}

func (d *decoder) string() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) ints() []int64 {
	list := make([]int64, d.count())
	for i := range list {
		list[i] = d.int()
	}
	return list
}

func (d *decoder) floats() []float64 {
	n := d.count()
	if n > len(d.b)/8 {
		panic(errDecode)
	}
	list := make([]float64, n)
	for i := range list {
		list[i] = d.float()
	}
	return list
}

func (d *decoder) value() plan.Value {
	if len(d.b) == 0 {
		panic(errDecode)
	}
	kind := d.b[0]
	d.b = d.b[1:]
	switch kind {
	case 0:
		return plan.Value{Null: true}
	case 1:
		return plan.Value{I: d.int()}
	case 2:
		return plan.Value{F: d.float()}
	case 3:
		return plan.Value{S: d.string()}
	case 4:
		row := make([]plan.Value, d.count())
		for i := range row {
			row[i] = d.value()
		}
		return plan.Value{Row: row}
	}
	panic(errDecode)
}

func (d *decoder) values() []plan.Value {
	list := make([]plan.Value, d.count())
	for i := range list {
		list[i] = d.value()
	}
	return list
}

func (t *table) save(e *encoder) {
	e.int(t.head)
	e.ints(t.time)
	for _, c := range t.cols {
		for i := range t.time {
			e.value(c.value(i))
		}
	}
}

func (t *table) load(d *decoder) {
	t.clear()
	t.head = d.int()
	t.time = d.ints()
	for _, c := range t.cols {
		for range t.time {
			c.addValue(d.value())
		}
	}
}

func (g *groups) save(e *encoder) { g.keys.save(e) }

func (g *groups) load(d *decoder) {
	g.clear()
	kept := newTable(g.columns)
	kept.load(d)
	b := kept.batch()
	for i := range b.N {
		g.find(b.Cols, int32(i))
	}
	if g.len() != b.N {
		panic(errDecode)
	}
}

func (l *limit) save(e *encoder) { e.int(l.left) }
func (l *limit) load(d *decoder) { l.left = d.int() }

func (p *distinct) save(e *encoder) {
	e.bool(p.any)
	e.value(p.key)
	p.seen.save(e)
}

func (p *distinct) load(d *decoder) {
	p.any = d.bool()
	p.key = d.value()
	p.seen.load(d)
}

func (m *merge) save(e *encoder) {
	e.int(m.told)
	for i, q := range m.queues {
		e.int(m.bounds[i])
		q.save(e)
	}
}

func (m *merge) load(d *decoder) {
	m.told = d.int()
	for i, q := range m.queues {
		m.bounds[i] = d.int()
		q.load(d)
	}
}

func (s *sorter) save(e *encoder) {
	e.value(s.key)
	e.int(s.due)
	s.kept.save(e)
}

func (s *sorter) load(d *decoder) {
	s.key = d.value()
	s.due = d.int()
	s.kept.load(d)
}

func (c *checked) save(e *encoder) {
	e.bool(c.any)
	e.int(c.high)
}

func (c *checked) load(d *decoder) {
	c.any = d.bool()
	c.high = d.int()
}

func (a *aggregate) save(e *encoder) {
	e.bool(a.open)
	e.int(a.windowEnd)
	e.value(a.order)
	a.groups.save(e)
	for _, s := range a.states {
		s.save(e)
	}
}

func (a *aggregate) load(d *decoder) {
	a.open = d.bool()
	a.windowEnd = d.int()
	a.order = d.value()
	a.groups.load(d)
	for _, s := range a.states {
		s.reset()
		s.load(d)
		s.grow(a.groups.len())
	}
}

func (s *stagger) save(e *encoder) {
	s.groups.save(e)
	for i := range s.windows {
		w := &s.windows[i]
		e.bool(w.open)
		e.int(w.due)
		for _, st := range w.states {
			st.save(e)
		}
	}
	e.uint(uint64(len(s.queue)))
	for _, id := range s.queue {
		e.uint(uint64(id))
	}
}

func (s *stagger) load(d *decoder) {
	s.groups.load(d)
	s.windows = nil
	for range s.groups.len() {
		w := staggerWindow{open: d.bool(), due: d.int()}
		_, w.states = newStates(s.n.Aggs)
		for _, st := range w.states {
			st.load(d)
			st.grow(1)
		}
		s.windows = append(s.windows, w)
	}
	s.queue = make([]int32, d.count())
	for i := range s.queue {
		id := d.uint()
		if id >= uint64(len(s.windows)) {
			panic(errDecode)
		}
		s.queue[i] = int32(id)
	}
}

func (w *windowed) save(e *encoder) {
	e.int(w.swept)
	for _, f := range w.frames {
		f.groups.save(e)
		e.uint(uint64(len(f.parts)))
		for _, p := range f.parts {
			e.bool(p != nil)
			if p == nil {
				continue
			}
			e.ints(p.time)
			for _, r := range p.args {
				for k := range p.time {
					e.value(r.at(k))
				}
			}
		}
	}
}

func (w *windowed) load(d *decoder) {
	w.swept = d.int()
	for _, f := range w.frames {
		f.groups.load(d)
		f.parts = make([]*partition, d.count())
		for i := range f.parts {
			if !d.bool() {
				continue
			}
			p := f.newPartition()
			times := d.ints()
			values := make([][]plan.Value, len(p.args))
			for k := range values {
				for range times {
					values[k] = append(values[k], d.value())
				}
			}
			for at, t := range times {
				p.time = append(p.time, t)
				for k, r := range p.args {
					r.push(values[k][at])
				}
				for _, s := range p.fs {
					s.add(t)
				}
			}
			f.parts[i] = p
		}
	}
}

func (j *join) save(e *encoder) {
	e.int(j.told)
	for i, s := range j.sides {
		e.int(j.bounds[i])
		j.queues[i].save(e)
		s.rows.save(e)
		s.groups.save(e)
		e.int(s.passed)
		for k, m := range s.matched {
			e.bool(m)
			e.int(int64(s.of[k]))
		}
	}
}

func (j *join) load(d *decoder) {
	j.told = d.int()
	for i, s := range j.sides {
		j.bounds[i] = d.int()
		j.queues[i].load(d)
		s.rows.load(d)
		s.groups.load(d)
		s.passed = d.int()
		s.matched, s.of = nil, nil
		s.byKey = make([]keyRows, s.groups.len())
		for k := range s.rows.len() {
			s.matched = append(s.matched, d.bool())
			g := d.int()
			if g >= int64(len(s.byKey)) || g < -1 {
				panic(errDecode)
			}
			s.of = append(s.of, int32(g))
			if g >= 0 {
				s.byKey[g].rows = append(s.byKey[g].rows, s.rows.head+int64(k))
			}
		}
	}
}

func (w *itemWindow) save(e *encoder) {
	e.bool(w.open)
	e.int(w.end_)
	if w.top != nil {
		w.top.save(e)
	} else {
		w.distinct.save(e)
	}
}

func (w *itemWindow) load(d *decoder) {
	w.open = d.bool()
	w.end_ = d.int()
	if w.top != nil {
		w.top.load(d)
	} else {
		w.distinct.load(d)
	}
}

func (s *spaceSaving) save(e *encoder) {
	e.uint(uint64(len(s.items)))
	for b := s.low; b != nil; b = b.next {
		// The last of a list first: it was the first to come.
		var list []*counter
		for c := b.first; c != nil; c = c.next {
			list = append(list, c)
		}
		for i := len(list) - 1; i >= 0; i-- {
			c := list[i]
			e.int(c.key.i)
			e.string(c.key.s)
			e.value(c.value)
			e.int(b.count)
		}
	}
}

func (s *spaceSaving) load(d *decoder) {
	s.reset()
	var last *bucket
	for range d.count() {
		c := &counter{key: distinctKey{d.int(), d.string()}, value: d.value()}
		count := d.int()
		if last == nil || last.count != count {
			b := &bucket{count: count, prev: last}
			if last == nil {
				s.low = b
			} else {
				last.next = b
			}
			last = b
		}
		last.put(c)
		s.items[c.key] = c
	}
}

func (c *distinctCount) save(e *encoder) {
	e.string(string(c.registers))
	e.uint(uint64(len(c.set)))
	for h := range c.set {
		e.uint(h)
	}
}

func (c *distinctCount) load(d *decoder) {
	*c = distinctCount{}
	if r := d.string(); r != "" {
		if len(r) != hllRegisters {
			panic(errDecode)
		}
		c.registers = []uint8(r)
	}
	for range d.count() {
		c.add(d.uint())
	}
}

func (g *groupRank) save(e *encoder) { g.kept.save(e) }
func (g *groupRank) load(d *decoder) { g.kept.load(d) }

func (f *hotspotFunction) save(e *encoder) {
	e.uint(uint64(f.h.n))
	e.uint(uint64(f.h.next))
	e.floats(f.h.points)
}

func (f *hotspotFunction) load(d *decoder) {
	n, next, points := d.uint(), d.uint(), d.floats()
	if n > uint64(f.h.window) || next >= uint64(f.h.window) || len(points) != len(f.h.points) {
		panic(errDecode)
	}
	f.h.n, f.h.next, f.h.points = int(n), int(next), points
}

// The trees are kept as the points of their samples; the cuts are drawn anew,
// from the same distribution.
func (f *forestFunction) save(e *encoder) {
	e.floats(f.window)
	e.uint(uint64(f.filled))
	e.int(f.f.seen)
	for _, t := range f.f.trees {
		e.uint(uint64(len(t.heap)))
		for _, h := range t.heap {
			e.float(h.key)
			for _, v := range t.point(h.leaf) {
				e.float(v)
			}
		}
	}
}

func (f *forestFunction) load(d *decoder) {
	window := d.floats()
	if len(window) != len(f.window) {
		panic(errDecode)
	}
	f.window = window
	f.filled = int(min(d.uint(), uint64(f.shingle)))
	f.f.seen = d.int()
	for i := range f.f.trees {
		t := newCutTree(f.f.dims, f.f.sample)
		f.f.trees[i] = t
		n := d.count()
		if n > f.f.sample {
			panic(errDecode)
		}
		p := make([]float64, f.f.dims)
		for range n {
			key := d.float()
			for k := range p {
				if p[k] = d.float(); !(p[k] >= -1e300 && p[k] <= 1e300) {
					panic(errDecode)
				}
			}
			t.push(key, t.insert(p, f.f.rng))
		}
	}
}

func (s *countState) save(e *encoder) { e.ints(s.n) }
func (s *countState) load(d *decoder) { s.n = d.ints() }

func (s *intSum) save(e *encoder) {
	e.ints(s.sum)
	e.ints(s.over)
	e.ints(s.n)
}

func (s *intSum) load(d *decoder) { s.sum, s.over, s.n = d.ints(), d.ints(), d.ints() }

func (s *floatSum) save(e *encoder) {
	e.floats(s.sum)
	e.floats(s.lost)
	e.ints(s.n)
}

func (s *floatSum) load(d *decoder) { s.sum, s.lost, s.n = d.floats(), d.floats(), d.ints() }

func (s *extreme[T]) save(e *encoder) {
	e.uint(uint64(len(s.best)))
	for i, v := range s.best {
		e.bool(s.any[i])
		e.value(s.value(v))
	}
}

func (s *extreme[T]) load(d *decoder) {
	n := d.count()
	s.best, s.any = make([]T, n), make([]bool, n)
	for i := range n {
		s.any[i] = d.bool()
		v := d.value()
		switch p := any(&s.best[i]).(type) {
		case *int64:
			*p = v.I
		case *float64:
			*p = v.F
		case *string:
			*p = v.S
		}
	}
}

func (s *variance) save(e *encoder) {
	e.uint(uint64(len(s.m)))
	for _, m := range s.m {
		e.int(m.n)
		e.float(m.mean)
		e.float(m.m2)
	}
}

func (s *variance) load(d *decoder) {
	s.m = make([]moments, d.count())
	for i := range s.m {
		s.m[i] = moments{d.int(), d.float(), d.float()}
	}
}

func (s *truth) save(e *encoder) {
	e.ints(s.yes)
	e.ints(s.n)
}

func (s *truth) load(d *decoder) { s.yes, s.n = d.ints(), d.ints() }

func (s *firstLast) save(e *encoder) {
	e.values(s.value)
	for _, a := range s.any {
		e.bool(a)
	}
}

func (s *firstLast) load(d *decoder) {
	s.value = d.values()
	s.any = make([]bool, len(s.value))
	for i := range s.any {
		s.any[i] = d.bool()
	}
}

func (s *expAvg) save(e *encoder) {
	e.uint(uint64(len(s.d)))
	for _, x := range s.d {
		e.float(x.sum)
		e.float(x.weight)
		e.int(x.at)
		e.int(x.n)
	}
}

func (s *expAvg) load(d *decoder) {
	s.d = make([]decayed, d.count())
	for i := range s.d {
		s.d[i] = decayed{d.float(), d.float(), d.int(), d.int()}
	}
}

func (s *distinctState) save(e *encoder) {
	s.inner.save(e)
	e.uint(uint64(len(s.seen)))
	for _, m := range s.seen {
		e.uint(uint64(len(m)))
		for k := range m {
			e.int(k.i)
			e.string(k.s)
		}
	}
}

func (s *distinctState) load(d *decoder) {
	s.inner.load(d)
	s.seen = make([]map[distinctKey]bool, d.count())
	for i := range s.seen {
		s.seen[i] = map[distinctKey]bool{}
		for range d.count() {
			s.seen[i][distinctKey{d.int(), d.string()}] = true
		}
	}
}
