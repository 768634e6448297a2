package streams

import (
	"cmp"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Options of a Service. Log and Meta are required.
type Options struct {
	Log     *shardlog.Log
	Meta    *meta.Store
	Keyring *keyring.Ring
	// Now is the clock of everything a caller can see; time.Now if nil.
	Now func() time.Time
	// StateDelay is how long a stream, consumer or channel stays CREATING,
	// UPDATING or DELETING. Zero finishes every change before its reply.
	StateDelay time.Duration
	// TrimInterval is how often Run looks for expired records and shards; a
	// minute if zero. What is expired is invisible at once in any case.
	TrimInterval time.Duration
	// MaxShards bounds the open shards of an account in a region;
	// DefaultMaxShards if zero. It holds always.
	MaxShards int
	// Limits are the other bounds on objects.
	Limits Limits
	// Scaler, if its interval is set, lets on-demand streams grow with what is
	// written to them.
	Scaler ScalerOptions
	// Channels delivers to object stores; nil reports channels as FAILED.
	Channels ChannelRunner
	// Quota decides about the rates of reading and writing; nil admits all.
	Quota   Quota
	Logger  *slog.Logger
	Metrics Metrics
}

// DefaultMaxShards is the bound on an account's open shards in a region.
const DefaultMaxShards = 100_000

// Limits bound objects. A zero field has its default; a negative one is no
// limit.
type Limits struct {
	Creating           int // streams CREATING at once, and consumers of a stream: 5
	OnDemandStreams    int // of an account in a region: 50
	Consumers          int // of a stream, queues included: 20
	ConsumersCommitted int // the same with a throughput commitment: 50
	Channels           int // of an account in a region: 100
	// Daily enforces the limits per rolling 24 hours, which are counted always:
	// ten UpdateShardCount, two UpdateStreamMode, 25 StartStreamEncryption.
	Daily bool
}

func (l *Limits) setDefaults() {
	for _, f := range []struct {
		field *int
		value int
	}{{&l.Creating, 5}, {&l.OnDemandStreams, 50}, {&l.Consumers, 20}, {&l.ConsumersCommitted, 50}, {&l.Channels, 100}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
}

// exceeds reports whether n is over a limit.
func exceeds(n, limit int) bool { return limit >= 0 && n > limit }

// Service serves every operation of Data Streams. It is made by New; Run must
// run for changes with a delay and for expiry.
type Service struct {
	log        *shardlog.Log
	meta       *meta.Store
	keyring    *keyring.Ring
	now        func() time.Time
	stateDelay time.Duration
	trimEvery  time.Duration
	maxShards  int
	scaleSteps int // steps of a scaling in one commit
	limits     Limits
	scaler     ScalerOptions
	channels   ChannelRunner
	logger     *slog.Logger
	metrics    Metrics

	registry  registry
	cancel    func()        // of the watch
	wake      chan struct{} // tells Run that there is a new transition; capacity 1
	finishing finishing
	tokens    tokenKey // seals page tokens
	queues    queues   // stand on streams: they count as consumers, and keep theirs from being deleted or provisioned
	scaling   scalerState
	closeOnce sync.Once

	dataPlane // what DATA keeps: iterators, subscriptions, ciphers
}

// stream is one state of one incarnation of a stream. It is immutable: a change
// makes another. Times are in milliseconds since 1970 unless said otherwise.
type stream struct {
	account, region, name, arn string
	// id is unique among all streams that ever were; iterators and page tokens
	// carry it, so that those of a deleted stream do not fit its successor.
	id        uint64
	createdAt int64
	status    kinesis.StreamStatus
	mode      kinesis.StreamMode
	retention time.Duration
	// trimFloor is the arrival time below which records are gone for good
	// whatever the retention has become since.
	trimFloor        int64
	maxRecordBytes   int
	encryption       *encryption // nil: records are stored as they are
	autoDistribution bool
	monitoring       []kinesis.MetricsName // shard-level metrics, in the model's order

	shards []*shard // all that are not expired at the last sweep, by index
	open   []*shard // those that take writes, by start of their range; they tile the space

	// gone is closed when the stream is DELETING or deleted. All states of one
	// incarnation share it.
	gone chan struct{}
	// series collects the metrics of the stream; never nil.
	series Series

	record  streamRecord // as stored
	version meta.Version // of the stored record
}

// encryption is how the records of a stream are sealed from now on.
type encryption struct {
	keyID   string // as the caller gave it
	dataKey string // names the stream's data key in the keyring
}

// shard is one shard of a stream. It is immutable: closing makes another.
type shard struct {
	stream   uint64 // the stream's id
	index    uint32 // number in its name
	log      driver.ShardID
	start    hashKey // first hash of the range
	end      hashKey // last hash of the range, inclusive
	parent   int64   // index of the parent, or of the merge parent with the lower range; -1 for none
	adjacent int64   // index of the other merge parent; -1 for none
	created  int64   // SECONDS since 1970 that its sequence numbers carry; above those of its parents
	opened   int64   // when it began to take writes: its parents' closing time
	closed   int64   // when it stopped to take writes; 0 while it is open
	// children take over its range; they are kept here because they may expire
	// while an iterator still stands in this shard.
	children []childRef
}

// childRef describes a child to those who reach the end of its parent.
type childRef struct {
	Index   uint32   `json:"index"`
	Start   hashKey  `json:"start"`
	End     hashKey  `json:"end"`
	Parents []uint32 `json:"parents"` // the lower range first
}

// expired reports whether the shard closed before the trim horizon; it is then
// unlisted and unreadable, whether or not Run has removed it yet.
func (sh *shard) expired(horizon int64) bool { return sh.closed != 0 && sh.closed < horizon }

// id is the shard's name on the wire.
func (sh *shard) id() string { return shardID(sh.index) }

// trimHorizon is the arrival time, in milliseconds, from which on records are
// readable at now.
func (st *stream) trimHorizon(now time.Time) int64 {
	return max(now.UnixMilli()-st.retention.Milliseconds(), st.trimFloor)
}

// route returns the shard that takes hash h, nil while the stream has none.
func (st *stream) route(h hashKey) *shard {
	i, found := slices.BinarySearchFunc(st.open, h, func(sh *shard, h hashKey) int { return sh.start.compare(h) })
	if found {
		return st.open[i]
	}
	if i == 0 {
		return nil
	}
	return st.open[i-1]
}

// shard returns the shard with an index, nil if there is none. It may be
// expired: see listed.
func (st *stream) shard(index uint32) *shard {
	i, found := slices.BinarySearchFunc(st.shards, index, func(sh *shard, index uint32) int { return cmp.Compare(sh.index, index) })
	if !found {
		return nil
	}
	return st.shards[i]
}

// listed is shard for callers: expired shards are not there.
func (st *stream) listed(index uint32, now time.Time) *shard {
	sh := st.shard(index)
	if sh == nil || sh.expired(st.trimHorizon(now)) {
		return nil
	}
	return sh
}

// visible returns the shards that are not expired, by index. The slice is not
// the caller's.
func (st *stream) visible(now time.Time) []*shard {
	horizon := st.trimHorizon(now)
	isExpired := func(sh *shard) bool { return sh.expired(horizon) }
	if !slices.ContainsFunc(st.shards, isExpired) {
		return st.shards
	}
	return slices.DeleteFunc(slices.Clone(st.shards), isExpired)
}

// readable reports whether records can be written and read: the stream is
// ACTIVE or UPDATING.
func (st *stream) readable() bool {
	return st.status == kinesis.StreamStatusActive || st.status == kinesis.StreamStatusUpdating
}

// monitors reports whether a shard-level metric is switched on.
func (st *stream) monitors(m kinesis.MetricsName) bool { return slices.Contains(st.monitoring, m) }

// consumer is one state of a registered fan-out consumer; immutable.
type consumer struct {
	name      string
	arn       string
	streamID  uint64
	stream    streamName
	createdAt int64 // milliseconds, whole seconds
	status    kinesis.ConsumerStatus
	due       int64 // when the transition ends
	// gone is closed when the consumer is DELETING or deleted, by itself or with
	// its stream: open subscriptions end with ResourceNotFoundException. All
	// states of one registration share it.
	gone   chan struct{}
	series Series // never nil

	record  consumerRecord
	version meta.Version
}

// streamName is a stream's place: names are scoped to account and region.
type streamName struct{ account, region, name string }

func (n streamName) arn() string {
	return "arn:aws:kinesis:" + n.region + ":" + n.account + ":stream/" + n.name
}

// lookup returns the stream's current state, nil if there is none.
func (s *Service) lookup(account, region, name string) *stream {
	return s.registry.stream(streamName{account, region, name})
}

// current returns the newest state of the same incarnation of a stream, nil if
// it is gone.
func (s *Service) current(st *stream) *stream {
	now := s.lookup(st.account, st.region, st.name)
	if now == nil || now.id != st.id {
		return nil
	}
	return now
}

// consumerByARN returns a registered consumer, nil if there is none.
func (s *Service) consumerByARN(arn string) *consumer { return s.registry.consumer(arn) }

// resolve finds the stream that a call names by name, ARN or both (which must
// agree). A name means the caller's own account; an ARN may be another
// account's, which authorisation has allowed by then.
func (s *Service) resolve(call *api.Call, name, arn *string) (*stream, error) {
	n, err := s.resolveName(call, name, arn)
	if err != nil {
		return nil, err
	}
	st := s.registry.stream(n)
	if st == nil {
		return nil, streamNotFound(n.account, n.name)
	}
	return st, nil
}

// resolveName is resolve without looking whether the stream is there.
func (s *Service) resolveName(call *api.Call, name, arn *string) (streamName, error) {
	if arn == nil {
		if name == nil {
			return streamName{}, invalidArgument("Either StreamARN or StreamName must be provided.")
		}
		return streamName{call.Account, call.Region, *name}, nil
	}
	n, ok := parseStreamARN(*arn)
	if !ok {
		return streamName{}, invalidArgument("StreamARN " + *arn + " is not the ARN of a stream.")
	}
	if name != nil && *name != n.name {
		return streamName{}, invalidArgument("StreamARN " + *arn + " and StreamName " + *name + " do not name the same stream.")
	}
	if n.region != call.Region {
		return streamName{}, streamNotFound(n.account, n.name)
	}
	return n, nil
}

// parseARN splits a Kinesis ARN into region, account and resource.
func parseARN(arn string) (region, account, resource string, ok bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "kinesis" || parts[3] == "" || len(parts[4]) != 12 {
		return "", "", "", false
	}
	return parts[3], parts[4], parts[5], true
}

// parseStreamARN reads arn:{partition}:kinesis:{region}:{account}:stream/{name}.
func parseStreamARN(arn string) (streamName, bool) {
	region, account, resource, ok := parseARN(arn)
	name, isStream := strings.CutPrefix(resource, "stream/")
	if !ok || !isStream || name == "" || len(name) > 128 || strings.ContainsFunc(name, notNameRune) {
		return streamName{}, false
	}
	return streamName{account, region, name}, true
}

// parseConsumerARN reads {stream ARN}/consumer/{name}:{creation second}.
func parseConsumerARN(arn string) (st streamName, name string, created int64, ok bool) {
	stream, rest, found := strings.Cut(arn, "/consumer/")
	if !found {
		return streamName{}, "", 0, false
	}
	if st, ok = parseStreamARN(stream); !ok {
		return streamName{}, "", 0, false
	}
	name, epoch, found := strings.Cut(rest, ":")
	created, err := strconv.ParseInt(epoch, 10, 64)
	if !found || err != nil || name == "" || strings.ContainsFunc(name, notNameRune) {
		return streamName{}, "", 0, false
	}
	return st, name, created, true
}

// notNameRune reports what may not be in the name of a stream, consumer or
// channel.
func notNameRune(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '.' || r == '-')
}

// shardID is a shard's name: twelve digits, zero padded.
func shardID(index uint32) string {
	var b [20]byte
	out := append(b[:0], "shardId-"...)
	digits := strconv.AppendUint(make([]byte, 0, 12), uint64(index), 10)
	for range 12 - len(digits) {
		out = append(out, '0')
	}
	return string(append(out, digits...))
}

// parseShardID reads a shard's name as leniently as the service does: digits
// alone, or any text that ends in a hyphen and digits.
func parseShardID(raw string) (index uint32, ok bool) {
	digits := raw[strings.LastIndexByte(raw, '-')+1:]
	if digits == "" || len(digits) > 64 {
		return 0, false
	}
	var n uint64
	for i := range len(digits) {
		c := digits[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n > 1<<31-1 {
			return 0, false
		}
	}
	return uint32(n), true
}

// Close ends the watches of the metadata. Call it after Run has returned and no
// call is in flight.
func (s *Service) Close() error {
	s.closeOnce.Do(func() {
		s.queues.cancel()
		s.cancel()
	})
	return nil
}
