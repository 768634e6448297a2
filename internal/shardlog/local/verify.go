package local

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// Checked is one file that Verify has read.
type Checked struct {
	File    string
	Bytes   int64
	Batches int64
	Records int64
	Damage  []driver.CorruptError // empty if the file is good
}

// Verify reads everything in a data directory that is not in use, checks every
// checksum, and reports each file. It changes nothing. It returns nil if
// everything is good, the first damage otherwise, and other errors at once.
func Verify(ctx context.Context, fsys vfs.FS, report func(Checked)) error {
	l, unlock, err := openStopped(ctx, fsys)
	if err != nil {
		return err
	}
	defer unlock()
	var first error
	note := func(c Checked) {
		if len(c.Damage) > 0 && first == nil {
			first = &c.Damage[0]
		}
		report(c)
	}
	for i := range l.repairs {
		note(Checked{File: l.repairs[i].File, Damage: l.repairs[i : i+1]})
	}
	for _, s := range l.segments {
		c := Checked{File: s.name, Bytes: int64(s.end)}
		for _, sh := range l.shards {
			for j := range sh.refs {
				if r := &sh.refs[j]; int(r.slot) == s.number {
					c.Batches++
					c.Records += int64(r.count)
				}
			}
		}
		note(c)
	}
	for _, f := range l.files.Load().all() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		c, err := l.verifyFile(f)
		if err != nil {
			return err
		}
		note(c)
	}
	return first
}

// openStopped opens a directory for reading, with its lock taken, and with damage
// to the log noted instead of refused.
func openStopped(ctx context.Context, fsys vfs.FS) (*Log, func(), error) {
	if _, err := fsys.Stat(manifestName); err != nil {
		return nil, nil, fmt.Errorf("not a data directory: %w", err)
	}
	lock, err := fsys.Lock(lockName)
	if errors.Is(err, vfs.ErrLocked) {
		return nil, nil, fmt.Errorf("data directory is in use by another process: %w", err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("lock data directory: %w", err)
	}
	l, err := Open(ctx, fsys, Options{ReadOnly: true, Repair: true})
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	return l, func() {
		l.Close()
		lock.Close()
	}, nil
}

func (l *Log) verifyFile(f *file) (Checked, error) {
	c := Checked{File: f.name(), Bytes: f.size}
	var corrupt *driver.CorruptError
	h, err := l.handles.get(f)
	if errors.As(err, &corrupt) {
		c.Damage = append(c.Damage, *corrupt)
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer l.handles.release(h)
	var buf []byte
	position := int64(segHeaderBytes)
	err = h.each(func(e chunkEntry) error {
		if e.offset != position || e.length <= 0 || e.offset+e.length > h.t.marksAt {
			return &driver.CorruptError{File: f.name(), Offset: e.offset, Reason: "chunks do not follow each other"}
		}
		position += e.length
		first := driver.Index(0)
		if sh := l.lookup(e.shard); sh != nil {
			first = sh.first
		}
		if first == 0 || e.next <= first {
			return nil // unreadable; its space may have been given back
		}
		r := reader{log: l, maxBytes: 1 << 20}
		for from := e.base; from < e.next; {
			r.buf, r.batches, r.offsets, r.sizes, r.bytes = buf[:0], r.batches[:0], r.offsets[:0], r.sizes[:0], 0
			_, _, err := r.stepChunk(h, e, from)
			buf = r.buf
			for i := range r.batches {
				c.Batches++
				c.Records += int64(r.batches[i].Count)
				from = r.batches[i].Next()
			}
			if err != nil {
				return err
			}
			if len(r.batches) == 0 {
				return &driver.CorruptError{File: f.name(), Offset: e.offset, Reason: "chunk ends early"}
			}
		}
		for from := range e.nMarks {
			if _, err := h.mark(e, e.marks+from); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && position != h.t.marksAt {
		err = &driver.CorruptError{File: f.name(), Offset: position, Reason: "bytes between chunks and marks"}
	}
	if errors.As(err, &corrupt) {
		c.Damage = append(c.Damage, *corrupt)
		return c, nil
	}
	return c, err
}

// Backup copies a data directory that is not in use to an empty one. Damage is an
// error: a backup holds only what is whole.
func Backup(ctx context.Context, dst, src vfs.FS) error {
	l, unlock, err := openStopped(ctx, src)
	if err != nil {
		return err
	}
	defer unlock()
	if len(l.repairs) > 0 {
		return &l.repairs[0]
	}
	return l.Backup(ctx, dst)
}

// Backup copies the log as it is now to an empty directory, while it is in use.
// What is acknowledged before the call is in the copy.
func (l *Log) Backup(ctx context.Context, dst vfs.FS) error {
	if l.closing.Load() {
		return driver.ErrClosed
	}
	if err := dst.MkdirAll("."); err != nil {
		return fmt.Errorf("make backup directory: %w", err)
	}
	if _, err := dst.Stat(manifestName); err == nil {
		return errors.New("backup directory already holds data")
	}
	for _, dir := range []string{walDir, segDir} {
		if err := dst.MkdirAll(dir); err != nil {
			return fmt.Errorf("make backup directory: %w", err)
		}
	}
	files, m, err := l.backupLog(ctx, dst)
	if err != nil {
		return err
	}
	defer func() {
		l.sealMu.Lock()
		defer l.sealMu.Unlock()
		l.held--
		l.removeFiles()
	}()
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := dst.MkdirAll(f.dir()); err != nil {
			return fmt.Errorf("make backup directory: %w", err)
		}
		if err := vfs.Copy(dst, f.name(), l.fs, f.name()); err != nil {
			return fmt.Errorf("back up %s: %w", f.name(), err)
		}
		if err := dst.SyncDir(path.Dir(f.name())); err != nil {
			return err
		}
	}
	// Last, because it makes the copy a data directory.
	if err := vfs.WriteFile(dst, manifestName, m); err != nil {
		return fmt.Errorf("back up manifest: %w", err)
	}
	return nil
}

// backupLog copies the segments that are not sealed, and holds the sealed files
// that belong to the same moment against removal.
func (l *Log) backupLog(ctx context.Context, dst vfs.FS) ([]*file, []byte, error) {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	type part struct {
		segment *segment
		end     int
	}
	// The manifest first: it may be behind the segments, not ahead of them.
	m := l.snapshot().encode()
	var parts []part
	l.mu.Lock()
	for _, s := range l.segments {
		parts = append(parts, part{s, s.end})
	}
	l.mu.Unlock()
	for _, p := range parts {
		if err := context.Cause(ctx); err != nil {
			return nil, nil, err
		}
		// Images stay while sealMu is held, and do not change below their end.
		if err := copySegment(dst, p.segment, p.end); err != nil {
			return nil, nil, fmt.Errorf("back up %s: %w", p.segment.name, err)
		}
	}
	if err := dst.SyncDir(walDir); err != nil {
		return nil, nil, err
	}
	l.held++
	return l.files.Load().all(), m, nil
}

func copySegment(dst vfs.FS, s *segment, end int) (err error) {
	f, err := dst.Open(s.name, vfs.Write|vfs.Create|vfs.Empty)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := f.Truncate(int64(s.size)); err != nil {
		return err
	}
	block := make([]byte, blockBytes)
	walHeader{state: segmentInUse, sequence: s.sequence, salt: s.salt, size: uint64(s.size)}.put(block)
	if _, err := f.WriteAt(block, 0); err != nil {
		return err
	}
	if end > blockBytes {
		if _, err := f.WriteAt(s.image[blockBytes:end], blockBytes); err != nil {
			return err
		}
	}
	return f.Sync()
}
