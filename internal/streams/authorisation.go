package streams

import (
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// ResourceARN is the ARN of what a call is about and the account that owns it;
// "*" and the caller's account for calls about nothing in particular. It does
// not look whether the resource is there: a caller without permission learns
// nothing about that.
func (s *Service) ResourceARN(call *api.Call, in api.Shape) (arn, owner string) {
	switch in := in.(type) {
	case *kinesis.GetRecordsInput:
		// The iterator names the stream; one that cannot be read is refused later.
		if n, ok := s.iteratorStream(api.Val(in.ShardIterator)); ok {
			return n.arn(), n.account
		}
		return "*", call.Account
	case *kinesis.ListShardsInput:
		if in.NextToken != nil && in.StreamARN == nil {
			if t, err := s.open(call, "shards", *in.NextToken); err == nil {
				n := streamName{t.Account, t.Region, t.Name}
				return n.arn(), n.account
			}
		}
	case *kinesis.DeregisterStreamConsumerInput:
		if c, err := s.resolveConsumer(call, in.StreamARN, in.ConsumerName, in.ConsumerARN); err == nil {
			return c.arn, c.stream.account
		}
	case *kinesis.DescribeStreamConsumerInput:
		if c, err := s.resolveConsumer(call, in.StreamARN, in.ConsumerName, in.ConsumerARN); err == nil {
			return c.arn, c.stream.account
		}
	}
	if call.Operation == nil || call.Operation.Resource == nil {
		return "*", call.Account
	}
	ref, kind := call.Operation.Resource(in)
	switch {
	case ref == "" || kind == api.ResourceNone:
		return "*", call.Account
	case kind == api.ResourceARN:
		if _, account, _, ok := parseARN(ref); ok {
			return ref, account
		}
		return ref, call.Account
	}
	return "arn:aws:kinesis:" + call.Region + ":" + call.Account + ":" + string(kind) + "/" + ref, call.Account
}

// ResourcePolicy is the policy attached to a stream, consumer or queue.
func (s *Service) ResourcePolicy(arn string) (policy string, ok bool) {
	policy = s.registry.attributesOf(arn).Policy
	return policy, policy != ""
}

// ConditionValues are the condition keys of a call that only this service knows:
// aws:ResourceTag/… of its resource, and aws:RequestTag/… and aws:TagKeys of the
// tags it brings.
func (s *Service) ConditionValues(call *api.Call, in api.Shape) map[string][]string {
	values := map[string][]string{}
	arn, _ := s.ResourceARN(call, in)
	for k, v := range s.registry.attributesOf(arn).Tags {
		values["aws:ResourceTag/"+k] = []string{v}
	}
	var tags map[string]string
	var keys []string
	switch in := in.(type) {
	case *kinesis.AddTagsToStreamInput:
		tags = in.Tags
	case *kinesis.TagResourceInput:
		tags = in.Tags
	case *kinesis.CreateStreamInput:
		tags = in.Tags
	case *kinesis.RegisterStreamConsumerInput:
		tags = in.Tags
	case *kinesis.CreateChannelInput:
		tags = in.Tags
	case *kinesis.CreateQueueInput:
		tags = in.Tags
	case *kinesis.RemoveTagsFromStreamInput:
		keys = in.TagKeys
	case *kinesis.UntagResourceInput:
		keys = in.TagKeys
	}
	for _, t := range sortedTags(tags) {
		values["aws:RequestTag/"+*t.Key] = []string{*t.Value}
		keys = append(keys, *t.Key)
	}
	if len(keys) > 0 {
		values["aws:TagKeys"] = keys
	}
	return values
}
