package meta

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/btree"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// The format of docs/formats/metadata.md.
const (
	snapshotMagic      = "MRMETASN"
	snapshotFormat     = 1
	snapshotHeaderSize = 64
	blockHeaderSize    = 8
	blockBytes         = 1 << 20 // a block is closed once it has reached this
	maxBlockBytes      = 9 << 20
	minRecordBytes     = 4 // key length, one byte of key, version, value length

	snapshotSuffix  = ".snapshot"
	temporarySuffix = ".tmp"
	damagedSuffix   = ".damaged"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// restore brings the state up to the end of the log.
func (s *Store) restore(ctx context.Context) error {
	snapshots, err := s.listSnapshots()
	if err != nil {
		return err
	}
	bounds, err := s.log.Bounds(ctx, LogShard)
	if errors.Is(err, driver.ErrNotFound) {
		if len(snapshots) > 0 {
			return fmt.Errorf("there is snapshot %s, but no metadata log: this is not a complete data directory", snapshotName(snapshots[0]))
		}
		if err := s.log.Create(ctx, []driver.Shard{{ID: LogShard}}); err != nil {
			return err
		}
		bounds, err = s.log.Bounds(ctx, LogShard)
	}
	if err != nil {
		return err
	}
	if err := s.loadSnapshot(snapshots, bounds); err != nil {
		return err
	}
	return s.replay(ctx, bounds.Next)
}

// loadSnapshot loads the newest snapshot that can be read. Without any, the
// log has to begin at its beginning. Damaged ones that were passed over are put
// aside, so that they are not counted as one of the two that are kept.
func (s *Store) loadSnapshot(snapshots []driver.Index, bounds driver.Bounds) error {
	var failures []error
	for _, index := range snapshots {
		name := snapshotName(index)
		records, size, err := readSnapshot(s.fs, name, index)
		if errors.Is(err, driver.ErrNewerVersion) {
			return err // nothing to fall back from: the whole directory is newer
		}
		if err == nil && index >= bounds.Next {
			// The log lost commands it once had. Going on would use their indexes
			// a second time.
			return fmt.Errorf("snapshot %s is ahead of the metadata log, which ends at index %d: this is not a complete data directory", name, bounds.Next-1)
		}
		if err == nil && index+1 < bounds.First {
			err = fmt.Errorf("%s: the log after it begins at index %d only", name, bounds.First)
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		s.records, s.applied, s.newest = *records, index, index
		s.snapshotSize.Store(size)
		break
	}
	if s.newest == 0 && bounds.First > 1 {
		if len(failures) == 0 {
			failures = append(failures, errors.New("there is none"))
		}
		return fmt.Errorf("no snapshot can be used, and the metadata log begins at index %d only; restore the data directory from a backup: %w",
			bounds.First, errors.Join(failures...))
	}
	for _, err := range failures {
		s.options.Logger.Error("metadata snapshot was passed over", "error", err, "used_index", uint64(s.newest))
		var corrupt *driver.CorruptError
		if errors.As(err, &corrupt) {
			if err := s.fs.Rename(corrupt.File, corrupt.File+damagedSuffix); err != nil {
				return fmt.Errorf("put damaged snapshot aside: %w", err)
			}
		}
	}
	return nil
}

// Snapshot writes the present state to a snapshot, durable at return, and lets
// go of the log before the snapshot that was the newest so far. Snapshots are
// taken without being asked as well; this is for those who want the next start
// or a backup to be quick.
func (s *Store) Snapshot(ctx context.Context) error {
	if s.fs == nil {
		return nil
	}
	s.snapshotMu.Lock()
	defer s.snapshotMu.Unlock()
	if s.ended {
		return ErrClosed
	}
	s.mu.Lock()
	records, index := s.records.IsoCopy(), s.applied // shares its nodes until they change
	s.logged = 0
	s.mu.Unlock()
	if index == s.newest {
		return nil
	}
	size, err := writeSnapshot(s.fs, index, records)
	if err != nil {
		return fmt.Errorf("write metadata snapshot %s: %w", snapshotName(index), err)
	}
	previous := s.newest
	s.newest = index
	s.snapshotSize.Store(size)
	// From here on nothing is lost if it fails: files and log that are not
	// needed stay a while longer.
	if err := s.removeSnapshots(index, previous); err != nil {
		return fmt.Errorf("remove old metadata snapshots: %w", err)
	}
	if previous > 0 {
		return s.log.Truncate(ctx, LogShard, previous+1)
	}
	return nil
}

// snapshotIfDue starts a snapshot in the background. Only run calls it.
func (s *Store) snapshotIfDue() {
	if s.fs == nil {
		return
	}
	s.mu.RLock()
	logged := s.logged
	s.mu.RUnlock()
	if logged < max(s.options.SnapshotBytes, s.snapshotSize.Load()) || !s.snapshotting.CompareAndSwap(false, true) {
		return
	}
	s.group.Go(func() {
		defer s.snapshotting.Store(false)
		if err := s.Snapshot(context.Background()); err != nil {
			s.options.Logger.Error("metadata snapshot failed; the log is kept until one succeeds", "error", err)
		}
	})
}

func snapshotName(index driver.Index) string {
	return fmt.Sprintf("%016x%s", uint64(index), snapshotSuffix)
}

// listSnapshots returns the indexes of complete snapshots, newest first, and
// removes what an interrupted one left.
func (s *Store) listSnapshots() ([]driver.Index, error) {
	if s.fs == nil {
		return nil, nil
	}
	if err := s.fs.MkdirAll("."); err != nil {
		return nil, err
	}
	indexes, rest, err := findSnapshots(s.fs)
	if err != nil {
		return nil, err
	}
	for _, name := range rest {
		if err := s.fs.Remove(name); err != nil {
			return nil, err
		}
	}
	return indexes, nil
}

// findSnapshots returns the indexes of complete snapshots, newest first, and the
// names of incomplete ones.
func findSnapshots(fsys vfs.FS) (indexes []driver.Index, incomplete []string, err error) {
	files, err := fsys.ReadDir(".")
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		if strings.HasSuffix(file.Name, snapshotSuffix+temporarySuffix) {
			incomplete = append(incomplete, file.Name)
		}
		digits, ok := strings.CutSuffix(file.Name, snapshotSuffix)
		if !ok {
			continue
		}
		if index, err := strconv.ParseUint(digits, 16, 64); err == nil && file.Name == snapshotName(driver.Index(index)) {
			indexes = append(indexes, driver.Index(index))
		}
	}
	slices.Sort(indexes)
	slices.Reverse(indexes)
	return indexes, incomplete, nil
}

// VerifySnapshots reads every snapshot in fs from beginning to end and changes
// nothing. It returns how many there are, and what is wrong with each that
// cannot be used; a *driver.CorruptError names the file and the place.
func VerifySnapshots(fs vfs.FS) (found int, err error) {
	indexes, _, err := findSnapshots(fs)
	if err != nil {
		return 0, fmt.Errorf("verify metadata snapshots: %w", err)
	}
	var failures []error
	for _, index := range indexes {
		if _, _, err := readSnapshot(fs, snapshotName(index), index); err != nil {
			failures = append(failures, err)
		}
	}
	return len(indexes), errors.Join(failures...)
}

// removeSnapshots removes all snapshots but the given ones.
func (s *Store) removeSnapshots(keep ...driver.Index) error {
	indexes, err := s.listSnapshots()
	if err != nil {
		return err
	}
	for _, index := range indexes {
		if !slices.Contains(keep, index) {
			if err := s.fs.Remove(snapshotName(index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return s.fs.SyncDir(".")
}

// writeSnapshot writes a snapshot, durable at return, and returns its size in
// bytes.
func writeSnapshot(fsys vfs.FS, index driver.Index, records *btree.Map[string, entry]) (size int64, err error) {
	name := snapshotName(index)
	temporary := name + temporarySuffix
	f, err := fsys.Open(temporary, vfs.Write|vfs.Create|vfs.Empty)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, fsys.Remove(temporary))
		}
	}()
	size, err = encodeSnapshot(f, index, records)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, err
	}
	if err := fsys.Rename(temporary, name); err != nil {
		return 0, err
	}
	return size, fsys.SyncDir(".")
}

func encodeSnapshot(w io.WriterAt, index driver.Index, records *btree.Map[string, entry]) (size int64, err error) {
	header := make([]byte, snapshotHeaderSize)
	copy(header, snapshotMagic)
	binary.LittleEndian.PutUint32(header[8:], snapshotFormat)
	binary.LittleEndian.PutUint64(header[16:], uint64(index))
	binary.LittleEndian.PutUint64(header[24:], uint64(records.Len()))
	binary.LittleEndian.PutUint32(header[60:], crc32.Checksum(header[:60], castagnoli))
	if _, err := w.WriteAt(header, 0); err != nil {
		return 0, err
	}
	size = snapshotHeaderSize

	block := make([]byte, blockHeaderSize, blockHeaderSize+blockBytes+blockBytes/8)
	flush := func() error {
		sealBlock(block)
		if _, err := w.WriteAt(block, size); err != nil {
			return err
		}
		size += int64(len(block))
		block = block[:blockHeaderSize]
		return nil
	}
	records.Scan(func(key string, e entry) bool {
		block = appendString(block, key)
		block = binary.AppendUvarint(block, uint64(e.version))
		block = appendString(block, e.value)
		if len(block) >= blockBytes {
			err = flush()
		}
		return err == nil
	})
	if err == nil && len(block) > blockHeaderSize {
		err = flush()
	}
	if err == nil {
		err = flush() // the empty block is the end
	}
	return size, err
}

// sealBlock fills in the header of a block that lies behind it; an empty
// block's is that of the end.
func sealBlock(block []byte) {
	binary.LittleEndian.PutUint32(block, uint32(len(block)-blockHeaderSize))
	binary.LittleEndian.PutUint32(block[4:], blockSum(block))
}

func blockSum(block []byte) uint32 {
	return crc32.Update(crc32.Checksum(block[:4], castagnoli), castagnoli, block[blockHeaderSize:])
}

// readSnapshot loads one snapshot and returns its size in bytes. Damage is a
// *driver.CorruptError.
func readSnapshot(fsys vfs.FS, name string, index driver.Index) (*btree.Map[string, entry], int64, error) {
	f, err := fsys.Open(name, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, 0, err
	}
	records, err := decodeSnapshot(io.NewSectionReader(f, 0, size), name, index)
	return records, size, err
}

// decodeSnapshot reads a snapshot, of which only the name is trusted. A block
// is the most it allocates before the bytes for it have arrived and proved
// genuine.
func decodeSnapshot(input io.Reader, name string, index driver.Index) (*btree.Map[string, entry], error) {
	d := snapshotDecoder{input: bufio.NewReaderSize(input, 256<<10), name: name}
	records := btree.NewMap[string, entry](0)

	header := make([]byte, snapshotHeaderSize)
	if err := d.read(header, "header"); err != nil {
		return nil, err
	}
	if string(header[:8]) != snapshotMagic {
		return nil, d.damage("not a metadata snapshot")
	}
	if crc32.Checksum(header[:60], castagnoli) != binary.LittleEndian.Uint32(header[60:]) {
		return nil, d.damage("header does not match its checksum")
	}
	if format := binary.LittleEndian.Uint32(header[8:]); format > snapshotFormat {
		return nil, fmt.Errorf("snapshot %s has format %d, this release knows formats up to %d: %w", name, format, snapshotFormat, driver.ErrNewerVersion)
	} else if format == 0 {
		return nil, d.damage("format is zero")
	}
	if got := driver.Index(binary.LittleEndian.Uint64(header[16:])); got != index {
		return nil, d.damage(fmt.Sprintf("header says index %d", got))
	}
	count := binary.LittleEndian.Uint64(header[24:])
	if count > math.MaxInt {
		return nil, d.damage("impossible number of records")
	}

	last := ""
	for {
		d.offset += d.length
		d.length = 0
		block, err := d.block()
		if err != nil {
			return nil, err
		}
		if len(block) == 0 {
			break
		}
		r := reader{rest: block}
		for len(r.rest) > 0 {
			key, version, value := r.key(), Version(r.uvarint()), r.bytes()
			switch {
			case r.err != nil:
				return nil, d.damage(r.err.Error())
			case string(key) <= last:
				return nil, d.damage("keys are not in order")
			case version == 0 || version > Version(index):
				return nil, d.damage("impossible version")
			}
			last = string(key)
			records.Load(last, entry{version: version, value: append(make([]byte, 0, len(value)), value...)})
		}
	}
	if records.Len() != int(count) {
		return nil, d.damage(fmt.Sprintf("%d records instead of %d", records.Len(), count))
	}
	if _, err := d.input.ReadByte(); err != io.EOF {
		if err != nil {
			return nil, err
		}
		return nil, d.damage("bytes after the end")
	}
	return records, nil
}

type snapshotDecoder struct {
	input  *bufio.Reader
	name   string
	offset int64 // of the unit being read
	length int64 // bytes of it read so far
	buf    []byte
}

// block returns the next block's payload, valid until the next call.
func (d *snapshotDecoder) block() ([]byte, error) {
	var header [blockHeaderSize]byte
	if err := d.read(header[:], "block header"); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(header[:])
	if n > maxBlockBytes {
		return nil, d.damage("block is over the limit")
	}
	d.buf = append(d.buf[:0], header[:]...)
	d.buf = slices.Grow(d.buf, int(n))[:blockHeaderSize+int(n)]
	if err := d.read(d.buf[blockHeaderSize:], "block"); err != nil {
		return nil, err
	}
	if blockSum(d.buf) != binary.LittleEndian.Uint32(header[4:]) {
		return nil, d.damage("block does not match its checksum")
	}
	return d.buf[blockHeaderSize:], nil
}

func (d *snapshotDecoder) read(b []byte, what string) error {
	n, err := io.ReadFull(d.input, b)
	d.length += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return d.damage("file ends within a " + what)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", d.name, err)
	}
	return nil
}

func (d *snapshotDecoder) damage(reason string) error {
	return &driver.CorruptError{File: d.name, Offset: d.offset, Reason: reason}
}
