package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal makes a pseudo-terminal: what is written to user can be read from
// screen.
func openTerminal(t *testing.T) (screen, user *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { screen.Close() })
	var number, unlocked int32
	for request, argument := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlocked} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), request, uintptr(unsafe.Pointer(argument))); e != 0 {
			t.Skip("no pseudo-terminals here: ", e)
		}
	}
	user, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { user.Close() })
	return screen, user
}

func TestProgressShowsOnTerminalsOnly(t *testing.T) {
	start(t)
	millrace(t, "", "stream", "create", "s")
	file := t.TempDir() + "/lines"
	if err := os.WriteFile(file, []byte(strings.Repeat("a line of text\n", 2000)), 0o600); err != nil {
		t.Fatal(err)
	}
	screen, user := openTerminal(t)
	var shown bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&shown, screen) }) // ends with EIO when the terminal closes
	for _, args := range [][]string{
		{"put", "s", "--file", file},
		{"export", "s", "--output", file + ".jsonl"},
		{"import", "s", file + ".jsonl"},
	} {
		var out bytes.Buffer
		if code := execute(t.Context(), args, strings.NewReader(""), &out, user); code != 0 {
			t.Errorf("%v: exit code %d", args, code)
		}
		if out.Len() > 0 {
			t.Errorf("%v: standard output has %q", args, out.String())
		}
	}
	if code := execute(t.Context(), []string{"tail", "s", "--from", "trim", "-n", "1"}, nil, user, user); code != 0 {
		t.Errorf("tail: exit code %d", code)
	}
	if code := execute(t.Context(), []string{"bench", "s", "--duration", "1100ms", "--size", "10", "--batch", "1", "--clients", "1"}, nil, user, user); code != 0 {
		t.Errorf("bench: exit code %d", code)
	}
	user.Close()
	reading.Wait()
	for _, want := range []string{"lines", "export", "import", "%", "2000 records put into s", "1s  put"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("the terminal does not show %q:\n%q", want, shown.String())
		}
	}
	// Elsewhere only the result is said.
	var errs bytes.Buffer
	if execute(t.Context(), []string{"put", "s", "--file", file}, nil, io.Discard, &errs); errs.String() != "2000 records put into s\n" {
		t.Errorf("standard error has %q", errs.String())
	}
}
