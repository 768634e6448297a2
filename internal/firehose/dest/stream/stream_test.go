package stream

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codedError is an error of the API.
type codedError string

func (e codedError) Error() string     { return "stream " + string(e) }
func (e codedError) ErrorCode() string { return string(e) }

// shelf is the streams of a server, by ARN.
type shelf struct {
	mu      sync.Mutex
	streams map[string]*stored
	opened  int
}

type stored struct {
	mu      sync.Mutex
	gone    bool
	records []Record
	writes  []int
	fault   desttest.Fault
	// refuse says what becomes of a record; nil stores it.
	refuse func(r Record) Result
}

func (s *shelf) open(arn string) (Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if st := s.streams[arn]; st != nil {
		return st, nil
	}
	return nil, codedError("ResourceNotFoundException")
}

func (s *stored) Write(ctx context.Context, records []Record) ([]Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return nil, codedError("ResourceNotFoundException")
	case s.fault == desttest.Hang:
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return nil, context.Cause(ctx)
	case s.fault == desttest.Unavailable:
		return nil, errors.New("the disk is full")
	case s.fault == desttest.Nonsense:
		return make([]Result, len(records)-1), nil
	}
	s.writes = append(s.writes, len(records))
	results := make([]Result, len(records))
	for i, r := range records {
		if n := utf8.RuneCountInString(r.Key); n < 1 || n > 256 {
			results[i] = Result{Code: "ValidationException", Message: "the key"}
			continue
		}
		if s.refuse != nil {
			if results[i] = s.refuse(r); results[i].Code != "" {
				continue
			}
		}
		s.records = append(s.records, Record{Key: r.Key, Data: slices.Clone(r.Data)})
	}
	return results, nil
}

func (s *stored) data() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []byte
	for _, r := range s.records {
		all = append(all, r.Data...)
	}
	return all
}

const arn = "arn:aws:kinesis:us-east-1:000000000000:stream/target"

func open(t *testing.T, c Config, s *shelf) *Destination {
	t.Helper()
	if c.Stream == "" {
		c.Stream = "target"
	}
	d, err := New(c, Deps{Open: s.open})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestContract(t *testing.T) {
	desttest.Run(t, desttest.Harness{
		Open: func(t *testing.T) *desttest.Peer {
			st := &stored{refuse: func(r Record) Result {
				if strings.HasPrefix(string(r.Data), "large") {
					return Result{Code: "ValidationException", Message: "too large"}
				}
				return Result{}
			}}
			return &desttest.Peer{
				Destination: open(t, Config{}, &shelf{streams: map[string]*stored{arn: st}}),
				Stored:      func(t *testing.T) []desttest.Entry { return desttest.Parse(t, st.data()) },
				Break: func(_ *testing.T, f desttest.Fault) func() {
					set := func(f desttest.Fault) { st.mu.Lock(); defer st.mu.Unlock(); st.fault = f }
					set(f)
					return func() { set("") }
				},
			}
		},
		Refused:     func(n int) []byte { return fmt.Appendf(nil, "large %d", n) },
		RefusedCode: "Kinesis.ValidationException",
		Codes:       []string{"Kinesis."},
		Duplicates:  true,
		Faults:      []desttest.Fault{desttest.Unavailable, desttest.Hang, desttest.Nonsense},
		LargeBytes:  8 << 20, Memory: 64 << 20,
	})
}

func TestKeys(t *testing.T) {
	long := strings.Repeat("ü", 300)
	sequence := fmt.Sprintf("4%055d", 7)
	for _, c := range []struct {
		key       Key
		source    string
		partition string
		sub       uint32
		want      string
	}{
		{"", "k", "", 0, "k"},
		{KeySource, "", "", 0, sequence},
		{KeySource, "", "", 3, sequence + ".3"},
		{KeySource, long, "", 0, strings.Repeat("ü", 256)},
		{KeySequence, "k", "", 0, sequence},
		{KeyPrefix, "k", "a=1/", 0, "a=1/"},
		{KeyPrefix, "k", "", 0, "suite"},
		{KeyLane, "k", "", 0, "shardId-000000000003"},
	} {
		st := &stored{}
		b := record.Of(desttest.Stream, desttest.ID(1), record.Record{
			Data: []byte("x"), Lane: desttest.Lane("shardId-000000000003"), Position: record.Position{Index: 7, Sub: c.sub}, PartitionKey: []byte(c.source),
		})
		b.Partition = c.partition
		if _, err := open(t, Config{Key: c.key}, &shelf{streams: map[string]*stored{arn: st}}).Deliver(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if got := st.records[0].Key; got != c.want {
			t.Errorf("%+v gave %q", c, got)
		}
	}
}

func batch(n, size int) *record.Batch {
	var records []record.Record
	for i := range n {
		records = append(records, record.Record{Data: make([]byte, size), Position: record.Position{Index: uint64(i)}})
	}
	return record.Of(desttest.Stream, desttest.ID(1), records...)
}

func TestWritesAreBounded(t *testing.T) {
	for _, c := range []struct {
		n, size int
		want    []int
	}{
		{1000, 10, []int{500, 500}},
		{501, 10, []int{500, 1}},
		{10, 1 << 20, []int{4, 4, 2}},
		{2, 10 << 20, []int{1, 1}},
		{3, 0, []int{3}},
	} {
		st := &stored{}
		r, err := open(t, Config{}, &shelf{streams: map[string]*stored{arn: st}}).Deliver(t.Context(), batch(c.n, c.size))
		if err != nil || !slices.Equal(st.writes, c.want) || r.Objects[0].Records != c.n || r.Objects[0].Name != arn {
			t.Errorf("%d records of %d: writes of %v, %+v, %v", c.n, c.size, st.writes, r.Objects, err)
		}
	}
}

func TestThrottledRecordsAreTriedAgain(t *testing.T) {
	n := 0
	st := &stored{refuse: func(Record) Result {
		if n++; n%2 == 0 {
			return Result{Code: "ProvisionedThroughputExceededException", Message: "slowly", Retry: true}
		}
		return Result{}
	}}
	r, err := open(t, Config{}, &shelf{streams: map[string]*stored{arn: st}}).Deliver(t.Context(), batch(4, 1))
	if err != nil || len(r.Failed) != 2 || !r.Failed[0].Retry || r.Failed[0].Index != 1 || r.Failed[0].Code != "Kinesis.ProvisionedThroughputExceededException" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A stream that was deleted and made anew is found again; what was stored before
// a failure is not sent again.
func TestStreamsComeAndGo(t *testing.T) {
	s := &shelf{streams: map[string]*stored{}}
	d := open(t, Config{}, s)
	var e *dest.Error
	if _, err := d.Deliver(t.Context(), batch(1, 1)); !errors.As(err, &e) || e.Code != "Kinesis.ResourceNotFoundException" || e.Permanent {
		t.Errorf("no stream: %v", err)
	}
	first, second := &stored{}, &stored{}
	s.streams[arn] = first
	if _, err := d.Deliver(t.Context(), batch(1, 1)); err != nil {
		t.Error(err)
	}
	first.gone, s.streams[arn] = true, second
	if _, err := d.Deliver(t.Context(), batch(1, 1)); !errors.As(err, &e) || e.Permanent {
		t.Errorf("a stream that is gone: %v", err)
	}
	if _, err := d.Deliver(t.Context(), batch(1, 1)); err != nil || len(second.records) != 1 {
		t.Errorf("a stream made anew: %v", err)
	}
	calls := 0
	second.records = nil
	second.refuse = func(Record) Result {
		if calls++; calls == 500 {
			second.fault = desttest.Unavailable // the next write fails
		}
		return Result{}
	}
	r, err := d.Deliver(t.Context(), batch(1200, 1))
	if err != nil || len(r.Failed) != 700 || r.Failed[0].Index != 500 || !r.Failed[699].Retry || r.Objects[0].Records != 500 {
		t.Errorf("%d failed, %v", len(r.Failed), err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ stream, source, want string }{
		{"target", "", arn},
		{"arn:aws:kinesis:eu-central-1:111122223333:stream/other", "", "arn:aws:kinesis:eu-central-1:111122223333:stream/other"},
		{"target", arn, ""},
	} {
		st := &stored{}
		b := batch(1, 1)
		b.Stream.SourceARN = c.source
		_, err := open(t, Config{Stream: c.stream}, &shelf{streams: map[string]*stored{c.want: st}}).Deliver(t.Context(), b)
		var e *dest.Error
		if c.want == "" && (!errors.As(err, &e) || !e.Permanent) || c.want != "" && err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := New(Config{Stream: "a", Key: "b"}, Deps{}); err == nil {
		t.Error("a key that does not exist")
	}
	if _, err := New(Config{}, Deps{}); err == nil {
		t.Error("no stream")
	}
}

// The settings of an operator's file.
func TestSettings(t *testing.T) {
	var c Config
	err := yaml.UnmarshalWithOptions([]byte(`
stream: s
key: lane
`), &c, yaml.Strict())
	want := Config{Stream: "s", Key: KeyLane}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
}
