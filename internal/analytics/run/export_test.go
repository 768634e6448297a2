package run

import (
	"encoding/binary"
	"hash/crc32"
)

// Resealed gives bytes the checksum of a snapshot.
func Resealed(raw []byte) []byte {
	n := len(raw) - 4
	return binary.LittleEndian.AppendUint32(append([]byte(nil), raw[:n]...), crc32.Checksum(raw[:n], castagnoli))
}
