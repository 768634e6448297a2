package server

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/vfs"
)

// explainData turns what opening a data directory can fail with into one line
// that says what to do next.
func explainData(dir string, err error) error {
	var corrupt *driver.CorruptError
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return fmt.Errorf("data directory %s is in use by another process; stop it, or name another directory with --data", dir)
	case errors.Is(err, driver.ErrNewerVersion):
		return fmt.Errorf("data directory %s was written by a newer version of millrace; start that version, or name another directory with --data", dir)
	case errors.As(err, &corrupt):
		return fmt.Errorf("data directory %s is damaged: %w; `millrace verify --data %s` lists what is, --repair starts with what is whole, `millrace restore` brings a backup back", dir, err, dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("data directory %s: permission denied; give it to the user that runs millrace, or name another with --data", dir)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("data directory %s: is not a directory; name another with --data", dir)
	case vfs.IsNoSpace(err):
		return fmt.Errorf("data directory %s: no space left on the disk", dir)
	}
	return fmt.Errorf("data directory %s: %w", dir, err)
}

func explainListen(key, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is taken by another process; stop it, or choose another address with --%s", key, address, key)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %s needs privileges to listen on; choose a port from 1024 up with --%s", key, address, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is not an address of this machine; choose another with --%s", key, address, key)
	}
	return fmt.Errorf("%s: %s: %w", key, address, err)
}
