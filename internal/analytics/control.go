package analytics

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/analyticscontrol"
)

// Control serves what applications can tell here beyond the service's API. It is a
// model of its own (model/millrace-analytics.json), signed and authorised like
// both versions, so that the command line needs no second way in.
type Control struct{ *Service }

var _ analyticscontrol.Handler = Control{}

// GetApplicationStatus tells how an application does: whether it runs, what keeps
// it from reading or delivering, and how far it has got since it was started or
// changed, or the server was started.
func (c Control) GetApplicationStatus(_ context.Context, call *api.Call, in *analyticscontrol.GetApplicationStatusInput) (*analyticscontrol.GetApplicationStatusOutput, error) {
	a, err := c.resolve(call, in.ApplicationName)
	if err != nil {
		return nil, err
	}
	st := c.status(a)
	out := &analyticscontrol.GetApplicationStatusOutput{
		ApplicationStatus: api.Ptr(string(a.record.Status)), ApplicationVersionId: &a.record.Version, Runs: &st.Running,
		MillisBehindLatest: &st.MillisBehindLatest, RowsIn: &st.RowsIn, RowsOut: &st.RowsOut,
	}
	if st.Problem != "" {
		out.Problem = &st.Problem
	}
	return out, nil
}
