package local

import (
	"sync"

	"github.com/millrace/millrace/internal/vfs"
)

// imagePool makes images, and keeps the memory of old ones for new ones, because
// fresh memory costs a page fault every few kilobytes.
//
// An image is written from front to end, and one that was sealed is not read any
// more. So the pages of an old image are moved, where the system can do that,
// under the piece of the current one that is written next. A log at full speed so
// holds little more than one image: what is appended while another is sealed comes
// on top, and not a second image as a whole.
type imagePool struct {
	size int // of images, in bytes

	mu    sync.Mutex
	old   []oldImage
	empty [][]byte // addresses without pages
	whole bool     // pages cannot be moved: old images are used again as they are
}

// oldImage is a sealed image. Pages in front of next have been moved away.
type oldImage struct {
	image []byte
	next  int
}

const (
	// imagePiece is how much is moved at a time: some tens of microseconds.
	imagePiece = 8 << 20
	// wholeImages is how many old images are kept where pages cannot be moved.
	wholeImages = 2
)

// allocate makes an image of any size.
func (p *imagePool) allocate(size int) []byte {
	image, movable := allocateImage(size)
	if !movable {
		p.mu.Lock()
		p.whole = true
		p.mu.Unlock()
	}
	return image
}

// get returns an image of the pool's size. Its content is arbitrary.
func (p *imagePool) get() []byte {
	p.mu.Lock()
	if n := len(p.old); n > 0 && p.whole {
		image := p.old[n-1].image
		p.old = p.old[:n-1]
		p.mu.Unlock()
		return image
	}
	if n := len(p.empty); n > 0 {
		image := p.empty[n-1]
		p.empty = p.empty[:n-1]
		p.mu.Unlock()
		return image
	}
	p.mu.Unlock()
	return p.allocate(p.size)
}

// supply prepares the piece of an image that begins at from, and which nobody has
// used yet, and returns where it ends. Without an old image its pages are fresh.
func (p *imagePool) supply(image []byte, from int) (to int) {
	to = min(from+imagePiece, len(image))
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.old) == 0 || p.whole || len(image) != p.size {
		return to
	}
	o := &p.old[0]
	n := min(to-from, len(o.image)-o.next)
	if !movePages(image[from:from+n], o.image[o.next:o.next+n]) {
		p.whole = true
		return to
	}
	if o.next += n; o.next == len(o.image) {
		p.empty = append(p.empty, o.image)
		p.old = p.old[1:]
	}
	return from + n
}

// put takes an image that nobody uses any more.
func (p *imagePool) put(image []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(image) != p.size {
		freeImage(image)
		return
	}
	p.old = append(p.old, oldImage{image: image})
	if p.whole {
		p.drainLocked(wholeImages)
		return
	}
	// The current image needs no more than one has, and half of one on top is for
	// sealing that takes now longer and now less.
	left := 0
	for _, o := range p.old {
		left += len(o.image) - o.next
	}
	for left > p.size+p.size/2 {
		left -= len(p.old[0].image) - p.old[0].next
		p.drainLocked(len(p.old) - 1)
	}
}

// drain frees all but n images.
func (p *imagePool) drain(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drainLocked(n)
}

func (p *imagePool) drainLocked(n int) {
	for len(p.old) > n {
		freeImage(p.old[0].image)
		p.old = p.old[1:]
	}
	for len(p.empty) > n {
		freeImage(p.empty[0])
		p.empty = p.empty[1:]
	}
}

func heapImage(size int) []byte { return vfs.AlignedBuffer(size) }
