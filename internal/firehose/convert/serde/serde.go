// Package serde reads JSON records straight into column buffers, by the rules of
// the two deserializers that delivery streams know.
//
// The one idea: one pass over the bytes. The table's schema is compiled into a
// tree of nodes, each of which reads one value where it stands and appends it to
// its column; no value of a record exists outside the buffers. Keys are compared
// with those of the record before first, because producers repeat themselves.
//
// A record is one or more JSON objects, each a row; an array or a plain value is
// refused. A record that fails is taken back whole. Keys that the table does not
// have are skipped (but must be well-formed), missing ones are null, and of a key
// that comes twice the last value counts.
//
// OpenX is lenient: it reads numbers from texts, texts from anything, wraps a
// single value into an array and fills structures by position. Hive is strict.
// Start with Decoder.Decode; timestamps are in timestamp.go and joda.go.
package serde

import (
	"fmt"
	"strings"
)

// Dialect is a deserializer.
type Dialect uint8

// The deserializers.
const (
	OpenX Dialect = iota
	Hive
)

// Options of a deserializer.
type Options struct {
	Dialect Dialect
	// CaseSensitive compares keys as they are; otherwise JSON keys are folded to
	// lower case first, those of maps included. OpenX only.
	CaseSensitive bool
	// DotsToUnderscores turns dots in keys into underscores. OpenX only.
	DotsToUnderscores bool
	// Keys are the JSON keys of columns and members that have another name. OpenX only.
	Keys map[string]string
	// TimestampFormats are Joda patterns, or "millis". Hive only; none is the form
	// of java.sql.Timestamp.
	TimestampFormats []string
}

// Check reports options that cannot be used.
func (o *Options) Check() error {
	for _, f := range o.TimestampFormats {
		if _, err := parseJoda(f); err != nil {
			return err
		}
	}
	return nil
}

// Codes of failures.
const (
	ParseError    = "ParseError"
	MalformedData = "MalformedData"
)

// Error is a record that cannot be converted.
type Error struct{ Code, Message string }

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// mismatch is a value that does not fit its column.
func mismatch(format string, args ...any) error {
	return &Error{MalformedData, "Data does not match the schema. " + fmt.Sprintf(format, args...)}
}

// errText is what Hive says of an object or an array in a column of text.
var errText = &Error{MalformedData, "One or more fields have incorrect format. Exception when validating field (root)"}

// shown is a piece of input in a message.
func shown(b []byte) string {
	const most = 256
	s := string(b[:min(len(b), most)])
	if len(b) > most {
		s += "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
