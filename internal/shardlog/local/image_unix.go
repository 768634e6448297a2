//go:build unix && !linux

package local

import "syscall"

// Images live outside the Go heap: tens of megabytes that come and go with the
// load would otherwise set the collector's pace. Small ones, as tests have them,
// stay inside, where the race detector sees them.
const mappedImage = 4 << 20

// allocateImage also tells whether the image has pages of its own.
func allocateImage(size int) (image []byte, mapped bool) {
	if size >= mappedImage {
		b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err == nil {
			return b, true
		}
	}
	return heapImage(size), false
}

func freeImage(b []byte) {
	if len(b) >= mappedImage {
		// Fails for an image that had to come from the heap, which the
		// collector frees.
		_ = syscall.Munmap(b)
	}
}
