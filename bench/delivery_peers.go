package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// deliveryPeers does the work behind the door, JSON lines to GZIP and to
// Parquet/Snappy, with other engines: libraries that read one file and write
// another, without a server, a log or a catalog. They are yardsticks for what
// the work itself costs, not servers of the same kind.
func (b *bench) deliveryPeers() error {
	python := filepath.Join(b.cache, "formats/bin/python")
	if _, err := os.Stat(python); err != nil {
		fmt.Fprintln(os.Stderr, "bench: pyarrow and duckdb are not installed (scripts/install formats)")
		return nil
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "lines.json")
	size, err := writeLines(source, max(1, int(b.duration/time.Second))*6)
	if err != nil {
		return err
	}
	var schema []string
	for _, c := range columns {
		schema = append(schema, c.name+":"+c.kind)
	}
	for _, r := range []struct {
		what    string
		more    object
		engines []string
	}{
		{"GZIP", object{"CompressionFormat": "GZIP"}, []string{"zlib-1", "zlib-6"}},
		{"Parquet/Snappy", toParquet(), []string{"pyarrow", "duckdb"}},
	} {
		ours, err := b.through(r.more)
		if err != nil {
			return fmt.Errorf("millrace: %w", err)
		}
		b.row("JSON → "+r.what+", beside the following", fmt.Sprintf("%.0f MB / CPU s beyond ingest", ours.beyond()), "", true, "millrace, delivered to the embedded object store")
		for _, engine := range r.engines {
			target := filepath.Join(dir, engine)
			args := append([]string{"peers/columnar.py", engine, source, target}, schema...)
			out, err := exec.CommandContext(b.ctx, python, args...).Output()
			if err != nil {
				return fmt.Errorf("%s: %w", engine, err)
			}
			seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			if err != nil {
				return fmt.Errorf("%s: %w", engine, err)
			}
			made, err := os.Stat(target)
			if err != nil {
				return err
			}
			rate := float64(size) / seconds / 1e6
			b.row(engine, fmt.Sprintf("%.0f MB / CPU s; millrace does %.1f ×", rate, ours.beyond()/rate), "", true,
				fmt.Sprintf("%d MB from file to file of %d MB", size/1e6, made.Size()/1e6))
		}
	}
	return nil
}

// writeLines makes a file of the events that the rows put, over and over.
func writeLines(name string, rounds int) (size int64, err error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := events(live, 64, 1).lines
	for range rounds {
		n, err := f.Write(lines)
		size += int64(n)
		if err != nil {
			return 0, err
		}
	}
	return size, f.Close()
}
