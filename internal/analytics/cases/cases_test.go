package cases

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Every case gives its rows, whatever the batches, and
// stopped and resumed behind every insert.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("../testdata/cases/*.json")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse(raw)
		if err != nil {
			t.Fatal(name, err)
		}
		t.Run(c.Name+"/resumed", func(t *testing.T) {
			if err := c.Run(Options{Resume: true}); err != nil {
				t.Error(err)
			}
		})
		for _, batch := range []int{1, 3, 1000} {
			t.Run(c.Name+"/"+strconv.Itoa(batch), func(t *testing.T) {
				if err := c.Run(Options{Batch: batch}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
