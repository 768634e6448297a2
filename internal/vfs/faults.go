package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// Kind is a kind of call that can be made to fail.
type Kind uint8

const (
	// AnyCall stands for all kinds together.
	AnyCall Kind = iota
	OpenCall
	ReadCall
	WriteCall
	SyncCall // Sync of a file
	SyncDirCall
	RenameCall
	RemoveCall
	MkdirCall
	ReadDirCall
	StatCall
	TruncateCall
	AllocateCall
	PunchCall
	SpaceCall
	kinds
)

var kindNames = [kinds]string{"call", "open", "read", "write", "sync", "syncdir", "rename", "remove", "mkdir", "readdir", "stat", "truncate", "allocate", "punch", "space"}

func (k Kind) String() string { return kindNames[k] }

// Faults decides which calls of a file system fail, counts them, and stands at
// every sync. The zero value lets everything pass. All methods may be called
// concurrently with the file system's.
type Faults struct {
	mu     sync.Mutex
	counts [kinds]int
	rules  []rule
	// OnSync, if set before use, is called immediately before and after every
	// step that makes something durable: Sync, SyncDir, and WriteAt of a Durable
	// file. Before means that the file system has seen the bytes but not made
	// them durable. It must not call the file system it watches, except for
	// (*Memory).CrashClone of what lies beneath.
	OnSync func(before bool, kind Kind, name string)
}

type rule struct {
	kind   Kind
	from   int // absolute count
	until  int // absolute count, inclusive; zero means for ever
	err    error
	tested func(name string) bool
}

// Fail makes the n-th call of a kind from now on (1 is the next) fail with err.
// A failing write leaves half of its bytes behind.
func (f *Faults) Fail(kind Kind, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.counts[kind] + n
	f.rules = append(f.rules, rule{kind: kind, from: at, until: at, err: err})
}

// FailFrom makes the n-th call of a kind from now on, and all later ones, fail
// until Heal.
func (f *Faults) FailFrom(kind Kind, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, rule{kind: kind, from: f.counts[kind] + n, err: err})
}

// FailNamed makes every call of a kind on names that match fail until Heal.
func (f *Faults) FailNamed(kind Kind, match func(name string) bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, rule{kind: kind, err: err, tested: match})
}

// Heal forgets all failures that were asked for.
func (f *Faults) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Count returns how many calls of a kind were made.
func (f *Faults) Count(kind Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[kind]
}

func (f *Faults) check(kind Kind, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[AnyCall]++
	f.counts[kind]++
	for _, r := range f.rules {
		if r.kind != AnyCall && r.kind != kind {
			continue
		}
		if r.tested != nil && !r.tested(name) {
			continue
		}
		if n := f.counts[r.kind]; n >= r.from && (r.until == 0 || n <= r.until) {
			return &fs.PathError{Op: kind.String(), Path: name, Err: fmt.Errorf("injected: %w", r.err)}
		}
	}
	return nil
}

func (f *Faults) sync(kind Kind, name string, do func() error) error {
	if f.OnSync != nil {
		f.OnSync(true, kind, name)
	}
	err := do()
	if f.OnSync != nil {
		f.OnSync(false, kind, name)
	}
	return err
}

// WithFaults returns fsys with its calls counted and failed as f says.
func WithFaults(fsys FS, f *Faults) FS { return &faultFS{fsys: fsys, f: f} }

type faultFS struct {
	fsys FS
	f    *Faults
}

func (x *faultFS) Open(name string, mode Mode) (File, error) {
	if err := x.f.check(OpenCall, name); err != nil {
		return nil, err
	}
	file, err := x.fsys.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, f: x.f, name: name, mode: mode}, nil
}

func (x *faultFS) Rename(from, to string) error {
	if err := x.f.check(RenameCall, to); err != nil {
		return err
	}
	return x.fsys.Rename(from, to)
}

func (x *faultFS) Remove(name string) error {
	if err := x.f.check(RemoveCall, name); err != nil {
		return err
	}
	return x.fsys.Remove(name)
}

func (x *faultFS) MkdirAll(name string) error {
	if err := x.f.check(MkdirCall, name); err != nil {
		return err
	}
	return x.fsys.MkdirAll(name)
}

func (x *faultFS) ReadDir(name string) ([]Info, error) {
	if err := x.f.check(ReadDirCall, name); err != nil {
		return nil, err
	}
	return x.fsys.ReadDir(name)
}

func (x *faultFS) Stat(name string) (Info, error) {
	if err := x.f.check(StatCall, name); err != nil {
		return Info{}, err
	}
	return x.fsys.Stat(name)
}

func (x *faultFS) SyncDir(name string) error {
	if err := x.f.check(SyncDirCall, name); err != nil {
		return err
	}
	return x.f.sync(SyncDirCall, name, func() error { return x.fsys.SyncDir(name) })
}

func (x *faultFS) Lock(name string) (io.Closer, error) { return x.fsys.Lock(name) }

func (x *faultFS) Space() (Space, error) {
	if err := x.f.check(SpaceCall, "."); err != nil {
		return Space{}, err
	}
	return x.fsys.Space()
}

type faultFile struct {
	File
	f    *Faults
	name string
	mode Mode
}

func (x *faultFile) ReadAt(p []byte, offset int64) (int, error) {
	if err := x.f.check(ReadCall, x.name); err != nil {
		return 0, err
	}
	return x.File.ReadAt(p, offset)
}

// volatileWriter is what a Durable file of Memory offers to show the moment
// between the arrival of bytes and their durability.
type volatileWriter interface {
	writeVolatile(p []byte, offset int64)
}

func (x *faultFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := x.f.check(WriteCall, x.name); err != nil {
		half := len(p) / 2
		if x.mode&(Durable|Uncached) != 0 {
			half -= half % Alignment
		}
		if half > 0 {
			// What the device does with a failing write is its own affair.
			x.File.WriteAt(p[:half], offset)
		}
		return 0, err
	}
	if x.mode&Durable == 0 {
		return x.File.WriteAt(p, offset)
	}
	var n int
	if v, ok := x.File.(volatileWriter); ok && x.f.OnSync != nil {
		v.writeVolatile(p, offset)
	}
	err := x.f.sync(WriteCall, x.name, func() (err error) {
		n, err = x.File.WriteAt(p, offset)
		return err
	})
	return n, err
}

func (x *faultFile) Sync() error {
	if err := x.f.check(SyncCall, x.name); err != nil {
		return err
	}
	return x.f.sync(SyncCall, x.name, x.File.Sync)
}

func (x *faultFile) Truncate(size int64) error {
	if err := x.f.check(TruncateCall, x.name); err != nil {
		return err
	}
	return x.File.Truncate(size)
}

func (x *faultFile) Allocate(offset, length int64) error {
	if err := x.f.check(AllocateCall, x.name); err != nil {
		return err
	}
	return x.File.Allocate(offset, length)
}

func (x *faultFile) PunchHole(offset, length int64) error {
	if err := x.f.check(PunchCall, x.name); err != nil {
		return err
	}
	return x.File.PunchHole(offset, length)
}
