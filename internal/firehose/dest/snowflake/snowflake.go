// Package snowflake delivers batches to tables of Snowflake through the REST
// interface of Snowpipe Streaming.
//
// The one idea: the other side remembers. Every lane of a source has a channel
// of its own there, and rows travel with an offset token that names the batch
// and the last record among them. An attempt waits until its last token is
// committed; one that finds a token of its own batch, because an earlier attempt
// or an earlier life of this server got that far, goes on behind it. So what is
// repeated is not stored twice.
//
//	GET  /v2/streaming/hostname                         where rows are taken
//	POST /oauth/token                                   a token for that host
//	PUT  …/databases/D/schemas/S/pipes/P/channels/C     opens, tells what is committed
//	POST …/channels/C/rows?continuationToken&offsetToken   rows, a JSON object a line
//	POST …/pipes/P:bulk-channel-status                  what is committed by now
//
// Rows that are no JSON objects are refused here. Rows that the table does not
// take are only counted over there: then all rows that may be meant count as
// failed, and the next ones travel in smaller groups until none fails.
//
// client.go speaks the protocol, key.go reads private keys and signs, rows.go
// makes rows.
package snowflake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

// Config is one table.
type Config struct {
	AccountURL string `yaml:"account_url"` // https://….snowflakecomputing.com
	User       string `yaml:"user"`
	PrivateKey string `yaml:"private_key"` // PKCS#8, base64 with or without PEM's lines
	Passphrase string `yaml:"key_passphrase"`
	// Secret is the ARN of a secret with user, private_key and key_passphrase,
	// which are used instead.
	Secret   string `yaml:"secret"`
	Role     string `yaml:"role"` // empty is the user's default
	Database string `yaml:"database"`
	Schema   string `yaml:"schema"`
	Table    string `yaml:"table"`
	// Mapping says how a record becomes a row.
	Mapping        Mapping `yaml:"mapping"`
	ContentColumn  string  `yaml:"content_column"`
	MetadataColumn string  `yaml:"metadata_column"`

	// What follows is beyond the service's API.

	// URL is connected to instead of AccountURL, such as a proxy or an emulator.
	URL string       `yaml:"url"`
	TLS outbound.TLS `yaml:"tls"`
	// Pipe takes the rows; empty is the table's own: TABLE-STREAMING.
	Pipe string `yaml:"pipe"`
	// Timeout of one request; 0 is a minute. CommitTimeout bounds the wait for rows
	// to be committed; 0 is 5 minutes.
	Timeout       time.Duration `yaml:"timeout"`
	CommitTimeout time.Duration `yaml:"commit_timeout"`
}

// Mapping is a data loading option.
type Mapping string

// The mappings, by the names of the API.
const (
	JSONMapping     Mapping = "JSON_MAPPING" // keys are columns
	ContentMapping  Mapping = "VARIANT_CONTENT_MAPPING"
	MetadataMapping Mapping = "VARIANT_CONTENT_AND_METADATA_MAPPING"
)

// Secrets resolves the ARN of a secret.
type Secrets interface {
	Resolve(ctx context.Context, arn string) (map[string]string, error)
}

// Deps is what a destination stands on.
type Deps struct {
	Policy  outbound.Policy
	Secrets Secrets // may be nil if no Config names a secret
}

const (
	defaultTimeout       = time.Minute
	defaultCommitTimeout = 5 * time.Minute
	maxRequestBytes      = 4_000_000 // of rows, before compression
	mostRows             = 20_000    // of one request
	fewestRows           = 16
	cleanGroups          = 4 // without a refused row, before groups grow
	firstPoll            = 100 * time.Millisecond
	slowestPoll          = 5 * time.Second
	maxChannels          = 4096
)

// Destination is a dest.Destination.
type Destination struct {
	config  Config
	deps    Deps
	base    *url.URL // where the account answers
	client  *http.Client
	timeout time.Duration
	commit  time.Duration
	most    int // rows of one request

	session session

	mu       sync.Mutex
	channels map[string]*channel
}

// channel is one lane's.
type channel struct {
	name string
	busy chan struct{} // holds a token while nobody uses the channel

	// What follows belongs to whoever holds the token.
	open         bool
	continuation string
	committed    string // offset token
	errors       int64  // rows that were refused since the channel was made
	lastError    string
	rows         int // most rows of one request
	clean        int // waits since a row was refused, or since rows grew
}

// New makes a destination. It fails for files that cannot be read, and for a
// configuration that cannot work at all.
func New(c Config, d Deps) (*Destination, error) {
	if c.Mapping == "" {
		c.Mapping = JSONMapping
	}
	switch c.Mapping {
	case JSONMapping, ContentMapping, MetadataMapping:
	default:
		return nil, fmt.Errorf("Snowflake: %q is no mapping", c.Mapping)
	}
	if c.ContentColumn == "" {
		c.ContentColumn = "RECORD_CONTENT"
	}
	if c.MetadataColumn == "" {
		c.MetadataColumn = "RECORD_METADATA"
	}
	if c.Pipe == "" {
		c.Pipe = c.Table + "-STREAMING"
	}
	address := c.URL
	if address == "" {
		address = c.AccountURL
	}
	base, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return nil, errors.New("Snowflake: the account's URL is not one that a request can be made of")
	}
	if base.Path == "" {
		base.Path = "/"
	}
	client, err := outbound.Client(outbound.Options{Policy: d.Policy, TLS: c.TLS, HTTP2: true})
	if err != nil {
		return nil, fmt.Errorf("Snowflake: %w", err)
	}
	s := &Destination{config: c, deps: d, base: base, client: client, most: mostRows, channels: map[string]*channel{}}
	s.session.gate = make(chan struct{}, 1)
	s.session.gate <- struct{}{}
	if s.timeout = c.Timeout; s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	if s.commit = c.CommitTimeout; s.commit <= 0 {
		s.commit = defaultCommitTimeout
	}
	return s, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.client.CloseIdleConnections()
	return nil
}

// borrow waits for the channel of a batch's lane.
func (d *Destination) borrow(ctx context.Context, b *record.Batch) (*channel, error) {
	lane := "0"
	if b.Lane != nil {
		lane = b.Lane.Name()
	}
	name := channelName(b.Stream, lane, b.Partition)
	d.mu.Lock()
	c := d.channels[name]
	if c == nil {
		if len(d.channels) >= maxChannels {
			d.forgetLocked()
		}
		c = &channel{name: name, busy: make(chan struct{}, 1), rows: d.most}
		c.busy <- struct{}{}
		d.channels[name] = c
	}
	d.mu.Unlock()
	select {
	case <-c.busy:
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// forgetLocked drops a channel that nobody uses: it is opened again when its
// lane is back.
func (d *Destination) forgetLocked() {
	for name, c := range d.channels {
		select {
		case <-c.busy:
			delete(d.channels, name)
			c.busy <- struct{}{} // for one who found it before
			return
		default:
		}
	}
}

// channelName names the channel of a lane. It is the same in every life of the
// server.
func channelName(s record.Stream, lane, partition string) string {
	clean := func(text string) string {
		return strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
				return r
			}
			return '_'
		}, text)
	}
	name := "firehose_" + s.Account + "_" + s.Region + "_" + clean(s.Name) + "_" + clean(lane)
	if partition != "" {
		name += "_" + clean(partition)
	}
	return name[:min(len(name), 250)]
}

// Deliver implements dest.Destination.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	c, err := d.borrow(ctx, b)
	if err != nil {
		return dest.Result{}, fmt.Errorf("deliver to %s: %w", d.base.Host, err)
	}
	defer func() { c.busy <- struct{}{} }()
	a := &attempt{Destination: d, ctx: ctx, batch: b, channel: c, comparable: true, failed: map[int]dest.Failure{}}
	if err := a.deliver(); err != nil {
		// What of this batch has arrived shows when the channel is opened again.
		c.open = false
		return dest.Result{Waited: a.waited}, err
	}
	r := dest.Result{Waited: a.waited}
	for _, i := range slices.Sorted(maps.Keys(a.failed)) {
		r.Failed = append(r.Failed, a.failed[i])
	}
	if stored := b.Count - len(a.failed); stored > 0 {
		r.Objects = []dest.Object{{
			Name:    d.config.Database + "." + d.config.Schema + "." + d.config.Table + " channel " + c.name,
			Records: stored, Bytes: a.bytes,
		}}
	}
	return r, nil
}

// attempt is one Deliver under way.
type attempt struct {
	*Destination
	ctx        context.Context
	batch      *record.Batch
	channel    *channel
	waited     time.Duration
	bytes      int64
	failed     map[int]dest.Failure
	comparable bool  // all records are of one lane, so that places can be compared
	before     int64 // refused rows of the channel when the first attempt began

	group  group // that is being filled
	buffer []byte
	sent   []group // of which is not known yet what became of them
}

// group is what one request carries.
type group struct {
	indexes []int // of its records, as ranges: from, to, from, to …
	rows    int
	token   string
}

func (g *group) add(i int, token string) {
	g.rows, g.token = g.rows+1, token
	if n := len(g.indexes); n > 0 && g.indexes[n-1] == i {
		g.indexes[n-1] = i + 1
		return
	}
	g.indexes = append(g.indexes, i, i+1)
}

func (a *attempt) deliver() error {
	if err := a.connect(); err != nil {
		return err
	}
	if !a.channel.open {
		if err := a.openChannel(); err != nil {
			return err
		}
	}
	done, found := a.resume()
	lost := found && a.channel.errors > a.before
	buffer := rowBuffers.Get().(*[]byte)
	defer rowBuffers.Put(buffer)
	a.buffer = (*buffer)[:0]
	defer func() { *buffer = a.buffer[:0] }()
	var ours error // of the exchange, not of the batch
	err := a.batch.Each(func(i int, r *record.Record) error {
		ours = a.take(i, r, done, found, lost)
		return ours
	})
	if err != nil && ours == nil {
		return fmt.Errorf("read the batch: %w", err)
	}
	if err == nil {
		err = a.flush(len(a.buffer))
	}
	if err == nil {
		err = a.settle()
	}
	return err
}

// take puts a record on its way. Records up to done are there already, if found;
// or they were refused there, if lost.
func (a *attempt) take(i int, r *record.Record, done record.Position, found, lost bool) error {
	if r.Lane != a.batch.Lane {
		a.comparable = false
	}
	before := len(a.buffer)
	row, why := a.appendRow(a.buffer, r)
	a.buffer = row
	size := len(row) - before
	if why == "" && size > maxRequestBytes {
		why = fmt.Sprintf("The record is larger than the %d bytes that a request may carry.", maxRequestBytes)
	}
	switch {
	case why != "":
		a.buffer = row[:before]
		a.fail(i, "Snowflake.InvalidInput", why)
		return nil
	case found && a.comparable && r.Compare(done) <= 0:
		a.buffer = row[:before]
		if lost {
			code, message := refusal(a.channel.lastError)
			a.fail(i, code, "An earlier attempt sent this record, and the table refused rows of it. "+message)
		}
		return nil
	}
	if len(row) > maxRequestBytes { // the row opens the next group
		if err := a.flush(before); err != nil {
			return err
		}
		copy(a.buffer[:size], row[before:])
		a.buffer = a.buffer[:size]
	}
	a.group.add(i, a.tokenOf(r))
	if a.group.rows >= a.channel.rows {
		err := a.flush(len(a.buffer))
		a.buffer = a.buffer[:0]
		return err
	}
	return nil
}

func (a *attempt) fail(i int, code, message string) {
	if _, ok := a.failed[i]; !ok {
		a.failed[i] = dest.Failure{Index: i, Code: code, Message: message}
	}
}

// tokenOf is the offset token of a record: its batch, its place in the lane, and
// how many rows had been refused on the channel before the batch.
func (a *attempt) tokenOf(r *record.Record) string {
	place := "-"
	if a.comparable {
		place = strconv.FormatUint(r.Index, 10) + "." + strconv.FormatUint(uint64(r.Sub), 10)
	}
	return a.batch.ID + "/" + place + "/" + strconv.FormatInt(a.before, 10)
}

// resume reads the token that is committed: how far an earlier attempt at this
// batch got.
func (a *attempt) resume() (done record.Position, found bool) {
	a.before = a.channel.errors
	rest, ok := strings.CutPrefix(a.channel.committed, a.batch.ID+"/")
	if !ok {
		return done, false
	}
	place, base, _ := strings.Cut(rest, "/")
	if n, err := strconv.ParseInt(base, 10, 64); err == nil && n >= 0 {
		a.before = min(n, a.channel.errors)
	}
	index, sub, _ := strings.Cut(place, ".")
	n, err := strconv.ParseUint(index, 10, 64)
	m, err2 := strconv.ParseUint(sub, 10, 32)
	if err != nil || err2 != nil {
		return done, false
	}
	return record.Position{Index: n, Sub: uint32(m)}, true
}

// flush sends the first n bytes of the buffer, which are the rows of the group.
func (a *attempt) flush(n int) error {
	if a.group.rows == 0 {
		return nil
	}
	written, err := a.appendRows(a.buffer[:n], a.group.token)
	if err != nil {
		return err
	}
	a.bytes += written
	a.sent = append(a.sent, a.group)
	a.group = group{}
	if a.channel.rows < a.most {
		// Rows that are refused can be told apart only by waiting for each group.
		return a.settle()
	}
	return nil
}

// settle waits until all groups that were sent are committed, and finds out
// which of them hold rows that were refused.
func (a *attempt) settle() error {
	if len(a.sent) == 0 {
		return nil
	}
	c := a.channel
	last := a.sent[len(a.sent)-1].token
	deadline := time.Now().Add(a.commit)
	for pause := firstPoll; ; pause = min(pause*3/2, slowestPoll) {
		status, err := a.status()
		if err != nil {
			return err
		}
		if status.Committed == last {
			a.judge(status)
			a.sent = a.sent[:0]
			c.committed = last
			return nil
		}
		if time.Now().Add(pause).After(deadline) {
			return &dest.Error{Code: "Snowflake.CommitTimeout", Message: fmt.Sprintf("The rows were not committed within %v of sending them.", a.commit)}
		}
		start := time.Now()
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-a.ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for the commit at %s: %w", a.base.Host, context.Cause(a.ctx))
		}
		a.waited += time.Since(start)
	}
}

// judge compares how many rows were refused with how many were before.
func (a *attempt) judge(s channelStatus) {
	c := a.channel
	refused := s.refused() - c.errors
	c.errors, c.lastError = s.refused(), s.ErrorMessage
	if refused <= 0 {
		if c.clean++; c.clean >= cleanGroups && c.rows < a.most {
			c.rows, c.clean = min(c.rows*2, a.most), 0
		}
		return
	}
	suspects := a.sent
	for n, g := range a.sent {
		if g.token == s.ErrorBound {
			suspects = a.sent[:n+1]
			break
		}
	}
	rows := 0
	for _, g := range suspects {
		rows += g.rows
	}
	code, message := refusal(s.ErrorMessage)
	message = fmt.Sprintf("The table refused %d of the %d rows that were sent together; which of them cannot be told. %s", refused, rows, message)
	for _, g := range suspects {
		for k := 0; k < len(g.indexes); k += 2 {
			for i := g.indexes[k]; i < g.indexes[k+1]; i++ {
				a.fail(i, code, message)
			}
		}
	}
	c.rows, c.clean = max(fewestRows, min(c.rows, rows)/8), 0
}
