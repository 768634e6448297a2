package analytics

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
)

// What version 2 has for Flink applications only. There are none here, so these
// operations find an SQL application, or none. Which error says that it cannot be
// done depends on what the model lists for the operation.

// flinkOnly answers an operation that SQL applications do not have.
func (s *Service) flinkOnly(call *api.Call, name *string, refuse func(format string, args ...any) error, what string) error {
	a, err := s.resolve(call, name)
	if err != nil {
		return err
	}
	return refuse("%s not supported for application %s, whose runtime environment is SQL-1_0.", what, a.name)
}

// noSnapshot answers an operation on a snapshot: nothing here has any.
func noSnapshot(name *string) error { return missing("Snapshot %s not found.", api.Val(name)) }

// AddApplicationVpcConfiguration is for Flink.
func (v V2) AddApplicationVpcConfiguration(_ context.Context, call *api.Call, in *kinesisanalyticsv2.AddApplicationVpcConfigurationInput) (*kinesisanalyticsv2.AddApplicationVpcConfigurationOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unusable, "VPC configurations are")
}

// CreateApplicationPresignedUrl is for Flink.
func (v V2) CreateApplicationPresignedUrl(_ context.Context, call *api.Call, in *kinesisanalyticsv2.CreateApplicationPresignedUrlInput) (*kinesisanalyticsv2.CreateApplicationPresignedUrlOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, invalid, "Presigned URLs are")
}

// CreateApplicationSnapshot is for Flink.
func (v V2) CreateApplicationSnapshot(_ context.Context, call *api.Call, in *kinesisanalyticsv2.CreateApplicationSnapshotInput) (*kinesisanalyticsv2.CreateApplicationSnapshotOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Snapshots are")
}

// CreateSnapshot is for Flink.
func (v V2) CreateSnapshot(_ context.Context, call *api.Call, in *kinesisanalyticsv2.CreateSnapshotInput) (*kinesisanalyticsv2.CreateSnapshotOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Snapshots are")
}

// DeleteApplicationSnapshot is for Flink.
func (v V2) DeleteApplicationSnapshot(_ context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationSnapshotInput) (*kinesisanalyticsv2.DeleteApplicationSnapshotOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Snapshots are")
}

// DeleteApplicationVpcConfiguration is for Flink.
func (v V2) DeleteApplicationVpcConfiguration(_ context.Context, call *api.Call, in *kinesisanalyticsv2.DeleteApplicationVpcConfigurationInput) (*kinesisanalyticsv2.DeleteApplicationVpcConfigurationOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unusable, "VPC configurations are")
}

// DeleteSnapshot finds no snapshot.
func (v V2) DeleteSnapshot(_ context.Context, _ *api.Call, in *kinesisanalyticsv2.DeleteSnapshotInput) (*kinesisanalyticsv2.DeleteSnapshotOutput, error) {
	return nil, noSnapshot(in.SnapshotName)
}

// DescribeApplicationOperation is for Flink.
func (v V2) DescribeApplicationOperation(_ context.Context, call *api.Call, in *kinesisanalyticsv2.DescribeApplicationOperationInput) (*kinesisanalyticsv2.DescribeApplicationOperationOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Operations are")
}

// DescribeApplicationSnapshot is for Flink.
func (v V2) DescribeApplicationSnapshot(_ context.Context, call *api.Call, in *kinesisanalyticsv2.DescribeApplicationSnapshotInput) (*kinesisanalyticsv2.DescribeApplicationSnapshotOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Snapshots are")
}

// DescribeApplicationVersion is for Flink.
func (v V2) DescribeApplicationVersion(_ context.Context, call *api.Call, in *kinesisanalyticsv2.DescribeApplicationVersionInput) (*kinesisanalyticsv2.DescribeApplicationVersionOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Descriptions of versions are")
}

// DescribeSnapshot finds no snapshot.
func (v V2) DescribeSnapshot(_ context.Context, _ *api.Call, in *kinesisanalyticsv2.DescribeSnapshotInput) (*kinesisanalyticsv2.DescribeSnapshotOutput, error) {
	return nil, noSnapshot(in.SnapshotName)
}

// DescribeSnapshotOperation finds no snapshot.
func (v V2) DescribeSnapshotOperation(_ context.Context, _ *api.Call, in *kinesisanalyticsv2.DescribeSnapshotOperationInput) (*kinesisanalyticsv2.DescribeSnapshotOperationOutput, error) {
	return nil, noSnapshot(in.SnapshotName)
}

// ExportSnapshot finds no snapshot.
func (v V2) ExportSnapshot(_ context.Context, _ *api.Call, in *kinesisanalyticsv2.ExportSnapshotInput) (*kinesisanalyticsv2.ExportSnapshotOutput, error) {
	return nil, noSnapshot(in.SnapshotName)
}

// ImportSnapshot is for Flink: nothing here could be restored from one.
func (v V2) ImportSnapshot(_ context.Context, _ *api.Call, _ *kinesisanalyticsv2.ImportSnapshotInput) (*kinesisanalyticsv2.ImportSnapshotOutput, error) {
	return nil, unsupported("Snapshots are not supported: applications are SQL-1_0.")
}

// ListApplicationOperations is for Flink.
func (v V2) ListApplicationOperations(_ context.Context, call *api.Call, in *kinesisanalyticsv2.ListApplicationOperationsInput) (*kinesisanalyticsv2.ListApplicationOperationsOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Operations are")
}

// ListApplicationSnapshots is for Flink.
func (v V2) ListApplicationSnapshots(_ context.Context, call *api.Call, in *kinesisanalyticsv2.ListApplicationSnapshotsInput) (*kinesisanalyticsv2.ListApplicationSnapshotsOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Snapshots are")
}

// ListApplicationVersions is for Flink.
func (v V2) ListApplicationVersions(_ context.Context, call *api.Call, in *kinesisanalyticsv2.ListApplicationVersionsInput) (*kinesisanalyticsv2.ListApplicationVersionsOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Lists of versions are")
}

// ListSnapshotOperations finds no snapshot.
func (v V2) ListSnapshotOperations(_ context.Context, _ *api.Call, in *kinesisanalyticsv2.ListSnapshotOperationsInput) (*kinesisanalyticsv2.ListSnapshotOperationsOutput, error) {
	return nil, noSnapshot(in.SnapshotName)
}

// ListSnapshots lists none; those of an SQL application are UnsupportedOperation.
func (v V2) ListSnapshots(_ context.Context, call *api.Call, in *kinesisanalyticsv2.ListSnapshotsInput) (*kinesisanalyticsv2.ListSnapshotsOutput, error) {
	if in.SourceApplicationName != nil {
		return nil, v.flinkOnly(call, in.SourceApplicationName, unsupported, "Snapshots are")
	}
	return &kinesisanalyticsv2.ListSnapshotsOutput{SnapshotInfoList: []kinesisanalyticsv2.SnapshotInfo{}}, nil
}

// RollbackApplication is for Flink.
func (v V2) RollbackApplication(_ context.Context, call *api.Call, in *kinesisanalyticsv2.RollbackApplicationInput) (*kinesisanalyticsv2.RollbackApplicationOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "A rollback is")
}

// UpdateApplicationMaintenanceConfiguration is for Flink.
func (v V2) UpdateApplicationMaintenanceConfiguration(_ context.Context, call *api.Call, in *kinesisanalyticsv2.UpdateApplicationMaintenanceConfigurationInput) (*kinesisanalyticsv2.UpdateApplicationMaintenanceConfigurationOutput, error) {
	return nil, v.flinkOnly(call, in.ApplicationName, unsupported, "Maintenance configurations are")
}
