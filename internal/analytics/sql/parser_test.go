package sql

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testdata/programs.txt holds pairs: a statement, a line ----, what the parser
// makes of it in its canonical form or the error with its caret, an empty line
// with ====.
func TestPrograms(t *testing.T) {
	path := filepath.Join("testdata", "programs.txt")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, block := range strings.Split(strings.TrimSuffix(string(raw), "\n====\n"), "\n====\n") {
		text, want, _ := strings.Cut(block, "\n----\n")
		got := show(text)
		if !*update && got != want {
			t.Errorf("%s\n  got:\n%s\n  want:\n%s", text, got, want)
		}
		out.WriteString(text + "\n----\n" + got + "\n====\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func show(text string) string {
	program, err := Parse(text)
	var lines []string
	for _, s := range program.Statements {
		lines = append(lines, StatementText(s))
	}
	if err != nil {
		for _, e := range err.(Errors) {
			lines = append(lines, e.Error(), e.Excerpt(text))
		}
	}
	return strings.Join(lines, "\n")
}

// What is printed reads as the same again.
func TestCanonicalFormIsStable(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "programs.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(raw), "\n====\n") {
		text, _, _ := strings.Cut(block, "\n----\n")
		checkStable(t, text)
	}
}

func checkStable(t *testing.T, text string) {
	t.Helper()
	program, err := Parse(text)
	if err != nil {
		return
	}
	for _, s := range program.Statements {
		once := StatementText(s)
		again, err := Parse(once)
		if err != nil {
			t.Errorf("%s\nprints as\n%s\nwhich is wrong: %v", text, once, err)
			continue
		}
		if len(again.Statements) != 1 || StatementText(again.Statements[0]) != once {
			t.Errorf("%s\nprints as\n%s\nthen as\n%s", text, once, StatementText(again.Statements[0]))
		}
	}
}

func FuzzParse(f *testing.F) {
	raw, err := os.ReadFile(filepath.Join("testdata", "programs.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, block := range strings.Split(string(raw), "\n====\n") {
		text, _, _ := strings.Cut(block, "\n----\n")
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		program, err := Parse(text)
		if err != nil {
			for _, e := range err.(Errors) {
				if e.Line < 1 || e.Column < 1 || int(e.Span.End) < int(e.Span.Start) {
					t.Fatalf("%+v", e)
				}
				e.Excerpt(text)
			}
			return
		}
		for _, s := range program.Statements {
			if at := s.Place(); at.Start < 0 || int(at.End) > len(text) || at.Start > at.End {
				t.Fatalf("%T at %v of %d", s, at, len(text))
			}
		}
		checkStable(t, text)
	})
}

// The cases that other packages run are programs of the dialect.
func TestCasesParse(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join("..", "testdata", "cases", "*.json"))
	if len(files) == 0 {
		t.Skip("no cases are checked in")
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			SQL   string `json:"sql"`
			Error string `json:"expect_error"`
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(c.SQL); err != nil && c.Error == "" {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
		checkStable(t, c.SQL)
	}
}
