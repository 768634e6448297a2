package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/run"
)

// What bounds one call of a function.
const (
	maxEvent       = 6 << 20 // bytes of its event, and of its answer
	answerMargin   = 100
	processEvent   = 4 << 20 // bytes of an event with several records
	processRecords = 10000
)

const preprocessingFailed = "PREPROCESSING_FAILED"

// process has the input's function see records before they are parsed; false if
// ctx ends first. A batch is sent until it is answered.
func (f *filler) process(ctx context.Context, records []Record) bool {
	for len(records) > 0 {
		var batch []app.Record
		names := map[string]bool{}
		size := 0
		for i := range records {
			rec := &records[i]
			sent := f.named(rec, i, names)
			n := eventSize(f.in.spec.Source, sent)
			if len(batch) > 0 && (size+n > processEvent || len(batch) == processRecords) || n > maxEvent-eventHead {
				break
			}
			batch = append(batch, sent)
			size += n
		}
		if len(batch) == 0 {
			if !f.refuseWhole(ctx, &records[0], "the record is larger than what a function can be sent") {
				return false
			}
			records = records[1:]
			continue
		}
		processed, ok := f.invoke(ctx, batch)
		if !ok || !f.processed(ctx, records[:len(batch)], processed) {
			return false
		}
		records = records[len(batch):]
	}
	return true
}

// named is a record as the function sees it, with an id that no other of the batch
// has.
func (f *filler) named(rec *Record, i int, taken map[string]bool) app.Record {
	sent := app.Record{Data: rec.Data, Arrival: time.UnixMilli(rec.Arrival)}
	if f.in.spec.Source.Kind == app.DeliveryStream {
		sent.ID = newID()
		return sent
	}
	sent.ShardID, sent.PartitionKey = f.shard.Name, string(rec.Key)
	sent.SequenceNumber = f.source.SequenceNumber(f.shard.Number, rec.Index, rec.Arrival)
	if sent.ID = sent.SequenceNumber; sent.ID == "" || taken[sent.ID] {
		sent.ID = strconv.Itoa(i) + "-" + strconv.FormatUint(rec.Index, 10)
	}
	taken[sent.ID] = true
	return sent
}

const eventHead = 4 << 10 // ids and names that an event has once

// eventSize bounds how many bytes a record adds to an event.
func eventSize(source app.Resource, r app.Record) int {
	return (len(r.Data)+2)/3*4 + 6*(len(r.ID)+len(r.ShardID)+len(r.PartitionKey)+len(r.SequenceNumber)) + 200
}

// invoke calls the function until it answers for all records; false if ctx ends
// first.
func (f *filler) invoke(ctx context.Context, batch []app.Record) ([]app.Processed, bool) {
	r, in := f.r, f.in
	part := "processor " + in.spec.ID + "/" + f.shard.Name
	for attempt := 0; ; attempt++ {
		began := time.Now()
		processed, err := r.invokeProcessor(ctx, in, batch)
		if ctx.Err() != nil {
			return nil, false
		}
		in.series.Add(InputProcessingDuration, float64(time.Since(began).Microseconds())/1000)
		if err == nil {
			in.series.Add(InputProcessingSuccess, 1)
			r.problem(part, "", "", "")
			return processed, true
		}
		in.series.Add(InputProcessingSuccess, 0)
		r.problem(part, in.spec.ID, "InputError", "the function that processes records: "+err.Error())
		if !pause(ctx, attempt) {
			return nil, false
		}
	}
}

func (r *application) invokeProcessor(ctx context.Context, in *input, batch []app.Record) ([]app.Processed, error) {
	event, err := app.ProcessingEvent(newID(), r.a.ARN, in.spec.Source, batch)
	if err != nil {
		return nil, err
	}
	answer, err := r.call(ctx, *in.spec.Processor, event)
	if err != nil {
		return nil, err
	}
	return app.ProcessingAnswer(batch, answer)
}

// call invokes a function within its time.
func (r *application) call(ctx context.Context, function app.Resource, event []byte) ([]byte, error) {
	if r.h.o.Invoke == nil {
		return nil, errors.New("there are no functions")
	}
	within, cancel := context.WithTimeout(ctx, r.h.o.InvokeWithin)
	defer cancel()
	answer, err := r.h.o.Invoke(within, r.a, function, event)
	switch {
	case err != nil && within.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("no answer within %v", r.h.o.InvokeWithin)
	case err != nil:
		return nil, err
	case len(answer) > maxEvent+answerMargin:
		return nil, fmt.Errorf("the answer has %d bytes, more than the %d it may have", len(answer), maxEvent)
	}
	return answer, nil
}

// processed parses what the function made of records; false if ctx ends first.
func (f *filler) processed(ctx context.Context, records []Record, processed []app.Processed) bool {
	parser := f.in.parsers.Get().(*run.Parser)
	defer f.in.parsers.Put(parser)
	var kept, bytes, dropped, failed int
	for i := range records {
		rec := &records[i]
		if !f.open(ctx) {
			return false
		}
		switch p := &processed[i]; p.Result {
		case app.Kept:
			kept++
			bytes += len(p.Data)
			f.read(parser, rec, p.Data)
		case app.Dropped:
			dropped++
		case app.Failed:
			failed++
			f.c.refuse(preprocessingFailed, "the function could not process the record", string(rec.Data))
		}
		if full := f.passed(rec); full && !f.send(ctx) {
			return false
		}
	}
	for m, n := range map[Metric]int{InputProcessingOkRecords: kept, InputProcessingOkBytes: bytes, InputProcessingDroppedRecords: dropped, InputProcessingProcessingFailedRecords: failed} {
		if n > 0 {
			f.in.series.Add(m, float64(n))
		}
	}
	return true
}

// refuseWhole sends a record to the error stream; false if ctx ends first.
func (f *filler) refuseWhole(ctx context.Context, rec *Record, message string) bool {
	if !f.open(ctx) {
		return false
	}
	f.c.refuse(preprocessingFailed, message, string(rec.Data))
	f.in.series.Add(InputProcessingProcessingFailedRecords, 1)
	return !f.passed(rec) || f.send(ctx)
}

// newID makes a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
