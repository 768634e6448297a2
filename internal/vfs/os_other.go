//go:build !linux

package vfs

import "os"

// Elsewhere durable writes are buffered and synced, which on macOS includes the
// drive's cache.
const (
	directFlags  = 0
	uncachedFlag = 0
)

func dataSync(f *os.File) error                        { return f.Sync() }
func leaveDirect(*os.File) error                       { return nil }
func allocate(f *os.File, offset, length int64) error  { return grow(f, offset+length) }
func punchHole(f *os.File, offset, length int64) error { return nil }
