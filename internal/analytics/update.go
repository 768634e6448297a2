package analytics

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

// change stores an update: what it names is changed, all else stays. A version
// is made even of an update that changes nothing, and a reference data source
// that it names is read again.
func (s *Service) change(ctx context.Context, call *api.Call, name *string, g guard, u *kinesisanalytics.ApplicationUpdate, role *string) (*application, error) {
	return s.configure(ctx, call, name, g, codeChanges, func(next *record) error {
		if role != nil {
			next.Role = *role
		}
		return merge(next, u)
	})
}

// set replaces a value if there is a new one.
func set[T any](old **T, next *T) {
	if next != nil {
		*old = next
	}
}

// merge applies an update to a configuration.
func merge(next *record, u *kinesisanalytics.ApplicationUpdate) error {
	if u == nil {
		return nil
	}
	set(&next.Code, u.ApplicationCodeUpdate)
	for i := range u.InputUpdates {
		in, err := inputAt(next, u.InputUpdates[i].InputId)
		if err != nil {
			return err
		}
		if err := mergeInput(in, &u.InputUpdates[i]); err != nil {
			return err
		}
	}
	for i := range u.OutputUpdates {
		at, err := outputAt(next, u.OutputUpdates[i].OutputId)
		if err != nil {
			return err
		}
		if err := mergeOutput(&next.Outputs[at], &u.OutputUpdates[i]); err != nil {
			return err
		}
	}
	for i := range u.ReferenceDataSourceUpdates {
		update := &u.ReferenceDataSourceUpdates[i]
		at, err := referenceAt(next, update.ReferenceId)
		if err != nil {
			return err
		}
		ref := &next.References[at]
		ref.Loaded = next.Version
		set(&ref.Config.TableName, update.TableNameUpdate)
		set(&ref.Config.ReferenceSchema, update.ReferenceSchemaUpdate)
		if o := update.S3ReferenceDataSourceUpdate; o != nil {
			if ref.Config.S3ReferenceDataSource == nil {
				ref.Config.S3ReferenceDataSource = new(kinesisanalytics.S3ReferenceDataSource)
			}
			set(&ref.Config.S3ReferenceDataSource.BucketARN, o.BucketARNUpdate)
			set(&ref.Config.S3ReferenceDataSource.FileKey, o.FileKeyUpdate)
			set(&ref.Config.S3ReferenceDataSource.ReferenceRoleARN, o.ReferenceRoleARNUpdate)
		}
	}
	for i := range u.CloudWatchLoggingOptionUpdates {
		update := &u.CloudWatchLoggingOptionUpdates[i]
		at, err := loggingAt(next, update.CloudWatchLoggingOptionId)
		if err != nil {
			return err
		}
		set(&next.Logging[at].Config.LogStreamARN, update.LogStreamARNUpdate)
		set(&next.Logging[at].Config.RoleARN, update.RoleARNUpdate)
	}
	return nil
}

// A source or destination of another kind takes the place of the one before, and
// its role if the update names none.

func mergeInput(in *inputRecord, u *kinesisanalytics.InputUpdate) error {
	c := &in.Config
	set(&c.NamePrefix, u.NamePrefixUpdate)
	if p := u.InputProcessingConfigurationUpdate; p != nil {
		processor := processor(c)
		if processor == nil {
			return invalid("Input %s has no input processing configuration to update.", in.ID)
		}
		if p.InputLambdaProcessorUpdate != nil {
			set(&processor.ResourceARN, p.InputLambdaProcessorUpdate.ResourceARNUpdate)
			set(&processor.RoleARN, p.InputLambdaProcessorUpdate.RoleARNUpdate)
		}
	}
	stream, delivery := u.KinesisStreamsInputUpdate, u.KinesisFirehoseInputUpdate
	if stream != nil && delivery != nil {
		return invalid("Only one of KinesisStreamsInputUpdate and KinesisFirehoseInputUpdate can be given for input %s.", in.ID)
	}
	if stream != nil {
		if old := c.KinesisFirehoseInput; old != nil {
			c.KinesisFirehoseInput, c.KinesisStreamsInput = nil, &kinesisanalytics.KinesisStreamsInput{RoleARN: old.RoleARN}
		}
		set(&c.KinesisStreamsInput.ResourceARN, stream.ResourceARNUpdate)
		set(&c.KinesisStreamsInput.RoleARN, stream.RoleARNUpdate)
	}
	if delivery != nil {
		if old := c.KinesisStreamsInput; old != nil {
			c.KinesisStreamsInput, c.KinesisFirehoseInput = nil, &kinesisanalytics.KinesisFirehoseInput{RoleARN: old.RoleARN}
		}
		set(&c.KinesisFirehoseInput.ResourceARN, delivery.ResourceARNUpdate)
		set(&c.KinesisFirehoseInput.RoleARN, delivery.RoleARNUpdate)
	}
	if schema := u.InputSchemaUpdate; schema != nil {
		set(&c.InputSchema.RecordFormat, schema.RecordFormatUpdate)
		set(&c.InputSchema.RecordEncoding, schema.RecordEncodingUpdate)
		if schema.RecordColumnUpdates != nil {
			c.InputSchema.RecordColumns = schema.RecordColumnUpdates
		}
	}
	if p := u.InputParallelismUpdate; p != nil && p.CountUpdate != nil {
		c.InputParallelism = &kinesisanalytics.InputParallelism{Count: p.CountUpdate}
	}
	return nil
}

func mergeOutput(out *outputRecord, u *kinesisanalytics.OutputUpdate) error {
	c := &out.Config
	set(&c.Name, u.NameUpdate)
	set(&c.DestinationSchema, u.DestinationSchemaUpdate)
	n := 0
	for _, given := range []bool{u.KinesisStreamsOutputUpdate != nil, u.KinesisFirehoseOutputUpdate != nil, u.LambdaOutputUpdate != nil} {
		if given {
			n++
		}
	}
	if n > 1 {
		return invalid("Only one of KinesisStreamsOutputUpdate, KinesisFirehoseOutputUpdate and LambdaOutputUpdate can be given for output %s.", out.ID)
	}
	role := destinationRole(c)
	if d := u.KinesisStreamsOutputUpdate; d != nil {
		if c.KinesisStreamsOutput == nil {
			c.KinesisStreamsOutput = &kinesisanalytics.KinesisStreamsOutput{RoleARN: role}
		}
		c.KinesisFirehoseOutput, c.LambdaOutput = nil, nil
		set(&c.KinesisStreamsOutput.ResourceARN, d.ResourceARNUpdate)
		set(&c.KinesisStreamsOutput.RoleARN, d.RoleARNUpdate)
	}
	if d := u.KinesisFirehoseOutputUpdate; d != nil {
		if c.KinesisFirehoseOutput == nil {
			c.KinesisFirehoseOutput = &kinesisanalytics.KinesisFirehoseOutput{RoleARN: role}
		}
		c.KinesisStreamsOutput, c.LambdaOutput = nil, nil
		set(&c.KinesisFirehoseOutput.ResourceARN, d.ResourceARNUpdate)
		set(&c.KinesisFirehoseOutput.RoleARN, d.RoleARNUpdate)
	}
	if d := u.LambdaOutputUpdate; d != nil {
		if c.LambdaOutput == nil {
			c.LambdaOutput = &kinesisanalytics.LambdaOutput{RoleARN: role}
		}
		c.KinesisStreamsOutput, c.KinesisFirehoseOutput = nil, nil
		set(&c.LambdaOutput.ResourceARN, d.ResourceARNUpdate)
		set(&c.LambdaOutput.RoleARN, d.RoleARNUpdate)
	}
	return nil
}

// destinationRole is the role that an output is written in.
func destinationRole(out *kinesisanalytics.Output) *string {
	switch {
	case out.KinesisStreamsOutput != nil:
		return out.KinesisStreamsOutput.RoleARN
	case out.KinesisFirehoseOutput != nil:
		return out.KinesisFirehoseOutput.RoleARN
	case out.LambdaOutput != nil:
		return out.LambdaOutput.RoleARN
	}
	return nil
}
