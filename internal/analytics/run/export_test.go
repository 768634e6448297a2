package run

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"
)

// Resealed gives the frames of a snapshot the checksums that they need, as far as
// it has any.
func Resealed(raw []byte) []byte {
	out := append([]byte(nil), raw...)
	for at := len(snapshotMagic); at < len(out); {
		n, m := binary.Uvarint(out[at:])
		if m <= 0 || n > uint64(len(out)) || at+m+int(n)+4 > len(out) {
			break
		}
		at += m + int(n)
		binary.LittleEndian.PutUint32(out[at:], crc32.Checksum(out[:at], castagnoli))
		at += 4
	}
	return out
}

// OutRows sets how many rows operators that multiply rows put out at once, and
// returns what it was.
func OutRows(n int) (before int) {
	before, outRows = outRows, n
	return before
}

// ForkRows sets how many rows a batch has that workers share, and returns what it
// was.
func ForkRows(n int) (before int) {
	before, forkRows = forkRows, n
	return before
}

// Observe has f do what workers share, in place of them.
func (a *Application) Observe(f func(n int, part func(i int))) { a.workers.observe = f }

// Measured looks at all operators and says what they keep.
func (a *Application) Measured() int64 {
	total := int64(0)
	for _, m := range a.meters {
		var g gauge
		m.op.measure(&g)
		total += g.bytes
	}
	return total
}

// LaneRows changes how many results a lane of a join keeps before it waits, and from
// how many on lanes wait.
func LaneRows(lane, few int) (laneBefore, fewBefore int) {
	laneBefore, fewBefore, laneRows, fewRows = laneRows, fewRows, lane, few
	return laneBefore, fewBefore
}

// Lend has the texts of a batch lie in memory that spoil overwrites, as those of
// ParseBytes lie in the records: nothing may keep them.
func (b *Batch) Lend() (spoil func()) {
	var lent [][]byte
	for _, c := range b.Cols {
		if c == nil {
			continue
		}
		for i, s := range c.S {
			raw := []byte(s)
			c.S[i] = unsafe.String(unsafe.SliceData(raw), len(raw))
			lent = append(lent, raw)
		}
	}
	return func() {
		for _, raw := range lent {
			for i := range raw {
				raw[i] = '#'
			}
		}
	}
}
