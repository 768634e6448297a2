package desttest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/objects"
)

// Store keeps objects in memory, in buckets that need not be made. It is for
// tests of what is done with objects, not of storing them.
type Store struct {
	// Fail, if set, may refuse a call: operation is put, get, head, delete or list.
	Fail func(operation, bucket, key string) error
	// After, if set, may lose the answer to a call that was carried out.
	After func(operation, bucket, key string) error

	mu      sync.Mutex
	objects map[string][]byte
}

func (s *Store) refused(operation, bucket, key string) error {
	if s.Fail == nil {
		return nil
	}
	return s.Fail(operation, bucket, key)
}

// Put implements objects.Store.
func (s *Store) Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o objects.PutOptions) (objects.Info, error) {
	if err := s.refused("put", bucket, key); err != nil {
		return objects.Info{}, err
	}
	data, err := io.ReadAll(body)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return objects.Info{}, err
	}
	if size >= 0 && size != int64(len(data)) {
		return objects.Info{}, &objects.Error{Code: objects.CodeIncompleteBody, Status: http.StatusBadRequest}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects == nil {
		s.objects = map[string][]byte{}
	}
	if _, ok := s.objects[bucket+"/"+key]; ok && o.IfAbsent {
		return objects.Info{}, &objects.Error{Code: objects.CodePrecondition, Status: http.StatusPreconditionFailed}
	}
	s.objects[bucket+"/"+key] = data
	if s.After != nil {
		if err := s.After("put", bucket, key); err != nil {
			return objects.Info{}, err
		}
	}
	return objects.Info{Key: key, Size: int64(len(data)), Modified: time.Now()}, nil
}

// Get implements objects.Store.
func (s *Store) Get(ctx context.Context, bucket, key string, r objects.Range) (io.ReadCloser, objects.Info, error) {
	info, err := s.head(ctx, "get", bucket, key)
	if err != nil {
		return nil, info, err
	}
	s.mu.Lock()
	data := s.objects[bucket+"/"+key]
	s.mu.Unlock()
	offset := r.Offset
	if offset < 0 {
		offset = max(0, int64(len(data))+offset)
	}
	if offset > int64(len(data)) {
		return nil, info, &objects.Error{Code: objects.CodeInvalidRange, Status: http.StatusRequestedRangeNotSatisfiable}
	}
	data = data[offset:]
	if r.Length > 0 {
		data = data[:min(r.Length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), info, nil
}

// Head implements objects.Store.
func (s *Store) Head(ctx context.Context, bucket, key string) (objects.Info, error) {
	return s.head(ctx, "head", bucket, key)
}

func (s *Store) head(ctx context.Context, operation, bucket, key string) (objects.Info, error) {
	if err := s.refused(operation, bucket, key); err != nil {
		return objects.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.objects[bucket+"/"+key]
	if !ok {
		return objects.Info{}, &objects.Error{Code: objects.CodeNoSuchKey, Status: http.StatusNotFound, Message: "The specified key does not exist."}
	}
	return objects.Info{Key: key, Size: int64(len(data))}, ctx.Err()
}

// Delete implements objects.Store.
func (s *Store) Delete(ctx context.Context, bucket, key string) error {
	if err := s.refused("delete", bucket, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, bucket+"/"+key)
	return ctx.Err()
}

// List implements objects.Store.
func (s *Store) List(ctx context.Context, bucket, prefix, after string, most int) ([]objects.Info, bool, error) {
	if err := s.refused("list", bucket, prefix); err != nil {
		return nil, false, err
	}
	var found []objects.Info
	for _, key := range s.Keys(bucket) {
		if strings.HasPrefix(key, prefix) && key > after {
			if len(found) == most {
				return found, true, nil
			}
			info, err := s.head(ctx, "list", bucket, key)
			if err != nil {
				return nil, false, err
			}
			found = append(found, info)
		}
	}
	return found, false, ctx.Err()
}

// HeadBucket implements objects.Store: all buckets are there.
func (s *Store) HeadBucket(ctx context.Context, bucket string) error {
	if err := s.refused("head", bucket, ""); err != nil {
		return err
	}
	return ctx.Err()
}

// Keys are the names of a bucket's objects, in order.
func (s *Store) Keys(bucket string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for name := range s.objects {
		if key, ok := strings.CutPrefix(name, bucket+"/"); ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Object returns an object's bytes, nil if there is none.
func (s *Store) Object(bucket, key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[bucket+"/"+key]
}
