// Package opensearch delivers records as documents of OpenSearch,
// Elasticsearch and OpenSearch Serverless.
//
// The one idea: a bulk request is many requests whose answers come together, so
// every document has an outcome of its own. A batch travels in requests of
// bounded size, in order; what a cluster refuses is told by index, and whether
// the same document may be taken later. A document's name follows from its
// record's place in the source, so that sending it again replaces it.
//
// A record is one JSON object in one line; anything else is refused before it
// could be taken for a command. Start at Destination.Deliver; naming.go has the
// names of indexes and documents, reply.go the answers.
package opensearch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/sigv4"
)

// Kind is which of the three destinations of the service it is.
type Kind int

// The kinds.
const (
	OpenSearch    Kind = iota
	Elasticsearch      // codes begin with ES. instead of OS.
	Serverless
)

// Config is a destination.
type Config struct {
	Kind Kind `yaml:"-"`
	// StreamARN is the delivery stream, part of the names of documents.
	StreamARN string `yaml:"-"`
	// Endpoint is the cluster's URL; a path is kept in front of _bulk.
	Endpoint string `yaml:"endpoint"`
	Index    string `yaml:"index"`
	// Type is the document type of clusters before version 7.
	Type     string   `yaml:"type"`
	Rotation Rotation `yaml:"rotation"`
	// ISOWeeks numbers weeks by ISO 8601 instead of as the service does.
	ISOWeeks bool `yaml:"iso_weeks"`
	// NoDocumentID lets the cluster name documents: a batch that is sent again
	// leaves duplicates.
	NoDocumentID bool `yaml:"no_document_id"`
	Access       `yaml:",inline"`
	// RequestBytes bounds the body of a bulk request; 5 MiB if zero.
	RequestBytes int `yaml:"request_bytes"`
	// Timeout bounds one request; 60 s if zero.
	Timeout time.Duration `yaml:"timeout"`
}

// Access is how a cluster is asked. At most one of signature, basic
// authentication and API key is used, in this order.
type Access struct {
	// Region signs requests with the credentials of Deps; empty does not.
	Region   string       `yaml:"region"`
	Username string       `yaml:"username"`
	Password string       `yaml:"password"`
	APIKey   string       `yaml:"api_key"` // as Elasticsearch shows it, encoded
	TLS      outbound.TLS `yaml:"tls"`
}

// Deps is what a destination is given by the server.
type Deps struct {
	Policy outbound.Policy
	// Credentials sign requests; needed where Access.Region is set.
	Credentials func(ctx context.Context) (sigv4.Credentials, error)
	// Now is the clock; nil is that of the system.
	Now func() time.Time
}

const (
	defaultRequest = 5 << 20
	defaultTimeout = time.Minute
	// maxDocument bounds one record; no cluster takes more in a request.
	maxDocument = 100 << 20
)

// Retry is how failures are repeated: for so many seconds from the first attempt
// on, with growing pauses.
func Retry(seconds int) dest.Retry {
	return dest.Retry{Duration: time.Duration(seconds) * time.Second, FromFirstAttempt: true}
}

// Destination sends bulk requests to one cluster.
type Destination struct {
	config Config
	deps   Deps
	client *http.Client
	url    *url.URL
	prefix string // of codes
	lanes  laneNames
}

// New makes a destination. Nothing is connected yet.
func New(c Config, deps Deps) (*Destination, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("opensearch: the endpoint is no URL of http or https")
	}
	if c.Index == "" {
		return nil, errors.New("opensearch: an index is needed")
	}
	if _, err := c.Rotation.suffix(time.Time{}, false); err != nil {
		return nil, err
	}
	if c.Region != "" && deps.Credentials == nil {
		return nil, errors.New("opensearch: there are no credentials to sign with")
	}
	if c.RequestBytes <= 0 {
		c.RequestBytes = defaultRequest
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	client, err := outbound.Client(outbound.Options{Policy: deps.Policy, TLS: c.TLS})
	if err != nil {
		return nil, fmt.Errorf("opensearch: %w", err)
	}
	d := &Destination{config: c, deps: deps, client: client, url: u.JoinPath("_bulk"), prefix: "OS."}
	d.url.User, d.url.RawQuery, d.url.Fragment = nil, "", ""
	if u.User != nil && c.Username == "" {
		d.config.Username = u.User.Username()
		d.config.Password, _ = u.User.Password()
	}
	if c.Kind == Elasticsearch {
		d.prefix = "ES."
	}
	d.lanes.stream = c.StreamARN
	return d, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.client.CloseIdleConnections()
	return nil
}

// FailureFields implements dest.Annotator: which document it would have been.
func (d *Destination) FailureFields(r *record.Record) []dest.Field {
	id := dest.Field{Name: "esDocumentId"}
	if !d.config.NoDocumentID {
		id.Value = string(d.lanes.document(nil, r))
	}
	index := dest.Field{Name: "esIndexName", Value: string(d.index(nil, r.Arrival))}
	if d.config.Kind == Serverless {
		id.Name, index.Name = "osDocumentId", "osIndexName"
		return []dest.Field{id, index}
	}
	return []dest.Field{id, index, {Name: "esTypeName", Value: d.config.Type}}
}

// request is a bulk request in the making.
type request struct {
	body    []byte
	indexes []int // in the batch, of the documents
	ends    []int // in body, of the documents
	bytes   int64 // of the records
}

func (q *request) reset() {
	q.body, q.indexes, q.ends, q.bytes = q.body[:0], q.indexes[:0], q.ends[:0], 0
}

// delivery is one call of Deliver.
type delivery struct {
	*Destination
	ctx      context.Context
	failures []dest.Failure // in no order
	stored   int
	bytes    int64
	answered bool // a request has been answered item by item
	broken   *dest.Error
	q        request
}

// Deliver implements dest.Destination. If the first request fails, the attempt
// has failed; if a later one does, the records from there on have, and may be
// sent again.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	v := &delivery{Destination: d, ctx: ctx}
	var sending error
	err := b.Each(func(i int, r *record.Record) error {
		if v.broken != nil {
			v.failures = append(v.failures, v.later(i))
			return nil
		}
		sending = v.add(i, r)
		return sending
	})
	switch {
	case sending != nil:
		return dest.Result{}, sending
	case err != nil:
		return dest.Result{}, fmt.Errorf("read the batch: %w", err)
	}
	if err := v.flush(); err != nil {
		return dest.Result{}, err
	}
	result := dest.Result{Failed: sorted(v.failures)}
	if v.stored > 0 {
		result.Objects = []dest.Object{{Name: d.url.Host + "/" + string(d.index(nil, b.Oldest)), Records: v.stored, Bytes: v.bytes}}
	}
	return result, nil
}

// later is the failure of a record that was not sent because an earlier request
// failed.
func (v *delivery) later(i int) dest.Failure {
	return dest.Failure{Index: i, Code: v.broken.Code, Message: v.broken.Message, Retry: true}
}

// add puts a record into the request, which is sent when it is full.
func (v *delivery) add(i int, r *record.Record) error {
	document, reason := checked(r.Data)
	if reason != "" {
		v.failures = append(v.failures, dest.Failure{Index: i, Code: v.prefix + "MalformedData", Message: reason})
		return nil
	}
	if len(v.q.body) > 0 && len(v.q.body)+len(document)+512 > v.config.RequestBytes {
		if err := v.flush(); err != nil || v.broken != nil {
			if err == nil {
				v.failures = append(v.failures, v.later(i))
			}
			return err
		}
	}
	q := &v.q
	q.body = append(q.body, `{"index":{"_index":`...)
	q.body = appendString(q.body, v.index(nil, r.Arrival))
	if v.config.Type != "" {
		q.body = append(q.body, `,"_type":`...)
		q.body = appendString(q.body, []byte(v.config.Type))
	}
	if !v.config.NoDocumentID {
		q.body = append(q.body, `,"_id":"`...)
		q.body = v.lanes.document(q.body, r)
		q.body = append(q.body, '"')
	}
	q.body = append(q.body, "}}\n"...)
	q.body = append(q.body, document...)
	q.body = append(q.body, '\n')
	q.indexes = append(q.indexes, i)
	q.ends = append(q.ends, len(q.body))
	q.bytes += int64(len(r.Data))
	return nil
}

// appendString appends a JSON string of what may need escapes.
func appendString(b, s []byte) []byte {
	text, _ := json.Marshal(string(s)) // strings always can be
	return append(b, text...)
}

// checked returns the document in a record, or why there is none.
func checked(data []byte) (document []byte, reason string) {
	document = bytes.TrimSpace(data)
	switch {
	case len(document) > maxDocument:
		return nil, "The record is larger than any request may be"
	case len(document) == 0 || document[0] != '{':
		return nil, "The record is not a JSON object"
	case bytes.ContainsAny(document, "\n\r"):
		return nil, "The record holds line breaks; a document must be one JSON object in a single line"
	case !utf8.Valid(document):
		return nil, "The record is not valid UTF-8"
	case !json.Valid(document):
		return nil, "The record is not exactly one JSON object"
	}
	return document, ""
}

// flush sends the request.
func (v *delivery) flush() error {
	if len(v.q.indexes) == 0 {
		return nil
	}
	defer v.q.reset()
	if v.broken != nil {
		return nil
	}
	return v.send(v.q)
}

// send sends a request, in halves if it is too large for the cluster.
func (v *delivery) send(q request) error {
	n := len(q.indexes)
	items, failed := v.post(q.body, n)
	switch {
	case failed == nil:
	case failed.Code == tooLarge && n > 1:
		half := n / 2
		at := q.ends[half-1]
		ends := make([]int, 0, n-half)
		for _, end := range q.ends[half:] {
			ends = append(ends, end-at)
		}
		if err := v.send(request{body: q.body[:at], indexes: q.indexes[:half], ends: q.ends[:half], bytes: q.bytes / 2}); err != nil {
			return err
		}
		if v.broken != nil {
			for _, i := range q.indexes[half:] {
				v.failures = append(v.failures, v.later(i))
			}
			return nil
		}
		return v.send(request{body: q.body[at:], indexes: q.indexes[half:], ends: ends, bytes: q.bytes - q.bytes/2})
	case failed.Code == tooLarge:
		v.answered = true
		v.failures = append(v.failures, dest.Failure{Index: q.indexes[0], Code: v.prefix + "LargeFieldData", Message: failed.Message})
		return nil
	case v.ctx.Err() != nil || !v.answered:
		return failed
	default:
		v.broken = failed
		for _, i := range q.indexes {
			v.failures = append(v.failures, v.later(i))
		}
		return nil
	}
	v.answered = true
	ok := 0
	for k, item := range items {
		if item.failed() {
			v.failures = append(v.failures, item.failure(q.indexes[k], v.prefix))
		} else {
			ok++
		}
	}
	v.stored += ok
	v.bytes += int64(len(q.body)) * int64(ok) / int64(n)
	return nil
}

// tooLarge marks a request that the cluster does not take for its size.
const tooLarge = "413"

// post sends one bulk request and returns the outcome of its documents.
func (v *delivery) post(body []byte, documents int) ([]item, *dest.Error) {
	ctx, cancel := context.WithTimeout(v.ctx, v.config.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, v.fail("ConnectionError", "a request cannot be made: "+err.Error(), err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("User-Agent", "millrace")
	if err := v.authorize(ctx, r, body); err != nil {
		return nil, v.fail("AccessDenied", "the credentials cannot be had: "+err.Error(), err)
	}
	reply, err := v.client.Do(r)
	if err != nil {
		return nil, v.unreachable(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode != http.StatusOK {
		return nil, v.refused(reply)
	}
	limit := maxReply(documents)
	in := &bounded{in: reply.Body, left: limit}
	items, err := readItems(in, documents)
	switch {
	case err == nil:
		_, _ = io.CopyN(io.Discard, reply.Body, 4096) // so that the connection can be used again
		return items, nil
	case errors.Is(err, errCount):
		return nil, v.fail("ResponseEntryCountMismatch", err.Error(), nil)
	case errors.Is(err, errSize):
		return nil, v.fail("ServiceException", fmt.Sprintf("the answer is larger than %d bytes", limit), nil)
	case in.err != nil:
		return nil, v.unreachable(in.err)
	}
	return nil, v.fail("JsonParseException", "the answer cannot be read: "+err.Error(), err)
}

func (v *delivery) fail(code, message string, err error) *dest.Error {
	return &dest.Error{Code: v.prefix + code, Message: message, Err: err}
}

func (d *Destination) authorize(ctx context.Context, r *http.Request, body []byte) error {
	switch {
	case d.config.Region != "":
		c, err := d.deps.Credentials(ctx)
		if err != nil {
			return err
		}
		service := "es"
		sum := sha256.Sum256(body)
		if d.config.Kind == Serverless {
			service = "aoss"
			r.Header["X-Amz-Content-Sha256"] = []string{hex.EncodeToString(sum[:])}
		}
		sigv4.SignSum(r, sum, c, d.config.Region, service, d.deps.Now())
	case d.config.Username != "":
		r.SetBasicAuth(d.config.Username, d.config.Password)
	case d.config.APIKey != "":
		r.Header.Set("Authorization", "ApiKey "+d.config.APIKey)
	}
	return nil
}

// unreachable names a failure of the connection.
func (v *delivery) unreachable(err error) *dest.Error {
	code, message := "ConnectionError", "the exchange with the cluster failed"
	switch outbound.Explain(err) {
	case outbound.Refused:
		code, message = "ConnectionFailed", "this server is not allowed to connect to the cluster"
	case outbound.Timeout:
		code, message = "RequestTimeout", "the request timed out before a complete answer came"
	case outbound.Reset:
		code, message = "ConnectionReset", "the connection to the cluster broke"
	case outbound.TLSHandshake, outbound.CertificatePath, outbound.CertificateInvalid, outbound.TLSFailure:
		code, message = "ConnectionFailed", "TLS with the cluster failed: "+innermost(err)
	case outbound.HeadersTooLarge, outbound.IllegalStart, outbound.IllegalResponse:
		code, message = "ConnectionError", "the answer is not a well-formed HTTP message"
	default:
		if strings.Contains(err.Error(), "connect") || strings.Contains(err.Error(), "no such host") {
			code, message = "ConnectionFailed", "the cluster cannot be reached: "+innermost(err)
		}
	}
	return v.fail(code, message, err)
}

func innermost(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// refused names an answer to the request as a whole.
func (v *delivery) refused(reply *http.Response) *dest.Error {
	head, _ := io.ReadAll(io.LimitReader(reply.Body, 16<<10))
	kind, reason := readError(head)
	lower := strings.ToLower(kind + " " + reason)
	code := ""
	switch status := reply.StatusCode; {
	case status == http.StatusRequestEntityTooLarge:
		return &dest.Error{Code: tooLarge, Message: "the cluster takes no request of this size"}
	case strings.Contains(lower, "explicit index in bulk is not allowed"):
		code = "ExplicitIndexInBulkNotAllowed"
	case strings.Contains(lower, "unknown parameter [_type]"):
		code = "UnsupportedVersion"
	case strings.Contains(lower, "cluster_block_exception"):
		code = "ClusterBlockException"
	case strings.Contains(lower, "validation_exception"):
		code = "ValidationException"
	case strings.Contains(lower, "char_conversion_exception"), strings.Contains(lower, "charconversionexception"):
		code = "CharConversionException"
	case strings.Contains(lower, "parse_exception"), strings.Contains(lower, "parsing_exception"):
		code = "AmazonOpenSearchServiceParseException"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		code = "AccessDenied"
	case status == http.StatusNotFound:
		code = "ResourceNotFound"
	case status == http.StatusRequestTimeout:
		code = "RequestTimeout"
	case status == http.StatusNotAcceptable, status == http.StatusUnsupportedMediaType, status == http.StatusMethodNotAllowed:
		code = "UnsupportedVersion"
	case status == http.StatusBadRequest:
		code = "ValidationException"
	case status == http.StatusTooManyRequests:
		code = "ClusterError"
	case status == http.StatusBadGateway:
		code = "BadGateway"
	case status == http.StatusGatewayTimeout:
		code = "GatewayTimeout"
	case status >= 500:
		code = "ClusterError"
	default:
		code = "ServiceException"
	}
	message := "the cluster answered " + strconv.Itoa(reply.StatusCode)
	if reason != "" {
		message += ": " + reason
	}
	e := v.fail(code, message, nil)
	if seconds, err := strconv.Atoi(reply.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.After = time.Duration(min(seconds, 7200)) * time.Second
	}
	return e
}
