package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Table is a typed view of the records below a prefix: values are JSON of T
// with a format number in front.
//
// Fields of T that the stored JSON does not have are zero, so adding a field
// whose zero means "as before" needs nothing. Anything else is a new format:
// count it up and give Upgrade. A field that T does not know is damage within
// its own format, and a higher format is driver.ErrNewerVersion: nothing of a
// record is ever dropped by reading and writing it back.
type Table[T any] struct {
	// Prefix is the first part of every key, without slashes.
	Prefix string
	// Format is the number written with values, from 1 up.
	Format uint64
	// Upgrade decodes the JSON of an older format. Nil if there is none yet.
	Upgrade func(format uint64, data []byte) (T, error)
}

// Row is a record of a table.
type Row[T any] struct {
	Key     string
	Version Version
	Value   T
}

// Key is the key of a row, of parts that may be any text.
func (t *Table[T]) Key(parts ...string) string {
	return t.Prefix + "/" + Key(parts...)
}

// Get reads one row. It is not there if ok is false; an error is about its
// value.
func (t *Table[T]) Get(s *Store, parts ...string) (row Row[T], ok bool, err error) {
	record, ok := s.Get(t.Key(parts...))
	if !ok {
		return row, false, nil
	}
	row.Key, row.Version = record.Key, record.Version
	row.Value, err = t.Decode(record.Key, record.Value)
	return row, true, err
}

// List reads the rows whose keys continue parts, in key order, after the key
// after, at most limit or all if that is 0. No parts: all rows.
func (t *Table[T]) List(s *Store, after string, limit int, parts ...string) ([]Row[T], error) {
	prefix := t.Prefix + "/"
	if len(parts) > 0 {
		prefix = t.Key(parts...) + "/"
	}
	records := s.List(prefix, after, limit)
	rows := make([]Row[T], 0, len(records))
	for _, record := range records {
		value, err := t.Decode(record.Key, record.Value)
		if err != nil {
			return nil, err
		}
		rows = append(rows, Row[T]{Key: record.Key, Version: record.Version, Value: value})
	}
	return rows, nil
}

// Put is the operation that writes a row, whether or not it is there.
func (t *Table[T]) Put(value T, parts ...string) Op {
	return Op{Key: t.Key(parts...), Value: t.Encode(value)}
}

// Insert is the operation that writes a row that must not be there.
func (t *Table[T]) Insert(value T, parts ...string) Op {
	return Op{Key: t.Key(parts...), Value: t.Encode(value), Cond: Absent}
}

// Update is the operation that writes row.Value if nobody has written the row
// since it was read.
func (t *Table[T]) Update(row Row[T]) Op {
	return Op{Key: row.Key, Value: t.Encode(row.Value), Cond: IfVersion, Version: row.Version}
}

// Delete is the operation that removes a row if nobody has written it since it
// was read.
func (t *Table[T]) Delete(row Row[T]) Op {
	return Op{Key: row.Key, Delete: true, Cond: IfVersion, Version: row.Version}
}

// Encode makes the stored form of a value. It panics if T cannot be JSON, which
// a program's first use of the table shows.
func (t *Table[T]) Encode(value T) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("metadata table %s: %v", t.Prefix, err))
	}
	return append(binary.AppendUvarint(nil, t.Format), data...)
}

// Decode reads the stored form of a value, as Get and List do; callbacks of
// Watch use it. The key is for the error.
func (t *Table[T]) Decode(key string, stored []byte) (value T, err error) {
	r := reader{rest: stored}
	format := r.uvarint()
	switch {
	case r.err != nil || format == 0:
		return value, damagedRecord(key, "no format number")
	case format > t.Format:
		return value, fmt.Errorf("metadata record %q has format %d, this release knows formats up to %d: %w",
			key, format, t.Format, driver.ErrNewerVersion)
	case format < t.Format:
		if t.Upgrade == nil {
			return value, damagedRecord(key, fmt.Sprintf("format %d was never written", format))
		}
		if value, err = t.Upgrade(format, r.rest); err != nil {
			return value, damagedRecord(key, err.Error())
		}
		return value, nil
	}
	d := json.NewDecoder(bytes.NewReader(r.rest))
	d.DisallowUnknownFields()
	if err := d.Decode(&value); err != nil {
		return value, damagedRecord(key, err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return value, damagedRecord(key, "bytes after the value")
	}
	return value, nil
}

func damagedRecord(key, reason string) error {
	return &driver.CorruptError{File: fmt.Sprintf("metadata record %q", key), Reason: reason}
}
