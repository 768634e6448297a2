package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// The tables of this package. Every record that belongs to a stream is only
// written in a commit that also writes the stream's record, conditional on its
// version; so the stream's version orders all changes around it, and nothing
// is left behind by one that loses against DeleteStream.
//
//	streams.stream/{account}/{region}/{name}
//	streams.shard/{stream id}/{index}              a shard that is not as the stream was created with
//	streams.consumer/{account}/{region}/{stream}/{name}
//	streams.channel/{account}/{region}/{channel name}
//	streams.attributes/{ARN}                       tags and policy
//	streams.account/{account}/{region}
const watchPrefix = "streams."

var (
	streamTable     = meta.Table[streamRecord]{Prefix: "streams.stream", Format: 1}
	shardTable      = meta.Table[shardRecord]{Prefix: "streams.shard", Format: 1}
	consumerTable   = meta.Table[consumerRecord]{Prefix: "streams.consumer", Format: 1}
	channelTable    = meta.Table[channelRecord]{Prefix: "streams.channel", Format: 1}
	attributesTable = meta.Table[attributesRecord]{Prefix: "streams.attributes", Format: 1}
	accountTable    = meta.Table[accountRecord]{Prefix: "streams.account", Format: 1}
)

// streamRecord is a stream as it is stored. Times are milliseconds since 1970.
type streamRecord struct {
	ID             uint64                `json:"id"` // number of its first shard log, hence unique
	CreatedAt      int64                 `json:"createdAt"`
	Status         kinesis.StreamStatus  `json:"status"`
	Mode           kinesis.StreamMode    `json:"mode"`
	RetentionHours int32                 `json:"retentionHours"`
	TrimFloor      int64                 `json:"trimFloor,omitempty"`
	MaxRecordKiB   int32                 `json:"maxRecordKiB"`
	Monitoring     []kinesis.MetricsName `json:"monitoring,omitempty"`
	KeyID          string                `json:"keyId,omitempty"`
	DataKey        string                `json:"dataKey,omitempty"`
	Auto           bool                  `json:"auto,omitempty"`
	WarmTarget     int32                 `json:"warmTarget,omitempty"`
	WarmCurrent    int32                 `json:"warmCurrent,omitempty"`

	// The stream begins with Initial shards of equal width; their logs are
	// numbered from ID on and their creation second is Created.
	Initial uint32 `json:"initial"`
	Created int64  `json:"created"`
	// NextShard is the index of the next shard to be made; indexes are never
	// used again.
	NextShard uint32 `json:"nextShard"`

	Pending *transition `json:"pending,omitempty"`

	// When each of the limits per 24 hours was used.
	Scalings         []int64 `json:"scalings,omitempty"`
	ModeSwitches     []int64 `json:"modeSwitches,omitempty"`
	EncryptionStarts []int64 `json:"encryptionStarts,omitempty"`

	// ConsumerSecond is the highest creation second of a consumer that was
	// removed; later ones are above it, so that no consumer ARN returns.
	ConsumerSecond int64 `json:"consumerSecond,omitempty"`
}

// transition is what a stream that is not ACTIVE is on its way to.
type transition struct {
	Kind string `json:"kind"`
	Due  int64  `json:"due"` // milliseconds since 1970

	Shards []uint32 `json:"shards,omitempty"` // split, merge: the parents, lower range first
	Key    string   `json:"key,omitempty"`    // split: first hash of the upper child
	// Scaling: the wanted number of shards, how many were open at the start,
	// and the logs that were allotted for the shards to come.
	Target  uint32 `json:"target,omitempty"`
	From    uint32 `json:"from,omitempty"`
	NextLog uint64 `json:"nextLog,omitempty"`
	EndLog  uint64 `json:"endLog,omitempty"`

	Change *settings `json:"change,omitempty"` // what else takes effect at the end
}

// The kinds of transitions.
const (
	kindCreate  = "create"
	kindDelete  = "delete"
	kindSplit   = "split"
	kindMerge   = "merge"
	kindScale   = "scale"
	kindSetting = "setting"
)

// settings are the parts of a stream that a transition changes when it ends;
// nil ones stay.
type settings struct {
	RetentionHours *int32                `json:"retentionHours,omitempty"`
	Mode           *kinesis.StreamMode   `json:"mode,omitempty"`
	MaxRecordKiB   *int32                `json:"maxRecordKiB,omitempty"`
	WarmCurrent    *int32                `json:"warmCurrent,omitempty"`
	Monitoring     []kinesis.MetricsName `json:"monitoring,omitempty"`
	SetMonitoring  bool                  `json:"setMonitoring,omitempty"`
	KeyID          *string               `json:"keyId,omitempty"` // empty: no encryption
	DataKey        string                `json:"dataKey,omitempty"`
}

// shardRecord is a shard that was made by resharding, or an initial one that
// has closed. Hash keys are decimal.
type shardRecord struct {
	Log      uint64        `json:"log"`
	Start    string        `json:"start"`
	End      string        `json:"end"`
	Parent   int64         `json:"parent"`
	Adjacent int64         `json:"adjacent"`
	Created  int64         `json:"created"` // seconds
	Opened   int64         `json:"opened"`
	Closed   int64         `json:"closed,omitempty"`
	Children []childRecord `json:"children,omitempty"`
	// Gone marks an initial shard that has expired.
	Gone bool `json:"gone,omitempty"`
}

type childRecord struct {
	Index   uint32   `json:"index"`
	Start   string   `json:"start"`
	End     string   `json:"end"`
	Parents []uint32 `json:"parents"`
}

// consumerRecord is a registered consumer.
type consumerRecord struct {
	StreamID uint64                 `json:"streamId"`
	Created  int64                  `json:"created"` // seconds
	Status   kinesis.ConsumerStatus `json:"status"`
	Due      int64                  `json:"due,omitempty"` // when the status changes; 0 while ACTIVE
}

// attributesRecord is what any resource with an ARN may carry.
type attributesRecord struct {
	Tags   map[string]string `json:"tags,omitempty"`
	Policy string            `json:"policy,omitempty"`
}

func (a attributesRecord) empty() bool { return len(a.Tags) == 0 && a.Policy == "" }

// accountRecord is an account in a region. Every call that adds to what the
// account's quotas count writes it, conditional on its version, so that two
// calls cannot both take the last place.
type accountRecord struct {
	// Changes makes each version of the record another value.
	Changes uint64 `json:"changes"`
	// Deleted names streams whose shards were created in the recent seconds: a
	// successor's sequence numbers must differ from theirs.
	Deleted    []deletedStream  `json:"deleted,omitempty"`
	Commitment commitmentRecord `json:"commitment"`
}

type deletedStream struct {
	Name    string `json:"name"`
	Created int64  `json:"created"` // highest creation second of its shards
}

// commitmentRecord is the throughput commitment; milliseconds since 1970, 0 for
// never.
type commitmentRecord struct {
	StartedAt int64 `json:"startedAt,omitempty"`
	// EndsAt is when it ends or ended, once that was asked for.
	EndsAt int64 `json:"endsAt,omitempty"`
}

func streamKey(n streamName) string { return streamTable.Key(n.account, n.region, n.name) }

func shardKey(stream uint64, index uint32) string {
	return shardTable.Key(fmt.Sprintf("%016x", stream), fmt.Sprintf("%08x", index))
}

func parseShardKey(parts []string) (stream uint64, index uint32, err error) {
	if len(parts) != 3 {
		return 0, 0, errors.New("not the key of a shard")
	}
	if stream, err = strconv.ParseUint(parts[1], 16, 64); err != nil {
		return 0, 0, err
	}
	i, err := strconv.ParseUint(parts[2], 16, 32)
	return stream, uint32(i), err
}

func (sh *shard) toRecord() shardRecord {
	r := shardRecord{
		Log: uint64(sh.log), Start: sh.start.String(), End: sh.end.String(), Parent: sh.parent, Adjacent: sh.adjacent,
		Created: sh.created, Opened: sh.opened, Closed: sh.closed,
	}
	for _, c := range sh.children {
		r.Children = append(r.Children, childRecord{c.Index, c.Start.String(), c.End.String(), c.Parents})
	}
	return r
}

func (r *shardRecord) shard(stream uint64, index uint32) (*shard, error) {
	start, ok1 := parseHashKey(r.Start)
	end, ok2 := parseHashKey(r.End)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("shard %d of stream %d: bad hash key range", index, stream)
	}
	sh := &shard{
		stream: stream, index: index, log: driver.ShardID(r.Log), start: start, end: end, parent: r.Parent, adjacent: r.Adjacent,
		created: r.Created, opened: r.Opened, closed: r.Closed,
	}
	for _, c := range r.Children {
		cs, ok1 := parseHashKey(c.Start)
		ce, ok2 := parseHashKey(c.End)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("shard %d of stream %d: bad hash key range of a child", index, stream)
		}
		sh.children = append(sh.children, childRef{c.Index, cs, ce, c.Parents})
	}
	return sh, nil
}

// update is the operation that writes a stream's record if it still is as in
// st. Given st.record unchanged it only guards the other operations of a commit.
func (st *stream) update(r streamRecord) meta.Op {
	return streamTable.Update(meta.Row[streamRecord]{
		Key: streamKey(streamName{st.account, st.region, st.name}), Version: st.version, Value: r,
	})
}

// commit is meta.Commit that tells a lost race from a failure: the caller looks
// at the new state and starts over.
func (s *Service) commit(ctx context.Context, ops ...meta.Op) (conflict bool, err error) {
	_, err = s.meta.Commit(ctx, ops...)
	var lost *meta.ConflictError
	if errors.As(err, &lost) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("commit stream metadata: %w", err)
	}
	return false, nil
}
