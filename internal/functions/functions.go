// Package functions calls functions: pieces of code that turn an event into an
// answer, and that delivery streams, and clients of the Lambda Invoke API, know
// by name.
//
// The one idea: a name is looked up in one Registry, and what stands behind it
// makes no difference to the caller. It may be
//
//   - a directory below the directory of functions, run here: NAME/bootstrap, or
//     NAME/lambda_function.py, or NAME/index.mjs (local.go, worker.go);
//   - an endpoint that speaks the Lambda Invoke API, a container with the runtime
//     interface emulator, or any URL that answers an event with a result
//     (remote.go), as the file functions.yaml in that directory says (settings.go).
//
// Local functions are programs that the operator put there. Nothing of what they
// run comes through an API: the API calls and lists them, and no more. They run
// as the server's user with an environment of their own, so they are trusted like
// the server's configuration; what is bounded is what they may do by mistake:
// time, memory, concurrency, sizes of answers and logs.
//
// A local function's processes speak the Lambda Runtime API (runtime.go): each
// has a listener of its own, gets one event at a time, and is kept warm for the
// next. Bootstraps built with the public runtime libraries run unchanged; for
// Python and Node the package brings small loops of its own (loops/).
//
// # Locks
//
// Registry.mu guards the table of local functions; local.mu guards one function's
// workers; worker.mu one process's state. They are taken in this order, and none
// is held while a process or a remote endpoint is waited for.
//
// Start reading at Registry.Invoke; api.go serves the Lambda API.
package functions

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/outbound"
)

const (
	// MaxPayload bounds the event of a synchronous call and the answer of any, in
	// bytes. An answer may be a little longer.
	MaxPayload   = 6 << 20
	answerMargin = 100
	// MaxEventPayload bounds the event of an asynchronous call, in bytes.
	MaxEventPayload = 1 << 20
	// tailBytes is how much of its log a call can bring back.
	tailBytes = 4 << 10
)

// Logs keeps what functions print. Log must not block.
type Logs interface {
	Log(ctx context.Context, account, region, group, stream string, at time.Time, event []byte)
}

// Options of a Registry.
type Options struct {
	// Dir holds the functions. It need not exist: then there are none until it
	// does.
	Dir string
	// Account and Region stand in names that do not say.
	Account, Region string
	// Environment is added to that of local functions, NAME=value: where the
	// server answers, for example.
	Environment []string
	// Outbound is which addresses functions.yaml may name.
	Outbound outbound.Policy
	// MaxProcesses bounds the processes of all local functions together; default
	// 64.
	MaxProcesses int
	// InitTimeout is what a process has to ask for its first event, if the function's
	// timeout is not longer; default 10 seconds.
	InitTimeout time.Duration
	// Idle is how long a process is kept without events; default 10 minutes.
	Idle time.Duration
	// Recheck is how old knowledge about files may be; default one second.
	Recheck time.Duration
	Logs    Logs             // nil drops what functions print
	Logger  *slog.Logger     // nil discards
	Now     func() time.Time // time.Now if nil
}

// Request is one call.
type Request struct {
	// Function is a name in any form of ParseName. Account and Region stand in it
	// where it is silent; those of Options if they are empty.
	Function        string
	Account, Region string
	// Payload is the event, a JSON document; empty is an empty object. It is the
	// caller's again when Invoke returns.
	Payload []byte
	// ClientContext is JSON that the function finds in its context; may be empty.
	ClientContext string
	// RequestID is the call's id in logs; made if empty.
	RequestID string
	// Wait lets the call wait, as long as ctx allows, for a process to become
	// free. Otherwise a function that is busy refuses it.
	Wait bool
	// Tail asks for the end of the log of this call.
	Tail bool
}

// Answer is what a function said. FunctionError is empty for a result; otherwise
// Payload describes the error.
type Answer struct {
	Payload       []byte
	FunctionError string // "Unhandled"
	Version       string // that ran: "$LATEST"
	Log           []byte // with Request.Tail, at most 4 KiB
}

// Error is a call that did not reach a function, or whose answer was lost.
type Error struct {
	// Code is Lambda's name of it: ResourceNotFoundException,
	// TooManyRequestsException, ServiceException …
	Code    string
	Message string
	Status  int // of HTTP, as Lambda answers it
	// Throttled says that the same call may succeed a little later.
	Throttled bool
	// After is how long to wait before; 0 if nobody knows.
	After time.Duration
	// Delivery is the code that delivery streams log: Lambda.InvokeLimitExceeded …
	Delivery string
	Err      error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func notFound(arn string) *Error {
	return &Error{Code: "ResourceNotFoundException", Status: 404, Message: "Function not found: " + arn, Delivery: "Lambda.ResourceNotFound"}
}

func tooMany(message string) *Error {
	return &Error{Code: "TooManyRequestsException", Status: 429, Message: message, Throttled: true, After: time.Second, Delivery: "Lambda.InvokeLimitExceeded"}
}

func invalidName(name string) *Error {
	return &Error{Code: "InvalidParameterValueException", Status: 400, Delivery: "Lambda.ResourceNotFound",
		Message: fmt.Sprintf("%q is not the name or ARN of a function", clip(name, maxName))}
}

func internal(err error) *Error {
	return &Error{Code: "ServiceException", Status: 500, Message: "The function could not be run: " + err.Error(), Delivery: "Lambda.InternalServerError", Err: err}
}

// Registry knows all functions. All methods may be called concurrently.
type Registry struct {
	o       Options
	logger  *slog.Logger
	starter *starter
	slots   chan struct{} // one token for each process that runs
	async   *queue
	ctx     context.Context // ends with Close: processes live no longer
	cancel  context.CancelFunc
	group   sync.WaitGroup // everything that runs here

	routes atomic.Pointer[routes]

	mu      sync.Mutex
	closed  bool
	checked time.Time // when functions.yaml was last looked at
	stamp   string    // what it looked like then
	locals  map[string]*local
	idled   chan struct{} // closed when a process becomes idle; nil if nobody waits
}

// New makes a registry. A functions.yaml that cannot be read is an error now; one
// that becomes so later is logged, and what was known stays in force. Close ends
// the registry.
func New(o Options) (*Registry, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.MaxProcesses = cmp.Or(o.MaxProcesses, 64)
	o.InitTimeout = cmp.Or(o.InitTimeout, 10*time.Second)
	o.Idle = cmp.Or(o.Idle, 10*time.Minute)
	o.Recheck = cmp.Or(o.Recheck, time.Second)
	o.Account = cmp.Or(o.Account, "000000000000")
	o.Region = cmp.Or(o.Region, "us-east-1")
	if o.Dir != "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return nil, fmt.Errorf("directory of functions: %w", err)
		}
		o.Dir = dir
	}
	r := &Registry{
		o: o, logger: o.Logger,
		slots:  make(chan struct{}, o.MaxProcesses),
		locals: map[string]*local{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.checked, r.stamp = o.Now(), r.routesStamp()
	first, err := r.loadRoutes()
	if err != nil {
		return nil, err
	}
	r.routes.Store(first)
	r.starter = newStarter(&r.group)
	r.async = newQueue(r)
	return r, nil
}

// Close ends all processes and returns when nothing runs any more. Calls in
// flight fail. It may be called twice.
func (r *Registry) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.group.Wait()
		return nil
	}
	r.closed = true
	locals := make([]*local, 0, len(r.locals))
	for _, l := range r.locals {
		locals = append(locals, l)
	}
	r.mu.Unlock()
	r.cancel()
	for _, l := range locals {
		l.close()
	}
	r.starter.close()
	r.group.Wait()
	r.routes.Load().close()
	return nil
}

// Run does what has to be done now and then: it ends idle processes and repeats
// asynchronous calls. It returns when ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(min(r.o.Idle, 30*time.Second))
	defer tick.Stop()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() { r.async.run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.retireIdle()
		}
	}
}

func (r *Registry) retireIdle() {
	r.mu.Lock()
	locals := make([]*local, 0, len(r.locals))
	for name, l := range r.locals {
		if l.gone() {
			delete(r.locals, name)
		}
		locals = append(locals, l)
	}
	r.mu.Unlock()
	for _, l := range locals {
		l.retireIdle(r.o.Now().Add(-r.o.Idle))
	}
}

// Invoke calls a function and waits for its answer. What the function reports as
// its own failure is an Answer; everything else is an error, of type *Error unless
// ctx ended.
func (r *Registry) Invoke(ctx context.Context, q Request) (Answer, error) {
	q.Account, q.Region = cmp.Or(q.Account, r.o.Account), cmp.Or(q.Region, r.o.Region)
	name, ok := ParseName(q.Function)
	if !ok {
		return Answer{}, invalidName(q.Function)
	}
	if len(q.Payload) == 0 {
		q.Payload = []byte("{}")
	}
	if len(q.Payload) > MaxPayload {
		return Answer{}, &Error{Code: "RequestTooLargeException", Status: 413, Delivery: "Lambda.InvocationFailure",
			Message: fmt.Sprintf("Request must be smaller than %d bytes for the InvokeFunction operation", MaxPayload)}
	}
	// A call may outlive a caller that gives up, and the caller's buffer.
	q.Payload = bytes.Clone(q.Payload)
	if q.RequestID == "" {
		q.RequestID = newID()
	}
	invoke, err := r.find(name, name.ARN(q.Account, q.Region))
	if err != nil {
		return Answer{}, err
	}
	return invoke.invoke(ctx, call{Request: q, name: name, arn: name.ARN(q.Account, q.Region)})
}

// call is a request whose name has been understood.
type call struct {
	Request
	name Name
	arn  string
}

// invoker is one way to call a function.
type invoker interface {
	invoke(ctx context.Context, c call) (Answer, error)
}

// find looks a name up: an exact entry of functions.yaml, with its qualifier and
// without, then a directory, then the patterns of functions.yaml in their order.
func (r *Registry) find(name Name, arn string) (invoker, error) {
	r.refresh()
	table := r.routes.Load()
	if i := table.exact(name, arn); i != nil {
		return i, nil
	}
	l, err := r.local(name)
	if err != nil {
		return nil, err
	}
	if l != nil {
		return l, nil
	}
	if i := table.pattern(name, arn); i != nil {
		return i, nil
	}
	return nil, notFound(arn)
}

// local finds the function of a directory, nil if there is none.
func (r *Registry) local(name Name) (*local, error) {
	if r.o.Dir == "" {
		return nil, nil
	}
	now := r.o.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, stopping()
	}
	l := r.locals[name.Function]
	if l == nil {
		dir := filepath.Join(r.o.Dir, name.Function)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, nil
		}
		l = newLocal(r, name.Function, dir)
		r.locals[name.Function] = l
	}
	if err := l.refresh(now); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, internal(err)
	}
	if l.foreign(name.Account) {
		return nil, nil
	}
	return l, nil
}

// Description is what is known of a function.
type Description struct {
	Name     string
	Invoker  string // local, lambda-api, rie, http
	Pattern  bool   // Name is a pattern of functions.yaml
	Settings        // zero but for Description, Timeout and Concurrency of what runs elsewhere
	// Modified is when a local function's files last changed, CodeSize their bytes
	// and CodeSum the SHA-256 of their names, times and sizes.
	Modified time.Time
	CodeSize int64
	CodeSum  [32]byte
	// Problem is why a local function cannot be called, empty if it can.
	Problem string
}

// List describes all functions that account may call, in order of their names:
// the directories, then what functions.yaml adds.
func (r *Registry) List(account string) ([]Description, error) {
	r.refresh()
	var all []Description
	if r.o.Dir != "" {
		entries, err := os.ReadDir(r.o.Dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the directory of functions: %w", err)
		}
		for _, e := range entries {
			if !localName(e.Name()) {
				continue
			}
			if d, ok := r.describe(Name{Function: e.Name(), Account: account}); ok {
				all = append(all, d)
			}
		}
	}
	for _, d := range r.routes.Load().describe() {
		if !slices.ContainsFunc(all, func(have Description) bool { return have.Name == d.Name }) {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b Description) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Describe describes one function.
func (r *Registry) Describe(name Name, account, region string) (Description, error) {
	r.refresh()
	arn := name.ARN(account, region)
	table := r.routes.Load()
	if i := table.exact(name, arn); i != nil {
		return i.description(name.Function), nil
	}
	if name.Account == "" {
		name.Account = account
	}
	if d, ok := r.describe(name); ok {
		return d, nil
	}
	if i := table.pattern(name, arn); i != nil {
		return i.description(name.Function), nil
	}
	return Description{}, notFound(arn)
}

func (r *Registry) describe(name Name) (Description, bool) {
	l, err := r.local(name)
	if err != nil {
		return Description{Name: name.Function, Invoker: "local", Problem: err.Error()}, true
	}
	if l == nil {
		return Description{}, false
	}
	return l.describe(), true
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// fault is the document that stands in an Answer for a failed function.
type fault struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
}

const unhandled = "Unhandled"

func failed(kind, message string) Answer {
	// Two strings always encode.
	payload, _ := json.Marshal(fault{Message: message, Type: kind})
	return Answer{Payload: payload, FunctionError: unhandled, Version: latest}
}

const latest = "$LATEST"

func throttled(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Throttled
}
