package delivery

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/aggregate"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// fakeStream is a data stream in memory. Shards are closed and made by hand.
type fakeStream struct {
	mu        sync.Mutex
	id        uint64
	shards    []*fakeShard
	resharded chan struct{}
	gone      chan struct{}
}

type fakeShard struct {
	Shard
	records []RunRecord
	closed  bool
	expired bool
	changed chan struct{}
}

func newFakeStream(id uint64, shards int) *fakeStream {
	f := &fakeStream{id: id, resharded: make(chan struct{}), gone: make(chan struct{})}
	for i := range shards {
		start := [16]byte{byte(i * 256 / shards)}
		end := [16]byte{byte((i+1)*256/shards - 1)}
		for k := 1; k < 16; k++ {
			end[k] = 0xff
		}
		f.add(start, end)
	}
	return f
}

func (f *fakeStream) add(start, end [16]byte, parents ...uint32) *fakeShard {
	n := uint32(len(f.shards))
	sh := &fakeShard{Shard: Shard{Number: n, Name: fmt.Sprintf("shardId-%012d", n), Parents: parents, Start: start, End: end}, changed: make(chan struct{})}
	f.shards = append(f.shards, sh)
	return sh
}

func (f *fakeStream) OpenStream(_ context.Context, arn string) (Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isClosed(f.gone) {
		return nil, errors.New("no such stream")
	}
	return f, nil
}

// put writes records of one key to the open shard of its range.
func (f *fakeStream) put(key string, data ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash := f.Hash(key)
	for _, sh := range f.shards {
		if sh.closed || slices.Compare(hash[:], sh.Start[:]) < 0 || slices.Compare(hash[:], sh.End[:]) > 0 {
			continue
		}
		for _, d := range data {
			sh.records = append(sh.records, RunRecord{Index: uint64(len(sh.records) + 1), Arrival: time.Now().UnixMilli(), PartitionKey: []byte(key), Data: []byte(d)})
		}
		close(sh.changed)
		sh.changed = make(chan struct{})
		return
	}
	panic("no shard for " + key)
}

// split closes a shard and opens two in its place.
func (f *fakeStream) split(n uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sh := f.shards[n]
	sh.closed = true
	middle := [16]byte{byte((int(sh.Start[0]) + int(sh.End[0]) + 1) / 2)}
	before := [16]byte{middle[0] - 1}
	for k := 1; k < 16; k++ {
		before[k] = 0xff
	}
	f.add(sh.Start, before, n)
	f.add(middle, sh.End, n)
	close(f.resharded)
	f.resharded = make(chan struct{})
}

func (f *fakeStream) merge(a, b uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[a].closed, f.shards[b].closed = true, true
	f.add(f.shards[a].Start, f.shards[b].End, a, b)
	close(f.resharded)
	f.resharded = make(chan struct{})
}

func (f *fakeStream) ID() uint64 { return f.id }

func (f *fakeStream) Shards(context.Context) ([]Shard, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []Shard
	for _, sh := range f.shards {
		if !sh.expired {
			list = append(list, sh.Shard)
		}
	}
	return list, nil
}

func (f *fakeStream) Resharded() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resharded
}

func (f *fakeStream) Gone() <-chan struct{} { return f.gone }

func (f *fakeStream) At(_ context.Context, shard uint32, at time.Time) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.shards[shard].records {
		if r.Arrival >= at.UnixMilli() {
			return r.Index, nil
		}
	}
	return uint64(len(f.shards[shard].records) + 1), nil
}

func (f *fakeStream) Read(_ context.Context, shard uint32, from uint64, maxBytes int, run *Run) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isClosed(f.gone) {
		return errors.New("no such stream")
	}
	sh := f.shards[shard]
	clear(run.Records)
	run.Records, run.Next, run.Lost, run.End = run.Records[:0], from, 0, false
	for size := 0; run.Next <= uint64(len(sh.records)) && size < maxBytes; run.Next++ {
		r := sh.records[run.Next-1]
		r.Data = slices.Clone(r.Data)
		size += len(r.Data)
		run.Records = append(run.Records, r)
	}
	run.End = sh.closed && len(run.Records) == 0
	return nil
}

func (f *fakeStream) Tail(shard uint32) (uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sh := f.shards[shard]
	return uint64(len(sh.records) + 1), sh.changed
}

func (f *fakeStream) SequenceNumber(shard uint32, index uint64, _ int64) string {
	return fmt.Sprintf("%d-%d-%d", f.id, shard, index)
}

func (f *fakeStream) Hash(key string) [16]byte { return md5.Sum([]byte(key)) }

func (f *fakeStream) Explicit(text string) (key [16]byte, ok bool) {
	return key, text == "0"
}

func streamDefinition(p *peer) *Definition {
	d := define(p)
	d.Source.Stream = &StreamConfig{ARN: "arn:stream", From: time.Now()}
	return d
}

func TestStreamsAreReadFromATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, p := newFakeStream(1, 2), newPeer()
		r := newRig(t, func(o *Options) { o.Streams = f })
		f.put("a", "old")
		f.put("b", "old")
		time.Sleep(time.Second)
		d := streamDefinition(p)
		time.Sleep(time.Second)
		// What was put between the call and the start is not missed.
		f.put("a", "1")
		r.start(d)
		synctest.Wait()
		f.put("b", "2", "3")
		f.put("c", "4")
		r.flush("d1")
		same(t, "stream", p.all(), []string{"1", "2", "3", "4"})
		for _, b := range p.batches {
			if b.Stream.SourceARN != "arn:stream" {
				t.Errorf("%+v", b.Stream)
			}
		}
		if _, _, err := r.engine.Put(t.Context(), "d1", [][]byte{{1}}); err != ErrSource {
			t.Error(err)
		}
		e, _ := r.engine.Ledger("d1", 0)
		for _, entry := range e {
			if !strings.HasPrefix(entry.From, "1-") || !strings.HasPrefix(entry.Lane, "shardId-00000000000") {
				t.Errorf("%+v", entry)
			}
		}
		if r.metrics.sum(DataReadFromKinesisStreamRecords) != 4 {
			t.Errorf("%v", r.metrics.sums)
		}
	})
}

// User records of an aggregate are records of their own; those that went with
// the others to a shard that is not theirs are passed over.
func TestAggregatesAreOpened(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, p := newFakeStream(1, 2), newPeer()
		r := newRig(t, func(o *Options) { o.Streams = f })
		d := streamDefinition(p)
		d.Concurrency = 1
		r.start(d)
		var records []aggregate.Record
		var want []string
		home := f.Hash("key")[0] < 128
		for i := range 20 {
			key := fmt.Sprint("k", i)
			records = append(records, aggregate.Record{PartitionKey: key, Data: []byte(key)})
			if (f.Hash(key)[0] < 128) == home {
				want = append(want, key)
			}
		}
		records = append(records, aggregate.Record{PartitionKey: "key", ExplicitHashKey: "0", Data: []byte("explicit")})
		if home {
			want = append(want, "explicit")
		}
		f.put("key", string(aggregate.Append(nil, records)), "plain")
		r.flush("d1")
		same(t, "aggregate", p.all(), append(want, "plain"))
		seen := map[record.Position]bool{}
		for _, b := range p.batches {
			if err := b.Each(func(_ int, r *record.Record) error { seen[r.Position] = true; return nil }); err == nil {
				t.Error("a batch can be read after its end")
			}
		}
		if st, _ := r.engine.Status("d1"); st.Records != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Children are read when their parents are delivered: for every key, the order
// of the destination is that of the stream, through any number of reshardings,
// crashes and failures.
func TestReshardingKeepsTheOrderOfKeys(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 3))
				f, p := newFakeStream(1, 1+rng.IntN(3)), newPeer()
				var failing atomic.Bool
				failing.Store(true)
				p.fault = func(attempt int, b *record.Batch, stored bool) (dest.Result, error) {
					if failing.Load() && (b.Oldest+int64(b.Count)+int64(attempt))%3 == 0 {
						return dest.Result{}, &dest.Error{Code: "S3.SlowDown", Message: "busy"}
					}
					return dest.Result{}, nil
				}
				r := newRig(t, func(o *Options) { o.Streams = f })
				d := streamDefinition(p)
				d.Hints = record.Hints{Bytes: int64(20 + rng.IntN(500)), Interval: time.Duration(rng.IntN(30)) * time.Second}
				d.Concurrency = 1
				d.Merge = seed%4 == 3
				r.start(d)
				var want []string
				counts := map[string]int{}
				for range 100 {
					switch rng.IntN(14) {
					default:
						key := fmt.Sprint("key", rng.IntN(10))
						for range 1 + rng.IntN(5) {
							counts[key]++
							text := fmt.Sprintf("%s %03d", key, counts[key])
							want = append(want, text)
							f.put(key, text)
						}
					case 0:
						open := f.open()
						if sh := open[rng.IntN(len(open))]; len(open) < 12 && sh.End[0]-sh.Start[0] > 4 {
							f.split(sh.Number)
						}
					case 1:
						open := f.open()
						slices.SortFunc(open, func(a, b *fakeShard) int { return slices.Compare(a.Start[:], b.Start[:]) })
						if n := len(open); n > 1 {
							i := rng.IntN(n - 1)
							f.merge(open[i].Number, open[i+1].Number)
						}
					case 2:
						r.kill()
						r.start(d)
					case 3, 4:
						time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
					case 5:
						synctest.Wait()
					}
				}
				failing.Store(false)
				// Shards that wait for their parents come later: everything is there when
				// nothing happens any more.
				for range 40 {
					time.Sleep(time.Minute)
					r.flush("d1")
				}
				same(t, "stream", p.all(), want)
				if d.Merge {
					return
				}
				last := map[string]string{}
				for _, text := range p.all() {
					key, _, _ := strings.Cut(text, " ")
					if text < last[key] {
						t.Errorf("%s after %s", text, last[key])
					}
					last[key] = text
				}
			})
		})
	}
}

func (f *fakeStream) open() []*fakeShard {
	f.mu.Lock()
	defer f.mu.Unlock()
	var open []*fakeShard
	for _, sh := range f.shards {
		if !sh.closed {
			open = append(open, sh)
		}
	}
	return open
}

// Accounts of shards that expired are forgotten, and those of a stream that was
// made anew begin anew.
func TestOldShardsAndStreamsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, p := newFakeStream(1, 1), newPeer()
		source := &swap{}
		source.now.Store(f)
		r := newRig(t, func(o *Options) { o.Streams = source })
		d := streamDefinition(p)
		r.start(d)
		f.put("a", "1")
		synctest.Wait()
		f.split(0)
		f.put("a", "2")
		r.flush("d1")
		wait(time.Minute)
		r.flush("d1")
		if rows, _ := r.engine.find("d1").storedLanes(); len(rows) == 0 || !rows["shardId-000000000000"].End {
			t.Errorf("%+v", rows)
		}
		f.mu.Lock()
		f.shards[0].expired = true
		f.mu.Unlock()
		f.split(1)
		wait(time.Minute)
		if rows, _ := r.engine.find("d1").storedLanes(); rows["shardId-000000000000"].End {
			t.Errorf("%+v", rows)
		}
		close(f.gone)
		wait(time.Minute)
		if !slices.ContainsFunc(r.events.all(), func(s string) bool { return strings.Contains(s, "Kinesis.ResourceNotFound") }) {
			t.Errorf("%q", r.events.all())
		}
		next := newFakeStream(2, 1)
		source.now.Store(next)
		next.put("a", "3")
		wait(time.Minute)
		r.flush("d1")
		same(t, "both streams", p.all(), []string{"1", "2", "3"})
	})
}

// swap is the stream that has the name now.
type swap struct{ now atomic.Pointer[fakeStream] }

func (s *swap) OpenStream(ctx context.Context, arn string) (Stream, error) {
	return s.now.Load().OpenStream(ctx, arn)
}

// A shard that expires before it could be read does not hold anything up.
func TestExpiredShardsAreGivenUpLoudly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, p := newFakeStream(1, 2), newPeer()
		r := newRig(t, func(o *Options) { o.Streams = f })
		d := streamDefinition(p)
		r.start(d)
		for i := range 20 {
			f.put(fmt.Sprint("k", i), fmt.Sprint(i))
		}
		r.flush("d1")
		if err := r.engine.Pause(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		f.put("k0", "never")
		lost := f.home("k0")
		f.split(lost)
		f.mu.Lock()
		f.shards[lost].expired = true
		f.mu.Unlock()
		f.split(1 - lost)
		synctest.Wait()
		f.put("k0", "after")
		if err := r.engine.Resume(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Minute)
		if got := p.all(); len(got) != 21 || got[20] != "after" {
			t.Errorf("%q", got)
		}
		if !slices.ContainsFunc(r.events.all(), func(s string) bool { return strings.Contains(s, "DataExpired") }) {
			t.Errorf("%q", r.events.all())
		}
		if rows, err := r.engine.find("d1").storedLanes(); err != nil || len(rows) == 0 || rows[f.shards[lost].Name].Low != 0 {
			t.Errorf("%+v, %v", rows, err)
		}
	})
}

// home is the open shard of a key.
func (f *fakeStream) home(key string) uint32 {
	hash := f.Hash(key)
	for _, sh := range f.open() {
		if slices.Compare(hash[:], sh.Start[:]) >= 0 && slices.Compare(hash[:], sh.End[:]) <= 0 {
			return sh.Number
		}
	}
	panic("no shard for " + key)
}
