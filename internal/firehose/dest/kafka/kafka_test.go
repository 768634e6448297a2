package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest/broker"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

var server *broker.Broker // nil where it is not installed

func TestMain(m *testing.M) {
	code := broker.Main(m, func(b *broker.Broker) { server = b })
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

var anywhere = outbound.Policy{AllowPrivate: true}

// contract runs the suite over a broker at addr. All connections, also those to
// addresses that the broker tells, go through a tunnel that can be spoilt.
func contract(t *testing.T, addr func(t *testing.T) string) {
	desttest.Run(t, desttest.Harness{
		Open: func(t *testing.T) *desttest.Peer {
			addr := addr(t)
			topic := broker.Topic(t, addr, 1)
			tunnel := desttest.NewTCP(t, addr)
			d, err := open(Config{Brokers: []string{addr}, Topic: topic, Timeout: 24 * time.Second}, Deps{}, func(ctx context.Context, network, _ string) (net.Conn, error) {
				return anywhere.DialContext(ctx, network, tunnel.Addr)
			})
			if err != nil {
				t.Fatal(err)
			}
			count := func() int { return len(broker.Records(t, addr, topic)) }
			return &desttest.Peer{
				Destination: d,
				Stored: func(t *testing.T) []desttest.Entry {
					var found []desttest.Entry
					for _, r := range broker.Records(t, addr, topic) {
						found = append(found, desttest.Parse(t, r.Value)...)
					}
					return found
				},
				Break:   tunnel.Break,
				Discard: func() func() int { return count },
			}
		},
		Refused:     func(n int) []byte { return fmt.Appendf(nil, "%d%s", n, strings.Repeat("x", defaultMessage)) },
		RefusedCode: "Kafka.MessageTooLarge",
		Codes:       []string{"Kafka."},
		Duplicates:  true,
		Faults:      desttest.TCPFaults,
		Patience:    3 * time.Second,
		LargeBytes:  16 << 20, Memory: 64 << 20,
	})
}

func TestContractOnARealBroker(t *testing.T) {
	if server == nil {
		t.Skip(broker.ErrMissing)
	}
	contract(t, func(*testing.T) string { return server.Addr })
}

// fake is a cluster in this process.
func fake(t *testing.T) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, c.ListenAddrs()[0]
}

func TestContractInProcess(t *testing.T) {
	contract(t, func(t *testing.T) string { _, addr := fake(t); return addr })
}

func connect(t *testing.T, c Config, d Deps) *Destination {
	t.Helper()
	d.Policy = anywhere
	k, err := New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func batch(partition string, keys ...string) *record.Batch {
	var records []record.Record
	for i, key := range keys {
		records = append(records, record.Record{
			Data: fmt.Appendf(nil, "%d", i), Lane: desttest.Lane("shardId-000000000003"), Arrival: desttest.Arrival + int64(i),
			Position: record.Position{Index: uint64(i / 2), Sub: uint32(i % 2)}, PartitionKey: []byte(key),
		})
	}
	b := record.Of(desttest.Stream, desttest.ID(1), records...)
	b.Partition = partition
	return b
}

func TestMessages(t *testing.T) {
	sequence := func(n int) string { return fmt.Sprintf("4%055d", n) }
	for _, c := range []struct {
		name   string
		config Config
		keys   []string
		want   []string // key=value and headers, sorted
	}{
		{"the source's key", Config{}, []string{"a", "b", ""}, []string{"a=0", "b=1", "=2"}},
		{"no key", Config{Key: KeyNone}, []string{"a", "b"}, []string{"=0", "=1"}},
		{"the number", Config{Key: KeySequence}, []string{"a", "b", "c"}, []string{sequence(0) + "=0", sequence(0) + ".1=1", sequence(1) + "=2"}},
		{"the partition", Config{Key: KeyPrefix}, []string{"a", "b"}, []string{"p/=0", "p/=1"}},
		{"headers", Config{Headers: map[string]string{"b": "2", "a": "1"}}, []string{"k"}, []string{"k=0 a:1 b:2"}},
		{"where it comes from", Config{Origin: true, Headers: map[string]string{"a": "1"}}, []string{"k"},
			[]string{"k=0 a:1 firehose-stream:" + desttest.Stream.ARN + " firehose-sequence:" + sequence(0) + " firehose-lane:shardId-000000000003"}},
		{"gzip", Config{Compression: "gzip"}, []string{"k"}, []string{"k=0"}},
		{"lz4", Config{Compression: "lz4"}, []string{"k"}, []string{"k=0"}},
		{"zstd", Config{Compression: "zstd"}, []string{"k"}, []string{"k=0"}},
		{"not compressed", Config{Compression: "none"}, []string{"k"}, []string{"k=0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, addr := fake(t)
			c.config.Brokers, c.config.Topic = []string{addr}, broker.Topic(t, addr, 3)
			k := connect(t, c.config, Deps{})
			result, err := k.Deliver(t.Context(), batch("p/", c.keys...))
			if err != nil || len(result.Failed) > 0 {
				t.Fatalf("%v, %v", err, result.Failed)
			}
			var got []string
			for _, r := range broker.Records(t, addr, c.config.Topic) {
				text := string(r.Key) + "=" + string(r.Value)
				for _, h := range r.Headers {
					text += " " + h.Key + ":" + string(h.Value)
				}
				if r.Timestamp.UnixMilli() < desttest.Arrival || r.Timestamp.UnixMilli() > desttest.Arrival+10 {
					t.Errorf("%s: the time is %v", text, r.Timestamp)
				}
				got = append(got, text)
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRecordsOfAKeyKeepTheirOrder(t *testing.T) {
	_, addr := fake(t)
	c := Config{Brokers: []string{addr}, Topic: broker.Topic(t, addr, 4)}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i%17)
	}
	if _, err := connect(t, c, Deps{}).Deliver(t.Context(), batch("", keys...)); err != nil {
		t.Fatal(err)
	}
	last, at := map[string]int{}, map[string]int32{}
	for _, r := range broker.Records(t, addr, c.Topic) {
		var n int
		_, _ = fmt.Sscan(string(r.Value), &n)
		key := string(r.Key)
		if p, seen := at[key]; seen && (p != r.Partition || n <= last[key]) {
			t.Fatalf("%s: %d in partition %d after %d in %d", key, n, r.Partition, last[key], p)
		}
		last[key], at[key] = n, r.Partition
	}
	if len(last) != 17 {
		t.Errorf("%d keys", len(last))
	}
}

func TestBrokersErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  int16
		times int
		want  string
	}{
		{"passes", 19, 2, "<nil>"}, // NOT_ENOUGH_REPLICAS is tried again by the client
		{"not allowed", 29, -1, "Kafka.AccessDenied"},
		{"too large for the topic", 10, -1, "Kafka.MessageTooLarge, for good"},
		{"invalid", 87, -1, "Kafka.InvalidRecord, for good"},
		{"an error of the protocol", 44, -1, "Kafka.POLICY_VIOLATION"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster, addr := fake(t)
			topic := broker.Topic(t, addr, 1)
			var n atomic.Int64
			cluster.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				if c.times >= 0 && int(n.Add(1)) > c.times {
					return nil, nil, false
				}
				in := q.(*kmsg.ProduceRequest)
				out := in.ResponseKind().(*kmsg.ProduceResponse)
				for _, it := range in.Topics {
					ot := kmsg.NewProduceResponseTopic()
					ot.Topic, ot.TopicID = it.Topic, it.TopicID
					for _, ip := range it.Partitions {
						op := kmsg.NewProduceResponseTopicPartition()
						op.Partition, op.ErrorCode = ip.Partition, c.code
						ot.Partitions = append(ot.Partitions, op)
					}
					out.Topics = append(out.Topics, ot)
				}
				return out, nil, true
			})
			k := connect(t, Config{Brokers: []string{addr}, Topic: topic, Timeout: 20 * time.Second}, Deps{})
			result, err := k.Deliver(t.Context(), batch("", "a"))
			got := fmt.Sprint(err)
			var e *dest.Error
			switch {
			case errors.As(err, &e):
				got = e.Code
			case len(result.Failed) == 1:
				got = result.Failed[0].Code
				if !result.Failed[0].Retry {
					got += ", for good"
				}
			}
			if got != c.want {
				t.Errorf("got %s, %+v; want %s", got, result, c.want)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	_, addr := fake(t)
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"no broker", Config{Brokers: []string{"127.0.0.1:1"}, Topic: "t"}, "Kafka."},
		{"no topic", Config{Brokers: []string{addr}, Topic: "missing"}, "Kafka.UnknownTopic"},
		{"not allowed", Config{Brokers: []string{"169.254.169.254:9092"}, Topic: "t"}, "Kafka."},
		{"no TLS there", Config{Brokers: []string{addr}, Topic: "t", UseTLS: true}, "Kafka."},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Timeout = 2 * time.Second
			_, err := connect(t, c.config, Deps{}).Deliver(t.Context(), batch("", "a", "b"))
			var e *dest.Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Code, c.want) || e.Permanent {
				t.Errorf("got %v", err)
			}
		})
	}
}

type secrets map[string]string

func (s secrets) Resolve(context.Context, string) (map[string]string, error) { return s, nil }

func TestLogin(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "admin", "right"), kfake.Superuser("PLAIN", "admin", "right"),
		kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, l := range []struct {
		config Config
		secret secrets
		want   string
	}{
		{Config{SASL: "plain", Username: "admin", Password: "right"}, nil, ""},
		{Config{SASL: "scram-sha-256", Username: "admin", Password: "right"}, nil, ""},
		{Config{SASL: "scram-sha-256", Secret: "arn:x"}, secrets{"username": "admin", "password": "right"}, ""},
		{Config{SASL: "scram-sha-256", Username: "admin", Password: "wrong"}, nil, "Kafka."},
	} {
		l.config.Brokers, l.config.Topic, l.config.Timeout = c.ListenAddrs(), "t", 2*time.Second
		_, err := connect(t, l.config, Deps{Secrets: l.secret}).Deliver(t.Context(), batch("", "a"))
		var e *dest.Error
		if (l.want == "") != (err == nil) || (err != nil && (!errors.As(err, &e) || !strings.HasPrefix(e.Code, l.want) || strings.Contains(e.Message, "wrong"))) {
			t.Errorf("%+v: %v", l.config, err)
		}
	}
}

func TestBadConfigurations(t *testing.T) {
	for want, c := range map[string]Config{
		"no brokers":  {Topic: "t"},
		"no topic":    {Brokers: []string{"a:1"}},
		"is no key":   {Brokers: []string{"a:1"}, Topic: "t", Key: "x"},
		"compression": {Brokers: []string{"a:1"}, Topic: "t", Compression: "x"},
		"mechanism":   {Brokers: []string{"a:1"}, Topic: "t", SASL: "x"},
		"no such":     {Brokers: []string{"a:1"}, Topic: "t", UseTLS: true, TLS: outbound.TLS{CAFile: "missing"}},
	} {
		if _, err := New(c, Deps{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// The settings of an operator's file.
func TestSettings(t *testing.T) {
	var c Config
	err := yaml.UnmarshalWithOptions([]byte(`
brokers: [a:9092, b:9092]
topic: t
key: sequence
headers: {a: "1"}
origin_headers: true
compression: zstd
use_tls: true
tls: {ca_file: ca.pem}
sasl: plain
username: u
password: p
secret: arn:s
timeout: 10s
max_message_bytes: 1000
`), &c, yaml.Strict())
	want := Config{
		Brokers: []string{"a:9092", "b:9092"}, Topic: "t", Key: KeySequence, Headers: map[string]string{"a": "1"}, Origin: true, Compression: "zstd",
		UseTLS: true, TLS: outbound.TLS{CAFile: "ca.pem"}, SASL: "plain", Username: "u", Password: "p", Secret: "arn:s",
		Timeout: 10 * time.Second, MaxMessageBytes: 1000,
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
}
