package wire

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/wire/awsjson"
	"github.com/millrace/millrace/internal/wire/cbor"
)

// codec is one encoding of bodies.
type codec struct {
	name        string
	contentType string
	unmarshal   func([]byte, api.Shape) error
	append      func([]byte, api.Shape) []byte
	appendError func([]byte, api.Error) []byte
}

var (
	jsonCodec = &codec{"json", "application/x-amz-json-1.1", awsjson.Unmarshal, awsjson.Append, awsjson.AppendError}
	cborCodec = &codec{"cbor", "application/x-amz-cbor-1.1", cbor.Unmarshal, cbor.Append, cbor.AppendError}
)

// form is what a content type asks for.
type form struct{ codec *codec }

var (
	formJSON    = &form{jsonCodec}
	formCBOR    = &form{cborCodec}
	formWrapped = &form{jsonCodec} // application/json: answered in an envelope
	formUnknown = &form{nil}
)

func formOf(contentType string) *form {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/x-amz-json-1.1":
		return formJSON
	case "application/x-amz-cbor-1.1":
		return formCBOR
	case "application/json":
		return formWrapped
	}
	return formUnknown
}

// skipAll reads a body of which only the syntax matters.
type skipAll struct{}

func (skipAll) DecodeFrom(d api.Decoder) error {
	if d.BeginStruct() {
		for _, ok := d.NextMember(); ok; _, ok = d.NextMember() {
			d.Skip()
		}
	}
	return d.Err()
}

func (skipAll) EncodeTo(e api.Encoder)  { e.BeginStruct(); e.EndStruct() }
func (skipAll) Validate(*api.Validator) {}

// newIDs makes the two identifiers of a reply. They are no secrets: a fast
// generator does.
func newIDs() (requestID, id2 string) {
	var raw [80]byte
	for i := 0; i < len(raw); i += 8 {
		binary.LittleEndian.PutUint64(raw[i:], rand.Uint64())
	}
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], raw[:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:], raw[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	// One string for both.
	var both [len(text) + 88]byte
	copy(both[:], text[:])
	base64.StdEncoding.Encode(both[len(text):], raw[16:])
	all := string(both[:])
	return all[:len(text)], all[len(text):]
}

const exposed = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date"

// head sets the headers that every reply has. Date is net/http's.
func (x *exchange) head(contentType string) http.Header {
	h := x.w.Header()
	// Written as the service spells it: there are clients that read the name as
	// it is.
	x.values[0], x.values[1] = x.call.RequestID, x.id2
	h["x-amzn-RequestId"] = x.values[0:1:1]
	h["x-amz-id-2"] = x.values[1:2:2]
	if contentType != "" {
		x.values[2] = contentType
		h["Content-Type"] = x.values[2:3:3]
	}
	if x.r.Header.Get("Origin") != "" {
		h["Access-Control-Allow-Origin"] = []string{"*"}
		h["Access-Control-Expose-Headers"] = []string{exposed}
	}
	return h
}

const (
	// writeGrace and slowestReader give the time a client has to take a reply
	// that does not fit the socket's buffer.
	writeGrace    = 30 * time.Second
	slowestReader = 64 << 10 // bytes a second
	// eagerReply is a size that the socket's buffer takes without waiting.
	eagerReply = 16 << 10
)

// reply writes a whole reply.
func (x *exchange) reply(status int, contentType string, b []byte) {
	h := x.head(contentType)
	if contentType == "" {
		h["Content-Type"] = nil // or net/http would guess one
	}
	x.values[3] = strconv.Itoa(len(b))
	h["Content-Length"] = x.values[3:4:4]
	x.replied = true
	x.outcome.Status, x.outcome.BytesOut = status, int64(len(b))
	x.w.WriteHeader(status)
	if len(b) == 0 {
		return
	}
	if len(b) <= eagerReply {
		x.w.Write(b)
		return
	}
	// A deadline stays with the connection, so it is taken back once everything
	// has been handed to the socket.
	control := http.NewResponseController(x.w)
	control.SetWriteDeadline(time.Now().Add(writeGrace + time.Duration(len(b))*time.Second/slowestReader))
	if _, err := x.w.Write(b); err == nil && control.Flush() == nil {
		control.SetWriteDeadline(time.Time{})
	}
}

// fail answers with an error. One that is not modelled is ours: it is logged and
// becomes an internal failure without a text.
func (x *exchange) fail(err error) {
	var modelled api.Error
	if !errors.As(err, &modelled) {
		x.outcome.Err = err
		switch {
		case x.r.Context().Err() != nil:
			// Nobody reads the reply.
			x.outcome.Code = "ClientGone"
			defer func() { x.outcome.Status = statusClientGone }()
		default:
			x.mux.options.Logger.Error("request failed", "request", x.call.RequestID, "operation", x.operationName(), "error", err)
		}
		modelled = api.NewFrontError(api.CodeInternalFailure, "")
	}
	if x.outcome.Code == "" {
		x.outcome.Code = modelled.ErrorCode()
	}
	buf := getBuffer(512)
	if x.wrapped {
		buf.b = append(buf.b, `{"Output":{"__type":"com.amazon.coral.service#`...)
		buf.b = append(buf.b, modelled.ErrorCode()...)
		buf.b = append(buf.b, `"},"Version":"1.0"}`...)
		x.reply(modelled.HTTPStatus(), "application/json", buf.b)
	} else {
		buf.b = x.codec.appendError(buf.b, modelled)
		x.reply(modelled.HTTPStatus(), x.codec.contentType, buf.b)
	}
	putBuffer(buf)
}

const statusClientGone = 499

// failXML answers as the front end does when it does not know the protocol.
func (x *exchange) failXML(status int, code, text string) {
	x.outcome.Code = code
	var b strings.Builder
	b.WriteString("<" + code + ">\n  <Message>")
	xml.EscapeText(&b, []byte(text))
	b.WriteString("</Message>\n</" + code + ">\n")
	x.reply(status, "", []byte(b.String()))
}

// failBody answers for a body that could not be read.
func (x *exchange) failBody(err error) {
	switch {
	case errors.Is(err, errBodyTooLarge):
		x.outcome.Code = "RequestTooLarge"
		x.w.Header()["Connection"] = []string{"close"}
		control := http.NewResponseController(x.w)
		// Both fail on connections that cannot do it, which are no worse off.
		_ = control.EnableFullDuplex()
		x.reply(http.StatusRequestEntityTooLarge, "", nil)
		_ = control.Flush()
		x.discard(control)
	case errors.Is(err, errNoMemory):
		x.codec = formOf(x.r.Header.Get("Content-Type")).codec
		if x.codec == nil {
			x.codec = jsonCodec
		}
		x.w.Header()["Connection"] = []string{"close"}
		x.fail(api.NewFrontError(api.CodeServiceUnavailable, ""))
	default:
		// The client broke off, or sent nothing for too long.
		x.outcome.Code, x.outcome.Err = "ClientGone", err
		x.w.Header()["Connection"] = []string{"close"}
		x.reply(http.StatusBadRequest, "", nil)
		x.outcome.Status = statusClientGone
	}
}

const (
	discardBytes = 64 << 20
	discardTime  = time.Second
)

// discard reads what a client still sends after it has been refused, for a
// while. A connection that is closed with unread bytes is reset, and takes the
// answer with it before the client has come to read it.
func (x *exchange) discard(control *http.ResponseController) {
	_ = control.SetReadDeadline(time.Now().Add(discardTime))
	_, _ = io.CopyN(io.Discard, x.r.Body, discardBytes)
}

// preflight answers a browser that asks whether it may ask.
func (x *exchange) preflight() {
	h := x.w.Header()
	h["x-amzn-RequestId"] = []string{x.call.RequestID}
	h["Access-Control-Allow-Origin"] = []string{"*"}
	h["Access-Control-Expose-Headers"] = []string{exposed}
	h["Access-Control-Max-Age"] = []string{"172800"}
	if v := x.r.Header.Get("Access-Control-Request-Headers"); v != "" {
		h["Access-Control-Allow-Headers"] = []string{v}
	}
	if v := x.r.Header.Get("Access-Control-Request-Method"); v != "" {
		h["Access-Control-Allow-Methods"] = []string{v}
	}
	h["Content-Length"] = []string{"0"}
	x.replied = true
	x.outcome.Status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
}

// gone tells whether a stream's context ended because its client left.
func (x *exchange) gone(ctx context.Context) bool {
	return ctx.Err() != nil && x.r.Context().Err() != nil
}
