package host

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/vfs"
)

// A checkpoint is a file: docs/formats/analytics-snapshot.md.

const (
	checkpointMagic = "MRCHKPT"
	// checkpointVersion is the byte behind it.
	checkpointVersion = '2'
	checkpointHead    = len(checkpointMagic) + 1 + 4
	checkpointTail    = 8 + 4
	// maxCheckpoint bounds what is read of a file.
	maxCheckpoint = 8 << 30
)

// errDamaged says that a checkpoint is not as it was written.
var errDamaged = errors.New("the checkpoint is damaged")

// position is a place in a shard.
type position struct {
	Next uint64 `json:"next"`
	End  bool   `json:"end,omitempty"`
}

// places is where an application was, and in which run.
type places struct {
	Run uint64 `json:"run"`
	// Inputs has the places by input, each with the number of its source: a stream
	// that was made anew under its name is another one.
	Inputs map[string]inputPlaces `json:"inputs"`
	// Journal is where the steps are that came next; nil if there is none.
	Journal *chain `json:"journal,omitempty"`
	// Now is the instant of the newest step, in milliseconds since 1970.
	Now int64 `json:"now,omitempty"`
}

type inputPlaces struct {
	Source uint64 `json:"source"`
	// From is where shards without a place begin: see startOf.
	From   int64               `json:"from,omitempty"`
	Shards map[uint32]position `json:"shards"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func fileName(id string) string { return hex.EncodeToString([]byte(id)) + ".checkpoint" }

const (
	newSuffix      = ".new"
	previousSuffix = ".previous"
	damagedSuffix  = ".damaged"
)

// saving is a checkpoint that is not valid yet.
type saving struct {
	done  chan error // gets one result
	bytes int64
	began time.Time
	mark
}

// mark is where a checkpoint stands.
type mark struct {
	file uint64 // the first of the journal behind it
	step uint64 // steps before it
	made uint64 // rows made before it
}

// checkpoint begins a checkpoint of this moment: it writes the state beside the
// file of the one before, and leaves the rest to a goroutine. The checkpoint
// becomes valid when all rows that were made before it are durable; rows that come
// later do not wait for it. False if the application ends first.
func (r *application) checkpoint(group *sync.WaitGroup) bool {
	if !r.flush() {
		return false
	}
	b := newBarrier(len(r.outputs))
	for _, o := range r.outputs {
		if !o.queue.put(r.sending, item{barrier: b}) {
			return false
		}
	}
	r.changed = false
	s := &saving{done: make(chan error, 1), began: time.Now()}
	s.step, s.made = r.steps, r.made
	p := places{Run: r.a.Run, Inputs: r.places, Now: r.last}
	switch {
	case r.repeating != nil:
		// The steps that are left are where they were.
		at := *r.repeating
		s.file, at.Skip, at.Step, at.Before = at.File, at.Skip+r.steps-at.Step, r.steps, r.mark.file
		p.Journal = &at
	case r.journal != nil:
		s.file = r.journal.rotate()
		p.Journal = &chain{Epoch: r.epoch, File: s.file, Step: r.steps, At: r.h.o.Now().UnixMilli(), Before: r.mark.file}
	}
	r.saving = s
	head, err := json.Marshal(p)
	if err != nil {
		s.done <- err
		return true
	}
	// A small state is taken into memory, so that the program does not wait for the
	// disk; one that is not would take too much of it.
	if r.engine.Memory() <= freezeBytes {
		frozen := r.engine.Freeze()
		group.Go(func() {
			err := errUnfinished
			defer func() { s.done <- err }()
			defer r.guard()
			var w *writing
			if w, err = r.h.write(r.a.ID, head, func(w io.Writer) error { _, err := frozen.WriteTo(w); return err }); err == nil {
				s.bytes = w.at
				err = r.h.complete(r.a.ID, w, b, r.sending.Done())
			}
		})
		return true
	}
	w, err := r.h.write(r.a.ID, head, r.engine.WriteSnapshot)
	if err != nil {
		s.done <- err
		return true
	}
	s.bytes = w.at
	group.Go(func() { s.done <- r.h.complete(r.a.ID, w, b, r.sending.Done()) })
	return true
}

// freezeBytes is how large a state may be to be taken into memory.
const freezeBytes = 256 << 20

// checkpointed ends a checkpoint.
func (r *application) checkpointed(err error) {
	s := r.saving
	r.saving, r.unsaved = nil, err != nil
	if err != nil {
		r.changed = true
		r.series.Add(CheckpointSuccess, 0)
		if !errors.Is(err, errLost) {
			r.problem("checkpoint", "", "CheckpointError", err.Error())
		}
		return
	}
	r.problem("checkpoint", "", "", "")
	if r.journal != nil {
		// The steps behind the checkpoint before stay with it.
		r.journal.forget(r.mark.file)
		if err := removeJournals(r.h.o.Files, fileName(r.a.ID), func(n uint64) bool { return n >= r.mark.file }); err != nil {
			r.h.o.Logger.Warn("a journal stays behind its checkpoint", "application", r.a.Name, "error", err)
		}
	}
	r.mark = s.mark
	r.series.Add(CheckpointSuccess, 1)
	r.series.Add(CheckpointBytes, float64(s.bytes))
	r.series.Add(CheckpointDuration, float64(time.Since(s.began).Microseconds())/1000)
}

var (
	// errLost says that rows before a checkpoint could not be delivered in time.
	errLost = errors.New("rows were not delivered before the end")
	// errUnfinished is what remains of a checkpoint whose writing broke off.
	errUnfinished = errors.New("the checkpoint was not finished")
)

// writing is a checkpoint file that grows.
type writing struct {
	f   vfs.File
	at  int64
	crc uint32
	buf []byte
	err error
}

const writeAhead = 256 << 10

// Write implements io.Writer. The bytes are not durable.
func (w *writing) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	w.crc = crc32.Update(w.crc, castagnoli, p)
	if len(w.buf)+len(p) > writeAhead {
		w.flush()
	}
	if len(p) >= writeAhead {
		if _, w.err = w.f.WriteAt(p, w.at); w.err == nil {
			w.at += int64(len(p))
		}
	} else {
		w.buf = append(w.buf, p...)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *writing) flush() {
	if w.err != nil || len(w.buf) == 0 {
		return
	}
	if _, w.err = w.f.WriteAt(w.buf, w.at); w.err == nil {
		w.at += int64(len(w.buf))
	}
	w.buf = w.buf[:0]
}

// write writes a checkpoint with its places, as JSON, beside the one before, without
// making it durable.
func (h *Host) write(id string, head []byte, snapshot func(io.Writer) error) (w *writing, err error) {
	if err := h.o.Files.MkdirAll("."); err != nil {
		return nil, err
	}
	name := fileName(id) + newSuffix
	f, err := h.o.Files.Open(name, vfs.Write|vfs.Create|vfs.Empty)
	if err != nil {
		return nil, err
	}
	w = &writing{f: f}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = h.o.Files.Remove(name)
		}
	}()
	start := append([]byte(checkpointMagic), checkpointVersion)
	start = binary.LittleEndian.AppendUint32(start, uint32(len(head)))
	if _, err := w.Write(append(start, head...)); err != nil {
		return nil, err
	}
	before := w.at + int64(len(w.buf))
	if err := snapshot(w); err != nil {
		return nil, err
	}
	length := w.at + int64(len(w.buf)) - before
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(length))); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, w.crc)); err != nil {
		return nil, err
	}
	w.flush()
	w.buf = nil
	return w, w.err
}

// complete makes a checkpoint durable, and valid when all rows before it are
// durable; the one before is kept beside it. It is given up when end is closed
// before.
func (h *Host) complete(id string, w *writing, b *barrier, end <-chan struct{}) error {
	err := w.f.Sync()
	if closed := w.f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		select {
		case <-b.done:
		default:
			select {
			case <-b.done:
			case <-end:
				err = errLost
			}
		}
	}
	if err == nil && b.lost {
		err = errLost
	}
	name := fileName(id)
	if err == nil {
		// Between these two there is no checkpoint but the previous one.
		if err = h.o.Files.Rename(name, name+previousSuffix); errors.Is(err, fs.ErrNotExist) {
			err = nil // it is the first
		}
	}
	if err == nil {
		err = h.o.Files.Rename(name+newSuffix, name)
	}
	if err != nil {
		_ = h.o.Files.Remove(name + newSuffix)
		return err
	}
	return h.o.Files.SyncDir(".")
}

// load reads a checkpoint; ok is false if there is none. The error is errDamaged if
// it cannot be used.
func (h *Host) load(name string) (p places, snapshot []byte, ok bool, err error) {
	f, err := h.o.Files.Open(name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return places{}, nil, false, nil
	}
	if err != nil {
		return places{}, nil, false, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return places{}, nil, false, err
	}
	damaged := fmt.Errorf("%s: %w", name, errDamaged)
	if size < int64(checkpointHead+checkpointTail) || size > maxCheckpoint {
		return places{}, nil, false, damaged
	}
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return places{}, nil, false, err
	}
	p, snapshot, err = parseCheckpoint(raw)
	if err != nil {
		return places{}, nil, false, fmt.Errorf("%s: %w", name, err)
	}
	return p, snapshot, true, nil
}

// parseCheckpoint reads the bytes of a file. What a later version has written is
// not damaged, but an error all the same.
func parseCheckpoint(raw []byte) (p places, snapshot []byte, err error) {
	n := len(raw) - 4
	if len(raw) < checkpointHead+checkpointTail || string(raw[:len(checkpointMagic)]) != checkpointMagic ||
		crc32.Checksum(raw[:n], castagnoli) != binary.LittleEndian.Uint32(raw[n:]) {
		return places{}, nil, errDamaged
	}
	if v := raw[len(checkpointMagic)]; v != checkpointVersion {
		return places{}, nil, fmt.Errorf("the checkpoint is of version %q; this program reads %q", v, checkpointVersion)
	}
	room := uint64(len(raw) - checkpointHead - checkpointTail)
	head := uint64(binary.LittleEndian.Uint32(raw[checkpointHead-4:]))
	body := binary.LittleEndian.Uint64(raw[n-8:])
	if head > room || body != room-head {
		return places{}, nil, errDamaged
	}
	from := uint64(checkpointHead) + head
	if err := json.Unmarshal(raw[checkpointHead:from], &p); err != nil {
		return places{}, nil, errDamaged
	}
	return p, raw[from : from+body], nil
}

// setAside keeps a damaged checkpoint for who wants to look at it.
func (h *Host) setAside(name string) {
	err := h.o.Files.Rename(name, name+damagedSuffix)
	if err == nil {
		err = h.o.Files.SyncDir(".")
	}
	h.o.Logger.Error("a checkpoint is damaged", "file", name, "kept as", name+damagedSuffix, "error", err)
}

// forget removes a checkpoint.
func (h *Host) forget(id string) error {
	removed := false
	for _, suffix := range []string{"", newSuffix, previousSuffix, damagedSuffix, previousSuffix + damagedSuffix} {
		switch err := h.o.Files.Remove(fileName(id) + suffix); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if err := removeJournals(h.o.Files, fileName(id), func(uint64) bool { return false }); err != nil {
		return err
	}
	if removed {
		return h.o.Files.SyncDir(".")
	}
	return nil
}
