package streams

import (
	"crypto/md5"
	"encoding/binary"
	"errors"
	"math/bits"
	"unsafe"
)

// hashKey is a point of the 128-bit hash space that shards divide. On the wire
// it is decimal, without leading zeros. The fields stand in order of weight, so
// hashKey{hi, lo} reads like the number. Fields are compared and added with
// carry; nothing here allocates.
type hashKey struct{ hi, lo uint64 }

// maxHashKeyDigits is the length of 2^128-1 in decimal.
const maxHashKeyDigits = 39

// compare is negative, zero or positive as h is below, equal to or above o.
func (h hashKey) compare(o hashKey) int {
	switch {
	case h.hi < o.hi:
		return -1
	case h.hi > o.hi:
		return 1
	case h.lo < o.lo:
		return -1
	case h.lo > o.lo:
		return 1
	}
	return 0
}

// less reports whether h is below o.
func (h hashKey) less(o hashKey) bool {
	return h.hi < o.hi || h.hi == o.hi && h.lo < o.lo
}

// add returns h + o modulo 2^128.
func (h hashKey) add(o hashKey) hashKey {
	lo, carry := bits.Add64(h.lo, o.lo, 0)
	hi, _ := bits.Add64(h.hi, o.hi, carry)
	return hashKey{hi, lo}
}

// sub returns h - o modulo 2^128.
func (h hashKey) sub(o hashKey) hashKey {
	lo, borrow := bits.Sub64(h.lo, o.lo, 0)
	hi, _ := bits.Sub64(h.hi, o.hi, borrow)
	return hashKey{hi, lo}
}

// hashOf is where records with a partition key belong: the MD5 of its bytes as
// a big-endian number.
func hashOf(partitionKey string) hashKey {
	sum := md5.Sum(unsafe.Slice(unsafe.StringData(partitionKey), len(partitionKey)))
	return hashKey{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

// parseHashKey reads decimal digits without sign or leading zeros, 0 to
// 2^128-1.
func parseHashKey(text string) (hashKey, bool) {
	if text == "" || len(text) > maxHashKeyDigits || text[0] == '0' && len(text) > 1 {
		return hashKey{}, false
	}
	var h hashKey
	for len(text) > 0 {
		// Up to 19 digits at a time fit into 64 bits.
		n := min(19, len(text))
		chunk, scale := uint64(0), uint64(1)
		for i := range n {
			d := text[i] - '0'
			if d > 9 {
				return hashKey{}, false
			}
			chunk, scale = chunk*10+uint64(d), scale*10
		}
		text = text[n:]
		carry, lo := bits.Mul64(h.lo, scale)
		over, hi := bits.Mul64(h.hi, scale)
		lo, c := bits.Add64(lo, chunk, 0)
		hi, c = bits.Add64(hi, carry, c)
		if over != 0 || c != 0 {
			return hashKey{}, false
		}
		h = hashKey{hi, lo}
	}
	return h, true
}

// appendTo writes h in decimal.
func (h hashKey) appendTo(dst []byte) []byte {
	var digits [maxHashKeyDigits]byte
	i := len(digits)
	for h.hi != 0 {
		// Division by 10^19 in two halves: the remainder of the upper half is below
		// the divisor, as Div64 wants.
		const e19 = 1e19
		hi, rem := h.hi/e19, h.hi%e19
		lo, rem := bits.Div64(rem, h.lo, e19)
		h = hashKey{hi, lo}
		for range 19 {
			i--
			digits[i] = '0' + byte(rem%10)
			rem /= 10
		}
	}
	for n := h.lo; n != 0; n /= 10 {
		i--
		digits[i] = '0' + byte(n%10)
	}
	// Whole groups of 19 may start with zeros.
	for i < len(digits) && digits[i] == '0' {
		i++
	}
	if i == len(digits) {
		i--
		digits[i] = '0'
	}
	return append(dst, digits[i:]...)
}

// String is h in decimal.
func (h hashKey) String() string {
	var b [maxHashKeyDigits]byte
	return string(h.appendTo(b[:0]))
}

var errHashKey = errors.New("hash key is not a decimal number from 0 to 2^128-1")

// MarshalText makes hash keys decimal text in stored records.
func (h hashKey) MarshalText() ([]byte, error) { return h.appendTo(nil), nil }

// UnmarshalText reads what MarshalText writes.
func (h *hashKey) UnmarshalText(text []byte) error {
	parsed, ok := parseHashKey(string(text))
	if !ok {
		return errHashKey
	}
	*h = parsed
	return nil
}
