package local

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	text := hex.Dump(got)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: bytes differ from the golden file; a change of format needs a new version\ngot:\n%s", name, text)
	}
}

func sampleFrame() []byte {
	payload := []byte("hello, shard log")
	frame := make([]byte, frameHeaderBytes+batchHeaderBytes+len(payload))
	copy(frame[frameHeaderBytes+batchHeaderBytes:], payload)
	b := batchHeader{size: uint32(len(payload)), shard: 17, base: 1000, at: 1_700_000_000_000, count: 2}
	b.put(frame[frameHeaderBytes:])
	h := frameHeader{kind: frameBatches, salt: 0x0102030405060708, lsn: 9, committed: 8, length: uint32(batchHeaderBytes + len(payload)), count: 1}
	h.put(frame)
	return frame
}

func sampleCommands() ([]command, []byte) {
	commands := []command{
		{code: commandCreate, retention: 24 * time.Hour, notBefore: -5, shards: []run{{1, 10_000}, {20_000, 1}}},
		{code: commandRetention, retention: time.Hour, shards: []run{{5, 1}}},
		{code: commandDelete, shards: []run{{7, 2}}},
		{code: commandClosed},
	}
	var body []byte
	for i := range commands {
		body = commands[i].append(body)
	}
	return commands, body
}

func sampleManifest() *manifest {
	return &manifest{
		replayFrom: 3, nextSequence: 6, nextLSN: 77, nextFile: 12,
		classes: []time.Duration{24 * time.Hour, 0},
		files: []*file{
			{id: 4, class: 0, retention: 24 * time.Hour, firstSequence: 1, lastSequence: 1, size: 9000, maxAt: 1_700_000_000_000},
			{id: 5, class: 1, firstSequence: 2, lastSequence: 2, size: 8000, maxAt: 1_700_000_000_001},
		},
		shards: []shardRun{
			{run: run{1, 1}, first: 3, next: 10, lastAt: 1_700_000_000_000, classes: 2},
			{run: run{16, 10_000}, retention: 24 * time.Hour, first: 1, next: 1},
		},
	}
}

func sampleSegment(t testing.TB) (vfs.FS, *file) {
	fsys := vfs.NewMemory()
	f := &file{id: 0xabc, class: 0, retention: 24 * time.Hour, firstSequence: 3, lastSequence: 3}
	w, err := newFileWriter(fsys, f)
	if err != nil {
		t.Fatal(err)
	}
	for shard := driver.ShardID(1); shard <= 3; shard++ {
		payload := bytes.Repeat([]byte{byte(shard)}, 30)
		b := append(make([]byte, batchHeaderBytes), payload...)
		h := batchHeader{size: 30, shard: shard, base: 5, at: 1_700_000_000_000 + int64(shard), count: 3}
		h.put(b)
		if err := w.add(h, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	return fsys, f
}

func TestFormatsAreGolden(t *testing.T) {
	block := make([]byte, blockBytes)
	walHeader{state: segmentInUse, sequence: 5, salt: 0x1122334455667788, size: 64 << 20}.put(block)
	golden(t, "wal-header", block)
	golden(t, "frame", sampleFrame())
	_, body := sampleCommands()
	golden(t, "commands", body)
	golden(t, "manifest", sampleManifest().encode())
	fsys, f := sampleSegment(t)
	data, err := vfs.ReadFile(fsys, f.name(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "segment", data)
}

func TestManifestComesBackAsWritten(t *testing.T) {
	want := sampleManifest()
	got, err := parseManifest(want.encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.encode(), want.encode()) {
		t.Error("decoding and encoding changed the manifest")
	}
	if len(got.shards) != 2 || got.shards[1] != want.shards[1] || *got.files[1] != *want.files[1] {
		t.Errorf("got %+v", got)
	}
}

func TestDataOfANewerVersionIsRefused(t *testing.T) {
	tests := map[string]func(t *testing.T, fsys vfs.FS){
		"manifest": func(t *testing.T, fsys vfs.FS) {
			rewrite(t, fsys, manifestName, func(b []byte) { b[8]++ })
		},
		"log segment": func(t *testing.T, fsys vfs.FS) {
			infos, err := fsys.ReadDir(walDir)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range infos {
				rewrite(t, fsys, walDir+"/"+info.Name, func(b []byte) {
					for _, at := range []int{0, secondHeaderAt} {
						h := b[at : at+fileHeaderBytes]
						h[8]++
						crc := checksum(h[:40])
						h[40], h[41], h[42], h[43] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
					}
				})
			}
		},
	}
	for name, age := range tests {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMemory()
			o := Options{SegmentBytes: 64 << 10, SegmentCount: 2}
			l, err := Open(t.Context(), fsys, o)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			age(t, fsys)
			_, err = Open(t.Context(), fsys, o)
			if !errors.Is(err, driver.ErrNewerVersion) {
				t.Fatalf("open: %v, want ErrNewerVersion", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
	t.Run("sealed segment", func(t *testing.T) {
		fsys, f := sampleSegment(t)
		rewrite(t, fsys, f.name(), func(b []byte) {
			b[8]++
			crc := checksum(b[:60])
			b[60], b[61], b[62], b[63] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
		})
		if _, err := openHandle(fsys, f); !errors.Is(err, driver.ErrNewerVersion) {
			t.Errorf("open: %v, want ErrNewerVersion", err)
		}
	})
}

func rewrite(t *testing.T, fsys vfs.FS, name string, do func([]byte)) {
	t.Helper()
	b, err := vfs.ReadFile(fsys, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	do(b)
	if err := vfs.WriteFile(fsys, name, b); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryInUseIsSaidSo(t *testing.T) {
	fsys := vfs.NewMemory()
	o := Options{SegmentBytes: 64 << 10, SegmentCount: 2}
	l, err := Open(t.Context(), fsys, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(t.Context(), fsys, o); !errors.Is(err, vfs.ErrLocked) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second open: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(sampleFrame())
	_, body := sampleCommands()
	frame := append(make([]byte, frameHeaderBytes), body...)
	h := frameHeader{kind: frameCommands, salt: 0x0102030405060708, lsn: 1, length: uint32(len(body)), count: 4, bodyCRC: checksum(body)}
	h.put(frame)
	f.Add(frame)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseFrameHeader(b, 0x0102030405060708)
		if ok && uint64(h.length) <= uint64(len(b)-frameHeaderBytes) {
			frameWhole(&h, b[frameHeaderBytes:frameHeaderBytes+int(h.length)])
		}
		if b, ok := parseBatch(b); ok && (b.size == 0 || b.count == 0) {
			t.Error("an empty batch was accepted")
		}
		parseWalHeader(b)
	})
}

func FuzzCommands(f *testing.F) {
	_, body := sampleCommands()
	f.Add(body, uint32(4))
	f.Add([]byte{commandDelete, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1}, uint32(1))
	f.Fuzz(func(t *testing.T, body []byte, count uint32) {
		commands, ok := parseCommands(body, count)
		if !ok {
			return
		}
		var again []byte
		for i := range commands {
			again = commands[i].append(again)
		}
		if back, ok := parseCommands(again, count); !ok || len(back) != len(commands) {
			t.Errorf("commands do not survive encoding: %v", commands)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(sampleManifest().encode()[manifestHeaderBytes:])
	f.Add((&manifest{nextFile: 1}).encode()[manifestHeaderBytes:])
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum is made right, so that the fuzzer gets past it.
		b := (&manifest{}).encode()[:manifestHeaderBytes]
		b = append(b, body...)
		n := len(body)
		for i := range 8 {
			b[16+i] = byte(n >> (8 * i))
		}
		crc := manifestCRC(b)
		for i := range 4 {
			b[24+i] = byte(crc >> (8 * i))
		}
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		if _, err := parseManifest(m.encode()); err != nil {
			t.Errorf("manifest does not survive encoding: %v", err)
		}
	})
}

func FuzzSealedSegment(f *testing.F) {
	fsys, meta := sampleSegment(f)
	data, err := vfs.ReadFile(fsys, meta.name(), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := vfs.NewMemory()
		if err := fsys.MkdirAll(meta.dir()); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(fsys, meta.name(), data); err != nil {
			t.Fatal(err)
		}
		l := &Log{fs: fsys}
		l.handles.init(fsys)
		defer l.handles.close()
		h, err := openHandle(fsys, meta)
		if err != nil {
			return
		}
		defer h.in.Close()
		for id := driver.ShardID(0); id < 5; id++ {
			e, ok, err := h.find(id)
			if err != nil || !ok {
				continue
			}
			r := reader{log: l, maxBytes: 1 << 20}
			r.stepChunk(h, e, e.base)
		}
	})
}
