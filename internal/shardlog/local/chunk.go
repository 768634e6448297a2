package local

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// The byte layout of docs/formats/segment.md.

const (
	segVersion      = 1
	segMagic        = "MRSEG\r\n\x1a"
	segEndMagic     = "MRSEGEND"
	segHeaderBytes  = 64
	markBytes       = 32
	markEvery       = 64 << 10
	pageBytes       = 4096
	pageHeaderBytes = 64
	entryBytes      = 64
	pageEntries     = (pageBytes - pageHeaderBytes) / entryBytes
	trailerBytes    = 128
)

// file is a sealed segment. It never changes.
type file struct {
	id            uint64
	class         int
	retention     time.Duration // of the class
	firstSequence uint64
	lastSequence  uint64
	size          int64
	maxAt         int64
}

func className(retention time.Duration) string {
	if retention == 0 {
		return "keep"
	}
	if retention%time.Hour == 0 {
		return fmt.Sprintf("%d", retention/time.Hour)
	}
	return retention.String()
}

func (f *file) dir() string  { return path.Join(segDir, className(f.retention)) }
func (f *file) name() string { return path.Join(f.dir(), fmt.Sprintf("%016x", f.id)) }

// fileSet is all sealed segments at one time: by class, then by sequence, where
// the files of a class never overlap.
type fileSet struct {
	byClass [][]*file
}

// with returns the set without some files and with others.
func (s *fileSet) with(removed, added []*file) *fileSet {
	next := &fileSet{byClass: make([][]*file, len(s.byClass))}
	for i, files := range s.byClass {
		next.byClass[i] = slices.DeleteFunc(slices.Clone(files), func(f *file) bool { return slices.Contains(removed, f) })
	}
	for _, f := range added {
		next.byClass[f.class] = append(next.byClass[f.class], f)
	}
	for _, files := range next.byClass {
		slices.SortFunc(files, func(a, b *file) int { return cmp.Compare(a.firstSequence, b.firstSequence) })
	}
	return next
}

func (s *fileSet) all() []*file {
	var all []*file
	for _, files := range s.byClass {
		all = append(all, files...)
	}
	return all
}

// chunkEntry is a shard's line in a directory.
type chunkEntry struct {
	shard         driver.ShardID
	offset        int64
	length        int64
	base, next    driver.Index
	minAt, maxAt  int64
	marks, nMarks uint32
}

func (e *chunkEntry) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(e.shard))
	le.PutUint64(b[8:], uint64(e.offset))
	le.PutUint64(b[16:], uint64(e.length))
	le.PutUint64(b[24:], uint64(e.base))
	le.PutUint64(b[32:], uint64(e.next))
	le.PutUint64(b[40:], uint64(e.minAt))
	le.PutUint64(b[48:], uint64(e.maxAt))
	le.PutUint32(b[56:], e.marks)
	le.PutUint32(b[60:], e.nMarks)
}

func parseEntry(b []byte) chunkEntry {
	le := binary.LittleEndian
	return chunkEntry{
		shard: driver.ShardID(le.Uint64(b[0:])), offset: int64(le.Uint64(b[8:])), length: int64(le.Uint64(b[16:])),
		base: driver.Index(le.Uint64(b[24:])), next: driver.Index(le.Uint64(b[32:])),
		minAt: int64(le.Uint64(b[40:])), maxAt: int64(le.Uint64(b[48:])),
		marks: le.Uint32(b[56:]), nMarks: le.Uint32(b[60:]),
	}
}

// parsePage checks a directory page and returns how many entries it has.
func parsePage(b []byte) (int, bool) {
	if len(b) != pageBytes || binary.LittleEndian.Uint32(b) != checksum(b[4:]) {
		return 0, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	return int(n), n > 0 && n <= pageEntries
}

func pageEntry(b []byte, i int) []byte {
	return b[pageHeaderBytes+i*entryBytes : pageHeaderBytes+(i+1)*entryBytes]
}

type trailer struct {
	id             uint64
	marksAt, marks int64
	dirAt, pages   int64
	chunks         int64
	indexAt        int64
	indexCRC       uint32
	maxAt          int64
	version        uint32
}

func (t *trailer) put(b []byte) {
	le := binary.LittleEndian
	clear(b[:trailerBytes])
	for i, v := range []int64{int64(t.id), t.marksAt, t.marks, t.dirAt, t.pages, t.chunks, t.indexAt} {
		le.PutUint64(b[8*i:], uint64(v))
	}
	le.PutUint32(b[56:], t.indexCRC)
	le.PutUint64(b[64:], uint64(t.maxAt))
	le.PutUint32(b[112:], segVersion)
	le.PutUint32(b[116:], checksum(b[:116]))
	copy(b[120:], segEndMagic)
}

// parseTrailer checks a trailer and that its parts lie where they must in a file
// of the given size.
func parseTrailer(b []byte, size int64) (t trailer, ok bool) {
	le := binary.LittleEndian
	if len(b) != trailerBytes || string(b[120:]) != segEndMagic || le.Uint32(b[116:]) != checksum(b[:116]) {
		return t, false
	}
	t = trailer{
		id: le.Uint64(b), marksAt: int64(le.Uint64(b[8:])), marks: int64(le.Uint64(b[16:])), dirAt: int64(le.Uint64(b[24:])),
		pages: int64(le.Uint64(b[32:])), chunks: int64(le.Uint64(b[40:])), indexAt: int64(le.Uint64(b[48:])), indexCRC: le.Uint32(b[56:]),
		maxAt: int64(le.Uint64(b[64:])), version: le.Uint32(b[112:]),
	}
	if t.version != segVersion {
		return t, true
	}
	inside := func(n int64) bool { return n >= 0 && n <= size }
	ok = inside(t.marksAt) && inside(t.marks) && inside(t.dirAt) && inside(t.pages) && inside(t.indexAt) &&
		t.marksAt >= segHeaderBytes && t.marksAt+t.marks*markBytes == t.dirAt &&
		t.dirAt+t.pages*pageBytes == t.indexAt && t.indexAt+8*t.pages+trailerBytes == size &&
		t.chunks <= t.pages*pageEntries && t.chunks > (t.pages-1)*pageEntries
	return t, ok
}

// fileWriter writes a sealed segment from front to back.
type fileWriter struct {
	fs      vfs.FS
	meta    *file
	out     vfs.File
	buf     []byte
	offset  int64 // in the file, of the end of buf
	marks   []byte
	nMarks  uint32
	lastAt  int64 // offset of the last mark or chunk start
	entries []chunkEntry
}

const writeChunk = 1 << 20

func (f *file) temporary() string { return f.name() + ".tmp" }

func newFileWriter(fsys vfs.FS, meta *file) (*fileWriter, error) {
	if err := fsys.MkdirAll(meta.dir()); err != nil {
		return nil, err
	}
	out, err := fsys.Open(meta.temporary(), vfs.Write|vfs.Create|vfs.Empty|vfs.Uncached)
	if err != nil {
		return nil, err
	}
	w := &fileWriter{fs: fsys, meta: meta, out: out, buf: vfs.AlignedBuffer(writeChunk)[:0]}
	le := binary.LittleEndian
	h := make([]byte, segHeaderBytes)
	copy(h, segMagic)
	le.PutUint32(h[8:], segVersion)
	le.PutUint64(h[16:], meta.id)
	le.PutUint64(h[24:], uint64(meta.retention))
	le.PutUint64(h[32:], meta.firstSequence)
	le.PutUint64(h[40:], meta.lastSequence)
	le.PutUint32(h[60:], checksum(h[:60]))
	if err := w.write(h); err != nil {
		w.abort()
		return nil, err
	}
	return w, nil
}

func (w *fileWriter) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), writeChunk-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		w.offset += int64(n)
		p = p[n:]
		if len(w.buf) >= writeChunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *fileWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.out.WriteAt(w.buf, w.offset-int64(len(w.buf)))
	w.buf = w.buf[:0]
	return err
}

// add appends a batch, whole as it was logged, to the chunk of its shard. Shards
// come in ascending order.
func (w *fileWriter) add(h batchHeader, stored []byte) error {
	n := len(w.entries)
	if n == 0 || w.entries[n-1].shard != h.shard {
		w.entries = append(w.entries, chunkEntry{shard: h.shard, offset: w.offset, base: h.base, minAt: h.at, marks: w.nMarks})
		w.lastAt = w.offset
		n++
	}
	e := &w.entries[n-1]
	if w.offset-w.lastAt >= markEvery {
		w.marks = appendMark(w.marks, w.offset, h.base, h.at)
		w.nMarks++
		e.nMarks++
		w.lastAt = w.offset
	}
	e.next, e.maxAt = h.next(), h.at
	e.length += int64(len(stored))
	w.meta.maxAt = max(w.meta.maxAt, h.at)
	return w.write(stored)
}

func appendMark(dst []byte, offset int64, base driver.Index, at int64) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = le.AppendUint64(dst, uint64(offset))
	dst = le.AppendUint64(dst, uint64(base))
	dst = le.AppendUint64(dst, uint64(at))
	dst = le.AppendUint32(dst, 0)
	return le.AppendUint32(dst, checksum(dst[start:]))
}

// finish makes the file durable under its name.
func (w *fileWriter) finish() (err error) {
	defer func() {
		if err != nil {
			w.abort()
		}
	}()
	t := trailer{id: w.meta.id, marksAt: w.offset, marks: int64(w.nMarks), chunks: int64(len(w.entries)), maxAt: w.meta.maxAt}
	if err := w.write(w.marks); err != nil {
		return err
	}
	t.dirAt = w.offset
	page := make([]byte, pageBytes)
	var index []byte
	for start := 0; start < len(w.entries); start += pageEntries {
		entries := w.entries[start:min(start+pageEntries, len(w.entries))]
		clear(page)
		binary.LittleEndian.PutUint32(page[4:], uint32(len(entries)))
		for i := range entries {
			entries[i].put(pageEntry(page, i))
		}
		binary.LittleEndian.PutUint32(page, checksum(page[4:]))
		if err := w.write(page); err != nil {
			return err
		}
		index = binary.LittleEndian.AppendUint64(index, uint64(entries[0].shard))
		t.pages++
	}
	t.indexAt, t.indexCRC = w.offset, checksum(index)
	if err := w.write(index); err != nil {
		return err
	}
	t.put(page)
	if err := w.write(page[:trailerBytes]); err != nil {
		return err
	}
	// The last write is padded for the sake of alignment, and cut off again.
	length := w.offset
	if rest := alignUp(len(w.buf)) - len(w.buf); rest > 0 {
		clear(page)
		if err := w.write(page[:rest]); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.out.Truncate(length); err != nil {
		return err
	}
	w.offset = length
	if err := w.out.Sync(); err != nil {
		return err
	}
	if err := w.out.Close(); err != nil {
		return err
	}
	if err := w.fs.Rename(w.meta.temporary(), w.meta.name()); err != nil {
		return err
	}
	w.meta.size = w.offset
	return w.fs.SyncDir(w.meta.dir())
}

func (w *fileWriter) abort() {
	w.out.Close()
	w.fs.Remove(w.meta.temporary())
	w.fs.Remove(w.meta.name())
}

// handle is an open sealed segment with the part of its footer that is kept in
// memory: eight bytes for every 63 chunks.
type handle struct {
	file  *file
	in    vfs.File
	t     trailer
	index []byte

	// direct reads past the page cache. It is opened when it is first wanted, and
	// stays nil if that fails.
	direct     vfs.File
	openDirect sync.Once
	// read has a bit for every part of the file that has been read that way.
	read [readParts / 64]atomic.Uint64

	users int  // guarded by handleCache.mu
	stale bool // close when the last user leaves
	used  uint64
}

// handleCache bounds open files and footers.
type handleCache struct {
	fs    vfs.FS
	mu    sync.Mutex
	clock uint64
	open  map[uint64]*handle
}

const maxHandles = 256

const (
	// readParts is into how many parts a file is divided to remember what was
	// read; minReadPart is the least size of one, in bytes.
	readParts   = 1024
	minReadPart = 64 << 10
	// directRead is the least read, in bytes, for which it pays to go past the
	// page cache.
	directRead = 128 << 10
)

// firstRead notes that a range is being read, and tells whether some of it has not
// been before. Most sealed data is read once, if at all, and costs less than half
// the processor time past the page cache; what is read again is worth keeping
// there, for there may be many readers.
func (h *handle) firstRead(offset, length int64) bool {
	size := h.t.indexAt + 8*h.t.pages + trailerBytes
	part := max((size+readParts-1)/readParts, minReadPart)
	first := false
	for i := offset / part; i <= (offset+length-1)/part; i++ {
		bit := uint64(1) << (i % 64)
		if word := &h.read[i/64]; word.Load()&bit == 0 {
			first = true
			word.Or(bit)
		}
	}
	return first
}

// uncached returns the file past the page cache, or nil.
func (h *handle) uncached(fsys vfs.FS) vfs.File {
	h.openDirect.Do(func() {
		if f, err := fsys.Open(h.file.name(), vfs.Uncached); err == nil {
			h.direct = f
		}
	})
	return h.direct
}

// close closes the file, which nobody uses any more.
func (h *handle) close() {
	h.in.Close()
	if h.direct != nil {
		h.direct.Close()
	}
}

func (c *handleCache) init(fsys vfs.FS) { c.fs, c.open = fsys, map[uint64]*handle{} }

// errRetired means that the file was replaced while the caller looked for it.
var errRetired = errors.New("sealed segment was replaced")

// get opens a file, or finds it open. The caller releases it.
func (c *handleCache) get(f *file) (*handle, error) {
	c.mu.Lock()
	c.clock++
	if h := c.open[f.id]; h != nil {
		h.users++
		h.used = c.clock
		c.mu.Unlock()
		return h, nil
	}
	c.mu.Unlock()
	h, err := openHandle(c.fs, f)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.open[f.id]; other != nil {
		h.close()
		other.users++
		return other, nil
	}
	h.users, h.used = 1, c.clock
	c.open[f.id] = h
	for len(c.open) > maxHandles {
		var oldest *handle
		for _, o := range c.open {
			if o.users == 0 && (oldest == nil || o.used < oldest.used) {
				oldest = o
			}
		}
		if oldest == nil {
			break
		}
		delete(c.open, oldest.file.id)
		oldest.close()
	}
	return h, nil
}

func (c *handleCache) release(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.users--
	if h.stale && h.users == 0 {
		h.close()
	}
}

// forget closes a file that is about to be removed, once nobody reads it.
func (c *handleCache) forget(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.open[f.id]; h != nil {
		delete(c.open, f.id)
		h.stale = true
		if h.users == 0 {
			h.close()
		}
	}
}

func (c *handleCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, h := range c.open {
		delete(c.open, id)
		h.stale = true
		if h.users == 0 {
			h.close()
		}
	}
}

func openHandle(fsys vfs.FS, f *file) (h *handle, err error) {
	in, err := fsys.Open(f.name(), 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", errRetired, err)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			in.Close()
		}
	}()
	size, err := in.Size()
	if err != nil {
		return nil, err
	}
	if size < segHeaderBytes+trailerBytes {
		return nil, &driver.CorruptError{File: f.name(), Offset: size, Reason: "sealed segment is too short"}
	}
	h = &handle{file: f, in: in}
	var head [segHeaderBytes]byte
	if err := readFull(in, head[:], 0); err != nil {
		return nil, err
	}
	if string(head[:8]) != segMagic || binary.LittleEndian.Uint32(head[60:]) != checksum(head[:60]) || binary.LittleEndian.Uint64(head[16:]) != f.id {
		return nil, &driver.CorruptError{File: f.name(), Offset: 0, Reason: "header of sealed segment does not match its checksum"}
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v > segVersion {
		return nil, fmt.Errorf("%s has format version %d, this release knows %d: %w", f.name(), v, segVersion, driver.ErrNewerVersion)
	}
	var end [trailerBytes]byte
	if err := readFull(in, end[:], size-trailerBytes); err != nil {
		return nil, err
	}
	t, ok := parseTrailer(end[:], size)
	if !ok || t.id != f.id {
		return nil, &driver.CorruptError{File: f.name(), Offset: size - trailerBytes, Reason: "trailer of sealed segment does not match its checksum"}
	}
	if t.version > segVersion {
		return nil, fmt.Errorf("%s has format version %d, this release knows %d: %w", f.name(), t.version, segVersion, driver.ErrNewerVersion)
	}
	h.t = t
	h.index = make([]byte, 8*t.pages)
	if err := readFull(in, h.index, t.indexAt); err != nil {
		return nil, err
	}
	if checksum(h.index) != t.indexCRC {
		return nil, &driver.CorruptError{File: f.name(), Offset: t.indexAt, Reason: "page index does not match its checksum"}
	}
	return h, nil
}

func readFull(in io.ReaderAt, p []byte, offset int64) error {
	n, err := in.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// page reads and checks one directory page into b.
func (h *handle) page(i int64, b []byte) (int, error) {
	at := h.t.dirAt + i*pageBytes
	if err := readFull(h.in, b, at); err != nil {
		return 0, fmt.Errorf("read %s: %w", h.file.name(), err)
	}
	n, ok := parsePage(b)
	if !ok {
		return 0, &driver.CorruptError{File: h.file.name(), Offset: at, Reason: "directory page does not match its checksum"}
	}
	return n, nil
}

var pagePool = sync.Pool{New: func() any { return new([pageBytes]byte) }}

// find looks a shard up.
func (h *handle) find(id driver.ShardID) (chunkEntry, bool, error) {
	lo, hi := int64(0), h.t.pages
	for lo < hi { // first page that starts behind id
		mid := (lo + hi) / 2
		if driver.ShardID(binary.LittleEndian.Uint64(h.index[8*mid:])) <= id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return chunkEntry{}, false, nil
	}
	b := pagePool.Get().(*[pageBytes]byte)
	defer pagePool.Put(b)
	n, err := h.page(lo-1, b[:])
	if err != nil {
		return chunkEntry{}, false, err
	}
	i, j := 0, n
	for i < j {
		mid := (i + j) / 2
		if driver.ShardID(binary.LittleEndian.Uint64(pageEntry(b[:], mid))) < id {
			i = mid + 1
		} else {
			j = mid
		}
	}
	if i == n {
		return chunkEntry{}, false, nil
	}
	e := parseEntry(pageEntry(b[:], i))
	if e.shard != id {
		return chunkEntry{}, false, nil
	}
	if e.offset < segHeaderBytes || e.length < 0 || e.offset+e.length > h.t.marksAt || int64(e.marks)+int64(e.nMarks) > h.t.marks {
		return e, false, &driver.CorruptError{File: h.file.name(), Offset: h.t.dirAt + (lo-1)*pageBytes, Reason: "directory entry points outside the file"}
	}
	return e, true, nil
}

// each calls f for all entries in order.
func (h *handle) each(f func(chunkEntry) error) error {
	var b [pageBytes]byte
	for p := range h.t.pages {
		n, err := h.page(p, b[:])
		if err != nil {
			return err
		}
		for i := range n {
			if err := f(parseEntry(pageEntry(b[:], i))); err != nil {
				return err
			}
		}
	}
	return nil
}

// seek returns an offset in the chunk from which reading reaches the first batch
// that satisfies reached: the last mark that does not, or the chunk's start.
func (h *handle) seek(e chunkEntry, reached func(base driver.Index, at int64) bool) (int64, error) {
	offset := e.offset
	lo, hi := uint32(0), e.nMarks
	for lo < hi {
		mid := (lo + hi) / 2
		m, err := h.mark(e, e.marks+mid)
		if err != nil {
			return 0, err
		}
		if reached(m.base, m.at) {
			hi = mid
		} else {
			offset = m.offset
			lo = mid + 1
		}
	}
	return offset, nil
}

// mark is a place within a chunk.
type mark struct {
	offset int64
	base   driver.Index
	at     int64
}

func parseMark(b []byte) (mark, bool) {
	le := binary.LittleEndian
	if len(b) != markBytes || le.Uint32(b[28:]) != checksum(b[:28]) {
		return mark{}, false
	}
	return mark{offset: int64(le.Uint64(b)), base: driver.Index(le.Uint64(b[8:])), at: int64(le.Uint64(b[16:]))}, true
}

// mark reads and checks one mark of a chunk.
func (h *handle) mark(e chunkEntry, number uint32) (mark, error) {
	at := h.t.marksAt + int64(number)*markBytes
	b := make([]byte, markBytes)
	if err := readFull(h.in, b, at); err != nil {
		return mark{}, fmt.Errorf("read %s: %w", h.file.name(), err)
	}
	m, ok := parseMark(b)
	if !ok || m.offset < e.offset || m.offset >= e.offset+e.length {
		return mark{}, &driver.CorruptError{File: h.file.name(), Offset: at, Reason: "mark does not match its checksum"}
	}
	return m, nil
}
