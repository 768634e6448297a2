package functions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/sigv4"
)

// remote is a function that runs somewhere else.
type remote struct {
	Route
	client  *http.Client
	busy    chan struct{} // one token for each call in flight
	options *Options
}

func newRemote(route Route, r *Registry) (*remote, error) {
	if err := route.check(); err != nil {
		return nil, err
	}
	route.Region = cmp.Or(route.Region, r.o.Region)
	client, err := outbound.Client(outbound.Options{Policy: r.o.Outbound, TLS: route.TLS, MaxConns: route.Concurrency})
	if err != nil {
		return nil, err
	}
	return &remote{Route: route, client: client, busy: make(chan struct{}, route.Concurrency), options: &r.o}, nil
}

func (e *remote) description(name string) Description {
	return Description{Name: name, Invoker: e.Invoker,
		Settings: Settings{Description: e.Description, Timeout: e.Timeout, Concurrency: e.Concurrency}}
}

func (e *remote) invoke(ctx context.Context, c call) (Answer, error) {
	if c.Wait {
		select {
		case e.busy <- struct{}{}:
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	} else {
		select {
		case e.busy <- struct{}{}:
		default:
			return Answer{}, tooMany("Rate Exceeded.")
		}
	}
	defer func() { <-e.busy }()
	within, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	answer, err := e.exchange(within, c)
	if err != nil && ctx.Err() != nil {
		return Answer{}, ctx.Err()
	}
	return answer, err
}

// exchange makes one call.
func (e *remote) exchange(ctx context.Context, c call) (Answer, error) {
	address := strings.TrimSuffix(e.URL, "/")
	switch e.Invoker {
	case "lambda-api":
		name := cmp.Or(e.Function, c.arn)
		if c.name.Account == "" && e.Function == "" {
			// What the caller left open, the other side fills in.
			name = c.name.Function
		}
		address += "/2015-03-31/functions/" + url.PathEscape(strings.TrimSuffix(name, ":"+c.name.Qualifier)) + "/invocations"
		if c.name.Qualifier != "" {
			address += "?Qualifier=" + url.QueryEscape(c.name.Qualifier)
		}
	case "rie":
		address += "/2015-03-31/functions/function/invocations"
	default:
		address = e.URL
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(c.Payload))
	if err != nil {
		return Answer{}, internal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for name, value := range e.Headers {
		r.Header.Set(name, value)
	}
	if e.Invoker == "lambda-api" {
		r.Header.Set("X-Amz-Invocation-Type", "RequestResponse")
		if c.Tail {
			r.Header.Set("X-Amz-Log-Type", "Tail")
		}
		if c.ClientContext != "" {
			r.Header.Set("X-Amz-Client-Context", base64.StdEncoding.EncodeToString([]byte(c.ClientContext)))
		}
		if e.AccessKey != "" {
			sigv4.Sign(r, c.Payload, sigv4.Credentials{AccessKey: e.AccessKey, SecretKey: e.SecretKey, SessionToken: e.SessionToken}, e.Region, "lambda", e.options.Now())
		}
	}
	res, err := e.client.Do(r)
	if err != nil {
		return Answer{}, e.unreachable(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxPayload+answerMargin+1))
	if err != nil {
		return Answer{}, e.unreachable(err)
	}
	if len(body) > MaxPayload+answerMargin {
		return tooLarge(), nil
	}
	return e.read(res, body)
}

func tooLarge() Answer {
	return failed("Function.ResponseSizeTooLarge", fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", MaxPayload+answerMargin))
}

func (e *remote) unreachable(err error) error {
	f := &Error{Code: "ServiceException", Status: 502, Message: "The function's endpoint " + e.host() + " does not answer.", Delivery: "Lambda.ServiceUnavailable", Err: err}
	switch outbound.Explain(err) {
	case outbound.Timeout, outbound.ConnectTimeout:
		f.Delivery, f.Message = "Lambda.FunctionRequestTimedOut", "The function's endpoint "+e.host()+" did not answer in time."
	case outbound.Reset:
		f.Delivery = "Lambda.TargetServerFailedToRespond"
	case outbound.Refused:
		f.Message = "The setting outbound does not let functions be called at " + e.host() + "."
	}
	if errors.Is(err, context.DeadlineExceeded) {
		f.Delivery, f.Message = "Lambda.FunctionRequestTimedOut", "The function's endpoint "+e.host()+" did not answer in time."
	}
	return f
}

// host is the endpoint without what the URL's path and query may hold.
func (e *remote) host() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// read makes an answer of what came back.
func (e *remote) read(res *http.Response, body []byte) (Answer, error) {
	if res.StatusCode/100 == 2 {
		a := Answer{Payload: body, FunctionError: res.Header.Get("X-Amz-Function-Error"), Version: cmp.Or(res.Header.Get("X-Amz-Executed-Version"), latest)}
		if tail := res.Header.Get("X-Amz-Log-Result"); tail != "" && len(tail) <= 2*tailBytes {
			a.Log, _ = base64.StdEncoding.DecodeString(tail) // a log that cannot be read is none
		}
		if e.Invoker == "rie" {
			return readEmulated(a), nil
		}
		return a, nil
	}
	kind, _, _ := strings.Cut(res.Header.Get("X-Amzn-Errortype"), ":")
	var said struct{ Message string }
	var document map[string]any
	if json.Unmarshal(body, &document) == nil {
		for _, key := range []string{"Message", "message", "errorMessage"} {
			if s, ok := document[key].(string); ok {
				said.Message = cmp.Or(said.Message, clip(s, 1024))
			}
		}
		if s, ok := document["__type"].(string); ok && kind == "" {
			kind = s[strings.LastIndexByte(s, '#')+1:]
		}
	}
	f := &Error{Code: cmp.Or(kind, "ServiceException"), Status: res.StatusCode,
		Message: cmp.Or(said.Message, "The function's endpoint "+e.host()+" answered "+strconv.Itoa(res.StatusCode)+"."), Delivery: deliveryCode(kind, res.StatusCode)}
	if e.Invoker == "rie" {
		switch res.StatusCode {
		case http.StatusBadRequest:
			// The emulator has no words for being busy.
			if len(body) == 0 {
				return Answer{}, tooMany("The emulator serves another call.")
			}
		case http.StatusBadGateway:
			return failed("Runtime.ExitError", cmp.Or(said.Message, "The function could not be started, or ended without an answer.")), nil
		}
	}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds < 3600 {
		f.After = time.Duration(seconds) * time.Second
	}
	f.Throttled = res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable
	return Answer{}, f
}

// readEmulated finds errors in answers of the runtime interface emulator, which
// drops the header that tells them.
func readEmulated(a Answer) Answer {
	text := strings.TrimSpace(string(a.Payload[:min(len(a.Payload), 200)]))
	if strings.HasPrefix(text, "Task timed out after ") {
		return failed("Sandbox.Timedout", text)
	}
	if !strings.HasPrefix(text, "{") || !bytes.Contains(a.Payload, []byte(`"errorMessage"`)) && !bytes.Contains(a.Payload, []byte(`"errorType"`)) {
		return a
	}
	var document map[string]json.RawMessage
	if json.Unmarshal(a.Payload, &document) == nil {
		_, message := document["errorMessage"]
		_, kind := document["errorType"]
		_, records := document["records"]
		if (message || kind) && !records {
			a.FunctionError = unhandled
		}
	}
	return a
}

// deliveryCode is what delivery streams call a failure of the Lambda API.
func deliveryCode(kind string, status int) string {
	switch strings.TrimSuffix(kind, "Exception") {
	case "ResourceNotFound":
		return "Lambda.ResourceNotFound"
	case "TooManyRequests", "Throttling", "RecursiveInvocation":
		return "Lambda.InvokeLimitExceeded"
	case "AccessDenied", "KMSAccessDenied", "EC2AccessDenied":
		return "Lambda.InvokeAccessDenied"
	case "InvalidZipFile":
		return "Lambda.InvalidZipFileException"
	case "InvalidSignature", "UnrecognizedClient", "ExpiredToken", "MissingAuthenticationToken", "IncompleteSignature":
		return "Lambda.InvalidSecurityToken"
	case "InvalidSubnetID":
		return "Lambda.InvalidSubnetIDException"
	case "InvalidSecurityGroupID":
		return "Lambda.InvalidSecurityGroupIDException"
	case "SubnetIPAddressLimitReached":
		return "Lambda.SubnetIPAddressLimitReachedException"
	case "ENILimitReached":
		return "Lambda.ENILimitReachedException"
	}
	switch {
	case status == http.StatusTooManyRequests:
		return "Lambda.InvokeLimitExceeded"
	case status == http.StatusNotFound:
		return "Lambda.ResourceNotFound"
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return "Lambda.InvokeAccessDenied"
	case status == http.StatusInternalServerError:
		return "Lambda.InternalServerError"
	case status >= 500:
		return "Lambda.ServiceUnavailable"
	}
	return "Lambda.InvocationFailure"
}
