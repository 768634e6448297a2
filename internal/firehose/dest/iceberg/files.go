package iceberg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/objects"
)

// files is the object store for as long as a context lives. Names are addresses:
// s3://bucket/key.
type files struct {
	ctx   context.Context
	store objects.Store

	mu    sync.Mutex
	bytes int64    // what was written
	names []string // its addresses
}

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

// maxWhole bounds what is read at once: metadata and manifest lists, in bytes.
const maxWhole = 512 << 20

// read answers an object's content.
func (f *files) read(address string) ([]byte, error) {
	bucket, key, err := split(address)
	if err != nil {
		return nil, err
	}
	body, info, err := f.store.Get(f.ctx, bucket, key, objects.Range{})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	defer func() { _ = body.Close() }()
	if info.Size > maxWhole {
		return nil, fmt.Errorf("read %s: the object is too large", address)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxWhole))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	return data, nil
}

// write stores an object.
func (f *files) write(address string, data []byte) error {
	bucket, key, err := split(address)
	if err != nil {
		return err
	}
	if _, err := f.store.Put(f.ctx, bucket, key, bytes.NewReader(data), int64(len(data)), objects.PutOptions{}); err != nil {
		return fmt.Errorf("write %s: %w", address, err)
	}
	f.wrote(address, int64(len(data)))
	return nil
}

func (f *files) wrote(address string, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += size
	f.names = append(f.names, address)
}

// cleanTime bounds removing what a failed attempt has written.
const cleanTime = 10 * time.Second

// clean removes what was written, as far as it can.
func (f *files) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), cleanTime)
	defer cancel()
	f.mu.Lock()
	names := f.names
	f.names = nil
	f.mu.Unlock()
	for _, name := range names {
		if bucket, key, err := split(name); err == nil {
			_ = f.store.Delete(ctx, bucket, key) // what stays is an orphan, which no reader sees
		}
	}
}

// discard removes one object that was written, as far as it can.
func (f *files) discard(address string) {
	if bucket, key, err := split(address); err == nil && f.store.Delete(f.ctx, bucket, key) == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.names = slices.DeleteFunc(f.names, func(name string) bool { return name == address })
	}
}

// create begins an object, which appears when its writer is closed.
func (f *files) create(address string) (*writer, error) {
	bucket, key, err := split(address)
	if err != nil {
		return nil, err
	}
	in, out := io.Pipe()
	w := &writer{out: out}
	w.putting.Go(func() {
		info, err := f.store.Put(f.ctx, bucket, key, in, -1, objects.PutOptions{})
		if err != nil {
			w.err = fmt.Errorf("create %s: %w", address, err)
		} else {
			w.size = info.Size
			f.wrote(address, info.Size)
		}
		_ = in.CloseWithError(err) // a writer that goes on is told why
	})
	return w, nil
}

// writer is an object in the making.
type writer struct {
	out     *io.PipeWriter
	putting sync.WaitGroup
	size    int64 // once putting has ended
	err     error // of the store, once putting has ended
}

func (w *writer) Write(p []byte) (int, error) { return w.out.Write(p) }

// Close ends the object, once; the store's error is repeated after that.
func (w *writer) Close() error {
	_ = w.out.Close()
	w.putting.Wait()
	return w.err
}

var errAbandoned = errors.New("the object is abandoned")

// abandon ends the object without making it.
func (w *writer) abandon() {
	_ = w.out.CloseWithError(errAbandoned)
	w.putting.Wait()
}
