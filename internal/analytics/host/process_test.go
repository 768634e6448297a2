package host

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/vfs"
)

const passThrough = `CREATE STREAM "OUT" (V INTEGER); CREATE PUMP P AS INSERT INTO "OUT" SELECT STREAM "V" FROM "IN_001";`

type processingCall struct {
	InvocationID, ApplicationARN, StreamARN string
	Records                                 []struct {
		RecordID string
		Data     []byte
		Kinesis  *struct {
			ShardID, PartitionKey, SequenceNumber string
			Arrival                               int64 `json:"approximateArrivalTimestamp"`
		} `json:"kinesisStreamRecordMetadata"`
	}
}

// processor is a function that drops what says so, fails for what says so, and
// doubles everything else.
func processor(payload []byte) ([]byte, error) {
	var in processingCall
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, err
	}
	type record struct {
		ID     string `json:"recordId"`
		Result string `json:"result"`
		Data   string `json:"data,omitempty"`
	}
	var out struct {
		Records []record `json:"records"`
	}
	for _, r := range in.Records {
		o := record{r.RecordID, "Ok", base64.StdEncoding.EncodeToString([]byte(string(r.Data) + string(r.Data)))}
		switch {
		case strings.Contains(string(r.Data), "drop"):
			o = record{r.RecordID, "Dropped", ""}
		case strings.Contains(string(r.Data), "fail"):
			o = record{r.RecordID, "ProcessingFailed", ""}
		}
		out.Records = append(out.Records, o)
	}
	return json.Marshal(out)
}

// A function that answers badly, in any way, is asked again; what it answers at
// last decides.
func TestRecordsPassThroughAFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		errorsTo := &sinkhole{}
		r.others = map[string]Destination{"errors": errorsTo}
		var mu sync.Mutex
		calls := 0
		var first processingCall
		r.invoke = func(ctx context.Context, f app.Resource, payload []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			calls++
			good, err := processor(payload)
			switch calls {
			case 1:
				if err := json.Unmarshal(payload, &first); err != nil {
					t.Error(err)
				}
				return nil, errors.New("ServiceException: not now")
			case 2:
				return []byte(`{"records": []}`), nil // too little
			case 3:
				return []byte(strings.Replace(string(good), `{"records":[`, `{"records":[{"recordId":"x","result":"Ok","data":""},`, 1)), nil // too much
			case 4:
				<-ctx.Done() // hangs
				return nil, ctx.Err()
			case 5:
				return slices.Concat(good, make([]byte, maxEvent)), nil // too large
			}
			return good, err
		}
		h := r.open(t, nil)
		a := application1(passThrough)
		a.ARN = "arn:a"
		a.Inputs[0].Processor = &app.Resource{Kind: app.Function, ARN: "f"}
		a.Inputs[0].Source.ARN = "arn:s"
		a.Outputs = append(a.Outputs, app.Output{ID: "1.2", Stream: plan.ErrorStream, Destination: app.Resource{ARN: "errors"}, CSV: true})
		r.source.put(0, `{"v":1}`)
		r.source.put(0, `{"v":2} drop`)
		r.source.put(0, `{"v":3} fail`)
		r.source.put(0, `{"v":4}`)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(10 * time.Second) // the fourth call hangs
		if s := h.Status(a.ID); s.RowsIn != 0 || !strings.Contains(s.Problem, "the function answered for 5 records, not 4") {
			t.Errorf("%+v", s)
		}
		settle(10 * time.Minute)
		if got, want := r.to.taken(), []string{"{\"V\":1}\n", "{\"V\":1}\n", "{\"V\":4}\n", "{\"V\":4}\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if got := errorsTo.taken(); len(got) != 1 || !strings.Contains(got[0], "PREPROCESSING_FAILED") || !strings.Contains(got[0], fmt.Sprintf("%x", `{"v":3} fail`)) {
			t.Errorf("the error stream has %q", got)
		}
		if s := h.Status(a.ID); s.Problem != "" || s.RowsIn != 4 {
			t.Errorf("%+v", s)
		}
		if first.ApplicationARN != "arn:a" || first.StreamARN != "arn:s" || len(first.Records) != 4 || first.Records[1].Kinesis == nil || first.Records[1].RecordID != "0-2" || first.Records[1].Kinesis.PartitionKey != "k" || first.Records[1].Kinesis.ShardID != "shardId-000000000000" {
			t.Errorf("the function saw %+v", first)
		}
		for name, want := range map[Metric]float64{InputProcessingOkRecords: 2, InputProcessingOkBytes: 28, InputProcessingDroppedRecords: 1, InputProcessingProcessingFailedRecords: 1, InputProcessingSuccess: 1, Records: 4, Rows: 4, RefusedRows: 1} {
			if got := r.sums.sum("Input 1.1 " + string(name)); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Calls are bounded in records and bytes, and a record that no call can hold does
// not keep the others back.
func TestCallsOfAProcessorAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		var mu sync.Mutex
		largest, most := 0, 0
		r.invoke = func(_ context.Context, _ app.Resource, payload []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			var in processingCall
			if err := json.Unmarshal(payload, &in); err != nil {
				return nil, err
			}
			largest, most = max(largest, len(payload)), max(most, len(in.Records))
			return processor(payload)
		}
		// Big records, one by one too large for two of them in a call.
		big := strings.Repeat(" ", 3<<20)
		for i := range 4 {
			r.source.put(0, fmt.Sprintf(`{"v":%d}`, i)+big+"drop")
		}
		r.source.put(0, strings.Repeat("x", 5<<20))
		for i := range 12000 {
			r.source.put(0, fmt.Sprintf(`{"v":%d}drop`, i))
		}
		r.source.put(0, `{"v":7}`)
		r.source.perPage = 20000
		h := r.open(t, nil)
		a := application1(passThrough)
		a.Inputs[0].Processor = &app.Resource{Kind: app.Function, ARN: "f"}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if got := r.to.taken(); len(got) != 2 {
			t.Errorf("%d rows, want 2", len(got))
		}
		if largest > maxEvent || most > processRecords || most < processRecords/2 {
			t.Errorf("the largest call has %d bytes, the longest %d records", largest, most)
		}
		if got := r.sums.sum("Input 1.1 InputProcessing.ProcessingFailedRecords"); got != 1 {
			t.Errorf("%v records failed, want 1", got)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// What a function has answered for is not asked again behind a checkpoint, and a
// stop does not wait for a function that hangs.
func TestAStopDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{source: newLog(7, 1), to: &sinkhole{}, files: vfs.NewMemory()}
		hang := false
		var asked []string
		var mu sync.Mutex
		r.invoke = func(ctx context.Context, _ app.Resource, payload []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if hang {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			var in processingCall
			if err := json.Unmarshal(payload, &in); err != nil {
				return nil, err
			}
			for _, rec := range in.Records {
				asked = append(asked, rec.RecordID)
			}
			return processor(payload)
		}
		h := r.open(t, nil)
		a := application1(passThrough)
		a.Inputs[0].Processor = &app.Resource{Kind: app.Function, ARN: "f"}
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		r.source.put(0, `{"v":1}`)
		settle(time.Second)
		mu.Lock()
		hang = true
		mu.Unlock()
		r.source.put(0, `{"v":2}`)
		settle(time.Second)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		hang = false
		mu.Unlock()
		h = r.open(t, nil)
		if err := h.Start(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if got, want := r.to.taken(), []string{"{\"V\":1}\n", "{\"V\":1}\n", "{\"V\":2}\n", "{\"V\":2}\n"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if want := []string{"0-1", "0-2"}; !slices.Equal(asked, want) {
			t.Errorf("asked for %q, want %q", asked, want)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
