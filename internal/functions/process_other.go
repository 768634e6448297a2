//go:build !linux

package functions

import (
	"os/exec"
	"syscall"
)

// Only Linux ends processes with their parent, and tells their memory in a way
// that needs no other program: elsewhere a killed server leaves processes behind
// until they find that nobody answers them, and Settings.Memory is not watched.

func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func killGroup(c *exec.Cmd)        { _ = c.Process.Kill() }
func terminateGroup(c *exec.Cmd)   { _ = c.Process.Kill() }
func groupMemory(*exec.Cmd) int64  { return 0 }
func peakMemory(c *exec.Cmd) int64 { return 0 }
