// Package desttest is the contract of package dest as a suite of tests, which
// every destination runs through.
//
// The one idea: a destination is judged by what its peer holds. The suite makes
// batches of numbered records, hands them over in good and bad conditions, and
// compares what Deliver said with the numbers found at the peer. Peers that
// speak HTTP or anything over TCP are made faulty by [HTTP] and [TCP]; others
// bring faults of their own.
//
// The batches are unfriendly where the contract allows it: a record's bytes are
// scribbled over as soon as the function that received them returns.
//
// Start at [Run] and [Harness].
package desttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Harness says how to test one destination. Only Open is required.
type Harness struct {
	// Open makes a destination over a peer of its own that holds nothing. The
	// peer ends with the test; the suite closes the destination.
	Open func(t *testing.T) *Peer
	// Record makes the bytes of record n, with a text of about size bytes, so
	// that the peer takes them; every n gives other bytes. The default is [JSON].
	// A destination for which a record needs more (a table, partition keys) fills
	// that in with Prepare.
	Record  func(n, size int) []byte
	Prepare func(n int, r *record.Record)
	// Refused makes a record that the peer refuses for what is in it while it
	// takes its neighbours. Nil where the destination fails as a whole or not at all.
	Refused func(n int) []byte
	// RefusedCode is the code of such a failure; empty accepts any.
	RefusedCode string
	// Codes are how the codes of this destination's errors may begin ("Splunk.");
	// empty accepts all.
	Codes []string
	// Unordered says that the peer does not keep the order of a batch.
	Unordered bool
	// Duplicates says that a batch delivered again may be stored again; they are
	// counted. Otherwise the peer must hold every record once.
	Duplicates bool
	// Faults are those that Peer.Break understands.
	Faults []Fault
	// Patience bounds one attempt against a faulty peer; 2 s where it is 0.
	Patience time.Duration
	// LargeBytes is the size of the large batch, and Memory how far the heap may
	// grow while it is delivered. 0 means 32 MiB and 24 MiB.
	LargeBytes, Memory int64
	// Answers is how far the heap may grow over answers without end; 0 means 64 MiB.
	Answers int64
	// Batches is how many are delivered at the same time; 0 means 8.
	Batches int
}

// Peer is a destination and what stands behind it.
type Peer struct {
	Destination dest.Destination
	// Stored returns the records that the peer holds, in its order. Records are
	// recognised with [Parse] where the peer keeps bytes.
	Stored func(t *testing.T) []Entry
	// Break makes the peer faulty until repair is called. Attempts that are under
	// way may fail too. Needed for Harness.Faults.
	Break func(t *testing.T, f Fault) (repair func())
	// Discard makes the peer keep no more than the number of records it received,
	// which count returns; so that the large batch measures the destination alone.
	// Nil: the peer's memory counts too.
	Discard func() (count func() int)
}

// Entry is a record as found at the peer: its number and the checksum of its text.
type Entry struct {
	ID  int
	Sum uint32
}

// Seen makes the entry of a record found with this number and text.
func Seen(id int, text string) Entry { return Entry{id, crc32.ChecksumIEEE([]byte(text))} }

// line is the record that [JSON] makes.
type line struct {
	ID   int    `json:"id"`
	Text string `json:"text"`
}

// Text is the text of record n: printable, without quotes, size bytes long.
func Text(n, size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789 "
	b := make([]byte, size)
	for i := range b {
		b[i] = letters[(n*7+i*(1+n%5))%len(letters)]
	}
	if size > 0 { // a peer may trim
		b[0], b[size-1] = 'a', 'z'
	}
	return string(b)
}

// JSON makes the standard record: one object {"id":n,"text":"…"} and a newline.
func JSON(n, size int) []byte {
	return append(fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, n, Text(n, size)), '\n')
}

// Parse reads the entries of standard records that stand one after another.
func Parse(t *testing.T, data []byte) []Entry {
	t.Helper()
	var found []Entry
	for d := json.NewDecoder(strings.NewReader(string(data))); d.More(); {
		var l line
		if err := d.Decode(&l); err != nil {
			t.Errorf("what the peer holds is no row of records: %v", err)
			return found
		}
		found = append(found, Seen(l.ID, l.Text))
	}
	return found
}

// Lane is a lane of a source that has none.
type Lane string

// Name implements record.Lane.
func (l Lane) Name() string { return string(l) }

// SequenceNumber implements record.Lane: 56 digits.
func (l Lane) SequenceNumber(index uint64, _ int64) string { return fmt.Sprintf("4%055d", index) }

// Stream is on whose behalf the suite's batches travel.
var Stream = record.Stream{
	ARN: "arn:aws:firehose:us-east-1:000000000000:deliverystream/suite", Name: "suite",
	Account: "000000000000", Region: "us-east-1", Version: 1,
}

// Arrival is when the suite's first record arrived, in milliseconds since 1970:
// 2026-07-13T14:05:09Z. Every further record arrives a millisecond later.
const Arrival = 1783951509000

// ID is a batch's name made of a number.
func ID(n int) string { return fmt.Sprintf("%032x", 0x5eed_0000_0000+n) }

// source makes batches of numbered records.
type source struct {
	make    func(n int) []byte
	prepare func(n int, r *record.Record)
}

// errBuffer is what a batch says whose buffer cannot be read any more.
var errBuffer = errors.New("the buffer cannot be read")

// batch is the records first … first+count-1; reading fails at record failAt
// where that is not negative.
func (s source) batch(first, count, failAt int) *record.Batch {
	b := record.NewBatch(func(f func(int, *record.Record) error) error {
		for i := range count {
			if i == failAt {
				return errBuffer
			}
			r := s.record(first + i)
			err := f(i, &r)
			for k := range r.Data {
				r.Data[k] = '#'
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	b.Stream, b.ID, b.Count, b.Attempt, b.FirstAttempt = Stream, ID(first), count, 1, time.Now()
	b.Lane, b.First, b.Last = Lane("shardId-000000000000"), s.position(first), s.position(first+count-1)
	b.Oldest, b.Newest = Arrival+int64(first), Arrival+int64(first+count-1)
	for i := range min(count, 64) { // the sizes of the others are near enough
		b.Bytes += int64(len(s.make(first+i))) * int64(max(1, count/64))
	}
	if count > 0 && s.prepare != nil {
		r := s.record(first)
		b.Keys = r.Keys
	}
	return b
}

func (s source) position(n int) record.Position { return record.Position{Index: uint64(n)} }

func (s source) record(n int) record.Record {
	r := record.Record{Data: s.make(n), Arrival: Arrival + int64(n), Lane: Lane("shardId-000000000000"), Position: s.position(n)}
	if s.prepare != nil {
		s.prepare(n, &r)
	}
	return r
}

// suite is one run.
type suite struct {
	Harness
}

// Run runs the suite, a subtest for each part of the contract.
func Run(t *testing.T, h Harness) {
	if h.Record == nil {
		h.Record = JSON
	}
	if h.Patience == 0 {
		h.Patience = 2 * time.Second
	}
	if h.LargeBytes == 0 {
		h.LargeBytes = 32 << 20
	}
	if h.Memory == 0 {
		h.Memory = 24 << 20
	}
	if h.Answers == 0 {
		h.Answers = 64 << 20
	}
	if h.Batches == 0 {
		h.Batches = 8
	}
	s := &suite{h}
	for _, part := range []struct {
		name string
		run  func(t *testing.T, p *Peer)
	}{
		{"records arrive unaltered and in order", s.arrives},
		{"a batch delivered again", s.again},
		{"refused records are told by index", s.refused},
		{"batches at the same time", s.concurrent},
		{"a context that has ended", s.cancelled},
		{"a buffer that cannot be read", s.unreadable},
		{"a large batch in bounded memory", s.large},
		{"close", s.closes},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, s.open(t)) })
	}
	for _, f := range h.Faults {
		t.Run("fault: "+string(f), func(t *testing.T) { s.fault(t, s.open(t), f) })
	}
}

func (s *suite) open(t *testing.T) *Peer {
	t.Helper()
	p := s.Open(t)
	t.Cleanup(func() {
		if err := p.Destination.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

func (s *suite) source(size int) source {
	return source{func(n int) []byte { return s.Record(n, size) }, s.Prepare}
}

// deliver makes one attempt and checks what holds for every answer. It gives up
// on a destination that does not return although its context has ended.
func (s *suite) deliver(t *testing.T, ctx context.Context, p *Peer, b *record.Batch) (dest.Result, error) {
	t.Helper()
	type answer struct {
		result dest.Result
		err    error
	}
	done := make(chan answer, 1)
	var group sync.WaitGroup
	group.Go(func() {
		r, err := p.Destination.Deliver(ctx, b)
		done <- answer{r, err}
	})
	var a answer
	select {
	case a = <-done:
	case <-after(ctx, 30*time.Second):
		t.Fatal("Deliver has not returned 30 s after its context ended")
	}
	group.Wait()
	if a.result.Waited < 0 {
		t.Errorf("Waited is %v", a.result.Waited)
	}
	if a.err != nil {
		var e *dest.Error
		if errors.As(a.err, &e) {
			s.code(t, e.Code)
			if e.After < 0 {
				t.Errorf("After is %v", e.After)
			}
		}
		return a.result, a.err
	}
	last := -1
	for _, f := range a.result.Failed {
		s.code(t, f.Code)
		if f.Index <= last || f.Index >= b.Count {
			t.Errorf("failure of index %d after %d in a batch of %d", f.Index, last, b.Count)
		}
		last = f.Index
	}
	stored := 0
	for _, o := range a.result.Objects {
		stored += o.Records
		if o.Name == "" {
			t.Error("an object without a name")
		}
	}
	if want := b.Count - len(a.result.Failed); stored != want {
		t.Errorf("the objects hold %d records, %d were delivered", stored, want)
	}
	return a.result, nil
}

// after is a channel that closes d after ctx ends.
func after(ctx context.Context, d time.Duration) <-chan struct{} {
	late := make(chan struct{})
	context.AfterFunc(ctx, func() { time.AfterFunc(d, func() { close(late) }) })
	return late
}

// must delivers a batch that the peer takes whole.
func (s *suite) must(t *testing.T, p *Peer, b *record.Batch) dest.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.deliver(t, ctx, p, b)
	if err != nil {
		t.Fatalf("Deliver: %v", err)
	}
	if len(r.Failed) > 0 {
		t.Fatalf("%d of %d records failed, the first with %+v", len(r.Failed), b.Count, r.Failed[0])
	}
	return r
}

func (s *suite) code(t *testing.T, code string) {
	t.Helper()
	for _, prefix := range s.Codes {
		if strings.HasPrefix(code, prefix) {
			return
		}
	}
	if len(s.Codes) > 0 || code == "" {
		t.Errorf("an error has the code %q", code)
	}
}

// holds compares what the peer has with what it should.
func (s *suite) holds(t *testing.T, p *Peer, want []Entry) {
	t.Helper()
	s.holdsBatches(t, p, want, 1<<30)
}

// holdsBatches is holds without an order between batches of so many records.
func (s *suite) holdsBatches(t *testing.T, p *Peer, want []Entry, batch int) {
	t.Helper()
	found := slices.Clone(p.Stored(t))
	if s.Unordered {
		batch = 1
	}
	slices.SortStableFunc(found, func(a, b Entry) int { return a.ID/batch - b.ID/batch })
	if s.Duplicates {
		n := len(found)
		found = first(found)
		if n > len(found) {
			t.Logf("%d duplicates of %d records", n-len(found), len(found))
		}
	}
	if !slices.Equal(found, want) {
		at := 0
		for at < min(len(found), len(want)) && found[at] == want[at] {
			at++
		}
		t.Errorf("the peer holds %d records, want %d; they differ at %d: %v, want %v", len(found), len(want), at, window(found, at), window(want, at))
	}
}

// first leaves the first of entries that are there several times.
func first(found []Entry) []Entry {
	seen := map[Entry]bool{}
	var kept []Entry
	for _, e := range found {
		if !seen[e] {
			seen[e] = true
			kept = append(kept, e)
		}
	}
	return kept
}

func window(entries []Entry, at int) []Entry { return entries[at:min(at+3, len(entries))] }

func entries(first, count, size int) []Entry {
	list := make([]Entry, 0, count)
	for n := first; n < first+count; n++ {
		list = append(list, Seen(n, Text(n, size)))
	}
	return list
}

func (s *suite) arrives(t *testing.T, p *Peer) {
	from := s.source(50)
	s.must(t, p, from.batch(0, 1, -1))
	s.holds(t, p, entries(0, 1, 50))
	s.must(t, p, from.batch(1, 299, -1))
	s.must(t, p, from.batch(300, 2, -1))
	s.holds(t, p, entries(0, 302, 50))
}

func (s *suite) again(t *testing.T, p *Peer) {
	from := s.source(20)
	b := from.batch(0, 100, -1)
	s.must(t, p, b)
	b.Attempt++
	s.must(t, p, b)
	s.must(t, p, from.batch(100, 10, -1))
	b.Attempt++
	s.must(t, p, b)
	s.holdsBatches(t, p, entries(0, 110, 20), 100)
}

func (s *suite) refused(t *testing.T, p *Peer) {
	if s.Refused == nil {
		t.Skip("this destination does not refuse single records")
	}
	bad := map[int]bool{0: true, 3: true, 4: true, 17: true, 29: true}
	from := source{func(n int) []byte {
		if bad[n] {
			return s.Refused(n)
		}
		return s.Record(n, 30)
	}, s.Prepare}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.deliver(t, ctx, p, from.batch(0, 30, -1))
	if err != nil {
		t.Fatalf("Deliver: %v", err)
	}
	var told []int
	for _, f := range r.Failed {
		told = append(told, f.Index)
		if s.RefusedCode != "" && f.Code != s.RefusedCode {
			t.Errorf("record %d failed with %s: %s; want %s", f.Index, f.Code, f.Message, s.RefusedCode)
		}
		if f.Message == "" {
			t.Errorf("record %d failed without a message", f.Index)
		}
	}
	if want := []int{0, 3, 4, 17, 29}; !slices.Equal(told, want) {
		t.Fatalf("failed are %v, want %v", told, want)
	}
	var want []Entry
	for n := range 30 {
		if !bad[n] {
			want = append(want, Seen(n, Text(n, 30)))
		}
	}
	s.holds(t, p, want)
	// A whole batch of them is not a failure of the attempt.
	all := source{s.Refused, s.Prepare}
	r, err = s.deliver(t, ctx, p, all.batch(100, 3, -1))
	if err != nil || len(r.Failed) != 3 {
		t.Errorf("a batch of refused records: %d failed, %v", len(r.Failed), err)
	}
	s.holds(t, p, want)
}

func (s *suite) concurrent(t *testing.T, p *Peer) {
	from := s.source(40)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for n := range s.Batches {
		group.Go(func() {
			r, err := p.Destination.Deliver(ctx, from.batch(n*50, 50, -1))
			if err != nil || len(r.Failed) > 0 {
				t.Errorf("batch %d: %v, %d failed", n, err, len(r.Failed))
			}
		})
	}
	group.Wait()
	s.holdsBatches(t, p, entries(0, s.Batches*50, 40), 50)
}

func (s *suite) cancelled(t *testing.T, p *Peer) {
	from := s.source(20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := from.batch(0, 20, -1)
	if _, err := s.deliver(t, ctx, p, b); err == nil {
		t.Error("Deliver succeeded although its context had ended")
	}
	b.Attempt++
	s.must(t, p, b)
	s.holds(t, p, entries(0, 20, 20))
}

func (s *suite) unreadable(t *testing.T, p *Peer) {
	from := s.source(20)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, at := range []int{0, 11} {
		if _, err := s.deliver(t, ctx, p, from.batch(0, 20, at)); !errors.Is(err, errBuffer) {
			t.Errorf("Deliver of a batch that fails at record %d: %v, want the cause wrapped", at, err)
		}
	}
	s.must(t, p, from.batch(0, 20, -1))
	s.holds(t, p, entries(0, 20, 20))
}

// large watches the heap while a batch is delivered that is generated on the
// fly, so that whatever grows belongs to the destination.
func (s *suite) large(t *testing.T, p *Peer) {
	const size = 1000
	n := int(s.LargeBytes / size)
	count := func() int { return len(first(p.Stored(t))) }
	if p.Discard != nil {
		count = p.Discard()
	}
	// The collector runs early, so that the heap is what is in use.
	defer debug.SetGCPercent(debug.SetGCPercent(15))
	runtime.GC()
	base := heap()
	var peak atomic.Uint64
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak.Store(max(peak.Load(), heap()))
			}
		}
	})
	s.must(t, p, s.source(size).batch(0, n, -1))
	close(stop)
	watch.Wait()
	grown := int64(peak.Load()) - int64(base)
	t.Logf("%d MiB in one batch: the heap grew by %.1f MiB", s.LargeBytes>>20, float64(grown)/(1<<20))
	if grown > s.Memory {
		t.Errorf("the heap grew by %d MiB, allowed are %d", grown>>20, s.Memory>>20)
	}
	if got := count(); got != n {
		t.Errorf("the peer received %d records of %d", got, n)
	}
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func (s *suite) closes(t *testing.T, p *Peer) {
	s.must(t, p, s.source(20).batch(0, 5, -1))
	for range 2 { // and a third time by the suite
		if err := p.Destination.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// fault delivers before, during and after a fault.
func (s *suite) fault(t *testing.T, p *Peer, f Fault) {
	from := s.source(20)
	s.must(t, p, from.batch(0, 10, -1)) // connections stand
	runtime.GC()
	base := heap()
	repair := p.Break(t, f)
	repaired := sync.OnceFunc(repair)
	defer repaired()
	b := from.batch(10, 10, -1)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
		_, err := s.deliver(t, ctx, p, b)
		over := ctx.Err() != nil
		cancel()
		b.Attempt++
		var e *dest.Error
		switch {
		case err == nil && f == Oversized:
			// A reply that begins well and does not end may count as an answer.
		case err == nil:
			t.Error("Deliver succeeded")
		case errors.As(err, &e) && e.Permanent:
			t.Errorf("%v is said to be permanent", err)
		case e == nil && !over:
			t.Errorf("Deliver ended with %v, which is no *dest.Error", err)
		}
	}
	if f == Hang {
		// A caller that gives up gets its turn back.
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := s.deliver(t, ctx, p, b); err == nil {
			t.Error("Deliver succeeded")
		}
		stop.Stop()
		cancel()
	}
	if grown := int64(heap()) - int64(base); grown > s.Answers {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	repaired()
	b.Attempt++
	s.must(t, p, b)
	s.must(t, p, from.batch(20, 5, -1))
	s.holds(t, p, entries(0, 25, 20))
}
