package wire

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/wire/eventstream"
)

// eventTimeout bounds the time a client takes for one event. It is as long as a
// whole subscription, since a consumer that works on a large batch reads nothing
// meanwhile; one that vanished without a word is noticed here.
const eventTimeout = 5 * time.Minute

// errDraining is the cause of a stream's end when the server stops.
var errDraining = errors.New("server is stopping")

// stream answers with events until they end, the client leaves, or the server
// stops. Every frame leaves at once; send returns when the frame is on its way,
// and so keeps the sender at the client's pace.
func (x *exchange) stream(out api.EventStream) {
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	defer context.AfterFunc(x.mux.drain, func() { cancel(errDraining) })()

	x.head("application/vnd.amazon.eventstream")
	x.replied = true
	x.outcome.Status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(x.w)
	buf := getBuffer(4 << 10)
	defer func() { putBuffer(buf) }()

	write := func() error {
		if err := control.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil {
			return err
		}
		n, err := x.w.Write(buf.b)
		x.outcome.BytesOut += int64(n)
		if err != nil {
			return err
		}
		return control.Flush()
	}
	send := func(event string, value api.Shape) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var err error
		buf.b, err = eventstream.AppendEvent(buf.b[:0], event, jsonCodec.contentType, func(dst []byte) []byte {
			return jsonCodec.append(dst, value)
		})
		if err != nil {
			return err
		}
		return write()
	}

	// The SDKs wait for this event before they hand the stream to their caller.
	err := send(eventstream.InitialResponse, out)
	if err == nil {
		err = out.StreamEvents(ctx, send)
	}
	// The deadline must not meet the next request on this connection.
	defer control.SetWriteDeadline(time.Time{})
	if err == nil || errors.Is(err, errDraining) || errors.Is(context.Cause(ctx), errDraining) {
		return
	}
	if x.gone(ctx) {
		x.outcome.Code = "ClientGone"
		return
	}
	var modelled api.Error
	if !errors.As(err, &modelled) {
		x.outcome.Err = err
		x.mux.options.Logger.Error("event stream failed", "request", x.call.RequestID, "operation", x.operationName(), "error", err)
		modelled = &api.FrontError{Code: "InternalFailureException", Status: http.StatusInternalServerError}
	}
	x.outcome.Code = modelled.ErrorCode()
	frame, err := eventstream.AppendException(buf.b[:0], modelled.ErrorCode(), jsonCodec.contentType, func(dst []byte) []byte {
		return jsonCodec.appendError(dst, modelled)
	})
	if err == nil {
		buf.b = frame
		// Nothing can be told to a client that does not take this.
		_ = write()
	}
}
