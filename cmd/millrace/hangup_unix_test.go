//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
)

func TestHangupCallsAgainAndAgain(t *testing.T) {
	called := make(chan struct{})
	stop := onHangup(func() { called <- struct{}{} })
	for range 3 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-called
	}
	stop()
}
