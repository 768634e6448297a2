// Package quota counts what callers do against the limits of the API, and
// refuses what exceeds them when asked to.
//
// The one idea: a bucket is one number, the time at which it will be full
// again. Taking from it moves that time on; a bucket whose time has passed is
// full, says nothing, and is dropped. So shards without traffic cost no memory,
// and a sweep needs no bookkeeping. What is refused moves nothing.
//
//	full again at      now ──────────────► +burst
//	                    │ may be taken from │ refused
//
// Buckets are counted whether or not limits are enforced; without enforcement
// every question is answered with yes, and Counts tells what enforcement would
// have refused. Locks are taken one at a time and held for no I/O.
//
// The package knows no texts and no errors: the caller turns a refusal into the
// modelled one. Start reading at Limiter.
package quota

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a bucket limits.
type Kind uint8

// The kinds, in the order of Counts.
const (
	Write     Kind = iota // a record put into a shard: records and bytes together
	Read                  // a GetRecords call on a shard: calls and bytes together
	Iterator              // a GetShardIterator call on a shard
	Subscribe             // a SubscribeToShard call of a consumer on a shard
	Control               // any other call, by account or stream
	Deliver               // a record put to a delivery stream
	kinds
)

// String is the label that metrics use.
func (k Kind) String() string {
	return [...]string{"write", "read", "iterator", "subscribe", "control", "deliver"}[k]
}

// Rate is a number a second. Zero means unlimited.
type Rate int64

// Limits are the rates of a shard. See Published.
type Limits struct {
	WriteRecords Rate // records a second into a shard
	WriteBytes   Rate // bytes a second into a shard, partition keys included
	ReadCalls    Rate // GetRecords calls a second on a shard
	ReadBytes    Rate // bytes a second out of a shard by GetRecords
	Iterators    Rate // GetShardIterator calls a second on a shard
	Subscribes   Rate // SubscribeToShard calls a second of one consumer on one shard
	FanOutBytes  Rate // bytes a second to one consumer from one shard
	Delivery     DeliveryLimits
	Control      map[string]ControlLimit
}

// Scope says whose calls share a bucket.
type Scope uint8

const (
	PerAccount Scope = iota // all calls of an account in a region
	PerStream               // all calls that name one stream or consumer
)

// ControlLimit is the rate of an operation.
type ControlLimit struct {
	Rate  Rate // calls a second; also how many may come at once
	Scope Scope
}

// Published returns the limits that the service documents.
func Published() Limits {
	l := Limits{
		WriteRecords: 1000, WriteBytes: 1 << 20,
		ReadCalls: 5, ReadBytes: 2 << 20,
		Iterators: 5, Subscribes: 1, FanOutBytes: 2 << 20,
		Delivery: PublishedDelivery(),
		Control: map[string]ControlLimit{
			"DescribeStream":         {10, PerAccount},
			"DescribeStreamSummary":  {20, PerAccount},
			"DescribeLimits":         {1, PerAccount},
			"ListShards":             {1000, PerStream},
			"UpdateShardCount":       {10, PerAccount},
			"DescribeStreamConsumer": {20, PerStream},
			"ListStreamConsumers":    {5, PerStream},
		},
	}
	for _, name := range [...]string{
		"CreateStream", "DeleteStream", "ListStreams",
		"AddTagsToStream", "RemoveTagsFromStream", "ListTagsForStream",
		"TagResource", "UntagResource", "ListTagsForResource",
		"SplitShard", "MergeShards",
		"RegisterStreamConsumer", "DeregisterStreamConsumer",
		"StartStreamEncryption", "StopStreamEncryption",
		"IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod",
		"EnableEnhancedMonitoring", "DisableEnhancedMonitoring",
		"UpdateStreamMode", "UpdateMaxRecordSize", "UpdateStreamWarmThroughput",
		"UpdateStreamRecordDistributionStrategy",
		"PutResourcePolicy", "GetResourcePolicy", "DeleteResourcePolicy",
		"DescribeAccountSettings", "UpdateAccountSettings",
		"CreateChannel", "DescribeChannel", "ListChannels", "UpdateChannel", "DeleteChannel",

		"CreateDeliveryStream", "DeleteDeliveryStream", "DescribeDeliveryStream", "ListDeliveryStreams", "UpdateDestination",
		"StartDeliveryStreamEncryption", "StopDeliveryStreamEncryption",
		"TagDeliveryStream", "UntagDeliveryStream", "ListTagsForDeliveryStream",
	} {
		l.Control[name] = ControlLimit{5, PerAccount}
	}
	return l
}

// Options of a Limiter.
type Options struct {
	Enforce bool             // refuse what exceeds the limits
	Limits  Limits           // Published if the zero value
	Now     func() time.Time // time.Now if nil
}

// Limiter holds the buckets. All methods may be called concurrently.
type Limiter struct {
	limits  Limits
	enforce bool
	now     func() time.Time
	seed    maphash.Seed
	counts  [kinds]struct{ allowed, exceeded atomic.Uint64 }

	// Costs that every record asks for, worked out once: divisions are slow.
	oneRecord   int64
	recordBurst int64
	writeBurst  int64 // of a stream whose records are not larger than the bucket

	shards     [partitions]table[uint64, *block]
	consumers  [partitions]table[consumerKey, consumer]
	deliveries [partitions]table[uint64, delivery]
	control    [partitions]table[controlKey, single]
}

const (
	partitions = 64
	// maxBuckets bounds each partition. Names that do not exist get buckets too;
	// beyond the bound they share one.
	maxBuckets = 1 << 14
)

type consumerKey struct {
	arn   string
	shard uint64
}

type controlKey struct{ account, region, operation, resource string }

// New makes a limiter with all buckets full.
func New(o Options) *Limiter {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Limits.Control == nil && o.Limits.WriteRecords == 0 {
		o.Limits = Published()
	}
	l := &Limiter{limits: o.Limits, enforce: o.Enforce, now: o.Now, seed: maphash.MakeSeed()}
	if rate := o.Limits.WriteRecords; rate != 0 {
		l.oneRecord, l.recordBurst = cost(1, rate), cost(int64(rate), rate)
	}
	if rate := o.Limits.WriteBytes; rate != 0 {
		l.writeBurst = cost(int64(rate), rate)
	}
	return l
}

// Enforced says whether refusals happen at all.
func (l *Limiter) Enforced() bool { return l.enforce }

// bucket is the time, in Unix nanoseconds, at which it is full again.
type bucket int64

// take reports whether n units are there, and what the bucket is without them.
// burst is how many units a full bucket holds.
func (b bucket) take(now int64, n int64, rate Rate, burst int64) (bucket, bool) {
	if rate == 0 {
		return b, true
	}
	after := b.add(now, n, rate)
	return after, int64(after)-now <= cost(burst, rate)
}

// add takes n units whether or not they are there.
func (b bucket) add(now int64, n int64, rate Rate) bucket {
	if rate == 0 {
		return b
	}
	return bucket(max(int64(b), now) + cost(n, rate))
}

// atMost is the bucket in a state no emptier than n units taken: what is not
// enforced must not run up debts.
func (b bucket) atMost(now, n int64, rate Rate) bucket {
	if rate == 0 {
		return b
	}
	return min(b, bucket(now+cost(n, rate)))
}

// cost is how long it takes to refill n units.
func cost(n int64, rate Rate) int64 {
	// Whole seconds apart, so that no product overflows.
	r := int64(rate)
	return n/r*int64(time.Second) + n%r*int64(time.Second)/r
}

type shard struct{ records, bytes, calls, readBytes, iterators bucket }

func (s shard) full(now int64) bool {
	return int64(max(s.records, s.bytes, s.calls, s.readBytes, s.iterators)) <= now
}

type consumer struct{ calls, bytes bucket }

func (c consumer) full(now int64) bool { return int64(max(c.calls, c.bytes)) <= now }

type single struct{ calls bucket }

func (s single) full(now int64) bool { return int64(s.calls) <= now }

// table is one partition of the buckets of a kind.
type table[K comparable, V interface{ full(now int64) bool }] struct {
	mu      sync.Mutex
	buckets map[K]V
	sweepAt int // number of buckets at which the next insertion sweeps
	spill   V   // shared by whatever finds no room
}

// update runs f on the bucket of a key and keeps what f returns.
func (t *table[K, V]) update(key K, now int64, f func(V) (V, bool)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, there := t.buckets[key]
	if !there && len(t.buckets) >= max(t.sweepAt, 64) {
		t.sweepLocked(now)
	}
	if !there && len(t.buckets) >= maxBuckets {
		v, ok := f(t.spill)
		t.spill = v
		return ok
	}
	next, ok := f(v)
	if !there && next.full(now) {
		return ok
	}
	if t.buckets == nil {
		t.buckets = make(map[K]V)
	}
	t.buckets[key] = next
	return ok
}

func (t *table[K, V]) sweepLocked(now int64) {
	before := len(t.buckets)
	for key, v := range t.buckets {
		if v.full(now) {
			delete(t.buckets, key)
		}
	}
	// A map keeps the memory of its largest size; a new one gives it back.
	if n := len(t.buckets); n < before/4 {
		var next map[K]V
		if n > 0 {
			next = make(map[K]V, n)
			for key, v := range t.buckets {
				next[key] = v
			}
		}
		t.buckets = next
	}
	t.sweepAt = min(2*len(t.buckets), maxBuckets)
}

// block holds the buckets of shards with consecutive numbers. The shards of a
// stream have such numbers, so a load on many of them neither grows maps by the
// shard nor looks far for one.
type block [blockShards]shard

const blockShards = 32

func (b *block) full(now int64) bool {
	for i := range b {
		if !b[i].full(now) {
			return false
		}
	}
	return true
}

// lockShard gives the buckets of a shard, which are the caller's until it unlocks
// the mutex.
func (l *Limiter) lockShard(id uint64, now int64) (*shard, *sync.Mutex) {
	t := &l.shards[(id/blockShards*0x9E3779B97F4A7C15)>>58]
	t.mu.Lock()
	b := t.buckets[id/blockShards]
	if b == nil {
		if len(t.buckets) >= max(t.sweepAt, 64/blockShards) {
			t.sweepLocked(now)
		}
		if len(t.buckets) >= maxBuckets/blockShards {
			if t.spill == nil {
				t.spill = new(block)
			}
			return &t.spill[0], &t.mu
		}
		if t.buckets == nil {
			t.buckets = make(map[uint64]*block)
		}
		b = new(block)
		t.buckets[id/blockShards] = b
	}
	return &b[id%blockShards], &t.mu
}

// count notes the answer and makes it yes if nothing is enforced.
func (l *Limiter) count(k Kind, ok bool) bool {
	if ok {
		l.counts[k].allowed.Add(1)
		return true
	}
	l.counts[k].exceeded.Add(1)
	return !l.enforce
}

// Write admits one record of size bytes, partition key included, into a shard.
// maxRecord is the largest record that the stream takes: the shard's bucket of
// bytes holds at least one. Records and bytes are taken together or not at all.
func (l *Limiter) Write(id uint64, size, maxRecord int) bool {
	now := l.now().UnixNano()
	s, mu := l.lockShard(id, now)
	ok := l.write(s, now, size, maxRecord)
	mu.Unlock()
	return l.count(Write, ok)
}

func (l *Limiter) write(s *shard, now int64, size, maxRecord int) bool {
	burst := l.writeBurst
	if rate := l.limits.WriteBytes; int64(maxRecord) > int64(rate) && rate != 0 {
		burst = cost(int64(maxRecord), rate)
	}
	records, bytes, ok := s.records, s.bytes, true
	if l.limits.WriteRecords != 0 {
		records = max(records, bucket(now)) + bucket(l.oneRecord)
		ok = int64(records)-now <= l.recordBurst
	}
	if l.limits.WriteBytes != 0 {
		bytes = bytes.add(now, int64(size), l.limits.WriteBytes)
		ok = ok && int64(bytes)-now <= burst
	}
	if !ok {
		if l.enforce {
			return false
		}
		// What is not enforced must not run up debts.
		if l.limits.WriteRecords != 0 {
			records = min(records, bucket(now+l.recordBurst))
		}
		if l.limits.WriteBytes != 0 {
			bytes = min(bytes, bucket(now+burst))
		}
	}
	s.records, s.bytes = records, bytes
	return ok
}

// CountWrites counts records into one shard as Write does, one after the other at
// one time, for callers that do not enforce: it refuses none.
func (l *Limiter) CountWrites(id uint64, sizes iter.Seq[int], maxRecord int) {
	now := l.now().UnixNano()
	var within, beyond uint64
	s, mu := l.lockShard(id, now)
	for size := range sizes {
		if l.write(s, now, size, maxRecord) {
			within++
		} else {
			beyond++
		}
	}
	mu.Unlock()
	l.counts[Write].allowed.Add(within)
	l.counts[Write].exceeded.Add(beyond)
}

// Read admits one GetRecords call on a shard. It is refused while there are
// too many calls, and while the bytes of earlier replies are not paid for.
func (l *Limiter) Read(id uint64) bool {
	now := l.now().UnixNano()
	s, mu := l.lockShard(id, now)
	calls, ok := s.calls.take(now, 1, l.limits.ReadCalls, int64(l.limits.ReadCalls))
	_, paid := s.readBytes.take(now, 1, l.limits.ReadBytes, int64(l.limits.ReadBytes))
	ok = ok && paid
	if ok || !l.enforce {
		s.calls = calls.atMost(now, int64(l.limits.ReadCalls), l.limits.ReadCalls)
	}
	mu.Unlock()
	return l.count(Read, ok)
}

// ReadBytes charges the bytes of a reply to its shard. They may exceed what
// is there: the debt delays later calls.
func (l *Limiter) ReadBytes(id uint64, n int) {
	if n <= 0 {
		return
	}
	now := l.now().UnixNano()
	s, mu := l.lockShard(id, now)
	defer mu.Unlock()
	s.readBytes = s.readBytes.add(now, int64(n), l.limits.ReadBytes)
	if !l.enforce {
		s.readBytes = s.readBytes.atMost(now, int64(l.limits.ReadBytes), l.limits.ReadBytes)
	}
}

// Iterator admits one GetShardIterator call on a shard.
func (l *Limiter) Iterator(id uint64) bool {
	now := l.now().UnixNano()
	s, mu := l.lockShard(id, now)
	next, ok := s.iterators.take(now, 1, l.limits.Iterators, int64(l.limits.Iterators))
	if ok || !l.enforce {
		s.iterators = next.atMost(now, int64(l.limits.Iterators), l.limits.Iterators)
	}
	mu.Unlock()
	return l.count(Iterator, ok)
}

func (l *Limiter) consumer(key consumerKey) *table[consumerKey, consumer] {
	return &l.consumers[maphash.Comparable(l.seed, key)%partitions]
}

// Subscribe admits one SubscribeToShard call of a consumer on a shard.
func (l *Limiter) Subscribe(consumerARN string, id uint64) bool {
	key, now := consumerKey{consumerARN, id}, l.now().UnixNano()
	return l.count(Subscribe, l.consumer(key).update(key, now, func(c consumer) (consumer, bool) {
		next, ok := c.calls.take(now, 1, l.limits.Subscribes, int64(l.limits.Subscribes))
		if !ok && l.enforce {
			return c, false
		}
		c.calls = next.atMost(now, int64(l.limits.Subscribes), l.limits.Subscribes)
		return c, ok
	}))
}

// FanOut charges n bytes sent to a consumer from a shard, and returns how long
// to wait before the next: fan-out is slowed, never refused. The wait is zero
// without enforcement.
func (l *Limiter) FanOut(consumerARN string, id uint64, n int) time.Duration {
	if !l.enforce || n <= 0 || l.limits.FanOutBytes == 0 {
		return 0
	}
	key, now := consumerKey{consumerARN, id}, l.now().UnixNano()
	var wait time.Duration
	l.consumer(key).update(key, now, func(c consumer) (consumer, bool) {
		c.bytes = c.bytes.add(now, int64(n), l.limits.FanOutBytes)
		wait = max(0, time.Duration(int64(c.bytes)-now-cost(int64(l.limits.FanOutBytes), l.limits.FanOutBytes)))
		return c, true
	})
	return wait
}

// Call admits one call of an operation that is not limited by shard. resource
// is the stream or consumer it names, empty if none; operations without a
// limit are always admitted.
func (l *Limiter) Call(account, region, operation, resource string) bool {
	limit, limited := l.limits.Control[operation]
	if !limited || limit.Rate == 0 {
		return l.count(Control, true)
	}
	key := controlKey{account, region, operation, ""}
	if limit.Scope == PerStream {
		key.resource = resource
	}
	now := l.now().UnixNano()
	t := &l.control[maphash.Comparable(l.seed, key)%partitions]
	return l.count(Control, t.update(key, now, func(s single) (single, bool) {
		next, ok := s.calls.take(now, 1, limit.Rate, int64(limit.Rate))
		if !ok && l.enforce {
			return s, false
		}
		s.calls = next.atMost(now, int64(limit.Rate), limit.Rate)
		return s, ok
	}))
}

// Count is how often a kind was asked for.
type Count struct {
	Allowed  uint64 // within the limits
	Exceeded uint64 // beyond them; refused if enforced
}

// Counts returns the counts since the start, by kind.
func (l *Limiter) Counts() map[Kind]Count {
	m := make(map[Kind]Count, kinds)
	for k := range kinds {
		m[k] = Count{l.counts[k].allowed.Load(), l.counts[k].exceeded.Load()}
	}
	return m
}

// Buckets returns how many buckets are kept: those that are not full, and
// those that became full since the last sweep.
func (l *Limiter) Buckets() int {
	n := 0
	for i := range partitions {
		n += l.consumers[i].len() + l.control[i].len() + l.deliveries[i].len()
		t := &l.shards[i]
		t.mu.Lock()
		for _, b := range t.buckets {
			for j := range b {
				if b[j] != (shard{}) {
					n++
				}
			}
		}
		t.mu.Unlock()
	}
	return n
}

// Sweep drops the buckets that are full again. Insertions sweep by themselves
// as their partition grows; calling it now and then returns memory sooner.
func (l *Limiter) Sweep() {
	now := l.now().UnixNano()
	for i := range partitions {
		l.shards[i].sweep(now)
		l.consumers[i].sweep(now)
		l.deliveries[i].sweep(now)
		l.control[i].sweep(now)
	}
}

func (t *table[K, V]) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.buckets)
}

func (t *table[K, V]) sweep(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.buckets) > 0 {
		t.sweepLocked(now)
	}
}
