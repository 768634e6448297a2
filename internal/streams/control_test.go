package streams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
)

// testAccount and testRegion are where control tests call from.
const (
	testAccount = "123456789012"
	testRegion  = "eu-central-1"
)

// rig is a Service on a memory log, with a clock that only tests move.
type rig struct {
	*Service
	t     testing.TB
	clock atomic.Int64 // nanoseconds
	log   *shardlog.Log
	opts  Options
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.clock.Store(time.Date(2026, 5, 1, 12, 0, 0, 250e6, time.UTC).UnixNano())
	r.log = shardlog.New(memory.New(memory.Options{Now: r.time}), shardlog.Options{})
	t.Cleanup(func() {
		if err := r.log.Close(); err != nil {
			t.Error(err)
		}
	})
	r.opts = Options{Log: r.log, Now: r.time}
	if change != nil {
		change(&r.opts)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) time() time.Time         { return time.Unix(0, r.clock.Load()) }
func (r *rig) advance(d time.Duration) { r.clock.Add(int64(d)) }

func (r *rig) start() {
	r.t.Helper()
	store, err := meta.Open(r.t.Context(), r.log, nil, meta.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.opts
	o.Meta = store
	if o.Keyring == nil {
		if o.Keyring, err = keyring.Open(keyring.Options{Store: keyring.InMetadata(store), Master: make([]byte, keyring.MasterKeySize), Now: r.time}); err != nil {
			r.t.Fatal(err)
		}
	}
	if r.Service, err = New(o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	if err := r.Service.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.Service.meta.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart forgets everything that is not stored.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

func (r *rig) call() *api.Call { return testCall(testAccount, testRegion) }

func testCall(account, region string) *api.Call {
	return &api.Call{Account: account, Region: region, Partition: "aws", RequestID: "test"}
}

func (r *rig) create(name string, shards int) *stream {
	r.t.Helper()
	_, err := r.CreateStream(r.t.Context(), r.call(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: api.Ptr(int32(shards))})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.get(name)
}

func (r *rig) createOnDemand(name string) *stream {
	r.t.Helper()
	if _, err := r.CreateStream(r.t.Context(), r.call(), &kinesis.CreateStreamInput{StreamName: &name}); err != nil {
		r.t.Fatal(err)
	}
	return r.get(name)
}

func (r *rig) get(name string) *stream {
	r.t.Helper()
	st := r.lookup(testAccount, testRegion, name)
	if st == nil {
		r.t.Fatalf("no stream %s", name)
	}
	return st
}

// append writes records to a shard's log, below the data plane.
func (r *rig) append(sh *shard, n int) {
	r.t.Helper()
	b := &driver.Batch{Shard: sh.log, Count: n, Size: 1, Payload: driver.Bytes{1}}
	if err := r.log.Append(r.t.Context(), []*driver.Batch{b}); err != nil || b.Err != nil {
		r.t.Fatal(err, b.Err)
	}
}

// wantError checks an error's code and text; the text may end in … to match a
// beginning.
func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e api.Error
	if !errors.As(err, &e) {
		t.Errorf("got error %v, want %s %q", err, code, message)
		return
	}
	begin, open := strings.CutSuffix(message, "…")
	if e.ErrorCode() != code || e.ErrorMessage() != message && !(open && strings.HasPrefix(e.ErrorMessage(), begin)) {
		t.Errorf("got  %s %q\nwant %s %q", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
}

// checkTiling fails unless the open shards tile the hash space, and parents,
// children and creation seconds of all shards fit together.
func checkTiling(t *testing.T, st *stream) {
	t.Helper()
	if len(st.open) == 0 || st.open[0].start != (hashKey{}) || st.open[len(st.open)-1].end != maxHash {
		t.Fatalf("open shards do not cover the hash space: %d of them", len(st.open))
	}
	for i := 1; i < len(st.open); i++ {
		if after(st.open[i-1].end) != st.open[i].start {
			t.Fatalf("hole or overlap between %s and %s", st.open[i-1].id(), st.open[i].id())
		}
	}
	logs := map[driver.ShardID]bool{}
	for i, sh := range st.shards {
		if i > 0 && st.shards[i-1].index >= sh.index {
			t.Fatalf("shard ids out of order at %s", sh.id())
		}
		if logs[sh.log] {
			t.Fatalf("log of %s is used twice", sh.id())
		}
		logs[sh.log] = true
		if distance(sh.end, sh.start).compare(hashKey{0, 1}) < 0 {
			t.Fatalf("%s holds a single value", sh.id())
		}
		for _, p := range []int64{sh.parent, sh.adjacent} {
			if p < 0 {
				continue
			}
			parent := st.shard(uint32(p))
			if parent == nil {
				continue // expired
			}
			if parent.closed == 0 || parent.created >= sh.created || parent.closed != sh.opened {
				t.Fatalf("%s does not follow its parent %s: closed %d, opened %d, created %d after %d",
					sh.id(), parent.id(), parent.closed, sh.opened, sh.created, parent.created)
			}
			if endOf(parent).String() >= startOf(sh).String() {
				t.Fatalf("numbers of %s are not above those of %s", sh.id(), parent.id())
			}
			found := false
			for _, c := range parent.children {
				found = found || c.Index == sh.index && c.Start == sh.start && c.End == sh.end
			}
			if !found {
				t.Fatalf("%s does not know its child %s", parent.id(), sh.id())
			}
		}
	}
}

func TestInitialShards(t *testing.T) {
	tests := []struct {
		n                  uint32
		secondStart, width string
	}{
		{1, "", "340282366920938463463374607431768211455"},
		{2, "170141183460469231731687303715884105728", ""},
		{3, "113427455640312821154458202477256070485", ""},
		{7, "48611766702991209066196372490252601636", ""},
	}
	for _, tt := range tests {
		start, end := uniformRange(0, tt.n)
		if start != (hashKey{}) || tt.n == 1 && end.String() != tt.width {
			t.Errorf("n=%d: first range is %s-%s", tt.n, start, end)
		}
		if tt.n > 1 {
			if second, _ := uniformRange(1, tt.n); second.String() != tt.secondStart {
				t.Errorf("n=%d: second shard starts at %s, want %s", tt.n, second, tt.secondStart)
			}
			if _, last := uniformRange(tt.n-1, tt.n); last != maxHash {
				t.Errorf("n=%d: last shard ends at %s", tt.n, last)
			}
		}
	}
}

func TestParseShardID(t *testing.T) {
	tests := []struct {
		raw  string
		want uint32
		ok   bool
	}{
		{"shardId-000000000005", 5, true},
		{"shardId-0", 0, true},
		{"5", 5, true},
		{"foo-0005", 5, true},
		{"shardId-2147483647", 2147483647, true},
		{"shardId-2147483648", 0, false},
		{"shardId-", 0, false},
		{"", 0, false},
		{"shardId-1x", 0, false},
		{"99999999999999999999999999", 0, false},
	}
	for _, tt := range tests {
		if got, ok := parseShardID(tt.raw); got != tt.want || ok != tt.ok {
			t.Errorf("parseShardID(%q) = %d, %v", tt.raw, got, ok)
		}
	}
	if got := shardID(12); got != "shardId-000000000012" {
		t.Errorf("shardID(12) = %s", got)
	}
}

func TestUpdateShardCountMakesAnExactSweep(t *testing.T) {
	tests := []struct{ from, to, total int }{
		{1, 2, 3}, {2, 3, 7}, {6, 3, 9}, {7, 14, 21}, {10, 5, 15}, {10, 20, 30},
		{2, 4, 6}, {4, 2, 6}, {4, 5, 15}, {4, 3, 11}, {10, 13, 43}, {5, 3, 13},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d to %d", tt.from, tt.to), func(t *testing.T) {
			r := newRig(t, nil)
			r.create("s", tt.from)
			r.advance(time.Hour)
			// Every state a reader can observe tiles the space.
			cancel := r.meta.Watch("streams.", func([]meta.Change) {
				if st := r.lookup(testAccount, testRegion, "s"); len(st.shards) > 0 {
					checkTiling(t, st)
				}
			})
			out, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{
				StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(int32(tt.to)), ScalingType: api.Ptr(kinesis.ScalingTypeUniformScaling),
			})
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if *out.CurrentShardCount != int32(tt.from) || *out.TargetShardCount != int32(tt.to) {
				t.Errorf("reply has %d to %d", *out.CurrentShardCount, *out.TargetShardCount)
			}
			st := r.get("s")
			if len(st.shards) != tt.total || len(st.open) != tt.to || st.status != kinesis.StreamStatusActive {
				t.Errorf("%d shards, %d open, %s; want %d, %d", len(st.shards), len(st.open), st.status, tt.total, tt.to)
			}
			least, most := maxHash, hashKey{}
			for _, sh := range st.open {
				w := distance(sh.end, sh.start)
				if w.compare(least) < 0 {
					least = w
				}
				if w.compare(most) > 0 {
					most = w
				}
			}
			if d := distance(most, least); d.compare(hashKey{0, uint64(tt.from + tt.to)}) > 0 {
				t.Errorf("widths differ by %s", d)
			}
			if tt.from == 4 && tt.to == 3 {
				if got := fmt.Sprint(st.open[0].index, st.open[1].index, st.open[2].index); got != "6 9 10" {
					t.Errorf("open shards %s, want 6 9 10", got)
				}
			}
		})
	}
}

func TestSplitAndMergeRefuse(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 2)
	split := func(id, key string) error {
		_, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: &id, NewStartingHashKey: &key})
		return err
	}
	merge := func(a, b string) error {
		_, err := r.MergeShards(t.Context(), r.call(), &kinesis.MergeShardsInput{StreamName: api.Ptr("s"), ShardToMerge: &a, AdjacentShardToMerge: &b})
		return err
	}
	const under = " in stream s under account " + testAccount
	wantError(t, split("foo", "5"), "ResourceNotFoundException", "Could not find shard foo"+under+".")
	wantError(t, split("7", "5"), "ResourceNotFoundException", "Could not find shard shardId-000000000007"+under+".")
	for _, key := range []string{"0", "1", st.shard(0).end.String(), maxHash.String()} {
		wantError(t, split("0", key), "InvalidArgumentException", "NewStartingHashKey "+key+" used in SplitShard() on shard shardId-000000000000"+under+
			" is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey "+st.shard(0).end.String()+".")
	}
	wantError(t, merge("0", "x"), "ResourceNotFoundException", "Could not find shard x"+under+".")
	for _, pair := range [][2]string{{"1", "0"}, {"0", "0"}} {
		wantError(t, merge(pair[0], pair[1]), "InvalidArgumentException", fmt.Sprintf(
			"Shards shardId-%012s and shardId-%012s%s are not an adjacent pair of shards eligible for merging", pair[0], pair[1], under))
	}
	// The smallest children have two values.
	if err := split("0", "2"); err != nil {
		t.Fatal(err)
	}
	checkTiling(t, r.get("s"))
	for _, err := range []error{split("0", "2"), merge("0", "1")} {
		wantError(t, err, "InvalidArgumentException", "Shard shardId-000000000000"+under+" has already been merged or split, and thus is not eligible for merging or splitting.")
	}
	for _, key := range []string{"0", "1"} { // shard 2 is [0, 1]
		if split("2", key) == nil {
			t.Errorf("a shard of two values was split at %s", key)
		}
	}
	d, err := r.DescribeStream(t.Context(), r.call(), &kinesis.DescribeStreamInput{StreamName: api.Ptr("s")})
	if err != nil {
		t.Fatal(err)
	}
	for i, sh := range d.StreamDescription.Shards {
		closed := sh.SequenceNumberRange.EndingSequenceNumber != nil
		if closed != (i == 0) {
			t.Errorf("%s: ending number %v", *sh.ShardId, closed)
		}
		if parent := sh.ParentShardId != nil; parent != (i >= 2) || sh.AdjacentParentShardId != nil {
			t.Errorf("%s: parents %v %v", *sh.ShardId, sh.ParentShardId, sh.AdjacentParentShardId)
		}
	}
}

func TestMergeHasTwoParentsAndRefusesOnDemand(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 2)
	if _, err := r.MergeShards(t.Context(), r.call(), &kinesis.MergeShardsInput{StreamName: api.Ptr("s"), ShardToMerge: api.Ptr("0"), AdjacentShardToMerge: api.Ptr("1")}); err != nil {
		t.Fatal(err)
	}
	st := r.get("s")
	checkTiling(t, st)
	child := st.shard(2)
	if child.parent != 0 || child.adjacent != 1 {
		t.Errorf("parents %d and %d", child.parent, child.adjacent)
	}
	for _, p := range []uint32{0, 1} {
		if c := st.shard(p).children; len(c) != 1 || fmt.Sprint(c[0].Parents) != "[0 1]" {
			t.Errorf("children of %d: %v", p, c)
		}
	}
	r.createOnDemand("d")
	_, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("d"), ShardToSplit: api.Ptr("0"), NewStartingHashKey: api.Ptr("5")})
	wantError(t, err, "ValidationException", "Request is invalid. Stream d under account "+testAccount+" is in On-Demand mode.")
}

// Random resharding, with restarts and records, keeps every rule of checkTiling,
// at the end and in every state between.
func TestRandomResharding(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t, nil)
	r.create("s", 3)
	for range 60 {
		st := r.get("s")
		open := len(st.open)
		switch random.IntN(5) {
		case 0:
			sh := st.open[random.IntN(open)]
			key := hashKey{sh.start.hi + random.Uint64N(max(1, sh.end.hi-sh.start.hi)), random.Uint64()}
			_, _ = r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: api.Ptr(sh.id()), NewStartingHashKey: api.Ptr(key.String())})
		case 1:
			if open > 1 {
				i := random.IntN(open - 1)
				_, err := r.MergeShards(t.Context(), r.call(), &kinesis.MergeShardsInput{StreamName: api.Ptr("s"),
					ShardToMerge: api.Ptr(st.open[i].id()), AdjacentShardToMerge: api.Ptr(st.open[i+1].id())})
				if err != nil {
					t.Fatal(err)
				}
			}
		case 2:
			target := (open+1)/2 + random.IntN(open+1)
			if target > 2*open {
				target = 2 * open
			}
			target = max(1, min(target, 12))
			_, _ = r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: api.Ptr(int32(target)), ScalingType: api.Ptr(kinesis.ScalingTypeUniformScaling)})
		case 3:
			r.append(st.open[random.IntN(open)], 1+random.IntN(3))
		case 4:
			r.restart()
		}
		r.advance(time.Duration(random.IntN(3000)) * time.Millisecond)
		checkTiling(t, r.get("s"))
		h := hashKey{random.Uint64(), random.Uint64()}
		if sh := r.get("s").route(h); sh.start.compare(h) > 0 || sh.end.compare(h) < 0 || sh.closed != 0 {
			t.Fatalf("hash %s was routed to %s-%s", h, sh.start, sh.end)
		}
	}
}

// list returns all pages of a listing.
func (r *rig) list(in kinesis.ListShardsInput) []kinesis.Shard {
	r.t.Helper()
	var all []kinesis.Shard
	for {
		out, err := r.ListShards(r.t.Context(), r.call(), &in)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, out.Shards...)
		if out.NextToken == nil {
			return all
		}
		in = kinesis.ListShardsInput{NextToken: out.NextToken, MaxResults: in.MaxResults}
	}
}

func shardNames(shards []kinesis.Shard) string {
	var ids []string
	for _, sh := range shards {
		ids = append(ids, strings.TrimLeft(strings.TrimPrefix((*sh.ShardId), "shardId-"), "0"))
		if ids[len(ids)-1] == "" {
			ids[len(ids)-1] = "0"
		}
	}
	return strings.Join(ids, " ")
}

func TestListShardsFilters(t *testing.T) {
	r := newRig(t, nil)
	created := r.time()
	r.create("s", 2) // 0 1
	r.advance(10 * time.Second)
	if _, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("s"), ShardToSplit: api.Ptr("0"), NewStartingHashKey: api.Ptr("1000")}); err != nil {
		t.Fatal(err)
	}
	splitAt := r.time() // 0 closes; 2 3 open
	r.advance(10 * time.Second)
	if _, err := r.MergeShards(t.Context(), r.call(), &kinesis.MergeShardsInput{StreamName: api.Ptr("s"), ShardToMerge: api.Ptr("3"), AdjacentShardToMerge: api.Ptr("1")}); err != nil {
		t.Fatal(err)
	}
	mergedAt := r.time() // 3 1 close; 4 opens
	r.advance(10 * time.Second)

	filter := func(kind kinesis.ShardFilterType, at *time.Time, id *string) kinesis.ListShardsInput {
		return kinesis.ListShardsInput{StreamName: api.Ptr("s"), ShardFilter: &kinesis.ShardFilter{Type: &kind, Timestamp: at, ShardId: id}}
	}
	plus := func(at time.Time, d time.Duration) *time.Time { return api.Ptr(at.Add(d)) }
	tests := []struct {
		name string
		in   kinesis.ListShardsInput
		want string
	}{
		{"no filter", kinesis.ListShardsInput{StreamName: api.Ptr("s")}, "0 1 2 3 4"},
		{"behind an id", kinesis.ListShardsInput{StreamName: api.Ptr("s"), ExclusiveStartShardId: api.Ptr("2")}, "3 4"},
		{"AFTER_SHARD_ID", filter(kinesis.ShardFilterTypeAfterShardId, nil, api.Ptr("shardId-000000000001")), "2 3 4"},
		{"AFTER_SHARD_ID of no shard", filter(kinesis.ShardFilterTypeAfterShardId, nil, api.Ptr("99")), ""},
		{"FROM_TRIM_HORIZON", filter(kinesis.ShardFilterTypeFromTrimHorizon, nil, nil), "0 1 2 3 4"},
		{"AT_TRIM_HORIZON", filter(kinesis.ShardFilterTypeAtTrimHorizon, nil, nil), "0 1"},
		{"AT_LATEST", filter(kinesis.ShardFilterTypeAtLatest, nil, nil), "2 4"},
		{"AT_TIMESTAMP before creation", filter(kinesis.ShardFilterTypeAtTimestamp, plus(created, -time.Hour), nil), "0 1"},
		{"AT_TIMESTAMP of the split", filter(kinesis.ShardFilterTypeAtTimestamp, &splitAt, nil), "0 1"},
		{"AT_TIMESTAMP right after the split", filter(kinesis.ShardFilterTypeAtTimestamp, plus(splitAt, time.Millisecond), nil), "1 2 3"},
		{"AT_TIMESTAMP right after the merge", filter(kinesis.ShardFilterTypeAtTimestamp, plus(mergedAt, time.Millisecond), nil), "2 4"},
		{"AT_TIMESTAMP to come", filter(kinesis.ShardFilterTypeAtTimestamp, plus(mergedAt, time.Hour), nil), "2 4"},
		{"FROM_TIMESTAMP after the split", filter(kinesis.ShardFilterTypeFromTimestamp, plus(splitAt, time.Second), nil), "1 2 3 4"},
		{"FROM_TIMESTAMP long ago", filter(kinesis.ShardFilterTypeFromTimestamp, plus(created, -48*time.Hour), nil), "0 1 2 3 4"},
	}
	for _, tt := range tests {
		for _, size := range []int32{0, 1, 2} {
			in := tt.in
			if size > 0 {
				in.MaxResults = &size
			}
			if got := shardNames(r.list(in)); got != tt.want {
				t.Errorf("%s, pages of %d: got %s, want %s", tt.name, size, got, tt.want)
			}
		}
	}

	// A day after the split only what closed later is there; the parent that is
	// gone stays named in its children.
	r.advance(24*time.Hour - 20*time.Second + time.Millisecond)
	if got := shardNames(r.list(kinesis.ListShardsInput{StreamName: api.Ptr("s")})); got != "1 2 3 4" {
		t.Errorf("after retention: %s", got)
	}
	if sh := r.list(kinesis.ListShardsInput{StreamName: api.Ptr("s")})[1]; sh.ParentShardId == nil {
		t.Error("the expired parent is not named any more")
	}
	log := r.get("s").shard(0).log
	r.trim(t.Context())
	if r.get("s").shard(0) != nil {
		t.Error("an expired shard was kept")
	}
	if _, err := r.log.Bounds(t.Context(), log); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("the log of an expired shard: %v", err)
	}
	r.restart()
	if got := shardNames(r.list(kinesis.ListShardsInput{StreamName: api.Ptr("s")})); got != "1 2 3 4" {
		t.Errorf("after a restart: %s", got)
	}
}

func TestListShardsTokens(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 3)
	first, err := r.ListShards(t.Context(), r.call(), &kinesis.ListShardsInput{StreamName: api.Ptr("s"), MaxResults: api.Ptr(int32(1))})
	if err != nil || first.NextToken == nil {
		t.Fatal(err, first)
	}
	list := func(in kinesis.ListShardsInput) error {
		_, err := r.ListShards(t.Context(), r.call(), &in)
		return err
	}
	token := first.NextToken
	const ia = "InvalidArgumentException"
	wantError(t, list(kinesis.ListShardsInput{}), ia, "Either NextToken or StreamName should be provided.")
	wantError(t, list(kinesis.ListShardsInput{NextToken: token, StreamName: api.Ptr("s")}), ia, "NextToken and StreamName cannot be provided together.")
	wantError(t, list(kinesis.ListShardsInput{NextToken: token, ExclusiveStartShardId: api.Ptr("0")}), ia, "…")
	wantError(t, list(kinesis.ListShardsInput{NextToken: token, ShardFilter: &kinesis.ShardFilter{}}), ia, "…")
	wantError(t, list(kinesis.ListShardsInput{NextToken: token, StreamARN: api.Ptr(st.arn + "x")}), ia, "…")
	wantError(t, list(kinesis.ListShardsInput{NextToken: api.Ptr("A" + *token)}), ia, "NextToken is invalid.")
	wantError(t, list(kinesis.ListShardsInput{NextToken: api.Ptr((*token)[:len(*token)-4])}), ia, "NextToken is invalid.")
	kind := kinesis.ShardFilterTypeAtTimestamp
	wantError(t, list(kinesis.ListShardsInput{StreamName: api.Ptr("s"), ShardFilter: &kinesis.ShardFilter{Type: &kind}}), ia, "…")
	wantError(t, list(kinesis.ListShardsInput{StreamName: api.Ptr("s"), StreamCreationTimestamp: api.Ptr(r.time().Add(-time.Hour))}),
		"ResourceNotFoundException", "Stream s under account "+testAccount+" not found.")
	wantError(t, list(kinesis.ListShardsInput{StreamName: api.Ptr("s"), ExclusiveStartShardId: api.Ptr("no")}),
		"ResourceNotFoundException", "Could not find shard no in stream s under account "+testAccount+".")
	if err := list(kinesis.ListShardsInput{NextToken: token, StreamARN: &st.arn}); err != nil {
		t.Error(err)
	}
	r.restart()
	r.advance(300 * time.Second)
	if err := list(kinesis.ListShardsInput{NextToken: token}); err != nil {
		t.Errorf("after a restart, on the last second: %v", err)
	}
	r.advance(time.Millisecond)
	wantError(t, list(kinesis.ListShardsInput{NextToken: token}), "ExpiredNextTokenException", "…")
	// A token does not fit the stream's successor.
	first, _ = r.ListShards(t.Context(), r.call(), &kinesis.ListShardsInput{StreamName: api.Ptr("s"), MaxResults: api.Ptr(int32(1))})
	if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}); err != nil {
		t.Fatal(err)
	}
	again := r.create("s", 3)
	wantError(t, list(kinesis.ListShardsInput{NextToken: first.NextToken}), "ResourceNotFoundException", "…")
	if again.shards[0].created == st.shards[0].created || again.id == st.id || again.shards[0].index != 0 {
		t.Errorf("the successor's shards cannot be told from the old ones: %d", again.shards[0].created)
	}
}

func TestCreateStreamQuotas(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxShards = 10 })
	create := func(name string, shards int32, mode kinesis.StreamMode) error {
		in := &kinesis.CreateStreamInput{StreamName: &name}
		if shards > 0 {
			in.ShardCount = &shards
		}
		if mode != "" {
			in.StreamModeDetails = &kinesis.StreamModeDetails{StreamMode: &mode}
		}
		_, err := r.CreateStream(t.Context(), r.call(), in)
		return err
	}
	limit := func(current, more int) string {
		return fmt.Sprintf("This request would exceed the shard limit for the account %s in %s. Current shard count for the account: %d. Limit: 10. "+
			"Number of additional shards that would have resulted from this request: %d. Refer to the AWS Service Limits page…", testAccount, testRegion, current, more)
	}
	wantError(t, create("huge", 2147483647, ""), "LimitExceededException", limit(0, 2147483647))
	wantError(t, create("a", 3, kinesis.StreamModeOnDemand), "ValidationException", "…")
	wantError(t, create("a", 0, kinesis.StreamModeProvisioned), "ValidationException", "…")
	if err := create("a", 6, ""); err != nil {
		t.Fatal(err)
	}
	wantError(t, create("a", 1, ""), "ResourceInUseException", "Stream a under account "+testAccount+" already exists.")
	wantError(t, create("b", 5, ""), "LimitExceededException", limit(6, 5))
	// Only open shards count.
	for _, target := range []int32{3, 6, 3} {
		if _, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("a"), TargetShardCount: &target}); err != nil {
			t.Fatal(err)
		}
	}
	if err := create("b", 7, ""); err != nil {
		t.Error(err)
	}
	_, err := r.SplitShard(t.Context(), r.call(), &kinesis.SplitShardInput{StreamName: api.Ptr("b"), ShardToSplit: api.Ptr("0"), NewStartingHashKey: api.Ptr("9")})
	wantError(t, err, "LimitExceededException", limit(10, 1))
	l, err := r.DescribeLimits(t.Context(), r.call(), &kinesis.DescribeLimitsInput{})
	if err != nil || *l.OpenShardCount != 10 || *l.ShardLimit != 10 || *l.OnDemandStreamCount != 0 || *l.OnDemandStreamCountLimit != 50 {
		t.Errorf("limits %+v, %v", l, err)
	}
	// Another region of the account, and another account, have their own quota.
	for _, call := range []*api.Call{testCall(testAccount, "us-east-1"), testCall("210987654321", testRegion)} {
		if _, err := r.CreateStream(t.Context(), call, &kinesis.CreateStreamInput{StreamName: api.Ptr("a"), ShardCount: api.Ptr(int32(9))}); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("b")}); err != nil {
			t.Fatal(err)
		}
		if err := create("b", 7, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStreamNaming(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 1)
	describe := func(call *api.Call, name, arn *string) error {
		_, err := r.DescribeStreamSummary(t.Context(), call, &kinesis.DescribeStreamSummaryInput{StreamName: name, StreamARN: arn})
		return err
	}
	other := testCall("210987654321", testRegion)
	for _, err := range []error{describe(r.call(), &st.name, nil), describe(r.call(), nil, &st.arn), describe(r.call(), &st.name, &st.arn), describe(other, nil, &st.arn)} {
		if err != nil {
			t.Error(err)
		}
	}
	wantError(t, describe(r.call(), nil, nil), "InvalidArgumentException", "Either StreamARN or StreamName must be provided.")
	wantError(t, describe(r.call(), api.Ptr("x"), &st.arn), "InvalidArgumentException", "…")
	wantError(t, describe(r.call(), api.Ptr("x"), nil), "ResourceNotFoundException", "Stream x under account "+testAccount+" not found.")
	wantError(t, describe(other, &st.name, nil), "ResourceNotFoundException", "Stream s under account 210987654321 not found.")
	wantError(t, describe(testCall(testAccount, "us-east-1"), nil, &st.arn), "ResourceNotFoundException", "Stream s under account "+testAccount+" not found.")
	wantError(t, describe(r.call(), nil, api.Ptr("arn:aws:kinesis:eu-central-1:123456789012:stream/s/x")), "InvalidArgumentException", "…")
}

func TestRetention(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	set := func(hours int32, more bool) error {
		var err error
		if more {
			_, err = r.IncreaseStreamRetentionPeriod(t.Context(), r.call(), &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: api.Ptr("s"), RetentionPeriodHours: &hours})
		} else {
			_, err = r.DecreaseStreamRetentionPeriod(t.Context(), r.call(), &kinesis.DecreaseStreamRetentionPeriodInput{StreamName: api.Ptr("s"), RetentionPeriodHours: &hours})
		}
		return err
	}
	const ia = "InvalidArgumentException"
	wantError(t, set(23, false), ia, "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.")
	wantError(t, set(8761, true), ia, "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.")
	wantError(t, set(48, false), ia, "Requested retention period (48 hours) for stream s can not be longer than existing retention period (24 hours). Use IncreaseRetentionPeriod API.")
	for _, step := range []struct {
		hours int32
		more  bool
	}{{24, true}, {24, false}, {100, true}} {
		if err := set(step.hours, step.more); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, set(99, true), ia, "Requested retention period (99 hours) for stream s can not be shorter than existing retention period (100 hours). Use DecreaseRetentionPeriod API.")
	created := r.time()
	r.advance(50 * time.Hour)
	if got := r.get("s").trimHorizon(r.time()); got > created.UnixMilli() {
		t.Error("records of 50 hours ago are gone at 100 hours of retention")
	}
	// What a shorter period made unreadable does not return.
	if err := errors.Join(set(30, false), set(100, true)); err != nil {
		t.Fatal(err)
	}
	want := r.time().Add(-30 * time.Hour).UnixMilli()
	r.restart()
	if got := r.get("s").trimHorizon(r.time()); got != want {
		t.Errorf("trim horizon %d, want %d", got, want)
	}
}

func TestConsumers(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 1)
	register := func(name string) (*kinesis.Consumer, error) {
		out, err := r.RegisterStreamConsumer(t.Context(), r.call(), &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: &name, Tags: map[string]string{"a": "b"}})
		if err != nil {
			return nil, err
		}
		return out.Consumer, nil
	}
	c, err := register("c")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s/consumer/c:%d", st.arn, r.time().Unix()); *c.ConsumerARN != want || *c.ConsumerStatus != kinesis.ConsumerStatusCreating {
		t.Errorf("registered %s %s", *c.ConsumerARN, *c.ConsumerStatus)
	}
	_, err = register("c")
	wantError(t, err, "ResourceInUseException", "Consumer c under stream s already exists for account "+testAccount+".")
	d, err := r.DescribeStreamConsumer(t.Context(), r.call(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: c.ConsumerARN})
	if err != nil || *d.ConsumerDescription.ConsumerStatus != kinesis.ConsumerStatusActive || *d.ConsumerDescription.StreamARN != st.arn {
		t.Fatal(d, err)
	}
	_, err = r.DescribeStreamConsumer(t.Context(), r.call(), &kinesis.DescribeStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("x")})
	wantError(t, err, "ResourceNotFoundException", "Consumer x, account "+testAccount+" not found.")
	tags, err := r.ListTagsForResource(t.Context(), r.call(), &kinesis.ListTagsForResourceInput{ResourceARN: c.ConsumerARN})
	if err != nil || len(tags.Tags) != 1 {
		t.Error(tags, err)
	}

	// Deleting the stream needs force, and ends the consumer.
	_, err = r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s"), EnforceConsumerDeletion: api.Ptr(false)})
	wantError(t, err, "ResourceInUseException", "DeleteStream can't delete "+testAccount+":s because there are consumers associated with this data stream. "+
		"To delete s anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the consumers that are associated with it.")
	gone := r.consumerByARN(*c.ConsumerARN).gone
	if _, err := r.DeregisterStreamConsumer(t.Context(), r.call(), &kinesis.DeregisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: api.Ptr("c")}); err != nil {
		t.Fatal(err)
	}
	<-gone
	again, err := register("c")
	if err != nil || *again.ConsumerARN == *c.ConsumerARN {
		t.Errorf("registered again in the same second: %v, %v", again, err)
	}
	for i := range 19 {
		if _, err := register(fmt.Sprintf("n%02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = register("one-too-many")
	wantError(t, err, "LimitExceededException", "…")
	on := kinesis.MinimumThroughputBillingCommitmentInputStatusEnabled
	if _, err := r.UpdateAccountSettings(t.Context(), r.call(), &kinesis.UpdateAccountSettingsInput{MinimumThroughputBillingCommitment: &kinesis.MinimumThroughputBillingCommitmentInput{Status: &on}}); err != nil {
		t.Fatal(err)
	}
	if _, err := register("21st"); err != nil {
		t.Error(err)
	}
	var names int
	in := &kinesis.ListStreamConsumersInput{StreamARN: &st.arn, MaxResults: api.Ptr(int32(8))}
	for {
		out, err := r.ListStreamConsumers(t.Context(), r.call(), in)
		if err != nil {
			t.Fatal(err)
		}
		names += len(out.Consumers)
		if out.NextToken == nil {
			break
		}
		in.NextToken = out.NextToken
	}
	if names != 21 {
		t.Errorf("%d consumers listed", names)
	}
	gone = r.consumerByARN(*again.ConsumerARN).gone
	if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s"), EnforceConsumerDeletion: api.Ptr(true)}); err != nil {
		t.Fatal(err)
	}
	<-gone
	<-st.gone
	if left := r.meta.List("streams.", "", 0); len(left) != 1 || !strings.HasPrefix(left[0].Key, "streams.account/") {
		t.Errorf("left behind: %v", left)
	}
}

func TestTags(t *testing.T) {
	r := newRig(t, nil)
	r.create("s", 1)
	add := func(tags map[string]string) error {
		_, err := r.AddTagsToStream(t.Context(), r.call(), &kinesis.AddTagsToStreamInput{StreamName: api.Ptr("s"), Tags: tags})
		return err
	}
	const ia = "InvalidArgumentException"
	wantError(t, add(map[string]string{"AWS:x": "1"}), ia, "…")
	wantError(t, add(map[string]string{"a": "<"}), ia, "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @.")
	wantError(t, add(map[string]string{"a%": ""}), ia, "Failed to add tags to stream s under account "+testAccount+" because some tags contained illegal characters.…")
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprintf("k%02d", i)] = "v"
	}
	wantError(t, add(many), ia, "Failed to add tags to stream s under account "+testAccount+" because a given stream cannot have more than 50 tags associated with it.")
	delete(many, "k50")
	if err := add(many); err != nil {
		t.Fatal(err)
	}
	wantError(t, add(map[string]string{"k50": "v"}), ia, "…")
	if err := add(map[string]string{"k00": "new"}); err != nil {
		t.Error(err)
	}
	if _, err := r.RemoveTagsFromStream(t.Context(), r.call(), &kinesis.RemoveTagsFromStreamInput{StreamName: api.Ptr("s"), TagKeys: []string{"k01", "unknown"}}); err != nil {
		t.Error(err)
	}
	r.restart()
	out, err := r.ListTagsForStream(t.Context(), r.call(), &kinesis.ListTagsForStreamInput{StreamName: api.Ptr("s"), ExclusiveStartTagKey: api.Ptr("k00"), Limit: api.Ptr(int32(2))})
	if err != nil || len(out.Tags) != 2 || *out.Tags[0].Key != "k02" || !*out.HasMoreTags {
		t.Errorf("%v, %v", out, err)
	}
}

func TestResourcePolicies(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 1)
	get, err := r.GetResourcePolicy(t.Context(), r.call(), &kinesis.GetResourcePolicyInput{ResourceARN: &st.arn})
	if err != nil || get.Policy != nil {
		t.Errorf("no policy: %v, %v", get, err)
	}
	_, err = r.DeleteResourcePolicy(t.Context(), r.call(), &kinesis.DeleteResourcePolicyInput{ResourceARN: &st.arn})
	wantError(t, err, "ResourceNotFoundException", "No resource policy found for resource ARN "+st.arn)
	put := func(policy string) error {
		_, err := r.PutResourcePolicy(t.Context(), r.call(), &kinesis.PutResourcePolicyInput{ResourceARN: &st.arn, Policy: &policy})
		return err
	}
	for _, bad := range []string{``, `{`, `[]`, `{}`, `{"Statement":[]}`, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"` + st.arn + `"}}`,
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}`, `{"Statement":{"Effect":"Allow","Principal":"*","Action":"*"}}`,
		`{"Statement":{"Effect":"Maybe","Principal":"*","Action":"*","Resource":"` + st.arn + `"}}`, `"` + strings.Repeat("x", maxPolicyBytes) + `"`} {
		wantError(t, put(bad), "InvalidArgumentException", "…")
	}
	good := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"kinesis:PutRecord","Resource":["` + st.arn + `"]}]}`
	if err := put(good); err != nil {
		t.Fatal(err)
	}
	if policy, ok := r.ResourcePolicy(st.arn); policy != good || !ok {
		t.Error(policy)
	}
	if _, err := r.DeleteResourcePolicy(t.Context(), r.call(), &kinesis.DeleteResourcePolicyInput{ResourceARN: &st.arn}); err != nil {
		t.Error(err)
	}
}

func TestModesAndSettings(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Daily = true })
	st := r.createOnDemand("s")
	if st.mode != kinesis.StreamModeOnDemand || len(st.open) != 4 {
		t.Fatalf("%s with %d shards", st.mode, len(st.open))
	}
	mode := func(m kinesis.StreamMode) error {
		_, err := r.UpdateStreamMode(t.Context(), r.call(), &kinesis.UpdateStreamModeInput{StreamARN: &st.arn, StreamModeDetails: &kinesis.StreamModeDetails{StreamMode: &m}})
		return err
	}
	for range 3 { // the same mode is no switch
		if err := mode(kinesis.StreamModeOnDemand); err != nil {
			t.Fatal(err)
		}
	}
	auto := func() error {
		_, err := r.UpdateStreamRecordDistributionStrategy(t.Context(), r.call(), &kinesis.UpdateStreamRecordDistributionStrategyInput{
			StreamARN: &st.arn, RecordDistributionStrategy: api.Ptr(kinesis.RecordDistributionStrategyAuto)})
		return err
	}
	if err := errors.Join(auto(), mode(kinesis.StreamModeProvisioned)); err != nil {
		t.Fatal(err)
	}
	if now := r.get("s"); now.autoDistribution || len(now.open) != 4 {
		t.Error("provisioned stream kept AUTO, or lost shards")
	}
	wantError(t, auto(), "InvalidArgumentException", "…")
	if err := mode(kinesis.StreamModeOnDemand); err != nil {
		t.Fatal(err)
	}
	wantError(t, mode(kinesis.StreamModeProvisioned), "LimitExceededException", "…")
	r.advance(24 * time.Hour)
	if err := mode(kinesis.StreamModeProvisioned); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		for _, target := range []int32{5, 4} {
			_, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: &target})
			if err != nil {
				wantError(t, err, "LimitExceededException", "UpdateShardCount can be called at most 10 times per stream in a rolling 24-hour period.")
			}
		}
	}
	if n := len(r.get("s").record.Scalings); n != 10 {
		t.Errorf("%d scalings went through", n)
	}
	for _, tt := range []struct {
		target int32
		want   string
	}{
		{9, "UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 4 Target shard count: 9"},
		{1, "UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: 4 Target shard count: 1"},
	} {
		_, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: &tt.target})
		wantError(t, err, "InvalidArgumentException", tt.want)
	}
	if _, err := r.UpdateMaxRecordSize(t.Context(), r.call(), &kinesis.UpdateMaxRecordSizeInput{StreamARN: &st.arn, MaxRecordSizeInKiB: api.Ptr(int32(10240))}); err != nil {
		t.Fatal(err)
	}
	on, err := r.EnableEnhancedMonitoring(t.Context(), r.call(), &kinesis.EnableEnhancedMonitoringInput{StreamName: api.Ptr("s"), ShardLevelMetrics: []kinesis.MetricsName{kinesis.MetricsNameAll}})
	if err != nil || len(on.CurrentShardLevelMetrics) != 0 || len(on.DesiredShardLevelMetrics) != 7 {
		t.Error(on, err)
	}
	off, err := r.DisableEnhancedMonitoring(t.Context(), r.call(), &kinesis.DisableEnhancedMonitoringInput{StreamName: api.Ptr("s"), ShardLevelMetrics: []kinesis.MetricsName{kinesis.MetricsNameIncomingBytes}})
	if err != nil || len(off.CurrentShardLevelMetrics) != 7 || len(off.DesiredShardLevelMetrics) != 6 {
		t.Error(off, err)
	}
	r.restart()
	now := r.get("s")
	if now.maxRecordBytes != 10<<20 || len(now.monitoring) != 6 || now.mode != kinesis.StreamModeProvisioned {
		t.Errorf("after a restart: %+v", now.record)
	}
}

func TestWarmThroughputNeedsACommitment(t *testing.T) {
	r := newRig(t, nil)
	r.createOnDemand("s")
	warm := func(n int32) (*kinesis.UpdateStreamWarmThroughputOutput, error) {
		return r.UpdateStreamWarmThroughput(t.Context(), r.call(), &kinesis.UpdateStreamWarmThroughputInput{StreamName: api.Ptr("s"), WarmThroughputMiBps: &n})
	}
	_, err := warm(6)
	wantError(t, err, "ValidationException", "…")
	set := func(status kinesis.MinimumThroughputBillingCommitmentInputStatus) *kinesis.MinimumThroughputBillingCommitmentOutput {
		out, err := r.UpdateAccountSettings(t.Context(), r.call(), &kinesis.UpdateAccountSettingsInput{MinimumThroughputBillingCommitment: &kinesis.MinimumThroughputBillingCommitmentInput{Status: &status}})
		if err != nil {
			t.Fatal(err)
		}
		return out.MinimumThroughputBillingCommitment
	}
	set("ENABLED")
	out, err := warm(6)
	if err != nil || *out.WarmThroughput.TargetMiBps != 6 || *out.WarmThroughput.CurrentMiBps != 6 || len(r.get("s").open) != 6 {
		t.Fatal(out, err)
	}
	checkTiling(t, r.get("s"))
	_, err = warm(maxWarmMiBps + 1)
	wantError(t, err, "ValidationException", "…")
	if got := *set("DISABLED").Status; got != "ENABLED_UNTIL_EARLIEST_ALLOWED_END" {
		t.Errorf("disabled early: %s", got)
	}
	r.advance(24 * time.Hour)
	if d, err := r.DescribeAccountSettings(t.Context(), r.call(), nil); err != nil || *d.MinimumThroughputBillingCommitment.Status != "DISABLED" || d.MinimumThroughputBillingCommitment.EndedAt == nil {
		t.Error(d, err)
	}
}

// runner is a ChannelRunner that fails while refuse is set.
type runner struct {
	refuse  error
	started []string
	stopped []string
}

func (f *runner) StartChannel(_ context.Context, d kinesis.ChannelDescription) error {
	f.started = append(f.started, *d.ChannelName)
	return f.refuse
}

func (f *runner) StopChannel(_ context.Context, arn string) error {
	f.stopped = append(f.stopped, arn)
	return nil
}

func TestChannels(t *testing.T) {
	f := &runner{}
	r := newRig(t, func(o *Options) { o.Channels = f })
	st := r.createOnDemand("s")
	input := func(name string) *kinesis.CreateChannelInput {
		return &kinesis.CreateChannelInput{
			ChannelName: &name, ServiceExecutionRoleARN: api.Ptr("arn:aws:iam::123456789012:role/r"),
			StreamConfigurationList: []kinesis.ChannelStreamConfiguration{{StreamARN: &st.arn, RecordConfiguration: &kinesis.RecordConfiguration{RecordFormatType: api.Ptr(kinesis.RecordFormatTypeJson)}}},
			S3DestinationConfiguration: &kinesis.S3DestinationConfiguration{StorageConfiguration: &kinesis.S3StorageConfiguration{
				BucketARN: api.Ptr("arn:aws:s3:::b"), ExpectedBucketOwner: api.Ptr(testAccount), CompressionType: api.Ptr(kinesis.S3CompressionTypeNone)}},
		}
	}
	out, err := r.CreateChannel(t.Context(), r.call(), input("c"))
	if err != nil {
		t.Fatal(err)
	}
	arn := out.ChannelDescription.ChannelARN
	if *out.ChannelDescription.ChannelStatus != kinesis.ChannelStatusCreating || *out.ChannelDescription.S3DestinationConfiguration.DataFreshnessInSeconds != 300 {
		t.Errorf("%+v", out.ChannelDescription)
	}
	status := func() string {
		d, err := r.DescribeChannel(t.Context(), r.call(), &kinesis.DescribeChannelInput{ChannelARN: arn})
		if err != nil {
			return err.Error()
		}
		return string(*d.ChannelDescription.ChannelStatus) + api.Val(d.ChannelDescription.ChannelStatusReason)
	}
	if got := status(); got != "ACTIVE" {
		t.Errorf("created: %s", got)
	}
	_, err = r.CreateChannel(t.Context(), r.call(), input("c"))
	wantError(t, err, "ResourceInUseException", "…")
	both := input("x")
	both.S3TablesDestinationConfiguration = &kinesis.S3TablesDestinationConfiguration{}
	_, err = r.CreateChannel(t.Context(), r.call(), both)
	wantError(t, err, "ValidationException", "…")
	f.refuse = errNoObjectStore
	if _, err := r.UpdateChannel(t.Context(), r.call(), &kinesis.UpdateChannelInput{ChannelARN: arn, S3DestinationConfiguration: &kinesis.S3DestinationUpdateInput{DataFreshnessInSeconds: api.Ptr(int32(60))}}); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != "FAILED"+errNoObjectStore.Error() {
		t.Errorf("without an object store: %s", got)
	}
	r.restart()
	list, err := r.ListChannels(t.Context(), r.call(), &kinesis.ListChannelsInput{StreamFilter: []kinesis.StreamFilter{{StreamARN: &st.arn}}})
	if err != nil || len(list.ChannelSummaries) != 1 || *list.ChannelSummaries[0].ChannelDestinationType != kinesis.ChannelDestinationTypeS3 {
		t.Error(list, err)
	}
	_, err = r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")})
	wantError(t, err, "ResourceInUseException", "…")
	if _, err := r.DeleteChannel(t.Context(), r.call(), &kinesis.DeleteChannelInput{ChannelARN: arn}); err != nil {
		t.Fatal(err)
	}
	if len(f.stopped) != 1 || !strings.Contains(status(), "not found") {
		t.Errorf("deleted: %s, stopped %v", status(), f.stopped)
	}
	if _, err := r.DeleteStream(t.Context(), r.call(), &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")}); err != nil {
		t.Error(err)
	}
}

func TestManyShards(t *testing.T) {
	r := newRig(t, nil)
	st := r.create("s", 10_000)
	if len(st.open) != 10_000 {
		t.Fatal(len(st.open))
	}
	checkTiling(t, st)
	r.create("t", 90_000)
	_, err := r.CreateStream(t.Context(), r.call(), &kinesis.CreateStreamInput{StreamName: api.Ptr("u"), ShardCount: api.Ptr(int32(1))})
	wantError(t, err, "LimitExceededException", "…")
	if got := len(r.list(kinesis.ListShardsInput{StreamName: api.Ptr("s")})); got != 10_000 {
		t.Error(got)
	}
}

// Steps that take effect together leave the shards that steps one by one leave.
func TestBatchesOfStepsMakeTheSameShards(t *testing.T) {
	for _, tt := range []struct{ from, to int }{{10, 20}, {20, 10}, {40, 61}, {61, 40}, {7, 5}, {100, 199}} {
		shape := func(steps int) string {
			r := newRig(t, nil)
			r.scaleSteps = steps
			r.create("s", tt.from)
			r.advance(time.Hour)
			for _, sh := range r.get("s").open[:3] {
				r.append(sh, 2)
			}
			commits := 0
			cancel := r.meta.Watch("streams.", func([]meta.Change) {
				commits++
				checkTiling(t, r.lookup(testAccount, testRegion, "s"))
			})
			defer cancel()
			target := int32(tt.to)
			if _, err := r.UpdateShardCount(t.Context(), r.call(), &kinesis.UpdateShardCountInput{StreamName: api.Ptr("s"), TargetShardCount: &target}); err != nil {
				t.Fatal(err)
			}
			st := r.get("s")
			if most := 4 + (len(st.shards)-tt.from)/steps + 1; commits > most {
				t.Errorf("%d to %d by %d: %d commits, want at most %d", tt.from, tt.to, steps, commits, most)
			}
			var b strings.Builder
			for _, sh := range st.shards {
				fmt.Fprintln(&b, sh.index, sh.start, sh.end, sh.parent, sh.adjacent, sh.created, sh.closed > 0, sh.children)
				for _, parent := range []int64{sh.parent, sh.adjacent} {
					if parent >= 0 && (st.shard(uint32(parent)).created >= sh.created || st.shard(uint32(parent)).closed != sh.opened) {
						t.Errorf("shard %d does not follow its parent %d", sh.index, parent)
					}
				}
			}
			for _, sh := range st.open {
				r.append(sh, 1)
			}
			return b.String()
		}
		one := shape(1)
		for _, steps := range []int{2, 7, scaleSteps} {
			if got := shape(steps); got != one {
				t.Errorf("%d to %d by %d:\n%swant\n%s", tt.from, tt.to, steps, got, one)
			}
		}
	}
}
