package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/wire/cbor"
)

// net/http lingers half a second over a connection that it closes with bytes
// unread, and nothing can be asked to wait for that.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const (
	testKey    = "AKIAEXAMPLEEXAMPLE00"
	testSecret = "secret/secret/secret/secret/secret/secret"
	lameKey    = "AKIAEXAMPLEEXAMPLE01" // may do nothing but list
)

// world is a Mux with a handful of operations, served on a loopback port.
type world struct {
	mux     *Mux
	server  *Server
	address string
	log     *bytes.Buffer

	mu       sync.Mutex
	outcomes []Outcome
	streams  chan struct{} // closed when a subscription has begun
}

type worldOptions struct {
	keys    bool
	wire    Options
	server  ServerOptions
	limiter *quota.Limiter
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	w := &world{log: new(bytes.Buffer), streams: make(chan struct{}, 100)}
	directory, err := iam.Open(t.Context(), new(iam.MemoryStore), iam.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(directory.Close)
	seed, err := iam.ParseSeed(fmt.Appendf(nil, `
users:
  - name: all
    keys: [{id: %s, secret: %s}]
    policies: [{name: p, document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}}]
  - name: lame
    keys: [{id: %s, secret: %s}]
    policies: [{name: p, document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "kinesis:ListStreams", Resource: "*"}]}}]
`, testKey, testSecret, lameKey, testSecret), "000000000000")
	if err != nil {
		t.Fatal(err)
	}
	if err := directory.Apply(t.Context(), seed); err != nil {
		t.Fatal(err)
	}
	o.wire.Directory = directory
	if o.keys {
		o.wire.Verifier = sigv4.NewVerifier(directory, sigv4.Options{})
	}
	o.wire.Limiter = o.limiter
	o.wire.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: w.log}, nil))
	o.wire.Observe = func(out *Outcome) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.outcomes = append(w.outcomes, *out)
	}
	w.mux = NewMux(o.wire)
	w.mux.Register(kinesis.Service, authorizer{}, w.bindings())
	o.server.Handler = w.mux
	w.server = NewServer(o.server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := w.server.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		w.mux.Drain()
		w.server.Close()
		serving.Wait()
	})
	return w
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// authorizer knows one resource, the stream named in the input.
type authorizer struct{}

func (authorizer) ResourceARN(call *api.Call, in api.Shape) (string, string) {
	ref, kind := call.Operation.Resource(in)
	if kind == api.ResourceNone {
		return "*", call.Account
	}
	return "arn:aws:kinesis:" + call.Region + ":" + call.Account + ":stream/" + ref, call.Account
}
func (authorizer) ResourcePolicy(string) (string, bool)                     { return "", false }
func (authorizer) ConditionValues(*api.Call, api.Shape) map[string][]string { return nil }

// bindings are operations of the model with answers that say what arrived.
func (w *world) bindings() []api.Binding {
	return []api.Binding{
		{Operation: kinesis.OpListStreams, Handle: func(_ context.Context, c *api.Call, _ api.Shape) (api.Shape, error) {
			return &kinesis.ListStreamsOutput{StreamNames: []string{c.Account, c.Region}, HasMoreStreams: api.Ptr(c.Secure)}, nil
		}},
		{Operation: kinesis.OpCreateStream, Handle: func(_ context.Context, _ *api.Call, in api.Shape) (api.Shape, error) {
			return &kinesis.CreateStreamOutput{}, nil
		}},
		{Operation: kinesis.OpDescribeStream, Handle: func(_ context.Context, _ *api.Call, in api.Shape) (api.Shape, error) {
			switch name := api.Val(in.(*kinesis.DescribeStreamInput).StreamName); name {
			case "panic":
				panic("on purpose")
			case "broken":
				return nil, fmt.Errorf("read shard 7: %w", errors.New("disk on fire"))
			default:
				return nil, fmt.Errorf("look up: %w", &kinesis.ResourceNotFoundException{Message: "Stream <" + name + "> not found."})
			}
		}},
		{Operation: kinesis.OpPutRecords, Handle: func(_ context.Context, _ *api.Call, in api.Shape) (api.Shape, error) {
			out := &kinesis.PutRecordsOutput{FailedRecordCount: api.Ptr(int32(0))}
			for range in.(*kinesis.PutRecordsInput).Records {
				out.Records = append(out.Records, kinesis.PutRecordsResultEntry{SequenceNumber: api.Ptr("1"), ShardId: api.Ptr("shardId-000000000000")})
			}
			return out, nil
		}},
		{Operation: kinesis.OpSubscribeToShard, Handle: func(_ context.Context, _ *api.Call, in api.Shape) (api.Shape, error) {
			shard := api.Val(in.(*kinesis.SubscribeToShardInput).ShardId)
			if shard == "missing" {
				return nil, &kinesis.ResourceNotFoundException{Message: "no such shard"}
			}
			return &kinesis.SubscribeToShardOutput{Events: func(ctx context.Context, send func(*kinesis.SubscribeToShardEventStream) error) error {
				event := &kinesis.SubscribeToShardEventStream{SubscribeToShardEvent: &kinesis.SubscribeToShardEvent{
					ContinuationSequenceNumber: api.Ptr("1"), MillisBehindLatest: api.Ptr(int64(0)), Records: []kinesis.Record{},
				}}
				if err := send(event); err != nil {
					return err
				}
				w.streams <- struct{}{}
				switch shard {
				case "short":
					return nil
				case "fails":
					return &kinesis.ResourceNotFoundException{Message: "consumer went away"}
				case "breaks":
					return errors.New("disk on fire")
				case "flood":
					event.SubscribeToShardEvent.Records = []kinesis.Record{{Data: make([]byte, 256<<10), PartitionKey: api.Ptr("p"), SequenceNumber: api.Ptr("1")}}
					for {
						if err := send(event); err != nil {
							return err
						}
					}
				}
				<-ctx.Done()
				return ctx.Err()
			}}, nil
		}},
	}
}

const (
	typeJSON = "application/x-amz-json-1.1"
	typeCBOR = "application/x-amz-cbor-1.1"
)

// anyCredentials is authentication that is well formed and says nothing true.
const anyCredentials = "AWS4-HMAC-SHA256 Credential=local/20260101/eu-west-1/kinesis/aws4_request, SignedHeaders=host, Signature=0000000000000000000000000000000000000000000000000000000000000000"

func (w *world) request(t testing.TB, target, contentType string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.address+"/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	r.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	r.Header.Set("Authorization", anyCredentials)
	return r
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (w *world) do(t testing.TB, r *http.Request) answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	reply, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{reply.StatusCode, reply.Header, body}
}

// encode writes an input in the encoding of a content type.
func encode(t testing.TB, contentType string, v api.Shape) []byte {
	t.Helper()
	if contentType == typeCBOR {
		return cborCodec.append(nil, v)
	}
	return jsonCodec.append(nil, v)
}

// text renders an error reply of either encoding as JSON.
func text(t testing.TB, a answer) string {
	t.Helper()
	if a.header.Get("Content-Type") != typeCBOR {
		return string(a.body)
	}
	e := new(errorBody)
	if err := cbor.Unmarshal(a.body, e); err != nil {
		t.Fatalf("reply %x: %v", a.body, err)
	}
	out := map[string]string{"__type": e.kind}
	for k, v := range e.text {
		out[k] = v
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(out); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

type errorBody struct {
	kind string
	text map[string]string
}

func (e *errorBody) DecodeFrom(d api.Decoder) error {
	e.text = map[string]string{}
	if d.BeginStruct() {
		for name, ok := d.NextMember(); ok; name, ok = d.NextMember() {
			key := string(name)
			v, _ := d.String()
			if key == "__type" {
				e.kind = v
			} else {
				e.text[key] = v
			}
		}
	}
	return d.Err()
}
func (e *errorBody) EncodeTo(api.Encoder)    {}
func (e *errorBody) Validate(*api.Validator) {}
