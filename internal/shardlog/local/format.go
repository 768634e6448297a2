package local

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// The byte layouts of docs/formats/wal.md. Sealed segments are in chunk.go, the
// manifest in manifest.go.

const (
	walVersion = 1
	walMagic   = "MRWAL\r\n\x1a"
	frameMagic = 0x4d52464d

	blockBytes       = vfs.Alignment // what groups are padded to
	fileHeaderBytes  = 44
	secondHeaderAt   = 2048
	frameHeaderBytes = 48
	batchHeaderBytes = 40
)

// Segment states in the file header.
const (
	segmentInUse = 1
	segmentFree  = 2
)

// Frame kinds.
const (
	frameBatches  = 1
	frameCommands = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func alignUp(n int) int { return (n + blockBytes - 1) &^ (blockBytes - 1) }

// walHeader is the file header of a log segment.
type walHeader struct {
	version  uint32
	state    uint32
	sequence uint64
	salt     uint64
	size     uint64
}

// put writes both copies into block, which is blockBytes long.
func (h walHeader) put(block []byte) {
	clear(block[:blockBytes])
	for _, b := range [][]byte{block, block[secondHeaderAt:]} {
		copy(b, walMagic)
		binary.LittleEndian.PutUint32(b[8:], walVersion)
		binary.LittleEndian.PutUint32(b[12:], h.state)
		binary.LittleEndian.PutUint64(b[16:], h.sequence)
		binary.LittleEndian.PutUint64(b[24:], h.salt)
		binary.LittleEndian.PutUint64(b[32:], h.size)
		binary.LittleEndian.PutUint32(b[40:], checksum(b[:40]))
	}
}

// parseWalHeader returns the better of the two copies; ok is false if neither is
// whole. A whole copy may have a version this release does not know.
func parseWalHeader(block []byte) (h walHeader, ok bool) {
	if len(block) < blockBytes {
		return h, false
	}
	for _, b := range [][]byte{block, block[secondHeaderAt:]} {
		if string(b[:8]) != walMagic || binary.LittleEndian.Uint32(b[40:]) != checksum(b[:40]) {
			continue
		}
		c := walHeader{
			version:  binary.LittleEndian.Uint32(b[8:]),
			state:    binary.LittleEndian.Uint32(b[12:]),
			sequence: binary.LittleEndian.Uint64(b[16:]),
			salt:     binary.LittleEndian.Uint64(b[24:]),
			size:     binary.LittleEndian.Uint64(b[32:]),
		}
		if !ok || c.sequence > h.sequence {
			h, ok = c, true
		}
	}
	return h, ok
}

// frameHeader stands before every frame's body.
type frameHeader struct {
	kind      uint8
	salt      uint64
	lsn       uint64
	committed uint64
	length    uint32
	count     uint32
	bodyCRC   uint32
}

func (h *frameHeader) put(b []byte) {
	binary.LittleEndian.PutUint32(b[0:], frameMagic)
	b[4], b[5], b[6], b[7] = walVersion, h.kind, 0, 0
	binary.LittleEndian.PutUint64(b[8:], h.salt)
	binary.LittleEndian.PutUint64(b[16:], h.lsn)
	binary.LittleEndian.PutUint64(b[24:], h.committed)
	binary.LittleEndian.PutUint32(b[32:], h.length)
	binary.LittleEndian.PutUint32(b[36:], h.count)
	binary.LittleEndian.PutUint32(b[40:], h.bodyCRC)
	binary.LittleEndian.PutUint32(b[44:], checksum(b[:44]))
}

// parseFrameHeader decodes a header that belongs to the given use of a segment.
func parseFrameHeader(b []byte, salt uint64) (h frameHeader, ok bool) {
	if len(b) < frameHeaderBytes ||
		binary.LittleEndian.Uint32(b) != frameMagic ||
		b[4] != walVersion ||
		binary.LittleEndian.Uint64(b[8:]) != salt ||
		binary.LittleEndian.Uint32(b[44:]) != checksum(b[:44]) {
		return h, false
	}
	return frameHeader{
		kind:      b[5],
		salt:      salt,
		lsn:       binary.LittleEndian.Uint64(b[16:]),
		committed: binary.LittleEndian.Uint64(b[24:]),
		length:    binary.LittleEndian.Uint32(b[32:]),
		count:     binary.LittleEndian.Uint32(b[36:]),
		bodyCRC:   binary.LittleEndian.Uint32(b[40:]),
	}, true
}

// batchHeader describes one stored batch; its payload follows.
type batchHeader struct {
	size  uint32
	shard driver.ShardID
	base  driver.Index
	at    int64
	count uint32
}

// putBatch writes the header of a batch whose payload already stands behind it,
// with the checksum over both.
func (h *batchHeader) put(b []byte) {
	binary.LittleEndian.PutUint32(b[4:], h.size)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.shard))
	binary.LittleEndian.PutUint64(b[16:], uint64(h.base))
	binary.LittleEndian.PutUint64(b[24:], uint64(h.at))
	binary.LittleEndian.PutUint32(b[32:], h.count)
	binary.LittleEndian.PutUint32(b[36:], 0)
	binary.LittleEndian.PutUint32(b[0:], checksum(b[4:batchHeaderBytes+int(h.size)]))
}

// peekBatch decodes a header without looking at the payload; it trusts nothing
// but bounds.
func peekBatch(b []byte) (h batchHeader, ok bool) {
	if len(b) < batchHeaderBytes {
		return h, false
	}
	h = batchHeader{
		size:  binary.LittleEndian.Uint32(b[4:]),
		shard: driver.ShardID(binary.LittleEndian.Uint64(b[8:])),
		base:  driver.Index(binary.LittleEndian.Uint64(b[16:])),
		at:    int64(binary.LittleEndian.Uint64(b[24:])),
		count: binary.LittleEndian.Uint32(b[32:]),
	}
	ok = h.size > 0 && h.size <= driver.MaxBatchBytes && h.count > 0 && h.count <= driver.MaxBatchRecords
	return h, ok
}

// parseBatch decodes the batch at the start of b and checks its checksum.
func parseBatch(b []byte) (h batchHeader, ok bool) {
	h, ok = peekBatch(b)
	if !ok || int(h.size) > len(b)-batchHeaderBytes {
		return h, false
	}
	return h, binary.LittleEndian.Uint32(b) == checksum(b[4:batchHeaderBytes+int(h.size)])
}

func (h *batchHeader) stored() int        { return batchHeaderBytes + int(h.size) }
func (h *batchHeader) next() driver.Index { return h.base + driver.Index(h.count) }

// Commands.
const (
	commandCreate    = 1
	commandDelete    = 2
	commandRetention = 3
	commandClosed    = 4
)

// command is one change of the shard table. Its shards are ascending runs.
type command struct {
	code      uint8
	retention time.Duration
	notBefore int64
	shards    []run
}

// run is a range of consecutive shards.
type run struct {
	first driver.ShardID
	count uint64
}

// runsOf makes ascending runs of ids, which it sorts; duplicates disappear.
func runsOf(ids []driver.ShardID) []run {
	slices.Sort(ids)
	var runs []run
	for _, id := range ids {
		if n := len(runs); n > 0 {
			last := &runs[n-1]
			end := last.first + driver.ShardID(last.count)
			if id < end {
				continue
			}
			if id == end {
				last.count++
				continue
			}
		}
		runs = append(runs, run{first: id, count: 1})
	}
	return runs
}

func (c *command) append(dst []byte) []byte {
	dst = append(dst, c.code)
	switch c.code {
	case commandCreate:
		dst = binary.AppendUvarint(dst, uint64(c.retention))
		dst = binary.AppendVarint(dst, c.notBefore)
	case commandRetention:
		dst = binary.AppendUvarint(dst, uint64(c.retention))
	case commandClosed:
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.shards)))
	end := driver.ShardID(0)
	for _, r := range c.shards {
		dst = binary.AppendUvarint(dst, uint64(r.first-end))
		dst = binary.AppendUvarint(dst, r.count)
		end = r.first + driver.ShardID(r.count)
	}
	return dst
}

// varints reads varints from a body, and remembers the first failure.
type varints struct {
	b   []byte
	bad bool
}

func (v *varints) unsigned() uint64 {
	n, size := binary.Uvarint(v.b)
	if size <= 0 {
		v.bad, v.b = true, nil
		return 0
	}
	v.b = v.b[size:]
	return n
}

func (v *varints) signed() int64 {
	n, size := binary.Varint(v.b)
	if size <= 0 {
		v.bad, v.b = true, nil
		return 0
	}
	v.b = v.b[size:]
	return n
}

func (v *varints) duration() time.Duration {
	n := v.unsigned()
	if n > math.MaxInt64 {
		v.bad = true
		return 0
	}
	return time.Duration(n)
}

// count reads a number of things that take at least minBytes each, which bounds
// what a damaged number can make the caller allocate.
func (v *varints) count(minBytes int) int {
	n := v.unsigned()
	if n > uint64(len(v.b)/minBytes) {
		v.bad, v.b = true, nil
		return 0
	}
	return int(n)
}

// maxShards bounds the shards a set in a file may name, and so what a damaged
// file can make recovery allocate.
const maxShards = 1 << 26

func (v *varints) runs() []run {
	n := v.count(2)
	runs := make([]run, 0, n)
	end, total := uint64(0), uint64(0)
	for range n {
		gap, count := v.unsigned(), v.unsigned()
		first := end + gap
		if v.bad || first < end || count == 0 || count > maxShards || first+count < first {
			v.bad = true
			return nil
		}
		end = first + count
		if total += count; total > maxShards {
			v.bad = true
			return nil
		}
		runs = append(runs, run{first: driver.ShardID(first), count: count})
	}
	return runs
}

// parseCommands decodes a command frame's body.
func parseCommands(body []byte, count uint32) ([]command, bool) {
	if uint64(count) > uint64(len(body)) {
		return nil, false
	}
	v := varints{b: body}
	commands := make([]command, 0, count)
	for range count {
		if len(v.b) == 0 {
			return nil, false
		}
		c := command{code: v.b[0]}
		v.b = v.b[1:]
		switch c.code {
		case commandCreate:
			c.retention = v.duration()
			c.notBefore = v.signed()
			c.shards = v.runs()
		case commandDelete:
			c.shards = v.runs()
		case commandRetention:
			c.retention = v.duration()
			c.shards = v.runs()
		case commandClosed:
		default:
			return nil, false
		}
		if v.bad {
			return nil, false
		}
		commands = append(commands, c)
	}
	return commands, len(v.b) == 0
}
