package reliability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// whole is what a cluster does with a bulk request, before it looks at items.
type whole int

const (
	wholeTakes   whole = iota
	wholeFails         // answers 500, keeps nothing
	wholeBusy          // answers http.StatusTooManyRequests, keeps nothing
	wholeLarge         // answers 413 to more than one document, keeps nothing
	wholeResets        // ends the connection, keeps nothing
	wholeForgets       // keeps documents and ends the connection
	wholeMixed         // keeps documents and answers for fewer
	wholeGarbled       // keeps documents and answers with half an answer
	countOfWhole       // of fates
)

// cluster is a search cluster as far as bulk requests go. It refuses whole
// requests, and single documents of others, at random. It outlives the servers
// that deliver to it.
type cluster struct {
	url    string
	honest atomic.Bool // takes everything from now on, but what no mapping fits

	mu        sync.Mutex
	random    *rand.Rand
	fates     [countOfWhole]int
	refused   map[int]int    // items, by status
	documents map[string]int // record by document id
	ids       map[int]string // document id by record
	writes    found          // how often each record was written
	broken    error          // the first request that breaks the contract
}

func startCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{random: rand.New(rand.NewPCG(seed, 3)), refused: map[int]int{}, documents: map[string]int{}, ids: map[int]string{}, writes: found{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.url = "http://" + listener.Addr().String()
	server := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Close(); running.Wait() })
	return c
}

// unmappable are records that no mapping fits, whenever they come.
func unmappable(number int) bool { return number%50 == 9 }

func (c *cluster) chooseLocked(documents int) whole {
	w := wholeTakes
	if !c.honest.Load() {
		switch n := c.random.IntN(100); {
		case n < 6:
			w = wholeFails
		case n < 10:
			w = wholeBusy
		case n < 14 && documents > 1:
			w = wholeLarge
		case n < 18:
			w = wholeResets
		case n < 22:
			w = wholeForgets
		case n < 25 && documents > 1:
			w = wholeMixed
		case n < 28:
			w = wholeGarbled
		}
	}
	c.fates[w]++
	return w
}

func (c *cluster) complainLocked(format string, args ...any) {
	if c.broken == nil {
		c.broken = fmt.Errorf(format, args...)
	}
}

// statusLocked is what becomes of one document.
func (c *cluster) statusLocked(number int) int {
	n := c.random.IntN(100)
	switch {
	case unmappable(number):
		return 400
	case c.honest.Load():
		return 201
	case n < 10:
		return 429
	case n < 13:
		return 503
	}
	return 201
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return // killed while it sent
	}
	const stream = "search"
	lines := bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path != "/_bulk" || r.Method != http.MethodPost || len(lines)%2 != 0 {
		c.complainLocked("%s %s with %d lines", r.Method, r.URL.Path, len(lines))
		return
	}
	fate := c.chooseLocked(len(lines) / 2)
	switch fate {
	case wholeFails:
		http.Error(w, `{"error":{"type":"exception","reason":"it happens"},"status":500}`, 500)
		return
	case wholeBusy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, `{"error":{"type":"circuit_breaking_exception","reason":"later"},"status":429}`, http.StatusTooManyRequests)
		return
	case wholeLarge:
		http.Error(w, "", http.StatusRequestEntityTooLarge)
		return
	case wholeResets:
		hangUp(w)
		return
	}
	answer := []byte(`{"took":1,"errors":true,"items":[`)
	for i := 0; i < len(lines); i += 2 {
		var action struct {
			Index struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"index"`
		}
		number, err := numberOfLine(stream, lines[i+1])
		if err == nil {
			err = json.Unmarshal(lines[i], &action)
		}
		if err != nil || action.Index.Index != "logs" || action.Index.ID == "" {
			c.complainLocked("document %d of a request: %v: %.200q", i/2, err, lines[i])
			return
		}
		status := c.statusLocked(number)
		if i > 0 {
			answer = append(answer, ',')
		}
		if status != 201 {
			c.refused[status]++
			kind := map[int]string{400: "mapper_parsing_exception", 429: "es_rejected_execution_exception", 503: "unavailable_shards_exception"}[status]
			answer = fmt.Appendf(answer, `{"index":{"_index":"logs","_id":%q,"status":%d,"error":{"type":%q,"reason":"refused"}}}`, action.Index.ID, status, kind)
			continue
		}
		if before, ok := c.ids[number]; ok && before != action.Index.ID {
			c.complainLocked("record %d is document %s and document %s", number, before, action.Index.ID)
		}
		if other, ok := c.documents[action.Index.ID]; ok && other != number {
			c.complainLocked("document %s is record %d and record %d", action.Index.ID, other, number)
		}
		c.ids[number], c.documents[action.Index.ID] = action.Index.ID, number
		c.writes[number]++
		answer = fmt.Appendf(answer, `{"index":{"_index":"logs","_id":%q,"status":201}}`, action.Index.ID)
	}
	answer = append(answer, "]}"...)
	switch fate {
	case wholeForgets:
		hangUp(w)
		return
	case wholeMixed:
		answer = []byte(`{"took":1,"errors":false,"items":[{"index":{"_index":"logs","_id":"x","status":201}}]}`)
		if len(lines) == 2 {
			answer = []byte(`{"took":1,"errors":false,"items":[]}`)
		}
	case wholeGarbled:
		answer = answer[:len(answer)/2]
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer)
}

// report sums up; the server that delivers has ended or is at rest.
func (c *cluster) report() string {
	var b strings.Builder
	times, most := 0, 0
	for _, n := range c.writes {
		times, most = times+n-1, max(most, n)
	}
	fmt.Fprintf(&b, "%d documents, %d written again, at most %d times; items refused %v; requests taken %d, 500 %d, 429 %d, 413 %d, reset %d, kept and reset %d, kept and too few items %d, kept and half an answer %d",
		len(c.documents), times, most, c.refused, c.fates[wholeTakes], c.fates[wholeFails], c.fates[wholeBusy], c.fates[wholeLarge], c.fates[wholeResets],
		c.fates[wholeForgets], c.fates[wholeMixed], c.fates[wholeGarbled])
	return b.String()
}
