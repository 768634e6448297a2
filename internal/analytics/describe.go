package analytics

import (
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
)

// streamNames are the in-application streams of an input.
func streamNames(in *kinesisanalytics.Input) []string {
	var names []string
	for i := range parallelism(in) {
		names = append(names, app.StreamName(api.Val(in.NamePrefix), i+1))
	}
	return names
}

func stamp(millis int64) *time.Time { return api.Ptr(time.UnixMilli(millis).UTC()) }

// describer makes descriptions in the shapes of version 1. Those for version 1
// name a role everywhere: the application's where the resource has none.
type describer struct{ role *string }

func (a *application) v1() describer {
	if a.record.Role == "" {
		return describer{}
	}
	return describer{&a.record.Role}
}

func (d describer) roleOf(own *string) *string {
	if own == nil {
		return d.role
	}
	return own
}

func (d describer) inputs(list []inputRecord) []kinesisanalytics.InputDescription {
	var out []kinesisanalytics.InputDescription
	for i := range list {
		in := &list[i]
		c := &in.Config
		description := kinesisanalytics.InputDescription{
			InputId: &in.ID, NamePrefix: c.NamePrefix, InAppStreamNames: streamNames(c), InputSchema: c.InputSchema,
			InputParallelism:                        &kinesisanalytics.InputParallelism{Count: api.Ptr(int32(parallelism(c)))},
			InputProcessingConfigurationDescription: d.processing(c),
			InputStartingPositionConfiguration:      &kinesisanalytics.InputStartingPositionConfiguration{},
		}
		if in.Position != "" {
			description.InputStartingPositionConfiguration.InputStartingPosition = &in.Position
		}
		if k := c.KinesisStreamsInput; k != nil {
			description.KinesisStreamsInputDescription = &kinesisanalytics.KinesisStreamsInputDescription{ResourceARN: k.ResourceARN, RoleARN: d.roleOf(k.RoleARN)}
		}
		if k := c.KinesisFirehoseInput; k != nil {
			description.KinesisFirehoseInputDescription = &kinesisanalytics.KinesisFirehoseInputDescription{ResourceARN: k.ResourceARN, RoleARN: d.roleOf(k.RoleARN)}
		}
		out = append(out, description)
	}
	return out
}

func (d describer) processing(in *kinesisanalytics.Input) *kinesisanalytics.InputProcessingConfigurationDescription {
	p := processor(in)
	if p == nil {
		return nil
	}
	return &kinesisanalytics.InputProcessingConfigurationDescription{
		InputLambdaProcessorDescription: &kinesisanalytics.InputLambdaProcessorDescription{ResourceARN: p.ResourceARN, RoleARN: d.roleOf(p.RoleARN)},
	}
}

func (d describer) outputs(list []outputRecord) []kinesisanalytics.OutputDescription {
	var out []kinesisanalytics.OutputDescription
	for i := range list {
		c := &list[i].Config
		description := kinesisanalytics.OutputDescription{OutputId: &list[i].ID, Name: c.Name, DestinationSchema: c.DestinationSchema}
		if k := c.KinesisStreamsOutput; k != nil {
			description.KinesisStreamsOutputDescription = &kinesisanalytics.KinesisStreamsOutputDescription{ResourceARN: k.ResourceARN, RoleARN: d.roleOf(k.RoleARN)}
		}
		if k := c.KinesisFirehoseOutput; k != nil {
			description.KinesisFirehoseOutputDescription = &kinesisanalytics.KinesisFirehoseOutputDescription{ResourceARN: k.ResourceARN, RoleARN: d.roleOf(k.RoleARN)}
		}
		if k := c.LambdaOutput; k != nil {
			description.LambdaOutputDescription = &kinesisanalytics.LambdaOutputDescription{ResourceARN: k.ResourceARN, RoleARN: d.roleOf(k.RoleARN)}
		}
		out = append(out, description)
	}
	return out
}

func (d describer) references(list []referenceRecord) []kinesisanalytics.ReferenceDataSourceDescription {
	var out []kinesisanalytics.ReferenceDataSourceDescription
	for i := range list {
		c := &list[i].Config
		description := kinesisanalytics.ReferenceDataSourceDescription{ReferenceId: &list[i].ID, TableName: c.TableName, ReferenceSchema: c.ReferenceSchema}
		if o := c.S3ReferenceDataSource; o != nil {
			description.S3ReferenceDataSourceDescription = &kinesisanalytics.S3ReferenceDataSourceDescription{
				BucketARN: o.BucketARN, FileKey: o.FileKey, ReferenceRoleARN: d.roleOf(o.ReferenceRoleARN),
			}
		}
		out = append(out, description)
	}
	return out
}

func (d describer) logging(list []loggingRecord) []kinesisanalytics.CloudWatchLoggingOptionDescription {
	var out []kinesisanalytics.CloudWatchLoggingOptionDescription
	for i := range list {
		c := &list[i].Config
		out = append(out, kinesisanalytics.CloudWatchLoggingOptionDescription{
			CloudWatchLoggingOptionId: &list[i].ID, LogStreamARN: c.LogStreamARN, RoleARN: d.roleOf(c.RoleARN),
		})
	}
	return out
}

// detailV1 is an application as version 1 shows it.
func (a *application) detailV1() *kinesisanalytics.ApplicationDetail {
	r, d := &a.record, a.v1()
	return &kinesisanalytics.ApplicationDetail{
		ApplicationName: &a.name, ApplicationDescription: r.Description, ApplicationARN: api.Ptr(a.arn()), ApplicationStatus: &r.Status,
		CreateTimestamp: stamp(r.CreatedAt), LastUpdateTimestamp: stamp(r.UpdatedAt), ApplicationVersionId: &r.Version,
		ApplicationCode: r.Code, InputDescriptions: d.inputs(r.Inputs), OutputDescriptions: d.outputs(r.Outputs),
		ReferenceDataSourceDescriptions: d.references(r.References), CloudWatchLoggingOptionDescriptions: d.logging(r.Logging),
	}
}

// detailV2 is an application as version 2 shows it: roles of resources only
// where version 1 has given them.
func (a *application) detailV2() *kinesisanalyticsv2.ApplicationDetail {
	var d describer
	r := &a.record
	detail := &kinesisanalyticsv2.ApplicationDetail{
		ApplicationName: &a.name, ApplicationDescription: r.Description, ApplicationARN: api.Ptr(a.arn()),
		RuntimeEnvironment: api.Ptr(kinesisanalyticsv2.RuntimeEnvironmentSql1_0), ApplicationStatus: api.Ptr(kinesisanalyticsv2.ApplicationStatus(r.Status)),
		ApplicationVersionId: &r.Version, CreateTimestamp: stamp(r.CreatedAt), LastUpdateTimestamp: stamp(r.UpdatedAt),
		ConditionalToken:                    api.Ptr(r.token()),
		CloudWatchLoggingOptionDescriptions: reshapeAll[kinesisanalyticsv2.CloudWatchLoggingOptionDescription](d.logging(r.Logging)),
	}
	// What an application was not given is not there, as in the service: tools that
	// plan changes take an empty description for one that is to be removed.
	var config kinesisanalyticsv2.ApplicationConfigurationDescription
	if len(r.Inputs)+len(r.Outputs)+len(r.References) > 0 {
		config.SqlApplicationConfigurationDescription = a.sqlV2()
	}
	if r.Coded || r.Code != nil {
		code := &kinesisanalyticsv2.ApplicationCodeConfigurationDescription{CodeContentType: api.Ptr(kinesisanalyticsv2.CodeContentTypePlaintext)}
		if r.Code != nil {
			code.CodeContentDescription = &kinesisanalyticsv2.CodeContentDescription{TextContent: r.Code}
		}
		config.ApplicationCodeConfigurationDescription = code
	}
	if config.SqlApplicationConfigurationDescription != nil || config.ApplicationCodeConfigurationDescription != nil {
		detail.ApplicationConfigurationDescription = &config
	}
	if r.Role != "" {
		detail.ServiceExecutionRole = &r.Role
	}
	if r.Streaming {
		detail.ApplicationMode = api.Ptr(kinesisanalyticsv2.ApplicationModeStreaming)
	}
	return detail
}

// sqlV2 is what an application reads and writes, as version 2 shows it.
func (a *application) sqlV2() *kinesisanalyticsv2.SqlApplicationConfigurationDescription {
	var d describer
	return &kinesisanalyticsv2.SqlApplicationConfigurationDescription{
		InputDescriptions:               reshapeAll[kinesisanalyticsv2.InputDescription](d.inputs(a.record.Inputs)),
		OutputDescriptions:              reshapeAll[kinesisanalyticsv2.OutputDescription](d.outputs(a.record.Outputs)),
		ReferenceDataSourceDescriptions: reshapeAll[kinesisanalyticsv2.ReferenceDataSourceDescription](d.references(a.record.References)),
	}
}

// summaryV1 is an application in lists and in the answer to its making.
func (a *application) summaryV1() kinesisanalytics.ApplicationSummary {
	return kinesisanalytics.ApplicationSummary{ApplicationName: &a.name, ApplicationARN: api.Ptr(a.arn()), ApplicationStatus: &a.record.Status}
}

func (a *application) summaryV2() kinesisanalyticsv2.ApplicationSummary {
	d := a.detailV2()
	return kinesisanalyticsv2.ApplicationSummary{
		ApplicationName: d.ApplicationName, ApplicationARN: d.ApplicationARN, ApplicationStatus: d.ApplicationStatus,
		ApplicationVersionId: d.ApplicationVersionId, RuntimeEnvironment: d.RuntimeEnvironment, ApplicationMode: d.ApplicationMode,
	}
}
