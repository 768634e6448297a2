package streams

import "math/bits"

// Arithmetic on ranges of the hash space, all of it exact: floats would leave
// holes between shards.

// maxHash is the last hash.
var maxHash = hashKey{^uint64(0), ^uint64(0)}

// after is h + 1; wraps behind the last hash.
func after(h hashKey) hashKey {
	lo, carry := bits.Add64(h.lo, 1, 0)
	hi, _ := bits.Add64(h.hi, 0, carry)
	return hashKey{hi, lo}
}

// before is h - 1; wraps below the first hash.
func before(h hashKey) hashKey {
	lo, borrow := bits.Sub64(h.lo, 1, 0)
	hi, _ := bits.Sub64(h.hi, 0, borrow)
	return hashKey{hi, lo}
}

// distance is |a - b|.
func distance(a, b hashKey) hashKey {
	if a.compare(b) < 0 {
		a, b = b, a
	}
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return hashKey{hi, lo}
}

// uniformWidth is floor(2^128 / n) for n of 2 or more.
func uniformWidth(n uint32) hashKey {
	// Long division of 1·2^128 in digits of 64 bits.
	hi, r := bits.Div64(1%uint64(n), 0, uint64(n))
	lo, _ := bits.Div64(r, 0, uint64(n))
	return hashKey{hi, lo}
}

// uniformStart is the first hash of shard i of n of equal width.
func uniformStart(i, n uint32) hashKey {
	if i == 0 {
		return hashKey{}
	}
	w := uniformWidth(n)
	carry, lo := bits.Mul64(w.lo, uint64(i))
	return hashKey{w.hi*uint64(i) + carry, lo}
}

// uniformRange is the range of shard i of n of equal width; the last one takes
// what the division leaves.
func uniformRange(i, n uint32) (start, end hashKey) {
	if i+1 == n {
		return uniformStart(i, n), maxHash
	}
	return uniformStart(i, n), before(uniformStart(i+1, n))
}
