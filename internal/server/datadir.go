package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/analytics/host"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/shardlog/local"
	"github.com/millrace/millrace/internal/vfs"
)

// metaDir and tlsDir are parts of a data directory beside the log's own files.
const (
	metaDir = "meta"
	tlsDir  = "tls"
)

// VerifyDirectory reads everything in a data directory that no server uses,
// checks it, and writes a line about each file to w. It changes nothing. The
// error says how much is damaged.
func VerifyDirectory(ctx context.Context, dir string, w io.Writer) error {
	if err := isDataDirectory(dir); err != nil {
		return err
	}
	files, records, damaged := 0, int64(0), 0
	named := map[string]bool{} // damaged files: they are looked at from more than one side
	err := local.Verify(ctx, vfs.OS(dir), func(c local.Checked) {
		if named[c.File] && len(c.Damage) == 0 {
			return
		}
		if !named[c.File] {
			files++
		}
		records += c.Records
		if len(c.Damage) == 0 {
			fmt.Fprintf(w, "ok       %s  %d bytes, %d records\n", c.File, c.Bytes, c.Records)
			return
		}
		if !named[c.File] {
			damaged++
		}
		named[c.File] = true
		for _, d := range c.Damage {
			fmt.Fprintf(w, "DAMAGED  %s  at offset %d: %s\n", d.File, d.Offset, d.Reason)
		}
	})
	if err != nil && damaged == 0 {
		return explainData(dir, err)
	}
	snapshots, err := meta.VerifySnapshots(vfs.Sub(vfs.OS(dir), metaDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		damaged++
		fmt.Fprintf(w, "DAMAGED  %s  %v\n", metaDir, err)
	} else {
		fmt.Fprintf(w, "ok       %s  %d snapshots\n", metaDir, snapshots)
	}
	if files, err = verifyObjects(ctx, dir, w, files, &damaged); err != nil {
		return err
	}
	err = host.Verify(ctx, vfs.Sub(vfs.OS(dir), applicationsDir), func(name string, bytes int64, damage error) {
		files++
		if damage != nil {
			damaged++
			fmt.Fprintf(w, "DAMAGED  %s/%s  %v; its application goes on from the checkpoint before\n", applicationsDir, name, damage)
			return
		}
		fmt.Fprintf(w, "ok       %s/%s  %d bytes of state\n", applicationsDir, name, bytes)
	})
	if err != nil {
		return explainData(dir, err)
	}
	if damaged > 0 {
		return fmt.Errorf("data directory %s: %d of %d files are damaged; restore a backup, or start once with --repair to isolate what is damaged and serve the rest", dir, damaged, files+1)
	}
	fmt.Fprintf(w, "%d files, %d records, no damage\n", files+1, records)
	return nil
}

// verifyObjects is VerifyDirectory for buckets, which there may be none of.
func verifyObjects(ctx context.Context, dir string, w io.Writer, files int, damaged *int) (int, error) {
	store := vfs.Sub(vfs.OS(dir), objectsDir)
	if _, err := store.Stat("."); errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	err := objects.Verify(ctx, store, func(c objects.Checked) {
		files++
		if c.Damage != nil {
			*damaged++
			fmt.Fprintf(w, "DAMAGED  %s/%s  %v\n", objectsDir, c.What, c.Damage)
			return
		}
		fmt.Fprintf(w, "ok       %s/%s  %d bytes, %d entries\n", objectsDir, c.What, c.Bytes, c.Objects)
	})
	if err != nil {
		return files, explainData(dir, err)
	}
	return files, nil
}

// CopyDirectory copies a data directory that no server uses to one that does not
// exist yet or is empty, and verifies the copy. It makes backups, and restores
// them. Damage is an error: a copy holds only what is whole.
// What a copy that fails has made is removed, so that it can be tried again.
func CopyDirectory(ctx context.Context, from, to string, w io.Writer) (err error) {
	if err := isDataDirectory(from); err != nil {
		return err
	}
	if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: name a directory that does not exist yet", to)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = os.Stat(to)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeCopy(to, made))
		}
	}()
	src, dst := vfs.OS(from), vfs.OS(to)
	// What is beside the log goes first: a log may be ahead of the metadata
	// snapshots it is copied with, not behind them.
	for _, dir := range []string{metaDir, tlsDir} {
		if err := copyFiles(ctx, dst, src, dir); err != nil {
			return fmt.Errorf("copy %s: %w", dir, err)
		}
	}
	for _, dir := range []string{objectsDir, applicationsDir} {
		if err := copyTree(ctx, dst, src, dir); err != nil {
			return fmt.Errorf("copy %s: %w", dir, err)
		}
	}
	err = vfs.Copy(dst, masterKeyFile, src, masterKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copy %s: %w", masterKeyFile, err)
	}
	if err := local.Backup(ctx, dst, src); err != nil {
		return explainData(from, err)
	}
	if err := dst.SyncDir("."); err != nil {
		return err
	}
	return VerifyDirectory(ctx, to, w)
}

// removeCopy empties a directory that was empty before, and removes it if it was made.
func removeCopy(dir string, made bool) error {
	if made {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// copyFiles copies the files of one directory, which may be missing.
func copyFiles(ctx context.Context, dst, src vfs.FS, dir string) error {
	files, err := src.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := dst.MkdirAll(dir); err != nil {
		return err
	}
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		name := dir + "/" + f.Name
		if err := vfs.Copy(dst, name, src, name); err != nil {
			return err
		}
	}
	return dst.SyncDir(dir)
}

// copyTree copies a directory with all below it; it may be missing.
func copyTree(ctx context.Context, dst, src vfs.FS, dir string) error {
	entries, err := src.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Dir {
			if err := copyTree(ctx, dst, src, dir+"/"+e.Name); err != nil {
				return err
			}
		}
	}
	if err := dst.MkdirAll(dir); err != nil {
		return err
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if e.Dir {
			continue
		}
		name := dir + "/" + e.Name
		if err := vfs.Copy(dst, name, src, name); err != nil {
			return err
		}
	}
	return dst.SyncDir(dir)
}

// isDataDirectory refuses what no server has written.
func isDataDirectory(dir string) error {
	if _, err := os.Stat(dir + "/MANIFEST"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not a data directory: it has no MANIFEST; name the one that serve was started with", dir)
		}
		return explainData(dir, err)
	}
	return nil
}
