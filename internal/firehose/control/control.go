// Package control serves what delivery streams can do here beyond the service's
// API: tell how they are doing and what they have delivered, deliver at once,
// pause, show what would become of records, and put back what failed.
//
// The one idea: these are calls like any other, with a model of their own
// (model/millrace-delivery.json), signed and authorised like Firehose's; so the
// command line and the console need no second way in. Everything is done with what
// package firehose and the engine offer to everybody.
//
// Start reading at Service; test.go rehearses a delivery, redrive.go repeats what
// failed.
package control

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/deliverycontrol"
	firehoseapi "github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/objects"
)

// Streams are the delivery streams; *firehose.Service is one.
type Streams interface {
	Locate(call *api.Call, name *string) (*firehose.Located, error)
	// Ready has the engine learn of a delivery stream that became ACTIVE a moment ago.
	Ready(ctx context.Context, id string) error
	Rehearsal(ctx context.Context, call *api.Call, name *string, store objects.Store) (d *delivery.Definition, captured bool, err error)
	PutRecordBatch(ctx context.Context, call *api.Call, in *firehoseapi.PutRecordBatchInput) (*firehoseapi.PutRecordBatchOutput, error)
	ResourceARN(call *api.Call, in api.Shape) (arn, owner string)
	ConditionValues(call *api.Call, in api.Shape) map[string][]string
}

// Engine is what runs them; *delivery.Engine is one.
type Engine interface {
	Status(id string) (delivery.Status, error)
	Flush(ctx context.Context, id string) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Ledger(id string, limit int) ([]delivery.LedgerEntry, error)
}

// Options of a Service.
type Options struct {
	Streams Streams
	Engine  Engine
	Meta    *meta.Store      // remembers what was put back
	Now     func() time.Time // time.Now if nil
	Logger  *slog.Logger     // nil discards
}

// Service serves the operations.
type Service struct {
	o Options
}

var _ deliverycontrol.Handler = (*Service)(nil)

// New makes a Service.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{o}
}

// ResourceARN names the delivery stream that a call is about.
func (s *Service) ResourceARN(call *api.Call, in api.Shape) (arn, owner string) {
	return s.o.Streams.ResourceARN(call, in)
}

// ResourcePolicy finds none: delivery streams carry no policies.
func (s *Service) ResourcePolicy(string) (string, bool) { return "", false }

// ConditionValues are those of the delivery stream that a call is about.
func (s *Service) ConditionValues(call *api.Call, in api.Shape) map[string][]string {
	return s.o.Streams.ConditionValues(call, in)
}

// engine does something with the delivery stream that a call names.
func (s *Service) engine(ctx context.Context, call *api.Call, name *string, f func(l *firehose.Located) error) error {
	l, err := s.o.Streams.Locate(call, name)
	if err != nil {
		return err
	}
	if err = f(l); errors.Is(err, delivery.ErrNotFound) {
		if err = s.o.Streams.Ready(ctx, l.ID); err == nil {
			err = f(l)
		}
	}
	if errors.Is(err, delivery.ErrNotFound) {
		return &deliverycontrol.InvalidArgumentException{Message: "Firehose " + l.Name + " under account " + l.Account + " is not ACTIVE."}
	}
	return err
}

func number(n int) *int32 { return api.Ptr(int32(n)) }

// moment leaves out the zero time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// GetDeliveryStatus tells how far a delivery stream has got.
func (s *Service) GetDeliveryStatus(ctx context.Context, call *api.Call, in *deliverycontrol.GetDeliveryStatusInput) (out *deliverycontrol.GetDeliveryStatusOutput, err error) {
	err = s.engine(ctx, call, in.DeliveryStreamName, func(l *firehose.Located) error {
		st, err := s.o.Engine.Status(l.ID)
		if err != nil {
			return err
		}
		out = &deliverycontrol.GetDeliveryStatusOutput{
			DeliveryStreamARN: &l.ARN, Version: number(st.Version), Paused: &st.Paused, Stalled: &st.Stalled, Partitions: number(st.Partitions),
			BufferedBatches: number(st.Batches), BufferedRecords: number(st.Records), BufferedBytes: &st.Bytes, OldestRecord: moment(st.Oldest),
			Lanes: []deliverycontrol.Lane{},
		}
		if p := st.LastError; p != nil {
			out.LastError = &deliverycontrol.Problem{At: &p.At, Code: &p.Code, Message: &p.Message}
		}
		for _, lane := range st.Lanes {
			out.Lanes = append(out.Lanes, deliverycontrol.Lane{Name: &lane.Name, Done: &lane.Done,
				Delivered: api.Ptr(int64(lane.Delivered)), Read: api.Ptr(int64(lane.Read)), Available: api.Ptr(int64(lane.Available))})
		}
		return nil
	})
	return out, err
}

// FlushDeliveryStream delivers what is buffered, and returns when that is done.
func (s *Service) FlushDeliveryStream(ctx context.Context, call *api.Call, in *deliverycontrol.FlushDeliveryStreamInput) (*deliverycontrol.FlushDeliveryStreamOutput, error) {
	return nil, s.engine(ctx, call, in.DeliveryStreamName, func(l *firehose.Located) error { return s.o.Engine.Flush(ctx, l.ID) })
}

// PauseDeliveryStream stops deliveries; puts are taken.
func (s *Service) PauseDeliveryStream(ctx context.Context, call *api.Call, in *deliverycontrol.PauseDeliveryStreamInput) (*deliverycontrol.PauseDeliveryStreamOutput, error) {
	return nil, s.engine(ctx, call, in.DeliveryStreamName, func(l *firehose.Located) error { return s.o.Engine.Pause(ctx, l.ID) })
}

// ResumeDeliveryStream ends a pause.
func (s *Service) ResumeDeliveryStream(ctx context.Context, call *api.Call, in *deliverycontrol.ResumeDeliveryStreamInput) (*deliverycontrol.ResumeDeliveryStreamOutput, error) {
	return nil, s.engine(ctx, call, in.DeliveryStreamName, func(l *firehose.Located) error { return s.o.Engine.Resume(ctx, l.ID) })
}

// ListDeliveries lists the newest deliveries, latest first; 100 if no limit is
// given.
func (s *Service) ListDeliveries(ctx context.Context, call *api.Call, in *deliverycontrol.ListDeliveriesInput) (*deliverycontrol.ListDeliveriesOutput, error) {
	limit := 100
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := &deliverycontrol.ListDeliveriesOutput{Deliveries: []deliverycontrol.Delivery{}}
	return out, s.engine(ctx, call, in.DeliveryStreamName, func(l *firehose.Located) error {
		entries, err := s.o.Engine.Ledger(l.ID, limit)
		for _, e := range entries {
			out.Deliveries = append(out.Deliveries, deliverycontrol.Delivery{
				Sequence: api.Ptr(int64(e.Sequence)), At: &e.At, Output: &e.Output, Outcome: api.Ptr(string(e.Outcome)), Objects: e.Objects, BatchId: &e.BatchID,
				Version: number(e.Version), Lane: &e.Lane, Partition: optional(e.Partition), From: optional(e.From), To: optional(e.To),
				Records: number(e.Records), Failed: number(e.Failed), Bytes: &e.Bytes, Attempts: number(e.Attempts),
				TookMillis: api.Ptr(e.Took.Milliseconds()), Error: optional(e.Error),
			})
		}
		return err
	})
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
