package firehose

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// listLimit is the default page size of ListDeliveryStreams.
const listLimit = 10

// ListDeliveryStreams lists the caller's delivery streams in the region, in
// every state, by name; only those of a type if one is given. A page goes on
// behind ExclusiveStartDeliveryStreamName, which need not exist.
func (s *Service) ListDeliveryStreams(ctx context.Context, call *api.Call, in *firehose.ListDeliveryStreamsInput) (*firehose.ListDeliveryStreamsOutput, error) {
	limit := listLimit
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	names := s.registry.names(accountName{call.Account, call.Region})
	i, found := slices.BinarySearch(names, api.Val(in.ExclusiveStartDeliveryStreamName))
	if found {
		i++
	}
	out := &firehose.ListDeliveryStreamsOutput{DeliveryStreamNames: []string{}, HasMoreDeliveryStreams: api.Ptr(false)}
	for _, name := range names[i:] {
		st := s.registry.stream(streamName{call.Account, call.Region, name})
		if st == nil || in.DeliveryStreamType != nil && st.record.Type != *in.DeliveryStreamType {
			continue
		}
		if len(out.DeliveryStreamNames) == limit {
			out.HasMoreDeliveryStreams = api.Ptr(true)
			break
		}
		out.DeliveryStreamNames = append(out.DeliveryStreamNames, name)
	}
	return out, nil
}
