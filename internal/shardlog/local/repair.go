package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// damagedDir keeps the files that a repair has replaced, for whoever wants to look.
const damagedDir = "damaged"

// repairFiles reads all sealed segments and isolates what is damaged: whole batches
// move to a new file, and reports say what is gone. It returns the files that were
// replaced, which moveDamaged takes away once the manifest does not list them.
func (l *Log) repairFiles(ctx context.Context) ([]*file, error) {
	var replaced, added []*file
	for _, f := range l.files.Load().all() {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		c, err := l.verifyFile(f)
		switch {
		case errors.Is(err, driver.ErrNewerVersion):
			return nil, err
		case err == nil && len(c.Damage) == 0:
			continue
		case err != nil:
			c.Damage = append(c.Damage, driver.CorruptError{File: f.name(), Reason: err.Error()})
		}
		l.handles.forget(f)
		s := salvage{log: l, file: f}
		next, err := s.run()
		if err != nil {
			return nil, fmt.Errorf("repair %s: %w", f.name(), err)
		}
		if len(s.lost) == 0 {
			c.Damage[0].Reason += "; no readable record is lost"
			s.lost = c.Damage[:1]
		}
		for i := range s.lost {
			l.o.Logger.Error("damaged sealed segment was repaired", "damage", &s.lost[i])
		}
		l.repairs = append(l.repairs, s.lost...)
		replaced = append(replaced, f)
		if next != nil {
			added = append(added, next)
		}
	}
	l.files.Store(l.files.Load().with(replaced, added))
	return replaced, nil
}

// moveDamaged moves files that were replaced out of the way.
func (l *Log) moveDamaged(files []*file) error {
	if len(files) == 0 {
		return nil
	}
	if err := l.fs.MkdirAll(damagedDir); err != nil {
		return fmt.Errorf("make %s: %w", damagedDir, err)
	}
	for _, f := range files {
		if err := l.fs.Rename(f.name(), path.Join(damagedDir, path.Base(f.name()))); err != nil {
			return fmt.Errorf("keep damaged file: %w", err)
		}
		if err := l.fs.SyncDir(f.dir()); err != nil {
			return err
		}
	}
	return l.fs.SyncDir(damagedDir)
}

// salvage takes what is whole out of one damaged sealed segment. It believes only
// what matches its checksum, and goes on behind damage only where the directory, a
// mark, or the damaged batch's own length says that a batch begins: a search for
// anything that looks like one could find what somebody has put into a record.
type salvage struct {
	log  *Log
	file *file
	data []byte
	out  *fileWriter
	lost []driver.CorruptError
}

// run returns the new file, or nil if nothing readable is left.
func (s *salvage) run() (_ *file, err error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	defer func() { freeImage(s.data[:cap(s.data)]) }()
	meta := &file{id: s.log.nextFile, class: s.file.class, retention: s.file.retention, firstSequence: s.file.firstSequence, lastSequence: s.file.lastSequence}
	s.log.nextFile++
	if s.out, err = newFileWriter(s.log.fs, meta); err != nil {
		return nil, err
	}
	if err := s.chunks(); err != nil {
		s.out.abort()
		return nil, err
	}
	if len(s.out.entries) == 0 {
		s.out.abort()
		return nil, nil
	}
	return meta, s.out.finish() // which cleans up by itself
}

// read reads the file; what the disk does not give is zeros, and damage like any.
func (s *salvage) read() error {
	in, err := s.log.fs.Open(s.file.name(), 0)
	if err != nil {
		return err
	}
	defer in.Close()
	size, err := in.Size()
	if err != nil {
		return err
	}
	image, _ := allocateImage(max(alignUp(int(size)), blockBytes))
	s.data = image[:size]
	for offset := 0; offset < len(s.data); offset += writeChunk {
		piece := s.data[offset:min(offset+writeChunk, len(s.data))]
		if readFull(in, piece, int64(offset)) == nil {
			continue
		}
		for at := 0; at < len(piece); at += blockBytes {
			block := piece[at:min(at+blockBytes, len(piece))]
			if readFull(in, block, int64(offset+at)) != nil {
				clear(block)
			}
		}
	}
	return nil
}

// directory finds the directory's entries by its trailer, or without it by the
// checksum of its first page, and the marks. Damaged pages are left out.
func (s *salvage) directory() (entries []chunkEntry, marksAt int64) {
	size := int64(len(s.data))
	dirAt, pages := int64(0), int64(0)
	if size >= trailerBytes {
		if t, ok := parseTrailer(s.data[size-trailerBytes:], size); ok && t.version == segVersion {
			dirAt, pages, marksAt = t.dirAt, t.pages, t.marksAt
		}
	}
	for n := int64(1); pages == 0 && size-trailerBytes-n*(pageBytes+8) >= segHeaderBytes; n++ {
		at := size - trailerBytes - n*(pageBytes+8)
		if _, ok := parsePage(s.data[at : at+pageBytes]); ok {
			dirAt, pages = at, n
		}
	}
	marks := uint32(0)
	for p := range pages {
		page := s.data[dirAt+p*pageBytes : dirAt+(p+1)*pageBytes]
		n, ok := parsePage(page)
		if !ok {
			continue
		}
		for i := range n {
			e := parseEntry(pageEntry(page, i))
			if e.offset >= segHeaderBytes && e.length > 0 && e.length <= dirAt && e.offset <= dirAt-e.length {
				entries = append(entries, e)
				marks = max(marks, e.marks+e.nMarks)
			}
		}
	}
	if marksAt == 0 && pages > 0 {
		marksAt = dirAt - int64(marks)*markBytes
	}
	slices.SortFunc(entries, func(a, b chunkEntry) int { return cmp.Compare(a.offset, b.offset) })
	return entries, marksAt
}

// chunks goes through all chunks, those of lost directory pages included.
func (s *salvage) chunks() error {
	entries, marksAt := s.directory()
	end := marksAt
	if end <= 0 || end > int64(len(s.data)) {
		end = int64(len(s.data))
	}
	at := int64(segHeaderBytes)
	for i := range entries {
		e := &entries[i]
		if e.offset < at || e.offset+e.length > end {
			continue
		}
		if err := s.between(at, e.offset); err != nil {
			return err
		}
		if err := s.chunk(e, marksAt); err != nil {
			return err
		}
		at = e.offset + e.length
	}
	return s.between(at, end)
}

// chunk saves one chunk that the directory knows.
func (s *salvage) chunk(e *chunkEntry, marksAt int64) error {
	first, alive := s.log.live(*e)
	if !alive {
		return nil
	}
	at, end := e.offset, e.offset+e.length
	known := e.base // everything before is accounted for
	bad := int64(-1)
	for at < end {
		b, ok := s.batch(at, end)
		if !ok || b.shard != e.shard || b.base < known || b.next() > e.next {
			if bad < 0 {
				bad = at
			}
			at = s.resume(e, marksAt, at, end)
			continue
		}
		if bad >= 0 {
			s.report(e.shard, bad, max(known, first), b.base)
			bad = -1
		}
		known = b.next()
		if err := s.keep(b, at, first); err != nil {
			return err
		}
		at += int64(b.stored())
	}
	if bad >= 0 {
		s.report(e.shard, bad, max(known, first), e.next)
	}
	return nil
}

// resume finds where to go on behind a damaged batch of a chunk.
func (s *salvage) resume(e *chunkEntry, marksAt, at, end int64) int64 {
	next := end
	for n := range int64(e.nMarks) {
		place := marksAt + (int64(e.marks)+n)*markBytes
		if marksAt <= 0 || place+markBytes > int64(len(s.data)) {
			break
		}
		if m, ok := parseMark(s.data[place : place+markBytes]); ok && m.offset > at && m.offset < next {
			next = m.offset
		}
	}
	if behind, ok := s.behind(at, next); ok && behind.shard == e.shard {
		b, _ := peekBatch(s.data[at:])
		next = at + int64(b.stored())
	}
	return next
}

// behind is the batch that follows a damaged one whose length is still right.
func (s *salvage) behind(at, end int64) (batchHeader, bool) {
	if end-at < batchHeaderBytes {
		return batchHeader{}, false
	}
	b, ok := peekBatch(s.data[at:])
	if !ok || at+int64(b.stored()) >= end {
		return batchHeader{}, false
	}
	return s.batch(at+int64(b.stored()), end)
}

// batch is the whole batch at a place.
func (s *salvage) batch(at, end int64) (batchHeader, bool) {
	if end-at < batchHeaderBytes {
		return batchHeader{}, false
	}
	b, ok := peekBatch(s.data[at:end])
	if !ok || at+int64(b.stored()) > end {
		return batchHeader{}, false
	}
	return parseBatch(s.data[at : at+int64(b.stored())])
}

// between saves chunks whose directory page is lost: they follow each other, until
// damage ends it.
func (s *salvage) between(at, end int64) error {
	var last batchHeader
	for at < end {
		b, ok := s.batch(at, end)
		ordered := ok && (b.shard > last.shard || b.shard == last.shard && b.base >= last.next())
		if !ordered {
			behind, ok := s.behind(at, end)
			if !ok || behind.shard < last.shard {
				s.lost = append(s.lost, driver.CorruptError{File: s.file.name(), Offset: at, Reason: fmt.Sprintf("the directory is damaged as well; what lies up to offset %d is lost, from shard log %d, index %d on", end, last.shard, last.next())})
				return nil
			}
			damaged, _ := peekBatch(s.data[at:])
			s.report(damaged.shard, at, damaged.base, damaged.next())
			at += int64(damaged.stored())
			continue
		}
		last = b
		if first, alive := s.log.live(chunkEntry{shard: b.shard, next: b.next()}); alive {
			if err := s.keep(b, at, first); err != nil {
				return err
			}
		}
		at += int64(b.stored())
	}
	return nil
}

func (s *salvage) keep(b batchHeader, at int64, first driver.Index) error {
	if b.next() <= first {
		return nil
	}
	return s.out.add(b, s.data[at:at+int64(b.stored())])
}

// report notes that records from an index up to another are gone.
func (s *salvage) report(id driver.ShardID, offset int64, from, to driver.Index) {
	if from < to {
		s.lost = append(s.lost, driver.CorruptError{File: s.file.name(), Offset: offset, Reason: fmt.Sprintf("records %d to %d of shard log %d are lost", from, to-1, id)})
	}
}
