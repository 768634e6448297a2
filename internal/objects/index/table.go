package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/millrace/millrace/internal/vfs"
)

const (
	// blockBytes is how large a block grows before the next one begins.
	blockBytes = 16 << 10
	// maxBlockBytes bounds a block: the last entry may be as large as a frame.
	maxBlockBytes = blockBytes + maxFrameBytes + maxKeyBytes
	footerBytes   = 40
	maxIndexBytes = 1 << 30
)

// table is a sorted file. Of its blocks the first keys are in memory.
type table struct {
	id      uint64
	name    string
	file    vfs.File
	size    int64
	entries uint64
	firsts  []string
	offsets []int64 // one more than there are blocks

	references atomic.Int64
	obsolete   atomic.Bool // remove the file with the last reference
	fs         vfs.FS
}

func (t *table) acquire() { t.references.Add(1) }

func (t *table) release() {
	if t.references.Add(-1) > 0 {
		return
	}
	t.file.Close()
	if t.obsolete.Load() {
		// A file that stays is removed by the next start.
		_ = t.fs.Remove(t.name)
	}
}

// tableWriter writes entries, in order, to a new file.
type tableWriter struct {
	file    vfs.File
	buffer  []byte // of the file, not written yet
	written int64
	block   []byte
	last    string
	index   []byte
	first   string
	blocks  uint64
	entries uint64
}

const writeBytes = 256 << 10

func (w *tableWriter) add(o *operation) error {
	if len(w.block) >= blockBytes {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	shared := 0
	if len(w.block) == 0 {
		w.first = o.key
	} else {
		for shared < len(o.key) && shared < len(w.last) && o.key[shared] == w.last[shared] {
			shared++
		}
	}
	w.block = binary.AppendUvarint(w.block, uint64(shared))
	w.block = binary.AppendUvarint(w.block, uint64(len(o.key)-shared))
	if o.deleted {
		w.block = binary.AppendUvarint(w.block, 0)
	} else {
		w.block = binary.AppendUvarint(w.block, uint64(len(o.value))+1)
	}
	w.block = append(w.block, o.key[shared:]...)
	w.block = append(w.block, o.value...)
	w.last = o.key
	w.entries++
	return nil
}

func (w *tableWriter) endBlock() error {
	if len(w.block) == 0 {
		return nil
	}
	w.index = binary.AppendUvarint(w.index, uint64(len(w.first)))
	w.index = append(w.index, w.first...)
	w.index = binary.AppendUvarint(w.index, uint64(len(w.block)+4))
	w.blocks++
	err := w.write(appendSum(w.block))
	w.block = w.block[:0]
	return err
}

func appendSum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (w *tableWriter) write(b []byte) error {
	w.buffer = append(w.buffer, b...)
	if len(w.buffer) < writeBytes {
		return nil
	}
	return w.flush()
}

func (w *tableWriter) flush() error {
	_, err := w.file.WriteAt(w.buffer, w.written)
	w.written += int64(len(w.buffer))
	w.buffer = w.buffer[:0]
	return err
}

// finish makes the file durable, but for its name.
func (w *tableWriter) finish() error {
	if err := w.endBlock(); err != nil {
		return err
	}
	at := w.written + int64(len(w.buffer))
	index := appendSum(w.index)
	if err := w.write(index); err != nil {
		return err
	}
	footer := append(make([]byte, 0, footerBytes), tableMagic...)
	footer = append(footer, formatVersion)
	footer = binary.LittleEndian.AppendUint64(footer, uint64(at))
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(index)))
	footer = binary.LittleEndian.AppendUint64(footer, w.blocks)
	footer = binary.LittleEndian.AppendUint64(footer, w.entries)
	footer = appendSum(footer)
	if err := w.write(footer); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.file.Sync()
}

// openTable opens a sorted file and reads its index.
func openTable(fsys vfs.FS, id uint64) (_ *table, err error) {
	t := &table{id: id, name: tableName(id), fs: fsys}
	if t.file, err = fsys.Open(t.name, 0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.file.Close()
		}
	}()
	if t.size, err = t.file.Size(); err != nil {
		return nil, err
	}
	corrupt := func(at int64, reason string) error { return &CorruptError{t.name, at, reason} }
	if t.size < footerBytes {
		return nil, corrupt(t.size, "the file is too short")
	}
	footer := make([]byte, footerBytes)
	if err := readFull(t.file, footer, t.size-footerBytes); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	if string(footer[:7]) != tableMagic {
		return nil, corrupt(t.size-footerBytes, "the footer is not one")
	}
	if v := int(footer[7]); v > formatVersion {
		return nil, &NewerError{t.name, v}
	}
	if !sumHolds(footer) {
		return nil, corrupt(t.size-footerBytes, "the footer's checksum does not match")
	}
	at := int64(binary.LittleEndian.Uint64(footer[8:]))
	length := int64(binary.LittleEndian.Uint32(footer[16:]))
	blocks := binary.LittleEndian.Uint64(footer[20:])
	t.entries = binary.LittleEndian.Uint64(footer[28:])
	if length > maxIndexBytes || at < 0 || at > t.size || at+length+footerBytes != t.size || blocks > uint64(length) {
		return nil, corrupt(t.size-footerBytes, "the footer's numbers do not fit the file")
	}
	index := make([]byte, length)
	if err := readFull(t.file, index, at); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	if !sumHolds(index) {
		return nil, corrupt(at, "the index's checksum does not match")
	}
	index = index[:length-4]
	offset := int64(0)
	t.firsts = make([]string, 0, blocks)
	t.offsets = make([]int64, 0, blocks+1)
	for len(index) > 0 {
		key, rest, ok := cutBytes(index, maxKeyBytes)
		if !ok {
			return nil, corrupt(at, "the index cannot be read")
		}
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > maxBlockBytes || n < 4 {
			return nil, corrupt(at, "the index cannot be read")
		}
		t.firsts, t.offsets = append(t.firsts, string(key)), append(t.offsets, offset)
		offset += int64(n)
		index = rest[w:]
	}
	if offset != at || uint64(len(t.firsts)) != blocks {
		return nil, corrupt(at, "the index does not match the blocks")
	}
	t.offsets = append(t.offsets, offset)
	return t, nil
}

func sumHolds(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	n := len(b) - 4
	return crc32.Checksum(b[:n], castagnoli) == binary.LittleEndian.Uint32(b[n:])
}

func readFull(f vfs.File, b []byte, at int64) error {
	if n, err := f.ReadAt(b, at); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// block reads block i.
func (t *table) block(i int) ([]byte, error) {
	b := make([]byte, t.offsets[i+1]-t.offsets[i])
	if err := readFull(t.file, b, t.offsets[i]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &CorruptError{t.name, t.offsets[i], "the file ends within a block"}
		}
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	if !sumHolds(b) {
		return nil, &CorruptError{t.name, t.offsets[i], "a block's checksum does not match"}
	}
	return b[:len(b)-4], nil
}

// tableIterator goes through a table in order.
type tableIterator struct {
	t     *table
	next  int // block
	rest  []byte
	entry operation
	valid bool
	err   error
}

// seek goes to the first entry at or after key.
func (i *tableIterator) seek(key string) {
	i.valid, i.rest, i.entry = false, nil, operation{}
	// The block before the first one that begins after key.
	b := sort.Search(len(i.t.firsts), func(n int) bool { return i.t.firsts[n] > key }) - 1
	i.next = max(b, 0)
	for i.advance(); i.valid && i.entry.key < key; i.advance() {
	}
}

// advance goes to the next entry.
func (i *tableIterator) advance() {
	i.valid = false
	if i.err != nil {
		return
	}
	if len(i.rest) == 0 {
		if i.next >= len(i.t.firsts) {
			return
		}
		b, err := i.t.block(i.next)
		if err != nil {
			i.err = err
			return
		}
		i.next++
		i.rest, i.entry = b, operation{}
	}
	o, rest, ok := decodeEntry(i.rest, i.entry.key)
	if !ok {
		i.err = &CorruptError{i.t.name, i.t.offsets[i.next-1], "a block's entries cannot be read"}
		return
	}
	i.entry, i.rest, i.valid = o, rest, true
}

// decodeEntry reads an entry of a block. Its value aliases b.
func decodeEntry(b []byte, previous string) (o operation, rest []byte, ok bool) {
	var n [3]uint64
	for i := range n {
		v, w := binary.Uvarint(b)
		if w <= 0 {
			return o, nil, false
		}
		n[i], b = v, b[w:]
	}
	shared, suffix, value := n[0], n[1], n[2]
	if shared > uint64(len(previous)) || suffix > uint64(len(b)) || shared+suffix > maxKeyBytes {
		return o, nil, false
	}
	o.key = previous[:shared] + string(b[:suffix])
	b = b[suffix:]
	if value == 0 {
		o.deleted = true
		return o, b, true
	}
	if value-1 > uint64(len(b)) {
		return o, nil, false
	}
	o.value = b[: value-1 : value-1]
	return o, b[value-1:], true
}

// get finds a key. The entry's value is the caller's.
func (t *table) get(key string) (*operation, error) {
	if len(t.firsts) == 0 || key < t.firsts[0] {
		return nil, nil
	}
	i := tableIterator{t: t}
	i.seek(key)
	if i.err != nil {
		return nil, i.err
	}
	if !i.valid || i.entry.key != key {
		return nil, nil
	}
	o := i.entry
	return &o, nil
}

// verify reads everything and checks the order.
func (t *table) verify() error {
	i := tableIterator{t: t}
	last, n := "", uint64(0)
	for i.advance(); i.valid; i.advance() {
		if n > 0 && strings.Compare(i.entry.key, last) <= 0 {
			return &CorruptError{t.name, t.offsets[i.next-1], "entries are out of order"}
		}
		last = i.entry.key
		n++
	}
	if i.err != nil {
		return i.err
	}
	if n != t.entries {
		return &CorruptError{t.name, 0, fmt.Sprintf("%d entries, not %d", n, t.entries)}
	}
	return nil
}
