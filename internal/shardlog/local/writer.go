package local

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// group is what one write makes durable.
type group struct {
	segment    *segment
	start, end int // in the segment; end is aligned once the group is closed
	lastLSN    uint64
	parts      []*part
	fills      sync.WaitGroup
	before     *group // published first; nil once it is
	done       chan struct{}
	err        error // set before done is closed
}

// part is one frame of a group: what one append, or one command, put there.
type part struct {
	offset   int // of the frame in the segment
	length   int // with the header
	lsn      uint64
	batches  []*driver.Batch // those with an Err are not in the frame
	shards   []*shard
	commands []command
}

// Append implements driver.Driver.
func (l *Log) Append(ctx context.Context, batches []*driver.Batch) error {
	if l.closing.Load() {
		return driver.ErrClosed
	}
	limit := l.o.SegmentBytes - blockBytes - frameHeaderBytes - batchHeaderBytes
	shards := make([]*shard, len(batches))
	l.tableMu.RLock()
	for i, b := range batches {
		b.Err = nil
		switch {
		case b.Size > driver.MaxBatchBytes || b.Count > driver.MaxBatchRecords || b.Size > limit:
			b.Err = driver.ErrTooLarge
		case b.Size <= 0 || b.Count <= 0:
			b.Err = fmt.Errorf("batch of %d records in %d bytes: both must be positive", b.Count, b.Size)
		default:
			if shards[i] = l.shards[b.Shard]; shards[i] == nil {
				b.Err = driver.ErrNotFound
			}
		}
	}
	l.tableMu.RUnlock()

	var one [1]*group
	groups := one[:0]
	var failed error
	for len(batches) > 0 && failed == nil {
		g, p, n, err := l.reserve(ctx, batches, shards)
		if err != nil {
			failed = err
			break
		}
		if p != nil {
			l.fill(g, p)
			groups = append(groups, g)
		}
		batches, shards = batches[n:], shards[n:]
	}
	for _, g := range groups {
		<-g.done
		if g.err != nil {
			failed = g.err
		}
	}
	return failed
}

// reserve takes a place in the log for as many leading batches as fit, and says
// how many it took. There is no part if none of them is to be stored.
func (l *Log) reserve(ctx context.Context, batches []*driver.Batch, shards []*shard) (*group, *part, int, error) {
	now := l.o.Now().UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		space, err := l.spaceLocked()
		if err != nil {
			return nil, nil, 0, err
		}
		if (l.full || len(l.ready) == 0) && !keptForever(shards) {
			if l.full {
				return nil, nil, 0, driver.ErrFull
			}
			space -= l.reserved
		}
		size, taken := frameHeaderBytes, 0
		fits := false
		for i, b := range batches {
			if b.Err != nil {
				taken = i + 1
				continue
			}
			if shards[i].deleted {
				b.Err = driver.ErrNotFound
				taken = i + 1
				continue
			}
			if size+batchHeaderBytes+b.Size > space {
				break
			}
			size += batchHeaderBytes + b.Size
			taken = i + 1
			fits = true
		}
		if !fits && taken == len(batches) {
			return nil, nil, taken, nil
		}
		if !fits {
			if err := l.nextSegmentLocked(ctx); err != nil {
				return nil, nil, 0, err
			}
			continue
		}
		g, p := l.reserveFrameLocked(size)
		p.batches, p.shards = batches[:taken:taken], shards[:taken:taken]
		for i, b := range p.batches {
			if b.Err != nil {
				continue
			}
			s := shards[i]
			b.Base = s.assigned
			s.assigned += driver.Index(b.Count)
			s.lastAt = max(s.lastAt, now)
			b.At = s.lastAt
		}
		return g, p, taken, nil
	}
}

// spaceLocked is the room for one frame in the current segment.
func (l *Log) spaceLocked() (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if l.current == nil {
		return 0, nil
	}
	return l.current.size - l.offset, nil
}

// keptForever tells whether all shards of an append keep their records until
// somebody truncates them. That is what metadata does, which must go on when the
// disk is full: deleting a stream is what makes space.
func keptForever(shards []*shard) bool {
	for _, s := range shards {
		if s == nil {
			continue
		}
		s.mu.Lock()
		retention := s.retention
		s.mu.Unlock()
		if retention != 0 {
			return false
		}
	}
	return true
}

// nextSegmentLocked ends the current segment and goes on in the next one, waiting
// for it if it must. The current one stays until then: what is left of it may be
// all there is for smaller things. It may release l.mu meanwhile, and the caller
// looks again.
func (l *Log) nextSegmentLocked(ctx context.Context) error {
	if len(l.ready) > 0 {
		l.finishSegmentLocked()
		l.activateLocked()
		return nil
	}
	l.starved++
	defer func() { l.starved-- }()
	l.poke()
	wait := l.roomMade
	l.mu.Unlock()
	var err error
	select {
	case <-wait:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	l.mu.Lock()
	switch {
	case err != nil:
		return err
	case l.err != nil:
		return l.err
	case l.full && len(l.ready) == 0:
		return driver.ErrFull
	}
	return nil
}

func (l *Log) finishSegmentLocked() {
	if l.current == nil {
		return
	}
	if l.open != nil {
		l.closeGroupLocked()
	}
	l.current.finished = true
	l.current = nil
	l.poke()
}

// activateLocked makes the first ready segment the current one.
func (l *Log) activateLocked() {
	s := l.ready[0]
	l.ready = l.ready[1:]
	s.image = l.images.get()
	l.segments = append(l.segments, s)
	l.current = s
	l.offset = blockBytes
	l.poke()
}

// reserveFrameLocked takes size bytes of the current segment for a frame, and
// wakes a writer.
func (l *Log) reserveFrameLocked(size int) (*group, *part) {
	if l.open == nil {
		l.open = &group{segment: l.current, start: l.offset, done: make(chan struct{})}
		l.current.groups++
		if l.mayWriteLocked() {
			l.wake.Signal()
		}
	}
	g := l.open
	l.lsn++
	p := &part{offset: l.offset, length: size, lsn: l.lsn}
	l.offset += size
	for l.offset > g.segment.supplied {
		g.segment.supplied = l.images.supply(g.segment.image, g.segment.supplied)
	}
	g.lastLSN = l.lsn
	g.parts = append(g.parts, p)
	g.fills.Add(1)
	return g, p
}

// closeGroupLocked ends the open group: nothing is added to it any more.
func (l *Log) closeGroupLocked() {
	g := l.open
	l.open = nil
	l.offset = alignUp(l.offset)
	g.end = l.offset
	g.before = l.lastGroup
	l.lastGroup = g
	l.closed = append(l.closed, g)
	if l.mayWriteLocked() {
		l.wake.Signal()
	}
}

// mayWriteLocked tells whether one more group may be on its way to the disk. While
// a write takes little time there is one at a time: appends that come meanwhile
// gather in the next group, which costs the processor less than many small writes
// and its appenders no time, since a group is published after the one before it.
// Where a write takes long, a second one hides part of it.
func (l *Log) mayWriteLocked() bool {
	return l.writing == 0 || l.writing < maxInFlight && l.writeTime > quickWrite || l.err != nil
}

// fill writes a frame of batches into its reserved place. It runs in the
// appender's goroutine and outside all locks.
func (l *Log) fill(g *group, p *part) {
	defer g.fills.Done()
	frame := g.segment.image[p.offset : p.offset+p.length]
	offset := frameHeaderBytes
	count := uint32(0)
	for _, b := range p.batches {
		if b.Err != nil {
			continue
		}
		h := batchHeader{size: uint32(b.Size), shard: b.Shard, base: b.Base, at: b.At, count: uint32(b.Count)}
		end := offset + h.stored()
		b.Payload.Encode(frame[offset+batchHeaderBytes:end:end], b.Base, b.At)
		h.put(frame[offset:end])
		offset = end
		count++
	}
	h := frameHeader{kind: frameBatches, salt: g.segment.salt, lsn: p.lsn, committed: l.committed.Load(), length: uint32(p.length - frameHeaderBytes), count: count}
	h.put(frame)
}

// write is one of the writers: it takes groups in order, writes them, and
// publishes them in order.
func (l *Log) write() {
	for {
		l.mu.Lock()
		for !l.mayWriteLocked() || len(l.closed) == 0 && l.open == nil && l.err != driver.ErrClosed {
			l.wake.Wait()
		}
		if len(l.closed) == 0 && l.open != nil {
			// Whoever is ready to append now may do so before the group is closed:
			// on a busy machine that is worth more than the start of the write.
			l.mu.Unlock()
			runtime.Gosched()
			l.mu.Lock()
			if !l.mayWriteLocked() || len(l.closed) == 0 && l.open == nil && l.err != driver.ErrClosed {
				l.mu.Unlock()
				continue
			}
		}
		if len(l.closed) == 0 {
			if l.open == nil {
				l.mu.Unlock()
				return
			}
			l.closeGroupLocked()
		}
		g := l.closed[0]
		l.closed = l.closed[1:]
		if len(l.closed) == 0 {
			l.closed = nil
		}
		dead := l.dead
		l.writing++
		l.mu.Unlock()

		g.fills.Wait()
		began := time.Now()
		var err error
		if !dead {
			err = l.writeGroup(g)
		}
		took := time.Since(began)
		if g.before != nil {
			<-g.before.done
			// A group is never acknowledged behind one that is not there.
			dead = dead || g.before.err != nil
			g.before = nil
		}
		l.mu.Lock()
		l.writing--
		l.writeTime += (took - l.writeTime) / 8
		abandoned := g.segment.abandoned
		dead = dead || l.dead
		l.mu.Unlock()
		switch {
		case dead:
			err = driver.ErrReadOnly
		case err != nil || abandoned:
			err = l.rewrite(g, err)
		}
		if err == nil {
			l.o.Metrics.GroupWritten(took, g.end-g.start, len(g.parts))
		}
		l.finish(g, err)
	}
}

// writeGroup writes a group with one call.
func (l *Log) writeGroup(g *group) error {
	last := g.parts[len(g.parts)-1]
	clear(g.segment.image[last.offset+last.length : g.end])
	_, err := g.segment.file.WriteAt(g.segment.image[g.start:g.end], int64(g.start))
	return err
}

// rewrite stores a group whose segment failed in another one. The failed range is
// never tried again: after a failed write or sync nobody knows what is there, and
// the next sync may claim success for bytes that were thrown away.
//
// Groups are published in order, so whoever comes here first abandons the
// segment, and all later groups of it come here too, in order. They go to a
// segment whose sequence lies between the abandoned one and the one that new
// appends use, so replay meets frames in the order of their numbers.
func (l *Log) rewrite(g *group, cause error) error {
	failed := g.segment
	l.mu.Lock()
	if !failed.abandoned {
		l.o.Metrics.WriteFailed(cause)
		l.o.Logger.Error("write to log failed; going on in another segment", "file", failed.name, "offset", g.start, "error", cause)
		failed.abandoned = true
		failed.broken = true
		if l.current == failed {
			l.finishSegmentLocked()
		}
		l.mu.Unlock()
		rescue, err := l.takeRescue(failed)
		l.mu.Lock()
		if err != nil {
			l.mu.Unlock()
			return l.giveUp(err)
		}
		rescue.image = l.images.get()
		rescue.end = blockBytes
		at := len(l.segments)
		for i, s := range l.segments {
			if s == failed {
				at = i + 1
			}
		}
		l.segments = append(l.segments[:at], append([]*segment{rescue}, l.segments[at:]...)...)
		l.rescue = rescue
	}
	rescue := l.rescue
	start := rescue.end
	rescue.groups++
	failed.groups--
	l.mu.Unlock()

	copy(rescue.image[start:], failed.image[g.start:g.end])
	shift := start - g.start
	for _, p := range g.parts {
		p.offset += shift
		frame := rescue.image[p.offset:]
		h, ok := parseFrameHeader(frame, failed.salt)
		if !ok {
			panic("shardlog/local: frame in a segment image is damaged")
		}
		h.salt = rescue.salt
		h.put(frame)
	}
	g.segment, g.start, g.end = rescue, start, g.end+shift
	if err := l.writeGroup(g); err != nil {
		l.o.Metrics.WriteFailed(err)
		return l.giveUp(err)
	}
	return nil
}

// giveUp makes the log read-only.
func (l *Log) giveUp(cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	if l.err == nil {
		l.o.Logger.Error("log is read-only until restart: storing failed twice", "error", cause)
		l.err = driver.ErrReadOnly
		l.o.Metrics.StateChanged(l.full, true)
	}
	l.wakeWaitersLocked()
	return driver.ErrReadOnly
}

// finish publishes a durable group, or fails it, and lets its appenders go.
func (l *Log) finish(g *group, err error) {
	if err == nil {
		for _, p := range g.parts {
			l.publish(g.segment, p)
		}
		l.committed.Store(g.lastLSN)
	}
	g.err = err
	l.mu.Lock()
	s := g.segment
	s.groups--
	if err == nil {
		s.end = g.end
		s.lastLSN = g.lastLSN
	}
	if l.lastGroup == g {
		l.lastGroup = nil
	}
	seal := s.finished && s.groups == 0 || s == l.rescue
	if s == l.rescue && l.rescuedLocked() {
		s.finished = true
		l.rescue = nil
	}
	l.mu.Unlock()
	close(g.done)
	if seal {
		l.poke()
	}
}

// rescuedLocked tells whether no group waits for the rescue segment any more.
func (l *Log) rescuedLocked() bool {
	for _, s := range l.segments {
		if s.abandoned && s.groups > 0 {
			return false
		}
	}
	return l.rescue.groups == 0
}

// publish makes a part visible to readers.
func (l *Log) publish(s *segment, p *part) {
	if p.commands != nil {
		l.apply(p.commands)
		return
	}
	offset := p.offset + frameHeaderBytes
	for i, b := range p.batches {
		if b.Err != nil {
			continue
		}
		l.publishBatch(s, p.shards[i], ref{base: b.Base, at: b.At, offset: uint32(offset), size: uint32(b.Size), count: uint32(b.Count), slot: uint32(s.number)})
		offset += batchHeaderBytes + b.Size
		if l.notify != nil {
			l.notify(b.Shard, b.Base+driver.Index(b.Count), b.At)
		}
	}
}

func (l *Log) publishBatch(s *segment, sh *shard, r ref) {
	sh.mu.Lock()
	if sh.gone {
		sh.mu.Unlock()
		return
	}
	if n := len(sh.refs); n == 0 || sh.refs[n-1].slot != r.slot {
		s.touched = append(s.touched, sh)
	}
	if len(sh.refs) == cap(sh.refs) {
		sh.growRefsLocked()
	}
	sh.refs = append(sh.refs, r)
	sh.next = r.next()
	sh.durableAt = r.at
	sh.mu.Unlock()
}

// maxUsual bounds how much room a shard gets because of what it had before.
const maxUsual = 1 << 10

// growRefsLocked makes room for what a segment or two usually have of the shard:
// with many shards, growing from nothing in each segment is most of what is
// allocated. The old array stays as it is, for readers may still look at it.
func (sh *shard) growRefsLocked() {
	n := len(sh.refs)
	refs := make([]ref, n, n+max(n, 2*int(sh.usual), 1))
	copy(refs, sh.refs)
	sh.refs = refs
}

// logCommands makes changes of the shard table durable and in effect. mark runs
// with l.mu held when the commands have their place in the log.
func (l *Log) logCommands(commands []command, mark func()) error {
	var body []byte
	for i := range commands {
		body = commands[i].append(body)
	}
	size := frameHeaderBytes + len(body)
	if size > l.o.SegmentBytes-blockBytes {
		return fmt.Errorf("%w: %d bytes of commands", driver.ErrTooLarge, size)
	}
	l.mu.Lock()
	for {
		space, err := l.spaceLocked()
		if err == nil && size > space {
			err = l.nextSegmentLocked(l.stopped)
		}
		if err != nil {
			l.mu.Unlock()
			return err
		}
		if size <= space {
			break
		}
	}
	g, p := l.reserveFrameLocked(size)
	p.commands = commands
	if mark != nil {
		mark()
	}
	l.mu.Unlock()

	frame := g.segment.image[p.offset : p.offset+p.length]
	copy(frame[frameHeaderBytes:], body)
	h := frameHeader{kind: frameCommands, salt: g.segment.salt, lsn: p.lsn, committed: l.committed.Load(), length: uint32(len(body)), count: uint32(len(commands)), bodyCRC: checksum(body)}
	h.put(frame)
	g.fills.Done()
	<-g.done
	return g.err
}
