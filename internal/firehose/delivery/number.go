package delivery

import "math/bits"

// number writes the place of a directly put record in the form of a sequence
// number: 186 bits in 56 decimal digits, so that numbers of one delivery stream
// grow with its records.
//
//	bits 184–185  2
//	     148–183  second in which the log was made
//	      80–143  index of the record, top bit 0
//	      36–71   second in which the record arrived
//	       0–3    2
func number(created int64, index uint64, arrival int64) string {
	const e19 = 1e19
	const second36 = 1<<36 - 1
	at := uint64(max(created, arrival/1000)) & second36
	a := 2<<56 | uint64(created)&second36<<20 | index>>48
	b := index<<16 | at>>28
	c := at<<36 | 2
	b, r := bits.Div64(a, b, e19)
	c, low := bits.Div64(r, c, e19)
	high, mid := bits.Div64(b, c, e19)
	var out [56]byte
	digits(out[0:18], high)
	digits(out[18:37], mid)
	digits(out[37:56], low)
	return string(out[:])
}

func digits(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = '0' + byte(n%10)
		n /= 10
	}
}
