// Package httpendpoint delivers batches to HTTP endpoints, by the contract that
// the receivers of the service's deliveries keep.
//
// The one idea: a request and its answer are checked as strictly as receivers
// and the service check them, so that what works here works there. A batch is
// one request, or several where it exceeds 10,000 records or 64 MiB; they go out
// in order, and the first that fails ends the attempt. A request has the same id
// in every attempt, so that a receiver can tell a repetition.
//
//	POST <the URL as configured>
//	X-Amz-Firehose-Protocol-Version: 1.0
//	X-Amz-Firehose-Request-Id, -Source-Arn, -Access-Key, -Common-Attributes
//	{"requestId":"…","timestamp":…,"records":[{"data":"<base64>"},…]}
//
//	200, application/json, Content-Length
//	{"requestId":"…","timestamp":…}
//
// A request that is answered with 413 is cut in halves, down to one record,
// which is then refused for good.
//
// request.go makes requests, response.go judges answers, presets.go knows what
// partners want.
package httpendpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/payload"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

// Config is one endpoint.
type Config struct {
	URL  string `yaml:"url"`
	Name string `yaml:"name"`
	// AccessKey travels in a header; empty sends none. Where Secret is set, its
	// api_key is sent instead.
	AccessKey  string      `yaml:"access_key"`
	Secret     string      `yaml:"secret"` // ARN
	GZIP       bool        `yaml:"gzip"`
	Attributes []Attribute `yaml:"attributes"`

	// What follows is beyond the service's API.

	TLS outbound.TLS `yaml:"tls"`
	// Timeout of one request; 0 is the service's 3 minutes.
	Timeout time.Duration `yaml:"timeout"`
	// Headers are sent in addition.
	Headers map[string]string `yaml:"headers"`
	// Strict413 drops what is answered with 413, as the service does.
	Strict413 bool `yaml:"aws_strict_413"`
	// StringTimestamps takes answers whose timestamp is a string of digits.
	StringTimestamps bool `yaml:"string_timestamps"`
}

// Attribute is one of the common attributes.
type Attribute struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// Secrets resolves the ARN of a secret.
type Secrets interface {
	Resolve(ctx context.Context, arn string) (map[string]string, error)
}

// Deps is what a destination stands on.
type Deps struct {
	Policy  outbound.Policy
	Secrets Secrets // may be nil if no Config names a secret
	// Current, if set, gives the configuration in force, which is asked before
	// every attempt, so that a corrected URL or key helps what is being retried.
	// TLS and Timeout are those of New all the same.
	Current func() Config
}

// Limits of a request.
const (
	maxRecords     = 10_000
	maxBody        = 64 << 20
	maxBodyGZIP    = 32 << 20 // before compression: the result is held in memory
	maxRecordBytes = 1_024_000
	defaultTimeout = 3 * time.Minute
)

// Destination is a dest.Destination.
type Destination struct {
	config  Config
	deps    Deps
	client  *http.Client
	timeout time.Duration
}

// New makes a destination. It fails for files that cannot be read; a URL that
// cannot be asked for fails every delivery until it is corrected.
func New(c Config, d Deps) (*Destination, error) {
	client, err := outbound.Client(outbound.Options{Policy: d.Policy, TLS: c.TLS, MaxHeaderBytes: maxAnswer})
	if err != nil {
		return nil, fmt.Errorf("HTTP endpoint: %w", err)
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return &Destination{config: c, deps: d, client: client, timeout: timeout}, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.client.CloseIdleConnections()
	return nil
}

// FailureFields implements dest.Annotator.
func (d *Destination) FailureFields(r *record.Record) []dest.Field {
	sub := strconv.FormatUint(uint64(r.Sub), 10)
	sequence := ""
	if r.Lane != nil {
		sequence = r.Lane.SequenceNumber(r.Index, r.Arrival)
	}
	return []dest.Field{{Name: "subsequenceNumber", Value: int64(r.Sub)}, {Name: "dataId", Value: sequence + "." + sub}}
}

// Deliver implements dest.Destination.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	a := attempt{Destination: d, ctx: ctx, batch: b, config: d.config}
	if d.deps.Current != nil {
		a.config = d.deps.Current()
	}
	if err := a.prepare(); err != nil {
		return dest.Result{}, err
	}
	limits := payload.Limits{Records: maxRecords, Bytes: maxBody - frameBytes}
	if a.config.GZIP {
		limits.Bytes = maxBodyGZIP - frameBytes
	}
	parts, refused, err := payload.Plan(b, 0, b.Count, form{}, limits)
	if err != nil {
		return dest.Result{}, fmt.Errorf("read the batch: %w", err)
	}
	for _, i := range refused {
		a.fail(i, i+1, &dest.Error{
			Code: "HttpEndpoint.DestinationException", Permanent: true,
			Message: fmt.Sprintf("The record is larger than the %d bytes that a request to an HTTP endpoint may carry.", maxRecordBytes),
		})
	}
	a.source = payload.NewSource(b, form{})
	defer a.source.Close()
	for _, p := range parts {
		if err := a.send(p); err != nil {
			return a.result, err
		}
	}
	// An attempt of which nothing came through has failed as a whole; otherwise
	// what failed is tried again alone.
	if a.stopped != nil && len(a.result.Objects) == 0 && !a.refused {
		return a.result, a.stopped
	}
	a.result.Failed = a.sorted()
	return a.result, nil
}

// attempt is one Deliver under way.
type attempt struct {
	*Destination
	ctx      context.Context
	config   Config
	batch    *record.Batch
	target   *url.URL
	key      string
	header   http.Header
	source   *payload.Source
	result   dest.Result
	failures []dest.Failure
	refused  bool        // some of them are for good
	stopped  *dest.Error // the first request that failed; nothing is sent after it
}

func (a *attempt) fail(from, to int, e *dest.Error) {
	a.refused = a.refused || e.Permanent
	for i := from; i < to; i++ {
		a.failures = append(a.failures, dest.Failure{Index: i, Code: e.Code, Message: e.Message, Retry: !e.Permanent})
	}
}

// sorted are the failures in the order of their records.
func (a *attempt) sorted() []dest.Failure {
	slices.SortFunc(a.failures, func(f, g dest.Failure) int { return f.Index - g.Index })
	return a.failures
}

// prepare looks up what is the same for all requests of the attempt.
func (a *attempt) prepare() error {
	c := a.config
	target, err := url.Parse(c.URL)
	if err != nil || target.Host == "" || (target.Scheme != "https" && target.Scheme != "http") {
		return &dest.Error{
			Code:    "HttpEndpoint.MakeRequestFailure.IllegalUriException",
			Message: "The URL of the endpoint is not one that a request can be made of.",
		}
	}
	a.target, a.key = target, c.AccessKey
	if c.Secret != "" {
		if a.key, err = a.secret(c.Secret); err != nil {
			return err
		}
	}
	a.header = header(a.batch.Stream.ARN, a.key, c)
	return nil
}

func (a *attempt) secret(arn string) (string, error) {
	failed := func(err error) error {
		return &dest.Error{Code: "HttpEndpoint.DestinationException", Message: "The access key could not be read: " + err.Error(), Err: err}
	}
	if a.deps.Secrets == nil {
		return "", failed(errors.New("there are no secrets"))
	}
	values, err := a.deps.Secrets.Resolve(a.ctx, arn)
	if err != nil {
		return "", failed(err)
	}
	key, ok := values["api_key"]
	if !ok {
		return "", failed(fmt.Errorf("%s has no api_key", arn))
	}
	return key, nil
}

// send makes the request of one part, or the requests of its halves. Records
// that fail end among the failures; an error is one of this server.
func (a *attempt) send(p payload.Part) error {
	if a.stopped != nil {
		a.fail(p.From, p.To, a.stopped)
		return nil
	}
	err := a.post(p)
	var (
		large *tooLargeError
		e     *dest.Error
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		a.stopped = e
		a.fail(p.From, p.To, e)
		return nil
	case !errors.As(err, &large):
		return err
	case a.config.Strict413:
		a.result.Objects = append(a.result.Objects, dest.Object{Name: a.name(requestID(a.batch, p)) + " dropped for 413", Records: p.Records()})
		return nil
	case p.Records() == 1:
		a.fail(p.From, p.To, &dest.Error{Code: "HttpEndpoint.DestinationException", Message: large.message, Permanent: true})
		return nil
	}
	halves, err := payload.Halve(a.batch, p, form{})
	if err != nil {
		return fmt.Errorf("read the batch: %w", err)
	}
	for _, half := range halves {
		if err := a.send(half); err != nil {
			return err
		}
	}
	return nil
}

// post makes one request and judges the answer.
func (a *attempt) post(p payload.Part) error {
	id := requestID(a.batch, p)
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	// What is waited for begins when the request has gone out.
	var sent atomic.Int64
	start := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { sent.Store(int64(time.Since(start))) },
	})
	defer func() {
		if at := sent.Load(); at > 0 {
			a.result.Waited += max(0, time.Since(start)-time.Duration(at))
		}
	}()

	body, err := a.body(id, p)
	if err != nil {
		return fmt.Errorf("read the batch: %w", err)
	}
	defer body.free()
	request := (&http.Request{
		Method: http.MethodPost, URL: a.target, Host: a.target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header.Clone(), ContentLength: body.length, Body: body.open(),
		GetBody: func() (io.ReadCloser, error) { return body.open(), nil },
	}).WithContext(ctx)
	request.Header["X-Amz-Firehose-Request-Id"] = []string{id}
	request.Header["X-Amzn-Trace-Id"] = []string{traceID(id, start)}
	response, err := a.client.Do(request)
	if err != nil {
		if cause := a.source.Err(); cause != nil {
			return fmt.Errorf("read the batch: %w", cause)
		}
		return a.broken(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := a.judge(response, id); err != nil {
		return err
	}
	a.result.Objects = append(a.result.Objects, dest.Object{Name: a.name(id), Records: p.Records(), Bytes: body.length})
	return nil
}

// name is how the ledger calls a request. The path of the URL stays out of it:
// receivers put tokens there.
func (a *attempt) name(id string) string {
	return a.target.Scheme + "://" + a.target.Host + " request " + id
}

// broken says what an exchange failed with that brought no answer.
func (a *attempt) broken(err error) error {
	if a.ctx.Err() != nil {
		return fmt.Errorf("deliver to %s: %w", a.target.Host, context.Cause(a.ctx))
	}
	code, message := "", ""
	switch outbound.Explain(err) {
	case outbound.Refused:
		code, message = "HttpEndpoint.ConnectionFailed", "This server is not allowed to connect to the endpoint"
	case outbound.Timeout:
		code, message = "HttpEndpoint.RequestTimeout", "The request timed out before a complete answer came"
	case outbound.BadURL:
		code, message = "HttpEndpoint.MakeRequestFailure.IllegalUriException", "The URL of the endpoint is not one that a request can be made of"
	case outbound.BadHeader:
		code, message = "HttpEndpoint.MakeRequestFailure.IllegalCharacterInHeaderValue", "The access key or a common attribute holds a character that no header may hold"
	case outbound.Reset:
		code, message = "HttpEndpoint.ConnectionReset", "The connection to the endpoint broke"
	case outbound.TLSHandshake:
		code, message = "HttpEndpoint.SSLHandshakeFailure", "The TLS handshake with the endpoint failed"
	case outbound.CertificatePath:
		code, message = "HttpEndpoint.SSLHandshakeCertificatePathFailure", "No path leads from the endpoint's certificate to a trusted authority"
	case outbound.CertificateInvalid:
		code, message = "HttpEndpoint.SSLHandshakeCertificatePathValidationFailure", "The endpoint's certificate is not valid for it"
	case outbound.TLSFailure:
		code, message = "HttpEndpoint.SSLFailure", "TLS with the endpoint failed"
	case outbound.HeadersTooLarge:
		code, message = "HttpEndpoint.ResponseTooLarge", "The answer is larger than 1 MiB"
	case outbound.IllegalStart:
		code, message = "HttpEndpoint.IllegalMessageStart", "The answer does not begin as an HTTP message does"
	case outbound.IllegalResponse:
		code, message = "HttpEndpoint.IllegalResponseFailure", "The answer is not a well-formed HTTP message"
	default:
		code, message = "HttpEndpoint.ConnectionFailed", "The endpoint cannot be connected to"
	}
	return &dest.Error{Code: code, Message: message + ": " + outbound.Plain(err), Err: err}
}

// requestBody is the encoded form of a part.
type requestBody struct {
	length int64
	open   func() io.ReadCloser // from the beginning; ends the one before
	free   func()
}

func (a *attempt) body(id string, p payload.Part) (*requestBody, error) {
	head, tail := frame(id, time.Now())
	length := int64(len(head)) + p.Bytes + int64(len(tail))
	plain := func() io.ReadCloser { return a.source.Body(head, p, tail) }
	if !a.config.GZIP {
		return &requestBody{length, plain, func() {}}, nil
	}
	blocks := &payload.Blocks{}
	z := compress.NewWriter(compress.GZIP, blocks, "")
	r := plain()
	_, err := io.Copy(z, r)
	_ = r.Close()
	if e := z.Close(); err == nil {
		err = e
	}
	if err != nil {
		blocks.Free()
		return nil, err
	}
	// The transport may still read when Deliver leaves; a reader that is closed no
	// longer touches the blocks.
	var last io.ReadCloser
	closeLast := func() {
		if last != nil {
			_ = last.Close()
		}
	}
	open := func() io.ReadCloser {
		closeLast()
		last = blocks.Reader()
		return last
	}
	return &requestBody{blocks.Len(), open, func() { closeLast(); blocks.Free() }}, nil
}
