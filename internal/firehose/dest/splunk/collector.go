package splunk

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/payload"
	"github.com/millrace/millrace/internal/outbound"
)

// channel is what the collector counts acknowledgements by.
type channel struct {
	id     string
	client *http.Client // with cookies of its own: load balancers stick to a node by them
}

func (d *Destination) borrow() *channel {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.idle); n > 0 {
		c := d.idle[n-1]
		d.idle = d.idle[:n-1]
		return c
	}
	jar, _ := cookiejar.New(nil) // fails never without options
	client := *d.client
	client.Jar = jar
	return &channel{guid(), &client}
}

func (d *Destination) giveBack(c *channel, sound bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if sound && len(d.idle) < maxIdleChannels {
		d.idle = append(d.idle, c)
	}
}

// guid is a random one, version 4.
func guid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// maxAnswer bounds an answer's body.
const maxAnswer = 256 << 10

// answer is what the collector says.
type answer struct {
	status int
	Text   string           `json:"text"`
	Code   *int             `json:"code"`
	AckID  *uint64          `json:"ackId"`
	Acks   map[string]bool  `json:"acks"`
	Bad    *json.RawMessage `json:"invalid-event-number"`
	quoted string
	valid  bool // the body is JSON
}

// decode reads the body of an answer. A body that is something else leaves valid
// false.
func decode(status int, body []byte) answer {
	a := answer{status: status}
	a.quoted = strings.ToValidUTF8(string(body[:min(len(body), 1000)]), "�")
	if json.Unmarshal(body, &a) != nil || bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return answer{status: status, quoted: a.quoted}
	}
	a.valid = true
	return a
}

// exchange makes one request. bodyOf is called again where the request has to
// be repeated on another connection.
func (a *attempt) exchange(method, path string, query url.Values, length int64, bodyOf func() io.ReadCloser, header http.Header) (answer, error) {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	var written atomic.Int64
	start := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { written.Store(int64(time.Since(start))) },
	})
	defer func() {
		if at := written.Load(); at > 0 {
			a.result.Waited += max(0, time.Since(start)-time.Duration(at))
		}
	}()
	target := *a.base
	target.Path += path
	target.RawQuery = query.Encode()
	request := (&http.Request{Method: method, URL: &target, Host: target.Host, Header: header}).WithContext(ctx)
	if bodyOf != nil {
		request.ContentLength = length
		request.Body = bodyOf()
		request.GetBody = func() (io.ReadCloser, error) { return bodyOf(), nil }
	}
	client := a.client
	if a.channel != nil {
		client = a.channel.client
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, a.broken(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil && response.StatusCode < 300:
		return answer{}, a.broken(err)
	case len(body) > maxAnswer:
		return answer{}, &dest.Error{Code: "Splunk.ServerError", Message: fmt.Sprintf("The collector's answer with status %d has no end.", response.StatusCode)}
	}
	return decode(response.StatusCode, body), nil
}

func (a *attempt) header() http.Header {
	h := http.Header{"Authorization": {"Splunk " + a.token}, "User-Agent": {"Amazon Kinesis Data Firehose Agent/1.0"}}
	if a.channel != nil {
		h["X-Splunk-Request-Channel"] = []string{a.channel.id}
	}
	return h
}

// post sends one part and returns the number of its acknowledgement.
func (a *attempt) post(p payload.Part) (ack uint64, err error) {
	header := a.header()
	length, bodyOf := p.Bytes, func() io.ReadCloser { return a.source.Body(nil, p, nil) }
	if a.config.GZIP {
		var blocks payload.Blocks
		z := compress.NewWriter(compress.GZIP, &blocks, "")
		r := bodyOf()
		_, err := io.Copy(z, r)
		_ = r.Close()
		if e := z.Close(); err == nil {
			err = e
		}
		if err != nil {
			blocks.Free()
			return 0, fmt.Errorf("read the batch: %w", err)
		}
		var last io.ReadCloser
		defer func() {
			if last != nil {
				_ = last.Close()
			}
			blocks.Free()
		}()
		length, bodyOf = blocks.Len(), func() io.ReadCloser {
			if last != nil {
				_ = last.Close()
			}
			last = blocks.Reader()
			return last
		}
		header["Content-Encoding"] = []string{"gzip"}
	}
	path := "/services/collector/event"
	if a.config.Type == Raw {
		path = "/services/collector/raw"
	}
	got, err := a.exchange(http.MethodPost, path, url.Values{"channel": {a.channel.id}}, length, bodyOf, header)
	if cause := a.source.Err(); cause != nil {
		return 0, fmt.Errorf("read the batch: %w", cause)
	}
	if err != nil {
		return 0, err
	}
	if e := got.failure(); e != nil {
		return 0, e
	}
	if got.AckID == nil && !a.config.NoAcks {
		// The data was taken; sending it again and again would only multiply it.
		return 0, &dest.Error{
			Code: "Splunk.DisabledAck", Permanent: true,
			Message: "The collector took the data without an acknowledgement id. Indexer acknowledgement must be enabled for the token.",
		}
	}
	if got.AckID != nil {
		ack = *got.AckID
	}
	return ack, nil
}

// poll asks for all acknowledgements that are missing.
func (a *attempt) poll() (map[uint64]bool, error) {
	question := []byte(`{"acks":[`)
	for i, s := range a.pending {
		if i > 0 {
			question = append(question, ',')
		}
		question = strconv.AppendUint(question, s.ack, 10)
	}
	question = append(question, "]}"...)
	header := a.header()
	header["Content-Type"] = []string{"application/json"}
	got, err := a.exchange(http.MethodPost, "/services/collector/ack", url.Values{"channel": {a.channel.id}},
		int64(len(question)), func() io.ReadCloser { return io.NopCloser(bytes.NewReader(question)) }, header)
	if err != nil {
		return nil, err
	}
	if e := got.failure(); e != nil {
		if got.Code != nil && (*got.Code == 10 || *got.Code == 11) {
			// The node that took the data knows the channel; this is another.
			return nil, &dest.Error{
				Code:    "Splunk.ProxyWithoutStickySessions",
				Message: "The node that was asked for the acknowledgement does not know the channel. What stands before the collectors must keep a client on one node by its cookies. " + e.Message,
			}
		}
		if e.Code == "Splunk.DisabledAck" {
			e.Permanent = true
		}
		return nil, e
	}
	acked := make(map[uint64]bool, len(got.Acks))
	for text, is := range got.Acks {
		if id, err := strconv.ParseUint(text, 10, 64); err == nil && is {
			acked[id] = true
		}
	}
	return acked, nil
}

// health asks the collector how it is.
func (a *attempt) health() error {
	got, err := a.exchange(http.MethodGet, "/services/collector/health/1.0", nil, 0, nil, a.header())
	if err != nil {
		return err
	}
	if got.status == http.StatusOK {
		return nil
	}
	if e := got.failure(); e != nil {
		return e
	}
	return nil
}

// broken says what an exchange failed with that brought no answer.
func (a *attempt) broken(err error) error {
	if a.ctx.Err() != nil {
		return fmt.Errorf("deliver to %s: %w", a.base.Host, context.Cause(a.ctx))
	}
	code, message := "Splunk.InvalidEndpoint", "The collector cannot be connected to"
	switch outbound.Explain(err) {
	case outbound.Refused:
		message = "This server is not allowed to connect to the collector"
	case outbound.ConnectTimeout, outbound.Timeout:
		code, message = "Splunk.ConnectionTimeout", "The collector did not answer in time"
	case outbound.Reset:
		code, message = "Splunk.ConnectionClosed", "The connection to the collector broke"
	case outbound.TLSHandshake, outbound.TLSFailure:
		code, message = "Splunk.SSLHandshake", "The TLS handshake with the collector failed"
	case outbound.CertificatePath, outbound.CertificateInvalid:
		code, message = "Splunk.SSLUnverified", "The collector's certificate is not trusted, or not valid for it"
	case outbound.IllegalStart, outbound.IllegalResponse, outbound.HeadersTooLarge:
		code, message = "Splunk.InvalidHecResponseCharacter", "The collector's answer is not a well-formed HTTP message"
	case outbound.BadHeader:
		code, message = "Splunk.InvalidToken", "The token holds characters that no header may hold"
	}
	return &dest.Error{Code: code, Message: message + ": " + outbound.Plain(err), Err: err}
}
