package run

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/millrace/millrace/internal/analytics/plan"
)

// ErrMemory says that the state of an application has reached its limit. The
// application takes no rows any more; a snapshot taken before goes on where there
// is more room.
var ErrMemory = errors.New("the application's state is as large as its limit allows")

// What operators keep is measured by looking at it: at how much room slices have,
// at how long texts are. An operator is looked at again when the rows that came
// since could have changed much, and not before they are as many as the things
// that looking looks at, so that measuring costs a little of each row whatever
// the state is. In between the rows themselves count.

// gauge adds up bytes.
type gauge struct {
	bytes int64
	looks int64 // things looked at
}

// measured is an operator that knows what it keeps.
type measured interface{ measure(g *gauge) }

// meter is what is known of an operator's state.
type meter struct {
	name  string // for messages
	op    measured
	bytes int64
	looks int64
	fed   int64 // what a.fed was
	rows  int64
}

// Memory is how many bytes the state takes: an estimate that follows what is
// allocated, and is worked out from time to time, not for every call.
func (a *Application) Memory() int64 {
	total := int64(0)
	for _, m := range a.meters {
		total += m.bytes
	}
	return total
}

// measures has an operator's state be measured.
func (c *builder) measures(name string, op measured) {
	if c.part == nil {
		return
	}
	c.app.meters = append(c.app.meters, &meter{name: name + " of " + c.part.name, op: op})
}

// fullError unwinds what is at work when the state is full.
type fullError struct{ error }

const (
	checkBytes = 1 << 20 // of rows, after which the state is looked at
	roughly    = 8       // a part of the state that is not worth another look
)

// account counts rows that go into a stream. Where operators multiply rows, that
// can be more than memory holds within one call.
func (a *Application) account(b *Batch) {
	rows := int64(len(b.Sel))
	a.rows += rows
	a.fed += rows * rowBytes(b)
	if a.fed-a.checked >= a.step {
		a.check(false)
	}
}

// rowBytes is about how many bytes a row of a batch takes: some stand for all.
func rowBytes(b *Batch) int64 {
	const some = 8
	n := int64(8 + 8*len(b.Cols))
	step := len(b.Sel)/some + 1
	texts, looked := 0, 0
	for at := 0; at < len(b.Sel); at += step {
		looked++
		for _, c := range b.Cols {
			if len(c.S) > 0 && !c.null(b.Sel[at]) {
				texts += len(c.S[b.Sel[at]]) + 8
			}
		}
	}
	return n + int64(texts/looked)
}

// check looks at operators that may have changed, at all of them if there may be
// too much. It panics with a fullError if there is.
func (a *Application) check(all bool) {
	a.checked = a.fed
	total := int64(0)
	for _, m := range a.meters {
		since := a.fed - m.fed
		if all || since >= m.bytes/roughly && a.rows-m.rows >= m.looks/4 {
			m.look(a)
			since = 0
		}
		total += m.bytes + since
	}
	limit := a.options.MemoryLimit
	a.step = checkBytes
	if limit <= 0 {
		return
	}
	// The nearer the limit, the sooner the next look.
	a.step = min(max((limit-total)/4, limit/64, 1<<12), checkBytes)
	if total <= limit {
		return
	}
	if !all {
		a.check(true)
		return
	}
	largest := a.meters[0]
	for _, m := range a.meters {
		if m.bytes > largest.bytes {
			largest = m
		}
	}
	panic(fullError{fmt.Errorf("%w: %s keeps %d bytes, which with all others is %d of %d", ErrMemory, largest.name, largest.bytes, total, limit)})
}

// look looks at all operators. Whether it is too much is for the next rows to find
// out.
func (a *Application) look() {
	for _, m := range a.meters {
		m.look(a)
	}
	a.step = 0
}

func (m *meter) look(a *Application) {
	var g gauge
	m.op.measure(&g)
	m.bytes, m.looks, m.fed, m.rows = g.bytes, g.looks, a.fed, a.rows
}

// roomOf counts the room of a slice whose elements hold on to nothing else.
func roomOf[T any](g *gauge, s []T) {
	var zero T
	g.bytes += int64(cap(s)) * int64(unsafe.Sizeof(zero))
	g.looks++
}

// texts counts strings and what they hold on to.
func (g *gauge) texts(list []string) {
	roomOf(g, list)
	for _, s := range list {
		g.bytes += int64(len(s))
	}
	g.looks += int64(len(list)) / 4 // which are looked at one after the other
}

// values counts single values.
func (g *gauge) values(list []plan.Value) {
	roomOf(g, list)
	for i := range list {
		g.bytes += int64(len(list[i].S))
		if list[i].Row != nil {
			g.values(list[i].Row)
		}
	}
	g.looks += int64(len(list)) / 2
}

// table counts a map with so many entries of so many bytes: groups of eight, at
// most seven eighths full, which double.
func (g *gauge) table(entries int, bytes uintptr) {
	slots := 8
	for slots*7/8 < entries {
		slots *= 2
	}
	g.bytes += 48 + int64(slots)*int64(bytes+1)
	g.looks++
}

// keyTexts counts the texts of a map's keys: some stand for all.
func keyTexts[V any](g *gauge, m map[distinctKey]V) {
	texts, looked := 0, 0
	for k := range m {
		texts += len(k.s)
		if looked++; looked == 16 {
			break
		}
	}
	if looked > 0 {
		g.bytes += int64(texts) * int64(len(m)) / int64(looked)
		g.looks += int64(looked)
	}
}

func (v *Vector) measure(g *gauge) {
	roomOf(g, v.Null)
	roomOf(g, v.I)
	roomOf(g, v.F)
	if v.S != nil {
		g.texts(v.S)
	}
	for _, m := range v.R {
		m.measure(g)
	}
}

func (t *table) measure(g *gauge) {
	roomOf(g, t.time)
	for _, c := range t.cols {
		c.Vector.measure(g)
	}
}

func (s *groups) measure(g *gauge) {
	s.keys.measure(g)
	roomOf(g, s.slots)
	roomOf(g, s.free)
}

func (a *aggregate) measure(g *gauge) {
	a.groups.measure(g)
	roomOf(g, a.firsts)
	for _, s := range a.states {
		measureState(g, s)
	}
}

func (s *stagger) measure(g *gauge) {
	s.groups.measure(g)
	roomOf(g, s.due)
	roomOf(g, s.queue)
	for _, st := range s.states {
		measureState(g, st)
	}
}

func measureState(g *gauge, s state) {
	switch s := s.(type) {
	case *sameSum:
	case *countState:
		roomOf(g, s.n)
	case *intSum:
		roomOf(g, s.cells)
	case *floatSum:
		roomOf(g, s.cells)
	case *extreme[int64]:
		roomOf(g, s.best)
		roomOf(g, s.any)
	case *extreme[float64]:
		roomOf(g, s.best)
		roomOf(g, s.any)
	case *extreme[string]:
		g.texts(s.best)
		roomOf(g, s.any)
	case *variance:
		roomOf(g, s.m)
	case *truth:
		roomOf(g, s.yes)
		roomOf(g, s.n)
	case *firstLast:
		g.values(s.value)
		roomOf(g, s.any)
	case *expAvg:
		roomOf(g, s.d)
	case *distinctState:
		measureState(g, s.inner)
		roomOf(g, s.seen)
		for _, m := range s.seen {
			if m != nil {
				g.table(len(m), unsafe.Sizeof(distinctKey{})+8)
				keyTexts(g, m)
			}
		}
	default:
		panic(fmt.Sprintf("run: %T is not measured", s))
	}
}

func (w *windowed) measure(g *gauge) {
	for _, f := range w.frames {
		f.groups.measure(g)
		roomOf(g, f.parts)
		for _, p := range f.parts {
			if p != nil {
				p.measure(g)
			}
		}
	}
}

func (p *partition) measure(g *gauge) {
	g.bytes += int64(unsafe.Sizeof(*p))
	g.looks++
	roomOf(g, p.time)
	roomOf(g, p.args)
	for i := range p.args {
		r := &p.args[i]
		roomOf(g, r.null)
		roomOf(g, r.i)
		roomOf(g, r.f)
		roomOf(g, r.values.ring)
		if r.s != nil {
			g.texts(r.s)
		}
		if r.row != nil {
			g.values(r.row)
		}
	}
	roomOf(g, p.sums)
	for i := range p.sums {
		s := &p.sums[i]
		if s.m != nil {
			g.bytes += int64(unsafe.Sizeof(*s.m))
		}
		if s.d != nil {
			g.bytes += int64(unsafe.Sizeof(*s.d))
		}
		if s.seen != nil {
			g.table(len(s.seen), unsafe.Sizeof(distinctKey{})+8)
			keyTexts(g, s.seen)
		}
	}
	roomOf(g, p.extremes)
	for i := range p.extremes {
		roomOf(g, p.extremes[i].ring)
	}
}

func (j *join) measure(g *gauge) {
	for i, s := range j.sides {
		j.queues[i].measure(g)
		s.rows.measure(g)
		s.groups.measure(g)
		roomOf(g, s.matched)
		roomOf(g, s.of)
		roomOf(g, s.after)
		roomOf(g, s.ends)
	}
	roomOf(g, j.pairs)
	j.out.measure(g)
}

func (s *semiJoin) measure(g *gauge) {
	for _, q := range s.queues {
		q.measure(g)
	}
	s.groups.measure(g)
	roomOf(g, s.byKey)
	for k := range s.byKey {
		roomOf(g, s.byKey[k])
	}
	roomOf(g, s.loose)
}

func (m *merge) measure(g *gauge) {
	for _, q := range m.queues {
		q.measure(g)
	}
}

func (s *sorter) measure(g *gauge)   { s.kept.measure(g) }
func (d *distinct) measure(g *gauge) { d.seen.measure(g) }

func (l *lookup) measure(g *gauge) {
	if l.table == nil {
		return
	}
	l.table.measure(g)
	l.groups.measure(g)
	roomOf(g, l.byKey)
	for _, rows := range l.byKey {
		roomOf(g, rows)
	}
}

func (f *forked) measure(g *gauge) {
	for _, l := range f.lanes {
		l.op.measure(g)
	}
}

func (w *itemWindow) measure(g *gauge) {
	if w.top != nil {
		g.table(len(w.top.items), unsafe.Sizeof(distinctKey{})+8)
		g.bytes += int64(len(w.top.items)) * int64(unsafe.Sizeof(counter{}))
		keyTexts(g, w.top.items)
		return
	}
	roomOf(g, w.distinct.registers)
	if w.distinct.set != nil {
		g.table(len(w.distinct.set), 8)
	}
}

func (r *groupRank) measure(g *gauge)       { r.kept.measure(g) }
func (f *hotspotFunction) measure(g *gauge) { roomOf(g, f.h.points) }

func (f *forestFunction) measure(g *gauge) {
	roomOf(g, f.window)
	for _, t := range f.f.trees {
		t.measure(g)
	}
}

func (t *cutTree) measure(g *gauge) {
	g.bytes += int64(unsafe.Sizeof(*t))
	for _, s := range [][]int32{t.dim, t.left, t.right, t.up, t.mass, t.freeN, t.copies, t.leafUp, t.freeL, t.path} {
		roomOf(g, s)
	}
	for _, s := range [][]float64{t.cut, t.box, t.points} {
		roomOf(g, s)
	}
	roomOf(g, t.heap)
}

// tableMeter measures the reference tables.
type tableMeter struct{ a *Application }

func (m tableMeter) measure(g *gauge) {
	for _, t := range m.a.tables {
		t.measure(g)
	}
	for _, l := range m.a.lookups {
		l.measure(g)
	}
}
