package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/vfs"
)

// ErrClosed means that the store has been closed.
var ErrClosed = errors.New("index is closed")

const (
	manifestName = "MANIFEST"
	maxManifest  = 4 << 20
	// maxSealed is how many full tables may wait for their files. Commits beyond
	// write one themselves.
	maxSealed = 4
	// mergeFactor is by how much a file must be larger than all newer ones
	// together to be left alone by a merge.
	mergeFactor = 4
	// maxLogs is how many logs a start leaves as they are: every run makes one,
	// and each takes up the room of a full one.
	maxLogs = 4
)

// Options of a Store. The zero value is usable.
type Options struct {
	// TableBytes is how large the table in memory grows; default 4 MiB. A log
	// has the same size.
	TableBytes int64
	// ReadOnly changes nothing on disk; commits fail.
	ReadOnly bool
	// Logger is told of background work that failed; it is tried again.
	Logger *slog.Logger
}

// Store is an open index.
type Store struct {
	fs      vfs.FS
	options Options
	logger  *slog.Logger

	queueMu sync.Mutex
	queue   []*waiting

	// committing guards the log.
	committing sync.Mutex
	log        *log   // nil if none could be made
	nextFrame  uint64 // number
	previous   uint64 // the log before the next one, and where it ends
	prevEnd    int64
	scratch    []byte
	frame      []byte

	// merging is held while sorted files are written.
	merging sync.Mutex

	mu     sync.RWMutex
	memory *memoryTable
	sealed []*memoryTable // newest first
	tables []*table       // newest first
	nextID uint64         // of logs and tables
	closed bool

	wake    chan struct{}
	stop    context.CancelFunc
	stopped context.Context
	work    sync.WaitGroup
}

// Batch is changes that happen together.
type Batch struct{ operations []operation }

// Put sets a key, which must not be empty.
func (b *Batch) Put(key string, value []byte) {
	b.operations = append(b.operations, operation{key: key, value: value})
}

// Delete removes a key.
func (b *Batch) Delete(key string) {
	b.operations = append(b.operations, operation{key: key, deleted: true})
}

// Len is the number of changes.
func (b *Batch) Len() int { return len(b.operations) }

type waiting struct {
	operations []operation
	bytes      int
	done       bool
	err        error
}

// manifest names the files that count.
type manifest struct {
	Format int      `json:"format"`
	Tables []uint64 `json:"tables"` // newest first
	Floor  uint64   `json:"floor"`  // logs below it are in tables
	Next   uint64   `json:"next"`
}

func (m manifest) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic("index: manifest: " + err.Error())
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, castagnoli), b)
}

func decodeManifest(b []byte) (m manifest, err error) {
	sum, text, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	if !ok {
		return m, &CorruptError{manifestName, 0, "it cannot be read"}
	}
	if fmt.Sprintf("%08x", crc32.Checksum([]byte(text), castagnoli)) != sum {
		return m, &CorruptError{manifestName, 0, "its checksum does not match"}
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return m, &CorruptError{manifestName, 9, "it cannot be read"}
	}
	if m.Format > formatVersion {
		return m, &NewerError{manifestName, m.Format}
	}
	return m, nil
}

// Open opens the index in a folder, which it makes if there is none. Damage is a
// *CorruptError, a later release's file a *NewerError.
func Open(fsys vfs.FS, o Options) (_ *Store, err error) {
	if o.TableBytes <= 0 {
		o.TableBytes = 4 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{fs: fsys, options: o, logger: o.Logger, memory: &memoryTable{}, nextFrame: 1, nextID: 1, wake: make(chan struct{}, 1)}
	if !o.ReadOnly {
		if err := fsys.MkdirAll("."); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			for _, t := range s.tables {
				t.file.Close()
			}
		}
	}()
	if err := s.recover(); err != nil {
		return nil, err
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	if !o.ReadOnly {
		s.work.Go(s.background)
		s.kick()
	}
	return s, nil
}

// recover reads the manifest and replays the logs that it does not cover.
func (s *Store) recover() error {
	m, logs, leftovers, err := inventory(s.fs, !s.options.ReadOnly)
	if err != nil {
		return err
	}
	s.nextID = m.Next
	for _, id := range m.Tables {
		t, err := openTable(s.fs, id)
		if missing(err) {
			return &CorruptError{tableName(id), 0, "the file is missing"}
		}
		if err != nil {
			return err
		}
		t.acquire()
		s.tables = append(s.tables, t)
	}
	if err := s.replay(logs); err != nil {
		return err
	}
	if s.options.ReadOnly {
		return nil
	}
	if len(logs) >= maxLogs {
		s.sealed, s.memory = []*memoryTable{s.memory}, &memoryTable{}
	}
	for _, name := range leftovers {
		if err := s.fs.Remove(name); err != nil && !missing(err) {
			s.logger.Warn("file of an interrupted write stays", "file", name, "error", err)
		}
	}
	return nil
}

// inventory reads the manifest and sorts the files into logs to replay and
// leftovers of interrupted work. create writes the manifest of a new index.
func inventory(fsys vfs.FS, create bool) (m manifest, logs []uint64, leftovers []string, err error) {
	raw, err := vfs.ReadFile(fsys, manifestName, maxManifest)
	fresh := missing(err)
	switch {
	case fresh:
		m, err = manifest{Format: formatVersion, Floor: 1, Next: 1}, nil
	case err == nil:
		m, err = decodeManifest(raw)
	}
	if err != nil {
		return m, nil, nil, err
	}
	files, err := fsys.ReadDir(".")
	if err != nil {
		return m, nil, nil, err
	}
	for _, f := range files {
		id, extension, ok := numbered(f.Name)
		switch {
		case ok && fresh:
			// The manifest is written before anything else.
			return m, nil, nil, &CorruptError{manifestName, 0, "it is missing"}
		case ok:
			m.Next = max(m.Next, id+1)
		case strings.HasSuffix(f.Name, ".tmp"):
			leftovers = append(leftovers, f.Name)
			continue
		default:
			continue
		}
		switch {
		case extension == "log" && id >= m.Floor:
			logs = append(logs, id)
		case extension == "tab" && slices.Contains(m.Tables, id):
		case extension == "log" || extension == "tab":
			leftovers = append(leftovers, f.Name)
		}
	}
	slices.Sort(logs)
	if fresh && create {
		err = vfs.WriteFile(fsys, manifestName, m.encode())
	}
	return m, logs, leftovers, err
}

// replay applies the logs. Where each but the last ends stands in the header of
// the one after it.
func (s *Store) replay(logs []uint64) error {
	headers := map[uint64]logHeader{}
	for _, id := range logs {
		b, err := readHead(s.fs, logName(id))
		if err != nil {
			return err
		}
		h, err := decodeLogHeader(logName(id), b)
		switch {
		case err == nil:
			headers[id] = h
		case !errors.Is(err, errBadHeader):
			return err
		}
		s.memory.lastLog = id
	}
	// The newest log leads to those before it. What is not on that way was begun
	// and given up before anything in it was acknowledged, or has lost its header.
	ends := map[uint64]int64{}
	for id, end := newest(headers, logs), int64(-1); id != 0; {
		h, ok := headers[id]
		if !ok {
			if slices.Contains(logs, id) {
				return &CorruptError{logName(id), 0, "the header is missing though the log was used"}
			}
			break // its operations are in tables
		}
		ends[id] = end
		if h.previous >= id {
			return &CorruptError{logName(id), 16, fmt.Sprintf("it follows log %d", h.previous)}
		}
		id, end = h.previous, int64(h.previousEnd)
	}
	number := uint64(0)
	for _, id := range logs {
		end, used := ends[id]
		if _, has := headers[id]; has && !used {
			continue
		}
		if !used {
			end = -1
		}
		next, last, err := readLog(s.fs, logName(id), id, number, end, s.memory.apply)
		if err != nil {
			return err
		}
		if used {
			number = next
			s.previous, s.prevEnd = id, last
		}
	}
	s.nextFrame = max(number, 1)
	return nil
}

// newest is the newest log that has a header, 0 if there is none.
func newest(headers map[uint64]logHeader, logs []uint64) uint64 {
	for _, id := range slices.Backward(logs) {
		if _, ok := headers[id]; ok {
			return id
		}
	}
	return 0
}

func readHead(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, logHeaderBytes)
	if err := readFull(f, b, 0); err != nil {
		return nil, nil // too short to have been used
	}
	return b, nil
}

// Commit makes the changes of a batch durable, all or none, and then visible.
// Commits that wait for one another share a write. With an error the changes
// are not visible, and after a crash may or may not have happened.
func (s *Store) Commit(b *Batch) error {
	if len(b.operations) == 0 {
		return nil
	}
	w := &waiting{operations: b.operations}
	for _, o := range b.operations {
		if o.key == "" || len(o.key) > maxKeyBytes {
			return fmt.Errorf("index key of %d bytes", len(o.key))
		}
		w.bytes += len(o.key) + len(o.value) + 24
	}
	if w.bytes > maxFrameBytes {
		return fmt.Errorf("index commit of %d bytes", w.bytes)
	}
	s.queueMu.Lock()
	s.queue = append(s.queue, w)
	s.queueMu.Unlock()

	s.committing.Lock()
	defer s.committing.Unlock()
	for !w.done {
		s.commitGroup()
	}
	return w.err
}

// commitGroup writes what waits, as far as one frame takes it.
func (s *Store) commitGroup() {
	s.queueMu.Lock()
	n, bytes := 0, 0
	for n < len(s.queue) && (n == 0 || bytes+s.queue[n].bytes <= maxFrameBytes) {
		bytes += s.queue[n].bytes
		n++
	}
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	s.queueMu.Unlock()

	s.scratch = s.scratch[:0]
	for _, w := range group {
		for _, o := range w.operations {
			s.scratch = appendOperation(s.scratch, o)
		}
	}
	err := s.write(s.scratch)
	if err == nil {
		s.mu.RLock()
		memory := s.memory
		s.mu.RUnlock()
		for _, w := range group {
			for _, o := range w.operations {
				memory.apply(operation{key: strings.Clone(o.key), value: slices.Clone(o.value), deleted: o.deleted})
			}
		}
	}
	if cap(s.scratch) > 1<<20 {
		s.scratch, s.frame = nil, nil
	}
	for _, w := range group {
		w.done, w.err = true, err
	}
}

// write appends a frame to the log and syncs it.
func (s *Store) write(payload []byte) error {
	need := int64(frameHeaderBytes + len(payload))
	s.mu.RLock()
	closed, full := s.closed || s.options.ReadOnly, s.memory.bytes >= s.options.TableBytes
	s.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	if full || s.log != nil && s.log.end+need > s.log.size {
		if err := s.seal(); err != nil {
			return err
		}
	}
	for attempt := 0; ; attempt++ {
		if s.log == nil {
			if err := s.newLog(need); err != nil {
				return err
			}
		}
		s.frame = appendFrame(s.frame[:0], s.nextFrame, payload)
		_, err := s.log.file.WriteAt(s.frame, s.log.end)
		if err == nil {
			err = s.log.file.Sync()
		}
		if err == nil {
			s.log.end += need
			s.nextFrame++
			return nil
		}
		// What is on disk beyond the end is unknown now; the next log's header
		// rules it out.
		s.leaveLog()
		if attempt > 0 {
			return fmt.Errorf("write index log: %w", err)
		}
	}
}

// endLog leaves the log as it is; the next write makes another.
func (s *Store) endLog() {
	if s.log != nil {
		s.log.file.Close()
		s.log = nil
	}
}

// newLog reserves a log and makes its header durable. Its end and number become
// the history of the one after it.
func (s *Store) newLog(need int64) (err error) {
	s.mu.Lock()
	id := s.nextID
	s.nextID++
	s.mu.Unlock()
	size := max(s.options.TableBytes, logHeaderBytes+need)
	name := logName(id)
	f, err := s.fs.Open(name, vfs.Write|vfs.Create|vfs.Exclusive)
	if err != nil {
		return fmt.Errorf("make index log: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = s.fs.Remove(name)
			err = fmt.Errorf("make index log: %w", err)
		}
	}()
	if err = f.Allocate(0, size); err != nil {
		return err
	}
	h := logHeader{id: id, previous: s.previous, previousEnd: uint64(s.prevEnd), first: s.nextFrame}
	if _, err = f.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = s.fs.SyncDir("."); err != nil {
		return err
	}
	s.log = &log{id: id, file: f, end: logHeaderBytes, size: size}
	s.mu.Lock()
	s.memory.lastLog = id
	s.mu.Unlock()
	return nil
}

// seal makes the table in memory ready to become a file.
func (s *Store) seal() error {
	s.mu.RLock()
	waiting := len(s.sealed)
	s.mu.RUnlock()
	if waiting >= maxSealed {
		s.merging.Lock()
		err := s.flush()
		s.merging.Unlock()
		if err != nil {
			return err
		}
	}
	s.leaveLog()
	s.mu.Lock()
	if len(s.memory.entries) > 0 {
		s.sealed = slices.Insert(s.sealed, 0, s.memory)
		s.memory = &memoryTable{}
	}
	s.mu.Unlock()
	s.kick()
	return nil
}

// leaveLog ends the log and remembers its end for the header of the next.
func (s *Store) leaveLog() {
	if s.log != nil {
		s.previous, s.prevEnd = s.log.id, s.log.end
		s.endLog()
	}
}

func (s *Store) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// background writes sealed tables to files and merges files.
func (s *Store) background() {
	for {
		select {
		case <-s.stopped.Done():
			return
		case <-s.wake:
		}
		if err := s.settle(); err != nil && s.stopped.Err() == nil {
			s.logger.Warn("index not written; tried again with the next commits", "error", err)
		}
	}
}

// settle writes and merges until there is nothing to do.
func (s *Store) settle() error {
	for s.stopped.Err() == nil {
		s.merging.Lock()
		s.mu.RLock()
		sealed := len(s.sealed)
		s.mu.RUnlock()
		var more bool
		var err error
		if sealed > 0 {
			more, err = true, s.flush()
		} else {
			more, err = s.merge()
		}
		s.merging.Unlock()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// flush writes the oldest sealed table to a file. merging is held.
func (s *Store) flush() error {
	s.mu.RLock()
	if len(s.sealed) == 0 {
		s.mu.RUnlock()
		return nil
	}
	oldest := s.sealed[len(s.sealed)-1]
	s.mu.RUnlock()
	entries := oldest.entries // sealed: nobody changes it
	t, err := s.writeTable(func(add func(*operation) error) error {
		for _, o := range entries {
			if err := add(o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.RLock()
	after := slices.Insert(slices.Clone(s.tables), 0, t)
	s.mu.RUnlock()
	if err := s.publish(after, oldest.lastLog+1); err != nil {
		// The manifest on disk may name the file already: it stays, and the next
		// start removes it if nothing names it.
		t.release()
		return err
	}
	s.mu.Lock()
	s.tables = after
	s.sealed = s.sealed[:len(s.sealed)-1]
	s.mu.Unlock()
	return s.dropLogs(oldest.lastLog)
}

// dropLogs removes the logs up to one, which are in tables.
func (s *Store) dropLogs(last uint64) error {
	files, err := s.fs.ReadDir(".")
	if err != nil {
		return err
	}
	for _, f := range files {
		if id, extension, ok := numbered(f.Name); ok && extension == "log" && id <= last {
			if err := s.fs.Remove(f.Name); err != nil && !missing(err) {
				return err
			}
		}
	}
	return nil
}

// publish writes the manifest. floor 0 leaves that of before.
func (s *Store) publish(tables []*table, floor uint64) error {
	if floor == 0 {
		raw, err := vfs.ReadFile(s.fs, manifestName, maxManifest)
		if err != nil {
			return err
		}
		m, err := decodeManifest(raw)
		if err != nil {
			return err
		}
		floor = m.Floor
	}
	s.mu.RLock()
	m := manifest{Format: formatVersion, Floor: floor, Next: s.nextID, Tables: make([]uint64, len(tables))}
	s.mu.RUnlock()
	for i, t := range tables {
		m.Tables[i] = t.id
	}
	return vfs.WriteFile(s.fs, manifestName, m.encode())
}

// writeTable makes a durable sorted file of what fill adds.
func (s *Store) writeTable(fill func(add func(*operation) error) error) (_ *table, err error) {
	s.mu.Lock()
	id := s.nextID
	s.nextID++
	s.mu.Unlock()
	name := tableName(id)
	f, err := s.fs.Open(name, vfs.Write|vfs.Create|vfs.Exclusive)
	if err != nil {
		return nil, err
	}
	w := &tableWriter{file: f}
	if err = fill(w.add); err == nil {
		err = w.finish()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.fs.SyncDir(".")
	}
	if err != nil {
		_ = s.fs.Remove(name)
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	t, err := openTable(s.fs, id)
	if err != nil {
		return nil, err
	}
	t.acquire()
	return t, nil
}

// merge makes one file of the newest ones, if some are not much smaller than
// the next older. merging is held.
func (s *Store) merge() (more bool, err error) {
	s.mu.RLock()
	tables := slices.Clone(s.tables)
	for _, t := range tables {
		t.acquire()
	}
	s.mu.RUnlock()
	defer func() {
		for _, t := range tables {
			t.release()
		}
	}()
	n, sum := 0, int64(0)
	for i, t := range tables {
		if i > 0 && t.size < mergeFactor*sum {
			n = i + 1
		}
		sum += t.size
	}
	if n == 0 {
		return false, nil
	}
	m := &Iterator{}
	for _, t := range tables[:n] {
		m.sources = append(m.sources, &source{table: &tableIterator{t: t}})
	}
	oldest := n == len(tables)
	merged, err := s.writeTable(func(add func(*operation) error) error {
		count := 0
		for m.seek(""); m.valid; m.step() {
			if count++; count%1024 == 0 && s.stopped.Err() != nil {
				return ErrClosed
			}
			if m.entry.deleted && oldest {
				continue
			}
			if err := add(&m.entry); err != nil {
				return err
			}
		}
		return m.err
	})
	if err != nil {
		return false, err
	}
	after := append([]*table{merged}, tables[n:]...)
	if merged.entries == 0 {
		after = tables[n:]
	}
	if err := s.publish(after, 0); err != nil {
		merged.release()
		return false, err
	}
	s.mu.Lock()
	s.tables = slices.Clone(after)
	s.mu.Unlock()
	if merged.entries == 0 {
		merged.obsolete.Store(true)
		merged.release()
	}
	for _, t := range tables[:n] {
		t.obsolete.Store(true)
		t.release() // the store's own reference
	}
	return true, nil
}

// snapshot is the tables of the moment. release must be called.
func (s *Store) snapshot() (memories []*memoryTable, tables []*table, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	memories = append(append(memories, s.memory), s.sealed...)
	tables = slices.Clone(s.tables)
	for _, t := range tables {
		t.acquire()
	}
	return memories, tables, nil
}

// Get returns the value of a key. It must not be modified.
func (s *Store) Get(key string) (value []byte, ok bool, err error) {
	memories, tables, err := s.snapshot()
	if err != nil {
		return nil, false, err
	}
	defer func() {
		for _, t := range tables {
			t.release()
		}
	}()
	for _, m := range memories {
		if o := m.get(key); o != nil {
			return o.value, !o.deleted, nil
		}
	}
	for _, t := range tables {
		o, err := t.get(key)
		if err != nil {
			return nil, false, err
		}
		if o != nil {
			return o.value, !o.deleted, nil
		}
	}
	return nil, false, nil
}

// Close waits for work in hand and closes the files. Everything committed is
// durable already.
func (s *Store) Close() error {
	s.stop()
	s.work.Wait()
	s.committing.Lock()
	defer s.committing.Unlock()
	s.merging.Lock()
	defer s.merging.Unlock()
	s.mu.Lock()
	tables := s.tables
	wasClosed := s.closed
	s.tables, s.closed = nil, true
	s.mu.Unlock()
	if wasClosed {
		return nil
	}
	s.endLog()
	for _, t := range tables {
		t.release()
	}
	return nil
}

// Size is how much the index holds: sorted files, their bytes, and bytes in
// memory.
func (s *Store) Size() (files int, bytes, memory int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.tables {
		bytes += t.size
	}
	for _, m := range append([]*memoryTable{s.memory}, s.sealed...) {
		m.mu.RLock()
		memory += m.bytes
		m.mu.RUnlock()
	}
	return len(s.tables), bytes, memory
}

// Verify reads every file of the index in a folder that no store has open.
// check is called for each with its entries and damage, nil if there is none.
func Verify(fsys vfs.FS, check func(file string, entries int64, damage error)) error {
	m, logs, _, err := inventory(fsys, false)
	if err != nil {
		check(manifestName, 0, err)
		return nil
	}
	for _, id := range m.Tables {
		t, err := openTable(fsys, id)
		if missing(err) {
			err = &CorruptError{tableName(id), 0, "the file is missing"}
		}
		n := int64(0)
		if err == nil {
			n, err = int64(t.entries), t.verify()
			t.file.Close()
		}
		check(tableName(id), n, err)
	}
	if len(logs) > 0 {
		s := &Store{fs: fsys, memory: &memoryTable{}}
		err := s.replay(logs)
		check(logName(logs[len(logs)-1]), int64(len(s.memory.entries)), err)
	}
	return nil
}
