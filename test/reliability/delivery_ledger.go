package reliability

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/firehose"
	firehosetypes "github.com/aws/aws-sdk-go-v2/service/firehose/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// line makes a record of a delivery stream from its number: a line of JSON that
// any reader can judge alone.
func line(stream string, number int) []byte {
	pad := strings.Repeat("abcdefghij", int(uint32(number)*2654435761%60))
	sum := crc32.ChecksumIEEE(fmt.Append(nil, stream, number, pad))
	return fmt.Appendf(nil, `{"stream":%q,"number":%d,"pad":%q,"sum":%d}`+"\n", stream, number, pad, sum)
}

// numberOfLine returns the number of a record of a delivery stream, or an error
// if it was altered or belongs elsewhere.
func numberOfLine(stream string, b []byte) (int, error) {
	var v struct{ Number int }
	if err := json.Unmarshal(b, &v); err != nil {
		return 0, fmt.Errorf("record %.80q: %w", b, err)
	}
	if !bytes.Equal(bytes.TrimSuffix(b, []byte("\n")), bytes.TrimSuffix(line(stream, v.Number), []byte("\n"))) {
		return 0, fmt.Errorf("record %d was altered: %.200q", v.Number, b)
	}
	return v.Number, nil
}

// deliveries is what one delivery stream has taken.
type deliveries struct {
	stream string
	mu     sync.Mutex
	next   int
	acked  map[int]bool
}

func newDeliveries(stream string) *deliveries {
	return &deliveries{stream: stream, acked: map[int]bool{}}
}

func (d *deliveries) take(n int) (first int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first = d.next
	d.next += n
	return first
}

func (d *deliveries) acknowledge(number int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acked[number] = true
}

// put puts a batch. Nothing is put again: a record whose acknowledgement got lost
// is there once or not.
func (d *deliveries) put(ctx context.Context, client *firehose.Client, batch int) error {
	first := d.take(batch)
	in := &firehose.PutRecordBatchInput{DeliveryStreamName: &d.stream}
	for i := range batch {
		in.Records = append(in.Records, firehosetypes.Record{Data: line(d.stream, first+i)})
	}
	out, err := client.PutRecordBatch(ctx, in)
	if err != nil {
		return err
	}
	for i, r := range out.RequestResponses {
		if r.RecordId != nil {
			d.acknowledge(first + i)
		}
	}
	return nil
}

// putSource is put for a data stream that the delivery stream reads.
func (d *deliveries) putSource(ctx context.Context, client *kinesis.Client, source string, batch int) error {
	first := d.take(batch)
	in := &kinesis.PutRecordsInput{StreamName: &source}
	for i := range batch {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{Data: line(d.stream, first+i), PartitionKey: aws.String(fmt.Sprint(first + i))})
	}
	out, err := client.PutRecords(ctx, in)
	if err != nil {
		return err
	}
	for i, r := range out.Records {
		if r.SequenceNumber != nil {
			d.acknowledge(first + i)
		}
	}
	return nil
}

// found counts, for each number, how often a record is in one place.
type found map[int]int

// bucketed is what a delivery stream has in the bucket: in its objects (or
// backup), and, by the type of error, in its error output.
type bucketed struct {
	objects found
	errors  map[string]found
}

// readBucket reads STREAM/data/ and STREAM/failed/TYPE/ of a bucket.
func readBucket(ctx context.Context, client *s3.Client, bucket, stream string) (b bucketed, err error) {
	b = bucketed{objects: found{}, errors: map[string]found{}}
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String(stream + "/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return b, err
		}
		for _, o := range page.Contents {
			into := b.objects
			rest := strings.TrimPrefix(*o.Key, stream+"/")
			failure, isFailure := strings.CutPrefix(rest, "failed/")
			if isFailure {
				kind, _, _ := strings.Cut(failure, "/")
				if b.errors[kind] == nil {
					b.errors[kind] = found{}
				}
				into = b.errors[kind]
			} else if !strings.HasPrefix(rest, "data/") {
				return b, fmt.Errorf("%s is neither data nor a failure", *o.Key)
			}
			if err := readObject(ctx, client, bucket, *o.Key, stream, isFailure, into); err != nil {
				return b, fmt.Errorf("%s: %w", *o.Key, err)
			}
		}
	}
	return b, nil
}

func readObject(ctx context.Context, client *s3.Client, bucket, key, stream string, failure bool, into found) error {
	out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return err
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(out.Body)
	if err != nil {
		return err
	}
	for l := range bytes.Lines(raw) {
		data := l
		if failure {
			var v struct{ RawData, ErrorCode, ErrorMessage string }
			if err := json.Unmarshal(l, &v); err != nil {
				return fmt.Errorf("failure %.200q: %w", l, err)
			}
			if v.ErrorCode == "" || v.ErrorMessage == "" {
				return fmt.Errorf("failure without a reason: %.200q", l)
			}
			if data, err = base64.StdEncoding.DecodeString(v.RawData); err != nil {
				return fmt.Errorf("failure %.200q: %w", l, err)
			}
		}
		n, err := numberOfLine(stream, data)
		if err != nil {
			return err
		}
		into[n]++
	}
	return nil
}

// once adds places together in which a record may be once and in one of them
// only, and reports those that are there more often.
func (d *deliveries) once(places ...found) (union found, err error) {
	union = found{}
	for _, p := range places {
		for n, times := range p {
			union[n] += times
		}
	}
	var problems []error
	for n, times := range union {
		if times > 1 {
			problems = append(problems, fmt.Errorf("%s: record %d is there %d times", d.stream, n, times))
		}
	}
	return union, shorten(problems)
}

// missing reports what was acknowledged and is not in union, and what is there
// and was never put.
func (d *deliveries) missing(union found) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var problems []error
	for n := range d.acked {
		if union[n] == 0 {
			problems = append(problems, fmt.Errorf("%s: record %d was accepted and is lost", d.stream, n))
		}
	}
	for n := range union {
		if n >= d.next {
			problems = append(problems, fmt.Errorf("%s: record %d was never put", d.stream, n))
		}
	}
	return shorten(problems)
}

func (d *deliveries) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.acked)
}

func shorten(problems []error) error {
	if n := len(problems); n > 10 {
		problems = append(problems[:10], fmt.Errorf("and %d more", n-10))
	}
	return errors.Join(problems...)
}
