package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
)

// PutRecord stores one record, durable at return. ServiceUnavailable when the
// delivery stream takes no more at the moment: above its rate, or with as much
// undelivered as it may have.
func (s *Service) PutRecord(ctx context.Context, call *api.Call, in *firehose.PutRecordInput) (*firehose.PutRecordOutput, error) {
	start := s.now()
	st, err := s.writable(call, in.DeliveryStreamName)
	if err != nil {
		return nil, err
	}
	p := newPut()
	defer p.release()
	p.data = append(p.data, in.Record.Data)
	if _, err := s.admit(st, p.data); err != nil {
		return nil, err
	}
	ids, err := s.store(ctx, st, p.data)
	if err != nil {
		return nil, err
	}
	bytes := float64(len(in.Record.Data))
	st.series.Add(delivery.IncomingBytes, bytes)
	st.series.Add(delivery.IncomingRecords, 1)
	st.series.Add(delivery.IncomingPutRequests, 1)
	st.series.Add(putRecordBytes, bytes)
	st.series.Add(putRecordRequests, 1)
	st.series.Add(putRecordLatency, since(start, s.now()))
	return &firehose.PutRecordOutput{RecordId: &ids[0], Encrypted: encrypted(st)}, nil
}
