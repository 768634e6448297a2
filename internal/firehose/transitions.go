package firehose

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
)

// running is what the engine was last told of every delivery stream.
type running struct {
	mu   sync.Mutex
	byID map[string]*runningStream
}

// runningStream is one delivery stream at the engine. Its mutex is held while
// the engine is being told.
type runningStream struct {
	mu      sync.Mutex
	applied atomic.Pointer[applied] // nil if it does not run
}

// applied is what the engine runs of a delivery stream.
type applied struct {
	version int
	dataKey string // that seals
}

// runs reports whether a delivery stream in its state is the engine's.
func (st *stream) runs() bool {
	switch st.record.Status {
	case firehose.DeliveryStreamStatusActive, firehose.DeliveryStreamStatusDeleting, firehose.DeliveryStreamStatusDeletingFailed:
		return true
	}
	return false
}

// stale lists what the engine does not run as the newest states say: after a
// failure, or when another server has made the change.
func (s *Service) stale() []string {
	s.running.mu.Lock()
	defer s.running.mu.Unlock()
	var ids []string
	for _, st := range s.registry.all() {
		if !st.runs() {
			continue
		}
		e := s.running.byID[st.record.ID]
		if e == nil {
			ids = append(ids, st.record.ID)
		} else if a := e.applied.Load(); a == nil || *a != (applied{st.record.Version, st.record.Encryption.DataKey}) {
			ids = append(ids, st.record.ID)
		}
	}
	for id := range s.running.byID {
		if s.registry.byID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func (r *running) entry(id string) *runningStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = map[string]*runningStream{}
	}
	e := r.byID[id]
	if e == nil {
		e = new(runningStream)
		r.byID[id] = e
	}
	return e
}

func (r *running) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}

// reconcile has the engine run a delivery stream as its newest state says. It
// may be repeated.
func (s *Service) reconcile(ctx context.Context, id string) error {
	e := s.running.entry(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	st := s.registry.byID(id)
	if st == nil {
		if e.applied.Load() != nil {
			if err := s.engine.Remove(ctx, id, false); err != nil {
				return err
			}
			e.applied.Store(nil)
		}
		s.running.forget(id)
		return nil
	}
	want := applied{st.record.Version, st.record.Encryption.DataKey}
	if a := e.applied.Load(); !st.runs() || a != nil && *a == want {
		return nil
	}
	definition, err := s.assemble(ctx, st)
	if err != nil {
		s.logger.Error("delivery stream cannot deliver; what is put is kept", "stream", st.name, "account", st.account, "error", err)
		definition = s.broken(st, err)
	}
	if err := s.engine.Apply(ctx, definition); err != nil {
		return fmt.Errorf("run delivery stream %s: %w", st.name, err)
	}
	e.applied.Store(&want)
	return nil
}

// finishing is how many changes are finished at a time: they wait for the disk,
// and share its syncs.
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
	for _, st := range s.registry.all() {
		var due int64
		finish := s.finish
		switch p := st.record.Pending; {
		case p != nil:
			due = p.Due
		case st.record.Encryption.Due != 0:
			due, finish = st.record.Encryption.Due, s.finishEncryption
		default:
			continue
		}
		if at := time.UnixMilli(due); at.After(now) {
			soonest(at)
			continue
		}
		work.Go(func() error {
			if err := finish(ctx, st); err != nil && ctx.Err() == nil {
				s.logger.Error("finish a change of a delivery stream; it is tried again", "stream", st.name, "account", st.account, "error", err)
				soonest(now.Add(retryAfter))
			}
			return nil
		})
	}
	_ = work.Wait() // failures are logged above
	if ctx.Err() != nil {
		return 0, false
	}
	for _, id := range s.stale() {
		if err := s.reconcile(ctx, id); err != nil {
			if ctx.Err() != nil {
				return 0, false
			}
			s.logger.Error("bring a delivery stream into line; it is tried again", "id", id, "error", err)
			soonest(now.Add(retryAfter))
		}
	}
	return wait, any
}

// finish brings a delivery stream to the end of its transition. A conflict
// means that the state has changed: Run looks again.
func (s *Service) finish(ctx context.Context, st *stream) error {
	switch p := st.record.Pending; p.Kind {
	case creating:
		return s.finishCreate(ctx, st)
	case deleting:
		return s.finishDelete(ctx, st)
	default:
		return fmt.Errorf("unknown change %q", p.Kind)
	}
}

func (s *Service) finishCreate(ctx context.Context, st *stream) error {
	record := st.record
	record.Pending, record.Status = nil, firehose.DeliveryStreamStatusActive
	if e := &record.Encryption; e.Status == firehose.DeliveryStreamEncryptionStatusEnabling {
		key, failure, err := s.newDataKey(ctx, st, e)
		if err != nil {
			return err
		}
		e.Due = 0
		if failure != nil {
			e.Status, e.Failure = firehose.DeliveryStreamEncryptionStatusEnablingFailed, failure
			record.Status, record.Failure = firehose.DeliveryStreamStatusCreatingFailed, failure
		} else {
			e.Status, e.DataKey, e.DataKeyARN = firehose.DeliveryStreamEncryptionStatusEnabled, key, e.KeyARN
		}
	}
	return s.settle(ctx, st, record)
}

// settle stores a record and brings the engine into line.
func (s *Service) settle(ctx context.Context, st *stream, record streamRecord) error {
	if _, err := s.commit(ctx, st.update(record)); err != nil {
		return err
	}
	return s.reconcile(ctx, st.record.ID)
}

func (s *Service) finishDelete(ctx context.Context, st *stream) error {
	// A key that cannot be used cannot release its grant either.
	if e := st.record.Encryption; e.DataKeyARN != "" && !st.record.Forced {
		if err := s.keyring.Check(keyring.Scope{Account: st.account, Region: st.region}, e.DataKeyARN); err != nil {
			record := st.record
			record.Pending, record.Status = nil, firehose.DeliveryStreamStatusDeletingFailed
			record.Failure = &failureRecord{firehose.DeliveryStreamFailureTypeRetireKmsGrantFailed,
				"The grant on the KMS key " + e.DataKeyARN + " could not be retired: " + keyReason(err)}
			_, err := s.commit(ctx, st.update(record))
			return err
		}
	}
	entry := s.running.entry(st.record.ID)
	entry.mu.Lock()
	defer entry.mu.Unlock()
	if err := s.remove(ctx, st); err != nil {
		return err
	}
	entry.applied.Store(nil)
	if _, err := s.commit(ctx, meta.Op{Key: streamTable.Key(st.account, st.region, st.name), Delete: true, Cond: meta.IfVersion, Version: st.version}); err != nil {
		return err
	}
	s.running.forget(st.record.ID)
	return nil
}

// drainBound is how long a deletion waits for what is undelivered: other changes
// wait with it.
const drainBound = 30 * time.Second

// remove ends a delivery stream at the engine, with what it has not delivered if
// the operator wants that and the destination takes it.
func (s *Service) remove(ctx context.Context, st *stream) error {
	if s.options.DrainOnDelete {
		bounded, cancel := context.WithTimeout(ctx, drainBound)
		defer cancel()
		err := s.engine.Remove(bounded, st.record.ID, true)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.logger.Error("delete a delivery stream with undelivered records", "stream", st.name, "account", st.account, "error", err)
	}
	return s.engine.Remove(ctx, st.record.ID, false)
}

// newDataKey makes the key that seals a delivery stream's records, or says why
// it cannot be had.
func (s *Service) newDataKey(ctx context.Context, st *stream, e *encryptionRecord) (id string, failure *failureRecord, err error) {
	ref := e.KeyARN
	if ref == "" {
		ref = keyring.DefaultKey
	}
	id, err = s.keyring.NewDataKey(ctx, keyring.Scope{Account: st.account, Region: st.region}, ref, st.arn)
	if err == nil {
		return id, nil, nil
	}
	kind := firehose.DeliveryStreamFailureType("")
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		kind = firehose.DeliveryStreamFailureTypeKmsKeyNotFound
	case errors.Is(err, keyring.ErrDisabled):
		kind = firehose.DeliveryStreamFailureTypeDisabledKmsKey
	case errors.Is(err, keyring.ErrInvalidState):
		kind = firehose.DeliveryStreamFailureTypeInvalidKmsKey
	default:
		return "", nil, err
	}
	return "", &failureRecord{kind, "The KMS key " + ref + " cannot be used: " + keyReason(err)}, nil
}

// keyReason is why a key cannot be used, for people.
func keyReason(err error) string {
	switch {
	case errors.Is(err, keyring.ErrDisabled):
		return "it is disabled."
	case errors.Is(err, keyring.ErrInvalidState):
		return "it is pending deletion."
	case errors.Is(err, keyring.ErrNotFound):
		return "it does not exist."
	}
	return "it cannot be read."
}

// finishEncryption ends ENABLING and DISABLING.
func (s *Service) finishEncryption(ctx context.Context, st *stream) error {
	record := st.record
	e := &record.Encryption
	e.Due = 0
	switch e.Status {
	case firehose.DeliveryStreamEncryptionStatusEnabling:
		key, failure, err := s.newDataKey(ctx, st, e)
		switch {
		case err != nil:
			return err
		case failure != nil:
			e.Status, e.Failure = firehose.DeliveryStreamEncryptionStatusEnablingFailed, failure
		default:
			e.Status, e.DataKey, e.DataKeyARN, e.Failure = firehose.DeliveryStreamEncryptionStatusEnabled, key, e.KeyARN, nil
		}
	case firehose.DeliveryStreamEncryptionStatusDisabling:
		*e = encryptionRecord{Status: firehose.DeliveryStreamEncryptionStatusDisabled}
	}
	return s.settle(ctx, st, record)
}

var _ Engine = (*delivery.Engine)(nil)
