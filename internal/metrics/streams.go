package metrics

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/streams"
)

// Streams implements streams.Metrics: it keeps a few numbers for each series and
// turns them into Prometheus' form only when somebody asks.
type Streams struct {
	maxStreams, maxParts int

	mu     sync.RWMutex
	series map[streams.Labels]*series
	count  int // streams among series
	other  series
}

func newStreams(maxStreams, maxParts int) *Streams {
	return &Streams{maxStreams: maxStreams, maxParts: maxParts, series: map[streams.Labels]*series{}}
}

// series are the numbers of one stream, shard or consumer.
type series [streams.MetricCount]sample

type sample struct {
	count atomic.Uint64
	sum   atomic.Uint64 // bits of a float64
	last  atomic.Uint64 // likewise
}

// Add implements streams.Series.
func (s *series) Add(m streams.Metric, value float64) {
	p := &s[m]
	p.count.Add(1)
	p.last.Store(math.Float64bits(value))
	for value != 0 {
		old := p.sum.Load()
		if p.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+value)) {
			return
		}
	}
}

// Series implements streams.Metrics.
func (s *Streams) Series(l streams.Labels) streams.Series {
	part := l.Shard != "" || l.Consumer != ""
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.series[l]; have != nil {
		return have
	}
	if part && len(s.series)-s.count >= s.maxParts {
		// Its stream counts the same samples, so nothing is lost but detail.
		return discard{}
	}
	if !part && s.count >= s.maxStreams {
		return &s.other
	}
	n := new(series)
	s.series[l] = n
	if !part {
		s.count++
	}
	return n
}

type discard struct{}

func (discard) Add(streams.Metric, float64) {}

// Drop implements streams.Metrics.
func (s *Streams) Drop(l streams.Labels) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Shard != "" || l.Consumer != "" {
		delete(s.series, l)
		return
	}
	for have := range s.series {
		if have.Account == l.Account && have.Region == l.Region && have.Stream == l.Stream {
			if have.Shard == "" && have.Consumer == "" {
				s.count--
			}
			delete(s.series, have)
		}
	}
}

// shape is how a metric looks in Prometheus' form.
type shape uint8

const (
	total   shape = iota // a counter: the sum of the samples
	times                // a summary: count and sum, in seconds
	latest               // a gauge: the latest sample, in seconds
	success              // two counters: calls, and those that succeeded
)

var labels = []string{"account", "region", "stream", "shard", "consumer"}

type described struct {
	shape shape
	desc  [2]*prometheus.Desc
}

var descriptions = func() (all [streams.MetricCount]described) {
	for m := range streams.MetricCount {
		d := &all[m]
		name := namespace + "_stream_" + snake(m.String())
		help := m.String() + " of CloudWatch"
		desc := func(suffix, more string) *prometheus.Desc {
			return prometheus.NewDesc(name+suffix, help+more, labels, nil)
		}
		switch {
		case strings.HasSuffix(m.String(), "Success"):
			d.shape = success
			d.desc = [2]*prometheus.Desc{desc("_calls_total", ": calls."), desc("_total", ": calls that succeeded.")}
		case m == streams.GetRecordsIteratorAge || m == streams.SubscribeToShardEventMillisBehindLatest:
			d.shape = latest
			name = strings.NewReplacer("_milliseconds", "", "millis_", "").Replace(name)
			d.desc[0] = desc("_seconds", ": age of what was read last, in seconds.")
		case m.Unit() == streams.UnitMilliseconds:
			d.shape = times
			d.desc[0] = desc("_seconds", ", in seconds.")
		default:
			d.desc[0] = desc("_total", ".")
		}
	}
	return all
}()

// snake turns GetRecords.Bytes into get_records_bytes.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '.':
			continue
		case r >= 'A' && r <= 'Z':
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Describe implements prometheus.Collector.
func (s *Streams) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		for _, desc := range d.desc {
			if desc != nil {
				ch <- desc
			}
		}
	}
}

// Collect implements prometheus.Collector. Samples that never came are left out.
func (s *Streams) Collect(ch chan<- prometheus.Metric) {
	s.mu.RLock()
	all := make(map[streams.Labels]*series, len(s.series)+1)
	for l, have := range s.series {
		all[l] = have
	}
	s.mu.RUnlock()
	all[streams.Labels{Stream: "other"}] = &s.other
	for l, have := range all {
		values := []string{l.Account, l.Region, l.Stream, l.Shard, l.Consumer}
		for m := range have {
			p, d := &have[m], &descriptions[m]
			count := p.count.Load()
			if count == 0 {
				continue
			}
			sum := math.Float64frombits(p.sum.Load())
			switch d.shape {
			case total:
				ch <- prometheus.MustNewConstMetric(d.desc[0], prometheus.CounterValue, sum, values...)
			case times:
				ch <- prometheus.MustNewConstSummary(d.desc[0], count, sum/1000, nil, values...)
			case latest:
				ch <- prometheus.MustNewConstMetric(d.desc[0], prometheus.GaugeValue, math.Float64frombits(p.last.Load())/1000, values...)
			case success:
				ch <- prometheus.MustNewConstMetric(d.desc[0], prometheus.CounterValue, float64(count), values...)
				ch <- prometheus.MustNewConstMetric(d.desc[1], prometheus.CounterValue, sum, values...)
			}
		}
	}
}
