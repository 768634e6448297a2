//go:build unix

package run_test

import (
	"syscall"
	"testing"
)

// processorSeconds is what all threads of the process have used, the garbage
// collector's among them.
func processorSeconds(b testing.TB) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
