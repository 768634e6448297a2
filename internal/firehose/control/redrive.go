package control

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/deliverycontrol"
	firehoseapi "github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
)

const (
	// maxFailureObject bounds a failure object, and what comes out of it when it is
	// compressed, in bytes.
	maxFailureObject = 256 << 20
	// maxFailureLine bounds one line: a record of 1,000 KiB in base64, with room.
	maxFailureLine = 16 << 20
	// What was put back is remembered for so long, and for so many objects of a
	// delivery stream.
	redriveMemory  = 30 * 24 * time.Hour
	maxRemembered  = 10_000
	batchRecords   = 500
	batchBytes     = 4 << 20
	putAttempts    = 10
	defaultObjects = 100
	// defaultRedrives is how often the same record is put back at most.
	defaultRedrives = 3
)

// redriven is what is remembered of an object that was put back: when, and the
// beginnings of the digests of its records. The records tell when the same one
// comes round again in an object of another name.
type redriven struct {
	At      int64 // milliseconds since 1970
	Digests []uint64
}

var redrives = meta.Table[redriven]{Prefix: "delivery-redrive", Format: 1}

// RedriveRecords reads objects of the error output and puts their records back to
// the delivery stream, one page of objects a call.
//
// Two things keep a record that always fails from going round for ever: an object
// is put back once, unless Again is given, and a record at most MaxRedrives times,
// however many objects it has been in. And as a call looks only at objects that
// were written before it began (or before Until), it does not meet its own
// failures.
func (s *Service) RedriveRecords(ctx context.Context, call *api.Call, in *deliverycontrol.RedriveRecordsInput) (*deliverycontrol.RedriveRecordsOutput, error) {
	l, err := s.o.Streams.Locate(call, in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	if !l.Direct {
		return nil, &deliverycontrol.InvalidArgumentException{Message: "Records are put back as they are put; this delivery stream reads a source, to which what failed has to go."}
	}
	prefix := l.Errors.Prefix
	if in.Prefix != nil {
		if !strings.HasPrefix(*in.Prefix, prefix) {
			return nil, &deliverycontrol.InvalidArgumentException{Message: fmt.Sprintf("The error output of this delivery stream begins with %q; the prefix must too.", prefix)}
		}
		prefix = *in.Prefix
	}
	r := &redrive{s: s, call: call, l: l, in: in, until: s.o.Now(), max: defaultRedrives, counts: map[uint64]int{}, out: &deliverycontrol.RedriveRecordsOutput{Objects: []deliverycontrol.Redriven{}}}
	if in.Until != nil {
		r.until = *in.Until
	}
	if in.MaxRedrives != nil {
		r.max = int(*in.MaxRedrives)
	}
	limit := defaultObjects
	if in.MaxObjects != nil {
		limit = int(*in.MaxObjects)
	}
	after := ""
	if in.NextToken != nil {
		// All pages look at what was written before the first one.
		raw, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		until, key, found := strings.Cut(string(raw), "/")
		nanos, bad := strconv.ParseInt(until, 10, 64)
		if err != nil || !found || bad != nil {
			return nil, &deliverycontrol.InvalidArgumentException{Message: "The token is not one that this call gave."}
		}
		r.until, after = time.Unix(0, nanos), key
	}
	if err := r.recall(ctx); err != nil {
		return nil, err
	}
	for done := 0; ; {
		page, more, err := l.Errors.Store.List(ctx, l.Errors.Bucket, prefix, after, 1000)
		if err != nil {
			return nil, refusal(err)
		}
		for _, o := range page {
			if !r.wanted(o) {
				after = o.Key
				continue
			}
			if done == limit {
				r.finish(after)
				return r.out, nil
			}
			done++
			if err := r.object(ctx, o); err != nil {
				return nil, err
			}
			after = o.Key
		}
		if !more || len(page) == 0 {
			r.finish("")
			return r.out, nil
		}
	}
}

// refusal turns a store's refusal into the caller's.
func refusal(err error) error {
	var refused *objects.Error
	if errors.As(err, &refused) {
		return &deliverycontrol.InvalidArgumentException{Message: "The error output cannot be read: " + refused.Code + ": " + refused.Message}
	}
	return err
}

// redrive is one call.
type redrive struct {
	s      *Service
	call   *api.Call
	l      *firehose.Located
	in     *deliverycontrol.RedriveRecordsInput
	until  time.Time
	max    int
	done   map[string]bool // objects that were put back before
	counts map[uint64]int  // how often records were put back before
	out    *deliverycontrol.RedriveRecordsOutput

	records, skipped int
}

func (r *redrive) finish(after string) {
	r.out.Records, r.out.Skipped = number(r.records), number(r.skipped)
	if after != "" {
		r.out.NextToken = api.Ptr(base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%s", r.until.UnixNano(), after)))
	}
}

// recall reads what was put back before, and forgets what is too old or belongs
// to nobody.
func (r *redrive) recall(ctx context.Context) error {
	r.done = map[string]bool{}
	rows, err := redrives.List(r.s.o.Meta, "", 0)
	if err != nil {
		return err
	}
	oldest := r.s.o.Now().Add(-redriveMemory).UnixMilli()
	var ops []meta.Op
	mine := 0
	for _, row := range rows {
		parts, err := meta.SplitKey(row.Key)
		if err != nil || len(parts) != 3 {
			return fmt.Errorf("key %q: %w", row.Key, errors.Join(err, errors.New("not of an object that was put back")))
		}
		_, gone := r.s.o.Engine.Status(parts[1])
		if len(ops) < 1000 && (row.Value.At < oldest || errors.Is(gone, delivery.ErrNotFound) && parts[1] != r.l.ID) {
			ops = append(ops, redrives.Delete(row))
			continue
		}
		if parts[1] != r.l.ID {
			continue
		}
		if mine++; mine > maxRemembered {
			return &deliverycontrol.InvalidArgumentException{Message: fmt.Sprintf("%d objects of this delivery stream have been put back within 30 days; move them away first.", maxRemembered)}
		}
		r.done[parts[2]] = true
		for _, d := range row.Value.Digests {
			r.counts[d]++
		}
	}
	_, err = r.s.o.Meta.Commit(ctx, ops...)
	return err
}

// errorTypes are the types of error outputs. One of them is in the key of every
// failure object, however its prefix is written: rules for prefixes see to it.
var errorTypes = []string{
	"processing-failed", "format-conversion-failed", "decompression-failed", "activePartitionExceeded", "AmazonOpenSearchService-failed",
	"elasticsearch-failed", "splunk-failed", "http-endpoint-failed", "snowflake-failed", "iceberg-failed", "delivery-failed",
}

// wanted tells whether an object is a failure object of this delivery stream that
// the call asks for.
func (r *redrive) wanted(o objects.Info) bool {
	below := strings.TrimPrefix(o.Key, r.l.Errors.Prefix)
	switch {
	case !strings.HasPrefix(path.Base(o.Key), r.l.Name+"-"):
		return false
	case !slices.ContainsFunc(errorTypes, func(kind string) bool { return strings.Contains(below, kind) }):
		return false
	case r.in.ErrorOutputType != nil && !strings.Contains(o.Key, *r.in.ErrorOutputType):
		return false
	case !o.Modified.Before(r.until), r.in.Since != nil && o.Modified.Before(*r.in.Since):
		return false
	}
	return !r.done[o.Key] || api.Val(r.in.Again)
}

// object puts the records of one object back.
func (r *redrive) object(ctx context.Context, o objects.Info) error {
	result := deliverycontrol.Redriven{Name: api.Ptr("s3://" + r.l.Errors.Bucket + "/" + o.Key)}
	defer func() { r.out.Objects = append(r.out.Objects, result) }()
	records, reason, err := r.read(ctx, o)
	if err != nil {
		return refusal(err)
	}
	if reason != "" {
		result.Reason = &reason
		return nil
	}
	var digests []uint64
	var put [][]byte
	for _, data := range records {
		sum := sha256.Sum256(data)
		digest := binary.LittleEndian.Uint64(sum[:8])
		if r.counts[digest] >= r.max {
			continue
		}
		r.counts[digest]++
		digests = append(digests, digest)
		put = append(put, data)
	}
	result.Records, result.Skipped = number(len(put)), number(len(records)-len(put))
	r.records += len(put)
	r.skipped += len(records) - len(put)
	if api.Val(r.in.DryRun) {
		return nil
	}
	// Remembered first: a call that is cut off in the middle leaves records in the
	// error output, where they are seen, and never puts them back without an end.
	row := redriven{At: r.s.o.Now().UnixMilli(), Digests: digests}
	undo := meta.Op{Key: redrives.Key(r.l.ID, o.Key), Delete: true}
	if old, ok, err := redrives.Get(r.s.o.Meta, r.l.ID, o.Key); err == nil && ok {
		row.Digests = append(slices.Clone(old.Value.Digests), digests...)
		undo = redrives.Put(old.Value, r.l.ID, o.Key)
	}
	if _, err := r.s.o.Meta.Commit(ctx, redrives.Put(row, r.l.ID, o.Key)); err != nil {
		return err
	}
	taken, err := r.put(ctx, put)
	if err != nil && taken == 0 {
		// Nothing has gone back; the next call may try.
		_, undone := r.s.o.Meta.Commit(context.WithoutCancel(ctx), undo)
		return errors.Join(err, undone)
	}
	return err
}

// put puts records in batches, and those that are throttled again. It counts those
// that were taken.
func (r *redrive) put(ctx context.Context, records [][]byte) (taken int, err error) {
	for attempt := 0; len(records) > 0; {
		n, size := 0, 0
		in := &firehoseapi.PutRecordBatchInput{DeliveryStreamName: r.in.DeliveryStreamName}
		for n < len(records) && n < batchRecords && (n == 0 || size+len(records[n]) <= batchBytes) {
			in.Records = append(in.Records, firehoseapi.Record{Data: records[n]})
			size += len(records[n])
			n++
		}
		out, err := r.s.o.Streams.PutRecordBatch(ctx, r.call, in)
		var busy *firehoseapi.ServiceUnavailableException
		var again [][]byte
		switch {
		case errors.As(err, &busy):
			again = records[:n:n]
		case err != nil:
			return taken, err
		default:
			for i, answer := range out.RequestResponses {
				if answer.ErrorCode != nil {
					again = append(again, records[i])
				}
			}
		}
		taken += n - len(again)
		records = append(again, records[n:]...)
		if len(again) == 0 {
			attempt = 0
			continue
		}
		if attempt++; attempt == putAttempts {
			return taken, &deliverycontrol.ServiceUnavailableException{Message: fmt.Sprintf("The delivery stream takes no more records; %d of this object are left.", len(records))}
		}
		select {
		case <-time.After(100 * time.Millisecond << min(attempt, 5)):
		case <-ctx.Done():
			return taken, ctx.Err()
		}
	}
	return taken, nil
}

// read decodes an object of failures. reason says why it is none.
func (r *redrive) read(ctx context.Context, o objects.Info) (records [][]byte, reason string, err error) {
	if o.Size > maxFailureObject {
		return nil, fmt.Sprintf("it is larger than %d bytes", maxFailureObject), nil
	}
	body, _, err := r.l.Errors.Store.Get(ctx, r.l.Errors.Bucket, o.Key, objects.Range{})
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	plain, err := unpack(o.Key, body)
	if err != nil {
		return nil, err.Error(), nil
	}
	lines := bufio.NewReaderSize(io.LimitReader(plain, maxFailureObject), 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(lines)
		if len(bytes.TrimSpace(line)) > 0 {
			data, ok := decodeFailure(line)
			if !ok {
				return nil, fmt.Sprintf("line %d is not a failed record", n), nil
			}
			if len(data) > 1_024_000 {
				return nil, fmt.Sprintf("the record of line %d is larger than a put may be", n), nil
			}
			records = append(records, data)
		}
		if errors.Is(err, io.EOF) {
			return records, "", nil
		}
		if err != nil {
			return nil, "", fmt.Errorf("read %s: %w", o.Key, err)
		}
	}
}

var errLongLine = errors.New("a line is too long")

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxFailureLine {
			return nil, errLongLine
		}
	}
}

// decodeFailure finds the record in a line of an error output.
func decodeFailure(line []byte) (data []byte, ok bool) {
	var failure struct {
		RawData      *string `json:"rawData"`
		AttemptsMade *json.RawMessage
	}
	if json.Unmarshal(line, &failure) != nil || failure.RawData == nil || failure.AttemptsMade == nil {
		return nil, false
	}
	data, err := base64.StdEncoding.DecodeString(*failure.RawData)
	return data, err == nil
}

// unpack undoes the compression that an object's name tells.
func unpack(key string, body io.Reader) (io.Reader, error) {
	switch path.Ext(key) {
	case ".gz":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("it is not compressed as its name says: %w", err)
		}
		return z, nil
	case ".zip":
		raw, err := io.ReadAll(io.LimitReader(body, maxFailureObject))
		if err != nil {
			return nil, err
		}
		z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
		if err != nil || len(z.File) != 1 {
			return nil, errors.New("it is not an archive of one file")
		}
		return z.File[0].Open()
	case ".snappy", ".hsnappy", ".zst", ".lz4":
		return nil, errors.New("it is compressed as " + path.Ext(key)[1:] + ", which is not read back")
	}
	return body, nil
}
