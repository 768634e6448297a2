package run

import (
	"math"

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
	reset()
	// saveGroup writes a group; loadGroup reads one and appends it.
	saveGroup(e *encoder, g int)
	loadGroup(d *decoder)
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
			return &extreme[string]{sign: sign, of: func(v *Vector) []string { return v.S }, value: func(s string) plan.Value { return plan.Value{S: s} }}
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
	var zero T
	for len(s) < n {
		s = append(s, zero)
	}
	return s
}

type countState struct{ n []int64 }

func (s *countState) grow(n int) { s.n = grown(s.n, n) }
func (s *countState) reset()     { s.n = s.n[:0] }
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

// intSum adds integers and decimals; over is the part above 64 bits.
type intSum struct {
	t    sql.Type
	avg  bool
	sum  []int64
	over []int64
	n    []int64
}

func (s *intSum) grow(n int) { s.sum, s.over, s.n = grown(s.sum, n), grown(s.over, n), grown(s.n, n) }
func (s *intSum) reset()     { s.sum, s.over, s.n = s.sum[:0], s.over[:0], s.n[:0] }
func (s *intSum) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if v.null(i) {
			continue
		}
		g, x := ids[i], v.I[i]
		old := s.sum[g]
		sum := old + x
		if x > 0 && sum < old {
			s.over[g]++
		} else if x < 0 && sum > old {
			s.over[g]--
		}
		s.sum[g] = sum
		s.n[g]++
	}
}

func (s *intSum) result(g int, _ int64) (plan.Value, error) {
	if s.n[g] == 0 {
		return plan.Value{Null: true}, nil
	}
	v := s.sum[g]
	if s.avg {
		return plan.Value{I: meanOf(s.over[g], v, s.n[g])}, nil
	}
	if s.over[g] != 0 {
		return plan.Value{}, overflow(s.t)
	}
	if isInteger(s.t.Kind) {
		if low, high := intLimits(s.t.Kind); v < low || v > high {
			return plan.Value{}, overflow(s.t)
		}
		return plan.Value{I: v}, nil
	}
	return checkedDecimal(v, s.t)
}

// floatSum adds with a running compensation for what rounding loses.
type floatSum struct {
	t    sql.Type
	avg  bool
	sum  []float64
	lost []float64
	n    []int64
}

func (s *floatSum) grow(n int) { s.sum, s.lost, s.n = grown(s.sum, n), grown(s.lost, n), grown(s.n, n) }
func (s *floatSum) reset()     { s.sum, s.lost, s.n = s.sum[:0], s.lost[:0], s.n[:0] }
func (s *floatSum) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if v.null(i) {
			continue
		}
		g := ids[i]
		s.sum[g], s.lost[g] = compensated(s.sum[g], s.lost[g], v.F[i])
		s.n[g]++
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

func (s *floatSum) result(g int, _ int64) (plan.Value, error) {
	if s.n[g] == 0 {
		return plan.Value{Null: true}, nil
	}
	v, err := floatResult(total(s.sum[g], s.lost[g]), s.n[g], s.avg, s.t)
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
	best  []T
	any   []bool
}

func (s *extreme[T]) grow(n int) { s.best, s.any = grown(s.best, n), grown(s.any, n) }
func (s *extreme[T]) reset()     { s.best, s.any = s.best[:0], s.any[:0] }
func (s *extreme[T]) add(ids, sel []int32, v *Vector, _ []int64) {
	values := s.of(v)
	for _, i := range sel {
		if v.null(i) {
			continue
		}
		g := ids[i]
		if !s.any[g] || s.sign > 0 && values[i] < s.best[g] || s.sign < 0 && values[i] > s.best[g] {
			s.best[g], s.any[g] = values[i], true
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

func (s *variance) grow(n int) { s.m = grown(s.m, n) }
func (s *variance) reset()     { s.m = s.m[:0] }
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

func (s *truth) grow(n int) { s.yes, s.n = grown(s.yes, n), grown(s.n, n) }
func (s *truth) reset()     { s.yes, s.n = s.yes[:0], s.n[:0] }
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

func (s *firstLast) grow(n int) { s.value, s.any = grown(s.value, n), grown(s.any, n) }
func (s *firstLast) reset()     { s.value, s.any = s.value[:0], s.any[:0] }
func (s *firstLast) add(ids, sel []int32, v *Vector, _ []int64) {
	for _, i := range sel {
		if g := ids[i]; s.last || !s.any[g] {
			s.value[g], s.any[g] = v.at(&s.t, i), true
		}
	}
}
func (s *firstLast) result(g int, _ int64) (plan.Value, error) {
	if !s.any[g] {
		return plan.Value{Null: true}, nil
	}
	return s.value[g], nil
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

func (s *expAvg) grow(n int) { s.d = grown(s.d, n) }
func (s *expAvg) reset()     { s.d = s.d[:0] }
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
	s.seen = s.seen[:0]
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
			s.seen[g][k] = true
			s.sel = append(s.sel, i)
		}
	}
	s.inner.add(ids, s.sel, v, times)
}
func (s *distinctState) result(g int, at int64) (plan.Value, error) { return s.inner.result(g, at) }
