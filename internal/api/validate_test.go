package api_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalyticsv2"
)

func TestValidationTexts(t *testing.T) {
	long := strings.Repeat("a", 129)
	entries := func(n int, e kinesis.PutRecordsRequestEntry) []kinesis.PutRecordsRequestEntry {
		list := make([]kinesis.PutRecordsRequestEntry, n)
		for i := range list {
			list[i] = kinesis.PutRecordsRequestEntry{Data: []byte{}, PartitionKey: api.Ptr("k")}
		}
		list[n-1] = e
		return list
	}
	good := kinesis.PutRecordsRequestEntry{Data: []byte{}, PartitionKey: api.Ptr("k")}
	for _, c := range []struct {
		name string
		in   api.Shape
		want string // without the count, empty for valid
	}{
		{"nothing wrong", &kinesis.PutRecordInput{Data: []byte{}, StreamName: api.Ptr("s"), PartitionKey: api.Ptr("k")}, ""},
		{"a missing partition key is the service's business", &kinesis.PutRecordInput{Data: []byte{}}, ""},
		{"required", &kinesis.CreateStreamInput{}, "Value null at 'streamName' failed to satisfy constraint: Member must not be null"},
		{"several, in the model's order", &kinesis.GetShardIteratorInput{StreamName: api.Ptr("")},
			"Value '' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; " +
				"Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1; " +
				"Value null at 'shardId' failed to satisfy constraint: Member must not be null; " +
				"Value null at 'shardIteratorType' failed to satisfy constraint: Member must not be null"},
		{"longest string", &kinesis.DeleteStreamInput{StreamName: api.Ptr(long[:128])}, ""},
		{"too long", &kinesis.DeleteStreamInput{StreamName: api.Ptr(long)}, "Value '" + long + "' at 'streamName' failed to satisfy constraint: Member must have length less than or equal to 128"},
		{"length counts code points", &kinesis.PutRecordInput{Data: []byte{}, PartitionKey: api.Ptr(strings.Repeat("é", 256))}, ""},
		{"one code point too many", &kinesis.PutRecordInput{Data: []byte{}, PartitionKey: api.Ptr(strings.Repeat("é", 257))}, "Value '" + strings.Repeat("é", 257) + "' at 'partitionKey' failed to satisfy constraint: Member must have length less than or equal to 256"},
		{"pattern", &kinesis.DeleteStreamInput{StreamName: api.Ptr("a b")}, "Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"},
		{"pattern matches as a whole", &kinesis.DeleteStreamInput{StreamName: api.Ptr("ab\n")}, "Value 'ab\n' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"},
		{"number too small", &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(0))}, "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"number too large", &kinesis.DescribeStreamInput{Limit: api.Ptr(int32(math.MaxInt32))}, "Value '2147483647' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000"},
		{"enumeration", &kinesis.UpdateShardCountInput{TargetShardCount: api.Ptr(int32(1)), ScalingType: api.Ptr(kinesis.ScalingType("x"))}, "Value 'x' at 'scalingType' failed to satisfy constraint: Member must satisfy enum value set: [UNIFORM_SCALING]"},
		{"enumeration in a structure", &kinesis.SubscribeToShardInput{ConsumerARN: api.Ptr("arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:1"), ShardId: api.Ptr("s"), StartingPosition: &kinesis.StartingPosition{Type: api.Ptr(kinesis.ShardIteratorType("NOW"))}},
			"Value 'NOW' at 'startingPosition.type' failed to satisfy constraint: Member must satisfy enum value set: [AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST, AT_TIMESTAMP]"},
		{"required in a structure", &kinesis.UpdateStreamModeInput{StreamARN: api.Ptr("arn:aws:kinesis:us-east-1:123456789012:stream/s"), StreamModeDetails: &kinesis.StreamModeDetails{}}, "Value null at 'streamModeDetails.streamMode' failed to satisfy constraint: Member must not be null"},
		{"empty list", &kinesis.PutRecordsInput{Records: []kinesis.PutRecordsRequestEntry{}}, "Value at 'records' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"500 records", &kinesis.PutRecordsInput{Records: entries(500, good)}, ""},
		{"501 records", &kinesis.PutRecordsInput{Records: entries(501, good)}, "Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"},
		{"item of a list, counted from 1", &kinesis.PutRecordsInput{Records: entries(3, kinesis.PutRecordsRequestEntry{Data: []byte{}, PartitionKey: api.Ptr("")})}, "Value '' at 'records.3.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"hash key", &kinesis.PutRecordsInput{Records: entries(1, kinesis.PutRecordsRequestEntry{Data: []byte{}, ExplicitHashKey: api.Ptr("00")})}, `Value '00' at 'records.1.member.explicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: ^(0|([1-9]\d{0,38}))$`},
		{"blob too long", &kinesis.PutRecordsInput{Records: entries(1, kinesis.PutRecordsRequestEntry{Data: make([]byte, 10485761)})}, "Value at 'records.1.member.data' failed to satisfy constraint: Member must have length less than or equal to 10485760"},
		{"list of strings", &kinesis.RemoveTagsFromStreamInput{TagKeys: []string{}}, "Value '[]' at 'tagKeys' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"item of a list of strings", &kinesis.RemoveTagsFromStreamInput{TagKeys: []string{"a", "", ""}}, "Value '[a, , ]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]"},
		{"item of a list of enumerations", &kinesis.EnableEnhancedMonitoringInput{ShardLevelMetrics: []kinesis.MetricsName{kinesis.MetricsNameAll, "x"}}, "Value '[ALL, x]' at 'shardLevelMetrics' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [IncomingBytes, IncomingRecords, OutgoingBytes, OutgoingRecords, WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded, IteratorAgeMilliseconds, ALL]]"},
		{"map key", &kinesis.AddTagsToStreamInput{Tags: map[string]string{"": "x"}}, "Value '{=x}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]"},
		{"map value", &kinesis.AddTagsToStreamInput{Tags: map[string]string{"b": long + long, "a": "1"}}, "Value '{a=1, b=" + long + long + "}' at 'tags' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 256, Member must have length greater than or equal to 0]"},
		{"empty map", &kinesis.AddTagsToStreamInput{Tags: map[string]string{}}, "Value '{}' at 'tags' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"floating-point number", &firehose.OrcSerDe{BloomFilterFalsePositiveProbability: api.Ptr(1.5)}, "Value '1.5' at 'bloomFilterFalsePositiveProbability' failed to satisfy constraint: Member must have value less than or equal to 1"},
		{"not a number", &firehose.OrcSerDe{BloomFilterFalsePositiveProbability: api.Ptr(math.NaN())}, "Value 'NaN' at 'bloomFilterFalsePositiveProbability' failed to satisfy constraint: Member must have value greater than or equal to 0; Value 'NaN' at 'bloomFilterFalsePositiveProbability' failed to satisfy constraint: Member must have value less than or equal to 1"},
		{"values too long to repeat are left out", &kinesis.ListShardsInput{NextToken: api.Ptr(strings.Repeat("x", 1048577))}, "Value at 'nextToken' failed to satisfy constraint: Member must have length less than or equal to 1048576"},
		{"deep in lists", &kinesisanalyticsv2.AddApplicationInputInput{ApplicationName: api.Ptr("a"), CurrentApplicationVersionId: api.Ptr(int64(1)), Input: &kinesisanalyticsv2.Input{NamePrefix: api.Ptr("p"), InputSchema: &kinesisanalyticsv2.SourceSchema{
			RecordFormat: &kinesisanalyticsv2.RecordFormat{RecordFormatType: api.Ptr(kinesisanalyticsv2.RecordFormatTypeJson)}, RecordColumns: []kinesisanalyticsv2.RecordColumn{{Name: api.Ptr("n"), SqlType: api.Ptr("t")}, {Name: api.Ptr("n")}}}}},
			"Value null at 'input.inputSchema.recordColumns.2.member.sqlType' failed to satisfy constraint: Member must not be null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v api.Validator
			c.in.Validate(&v)
			err := v.Err()
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var got api.Error
			if !errors.As(err, &got) {
				t.Fatalf("no error, want %s", c.want)
			}
			head := "1 validation error detected: "
			if n := strings.Count(c.want, "; Value ") + 1; n > 1 {
				head = string(rune('0'+n)) + " validation errors detected: "
			}
			if got.ErrorCode() != "ValidationException" || got.HTTPStatus() != 400 || got.ErrorMessage() != head+c.want {
				t.Errorf("got  %s: %.600s\nwant %.600s", got.ErrorCode(), got.ErrorMessage(), head+c.want)
			}
		})
	}
}

func TestTenFailuresAreListedAndCounted(t *testing.T) {
	in := &kinesis.PutRecordsInput{Records: make([]kinesis.PutRecordsRequestEntry, 500)}
	err := kinesis.OpPutRecords.Validate(in)
	var modelled *kinesis.ValidationException
	if !errors.As(err, &modelled) {
		t.Fatalf("got %v", err)
	}
	if !strings.HasPrefix(modelled.Message, "10 validation errors detected: Value null at 'records.1.member.data' ") ||
		strings.Count(modelled.Message, "Member must not be null") != 10 || !strings.Contains(modelled.Message, "'records.10.member.data'") {
		t.Error(modelled.Message)
	}
}

// Services without a modelled error for it report broken constraints under the
// common name.
func TestServicesWithoutValidationException(t *testing.T) {
	err := firehose.OpDescribeDeliveryStream.Validate(&firehose.DescribeDeliveryStreamInput{})
	var e api.Error
	if !errors.As(err, &e) || e.ErrorCode() != "ValidationException" {
		t.Errorf("got %v", err)
	}
	if err := firehose.OpDescribeDeliveryStream.Validate(&firehose.DescribeDeliveryStreamInput{DeliveryStreamName: api.Ptr("d")}); err != nil {
		t.Error(err)
	}
}

func TestStreamARNPattern(t *testing.T) {
	const text = `arn:aws.*:kinesis:.*:\d{12}:stream/\S+`
	fast, slow := api.NewStreamARNPattern(text, text), api.NewPattern(text, text)
	for _, c := range []struct {
		arn  string
		want bool
	}{
		{"arn:aws:kinesis:us-east-1:123456789012:stream/orders", true},
		{"arn:aws-cn:kinesis:cn-north-1:123456789012:stream/orders", true},
		{"arn:aws:kinesis::123456789012:stream/o", true},
		{"arn:aws:kinesis:us-east-1:123456789012:stream/é", true},
		{"arn:aws:kinesis:a:b:123456789012:stream/o", true},
		{"arn:aws:kinesis:us-east-1:123456789012:stream/", false},
		{"arn:aws:kinesis:us-east-1:12345678901:stream/orders", false},
		{"arn:aws:kinesis:us-east-1:12345678901x:stream/orders", false},
		{"arn:aws:kinesis:us-east-1:123456789012:stream/a b", false},
		{"arn:aws:kinesis:us\n:123456789012:stream/o", false},
		{"arn:aws:kinesis:us-east-1:123456789012:channel/o", false},
		{"orders", false},
		{"", false},
	} {
		if got := fast.Match(c.arn); got != c.want || slow.Match(c.arn) != c.want {
			t.Errorf("%q: got %v and %v, want %v", c.arn, got, slow.Match(c.arn), c.want)
		}
	}
}

// A long string costs no more than the bound allows, whatever its pattern.
func TestVeryLongStringsAreNotMatched(t *testing.T) {
	p := api.NewPattern("a*", "a*")
	if !p.Match(strings.Repeat("a", 256<<10)) || p.Match(strings.Repeat("a", 256<<10+1)) {
		t.Error("the bound is elsewhere")
	}
}

func TestResources(t *testing.T) {
	arn := api.Ptr("arn")
	for _, c := range []struct {
		op   *api.Operation
		in   api.Shape
		ref  string
		kind api.ResourceKind
	}{
		{kinesis.OpPutRecords, &kinesis.PutRecordsInput{StreamName: api.Ptr("s")}, "s", api.ResourceStream},
		{kinesis.OpPutRecords, &kinesis.PutRecordsInput{StreamName: api.Ptr("s"), StreamARN: arn}, "arn", api.ResourceARN},
		{kinesis.OpDescribeStreamConsumer, &kinesis.DescribeStreamConsumerInput{ConsumerARN: api.Ptr("c"), StreamARN: arn}, "c", api.ResourceARN},
		{kinesis.OpTagResource, &kinesis.TagResourceInput{ResourceARN: arn}, "arn", api.ResourceARN},
		{kinesis.OpCreateChannel, &kinesis.CreateChannelInput{ChannelName: api.Ptr("c")}, "c", api.ResourceChannel},
		{kinesis.OpReceiveQueueRecords, &kinesis.ReceiveQueueRecordsInput{QueueARN: arn}, "arn", api.ResourceARN},
		{kinesis.OpListStreams, &kinesis.ListStreamsInput{ExclusiveStartStreamName: api.Ptr("s")}, "", api.ResourceNone},
		{firehose.OpPutRecord, &firehose.PutRecordInput{DeliveryStreamName: api.Ptr("d")}, "d", api.ResourceDeliveryStream},
	} {
		if ref, kind := c.op.Resource(c.in); ref != c.ref || kind != c.kind {
			t.Errorf("%s: got %q, %q", c.op.Name, ref, kind)
		}
	}
}

func TestOperationsByName(t *testing.T) {
	if n := len(kinesis.Service.Operations); n != 57 {
		t.Errorf("%d operations", n)
	}
	for _, op := range kinesis.Service.Operations {
		if kinesis.Service.Operation(op.Name) != op || op.Service != kinesis.Service || op.Action != "kinesis:"+op.Name {
			t.Errorf("%s is not found or not complete", op.Name)
		}
		for _, code := range op.Errors {
			if e := kinesis.NewError(code); e == nil || e.ErrorCode() != code {
				t.Errorf("%s: error %s is not known", op.Name, code)
			}
		}
	}
	for _, name := range []string{"", "putRecords", "PutRecordsX", "Zzz"} {
		if op := kinesis.Service.Operation(name); op != nil {
			t.Errorf("%q finds %s", name, op.Name)
		}
	}
}

func BenchmarkValidatePutRecords(b *testing.B) {
	in := &kinesis.PutRecordsInput{StreamARN: api.Ptr("arn:aws:kinesis:us-east-1:123456789012:stream/orders")}
	for range 500 {
		in.Records = append(in.Records, kinesis.PutRecordsRequestEntry{Data: make([]byte, 1024), PartitionKey: api.Ptr("customer-000001"), ExplicitHashKey: api.Ptr("340282366920938463463374607431768211455")})
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := kinesis.OpPutRecords.Validate(in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "records/s")
}
