package streams

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// Every operation of the model is served.
var _ kinesis.Handler = (*Service)(nil)

// New makes a Service over a log and the metadata, and reads what is stored.
func New(o Options) (*Service, error) {
	if o.Log == nil || o.Meta == nil {
		return nil, errors.New("streams: a log and metadata are required")
	}
	s := &Service{
		log: o.Log, meta: o.Meta, keyring: o.Keyring, now: o.Now, stateDelay: o.StateDelay, trimEvery: o.TrimInterval,
		maxShards: o.MaxShards, scaleSteps: scaleSteps, limits: o.Limits, scaler: o.Scaler, channels: o.Channels, logger: o.Logger, metrics: o.Metrics,
		wake: make(chan struct{}, 1),
	}
	s.quota = o.Quota
	if s.now == nil {
		s.now = time.Now
	}
	if s.trimEvery <= 0 {
		s.trimEvery = time.Minute
	}
	if s.maxShards <= 0 {
		s.maxShards = DefaultMaxShards
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.metrics == nil {
		s.metrics = noMetrics{}
	}
	if s.channels == nil {
		s.channels = noDelivery{}
	}
	s.limits.setDefaults()
	if err := s.openTokenKey(context.Background()); err != nil {
		return nil, err
	}
	s.registry.init(s.metrics, s.now)
	s.cancel = s.meta.Watch(watchPrefix, func(changes []meta.Change) {
		if s.registry.apply(changes) {
			s.nudge()
		}
	})
	s.registry.mu.RLock()
	err := s.registry.err
	s.registry.mu.RUnlock()
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("open streams: %w", err)
	}
	if err := s.queues.open(s); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open queues: %w", err)
	}
	if err := s.initDataPlane(); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open streams: %w", err)
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

// Run finishes changes that take time, or that a stop or a failure interrupted,
// removes what has expired, and lets on-demand streams grow, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.resumeChannels(ctx)
	trim := time.NewTicker(s.trimEvery)
	defer trim.Stop()
	var grow <-chan time.Time
	if s.scaler.Interval > 0 {
		t := time.NewTicker(s.scaler.Interval)
		defer t.Stop()
		grow = t.C
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
		case <-trim.C:
			s.trim(ctx)
			if err := s.queues.sweep(ctx); err != nil && ctx.Err() == nil {
				s.logger.Error("sweep queues", "error", err)
			}
		case <-grow:
			s.scale(ctx)
		}
		wait, any := s.finishDue(ctx)
		timer.Stop()
		if any {
			timer.Reset(wait)
		}
	}
}

// tokenKey seals page tokens. It is stored, so that a token survives a restart
// and holds on every server of a cluster.
type tokenKey [32]byte

const tokenKeyRecord = "streams-token-key"

func (s *Service) openTokenKey(ctx context.Context) error {
	for {
		if r, ok := s.meta.Get(tokenKeyRecord); ok {
			if len(r.Value) != len(s.tokens) {
				return fmt.Errorf("open streams: metadata record %q is damaged", tokenKeyRecord)
			}
			copy(s.tokens[:], r.Value)
			return nil
		}
		var key tokenKey
		rand.Read(key[:])
		if _, err := s.commit(ctx, meta.Op{Key: tokenKeyRecord, Value: key[:], Cond: meta.Absent}); err != nil {
			return err
		}
	}
}
