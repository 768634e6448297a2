package run

import (
	"math"
	"math/bits"

	"github.com/millrace/millrace/internal/analytics/sql"
)

// meanOf divides a sum of more than 64 bits, over·2^64 + sum, by a count of its
// parts, towards zero. A mean always fits: it lies between its parts.
func meanOf(over, sum, n int64) int64 {
	if over == 0 {
		return sum / n
	}
	high, low := uint64(over), uint64(sum)
	if sum < 0 {
		high-- // the low half is signed
	}
	negative := int64(high) < 0
	if negative {
		var borrow uint64
		low, borrow = bits.Sub64(0, low, 0)
		high, _ = bits.Sub64(0, high, borrow)
	}
	q, _ := bits.Div64(high, low, uint64(n))
	if negative {
		return -int64(q)
	}
	return int64(q)
}

// A sum of doubles depends, in its last bits, on what was added and taken back
// before; so that what goes on from a snapshot gives the same bits, it is kept
// beside the values it could be made from.

// floatResult is the value of SUM or AVG of approximate numbers. What is not
// finite has become too large: no value that is added is.
func floatResult(v float64, n int64, avg bool, t sql.Type) (float64, error) {
	if avg {
		v /= float64(n)
	}
	if t.Kind == sql.KindReal {
		v = float64(float32(v))
	}
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, overflow(t)
	}
	return v, nil
}
