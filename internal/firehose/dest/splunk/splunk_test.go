package splunk

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anywhere = outbound.Policy{AllowPrivate: true}

const token = "E2B8A2BE-1B2F-4C5D-8E0F-0123456789AB"

// collector is an event collector behind a load balancer: the node that took
// data knows its acknowledgements, a cookie leads back to the node, and what was
// acknowledged is told once.
type collector struct {
	t      *testing.T
	sticky bool
	nodes  int

	mu      sync.Mutex
	next    int
	bodies  []string
	discard bool
	count   int
	acks    map[string]map[uint64]time.Time // by node and channel
	last    uint64
	delay   time.Duration // until data is acknowledged; negative is never
	// send, if set, answers a request for data instead, and ask one for acks.
	send func(body string) (status int, reply string)
	ask  func() (status int, reply string)
	// seen lists the channels of requests for data, polls counts questions.
	seen  []string
	polls int
}

var guidPattern = regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-4[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`)

func (c *collector) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	reply := func(status int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
	body := io.Reader(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(q.Body)
		if err != nil {
			reply(400, `{"text":"Data channel is missing","code":10}`)
			return
		}
		body = z
	}
	c.mu.Lock()
	keep := !c.discard
	c.mu.Unlock()
	var raw []byte
	lines := 0
	for piece := make([]byte, 64<<10); ; {
		n, err := body.Read(piece)
		lines += bytes.Count(piece[:n], []byte("\n"))
		if keep || len(raw) < 1000 {
			raw = append(raw, piece[:n]...)
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return
		}
	}
	if q.Header.Get("Authorization") != "Splunk "+token {
		reply(403, `{"text":"Invalid token","code":4}`)
		return
	}
	channel := q.URL.Query().Get("channel")
	if q.URL.Path != "/services/collector/health/1.0" && (channel != q.Header.Get("X-Splunk-Request-Channel") || !guidPattern.MatchString(channel)) {
		c.t.Errorf("channel %q in the query, %q in the header", channel, q.Header.Get("X-Splunk-Request-Channel"))
		reply(400, `{"text":"Data channel is missing","code":10}`)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	node := ""
	if cookie, err := q.Cookie("AWSALB"); err == nil && c.sticky {
		node = cookie.Value
	} else {
		c.next++
		node = fmt.Sprint("node", c.next%max(1, c.nodes))
		if c.sticky {
			http.SetCookie(w, &http.Cookie{Name: "AWSALB", Value: node, Path: "/"})
		}
	}
	if c.acks == nil {
		c.acks = map[string]map[uint64]time.Time{}
	}
	own := node + channel
	switch q.URL.Path {
	case "/services/collector/raw", "/services/collector/event":
		c.seen = append(c.seen, channel)
		if c.send != nil {
			if status, text := c.send(string(raw)); status != 0 {
				reply(status, text)
				return
			}
		}
		if len(raw) == 0 {
			reply(400, `{"text":"No data","code":5}`)
			return
		}
		c.count += lines
		if !c.discard {
			c.bodies = append(c.bodies, string(raw))
		}
		if c.acks[own] == nil {
			c.acks[own] = map[uint64]time.Time{}
		}
		c.last++
		c.acks[own][c.last] = time.Now().Add(c.delay)
		reply(200, fmt.Sprintf(`{"text":"Success","code":0,"ackId":%d}`, c.last))
	case "/services/collector/ack":
		c.polls++
		if c.ask != nil {
			if status, text := c.ask(); status != 0 {
				reply(status, text)
				return
			}
		}
		var in struct{ Acks []uint64 }
		if json.Unmarshal(raw, &in) != nil || len(in.Acks) == 0 {
			c.t.Errorf("the question is %s", raw)
		}
		known := c.acks[own]
		if known == nil {
			reply(400, `{"text":"Invalid data channel","code":11}`)
			return
		}
		out := map[string]bool{}
		for _, id := range in.Acks {
			at, ok := known[id]
			done := ok && c.delay >= 0 && !time.Now().Before(at)
			out[fmt.Sprint(id)] = done
			if done {
				delete(known, id) // told once
			}
		}
		text, _ := json.Marshal(map[string]any{"acks": out})
		reply(200, string(text))
	case "/services/collector/health/1.0":
		reply(200, `{"text":"HEC is healthy","code":17}`)
	default:
		reply(404, `{"text":"The requested URL was not found on this server.","code":404}`)
	}
}

func open(t *testing.T, c Config) *Destination {
	t.Helper()
	if c.Type == "" {
		c.Type = Raw
	}
	if c.Token == "" {
		c.Token = token
	}
	d, err := New(c, Deps{Policy: anywhere})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestContract(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		sticky bool
	}{
		{"raw", Config{Type: Raw}, false},
		{"event, compressed, behind a balancer", Config{Type: Event, GZIP: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			desttest.Run(t, desttest.Harness{
				Open: func(t *testing.T) *desttest.Peer {
					h := &collector{t: t, sticky: c.sticky, nodes: 1}
					if c.sticky {
						h.nodes = 3
					}
					server := desttest.NewHTTP(t, h)
					config := c.config
					config.Endpoint, config.Token = server.URL, token
					d, err := New(config, Deps{Policy: anywhere})
					if err != nil {
						t.Fatal(err)
					}
					return &desttest.Peer{
						Destination: d,
						Stored: func(t *testing.T) []desttest.Entry {
							h.mu.Lock()
							defer h.mu.Unlock()
							return desttest.Parse(t, []byte(strings.Join(h.bodies, "")))
						},
						Break: server.Break,
						Discard: func() func() int {
							h.mu.Lock()
							h.discard = true
							h.mu.Unlock()
							return func() int { h.mu.Lock(); defer h.mu.Unlock(); return h.count }
						},
					}
				},
				Codes:      []string{"Splunk."},
				Duplicates: true,
				Faults:     desttest.HTTPFaults,
				Memory:     48 << 20,
			})
		})
	}
}

func batch(texts ...string) *record.Batch {
	var records []record.Record
	for i, text := range texts {
		records = append(records, record.Record{Data: []byte(text), Lane: desttest.Lane("s"), Position: record.Position{Index: uint64(i)}})
	}
	return record.Of(desttest.Stream, desttest.ID(1), records...)
}

func code(err error) string {
	var e *dest.Error
	if errors.As(err, &e) {
		text := e.Code
		if e.Permanent {
			text += ", for good"
		}
		return text
	}
	return fmt.Sprint(err)
}

// TestBodies: records stand one behind another, with nothing between them.
func TestBodies(t *testing.T) {
	h := &collector{t: t}
	server := httptest.NewServer(h)
	defer server.Close()
	for _, c := range []struct {
		records []string
		max     int64
		want    []string
	}{
		{[]string{"a\n", "b", "c\n"}, 0, []string{"a\nbc\n"}},
		{[]string{`{"event":1}`, `{"event":2}`}, 0, []string{`{"event":1}{"event":2}`}},
		{[]string{"aaaa", "bbbb", "cc"}, 6, []string{"aaaa", "bbbbcc"}},
		{[]string{"", "", ""}, 0, nil},
	} {
		h.bodies = nil
		result, err := open(t, Config{Endpoint: server.URL + "/", MaxBytes: c.max}).Deliver(t.Context(), batch(c.records...))
		if err != nil || len(result.Failed) > 0 || !slices.Equal(h.bodies, c.want) {
			t.Errorf("%q gave %q, %v, %v", c.records, h.bodies, result.Failed, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		text   string
		want   string
	}{
		{403, `{"text":"Token disabled","code":1}`, "Splunk.DisabledToken"},
		{401, `{"text":"Token is required","code":2}`, "Splunk.InvalidToken"},
		{401, `{"text":"Invalid authorization","code":3}`, "Splunk.InvalidToken"},
		{403, `{"text":"Invalid token","code":4}`, "Splunk.InvalidToken"},
		{400, `{"text":"No data","code":5}`, "Splunk.InvalidDataFormat, for good"},
		{400, `{"text":"Invalid data format","code":6,"invalid-event-number":3}`, "Splunk.InvalidDataFormat, for good"},
		{400, `{"text":"Incorrect index","code":7,"invalid-event-number":1}`, "Splunk.InvalidIndex"},
		{500, `{"text":"Internal server error","code":8}`, "Splunk.ServerError"},
		{503, `{"text":"Server is busy","code":9}`, "Splunk.IndexerBusy"},
		{400, `{"text":"Data channel is missing","code":10}`, "Splunk.InvalidDataFormat"},
		{400, `{"text":"Invalid data channel","code":11}`, "Splunk.InvalidDataFormat"},
		{400, `{"text":"Event field is required","code":12}`, "Splunk.InvalidDataFormat, for good"},
		{400, `{"text":"Event field cannot be blank","code":13}`, "Splunk.InvalidDataFormat, for good"},
		{400, `{"text":"ACK is disabled","code":14}`, "Splunk.DisabledAck"},
		{400, `{"text":"Error in handling indexed fields","code":15}`, "Splunk.InvalidDataFormat, for good"},
		{503, `{"text":"HEC is unhealthy, queues are full","code":18}`, "Splunk.IndexerBusy"},
		{503, `{"text":"Server is shutting down","code":23}`, "Splunk.IndexerBusy"},
		{200, `{"text":"Success","code":0}`, "Splunk.DisabledAck, for good"},
		{200, `{"text":"Success"}`, "Splunk.ServerError"},
		{200, `<html>`, "Splunk.InvalidHecResponseCharacter"},
		{200, ``, "Splunk.InvalidHecResponseCharacter"},
		{200, `null`, "Splunk.InvalidHecResponseCharacter"},
		{200, `{"code":"0"}`, "Splunk.InvalidHecResponseCharacter"},
		{200, `{"text":"?","code":777,"ackId":1}`, "Splunk.ServerError"},
		{201, `{"text":"Success","code":0,"ackId":1}`, "Splunk.ServerError"},
		{404, `not here`, "Splunk.URLNotFound"},
		{401, `who are you`, "Splunk.InvalidToken"},
		{503, `busy`, "Splunk.IndexerBusy"},
		{429, ``, "Splunk.IndexerBusy"},
		{502, ``, "Splunk.ServerError"},
		{301, ``, "Splunk.InvalidEndpoint"},
		{413, `Content-Length of 10 too large`, "Splunk.ServerError.ContentTooLarge, for good"},
	} {
		t.Run(fmt.Sprint(c.status, c.text), func(t *testing.T) {
			h := &collector{t: t, send: func(string) (int, string) { return c.status, c.text }}
			server := httptest.NewServer(h)
			defer server.Close()
			result, err := open(t, Config{Endpoint: server.URL}).Deliver(t.Context(), batch("a\n"))
			if c.status == 413 { // one record is its own fault
				if len(result.Failed) == 1 && !result.Failed[0].Retry {
					err = &dest.Error{Code: result.Failed[0].Code, Permanent: true}
				}
			}
			if got := code(err); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if len(h.seen) != 1 {
				t.Errorf("%d requests", len(h.seen))
			}
		})
	}
}

func TestUnhappyConfigurations(t *testing.T) {
	h := &collector{t: t}
	server := httptest.NewTLSServer(h)
	defer server.Close()
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{Endpoint: server.URL}, "Splunk.SSLUnverified"},
		{Config{Endpoint: strings.Replace(server.URL, "https", "http", 1)}, "Splunk.ServerError"}, // Go answers 400
		{Config{Endpoint: "http://127.0.0.1:1"}, "Splunk.InvalidEndpoint"},
		{Config{Endpoint: "http://169.254.169.254"}, "Splunk.InvalidEndpoint"},
		{Config{Endpoint: "splunk:8088"}, "Splunk.InvalidEndpoint"},
		{Config{Endpoint: server.URL, Type: "Both"}, "Splunk.InvalidEndpoint"},
		{Config{Endpoint: server.URL, Secret: "arn:x"}, "Splunk.InvalidToken"},
		{Config{Endpoint: server.URL, Token: "a\nb", TLS: outbound.TLS{InsecureSkipVerify: true}}, "Splunk.InvalidToken"},
		{Config{Endpoint: server.URL, Token: "wrong", TLS: outbound.TLS{InsecureSkipVerify: true}}, "Splunk.InvalidToken"},
	} {
		_, err := open(t, c.config).Deliver(t.Context(), batch("a"))
		if got := code(err); got != c.want {
			t.Errorf("%+v: %s, want %s", c.config, got, c.want)
		}
	}
}

// Peers that are no collectors, or broken ones.
func TestHostilePeers(t *testing.T) {
	for _, c := range []struct {
		name, scheme, reply string
		hold                bool
		want                string
	}{
		{"closes without a word", "http", "", false, "Splunk.ConnectionClosed"},
		{"closes within the body", "http", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", false, "Splunk.ConnectionClosed"},
		{"speaks something else", "http", "220 mail ESMTP\r\n", false, "Splunk.InvalidHecResponseCharacter"},
		{"headers without end", "http", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), false, "Splunk.InvalidHecResponseCharacter"},
		{"two lengths", "http", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", false, "Splunk.InvalidHecResponseCharacter"},
		{"a body without end", "http", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20), false, "Splunk.ServerError"},
		{"a redirect", "http", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", false, "Splunk.InvalidEndpoint"},
		{"says nothing", "http", "", true, "Splunk.ConnectionTimeout"},
		{"clear text where TLS is meant", "https", "HTTP/1.1 400 Bad Request\r\n\r\n", false, "Splunk.SSLHandshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			var group sync.WaitGroup
			group.Go(func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					group.Go(func() {
						defer conn.Close()
						if c.scheme == "https" {
							_, _ = conn.Read(make([]byte, 1000))
						} else if q, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
							_, _ = io.Copy(io.Discard, q.Body)
						}
						_, _ = io.WriteString(conn, c.reply)
						if c.hold {
							<-done
						}
					})
				}
			})
			defer group.Wait()
			defer listener.Close()
			defer close(done)
			d := open(t, Config{Endpoint: c.scheme + "://" + listener.Addr().String(), Timeout: 200 * time.Millisecond})
			if !c.hold {
				d.timeout = time.Minute
			}
			if _, err := d.Deliver(t.Context(), batch("a")); code(err) != c.want {
				t.Errorf("got %s (%v), want %s", code(err), err, c.want)
			}
		})
	}
}

func TestTheSecretIsReadAtEachAttempt(t *testing.T) {
	h := &collector{t: t}
	server := httptest.NewServer(h)
	defer server.Close()
	s := secrets{"hec_token": "old"}
	d, err := New(Config{Endpoint: server.URL, Type: Raw, Secret: "arn:s"}, Deps{Policy: anywhere, Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, step := range []struct {
		token, want string
	}{{"old", "Splunk.InvalidToken"}, {token, "<nil>"}, {"", "Splunk.InvalidToken"}} {
		delete(s, "hec_token")
		if step.token != "" {
			s["hec_token"] = step.token
		}
		_, err := d.Deliver(t.Context(), batch("a"))
		if got := code(err); got != step.want {
			t.Errorf("with %q: %s, want %s", step.token, got, step.want)
		}
	}
}

type secrets map[string]string

func (s secrets) Resolve(context.Context, string) (map[string]string, error) { return s, nil }

func TestHealth(t *testing.T) {
	h := &collector{t: t}
	server := httptest.NewServer(h)
	defer server.Close()
	if err := open(t, Config{Endpoint: server.URL}).Health(t.Context()); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{`{"text":"Server is busy","code":9}`: "Splunk.IndexerBusy", `busy`: "Splunk.IndexerBusy"} {
		busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			_, _ = io.WriteString(w, text)
		}))
		if got := code(open(t, Config{Endpoint: busy.URL}).Health(t.Context())); got != want {
			t.Error(got)
		}
		busy.Close()
	}
}

// bubble serves h on pipes, so that the clock of a bubble drives both ends.
func bubble(t *testing.T, h http.Handler, c Config) *Destination {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: h}
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(l) })
	c.Endpoint = "http://hec.test:8088"
	d := open(t, c)
	d.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case l.conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t.Cleanup(func() {
		_ = d.Close()
		_ = server.Close()
		group.Wait()
	})
	return d
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcknowledgements(t *testing.T) {
	for _, c := range []struct {
		name    string
		h       *collector
		timeout time.Duration
		want    string
		took    time.Duration // at least, and at most ten seconds more
	}{
		{"at once", &collector{}, 0, "<nil>", 0},
		{"after a while", &collector{delay: time.Minute}, 0, "<nil>", time.Minute},
		{"never", &collector{delay: -1}, 0, "Splunk.AckTimeout", 3 * time.Minute},
		{"too late", &collector{delay: 7 * time.Minute}, 5 * time.Minute, "Splunk.AckTimeout", 5 * time.Minute},
		{"a node that forgets who asks", &collector{nodes: 2}, 0, "Splunk.ProxyWithoutStickySessions", 3 * time.Minute},
		{"a balancer with cookies", &collector{nodes: 5, sticky: true, delay: time.Minute}, 0, "<nil>", time.Minute},
		{"asking fails for a while", &collector{delay: time.Second, ask: failing(3)}, 0, "<nil>", 0},
		{"asking fails all the time", &collector{ask: failing(1 << 30)}, 0, "Splunk.AckTimeout", 3 * time.Minute},
		{"acknowledgements are disabled", &collector{ask: func() (int, string) { return 400, `{"text":"ACK is disabled","code":14}` }}, 0, "Splunk.DisabledAck, for good", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.h.t = t
				if c.name == "a node that forgets who asks" {
					// Every question goes to the other node.
					c.h.ask = func() (int, string) { return 400, `{"text":"Invalid data channel","code":11}` }
				}
				d := bubble(t, c.h, Config{AckTimeout: c.timeout})
				start := time.Now()
				result, err := d.Deliver(t.Context(), batch("a\n", "b\n"))
				took := time.Since(start)
				if got := code(err); got != c.want {
					t.Errorf("got %s (%v), want %s", got, err, c.want)
				}
				if took < c.took || took > c.took+10*time.Second {
					t.Errorf("it took %v", took)
				}
				// All of it was waiting, which the retry duration does not count.
				if result.Waited != took {
					t.Errorf("waited %v of %v", result.Waited, took)
				}
				if c.h.polls > 60 {
					t.Errorf("%d questions", c.h.polls)
				}
			})
		})
	}
}

func failing(times int) func() (int, string) {
	return func() (int, string) {
		if times--; times >= 0 {
			return 503, `{"text":"Server is busy","code":9}`
		}
		return 0, ""
	}
}

// Concurrent attempts have channels of their own; one after the other they share
// one; a channel that failed is not used again.
func TestChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &collector{t: t, delay: 10 * time.Second}
		d := bubble(t, h, Config{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if _, err := d.Deliver(t.Context(), batch("a\n")); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := len(slices.Compact(slices.Sorted(slices.Values(h.seen)))); n != 4 {
			t.Errorf("4 attempts at a time used %d channels", n)
		}
		h.delay, h.seen = 0, nil
		for range 3 {
			if _, err := d.Deliver(t.Context(), batch("a\n")); err != nil {
				t.Error(err)
			}
		}
		if h.seen[0] != h.seen[1] || h.seen[1] != h.seen[2] {
			t.Errorf("attempts one after the other used %v", h.seen)
		}
		h.send = func(string) (int, string) { return 503, "" }
		_, _ = d.Deliver(t.Context(), batch("a\n"))
		h.send = nil
		if _, err := d.Deliver(t.Context(), batch("a\n")); err != nil {
			t.Error(err)
		}
		if n := len(h.seen); h.seen[n-1] == h.seen[n-2] {
			t.Error("a channel that failed was used again")
		}
	})
}

// What was acknowledged is not sent again.
func TestAFailureInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		h := &collector{t: t, send: func(string) (int, string) {
			if n++; n == 2 {
				return 500, `{"text":"Internal server error","code":8}`
			}
			return 0, ""
		}}
		d := bubble(t, h, Config{MaxBytes: 4})
		b := batch("aa", "bb", "cc", "dd", "ee")
		result, err := d.Deliver(t.Context(), b)
		var failed []int
		for _, f := range result.Failed {
			failed = append(failed, f.Index)
			if !f.Retry || f.Code != "Splunk.ServerError" {
				t.Errorf("%+v", f)
			}
		}
		if err != nil || !slices.Equal(failed, []int{2, 3, 4}) || n != 2 {
			t.Fatalf("%v, failed %v, %d requests", err, failed, n)
		}
		if result, err = d.Deliver(t.Context(), b.Subset(failed)); err != nil || len(result.Failed) > 0 {
			t.Errorf("%v, %v", err, result.Failed)
		}
		if got := strings.Join(h.bodies, ""); got != "aabbccddee" {
			t.Errorf("the peer has %s", got)
		}
	})
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	h := &collector{t: t, send: func(body string) (int, string) {
		if len(body) > 5 {
			return 413, `{"text":"Content-Length of 9 too large (maximum is 5)","code":27}`
		}
		return 0, ""
	}}
	server := httptest.NewServer(h)
	defer server.Close()
	result, err := open(t, Config{Endpoint: server.URL}).Deliver(t.Context(), batch("aa", "bb", "cccccc", "dd", "ee"))
	if err != nil || len(result.Failed) != 1 || result.Failed[0].Index != 2 || result.Failed[0].Retry || result.Failed[0].Code != "Splunk.ServerError.ContentTooLarge" {
		t.Errorf("%v, %+v", err, result.Failed)
	}
	if got := strings.Join(h.bodies, ""); got != "aabbddee" {
		t.Errorf("the peer has %s", got)
	}
}

func TestFailureFields(t *testing.T) {
	d := open(t, Config{Endpoint: "https://a"})
	got := d.FailureFields(&record.Record{Lane: desttest.Lane("s"), Position: record.Position{Index: 7, Sub: 3}})
	if len(got) != 1 || got[0].Name != "EventId" || got[0].Value != fmt.Sprintf("4%055d.3", 7) {
		t.Errorf("%+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"text":"Success","code":0,"ackId":7}`, `{"acks":{"7":true,"8":false}}`, `{"acks":{"x":true}}`, `null`, `[]`, `{"code":99999999999999999999}`, `{"invalid-event-number":{}}`} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := decode(status, body)
		if e := a.failure(); e == nil && (status != 200 || !a.valid) {
			t.Errorf("%d %q is a success", status, body)
		} else if e != nil && (e.Code == "" || e.Message == "") {
			t.Errorf("%d %q is the failure %+v", status, body, e)
		}
	})
}

// The settings of an operator's file.
func TestSettings(t *testing.T) {
	var c Config
	err := yaml.UnmarshalWithOptions([]byte(`
endpoint: https://splunk.example.com:8088
type: Raw
token: t
secret: arn:s
ack_timeout: 5m
tls: {ca_file: ca.pem}
gzip: true
timeout: 10s
no_acknowledgements: true
max_bytes: 1000
`), &c, yaml.Strict())
	want := Config{
		Endpoint: "https://splunk.example.com:8088", Type: Raw, Token: "t", Secret: "arn:s", AckTimeout: 5 * time.Minute,
		TLS: outbound.TLS{CAFile: "ca.pem"}, GZIP: true, Timeout: 10 * time.Second, NoAcks: true, MaxBytes: 1000,
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
}
