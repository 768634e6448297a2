package run

import (
	"math"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// state is an aggregate over many groups.
type state interface {
	// grow makes room for n groups.
	grow(n int)
	// add takes the values of rows into their groups; v is nil for COUNT(*).
	add(ids []int32, sel []int32, v *Vector, times []int64)
	// result is the value of a group at an instant.
	result(group int, at int64) (plan.Value, error)
	// reset forgets all groups.
	reset()
	// wipe has a group begin anew.
	wipe(group int)
	// pick numbers the groups anew; old has the former number of each.
	pick(old []int32)
	// saveGroup writes a group; loadGroup reads one and appends it.
	saveGroup(e *encoder, g int)
	loadGroup(d *decoder)
}

// newStates makes the aggregates of a query and the evaluators of their arguments;
// those without one, or that another aggregate computes already, have none.
func newStates(aggs []plan.Agg) (args []eval, states []state) {
	sums := map[string]state{}
	for _, agg := range aggs {
		if agg.Arg == nil {
			args, states = append(args, nil), append(states, newState(agg))
			continue
		}
		s := newState(agg)
		key := ""
		switch s.(type) {
		case *intSum, *floatSum:
			key = plan.Key(agg.Arg)
		}
		if of := sums[key]; key != "" && of != nil {
			args, states = append(args, nil), append(states, &sameSum{of: of, agg: s})
			continue
		}
		sums[key] = s
		args, states = append(args, compile(agg.Arg)), append(states, s)
	}
	return args, states
}

// sameSum is a SUM or AVG whose argument another one adds up.
type sameSum struct{ of, agg state }

func (s *sameSum) grow(int)                               {}
func (s *sameSum) add(_, _ []int32, _ *Vector, _ []int64) {}
func (s *sameSum) reset()                                 {}
func (s *sameSum) wipe(int)                               {}
func (s *sameSum) saveGroup(*encoder, int)                {}
func (s *sameSum) loadGroup(*decoder)                     {}
func (s *sameSum) pick([]int32)                           {}
func (s *sameSum) result(g int, at int64) (plan.Value, error) {
	switch agg := s.agg.(type) {
	case *intSum:
		return s.of.(*intSum).cells[g].value(agg.t, agg.avg)
	case *floatSum:
		return agg.value(&s.of.(*floatSum).cells[g])
	}
	panic("run: there is no such sum")
}

func newState(a plan.Agg) state {
	if a.Distinct && a.Func != "min" && a.Func != "max" {
		inner := a
		inner.Distinct = false
		return &distinctState{inner: newState(inner), t: a.Arg.Type()}
	}
	var class plan.Class
	if a.Arg != nil {
		class = plan.ClassOf(a.Arg.Type())
	}
	switch a.Func {
	case "count":
		return &countState{}
	case "sum":
		if class == plan.ClassFloat {
			return &floatSum{t: a.T}
		}
		return &intSum{t: a.T}
	case "avg":
		if class == plan.ClassFloat {
			return &floatSum{t: a.T, avg: true}
		}
		return &intSum{t: a.T, avg: true}
	case "min", "max":
		sign := 1
		if a.Func == "max" {
			sign = -1
		}
		switch class {
		case plan.ClassFloat:
			return &extreme[float64]{sign: sign, of: func(v *Vector) []float64 { return v.F }, value: func(f float64) plan.Value { return plan.Value{F: f} }}
		case plan.ClassString:
			return &extreme[string]{sign: sign, own: strings.Clone, of: func(v *Vector) []string { return v.S }, value: func(s string) plan.Value { return plan.Value{S: s} }}
		}
		return &extreme[int64]{sign: sign, of: func(v *Vector) []int64 { return v.I }, value: func(i int64) plan.Value { return plan.Value{I: i} }}
	case "stddev_pop", "stddev_samp", "var_pop", "var_samp":
		return &variance{name: a.Func}
	case "any", "every":
		return &truth{every: a.Func == "every"}
	case "first_value", "last_value":
		return &firstLast{t: a.Arg.Type(), last: a.Func == "last_value"}
	case "exp_avg":
		return &expAvg{halfLife: float64(a.HalfLife)}
	}
	panic("run: there is no aggregate " + a.Func)
}

func grown[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	return append(s, make([]T, n-len(s))...)
}

// emptied is a slice without elements, which keeps its room unless that is large.
func emptied[T any](s []T) []T {
	if cap(s) > 1<<16 {
		return nil
	}
	clear(s)
	return s[:0]
}

func picked[T any](s []T, old []int32) []T {
	list := make([]T, len(old), len(old)+len(old)/4)
	for i, from := range old {
		list[i] = s[from]
	}
	return list
}

type countState struct{ n []int64 }

func (s *countState) grow(n int)       { s.n = grown(s.n, n) }
func (s *countState) reset()           { s.n = emptied(s.n) }
func (s *countState) wipe(g int)       { s.n[g] = 0 }
func (s *countState) pick(old []int32) { s.n = picked(s.n, old) }
func (s *countState) add(ids, sel []int32, v *Vector, _ []int64) {
	if v == nil || v.Null == nil {
		for _, i := range sel {
			s.n[ids[i]]++
		}
		return
	}
	for _, i := range sel {
		if !v.Null[i] {
			s.n[ids[i]]++
		}
	}
}
func (s *countState) result(g int, _ int64) (plan.Value, error) { return plan.Value{I: s.n[g]}, nil }

// intSum adds integers and decimals.
type intSum struct {
	t     sql.Type
	avg   bool
	cells []intCell
}

// intCell is a sum; over is the part above 64 bits.
type intCell struct{ sum, over, n int64 }

func (s *intSum) grow(n int)       { s.cells = grown(s.cells, n) }
func (s *intSum) reset()           { s.cells = emptied(s.cells) }
func (s *intSum) wipe(g int)       { s.cells[g] = intCell{} }
func (s *intSum) pick(old []int32) { s.cells = picked(s.cells, old) }
func (s *intSum) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if v.null(i) {
			continue
		}
		c := &s.cells[ids[i]]
		c.add(v.I[i])
		c.n++
	}
}

func (c *intCell) add(x int64) {
	sum := c.sum + x
	if x > 0 && sum < c.sum {
		c.over++
	} else if x < 0 && sum > c.sum {
		c.over--
	}
	c.sum = sum
}

func (c *intCell) remove(x int64) {
	sum := c.sum - x
	if x < 0 && sum < c.sum {
		c.over++
	} else if x > 0 && sum > c.sum {
		c.over--
	}
	c.sum = sum
}

func (s *intSum) result(g int, _ int64) (plan.Value, error) { return s.cells[g].value(s.t, s.avg) }

// value is the sum, or the average, in a type.
func (c *intCell) value(t sql.Type, avg bool) (plan.Value, error) {
	if c.n == 0 {
		return plan.Value{Null: true}, nil
	}
	if avg {
		return plan.Value{I: meanOf(c.over, c.sum, c.n)}, nil
	}
	if c.over != 0 {
		return plan.Value{}, overflow(t)
	}
	if isInteger(t.Kind) {
		if low, high := intLimits(t.Kind); c.sum < low || c.sum > high {
			return plan.Value{}, overflow(t)
		}
		return plan.Value{I: c.sum}, nil
	}
	return checkedDecimal(c.sum, t)
}

// floatSum adds floating-point numbers.
type floatSum struct {
	t     sql.Type
	avg   bool
	cells []floatCell
}

// floatCell is a sum with a running compensation for what rounding loses.
type floatCell struct {
	sum, lost float64
	n         int64
}

func (s *floatSum) grow(n int)       { s.cells = grown(s.cells, n) }
func (s *floatSum) reset()           { s.cells = emptied(s.cells) }
func (s *floatSum) wipe(g int)       { s.cells[g] = floatCell{} }
func (s *floatSum) pick(old []int32) { s.cells = picked(s.cells, old) }
func (s *floatSum) add(ids, sel []int32, v *Vector, _ []int64) {
	if v.Null == nil {
		for _, i := range sel {
			c := &s.cells[ids[i]]
			c.sum, c.lost = compensated(c.sum, c.lost, v.F[i])
			c.n++
		}
		return
	}
	for _, i := range sel {
		if v.Null[i] {
			continue
		}
		c := &s.cells[ids[i]]
		c.sum, c.lost = compensated(c.sum, c.lost, v.F[i])
		c.n++
	}
}

// compensated adds x to a sum whose lost part is kept beside it.
func compensated(sum, lost, x float64) (float64, float64) {
	t := sum + x
	if math.Abs(sum) >= math.Abs(x) {
		lost += (sum - t) + x
	} else {
		lost += (x - t) + sum
	}
	return t, lost
}

func (s *floatSum) result(g int, _ int64) (plan.Value, error) { return s.value(&s.cells[g]) }

func (s *floatSum) value(c *floatCell) (plan.Value, error) {
	if c.n == 0 {
		return plan.Value{Null: true}, nil
	}
	v, err := floatResult(total(c.sum, c.lost), c.n, s.avg, s.t)
	return plan.Value{F: v}, err
}

// total is a compensated sum; infinities have no compensation.
func total(sum, lost float64) float64 {
	if v := sum + lost; !math.IsNaN(v) {
		return v
	}
	return sum
}

type extreme[T int64 | float64 | string] struct {
	sign  int
	of    func(v *Vector) []T
	value func(T) plan.Value
	own   func(T) T // nil if values can be kept as they are
	best  []T
	any   []bool
}

func (s *extreme[T]) grow(n int) { s.best, s.any = grown(s.best, n), grown(s.any, n) }
func (s *extreme[T]) reset()     { s.best, s.any = emptied(s.best), emptied(s.any) }
func (s *extreme[T]) wipe(g int) {
	var none T
	s.best[g], s.any[g] = none, false
}
func (s *extreme[T]) pick(old []int32) { s.best, s.any = picked(s.best, old), picked(s.any, old) }
func (s *extreme[T]) add(ids, sel []int32, v *Vector, _ []int64) {
	values := s.of(v)
	for _, i := range sel {
		if v.null(i) {
			continue
		}
		g := ids[i]
		if !s.any[g] || s.sign > 0 && values[i] < s.best[g] || s.sign < 0 && values[i] > s.best[g] {
			s.best[g], s.any[g] = values[i], true
			if s.own != nil {
				s.best[g] = s.own(values[i])
			}
		}
	}
}
func (s *extreme[T]) result(g int, _ int64) (plan.Value, error) {
	if !s.any[g] {
		return plan.Value{Null: true}, nil
	}
	return s.value(s.best[g]), nil
}

// moments are those of Welford's method, which rows can also leave.
type moments struct {
	n    int64
	mean float64
	m2   float64
}

func (m *moments) add(x float64) {
	m.n++
	d := x - m.mean
	m.mean += d / float64(m.n)
	m.m2 += d * (x - m.mean)
}

func (m *moments) remove(x float64) {
	if m.n--; m.n == 0 {
		*m = moments{}
		return
	}
	d := x - m.mean
	m.mean -= d / float64(m.n)
	m.m2 = max(m.m2-d*(x-m.mean), 0)
}

func (m *moments) result(name string) plan.Value {
	n := float64(m.n)
	if name == "var_samp" || name == "stddev_samp" {
		n--
	}
	if m.n == 0 || n <= 0 {
		return plan.Value{Null: true}
	}
	v := m.m2 / n
	if name == "stddev_pop" || name == "stddev_samp" {
		v = math.Sqrt(v)
	}
	return plan.Value{F: v}
}

type variance struct {
	name string
	m    []moments
}

func (s *variance) grow(n int)       { s.m = grown(s.m, n) }
func (s *variance) reset()           { s.m = emptied(s.m) }
func (s *variance) wipe(g int)       { s.m[g] = moments{} }
func (s *variance) pick(old []int32) { s.m = picked(s.m, old) }
func (s *variance) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if !v.null(i) {
			s.m[ids[i]].add(v.F[i])
		}
	}
}
func (s *variance) result(g int, _ int64) (plan.Value, error) { return s.m[g].result(s.name), nil }

// truth is ANY and EVERY.
type truth struct {
	every  bool
	yes, n []int64
}

func (s *truth) grow(n int)       { s.yes, s.n = grown(s.yes, n), grown(s.n, n) }
func (s *truth) reset()           { s.yes, s.n = emptied(s.yes), emptied(s.n) }
func (s *truth) wipe(g int)       { s.yes[g], s.n[g] = 0, 0 }
func (s *truth) pick(old []int32) { s.yes, s.n = picked(s.yes, old), picked(s.n, old) }
func (s *truth) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if !v.null(i) {
			s.n[ids[i]]++
			s.yes[ids[i]] += v.I[i]
		}
	}
}
func (s *truth) result(g int, _ int64) (plan.Value, error) {
	if s.n[g] == 0 {
		return plan.Value{Null: true}, nil
	}
	v := plan.Value{}
	if s.every && s.yes[g] == s.n[g] || !s.every && s.yes[g] > 0 {
		v.I = 1
	}
	return v, nil
}

type firstLast struct {
	t     sql.Type
	last  bool
	value []plan.Value
	any   []bool
}

func (s *firstLast) grow(n int)       { s.value, s.any = grown(s.value, n), grown(s.any, n) }
func (s *firstLast) reset()           { s.value, s.any = emptied(s.value), emptied(s.any) }
func (s *firstLast) wipe(g int)       { s.value[g], s.any[g] = plan.Value{}, false }
func (s *firstLast) pick(old []int32) { s.value, s.any = picked(s.value, old), picked(s.any, old) }
func (s *firstLast) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if g := ids[i]; s.last || !s.any[g] {
			s.value[g], s.any[g] = kept(v.at(&s.t, i)), true
		}
	}
}
func (s *firstLast) result(g int, _ int64) (plan.Value, error) {
	if !s.any[g] {
		return plan.Value{Null: true}, nil
	}
	return s.value[g], nil
}

// kept is a value whose texts are its own.
func kept(v plan.Value) plan.Value {
	v.S = strings.Clone(v.S)
	for i := range v.Row {
		v.Row[i] = kept(v.Row[i])
	}
	return v
}

// decayed is a weighted mean whose weights halve with age.
type decayed struct {
	sum, weight float64
	at          int64
	n           int64
}

// fade is what becomes of a weight of one until t.
func (d *decayed) fade(t int64, halfLife float64) float64 {
	if d.n == 0 || t == d.at {
		return 1
	}
	return math.Exp2(-float64(t-d.at) / halfLife)
}

func (d *decayed) move(t int64, halfLife float64) {
	f := d.fade(t, halfLife)
	d.sum *= f
	d.weight *= f
	d.at = t
}

func (d *decayed) add(x float64, t int64, halfLife float64) {
	d.move(t, halfLife)
	d.sum += x
	d.weight++
	d.n++
}

func (d *decayed) remove(x float64, t int64, halfLife float64) {
	if d.n--; d.n == 0 {
		*d = decayed{}
		return
	}
	f := math.Exp2(-float64(d.at-t) / halfLife)
	d.sum -= x * f
	d.weight -= f
}

func (d *decayed) result() plan.Value {
	if d.n == 0 || d.weight <= 0 {
		return plan.Value{Null: true}
	}
	return plan.Value{F: d.sum / d.weight}
}

type expAvg struct {
	halfLife float64
	d        []decayed
}

func (s *expAvg) grow(n int)       { s.d = grown(s.d, n) }
func (s *expAvg) reset()           { s.d = emptied(s.d) }
func (s *expAvg) wipe(g int)       { s.d[g] = decayed{} }
func (s *expAvg) pick(old []int32) { s.d = picked(s.d, old) }
func (s *expAvg) add(ids, sel []int32, v *Vector, times []int64) {
	for _, i := range sel {
		if !v.null(i) {
			s.d[ids[i]].add(v.F[i], times[i], s.halfLife)
		}
	}
}
func (s *expAvg) result(g int, _ int64) (plan.Value, error) { return s.d[g].result(), nil }

// distinctState lets each value of a group through once.
type distinctState struct {
	inner state
	t     sql.Type
	seen  []map[distinctKey]bool
	sel   []int32
}

type distinctKey struct {
	i int64
	s string
}

func keyOf(v plan.Value, t sql.Type) distinctKey {
	if plan.ClassOf(t) == plan.ClassFloat {
		return distinctKey{i: int64(math.Float64bits(v.F + 0))}
	}
	if t.Kind == sql.KindChar {
		v.S = trimRight(v.S)
	}
	return distinctKey{v.I, v.S}
}

func (s *distinctState) grow(n int) {
	s.inner.grow(n)
	s.seen = grown(s.seen, n)
}
func (s *distinctState) reset() {
	s.inner.reset()
	s.seen = emptied(s.seen)
}
func (s *distinctState) wipe(g int) {
	s.inner.wipe(g)
	s.seen[g] = nil
}
func (s *distinctState) pick(old []int32) {
	s.inner.pick(old)
	s.seen = picked(s.seen, old)
}
func (s *distinctState) add(ids, sel []int32, v *Vector, times []int64) {
	s.sel = s.sel[:0]
	for _, i := range sel {
		if v.null(i) {
			continue
		}
		g, k := ids[i], keyOf(v.at(&s.t, i), s.t)
		if s.seen[g] == nil {
			s.seen[g] = map[distinctKey]bool{}
		}
		if !s.seen[g][k] {
			k.s = strings.Clone(k.s)
			s.seen[g][k] = true
			s.sel = append(s.sel, i)
		}
	}
	s.inner.add(ids, s.sel, v, times)
}
func (s *distinctState) result(g int, at int64) (plan.Value, error) { return s.inner.result(g, at) }
