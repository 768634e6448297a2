package conformance

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/cbor"

	"github.com/millrace/millrace/test/harness"
)

const (
	jsonType = "application/x-amz-json-1.1"
	cborType = "application/x-amz-cbor-1.1"
)

// service is what clients call.
type service struct {
	name   string // of the command line, of boto3 and, without signs, of signatures
	signs  string
	target string // what the header X-Amz-Target begins with
	inGo   func(endpoint, region string, keys aws.CredentialsProvider, over *http.Client) any
	region func(way string) string // of a client; made of its name if nil
}

// rawClient encodes and signs by itself, and so sees replies as they are.
type rawClient struct {
	service          *service
	endpoint, region string
	contentType      string
	http             *http.Client
}

func (c *rawClient) Close() error { c.http.CloseIdleConnections(); return nil }

func (c *rawClient) encode(in M) []byte {
	if c.contentType == cborType {
		return cbor.Encode(toCBOR(in))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(bare(in)); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// bare writes bytes and times as the JSON protocol does.
func bare(v any) any {
	switch v := v.(type) {
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		return json.RawMessage(fmt.Sprintf("%d.%03d", v.Unix(), v.UnixMilli()%1000))
	case M:
		out := make(M, len(v))
		for k, e := range v {
			out[k] = bare(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = bare(e)
		}
		return out
	}
	return v
}

// toCBOR writes times as tag 1 over whole milliseconds, as Kinesis clients do.
func toCBOR(v any) cbor.Value {
	switch v := v.(type) {
	case string:
		return cbor.String(v)
	case bool:
		return cbor.Bool(v)
	case int:
		return toCBOR(int64(v))
	case int64:
		if v < 0 {
			return cbor.NegInt(-v)
		}
		return cbor.Uint(v)
	case []byte:
		return cbor.Slice(v)
	case time.Time:
		return &cbor.Tag{ID: 1, Value: cbor.Uint(v.UnixMilli())}
	case M:
		out := cbor.Map{}
		for k, e := range v {
			out[k] = toCBOR(e)
		}
		return out
	case []any:
		out := cbor.List{}
		for _, e := range v {
			out = append(out, toCBOR(e))
		}
		return out
	}
	panic(fmt.Sprintf("no CBOR for %T", v))
}

// fromCBOR refuses what Java clients could not read: times that are not whole
// milliseconds, and nulls.
func fromCBOR(v cbor.Value) any {
	switch v := v.(type) {
	case cbor.String:
		return string(v)
	case cbor.Bool:
		return bool(v)
	case cbor.Uint:
		return int64(v)
	case cbor.NegInt:
		return -int64(v)
	case cbor.Slice:
		return []byte(v)
	case *cbor.Tag:
		ms, ok := v.Value.(cbor.Uint)
		if v.ID != 1 || !ok {
			return fmt.Sprintf("time as tag %d over %T", v.ID, v.Value)
		}
		return time.UnixMilli(int64(ms))
	case cbor.Map:
		out := M{}
		for k, e := range v {
			out[k] = fromCBOR(e)
		}
		return out
	case cbor.List:
		out := []any{}
		for _, e := range v {
			out = append(out, fromCBOR(e))
		}
		return out
	}
	return fmt.Sprintf("unexpected CBOR %T", v)
}

// typed turns the JSON of a reply into bytes and times by member name; a
// client does the same by its model.
func typed(name string, v any) any {
	switch v := v.(type) {
	case string:
		if name == "Data" {
			b, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				return "not base64: " + v
			}
			return b
		}
	case json.Number:
		if strings.HasSuffix(name, "Timestamp") || strings.HasSuffix(name, "edAt") || name == "EarliestAllowedEndAt" {
			f, _ := v.Float64()
			return time.UnixMilli(int64(f*1000 + 0.5))
		}
		n, err := v.Int64()
		if err != nil {
			return "not a whole number: " + v.String()
		}
		return n
	case map[string]any:
		for k, e := range v {
			if e == nil {
				v[k] = "null was written"
			} else {
				v[k] = typed(k, e)
			}
		}
	case []any:
		for i, e := range v {
			v[i] = typed(name, e)
		}
	}
	return v
}

// request builds and signs a request; body is sent as it is.
func (c *rawClient) request(ctx context.Context, target, contentType string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	hash := sha256.Sum256(body)
	who := aws.Credentials{AccessKeyID: harness.AccessKey, SecretAccessKey: harness.SecretKey}
	return r, v4.NewSigner().SignHTTP(ctx, who, r, hex.EncodeToString(hash[:]), cmp.Or(c.service.signs, c.service.name), c.region, time.Now())
}

func (c *rawClient) Call(ctx context.Context, op string, in M, records int) (M, error) {
	r, err := c.request(ctx, c.service.target+"."+op, c.contentType, c.encode(in))
	if err != nil {
		return nil, err
	}
	reply, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	if reply.Header.Get("X-Amzn-Requestid") == "" || reply.Header.Get("Date") == "" {
		return nil, errors.New("reply without x-amzn-RequestId or Date")
	}
	if reply.StatusCode == http.StatusOK && op == "SubscribeToShard" {
		return readEvents(reply, records)
	}
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return nil, err
	}
	want := c.contentType
	if op == "SubscribeToShard" {
		want = jsonType
	}
	if got := reply.Header.Get("Content-Type"); got != want {
		return nil, fmt.Errorf("Content-Type is %q, not %q", got, want)
	}
	out, err := decodeReply(want, body)
	if err != nil {
		return nil, fmt.Errorf("reply %d %q: %w", reply.StatusCode, body, err)
	}
	if reply.StatusCode == http.StatusOK {
		return out, nil
	}
	message, _ := out["message"].(string)
	if message == "" {
		message, _ = out["Message"].(string)
	}
	return nil, &Failure{Code: text(out, "__type"), Message: message, Status: reply.StatusCode}
}

func decodeReply(contentType string, body []byte) (M, error) {
	if len(body) == 0 {
		return M{}, nil
	}
	if contentType == cborType {
		v, err := cbor.Decode(body)
		if err != nil {
			return nil, err
		}
		m, ok := fromCBOR(v).(M)
		if !ok {
			return nil, errors.New("not a map")
		}
		return m, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	return typed("", m).(M), nil
}

// readEvents takes the event stream apart, frame by frame.
func readEvents(reply *http.Response, wanted int) (M, error) {
	if got := reply.Header.Get("Content-Type"); got != "application/vnd.amazon.eventstream" {
		return nil, fmt.Errorf("Content-Type of the stream is %q", got)
	}
	d := eventstream.NewDecoder()
	events, n, first := []any{}, 0, true
	for {
		frame, err := d.Decode(reply.Body, nil)
		if errors.Is(err, io.EOF) {
			return M{"Events": events, "Ended": true}, nil
		}
		if err != nil {
			return nil, err
		}
		header := func(name string) string {
			if v := frame.Headers.Get(name); v != nil {
				return v.String()
			}
			return ""
		}
		if first && header(":event-type") != "initial-response" {
			return nil, fmt.Errorf("the first frame is %s %s", header(":message-type"), header(":event-type"))
		}
		if first {
			first = false
			continue
		}
		body, err := decodeReply(jsonType, frame.Payload)
		if err != nil {
			return nil, err
		}
		if header(":message-type") != "event" {
			return M{"Events": events, "Ended": true, "Failure": M{"code": header(":exception-type"), "message": text(body, "message")}}, nil
		}
		events = append(events, body)
		n += len(list(body, "Records"))
		if wanted > 0 && n >= wanted {
			return M{"Events": events, "Ended": false}, nil
		}
	}
}
