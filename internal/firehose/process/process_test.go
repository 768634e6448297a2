package process

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/record"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lane numbers records like a data stream.
type lane string

func (l lane) Name() string { return string(l) }

func (l lane) SequenceNumber(index uint64, _ int64) string { return fmt.Sprintf("4954%d", index) }

const arrival = 1716369573887

func records(data ...string) []record.Record {
	out := make([]record.Record, len(data))
	for i, d := range data {
		out[i] = record.Record{
			Data: []byte(d), Arrival: arrival + int64(i), Lane: lane("shardId-000000000000"),
			Position: record.Position{Index: uint64(i)}, PartitionKey: []byte("pk"),
		}
	}
	return out
}

var meta = SourceMeta{
	Stream: record.Stream{ARN: "arn:aws:firehose:us-east-1:000000000000:deliverystream/d", Name: "d", Region: "us-east-1", SourceARN: "arn:aws:kinesis:us-east-1:000000000000:stream/s"},
	Source: Kinesis,
}

// show is what came out: data of records, then failures.
func show(out []record.Record, failed []Failed) string {
	var b strings.Builder
	for _, r := range out {
		fmt.Fprintf(&b, "%d.%d %q", r.Index, r.Sub, r.Data)
		if r.Keys != nil {
			fmt.Fprintf(&b, " query=%v function=%v", r.Keys.Query, r.Keys.Function)
		}
		if r.Table != nil {
			fmt.Fprintf(&b, " table=%s.%s/%s", r.Table.Database, r.Table.Name, r.Table.Operation)
		}
		b.WriteByte('\n')
	}
	for _, f := range failed {
		fmt.Fprintf(&b, "failed %d.%d %q %s %s attempts=%d", f.Record.Index, f.Record.Sub, f.Record.Data, f.ErrorType, f.Code, f.Attempts)
		if f.FunctionARN != "" {
			b.WriteString(" function")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func run1(t *testing.T, c Config, invoker Invoker, in []record.Record) (string, Stats) {
	t.Helper()
	before := fmt.Sprintf("%+v", in)
	out, failed, stats, err := NewChain(c, invoker).Process(t.Context(), in, meta)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", in) != before {
		t.Error("the input was changed")
	}
	return show(out, failed), stats
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got, want = strings.TrimSpace(got), strings.TrimSpace(want); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func mustQuery(t testing.TB, text string) *Query {
	t.Helper()
	q, err := NewQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestAChainWithoutStepsGivesBackWhatItGets(t *testing.T) {
	in := records("a", "b")
	for _, c := range []*Chain{nil, NewChain(Config{}, nil)} {
		out, failed, _, err := c.Process(t.Context(), in, meta)
		if &out[0] != &in[0] || len(out) != 2 || failed != nil || err != nil {
			t.Errorf("got %v, %v, %v", out, failed, err)
		}
		if c.BatchLimits() != (record.Hints{}) || !c.Empty() {
			t.Error("it has limits")
		}
	}
}

func TestDelimiterIsAlwaysAppended(t *testing.T) {
	got, _ := run1(t, Config{Append: []byte("\n")}, nil, records("a", "", "b\n"))
	same(t, got, `
0.0 "a\n"
1.0 "\n"
2.0 "b\n\n"`)
}

func TestDecompression(t *testing.T) {
	in := records(zipped("hello"), "plain", zipped(""), zipped("a")+zipped("b"), zipped("cut")[:15], "", zipped("x")+"garbage")
	out, failed, stats, err := NewChain(Config{Decompress: true, Append: []byte("|")}, nil).Process(t.Context(), in, meta)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, r := range out {
		fmt.Fprintf(&got, "%d %q original=%v\n", r.Index, r.Data, bytes.Equal(r.Original, in[r.Index].Data))
	}
	for _, f := range failed {
		fmt.Fprintf(&got, "%d %s %s same=%v\n", f.Record.Index, f.ErrorType, f.Code, bytes.Equal(f.Record.Data, in[f.Record.Index].Data))
	}
	same(t, got.String(), `
0 "hello|" original=true
2 "|" original=true
3 "ab|" original=true
1 decompression-failed Decompression.InvalidData same=true
4 decompression-failed Decompression.InvalidData same=true
5 decompression-failed Decompression.InvalidData same=true
6 decompression-failed Decompression.InvalidData same=true`)
	if stats.Decompressed != (Count{3, 7}) || stats.DecompressionFailed.Records != 4 {
		t.Errorf("counted %+v", stats)
	}
}

// A record of 1,000 KiB can decompress to a gigabyte. It fails as any other that
// cannot be decompressed, and what was made of it until then is bounded.
func TestABombIsADecompressionFailure(t *testing.T) {
	bomb := func(size int) string {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		zeros := make([]byte, 1<<20)
		for range size >> 20 {
			_, _ = w.Write(zeros)
		}
		_, _ = w.Write(zeros[:size&(1<<20-1)])
		_ = w.Close()
		return b.String()
	}
	in := records(bomb(MaxDecompressed), bomb(MaxDecompressed+1), bomb(64<<20))
	out, failed, _, err := NewChain(Config{Decompress: true}, nil).Process(t.Context(), in, meta)
	if err != nil || len(out) != 1 || len(out[0].Data) != MaxDecompressed {
		t.Fatalf("%d records (%v)", len(out), err)
	}
	if len(failed) != 2 || !strings.Contains(failed[1].Message, "more than 33554432 bytes") || failed[1].ErrorType != ErrorTypeDecompression {
		t.Errorf("failed: %+v", failed)
	}
}

// Many small bombs are a large one.
func TestBombsOfABatchAreBoundedTogether(t *testing.T) {
	one := zipped(strings.Repeat("\x00", 30<<20))
	in := records(slices.Repeat([]string{one}, 12)...)
	out, failed, stats, err := NewChain(Config{Decompress: true}, nil).Process(t.Context(), in, meta)
	if err != nil || len(out)+len(failed) != 12 || len(out) < 4 || len(failed) == 0 {
		t.Errorf("%d records, %d failed (%v)", len(out), len(failed), err)
	}
	if most := int64(batchDecompressed + 12*maxRatio*len(one)); stats.Decompressed.Bytes > most {
		t.Errorf("%d bytes were kept, of at most %d", stats.Decompressed.Bytes, most)
	}
}

func TestLogEnvelopes(t *testing.T) {
	envelope := func(kind, events string) string {
		return zipped(`{"messageType":"` + kind + `","owner":"0","logGroup":"g","logStream":"s","subscriptionFilters":["f"],"logEvents":` + events + `}`)
	}
	in := records(
		envelope("DATA_MESSAGE", `[{"id":"1","timestamp":1,"message":"first \"quoted\" é\n"},{"id":"2","timestamp":2,"message":"second","extra":{"a":[1]}}]`),
		envelope("CONTROL_MESSAGE", `[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE: Checking health of destination Firehose."}]`),
		envelope("DATA_MESSAGE", `[]`),
		envelope("OTHER", `[]`),
		zipped(`{"messageType":"DATA_MESSAGE"}`),
		zipped(`{"messageType":"DATA_MESSAGE","logEvents":[{"id":"1"}]}`),
		zipped(`not json`),
		zipped(`{"messageType":"DATA_MESSAGE","logEvents":[]} x`),
	)
	out, failed, _, err := NewChain(Config{Decompress: true, LogMessages: true}, nil).Process(t.Context(), in, meta)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, r := range out {
		fmt.Fprintf(&got, "%d %q\n", r.Index, r.Data)
	}
	for _, f := range failed {
		fmt.Fprintf(&got, "%d %s %s original=%v\n", f.Record.Index, f.ErrorType, f.Code, bytes.Equal(f.Record.Original, in[f.Record.Index].Data))
	}
	same(t, got.String(), `
0 "first \"quoted\" é\n\nsecond\n"
2 ""
3 processing-failed CloudWatchLogProcessing.InvalidEnvelope original=true
4 processing-failed CloudWatchLogProcessing.InvalidEnvelope original=true
5 processing-failed CloudWatchLogProcessing.InvalidEnvelope original=true
6 processing-failed CloudWatchLogProcessing.InvalidEnvelope original=true
7 processing-failed CloudWatchLogProcessing.InvalidEnvelope original=true`)
}

func TestRecordsAreTakenApart(t *testing.T) {
	many := func(n int, s string) string { return strings.Repeat(s, n) }
	for _, c := range []struct {
		name  string
		split Split
		in    string
		want  []string
	}{
		{"JSON values in a row", Split{}, `{"a":1}{"b":"}{"} [1,2]` + "\n\t" + `"x" 3 null`, []string{`{"a":1}`, `{"b":"}{"}`, `[1,2]`, `"x"`, `3`, `null`}},
		{"lines of JSON", Split{}, "{\"a\":1}\n{\"a\":2}\n", []string{`{"a":1}`, `{"a":2}`}},
		{"one value", Split{}, ` {"a":1} `, []string{`{"a":1}`}},
		{"no JSON", Split{}, `{"a":1}{`, []string{`{"a":1}{`}},
		{"commas in between", Split{}, `{"a":1},{"a":2}`, []string{`{"a":1},{"a":2}`}},
		{"nothing", Split{}, "", []string{""}},
		{"space", Split{}, "  \n", []string{"  \n"}},
		{"500 values", Split{}, many(500, "1 "), slices.Repeat([]string{"1"}, 500)},
		{"501 values", Split{}, many(501, "1 "), []string{many(501, "1 ")}},
		{"a delimiter", Split{[]byte("####")}, "a####b##c####", []string{"a", "b##c"}},
		{"empty parts", Split{[]byte("|")}, "|a||b|", []string{"a", "b"}},
		{"no delimiter", Split{[]byte("|")}, "ab", []string{"ab"}},
		{"nothing but delimiters", Split{[]byte("|")}, "||", []string{"||"}},
		{"500 parts", Split{[]byte("|")}, many(500, "x|"), slices.Repeat([]string{"x"}, 500)},
		{"501 parts", Split{[]byte("|")}, many(501, "x|"), []string{many(501, "x|")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := records("", c.in)[1:]
			in[0].Sub = 3
			out, failed, _, err := NewChain(Config{Split: &c.split}, nil).Process(t.Context(), in, meta)
			if err != nil || len(failed) > 0 {
				t.Fatal(err, failed)
			}
			var got []string
			for i, r := range out {
				got = append(got, string(r.Data))
				if r.Index != 1 || r.Sub != uint32(3*SubRecords+i) {
					t.Errorf("part %d is at %v", i, r.Position)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// function is a function of a test.
type function func(ctx context.Context, arn string, payload []byte) (Answer, error)

func (f function) Invoke(ctx context.Context, arn string, payload []byte) (Answer, error) {
	return f(ctx, arn, payload)
}

// sent is an event as a function sees it.
type sent struct {
	InvocationID           string `json:"invocationId"`
	DeliveryStreamARN      string `json:"deliveryStreamArn"`
	SourceKinesisStreamARN string `json:"sourceKinesisStreamArn"`
	Region                 string
	Records                []struct {
		RecordID                    string `json:"recordId"`
		ApproximateArrivalTimestamp int64  `json:"approximateArrivalTimestamp"`
		Data                        []byte
		KafkaRecordValue            []byte `json:"kafkaRecordValue"`
	}
}

func parse(t testing.TB, payload []byte) (e sent) {
	t.Helper()
	if err := json.Unmarshal(payload, &e); err != nil {
		t.Fatalf("event %s: %v", payload, err)
	}
	return e
}

func TestEventsOfFunctions(t *testing.T) {
	for _, c := range []struct {
		name   string
		source Source
		split  bool
	}{{"direct", DirectPut, false}, {"kinesis", Kinesis, false}, {"kafka", Kafka, false}, {"parts", Kinesis, true}} {
		t.Run(c.name, func(t *testing.T) {
			var payload []byte
			in := records("hello", "", "\x00\xff")
			in[1].Sub, in[1].PartitionKey = 2, []byte("a\"\\\n\xffé")
			config := Config{Function: &Function{ARN: "arn:f", Buffer: record.Hints{Bytes: 1 << 20}}}
			if c.split {
				config.Split = &Split{Delimiter: []byte("l")}
			}
			m := meta
			m.Source = c.source
			if c.source == Kafka {
				for i := range in {
					in[i].Lane = lane("7")
				}
			}
			_, _, _, err := NewChain(config, function(func(_ context.Context, _ string, p []byte) (Answer, error) {
				payload = bytes.Clone(p)
				return Answer{Payload: []byte(`{"records":[]}`)}, nil
			})).Process(t.Context(), in, m)
			if err != nil {
				t.Fatal(err)
			}
			e := parse(t, payload)
			if len(e.InvocationID) != 36 || e.InvocationID[14] != '4' {
				t.Errorf("invocation id %q", e.InvocationID)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, bytes.Replace(payload, []byte(e.InvocationID), []byte("ID"), 1), "", " "); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "event-"+c.name+".json")
			if *update {
				if err := os.WriteFile(golden, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			same(t, pretty.String(), string(want))
		})
	}
}

// Every row of the table of answers. $0, $1 … are the ids that were sent.
func TestAnswersOfFunctions(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	for _, c := range []struct {
		name     string
		source   Source
		answer   string
		function string // FunctionError
		want     string
	}{
		{"Ok with data", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"` + b64([]byte("A")) + `"},{"recordId":"$1","result":"Ok","data":""}]}`, "", `
0.0 "A"
1.0 ""`},
		{"any order, unknown members, escapes", Kinesis, ` {"x":[{"records":1}],"records":[ {"data":"\u0051Q==","recordId":"$1","result":"O\u006b","more":{"a":[1,"]"]}} , {"result":"Ok","data":"Qg==","recordId":"$0"} ],"y":null} `, "", `
0.0 "B"
1.0 "A"`},
		{"Dropped", Kinesis, `{"records":[{"recordId":"$0","result":"Dropped"},{"recordId":"$1","result":"Dropped","data":"!"}]}`, "", ``},
		{"ProcessingFailed", Kinesis, `{"records":[{"recordId":"$0","result":"ProcessingFailed","data":"QQ=="},{"recordId":"$1","result":"Ok","data":"QQ=="}]}`, "", `
1.0 "A"
failed 0.0 "a" processing-failed Lambda.ProcessingFailedStatus attempts=1 function`},
		{"an id not returned", Kinesis, `{"records":[{"recordId":"$1","result":"Ok","data":"QQ=="}]}`, "", `
1.0 "A"
failed 0.0 "a" processing-failed Lambda.MissingRecordId attempts=1 function`},
		{"no records", Kinesis, `{"statusCode":200}`, "", missing},
		{"records are no list", Kinesis, `{"records":"x"}`, "", missing},
		{"records are null", Kinesis, `{"records":null}`, "", missing},
		{"null", Kinesis, `null`, "", missing},
		{"a list", Kinesis, `[1]`, "", missing},
		{"items are no objects", Kinesis, `{"records":[1,null,"x",[]]}`, "", missing},
		{"ids are no strings, or named otherwise", Kinesis, `{"records":[{"recordId":7,"result":"Ok","data":"QQ=="},{"recordID":"$0","result":"Ok","data":"QQ=="}]}`, "", missing},
		{"the same id twice", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ=="},{"recordId":"$1","result":"Ok","data":"QQ=="},{"recordId":"$0","result":"Dropped"}]}`, "", `
1.0 "A"
failed 0.0 "a" processing-failed Lambda.DuplicatedRecordId attempts=1 function`},
		{"an id never sent", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ=="},{"recordId":"nobody","result":"Ok","data":"QQ=="},{"recordId":"$1","result":"Ok","data":"QQ=="}]}`, "", `
0.0 "A"
1.0 "A"`},
		{"Ok with null data", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":null},{"recordId":"$1","result":"Ok"}]}`, "", invalid},
		{"unknown result", Kinesis, `{"records":[{"recordId":"$0","result":"ok","data":"QQ=="},{"recordId":"$1","data":"QQ=="}]}`, "", invalid},
		{"data that is not base64", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"Q"},{"recordId":"$1","result":"Ok","data":"QQ==QQ=="}]}`, "", invalid},
		{"line breaks and other alphabets", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ==\n\n\n\n"},{"recordId":"$1","result":"Ok","data":"_-=="}]}`, "", invalid},
		{"data that is no string", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":{"a":1}},{"recordId":"$1","result":"Ok","data":7}]}`, "", invalid},
		{"not JSON", Kinesis, `{"records":[`, "", notJSON},
		{"not JSON at the end", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ=="}]} x`, "", notJSON},
		{"nothing", Kinesis, ``, "", notJSON},
		{"kafka has another member", Kafka, `{"records":[{"recordId":"$0","result":"Ok","kafkaRecordValue":"QQ=="},{"recordId":"$1","result":"Ok","data":"QQ=="}]}`, "", `
0.0 "A"
failed 1.0 "b" processing-failed Lambda.InvalidReturnFormat attempts=1 function`},
		{"partition keys and tables", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ==","metadata":{"partitionKeys":{"c":"42","n":7,"b":true,"e":"","z":null,"o":{}},"x":1}},
			{"recordId":"$1","result":"Ok","data":"QQ==","metadata":{"otfMetadata":{"destinationDatabaseName":"d","destinationTableName":"t","operation":"update","x":[]}}}]}`, "", `
0.0 "A" query=map[] function=map[b:true c:42 e: n:7 o: z:]
1.0 "A" table=d.t/update`},
		{"metadata of another form", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ==","metadata":[]},{"recordId":"$1","result":"Ok","data":"QQ==","metadata":{"partitionKeys":"x","otfMetadata":null}}]}`, "", `
0.0 "A"
1.0 "A"`},
		{"too many partition keys", Kinesis, `{"records":[{"recordId":"$0","result":"Ok","data":"QQ==","metadata":{"partitionKeys":{` + manyKeys(51) + `}}},{"recordId":"$1","result":"Dropped"}]}`, "", `
failed 0.0 "a" processing-failed Lambda.InvalidReturnFormat attempts=1 function`},
		{"the function raised", Kinesis, `{"errorMessage":"boom","errorType":"ValueError"}`, "Unhandled", raised},
		{"the function raised and has records", Kinesis, `{"errorMessage":"boom","records":[]}`, "Handled", raised},
		{"the function raised without words", Kinesis, ``, "Unhandled", raised},
		{"it raised in the emulator", Kinesis, `{"errorMessage":"boom","errorType":"ValueError","requestId":"","stackTrace":[]}`, "", raised},
		{"it raised before it started", Kinesis, `{"errorType":"Runtime.ExitError"}`, "", raised},
		{"errors beside records are none", Kinesis, `{"errorMessage":"x","records":[{"recordId":"$0","result":"Dropped"},{"recordId":"$1","result":"Dropped"}]}`, "", ``},
		{"timed out in the emulator", Kinesis, "Task timed out after 3.00 seconds\n", "", timedOut},
		{"timed out", Kinesis, `{"errorMessage":"2026-07-13T14:05:09.123Z 8f Task timed out after 3.00 seconds"}`, "Unhandled", timedOut},
		{"answered too much", Kinesis, `{"records":[],"x":"` + strings.Repeat("x", MaxPayload) + `"}`, "", strings.ReplaceAll(raised, "FunctionError", "InvocationFailure")},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				m := meta
				m.Source = c.source
				config := Config{Function: &Function{ARN: "arn:f", Retries: 2, Buffer: record.Hints{Bytes: 1 << 20}}}
				out, failed, stats, err := NewChain(config, function(func(_ context.Context, arn string, payload []byte) (Answer, error) {
					calls++
					answer := c.answer
					for i, r := range parse(t, payload).Records {
						answer = strings.ReplaceAll(answer, fmt.Sprintf("$%d", i), r.RecordID)
					}
					return Answer{Payload: []byte(answer), FunctionError: c.function}, nil
				})).Process(t.Context(), records("a", "b"), m)
				if err != nil {
					t.Fatal(err)
				}
				same(t, show(out, failed), c.want)
				wantCalls := 1
				if strings.Contains(c.want, "attempts=3") {
					wantCalls = 3
				}
				if calls != wantCalls || stats.Invocations != calls {
					t.Errorf("%d invocations, counted %d, want %d", calls, stats.Invocations, wantCalls)
				}
				for _, f := range failed {
					if f.Message == "" || f.Ended.IsZero() {
						t.Errorf("a failure without words or time: %+v", f)
					}
				}
			})
		})
	}
}

const (
	missing = `
failed 0.0 "a" processing-failed Lambda.MissingRecordId attempts=1 function
failed 1.0 "b" processing-failed Lambda.MissingRecordId attempts=1 function`
	invalid = `
failed 0.0 "a" processing-failed Lambda.InvalidReturnFormat attempts=1 function
failed 1.0 "b" processing-failed Lambda.InvalidReturnFormat attempts=1 function`
	notJSON = `
failed 0.0 "a" processing-failed Lambda.JsonProcessingException attempts=1 function
failed 1.0 "b" processing-failed Lambda.JsonProcessingException attempts=1 function`
	raised = `
failed 0.0 "a" processing-failed Lambda.FunctionError attempts=3 function
failed 1.0 "b" processing-failed Lambda.FunctionError attempts=3 function`
	timedOut = `
failed 0.0 "a" processing-failed Lambda.FunctionTimedOut attempts=3 function
failed 1.0 "b" processing-failed Lambda.FunctionTimedOut attempts=3 function`
)

func manyKeys(n int) string {
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprintf(`"k%d":"v"`, i))
	}
	return strings.Join(keys, ",")
}

func TestInvocationErrorsAreRetried(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"a code", &InvokeError{Code: "Lambda.InvokeAccessDenied", Message: "no"}, "Lambda.InvokeAccessDenied"},
		{"a code in another error", fmt.Errorf("invoke: %w", &InvokeError{Code: "Lambda.ServiceUnavailable"}), "Lambda.ServiceUnavailable"},
		{"throttled", &InvokeError{Throttled: true}, "Lambda.InvokeLimitExceeded"},
		{"nothing known", errors.New("connection refused"), "Lambda.InvocationFailure"},
		{"never answered", nil, "Lambda.FunctionRequestTimedOut"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, calls := time.Now(), 0
				f := function(func(ctx context.Context, _ string, payload []byte) (Answer, error) {
					calls++
					if c.err == nil {
						<-ctx.Done()
						return Answer{}, ctx.Err()
					}
					return Answer{}, c.err
				})
				config := Config{Function: &Function{ARN: "arn:f", Retries: 3, Buffer: record.Hints{Bytes: 1 << 20}}}
				out, failed, stats, err := NewChain(config, f).Process(t.Context(), records("a"), meta)
				if err != nil || len(out) != 0 || len(failed) != 1 {
					t.Fatalf("%v %v %v", out, failed, err)
				}
				if failed[0].Code != c.want || failed[0].Attempts != 4 || calls != 4 || stats.FailedInvocations != 4 {
					t.Errorf("after %d calls: %+v", calls, failed[0])
				}
				if took := time.Since(start); c.err == nil && took < 20*time.Minute || took < 500*time.Millisecond {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func TestARetryThatSucceedsLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		f := function(func(_ context.Context, _ string, payload []byte) (Answer, error) {
			if calls++; calls < 3 {
				return Answer{FunctionError: "Unhandled"}, nil
			}
			return echo(t, payload), nil
		})
		got, stats := run1(t, Config{Function: &Function{ARN: "arn:f", Retries: 3, Buffer: record.Hints{Bytes: 1 << 20}}}, f, records("a", "b"))
		same(t, got, "0.0 \"a\"\n1.0 \"b\"")
		if stats.Invocations != 3 || stats.FailedInvocations != 2 || stats.Processed != (Count{2, 2}) {
			t.Errorf("counted %+v", stats)
		}
	})
}

func echo(t testing.TB, payload []byte) Answer {
	var b strings.Builder
	b.WriteString(`{"records":[`)
	for i, r := range parse(t, payload).Records {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"recordId":%q,"result":"Ok","data":%q}`, r.RecordID, base64.StdEncoding.EncodeToString(r.Data))
	}
	b.WriteString(`]}`)
	return Answer{Payload: []byte(b.String())}
}

func TestAnEndedContextDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		f := function(func(context.Context, string, []byte) (Answer, error) {
			return Answer{FunctionError: "Unhandled"}, nil
		})
		config := Config{Function: &Function{ARN: "arn:f", Retries: 300, Buffer: record.Hints{Bytes: 1 << 20}}}
		out, failed, _, err := NewChain(config, f).Process(ctx, records("a"), meta)
		if !errors.Is(err, context.DeadlineExceeded) || out != nil || failed != nil {
			t.Errorf("got %v, %v, %v", out, failed, err)
		}
	})
}

func TestBatchesAreSplit(t *testing.T) {
	var sizes []string
	f := function(func(_ context.Context, _ string, payload []byte) (Answer, error) {
		e := parse(t, payload)
		if len(payload) > MaxPayload {
			t.Errorf("an event of %d bytes", len(payload))
		}
		sizes = append(sizes, fmt.Sprint(len(e.Records)))
		return echo(t, payload), nil
	})
	mega := strings.Repeat("x", 1<<20)
	config := func(buffer int64) Config {
		return Config{Function: &Function{ARN: "arn:f", Buffer: record.Hints{Bytes: buffer}}}
	}
	for _, c := range []struct {
		name   string
		buffer int64
		in     []string
		want   string
		failed int
	}{
		{"by the buffer", 10, []string{"aaaa", "bbbb", "cc", "d", "eeeeeeeeeeeeee", "f"}, "3 1 1 1", 0},
		{"by the payload", 100 << 20, []string{mega, mega, mega, mega, mega}, "4 1", 0},
		{"a record too large for any", 1 << 20, []string{"a", strings.Repeat("x", 5<<20), "b"}, "1 1", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			sizes = nil
			out, failed, _, err := NewChain(config(c.buffer), f).Process(t.Context(), records(c.in...), meta)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(sizes, " "); got != c.want {
				t.Errorf("invocations of %s records, want %s", got, c.want)
			}
			if len(failed) != c.failed || len(out)+len(failed) != len(c.in) {
				t.Errorf("%d records, %d failed of %d", len(out), len(failed), len(c.in))
			}
			for _, f := range failed {
				if f.Code != "Lambda.InvocationFailure" {
					t.Errorf("failed: %s", f.Code)
				}
			}
		})
	}
}

func TestRoutesToTables(t *testing.T) {
	config, err := Parse(configuration(true, `MetadataExtraction|JsonParsingEngine=JQ-1.6|MetadataExtractionQuery={destinationDatabaseName: "d", destinationTableName: .t, operation: .op}`), Context{Routing: true})
	if err != nil {
		t.Fatal(err)
	}
	in := records(`{"t":"a","op":"update"}`, `{"t":"b"}`, `{"op":"insert"}`, `{"t":"c"}`)
	in[3].Table = &record.Table{Database: "x", Name: "y"} // what a function said comes first
	got, _ := run1(t, config, nil, in)
	same(t, got, `
0.0 "{\"t\":\"a\",\"op\":\"update\"}" table=d.a/update
1.0 "{\"t\":\"b\"}" table=d.b/
3.0 "{\"t\":\"c\"}" table=x.y/
failed 2.0 "{\"op\":\"insert\"}" processing-failed DynamicPartitioning.MetadataExtractionFailed attempts=1`)
}

func TestOrderOfSteps(t *testing.T) {
	f := function(func(_ context.Context, _ string, payload []byte) (Answer, error) {
		var b strings.Builder
		for i, r := range parse(t, payload).Records {
			if i > 0 {
				b.WriteByte(',')
			}
			data := strings.Replace(string(r.Data), `}`, `,"f":true}`, 1)
			fmt.Fprintf(&b, `{"recordId":%q,"result":"Ok","data":%q,"metadata":{"partitionKeys":{"n":%d}}}`, r.RecordID, base64.StdEncoding.EncodeToString([]byte(data)), i)
		}
		return Answer{Payload: []byte(`{"records":[` + b.String() + `]}`)}, nil
	})
	envelope := zipped(`{"messageType":"DATA_MESSAGE","logEvents":[{"message":"{\"a\":1}"},{"message":"{\"a\":2}"}]}`)
	got, _ := run1(t, Config{
		Decompress: true, LogMessages: true, Split: &Split{}, Append: []byte("\n"), Query: mustQuery(t, `{a:.a,f:.f}`),
		Function: &Function{ARN: "arn:f", Buffer: record.Hints{Bytes: 1 << 20}},
	}, f, records(envelope))
	same(t, got, `
0.0 "{\"a\":1,\"f\":true}\n" query=map[a:1 f:true] function=map[n:0]
0.1 "{\"a\":2,\"f\":true}\n" query=map[a:2 f:true] function=map[n:1]`)
}
