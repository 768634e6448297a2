package vfs

import (
	"errors"
	"os"
	"syscall"
)

const (
	directFlags  = syscall.O_DIRECT | syscall.O_DSYNC
	uncachedFlag = syscall.O_DIRECT
)

const (
	fallocKeepSize  = 0x1
	fallocPunchHole = 0x2
)

func control(f *os.File, op func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	if err := c.Control(func(fd uintptr) {
		for {
			if opErr = op(int(fd)); opErr != syscall.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return opErr
}

func dataSync(f *os.File) error { return control(f, syscall.Fdatasync) }

// leaveDirect turns the cache bypass off. O_DSYNC cannot be changed on an open
// file and stays, which costs nothing.
func leaveDirect(f *os.File) error {
	return control(f, func(fd int) error {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
		if errno != 0 {
			return errno
		}
		_, _, errno = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFL, flags&^syscall.O_DIRECT)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

func unsupported(err error) bool {
	return errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}

func allocate(f *os.File, offset, length int64) error {
	err := control(f, func(fd int) error { return syscall.Fallocate(fd, 0, offset, length) })
	if unsupported(err) {
		return grow(f, offset+length)
	}
	return err
}

func punchHole(f *os.File, offset, length int64) error {
	err := control(f, func(fd int) error {
		return syscall.Fallocate(fd, fallocPunchHole|fallocKeepSize, offset, length)
	})
	if unsupported(err) {
		return nil
	}
	return err
}
