package streams

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/millrace/millrace/internal/keyring"
)

// The stored form of a record: docs/formats/stored-record.md.
const (
	recordVersion    = 1
	recordHasKey     = 1
	recordSealed     = 2
	recordFlags      = recordHasKey | recordSealed
	maxStoredKey     = 4096
	sealedHeaderSize = 12 // number and version of the data key
)

var (
	errRecordDamaged = errors.New("stored record is damaged")
	errRecordNewer   = errors.New("stored record was written by a newer version")
)

// storedRecord is a record as it lies in a batch. Its parts point into it.
type storedRecord struct {
	key        string
	hasKey     bool
	sealed     bool
	dataKey    uint64 // of a sealed record
	keyVersion uint32
	data       []byte // or its sealed form
	header     []byte // what stands before data
}

// storedSize is the length of a record's stored form.
func storedSize(key string, hasKey bool, data int, sealed bool) int {
	n := 1 + data
	if hasKey {
		n += len(key) + 1
		if len(key) >= 1<<7 {
			n++
		}
	}
	if sealed {
		n += sealedHeaderSize + keyring.Overhead
	}
	return n
}

// putStoredHeader writes what stands before the data and returns its length.
// k is nil for a record that is stored as it is.
func putStoredHeader(dst []byte, key string, hasKey bool, k *keyring.ShardKey) int {
	flags, n := byte(recordVersion<<4), 1
	if hasKey {
		flags |= recordHasKey
		if len(key) >= 1<<7 {
			dst[n] = byte(len(key)) | 0x80
			n++
			dst[n] = byte(len(key) >> 7)
		} else {
			dst[n] = byte(len(key))
		}
		n++
		n += copy(dst[n:], key)
	}
	if k != nil {
		flags |= recordSealed
		binary.BigEndian.PutUint64(dst[n:], k.ID)
		binary.BigEndian.PutUint32(dst[n+8:], k.Version)
		n += sealedHeaderSize
	}
	dst[0] = flags
	return n
}

// parseStored reads a stored record. It allocates nothing and trusts no length.
func parseStored(b []byte) (storedRecord, error) {
	var r storedRecord
	if len(b) == 0 {
		return r, errRecordDamaged
	}
	if b[0]>>4 != recordVersion {
		if b[0]>>4 > recordVersion {
			return r, errRecordNewer
		}
		return r, errRecordDamaged
	}
	flags, n := b[0]&15, 1
	if flags&^recordFlags != 0 {
		return r, errRecordDamaged
	}
	if flags&recordHasKey != 0 {
		if len(b) < 2 {
			return r, errRecordDamaged
		}
		size := int(b[1])
		n = 2
		if size >= 1<<7 {
			if len(b) < 3 || b[2] == 0 || b[2] > maxStoredKey>>7 {
				return r, errRecordDamaged
			}
			size = size&0x7f | int(b[2])<<7
			n = 3
		}
		if size > maxStoredKey || size > len(b)-n {
			return r, errRecordDamaged
		}
		r.hasKey = true
		r.key = unsafe.String(unsafe.SliceData(b[n:]), size)
		n += size
	}
	if flags&recordSealed != 0 {
		if len(b)-n < sealedHeaderSize+keyring.Overhead {
			return r, errRecordDamaged
		}
		r.sealed = true
		r.dataKey = binary.BigEndian.Uint64(b[n:])
		r.keyVersion = binary.BigEndian.Uint32(b[n+8:])
		if r.keyVersion == 0 {
			return r, errRecordDamaged
		}
		n += sealedHeaderSize
	}
	r.header, r.data = b[:n:n], b[n:]
	return r, nil
}

// appendBound writes what a sealed record is bound to besides its nonce.
func appendBound(dst []byte, stream uint64, shard uint32, index uint64, header []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, stream)
	dst = binary.BigEndian.AppendUint32(dst, shard)
	dst = binary.BigEndian.AppendUint64(dst, index)
	return append(dst, header...)
}
