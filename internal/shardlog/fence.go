package shardlog

import (
	"context"
	"slices"
	"sync"

	"github.com/millrace/millrace/internal/shardlog/driver"
)

// stripes is over how many locks shards are spread; a power of two. Shard
// numbers are allotted in sequence, so their low bits spread them evenly.
const stripes = 64

// fences counts the appends in flight of every shard that has any, and knows
// which shards take none.
type fences [stripes]fenceStripe

type fenceStripe struct {
	mu sync.Mutex
	// Entries are values and live only while a shard is in use or fenced. A map
	// keeps the room it once needed, which is the peak of concurrent appends.
	gates map[driver.ShardID]gate
	_     [64]byte // a cache line of its own: neighbours are taken by other cores
}

type gate struct {
	inflight int           // batches
	fenced   bool          // nobody may enter
	idle     chan struct{} // closed when inflight gets to zero; nil while nobody waits for it
}

func (f *fences) stripe(id driver.ShardID) *fenceStripe { return &f[id%stripes] }

// enter counts every batch in, gives those of fenced shards their error, and
// returns the others. The slice is the caller's own when all may enter.
func (f *fences) enter(batches []*driver.Batch) []*driver.Batch {
	for i, b := range batches {
		if f.enterOne(b.Shard) {
			continue
		}
		b.Err = ErrFenced
		entered := slices.Clone(batches[:i])
		for _, b := range batches[i+1:] {
			if f.enterOne(b.Shard) {
				entered = append(entered, b)
			} else {
				b.Err = ErrFenced
			}
		}
		return entered
	}
	return batches
}

func (f *fences) enterOne(id driver.ShardID) bool {
	s := f.stripe(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[id]
	if g.fenced {
		return false
	}
	g.inflight++
	s.set(id, g)
	return true
}

// leave counts out what enter returned.
func (f *fences) leave(batches []*driver.Batch) {
	for _, b := range batches {
		s := f.stripe(b.Shard)
		s.mu.Lock()
		g := s.gates[b.Shard]
		g.inflight--
		if g.inflight == 0 && g.idle != nil {
			close(g.idle)
			g.idle = nil
		}
		s.set(b.Shard, g)
		s.mu.Unlock()
	}
}

func (f *fences) fence(ctx context.Context, id driver.ShardID) error {
	s := f.stripe(id)
	s.mu.Lock()
	g := s.gates[id]
	before := g.fenced
	g.fenced = true
	if g.inflight == 0 {
		s.set(id, g)
		s.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	s.set(id, g)
	s.mu.Unlock()

	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		if !before {
			f.unfence(id)
		}
		return ctx.Err()
	}
}

func (f *fences) unfence(id driver.ShardID) {
	s := f.stripe(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if g, ok := s.gates[id]; ok {
		g.fenced = false
		s.set(id, g)
	}
}

// set stores a gate, or forgets it if it says nothing. The mutex is held.
func (s *fenceStripe) set(id driver.ShardID, g gate) {
	if g == (gate{}) {
		delete(s.gates, id)
		return
	}
	if s.gates == nil {
		s.gates = make(map[driver.ShardID]gate)
	}
	s.gates[id] = g
}
