package firehose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/convert"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

const (
	testAccount = "123456789012"
	testRegion  = "eu-central-1"
	testRole    = "arn:aws:iam::123456789012:role/delivery"
	testBucket  = "arn:aws:s3:::bucket"
)

// engine keeps what it is told: which definitions run, and what was put.
type engine struct {
	mu      sync.Mutex
	running map[string]*delivery.Definition
	removed map[string]bool // whether it was drained
	puts    map[string][]string
	err     error // of the next Put
	apply   error // of the next Apply
	drain   error // of draining
	applies int
}

func (e *engine) Apply(_ context.Context, d *delivery.Definition) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.apply; err != nil {
		e.apply = nil
		return err
	}
	if old := e.running[d.ID]; old != nil && old.Version > d.Version {
		return fmt.Errorf("version %d after %d", d.Version, old.Version)
	}
	e.applies++
	if old := e.running[d.ID]; old != nil {
		old.Main.Close()
	}
	e.running[d.ID] = d
	return nil
}

func (e *engine) Remove(_ context.Context, id string, drain bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if drain && e.drain != nil {
		return e.drain
	}
	if old := e.running[id]; old != nil {
		old.Main.Close()
	}
	delete(e.running, id)
	e.removed[id] = drain
	return nil
}

// close ends the destinations, which are the engine's.
func (e *engine) close() {
	for _, d := range e.running {
		d.Main.Close()
	}
}

func (e *engine) Put(_ context.Context, id string, records [][]byte) ([]string, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.err; err != nil {
		e.err = nil
		return nil, false, err
	}
	d := e.running[id]
	if d == nil {
		return nil, false, delivery.ErrNotFound
	}
	ids := make([]string, len(records))
	for i, r := range records {
		e.puts[id] = append(e.puts[id], string(r))
		ids[i] = fmt.Sprintf("%056d", len(e.puts[id]))
	}
	return ids, d.Encryption != nil, nil
}

func (e *engine) definition(id string) *delivery.Definition {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running[id]
}

// noStore is an object store that nobody writes to.
type noStore struct{ objects.Store }

// tables is a catalog with one table, db.events.
type tables struct{}

func (tables) Schema(_ context.Context, t convert.Table) (*convert.Schema, error) {
	if t.Database != "db" || t.Name != "events" {
		return nil, &convert.SchemaError{Code: "EntityNotFound", Message: "Entity Not Found"}
	}
	return &convert.Schema{Version: "1", Columns: []convert.Column{{Name: "id", Type: "bigint"}}}, nil
}

// noFunctions is an invoker without functions.
type noFunctions struct{ process.Invoker }

// rig is a Service with a clock that only tests move.
type rig struct {
	*Service
	t      testing.TB
	clock  atomic.Int64 // nanoseconds
	log    *shardlog.Log
	engine *engine
	opts   Options
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.clock.Store(time.Date(2026, 5, 1, 12, 0, 0, 250e6, time.UTC).UnixNano())
	r.log = shardlog.New(memory.New(memory.Options{Now: r.time}), shardlog.Options{})
	t.Cleanup(func() {
		if err := r.log.Close(); err != nil {
			t.Error(err)
		}
	})
	operator, err := ParseOperator([]byte("topics:\n  arn:aws:kafka:eu-central-1:123456789012:cluster/c: [localhost:9092]\n" +
		"endpoints:\n  arn:aws:es:eu-central-1:123456789012:domain/search: {endpoint: \"http://localhost:9200\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := outbound.ParsePolicy(outbound.Open, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.opts = Options{Now: r.time, Parts: Parts{
		Objects: noStore{}, Schemas: tables{}, Invoker: noFunctions{}, Operator: operator, Topics: operator.Topics(), Policy: policy,
	}}
	if change != nil {
		change(&r.opts)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) time() time.Time         { return time.Unix(0, r.clock.Load()) }
func (r *rig) advance(d time.Duration) { r.clock.Add(int64(d)) }

func (r *rig) start() {
	r.t.Helper()
	store, err := meta.Open(context.Background(), r.log, nil, meta.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.opts
	o.Meta = store
	if o.Keyring, err = keyring.Open(keyring.Options{Store: keyring.InMetadata(store), Master: make([]byte, keyring.MasterKeySize), Strict: true, Now: r.time}); err != nil {
		r.t.Fatal(err)
	}
	r.engine = &engine{running: map[string]*delivery.Definition{}, removed: map[string]bool{}, puts: map[string][]string{}}
	o.Engine = r.engine
	if r.Service, err = New(context.Background(), o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	r.engine.close()
	if err := r.Service.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.Service.meta.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart forgets everything that is not stored.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// settle lets every change of state end.
func (r *rig) settleAll() {
	r.t.Helper()
	for range 10 {
		r.advance(time.Minute)
		if _, any := r.finishDue(r.t.Context()); !any {
			return
		}
	}
	r.t.Fatal("changes of state do not end")
}

func (r *rig) call() *api.Call { return testCall(testAccount, testRegion) }

func testCall(account, region string) *api.Call {
	return &api.Call{Account: account, Region: region, Partition: "aws", RequestID: "test"}
}

func (r *rig) create(in *firehose.CreateDeliveryStreamInput) error {
	_, err := r.CreateDeliveryStream(r.t.Context(), r.call(), in)
	return err
}

// mustCreate creates a delivery stream and waits until it is ACTIVE.
func (r *rig) mustCreate(in *firehose.CreateDeliveryStreamInput) *stream {
	r.t.Helper()
	if err := r.create(in); err != nil {
		r.t.Fatal(err)
	}
	r.settleAll()
	return r.get(*in.DeliveryStreamName)
}

func (r *rig) get(name string) *stream {
	r.t.Helper()
	st := r.registry.stream(streamName{testAccount, testRegion, name})
	if st == nil {
		r.t.Fatalf("no delivery stream %s", name)
	}
	return st
}

func (r *rig) describe(name string) *firehose.DeliveryStreamDescription {
	r.t.Helper()
	out, err := r.DescribeDeliveryStream(r.t.Context(), r.call(), &firehose.DescribeDeliveryStreamInput{DeliveryStreamName: &name})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.DeliveryStreamDescription
}

func (r *rig) update(in *firehose.UpdateDestinationInput) error {
	if in.CurrentDeliveryStreamVersionId == nil {
		in.CurrentDeliveryStreamVersionId = r.describe(*in.DeliveryStreamName).VersionId
	}
	if in.DestinationId == nil {
		in.DestinationId = api.Ptr(destinationID)
	}
	_, err := r.UpdateDestination(r.t.Context(), r.call(), in)
	return err
}

// wantError checks an error's code and text; the text may end in … to match a
// beginning.
func wantError(t testing.TB, err error, code, message string) {
	t.Helper()
	var e api.Error
	if !errors.As(err, &e) {
		t.Errorf("got error %v, want %s %q", err, code, message)
		return
	}
	begin, open := strings.CutSuffix(message, "…")
	if e.ErrorCode() != code || e.ErrorMessage() != message && !(open && strings.HasPrefix(e.ErrorMessage(), begin)) {
		t.Errorf("got  %s %q\nwant %s %q", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
}

// The smallest configurations of every kind.

func s3Block() *firehose.S3DestinationConfiguration {
	return &firehose.S3DestinationConfiguration{RoleARN: api.Ptr(testRole), BucketARN: api.Ptr(testBucket)}
}

func minimal(k kind) *destination {
	role, endpoint := api.Ptr(testRole), api.Ptr("https://search.example.com")
	switch k {
	case kindS3:
		return &destination{ExtendedS3: &firehose.ExtendedS3DestinationConfiguration{RoleARN: role, BucketARN: api.Ptr(testBucket)}}
	case kindRedshift:
		return &destination{Redshift: &firehose.RedshiftDestinationConfiguration{
			RoleARN: role, ClusterJDBCURL: api.Ptr("jdbc:redshift://c.example.redshift.amazonaws.com:5439/db"),
			CopyCommand: &firehose.CopyCommand{DataTableName: api.Ptr("events")}, Username: api.Ptr("writer"), Password: api.Ptr("Secret12"), S3Configuration: s3Block(),
		}}
	case kindElasticsearch:
		return &destination{Elasticsearch: &firehose.ElasticsearchDestinationConfiguration{
			RoleARN: role, ClusterEndpoint: endpoint, IndexName: api.Ptr("logs"), S3Configuration: s3Block(),
		}}
	case kindOpenSearch:
		return &destination{OpenSearch: &firehose.AmazonopensearchserviceDestinationConfiguration{
			RoleARN: role, ClusterEndpoint: endpoint, IndexName: api.Ptr("logs"), S3Configuration: s3Block(),
		}}
	case kindServerless:
		return &destination{Serverless: &firehose.AmazonOpenSearchServerlessDestinationConfiguration{
			RoleARN: role, CollectionEndpoint: endpoint, IndexName: api.Ptr("logs"), S3Configuration: s3Block(),
		}}
	case kindSplunk:
		return &destination{Splunk: &firehose.SplunkDestinationConfiguration{
			HECEndpoint: api.Ptr("https://splunk.example.com:8088"), HECEndpointType: api.Ptr(firehose.HECEndpointTypeRaw),
			HECToken: api.Ptr("11111111-2222-3333-4444-555555555555"), S3Configuration: s3Block(),
		}}
	case kindHTTP:
		return &destination{HTTP: &firehose.HttpEndpointDestinationConfiguration{
			EndpointConfiguration: &firehose.HttpEndpointConfiguration{Url: api.Ptr("https://logs.example.com/in"), Name: api.Ptr("logs"), AccessKey: api.Ptr("key")},
			RoleARN:               role, S3Configuration: s3Block(),
		}}
	case kindSnowflake:
		return &destination{Snowflake: &firehose.SnowflakeDestinationConfiguration{
			AccountUrl: api.Ptr("https://ab12345.snowflakecomputing.com"), User: api.Ptr("WRITER"), PrivateKey: api.Ptr(testPrivateKey()), KeyPassphrase: api.Ptr("passphrase"),
			Database: api.Ptr("DB"), Schema: api.Ptr("PUBLIC"), Table: api.Ptr("EVENTS"), RoleARN: role, S3Configuration: s3Block(),
		}}
	case kindIceberg:
		return &destination{Iceberg: &firehose.IcebergDestinationConfiguration{
			RoleARN: role, CatalogConfiguration: &firehose.CatalogConfiguration{CatalogARN: api.Ptr("arn:aws:glue:eu-central-1:123456789012:catalog"), WarehouseLocation: api.Ptr("s3://bucket/warehouse")},
			// Tables that are to be made need not be there.
			TableCreationConfiguration:        &firehose.TableCreationConfiguration{Enabled: api.Ptr(true)},
			DestinationTableConfigurationList: []firehose.DestinationTableConfiguration{{DestinationDatabaseName: api.Ptr("db"), DestinationTableName: api.Ptr("events")}},
			S3Configuration:                   s3Block(),
		}}
	}
	panic("no such kind")
}

// input is a call that creates a delivery stream.
func input(name string, d *destination) *firehose.CreateDeliveryStreamInput {
	return &firehose.CreateDeliveryStreamInput{
		DeliveryStreamName:                                 &name,
		ExtendedS3DestinationConfiguration:                 d.ExtendedS3,
		RedshiftDestinationConfiguration:                   d.Redshift,
		ElasticsearchDestinationConfiguration:              d.Elasticsearch,
		AmazonopensearchserviceDestinationConfiguration:    d.OpenSearch,
		AmazonOpenSearchServerlessDestinationConfiguration: d.Serverless,
		SplunkDestinationConfiguration:                     d.Splunk,
		HttpEndpointDestinationConfiguration:               d.HTTP,
		SnowflakeDestinationConfiguration:                  d.Snowflake,
		IcebergDestinationConfiguration:                    d.Iceberg,
	}
}

func processing(processors ...firehose.Processor) *firehose.ProcessingConfiguration {
	return &firehose.ProcessingConfiguration{Enabled: api.Ptr(true), Processors: processors}
}

// step is a processor with parameters name, value, name, value …
func step(t firehose.ProcessorType, parameters ...string) firehose.Processor {
	p := firehose.Processor{Type: &t}
	for i := 0; i+1 < len(parameters); i += 2 {
		p.Parameters = append(p.Parameters, firehose.ProcessorParameter{ParameterName: api.Ptr(firehose.ProcessorParameterName(parameters[i])), ParameterValue: &parameters[i+1]})
	}
	return p
}

const testFunction = "arn:aws:lambda:eu-central-1:123456789012:function:f"

func sizes(size, interval int32) *firehose.BufferingHints {
	return &firehose.BufferingHints{SizeInMBs: &size, IntervalInSeconds: &interval}
}

// conversion is a valid conversion of the table that tests have.
func conversion() *firehose.DataFormatConversionConfiguration {
	return &firehose.DataFormatConversionConfiguration{
		SchemaConfiguration:       &firehose.SchemaConfiguration{RoleARN: api.Ptr(testRole), DatabaseName: api.Ptr("db"), TableName: api.Ptr("events")},
		InputFormatConfiguration:  &firehose.InputFormatConfiguration{Deserializer: &firehose.Deserializer{OpenXJsonSerDe: &firehose.OpenXJsonSerDe{}}},
		OutputFormatConfiguration: &firehose.OutputFormatConfiguration{Serializer: &firehose.Serializer{ParquetSerDe: &firehose.ParquetSerDe{}}},
	}
}
