package delivery

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// schedules wakes delivery streams when something of theirs is due. One goroutine
// and one timer serve all of them; a delivery stream that is idle is not in it.
type schedules struct {
	wake chan struct{} // the first entry changed; capacity 1

	mu   sync.Mutex
	heap schedule
}

type scheduled struct {
	at     time.Time
	stream *stream
}

type schedule []scheduled

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].at.Before(s[j].at) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].stream.seat, s[j].stream.seat = i, j
}

func (s *schedule) Push(x any) {
	entry := x.(scheduled)
	entry.stream.seat = len(*s)
	*s = append(*s, entry)
}

func (s *schedule) Pop() any {
	last := len(*s) - 1
	entry := (*s)[last]
	(*s)[last] = scheduled{}
	*s = (*s)[:last]
	entry.stream.seat = -1
	return entry
}

// schedule has a delivery stream's tick called at a time, if not before.
func (e *Engine) schedule(s *stream, at time.Time) {
	q := &e.schedules
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case s.seat < 0:
		heap.Push(&q.heap, scheduled{at, s})
	case at.Before(q.heap[s.seat].at):
		q.heap[s.seat].at = at
		heap.Fix(&q.heap, s.seat)
	default:
		return
	}
	if s.seat == 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

func (q *schedules) remove(s *stream) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.seat >= 0 {
		heap.Remove(&q.heap, s.seat)
	}
}

// take removes and returns the first entry if it is due, else how long until it
// is; none means that there is nothing.
func (q *schedules) take(now time.Time) (s *stream, wait time.Duration, none bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return nil, 0, true
	}
	if wait := q.heap[0].at.Sub(now); wait > 0 {
		return nil, wait, false
	}
	return heap.Pop(&q.heap).(scheduled).stream, 0, false
}

// runSchedule calls ticks until ctx ends.
func (e *Engine) runSchedule(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := e.now()
		s, wait, none := e.schedules.take(now)
		if s != nil {
			s.mu.Lock()
			s.due = time.Time{}
			s.mu.Unlock()
			if next := s.tick(now); !next.IsZero() {
				s.mu.Lock()
				s.scheduleLocked(next)
				s.mu.Unlock()
			}
			continue
		}
		timer.Stop()
		if !none {
			timer.Reset(wait)
		}
		select {
		case <-timer.C:
		case <-e.schedules.wake:
		case <-ctx.Done():
		}
	}
}
