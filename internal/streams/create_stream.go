package streams

import (
	"context"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

const (
	// onDemandShards is what an on-demand stream begins with.
	onDemandShards = 4
	// defaultRetentionHours is the retention period of a new stream.
	defaultRetentionHours = 24
	// defaultMaxRecordKiB is the largest record of a stream that was not given
	// another size.
	defaultMaxRecordKiB = 1024
)

// CreateStream makes a stream in the caller's account and region. It is
// CREATING, without shards, until the delay is over.
// Without a mode, a shard count means provisioned, and none means on-demand with
// four shards. Tags are checked like TagResource's and appear with the stream.
// A name that exists in any state is ResourceInUse; a shard quota that would be
// exceeded, the sixth stream CREATING or the 51st on-demand one is
// LimitExceeded.
// Differs from the service: on-demand with a shard count, and provisioned
// without one, are ValidationException, the service's code is not recorded.
func (s *Service) CreateStream(ctx context.Context, call *api.Call, in *kinesis.CreateStreamInput) (*kinesis.CreateStreamOutput, error) {
	name := streamName{call.Account, call.Region, api.Val(in.StreamName)}
	mode := kinesis.StreamModeProvisioned
	if in.ShardCount == nil {
		mode = kinesis.StreamModeOnDemand
	}
	if in.StreamModeDetails != nil && in.StreamModeDetails.StreamMode != nil {
		mode = *in.StreamModeDetails.StreamMode
	}
	shards := onDemandShards
	switch {
	case mode == kinesis.StreamModeOnDemand && in.ShardCount != nil:
		return nil, validation("ShardCount must not be set for a stream in On-Demand mode.")
	case mode == kinesis.StreamModeProvisioned && in.ShardCount == nil:
		return nil, validation("ShardCount must be set for a stream in Provisioned mode.")
	case in.ShardCount != nil:
		shards = int(*in.ShardCount)
	}
	auto := api.Val(in.RecordDistributionStrategy) == kinesis.RecordDistributionStrategyAuto
	if auto && mode == kinesis.StreamModeProvisioned {
		return nil, invalidArgument("RecordDistributionStrategy AUTO is only supported for streams in On-Demand mode.")
	}
	if err := checkTags("stream "+name.name, name.account, in.Tags, len(in.Tags)); err != nil {
		return nil, err
	}
	account := accountName{name.account, name.region}
	for {
		if s.registry.stream(name) != nil {
			return nil, resourceInUse("Stream %s under account %s already exists.", name.name, name.account)
		}
		use := s.registry.usage(account)
		warm := int32(0)
		if in.WarmThroughputMiBps != nil {
			warm = *in.WarmThroughputMiBps
			if err := checkWarmThroughput(mode, s.committed(use.account.record), warm); err != nil {
				return nil, err
			}
			shards = max(shards, int(warm))
		}
		if shards > s.maxShards-use.open {
			return nil, shardLimit(name.account, name.region, use.open, s.maxShards, shards)
		}
		if exceeds(use.creating+1, s.limits.Creating) {
			return nil, limitExceeded("This request would exceed the limit of %d streams in state CREATING for the account %s in %s.", s.limits.Creating, name.account, name.region)
		}
		if mode == kinesis.StreamModeOnDemand && exceeds(use.onDemand+1, s.limits.OnDemandStreams) {
			return nil, limitExceeded("This request would exceed the limit of %d streams in On-Demand mode for the account %s in %s.", s.limits.OnDemandStreams, name.account, name.region)
		}
		first, err := s.meta.NextShardID(ctx, shards)
		if err != nil {
			return nil, err
		}
		now := s.now()
		record := streamRecord{
			ID: uint64(first), CreatedAt: now.UnixMilli(), Status: kinesis.StreamStatusCreating, Mode: mode,
			RetentionHours: defaultRetentionHours, MaxRecordKiB: defaultMaxRecordKiB, Auto: auto,
			WarmTarget: warm, WarmCurrent: warm,
			Initial: uint32(shards), Created: s.creationSecond(name.name, now, use.account.record),
			Pending: &transition{Kind: kindCreate, Due: now.Add(s.stateDelay).UnixMilli()},
		}
		if in.MaxRecordSizeInKiB != nil {
			record.MaxRecordKiB = *in.MaxRecordSizeInKiB
		}
		ops := []meta.Op{
			streamTable.Insert(record, name.account, name.region, name.name),
			touchAccount(account, use.account, nil),
		}
		if len(in.Tags) > 0 {
			ops = append(ops, attributesTable.Insert(attributesRecord{Tags: in.Tags}, name.arn()))
		}
		conflict, err := s.commit(ctx, ops...)
		if err != nil {
			return nil, err
		}
		if !conflict {
			s.settle(ctx, record.ID, name)
			return &kinesis.CreateStreamOutput{}, nil
		}
	}
}

// creationSecond is the second in the sequence numbers of a new stream's
// shards. A stream that was deleted a moment ago under the same name may have
// used this second; its numbers must not pass for the new stream's.
func (s *Service) creationSecond(name string, now time.Time, account accountRecord) int64 {
	second := now.Unix()
	// With a delay the shards are made two seconds before it ends, as the
	// service has it.
	if s.stateDelay > 2*time.Second {
		second = now.Add(s.stateDelay - 2*time.Second).Unix()
	}
	if i := slices.IndexFunc(account.Deleted, func(d deletedStream) bool { return d.Name == name }); i >= 0 {
		second = max(second, account.Deleted[i].Created+1)
	}
	return second
}
