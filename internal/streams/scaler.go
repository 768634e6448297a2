package streams

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
)

// ScalerOptions let on-demand streams grow. The zero value is off: a self-hosted
// shard has no rate limit, so more of them serve only readers that want more
// parallelism.
type ScalerOptions struct {
	// Interval is how often the write rate is looked at; 0 switches it off.
	Interval time.Duration
	// RecordsPerShard is the write rate, in records per second and shard, above
	// which a stream doubles; 500 if zero, half of what a shard takes.
	RecordsPerShard float64
	// MaxShards bounds what a stream grows to; 200 if zero.
	MaxShards int
}

// scalerState remembers where shards ended at the last look.
type scalerState struct {
	mu   sync.Mutex
	at   time.Time
	next map[uint64]uint64 // sum of the open shards' next indexes, by stream id
}

// scale doubles the on-demand streams whose write rate is above the threshold.
func (s *Service) scale(ctx context.Context) {
	state := &s.scaling
	state.mu.Lock()
	defer state.mu.Unlock()
	now := s.now()
	elapsed := now.Sub(state.at).Seconds()
	sums := map[uint64]uint64{}
	threshold, most := s.scaler.RecordsPerShard, s.scaler.MaxShards
	if threshold <= 0 {
		threshold = 500
	}
	if most <= 0 {
		most = 200
	}
	for _, st := range s.registry.all() {
		if ctx.Err() != nil {
			return
		}
		if st.mode != kinesis.StreamModeOnDemand || st.status != kinesis.StreamStatusActive {
			continue
		}
		var sum uint64
		for _, sh := range st.open {
			b, err := s.log.Bounds(ctx, sh.log)
			if err != nil {
				s.logger.Error("look at the write rate of a stream", "stream", st.name, "error", err)
				continue
			}
			sum += uint64(b.Next)
		}
		sums[st.id] = sum
		before, known := state.next[st.id]
		open := len(st.open)
		target := min(2*open, most)
		if !known || elapsed <= 0 || sum < before || target <= open || float64(sum-before)/elapsed/float64(open) <= threshold {
			continue
		}
		account := accountName{st.account, st.region}
		use := s.registry.usage(account)
		if use.open+target-open > s.maxShards {
			continue
		}
		t := transition{Kind: kindScale, Target: uint32(target), From: uint32(open)}
		if _, err := s.begin(ctx, st, st.record, t, touchAccount(account, use.account, nil)); err != nil {
			s.logger.Error("let a stream grow", "stream", st.name, "error", err)
		}
		delete(sums, st.id) // the new shards begin to count anew
	}
	state.at, state.next = now, sums
}
