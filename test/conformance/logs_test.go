package conformance

import (
	"testing"
	"time"

	"github.com/millrace/millrace/test/harness"
)

var logs = &service{name: "logs", target: "Logs_20140328"}

// TestEveryLogOperationThroughEveryClient writes events and reads them back.
func TestEveryLogOperationThroughEveryClient(t *testing.T) {
	logs.prove(t, logs.usual(), 17, "proven-logs.txt", (*scenario).logs)
}

func (s *scenario) logs() {
	const group, stream = "/waters/levels", "rhine"
	arn := "arn:aws:logs:" + s.region + ":" + harness.Account + ":log-group:" + group
	now := time.Now().UnixMilli()
	s.check("groups", func() {
		s.call("CreateLogGroup", M{"logGroupName": group, "tags": M{"made-by": "conformance"}})
		s.refuse("CreateLogGroup", M{"logGroupName": group}, "ResourceAlreadyExistsException", "already exists")
		s.call("PutRetentionPolicy", M{"logGroupName": group, "retentionInDays": 7})
		out := s.call("DescribeLogGroups", M{"logGroupNamePrefix": "/waters"})
		want(len(list(out, "logGroups")) == 1 && number(out, "logGroups", 0, "retentionInDays") == 7, "groups %v", out)
		s.call("DeleteRetentionPolicy", M{"logGroupName": group})
		out = s.call("DescribeLogGroups", M{"logGroupNamePrefix": "/waters"})
		want(at(out, "logGroups", 0, "retentionInDays") == nil, "groups %v", out)
	})
	s.check("events", func() {
		s.call("CreateLogStream", M{"logGroupName": group, "logStreamName": stream})
		s.call("PutLogEvents", M{"logGroupName": group, "logStreamName": stream, "logEvents": []any{
			M{"timestamp": now - 2, "message": "level 2.31"}, M{"timestamp": now - 1, "message": "ERROR no level ü"},
		}})
		out := s.call("DescribeLogStreams", M{"logGroupName": group})
		want(len(list(out, "logStreams")) == 1 && text(out, "logStreams", 0, "logStreamName") == stream, "streams %v", out)
		out = s.call("GetLogEvents", M{"logGroupName": group, "logStreamName": stream, "startFromHead": true})
		events := list(out, "events")
		want(len(events) == 2 && text(events, 0, "message") == "level 2.31" && text(events, 1, "message") == "ERROR no level ü", "events %v", out)
		out = s.call("FilterLogEvents", M{"logGroupName": group, "filterPattern": "ERROR"})
		want(len(list(out, "events")) == 1 && text(out, "events", 0, "message") == "ERROR no level ü", "filtered %v", out)
		s.refuse("GetLogEvents", M{"logGroupName": group, "logStreamName": "missing"}, "ResourceNotFoundException", "does not exist")
	})
	s.check("tags", func() {
		s.call("TagLogGroup", M{"logGroupName": group, "tags": M{"river": "rhine"}})
		s.call("TagResource", M{"resourceArn": arn, "tags": M{"unit": "m"}})
		out := s.call("ListTagsForResource", M{"resourceArn": arn})
		tags, _ := at(out, "tags").(M)
		want(len(tags) == 3 && text(tags, "unit") == "m" && text(tags, "river") == "rhine", "tags %v", out)
		s.call("UntagResource", M{"resourceArn": arn, "tagKeys": []any{"unit"}})
		s.call("UntagLogGroup", M{"logGroupName": group, "tags": []any{"river"}})
		out = s.call("ListTagsLogGroup", M{"logGroupName": group})
		tags, _ = at(out, "tags").(M)
		want(len(tags) == 1 && text(tags, "made-by") == "conformance", "tags %v", out)
	})
	s.check("deletion", func() {
		s.call("DeleteLogStream", M{"logGroupName": group, "logStreamName": stream})
		s.call("DeleteLogGroup", M{"logGroupName": group})
		s.refuse("DescribeLogStreams", M{"logGroupName": group}, "ResourceNotFoundException", "does not exist")
	})
}
