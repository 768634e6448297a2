package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// interpreter is the Python with pyarrow and DuckDB that scripts/install put into
// the checkout's cache. Without it the test is skipped, unless the environment
// says PEERS=required.
func interpreter(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	python := filepath.Join(dir, ".cache", "formats", "bin", "python")
	if _, err := os.Stat(python); errors.Is(err, fs.ErrNotExist) {
		if os.Getenv("PEERS") == "required" {
			t.Fatal("pyarrow and DuckDB are not installed: scripts/install formats")
		}
		t.Skip("pyarrow and DuckDB are not installed: scripts/install formats")
	}
	return python
}

// TestOtherReadersFindTheSame has pyarrow and DuckDB read what was converted, and
// compare every value with the record it came from.
func TestOtherReadersFindTheSame(t *testing.T) {
	python := interpreter(t)
	var records []string
	for i := range 12_000 {
		records = append(records, everyRecord(i))
	}
	dir := t.TempDir()
	keep := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var schema [][2]string
	for _, c := range everything {
		schema = append(schema, [2]string{c.Name, c.Type})
	}
	raw, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	source, columns := keep("records.json", []byte(strings.Join(records, "\n"))), keep("schema.json", raw)
	for name, o := range forms() {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			rows, failed, err := converter(t, o, everything...).Convert(t.Context(), batch(records...), &out)
			if rows != len(records) || len(failed) > 0 || err != nil {
				t.Fatalf("%d rows, %v, %v", rows, failed[:min(1, len(failed))], err)
			}
			said, err := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "read.py"), keep(name, out.Bytes()), source, columns).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			t.Logf("%s", bytes.TrimSpace(said))
		})
	}
}
