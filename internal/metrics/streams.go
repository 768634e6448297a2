package metrics

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/streams"
)

// Streams implements streams.Metrics: it keeps a few numbers for each series and
// turns them into Prometheus' form only when somebody asks.
type Streams struct {
	maxStreams, maxParts int
	now                  func() time.Time

	mu      sync.RWMutex
	series  map[streams.Labels]*series
	streams map[streams.Labels]struct{} // all there are, with series or without
	count   int                         // streams among series
	other   *series
}

func newStreams(maxStreams, maxParts int, now func() time.Time) *Streams {
	s := &Streams{maxStreams: maxStreams, maxParts: maxParts, now: now, series: map[streams.Labels]*series{}, streams: map[streams.Labels]struct{}{}}
	s.other = &series{now: now}
	return s
}

// series are the numbers of one stream, shard or consumer.
type series struct {
	samples [streams.MetricCount]sample
	ages    [2]peak // of the metrics whose shape is highest
	now     func() time.Time
}

type sample struct {
	count atomic.Uint64
	sum   atomic.Uint64 // bits of a float64
}

// peak is the highest sample of this minute and of the last: one shard that falls
// behind shows among many that do not.
type peak struct {
	mu      sync.Mutex
	minute  int64   // of highest
	highest float64 // noSample without any
	before  float64 // likewise, of the minute before
}

const noSample = -1

// turnLocked moves on to the minute of now.
func (p *peak) turnLocked(now time.Time) {
	minute := now.Unix() / 60
	switch {
	case minute == p.minute:
		return
	case minute == p.minute+1:
		p.before = p.highest
	default:
		p.before = noSample
	}
	p.minute, p.highest = minute, noSample
}

func (p *peak) add(now time.Time, value float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turnLocked(now)
	p.highest = max(p.highest, value)
}

// value is noSample if there was none in this minute or the last.
func (p *peak) value(now time.Time) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turnLocked(now)
	return max(p.highest, p.before)
}

// age is the place of a metric in series.ages.
func age(m streams.Metric) int {
	if m == streams.GetRecordsIteratorAge {
		return 0
	}
	return 1
}

// Add implements streams.Series.
func (s *series) Add(m streams.Metric, value float64) {
	p := &s.samples[m]
	p.count.Add(1)
	if descriptions[m].shape == highest {
		s.ages[age(m)].add(s.now(), value)
		return
	}
	for value != 0 {
		old := p.sum.Load()
		if p.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+value)) {
			return
		}
	}
}

// Series implements streams.Metrics.
func (s *Streams) Series(l streams.Labels) streams.Series {
	s.mu.RLock()
	have := s.series[l]
	s.mu.RUnlock()
	if have != nil {
		return have
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.series[l]; have != nil {
		return have
	}
	if l.Shard != "" || l.Consumer != "" {
		// Their stream counts the samples of shards too, so only detail is lost.
		if _, ok := s.streams[streamLabels(l)]; !ok || len(s.series)-s.count >= s.maxParts {
			return discard{}
		}
	} else {
		s.streams[l] = struct{}{}
		if s.count >= s.maxStreams {
			return s.other
		}
		s.count++
	}
	n := &series{now: s.now}
	s.series[l] = n
	return n
}

func streamLabels(l streams.Labels) streams.Labels {
	l.Shard, l.Consumer = "", ""
	return l
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
	delete(s.streams, l)
	for have := range s.series {
		if streamLabels(have) != l {
			continue
		}
		if have == l {
			s.count--
		}
		delete(s.series, have)
	}
}

// shape is how a metric looks in Prometheus' form.
type shape uint8

const (
	total   shape = iota // a counter: the sum of the samples
	times                // a summary: count and sum, in seconds
	highest              // a gauge: the highest of late, in seconds
	success              // two counters: calls, and those that succeeded
)

var labels = []string{"account", "region", "stream", "shard", "consumer"}

type described struct {
	shape shape
	about [2]About
	desc  [2]*prometheus.Desc
}

var descriptions = func() (all [streams.MetricCount]described) {
	for m := range streams.MetricCount {
		d := &all[m]
		name := namespace + "_stream_" + snake(m.String())
		help := m.String() + " of CloudWatch"
		describe := func(i int, suffix, kind, more string) {
			d.about[i] = About{name + suffix, kind, help + more, labels}
			d.desc[i] = d.about[i].desc()
		}
		switch {
		case strings.HasSuffix(m.String(), "Success"):
			d.shape = success
			describe(0, "_calls_total", "counter", ": calls.")
			describe(1, "_total", "counter", ": calls that succeeded.")
		case m == streams.GetRecordsIteratorAge || m == streams.SubscribeToShardEventMillisBehindLatest:
			d.shape = highest
			name = strings.NewReplacer("_milliseconds", "", "millis_", "").Replace(name)
			describe(0, "_seconds", "gauge", ": the highest of this minute and the last, in seconds; absent if nothing was read.")
		case m.Unit() == streams.UnitMilliseconds:
			d.shape = times
			describe(0, "_seconds", "summary", ", in seconds.")
		default:
			describe(0, "_total", "counter", ".")
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
	all[streams.Labels{Stream: "other"}] = s.other
	now := s.now()
	for l, have := range all {
		values := []string{l.Account, l.Region, l.Stream, l.Shard, l.Consumer}
		for m := range streams.MetricCount {
			p, d := &have.samples[m], &descriptions[m]
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
			case highest:
				if v := have.ages[age(m)].value(now); v != noSample {
					ch <- prometheus.MustNewConstMetric(d.desc[0], prometheus.GaugeValue, v/1000, values...)
				}
			case success:
				ch <- prometheus.MustNewConstMetric(d.desc[0], prometheus.CounterValue, float64(count), values...)
				ch <- prometheus.MustNewConstMetric(d.desc[1], prometheus.CounterValue, sum, values...)
			}
		}
	}
}
