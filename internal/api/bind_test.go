package api_test

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// limits serves two operations; the others would crash.
type limits struct{ kinesis.Handler }

func (limits) DescribeLimits(context.Context, *api.Call, *kinesis.DescribeLimitsInput) (*kinesis.DescribeLimitsOutput, error) {
	return nil, nil
}

func (limits) DeleteStream(_ context.Context, _ *api.Call, in *kinesis.DeleteStreamInput) (*kinesis.DeleteStreamOutput, error) {
	return nil, &kinesis.ResourceNotFoundException{Message: *in.StreamName}
}

func TestBindReachesTheMethodOfEachOperation(t *testing.T) {
	bindings := map[*api.Operation]api.Handler{}
	for _, b := range kinesis.Bind(limits{}) {
		bindings[b.Operation] = b.Handle
	}
	if len(bindings) != len(kinesis.Service.Operations) {
		t.Errorf("%d bindings for %d operations", len(bindings), len(kinesis.Service.Operations))
	}
	out, err := bindings[kinesis.OpDescribeLimits](t.Context(), &api.Call{}, new(kinesis.DescribeLimitsInput))
	if _, ok := out.(*kinesis.DescribeLimitsOutput); err != nil || !ok || out.(*kinesis.DescribeLimitsOutput) == nil {
		t.Errorf("a nil output became %T, %v", out, err)
	}
	out, err = bindings[kinesis.OpDeleteStream](t.Context(), &api.Call{}, &kinesis.DeleteStreamInput{StreamName: api.Ptr("s")})
	var missing *kinesis.ResourceNotFoundException
	if out != nil || !errors.As(err, &missing) || missing.Message != "s" {
		t.Errorf("got %v, %v", out, err)
	}
}

// An event travels under its name; a union of which nothing is set is a mistake.
func TestStreamEvents(t *testing.T) {
	var out api.EventStream = &kinesis.SubscribeToShardOutput{Events: func(ctx context.Context, send func(*kinesis.SubscribeToShardEventStream) error) error {
		if err := send(&kinesis.SubscribeToShardEventStream{SubscribeToShardEvent: &kinesis.SubscribeToShardEvent{}}); err != nil {
			return err
		}
		return send(&kinesis.SubscribeToShardEventStream{})
	}}
	var names []string
	err := out.StreamEvents(t.Context(), func(event string, value api.Shape) error {
		if _, ok := value.(*kinesis.SubscribeToShardEvent); !ok {
			t.Errorf("event of type %T", value)
		}
		names = append(names, event)
		return nil
	})
	if !errors.Is(err, api.ErrNoEvent) || len(names) != 1 || names[0] != "SubscribeToShardEvent" {
		t.Errorf("got %v, %v", names, err)
	}
	var union kinesis.SubscribeToShardEventStream
	if union.SetEvent("SubscribeToShardEvent") == nil || union.SetEvent("other") != nil || union.SubscribeToShardEvent == nil {
		t.Errorf("got %+v", union)
	}
	if !kinesis.OpSubscribeToShard.Streaming || kinesis.OpPutRecords.Streaming || kinesis.OpDeleteStream.HasOutput {
		t.Error("the table says otherwise")
	}
}
