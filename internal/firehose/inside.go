package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
)

// Inside is a delivery stream as other services of the same server use it,
// without calls.
type Inside struct {
	s    *Service
	name streamName
	id   string
}

// OpenInside finds a delivery stream by its ARN, as it is now: what is made anew
// under the same name is another one. ResourceNotFoundException if there is none
// that is ACTIVE.
func (s *Service) OpenInside(arn string) (*Inside, error) {
	n, ok := parseStreamARN(arn)
	if !ok {
		return nil, invalidArgument("%s is not the ARN of a delivery stream.", arn)
	}
	i := &Inside{s: s, name: n}
	st, err := i.stream()
	if err != nil {
		return nil, err
	}
	i.id = st.record.ID
	return i, nil
}

func (i *Inside) stream() (*stream, error) {
	st := i.s.registry.stream(i.name)
	if st == nil || i.id != "" && st.record.ID != i.id || st.record.Status != firehose.DeliveryStreamStatusActive {
		return nil, notFound(i.name.account, i.name.name)
	}
	return st, nil
}

// Source is the ARN of the data stream that a delivery stream reads, empty for
// one that is put to directly. A delivery stream that reads a topic is refused:
// its records are nowhere else.
func (i *Inside) Source() (stream string, err error) {
	st, err := i.stream()
	if err != nil {
		return "", err
	}
	switch {
	case st.record.Source.Kinesis != nil:
		return *st.record.Source.Kinesis.KinesisStreamARN, nil
	case st.record.Source.MSK != nil:
		return "", invalidArgument("Delivery stream %s reads a topic, which cannot be read beside it.", i.name.name)
	}
	return "", nil
}

// ID is what the engine knows the delivery stream by.
func (i *Inside) ID() string { return i.id }

// Put stores up to 500 records of at most 4 MiB, durable at return, as
// PutRecordBatch does, and tells how many of them from the front are within the
// delivery stream's rates; only those are stored. What is too large for a record
// fails the call.
func (i *Inside) Put(ctx context.Context, records [][]byte) (stored int, err error) {
	start := i.s.now()
	st, err := i.stream()
	if err != nil {
		return 0, err
	}
	if st.record.Type != firehose.DeliveryStreamTypeDirectPut {
		return 0, invalidArgument("This operation is not permitted on %s delivery stream type.", st.record.Type)
	}
	n, err := i.s.admit(st, records)
	if err != nil {
		return 0, err
	}
	if _, err := i.s.store(ctx, st, records[:n]); err != nil {
		return 0, err
	}
	total := 0
	for _, r := range records[:n] {
		total += len(r)
	}
	st.series.Add(delivery.IncomingBytes, float64(total))
	st.series.Add(delivery.IncomingRecords, float64(n))
	st.series.Add(delivery.IncomingPutRequests, 1)
	st.series.Add(putRecordBatchBytes, float64(total))
	st.series.Add(putRecordBatchRecords, float64(n))
	st.series.Add(putRecordBatchCalls, 1)
	st.series.Add(putRecordBatchLatency, since(start, i.s.now()))
	return n, nil
}
