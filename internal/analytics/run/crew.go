package run

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// crew does the parts of a piece of work side by side. Its goroutines live for as
// long as the piece does, so that an application has none between its calls.
type crew struct {
	n int
	// observe does the work in place of do; benchmarks measure the parts with it.
	observe func(n int, f func(i int))
}

func newCrew(workers int) *crew {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &crew{n: min(workers, maxLanes)}
}

// maxLanes bounds what dividing a state costs.
const maxLanes = 64

func (c *crew) size() int {
	if c == nil {
		return 1
	}
	return c.n
}

// do calls f for every number below n, on as many goroutines as there are workers
// and parts, of which the caller's is one. It returns when all calls have; a panic
// in one is the caller's.
func (c *crew) do(n int, f func(i int)) {
	helpers := min(c.size(), n) - 1
	if helpers > 0 && c.observe != nil {
		c.observe(n, f)
		return
	}
	if helpers <= 0 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var failed atomic.Pointer[any]
	work := func() {
		defer func() {
			if r := recover(); r != nil {
				failed.CompareAndSwap(nil, &r)
			}
		}()
		for {
			i := int(next.Add(1)) - 1
			if i >= n || failed.Load() != nil {
				return
			}
			f(i)
		}
	}
	var all sync.WaitGroup
	for range helpers {
		all.Go(work)
	}
	work()
	all.Wait()
	if r := failed.Load(); r != nil {
		panic(*r)
	}
}
