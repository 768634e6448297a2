package local

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

const (
	// mergeFiles neighbours of about a segment's size become one file if their
	// chunks are short on average: with thousands of shards a chunk is a few
	// kilobytes, and reading one shard would touch a file for each of them.
	mergeFiles     = 8
	mergeBelow     = 64 << 10 // mean bytes of a chunk
	compactRate    = 64 << 20 // bytes a second, in the background
	punchAtLeast   = 64 << 10 // a smaller hole is not worth a call
	pacedPieces    = 4 << 20
	mostlyDeadPart = 2 // a file of which less than 1/2 is readable is rewritten
)

// compactor rewrites files in the background while the log is used.
func (l *Log) compactor() {
	for {
		select {
		case <-l.stopped.Done():
			return
		case <-l.compactable:
		}
		for l.stopped.Err() == nil {
			did, err := l.compact(l.stopped, true)
			if err != nil && l.stopped.Err() == nil {
				l.o.Logger.Error("rewriting sealed segments failed", "error", err)
			}
			if !did || err != nil {
				break
			}
		}
	}
}

// compact rewrites one set of files if one deserves it. It holds sealMu only to
// choose and to replace, so sealing goes on meanwhile; inputs that went away
// meanwhile make the work void.
func (l *Log) compact(ctx context.Context, paced bool) (bool, error) {
	if l.isFull() {
		return false, nil
	}
	l.compactMu.Lock()
	defer l.compactMu.Unlock()
	inputs, err := l.chooseCompaction()
	if err != nil || len(inputs) == 0 {
		return false, err
	}
	l.sealMu.Lock()
	meta := &file{id: l.nextFile, class: inputs[0].class, retention: inputs[0].retention, firstSequence: inputs[0].firstSequence, lastSequence: inputs[len(inputs)-1].lastSequence}
	l.nextFile++
	l.sealMu.Unlock()
	empty, err := l.mergeFiles(ctx, meta, inputs, paced)
	if err != nil {
		return false, fmt.Errorf("rewrite %s and %d more: %w", inputs[0].name(), len(inputs)-1, err)
	}
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	set := l.files.Load()
	current := set.byClass[meta.class]
	for _, f := range inputs {
		if !slices.Contains(current, f) {
			if !empty {
				l.fs.Remove(meta.name())
			}
			return true, nil
		}
	}
	var added []*file
	if !empty {
		added = []*file{meta}
	}
	l.files.Store(set.with(inputs, added))
	l.dropped = append(l.dropped, inputs...)
	if err := l.writeManifest(); err != nil {
		return false, err
	}
	l.removeFiles()
	return true, nil
}

// live tells which part of a chunk is readable, and the index from which on.
func (l *Log) live(e chunkEntry) (first driver.Index, alive bool) {
	sh := l.lookup(e.shard)
	if sh == nil {
		return 0, false
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.first, !sh.gone && e.next > sh.first
}

// chooseCompaction finds files to rewrite: neighbours of one class with short
// chunks, or one file that is mostly dead.
func (l *Log) chooseCompaction() ([]*file, error) {
	for _, files := range l.files.Load().byClass {
		var group []*file
		chunks, bytes := int64(0), int64(0)
		for _, f := range files {
			if l.unreadable[f.id] {
				group, chunks, bytes = nil, 0, 0
				continue
			}
			h, err := l.handles.get(f)
			if err != nil {
				l.unreadable[f.id] = true
				return nil, err
			}
			n, size := h.t.chunks, h.t.marksAt
			l.handles.release(h)
			if f.size > int64(l.o.SegmentBytes)*3/2 {
				group, chunks, bytes = nil, 0, 0
				continue
			}
			group = append(group, f)
			chunks += n
			bytes += size
			if len(group) < mergeFiles {
				continue
			}
			if chunks > 0 && bytes/chunks < mergeBelow || bytes/int64(len(group)) < int64(l.o.SegmentBytes)/8 {
				return group, nil
			}
			group, chunks, bytes = nil, 0, 0
		}
	}
	mostlyDead := l.mostlyDead.Swap(nil)
	if mostlyDead == nil {
		return nil, nil
	}
	if f := *mostlyDead; slices.Contains(l.files.Load().byClass[f.class], f) && !l.unreadable[f.id] {
		return []*file{f}, nil
	}
	return nil, nil
}

// mergeFiles writes the readable chunks of neighbouring files, oldest first, to
// one. Every batch is checked on the way: damage is never copied.
func (l *Log) mergeFiles(ctx context.Context, meta *file, inputs []*file, paced bool) (empty bool, err error) {
	type line struct {
		chunkEntry
		input int
	}
	var lines []line
	handles := make([]*handle, len(inputs))
	defer func() {
		for _, h := range handles {
			if h != nil {
				l.handles.release(h)
			}
		}
	}()
	for i, f := range inputs {
		h, err := l.handles.get(f)
		if err != nil {
			l.unreadable[f.id] = true
			return false, err
		}
		handles[i] = h
		if err := h.each(func(e chunkEntry) error {
			if _, alive := l.live(e); alive {
				lines = append(lines, line{e, i})
			}
			return nil
		}); err != nil {
			l.unreadable[f.id] = true
			return false, err
		}
	}
	if len(lines) == 0 {
		return true, nil
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.base, b.base))
	})
	w, err := newFileWriter(l.fs, meta)
	if err != nil {
		return false, err
	}
	finished := false
	defer func() {
		if !finished {
			w.abort()
		}
	}()
	r := reader{log: l, maxBytes: 1 << 20, ahead: map[*handle]*window{}}
	written := int64(0)
	for _, e := range lines {
		first, alive := l.live(e.chunkEntry)
		if !alive {
			continue
		}
		for from := max(e.base, first); from < e.next; {
			r.buf, r.batches, r.offsets, r.sizes, r.bytes = r.buf[:0], r.batches[:0], r.offsets[:0], r.sizes[:0], 0
			if _, _, err := r.stepChunk(handles[e.input], e.chunkEntry, from); err != nil {
				if _, alive := l.live(e.chunkEntry); !alive {
					break // truncated and punched meanwhile
				}
				l.unreadable[inputs[e.input].id] = true
				return false, err
			}
			for i := range r.batches {
				stored := r.buf[r.offsets[i]-batchHeaderBytes : r.offsets[i]+r.sizes[i]]
				b, _ := peekBatch(stored)
				if err := w.add(b, stored); err != nil {
					return false, err
				}
				from = r.batches[i].Next()
				written += int64(len(stored))
			}
			if len(r.batches) == 0 {
				break
			}
		}
		if paced && written >= pacedPieces {
			wait := time.NewTimer(time.Duration(written) * time.Second / compactRate)
			select {
			case <-ctx.Done():
				wait.Stop()
				return false, context.Cause(ctx)
			case <-wait.C:
			}
			written = 0
		}
	}
	if len(w.entries) == 0 {
		return true, nil
	}
	finished = true // finish cleans up by itself
	return false, w.finish()
}

// isFull tells whether appends are refused for lack of space. Files are not
// rewritten then, which would need some.
func (l *Log) isFull() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

// hole is the space of chunks that nobody can read any more.
type hole struct {
	file     *file
	from, to int64
}

// survey looks at one file for dead space: it notes a mostly dead file for the
// compactor, and returns holes worth punching in others.
func (l *Log) survey(f *file, h *handle) ([]hole, error) {
	var holes []hole
	var alive int64
	err := h.each(func(e chunkEntry) error {
		if _, ok := l.live(e); ok {
			alive += e.length
			return nil
		}
		if n := len(holes); n > 0 && holes[n-1].to == e.offset {
			holes[n-1].to += e.length
		} else {
			holes = append(holes, hole{f, e.offset, e.offset + e.length})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if alive*mostlyDeadPart < h.t.marksAt-segHeaderBytes && !l.isFull() {
		l.mostlyDead.Store(&f)
		return nil, nil
	}
	return slices.DeleteFunc(holes, func(x hole) bool { return x.to-x.from < punchAtLeast }), nil
}

// punch gives the space of holes back. The manifest that makes them unreadable
// for good is durable by now.
func (l *Log) punch(holes []hole) {
	for _, x := range holes {
		if l.held > 0 || l.punched[x] {
			continue
		}
		f, err := l.fs.Open(x.file.name(), vfs.Write)
		if err == nil {
			from, to := int64(alignUp(int(x.from))), x.to&^(blockBytes-1)
			err = f.PunchHole(from, to-from)
			f.Close()
		}
		if err != nil {
			l.o.Logger.Warn("cannot give space back", "file", x.file.name(), "error", err)
			continue
		}
		l.punched[x] = true
	}
}
