package functions

import (
	"context"
	"sync"
	"time"
)

const (
	// What waits for an asynchronous call lives in memory, within these bounds.
	maxQueued      = 1000
	maxQueuedBytes = 64 << 20
	// asyncCalls is how many of them run at the same time.
	asyncCalls = 16
	// A call that fails is repeated twice, after a minute and after two more. One
	// that is refused because the function is busy goes on being repeated until it
	// is six hours old.
	maxAge = 6 * time.Hour
)

// asyncPauses are the pauses before the repetitions.
var asyncPauses = []time.Duration{time.Minute, 2 * time.Minute}

// queue holds asynchronous calls. They are not stored: a restart forgets them, as
// the documentation says.
type queue struct {
	r *Registry

	mu      sync.Mutex
	waiting []*pending
	bytes   int
	changed chan struct{} // holds a signal when there is something new
}

type pending struct {
	request  Request
	since    time.Time
	notUntil time.Time
	failures int
	running  bool
}

func newQueue(r *Registry) *queue {
	return &queue{r: r, changed: make(chan struct{}, 1)}
}

// InvokeAsync takes a call on and returns at once. It is refused if its function
// is not there, or if too many calls wait.
func (r *Registry) InvokeAsync(q Request) error {
	name, ok := ParseName(q.Function)
	if !ok {
		return invalidName(q.Function)
	}
	if q.Account == "" {
		q.Account = r.o.Account
	}
	if q.Region == "" {
		q.Region = r.o.Region
	}
	if _, err := r.find(name, name.ARN(q.Account, q.Region)); err != nil {
		return err
	}
	if q.RequestID == "" {
		q.RequestID = newID()
	}
	q.Wait, q.Tail = true, false
	return r.async.add(q)
}

func (a *queue) add(q Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) >= maxQueued || a.bytes+len(q.Payload) > maxQueuedBytes {
		return tooMany("Too many asynchronous calls wait.")
	}
	a.bytes += len(q.Payload)
	now := a.r.o.Now()
	a.waiting = append(a.waiting, &pending{request: q, since: now, notUntil: now})
	a.signal()
	return nil
}

func (a *queue) signal() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// due takes the first call whose time has come, and says when to look again.
func (a *queue) due(now time.Time) (*pending, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pause := time.Minute
	for _, p := range a.waiting {
		if p.running {
			continue
		}
		if d := p.notUntil.Sub(now); d > 0 {
			pause = min(pause, d)
			continue
		}
		p.running = true
		return p, 0
	}
	return nil, pause
}

// done forgets a call, or puts it off.
func (a *queue) done(p *pending, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.running = false
	if again > 0 {
		p.notUntil = a.r.o.Now().Add(again)
		a.signal()
		return
	}
	for i, other := range a.waiting {
		if other == p {
			a.waiting = append(a.waiting[:i], a.waiting[i+1:]...)
			a.bytes -= len(p.request.Payload)
			return
		}
	}
}

// run makes calls until ctx ends, and waits for those it has begun.
func (a *queue) run(ctx context.Context) {
	var calls sync.WaitGroup
	places := make(chan struct{}, asyncCalls)
	defer func() {
		calls.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		if n := len(a.waiting); n > 0 {
			a.r.logger.Warn("asynchronous calls are lost", "calls", n)
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		p, pause := a.due(a.r.o.Now())
		if p != nil {
			calls.Go(func() {
				a.done(p, a.attempt(ctx, p))
				<-places
			})
			continue
		}
		<-places
		timer.Reset(pause)
		select {
		case <-a.changed:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// attempt makes one call and says after which pause to make it again, 0 for never.
func (a *queue) attempt(ctx context.Context, p *pending) time.Duration {
	answer, err := a.r.Invoke(ctx, p.request)
	if err == nil && answer.FunctionError == "" {
		return 0
	}
	if ctx.Err() != nil {
		return time.Minute // stays, to be counted as lost
	}
	now := a.r.o.Now()
	if throttled(err) && now.Sub(p.since) < maxAge {
		return time.Second << min(p.failures, 8)
	}
	p.failures++
	if p.failures > len(asyncPauses) {
		a.r.logger.Warn("asynchronous call failed", "function", p.request.Function, "request", p.request.RequestID, "attempts", p.failures, "error", err)
		return 0
	}
	return asyncPauses[p.failures-1]
}
