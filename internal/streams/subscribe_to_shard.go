package streams

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

const (
	// subscriptionLife is how long a subscription lasts; clients renew it.
	subscriptionLife = 5 * time.Minute
	// heartbeatEvery is the longest silence; clients give up after ten seconds or
	// more.
	heartbeatEvery = 4 * time.Second
	// takeOverAfter is the age from which on a new subscription ends an old one.
	takeOverAfter = 5 * time.Second
	// maxEventBytes bounds the data of an event, unless one record alone has more.
	maxEventBytes = 1 << 20
)

// subscriptions are those that are running.
type subscriptions struct {
	mu      sync.Mutex
	running map[subscriptionKey]*subscription
}

type subscriptionKey struct {
	consumer string // ARN
	shard    uint32
}

// subscription is one running subscription.
type subscription struct {
	key     subscriptionKey
	since   time.Time
	evicted chan struct{} // closed when another takes its place
}

// start enters a subscription in place of an old one; false if there is one
// that is too young to be replaced. A dry run changes nothing.
func (s *subscriptions) start(key subscriptionKey, now time.Time, dry bool) (*subscription, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.running[key]
	if old != nil && now.Sub(old.since) < takeOverAfter {
		return nil, false
	}
	if dry {
		return nil, true
	}
	if old != nil {
		close(old.evicted)
	}
	if s.running == nil {
		s.running = map[subscriptionKey]*subscription{}
	}
	sub := &subscription{key: key, since: now, evicted: make(chan struct{})}
	s.running[key] = sub
	return sub, true
}

// end removes a subscription unless another has taken its place. It may be
// called twice.
func (s *subscriptions) end(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[sub.key] == sub {
		delete(s.running, sub.key)
	}
}

// SubscribeToShard pushes a shard's records to a consumer as they arrive, for
// five minutes or until the shard ends. One subscription of a consumer to a shard
// runs at a time; one that is five seconds old gives way to a new one.
//
// An event is read only after the one before has been written, so a slow client
// costs the memory of one event, and one that does not read costs none but that.
//
// Checks in order: shard id, consumer, its state, stream, shard, position, call
// rate, running subscription.
func (s *Service) SubscribeToShard(ctx context.Context, call *api.Call, in *kinesis.SubscribeToShardInput) (*kinesis.SubscribeToShardOutput, error) {
	arn := api.Val(in.ConsumerARN)
	n, name, created, ok := parseConsumerARN(arn)
	if !ok {
		return nil, invalidArgument("ConsumerARN %s is not the ARN of a consumer.", arn)
	}
	if _, ok := parseShardID(api.Val(in.ShardId)); !ok {
		return nil, shardNotFound(api.Val(in.ShardId), n.name, n.account)
	}
	c := s.consumerByARN(arn)
	if c == nil || n.region != call.Region {
		return nil, consumerNotFound(name, n.account)
	}
	if c.status != kinesis.ConsumerStatusActive {
		return nil, resourceInUse("Consumer %s with creation timestamp %s under stream: %s , account %s is not in ACTIVE status.",
			name, strconv.FormatInt(created, 10), n.name, n.account)
	}
	now := s.now()
	st, sh, err := s.findShard(n, api.Val(in.ShardId), now)
	if err != nil {
		return nil, err
	}
	at := api.Val(in.StartingPosition)
	next, err := s.position(ctx, st, sh, now, position{kind: api.Val(at.Type), number: at.SequenceNumber, timestamp: at.Timestamp})
	if err != nil {
		return nil, err
	}
	dry := api.Val(in.DryRun)
	if !dry && !s.quota.Subscribe(arn, uint64(sh.log)) {
		c.countRefused()
		return nil, limitExceeded("Rate exceeded for consumer %s and shard %s.", arn, sh.id())
	}
	sub, ok := s.subs.start(subscriptionKey{arn, sh.index}, now, dry)
	if !ok {
		if !dry {
			c.countRefused()
		}
		return nil, resourceInUse("Another active subscription exists for this consumer: %s:%s:%s:%s", n.account, n.name, sh.id(), name)
	}
	if dry {
		return nil, dryRun()
	}
	// Should the reply never start, the place is free again all the same.
	call.OnFinish(func() { s.subs.end(sub) })
	c.series.Add(SubscribeToShardSuccess, 1)
	f := &fanOut{s: s, sub: sub, consumer: c, stream: st, shard: sh.index, next: max(next, 1)}
	return &kinesis.SubscribeToShardOutput{Events: f.run}, nil
}

// countRefused counts a subscription that was refused because of another or of
// the rate; the service's metric does not tell them apart.
func (c *consumer) countRefused() {
	c.series.Add(SubscribeToShardRateExceeded, 1)
	c.series.Add(SubscribeToShardSuccess, 0)
}

// fanOut is what a running subscription knows.
type fanOut struct {
	s        *Service
	sub      *subscription
	consumer *consumer
	stream   *stream
	shard    uint32
	next     uint64         // index of the next record
	last     sequenceNumber // of the last record sent; zero before the first
}

type sendEvent func(*kinesis.SubscribeToShardEventStream) error

// run sends events until the subscription ends. nil is a clean end.
func (f *fanOut) run(ctx context.Context, send func(*kinesis.SubscribeToShardEventStream) error) error {
	s := f.s
	defer s.subs.end(f.sub)
	end := time.NewTimer(subscriptionLife)
	defer end.Stop()
	heartbeat := time.NewTimer(0) // the first event goes out at once
	defer heartbeat.Stop()
	due := false
	for {
		// What wakes the wait is taken before looking, so that nothing in between
		// is missed.
		resharded := s.resharded.wait()
		if err := f.ended(); err != nil {
			return err
		}
		select {
		case <-end.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		st := s.current(f.stream)
		if st == nil {
			return streamNotFound(f.stream.account, f.stream.name)
		}
		sh := st.listed(f.shard, s.now())
		if sh == nil {
			return shardMissing(f.shard, st.place())
		}
		tip, changed := s.log.Tail(sh.log)
		if f.next < uint64(tip) || due || sh.closed != 0 {
			finished, pause, err := f.event(ctx, st, sh, send)
			if err != nil || finished {
				return err
			}
			due = false
			heartbeat.Reset(heartbeatEvery)
			if pause > 0 && !f.wait(ctx, pause) {
				return ctx.Err()
			}
			if f.next < uint64(tip) || sh.closed != 0 {
				continue
			}
		}
		select {
		case <-changed:
		case <-resharded:
		case <-heartbeat.C:
			due = true
		case <-end.C:
			return nil
		case <-f.consumer.gone:
		case <-f.stream.gone:
		case <-f.sub.evicted:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ended reports why the subscription cannot go on.
func (f *fanOut) ended() error {
	n := f.consumer.stream
	select {
	case <-f.sub.evicted:
		return resourceInUse("Another active subscription exists for this consumer: %s:%s:%s:%s", n.account, n.name, shardID(f.shard), f.consumer.name)
	case <-f.stream.gone:
		return streamNotFound(n.account, n.name)
	case <-f.consumer.gone:
		return consumerNotFound(f.consumer.name, n.account)
	default:
		return nil
	}
}

// wait is how fan-out is slowed down. It returns false when ctx ends; whatever
// else ends the subscription is found by the loop.
func (f *fanOut) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(min(d, heartbeatEvery))
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.consumer.gone:
	case <-f.stream.gone:
	case <-f.sub.evicted:
	case <-ctx.Done():
		return false
	}
	return true
}

// event reads and sends one event. finished is true after the last of a closed
// shard.
func (f *fanOut) event(ctx context.Context, st *stream, sh *shard, send sendEvent) (finished bool, pause time.Duration, err error) {
	p := newEventPage()
	defer p.releaseEvent()
	if err := f.s.readPage(ctx, p, st, sh, f.next, maxPageRecords, maxEventBytes, f.s.now()); err != nil {
		f.consumer.series.Add(SubscribeToShardEventSuccess, 0)
		return false, 0, err
	}
	e := &kinesis.SubscribeToShardEvent{Records: p.records, MillisBehindLatest: &p.behind}
	if e.Records == nil {
		e.Records = []kinesis.Record{}
	}
	if p.atEnd {
		e.ChildShards = childShards(sh)
	} else {
		number := f.continuation(p, sh)
		e.ContinuationSequenceNumber = &number
	}
	if err := send(&kinesis.SubscribeToShardEventStream{SubscribeToShardEvent: e}); err != nil {
		return false, 0, err
	}
	f.next = p.next
	series := f.consumer.series
	series.Add(SubscribeToShardEventSuccess, 1)
	series.Add(SubscribeToShardEventBytes, float64(p.bytes))
	series.Add(SubscribeToShardEventRecords, float64(len(p.records)))
	series.Add(SubscribeToShardEventMillisBehindLatest, float64(p.behind))
	return p.atEnd, f.s.quota.FanOut(f.consumer.arn, uint64(sh.log), p.bytes), nil
}

// continuation is the number after which a new subscription goes on: that of the
// last record or, while there was none, the place before the next.
func (f *fanOut) continuation(p *page, sh *shard) string {
	if len(p.records) > 0 {
		f.last = recordNumber(sh, p.next-1, p.lastAt)
	} else if before := p.next - 1; f.last.version == 0 || f.last.index < before {
		f.last = recordNumber(sh, min(before, endIndex-1), 0)
	}
	return f.last.String()
}
