package streams

import (
	"context"
	"sort"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ListStreamConsumers lists a stream's consumers in every state, by name.
// StreamCreationTimestamp picks the incarnation. NextToken is valid for 300
// seconds and belongs to the stream it was issued for.
func (s *Service) ListStreamConsumers(ctx context.Context, call *api.Call, in *kinesis.ListStreamConsumersInput) (*kinesis.ListStreamConsumersOutput, error) {
	page := pageToken{Kind: "consumers", Limit: listLimit}
	if in.NextToken != nil {
		if in.StreamCreationTimestamp != nil {
			return nil, invalidArgument("NextToken and StreamCreationTimestamp cannot be provided together.")
		}
		var err error
		if page, err = s.open(call, "consumers", *in.NextToken); err != nil {
			return nil, err
		}
	}
	st, err := s.resolve(call, nil, in.StreamARN)
	if err != nil {
		return nil, err
	}
	if !createdAtSecond(st, in.StreamCreationTimestamp) {
		return nil, streamNotFound(st.account, st.name)
	}
	if in.NextToken != nil && page.Stream != st.id {
		return nil, invalidArgument("NextToken does not belong to StreamARN %s.", st.arn)
	}
	page.Account, page.Region, page.Name, page.Stream = st.account, st.region, st.name, st.id
	if in.MaxResults != nil {
		page.Limit = min(listLimit, int(*in.MaxResults))
	}
	all := s.registry.consumersOf(streamName{st.account, st.region, st.name})
	all = all[sort.Search(len(all), func(i int) bool { return all[i].name > page.After }):]
	out := &kinesis.ListStreamConsumersOutput{Consumers: []kinesis.Consumer{}}
	if len(all) > page.Limit {
		all = all[:page.Limit]
		page.After = all[len(all)-1].name
		out.NextToken = api.Ptr(s.seal(page))
	}
	for _, c := range all {
		out.Consumers = append(out.Consumers, kinesis.Consumer{
			ConsumerName: &c.name, ConsumerARN: &c.arn, ConsumerStatus: &c.status, ConsumerCreationTimestamp: api.Ptr(time.UnixMilli(c.createdAt)),
		})
	}
	return out, nil
}
