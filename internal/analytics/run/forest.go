package run

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/millrace/millrace/internal/analytics/plan"
)

// forest is a random cut forest (Guha, Mishra, Roy, Schrijvers 2016): trees over
// samples of the stream that favour the recent, cut at random in proportion to
// the extents of what they hold. A point is the more anomalous the fewer cuts it
// takes to set it apart.
type forest struct {
	dims, sample int
	decay        float64
	trees        []*cutTree
	seen         int64
	rng          *rand.Rand
}

func newForest(trees, sample, dims int, decay float64, seed uint64) *forest {
	f := &forest{dims: dims, sample: sample, decay: decay, rng: rand.New(rand.NewPCG(seed, 0x9E3779B97F4A7C15))}
	for range trees {
		f.trees = append(f.trees, newCutTree(dims, sample))
	}
	return f
}

// add offers a point to every tree's sample.
func (f *forest) add(p []float64) {
	f.seen++
	for _, t := range f.trees {
		// Weighted reservoir: the smallest keys stay, and newer points have smaller
		// ones.
		u := f.rng.Float64()
		for u == 0 {
			u = f.rng.Float64()
		}
		key := math.Log(-math.Log(u)) - float64(f.seen)/f.decay
		if len(t.heap) < f.sample {
			t.push(key, t.insert(p, f.rng))
			continue
		}
		if key >= t.heap[0].key {
			continue
		}
		t.remove(t.heap[0].leaf)
		leaf := t.insert(p, f.rng)
		t.heap[0] = heapItem{key, leaf}
		t.down(0)
	}
}

// score is the mean over the trees of how anomalous a point is.
func (f *forest) score(p []float64) float64 {
	sum := 0.0
	for _, t := range f.trees {
		sum += t.score(p)
	}
	return sum / float64(len(f.trees))
}

// attribution splits the score over dimensions and directions.
func (f *forest) attribution(p []float64) (high, low []float64) {
	high, low = make([]float64, f.dims), make([]float64, f.dims)
	h, l := make([]float64, f.dims), make([]float64, f.dims)
	for _, t := range f.trees {
		t.attribute(p, h, l)
		for d := range h {
			high[d] += h[d] / float64(len(f.trees))
			low[d] += l[d] / float64(len(f.trees))
		}
	}
	return high, low
}

// cutTree is one tree. Nodes are numbers: those from 0 up are inner nodes, those
// below 0 are leaves, of which -1 is the first.
type cutTree struct {
	dims   int
	root   int32
	empty  bool
	dim    []int32
	cut    []float64
	left   []int32
	right  []int32
	up     []int32
	mass   []int32
	box    []float64 // of inner nodes: lows, then highs
	freeN  []int32
	points []float64 // of leaves
	copies []int32
	leafUp []int32
	freeL  []int32
	heap   []heapItem // largest key first
	path   []int32
}

type heapItem struct {
	key  float64
	leaf int32
}

const noNode = int32(math.MaxInt32)

func newCutTree(dims, sample int) *cutTree {
	t := &cutTree{dims: dims, empty: true}
	t.dim, t.cut = make([]int32, sample), make([]float64, sample)
	t.left, t.right, t.up, t.mass = make([]int32, sample), make([]int32, sample), make([]int32, sample), make([]int32, sample)
	t.box = make([]float64, 2*dims*sample)
	t.points, t.copies, t.leafUp = make([]float64, dims*(sample+1)), make([]int32, sample+1), make([]int32, sample+1)
	for i := sample - 1; i >= 0; i-- {
		t.freeN = append(t.freeN, int32(i))
	}
	for i := sample; i >= 0; i-- {
		t.freeL = append(t.freeL, int32(i))
	}
	return t
}

func (t *cutTree) point(leaf int32) []float64 {
	i := int(-1 - leaf)
	return t.points[i*t.dims : (i+1)*t.dims]
}

func (t *cutTree) lows(n int32) []float64 {
	return t.box[int(n)*2*t.dims : int(n)*2*t.dims+t.dims]
}
func (t *cutTree) highs(n int32) []float64 {
	return t.box[int(n)*2*t.dims+t.dims : (int(n)+1)*2*t.dims]
}

func (t *cutTree) setUp(n, up int32) {
	if n < 0 {
		t.leafUp[-1-n] = up
	} else {
		t.up[n] = up
	}
}

func (t *cutTree) upOf(n int32) int32 {
	if n < 0 {
		return t.leafUp[-1-n]
	}
	return t.up[n]
}

func (t *cutTree) massOf(n int32) int32 {
	if n < 0 {
		return t.copies[-1-n]
	}
	return t.mass[n]
}

// bounds are the extents of what is below a node.
func (t *cutTree) bounds(n int32) (low, high []float64) {
	if n < 0 {
		p := t.point(n)
		return p, p
	}
	return t.lows(n), t.highs(n)
}

func (t *cutTree) newLeaf(p []float64) int32 {
	i := t.freeL[len(t.freeL)-1]
	t.freeL = t.freeL[:len(t.freeL)-1]
	copy(t.points[int(i)*t.dims:], p)
	t.copies[i] = 1
	return -1 - i
}

// insert adds a point and returns its leaf.
func (t *cutTree) insert(p []float64, rng *rand.Rand) int32 {
	if t.empty {
		t.empty = false
		leaf := t.newLeaf(p)
		t.root = leaf
		t.setUp(leaf, noNode)
		return leaf
	}
	n := t.root
	for {
		low, high := t.bounds(n)
		if n < 0 && slices.Equal(low, p) {
			t.copies[-1-n]++
			t.grown(t.leafUp[-1-n], p)
			return n
		}
		// A cut of the box with the point in it, uniform over the sum of extents.
		sum := 0.0
		for d := range p {
			sum += max(high[d], p[d]) - min(low[d], p[d])
		}
		r := rng.Float64() * sum
		dim, cut := 0, 0.0
		for d := range p {
			extent := max(high[d], p[d]) - min(low[d], p[d])
			if extent > 0 {
				dim, cut = d, min(low[d], p[d])+min(r, extent)
				if r < extent {
					break
				}
			}
			r -= extent
		}
		above := p[dim] > cut && high[dim] <= cut
		below := p[dim] <= cut && low[dim] > cut
		if above || below {
			return t.split(n, p, int32(dim), cut, above)
		}
		if n < 0 {
			continue // the cut fell on the edge; draw again
		}
		if p[t.dim[n]] <= t.cut[n] {
			n = t.left[n]
		} else {
			n = t.right[n]
		}
	}
}

// split puts a new inner node in place of n, with n and a new leaf below it.
func (t *cutTree) split(n int32, p []float64, dim int32, cut float64, above bool) int32 {
	inner := t.freeN[len(t.freeN)-1]
	t.freeN = t.freeN[:len(t.freeN)-1]
	leaf := t.newLeaf(p)
	up := t.upOf(n)
	t.dim[inner], t.cut[inner], t.up[inner] = dim, cut, up
	t.left[inner], t.right[inner] = leaf, n
	if above {
		t.left[inner], t.right[inner] = n, leaf
	}
	switch {
	case up == noNode:
		t.root = inner
	case t.left[up] == n:
		t.left[up] = inner
	default:
		t.right[up] = inner
	}
	t.setUp(n, inner)
	t.setUp(leaf, inner)
	low, high := t.bounds(n)
	copy(t.lows(inner), low)
	copy(t.highs(inner), high)
	t.mass[inner] = t.massOf(n)
	t.grown(inner, p)
	return leaf
}

// grown takes a point into the boxes and masses from a node upwards.
func (t *cutTree) grown(n int32, p []float64) {
	for ; n != noNode; n = t.up[n] {
		t.mass[n]++
		low, high := t.lows(n), t.highs(n)
		for d, v := range p {
			low[d], high[d] = min(low[d], v), max(high[d], v)
		}
	}
}

// remove takes one point of a leaf out.
func (t *cutTree) remove(leaf int32) {
	i := -1 - leaf
	up := t.leafUp[i]
	if t.copies[i] > 1 {
		t.copies[i]--
		for n := up; n != noNode; n = t.up[n] {
			t.mass[n]--
		}
		return
	}
	t.copies[i] = 0
	t.freeL = append(t.freeL, i)
	if up == noNode {
		t.empty = true
		return
	}
	other := t.left[up]
	if other == leaf {
		other = t.right[up]
	}
	above := t.up[up]
	t.setUp(other, above)
	switch {
	case above == noNode:
		t.root = other
	case t.left[above] == up:
		t.left[above] = other
	default:
		t.right[above] = other
	}
	t.freeN = append(t.freeN, up)
	changed := true
	for n := above; n != noNode; n = t.up[n] {
		t.mass[n]--
		if !changed {
			continue
		}
		changed = false
		ll, lh := t.bounds(t.left[n])
		rl, rh := t.bounds(t.right[n])
		low, high := t.lows(n), t.highs(n)
		for d := range low {
			l, h := min(ll[d], rl[d]), max(lh[d], rh[d])
			if l != low[d] || h != high[d] {
				low[d], high[d] = l, h
				changed = true
			}
		}
	}
}

func (t *cutTree) push(key float64, leaf int32) {
	t.heap = append(t.heap, heapItem{key, leaf})
	for i := len(t.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if t.heap[parent].key >= t.heap[i].key {
			break
		}
		t.heap[parent], t.heap[i] = t.heap[i], t.heap[parent]
		i = parent
	}
}

func (t *cutTree) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.heap[child+1].key > t.heap[child].key {
			child++
		}
		if t.heap[i].key >= t.heap[child].key {
			return
		}
		t.heap[i], t.heap[child] = t.heap[child], t.heap[i]
		i = child
	}
}

// descend follows the cuts to a leaf; path has the inner nodes from the root.
func (t *cutTree) descend(p []float64) (leaf int32) {
	t.path = t.path[:0]
	n := t.root
	for n >= 0 {
		t.path = append(t.path, n)
		if p[t.dim[n]] <= t.cut[n] {
			n = t.left[n]
		} else {
			n = t.right[n]
		}
	}
	return n
}

func (t *cutTree) score(p []float64) float64 {
	if t.empty {
		return 0
	}
	leaf := t.descend(p)
	depth := float64(len(t.path))
	mass := float64(t.massOf(t.root))
	var s float64
	inside := slices.Equal(t.point(leaf), p)
	if inside {
		m := float64(t.copies[-1-leaf])
		s = (1 - m/(2*mass)) / (depth + math.Log2(1+m))
	} else {
		s = 1 / (depth + 1)
	}
	for i := len(t.path) - 1; i >= 0 && !inside; i-- {
		low, high := t.lows(t.path[i]), t.highs(t.path[i])
		out, sum := 0.0, 0.0
		for d, v := range p {
			l, h := low[d], high[d]
			switch {
			case v < l:
				out += l - v
				l = v
			case v > h:
				out += v - h
				h = v
			}
			sum += h - l
		}
		if out == 0 {
			break // boxes further up hold the point as well
		}
		prob := out / sum
		s = prob/float64(i+1) + (1-prob)*s
	}
	return s * math.Log2(mass+1)
}

// attribute is score, split over dimensions by the side on which the point lies.
func (t *cutTree) attribute(p, high, low []float64) {
	clear(high)
	clear(low)
	if t.empty {
		return
	}
	leaf := t.descend(p)
	depth := float64(len(t.path))
	mass := float64(t.massOf(t.root))
	point := t.point(leaf)
	inside := slices.Equal(point, p)
	if inside {
		m := float64(t.copies[-1-leaf])
		s := (1 - m/(2*mass)) / (depth + math.Log2(1+m)) / float64(2*len(p))
		for d := range p {
			high[d], low[d] = s, s
		}
	} else {
		sum := 0.0
		for d := range p {
			sum += math.Abs(p[d] - point[d])
		}
		for d := range p {
			share := math.Abs(p[d]-point[d]) / sum / (depth + 1)
			if p[d] > point[d] {
				high[d] = share
			} else {
				low[d] = share
			}
		}
	}
	for i := len(t.path) - 1; i >= 0 && !inside; i-- {
		lo, hi := t.lows(t.path[i]), t.highs(t.path[i])
		out, sum := 0.0, 0.0
		for d, v := range p {
			sum += max(hi[d], v) - min(lo[d], v)
			out += max(0, v-hi[d], lo[d]-v)
		}
		if out == 0 {
			break
		}
		prob := out / sum
		for d, v := range p {
			high[d] = max(0, v-hi[d])/sum/float64(i+1) + (1-prob)*high[d]
			low[d] = max(0, lo[d]-v)/sum/float64(i+1) + (1-prob)*low[d]
		}
	}
	scale := math.Log2(mass + 1)
	for d := range p {
		high[d] *= scale
		low[d] *= scale
	}
}

// forestFunction is RANDOM_CUT_FOREST and RANDOM_CUT_FOREST_WITH_EXPLANATION.
type forestFunction struct {
	n        *plan.TableFunction
	columns  []plan.ColumnInfo
	f        *forest
	shingle  int
	window   []float64 // the last points, oldest first
	filled   int
	explain  bool
	directed bool
	next     sink
}

func newForestFunction(c *builder, n *plan.TableFunction, columns []plan.ColumnInfo, next sink) *forestFunction {
	shingle := int(n.Args[3].I)
	seed := c.app.options.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &forestFunction{n: n, columns: columns, shingle: shingle, next: next, window: make([]float64, shingle*len(n.Numeric)),
		f:       newForest(int(n.Args[0].I), int(n.Args[1].I), shingle*len(n.Numeric), float64(n.Args[2].I), seed),
		explain: n.Name == "RANDOM_CUT_FOREST_WITH_EXPLANATION", directed: n.Args[4].I != 0}
}

func (f *forestFunction) rows(b *Batch) {
	out := &Batch{N: b.N, Time: b.Time, Sel: b.Sel}
	for i, c := range f.columns {
		if !c.Hidden {
			out.Cols = append(out.Cols, b.Cols[i])
		}
	}
	scores, texts := &Vector{}, &Vector{}
	scores.resize(plan.ClassFloat, b.N)
	if f.explain {
		texts.resize(plan.ClassString, b.N)
	}
	dims := len(f.n.Numeric)
	point := make([]float64, dims)
	zero := make([]float64, len(f.window))
	for _, i := range b.Sel {
		scores.F[i] = 0
		high, low := zero, zero
		if pointOf(point, b, f.columns, f.n.Numeric, i) {
			copy(f.window, f.window[dims:])
			copy(f.window[len(f.window)-dims:], point)
			if f.filled < f.shingle {
				f.filled++
			}
			if f.filled == f.shingle {
				if f.f.seen >= int64(f.f.sample) {
					scores.F[i] = f.f.score(f.window)
					if f.explain {
						high, low = f.f.attribution(f.window)
					}
				}
				f.f.add(f.window)
			}
		}
		if f.explain {
			texts.S[i] = f.explanation(high, low)
		}
	}
	out.Cols = append(out.Cols, scores)
	if f.explain {
		out.Cols = append(out.Cols, texts)
	}
	f.next.rows(out)
}

// explanation says for every column how much of the score it has.
func (f *forestFunction) explanation(high, low []float64) string {
	dst := []byte{'{'}
	dims := len(f.n.Numeric)
	number := func(name string, v float64) {
		dst = append(dst, `"`+name+`":"`...)
		dst = strconv.AppendFloat(dst, v, 'f', 4, 64)
		dst = append(dst, '"')
	}
	for d, c := range f.n.Numeric {
		h, l := 0.0, 0.0
		for s := range f.shingle {
			h += high[s*dims+d]
			l += low[s*dims+d]
		}
		if d > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, f.columns[c].Name), ":{"...)
		if f.directed {
			direction := "LOW"
			if h >= l && h+l > 0 {
				direction = "HIGH"
			}
			dst = append(dst, `"DIRECTION":"`+direction+`",`...)
			number("STRENGTH", math.Abs(h-l))
			dst = append(dst, ',')
		}
		number("ATTRIBUTION_SCORE", h+l)
		dst = append(dst, '}')
	}
	return string(append(dst, '}'))
}

func (f *forestFunction) bound(t int64) { f.next.bound(t) }
func (f *forestFunction) end()          { f.next.end() }
