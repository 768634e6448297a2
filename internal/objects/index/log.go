package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/vfs"
)

// CorruptError is damage to what was once written whole.
type CorruptError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

// NewerError is a file of a release that came after this one.
type NewerError struct {
	File   string
	Format int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has format %d, newer than this release reads", e.File, e.Format)
}

const (
	logMagic      = "MRIXLOG"
	tableMagic    = "MRIXTAB"
	formatVersion = 1

	logHeaderBytes   = 48
	frameHeaderBytes = 16
	// maxFrameBytes bounds a frame: a group of commits is cut there, and no
	// single one may be longer.
	maxFrameBytes = 8 << 20
	maxKeyBytes   = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// logHeader begins a log file: magic and version, the log's id, the id of the
// log before it and where that one ends, the first frame's number, checksum.
type logHeader struct {
	id, previous, previousEnd, first uint64
}

func (h logHeader) encode() []byte {
	b := make([]byte, 0, logHeaderBytes)
	b = append(b, logMagic...)
	b = append(b, formatVersion)
	for _, v := range [...]uint64{h.id, h.previous, h.previousEnd, h.first} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, 0, 0, 0, 0)
}

var errBadHeader = errors.New("bad header")

func decodeLogHeader(name string, b []byte) (h logHeader, err error) {
	if len(b) < logHeaderBytes || string(b[:len(logMagic)]) != logMagic {
		return h, errBadHeader
	}
	if v := int(b[len(logMagic)]); v > formatVersion {
		return h, &NewerError{File: name, Format: v}
	}
	if binary.LittleEndian.Uint32(b[40:]) != crc32.Checksum(b[:40], castagnoli) {
		return h, errBadHeader
	}
	for i, v := range [...]*uint64{&h.id, &h.previous, &h.previousEnd, &h.first} {
		*v = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	return h, nil
}

// A frame is checksum, length of the payload, number, payload.
func appendFrame(dst []byte, number uint64, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint64(dst, number)
	dst = append(dst, payload...)
	binary.LittleEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst
}

// decodeFrame returns the payload of the frame at the start of b if it is whole
// and bears the number.
func decodeFrame(b []byte, number uint64) (payload []byte, ok bool) {
	if len(b) < frameHeaderBytes || binary.LittleEndian.Uint64(b[8:]) != number {
		return nil, false
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n == 0 || n > maxFrameBytes || n > int64(len(b)-frameHeaderBytes) {
		return nil, false
	}
	end := frameHeaderBytes + int(n)
	if crc32.Checksum(b[4:end], castagnoli) != binary.LittleEndian.Uint32(b) {
		return nil, false
	}
	return b[frameHeaderBytes:end], true
}

// laterFrame looks for a whole frame with a number of at least number in b,
// which vouches that something acknowledged stood before it.
func laterFrame(b []byte, number uint64) (offset int, found bool) {
	most := number + uint64(len(b)/frameHeaderBytes) + 1
	if number == 0 { // not known
		number, most = 1, math.MaxUint64
	}
	for i := 0; i+frameHeaderBytes < len(b); i++ {
		n := binary.LittleEndian.Uint64(b[i+8:])
		if n < number || n > most {
			continue
		}
		if _, ok := decodeFrame(b[i:], n); ok {
			return i, true
		}
	}
	return 0, false
}

// A payload is operations: 1 for put or 0 for delete, key length, key, and of a
// put value length and value.
func appendOperation(dst []byte, o operation) []byte {
	kind := byte(1)
	if o.deleted {
		kind = 0
	}
	dst = append(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(len(o.key)))
	dst = append(dst, o.key...)
	if !o.deleted {
		dst = binary.AppendUvarint(dst, uint64(len(o.value)))
		dst = append(dst, o.value...)
	}
	return dst
}

var errBadPayload = errors.New("operations cannot be read")

// decodeOperations calls f for each operation. Keys and values are copies.
func decodeOperations(b []byte, f func(operation)) error {
	for len(b) > 0 {
		kind := b[0]
		if kind > 1 {
			return errBadPayload
		}
		key, rest, ok := cutBytes(b[1:], maxKeyBytes)
		if !ok || len(key) == 0 {
			return errBadPayload
		}
		o := operation{key: string(key), deleted: kind == 0}
		if kind == 1 {
			var value []byte
			if value, rest, ok = cutBytes(rest, maxFrameBytes); !ok {
				return errBadPayload
			}
			o.value = bytes.Clone(value)
		}
		f(o)
		b = rest
	}
	return nil
}

// cutBytes reads a length and as many bytes.
func cutBytes(b []byte, most uint64) (value, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > most || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	return b[w : w+int(n)], b[w+int(n):], true
}

// log is the log being written.
type log struct {
	id   uint64
	file vfs.File
	end  int64 // of what is acknowledged
	size int64 // reserved
}

func logName(id uint64) string   { return fmt.Sprintf("%08d.log", id) }
func tableName(id uint64) string { return fmt.Sprintf("%08d.tab", id) }

// numbered splits the name of a file of ours.
func numbered(name string) (id uint64, extension string, ok bool) {
	base, extension, ok := strings.Cut(name, ".")
	if !ok || len(base) < 8 {
		return 0, "", false
	}
	id, err := strconv.ParseUint(base, 10, 64)
	return id, extension, err == nil
}

// readLog reads a log and calls f for the operations it acknowledges. end, if
// not negative, is where the next log says that this one ends; otherwise it is
// the last, and its end is found.
func readLog(fsys vfs.FS, name string, id, number uint64, end int64, f func(operation)) (next uint64, last int64, err error) {
	file, err := fsys.Open(name, 0)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return 0, 0, err
	}
	if size > 4*maxFrameBytes {
		return 0, 0, &CorruptError{name, 0, fmt.Sprintf("%d bytes are more than a log can have", size)}
	}
	b := make([]byte, size)
	if n, err := file.ReadAt(b, 0); n < len(b) && err != nil && err != io.EOF {
		return 0, 0, fmt.Errorf("read %s: %w", name, err)
	}
	h, err := decodeLogHeader(name, b)
	if errors.Is(err, errBadHeader) {
		// A log is used once its header is durable: one without was never used,
		// unless something in it says otherwise.
		if at, found := laterFrame(b, number); found || end >= 0 {
			return 0, 0, &CorruptError{name, int64(at), "the header is missing though the log was used"}
		}
		return number, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if h.id != id {
		return 0, 0, &CorruptError{name, 8, fmt.Sprintf("it is log %d by its header", h.id)}
	}
	if number != 0 && h.first != number {
		return 0, 0, &CorruptError{name, 32, fmt.Sprintf("it begins with frame %d, not %d", h.first, number)}
	}
	number = h.first
	at := int64(logHeaderBytes)
	if end > size {
		return 0, 0, &CorruptError{name, size, fmt.Sprintf("the file ends before offset %d", end)}
	}
	for end < 0 || at < end {
		payload, ok := decodeFrame(b[at:], number)
		if !ok {
			if end >= 0 {
				return 0, 0, &CorruptError{name, at, "a frame is not what was written"}
			}
			if later, found := laterFrame(b[at:], number+1); found {
				return 0, 0, &CorruptError{name, at, fmt.Sprintf("a frame is not what was written; another follows at offset %d", at+int64(later))}
			}
			break
		}
		if err := decodeOperations(payload, f); err != nil {
			return 0, 0, &CorruptError{name, at, err.Error()}
		}
		at += frameHeaderBytes + int64(len(payload))
		number++
	}
	return number, at, nil
}

// missing tells that a file is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
