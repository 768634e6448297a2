package iceberg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	iceio "github.com/apache/iceberg-go/io"

	"github.com/millrace/millrace/internal/objects"
)

// files shows an object store to the library, for as long as a context lives.
// Names are addresses: s3://bucket/key.
type files struct {
	ctx   context.Context
	store objects.Store
	tally *tally // may be nil
}

// tally counts what is written.
type tally struct {
	mu    sync.Mutex
	bytes int64
	names []string
}

var (
	_ iceio.WriteFileIO = (*files)(nil)
	_ iceio.ReadFileIO  = (*files)(nil)
)

// split takes an address apart.
func split(address string) (bucket, key string, err error) {
	for _, scheme := range []string{"s3://", "s3a://", "s3n://"} {
		if rest, ok := strings.CutPrefix(address, scheme); ok {
			if bucket, key, ok := strings.Cut(rest, "/"); ok && bucket != "" && key != "" {
				return bucket, key, nil
			}
		}
	}
	return "", "", fmt.Errorf("%q is no address of an object, s3://bucket/key", address)
}

// pathError is what the library expects: a missing object is fs.ErrNotExist.
func pathError(operation, name string, err error) error {
	if code := objects.Code(err); code == objects.CodeNoSuchKey {
		err = errors.Join(fs.ErrNotExist, err)
	}
	return &fs.PathError{Op: operation, Path: name, Err: err}
}

// Open implements iceio.IO.
func (f *files) Open(name string) (iceio.File, error) {
	bucket, key, err := split(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	info, err := f.store.Head(f.ctx, bucket, key)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &file{files: f, bucket: bucket, key: key, info: info}, nil
}

// maxWhole bounds what ReadFile reads: metadata and manifests.
const maxWhole = 512 << 20

// ReadFile implements iceio.ReadFileIO.
func (f *files) ReadFile(name string) ([]byte, error) {
	bucket, key, err := split(name)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	body, info, err := f.store.Get(f.ctx, bucket, key, objects.Range{})
	if err != nil {
		return nil, pathError("read", name, err)
	}
	defer func() { _ = body.Close() }()
	if info.Size > maxWhole {
		return nil, pathError("read", name, errors.New("the object is too large"))
	}
	data, err := io.ReadAll(io.LimitReader(body, maxWhole))
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

// Remove implements iceio.IO.
func (f *files) Remove(name string) error {
	bucket, key, err := split(name)
	if err == nil {
		err = f.store.Delete(f.ctx, bucket, key)
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	return nil
}

// WriteFile implements iceio.WriteFileIO.
func (f *files) WriteFile(name string, data []byte) error {
	bucket, key, err := split(name)
	if err == nil {
		_, err = f.store.Put(f.ctx, bucket, key, bytes.NewReader(data), int64(len(data)), objects.PutOptions{})
	}
	if err != nil {
		return pathError("write", name, err)
	}
	f.wrote(name, int64(len(data)))
	return nil
}

func (f *files) wrote(name string, size int64) {
	if f.tally == nil {
		return
	}
	f.tally.mu.Lock()
	defer f.tally.mu.Unlock()
	f.tally.bytes += size
	f.tally.names = append(f.tally.names, name)
}

// cleanTime bounds removing what a failed attempt has written.
const cleanTime = 10 * time.Second

// clean removes what was written, as far as it can.
func (f *files) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), cleanTime)
	defer cancel()
	f.tally.mu.Lock()
	names := f.tally.names
	f.tally.names = nil
	f.tally.mu.Unlock()
	for _, name := range names {
		if bucket, key, err := split(name); err == nil {
			_ = f.store.Delete(ctx, bucket, key) // what stays is an orphan, which no reader sees
		}
	}
}

// Create implements iceio.WriteFileIO. The object appears when the writer is
// closed.
func (f *files) Create(name string) (iceio.FileWriter, error) {
	bucket, key, err := split(name)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	in, out := io.Pipe()
	w := &writer{out: out}
	w.putting.Go(func() {
		info, err := f.store.Put(f.ctx, bucket, key, in, -1, objects.PutOptions{})
		if err != nil {
			w.err = pathError("create", name, err)
		} else {
			f.wrote(name, info.Size)
		}
		_ = in.CloseWithError(err) // a writer that goes on is told why
	})
	return w, nil
}

// writer is an object in the making.
type writer struct {
	out     *io.PipeWriter
	putting sync.WaitGroup
	err     error // of the store, once putting has ended
}

func (w *writer) Write(p []byte) (int, error) { return w.out.Write(p) }

func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w.out}, r)
}

// Close ends the object, once; the store's error is repeated after that.
func (w *writer) Close() error {
	_ = w.out.Close()
	w.putting.Wait()
	return w.err
}

// file reads an object, piece by piece as it is asked for.
type file struct {
	*files
	bucket, key string
	info        objects.Info
	at          int64
	ahead       []byte // what was read from at on and not yet taken
}

// readAhead is how much a sequential reader fetches at a time.
const readAhead = 256 << 10

func (f *file) Read(p []byte) (int, error) {
	if len(f.ahead) == 0 {
		if f.at >= f.info.Size {
			return 0, io.EOF
		}
		buffer := make([]byte, min(max(readAhead, int64(len(p))), f.info.Size-f.at))
		n, err := f.ReadAt(buffer, f.at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		f.ahead = buffer[:n]
	}
	n := copy(p, f.ahead)
	f.ahead = f.ahead[n:]
	f.at += int64(n)
	return n, nil
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("negative offset")
	}
	if offset >= f.info.Size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	short := int64(len(p)) > f.info.Size-offset
	if short {
		p = p[:f.info.Size-offset]
	}
	body, _, err := f.store.Get(f.ctx, f.bucket, f.key, objects.Range{Offset: offset, Length: int64(len(p))})
	if err != nil {
		return 0, pathError("read", f.key, err)
	}
	defer func() { _ = body.Close() }()
	n, err := io.ReadFull(body, p)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.info.Size
	}
	if offset < 0 {
		return 0, errors.New("negative offset")
	}
	if offset != f.at {
		f.at, f.ahead = offset, nil
	}
	return offset, nil
}

func (f *file) Close() error { return nil }

// Stat implements fs.File.
func (f *file) Stat() (fs.FileInfo, error) { return stat{f}, nil }

type stat struct{ f *file }

func (s stat) Name() string       { return path.Base(s.f.key) }
func (s stat) Size() int64        { return s.f.info.Size }
func (s stat) Mode() fs.FileMode  { return 0o444 }
func (s stat) ModTime() time.Time { return s.f.info.Modified }
func (s stat) IsDir() bool        { return false }
func (s stat) Sys() any           { return nil }
