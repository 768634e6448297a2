package shardlog

import (
	"fmt"
	"iter"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// maxFrameHeader is the length of the longest length prefix: four groups of
// seven bits hold every length up to driver.MaxBatchBytes.
const maxFrameHeader = 4

// FrameSize is how many bytes a record of n bytes takes inside a batch. n is 0
// to driver.MaxBatchBytes.
func FrameSize(n int) int {
	switch {
	case n < 1<<7:
		return 1 + n
	case n < 1<<14:
		return 2 + n
	case n < 1<<21:
		return 3 + n
	default:
		return 4 + n
	}
}

// PutFrame writes the prefix of a record of n bytes to the start of dst and
// returns the prefix's size; the record itself follows there. It panics if dst
// is too short, as copying behind a slice would.
func PutFrame(dst []byte, n int) int {
	i := 0
	for n >= 0x80 {
		dst[i] = byte(n) | 0x80
		n >>= 7
		i++
	}
	dst[i] = byte(n)
	return i + 1
}

// NewBatch frames records that are at hand as slices. Callers on a hot path
// implement driver.Payload themselves and write every record once, in place.
func NewBatch(shard driver.ShardID, records ...[]byte) *driver.Batch {
	size := 0
	for _, r := range records {
		size += FrameSize(len(r))
	}
	return &driver.Batch{Shard: shard, Count: len(records), Size: size, Payload: frames(records)}
}

type frames [][]byte

func (f frames) Encode(dst []byte, _ driver.Index, _ int64) {
	for _, r := range f {
		dst = dst[PutFrame(dst, len(r)):]
		dst = dst[copy(dst, r):]
	}
}

// Record is one record of a batch. Data points into the batch's payload.
type Record struct {
	Index driver.Index
	Data  []byte
}

// Records goes through the records of a stored batch in order. Bytes that are
// not docs/formats/record-batch.md end the sequence with a *driver.CorruptError
// as the second value; it comes after the records before the damage and alone.
// No length is trusted further than the payload reaches, and nothing is
// allocated.
func Records(b driver.StoredBatch) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		rest, index := b.Payload, b.Base
		for range b.Count {
			n, size, reason := frameLength(rest)
			if reason != "" {
				yield(Record{}, malformed(b, rest, reason))
				return
			}
			if !yield(Record{Index: index, Data: rest[size : size+n : size+n]}, nil) {
				return
			}
			rest = rest[size+n:]
			index++
		}
		if len(rest) > 0 {
			yield(Record{}, malformed(b, rest, "bytes after the last record"))
		}
	}
}

// frameLength reads a prefix and makes sure that the record it announces is
// there. The reason is empty when it is.
func frameLength(b []byte) (n, size int, reason string) {
	for i := range min(len(b), maxFrameHeader) {
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] >= 0x80 {
			continue
		}
		switch {
		case i > 0 && b[i] == 0:
			return 0, 0, "record length is not in its shortest form"
		case n > driver.MaxBatchBytes:
			return 0, 0, "record length is over the limit"
		case n > len(b)-i-1:
			return 0, 0, "record reaches beyond its batch"
		}
		return n, i + 1, ""
	}
	if len(b) < maxFrameHeader {
		return 0, 0, "batch ends within a record length"
	}
	return 0, 0, "record length is over the limit"
}

func malformed(b driver.StoredBatch, rest []byte, reason string) error {
	return &driver.CorruptError{
		File:   fmt.Sprintf("batch at index %d", b.Base),
		Offset: int64(len(b.Payload) - len(rest)),
		Reason: reason,
	}
}
