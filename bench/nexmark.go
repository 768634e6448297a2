package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// The Nexmark benchmark: an auction site whose people, auctions and bids come as
// one stream. What is random, in which shares and around which hot spots follows
// the benchmark's published generator; the random numbers are others.
const (
	firstID       = 1000 // of people and of auctions
	firstCategory = 10
	categories    = 5

	// Of fifty events one is a person, three are auctions and the rest bids.
	personShare  = 1
	auctionShare = 3
	allShares    = 50

	inFlight      = 100  // auctions that bids are made on
	activePeople  = 1000 // who bid and sell
	leadIDs       = 10   // ids that are used ahead of their person or auction
	hotEvery      = 100  // one id of so many is hot
	hotAuctions   = 2    // one of so many bids is on any other auction
	hotBidders    = 4
	hotSellers    = 4
	hotChannels   = 2
	personBytes   = 200 // mean sizes that a text of no meaning fills up to
	auctionBytes  = 500
	bidBytes      = 100
	sideRows      = 10_000
	nexmarkInput  = "NEXMARK_001"
	nexmarkResult = "RESULT_STREAM"
)

var (
	firstNames = []string{"Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"}
	lastNames  = []string{"Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"}
	cities     = []string{"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"}
	states     = []string{"AZ", "CA", "ID", "OR", "WA", "WY"}
	hotChannel = []string{"Google", "Facebook", "Baidu", "Apple"}
)

// The kinds of events.
const (
	personEvent = iota
	auctionEvent
	bidEvent
)

// nexmarkEvent is one event; which of its fields mean something follows from its
// kind.
type nexmarkEvent struct {
	kind int
	at   int64 // milliseconds since 1970
	id   int64 // of a person or an auction; of a bid, the auction's

	name, email, card, city, state     string
	item, description, channel, link   string
	price, reserve                     int64 // the initial bid of an auction
	expires, seller, category, bidding int64 // bidding is who bids
	extra                              string
}

// nexmark makes the events, the same ones every time.
type nexmark struct {
	random *rand.Rand
	rate   int64 // events in a second of their time
	next   int64 // the number of the next event
}

func newNexmark(rate int64) *nexmark {
	return &nexmark{random: rand.New(rand.NewPCG(3, 4)), rate: rate}
}

func (g *nexmark) time(event int64) int64 { return firstStamp + event*1000/g.rate }

// lastPerson and lastAuction are the newest of them at an event, from 0.
func (g *nexmark) lastPerson() int64 {
	return g.next/allShares*personShare + min(g.next%allShares, personShare-1)
}

func (g *nexmark) lastAuction() int64 {
	round, offset := g.next/allShares, g.next%allShares
	switch {
	case offset < personShare:
		return round*auctionShare - 1
	case offset >= personShare+auctionShare:
		return round*auctionShare + auctionShare - 1
	}
	return round*auctionShare + offset - personShare
}

func (g *nexmark) anyPerson() int64 {
	people := g.lastPerson() + 1
	active := min(people, activePeople)
	return people - active + g.random.Int64N(active+leadIDs)
}

func (g *nexmark) anyAuction() int64 {
	last := max(g.lastAuction(), 0)
	first := max(last-inFlight, 0)
	return first + g.random.Int64N(last-first+1+leadIDs)
}

func (g *nexmark) price() int64 {
	return int64(math.Round(math.Pow(10, g.random.Float64()*6) * 100))
}

const letters = "abcdefghijklmnopqrstuvwxyz"

func (g *nexmark) text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[g.random.IntN(len(letters))]
	}
	return string(b)
}

// fill is a text that brings size to about the mean.
func (g *nexmark) fill(size, mean int) string {
	left := mean - size
	if left <= 0 {
		return ""
	}
	delta := max(1, left/5)
	return g.text(left - delta + g.random.IntN(2*delta))
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// event makes the next event.
func (g *nexmark) event() (e nexmarkEvent) {
	e.at = g.time(g.next)
	switch offset := g.next % allShares; {
	case offset < personShare:
		e.kind, e.id = personEvent, firstID+g.lastPerson()
		e.name = pick(g.random, firstNames) + " " + pick(g.random, lastNames)
		e.email = g.text(7) + "@" + g.text(5) + ".com"
		n := g.random.Uint64N(1e16)
		e.card = fmt.Sprintf("%04d %04d %04d %04d", n/1e12, n/1e8%1e4, n/1e4%1e4, n%1e4)
		e.city, e.state = pick(g.random, cities), pick(g.random, states)
		e.extra = g.fill(8+len(e.name)+len(e.email)+len(e.card)+len(e.city)+len(e.state), personBytes)
	case offset < personShare+auctionShare:
		e.kind, e.id = auctionEvent, firstID+g.lastAuction()
		if g.random.IntN(hotSellers) > 0 {
			e.seller = g.lastPerson() / hotEvery * hotEvery
		} else {
			e.seller = g.anyPerson()
		}
		e.seller += firstID
		e.category = firstCategory + g.random.Int64N(categories)
		e.item, e.description = g.text(g.random.IntN(20)+1), g.text(g.random.IntN(100)+1)
		e.price = g.price()
		e.reserve = e.price + g.price()
		// Bids are spread over so many auctions; one stays open about as long as it
		// takes to begin as many.
		horizon := g.time(g.next+inFlight*allShares/auctionShare) - e.at
		e.expires = e.at + 1 + g.random.Int64N(max(2*horizon, 1))
		e.extra = g.fill(8*7+len(e.item)+len(e.description), auctionBytes)
	default:
		e.kind = bidEvent
		if g.random.IntN(hotAuctions) > 0 {
			e.id = max(g.lastAuction(), 0) / hotEvery * hotEvery
		} else {
			e.id = g.anyAuction()
		}
		e.id += firstID
		if g.random.IntN(hotBidders) > 0 {
			e.bidding = g.lastPerson()/hotEvery*hotEvery + 1
		} else {
			e.bidding = g.anyPerson()
		}
		e.bidding += firstID
		e.price = g.price()
		if g.random.IntN(hotChannels) > 0 {
			e.channel = pick(g.random, hotChannel)
		} else {
			e.channel = fmt.Sprintf("channel-%d", g.random.IntN(10_000))
		}
		e.link = "https://www.nexmark.com/" + g.text(5) + "/" + g.text(5) + "/item.htm?query=1"
		e.extra = g.fill(8*4+len(e.channel)+len(e.link), bidBytes)
	}
	g.next++
	return e
}

const stampLayout = "2006-01-02 15:04:05.000"

// appendTo appends the event as a line of JSON. No text of it needs an escape.
func (e *nexmarkEvent) appendTo(b []byte) []byte {
	b = fmt.Appendf(b, `{"event_type":%d,"dateTime":"`, e.kind)
	b = time.UnixMilli(e.at).UTC().AppendFormat(b, stampLayout)
	switch e.kind {
	case personEvent:
		b = fmt.Appendf(b, `","person":{"id":%d,"name":"%s","emailAddress":"%s","creditCard":"%s","city":"%s","state":"%s"`,
			e.id, e.name, e.email, e.card, e.city, e.state)
	case auctionEvent:
		b = fmt.Appendf(b, `","auction":{"id":%d,"itemName":"%s","description":"%s","initialBid":%d,"reserve":%d,"seller":%d,"category":%d,"expires":"`,
			e.id, e.item, e.description, e.price, e.reserve, e.seller, e.category)
		b = append(time.UnixMilli(e.expires).UTC().AppendFormat(b, stampLayout), '"')
	default:
		b = fmt.Appendf(b, `","bid":{"auction":%d,"bidder":%d,"price":%d,"channel":"%s","url":"%s"`, e.id, e.bidding, e.price, e.channel, e.link)
	}
	return append(append(append(b, `,"extra":"`...), e.extra...), "\"}}\n"...)
}

// write makes a file of n events, and hands each to see, which may be nil.
func (g *nexmark) write(name string, n int, see func(*nexmarkEvent)) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	var line []byte
	for range n {
		e := g.event()
		if see != nil {
			see(&e)
		}
		line = e.appendTo(line[:0])
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// nexmarkQueries are those that can be said in the dialect; see the files.
var nexmarkQueries = []struct {
	number int
	what   string
}{
	{0, "pass through"},
	{1, "currency conversion"},
	{2, "selection"},
	{3, "local item suggestion, join over an hour"},
	{4, "average price for a category, over an hour"},
	{5, "hot items, 10 s every 2 s"},
	{6, "average of a seller's last ten"},
	{7, "highest bid in 10 s"},
	{8, "new users who sell within 10 s"},
	{11, "user sessions, 10 s"},
	{12, "bids of a bidder in 10 s"},
	{13, "bounded side input"},
}

func nexmarkFile(root string, number int) string {
	return filepath.Join(root, "nexmark", fmt.Sprintf("q%d.sql", number))
}

// nexmarkSchema writes the schema with the rows of the side input.
func nexmarkSchema(root, name string) error {
	raw, err := os.ReadFile(filepath.Join(root, "nexmark", "schema.json"))
	if err != nil {
		return err
	}
	var schema struct {
		Inputs    []any    `json:"inputs"`
		Reference []object `json:"reference"`
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		return err
	}
	var rows []object
	for i := range sideRows {
		rows = append(rows, object{"key": i, "value": fmt.Sprintf("side-%d", i)})
	}
	schema.Reference[0]["rows"] = rows
	raw, err = json.Marshal(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(name, raw, 0o644)
}

// nexmarkRows runs every query over the same events.
func (b *bench) nexmarkRows() error {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	source, schema, target := filepath.Join(dir, "events.json"), filepath.Join(dir, "schema.json"), filepath.Join(dir, "out")
	if err := nexmarkSchema(".", schema); err != nil {
		return err
	}
	n := b.sqlRows()
	if err := newNexmark(10_000).write(source, n, nil); err != nil {
		return err
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	for _, q := range nexmarkQueries {
		code, err := os.ReadFile(nexmarkFile(".", q.number))
		if err != nil {
			return err
		}
		var rate spread
		for turn := range sqlTurns {
			cpu, err := b.sqlRun(string(code), target, "--schema", schema, "--input", nexmarkInput+"="+source, "--rowtime", "dateTime", "--output", nexmarkResult)
			if err != nil {
				return fmt.Errorf("q%d: %w", q.number, err)
			}
			rate.add(float64(n)/cpu.Seconds(), turn)
		}
		made, err := lines(target)
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("Nexmark q%d: %s", q.number, q.what), fmt.Sprintf("%.0f to %.0f events / CPU s", rate.low, rate.high), "", true,
			fmt.Sprintf("%d events, %d MB of JSON lines; %d rows; the whole process of sql run", n, info.Size()/1e6, made))
	}
	return nil
}
