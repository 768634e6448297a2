package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	jsonType = "application/x-amz-json-1.1"
	cborType = "application/x-amz-cbor-1.1"
)

// signer makes SigV4 signatures for one user. A body is hashed once by its
// owner; what is left per second is five small HMACs, so that the generator
// stays out of the way of the server it shares two cores with.
type signer struct{ key, secret, region string }

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// service is who a call is for.
type service struct{ prefix, name string }

var (
	streamsAPI  = service{"Kinesis_20131202.", "kinesis"}
	firehoseAPI = service{"Firehose_20150804.", "firehose"}
	controlAPI  = service{"MillraceDelivery_20260101.", "firehose"}
	catalogAPI  = service{"AWSGlue.", "glue"}
	sqlAPI      = service{"KinesisAnalytics_20180523.", "kinesisanalytics"}
)

// services are those of calls that are not for data streams.
var services = map[string]service{
	"CreateDeliveryStream": firehoseAPI, "DescribeDeliveryStream": firehoseAPI, "PutRecordBatch": firehoseAPI,
	"PauseDeliveryStream": controlAPI, "FlushDeliveryStream": controlAPI, "GetDeliveryStatus": controlAPI, "ListDeliveries": controlAPI,
	"CreateDatabase": catalogAPI, "CreateTable": catalogAPI,
	"CreateApplication": sqlAPI, "StartApplication": sqlAPI, "StopApplication": sqlAPI, "DescribeApplication": sqlAPI,
}

func (s signer) header(of service, host, target, contentType, bodyHash string, now time.Time) string {
	stamp := now.UTC().Format("20060102T150405Z")
	day := stamp[:8]
	const signed = "content-type;host;x-amz-date;x-amz-target"
	canonical := "POST\n/\n\ncontent-type:" + contentType + "\nhost:" + host + "\nx-amz-date:" + stamp + "\nx-amz-target:" + target + "\n\n" + signed + "\n" + bodyHash
	sum := sha256.Sum256([]byte(canonical))
	scope := day + "/" + s.region + "/" + of.name + "/aws4_request"
	k := mac(mac(mac(mac([]byte("AWS4"+s.secret), day), s.region), of.name), "aws4_request")
	signature := hex.EncodeToString(mac(k, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(sum[:])))
	return "X-Amz-Date: " + stamp + "\r\nAuthorization: AWS4-HMAC-SHA256 Credential=" + s.key + "/" + scope + ", SignedHeaders=" + signed + ", Signature=" + signature + "\r\n"
}

// request is one prepared call that is sent again and again.
type request struct {
	service             service
	target, contentType string
	body                []byte
	hash                string
	head                []byte
	signedAt            int64
}

func newRequest(op, contentType string, body []byte) *request {
	sum := sha256.Sum256(body)
	of, ok := services[op]
	if !ok {
		of = streamsAPI
	}
	return &request{service: of, target: of.prefix + op, contentType: contentType, body: body, hash: hex.EncodeToString(sum[:])}
}

// conn is a keep-alive connection that speaks just enough HTTP/1.1.
type conn struct {
	address string
	signer  signer
	net     net.Conn
	in      *bufio.Reader
	reply   []byte
}

func dial(address string, s signer) (*conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{address: address, signer: s, net: c, in: bufio.NewReaderSize(c, 256<<10)}, nil
}

func (c *conn) close() { c.net.Close() }

// send writes a request, signed within the current second.
func (c *conn) send(r *request) error {
	now := time.Now()
	if r.head == nil || now.Unix() != r.signedAt {
		r.signedAt = now.Unix()
		r.head = []byte("POST / HTTP/1.1\r\nHost: " + c.address + "\r\nContent-Type: " + r.contentType + "\r\nX-Amz-Target: " + r.target +
			"\r\nContent-Length: " + strconv.Itoa(len(r.body)) + "\r\n" + c.signer.header(r.service, c.address, r.target, r.contentType, r.hash, now) + "\r\n")
	}
	buffers := net.Buffers{r.head, r.body}
	_, err := buffers.WriteTo(c.net)
	return err
}

// receive reads the head of a reply and leaves its body to be read.
func (c *conn) receive() (status, length int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, fmt.Errorf("status line %q", line)
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, 0, err
	}
	length = -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		if len(line) <= 2 {
			return status, length, nil
		}
		if len(line) > 15 && strings.EqualFold(string(line[:15]), "content-length:") {
			length, err = strconv.Atoi(strings.TrimSpace(string(line[15:])))
			if err != nil {
				return 0, 0, err
			}
		}
	}
}

// do sends and reads a whole reply. The returned bytes live until the next call.
func (c *conn) do(r *request) ([]byte, error) {
	if err := c.send(r); err != nil {
		return nil, err
	}
	status, length, err := c.receive()
	if err != nil {
		return nil, err
	}
	if length < 0 {
		return nil, fmt.Errorf("a reply without length")
	}
	if cap(c.reply) < length {
		c.reply = make([]byte, length)
	}
	c.reply = c.reply[:length]
	if _, err := io.ReadFull(c.in, c.reply); err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, fmt.Errorf("%s: status %d: %.300s", r.target, status, c.reply)
	}
	return c.reply, nil
}

// putBucket makes a bucket of the embedded object store.
func (c *conn) putBucket(name string) error {
	stamp := time.Now().UTC().Format("20060102T150405Z")
	const signed = "host;x-amz-content-sha256;x-amz-date"
	sum := sha256.Sum256(nil)
	empty := hex.EncodeToString(sum[:])
	canonical := "PUT\n/" + name + "\n\nhost:" + c.address + "\nx-amz-content-sha256:" + empty + "\nx-amz-date:" + stamp + "\n\n" + signed + "\n" + empty
	sum = sha256.Sum256([]byte(canonical))
	scope := stamp[:8] + "/" + c.signer.region + "/s3/aws4_request"
	k := mac(mac(mac(mac([]byte("AWS4"+c.signer.secret), stamp[:8]), c.signer.region), "s3"), "aws4_request")
	signature := hex.EncodeToString(mac(k, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(sum[:])))
	_, err := io.WriteString(c.net, "PUT /"+name+" HTTP/1.1\r\nHost: "+c.address+"\r\nContent-Length: 0\r\nX-Amz-Date: "+stamp+"\r\nX-Amz-Content-Sha256: "+empty+
		"\r\nAuthorization: AWS4-HMAC-SHA256 Credential="+c.signer.key+"/"+scope+", SignedHeaders="+signed+", Signature="+signature+"\r\n\r\n")
	if err != nil {
		return err
	}
	status, length, err := c.receive()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(c.in, int64(max(length, 0))))
	if status != 200 {
		return fmt.Errorf("make bucket %s: status %d: %.300s", name, status, text)
	}
	return err
}

// call is do for calls that are made once, in JSON.
func (c *conn) call(op string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	reply, err := c.do(newRequest(op, jsonType, body))
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(reply, out)
}

type object = map[string]any

// record i of a body; content that does not compress to nothing.
func payload(size, i int) []byte {
	b := make([]byte, size)
	x := uint64(i)*0x9e3779b97f4a7c15 + 1
	for j := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[j] = byte(x)
	}
	return b
}

// putRecords makes a PutRecords body of n records of a size each.
func putRecords(stream, contentType string, n, size, salt int) *request {
	if contentType == jsonType {
		var b bytes.Buffer
		fmt.Fprintf(&b, `{"StreamName":%q,"Records":[`, stream)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"Data":%q,"PartitionKey":"key-%d-%d"}`, base64.StdEncoding.EncodeToString(payload(size, i)), salt, i)
		}
		b.WriteString("]}")
		return newRequest("PutRecords", contentType, b.Bytes())
	}
	b := []byte{0xa2}
	b = cborText(b, "StreamName")
	b = cborText(b, stream)
	b = cborText(b, "Records")
	b = cborHead(b, 0x80, n)
	for i := range n {
		b = append(b, 0xa2)
		b = cborText(b, "Data")
		b = cborHead(b, 0x40, size)
		b = append(b, payload(size, i)...)
		b = cborText(b, "PartitionKey")
		b = cborText(b, fmt.Sprintf("key-%d-%d", salt, i))
	}
	return newRequest("PutRecords", contentType, b)
}

func cborHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
}

func cborText(b []byte, s string) []byte { return append(cborHead(b, 0x60, len(s)), s...) }
