// Package sigv4 signs HTTP requests with AWS Signature Version 4 and verifies
// those that others have signed.
//
// The one idea: signer and verifier share the code that turns a request into
// its canonical text (canonical.go), so they can only be wrong together, and
// the published vectors and those of botocore keep them from being wrong
// together. The verifier looks a secret up through Keys; it stores nothing but
// a bounded cache of derived signing keys, and knows no policies.
//
// Both forms are handled: the Authorization header, and the query string of
// presigned addresses. SigV4a, signed chunks (aws-chunked) and signed event
// streams are refused: no service here is modelled for them.
//
// Start reading at Verifier.Verify; Parse is its first half, for servers that
// let everybody in and only want to know who it claims to be.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
)

const (
	algorithm       = "AWS4-HMAC-SHA256"
	terminator      = "aws4_request"
	timeLayout      = "20060102T150405Z"
	dateLayout      = "20060102"
	unsignedPayload = UnsignedPayload

	// maxSignedHeaders bounds the canonical text: every name may bring a
	// header's whole value into it. Real clients sign fewer than twenty.
	maxSignedHeaders = 100
	// maxEchoBytes bounds what an error text repeats of the request.
	maxEchoBytes = 4 << 10
	// maxExpires is the longest life of a presigned address.
	maxExpires = 7 * 24 * time.Hour
)

// What may be declared in place of a body's hash. The streaming forms are of the
// object protocol only: the body then comes in chunks.
const (
	UnsignedPayload          = "UNSIGNED-PAYLOAD"
	StreamingPayload         = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	StreamingPayloadTrailer  = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	StreamingUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// Credentials sign a request.
type Credentials struct {
	AccessKey    string
	SecretKey    string
	SessionToken string // empty for long-term keys
}

// Keys finds the secret of an access key. token is the session token that came
// with the request, empty if none did; whether it belongs to the key is for the
// implementation to say. An error that is an api.Error goes to the client, see
// ErrUnknownKey and ErrExpiredToken; any other is ours.
type Keys interface {
	Secret(accessKey, token string) (secret string, err error)
}

// KeysFunc is a function that is a Keys.
type KeysFunc func(accessKey, token string) (secret string, err error)

// Secret calls f.
func (f KeysFunc) Secret(accessKey, token string) (string, error) { return f(accessKey, token) }

// What Keys implementations answer with. Do not modify them.
var (
	ErrUnknownKey   error = &Error{Code: api.CodeUnrecognizedClient, Message: "The security token included in the request is invalid."}
	ErrExpiredToken error = &Error{Code: api.CodeExpiredToken, Message: "The security token included in the request is expired"}
)

// Error is a refusal. It implements api.Error.
type Error struct {
	Code    string
	Message string
	// Reason is set where protocols have codes of their own for it.
	Reason Reason
	// Detail is the canonical request and the string to sign of a signature
	// that does not match, with the session token left out. It helps whoever
	// reads the server's log and must not be sent to the client.
	Detail string
}

// Reason is what a refusal was about.
type Reason uint8

// The reasons that are told apart; all others are ReasonOther.
const (
	ReasonOther    Reason = iota
	ReasonMismatch        // the signature is another
	ReasonExpired         // the request's time is past
	ReasonEarly           // the request's time is to come
	ReasonScope           // the credential scope names something else
	ReasonUnsigned        // something that must be signed is not
	ReasonPayload         // the payload's declaration is missing or malformed
)

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// ErrorCode is the short name on the wire.
func (e *Error) ErrorCode() string { return e.Code }

// ErrorMessage is the text on the wire.
func (e *Error) ErrorMessage() string { return e.Message }

// HTTPStatus is 400; front ends that speak XML answer 403 instead.
func (e *Error) HTTPStatus() int { return http.StatusBadRequest }

// Result says who signed a request, or claims to have.
type Result struct {
	AccessKey     string
	Date          string // of the credential scope, YYYYMMDD
	Region        string // of the credential scope; any text
	Service       string // of the credential scope, "kinesis"
	Token         string // session token, empty if none came along
	Time          time.Time
	SignedHeaders []string // as listed
	Query         bool     // the query form was used
	// Payload is what the signature says of the body, for a request of the object
	// protocol that has been verified: a SHA-256 in hexadecimal, UnsignedPayload,
	// or one of the streaming forms.
	Payload string

	terminator string
	timeText   string
	signature  string
	expires    time.Duration // 0: none given
	query      query
	key        [sha256.Size]byte // of the scope; once verified
}

// Options of a Verifier. The zero value is usable.
type Options struct {
	// Window is how far a request's time may be from ours; 5 minutes if zero.
	Window time.Duration
	// AllowUnsignedPayload accepts UNSIGNED-PAYLOAD in clear text too.
	AllowUnsignedPayload bool
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Request is what the verifier must know besides the HTTP request itself.
type Request struct {
	// Service is the signing name that the scope must bear; any if empty.
	Service string
	// Secure says that the request came over TLS.
	Secure bool
	// EmptyPayload accepts a signature over no payload, for operations whose
	// body is endless (PutMedia).
	EmptyPayload bool
	// Objects applies the rules of the object protocol (S3): the path is encoded
	// once and never cleaned, every X-Amz header is signed, and the body is not
	// looked at here: whoever reads it holds it to Result.Payload, chunk by chunk
	// with Result.Chunks where it is signed that way.
	Objects bool
	// Sum returns the SHA-256 of the body. It is called at most once, and not
	// at all if the payload is unsigned or an earlier check fails.
	Sum func() [sha256.Size]byte
}

// Verifier verifies requests. It may be used concurrently.
type Verifier struct {
	keys    Keys
	options Options
	cache   keyCache
}

// NewVerifier makes a verifier for the keys that keys knows.
func NewVerifier(keys Keys, o Options) *Verifier {
	if o.Window <= 0 {
		o.Window = 5 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Verifier{keys: keys, options: o}
}

// deriveKey computes the signing key of a scope.
func deriveKey(secret, date, region, service string) [sha256.Size]byte {
	k := mac([]byte("AWS4"+secret), date)
	k = mac(k[:], region)
	k = mac(k[:], service)
	return mac(k[:], terminator)
}

func mac(key []byte, text string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	h.Sum(sum[:0])
	return sum
}

// echo renders a piece of the request for an error text.
func echo(s string) string {
	if len(s) > maxEchoBytes {
		s = s[:maxEchoBytes]
	}
	return strings.ToValidUTF8(s, "�")
}
