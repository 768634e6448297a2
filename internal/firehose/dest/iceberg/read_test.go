package iceberg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"testing"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

// lakeFiles shows an object store to the library that reads what was written.
type lakeFiles struct{ *files }

func (f lakeFiles) Open(name string) (iceio.File, error) {
	data, err := f.read(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.Join(fs.ErrNotExist, err)}
	}
	return lakeFile{bytes.NewReader(data), name}, nil
}

func (f lakeFiles) Remove(string) error { return errors.ErrUnsupported }

type lakeFile struct {
	*bytes.Reader
	name string
}

func (f lakeFile) Close() error               { return nil }
func (f lakeFile) Stat() (fs.FileInfo, error) { return lakeInfo{f}, nil }

type lakeInfo struct{ lakeFile }

func (f lakeInfo) Name() string       { return path.Base(f.name) }
func (f lakeInfo) Mode() fs.FileMode  { return 0o444 }
func (f lakeInfo) ModTime() time.Time { return time.Time{} }
func (f lakeInfo) IsDir() bool        { return false }
func (f lakeInfo) Sys() any           { return nil }

var _ io.ReaderAt = lakeFile{}

// library is a table as Apache's library for Go finds it, which has no part in
// the writing.
func library(t *testing.T, d *Destination, id table.Identifier) *table.Table {
	t.Helper()
	found, err := d.catalog.load(t.Context(), id[0], id[1])
	if err != nil {
		t.Fatal(err)
	}
	text, err := found.meta.text()
	if err != nil {
		t.Fatal(err)
	}
	m, err := table.ParseMetadataBytes(text)
	if err != nil {
		t.Fatalf("the library refuses the metadata: %v\n%s", err, text)
	}
	return table.New(id, m, found.address, func(ctx context.Context) (iceio.IO, error) {
		return lakeFiles{&files{ctx: ctx, store: d.deps.Store}}, nil
	}, nil)
}

// read returns the rows of a table as the library sees them, as JSON objects.
func read(t *testing.T, d *Destination, id table.Identifier) []map[string]any {
	t.Helper()
	_, batches, err := library(t, d, id).Scan().ToArrowRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	for b, err := range batches {
		if err != nil {
			t.Fatal(err)
		}
		text, err := b.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var part []map[string]any
		if err := json.Unmarshal(text, &part); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, part...)
		b.Release()
	}
	return rows
}
