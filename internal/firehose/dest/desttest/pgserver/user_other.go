//go:build !unix

package pgserver

import "syscall"

// Elsewhere no user is root, and nobody asks.
func asUser(uint32) *syscall.SysProcAttr { return nil }
