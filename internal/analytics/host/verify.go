package host

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/millrace/millrace/internal/vfs"
)

// Verify reads every checkpoint in files, which no Host uses, and calls f for
// each with what is wrong with it, nil if nothing is. Those that a host has set
// aside are passed over. Steps in journals are looked at only when they are
// needed, and cut where they end.
func Verify(ctx context.Context, files vfs.FS, f func(name string, bytes int64, damage error)) error {
	list, err := files.ReadDir(".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	h := &Host{o: Options{Files: files}}
	for _, e := range list {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if base := strings.TrimSuffix(e.Name, previousSuffix); e.Dir || !strings.HasSuffix(base, fileName("")) {
			continue
		}
		_, snapshot, ok, err := h.load(e.Name)
		if !ok && err == nil {
			continue // gone meanwhile
		}
		f(e.Name, int64(len(snapshot)), err)
	}
	return nil
}
