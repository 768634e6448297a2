package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// GetRecords returns what follows an iterator's place, up to Limit records and
// 10 MiB, and an iterator for what follows that. It never waits: an empty page
// is an answer like any other.
//
// A closed shard that was read to its end has no next iterator, and names its
// children instead; the two always come together. The page with its last
// records still has an iterator.
func (s *Service) GetRecords(ctx context.Context, call *api.Call, in *kinesis.GetRecordsInput) (*kinesis.GetRecordsOutput, error) {
	now := s.now()
	it, err := s.useIterator(api.Val(in.ShardIterator), now)
	if err != nil {
		return nil, err
	}
	// Regions are apart: what one has issued means nothing to another.
	if it.stream.region != call.Region {
		return nil, invalidArgument("Invalid ShardIterator.")
	}
	if in.StreamARN != nil {
		if n, ok := parseStreamARN(*in.StreamARN); !ok || n != it.stream {
			return nil, invalidArgument("StreamARN %s does not name the stream of the shard iterator.", *in.StreamARN)
		}
	}
	st := s.registry.stream(it.stream)
	if st == nil || st.id != it.id || !st.readable() {
		return nil, shardMissing(it.shard, it.stream)
	}
	sh := st.listed(it.shard, now)
	if sh == nil {
		return nil, shardMissing(it.shard, it.stream)
	}
	if !api.Val(in.DryRun) && !s.quota.Read(uint64(sh.log)) {
		st.series.Add(ReadProvisionedThroughputExceeded, 1)
		st.series.Add(GetRecordsSuccess, 0)
		s.shardMetric(st, sh, kinesis.MetricsNameReadProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded, 1)
		return nil, &kinesis.ProvisionedThroughputExceededException{Message: rateExceeded(sh.index, it.stream)}
	}
	limit := maxPageRecords
	if in.Limit != nil {
		limit = int(min(max(*in.Limit, 1), maxPageRecords))
	}
	p := newPage()
	call.OnFinish(p.done)
	maxBytes, err := p.reserve()
	if err != nil {
		return nil, err
	}
	err = s.readPage(ctx, p, st, sh, it.next, limit, maxBytes, now)
	p.settle()
	if err != nil {
		st.series.Add(GetRecordsSuccess, 0)
		return nil, err
	}
	if api.Val(in.DryRun) {
		return nil, dryRun()
	}
	s.quota.ReadBytes(uint64(sh.log), p.bytes)
	s.countRead(st, sh, p, float64(s.now().Sub(now).Microseconds())/1000)

	call.ReplySize = p.replySize()
	out := &p.output
	out.Records = p.records
	if out.Records == nil {
		out.Records = []kinesis.Record{}
	}
	out.MillisBehindLatest = &p.behind
	if p.atEnd {
		out.ChildShards = childShards(sh)
		return out, nil
	}
	// A next place of zero stands for the first record; positions beyond what is
	// stored wait where they are.
	it.issued, it.next = now.UnixMilli(), p.next
	next := s.sealIterator(it)
	out.NextShardIterator = &next
	return out, nil
}

// childShards names those that took over a closed shard's range.
func childShards(sh *shard) []kinesis.ChildShard {
	children := make([]kinesis.ChildShard, 0, len(sh.children))
	for _, c := range sh.children {
		id, start, end := shardID(c.Index), c.Start.String(), c.End.String()
		parents := make([]string, 0, len(c.Parents))
		for _, p := range c.Parents {
			parents = append(parents, shardID(p))
		}
		children = append(children, kinesis.ChildShard{
			ShardId: &id, ParentShards: parents, HashKeyRange: &kinesis.HashKeyRange{StartingHashKey: &start, EndingHashKey: &end},
		})
	}
	return children
}

func (s *Service) countRead(st *stream, sh *shard, p *page, millis float64) {
	st.series.Add(GetRecordsSuccess, 1)
	st.series.Add(GetRecordsLatency, millis)
	st.series.Add(GetRecordsBytes, float64(p.bytes))
	st.series.Add(GetRecordsRecords, float64(len(p.records)))
	st.series.Add(GetRecordsIteratorAge, float64(p.behind))
	if len(st.monitoring) == 0 {
		return
	}
	s.shardMetric(st, sh, kinesis.MetricsNameOutgoingBytes, OutgoingBytes, float64(p.bytes))
	s.shardMetric(st, sh, kinesis.MetricsNameOutgoingRecords, OutgoingRecords, float64(len(p.records)))
	s.shardMetric(st, sh, kinesis.MetricsNameIteratorAgeMilliseconds, GetRecordsIteratorAge, float64(p.behind))
}

// shardMetric adds a sample to a shard's series if it is switched on.
func (s *Service) shardMetric(st *stream, sh *shard, name kinesis.MetricsName, m Metric, value float64) {
	if st.monitors(name) {
		s.metrics.Series(Labels{Account: st.account, Region: st.region, Stream: st.name, Shard: sh.id()}).Add(m, value)
	}
}
