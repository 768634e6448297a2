package analytics

import (
	"cmp"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api"
)

// Overview is an application as an operator sees it: what the API has no words
// for. Its JSON is what the admin port answers.
type Overview struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	Name    string `json:"name"`
	Status  string `json:"status"`
	Version int64  `json:"version"`
	// Runs says that the host runs it. One that is RUNNING and does not has ended by
	// itself, for the reason in Problem.
	Runs bool `json:"runs"`
	// Problem is what keeps it from reading or delivering; empty if nothing does.
	Problem            string `json:"problem,omitempty"`
	MillisBehindLatest int64  `json:"millisBehindLatest"`
	RowsIn             int64  `json:"rowsIn"`
	RowsOut            int64  `json:"rowsOut"`
}

// Overviews are all applications, by account, region and name.
func (s *Service) Overviews() []Overview {
	list := []Overview{}
	for _, a := range s.registry.all() {
		st := s.status(a)
		list = append(list, Overview{
			Account: a.account, Region: a.region, Name: a.name, Status: string(a.record.Status), Version: a.record.Version,
			Runs: st.Running, Problem: st.Problem, MillisBehindLatest: st.MillisBehindLatest, RowsIn: st.RowsIn, RowsOut: st.RowsOut,
		})
	}
	slices.SortFunc(list, func(a, b Overview) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// status is how an application does, as the host says, or that what was asked of
// the host has failed.
func (s *Service) status(a *application) app.Status {
	st := s.host.Status(a.record.ID)
	if st.Problem == "" && s.finishers.failed(a.record.ID) {
		st.Problem = "the server could not finish a change of its state, and goes on trying: the server's log says why"
	}
	return st
}

// HeldUp counts the applications that should run and have a problem.
func (s *Service) HeldUp() (n int) {
	for _, a := range s.registry.all() {
		if a.runs() && s.status(a).Problem != "" {
			n++
		}
	}
	return n
}

// Reads tells whether the stream or delivery stream of an ARN is the input of an
// application, whatever its state: one that is stopped goes on where it was.
func (s *Service) Reads(arn string) bool {
	for _, a := range s.registry.all() {
		for i := range a.record.Inputs {
			in := &a.record.Inputs[i].Config
			if k := in.KinesisStreamsInput; k != nil && sameResource(api.Val(k.ResourceARN), arn) {
				return true
			}
			if k := in.KinesisFirehoseInput; k != nil && sameResource(api.Val(k.ResourceARN), arn) {
				return true
			}
		}
	}
	return false
}

// sameResource compares ARNs but for their partitions.
func sameResource(a, b string) bool {
	rest := func(arn string) string {
		if parts := strings.SplitN(arn, ":", 3); len(parts) == 3 {
			return parts[2]
		}
		return arn
	}
	return rest(a) == rest(b)
}
