package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// Fault is the kind of a failed exchange, as far as codes tell them apart.
type Fault int

// Kinds of failure.
const (
	Other              Fault = iota
	Canceled                 // the caller gave up
	Refused                  // the policy does not allow it
	BadURL                   // the URL cannot be asked for
	BadHeader                // a header to be sent holds illegal characters
	Timeout                  // no answer in time
	ConnectFailed            // no connection: name, address, port
	ConnectTimeout           // no connection in time
	Reset                    // a connection broke
	TLSHandshake             // no common ground in the handshake
	CertificatePath          // no path from the certificate to an authority
	CertificateInvalid       // a path, but it does not hold: name, time, use
	TLSFailure               // TLS broke in another way
	HeadersTooLarge          // the answer's head has no end
	IllegalStart             // what came is not HTTP
	IllegalResponse          // HTTP, but not well-formed
)

// Explain says what kind of failure an error of an http.Client is. A nil error
// is Other.
//
// What net/http tells only in words is recognised by its words; the tests of
// this package produce each of them with a real peer, so that a change of the
// library shows there.
func Explain(err error) Fault {
	if err == nil {
		return Other
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return Refused
	}
	text := err.Error()
	var (
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		system    x509.SystemRootsError
		verify    *tls.CertificateVerificationError
		alert     tls.AlertError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		op        *net.OpError
		parse     *url.Error
		isTimeout interface{ Timeout() bool }
	)
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		(errors.As(err, &isTimeout) && isTimeout.Timeout())
	dialing := (errors.As(err, &op) && op.Op == "dial") || errors.As(err, &dns)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.As(err, &unknown), errors.As(err, &system):
		return CertificatePath
	case errors.As(err, &invalid), errors.As(err, &hostname):
		return CertificateInvalid
	case errors.As(err, &verify):
		return CertificateInvalid
	case errors.As(err, &record), errors.As(err, &alert),
		has("server gave HTTP response to HTTPS client", "TLS handshake timeout", "remote error: tls:"):
		return TLSHandshake
	case has("tls: "):
		return TLSFailure
	case timeout && dialing:
		return ConnectTimeout
	case timeout:
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	case dialing:
		return ConnectFailed
	case has("server response headers exceeded"):
		return HeadersTooLarge
	case has("invalid header field"):
		return BadHeader
	case has("malformed HTTP response", "malformed HTTP status code", "malformed HTTP version"):
		return IllegalStart
	case has("malformed MIME header", "bad Content-Length", "Content-Length", "transfer encoding", "invalid byte in chunk length", "malformed chunked encoding", "missing Location"):
		return IllegalResponse
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed), has("server closed idle connection", "connection reset", "broken pipe", "transport connection broken"):
		return Reset
	case has("unsupported protocol scheme", "no Host in request URL", "invalid URL", "missing protocol scheme"),
		errors.As(err, &parse) && parse.Op == "parse":
		return BadURL
	case errors.As(err, &op):
		return ConnectFailed
	}
	return Other
}

// Plain is the text of an error in one line of valid UTF-8, at most 500 bytes
// long, without the URL that an http.Client puts before it: that may hold a token.
func Plain(err error) string {
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	text := err.Error()
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text[:min(len(text), 500)])
	return strings.ToValidUTF8(text, "")
}
