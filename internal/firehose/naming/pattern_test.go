package naming

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Every line was printed by the formatter whose language this is.
func TestPatternsPrintWhatJavaPrints(t *testing.T) {
	raw, err := os.ReadFile("testdata/patterns.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var at time.Time
	lines := 0
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case strings.HasPrefix(line, "# "):
			continue
		case f[0] == "@":
			location, err := LoadLocation(f[1])
			if err != nil {
				t.Fatal(err)
			}
			if at, err = time.Parse(time.RFC3339Nano, f[2]); err != nil {
				t.Fatal(err)
			}
			at = at.In(location)
			continue
		case len(f) != 2:
			t.Fatalf("bad line %q", line)
		}
		lines++
		got := ""
		if p, err := parsePattern(f[0]); err != nil {
			got = "!PARSE"
		} else if err := p.check(at); err != nil {
			got = "!FORMAT"
		} else {
			got = string(p.append(nil, at))
		}
		if got != f[1] {
			t.Errorf("%s of %s: %q, want %q", f[0], at, got, f[1])
		}
	}
	if lines < 3000 {
		t.Errorf("only %d lines were compared", lines)
	}
}
