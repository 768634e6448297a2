// Package channels delivers data streams to buckets as their channels ask.
//
// The one idea: a channel is a delivery without a delivery stream. Its source is
// the data stream from the channel's creation on, its buffer is bounded by the
// freshness it promises, and its destination writes objects; what delivery
// guarantees — checkpoints, retries for as long as the records are there, object
// names that overwrite themselves after a crash — it guarantees here too.
//
// Every JSON record becomes a line, or several, of newline-delimited JSON, every
// STRING record a line; the bytes of BYTE_ARRAY records stand back to back. What
// is not of its format goes to the dead-letter bucket. OutputKeyTemplate is read
// like the Prefix of a delivery stream: expressions such as
// !{timestamp:yyyy/MM/dd} are evaluated, and the object's own name follows.
//
// Channels to tables are refused, which their status says.
package channels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/encode"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

const (
	// bufferBytes is the size of records at which an object is written before
	// the channel's freshness asks for it.
	bufferBytes = 64 << 20
	// checkTime bounds looking for a bucket when a channel starts.
	checkTime = 15 * time.Second
)

// Options of a Runner.
type Options struct {
	// Engine delivers. It may still be on its way when the Runner is made, and
	// is asked for when a channel starts.
	Engine func() *delivery.Engine
	// Store returns where objects go, as a role sees it.
	Store func(role string) objects.Store
}

// Runner starts and stops the delivery of channels. It implements the
// ChannelRunner of data streams.
type Runner struct{ o Options }

// New makes a Runner.
func New(o Options) *Runner { return &Runner{o} }

// id is the channel's in the engine, short and never given twice.
func id(channelID string) string { return "channel-" + channelID }

// StartChannel begins delivery, or goes on with it. The error is the reason why
// the channel cannot deliver; what it delivered before waits until it can.
func (r *Runner) StartChannel(ctx context.Context, ch kinesis.ChannelDescription) error {
	engine := r.o.Engine()
	if engine == nil {
		return errors.New("Nothing is delivered on this server.")
	}
	d, err := r.definition(ctx, &ch)
	if err != nil {
		if pauseErr := engine.Pause(ctx, id(api.Val(ch.ChannelId))); pauseErr != nil && !errors.Is(pauseErr, delivery.ErrNotFound) {
			return errors.Join(err, pauseErr)
		}
		return err
	}
	if err := engine.Apply(ctx, d); err != nil {
		return fmt.Errorf("start channel: %w", err)
	}
	if err := engine.Resume(ctx, d.ID); err != nil {
		return fmt.Errorf("resume channel: %w", err)
	}
	return nil
}

// StopChannel ends delivery and returns when nothing is written any more. What
// has been read and not delivered is still in the data stream.
func (r *Runner) StopChannel(ctx context.Context, arn string) error {
	engine := r.o.Engine()
	if engine == nil {
		return nil
	}
	if err := engine.Remove(ctx, id(arn[strings.LastIndexByte(arn, '/')+1:]), false); err != nil && !errors.Is(err, delivery.ErrNotFound) {
		return fmt.Errorf("stop channel: %w", err)
	}
	return nil
}

// definition is a channel as a delivery.
func (r *Runner) definition(ctx context.Context, ch *kinesis.ChannelDescription) (*delivery.Definition, error) {
	if ch.S3DestinationConfiguration == nil || ch.S3DestinationConfiguration.StorageConfiguration == nil {
		return nil, errors.New("This server delivers channels to S3 buckets; it has no S3 Tables.")
	}
	if len(ch.StreamConfigurationList) != 1 {
		return nil, errors.New("The channel has no stream.")
	}
	source, destination := ch.StreamConfigurationList[0], ch.S3DestinationConfiguration
	storage, dead := destination.StorageConfiguration, destination.DeadLetterQueueS3Configuration
	region, account := place(api.Val(ch.ChannelARN))
	store := r.o.Store(api.Val(ch.ServiceExecutionRoleARN))
	if store == nil {
		return nil, errors.New("No object store is configured on this server, so nothing is delivered.")
	}
	prefix, err := naming.ParsePrefix(api.Val(storage.OutputKeyTemplate), naming.Options{})
	if err != nil {
		return nil, fmt.Errorf("OutputKeyTemplate: %w", err)
	}
	config := s3.Config{
		Store: placed{store, api.Val(storage.ExpectedBucketOwner), string(api.Val(storage.StorageClass))}, Bucket: bucketOf(api.Val(storage.BucketARN)), Prefix: prefix,
	}
	if config.Compression, err = compression(api.Val(storage.CompressionType)); err != nil {
		return nil, err
	}
	if e := ch.EncryptionConfiguration; e != nil {
		config.KMSKey = api.Val(e.KeyId)
	}
	format := kinesis.RecordFormatTypeByteArray
	if source.RecordConfiguration != nil {
		format = api.Val(source.RecordConfiguration.RecordFormatType)
	}
	if config.Converter, err = converter(format, config.Compression); err != nil {
		return nil, err
	}
	failures := config
	failures.Compression, failures.Converter = "", nil
	errorPrefix := ""
	if dead != nil {
		failures.Bucket = bucketOf(api.Val(dead.BucketARN))
		failures.Store = placed{store, api.Val(dead.ExpectedBucketOwner), ""}
		errorPrefix = api.Val(dead.ErrorOutputPrefix)
	}
	if failures.ErrorPrefix, err = naming.ParsePrefix(errorPrefix, naming.Options{Error: true}); err != nil {
		return nil, fmt.Errorf("ErrorOutputPrefix: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	for _, bucket := range []string{config.Bucket, failures.Bucket} {
		if err := store.HeadBucket(ctx, bucket); err != nil {
			return nil, fmt.Errorf("Bucket %s cannot be used: %w", bucket, err)
		}
	}
	d := &delivery.Definition{
		ID: id(api.Val(ch.ChannelId)), ARN: api.Val(ch.ChannelARN), Name: api.Val(ch.ChannelName), Account: account, Region: region, Version: 1,
		Source: delivery.Source{Stream: &delivery.StreamConfig{ARN: api.Val(source.StreamARN), From: api.Val(ch.ChannelCreationTimestamp)}},
		Main:   s3.New(config), Kind: delivery.KindS3, Converts: config.Converter != nil,
		Hints:  record.Hints{Bytes: bufferBytes, Interval: time.Duration(api.Val(destination.DataFreshnessInSeconds)) * time.Second},
		Retry:  dest.Retry{Duration: -1},
		Errors: s3.NewWriter(failures),
	}
	if l := ch.LoggingConfiguration; l != nil && l.CloudWatchLogs != nil && api.Val(l.CloudWatchLogs.Enabled) {
		d.Log = &delivery.LogTarget{Group: api.Val(l.CloudWatchLogs.LogGroupName), Stream: api.Val(l.CloudWatchLogs.LogStreamName)}
	}
	return d, nil
}

// place is where a channel is, by its ARN.
func place(arn string) (region, account string) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return "", ""
	}
	return parts[3], parts[4]
}

func bucketOf(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

func compression(t kinesis.S3CompressionType) (compress.Format, error) {
	switch t {
	case kinesis.S3CompressionTypeNone, "":
		return compress.None, nil
	case kinesis.S3CompressionTypeGzip:
		return compress.GZIP, nil
	case kinesis.S3CompressionTypeZstd:
		return compress.Zstd, nil
	}
	return "", fmt.Errorf("CompressionType %s is not one of this server's.", t)
}

// placed is a store whose objects have a class, in buckets that must be
// somebody's.
type placed struct {
	objects.Store
	owner, class string
}

func (p placed) Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o objects.PutOptions) (objects.Info, error) {
	o.BucketOwner, o.StorageClass = p.owner, p.class
	return p.Store.Put(ctx, bucket, key, body, size, o)
}

// converter checks and writes records of a format; nil writes them as they are.
func converter(format kinesis.RecordFormatType, pack compress.Format) (s3.Converter, error) {
	switch format {
	case kinesis.RecordFormatTypeByteArray:
		return nil, nil
	case kinesis.RecordFormatTypeString:
		return texts{pack}, nil
	case kinesis.RecordFormatTypeJson:
		return encode.New(encode.Config{Format: encode.NDJSON, Compression: string(pack)})
	}
	return nil, fmt.Errorf("RecordFormatType %s cannot be delivered to a bucket.", format)
}

// texts writes a line for every record that is text.
type texts struct{ pack compress.Format }

// Extension is what names of objects end with.
func (t texts) Extension() string { return ".txt" + compress.Extension(t.pack) }

// ContentEncoding is the header of that name.
func (t texts) ContentEncoding() string { return compress.ContentEncoding(t.pack) }

// Convert writes the records that are UTF-8, and tells the others.
func (t texts) Convert(ctx context.Context, b *record.Batch, to io.Writer) (rows int, failed []dest.Failure, err error) {
	w := compress.NewWriter(t.pack, to, b.ID+".txt")
	err = b.Each(func(i int, r *record.Record) error {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !utf8.Valid(r.Data) {
			failed = append(failed, dest.Failure{Index: i, Code: "DataFormatConversion.MalformedData", Message: "The record is not UTF-8."})
			return nil
		}
		rows++
		if _, err := w.Write(r.Data); err != nil || bytes.HasSuffix(r.Data, []byte("\n")) {
			return err
		}
		_, err := io.WriteString(w, "\n")
		return err
	})
	return rows, failed, errors.Join(err, w.Close())
}
