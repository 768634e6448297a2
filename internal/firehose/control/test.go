package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/deliverycontrol"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

// maxShown is how much of an object is shown, in bytes.
const maxShown = 256 << 10

// TestDeliveryStream shows what would become of records: they go through the chain
// of the delivery stream, its function included, are sorted into partitions,
// converted, compressed and named, and nothing is sent or stored.
//
// Destinations other than objects are shown the records as they would get them.
func (s *Service) TestDeliveryStream(ctx context.Context, call *api.Call, in *deliverycontrol.TestDeliveryStreamInput) (*deliverycontrol.TestDeliveryStreamOutput, error) {
	kept := &capture{}
	d, captured, err := s.o.Streams.Rehearsal(ctx, call, in.DeliveryStreamName, kept)
	if err != nil {
		return nil, err
	}
	defer d.Main.Close()
	t := &rehearsal{d: d, kept: kept, now: s.o.Now(), out: &deliverycontrol.TestDeliveryStreamOutput{Destination: api.Ptr(string(d.Kind))}}
	t.stream = record.Stream{ARN: d.ARN, Name: d.Name, Account: d.Account, Region: d.Region, Version: d.Version}
	lane := testLane{}
	records := make([]record.Record, len(in.Records))
	for i, r := range in.Records {
		records[i] = record.Record{Data: r.Data, Arrival: t.now.UnixMilli(), Lane: lane, Position: record.Position{Index: uint64(i + 1)}}
	}
	processed, failed, stats, err := d.Chain.Process(ctx, records, process.SourceMeta{Stream: t.stream})
	if err != nil {
		return nil, err
	}
	t.out.Dropped, t.out.FunctionCalls = number(stats.Dropped), number(stats.Invocations)
	for _, f := range failed {
		data := f.Record.Data
		if f.Record.Original != nil {
			data = f.Record.Original
		}
		t.fail(f.Record.Index, f.ErrorType, f.Code, f.Message, f.FunctionARN, data)
	}
	if err := t.deliver(ctx, processed, captured); err != nil {
		return nil, err
	}
	if d.Backup != nil {
		kept.output = "backup"
		if _, err := d.Backup.WriteBatch(ctx, record.Of(t.stream, t.id("backup"), records...), ""); err != nil {
			return nil, err
		}
	}
	t.out.Objects = kept.objects
	return t.out, nil
}

// rehearsal is one test on its way.
type rehearsal struct {
	d      *delivery.Definition
	kept   *capture
	now    time.Time
	stream record.Stream
	out    *deliverycontrol.TestDeliveryStreamOutput
}

// id names a batch that is none.
func (t *rehearsal) id(of string) string {
	sum := sha256.Sum256([]byte("test " + t.d.ID + " " + of))
	return hex.EncodeToString(sum[:16])
}

func (t *rehearsal) fail(index uint64, kind, code, message, function string, data []byte) {
	t.out.Failures = append(t.out.Failures, deliverycontrol.Failure{
		Index: number(int(index) - 1), ErrorOutputType: &kind, Code: &code, Message: &message, FunctionARN: optional(function), Data: data,
	})
}

// deliver sorts records into partitions and writes each of them.
func (t *rehearsal) deliver(ctx context.Context, records []record.Record, captured bool) error {
	var order []string
	partitions := map[string][]record.Record{}
	for _, r := range records {
		key := ""
		if p := t.d.Partitioning; p != nil {
			name, err := p.Prefix.AppendPartition(nil, r.Keys)
			if err != nil {
				t.fail(r.Index, "processing-failed", "DynamicPartitioning.MetadataExtractionFailed", err.Error(), "", r.Data)
				continue
			}
			key = string(name)
		}
		if partitions[key] == nil {
			order = append(order, key)
		}
		partitions[key] = append(partitions[key], r)
	}
	for _, key := range order {
		list := partitions[key]
		if !captured {
			for _, r := range list {
				p := deliverycontrol.Processed{Index: number(int(r.Index) - 1), Data: r.Data, Partition: optional(key)}
				if r.Table != nil {
					p.Table, p.Operation = api.Ptr(r.Table.Database+"."+r.Table.Name), optional(r.Table.Operation)
				}
				t.out.Records = append(t.out.Records, p)
			}
			continue
		}
		b := record.Of(t.stream, t.id(key), list...)
		b.Partition = key
		t.kept.output, t.kept.records = "delivery", len(list)
		result, err := t.d.Main.Deliver(ctx, b)
		if err != nil {
			return &deliverycontrol.InvalidArgumentException{Message: fmt.Sprintf("The records could not be delivered: %v", err)}
		}
		kind := t.d.ErrorType
		switch {
		case kind != "":
		case t.d.Converts:
			kind = "format-conversion-failed"
		default:
			kind = t.d.Kind.ErrorType()
		}
		for _, f := range result.Failed {
			t.fail(list[f.Index].Index, kind, f.Code, f.Message, "", list[f.Index].Data)
		}
	}
	return nil
}

// testLane is where records of a test come from.
type testLane struct{}

func (testLane) Name() string { return "test" }

func (testLane) SequenceNumber(index uint64, _ int64) string { return fmt.Sprintf("%056d", index) }

// capture is an object store that keeps what it is given for the caller to see.
type capture struct {
	output  string // what is being written
	records int

	mu      sync.Mutex
	objects []deliverycontrol.Object
}

// Put implements objects.Store.
func (c *capture) Put(_ context.Context, bucket, key string, body io.Reader, _ int64, o objects.PutOptions) (objects.Info, error) {
	shown, err := io.ReadAll(io.LimitReader(body, maxShown))
	if err != nil {
		return objects.Info{}, err
	}
	rest, err := io.Copy(io.Discard, body)
	if err != nil {
		return objects.Info{}, err
	}
	size := int64(len(shown)) + rest
	c.mu.Lock()
	defer c.mu.Unlock()
	object := deliverycontrol.Object{
		Output: &c.output, Bucket: &bucket, Key: &key, ContentEncoding: optional(o.ContentEncoding), Records: number(c.records), Size: &size, Data: shown, Truncated: api.Ptr(rest > 0),
	}
	output := c.output
	object.Output = &output
	c.objects = append(c.objects, object)
	return objects.Info{Key: key, Size: size}, nil
}

func missing(key string) error {
	return &objects.Error{Code: "NoSuchKey", Status: 404, Message: "The specified key does not exist: " + key}
}

// Get implements objects.Store: nothing can be read.
func (c *capture) Get(_ context.Context, _, key string, _ objects.Range) (io.ReadCloser, objects.Info, error) {
	return nil, objects.Info{}, missing(key)
}

// Head implements objects.Store.
func (c *capture) Head(_ context.Context, _, key string) (objects.Info, error) {
	return objects.Info{}, missing(key)
}

// Delete implements objects.Store.
func (c *capture) Delete(context.Context, string, string) error { return nil }

// List implements objects.Store.
func (c *capture) List(context.Context, string, string, string, int) ([]objects.Info, bool, error) {
	return nil, false, nil
}

// HeadBucket implements objects.Store.
func (c *capture) HeadBucket(context.Context, string) error { return nil }
