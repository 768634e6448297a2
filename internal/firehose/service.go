package firehose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
)

// Every operation of the model is served.
var _ firehose.Handler = (*Service)(nil)

// Engine runs delivery streams; *delivery.Engine is one.
type Engine interface {
	// Apply starts a delivery stream, or continues it as the definition says. It
	// owns the destinations of the definition from then on.
	Apply(ctx context.Context, d *delivery.Definition) error
	// Remove ends a delivery stream and forgets what it has not delivered; with
	// drain it delivers that first, within a bound. What is not there is no error.
	Remove(ctx context.Context, id string, drain bool) error
	// Put stores records, durable at return, all or none of them.
	Put(ctx context.Context, id string, records [][]byte) (recordIDs []string, encrypted bool, err error)
}

// Quota admits direct puts; *quota.Limiter is one.
type Quota interface {
	// Enforced reports whether anything is refused at all.
	Enforced() bool
	// Delivery admits a call with these records: how many of them, from
	// the front. Zero refuses the call.
	Delivery(id uint64, records [][]byte) int
}

// Roles tells which roles exist; the directory of users is one.
type Roles interface {
	// Assumable is nil if the service may assume a role.
	Assumable(arn string) error
}

// Options of a Service. Meta, Keyring and Engine are required.
type Options struct {
	Meta    *meta.Store
	Keyring *keyring.Ring
	Engine  Engine
	// Parts are what destinations are built from.
	Parts Parts
	// Quota decides about the rates of puts; nil admits all.
	Quota Quota
	// Roles, if set, must know every role that a configuration names, and roles
	// are of the caller's account.
	Roles Roles
	// Now is the clock of everything a caller can see; time.Now if nil.
	Now func() time.Time
	// StateDelay is how long changes of state take at least; the service waits a
	// tick in any case.
	StateDelay time.Duration
	// MaxStreams bounds the delivery streams of an account in a region; 5,000 if
	// zero. It holds always.
	MaxStreams int
	// Daily enforces what is limited per 24 hours or by key: 25 starts and stops
	// of encryption, 500 delivery streams under one key.
	Daily bool
	// DrainOnDelete delivers what a deleted delivery stream holds, which the
	// service does not.
	DrainOnDelete bool
	// LogsPrincipals are the principals that count as CloudWatch Logs, ARNs or
	// their beginnings before a star. Empty counts everybody: only they may put
	// to delivery streams that decompress.
	LogsPrincipals []string
	Logger         *slog.Logger
	Metrics        delivery.Metrics
}

// tick is the least time that a change of state can be seen.
const tick = 50 * time.Millisecond

// retryAfter is when Run tries a failed change again.
const retryAfter = time.Second

// Service serves every operation of Firehose. It is made by New; Run must run
// for changes of state.
type Service struct {
	options  Options
	meta     *meta.Store
	keyring  *keyring.Ring
	engine   Engine
	now      func() time.Time
	logger   *slog.Logger
	registry registry
	cancel   func()        // of the watch
	wake     chan struct{} // tells Run that there is a new transition; capacity 1
	running  running

	close sync.Once
}

// New makes a Service, reads what is stored, and gives the engine every delivery
// stream that is ACTIVE. One that cannot be put together any more, because the
// operator's settings have changed, takes records and reports its failure until
// it can.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Meta == nil || o.Keyring == nil || o.Engine == nil {
		return nil, errors.New("firehose: metadata, a keyring and an engine are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = noMetrics{}
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = 5000
	}
	s := &Service{
		options: o, meta: o.Meta, keyring: o.Keyring, engine: o.Engine, now: o.Now, logger: o.Logger,
		wake: make(chan struct{}, 1),
	}
	s.registry.init(o.Metrics)
	s.cancel = s.meta.Watch(watchPrefix, func(changes []meta.Change) {
		s.registry.apply(changes)
		s.nudge()
	})
	s.registry.mu.RLock()
	err := s.registry.err
	s.registry.mu.RUnlock()
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("open delivery streams: %w", err)
	}
	for _, st := range s.registry.all() {
		if err := s.reconcile(ctx, st.record.ID); err != nil {
			if ctx.Err() != nil {
				s.cancel()
				return nil, err
			}
			// One delivery stream must not keep the others from running.
			s.logger.Error("run a delivery stream; it is tried again", "stream", st.name, "account", st.account, "error", err)
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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		wait, any := s.finishDue(ctx)
		timer.Stop()
		if any {
			timer.Reset(wait)
		}
	}
}

// Close ends the watch of the metadata. Call it after Run has returned and no
// call is in flight.
func (s *Service) Close() error {
	s.close.Do(s.cancel)
	return nil
}

// due is when a change that begins now ends.
func (s *Service) due() int64 { return s.now().Add(max(s.options.StateDelay, tick)).UnixMilli() }
