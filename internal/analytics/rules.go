package analytics

import (
	"errors"
	"strings"

	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/sql"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

// What an application may have.
const (
	maxInputs     = 1
	maxOutputs    = 3
	maxReferences = 1
	maxTags       = 50
	maxVersion    = 999_999_999
)

// checkConfiguration applies the rules that hold for every configuration, other
// than those of the program.
func (s *Service) checkConfiguration(r *record) error {
	if len(r.Inputs) > maxInputs {
		return invalid("An application can have at most %d input.", maxInputs)
	}
	if len(r.Outputs) > maxOutputs {
		return invalid("An application can have at most %d outputs.", maxOutputs)
	}
	if len(r.References) > maxReferences {
		return invalid("An application can have at most %d reference data source.", maxReferences)
	}
	for i := range r.Inputs {
		if err := checkInput(&r.Inputs[i].Config); err != nil {
			return err
		}
	}
	for i := range r.Outputs {
		if err := checkOutput(&r.Outputs[i].Config); err != nil {
			return err
		}
		for _, other := range r.Outputs[:i] {
			if *other.Config.Name == *r.Outputs[i].Config.Name && destinationARN(&other.Config) == destinationARN(&r.Outputs[i].Config) {
				return invalid("The in-application stream %s has the output %s already.", *other.Config.Name, destinationARN(&other.Config))
			}
		}
	}
	for i := range r.References {
		if err := checkReference(r, &r.References[i].Config); err != nil {
			return err
		}
	}
	for i := range r.Logging {
		arn := api.Val(r.Logging[i].Config.LogStreamARN)
		if !resource(arn, "logs", "log-group:") || !strings.Contains(arn, ":log-stream:") {
			return invalid("LogStreamARN %s is not the ARN of a log stream.", arn)
		}
		for _, other := range r.Logging[:i] {
			if api.Val(other.Config.LogStreamARN) == arn {
				return invalid("The log stream %s is given twice.", arn)
			}
		}
	}
	return nil
}

func checkInput(in *kinesisanalytics.Input) error {
	prefix := api.Val(in.NamePrefix)
	if problem := identifier(prefix, maxIdentifier); problem != "" {
		return invalid("The NamePrefix %q %s.", prefix, problem)
	}
	switch stream, delivery := in.KinesisStreamsInput, in.KinesisFirehoseInput; {
	case (stream == nil) == (delivery == nil):
		return invalid("Exactly one of KinesisStreamsInput and KinesisFirehoseInput must be given for the input %s.", prefix)
	case stream != nil && !resource(api.Val(stream.ResourceARN), "kinesis", "stream/"):
		return invalid("ResourceARN %s is not the ARN of a data stream.", api.Val(stream.ResourceARN))
	case delivery != nil && !resource(api.Val(delivery.ResourceARN), "firehose", "deliverystream/"):
		return invalid("ResourceARN %s is not the ARN of a delivery stream.", api.Val(delivery.ResourceARN))
	}
	if n := parallelism(in); n < 1 || n > 64 {
		return invalid("The parallelism of an input is 1 to 64.")
	}
	if in.InputProcessingConfiguration != nil {
		p := processor(in)
		if p == nil || !resource(api.Val(p.ResourceARN), "lambda", "function:") {
			return invalid("The input processing configuration of the input %s does not name a Lambda function.", prefix)
		}
	}
	_, err := formatOf(in.InputSchema)
	return err
}

func checkOutput(out *kinesisanalytics.Output) error {
	name := api.Val(out.Name)
	if problem := identifier(name, maxIdentifier); problem != "" {
		return invalid("The output name %q %s.", name, problem)
	}
	n := 0
	if d := out.KinesisStreamsOutput; d != nil {
		n++
		if !resource(api.Val(d.ResourceARN), "kinesis", "stream/") {
			return invalid("ResourceARN %s is not the ARN of a data stream.", api.Val(d.ResourceARN))
		}
	}
	if d := out.KinesisFirehoseOutput; d != nil {
		n++
		if !resource(api.Val(d.ResourceARN), "firehose", "deliverystream/") {
			return invalid("ResourceARN %s is not the ARN of a delivery stream.", api.Val(d.ResourceARN))
		}
	}
	if d := out.LambdaOutput; d != nil {
		n++
		if !resource(api.Val(d.ResourceARN), "lambda", "function:") {
			return invalid("ResourceARN %s is not the ARN of a Lambda function.", api.Val(d.ResourceARN))
		}
	}
	if n != 1 {
		return invalid("Exactly one of KinesisStreamsOutput, KinesisFirehoseOutput and LambdaOutput must be given for the output %s.", name)
	}
	if out.DestinationSchema == nil || out.DestinationSchema.RecordFormatType == nil {
		return invalid("A destination schema with a record format is required for the output %s.", name)
	}
	return nil
}

// destinationARN is where an output goes.
func destinationARN(out *kinesisanalytics.Output) string {
	switch {
	case out.KinesisStreamsOutput != nil:
		return api.Val(out.KinesisStreamsOutput.ResourceARN)
	case out.KinesisFirehoseOutput != nil:
		return api.Val(out.KinesisFirehoseOutput.ResourceARN)
	case out.LambdaOutput != nil:
		return api.Val(out.LambdaOutput.ResourceARN)
	}
	return ""
}

func checkReference(r *record, ref *kinesisanalytics.ReferenceDataSource) error {
	table := api.Val(ref.TableName)
	if problem := identifier(table, maxIdentifier); problem != "" {
		return invalid("The table name %q %s.", table, problem)
	}
	if table == plan.ErrorStream {
		return invalid("The table name %s is that of the stream of errors.", table)
	}
	for i := range r.Inputs {
		for _, name := range streamNames(&r.Inputs[i].Config) {
			if name == table {
				return invalid("The table name %s is that of an in-application stream.", table)
			}
		}
	}
	object := ref.S3ReferenceDataSource
	if object == nil || object.BucketARN == nil || object.FileKey == nil {
		return invalid("S3ReferenceDataSource with BucketARN and FileKey is required for the reference table %s.", table)
	}
	if !bucket(*object.BucketARN) {
		return invalid("BucketARN %s is not the ARN of a bucket.", *object.BucketARN)
	}
	_, err := formatOf(ref.ReferenceSchema)
	return err
}

// resource reports whether an ARN is that of a resource of a service:
// arn:{partition}:{service}:{region}:{account}:{kind}{name}.
func resource(arn, service, kind string) bool {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != service || parts[3] == "" || len(parts[4]) != 12 {
		return false
	}
	name, ok := strings.CutPrefix(parts[5], kind)
	return ok && name != ""
}

// bucket reports whether an ARN is that of a bucket: arn:{partition}:s3:::{name}.
func bucket(arn string) bool {
	parts := strings.SplitN(arn, ":", 6)
	return len(parts) == 6 && parts[0] == "arn" && parts[2] == "s3" && parts[5] != "" && !strings.Contains(parts[5], "/")
}

// checkCode compiles the program of a configuration that is to be stored.
func (s *Service) checkCode(r *record, n applicationName) error {
	code := api.Val(r.Code)
	if strings.TrimSpace(code) == "" {
		return nil
	}
	if len(r.Inputs) == 0 {
		// What it reads may come with the input.
		if _, err := sql.Parse(code); err != nil {
			return codeError(err)
		}
		return nil
	}
	a, err := s.define(r, n)
	if err != nil {
		return err
	}
	if _, err := a.Compile(); err != nil {
		return codeError(err)
	}
	return nil
}

// maxProblems bounds how many of a program's errors a caller is told.
const maxProblems = 10

func codeError(err error) error {
	return &kinesisanalytics.CodeValidationException{Message: problems(err)}
}

// problems are the words of an error that came of a definition.
func problems(err error) string {
	var code *kinesisanalytics.CodeValidationException
	if errors.As(err, &code) {
		return code.Message
	}
	var argument *kinesisanalytics.InvalidArgumentException
	if errors.As(err, &argument) {
		return argument.Message
	}
	var all sql.Errors
	if errors.As(err, &all) && len(all) > maxProblems {
		err = all[:maxProblems]
	}
	return err.Error()
}

// checkStart says what keeps an application from being started.
func (s *Service) checkStart(a *application) error {
	r := &a.record
	if len(r.Inputs) == 0 {
		return unusable("Application %s has no input.", a.name)
	}
	if strings.TrimSpace(api.Val(r.Code)) == "" {
		return unusable("Application %s has no code.", a.name)
	}
	definition, err := s.define(r, a.applicationName)
	if err != nil {
		return unusable("Application %s cannot be started: %v", a.name, err)
	}
	if _, err := definition.Compile(); err != nil {
		return unusable("The code of application %s is not valid: %s", a.name, problems(err))
	}
	return nil
}
