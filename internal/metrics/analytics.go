package metrics

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/analytics/host"
)

// Applications implements host.Metrics: a few numbers for each input and output
// of SQL applications, put into Prometheus' form when somebody asks.
type Applications struct {
	maxApplications int
	now             func() time.Time

	mu    sync.RWMutex
	all   map[applicationLabels]map[flowLabels]*applicationSeries
	other *applicationSeries // of applications beyond the bound
}

type applicationLabels struct{ account, region, application string }

type flowLabels struct {
	flow host.Flow
	id   string
}

// maxFlows bounds the inputs and outputs of one application that have series of
// their own. One that has been changed often has had many.
const maxFlows = 16

func newApplications(maxApplications int, now func() time.Time) *Applications {
	return &Applications{maxApplications: maxApplications, now: now, all: map[applicationLabels]map[flowLabels]*applicationSeries{}, other: newApplicationSeries(now)}
}

// Series implements host.Metrics.
func (a *Applications) Series(account, region, application string, flow host.Flow, id string) host.Series {
	l := applicationLabels{account, region, application}
	a.mu.Lock()
	defer a.mu.Unlock()
	flows := a.all[l]
	if flows == nil {
		if len(a.all) >= a.maxApplications {
			return a.other
		}
		flows = map[flowLabels]*applicationSeries{}
		a.all[l] = flows
	}
	f := flowLabels{flow, id}
	if flows[f] == nil && len(flows) >= maxFlows {
		f.id = "other"
	}
	if flows[f] == nil {
		flows[f] = newApplicationSeries(a.now)
	}
	return flows[f]
}

// Drop implements host.Metrics.
func (a *Applications) Drop(account, region, application string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, applicationLabels{account, region, application})
}

// applicationSeries are the numbers of one input, output or application, in the
// order of applicationMetrics.
type applicationSeries struct {
	samples []sample
	peaks   []peak
	now     func() time.Time
}

func newApplicationSeries(now func() time.Time) *applicationSeries {
	s := &applicationSeries{samples: make([]sample, len(applicationMetrics)), peaks: make([]peak, applicationPeaks), now: now}
	for i := range s.peaks {
		s.peaks[i].highest, s.peaks[i].before = noSample, noSample
	}
	return s
}

// Add implements host.Series. Names that are in no table are not counted: the
// number of series must not depend on them.
func (s *applicationSeries) Add(m host.Metric, value float64) {
	i, ok := applicationIndex[m]
	if !ok {
		return
	}
	p, d := &s.samples[i], &applicationMetrics[i]
	p.count.Add(1)
	switch d.shape {
	case highest:
		s.peaks[d.peak].add(s.now(), value)
	case latest:
		p.sum.Store(math.Float64bits(value))
	default:
		addFloat(&p.sum, value)
	}
}

var applicationLabelNames = []string{"account", "region", "application", "flow", "id"}

// applicationMetric is a metric of the namespace AWS/KinesisAnalytics, or one of
// our own.
type applicationMetric struct {
	name  host.Metric
	shape shape
	peak  int     // in applicationSeries.peaks
	scale float64 // of a sample in Prometheus' unit
	about [2]About
	desc  [2]*prometheus.Desc
}

var (
	applicationIndex   = map[host.Metric]int{}
	applicationPeaks   int
	applicationMetrics = func() (all []applicationMetric) {
		add := func(s shape, name host.Metric, own string) {
			m := applicationMetric{name: name, shape: s, scale: 1}
			base, help := snake(string(name)), string(name)+" of CloudWatch"
			if own != "" {
				help = own
			}
			switch name {
			case host.MillisBehindLatest:
				base, m.scale = "behind_latest_seconds", 1.0/1000
			case host.KPUs:
				base = "kpus"
			}
			base = namespace + "_analytics_" + base
			describe := func(i int, suffix, kind, more string) {
				m.about[i] = About{base + suffix, kind, help + more, applicationLabelNames}
				m.desc[i] = m.about[i].desc()
			}
			switch s {
			case total:
				describe(0, "_total", "counter", ".")
			case latest:
				describe(0, "", "gauge", ": the newest value.")
			case times:
				m.scale = 1.0 / 1000
				describe(0, "_seconds", "summary", ", in seconds.")
			case success:
				describe(0, "_attempts_total", "counter", ": attempts.")
				describe(1, "_total", "counter", ": attempts that succeeded.")
			case highest:
				m.peak = applicationPeaks
				applicationPeaks++
				describe(0, "", "gauge", ": the highest of this minute and the last; absent if the application does not run.")
			}
			applicationIndex[name] = len(all)
			all = append(all, m)
		}
		add(total, host.Bytes, "")
		add(total, host.Records, "")
		add(highest, host.MillisBehindLatest, "MillisBehindLatest of CloudWatch, in seconds")
		add(success, host.Success, "")
		add(highest, host.KPUs, "")
		add(total, host.InputProcessingOkRecords, "")
		add(total, host.InputProcessingOkBytes, "")
		add(total, host.InputProcessingDroppedRecords, "")
		add(total, host.InputProcessingProcessingFailedRecords, "")
		add(success, host.InputProcessingSuccess, "")
		add(times, host.InputProcessingDuration, "")
		add(total, host.LambdaDeliveryOkRecords, "")
		add(total, host.LambdaDeliveryDeliveryFailedRecords, "")
		add(times, host.LambdaDeliveryDuration, "")
		add(total, host.Rows, "Rows that an input's records became")
		add(total, host.RefusedRows, "Records and rows of an input that could not be read and went to the error stream")
		add(total, host.LostRecords, "Records that were not in their source any more when they were to be read")
		add(highest, host.StateBytes, "Memory that the state of an application takes, in bytes")
		add(latest, host.CheckpointBytes, "Size of an application's checkpoint")
		add(times, host.CheckpointDuration, "Time to make and store a checkpoint")
		add(success, host.CheckpointSuccess, "Checkpoints")
		return all
	}()
)

// Describe implements prometheus.Collector.
func (a *Applications) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range applicationMetrics {
		for _, desc := range m.desc {
			if desc != nil {
				ch <- desc
			}
		}
	}
}

// Collect implements prometheus.Collector. Samples that never came are left out.
func (a *Applications) Collect(ch chan<- prometheus.Metric) {
	now := a.now()
	collect := func(s *applicationSeries, values ...string) {
		for i := range applicationMetrics {
			m, p := &applicationMetrics[i], &s.samples[i]
			count := p.count.Load()
			if count == 0 {
				continue
			}
			sum := math.Float64frombits(p.sum.Load())
			switch m.shape {
			case total:
				ch <- prometheus.MustNewConstMetric(m.desc[0], prometheus.CounterValue, sum, values...)
			case latest:
				ch <- prometheus.MustNewConstMetric(m.desc[0], prometheus.GaugeValue, sum, values...)
			case times:
				ch <- prometheus.MustNewConstSummary(m.desc[0], count, sum*m.scale, nil, values...)
			case highest:
				if v := s.peaks[m.peak].value(now); v != noSample {
					ch <- prometheus.MustNewConstMetric(m.desc[0], prometheus.GaugeValue, v*m.scale, values...)
				}
			case success:
				ch <- prometheus.MustNewConstMetric(m.desc[0], prometheus.CounterValue, float64(count), values...)
				ch <- prometheus.MustNewConstMetric(m.desc[1], prometheus.CounterValue, sum, values...)
			}
		}
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for l, flows := range a.all {
		for f, s := range flows {
			collect(s, l.account, l.region, l.application, string(f.flow), f.id)
		}
	}
	collect(a.other, "", "", "other", "", "")
}
