package run

import (
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
)

// compileCast makes the evaluator of a CAST or an assignment.
func compileCast(e *plan.Cast) eval {
	from, to := e.Arg.Type(), e.T
	f := converter(from, to, e.Assign)
	cast := liftArgs([]eval{compile(e.Arg)}, []sql.Type{from}, to, false, func(x *context, args []plan.Value) (plan.Value, error) {
		v, err := f(x, args[0])
		if err != nil && e.Try {
			return plan.Value{Null: true}, nil
		}
		return v, err
	})
	if from.Kind >= sql.KindTinyint && from.Kind <= sql.KindBigint && (to.Kind == sql.KindDouble || isInteger(to.Kind) && to.Kind >= from.Kind) {
		return widen(e)
	}
	return cast
}

// widen converts integers that cannot fail to.
func widen(e *plan.Cast) eval {
	arg := compile(e.Arg)
	if e.T.Kind != sql.KindDouble {
		return arg
	}
	var out Vector
	return func(x *context, b *Batch, sel []int32) *Vector {
		v := arg(x, b, sel)
		out.resize(plan.ClassFloat, b.N)
		out.Null = v.Null
		for _, i := range sel {
			out.F[i] = float64(v.I[i])
		}
		return &out
	}
}

// converter converts single values that are not null.
func converter(from, to sql.Type, assign bool) func(x *context, v plan.Value) (plan.Value, error) {
	switch {
	case isCharacter(to.Kind):
		return func(_ *context, v plan.Value) (plan.Value, error) {
			s, err := toText(v, from, to)
			if err != nil {
				return plan.Value{}, err
			}
			return plan.Value{S: fit(s, to)}, nil
		}
	case isCharacter(from.Kind):
		return func(_ *context, v plan.Value) (plan.Value, error) { return fromText(v.S, to) }
	case isBinary(to.Kind):
		return func(_ *context, v plan.Value) (plan.Value, error) {
			s := v.S
			if len(s) > to.Length {
				s = s[:to.Length]
			}
			if to.Kind == sql.KindBinary && len(s) < to.Length {
				s += strings.Repeat("\x00", to.Length-len(s))
			}
			return plan.Value{S: s}, nil
		}
	case from.Kind == sql.KindInterval && to.Kind != sql.KindInterval:
		return func(_ *context, v plan.Value) (plan.Value, error) {
			n := v.I
			switch {
			case from.Interval.Start == sql.Year:
				n /= 12
			case !from.Interval.YearMonth():
				n /= unitMillis(from.Interval.Start)
			}
			return number(plan.Value{I: n}, sql.Type{Kind: sql.KindBigint}, to)
		}
	case isNumeric(to.Kind):
		return func(_ *context, v plan.Value) (plan.Value, error) { return number(v, from, to) }
	case isDatetime(from.Kind) && isDatetime(to.Kind):
		return func(x *context, v plan.Value) (plan.Value, error) {
			switch {
			case to.Kind == sql.KindDate:
				return plan.Value{I: v.I - mod(v.I, sql.MillisPerDay)}, nil
			case to.Kind == sql.KindTime && from.Kind == sql.KindTimestamp:
				return plan.Value{I: mod(v.I, sql.MillisPerDay)}, nil
			case to.Kind == sql.KindTimestamp && from.Kind == sql.KindTime:
				return plan.Value{I: x.start - mod(x.start, sql.MillisPerDay) + v.I}, nil
			}
			return v, nil
		}
	}
	return func(_ *context, v plan.Value) (plan.Value, error) { return v, nil }
}

func isCharacter(k sql.Kind) bool { return k == sql.KindChar || k == sql.KindVarchar }
func isBinary(k sql.Kind) bool    { return k == sql.KindBinary || k == sql.KindVarbinary }
func isNumeric(k sql.Kind) bool   { return k >= sql.KindTinyint && k <= sql.KindDouble }

// fit cuts a text to its type's length, and pads CHAR.
func fit(s string, t sql.Type) string {
	if len(s) > t.Length {
		n := 0
		for i := range s {
			if n == t.Length {
				s = s[:i]
				break
			}
			n++
		}
	}
	if t.Kind == sql.KindChar {
		if n := utf8.RuneCountInString(s); n < t.Length {
			s += strings.Repeat(" ", t.Length-n)
		}
	}
	return s
}

// number converts between numeric types; fractions round half away from zero.
func number(v plan.Value, from, to sql.Type) (plan.Value, error) {
	switch {
	case to.Kind == sql.KindDouble || to.Kind == sql.KindReal:
		f := v.F
		switch {
		case from.Kind == sql.KindDecimal:
			f = decimalFloat(v.I, from.Scale)
		case isInteger(from.Kind):
			f = float64(v.I)
		}
		if to.Kind == sql.KindReal {
			if math.Abs(f) > math.MaxFloat32 && !math.IsInf(f, 0) {
				return plan.Value{}, overflow(to)
			}
			f = float64(float32(f))
		}
		return plan.Value{F: f}, nil
	case to.Kind == sql.KindDecimal:
		if from.Kind == sql.KindDouble || from.Kind == sql.KindReal {
			f := v.F * math.Pow10(to.Scale)
			if math.Abs(f) >= 9.2e18 || math.IsNaN(f) {
				return plan.Value{}, overflow(to)
			}
			return checkedDecimal(int64(math.Round(f)), to)
		}
		n, ok := rescale(v.I, from.Scale, to.Scale)
		if !ok {
			return plan.Value{}, overflow(to)
		}
		return checkedDecimal(n, to)
	}
	n := v.I
	switch from.Kind {
	case sql.KindDouble, sql.KindReal:
		f := math.Round(v.F)
		if math.Abs(f) >= 9.3e18 || math.IsNaN(f) {
			return plan.Value{}, overflow(to)
		}
		n = int64(f)
		if f > 0 && n < 0 {
			return plan.Value{}, overflow(to)
		}
	case sql.KindDecimal:
		n, _ = rescale(v.I, from.Scale, 0)
	}
	if low, high := intLimits(to.Kind); n < low || n > high {
		return plan.Value{}, overflow(to)
	}
	return plan.Value{I: n}, nil
}

func decimalFloat(v int64, scale int) float64 {
	f, _ := new(big.Rat).SetFrac64(v, pow10(scale)).Float64()
	return f
}

func checkedDecimal(v int64, t sql.Type) (plan.Value, error) {
	if t.Precision < 19 {
		if high := pow10(t.Precision); v >= high || v <= -high {
			return plan.Value{}, overflow(t)
		}
	}
	return plan.Value{I: v}, nil
}

// rescale changes the number of fraction digits; half is rounded away from zero.
func rescale(v int64, from, to int) (int64, bool) {
	if from == to {
		return v, true
	}
	if to > from {
		if to-from > 18 {
			return 0, v == 0
		}
		p := pow10(to - from)
		r := v * p
		return r, v == 0 || r/p == v
	}
	if from-to > 18 {
		return 0, true
	}
	p := pow10(from - to)
	q, rest := v/p, v%p
	if rest >= p-rest {
		q++
	} else if -rest >= p+rest {
		q--
	}
	return q, true
}

// decimalArithmetic computes with 64 bits where they are enough.
func decimalArithmetic(op string, a int64, as int, b int64, bs int, t sql.Type) (int64, error) {
	if v, ok := shortArithmetic(op, a, as, b, bs, t); ok {
		d, err := checkedDecimal(v, t)
		return d.I, err
	}
	return longArithmetic(op, a, as, b, bs, t)
}

// shortArithmetic is not ok where a value in between may not fit.
func shortArithmetic(op string, a int64, as int, b int64, bs int, t sql.Type) (int64, bool) {
	times := func(v int64, power int) (int64, bool) {
		if power < 0 || power > 18 {
			return 0, false
		}
		high, low := bits.Mul64(uint64(max(v, -v)), uint64(pow10(power)))
		if high != 0 || low > math.MaxInt64 {
			return 0, false
		}
		return v * pow10(power), true
	}
	scale := max(as, bs)
	var v int64
	switch op {
	case "+", "-":
		x, ok := times(a, scale-as)
		y, ok2 := times(b, scale-bs)
		if !ok || !ok2 || max(x, -x, y, -y) > math.MaxInt64/2 {
			return 0, false
		}
		if v = x + y; op == "-" {
			v = x - y
		}
	case "*":
		high, low := bits.Mul64(uint64(max(a, -a)), uint64(max(b, -b)))
		if high != 0 || low > math.MaxInt64 {
			return 0, false
		}
		v, scale = a*b, as+bs
	default:
		x, ok := times(a, t.Scale+bs-as)
		if !ok || b == 0 || b == math.MinInt64 {
			return 0, false
		}
		q, rest := x/b, x%b
		if rest = max(rest, -rest); rest >= max(b, -b)-rest {
			if (x < 0) == (b < 0) {
				q++
			} else {
				q--
			}
		}
		return q, true
	}
	if v == math.MinInt64 || scale-t.Scale > 18 {
		return 0, false
	}
	return rescale(v, scale, t.Scale)
}

// longArithmetic computes with as many bits as there are.
func longArithmetic(op string, a int64, as int, b int64, bs int, t sql.Type) (int64, error) {
	x, y := big.NewInt(a), big.NewInt(b)
	ten := func(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }
	var r *big.Int
	switch op {
	case "+", "-":
		s := max(as, bs)
		x.Mul(x, ten(s-as))
		y.Mul(y, ten(s-bs))
		if op == "+" {
			r = x.Add(x, y)
		} else {
			r = x.Sub(x, y)
		}
		r = roundQuotient(r.Mul(r, ten(max(t.Scale-s, 0))), ten(max(s-t.Scale, 0)))
	case "*":
		r = x.Mul(x, y)
		r = roundQuotient(r.Mul(r, ten(max(t.Scale-as-bs, 0))), ten(max(as+bs-t.Scale, 0)))
	default:
		if b == 0 {
			return 0, fail(divideByZero, "division by zero")
		}
		shift := t.Scale + bs - as
		if shift >= 0 {
			x.Mul(x, ten(shift))
		} else {
			y.Mul(y, ten(-shift))
		}
		r = roundQuotient(x, y)
	}
	if !r.IsInt64() {
		return 0, overflow(t)
	}
	v, err := checkedDecimal(r.Int64(), t)
	return v.I, err
}

// roundQuotient is a / b, half rounded away from zero.
func roundQuotient(a, b *big.Int) *big.Int {
	q, rest := new(big.Int).QuoRem(a, b, new(big.Int))
	if rest.Abs(rest).Lsh(rest, 1).CmpAbs(b) >= 0 {
		if a.Sign()*b.Sign() < 0 {
			q.Sub(q, big.NewInt(1))
		} else {
			q.Add(q, big.NewInt(1))
		}
	}
	return q
}

// toText is CAST to characters, before cutting and padding.
func toText(v plan.Value, from, to sql.Type) (string, error) {
	need := func(n int, s string) (string, error) {
		if to.Length < n {
			return "", fail(castError, "a %s needs %d characters, and %s has %d", from.Kind, n, to, to.Length)
		}
		return s, nil
	}
	switch from.Kind {
	case sql.KindChar, sql.KindVarchar:
		return v.S, nil
	case sql.KindBoolean:
		if v.I != 0 {
			return "TRUE", nil
		}
		return "FALSE", nil
	case sql.KindDate:
		return need(10, string(appendDate(nil, v.I)))
	case sql.KindTime:
		return need(8, string(appendTime(nil, v.I, false)))
	case sql.KindTimestamp:
		return need(19, string(appendTimestamp(nil, v.I, false)))
	case sql.KindInterval:
		return intervalText(v.I, from.Interval), nil
	}
	return string(appendNumber(nil, v, from)), nil
}

// appendNumber writes a number as JSON and CAST do.
func appendNumber(dst []byte, v plan.Value, t sql.Type) []byte {
	switch t.Kind {
	case sql.KindDouble:
		return appendFloat(dst, v.F, 64)
	case sql.KindReal:
		return appendFloat(dst, v.F, 32)
	case sql.KindDecimal:
		return appendDecimal(dst, v.I, t.Scale)
	}
	return strconv.AppendInt(dst, v.I, 10)
}

// appendFloat writes the shortest text that reads as the same number.
func appendFloat(dst []byte, f float64, size int) []byte {
	// No two decimals of up to 15 digits are the same double: one that reads as the
	// number is its shortest text, and quickly found if it has few fraction digits.
	if size == 64 && f < 1e12 && f > -1e12 {
		n := int64(f)
		if float64(n) == f && (n != 0 || !math.Signbit(f)) {
			return strconv.AppendInt(dst, n, 10)
		}
		n = int64(math.Round(f * 1000))
		if float64(n)/1000 == f && n != 0 {
			return appendThousandths(dst, n)
		}
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, size)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, size)
}

// appendThousandths writes n / 1000, which is no integer.
func appendThousandths(dst []byte, n int64) []byte {
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	dst = strconv.AppendInt(dst, n/1000, 10)
	dst = append(dst, '.', byte('0'+n/100%10))
	switch {
	case n%10 != 0:
		return appendTwo(dst, n%100)
	case n%100 != 0:
		return append(dst, byte('0'+n/10%10))
	}
	return dst
}

func appendDecimal(dst []byte, v int64, scale int) []byte {
	if scale == 0 {
		return strconv.AppendInt(dst, v, 10)
	}
	if v < 0 {
		dst = append(dst, '-')
	}
	var digits [48]byte
	at := len(digits)
	for u := uint64(max(v, -v)); u > 0 || len(digits)-at <= scale; u /= 10 { // -v is v, and right without a sign, for the smallest
		if len(digits)-at == scale {
			at--
			digits[at] = '.'
			scale = -1 // set once
		}
		at--
		digits[at] = byte('0' + u%10)
	}
	return append(dst, digits[at:]...)
}

// appendPadded writes a number with at least so many characters.
func appendPadded(dst []byte, v int64, width int) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], v, 10)
	for i := len(text); i < width; i++ {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

func appendDate(dst []byte, ms int64) []byte {
	y, m, d := sql.Civil((ms - mod(ms, sql.MillisPerDay)) / sql.MillisPerDay)
	dst = append(appendPadded(dst, y, 4), '-')
	dst = append(appendTwo(dst, m), '-')
	return appendTwo(dst, d)
}

func appendTwo(dst []byte, v int64) []byte { return append(dst, byte('0'+v/10), byte('0'+v%10)) }

// appendTime writes HH:mm:ss, and .SSS if there is a fraction or it is wanted.
func appendTime(dst []byte, ms int64, fraction bool) []byte {
	ms = mod(ms, sql.MillisPerDay)
	dst = append(appendTwo(dst, ms/sql.MillisPerHour), ':')
	dst = append(appendTwo(dst, ms/sql.MillisPerMinute%60), ':')
	dst = appendTwo(dst, ms/sql.MillisPerSecond%60)
	if ms %= 1000; ms != 0 || fraction {
		dst = append(dst, '.', byte('0'+ms/100))
		dst = appendTwo(dst, ms%100)
	}
	return dst
}

func appendTimestamp(dst []byte, ms int64, fraction bool) []byte {
	return appendTime(append(appendDate(dst, ms), ' '), ms, fraction)
}

// intervalText writes an interval: the sign always, the first field as it is, the
// others with two digits.
func intervalText(v int64, q sql.Qualifier) string {
	dst := []byte{'+'}
	if v < 0 {
		dst[0], v = '-', -v
	}
	rest := v
	for u := q.Start; u <= q.End; u++ {
		var n int64
		switch u {
		case sql.Year:
			n, rest = rest/12, rest%12
		case sql.Month:
			n, rest = rest, 0
		default:
			n, rest = rest/unitMillis(u), rest%unitMillis(u)
		}
		if u == q.Start {
			dst = strconv.AppendInt(dst, n, 10)
			continue
		}
		switch u {
		case sql.Month:
			dst = append(dst, '-')
		case sql.Hour:
			dst = append(dst, ' ')
		default:
			dst = append(dst, ':')
		}
		dst = appendPadded(dst, n, 2)
	}
	if q.End == sql.Second && rest != 0 {
		dst = append(dst, '.')
		dst = appendPadded(dst, rest, 3)
	}
	return string(dst)
}

// fromText is CAST from characters to anything else.
func fromText(s string, to sql.Type) (plan.Value, error) {
	wrong := func() (plan.Value, error) {
		return plan.Value{}, fail(castError, "%q is no %s", s, to)
	}
	trimmed := strings.TrimSpace(s)
	switch to.Kind {
	case sql.KindBoolean:
		switch strings.ToLower(trimmed) {
		case "true":
			return plan.Value{I: 1}, nil
		case "false":
			return plan.Value{}, nil
		}
		return wrong()
	case sql.KindDate:
		ms, ok := sql.ParseDate(s)
		if !ok {
			return wrong()
		}
		return plan.Value{I: ms}, nil
	case sql.KindTime:
		ms, ok := sql.ParseTime(s)
		if !ok {
			return wrong()
		}
		return plan.Value{I: ms}, nil
	case sql.KindTimestamp:
		ms, ok := sql.ParseTimestamp(s)
		if !ok {
			return wrong()
		}
		return plan.Value{I: ms}, nil
	case sql.KindInterval:
		ms, problem := sql.ParseInterval(s, to.Interval)
		if problem != "" {
			return plan.Value{}, fail(castError, "%s", problem)
		}
		return plan.Value{I: ms}, nil
	}
	return parseNumber(trimmed, to)
}

// smallDecimal reads a number of up to 18 digits without an exponent: n / 10^scale.
func smallDecimal(s string) (n int64, scale int, ok bool) {
	negative := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	if len(s) > 19 {
		return 0, 0, false
	}
	point := -1
	for i := range len(s) {
		switch d := s[i] - '0'; {
		case d <= 9:
			n = n*10 + int64(d)
		case s[i] == '.' && point < 0:
			point = i
		default:
			return 0, 0, false
		}
	}
	digits := len(s)
	if point >= 0 {
		digits--
		scale = digits - point
	}
	if negative {
		n = -n
	}
	return n, scale, digits > 0 && digits <= 18
}

// parseNumber reads a number of any form into a numeric type.
func parseNumber(s string, to sql.Type) (plan.Value, error) {
	wrong := func() (plan.Value, error) { return plan.Value{}, fail(castError, "%q is no %s", s, to) }
	if s == "" || len(s) > 400 || !numeric(s) {
		return wrong()
	}
	switch to.Kind {
	case sql.KindDouble, sql.KindReal:
		bits := 64
		if to.Kind == sql.KindReal {
			bits = 32
		}
		f, err := strconv.ParseFloat(s, bits)
		if err != nil {
			return plan.Value{}, overflow(to)
		}
		return plan.Value{F: f}, nil
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil && to.Kind != sql.KindDecimal {
		if low, high := intLimits(to.Kind); v < low || v > high {
			return plan.Value{}, overflow(to)
		}
		return plan.Value{I: v}, nil
	}
	if n, scale, ok := smallDecimal(s); ok && to.Kind == sql.KindDecimal {
		if n, ok = rescale(n, scale, to.Scale); ok {
			return checkedDecimal(n, to)
		}
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(s), "e"); ok {
		if n, err := strconv.Atoi(exponent); err != nil || n > 40 || n < -400 {
			return plan.Value{}, overflow(to)
		}
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return wrong()
	}
	scale := 0
	if to.Kind == sql.KindDecimal {
		scale = to.Scale
	}
	n := roundQuotient(new(big.Int).Mul(r.Num(), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)), r.Denom())
	if !n.IsInt64() {
		return plan.Value{}, overflow(to)
	}
	if to.Kind == sql.KindDecimal {
		return checkedDecimal(n.Int64(), to)
	}
	if low, high := intLimits(to.Kind); n.Int64() < low || n.Int64() > high {
		return plan.Value{}, overflow(to)
	}
	return plan.Value{I: n.Int64()}, nil
}

// numeric reports whether a text is a decimal number, maybe with an exponent.
func numeric(s string) bool {
	i, digits := 0, 0
	if s[0] == '-' || s[0] == '+' {
		i++
	}
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		digits++
	}
	if i < len(s) && s[i] == '.' {
		for i++; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			digits++
		}
	}
	if digits == 0 {
		return false
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		if i++; i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		start := i
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		}
		if i == start {
			return false
		}
	}
	return i == len(s)
}
