package analytics

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

// V1 serves version 1 of the API, KinesisAnalytics_20150814. Calls that change
// something answer with nothing.
type V1 struct{ *Service }

var _ kinesisanalytics.Handler = V1{}

// listLimit is the default and largest page of ListApplications.
const listLimit = 50

// CreateApplication makes an application without reference data, which version 1
// adds later.
func (v V1) CreateApplication(ctx context.Context, call *api.Call, in *kinesisanalytics.CreateApplicationInput) (*kinesisanalytics.CreateApplicationOutput, error) {
	a, err := v.create(ctx, call, creation{
		name: in.ApplicationName, description: in.ApplicationDescription, code: in.ApplicationCode,
		inputs: in.Inputs, outputs: in.Outputs, logging: in.CloudWatchLoggingOptions, tags: in.Tags,
	})
	if err != nil {
		return nil, err
	}
	return &kinesisanalytics.CreateApplicationOutput{ApplicationSummary: api.Ptr(a.summaryV1())}, nil
}

// DescribeApplication shows an application, made with either version.
func (v V1) DescribeApplication(_ context.Context, call *api.Call, in *kinesisanalytics.DescribeApplicationInput) (*kinesisanalytics.DescribeApplicationOutput, error) {
	a, err := v.resolve(call, in.ApplicationName)
	if err != nil {
		return nil, err
	}
	return &kinesisanalytics.DescribeApplicationOutput{ApplicationDetail: a.detailV1()}, nil
}

// ListApplications lists the caller's applications in the region by name, behind
// ExclusiveStartApplicationName, which need not exist.
func (v V1) ListApplications(_ context.Context, call *api.Call, in *kinesisanalytics.ListApplicationsInput) (*kinesisanalytics.ListApplicationsOutput, error) {
	page, more := v.page(call, in.ExclusiveStartApplicationName, in.Limit)
	out := &kinesisanalytics.ListApplicationsOutput{ApplicationSummaries: []kinesisanalytics.ApplicationSummary{}, HasMoreApplications: &more}
	for _, a := range page {
		out.ApplicationSummaries = append(out.ApplicationSummaries, a.summaryV1())
	}
	return out, nil
}

func (s *Service) page(call *api.Call, after *string, limit *int32) ([]*application, bool) {
	n := listLimit
	if limit != nil {
		n = int(*limit)
	}
	return s.registry.page(accountName{call.Account, call.Region}, api.Val(after), n)
}

// UpdateApplication changes what the update names.
func (v V1) UpdateApplication(ctx context.Context, call *api.Call, in *kinesisanalytics.UpdateApplicationInput) (*kinesisanalytics.UpdateApplicationOutput, error) {
	_, err := v.change(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.ApplicationUpdate, nil)
	return nil, err
}

// DeleteApplication deletes an application that is READY or RUNNING.
func (v V1) DeleteApplication(ctx context.Context, call *api.Call, in *kinesisanalytics.DeleteApplicationInput) (*kinesisanalytics.DeleteApplicationOutput, error) {
	return nil, v.remove(ctx, call, in.ApplicationName, in.CreateTimestamp)
}

// StartApplication starts an application that is READY.
func (v V1) StartApplication(ctx context.Context, call *api.Call, in *kinesisanalytics.StartApplicationInput) (*kinesisanalytics.StartApplicationOutput, error) {
	return nil, v.start(ctx, call, in.ApplicationName, in.InputConfigurations)
}

// StopApplication stops an application that is RUNNING.
func (v V1) StopApplication(ctx context.Context, call *api.Call, in *kinesisanalytics.StopApplicationInput) (*kinesisanalytics.StopApplicationOutput, error) {
	return nil, v.stop(ctx, call, in.ApplicationName)
}

// AddApplicationInput adds the input, if there is none.
func (v V1) AddApplicationInput(ctx context.Context, call *api.Call, in *kinesisanalytics.AddApplicationInputInput) (*kinesisanalytics.AddApplicationInputOutput, error) {
	_, err := v.addInput(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.Input)
	return nil, err
}

// AddApplicationInputProcessingConfiguration puts a function before an input.
func (v V1) AddApplicationInputProcessingConfiguration(ctx context.Context, call *api.Call, in *kinesisanalytics.AddApplicationInputProcessingConfigurationInput) (*kinesisanalytics.AddApplicationInputProcessingConfigurationOutput, error) {
	_, err := v.addProcessing(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.InputId, in.InputProcessingConfiguration)
	return nil, err
}

// DeleteApplicationInputProcessingConfiguration takes an input's function away.
func (v V1) DeleteApplicationInputProcessingConfiguration(ctx context.Context, call *api.Call, in *kinesisanalytics.DeleteApplicationInputProcessingConfigurationInput) (*kinesisanalytics.DeleteApplicationInputProcessingConfigurationOutput, error) {
	_, err := v.deleteProcessing(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.InputId)
	return nil, err
}

// AddApplicationOutput adds one of at most three outputs.
func (v V1) AddApplicationOutput(ctx context.Context, call *api.Call, in *kinesisanalytics.AddApplicationOutputInput) (*kinesisanalytics.AddApplicationOutputOutput, error) {
	_, err := v.addOutput(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.Output)
	return nil, err
}

// DeleteApplicationOutput removes an output.
func (v V1) DeleteApplicationOutput(ctx context.Context, call *api.Call, in *kinesisanalytics.DeleteApplicationOutputInput) (*kinesisanalytics.DeleteApplicationOutputOutput, error) {
	_, err := v.deleteOutput(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.OutputId)
	return nil, err
}

// AddApplicationReferenceDataSource adds the reference table, if there is none.
func (v V1) AddApplicationReferenceDataSource(ctx context.Context, call *api.Call, in *kinesisanalytics.AddApplicationReferenceDataSourceInput) (*kinesisanalytics.AddApplicationReferenceDataSourceOutput, error) {
	_, err := v.addReference(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.ReferenceDataSource)
	return nil, err
}

// DeleteApplicationReferenceDataSource removes the reference table. A program that
// uses it cannot be started any more.
func (v V1) DeleteApplicationReferenceDataSource(ctx context.Context, call *api.Call, in *kinesisanalytics.DeleteApplicationReferenceDataSourceInput) (*kinesisanalytics.DeleteApplicationReferenceDataSourceOutput, error) {
	_, err := v.deleteReference(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.ReferenceId)
	return nil, err
}

// AddApplicationCloudWatchLoggingOption adds a log stream.
func (v V1) AddApplicationCloudWatchLoggingOption(ctx context.Context, call *api.Call, in *kinesisanalytics.AddApplicationCloudWatchLoggingOptionInput) (*kinesisanalytics.AddApplicationCloudWatchLoggingOptionOutput, error) {
	_, err := v.addLogging(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.CloudWatchLoggingOption)
	return nil, err
}

// DeleteApplicationCloudWatchLoggingOption removes a log stream.
func (v V1) DeleteApplicationCloudWatchLoggingOption(ctx context.Context, call *api.Call, in *kinesisanalytics.DeleteApplicationCloudWatchLoggingOptionInput) (*kinesisanalytics.DeleteApplicationCloudWatchLoggingOptionOutput, error) {
	_, err := v.deleteLogging(ctx, call, in.ApplicationName, guard{version: in.CurrentApplicationVersionId}, in.CloudWatchLoggingOptionId)
	return nil, err
}

// DiscoverInputSchema guesses the schema of a source from samples.
func (v V1) DiscoverInputSchema(ctx context.Context, call *api.Call, in *kinesisanalytics.DiscoverInputSchemaInput) (*kinesisanalytics.DiscoverInputSchemaOutput, error) {
	role := in.RoleARN
	if in.S3Configuration != nil {
		role = in.S3Configuration.RoleARN
	}
	return v.discover(ctx, call, in, api.Val(role))
}

// TagResource adds tags, or gives them new values.
func (v V1) TagResource(ctx context.Context, call *api.Call, in *kinesisanalytics.TagResourceInput) (*kinesisanalytics.TagResourceOutput, error) {
	return nil, v.addTags(ctx, call, in.ResourceARN, in.Tags)
}

// UntagResource removes tags; one that is not there is no error.
func (v V1) UntagResource(ctx context.Context, call *api.Call, in *kinesisanalytics.UntagResourceInput) (*kinesisanalytics.UntagResourceOutput, error) {
	return nil, v.removeTags(ctx, call, in.ResourceARN, in.TagKeys)
}

// ListTagsForResource lists an application's tags by key.
func (v V1) ListTagsForResource(_ context.Context, call *api.Call, in *kinesisanalytics.ListTagsForResourceInput) (*kinesisanalytics.ListTagsForResourceOutput, error) {
	tags, err := v.tags(call, in.ResourceARN)
	if err != nil {
		return nil, err
	}
	return &kinesisanalytics.ListTagsForResourceOutput{Tags: tags}, nil
}
