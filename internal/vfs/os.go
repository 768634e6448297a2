package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// OS is a folder of the operating system's file system. The folder must exist
// before the first call other than MkdirAll.
func OS(dir string) FS { return osFS(dir) }

// IsNoSpace tells whether an error means a full disk or an exhausted disk quota.
func IsNoSpace(err error) bool { return isNoSpace(err) }

type osFS string

func (o osFS) path(op, name string) (string, error) {
	name, err := clean(op, name)
	if err != nil {
		return "", err
	}
	return filepath.Join(string(o), filepath.FromSlash(name)), nil
}

func (o osFS) Open(name string, mode Mode) (File, error) {
	p, err := o.path("open", name)
	if err != nil {
		return nil, err
	}
	flags := os.O_RDONLY
	if mode&Write != 0 {
		flags = os.O_RDWR
	}
	if mode&Create != 0 {
		flags |= os.O_CREATE
	}
	if mode&Exclusive != 0 {
		flags |= os.O_EXCL
	}
	if mode&Empty != 0 {
		flags |= os.O_TRUNC
	}
	wanted, state := 0, int32(plain)
	switch {
	case mode&Durable != 0:
		wanted, state = directFlags, direct
	case mode&Uncached != 0:
		wanted, state = uncachedFlag, uncached
	}
	if wanted != 0 {
		f, err := os.OpenFile(p, flags|wanted, 0o600)
		if err == nil {
			file := &osFile{f: f}
			file.state.Store(state)
			return file, nil
		}
		if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
			return nil, err
		}
		// The file system refuses to bypass its cache, and may have created the
		// file before it said so.
		flags &^= os.O_EXCL
	}
	f, err := os.OpenFile(p, flags, 0o600)
	if err != nil {
		return nil, err
	}
	file := &osFile{f: f}
	if mode&Durable != 0 {
		file.state.Store(buffered)
	}
	return file, nil
}

func (o osFS) Rename(from, to string) error {
	a, err := o.path("rename", from)
	if err != nil {
		return err
	}
	b, err := o.path("rename", to)
	if err != nil {
		return err
	}
	return os.Rename(a, b)
}

func (o osFS) Remove(name string) error {
	p, err := o.path("remove", name)
	if err != nil {
		return err
	}
	return os.Remove(p)
}

func (o osFS) MkdirAll(name string) error {
	name, err := clean("mkdir", name)
	if err != nil {
		return err
	}
	if name == "." {
		return os.MkdirAll(string(o), 0o700)
	}
	if info, err := o.Stat(name); err == nil && info.Dir {
		return nil
	}
	if err := o.MkdirAll(path.Dir(name)); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(string(o), filepath.FromSlash(name)), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(path.Dir(name))
}

func (o osFS) ReadDir(name string) ([]Info, error) {
	p, err := o.path("readdir", name)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(entries))
	for _, entry := range entries {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, infoOf(info))
	}
	return infos, nil
}

func infoOf(info fs.FileInfo) Info {
	if info.IsDir() {
		return Info{Name: info.Name(), Dir: true}
	}
	return Info{Name: info.Name(), Size: info.Size()}
}

func (o osFS) Stat(name string) (Info, error) {
	p, err := o.path("stat", name)
	if err != nil {
		return Info{}, err
	}
	info, err := os.Stat(p)
	if err != nil {
		return Info{}, err
	}
	return infoOf(info), nil
}

func (o osFS) SyncDir(name string) error {
	p, err := o.path("sync", name)
	if err != nil {
		return err
	}
	return syncDir(p)
}

func (o osFS) Lock(name string) (io.Closer, error) {
	p, err := o.path("lock", name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}

func (o osFS) Space() (Space, error) {
	s, err := space(string(o))
	if err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: string(o), Err: err}
	}
	return s, nil
}

// How a file's writes go.
const (
	plain    = iota // to the page cache
	uncached        // past it
	direct          // past it, durable within the write
	buffered        // to the page cache, and a data sync after the write
)

type osFile struct {
	f     *os.File
	state atomic.Int32
}

func (f *osFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.f.ReadAt(p, offset)
	if err != nil && n == 0 && errors.Is(err, syscall.EINVAL) && f.state.Load() == uncached {
		// As in WriteAt: the flag was accepted and the call is not.
		if err := leaveDirect(f.f); err != nil {
			return 0, err
		}
		f.state.Store(plain)
		n, err = f.f.ReadAt(p, offset)
	}
	return n, err
}

func (f *osFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.f.WriteAt(p, offset)
	if state := f.state.Load(); err != nil && n == 0 && errors.Is(err, syscall.EINVAL) && (state == direct || state == uncached) {
		// Some file systems accept the flag and then refuse every write.
		if err := leaveDirect(f.f); err != nil {
			return 0, err
		}
		if state == direct {
			f.state.Store(buffered)
		} else {
			f.state.Store(plain)
		}
		n, err = f.f.WriteAt(p, offset)
	}
	if err == nil && f.state.Load() == buffered {
		err = dataSync(f.f)
	}
	return n, err
}

func (f *osFile) Sync() error { return f.f.Sync() }

func (f *osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Truncate(size int64) error            { return f.f.Truncate(size) }
func (f *osFile) Allocate(offset, length int64) error  { return allocate(f.f, offset, length) }
func (f *osFile) PunchHole(offset, length int64) error { return punchHole(f.f, offset, length) }
func (f *osFile) Close() error                         { return f.f.Close() }

// grow extends a file that the file system cannot allocate.
func grow(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
