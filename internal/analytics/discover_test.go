package analytics

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

type sources struct {
	records []string
	start   app.Start
	err     error
}

func (s *sources) Sample(_ context.Context, _ app.Resource, start app.Start, _, _ int) ([]app.Record, error) {
	s.start = start
	var out []app.Record
	for i, r := range s.records {
		out = append(out, app.Record{ID: string(rune('a' + i)), Data: []byte(r)})
	}
	return out, s.err
}

type function func(payload []byte) ([]byte, error)

func (f function) Invoke(_ context.Context, _ app.Resource, payload []byte) ([]byte, error) {
	return f(payload)
}

const discoverStream = `{` + streamARN + `, ` + role + `}`

func TestDiscovery(t *testing.T) {
	from := &sources{records: []string{`{"ticker": "AMZN", "price": 12}`, `{"ticker": "A", "price": null}`}}
	r := newRig(t, func(o *Options) { o.Sources = from })
	compareGolden(t, "discover-json.json", r.must("v1", "DiscoverInputSchema", discoverStream))
	if from.start != Recent {
		t.Errorf("read from %v", from.start)
	}
	from.records = []string{"name,count\nx,1\ny,2\n"}
	compareGolden(t, "discover-csv.json", r.must("v2", "DiscoverInputSchema", `{`+streamARN+`, "ServiceExecutionRole": "arn:aws:iam::123456789012:role/sql"}`))
	from.records = []string{"\xff\xfe"}
	err := r.v1("DiscoverInputSchema", discoverStream)
	var undetected *kinesisanalytics.UnableToDetectSchemaException
	if !errors.As(err, &undetected) || len(undetected.RawInputRecords) != 1 {
		t.Errorf("nonsense gives %v", err)
	}
	from.records = nil
	wantError(t, r.v1("DiscoverInputSchema", discoverStream), "UnableToDetectSchemaException", "There are no records to detect a schema from.")
	from.err = ErrNoSource
	wantError(t, r.v1("DiscoverInputSchema", discoverStream), "InvalidArgumentException", "ResourceARN arn:aws:kinesis:eu-central-1:123456789012:stream/in: there is no such source.")
	from.err = ErrThrottled
	wantError(t, r.v1("DiscoverInputSchema", discoverStream), "ResourceProvisionedThroughputExceededException", "…")
	from.err = errors.New("disk on fire")
	wantError(t, r.v1("DiscoverInputSchema", discoverStream), "ServiceUnavailableException", "arn:aws:kinesis:eu-central-1:123456789012:stream/in cannot be read now.")
	wantError(t, r.v1("DiscoverInputSchema", `{`+role+`}`), "InvalidArgumentException", "Exactly one of ResourceARN and S3Configuration must be given.")
	_, err = r.do("999999999999", "v1", "DiscoverInputSchema", discoverStream)
	wantError(t, err, "InvalidArgumentException", "ResourceARN arn:aws:kinesis:eu-central-1:123456789012:stream/in is not of account 999999999999.")
}

func TestDiscoveryBehindAFunction(t *testing.T) {
	data := base64.StdEncoding.EncodeToString([]byte(`{"made": true}`))
	answer := `{"records": [{"recordId": "b", "result": "Dropped"}, {"recordId": "a", "result": "Ok", "data": "` + data + `"}]}`
	r := newRig(t, func(o *Options) {
		o.Sources = &sources{records: []string{"one", "two"}}
		o.Functions = function(func(payload []byte) ([]byte, error) {
			if !strings.Contains(string(payload), `"kinesisStreamRecordMetadata"`) {
				return nil, errors.New("no metadata")
			}
			return []byte(answer), nil
		})
	})
	in := strings.Replace(discoverStream, "}", `, "InputProcessingConfiguration": `+processed+`}`, 1)
	out := r.must("v1", "DiscoverInputSchema", in)
	if !strings.Contains(out, `"SqlType": "BOOLEAN"`) || !strings.Contains(out, `"{\"made\": true}"`) {
		t.Error(out)
	}
	answer = `{"records": []}`
	wantError(t, r.v1("DiscoverInputSchema", in), "UnableToDetectSchemaException", "The records could not be processed: the function answered for 0 records, not 2")
}
