package firehose

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/meta"
)

// registry is what metadata says, ready for use. It changes only in apply.
type registry struct {
	mu       sync.RWMutex
	streams  map[streamName]*stream
	ids      map[string]streamName
	sorted   map[accountName][]string
	accounts map[accountName]accountState
	err      error // the first record that could not be read
	metrics  delivery.Metrics
}

type accountName struct{ account, region string }

type accountState struct {
	record  accountRecord
	version meta.Version
}

func (r *registry) init(metrics delivery.Metrics) {
	r.metrics = metrics
	r.streams = map[streamName]*stream{}
	r.ids = map[string]streamName{}
	r.sorted = map[accountName][]string{}
	r.accounts = map[accountName]accountState{}
}

// apply takes in one commit, or at the start everything there is.
func (r *registry) apply(changes []meta.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if err := r.applyLocked(c); err != nil && r.err == nil {
			r.err = fmt.Errorf("read %q: %w", c.Key, err)
		}
	}
}

func (r *registry) applyLocked(c meta.Change) error {
	parts, err := meta.SplitKey(c.Key)
	if err != nil {
		return err
	}
	switch parts[0] {
	case streamTable.Prefix:
		if len(parts) != 4 {
			return errors.New("not the key of a delivery stream")
		}
		name := streamName{parts[1], parts[2], parts[3]}
		old := r.streams[name]
		if c.Deleted {
			if old != nil {
				delete(r.ids, old.record.ID)
			}
			delete(r.streams, name)
			delete(r.sorted, accountName{name.account, name.region})
			return nil
		}
		record, err := streamTable.Decode(c.Key, c.Value)
		if err != nil {
			return err
		}
		st, err := newStream(name, record, c.Version)
		if err != nil {
			return err
		}
		if old != nil && old.record.ID == record.ID {
			st.series = old.series
		} else {
			st.series = r.metrics.Series(name.account, name.region, name.name)
		}
		if old == nil {
			delete(r.sorted, accountName{name.account, name.region})
		} else if old.record.ID != record.ID {
			delete(r.ids, old.record.ID)
		}
		r.ids[record.ID] = name
		r.streams[name] = st
	case accountTable.Prefix:
		if len(parts) != 3 {
			return errors.New("not the key of an account")
		}
		record, err := accountTable.Decode(c.Key, c.Value)
		if err != nil {
			return err
		}
		r.accounts[accountName{parts[1], parts[2]}] = accountState{record, c.Version}
	}
	return nil
}

func (r *registry) stream(n streamName) *stream {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.streams[n]
}

// byID finds a delivery stream by its id, nil if there is none.
func (r *registry) byID(id string) *stream {
	r.mu.RLock()
	defer r.mu.RUnlock()
	name, ok := r.ids[id]
	if !ok {
		return nil
	}
	return r.streams[name]
}

// names returns the sorted names of an account's delivery streams; the slice is
// shared.
func (r *registry) names(a accountName) []string {
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

// all returns every delivery stream, in no order.
func (r *registry) all() []*stream {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.streams))
}

// usage is what an account's quotas count.
func (r *registry) usage(a accountName, keyARN string) (total, underKey int, account accountState) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for n, st := range r.streams {
		if n.account != a.account || n.region != a.region {
			continue
		}
		total++
		if keyARN != "" && st.record.Encryption.KeyARN == keyARN {
			underKey++
		}
	}
	return total, underKey, r.accounts[a]
}

// touchAccount is the operation that makes a commit count against an account's
// quotas: it fails if anything else was counted since the usage was taken.
func touchAccount(a accountName, state accountState) meta.Op {
	record := state.record
	record.Changes++
	if state.version == 0 {
		return accountTable.Insert(record, a.account, a.region)
	}
	return accountTable.Update(meta.Row[accountRecord]{Key: accountTable.Key(a.account, a.region), Version: state.version, Value: record})
}

// noMetrics is the Metrics of a Service without one.
type noMetrics struct{}

func (noMetrics) Series(string, string, string) delivery.Series { return noSeries{} }
func (noMetrics) Drop(string, string, string)                   {}

type noSeries struct{}

func (noSeries) Add(delivery.Metric, float64) {}
