package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// parameter is one pair of a query string, decoded and encoded canonically.
type parameter struct {
	name, value         string
	rawName, rawEncoded string
}

type query []parameter

// parseQuery splits a raw query string. It returns nil for the usual empty one.
func parseQuery(raw string) query {
	if raw == "" {
		return nil
	}
	q := make(query, 0, strings.Count(raw, "&")+1)
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		p := parameter{name: unescape(name), value: unescape(value)}
		p.rawName, p.rawEncoded = encode(p.name), encode(p.value)
		q = append(q, p)
	}
	return q
}

func (q query) has(name string) bool {
	return slices.ContainsFunc(q, func(p parameter) bool { return p.name == name })
}

func (q query) get(name string) string {
	for i := range q {
		if q[i].name == name {
			return q[i].value
		}
	}
	return ""
}

// sorted returns the parameters in canonical order.
func (q query) sorted() query {
	order := func(a, b parameter) int {
		if c := strings.Compare(a.rawName, b.rawName); c != 0 {
			return c
		}
		return strings.Compare(a.rawEncoded, b.rawEncoded)
	}
	if slices.IsSortedFunc(q, order) {
		return q
	}
	q = slices.Clone(q)
	slices.SortFunc(q, order)
	return q
}

const upperHex = "0123456789ABCDEF"

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func appendEncoded(dst []byte, s string, keepSlash bool) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; unreserved(c) || keepSlash && c == '/' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

func encode(s string) string {
	for i := 0; i < len(s); i++ {
		if !unreserved(s[i]) {
			return string(appendEncoded(make([]byte, 0, len(s)+16), s, false))
		}
	}
	return s
}

// unescape decodes percent signs and pluses. What is not an escape stays.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b = append(b, ' ')
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			v, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			b = append(b, byte(v))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// wirePath is the path as the client sent it, encoded once.
func wirePath(r *http.Request) string {
	p := r.RequestURI // set by servers only
	if strings.HasPrefix(p, "/") {
		p, _, _ = strings.Cut(p, "?")
	} else {
		p = r.URL.EscapedPath()
	}
	if p == "" {
		return "/"
	}
	return p
}

// unescapePath decodes percent signs and nothing else: in a path a plus is one.
func unescapePath(p string) string {
	if strings.IndexByte(p, '+') < 0 {
		return unescape(p)
	}
	return unescape(strings.ReplaceAll(p, "+", "%2B"))
}

// cleanPath removes what the signing rules call redundant. Some signers do,
// others sign the path as it is.
func cleanPath(p string) string {
	clean := path.Clean(p)
	if clean != "/" && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	return clean
}

func needsCleaning(p string) bool {
	return strings.Contains(p, "//") || strings.Contains(p, "/.")
}

// form is which of the readings of a request is being tried.
type form struct {
	path      string
	payload   string // hash in hexadecimal, or the marker of an unsigned payload
	dropToken bool   // leave the session token out of the query
}

// appendCanonical appends the canonical request.
func appendCanonical(dst []byte, r *http.Request, res *Result, f form) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, '\n')
	dst = appendEncoded(dst, f.path, true)
	dst = append(dst, '\n')
	if len(res.query) > 0 {
		separate := false
		for _, p := range res.query.sorted() {
			if res.Query && (p.name == "X-Amz-Signature" || f.dropToken && p.name == "X-Amz-Security-Token") {
				continue
			}
			if separate {
				dst = append(dst, '&')
			}
			separate = true
			dst = append(dst, p.rawName...)
			dst = append(dst, '=')
			dst = append(dst, p.rawEncoded...)
		}
	}
	dst = append(dst, '\n')
	for _, name := range res.SignedHeaders {
		dst = appendLower(dst, name)
		dst = append(dst, ':')
		dst = appendHeader(dst, r, name)
		dst = append(dst, '\n')
	}
	dst = append(dst, '\n')
	for i, name := range res.SignedHeaders {
		if i > 0 {
			dst = append(dst, ';')
		}
		dst = appendLower(dst, name)
	}
	dst = append(dst, '\n')
	return append(dst, f.payload...)
}

// appendHeader appends a header's canonical value. Go's server keeps some
// headers elsewhere; they are put together again from where they went.
func appendHeader(dst []byte, r *http.Request, name string) []byte {
	switch {
	case strings.EqualFold(name, "host"), name == ":authority":
		host := r.Host
		if host == "" && r.URL != nil {
			host = r.URL.Host
		}
		return appendTrimmed(dst, host)
	case name == ":method":
		return append(dst, r.Method...)
	case name == ":path":
		return append(dst, r.URL.RequestURI()...)
	case name == ":scheme":
		if r.TLS != nil {
			return append(dst, "https"...)
		}
		return append(dst, "http"...)
	}
	values := r.Header[canonicalKey(name)]
	if len(values) == 0 {
		switch {
		case strings.EqualFold(name, "content-length") && r.ContentLength >= 0:
			return strconv.AppendInt(dst, r.ContentLength, 10)
		case strings.EqualFold(name, "transfer-encoding"):
			values = r.TransferEncoding
		case strings.EqualFold(name, "trailer"):
			for key := range r.Trailer {
				values = append(values, key)
			}
			slices.Sort(values)
		case strings.EqualFold(name, "connection") && r.Close:
			return append(dst, "close"...)
		}
	}
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendTrimmed(dst, v)
	}
	return dst
}

// canonicalKey is textproto's, without its allocation for the names that
// every client signs.
func canonicalKey(name string) string {
	switch name {
	case "content-type":
		return "Content-Type"
	case "x-amz-date":
		return "X-Amz-Date"
	case "x-amz-target":
		return "X-Amz-Target"
	case "x-amz-content-sha256":
		return "X-Amz-Content-Sha256"
	case "x-amz-security-token":
		return "X-Amz-Security-Token"
	case "amz-sdk-invocation-id":
		return "Amz-Sdk-Invocation-Id"
	case "amz-sdk-request":
		return "Amz-Sdk-Request"
	case "x-amz-user-agent":
		return "X-Amz-User-Agent"
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

func appendLower(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// appendTrimmed appends a value without outer white space and with inner runs
// of it collapsed to one space.
func appendTrimmed(dst []byte, s string) []byte {
	s = strings.Trim(s, " \t")
	if !strings.Contains(s, "  ") && strings.IndexByte(s, '\t') < 0 {
		return append(dst, s...)
	}
	space := false
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' || s[i] == '\t' {
			if !space {
				dst = append(dst, ' ')
			}
			space = true
			continue
		}
		space = false
		dst = append(dst, s[i])
	}
	return dst
}

// appendStringToSign appends the text whose authentication code is the
// signature.
func appendStringToSign(dst []byte, res *Result, canonical []byte) []byte {
	sum := sha256.Sum256(canonical)
	dst = append(dst, algorithm+"\n"...)
	dst = append(dst, res.timeText...)
	dst = append(dst, '\n')
	dst = append(dst, res.Date...)
	dst = append(dst, '/')
	dst = append(dst, res.Region...)
	dst = append(dst, '/')
	dst = append(dst, res.Service...)
	dst = append(dst, "/"+terminator+"\n"...)
	return hex.AppendEncode(dst, sum[:])
}

// scratch is memory for the texts of one signature.
type scratch struct{ canonical, toSign []byte }

var scratches = sync.Pool{New: func() any {
	return &scratch{canonical: make([]byte, 0, 2048), toSign: make([]byte, 0, 512)}
}}

func (s *scratch) release() {
	if cap(s.canonical) <= 64<<10 {
		scratches.Put(s)
	}
}
