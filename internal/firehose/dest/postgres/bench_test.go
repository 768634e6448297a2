package postgres

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/millrace/millrace/internal/firehose/dest/desttest"
)

// BenchmarkRows makes lines of records of about 300 bytes; bytes are those read.
func BenchmarkRows(b *testing.B) {
	columns := []column{{name: "id", typ: "int4"}, {name: "text", typ: "text"}}
	o, err := ParseCopyOptions("JSON 'auto'")
	if err != nil {
		b.Fatal(err)
	}
	t, err := newTable(o, columns, nil)
	if err != nil {
		b.Fatal(err)
	}
	input := bytes.Repeat(desttest.JSON(7, 270), 1000)
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	var line []byte
	for b.Loop() {
		r := t.read(bytes.NewReader(input))
		for {
			if line, err = r.next(line[:0]); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
