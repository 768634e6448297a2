package functions

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/lambda"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/wire/restjson"
)

// HandlerOptions of a Handler.
type HandlerOptions struct {
	Registry  *Registry
	Directory *iam.Directory
	// Verifier checks signatures and makes policies count; nil lets everybody in,
	// as whom Directory's OpenIdentity says.
	Verifier *sigv4.Verifier
	Now      func() time.Time // time.Now if nil
	Logger   *slog.Logger     // nil discards
}

// Handler serves the Lambda API as far as it calls and reads functions.
type Handler struct{ o HandlerOptions }

// NewHandler makes a handler.
func NewHandler(o HandlerOptions) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Handler{o}
}

// Recognises tells requests for this package: the paths of Lambda's first API
// version.
func Recognises(r *http.Request, _ []byte) bool {
	return r.URL.Path == "/2015-03-31/functions" || strings.HasPrefix(r.URL.Path, "/2015-03-31/functions/")
}

// operations are the operations as policies and logs know them: the right to call
// a function has another name than the call.
var operations = func() map[string]*api.Operation {
	all := map[string]*api.Operation{}
	for _, o := range lambda.Service.Operations {
		mine := *o
		if o.Name == "Invoke" {
			mine.Action = "lambda:InvokeFunction"
		}
		all[o.Name] = &mine
	}
	return all
}()

// ServeCall verifies, authorises and serves one request.
func (h *Handler) ServeCall(w http.ResponseWriter, r *http.Request, call *api.Call) (resource, code string) {
	resource, err := h.serve(w, r, call)
	if err == nil {
		return resource, ""
	}
	refusal := h.refusal(call, err)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header[http.CanonicalHeaderKey(restjson.ErrorTypeHeader)] = []string{refusal.Code}
	header["x-amzn-RequestId"] = []string{call.RequestID}
	if refusal.After > 0 {
		header.Set("Retry-After", strconv.Itoa(max(1, int(refusal.After/time.Second))))
	}
	kind := "User"
	if refusal.Status >= 500 {
		kind = "Service"
	}
	// Strings always encode.
	body, _ := json.Marshal(struct {
		Type    string
		Message string
	}{kind, refusal.Message})
	if refusal.Code == "TooManyRequestsException" {
		body, _ = json.Marshal(struct {
			Reason  string
			Type    string
			Message string `json:"message"`
		}{"ReservedFunctionConcurrentInvocationLimitExceeded", kind, refusal.Message})
	}
	w.WriteHeader(refusal.Status)
	_, _ = w.Write(body)
	return resource, refusal.Code
}

// refusal is an error as Lambda words it.
func (h *Handler) refusal(call *api.Call, err error) *Error {
	var mine *Error
	if errors.As(err, &mine) {
		if mine.Status >= 500 && mine.Err != nil {
			h.o.Logger.Error("function not called", "request", call.RequestID, "code", mine.Code, "error", mine.Err)
		}
		return mine
	}
	var modelled api.Error
	if errors.As(err, &modelled) {
		f := &Error{Code: modelled.ErrorCode(), Message: modelled.ErrorMessage(), Status: modelled.HTTPStatus()}
		switch f.Code {
		case api.CodeAccessDenied, api.CodeMissingAuthentication, api.CodeInvalidSignature, api.CodeUnrecognizedClient, api.CodeExpiredToken, api.CodeIncompleteSignature:
			f.Status = http.StatusForbidden
		}
		return f
	}
	h.o.Logger.Error("lambda call failed", "request", call.RequestID, "error", err)
	return &Error{Code: "ServiceException", Message: "The request failed because of an internal error.", Status: http.StatusInternalServerError}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, call *api.Call) (resource string, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", &Error{Code: "InvalidRequestContentException", Status: 400, Message: "The body cannot be read."}
	}
	path := r.URL.EscapedPath()
	found, params := restjson.Route(lambda.Service, r.Method, path)
	if found == nil {
		return "", &Error{Code: "UnknownOperationException", Status: http.StatusNotFound,
			Message: "Functions are called and read here; they are installed by whoever runs the server."}
	}
	operation := operations[found.Name]
	call.Operation = operation
	identity, err := h.authenticate(r, call, body)
	if err != nil {
		return "", err
	}
	in := operation.NewInput()
	if err := restjson.Decode(nil, restjson.Values{Path: params, Query: r.URL.Query(), Header: r.Header}, in); err != nil {
		return "", &Error{Code: "InvalidParameterValueException", Status: 400, Message: err.Error()}
	}
	if err := operation.Validate(in); err != nil {
		return "", err
	}
	resource, owner := "*", ""
	var name Name
	if text, kind := operation.Resource(in); kind == api.ResourceFunction {
		var ok bool
		if name, ok = ParseName(text); !ok {
			return "", invalidName(text)
		}
		if q := r.URL.Query().Get("Qualifier"); q != "" {
			if name.Qualifier != "" && name.Qualifier != q {
				return "", &Error{Code: "InvalidParameterValueException", Status: 400, Message: "The derived qualifier from the function name does not match the specified qualifier."}
			}
			name.Qualifier = q
		}
		resource, owner = name.ARN(call.Account, call.Region), name.Account
	}
	if h.o.Verifier != nil {
		decision := iam.Evaluate(iam.Request{
			Principal: call.Principal, Action: operation.Action, Resource: resource, ResourceAccount: owner, Session: identity.Session,
			Values: func() map[string][]string { return iam.CallContext(call) },
		}, identity.Policies, nil)
		if err := decision.Err(); err != nil {
			return resource, err
		}
	}
	switch in := in.(type) {
	case *lambda.InvokeInput:
		return resource, h.invoke(w, r, call, in, name, body)
	case *lambda.ListFunctionsInput:
		return resource, h.list(w, call, in)
	case *lambda.GetFunctionInput:
		d, err := h.o.Registry.Describe(name, call.Account, call.Region)
		if err != nil {
			return resource, err
		}
		concurrency := int32(min(d.Concurrency, 1<<30))
		reply(w, call, http.StatusOK, &lambda.GetFunctionOutput{
			Configuration: configuration(d, name, call),
			Concurrency:   &lambda.Concurrency{ReservedConcurrentExecutions: &concurrency},
		})
		return resource, nil
	case *lambda.GetFunctionConfigurationInput:
		d, err := h.o.Registry.Describe(name, call.Account, call.Region)
		if err != nil {
			return resource, err
		}
		reply(w, call, http.StatusOK, configuration(d, name, call))
		return resource, nil
	}
	return resource, fmt.Errorf("operation %s has no server", operation.Name)
}

// authenticate finds out who calls, and fills the call with it.
func (h *Handler) authenticate(r *http.Request, call *api.Call, body []byte) (*iam.Identity, error) {
	call.Secure = r.TLS != nil
	var signed *sigv4.Result
	var identity *iam.Identity
	var err error
	if h.o.Verifier == nil {
		if signed, err = sigv4.Parse(r); err != nil {
			return nil, err
		}
		identity = h.o.Directory.OpenIdentity(signed.AccessKey, signed.Token)
	} else {
		signed, err = h.o.Verifier.Verify(r, sigv4.Request{
			Service: lambda.Service.SigningName, Secure: call.Secure,
			Sum: func() [sha256.Size]byte { return sha256.Sum256(body) },
		})
		if err != nil {
			return nil, err
		}
		if identity, err = h.o.Directory.Identity(signed.AccessKey, signed.Token); err != nil {
			return nil, err
		}
	}
	call.Principal, call.Account, call.Region = identity.Principal, identity.Principal.AccountID, signed.Region
	call.UserAgent, call.Host = r.UserAgent(), r.Host
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		call.Remote = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return identity, nil
}

func reply(w http.ResponseWriter, call *api.Call, status int, out api.Shape) {
	header := w.Header()
	header["x-amzn-RequestId"] = []string{call.RequestID}
	body, _ := restjson.Encode(nil, out, func(location, name, value string) {
		if location == "header" {
			header.Set(name, value)
		}
	})
	header.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (h *Handler) invoke(w http.ResponseWriter, r *http.Request, call *api.Call, in *lambda.InvokeInput, name Name, body []byte) error {
	kind := lambda.InvocationTypeRequestResponse
	if in.InvocationType != nil {
		kind = *in.InvocationType
	}
	request := Request{Function: name.ARN(call.Account, call.Region), Account: call.Account, Region: call.Region, Payload: body, RequestID: call.RequestID,
		Tail: in.LogType != nil && *in.LogType == lambda.LogTypeTail}
	limit := MaxPayload
	if kind == lambda.InvocationTypeEvent {
		limit = MaxEventPayload
	}
	if len(body) > limit {
		return &Error{Code: "RequestTooLargeException", Status: http.StatusRequestEntityTooLarge,
			Message: fmt.Sprintf("%d byte payload is too large for the %s invocation type (limit %d bytes)", len(body), kind, limit)}
	}
	if len(bytes.TrimSpace(body)) > 0 && !json.Valid(body) {
		var v any
		return &Error{Code: "InvalidRequestContentException", Status: 400, Message: fmt.Sprintf("Could not parse request body into json: %v", json.Unmarshal(body, &v))}
	}
	if in.ClientContext != nil {
		if len(*in.ClientContext) > 3583 {
			return &Error{Code: "InvalidRequestContentException", Status: 400, Message: "Client context must be no more than 3583 bytes."}
		}
		text, err := base64.StdEncoding.DecodeString(*in.ClientContext)
		if err != nil || !json.Valid(text) {
			return &Error{Code: "InvalidRequestContentException", Status: 400, Message: "Client context must be a valid Base64-encoded JSON object."}
		}
		var compact bytes.Buffer // as a header line it must not have line breaks
		if err := json.Compact(&compact, text); err != nil {
			return err
		}
		request.ClientContext = compact.String()
	}
	header := w.Header()
	header["x-amzn-RequestId"] = []string{call.RequestID}
	switch kind {
	case lambda.InvocationTypeDryRun:
		if _, err := h.o.Registry.Describe(name, call.Account, call.Region); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case lambda.InvocationTypeEvent:
		if err := h.o.Registry.InvokeAsync(request); err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	answer, err := h.o.Registry.Invoke(r.Context(), request)
	if err != nil {
		return err
	}
	header.Set("X-Amz-Executed-Version", answer.Version)
	if answer.FunctionError != "" {
		header.Set("X-Amz-Function-Error", answer.FunctionError)
	}
	if request.Tail {
		header.Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString(answer.Log))
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(answer.Payload)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(answer.Payload)
	return nil
}

// list is ListFunctions. The marker is the last name of the page before.
func (h *Handler) list(w http.ResponseWriter, call *api.Call, in *lambda.ListFunctionsInput) error {
	all, err := h.o.Registry.List(call.Account)
	if err != nil {
		return err
	}
	limit := 50
	if in.MaxItems != nil {
		limit = min(int(*in.MaxItems), limit)
	}
	after := ""
	if in.Marker != nil {
		after = *in.Marker
	}
	out := &lambda.ListFunctionsOutput{Functions: []lambda.FunctionConfiguration{}}
	last := ""
	for _, d := range all {
		if d.Pattern || d.Name <= after {
			continue // a pattern is not a function
		}
		if len(out.Functions) == limit {
			out.NextMarker = &last
			break
		}
		out.Functions = append(out.Functions, *configuration(d, Name{Function: d.Name}, call))
		last = d.Name
	}
	reply(w, call, http.StatusOK, out)
	return nil
}

// configuration is a function as the API shows it. Values of variables stay with
// the operator: only their number could be told without telling secrets.
func configuration(d Description, name Name, call *api.Call) *lambda.FunctionConfiguration {
	text := func(s string) *string { return &s }
	qualified := name
	qualified.Function = d.Name
	c := &lambda.FunctionConfiguration{
		FunctionName: text(d.Name), FunctionArn: text(qualified.ARN(call.Account, call.Region)), Version: text(latest), Description: text(d.Description),
		Role: text("arn:aws:iam::" + call.Account + ":role/millrace-functions"),
	}
	timeout := int32((d.Timeout + time.Second - 1) / time.Second)
	c.Timeout = &timeout
	state, update, packaging := lambda.StateActive, lambda.LastUpdateStatusSuccessful, lambda.PackageTypeZip
	c.PackageType = &packaging
	if d.Invoker == "local" {
		memory := int32(d.Memory)
		c.Handler, c.MemorySize, c.CodeSize = text(d.Handler), &memory, &d.CodeSize
		c.LastModified = text(d.Modified.UTC().Format("2006-01-02T15:04:05.000-0700"))
		c.CodeSha256 = text(base64.StdEncoding.EncodeToString(d.CodeSum[:]))
		c.RevisionId = text(hex.EncodeToString(d.CodeSum[:4]) + "-" + hex.EncodeToString(d.CodeSum[4:6]) + "-4000-8000-" + hex.EncodeToString(d.CodeSum[6:12]))
		c.LoggingConfig = &lambda.LoggingConfig{LogGroup: text("/aws/lambda/" + d.Name)}
		runtime := map[string]lambda.Runtime{"python": "python3.13", "node": "nodejs22.x"}[d.Runtime]
		if runtime == "" {
			runtime = "provided.al2023"
		}
		c.Runtime = &runtime
		if d.Problem != "" {
			state, update = lambda.StateFailed, lambda.LastUpdateStatusFailed
			c.StateReason, c.LastUpdateStatusReason = text(d.Problem), text(d.Problem)
		}
	}
	c.State, c.LastUpdateStatus = &state, &update
	return c
}
