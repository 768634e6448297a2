package streams

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Quota decides whether a shard takes another call or record. quota.Limiter is
// one. The number is the shard log's.
type Quota interface {
	// Enforced is false if Write refuses nothing; CountWrites then stands for
	// all records of a call that go to a shard.
	Enforced() bool
	Write(id uint64, size, maxRecord int) bool
	CountWrites(id uint64, sizes iter.Seq[int], maxRecord int)
	Read(id uint64) bool
	ReadBytes(id uint64, n int)
	Iterator(id uint64) bool
	Subscribe(consumerARN string, id uint64) bool
	FanOut(consumerARN string, id uint64, n int) time.Duration
}

// noQuota admits everything.
type noQuota struct{}

func (noQuota) Enforced() bool                           { return false }
func (noQuota) Write(uint64, int, int) bool              { return true }
func (noQuota) CountWrites(uint64, iter.Seq[int], int)   {}
func (noQuota) Read(uint64) bool                         { return true }
func (noQuota) ReadBytes(uint64, int)                    {}
func (noQuota) Iterator(uint64) bool                     { return true }
func (noQuota) Subscribe(string, uint64) bool            { return true }
func (noQuota) FanOut(string, uint64, int) time.Duration { return 0 }

// dataPlane is what writing and reading records needs beside the state of
// streams.
type dataPlane struct {
	quota     Quota
	iterators cipher.AEAD   // seals shard iterators
	spread    atomic.Uint64 // places records of streams that distribute them
	subs      subscriptions
	resharded broadcast
}

func (s *Service) initDataPlane() error {
	if s.quota == nil {
		s.quota = noQuota{}
	}
	// The key of page tokens is stored and shared by all servers; iterators get
	// a key of their own from it.
	key, err := hkdf.Expand(sha256.New, s.tokens[:], "millrace shard iterator", 32)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	if s.iterators, err = cipher.NewGCM(block); err != nil {
		return err
	}
	// Shards that close have no further append to wake their readers. This watch
	// comes after the registry's, which has published the change by then.
	cancelRegistry := s.cancel
	cancel := s.meta.Watch(shardTable.Prefix+"/", func([]meta.Change) { s.resharded.wake() })
	s.cancel = func() { cancel(); cancelRegistry() }
	return nil
}

// broadcast tells any number of waiters that something happened.
type broadcast struct {
	mu sync.Mutex
	c  chan struct{}
}

// wait returns a channel that the next wake closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		b.c = make(chan struct{})
	}
	return b.c
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c != nil {
		close(b.c)
		b.c = nil
	}
}

// unavailable is a failure that passes: SDKs try again.
type unavailable struct{ message string }

func (e *unavailable) Error() string        { return e.ErrorCode() + ": " + e.message }
func (e *unavailable) ErrorCode() string    { return "ServiceUnavailable" }
func (e *unavailable) ErrorMessage() string { return e.message }
func (e *unavailable) HTTPStatus() int      { return 503 }

// storeError turns a failure of the log into the caller's error.
func storeError(err error) error {
	switch {
	case errors.Is(err, driver.ErrFull):
		return &unavailable{"The server has no space left for records. Nothing was stored; try again later."}
	case errors.Is(err, driver.ErrClosed):
		return &unavailable{"The server is shutting down."}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &unavailable{"The request ended before the record could be stored."}
	}
	return fmt.Errorf("store records: %w", err)
}

// keyError turns a failure of the keyring into the caller's error.
func keyError(st *stream, err error) error {
	switch {
	case errors.Is(err, keyring.ErrDisabled):
		return &kinesis.KMSDisabledException{Message: "The KMS key of stream " + st.arn + " is disabled."}
	case errors.Is(err, keyring.ErrInvalidState):
		return &kinesis.KMSInvalidStateException{Message: "The KMS key of stream " + st.arn + " is pending deletion."}
	case errors.Is(err, keyring.ErrNotFound):
		return &kinesis.KMSNotFoundException{Message: "The KMS key of stream " + st.arn + " does not exist."}
	}
	return fmt.Errorf("key of stream %s: %w", st.arn, err)
}

func dryRun() error {
	return &kinesis.DryRunOperationException{Message: "Request would have succeeded, but DryRun flag is set."}
}

// shardMissing is what calls on records say of a shard or stream that is not
// there.
func shardMissing(index uint32, n streamName) error {
	return resourceNotFound("Shard %s in stream %s under account %s does not exist", shardID(index), n.name, n.account)
}

func rateExceeded(index uint32, n streamName) string {
	return "Rate exceeded for shard " + shardID(index) + " in stream " + n.name + " under account " + n.account + "."
}

func (st *stream) place() streamName { return streamName{st.account, st.region, st.name} }

// routeFast is route for many records: ranges are mostly even, so the place to
// look first follows from the hash, and costs the same for any number of shards.
func (st *stream) routeFast(h hashKey) *shard {
	n := len(st.open)
	if n == 0 {
		return nil
	}
	i, _ := bits.Mul64(h.hi, uint64(n))
	if sh := st.open[i]; !h.less(sh.start) && !sh.end.less(h) {
		return sh
	}
	return st.route(h)
}

// newDataKey makes the key that a stream's records are sealed with from now on.
func (s *Service) newDataKey(ctx context.Context, st *stream, keyID string) (string, error) {
	if s.keyring == nil {
		return "", fmt.Errorf("stream %s: no key ring to make keys with", st.arn)
	}
	id, err := s.keyring.NewDataKey(ctx, keyring.Scope{Account: st.account, Region: st.region}, keyID, st.arn)
	if err != nil {
		return "", keyError(st, err)
	}
	return id, nil
}
