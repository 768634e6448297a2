package conformance

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/firehose"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millrace/millrace/test/harness"
)

var deliveryStreams = &service{name: "firehose", target: "Firehose_20150804", inGo: func(endpoint, region string, keys aws.CredentialsProvider, over *http.Client) any {
	return firehose.New(firehose.Options{Region: region, BaseEndpoint: &endpoint, Credentials: keys, Retryer: aws.NopRetryer{}, HTTPClient: over})
}}

func deliveryNode() []string { return append(node(), "client-firehose", "FirehoseClient") }

var deliveryWays = []way{
	{"go/http", deliveryStreams.sdk(false), `^$`},
	{"go/tls", deliveryStreams.sdk(true), `^$`},
	{"boto3/http", subprocess("python", false, nil, deliveryStreams.python("boto3")), `^$`},
	{"boto3/tls", subprocess("python", true, nil, deliveryStreams.python("boto3")), `^$`},
	{"cli/http", subprocess("python", false, nil, deliveryStreams.python("cli")), `^$`},
	{"javascript/h2c", subprocess("node", false, []string{"MODULES=" + inCache("node")}, deliveryNode), `^$`},
	{"javascript/tls", subprocess("node", true, []string{"MODULES=" + inCache("node")}, deliveryNode), `^$`},
	{"java/sync-json", subprocess("java", false, nil, java("sync", "firehose")), `^$`},
	{"java/sync-tls", subprocess("java", true, nil, java("sync", "firehose")), `^$`},
	{"raw/json-h1", deliveryStreams.raw(jsonType, "h1"), `^$`},
	{"raw/json-h2c", deliveryStreams.raw(jsonType, "h2c"), `^$`},
}

const deliveryBucket = "conformance-deliveries"

// TestEveryDeliveryOperationThroughEveryClient is
// TestEveryOperationThroughEveryClient for delivery streams, up to the object
// that their records become.
func TestEveryDeliveryOperationThroughEveryClient(t *testing.T) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	objects := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL(false)), UsePathStyle: true, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider(harness.AccessKey, harness.SecretKey, ""),
	})
	if _, err := objects.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(deliveryBucket)}); err != nil {
		t.Fatal(err)
	}
	deliveryStreams.prove(t, deliveryWays, 12, "proven-firehose.txt", func(s *scenario) { s.delivery(objects) })
}

func (s *scenario) deliveryARN(name string) string {
	return "arn:aws:firehose:" + s.region + ":" + harness.Account + ":deliverystream/" + name
}

// delivers waits until a delivery stream satisfies a condition.
func (s *scenario) delivers(name, condition string, met func(d any) bool) any {
	for range 1000 {
		d := at(s.call("DescribeDeliveryStream", M{"DeliveryStreamName": name}), "DeliveryStreamDescription")
		if met(d) {
			return d
		}
		time.Sleep(10 * time.Millisecond)
	}
	fail("delivery stream %s does not get %s", name, condition)
	return nil
}

func (s *scenario) deliveryActive(name string) any {
	return s.delivers(name, "ACTIVE", func(d any) bool { return text(d, "DeliveryStreamStatus") == "ACTIVE" })
}

func (s *scenario) delivery(objects *s3.Client) {
	const name = "floods"
	var sent []string
	target := M{
		"RoleARN": harness.DeliveryRole, "BucketARN": "arn:aws:s3:::" + deliveryBucket, "Prefix": s.region + "/",
		"BufferingHints": M{"SizeInMBs": 1, "IntervalInSeconds": 1},
	}
	s.check("create", func() {
		out := s.call("CreateDeliveryStream", M{
			"DeliveryStreamName": name, "DeliveryStreamType": "DirectPut", "ExtendedS3DestinationConfiguration": target,
			"Tags": []any{M{"Key": "made-by", "Value": "conformance"}},
		})
		want(text(out, "DeliveryStreamARN") == s.deliveryARN(name), "ARN %q", text(out, "DeliveryStreamARN"))
	})
	s.check("describe", func() {
		d := s.deliveryActive(name)
		want(text(d, "DeliveryStreamARN") == s.deliveryARN(name) && text(d, "DeliveryStreamName") == name, "description %v", d)
		want(text(d, "DeliveryStreamType") == "DirectPut" && text(d, "VersionId") == "1", "type %q, version %q", text(d, "DeliveryStreamType"), text(d, "VersionId"))
		want(len(list(d, "Destinations")) == 1 && text(d, "Destinations", 0, "DestinationId") == "destinationId-000000000001", "destinations %v", at(d, "Destinations"))
		to := at(d, "Destinations", 0, "ExtendedS3DestinationDescription")
		want(text(to, "BucketARN") == "arn:aws:s3:::"+deliveryBucket && text(to, "RoleARN") == harness.DeliveryRole && text(to, "Prefix") == s.region+"/", "destination %v", to)
		want(text(to, "CompressionFormat") == "UNCOMPRESSED" && text(to, "S3BackupMode") == "Disabled", "defaults %v", to)
		want(text(to, "EncryptionConfiguration", "NoEncryptionConfig") == "NoEncryption", "encryption %v", at(to, "EncryptionConfiguration"))
		want(number(to, "BufferingHints", "SizeInMBs") == 1 && number(to, "BufferingHints", "IntervalInSeconds") == 1, "hints %v", at(to, "BufferingHints"))
		want(text(d, "Destinations", 0, "S3DestinationDescription", "BucketARN") == "arn:aws:s3:::"+deliveryBucket, "no plain description in %v", d)
		want(at(d, "HasMoreDestinations") == false || at(d, "HasMoreDestinations") == nil, "HasMoreDestinations %v", at(d, "HasMoreDestinations"))
		created, _ := at(d, "CreateTimestamp").(time.Time)
		want(time.Since(created).Abs() < time.Minute, "created at %v", at(d, "CreateTimestamp"))
	})
	s.check("create again", func() {
		s.refuse("CreateDeliveryStream", M{"DeliveryStreamName": name, "ExtendedS3DestinationConfiguration": target},
			"ResourceInUseException", "Firehose "+name+" under accountId "+harness.Account+" already exists")
	})
	s.check("missing", func() {
		s.refuse("DescribeDeliveryStream", M{"DeliveryStreamName": "missing"}, "ResourceNotFoundException",
			"Firehose missing under account "+harness.Account+" not found.")
	})
	s.check("list", func() {
		s.call("CreateDeliveryStream", M{"DeliveryStreamName": "ebbs", "ExtendedS3DestinationConfiguration": target})
		out := s.call("ListDeliveryStreams", M{"Limit": 1})
		want(slices.Equal(list(out, "DeliveryStreamNames"), []any{"ebbs"}) && at(out, "HasMoreDeliveryStreams") == true, "first page %v", out)
		out = s.call("ListDeliveryStreams", M{"ExclusiveStartDeliveryStreamName": "ebbs", "DeliveryStreamType": "DirectPut"})
		want(slices.Equal(list(out, "DeliveryStreamNames"), []any{name}) && at(out, "HasMoreDeliveryStreams") != true, "second page %v", out)
		out = s.call("ListDeliveryStreams", M{"DeliveryStreamType": "KinesisStreamAsSource"})
		want(len(list(out, "DeliveryStreamNames")) == 0, "of another type: %v", out)
	})
	s.check("put a record", func() {
		out := s.call("PutRecord", M{"DeliveryStreamName": name, "Record": M{"Data": []byte("level ü 2.31\n")}})
		sent = append(sent, "level ü 2.31\n")
		want(len(text(out, "RecordId")) > 0 && at(out, "Encrypted") != true, "reply %v", out)
	})
	s.check("put records", func() {
		out := s.call("PutRecordBatch", M{"DeliveryStreamName": name, "Records": []any{M{"Data": []byte("one\n")}, M{"Data": []byte("two\n")}, M{"Data": []byte("three\n")}}})
		sent = append(sent, "one\n", "two\n", "three\n")
		answers := list(out, "RequestResponses")
		want(number(out, "FailedPutCount") == 0 && len(answers) == 3, "reply %v", out)
		for i := range answers {
			want(text(answers, i, "RecordId") != "" && at(answers, i, "ErrorCode") == nil, "answer %d: %v", i, answers[i])
		}
	})
	s.check("put to nowhere", func() {
		s.refuse("PutRecord", M{"DeliveryStreamName": "missing", "Record": M{"Data": []byte("x")}}, "ResourceNotFoundException",
			"Firehose missing under account "+harness.Account+" not found.")
	})
	s.check("tags", func() {
		s.call("TagDeliveryStream", M{"DeliveryStreamName": name, "Tags": []any{M{"Key": "river", "Value": "rhine"}, M{"Key": "unit", "Value": "m"}}})
		out := s.call("ListTagsForDeliveryStream", M{"DeliveryStreamName": name, "Limit": 2})
		want(len(list(out, "Tags")) == 2 && at(out, "HasMoreTags") == true, "first page %v", out)
		s.call("UntagDeliveryStream", M{"DeliveryStreamName": name, "TagKeys": []any{"river"}})
		out = s.call("ListTagsForDeliveryStream", M{"DeliveryStreamName": name})
		tags := list(out, "Tags")
		want(len(tags) == 2 && text(tags, 0, "Key") == "made-by" && text(tags, 1, "Key") == "unit" && text(tags, 1, "Value") == "m", "tags %v", tags)
	})
	s.check("update", func() {
		in := M{
			"DeliveryStreamName": name, "CurrentDeliveryStreamVersionId": "7", "DestinationId": "destinationId-000000000001",
			"ExtendedS3DestinationUpdate": M{"ErrorOutputPrefix": s.region + "/failed/", "CloudWatchLoggingOptions": M{"Enabled": false}},
		}
		s.refuse("UpdateDestination", in, "ConcurrentModificationException", "since the current version id: 1 and specified version id: 7 do not match")
		in["CurrentDeliveryStreamVersionId"] = "1"
		s.call("UpdateDestination", in)
		d := s.delivers(name, "version 2", func(d any) bool { return text(d, "VersionId") == "2" })
		to := at(d, "Destinations", 0, "ExtendedS3DestinationDescription")
		want(text(to, "ErrorOutputPrefix") == s.region+"/failed/" && text(to, "Prefix") == s.region+"/", "after the update %v", to)
		want(number(to, "BufferingHints", "IntervalInSeconds") == 1, "hints after the update %v", at(to, "BufferingHints"))
	})
	s.check("encryption", func() {
		state := func(wanted string) {
			s.delivers(name, "encryption "+wanted, func(d any) bool {
				return text(d, "DeliveryStreamEncryptionConfiguration", "Status") == wanted
			})
		}
		s.call("StartDeliveryStreamEncryption", M{"DeliveryStreamName": name, "DeliveryStreamEncryptionConfigurationInput": M{"KeyType": "AWS_OWNED_CMK"}})
		state("ENABLED")
		out := s.call("PutRecord", M{"DeliveryStreamName": name, "Record": M{"Data": []byte("sealed\n")}})
		sent = append(sent, "sealed\n")
		want(at(out, "Encrypted") == true, "reply %v", out)
		s.call("StopDeliveryStreamEncryption", M{"DeliveryStreamName": name})
		state("DISABLED")
	})
	s.check("delivered", func() {
		var got []string
		for range 1500 {
			got = s.delivered(objects)
			if len(got) >= len(sent) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		slices.Sort(got)
		slices.Sort(sent)
		want(slices.Equal(got, sent), "objects hold %q, sent were %q", got, sent)
	})
	s.check("delete", func() {
		for _, n := range []string{"ebbs", name} {
			s.deliveryActive(n)
			s.call("DeleteDeliveryStream", M{"DeliveryStreamName": n, "AllowForceDelete": true})
		}
		for range 1000 {
			if len(list(s.call("ListDeliveryStreams", M{}), "DeliveryStreamNames")) == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.refuse("DeleteDeliveryStream", M{"DeliveryStreamName": name}, "ResourceNotFoundException", "Firehose "+name+" under account "+harness.Account+" not found.")
	})
}

// delivered is what the objects of the scenario hold, line by line.
func (s *scenario) delivered(objects *s3.Client) (lines []string) {
	page, err := objects.ListObjectsV2(s.ctx, &s3.ListObjectsV2Input{Bucket: aws.String(deliveryBucket), Prefix: aws.String(s.region + "/")})
	if err != nil {
		fail("list: %v", err)
	}
	for _, o := range page.Contents {
		rest := strings.TrimPrefix(*o.Key, s.region+"/")
		want(strings.HasPrefix(rest, time.Now().UTC().Format("2006/")), "key %q", *o.Key)
		out, err := objects.GetObject(s.ctx, &s3.GetObjectInput{Bucket: aws.String(deliveryBucket), Key: o.Key})
		if err != nil {
			fail("get: %v", err)
		}
		var b bytes.Buffer
		_, err = b.ReadFrom(out.Body)
		out.Body.Close()
		if err != nil {
			fail("get: %v", err)
		}
		lines = append(lines, slices.Collect(strings.Lines(b.String()))...)
	}
	return lines
}
