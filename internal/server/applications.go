package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/analytics"
	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/host"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/functions"
	"github.com/millrace/millrace/internal/logs"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/streams"
)

// applicationResources is everything that SQL applications read and write, each
// thing in the role that the application names for it.
type applicationResources struct {
	streams   *streams.Service
	firehose  *firehose.Service
	delivery  *delivery.Engine
	store     objects.Store
	functions *functions.Registry
	logs      *logs.Service
	// access asks the policies of roles; nil permits everything.
	access *roleAccess
	now    func() time.Time
	logger *slog.Logger
}

// deniedError is what a role may not do.
type deniedError struct{ reason string }

func (e *deniedError) Error() string { return e.reason }

// permit is what a role may do to one resource. A role changes while it is used,
// so it is asked at every use.
type permit struct {
	access         *roleAccess
	role, resource string
	account        string
}

// allow is nil if one of the actions is allowed.
func (p permit) allow(actions ...string) error {
	if p.access == nil {
		return nil
	}
	reason := ""
	for _, action := range actions {
		d := p.access.may(p.role, action, p.resource, p.account)
		if d.Allowed {
			return nil
		}
		if reason == "" {
			reason = d.Reason
		}
	}
	return &deniedError{reason}
}

// permit is what a role may do to the resource of an ARN.
func (r *applicationResources) permit(res app.Resource) permit {
	account := ""
	if parts := strings.SplitN(res.ARN, ":", 6); len(parts) == 6 {
		account = parts[4]
	}
	return permit{r.access, res.Role, res.ARN, account}
}

// What inputs and outputs need, in the words of the service's guide. A delivery
// stream is read with an action that only the service has; its guide gives
// firehose:Get* to the role.
const (
	actionDescribeStream   = "kinesis:DescribeStream"
	actionDescribeSummary  = "kinesis:DescribeStreamSummary"
	actionListShards       = "kinesis:ListShards"
	actionGetIterator      = "kinesis:GetShardIterator"
	actionGetRecords       = "kinesis:GetRecords"
	actionPutRecords       = "kinesis:PutRecords"
	actionDescribeDelivery = "firehose:DescribeDeliveryStream"
	actionGetDelivery      = "firehose:GetRecords"
	actionPutDelivery      = "firehose:PutRecordBatch"
	actionInvoke           = "lambda:InvokeFunction"
	actionPutLogs          = "logs:PutLogEvents"
)

// source opens what an input reads.
func (r *applicationResources) source(_ context.Context, _ *app.Application, res app.Resource) (host.Source, error) {
	may := r.permit(res)
	switch res.Kind {
	case app.DataStream:
		if err := may.allow(actionDescribeStream, actionDescribeSummary, actionListShards); err != nil {
			return nil, err
		}
		reader, err := r.streams.OpenReader(res.ARN)
		if err != nil {
			return nil, err
		}
		return &dataSource{Reader: reader, read: func() error { return may.allow(actionGetRecords) }, find: func() error { return may.allow(actionGetIterator) }}, nil
	case app.DeliveryStream:
		if err := may.allow(actionDescribeDelivery); err != nil {
			return nil, err
		}
		inside, err := r.firehose.OpenInside(res.ARN)
		if err != nil {
			return nil, err
		}
		stream, err := inside.Source()
		if err != nil {
			return nil, err
		}
		read := func() error { return may.allow(actionGetDelivery) }
		if stream != "" {
			// What comes to it is what the data stream holds.
			reader, err := r.streams.OpenReader(stream)
			if err != nil {
				return nil, err
			}
			return &dataSource{Reader: reader, read: read, find: read}, nil
		}
		reader, err := r.delivery.OpenReader(inside.ID())
		if err != nil {
			return nil, err
		}
		return &directSource{reader: reader, allow: read}, nil
	}
	return nil, fmt.Errorf("a %s cannot be read", res.Kind)
}

// dataSource is a data stream in the words of package host.
type dataSource struct {
	*streams.Reader
	read, find func() error // nil if the role may
}

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

func (s *dataSource) At(ctx context.Context, shard uint32, at time.Time) (uint64, error) {
	if err := s.find(); err != nil {
		return 0, err
	}
	return s.Reader.At(ctx, shard, at)
}

func (s *dataSource) Read(ctx context.Context, shard uint32, from uint64, maxBytes int) (*host.Page, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	var page streams.ReaderPage
	if err := s.Reader.Read(ctx, shard, from, maxBytes, &page); err != nil {
		return nil, err
	}
	out := &host.Page{Records: make([]host.Record, len(page.Records)), First: page.First, Next: page.Next, Tail: page.Tail, End: page.End}
	for i := range page.Records {
		out.Records[i] = host.Record(page.Records[i])
	}
	return out, nil
}

func (s *dataSource) Changed(shard uint32) <-chan struct{} {
	_, changed := s.Tail(shard)
	return changed
}

// directSource is a delivery stream that is put to directly: one shard, for ever.
type directSource struct {
	reader *delivery.Reader
	allow  func() error
}

// ID tells logs of delivery streams from data streams by its highest bit.
func (s *directSource) ID() uint64 { return 1<<63 | s.reader.Log() }

func (s *directSource) Shards() ([]host.Shard, error) {
	return []host.Shard{{Name: s.reader.Lane()}}, nil
}

func (s *directSource) At(ctx context.Context, _ uint32, at time.Time) (uint64, error) {
	if err := s.allow(); err != nil {
		return 0, err
	}
	return s.reader.At(ctx, at)
}

func (s *directSource) Read(ctx context.Context, _ uint32, from uint64, maxBytes int) (*host.Page, error) {
	if err := s.allow(); err != nil {
		return nil, err
	}
	var run delivery.Run
	if err := s.reader.Read(ctx, from, maxBytes, &run); err != nil {
		return nil, err
	}
	tail, _ := s.reader.Tail()
	out := &host.Page{Records: make([]host.Record, len(run.Records)), First: from + run.Lost, Next: run.Next, Tail: max(tail, run.Next)}
	for i, p := range run.Records {
		out.Records[i] = host.Record{Index: p.Index, Arrival: p.Arrival, Data: p.Data}
	}
	return out, nil
}

func (s *directSource) Changed(uint32) <-chan struct{} {
	_, changed := s.reader.Tail()
	return changed
}

// Resharded is never closed: there is one lane.
func (s *directSource) Resharded() <-chan struct{} { return nil }

func (s *directSource) Gone() <-chan struct{} { return s.reader.Gone() }

// SequenceNumber is empty: records of delivery streams have no numbers.
func (s *directSource) SequenceNumber(uint32, uint64, int64) string { return "" }

// destination opens what an output writes to.
func (r *applicationResources) destination(_ context.Context, _ *app.Application, res app.Resource) (host.Destination, error) {
	may := r.permit(res)
	switch res.Kind {
	case app.DataStream:
		w, err := r.streams.OpenWriter(res.ARN)
		if err != nil {
			return nil, err
		}
		return &streamDestination{writer: w, allow: func() error { return may.allow(actionPutRecords) }}, nil
	case app.DeliveryStream:
		inside, err := r.firehose.OpenInside(res.ARN)
		if err != nil {
			return nil, err
		}
		return &deliveryDestination{inside: inside, allow: func() error { return may.allow(actionPutDelivery) }}, nil
	}
	return nil, fmt.Errorf("a %s cannot be written to", res.Kind)
}

// streamDestination writes rows to a data stream, spread over its shards.
type streamDestination struct {
	writer  *streams.Writer
	allow   func() error
	records []streams.WriteRecord
}

func (d *streamDestination) Write(ctx context.Context, rows [][]byte) error {
	if err := d.allow(); err != nil {
		return err
	}
	d.records = d.records[:0]
	for _, row := range rows {
		d.records = append(d.records, streams.WriteRecord{Key: strconv.FormatUint(rand.Uint64(), 36), Data: row})
	}
	return d.store(ctx)
}

// WriteKeyed implements host.Keyed.
func (d *streamDestination) WriteKeyed(ctx context.Context, keys []string, rows [][]byte) error {
	if err := d.allow(); err != nil {
		return err
	}
	d.records = d.records[:0]
	for i, row := range rows {
		d.records = append(d.records, streams.WriteRecord{Key: keys[i], Data: row})
	}
	return d.store(ctx)
}

// Keys implements host.Keyed.
func (d *streamDestination) Keys(ctx context.Context, since time.Time, f func(key []byte)) error {
	return d.writer.Keys(ctx, since, f)
}

// store stores the records.
func (d *streamDestination) store(ctx context.Context) error {
	defer func() { clear(d.records) }()
	results, err := d.writer.Write(ctx, d.records)
	if err != nil {
		return err
	}
	var partly host.PartlyError
	for i, w := range results {
		switch {
		case w.Code == "":
			continue
		case w.Retry:
			partly.Left = append(partly.Left, i)
		default:
			// It is too large for the stream, and would be for ever: the rows behind it
			// are worth more.
			partly.Refused = append(partly.Refused, i)
		}
		if partly.Err == nil {
			partly.Err = fmt.Errorf("%s: %s", w.Code, w.Message)
		}
	}
	if partly.Err != nil {
		return &partly
	}
	return nil
}

// deliveryDestination puts rows to a delivery stream.
type deliveryDestination struct {
	inside *firehose.Inside
	allow  func() error
}

// What one put to a delivery stream takes.
const (
	maxDeliveryRecords = 500
	maxDeliveryBytes   = 4 << 20
	maxDeliveryRecord  = 1_024_000
)

func (d *deliveryDestination) Write(ctx context.Context, rows [][]byte) error {
	if err := d.allow(); err != nil {
		return err
	}
	var partly host.PartlyError
	var batch [][]byte
	for at := 0; at < len(rows); {
		batch = batch[:0]
		size, first, end := 0, at, at
		for end < len(rows) && len(batch) < maxDeliveryRecords && size+len(rows[end]) <= maxDeliveryBytes {
			if len(rows[end]) > maxDeliveryRecord {
				if len(batch) > 0 {
					break // batches are runs of rows
				}
				partly.Refused = append(partly.Refused, end)
				partly.Err = fmt.Errorf("a row of %d bytes is larger than the %d that a record may have", len(rows[end]), maxDeliveryRecord)
				first++
			} else {
				size += len(rows[end])
				batch = append(batch, rows[end])
			}
			end++
		}
		at = end
		if len(batch) == 0 {
			continue
		}
		stored, err := d.inside.Put(ctx, batch)
		if err == nil && stored == len(batch) {
			continue
		}
		if partly.Err = err; err == nil {
			partly.Err = errors.New("the delivery stream takes no more records now")
		}
		for i := first + stored; i < len(rows); i++ {
			partly.Left = append(partly.Left, i)
		}
		return &partly
	}
	if partly.Err != nil {
		return &partly
	}
	return nil
}

// invoke runs a function for an application.
func (r *applicationResources) invoke(ctx context.Context, _ *app.Application, function app.Resource, payload []byte) ([]byte, error) {
	return r.Invoke(ctx, function, payload)
}

// Invoke implements analytics.Functions.
func (r *applicationResources) Invoke(ctx context.Context, function app.Resource, payload []byte) ([]byte, error) {
	if err := r.permit(function).allow(actionInvoke); err != nil {
		return nil, err
	}
	answer, err := r.functions.Invoke(ctx, functions.Request{Function: function.ARN, Payload: payload, Wait: true})
	if err != nil {
		return nil, err
	}
	if answer.FunctionError != "" {
		return nil, fmt.Errorf("the function failed: %s", functionFailure(answer.Payload))
	}
	return answer.Payload, nil
}

// requestID is what the messages of failed calls begin with.
var requestID = regexp.MustCompile(`^RequestId: [0-9a-fA-F-]{36} (Error: )?`)

// maxFailure bounds what is repeated of a function's own words.
const maxFailure = 512

// functionFailure is what a function says of its failure.
func functionFailure(payload []byte) string {
	var said struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	text := string(payload)
	if json.Unmarshal(payload, &said) == nil && (said.Type != "" || said.Message != "") {
		// A timeout is told with the number of its call: the same failure must read the
		// same each time, or it is told each time.
		text = strings.TrimPrefix(said.Type+": "+requestID.ReplaceAllString(said.Message, ""), ": ")
	}
	if len(text) > maxFailure {
		text = strings.ToValidUTF8(text[:maxFailure], "") + "…"
	}
	return text
}

// object opens the object of a reference table.
func (r *applicationResources) object(ctx context.Context, _ *app.Application, ref app.Reference) (io.ReadCloser, error) {
	body, _, err := r.objects(ctx, ref.Role).Get(ctx, ref.Bucket, ref.Key, objects.Range{})
	if err != nil {
		return nil, fmt.Errorf("object %s in bucket %s: %w", ref.Key, ref.Bucket, err)
	}
	return body, nil
}

// objects is the object store as a role sees it.
func (r *applicationResources) objects(_ context.Context, role string) objects.Store {
	if r.access == nil {
		return r.store
	}
	return r.access.store(r.store, role)
}

// logEvent is what the service writes about the configuration of an application.
// OutputID is ours: the service is silent about outputs.
type logEvent struct {
	ARN         string `json:"applicationARN"`
	Version     string `json:"applicationVersionId"`
	Type        string `json:"messageType"`
	Message     string `json:"message"`
	InputID     string `json:"inputId,omitempty"`
	ReferenceID string `json:"referenceId,omitempty"`
	OutputID    string `json:"outputId,omitempty"`
	Code        string `json:"errorCode"`
	Schema      string `json:"messageSchemaVersion"`
}

// tell writes what keeps an application from working to the log streams that it
// names. They are made if they are not there.
func (r *applicationResources) tell(_ context.Context, a *app.Application, id, code, text string) {
	e := logEvent{ARN: a.ARN, Version: strconv.FormatInt(a.Version, 10), Type: "ERROR", Message: text, Code: code, Schema: "1"}
	switch code {
	case "ReferenceDataError":
		e.ReferenceID = id
	case "OutputError":
		e.OutputID = id
	default:
		e.InputID = id
	}
	line, err := json.Marshal(e)
	if err != nil {
		r.logger.Error("write a log event", "application", a.Name, "error", err)
		return
	}
	for _, l := range a.Logging {
		to, ok := parseLogStream(l.ARN)
		if !ok {
			continue // it was checked when it was stored
		}
		if err := r.permit(app.Resource{ARN: l.ARN, Role: l.Role}).allow(actionPutLogs); err != nil {
			r.logger.Warn("an application's log stream cannot be written to", "application", a.Name, "logStream", l.ARN, "reason", err)
			continue
		}
		r.logs.Log(context.Background(), to.account, to.region, to.group, to.stream, r.now(), line)
	}
}

type logStream struct{ account, region, group, stream string }

// parseLogStream reads arn:…:logs:{region}:{account}:log-group:{group}:log-stream:{stream}.
func parseLogStream(arn string) (logStream, bool) {
	parts := strings.SplitN(arn, ":", 7)
	if len(parts) != 7 || parts[2] != "logs" || parts[5] != "log-group" {
		return logStream{}, false
	}
	group, stream, ok := strings.Cut(parts[6], ":log-stream:")
	return logStream{parts[4], parts[3], group, stream}, ok && group != "" && stream != ""
}

const (
	// sampledShards bounds how many shards of a source a sample looks at.
	sampledShards = 64
	// sampleLinger is how long more records are waited for once there is one.
	sampleLinger = time.Second
)

// Sample implements analytics.Sources.
func (r *applicationResources) Sample(ctx context.Context, source app.Resource, start app.Start, limit, maxBytes int) ([]app.Record, error) {
	from := r.now()
	s, err := r.source(ctx, nil, source)
	if err != nil {
		return nil, sampleError(err)
	}
	shards, err := s.Shards()
	if err != nil {
		return nil, sampleError(err)
	}
	if len(shards) > sampledShards {
		rand.Shuffle(len(shards), func(i, j int) { shards[i], shards[j] = shards[j], shards[i] })
		shards = shards[:sampledShards]
	}
	if data, ok := s.(*dataSource); ok {
		for _, sh := range shards {
			if !data.Admit(sh.Number) {
				return nil, analytics.ErrThrottled
			}
		}
	}
	sample := &sample{source: s, kind: source.Kind, limit: limit, maxBytes: maxBytes}
	switch start {
	case app.Now:
		err = sample.coming(ctx, shards, from)
	case app.TrimHorizon:
		err = sample.oldest(ctx, shards)
	default:
		err = sample.newest(ctx, shards)
	}
	if err != nil {
		return nil, sampleError(err)
	}
	return sample.take(start == analytics.Recent), nil
}

// sampleError is a failure in the words of package analytics.
func sampleError(err error) error {
	var denied *deniedError
	switch {
	case errors.As(err, &denied):
		return fmt.Errorf("%w: %s", analytics.ErrDenied, denied.reason)
	case streams.IsGone(err), errors.Is(err, delivery.ErrNotFound):
		return analytics.ErrNoSource
	}
	return err
}

// sample gathers records of a source.
type sample struct {
	source   host.Source
	kind     app.Kind
	limit    int
	maxBytes int
	records  []app.Record
}

// read adds up to most records of a shard, and tells where to go on.
func (s *sample) read(ctx context.Context, shard host.Shard, from uint64, most, maxBytes int) (next uint64, read int, err error) {
	page, err := s.source.Read(ctx, shard.Number, from, maxBytes)
	if err != nil {
		return from, 0, err
	}
	for i, p := range page.Records {
		if i == most {
			return p.Index, most, nil
		}
		out := app.Record{
			ID: s.source.SequenceNumber(shard.Number, p.Index, p.Arrival), Data: p.Data, Arrival: time.UnixMilli(p.Arrival).UTC(),
			ShardID: shard.Name, PartitionKey: string(p.Key),
		}
		out.SequenceNumber = out.ID
		if out.ID == "" {
			out.ID = shard.Name + "-" + strconv.FormatUint(p.Index, 10)
		}
		s.records = append(s.records, out)
	}
	return page.Next, len(page.Records), nil
}

// newest gathers the latest records: of each shard an equal part, and more of
// those that have more where others have less.
func (s *sample) newest(ctx context.Context, shards []host.Shard) error {
	if len(shards) == 0 {
		return nil
	}
	far := time.Unix(1<<40, 0)
	tails := make([]uint64, len(shards))
	for i, sh := range shards {
		tail, err := s.source.At(ctx, sh.Number, far)
		if err != nil {
			return err
		}
		tails[i] = max(tail, 1)
	}
	// How many records each gives: shards by how much they have, so that what one
	// lacks is shared among those that follow. Records that have expired, or are
	// large, are missing in the end: a sample need not be full.
	order := make([]int, len(shards))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(min(tails[a], 1<<30)) - int(min(tails[b], 1<<30)) })
	left := s.limit
	for n, i := range order {
		share := uint64((left + len(order) - n - 1) / (len(order) - n))
		take := min(share, tails[i]-1)
		left -= int(take)
		from, end := tails[i]-take, tails[i]
		for from < end {
			next, _, err := s.read(ctx, shards[i], from, int(end-from), s.maxBytes/len(shards))
			if err != nil {
				return err
			}
			if next <= from || s.bytes() >= s.maxBytes {
				break
			}
			from = next
		}
	}
	return nil
}

// oldest gathers the first records there are.
func (s *sample) oldest(ctx context.Context, shards []host.Shard) error {
	for _, sh := range shards {
		from, err := s.source.At(ctx, sh.Number, time.Time{})
		if err != nil {
			return err
		}
		for len(s.records) < s.limit && s.bytes() < s.maxBytes {
			next, n, err := s.read(ctx, sh, from, s.limit-len(s.records), s.maxBytes/len(shards)+1)
			if err != nil {
				return err
			}
			if n == 0 && next == from {
				break
			}
			from = next
		}
	}
	return nil
}

// coming gathers records that arrive from now on. It returns without an error
// when ctx ends.
func (s *sample) coming(ctx context.Context, shards []host.Shard, at time.Time) error {
	places := make([]uint64, len(shards))
	for i, sh := range shards {
		from, err := s.source.At(ctx, sh.Number, at)
		if err != nil {
			return err
		}
		places[i] = from
	}
	var linger <-chan time.Time
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		for i, sh := range shards {
			next, _, err := s.read(ctx, sh, places[i], s.limit-len(s.records), s.maxBytes)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			places[i] = next
		}
		if len(s.records) >= s.limit || s.bytes() >= s.maxBytes {
			return nil
		}
		if len(s.records) > 0 && linger == nil {
			t := time.NewTimer(sampleLinger)
			defer t.Stop()
			linger = t.C
		}
		select {
		case <-poll.C:
		case <-linger:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *sample) bytes() int {
	n := 0
	for i := range s.records {
		n += len(s.records[i].Data)
	}
	return n
}

// take returns what was gathered in the order of arrival, within the bounds: the
// end of it if the newest are wanted, else the beginning.
func (s *sample) take(newest bool) []app.Record {
	slices.SortStableFunc(s.records, func(a, b app.Record) int { return a.Arrival.Compare(b.Arrival) })
	if newest {
		slices.Reverse(s.records)
	}
	n, size := 0, 0
	for n < len(s.records) && n < s.limit {
		size += len(s.records[n].Data)
		if n > 0 && size > s.maxBytes {
			break
		}
		n++
	}
	out := s.records[:n]
	if newest {
		slices.Reverse(out)
	}
	return out
}
