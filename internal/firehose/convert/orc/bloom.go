package orc

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// bloom is a Bloom filter of one row group's values.
type bloom struct {
	bits   []uint64
	hashes int
}

// newBloom makes a filter for so many values with a share of false positives.
func newBloom(values int, falsePositives float64) *bloom {
	n := float64(max(1, values))
	m := int(-n * math.Log(falsePositives) / (math.Ln2 * math.Ln2))
	m += 64 - m%64
	return &bloom{bits: make([]uint64, m/64), hashes: max(1, int(math.Round(float64(m)/n*math.Ln2)))}
}

// add sets the bits of a hash.
func (b *bloom) add(hash uint64) {
	first, second := int32(hash), int32(hash>>32)
	m := int32(len(b.bits) * 64)
	for i := int32(1); i <= int32(b.hashes); i++ {
		at := first + i*second
		if at < 0 {
			at = ^at
		}
		at %= m
		b.bits[at>>6] |= 1 << (at & 63)
	}
}

// encode is the message BloomFilter, with its bits as bytes.
func (b *bloom) encode() []byte {
	set := make([]byte, 0, 8*len(b.bits))
	for _, w := range b.bits {
		set = binary.LittleEndian.AppendUint64(set, w)
	}
	return message(uintField(nil, 1, uint64(b.hashes)), 3, set)
}

// hashLong is Thomas Wang's hash of an integer.
func hashLong(v int64) uint64 {
	v = ^v + v<<21
	v ^= v >> 24
	v = v + v<<3 + v<<8
	v ^= v >> 14
	v = v + v<<2 + v<<4
	v ^= v >> 28
	v += v << 31
	return uint64(v)
}

// hashBytes is the 64-bit variant of Murmur3 that Hive made up.
func hashBytes(p []byte) uint64 {
	const c1, c2 = 0x87c37b91114253d5, 0x4cf5ad432745937f
	h := uint64(104729)
	length := uint64(len(p))
	for len(p) >= 8 {
		k := binary.LittleEndian.Uint64(p) * c1
		h ^= bits.RotateLeft64(k, 31) * c2
		h = bits.RotateLeft64(h, 27)*5 + 0x52dce729
		p = p[8:]
	}
	if len(p) > 0 {
		k := uint64(0)
		for i, c := range p {
			k |= uint64(c) << (8 * i)
		}
		h ^= bits.RotateLeft64(k*c1, 31) * c2
	}
	h ^= length
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
