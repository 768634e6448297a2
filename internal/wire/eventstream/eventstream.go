// Package eventstream frames messages in the binary form that streaming replies
// use. The one idea is a frame that can be checked before it is believed: its
// lengths have a checksum of their own, so that a reader never takes a length
// from damaged bytes.
//
//	0       4            8            12
//	| total | of headers | CRC of 0–8 | headers … | payload … | CRC of all before |
//
// All integers are big endian; the checksums are CRC-32 with the IEEE polynomial.
// A header is a length byte and a name, a type byte, and a value. The encoder
// writes string headers, the only ones the services send; the decoder reads all
// types. What a message means is not its business. Start reading at AppendEvent.
package eventstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Limits that the SDKs' readers have; the encoder keeps them and the decoder
// enforces them.
const (
	MaxHeaders = 128 << 10
	MaxPayload = 16 << 20
)

const (
	preludeSize = 12
	crcSize     = 4
	minFrame    = preludeSize + crcSize
	typeString  = 7
)

// ErrTooLarge means that a message exceeds MaxHeaders or MaxPayload.
var ErrTooLarge = errors.New("event stream: message too large")

// Header is a header with a string value.
type Header struct{ Name, Value string }

// Message is one frame. Headers that are not strings have their value's bytes.
type Message struct {
	Headers []Header
	Payload []byte
}

// Header gives a header's value, empty if it is absent.
func (m *Message) Header(name string) string {
	for _, h := range m.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// The headers that say what a message is.
const (
	HeaderMessageType   = ":message-type"
	HeaderEventType     = ":event-type"
	HeaderExceptionType = ":exception-type"
	HeaderErrorCode     = ":error-code"
	HeaderErrorMessage  = ":error-message"
	HeaderContentType   = ":content-type"
)

// The values of HeaderMessageType.
const (
	TypeEvent     = "event"
	TypeException = "exception"
	TypeError     = "error"
)

// InitialResponse is the name of the event that begins a stream and carries the
// reply's members outside the stream.
const InitialResponse = "initial-response"

// AppendEvent writes an event behind dst. payload writes the event's body behind
// what it is given, so that a body is encoded in its place.
func AppendEvent(dst []byte, event, contentType string, payload func([]byte) []byte) ([]byte, error) {
	return appendFrame(dst, payload, TypeEvent, HeaderEventType, event, contentType)
}

// AppendException writes a modelled error, which ends a stream, behind dst.
func AppendException(dst []byte, exception, contentType string, payload func([]byte) []byte) ([]byte, error) {
	return appendFrame(dst, payload, TypeException, HeaderExceptionType, exception, contentType)
}

func appendFrame(dst []byte, payload func([]byte) []byte, messageType, nameHeader, name, contentType string) ([]byte, error) {
	start := len(dst)
	dst = append(dst, make([]byte, preludeSize)...)
	for _, h := range [...]Header{{HeaderMessageType, messageType}, {nameHeader, name}, {HeaderContentType, contentType}} {
		dst = appendHeader(dst, h)
	}
	headers := len(dst) - start - preludeSize
	dst = payload(dst)
	return finish(dst, start, headers)
}

// Append writes a message behind dst. It fails with ErrTooLarge, leaving dst as
// it was.
func Append(dst []byte, m *Message) ([]byte, error) {
	start := len(dst)
	out := slices.Grow(dst, minFrame+len(m.Payload)+64*len(m.Headers))
	out = append(out, make([]byte, preludeSize)...)
	for _, h := range m.Headers {
		if len(h.Name) == 0 || len(h.Name) > 255 || len(h.Value) > 1<<15-1 {
			return dst, ErrTooLarge
		}
		out = appendHeader(out, h)
	}
	headers := len(out) - start - preludeSize
	out, err := finish(append(out, m.Payload...), start, headers)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func appendHeader(dst []byte, h Header) []byte {
	dst = append(dst, byte(len(h.Name)))
	dst = append(dst, h.Name...)
	dst = append(dst, typeString)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(h.Value)))
	return append(dst, h.Value...)
}

// finish fills in the lengths and checksums of the frame that begins at start.
func finish(dst []byte, start, headers int) ([]byte, error) {
	frame := dst[start:]
	if headers > MaxHeaders || len(frame)-preludeSize-headers > MaxPayload {
		return dst[:start], ErrTooLarge
	}
	binary.BigEndian.PutUint32(frame, uint32(len(frame)+crcSize))
	binary.BigEndian.PutUint32(frame[4:], uint32(headers))
	binary.BigEndian.PutUint32(frame[8:], crc32.ChecksumIEEE(frame[:8]))
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(frame)), nil
}

// FrameError means that bytes are not a frame.
type FrameError struct{ Reason string }

// Error implements error.
func (e *FrameError) Error() string { return "event stream: " + e.Reason }

// Reader reads messages one after another.
type Reader struct {
	r   io.Reader
	buf []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next reads a message, which is valid until the next call. The error is io.EOF
// at the end of the stream, io.ErrUnexpectedEOF in the middle of a frame, and a
// *FrameError for bytes that are no frame.
func (r *Reader) Next() (*Message, error) {
	r.buf = slices.Grow(r.buf[:0], 4<<10)[:preludeSize]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, err
	}
	total, headers, err := prelude(r.buf)
	if err != nil {
		return nil, err
	}
	// The buffer grows with what arrives, not with what is announced.
	for len(r.buf) < total {
		have := len(r.buf)
		n := min(total, 2*have+64<<10)
		r.buf = slices.Grow(r.buf, n-have)[:n]
		if _, err := io.ReadFull(r.r, r.buf[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return parse(r.buf, headers)
}

// Decode reads the message at the start of b and gives what follows it. The
// message's payload points into b.
func Decode(b []byte) (m *Message, rest []byte, err error) {
	if len(b) < preludeSize {
		return nil, b, io.ErrUnexpectedEOF
	}
	total, headers, err := prelude(b)
	if err != nil {
		return nil, b, err
	}
	if len(b) < total {
		return nil, b, io.ErrUnexpectedEOF
	}
	m, err = parse(b[:total:total], headers)
	return m, b[total:], err
}

func prelude(b []byte) (total, headers int, err error) {
	if crc32.ChecksumIEEE(b[:8]) != binary.BigEndian.Uint32(b[8:]) {
		return 0, 0, &FrameError{"checksum of the prelude does not match"}
	}
	t, h := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	switch {
	case h > MaxHeaders:
		return 0, 0, &FrameError{fmt.Sprintf("%d bytes of headers", h)}
	case t < minFrame || t-minFrame < h:
		return 0, 0, &FrameError{fmt.Sprintf("%d bytes are too few", t)}
	case t-minFrame-h > MaxPayload:
		return 0, 0, &FrameError{fmt.Sprintf("%d bytes of payload", t-minFrame-h)}
	}
	return int(t), int(h), nil
}

func parse(frame []byte, headers int) (*Message, error) {
	end := len(frame) - crcSize
	if crc32.ChecksumIEEE(frame[:end]) != binary.BigEndian.Uint32(frame[end:]) {
		return nil, &FrameError{"checksum of the frame does not match"}
	}
	m := &Message{Payload: frame[preludeSize+headers : end : end]}
	for b := frame[preludeSize : preludeSize+headers]; len(b) > 0; {
		h, rest, ok := header(b)
		if !ok {
			return nil, &FrameError{"malformed header"}
		}
		m.Headers = append(m.Headers, h)
		b = rest
	}
	return m, nil
}

func header(b []byte) (h Header, rest []byte, ok bool) {
	n := int(b[0])
	if n == 0 || len(b) < 1+n+1 {
		return h, nil, false
	}
	h.Name = string(b[1 : 1+n])
	kind := b[1+n]
	b = b[1+n+1:]
	size := 0
	switch kind {
	case 0, 1: // true, false
	case 2: // byte
		size = 1
	case 3: // short
		size = 2
	case 4: // integer
		size = 4
	case 5, 8: // long, timestamp
		size = 8
	case 9: // UUID
		size = 16
	case 6, typeString: // bytes, string
		if len(b) < 2 {
			return h, nil, false
		}
		size = int(binary.BigEndian.Uint16(b))
		b = b[2:]
	default:
		return h, nil, false
	}
	if len(b) < size {
		return h, nil, false
	}
	h.Value = string(b[:size])
	return h, b[size:], true
}
