//go:build !linux

package local

func movePages(_, _ []byte) bool { return false }
