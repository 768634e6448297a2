package conformance

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/test/harness"
)

// exact is a request in the service's bytes and the whole of its answer.
type exact struct {
	name        string
	target      string // operation, or a whole target header if it has a dot
	contentType string // JSON if empty
	body        string
	status      int
	want        string // the body
}

func serialization(text string) string {
	return `{"__type":"SerializationException","Message":"` + text + `"}`
}

func validation(text string) string {
	return `{"__type":"ValidationException","message":"` + text + `"}`
}

var exactAnswers = []exact{
	{name: "no JSON", target: "ListStreams", body: `{`, status: 400, want: `{"__type":"SerializationException"}`},
	{name: "null is no structure", target: "ListStreams", body: `null`, status: 400, want: `{"__type":"SerializationException"}`},
	{name: "a list is no structure", target: "ListStreams", body: `[]`, status: 400, want: `{"__type":"SerializationException"}`},
	{name: "bytes behind the object", target: "ListStreams", body: `{} x`, status: 400, want: `{"__type":"SerializationException"}`},
	{name: "a byte-order mark", target: "ListStreams", body: "\xef\xbb\xbf{}", status: 400, want: `{"__type":"SerializationException"}`},
	{name: "an empty body", target: "ListStreams", body: ``, status: 400, want: `{"__type":"SerializationException"}`},
	{name: "an unknown operation", target: "Reverse", body: `{}`, status: 400, want: `{"__type":"UnknownOperationException"}`},
	{name: "an unknown service", target: "Nobody_20200101.ListStreams", body: `{}`, status: 400, want: `{"__type":"UnknownOperationException"}`},
	{name: "another content type", target: "ListStreams", contentType: "text/plain", body: `{}`, status: 404, want: "<UnknownOperationException/>"},
	{name: "plain JSON", target: "ListStreams", contentType: "application/json", body: `{}`, status: 404,
		want: `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`},
	{name: "plain JSON that is none", target: "ListStreams", contentType: "application/json", body: `{`, status: 400,
		want: `{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}`},

	{name: "a boolean for a string", target: "DescribeStream", body: `{"StreamName":true}`, status: 400,
		want: serialization("class java.lang.Boolean can not be converted to an String")},
	{name: "a number for a string", target: "DescribeStream", body: `{"StreamName":23}`, status: 400,
		want: serialization("class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String")},
	{name: "a string for an integer", target: "DescribeStream", body: `{"Limit":"1"}`, status: 400,
		want: serialization("class java.lang.String can not be converted to an Integer")},
	{name: "a string for a boolean", target: "DeleteStream", body: `{"EnforceConsumerDeletion":"23"}`, status: 400,
		want: serialization("'23' can not be converted to an Boolean")},
	{name: "a string for a time", target: "ListShards", body: `{"StreamCreationTimestamp":"yesterday"}`, status: 400,
		want: serialization("class java.lang.String can not be converted to milliseconds since epoch")},
	{name: "a number for bytes", target: "PutRecord", body: `{"Data":1}`, status: 400,
		want: serialization("class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to a Blob")},
	{name: "base64 of a wrong length", target: "PutRecord", body: `{"Data":"abcde"}`, status: 400,
		want: serialization("'abcde' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5")},
	{name: "a list for a string", target: "DescribeStream", body: `{"StreamName":[]}`, status: 400,
		want: serialization("Start of list found where not expected")},
	{name: "a structure for a string", target: "DescribeStream", body: `{"StreamName":{}}`, status: 400,
		want: serialization("Start of structure or map found where not expected.")},
	{name: "a scalar for a list", target: "PutRecords", body: `{"Records":"x"}`, status: 400,
		want: serialization("Expected list or null")},

	{name: "a required member", target: "CreateStream", body: `{}`, status: 400,
		want: validation("1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")},
	{name: "a pattern", target: "CreateStream", body: `{"StreamName":"a b","ShardCount":1}`, status: 400,
		want: validation("1 validation error detected: Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+")},
	{name: "a smallest number", target: "CreateStream", body: `{"StreamName":"a","ShardCount":0}`, status: 400,
		want: validation("1 validation error detected: Value '0' at 'shardCount' failed to satisfy constraint: Member must have value greater than or equal to 1")},
	{name: "a largest number, after clamping", target: "GetRecords", body: `{"ShardIterator":"x","Limit":1e12}`, status: 400,
		want: validation("1 validation error detected: Value '2147483647' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000")},
	{name: "an enumeration", target: "GetShardIterator", body: `{"StreamName":"a","ShardId":"0","ShardIteratorType":"SIDEWAYS"}`, status: 400,
		want: validation("1 validation error detected: Value 'SIDEWAYS' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST, AT_TIMESTAMP]")},
	{name: "two failures", target: "SplitShard", body: `{"StreamName":"a"}`, status: 400,
		want: validation("2 validation errors detected: Value null at 'shardToSplit' failed to satisfy constraint: Member must not be null; Value null at 'newStartingHashKey' failed to satisfy constraint: Member must not be null")},
	{name: "an entry of a list", target: "PutRecords", body: `{"StreamName":"a","Records":[{"Data":"","PartitionKey":""}]}`, status: 400,
		want: validation("1 validation error detected: Value '' at 'records.1.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1")},

	{name: "no name of a stream", target: "DescribeStream", body: `{}`, status: 400,
		want: `{"__type":"InvalidArgumentException","message":"Either StreamARN or StreamName must be provided."}`},
	{name: "a missing stream", target: "DescribeStream", body: `{"StreamName":"none","Unknown":{"a":[1,{}]}}`, status: 400,
		want: `{"__type":"ResourceNotFoundException","message":"Stream none under account 000000000000 not found."}`},
	{name: "an iterator of a missing stream", target: "GetShardIterator", body: `{"StreamName":"none","ShardId":"shardId-5","ShardIteratorType":"LATEST"}`, status: 400,
		want: `{"__type":"ResourceNotFoundException","message":"Shard shardId-000000000005 in stream none under account 000000000000 does not exist"}`},
	{name: "a shard id that is none", target: "GetShardIterator", body: `{"StreamName":"none","ShardId":"x","ShardIteratorType":"LATEST"}`, status: 400,
		want: `{"__type":"ResourceNotFoundException","message":"Could not find shard x in stream none under account 000000000000."}`},
	{name: "list shards without anything", target: "ListShards", body: `{}`, status: 400,
		want: `{"__type":"InvalidArgumentException","message":"Either NextToken or StreamName should be provided."}`},
	{name: "a forged iterator", target: "GetRecords", body: `{"ShardIterator":"AAAA"}`, status: 400,
		want: `{"__type":"InvalidArgumentException","message":"Invalid ShardIterator."}`},
}

func TestExactAnswers(t *testing.T) {
	c := &rawClient{service: dataStreams, endpoint: server.URL(false), region: "exact-1", http: &http.Client{Transport: &http.Transport{}}}
	defer c.Close()
	for _, e := range exactAnswers {
		t.Run(e.name, func(t *testing.T) {
			target, contentType := e.target, e.contentType
			if !strings.Contains(target, ".") {
				target = "Kinesis_20131202." + target
			}
			if contentType == "" {
				contentType = jsonType
			}
			status, header, body := exchange(t, c, target, contentType, []byte(e.body))
			if status != e.status || string(body) != e.want {
				t.Errorf("got  %d %s\nwant %d %s", status, body, e.status, e.want)
			}
			if header.Get("X-Amzn-Requestid") == "" || header.Get("X-Amz-Id-2") == "" {
				t.Errorf("headers %v", header)
			}
		})
	}
}

func exchange(t *testing.T, c *rawClient, target, contentType string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := c.request(ctx, target, contentType, body)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	got, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, reply.Header, got
}

// TestExactAnswersInCBOR wants the same codes and texts in the other encoding.
func TestExactAnswersInCBOR(t *testing.T) {
	c := &rawClient{service: dataStreams, endpoint: server.URL(false), region: "exact-1", contentType: cborType, http: &http.Client{Transport: &http.Transport{}}}
	defer c.Close()
	for _, e := range []struct {
		name, op string
		in       M
		code     string
		message  string
	}{
		{"a boolean for a string", "DescribeStream", M{"StreamName": true}, "SerializationException", "class java.lang.Boolean can not be converted to an String"},
		{"a required member", "CreateStream", M{}, "ValidationException", "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null"},
		{"a missing stream", "DescribeStream", M{"StreamName": "none"}, "ResourceNotFoundException", "Stream none under account 000000000000 not found."},
		{"a time in the future", "GetShardIterator", M{"StreamName": "none", "ShardId": "x", "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": time.Now()}, "ResourceNotFoundException", "Could not find shard x in stream none under account 000000000000."},
	} {
		t.Run(e.name, func(t *testing.T) {
			_, err := c.Call(t.Context(), e.op, e.in, 0)
			f, ok := err.(*Failure)
			if !ok || f.Code != e.code || f.Message != e.message || f.Status != 400 {
				t.Errorf("got %#v, want %s: %s", err, e.code, e.message)
			}
		})
	}
	t.Run("an unknown operation has an empty text", func(t *testing.T) {
		status, header, body := exchange(t, c, "Kinesis_20131202.Reverse", cborType, []byte{0xa0})
		out, err := decodeReply(cborType, body)
		if status != 400 || header.Get("Content-Type") != cborType || err != nil || text(out, "__type") != "UnknownOperationException" {
			t.Errorf("got %d %v %v %v", status, header, out, err)
		}
	})
}

// TestHostileBytesAreRefused wants a modelled error, the connection kept, and
// the server alive, for bytes made to hurt a decoder.
func TestHostileBytesAreRefused(t *testing.T) {
	for _, e := range []struct {
		name, contentType string
		body              []byte
	}{
		{"deep JSON", jsonType, bytes.Repeat([]byte(`{"a":`), 100_000)},
		{"deep lists", jsonType, []byte(`{"x":` + strings.Repeat("[", 200_000))},
		{"a long number", jsonType, []byte(`{"Limit":` + strings.Repeat("9", 100_000) + `,"StreamName":"none"}`)},
		{"half an escape", jsonType, []byte(`{"StreamName":"\u12`)},
		{"invalid UTF-8", jsonType, []byte("{\"StreamName\":\"\xff\xfe\"}")},
		{"deep CBOR", cborType, bytes.Repeat([]byte{0x81}, 100_000)},
		{"a huge CBOR string", cborType, []byte{0xa1, 0x6a, 'S', 't', 'r', 'e', 'a', 'm', 'N', 'a', 'm', 'e', 0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"a huge CBOR list", cborType, []byte{0xa1, 0x67, 'R', 'e', 'c', 'o', 'r', 'd', 's', 0x9b, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"an unfinished CBOR map", cborType, []byte{0xbf, 0x61, 'a'}},
		{"gzip", jsonType, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0}},
	} {
		t.Run(e.name, func(t *testing.T) {
			c := &rawClient{service: dataStreams, endpoint: server.URL(false), region: "exact-1", contentType: e.contentType, http: &http.Client{Transport: &http.Transport{}}}
			defer c.Close()
			status, _, body := exchange(t, c, "Kinesis_20131202.PutRecords", e.contentType, e.body)
			if status != 400 || !bytes.Contains(body, []byte("Exception")) {
				t.Errorf("got %d %.200q", status, body)
			}
			if _, err := c.Call(t.Context(), "ListStreams", M{}, 0); err != nil {
				t.Errorf("the next call fails: %v", err)
			}
		})
	}
}

// TestSignaturesAreVerified sends what a forger would.
func TestSignaturesAreVerified(t *testing.T) {
	c := &rawClient{service: dataStreams, endpoint: server.URL(false), region: "exact-1", contentType: jsonType, http: &http.Client{Transport: &http.Transport{}}}
	defer c.Close()
	for _, e := range []struct {
		name   string
		change func(r *http.Request)
		want   string
	}{
		{"nothing signed", func(r *http.Request) { r.Header.Del("Authorization") },
			`{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`},
		{"a changed header", func(r *http.Request) { r.Header.Set("X-Amz-Target", "Kinesis_20131202.DescribeLimits") },
			`{"__type":"InvalidSignatureException","message":"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}`},
		{"an unknown key", func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), harness.AccessKey, "AKIANOBODYKNOWSTHIS1", 1))
		}, `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`},
	} {
		t.Run(e.name, func(t *testing.T) {
			r, err := c.request(t.Context(), "Kinesis_20131202.ListStreams", jsonType, []byte(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			e.change(r)
			reply, err := c.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer reply.Body.Close()
			got, _ := io.ReadAll(reply.Body)
			if reply.StatusCode != 400 || string(got) != e.want {
				t.Errorf("got  %d %s\nwant 400 %s", reply.StatusCode, got, e.want)
			}
		})
	}
}
