package functions

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// processAttributes put a process into a group of its own and end it with the
// server, however the server ends.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(c *exec.Cmd)      { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
func terminateGroup(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }

// maxFamily bounds how many processes of one function are counted.
const maxFamily = 256

// groupMemory is what a process and its descendants have resident, in bytes.
func groupMemory(c *exec.Cmd) int64 {
	var total int64
	family := []int{c.Process.Pid}
	for i := 0; i < len(family) && i < maxFamily; i++ {
		dir := "/proc/" + strconv.Itoa(family[i])
		raw, err := os.ReadFile(dir + "/statm")
		if err != nil {
			continue // it has ended
		}
		if fields := strings.Fields(string(raw)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			total += pages * int64(os.Getpagesize())
		}
		tasks, err := os.ReadDir(dir + "/task")
		if err != nil {
			continue
		}
		for _, t := range tasks {
			raw, err := os.ReadFile(dir + "/task/" + t.Name() + "/children")
			if err != nil {
				break
			}
			for _, child := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(child); err == nil {
					family = append(family, pid)
				}
			}
		}
	}
	return total
}

// peakMemory is the most that the process itself ever had resident, in bytes.
func peakMemory(c *exec.Cmd) int64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(c.Process.Pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
