package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestErrorsAreOneLineAndExitCodeOne(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--lisen", "a"}, `unknown flag: --lisen; did you mean "listen"?`},
		{[]string{"serve", "--auth", "maybe"}, `"maybe" is not one of open, keys`},
		{[]string{"serve", "--config", "/nonexistent"}, "config file /nonexistent: no such file or directory"},
		{[]string{"serve", "--listen", "0.0.0.0:0", "--ephemeral"}, "not a loopback address"},
		{[]string{"serve", "--data", "/dev/null"}, "data directory /dev/null"},
		{[]string{"serve", "extra"}, "unknown command"},
		{[]string{"sreve"}, `millrace has no command "sreve"; did you mean "serve"?`},
		{[]string{"health", "--admin-listen", "127.0.0.1:1"}, "no server answers at 127.0.0.1:1"},
		{[]string{"ca", "--ephemeral"}, "in memory"},
	} {
		var out, errs bytes.Buffer
		args := c.args
		if args[0] == "serve" && !strings.Contains(strings.Join(args, " "), "--listen") {
			args = append(args, "--listen", "127.0.0.1:0", "--admin-listen", "off")
		}
		code := run(t.Context(), args, &out, &errs)
		text := strings.TrimSpace(errs.String())
		if code != 1 || !strings.Contains(text, c.want) || !strings.HasPrefix(text, "millrace: ") {
			t.Errorf("%v: exit code %d, %q", c.args, code, text)
		}
		if strings.Contains(text, "\n") {
			t.Errorf("%v: more than one line: %q", c.args, text)
		}
	}
}

func TestTheAuthorityIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	print := func() string {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"ca", "--data", dir}, &out, &errs); code != 0 {
			t.Fatalf("exit code %d: %s", code, errs.String())
		}
		return out.String()
	}
	first := print()
	if !strings.HasPrefix(first, "-----BEGIN CERTIFICATE-----") || print() != first {
		t.Errorf("printed %q", first)
	}
}

func TestConfigAndVersionPrint(t *testing.T) {
	for command, want := range map[string]string{"config": "listen:", "version": "millrace ", "config --sample": "# ----", "config --reference": "# Configuration"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(command), &out, &errs); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d: %q %s", command, code, out.String(), errs.String())
		}
	}
}
