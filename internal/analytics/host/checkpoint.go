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

	"github.com/millrace/millrace/internal/vfs"
)

// A checkpoint is a file: docs/formats/analytics-snapshot.md.

const (
	checkpointMagic = "MRCHKPT1"
	// maxCheckpoint bounds what is read of a file.
	maxCheckpoint = 8 << 30
)

// position is a place in a shard.
type position struct {
	Next uint64 `json:"next"`
	End  bool   `json:"end,omitempty"`
}

// places is where an application was, and in which run.
type places struct {
	Format int    `json:"format"`
	Run    uint64 `json:"run"`
	// Inputs has the places by input, each with the number of its source: a stream
	// that was made anew under its name is another one.
	Inputs map[string]inputPlaces `json:"inputs"`
}

type inputPlaces struct {
	Source uint64              `json:"source"`
	Shards map[uint32]position `json:"shards"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func fileName(id string) string { return hex.EncodeToString([]byte(id)) + ".checkpoint" }

// store puts a checkpoint in place of the one before.
func (h *Host) store(id string, p places, snapshot []byte) error {
	p.Format = 1
	head, err := json.Marshal(p)
	if err != nil {
		return err
	}
	raw := append([]byte(checkpointMagic), make([]byte, 12)...)
	binary.LittleEndian.PutUint32(raw[8:], uint32(len(head)))
	binary.LittleEndian.PutUint64(raw[12:], uint64(len(snapshot)))
	raw = append(append(raw, head...), snapshot...)
	raw = binary.LittleEndian.AppendUint32(raw, crc32.Checksum(raw, castagnoli))
	if err := h.o.Files.MkdirAll("."); err != nil {
		return err
	}
	name := fileName(id)
	f, err := h.o.Files.Open(name+".new", vfs.Write|vfs.Create|vfs.Empty)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(raw, 0); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = h.o.Files.Rename(name+".new", name)
	}
	if err == nil {
		err = h.o.Files.SyncDir(".")
	}
	return err
}

// load reads the checkpoint of an application; ok is false if there is none.
func (h *Host) load(id string) (p places, snapshot []byte, ok bool, err error) {
	f, err := h.o.Files.Open(fileName(id), 0)
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
	damaged := fmt.Errorf("the checkpoint %s is damaged", fileName(id))
	if size < 24 || size > maxCheckpoint {
		return places{}, nil, false, damaged
	}
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return places{}, nil, false, err
	}
	n := len(raw) - 4
	if string(raw[:8]) != checkpointMagic || crc32.Checksum(raw[:n], castagnoli) != binary.LittleEndian.Uint32(raw[n:]) {
		return places{}, nil, false, damaged
	}
	head, body := uint64(binary.LittleEndian.Uint32(raw[8:])), binary.LittleEndian.Uint64(raw[12:])
	if head > uint64(n-20) || body != uint64(n-20)-head {
		return places{}, nil, false, damaged
	}
	if err := json.Unmarshal(raw[20:20+head], &p); err != nil || p.Format != 1 {
		return places{}, nil, false, damaged
	}
	return p, raw[20+head : n], true, nil
}

// forget removes a checkpoint.
func (h *Host) forget(id string) error {
	err := h.o.Files.Remove(fileName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = h.o.Files.SyncDir(".")
	}
	return err
}
