package objects

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/objects/index"
	"github.com/millrace/millrace/internal/vfs"
)

const (
	// blockBytes is how many bytes of an object share a checksum; it follows
	// them in the file.
	blockBytes = 64 << 10
	sumBytes   = 4
	// bufferBlocks is how many blocks are written or read at a time.
	bufferBlocks = 4
	bufferBytes  = bufferBlocks * (blockBytes + sumBytes)
	// folderBits gives the number of files in a folder: 4096.
	folderBits = 12
	// spaceBytes is after how many bytes the room on the device is looked at.
	spaceBytes = 8 << 20

	settledKey = "s"
	deadPrefix = "d\x00"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferBytes); return &b }}

// blobs are the files with the bytes. They are numbered, 4096 to a folder, and
// every start begins a new folder, so that no number is ever given twice while
// its file may exist.
type blobs struct {
	fs        vfs.FS
	index     *index.Store
	watermark int64

	mu      sync.Mutex
	next    uint64
	made    uint64              // folders below it exist, as far as they are needed
	open    map[uint64]struct{} // written, and neither an entry's nor removed
	pins    map[uint64]int
	dead    map[uint64]bool // to be removed with their last pin
	removed []uint64        // whose dead entries can go
	clean   bool            // nothing is left of earlier runs
	stored  uint64          // folders below it are settled, as the index knows
}

func folder(id uint64) uint64         { return id >> folderBits }
func folderName(folder uint64) string { return fmt.Sprintf("%09x", folder) }
func blobName(id uint64) string       { return folderName(folder(id)) + "/" + fmt.Sprintf("%012x", id) }
func deadKey(id uint64) string        { return deadPrefix + fmt.Sprintf("%016x", id) }

// start finds the next number and removes what is dead. The function it returns
// removes files that no entry names, and may run while others work.
func (s *blobs) start(fsys vfs.FS, x *index.Store, watermark int64) (sweep func(context.Context) (int, error), err error) {
	s.fs, s.index, s.watermark = fsys, x, watermark
	s.open, s.pins, s.dead = map[uint64]struct{}{}, map[uint64]int{}, map[uint64]bool{}
	folders, err := fsys.ReadDir(".")
	if err != nil {
		return nil, err
	}
	if raw, ok, err := x.Get(settledKey); err != nil {
		return nil, err
	} else if ok {
		if s.stored, err = strconv.ParseUint(string(raw), 16, 64); err != nil {
			return nil, fmt.Errorf("entry of settled folders: %w", err)
		}
	}
	first := s.stored
	var look []uint64
	for _, f := range folders {
		n, err := strconv.ParseUint(f.Name, 16, 64)
		if err != nil || !f.Dir {
			continue
		}
		first = max(first, n+1)
		if n >= s.stored {
			look = append(look, n)
		}
	}
	s.next = first << folderBits
	s.made = first
	i := x.Iterate()
	defer i.Close()
	for ok := i.Seek(deadPrefix); ok && strings.HasPrefix(i.Key(), deadPrefix); ok = i.Next() {
		id, err := strconv.ParseUint(i.Key()[len(deadPrefix):], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", i.Key(), err)
		}
		s.remove(id)
	}
	if err := i.Err(); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (int, error) { return s.sweep(ctx, look) }, nil
}

// sweep removes the files in some folders of earlier runs that no entry names.
func (s *blobs) sweep(ctx context.Context, folders []uint64) (removed int, err error) {
	candidates := map[uint64]bool{}
	for _, f := range folders {
		files, err := s.fs.ReadDir(folderName(f))
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			if id, err := strconv.ParseUint(file.Name, 16, 64); err == nil && folder(id) == f {
				candidates[id] = true
			}
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	if len(candidates) > 0 {
		// Parts before objects: a part that becomes an object meanwhile is then
		// seen as one or the other.
		for _, kind := range []string{"p\x00", "o\x00"} {
			if err := s.references(ctx, kind, func(id uint64) { delete(candidates, id) }); err != nil {
				return 0, err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(candidates)) {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if err := s.fs.Remove(blobName(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		removed++
	}
	for _, f := range folders {
		// One that still holds files stays.
		_ = s.fs.Remove(folderName(f))
	}
	s.mu.Lock()
	s.clean = true
	s.mu.Unlock()
	return removed, nil
}

// settledLocked is the folder below which no file is without an entry.
func (s *blobs) settledLocked() uint64 {
	if !s.clean {
		return s.stored
	}
	first := s.next
	for id := range s.open {
		first = min(first, id)
	}
	return folder(first)
}

// references calls f for every file that the entries of a kind name.
func (s *blobs) references(ctx context.Context, kind string, f func(id uint64)) error {
	i := s.index.Iterate()
	defer i.Close()
	n := 0
	for ok := i.Seek(kind); ok && strings.HasPrefix(i.Key(), kind); ok = i.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		segments, err := segmentsOf(i.Key(), i.Value())
		if err != nil {
			return err
		}
		for _, seg := range segments {
			f(seg.ID)
		}
	}
	return i.Err()
}

// segmentsOf returns the files that an entry of an object or part names.
func segmentsOf(key string, value []byte) ([]segment, error) {
	var err error
	switch key[0] {
	case 'p':
		var r partRecord
		if err = json.Unmarshal(value, &r); err == nil && r.Segment != nil {
			return []segment{*r.Segment}, nil
		}
	case 'o':
		var r objectRecord
		if err = json.Unmarshal(value, &r); err == nil {
			return r.Segments, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", key, err)
	}
	return nil, nil
}

// close makes the index forget what is removed. What fails here is done by the
// next start.
func (s *blobs) close() {
	_ = s.commit(&index.Batch{})
}

// begin gives a number, and its folder.
func (s *blobs) begin() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.next
	if f := folder(id); f >= s.made {
		// Once in 4096 files, and nothing can be written before it.
		if err := s.fs.MkdirAll(folderName(f)); err != nil {
			return 0, err
		}
		s.made = f + 1
	}
	s.next++
	s.open[id] = struct{}{}
	return id, nil
}

// room refuses when writing more would take what must stay free.
func (s *blobs) room(bytes int64) error {
	if s.watermark <= 0 {
		return nil
	}
	space, err := s.fs.Space()
	if err != nil {
		return err
	}
	if space.Free < uint64(s.watermark+bytes) {
		return noRoom(fmt.Errorf("%d bytes free", space.Free))
	}
	return nil
}

// sealSum is a block's checksum. Number and place are part of it: a block that
// lies elsewhere is damage too.
func sealSum(id uint64, block int64, data []byte) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], id)
	binary.LittleEndian.PutUint64(place[8:], uint64(block))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, data)
}

// write stores a body in a file of its own, durably, as nobody's yet: settled
// or discard must follow. size is -1 if it is not known. An empty body has no
// file, and the segment's Size is 0.
func (s *blobs) write(ctx context.Context, body io.Reader, size, most int64) (seg segment, err error) {
	if size > most {
		return segment{}, tooLarge(size, most)
	}
	if size == 0 {
		var one [1]byte
		if n, err := io.ReadFull(body, one[:]); n > 0 {
			return segment{}, incompleteBody()
		} else if err != io.EOF {
			return segment{}, &bodyError{err}
		}
		return segment{}, nil
	}
	if err := s.room(max(size, 0)); err != nil {
		return segment{}, err
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	w := &blobWriter{blobs: s, buffer: *buffer}
	defer func() {
		if err != nil {
			w.abandon()
		}
	}()
	for end := false; !end; {
		if err := context.Cause(ctx); err != nil {
			return segment{}, err
		}
		n, err := fill(body, w.space())
		if end = err == io.EOF; err != nil && !end {
			return segment{}, &bodyError{err}
		}
		if err := w.add(n); err != nil {
			return segment{}, err
		}
		switch {
		case w.size > most:
			return segment{}, tooLarge(w.size, most)
		case size >= 0 && (w.size > size || end && w.size < size):
			return segment{}, incompleteBody()
		}
	}
	if w.size == 0 {
		return segment{}, nil
	}
	if err := w.finish(); err != nil {
		return segment{}, err
	}
	return segment{ID: w.id, Size: w.size}, nil
}

// fill reads until p is full or the reader ends. Unlike io.ReadFull it tells a
// body that was cut off, which is io.ErrUnexpectedEOF of the reader's own, from
// one that ends here.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	if n == len(p) && err == io.EOF {
		// The next call will see it again.
		err = nil
	}
	return n, err
}

func incompleteBody() error {
	return badRequest(CodeIncompleteBody, "You did not provide the number of bytes specified by the Content-Length HTTP header")
}

func tooLarge(size, most int64) error {
	return &Error{Code: "EntityTooLarge", Status: 400, Message: "Your proposed upload exceeds the maximum allowed size",
		fields: []field{{"ProposedSize", strconv.FormatInt(size, 10)}, {"MaxSizeAllowed", strconv.FormatInt(most, 10)}}}
}

// blobWriter writes one file. The file is made with its first bytes.
type blobWriter struct {
	blobs  *blobs
	id     uint64
	file   vfs.File
	buffer []byte
	used   int   // of buffer
	block  int64 // number of the next one
	at     int64 // in the file
	size   int64
	seen   int64 // size when the room was looked at
}

// space is where the next block's bytes go.
func (w *blobWriter) space() []byte { return w.buffer[w.used : w.used+blockBytes] }

// add ends a block of n bytes, which are in space.
func (w *blobWriter) add(n int) error {
	if n == 0 {
		return nil
	}
	if w.file == nil {
		id, err := w.blobs.begin()
		if err != nil {
			return err
		}
		w.id = id
		if w.file, err = w.blobs.fs.Open(blobName(id), vfs.Write|vfs.Create|vfs.Empty); err != nil {
			w.blobs.forget(id)
			return err
		}
	}
	data := w.buffer[w.used : w.used+n]
	binary.LittleEndian.PutUint32(w.buffer[w.used+n:], sealSum(w.id, w.block, data))
	w.used += n + sumBytes
	w.block++
	w.size += int64(n)
	if w.used+blockBytes+sumBytes <= len(w.buffer) {
		return nil
	}
	return w.flush()
}

func (w *blobWriter) flush() error {
	if w.size-w.seen >= spaceBytes {
		w.seen = w.size
		if err := w.blobs.room(0); err != nil {
			return err
		}
	}
	_, err := w.file.WriteAt(w.buffer[:w.used], w.at)
	w.at += int64(w.used)
	w.used = 0
	return err
}

// finish makes the file and its name durable.
func (w *blobWriter) finish() error {
	if w.used > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	if err := w.file.Close(); err != nil {
		return err
	}
	return w.blobs.fs.SyncDir(folderName(folder(w.id)))
}

// abandon removes what has been written.
func (w *blobWriter) abandon() {
	if w.file == nil {
		return
	}
	w.file.Close()
	w.blobs.discard([]segment{{ID: w.id, Size: w.size}})
}

func (s *blobs) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// discard removes files that no entry names. One that cannot be removed is left
// for the next start.
func (s *blobs) discard(segments []segment) {
	for _, seg := range segments {
		if err := s.fs.Remove(blobName(seg.ID)); err == nil || errors.Is(err, fs.ErrNotExist) {
			s.forget(seg.ID)
		}
	}
}

// settled says that an entry names the files.
func (s *blobs) settled(segments []segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range segments {
		delete(s.open, seg.ID)
	}
}

// commit commits a batch together with the death of files, and removes them
// afterwards.
func (s *blobs) commit(b *index.Batch, dead ...segment) error {
	for _, seg := range dead {
		b.Put(deadKey(seg.ID), nil)
	}
	s.mu.Lock()
	// A few at a time: a batch has a bound.
	n := min(len(s.removed), 1024)
	forgotten := slices.Clone(s.removed[:n])
	s.removed = slices.Delete(s.removed, 0, n)
	settled := s.settledLocked()
	store := settled > s.stored
	s.mu.Unlock()
	for _, id := range forgotten {
		b.Delete(deadKey(id))
	}
	if store {
		b.Put(settledKey, []byte(strconv.FormatUint(settled, 16)))
	}
	if err := s.index.Commit(b); err != nil {
		s.mu.Lock()
		s.removed = append(s.removed, forgotten...)
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	s.stored = max(s.stored, settled)
	s.mu.Unlock()
	for _, seg := range dead {
		s.retire(seg.ID)
	}
	return nil
}

// pin keeps files that may be about to die until done is called, once or more.
func (s *blobs) pin(segments []segment) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range segments {
		s.pins[seg.ID]++
	}
	return sync.OnceFunc(func() { s.unpin(segments) })
}

func (s *blobs) unpin(segments []segment) {
	var free []uint64
	s.mu.Lock()
	for _, seg := range segments {
		if s.pins[seg.ID]--; s.pins[seg.ID] > 0 {
			continue
		}
		delete(s.pins, seg.ID)
		if s.dead[seg.ID] {
			delete(s.dead, seg.ID)
			free = append(free, seg.ID)
		}
	}
	s.mu.Unlock()
	for _, id := range free {
		s.remove(id)
	}
}

// retire removes a file whose death is committed, now or with its last pin.
func (s *blobs) retire(id uint64) {
	s.mu.Lock()
	pinned := s.pins[id] > 0
	if pinned {
		s.dead[id] = true
	}
	s.mu.Unlock()
	if !pinned {
		s.remove(id)
	}
}

// remove removes a dead file, and has the index forget it with a later commit.
// One that cannot be removed is tried again by the next start.
func (s *blobs) remove(id uint64) {
	if err := s.fs.Remove(blobName(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = append(s.removed, id)
}

// DamageError is an object's bytes that are not what was stored.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("object file %s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

// reader reads a part of the bytes of segments; done is called when it closes.
func (s *blobs) reader(ctx context.Context, segments []segment, offset, length int64, done func()) io.ReadCloser {
	for len(segments) > 0 && offset >= segments[0].Size {
		offset -= segments[0].Size
		segments = segments[1:]
	}
	return &blobReader{ctx: ctx, blobs: s, segments: segments, offset: offset, left: length, done: done}
}

// blobReader reads whole blocks, so that everything it hands out is checked.
type blobReader struct {
	ctx      context.Context
	blobs    *blobs
	segments []segment
	offset   int64 // of the next byte, in the first segment
	left     int64
	file     vfs.File // of the first segment
	buffer   *[]byte
	ready    []byte // of buffer
	done     func()
	err      error
}

func (r *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, r.err
	}
	for len(r.ready) == 0 {
		if r.err == nil && r.left == 0 {
			r.err = io.EOF
		}
		if r.err == nil {
			r.err = context.Cause(r.ctx)
		}
		if r.err == nil {
			r.err = r.load()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// WriteTo writes what is left to w, without another copy.
func (r *blobReader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(r.ready) > 0 {
			m, err := w.Write(r.ready)
			n += int64(m)
			r.ready = r.ready[m:]
			if err != nil {
				return n, err
			}
		}
		if r.left == 0 {
			return n, nil
		}
		if r.err == nil {
			r.err = context.Cause(r.ctx)
		}
		if r.err == nil {
			r.err = r.load()
		}
		if r.err != nil {
			return n, r.err
		}
	}
}

// load reads the blocks that follow, as many as fit the buffer.
func (r *blobReader) load() error {
	if len(r.segments) == 0 {
		return &DamageError{"", 0, "its parts are shorter than the object"}
	}
	seg := r.segments[0]
	if r.file == nil {
		f, err := r.blobs.fs.Open(blobName(seg.ID), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return &DamageError{blobName(seg.ID), 0, "the file is missing"}
		}
		if err != nil {
			return err
		}
		r.file = f
	}
	if r.buffer == nil {
		r.buffer = buffers.Get().(*[]byte)
	}
	first := r.offset / blockBytes
	want := min(seg.Size-r.offset, r.left)
	blocks := min((r.offset+want-1)/blockBytes-first+1, bufferBlocks)
	raw := (*r.buffer)[:min(blocks*(blockBytes+sumBytes), fileSize(seg.Size)-first*(blockBytes+sumBytes))]
	at := first * (blockBytes + sumBytes)
	if n, err := r.file.ReadAt(raw, at); n < len(raw) {
		if err == nil || err == io.EOF {
			return &DamageError{blobName(seg.ID), at + int64(n), "the file ends here"}
		}
		return fmt.Errorf("read object file %s: %w", blobName(seg.ID), err)
	}
	// Blocks move together over the checksums between them.
	out := 0
	for i := int64(0); i < blocks; i++ {
		block := raw[i*(blockBytes+sumBytes):]
		block = block[:min(len(block), blockBytes+sumBytes)]
		data := block[:len(block)-sumBytes]
		if sealSum(seg.ID, first+i, data) != binary.LittleEndian.Uint32(block[len(data):]) {
			return &DamageError{blobName(seg.ID), at + i*(blockBytes+sumBytes), "the checksum does not match"}
		}
		out += copy((*r.buffer)[out:], data)
	}
	skip := r.offset - first*blockBytes
	r.ready = (*r.buffer)[skip:out]
	if int64(len(r.ready)) > want {
		r.ready = r.ready[:want]
	}
	n := int64(len(r.ready))
	r.offset += n
	r.left -= n
	if r.offset == seg.Size {
		err := r.file.Close()
		r.file, r.segments, r.offset = nil, r.segments[1:], 0
		return err
	}
	return nil
}

// fileSize is the length of the file that holds size bytes.
func fileSize(size int64) int64 {
	return size + (size+blockBytes-1)/blockBytes*sumBytes
}

// Close lets go of the files. It may be called more than once.
func (r *blobReader) Close() error {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
	if r.buffer != nil {
		buffers.Put(r.buffer)
		r.buffer, r.ready = nil, nil
	}
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	r.done()
	return nil
}
