package secrets

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const prefix = "arn:aws:secretsmanager:us-east-1:111122223333:secret:"

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestResolve(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, "stolen.json", `{"api_key":"outside"}`)
	write(t, dir, "plain.json", `{"api_key":"plain"}`)
	write(t, dir, "bare", `{"api_key":"bare"}`)
	write(t, dir, "team/nested.json", `{"api_key":"nested"}`)
	write(t, dir, "with-suffix-AbCdEf.json", `{"api_key":"exact"}`)
	write(t, dir, "with-suffix.json", `{"api_key":"bare name"}`)
	write(t, dir, "111122223333/plain.json", `{"api_key":"own"}`)
	write(t, dir, "444455556666/theirs.json", `{"api_key":"theirs"}`)
	write(t, dir, "number.json", `{"api_key":7}`)
	write(t, dir, "null.json", `{"api_key":null}`)
	write(t, dir, "list.json", `["hush"]`)
	write(t, dir, "hush.json", `{"api_key":"hush"`)
	write(t, dir, "large.json", `{"api_key":"`+strings.Repeat("x", maxBytes)+`"}`)
	if err := os.Symlink(filepath.Join(outside, "stolen.json"), filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	for _, c := range []struct {
		name, arn, want, err string
	}{
		{"an account's own comes first", prefix + "plain", "own", ""},
		{"what belongs to all", "arn:aws:secretsmanager:us-east-1:444455556666:secret:plain", "plain", ""},
		{"the random suffix is not needed in the file's name", prefix + "plain-x1Y2z3", "own", ""},
		{"the whole name comes before the bare one", prefix + "with-suffix-AbCdEf", "exact", ""},
		{"another suffix is another version", prefix + "with-suffix-AbCdEg", "bare name", ""},
		{"no extension", prefix + "bare", "bare", ""},
		{"names have folders", prefix + "team/nested-abcdef", "nested", ""},
		{"another partition", "arn:aws-cn:secretsmanager:cn-north-1:444455556666:secret:plain", "plain", ""},
		{"another account's folder is no name", prefix + "444455556666/theirs", "", "no such secret"},
		{"not there", prefix + "missing", "", "no such secret"},
		{"a folder", prefix + "team", "", "no such secret"},
		{"up and away", prefix + "../" + filepath.Base(outside) + "/stolen", "", "escapes"},
		{"a link out", prefix + "link", "", "escapes"},
		{"not a string", prefix + "number", "", "not a string"},
		{"null", prefix + "null", "", "not a string"},
		{"a list", prefix + "list", "", "not a JSON object"},
		{"cut short", prefix + "hush", "", "not a JSON object"},
		{"too large", prefix + "large", "", "larger than"},
		{"not an ARN", "plain", "", "not the ARN of a secret"},
		{"another service", "arn:aws:s3:::plain", "", "not the ARN of a secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := s.Resolve(t.Context(), c.arn)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, %v; want an error with %q", got, err, c.err)
				}
				if text := err.Error(); strings.Contains(text, `"hush"`) || strings.Contains(text, strings.Repeat("x", 9)) {
					t.Errorf("the error tells the secret: %s", text)
				}
				return
			}
			if err != nil || got["api_key"] != c.want {
				t.Errorf("got %v, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestRotationIsReplacingTheFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, value := range []string{"first", "second"} {
		write(t, dir, "k.json", `{"api_key":"`+value+`"}`)
		got, err := s.Resolve(t.Context(), prefix+"k")
		if err != nil || got["api_key"] != value {
			t.Errorf("got %v, %v; want %s", got, err, value)
		}
	}
	if err := os.Remove(filepath.Join(dir, "k.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), prefix+"k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed secret: %v", err)
	}
}

func TestNoDirectory(t *testing.T) {
	s := open(t, "")
	if _, err := s.Resolve(t.Context(), prefix+"k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a directory that is not there was opened")
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":"b"}`, `{"a":{}}`, `null`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		values, err := decode(raw)
		if (values == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", raw, values, err)
		}
	})
}
