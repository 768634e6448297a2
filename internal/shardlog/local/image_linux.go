package local

import (
	"sync"
	"syscall"
	"unsafe"
)

// Images live outside the Go heap: tens of megabytes that come and go with the
// load would otherwise set the collector's pace. Small ones, as tests have them,
// stay inside, where the race detector sees them.
const mappedImage = 4 << 20

// imageAlignment is what a page of page tables spans. The kernel moves memory that
// is aligned so by changing a few entries, and other memory page by page.
const imageAlignment = 2 << 20

// Flags of mremap, which package syscall does not name.
const (
	mremapMayMove   = 1
	mremapFixed     = 2
	mremapDontUnmap = 4 // since Linux 5.7: the old addresses stay, without pages
)

// mappings are what images were cut out of, by their first byte.
var mappings = struct {
	sync.Mutex
	of map[*byte][]byte
}{of: map[*byte][]byte{}}

// allocateImage also tells whether the image has pages of its own.
func allocateImage(size int) (image []byte, mapped bool) {
	if size < mappedImage {
		return heapImage(size), false
	}
	b, err := syscall.Mmap(-1, 0, size+imageAlignment, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return heapImage(size), false
	}
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (imageAlignment - 1)
	mappings.Lock()
	defer mappings.Unlock()
	mappings.of[&b[skip]] = b
	return b[skip : skip+size : skip+size], true
}

func freeImage(image []byte) {
	if len(image) == 0 {
		return
	}
	mappings.Lock()
	defer mappings.Unlock()
	if b, ok := mappings.of[&image[0]]; ok { // otherwise the collector frees it
		delete(mappings.of, &image[0])
		_ = syscall.Munmap(b)
	}
}

// movePages moves the pages of one part of an image to another of the same length,
// whose own are lost. Both are multiples of the page size, and mapped. False if
// the system cannot do that, and nothing has changed.
func movePages(to, from []byte) bool {
	source, target := uintptr(unsafe.Pointer(unsafe.SliceData(from))), uintptr(unsafe.Pointer(unsafe.SliceData(to)))
	n := uintptr(len(from))
	_, _, errno := syscall.Syscall6(syscall.SYS_MREMAP, source, n, n, mremapMayMove|mremapFixed|mremapDontUnmap, target, 0)
	return errno == 0
}
