// Package file delivers to files below a directory.
//
// The one idea: a directory is a bucket. Names, prefixes and formats are those of
// objects, from package s3; this package only puts bytes where nobody sees them
// half done: into a hidden file of a name that a repeated attempt uses again,
// synced, and renamed. Nothing reaches outside the directory, whatever a
// partition key says: the operating system itself resolves every name below it.
//
// With Keep, the oldest files go when there are too many, each time one is
// written and at the start; the newest stays. A file that does not
// have the name of an object is never touched.
package file

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/objects"
)

// Config is a destination that an operator defines.
type Config struct {
	// Directory is where files go; it is made if it is not there.
	Directory string `yaml:"directory"`
	// Prefix is a prefix expression, with the date appended if it has none.
	Prefix string `yaml:"prefix"`
	// TimeZone of timestamps in names; empty is UTC.
	TimeZone string `yaml:"time_zone"`
	// Compression is one of UNCOMPRESSED, GZIP, ZIP, Snappy, HADOOP_SNAPPY, ZSTD.
	Compression string `yaml:"compression"`
	// Extension, if not empty, is what names end with.
	Extension string `yaml:"extension"`
	// Delimiter is written behind every record that does not end with it;
	// "\n" makes lines.
	Delimiter string `yaml:"delimiter"`
	// Keep bounds what stays; the zero value keeps all.
	Keep Keep `yaml:"keep"`
}

// Keep is how much stays in the directory. A zero member sets no bound.
type Keep struct {
	Files int           `yaml:"files"`
	Bytes int64         `yaml:"bytes"`
	Age   time.Duration `yaml:"age"`
}

// Destination writes files. It implements dest.Destination.
type Destination struct {
	*s3.Destination
	store *store
}

// New opens the directory. converter may be nil.
func New(c Config, converter s3.Converter) (*Destination, error) {
	location, err := naming.LoadLocation(c.TimeZone)
	if err != nil {
		return nil, err
	}
	prefix, err := naming.ParsePrefix(c.Prefix, naming.Options{Location: location})
	if err != nil {
		return nil, fmt.Errorf("prefix %q: %w", c.Prefix, err)
	}
	format, err := compress.Parse(c.Compression)
	if err != nil {
		return nil, err
	}
	if c.Directory == "" {
		return nil, errors.New("a file destination needs a directory")
	}
	if c.Keep.Files < 0 || c.Keep.Bytes < 0 || c.Keep.Age < 0 {
		return nil, errors.New("keep cannot be negative")
	}
	directory, err := filepath.Abs(c.Directory)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", c.Directory, err)
	}
	if err := os.MkdirAll(directory, 0o750); err != nil {
		return nil, fmt.Errorf("make %s: %w", directory, err)
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", directory, err)
	}
	s := &store{root: root, keep: c.Keep, now: time.Now}
	if err := s.scan(); err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("read %s: %w", directory, err)
	}
	base := filepath.ToSlash(directory)
	return &Destination{
		Destination: s3.New(s3.Config{
			Store: s, Base: "file://" + strings.TrimSuffix(base, "/") + "/", Prefix: prefix, Location: location,
			Compression: format, Extension: c.Extension, Converter: converter, Delimiter: []byte(c.Delimiter),
		}),
		store: s,
	}, nil
}

// Close closes the directory.
func (d *Destination) Close() error { return d.store.root.Close() }

// store is the directory as a store.
type store struct {
	root *os.Root
	keep Keep
	now  func() time.Time

	mu    sync.Mutex
	kept  oldest // only with bounds
	sizes map[string]int64
	bytes int64
}

// Put writes a file.
func (s *store) Put(ctx context.Context, _, key string, body io.Reader, _ int64, _ objects.PutOptions) (objects.Info, error) {
	name := fileName(key)
	size, err := s.write(ctx, name, body)
	if err != nil {
		if ctx.Err() != nil {
			return objects.Info{}, ctx.Err()
		}
		return objects.Info{}, failure(err)
	}
	s.note(name, size, s.now())
	return objects.Info{Key: key, Size: size}, nil
}

// fileName makes a path of a key. Parts that mean something to a file system are
// written so that they do not, and hidden ones so that they show.
func fileName(key string) string {
	parts := strings.Split(strings.ReplaceAll(key, "\x00", "%00"), "/")
	kept := parts[:0]
	for _, p := range parts {
		if p == "" {
			continue
		}
		if p[0] == '.' {
			p = "%2E" + p[1:]
			if p == "%2E." {
				p = "%2E%2E"
			}
		}
		kept = append(kept, p)
	}
	return strings.Join(kept, "/")
}

// write makes the file appear, whole and durable.
func (s *store) write(ctx context.Context, name string, body io.Reader) (size int64, err error) {
	directory, base := path.Split(name)
	directory = path.Clean(directory)
	made, err := s.makeDirectory(directory)
	if err != nil {
		return 0, err
	}
	hidden := path.Join(directory, "."+base[max(0, len(base)-200):]+".tmp")
	f, err := s.root.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(f, body)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	err = cmp.Or(err, f.Close())
	if err == nil {
		err = s.root.Rename(hidden, name)
	}
	if err != nil {
		_ = s.root.Remove(hidden) // else the next attempt overwrites it
		return 0, err
	}
	for d := directory; ; d = path.Dir(d) {
		if err := s.sync(d); err != nil {
			return 0, err
		}
		if d == "." || !made {
			return size, nil
		}
	}
}

// makeDirectory makes a directory and says whether it was not there.
func (s *store) makeDirectory(name string) (made bool, err error) {
	if info, err := s.root.Stat(name); err == nil && info.IsDir() {
		return false, nil
	}
	return true, s.root.MkdirAll(name, 0o750)
}

func (s *store) sync(directory string) error {
	d, err := s.root.Open(directory)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}

// failure makes an error of the operating system the destination's.
func failure(err error) error {
	var known *dest.Error
	if errors.As(err, &known) {
		return err
	}
	e := &dest.Error{Code: "File.WriteFailed", Message: err.Error(), Err: err}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Code = "File.NoSpace"
	case errors.Is(err, fs.ErrPermission):
		e.Code = "File.AccessDenied"
	case errors.Is(err, syscall.ENAMETOOLONG):
		e.Code, e.Permanent = "File.NameTooLong", true
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		e.Code = "File.NotADirectory"
	}
	return e
}

// objectName matches what naming.ObjectName makes.
var objectName = regexp.MustCompile(`^[a-zA-Z0-9_.-]+-\d+-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(\.[0-9A-Za-z!\-_.*'()]+)?$`)

// entry is a file that counts against the bounds.
type entry struct {
	name     string
	size     int64
	modified time.Time
}

// oldest is a heap of files, the oldest first.
type oldest []entry

func (o oldest) Len() int           { return len(o) }
func (o oldest) Less(i, j int) bool { return o[i].modified.Before(o[j].modified) }
func (o oldest) Swap(i, j int)      { o[i], o[j] = o[j], o[i] }

// Push implements heap.Interface.
func (o *oldest) Push(x any) { *o = append(*o, x.(entry)) }

// Pop implements heap.Interface.
func (o *oldest) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}

func (s *store) bounded() bool { return s.keep != Keep{} }

// scan finds the files of earlier runs, and removes those that are too many.
func (s *store) scan() error {
	if !s.bounded() {
		return nil
	}
	s.sizes = map[string]int64{}
	var newest entry
	err := fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !objectName.MatchString(d.Name()) {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		e := entry{name, info.Size(), info.ModTime()}
		if e.modified.After(newest.modified) {
			newest = e
		}
		s.kept = append(s.kept, e)
		s.sizes[name] = info.Size()
		s.bytes += info.Size()
		return nil
	})
	heap.Init(&s.kept)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pruneLocked(newest.name)
	}
	return err
}

// note counts a file that was written, and removes the oldest ones.
func (s *store) note(name string, size int64, at time.Time) {
	if !s.bounded() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.sizes[name]
	s.bytes += size - before
	s.sizes[name] = size
	if !known {
		heap.Push(&s.kept, entry{name, size, at})
	}
	s.pruneLocked(name)
}

// pruneLocked removes files until the bounds hold, but not the newest. A file
// that cannot be removed is forgotten: it must not stop what comes after it.
func (s *store) pruneLocked(newest string) {
	for len(s.kept) > 0 && s.kept[0].name != newest {
		first := s.kept[0]
		if !(s.keep.Files > 0 && len(s.kept) > s.keep.Files ||
			s.keep.Bytes > 0 && s.bytes > s.keep.Bytes ||
			s.keep.Age > 0 && s.now().Sub(first.modified) > s.keep.Age) {
			return
		}
		heap.Pop(&s.kept)
		s.bytes -= s.sizes[first.name]
		delete(s.sizes, first.name)
		if s.root.Remove(first.name) != nil {
			continue
		}
		for d := path.Dir(first.name); d != "."; d = path.Dir(d) {
			if s.root.Remove(d) != nil { // not empty
				break
			}
		}
	}
}
