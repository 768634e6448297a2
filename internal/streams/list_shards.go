package streams

import (
	"context"
	"sort"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// listShardsLimit is the page size of ListShards, by default and at most.
const listShardsLimit = 1000

// ListShards lists the shards of a stream that is neither CREATING nor
// DELETING, by id, as the filter says:
//
//	none, FROM_TRIM_HORIZON  every shard that has not expired
//	AFTER_SHARD_ID           those with higher ids
//	AT_LATEST                the open ones
//	AT_TRIM_HORIZON          those that were open at the trim horizon
//	AT_TIMESTAMP             those that were open at a time
//	FROM_TIMESTAMP           those that were open at it or later
//
// What an AT filter returns tiles the hash space: a child begins after the
// instant at which its parent ends. Times below the trim horizon or the stream's
// creation are raised to it; for a time to come the open shards are returned.
//
// The next page needs only its token, which is valid for 300 seconds and keeps
// the first call's arguments but for MaxResults. A stream ARN beside it must
// agree; other arguments are refused.
func (s *Service) ListShards(ctx context.Context, call *api.Call, in *kinesis.ListShardsInput) (*kinesis.ListShardsOutput, error) {
	now := s.now()
	page := pageToken{Kind: "shards", Limit: listShardsLimit}
	var st *stream
	if in.NextToken != nil {
		switch {
		case in.StreamName != nil:
			return nil, invalidArgument("NextToken and StreamName cannot be provided together.")
		case in.ExclusiveStartShardId != nil:
			return nil, invalidArgument("NextToken and ExclusiveStartShardId cannot be provided together.")
		case in.StreamCreationTimestamp != nil:
			return nil, invalidArgument("NextToken and StreamCreationTimestamp cannot be provided together.")
		case in.ShardFilter != nil:
			return nil, invalidArgument("NextToken and ShardFilter cannot be provided together.")
		}
		var err error
		if page, err = s.open(call, "shards", *in.NextToken); err != nil {
			return nil, err
		}
		n := streamName{page.Account, page.Region, page.Name}
		if in.StreamARN != nil {
			if named, ok := parseStreamARN(*in.StreamARN); !ok || named != n {
				return nil, invalidArgument("NextToken does not belong to StreamARN %s.", *in.StreamARN)
			}
		}
		if st = s.registry.stream(n); st == nil || st.id != page.Stream {
			return nil, streamNotFound(n.account, n.name)
		}
	} else {
		if in.StreamName == nil && in.StreamARN == nil {
			return nil, invalidArgument("Either NextToken or StreamName should be provided.")
		}
		n, err := s.resolveName(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		start := in.ExclusiveStartShardId
		if f := in.ShardFilter; f != nil {
			if start != nil {
				return nil, invalidArgument("ShardFilter and ExclusiveStartShardId cannot be provided together.")
			}
			page.Filter = api.Val(f.Type)
			switch page.Filter {
			case kinesis.ShardFilterTypeAfterShardId:
				if start = f.ShardId; start == nil {
					return nil, invalidArgument("ShardFilter of type %s requires a ShardId.", page.Filter)
				}
			case kinesis.ShardFilterTypeAtTimestamp, kinesis.ShardFilterTypeFromTimestamp:
				if f.Timestamp == nil {
					return nil, invalidArgument("ShardFilter of type %s requires a Timestamp.", page.Filter)
				}
				page.FilterAt = f.Timestamp.UnixMilli()
			}
		}
		if start != nil {
			index, ok := parseShardID(*start)
			if !ok {
				return nil, shardNotFound(*start, n.name, n.account)
			}
			page.After = strconv.FormatUint(uint64(index), 10)
		}
		if st = s.registry.stream(n); st == nil || !createdAtSecond(st, in.StreamCreationTimestamp) {
			return nil, streamNotFound(n.account, n.name)
		}
		// A horizon is fixed with the first page, so that all pages are about the
		// same instant.
		if page.Filter == kinesis.ShardFilterTypeAtTrimHorizon {
			page.FilterAt = st.trimHorizon(now)
		}
		page.Account, page.Region, page.Name, page.Stream = n.account, n.region, n.name, st.id
	}
	if !st.readable() {
		return nil, notActive(st)
	}
	if in.MaxResults != nil {
		page.Limit = min(listShardsLimit, int(*in.MaxResults))
	}

	shards := st.visible(now)
	if page.After != "" {
		after, err := strconv.ParseUint(page.After, 10, 32)
		if err != nil {
			return nil, invalidArgument("NextToken is invalid.")
		}
		shards = shards[sort.Search(len(shards), func(i int) bool { return uint64(shards[i].index) > after }):]
	}
	keep := shardFilter(st, page, now)
	out := &kinesis.ListShardsOutput{Shards: []kinesis.Shard{}}
	last := uint32(0)
	for _, sh := range shards {
		if !keep(sh) {
			continue
		}
		if len(out.Shards) == page.Limit {
			page.After = strconv.FormatUint(uint64(last), 10)
			out.NextToken = api.Ptr(s.seal(page))
			break
		}
		out.Shards = append(out.Shards, sh.describe())
		last = sh.index
	}
	return out, nil
}

// shardFilter decides which of the visible shards a page lists.
func shardFilter(st *stream, page pageToken, now time.Time) func(*shard) bool {
	switch page.Filter {
	case kinesis.ShardFilterTypeAtLatest:
		return func(sh *shard) bool { return sh.closed == 0 }
	case kinesis.ShardFilterTypeAtTrimHorizon, kinesis.ShardFilterTypeAtTimestamp:
		at := max(page.FilterAt, st.trimHorizon(now), st.createdAt)
		if at > now.UnixMilli() {
			return func(sh *shard) bool { return sh.closed == 0 }
		}
		return func(sh *shard) bool { return sh.openAt(at) }
	case kinesis.ShardFilterTypeFromTimestamp:
		at := max(page.FilterAt, st.trimHorizon(now))
		return func(sh *shard) bool { return sh.closed == 0 || sh.closed >= at }
	}
	return func(*shard) bool { return true }
}

// openAt reports whether the shard was the one open over its range at a time,
// in milliseconds. The closing instant still belongs to the parent, so there is
// exactly one such shard for every hash at every instant.
func (sh *shard) openAt(at int64) bool {
	if sh.parent < 0 && at < sh.opened || sh.parent >= 0 && at <= sh.opened {
		return false
	}
	return sh.closed == 0 || at <= sh.closed
}

// createdAtSecond reports whether a StreamCreationTimestamp, if given, is the
// stream's. Clients keep whole seconds of it.
func createdAtSecond(st *stream, at *time.Time) bool {
	return at == nil || at.Unix() == st.createdAt/1000
}
