package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// NTFS keeps a journal of its folders, which nobody can sync.
func syncDir(p string) error {
	_, err := os.Stat(p)
	return err
}

// lock takes a file that no other process has, or ErrLocked.
func lock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	return err
}

func space(dir string) (s Space, err error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return s, err
	}
	return s, windows.GetDiskFreeSpaceEx(p, &s.Free, &s.Total, nil)
}
