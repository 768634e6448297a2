package delivery

import (
	"encoding/json"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/meta"
)

func deletePlan(stream, batch string) meta.Op {
	return meta.Op{Key: planTable.Key(stream, batch), Delete: true}
}

// Events about one kind of failure are sampled: so many in a row, then one each
// interval.
const (
	eventBurst    = 5
	eventInterval = 30 * time.Second
	maxEventKinds = 64
)

// sampled counts the events of one kind.
type sampled struct {
	n    int
	last time.Time
}

// event is what the error log gets.
type event struct {
	DeliveryStreamARN string `json:"deliveryStreamARN"`
	Destination       string `json:"destination"`
	Version           int    `json:"deliveryStreamVersionId"`
	Message           string `json:"message"`
	ErrorCode         string `json:"errorCode"`
	Processor         string `json:"processor,omitempty"`
}

// problem notes a failure: in the status, in the server's log, and in the error
// log of the delivery stream.
func (s *stream) problem(code, message, processor string, backup bool) {
	s.mu.Lock()
	v := s.version
	s.mu.Unlock()
	s.note(code, message, processor, backup, v, s.sample(code))
}

// problemLocked is problem for whoever holds the lock. The event goes out on its
// own.
func (s *stream) problemLocked(code, message, processor string, backup bool, v *version, _ bool) {
	if s.sampleLocked(code) {
		s.last = &Problem{At: s.engine.now(), Code: code, Message: clip(message, 1024)}
		s.flights.Go(func() { s.emit(code, message, processor, backup, v) })
	}
}

func (s *stream) sample(code string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sampleLocked(code)
}

func (s *stream) sampleLocked(code string) bool {
	now := s.engine.now()
	e := s.events[code]
	if e == nil {
		if len(s.events) >= maxEventKinds {
			clear(s.events)
		}
		e = &sampled{}
		s.events[code] = e
	}
	if now.Sub(e.last) >= eventInterval {
		e.n = 0
	}
	e.n++
	if e.n > eventBurst {
		return false
	}
	e.last = now
	return true
}

func (s *stream) note(code, message, processor string, backup bool, v *version, emit bool) {
	s.mu.Lock()
	s.last = &Problem{At: s.engine.now(), Code: code, Message: clip(message, 1024)}
	s.mu.Unlock()
	if emit {
		s.emit(code, message, processor, backup, v)
	}
}

func (s *stream) emit(code, message, processor string, backup bool, v *version) {
	s.logger.Warn("delivery failed", "code", code, "message", clip(message, 1024), "version", v.Version)
	target := v.Log
	if backup {
		target = v.BackupLog
		if target == nil {
			target = v.Log
		}
	}
	if s.engine.o.ErrorLog == nil || target == nil {
		return
	}
	text, err := json.Marshal(event{
		DeliveryStreamARN: v.ARN, Destination: string(v.Kind), Version: v.Version, Message: message, ErrorCode: code, Processor: processor,
	})
	if err != nil {
		return
	}
	s.engine.o.ErrorLog.Log(s.sending, v.Account, v.Region, target.Group, target.Stream, s.engine.now(), text)
}

// lost notes records that their source no longer had.
func (s *stream) lost(l *lane, n uint64) {
	s.series.Add(RecordsExpired, float64(n))
	s.logger.Error("records expired before they could be delivered", "lane", l.name, "records", n)
	s.problem("DataExpired", "Records were removed from the source at the end of their retention before they could be delivered.", "", false)
}

// expired reports whether the retention of a batch has ended, and notes it.
func (s *stream) expired(b *batch) bool {
	if s.direct == nil || s.engine.now().Sub(time.UnixMilli(b.newest)) < s.engine.o.DirectRetention {
		return false
	}
	s.lost(b.lane, uint64(b.count))
	return true
}

// measure reports what was read and processed.
func (s *stream) measure(l *lane, j *job) {
	add := func(m Metric, v float64) {
		if v != 0 {
			s.series.Add(m, v)
		}
	}
	switch {
	case l.shard != nil:
		add(DataReadFromKinesisStreamRecords, float64(j.read.Records))
		add(DataReadFromKinesisStreamBytes, float64(j.read.Bytes))
		if n := len(j.in); n > 0 {
			behind := 0.0
			if tail, _ := l.source.tail(); l.next < tail {
				behind = float64(max(0, s.engine.now().UnixMilli()-j.in[n-1].Arrival))
			}
			s.series.Add(KinesisMillisBehindLatest, behind)
		}
	case l.kafka != nil:
		add(DataReadFromSourceRecords, float64(j.read.Records))
		add(DataReadFromSourceBytes, float64(j.read.Bytes))
		s.series.Add(KafkaOffsetLag, float64(l.kafka.lag(l.next)))
	}
	st := &j.stats
	if st.Invocations > 0 {
		s.series.Add(ExecuteProcessingDuration, float64(st.InvocationTime.Milliseconds())/float64(st.Invocations))
		for i := range st.Invocations {
			s.series.Add(ExecuteProcessingSuccess, success(i >= st.FailedInvocations))
		}
	}
	add(SucceedProcessingRecords, float64(st.Processed.Records))
	add(SucceedProcessingBytes, float64(st.Processed.Bytes))
	add(OutputDecompressedRecordsSuccess, float64(st.Decompressed.Records))
	add(OutputDecompressedBytesSuccess, float64(st.Decompressed.Bytes))
	add(OutputDecompressedRecordsFailed, float64(st.DecompressionFailed.Records))
	add(OutputDecompressedBytesFailed, float64(st.DecompressionFailed.Bytes))
	if st.QueryTime > 0 {
		s.series.Add(JQProcessingDuration, float64(st.QueryTime.Microseconds())/1000)
	}
}

// measure reports one attempt.
func (f *flight) measure(v *version, b *record.Batch, result dest.Result, err error, now time.Time) {
	series := f.stream.series
	add := func(suffix string, value float64) { series.Add(v.Kind.metric(suffix), value) }
	add(suffixSuccess, success(err == nil))
	if v.Kind == KindHTTPEndpoint {
		add(".ProcessedRecords", float64(b.Count))
		add(".ProcessedBytes", float64(b.Bytes))
	}
	if err != nil {
		return
	}
	good := b.Count - len(result.Failed)
	bytes := float64(b.Bytes)
	if b.Count > 0 && good < b.Count {
		bytes = bytes * float64(good) / float64(b.Count)
	}
	switch v.Kind {
	case KindIceberg:
		add(".IncomingRowCount", float64(b.Count))
		add(".SuccessfulRowCount", float64(good))
		add(".FailedRowCount", float64(len(result.Failed)))
	default:
		add(suffixRecords, float64(good))
	}
	add(suffixBytes, bytes)
	add(suffixFreshness, seconds(now.Sub(time.UnixMilli(b.Oldest))))
	switch v.Kind {
	case KindS3:
		add(suffixObjectCount, float64(len(result.Objects)))
	case KindSplunk:
		add(suffixAckLatency, result.Waited.Seconds())
	case KindSnowflake:
		add(suffixCommitLatency, result.Waited.Seconds())
	}
	converted := 0
	for _, r := range result.Failed {
		if isConversion(r.Code) {
			converted++
		}
	}
	if v.Converts {
		series.Add(SucceedConversionRecords, float64(b.Count-converted))
		series.Add(SucceedConversionBytes, bytes)
		if converted > 0 {
			series.Add(FailedConversionRecords, float64(converted))
			series.Add(FailedConversionBytes, float64(b.Bytes)-bytes)
		}
	}
	if v.Partitioning != nil && b.Bytes > 0 {
		if took := now.Sub(time.UnixMilli(b.Oldest)).Seconds(); took > 0 {
			series.Add(PerPartitionThroughput, bytes/took)
		}
	}
}
