package run

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// failure is why a row is dropped.
type failure struct {
	name    string // as in the error stream
	message string
}

func (f *failure) Error() string { return f.message }

func fail(name, format string, args ...any) error {
	return &failure{name, fmt.Sprintf(format, args...)}
}

// Names of errors.
const (
	coercionError   = "COERCION_ERROR"
	parseError      = "PARSE_ERROR"
	divideByZero    = "DIVIDE_BY_ZERO"
	lateRow         = "LATE_ROW"
	nullViolation   = "NULL_VIOLATION"
	numericOverflow = "NUMERIC_OVERFLOW"
	castError       = "CAST_ERROR"
	functionError   = "FUNCTION_ERROR"
)

// context is what evaluating needs to know besides the rows.
type context struct {
	now   func() time.Time
	start int64 // when the program began, milliseconds since 1970

	app    *Application // whose tables queries in expressions read
	params []plan.Value // in such a query, of the row outside
	nested map[*plan.Subquery]*subquery

	bad   []bool // rows of this batch that failed
	fails []rowFailure
}

type rowFailure struct {
	row int32
	failure
}

// begin gets ready for a batch.
func (x *context) begin(n int) {
	if len(x.fails) > 0 {
		clear(x.bad)
		x.fails = x.fails[:0]
	}
	if cap(x.bad) < n {
		x.bad = make([]bool, n, n+n/4)
	}
	x.bad = x.bad[:cap(x.bad)]
}

func (x *context) failed(row int32, err error) {
	if x.bad[row] {
		return
	}
	x.bad[row] = true
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{functionError, err.Error()}
	}
	x.fails = append(x.fails, rowFailure{row, *f})
}

// failure is what a row has failed for.
func (x *context) failure(row int32) error {
	for i := range x.fails {
		if f := &x.fails[i]; f.row == row {
			return &f.failure
		}
	}
	return nil
}

// good narrows a selection to the rows that have not failed.
func (x *context) good(sel []int32, spare []int32) []int32 {
	if len(x.fails) == 0 {
		return sel
	}
	spare = spare[:0]
	for _, i := range sel {
		if !x.bad[i] {
			spare = append(spare, i)
		}
	}
	return spare
}

// eval computes an expression for the selected rows of a batch. The vector has
// values at selected positions only and is valid until the next call.
type eval func(x *context, b *Batch, sel []int32) *Vector

// compile makes an evaluator.
func compile(e plan.Expr) eval {
	switch e := e.(type) {
	case *plan.Column:
		index := e.Index
		return func(_ *context, b *Batch, _ []int32) *Vector { return b.Cols[index] }
	case *plan.Rowtime:
		v := &Vector{}
		return func(_ *context, b *Batch, _ []int32) *Vector {
			v.I = b.Time
			return v
		}
	case *plan.Const:
		return compileConst(e)
	case *plan.Field:
		arg, index := compile(e.Arg), e.Index
		var out Vector
		var spare []bool
		return func(x *context, b *Batch, sel []int32) *Vector {
			v := arg(x, b, sel)
			if v.Null == nil {
				return v.R[index]
			}
			out = *v.R[index]
			member := out.Null
			null := out.nulls(&spare, b.N)
			for _, i := range sel {
				null[i] = v.Null[i] || member != nil && member[i]
			}
			return &out
		}
	case *plan.Case:
		return compileCase(e)
	case *plan.Cast:
		return compileCast(e)
	case *plan.Call:
		return compileCall(e)
	case *plan.Subquery:
		return compileSubquery(e)
	case *plan.Param:
		return compileParam(e)
	}
	panic(fmt.Sprintf("run: %T is not compiled", e))
}

func compileConst(e *plan.Const) eval {
	var out Vector
	n := 0
	class := plan.ClassOf(e.T)
	return func(_ *context, b *Batch, _ []int32) *Vector {
		if b.N <= n {
			return &out
		}
		n = b.N + b.N/4
		switch {
		case e.Value.Null:
			out.Null = make([]bool, n)
			for i := range out.Null {
				out.Null[i] = true
			}
			null := out.Null
			out.resize(class, n)
			out.Null = null
		case class == plan.ClassFloat:
			out.F = make([]float64, n)
			for i := range out.F {
				out.F[i] = e.Value.F
			}
		case class == plan.ClassString:
			out.S = make([]string, n)
			for i := range out.S {
				out.S[i] = e.Value.S
			}
		default:
			out.I = make([]int64, n)
			for i := range out.I {
				out.I[i] = e.Value.I
			}
		}
		return &out
	}
}

// compileCase evaluates every branch for the rows that reach it only.
func compileCase(e *plan.Case) eval {
	type branch struct{ cond, result eval }
	var branches []branch
	for _, w := range e.Whens {
		branches = append(branches, branch{compile(w.Condition), compile(w.Result)})
	}
	otherwise := compile(e.Else)
	class := plan.ClassOf(e.T)
	out := newScatter(e.T)
	var taken, left, next []int32
	return func(x *context, b *Batch, sel []int32) *Vector {
		out.begin(class, b.N)
		left = append(left[:0], sel...)
		for _, w := range branches {
			if len(left) == 0 {
				break
			}
			c := w.cond(x, b, left)
			taken, next = taken[:0], next[:0]
			for _, i := range left {
				switch {
				case x.bad[i]:
				case !c.null(i) && c.I[i] != 0:
					taken = append(taken, i)
				default:
					next = append(next, i)
				}
			}
			if len(taken) > 0 {
				out.put(class, b.N, w.result(x, b, taken), taken)
			}
			left, next = next, left
		}
		if len(left) > 0 {
			out.put(class, b.N, otherwise(x, b, left), left)
		}
		return &out.Vector
	}
}

// scatter collects values for parts of a batch.
type scatter struct {
	Vector
	t     sql.Type
	spare []bool
}

func newScatter(t sql.Type) *scatter { return &scatter{t: t} }

func (s *scatter) begin(class plan.Class, n int) { s.resize(class, n) }

func (s *scatter) put(class plan.Class, n int, v *Vector, sel []int32) {
	if v.Null != nil {
		for _, i := range sel {
			if v.Null[i] {
				if s.Null == nil {
					s.nulls(&s.spare, n)
				}
				s.Null[i] = true
			}
		}
	}
	switch class {
	case plan.ClassInt:
		for _, i := range sel {
			s.I[i] = v.I[i]
		}
	case plan.ClassFloat:
		for _, i := range sel {
			s.F[i] = v.F[i]
		}
	case plan.ClassString:
		for _, i := range sel {
			s.S[i] = v.S[i]
		}
	}
}

// lift makes an evaluator from a function of single values. Unless nullable is
// set, a null argument makes the result null without a call.
func lift(e *plan.Call, nullable bool, f func(x *context, args []plan.Value) (plan.Value, error)) eval {
	args := make([]eval, len(e.Args))
	types := make([]sql.Type, len(e.Args))
	for i, a := range e.Args {
		args[i], types[i] = compile(a), a.Type()
	}
	return liftArgs(args, types, e.T, nullable, f)
}

func liftArgs(args []eval, types []sql.Type, t sql.Type, nullable bool, f func(x *context, args []plan.Value) (plan.Value, error)) eval {
	class := plan.ClassOf(t)
	if class == plan.ClassRow {
		return liftRow(args, types, t, f)
	}
	var out Vector
	var spare []bool
	vectors := make([]*Vector, len(args))
	values := make([]plan.Value, len(args))
	return func(x *context, b *Batch, sel []int32) *Vector {
		for i, a := range args {
			vectors[i] = a(x, b, sel)
		}
		out.resize(class, b.N)
		setNull := func(i int32) {
			if out.Null == nil {
				out.nulls(&spare, b.N)
			}
			out.Null[i] = true
		}
	rows:
		for _, i := range sel {
			if x.bad[i] {
				continue
			}
			for j, v := range vectors {
				values[j] = v.at(&types[j], i)
				if values[j].Null && !nullable {
					setNull(i)
					continue rows
				}
			}
			r, err := f(x, values)
			if err != nil {
				x.failed(i, err)
				continue
			}
			if r.Null {
				setNull(i)
				continue
			}
			switch class {
			case plan.ClassInt:
				out.I[i] = r.I
			case plan.ClassFloat:
				out.F[i] = r.F
			default:
				out.S[i] = r.S
			}
		}
		return &out
	}
}

// liftRow is liftArgs for functions that return rows.
func liftRow(args []eval, types []sql.Type, t sql.Type, f func(x *context, args []plan.Value) (plan.Value, error)) eval {
	vectors := make([]*Vector, len(args))
	values := make([]plan.Value, len(args))
	return func(x *context, b *Batch, sel []int32) *Vector {
		for i, a := range args {
			vectors[i] = a(x, b, sel)
		}
		out := &Vector{R: make([]*Vector, len(t.Fields))}
		for m, field := range t.Fields {
			out.R[m] = &Vector{}
			out.R[m].resize(plan.ClassOf(field.Type), b.N)
			out.R[m].Null = make([]bool, b.N)
		}
	rows:
		for _, i := range sel {
			if x.bad[i] {
				continue
			}
			var r plan.Value
			for j, v := range vectors {
				values[j] = v.at(&types[j], i)
				if values[j].Null {
					for m := range t.Fields {
						out.R[m].Null[i] = true
					}
					continue rows
				}
			}
			r, err := f(x, values)
			if err != nil {
				x.failed(i, err)
				continue
			}
			for m, field := range t.Fields {
				if r.Null || r.Row[m].Null {
					out.R[m].Null[i] = true
					continue
				}
				switch plan.ClassOf(field.Type) {
				case plan.ClassInt:
					out.R[m].I[i] = r.Row[m].I
				case plan.ClassFloat:
					out.R[m].F[i] = r.Row[m].F
				case plan.ClassString:
					out.R[m].S[i] = r.Row[m].S
				}
			}
		}
		return out
	}
}

// pair evaluates two arguments and says where one of them is null.
type pair struct {
	left, right eval
	out         Vector
	spare       []bool
}

func newPair(args []plan.Expr) *pair { return &pair{left: compile(args[0]), right: compile(args[1])} }

func (p *pair) eval(x *context, b *Batch, sel []int32) (l, r *Vector) {
	l, r = p.left(x, b, sel), p.right(x, b, sel)
	p.out.Null = nil
	if l.Null != nil || r.Null != nil {
		null := p.out.nulls(&p.spare, b.N)
		for _, i := range sel {
			null[i] = l.null(i) || r.null(i)
		}
	}
	return l, r
}

// resize keeps the nulls that eval found.
func (p *pair) resize(class plan.Class, n int) {
	null := p.out.Null
	p.out.resize(class, n)
	p.out.Null = null
}

func intLimits(k sql.Kind) (low, high int64) {
	switch k {
	case sql.KindTinyint:
		return math.MinInt8, math.MaxInt8
	case sql.KindSmallint:
		return math.MinInt16, math.MaxInt16
	case sql.KindInteger:
		return math.MinInt32, math.MaxInt32
	}
	return math.MinInt64, math.MaxInt64
}

func isInteger(k sql.Kind) bool { return k >= sql.KindTinyint && k <= sql.KindBigint }

func overflow(t sql.Type) error {
	return fail(numericOverflow, "the result does not fit into %s", t)
}

// compileArithmetic is + - * / on two integers or two doubles.
func compileArithmetic(e *plan.Call) eval {
	p := newPair(e.Args)
	if e.T.Kind == sql.KindDouble || e.T.Kind == sql.KindReal {
		return func(x *context, b *Batch, sel []int32) *Vector {
			l, r := p.eval(x, b, sel)
			p.resize(plan.ClassFloat, b.N)
			out := p.out.F
			switch e.Func {
			case "+":
				for _, i := range sel {
					out[i] = l.F[i] + r.F[i]
				}
			case "-":
				for _, i := range sel {
					out[i] = l.F[i] - r.F[i]
				}
			case "*":
				for _, i := range sel {
					out[i] = l.F[i] * r.F[i]
				}
			default:
				for _, i := range sel {
					if r.F[i] == 0 && !p.out.null(i) {
						x.failed(i, fail(divideByZero, "division by zero"))
						continue
					}
					out[i] = l.F[i] / r.F[i]
				}
			}
			for _, i := range sel {
				// What is not finite now and was before has become too large.
				if out[i]-out[i] != 0 && !p.out.null(i) && !x.bad[i] && l.F[i]-l.F[i] == 0 && r.F[i]-r.F[i] == 0 {
					x.failed(i, overflow(e.T))
				}
			}
			return &p.out
		}
	}
	low, high := intLimits(e.T.Kind)
	return func(x *context, b *Batch, sel []int32) *Vector {
		l, r := p.eval(x, b, sel)
		p.resize(plan.ClassInt, b.N)
		out := p.out.I
		for _, i := range sel {
			if p.out.null(i) {
				continue
			}
			a, c := l.I[i], r.I[i]
			var v int64
			ok := true
			switch e.Func {
			case "+":
				v = a + c
				ok = (v > a) == (c > 0)
			case "-":
				v = a - c
				ok = (v < a) == (c > 0)
			case "*":
				v = a * c
				ok = a == 0 || v/a == c && !(a == -1 && c == math.MinInt64)
			default:
				if c == 0 {
					x.failed(i, fail(divideByZero, "division by zero"))
					continue
				}
				v = a / c
				ok = !(a == math.MinInt64 && c == -1)
			}
			if !ok || v < low || v > high {
				x.failed(i, overflow(e.T))
				continue
			}
			out[i] = v
		}
		return &p.out
	}
}

// compileCompare is = <> < <= > >= on operands of one class.
func compileCompare(e *plan.Call) eval {
	p := newPair(e.Args)
	lt, rt := e.Args[0].Type(), e.Args[1].Type()
	var less, equal, greater int64
	switch e.Func {
	case "=":
		equal = 1
	case "<>":
		less, greater = 1, 1
	case "<":
		less = 1
	case "<=":
		less, equal = 1, 1
	case ">":
		greater = 1
	case ">=":
		greater, equal = 1, 1
	}
	class := plan.ClassOf(lt)
	if ls, rs := scaleOf(lt), scaleOf(rt); ls != rs {
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			switch compareScaled(args[0].I, ls, args[1].I, rs) {
			case -1:
				return plan.Value{I: less}, nil
			case 0:
				return plan.Value{I: equal}, nil
			}
			return plan.Value{I: greater}, nil
		})
	}
	padded := lt.Kind == sql.KindChar || rt.Kind == sql.KindChar
	return func(x *context, b *Batch, sel []int32) *Vector {
		l, r := p.eval(x, b, sel)
		p.resize(plan.ClassInt, b.N)
		out := p.out.I
		switch class {
		case plan.ClassInt:
			for _, i := range sel {
				switch a, c := l.I[i], r.I[i]; {
				case a < c:
					out[i] = less
				case a > c:
					out[i] = greater
				default:
					out[i] = equal
				}
			}
		case plan.ClassFloat:
			for _, i := range sel {
				switch a, c := l.F[i], r.F[i]; {
				case a < c:
					out[i] = less
				case a > c:
					out[i] = greater
				default:
					out[i] = equal
				}
			}
		default:
			for _, i := range sel {
				if p.out.null(i) {
					continue
				}
				a, c := l.S[i], r.S[i]
				if padded {
					a, c = trimRight(a), trimRight(c)
				}
				switch {
				case a < c:
					out[i] = less
				case a > c:
					out[i] = greater
				default:
					out[i] = equal
				}
			}
		}
		return &p.out
	}
}

func scaleOf(t sql.Type) int {
	if t.Kind == sql.KindDecimal {
		return t.Scale
	}
	return 0
}

// compareScaled compares decimals of different scales.
func compareScaled(a int64, as int, b int64, bs int) int {
	if as > bs {
		return -compareScaled(b, bs, a, as)
	}
	high, low := bits.Mul64(uint64(max(a, -a)), uint64(pow10(bs-as)))
	var c int
	switch m := uint64(max(b, -b)); {
	case (a < 0) != (b < 0):
		if c = 1; a < 0 {
			c = -1
		}
		return c
	case high > 0 || low > m:
		c = 1
	case low < m:
		c = -1
	}
	if a < 0 {
		c = -c
	}
	return c
}

func trimRight(s string) string {
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}

// compileLogic is AND and OR. The right side is evaluated where the left does not
// decide.
func compileLogic(e *plan.Call) eval {
	left, right := compile(e.Args[0]), compile(e.Args[1])
	decides := int64(0) // FALSE decides AND
	if e.Func == "or" {
		decides = 1
	}
	var out Vector
	var spare []bool
	var open []int32
	return func(x *context, b *Batch, sel []int32) *Vector {
		l := left(x, b, sel)
		out.resize(plan.ClassInt, b.N)
		open = open[:0]
		anyNull := l.Null != nil
		for _, i := range sel {
			if !l.null(i) && l.I[i] == decides {
				out.I[i] = decides
			} else {
				open = append(open, i)
			}
		}
		if len(open) == 0 {
			return &out
		}
		// The right side may be the same evaluator's memory as the left; l is not
		// looked at any more where it has been copied.
		lnull := make([]bool, 0)
		if anyNull {
			lnull = append(lnull, l.Null[:b.N]...)
		}
		r := right(x, b, open)
		for _, i := range open {
			ln := anyNull && lnull[i]
			switch {
			case !r.null(i) && r.I[i] == decides:
				out.I[i] = decides
			case ln || r.null(i):
				if out.Null == nil {
					out.nulls(&spare, b.N)
				}
				out.Null[i] = true
			default:
				out.I[i] = 1 - decides
			}
		}
		return &out
	}
}
