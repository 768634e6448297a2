//go:build unix

package pgserver

import "syscall"

// asUser makes a process run as a user and a group of the same number.
func asUser(id uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}
