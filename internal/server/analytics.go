package server

import (
	"context"

	"github.com/millrace/millrace/internal/analytics"
	"github.com/millrace/millrace/internal/analytics/host"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/analyticscontrol"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/vfs"
	"github.com/millrace/millrace/internal/wire"
)

const (
	// applicationsDir holds the checkpoints of SQL applications.
	applicationsDir = "applications"
	// analyticsPrincipal is the service as trust policies name it.
	analyticsPrincipal = "kinesisanalytics.amazonaws.com"
)

// openAnalytics opens streaming SQL: what runs applications, and both versions of
// the API over it. It comes after everything that applications read and write.
// Applications that ran go on before it returns.
func (s *Server) openAnalytics(ctx context.Context) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	if files == nil {
		files = vfs.NewMemory()
	}
	resources := &applicationResources{
		streams: s.streams, firehose: s.firehose, delivery: s.delivery, store: s.objects, functions: s.functions, logs: s.logs,
		now: s.options.Now, logger: s.logger,
	}
	if s.config.Auth == "keys" {
		resources.access = &roleAccess{
			directory: s.directory, buckets: s.buckets, own: s.objects == objects.Store(s.buckets), session: "analytics", service: analyticsPrincipal,
		}
	}
	s.applications, err = host.New(host.Options{
		OpenSource: resources.source, OpenDestination: resources.destination, OpenObject: resources.object,
		Invoke: resources.invoke, Tell: resources.tell, Metrics: s.metrics.Analytics,
		Files: vfs.Sub(files, applicationsDir), CheckpointEvery: s.config.CheckpointInterval, MemoryLimit: int64(s.config.ApplicationMemory), ExactlyOnce: s.config.ExactlyOnce,
		Now: s.options.Now, Logger: s.logger,
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStopBefore("API", "applications", s.applications.Close)
	s.analytics, err = analytics.New(ctx, analytics.Options{
		Meta: s.meta, Host: s.applications, Sources: resources, Objects: resources.objects, Functions: resources,
		Now: s.options.Now, StateDelay: s.config.StateDelay, MaxApplications: s.config.MaxApplications, Extensions: s.config.SQLExtensions, Logger: s.logger,
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStopBefore("API", "registry of applications", func(context.Context) error { return s.analytics.Close() })
	s.health.applications.Store(s.analytics)
	access := applicationAccess{s.analytics}
	s.mux.Register(kinesisanalytics.Service, access, kinesisanalytics.Bind(analytics.V1{Service: s.analytics}))
	s.mux.Register(kinesisanalyticsv2.Service, access, kinesisanalyticsv2.Bind(analytics.V2{Service: s.analytics}))
	s.mux.Register(analyticscontrol.Service, access, analyticscontrol.Bind(analytics.Control{Service: s.analytics}))
	return nil
}

// applicationAccess is what the pipeline asks about applications.
type applicationAccess struct{ *analytics.Service }

// FurtherActions are tagging what is created, and passing roles.
func (a applicationAccess) FurtherActions(call *api.Call, in api.Shape) []wire.Action {
	tags, roles := a.Passes(call, in)
	var actions []wire.Action
	if tags {
		arn, account := a.ResourceARN(call, in)
		actions = append(actions, wire.Action{Name: "kinesisanalytics:TagResource", Resource: arn, Account: account})
	}
	for _, r := range roles {
		actions = append(actions, wire.Action{Name: "iam:PassRole", Resource: r.ARN, Account: r.Account,
			Values: map[string][]string{"iam:PassedToService": {analyticsPrincipal}}})
	}
	return actions
}
