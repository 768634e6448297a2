package analytics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
)

// Options of a Service. Meta and Host are required.
type Options struct {
	Meta *meta.Store
	Host Host
	// Sources gives samples of what streams hold, Objects those of objects, and
	// Functions process them, all for DiscoverInputSchema. One that is nil has
	// nothing.
	Sources   Sources
	Objects   func(ctx context.Context, role string) objects.Store
	Functions Functions
	// Now is the clock of everything a caller can see; time.Now if nil.
	Now func() time.Time
	// StateDelay is how long changes of state take at least; the service waits a
	// tick in any case.
	StateDelay time.Duration
	// MaxApplications bounds the applications of an account in a region; 50 if
	// zero.
	MaxApplications int
	// Extensions allows in all programs what is not part of the dialect. Without
	// it, applications with the tag millrace:sql-extensions=on have it.
	Extensions bool
	Logger     *slog.Logger
}

// extensionsTag turns extensions of the dialect on for one application.
const extensionsTag = "millrace:sql-extensions"

// tick is the least time that a change of state can be seen.
const tick = 50 * time.Millisecond

// retryAfter is when Run asks the host again after a failure.
const retryAfter = time.Second

// Service keeps applications. It is made by New; Run must run for changes of
// state. V1 and V2 serve its APIs.
type Service struct {
	options  Options
	meta     *meta.Store
	host     Host
	now      func() time.Time
	logger   *slog.Logger
	registry registry
	cancel   func()        // of the watch
	wake     chan struct{} // tells Run that something has changed; capacity 1
	hosted   hosted

	finishers finishers

	close sync.Once
}

// New makes a Service, reads what is stored, and has the host run every
// application that runs.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Meta == nil || o.Host == nil {
		return nil, errors.New("analytics: metadata and a host are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxApplications <= 0 {
		o.MaxApplications = 50
	}
	s := &Service{options: o, meta: o.Meta, host: o.Host, now: o.Now, logger: o.Logger, wake: make(chan struct{}, 1)}
	s.registry.init()
	s.finishers.init()
	s.cancel = s.meta.Watch(watchPrefix, func(changes []meta.Change) {
		s.registry.apply(changes)
		s.nudge()
	})
	if err := s.registry.failure(); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open applications: %w", err)
	}
	for _, a := range s.registry.all() {
		if a.record.Status == deleting {
			continue
		}
		if err := s.reconcile(ctx, a.record.ID); err != nil {
			if ctx.Err() != nil {
				s.cancel()
				return nil, err
			}
			// One application must not keep the others from running.
			s.logger.Error("run an application; it is tried again", "application", a.name, "account", a.account, "error", err)
		}
	}
	return s, nil
}

// nudge has Run look at the metadata again.
func (s *Service) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run finishes changes of state until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.finishers.group.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		wait, any := s.startDue(ctx)
		timer.Stop()
		if any {
			timer.Reset(wait)
		}
	}
}

// Close ends the watch of the metadata. Call it after Run has returned and no
// call is in flight. What the host runs, it goes on running.
func (s *Service) Close() error {
	s.close.Do(s.cancel)
	return nil
}

// due is when a change of state that begins now ends.
func (s *Service) due() int64 { return s.now().Add(max(s.options.StateDelay, tick)).UnixMilli() }
