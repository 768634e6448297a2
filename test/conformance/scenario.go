package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/test/harness"
)

// scenario is one client's way through every operation.
type scenario struct {
	ctx    context.Context
	client Client
	region string
	name   string         // of the main stream
	called map[string]int // operation → replies, failures included
	served map[string]int // operation → replies that are no failures
	absent map[string]int // operations the client does not know
	check  func(name string, f func())
}

// failed ends a check; the runner reports it.
type failed struct{ error }

func fail(format string, args ...any) { panic(failed{fmt.Errorf(format, args...)}) }

func want(ok bool, format string, args ...any) {
	if !ok {
		fail(format, args...)
	}
}

// skip ends a check that the client has no way to run.
type skip struct{}

func (s *scenario) try(op string, in M) (M, error) {
	out, err := s.client.Call(s.ctx, op, in, 0)
	if errors.Is(err, errUnknownMember) {
		panic(skip{})
	}
	if errors.Is(err, errUnknown) {
		s.absent[op]++
		panic(skip{})
	}
	s.called[op]++
	if err == nil {
		s.served[op]++
	}
	return out, err
}

func (s *scenario) call(op string, in M) M {
	out, err := s.try(op, in)
	if err != nil {
		fail("%s: %v", op, err)
	}
	return out
}

// refuse wants an error with a code and a part of its text.
func (s *scenario) refuse(op string, in M, code, message string) {
	out, err := s.try(op, in)
	var f *Failure
	switch {
	case err == nil:
		fail("%s succeeded with %v; want %s", op, out, code)
	case !errors.As(err, &f):
		fail("%s: %v; want %s", op, err, code)
	case f.Code != code:
		fail("%s: %v; want code %s", op, f, code)
	case !strings.Contains(f.Message, message):
		fail("%s: text %q; want %q", op, f.Message, message)
	case f.Status != 0 && f.Status != 400:
		fail("%s: status %d", op, f.Status)
	}
}

// decline is refuse for an operation that has no other answer here: the service's
// own for what it does not do.
func (s *scenario) decline(op string, in M, code, message string) {
	s.refuse(op, in, code, message)
	s.served[op]++
}

func (s *scenario) arn(stream string) string {
	return "arn:aws:kinesis:" + s.region + ":" + harness.Account + ":stream/" + stream
}

// active waits until a stream has settled.
func (s *scenario) active(stream string) M {
	for range 500 {
		out := s.call("DescribeStreamSummary", M{"StreamName": stream})
		d, _ := at(out, "StreamDescriptionSummary").(M)
		if text(d, "StreamStatus") == "ACTIVE" {
			return d
		}
		time.Sleep(10 * time.Millisecond)
	}
	fail("stream %s does not become ACTIVE", stream)
	return nil
}

func (s *scenario) shards(stream string) []any {
	return list(s.call("DescribeStream", M{"StreamName": stream}), "StreamDescription", "Shards")
}

// open returns the open shards and checks that they tile the hash space.
func (s *scenario) open(stream string) []any {
	var open []any
	for _, sh := range s.shards(stream) {
		if at(sh, "SequenceNumberRange", "EndingSequenceNumber") == nil {
			open = append(open, sh)
		}
	}
	key := func(sh any, end string) *big.Int {
		n, _ := new(big.Int).SetString(text(sh, "HashKeyRange", end), 10)
		return n
	}
	slices.SortFunc(open, func(a, b any) int { return key(a, "StartingHashKey").Cmp(key(b, "StartingHashKey")) })
	next := new(big.Int)
	for _, sh := range open {
		want(key(sh, "StartingHashKey").Cmp(next) == 0, "open shards leave a hole or overlap at %v: %v", next, open)
		next.Add(key(sh, "EndingHashKey"), big.NewInt(1))
	}
	want(next.Cmp(new(big.Int).Lsh(big.NewInt(1), 128)) == 0, "open shards end at %v", next)
	return open
}

func (s *scenario) iterator(in M) string {
	return text(s.call("GetShardIterator", in), "ShardIterator")
}

// drain reads a shard to its tip, or to its end if it is closed.
func (s *scenario) drain(stream, shard string) (records []any, last M) {
	it := s.iterator(M{"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"})
	for range 50 {
		last = s.call("GetRecords", M{"ShardIterator": it, "Limit": 1000})
		got := list(last, "Records")
		records = append(records, got...)
		next, _ := last["NextShardIterator"].(string)
		if next == "" || len(got) == 0 {
			return records, last
		}
		want(next != it, "the same iterator came back")
		it = next
	}
	fail("shard %s has no end", shard)
	return nil, nil
}

const lastHash = "340282366920938463463374607431768211455"

func (s *scenario) run() {
	s.streams()
	s.records()
	s.pages()
	s.settings()
	s.resharding()
	s.encryption()
	s.policies()
	s.fanOut()
	s.capacity()
	s.channels()
	s.queues()
	s.deletion()
}

func (s *scenario) streams() {
	name := s.name
	s.check("create", func() {
		s.call("CreateStream", M{"StreamName": name, "ShardCount": 2, "Tags": M{"made-by": "conformance"}})
		d := s.active(name)
		want(text(d, "StreamARN") == s.arn(name), "ARN %q", text(d, "StreamARN"))
		want(number(d, "OpenShardCount") == 2, "OpenShardCount %v", d["OpenShardCount"])
		want(number(d, "RetentionPeriodHours") == 24, "RetentionPeriodHours %v", d["RetentionPeriodHours"])
		want(d["StreamId"] == nil, "StreamId is returned: SDKs would leave the endpoint")
		created, _ := d["StreamCreationTimestamp"].(time.Time)
		want(time.Since(created).Abs() < time.Minute, "created at %v", d["StreamCreationTimestamp"])
	})
	s.check("create again", func() {
		s.refuse("CreateStream", M{"StreamName": name, "ShardCount": 1}, "ResourceInUseException",
			"Stream "+name+" under account "+harness.Account+" already exists.")
	})
	s.check("describe", func() {
		d := at(s.call("DescribeStream", M{"StreamARN": s.arn(name)}), "StreamDescription")
		want(text(d, "StreamName") == name && text(d, "EncryptionType") == "NONE", "description %v", d)
		want(at(d, "HasMoreShards") == false || at(d, "HasMoreShards") == nil, "HasMoreShards %v", at(d, "HasMoreShards"))
		want(text(d, "StreamModeDetails", "StreamMode") == "PROVISIONED", "mode %v", at(d, "StreamModeDetails"))
		open := s.open(name)
		want(len(open) == 2 && text(open, 0, "ShardId") == "shardId-000000000000", "shards %v", open)
		want(text(open, 1, "HashKeyRange", "EndingHashKey") == lastHash, "last hash key %v", open)
		for _, sh := range open {
			n := text(sh, "SequenceNumberRange", "StartingSequenceNumber")
			want(len(n) == 56 && strings.HasPrefix(n, "49"), "sequence number %q", n)
		}
	})
	s.check("missing stream", func() {
		s.refuse("DescribeStream", M{"StreamName": "missing"}, "ResourceNotFoundException",
			"Stream missing under account "+harness.Account+" not found.")
	})
	s.check("list streams", func() {
		out := s.call("ListStreams", M{})
		want(slices.Contains(list(out, "StreamNames"), any(name)), "names %v", out)
		found := slices.ContainsFunc(list(out, "StreamSummaries"), func(v any) bool { return text(v, "StreamARN") == s.arn(name) })
		want(found, "summaries %v", out)
	})
	s.check("limits", func() {
		out := s.call("DescribeLimits", M{})
		want(number(out, "ShardLimit") > 0 && number(out, "OpenShardCount") == 2, "limits %v", out)
	})
}

func (s *scenario) records() {
	name := s.name
	data := []byte{0, 1, 0xfe, 0xff, '<', '>', '&', '"', '\\', 0xe2, 0x80, 0xa8}
	var first, second string
	s.check("put a record", func() {
		out := s.call("PutRecord", M{"StreamName": name, "Data": data, "PartitionKey": "key ü 𝄞", "ExplicitHashKey": "0"})
		first = text(out, "SequenceNumber")
		want(text(out, "ShardId") == "shardId-000000000000" && len(first) == 56, "reply %v", out)
		want(out["EncryptionType"] == nil, "EncryptionType %v on a plain stream", out["EncryptionType"])
	})
	s.check("put empty data", func() {
		out := s.call("PutRecord", M{"StreamARN": s.arn(name), "Data": []byte{}, "PartitionKey": "k", "ExplicitHashKey": "0", "SequenceNumberForOrdering": first})
		second = text(out, "SequenceNumber")
		want(second > first, "numbers do not rise: %s then %s", first, second)
	})
	s.check("put records", func() {
		out := s.call("PutRecords", M{"StreamName": name, "Records": []any{
			M{"Data": []byte("a"), "PartitionKey": "a", "ExplicitHashKey": "0"},
			M{"Data": []byte("b"), "PartitionKey": "b", "ExplicitHashKey": lastHash},
			M{"Data": []byte("c"), "PartitionKey": "c", "ExplicitHashKey": "0"},
		}})
		want(number(out, "FailedRecordCount") == 0, "FailedRecordCount %v", out["FailedRecordCount"])
		r := list(out, "Records")
		want(len(r) == 3 && text(r, 1, "ShardId") == "shardId-000000000001", "records %v", r)
		want(text(r, 0, "SequenceNumber") < text(r, 2, "SequenceNumber"), "order within a shard %v", r)
	})
	s.check("hash key beyond the space", func() {
		s.refuse("PutRecord", M{"StreamName": name, "Data": data, "PartitionKey": "k", "ExplicitHashKey": "340282366920938463463374607431768211456"},
			"InvalidArgumentException", "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 340282366920938463463374607431768211456")
	})
	s.check("read from the trim horizon", func() {
		records, last := s.drain(name, "shardId-000000000000")
		want(len(records) == 4, "%d records", len(records))
		got, _ := at(records, 0, "Data").([]byte)
		want(bytes.Equal(got, data), "data came back as %q", got)
		want(text(records, 0, "PartitionKey") == "key ü 𝄞", "partition key %q", text(records, 0, "PartitionKey"))
		want(text(records, 0, "SequenceNumber") == first, "sequence number %q", text(records, 0, "SequenceNumber"))
		empty, ok := at(records, 1, "Data").([]byte)
		want(ok && len(empty) == 0, "empty data came back as %#v", at(records, 1, "Data"))
		arrived, _ := at(records, 0, "ApproximateArrivalTimestamp").(time.Time)
		want(time.Since(arrived).Abs() < time.Minute, "arrival %v", at(records, 0, "ApproximateArrivalTimestamp"))
		want(at(records, 0, "EncryptionType") == nil, "EncryptionType %v on a plain record", at(records, 0, "EncryptionType"))
		want(number(last, "MillisBehindLatest") == 0, "MillisBehindLatest %v at the tip", last["MillisBehindLatest"])
		want(len(list(last, "ChildShards")) == 0, "ChildShards beside an iterator: %v", last["ChildShards"])
	})
	s.check("iterator types", func() {
		shard := M{"StreamName": name, "ShardId": "shardId-000000000000"}
		with := func(m M) string {
			in := M{}
			for k, v := range shard {
				in[k] = v
			}
			for k, v := range m {
				in[k] = v
			}
			return s.iterator(in)
		}
		read := func(it string) []any { return list(s.call("GetRecords", M{"ShardIterator": it}), "Records") }
		got := read(with(M{"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": second}))
		want(len(got) == 3, "AT_SEQUENCE_NUMBER gives %d", len(got))
		got = read(with(M{"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": second}))
		want(len(got) == 2, "AFTER_SEQUENCE_NUMBER gives %d", len(got))
		got = read(with(M{"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": time.Now().Add(-time.Minute).Truncate(time.Millisecond)}))
		want(len(got) == 4, "AT_TIMESTAMP a minute ago gives %d", len(got))
		latest := with(M{"ShardIteratorType": "LATEST"})
		s.call("PutRecord", M{"StreamName": name, "Data": []byte("late"), "PartitionKey": "k", "ExplicitHashKey": "0"})
		got = read(latest)
		want(len(got) == 1 && string(at(got, 0, "Data").([]byte)) == "late", "LATEST gives %v", got)
		got = read(latest)
		want(len(got) == 1, "an iterator used twice gives %d", len(got))
	})
	s.check("wrong iterator arguments", func() {
		s.refuse("GetShardIterator", M{"StreamName": name, "ShardId": "shardId-000000000000", "ShardIteratorType": "AT_SEQUENCE_NUMBER"},
			"InvalidArgumentException", "Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber.")
		s.refuse("GetShardIterator", M{"StreamName": name, "ShardId": "shardId-000000000001", "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": first},
			"InvalidArgumentException", "Invalid StartingSequenceNumber. It encodes shardId-000000000000, while it was used in a call to a shard with shardId-000000000001")
		s.refuse("GetShardIterator", M{"StreamName": name, "ShardId": "shardId-000000000009", "ShardIteratorType": "LATEST"},
			"ResourceNotFoundException", "Shard shardId-000000000009 in stream "+name+" under account "+harness.Account+" does not exist")
		s.refuse("GetRecords", M{"ShardIterator": "forged"}, "InvalidArgumentException", "Invalid ShardIterator.")
	})
	s.check("dry run", func() {
		s.refuse("PutRecord", M{"StreamName": name, "Data": data, "PartitionKey": "k", "DryRun": true}, "DryRunOperationException", "DryRun")
	})
}

func (s *scenario) pages() {
	s.check("list shards by pages", func() {
		var ids []string
		in := M{"StreamName": s.name, "MaxResults": 1, "ShardFilter": M{"Type": "AT_LATEST"}}
		for range 3 {
			out := s.call("ListShards", in)
			for _, sh := range list(out, "Shards") {
				ids = append(ids, text(sh, "ShardId"))
			}
			next := text(out, "NextToken")
			if next == "" {
				break
			}
			in = M{"NextToken": next, "MaxResults": 1}
		}
		want(slices.Equal(ids, []string{"shardId-000000000000", "shardId-000000000001"}), "shards %v", ids)
	})
	s.check("list shards with token and name", func() {
		s.refuse("ListShards", M{"StreamName": s.name, "NextToken": "x"}, "InvalidArgumentException", "NextToken and StreamName cannot be provided together.")
	})
}

func (s *scenario) settings() {
	name := s.name
	s.check("tags of the stream", func() {
		s.call("AddTagsToStream", M{"StreamName": name, "Tags": M{"team": "water", "a": ""}})
		out := s.call("ListTagsForStream", M{"StreamName": name})
		var keys []string
		for _, t := range list(out, "Tags") {
			keys = append(keys, text(t, "Key"))
		}
		want(slices.Equal(keys, []string{"a", "made-by", "team"}), "keys %v", keys)
		s.call("RemoveTagsFromStream", M{"StreamName": name, "TagKeys": []any{"a", "unknown"}})
		out = s.call("ListTagsForStream", M{"StreamName": name, "ExclusiveStartTagKey": "made-by"})
		want(len(list(out, "Tags")) == 1 && text(out, "Tags", 0, "Value") == "water", "tags %v", out)
	})
	s.check("tags of a resource", func() {
		s.call("TagResource", M{"ResourceARN": s.arn(name), "Tags": M{"stage": "test"}})
		out := s.call("ListTagsForResource", M{"ResourceARN": s.arn(name)})
		want(len(list(out, "Tags")) == 3, "tags %v", out)
		s.call("UntagResource", M{"ResourceARN": s.arn(name), "TagKeys": []any{"stage", "made-by", "team"}})
		out = s.call("ListTagsForResource", M{"ResourceARN": s.arn(name)})
		want(len(list(out, "Tags")) == 0, "tags %v", out)
	})
	s.check("retention", func() {
		s.call("IncreaseStreamRetentionPeriod", M{"StreamName": name, "RetentionPeriodHours": 48})
		want(number(s.active(name), "RetentionPeriodHours") == 48, "retention is not 48 hours")
		s.refuse("DecreaseStreamRetentionPeriod", M{"StreamName": name, "RetentionPeriodHours": 72}, "InvalidArgumentException",
			"Requested retention period (72 hours) for stream "+name+" can not be longer than existing retention period (48 hours). Use IncreaseRetentionPeriod API.")
		s.call("DecreaseStreamRetentionPeriod", M{"StreamName": name, "RetentionPeriodHours": 24})
		want(number(s.active(name), "RetentionPeriodHours") == 24, "retention is not 24 hours")
	})
	s.check("enhanced monitoring", func() {
		out := s.call("EnableEnhancedMonitoring", M{"StreamName": name, "ShardLevelMetrics": []any{"IncomingBytes", "OutgoingRecords"}})
		want(len(list(out, "CurrentShardLevelMetrics")) == 0 && len(list(out, "DesiredShardLevelMetrics")) == 2, "enabled %v", out)
		s.active(name)
		out = s.call("DisableEnhancedMonitoring", M{"StreamName": name, "ShardLevelMetrics": []any{"ALL"}})
		want(len(list(out, "CurrentShardLevelMetrics")) == 2 && len(list(out, "DesiredShardLevelMetrics")) == 0, "disabled %v", out)
		s.active(name)
	})
	s.check("largest record", func() {
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16+1<<15) // 1.5 MiB
		s.refuse("PutRecord", M{"StreamName": name, "Data": big, "PartitionKey": "k"}, "ValidationException",
			"failed to satisfy constraint: Member must have length less than or equal to 1048576")
		s.call("UpdateMaxRecordSize", M{"StreamARN": s.arn(name), "MaxRecordSizeInKiB": 2048})
		want(number(s.active(name), "MaxRecordSizeInKiB") == 2048, "size not set")
		put := s.call("PutRecord", M{"StreamName": name, "Data": big, "PartitionKey": "k"})
		it := s.iterator(M{"StreamName": name, "ShardId": text(put, "ShardId"), "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": text(put, "SequenceNumber")})
		got, _ := at(s.call("GetRecords", M{"ShardIterator": it}), "Records", 0, "Data").([]byte)
		want(bytes.Equal(got, big), "a large record of %d bytes came back with %d", len(big), len(got))
	})
}

func (s *scenario) resharding() {
	name := s.name + "-shards"
	s.check("split", func() {
		s.call("CreateStream", M{"StreamName": name, "ShardCount": 1})
		s.active(name)
		s.call("PutRecord", M{"StreamName": name, "Data": []byte("before"), "PartitionKey": "k"})
		s.refuse("SplitShard", M{"StreamName": name, "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "1"}, "InvalidArgumentException",
			"NewStartingHashKey 1 used in SplitShard() on shard shardId-000000000000 in stream "+name+" under account "+harness.Account+" is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey "+lastHash+".")
		s.call("SplitShard", M{"StreamName": name, "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "170141183460469231731687303715884105728"})
		s.active(name)
		open := s.open(name)
		want(len(open) == 2 && text(open, 0, "ParentShardId") == "shardId-000000000000", "shards %v", open)
		s.refuse("SplitShard", M{"StreamName": name, "ShardToSplit": "0", "NewStartingHashKey": "9"}, "InvalidArgumentException",
			"Shard shardId-000000000000 in stream "+name+" under account "+harness.Account+" has already been merged or split, and thus is not eligible for merging or splitting.")
	})
	s.check("end of a split shard", func() {
		records, last := s.drain(name, "shardId-000000000000")
		for range 5 {
			next, _ := last["NextShardIterator"].(string)
			if next == "" {
				break
			}
			want(len(list(last, "ChildShards")) == 0, "ChildShards beside an iterator")
			last = s.call("GetRecords", M{"ShardIterator": next})
			records = append(records, list(last, "Records")...)
		}
		want(len(records) == 1 && last["NextShardIterator"] == nil, "records %v, last page %v", records, last)
		children := list(last, "ChildShards")
		want(len(children) == 2, "children %v", children)
		for _, c := range children {
			want(text(c, "ParentShards", 0) == "shardId-000000000000" && text(c, "HashKeyRange", "StartingHashKey") != "", "child %v", c)
		}
	})
	s.check("merge", func() {
		s.refuse("MergeShards", M{"StreamName": name, "ShardToMerge": "shardId-000000000002", "AdjacentShardToMerge": "shardId-000000000001"}, "InvalidArgumentException",
			"Shards shardId-000000000002 and shardId-000000000001 in stream "+name+" under account "+harness.Account+" are not an adjacent pair of shards eligible for merging")
		s.call("MergeShards", M{"StreamName": name, "ShardToMerge": "shardId-000000000001", "AdjacentShardToMerge": "shardId-000000000002"})
		s.active(name)
		open := s.open(name)
		want(len(open) == 1 && text(open, 0, "ShardId") == "shardId-000000000003", "open %v", open)
		want(text(open, 0, "ParentShardId") == "shardId-000000000001" && text(open, 0, "AdjacentParentShardId") == "shardId-000000000002", "parents %v", open)
		_, last := s.drain(name, "shardId-000000000001")
		if next, _ := last["NextShardIterator"].(string); next != "" {
			last = s.call("GetRecords", M{"ShardIterator": next})
		}
		want(len(list(last, "ChildShards")) == 1 && len(list(last, "ChildShards", 0, "ParentShards")) == 2, "last page %v", last)
	})
	s.check("update the shard count", func() {
		out := s.call("UpdateShardCount", M{"StreamName": name, "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"})
		want(number(out, "CurrentShardCount") == 1 && number(out, "TargetShardCount") == 2, "reply %v", out)
		s.active(name)
		want(len(s.open(name)) == 2, "open %v", s.open(name))
		s.refuse("UpdateShardCount", M{"StreamName": name, "TargetShardCount": 5, "ScalingType": "UNIFORM_SCALING"}, "InvalidArgumentException", "cannot scale up over double")
	})
	s.check("delete the resharded stream", func() {
		s.call("DeleteStream", M{"StreamName": name})
	})
}

func (s *scenario) encryption() {
	name := s.name + "-kms"
	s.check("encryption", func() {
		s.call("CreateStream", M{"StreamName": name, "ShardCount": 1})
		s.active(name)
		s.call("PutRecord", M{"StreamName": name, "Data": []byte("plain"), "PartitionKey": "k"})
		s.call("StartStreamEncryption", M{"StreamName": name, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"})
		d := s.active(name)
		want(text(d, "EncryptionType") == "KMS" && text(d, "KeyId") == "alias/aws/kinesis", "summary %v", d)
		put := s.call("PutRecord", M{"StreamName": name, "Data": []byte("secret"), "PartitionKey": "k"})
		want(text(put, "EncryptionType") == "KMS", "reply %v", put)
		s.call("StopStreamEncryption", M{"StreamName": name, "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"})
		s.active(name)
		records, _ := s.drain(name, "shardId-000000000000")
		want(len(records) == 2, "records %v", records)
		want(at(records, 0, "EncryptionType") == nil && text(records, 1, "EncryptionType") == "KMS", "records %v", records)
		want(string(at(records, 1, "Data").([]byte)) == "secret", "records %v", records)
		s.call("DeleteStream", M{"StreamName": name})
	})
}

func (s *scenario) policies() {
	arn := s.arn(s.name)
	s.check("resource policy", func() {
		out := s.call("GetResourcePolicy", M{"ResourceARN": arn})
		want(text(out, "Policy") == "" || text(out, "Policy") == "{}", "policy before one is set: %v", out)
		policy := `{"Version":"2012-10-17","Statement":[{"Sid":"read","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":["kinesis:GetRecords","kinesis:GetShardIterator"],"Resource":"` + arn + `"}]}`
		s.call("PutResourcePolicy", M{"ResourceARN": arn, "Policy": policy})
		out = s.call("GetResourcePolicy", M{"ResourceARN": arn})
		want(text(out, "Policy") == policy, "policy %v", out)
		s.refuse("PutResourcePolicy", M{"ResourceARN": arn, "Policy": "{"}, "InvalidArgumentException", "")
		s.call("DeleteResourcePolicy", M{"ResourceARN": arn})
		s.refuse("DeleteResourcePolicy", M{"ResourceARN": arn}, "ResourceNotFoundException", "No resource policy found for resource ARN "+arn)
	})
}

func (s *scenario) fanOut() {
	arn := s.arn(s.name)
	consumer := ""
	s.check("register a consumer", func() {
		c := at(s.call("RegisterStreamConsumer", M{"StreamARN": arn, "ConsumerName": "reader"}), "Consumer")
		consumer = text(c, "ConsumerARN")
		created, _ := at(c, "ConsumerCreationTimestamp").(time.Time)
		want(consumer == fmt.Sprintf("%s/consumer/reader:%d", arn, created.Unix()), "consumer %v", c)
		s.refuse("RegisterStreamConsumer", M{"StreamARN": arn, "ConsumerName": "reader"}, "ResourceInUseException", "")
		for range 500 {
			if text(s.call("DescribeStreamConsumer", M{"StreamARN": arn, "ConsumerName": "reader"}), "ConsumerDescription", "ConsumerStatus") == "ACTIVE" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		d := at(s.call("DescribeStreamConsumer", M{"ConsumerARN": consumer}), "ConsumerDescription")
		want(text(d, "ConsumerStatus") == "ACTIVE" && text(d, "StreamARN") == arn, "description %v", d)
		l := list(s.call("ListStreamConsumers", M{"StreamARN": arn}), "Consumers")
		want(len(l) == 1 && at(l, 0, "StreamARN") == nil, "consumers %v", l)
	})
	s.check("subscribe", func() {
		s.called["SubscribeToShard"]++
		out, err := s.client.Call(s.ctx, "SubscribeToShard", M{"ConsumerARN": consumer, "ShardId": "shardId-000000000000",
			"StartingPosition": M{"Type": "TRIM_HORIZON"}}, 5)
		if errors.Is(err, errUnknown) {
			s.called["SubscribeToShard"]--
			s.absent["SubscribeToShard"]++
			panic(skip{})
		}
		want(err == nil, "SubscribeToShard: %v", err)
		s.served["SubscribeToShard"]++
		var records []any
		for _, e := range list(out, "Events") {
			records = append(records, list(e, "Records")...)
			want(len(text(e, "ContinuationSequenceNumber")) == 56, "event %v", e)
			want(number(e, "MillisBehindLatest") >= 0, "event %v", e)
		}
		want(len(records) >= 5, "%d records, %v", len(records), out)
		want(text(records, 0, "PartitionKey") == "key ü 𝄞", "first record %v", at(records, 0))
		want(len(at(records, 0, "Data").([]byte)) == 12, "first record %v", at(records, 0))
	})
	s.check("subscribe to what is not there", func() {
		in := M{"ConsumerARN": consumer, "ShardId": "shardId-000000000099", "StartingPosition": M{"Type": "LATEST"}}
		_, err := s.client.Call(s.ctx, "SubscribeToShard", in, 1)
		if errors.Is(err, errUnknown) {
			panic(skip{})
		}
		var f *Failure
		want(errors.As(err, &f) && f.Code == "ResourceNotFoundException", "SubscribeToShard: %v", err)
	})
	s.check("deregister the consumer", func() {
		s.refuse("DeleteStream", M{"StreamName": s.name}, "ResourceInUseException", "because there are consumers associated with this data stream.")
		s.call("DeregisterStreamConsumer", M{"ConsumerARN": consumer})
		for range 500 {
			if _, err := s.try("DescribeStreamConsumer", M{"ConsumerARN": consumer}); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.refuse("DescribeStreamConsumer", M{"ConsumerARN": consumer}, "ResourceNotFoundException", "Consumer reader")
	})
}

func (s *scenario) capacity() {
	name := s.name + "-demand"
	arn := s.arn(name)
	s.check("on-demand", func() {
		s.call("CreateStream", M{"StreamName": name, "ShardCount": 1})
		s.active(name)
		s.call("UpdateStreamMode", M{"StreamARN": arn, "StreamModeDetails": M{"StreamMode": "ON_DEMAND"}})
		d := s.active(name)
		want(text(d, "StreamModeDetails", "StreamMode") == "ON_DEMAND", "summary %v", d)
		s.refuse("SplitShard", M{"StreamName": name, "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "9"}, "ValidationException",
			"Request is invalid. Stream "+name+" under account "+harness.Account+" is in On-Demand mode.")
	})
	s.check("account settings", func() {
		out := s.call("DescribeAccountSettings", M{})
		want(text(out, "MinimumThroughputBillingCommitment", "Status") == "DISABLED", "settings %v", out)
		out = s.call("UpdateAccountSettings", M{"MinimumThroughputBillingCommitment": M{"Status": "ENABLED"}})
		want(text(out, "MinimumThroughputBillingCommitment", "Status") == "ENABLED", "settings %v", out)
	})
	s.check("warm throughput", func() {
		out := s.call("UpdateStreamWarmThroughput", M{"StreamARN": arn, "WarmThroughputMiBps": 3})
		want(number(out, "WarmThroughput", "TargetMiBps") == 3, "reply %v", out)
		s.active(name)
	})
	s.check("record distribution", func() {
		s.call("UpdateStreamRecordDistributionStrategy", M{"StreamARN": arn, "RecordDistributionStrategy": "AUTO"})
		s.active(name)
		s.call("PutRecord", M{"StreamName": name, "Data": []byte("no key")})
		s.call("UpdateStreamRecordDistributionStrategy", M{"StreamARN": arn, "RecordDistributionStrategy": "USER_PARTITION_KEY"})
		s.active(name)
		s.refuse("PutRecord", M{"StreamName": name, "Data": []byte("no key")}, "ValidationException", "partitionKey")
	})
}

func (s *scenario) channels() {
	name := s.name + "-demand"
	s.check("channel", func() {
		bucket := "arn:aws:s3:::conformance"
		d := at(s.call("CreateChannel", M{
			"ChannelName":             "to-objects",
			"ServiceExecutionRoleARN": "arn:aws:iam::" + harness.Account + ":role/delivery",
			"StreamConfigurationList": []any{M{"StreamARN": s.arn(name), "RecordConfiguration": M{"RecordFormatType": "JSON"}}},
			"S3DestinationConfiguration": M{"StorageConfiguration": M{
				"BucketARN": bucket, "ExpectedBucketOwner": harness.Account, "CompressionType": "GZIP"}},
		}), "ChannelDescription")
		arn := text(d, "ChannelARN")
		want(arn != "" && number(d, "S3DestinationConfiguration", "DataFreshnessInSeconds") == 300, "description %v", d)
		settled := func() M {
			for range 500 {
				d, _ := at(s.call("DescribeChannel", M{"ChannelARN": arn}), "ChannelDescription").(M)
				if st := text(d, "ChannelStatus"); st != "CREATING" && st != "UPDATING" {
					return d
				}
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		}
		// Without an object store to deliver to a channel says so, and why.
		d = settled()
		want(text(d, "ChannelStatus") == "ACTIVE" || text(d, "ChannelStatus") == "FAILED" && text(d, "ChannelStatusReason") != "", "channel %v", d)
		l := list(s.call("ListChannels", M{}), "ChannelSummaries")
		want(len(l) == 1 && text(l, 0, "ChannelDestinationType") == "S3", "channels %v", l)
		s.call("UpdateChannel", M{"ChannelARN": arn, "S3DestinationConfiguration": M{"DataFreshnessInSeconds": 600}})
		want(number(settled(), "S3DestinationConfiguration", "DataFreshnessInSeconds") == 600, "channel %v", settled())
		s.refuse("DeleteStream", M{"StreamName": name}, "ResourceInUseException", "")
		s.call("DeleteChannel", M{"ChannelARN": arn})
		for range 500 {
			if len(list(s.call("ListChannels", M{}), "ChannelSummaries")) == 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		fail("the deleted channel stays listed")
	})
}

func (s *scenario) queues() {
	name := s.name + "-demand"
	queue := ""
	receive := func(op string, in M) []any {
		in["QueueARN"] = queue
		in["WaitTimeSeconds"] = 5
		return list(s.call(op, in), "QueueRecords")
	}
	entry := func(r any, more M) []any {
		e := M{"ReceiptHandle": text(r, "ReceiptHandle")}
		for k, v := range more {
			e[k] = v
		}
		return []any{e}
	}
	s.check("queue", func() {
		d := at(s.call("CreateQueue", M{"QueueName": "work",
			"StreamConfigurationList": []any{M{"StreamARN": s.arn(name), "StartingPosition": M{"Type": "LATEST"}}},
			"QueueAttributes":         M{"VisibilityTimeoutSeconds": 60, "DeadLetterConfiguration": M{"TargetType": "BUILT_IN", "MaxReceiveCount": 1}},
		}), "QueueDescription")
		queue = text(d, "QueueARN")
		for range 500 {
			if text(s.call("DescribeQueue", M{"QueueARN": queue}), "QueueDescription", "QueueStatus") == "ACTIVE" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		l := list(s.call("ListQueues", M{}), "QueueSummaries")
		want(len(l) == 1 && text(l, 0, "QueueName") == "work", "queues %v", l)
		s.call("PutRecord", M{"StreamName": name, "Data": []byte("job one"), "PartitionKey": "k"})
		got := receive("ReceiveQueueRecords", M{})
		want(len(got) == 1 && string(at(got, 0, "Data").([]byte)) == "job one" && number(got, 0, "ReceiveCount") == 1, "received %v", got)
		out := s.call("UpdateQueueRecordsVisibility", M{"QueueARN": queue, "Entries": entry(got[0], M{"VisibilityTimeoutSeconds": 600})})
		want(len(list(out, "Successful")) == 1, "visibility %v", out)
		out = s.call("AcknowledgeQueueRecords", M{"QueueARN": queue, "Entries": entry(got[0], nil)})
		want(len(list(out, "Successful")) == 1, "acknowledged %v", out)
	})
	s.check("dead letters", func() {
		if queue == "" {
			panic(skip{}) // the check before says why
		}
		s.call("PutRecord", M{"StreamName": name, "Data": []byte("job two"), "PartitionKey": "k"})
		got := receive("ReceiveQueueRecords", M{"VisibilityTimeoutSeconds": 0})
		want(len(got) == 1, "received %v", got)
		dead := receive("ReceiveDeadLetterQueueRecords", M{})
		want(len(dead) == 1 && string(at(dead, 0, "Data").([]byte)) == "job two", "dead letters %v", dead)
		out := s.call("UpdateDeadLetterQueueRecordsVisibility", M{"QueueARN": queue, "Entries": entry(dead[0], M{"VisibilityTimeoutSeconds": 600})})
		want(len(list(out, "Successful")) == 1, "visibility %v", out)
		out = s.call("RestoreDeadLetterQueueRecords", M{"QueueARN": queue, "Entries": entry(dead[0], nil)})
		want(len(list(out, "Successful")) == 1, "restored %v", out)
		got = receive("ReceiveQueueRecords", M{"VisibilityTimeoutSeconds": 0})
		want(len(got) == 1, "received again %v", got)
		dead = receive("ReceiveDeadLetterQueueRecords", M{})
		want(len(dead) == 1, "dead letters %v", dead)
		out = s.call("AcknowledgeDeadLetterQueueRecords", M{"QueueARN": queue, "Entries": entry(dead[0], nil)})
		want(len(list(out, "Successful")) == 1, "acknowledged %v", out)
	})
	s.check("change and delete the queue", func() {
		if queue == "" {
			panic(skip{}) // the check before says why
		}
		d := at(s.call("UpdateQueue", M{"QueueARN": queue, "QueueAttributes": M{"VisibilityTimeoutSeconds": 30}}), "QueueDescription")
		want(number(d, "QueueAttributes", "VisibilityTimeoutSeconds") == 30, "description %v", d)
		for range 500 {
			if text(s.call("DescribeQueue", M{"QueueARN": queue}), "QueueDescription", "QueueStatus") == "ACTIVE" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.call("DeleteQueue", M{"QueueARN": queue})
		for range 500 {
			if len(list(s.call("ListQueues", M{}), "QueueSummaries")) == 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		fail("the deleted queue stays listed")
	})
}

func (s *scenario) deletion() {
	s.check("delete", func() {
		s.call("DeleteStream", M{"StreamName": s.name, "EnforceConsumerDeletion": true})
		s.call("DeleteStream", M{"StreamName": s.name + "-demand", "EnforceConsumerDeletion": true})
		for range 500 {
			if _, err := s.try("DescribeStreamSummary", M{"StreamName": s.name}); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.refuse("DescribeStreamSummary", M{"StreamName": s.name}, "ResourceNotFoundException", "not found")
	})
}
