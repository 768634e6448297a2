package host

import (
	"context"
	"sync"
	"time"
)

const (
	arenaBytes = 64 << 10 // rows that are handed on together, if there are so many
	queueBytes = 8 << 20  // rows of an output that are not durable, each item with itemBytes
	itemBytes  = 256      // what an item takes besides its rows
	writeBytes = 2 << 20  // rows of one Write
	arenasKept = 32
)

// arena holds rows one behind the other.
type arena struct {
	bytes []byte
	ends  []int // of the rows in bytes
}

// rows appends the rows to list.
func (a *arena) rows(list [][]byte) [][]byte {
	from := 0
	for _, end := range a.ends {
		list = append(list, a.bytes[from:end:end])
		from = end
	}
	return list
}

// item is an element of a queue: rows, or a barrier behind those that came before.
type item struct {
	arena   *arena
	barrier *barrier
	last    bool // of what one step of the program made
	step    uint64
	ordinal uint64 // of the first row among those of its step
}

// queue has the rows of an output on their way from the program to where they
// become durable. It is bounded in bytes, with those that are being delivered. One
// goroutine puts, another one takes.
type queue struct {
	mu     sync.Mutex
	items  []item
	bytes  int // of all rows that are not released
	closed bool
	spare  []*arena
	filled chan struct{} // holds a token if there may be items, or the end
	room   chan struct{} // holds a token if there may be room
}

func newQueue() *queue {
	return &queue{filled: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put appends an item when there is room for it; false if ctx ends first.
func (q *queue) put(ctx context.Context, it item) bool {
	for {
		q.mu.Lock()
		if it.arena == nil || q.bytes < queueBytes {
			q.items = append(q.items, it)
			if it.arena != nil {
				q.bytes += len(it.arena.bytes) + itemBytes
			}
			q.mu.Unlock()
			signal(q.filled)
			return true
		}
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-ctx.Done():
			return false
		}
	}
}

// take appends items to list until their rows have max bytes, and waits for the
// first if there is none; without one if wait delivers something first. ok is
// false if the queue is closed and empty.
func (q *queue) take(list []item, max int, wait <-chan time.Time) (items []item, bytes int, ok bool) {
	for {
		q.mu.Lock()
		n := 0
		for n < len(q.items) && bytes < max {
			if a := q.items[n].arena; a != nil {
				bytes += len(a.bytes)
			}
			n++
		}
		if n > 0 {
			list = append(list, q.items[:n]...)
			rest := copy(q.items, q.items[n:])
			clear(q.items[rest:])
			q.items = q.items[:rest]
			q.mu.Unlock()
			return list, bytes, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return list, 0, false
		}
		select {
		case <-q.filled:
		case <-wait:
			return list, 0, true
		}
	}
}

// release makes room of items whose rows are durable, or lost.
func (q *queue) release(items []item) {
	q.mu.Lock()
	for _, it := range items {
		if it.arena == nil {
			continue
		}
		q.bytes -= len(it.arena.bytes) + itemBytes
		if len(q.spare) < arenasKept && cap(it.arena.bytes) <= 4*arenaBytes {
			it.arena.bytes, it.arena.ends = it.arena.bytes[:0], it.arena.ends[:0]
			q.spare = append(q.spare, it.arena)
		}
	}
	q.mu.Unlock()
	signal(q.room)
}

// empty is an arena to be filled.
func (q *queue) empty() *arena {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.spare); n > 0 {
		a := q.spare[n-1]
		q.spare = q.spare[:n-1]
		return a
	}
	return &arena{}
}

// close says that nothing more is put.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	signal(q.filled)
}

// barrier stands behind the rows of a moment in the queues of all outputs.
type barrier struct {
	mu   sync.Mutex
	left int
	lost bool
	done chan struct{} // closed when all rows before it are durable, or lost
}

func newBarrier(outputs int) *barrier {
	b := &barrier{left: outputs, done: make(chan struct{})}
	if outputs == 0 {
		close(b.done)
	}
	return b
}

// pass says that an output's rows before the barrier are durable, or lost.
func (b *barrier) pass(lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = b.lost || lost
	if b.left--; b.left == 0 {
		close(b.done)
	}
}
