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

// Integers are compared with all their digits, other numbers within the
// tolerance, by value.
func TestNumbersOfCases(t *testing.T) {
	for _, c := range []struct {
		got       any
		want      string
		tolerance float64
		equal     bool
	}{
		{int64(9007199254740993), `9007199254740993`, 0, true},
		{int64(9007199254740993), `9007199254740992`, 0, false},
		{int64(9007199254740993), `9007199254740992`, 0.1, false},
		{int64(3), `3.0`, 0, true},
		{int64(3), `3.1`, 0.5, false},
		{3.0, `3`, 0, true},
		{3.0, `4`, 0, false},
		{2.9999999999, `3`, 0, true},
		{2.99, `3`, 0, false},
		{2.99, `3`, 0.01, true},
		{"3", `3`, 0, false},
		{nil, `0`, 0, false},
		{int64(0), `null`, 0, false},
		{nil, `null`, 0, true},
		{true, `true`, 0, true},
	} {
		parsed, err := Parse([]byte(`{"sql": "-", "expect": {"OUT": [{"X": ` + c.want + `}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		parsed.Tolerance = c.tolerance
		if got := parsed.equal(c.got, parsed.Expect["OUT"][0]["X"]); got != c.equal {
			t.Errorf("%v and %s within %v: %t", c.got, c.want, c.tolerance, got)
		}
	}
}
