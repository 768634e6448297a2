package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files are the regular files below a directory, in order.
func files(t testing.TB, directory string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(directory, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			relative, _ := filepath.Rel(directory, name)
			names = append(names, filepath.ToSlash(relative))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func open(t testing.TB, c Config) *Destination {
	t.Helper()
	d, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestContract(t *testing.T) {
	desttest.Run(t, desttest.Harness{
		Codes:  []string{"File.", "InternalError"},
		Memory: 48 << 20,
		Faults: []desttest.Fault{desttest.Unavailable},
		Open: func(t *testing.T) *desttest.Peer {
			directory := filepath.Join(t.TempDir(), "files")
			return &desttest.Peer{
				Destination: open(t, Config{Directory: directory}),
				Stored: func(t *testing.T) []desttest.Entry {
					var found []desttest.Entry
					for _, name := range files(t, directory) {
						data, err := os.ReadFile(filepath.Join(directory, name))
						if err != nil {
							t.Fatal(err)
						}
						found = append(found, desttest.Parse(t, data)...)
					}
					return found
				},
				// A file stands where the directories of the batches go.
				Break: func(t *testing.T, _ desttest.Fault) func() {
					year := filepath.Join(directory, "2026")
					if err := os.Rename(year, year+"-away"); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
					if err := os.WriteFile(year, nil, 0o600); err != nil {
						t.Fatal(err)
					}
					return func() {
						if err := os.Remove(year); err != nil {
							t.Error(err)
						}
						if err := os.Rename(year+"-away", year); err != nil && !errors.Is(err, fs.ErrNotExist) {
							t.Error(err)
						}
					}
				},
			}
		},
	})
}

func batch(n int, at time.Time, keys *record.Keys, data string) *record.Batch {
	return record.Of(record.Stream{Name: "clicks", Version: 3}, fmt.Sprintf("%032x", n), record.Record{Data: []byte(data), Arrival: at.UnixMilli(), Keys: keys})
}

var at = time.Date(2026, 7, 13, 14, 5, 9, 0, time.UTC)

func TestLayout(t *testing.T) {
	directory := t.TempDir()
	d := open(t, Config{Directory: directory, Prefix: "logs/!{timestamp:yyyy-MM}/", TimeZone: "Asia/Tokyo", Compression: "GZIP", Extension: ".json.gz"})
	defer d.Close()
	result, err := d.Deliver(t.Context(), batch(7, at, nil, "x"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "logs/2026-07/clicks-3-2026-07-13-23-05-09-00000000-0000-0000-0000-000000000007.json.gz"
	if got := files(t, directory); len(got) != 1 || got[0] != want {
		t.Errorf("the directory holds %q", got)
	}
	if result.Objects[0].Name != "file://"+filepath.ToSlash(directory)+"/"+want {
		t.Errorf("the result names %s", result.Objects[0].Name)
	}
}

func TestNamesCannotLeave(t *testing.T) {
	for key, want := range map[string]string{
		"a/b":              "a/b",
		"/etc/passwd":      "etc/passwd",
		"../../etc/passwd": "%2E%2E/%2E%2E/etc/passwd",
		"a/../b":           "a/%2E%2E/b",
		"./a//b":           "%2E/a/b",
		".ssh/x\x00y":      "%2Essh/x%00y",
		"...":              "%2E..",
	} {
		if got := fileName(key); got != want {
			t.Errorf("%q becomes %q, want %q", key, got, want)
		}
	}
	outside := t.TempDir()
	directory := filepath.Join(outside, "files")
	d := open(t, Config{Directory: directory})
	defer d.Close()
	if err := os.Symlink(outside, filepath.Join(directory, "2026")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Deliver(t.Context(), batch(1, at, nil, "x")); err == nil {
		t.Error("a link leads out of the directory")
	}
	if got := files(t, outside); len(got) != 0 {
		t.Errorf("outside are %q", got)
	}
}

func TestWhatWasHalfWrittenIsReplaced(t *testing.T) {
	directory := t.TempDir()
	d := open(t, Config{Directory: directory, Prefix: "p/"})
	defer d.Close()
	const name = "clicks-3-2026-07-13-14-05-09-00000000-0000-0000-0000-000000000001"
	folder := filepath.Join(directory, "p/2026/07/13/14")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "."+name+".tmp"), []byte("half of a crashed attempt that was longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Deliver(t.Context(), batch(1, at, nil, "whole")); err != nil {
		t.Fatal(err)
	}
	if got := files(t, directory); len(got) != 1 {
		t.Errorf("the directory holds %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(data) != "whole" {
		t.Errorf("the file holds %q (%v)", data, err)
	}
}

func TestOldFilesGo(t *testing.T) {
	for _, c := range []struct {
		name string
		keep Keep
		want []int
	}{
		{"all", Keep{}, []int{0, 1, 2, 3, 4}},
		{"three files", Keep{Files: 3}, []int{2, 3, 4}},
		{"250 bytes", Keep{Bytes: 250}, []int{3, 4}},
		{"less than one", Keep{Bytes: 1}, []int{4}},
		{"by age", Keep{Age: 90 * time.Minute}, []int{3, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			directory := t.TempDir()
			if err := os.WriteFile(filepath.Join(directory, "mine.txt"), []byte("stays"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := open(t, Config{Directory: directory, Keep: c.keep})
			var clock atomic.Int64
			d.store.now = func() time.Time { return time.Unix(0, clock.Load()) }
			for n := range 5 {
				clock.Store(at.Add(time.Duration(n) * time.Hour).UnixNano())
				for range 2 { // the second attempt counts as one file
					if _, err := d.Deliver(t.Context(), batch(n, at.Add(time.Duration(n)*time.Hour), nil, strings.Repeat("x", 100))); err != nil {
						t.Fatal(err)
					}
				}
			}
			check := func() {
				t.Helper()
				var want []string
				for _, n := range c.want {
					want = append(want, fmt.Sprintf("2026/07/13/%02d/clicks-3-2026-07-13-%02d-05-09-00000000-0000-0000-0000-%012d", 14+n, 14+n, n))
				}
				if got := files(t, directory); !slices.Equal(got, append(want, "mine.txt")) {
					t.Errorf("kept are %q, want %q", got, want)
				}
			}
			check()
			folders, err := os.ReadDir(filepath.Join(directory, "2026/07/13"))
			if err != nil || len(folders) != len(c.want) {
				t.Errorf("%d folders are left (%v)", len(folders), err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if c.keep.Age == 0 { // a start counts what is there
				if err := open(t, Config{Directory: directory, Keep: c.keep}).Close(); err != nil {
					t.Fatal(err)
				}
				check()
			}
		})
	}
}

func TestErrorsOfTheSystem(t *testing.T) {
	for _, c := range []struct {
		err       error
		code      string
		permanent bool
	}{
		{&fs.PathError{Op: "write", Err: syscall.ENOSPC}, "File.NoSpace", false},
		{&fs.PathError{Op: "open", Err: syscall.EACCES}, "File.AccessDenied", false},
		{&fs.PathError{Op: "open", Err: syscall.ENAMETOOLONG}, "File.NameTooLong", true},
		{&fs.PathError{Op: "mkdir", Err: syscall.ENOTDIR}, "File.NotADirectory", false},
		{errors.New("boom"), "File.WriteFailed", false},
	} {
		var e *dest.Error
		if !errors.As(failure(c.err), &e) || e.Code != c.code || e.Permanent != c.permanent || !errors.Is(e, c.err) {
			t.Errorf("%v became %+v", c.err, e)
		}
	}
}

func TestBadConfigurations(t *testing.T) {
	directory := t.TempDir()
	taken := filepath.Join(directory, "taken")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, "needs a directory"},
		{Config{Directory: taken}, "make "},
		{Config{Directory: directory, Prefix: "!{x}"}, "Invalid expression usage"},
		{Config{Directory: directory, TimeZone: "Mars"}, "not a time zone"},
		{Config{Directory: directory, Compression: "RAR"}, "is none of"},
		{Config{Directory: directory, Keep: Keep{Files: -1}}, "cannot be negative"},
	} {
		if d, err := New(c.config, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v, want %q", c.config, d, err, c.want)
		}
	}
}
