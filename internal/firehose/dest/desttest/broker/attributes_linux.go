package broker

import "syscall"

// The folder goes away with a test that is killed; the broker shall too.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
