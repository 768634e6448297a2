package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/millrace/millrace/internal/api"
	firehoseapi "github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest/stream"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/secrets"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/streams"
	"github.com/millrace/millrace/internal/vfs"
	"github.com/millrace/millrace/internal/wire"
)

// spoolDir holds buffers of deliveries that found no room in memory; it is
// emptied at every start.
const spoolDir = "spool"

// openFirehose opens delivery streams and what runs them. It comes after all
// that destinations are built from.
func (s *Server) openFirehose(ctx context.Context) error {
	parts, err := s.deliveryParts()
	if err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	o := delivery.Options{
		Log: s.log, Meta: s.meta, Keyring: s.keyring,
		BufferMemory: int64(s.config.DeliveryMemory), DirectRetention: s.config.DeliveryRetention, DirectQuota: int64(s.config.DeliveryQuota),
		Kept:         func(arn string) bool { return s.analytics.Reads(arn) }, // asked once Run runs
		DrainTimeout: s.config.DeliveryDrain, Streams: streamSource{s.streams}, Topics: &delivery.Topics{Brokers: parts.Topics},
		Now: s.options.Now, Logger: s.logger, Metrics: s.metrics.Deliveries, ErrorLog: s.logs,
	}
	if s.config.DeliveryDrain == 0 {
		o.DrainTimeout = -1
	}
	if files != nil {
		o.Spool = vfs.Sub(files, spoolDir)
	}
	if s.delivery, err = delivery.New(o); err != nil {
		return explainData(s.config.DataPath(), err)
	}
	var roles firehose.Roles
	if s.config.Auth == "keys" {
		roles = assumable{s.directory}
	}
	s.firehose, err = firehose.New(ctx, firehose.Options{
		Meta: s.meta, Keyring: s.keyring, Engine: s.delivery, Parts: parts, Quota: s.limiter, Roles: roles,
		Now: s.options.Now, StateDelay: s.config.StateDelay, MaxStreams: s.config.MaxDeliveryStreams, Daily: s.config.Limits == "aws",
		DrainOnDelete: s.config.DrainOnDelete, LogsPrincipals: s.config.LogsPrincipals, Logger: s.logger, Metrics: s.metrics.Deliveries,
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStopBefore("API", "delivery streams", func(context.Context) error { return s.firehose.Close() })
	s.mux.Register(firehoseapi.Service, deliveryAccess{s.firehose}, firehoseapi.Bind(s.firehose))
	return nil
}

// deliveryParts are what destinations are built from.
func (s *Server) deliveryParts() (firehose.Parts, error) {
	var operator *firehose.Operator
	if s.config.Destinations != "" {
		raw, err := os.ReadFile(s.config.Destinations)
		if err != nil {
			return firehose.Parts{}, fmt.Errorf("destinations: %w", err)
		}
		if operator, err = firehose.ParseOperator(raw); err != nil {
			return firehose.Parts{}, fmt.Errorf("destinations: %s: %w", s.config.Destinations, err)
		}
	}
	policy, err := outbound.ParsePolicy(s.config.Outbound, s.config.OutboundAllow)
	if err != nil {
		return firehose.Parts{}, fmt.Errorf("outbound-allow: %w", err)
	}
	parts := firehose.Parts{
		Objects: s.objects, Schemas: schemas{tables: s.catalog}, Invoker: functionInvoker{s.functions},
		Policy: policy, Operator: operator, Topics: operator.Topics(), ContentEncoding: s.config.ContentEncoding,
		StreamExists: func(_ context.Context, arn string) error {
			_, err := s.streams.OpenReader(arn)
			return err
		},
		OpenStream: func(arn string) (stream.Writer, error) {
			w, err := s.streams.OpenWriter(arn)
			if err != nil {
				return nil, err
			}
			return streamWriter{w}, nil
		},
		Sign: environmentCredentials,
	}
	if s.config.Auth == "keys" {
		access := roleAccess{directory: s.directory, buckets: s.buckets, own: s.objects == objects.Store(s.buckets)}
		parts.As, parts.InvokeAs = access.store, access.invoker
		parts.Schemas = schemas{s.catalog, access.may}
	}
	if s.config.Secrets != "" {
		store, err := secrets.Open(s.config.Secrets)
		if err != nil {
			return firehose.Parts{}, fmt.Errorf("secrets: %w", err)
		}
		parts.Secrets = store
		s.onStopBefore("API", "secrets", func(context.Context) error { return store.Close() })
	}
	return parts, nil
}

// firehosePrincipal is the service as trust policies name it.
const firehosePrincipal = "firehose.amazonaws.com"

// assumable tells which roles trust the service.
type assumable struct{ directory *iam.Directory }

func (a assumable) Assumable(arn string) error {
	role, ok := a.directory.Role(arn)
	if !ok {
		return errors.New("there is no such role")
	}
	return trusts(role, firehosePrincipal)
}

// deliveryAccess is what the pipeline asks about delivery streams.
type deliveryAccess struct{ *firehose.Service }

// FurtherActions are tagging what is created, and passing roles.
func (d deliveryAccess) FurtherActions(call *api.Call, in api.Shape) []wire.Action {
	tags, roles := d.Passes(call, in)
	var actions []wire.Action
	if tags {
		arn, account := d.ResourceARN(call, in)
		actions = append(actions, wire.Action{Name: "firehose:TagDeliveryStream", Resource: arn, Account: account})
	}
	for _, r := range roles {
		actions = append(actions, wire.Action{Name: "iam:PassRole", Resource: r.ARN, Account: r.Account,
			Values: map[string][]string{"iam:PassedToService": {firehosePrincipal}}})
	}
	return actions
}

// streamSource reads data streams for delivery.
type streamSource struct{ streams *streams.Service }

func (s streamSource) OpenStream(_ context.Context, arn string) (delivery.Stream, error) {
	r, err := s.streams.OpenReader(arn)
	if err != nil {
		return nil, err
	}
	return streamReader{r}, nil
}

// streamReader is a streams.Reader in the words of package delivery.
type streamReader struct{ *streams.Reader }

func (r streamReader) Shards(context.Context) ([]delivery.Shard, error) {
	list, err := r.Reader.Shards()
	if err != nil {
		return nil, err
	}
	shards := make([]delivery.Shard, len(list))
	for i, s := range list {
		shards[i] = delivery.Shard{Number: s.Number, Name: s.Name, Parents: s.Parents, Start: s.Start, End: s.End}
	}
	return shards, nil
}

func (r streamReader) At(ctx context.Context, shard uint32, at time.Time) (uint64, error) {
	return r.Reader.At(ctx, shard, at)
}

func (r streamReader) Read(ctx context.Context, shard uint32, from uint64, maxBytes int, run *delivery.Run) error {
	page, ok := run.Page.(*streams.ReaderPage)
	if !ok {
		page = new(streams.ReaderPage)
		run.Page = page
	}
	if err := r.Reader.Read(ctx, shard, from, maxBytes, page); err != nil {
		return err
	}
	clear(run.Records)
	run.Records, run.Next, run.End, run.Lost = run.Records[:0], page.Next, page.End, page.First-max(from, 1)
	for i := range page.Records {
		p := &page.Records[i]
		run.Records = append(run.Records, delivery.RunRecord{Index: p.Index, Arrival: p.Arrival, PartitionKey: p.Key, Data: p.Data})
	}
	return nil
}

func (r streamReader) Hash(partitionKey string) [16]byte { return streams.HashOf(partitionKey) }

func (r streamReader) Explicit(hashKey string) ([16]byte, bool) { return streams.ParseHashKey(hashKey) }

// streamWriter is a streams.Writer in the words of package stream.
type streamWriter struct{ *streams.Writer }

func (w streamWriter) Write(ctx context.Context, records []stream.Record) ([]stream.Result, error) {
	in := make([]streams.WriteRecord, len(records))
	for i, r := range records {
		in[i] = streams.WriteRecord{Key: r.Key, Data: r.Data}
	}
	written, err := w.Writer.Write(ctx, in)
	if err != nil {
		return nil, err
	}
	out := make([]stream.Result, len(written))
	for i, r := range written {
		out[i] = stream.Result{Code: r.Code, Message: r.Message, Retry: r.Retry}
	}
	return out, nil
}

// environmentCredentials are those that sign requests to clusters elsewhere: the
// operator's, by the variables that other tools read too.
func environmentCredentials(context.Context) (sigv4.Credentials, error) {
	c := sigv4.Credentials{AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), SecretKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")}
	if c.AccessKey == "" || c.SecretKey == "" {
		return c, errors.New("no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")
	}
	return c, nil
}
