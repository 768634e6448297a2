package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sign adds the headers X-Amz-Date, X-Amz-Security-Token (if there is a token)
// and Authorization. It signs the host, Content-Type and every X-Amz header; the
// others may still change on the way. body is the request's whole body.
func Sign(r *http.Request, body []byte, c Credentials, region, service string, at time.Time) {
	SignSum(r, sha256.Sum256(body), c, region, service, at)
}

// SignSum is Sign for a body that has been hashed already.
func SignSum(r *http.Request, sum [sha256.Size]byte, c Credentials, region, service string, at time.Time) {
	payload := hex.EncodeToString(sum[:])
	if declared := first(r.Header["X-Amz-Content-Sha256"]); declared != "" {
		payload = declared
	}
	res := &Result{AccessKey: c.AccessKey, Region: region, Service: service, timeText: at.UTC().Format(timeLayout)}
	res.Date = res.timeText[:len(dateLayout)]
	r.Header["X-Amz-Date"] = []string{res.timeText}
	if c.SessionToken != "" {
		r.Header["X-Amz-Security-Token"] = []string{c.SessionToken}
	}
	delete(r.Header, "Authorization")
	res.SignedHeaders = headersToSign(r)
	if r.URL.RawQuery != "" {
		res.query = parseQuery(r.URL.RawQuery)
	}
	signature := res.sign(r, c.SecretKey, payload)

	b := make([]byte, 0, 320)
	b = append(b, algorithm+" Credential="...)
	b = append(b, c.AccessKey...)
	b = append(b, '/')
	b = append(b, res.Date...)
	b = append(b, '/')
	b = append(b, region...)
	b = append(b, '/')
	b = append(b, service...)
	b = append(b, "/"+terminator+", SignedHeaders="...)
	for i, name := range res.SignedHeaders {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, ", Signature="...)
	b = append(b, signature...)
	r.Header["Authorization"] = []string{string(b)}
}

// Presign moves the signature into the query string, so that the address alone
// admits its bearer until expires has passed (1 s to 7 days, in whole seconds).
// The request's Content-Type and X-Amz headers, if it has any, are signed and
// must be sent as they are. sum is the SHA-256 of the body that will be sent.
func Presign(r *http.Request, sum [sha256.Size]byte, c Credentials, region, service string, at time.Time, expires time.Duration) {
	res := &Result{AccessKey: c.AccessKey, Region: region, Service: service, timeText: at.UTC().Format(timeLayout), Query: true}
	res.Date = res.timeText[:len(dateLayout)]
	delete(r.Header, "Authorization")
	res.SignedHeaders = headersToSign(r)

	q := r.URL.Query()
	q.Set("X-Amz-Algorithm", algorithm)
	q.Set("X-Amz-Credential", c.AccessKey+"/"+res.Date+"/"+region+"/"+service+"/"+terminator)
	q.Set("X-Amz-Date", res.timeText)
	q.Set("X-Amz-Expires", strconv.FormatInt(int64(expires/time.Second), 10))
	q.Set("X-Amz-SignedHeaders", strings.Join(res.SignedHeaders, ";"))
	if c.SessionToken != "" {
		q.Set("X-Amz-Security-Token", c.SessionToken)
	}
	q.Del("X-Amz-Signature")
	raw := strings.ReplaceAll(q.Encode(), "+", "%20")
	res.query = parseQuery(raw)
	payload := hex.EncodeToString(sum[:])
	if declared := first(r.Header["X-Amz-Content-Sha256"]); declared != "" {
		payload = declared
	}
	r.URL.RawQuery = raw + "&X-Amz-Signature=" + res.sign(r, c.SecretKey, payload)
}

func headersToSign(r *http.Request) []string {
	names := make([]string, 0, 8)
	names = append(names, "host")
	for key := range r.Header {
		name := strings.ToLower(key)
		if name == "content-type" || strings.HasPrefix(name, "x-amz-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// signingKeys serves Sign as a Verifier's cache serves Verify.
var signingKeys keyCache

func (res *Result) sign(r *http.Request, secret, payload string) string {
	key, ok := signingKeys.get(res, secret)
	if !ok {
		key = deriveKey(secret, res.Date, res.Region, res.Service)
		signingKeys.put(res, secret, key)
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	s.canonical = appendCanonical(s.canonical[:0], r, res, form{path: wirePath(r), payload: payload})
	s.toSign = appendStringToSign(s.toSign[:0], res, s.canonical)
	sum := mac(key[:], string(s.toSign))
	return hex.EncodeToString(sum[:])
}
