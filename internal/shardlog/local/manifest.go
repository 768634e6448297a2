package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// The byte layout of docs/formats/manifest.md.

const (
	manifestVersion     = 1
	manifestMagic       = "MRMAN\r\n\x1a"
	manifestHeaderBytes = 28
	maxManifestBytes    = 1 << 30
)

type manifest struct {
	replayFrom   uint64
	nextSequence uint64
	nextLSN      uint64
	nextFile     uint64
	classes      []time.Duration
	files        []*file
	shards       []shardRun
}

// shardRun is consecutive shards in the same state.
type shardRun struct {
	run
	retention   time.Duration
	first, next driver.Index
	lastAt      int64
	classes     uint32
}

func (m *manifest) encode() []byte {
	b := make([]byte, manifestHeaderBytes, manifestHeaderBytes+256+24*len(m.shards)+24*len(m.files))
	u := func(v uint64) { b = binary.AppendUvarint(b, v) }
	u(m.replayFrom)
	u(m.nextSequence)
	u(m.nextLSN)
	u(m.nextFile)
	u(uint64(len(m.classes)))
	for _, c := range m.classes {
		u(uint64(c))
	}
	u(uint64(len(m.files)))
	for _, f := range m.files {
		u(f.id)
		u(uint64(f.class))
		u(f.firstSequence)
		u(f.lastSequence)
		u(uint64(f.size))
		b = binary.AppendVarint(b, f.maxAt)
	}
	u(uint64(len(m.shards)))
	end := driver.ShardID(0)
	for _, r := range m.shards {
		u(uint64(r.run.first - end))
		u(r.count)
		u(uint64(r.retention))
		u(uint64(r.first))
		u(uint64(r.next))
		b = binary.AppendVarint(b, r.lastAt)
		u(uint64(r.classes))
		end = r.run.first + driver.ShardID(r.count)
	}
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], manifestVersion)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)-manifestHeaderBytes))
	binary.LittleEndian.PutUint32(b[24:], manifestCRC(b))
	return b
}

// manifestCRC covers everything but itself.
func manifestCRC(b []byte) uint32 {
	return crc32.Update(checksum(b[:24]), castagnoli, b[manifestHeaderBytes:])
}

func parseManifest(b []byte) (*manifest, error) {
	corrupt := func(offset int, reason string) error {
		return &driver.CorruptError{File: manifestName, Offset: int64(offset), Reason: reason}
	}
	if len(b) < manifestHeaderBytes || string(b[:8]) != manifestMagic {
		return nil, corrupt(0, "not a manifest")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > manifestVersion {
		return nil, fmt.Errorf("%s has format version %d, this release knows %d: %w", manifestName, v, manifestVersion, driver.ErrNewerVersion)
	}
	if binary.LittleEndian.Uint64(b[16:]) != uint64(len(b)-manifestHeaderBytes) {
		return nil, corrupt(16, "length does not match the file's")
	}
	if binary.LittleEndian.Uint32(b[24:]) != manifestCRC(b) {
		return nil, corrupt(24, "content does not match its checksum")
	}
	v := varints{b: b[manifestHeaderBytes:]}
	m := &manifest{replayFrom: v.unsigned(), nextSequence: v.unsigned(), nextLSN: v.unsigned(), nextFile: v.unsigned()}
	for range v.count(1) {
		m.classes = append(m.classes, v.duration())
	}
	for range v.count(6) {
		f := &file{id: v.unsigned(), class: int(v.unsigned()), firstSequence: v.unsigned(), lastSequence: v.unsigned(), size: int64(v.unsigned()), maxAt: v.signed()}
		if f.class < 0 || f.class >= len(m.classes) || f.size < 0 {
			return nil, corrupt(manifestHeaderBytes, "impossible file entry")
		}
		f.retention = m.classes[f.class]
		m.files = append(m.files, f)
	}
	end, total := uint64(0), uint64(0)
	for range v.count(7) {
		gap, count := v.unsigned(), v.unsigned()
		r := shardRun{run: run{first: driver.ShardID(end + gap), count: count}, retention: v.duration(), first: driver.Index(v.unsigned()), next: driver.Index(v.unsigned()), lastAt: v.signed(), classes: uint32(v.unsigned())}
		total += count
		if end+gap < end || count == 0 || count > maxShards || total > maxShards || end+gap+count < count || r.first == 0 || r.first > r.next || r.classes>>len(m.classes) != 0 {
			return nil, corrupt(manifestHeaderBytes, "impossible shard entry")
		}
		end += gap + count
		m.shards = append(m.shards, r)
	}
	if v.bad || len(v.b) > 0 || len(m.classes) > maxClasses {
		return nil, corrupt(manifestHeaderBytes, "malformed content")
	}
	return m, nil
}

// readManifest returns nil if there is none.
func readManifest(fsys vfs.FS) (*manifest, error) {
	b, err := vfs.ReadFile(fsys, manifestName, maxManifestBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return parseManifest(b)
}

// snapshot makes a manifest of what is durable now. l.sealMu is held.
func (l *Log) snapshot() *manifest {
	m := &manifest{replayFrom: l.replayFrom, nextSequence: l.sequence + 2, nextLSN: l.sealedLSN + 1, nextFile: l.nextFile, classes: l.classes, files: l.files.Load().all()}
	l.tableMu.RLock()
	states := make([]*shard, 0, len(l.shards))
	for _, s := range l.shards {
		states = append(states, s)
	}
	l.tableMu.RUnlock()
	slices.SortFunc(states, func(a, b *shard) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	for _, s := range states {
		s.mu.Lock()
		r := shardRun{run: run{first: s.id, count: 1}, retention: s.retention, first: s.first, next: s.next, lastAt: s.durableAt, classes: s.classes}
		s.mu.Unlock()
		if n := len(m.shards); n > 0 {
			last := &m.shards[n-1]
			same := r
			same.run = last.run
			if same == *last && last.run.first+driver.ShardID(last.count) == s.id {
				last.count++
				continue
			}
		}
		m.shards = append(m.shards, r)
	}
	return m
}

// writeManifest makes the present state durable. l.sealMu is held.
func (l *Log) writeManifest() error {
	trimmed := l.trimmed.Swap(false)
	if err := vfs.WriteFile(l.fs, manifestName, l.snapshot().encode()); err != nil {
		if trimmed {
			l.trimmed.Store(true)
		}
		return fmt.Errorf("write manifest: %w", err)
	}
	l.removable = append(l.removable, l.dropped...)
	l.dropped = nil
	return nil
}
