package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/testkit"
	"github.com/millrace/millrace/internal/vfs"
)

const testAccount = "000000000000"

// buckets is a client of the object protocol.
func buckets(t *testing.T, s *testkit.Server) *s3.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return s3.New(s3.Options{
		Region: testkit.Region, BaseEndpoint: aws.String("http://" + s.Address()), UsePathStyle: true, HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
}

func makeBucket(t *testing.T, c *s3.Client, name string) {
	t.Helper()
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
}

// content is all objects of a bucket, by their keys, unpacked.
func content(t *testing.T, c *s3.Client, bucket string) map[string]string {
	t.Helper()
	all := map[string]string{}
	pages := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() {
		p, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range p.Contents {
			out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: o.Key})
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(out.Body)
			out.Body.Close()
			if err == nil && strings.HasSuffix(*o.Key, ".gz") {
				var r *gzip.Reader
				if r, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
					b, err = io.ReadAll(r)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			all[*o.Key] = string(b)
		}
	}
	return all
}

// lines are those of all objects whose keys begin with prefix, sorted.
func lines(all map[string]string, prefix string) []string {
	var list []string
	for k, v := range all {
		if strings.HasPrefix(k, prefix) {
			list = append(list, strings.Split(strings.TrimSuffix(v, "\n"), "\n")...)
		}
	}
	slices.Sort(list)
	return list
}

func createOnDemand(t *testing.T, c *testkit.Client, name string) (arn string) {
	t.Helper()
	if err := c.Call(t.Context(), kinesis.OpCreateStream, &kinesis.CreateStreamInput{StreamName: &name, StreamModeDetails: &kinesis.StreamModeDetails{StreamMode: api.Ptr(kinesis.StreamModeOnDemand)}}, nil); err != nil {
		t.Fatal(err)
	}
	return "arn:aws:kinesis:" + testkit.Region + ":" + testAccount + ":stream/" + name
}

type channelOptions struct {
	format   kinesis.RecordFormatType
	template string
	pack     kinesis.S3CompressionType
	owner    string
}

func createChannel(t *testing.T, c *testkit.Client, name, stream, bucket string, o channelOptions) *kinesis.ChannelDescription {
	t.Helper()
	if o.owner == "" {
		o.owner = testAccount
	}
	storage := &kinesis.S3StorageConfiguration{BucketARN: api.Ptr("arn:aws:s3:::" + bucket), ExpectedBucketOwner: &o.owner, CompressionType: &o.pack}
	if o.template != "" {
		storage.OutputKeyTemplate = &o.template
	}
	out := new(kinesis.CreateChannelOutput)
	if err := c.Call(t.Context(), kinesis.OpCreateChannel, &kinesis.CreateChannelInput{
		ChannelName: &name, ServiceExecutionRoleARN: api.Ptr("arn:aws:iam::" + testAccount + ":role/channels"),
		StreamConfigurationList:    []kinesis.ChannelStreamConfiguration{{StreamARN: &stream, RecordConfiguration: &kinesis.RecordConfiguration{RecordFormatType: &o.format}}},
		S3DestinationConfiguration: &kinesis.S3DestinationConfiguration{StorageConfiguration: storage, DataFreshnessInSeconds: api.Ptr(int32(1))},
	}, out); err != nil {
		t.Fatal(err)
	}
	return describeChannel(t, c, *out.ChannelDescription.ChannelARN)
}

func describeChannel(t *testing.T, c *testkit.Client, arn string) *kinesis.ChannelDescription {
	t.Helper()
	out := new(kinesis.DescribeChannelOutput)
	if err := c.Call(t.Context(), kinesis.OpDescribeChannel, &kinesis.DescribeChannelInput{ChannelARN: &arn}, out); err != nil {
		t.Fatal(err)
	}
	return out.ChannelDescription
}

// Channels deliver what comes after their creation, in the formats they name, and
// put what does not fit with the dead letters.
func TestChannelsDeliverToBuckets(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	c, store := s.Client(testkit.Form{}), buckets(t, s)
	makeBucket(t, store, "lake")
	stream := createOnDemand(t, c, "events")
	put(t, c, "events", `{"before":true}`)
	time.Sleep(5 * time.Millisecond) // a channel begins with the millisecond of its creation
	for name, o := range map[string]channelOptions{
		"json":  {format: kinesis.RecordFormatTypeJson, pack: kinesis.S3CompressionTypeNone, template: "json/!{timestamp:yyyy}/"},
		"text":  {format: kinesis.RecordFormatTypeString, pack: kinesis.S3CompressionTypeGzip, template: "text/"},
		"bytes": {format: kinesis.RecordFormatTypeByteArray, pack: kinesis.S3CompressionTypeNone, template: "bytes/"},
	} {
		if d := createChannel(t, c, name, stream, "lake", o); *d.ChannelStatus != kinesis.ChannelStatusActive {
			t.Fatalf("%s is %s: %s", name, *d.ChannelStatus, api.Val(d.ChannelStatusReason))
		}
	}
	put(t, c, "events", `{"n":1}`, "{\n \"n\": 2}", `{"n":3}{"n":4}`, "plain", "\xff\xfe")
	want := map[string][]string{
		"json/":  {`{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`},
		"text/":  {` "n": 2}`, `plain`, `{`, `{"n":1}`, `{"n":3}{"n":4}`},
		"bytes/": {` "n": 2}{"n":3}{"n":4}plain` + "\xff\xfe", `{"n":1}{`},
	}
	eventually(t, "all formats are delivered", func() bool {
		all := content(t, store, "lake")
		for prefix, list := range want {
			got := lines(all, prefix)
			if !slices.Equal(got, list) && strings.Join(got, "") != strings.Join(list, "") {
				if len(got) >= len(list) {
					t.Fatalf("%s holds %q, not %q", prefix, got, list)
				}
				return false
			}
		}
		// Two records are not JSON, one of them no text either.
		return len(lines(all, "errors/")) == 3
	})
	for k := range content(t, store, "lake") {
		if strings.HasPrefix(k, "json/") && !strings.HasPrefix(k, fmt.Sprintf("json/%d/", time.Now().UTC().Year())) {
			t.Errorf("an object is called %s", k)
		}
	}
}

// A power failure costs no record: what the stream has acknowledged is delivered
// after the next start, and each record at least once.
func TestChannelsGoOnAfterACrash(t *testing.T) {
	files := vfs.NewMemory()
	s := testkit.Start(t, testkit.Options{Files: files})
	c, store := s.Client(testkit.Form{}), buckets(t, s)
	makeBucket(t, store, "lake")
	stream := createOnDemand(t, c, "events")
	d := createChannel(t, c, "channel", stream, "lake", channelOptions{format: kinesis.RecordFormatTypeString, pack: kinesis.S3CompressionTypeNone, template: "x/"})
	if *d.ChannelStatus != kinesis.ChannelStatusActive {
		t.Fatal(api.Val(d.ChannelStatusReason))
	}
	var want []string
	for i := range 20 {
		r := fmt.Sprintf("record %02d", i)
		want = append(want, r)
		put(t, c, "events", r)
		if i == 9 {
			eventually(t, "something is delivered", func() bool { return len(content(t, store, "lake")) > 0 })
		}
	}
	again := testkit.Start(t, testkit.Options{Files: files.CrashClone(3)})
	store = buckets(t, again)
	eventually(t, "everything is delivered", func() bool {
		got := slices.Compact(lines(content(t, store, "lake"), "x/"))
		return slices.Equal(got, want)
	})
}

func TestChannelsThatCannotDeliverSayWhy(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	c, store := s.Client(testkit.Form{}), buckets(t, s)
	stream := createOnDemand(t, c, "events")
	o := channelOptions{format: kinesis.RecordFormatTypeString, pack: kinesis.S3CompressionTypeNone, template: "x/"}
	d := createChannel(t, c, "early", stream, "later-made", o)
	if *d.ChannelStatus != kinesis.ChannelStatusFailed || !strings.Contains(api.Val(d.ChannelStatusReason), "NoSuchBucket") {
		t.Errorf("without its bucket it is %s: %s", *d.ChannelStatus, api.Val(d.ChannelStatusReason))
	}
	put(t, c, "events", "while it fails")
	makeBucket(t, store, "later-made")
	if err := c.Call(t.Context(), kinesis.OpUpdateChannel, &kinesis.UpdateChannelInput{ChannelARN: d.ChannelARN, S3DestinationConfiguration: &kinesis.S3DestinationUpdateInput{DataFreshnessInSeconds: api.Ptr(int32(2))}}, nil); err != nil {
		t.Fatal(err)
	}
	if d = describeChannel(t, c, *d.ChannelARN); *d.ChannelStatus != kinesis.ChannelStatusActive {
		t.Errorf("with its bucket it is %s: %s", *d.ChannelStatus, api.Val(d.ChannelStatusReason))
	}
	eventually(t, "it delivers from its creation on", func() bool {
		return slices.Equal(lines(content(t, store, "later-made"), "x/"), []string{"while it fails"})
	})
	if err := c.Call(t.Context(), kinesis.OpDeleteChannel, &kinesis.DeleteChannelInput{ChannelARN: d.ChannelARN}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), kinesis.OpDeleteStream, &kinesis.DeleteStreamInput{StreamARN: &stream}, nil); err != nil {
		t.Errorf("the stream is still in use: %v", err)
	}
}

// Buckets are part of backups, damage in them is found, and what is restored is
// served.
func TestBucketsAreBackedUpAndVerified(t *testing.T) {
	dir := t.TempDir()
	data, backup := dir+"/data", dir+"/backup"
	configure := func(c *config.Config) { c.Data = data }
	run := func(files string, f func(*s3.Client)) {
		data = files
		if err := os.MkdirAll(files, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := testkit.Open(t.Context(), testkit.Options{Files: vfs.OS(files), Configure: configure})
		if err != nil {
			t.Fatal(err)
		}
		f(buckets(t, s))
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	body := strings.Repeat("0123456789", 20_000)
	run(data, func(c *s3.Client) {
		makeBucket(t, c, "kept")
		for _, k := range []string{"a", "dir/b"} {
			if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("kept"), Key: &k, Body: strings.NewReader(body)}); err != nil {
				t.Fatal(err)
			}
		}
	})
	var report bytes.Buffer
	if err := server.CopyDirectory(context.Background(), data, backup, &report); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(report.String(), "objects/bucket kept  400000 bytes, 2 entries") {
		t.Errorf("the report:\n%s", report.String())
	}
	run(backup, func(c *s3.Client) {
		if all := content(t, c, "kept"); len(all) != 2 || all["dir/b"] != body {
			t.Errorf("the copy holds %d objects", len(all))
		}
	})
	folders, err := os.ReadDir(backup + "/objects/data")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no folders: %v", err)
	}
	name := ""
	for _, f := range folders {
		list, err := os.ReadDir(backup + "/objects/data/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			name = backup + "/objects/data/" + f.Name() + "/" + list[0].Name()
		}
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[100_000] ^= 1
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	report.Reset()
	if err := server.VerifyDirectory(context.Background(), backup, &report); err == nil || !strings.Contains(report.String(), "DAMAGED  objects/object kept/a") {
		t.Errorf("damage is not found: %v\n%s", err, report.String())
	}
}
