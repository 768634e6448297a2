package desttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is a destination that posts a batch as lines, a chunk at a time, and
// the peer says which lines it refuses. flaw makes it wrong in one way.
type sample struct {
	url  string
	http *http.Client
	flaw string
}

const chunk = 256 << 10

func (d *sample) Close() error { d.http.CloseIdleConnections(); return nil }

func (d *sample) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	var (
		result dest.Result
		body   bytes.Buffer
		sent   int // records posted
		count  int // records in body
		lines  [][]byte
	)
	if d.flaw == "ignores the context" {
		ctx = context.WithoutCancel(ctx)
	}
	post := func() error {
		if count == 0 {
			return nil
		}
		refused, err := d.post(ctx, &body)
		if err != nil {
			return err
		}
		for _, i := range refused {
			index := sent + i
			if d.flaw == "counts from one" {
				index++
			}
			result.Failed = append(result.Failed, dest.Failure{Index: index, Code: "Sample.Refused", Message: "the line has no id"})
		}
		sent, count = sent+count, 0
		body.Reset()
		return nil
	}
	err := b.Each(func(i int, r *record.Record) error {
		if d.flaw == "keeps bytes that are not its own" {
			lines = append(lines, r.Data)
			return nil
		}
		if d.flaw == "turns pairs round" && i%2 == 0 && i+1 < b.Count {
			lines = append(lines[:0], bytes.Clone(r.Data))
			return nil
		}
		body.Write(r.Data)
		count++
		if d.flaw == "turns pairs round" && len(lines) > 0 {
			body.Write(lines[0])
			lines = nil
			count++
		}
		if body.Len() < chunk || d.flaw == "holds everything" {
			return nil
		}
		return post()
	})
	for _, line := range lines {
		body.Write(line)
		count++
	}
	if err != nil && d.flaw != "hides a failing buffer" {
		return dest.Result{}, asError(err)
	}
	if err := post(); err != nil {
		return dest.Result{}, asError(err)
	}
	if d.flaw == "delivers the last record twice" && b.Attempt > 1 {
		return result, errors.New("out of order")
	}
	result.Objects = []dest.Object{{Name: d.url, Records: b.Count - len(result.Failed), Bytes: b.Bytes}}
	if d.flaw == "counts what failed" {
		result.Objects[0].Records = b.Count
	}
	return result, nil
}

func asError(err error) error {
	var e *dest.Error
	if errors.As(err, &e) {
		return err
	}
	return &dest.Error{Code: "Sample.Failed", Message: err.Error(), Err: err}
}

func (d *sample) post(ctx context.Context, body io.Reader) ([]int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, body)
	if err != nil {
		return nil, err
	}
	reply, err := d.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = reply.Body.Close() }()
	if d.flaw == "takes any answer for a yes" {
		return nil, nil
	}
	if reply.StatusCode != http.StatusOK {
		e := &dest.Error{Code: "Sample.Status", Message: reply.Status}
		e.Permanent = d.flaw == "gives up too early"
		return nil, e
	}
	raw, err := io.ReadAll(io.LimitReader(reply.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	var refused []int
	return refused, json.Unmarshal(raw, &refused)
}

// shelf is the peer: it keeps lines in order.
type shelf struct {
	mu    sync.Mutex
	kept  bytes.Buffer
	count int
	only  bool // count
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	refused := []int{}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for line := range bytes.Lines(body) {
		switch {
		case !bytes.HasPrefix(line, []byte(`{"id":`)):
			refused = append(refused, n)
		case s.only:
			s.count++
		default:
			s.kept.Write(line)
		}
		n++
	}
	_ = json.NewEncoder(w).Encode(refused)
}

func harness(flaw string) Harness {
	return Harness{
		Open: func(t *testing.T) *Peer {
			s := &shelf{}
			server := NewHTTP(t, s)
			return &Peer{
				Destination: &sample{url: server.URL, http: &http.Client{Transport: &http.Transport{}}, flaw: flaw},
				Stored: func(t *testing.T) []Entry {
					s.mu.Lock()
					defer s.mu.Unlock()
					return Parse(t, s.kept.Bytes())
				},
				Break: server.Break,
				Discard: func() func() int {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.only = true
					return func() int { return s.count }
				},
			}
		},
		Refused:     func(n int) []byte { return append(plain(n), '\n') },
		RefusedCode: "Sample.Refused",
		Codes:       []string{"Sample."},
		Duplicates:  true,
		Faults:      HTTPFaults,
		Patience:    300 * time.Millisecond,
	}
}

// plain is a line without an object.
func plain(n int) []byte { return []byte(strings.ReplaceAll(Text(n, 9), "\n", " ")) }

func TestASoundDestinationPasses(t *testing.T) { Run(t, harness("")) }

func TestATunnelPassesBytesOn(t *testing.T) {
	h := harness("")
	h.Faults = TCPFaults
	open := h.Open
	h.Open = func(t *testing.T) *Peer {
		p := open(t)
		d := p.Destination.(*sample)
		tunnel := NewTCP(t, strings.TrimPrefix(d.url, "http://"))
		d.url = "http://" + tunnel.Addr
		p.Break = tunnel.Break
		return p
	}
	Run(t, h)
}

// TestFlawsAreFound runs the suite against destinations that are wrong in one
// way each, in a process of its own, and wants it to fail.
func TestFlawsAreFound(t *testing.T) {
	const variable = "DESTTEST_FLAW"
	if flaw := os.Getenv(variable); flaw != "" {
		Run(t, harness(flaw))
		return
	}
	for _, flaw := range []string{
		"counts from one", "keeps bytes that are not its own", "turns pairs round", "holds everything", "hides a failing buffer",
		"counts what failed", "takes any answer for a yes", "gives up too early", "delivers the last record twice",
	} {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			c := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestFlawsAreFound$")
			c.Env = append(os.Environ(), variable+"="+flaw)
			out, err := c.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte("--- FAIL: TestFlawsAreFound/")) {
				t.Errorf("the suite finds nothing wrong (%v):\n%s", err, out)
			}
		})
	}
}
