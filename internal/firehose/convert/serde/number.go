package serde

import (
	"math"
	"math/bits"
	"strconv"
	"unsafe"

	"github.com/millrace/millrace/internal/firehose/convert/column"
	"github.com/millrace/millrace/internal/firehose/convert/hive"
)

// number is a decimal number as it stands: digits × 10^exponent.
type number struct {
	raw      []byte
	negative bool
	integer  bool   // neither fraction nor exponent
	exact    bool   // digits holds all digits
	digits   uint64 // without leading zeros
	exponent int
}

// number reads the number at hand, which must be valid JSON. It is the decoder's
// until the next.
func (d *Decoder) number() (*number, error) {
	data, start := d.data, d.at
	i := start
	if i < len(data) && data[i] == '-' {
		i++
	}
	// No digit, or a zero with digits behind it.
	if i >= len(data) || data[i] < '0' || data[i] > '9' || data[i] == '0' && i+1 < len(data) && data[i+1] >= '0' && data[i+1] <= '9' {
		if i < len(data) && data[i] == '0' {
			i++
		}
		d.at = i
		return nil, d.wrong()
	}
	size, ok := d.scanned.scan(data[start:])
	d.at = start + size
	if !ok || d.at < len(data) && wordByte(data[d.at]) {
		return nil, d.wrong()
	}
	return &d.scanned, nil
}

// maxExponent bounds exponents that are computed with; what is beyond is zero or
// out of every range.
const maxExponent = 1 << 20

// scan reads a number at the beginning of s: [+-]digits[.digits][e[+-]digits].
// size is how far it is one, whether or not it is complete.
func (n *number) scan(s []byte) (size int, ok bool) {
	*n = number{integer: true, exact: true}
	i := 0
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		n.negative = s[0] == '-'
		i++
	}
	// Leading zeros are no digits that count, so that eighteen bytes at least fit.
	digits, first := uint64(0), i
	for i < len(s) && s[i]-'0' <= 9 {
		if digits >= overflows {
			n.exact = false
			n.exponent++
		} else {
			digits = digits*10 + uint64(s[i]-'0')
		}
		i++
	}
	count := i - first
	if i < len(s) && s[i] == '.' {
		n.integer = false
		i++
		point := i
		for i < len(s) && s[i]-'0' <= 9 {
			if digits >= overflows {
				n.exact = false
			} else {
				digits = digits*10 + uint64(s[i]-'0')
				n.exponent--
			}
			i++
		}
		if i == point {
			return i, false
		}
		count += i - point
	}
	n.digits = digits
	if count == 0 {
		return i, false
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		if i, ok = n.scanExponent(s, i+1); !ok {
			return i, false
		}
	}
	n.raw = s[:i]
	return i, true
}

// overflows is where another digit might not fit.
const overflows = (math.MaxUint64 - 9) / 10

func (n *number) scanExponent(s []byte, i int) (size int, ok bool) {
	n.integer = false
	negative := false
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		negative = s[i] == '-'
		i++
	}
	first, e := i, 0
	for i < len(s) && s[i]-'0' <= 9 {
		if e < maxExponent {
			e = e*10 + int(s[i]-'0')
		}
		i++
	}
	if negative {
		e = -e
	}
	n.exponent += e
	return i, i > first
}

// int is the number's value, if it is a whole number of 64 bits.
func (n *number) int() (int64, bool) {
	if !n.exact {
		// Nineteen or twenty digits may still fit.
		v, err := strconv.ParseInt(unsafe.String(unsafe.SliceData(n.raw), len(n.raw)), 10, 64)
		return v, err == nil
	}
	digits := n.digits
	if n.exponent != 0 && digits != 0 {
		e := n.exponent
		for ; e < 0; e++ {
			if digits%10 != 0 {
				return 0, false
			}
			digits /= 10
		}
		if e > 19 {
			return 0, false
		}
		for ; e > 0; e-- {
			hi, lo := bits.Mul64(digits, 10)
			if hi != 0 {
				return 0, false
			}
			digits = lo
		}
	}
	if n.negative {
		return -int64(digits), digits <= 1<<63
	}
	return int64(digits), digits < 1<<63
}

var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// float is the number's value; not finite if it is out of range.
func (n *number) float() float64 {
	if n.exact && n.digits <= 1<<53 && n.exponent >= -22 && n.exponent <= 22 {
		// Both factors are exact, so that the one operation rounds correctly.
		f := float64(n.digits)
		if n.exponent < 0 {
			f /= powers[-n.exponent]
		} else {
			f *= powers[n.exponent]
		}
		if n.negative {
			return -f
		}
		return f
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(n.raw), len(n.raw)), 64)
	if err != nil {
		return math.Inf(1)
	}
	return f
}

// numberValue reads a value of a numeric column.
func (d *Decoder) numberValue(t *hive.Type, c *column.Column) error {
	switch b := d.data[d.at]; {
	case b == '-' || '0' <= b && b <= '9':
		n, err := d.number()
		if err != nil {
			return err
		}
		return n.appendTo(t, c)
	case b == '"':
		raw, err := d.content()
		if err != nil {
			return err
		}
		if d.strict && t.Kind != hive.Decimal {
			return mismatch("Current token (VALUE_STRING) not numeric, can not use numeric value accessors")
		}
		return appendNumberText(t, c, raw)
	}
	return d.notParsed()
}

// appendNumberText appends a number that stands in a text.
func appendNumberText(t *hive.Type, c *column.Column, s []byte) error {
	var n number
	size, ok := n.scan(s)
	if !ok || size != len(s) {
		return mismatch("For input string: %q", shown(s))
	}
	return n.appendTo(t, c)
}

// appendTo appends the number to a column of the type.
func (n *number) appendTo(t *hive.Type, c *column.Column) error {
	switch t.Kind {
	case hive.Float, hive.Double:
		f := n.float()
		if t.Kind == hive.Float {
			f = float64(float32(f))
		}
		if math.IsInf(f, 0) {
			return mismatch("Value %s is out of range for type %s", shown(n.raw), t)
		}
		c.AppendFloat(f)
		return nil
	case hive.Decimal:
		v, ok := n.decimal(t.Precision, t.Scale)
		if !ok {
			return mismatch("Value %s is out of range for type %s", shown(n.raw), t)
		}
		c.AppendDecimal(v)
		return nil
	}
	v, ok := n.int()
	switch {
	case !ok:
	case t.Kind == hive.TinyInt && v != int64(int8(v)), t.Kind == hive.SmallInt && v != int64(int16(v)):
		return mismatch("Value out of range. Value:\"%s\" Radix:10", shown(n.raw))
	case t.Kind == hive.Int && v != int64(int32(v)):
		ok = false
	}
	if !ok {
		return mismatch("For input string: %q", shown(n.raw))
	}
	c.AppendInt(v)
	return nil
}

// tens are the powers of ten that 128 bits hold with a sign.
var tens = func() (t [hive.MaxPrecision + 1]column.Int128) {
	t[0].Lo = 1
	for i := 1; i < len(t); i++ {
		t[i] = tenfold(t[i-1], 0)
	}
	return t
}()

// tenfold is 10v+digit, of a number that is not negative.
func tenfold(v column.Int128, digit uint64) column.Int128 {
	hi, lo := bits.Mul64(v.Lo, 10)
	lo, carry := bits.Add64(lo, digit, 0)
	return column.Int128{Hi: int64(uint64(v.Hi)*10 + hi + carry), Lo: lo}
}

func negated(v column.Int128) column.Int128 {
	lo, borrow := bits.Sub64(0, v.Lo, 0)
	hi, _ := bits.Sub64(0, uint64(v.Hi), borrow)
	return column.Int128{Hi: int64(hi), Lo: lo}
}

func less(a, b column.Int128) bool {
	return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo
}

// decimal is the number in units of 10^-scale, rounded half away from zero; not
// ok if it then has more than precision digits.
func (n *number) decimal(precision, scale int) (v column.Int128, ok bool) {
	if n.exact {
		if v, ok = n.smallDecimal(scale); !ok {
			return v, false
		}
	} else if v, ok = n.longDecimal(scale); !ok {
		return v, false
	}
	if !less(v, tens[precision]) {
		return v, false
	}
	if n.negative {
		v = negated(v)
	}
	return v, true
}

func (n *number) smallDecimal(scale int) (v column.Int128, ok bool) {
	v.Lo = n.digits
	if n.digits == 0 {
		return v, true
	}
	shift := n.exponent + scale
	if shift > hive.MaxPrecision {
		return v, false
	}
	for ; shift > 0; shift-- {
		if !less(v, tens[hive.MaxPrecision-1]) {
			return v, false // and ten times that might not fit 128 bits
		}
		v = tenfold(v, 0)
	}
	if shift < -20 {
		return column.Int128{}, true
	}
	half := false
	for ; shift < 0; shift++ {
		half = v.Lo%10 >= 5
		v.Lo /= 10
	}
	if half {
		v.Lo++
	}
	return v, true
}

// longDecimal goes by the digits as they stand.
func (n *number) longDecimal(scale int) (v column.Int128, ok bool) {
	// How many digits stand before the point, of those that count.
	all, first, point := 0, true, 0
	passed := false
	exponent := 0
	for i, c := range n.raw {
		if c == 'e' || c == 'E' {
			exponent, _ = strconv.Atoi(string(n.raw[i+1:]))
			if exponent > maxExponent || exponent < -maxExponent {
				exponent = maxExponent // of a number that is not zero
			}
			break
		}
		switch {
		case c == '.':
			passed = true
		case c < '0' || c > '9':
		case first && c == '0':
			if passed {
				point--
			}
		default:
			first = false
			all++
			if !passed {
				point++
			}
		}
	}
	keep := point + exponent + scale // digits of the result
	switch {
	case keep > hive.MaxPrecision:
		return v, false
	case keep < 0:
		return v, true
	}
	first = true
	taken := 0
	for _, c := range n.raw {
		if c == 'e' || c == 'E' {
			break
		}
		if c < '0' || c > '9' || first && c == '0' {
			continue
		}
		first = false
		if taken == keep {
			if c >= '5' {
				v = add1(v)
			}
			return v, true
		}
		v = tenfold(v, uint64(c-'0'))
		taken++
	}
	for ; taken < keep; taken++ {
		v = tenfold(v, 0)
	}
	return v, true
}

func add1(v column.Int128) column.Int128 {
	lo, carry := bits.Add64(v.Lo, 1, 0)
	return column.Int128{Hi: v.Hi + int64(carry), Lo: lo}
}
