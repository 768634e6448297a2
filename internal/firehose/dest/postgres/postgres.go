// Package postgres delivers records as rows of a table of PostgreSQL or a
// server that speaks its protocol, and lends its loading to package redshift.
//
// The one idea: a batch is one transaction. Its records become lines of COPY's
// text format, are sent with COPY FROM STDIN in pieces behind savepoints, so
// that a record which the server refuses is found and told apart; and a row in
// a table of the same database says which records were loaded. So a batch that
// is delivered again, whole or sealed differently after a crash, loads only what
// is not there: every record arrives exactly once.
//
// Records are read by the options of Redshift's COPY, JSON by default. A record
// is stored or refused as a whole, also where it holds several rows.
//
// Start at Destination.Deliver; load.go has the transaction, rows.go the
// layouts, options.go the language of options, database.go connections and
// what their errors are called.
package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/loaded"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Config is a destination of type postgresql in the operator's file.
type Config struct {
	// DSN is a connection string: postgres://user:password@host:5432/database?sslmode=require.
	DSN string `yaml:"dsn"`
	// Table is the table's name as in SQL, with its schema if need be.
	Table string `yaml:"table"`
	// Columns lists the columns to load as in SQL; empty is all that the server
	// does not number by itself.
	Columns string `yaml:"columns"`
	// Options are those of COPY in Redshift; empty is JSON 'auto ignorecase'.
	Options string `yaml:"options"`
	// JSONPaths is a file with paths, a column each, instead of names.
	JSONPaths string `yaml:"json_paths"`
	// Connections is how many there are at most; 4 if zero.
	Connections int `yaml:"connections"`
	// Ledger is the table that remembers what was loaded, made if need be;
	// millrace_loaded if empty. "none" does without: batches that are delivered
	// again are loaded again.
	Ledger string `yaml:"ledger"`
}

// Deps is what a destination is given by the server.
type Deps struct {
	// Dial, if set, makes connections to addresses that are allowed.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Credentials, if set, are asked before every connection and go before those
	// of the DSN.
	Credentials func(ctx context.Context) (user, password string, err error)
}

// codes begins the codes of this destination's errors.
const codes = "PostgreSQL."

// DefaultLedger is the table that remembers loads.
const DefaultLedger = "millrace_loaded"

// Destination loads batches into one table.
type Destination struct {
	database *Database
	target   Target
}

// New makes a destination. Nothing is connected yet.
func New(c Config, deps Deps) (*Destination, error) {
	if c.DSN == "" || c.Table == "" {
		return nil, errors.New("postgresql: dsn and table are needed")
	}
	if c.Options == "" {
		c.Options = "JSON 'auto ignorecase'"
		if c.JSONPaths != "" {
			c.Options = "JSON 's3://file/'"
		}
	}
	options, err := ParseCopyOptions(c.Options)
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
	}
	if options.Compression != "" {
		return nil, fmt.Errorf("postgresql: %w", &OptionError{Option: options.Compression, Reason: "is for objects; records are loaded as they are"})
	}
	t := Target{Table: c.Table, Columns: c.Columns, Options: options, Exactly: c.Ledger}
	switch c.Ledger {
	case "":
		t.Exactly = DefaultLedger
	case "none":
		t.Exactly = ""
	}
	if options.Layout == JSONPaths {
		if c.JSONPaths == "" {
			return nil, errors.New("postgresql: the options speak of a JSONPaths file: name it in json_paths")
		}
		if t.JSONPaths, err = os.ReadFile(c.JSONPaths); err != nil {
			return nil, fmt.Errorf("postgresql: %w", err)
		}
		if _, err := ParseJSONPaths(t.JSONPaths); err != nil {
			return nil, fmt.Errorf("postgresql: %s: %w", c.JSONPaths, err)
		}
	}
	database, err := Open(Options{DSN: c.DSN, Credentials: deps.Credentials, Dial: deps.Dial, Connections: c.Connections, Codes: codes})
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
	}
	return &Destination{database, t}, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.database.Close()
	return nil
}

// Deliver implements dest.Destination: one transaction.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	var result dest.Result
	size, err := d.deliver(ctx, b, &result)
	if err != nil {
		var buffer *bufferError
		if errors.As(err, &buffer) {
			return dest.Result{}, fmt.Errorf("read the batch: %w", buffer.error)
		}
		return dest.Result{}, d.database.Explain(err)
	}
	slices.SortFunc(result.Failed, func(a, b dest.Failure) int { return a.Index - b.Index })
	result.Objects = []dest.Object{{Name: "postgresql:" + d.target.Table, Records: b.Count - len(result.Failed), Bytes: size}}
	return result, nil
}

// bufferError is an error of the batch, not of the server.
type bufferError struct{ error }

func (e *bufferError) Unwrap() error { return e.error }

func (d *Destination) deliver(ctx context.Context, b *record.Batch, result *dest.Result) (size int64, err error) {
	failed := func(i int, _ []byte, err error) error {
		code, message := explain(err)
		result.Failed = append(result.Failed, dest.Failure{Index: i, Code: codes + code, Message: message})
		return nil
	}
	load, err := d.database.Begin(ctx, d.target, failed)
	if err != nil {
		return 0, err
	}
	defer load.Rollback()
	var earlier loaded.Set
	if d.target.Exactly != "" {
		if earlier, err = load.Earlier(d.target.Exactly, b); err != nil {
			return 0, err
		}
	}
	var (
		spans   loaded.Spans
		sending error
		input   bytes.Reader
		in      = load.table.read(&input)
	)
	err = b.Each(func(i int, r *record.Record) error {
		if earlier.Has(r) {
			return nil
		}
		spans.Add(r)
		input.Reset(r.Data)
		in.reset(&input)
		before, rows := len(load.text), 0
		for {
			load.text, err = in.next(load.text)
			if err != nil {
				break
			}
			rows++
		}
		if errors.Is(err, io.EOF) && rows == 0 {
			err = &rowError{"", "the record holds no row"}
		}
		if !errors.Is(err, io.EOF) {
			load.text = load.text[:before]
			return failed(i, nil, err)
		}
		size += int64(len(load.text) - before)
		sending = load.add(i, rows)
		return sending
	})
	switch {
	case sending != nil:
		return 0, sending
	case err != nil:
		return 0, &bufferError{err}
	}
	if d.target.Exactly != "" {
		if err := load.Remember(d.target.Exactly, b, "", &spans); err != nil {
			return 0, err
		}
	}
	return size, load.Commit()
}

// OfBatch says that an error came from reading the batch.
func OfBatch(err error) bool {
	var buffer *bufferError
	return errors.As(err, &buffer)
}
