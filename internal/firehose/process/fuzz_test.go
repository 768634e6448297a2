package process

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/firehose/record"
)

// Whatever a function answers, every record is accounted for once, and an answer
// is JSON to this package exactly if it is JSON.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		`{"records":[{"recordId":"49540000000","result":"Ok","data":"QQ=="},{"recordId":"49541000000","result":"Dropped"}]}`,
		`{"records":[{"recordId":"49541000000","result":"ProcessingFailed"},{"recordId":"49541000000","result":"Ok","data":null}]}`,
		`{"records":[{"recordId":"\u0034\u0039540000000","result":"Ok","data":"QQ==","metadata":{"partitionKeys":{"a":"b"},"otfMetadata":{"operation":"insert"}}}]}`,
		`{"errorMessage":"x","errorType":"y"}`, `null`, `[]`, `{`, `"`, `{"records":{}}`, `{"records":[[[[1e5,-0.1,true]]]]}`, "Task timed out after 3.00 seconds",
	} {
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, answer []byte, functionError string) {
		in := records("a", "b", "c")
		chain := NewChain(Config{Function: &Function{ARN: "arn:f", Buffer: record.Hints{Bytes: 1 << 20}}},
			function(func(context.Context, string, []byte) (Answer, error) {
				return Answer{Payload: answer, FunctionError: functionError}, nil
			}))
		out, failed, stats, err := chain.Process(t.Context(), in, meta)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(out) + len(failed) + stats.Dropped; got != len(in) {
			t.Errorf("%d of %d records are accounted for", got, len(in))
		}
		last := -1
		for _, r := range out {
			if int(r.Index) <= last {
				t.Error("records are out of order")
			}
			last = int(r.Index)
		}
		if functionError == "" && len(failed) == 3 && failed[0].Code == codeNotJSON && json.Valid(answer) && bytes.Count(answer, []byte("["))+bytes.Count(answer, []byte("{")) < maxDepth {
			t.Errorf("%q is JSON", answer)
		}
		// The standard library knows more of escapes and control characters; what
		// it reads as an answer has to be read so here.
		var reply struct {
			Records []struct {
				RecordID string `json:"recordId"`
				Result   string `json:"result"`
				Data     *string
			} `json:"records"`
		}
		if functionError == "" && len(failed) == 0 && len(out) == 3 {
			if json.Unmarshal(answer, &reply) == nil && len(reply.Records) < 3 {
				t.Errorf("three records out of %q", answer)
			}
		}
	})
}

func FuzzQueries(f *testing.F) {
	for _, p := range []string{`{a: .a}`, `{a: (.ts | strftime("%Y"))}`, `{a: (.x | gsub("a"; "b"))}`, `.`, `{a: [.[] | tostring] | join(",")}`, `{a: (reduce .[] as $x (0; . + $x))}`, `{a: (.b |= . * 2 | .b)}`, `{a: "\(.a)-\(.b)"}`, `{a: @base32 "x\(.a)"}`, `{a: (.a[1:] = [1])}`, `. as [$x] ?// $x | {a: $x}`} {
		f.Add(p, []byte(`{"a":"x","b":[1,2.5,{"c":null}],"ts":1716369573}`))
	}
	f.Add(`{a: .a}`, []byte(`{"a":1}{"a":2}`))
	f.Add(`{a: .a}`, []byte(`{"\ud800":"\udc00\u0000"}`))
	f.Fuzz(func(t *testing.T, program string, data []byte) {
		if strings.Contains(program, "now") || strings.Contains(program, "range") {
			t.Skip()
		}
		q, err := NewQuery(program)
		if err != nil {
			return
		}
		keys, err := q.Run(data)
		whole := *q
		whole.whole, whole.paths = true, nil
		if same, sameErr := whole.Run(data); fmt.Sprint(keys) != fmt.Sprint(same) || (err == nil) != (sameErr == nil) {
			t.Errorf("%s of %q: %v (%v), of the record as a whole %v (%v)", program, data, keys, err, same, sameErr)
		}
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		size := 0
		for k, v := range keys {
			size += len(k) + len(v)
			if v == "" {
				t.Errorf("key %q is empty", k)
			}
		}
		if len(keys) > maxKeys || size > maxKeyBytes {
			t.Errorf("%d keys of %d bytes", len(keys), size)
		}
	})
}

// Programs of paths run on text; the interpreter has to agree.
func FuzzPaths(f *testing.F) {
	for _, s := range []string{
		`{"a":"x","b":{"c":"y"}}`, `{"a":1,"b":{"c":true}}`, `{"a":"","b":{"c":null}}`, `{"b":{"c":"z","c":"y"},"a":"x"}`, `{"a":1.5e3,"b":{"c":-0}}`,
		`{"a":"\u0041\ud83d","b":{"\u0063":"y"}}`, `{"a":"x","b":[{"c":1}]}`, `{"a":"x","b":{"c":12345678901234567890}}`, ` {"z":[{},[1,2],"\\"],"a":"x","b":{"d":{},"c":7}} `, `{"a":"x","b":{"c":"y"}} 1`,
		`{"a":"x","b":{"c":"y"},"z":"\q"}`, `{"a":"x","b":{"c":"y"},"\q":1}`,
	} {
		f.Add([]byte(s))
	}
	q := mustQuery(f, `{a, c: .b.c, again: .a, "q": ."a"}`)
	if q.paths == nil {
		f.Fatal("a program of paths is not recognised")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := q.Run(data)
		want, wantErr := q.interpret(data)
		if fmt.Sprint(got, err) != fmt.Sprint(want, wantErr) {
			t.Errorf("%q: %v (%v), the interpreter says %v (%v)", data, got, err, want, wantErr)
		}
		if err == nil {
			// What an extraction has seen before does not change what it says.
			var e extraction
			for _, text := range [][]byte{data, []byte(`{"a":"x","b":{"c":"y"}}`), []byte(`{"a":"xy","b":{"c":""}}`), data} {
				same, err := q.run(&e, text)
				want, wantErr := q.interpret(text)
				if (err == nil) != (wantErr == nil) || err == nil && fmt.Sprint(same.Query) != fmt.Sprint(want) {
					t.Errorf("%q: again %v (%v), want %v (%v)", text, same, err, want, wantErr)
				}
			}
		}
	})
}

func TestProgramsOfPaths(t *testing.T) {
	for program, want := range map[string]bool{
		`{a: .a}`: true, `{a}`: true, `{"a": .b."c d".e}`: true, `{a: .["x"].y}`: true, `{"a b"}`: true,
		`{a: .a?}`: false, `{a: .a[0]}`: false, `{a: .a[]}`: false, `{a: (.a)}`: false, `{a: .}`: false, `{a: 1}`: false, `{a: .a, a: .b}`: false,
		`{(.a): .b}`: false, `{a: .a} | .`: false, `{a: .["x\(1)"]}`: false, `{a: .a.b[1:2]}`: false, `{}`: false, `def f: 1; {a: .a}`: false, `{a: .a // "x"}`: false,
	} {
		if got := mustQuery(t, program).paths != nil; got != want {
			t.Errorf("%s is a program of paths: %v, want %v", program, got, want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(zipped(`{"messageType":"DATA_MESSAGE","logEvents":[{"message":"a"}]}`)))
	f.Add([]byte(zipped(`{"messageType":"CONTROL_MESSAGE"}`)))
	f.Add([]byte(zipped("")))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := records(string(data), zipped(string(data)), string(data))
		for _, c := range []Config{
			{Decompress: true},
			{Decompress: true, LogMessages: true},
			{Split: &Split{}},
			{Split: &Split{Delimiter: []byte("\n")}},
			{Append: []byte("\n")},
		} {
			out, failed, _, err := NewChain(c, nil).Process(t.Context(), in, meta)
			if err != nil {
				t.Fatal(err)
			}
			places := map[record.Position]bool{}
			for _, r := range out {
				if places[r.Position] {
					t.Errorf("two records at %v", r.Position)
				}
				places[r.Position] = true
			}
			if c.Decompress && !c.LogMessages && len(out)+len(failed) != 3 {
				t.Errorf("%d records of 3", len(out)+len(failed))
			}
			if c.Decompress && !c.LogMessages && !bytes.Equal(out[min(1, len(out)-1)].Data, data) && len(out) == 1 {
				t.Error("decompressed is not what was compressed")
			}
			for _, r := range failed {
				if r.Record.Original == nil && !bytes.Equal(r.Record.Data, in[r.Record.Index].Data) {
					t.Error("a failure does not show what arrived")
				}
			}
		}
	})
}

var line = `{"timestamp":"2026-07-13T14:05:09.123Z","level":"INFO","service":"checkout","customer":{"id":"c-%d","tier":"gold"},"requestId":"8f3a1c8f3a1c8f3a1c","path":"/api/v1/orders/17","status":200,"latencyMs":12.345,"tags":["a","b","c"],"userAgent":"` + strings.Repeat("Mozilla/5.0 (X11; Linux x86_64) ", 20) + `"}`

func lines(n int) []record.Record {
	data := make([]string, n)
	for i := range data {
		data[i] = fmt.Sprintf(line, i%50)
	}
	return records(data...)
}

func size(in []record.Record) (n int64) {
	for i := range in {
		n += int64(len(in[i].Data))
	}
	return n
}

func benchmark(b *testing.B, c Config, invoker Invoker, in []record.Record) {
	chain := NewChain(c, invoker)
	b.SetBytes(size(in))
	b.ReportAllocs()
	for b.Loop() {
		out, failed, _, err := chain.Process(b.Context(), in, meta)
		if err != nil || len(failed) > 0 || len(out) == 0 {
			b.Fatal(err, len(out), failed)
		}
	}
}

func BenchmarkProcess(b *testing.B) {
	in := lines(500)
	b.Run("step=delimiter", func(b *testing.B) { benchmark(b, Config{Append: []byte("\n")}, nil, in) })
	for _, q := range []struct{ name, text string }{
		{"path", `{customer: .customer.id, level: .level}`},
		{"time", `{customer: .customer.id, year: (.timestamp[0:4])}`},
		{"functions", `{customer: (.customer.id | ascii_upcase), ok: (.status < 400)}`},
	} {
		b.Run("step=query/query="+q.name, func(b *testing.B) { benchmark(b, Config{Query: mustQuery(b, q.text)}, nil, in) })
	}
	b.Run("step=split", func(b *testing.B) {
		joined := strings.Repeat(fmt.Sprintf(line, 1)+"\n", 400)
		benchmark(b, Config{Split: &Split{}}, nil, records(joined))
	})
	b.Run("step=decompress", func(b *testing.B) {
		var small []string
		for range 50 {
			small = append(small, zipped(strings.Repeat(fmt.Sprintf(line, 1)+"\n", 20)))
		}
		benchmark(b, Config{Decompress: true}, nil, records(small...))
	})
	b.Run("step=function", func(b *testing.B) {
		// The answer is made once, so this is the work on this side alone.
		var answer []byte
		f := function(func(_ context.Context, _ string, payload []byte) (Answer, error) {
			if answer == nil {
				var out bytes.Buffer
				out.WriteString(`{"records":[`)
				for i, r := range parse(b, payload).Records {
					if i > 0 {
						out.WriteByte(',')
					}
					fmt.Fprintf(&out, `{"recordId":%q,"result":"Ok","data":%q}`, r.RecordID, base64.StdEncoding.EncodeToString(r.Data))
				}
				out.WriteString(`]}`)
				answer = out.Bytes()
			}
			return Answer{Payload: answer}, nil
		})
		benchmark(b, Config{Function: &Function{ARN: "arn:f", Buffer: record.Hints{Bytes: 1 << 20}}}, f, in)
	})
}
