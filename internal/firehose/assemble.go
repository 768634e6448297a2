package firehose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/convert"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	datastream "github.com/millrace/millrace/internal/firehose/dest/stream"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/sigv4"
)

// Secrets resolves the ARN of a secret; *secrets.Store is one.
type Secrets interface {
	Resolve(ctx context.Context, arn string) (map[string]string, error)
}

// Parts are what destinations are built from. A destination that needs a part
// which is not there cannot be created.
type Parts struct {
	Objects objects.Store
	Invoker process.Invoker // of functions
	Schemas convert.Schemas // of format conversion
	Secrets Secrets
	Policy  outbound.Policy
	// Operator is what the operator's file says.
	Operator *Operator
	// Topics are the bootstrap servers of clusters, by ARN.
	Topics map[string][]string
	// StreamExists is nil for the ARN of a data stream that can be read; if it is
	// not set, all can.
	StreamExists func(ctx context.Context, arn string) error
	// ContentEncoding sends the header of that name with objects, as the service
	// does.
	ContentEncoding bool
	// As gives the object store as a role sees it; nil lets every role do
	// everything.
	As func(store objects.Store, role string) objects.Store
	// InvokeAs is the same for functions.
	InvokeAs func(invoker process.Invoker, role string) process.Invoker
	// Sign gives the credentials that sign requests to clusters whose region the
	// operator has set; nil has none.
	Sign func(ctx context.Context) (sigv4.Credentials, error)
	// OpenStream finds a data stream to write to; nil has none.
	OpenStream func(arn string) (datastream.Writer, error)
}

// assembly is one delivery stream on its way to a definition.
type assembly struct {
	ctx    context.Context
	parts  *Parts
	stream streamName
	id     string       // empty while it is only tried
	d      *destination // effective, with secrets
	shared *shared
	out    *delivery.Definition
	// current gives the configuration in force; nil if it is gone.
	current func() *destination
}

// assemble makes the definition of a delivery stream's newest state.
func (s *Service) assemble(ctx context.Context, st *stream) (*delivery.Definition, error) {
	d, err := s.revealed(st)
	if err != nil {
		return nil, err
	}
	definition, err := s.build(ctx, st.streamName, st.record.ID, d)
	if err != nil {
		return nil, err
	}
	s.identify(definition, st)
	return definition, nil
}

// identify says which delivery stream a definition is of.
func (s *Service) identify(d *delivery.Definition, st *stream) {
	d.ID, d.ARN, d.Name, d.Account, d.Region = st.record.ID, st.arn, st.name, st.account, st.region
	d.Version = st.record.Version
	switch source := &st.record.Source; {
	case source.Kinesis != nil:
		d.Source.Stream = &delivery.StreamConfig{ARN: *source.Kinesis.KinesisStreamARN, From: time.UnixMilli(st.record.CreatedAt)}
	case source.MSK != nil:
		from := time.UnixMilli(st.record.CreatedAt)
		if source.MSK.ReadFrom != nil {
			if from = time.UnixMilli(*source.MSK.ReadFrom); *source.MSK.ReadFrom <= 0 {
				from = time.Time{}
			}
		}
		topic := &delivery.TopicConfig{ClusterARN: source.MSK.ClusterARN, Topic: source.MSK.Topic, From: from}
		if c, err := chainConfig(st.record.Destination); err == nil && c.Function != nil {
			topic.MaxRecordBytes = process.MaxPayload
		}
		d.Source.Topic = topic
	}
	if key := st.record.Encryption.DataKey; key != "" {
		d.Encryption = &delivery.Encryption{DataKey: key}
	}
}

// tryAssemble builds what a call asks for and throws it away: what cannot be
// built must not be accepted.
func (s *Service) tryAssemble(ctx context.Context, call *api.Call, d *destination) error {
	definition, err := s.build(ctx, streamName{call.Account, call.Region, "new"}, "", d)
	if err != nil {
		var refused *firehose.InvalidArgumentException
		if errors.As(err, &refused) {
			return err
		}
		return invalidArgument("%s", err.Error())
	}
	return definition.Main.Close()
}

// build makes a definition of a destination as its owner gave it.
func (s *Service) build(ctx context.Context, name streamName, id string, d *destination) (*delivery.Definition, error) {
	a := &assembly{ctx: ctx, parts: &s.options.Parts, stream: name, id: id, d: d.effective(), out: new(delivery.Definition)}
	a.shared = a.d.shared()
	a.current = func() *destination {
		st := s.registry.byID(id)
		if st == nil {
			return nil
		}
		d, err := s.revealed(st)
		if err != nil {
			return nil
		}
		return d.effective()
	}
	for _, step := range []func() error{a.chain, a.outputs, a.main} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return a.out, nil
}

func (a *assembly) chain() error {
	config, err := chainConfig(a.d)
	if err != nil {
		return err
	}
	if config.Empty() {
		return nil
	}
	if config.Function != nil && a.parts.Invoker == nil {
		return errors.New("this server runs no functions")
	}
	invoker := a.parts.Invoker
	if config.Function != nil && a.parts.InvokeAs != nil {
		role := config.Function.RoleARN
		if role == "" {
			role = a.role()
		}
		invoker = a.parts.InvokeAs(invoker, role)
	}
	a.out.Chain = process.NewChain(config, invoker)
	return nil
}

// role is the destination's role, or where it has none that of its S3 block.
func (a *assembly) role() string {
	if a.shared.RoleARN != nil {
		return *a.shared.RoleARN
	}
	return *a.shared.S3Configuration.RoleARN
}

const mib = 1 << 20

func hints(h *firehose.BufferingHints) record.Hints {
	return record.Hints{Bytes: int64(*h.SizeInMBs) * mib, Interval: time.Duration(*h.IntervalInSeconds) * time.Second}
}

func logTarget(o *firehose.CloudWatchLoggingOptions) *delivery.LogTarget {
	if o == nil || !api.Val(o.Enabled) {
		return nil
	}
	return &delivery.LogTarget{Group: api.Val(o.LogGroupName), Stream: api.Val(o.LogStreamName)}
}

// store is the object store as a role sees it.
func (a *assembly) store(role string) objects.Store {
	if a.parts.As == nil {
		return a.parts.Objects
	}
	return a.parts.As(a.parts.Objects, role)
}

// objectsOf is where an S3 block puts objects.
func (a *assembly) objectsOf(c *firehose.S3DestinationConfiguration) (s3.Config, error) {
	if a.parts.Objects == nil {
		return s3.Config{}, errors.New("this server has no object store")
	}
	prefix, failures, err := naming.Prefix(api.Val(c.Prefix), api.Val(c.ErrorOutputPrefix), naming.PairOptions{})
	if err != nil {
		return s3.Config{}, err
	}
	config := s3.Config{
		Store: a.store(*c.RoleARN), Bucket: bucketOf(*c.BucketARN), Prefix: prefix, ErrorPrefix: failures,
		Compression: compress.Format(*c.CompressionFormat), ContentEncoding: a.parts.ContentEncoding,
	}
	if k := c.EncryptionConfiguration.KMSEncryptionConfig; k != nil {
		config.KMSKey = *k.AWSKMSKeyARN
	}
	return config, nil
}

// bucketOf is the bucket that an ARN names.
func bucketOf(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// outputs sets the error output and the backup.
func (a *assembly) outputs() error {
	out := a.out
	out.Log = logTarget(a.shared.CloudWatchLoggingOptions)
	if e := a.d.ExtendedS3; e != nil {
		config, err := a.extended(e)
		if err != nil {
			return err
		}
		config.Compression, config.Converter, config.Extension = "", nil, ""
		out.Errors = s3.NewWriter(config)
	} else {
		config, err := a.objectsOf(a.shared.S3Configuration)
		if err != nil {
			return err
		}
		out.Errors = s3.NewWriter(config)
		out.BackupLog = logTarget(a.shared.S3Configuration.CloudWatchLoggingOptions)
	}
	backup := a.shared.S3BackupConfiguration
	switch mode := *a.shared.S3BackupMode; mode {
	case "Enabled":
		if backup == nil {
			return errors.New("S3 backup destination configuration is required when S3BackupMode is Enabled")
		}
	case "AllDocuments", "AllEvents", "AllData":
		backup = a.shared.S3Configuration
	default:
		return nil
	}
	config, err := a.objectsOf(backup)
	if err != nil {
		return err
	}
	out.Backup, out.BackupHints = s3.NewWriter(config), hints(backup.BufferingHints)
	out.BackupLog = logTarget(backup.CloudWatchLoggingOptions)
	return nil
}

// errorsOf adds an error output with a prefix of its own, in the bucket of all.
func (a *assembly) errorsOf(name, prefix string) error {
	config, err := a.objectsOf(a.shared.S3Configuration)
	if err != nil {
		return err
	}
	if config.ErrorPrefix, err = naming.ParsePrefix(prefix, naming.Options{Error: true}); err != nil {
		return fmt.Errorf("S3ErrorOutputPrefix of table %s: %w", name, err)
	}
	if a.out.ErrorsOf == nil {
		a.out.ErrorsOf = map[string]delivery.Writer{}
	}
	a.out.ErrorsOf[name] = s3.NewWriter(config)
	return nil
}

// extended is where an extended S3 destination puts objects.
func (a *assembly) extended(e *firehose.ExtendedS3DestinationConfiguration) (s3.Config, error) {
	plain := reshape[firehose.S3DestinationConfiguration](e)
	plain.Prefix, plain.ErrorOutputPrefix = nil, nil
	config, err := a.objectsOf(plain)
	if err != nil {
		return config, err
	}
	if config.Prefix, config.ErrorPrefix, err = mainPrefixes(e); err != nil {
		return config, err
	}
	config.Location, config.Extension = zoneOf(e), api.Val(e.FileExtension)
	if converts(e) {
		o, err := convert.Configure(e.DataFormatConversionConfiguration, a.stream.account, a.stream.region)
		if err != nil {
			return config, err
		}
		if o.Schemas = a.parts.Schemas; o.Schemas == nil {
			return config, errors.New("this server has no catalog of tables")
		}
		if config.Converter, err = convert.New(o); err != nil {
			return config, err
		}
	}
	return config, nil
}

// main builds the destination itself.
func (a *assembly) main() (err error) {
	out := a.out
	if h := a.shared.BufferingHints; h != nil {
		out.Hints = hints(h)
	}
	if r := a.shared.RetryOptions; r != nil {
		out.Retry.Duration = time.Duration(api.Val(r.DurationInSeconds)) * time.Second
	}
	out.Main, err = [kinds]func() (dest.Destination, error){
		kindS3: a.s3, kindRedshift: a.redshift, kindElasticsearch: a.elasticsearch, kindOpenSearch: a.openSearch, kindServerless: a.serverless,
		kindSplunk: a.splunk, kindHTTP: a.http, kindSnowflake: a.snowflake, kindIceberg: a.iceberg,
	}[a.d.kind()]()
	return err
}

func (a *assembly) s3() (dest.Destination, error) {
	e := a.d.ExtendedS3
	config, err := a.extended(e)
	if err != nil {
		return nil, err
	}
	// Deliveries to objects are repeated for as long as the records are there.
	a.out.Kind, a.out.Retry.Duration, a.out.Converts = delivery.KindS3, -1, config.Converter != nil
	if partitions(e) {
		a.out.Partitioning = &delivery.Partitioning{Prefix: config.Prefix}
	}
	return s3.New(config), nil
}

// broken is the definition of a delivery stream that cannot be put together: it
// takes records, and every delivery fails with the reason until a later start or
// update finds it mended.
func (s *Service) broken(st *stream, reason error) *delivery.Definition {
	d := &delivery.Definition{
		Main: brokenDestination{reason}, Errors: brokenDestination{reason}, Kind: delivery.KindOther, Retry: dest.Retry{Duration: -1},
		Hints: record.Hints{Bytes: 5 * mib, Interval: 5 * time.Minute},
		Log:   logTarget(st.record.Destination.shared().CloudWatchLoggingOptions),
	}
	s.identify(d, st)
	return d
}

// brokenDestination refuses everything, for now.
type brokenDestination struct{ reason error }

func (b brokenDestination) failure() error {
	return &dest.Error{Code: "Configuration.Invalid", Message: fmt.Sprintf("The destination cannot be used: %v", b.reason), Err: b.reason}
}

func (b brokenDestination) Deliver(context.Context, *record.Batch) (dest.Result, error) {
	return dest.Result{}, b.failure()
}

func (b brokenDestination) WriteBatch(context.Context, *record.Batch, string) (string, error) {
	return "", b.failure()
}

func (b brokenDestination) WriteFailures(context.Context, record.Stream, string, string, time.Time, []byte) (string, error) {
	return "", b.failure()
}

func (b brokenDestination) Close() error { return nil }
