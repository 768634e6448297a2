package functions

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const runtimeVersion = "/2018-06-01/runtime"

// ServeHTTP is the Lambda Runtime API of one process.
func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	post := r.Method == http.MethodPost
	switch {
	case path == "/2018-06-01/ping" || path == "/ping":
		_, _ = io.WriteString(rw, "pong")
	case path == runtimeVersion+"/invocation/next" && r.Method == http.MethodGet:
		w.next(rw, r)
	case path == runtimeVersion+"/init/error" && post:
		w.initError(rw, r)
	case strings.HasPrefix(path, runtimeVersion+"/invocation/") && post:
		id, what, _ := strings.Cut(strings.TrimPrefix(path, runtimeVersion+"/invocation/"), "/")
		switch what {
		case "response":
			w.result(rw, r, id, false)
		case "error":
			w.result(rw, r, id, true)
		default:
			refuse(rw, http.StatusNotFound, "NotFound", "No such call: "+clip(path, 128))
		}
	case r.Method == http.MethodPut && (path == "/2022-07-01/telemetry" || path == "/2020-08-15/logs"):
		// Clients that may use it take this for an answer, and go on without.
		kind := "Telemetry"
		if strings.HasSuffix(path, "logs") {
			kind = "Logs"
		}
		refuse(rw, http.StatusAccepted, kind+".NotSupported", kind+" API is not supported")
	default:
		refuse(rw, http.StatusNotFound, "NotFound", "No such call: "+clip(path, 128))
	}
}

func refuse(rw http.ResponseWriter, status int, kind, message string) {
	// Two strings always encode.
	body, _ := json.Marshal(fault{Message: message, Type: kind})
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_, _ = rw.Write(body)
}

func wrongOrder(rw http.ResponseWriter, now phase) {
	refuse(rw, http.StatusForbidden, "InvalidStateTransition", "Transition from "+now.String()+" is not allowed.")
}

func (p phase) String() string {
	return [...]string{"Started", "Ready", "InvocationResponse", "ResponseSent", "InitError"}[p]
}

// next hands out the next event, however long it takes to come.
func (w *worker) next(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	if w.polling || w.phase == busy || w.phase == failing {
		defer w.mu.Unlock()
		wrongOrder(rw, w.phase)
		return
	}
	if w.phase == starting {
		w.initTook = max(time.Since(w.begun), 1)
	}
	w.phase, w.polling = ready, true
	w.mu.Unlock()

	var e *event
	select {
	case e = <-w.events:
	case <-r.Context().Done():
	case <-w.dead:
	}
	w.mu.Lock()
	w.polling = false
	if e == nil {
		w.mu.Unlock()
		return
	}
	e.deadline = time.Now().Add(w.settings.Timeout)
	w.phase, w.current = busy, e
	w.mu.Unlock()

	h := rw.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", e.RequestID)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(e.deadline.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", e.arn)
	h.Set("Lambda-Runtime-Trace-Id", traceID(e.RequestID))
	if e.ClientContext != "" {
		h.Set("Lambda-Runtime-Client-Context", e.ClientContext)
	}
	h.Set("Content-Length", strconv.Itoa(len(e.Payload)))
	if _, err := rw.Write(e.Payload); err != nil {
		// It will not answer what it never got.
		w.kill()
	}
}

// traceID has the form that tracing libraries want to see; nothing is sampled.
func traceID(id string) string {
	digits := strings.ReplaceAll(id, "-", "")
	for len(digits) < 32 {
		digits += "0"
	}
	return "Root=1-" + digits[:8] + "-" + digits[8:32] + ";Parent=" + digits[:16] + ";Sampled=0"
}

// errTooLong is an answer over its bound.
var errTooLong = errors.New("too long")

func readAnswer(r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxPayload+answerMargin {
		return nil, errTooLong
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, MaxPayload+answerMargin+1))
	if err == nil && len(b) > MaxPayload+answerMargin {
		err = errTooLong
	}
	return b, err
}

// result takes the answer to the current event.
func (w *worker) result(rw http.ResponseWriter, r *http.Request, id string, isError bool) {
	w.mu.Lock()
	e, now := w.current, w.phase
	w.mu.Unlock()
	if e == nil || e.RequestID != id {
		refuse(rw, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return
	}
	if now != busy {
		wrongOrder(rw, now)
		return
	}
	payload, err := readAnswer(r)
	var a Answer
	status := http.StatusAccepted
	switch {
	case errors.Is(err, errTooLong):
		a, status = tooLarge(), http.StatusRequestEntityTooLarge
	case err != nil:
		// The process broke off: it ends, or tries again.
		refuse(rw, http.StatusBadRequest, "InvalidRequest", "The body could not be read.")
		return
	case isError:
		a = w.reported(r, payload, id)
	default:
		a = Answer{Payload: payload, Version: latest}
		// A streamed answer may fail on its way, and says so behind its body.
		if kind := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); kind != "" {
			body, _ := base64.StdEncoding.DecodeString(r.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
			a = describeError(body, kind, id)
		}
	}
	w.mu.Lock()
	if w.current != e || w.phase != busy {
		now := w.phase
		w.mu.Unlock()
		wrongOrder(rw, now)
		return
	}
	w.phase = answered
	w.mu.Unlock()
	e.answer <- a
	if status == http.StatusRequestEntityTooLarge {
		refuse(rw, status, "RequestEntityTooLarge", fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", MaxPayload+answerMargin))
		return
	}
	accept(rw)
}

func accept(rw http.ResponseWriter) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(rw, `{"status":"OK"}`+"\n")
}

// initError takes a process's word that it cannot start.
func (w *worker) initError(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	now := w.phase
	if now == starting {
		w.phase = failing
	}
	w.mu.Unlock()
	if now != starting {
		wrongOrder(rw, now)
		return
	}
	payload, err := readAnswer(r)
	if err != nil {
		payload = nil
	}
	a := w.reported(r, payload, "")
	w.mu.Lock()
	w.initFail = &a
	w.mu.Unlock()
	accept(rw)
	// It is expected to end. One that stays would keep its caller waiting.
	w.end()
}

func (w *worker) reported(r *http.Request, payload []byte, id string) Answer {
	return describeError(payload, r.Header.Get("Lambda-Runtime-Function-Error-Type"), id)
}

// describeError makes an answer of an error that a runtime reports: its document
// as it is, if it is one.
func describeError(payload []byte, kind, id string) Answer {
	if trimmed := bytes.TrimSpace(payload); len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
		return Answer{Payload: payload, FunctionError: unhandled, Version: latest}
	}
	if kind == "" {
		kind = "Runtime.Unknown"
	}
	text := "The runtime reported an error without describing it."
	if id != "" {
		text = "RequestId: " + id + " Error: " + text
	}
	return failed(clip(kind, 256), text)
}
