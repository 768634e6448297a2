package run

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/millrace/millrace/internal/analytics/plan"
)

// A snapshot is everything that operators keep, so that an application made anew
// goes on as if it had never stopped. Its form is docs/formats/analytics-snapshot.md,
// its bytes are encode.go's.
//
// Parts are named after the pump they belong to. A part whose pump has another
// query now is left out, and the pump begins anew: that is how a changed program
// keeps the state of what did not change.
//
// What is kept by key is written key by key, in an order that does not depend on
// how the keys are divided between workers. So an application with other workers
// can take it up.

const (
	snapshotMagic   = "MRSQL"
	snapshotVersion = 2
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
// inserts, and is nil after ErrMemory.
func (a *Application) Snapshot(dst []byte) []byte {
	w := appender{dst}
	if a.WriteSnapshot(&w) != nil {
		return nil
	}
	return w.b
}

type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// Frozen is a snapshot that was taken and not yet written.
type Frozen struct {
	pieces [][]byte
	size   int64
	err    error
}

// Freeze takes a snapshot into memory, in pieces, so that rows can be inserted
// while it is written elsewhere. That takes time in proportion to the state, which
// all workers share, and less memory than the state has.
func (a *Application) Freeze() *Frozen {
	f := &Frozen{}
	f.err = a.WriteSnapshot(f)
	return f
}

// Write adds a piece: a Frozen is what WriteSnapshot writes to.
func (f *Frozen) Write(p []byte) (int, error) {
	const piece = 1 << 20
	f.size += int64(len(p))
	for rest := p; len(rest) > 0; {
		last := len(f.pieces) - 1
		if last < 0 || len(f.pieces[last]) == cap(f.pieces[last]) {
			f.pieces = append(f.pieces, make([]byte, 0, min(piece, max(1<<12, int(f.size)))))
			last++
		}
		free := f.pieces[last]
		n := min(len(rest), cap(free)-len(free))
		f.pieces[last] = append(free, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// Size is the number of bytes of the snapshot.
func (f *Frozen) Size() int64 { return f.size }

// WriteTo writes the snapshot. It may be called from any goroutine, and more than
// once. The error is w's, or ErrMemory if there was no state to be taken any more.
func (f *Frozen) WriteTo(w io.Writer) (n int64, err error) {
	if f.err != nil {
		return 0, f.err
	}
	for _, p := range f.pieces {
		m, err := w.Write(p)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// WriteSnapshot writes what Snapshot appends, without ever having all of it in
// memory. It is called between inserts. The error is the writer's, or ErrMemory
// with its reason once the state was full: rows may have been taken in part.
func (a *Application) WriteSnapshot(w io.Writer) error {
	if a.full != nil {
		return a.full
	}
	f := &frameWriter{w: w}
	f.raw([]byte(snapshotMagic))
	e := &encoder{to: f, workers: a.workers}
	e.uint(snapshotVersion)
	e.int(a.x.start)
	e.bool(a.started)
	names := sortedNames(a.names)
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
	}
	e.end()
	for _, p := range a.parts {
		for _, op := range p.ops {
			op.save(e)
		}
		e.end()
	}
	return f.err
}

func sortedNames(m map[string]*stream) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Restore brings a new application, which has taken no rows yet, to the state of
// a snapshot. Pumps that have changed since begin anew; kept says which went on.
// An application for which there was an error is of no use any more.
func (a *Application) Restore(snapshot []byte) (kept []string, err error) {
	return a.ReadSnapshot(bytes.NewReader(snapshot), int64(len(snapshot)))
}

// ReadSnapshot is Restore from a reader that has size bytes. What the reader fails
// with is returned as it is.
func (a *Application) ReadSnapshot(r io.Reader, size int64) (kept []string, err error) {
	f := &frameReader{r: r, left: size}
	d := &decoder{from: f}
	defer func() {
		if r := recover(); r != nil {
			if r != errDecode {
				panic(r)
			}
			if kept, err = nil, f.err; err == nil {
				err = ErrSnapshot
			}
		}
	}()
	f.magic()
	if d.uint() != snapshotVersion {
		return nil, ErrSnapshot
	}
	start, started := d.int(), d.bool()
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
	type place struct {
		name string
		part *part
	}
	var bodies []place
	for range d.count() {
		name, text := d.string(), d.string()
		p := parts[name]
		if p != nil && p.text != text {
			p = nil
		}
		delete(parts, name)
		bodies = append(bodies, place{name, p})
	}
	d.end()
	a.x.start, a.started = start, started
	for _, x := range a.contexts {
		x.start = start
	}
	for _, body := range bodies {
		if body.part == nil {
			d.skip()
			continue
		}
		for _, op := range body.part.ops {
			op.load(d)
		}
		if !d.ended() {
			return nil, fmt.Errorf("%w: the state of %s has bytes too many", ErrSnapshot, body.name)
		}
		kept = append(kept, body.name)
	}
	if f.left > 0 {
		return nil, ErrSnapshot
	}
	a.look()
	return kept, nil
}

// A divisible operator keeps its state by key, as lists of records. Several of one
// kind can have the keys of one between them.
type divisible interface {
	// head is what is kept besides records.
	saveHead(e *encoder)
	loadHead(d *decoder)
	lists() []recordList
}

// recordList is one of a divisible operator's lists.
type recordList interface {
	len() int
	// weight is about how many bytes a record takes; there is one.
	weight() int
	// firsts are the places of the records in an order that has to be kept, ascending;
	// nil if none has.
	firsts() []int64
	// save writes a record: its key, then the rest.
	saveRecord(e *encoder, i int)
	// keyColumns are those of the records' key.
	keyColumns() []plan.ColumnInfo
	// loadRecord appends a record, whose key has been read already.
	loadRecord(d *decoder, key []*Vector, first int64)
}

// saveDivided writes the state that operators have between them, the head of the
// first.
func saveDivided[T divisible](e *encoder, ops []T) {
	ops[0].saveHead(e)
	lists := make([][]recordList, len(ops))
	for i, op := range ops {
		lists[i] = op.lists()
	}
	for l := range lists[0] {
		total, bytes, ordered := 0, 0, false
		for i := range lists {
			n := lists[i][l].len()
			if n == 0 {
				continue
			}
			total += n
			bytes += n * lists[i][l].weight()
			ordered = ordered || lists[i][l].firsts() != nil
		}
		e.uint(uint64(total))
		if total == 0 {
			continue
		}
		weight := bytes/total + 1
		if len(ops) == 1 {
			e.records(total, weight, lists[0][l].saveRecord)
			continue
		}
		if !ordered {
			for i := range lists {
				e.records(lists[i][l].len(), weight, lists[i][l].saveRecord)
			}
			continue
		}
		type place struct{ op, i int32 }
		places := make([]place, 0, total)
		firsts, next := make([][]int64, len(ops)), make([]int, len(ops))
		for i := range lists {
			firsts[i] = lists[i][l].firsts()
		}
		for range total {
			best := -1
			for i, f := range firsts {
				if next[i] < len(f) && (best < 0 || f[next[i]] < firsts[best][next[best]]) {
					best = i
				}
			}
			places = append(places, place{int32(best), int32(next[best])})
			next[best]++
		}
		e.records(total, weight, func(e *encoder, i int) {
			lists[places[i].op][l].saveRecord(e, int(places[i].i))
		})
	}
}

// loadDivided reads what saveDivided wrote into operators that are empty. pick
// says whose a key is.
func loadDivided[T divisible](d *decoder, ops []T, pick func(columns []plan.ColumnInfo, key []*Vector) int) {
	ops[0].loadHead(d)
	lists := make([][]recordList, len(ops))
	for i, op := range ops {
		lists[i] = op.lists()
	}
	for l := range lists[0] {
		columns := lists[0][l].keyColumns()
		key := newTable(columns)
		var vectors []*Vector
		for _, c := range key.cols {
			vectors = append(vectors, &c.Vector)
		}
		for i := range d.count() {
			key.clear()
			key.time = append(key.time, 0)
			for _, c := range key.cols {
				c.addValue(d.value())
			}
			op := 0
			if pick != nil {
				op = pick(columns, vectors)
			}
			lists[op][l].loadRecord(d, vectors, int64(i))
		}
	}
}

func (t *table) save(e *encoder) {
	e.int(t.head)
	e.times(t.time)
	for _, c := range t.cols {
		for i := range t.time {
			e.value(c.value(i))
			e.mark()
		}
	}
}

func (t *table) load(d *decoder) {
	t.clear()
	t.head = d.int()
	t.time = d.times()
	for _, c := range t.cols {
		for range t.time {
			c.addValue(d.value())
		}
	}
}

// Groups are saved without gaps in their numbers: compact comes first.
func (g *groups) save(e *encoder) {
	e.uint(uint64(g.n))
	for i := range g.n {
		g.saveKey(e, i)
		e.mark()
	}
}

func (g *groups) saveKey(e *encoder, i int) {
	for _, c := range g.keys.cols {
		e.value(c.value(i))
	}
}

func (g *groups) load(d *decoder) {
	g.clear()
	key := newTable(g.columns)
	for range d.count() {
		g.loadKey(d, key)
	}
}

// loadKey reads the key of a group that is not there yet; key is for its use.
func (g *groups) loadKey(d *decoder, key *table) int {
	key.clear()
	for _, c := range key.cols {
		c.addValue(d.value())
	}
	key.time = append(key.time, 0)
	id, fresh := g.find(key.batch().Cols, 0)
	if !fresh {
		panic(errDecode)
	}
	return id
}

func (l *limit) save(e *encoder) { e.int(l.left) }
func (l *limit) load(d *decoder) { l.left = d.int() }

func (p *distinct) save(e *encoder) { saveDivided(e, []*distinct{p}) }
func (p *distinct) load(d *decoder) { loadDivided(d, []*distinct{p}, nil) }

func (p *distinct) saveHead(e *encoder) {
	e.bool(p.any)
	e.value(p.key)
}

func (p *distinct) loadHead(d *decoder) {
	p.any = d.bool()
	p.key = d.value()
}

func (p *distinct) lists() []recordList { return []recordList{&groupRecords{g: p.seen}} }

// groupRecords are groups with nothing but their keys.
type groupRecords struct{ g *groups }

func (r *groupRecords) len() int                      { return r.g.len() }
func (r *groupRecords) weight() int                   { return 16 * (1 + len(r.g.columns)) }
func (r *groupRecords) firsts() []int64               { return nil }
func (r *groupRecords) keyColumns() []plan.ColumnInfo { return r.g.columns }

func (r *groupRecords) saveRecord(e *encoder, i int) {
	r.g.saveKey(e, i)
}

// loadRecord takes keys that are not there yet.
func (r *groupRecords) loadRecord(_ *decoder, key []*Vector, _ int64) {
	if _, fresh := r.g.find(key, 0); !fresh {
		panic(errDecode)
	}
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

func (p *promotion) save(e *encoder) {
	e.bool(p.any)
	e.int(p.high)
}

func (p *promotion) load(d *decoder) {
	p.any = d.bool()
	p.high = d.int()
}

func (a *aggregate) save(e *encoder) { saveDivided(e, []*aggregate{a}) }
func (a *aggregate) load(d *decoder) { loadDivided(d, []*aggregate{a}, nil) }

func (a *aggregate) saveHead(e *encoder) {
	e.bool(a.open)
	e.int(a.windowEnd)
	e.value(a.order)
}

func (a *aggregate) loadHead(d *decoder) {
	a.open = d.bool()
	a.windowEnd = d.int()
	a.order = d.value()
}

func (a *aggregate) lists() []recordList {
	return []recordList{&aggregateRecords{groupRecords{a.groups}, a}}
}

// aggregateRecords are groups with their states, in the order in which they came.
type aggregateRecords struct {
	groupRecords
	a *aggregate
}

func (r *aggregateRecords) weight() int     { return r.groupRecords.weight() + 16*len(r.a.states) }
func (r *aggregateRecords) firsts() []int64 { return r.a.firsts }

func (r *aggregateRecords) saveRecord(e *encoder, i int) {
	r.groupRecords.saveRecord(e, i)
	for _, s := range r.a.states {
		s.saveGroup(e, i)
	}
}

func (r *aggregateRecords) loadRecord(d *decoder, key []*Vector, first int64) {
	r.groupRecords.loadRecord(d, key, first)
	if r.a.ordered {
		r.a.firsts = append(r.a.firsts, first)
	}
	for _, s := range r.a.states {
		s.loadGroup(d)
	}
}

// Windows are saved in the order in which they opened.
func (s *stagger) save(e *encoder) {
	queue := slices.Clone(s.queue)
	slices.SortFunc(queue, func(a, b dueWindow) int { return cmp.Compare(a.opened, b.opened) })
	e.uint(uint64(len(queue)))
	for _, w := range queue {
		s.groups.saveKey(e, int(w.id))
		e.int(s.due[w.id])
		for _, st := range s.states {
			st.saveGroup(e, int(w.id))
		}
		e.mark()
	}
}

func (s *stagger) load(d *decoder) {
	s.groups.clear()
	s.due, s.queue = s.due[:0], s.queue[:0]
	key := newTable(s.keyCols)
	for i := range d.count() {
		id := s.groups.loadKey(d, key)
		due := d.int()
		s.due = append(s.due, due)
		s.queue.push(dueWindow{due: due, opened: int64(i), id: int32(id)})
		for _, st := range s.states {
			st.loadGroup(d)
		}
	}
	s.opened = int64(len(s.due))
}

func (w *windowed) save(e *encoder) { saveDivided(e, []*windowed{w}) }
func (w *windowed) load(d *decoder) { loadDivided(d, []*windowed{w}, nil) }

func (w *windowed) saveHead(e *encoder) { e.int(w.swept) }
func (w *windowed) loadHead(d *decoder) { w.swept = d.int() }

func (w *windowed) lists() []recordList {
	var list []recordList
	for _, f := range w.frames {
		f.compact()
		list = append(list, &frameRecords{f})
	}
	return list
}

// frameRecords are the partitions of a frame.
type frameRecords struct{ f *frame }

func (r *frameRecords) len() int                      { return len(r.f.parts) }
func (r *frameRecords) firsts() []int64               { return nil }
func (r *frameRecords) keyColumns() []plan.ColumnInfo { return r.f.keyCols }

func (r *frameRecords) weight() int {
	rows := 0
	step := len(r.f.parts)/64 + 1 // some stand for all
	for i := 0; i < len(r.f.parts); i += step {
		rows += r.f.parts[i].n
	}
	return 16 + rows*step/len(r.f.parts)*8*(1+len(r.f.args))
}

func (r *frameRecords) saveRecord(e *encoder, i int) {
	r.f.groups.saveKey(e, i)
	p := r.f.parts[i]
	times := make([]int64, p.n)
	for k := range times {
		times[k] = p.time[p.place(k)]
	}
	e.times(times)
	for a := range p.args {
		for k := range p.n {
			e.value(p.args[a].at(r.f.args[a].class, p.place(k)))
			e.mark()
		}
	}
	for k := range p.sums {
		p.sums[k].save(e, r.f.sums[k].kind)
	}
}

func (r *frameRecords) loadRecord(d *decoder, key []*Vector, _ int64) {
	f := r.f
	if len(f.keys) > 0 {
		if _, fresh := f.groups.find(key, 0); !fresh {
			panic(errDecode)
		}
	} else if len(f.parts) > 0 {
		panic(errDecode)
	}
	p := f.newPartition()
	times := d.times()
	values := make([][]plan.Value, len(p.args))
	for k := range values {
		for range times {
			values[k] = append(values[k], d.value())
		}
	}
	row := make([]plan.Value, len(p.args))
	for at, t := range times {
		for k := range row {
			row[k] = values[k][at]
		}
		p.pushValues(f, t, row)
	}
	for k := range p.sums {
		p.sums[k].load(d, f.sums[k].kind)
	}
	f.parts = append(f.parts, p)
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
			e.mark()
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
		e.mark()
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
			e.mark()
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

func (s *countState) saveGroup(e *encoder, g int) { e.int(s.n[g]) }
func (s *countState) loadGroup(d *decoder)        { s.n = append(s.n, d.int()) }

func (s *intSum) saveGroup(e *encoder, g int) {
	c := &s.cells[g]
	e.int(c.n)
	e.int(c.sum)
	e.int(c.over)
}

func (s *intSum) loadGroup(d *decoder) {
	n, sum, over := d.int(), d.int(), d.int()
	s.cells = append(s.cells, intCell{sum: sum, over: over, n: n})
}

func (s *floatSum) saveGroup(e *encoder, g int) {
	c := &s.cells[g]
	e.int(c.n)
	e.float(c.sum)
	e.float(c.lost)
}

func (s *floatSum) loadGroup(d *decoder) {
	n, sum, lost := d.int(), d.float(), d.float()
	s.cells = append(s.cells, floatCell{sum: sum, lost: lost, n: n})
}

func (s *extreme[T]) saveGroup(e *encoder, g int) {
	e.bool(s.any[g])
	e.value(s.value(s.best[g]))
}

func (s *extreme[T]) loadGroup(d *decoder) {
	s.any = append(s.any, d.bool())
	v := d.value()
	var best T
	switch p := any(&best).(type) {
	case *int64:
		*p = v.I
	case *float64:
		*p = v.F
	case *string:
		*p = v.S
	}
	s.best = append(s.best, best)
}

func (s *variance) saveGroup(e *encoder, g int) {
	e.int(s.m[g].n)
	e.float(s.m[g].mean)
	e.float(s.m[g].m2)
}

func (s *variance) loadGroup(d *decoder) {
	s.m = append(s.m, moments{d.int(), d.float(), d.float()})
}

func (s *truth) saveGroup(e *encoder, g int) {
	e.int(s.n[g])
	e.int(s.yes[g])
}

func (s *truth) loadGroup(d *decoder) { s.n, s.yes = append(s.n, d.int()), append(s.yes, d.int()) }

func (s *firstLast) saveGroup(e *encoder, g int) {
	e.bool(s.any[g])
	e.value(s.value[g])
}

func (s *firstLast) loadGroup(d *decoder) {
	s.any, s.value = append(s.any, d.bool()), append(s.value, d.value())
}

func (s *expAvg) saveGroup(e *encoder, g int) {
	x := s.d[g]
	e.int(x.n)
	e.float(x.sum)
	e.float(x.weight)
	e.int(x.at)
}

func (s *expAvg) loadGroup(d *decoder) {
	n, sum, weight, at := d.int(), d.float(), d.float(), d.int()
	s.d = append(s.d, decayed{sum: sum, weight: weight, at: at, n: n})
}

func (s *distinctState) saveGroup(e *encoder, g int) {
	s.inner.saveGroup(e, g)
	e.uint(uint64(len(s.seen[g])))
	for k := range s.seen[g] {
		e.int(k.i)
		e.string(k.s)
		e.mark()
	}
}

func (s *distinctState) loadGroup(d *decoder) {
	s.inner.loadGroup(d)
	seen := map[distinctKey]bool{}
	for range d.count() {
		seen[distinctKey{d.int(), d.string()}] = true
	}
	s.seen = append(s.seen, seen)
}
