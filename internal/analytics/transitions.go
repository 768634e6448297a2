package analytics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/meta"
)

// hosted is what the host was last told of every application.
type hosted struct {
	mu   sync.Mutex
	byID map[string]*hostedApplication
}

// hostedApplication is one application at the host. Its mutex is held while the
// host is being told.
type hostedApplication struct {
	mu   sync.Mutex
	told told
}

// told is what the host runs of an application; zero if nothing.
type told struct {
	run     uint64
	version int64
}

func (h *hosted) entry(id string) *hostedApplication {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID == nil {
		h.byID = map[string]*hostedApplication{}
	}
	e := h.byID[id]
	if e == nil {
		e = new(hostedApplication)
		h.byID[id] = e
	}
	return e
}

func (h *hosted) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID, id)
}

// is reports whether the host was last told what it should run.
func (e *hostedApplication) is(want told) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.told == want
}

// wants is what the host should run of an application.
func (a *application) wants() told {
	if !a.runs() {
		return told{}
	}
	return told{a.record.Runs, a.record.Version}
}

// reconcile has the host run an application as its newest state says. It may be
// repeated.
func (s *Service) reconcile(ctx context.Context, id string) error {
	e := s.hosted.entry(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	a := s.registry.byID(id)
	if a == nil {
		return nil
	}
	want := a.wants()
	if e.told == want {
		return nil
	}
	var err error
	if (want == told{}) {
		err = s.host.Stop(ctx, id)
	} else {
		definition, broken := s.define(&a.record, a.applicationName)
		if broken == nil {
			_, broken = definition.Compile()
		}
		switch {
		case broken != nil:
			// It was checked when it was stored, but may have lost a table since, or the
			// right to extensions. As in the service it runs, processes nothing, and says
			// why: a change that can never be finished would bar the one that mends it.
			err = s.host.Hold(ctx, definition, errors.New(problems(broken)))
		case e.told.run == want.run:
			err = s.host.Update(ctx, definition)
		default:
			err = s.host.Start(ctx, definition)
		}
	}
	if err != nil {
		return fmt.Errorf("bring application %s into line: %w", a.name, err)
	}
	e.told = want
	return nil
}

// finishing is how many changes are finished at a time.
const finishing = 64

// finishers finish changes of state: those of one application one after another,
// and those of different ones side by side. An application that takes its time to
// let go of its rows must not hold up the others.
type finishers struct {
	group sync.WaitGroup
	slots chan struct{}

	mu   sync.Mutex
	busy map[string]bool // by id, those at work; true if something has changed since
	// retry is when those that failed are tried again.
	retry map[string]time.Time
}

func (f *finishers) init() {
	f.slots, f.busy, f.retry = make(chan struct{}, finishing), map[string]bool{}, map[string]time.Time{}
}

// begin takes an application on, unless it is being worked on or failed a moment
// ago: until tells when it is to be tried then.
func (f *finishers) begin(id string, now time.Time) (begun bool, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, is := f.busy[id]; is {
		f.busy[id] = true
		return false, time.Time{}
	}
	if at, failed := f.retry[id]; failed && at.After(now) {
		return false, at
	}
	f.busy[id] = false
	return true, time.Time{}
}

// failed reports whether the last attempt at an application has failed.
func (f *finishers) failed(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.retry[id]
	return failed
}

// end gives an application back, and reports whether it is to be looked at again.
func (f *finishers) end(id string, failed bool, retry time.Time) (again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if again = f.busy[id] || failed; failed {
		f.retry[id] = retry
	} else {
		delete(f.retry, id)
	}
	delete(f.busy, id)
	return again
}

// startDue has what is due finished, without waiting for it, and returns how long
// until something else is due. What ends with more to do wakes Run.
func (s *Service) startDue(ctx context.Context) (wait time.Duration, any bool) {
	now := s.now()
	soonest := func(at time.Time) {
		if d := max(at.Sub(now), 0); !any || d < wait {
			wait, any = d, true
		}
	}
	for _, a := range s.registry.all() {
		if at := time.UnixMilli(a.record.Due); a.record.Due != 0 && at.After(now) {
			soonest(at)
			continue
		}
		id := a.record.ID
		begun, until := s.finishers.begin(id, now)
		if !begun {
			if !until.IsZero() {
				soonest(until)
			}
			continue
		}
		if a.record.Due == 0 && s.hosted.entry(id).is(a.wants()) {
			s.finishers.end(id, false, time.Time{})
			continue
		}
		s.finishers.group.Go(func() {
			err := s.finishInTurn(ctx, a)
			failed := err != nil && ctx.Err() == nil
			if failed {
				s.logger.Error("finish a change of an application; it is tried again", "application", a.name, "account", a.account, "error", err)
			}
			if s.finishers.end(id, failed, s.now().Add(retryAfter)) {
				s.nudge()
			}
		})
	}
	return wait, any && ctx.Err() == nil
}

// finishInTurn is finish when fewer than the others that may be at work are.
func (s *Service) finishInTurn(ctx context.Context, a *application) error {
	select {
	case s.finishers.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.finishers.slots }()
	return s.finish(ctx, a)
}

// finish brings an application to the end of its change of state, and the host
// into line with it. A conflict means that the state has changed: Run looks again.
func (s *Service) finish(ctx context.Context, a *application) error {
	next := a.record
	next.Due = 0
	switch a.record.Status {
	case starting, updating:
		next.Status = running
	case stopping:
		next.Status = ready
	case deleting:
		e := s.hosted.entry(a.record.ID)
		e.mu.Lock()
		defer e.mu.Unlock()
		if err := s.host.Remove(ctx, a.record.ID); err != nil {
			return err
		}
		e.told = told{}
		if _, err := s.commit(ctx, meta.Op{Key: applicationTable.Key(a.account, a.region, a.name), Delete: true, Cond: meta.IfVersion, Version: a.version}); err != nil {
			return err
		}
		s.hosted.forget(a.record.ID)
		return nil
	default:
		return s.reconcile(ctx, a.record.ID)
	}
	if err := s.reconcile(ctx, a.record.ID); err != nil {
		return err
	}
	_, err := s.commit(ctx, a.update(&next))
	return err
}
