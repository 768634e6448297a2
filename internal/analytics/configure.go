package analytics

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/internal/api"
)

// guard is the state that a caller makes a change from.
type guard struct {
	version *int64
	token   *string
	// either says that a token may be given in the version's place.
	either bool
}

// admits says whether an application is in the state that a caller knows.
func (g guard) admits(a *application) error {
	if g.either && (g.version == nil) == (g.token == nil) {
		return invalid("Exactly one of CurrentApplicationVersionId and ConditionalToken must be given.")
	}
	if g.version != nil && *g.version != a.record.Version {
		return stale("Application %s is at version %d, not %d.", a.name, a.record.Version, *g.version)
	}
	if g.token != nil && *g.token != a.record.token() {
		return stale("Application %s has changed since ConditionalToken was given.", a.name)
	}
	return nil
}

// Whether a change concerns the program.
const (
	codeStays   = false
	codeChanges = true
)

// configure stores what change makes of a configuration, as a new version, and
// returns the application as it is then. Checks in order: the application, its
// state, the guard, what change says, the rules, and the program if the change
// concerns it.
func (s *Service) configure(ctx context.Context, call *api.Call, name *string, g guard, code bool, change func(next *record) error) (*application, error) {
	for {
		a, err := s.changeable(call, name)
		if err != nil {
			return nil, err
		}
		if err := g.admits(a); err != nil {
			return nil, err
		}
		next, err := a.record.clone()
		if err != nil {
			return nil, err
		}
		if next.Version >= maxVersion {
			return nil, invalid("Application %s has had all versions there can be.", a.name)
		}
		next.Version++
		next.Changes++
		if err := change(next); err != nil {
			return nil, err
		}
		if err := s.checkConfiguration(next); err != nil {
			return nil, err
		}
		if code {
			if err := s.checkCode(next, a.applicationName); err != nil {
				return nil, err
			}
		}
		next.UpdatedAt = s.now().UnixMilli()
		if next.Status == running {
			next.Status, next.Due = updating, s.due()
		}
		conflict, err := s.commit(ctx, a.update(next))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &application{applicationName: a.applicationName, record: *next}, nil
		}
	}
}

// newID is the id of the nth thing that a call makes, from 1.
func newID(r *record, n int) string { return fmt.Sprintf("%d.%d", r.Version, n) }

// find returns the index of an id in a list.
func find[T any](list []T, id *string, of func(*T) string) (int, bool) {
	for i := range list {
		if of(&list[i]) == api.Val(id) {
			return i, true
		}
	}
	return 0, false
}

func inputAt(r *record, id *string) (*inputRecord, error) {
	i, ok := find(r.Inputs, id, func(in *inputRecord) string { return in.ID })
	if !ok {
		return nil, missing("Input %s not found.", api.Val(id))
	}
	return &r.Inputs[i], nil
}

func outputAt(r *record, id *string) (int, error) {
	i, ok := find(r.Outputs, id, func(out *outputRecord) string { return out.ID })
	if !ok {
		return 0, missing("Output %s not found.", api.Val(id))
	}
	return i, nil
}

func referenceAt(r *record, id *string) (int, error) {
	i, ok := find(r.References, id, func(ref *referenceRecord) string { return ref.ID })
	if !ok {
		return 0, missing("Reference data source %s not found.", api.Val(id))
	}
	return i, nil
}

func loggingAt(r *record, id *string) (int, error) {
	i, ok := find(r.Logging, id, func(l *loggingRecord) string { return l.ID })
	if !ok {
		return 0, missing("CloudWatch logging option %s not found.", api.Val(id))
	}
	return i, nil
}
