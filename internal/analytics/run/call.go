package run

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/analytics/text"
)

// compileCall makes the evaluator of a function or operator.
func compileCall(e *plan.Call) eval {
	switch e.Func {
	case "+", "-", "*", "/":
		return compileOperator(e)
	case "=", "<>", "<", "<=", ">", ">=":
		return compileCompare(e)
	case "and", "or":
		return compileLogic(e)
	case "not":
		arg := compile(e.Args[0])
		var out Vector
		return func(x *context, b *Batch, sel []int32) *Vector {
			v := arg(x, b, sel)
			out.resize(plan.ClassInt, b.N)
			out.Null = v.Null
			for _, i := range sel {
				out.I[i] = 1 - v.I[i]
			}
			return &out
		}
	case "is_null", "is_true", "is_false":
		return compileIs(e)
	case "is_distinct":
		equal := compileCompare(&plan.Call{Func: "=", Args: e.Args, T: e.T})
		l, r := e.Args[0], e.Args[1]
		lnull := compileIs(&plan.Call{Func: "is_null", Args: []plan.Expr{l}, T: e.T})
		rnull := compileIs(&plan.Call{Func: "is_null", Args: []plan.Expr{r}, T: e.T})
		var out Vector
		return func(x *context, b *Batch, sel []int32) *Vector {
			eq, ln, rn := equal(x, b, sel), lnull(x, b, sel), rnull(x, b, sel)
			out.resize(plan.ClassInt, b.N)
			for _, i := range sel {
				switch {
				case ln.I[i]+rn.I[i] == 2:
					out.I[i] = 0
				case ln.I[i]+rn.I[i] == 1:
					out.I[i] = 1
				default:
					out.I[i] = 1 - eq.I[i]
				}
			}
			return &out
		}
	case "monotonic":
		return compile(e.Args[0])
	case "floor_to", "ceil_to", "step":
		return compileTruncate(e)
	case "coalesce":
		return compileCoalesce(e)
	case "like", "similar":
		return compilePattern(e)
	}
	if f := logParser(e); f != nil {
		return f
	}
	if f := scalar(e); f != nil {
		return f
	}
	panic("run: there is no function " + e.Func)
}

// compileCoalesce computes every argument for the rows only that those before it
// left without a value.
func compileCoalesce(e *plan.Call) eval {
	var args []eval
	for _, a := range e.Args {
		args = append(args, compile(a))
	}
	class := plan.ClassOf(e.T)
	out := newScatter(e.T)
	var found, left, next []int32
	return func(x *context, b *Batch, sel []int32) *Vector {
		out.begin(class, b.N)
		left = append(left[:0], sel...)
		for k, arg := range args {
			if len(left) == 0 {
				break
			}
			v := arg(x, b, left)
			if k == len(args)-1 {
				out.put(class, b.N, v, left)
				break
			}
			found, next = found[:0], next[:0]
			for _, i := range left {
				switch {
				case x.bad[i]:
				case v.null(i):
					next = append(next, i)
				default:
					found = append(found, i)
				}
			}
			out.put(class, b.N, v, found)
			left, next = next, left
		}
		return &out.Vector
	}
}

func compileIs(e *plan.Call) eval {
	arg := compile(e.Args[0])
	want := int64(0)
	if e.Func == "is_true" {
		want = 1
	}
	var out Vector
	return func(x *context, b *Batch, sel []int32) *Vector {
		v := arg(x, b, sel)
		out.resize(plan.ClassInt, b.N)
		for _, i := range sel {
			yes := v.null(i)
			if e.Func != "is_null" {
				yes = !yes && v.I[i] == want
			}
			out.I[i] = 0
			if yes {
				out.I[i] = 1
			}
		}
		return &out
	}
}

// compileOperator is arithmetic of all kinds.
func compileOperator(e *plan.Call) eval {
	l, r := e.Args[0].Type(), e.Args[1].Type()
	switch {
	case e.T.Kind == sql.KindDecimal:
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			v, err := decimalArithmetic(e.Func, args[0].I, l.Scale, args[1].I, r.Scale, e.T)
			return plan.Value{I: v}, err
		})
	case isDatetime(l.Kind):
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			d := args[1].I
			if e.Func == "-" {
				d = -d
			}
			if r.Interval.YearMonth() {
				return plan.Value{I: addMonths(args[0].I, d)}, nil
			}
			v := args[0].I + d
			switch e.T.Kind {
			case sql.KindTime:
				v = mod(v, sql.MillisPerDay)
			case sql.KindDate:
				v -= mod(v, sql.MillisPerDay)
			}
			return plan.Value{I: v}, nil
		})
	case l.Kind == sql.KindInterval && r.Kind != sql.KindInterval:
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			if isInteger(r.Kind) {
				if e.Func == "/" {
					if args[1].I == 0 {
						return plan.Value{}, fail(divideByZero, "division by zero")
					}
					return plan.Value{I: args[0].I / args[1].I}, nil
				}
				v := args[0].I * args[1].I
				if args[0].I != 0 && v/args[0].I != args[1].I {
					return plan.Value{}, overflow(e.T)
				}
				return plan.Value{I: v}, nil
			}
			f := float64(args[0].I) * args[1].F
			if e.Func == "/" {
				if args[1].F == 0 {
					return plan.Value{}, fail(divideByZero, "division by zero")
				}
				f = float64(args[0].I) / args[1].F
			}
			if math.Abs(f) > math.MaxInt64/2 || math.IsNaN(f) {
				return plan.Value{}, overflow(e.T)
			}
			return plan.Value{I: int64(math.Round(f))}, nil
		})
	}
	return compileArithmetic(e)
}

func isDatetime(k sql.Kind) bool {
	return k == sql.KindDate || k == sql.KindTime || k == sql.KindTimestamp
}

func mod(a, b int64) int64 { return (a%b + b) % b }

// addMonths adds months to an instant; a day that the month does not have
// becomes its last.
func addMonths(ms, months int64) int64 {
	inDay := mod(ms, sql.MillisPerDay)
	y, m, d := sql.Civil((ms - inDay) / sql.MillisPerDay)
	n := y*12 + m - 1 + months
	y, m = (n-mod(n, 12))/12, mod(n, 12)+1
	return sql.DaysSinceEpoch(y, m, min(d, sql.DaysInMonth(y, m)))*sql.MillisPerDay + inDay
}

// truncate takes an instant or interval down to a unit.
func truncate(ms int64, unit sql.Unit, t sql.Type) int64 {
	if t.Kind == sql.KindInterval && t.Interval.YearMonth() {
		if unit == sql.Year {
			return ms - mod(ms, 12)
		}
		return ms
	}
	switch unit {
	case sql.Second:
		return ms - mod(ms, sql.MillisPerSecond)
	case sql.Minute:
		return ms - mod(ms, sql.MillisPerMinute)
	case sql.Hour:
		return ms - mod(ms, sql.MillisPerHour)
	case sql.Day:
		return ms - mod(ms, sql.MillisPerDay)
	}
	if t.Kind == sql.KindInterval {
		return ms
	}
	y, m, _ := sql.Civil((ms - mod(ms, sql.MillisPerDay)) / sql.MillisPerDay)
	if unit == sql.Year {
		m = 1
	}
	return sql.DaysSinceEpoch(y, m, 1) * sql.MillisPerDay
}

// compileTruncate is FLOOR, CEIL … TO and STEP.
func compileTruncate(e *plan.Call) eval {
	arg := compile(e.Args[0])
	t := e.Args[0].Type()
	var f func(v int64) int64
	if e.Func == "step" {
		by := e.Args[1].(*plan.Const)
		size := by.Value.I
		f = func(v int64) int64 { return v - mod(v, size) }
		if by.T.Kind == sql.KindInterval && by.T.Interval.YearMonth() {
			f = func(v int64) int64 {
				y, m, _ := sql.Civil((v - mod(v, sql.MillisPerDay)) / sql.MillisPerDay)
				n := (y-1970)*12 + m - 1
				n -= mod(n, size)
				return sql.DaysSinceEpoch(1970+(n-mod(n, 12))/12, mod(n, 12)+1, 1) * sql.MillisPerDay
			}
		} else if t.Kind == sql.KindDate {
			f = func(v int64) int64 { v -= mod(v, size); return v - mod(v, sql.MillisPerDay) }
		}
	} else {
		unit := e.Unit
		f = func(v int64) int64 { return truncate(v, unit, t) }
		if e.Func == "ceil_to" {
			f = func(v int64) int64 {
				down := truncate(v, unit, t)
				if down == v {
					return v
				}
				switch {
				case unit == sql.Year:
					return addMonths(down, 12)
				case unit == sql.Month:
					return addMonths(down, 1)
				}
				return down + unitMillis(unit)
			}
		}
	}
	var out Vector
	return func(x *context, b *Batch, sel []int32) *Vector {
		v := arg(x, b, sel)
		out.resize(plan.ClassInt, b.N)
		out.Null = v.Null
		for _, i := range sel {
			out.I[i] = f(v.I[i])
		}
		return &out
	}
}

func unitMillis(u sql.Unit) int64 {
	switch u {
	case sql.Day:
		return sql.MillisPerDay
	case sql.Hour:
		return sql.MillisPerHour
	case sql.Minute:
		return sql.MillisPerMinute
	}
	return sql.MillisPerSecond
}

// compilePattern is LIKE and SIMILAR TO.
func compilePattern(e *plan.Call) eval {
	compiled := func(pattern, escape string) (text.Matcher, error) {
		if e.Func == "similar" {
			return text.CompileSimilar(pattern, escape)
		}
		return text.CompileLike(pattern, escape)
	}
	cache := map[[2]string]text.Matcher{}
	return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
		key := [2]string{args[1].S}
		if len(args) == 3 {
			key[1] = args[2].S
		}
		m := cache[key]
		if m == nil {
			var err error
			if m, err = compiled(key[0], key[1]); err != nil {
				return plan.Value{}, fail(functionError, "%v", err)
			}
			remember(cache, key, m)
		}
		if m.Match(args[0].S) {
			return plan.Value{I: 1}, nil
		}
		return plan.Value{}, nil
	})
}

// remember keeps a few compiled things.
func remember[K comparable, V any](cache map[K]V, key K, v V) {
	if len(cache) >= 64 {
		clear(cache)
	}
	cache[key] = v
}

// scalar makes the evaluators of functions on single values; nil if there is
// none of the name.
func scalar(e *plan.Call) eval {
	value := func(f func(args []plan.Value) plan.Value) eval {
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) { return f(args), nil })
	}
	double := func(f func(float64) float64, valid func(float64) bool) eval {
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			if valid != nil && !valid(args[0].F) {
				return plan.Value{}, fail(functionError, "%s of %v is not defined", strings.ToUpper(e.Func), args[0].F)
			}
			return plan.Value{F: f(args[0].F)}, nil
		})
	}
	str := func(f func(string) string) eval {
		return value(func(args []plan.Value) plan.Value { return plan.Value{S: f(args[0].S)} })
	}
	switch e.Func {
	case "neg":
		low, _ := intLimits(e.T.Kind)
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			if isInteger(e.T.Kind) && args[0].I == low {
				return plan.Value{}, overflow(e.T)
			}
			return plan.Value{I: -args[0].I, F: -args[0].F}, nil
		})
	case "abs":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			v := plan.Value{I: args[0].I, F: math.Abs(args[0].F)}
			if low, _ := intLimits(e.T.Kind); v.I == low && isInteger(e.T.Kind) {
				return plan.Value{}, overflow(e.T)
			}
			if v.I < 0 {
				v.I = -v.I
			}
			return v, nil
		})
	case "ceil", "floor":
		if e.T.Kind == sql.KindDecimal {
			scale := pow10(e.Args[0].Type().Scale)
			return value(func(args []plan.Value) plan.Value {
				down := (args[0].I - mod(args[0].I, scale)) / scale
				if e.Func == "ceil" && mod(args[0].I, scale) != 0 {
					down++
				}
				return plan.Value{I: down}
			})
		}
		if e.Func == "ceil" {
			return double(math.Ceil, nil)
		}
		return double(math.Floor, nil)
	case "mod":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			if args[1].I == 0 {
				return plan.Value{}, fail(divideByZero, "MOD by zero")
			}
			if args[1].I == -1 {
				return plan.Value{}, nil
			}
			return plan.Value{I: args[0].I % args[1].I}, nil
		})
	case "power":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			v := math.Pow(args[0].F, args[1].F)
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return plan.Value{}, fail(functionError, "POWER(%v, %v) is not defined", args[0].F, args[1].F)
			}
			return plan.Value{F: v}, nil
		})
	case "exp":
		return double(math.Exp, func(v float64) bool { return !math.IsInf(math.Exp(v), 0) })
	case "ln":
		return double(math.Log, func(v float64) bool { return v > 0 })
	case "log10":
		return double(math.Log10, func(v float64) bool { return v > 0 })
	case "sqrt":
		return double(math.Sqrt, func(v float64) bool { return v >= 0 })
	case "char_length":
		return value(func(args []plan.Value) plan.Value { return plan.Value{I: int64(utf8.RuneCountInString(args[0].S))} })
	case "upper":
		return str(strings.ToUpper)
	case "lower":
		return str(strings.ToLower)
	case "initcap":
		return str(initcap)
	case "||":
		return value(func(args []plan.Value) plan.Value { return plan.Value{S: args[0].S + args[1].S} })
	case "position":
		return value(func(args []plan.Value) plan.Value {
			at := strings.Index(args[1].S, args[0].S)
			if at < 0 {
				return plan.Value{}
			}
			return plan.Value{I: int64(utf8.RuneCountInString(args[1].S[:at])) + 1}
		})
	case "substring", "substring_comma", "substring_bytes":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) { return substring(e.Func, args) })
	case "substring_regex":
		return withRegexp(e, func(re *text.Regexp, args []plan.Value) (plan.Value, error) {
			m, ok, err := re.Find(args[0].S)
			return plan.Value{S: m, Null: !ok}, err
		})
	case "regex_replace":
		return withRegexp(e, func(re *text.Regexp, args []plan.Value) (plan.Value, error) {
			if args[3].I < 1 || args[4].I < 0 {
				return plan.Value{}, fail(functionError, "REGEX_REPLACE begins at 1 or later, and the occurrence is not negative")
			}
			s, err := re.Replace(args[0].S, args[2].S, args[3].I, args[4].I)
			return plan.Value{S: s}, err
		})
	case "substring_similar":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			s, ok, err := text.SubstringSimilar(args[0].S, args[1].S, args[2].S)
			return plan.Value{S: s, Null: !ok}, err
		})
	case "overlay":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) { return overlay(args) })
	case "trim_both", "trim_leading", "trim_trailing":
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			if utf8.RuneCountInString(args[1].S) != 1 {
				return plan.Value{}, fail(functionError, "TRIM takes off one character")
			}
			s := args[0].S
			if e.Func != "trim_trailing" {
				s = strings.TrimLeft(s, args[1].S)
			}
			if e.Func != "trim_leading" {
				s = strings.TrimRight(s, args[1].S)
			}
			return plan.Value{S: s}, nil
		})
	case "to_timestamp", "unix_timestamp":
		return value(func(args []plan.Value) plan.Value { return plan.Value{I: args[0].I} })
	case "plain_number":
		scale := scaleOf(e.Args[0].Type())
		return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
			return plan.Value{S: plainNumber(args[0].I, scale)}, nil
		})
	case "tsdiff":
		return value(func(args []plan.Value) plan.Value { return plan.Value{I: args[0].I - args[1].I} })
	case "difference":
		return value(func(args []plan.Value) plan.Value {
			return plan.Value{I: difference(args[0].I, args[1].I, e.T.Interval)}
		})
	case "extract":
		t := e.Args[0].Type()
		return value(func(args []plan.Value) plan.Value { return plan.Value{I: extract(args[0].I, e.Unit, t)} })
	case "char_to_timestamp", "char_to_date", "char_to_time":
		patterns := map[string]*text.DatePattern{}
		return lift(e, false, func(x *context, args []plan.Value) (plan.Value, error) {
			p, err := datePattern(patterns, args[0].S)
			if err != nil {
				return plan.Value{}, err
			}
			ms, ok := p.Parse(args[1].S, x.now())
			if !ok {
				return plan.Value{}, fail(functionError, "%q is not of the form %q", args[1].S, args[0].S)
			}
			switch e.T.Kind {
			case sql.KindDate:
				ms -= mod(ms, sql.MillisPerDay)
			case sql.KindTime:
				ms = mod(ms, sql.MillisPerDay)
			}
			return plan.Value{I: ms}, nil
		})
	case "to_char":
		patterns := map[string]*text.DatePattern{}
		return lift(e, true, func(_ *context, args []plan.Value) (plan.Value, error) {
			if args[0].Null {
				return args[0], nil
			}
			if args[1].Null {
				return plan.Value{S: "null"}, nil
			}
			p, err := datePattern(patterns, args[0].S)
			if err != nil {
				return plan.Value{}, err
			}
			return plan.Value{S: string(p.Append(nil, args[1].I))}, nil
		})
	case "current_row_timestamp":
		return lift(e, false, func(x *context, _ []plan.Value) (plan.Value, error) { return plan.Value{I: x.now().UnixMilli()}, nil })
	case "current_timestamp":
		return lift(e, false, func(x *context, _ []plan.Value) (plan.Value, error) { return plan.Value{I: x.start}, nil })
	case "current_date":
		return lift(e, false, func(x *context, _ []plan.Value) (plan.Value, error) {
			return plan.Value{I: x.start - mod(x.start, sql.MillisPerDay)}, nil
		})
	case "current_time":
		return lift(e, false, func(x *context, _ []plan.Value) (plan.Value, error) {
			return plan.Value{I: mod(x.start, sql.MillisPerDay)}, nil
		})
	case "json_value", "json_query":
		return compileJSON(e)
	}
	return nil
}

func datePattern(cache map[string]*text.DatePattern, source string) (*text.DatePattern, error) {
	p := cache[source]
	if p == nil {
		var err error
		if p, err = text.CompileDatePattern(source); err != nil {
			return nil, fail(functionError, "%v", err)
		}
		remember(cache, source, p)
	}
	return p, nil
}

// withRegexp gives a function the compiled form of its second argument.
func withRegexp(e *plan.Call, f func(re *text.Regexp, args []plan.Value) (plan.Value, error)) eval {
	cache := map[string]*text.Regexp{}
	return lift(e, false, func(_ *context, args []plan.Value) (plan.Value, error) {
		re := cache[args[1].S]
		if re == nil {
			var err error
			if re, err = text.CompileRegexp(args[1].S); err != nil {
				return plan.Value{}, fail(functionError, "the regular expression %q is wrong: %v", args[1].S, err)
			}
			remember(cache, args[1].S, re)
		}
		return f(re, args)
	})
}

func initcap(s string) string {
	var b strings.Builder
	start := true
	for _, r := range s {
		switch {
		case r == ' ':
			start = true
			b.WriteRune(r)
		case start:
			b.WriteRune(unicode.ToUpper(r))
			start = false
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// substring is that of the standard: positions count from 1, and what lies
// before the text shortens the result.
func substring(form string, args []plan.Value) (plan.Value, error) {
	s, from := args[0].S, args[1].I
	length := int64(math.MaxInt32)
	if len(args) == 3 {
		if length = args[2].I; length < 0 {
			return plan.Value{}, fail(functionError, "the length of SUBSTRING is negative")
		}
	}
	if from < math.MinInt32 {
		from = math.MinInt32
	}
	length = min(length, math.MaxInt32)
	if form == "substring_bytes" {
		n := int64(len(s))
		end := min(n, from-1+length)
		begin := max(from-1, 0)
		if begin >= end {
			return plan.Value{}, nil
		}
		return plan.Value{S: s[begin:end]}, nil
	}
	if from < 1 {
		length -= 1 - from
		from = 1
	}
	at := 0
	for i := int64(1); i < from; i++ {
		if at >= len(s) {
			break
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	if at >= len(s) && args[1].I > 0 {
		return plan.Value{Null: form == "substring_comma"}, nil // the place is behind the text
	}
	end := at
	for i := int64(0); i < length && end < len(s); i++ {
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
	}
	return plan.Value{S: s[at:end]}, nil
}

func overlay(args []plan.Value) (plan.Value, error) {
	s, r := []rune(args[0].S), []rune(args[1].S)
	from, n := args[2].I, int64(len(r))
	if len(args) == 4 {
		if n = args[3].I; n < 0 {
			return plan.Value{}, fail(functionError, "the length of OVERLAY is negative")
		}
	}
	if from > int64(len(s)) {
		return plan.Value{S: args[0].S + args[1].S}, nil
	}
	n = min(n, int64(len(s)+len(r)))
	if from < 1 {
		before := min(1-max(from, -int64(len(r))), int64(len(r)))
		rest := r[before:]
		n = max(n-before, 0)
		if len(args) == 3 {
			n = int64(len(rest))
		}
		return plan.Value{S: string(r[:before]) + string(rest) + string(s[min(n, int64(len(s))):])}, nil
	}
	end := min(from-1+n, int64(len(s)))
	return plan.Value{S: string(s[:from-1]) + string(r) + string(s[end:])}, nil
}

// difference is a - b, cut off behind the last field of an interval.
func difference(a, b int64, q sql.Qualifier) int64 {
	if q.YearMonth() {
		n := monthsBetween(b, a)
		if q.End == sql.Year {
			n -= n % 12
		}
		return n
	}
	d := a - b
	return d - d%unitMillis(q.End)
}

// monthsBetween counts whole months from a to b.
func monthsBetween(a, b int64) int64 {
	if b < a {
		return -monthsBetween(b, a)
	}
	ya, ma, _ := sql.Civil((a - mod(a, sql.MillisPerDay)) / sql.MillisPerDay)
	yb, mb, _ := sql.Civil((b - mod(b, sql.MillisPerDay)) / sql.MillisPerDay)
	n := (yb-ya)*12 + mb - ma
	if addMonths(a, n) > b {
		n--
	}
	return n
}

func extract(v int64, unit sql.Unit, t sql.Type) int64 {
	if t.Kind == sql.KindInterval {
		sign := int64(1)
		if v < 0 {
			sign, v = -1, -v
		}
		if t.Interval.YearMonth() {
			switch unit {
			case sql.Year:
				return sign * (v / 12)
			case sql.Month:
				return sign * (v % 12)
			}
			return 0
		}
		switch unit {
		case sql.Day:
			return sign * (v / sql.MillisPerDay)
		case sql.Hour:
			return sign * (v / sql.MillisPerHour % 24)
		case sql.Minute:
			return sign * (v / sql.MillisPerMinute % 60)
		case sql.Second:
			return sign * (v % sql.MillisPerMinute)
		}
		return 0
	}
	switch unit {
	case sql.Hour:
		return mod(v, sql.MillisPerDay) / sql.MillisPerHour
	case sql.Minute:
		return mod(v, sql.MillisPerHour) / sql.MillisPerMinute
	case sql.Second:
		return mod(v, sql.MillisPerMinute)
	}
	y, m, d := sql.Civil((v - mod(v, sql.MillisPerDay)) / sql.MillisPerDay)
	switch unit {
	case sql.Year:
		return y
	case sql.Month:
		return m
	}
	return d
}

func pow10(n int) int64 {
	v := int64(1)
	for range n {
		v *= 10
	}
	return v
}
