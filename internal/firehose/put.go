package firehose

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// maxPutBytes bounds the data of one PutRecordBatch.
const maxPutBytes = 4 << 20

// Metrics of calls, beside those of package delivery. Times are milliseconds.
const (
	putRecordBytes        delivery.Metric = "PutRecord.Bytes"
	putRecordLatency      delivery.Metric = "PutRecord.Latency"
	putRecordRequests     delivery.Metric = "PutRecord.Requests"
	putRecordBatchBytes   delivery.Metric = "PutRecordBatch.Bytes"
	putRecordBatchLatency delivery.Metric = "PutRecordBatch.Latency"
	putRecordBatchRecords delivery.Metric = "PutRecordBatch.Records"
	putRecordBatchCalls   delivery.Metric = "PutRecordBatch.Requests"
	describeLatency       delivery.Metric = "DescribeDeliveryStream.Latency"
	describeRequests      delivery.Metric = "DescribeDeliveryStream.Requests"
	updateLatency         delivery.Metric = "UpdateDeliveryStream.Latency"
	updateRequests        delivery.Metric = "UpdateDeliveryStream.Requests"
)

// put is the memory of one call, used again. Records alias the request, which
// outlives the call.
type put struct {
	data      [][]byte
	responses []firehose.PutRecordBatchResponseEntry
	failed    int32
	output    firehose.PutRecordBatchOutput
	done      func()
}

var puts sync.Pool

func newPut() *put {
	if p, ok := puts.Get().(*put); ok {
		return p
	}
	p := new(put)
	p.done = p.release
	return p
}

func (p *put) release() {
	clear(p.data)
	clear(p.responses)
	p.data, p.responses, p.failed = p.data[:0], p.responses[:0], 0
	p.output = firehose.PutRecordBatchOutput{}
	puts.Put(p)
}

// The words of a reply; shared, never changed.
var (
	codeThrottled = "ServiceUnavailableException"
	textThrottled = slowDown
	isEncrypted   = true
	notEncrypted  = false
)

// writable finds the delivery stream of a put, and checks that records may be
// put to it, by this caller.
func (s *Service) writable(call *api.Call, name *string) (*stream, error) {
	st, err := s.resolve(call, name)
	if err != nil {
		return nil, err
	}
	if st.record.Status != firehose.DeliveryStreamStatusActive {
		// What is being deleted would take records only to lose them.
		return nil, notFound(st.account, st.name)
	}
	if st.record.Type != firehose.DeliveryStreamTypeDirectPut {
		return nil, invalidArgument("This operation is not permitted on %s delivery stream type.", st.record.Type)
	}
	if st.onlyLogs && !s.isLogs(call) {
		return nil, &firehose.InvalidSourceException{Code: api.Ptr("InvalidSource"),
			Message: "The request does not originate from an allowed source type: only CloudWatch Logs may put to delivery stream " + st.name + ", which decompresses its records."}
	}
	return st, nil
}

// isLogs reports whether a caller counts as CloudWatch Logs.
func (s *Service) isLogs(call *api.Call) bool {
	if len(s.options.LogsPrincipals) == 0 {
		return true
	}
	for _, p := range s.options.LogsPrincipals {
		begin, open := strings.CutSuffix(p, "*")
		if call.Principal.ARN == p || open && strings.HasPrefix(call.Principal.ARN, begin) || call.Principal.SessionIssuer == p {
			return true
		}
	}
	return false
}

// admit asks the quota how many of the records may go in. None is the refusal
// of the call.
func (s *Service) admit(st *stream, records [][]byte) (int, error) {
	if s.options.Quota == nil {
		return len(records), nil
	}
	n := s.options.Quota.Delivery(st.quota, records)
	if n < len(records) {
		st.series.Add(delivery.ThrottledRecords, float64(len(records)-n))
	}
	if n == 0 {
		return 0, unavailable(slowDown)
	}
	return n, nil
}

// store hands records to the engine and gives their ids.
func (s *Service) store(ctx context.Context, st *stream, records [][]byte) ([]string, error) {
	ids, _, err := s.engine.Put(ctx, st.record.ID, records)
	if errors.Is(err, delivery.ErrNotFound) {
		// It became ACTIVE a moment ago, and the engine is about to learn of it.
		if err = s.reconcile(ctx, st.record.ID); err == nil {
			ids, _, err = s.engine.Put(ctx, st.record.ID, records)
		}
	}
	if err != nil {
		return nil, putError(st, err)
	}
	return ids, nil
}

// putError turns a failure of the engine into the caller's error.
func putError(st *stream, err error) error {
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return notFound(st.account, st.name)
	case errors.Is(err, delivery.ErrFull), errors.Is(err, driver.ErrFull):
		return unavailable("The server has no space left for records of this delivery stream. Nothing was stored; try again later.")
	case errors.Is(err, delivery.ErrClosed), errors.Is(err, driver.ErrClosed):
		return unavailable("The server is shutting down.")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable("The request ended before the records could be stored.")
	case errors.Is(err, keyring.ErrDisabled):
		return keyError(st, "DisabledException", err)
	case errors.Is(err, keyring.ErrInvalidState):
		return keyError(st, "KMSInvalidStateException", err)
	case errors.Is(err, keyring.ErrNotFound):
		return keyError(st, "NotFoundException", err)
	}
	return err
}

func keyError(st *stream, code string, err error) error {
	return &firehose.InvalidKMSResourceException{Code: &code, Message: "The KMS key of delivery stream " + st.name + " cannot be used: " + keyReason(err)}
}

func encrypted(st *stream) *bool {
	if st.encrypted {
		return &isEncrypted
	}
	return &notEncrypted
}

func since(start, now time.Time) float64 { return float64(now.Sub(start).Microseconds()) / 1000 }
