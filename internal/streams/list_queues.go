package streams

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ListQueues lists the queues of the caller's account in the region by name,
// those of the filter's streams only if there is one. MaxResults is at most a
// page of 100. A page's token is valid for 300 seconds and carries the filter.
func (s *Service) ListQueues(_ context.Context, call *api.Call, in *kinesis.ListQueuesInput) (*kinesis.ListQueuesOutput, error) {
	t := pageToken{Kind: "queues", Account: call.Account, Region: call.Region, Limit: listLimit}
	if in.NextToken != nil {
		if in.StreamFilter != nil {
			return nil, invalidArgument("NextToken and StreamFilter cannot be provided together.")
		}
		var err error
		if t, err = s.open(call, t.Kind, *in.NextToken); err != nil {
			return nil, err
		}
		if t.Account != call.Account {
			return nil, invalidArgument("NextToken is invalid.")
		}
	}
	if in.MaxResults != nil {
		t.Limit = min(listLimit, int(*in.MaxResults))
	}
	filters := in.StreamFilter
	if in.NextToken != nil {
		for _, arn := range t.Streams {
			filters = append(filters, kinesis.QueueStreamFilter{StreamARN: &arn})
		}
	} else {
		if len(filters) > maxTokenFilters {
			return nil, invalidArgument("StreamFilter can have at most %d entries.", maxTokenFilters)
		}
		for _, f := range filters {
			t.Streams = append(t.Streams, *f.StreamARN)
		}
	}
	out := &kinesis.ListQueuesOutput{QueueSummaries: []kinesis.QueueSummary{}}
	last := ""
	for _, v := range s.queues.all(accountName{call.Account, call.Region}) {
		if v.name.name <= t.After || !queueMatches(v, filters) {
			continue
		}
		if len(out.QueueSummaries) == t.Limit {
			t.After = last
			out.NextToken = api.Ptr(s.seal(t))
			break
		}
		last = v.name.name
		status := v.record.status(s.now())
		out.QueueSummaries = append(out.QueueSummaries, kinesis.QueueSummary{
			QueueName: &v.name.name, QueueARN: &v.arn, QueueStatus: &status,
			QueueCreationTimestamp: api.Ptr(time.UnixMilli(v.record.CreatedAt).UTC()),
			Streams: []kinesis.QueueStreamIdentifier{{
				StreamARN:               api.Ptr(v.streamName().arn()),
				StreamCreationTimestamp: api.Ptr(time.UnixMilli(v.record.StreamMade).UTC()),
			}},
		})
	}
	return out, nil
}

// maxTokenFilters bounds the filter, which page tokens carry.
const maxTokenFilters = 20

func queueMatches(v queueView, filters []kinesis.QueueStreamFilter) bool {
	if len(filters) == 0 {
		return true
	}
	for _, f := range filters {
		if *f.StreamARN == v.streamName().arn() && (f.StreamCreationTimestamp == nil || f.StreamCreationTimestamp.Unix() == v.record.StreamMade/1000) {
			return true
		}
	}
	return false
}
