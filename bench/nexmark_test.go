package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/test/harness"
)

func TestQueriesAreRight(t *testing.T) {
	for _, q := range nexmarkQueries {
		out, said, code, err := harness.Run(t.Context(), "sql", "check", nexmarkFile(".", q.number), "--schema", "nexmark/schema.json")
		if err != nil || code != 0 {
			t.Errorf("q%d: exit code %d, %v\n%s%s", q.number, code, err, out, said)
		}
	}
	files, err := filepath.Glob("nexmark/q*.sql")
	if err != nil || len(files) != len(nexmarkQueries) {
		t.Errorf("%d files for %d queries, %v", len(files), len(nexmarkQueries), err)
	}
}

func TestRowsAreAsLongAsTheySay(t *testing.T) {
	for _, m := range []*rowMaker{newRowMaker(rowKeys, 20), newRowMaker(1_000_000, 2)} {
		for range 10_000 {
			row := m.next(nil)
			if len(row) != rowBytes || !json.Valid(row) {
				t.Fatalf("%d bytes: %s", len(row), row)
			}
		}
	}
}

// Shares and hot spots are those that the benchmark publishes.
func TestEventsAreThoseOfTheBenchmark(t *testing.T) {
	g := newNexmark(10_000)
	var kinds [3]int
	hot := 0
	for i := range 100_000 {
		e := g.event()
		kinds[e.kind]++
		if want := firstStamp + int64(i)/10; e.at != want {
			t.Fatalf("event %d is at %d, want %d", i, e.at, want)
		}
		if e.kind == bidEvent && (e.id-firstID)%hotEvery == 0 {
			hot++
		}
		if line := e.appendTo(nil); !json.Valid(line) {
			t.Fatalf("event %d is no JSON: %s", i, line)
		}
	}
	if kinds != [3]int{2_000, 6_000, 92_000} {
		t.Errorf("people, auctions, bids: %v", kinds)
	}
	if hot < 44_000 || hot > 50_000 {
		t.Errorf("%d of 92,000 bids are on hot auctions, about a half should be", hot)
	}
}

// result is what a query gives: its rows as text, sorted.
type result []string

func row(values ...any) string {
	var b strings.Builder
	for _, v := range values {
		switch n := v.(type) {
		case int:
			v = float64(n)
		case int64:
			v = float64(n)
		}
		if f, ok := v.(float64); ok {
			v = fmt.Sprintf("%.9g", f)
		}
		fmt.Fprint(&b, v, "|")
	}
	return b.String()
}

// settled keeps of the rows with one instant and one first value, which both come
// first, the last: auctions that end at one instant end in any order.
func settled(rows result) (kept result) {
	at := map[string]int{}
	for _, r := range rows {
		parts := strings.SplitN(r, "|", 3)
		key := parts[0] + "|" + parts[1]
		if i, ok := at[key]; ok {
			kept[i] = r
			continue
		}
		at[key] = len(kept)
		kept = append(kept, r)
	}
	return kept
}

// Every query gives what a plain program over all events gives. The events come
// slowly enough that there are several windows of ten seconds, and fast enough
// that auctions end within a second.
func TestQueriesMeanWhatTheySay(t *testing.T) {
	dir := t.TempDir()
	source, schema := filepath.Join(dir, "events.json"), filepath.Join(dir, "schema.json")
	if err := nexmarkSchema(".", schema); err != nil {
		t.Fatal(err)
	}
	var events []nexmarkEvent
	if err := newNexmark(4_000).write(source, 100_000, func(e *nexmarkEvent) { events = append(events, *e) }); err != nil {
		t.Fatal(err)
	}
	b := &bench{ctx: context.Background()}
	for _, q := range nexmarkQueries {
		t.Run(fmt.Sprintf("q%d", q.number), func(t *testing.T) {
			code, err := os.ReadFile(nexmarkFile(".", q.number))
			if err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(t.TempDir(), "out")
			if _, err := b.sqlRun(string(code), target, "--schema", schema, "--input", nexmarkInput+"="+source, "--rowtime", "dateTime",
				"--output", nexmarkResult, "--output", "error_stream"); err != nil {
				t.Fatal(err)
			}
			timed := q.number == 4 || q.number == 6
			got, want := readResult(t, target, timed), nexmarkOracles[q.number](events)
			if timed {
				got, want = settled(got), settled(want)
			}
			slices.Sort(got)
			slices.Sort(want)
			if len(want) == 0 {
				t.Fatal("the events give no row")
			}
			if len(got) != len(want) {
				t.Errorf("%d rows, want %d", len(got), len(want))
			}
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Fatalf("row %d is %s, want %s", i, got[i], want[i])
				}
			}
		})
	}
}

// readResult reads the rows that sql run has printed: the values of their columns
// in order, perhaps behind their time.
func readResult(t *testing.T, name string, timed bool) (rows result) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		var line struct {
			Stream  string
			Rowtime time.Time
			Row     json.RawMessage
		}
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Stream != nexmarkResult {
			t.Fatalf("a row failed: %s", scan.Bytes())
		}
		d := json.NewDecoder(strings.NewReader(string(line.Row)))
		d.UseNumber()
		var values []any
		if timed {
			values = append(values, stamp(line.Rowtime.UnixMilli()))
		}
		for at := 0; ; at++ {
			token, err := d.Token()
			if err != nil {
				break
			}
			if at == 0 || at%2 == 1 || token == json.Delim('}') {
				continue // names
			}
			if n, ok := token.(json.Number); ok {
				f, err := n.Float64()
				if err != nil {
					t.Fatal(err)
				}
				token = f
			}
			values = append(values, token)
		}
		rows = append(rows, row(values...))
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func bids(events []nexmarkEvent) (found []nexmarkEvent) {
	for _, e := range events {
		if e.kind == bidEvent {
			found = append(found, e)
		}
	}
	return found
}

func stamp(at int64) string { return time.UnixMilli(at).UTC().Format(stampLayout) }

const tenSeconds = 10_000

// finals are the final prices of auctions in order of their first bid, and when
// they are told: a second after that.
func finals(events []nexmarkEvent) (order []*nexmarkEvent, price map[int64]int64, told map[int64]string) {
	open := map[int64]*nexmarkEvent{}
	at := map[int64][]nexmarkEvent{} // bids of a millisecond that come before their auction
	price, told = map[int64]int64{}, map[int64]string{}
	bid := func(e nexmarkEvent) {
		a := open[e.id]
		if a == nil || e.at > a.expires || e.at < a.at {
			return
		}
		if _, ok := price[a.id]; !ok {
			order = append(order, a)
			told[a.id] = stamp(e.at + 1000)
		}
		price[a.id] = max(price[a.id], e.price)
	}
	for _, e := range events {
		switch e.kind {
		case auctionEvent:
			open[e.id] = &e
			for _, early := range at[e.id] {
				if early.at == e.at {
					bid(early)
				}
			}
		case bidEvent:
			if open[e.id] == nil {
				at[e.id] = append(at[e.id], e)
			} else {
				bid(e)
			}
		}
	}
	return order, price, told
}

// nexmarkOracles compute each query from all events at once.
var nexmarkOracles = map[int]func(events []nexmarkEvent) result{
	0: func(events []nexmarkEvent) (rows result) {
		for _, e := range bids(events) {
			rows = append(rows, row(e.id, e.bidding, e.price, stamp(e.at), e.extra))
		}
		return rows
	},
	1: func(events []nexmarkEvent) (rows result) {
		for _, e := range bids(events) {
			rows = append(rows, row(e.id, e.bidding, float64(e.price*908)/1000, stamp(e.at), e.extra))
		}
		return rows
	},
	2: func(events []nexmarkEvent) (rows result) {
		for _, e := range bids(events) {
			if e.id%123 == 0 {
				rows = append(rows, row(e.id, e.price))
			}
		}
		return rows
	},
	3: func(events []nexmarkEvent) (rows result) {
		people := map[int64]nexmarkEvent{}
		for _, e := range events {
			if e.kind == personEvent && (e.state == "OR" || e.state == "ID" || e.state == "CA") {
				people[e.id] = e
			}
		}
		for _, e := range events {
			if p, ok := people[e.seller]; ok && e.kind == auctionEvent && e.category == 10 {
				rows = append(rows, row(p.name, p.city, p.state, e.id))
			}
		}
		return rows
	},
	4: func(events []nexmarkEvent) (rows result) {
		order, price, told := finals(events)
		sums, counts := map[int64]float64{}, map[int64]float64{}
		for _, a := range order {
			sums[a.category] += float64(price[a.id])
			counts[a.category]++
			rows = append(rows, row(told[a.id], a.category, sums[a.category]/counts[a.category]))
		}
		return rows
	},
	5: func(events []nexmarkEvent) (rows result) {
		// The window that ends behind the last event is not told: the time of the
		// copies goes on with events only.
		const slide = 2_000
		for end := int64(firstStamp) + slide; end < events[len(events)-1].at; end += slide {
			counts, most := map[int64]int{}, 0
			for _, e := range bids(events) {
				if e.at >= end-tenSeconds && e.at < end {
					counts[e.id]++
					most = max(most, counts[e.id])
				}
			}
			for auction, n := range counts {
				if n == most {
					rows = append(rows, row(auction, n, stamp(end)))
				}
			}
		}
		return rows
	},
	6: func(events []nexmarkEvent) (rows result) {
		order, price, told := finals(events)
		last := map[int64][]float64{}
		for _, a := range order {
			l := append(last[a.seller], float64(price[a.id]))
			l = l[max(0, len(l)-10):]
			last[a.seller] = l
			sum := 0.0
			for _, v := range l {
				sum += v
			}
			rows = append(rows, row(told[a.id], a.seller, sum/float64(len(l))))
		}
		return rows
	},
	7: func(events []nexmarkEvent) (rows result) {
		highest := map[int64]int64{}
		for _, e := range bids(events) {
			highest[e.at/tenSeconds] = max(highest[e.at/tenSeconds], e.price)
		}
		for _, e := range bids(events) {
			if e.price == highest[e.at/tenSeconds] {
				rows = append(rows, row(e.id, e.price, e.bidding))
			}
		}
		return rows
	},
	8: func(events []nexmarkEvent) (rows result) {
		type key struct{ window, id int64 }
		sells := map[key]bool{}
		for _, e := range events {
			if e.kind == auctionEvent {
				sells[key{e.at / tenSeconds, e.seller}] = true
			}
		}
		for _, e := range events {
			if e.kind == personEvent && sells[key{e.at / tenSeconds, e.id}] {
				rows = append(rows, row(e.id, e.name))
			}
		}
		return rows
	},
	11: func(events []nexmarkEvent) (rows result) {
		type session struct {
			last int64
			n    int
		}
		open := map[int64]*session{}
		for _, e := range bids(events) {
			s := open[e.bidding]
			if s == nil {
				s = &session{last: e.at}
				open[e.bidding] = s
			}
			if e.at >= s.last+tenSeconds {
				rows = append(rows, row(e.bidding, s.n))
				s.n = 0
			}
			s.n++
			s.last = e.at
		}
		for bidder := range maps.Keys(open) {
			rows = append(rows, row(bidder, open[bidder].n))
		}
		return rows
	},
	12: func(events []nexmarkEvent) (rows result) {
		type key struct{ window, bidder int64 }
		counts := map[key]int{}
		for _, e := range bids(events) {
			counts[key{e.at / tenSeconds, e.bidding}]++
		}
		for k, n := range counts {
			rows = append(rows, row(k.bidder, n))
		}
		return rows
	},
	13: func(events []nexmarkEvent) (rows result) {
		for _, e := range bids(events) {
			rows = append(rows, row(e.id, e.bidding, e.price, fmt.Sprintf("side-%d", e.id%sideRows)))
		}
		return rows
	},
}
