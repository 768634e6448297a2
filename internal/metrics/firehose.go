package metrics

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/firehose/delivery"
)

// Deliveries implements delivery.Metrics: a few numbers for each delivery stream,
// put into Prometheus' form when somebody asks.
type Deliveries struct {
	maxStreams int
	now        func() time.Time

	mu     sync.RWMutex
	series map[deliveryLabels]*deliverySeries
	other  *deliverySeries
}

type deliveryLabels struct{ account, region, stream string }

func newDeliveries(maxStreams int, now func() time.Time) *Deliveries {
	return &Deliveries{maxStreams: maxStreams, now: now, series: map[deliveryLabels]*deliverySeries{}, other: newDeliverySeries(now)}
}

// deliverySeries are the numbers of one delivery stream, in the order of
// deliveryMetrics.
type deliverySeries struct {
	samples []sample
	peaks   []peak // of the metrics whose shape is highest
	now     func() time.Time
}

func newDeliverySeries(now func() time.Time) *deliverySeries {
	s := &deliverySeries{samples: make([]sample, len(deliveryMetrics)), peaks: make([]peak, deliveryPeaks), now: now}
	for i := range s.peaks {
		s.peaks[i].highest, s.peaks[i].before = noSample, noSample
	}
	return s
}

// Add implements delivery.Series. Names that are in no table are not counted: the
// number of series must not depend on them.
func (s *deliverySeries) Add(m delivery.Metric, value float64) {
	i, ok := deliveryIndex[m]
	if !ok {
		return
	}
	p, d := &s.samples[i], &deliveryMetrics[i]
	p.count.Add(1)
	switch d.shape {
	case highest:
		s.peaks[d.peak].add(s.now(), value)
		return
	case latest:
		p.sum.Store(math.Float64bits(value))
		return
	}
	addFloat(&p.sum, value)
}

func addFloat(sum *atomic.Uint64, value float64) {
	for value != 0 {
		old := sum.Load()
		if sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+value)) {
			return
		}
	}
}

// Series implements delivery.Metrics.
func (d *Deliveries) Series(account, region, name string) delivery.Series {
	l := deliveryLabels{account, region, name}
	d.mu.Lock()
	defer d.mu.Unlock()
	if have := d.series[l]; have != nil {
		return have
	}
	if len(d.series) >= d.maxStreams {
		return d.other
	}
	s := newDeliverySeries(d.now)
	d.series[l] = s
	return s
}

// Drop implements delivery.Metrics.
func (d *Deliveries) Drop(account, region, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.series, deliveryLabels{account, region, name})
}

// latest is one more shape: a gauge with the newest sample.
const latest shape = success + 1

var deliveryLabelNames = []string{"account", "region", "stream"}

// deliveryMetric is a metric of the namespace AWS/Firehose.
type deliveryMetric struct {
	name  delivery.Metric
	shape shape
	peak  int     // in deliverySeries.peaks
	scale float64 // of a sample in Prometheus' unit
	about [2]About
	desc  [2]*prometheus.Desc
}

var (
	deliveryIndex   = map[delivery.Metric]int{}
	deliveryPeaks   int
	deliveryMetrics = func() (all []deliveryMetric) {
		add := func(s shape, names ...delivery.Metric) {
			for _, name := range names {
				d := deliveryMetric{name: name, shape: s, scale: 1}
				text := string(name)
				base := namespace + "_firehose_" + strings.ReplaceAll(snake(strings.ReplaceAll(strings.NewReplacer("KMSKey", "KmsKey", "JQ", "Jq").Replace(text), "DeliveryToS3", "DeliveryToS3.")), "__", "_")
				if name == delivery.PartitionCount {
					base = namespace + "_firehose_partitions" // _count is for histograms
				}
				help := text + " of CloudWatch"
				if name == delivery.RecordsExpired {
					help = "Records that their source no longer had when their turn came"
				}
				describe := func(i int, suffix, kind, more string) {
					d.about[i] = About{base + suffix, kind, help + more, deliveryLabelNames}
					d.desc[i] = d.about[i].desc()
				}
				switch s {
				case total:
					describe(0, "_total", "counter", ".")
				case latest:
					describe(0, "", "gauge", ": the newest value.")
				case times:
					d.scale = 1.0 / 1000
					describe(0, "_seconds", "summary", ", in seconds.")
				case success:
					describe(0, "_attempts_total", "counter", ": attempts.")
					describe(1, "_total", "counter", ": attempts that succeeded.")
				case highest:
					if name == delivery.KinesisMillisBehindLatest {
						d.scale, base = 1.0/1000, strings.Replace(base, "millis_", "", 1)
					}
					d.peak = deliveryPeaks
					deliveryPeaks++
					describe(0, "_seconds", "gauge", ": the highest of this minute and the last, in seconds; absent if nothing was delivered.")
				}
				deliveryIndex[name] = len(all)
				all = append(all, d)
			}
		}
		add(total, delivery.IncomingBytes, delivery.IncomingRecords, delivery.IncomingPutRequests, delivery.ThrottledRecords,
			delivery.DataReadFromKinesisStreamBytes, delivery.DataReadFromKinesisStreamRecords,
			delivery.DataReadFromSourceBytes, delivery.DataReadFromSourceRecords, delivery.DataReadFromSourceBackpressured,
			delivery.FailedValidationRecords, delivery.FailedValidationBytes, delivery.BackupToS3Bytes, delivery.BackupToS3Records,
			delivery.SucceedProcessingRecords, delivery.SucceedProcessingBytes,
			delivery.OutputDecompressedBytesSuccess, delivery.OutputDecompressedBytesFailed,
			delivery.OutputDecompressedRecordsSuccess, delivery.OutputDecompressedRecordsFailed,
			delivery.SucceedConversionRecords, delivery.SucceedConversionBytes, delivery.FailedConversionRecords, delivery.FailedConversionBytes,
			delivery.KMSKeyAccessDenied, delivery.KMSKeyDisabled, delivery.KMSKeyInvalidState, delivery.KMSKeyNotFound, delivery.RecordsExpired,
			"PutRecord.Bytes", "PutRecord.Requests", "PutRecordBatch.Bytes", "PutRecordBatch.Records", "PutRecordBatch.Requests",
			"DescribeDeliveryStream.Requests", "ListDeliveryStreams.Requests", "UpdateDeliveryStream.Requests")
		add(latest, delivery.BytesPerSecondLimit, delivery.RecordsPerSecondLimit, delivery.PutRequestsPerSecondLimit, delivery.KafkaOffsetLag,
			delivery.PartitionCount, delivery.PartitionCountExceeded, delivery.PerPartitionThroughput)
		add(times, delivery.ExecuteProcessingDuration, delivery.JQProcessingDuration, "PutRecord.Latency", "PutRecordBatch.Latency",
			"DescribeDeliveryStream.Latency", "ListDeliveryStreams.Latency", "UpdateDeliveryStream.Latency")
		add(success, delivery.BackupToS3Success, delivery.ExecuteProcessingSuccess)
		add(highest, delivery.KinesisMillisBehindLatest, delivery.BackupToS3DataFreshness)
		for _, k := range []delivery.Kind{
			delivery.KindS3, delivery.KindRedshift, delivery.KindOpenSearch, delivery.KindElasticsearch, delivery.KindOpenSearchServerless,
			delivery.KindSplunk, delivery.KindHTTPEndpoint, delivery.KindSnowflake, delivery.KindIceberg, delivery.KindOther,
		} {
			name := func(suffix string) delivery.Metric { return delivery.Metric("DeliveryTo" + string(k) + suffix) }
			add(total, name(".Bytes"))
			switch k {
			case delivery.KindIceberg:
				add(total, name(".IncomingRowCount"), name(".SuccessfulRowCount"), name(".FailedRowCount"), name(".Records"))
			default:
				add(total, name(".Records"))
			}
			switch k {
			case delivery.KindS3, delivery.KindOther:
				add(total, name(".ObjectCount"))
			case delivery.KindHTTPEndpoint:
				add(total, name(".ProcessedBytes"), name(".ProcessedRecords"))
			case delivery.KindSplunk:
				add(highest, name(".DataAckLatency"))
			case delivery.KindSnowflake:
				add(highest, name(".DataCommitLatency"))
			}
			add(success, name(".Success"))
			add(highest, name(".DataFreshness"))
		}
		return all
	}()
)

// Describe implements prometheus.Collector.
func (d *Deliveries) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range deliveryMetrics {
		for _, desc := range m.desc {
			if desc != nil {
				ch <- desc
			}
		}
	}
}

// Collect implements prometheus.Collector. Samples that never came are left out.
func (d *Deliveries) Collect(ch chan<- prometheus.Metric) {
	d.mu.RLock()
	all := make(map[deliveryLabels]*deliverySeries, len(d.series)+1)
	for l, s := range d.series {
		all[l] = s
	}
	d.mu.RUnlock()
	all[deliveryLabels{stream: "other"}] = d.other
	now := d.now()
	for l, s := range all {
		values := []string{l.account, l.region, l.stream}
		for i := range deliveryMetrics {
			m, p := &deliveryMetrics[i], &s.samples[i]
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
}
