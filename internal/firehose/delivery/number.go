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
	return string(appendNumber(make([]byte, 0, numberDigits), created, index, arrival))
}

// numberDigits is the length of every number.
const numberDigits = 56

func appendNumber(dst []byte, created int64, index uint64, arrival int64) []byte {
	const e19 = 1e19
	const second36 = 1<<36 - 1
	at := uint64(max(created, arrival/1000)) & second36
	a := 2<<56 | uint64(created)&second36<<20 | index>>48
	b := index<<16 | at>>28
	c := at<<36 | 2
	b, r := bits.Div64(a, b, e19)
	c, low := bits.Div64(r, c, e19)
	high, mid := bits.Div64(b, c, e19)
	n := len(dst)
	dst = append(dst, "00000000000000000000000000000000000000000000000000000000"...)
	digits(dst[n:n+18], high)
	digits(dst[n+18:n+37], mid)
	digits(dst[n+37:n+56], low)
	return dst
}

// digits writes n into the end of dst, which holds zeros.
func digits(dst []byte, n uint64) {
	i := len(dst)
	for n >= 100 {
		pair := n % 100
		n /= 100
		i -= 2
		dst[i], dst[i+1] = '0'+byte(pair/10), '0'+byte(pair%10)
	}
	if n >= 10 {
		dst[i-2] = '0' + byte(n/10)
	}
	if n > 0 {
		dst[i-1] = '0' + byte(n%10)
	}
}
