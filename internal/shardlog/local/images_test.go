//go:build linux

package local

import (
	"syscall"
	"testing"
	"unsafe"
)

// resident counts the pages of an image that the kernel holds.
func resident(t *testing.T, image []byte) int {
	t.Helper()
	vector := make([]byte, len(image)/4096)
	_, _, errno := syscall.Syscall(syscall.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(image))), uintptr(len(image)), uintptr(unsafe.Pointer(unsafe.SliceData(vector))))
	if errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, v := range vector {
		n += int(v & 1)
	}
	return n * 4096
}

// fill writes a part of an image as appends do: each piece once it is supplied.
func fill(p *imagePool, image []byte, end int, value byte) {
	supplied := 0
	for supplied < end {
		at := supplied
		supplied = p.supply(image, supplied)
		for ; at < min(supplied, end); at += 512 {
			image[at] = value
		}
	}
}

// TestImagesPassTheirMemoryOn: a new image takes the pages of the old one piece by
// piece, and what it holds is never touched by that.
func TestImagesPassTheirMemoryOn(t *testing.T) {
	p := imagePool{size: 32 << 20}
	defer func() { p.drain(0) }()
	first := p.get()
	fill(&p, first, p.size, 1)
	// The second fills beside it, since the first has not been sealed yet.
	second := p.get()
	supplied := p.supply(second, 0)
	for i := range second[:supplied] {
		second[i] = 2
	}
	p.put(first)
	if p.whole {
		t.Skip("this kernel does not move pages")
	}
	for supplied < len(second) {
		at := supplied
		supplied = p.supply(second, supplied)
		if p.whole {
			t.Skip("this kernel does not move pages")
		}
		if got, all := resident(t, second), resident(t, first); got != supplied || got+all != p.size+imagePiece {
			t.Errorf("%d bytes of the new image are there before they are written, want %d; %d with the old one", got, supplied, got+all)
		}
		for i := range second[at:supplied] {
			second[at+i] = 2
		}
	}
	for i, b := range second {
		if b != 2 {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	// What was left of the first goes to the third.
	third := p.get()
	if got := resident(t, third); got != 0 && unsafe.SliceData(third) != unsafe.SliceData(first) {
		t.Errorf("a fresh image has %d bytes", got)
	}
	fill(&p, third, len(third), 3)
	p.put(second)
	p.put(third)
	kept := 0
	for _, o := range p.old {
		kept += resident(t, o.image)
	}
	if kept > p.size*3/2 {
		t.Errorf("%d bytes of old images are kept", kept)
	}
}

// TestImagesWithoutMoving: where pages stay where they are, old images are used
// again as a whole, and two are kept.
func TestImagesWithoutMoving(t *testing.T) {
	p := imagePool{size: 64 << 10} // from the heap
	a, b, c := p.get(), p.get(), p.get()
	fill(&p, a, len(a), 1)
	p.put(a)
	p.put(b)
	p.put(c)
	if len(p.old) != wholeImages {
		t.Errorf("%d images are kept", len(p.old))
	}
	if d := p.get(); unsafe.SliceData(d) != unsafe.SliceData(c) {
		t.Error("an old image is not used again")
	}
}
