package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/vfs"
)

// memory is what all buffers of an engine may take, and where they go when it is
// not enough.
//
// Room is asked for before a lane takes any lock (reserve), and charged when it
// is used: the bound can be passed by what lanes route at the same time, which is
// a run each.
type memory struct {
	max   int64
	spool vfs.FS // nil: nothing is spilled
	names atomic.Uint64
	// relieve is called when room is wanted and nothing can be spilled. It reports
	// whether there is anything whose delivery will make room.
	relieve func() bool

	mu      sync.Mutex
	used    int64
	buffers map[*buffer]struct{} // those with memory
	freed   chan struct{}        // closed when used falls
}

// chunkSizes are the sizes of pieces of memory. A buffer begins small, since
// there may be thousands that hold a record a minute.
var chunkSizes = [...]int{4 << 10, 32 << 10, largeChunk}

// largeChunk is the size that most memory has; getLarge and putLarge say where.
const largeChunk = 256 << 10

var chunkPools [len(chunkSizes) - 1]sync.Pool

// getChunk returns memory for at least n bytes, and of the class. All chunks can
// be written past the page cache.
func getChunk(class, n int) []byte {
	for class < len(chunkSizes) && chunkSizes[class] < n {
		class++
	}
	if class == len(chunkSizes) {
		return newChunk(alignUp(n))
	}
	if class == len(chunkPools) {
		return getLarge()
	}
	if p, ok := chunkPools[class].Get().(*byte); ok {
		return unsafe.Slice(p, chunkSizes[class])[:0]
	}
	return newChunk(chunkSizes[class])
}

// newChunk makes a chunk in the Go heap, where pieces of these sizes are aligned
// anyway, though nothing says that they have to be.
func newChunk(n int) []byte {
	c := make([]byte, n)
	if len(vfs.Aligned(c)) < n {
		c = vfs.AlignedBuffer(n)
	}
	return c[:0]
}

func alignUp(n int) int { return (n + vfs.Alignment - 1) &^ (vfs.Alignment - 1) }

func putChunk(c []byte) {
	if cap(c) == largeChunk {
		putLarge(c)
		return
	}
	for class := range chunkPools {
		if cap(c) == chunkSizes[class] {
			chunkPools[class].Put(unsafe.SliceData(c[:1]))
			return
		}
	}
}

func newMemory(max int64, spool vfs.FS) (*memory, error) {
	m := &memory{max: max, spool: spool, buffers: map[*buffer]struct{}{}, freed: make(chan struct{})}
	if spool == nil {
		return m, nil
	}
	// Whatever is there belonged to an engine that is no more.
	if err := spool.MkdirAll("."); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	names, err := spool.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	for _, info := range names {
		if path.Ext(info.Name) == spoolExtension {
			if err := spool.Remove(info.Name); err != nil {
				return nil, fmt.Errorf("clear spool: %w", err)
			}
		}
	}
	return m, nil
}

const spoolExtension = ".buffer"

// minSpill is the least memory that is worth a file.
const minSpill = 128 << 10

func (m *memory) charge(n int64, b *buffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += n
	if n > 0 {
		m.buffers[b] = struct{}{}
		return
	}
	if b.held.Load() == 0 {
		delete(m.buffers, b)
	}
	close(m.freed)
	m.freed = make(chan struct{})
}

// unfair reports whether a delivery stream that holds n bytes has more than its
// share, where nothing can be spilled: more than what is free for all.
func (m *memory) unfair(n int64) bool {
	if m.spool != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return n > m.max-m.used
}

// reserve waits until n more bytes fit. The largest buffers make room by going to
// files; where they cannot, it waits for deliveries. No lock may be held.
func (m *memory) reserve(ctx context.Context, n int64) error {
	for {
		m.mu.Lock()
		if m.used == 0 || m.used+n <= m.max {
			m.mu.Unlock()
			return nil
		}
		freed := m.freed
		var largest []*buffer
		if m.spool != nil {
			for b := range m.buffers {
				if b.held.Load() >= minSpill && b.pins.Load() == 0 {
					largest = append(largest, b)
				}
			}
		}
		m.mu.Unlock()
		slices.SortFunc(largest, func(a, b *buffer) int { return int(b.held.Load() - a.held.Load()) })
		spilled := false
		for _, b := range largest {
			if n, err := b.spill(); err == nil && n > 0 {
				spilled = true
				break
			}
		}
		if spilled {
			continue
		}
		if m.relieve != nil && !m.relieve() {
			// What takes the memory waits for more records: batches of an earlier run
			// that are read again. They are no larger than they were then.
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// buffer holds records in order: first those in a file, then those in chunks.
// One goroutine at a time appends; reading goes on beside it only after the last
// append.
type buffer struct {
	memory *memory
	held   atomic.Int64 // bytes of chunks
	pins   atomic.Int32 // readers

	mu     sync.Mutex
	chunks [][]byte
	file   vfs.File
	name   string
	sizes  []int // of the chunks that are in the file
	gone   bool
}

// The bits that say what a buffered record has.
const (
	hasKey      = 1 << 0
	hasOriginal = 1 << 1
	hasTable    = 1 << 2
)

// append copies a record into the buffer.
func (b *buffer) append(lane uint32, r *record.Record) {
	size := 6*binary.MaxVarintLen64 + len(r.Data)
	flags := byte(0)
	if r.PartitionKey != nil {
		flags |= hasKey
		size += binary.MaxVarintLen64 + len(r.PartitionKey)
	}
	if r.Original != nil {
		flags |= hasOriginal
		size += binary.MaxVarintLen64 + len(r.Original)
	}
	if r.Table != nil {
		flags |= hasTable
		size += 3*binary.MaxVarintLen64 + len(r.Table.Database) + len(r.Table.Name) + len(r.Table.Operation)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.chunks)
	if n == 0 || cap(b.chunks[n-1])-len(b.chunks[n-1]) < size {
		// Each chunk is of the next class; later ones stay with the largest.
		c := getChunk(min(n+len(b.sizes), len(chunkSizes)-1), size)
		b.chunks = append(b.chunks, c)
		n++
		b.held.Add(int64(cap(c)))
		b.memory.charge(int64(cap(c)), b)
	}
	c := b.chunks[n-1]
	c = append(c, flags)
	c = binary.AppendUvarint(c, uint64(lane))
	c = binary.AppendUvarint(c, r.Index)
	c = binary.AppendUvarint(c, uint64(r.Sub))
	c = binary.AppendUvarint(c, uint64(r.Arrival))
	if flags&hasKey != 0 {
		c = appendBytes(c, r.PartitionKey)
	}
	if flags&hasOriginal != 0 {
		c = appendBytes(c, r.Original)
	}
	if flags&hasTable != 0 {
		c = appendBytes(c, r.Table.Database)
		c = appendBytes(c, r.Table.Name)
		c = appendBytes(c, r.Table.Operation)
	}
	b.chunks[n-1] = appendBytes(c, r.Data)
}

func appendBytes[S string | []byte](dst []byte, s S) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

var errBuffer = errors.New("buffered records are damaged")

// chunkReader takes a chunk apart.
type chunkReader struct {
	rest []byte
	bad  bool
}

func (c *chunkReader) uvarint() uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 {
		c.bad, c.rest = true, nil
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

func (c *chunkReader) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.rest)) {
		c.bad, c.rest = true, nil
		return nil
	}
	out := c.rest[:n:n]
	c.rest = c.rest[n:]
	return out
}

// each calls f for every record, in order. The record is valid until f returns.
// laneOf finds a lane by its number.
func (b *buffer) each(laneOf func(uint32) record.Lane, f func(i int, r *record.Record) error) error {
	b.mu.Lock()
	if b.gone {
		b.mu.Unlock()
		return errors.New("delivery: batch was read after its end")
	}
	b.pins.Add(1) // spill looks at it under the same lock
	defer b.pins.Add(-1)
	file, sizes, chunks := b.file, b.sizes, b.chunks
	b.mu.Unlock()

	w := walker{laneOf: laneOf, f: f}
	if len(sizes) > 0 {
		scratch := getChunk(len(chunkSizes)-1, slices.Max(sizes))
		defer putChunk(scratch)
		offset := int64(0)
		for _, size := range sizes {
			c := scratch[:alignUp(size)]
			if n, err := file.ReadAt(c, offset); n < size {
				if err == nil || err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("read buffered records: %w", err)
			}
			if err := w.chunk(c[:size]); err != nil {
				return err
			}
			offset += int64(len(c))
		}
	}
	for _, c := range chunks {
		if err := w.chunk(c); err != nil {
			return err
		}
	}
	return nil
}

// walker goes through chunks.
type walker struct {
	laneOf func(uint32) record.Lane
	f      func(i int, r *record.Record) error
	i      int
	number uint32 // of lane, plus one
	lane   record.Lane
	tables *record.Table // the last one, shared by records that follow each other
	record record.Record
}

func (w *walker) chunk(chunk []byte) error {
	c := chunkReader{rest: chunk}
	for len(c.rest) > 0 {
		flags := c.rest[0]
		c.rest = c.rest[1:]
		number := uint32(c.uvarint()) + 1
		if number != w.number {
			w.number, w.lane = number, w.laneOf(number-1)
		}
		r := &w.record
		*r = record.Record{Lane: w.lane}
		r.Index, r.Sub, r.Arrival = c.uvarint(), uint32(c.uvarint()), int64(c.uvarint())
		if flags&hasKey != 0 {
			r.PartitionKey = c.bytes()
		}
		if flags&hasOriginal != 0 {
			r.Original = c.bytes()
		}
		if flags&hasTable != 0 {
			database, name, operation := c.bytes(), c.bytes(), c.bytes()
			if w.tables == nil || w.tables.Database != string(database) || w.tables.Name != string(name) || w.tables.Operation != string(operation) {
				w.tables = &record.Table{Database: string(database), Name: string(name), Operation: string(operation)}
			}
			r.Table = w.tables
		}
		r.Data = c.bytes()
		if c.bad {
			return errBuffer
		}
		if err := w.f(w.i, r); err != nil {
			return err
		}
		w.i++
	}
	return nil
}

// spill moves the chunks to the file and returns how much memory that gave back.
func (b *buffer) spill() (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone || b.pins.Load() > 0 || len(b.chunks) == 0 {
		return 0, nil
	}
	if b.file == nil {
		b.name = fmt.Sprintf("%016x%s", b.memory.names.Add(1), spoolExtension)
		// Most of it is written once and read once, minutes later: the page cache
		// would cost more time than the disk, and memory that something else needs.
		file, err := b.memory.spool.Open(b.name, vfs.Write|vfs.Create|vfs.Empty|vfs.Uncached)
		if err != nil {
			return 0, err
		}
		b.file = file
	}
	offset := int64(0)
	for _, n := range b.sizes {
		offset += int64(alignUp(n))
	}
	sizes := b.sizes
	for _, c := range b.chunks {
		whole := c[:alignUp(len(c))]
		clear(whole[len(c):])
		if _, err := b.file.WriteAt(whole, offset); err != nil {
			return 0, err // the chunks are still here
		}
		offset += int64(len(whole))
		sizes = append(sizes, len(c))
	}
	b.sizes = sizes
	return b.releaseLocked(), nil
}

func (b *buffer) releaseLocked() int64 {
	for _, c := range b.chunks {
		putChunk(c)
	}
	b.chunks = nil
	n := b.held.Swap(0)
	if n > 0 {
		b.memory.charge(-n, b)
	}
	return n
}

// close gives everything back. Nobody reads any more.
func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return
	}
	b.gone = true
	b.releaseLocked()
	if b.file != nil {
		_ = b.file.Close()
		_ = b.memory.spool.Remove(b.name)
		b.file = nil
	}
}
