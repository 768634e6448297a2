package analytics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
const finishing = 8

// finishDue finishes what is due and returns how long until the next change is.
func (s *Service) finishDue(ctx context.Context) (wait time.Duration, any bool) {
	now := s.now()
	var mu sync.Mutex
	soonest := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		if d := max(at.Sub(now), 0); !any || d < wait {
			wait, any = d, true
		}
	}
	var work errgroup.Group
	work.SetLimit(finishing)
	for _, a := range s.registry.all() {
		at := time.UnixMilli(a.record.Due)
		if a.record.Due != 0 && at.After(now) {
			soonest(at)
			continue
		}
		work.Go(func() error {
			if err := s.finish(ctx, a); err != nil && ctx.Err() == nil {
				s.logger.Error("finish a change of an application; it is tried again", "application", a.name, "account", a.account, "error", err)
				soonest(now.Add(retryAfter))
			}
			return nil
		})
	}
	_ = work.Wait() // failures are logged above
	return wait, any && ctx.Err() == nil
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
