package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// list is a form with separators; it does not take records that begin with '!'.
type list struct{}

func (list) Size(r *record.Record, first bool) int {
	if len(r.Data) > 0 && r.Data[0] == '!' {
		return -1
	}
	if first {
		return len(r.Data)
	}
	return len(r.Data) + 1
}

func (list) Append(b []byte, r *record.Record, first bool) []byte {
	if !first {
		b = append(b, ',')
	}
	return append(b, r.Data...)
}

// batch counts how often it is read, and destroys what it has handed out.
func batch(reads *int, texts ...string) *record.Batch {
	b := record.NewBatch(func(f func(int, *record.Record) error) error {
		*reads++
		for i, text := range texts {
			if text == "unreadable" {
				return errors.New("unreadable")
			}
			data := []byte(text)
			err := f(i, &record.Record{Data: data, Position: record.Position{Index: uint64(i)}})
			for k := range data {
				data[k] = '#'
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	b.Count = len(texts)
	return b
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		texts   string
		limits  Limits
		want    string
		refused []int
	}{
		{"all in one", "a b c", Limits{10, 100}, "a,b,c", nil},
		{"by number", "a b c d e", Limits{2, 100}, "a,b|c,d|e", nil},
		{"by size, separators counted", "aa bb cc", Limits{10, 5}, "aa,bb|cc", nil},
		{"just fits alone", "aaaaa bbbbb", Limits{10, 5}, "aaaaa|bbbbb", nil},
		{"does not fit alone", "a bbbbbb c d", Limits{10, 5}, "a|c,d", []int{1}},
		{"not taken", "!x a !y b c !z", Limits{10, 5}, "a|b,c", []int{0, 2, 5}},
		{"nothing", "", Limits{10, 5}, "", nil},
		{"nothing is taken", "!a !b", Limits{10, 5}, "", []int{0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var reads int
			b := batch(&reads, strings.Fields(c.texts)...)
			parts, refused, err := Plan(b, 0, b.Count, list{}, c.limits)
			if err != nil || !slices.Equal(refused, c.refused) {
				t.Fatalf("refused %v, %v; want %v", refused, err, c.refused)
			}
			s := NewSource(b, list{})
			defer s.Close()
			var got []string
			for _, p := range parts {
				body := s.Body([]byte("<"), p, []byte(">"))
				text, err := io.ReadAll(body)
				if err != nil {
					t.Fatal(err)
				}
				if int64(len(text)) != p.Bytes+2 || p.First.Index != uint64(p.From) || p.Last.Index != uint64(p.To-1) {
					t.Errorf("%+v is %q", p, text)
				}
				got = append(got, strings.Trim(string(text), "<>"))
				_ = body.Close()
			}
			if text := strings.Join(got, "|"); text != c.want {
				t.Errorf("got %s, want %s", text, c.want)
			}
			if len(parts) > 0 && reads != 2 {
				t.Errorf("the batch was read %d times, want 2", reads)
			}
		})
	}
}

func TestBodiesInAnyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	var texts []string
	for i := range 500 {
		texts = append(texts, fmt.Sprint(i)+strings.Repeat("x", random.IntN(3000)))
	}
	var reads int
	b := batch(&reads, texts...)
	s := NewSource(b, list{})
	defer s.Close()
	parts, _, err := Plan(b, 0, b.Count, list{}, Limits{40, 90_000})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		p := parts[random.IntN(len(parts))]
		if p.Records() > 1 && random.IntN(3) == 0 {
			halves, err := Halve(b, p, list{})
			if err != nil || len(halves) != 2 || halves[0].From != p.From || halves[1].To != p.To || halves[0].To != halves[1].From {
				t.Fatalf("%+v halved is %+v, %v", p, halves, err)
			}
			p = halves[random.IntN(2)]
		}
		body := s.Body([]byte("["), p, []byte("]"))
		want := "[" + strings.Join(texts[p.From:p.To], ",") + "]"
		if random.IntN(3) == 0 { // given up in the middle
			n := random.IntN(len(want))
			text := make([]byte, n)
			if _, err := io.ReadFull(body, text); err != nil || string(text) != want[:n] {
				t.Fatalf("the beginning of %+v differs: %v", p, err)
			}
			_ = body.Close()
			if _, err := body.Read(make([]byte, 1)); err == nil {
				t.Fatal("a closed body was read")
			}
			continue
		}
		text, err := io.ReadAll(iotest.OneByteReader(bufferless{body}))
		if err != nil || string(text) != want {
			t.Fatalf("%+v: %d bytes, want %d, %v", p, len(text), len(want), err)
		}
		if random.IntN(2) == 0 {
			_ = body.Close()
		}
	}
}

type bufferless struct{ io.Reader }

func TestErrorsOfTheBatch(t *testing.T) {
	var reads int
	if _, _, err := Plan(batch(&reads, "a", "unreadable"), 0, 2, list{}, Limits{10, 10}); err == nil || err.Error() != "unreadable" {
		t.Errorf("Plan: %v", err)
	}
	for _, texts := range [][]string{{"a", "unreadable"}, {"a"}} {
		b := batch(&reads, texts...)
		s := NewSource(b, list{})
		_, err := io.ReadAll(s.Body(nil, Part{From: 0, To: 2}, nil))
		if err == nil || s.Err() == nil {
			t.Errorf("%v: %v", texts, err)
		}
		s.Close()
		if _, err := io.ReadAll(s.Body(nil, Part{From: 0, To: 1}, nil)); err != nil && s.Err() == nil {
			t.Errorf("after Close: %v", err)
		}
		s.Close()
	}
}

func TestBlocks(t *testing.T) {
	var b Blocks
	var want bytes.Buffer
	for i := range 3000 {
		text := bytes.Repeat([]byte{byte(i)}, i%200)
		_, _ = b.Write(text)
		want.Write(text)
	}
	for range 2 {
		r := b.Reader()
		if err := iotest.TestReader(struct{ io.Reader }{b.Reader()}, want.Bytes()); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("a closed reader was read")
		}
	}
	if b.Len() != int64(want.Len()) {
		t.Errorf("length %d, want %d", b.Len(), want.Len())
	}
	b.Free()
	if b.Len() != 0 {
		t.Error("not empty")
	}
}
