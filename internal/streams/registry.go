package streams

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// registry is what metadata says, ready for use. It changes only in apply.
type registry struct {
	metrics Metrics
	now     func() time.Time

	mu         sync.RWMutex
	streams    map[streamName]*stream
	names      map[uint64]streamName // by stream id
	sorted     map[accountName][]string
	consumers  map[string]*consumer                // by ARN
	byStream   map[streamName]map[string]*consumer // by consumer name
	attributes map[string]attributesVersion        // by ARN
	channels   map[string]*channel                 // by ARN
	accounts   map[accountName]accountState
	err        error // the first record that could not be read
}

type accountName struct{ account, region string }

type accountState struct {
	record  accountRecord
	version meta.Version
}

type attributesVersion struct {
	attributesRecord
	version meta.Version
}

func (r *registry) init(metrics Metrics, now func() time.Time) {
	r.metrics, r.now = metrics, now
	r.streams = map[streamName]*stream{}
	r.names = map[uint64]streamName{}
	r.sorted = map[accountName][]string{}
	r.consumers = map[string]*consumer{}
	r.byStream = map[streamName]map[string]*consumer{}
	r.attributes = map[string]attributesVersion{}
	r.channels = map[string]*channel{}
	r.accounts = map[accountName]accountState{}
}

// apply takes in one commit, or at the start everything there is. It reports
// whether there is a transition among it, for Run to wait for.
func (r *registry) apply(changes []meta.Change) (transitions bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := map[streamName]*stream{} // new states in the making
	type shardChange struct {
		index uint32
		shard *shard // nil: removed
	}
	shards := map[uint64][]shardChange{}
	fail := func(c meta.Change, err error) {
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("read %q: %w", c.Key, err)
		}
	}
	for _, c := range changes {
		parts, err := meta.SplitKey(c.Key)
		if err != nil {
			fail(c, err)
			continue
		}
		switch parts[0] {
		case streamTable.Prefix:
			if len(parts) != 4 {
				fail(c, errors.New("not the key of a stream"))
				continue
			}
			name := streamName{parts[1], parts[2], parts[3]}
			if c.Deleted {
				r.removeStream(name)
				continue
			}
			record, err := streamTable.Decode(c.Key, c.Value)
			if err != nil {
				fail(c, err)
				continue
			}
			next[name] = r.nextStream(name, record, c.Version)
			transitions = transitions || record.Pending != nil
		case shardTable.Prefix:
			id, index, err := parseShardKey(parts)
			if err != nil {
				fail(c, err)
				continue
			}
			if c.Deleted {
				shards[id] = append(shards[id], shardChange{index, nil})
				continue
			}
			record, err := shardTable.Decode(c.Key, c.Value)
			var sh *shard
			if err == nil && !record.Gone {
				sh, err = record.shard(id, index)
			}
			if err != nil {
				fail(c, err)
				continue
			}
			shards[id] = append(shards[id], shardChange{index, sh})
		case consumerTable.Prefix:
			transitions = true
			fail(c, r.applyConsumer(c, parts))
		case channelTable.Prefix:
			transitions = true
			fail(c, r.applyChannel(c))
		case attributesTable.Prefix:
			if c.Deleted {
				delete(r.attributes, parts[1])
				continue
			}
			record, err := attributesTable.Decode(c.Key, c.Value)
			fail(c, err)
			r.attributes[parts[1]] = attributesVersion{record, c.Version}
		case accountTable.Prefix:
			record, err := accountTable.Decode(c.Key, c.Value)
			fail(c, err)
			if len(parts) == 3 {
				r.accounts[accountName{parts[1], parts[2]}] = accountState{record, c.Version}
			}
		}
	}
	for name, st := range next {
		r.names[st.id] = name
	}
	for id, changed := range shards {
		name, ok := r.names[id]
		if !ok {
			continue // of a stream that was deleted in this commit
		}
		st := next[name]
		if st == nil {
			if old := r.streams[name]; old != nil {
				copied := *old
				st = &copied
				next[name] = st
			} else {
				continue
			}
		}
		// Shards by index: most commits touch two or three of many, so the old
		// list is copied and changed in place.
		st.shards, st.open = slices.Clone(st.shards), slices.Clone(st.open)
		touched := make(map[uint32]bool, len(changed))
		for _, c := range changed {
			touched[c.index] = true
			i, found := slices.BinarySearchFunc(st.shards, c.index, func(sh *shard, index uint32) int { return int(int64(sh.index) - int64(index)) })
			switch {
			case found && c.shard != nil:
				st.shards[i] = c.shard
			case found:
				r.dropShardMetrics(st, st.shards[i:i+1])
				st.shards = slices.Delete(st.shards, i, i+1)
			case c.shard != nil:
				st.shards = slices.Insert(st.shards, i, c.shard)
			}
		}
		st.open = slices.DeleteFunc(st.open, func(sh *shard) bool { return touched[sh.index] })
		for _, c := range changed {
			if c.shard != nil && c.shard.closed == 0 {
				i, _ := slices.BinarySearchFunc(st.open, c.shard.start, func(sh *shard, h hashKey) int { return sh.start.compare(h) })
				st.open = slices.Insert(st.open, i, c.shard)
			}
		}
	}
	for name, st := range next {
		if r.streams[name] == nil {
			delete(r.sorted, accountName{name.account, name.region})
		}
		r.streams[name] = st
	}
	return transitions
}

// nextStream makes a stream's state from its record and, for the shards, from
// the state before.
func (r *registry) nextStream(name streamName, record streamRecord, version meta.Version) *stream {
	st := &stream{
		account: name.account, region: name.region, name: name.name, arn: name.arn(),
		id: record.ID, createdAt: record.CreatedAt, status: record.Status, mode: record.Mode,
		retention: time.Duration(record.RetentionHours) * time.Hour, trimFloor: record.TrimFloor,
		maxRecordBytes: int(record.MaxRecordKiB) << 10, autoDistribution: record.Auto, monitoring: record.Monitoring,
		record: record, version: version,
	}
	if record.KeyID != "" {
		st.encryption = &encryption{keyID: record.KeyID, dataKey: record.DataKey}
	}
	old := r.streams[name]
	if old != nil && old.id == st.id {
		st.gone, st.series = old.gone, old.series
		for _, m := range old.monitoring {
			if !st.monitors(m) {
				// Counters cannot be taken out one by one; those that stay on begin anew.
				r.dropShardMetrics(old, old.shards)
				break
			}
		}
		st.shards, st.open = old.shards, old.open
	} else {
		if old != nil {
			closeOnce(old.gone)
		}
		old = nil
		st.gone = make(chan struct{})
		st.series = r.metrics.Series(Labels{Account: name.account, Region: name.region, Stream: name.name})
	}
	if st.status == kinesis.StreamStatusDeleting {
		closeOnce(st.gone)
	}
	// The initial shards appear when CREATING ends.
	if st.status != kinesis.StreamStatusCreating && (old == nil || old.status == kinesis.StreamStatusCreating) && !record.neverActive() {
		st.shards = initialShards(record)
		st.open = slices.Clone(st.shards)
	}
	return st
}

// dropShardMetrics forgets the series of shards, if they may have any.
func (r *registry) dropShardMetrics(st *stream, shards []*shard) {
	if len(st.monitoring) == 0 {
		return
	}
	for _, sh := range shards {
		r.metrics.Drop(Labels{Account: st.account, Region: st.region, Stream: st.name, Shard: sh.id()})
	}
}

// neverActive reports that a stream is being deleted that never had shards.
func (r *streamRecord) neverActive() bool { return r.NextShard == 0 }

func initialShards(record streamRecord) []*shard {
	all := make([]shard, record.Initial)
	out := make([]*shard, record.Initial)
	for i := range all {
		start, end := uniformRange(uint32(i), record.Initial)
		all[i] = shard{
			stream: record.ID, index: uint32(i), log: driver.ShardID(record.ID + uint64(i)), start: start, end: end,
			parent: -1, adjacent: -1, created: record.Created, opened: record.CreatedAt,
		}
		out[i] = &all[i]
	}
	return out
}

func (r *registry) removeStream(name streamName) {
	st := r.streams[name]
	if st == nil {
		return
	}
	closeOnce(st.gone)
	delete(r.streams, name)
	delete(r.names, st.id)
	delete(r.sorted, accountName{name.account, name.region})
	r.metrics.Drop(Labels{Account: name.account, Region: name.region, Stream: name.name})
}

func (r *registry) applyConsumer(c meta.Change, parts []string) error {
	if len(parts) != 5 {
		return errors.New("not the key of a consumer")
	}
	name := streamName{parts[1], parts[2], parts[3]}
	old := r.byStream[name][parts[4]]
	if c.Deleted {
		if old != nil {
			closeOnce(old.gone)
			delete(r.consumers, old.arn)
			delete(r.byStream[name], parts[4])
			if len(r.byStream[name]) == 0 {
				delete(r.byStream, name)
			}
			r.metrics.Drop(Labels{Account: name.account, Region: name.region, Stream: name.name, Consumer: parts[4]})
		}
		return nil
	}
	record, err := consumerTable.Decode(c.Key, c.Value)
	if err != nil {
		return err
	}
	next := &consumer{
		name: parts[4], arn: consumerARN(name, parts[4], record.Created), streamID: record.StreamID, stream: name,
		createdAt: record.Created * 1000, status: record.Status, due: record.Due, record: record, version: c.Version,
	}
	if old != nil && old.arn == next.arn {
		next.gone, next.series = old.gone, old.series
	} else {
		next.gone = make(chan struct{})
		next.series = r.metrics.Series(Labels{Account: name.account, Region: name.region, Stream: name.name, Consumer: parts[4]})
	}
	if next.status == kinesis.ConsumerStatusDeleting {
		closeOnce(next.gone)
	}
	r.consumers[next.arn] = next
	if r.byStream[name] == nil {
		r.byStream[name] = map[string]*consumer{}
	}
	r.byStream[name][parts[4]] = next
	return nil
}

func (r *registry) applyChannel(c meta.Change) error {
	if c.Deleted {
		for arn, ch := range r.channels {
			if ch.key == c.Key {
				delete(r.channels, arn)
			}
		}
		return nil
	}
	record, err := channelTable.Decode(c.Key, c.Value)
	if err != nil {
		return err
	}
	r.channels[record.ARN] = &channel{channelRecord: record, key: c.Key, version: c.Version}
	return nil
}

// closeOnce closes a channel that only apply closes.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

func (r *registry) stream(n streamName) *stream {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.streams[n]
}

func (r *registry) consumer(arn string) *consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.consumers[arn]
}

// consumersOf returns a stream's consumers by name.
func (r *registry) consumersOf(n streamName) []*consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := slices.Collect(maps.Values(r.byStream[n]))
	slices.SortFunc(out, func(a, b *consumer) int { return strings.Compare(a.name, b.name) })
	return out
}

func (r *registry) consumerOf(n streamName, name string) *consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byStream[n][name]
}

func (r *registry) attributesOf(arn string) attributesVersion {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.attributes[arn]
}

func (r *registry) channel(arn string) *channel {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.channels[arn]
}

// channelsOf returns the channels of an account, by ARN.
func (r *registry) channelsOf(a accountName) []*channel {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*channel
	for _, ch := range r.channels {
		if ch.Account == a.account && ch.Region == a.region {
			out = append(out, ch)
		}
	}
	slices.SortFunc(out, func(a, b *channel) int { return strings.Compare(a.ARN, b.ARN) })
	return out
}

// streamNames returns the sorted names of an account's streams; the slice is
// shared.
func (r *registry) streamNames(a accountName) []string {
	r.mu.RLock()
	names, ok := r.sorted[a]
	r.mu.RUnlock()
	if ok {
		return names
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	names = []string{}
	for n := range r.streams {
		if n.account == a.account && n.region == a.region {
			names = append(names, n.name)
		}
	}
	slices.Sort(names)
	r.sorted[a] = names
	return names
}

// all returns every stream, in no order.
func (r *registry) all() []*stream {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.streams))
}

// allConsumers returns every consumer, in no order.
func (r *registry) allConsumers() []*consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.consumers))
}

func (r *registry) allChannels() []*channel {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.channels))
}

// usage is what an account's quotas count.
type usage struct {
	open, provisioned, onDemand, creating, channels int
	account                                         accountState
}

// usage counts an account's objects. Shards that accepted changes will add
// count already.
func (r *registry) usage(a accountName) usage {
	r.mu.RLock()
	defer r.mu.RUnlock()
	u := usage{account: r.accounts[a]}
	for n, st := range r.streams {
		if n.account != a.account || n.region != a.region {
			continue
		}
		open := len(st.open)
		if p := st.record.Pending; p != nil {
			switch p.Kind {
			case kindCreate:
				open = int(st.record.Initial)
			case kindSplit:
				open++
			case kindScale:
				open = max(open, int(p.Target))
			}
		}
		u.open += open
		if st.mode == kinesis.StreamModeOnDemand {
			u.onDemand++
		} else {
			u.provisioned += open
		}
		if st.status == kinesis.StreamStatusCreating {
			u.creating++
		}
	}
	for _, ch := range r.channels {
		if ch.Account == a.account && ch.Region == a.region {
			u.channels++
		}
	}
	return u
}

// touchAccount is the operation that makes a commit count against an account's
// quotas: it fails if anything else was counted since the usage was taken.
func touchAccount(a accountName, state accountState, change func(*accountRecord)) meta.Op {
	record := state.record
	record.Changes++
	if change != nil {
		change(&record)
	}
	if state.version == 0 {
		return accountTable.Insert(record, a.account, a.region)
	}
	return accountTable.Update(meta.Row[accountRecord]{Key: accountTable.Key(a.account, a.region), Version: state.version, Value: record})
}
