package functions

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkWarmCall is one call of a function whose process is there: two requests
// of the Runtime API, three log lines, and the event both ways.
func BenchmarkWarmCall(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "echo"), 0o755); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{"bootstrap": "#!/bin/sh\nexec '" + self + "'\n", "function.yaml": "environment: {" + modeVariable + ": echo}\n"} {
		if err := os.WriteFile(filepath.Join(dir, "echo", name), []byte(text), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	r, err := New(Options{Dir: dir, Logs: &memoryLogs{}})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for _, size := range []int{1 << 10, 1 << 20} {
		event := append(append([]byte(`"`), bytes.Repeat([]byte("x"), size-2)...), '"')
		b.Run(fmt.Sprintf("size=%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				a, err := r.Invoke(b.Context(), Request{Function: "echo", Payload: event})
				if err != nil || len(a.Payload) != size {
					b.Fatal(len(a.Payload), err)
				}
			}
		})
	}
}
