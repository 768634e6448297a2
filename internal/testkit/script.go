package testkit

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/vfs"
)

// updating tells whether the tests run with the flag -update, which the package
// of the scripts defines: it rewrites what they expect where they get something
// else.
func updating() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// Program runs a command line and returns its exit code.
type Program func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Scripts runs every script that the pattern names, each in a directory of its
// own against a server of its own. A script is read from top to bottom:
//
//	# a remark
//	server auth=keys data        start a server; without this line one starts with defaults
//	stop, restart                the server
//	set NAME=VALUE, unset NAME   an environment variable of the commands below
//	file orders.jsonl            a file of the lines below that begin with "< "
//	$ millrace put orders        a command; "< " lines are its standard input, the rest
//	< one                        up to an empty line is what it prints
//	! 1 record put into orders
//
// In what a command prints, "! " leads lines of standard error, which stand
// after those of standard output; "exit 1" is an exit code other than 0, and a
// lone dot an empty line. An ellipsis stands for anything, {name} for a word: the
// first time it is bound, afterwards it stands for the same, in commands too.
// {dir}, {self} (the test's own program), {server}, {admin}, {rootkey} and {rootsecret}
// are bound from the start. A file that begins with #! can be run.
//
// Commands may read "< FILE", write "> FILE" and end in "| sort" or "| grep TEXT". Besides the
// program there are cat FILE, and damage FILE OFFSET, which inverts a byte.
func Scripts(t *testing.T, pattern string, program Program) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts match %s: %v", pattern, err)
	}
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, program: program, words: map[string]string{}}
			s.prepare()
			got := s.run(strings.Split(strings.TrimRight(string(text), "\n"), "\n"))
			if updating() && !t.Failed() {
				if err := os.WriteFile(path, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

type script struct {
	t       *testing.T
	program Program
	words   map[string]string // what {name} stands for
	options Options
	server  *Server
}

// prepare gives the script an empty directory and an environment that knows
// nothing of the machine's own credentials.
func (s *script) prepare() {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "MILLRACE_") {
			s.t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	dir := s.t.TempDir()
	s.t.Chdir(dir)
	s.t.Setenv("HOME", dir)
	s.words["dir"] = dir
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.words["self"] = self
}

func (s *script) start(words []string) {
	settings := map[string]string{}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		settings[name] = value
	}
	s.options.Configure = func(c *config.Config) {
		for name, value := range settings {
			switch name {
			case "auth":
				c.Auth = value
			case "limits":
				c.Limits = value
			case "state-delay":
				d, err := time.ParseDuration(value)
				if err != nil {
					s.t.Fatal(err)
				}
				c.StateDelay = d
			case "data":
				c.Data = filepath.Join(s.words["dir"], "data")
			case "functions":
				c.Functions = filepath.Join(s.words["dir"], "functions")
			default:
				s.t.Fatalf("server: no setting %q", name)
			}
		}
	}
	if _, ok := settings["data"]; ok {
		s.options.Files = vfs.OS(filepath.Join(s.words["dir"], "data"))
	}
	s.open()
}

var keyLine = regexp.MustCompile(`export AWS_ACCESS_KEY_ID=(\S+)\nexport AWS_SECRET_ACCESS_KEY=(\S+)`)

func (s *script) open() {
	s.server = Start(s.t, s.options)
	s.words["server"], s.words["admin"] = s.server.Address(), s.server.AdminAddress()
	s.t.Setenv("MILLRACE_ENDPOINT", "http://"+s.server.Address())
	if m := keyLine.FindStringSubmatch(s.server.Log()); m != nil {
		s.words["rootkey"], s.words["rootsecret"] = m[1], m[2]
	}
	if err := os.WriteFile(filepath.Join(s.words["dir"], "ca.pem"), s.server.Authority(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) stop() {
	if err := s.server.Stop(); err != nil {
		s.t.Fatalf("stop: %v", err)
	}
}

// run executes lines and returns them with what commands really print.
func (s *script) run(lines []string) []string {
	var out []string
	for i := 0; i < len(lines); {
		line := lines[i]
		i++
		out = append(out, line)
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "", "#":
		case "server":
			s.start(strings.Fields(rest))
		case "stop":
			s.stop()
		case "restart":
			s.stop()
			s.open()
		case "set":
			name, value, _ := strings.Cut(s.fill(rest), "=")
			s.t.Setenv(name, value)
		case "unset":
			os.Unsetenv(rest)
		case "file", "$":
			if s.server == nil {
				s.start(nil)
			}
			at := i
			var input, want []string
			for ; i < len(lines) && lines[i] != ""; i++ {
				if text, ok := strings.CutPrefix(lines[i]+" ", "< "); ok {
					text = strings.TrimSuffix(text, " ")
					input = append(input, s.fill(text))
					out = append(out, lines[i])
				} else {
					want = append(want, lines[i])
				}
			}
			text := strings.Join(input, "\n")
			if len(input) > 0 {
				text += "\n"
			}
			if verb == "file" {
				if err := os.MkdirAll(filepath.Dir(rest), 0o700); err != nil {
					s.t.Fatal(err)
				}
				mode := os.FileMode(0o600)
				if strings.HasPrefix(text, "#!") {
					mode = 0o700
				}
				if err := os.WriteFile(rest, []byte(text), mode); err != nil {
					s.t.Fatal(err)
				}
				continue
			}
			got := s.command(s.fill(rest), text)
			if s.matches(want, got) {
				out = append(out, want...)
				continue
			}
			if updating() {
				out = append(out, s.generalize(got)...)
				continue
			}
			s.t.Errorf("line %d: %s\n got:\n\t%s\nwant:\n\t%s", at, line, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		default:
			s.t.Fatalf("line %d: %q is not known", i, line)
		}
	}
	return out
}

var word = regexp.MustCompile(`\{[a-z]+\}`)

func (s *script) fill(text string) string {
	return word.ReplaceAllStringFunc(text, func(name string) string {
		if value, ok := s.words[name[1:len(name)-1]]; ok {
			return value
		}
		return name
	})
}

// matches compares lines, and binds words on the way.
func (s *script) matches(want, got []string) bool {
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		var names []string
		pattern := "^"
		rest := s.fill(want[i])
		for rest != "" {
			at := word.FindStringIndex(rest)
			if at == nil {
				at = []int{len(rest), len(rest)}
			}
			parts := strings.Split(rest[:at[0]], "…")
			for j := range parts {
				parts[j] = regexp.QuoteMeta(parts[j])
			}
			pattern += strings.Join(parts, ".*")
			if at[0] < at[1] {
				names = append(names, rest[at[0]+1:at[1]-1])
				pattern += `(\S+?)`
			}
			rest = rest[at[1]:]
		}
		found := regexp.MustCompile(pattern + "$").FindStringSubmatch(got[i])
		if found == nil {
			return false
		}
		for j, name := range names {
			s.words[name] = found[j+1]
		}
	}
	return true
}

var varying = regexp.MustCompile(`AKIA[A-Z0-9]{16}|\d{56}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?`)

// generalize replaces what differs from run to run.
func (s *script) generalize(lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		for name, value := range s.words {
			if value != "" {
				line = strings.ReplaceAll(line, value, "{"+name+"}")
			}
		}
		out[i] = varying.ReplaceAllString(line, "…")
	}
	return out
}

// command runs a line and returns what it printed, a line each.
func (s *script) command(line, stdin string) []string {
	words, err := fields(line)
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	var target string
	sorted, having := false, ""
	if n := len(words); n > 3 && words[n-3] == "|" && words[n-2] == "grep" {
		words, having = words[:n-3], words[n-1]
	}
	if n := len(words); n > 2 && words[n-2] == "|" && words[n-1] == "sort" {
		words, sorted = words[:n-2], true
	}
	for n := len(words); n > 2 && (words[n-2] == "<" || words[n-2] == ">"); n = len(words) {
		if words[n-2] == ">" {
			target = words[n-1]
		} else {
			text, err := os.ReadFile(words[n-1])
			if err != nil {
				s.t.Fatal(err)
			}
			stdin = string(text)
		}
		words = words[:n-2]
	}
	var stdout, stderr bytes.Buffer
	code := 0
	switch words[0] {
	case "cat":
		text, err := os.ReadFile(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		stdout.Write(text)
	case "damage":
		if err := damage(words[1], words[2]); err != nil {
			s.t.Fatal(err)
		}
	case "millrace":
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		defer cancel()
		code = s.program(ctx, words[1:], strings.NewReader(stdin), &stdout, &stderr)
	default:
		s.t.Fatalf("no command %q", words[0])
	}
	if target != "" {
		if err := os.WriteFile(target, stdout.Bytes(), 0o600); err != nil {
			s.t.Fatal(err)
		}
		stdout.Reset()
	}
	lines := split(stdout.String())
	if sorted {
		slices.Sort(lines)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return !strings.Contains(l, having) })
	for _, l := range split(stderr.String()) {
		lines = append(lines, strings.TrimRight("! "+l, " "))
	}
	if code != 0 {
		lines = append(lines, "exit "+strconv.Itoa(code))
	}
	return lines
}

func split(text string) []string {
	if text == "" {
		return nil
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := range lines {
		if lines[i] == "" {
			lines[i] = "."
		}
	}
	return lines
}

// damage inverts one byte of the file that a pattern names.
func damage(pattern, offset string) error {
	at, err := strconv.ParseInt(offset, 10, 64)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no file matches %s", pattern)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	if err == nil {
		b[0] = ^b[0]
		_, err = f.WriteAt(b, at)
	}
	return errors.Join(err, f.Close())
}

// fields splits a line at spaces; quotes of either kind keep them.
func fields(line string) ([]string, error) {
	var out []string
	var current strings.Builder
	inside, quote := false, rune(0)
	for _, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				current.WriteRune(c)
			}
		case c == '\'' || c == '"':
			quote, inside = c, true
		case c == ' ':
			if inside {
				out = append(out, current.String())
				current.Reset()
				inside = false
			}
		default:
			current.WriteRune(c)
			inside = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inside {
		out = append(out, current.String())
	}
	return out, nil
}
