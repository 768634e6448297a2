package streams

import "math/bits"

// sequenceNumber is the content of a record's sequence number. The text carries
// it in 186 bits, written in decimal:
//
//	bits 184–185  2
//	     148–183  second in which the shard was created
//	     144–147  low four bits of the shard's index
//	      80–143  index of the record in its shard, top bit 0
//	      72–79   0
//	      36–71   second in which the record arrived
//	       4–35   the shard's index
//	       0–3    2, the version
//
// so within a shard the order of the numbers is the order of the indexes. Only
// version 2 is written; 0 and 1 are read, to be refused with the right words.
type sequenceNumber struct {
	created int64  // of the shard, seconds since 1970
	shard   uint32 // index of the shard in its stream
	index   uint64 // of the record in the shard, from 1; 0 is the shard's start
	at      int64  // arrival, seconds since 1970
	version uint8  // 2 when written; what parseSequenceNumber found
}

const (
	// sequenceDigits is the length of every number that is written today.
	sequenceDigits = 56
	// maxSequenceDigits is how long a text the service takes for a number.
	maxSequenceDigits = 129
	// endIndex is the index in a closed shard's last number. No record has it.
	endIndex = 1<<63 - 1
	// maxCreated bounds the creation second of a number that is accepted.
	maxCreated = 16025175000
	// second36 masks a 36-bit second.
	second36 = 1<<36 - 1
)

// startOf is the StartingSequenceNumber of a shard: below all its records.
func startOf(sh *shard) sequenceNumber {
	return sequenceNumber{created: sh.created, shard: sh.index, at: sh.created, version: 2}
}

// endOf is the EndingSequenceNumber of a closed shard: above all its records.
func endOf(sh *shard) sequenceNumber {
	return sequenceNumber{created: sh.created, shard: sh.index, index: endIndex, at: max(sh.created, sh.closed/1000), version: 2}
}

// recordNumber is the number of a record that arrived in a shard at at,
// milliseconds since 1970.
func recordNumber(sh *shard, index uint64, at int64) sequenceNumber {
	return sequenceNumber{created: sh.created, shard: sh.index, index: index, at: max(sh.created, at/1000), version: 2}
}

// words are the 192 bits of a number, most significant first.
func (n sequenceNumber) words() (a, b, c uint64) {
	low := uint64(n.at)&second36<<36 | uint64(n.shard)<<4 | 2 // bits 0–71 without those above 63
	highAt := uint64(n.at) & second36 >> 28                   // bits 64–71
	a = 2<<56 | uint64(n.created)&second36<<20 | uint64(n.shard)&15<<16 | n.index>>48
	b = n.index<<16 | highAt
	return a, b, low
}

// String is the number in decimal, 56 digits.
func (n sequenceNumber) String() string {
	var b [sequenceDigits]byte
	return string(n.appendTo(b[:0]))
}

// appendTo writes the number in decimal, 56 digits.
//
// Two divisions by 10^19 leave groups of 19,
// 19 and 18 digits; groups are written two digits at a time.
func (n sequenceNumber) appendTo(dst []byte) []byte {
	const e19 = 1e19
	a, b, c := n.words()
	// a is below 2^58, hence below 10^19.
	b, r := bits.Div64(a, b, e19)
	c, low := bits.Div64(r, c, e19)
	// What is left is below 2^186/10^19, so b is below 10^19 too, and the second
	// quotient is below 10^18.
	high, mid := bits.Div64(b, c, e19)

	at := len(dst)
	dst = append(dst, "00000000000000000000000000000000000000000000000000000000"...)
	out := (*[sequenceDigits]byte)(dst[at:])
	putDigits(out[0:18], high)
	out[18] = '0' + byte(mid/1e18)
	putDigits(out[19:37], mid%1e18)
	out[37] = '0' + byte(low/1e18)
	putDigits(out[38:56], low%1e18)
	return dst
}

const digitPairs = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"

// putDigits writes 18 digits.
func putDigits(dst []byte, n uint64) {
	_ = dst[17]
	put9(dst[0:9:9], uint32(n/1e9))
	put9(dst[9:18:18], uint32(n%1e9))
}

// put9 writes nine digits.
func put9(dst []byte, n uint32) {
	_ = dst[8]
	d := n % 100 * 2
	n /= 100
	dst[7], dst[8] = digitPairs[d], digitPairs[d+1]
	d = n % 100 * 2
	n /= 100
	dst[5], dst[6] = digitPairs[d], digitPairs[d+1]
	d = n % 100 * 2
	n /= 100
	dst[3], dst[4] = digitPairs[d], digitPairs[d+1]
	d = n % 100 * 2
	dst[1], dst[2] = digitPairs[d], digitPairs[d+1]
	dst[0] = '0' + byte(n/100)
}

// parseSequenceNumber reads a number of version 0, 1 or 2.
func parseSequenceNumber(text string) (sequenceNumber, bool) {
	if text == "" || len(text) > maxSequenceDigits || text[0] == '0' && len(text) > 1 {
		return sequenceNumber{}, false
	}
	var w [3]uint64 // least significant first
	for len(text) > 0 {
		n := min(19, len(text))
		carry, scale := uint64(0), uint64(1)
		for i := range n {
			d := text[i] - '0'
			if d > 9 {
				return sequenceNumber{}, false
			}
			carry, scale = carry*10+uint64(d), scale*10
		}
		text = text[n:]
		for i := range w {
			hi, lo := bits.Mul64(w[i], scale)
			var c uint64
			w[i], c = bits.Add64(lo, carry, 0)
			carry = hi + c
		}
		if carry != 0 {
			return sequenceNumber{}, false
		}
	}
	// Below 2^125 stands version 0: 124 bits under a constant 1, which a small
	// number such as 0 does not have.
	if w[2] == 0 && w[1]>>61 == 0 {
		v := sequenceNumber{shard: uint32(w[0] & 0xffff)}
		v.created = int64(w[1] >> 24 & second36)
		return v, v.created < maxCreated
	}
	if w[2]>>56 != 2 {
		return sequenceNumber{}, false
	}
	n := sequenceNumber{created: int64(w[2] >> 20 & second36), version: uint8(w[0] & 15)}
	if n.created >= maxCreated {
		return sequenceNumber{}, false
	}
	n.shard = uint32(w[0] >> 4)
	switch n.version {
	case 1:
		// 2 unknown, 9 time, 14 random, 2 index, 8 shard, version.
		n.at = int64(w[2]&0xff<<28 | w[1]>>36)
		n.index = w[0] >> 36 & 0xff
		return n, true
	case 2:
		n.index = w[2]&0xffff<<48 | w[1]>>16
		n.at = int64(w[1]&0xff<<28 | w[0]>>36)
		return n, n.index>>63 == 0
	}
	return sequenceNumber{}, false
}
