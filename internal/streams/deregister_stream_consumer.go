package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// DeregisterStreamConsumer removes a consumer, named by its ARN or by stream ARN
// and name: it is DELETING until the delay is over. Its open subscriptions end
// with ResourceNotFound at once. A consumer that is not ACTIVE is ResourceInUse.
func (s *Service) DeregisterStreamConsumer(ctx context.Context, call *api.Call, in *kinesis.DeregisterStreamConsumerInput) (*kinesis.DeregisterStreamConsumerOutput, error) {
	for {
		c, err := s.resolveConsumer(call, in.StreamARN, in.ConsumerName, in.ConsumerARN)
		if err != nil {
			return nil, err
		}
		if c.status != kinesis.ConsumerStatusActive {
			return nil, c.notActive()
		}
		st := s.registry.stream(c.stream)
		if st == nil {
			return nil, streamNotFound(c.stream.account, c.stream.name)
		}
		row := meta.Row[consumerRecord]{Key: consumerKey(c.stream, c.name), Version: c.version, Value: c.record}
		row.Value.Status, row.Value.Due = kinesis.ConsumerStatusDeleting, s.now().Add(s.stateDelay).UnixMilli()
		conflict, err := s.commit(ctx, consumerTable.Update(row), st.update(st.record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			s.settleConsumer(ctx, c)
			return &kinesis.DeregisterStreamConsumerOutput{}, nil
		}
	}
}

// notActive refuses the use of a consumer that is not ACTIVE.
func (c *consumer) notActive() error {
	return resourceInUse("Consumer %s with creation timestamp %d under stream: %s , account %s is not in ACTIVE status.",
		c.name, c.createdAt/1000, c.stream.name, c.stream.account)
}

// resolveConsumer finds a consumer by its ARN, or by its stream's ARN and its
// name. Both may be given if they agree.
func (s *Service) resolveConsumer(call *api.Call, streamARN, name, arn *string) (*consumer, error) {
	if arn != nil {
		n, consumerName, _, ok := parseConsumerARN(*arn)
		if !ok {
			return nil, invalidArgument("ConsumerARN %s is not the ARN of a consumer.", *arn)
		}
		if streamARN != nil && *streamARN != n.arn() || name != nil && *name != consumerName {
			return nil, invalidArgument("ConsumerARN, StreamARN and ConsumerName do not name the same consumer.")
		}
		if c := s.registry.consumer(*arn); c != nil && n.region == call.Region {
			return c, nil
		}
		return nil, consumerNotFound(consumerName, n.account)
	}
	if streamARN == nil || name == nil {
		return nil, invalidArgument("Either ConsumerARN or both StreamARN and ConsumerName must be provided.")
	}
	st, err := s.resolve(call, nil, streamARN)
	if err != nil {
		return nil, err
	}
	if c := s.registry.consumerOf(streamName{st.account, st.region, st.name}, *name); c != nil {
		return c, nil
	}
	return nil, consumerNotFound(*name, st.account)
}
