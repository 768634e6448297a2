package analytics

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/meta"
)

// The tables of this package.
//
//	analytics.application/{account}/{region}/{name}
//	analytics.account/{account}/{region}
const watchPrefix = "analytics."

var (
	applicationTable = meta.Table[record]{Prefix: "analytics.application", Format: 1}
	accountTable     = meta.Table[accountRecord]{Prefix: "analytics.account", Format: 1}
)

// status is the state of an application; the names are those of both APIs.
type status = kinesisanalytics.ApplicationStatus

const (
	ready    = kinesisanalytics.ApplicationStatusReady
	starting = kinesisanalytics.ApplicationStatusStarting
	running  = kinesisanalytics.ApplicationStatusRunning
	stopping = kinesisanalytics.ApplicationStatusStopping
	updating = kinesisanalytics.ApplicationStatusUpdating
	deleting = kinesisanalytics.ApplicationStatusDeleting
)

// record is an application as it is stored. Times are milliseconds since 1970.
type record struct {
	ID      string `json:"id"` // unique among all that ever were
	Status  status `json:"status"`
	Due     int64  `json:"due,omitempty"` // when a state that passes ends
	Version int64  `json:"version"`
	// Changes counts changes of the configuration, starts and stops: what a
	// conditional token stands for.
	Changes     uint64            `json:"changes"`
	Runs        uint64            `json:"runs,omitempty"`
	CreatedAt   int64             `json:"createdAt"`
	UpdatedAt   int64             `json:"updatedAt"`
	Description *string           `json:"description,omitempty"`
	Role        string            `json:"role,omitempty"`      // of version 2: one for everything
	Streaming   bool              `json:"streaming,omitempty"` // the mode was given
	Coded       bool              `json:"coded,omitempty"`     // the kind of code was given, if no code
	Code        *string           `json:"code,omitempty"`
	Inputs      []inputRecord     `json:"inputs,omitempty"`
	Outputs     []outputRecord    `json:"outputs,omitempty"`
	References  []referenceRecord `json:"references,omitempty"`
	Logging     []loggingRecord   `json:"logging,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
}

type inputRecord struct {
	ID     string                 `json:"id"`
	Config kinesisanalytics.Input `json:"config"`
	// Position is where the latest run began, empty before the first.
	Position   kinesisanalytics.InputStartingPosition `json:"position,omitempty"`
	PositionAt int64                                  `json:"positionAt,omitempty"`
}

type outputRecord struct {
	ID     string                  `json:"id"`
	Config kinesisanalytics.Output `json:"config"`
}

type referenceRecord struct {
	ID     string                               `json:"id"`
	Config kinesisanalytics.ReferenceDataSource `json:"config"`
	// Loaded is the version that asked for the object to be read.
	Loaded int64 `json:"loaded"`
}

type loggingRecord struct {
	ID     string                                   `json:"id"`
	Config kinesisanalytics.CloudWatchLoggingOption `json:"config"`
}

// accountRecord makes commits count against an account's quota: it is written by
// whatever adds an application.
type accountRecord struct {
	Changes uint64 `json:"changes"`
}

// clone is a record that shares nothing with the one it was made from.
func (r *record) clone() (*record, error) {
	next, err := applicationTable.Decode("", applicationTable.Encode(*r))
	if err != nil {
		return nil, fmt.Errorf("copy an application: %w", err)
	}
	return &next, nil
}

// token is the conditional token of a state.
func (r *record) token() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", r.ID, r.Changes))
	return hex.EncodeToString(sum[:16])
}

// applicationName is an application's place.
type applicationName struct{ account, region, name string }

func (n applicationName) arn() string {
	return "arn:aws:kinesisanalytics:" + n.region + ":" + n.account + ":application/" + n.name
}

// application is one state of one incarnation of an application; immutable.
type application struct {
	applicationName
	record  record
	version meta.Version
}

// update is the operation that writes a record if the application is still as it
// is here.
func (a *application) update(r *record) meta.Op {
	return applicationTable.Update(meta.Row[record]{Key: applicationTable.Key(a.account, a.region, a.name), Version: a.version, Value: *r})
}

// runs reports whether the host should run an application in its state.
func (a *application) runs() bool {
	switch a.record.Status {
	case starting, running, updating:
		return true
	}
	return false
}

// settled reports whether a state lasts until somebody changes it.
func (a *application) settled() bool { return a.record.Status == ready || a.record.Status == running }

// commit writes operations at once; conflict means that something has changed
// since it was read.
func (s *Service) commit(ctx context.Context, ops ...meta.Op) (conflict bool, err error) {
	_, err = s.meta.Commit(ctx, ops...)
	var lost *meta.ConflictError
	if errors.As(err, &lost) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("commit application metadata: %w", err)
	}
	return false, nil
}

// resolve finds the application that a call names.
func (s *Service) resolve(call *api.Call, name *string) (*application, error) {
	a := s.registry.application(applicationName{call.Account, call.Region, api.Val(name)})
	if a == nil {
		return nil, notFound(call.Account, api.Val(name))
	}
	return a, nil
}

// changeable is resolve for calls that need a state that lasts.
func (s *Service) changeable(call *api.Call, name *string) (*application, error) {
	a, err := s.resolve(call, name)
	if err != nil {
		return nil, err
	}
	if !a.settled() {
		return nil, passing(a)
	}
	return a, nil
}

// parseARN reads arn:{partition}:kinesisanalytics:{region}:{account}:application/{name}.
func parseARN(arn string) (applicationName, bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "kinesisanalytics" || len(parts[4]) != 12 {
		return applicationName{}, false
	}
	name, ok := strings.CutPrefix(parts[5], "application/")
	return applicationName{parts[4], parts[3], name}, ok && name != ""
}
