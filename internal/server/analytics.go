package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/analytics"
	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/host"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/streams"
	"github.com/millrace/millrace/internal/vfs"
	"github.com/millrace/millrace/internal/wire"
)

// applicationsDir holds the checkpoints of SQL applications.
const applicationsDir = "applications"

// openAnalytics opens streaming SQL: what runs applications, and both versions of
// the API over it. It comes after everything that applications read and write.
func (s *Server) openAnalytics(ctx context.Context) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	if files == nil {
		files = vfs.NewMemory()
	}
	resources := &applicationResources{server: s}
	s.applications, err = host.New(host.Options{
		OpenSource: resources.source, OpenDestination: resources.destination, OpenObject: resources.object,
		Files: vfs.Sub(files, applicationsDir), Now: s.options.Now, Logger: s.logger,
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStopBefore("API", "applications", s.applications.Close)
	s.analytics, err = analytics.New(ctx, analytics.Options{
		Meta: s.meta, Host: s.applications, Sources: resources, Objects: resources.objects, Functions: resources,
		Now: s.options.Now, StateDelay: s.config.StateDelay, Logger: s.logger,
	})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStopBefore("API", "registry of applications", func(context.Context) error { return s.analytics.Close() })
	access := applicationAccess{s.analytics}
	s.mux.Register(kinesisanalytics.Service, access, kinesisanalytics.Bind(analytics.V1{Service: s.analytics}))
	s.mux.Register(kinesisanalyticsv2.Service, access, kinesisanalyticsv2.Bind(analytics.V2{Service: s.analytics}))
	return nil
}

// applicationAccess is what the pipeline asks about applications.
type applicationAccess struct{ *analytics.Service }

// FurtherActions are tagging what is created, and passing roles.
func (a applicationAccess) FurtherActions(call *api.Call, in api.Shape) []wire.Action {
	tags, roles := a.Passes(call, in)
	var actions []wire.Action
	if tags {
		arn, account := a.ResourceARN(call, in)
		actions = append(actions, wire.Action{Name: "kinesisanalytics:TagResource", Resource: arn, Account: account})
	}
	for _, r := range roles {
		actions = append(actions, wire.Action{Name: "iam:PassRole", Resource: r.ARN, Account: r.Account,
			Values: map[string][]string{"iam:PassedToService": {analyticsPrincipal}}})
	}
	return actions
}

// analyticsPrincipal is the service as trust policies name it.
const analyticsPrincipal = "kinesisanalytics.amazonaws.com"

// applicationResources is everything that applications read and write.
type applicationResources struct{ server *Server }

// source opens what an input reads.
func (r *applicationResources) source(_ context.Context, a *app.Application, res app.Resource) (host.Source, error) {
	switch res.Kind {
	case app.DataStream:
		reader, err := r.server.streams.OpenReader(res.ARN)
		if err != nil {
			return nil, err
		}
		return &dataSource{Reader: reader}, nil
	case app.DeliveryStream:
		return r.deliverySource(res)
	}
	return nil, fmt.Errorf("an input cannot be a %s", res.Kind)
}

// deliverySource reads what is put to a delivery stream; of one that reads a data
// stream, it is that stream.
func (r *applicationResources) deliverySource(res app.Resource) (host.Source, error) {
	inside, err := r.server.firehose.OpenInside(res.ARN)
	if err != nil {
		return nil, err
	}
	stream, _, err := inside.Source()
	if err != nil {
		return nil, err
	}
	if stream != "" {
		reader, err := r.server.streams.OpenReader(stream)
		if err != nil {
			return nil, err
		}
		return &dataSource{Reader: reader}, nil
	}
	reader, err := r.server.delivery.OpenReader(inside.ID())
	if err != nil {
		return nil, err
	}
	return &directSource{reader: reader}, nil
}

// dataSource is a data stream in the words of package host.
type dataSource struct{ *streams.Reader }

func (s *dataSource) Shards() ([]host.Shard, error) {
	list, err := s.Reader.Shards()
	if err != nil {
		return nil, err
	}
	shards := make([]host.Shard, len(list))
	for i, sh := range list {
		shards[i] = host.Shard{Number: sh.Number, Name: sh.Name, Parents: sh.Parents}
	}
	return shards, nil
}

func (s *dataSource) Read(ctx context.Context, shard uint32, from uint64, maxBytes int) (*host.Page, error) {
	var page streams.ReaderPage
	if err := s.Reader.Read(ctx, shard, from, maxBytes, &page); err != nil {
		return nil, err
	}
	out := &host.Page{Records: make([]host.Record, len(page.Records)), Next: page.Next, Tail: page.Tail, End: page.End}
	for i := range page.Records {
		p := &page.Records[i]
		out.Records[i] = host.Record{Index: p.Index, Arrival: p.Arrival, Key: p.Key, Data: p.Data}
	}
	return out, nil
}

func (s *dataSource) Changed(shard uint32) <-chan struct{} {
	_, changed := s.Tail(shard)
	return changed
}

// directSource is a delivery stream that is put to directly: one shard, for ever.
type directSource struct{ reader *delivery.Reader }

// ID tells logs of delivery streams from data streams by its highest bit.
func (s *directSource) ID() uint64 { return 1<<63 | s.reader.Log() }

func (s *directSource) Shards() ([]host.Shard, error) {
	return []host.Shard{{Name: s.reader.Lane()}}, nil
}

func (s *directSource) At(ctx context.Context, _ uint32, at time.Time) (uint64, error) {
	return s.reader.At(ctx, at)
}

func (s *directSource) Read(ctx context.Context, _ uint32, from uint64, maxBytes int) (*host.Page, error) {
	var run delivery.Run
	if err := s.reader.Read(ctx, from, maxBytes, &run); err != nil {
		return nil, err
	}
	tail, _ := s.reader.Tail()
	out := &host.Page{Records: make([]host.Record, len(run.Records)), Next: run.Next, Tail: max(tail, run.Next)}
	for i, p := range run.Records {
		out.Records[i] = host.Record{Index: p.Index, Arrival: p.Arrival, Data: p.Data}
	}
	return out, nil
}

func (s *directSource) Changed(uint32) <-chan struct{} {
	_, changed := s.reader.Tail()
	return changed
}

func (s *directSource) Resharded() <-chan struct{} { return nil }

func (s *directSource) Gone() <-chan struct{} { return s.reader.Gone() }

func (s *directSource) SequenceNumber(_ uint32, index uint64, arrival int64) string {
	return s.reader.RecordID(index, arrival)
}

// destination opens what an output writes to.
func (r *applicationResources) destination(_ context.Context, a *app.Application, res app.Resource) (host.Destination, error) {
	switch res.Kind {
	case app.DataStream:
		w, err := r.server.streams.OpenWriter(res.ARN)
		if err != nil {
			return nil, err
		}
		return &streamDestination{writer: w}, nil
	case app.DeliveryStream:
		inside, err := r.server.firehose.OpenInside(res.ARN)
		if err != nil {
			return nil, err
		}
		return &deliveryDestination{inside: inside}, nil
	}
	return nil, fmt.Errorf("an output cannot be a %s here", res.Kind)
}

// streamDestination writes rows to a data stream.
type streamDestination struct{ writer *streams.Writer }

func (d *streamDestination) Write(ctx context.Context, rows [][]byte) error {
	records := make([]streams.WriteRecord, len(rows))
	for i, row := range rows {
		records[i] = streams.WriteRecord{Key: randomKey(), Data: row}
	}
	results, err := d.writer.Write(ctx, records)
	if err != nil {
		return err
	}
	for _, w := range results {
		if w.Code != "" {
			return fmt.Errorf("%s: %s", w.Code, w.Message)
		}
	}
	return nil
}

// deliveryDestination puts rows to a delivery stream.
type deliveryDestination struct{ inside *firehose.Inside }

func (d *deliveryDestination) Write(ctx context.Context, rows [][]byte) error {
	for len(rows) > 0 {
		n, size := 0, 0
		for n < min(len(rows), maxPutRecords) && (n == 0 || size+len(rows[n]) <= maxPutBytes) {
			size += len(rows[n])
			n++
		}
		stored, err := d.inside.Put(ctx, rows[:n])
		if err != nil {
			return err
		}
		rows = rows[stored:]
	}
	return nil
}

// What one put to a delivery stream takes.
const (
	maxPutRecords = 500
	maxPutBytes   = 4 << 20
)

// object opens the object of a reference table.
func (r *applicationResources) object(ctx context.Context, a *app.Application, ref app.Reference) (io.ReadCloser, error) {
	body, _, err := r.objects(ctx, ref.Role).Get(ctx, ref.Bucket, ref.Key, objects.Range{})
	return body, err
}

// objects is the object store as a role sees it.
func (r *applicationResources) objects(_ context.Context, role string) objects.Store {
	return r.server.objects
}

// Invoke implements analytics.Functions.
func (r *applicationResources) Invoke(ctx context.Context, function app.Resource, payload []byte) ([]byte, error) {
	answer, err := functionInvoker{r.server.functions}.Invoke(ctx, function.ARN, payload)
	if err != nil {
		return nil, err
	}
	if answer.FunctionError != "" {
		return nil, fmt.Errorf("%s: %s", answer.FunctionError, answer.Payload)
	}
	return answer.Payload, nil
}

// Sample implements analytics.Sources.
func (r *applicationResources) Sample(ctx context.Context, source app.Resource, start app.Start, max, maxBytes int) ([]app.Record, error) {
	return nil, errors.ErrUnsupported
}

// randomKey is a partition key that spreads rows over all shards.
func randomKey() string { return strconv.FormatUint(rand.Uint64(), 36) }
