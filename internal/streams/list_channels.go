package streams

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// maxChannelFilter bounds the streams that one ListChannels may name, since its
// page token carries them.
const maxChannelFilter = 20

// ListChannels lists the caller's channels in the region, in every state, by
// ARN; those of the named streams only, if StreamFilter names any. NextToken
// keeps the filter, which is not given again.
func (s *Service) ListChannels(ctx context.Context, call *api.Call, in *kinesis.ListChannelsInput) (*kinesis.ListChannelsOutput, error) {
	page := pageToken{Kind: "channels", Account: call.Account, Region: call.Region, Limit: listLimit}
	if in.NextToken != nil {
		if len(in.StreamFilter) > 0 {
			return nil, invalidArgument("NextToken and StreamFilter cannot be provided together.")
		}
		var err error
		if page, err = s.open(call, "channels", *in.NextToken); err != nil {
			return nil, err
		}
		if page.Account != call.Account {
			return nil, invalidArgument("NextToken is invalid.")
		}
	}
	if len(in.StreamFilter) > maxChannelFilter {
		return nil, invalidArgument("StreamFilter must not name more than %d streams.", maxChannelFilter)
	}
	for _, f := range in.StreamFilter {
		n, ok := parseStreamARN(api.Val(f.StreamARN))
		if !ok {
			return nil, invalidArgument("StreamARN %s is not the ARN of a stream.", api.Val(f.StreamARN))
		}
		// A stream of another time is none of those that have channels now.
		if st := s.registry.stream(n); st == nil || !createdAtSecond(st, f.StreamCreationTimestamp) {
			page.Streams = append(page.Streams, "")
			continue
		}
		page.Streams = append(page.Streams, n.arn())
	}
	if in.MaxResults != nil {
		page.Limit = min(listLimit, int(*in.MaxResults))
	}
	all := s.registry.channelsOf(accountName{call.Account, call.Region})
	all = all[sort.Search(len(all), func(i int) bool { return all[i].ARN > page.After }):]
	out := &kinesis.ListChannelsOutput{ChannelSummaries: []kinesis.ChannelSummary{}}
	for _, ch := range all {
		if len(page.Streams) > 0 && !slices.Contains(page.Streams, ch.Stream) {
			continue
		}
		if len(out.ChannelSummaries) == page.Limit {
			page.After = *out.ChannelSummaries[page.Limit-1].ChannelARN
			out.NextToken = api.Ptr(s.seal(page))
			break
		}
		d := ch.describe()
		kind := kinesis.ChannelDestinationTypeS3
		if ch.S3Tables != nil {
			kind = kinesis.ChannelDestinationTypeS3Tables
		}
		out.ChannelSummaries = append(out.ChannelSummaries, kinesis.ChannelSummary{
			ChannelName: d.ChannelName, ChannelARN: d.ChannelARN, ChannelId: d.ChannelId, ChannelStatus: d.ChannelStatus,
			ChannelStatusReason: d.ChannelStatusReason, ChannelCreationTimestamp: d.ChannelCreationTimestamp, ChannelDestinationType: &kind,
			Streams: []kinesis.ChannelStreamIdentifier{{StreamARN: &ch.Stream, StreamCreationTimestamp: api.Ptr(time.UnixMilli(ch.StreamAt))}},
		})
	}
	return out, nil
}
