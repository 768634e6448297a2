package wire

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// stillness is how long the body of a request, or the reader of a reply, may not
// move before the exchange ends. Neither holds more than a buffer meanwhile.
const stillness = time.Minute

// handStream gives the request to a handler that reads the body itself.
func (x *exchange) handStream(h CallHandler) {
	control := http.NewResponseController(x.w)
	r := x.r.WithContext(x.ctx)
	body := &movingBody{body: x.r.Body, control: control, ended: x.r.ContentLength == 0}
	r.Body = body
	if t := connectionState(x.ctx); t != nil {
		r.TLS = t
	}
	if r.ContentLength == 0 && r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		// There is nothing to send, and no answer is needed. But the AWS CLI and
		// boto3, when the final reply comes instead, misread the next one on the
		// connection and wait for a minute.
		x.w.WriteHeader(http.StatusContinue)
	}
	x.head("")
	reply := &movingReply{recorder: recorder{ResponseWriter: x.w, status: http.StatusOK}, control: control}
	reply.closing = func() bool {
		// A client that asked whether to send has not begun, and reading would
		// tell it to.
		asked := r.Header.Get("Expect") != "" && body.read == 0
		return !asked && !body.ended && (x.r.ContentLength < 0 || x.r.ContentLength-body.read > drained)
	}
	x.replied = true
	// Deadlines stay with the connection, and the next request has its own. On
	// connections that have none there is nothing to take back.
	defer control.SetWriteDeadline(time.Time{})
	defer body.stop()
	x.outcome.Resource, x.outcome.Code = h.ServeCall(reply, r, &x.call)
	x.outcome.Status, x.outcome.BytesOut = reply.status, reply.written
	x.outcome.BytesIn = body.read
	if reply.closes {
		_ = control.Flush()
		x.discard(control)
	}
	if x.r.Context().Err() != nil {
		x.outcome.Status = statusClientGone
	}
}

// movingBody is a body that must go on coming. It may be read and stopped by two
// goroutines.
type movingBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	mu      sync.Mutex
	read    int64
	ended   bool // read to the end, or as far as it goes
	stopped bool
}

func (b *movingBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if !b.stopped {
		_ = b.control.SetReadDeadline(time.Now().Add(stillness))
	}
	b.mu.Unlock()
	n, err := b.body.Read(p)
	b.read += int64(n)
	if err != nil {
		b.ended = true
		b.stop()
	}
	return n, err
}

// stop takes the deadline back: net/http goes on reading to learn of a client
// that leaves, and would take it for one.
func (b *movingBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.stopped = true
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

func (b *movingBody) Close() error { return b.body.Close() }

// movingReply is a reply that must go on being taken.
type movingReply struct {
	recorder
	control *http.ResponseController
	closing func() bool
	closes  bool
}

// drained is how much of an unread body net/http reads by itself.
const drained = 256 << 10

// WriteHeader has the connection closed after a refusal that comes before the
// end of a long body.
func (r *movingReply) WriteHeader(status int) {
	if status >= http.StatusBadRequest && r.closing() {
		r.closes = true
		r.Header()["Connection"] = []string{"close"}
		// It fails on connections that need it not.
		_ = r.control.EnableFullDuplex()
	}
	r.recorder.WriteHeader(status)
}

func (r *movingReply) Write(p []byte) (int, error) {
	_ = r.control.SetWriteDeadline(time.Now().Add(stillness))
	return r.recorder.Write(p)
}
