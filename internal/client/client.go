// Package client calls a millrace server through its public API: typed
// operations in JSON over HTTP, signed with Signature Version 4.
//
// It is what the command line stands on. It is not an SDK: it knows one
// protocol, one endpoint and one way to retry, and takes its shapes from the
// generated packages below internal/api. Start reading at Client.Call.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/wire/awsjson"
	"github.com/millrace/millrace/internal/wire/eventstream"
)

const (
	maxAttempts      = 5
	firstBackoff     = 50 * time.Millisecond
	maxBackoff       = 2 * time.Second
	maxReplyBytes    = 32 << 20
	jsonContentType  = "application/x-amz-json-1.1"
	formContentType  = "application/x-www-form-urlencoded; charset=utf-8"
	maxErrorBodySize = 64 << 10
)

// Config says where the server is and who calls.
type Config struct {
	Endpoint  string // "http://127.0.0.1:4567"
	Region    string
	AccessKey string
	SecretKey string
	Token     string            // session token; may be empty
	CA        string            // file of certificates to trust instead of the system's, in PEM; may be empty
	Transport http.RoundTripper // nil: a transport of its own
	UserAgent string
}

// Client is safe for concurrent use.
type Client struct {
	config   Config
	endpoint *url.URL
	http     *http.Client
}

// New checks the endpoint; it does not connect.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("endpoint %q is not a URL such as http://127.0.0.1:4567", c.Endpoint)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	transport := c.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 64
		t.Proxy = nil
		if c.CA != "" {
			pool, err := readCertificates(c.CA)
			if err != nil {
				return nil, err
			}
			t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		transport = t
	}
	return &Client{config: c, endpoint: u, http: &http.Client{Transport: transport}}, nil
}

func readCertificates(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the certificates to trust: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM; `millrace ca` prints the server's", file)
	}
	return pool, nil
}

// Endpoint is the address the client dials.
func (c *Client) Endpoint() string { return c.config.Endpoint }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is an error reply of the server.
type Error struct {
	Code      string
	Message   string
	Status    int
	RequestID string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// IsCode reports whether err is an error reply with the code.
func IsCode(err error, code string) bool {
	var reply *Error
	return errors.As(err, &reply) && reply.Code == code
}

// retryable reports whether the same request may succeed later.
func (e *Error) retryable() bool {
	switch e.Code {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "LimitExceededException":
		return true
	}
	return e.Status >= 500
}

// Call performs one operation. Throttling, server faults and lost connections
// are tried again with growing, jittered pauses; a put may therefore be stored
// twice, as with every SDK.
func (c *Client) Call(ctx context.Context, op *api.Operation, in, out api.Shape) error {
	body := awsjson.Append(nil, in)
	reply, err := c.attempt(ctx, func() ([]byte, error) { return c.post(ctx, op, body) })
	if err != nil {
		return err
	}
	if out == nil || len(reply) == 0 {
		return nil
	}
	if err := awsjson.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("read the reply to %s: %w", op.Name, err)
	}
	return nil
}

// Query performs an operation of the query protocol (IAM, STS) and returns the
// reply's XML.
func (c *Client) Query(ctx context.Context, service string, form url.Values) ([]byte, error) {
	body := []byte(form.Encode())
	return c.attempt(ctx, func() ([]byte, error) {
		req, err := c.request(ctx, body, service, func(h http.Header) { h.Set("Content-Type", formContentType) })
		if err != nil {
			return nil, err
		}
		return c.roundTrip(req, parseXMLError)
	})
}

func (c *Client) attempt(ctx context.Context, f func() ([]byte, error)) ([]byte, error) {
	backoff := firstBackoff
	for attempt := 1; ; attempt++ {
		reply, err := f()
		if err == nil {
			return reply, nil
		}
		var answered *Error
		if errors.As(err, &answered) && !answered.retryable() {
			return nil, err
		}
		if ctx.Err() != nil || attempt == maxAttempts || isRefused(err) || isUntrusted(err) {
			return nil, c.explain(err)
		}
		if err := Sleep(ctx, backoff/2+rand.N(backoff/2)); err != nil {
			return nil, err
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func isRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isUntrusted tells whether the server's certificate is not accepted.
func isUntrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// explain turns a failed dial into what to do about it.
func (c *Client) explain(err error) error {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err // the address is named below
	}
	if isUntrusted(err) {
		return fmt.Errorf("the certificate of %s is not trusted: `millrace ca --out ca.pem` beside the server writes the one to trust, --ca ca.pem or AWS_CA_BUNDLE names it here (%w)", c.config.Endpoint, err)
	}
	if isRefused(err) {
		return fmt.Errorf("no server answers at %s: start one with `millrace serve`, or name another with --endpoint (%w)", c.config.Endpoint, err)
	}
	return err
}

func (c *Client) post(ctx context.Context, op *api.Operation, body []byte) ([]byte, error) {
	req, err := c.operationRequest(ctx, op, body)
	if err != nil {
		return nil, err
	}
	return c.roundTrip(req, parseJSONError)
}

func (c *Client) operationRequest(ctx context.Context, op *api.Operation, body []byte) (*http.Request, error) {
	return c.request(ctx, body, op.Service.SigningName, func(h http.Header) {
		h.Set("Content-Type", jsonContentType)
		h.Set("X-Amz-Target", op.Service.TargetPrefix+"."+op.Name)
	})
}

func (c *Client) request(ctx context.Context, body []byte, service string, headers func(http.Header)) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	headers(req.Header)
	if c.config.UserAgent != "" {
		req.Header.Set("User-Agent", c.config.UserAgent)
	}
	c.sign(req, body, service)
	return req, nil
}

func (c *Client) sign(req *http.Request, body []byte, service string) {
	sigv4.Sign(req, body, sigv4.Credentials{
		AccessKey: c.config.AccessKey, SecretKey: c.config.SecretKey, SessionToken: c.config.Token,
	}, c.config.Region, service, time.Now())
}

func (c *Client) roundTrip(req *http.Request, parse func([]byte) (code, message string)) ([]byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errorReply(resp, parse)
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(reply) > maxReplyBytes {
		return nil, fmt.Errorf("the reply exceeds %d bytes", maxReplyBytes)
	}
	return reply, nil
}

func errorReply(resp *http.Response, parse func([]byte) (code, message string)) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBodySize))
	if err != nil {
		return err
	}
	e := &Error{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Amzn-Requestid")}
	e.Code, e.Message = parse(body)
	if e.Code == "" {
		e.Code = http.StatusText(resp.StatusCode)
		e.Message = strings.TrimSpace(string(body[:min(len(body), 200)]))
	}
	return e
}

func parseJSONError(body []byte) (code, message string) {
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &e) != nil {
		return "", ""
	}
	return e.Type[strings.LastIndexByte(e.Type, '#')+1:], e.Message
}

// Subscribe opens a SubscribeToShard stream and calls event for each event
// until the stream ends, the context is cancelled or event fails.
func (c *Client) Subscribe(ctx context.Context, in *kinesis.SubscribeToShardInput, event func(*kinesis.SubscribeToShardEvent) error) error {
	req, err := c.operationRequest(ctx, kinesis.OpSubscribeToShard, awsjson.Append(nil, in))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errorReply(resp, parseJSONError)
	}
	frames := eventstream.NewReader(resp.Body)
	for {
		frame, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch frame.Header(eventstream.HeaderMessageType) {
		case eventstream.TypeException:
			_, message := parseJSONError(frame.Payload)
			return &Error{Code: frame.Header(eventstream.HeaderExceptionType), Message: message, Status: http.StatusOK}
		case eventstream.TypeError:
			return &Error{Code: frame.Header(eventstream.HeaderErrorCode), Message: frame.Header(eventstream.HeaderErrorMessage), Status: http.StatusOK}
		}
		if frame.Header(eventstream.HeaderEventType) != "SubscribeToShardEvent" {
			continue
		}
		var e kinesis.SubscribeToShardEvent
		if err := awsjson.Unmarshal(frame.Payload, &e); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if err := event(&e); err != nil {
			return err
		}
	}
}

// Sleep waits for d or for the context, whichever ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Region is the region that calls are made in.
func (c *Client) Region() string { return c.config.Region }
