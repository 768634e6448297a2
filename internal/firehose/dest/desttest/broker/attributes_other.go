//go:build !linux

package broker

import "syscall"

// Only Linux ends a process with the one that started it.
func dieWithParent() *syscall.SysProcAttr { return nil }
