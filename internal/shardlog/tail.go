package shardlog

import (
	"sync"
	"time"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// staleAfter is how old a waiting channel gets before it is closed to find out
// whether anybody still waits. Nobody tells us when they stop: they just let go
// of the channel.
const staleAfter = time.Minute

// closed is what those get who would wait for a shard that is not there.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// tails holds one channel for every shard that somebody waits for.
type tails struct {
	now     func() time.Time
	stripes [stripes]tailStripe
}

type tailStripe struct {
	mu      sync.Mutex
	waiting map[driver.ShardID]waiter
	peak    int       // most entries since waiting was made
	swept   time.Time // when stale entries were last looked for
	_       [64]byte
}

type waiter struct {
	changed chan struct{}
	since   time.Time
}

// wait returns the channel that the next wake of the shard closes.
func (t *tails) wait(id driver.ShardID) <-chan struct{} {
	s := &t.stripes[id%stripes]
	now := t.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked(now)
	w, ok := s.waiting[id]
	if !ok {
		w = waiter{changed: make(chan struct{}), since: now}
		if s.waiting == nil {
			s.waiting = make(map[driver.ShardID]waiter)
		}
		s.waiting[id] = w
		s.peak = max(s.peak, len(s.waiting))
	}
	return w.changed
}

// wake closes the shard's channel, if there is one.
func (t *tails) wake(id driver.ShardID) {
	s := &t.stripes[id%stripes]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	if w, ok := s.waiting[id]; ok {
		s.dropLocked(id, w)
	}
	s.sweepLocked(t.now())
}

// wakeAll closes every channel.
func (t *tails) wakeAll() {
	for i := range t.stripes {
		s := &t.stripes[i]
		s.mu.Lock()
		for id, w := range s.waiting {
			s.dropLocked(id, w)
		}
		s.mu.Unlock()
	}
}

// sweepLocked closes channels that have become stale. It looks at a stripe at
// most once in staleAfter, so a channel lives for up to twice that.
func (s *tailStripe) sweepLocked(now time.Time) {
	if len(s.waiting) == 0 {
		return
	}
	if now.Sub(s.swept) < staleAfter {
		return
	}
	s.swept = now
	for id, w := range s.waiting {
		if now.Sub(w.since) >= staleAfter {
			s.dropLocked(id, w)
		}
	}
}

func (s *tailStripe) dropLocked(id driver.ShardID, w waiter) {
	close(w.changed)
	delete(s.waiting, id)
	// Maps do not shrink. A small one is kept for the next waiter.
	if len(s.waiting) == 0 && s.peak > 8 {
		s.waiting, s.peak = nil, 0
	}
}
