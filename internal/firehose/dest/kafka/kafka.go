// Package kafka delivers records to a topic of a Kafka cluster: a destination
// that the service does not have.
//
// The one idea: a record becomes a message, acknowledged by all in-sync replicas.
// The producer is idempotent, so what it repeats by itself is stored once and in
// order; what delivery repeats after a failed attempt may be stored twice. Memory
// is bounded by what is on its way, not by the batch.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

// Config is one topic.
type Config struct {
	Brokers []string `yaml:"brokers"` // host:port
	Topic   string   `yaml:"topic"`
	Key     Key      `yaml:"key"`
	// Headers are put on every message. Origin adds where a record comes from:
	// firehose-stream, firehose-lane, firehose-sequence.
	Headers map[string]string `yaml:"headers"`
	Origin  bool              `yaml:"origin_headers"`
	// Compression is none, gzip, snappy, lz4 or zstd; empty is snappy.
	Compression string `yaml:"compression"`

	// UseTLS speaks TLS with the brokers; TLS says how.
	UseTLS bool         `yaml:"use_tls"`
	TLS    outbound.TLS `yaml:"tls"`
	// SASL is plain, scram-sha-256 or scram-sha-512; empty is none. Where Secret
	// is set, its username and password are used.
	SASL     string `yaml:"sasl"`
	Username string `yaml:"username"`
	Password string `yaml:"password"`
	Secret   string `yaml:"secret"` // ARN

	// Timeout bounds an attempt; 0 is a minute.
	Timeout time.Duration `yaml:"timeout"`
	// MaxMessageBytes is the largest message, before compression; 0 is 1,000,000,
	// what brokers take if they are not told otherwise.
	MaxMessageBytes int `yaml:"max_message_bytes"`
}

// Key is what messages are keyed by, and so sorted into partitions.
type Key string

// The keys. Messages without one spread over the partitions in groups.
const (
	KeySource   Key = "partition_key" // of the source; none for direct puts. The default.
	KeyNone     Key = "none"
	KeySequence Key = "sequence" // the record's number
	KeyPrefix   Key = "partition"
)

// Secrets resolves the ARN of a secret.
type Secrets interface {
	Resolve(ctx context.Context, arn string) (map[string]string, error)
}

// Deps is what a destination stands on.
type Deps struct {
	Policy  outbound.Policy
	Secrets Secrets // may be nil if Config names no secret
}

const (
	defaultTimeout = time.Minute
	defaultMessage = 1_000_000
	maxBuffered    = 4 << 20 // bytes on their way
)

// Destination is a dest.Destination.
type Destination struct {
	config  Config
	timeout time.Duration
	client  *kgo.Client
	headers []kgo.RecordHeader
}

// New makes a destination. It fails for settings that cannot work and files that
// cannot be read; it does not connect.
func New(c Config, d Deps) (*Destination, error) { return open(c, d, d.Policy.DialContext) }

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func open(c Config, d Deps, dial dialer) (*Destination, error) {
	switch {
	case len(c.Brokers) == 0:
		return nil, errors.New("Kafka: no brokers are named")
	case c.Topic == "":
		return nil, errors.New("Kafka: no topic is named")
	}
	switch c.Key {
	case "":
		c.Key = KeySource
	case KeySource, KeyNone, KeySequence, KeyPrefix:
	default:
		return nil, fmt.Errorf("Kafka: %q is no key", c.Key)
	}
	if c.MaxMessageBytes <= 0 {
		c.MaxMessageBytes = defaultMessage
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	if c.UseTLS {
		config, err := c.TLS.Config()
		if err != nil {
			return nil, fmt.Errorf("Kafka: %w", err)
		}
		dial = secure(dial, config)
	}
	reply := min(max(timeout/6, time.Second), 10*time.Second)
	options := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID("millrace"), kgo.DefaultProduceTopic(c.Topic),
		kgo.Dialer(dial), kgo.RequiredAcks(kgo.AllISRAcks()),
		// A caller that gives up gets its turn back; what was on its way then may be
		// stored, and is sent again.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.MaxBufferedBytes(maxBuffered), kgo.MaxBufferedRecords(1 << 20),
		kgo.ProducerBatchMaxBytes(int32(min(c.MaxMessageBytes+1024, 64<<20))),
		kgo.ProducerLinger(0), kgo.RetryTimeout(timeout), kgo.UnknownTopicRetries(2),
		// A broker that fell silent is given up in time for another try, and what
		// failed is looked at again soon: delivery has back-offs of its own.
		kgo.ProduceRequestTimeout(reply), kgo.RequestTimeoutOverhead(reply), kgo.DialTimeout(reply),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(100*time.Millisecond<<min(n, 5), 2*time.Second) }),
	}
	codec, err := compression(c.Compression)
	if err != nil {
		return nil, err
	}
	options = append(options, kgo.ProducerBatchCompression(codec))
	if c.SASL != "" {
		mechanism, err := mechanism(c, d.Secrets)
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.SASL(mechanism))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("Kafka: %w", err)
	}
	k := &Destination{config: c, timeout: timeout, client: client}
	for _, name := range sortedKeys(c.Headers) {
		k.headers = append(k.headers, kgo.RecordHeader{Key: name, Value: []byte(c.Headers[name])})
	}
	return k, nil
}

func sortedKeys(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// secure puts TLS on what dial connects.
func secure(dial dialer, config *tls.Config) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		own := config.Clone()
		if own.ServerName == "" {
			own.ServerName, _, _ = net.SplitHostPort(address)
		}
		t := tls.Client(c, own)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = c.Close()
			return nil, err
		}
		return t, nil
	}
}

func compression(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "", "snappy":
		return kgo.SnappyCompression(), nil
	case "none":
		return kgo.NoCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.CompressionCodec{}, fmt.Errorf("Kafka: compression %q is none of none, gzip, snappy, lz4, zstd", name)
}

// mechanism asks for the credentials at every login, so that a secret can change.
func mechanism(c Config, secrets Secrets) (sasl.Mechanism, error) {
	credentials := func(ctx context.Context) (string, string, error) {
		if c.Secret == "" {
			return c.Username, c.Password, nil
		}
		if secrets == nil {
			return "", "", errors.New("there are no secrets")
		}
		values, err := secrets.Resolve(ctx, c.Secret)
		return values["username"], values["password"], err
	}
	login := func(ctx context.Context) (scram.Auth, error) {
		user, password, err := credentials(ctx)
		return scram.Auth{User: user, Pass: password}, err
	}
	switch c.SASL {
	case "plain":
		return plain.Plain(func(ctx context.Context) (plain.Auth, error) {
			user, password, err := credentials(ctx)
			return plain.Auth{User: user, Pass: password}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(login), nil
	case "scram-sha-512":
		return scram.Sha512(login), nil
	}
	return nil, fmt.Errorf("Kafka: SASL mechanism %q is none of plain, scram-sha-256, scram-sha-512", c.SASL)
}

// Close implements dest.Destination.
func (k *Destination) Close() error {
	k.client.Close()
	return nil
}

// Deliver implements dest.Destination.
func (k *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	limited, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	d := delivery{failed: map[int]error{}}
	var slab []byte
	keep := func(data []byte) []byte {
		// Few large pieces instead of many small ones; the client holds on to them
		// until the records are acknowledged.
		if cap(slab)-len(slab) < len(data) {
			slab = make([]byte, 0, max(256<<10, len(data)))
		}
		at := len(slab)
		slab = append(slab, data...)
		return slab[at:len(slab):len(slab)]
	}
	err := b.Each(func(i int, r *record.Record) error {
		if err := limited.Err(); err != nil {
			return errStop
		}
		if d.broken() {
			// Records behind a failed one would be stored out of order, and have to be
			// sent again anyhow.
			return errStop
		}
		m := &kgo.Record{Headers: k.headers}
		if len(r.Data) > 0 {
			m.Value = keep(r.Data)
		} else {
			m.Value = []byte{} // nil would be a tombstone
		}
		sequence := ""
		if (k.config.Origin || k.config.Key == KeySequence) && r.Lane != nil {
			sequence = r.Lane.SequenceNumber(r.Index, r.Arrival)
			if r.Sub > 0 {
				sequence += "." + strconv.FormatUint(uint64(r.Sub), 10)
			}
		}
		switch k.config.Key {
		case KeySource:
			if len(r.PartitionKey) > 0 {
				m.Key = keep(r.PartitionKey)
			}
		case KeySequence:
			m.Key = keep([]byte(sequence))
		case KeyPrefix:
			if b.Partition != "" {
				m.Key = keep([]byte(b.Partition))
			}
		}
		if k.config.Origin {
			m.Headers = append(slices.Clip(m.Headers), kgo.RecordHeader{Key: "firehose-stream", Value: []byte(b.Stream.ARN)},
				kgo.RecordHeader{Key: "firehose-sequence", Value: []byte(sequence)})
			if r.Lane != nil {
				m.Headers = append(m.Headers, kgo.RecordHeader{Key: "firehose-lane", Value: []byte(r.Lane.Name())})
			}
		}
		m.Timestamp = time.UnixMilli(r.Arrival)
		d.sent = i + 1
		if len(m.Value)+len(m.Key) > k.config.MaxMessageBytes {
			d.fail(i, kerr.MessageTooLarge)
			return nil
		}
		size := int64(len(m.Value) + len(m.Key))
		d.group.Add(1)
		k.client.Produce(limited, m, func(_ *kgo.Record, err error) {
			defer d.group.Done()
			if err != nil {
				d.fail(i, err)
				return
			}
			d.stored(size)
		})
		return nil
	})
	d.group.Wait()
	switch {
	case ctx.Err() != nil:
		return dest.Result{}, fmt.Errorf("deliver to topic %s: %w", k.config.Topic, context.Cause(ctx))
	case err != nil && !errors.Is(err, errStop):
		return dest.Result{}, fmt.Errorf("read the batch: %w", err)
	}
	return k.conclude(b, &d)
}

var errStop = errors.New("nothing more is sent")

// delivery is what becomes of one batch.
type delivery struct {
	group sync.WaitGroup
	sent  int // records handed over; those behind were not tried

	mu      sync.Mutex
	failed  map[int]error
	fatal   bool // a record failed that may be accepted later
	records int
	bytes   int64
}

func (d *delivery) fail(i int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed[i] = err
	if e := failure(err); !e.Permanent || !single(err) {
		d.fatal = true
	}
}

func (d *delivery) stored(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records, d.bytes = d.records+1, d.bytes+size
}

func (d *delivery) broken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fatal
}

func (k *Destination) conclude(b *record.Batch, d *delivery) (dest.Result, error) {
	var r dest.Result
	var first *dest.Error // of what was not the record's own fault
	refused := 0
	for i := range d.sent {
		err, bad := d.failed[i]
		if !bad {
			continue
		}
		e := failure(err)
		if single(err) {
			refused++
		} else if first == nil {
			first = e
		}
		r.Failed = append(r.Failed, dest.Failure{Index: i, Code: e.Code, Message: e.Message, Retry: !e.Permanent})
	}
	if first == nil && d.sent < b.Count {
		first = &dest.Error{Code: "Kafka.RequestTimeout", Message: fmt.Sprintf("The records were not acknowledged within %v.", k.timeout)}
	}
	if first != nil && d.records == 0 && refused == 0 {
		return dest.Result{}, first
	}
	for i := d.sent; i < b.Count; i++ {
		r.Failed = append(r.Failed, dest.Failure{Index: i, Code: first.Code, Message: first.Message, Retry: !first.Permanent})
	}
	if d.records > 0 {
		r.Objects = []dest.Object{{Name: "kafka:" + k.config.Topic, Records: d.records, Bytes: d.bytes}}
	}
	return r, nil
}

// single tells errors that lie in one record.
func single(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord)
}

// failure gives an error of the client its code. Brokers' errors keep the names
// of the protocol: Kafka.NOT_ENOUGH_REPLICAS.
func failure(err error) *dest.Error {
	e := &dest.Error{Code: "Kafka.ConnectionFailed", Message: outbound.Plain(err), Err: err}
	var of *kerr.Error
	var refused *outbound.RefusedError
	switch {
	case errors.Is(err, kerr.MessageTooLarge):
		e.Code, e.Permanent = "Kafka.MessageTooLarge", true
		e.Message = "The record is larger than a message of the topic may be."
	case errors.Is(err, kerr.InvalidRecord):
		e.Code, e.Permanent = "Kafka.InvalidRecord", true
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		e.Code, e.Message = "Kafka.UnknownTopic", "The topic does not exist."
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.SaslAuthenticationFailed):
		e.Code = "Kafka.AccessDenied"
	case errors.As(err, &of):
		e.Code = "Kafka." + of.Message
	case errors.As(err, &refused):
		e.Code, e.Message = "Kafka.ConnectionFailed", "This server is not allowed to connect to a broker: "+refused.Error()
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Message = "Kafka.RequestTimeout", "The records were not acknowledged in time: "+e.Message
	case strings.Contains(e.Message, "tls:"), strings.Contains(e.Message, "x509:"):
		e.Code = "Kafka.SslFailure"
	}
	return e
}
