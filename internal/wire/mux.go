package wire

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/sigv4"
)

// Options describe a Mux.
type Options struct {
	// Directory says who an access key is. Required.
	Directory *iam.Directory
	// Verifier checks signatures and makes policies count. Nil lets everybody
	// in: requests must carry well-formed authentication, which says in whose
	// name they are made, and may do everything.
	Verifier *sigv4.Verifier
	// Limiter admits calls by the request rate of their operation. Nil admits all.
	Limiter *quota.Limiter
	// MaxBody bounds a request's body, in bytes; default 20 MiB.
	MaxBody int64
	// BodyMemory bounds the buffers of all bodies being served, and a quarter of
	// it more those of bodies up to 64 KiB; default 256 MiB.
	BodyMemory int64
	// Partition is that of the names of resources; default "aws".
	Partition string
	Logger    *slog.Logger
	// Observe is called once for every request, after its reply. It must not
	// block, and must not keep the outcome.
	Observe func(*Outcome)
	// Trace begins a span; the context it returns is the handler's, and end is
	// called when the reply is complete. Nil when tracing is off.
	Trace func(ctx context.Context, r *http.Request, call *api.Call) (_ context.Context, end func(*Outcome))
	// Now is the clock for Call.Time; time.Now if nil.
	Now func() time.Time
}

// Outcome is what happened to a request.
type Outcome struct {
	Call     *api.Call // Operation is nil if the request was not recognised
	Input    api.Shape // nil if it was not decoded; may alias the request
	Resource string    // what the call was about, if its protocol is not the pipeline's
	Status   int       // 499 if the client went away
	Code     string    // of the error reply, empty if there was none
	Err      error     // an internal failure's cause
	Duration time.Duration
	BytesIn  int64
	BytesOut int64
	Encoding string // "json", "cbor"; empty for others
	Major    int    // of the HTTP version
	Method   string
	Path     string
	Attempt  string // amz-sdk-request, as the SDK counts its retries
}

// CallHandler serves requests in a protocol of its own. It answers with the
// call's request id and fills in what it learns about the call. resource is what
// the call was about, code that of an error reply; both may be empty.
type CallHandler interface {
	ServeCall(w http.ResponseWriter, r *http.Request, call *api.Call) (resource, code string)
}

// Authorizer is what a service tells about its resources.
type Authorizer interface {
	// ResourceARN names what a call is about, "*" if nothing, and the account
	// that owns it.
	ResourceARN(call *api.Call, in api.Shape) (arn, owner string)
	// ResourcePolicy returns the policy that is attached to a resource.
	ResourcePolicy(arn string) (policy string, ok bool)
	// ConditionValues returns the condition keys of the service for a call.
	ConditionValues(call *api.Call, in api.Shape) map[string][]string
}

// Further is implemented by an Authorizer whose calls can need more permissions
// than their own action: to tag what they create, to pass a role.
type Further interface {
	FurtherActions(call *api.Call, in api.Shape) []Action
}

// Action is a permission that a call needs besides its own.
type Action struct {
	Name     string // "iam:PassRole"
	Resource string // ARN
	Account  string // that owns it
	// Values are condition keys besides those of the call; may be nil.
	Values map[string][]string
}

// Mux serves every service it has been told about. Register and Route come
// before the first request.
type Mux struct {
	options Options
	targets map[string]*endpoint // by X-Amz-Target
	routes  []route
	streams []streamRoute
	memory  *semaphore.Weighted
	// smallMemory is for bodies up to smallBody.
	smallMemory *semaphore.Weighted

	drain    context.Context
	endDrain context.CancelFunc
	policies policyCache
	inflight atomic.Int64
}

// endpoint is an operation with what serves it.
type endpoint struct {
	operation *api.Operation
	handle    api.Handler
	authorize Authorizer
	replySize atomic.Int64 // of the latest reply
}

type route struct {
	match   func(r *http.Request, body []byte) bool
	handler CallHandler
}

type streamRoute struct {
	match   func(r *http.Request) bool
	handler CallHandler
}

// NewMux returns a Mux without services.
func NewMux(o Options) *Mux {
	if o.MaxBody <= 0 {
		o.MaxBody = 20 << 20
	}
	if o.BodyMemory < o.MaxBody {
		o.BodyMemory = max(256<<20, o.MaxBody)
	}
	if o.Partition == "" {
		o.Partition = "aws"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(*Outcome) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Mux{options: o, targets: map[string]*endpoint{}, memory: semaphore.NewWeighted(o.BodyMemory)}
	m.smallMemory = semaphore.NewWeighted(o.BodyMemory / 4)
	m.drain, m.endDrain = context.WithCancel(context.Background())
	return m
}

// Register adds a service with the target protocol. a may be nil: then every
// resource is "*" and no resource has a policy.
func (m *Mux) Register(s *api.Service, a Authorizer, bindings []api.Binding) {
	for _, b := range bindings {
		m.targets[s.TargetPrefix+"."+b.Operation.Name] = &endpoint{operation: b.Operation, handle: b.Handle, authorize: a}
	}
}

// Resource is the ARN of what a call is about, as its service names it; "*" for
// nothing in particular, empty if the service does not say.
func (m *Mux) Resource(call *api.Call, in api.Shape) string {
	if call.Operation == nil || call.Operation.Service == nil {
		return ""
	}
	e := m.targets[call.Operation.Service.TargetPrefix+"."+call.Operation.Name]
	if e == nil || e.authorize == nil {
		return ""
	}
	arn, _ := e.authorize.ResourceARN(call, in)
	return arn
}

// Route hands requests that match to a handler with a protocol of its own. The
// request's body has been read within the bounds of Options and is in memory;
// everything else, authentication included, is the handler's. r.TLS is set if the
// request came over TLS.
func (m *Mux) Route(match func(r *http.Request, body []byte) bool, h CallHandler) {
	m.routes = append(m.routes, route{match, h})
}

// RouteStream is Route for bodies that may be larger than memory: what matches,
// by its head alone, is handed over before its body has been read, and comes
// before every Route. The body's length is the handler's to bound. A body, or a
// reply, that does not move for a while ends the exchange.
func (m *Mux) RouteStream(match func(r *http.Request) bool, h CallHandler) {
	m.streams = append(m.streams, streamRoute{match, h})
}

// Drain ends event streams after the event being sent. Requests are served on.
func (m *Mux) Drain() { m.endDrain() }

// InFlight is the number of requests being served.
func (m *Mux) InFlight() int { return int(m.inflight.Load()) }

// policyCache keeps parsed resource policies by their text. A policy is parsed
// when it is first asked about, not for every call. The bound is generous for
// policies that exist at one time; reaching it forgets all.
type policyCache struct {
	mu     sync.RWMutex
	parsed map[string]*iam.Policy
}

const maxCachedPolicies = 4096

func (c *policyCache) get(text string) (*iam.Policy, error) {
	c.mu.RLock()
	p := c.parsed[text]
	c.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	p, err := iam.ParsePolicy(text, iam.ResourcePolicy)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parsed == nil || len(c.parsed) >= maxCachedPolicies {
		c.parsed = map[string]*iam.Policy{}
	}
	c.parsed[text] = p
	return p, nil
}

func remote(r *http.Request) netip.AddrPort {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
