// Package aggregate reads and writes aggregated records, in which producers pack
// many small user records into one record of a stream.
//
// The one idea: an aggregated record is recognised by its content alone, so
// anything that does not fit entirely is a plain record and never an error.
//
//	F3 89 9A C2 │ protocol buffers message │ MD5 of the message, 16 bytes
//
// The message lists partition keys and explicit hash keys once each; user
// records refer to them by number. The server never looks into records: this is
// for producers and consumers. Start reading at Decode.
package aggregate

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
)

const (
	// MaxRecords bounds the user records in one aggregated record; more make it a
	// plain one.
	MaxRecords = 1 << 20
	// Overhead is what wrapping adds to a message.
	Overhead = len(magic) + md5.Size

	magic = "\xf3\x89\x9a\xc2"
)

// Tag is a note on a user record.
type Tag struct{ Key, Value string }

// Record is a user record. Its place in the aggregate is its sub-sequence number.
type Record struct {
	PartitionKey string
	// ExplicitHashKey is decimal; empty for none.
	ExplicitHashKey string
	Data            []byte
	Tags            []Tag
}

// Is reports whether b looks like an aggregated record: magic and checksum. The
// message may still not be one.
func Is(b []byte) bool {
	if len(b) <= Overhead || string(b[:len(magic)]) != magic {
		return false
	}
	body := b[len(magic) : len(b)-md5.Size]
	sum := md5.Sum(body)
	return bytes.Equal(sum[:], b[len(b)-md5.Size:])
}

// Decode returns the user records of an aggregated record, and false if b is a
// plain one. Data points into b. Memory is in proportion to len(b).
func Decode(b []byte) ([]Record, bool) {
	if !Is(b) {
		return nil, false
	}
	var keys, hashes []string
	var records []Record
	// Tables may follow the records that use them: places first, then names.
	type places struct {
		key, hash uint64
		hasHash   bool
	}
	var refs []places
	ok := fields(b[len(magic):len(b)-md5.Size], func(number int, value uint64, data []byte, isBytes bool) bool {
		switch number {
		case 1, 2, 3:
			if !isBytes {
				return false
			}
		}
		switch number {
		case 1:
			keys = append(keys, string(data))
		case 2:
			hashes = append(hashes, string(data))
		case 3:
			if len(records) == MaxRecords {
				return false
			}
			var r Record
			var p places
			hasKey := false
			ok := fields(data, func(number int, value uint64, data []byte, isBytes bool) bool {
				if number >= 1 && number <= 4 && isBytes != (number > 2) {
					return false
				}
				switch number {
				case 1:
					p.key, hasKey = value, true
				case 2:
					p.hash, p.hasHash = value, true
				case 3:
					r.Data = data
				case 4:
					t, ok := decodeTag(data)
					if !ok {
						return false
					}
					r.Tags = append(r.Tags, t)
				}
				return true
			})
			if !ok || !hasKey || r.Data == nil {
				return false
			}
			records, refs = append(records, r), append(refs, p)
		}
		return true
	})
	if !ok {
		return nil, false
	}
	for i, p := range refs {
		if p.key >= uint64(len(keys)) || p.hasHash && p.hash >= uint64(len(hashes)) {
			return nil, false
		}
		records[i].PartitionKey = keys[p.key]
		if p.hasHash {
			records[i].ExplicitHashKey = hashes[p.hash]
		}
	}
	return records, true
}

func decodeTag(b []byte) (t Tag, ok bool) {
	hasKey := false
	ok = fields(b, func(number int, _ uint64, data []byte, isBytes bool) bool {
		switch number {
		case 1:
			t.Key, hasKey = string(data), true
			return isBytes
		case 2:
			t.Value = string(data)
			return isBytes
		}
		return true
	})
	return t, ok && hasKey
}

// fields walks a message. Unknown fields are given as well; groups, which the
// format has long given up, are malformed.
func fields(b []byte, f func(number int, value uint64, data []byte, isBytes bool) bool) bool {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return false
		}
		b = b[n:]
		var value uint64
		var data []byte
		isBytes := false
		switch tag & 7 {
		case 0:
			if value, n = binary.Uvarint(b); n <= 0 {
				return false
			}
			b = b[n:]
		case 1, 5:
			size := 8
			if tag&7 == 5 {
				size = 4
			}
			if len(b) < size {
				return false
			}
			if tag>>3 <= 4 {
				return false // none of ours is of fixed length
			}
			b = b[size:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return false
			}
			data, isBytes = b[n:n+int(size):n+int(size)], true
			b = b[n+int(size):]
		default:
			return false
		}
		if !f(int(tag>>3), value, data, isBytes) {
			return false
		}
	}
	return true
}

// Append appends the aggregated form of records to dst. Callers keep the result
// below the limit of their stream; see Encoder to learn the size beforehand.
func Append(dst []byte, records []Record) []byte {
	var e Encoder
	for _, r := range records {
		e.Add(r)
	}
	return e.AppendTo(dst)
}

// Encoder collects user records. Its zero value is empty.
type Encoder struct {
	keys, hashes map[string]uint64
	tables, body []byte
	count        int
}

// Size is the length of the aggregated record so far.
func (e *Encoder) Size() int { return Overhead + len(e.tables) + len(e.body) }

// Len is how many records were added.
func (e *Encoder) Len() int { return e.count }

// Reset empties the encoder and keeps its memory.
func (e *Encoder) Reset() {
	clear(e.keys)
	clear(e.hashes)
	e.tables, e.body, e.count = e.tables[:0], e.body[:0], 0
}

// Add takes in a copy of a record.
func (e *Encoder) Add(r Record) {
	if e.keys == nil {
		e.keys, e.hashes = map[string]uint64{}, map[string]uint64{}
	}
	key := e.entry(e.keys, 1, r.PartitionKey)
	var inner []byte
	inner = append(inner, 1<<3)
	inner = binary.AppendUvarint(inner, key)
	if r.ExplicitHashKey != "" {
		inner = append(inner, 2<<3)
		inner = binary.AppendUvarint(inner, e.entry(e.hashes, 2, r.ExplicitHashKey))
	}
	size := len(inner) + 1 + uvarintSize(uint64(len(r.Data))) + len(r.Data)
	var tags []byte
	for _, t := range r.Tags {
		tag := appendField(nil, 1, t.Key)
		if t.Value != "" {
			tag = appendField(tag, 2, t.Value)
		}
		tags = appendField(tags, 4, tag)
	}
	e.body = append(e.body, 3<<3|2)
	e.body = binary.AppendUvarint(e.body, uint64(size+len(tags)))
	e.body = append(e.body, inner...)
	e.body = appendField(e.body, 3, r.Data)
	e.body = append(e.body, tags...)
	e.count++
}

// entry is the number of a text in a table, which is written if it is new.
func (e *Encoder) entry(table map[string]uint64, field int, text string) uint64 {
	n, ok := table[text]
	if !ok {
		n = uint64(len(table))
		table[text] = n
		e.tables = appendField(e.tables, field, text)
	}
	return n
}

// AppendTo appends the aggregated record to dst.
func (e *Encoder) AppendTo(dst []byte) []byte {
	dst = append(dst, magic...)
	at := len(dst)
	dst = append(dst, e.tables...)
	dst = append(dst, e.body...)
	sum := md5.Sum(dst[at:])
	return append(dst, sum[:]...)
}

func appendField[T string | []byte](dst []byte, number int, value T) []byte {
	dst = append(dst, byte(number<<3|2))
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func uvarintSize(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
