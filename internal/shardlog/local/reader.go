package local

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sort"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// Read implements driver.Driver.
func (l *Log) Read(ctx context.Context, id driver.ShardID, from driver.Index, maxBytes int, buf []byte) ([]driver.StoredBatch, []byte, error) {
	r := reader{log: l, maxBytes: maxBytes, buf: buf}
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, buf, err
		}
		s, err := l.readable(id)
		if err != nil {
			return nil, buf, err
		}
		more, next, err := r.step(s, from)
		if errors.Is(err, errRetired) && l.lookup(id) == s && r.retries < maxRetries {
			r.retries++ // look again at the files there are now
			continue
		}
		var corrupt *driver.CorruptError
		if n := len(r.batches); n > 0 {
			from = max(from, r.batches[n-1].Next())
		}
		if errors.As(err, &corrupt) && r.retries < maxRetries && s.truncatedTo(from) {
			r.retries++ // the space was given back under our eyes
			continue
		}
		if err != nil {
			if len(r.batches) > 0 {
				break // what comes before the failure is good; the next call meets it
			}
			return nil, buf, err
		}
		if !more {
			break
		}
		from = next
	}
	// Payloads were noted as offsets, because the buffer moves while it grows.
	batches := r.batches
	for i := range batches {
		start := r.offsets[i]
		batches[i].Payload = r.buf[start : start+r.sizes[i] : start+r.sizes[i]]
	}
	return batches, r.buf, nil
}

// truncatedTo tells whether an index has become unreadable.
func (s *shard) truncatedTo(index driver.Index) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone || index < s.first
}

// maxRetries bounds how often a read starts over because files were replaced
// under it.
const maxRetries = 100

// reader collects the result of one Read.
type reader struct {
	log      *Log
	maxBytes int
	bytes    int
	buf      []byte
	batches  []driver.StoredBatch
	offsets  []int
	sizes    []int
	retries  int

	// ahead holds a window on each file, for a reader that goes through whole
	// files from front to back; nil for others.
	ahead map[*handle]*window
}

// window is a piece of a file, read past the page cache.
type window struct {
	memory []byte
	data   []byte // what of memory is filled
	at     int64  // where data begins in the file
}

const windowBytes = 512 << 10

// fits tells whether a payload may be added.
func (r *reader) fits(size int) bool {
	return len(r.batches) == 0 || r.bytes+size <= r.maxBytes
}

func (r *reader) add(h batchHeader, offset int) {
	r.batches = append(r.batches, driver.StoredBatch{Base: h.base, Count: int(h.count), At: h.at})
	r.offsets = append(r.offsets, offset)
	r.sizes = append(r.sizes, int(h.size))
	r.bytes += int(h.size)
}

// extend grows the buffer by n bytes and returns them.
func (r *reader) extend(n int) []byte {
	r.buf = slices.Grow(r.buf, n)
	start := len(r.buf)
	r.buf = r.buf[:start+n]
	return r.buf[start:]
}

// step reads from one place: one sealed chunk, or the log segments. It tells
// whether there may be more, from which index.
func (r *reader) step(s *shard, from driver.Index) (more bool, next driver.Index, err error) {
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return false, 0, fmt.Errorf("shard log %d: %w", s.id, driver.ErrNotFound)
	}
	from = max(from, s.first)
	if from >= s.next {
		s.mu.Unlock()
		return false, from, nil
	}
	if from >= s.sealed || s.classes == 0 {
		return r.stepMemory(s, from)
	}
	classes := s.classes
	s.mu.Unlock()

	h, e, err := r.log.chunkFrom(s.id, classes, from)
	if err != nil {
		return false, 0, err
	}
	if h == nil {
		// Nothing sealed at or behind from: only after a repair, or when the
		// sealer was faster than we.
		s.mu.Lock()
		from = max(from, s.sealed)
		if from >= s.next {
			s.mu.Unlock()
			return false, from, nil
		}
		return r.stepMemory(s, from)
	}
	defer r.log.handles.release(h)
	return r.stepChunk(h, e, from)
}

// stepMemory reads from segment images. It is entered with s.mu held, and
// releases it: what is copied is pinned first, so that the publisher never waits
// for a copy.
func (r *reader) stepMemory(s *shard, from driver.Index) (bool, driver.Index, error) {
	refs := s.refs
	i := sort.Search(len(refs), func(i int) bool { return refs[i].next() > from })
	refs = refs[i:]
	n, size := 0, 0
	var pinned []*segment
	for n < len(refs) {
		c := &refs[n]
		if (n > 0 || len(r.batches) > 0) && r.bytes+size+int(c.size) > r.maxBytes {
			break
		}
		segment := r.log.slots[c.slot].Load()
		if len(pinned) == 0 || pinned[len(pinned)-1] != segment {
			segment.pins.Add(1)
			pinned = append(pinned, segment)
		}
		size += int(c.size)
		n++
	}
	refs = refs[:n]
	s.mu.Unlock()
	start := len(r.buf)
	dst := r.extend(size)
	k := 0
	for i := range refs {
		c := &refs[i]
		for pinned[k].number != int(c.slot) {
			k++
		}
		at := int(c.offset) + batchHeaderBytes
		copy(dst, pinned[k].image[at:at+int(c.size)])
		r.add(batchHeader{size: c.size, base: c.base, at: c.at, count: c.count}, start)
		dst = dst[c.size:]
		start += int(c.size)
	}
	for _, p := range pinned {
		p.unpin(r.log)
	}
	return false, 0, nil
}

// stepChunk reads from a sealed chunk: in one large read, straight into the
// caller's buffer, headers and all.
func (r *reader) stepChunk(h *handle, e chunkEntry, from driver.Index) (bool, driver.Index, error) {
	offset, err := h.seek(e, func(base driver.Index, _ int64) bool { return base > from })
	if err != nil {
		return false, 0, err
	}
	end := e.offset + e.length
	need := int64(0)           // of a batch longer than what was read
	follows := driver.Index(0) // what the next batch continues; 0 before the first
	for offset < end {
		want := int64(max(r.maxBytes-r.bytes, 0)) + markEvery + batchHeaderBytes
		mark, data, err := r.load(h, offset, int(min(max(want, need), end-offset)))
		if err != nil {
			return false, 0, fmt.Errorf("read %s: %w", h.file.name(), err)
		}
		used := 0
		for used < len(data) {
			b, ok := peekBatch(data[used:])
			whole := ok && b.stored() <= len(data)-used
			if !whole && (len(data)-used < batchHeaderBytes || ok) && offset+int64(len(data)) < end {
				if ok && b.next() > from && !r.fits(int(b.size)) {
					r.buf = r.buf[:mark+used]
					return false, 0, nil
				}
				if ok {
					need = int64(b.stored())
				}
				break
			}
			if ok && whole {
				_, ok = parseBatch(data[used:])
			}
			if !ok || !whole || b.shard != e.shard || b.base < e.base || b.next() > e.next {
				r.buf = r.buf[:mark+used]
				return false, 0, &driver.CorruptError{File: h.file.name(), Offset: offset + int64(used), Reason: "batch does not match its checksum"}
			}
			if b.next() > from {
				if follows != 0 && b.base != follows {
					r.buf = r.buf[:mark+used]
					return true, follows, nil // a gap: see chunkFrom
				}
				if !r.fits(int(b.size)) {
					r.buf = r.buf[:mark+used]
					return false, 0, nil
				}
				follows = b.next()
				r.add(b, mark+used+batchHeaderBytes)
			}
			used += b.stored()
		}
		r.buf = r.buf[:mark+used]
		offset += int64(used)
	}
	return r.bytes < r.maxBytes || len(r.batches) == 0, e.next, nil
}

// load reads n bytes of a file to the end of the buffer, and says where there they
// begin.
func (r *reader) load(h *handle, offset int64, n int) (mark int, data []byte, err error) {
	start := len(r.buf)
	if r.ahead != nil && n <= windowBytes/2 {
		if data := r.look(h, offset, n); data != nil {
			copy(r.extend(n), data)
			return start, r.buf[start:], nil
		}
	}
	if n >= directRead && h.firstRead(offset, int64(n)) {
		if in := h.uncached(r.log.fs); in != nil {
			// Whole blocks into aligned memory; the buffer may hold what nobody asked
			// for before and behind.
			lead := int(offset % vfs.Alignment)
			size := alignUp(lead + n)
			room := r.extend(size + vfs.Alignment)
			blocks := vfs.Aligned(room)[:size]
			mark = start + cap(room) - cap(blocks) + lead
			if got, _ := in.ReadAt(blocks, offset-int64(lead)); got >= lead+n {
				r.buf = r.buf[:mark+n]
				return mark, blocks[lead : lead+n], nil
			}
			// The ordinary way meets the same failure, or does not.
			r.buf = r.buf[:start]
		}
	}
	data = r.extend(n)
	if err := readFull(h.in, data, offset); err != nil {
		r.buf = r.buf[:start]
		return 0, nil, err
	}
	return start, data, nil
}

// look finds bytes of a file in its window, which it moves there if need be. It
// returns nil if they cannot be had this way.
func (r *reader) look(h *handle, offset int64, n int) []byte {
	w := r.ahead[h]
	if w == nil {
		w = &window{memory: vfs.AlignedBuffer(windowBytes)}
		r.ahead[h] = w
	}
	if offset < w.at || offset+int64(n) > w.at+int64(len(w.data)) {
		in := h.uncached(r.log.fs)
		if in == nil {
			return nil
		}
		w.at = offset / vfs.Alignment * vfs.Alignment
		got, _ := in.ReadAt(w.memory, w.at)
		if w.data = w.memory[:got]; offset+int64(n) > w.at+int64(got) {
			return nil
		}
	}
	return w.data[offset-w.at:][:n]
}

// chunkFrom finds the sealed chunk with the first batch that reaches beyond from.
// The caller releases the handle, which is nil if there is none.
//
// The chunks of one class do not overlap, but after a shard has changed its class
// and come back, a merged chunk may have a gap that another class's chunk fills. So
// with several classes it is the batches that are compared.
func (l *Log) chunkFrom(id driver.ShardID, classes uint32, from driver.Index) (*handle, chunkEntry, error) {
	wanted := func(e *chunkEntry) bool { return e.next > from }
	if bits.OnesCount32(classes) == 1 {
		_, h, e, err := l.findChunk(id, classes, wanted)
		return h, e, err
	}
	var best *handle
	var bestEntry chunkEntry
	var bestBase driver.Index
	for ; classes != 0; classes &= classes - 1 {
		_, h, e, err := l.findChunk(id, classes&-classes, wanted)
		var b batchHeader
		if err == nil && h != nil {
			b, err = h.first(e, func(base driver.Index, _ int64) bool { return base > from }, func(b *batchHeader) bool { return b.next() > from })
		}
		switch {
		case err != nil:
			if h != nil {
				l.handles.release(h)
			}
			if best != nil {
				l.handles.release(best)
			}
			return nil, chunkEntry{}, err
		case h == nil:
		case best == nil || b.base < bestBase:
			if best != nil {
				l.handles.release(best)
			}
			best, bestEntry, bestBase = h, e, b.base
		default:
			l.handles.release(h)
		}
	}
	return best, bestEntry, nil
}

// first finds the first batch of a chunk that is wanted, starting at the last mark
// that has not reached it, and checks it.
func (h *handle) first(e chunkEntry, reached func(driver.Index, int64) bool, wanted func(*batchHeader) bool) (batchHeader, error) {
	offset, err := h.seek(e, reached)
	if err != nil {
		return batchHeader{}, err
	}
	var head [batchHeaderBytes]byte
	for offset < e.offset+e.length {
		if err := readFull(h.in, head[:], offset); err != nil {
			return batchHeader{}, fmt.Errorf("read %s: %w", h.file.name(), err)
		}
		b, ok := peekBatch(head[:])
		if ok && wanted(&b) {
			data := make([]byte, b.stored())
			if err := readFull(h.in, data, offset); err != nil {
				return batchHeader{}, fmt.Errorf("read %s: %w", h.file.name(), err)
			}
			if _, ok = parseBatch(data); ok {
				return b, nil
			}
		}
		if !ok || b.shard != e.shard {
			return batchHeader{}, &driver.CorruptError{File: h.file.name(), Offset: offset, Reason: "batch does not match its checksum"}
		}
		offset += int64(b.stored())
	}
	return batchHeader{}, &driver.CorruptError{File: h.file.name(), Offset: e.offset, Reason: "chunk ends before the index its directory names"}
}

// findChunk finds the first sealed chunk of a shard that satisfies wanted, which
// must be false for a shard's early chunks and true for the late ones. The caller
// releases the handle; the file is nil if there is none.
//
// A shard need not be in every file, so this is a binary search that probes to
// the right of its middle until it meets the shard.
func (l *Log) findChunk(id driver.ShardID, classes uint32, wanted func(*chunkEntry) bool) (*file, *handle, chunkEntry, error) {
	set := l.files.Load()
	var bestFile *file
	var bestHandle *handle
	var best chunkEntry
	fail := func(err error) (*file, *handle, chunkEntry, error) {
		if bestHandle != nil {
			l.handles.release(bestHandle)
		}
		return nil, nil, chunkEntry{}, err
	}
	for class, files := range set.byClass {
		if classes&(1<<class) == 0 {
			continue
		}
		lo, hi := 0, len(files)
		for lo < hi {
			mid := (lo + hi) / 2
			m := mid
			var entry chunkEntry
			var h *handle
			for ; m < hi; m++ {
				var err error
				if h, err = l.handles.get(files[m]); err != nil {
					return fail(err)
				}
				var ok bool
				if entry, ok, err = h.find(id); err != nil {
					l.handles.release(h)
					return fail(err)
				}
				if ok {
					break
				}
				l.handles.release(h)
			}
			switch {
			case m == hi:
				hi = mid
			case wanted(&entry):
				if bestHandle == nil || entry.base < best.base {
					if bestHandle != nil {
						l.handles.release(bestHandle)
					}
					bestFile, bestHandle, best = files[m], h, entry
				} else {
					l.handles.release(h)
				}
				hi = mid
			default:
				l.handles.release(h)
				lo = m + 1
			}
		}
	}
	return bestFile, bestHandle, best, nil
}

// FirstAt implements driver.Driver.
func (l *Log) FirstAt(ctx context.Context, id driver.ShardID, at int64) (driver.Index, error) {
	for range maxRetries {
		s, err := l.readable(id)
		if err != nil {
			return 0, err
		}
		index, err := l.firstAt(s, at)
		if !errors.Is(err, errRetired) {
			return index, err
		}
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("shard log %d: %w", id, errRetired)
}

func (l *Log) firstAt(s *shard, at int64) (driver.Index, error) {
	s.mu.Lock()
	first, next, classes := s.first, s.next, s.classes
	inMemory := next
	if i := sort.Search(len(s.refs), func(i int) bool { return s.refs[i].at >= at }); i < len(s.refs) {
		inMemory = s.refs[i].base
	}
	needFiles := first < s.sealed && classes != 0 && (len(s.refs) == 0 || s.refs[0].at >= at)
	late := s.durableAt < at
	s.mu.Unlock()
	if late || first >= next {
		return next, nil
	}
	if !needFiles {
		return max(first, inMemory), nil
	}
	best := inMemory
	for ; classes != 0; classes &= classes - 1 {
		_, h, e, err := l.findChunk(s.id, classes&-classes, func(e *chunkEntry) bool { return e.maxAt >= at && e.next > first })
		if err != nil {
			return 0, err
		}
		if h == nil {
			continue
		}
		b, err := h.first(e, func(base driver.Index, batchAt int64) bool { return batchAt >= at && base > first }, func(b *batchHeader) bool { return b.at >= at && b.next() > first })
		l.handles.release(h)
		if err != nil {
			return 0, err
		}
		best = min(best, b.base)
	}
	return max(first, best), nil
}
