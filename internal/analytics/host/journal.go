package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/vfs"
)

// A journal has the steps of a program since a checkpoint: which records it was
// given, and when. With the same steps it makes the same rows again. The form is
// docs/formats/analytics-snapshot.md.
//
// A row is written to a destination only when its step is durable, under a key
// that says which step of which journal made it. So an application that goes on
// after a crash repeats the steps, finds out which of their rows the destination
// has, and writes the others: each row is there once.

const (
	journalMagic = "MRJRNL1\n"
	journalHead  = len(journalMagic) + 8 + 8
	stepHead     = 4 + 4
	// maxStep bounds a step, in bytes.
	maxStep = 64 << 10
	// maxJournal bounds what is read of a file, in bytes.
	maxJournal    = 1 << 30
	journalSuffix = ".journal."
)

// chain is where a checkpoint's journal goes on.
type chain struct {
	Epoch uint64 `json:"epoch"`
	File  uint64 `json:"file"`
	Step  uint64 `json:"step"`
	// At is the moment of the checkpoint, in milliseconds since 1970.
	At int64 `json:"at"`
	// Before is the first file of the checkpoint before; 0 if there was none.
	Before uint64 `json:"before,omitempty"`
	// Skip is how many steps of the file came before the checkpoint: one that is taken
	// while steps are repeated stands in the middle of a file.
	Skip uint64 `json:"skip,omitempty"`
}

type stepKind byte

const (
	stepStart   stepKind = 1 // what runs once ran
	stepAdvance stepKind = 2 // time passed
	stepInsert  stepKind = 3 // a chunk was inserted
)

// step is a step of a program.
type step struct {
	kind stepKind
	now  int64 // milliseconds since 1970
	// Of a chunk.
	input, shardName string
	source           uint64
	shard            uint32
	first, next      uint64 // index of the first record, and behind the last
	records          uint64
	end, moves       bool
	forget           []uint32
}

func (s *step) append(dst []byte) []byte {
	dst = append(dst, byte(s.kind))
	dst = binary.AppendVarint(dst, s.now)
	if s.kind != stepInsert {
		return dst
	}
	for _, text := range []string{s.input, s.shardName} {
		dst = binary.AppendUvarint(dst, uint64(len(text)))
		dst = append(dst, text...)
	}
	flags := uint64(0)
	if s.end {
		flags |= 1
	}
	if s.moves {
		flags |= 2
	}
	for _, v := range []uint64{s.source, uint64(s.shard), s.first, s.next, s.records, flags, uint64(len(s.forget))} {
		dst = binary.AppendUvarint(dst, v)
	}
	for _, n := range s.forget {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

var errStep = errors.New("not a step of a journal")

func parseStep(b []byte) (s step, err error) {
	if len(b) == 0 {
		return step{}, errStep
	}
	bad := false
	s.kind = stepKind(b[0])
	b = b[1:]
	var n int
	if s.now, n = binary.Varint(b); n <= 0 {
		return step{}, errStep
	}
	b = b[n:]
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(b)) {
			bad = true
			return ""
		}
		t := string(b[:n])
		b = b[n:]
		return t
	}
	switch s.kind {
	case stepStart, stepAdvance:
	case stepInsert:
		s.input, s.shardName = text(), text()
		s.source = number()
		s.shard = uint32(number())
		s.first, s.next, s.records = number(), number(), number()
		flags := number()
		s.end, s.moves = flags&1 != 0, flags&2 != 0
		forget := number()
		if forget > uint64(len(b)) {
			return step{}, errStep
		}
		for range forget {
			s.forget = append(s.forget, uint32(number()))
		}
	default:
		return step{}, errStep
	}
	if bad || len(b) > 0 {
		return step{}, errStep
	}
	return s, nil
}

// journal is being written. The loop appends, deliverers make durable.
type journal struct {
	files vfs.FS
	base  string // of the files' names
	epoch uint64

	mu     sync.Mutex
	number uint64 // of the newest file
	buf    []byte // of the newest file, not written yet
	older  []part // of files before, not written yet
	steps  uint64 // of which the newest is the last that was appended

	syncing sync.Mutex
	durable uint64 // steps below are durable
	f       vfs.File
	open    uint64 // number of f
	at      int64
}

// part is the end of a file that is not written yet.
type part struct {
	number uint64
	buf    []byte
}

func journalName(base string, number uint64) string {
	return base + journalSuffix + strconv.FormatUint(number, 10)
}

// newJournal goes on behind a step of an epoch, with a new file.
func newJournal(files vfs.FS, base string, epoch, number, next uint64) *journal {
	return &journal{files: files, base: base, epoch: epoch, number: number, buf: journalStart(epoch, number), steps: next, durable: next}
}

func journalStart(epoch, number uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte(journalMagic), epoch)
	return binary.LittleEndian.AppendUint64(b, number)
}

// append appends a step; it is not durable.
func (j *journal) append(s *step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	from := len(j.buf)
	j.buf = append(j.buf, make([]byte, stepHead)...)
	j.buf = s.append(j.buf)
	body := j.buf[from+stepHead:]
	binary.LittleEndian.PutUint32(j.buf[from:], uint32(len(body)))
	binary.LittleEndian.PutUint32(j.buf[from+4:], crc32.Checksum(body, castagnoli))
	j.steps++
}

// rotate begins another file and returns its number.
func (j *journal) rotate() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.older = append(j.older, part{j.number, j.buf})
	j.number++
	j.buf = journalStart(j.epoch, j.number)
	return j.number
}

// forget leaves out what is not written of the files below a number: no checkpoint
// needs it any more.
func (j *journal) forget(below uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.older = slices.DeleteFunc(j.older, func(p part) bool { return p.number < below })
}

// sync returns when the steps below one are durable.
func (j *journal) sync(below uint64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.durable >= below {
		return nil
	}
	j.mu.Lock()
	parts := append(j.older, part{j.number, j.buf})
	upTo := j.steps
	j.older, j.buf = nil, nil
	j.mu.Unlock()
	for i, p := range parts {
		if err := j.write(p); err != nil {
			// What was not written is written again; the file's place has not moved.
			j.mu.Lock()
			last := len(parts) - 1
			rest := slices.Clone(parts[i:])
			if j.number == parts[last].number {
				j.buf = append(rest[len(rest)-1].buf, j.buf...)
				rest = rest[:len(rest)-1]
			} else {
				// Another file has begun since.
				first := &j.older[0]
				first.buf = append(rest[len(rest)-1].buf, first.buf...)
				rest = rest[:len(rest)-1]
			}
			j.older = append(rest, j.older...)
			j.mu.Unlock()
			return fmt.Errorf("journal: %w", err)
		}
	}
	j.durable = upTo
	return nil
}

// write makes a part durable.
func (j *journal) write(p part) error {
	if j.f == nil || j.open != p.number {
		if j.f != nil {
			_ = j.f.Close() // it is synced
			j.f = nil
		}
		if err := j.files.MkdirAll("."); err != nil {
			return err
		}
		f, err := j.files.Open(journalName(j.base, p.number), vfs.Write|vfs.Create|vfs.Empty)
		if err != nil {
			return err
		}
		if err := j.files.SyncDir("."); err != nil {
			_ = f.Close()
			return err
		}
		j.f, j.open, j.at = f, p.number, 0
	}
	if len(p.buf) == 0 {
		return nil
	}
	if _, err := j.f.WriteAt(p.buf, j.at); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.at += int64(len(p.buf))
	return nil
}

// close ends writing.
func (j *journal) close() {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.f != nil {
		_ = j.f.Close()
		j.f = nil
	}
}

// journals are the numbers of the files that there are, ascending.
func journals(files vfs.FS, base string) ([]uint64, error) {
	list, err := files.ReadDir(".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, info := range list {
		if rest, ok := strings.CutPrefix(info.Name, base+journalSuffix); ok {
			if n, err := strconv.ParseUint(rest, 10, 64); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// removeJournals removes the files that keep is false for.
func removeJournals(files vfs.FS, base string, keep func(number uint64) bool) error {
	numbers, err := journals(files, base)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if keep(n) {
			continue
		}
		if err := files.Remove(journalName(base, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readJournals reads the steps behind a checkpoint and leaves files that end with
// the last whole one: a step that was cut off by a crash was not durable, so none
// of its rows was written anywhere. next is the number of the next file.
func readJournals(files vfs.FS, base string, from chain) (steps []step, next uint64, err error) {
	next = from.File
	for {
		raw, err := vfs.ReadFile(files, journalName(base, next), maxJournal)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		list, good := parseJournal(raw, from.Epoch, next)
		steps = append(steps, list...)
		if good == 0 {
			break
		}
		// What was read need not have been durable.
		f, err := files.Open(journalName(base, next), vfs.Write)
		if err != nil {
			return nil, 0, err
		}
		if good < len(raw) {
			err = f.Truncate(int64(good))
		}
		if err == nil {
			err = f.Sync()
		}
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return nil, 0, err
		}
		next++
		if good < len(raw) {
			break
		}
	}
	if from.Before == 0 || from.Before > from.File {
		from.Before = from.File
	}
	if err := removeJournals(files, base, func(n uint64) bool { return n >= from.Before && n < next }); err != nil {
		return nil, 0, err
	}
	return steps[min(from.Skip, uint64(len(steps))):], next, nil
}

// parseJournal reads the whole steps that bytes begin with; good is how many bytes
// those have.
func parseJournal(raw []byte, epoch, number uint64) (steps []step, good int) {
	if len(raw) < journalHead || string(raw[:journalHead]) != string(journalStart(epoch, number)) {
		return nil, 0
	}
	good = journalHead
	for rest := raw[good:]; len(rest) >= stepHead; {
		n := binary.LittleEndian.Uint32(rest)
		if n > maxStep || int(n) > len(rest)-stepHead {
			break
		}
		body := rest[stepHead : stepHead+int(n)]
		if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(rest[4:]) {
			break
		}
		s, err := parseStep(body)
		if err != nil {
			break
		}
		steps = append(steps, s)
		rest = rest[stepHead+int(n):]
		good = len(raw) - len(rest)
	}
	return steps, good
}
