package httpendpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/firehose/dest/payload"
	"github.com/millrace/millrace/internal/firehose/record"
)

// form is a record in the body: {"data":"<base64>"}.
type form struct{}

const (
	opening = `{"data":"`
	closing = `"}`
	// frameBytes is more than what surrounds the records.
	frameBytes = 128
)

// Size implements payload.Form.
func (form) Size(r *record.Record, first bool) int {
	if len(r.Data) > maxRecordBytes {
		return -1
	}
	n := len(opening) + base64x.StdEncoding.EncodedLen(len(r.Data)) + len(closing)
	if !first {
		n++
	}
	return n
}

// Append implements payload.Form.
func (form) Append(body []byte, r *record.Record, first bool) []byte {
	if !first {
		body = append(body, ',')
	}
	body = append(body, opening...)
	if len(r.Data) > 0 {
		body = slices.Grow(body, base64x.StdEncoding.EncodedLen(len(r.Data)))
		base64x.StdEncoding.EncodeUnsafe(&body, r.Data)
	}
	return append(body, closing...)
}

// frame is what surrounds the records.
func frame(id string, now time.Time) (head, tail []byte) {
	head = fmt.Appendf(nil, `{"requestId":"%s","timestamp":%d,"records":[`, id, now.UnixMilli())
	return head, []byte("]}")
}

// requestID names the request of one part: the same whenever the same records
// of the same batch are sent.
func requestID(b *record.Batch, p payload.Part) string {
	h := sha256.New()
	h.Write([]byte(b.ID))
	var place [28]byte
	binary.BigEndian.PutUint64(place[0:], p.First.Index)
	binary.BigEndian.PutUint32(place[8:], p.First.Sub)
	binary.BigEndian.PutUint64(place[12:], p.Last.Index)
	binary.BigEndian.PutUint32(place[20:], p.Last.Sub)
	binary.BigEndian.PutUint32(place[24:], uint32(p.Records()))
	h.Write(place[:])
	sum := h.Sum(nil)[:16]
	sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80
	text := hex.EncodeToString(sum)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// traceID ties the traces of a receiver to a request.
func traceID(id string, at time.Time) string {
	return fmt.Sprintf("Root=1-%08x-%s", uint32(at.Unix()), strings.ReplaceAll(id, "-", "")[:24])
}

// header is what all requests of an attempt carry. The names are as the service
// writes them, except for their case on the wire, which has no meaning.
func header(source, key string, c Config) http.Header {
	h := http.Header{
		"Content-Type":                    {"application/json"},
		"User-Agent":                      {"Amazon Kinesis Data Firehose Agent/1.0"},
		"X-Amz-Firehose-Protocol-Version": {"1.0"},
		"X-Amz-Firehose-Source-Arn":       {source},
	}
	for name, value := range c.Headers {
		h.Set(name, value)
	}
	if key != "" {
		h["X-Amz-Firehose-Access-Key"] = []string{key}
	}
	if len(c.Attributes) > 0 {
		h["X-Amz-Firehose-Common-Attributes"] = []string{attributes(c.Attributes)}
	}
	if c.GZIP {
		h["Content-Encoding"] = []string{"gzip"}
	}
	return h
}

// attributes is the JSON text of the header, in the order of configuration and
// in ASCII, which every receiver's header parser takes.
func attributes(list []Attribute) string {
	text := []byte(`{"commonAttributes":{`)
	for i, a := range list {
		if i > 0 {
			text = append(text, ',')
		}
		text = quote(text, a.Name)
		text = append(text, ':')
		text = quote(text, a.Value)
	}
	return string(append(text, "}}"...))
}

func quote(text []byte, s string) []byte {
	text = append(text, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			text = append(text, '\\', byte(r))
		case r >= ' ' && r < 0x7f:
			text = append(text, byte(r))
		case r > 0xffff:
			r -= 0x10000
			text = fmt.Appendf(text, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			text = fmt.Appendf(text, `\u%04x`, r)
		}
	}
	return append(text, '"')
}

// retryAfter reads the header of that name, in seconds; at most two minutes.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, 2*time.Minute)
}
