package analytics

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/millrace/millrace/internal/meta"
)

// registry is what metadata says, ready for use. It changes only in apply.
type registry struct {
	mu           sync.RWMutex
	applications map[applicationName]*application
	ids          map[string]applicationName
	accounts     map[accountName]accountState
	err          error // the first record that could not be read
}

type accountName struct{ account, region string }

type accountState struct {
	record  accountRecord
	version meta.Version
}

func (r *registry) init() {
	r.applications = map[applicationName]*application{}
	r.ids = map[string]applicationName{}
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
	case applicationTable.Prefix:
		if len(parts) != 4 {
			return errors.New("not the key of an application")
		}
		name := applicationName{parts[1], parts[2], parts[3]}
		old := r.applications[name]
		if c.Deleted {
			if old != nil {
				delete(r.ids, old.record.ID)
			}
			delete(r.applications, name)
			return nil
		}
		record, err := applicationTable.Decode(c.Key, c.Value)
		if err != nil {
			return err
		}
		if record.ID == "" || record.Version < 1 {
			return errors.New("an application without id or version")
		}
		if old != nil && old.record.ID != record.ID {
			delete(r.ids, old.record.ID)
		}
		r.ids[record.ID] = name
		r.applications[name] = &application{applicationName: name, record: record, version: c.Version}
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

func (r *registry) failure() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.err
}

func (r *registry) application(n applicationName) *application {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.applications[n]
}

// byID finds an application by its id, nil if there is none.
func (r *registry) byID(id string) *application {
	r.mu.RLock()
	defer r.mu.RUnlock()
	name, ok := r.ids[id]
	if !ok {
		return nil
	}
	return r.applications[name]
}

// page returns up to limit of an account's applications by name, those behind
// after, and whether more follow.
func (r *registry) page(n accountName, after string, limit int) (page []*application, more bool) {
	r.mu.RLock()
	for name, a := range r.applications {
		if name.account == n.account && name.region == n.region && name.name > after {
			page = append(page, a)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(page, func(a, b *application) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	if len(page) > limit {
		return page[:limit], true
	}
	return page, false
}

// all returns every application, in no order.
func (r *registry) all() []*application {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.applications))
}

// usage is what an account's quota counts.
func (r *registry) usage(n accountName) (total int, account accountState) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for name := range r.applications {
		if name.account == n.account && name.region == n.region {
			total++
		}
	}
	return total, r.accounts[n]
}

// touchAccount is the operation that makes a commit count against an account's
// quota: it fails if anything else was counted since the usage was taken.
func touchAccount(n accountName, state accountState) meta.Op {
	next := accountRecord{state.record.Changes + 1}
	if state.version == 0 {
		return accountTable.Insert(next, n.account, n.region)
	}
	return accountTable.Update(meta.Row[accountRecord]{Key: accountTable.Key(n.account, n.region), Version: state.version, Value: next})
}
