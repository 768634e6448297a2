package streams

import (
	"context"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// RegisterStreamConsumer registers a fan-out consumer with an ACTIVE or UPDATING
// stream. It is CREATING in the reply and ACTIVE when the delay is over. Its ARN
// ends in the second of its creation, and registering a name again makes
// another ARN. ResourceInUse if the name is taken; LimitExceeded for the 21st
// consumer of a stream (51st with a throughput commitment; queues count) or the
// sixth CREATING.
func (s *Service) RegisterStreamConsumer(ctx context.Context, call *api.Call, in *kinesis.RegisterStreamConsumerInput) (*kinesis.RegisterStreamConsumerOutput, error) {
	name := api.Val(in.ConsumerName)
	for {
		st, err := s.resolve(call, nil, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if !st.readable() {
			return nil, notActive(st)
		}
		n := streamName{st.account, st.region, st.name}
		if s.registry.consumerOf(n, name) != nil {
			return nil, resourceInUse("Consumer %s under stream %s already exists for account %s.", name, st.name, st.account)
		}
		if err := checkTags("consumer "+name, st.account, in.Tags, len(in.Tags)); err != nil {
			return nil, err
		}
		if err := s.checkConsumerLimit(st); err != nil {
			return nil, err
		}
		creating := 0
		for _, c := range s.registry.consumersOf(n) {
			if c.status == kinesis.ConsumerStatusCreating {
				creating++
			}
		}
		if exceeds(creating+1, s.limits.Creating) {
			return nil, limitExceeded("This request would exceed the limit of %d consumers in state CREATING for stream %s under account %s.", s.limits.Creating, st.name, st.account)
		}
		now := s.now()
		record := consumerRecord{
			StreamID: st.id, Created: max(now.Unix(), st.record.ConsumerSecond+1),
			Status: kinesis.ConsumerStatusCreating, Due: now.Add(s.stateDelay).UnixMilli(),
		}
		arn := consumerARN(n, name, record.Created)
		ops := []meta.Op{st.update(st.record), consumerTable.Insert(record, n.account, n.region, n.name, name)}
		if len(in.Tags) > 0 {
			ops = append(ops, meta.Op{Key: attributesTable.Key(arn), Value: attributesTable.Encode(attributesRecord{Tags: in.Tags})})
		}
		conflict, err := s.commit(ctx, ops...)
		if err != nil {
			return nil, err
		}
		if conflict {
			continue
		}
		c := s.registry.consumer(arn)
		s.settleConsumer(ctx, c)
		status := kinesis.ConsumerStatusCreating
		return &kinesis.RegisterStreamConsumerOutput{Consumer: &kinesis.Consumer{
			ConsumerName: &name, ConsumerARN: &arn, ConsumerStatus: &status, ConsumerCreationTimestamp: api.Ptr(time.Unix(record.Created, 0)),
		}}, nil
	}
}

// checkConsumerLimit refuses one more consumer or queue on a stream that has as
// many as it may.
func (s *Service) checkConsumerLimit(st *stream) error {
	limit := s.limits.Consumers
	if s.committed(s.registry.usage(accountName{st.account, st.region}).account.record) {
		limit = s.limits.ConsumersCommitted
	}
	registered := len(s.registry.consumersOf(streamName{st.account, st.region, st.name})) + s.queues.count(st.id)
	if exceeds(registered+1, limit) {
		return limitExceeded("This request would exceed the limit of %d registered consumers for stream %s under account %s.", limit, st.name, st.account)
	}
	return nil
}

func consumerARN(n streamName, name string, second int64) string {
	return n.arn() + "/consumer/" + name + ":" + strconv.FormatInt(second, 10)
}

func consumerKey(n streamName, name string) string {
	return consumerTable.Key(n.account, n.region, n.name, name)
}

// settleConsumer finishes a consumer's transition if there is no delay; see
// settle.
func (s *Service) settleConsumer(ctx context.Context, c *consumer) {
	if s.stateDelay > 0 || c == nil {
		return
	}
	if err := s.finishConsumer(context.WithoutCancel(ctx), c); err != nil {
		s.logger.Error("finish a change of a consumer; it is tried again", "consumer", c.arn, "error", err)
		s.nudge()
	}
}

// finishConsumer makes a CREATING consumer ACTIVE and removes a DELETING one.
func (s *Service) finishConsumer(ctx context.Context, c *consumer) error {
	for {
		c, st := s.registry.consumer(c.arn), s.registry.stream(c.stream)
		if c == nil || st == nil || c.due == 0 {
			return nil
		}
		row := meta.Row[consumerRecord]{Key: consumerKey(c.stream, c.name), Version: c.version, Value: c.record}
		record := st.record
		var ops []meta.Op
		if c.status == kinesis.ConsumerStatusDeleting {
			record.ConsumerSecond = max(record.ConsumerSecond, c.record.Created)
			ops = []meta.Op{consumerTable.Delete(row), {Key: attributesTable.Key(c.arn), Delete: true}}
		} else {
			row.Value.Status, row.Value.Due = kinesis.ConsumerStatusActive, 0
			ops = []meta.Op{consumerTable.Update(row)}
		}
		conflict, err := s.commit(ctx, append(ops, st.update(record))...)
		if err != nil || !conflict {
			return err
		}
	}
}
