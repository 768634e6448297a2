package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/client"
)

// importer creates applications from their descriptions.
type importer struct {
	roles, tags                                     []string
	keepARNs, createStreams, start, dryRun, replace bool
	from                                            string // position
	shards                                          int32

	cmd   *cobra.Command
	cl    *client.Client
	owner string // account
}

func sqlImportCommand() *cobra.Command {
	c := &connection{}
	i := &importer{}
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Create applications from what describe-application has printed",
		Long: `Create SQL applications from saved descriptions: what "aws kinesisanalytics
describe-application" or "aws kinesisanalyticsv2 describe-application" has printed,
a file or several in one. "-" is standard input.

Account and region in the names of resources become those of the caller, unless
--keep-arns is given; roles too, and --role-map gives them other names. Streams
that are missing are made with --create-streams; what else is missing is told, and
an application waits for it. An application that is there already is left alone if
it is the same; what it lacks after an import that was interrupted is added. One
that differs is an error, unless --replace deletes it first.`,
		Example: `  aws kinesisanalyticsv2 describe-application --application-name trades >trades.json
  millrace sql import trades.json --dry-run
  millrace sql import trades.json --create-streams --start`,
		Args: cobra.MinimumNArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			i.cmd, i.cl = cmd, cl
			return i.files(ctx, args)
		}),
	}
	c.register(cmd)
	cmd.ValidArgsFunction = nil
	f := cmd.Flags()
	f.BoolVar(&i.start, "start", false, "start the applications, and wait until they run")
	f.StringVar(&i.from, "from", "", "with --start, where inputs begin: now or trim (default as described)")
	f.BoolVar(&i.createStreams, "create-streams", false, "create data streams that are missing")
	f.Int32Var(&i.shards, "shards", 1, "shards of streams that are created")
	f.BoolVar(&i.keepARNs, "keep-arns", false, "leave account and region of resources and roles as they are")
	f.StringArrayVar(&i.roles, "role-map", nil, "OLD=NEW: another role, by name or ARN; OLD may be * for all others. May be repeated")
	f.StringArrayVar(&i.tags, "tag", nil, "KEY=VALUE: a tag of the applications, beside those in the files. May be repeated")
	f.BoolVar(&i.replace, "replace", false, "delete an application of the name that differs, with its state, and create it anew")
	f.BoolVar(&i.dryRun, "dry-run", false, "say what would be done, and do nothing")
	return cmd
}

func (i *importer) files(ctx context.Context, args []string) error {
	var err error
	if i.from != "" && i.from != "now" && i.from != "trim" {
		return fmt.Errorf("--from %q is neither now nor trim", i.from)
	}
	if i.owner, err = account(ctx, i.cl); err != nil {
		return err
	}
	roles := map[string]string{}
	for _, r := range i.roles {
		old, now, ok := strings.Cut(r, "=")
		if !ok || old == "" || now == "" {
			return fmt.Errorf("--role-map %q is not OLD=NEW", r)
		}
		roles[old] = now
	}
	var more []kinesisanalytics.Tag
	for _, t := range i.tags {
		key, value, ok := strings.Cut(t, "=")
		if !ok || key == "" {
			return fmt.Errorf("--tag %q is not KEY=VALUE", t)
		}
		more = append(more, kinesisanalytics.Tag{Key: &key, Value: &value})
	}
	type one struct {
		*application
		file string
	}
	var all []one
	for _, file := range args {
		raw, err := readFile(i.cmd, file)
		if err != nil {
			return err
		}
		list, err := parseApplications(raw, func(d map[string]any) { i.rewrite(d, roles) })
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, a := range list {
			if slices.ContainsFunc(all, func(o one) bool { return o.name() == a.name() }) {
				return fmt.Errorf("%s: %s is in the files twice", file, a.name())
			}
			for _, t := range more {
				a.tags = slices.DeleteFunc(a.tags, func(have kinesisanalytics.Tag) bool { return *have.Key == *t.Key })
				a.tags = append(a.tags, t)
			}
			all = append(all, one{a, file})
		}
	}
	// Programs are checked before anything is made.
	for _, a := range all {
		d, err := a.definition()
		if err != nil {
			return fmt.Errorf("%s: %w", a.file, err)
		}
		if _, err := compileApplication(i.cmd, d, a.name()); err != nil {
			return err
		}
	}
	for _, a := range all {
		if err := i.one(ctx, a.application); err != nil {
			return fmt.Errorf("%s: %w", a.name(), err)
		}
	}
	return nil
}

// readFile reads a file, or standard input for -; both up to a bound.
func readFile(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return readAtMost(cmd.InOrStdin(), name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, name)
}

// rewrite makes resources and roles those of the caller.
func (i *importer) rewrite(v any, roles map[string]string) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			i.rewrite(x, roles)
		}
	case map[string]any:
		for name, x := range v {
			s, isText := x.(string)
			if !isText {
				i.rewrite(x, roles)
				continue
			}
			if !strings.HasSuffix(name, "ARN") && name != "ServiceExecutionRole" {
				continue
			}
			v[name] = i.arn(s, roles)
		}
	}
}

func (i *importer) arn(s string, roles map[string]string) string {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return s
	}
	if parts[2] == "iam" {
		name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
		for _, old := range []string{s, name, "*"} {
			now, ok := roles[old]
			if !ok {
				continue
			}
			if strings.HasPrefix(now, "arn:") {
				return now
			}
			parts[5] = "role/" + now
			break
		}
	}
	if i.keepARNs {
		return strings.Join(parts, ":")
	}
	if parts[3] != "" {
		parts[3] = i.cl.Region()
	}
	if parts[4] != "" {
		parts[4] = i.owner
	}
	return strings.Join(parts, ":")
}

func (i *importer) say(format string, args ...any) {
	fmt.Fprintf(i.cmd.OutOrStdout(), format+"\n", args...)
}

func (i *importer) remark(format string, args ...any) {
	fmt.Fprintf(i.cmd.ErrOrStderr(), format+"\n", args...)
}

// one imports one application.
func (i *importer) one(ctx context.Context, a *application) error {
	have, err := describeApplication(ctx, i.cl, a.name())
	if err != nil && !client.IsCode(err, "ResourceNotFoundException") {
		return err
	}
	would := func(did, do string) string {
		if i.dryRun {
			return "would " + do
		}
		return did
	}
	if err := i.resources(ctx, a); err != nil {
		return err
	}
	if have != nil {
		lacking, other := differences(a, have)
		switch {
		case len(other) > 0 && !i.replace:
			return fmt.Errorf("an application of the name is there already and differs in its %s; `millrace sql edit` changes its code, --replace deletes it first", strings.Join(other, ", "))
		case len(other) > 0:
			i.say("%s %s, which differs in its %s", would("deleted", "delete"), a.name(), strings.Join(other, ", "))
			if !i.dryRun {
				if err := deleteApplication(ctx, i.cl, have); err != nil {
					return err
				}
			}
			have = nil
		case len(lacking) > 0:
			i.say("%s to %s what it lacks: %s", would("added", "add"), a.name(), strings.Join(lacking, ", "))
			if !i.dryRun {
				if err := i.complete(ctx, a, lacking); err != nil {
					return err
				}
			}
		default:
			i.say("%s is there already, and the same", a.name())
		}
	}
	if have == nil {
		version := "1"
		if a.second {
			version = "2"
		}
		i.say("%s %s (version %s of the API): %s", would("created", "create"), a.name(), version, summary(a))
		if !i.dryRun {
			if err := i.create(ctx, a); err != nil {
				return err
			}
		}
	}
	if !i.start {
		return nil
	}
	if have != nil && *have.ApplicationStatus == kinesisanalytics.ApplicationStatusRunning {
		i.say("%s is running", a.name())
		return nil
	}
	if i.dryRun {
		i.say("would start %s", a.name())
		return nil
	}
	if err := startApplication(ctx, i.cl, a.name(), i.position(a)); err != nil {
		return err
	}
	i.say("started %s", a.name())
	return nil
}

// position is where an imported application begins to read.
func (i *importer) position(a *application) kinesisanalyticsv2.InputStartingPosition {
	switch i.from {
	case "now":
		return kinesisanalyticsv2.InputStartingPositionNow
	case "trim":
		return kinesisanalyticsv2.InputStartingPositionTrimHorizon
	}
	for _, in := range a.InputDescriptions {
		if p := in.InputStartingPositionConfiguration; p != nil && p.InputStartingPosition != nil {
			return kinesisanalyticsv2.InputStartingPosition(*p.InputStartingPosition)
		}
	}
	return kinesisanalyticsv2.InputStartingPositionNow
}

// summary says what an application reads and writes.
func summary(a *application) string {
	var parts []string
	d, err := a.definition()
	if err != nil {
		return ""
	}
	for _, in := range d.Inputs {
		parts = append(parts, "reads "+resourceName(in.Source))
	}
	for _, r := range d.References {
		parts = append(parts, "looks up s3://"+r.Bucket+"/"+r.Key)
	}
	for _, o := range d.Outputs {
		parts = append(parts, "writes "+resourceName(o.Destination))
	}
	if parts == nil {
		return "reads and writes nothing"
	}
	return strings.Join(parts, ", ")
}

// resourceName is a resource as people say it.
func resourceName(r app.Resource) string {
	kind := map[app.Kind]string{app.DataStream: "stream", app.DeliveryStream: "delivery stream", app.Function: "function"}[r.Kind]
	return kind + " " + shortName(r)
}

// shortName is the name in an ARN.
func shortName(r app.Resource) string {
	if r.Kind == app.Function {
		parts := strings.Split(r.ARN, ":")
		if len(parts) > 6 {
			return strings.Join(parts[6:], ":")
		}
		return r.ARN
	}
	return r.ARN[strings.LastIndexByte(r.ARN, '/')+1:]
}

// resources tells what an application needs and the server does not have, and
// makes streams if it may.
func (i *importer) resources(ctx context.Context, a *application) error {
	d, err := a.definition()
	if err != nil {
		return err
	}
	var list []app.Resource
	for _, in := range d.Inputs {
		list = append(list, in.Source)
		if in.Processor != nil {
			list = append(list, *in.Processor)
		}
	}
	for _, o := range d.Outputs {
		list = append(list, o.Destination)
	}
	for _, r := range list {
		parts := strings.SplitN(r.ARN, ":", 6)
		if len(parts) < 6 || parts[3] != i.cl.Region() || parts[4] != i.owner {
			i.remark("%s: %s is of another account or region", a.name(), r.ARN)
			continue
		}
		missing := false
		switch name := shortName(r); r.Kind {
		case app.DataStream:
			_, err := describe(ctx, i.cl, name)
			if missing = client.IsCode(err, "ResourceNotFoundException"); !missing && err != nil {
				return err
			}
			if !missing || !i.createStreams {
				if missing {
					i.remark("%s: there is no stream %s; --create-streams makes it", a.name(), name)
				}
				continue
			}
			if i.dryRun {
				i.say("would create stream %s", name)
				continue
			}
			if err := makeStream(ctx, i.cl, name, i.shards); err != nil {
				return err
			}
			i.say("created stream %s", name)
			continue
		case app.DeliveryStream:
			_, err := describeDelivery(ctx, i.cl, name)
			if missing = client.IsCode(err, "ResourceNotFoundException"); !missing && err != nil {
				return err
			}
			if missing {
				i.remark("%s: there is no delivery stream %s, and the application waits for it; `millrace delivery create %s --bucket BUCKET --make-bucket` makes one", a.name(), name, name)
			}
		case app.Function:
			name, _, _ = strings.Cut(name, ":")
			_, err := i.cl.Send(ctx, "lambda", http.MethodGet, lambdaPath+"/"+url.PathEscape(name), nil, nil)
			if missing = client.IsCode(err, "ResourceNotFoundException"); !missing && err != nil {
				return err
			}
			if missing {
				i.remark("%s: there is no function %s, and the application waits for it; it is a folder %s with lambda_function.py, index.mjs or bootstrap among the server's functions", a.name(), name, name)
			}
		}
	}
	for _, r := range d.References {
		bucket := "/" + url.PathEscape(r.Bucket)
		there := func(target string) (bool, error) {
			_, err := i.cl.Send(ctx, "s3", http.MethodHead, target, nil, nil)
			if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
				return false, nil
			}
			return err == nil, err
		}
		found, err := there(bucket + "/" + escapeKey(r.Key))
		if err != nil {
			// The role of the application may see what the caller may not.
			i.remark("%s: it cannot be told whether s3://%s/%s is there: %v", a.name(), r.Bucket, r.Key, err)
			continue
		}
		if found {
			continue
		}
		if found, err = there(bucket); err != nil {
			return err
		}
		what, first := "object s3://"+r.Bucket+"/"+r.Key, ""
		if !found {
			what, first = "bucket "+r.Bucket, "`aws s3 mb s3://"+r.Bucket+"` makes it, "
		}
		i.remark("%s: there is no %s, and the application reads nothing before it has the table %s; %s`aws s3 cp FILE s3://%s/%s` brings the object", a.name(), what, r.Table, first, r.Bucket, r.Key)
	}
	return nil
}

func escapeKey(key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// makeStream creates a data stream and waits until it is ACTIVE; one that is there
// is no error.
func makeStream(ctx context.Context, cl *client.Client, name string, shards int32) error {
	err := cl.Call(ctx, kinesis.OpCreateStream, &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}, nil)
	if err != nil && !client.IsCode(err, "ResourceInUseException") {
		return err
	}
	return waitActive(ctx, cl, name)
}

// inputs are the parts of an application in the form in which they are created.
func (a *application) inputs() []map[string]any {
	var list []map[string]any
	for _, in := range a.InputDescriptions {
		m := map[string]any{"NamePrefix": in.NamePrefix, "InputSchema": plainJSON(in.InputSchema)}
		if in.InputParallelism != nil && in.InputParallelism.Count != nil {
			m["InputParallelism"] = map[string]any{"Count": in.InputParallelism.Count}
		}
		if k := in.KinesisStreamsInputDescription; k != nil {
			m["KinesisStreamsInput"] = a.resource(k.ResourceARN, k.RoleARN)
		}
		if k := in.KinesisFirehoseInputDescription; k != nil {
			m["KinesisFirehoseInput"] = a.resource(k.ResourceARN, k.RoleARN)
		}
		if p := in.InputProcessingConfigurationDescription; p != nil && p.InputLambdaProcessorDescription != nil {
			m["InputProcessingConfiguration"] = map[string]any{"InputLambdaProcessor": a.resource(p.InputLambdaProcessorDescription.ResourceARN, p.InputLambdaProcessorDescription.RoleARN)}
		}
		list = append(list, m)
	}
	return list
}

// resource is a resource with its role, which the second version has elsewhere.
func (a *application) resource(arn, role *string) map[string]any {
	m := map[string]any{"ResourceARN": api.Val(arn)}
	if !a.second {
		m["RoleARN"] = api.Val(role)
	}
	return m
}

func (a *application) outputs() []map[string]any {
	var list []map[string]any
	for _, o := range a.OutputDescriptions {
		m := map[string]any{"Name": o.Name, "DestinationSchema": plainJSON(o.DestinationSchema)}
		if k := o.KinesisStreamsOutputDescription; k != nil {
			m["KinesisStreamsOutput"] = a.resource(k.ResourceARN, k.RoleARN)
		}
		if k := o.KinesisFirehoseOutputDescription; k != nil {
			m["KinesisFirehoseOutput"] = a.resource(k.ResourceARN, k.RoleARN)
		}
		if k := o.LambdaOutputDescription; k != nil {
			m["LambdaOutput"] = a.resource(k.ResourceARN, k.RoleARN)
		}
		list = append(list, m)
	}
	return list
}

func (a *application) references() []map[string]any {
	var list []map[string]any
	for _, r := range a.ReferenceDataSourceDescriptions {
		s := map[string]any{}
		if d := r.S3ReferenceDataSourceDescription; d != nil {
			s["BucketARN"], s["FileKey"] = d.BucketARN, d.FileKey
			if !a.second {
				s["ReferenceRoleARN"] = api.Val(d.ReferenceRoleARN)
			}
		}
		list = append(list, map[string]any{"TableName": r.TableName, "S3ReferenceDataSource": s, "ReferenceSchema": plainJSON(r.ReferenceSchema)})
	}
	return list
}

func (a *application) logging() []map[string]any {
	var list []map[string]any
	for _, l := range a.CloudWatchLoggingOptionDescriptions {
		m := map[string]any{"LogStreamARN": l.LogStreamARN}
		if !a.second {
			m["RoleARN"] = api.Val(l.RoleARN)
		}
		list = append(list, m)
	}
	return list
}

// plainJSON is a shape as the wire has it.
func plainJSON(s api.Shape) json.RawMessage { return document(s) }

// fill reads a value in JSON into a shape.
func fill(into api.Shape, from map[string]any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return client.Parse(raw, into)
}

// create makes an application with the version of the API that it was described
// by. In the first version reference data comes afterwards, and so does code that
// needs it.
func (i *importer) create(ctx context.Context, a *application) error {
	tags := []map[string]any{}
	for _, t := range a.tags {
		tags = append(tags, map[string]any{"Key": t.Key, "Value": t.Value})
	}
	m := map[string]any{"ApplicationName": a.name()}
	if text := api.Val(a.ApplicationDescription); text != "" {
		m["ApplicationDescription"] = text
	}
	if len(tags) > 0 {
		m["Tags"] = tags
	}
	if l := a.logging(); l != nil {
		m["CloudWatchLoggingOptions"] = l
	}
	if a.second {
		m["RuntimeEnvironment"], m["ServiceExecutionRole"] = "SQL-1_0", a.role
		m["ApplicationConfiguration"] = map[string]any{
			"SqlApplicationConfiguration":  map[string]any{"Inputs": a.inputs(), "Outputs": a.outputs(), "ReferenceDataSources": a.references()},
			"ApplicationCodeConfiguration": map[string]any{"CodeContentType": "PLAINTEXT", "CodeContent": map[string]any{"TextContent": api.Val(a.ApplicationCode)}},
		}
		in := &kinesisanalyticsv2.CreateApplicationInput{}
		if err := fill(in, m); err != nil {
			return err
		}
		return i.cl.Call(ctx, kinesisanalyticsv2.OpCreateApplication, in, nil)
	}
	m["Inputs"], m["Outputs"] = a.inputs(), a.outputs()
	refs := a.references()
	if refs == nil {
		m["ApplicationCode"] = api.Val(a.ApplicationCode)
	}
	in := &kinesisanalytics.CreateApplicationInput{}
	if err := fill(in, m); err != nil {
		return err
	}
	if err := i.cl.Call(ctx, kinesisanalytics.OpCreateApplication, in, nil); err != nil {
		return err
	}
	if refs == nil {
		return nil
	}
	return i.complete(ctx, a, []string{"reference data", "code"})
}

// complete adds parts to an application, code last.
func (i *importer) complete(ctx context.Context, a *application, parts []string) error {
	add := func(op *api.Operation, in api.Shape, member string, value map[string]any) error {
		now, err := waitApplication(ctx, i.cl, a.name())
		if err != nil {
			return err
		}
		m := map[string]any{"ApplicationName": a.name(), "CurrentApplicationVersionId": api.Val(now.ApplicationVersionId), member: value}
		if err := fill(in, m); err != nil {
			return err
		}
		return i.cl.Call(ctx, op, in, nil)
	}
	has := func(part string) bool { return slices.Contains(parts, part) }
	each := func(part string, list []map[string]any, member string, one, two *api.Operation) error {
		if !has(part) {
			return nil
		}
		for _, v := range list {
			op := one
			if a.second {
				op = two
			}
			if err := add(op, op.NewInput(), member, v); err != nil {
				return err
			}
		}
		return nil
	}
	if err := each("inputs", a.inputs(), "Input", kinesisanalytics.OpAddApplicationInput, kinesisanalyticsv2.OpAddApplicationInput); err != nil {
		return err
	}
	if err := each("outputs", a.outputs(), "Output", kinesisanalytics.OpAddApplicationOutput, kinesisanalyticsv2.OpAddApplicationOutput); err != nil {
		return err
	}
	if err := each("reference data", a.references(), "ReferenceDataSource", kinesisanalytics.OpAddApplicationReferenceDataSource, kinesisanalyticsv2.OpAddApplicationReferenceDataSource); err != nil {
		return err
	}
	// The option is a member by itself in the second version too.
	if err := each("logging", a.logging(), "CloudWatchLoggingOption", kinesisanalytics.OpAddApplicationCloudWatchLoggingOption, kinesisanalyticsv2.OpAddApplicationCloudWatchLoggingOption); err != nil {
		return err
	}
	if has("code") {
		_, err := updateCode(ctx, i.cl, a.name(), api.Val(a.ApplicationCode))
		return err
	}
	return nil
}
