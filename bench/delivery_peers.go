package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// deliveryPeers does the work behind the door, JSON lines to GZIP and to
// Parquet/Snappy, with other engines that read one file and write others: a
// pipeline engine of the same kind, Redpanda Connect, and libraries without a
// pipeline, pyarrow, DuckDB and zlib, which are yardsticks for what the work
// itself costs. None of them has a server, a log or a catalog to keep. An engine
// that is not to be had has a row that says so.
func (b *bench) deliveryPeers() error {
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
	connect := filepath.Join(dir, "connect")
	noConnect := b.buildConnect(connect)
	python := filepath.Join(b.cache, "formats/bin/python")
	var noPython error
	if _, err := os.Stat(python); err != nil {
		noPython = errors.New("pyarrow and DuckDB are not installed (scripts/install formats)")
	}
	for _, r := range []struct {
		what      string
		more      object
		pipeline  string
		libraries []string
	}{
		{"GZIP", object{"CompressionFormat": "GZIP"}, "gzip.yaml", []string{"zlib-1", "zlib-6"}},
		{"Parquet/Snappy", toParquet(), "parquet.yaml", []string{"pyarrow", "duckdb"}},
	} {
		ours, err := b.through(r.more)
		if err != nil {
			return fmt.Errorf("millrace: %w", err)
		}
		b.row("JSON → "+r.what+", beside the following", fmt.Sprintf("%.0f MB / CPU s beyond ingest; %.0f MB with it", ours.beyond(), ours.whole()), "", true, "millrace, delivered to the embedded object store")
		for _, engine := range append([]string{"Redpanda Connect"}, r.libraries...) {
			var seconds float64
			var made int64
			missing, budget := noPython, 0.0
			if engine == "Redpanda Connect" {
				missing, budget = noConnect, 1.5
			}
			switch {
			case missing != nil:
				b.row(engine+", JSON → "+r.what, "not measured: "+missing.Error(), "", true, "")
				continue
			case engine == "Redpanda Connect":
				seconds, made, err = b.runConnect(connect, r.pipeline, source, size)
			default:
				seconds, made, err = b.runLibrary(python, engine, source)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", engine, err)
			}
			rate, wanted := float64(size)/seconds/1e6, ""
			if budget > 0 {
				wanted = fmt.Sprintf("≥ %.1f ×", budget)
			}
			b.row(engine+", JSON → "+r.what, fmt.Sprintf("%.0f MB / CPU s; millrace does %.1f ×, with ingest %.1f ×", rate, ours.beyond()/rate, ours.whole()/rate), wanted, ours.beyond() >= budget*rate,
				fmt.Sprintf("%d MB from a file to files of %d MB", size/1e6, made/1e6))
		}
	}
	return nil
}

// buildConnect builds Redpanda Connect from its module, which may have to be
// fetched.
func (b *bench) buildConnect(binary string) error {
	// A hash function of the Parquet library is linked to names inside the runtime,
	// which the linker refuses unless it is asked not to.
	command := exec.CommandContext(b.ctx, "go", "build", "-ldflags=-checklinkname=0", "-o", binary, ".")
	command.Dir = "peers/connect"
	if out, err := command.CombinedOutput(); err != nil {
		last := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("the module cannot be fetched or built: %w: %s", err, last[len(last)-1])
	}
	return nil
}

// runConnect runs a pipeline over the source and returns the processor time the
// engine took and the bytes it made. Time that it waits is none.
func (b *bench) runConnect(binary, pipeline, source string, size int64) (seconds float64, made int64, err error) {
	target, err := os.MkdirTemp(filepath.Dir(source), "connect-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(target)
	command := exec.CommandContext(b.ctx, binary, "-c", filepath.Join("peers/connect", pipeline))
	command.Env = append(os.Environ(), "SOURCE="+source, "TARGET="+target)
	if out, err := command.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, out)
	}
	files, err := os.ReadDir(target)
	if err != nil {
		return 0, 0, err
	}
	// Lines that it could not encode it writes as they are, one file each.
	if most := int(size>>26) + 1; len(files) == 0 || len(files) > most {
		return 0, 0, fmt.Errorf("%d files, where 1 to %d were expected", len(files), most)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return 0, 0, err
		}
		made += info.Size()
	}
	return (command.ProcessState.UserTime() + command.ProcessState.SystemTime()).Seconds(), made, nil
}

// runLibrary is runConnect for a library, which a Python program calls.
func (b *bench) runLibrary(python, engine, source string) (seconds float64, made int64, err error) {
	target := filepath.Join(filepath.Dir(source), engine)
	args := []string{"peers/columnar.py", engine, source, target}
	for _, c := range columns {
		args = append(args, c.name+":"+c.kind)
	}
	out, err := exec.CommandContext(b.ctx, python, args...).Output()
	if err != nil {
		return 0, 0, err
	}
	if seconds, err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64); err != nil {
		return 0, 0, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return 0, 0, err
	}
	return seconds, info.Size(), os.Remove(target)
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
