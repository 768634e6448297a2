// Package orc writes rows as ORC files.
package orc

// Compression of streams.
type Compression string

// The codecs.
const (
	None   Compression = "NONE"
	ZLIB   Compression = "ZLIB"
	Snappy Compression = "SNAPPY"
)
