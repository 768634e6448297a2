// Package identity answers the calls that credential chains, Terraform and
// tools with roles make besides those to the services: the security token
// service (STS), and the part of the identity service (IAM) that manages users,
// access keys and roles. Both speak the query protocol: a form in, XML out.
//
// The one idea: nothing is kept for a session. The token that AssumeRole hands
// out carries the session, sealed (see iam.Directory.Issue), so it outlives
// restarts and costs no storage.
//
// Recognises tells these requests from those of other services; Handler serves
// them. Start reading at Handler.ServeHTTP.
package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/sigv4"
)

const (
	stsVersion   = "2011-06-15"
	stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	iamVersion   = "2010-05-08"
	iamNamespace = "https://iam.amazonaws.com/doc/2010-05-08/"
	// maxBody bounds a form. The largest real one carries two policies, 50 tags
	// and a token.
	maxBody = 256 << 10
)

// Options of a Handler.
type Options struct {
	Directory *iam.Directory
	// Verifier checks signatures; nil lets everybody in, as whom Directory's
	// OpenIdentity says.
	Verifier *sigv4.Verifier
	Issuers  []Issuer         // trusted for AssumeRoleWithWebIdentity
	Now      func() time.Time // time.Now if nil
	Logger   *slog.Logger     // gets why signatures do not match; may be nil
	// RequestID makes request ids; random UUIDs if nil.
	RequestID func() string
}

// Handler serves STS and IAM.
type Handler struct{ o Options }

// New makes a handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RequestID == nil {
		o.RequestID = newUUID
	}
	return &Handler{o}
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Recognises reports whether a request is for this package: its scope names
// sts or iam, or it is a query call of one of the two versions. The body is
// looked at only if its type is that of a form; nil will do if there is none.
func Recognises(r *http.Request, body []byte) bool {
	if r.Header.Get("X-Amz-Target") != "" {
		return false
	}
	if h := r.Header.Get("Authorization"); h != "" {
		return strings.Contains(h, "/sts/aws4_request") || strings.Contains(h, "/iam/aws4_request")
	}
	if strings.Contains(r.URL.RawQuery, "Action=") {
		q := r.URL.Query()
		return versioned(q)
	}
	if isForm(r) && len(body) <= maxBody {
		form, err := url.ParseQuery(string(body))
		return err == nil && versioned(form)
	}
	return false
}

func versioned(q url.Values) bool {
	v := q.Get("Version")
	return q.Get("Action") != "" && (v == stsVersion || v == iamVersion)
}

func isForm(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == "application/x-www-form-urlencoded"
}

// call is one request on its way through an operation.
type call struct {
	ctx    context.Context
	form   url.Values
	who    *iam.Identity // nil for operations that are not signed
	region string
	http   *http.Request
	now    time.Time
}

// fault is an error as the query protocol writes it.
type fault struct {
	code, message string
	status        int
}

func (f *fault) Error() string { return f.code + ": " + f.message }

func (f *fault) sender() string {
	if f.status >= 500 {
		return "Receiver"
	}
	return "Sender"
}

func badRequest(code, format string, args ...any) error {
	return &fault{code, fmt.Sprintf(format, args...), http.StatusBadRequest}
}

func denied(text string) error { return &fault{"AccessDenied", text, http.StatusForbidden} }

// element is a piece of a reply.
type element struct {
	name     string
	text     string
	children []element
}

func text(name, value string) element             { return element{name: name, text: value} }
func group(name string, parts ...element) element { return element{name: name, children: parts} }

func appendElement(b *strings.Builder, e element) {
	b.WriteString("<" + e.name + ">")
	// Writing to a strings.Builder cannot fail.
	_ = xml.EscapeText(b, []byte(e.text))
	for _, c := range e.children {
		appendElement(b, c)
	}
	b.WriteString("</" + e.name + ">")
}

type operation struct {
	serve    func(h *Handler, c *call) ([]element, error)
	unsigned bool
	empty    bool // the reply has no result element
}

// ServeHTTP is ServeCall for requests nobody has given a call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.ServeCall(w, r, &api.Call{RequestID: h.o.RequestID()})
}

// ServeCall verifies and serves one call. It reads the body itself, and fills in
// what it learns: who calls, what for, and, as its results, the resource the
// call is about and the code of its error, both empty if there is none.
func (h *Handler) ServeCall(w http.ResponseWriter, r *http.Request, about *api.Call) (resource, code string) {
	id := about.RequestID
	c, namespace, name, result, err := h.serve(r, about)
	var b strings.Builder
	status := http.StatusOK
	if err != nil {
		f := h.fault(err, id)
		status, code = f.status, f.code
		b.WriteString(`<ErrorResponse xmlns="` + namespace + `">`)
		appendElement(&b, group("Error", text("Type", f.sender()), text("Code", f.code), text("Message", f.message)))
		appendElement(&b, text("RequestId", id))
		b.WriteString("</ErrorResponse>\n")
	} else {
		b.WriteString("<" + name + `Response xmlns="` + namespace + `">`)
		if result != nil {
			appendElement(&b, group(name+"Result", result...))
		}
		appendElement(&b, group("ResponseMetadata", text("RequestId", id)))
		b.WriteString("</" + name + "Response>\n")
	}
	w.Header().Set("Content-Type", "text/xml")
	// Spelled as other replies spell it, so that there is only one.
	w.Header()["x-amzn-RequestId"] = []string{id}
	w.WriteHeader(status)
	// A client that has gone away is no news.
	_, _ = io.WriteString(w, b.String())
	return c.resource(), code
}

// serve returns the call too once it knows its operation, else nil.
func (h *Handler) serve(r *http.Request, about *api.Call) (c *call, namespace, name string, result []element, err error) {
	namespace = stsNamespace
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, namespace, "", nil, badRequest("ValidationError", "The body cannot be read.")
	}
	if len(body) > maxBody {
		return nil, namespace, "", nil, &fault{"RequestEntityTooLarge", "The body is too large.", http.StatusRequestEntityTooLarge}
	}
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil && len(body) > 0 {
		var posted url.Values
		posted, err = url.ParseQuery(string(body))
		for k, v := range posted {
			form[k] = append(v, form[k]...)
		}
	}
	if err != nil {
		return nil, namespace, "", nil, badRequest("MalformedQueryString", "The query string contains a syntax error.")
	}
	name = form.Get("Action")
	service, table := "sts", stsOperations
	if form.Get("Version") == iamVersion {
		service, table, namespace = "iam", iamOperations, iamNamespace
	}
	op, known := table[name]
	if !known {
		if name == "" {
			return nil, namespace, name, nil, &fault{"MissingAction", "The request has no Action parameter.", http.StatusBadRequest}
		}
		return nil, namespace, name, nil, badRequest("InvalidAction", "Could not find operation %s for version %s", clip(name), clip(form.Get("Version")))
	}
	about.Operation = described[service][name]
	c = &call{ctx: r.Context(), form: form, http: r, now: h.o.Now()}
	if !op.unsigned {
		if err := h.authenticate(c, service, body); err != nil {
			return c, namespace, name, nil, err
		}
		about.Principal, about.Account, about.Region = c.who.Principal, c.who.Principal.AccountID, c.region
	}
	result, err = op.serve(h, c)
	if err == nil && result == nil && !op.empty {
		result = []element{}
	}
	return c, namespace, name, result, err
}

// described are the operations as the rest of the server knows them.
var described = map[string]map[string]*api.Operation{"sts": describe("sts", stsOperations), "iam": describe("iam", iamOperations)}

func describe(service string, table map[string]operation) map[string]*api.Operation {
	about := &api.Service{ID: strings.ToUpper(service), SigningName: service}
	all := make(map[string]*api.Operation, len(table))
	for name := range table {
		all[name] = &api.Operation{Service: about, Name: name, Action: service + ":" + name}
	}
	return all
}

// resource names what a call is about, empty for nothing in particular.
func (c *call) resource() string {
	if c == nil {
		return ""
	}
	if role := c.form.Get("RoleArn"); role != "" {
		return clip(role)
	}
	account := ""
	if c.who != nil {
		account = c.who.Principal.AccountID
	}
	for _, kind := range []string{"User", "Role"} {
		if name := c.form.Get(kind + "Name"); name != "" {
			return "arn:aws:iam::" + account + ":" + strings.ToLower(kind) + "/" + clip(name)
		}
	}
	return ""
}

func (h *Handler) authenticate(c *call, service string, body []byte) error {
	if h.o.Verifier == nil {
		res, err := sigv4.Parse(c.http)
		if err != nil {
			return err
		}
		c.region, c.who = res.Region, h.o.Directory.OpenIdentity(res.AccessKey, res.Token)
		return nil
	}
	res, err := h.o.Verifier.Verify(c.http, sigv4.Request{
		Service: service, Secure: c.http.TLS != nil,
		Sum: func() [sha256.Size]byte { return sha256.Sum256(body) },
	})
	if err != nil {
		return err
	}
	c.region = res.Region
	c.who, err = h.o.Directory.Identity(res.AccessKey, res.Token)
	return err
}

// fault turns any error into one of the query protocol, whose codes for
// signatures differ from those of the JSON services.
func (h *Handler) fault(err error, id string) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	var policy *iam.PolicyError
	if errors.As(err, &policy) {
		return &fault{"MalformedPolicyDocument", policy.Error(), http.StatusBadRequest}
	}
	var refusal *sigv4.Error
	if errors.As(err, &refusal) {
		if refusal.Detail != "" {
			h.o.Logger.Info("signature mismatch", "request", id, "detail", refusal.Detail)
		}
		code := refusal.Code
		switch code {
		case api.CodeMissingAuthentication:
			code = "MissingAuthenticationToken"
		case api.CodeIncompleteSignature:
			code = "IncompleteSignature"
		case api.CodeInvalidSignature:
			code = "SignatureDoesNotMatch"
		case api.CodeUnrecognizedClient:
			code = "InvalidClientTokenId"
		case api.CodeExpiredToken:
			code = "ExpiredToken"
		}
		return &fault{code, refusal.Message, http.StatusForbidden}
	}
	h.o.Logger.Error("identity call failed", "request", id, "error", err)
	return &fault{"InternalFailure", "The request processing has failed because of an unknown error, exception or failure.", http.StatusInternalServerError}
}

// context is what conditions may ask about the call.
func (c *call) context() map[string][]string {
	known := api.Call{Time: c.now, Secure: c.http.TLS != nil, Region: c.region, UserAgent: c.http.UserAgent()}
	if host, _, err := net.SplitHostPort(c.http.RemoteAddr); err == nil {
		if a, err := netip.ParseAddr(host); err == nil {
			known.Remote = netip.AddrPortFrom(a, 0)
		}
	}
	m := iam.CallContext(&known)
	if c.who != nil {
		for k, v := range c.who.Tags {
			m["aws:PrincipalTag/"+k] = []string{v}
		}
		if c.who.SourceIdentity != "" {
			m["aws:SourceIdentity"] = []string{c.who.SourceIdentity}
		}
	}
	return m
}

func clip(s string) string {
	if len(s) > 128 {
		s = s[:128]
	}
	return strings.ToValidUTF8(s, "?")
}
