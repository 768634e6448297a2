package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// restTicks is for how many ticks there is no append before a segment that holds
// something worth it is sealed early.
const restTicks = 10

// maintain is the background work: it seals full segments and, some time after
// the last append, what a burst left in the current one; it keeps a segment ready, watches the free space, removes what expired and gives space back.
func (l *Log) maintain() {
	ticker := time.NewTicker(l.o.MaintenanceInterval)
	defer ticker.Stop()
	idle := 0
	lastLSN, still := uint64(0), 0 // for how many ticks there was no append
	for {
		tick := false
		select {
		case <-l.stopped.Done():
			return
		case <-l.background:
			idle = 0
		case <-ticker.C:
			tick = true
			if idle++; idle == 10 {
				l.images.drain(0)
			}
			l.mu.Lock()
			if lastLSN == l.lsn {
				still++
			} else {
				lastLSN, still = l.lsn, 0
			}
			if still == restTicks && l.current != nil && l.open == nil && len(l.ready) > 0 && l.offset > l.current.size/8 {
				// After a burst: what it left is sealed, and its memory given back. Not
				// without another segment at hand: on a full disk the rest of this one is
				// what deletions and metadata have.
				l.finishSegmentLocked()
				idle = 0
			}
			l.mu.Unlock()
		}
		l.sealMu.Lock()
		if tick {
			l.noRoom = false // unless the work below meets a full disk again
		}
		l.prepare()
		l.sealAll(tick)
		if tick {
			l.reclaim()
			l.checkSpace()
		}
		l.sealMu.Unlock()
		if tick {
			select {
			case l.compactable <- struct{}{}:
			default:
			}
		}
	}
}

// Maintain does the periodic background work now, and returns when it is done:
// full segments are sealed, expired files removed, space given back.
func (l *Log) Maintain(ctx context.Context) error {
	if l.closing.Load() {
		return driver.ErrClosed
	}
	if l.o.ReadOnly {
		return driver.ErrReadOnly
	}
	l.sealMu.Lock()
	l.noRoom = false
	l.prepare()
	l.sealAll(true)
	l.reclaim()
	l.checkSpace()
	l.sealMu.Unlock()
	for {
		did, err := l.compact(ctx, false)
		if !did || err != nil {
			return nil // what cannot be rewritten stays as it is
		}
	}
}

// checkSpace refuses appends below the low watermark, and takes them again above.
func (l *Log) checkSpace() {
	low := false
	if l.o.LowWatermarkBytes > 0 {
		space, err := l.fs.Space()
		low = err == nil && space.Free < uint64(l.o.LowWatermarkBytes)
	}
	l.setFull(low || l.noRoom)
}

func (l *Log) setFull(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full == full {
		if full && l.starved > 0 {
			l.wakeWaitersLocked() // there is nothing to wait for
		}
		return
	}
	l.full = full
	if full {
		l.o.Logger.Warn("disk is full; appends are refused until there is space")
	} else {
		l.o.Logger.Info("disk has space again; appends are taken")
	}
	l.o.Metrics.StateChanged(full, l.err == driver.ErrReadOnly)
	l.wakeWaitersLocked()
}

// prepare keeps one segment ready while the current one fills. The bound of the ring
// is passed only for a log that starts on a full disk with nothing to append to.
func (l *Log) prepare() {
	l.mu.Lock()
	taking := l.current != nil
	want := l.err == nil && len(l.ready) == 0 && (l.current == nil || l.offset > l.current.size/4 || l.starved > 0)
	l.mu.Unlock()
	if !want || len(l.spare) == 0 && l.slotCount >= l.o.SegmentCount && !(l.noRoom && !taking) {
		return
	}
	s, err := l.prepareSegment()
	if err != nil {
		l.background1(err, "prepare log segment")
		return
	}
	l.mu.Lock()
	l.ready = append(l.ready, s)
	l.wakeWaitersLocked()
	l.mu.Unlock()
	l.noRoom, l.sealFailures = false, 0
}

// background1 notes a failure of background work, which is tried again later. A
// full disk stops appends until it succeeds; anything else, three times in a row,
// makes the log read-only, because the ring would run out anyway.
func (l *Log) background1(err error, what string) {
	l.o.Logger.Error(what+" failed", "error", err)
	if vfs.IsNoSpace(err) {
		if !l.noRoom {
			l.noRoom = true
			l.prepare()
			l.noRoom = true
		}
		l.setFull(true)
		return
	}
	if l.sealFailures++; l.sealFailures >= 3 {
		l.giveUp(err)
	}
}

// takeRescue takes a slot for the groups of a segment that failed: the ready one's,
// or another, which may be outside the ring's bound. Its sequence follows the
// failed segment's, below that of every segment which is in use by now.
func (l *Log) takeRescue(failed *segment) (*segment, error) {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	l.mu.Lock()
	var sl *slot
	if len(l.ready) > 0 {
		sl = l.ready[0].slot
		l.ready = l.ready[1:]
	}
	l.mu.Unlock()
	if sl == nil {
		var err error
		if sl, err = l.takeSlot(); err != nil {
			return nil, err
		}
	}
	return l.useSlot(sl, failed.sequence+1)
}

// prepareSegment makes the next use of a slot: a spare one, or a new file.
// l.sealMu is held, so sequences are given in the order of use.
func (l *Log) prepareSegment() (*segment, error) {
	sl, err := l.takeSlot()
	if err != nil {
		return nil, err
	}
	// One is left out, for a segment that has to take over from the one before.
	s, err := l.useSlot(sl, l.sequence+2)
	if err == nil {
		l.sequence = s.sequence
	}
	return s, err
}

// takeSlot takes a spare slot, or makes one.
func (l *Log) takeSlot() (*slot, error) {
	if n := len(l.spare); n > 0 {
		sl := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return sl, nil
	}
	return l.newSlot()
}

// useSlot begins a use of a slot.
func (l *Log) useSlot(sl *slot, sequence uint64) (*segment, error) {
	s := &segment{slot: sl, sequence: sequence, salt: newSalt(), size: l.o.SegmentBytes, end: blockBytes}
	block := vfs.AlignedBuffer(blockBytes)
	walHeader{state: segmentInUse, sequence: s.sequence, salt: s.salt, size: uint64(s.size)}.put(block)
	if _, err := sl.file.WriteAt(block, 0); err != nil {
		// Whatever is there now, the slot is not written again.
		l.slots[sl.number].Store(nil)
		l.discard(sl)
		return nil, fmt.Errorf("write header of %s: %w", sl.name, err)
	}
	l.slots[sl.number].Store(s)
	return s, nil
}

func (l *Log) walMode() vfs.Mode {
	if l.o.Durability == DurabilityNone {
		return vfs.Write
	}
	return vfs.Write | vfs.Durable
}

// newSlot makes a file of zeros. Zeros, not just reserved space: a first write to
// reserved space changes the file's metadata, which makes every durable write
// wait for the file system's journal.
func (l *Log) newSlot() (_ *slot, err error) {
	number := -1
	for i := range l.slots {
		if l.slots[i].Load() == nil && !slices.ContainsFunc(l.spare, func(s *slot) bool { return s.number == i }) {
			if _, err := l.fs.Stat(slotName(i)); err != nil {
				number = i
				break
			}
		}
	}
	if number < 0 {
		return nil, errors.New("no free number for a log segment")
	}
	sl := &slot{number: number, name: slotName(number)}
	f, err := l.fs.Open(sl.name, vfs.Write|vfs.Create|vfs.Empty|vfs.Uncached)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", sl.name, err)
	}
	defer func() {
		if err != nil {
			l.fs.Remove(sl.name)
		}
	}()
	if err = f.Allocate(0, int64(l.o.SegmentBytes)); err == nil {
		zeros := vfs.AlignedBuffer(min(1<<20, l.o.SegmentBytes))
		for offset := 0; offset < l.o.SegmentBytes && err == nil; offset += len(zeros) {
			_, err = f.WriteAt(zeros[:min(len(zeros), l.o.SegmentBytes-offset)], int64(offset))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = l.fs.SyncDir(walDir)
	}
	if err == nil {
		sl.file, err = l.fs.Open(sl.name, l.walMode())
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", sl.name, err)
	}
	l.slotCount++
	return sl, nil
}

func slotName(n int) string { return fmt.Sprintf("%s/%08d", walDir, n) }

// discard takes a slot out of the ring for good.
func (l *Log) discard(sl *slot) {
	sl.file.Close()
	if err := l.fs.Remove(sl.name); err == nil {
		l.fs.SyncDir(walDir)
	}
	l.slotCount--
}

// sealAll seals the full segments, oldest first. After a failure it waits for
// the next tick.
func (l *Log) sealAll(retry bool) {
	if l.sealFailures > 0 && !retry || l.noRoom && !retry {
		return
	}
	for l.stopped.Err() == nil {
		l.mu.Lock()
		var s *segment
		if len(l.segments) > 0 && l.segments[0].finished && l.segments[0].groups == 0 {
			s = l.segments[0]
		}
		l.mu.Unlock()
		if s == nil {
			break
		}
		if err := l.seal(s); err != nil {
			l.background1(err, "seal log segment")
			return
		}
		l.noRoom, l.sealFailures = false, 0
		l.prepare()
	}
	if len(l.retired) > 0 {
		l.recycle()
	}
}

// seal writes the content of a segment to sealed files and makes them what
// readers use. Readers take a shard's state first and the set of files second, so
// the set is replaced before the state.
func (l *Log) seal(s *segment) error {
	began := time.Now()
	touched := slices.Clone(s.touched)
	slices.SortFunc(touched, func(a, b *shard) int { return cmp.Compare(a.id, b.id) })
	touched = slices.Compact(touched)
	writers := map[int]*fileWriter{}
	abort := func(err error) error {
		for _, w := range writers {
			w.abort()
		}
		return fmt.Errorf("seal %s: %w", s.name, err)
	}
	used := make([]uint32, len(touched))
	for i, sh := range touched {
		sh.mu.Lock()
		refs, first, gone := sh.refs, sh.first, sh.gone
		class := l.classOf(sh.retention)
		sh.mu.Unlock()
		if gone {
			continue
		}
		for j := range refs {
			r := &refs[j]
			if int(r.slot) != s.number {
				break
			}
			if r.next() <= first {
				continue
			}
			w := writers[class]
			if w == nil {
				if err := l.roomToSeal(s); err != nil {
					return abort(err)
				}
				var err error
				w, err = newFileWriter(l.fs, &file{id: l.nextFile, class: class, retention: l.classes[class], firstSequence: s.sequence, lastSequence: s.sequence})
				if err != nil {
					return abort(err)
				}
				l.nextFile++
				w.entries = make([]chunkEntry, 0, len(touched)-i) // one class has nearly all
				writers[class] = w
			}
			h := batchHeader{size: r.size, shard: sh.id, base: r.base, at: r.at, count: r.count}
			if err := w.add(h, s.image[r.offset:int(r.offset)+h.stored()]); err != nil {
				return abort(err)
			}
			used[i] = 1 << class
		}
	}
	var added []*file
	var bytes int64
	for _, w := range writers {
		if err := w.finish(); err != nil {
			return abort(err)
		}
		added = append(added, w.meta)
		bytes += w.meta.size
	}
	l.files.Store(l.files.Load().with(nil, added))
	for i, sh := range touched {
		sh.mu.Lock()
		n := 0
		for n < len(sh.refs) && int(sh.refs[n].slot) == s.number {
			n++
		}
		if n > 0 {
			sh.sealed = sh.refs[n-1].next()
			sh.usual = uint16((int(sh.usual) + min(n, maxUsual) + 1) / 2)
			if n == len(sh.refs) {
				sh.refs = nil
			} else {
				// What is in front is not written again, for readers may still look
				// at it, and goes when the array is full.
				sh.refs = sh.refs[n:]
			}
		}
		sh.classes |= used[i]
		sh.mu.Unlock()
	}
	l.mu.Lock()
	l.segments = slices.DeleteFunc(l.segments, func(o *segment) bool { return o == s })
	l.mu.Unlock()
	l.replayFrom = s.sequence + 1
	l.sealedLSN = max(l.sealedLSN, s.lastLSN)
	s.touched = nil
	s.drop.Store(true)
	if s.pins.Load() == 0 {
		l.dropImage(s)
	}
	l.retired = append(l.retired, s)
	l.recycle()
	l.o.Metrics.SegmentSealed(time.Since(began), bytes)
	return nil
}

// roomToSeal refuses to take the space that a start with a full ring needs for one
// more log segment, and that the manifest needs to say what was deleted.
func (l *Log) roomToSeal(s *segment) error {
	if l.o.LowWatermarkBytes < 0 {
		return nil
	}
	keep := min(uint64(l.o.LowWatermarkBytes), 2*uint64(l.o.SegmentBytes))
	if space, err := l.fs.Space(); err == nil && space.Free < keep+uint64(s.end) {
		return fmt.Errorf("%d bytes free, %d kept back: %w", space.Free, keep, syscall.ENOSPC)
	}
	return nil
}

// recycle returns sealed segments to the ring, once the manifest no longer needs
// them.
func (l *Log) recycle() {
	if err := l.writeManifest(); err != nil {
		l.background1(err, "recycle log segment")
		return
	}
	for _, s := range l.retired {
		l.slots[s.number].Store(nil)
		if s.broken || s.size != l.o.SegmentBytes {
			l.discard(s.slot)
			continue
		}
		l.spare = append(l.spare, s.slot)
	}
	l.retired = nil
	l.prepare()
}

// reclaim returns the space of what nobody can read any more: whole files whose
// chunks are all past their retention, truncated or of deleted shards.
func (l *Log) reclaim() {
	trimmed := l.reclaimable.Swap(false)
	now := l.o.Now().UnixMilli()
	var dead []*file
	var holes []hole
	type advance struct {
		shard *shard
		next  driver.Index
	}
	var advances []advance
	for _, f := range l.files.Load().all() {
		expired := f.retention > 0 && f.maxAt+f.retention.Milliseconds() < now
		if !trimmed && !expired {
			continue
		}
		h, err := l.handles.get(f)
		if err != nil {
			l.o.Logger.Error("cannot look for expired data", "error", err)
			continue
		}
		alive := false
		if trimmed {
			more, err := l.survey(f, h)
			if err != nil {
				l.o.Logger.Error("cannot look for dead data", "error", err)
			}
			holes = append(holes, more...)
		}
		var own []advance
		err = h.each(func(e chunkEntry) error {
			sh := l.lookup(e.shard)
			if sh == nil {
				return nil
			}
			sh.mu.Lock()
			first, retention, gone := sh.first, sh.retention, sh.gone
			sh.mu.Unlock()
			if gone || e.next <= first {
				return nil
			}
			if retention > 0 && e.maxAt+retention.Milliseconds() < now && expired {
				own = append(own, advance{sh, e.next})
				return nil
			}
			alive = true
			return errAlive
		})
		l.handles.release(h)
		if err != nil && err != errAlive {
			l.o.Logger.Error("cannot look for expired data", "error", err)
			continue
		}
		if !alive {
			dead = append(dead, f)
			advances = append(advances, own...)
		}
	}
	for _, a := range advances {
		a.shard.mu.Lock()
		a.shard.first = max(a.shard.first, a.next)
		a.shard.mu.Unlock()
	}
	if len(dead) > 0 {
		l.files.Store(l.files.Load().with(dead, nil))
		l.dropped = append(l.dropped, dead...)
	}
	if l.trimmed.Load() || len(l.dropped) > 0 {
		if err := l.writeManifest(); err != nil {
			l.noteTrimmed()
			l.o.Logger.Error("cannot record what expired", "error", err)
			return // the files stay until the manifest does not list them
		}
	}
	l.removeFiles()
	l.punch(slices.DeleteFunc(holes, func(x hole) bool { return slices.Contains(dead, x.file) }))
}

var errAlive = errors.New("file holds readable data")

// removeFiles unlinks files that the manifest no longer lists, unless a backup
// still copies them.
func (l *Log) removeFiles() {
	if l.held > 0 || len(l.removable) == 0 {
		return
	}
	for _, f := range l.removable {
		l.handles.forget(f)
		for x := range l.punched {
			if x.file == f {
				delete(l.punched, x)
			}
		}
		if err := l.fs.Remove(f.name()); err != nil {
			l.o.Logger.Warn("cannot remove file", "file", f.name(), "error", err)
		}
	}
	l.removable = nil
}
