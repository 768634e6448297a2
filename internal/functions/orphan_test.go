//go:build linux

package functions

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// gone waits for a process to end; the test's own timeout ends the wait.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // gone already
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if n > 0 {
			return
		}
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if t.Context().Err() != nil {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func TestProcessesEndWithAServerThatIsKilled(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	started := filepath.Join(t.TempDir(), "started")
	write(t, filepath.Join(dir, "f", "bootstrap"), "#!/bin/sh\nexec '"+self+"'\n", 0o755)
	write(t, filepath.Join(dir, "f", "function.yaml"), "environment:\n  "+modeVariable+": echo\n  COUNTER: "+started+"\n", 0o644)
	server := exec.Command(self)
	server.Env = append(os.Environ(), modeVariable+"=server", "FUNCTIONS="+dir)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "{} <nil>\n" {
		t.Errorf("%q %v", line, err)
	}
	raw, err := os.ReadFile(started)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // killed, as it says
	gone(t, pid)
}

func TestCloseEndsProcessesAndTheirChildren(t *testing.T) {
	f := start(t, nil)
	f.bootstrap(t, "f", "orphan", "")
	var said struct{ Child int }
	if err := json.Unmarshal(f.call(t, "f", "{}").Payload, &said); err != nil || said.Child == 0 {
		t.Fatalf("%v %v", said, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	gone(t, said.Child)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Invoke(t.Context(), Request{Function: "f"}); err == nil {
		t.Error("a closed registry calls functions")
	}
}
