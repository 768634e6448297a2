package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/deliverycontrol"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/sigv4"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

const deliverySeed = `
users:
  - name: writer
    account: "123456789012"
    keys: [{id: AKIAWRITER0000000001, secret: secretsecretsecretsecretsecretsecret1111}]
    policies:
      - name: deliver
        document:
          Version: "2012-10-17"
          Statement:
            - {Effect: Allow, Action: ["firehose:CreateDeliveryStream", "firehose:DescribeDeliveryStream", "firehose:PutRecord"], Resource: "*"}
            - {Effect: Allow, Action: "iam:PassRole", Resource: ["arn:aws:iam::123456789012:role/delivery", "arn:aws:iam::123456789012:role/distrustful", "arn:aws:iam::123456789012:role/nobody"],
               Condition: {StringEquals: {"iam:PassedToService": "firehose.amazonaws.com"}}}
roles:
  - name: delivery
    account: "123456789012"
    trust: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "sts:AssumeRole", Principal: {Service: firehose.amazonaws.com}}]}
    policies: []
  - name: distrustful
    account: "123456789012"
    trust: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "123456789012"}}]}
    policies: []
`

func code(err error) (string, string) {
	var e *testkit.Error
	if errors.As(err, &e) {
		return e.Code, e.Message
	}
	return "", fmt.Sprint(err)
}

// With keys, a delivery stream is made with roles that its owner may pass and
// that trust the service, and tags need a permission of their own.
func TestDeliveryStreamsNeedRoles(t *testing.T) {
	seed := filepath.Join(t.TempDir(), "seed.yaml")
	if err := os.WriteFile(seed, []byte(deliverySeed), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) { c.Auth, c.Seed, c.Account = "keys", seed, "123456789012" }})
	c := s.Client(testkit.Forms[0])
	c.Credentials = sigv4.Credentials{AccessKey: "AKIAWRITER0000000001", SecretKey: "secretsecretsecretsecretsecretsecret1111"}
	create := func(name, role string, tags ...firehose.Tag) error {
		return c.Call(t.Context(), firehose.OpCreateDeliveryStream, &firehose.CreateDeliveryStreamInput{
			DeliveryStreamName: &name, Tags: tags,
			ExtendedS3DestinationConfiguration: &firehose.ExtendedS3DestinationConfiguration{RoleARN: api.Ptr("arn:aws:iam::" + role), BucketARN: api.Ptr("arn:aws:s3:::bucket")},
		}, nil)
	}
	if err := create("good", "123456789012:role/delivery"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, role string
		tags       []firehose.Tag
		code, text string
	}{
		{"unpassable", "123456789012:role/admin", nil, "AccessDeniedException", "is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/admin"},
		{"missing", "123456789012:role/nobody", nil, "InvalidArgumentException", "Firehose is unable to assume role arn:aws:iam::123456789012:role/nobody. Please check the role provided."},
		{"distrustful", "123456789012:role/distrustful", nil, "InvalidArgumentException", "Firehose is unable to assume role arn:aws:iam::123456789012:role/distrustful. Please check the role provided."},
		{"foreign", "999999999999:role/delivery", nil, "AccessDeniedException", "iam:PassRole"},
		{"tagged", "123456789012:role/delivery", []firehose.Tag{{Key: api.Ptr("k")}}, "AccessDeniedException", "firehose:TagDeliveryStream on resource: arn:aws:firehose:us-east-1:123456789012:deliverystream/tagged"},
	} {
		got, text := code(create(test.name, test.role, test.tags...))
		if got != test.code || !strings.Contains(text, test.text) {
			t.Errorf("%s: %s %s, want %s with %s", test.name, got, text, test.code, test.text)
		}
	}
	if got, _ := code(c.Call(t.Context(), firehose.OpDeleteDeliveryStream, &firehose.DeleteDeliveryStreamInput{DeliveryStreamName: api.Ptr("good")}, nil)); got != "AccessDeniedException" {
		t.Errorf("deleting without permission: %q", got)
	}
}

// What was put is where the operator wants it when the server has stopped,
// though its buffer had long to go: stopping delivers.
func TestStoppingDeliversWhatIsBuffered(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "archive")
	file := filepath.Join(dir, "destinations.yaml")
	if err := os.WriteFile(file, []byte("destinations:\n  archive: {type: file, directory: "+archive+", delimiter: \"\\n\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := testkit.Options{Files: vfs.NewMemory(), Configure: func(c *config.Config) { c.Destinations = file }}
	s := testkit.Start(t, o)
	status, reply := send(t, s, "CreateDeliveryStream", `{"DeliveryStreamName":"s","HttpEndpointDestinationConfiguration":{
		"EndpointConfiguration":{"Url":"https://destinations.millrace.internal/archive"},"BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":900},
		"S3Configuration":{"RoleARN":"arn:aws:iam::123456789012:role/r","BucketARN":"arn:aws:s3:::bucket"}}}`)
	if status != 200 {
		t.Fatal(reply)
	}
	wait(t, s, "s", "ACTIVE")
	if status, reply := send(t, s, "PutRecordBatch", `{"DeliveryStreamName":"s","Records":[{"Data":"b25l"},{"Data":"dHdv"},{"Data":"dGhyZWU="}]}`); status != 200 {
		t.Fatal(reply)
	}
	waitBuffered(t, s, 3)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, archive); got != "one\ntwo\nthree\n" {
		t.Errorf("the archive has %q", got)
	}
	// Nothing comes twice after the next start.
	s = testkit.Start(t, o)
	wait(t, s, "s", "ACTIVE")
	if status, reply := send(t, s, "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"Zm91cg=="}}`); status != 200 {
		t.Fatal(reply)
	}
	waitBuffered(t, s, 1)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	// Files of one second are in no order.
	if got := contents(t, archive); got != "one\ntwo\nthree\nfour\n" && got != "four\none\ntwo\nthree\n" {
		t.Errorf("the archive has %q", got)
	}
}

// waitBuffered waits until so many records are in the buffers of s: what has not
// been read from the log when a server stops is delivered after the next start.
func waitBuffered(t *testing.T, s *testkit.Server, records int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := s.Client(testkit.Forms[0])
	for {
		var out deliverycontrol.GetDeliveryStatusOutput
		err := c.Call(ctx, deliverycontrol.OpGetDeliveryStatus, &deliverycontrol.GetDeliveryStatusInput{DeliveryStreamName: api.Ptr("s")}, &out)
		if err == nil && out.BufferedRecords != nil && *out.BufferedRecords == records {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d records are not buffered: %v, %v", records, out.BufferedRecords, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// contents are all files below a directory, in order of their names.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		b.Write(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A data stream feeds a delivery stream that writes to another data stream's
// place in line: what was put after the creation was asked for arrives.
func TestADataStreamIsDelivered(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "archive")
	file := filepath.Join(dir, "destinations.yaml")
	if err := os.WriteFile(file, []byte("destinations:\n  archive: {type: file, directory: "+archive+", delimiter: \"\\n\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testkit.Start(t, testkit.Options{Configure: func(c *config.Config) {
		c.Destinations, c.Account, c.InitializeStreams = file, "123456789012", "source:1"
	}})
	status, reply := send(t, s, "CreateDeliveryStream", `{"DeliveryStreamName":"s","DeliveryStreamType":"KinesisStreamAsSource",
		"KinesisStreamSourceConfiguration":{"KinesisStreamARN":"arn:aws:kinesis:us-east-1:123456789012:stream/source","RoleARN":"arn:aws:iam::123456789012:role/r"},
		"HttpEndpointDestinationConfiguration":{"EndpointConfiguration":{"Url":"https://destinations.millrace.internal/archive"},"BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":0},
		"S3Configuration":{"RoleARN":"arn:aws:iam::123456789012:role/r","BucketARN":"arn:aws:s3:::bucket"}}}`)
	if status != 200 {
		t.Fatal(reply)
	}
	c := s.Client(testkit.Forms[0])
	if err := putOne(t.Context(), c, "source", "early"); err != nil {
		t.Fatal(err)
	}
	wait(t, s, "s", "ACTIVE")
	if status, reply := send(t, s, "PutRecord", `{"DeliveryStreamName":"s","Record":{"Data":"eA=="}}`); status != 400 || !strings.Contains(reply, "This operation is not permitted on KinesisStreamAsSource delivery stream type.") {
		t.Errorf("%d %s", status, reply)
	}
	if err := putOne(t.Context(), c, "source", "late"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		got := ""
		if _, err := os.Stat(archive); err == nil {
			got = contents(t, archive)
		}
		if strings.Contains(got, "early\n") && strings.Contains(got, "late\n") {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the archive has %q", got)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func putOne(ctx context.Context, c *testkit.Client, stream, data string) error {
	return c.Call(ctx, kinesis.OpPutRecord, &kinesis.PutRecordInput{StreamName: &stream, PartitionKey: api.Ptr("k"), Data: []byte(data)}, nil)
}

// With the service's limits, calls other than puts are five a second.
func TestRatesOfDeliveryStreams(t *testing.T) {
	now := newClock()
	s := testkit.Start(t, testkit.Options{Now: now.now, Configure: func(c *config.Config) { c.Limits = "aws" }})
	for i := range 6 {
		status, reply := send(t, s, "ListDeliveryStreams", "{}")
		if want := 200; i < 5 && status != want {
			t.Fatalf("call %d: %d %s", i, status, reply)
		}
		if i == 5 && (status != 400 || !strings.Contains(reply, `"__type":"ThrottlingException"`) || !strings.Contains(reply, "Rate exceeded")) {
			t.Errorf("the sixth call: %d %s", status, reply)
		}
	}
	now.advance(time.Second)
	if status, reply := send(t, s, "ListDeliveryStreams", "{}"); status != 200 {
		t.Errorf("a second later: %d %s", status, reply)
	}
}
