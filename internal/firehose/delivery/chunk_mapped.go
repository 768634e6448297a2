//go:build linux && !race

package delivery

import (
	"sync"
	"syscall"
)

// Large chunks live outside the Go heap: all of BufferMemory there would let the
// collector wait until as much again is garbage. Their addresses stay mapped for
// ever, so that a reader which keeps a record's bytes for too long sees zeros, as
// it might see another record of a chunk in the heap, and does no worse. The race
// detector cannot look into them; its builds have the other file.
var mapped struct {
	mu   sync.Mutex
	warm [][]byte
	cold [][]byte // given back to the kernel, which answers with zeros
}

// maxWarm bounds what is kept for the next buffers: 16 MiB. What is given back costs
// a page fault for every page when it is used again.
const maxWarm = 64

func getLarge() []byte {
	mapped.mu.Lock()
	defer mapped.mu.Unlock()
	for _, list := range []*[][]byte{&mapped.warm, &mapped.cold} {
		if n := len(*list); n > 0 {
			c := (*list)[n-1]
			*list = (*list)[:n-1]
			return c
		}
	}
	c, err := syscall.Mmap(-1, 0, largeChunk, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		// It joins the others when it is put back.
		c = newChunk(largeChunk)
	}
	return c[:0]
}

func putLarge(c []byte) {
	mapped.mu.Lock()
	defer mapped.mu.Unlock()
	if len(mapped.warm) < maxWarm {
		mapped.warm = append(mapped.warm, c[:0])
		return
	}
	// Where it fails the memory is only kept.
	_ = syscall.Madvise(c[:largeChunk], syscall.MADV_DONTNEED)
	mapped.cold = append(mapped.cold, c[:0])
}
