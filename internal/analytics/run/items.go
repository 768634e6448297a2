package run

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// newTableFunction makes the operator of a table function.
func newTableFunction(c *builder, n *plan.TableFunction, next sink) sink {
	columns := n.Input.Columns()
	switch n.Name {
	case "TOP_K_ITEMS_TUMBLING":
		k := int(n.Args[0].I)
		return keep(c, n.Name, &itemWindow{n: n, size: n.Args[1].I * 1000, next: next, type_: columns[n.Column].Type, top: newSpaceSaving(min(max(1000, 10*k), 1_000_000)), k: k})
	case "COUNT_DISTINCT_ITEMS_TUMBLING":
		return keep(c, n.Name, &itemWindow{n: n, size: n.Args[0].I * 1000, next: next, type_: columns[n.Column].Type, distinct: &distinctCount{}})
	case "GROUP_RANK":
		return keep(c, n.Name, &groupRank{n: n, kept: newTable(columns), columns: columns, next: next, idle: n.Args[2].I, most: int(n.Args[3].I)})
	case "HOTSPOTS":
		return keep(c, n.Name, &hotspotFunction{n: n, columns: columns, next: next, h: newHotspots(int(n.Args[0].I), n.Args[1].F, int(n.Args[2].I), len(n.Numeric))})
	}
	return keep(c, n.Name, newForestFunction(c, n, columns, next))
}

// itemWindow is TOP_K_ITEMS_TUMBLING or COUNT_DISTINCT_ITEMS_TUMBLING. Windows
// begin at multiples of their length.
type itemWindow struct {
	n        *plan.TableFunction
	type_    sql.Type
	size     int64
	k        int
	open     bool
	end_     int64
	top      *spaceSaving
	distinct *distinctCount
	next     sink
}

func (w *itemWindow) rows(b *Batch) {
	for _, i := range b.Sel {
		t := b.Time[i]
		w.close(t)
		if !w.open {
			w.open, w.end_ = true, t-mod(t, w.size)+w.size
		}
		v := b.Cols[w.n.Column].at(&w.type_, i)
		if w.top != nil {
			w.top.add(v, w.type_)
		} else if !v.Null {
			w.distinct.add(hashValue(v, w.type_))
		}
	}
}

func (w *itemWindow) close(t int64) {
	if !w.open || t < w.end_ {
		return
	}
	w.open = false
	out := newTable(w.n.Columns())
	if w.top != nil {
		for _, item := range w.top.largest(w.k) {
			out.time = append(out.time, w.end_)
			out.cols[0].addValue(item.value)
			out.cols[1].addValue(plan.Value{I: item.count})
		}
		w.top.reset()
	} else {
		out.time = append(out.time, w.end_)
		out.cols[0].addValue(plan.Value{I: w.distinct.count()})
		*w.distinct = distinctCount{}
	}
	if out.len() > 0 {
		w.next.rows(out.batch())
	}
}

func (w *itemWindow) bound(t int64) {
	w.close(t)
	w.next.bound(t + 1) // windows that are open, or will be, end later than now
}

func (w *itemWindow) end() { w.next.end() }

func hashValue(v plan.Value, t sql.Type) uint64 {
	switch plan.ClassOf(t) {
	case plan.ClassFloat:
		return finish(math.Float64bits(v.F + 0))
	case plan.ClassString:
		s := v.S
		if t.Kind == sql.KindChar {
			s = trimRight(s)
		}
		return maphash.String(seed, s)
	}
	return finish(uint64(v.I))
}

// finish spreads the bits of an integer.
func finish(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xBF58476D1CE4E5B9
	h ^= h >> 27
	h *= 0x94D049BB133111EB
	return h ^ h>>31
}

// spaceSaving counts the most frequent items with a fixed number of counters
// (Metwally, Agrawal, El Abbadi 2005). Counters of one count are a list, and the
// lists a list by count, so that every step takes constant time.
type spaceSaving struct {
	capacity int
	items    map[distinctKey]*counter
	low      *bucket // of the smallest count
}

type counter struct {
	key        distinctKey
	value      plan.Value
	bucket     *bucket
	prev, next *counter
}

type bucket struct {
	count      int64
	first      *counter
	prev, next *bucket
}

type item struct {
	value plan.Value
	count int64
}

func newSpaceSaving(capacity int) *spaceSaving {
	return &spaceSaving{capacity: capacity, items: map[distinctKey]*counter{}}
}

func (s *spaceSaving) reset() { s.items, s.low = map[distinctKey]*counter{}, nil }

func (s *spaceSaving) add(v plan.Value, t sql.Type) {
	key := keyOf(v, t)
	if v.Null {
		key = distinctKey{s: "\x00null"}
	}
	c := s.items[key]
	if c != nil {
		s.raise(c)
		return
	}
	v = kept(v)
	if !v.Null {
		key = keyOf(v, t)
	}
	switch {
	case len(s.items) < s.capacity:
		c = &counter{key: key, value: v}
		s.items[key] = c
		b := s.low
		if b == nil || b.count != 1 {
			b = &bucket{count: 1, next: s.low}
			if s.low != nil {
				s.low.prev = b
			}
			s.low = b
		}
		b.put(c)
	default:
		c = s.low.first
		delete(s.items, c.key)
		c.key, c.value = key, v
		s.items[key] = c
		s.raise(c)
	}
}

func (b *bucket) put(c *counter) {
	c.bucket, c.prev, c.next = b, nil, b.first
	if b.first != nil {
		b.first.prev = c
	}
	b.first = c
}

// raise moves a counter to the next higher count.
func (s *spaceSaving) raise(c *counter) {
	b := c.bucket
	up := b.next
	if up == nil || up.count != b.count+1 {
		up = &bucket{count: b.count + 1, prev: b, next: b.next}
		if b.next != nil {
			b.next.prev = up
		}
		b.next = up
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		b.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	up.put(c)
	if b.first == nil {
		if b.prev != nil {
			b.prev.next = b.next
		} else {
			s.low = b.next
		}
		b.next.prev = b.prev
	}
}

// largest are the k most frequent items, the most frequent first.
func (s *spaceSaving) largest(k int) []item {
	var list []item
	for b := s.low; b != nil; b = b.next {
		for c := b.first; c != nil; c = c.next {
			list = append(list, item{c.value, b.count})
		}
	}
	slices.SortFunc(list, func(a, b item) int {
		switch {
		case a.count != b.count:
			return compare(b.count, a.count)
		case a.value.S != b.value.S:
			return compare(a.value.S, b.value.S)
		case a.value.F != b.value.F:
			return compare(a.value.F, b.value.F)
		}
		return compare(a.value.I, b.value.I)
	})
	return list[:min(k, len(list))]
}

// distinctCount counts distinct hashes: exactly up to a number, then by
// HyperLogLog with 2^14 registers (Flajolet and others 2007), whose standard
// error is 0.81 %.
type distinctCount struct {
	set       map[uint64]struct{}
	registers []uint8
}

const (
	exactItems   = 10_000
	hllBits      = 14
	hllRegisters = 1 << hllBits
)

func (d *distinctCount) add(h uint64) {
	if d.registers != nil {
		d.register(h)
		return
	}
	if d.set == nil {
		d.set = map[uint64]struct{}{}
	}
	d.set[h] = struct{}{}
	if len(d.set) > exactItems {
		d.registers = make([]uint8, hllRegisters)
		for h := range d.set {
			d.register(h)
		}
		d.set = nil
	}
}

func (d *distinctCount) register(h uint64) {
	at := h >> (64 - hllBits)
	rank := uint8(bits.LeadingZeros64(h<<hllBits|1<<(hllBits-1)) + 1)
	d.registers[at] = max(d.registers[at], rank)
}

func (d *distinctCount) count() int64 {
	if d.registers == nil {
		return int64(len(d.set))
	}
	sum, zeros := 0.0, 0
	for _, r := range d.registers {
		sum += math.Exp2(-float64(r))
		if r == 0 {
			zeros++
		}
	}
	const m = float64(hllRegisters)
	estimate := 0.7213 / (1 + 1.079/m) * m * m / sum
	// Few distinct values are counted better by the registers they left empty.
	if estimate <= 2.5*m && zeros > 0 {
		estimate = m * math.Log(m/float64(zeros))
	}
	return int64(math.Round(estimate))
}

// groupRank ranks the rows of one instant.
type groupRank struct {
	n       *plan.TableFunction
	columns []plan.ColumnInfo
	kept    *table
	idle    int64
	most    int
	next    sink
}

func (g *groupRank) rows(b *Batch) {
	for _, i := range b.Sel {
		if g.kept.len() > 0 && b.Time[i] != g.kept.time[0] {
			g.flush()
		}
		g.kept.add(b, i)
	}
}

func (g *groupRank) bound(t int64) {
	if g.kept.len() > 0 {
		at := g.kept.time[0]
		if t > at || g.idle > 0 && t >= at+g.idle {
			g.flush()
		}
	}
	g.next.bound(t)
}

func (g *groupRank) end() { g.next.end() }

func (g *groupRank) flush() {
	b := g.kept.batch()
	col, t := b.Cols[g.n.Column], g.columns[g.n.Column].Type
	order := slices.Clone(b.Sel)
	descending := g.n.Args[0].I == 1
	slices.SortStableFunc(order, func(i, j int32) int { return compareRows(col, t, i, j, false, descending) })
	ranks := make([]int64, b.N)
	for at, i := range order {
		ranks[i] = int64(at + 1)
		if at > 0 && compareRows(col, t, order[at-1], i, false, false) == 0 {
			ranks[i] = ranks[order[at-1]]
		}
	}
	if g.n.Args[1].I == 1 {
		slices.Reverse(order)
	}
	if g.most > 0 && len(order) > g.most {
		order = order[:g.most]
	}
	out := newTable(g.n.Columns())
	for _, i := range order {
		out.time = append(out.time, b.Time[i])
		at := 0
		for c := range g.columns {
			if !g.columns[c].Hidden {
				out.cols[at].add(b.Cols[c], i)
				at++
			}
		}
		out.cols[at].addValue(plan.Value{I: ranks[i]})
	}
	g.kept.clear()
	g.next.rows(out.batch())
}

// hotspotFunction is HOTSPOTS.
type hotspotFunction struct {
	n       *plan.TableFunction
	columns []plan.ColumnInfo
	h       *hotspots
	next    sink
}

func (f *hotspotFunction) rows(b *Batch) {
	out := &Batch{N: b.N, Time: b.Time, Sel: b.Sel}
	for i, c := range f.columns {
		if !c.Hidden {
			out.Cols = append(out.Cols, b.Cols[i])
		}
	}
	v := &Vector{}
	v.resize(plan.ClassString, b.N)
	t := f.n.Columns()[len(f.n.Columns())-1].Type
	point := make([]float64, len(f.n.Numeric))
	for _, i := range b.Sel {
		if pointOf(point, b, f.columns, f.n.Numeric, i) {
			f.h.add(point)
		}
		v.S[i] = fit(f.h.json(), t)
	}
	out.Cols = append(out.Cols, v)
	f.next.rows(out)
}

func (f *hotspotFunction) bound(t int64) { f.next.bound(t) }
func (f *hotspotFunction) end()          { f.next.end() }

// pointOf reads the numeric columns of a row; ok is false if one is null or not
// finite. Values beyond 1e300 count as that, so that extents stay finite.
func pointOf(dst []float64, b *Batch, columns []plan.ColumnInfo, numeric []int, row int32) bool {
	for d, c := range numeric {
		v := b.Cols[c]
		if v.null(row) {
			return false
		}
		if plan.ClassOf(columns[c].Type) == plan.ClassFloat {
			dst[d] = v.F[row]
		} else {
			dst[d] = float64(v.I[row])
		}
		if dst[d]-dst[d] != 0 {
			return false
		}
		dst[d] = max(-1e300, min(1e300, dst[d]))
	}
	return true
}

// hotspots finds the clusters among the last points: sets that hang together by
// distances up to a radius.
type hotspots struct {
	window, least int
	radius        float64
	dims          int
	points        []float64 // ring of window points
	n, next       int
}

func newHotspots(window int, radius float64, least, dims int) *hotspots {
	return &hotspots{window: window, least: least, radius: radius, dims: dims, points: make([]float64, window*dims)}
}

func (h *hotspots) add(p []float64) {
	copy(h.points[h.next*h.dims:], p)
	h.next = (h.next + 1) % h.window
	h.n = min(h.n+1, h.window)
}

func (h *hotspots) point(i int) []float64 { return h.points[i*h.dims : (i+1)*h.dims] }

// json is the answer's text.
func (h *hotspots) json() string {
	dst := []byte(`{"hotspots":[`)
	first := true
	for _, members := range h.clusters() {
		low, high := slices.Clone(h.point(members[0])), slices.Clone(h.point(members[0]))
		for _, m := range members[1:] {
			for d, v := range h.point(m) {
				low[d], high[d] = min(low[d], v), max(high[d], v)
			}
		}
		volume := 1.0
		for d := range low {
			if extent := high[d] - low[d]; extent > 0 {
				volume *= extent
			} else {
				volume *= h.radius
			}
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, `{"density":`...)
		dst = appendFinite(dst, float64(len(members))/volume)
		dst = appendValues(dst, "minValues", low)
		dst = appendValues(dst, "maxValues", high)
		dst = append(dst, '}')
	}
	return string(append(dst, "]}"...))
}

func appendValues(dst []byte, name string, values []float64) []byte {
	dst = append(dst, `,"`+name+`":[`...)
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFinite(dst, v)
	}
	return append(dst, ']')
}

func appendFinite(dst []byte, f float64) []byte {
	if f-f != 0 {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// clusters are the sets of points, each in order, that have enough members. A
// grid with cells as wide as the radius leaves only neighbours to compare.
func (h *hotspots) clusters() [][]int {
	if h.n < h.least {
		return nil
	}
	parent := make([]int, h.n)
	for i := range parent {
		parent[i] = i
	}
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	// The first two dimensions make the grid.
	type cell [2]int64
	grid := map[cell][]int{}
	place := func(p []float64) cell {
		var c cell
		for d := range min(2, h.dims) {
			c[d] = int64(math.Max(-9e18, math.Min(9e18, math.Floor(p[d]/h.radius))))
		}
		return c
	}
	for i := range h.n {
		p := h.point(i)
		at := place(p)
		for dx := int64(-1); dx <= 1; dx++ {
			for dy := int64(-1); dy <= 1; dy++ {
				if h.dims == 1 && dy != 0 {
					continue
				}
				for _, j := range grid[cell{at[0] + dx, at[1] + dy}] {
					a, b := root(i), root(j)
					if a != b && h.near(p, h.point(j)) {
						parent[max(a, b)] = min(a, b)
					}
				}
			}
		}
		grid[at] = append(grid[at], i)
	}
	members := map[int][]int{}
	for i := range h.n {
		r := root(i)
		members[r] = append(members[r], i)
	}
	var list [][]int
	for i := range h.n {
		if m := members[i]; len(m) >= h.least {
			list = append(list, m)
		}
	}
	return list
}

func (h *hotspots) near(a, b []float64) bool {
	sum := 0.0
	for d := range a {
		sum += (a[d] - b[d]) * (a[d] - b[d])
	}
	return sum <= h.radius*h.radius
}
