package reliability

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// disk is a file system of its own for a data directory. It can be full, while a
// server writes to it, without harm to anything else.
type disk struct {
	dir string

	mu      sync.Mutex
	ballast *os.File
}

// startDisk mounts a disk of so many bytes, of which only those take room that are
// written. It returns nil where that is not allowed.
func startDisk(t *testing.T, bytes int64) *disk {
	t.Helper()
	folder := t.TempDir()
	image, dir := filepath.Join(folder, "image"), filepath.Join(folder, "disk")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, bytes), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Logf("there is no disk to fill: %v: %v: %s", command, err, out)
			return nil
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{dir: dir, ballast: ballast}
	t.Cleanup(func() { ballast.Close() }) // before it is unmounted
	return d
}

// fill leaves so many bytes free, or as many as there are.
func (d *disk) fill(leave int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range 100 { // the server writes meanwhile
		var s syscall.Statfs_t
		if err := syscall.Statfs(d.dir, &s); err != nil {
			return err
		}
		more := int64(s.Bavail)*s.Bsize - leave
		if more < 64<<10 {
			return nil
		}
		info, err := d.ballast.Stat()
		if err != nil {
			return err
		}
		// What is asked for is taken in part, or not at all.
		if err := syscall.Fallocate(int(d.ballast.Fd()), 0, info.Size(), more); errors.Is(err, syscall.ENOSPC) {
			err = syscall.Fallocate(int(d.ballast.Fd()), 0, info.Size(), max(more/2, 4<<10))
			if err != nil && !errors.Is(err, syscall.ENOSPC) {
				return err
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// empty gives the space back.
func (d *disk) empty() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ballast.Truncate(0)
}
