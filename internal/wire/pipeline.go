package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/sigv4"
)

// exchange is one request on its way through the pipeline.
type exchange struct {
	mux   *Mux
	w     http.ResponseWriter
	r     *http.Request
	start time.Time

	call     api.Call
	endpoint *endpoint
	in       api.Shape
	body     body
	codec    *codec // of the reply
	wrapped  bool   // in the envelope of application/json
	id2      string
	ctx      context.Context
	outcome  Outcome
	replied  bool
	values   [4]string // of the reply's headers, in the order of their making
}

// ServeHTTP serves a request of any service.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.inflight.Add(1)
	defer m.inflight.Add(-1)
	x := &exchange{mux: m, w: w, r: r, start: time.Now(), ctx: r.Context()}
	x.outcome.Call = &x.call
	x.call.RequestID, x.id2 = newIDs()
	x.call.Time = m.options.Now()
	defer x.finish()
	defer x.recover()
	x.run()
}

// run is the whole order of checks. Which fails first is part of the contract;
// every step either passes or answers.
func (x *exchange) run() {
	m, r := x.mux, x.r

	// Bodies larger than memory are read by whom they concern.
	for _, route := range m.streams {
		if route.match(r) {
			x.handStream(route.handler)
			return
		}
	}

	// 1. The body is read, whatever comes of it: a reply before the end of the
	// body costs the connection.
	if err := m.readBody(x.w, r, &x.body); err != nil {
		x.failBody(err)
		return
	}
	payload := x.body.bytes()
	x.outcome.BytesIn = int64(len(payload))

	// Requests in a protocol of their own leave here.
	for _, route := range m.routes {
		if route.match(r, payload) {
			x.hand(route.handler, payload)
			return
		}
	}

	// 2.
	if r.Method == http.MethodOptions {
		x.preflight()
		return
	}

	// 3.
	if r.Method != http.MethodPost {
		x.failXML(http.StatusForbidden, "AccessDeniedException", undetermined)
		return
	}

	// What was asked for, and in what form. Both are looked up here and judged
	// below.
	target := r.Header.Get("X-Amz-Target")
	x.endpoint = m.targets[target]
	form := formOf(r.Header.Get("Content-Type"))
	x.codec = form.codec
	if x.endpoint != nil {
		x.call.Operation = x.endpoint.operation
		if x.endpoint.operation.Streaming {
			// Clients that write CBOR here read JSON, errors included.
			x.codec = jsonCodec
		}
	}

	// 4.
	if len(payload) == 0 {
		code := api.CodeUnknownOperation
		if x.endpoint != nil {
			code = api.CodeSerialization
		}
		if form == formUnknown {
			x.codec = cborCodec
		}
		x.fail(api.NewFrontError(code, ""))
		return
	}

	// 5.
	if form == formUnknown {
		if target == "" {
			x.failXML(http.StatusForbidden, "AccessDeniedException", undetermined)
		} else {
			x.reply(http.StatusNotFound, "", []byte("<UnknownOperationException/>"))
			x.outcome.Code = api.CodeUnknownOperation
		}
		return
	}

	// The signature covers the body as it came, and parsing works in place.
	var sum [sha256.Size]byte
	if m.options.Verifier != nil {
		sum = sha256.Sum256(payload)
	}

	// 6. The body is read into the operation's input, or into nothing. A value
	// of the wrong type is for later.
	var in api.Shape = skipAll{}
	if x.endpoint != nil && form != formWrapped {
		in = x.endpoint.operation.NewInput()
	}
	parsed := form.codec.unmarshal(payload, in)
	var mistyped *api.TypeError
	if parsed != nil && !errors.As(parsed, &mistyped) {
		x.wrapped = form == formWrapped
		x.fail(api.NewFrontError(api.CodeSerialization, ""))
		return
	}

	// 7.
	if form == formWrapped {
		x.wrapped = true
		x.fail(&api.FrontError{Code: api.CodeUnknownOperation, Status: http.StatusNotFound})
		return
	}

	// 8.
	if x.endpoint == nil {
		x.fail(api.NewFrontError(api.CodeUnknownOperation, ""))
		return
	}
	operation := x.endpoint.operation

	// 9 and 10.
	identity, err := x.authenticate(operation, sum)
	if err != nil {
		x.fail(err)
		return
	}

	// 11.
	if mistyped != nil {
		x.fail(api.NewFrontError(api.CodeSerialization, mistyped.Message))
		return
	}
	x.in = in

	// 12.
	if err := operation.Validate(in); err != nil {
		x.fail(err)
		return
	}

	// 13.
	if err := x.authorize(identity); err != nil {
		x.fail(err)
		return
	}

	// 14.
	if l := m.options.Limiter; l != nil {
		resource, _ := operation.Resource(in)
		if !l.Call(x.call.Account, x.call.Region, operation.Name, resource) {
			x.fail(x.tooFast(resource))
			return
		}
	}

	// 15 and everything after it is the service's.
	if m.options.Trace != nil {
		var end func(*Outcome)
		x.ctx, end = m.options.Trace(x.ctx, r, &x.call)
		x.call.OnFinish(func() { end(&x.outcome) })
	}
	out, err := x.endpoint.handle(x.ctx, &x.call, in)
	switch {
	case err != nil:
		x.fail(err)
	case operation.Streaming:
		x.stream(out.(api.EventStream))
	case !operation.HasOutput:
		x.reply(operation.Status, x.codec.contentType, nil)
	default:
		// Replies of an operation resemble each other in size, up to the size
		// where a wrong guess would cost memory: of large ones the handler tells.
		buf := getBuffer(max(min(int(x.endpoint.replySize.Load()), maxGuess), x.call.ReplySize))
		buf.b = x.codec.append(buf.b, out)
		x.endpoint.replySize.Store(int64(len(buf.b)))
		x.reply(operation.Status, x.codec.contentType, buf.b)
		putBuffer(buf)
	}
}

// maxGuess bounds the buffer that a reply gets because the one before it was
// that large.
const maxGuess = 64 << 10

const undetermined = "Unable to determine service/operation name to be authorized"

// authenticate finds out who calls, and fills the call with it.
func (x *exchange) authenticate(operation *api.Operation, sum [sha256.Size]byte) (*iam.Identity, error) {
	o := &x.mux.options
	c := &x.call
	c.Secure = secure(x.ctx)
	var signed *sigv4.Result
	var identity *iam.Identity
	var err error
	if o.Verifier == nil {
		signed, err = sigv4.Parse(x.r)
		if err != nil {
			return nil, err
		}
		identity = o.Directory.OpenIdentity(signed.AccessKey, signed.Token)
	} else {
		signed, err = o.Verifier.Verify(x.r, sigv4.Request{
			Service: operation.Service.SigningName,
			Secure:  c.Secure,
			Sum:     func() [sha256.Size]byte { return sum },
		})
		if err != nil {
			var refused *sigv4.Error
			if errors.As(err, &refused) && refused.Detail != "" {
				o.Logger.Debug("signature does not match", "request", c.RequestID, "detail", refused.Detail)
			}
			return nil, err
		}
		identity, err = o.Directory.Identity(signed.AccessKey, signed.Token)
		if err != nil {
			return nil, err
		}
	}
	c.Principal = identity.Principal
	c.Account = identity.Principal.AccountID
	c.Region = signed.Region
	c.Partition = o.Partition
	c.Remote = remote(x.r)
	c.Host = x.r.Host
	c.UserAgent = x.r.UserAgent()
	return identity, nil
}

// authorize asks the policies. Without signatures there is nobody to hold to
// them.
func (x *exchange) authorize(identity *iam.Identity) error {
	if x.mux.options.Verifier == nil {
		return nil
	}
	request := iam.Request{
		Principal: identity.Principal,
		Action:    x.endpoint.operation.Action,
		Resource:  "*",
		Values:    x.conditionValues,
		Session:   identity.Session,
	}
	var resource *iam.Policy
	if a := x.endpoint.authorize; a != nil {
		request.Resource, request.ResourceAccount = a.ResourceARN(&x.call, x.in)
		if text, ok := a.ResourcePolicy(request.Resource); ok {
			var err error
			if resource, err = x.mux.policies.get(text); err != nil {
				return fmt.Errorf("read the policy of %s: %w", request.Resource, err)
			}
		}
	}
	if err := iam.Evaluate(request, identity.Policies, resource).Err(); err != nil {
		return err
	}
	further, ok := x.endpoint.authorize.(Further)
	if !ok {
		return nil
	}
	for _, a := range further.FurtherActions(&x.call, x.in) {
		request.Action, request.Resource, request.ResourceAccount = a.Name, a.Resource, a.Account
		request.Values = func() map[string][]string {
			all := x.conditionValues()
			maps.Copy(all, a.Values)
			return all
		}
		if err := iam.Evaluate(request, identity.Policies, nil).Err(); err != nil {
			return err
		}
	}
	return nil
}

// conditionValues are what the conditions of policies may ask about the call.
func (x *exchange) conditionValues() map[string][]string {
	all := iam.CallContext(&x.call)
	if a := x.endpoint.authorize; a != nil {
		for key, values := range a.ConditionValues(&x.call, x.in) {
			all[key] = values
		}
	}
	return all
}

// tooFast is the refusal of a call above its operation's rate.
func (x *exchange) tooFast(resource string) error {
	// Services other than Data Streams say it in the words of all services.
	if x.call.Operation.Service.SigningName != "kinesis" {
		return &api.FrontError{Code: api.CodeThrottling, Message: "Rate exceeded", Status: http.StatusBadRequest}
	}
	text := "Rate exceeded for account " + x.call.Account + "."
	if resource != "" {
		name := resource[strings.LastIndexByte(resource, '/')+1:]
		text = "Rate exceeded for stream " + name + " under account " + x.call.Account + "."
	}
	return &api.FrontError{Code: "LimitExceededException", Message: text, Status: http.StatusBadRequest}
}

// hand gives the request to a handler with its own protocol.
func (x *exchange) hand(h CallHandler, payload []byte) {
	r := x.r.WithContext(x.ctx)
	r.Body = io.NopCloser(bytes.NewReader(payload))
	r.ContentLength = int64(len(payload))
	if t := connectionState(x.ctx); t != nil {
		r.TLS = t
	}
	x.head("")
	record := &recorder{ResponseWriter: x.w, status: http.StatusOK}
	x.replied = true
	x.outcome.Resource, x.outcome.Code = h.ServeCall(record, r, &x.call)
	x.outcome.Status, x.outcome.BytesOut = record.status, record.written
}

type recorder struct {
	http.ResponseWriter
	status  int
	written int64
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.written += int64(n)
	return n, err
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// recover turns a panic of a handler into an internal failure, with the stack in
// the log. The connection goes on unless the reply has begun.
func (x *exchange) recover() {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	x.mux.options.Logger.Error("panic while serving a request", "request", x.call.RequestID,
		"operation", x.operationName(), "panic", v, "stack", string(debug.Stack()))
	x.outcome.Err = fmt.Errorf("panic: %v", v)
	if x.replied {
		panic(http.ErrAbortHandler)
	}
	if x.codec == nil {
		x.codec = jsonCodec
	}
	x.fail(api.NewFrontError(api.CodeInternalFailure, ""))
}

func (x *exchange) operationName() string {
	if x.call.Operation == nil {
		return ""
	}
	return x.call.Operation.Name
}

// finish runs when the reply has been written, or could not be.
func (x *exchange) finish() {
	o := &x.outcome
	o.Input = x.in
	o.Duration = time.Since(x.start)
	o.Major, o.Method, o.Path = x.r.ProtoMajor, x.r.Method, x.r.URL.Path
	o.Attempt = x.r.Header.Get("Amz-Sdk-Request")
	if x.codec != nil {
		o.Encoding = x.codec.name
	}
	if x.call.Host == "" {
		x.call.Remote, x.call.Host, x.call.UserAgent = remote(x.r), x.r.Host, x.r.UserAgent()
	}
	x.mux.options.Observe(o)
	x.call.Finish()
	x.mux.release(&x.body)
}
