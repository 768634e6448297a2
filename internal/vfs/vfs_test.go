package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/vfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, fsys vfs.FS, name string, mode vfs.Mode, offset int64, data []byte) vfs.File {
	t.Helper()
	f, err := fsys.Open(name, vfs.Write|vfs.Create|mode)
	must(t, err)
	_, err = f.WriteAt(data, offset)
	must(t, err)
	return f
}

// TestFileSystemsBehaveAlike runs one body over every implementation.
func TestFileSystemsBehaveAlike(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{
		"os":     vfs.OS(t.TempDir()),
		"memory": vfs.NewMemory(),
		"faults": vfs.WithFaults(vfs.NewMemory(), &vfs.Faults{}),
	} {
		t.Run(name, func(t *testing.T) {
			must(t, fsys.MkdirAll("a/b"))
			must(t, fsys.MkdirAll("a/b"))
			sub := vfs.Sub(fsys, "a")
			must(t, vfs.WriteFile(sub, "b/file", []byte("hello")))
			got, err := vfs.ReadFile(fsys, "a/b/file", 10)
			must(t, err)
			if string(got) != "hello" {
				t.Errorf("read %q", got)
			}
			if _, err := vfs.ReadFile(fsys, "a/b/file", 4); err == nil {
				t.Error("a file over the limit was read")
			}
			if _, err := fsys.Open("missing", 0); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("open of a missing file: %v", err)
			}
			if _, err := fsys.Open("a/b/file", vfs.Write|vfs.Create|vfs.Exclusive); !errors.Is(err, fs.ErrExist) {
				t.Errorf("exclusive open: %v", err)
			}
			if _, err := fsys.Open("../outside", 0); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("open outside: %v", err)
			}
			block := vfs.AlignedBuffer(vfs.Alignment)
			for i := range block {
				block[i] = 7
			}
			for _, mode := range []vfs.Mode{vfs.Durable, vfs.Uncached} {
				f := put(t, fsys, "aligned", mode, vfs.Alignment, block)
				must(t, f.Sync())
				must(t, f.Truncate(vfs.Alignment+10))
				size, err := f.Size()
				must(t, err)
				if size != vfs.Alignment+10 {
					t.Errorf("size %d", size)
				}
				must(t, f.Close())
			}
			f, err := fsys.Open("aligned", vfs.Write)
			must(t, err)
			must(t, f.Allocate(0, 3*vfs.Alignment))
			must(t, f.PunchHole(vfs.Alignment, vfs.Alignment))
			must(t, f.Close())
			data, err := vfs.ReadFile(fsys, "aligned", 1<<20)
			must(t, err)
			if !bytes.Equal(data, make([]byte, 3*vfs.Alignment)) {
				t.Error("a punched and allocated file is not all zeros")
			}
			must(t, fsys.Rename("aligned", "a/moved"))
			infos, err := fsys.ReadDir("a")
			must(t, err)
			if len(infos) != 2 || !infos[0].Dir || infos[1].Name != "moved" {
				t.Errorf("folder holds %+v", infos)
			}
			lock, err := fsys.Lock("LOCK")
			must(t, err)
			if _, err := fsys.Lock("LOCK"); !errors.Is(err, vfs.ErrLocked) {
				t.Errorf("second lock: %v", err)
			}
			must(t, lock.Close())
			lock, err = fsys.Lock("LOCK")
			must(t, err)
			must(t, lock.Close())
			must(t, fsys.Remove("a/moved"))
			if space, err := fsys.Space(); err != nil || space.Free == 0 {
				t.Errorf("space %+v, %v", space, err)
			}
		})
	}
}

func TestCrashKeepsOnlyWhatWasSynced(t *testing.T) {
	m := vfs.NewMemory()
	f := put(t, m, "file", 0, 0, []byte("synced"))
	must(t, f.Sync())
	if _, err := m.CrashClone(0).Stat("file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name survived without a sync of its folder: %v", err)
	}
	must(t, m.SyncDir("."))
	_, err := f.WriteAt([]byte("LATER!"), 0)
	must(t, err)
	got, err := vfs.ReadFile(m.CrashClone(0), "file", 100)
	must(t, err)
	if string(got) != "synced" {
		t.Errorf("strict crash left %q", got)
	}
	must(t, m.Rename("file", "renamed"))
	if _, err := m.CrashClone(0).Stat("file"); err != nil {
		t.Errorf("an unsynced rename happened: %v", err)
	}
	seen := map[string]bool{}
	for seed := range uint64(40) {
		clone := m.CrashClone(seed)
		name := "file"
		if _, err := clone.Stat("renamed"); err == nil {
			name = "renamed"
		}
		got, err := vfs.ReadFile(clone, name, 100)
		must(t, err)
		if s := string(got); s != "synced" && s != "LATER!" {
			t.Errorf("seed %d left %q", seed, s)
		}
		seen[name+string(got)] = true
	}
	if len(seen) < 3 {
		t.Errorf("seeds give only %v", seen)
	}
}

func TestFaultsFailTheCallAskedFor(t *testing.T) {
	faults := &vfs.Faults{}
	var syncs []bool
	faults.OnSync = func(before bool, _ vfs.Kind, _ string) { syncs = append(syncs, before) }
	fsys := vfs.WithFaults(vfs.NewMemory(), faults)
	f := put(t, fsys, "file", 0, 0, []byte("1234"))
	faults.Fail(vfs.WriteCall, 2, syscall.EIO)
	_, err := f.WriteAt([]byte("abcd"), 0)
	must(t, err)
	if _, err := f.WriteAt([]byte("efgh"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("second write: %v", err)
	}
	got, err := vfs.ReadFile(fsys, "file", 10)
	must(t, err)
	if string(got) != "efcd" {
		t.Errorf("a failed write left %q", got)
	}
	must(t, f.Sync())
	if len(syncs) != 2 || !syncs[0] || syncs[1] {
		t.Errorf("sync hooks saw %v", syncs)
	}
	faults.FailFrom(vfs.SyncCall, 1, syscall.ENOSPC)
	if err := f.Sync(); !vfs.IsNoSpace(err) {
		t.Errorf("sync: %v", err)
	}
	faults.Heal()
	must(t, f.Sync())
}
