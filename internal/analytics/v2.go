package analytics

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
)

// V2 serves version 2 of the API, KinesisAnalytics_20180523, for SQL
// applications. Calls that change something answer with what is there then.
type V2 struct{ *Service }

var _ kinesisanalyticsv2.Handler = V2{}

// given reports whether any of these is set.
func given(set ...bool) bool {
	for _, is := range set {
		if is {
			return true
		}
	}
	return false
}

// CreateApplication makes an SQL application. Those of other runtimes are
// UnsupportedOperation.
func (v V2) CreateApplication(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.CreateApplicationInput) (*kinesisanalyticsv2.CreateApplicationOutput, error) {
	if e := api.Val(in.RuntimeEnvironment); e != kinesisanalyticsv2.RuntimeEnvironmentSql1_0 {
		return nil, unsupported("The runtime environment %s is not supported; applications are %s.", e, kinesisanalyticsv2.RuntimeEnvironmentSql1_0)
	}
	if in.ApplicationMode != nil && *in.ApplicationMode != kinesisanalyticsv2.ApplicationModeStreaming {
		return nil, invalid("The application mode %s is not supported for the runtime environment SQL-1_0.", *in.ApplicationMode)
	}
	c := creation{
		name: in.ApplicationName, description: in.ApplicationDescription, role: api.Val(in.ServiceExecutionRole), streaming: in.ApplicationMode != nil,
		logging: reshapeAll[kinesisanalytics.CloudWatchLoggingOption](in.CloudWatchLoggingOptions), tags: reshapeAll[kinesisanalytics.Tag](in.Tags),
	}
	if config := in.ApplicationConfiguration; config != nil {
		if given(config.FlinkApplicationConfiguration != nil, config.EnvironmentProperties != nil, config.ApplicationSnapshotConfiguration != nil,
			config.ApplicationSystemRollbackConfiguration != nil, config.VpcConfigurations != nil, config.ZeppelinApplicationConfiguration != nil,
			config.ApplicationEncryptionConfiguration != nil) {
			return nil, invalid("ApplicationConfiguration can have SqlApplicationConfiguration and ApplicationCodeConfiguration only for the runtime environment SQL-1_0.")
		}
		if code := config.ApplicationCodeConfiguration; code != nil {
			if api.Val(code.CodeContentType) != kinesisanalyticsv2.CodeContentTypePlaintext {
				return nil, invalid("CodeContentType must be PLAINTEXT for the runtime environment SQL-1_0.")
			}
			c.coded = true
			if content := code.CodeContent; content != nil {
				if content.ZipFileContent != nil || content.S3ContentLocation != nil {
					return nil, invalid("CodeContent can have TextContent only for the runtime environment SQL-1_0.")
				}
				c.code = content.TextContent
			}
		}
		if sql := config.SqlApplicationConfiguration; sql != nil {
			c.inputs = reshapeAll[kinesisanalytics.Input](sql.Inputs)
			c.outputs = reshapeAll[kinesisanalytics.Output](sql.Outputs)
			c.references = reshapeAll[kinesisanalytics.ReferenceDataSource](sql.ReferenceDataSources)
		}
	}
	a, err := v.create(ctx, call, c)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.CreateApplicationOutput{ApplicationDetail: a.detailV2()}, nil
}

// DescribeApplication shows an application, made with either version.
// IncludeAdditionalDetails adds nothing to an SQL application.
func (v V2) DescribeApplication(_ context.Context, call *api.Call, in *kinesisanalyticsv2.DescribeApplicationInput) (*kinesisanalyticsv2.DescribeApplicationOutput, error) {
	a, err := v.resolve(call, in.ApplicationName)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.DescribeApplicationOutput{ApplicationDetail: a.detailV2()}, nil
}

// ListApplications lists the caller's applications in the region by name. The
// token is the name that a page ended with.
func (v V2) ListApplications(_ context.Context, call *api.Call, in *kinesisanalyticsv2.ListApplicationsInput) (*kinesisanalyticsv2.ListApplicationsOutput, error) {
	page, more := v.page(call, in.NextToken, in.Limit)
	out := &kinesisanalyticsv2.ListApplicationsOutput{ApplicationSummaries: []kinesisanalyticsv2.ApplicationSummary{}}
	for _, a := range page {
		out.ApplicationSummaries = append(out.ApplicationSummaries, a.summaryV2())
	}
	if more {
		out.NextToken = &page[len(page)-1].name
	}
	return out, nil
}

// UpdateApplication changes what the update names.
func (v V2) UpdateApplication(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.UpdateApplicationInput) (*kinesisanalyticsv2.UpdateApplicationOutput, error) {
	if e := in.RuntimeEnvironmentUpdate; e != nil && *e != kinesisanalyticsv2.RuntimeEnvironmentSql1_0 {
		return nil, unsupported("The runtime environment of an SQL application cannot be changed to %s.", *e)
	}
	if in.RunConfigurationUpdate != nil {
		return nil, invalid("RunConfigurationUpdate is not supported for the runtime environment SQL-1_0.")
	}
	u := &kinesisanalytics.ApplicationUpdate{
		CloudWatchLoggingOptionUpdates: reshapeAll[kinesisanalytics.CloudWatchLoggingOptionUpdate](in.CloudWatchLoggingOptionUpdates),
	}
	if config := in.ApplicationConfigurationUpdate; config != nil {
		if given(config.FlinkApplicationConfigurationUpdate != nil, config.EnvironmentPropertyUpdates != nil, config.ApplicationSnapshotConfigurationUpdate != nil,
			config.ApplicationSystemRollbackConfigurationUpdate != nil, config.VpcConfigurationUpdates != nil, config.ZeppelinApplicationConfigurationUpdate != nil,
			config.ApplicationEncryptionConfigurationUpdate != nil) {
			return nil, invalid("ApplicationConfigurationUpdate can have SqlApplicationConfigurationUpdate and ApplicationCodeConfigurationUpdate only for the runtime environment SQL-1_0.")
		}
		if code := config.ApplicationCodeConfigurationUpdate; code != nil {
			if code.CodeContentTypeUpdate != nil && *code.CodeContentTypeUpdate != kinesisanalyticsv2.CodeContentTypePlaintext {
				return nil, invalid("CodeContentTypeUpdate must be PLAINTEXT for the runtime environment SQL-1_0.")
			}
			if content := code.CodeContentUpdate; content != nil {
				if content.ZipFileContentUpdate != nil || content.S3ContentLocationUpdate != nil {
					return nil, invalid("CodeContentUpdate can have TextContentUpdate only for the runtime environment SQL-1_0.")
				}
				u.ApplicationCodeUpdate = content.TextContentUpdate
			}
		}
		if sql := config.SqlApplicationConfigurationUpdate; sql != nil {
			u.InputUpdates = reshapeAll[kinesisanalytics.InputUpdate](sql.InputUpdates)
			u.OutputUpdates = reshapeAll[kinesisanalytics.OutputUpdate](sql.OutputUpdates)
			u.ReferenceDataSourceUpdates = reshapeAll[kinesisanalytics.ReferenceDataSourceUpdate](sql.ReferenceDataSourceUpdates)
		}
	}
	a, err := v.change(ctx, call, in.ApplicationName, guard{in.CurrentApplicationVersionId, in.ConditionalToken, true}, u, in.ServiceExecutionRoleUpdate)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.UpdateApplicationOutput{ApplicationDetail: a.detailV2()}, nil
}

// DeleteApplication deletes an application that is READY or RUNNING.
func (v V2) DeleteApplication(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationInput) (*kinesisanalyticsv2.DeleteApplicationOutput, error) {
	return nil, v.remove(ctx, call, in.ApplicationName, in.CreateTimestamp)
}

// StartApplication starts an application that is READY.
func (v V2) StartApplication(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.StartApplicationInput) (*kinesisanalyticsv2.StartApplicationOutput, error) {
	var positions []kinesisanalytics.InputConfiguration
	if c := in.RunConfiguration; c != nil {
		if c.FlinkRunConfiguration != nil || c.ApplicationRestoreConfiguration != nil {
			return nil, invalid("RunConfiguration can have SqlRunConfigurations only for the runtime environment SQL-1_0.")
		}
		for _, r := range c.SqlRunConfigurations {
			positions = append(positions, kinesisanalytics.InputConfiguration{
				Id:                                 r.InputId,
				InputStartingPositionConfiguration: reshape[kinesisanalytics.InputStartingPositionConfiguration](r.InputStartingPositionConfiguration),
			})
		}
	}
	return nil, v.start(ctx, call, in.ApplicationName, positions)
}

// StopApplication stops an application that is RUNNING. Force is for Flink.
func (v V2) StopApplication(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.StopApplicationInput) (*kinesisanalyticsv2.StopApplicationOutput, error) {
	if _, err := v.resolve(call, in.ApplicationName); err != nil {
		return nil, err
	}
	if api.Val(in.Force) {
		return nil, invalid("Force is not supported for the runtime environment SQL-1_0.")
	}
	return nil, v.stop(ctx, call, in.ApplicationName)
}

// AddApplicationInput adds the input, if there is none.
func (v V2) AddApplicationInput(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.AddApplicationInputInput) (*kinesisanalyticsv2.AddApplicationInputOutput, error) {
	a, err := v.addInput(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, reshape[kinesisanalytics.Input](in.Input))
	if err != nil {
		return nil, err
	}
	d := a.detailV2()
	return &kinesisanalyticsv2.AddApplicationInputOutput{
		ApplicationARN: d.ApplicationARN, ApplicationVersionId: d.ApplicationVersionId,
		InputDescriptions: a.sqlV2().InputDescriptions,
	}, nil
}

// AddApplicationInputProcessingConfiguration puts a function before an input.
func (v V2) AddApplicationInputProcessingConfiguration(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.AddApplicationInputProcessingConfigurationInput) (*kinesisanalyticsv2.AddApplicationInputProcessingConfigurationOutput, error) {
	a, err := v.addProcessing(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.InputId,
		reshape[kinesisanalytics.InputProcessingConfiguration](in.InputProcessingConfiguration))
	if err != nil {
		return nil, err
	}
	added, err := inputAt(&a.record, in.InputId)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.AddApplicationInputProcessingConfigurationOutput{
		ApplicationARN: api.Ptr(a.arn()), ApplicationVersionId: &a.record.Version, InputId: in.InputId,
		InputProcessingConfigurationDescription: reshape[kinesisanalyticsv2.InputProcessingConfigurationDescription](describer{}.processing(&added.Config)),
	}, nil
}

// DeleteApplicationInputProcessingConfiguration takes an input's function away.
func (v V2) DeleteApplicationInputProcessingConfiguration(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationInputProcessingConfigurationInput) (*kinesisanalyticsv2.DeleteApplicationInputProcessingConfigurationOutput, error) {
	a, err := v.deleteProcessing(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.InputId)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.DeleteApplicationInputProcessingConfigurationOutput{ApplicationARN: api.Ptr(a.arn()), ApplicationVersionId: &a.record.Version}, nil
}

// AddApplicationOutput adds one of at most three outputs.
func (v V2) AddApplicationOutput(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.AddApplicationOutputInput) (*kinesisanalyticsv2.AddApplicationOutputOutput, error) {
	a, err := v.addOutput(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, reshape[kinesisanalytics.Output](in.Output))
	if err != nil {
		return nil, err
	}
	d := a.detailV2()
	return &kinesisanalyticsv2.AddApplicationOutputOutput{
		ApplicationARN: d.ApplicationARN, ApplicationVersionId: d.ApplicationVersionId,
		OutputDescriptions: a.sqlV2().OutputDescriptions,
	}, nil
}

// DeleteApplicationOutput removes an output.
func (v V2) DeleteApplicationOutput(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationOutputInput) (*kinesisanalyticsv2.DeleteApplicationOutputOutput, error) {
	a, err := v.deleteOutput(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.OutputId)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.DeleteApplicationOutputOutput{ApplicationARN: api.Ptr(a.arn()), ApplicationVersionId: &a.record.Version}, nil
}

// AddApplicationReferenceDataSource adds the reference table, if there is none.
func (v V2) AddApplicationReferenceDataSource(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.AddApplicationReferenceDataSourceInput) (*kinesisanalyticsv2.AddApplicationReferenceDataSourceOutput, error) {
	a, err := v.addReference(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, reshape[kinesisanalytics.ReferenceDataSource](in.ReferenceDataSource))
	if err != nil {
		return nil, err
	}
	d := a.detailV2()
	return &kinesisanalyticsv2.AddApplicationReferenceDataSourceOutput{
		ApplicationARN: d.ApplicationARN, ApplicationVersionId: d.ApplicationVersionId,
		ReferenceDataSourceDescriptions: a.sqlV2().ReferenceDataSourceDescriptions,
	}, nil
}

// DeleteApplicationReferenceDataSource removes the reference table. A program that
// uses it cannot be started any more.
func (v V2) DeleteApplicationReferenceDataSource(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationReferenceDataSourceInput) (*kinesisanalyticsv2.DeleteApplicationReferenceDataSourceOutput, error) {
	a, err := v.deleteReference(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.ReferenceId)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.DeleteApplicationReferenceDataSourceOutput{ApplicationARN: api.Ptr(a.arn()), ApplicationVersionId: &a.record.Version}, nil
}

// AddApplicationCloudWatchLoggingOption adds a log stream.
func (v V2) AddApplicationCloudWatchLoggingOption(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.AddApplicationCloudWatchLoggingOptionInput) (*kinesisanalyticsv2.AddApplicationCloudWatchLoggingOptionOutput, error) {
	a, err := v.addLogging(ctx, call, in.ApplicationName, guard{in.CurrentApplicationVersionId, in.ConditionalToken, true},
		reshape[kinesisanalytics.CloudWatchLoggingOption](in.CloudWatchLoggingOption))
	if err != nil {
		return nil, err
	}
	d := a.detailV2()
	return &kinesisanalyticsv2.AddApplicationCloudWatchLoggingOptionOutput{
		ApplicationARN: d.ApplicationARN, ApplicationVersionId: d.ApplicationVersionId, CloudWatchLoggingOptionDescriptions: d.CloudWatchLoggingOptionDescriptions,
	}, nil
}

// DeleteApplicationCloudWatchLoggingOption removes a log stream.
func (v V2) DeleteApplicationCloudWatchLoggingOption(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationCloudWatchLoggingOptionInput) (*kinesisanalyticsv2.DeleteApplicationCloudWatchLoggingOptionOutput, error) {
	a, err := v.deleteLogging(ctx, call, in.ApplicationName, guard{in.CurrentApplicationVersionId, in.ConditionalToken, true}, in.CloudWatchLoggingOptionId)
	if err != nil {
		return nil, err
	}
	d := a.detailV2()
	return &kinesisanalyticsv2.DeleteApplicationCloudWatchLoggingOptionOutput{
		ApplicationARN: d.ApplicationARN, ApplicationVersionId: d.ApplicationVersionId, CloudWatchLoggingOptionDescriptions: d.CloudWatchLoggingOptionDescriptions,
	}, nil
}

// DiscoverInputSchema guesses the schema of a source from samples.
func (v V2) DiscoverInputSchema(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.DiscoverInputSchemaInput) (*kinesisanalyticsv2.DiscoverInputSchemaOutput, error) {
	out, err := v.discover(ctx, call, reshape[kinesisanalytics.DiscoverInputSchemaInput](in), api.Val(in.ServiceExecutionRole))
	return reshape[kinesisanalyticsv2.DiscoverInputSchemaOutput](out), err
}

// TagResource adds tags, or gives them new values.
func (v V2) TagResource(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.TagResourceInput) (*kinesisanalyticsv2.TagResourceOutput, error) {
	return nil, v.addTags(ctx, call, in.ResourceARN, reshapeAll[kinesisanalytics.Tag](in.Tags))
}

// UntagResource removes tags; one that is not there is no error.
func (v V2) UntagResource(ctx context.Context, call *api.Call, in *kinesisanalyticsv2.UntagResourceInput) (*kinesisanalyticsv2.UntagResourceOutput, error) {
	return nil, v.removeTags(ctx, call, in.ResourceARN, in.TagKeys)
}

// ListTagsForResource lists an application's tags by key.
func (v V2) ListTagsForResource(_ context.Context, call *api.Call, in *kinesisanalyticsv2.ListTagsForResourceInput) (*kinesisanalyticsv2.ListTagsForResourceOutput, error) {
	tags, err := v.tags(call, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return &kinesisanalyticsv2.ListTagsForResourceOutput{Tags: reshapeAll[kinesisanalyticsv2.Tag](tags)}, nil
}
