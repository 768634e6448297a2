package objects

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/sigv4"
)

// extendedID is the header, in the service's own spelling, that goes with a
// request id. A constant would be taken for a misspelt one.
var extendedID = "x-amz-id-2"

const (
	namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
	// maxDocument bounds a body that is XML or a policy: the largest real one
	// completes an upload of 10,000 parts.
	maxDocument = 4 << 20
	// documentMemory bounds all such bodies together.
	documentMemory = 64 << 20
	defaultRegion  = "us-east-1"
)

// HandlerOptions are what the protocol needs besides the store.
type HandlerOptions struct {
	Directory *iam.Directory
	// Verifier checks signatures; nil lets everybody in, also without any.
	Verifier *sigv4.Verifier
	// Hosts are names of this server: of BUCKET.HOST, BUCKET is a bucket. Names
	// with a label s3, and localhost, are known without being listed.
	Hosts     []string
	Partition string       // "aws" if empty
	Logger    *slog.Logger // of the store if nil
}

// Handler serves the object protocol (S3) from an embedded store.
type Handler struct {
	e         *Embedded
	o         HandlerOptions
	documents *semaphore.Weighted
	policies  struct {
		sync.Mutex
		parsed map[string]*iam.Policy
	}
}

// Handler returns what serves the store over HTTP.
func (e *Embedded) Handler(o HandlerOptions) *Handler {
	if o.Partition == "" {
		o.Partition = "aws"
	}
	if o.Logger == nil {
		o.Logger = e.logger
	}
	return &Handler{e: e, o: o, documents: semaphore.NewWeighted(documentMemory)}
}

// Recognises tells, by the head of a request alone, whether it is for objects:
// its scope names s3, or it is not signed at all and speaks of a bucket, in its
// host or as an existing one at the begin of its path.
func (h *Handler) Recognises(r *http.Request) bool {
	if a := r.Header["Authorization"]; len(a) > 0 && a[0] != "" {
		return strings.Contains(a[0], "/s3/aws4_request")
	}
	if len(r.Header["X-Amz-Target"]) > 0 || r.Method == http.MethodOptions {
		return false
	}
	if q := r.URL.RawQuery; strings.Contains(q, "X-Amz-Credential=") {
		return strings.Contains(q, "%2Fs3%2Faws4_request") || strings.Contains(q, "/s3/aws4_request") || strings.Contains(q, "%2fs3%2faws4_request")
	}
	if h.hostBucket(r.Host) != "" {
		return true
	}
	bucket, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if len(bucket) < 3 || r.Method == http.MethodPost && len(r.URL.RawQuery) == 0 {
		return false
	}
	_, exists, err := h.e.index.Get(bucketKey(bucket))
	return exists && err == nil
}

// hostBucket is the bucket that a host names, empty if none.
func (h *Handler) hostBucket(host string) string {
	if strings.HasPrefix(host, "[") {
		return "" // an address
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.ToLower(host)
	for _, own := range h.o.Hosts {
		if host == own {
			return ""
		}
		if bucket, ok := strings.CutSuffix(host, "."+own); ok && bucket != "s3" && !strings.HasSuffix(bucket, ".s3") {
			return bucket
		}
	}
	labels := strings.Split(host, ".")
	for i := len(labels) - 1; i >= 0; i-- {
		if labels[i] == "s3" || strings.HasPrefix(labels[i], "s3-") && i > 0 {
			return strings.Join(labels[:i], ".")
		}
	}
	if bucket, ok := strings.CutSuffix(host, ".localhost"); ok {
		return bucket
	}
	return ""
}

// request is one request on its way through an operation.
type request struct {
	h        *Handler
	e        *Embedded
	w        http.ResponseWriter
	r        *http.Request
	ctx      context.Context
	call     *api.Call
	bucket   string
	key      string
	query    url.Values
	identity *iam.Identity
	signed   *sigv4.Result // nil if the request is anonymous
	// payload is what was declared of the body.
	payload string
	held    int64 // of documents
}

// operation is one operation of the protocol.
type operation struct {
	about *api.Operation
	serve func(*request) error
}

var service = &api.Service{ID: "S3", SigningName: "s3"}

func op(name, action string, serve func(*request) error) *operation {
	return &operation{about: &api.Operation{Service: service, Name: name, Action: "s3:" + action, DataPlane: strings.Contains(name, "Object") || strings.Contains(name, "Part")}, serve: serve}
}

// ServeCall serves one request, and fills in what it learns about the call. The
// body has not been read.
func (h *Handler) ServeCall(w http.ResponseWriter, r *http.Request, call *api.Call) (resource, code string) {
	q := &request{h: h, e: h.e, w: w, r: r, ctx: r.Context(), call: call}
	w.Header()["x-amz-request-id"] = []string{call.RequestID}
	err := q.serve()
	if q.held > 0 {
		h.documents.Release(q.held)
	}
	if err != nil {
		code = q.fail(err)
	}
	return q.resource(), code
}

func (q *request) resource() string {
	if q.bucket == "" {
		return ""
	}
	arn := "arn:" + q.h.o.Partition + ":s3:::" + clip(q.bucket)
	if q.key != "" {
		arn += "/" + clip(q.key)
	}
	return arn
}

// serve goes through the checks in order: what is asked for, by whom, whether
// they may, and then the operation's own.
func (q *request) serve() error {
	var err error
	if q.query, err = url.ParseQuery(q.r.URL.RawQuery); err != nil {
		return badRequest("InvalidURI", "Couldn't parse the specified URI.")
	}
	path := strings.TrimPrefix(q.r.URL.Path, "/")
	if q.bucket = q.h.hostBucket(q.r.Host); q.bucket != "" {
		q.key = path
	} else {
		q.bucket, q.key, _ = strings.Cut(path, "/")
	}
	o := q.operation()
	if o != nil {
		q.call.Operation = o.about
	}
	if err := q.authenticate(); err != nil {
		return err
	}
	if o == nil {
		return &Error{Code: "MethodNotAllowed", Status: http.StatusMethodNotAllowed, Message: "The specified method is not allowed against this resource.",
			fields: []field{{"Method", q.r.Method}, {"ResourceType", q.kind()}}}
	}
	if v := q.query.Get("versionId"); v != "" && v != "null" && q.key != "" {
		return &Error{Code: "NoSuchVersion", Status: http.StatusNotFound, Message: "The specified version does not exist.", fields: []field{{"Key", clip(q.key)}, {"VersionId", clip(v)}}}
	}
	if err := q.authorise(o.about.Action, q.bucket, q.key, nil); err != nil {
		return err
	}
	if owner := q.r.Header.Get("X-Amz-Expected-Bucket-Owner"); owner != "" && q.bucket != "" {
		if b, err := q.e.bucket(q.bucket); err == nil && b.Account != owner {
			return accessDenied("Access Denied")
		}
	}
	return o.serve(q)
}

func (q *request) kind() string {
	switch {
	case q.bucket == "":
		return "SERVICE"
	case q.key == "":
		return "BUCKET"
	}
	return "OBJECT"
}

func accessDenied(text string) error {
	return &Error{Code: CodeAccessDenied, Status: http.StatusForbidden, Message: text}
}

// authenticate finds out who asks.
func (q *request) authenticate() error {
	c, r := q.call, q.r
	c.Secure = r.TLS != nil
	c.Partition = q.h.o.Partition
	c.Host, c.UserAgent = r.Host, r.UserAgent()
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.Remote = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	c.Region = defaultRegion
	q.payload = r.Header.Get("X-Amz-Content-Sha256")
	anonymous := r.Header.Get("Authorization") == "" && !q.query.Has("X-Amz-Algorithm")
	var err error
	switch {
	case q.h.o.Verifier != nil && anonymous && q.query.Has("Signature"):
		return badRequest("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	case q.h.o.Verifier != nil && anonymous:
		return accessDenied("Anonymous access is not allowed.")
	case q.h.o.Verifier != nil:
		if q.signed, err = q.h.o.Verifier.Verify(r, sigv4.Request{Service: "s3", Secure: c.Secure, Objects: true}); err != nil {
			return q.refusal(err)
		}
		if q.identity, err = q.h.o.Directory.Identity(q.signed.AccessKey, q.signed.Token); err != nil {
			return q.refusal(err)
		}
		q.payload = q.signed.Payload
	case anonymous:
		q.identity = q.h.o.Directory.OpenIdentity("", "")
	default:
		if q.signed, err = sigv4.Parse(r); err != nil {
			return q.refusal(err)
		}
		q.identity = q.h.o.Directory.OpenIdentity(q.signed.AccessKey, q.signed.Token)
	}
	if q.signed != nil {
		c.Region = q.signed.Region
	}
	c.Principal, c.Account = q.identity.Principal, q.identity.Principal.AccountID
	return nil
}

// refusal is a refusal of the verifier or the directory in the protocol's codes.
func (q *request) refusal(err error) error {
	forbidden := func(code, text string) error {
		return &Error{Code: code, Status: http.StatusForbidden, Message: text}
	}
	if e, ok := errors.AsType[*sigv4.Error](err); ok {
		if e.Detail != "" {
			q.h.o.Logger.Debug("signature does not match", "request", q.call.RequestID, "detail", e.Detail)
		}
		byQuery := q.query.Has("X-Amz-Algorithm")
		switch {
		case e.Reason == sigv4.ReasonMismatch:
			return forbidden("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
		case e.Reason == sigv4.ReasonExpired && byQuery:
			return accessDenied("Request has expired")
		case e.Reason == sigv4.ReasonEarly && byQuery:
			return accessDenied("Request is not valid yet")
		case e.Reason == sigv4.ReasonExpired || e.Reason == sigv4.ReasonEarly:
			return forbidden("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
		case e.Reason == sigv4.ReasonUnsigned:
			return accessDenied(e.Message)
		case e.Reason == sigv4.ReasonPayload:
			return badRequest("InvalidRequest", e.Message)
		case e.Code == api.CodeMissingAuthentication:
			return accessDenied("Access Denied")
		case byQuery:
			return badRequest("AuthorizationQueryParametersError", e.Message)
		case e.Code == api.CodeUnrecognizedClient || e.Code == api.CodeExpiredToken:
			return clientRefusal(e.Code)
		}
		return badRequest("AuthorizationHeaderMalformed", e.Message)
	}
	var modelled api.Error
	if errors.As(err, &modelled) {
		return clientRefusal(modelled.ErrorCode())
	}
	return err
}

func clientRefusal(code string) error {
	if code == api.CodeExpiredToken {
		return badRequest("ExpiredToken", "The provided token has expired.")
	}
	return &Error{Code: "InvalidAccessKeyId", Status: http.StatusForbidden, Message: "The AWS Access Key Id you provided does not exist in our records."}
}

// authorise asks the policies of the caller and of the bucket. Without
// signatures there is nobody to hold to them.
func (q *request) authorise(action, bucket, key string, values map[string][]string) error {
	if q.h.o.Verifier == nil {
		return nil
	}
	ask := iam.Request{Principal: q.identity.Principal, Action: action, Resource: "*", Session: q.identity.Session}
	ask.Values = func() map[string][]string {
		all := iam.CallContext(q.call)
		for k, v := range q.conditionValues() {
			all[k] = v
		}
		for k, v := range values {
			all[k] = v
		}
		return all
	}
	var policy *iam.Policy
	if bucket != "" {
		ask.Resource = "arn:" + q.h.o.Partition + ":s3:::" + bucket
		if key != "" {
			ask.Resource += "/" + key
		}
		b, err := q.e.bucket(bucket)
		switch {
		case err == nil:
			ask.ResourceAccount = b.Account
			if b.Policy != "" {
				if policy, err = q.h.policy(b.Policy); err != nil {
					return err
				}
			}
		case Code(err) != CodeNoSuchBucket:
			return err
		}
		if action == "s3:CreateBucket" {
			ask.ResourceAccount, policy = "", nil // whose it is comes out later
		}
	}
	if d := iam.Evaluate(ask, q.identity.Policies, policy); !d.Allowed {
		return accessDenied(d.Reason)
	}
	return nil
}

// conditionValues are the condition keys that follow from the request.
func (q *request) conditionValues() map[string][]string {
	all := map[string][]string{}
	for name, key := range map[string]string{"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys"} {
		if q.query.Has(name) {
			all[key] = q.query[name]
		}
	}
	for _, name := range []string{"X-Amz-Acl", "X-Amz-Copy-Source", "X-Amz-Server-Side-Encryption", "X-Amz-Storage-Class", "X-Amz-Content-Sha256"} {
		if v := q.r.Header.Values(name); len(v) > 0 {
			all["s3:"+strings.ToLower(name)] = v
		}
	}
	return all
}

// maxPolicies bounds the parsed policies kept; reaching it forgets all.
const maxPolicies = 1024

func (h *Handler) policy(text string) (*iam.Policy, error) {
	h.policies.Lock()
	defer h.policies.Unlock()
	if p := h.policies.parsed[text]; p != nil {
		return p, nil
	}
	p, err := iam.ParsePolicy(text, iam.ResourcePolicy)
	if err != nil {
		return nil, err
	}
	if h.policies.parsed == nil || len(h.policies.parsed) >= maxPolicies {
		h.policies.parsed = map[string]*iam.Policy{}
	}
	h.policies.parsed[text] = p
	return p, nil
}

// fail answers with an error, and returns its code.
func (q *request) fail(err error) string {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		if q.ctx.Err() != nil {
			err = &bodyError{err}
		}
		e = asError("serve a request for objects", err)
	}
	if e.Err != nil && e.Status >= http.StatusInternalServerError {
		q.h.o.Logger.Error("request for objects failed", "request", q.call.RequestID, "bucket", q.bucket, "key", clip(q.key), "error", e.Err)
	}
	h := q.w.Header()
	if e.Status == http.StatusNotModified {
		q.w.WriteHeader(e.Status)
		return e.Code
	}
	if e.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if q.r.Method == http.MethodHead {
		q.w.WriteHeader(e.Status)
		return e.Code
	}
	x := newDocument()
	x.open("Error")
	x.text("Code", e.Code)
	x.text("Message", e.Message)
	for _, f := range e.fields {
		x.text(f.name, f.value)
	}
	x.text("Resource", clip(q.r.URL.Path))
	x.text("RequestId", q.call.RequestID)
	x.text("HostId", strings.Join(h[extendedID], ""))
	x.close("Error")
	q.answer(e.Status, x)
	return e.Code
}

// document is XML being written.
type document struct{ b bytes.Buffer }

func newDocument() *document {
	x := &document{}
	x.b.WriteString(xml.Header)
	return x
}

// root opens the outermost element of a reply.
func (x *document) root(name string) { x.b.WriteString("<" + name + ` xmlns="` + namespace + `">`) }
func (x *document) open(name string) { x.b.WriteString("<" + name + ">") }
func (x *document) close(name string) {
	x.b.WriteString("</" + name + ">")
}

func (x *document) text(name, value string) {
	x.open(name)
	x.escape(value)
	x.close(name)
}

func (x *document) number(name string, value int64) { x.text(name, strconv.FormatInt(value, 10)) }
func (x *document) flag(name string, value bool)    { x.text(name, strconv.FormatBool(value)) }
func (x *document) time(name string, t time.Time)   { x.text(name, t.UTC().Format(timeLayout)) }

const timeLayout = "2006-01-02T15:04:05.000Z"

// escape writes a text. Characters that XML has no way to say, which keys may
// hold, are written as references, as the service does; clients that want to
// read them ask for encoded keys.
func (x *document) escape(s string) {
	for _, c := range s {
		switch {
		case c == '&':
			x.b.WriteString("&amp;")
		case c == '<':
			x.b.WriteString("&lt;")
		case c == '>':
			x.b.WriteString("&gt;")
		case c == '"':
			x.b.WriteString("&quot;")
		case c < 0x20 || c == 0x7f || c == 0xfffe || c == 0xffff:
			x.b.WriteString("&#x" + strconv.FormatInt(int64(c), 16) + ";")
		default:
			x.b.WriteRune(c)
		}
	}
}

// answer writes a document.
func (q *request) answer(status int, x *document) {
	h := q.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(x.b.Len()))
	q.w.WriteHeader(status)
	// A client that has gone away is no news.
	_, _ = q.w.Write(x.b.Bytes())
}

// empty answers without a body.
func (q *request) empty(status int) error {
	if status != http.StatusNoContent {
		q.w.Header().Set("Content-Length", "0")
	}
	q.w.WriteHeader(status)
	return nil
}

// readDocument reads a body that is a document, within bounds.
func (q *request) readDocument() ([]byte, error) {
	body, size, err := q.body(maxDocument)
	if err != nil {
		return nil, err
	}
	if size > maxDocument {
		return nil, tooLarge(size, maxDocument)
	}
	if err := q.h.documents.Acquire(q.ctx, size); err != nil {
		return nil, err
	}
	q.held += size
	b := make([]byte, 0, min(size, 64<<10))
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > size {
			return nil, incompleteBody()
		}
		if err == io.EOF {
			if int64(len(b)) < size {
				return nil, incompleteBody()
			}
			return b, nil
		}
		if err != nil {
			return nil, &bodyError{err}
		}
	}
}

// decode reads a document that must be XML.
func (q *request) decode(into any) error {
	b, err := q.readDocument()
	if err != nil {
		return err
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = true
	if err := d.Decode(into); err != nil {
		return malformedXML()
	}
	// White space and comments may follow, a second document may not.
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if _, begins := t.(xml.StartElement); err != nil || begins {
			return malformedXML()
		}
	}
}

func malformedXML() error {
	return badRequest("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}

func notImplemented(what string) error {
	return &Error{Code: "NotImplemented", Status: http.StatusNotImplemented, Message: "A header or document you provided implies functionality that is not implemented: " + what + "."}
}
