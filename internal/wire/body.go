package wire

import (
	"context"
	"errors"
	"io"
	"math/bits"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// firstRead is how much buffer a body gets before any of it has come. It then
	// grows sixteenfold at a time, so that a request has to send bytes to hold
	// memory, and little is copied.
	firstRead = 4 << 10
	growth    = 16
	// smallBody is the size up to which bodies have a budget of their own: calls
	// that are small get through while large bodies wait for memory.
	smallBody = 64 << 10
	// memoryWait is how long a body waits for others to return memory.
	memoryWait = 10 * time.Second
	// bodyGrace and slowestBody give the time a client has to send a body: what
	// is slower than that holds memory for nothing.
	bodyGrace   = 30 * time.Second
	slowestBody = 64 << 10 // bytes a second
)

var (
	errBodyTooLarge = errors.New("body too large")
	errNoMemory     = errors.New("no memory for the body")
)

// Buffers are pooled by powers of two from 4 KiB to 32 MiB. A buffer that grew
// beyond is left to the collector.
const (
	minBufferBits = 12
	maxBufferBits = 25
)

type buffer struct{ b []byte }

var buffers [maxBufferBits - minBufferBits + 1]sync.Pool

// bufferClass is the power of two that holds n bytes.
func bufferClass(n int) int { return max(bits.Len(uint(max(n, 1)-1)), minBufferBits) }

// bufferSize is how much memory getBuffer takes for n bytes.
func bufferSize(n int) int {
	if class := bufferClass(n); class <= maxBufferBits {
		return 1 << class
	}
	return n
}

// getBuffer returns an empty buffer with a capacity of at least n.
func getBuffer(n int) *buffer {
	class := bufferClass(n)
	if class > maxBufferBits {
		return &buffer{make([]byte, 0, n)}
	}
	if b, ok := buffers[class-minBufferBits].Get().(*buffer); ok {
		b.b = b.b[:0]
		return b
	}
	return &buffer{make([]byte, 0, 1<<class)}
}

// putBuffer files a buffer under the largest size it is sure to hold.
func putBuffer(b *buffer) {
	class := bits.Len(uint(cap(b.b))) - 1
	if class < minBufferBits || class > maxBufferBits {
		return
	}
	buffers[class-minBufferBits].Put(b)
}

// body is a request's body in pooled memory that counts against a budget:
// that of small bodies, or that of all others.
type body struct {
	buf     *buffer
	charged int64
	budget  *semaphore.Weighted
}

func (b *body) bytes() []byte {
	if b.buf == nil {
		return nil
	}
	return b.buf.b
}

func (m *Mux) release(b *body) {
	if b.buf != nil {
		putBuffer(b.buf)
		b.budget.Release(b.charged)
		*b = body{}
	}
}

// readBody reads the whole body. Its errors are errBodyTooLarge, errNoMemory,
// or that the client did not send what it announced.
func (m *Mux) readBody(w http.ResponseWriter, r *http.Request, b *body) error {
	size := r.ContentLength
	if size > m.options.MaxBody {
		return errBodyTooLarge
	}
	if size == 0 {
		return nil
	}
	control := http.NewResponseController(w)
	want := int64(firstRead)
	if size > 0 {
		want = min(size, firstRead)
	}
	if err := m.grow(r.Context(), b, int(want)); err != nil {
		return err
	}
	deadline := func(n int64) {
		control.SetReadDeadline(time.Now().Add(bodyGrace + time.Duration(n)*time.Second/slowestBody))
	}
	deadline(want)
	// The deadline must not outlive the body: net/http goes on reading to learn
	// of a client that leaves, and would take it for one.
	defer control.SetReadDeadline(time.Time{})
	for {
		free := b.buf.b[len(b.buf.b):cap(b.buf.b)]
		if size > 0 {
			free = free[:min(int64(len(free)), size-int64(len(b.buf.b)))]
		}
		n, err := io.ReadFull(r.Body, free)
		b.buf.b = b.buf.b[:len(b.buf.b)+n]
		got := int64(len(b.buf.b))
		switch {
		case got > m.options.MaxBody:
			return errBodyTooLarge
		case size > 0 && got == size:
			return nil
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if size > 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		case err != nil:
			return err
		}
		// One byte more than allowed is room enough to see that it is too much.
		next := min(got*growth, m.options.MaxBody+1)
		if size > 0 {
			next = min(got*growth, size)
		}
		if err := m.grow(r.Context(), b, int(next)); err != nil {
			return err
		}
		deadline(next)
	}
}

// grow gives b a buffer for n bytes and moves there what it holds. The memory
// is granted before it is taken: those who wait hold what they have, and no more.
func (m *Mux) grow(ctx context.Context, b *body, n int) error {
	size := int64(bufferSize(n))
	budget := m.memory
	if size <= smallBody {
		budget = m.smallMemory
	}
	more := size
	if budget == b.budget {
		more -= b.charged
	}
	if more > 0 && !budget.TryAcquire(more) {
		ctx, cancel := context.WithTimeout(ctx, memoryWait)
		err := budget.Acquire(ctx, more)
		cancel()
		if err != nil {
			return errNoMemory
		}
	}
	buf := getBuffer(n)
	if b.buf != nil {
		buf.b = append(buf.b, b.buf.b...)
		putBuffer(b.buf)
		if budget != b.budget {
			b.budget.Release(b.charged)
		}
	}
	b.buf, b.charged, b.budget = buf, size, budget
	return nil
}
