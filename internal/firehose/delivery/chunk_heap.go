//go:build !linux || race

package delivery

import (
	"sync"
	"unsafe"
)

var largeChunks sync.Pool

func getLarge() []byte {
	if p, ok := largeChunks.Get().(*byte); ok {
		return unsafe.Slice(p, largeChunk)[:0]
	}
	return newChunk(largeChunk)
}

func putLarge(c []byte) { largeChunks.Put(unsafe.SliceData(c[:1])) }
