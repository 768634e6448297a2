package streams

import (
	"context"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// listLimit is the page size of ListStreams, ListStreamConsumers and
// ListChannels, by default and at most.
const listLimit = 100

// ListStreams lists the caller's streams in the region, in every state, by name.
// A page goes on behind ExclusiveStartStreamName, which need not exist, or where
// NextToken says; the two together are InvalidArgument.
func (s *Service) ListStreams(ctx context.Context, call *api.Call, in *kinesis.ListStreamsInput) (*kinesis.ListStreamsOutput, error) {
	limit, start := listLimit, api.Val(in.ExclusiveStartStreamName)
	if in.NextToken != nil {
		if in.ExclusiveStartStreamName != nil {
			return nil, invalidArgument("NextToken and ExclusiveStartStreamName cannot be provided together.")
		}
		t, err := s.open(call, "streams", *in.NextToken)
		if err != nil {
			return nil, err
		}
		if t.Account != call.Account {
			return nil, invalidArgument("NextToken is invalid.")
		}
		start, limit = t.After, t.Limit
	}
	if in.Limit != nil {
		limit = min(listLimit, int(*in.Limit))
	}
	names := s.registry.streamNames(accountName{call.Account, call.Region})
	i, found := slices.BinarySearch(names, start)
	if found {
		i++
	}
	names = names[i:]
	out := &kinesis.ListStreamsOutput{StreamNames: []string{}, StreamSummaries: []kinesis.StreamSummary{}, HasMoreStreams: api.Ptr(false)}
	for j, name := range names {
		if len(out.StreamNames) == limit {
			out.HasMoreStreams = api.Ptr(true)
			out.NextToken = api.Ptr(s.seal(pageToken{Kind: "streams", Account: call.Account, Region: call.Region, After: names[j-1], Limit: limit}))
			break
		}
		st := s.lookup(call.Account, call.Region, name)
		if st == nil {
			continue // deleted since the names were taken
		}
		out.StreamNames = append(out.StreamNames, name)
		out.StreamSummaries = append(out.StreamSummaries, kinesis.StreamSummary{
			StreamName: &st.name, StreamARN: &st.arn, StreamStatus: &st.status,
			StreamModeDetails: &kinesis.StreamModeDetails{StreamMode: &st.mode}, StreamCreationTimestamp: api.Ptr(time.UnixMilli(st.createdAt)),
		})
	}
	return out, nil
}
