package cli

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/client"
)

func deliveryCommand() *cobra.Command {
	c := &connection{}
	cmd := &cobra.Command{
		Use:   "delivery",
		Short: "Create, watch and steer delivery streams",
	}
	c.register(cmd)
	cmd.AddCommand(
		deliveryList(c), deliveryDescribe(c), deliveryCreate(c), deliveryDelete(c), deliveryPut(c), deliveryDemo(c), deliveryLogs(c),
		deliveryStatus(c), deliveryLedger(c), deliveryFlush(c), deliveryPause(c), deliveryResume(c), deliveryTest(c), deliveryRedrive(c),
	)
	cmd.ValidArgsFunction = nil
	for _, sub := range cmd.Commands() {
		sub.ValidArgsFunction = c.completeDelivery
		if sub.Name() == "create" || sub.Name() == "list" {
			sub.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return cmd
}

// completeDelivery is completeStream for delivery streams.
func (c *connection) completeDelivery(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	cl, err := c.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	names, err := deliveryNames(ctx, cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	for _, n := range names {
		if strings.HasPrefix(n, begun) {
			fit = append(fit, n)
		}
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}

// deliveryHint adds to the reply that there is no such delivery stream what a
// person can do.
func deliveryHint(err error) error {
	if client.IsCode(err, "ResourceNotFoundException") {
		return advise(err, "`millrace delivery list` shows what there is in this region")
	}
	return err
}

func deliveryNames(ctx context.Context, cl *client.Client) ([]string, error) {
	var names []string
	in := &firehose.ListDeliveryStreamsInput{Limit: api.Ptr(int32(1000))}
	for {
		out := &firehose.ListDeliveryStreamsOutput{}
		if err := cl.Call(ctx, firehose.OpListDeliveryStreams, in, out); err != nil {
			return nil, err
		}
		names = append(names, out.DeliveryStreamNames...)
		if !api.Val(out.HasMoreDeliveryStreams) || len(out.DeliveryStreamNames) == 0 {
			return names, nil
		}
		in.ExclusiveStartDeliveryStreamName = api.Ptr(out.DeliveryStreamNames[len(out.DeliveryStreamNames)-1])
	}
}

func describeDelivery(ctx context.Context, cl *client.Client, name string) (*firehose.DeliveryStreamDescription, error) {
	out := &firehose.DescribeDeliveryStreamOutput{}
	if err := cl.Call(ctx, firehose.OpDescribeDeliveryStream, &firehose.DescribeDeliveryStreamInput{DeliveryStreamName: &name}, out); err != nil {
		return nil, deliveryHint(err)
	}
	return out.DeliveryStreamDescription, nil
}

// destinationName says where a delivery stream delivers to.
func destinationName(d *firehose.DeliveryStreamDescription) string {
	if len(d.Destinations) == 0 {
		return "-"
	}
	t := &d.Destinations[0]
	bucket := func(arn *string) string { return "s3://" + api.Val(arn)[strings.LastIndexByte(api.Val(arn), ':')+1:] }
	switch {
	case t.ExtendedS3DestinationDescription != nil:
		return bucket(t.ExtendedS3DestinationDescription.BucketARN)
	case t.RedshiftDestinationDescription != nil:
		return "redshift " + api.Val(t.RedshiftDestinationDescription.ClusterJDBCURL)
	case t.ElasticsearchDestinationDescription != nil:
		e := t.ElasticsearchDestinationDescription
		return "elasticsearch " + api.Val(e.DomainARN) + api.Val(e.ClusterEndpoint)
	case t.AmazonopensearchserviceDestinationDescription != nil:
		e := t.AmazonopensearchserviceDestinationDescription
		return "opensearch " + api.Val(e.DomainARN) + api.Val(e.ClusterEndpoint)
	case t.AmazonOpenSearchServerlessDestinationDescription != nil:
		return "opensearch " + api.Val(t.AmazonOpenSearchServerlessDestinationDescription.CollectionEndpoint)
	case t.SplunkDestinationDescription != nil:
		return "splunk " + api.Val(t.SplunkDestinationDescription.HECEndpoint)
	case t.HttpEndpointDestinationDescription != nil && t.HttpEndpointDestinationDescription.EndpointConfiguration != nil:
		address := api.Val(t.HttpEndpointDestinationDescription.EndpointConfiguration.Url)
		if name, ok := strings.CutPrefix(address, namedDestination); ok {
			return "destination " + name
		}
		return address
	case t.SnowflakeDestinationDescription != nil:
		return "snowflake " + api.Val(t.SnowflakeDestinationDescription.AccountUrl)
	case t.IcebergDestinationDescription != nil:
		return "iceberg"
	case t.S3DestinationDescription != nil:
		return bucket(t.S3DestinationDescription.BucketARN)
	}
	return "-"
}

func deliveryList(c *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List delivery streams",
		Args:  cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			names, err := deliveryNames(ctx, cl)
			if err != nil {
				return err
			}
			all := []*firehose.DeliveryStreamDescription{}
			rows := [][]string{{"NAME", "STATUS", "SOURCE", "DESTINATION"}}
			for _, name := range names {
				d, err := describeDelivery(ctx, cl, name)
				if client.IsCode(err, "ResourceNotFoundException") {
					continue // deleted meanwhile
				}
				if err != nil {
					return err
				}
				source := string(*d.DeliveryStreamType)
				if d.Source != nil && d.Source.KinesisStreamSourceDescription != nil {
					arn := api.Val(d.Source.KinesisStreamSourceDescription.KinesisStreamARN)
					source = "stream " + arn[strings.LastIndexByte(arn, '/')+1:]
				}
				all = append(all, d)
				rows = append(rows, []string{name, string(*d.DeliveryStreamStatus), source, destinationName(d)})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return table(cmd.OutOrStdout(), rows)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of descriptions")
	return cmd
}

func deliveryDescribe(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "describe NAME",
		Short: "Print a delivery stream's configuration as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			d, err := describeDelivery(ctx, cl, args[0])
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), d)
		}),
	}
}

// namedDestination is the address of destinations that the operator has named.
const namedDestination = "https://destinations.millrace.internal/"

// deliveryFlags are what create can be told without a file.
type deliveryFlags struct {
	config, bucket, prefix, errorPrefix, compression, stream, function, role, destination string
	size, interval                                                                        int32
	newline, makeBucket, noLog                                                            bool
}

func deliveryCreate(c *connection) *cobra.Command {
	var o deliveryFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a delivery stream and wait until it is ACTIVE",
		Long: `Create a delivery stream that writes objects to a bucket, or to a destination that
the operator has named in the server's file of destinations. Everything else that
the API can do is said in a file: the input of CreateDeliveryStream as JSON, as
SDKs and other command lines take it.`,
		Example: `  millrace delivery create clicks --bucket lake --make-bucket --prefix 'clicks/!{timestamp:yyyy/MM/dd}/' --error-prefix 'failed/!{firehose:error-output-type}/'
  millrace delivery create archive --bucket lake --stream orders --compression GZIP --interval 60
  millrace delivery create pg --destination warehouse --bucket lake
  millrace delivery create wide --config wide.json`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			in := &firehose.CreateDeliveryStreamInput{}
			if o.config != "" {
				raw, err := os.ReadFile(o.config)
				if err != nil {
					return err
				}
				if err := client.Parse(raw, in); err != nil {
					return fmt.Errorf("%s: %w", o.config, err)
				}
			} else if err := o.fill(ctx, cl, in, args[0]); err != nil {
				return err
			}
			in.DeliveryStreamName = &args[0]
			if o.makeBucket && o.bucket != "" {
				if err := makeBucket(ctx, cl, o.bucket); err != nil {
					return err
				}
			}
			if err := cl.Call(ctx, firehose.OpCreateDeliveryStream, in, nil); err != nil {
				return err
			}
			for {
				d, err := describeDelivery(ctx, cl, args[0])
				if err != nil {
					return err
				}
				switch *d.DeliveryStreamStatus {
				case firehose.DeliveryStreamStatusActive:
					fmt.Fprintf(cmd.OutOrStdout(), "created %s\n", args[0])
					return nil
				case firehose.DeliveryStreamStatusCreatingFailed:
					return fmt.Errorf("creating %s failed: %s", args[0], failureText(d.FailureDescription))
				}
				if err := client.Sleep(ctx, pollInterval); err != nil {
					return err
				}
			}
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "file with the input of CreateDeliveryStream, as JSON")
	f.StringVar(&o.bucket, "bucket", "", "bucket for objects, or, with --destination, for what fails")
	f.StringVar(&o.prefix, "prefix", "", "what keys of objects begin with; may hold expressions")
	f.StringVar(&o.errorPrefix, "error-prefix", "", "what keys of failed records begin with; may hold expressions")
	f.Int32Var(&o.size, "buffer-size", 0, "size in MiB at which a buffer is delivered (default the service's)")
	f.Int32Var(&o.interval, "interval", 0, "seconds after which a buffer is delivered (default the service's)")
	f.StringVar(&o.compression, "compression", "", "UNCOMPRESSED, GZIP, ZIP, Snappy or HADOOP_SNAPPY")
	f.StringVar(&o.stream, "stream", "", "data stream to read, by name or ARN; without it records are put")
	f.StringVar(&o.function, "function", "", "function that transforms records, by name or ARN")
	f.BoolVar(&o.newline, "newline", false, "add a newline to every record")
	f.StringVar(&o.role, "role", "", "ARN of the role to act as (default role/delivery of the caller's account)")
	f.StringVar(&o.destination, "destination", "", "destination that the operator has named, in place of objects")
	f.BoolVar(&o.makeBucket, "make-bucket", false, "create the bucket if it is missing")
	f.BoolVar(&o.noLog, "no-log", false, "do not log failures")
	return cmd
}

func failureText(f *firehose.FailureDescription) string {
	if f == nil {
		return "the server does not say why"
	}
	return string(api.Val(f.Type)) + ": " + api.Val(f.Details)
}

// account asks whose the credentials are.
func account(ctx context.Context, cl *client.Client) (string, error) {
	raw, err := cl.Query(ctx, "sts", url.Values{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}})
	if err != nil {
		return "", err
	}
	var reply struct {
		Result struct{ Account string } `xml:"GetCallerIdentityResult"`
	}
	if err := xml.Unmarshal(raw, &reply); err != nil || reply.Result.Account == "" {
		return "", errors.New("the server does not say whose the credentials are; name a --role")
	}
	return reply.Result.Account, nil
}

func (o *deliveryFlags) fill(ctx context.Context, cl *client.Client, in *firehose.CreateDeliveryStreamInput, name string) error {
	if o.bucket == "" {
		return errors.New("give --bucket, or --config with a file")
	}
	owner := ""
	if o.role == "" || o.function != "" || o.stream != "" {
		var err error
		if owner, err = account(ctx, cl); err != nil {
			return err
		}
	}
	role := o.role
	if role == "" {
		role = "arn:aws:iam::" + owner + ":role/delivery"
	}
	arn := func(service, rest string) string {
		if strings.HasPrefix(rest, "arn:") {
			return rest
		}
		kind := map[string]string{"kinesis": "stream/", "lambda": "function:"}[service]
		return "arn:aws:" + service + ":" + cl.Region() + ":" + owner + ":" + kind + rest
	}
	if o.stream != "" {
		in.DeliveryStreamType = api.Ptr(firehose.DeliveryStreamTypeKinesisStreamAsSource)
		in.KinesisStreamSourceConfiguration = &firehose.KinesisStreamSourceConfiguration{KinesisStreamARN: api.Ptr(arn("kinesis", o.stream)), RoleARN: &role}
	}
	var processors []firehose.Processor
	if o.function != "" {
		processors = append(processors, firehose.Processor{Type: api.Ptr(firehose.ProcessorTypeLambda), Parameters: []firehose.ProcessorParameter{
			{ParameterName: api.Ptr(firehose.ProcessorParameterNameLambdaArn), ParameterValue: api.Ptr(arn("lambda", o.function))},
		}})
	}
	if o.newline {
		processors = append(processors, firehose.Processor{Type: api.Ptr(firehose.ProcessorTypeAppendDelimiterToRecord), Parameters: []firehose.ProcessorParameter{
			{ParameterName: api.Ptr(firehose.ProcessorParameterNameDelimiter), ParameterValue: api.Ptr(`\n`)},
		}})
	}
	var processing *firehose.ProcessingConfiguration
	if processors != nil {
		processing = &firehose.ProcessingConfiguration{Enabled: api.Ptr(true), Processors: processors}
	}
	logging := &firehose.CloudWatchLoggingOptions{Enabled: api.Ptr(true), LogGroupName: api.Ptr(deliveryLogGroup + name), LogStreamName: api.Ptr("DestinationDelivery")}
	if o.noLog {
		logging = nil
	}
	bucket := api.Ptr("arn:aws:s3:::" + o.bucket)
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	// The two hints come as a pair; one that is left out has the service's default.
	size, interval := o.size, o.interval
	if size == 0 {
		size = 5
	}
	if interval == 0 {
		interval = 300
	}
	hinted := o.size != 0 || o.interval != 0
	var compression *firehose.CompressionFormat
	if o.compression != "" {
		compression = api.Ptr(firehose.CompressionFormat(o.compression))
	}
	if o.destination == "" {
		s3 := &firehose.ExtendedS3DestinationConfiguration{
			RoleARN: &role, BucketARN: bucket, Prefix: optional(o.prefix), ErrorOutputPrefix: optional(o.errorPrefix),
			CompressionFormat: compression, ProcessingConfiguration: processing, CloudWatchLoggingOptions: logging,
		}
		if hinted {
			s3.BufferingHints = &firehose.BufferingHints{SizeInMBs: &size, IntervalInSeconds: &interval}
		}
		in.ExtendedS3DestinationConfiguration = s3
		return nil
	}
	endpoint := &firehose.HttpEndpointDestinationConfiguration{
		EndpointConfiguration: &firehose.HttpEndpointConfiguration{Url: api.Ptr(namedDestination + url.PathEscape(o.destination)), Name: &o.destination},
		RoleARN:               &role, ProcessingConfiguration: processing, CloudWatchLoggingOptions: logging,
		S3Configuration: &firehose.S3DestinationConfiguration{
			RoleARN: &role, BucketARN: bucket, Prefix: optional(o.prefix), ErrorOutputPrefix: optional(o.errorPrefix), CompressionFormat: compression,
		},
	}
	if hinted {
		endpoint.BufferingHints = &firehose.HttpEndpointBufferingHints{SizeInMBs: &size, IntervalInSeconds: &interval}
	}
	in.HttpEndpointDestinationConfiguration = endpoint
	return nil
}

// makeBucket creates a bucket; one that is the caller's already is no error.
func makeBucket(ctx context.Context, cl *client.Client, name string) error {
	var body []byte
	if region := cl.Region(); region != "us-east-1" {
		body = []byte(`<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>` + region + `</LocationConstraint></CreateBucketConfiguration>`)
	}
	_, err := cl.Send(ctx, "s3", http.MethodPut, "/"+url.PathEscape(name), nil, body)
	if client.IsCode(err, "BucketAlreadyOwnedByYou") {
		return nil
	}
	return err
}

func deliveryDelete(c *connection) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a delivery stream and wait until it is gone",
		Long: `Delete a delivery stream. What it has not delivered yet is lost, as with the
service, unless the server's setting drain-on-delete says otherwise; "millrace
delivery flush" delivers it before.`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			in := &firehose.DeleteDeliveryStreamInput{DeliveryStreamName: &args[0]}
			if force {
				in.AllowForceDelete = &force
			}
			if err := cl.Call(ctx, firehose.OpDeleteDeliveryStream, in, nil); err != nil {
				return deliveryHint(err)
			}
			for {
				d, err := describeDelivery(ctx, cl, args[0])
				if client.IsCode(err, "ResourceNotFoundException") {
					fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", args[0])
					return nil
				}
				if err != nil {
					return err
				}
				if *d.DeliveryStreamStatus == firehose.DeliveryStreamStatusDeletingFailed {
					return fmt.Errorf("deleting %s failed: %s; --force deletes it all the same", args[0], failureText(d.FailureDescription))
				}
				if err := client.Sleep(ctx, pollInterval); err != nil {
					return err
				}
			}
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "delete it even if its key cannot be released")
	return cmd
}

// deliveryLogGroup is where failures are logged, by the service's custom.
const deliveryLogGroup = "/aws/kinesisfirehose/"

func deliveryLogs(c *connection) *cobra.Command {
	l := &logReader{}
	cmd := &cobra.Command{
		Use:     "logs NAME",
		Short:   "Print why deliveries have failed",
		Example: `  millrace delivery logs clicks --since 24h --filter '{ $.errorCode = "S3.*" }'`,
		Args:    cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			d, err := describeDelivery(ctx, cl, args[0])
			if err != nil {
				return err
			}
			group := ""
			if len(d.Destinations) > 0 {
				group = loggedIn(&d.Destinations[0])
			}
			if group == "" {
				return fmt.Errorf("%s does not log failures: its CloudWatchLoggingOptions are not enabled", args[0])
			}
			return l.print(ctx, cl, cmd, group)
		}),
	}
	l.register(cmd)
	return cmd
}

// loggedIn is the log group of a destination, empty if it logs nothing.
func loggedIn(d *firehose.DestinationDescription) string {
	var options []*firehose.CloudWatchLoggingOptions
	if t := d.ExtendedS3DestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.RedshiftDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.ElasticsearchDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.AmazonopensearchserviceDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.AmazonOpenSearchServerlessDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.SplunkDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.HttpEndpointDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.SnowflakeDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	if t := d.IcebergDestinationDescription; t != nil {
		options = append(options, t.CloudWatchLoggingOptions)
	}
	for _, o := range options {
		if o != nil && api.Val(o.Enabled) {
			return api.Val(o.LogGroupName)
		}
	}
	return ""
}

// ago renders the age of something.
func ago(at time.Time) string {
	d := time.Since(at)
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}
