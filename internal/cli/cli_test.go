package cli

import (
	"bufio"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
)

func bigInt(n int64) *big.Int { return big.NewInt(n) }

func TestParsePosition(t *testing.T) {
	now := time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC)
	number := strings.Repeat("4", 56)
	tests := []struct {
		in       string
		kind     kinesis.ShardIteratorType
		at       time.Time
		sequence string
		fails    bool
	}{
		{in: "trim", kind: kinesis.ShardIteratorTypeTrimHorizon},
		{in: "latest", kind: kinesis.ShardIteratorTypeLatest},
		{in: "15m", kind: kinesis.ShardIteratorTypeAtTimestamp, at: now.Add(-15 * time.Minute)},
		{in: "-15m", kind: kinesis.ShardIteratorTypeAtTimestamp, at: now.Add(-15 * time.Minute)},
		{in: "2026-01-30T09:00:00Z", kind: kinesis.ShardIteratorTypeAtTimestamp, at: now.AddDate(0, 0, -1)},
		{in: number, kind: kinesis.ShardIteratorTypeAtSequenceNumber, sequence: number},
		{in: "yesterday", fails: true},
		{in: "12", fails: true},
		{in: "", fails: true},
	}
	for _, tt := range tests {
		got, err := parsePosition(tt.in, now)
		if (err != nil) != tt.fails {
			t.Errorf("parsePosition(%q): error %v, want failure %t", tt.in, err, tt.fails)
			continue
		}
		if got.kind != tt.kind || !got.at.Equal(tt.at) || got.sequence != tt.sequence {
			t.Errorf("parsePosition(%q) = %+v", tt.in, got)
		}
	}
}

func TestSameShard(t *testing.T) {
	for typed, want := range map[string]bool{
		"shardId-000000000012": true, "12": true, "shardId-12": true, "x-0012": true,
		"1": false, "shardId-": false, "twelve": false,
	} {
		if got := sameShard("shardId-000000000012", typed); got != want {
			t.Errorf("sameShard(%q) = %t, want %t", typed, got, want)
		}
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	b := bufio.NewReaderSize(strings.NewReader("one\r\n\ntwo\n"+long+"\nlast"), 16)
	var got []string
	for {
		line, err := readLine(b)
		got = append(got, string(line))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"one", "", "two", long, "last"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("read %d lines, want %d", len(got), len(want))
	}
}

func TestKeyFromRecord(t *testing.T) {
	k, err := newKeyer("", ".customer")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		`{"customer":"a"}`: "a",
		`{"customer":7}`:   "7",
	} {
		if got, err := k.of([]byte(in)); err != nil || got != want {
			t.Errorf("key of %s = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`{}`, `{"customer":""}`, `not JSON`} {
		if got, err := k.of([]byte(in)); err == nil {
			t.Errorf("key of %s = %q, want an error", in, got)
		}
	}
	if _, err := newKeyer("fixed", ".x"); err == nil {
		t.Error("a fixed key and an expression are accepted together")
	}
	if _, err := newKeyer("", ".x["); err == nil {
		t.Error("a malformed expression is accepted")
	}
}

func TestImportLines(t *testing.T) {
	tests := []struct {
		name, in, want, fails string
	}{
		{name: "text and base64", in: `{"partitionKey":"k","data":"a"}` + "\n\n" + `{"partitionKey":"k","dataBase64":"AAE="}`, want: "a\x00\x01"},
		{name: "unknown members are left aside", in: `{"partitionKey":"k","data":"a","shardId":"s","other":1}`, want: "a"},
		{name: "the line is named", in: "{\"partitionKey\":\"k\",\"data\":\"a\"}\n{", fails: "line 2"},
		{name: "key missing", in: `{"data":"a"}`, fails: "partitionKey is missing"},
		{name: "data missing", in: `{"partitionKey":"k"}`, fails: "data or dataBase64 is missing"},
		{name: "both kinds", in: `{"partitionKey":"k","data":"a","dataBase64":""}`, fails: "both"},
		{name: "malformed base64", in: `{"partitionKey":"k","dataBase64":"*"}`, fails: "dataBase64"},
	}
	for _, tt := range tests {
		var got strings.Builder
		err := eachImportLine(strings.NewReader(tt.in), "f", func(l *line, _ int) error {
			data, err := l.bytes()
			got.Write(data)
			return err
		})
		switch {
		case tt.fails == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.fails)
		case tt.fails == "" && got.String() != tt.want:
			t.Errorf("%s: %q, want %q", tt.name, got.String(), tt.want)
		}
	}
}
