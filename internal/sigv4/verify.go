package sigv4

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
)

const mismatchText = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

// Verify checks that a request is signed by a key that Keys knows, now, for the
// wanted service, and as it arrived. The checks are made in this order: presence
// and form (Parse), scope, what must be signed, key and token, clock, payload,
// signature.
//
// Refusals are *Error, or what Keys answered with; other errors are ours.
// Verify does not modify the request and reads no body.
func (v *Verifier) Verify(r *http.Request, want Request) (*Result, error) {
	res, err := Parse(r)
	if err != nil {
		return nil, err
	}
	if err := res.checkScope(want.Service); err != nil {
		return nil, err
	}
	if err := res.checkSigned(r, want.Objects); err != nil {
		return nil, err
	}
	secret, err := v.keys.Secret(res.AccessKey, res.Token)
	if err != nil {
		var refusal api.Error
		if errors.As(err, &refusal) {
			return nil, err
		}
		return nil, fmt.Errorf("look up access key: %w", err)
	}
	if err := res.checkClock(v.options.Now(), v.options.Window); err != nil {
		return nil, err
	}
	payload, err := v.payload(r, res, want)
	if err != nil {
		return nil, err
	}
	key, cached := v.cache.get(res, secret)
	if !cached {
		key = deriveKey(secret, res.Date, res.Region, res.Service)
	}
	if err := res.checkSignature(r, key[:], payload, want); err != nil {
		return nil, err
	}
	res.Payload, res.key = payload, key
	// Only scopes that a key's owner has signed are remembered, so that nobody
	// else can push them out.
	if !cached {
		v.cache.put(res, secret, key)
	}
	return res, nil
}

func (res *Result) checkScope(service string) error {
	switch {
	case res.terminator != terminator:
		return invalid("Credential should be scoped with a valid terminator: 'aws4_request', not '" + echo(res.terminator) + "'.")
	case !validRegion(res.Region):
		return invalid("Credential should be scoped to a valid region, not '" + echo(res.Region) + "'.")
	case service != "" && res.Service != service:
		return &Error{Code: api.CodeInvalidSignature, Message: "Credential should be scoped to correct service: '" + service + "'.", Reason: ReasonScope}
	case res.Date != res.timeText[:len(dateLayout)]:
		return invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" +
			echo(res.Date) + "' != '" + res.timeText[:len(dateLayout)] + "', from '" + res.timeText + "'.")
	}
	return nil
}

// validRegion accepts what can be a region anywhere: state is kept by it, so it
// must be short and plain, but names of one's own are fine.
func validRegion(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// checkSigned demands the headers without which a signature would be good for
// another server or another operation.
func (res *Result) checkSigned(r *http.Request, objects bool) error {
	host, target := false, len(r.Header["X-Amz-Target"]) == 0
	for _, name := range res.SignedHeaders {
		switch {
		case name == "host", name == ":authority", strings.EqualFold(name, "host"):
			host = true
		case name == "x-amz-target", strings.EqualFold(name, "x-amz-target"):
			target = true
		}
	}
	if !host {
		return invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if !target {
		return invalid("'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if !objects {
		return nil
	}
	// In this protocol a header decides what a request does: one that was added
	// to a presigned address could make it another.
	for name := range r.Header {
		if !strings.HasPrefix(name, "X-Amz-") || res.Query && name == "X-Amz-Content-Sha256" {
			continue
		}
		if !slices.ContainsFunc(res.SignedHeaders, func(signed string) bool { return strings.EqualFold(signed, name) }) {
			return &Error{Code: api.CodeInvalidSignature, Message: "There were headers present in the request which were not signed", Reason: ReasonUnsigned}
		}
	}
	return nil
}

func (res *Result) checkClock(now time.Time, window time.Duration) error {
	now = now.UTC()
	late := window
	if res.expires > 0 {
		late = res.expires
	}
	if earliest := now.Add(-late); res.Time.Before(earliest.Truncate(time.Second)) {
		return clock(ReasonExpired, "Signature expired: "+res.timeText+" is now earlier than "+earliest.Format(timeLayout)+
			" ("+now.Format(timeLayout)+" - "+span(late)+")")
	}
	if latest := now.Add(window); res.Time.After(latest) {
		return clock(ReasonEarly, "Signature not yet current: "+res.timeText+" is still later than "+latest.Format(timeLayout)+
			" ("+now.Format(timeLayout)+" + "+span(window)+")")
	}
	return nil
}

func clock(reason Reason, text string) error {
	return &Error{Code: api.CodeInvalidSignature, Message: text, Reason: reason}
}

func span(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d min.", d/time.Minute)
	}
	return fmt.Sprintf("%d sec.", d/time.Second)
}

// payload returns what stands for the body in the canonical request.
func (v *Verifier) payload(r *http.Request, res *Result, want Request) (string, error) {
	declared := first(r.Header["X-Amz-Content-Sha256"])
	if declared == "" && res.Query {
		declared = res.query.get("X-Amz-Content-Sha256")
	}
	if want.Objects {
		return objectPayload(res, declared)
	}
	for _, coding := range r.Header["Content-Encoding"] {
		if strings.Contains(strings.ToLower(coding), "aws-chunked") {
			return "", invalid("Signed chunks (aws-chunked) are not supported by this service.")
		}
	}
	if declared == unsignedPayload {
		if !want.Secure && !v.options.AllowUnsignedPayload {
			return "", invalid("UNSIGNED-PAYLOAD is accepted over TLS only.")
		}
		return declared, nil
	}
	if strings.HasPrefix(declared, "STREAMING-") {
		return "", invalid("The payload signature form '" + echo(declared) + "' is not supported by this service.")
	}
	if declared == "" && want.EmptyPayload {
		return "", nil
	}
	var claim [sha256.Size]byte
	if declared != "" {
		if len(declared) != hex.EncodedLen(len(claim)) {
			return "", invalid("x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a SHA-256 in hexadecimal.")
		}
		if _, err := hex.Decode(claim[:], []byte(declared)); err != nil {
			return "", invalid("x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a SHA-256 in hexadecimal.")
		}
		if want.EmptyPayload && strings.EqualFold(declared, emptyHash) {
			return declared, nil
		}
	}
	sum := sha256.Sum256(nil)
	if want.Sum != nil {
		sum = want.Sum()
	}
	if declared != "" {
		if claim != sum {
			return "", invalid("The provided 'x-amz-content-sha256' header does not match what was computed.")
		}
		return declared, nil
	}
	return hex.EncodeToString(sum[:]), nil
}

// objectPayload is payload for the object protocol.
func objectPayload(res *Result, declared string) (string, error) {
	switch declared {
	case UnsignedPayload, StreamingPayload, StreamingPayloadTrailer, StreamingUnsignedTrailer:
		return declared, nil
	case "":
		if res.Query {
			return UnsignedPayload, nil
		}
		return "", &Error{Code: api.CodeInvalidSignature, Message: "Missing required header for this request: x-amz-content-sha256", Reason: ReasonPayload}
	}
	var sum [sha256.Size]byte
	if len(declared) == hex.EncodedLen(len(sum)) {
		if _, err := hex.Decode(sum[:], []byte(declared)); err == nil {
			return declared, nil
		}
	}
	return "", &Error{Code: api.CodeInvalidSignature, Message: "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-UNSIGNED-PAYLOAD-TRAILER or a valid sha256 value.", Reason: ReasonPayload}
}

const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// checkSignature tries the readings that well-behaved clients sign.
func (res *Result) checkSignature(r *http.Request, key []byte, payload string, want Request) error {
	var given [sha256.Size]byte
	wellFormed := len(res.signature) == hex.EncodedLen(len(given))
	if wellFormed {
		_, err := hex.Decode(given[:], []byte(res.signature))
		wellFormed = err == nil
	}
	if want.EmptyPayload && payload == "" {
		payload = emptyHash
	}
	s := scratches.Get().(*scratch)
	defer s.release()

	forms := [4]form{{path: wirePath(r), payload: payload}}
	n := 1
	if res.Query && res.query.has("X-Amz-Security-Token") {
		forms[n] = forms[0]
		forms[n].dropToken = true
		n++
	}
	if want.Objects {
		for i := range n {
			forms[i].path = unescapePath(forms[i].path)
		}
	} else if needsCleaning(forms[0].path) {
		clean := cleanPath(forms[0].path)
		for i := range n {
			forms[n+i] = forms[i]
			forms[n+i].path = clean
		}
		n *= 2
	}
	for _, f := range forms[:n] {
		s.canonical = appendCanonical(s.canonical[:0], r, res, f)
		s.toSign = appendStringToSign(appendPad(s.toSign[:0], key, innerPad), res, s.canonical)
		sum := outerSum(key, sha256.Sum256(s.toSign))
		if wellFormed && subtle.ConstantTimeCompare(sum[:], given[:]) == 1 {
			return nil
		}
	}
	// The first reading is the one to compare a client's own log with.
	s.canonical = appendCanonical(s.canonical[:0], r, res, forms[0])
	s.toSign = appendStringToSign(s.toSign[:0], res, s.canonical)
	detail := "canonical request:\n" + string(s.canonical) + "\nstring to sign:\n" + string(s.toSign)
	if res.Token != "" {
		detail = strings.ReplaceAll(detail, res.Token, "(session token)")
		detail = strings.ReplaceAll(detail, encode(res.Token), "(session token)")
	}
	return &Error{Code: api.CodeInvalidSignature, Message: mismatchText, Reason: ReasonMismatch, Detail: strings.ToValidUTF8(detail, "�")}
}

// The two halves of HMAC-SHA256 (RFC 2104), for messages that can have the key's
// block in front of them from the start: the general implementation allocates four
// times for a signature. Keys are at most a block long, as derived ones are.
const innerPad, outerPad = 0x36, 0x5c

func appendPad(dst, key []byte, pad byte) []byte {
	var block [sha256.BlockSize]byte
	copy(block[:], key)
	for i := range block {
		block[i] ^= pad
	}
	return append(dst, block[:]...)
}

func outerSum(key []byte, inner [sha256.Size]byte) [sha256.Size]byte {
	var room [sha256.BlockSize + sha256.Size]byte
	return sha256.Sum256(append(appendPad(room[:0], key, outerPad), inner[:]...))
}

// scope names a derived key.
type scope struct{ accessKey, date, region, service string }

type derived struct {
	secret string // the key is void once its access key has another
	key    [sha256.Size]byte
}

// cacheGeneration is how many keys one generation of the cache holds.
const cacheGeneration = 2048

// keyCache remembers signing keys in two generations: when the young one is
// full it becomes the old one, and what is used there moves back.
type keyCache struct {
	mu    sync.RWMutex
	young map[scope]derived
	old   map[scope]derived
}

func (c *keyCache) get(res *Result, secret string) (key [sha256.Size]byte, ok bool) {
	s := scope{res.AccessKey, res.Date, res.Region, res.Service}
	c.mu.RLock()
	d, ok := c.young[s]
	aged := false
	if !ok {
		d, aged = c.old[s]
	}
	c.mu.RUnlock()
	if !ok && !aged || d.secret != secret {
		return key, false
	}
	if aged {
		c.put(res, secret, d.key)
	}
	return d.key, true
}

func (c *keyCache) put(res *Result, secret string, key [sha256.Size]byte) {
	// The strings of a result are pieces of its request's headers, which would
	// stay in memory with them.
	s := scope{strings.Clone(res.AccessKey), strings.Clone(res.Date), strings.Clone(res.Region), strings.Clone(res.Service)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= cacheGeneration {
		c.old, c.young = c.young, make(map[scope]derived)
	}
	c.young[s] = derived{secret: secret, key: key}
}
