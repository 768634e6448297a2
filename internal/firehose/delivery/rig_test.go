package delivery

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	memlog "github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

// rig is a log, metadata and peers that outlive engines.
type rig struct {
	t    *testing.T
	log  *shardlog.Log
	meta *meta.Store
	ring *keyring.Ring
	o    Options

	engine *Engine
	cancel context.CancelFunc
	group  sync.WaitGroup

	metrics *testMetrics
	events  *testEvents
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, log: shardlog.New(memlog.New(memlog.Options{}), shardlog.Options{})}
	store, err := meta.Open(t.Context(), r.log, vfs.NewMemory(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.meta = store
	if r.ring, err = keyring.Open(keyring.Options{Store: keyring.InMetadata(store), Master: make([]byte, keyring.MasterKeySize)}); err != nil {
		t.Fatal(err)
	}
	r.metrics, r.events = &testMetrics{sums: map[Metric]float64{}, counts: map[Metric]int{}}, &testEvents{}
	r.o = Options{Log: r.log, Meta: store, Keyring: r.ring, Metrics: r.metrics, ErrorLog: r.events, DrainTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&r.o)
	}
	t.Cleanup(func() {
		r.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := r.log.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// start makes an engine and runs it.
func (r *rig) start(definitions ...*Definition) *Engine {
	r.t.Helper()
	e, err := New(r.o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.engine = e
	for _, d := range definitions {
		if err := e.Apply(r.t.Context(), d); err != nil {
			r.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.group.Go(func() {
		if err := e.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	return e
}

// stop ends the engine as a shutdown does.
func (r *rig) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.group.Wait()
	r.cancel, r.engine = nil, nil
}

// kill ends the engine as a crash does: nothing is stored from now on, and what
// peers were given in the last moment they may have.
func (r *rig) kill() {
	for _, s := range r.engine.list() {
		s.mu.Lock()
		s.removed = true
		running := s.running
		s.mu.Unlock()
		if running {
			s.stopSending()
		}
	}
	r.engine.o.DrainTimeout = -1
	r.stop()
}

func (r *rig) put(id string, records ...string) []string {
	r.t.Helper()
	raw := make([][]byte, len(records))
	for i, s := range records {
		raw[i] = []byte(s)
	}
	ids, _, err := r.engine.Put(r.t.Context(), id, raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return ids
}

func (r *rig) flush(id string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 12*time.Hour)
	defer cancel()
	if err := r.engine.Flush(ctx, id); err != nil {
		st, _ := r.engine.Status(id)
		r.t.Fatalf("flush: %v; status %+v", err, st)
	}
}

// peer stores objects as a bucket does: under their names, the last one wins. It
// is a destination and a writer. Without names everything is kept.
type peer struct {
	mu       sync.Mutex
	objects  map[string][]string
	order    []string
	batches  []*record.Batch
	closed   int
	nameless bool
	// fault is asked before and after something is stored.
	fault func(attempt int, b *record.Batch, stored bool) (dest.Result, error)
	wait  func(ctx context.Context) // in every attempt
}

func newPeer() *peer { return &peer{objects: map[string][]string{}} }

func (p *peer) name(b *record.Batch, errorType string) string {
	keys := ""
	if b.Keys != nil {
		keys = fmt.Sprint(b.Keys.Query, b.Keys.Function)
	}
	return fmt.Sprintf("%s|%s|%d|%d|%s", errorType, keys, b.Stream.Version, b.Oldest, b.ID)
}

func (p *peer) store(ctx context.Context, b *record.Batch, errorType string, skip func(i int) bool) (dest.Result, string, error) {
	if p.wait != nil {
		p.wait(ctx)
		if ctx.Err() != nil {
			return dest.Result{}, "", ctx.Err()
		}
	}
	var result dest.Result
	refused := map[int]bool{}
	if p.fault != nil {
		r, err := p.fault(b.Attempt, b, false)
		if err != nil {
			return r, "", err
		}
		result = r
		for _, f := range r.Failed {
			refused[f.Index] = true
		}
	}
	var records []string
	n := 0
	err := b.Each(func(i int, r *record.Record) error {
		if i != n {
			return fmt.Errorf("record %d comes as number %d", n, i)
		}
		n++
		if !refused[i] {
			records = append(records, string(r.Data))
		}
		return nil
	})
	if err != nil {
		return dest.Result{}, "", err
	}
	if n != b.Count {
		return dest.Result{}, "", fmt.Errorf("batch of %d yields %d", b.Count, n)
	}
	name := p.name(b, errorType)
	p.mu.Lock()
	if p.nameless {
		name = fmt.Sprint(name, "#", len(p.order))
	}
	p.objects[name] = records
	p.order = append(p.order, name)
	p.batches = append(p.batches, b)
	p.mu.Unlock()
	if p.fault != nil {
		if _, err := p.fault(b.Attempt, b, true); err != nil {
			return dest.Result{}, "", err
		}
	}
	result.Objects = []dest.Object{{Name: name, Records: len(records)}}
	return result, name, nil
}

func (p *peer) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	r, _, err := p.store(ctx, b, "", nil)
	return r, err
}

func (p *peer) WriteBatch(ctx context.Context, b *record.Batch, errorType string) (string, error) {
	_, name, err := p.store(ctx, b, errorType, nil)
	return name, err
}

func (p *peer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed++
	return nil
}

// all is what the objects hold, in the order of the objects' first writing.
func (p *peer) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	seen := map[string]bool{}
	for _, name := range p.order {
		if !seen[name] {
			seen[name] = true
			out = append(out, p.objects[name]...)
		}
	}
	return out
}

func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.objects)
}

// failureLine is a line of an error output, taken apart.
type failureLine struct {
	RawData          []byte `json:"rawData"`
	ErrorCode        string `json:"errorCode"`
	LastErrorCode    string `json:"lastErrorCode"`
	ErrorMessage     string `json:"errorMessage"`
	AttemptsMade     int    `json:"attemptsMade"`
	ArrivalTimestamp int64  `json:"arrivalTimestamp"`
	AttemptEnding    int64  `json:"attemptEndingTimestamp"`
}

func parseLines(t *testing.T, p *peer) []failureLine {
	t.Helper()
	var out []failureLine
	for _, text := range p.all() {
		var l failureLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out = append(out, l)
	}
	return out
}

// testMetrics sums up.
type testMetrics struct {
	mu     sync.Mutex
	sums   map[Metric]float64
	counts map[Metric]int
}

func (m *testMetrics) Series(string, string, string) Series { return m }
func (m *testMetrics) Drop(string, string, string)          {}
func (m *testMetrics) Add(name Metric, v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sums[name] += v
	m.counts[name]++
}

func (m *testMetrics) sum(name Metric) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sums[name]
}

// testEvents keeps events.
type testEvents struct {
	mu     sync.Mutex
	events []string
}

func (l *testEvents) Log(_ context.Context, account, region, group, stream string, at time.Time, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, group+"/"+stream+" "+string(text))
}

func (l *testEvents) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// define is a delivery stream of direct puts to p.
func define(p *peer) *Definition {
	return &Definition{
		ID: "d1", ARN: "arn:aws:firehose:us-east-1:000000000000:deliverystream/d", Name: "d", Account: "000000000000", Region: "us-east-1",
		Version: 1, Main: p, Kind: KindS3, Hints: record.Hints{Bytes: 1 << 20, Interval: time.Minute},
		Log: &LogTarget{"group", "DestinationDelivery"},
	}
}

func template(t *testing.T, text string) *naming.Template {
	t.Helper()
	p, err := naming.ParsePrefix(text, naming.Options{Partitioning: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// same compares two multisets and describes the difference.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	count := map[string]int{}
	for _, s := range want {
		count[s]++
	}
	for _, s := range got {
		count[s]--
	}
	var missing, surplus []string
	for _, s := range slices.Sorted(maps.Keys(count)) {
		switch n := count[s]; {
		case n > 0:
			missing = append(missing, s)
		case n < 0:
			surplus = append(surplus, s)
		}
	}
	if len(missing)+len(surplus) > 0 {
		t.Errorf("%s: %d of %d missing %.300q, %d too often %.300q", what, len(missing), len(want), missing, len(surplus), surplus)
	}
}

// invoker is a function: it gets records and answers by result.
type invoker struct {
	result func(data string) (result, data2 string, keys map[string]string)
	fault  func() error
}

var errBroken = errors.New("broken")

func (f *invoker) answer(payload []byte) ([]byte, error) {
	var in struct {
		Records []struct {
			RecordID string `json:"recordId"`
			Data     []byte `json:"data"`
		} `json:"records"`
	}
	if err := json.NewDecoder(bytes.NewReader(payload)).Decode(&in); err != nil {
		return nil, err
	}
	var out strings.Builder
	out.WriteString(`{"records":[`)
	for i, r := range in.Records {
		if i > 0 {
			out.WriteByte(',')
		}
		result, data, keys := f.result(string(r.Data))
		fmt.Fprintf(&out, `{"recordId":%q,"result":%q,"data":%q`, r.RecordID, result, base64.StdEncoding.EncodeToString([]byte(data)))
		if keys != nil {
			text, err := json.Marshal(keys)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&out, `,"metadata":{"partitionKeys":%s}`, text)
		}
		out.WriteByte('}')
	}
	out.WriteString(`]}`)
	return []byte(out.String()), nil
}
