// Package vfs is the only door to the file system. Everything that stores bytes
// takes an FS, so a test can put a real log on memory, lose power at any sync,
// and fail any call, without the log knowing.
//
// The idea it stands on is that durability is part of the interface: a write is
// durable after Sync of its file (or at once, for a file opened Durable), a name
// is durable after SyncDir of its folder, and nothing else is. Memory forgets
// everything that was not made durable this way when it is crash-cloned, which is
// stricter than most disks and never more forgiving.
//
// Names are slash-separated paths inside the FS, without a leading slash; "." is
// the root. Implementations: OS for a folder on disk, Memory for tests, Sub for a
// folder of another FS, and WithFaults around any of them. Start reading at FS.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unsafe"
)

// Alignment is what offsets, lengths and buffers of a file opened Durable must be
// multiples of, in bytes. AlignedBuffer makes such buffers.
const Alignment = 4096

// Mode says how Open treats a file. Without Write a file is opened for reading.
type Mode uint8

const (
	// Write allows WriteAt, Truncate, Allocate and PunchHole.
	Write Mode = 1 << iota
	// Create makes the file if there is none. It needs Write.
	Create
	// Exclusive fails with fs.ErrExist if the file exists. It needs Create.
	Exclusive
	// Empty cuts the file to length zero. It needs Write.
	Empty
	// Durable makes WriteAt return only once the bytes are on stable storage,
	// and needs aligned offsets, lengths and buffers. On disk it bypasses the
	// page cache where the file system allows that.
	Durable
	// Uncached keeps what is written and read out of the page cache where the
	// file system allows that: large data that is not needed soon again costs less
	// than half the processor time this way. WriteAt and ReadAt need alignment as
	// with Durable, except that a read ends where the file does; Truncate to any
	// length is allowed. Durability is by Sync as usual.
	Uncached
)

// ErrLocked means that another process, or another part of this one, holds the
// lock.
var ErrLocked = errors.New("locked by another process")

// Info describes a file or folder.
type Info struct {
	Name string // last element of the path
	Size int64  // bytes; zero for a folder
	Dir  bool
}

// Space is the room on the device, in bytes.
type Space struct {
	Free  uint64 // available to an ordinary user
	Total uint64
}

// FS is a file system. All methods may be called concurrently. A missing file is
// an error that errors.Is fs.ErrNotExist, a full disk one that IsNoSpace.
type FS interface {
	// Open opens a file.
	Open(name string, mode Mode) (File, error)
	// Rename moves a file, replacing what bears the new name. It is atomic, and
	// durable after SyncDir of both folders.
	Rename(from, to string) error
	// Remove unlinks a file or an empty folder; durable after SyncDir.
	Remove(name string) error
	// MkdirAll makes a folder with its parents and makes their names durable.
	MkdirAll(name string) error
	// ReadDir lists a folder in name order.
	ReadDir(name string) ([]Info, error)
	// Stat describes one file or folder.
	Stat(name string) (Info, error)
	// SyncDir makes the names in a folder durable.
	SyncDir(name string) error
	// Lock takes an exclusive advisory lock on a file, creating it, or fails with
	// ErrLocked at once. Closing the lock, and the end of the process, release it.
	Lock(name string) (io.Closer, error)
	// Space reports the room that is left.
	Space() (Space, error)
}

// File is an open file. ReadAt and WriteAt may be called concurrently, also on
// overlapping ranges, where the outcome is either order.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes everything written so far durable, with the file's length.
	Sync() error
	// Size is the file's length in bytes.
	Size() (int64, error)
	// Truncate sets the length in bytes.
	Truncate(size int64) error
	// Allocate reserves room for a range, growing the file to hold it. Where the
	// file system cannot reserve, it only grows the file.
	Allocate(offset, length int64) error
	// PunchHole returns a range's space; it reads as zeros afterwards. Where the
	// file system cannot, nothing happens.
	PunchHole(offset, length int64) error
	Close() error
}

// ReadFile returns a whole file, or an error if it is longer than limit bytes.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, more than the %d it may have", name, size, limit)
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// WriteFile replaces a file as a whole: after a crash it holds either the old or
// the new content. The new content is durable at return.
func WriteFile(fsys FS, name string, data []byte) (err error) {
	temporary := name + ".tmp"
	f, err := fsys.Open(temporary, Write|Create|Empty)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			fsys.Remove(temporary)
		}
	}()
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err = fsys.Rename(temporary, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// Copy copies one file from one FS to another, durable except for its name.
func Copy(dst FS, to string, src FS, from string) (err error) {
	in, err := src.Open(from, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	size, err := in.Size()
	if err != nil {
		return err
	}
	out, err := dst.Open(to, Write|Create|Empty)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	buf := make([]byte, 1<<20)
	for offset := int64(0); offset < size; {
		n, err := in.ReadAt(buf[:min(int64(len(buf)), size-offset)], offset)
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("copy %s: %w", from, err)
		}
		if _, err := out.WriteAt(buf[:n], offset); err != nil {
			return err
		}
		offset += int64(n)
	}
	return out.Sync()
}

// AlignedBuffer allocates n bytes whose address is a multiple of Alignment.
func AlignedBuffer(n int) []byte {
	buf := make([]byte, n+Alignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))) & (Alignment - 1)
	return buf[skip : skip+n : skip+n]
}

// Aligned returns the part of b that begins at a multiple of Alignment, which is
// empty if b ends before.
func Aligned(b []byte) []byte {
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % Alignment)
	return b[min(skip, len(b)):]
}

// Sub is the folder dir of fsys as a file system of its own. The folder must
// exist before a file in it is opened.
func Sub(fsys FS, dir string) FS { return &sub{fsys: fsys, dir: dir} }

type sub struct {
	fsys FS
	dir  string
}

func (s *sub) at(name string) string                     { return path.Join(s.dir, name) }
func (s *sub) Open(name string, mode Mode) (File, error) { return s.fsys.Open(s.at(name), mode) }
func (s *sub) Rename(from, to string) error              { return s.fsys.Rename(s.at(from), s.at(to)) }
func (s *sub) Remove(name string) error                  { return s.fsys.Remove(s.at(name)) }
func (s *sub) MkdirAll(name string) error                { return s.fsys.MkdirAll(s.at(name)) }
func (s *sub) ReadDir(name string) ([]Info, error)       { return s.fsys.ReadDir(s.at(name)) }
func (s *sub) Stat(name string) (Info, error)            { return s.fsys.Stat(s.at(name)) }
func (s *sub) SyncDir(name string) error                 { return s.fsys.SyncDir(s.at(name)) }
func (s *sub) Lock(name string) (io.Closer, error)       { return s.fsys.Lock(s.at(name)) }
func (s *sub) Space() (Space, error)                     { return s.fsys.Space() }

// clean returns the canonical form of a name, or an error for one that leaves
// the file system.
func clean(op, name string) (string, error) {
	c := path.Clean(name)
	if name == "" || c == ".." || strings.HasPrefix(c, "../") || strings.HasPrefix(c, "/") {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return c, nil
}
