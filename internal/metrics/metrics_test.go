package metrics

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/streams"
	"github.com/millrace/millrace/internal/wire"
)

func scrape(r *Registry) string {
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestSeriesAreBounded(t *testing.T) {
	r := New(Options{Streams: 10, Shards: 20})
	label := func(i int) streams.Labels {
		return streams.Labels{Account: "a", Region: "r", Stream: fmt.Sprint("s", i)}
	}
	for i := range 1000 {
		r.Streams.Series(label(i)).Add(streams.IncomingBytes, 3)
		shard := label(i)
		shard.Shard = "shardId-0"
		r.Streams.Series(shard).Add(streams.IncomingBytes, 3)
	}
	text := scrape(r)
	if n := strings.Count(text, "\nmillrace_stream_incoming_bytes_total{"); n != 10+20+1 {
		t.Errorf("%d series", n)
	}
	if !strings.Contains(text, `stream="other"} 2970`) {
		t.Error("the rest is not counted under other")
	}
	// What is dropped makes room, and its labels go with it.
	r.Streams.Drop(label(0))
	r.Streams.Series(label(1000)).Add(streams.IncomingBytes, 1)
	text = scrape(r)
	if strings.Contains(text, `stream="s0"`) || !strings.Contains(text, `stream="s1000"`) {
		t.Error("dropping a stream makes no room")
	}
}

func TestEveryMetricHasItsForm(t *testing.T) {
	r := New(Options{Streams: 1, Shards: 1})
	s := r.Streams.Series(streams.Labels{Stream: "s"})
	for m := range streams.MetricCount {
		s.Add(m, 1500)
		s.Add(m, 500)
	}
	text := scrape(r)
	for _, want := range []string{
		`millrace_stream_incoming_bytes_total{.*} 2000`,
		`millrace_stream_get_records_latency_seconds_sum{.*} 2\n`,
		`millrace_stream_get_records_latency_seconds_count{.*} 2\n`,
		`millrace_stream_get_records_iterator_age_seconds{.*} 1.5\n`,
		`millrace_stream_put_records_success_calls_total{.*} 2\n`,
		`millrace_stream_subscribe_to_shard_event_behind_latest_seconds{.*} 1.5\n`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s", want)
		}
	}
	names := regexp.MustCompile(`(?m)^# TYPE (millrace_stream_\S+)`).FindAllStringSubmatch(text, -1)
	if len(names) < int(streams.MetricCount) {
		t.Errorf("%d names for %d metrics", len(names), streams.MetricCount)
	}
}

func TestAddingASampleAllocatesNothing(t *testing.T) {
	s := New(Options{Streams: 1}).Streams.Series(streams.Labels{Stream: "s"})
	if n := testing.AllocsPerRun(100, func() { s.Add(streams.IncomingRecords, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	s := New(Options{Streams: 1}).Streams.Series(streams.Labels{Stream: "s"})
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			s.Add(streams.IncomingRecords, 1)
		}
	})
}

func TestCountingARequestAllocatesNothing(t *testing.T) {
	r := New(Options{Streams: 1})
	o := &wire.Outcome{Call: &api.Call{}, Encoding: "json", Major: 1}
	if n := testing.AllocsPerRun(100, func() { r.Request(o) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	r := New(Options{Streams: 1})
	o := &wire.Outcome{Call: &api.Call{}, Encoding: "json", Major: 1, BytesIn: 1500, BytesOut: 110, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		r.Request(o)
	}
}
