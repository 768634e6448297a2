// Package testkit puts a real millrace inside a test: a server on a free loopback
// port, over memory or over a file system that the test holds, and clients that
// call it in every protocol.
//
// The one idea: nothing is simulated. What a test sees has gone through the
// listener, the pipeline, the service and the log, as it does for a user; only
// the disk may be one that the test can crash. Start reading at EachProtocol.
package testkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/vfs"
	"github.com/millrace/millrace/internal/wire/awsjson"
	"github.com/millrace/millrace/internal/wire/cbor"
	"github.com/millrace/millrace/internal/wire/eventstream"
)

// Main runs a package's tests and fails if they leave goroutines behind.
func Main(m *testing.M) { goleak.VerifyTestMain(m) }

// Region is where clients call unless told otherwise.
const Region = "us-east-1"

// Options say how a server is started. The zero value keeps everything in memory
// and lets everybody in.
type Options struct {
	// Files is the data directory, such as a vfs.Memory; nil keeps nothing.
	Files vfs.FS
	// Configure changes settings before the start.
	Configure func(*config.Config)
	// Now is the clock of the services.
	Now func() time.Time
	// Getenv reads the variables of traces; nil is an empty environment.
	Getenv func(string) string
}

// Server is a running server.
type Server struct {
	*server.Server
	log    *lockedBuffer
	stop   context.CancelFunc
	done   sync.WaitGroup
	err    error
	ended  sync.Once
	client []*Client
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("server log:\n%s", s.Log())
		}
	})
	return s
}

// Open runs a server until Stop; for tests about starting and stopping.
func Open(ctx context.Context, o Options) (*Server, error) {
	loaded, err := config.Load(nil, nil)
	if err != nil {
		return nil, err
	}
	c := &loaded.Config
	c.Listen, c.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	c.Ephemeral = o.Files == nil
	c.WALSegmentBytes, c.WALSegments = 32<<20, 3
	c.Region = Region
	if o.Configure != nil {
		o.Configure(c)
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	s := &Server{log: new(lockedBuffer)}
	s.Server, err = server.Open(ctx, server.Options{Config: loaded, Version: "test", Stdout: s.log, Stderr: s.log, Files: o.Files, Now: o.Now, Getenv: o.Getenv})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	running := make(chan struct{})
	s.done.Go(func() {
		defer close(running)
		s.err = s.Run(run)
	})
	for !s.Ready() {
		select {
		case <-running:
			return nil, fmt.Errorf("ended before it was ready: %w", s.err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}

// Stop drains and ends the server. It may be called twice.
func (s *Server) Stop() error {
	s.ended.Do(func() {
		for _, c := range s.client {
			c.transport.CloseIdleConnections()
		}
		s.stop()
		s.done.Wait()
	})
	return s.err
}

// Log is what the server has printed and logged.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.b.String()
}

// Form is a way to call: how the connection is made and how bodies are written.
type Form struct {
	Name string
	TLS  bool
	HTTP int // 1 or 2
	// ALPN offers the protocol in the handshake.
	ALPN bool
	CBOR bool
}

// Forms are all ways to call that clients use.
var Forms = []Form{
	{Name: "json/h1", HTTP: 1},
	{Name: "cbor/h1", HTTP: 1, CBOR: true},
	{Name: "json/h2c", HTTP: 2},
	{Name: "cbor/h2c", HTTP: 2, CBOR: true},
	{Name: "json/tls-h1", HTTP: 1, TLS: true, ALPN: true},
	{Name: "json/tls-h2", HTTP: 2, TLS: true, ALPN: true},
	{Name: "cbor/tls-h2-no-alpn", HTTP: 2, TLS: true, CBOR: true},
}

// EachProtocol runs f once for every form, each against a fresh server.
func EachProtocol(t *testing.T, f func(t *testing.T, c *Client)) {
	t.Helper()
	EachProtocolWith(t, Options{}, f)
}

// EachProtocolWith is EachProtocol with options.
func EachProtocolWith(t *testing.T, o Options, f func(t *testing.T, c *Client)) {
	t.Helper()
	for _, form := range Forms {
		t.Run(form.Name, func(t *testing.T) {
			s := Start(t, o)
			f(t, s.Client(form))
		})
	}
}

// Client calls a server in one form.
type Client struct {
	Form   Form
	Region string
	// Credentials sign the calls.
	Credentials sigv4.Credentials
	Server      *Server
	transport   interface {
		http.RoundTripper
		CloseIdleConnections()
	}
}

// Client makes a client with credentials that an open server takes.
func (s *Server) Client(f Form) *Client {
	c := &Client{Form: f, Region: Region, Credentials: sigv4.Credentials{AccessKey: "test", SecretKey: "test"}, Server: s}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Authority())
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if f.ALPN {
		config.NextProtos = []string{[]string{"", "http/1.1", "h2"}[f.HTTP]}
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if !f.TLS {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}
	if f.HTTP == 2 {
		c.transport = &http2.Transport{AllowHTTP: true, DisableCompression: true,
			DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
				return dial(ctx, network, address)
			}}
	} else {
		c.transport = &http.Transport{DialContext: dial, DialTLSContext: dial, DisableCompression: true}
	}
	s.client = append(s.client, c)
	return c
}

// Error is an error reply.
type Error struct {
	Code, Message, RequestID string
	Status                   int
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (status %d)", e.Code, e.Message, e.Status) }

// Code is the code of an error reply, empty for other errors and none.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Request makes a signed request of an operation, for tests that change it.
func (c *Client) Request(ctx context.Context, op *api.Operation, in api.Shape) (*http.Request, error) {
	var body []byte
	contentType := "application/x-amz-json-1.1"
	if c.Form.CBOR {
		body, contentType = cbor.Append(nil, in), "application/x-amz-cbor-1.1"
	} else {
		body = awsjson.Append(nil, in)
	}
	scheme := "http"
	if c.Form.TLS {
		scheme = "https"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+c.Server.Address()+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", op.Service.TargetPrefix+"."+op.Name)
	sigv4.Sign(r, body, c.Credentials, c.Region, op.Service.SigningName, time.Now())
	return r, nil
}

// Do sends a request as it is.
func (c *Client) Do(r *http.Request) (*http.Response, error) { return c.transport.RoundTrip(r) }

// Call makes a call and reads its reply into out, which may be nil. An error
// reply is an *Error.
func (c *Client) Call(ctx context.Context, op *api.Operation, in, out api.Shape) error {
	r, err := c.Request(ctx, op, in)
	if err != nil {
		return err
	}
	reply, err := c.Do(r)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return err
	}
	if reply.StatusCode != http.StatusOK {
		return readError(reply, body)
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	if got, want := reply.Header.Get("Content-Type"), r.Header.Get("Content-Type"); got != want {
		return fmt.Errorf("reply has content type %q, want %q", got, want)
	}
	if c.Form.CBOR {
		return cbor.Unmarshal(body, out)
	}
	return awsjson.Unmarshal(body, out)
}

// Subscription is an open event stream.
type Subscription struct {
	reply  *http.Response
	reader *eventstream.Reader
}

// Subscribe opens the event stream of an operation.
func (c *Client) Subscribe(ctx context.Context, op *api.Operation, in api.Shape) (*Subscription, error) {
	r, err := c.Request(ctx, op, in)
	if err != nil {
		return nil, err
	}
	reply, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusOK {
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			return nil, err
		}
		return nil, readError(reply, body)
	}
	s := &Subscription{reply, eventstream.NewReader(reply.Body)}
	first, err := s.reader.Next()
	if err == nil && first.Header(eventstream.HeaderEventType) != eventstream.InitialResponse {
		err = fmt.Errorf("the stream begins with %q", first.Header(eventstream.HeaderEventType))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Next reads an event into out. The error is io.EOF at the end, and an *Error for
// an exception.
func (s *Subscription) Next(out api.Shape) error {
	m, err := s.reader.Next()
	if err != nil {
		return err
	}
	if m.Header(eventstream.HeaderMessageType) != eventstream.TypeEvent {
		return readError(s.reply, m.Payload)
	}
	return awsjson.Unmarshal(m.Payload, out)
}

// Close leaves the stream.
func (s *Subscription) Close() { s.reply.Body.Close() }

// errorBody reads an error of either encoding.
type errorBody struct{ e *Error }

func (b errorBody) DecodeFrom(d api.Decoder) error {
	if d.BeginStruct() {
		for name, ok := d.NextMember(); ok; name, ok = d.NextMember() {
			switch string(name) {
			case "__type":
				b.e.Code, _ = d.String()
			case "message", "Message":
				b.e.Message, _ = d.String()
			default:
				d.Skip()
			}
		}
	}
	return d.Err()
}
func (errorBody) EncodeTo(api.Encoder)    {}
func (errorBody) Validate(*api.Validator) {}

func readError(reply *http.Response, body []byte) error {
	e := &Error{Status: reply.StatusCode, RequestID: reply.Header.Get("X-Amzn-Requestid")}
	read := awsjson.Unmarshal
	if reply.Header.Get("Content-Type") == "application/x-amz-cbor-1.1" {
		read = cbor.Unmarshal
	}
	if err := read(body, errorBody{e}); err != nil {
		return fmt.Errorf("status %d, body %.200q: %w", reply.StatusCode, body, err)
	}
	return e
}

// TempDir is a folder on the real disk, for tests that need one.
func TempDir(t testing.TB) vfs.FS {
	t.Helper()
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return vfs.OS(dir)
}
