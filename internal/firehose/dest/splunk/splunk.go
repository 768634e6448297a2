// Package splunk delivers batches to the HTTP event collector of Splunk, and
// waits until its indexers acknowledge them.
//
// The one idea: a channel belongs to one attempt at a time. The collector counts
// acknowledgements per channel and only the node that took the data knows them,
// so an attempt borrows a channel with its cookies, sends, asks on that channel
// until it is told true, and gives it back. Concurrent attempts use different
// channels; a channel that misbehaved is thrown away.
//
//	POST /services/collector/{raw|event}?channel=GUID   the records, nothing between
//	{"text":"Success","code":0,"ackId":7}
//	POST /services/collector/ack?channel=GUID           {"acks":[7]}
//	{"acks":{"7":true}}                                 told once, then forgotten
//
// Time spent waiting for answers and acknowledgements is not counted by the
// retry duration.
//
// collector.go speaks the protocol, codes.go knows what its answers mean.
package splunk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/payload"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

// Endpoint types.
const (
	Raw   = "Raw"   // records are text, which Splunk cuts into events
	Event = "Event" // records are envelopes: {"event":…}
)

// Config is one collector.
type Config struct {
	Endpoint string `yaml:"endpoint"` // https://host:port
	Type     string `yaml:"type"`     // Raw or Event
	Token    string `yaml:"token"`
	// Secret is the ARN of a secret whose hec_token is used instead of Token.
	Secret string `yaml:"secret"`
	// AckTimeout is how long an acknowledgement is waited for; 0 is 3 minutes.
	AckTimeout time.Duration `yaml:"ack_timeout"`

	// What follows is beyond the service's API.

	TLS  outbound.TLS `yaml:"tls"`
	GZIP bool         `yaml:"gzip"`
	// Timeout of one request; 0 is 3 minutes.
	Timeout time.Duration `yaml:"timeout"`
	// NoAcks takes the collector's answer for an acknowledgement: what a crashing
	// indexer loses then is lost.
	NoAcks bool `yaml:"no_acknowledgements"`
	// MaxBytes is the largest body; 0 is 32 MiB. Larger batches become several.
	MaxBytes int64 `yaml:"max_bytes"`
}

// Secrets resolves the ARN of a secret.
type Secrets interface {
	Resolve(ctx context.Context, arn string) (map[string]string, error)
}

// Deps is what a destination stands on.
type Deps struct {
	Policy  outbound.Policy
	Secrets Secrets // may be nil if no Config names a secret
	// Current, if set, gives the configuration in force, which is asked before
	// every attempt. TLS and Timeout are those of New all the same.
	Current func() Config
}

const (
	defaultAckTimeout = 3 * time.Minute
	defaultTimeout    = 3 * time.Minute
	defaultMaxBytes   = 32 << 20
	maxIdleChannels   = 16
	// Acknowledgements are asked for after firstPoll, then less and less often.
	firstPoll, slowestPoll = 100 * time.Millisecond, 10 * time.Second
)

// Destination is a dest.Destination.
type Destination struct {
	config  Config
	deps    Deps
	timeout time.Duration
	client  *http.Client // channels add their cookies to it

	mu   sync.Mutex
	idle []*channel
}

// New makes a destination. It fails for files that cannot be read.
func New(c Config, d Deps) (*Destination, error) {
	client, err := outbound.Client(outbound.Options{Policy: d.Policy, TLS: c.TLS})
	if err != nil {
		return nil, fmt.Errorf("Splunk: %w", err)
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return &Destination{config: c, deps: d, timeout: timeout, client: client}, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.client.CloseIdleConnections()
	return nil
}

// FailureFields implements dest.Annotator.
func (d *Destination) FailureFields(r *record.Record) []dest.Field {
	sequence := ""
	if r.Lane != nil {
		sequence = r.Lane.SequenceNumber(r.Index, r.Arrival)
	}
	return []dest.Field{{Name: "EventId", Value: sequence + "." + strconv.FormatUint(uint64(r.Sub), 10)}}
}

// form is a record in a body: its bytes.
type form struct{}

func (form) Size(r *record.Record, _ bool) int { return len(r.Data) }

func (form) Append(body []byte, r *record.Record, _ bool) []byte { return append(body, r.Data...) }

// Deliver implements dest.Destination.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	a := &attempt{Destination: d, ctx: ctx, batch: b, config: d.config}
	if d.deps.Current != nil {
		a.config = d.deps.Current()
	}
	err := a.deliver()
	return a.result, err
}

// attempt is one Deliver under way.
type attempt struct {
	*Destination
	ctx     context.Context
	config  Config
	batch   *record.Batch
	base    *url.URL
	token   string
	channel *channel
	source  *payload.Source
	result  dest.Result
	pending []sent // in the order of the batch
	failed  []span
	refused bool        // there are records that no request takes
	stopped *dest.Error // the first request that failed; nothing is sent after it
}

// sent is a part whose acknowledgement is awaited.
type sent struct {
	payload.Part
	ack uint64
	at  time.Time
}

// span is a part that failed.
type span struct {
	payload.Part
	err *dest.Error
}

func (a *attempt) deliver() error {
	if err := a.prepare(); err != nil {
		return err
	}
	limit := a.config.MaxBytes
	if limit <= 0 {
		limit = defaultMaxBytes
	}
	parts, refused, err := payload.Plan(a.batch, 0, a.batch.Count, form{}, payload.Limits{Records: a.batch.Count, Bytes: limit})
	if err != nil {
		return fmt.Errorf("read the batch: %w", err)
	}
	for _, i := range refused {
		a.refuse(payload.Part{From: i, To: i + 1}, fmt.Sprintf("The record is larger than the %d bytes that one request may carry.", limit))
	}
	a.channel = a.borrow()
	sound := false
	defer func() { a.giveBack(a.channel, sound) }()
	a.source = payload.NewSource(a.batch, form{})
	defer a.source.Close()
	for _, p := range parts {
		if err := a.send(p); err != nil {
			return err
		}
	}
	if err := a.awaitAcks(); err != nil {
		return err
	}
	sound = a.stopped == nil
	return a.conclude()
}

// conclude turns what happened to the parts into the answer.
func (a *attempt) conclude() error {
	if a.stopped != nil && len(a.result.Objects) == 0 && !a.refused {
		return a.stopped
	}
	if len(a.failed) == 0 {
		return nil
	}
	failures := make([]dest.Failure, a.batch.Count)
	for _, f := range a.failed {
		for i := f.From; i < f.To; i++ {
			failures[i] = dest.Failure{Index: i, Code: f.err.Code, Message: f.err.Message, Retry: !f.err.Permanent}
		}
	}
	for _, f := range failures {
		if f.Code != "" {
			a.result.Failed = append(a.result.Failed, f)
		}
	}
	return nil
}

// prepare looks up what is the same for all requests of the attempt.
func (a *attempt) prepare() error {
	c := a.config
	base, err := url.Parse(strings.TrimSuffix(c.Endpoint, "/"))
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return &dest.Error{Code: "Splunk.InvalidEndpoint", Message: "The endpoint of the collector is not a URL that a request can be made of."}
	}
	if c.Type != Raw && c.Type != Event {
		return &dest.Error{Code: "Splunk.InvalidEndpoint", Message: fmt.Sprintf("The endpoint type %q is neither Raw nor Event.", c.Type)}
	}
	a.base, a.token = base, c.Token
	if c.Secret == "" {
		return nil
	}
	failed := func(err error) error {
		return &dest.Error{Code: "Splunk.InvalidToken", Message: "The token could not be read: " + err.Error(), Err: err}
	}
	if a.deps.Secrets == nil {
		return failed(errors.New("there are no secrets"))
	}
	values, err := a.deps.Secrets.Resolve(a.ctx, c.Secret)
	if err != nil {
		return failed(err)
	}
	token, ok := values["hec_token"]
	if !ok {
		return failed(fmt.Errorf("%s has no hec_token", c.Secret))
	}
	a.token = token
	return nil
}

func (a *attempt) fail(p payload.Part, e *dest.Error) { a.failed = append(a.failed, span{p, e}) }

// refuse gives up a record that no request takes.
func (a *attempt) refuse(p payload.Part, message string) {
	a.refused = true
	a.fail(p, &dest.Error{Code: "Splunk.ServerError.ContentTooLarge", Message: message, Permanent: true})
}

// stop remembers the failure that ends the attempt, and what failed with it.
func (a *attempt) stop(p payload.Part, e *dest.Error) {
	if a.stopped == nil {
		a.stopped = e
	}
	a.fail(p, e)
}

// done counts a part as stored.
func (a *attempt) done(p payload.Part) {
	a.result.Objects = append(a.result.Objects, dest.Object{
		Name: a.base.Scheme + "://" + a.base.Host + " " + a.config.Type + " channel " + a.channel.id, Records: p.Records(), Bytes: p.Bytes,
	})
}

// send makes the request of one part, or of its halves if the collector does not
// take so much at once. An error is one of this server.
func (a *attempt) send(p payload.Part) error {
	if a.stopped != nil {
		a.fail(p, a.stopped)
		return nil
	}
	if p.Bytes == 0 {
		// Records without bytes are no events; the collector refuses such a body.
		a.done(p)
		return nil
	}
	ack, err := a.post(p)
	var e *dest.Error
	switch {
	case err == nil && a.config.NoAcks:
		a.done(p)
		return nil
	case err == nil:
		a.pending = append(a.pending, sent{p, ack, time.Now()})
		return nil
	case !errors.As(err, &e):
		return err
	case e.Code != "Splunk.ServerError.ContentTooLarge":
		a.stop(p, e)
		return nil
	case p.Records() == 1:
		a.refuse(p, e.Message)
		return nil
	}
	halves, err := payload.Halve(a.batch, p, form{})
	if err != nil {
		return fmt.Errorf("read the batch: %w", err)
	}
	for _, half := range halves {
		if err := a.send(half); err != nil {
			return err
		}
	}
	return nil
}

// awaitAcks asks until everything sent is acknowledged, or too old. Parts that
// went out are waited for even if a later one failed.
func (a *attempt) awaitAcks() error {
	timeout := a.config.AckTimeout
	if timeout <= 0 {
		timeout = defaultAckTimeout
	}
	pause := firstPoll
	for len(a.pending) > 0 {
		start := time.Now()
		err := wait(a.ctx, min(pause, max(0, time.Until(a.pending[0].at.Add(timeout)))))
		a.result.Waited += time.Since(start)
		if err != nil {
			return fmt.Errorf("wait for acknowledgements of %s: %w", a.base.Host, err)
		}
		pause = min(pause*3/2, slowestPoll)
		acked, err := a.poll()
		var e *dest.Error
		switch {
		case errors.As(err, &e) && e.Permanent:
			for _, s := range a.pending {
				a.stop(s.Part, e)
			}
			a.pending = nil
			return nil
		case err != nil && e == nil:
			return err
		}
		// Other troubles of asking may pass before the time is up.
		left := a.pending[:0]
		for _, s := range a.pending {
			switch {
			case acked[s.ack]:
				a.done(s.Part)
			case time.Since(s.at) >= timeout:
				late := &dest.Error{Code: "Splunk.AckTimeout", Message: fmt.Sprintf("No acknowledgement came within %v of sending the data.", timeout)}
				if e != nil {
					if e.Code == "Splunk.ProxyWithoutStickySessions" {
						late.Code = e.Code
					}
					late.Message += " The last question failed: " + e.Message
				}
				a.stop(s.Part, late)
			default:
				left = append(left, s)
			}
		}
		a.pending = left
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Health asks whether the collector takes data. A nil error says yes; anything
// else is a *dest.Error or what ended ctx.
func (d *Destination) Health(ctx context.Context) error {
	a := &attempt{Destination: d, ctx: ctx, config: d.config}
	if d.deps.Current != nil {
		a.config = d.deps.Current()
	}
	if err := a.prepare(); err != nil {
		return err
	}
	return a.health()
}
