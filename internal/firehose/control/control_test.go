package control

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/deliverycontrol"
	firehoseapi "github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a delivery stream for one test: a real store for its error output, and
// puts that are kept.
type house struct {
	*Service
	t       *testing.T
	store   *objects.Embedded
	located firehose.Located
	build   func(store objects.Store) (*delivery.Definition, bool)
	put     []string
	busy    int   // puts that are throttled before one is taken
	gone    bool  // the engine does not know it
	comes   bool  // and will when it is told
	refuse  error // of puts
	now     time.Time
}

// clock moves on by a second whenever somebody looks.
func (h *house) clock() time.Time {
	h.now = h.now.Add(time.Second)
	return h.now
}

func (h *house) Locate(_ *api.Call, name *string) (*firehose.Located, error) {
	if *name != h.located.Name {
		return nil, &firehoseapi.ResourceNotFoundException{Message: "no " + *name}
	}
	l := h.located
	return &l, nil
}

func (h *house) Rehearsal(_ context.Context, _ *api.Call, _ *string, store objects.Store) (*delivery.Definition, bool, error) {
	d, captured := h.build(store)
	return d, captured, nil
}

func (h *house) PutRecordBatch(_ context.Context, _ *api.Call, in *firehoseapi.PutRecordBatchInput) (*firehoseapi.PutRecordBatchOutput, error) {
	if h.refuse != nil {
		return nil, h.refuse
	}
	out := &firehoseapi.PutRecordBatchOutput{FailedPutCount: new(int32)}
	for _, r := range in.Records {
		if h.busy > 0 {
			h.busy--
			out.RequestResponses = append(out.RequestResponses, firehoseapi.PutRecordBatchResponseEntry{ErrorCode: api.Ptr("ServiceUnavailableException")})
			continue
		}
		h.put = append(h.put, string(r.Data))
		out.RequestResponses = append(out.RequestResponses, firehoseapi.PutRecordBatchResponseEntry{RecordId: api.Ptr("1")})
	}
	return out, nil
}

func (h *house) ResourceARN(*api.Call, api.Shape) (string, string)        { return "arn:x", "123456789012" }
func (h *house) ConditionValues(*api.Call, api.Shape) map[string][]string { return nil }
func (h *house) Flush(context.Context, string) error                      { return h.state() }
func (h *house) Pause(context.Context, string) error                      { return h.state() }
func (h *house) Resume(context.Context, string) error                     { return h.state() }
func (h *house) Ledger(id string, limit int) ([]delivery.LedgerEntry, error) {
	return []delivery.LedgerEntry{{Sequence: 7, Output: "delivery", Outcome: "delivered", Objects: []string{"s3://b/k"}, Records: limit, Took: 1500 * time.Millisecond}}, h.state()
}

func (h *house) Status(id string) (delivery.Status, error) {
	if id != h.located.ID {
		return delivery.Status{}, delivery.ErrNotFound
	}
	return delivery.Status{ID: id, Version: 2, Records: 3, LastError: &delivery.Problem{Code: "S3.X"}, Lanes: []delivery.LaneStatus{{Name: "l", Delivered: 4, Read: 5, Available: 6}}}, h.state()
}

func (h *house) Ready(context.Context, string) error {
	h.gone = h.gone && !h.comes
	return nil
}

func (h *house) state() error {
	if h.gone {
		return delivery.ErrNotFound
	}
	return nil
}

func open(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, located: firehose.Located{ID: "id-1", ARN: "arn:x", Name: "clicks", Account: "123456789012", Region: "eu-west-1", Version: 1, Direct: true}, now: time.Now()}
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	store, err := meta.Open(t.Context(), log, vfs.NewMemory(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if h.store, err = objects.Open(objects.Options{Files: vfs.NewMemory(), Now: h.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(h.store.Close(), store.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := h.store.CreateBucket(t.Context(), "errors", "123456789012", "eu-west-1"); err != nil {
		t.Fatal(err)
	}
	h.located.Errors.Store, h.located.Errors.Bucket, h.located.Errors.Prefix = h.store, "errors", "f/"
	h.Service = New(Options{Streams: h, Engine: h, Meta: store, Now: h.clock})
	return h
}

var call = &api.Call{Account: "123456789012", Region: "eu-west-1"}

func (h *house) object(key string, body []byte) {
	h.t.Helper()
	if _, err := h.store.Put(h.t.Context(), "errors", key, bytes.NewReader(body), int64(len(body)), objects.PutOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// failures are lines as a delivery writes them.
func failures(kind string, records ...string) []byte {
	var b []byte
	for _, r := range records {
		line := s3.FailureLine{ErrorType: kind, Code: "X", Message: "m", Attempts: 1, Data: []byte(r), Fields: []dest.Field{{Name: "EventId", Value: "1"}}}
		b = line.Append(b)
	}
	return b
}

func (h *house) redrive(in deliverycontrol.RedriveRecordsInput) string {
	h.t.Helper()
	in.DeliveryStreamName = api.Ptr("clicks")
	out, err := h.RedriveRecords(h.t.Context(), call, &in)
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%d put, %d skipped", *out.Records, *out.Skipped)
	for _, o := range out.Objects {
		text += " | " + strings.TrimPrefix(*o.Name, "s3://errors/f/")
		if o.Reason != nil {
			text += ": " + *o.Reason
		}
	}
	return text
}

func TestRedriveFindsFailuresOfEveryKind(t *testing.T) {
	h := open(t)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(failures("splunk-failed", "from gzip"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	h.object("f/processing-failed/2026/clicks-1-a", failures("processing-failed", "one", "two\n", "\x00\xff"))
	h.object("f/format-conversion-failed/2026/clicks-1-b", failures("format-conversion-failed", `{"n":1}`))
	h.object("f/splunk-failed/2026/clicks-1-c.gz", zipped.Bytes())
	h.object("f/AmazonOpenSearchService-failed/2026/clicks-1-d", failures("AmazonOpenSearchService-failed", "doc"))
	h.object("f/2026/clicks-1-data", []byte("not a failure"))
	h.object("f/processing-failed/2026/others-1-a", failures("processing-failed", "of another stream"))
	h.object("f/processing-failed/2026/clicks-1-e", []byte("damaged\n"))
	h.object("f/processing-failed/2026/clicks-1-f.snappy", []byte("x"))
	h.object("f/processing-failed/2026/clicks-1-g.gz", []byte("x"))
	h.object("g/processing-failed/2026/clicks-1-h", failures("processing-failed", "elsewhere"))
	dry := h.redrive(deliverycontrol.RedriveRecordsInput{DryRun: api.Ptr(true)})
	if len(h.put) != 0 {
		t.Errorf("a dry run put %q", h.put)
	}
	got := h.redrive(deliverycontrol.RedriveRecordsInput{})
	want := "6 put, 0 skipped | AmazonOpenSearchService-failed/2026/clicks-1-d | format-conversion-failed/2026/clicks-1-b | processing-failed/2026/clicks-1-a" +
		" | processing-failed/2026/clicks-1-e: line 1 is not a failed record | processing-failed/2026/clicks-1-f.snappy: it is compressed as snappy, which is not read back" +
		" | processing-failed/2026/clicks-1-g.gz: it is not compressed as its name says: unexpected EOF | splunk-failed/2026/clicks-1-c.gz"
	if got != want || dry != want {
		t.Errorf("got  %s\ndry  %s\nwant %s", got, dry, want)
	}
	if got, want := fmt.Sprintf("%q", h.put), `["doc" "{\"n\":1}" "one" "two\n" "\x00\xff" "from gzip"]`; got != want {
		t.Errorf("put  %s\nwant %s", got, want)
	}
}

func TestRedriveGoesRoundOnlySoOften(t *testing.T) {
	h := open(t)
	for round := 1; round <= 5; round++ {
		// The record fails each time, into an object of a new name.
		h.object(fmt.Sprintf("f/processing-failed/clicks-1-%d", round), failures("processing-failed", "always", fmt.Sprint("new ", round)))
		h.redrive(deliverycontrol.RedriveRecordsInput{MaxRedrives: api.Ptr(int32(2))})
	}
	if got, want := fmt.Sprint(h.put), "[always new 1 always new 2 new 3 new 4 new 5]"; got != want {
		t.Errorf("put %s, want %s", got, want)
	}
	h.put = nil
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{}); got != "0 put, 0 skipped" {
		t.Errorf("twice the same objects: %s", got)
	}
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{Again: api.Ptr(true), MaxRedrives: api.Ptr(int32(3))}); !strings.HasPrefix(got, "6 put, 4 skipped") {
		t.Errorf("again: %s", got)
	}
}

func TestRedriveInPages(t *testing.T) {
	h := open(t)
	for i := range 7 {
		h.object(fmt.Sprintf("f/processing-failed/clicks-1-%d", i), failures("processing-failed", fmt.Sprint(i)))
	}
	in := deliverycontrol.RedriveRecordsInput{DeliveryStreamName: api.Ptr("clicks"), MaxObjects: api.Ptr(int32(3))}
	pages := 0
	for {
		out, err := h.RedriveRecords(t.Context(), call, &in)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if pages == 1 { // what comes between two pages is not of this run
			h.object("f/processing-failed/clicks-1-z", failures("processing-failed", "late"))
		}
		if in.NextToken = out.NextToken; out.NextToken == nil {
			break
		}
	}
	if got := fmt.Sprint(h.put); got != "[0 1 2 3 4 5 6]" || pages != 3 {
		t.Errorf("put %s in %d pages", got, pages)
	}
	in.NextToken = api.Ptr("x")
	if _, err := h.RedriveRecords(t.Context(), call, &in); err == nil || !strings.Contains(err.Error(), "not one that this call gave") {
		t.Error(err)
	}
}

func TestRedriveOfParts(t *testing.T) {
	h := open(t)
	h.object("f/processing-failed/x/clicks-1-a", failures("processing-failed", "a"))
	h.object("f/processing-failed/y/clicks-1-b", failures("processing-failed", "b"))
	h.object("f/splunk-failed/x/clicks-1-c", failures("splunk-failed", "c"))
	for name, c := range map[string]struct {
		in   deliverycontrol.RedriveRecordsInput
		want string
	}{
		"type":        {deliverycontrol.RedriveRecordsInput{ErrorOutputType: api.Ptr("splunk-failed")}, "1 put, 0 skipped | splunk-failed/x/clicks-1-c"},
		"prefix":      {deliverycontrol.RedriveRecordsInput{Prefix: api.Ptr("f/processing-failed/y/")}, "1 put, 0 skipped | processing-failed/y/clicks-1-b"},
		"elsewhere":   {deliverycontrol.RedriveRecordsInput{Prefix: api.Ptr("secret/")}, `InvalidArgumentException: The error output of this delivery stream begins with "f/"; the prefix must too.`},
		"before":      {deliverycontrol.RedriveRecordsInput{Until: api.Ptr(time.Now().Add(-time.Hour))}, "0 put, 0 skipped"},
		"from now on": {deliverycontrol.RedriveRecordsInput{Since: api.Ptr(time.Now().Add(time.Hour))}, "0 put, 0 skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.DryRun = api.Ptr(true)
			if got := h.redrive(c.in); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	h.located.Errors.Bucket = "nowhere"
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{}); !strings.HasPrefix(got, "InvalidArgumentException: The error output cannot be read: NoSuchBucket") {
		t.Error(got)
	}
}

func TestRedrivePutsThrottledRecordsAgain(t *testing.T) {
	h := open(t)
	h.busy = 2
	h.object("f/processing-failed/clicks-1-a", failures("processing-failed", "a", "b", "c"))
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{}); !strings.HasPrefix(got, "3 put") {
		t.Error(got)
	}
	if len(h.put) != 3 {
		t.Errorf("put %q", h.put)
	}
}

// An object of which nothing could be put back is not remembered.
func TestRedriveThatIsRefused(t *testing.T) {
	h := open(t)
	h.object("f/processing-failed/clicks-1-a", failures("processing-failed", "a"))
	h.refuse = &firehoseapi.InvalidArgumentException{Message: "not now"}
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{}); got != "InvalidArgumentException: not now" {
		t.Error(got)
	}
	h.refuse = nil
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{}); !strings.HasPrefix(got, "1 put, 0 skipped") {
		t.Error(got)
	}
	h.located.Direct = false
	if got := h.redrive(deliverycontrol.RedriveRecordsInput{}); !strings.Contains(got, "this delivery stream reads a source") {
		t.Error(got)
	}
}

// What is remembered of delivery streams that are gone is forgotten.
func TestRedriveForgets(t *testing.T) {
	h := open(t)
	if _, err := h.o.Meta.Commit(t.Context(), redrives.Put(redriven{At: time.Now().UnixMilli()}, "id-0", "k"), redrives.Put(redriven{At: 5}, "id-1", "old")); err != nil {
		t.Fatal(err)
	}
	h.redrive(deliverycontrol.RedriveRecordsInput{})
	if rows := h.o.Meta.List(redrives.Prefix+"/", "", 0); len(rows) != 0 {
		t.Errorf("%d rows are left", len(rows))
	}
}

// capitals is a function: it drops "drop", fails "fail", and answers the others in
// capitals, with their first letter as a key.
type capitals struct{}

func (capitals) Invoke(_ context.Context, _ string, payload []byte) (process.Answer, error) {
	text := string(payload)
	var b strings.Builder
	b.WriteString(`{"records":[`)
	for i := 0; ; i++ {
		_, rest, found := strings.Cut(text, `"recordId":"`)
		if !found {
			break
		}
		id, rest, _ := strings.Cut(rest, `"`)
		_, rest, _ = strings.Cut(rest, `"data":"`)
		data, rest, _ := strings.Cut(rest, `"`)
		text = rest
		raw, _ := base64.StdEncoding.DecodeString(data)
		result := "Ok"
		switch {
		case bytes.HasPrefix(raw, []byte("drop")):
			result = "Dropped"
		case bytes.HasPrefix(raw, []byte("fail")):
			result = "ProcessingFailed"
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"recordId":%q,"result":%q,"data":%q,"metadata":{"partitionKeys":{"k":%q}}}`, id, result, base64.StdEncoding.EncodeToString(bytes.ToUpper(raw)), raw[:1])
	}
	b.WriteString(`]}`)
	return process.Answer{Payload: []byte(b.String())}, nil
}

func (h *house) test(records ...string) (*deliverycontrol.TestDeliveryStreamOutput, error) {
	in := &deliverycontrol.TestDeliveryStreamInput{DeliveryStreamName: api.Ptr("clicks")}
	for _, r := range records {
		in.Records = append(in.Records, deliverycontrol.Record{Data: []byte(r)})
	}
	return h.TestDeliveryStream(h.t.Context(), call, in)
}

func TestTestShowsObjectsOfEveryPartition(t *testing.T) {
	h := open(t)
	prefix, failed, err := naming.Prefix("d/!{partitionKeyFromLambda:k}/", "f/!{firehose:error-output-type}/", naming.PairOptions{Partitioning: true, Function: true})
	if err != nil {
		t.Fatal(err)
	}
	plain, plainFailed, err := naming.Prefix("", "", naming.PairOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.build = func(store objects.Store) (*delivery.Definition, bool) {
		c := s3.Config{Store: store, Bucket: "lake", Prefix: prefix, ErrorPrefix: failed}
		backup := s3.NewWriter(s3.Config{Store: store, Bucket: "copy", Prefix: plain, ErrorPrefix: plainFailed})
		return &delivery.Definition{ID: "id-1", Name: "clicks", Version: 3, Kind: delivery.KindS3, Main: s3.New(c), Errors: s3.NewWriter(c), Backup: backup,
			Partitioning: &delivery.Partitioning{Prefix: prefix},
			Chain:        process.NewChain(process.Config{Function: &process.Function{ARN: "arn:f", Buffer: record.Hints{Bytes: 1 << 20}}}, capitals{})}, true
	}
	out, err := h.test("apple", "bee", "drop", "fail", "ant")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range out.Objects {
		key, _, _ := strings.Cut(*o.Key, "-20")
		got = append(got, *o.Output+" "+*o.Bucket+"/"+key+" "+string(o.Data))
	}
	date := h.now.UTC().Format("2006/01/02/15/")
	if g, want := strings.Join(got, "|"), "delivery lake/d/a/clicks-3 APPLEANT|delivery lake/d/b/clicks-3 BEE|backup copy/"+date+"clicks-3 applebeedropfailant"; g != want {
		t.Errorf("got  %s\nwant %s", g, want)
	}
	if *out.Dropped != 1 || len(out.Failures) != 1 || *out.Failures[0].Index != 3 || *out.Failures[0].Code != "Lambda.ProcessingFailedStatus" || string(out.Failures[0].Data) != "fail" || *out.FunctionCalls != 1 {
		t.Errorf("%d dropped, failures %+v", *out.Dropped, out.Failures)
	}
	if list, _, err := h.store.List(t.Context(), "errors", "", "", 10); err != nil || len(list) != 0 {
		t.Errorf("a test stored %v, %v", list, err)
	}
}

// refusing is a destination that must not be delivered to.
type refusing struct{ t *testing.T }

func (r refusing) Deliver(context.Context, *record.Batch) (dest.Result, error) {
	r.t.Error("a test delivered")
	return dest.Result{}, nil
}
func (refusing) Close() error { return nil }

func TestTestSendsNothing(t *testing.T) {
	h := open(t)
	h.build = func(objects.Store) (*delivery.Definition, bool) {
		return &delivery.Definition{ID: "id-1", Name: "clicks", Version: 1, Kind: delivery.KindHTTPEndpoint, Main: refusing{t},
			Chain: process.NewChain(process.Config{Function: &process.Function{ARN: "arn:f", Buffer: record.Hints{Bytes: 1 << 20}}}, capitals{})}, false
	}
	out, err := h.test("drop", "x")
	if err != nil || len(out.Records) != 1 || string(out.Records[0].Data) != "X" || *out.Records[0].Index != 1 || *out.Destination != "HttpEndpoint" {
		t.Errorf("%+v %v", out, err)
	}
}

func TestObjectsOfATestAreCutShort(t *testing.T) {
	c := &capture{output: "delivery"}
	if _, err := c.Put(t.Context(), "b", "k", io.LimitReader(zeros{}, maxShown+10), -1, objects.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if o := c.objects[0]; len(o.Data) != maxShown || *o.Size != maxShown+10 || !*o.Truncated {
		t.Errorf("%d shown of %d, %v", len(o.Data), *o.Size, *o.Truncated)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestStatusAndLedger(t *testing.T) {
	h := open(t)
	name := api.Ptr("clicks")
	st, err := h.GetDeliveryStatus(t.Context(), call, &deliverycontrol.GetDeliveryStatusInput{DeliveryStreamName: name})
	if err != nil || *st.Version != 2 || *st.BufferedRecords != 3 || st.OldestRecord != nil || *st.LastError.Code != "S3.X" || *st.Lanes[0].Available != 6 {
		t.Errorf("%+v %v", st, err)
	}
	l, err := h.ListDeliveries(t.Context(), call, &deliverycontrol.ListDeliveriesInput{DeliveryStreamName: name, Limit: api.Ptr(int32(9))})
	if err != nil || *l.Deliveries[0].Records != 9 || *l.Deliveries[0].TookMillis != 1500 || l.Deliveries[0].Error != nil {
		t.Errorf("%+v %v", l, err)
	}
	_, err = h.FlushDeliveryStream(t.Context(), call, &deliverycontrol.FlushDeliveryStreamInput{DeliveryStreamName: api.Ptr("other")})
	var missing *firehoseapi.ResourceNotFoundException
	if !errors.As(err, &missing) {
		t.Error(err)
	}
	h.gone = true
	_, err = h.PauseDeliveryStream(t.Context(), call, &deliverycontrol.PauseDeliveryStreamInput{DeliveryStreamName: name})
	if err == nil || err.Error() != "InvalidArgumentException: Firehose clicks under account 123456789012 is not ACTIVE." {
		t.Error(err)
	}
	// The engine is told of what became ACTIVE a moment ago.
	h.comes = true
	if _, err = h.PauseDeliveryStream(t.Context(), call, &deliverycontrol.PauseDeliveryStreamInput{DeliveryStreamName: name}); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeFailure(f *testing.F) {
	f.Add(failures("processing-failed", "x"))
	f.Add([]byte(`{"rawData":"","attemptsMade":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		data, ok := decodeFailure(line)
		if ok {
			again, ok := decodeFailure(failures("processing-failed", string(data)))
			if !ok || !bytes.Equal(again, data) {
				t.Fatal("what is written is not read back")
			}
		}
	})
}
