package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/millrace/millrace/internal/objects/index"
	"github.com/millrace/millrace/internal/vfs"
)

// Checked is what Verify found out about one thing.
type Checked struct {
	// What is a file of the index, or a bucket, or an object or part that is
	// damaged.
	What    string
	Objects int64
	Bytes   int64
	Damage  error // nil if there is none
}

// Verify reads every byte of a store that nobody has open, and changes nothing.
// tell is called for the files of the index, for every bucket, and for whatever
// is damaged.
func Verify(ctx context.Context, fsys vfs.FS, tell func(Checked)) error {
	indexFiles := vfs.Sub(fsys, indexDir)
	whole := true
	err := index.Verify(indexFiles, func(file string, entries int64, damage error) {
		whole = whole && damage == nil
		tell(Checked{What: indexDir + "/" + file, Objects: entries, Damage: damage})
	})
	if err != nil || !whole {
		return err
	}
	x, err := index.Open(indexFiles, index.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer x.Close()
	s := &blobs{fs: vfs.Sub(fsys, dataDir), index: x}
	i := x.Iterate()
	defer i.Close()
	for ok := i.Seek("b\x00"); ok && strings.HasPrefix(i.Key(), "b\x00"); ok = i.Next() {
		if err := s.verifyBucket(ctx, i.Key()[2:], tell); err != nil {
			return err
		}
	}
	for ok := i.Seek("p\x00"); ok && strings.HasPrefix(i.Key(), "p\x00"); ok = i.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		segments, err := segmentsOf(i.Key(), i.Value())
		if err == nil {
			_, err = s.check(ctx, segments)
		}
		if err != nil {
			tell(Checked{What: "part " + strings.ReplaceAll(i.Key()[2:], "\x00", "/"), Damage: err})
		}
	}
	return i.Err()
}

func (s *blobs) verifyBucket(ctx context.Context, bucket string, tell func(Checked)) error {
	sum := Checked{What: "bucket " + bucket}
	i := s.index.Iterate()
	defer i.Close()
	prefix := objectPrefix(bucket)
	for ok := i.Seek(prefix); ok && strings.HasPrefix(i.Key(), prefix); ok = i.Next() {
		var r objectRecord
		err := json.Unmarshal(i.Value(), &r)
		n := int64(0)
		if err == nil {
			n, err = s.check(ctx, r.Segments)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && n != r.Size {
			err = fmt.Errorf("%d bytes, not %d", n, r.Size)
		}
		sum.Objects++
		sum.Bytes += n
		if err != nil {
			tell(Checked{What: "object " + bucket + "/" + i.Key()[len(prefix):], Damage: err})
		}
	}
	if err := i.Err(); err != nil {
		return err
	}
	tell(sum)
	return nil
}

// check reads segments to their ends.
func (s *blobs) check(ctx context.Context, segments []segment) (int64, error) {
	size := int64(0)
	for _, seg := range segments {
		size += seg.Size
	}
	r := s.reader(ctx, segments, 0, size, func() {})
	n, err := io.Copy(io.Discard, r)
	return n, errors.Join(err, r.Close())
}
