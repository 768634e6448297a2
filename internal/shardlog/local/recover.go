package local

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// recover brings back the state at which the log stopped; see the package doc.
func (l *Log) recover(ctx context.Context) error {
	m, err := readManifest(l.fs)
	if err != nil {
		return err
	}
	found, err := findSegments(l.fs)
	if err != nil {
		return err
	}
	if found, err = l.setAside(found); err != nil {
		return err
	}
	if m == nil {
		for _, s := range found {
			if s.inUse {
				return &driver.CorruptError{File: manifestName, Reason: "missing, though there are log segments"}
			}
		}
		m = &manifest{nextFile: 1}
	}
	l.reclaimable.Store(true)
	if err := l.load(m); err != nil {
		return err
	}
	if !l.o.ReadOnly {
		for _, dir := range []string{walDir, segDir} {
			if err := l.fs.MkdirAll(dir); err != nil {
				return fmt.Errorf("make %s: %w", dir, err)
			}
		}
		if err := l.removeLeftovers(); err != nil {
			return err
		}
	}
	l.sequence = max(l.sequence, m.nextSequence)
	l.replayFrom = m.replayFrom

	replay := make([]*foundSegment, 0, len(found))
	for _, s := range found {
		if s.inUse && s.header.sequence >= m.replayFrom {
			replay = append(replay, s)
		}
		l.sequence = max(l.sequence, s.header.sequence)
	}
	slices.SortFunc(replay, func(a, b *foundSegment) int {
		if a.header.sequence < b.header.sequence {
			return -1
		}
		return 1
	})
	if err := l.replay(ctx, m, replay); err != nil {
		return err
	}
	if l.o.ReadOnly {
		return nil
	}

	// Segments with replayed data wait to be sealed; all others join the ring.
	used := map[int]bool{}
	for _, s := range l.segments {
		used[s.number] = true
	}
	for _, s := range found {
		if used[s.number] {
			continue
		}
		if s.size != int64(l.o.SegmentBytes) {
			if err := l.fs.Remove(s.name); err != nil {
				return fmt.Errorf("remove log segment of another size: %w", err)
			}
			continue
		}
		f, err := l.fs.Open(s.name, l.walMode())
		if err != nil {
			return fmt.Errorf("open %s: %w", s.name, err)
		}
		sl := &slot{number: s.number, name: s.name, file: f}
		l.spare = append(l.spare, sl)
		l.slotCount++
		if s.inUse {
			// It may hold frames that were never acknowledged and are not part
			// of the log, and whose numbers will now be given again.
			block := vfs.AlignedBuffer(blockBytes)
			walHeader{state: segmentFree, sequence: s.header.sequence, salt: newSalt(), size: uint64(s.size)}.put(block)
			if _, err := f.WriteAt(block, 0); err != nil {
				return fmt.Errorf("free %s: %w", s.name, err)
			}
			if l.o.Durability == DurabilityNone {
				if err := f.Sync(); err != nil {
					return fmt.Errorf("free %s: %w", s.name, err)
				}
			}
		}
	}
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	var damaged []*file
	if l.o.Repair {
		if damaged, err = l.repairFiles(ctx); err != nil {
			return err
		}
	}
	if err := l.writeManifest(); err != nil {
		return err
	}
	if err := l.moveDamaged(damaged); err != nil {
		return err
	}
	if len(l.segments) > 0 {
		l.poke()
	}
	// Zeroing a new file takes as long as reading one: with a full ring the first
	// append waits for it, or for a sealed segment, and not the first answer.
	if len(l.spare) > 0 || len(l.segments) == 0 {
		s, err := l.prepareSegment()
		if err != nil {
			return err
		}
		l.ready = append(l.ready, s)
	}
	if len(l.repairs) > 0 {
		// The damage goes with the segments that have it.
		l.sealAll(true)
		l.checkSpace()
	}
	return nil
}

// setAside refuses log segments that have lost their header, which may be the last
// ones, so that nothing else would tell; a repair goes on without them.
func (l *Log) setAside(found []*foundSegment) ([]*foundSegment, error) {
	for _, s := range found {
		if !s.damaged {
			continue
		}
		damage := driver.CorruptError{File: s.name, Reason: "the header is damaged; what the log segment holds cannot be placed"}
		if !l.o.Repair {
			return nil, &damage
		}
		l.repairs = append(l.repairs, damage)
		if l.o.ReadOnly {
			continue
		}
		l.o.Logger.Error("damaged log segment was set aside", "damage", &damage)
		if err := l.fs.MkdirAll(damagedDir); err != nil {
			return nil, fmt.Errorf("make %s: %w", damagedDir, err)
		}
		if err := l.fs.Rename(s.name, path.Join(damagedDir, "wal-"+path.Base(s.name))); err != nil {
			return nil, fmt.Errorf("keep damaged log segment: %w", err)
		}
		for _, dir := range []string{damagedDir, walDir} {
			if err := l.fs.SyncDir(dir); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(found, func(s *foundSegment) bool { return s.damaged }), nil
}

// load takes over a manifest's content.
func (l *Log) load(m *manifest) error {
	l.classes = slices.Clone(m.classes)
	for _, c := range append(slices.Clone(l.o.Retention), 0) {
		if c < 0 {
			return fmt.Errorf("retention class %v is negative", c)
		}
		if !slices.Contains(l.classes, c) {
			l.classes = append(l.classes, c)
		}
	}
	if len(l.classes) > maxClasses {
		return fmt.Errorf("%d retention classes, more than %d", len(l.classes), maxClasses)
	}
	set := &fileSet{byClass: make([][]*file, len(l.classes))}
	var bad []*file
	for _, f := range m.files {
		info, err := l.fs.Stat(f.name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = &driver.CorruptError{File: f.name(), Reason: "missing, though the manifest lists it"}
		case err == nil && info.Size != f.size && l.o.Repair:
			continue // read whole later, and repaired
		case err == nil && info.Size != f.size:
			err = &driver.CorruptError{File: f.name(), Offset: info.Size, Reason: fmt.Sprintf("has %d bytes, the manifest says %d", info.Size, f.size)}
		}
		var corrupt *driver.CorruptError
		if errors.As(err, &corrupt) && l.o.Repair {
			l.repairs = append(l.repairs, *corrupt)
			bad = append(bad, f)
			continue
		}
		if err != nil {
			return fmt.Errorf("check sealed segments: %w", err)
		}
	}
	l.files.Store(set.with(nil, slices.DeleteFunc(slices.Clone(m.files), func(f *file) bool { return slices.Contains(bad, f) })))
	// The newest file of a class tells whether a newer release was here. Damage is
	// for those who read it.
	for _, files := range l.files.Load().byClass {
		if len(files) == 0 {
			continue
		}
		newest := slices.MaxFunc(files, func(a, b *file) int { return cmp.Compare(a.id, b.id) })
		h, err := openHandle(l.fs, newest)
		if errors.Is(err, driver.ErrNewerVersion) {
			return err
		}
		if err == nil {
			h.close()
		}
	}
	l.nextFile = max(m.nextFile, 1)
	for _, r := range m.shards {
		made := make([]shard, r.count)
		for i := range made {
			s := &made[i]
			*s = shard{id: r.run.first + driver.ShardID(i), assigned: r.next, lastAt: r.lastAt, first: r.first, next: r.next, sealed: r.next, durableAt: r.lastAt, retention: r.retention, classes: r.classes}
			l.shards[s.id] = s
		}
	}
	return nil
}

// removeLeftovers removes sealed segments that the manifest does not list.
func (l *Log) removeLeftovers() error {
	dirs, err := l.fs.ReadDir(segDir)
	if err != nil {
		return fmt.Errorf("list sealed segments: %w", err)
	}
	listed := map[string]bool{}
	for _, f := range l.files.Load().all() {
		listed[f.name()] = true
	}
	for _, r := range l.repairs {
		listed[r.File] = true // damaged, kept for whoever wants to look
	}
	for _, dir := range dirs {
		if !dir.Dir {
			continue
		}
		files, err := l.fs.ReadDir(path.Join(segDir, dir.Name))
		if err != nil {
			return fmt.Errorf("list sealed segments: %w", err)
		}
		for _, f := range files {
			if name := path.Join(segDir, dir.Name, f.Name); !listed[name] {
				if err := l.fs.Remove(name); err != nil {
					return fmt.Errorf("remove leftover of an interrupted seal: %w", err)
				}
			}
		}
	}
	return nil
}

// foundSegment is a log segment file as recovery meets it.
type foundSegment struct {
	name   string
	number int
	size   int64
	header walHeader
	inUse  bool
	// damaged segments have no header, and frames.
	damaged bool
}

func findSegments(fsys vfs.FS) ([]*foundSegment, error) {
	infos, err := fsys.ReadDir(walDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list log segments: %w", err)
	}
	var found []*foundSegment
	block := make([]byte, blockBytes)
	for _, info := range infos {
		number, err := strconv.Atoi(info.Name)
		if err != nil || info.Dir || number < 0 || number >= maxSlots || strings.HasPrefix(info.Name, "-") {
			continue
		}
		s := &foundSegment{name: path.Join(walDir, info.Name), number: number, size: info.Size}
		found = append(found, s)
		if info.Size < blockBytes {
			continue // never completed
		}
		f, err := fsys.Open(s.name, 0)
		if err != nil {
			return nil, fmt.Errorf("open log segment: %w", err)
		}
		err = readFull(f, block, 0)
		h, ok := parseWalHeader(block)
		if err == nil && !ok && info.Size >= 2*blockBytes {
			// Zeros, or a first header that was not completed; but then there are
			// no frames. Later headers always leave one of two copies whole.
			err = readFull(f, block, blockBytes)
			_, s.damaged = parseFrameHeader(block, binary.LittleEndian.Uint64(block[8:]))
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", s.name, err)
		}
		if !ok {
			continue
		}
		if h.version > walVersion {
			return nil, fmt.Errorf("%s has format version %d, this release knows %d: %w", s.name, h.version, walVersion, driver.ErrNewerVersion)
		}
		s.header = h
		s.inUse = h.state == segmentInUse
		if s.inUse && (h.size != uint64(info.Size) || h.size > maxSegmentBytes || h.size%blockBytes != 0) {
			return nil, &driver.CorruptError{File: s.name, Offset: 32, Reason: fmt.Sprintf("has %d bytes, its header says %d", info.Size, h.size)}
		}
	}
	return found, nil
}

// replayPiece is how much of a log segment is read with one call, in bytes.
const replayPiece = 8 << 20

// replay reads the segments in order. See docs/formats/wal.md for what counts.
func (l *Log) replay(ctx context.Context, m *manifest, replay []*foundSegment) error {
	var segments []*segment
	for _, f := range replay {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		s := &segment{slot: &slot{number: f.number, name: f.name}, sequence: f.header.sequence, salt: f.header.salt, size: int(f.size), finished: true}
		s.broken = s.size != l.o.SegmentBytes
		s.image = l.images.allocate(s.size)
		// From here on release closes and frees it, whatever happens.
		l.slots[f.number].Store(s)
		segments = append(segments, s)
		var err error
		if s.file, err = l.fs.Open(f.name, l.replayMode()); err != nil {
			return fmt.Errorf("open %s: %w", f.name, err)
		}
	}
	// The whole ring may have to be read before the first answer: several at once,
	// and past the page cache, where the log never is.
	var readers errgroup.Group
	readers.SetLimit(4)
	for _, s := range segments {
		readers.Go(func() error {
			file, err := l.fs.Open(s.name, vfs.Uncached)
			if err != nil {
				return fmt.Errorf("open log segment: %w", err)
			}
			defer file.Close()
			for offset := 0; offset < s.size; offset += replayPiece {
				if err := readFull(file, s.image[offset:min(offset+replayPiece, s.size)], int64(offset)); err != nil {
					return fmt.Errorf("read %s: %w", s.name, err)
				}
			}
			return nil
		})
	}
	if err := readers.Wait(); err != nil {
		return err
	}
	expected := max(m.nextLSN, 1) // LSN of the next frame
	var missing *driver.CorruptError
	missingLSN := uint64(0)
	for _, s := range segments {
		begun := expected
		offset, err := l.scan(s, &expected, blockBytes, false)
		if err != nil {
			return err
		}
		if missing == nil || missingLSN != expected {
			missing, missingLSN = &driver.CorruptError{File: s.name, Offset: int64(offset), Reason: fmt.Sprintf("frame %d of the log was acknowledged, and is damaged or missing", expected)}, expected
		}
		s.stopped = offset
		s.kept = expected > begun
	}
	// What lies behind the last good frame may be there because it was written
	// beside a frame that was not, and goes with it. But a frame that knew the
	// missing one to be durable proves rot.
	rot := false
	for _, s := range segments {
		if maxCommitted(s, s.stopped) >= expected {
			rot = true
		}
	}
	if rot && !l.o.Repair {
		return missing
	}
	if rot {
		for _, s := range segments {
			begun := expected
			for offset := s.stopped; offset < s.size; {
				bad := offset
				for offset = alignUp(offset); offset < s.size; offset += blockBytes {
					if h, ok := parseFrameHeader(s.image[offset:], s.salt); ok && h.lsn >= expected && l.bodyWhole(s, &h, offset) {
						break
					}
				}
				if offset >= s.size {
					break
				}
				l.repairs = append(l.repairs, driver.CorruptError{File: s.name, Offset: int64(bad), Reason: fmt.Sprintf("log is damaged up to offset %d; frames from %d on are lost there", offset, expected)})
				var err error
				if offset, err = l.scan(s, &expected, offset, true); err != nil {
					return err
				}
			}
			s.kept = s.kept || expected > begun
		}
		if len(l.repairs) == 0 {
			l.repairs = append(l.repairs, *missing)
		}
		for i := range l.repairs {
			l.o.Logger.Error("damaged log was repaired", "damage", &l.repairs[i])
		}
	}
	for _, s := range segments {
		if s.kept {
			l.slotCount++
			l.segments = append(l.segments, s)
			continue
		}
		l.slots[s.number].Store(nil)
		s.file.Close()
		freeImage(s.image)
	}
	l.lsn = expected - 1
	l.committed.Store(l.lsn)
	l.sealedLSN = max(m.nextLSN, 1) - 1
	for _, s := range l.shards {
		s.assigned, s.lastAt = s.next, s.durableAt
	}
	return nil
}

// bodyWhole checks the frame at an offset, whose header is good.
func (l *Log) bodyWhole(s *segment, h *frameHeader, offset int) bool {
	start, end := offset+frameHeaderBytes, offset+frameHeaderBytes+int(h.length)
	return end <= s.size && frameWhole(h, s.image[start:end])
}

// scan puts the frames from an offset on into effect, and returns where it met
// something else. Only the expected frame goes on; copies of earlier ones are
// passed over. A lenient scan takes any later frame as the expected one.
func (l *Log) scan(s *segment, expected *uint64, offset int, lenient bool) (int, error) {
	for offset < s.size {
		h, ok := parseFrameHeader(s.image[offset:], s.salt)
		ok = ok && l.bodyWhole(s, &h, offset)
		if !ok {
			aligned := alignUp(offset)
			if aligned == offset || !allZero(s.image[offset:aligned]) {
				break
			}
			offset = aligned
			continue
		}
		if lenient {
			*expected = max(*expected, h.lsn)
		}
		if h.lsn > *expected {
			break
		}
		end := offset + frameHeaderBytes + int(h.length)
		if h.lsn == *expected {
			if err := l.replayFrame(s, &h, s.image[offset+frameHeaderBytes:end], offset+frameHeaderBytes, lenient); err != nil {
				return offset, err
			}
			*expected++
			s.lastLSN = h.lsn
		}
		offset = end
		s.end = alignUp(end)
	}
	return offset, nil
}

func (l *Log) replayMode() vfs.Mode {
	if l.o.ReadOnly {
		return 0
	}
	return l.walMode()
}

// maxCommitted is the highest committed number of frames that start a group at or
// behind offset.
func maxCommitted(s *segment, offset int) uint64 {
	var committed uint64
	for at := alignUp(offset); at < s.size; at += blockBytes {
		if h, ok := parseFrameHeader(s.image[at:], s.salt); ok {
			committed = max(committed, h.committed)
		}
	}
	return committed
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// frameWhole checks a frame's body.
func frameWhole(h *frameHeader, body []byte) bool {
	switch h.kind {
	case frameCommands:
		if checksum(body) != h.bodyCRC {
			return false
		}
		_, ok := parseCommands(body, h.count)
		return ok
	case frameBatches:
		for range h.count {
			b, ok := parseBatch(body)
			if !ok {
				return false
			}
			body = body[b.stored():]
		}
		return len(body) == 0
	}
	return false
}

// replayFrame puts a whole frame into effect. In a repaired log a shard may skip
// indexes.
func (l *Log) replayFrame(s *segment, h *frameHeader, body []byte, offset int, lenient bool) error {
	if h.kind == frameCommands {
		commands, _ := parseCommands(body, h.count)
		l.apply(commands)
		return nil
	}
	for len(body) > 0 {
		b, _ := peekBatch(body)
		at := offset
		body, offset = body[b.stored():], offset+b.stored()
		sh := l.shards[b.shard]
		if sh == nil {
			continue // deleted later, as the manifest already knows
		}
		known, exact := sh.next, false
		if n := len(sh.refs); n > 0 {
			known, exact = sh.refs[n-1].next(), true
		} else {
			// The manifest may be ahead of the segment it makes us start from.
			sh.sealed = min(b.base, known)
		}
		if b.base > known || exact && b.base < known {
			if !lenient && !l.o.Repair {
				return &driver.CorruptError{File: s.name, Offset: int64(at), Reason: fmt.Sprintf("shard log %d goes on at index %d instead of %d", b.shard, b.base, known)}
			}
			if b.base < known {
				continue
			}
		}
		next, newest := max(sh.next, b.next()), max(sh.durableAt, b.at)
		l.publishBatch(s, sh, ref{base: b.base, at: b.at, offset: uint32(at), size: b.size, count: b.count, slot: uint32(s.number)})
		sh.next, sh.durableAt = next, newest
	}
	return nil
}
