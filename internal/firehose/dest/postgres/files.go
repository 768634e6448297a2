package postgres

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/millrace/millrace/internal/firehose/dest/loaded"
	"github.com/millrace/millrace/internal/firehose/record"
)

// File is an object whose rows are loaded.
type File struct {
	Name  string // s3://bucket/key
	Batch *record.Batch
	Open  func(ctx context.Context) (io.ReadCloser, error)
}

// errorsTable takes the rows that MAXERROR forgives, as the load errors of
// Redshift do.
const errorsTable = "millrace_load_errors"

// rawLine bounds what is kept of a refused row, in bytes.
const rawLine = 1024

// LoadFiles loads the rows of files in one transaction, which stands or falls as
// a whole: a row that cannot be loaded ends it, unless the options forgive that
// many. What is forgiven goes to the table millrace_load_errors.
func (d *Database) LoadFiles(ctx context.Context, t Target, files []File) (rows int, err error) {
	if t.Options.MaxErrors > 0 {
		if err := d.prepareErrors(ctx); err != nil {
			return 0, err
		}
	}
	f := &filesLoad{target: t}
	load, err := d.Begin(ctx, t, f.refused)
	if err != nil {
		return 0, err
	}
	defer load.Rollback()
	f.Load = load
	for _, file := range files {
		if err := f.file(file); err != nil {
			return 0, err
		}
	}
	if err := f.report(); err != nil {
		return 0, err
	}
	return load.rows, load.Commit()
}

func (d *Database) prepareErrors(ctx context.Context) error {
	d.mu.Lock()
	known := d.ledger[errorsTable]
	d.mu.Unlock()
	if known {
		return nil
	}
	_, err := d.pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+errorsTable+
		" (table_name text, object text, line bigint, raw_line text, reason text, at timestamptz NOT NULL DEFAULT now())")
	if err != nil {
		if server, ok := rowFault(err); !ok || server.Code != "23505" {
			return err
		}
	}
	d.mu.Lock()
	d.ledger[errorsTable] = true
	d.mu.Unlock()
	return nil
}

type filesLoad struct {
	*Load
	target  Target
	name    string // of the file
	errors  int
	reports [][]any
}

// refused counts a row that cannot be loaded.
func (f *filesLoad) refused(line int, raw []byte, err error) error {
	f.errors++
	code, message := explain(err)
	if f.errors >= max(1, f.target.Options.MaxErrors) {
		return &codedError{code, fmt.Sprintf("%s, row %d: %s", f.name, line, message)}
	}
	raw = bytes.ToValidUTF8(bytes.ReplaceAll(raw[:min(len(raw), rawLine)], []byte{0}, []byte("?")), []byte("?"))
	f.reports = append(f.reports, []any{f.target.Table, f.name, int64(line), string(raw), message})
	return nil
}

// report writes down the rows that were forgiven.
func (f *filesLoad) report() error {
	if err := f.flush(); err != nil {
		return err
	}
	for _, r := range f.reports {
		if _, err := f.tx.Exec(f.ctx, "INSERT INTO "+errorsTable+" (table_name, object, line, raw_line, reason) VALUES ($1, $2, $3, $4, $5)", r...); err != nil {
			return err
		}
	}
	f.reports = f.reports[:0]
	return nil
}

func (f *filesLoad) file(file File) error {
	f.name = file.Name
	var (
		skip  []section
		spans loaded.Spans
	)
	if f.target.Exactly != "" {
		earlier, err := f.Earlier(f.target.Exactly, file.Batch)
		if err != nil {
			return err
		}
		var offset int64
		err = file.Batch.Each(func(_ int, r *record.Record) error {
			end := offset + int64(len(r.Data))
			if !earlier.Has(r) {
				spans.Add(r)
			} else if n := len(skip); n > 0 && skip[n-1].end == offset {
				skip[n-1].end = end
			} else {
				skip = append(skip, section{offset, end})
			}
			offset = end
			return nil
		})
		if err != nil {
			return &bufferError{err}
		}
		if len(spans.List) == 0 {
			return nil
		}
	}
	body, err := file.Open(f.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	in, done, err := decompress(body, f.target.Options.Compression)
	if err != nil {
		return err
	}
	defer done()
	if len(skip) > 0 {
		in = &skipping{in: in, skip: skip}
	}
	reading := f.table.read(in)
	for {
		before := len(f.text)
		f.text, err = reading.next(f.text)
		var bad *rowError
		switch {
		case err == nil:
			err = f.add(reading.number, 1)
		case errors.Is(err, io.EOF):
			if err := f.flush(); err != nil { // while f.name is this file's
				return err
			}
			if f.target.Exactly != "" {
				return f.Remember(f.target.Exactly, file.Batch, file.Name, &spans)
			}
			return nil
		case errors.As(err, &bad):
			f.text = f.text[:before]
			err = f.refused(reading.number, reading.line, err)
		}
		if err == nil && len(f.reports) >= 1000 {
			err = f.report()
		}
		if err != nil {
			return err
		}
	}
}

// decompress undoes what the options say, if it was done.
func decompress(body io.Reader, how string) (in io.Reader, done func(), err error) {
	done = func() {}
	buffered := bufio.NewReaderSize(body, 64<<10)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, done, err
	}
	is := ""
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		is = "gzip"
	case bytes.HasPrefix(head, []byte("BZh")):
		is = "bzip2"
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		is = "zstd"
	}
	if is != how && !(len(head) == 0) && (how != "" || is == "gzip" || is == "zstd") {
		return nil, done, &codedError{"CompressionMismatch", fmt.Sprintf("the options of COPY say %s, the object is %s", orNone(how), orNone(is))}
	}
	switch how {
	case "gzip":
		if len(head) == 0 {
			return buffered, done, nil
		}
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, done, err
		}
		return z, done, nil
	case "bzip2":
		return bzip2.NewReader(buffered), done, nil
	case "zstd":
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, done, err
		}
		return z, z.Close, nil
	}
	return buffered, done, nil
}

func orNone(s string) string {
	if s == "" {
		return "not compressed"
	}
	return s
}

// section is a part of a file, in bytes.
type section struct{ begin, end int64 }

// skipping leaves sections out, which are in order.
type skipping struct {
	in   io.Reader
	skip []section
	at   int64
}

func (s *skipping) Read(p []byte) (int, error) {
	for len(s.skip) > 0 && s.at >= s.skip[0].begin {
		n, err := io.CopyN(io.Discard, s.in, s.skip[0].end-s.at)
		s.at += n
		if err != nil {
			return 0, err
		}
		s.skip = slices.Delete(s.skip, 0, 1)
	}
	if len(s.skip) > 0 {
		p = p[:min(int64(len(p)), s.skip[0].begin-s.at)]
	}
	n, err := s.in.Read(p)
	s.at += int64(n)
	return n, err
}

// Exec runs one statement, and refuses what holds several.
func (d *Database) Exec(ctx context.Context, sql string) error {
	c, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	_, err = c.Conn().PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Close()
	return err
}
