// Package metrics is what millrace measures about itself: one registry in
// Prometheus' form, and traces by OpenTelemetry's standard variables.
//
// The one idea: whoever does the work declares what it reports in an interface
// of its own package, and this package implements all of them. What has
// unbounded many values as a label (streams, shards, consumers) has a bound on
// how many get series of their own; the rest are counted together under the
// name other, so that no client can make the server remember without end.
//
// Start reading at Registry; streams.go has the series of streams and shards,
// firehose.go those of delivery streams.
package metrics

import (
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/internal/quota"
	"github.com/millrace/millrace/internal/wire"
)

// Options bound the number of series.
type Options struct {
	Streams int // streams with series of their own, and likewise delivery streams
	Shards  int // shards, and likewise consumers, over all streams
	Version string
	Now     func() time.Time // time.Now if nil
}

// Registry holds everything that is measured. Its methods may be called
// concurrently.
type Registry struct {
	prometheus *prometheus.Registry
	Streams    *Streams
	Deliveries *Deliveries
	Analytics  *Applications
	catalog    []About

	requests, bytesIn, bytesOut *prometheus.CounterVec
	seconds                     *prometheus.HistogramVec
	resolved                    atomic.Pointer[map[requestKey]*requestSeries]
	resolving                   sync.Mutex // whoever replaces resolved
	connections                 prometheus.Gauge
	accepted, turnedAway        prometheus.Counter
	linesLost                   *prometheus.CounterVec

	syncSeconds                  prometheus.Histogram
	syncBytes, syncAppends       prometheus.Counter
	writeFailures                prometheus.Counter
	sealSeconds                  prometheus.Histogram
	sealedBytes                  prometheus.Counter
	diskFull, readOnly           prometheus.Gauge
	appendSeconds                prometheus.Histogram
	appendBatches, appendRecords prometheus.Counter
	appendBytes, appendFailures  prometheus.Counter
	waitSeconds                  prometheus.Histogram
	waitsAbandoned               prometheus.Counter
}

const namespace = "millrace"

// latencies suit operations between a tenth of a millisecond and a minute.
var latencies = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}

// New makes a registry with everything in it at zero.
func New(o Options) *Registry {
	if o.Now == nil {
		o.Now = time.Now
	}
	p := prometheus.NewRegistry()
	r := &Registry{prometheus: p, Streams: newStreams(o.Streams, o.Shards, o.Now), Deliveries: newDeliveries(o.Streams, o.Now), Analytics: newApplications(o.Streams, o.Now)}
	r.resolved.Store(&map[requestKey]*requestSeries{})
	add := func(c prometheus.Collector) { p.MustRegister(c) }
	note := func(subsystem, name, kind, help string, labels ...string) {
		r.catalog = append(r.catalog, About{prometheus.BuildFQName(namespace, subsystem, name), kind, help, labels})
	}
	counter := func(subsystem, name, help string) prometheus.Counter {
		note(subsystem, name, "counter", help)
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
		add(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		note("", name, "counter", help, labels...)
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		add(c)
		return c
	}
	gauge := func(subsystem, name, help string) prometheus.Gauge {
		note(subsystem, name, "gauge", help)
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
		add(g)
		return g
	}
	histogram := func(subsystem, name, help string) prometheus.Histogram {
		note(subsystem, name, "histogram", help)
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: latencies})
		add(h)
		return h
	}

	r.requests = counters("requests_total", "Requests by operation and error code; code is empty for good replies.", "operation", "code", "encoding", "http")
	r.bytesIn = counters("request_bytes_total", "Bytes of request bodies.", "operation")
	r.bytesOut = counters("reply_bytes_total", "Bytes of reply bodies.", "operation")
	const secondsHelp = "Time from a request's headers to the end of its reply. Event streams are not counted."
	note("", "request_seconds", "histogram", secondsHelp, "operation")
	r.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "request_seconds",
		Help: secondsHelp, Buckets: latencies}, []string{"operation"})
	add(r.seconds)
	r.connections = gauge("", "connections", "Open connections on the API ports.")
	r.accepted = counter("", "connections_accepted_total", "Connections opened.")
	r.turnedAway = counter("", "connections_refused_total", "Connections closed at once because there were too many.")

	r.linesLost = counters("log_lines_lost_total", "Lines of the access log and the audit log that could not be written.", "file")

	r.syncSeconds = histogram("log", "sync_seconds", "Time of one durable write to the log.")
	r.syncBytes = counter("log", "sync_bytes_total", "Bytes written to the log, padding included.")
	r.syncAppends = counter("log", "sync_appends_total", "Appends that durable writes carried.")
	r.writeFailures = counter("log", "write_failures_total", "Failed writes to the log.")
	r.sealSeconds = histogram("log", "seal_seconds", "Time to turn a log segment into sealed files.")
	r.sealedBytes = counter("log", "sealed_bytes_total", "Bytes of log segments that were sealed.")
	r.diskFull = gauge("log", "disk_full", "1 while appends are refused for lack of space.")
	r.readOnly = gauge("log", "read_only", "1 after a write failed in a way that ended writing.")
	r.appendSeconds = histogram("log", "append_seconds", "Time an append took in the engine.")
	r.appendBatches = counter("log", "append_batches_total", "Batches stored.")
	r.appendRecords = counter("log", "append_records_total", "Records stored.")
	r.appendBytes = counter("log", "append_bytes_total", "Payload bytes stored.")
	r.appendFailures = counter("log", "append_failures_total", "Appends that failed as a whole.")
	r.waitSeconds = histogram("log", "admission_seconds", "Time appends waited for memory, if they did.")
	r.waitsAbandoned = counter("log", "admission_abandoned_total", "Appends that gave up waiting for memory.")

	const infoHelp = "1, with the version as a label."
	note("", "build_info", "gauge", infoHelp, "version")
	info := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: infoHelp, ConstLabels: prometheus.Labels{"version": o.Version}})
	info.Set(1)
	add(info)
	add(collectors.NewGoCollector())
	add(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	add(r.Streams)
	add(r.Deliveries)
	add(r.Analytics)
	return r
}

// Handler serves the registry.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.prometheus, promhttp.HandlerOpts{Registry: r.prometheus, MaxRequestsInFlight: 4})
}

// Limiter adds the counts of the limits.
func (r *Registry) Limiter(l *quota.Limiter) {
	r.prometheus.MustRegister(&limits{l})
	r.catalog = append(r.catalog, within, exceeded)
}

type limits struct{ limiter *quota.Limiter }

var (
	within       = About{namespace + "_limit_within_total", "counter", "What was asked for within the API's limits, by kind.", []string{"kind"}}
	exceeded     = About{namespace + "_limit_exceeded_total", "counter", "What was asked for beyond the API's limits, by kind; refused if they are enforced.", []string{"kind"}}
	withinDesc   = within.desc()
	exceededDesc = exceeded.desc()
)

func (l *limits) Describe(ch chan<- *prometheus.Desc) { ch <- withinDesc; ch <- exceededDesc }

func (l *limits) Collect(ch chan<- prometheus.Metric) {
	for kind, n := range l.limiter.Counts() {
		ch <- prometheus.MustNewConstMetric(withinDesc, prometheus.CounterValue, float64(n.Allowed), kind.String())
		ch <- prometheus.MustNewConstMetric(exceededDesc, prometheus.CounterValue, float64(n.Exceeded), kind.String())
	}
}

// Request counts a request. Operation names and codes come from tables, not
// from clients, so their number is bounded.
func (r *Registry) Request(o *wire.Outcome) {
	key := requestKey{operation: "other", code: o.Code, encoding: o.Encoding, major: o.Major}
	streaming := false
	if op := o.Call.Operation; op != nil {
		key.operation, streaming = op.Name, op.Streaming
	}
	m := (*r.resolved.Load())[key]
	if m == nil {
		m = r.resolve(key, !streaming)
	}
	m.requests.Inc()
	m.bytesIn.Add(float64(o.BytesIn))
	m.bytesOut.Add(float64(o.BytesOut))
	if m.seconds != nil {
		m.seconds.Observe(o.Duration.Seconds())
	}
}

// resolve looks the series of a kind of request up, for all that come after it.
func (r *Registry) resolve(key requestKey, timed bool) *requestSeries {
	m := &requestSeries{
		requests: r.requests.WithLabelValues(key.operation, key.code, key.encoding, strconv.Itoa(key.major)),
		bytesIn:  r.bytesIn.WithLabelValues(key.operation),
		bytesOut: r.bytesOut.WithLabelValues(key.operation),
	}
	if timed {
		m.seconds = r.seconds.WithLabelValues(key.operation)
	}
	r.resolving.Lock()
	defer r.resolving.Unlock()
	all := maps.Clone(*r.resolved.Load())
	all[key] = m
	r.resolved.Store(&all)
	return m
}

// requestKey is what requests are told apart by.
type requestKey struct {
	operation, code, encoding string
	major                     int
}

// requestSeries are the series of requests of one kind, looked up once.
type requestSeries struct {
	requests, bytesIn, bytesOut prometheus.Counter
	seconds                     prometheus.Observer // nil if not counted
}

// Connection is wire.ServerOptions.OnConnection.
func (r *Registry) Connection(delta int) {
	switch delta {
	case 0:
		r.turnedAway.Inc()
	case 1:
		r.accepted.Inc()
		r.connections.Inc()
	default:
		r.connections.Dec()
	}
}

// LineLost counts a line that could not be written to a log file, named by its
// setting.
func (r *Registry) LineLost(file string) { r.linesLost.WithLabelValues(file).Inc() }

// GroupWritten implements the embedded engine's Metrics, with the three after it.
func (r *Registry) GroupWritten(took time.Duration, bytes, appends int) {
	r.syncSeconds.Observe(took.Seconds())
	r.syncBytes.Add(float64(bytes))
	r.syncAppends.Add(float64(appends))
}

// WriteFailed counts a failed write.
func (r *Registry) WriteFailed(error) { r.writeFailures.Inc() }

// SegmentSealed counts a sealed segment.
func (r *Registry) SegmentSealed(took time.Duration, bytes int64) {
	r.sealSeconds.Observe(took.Seconds())
	r.sealedBytes.Add(float64(bytes))
}

// StateChanged shows whether appends are refused.
func (r *Registry) StateChanged(full, readOnly bool) {
	set := func(g prometheus.Gauge, on bool) {
		g.Set(0)
		if on {
			g.Set(1)
		}
	}
	set(r.diskFull, full)
	set(r.readOnly, readOnly)
}

// AppendDone implements the shard log's Metrics, with AppendWaited.
func (r *Registry) AppendDone(batches, records int, bytes int64, took time.Duration, err error) {
	r.appendSeconds.Observe(took.Seconds())
	r.appendBatches.Add(float64(batches))
	r.appendRecords.Add(float64(records))
	r.appendBytes.Add(float64(bytes))
	if err != nil {
		r.appendFailures.Inc()
	}
}

// AppendWaited counts a wait for admission.
func (r *Registry) AppendWaited(took time.Duration, err error) {
	r.waitSeconds.Observe(took.Seconds())
	if err != nil {
		r.waitsAbandoned.Inc()
	}
}
