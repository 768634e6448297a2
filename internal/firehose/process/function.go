package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/firehose/record"
)

const (
	// MaxPayload bounds an event and an answer, in bytes.
	MaxPayload = 6 << 20
	// maxInvocation is how long the service waits for a function.
	maxInvocation = 5 * time.Minute
)

// Invoker runs functions. It may be called concurrently.
type Invoker interface {
	// Invoke runs the function of the ARN with an event and waits for its answer.
	// payload is not changed while Invoke runs, nor after it failed. A function that fails by itself is
	// an answer; an error means that it could not be run, and is an *InvokeError
	// where more is known about it.
	Invoke(ctx context.Context, arn string, payload []byte) (Answer, error)
}

// Answer is what a function answered.
type Answer struct {
	Payload []byte
	// FunctionError says that the payload is an error object: "Unhandled" or
	// "Handled"; empty otherwise.
	FunctionError string
}

// InvokeError is why a function could not be run.
type InvokeError struct {
	Code      string // "Lambda.InvokeAccessDenied", "Lambda.ServiceUnavailable" …
	Message   string
	Throttled bool // Code is empty, or Lambda.InvokeLimitExceeded
	Err       error
}

func (e *InvokeError) Error() string { return e.Code + ": " + e.Message }

// Unwrap returns the cause.
func (e *InvokeError) Unwrap() error { return e.Err }

// The codes of failures of functions.
const (
	codeMissingID       = "Lambda.MissingRecordId"
	codeDuplicatedID    = "Lambda.DuplicatedRecordId"
	codeInvalidFormat   = "Lambda.InvalidReturnFormat"
	codeProcessingState = "Lambda.ProcessingFailedStatus"
	codeNotJSON         = "Lambda.JsonProcessingException"
	codeFunctionError   = "Lambda.FunctionError"
	codeTimedOut        = "Lambda.FunctionTimedOut"
	codeRequestTimedOut = "Lambda.FunctionRequestTimedOut"
	codeLimitExceeded   = "Lambda.InvokeLimitExceeded"
	codeInvocation      = "Lambda.InvocationFailure"
)

// backOff is the pause after the given attempt, from 1: 100 ms, doubled up to
// 5 s, a quarter of it by chance, so that those who were throttled together do
// not come back together.
func backOff(attempt int) time.Duration {
	pause := 5 * time.Second
	if attempt < 7 {
		pause = min(pause, 100*time.Millisecond<<(attempt-1))
	}
	return pause - rand.N(pause/4)
}

var payloads = sync.Pool{New: func() any { return new([]byte) }}

// invoke sends the records through the function, in as many invocations as its
// buffer size and the bounds of a payload ask for.
func (r *run) invoke(ctx context.Context) error {
	f := r.chain.config.Function
	buffer := payloads.Get().(*[]byte)
	defer payloads.Put(buffer)
	in := r.records
	r.records = make([]record.Record, 0, len(in))
	for len(in) > 0 {
		n, data := 0, int64(0)
		e := event{payload: (*buffer)[:0], meta: &r.meta, split: r.chain.config.Split != nil}
		e.begin()
		for n < len(in) && (n == 0 || data+int64(len(in[n].Data)) <= f.Buffer.Bytes) && e.add(&in[n]) {
			data += int64(len(in[n].Data))
			n++
		}
		if n == 0 {
			r.failFunction(&in[0], 1, codeInvocation, fmt.Sprintf("The event for the record would be larger than the %d bytes that a function takes.", MaxPayload))
			in = in[1:]
			continue
		}
		payload := e.end()
		*buffer = payload
		if err := r.invokeBatch(ctx, in[:n], &e, payload); err != nil {
			*buffer = nil
			return err
		}
		if r.abandoned {
			// An attempt that was given up may still be read from somewhere.
			*buffer, r.abandoned = nil, false
		}
		in = in[n:]
	}
	return nil
}

func (r *run) failFunction(rec *record.Record, attempts int, code, message string) {
	r.failed = append(r.failed, Failed{
		Record: *rec, ErrorType: ErrorTypeProcessing, Code: code, Message: message,
		Attempts: attempts, Ended: time.Now(), FunctionARN: r.chain.config.Function.ARN,
	})
}

// invokeBatch has the function process in, with retries, and sorts out what
// became of each record.
func (r *run) invokeBatch(ctx context.Context, in []record.Record, e *event, payload []byte) error {
	f := r.chain.config.Function
	for attempt := 1; ; attempt++ {
		start := time.Now()
		answer, failure := r.invokeOnce(ctx, f.ARN, payload)
		if err := ctx.Err(); err != nil {
			return err
		}
		r.stats.Invocations++
		r.stats.InvocationTime += time.Since(start)
		if failure == nil {
			r.sort(in, e, answer)
			return nil
		}
		r.stats.FailedInvocations++
		if attempt > f.Retries {
			for i := range in {
				r.failFunction(&in[i], attempt, failure.Code, failure.Message)
			}
			return nil
		}
		timer := time.NewTimer(r.chain.pause(attempt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// invokeOnce makes one attempt. A failure is one of the invocation, to be
// repeated; an answer that makes no sense is none.
func (r *run) invokeOnce(ctx context.Context, arn string, payload []byte) ([]byte, *InvokeError) {
	ctx, cancel := context.WithTimeout(ctx, maxInvocation)
	defer cancel()
	answer, err := r.chain.invoker.Invoke(ctx, arn, payload)
	if err != nil {
		r.abandoned = true
		var failure *InvokeError
		switch {
		case errors.As(err, &failure):
			failure = &InvokeError{Code: failure.Code, Message: failure.Message, Throttled: failure.Throttled, Err: err}
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			failure = &InvokeError{Code: codeRequestTimedOut, Message: fmt.Sprintf("The function did not answer within %s.", maxInvocation), Err: err}
		default:
			failure = &InvokeError{Code: codeInvocation, Message: err.Error(), Err: err}
		}
		switch {
		case failure.Code == "" && failure.Throttled:
			failure.Code = codeLimitExceeded
		case failure.Code == "":
			failure.Code = codeInvocation
		}
		return nil, failure
	}
	if len(answer.Payload) > MaxPayload {
		return nil, &InvokeError{Code: codeInvocation, Message: fmt.Sprintf("The function answered %d bytes; at most %d are taken.", len(answer.Payload), MaxPayload)}
	}
	if failure := functionError(answer); failure != nil {
		return nil, failure
	}
	return answer.Payload, nil
}

// functionError finds out whether an answer is that of a function that failed.
// Runtimes without a header for it show it in the answer alone: an error object
// that has no records, or the words of one that took too long.
func functionError(a Answer) *InvokeError {
	text := bytes.TrimSpace(a.Payload)
	if a.FunctionError == "" && bytes.HasPrefix(text, []byte("Task timed out after ")) {
		return &InvokeError{Code: codeTimedOut, Message: string(text[:min(len(text), 200)])}
	}
	message, kind, records := "", "", false
	s := scanner{text: text}
	if s.peek() == '{' {
		_ = s.object(func(name []byte, _ bool) error {
			var err error
			switch {
			case string(name) == "errorMessage" && s.peek() == '"':
				message, err = s.string()
			case string(name) == "errorType" && s.peek() == '"':
				kind, err = s.string()
			case string(name) == "records":
				records = true
				if a.FunctionError == "" {
					return errDecided
				}
				_, err = s.skip()
			default:
				_, err = s.skip()
			}
			return err
		})
	}
	if a.FunctionError == "" && (records || message == "" && kind == "") {
		return nil
	}
	if strings.HasPrefix(message, "Task timed out after ") || strings.Contains(message, " Task timed out after ") || kind == "Sandbox.Timedout" {
		return &InvokeError{Code: codeTimedOut, Message: message}
	}
	said := "The Lambda function was successfully invoked but it returned an error result."
	switch {
	case message != "" && kind != "":
		said += " " + kind + ": " + message
	case message+kind != "":
		said += " " + message + kind
	}
	return &InvokeError{Code: codeFunctionError, Message: clip(said)}
}

var errDecided = errors.New("decided")

// sort puts every record where the answer says.
func (r *run) sort(in []record.Record, e *event, answer []byte) {
	reply, err := parseReply(answer, e)
	if err != nil {
		for i := range in {
			r.failFunction(&in[i], 1, codeNotJSON, "The answer of the function is not JSON: "+err.Error())
		}
		return
	}
	for i := range in {
		rec, outcome := &in[i], &reply.outcomes[i]
		switch outcome.state {
		case stateOK:
			r.stats.Processed.add(len(rec.Data))
			out := *rec
			out.Data = outcome.data
			if outcome.keys != nil {
				keys := record.Keys{Function: outcome.keys}
				if rec.Keys != nil {
					keys.Query = rec.Keys.Query
				}
				out.Keys = &keys
			}
			if outcome.table != nil {
				out.Table = outcome.table
			}
			r.records = append(r.records, out)
		case stateDropped:
			r.stats.Processed.add(len(rec.Data))
			r.stats.Dropped++
		case stateFailed:
			r.failFunction(rec, 1, codeProcessingState, "ProcessingFailed status set for record")
		case stateDuplicated:
			r.failFunction(rec, 1, codeDuplicatedID, "The Lambda function returned the record ID more than once.")
		case stateInvalid:
			r.failFunction(rec, 1, codeInvalidFormat, outcome.message)
		default:
			r.failFunction(rec, 1, codeMissingID, "The Lambda function did not return the record ID.")
		}
	}
}
