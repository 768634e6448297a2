package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/itchyny/gojq"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/millrace/millrace/internal/aggregate"
	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/client"
)

// tailPause is how long an up-to-date shard is left alone: five calls a second
// are what the service allows a shard.
const tailPause = 250 * time.Millisecond

func tailCommand() *cobra.Command {
	c := &connection{}
	var from, shard, filter string
	var noFollow, raw, asJSON, noDeaggregation bool
	var limit int
	cmd := &cobra.Command{
		Use:   "tail STREAM",
		Short: "Follow a stream and print its records",
		Long: `Print a stream's records from a position on, and wait for more until
interrupted. All shards are read side by side, children after their parents.

Records that the Kinesis Producer Library aggregated are taken apart. JSON is
printed over several lines on a terminal and on one line elsewhere; bytes that
are not text are printed in base64.

--jq leaves out records that are not JSON or that the expression does not fit;
the first of the latter is remarked on. --timeout ends the command like an
interrupt does.`,
		Example: `  millrace tail orders --from trim --no-follow
  millrace tail orders --from 15m --jq 'select(.total > 100) | .id'
  millrace tail orders --from 2026-01-31T09:00:00Z --json`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(ctx context.Context, cl *client.Client, cmd *cobra.Command, args []string) error {
			if raw && asJSON {
				return errors.New("give --raw or --json, not both")
			}
			if limit < 0 {
				return errors.New("--limit is a number of records from 1 up")
			}
			position, err := parsePosition(from, time.Now())
			if err != nil {
				return err
			}
			if position.sequence != "" && shard == "" {
				return errors.New("a sequence number belongs to one shard: name it with --shard")
			}
			p := &printer{w: cmd.OutOrStdout(), remarks: cmd.ErrOrStderr(), raw: raw, asJSON: asJSON, whole: noDeaggregation, limit: limit}
			if f, ok := p.w.(*os.File); ok {
				p.pretty = term.IsTerminal(int(f.Fd()))
			}
			if filter != "" {
				if p.filter, err = compileQuery(filter); err != nil {
					return fmt.Errorf("--jq: %w", err)
				}
			}
			err = tail(ctx, cl, args[0], shard, position, !noFollow, p)
			if errors.Is(err, errLimit) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		}),
	}
	c.register(cmd)
	f := cmd.Flags()
	f.StringVar(&from, "from", "latest", "where to begin: trim, latest, a duration back from now, a time, or a sequence number")
	f.StringVar(&shard, "shard", "", "read one shard only, by id or number")
	f.BoolVar(&noFollow, "no-follow", false, "stop at the newest record")
	f.IntVarP(&limit, "limit", "n", 0, "stop after so many records")
	f.StringVar(&filter, "jq", "", "jq expression that selects and reshapes JSON records")
	f.BoolVar(&raw, "raw", false, "print data as it is, a line each")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a record, with its metadata")
	f.BoolVar(&noDeaggregation, "no-deaggregation", false, "leave aggregated records whole")
	return cmd
}

var errLimit = errors.New("limit reached")

// tail reads the chosen shards side by side until each is finished, or for ever
// when it follows.
func tail(ctx context.Context, cl *client.Client, stream, only string, from startingPosition, follow bool, p *printer) error {
	shards, err := listShards(ctx, cl, stream)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	newest := ""             // ids have a fixed width and grow with time
	out := map[string]bool{} // will not be read
	for _, s := range shards {
		listed[*s.ShardId] = true
		newest = max(newest, *s.ShardId)
		// From the newest record on there is nothing to read in closed shards.
		out[*s.ShardId] = from.kind == kinesis.ShardIteratorTypeLatest && s.SequenceNumberRange.EndingSequenceNumber != nil
	}
	group, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	started := map[string]bool{}
	finished := map[string]bool{}
	var start func(id string, position startingPosition)
	// finish marks a shard as read and starts the children whose parents are
	// all read. A parent that is not known yet is one to come: its own parent is
	// still being read. One that should have been listed has expired.
	finish := func(id string, children []kinesis.ChildShard) {
		mu.Lock()
		defer mu.Unlock()
		finished[id] = true
		for _, child := range children {
			ready := true
			for _, parent := range child.ParentShards {
				ready = ready && (finished[parent] || out[parent] || !listed[parent] && parent < newest)
			}
			if ready && only == "" {
				start(*child.ShardId, startingPosition{kind: kinesis.ShardIteratorTypeTrimHorizon})
			}
		}
	}
	start = func(id string, position startingPosition) {
		if started[id] {
			return
		}
		started[id] = true
		group.Go(func() error {
			r := &shardReader{client: cl, stream: stream, shard: id, position: position}
			if err := p.follow(ctx, r, follow); err != nil {
				return err
			}
			if r.done {
				finish(id, r.children)
			}
			return nil
		})
	}
	matched := false
	mu.Lock()
	for _, s := range shards {
		if only != "" && !sameShard(*s.ShardId, only) {
			continue
		}
		matched = true
		// Children wait until their parents are read.
		if only == "" {
			if out[*s.ShardId] {
				continue
			}
			if from.kind != kinesis.ShardIteratorTypeLatest && (s.ParentShardId != nil && listed[*s.ParentShardId] || s.AdjacentParentShardId != nil && listed[*s.AdjacentParentShardId]) {
				continue
			}
		}
		start(*s.ShardId, from)
	}
	mu.Unlock()
	if !matched {
		return fmt.Errorf("stream %s has no shard %s: `millrace shards %s` shows them", stream, only, stream)
	}
	return group.Wait()
}

// printer writes records, one goroutine at a time.
type printer struct {
	raw, asJSON, pretty, whole bool
	filter                     *gojq.Code
	limit                      int

	// each, if set, takes the records in place of w.
	each func(shard string, r *kinesis.Record, data []byte) error

	mu      sync.Mutex
	w       io.Writer
	printed int
	// remarks are for people; remarked tells that one about the filter was made.
	remarks  io.Writer
	remarked bool
}

// follow prints what a shard has, and what comes when it is to wait for more.
func (p *printer) follow(ctx context.Context, r *shardReader, wait bool) error {
	for !r.done {
		records, behind, err := r.next(ctx)
		if err != nil {
			return err
		}
		for i := range records {
			if err := p.record(r.shard, &records[i]); err != nil {
				return err
			}
		}
		if behind > 0 || len(records) > 0 || r.done {
			continue
		}
		if !wait {
			// A closed shard is read through so that its children follow.
			if closed, err := isClosed(ctx, r); err != nil || !closed {
				return err
			}
		}
		if err := client.Sleep(ctx, tailPause); err != nil {
			return err
		}
	}
	return nil
}

func isClosed(ctx context.Context, r *shardReader) (bool, error) {
	shards, err := listShards(ctx, r.client, r.stream)
	if err != nil {
		return false, err
	}
	for _, s := range shards {
		if *s.ShardId == r.shard {
			return s.SequenceNumberRange.EndingSequenceNumber != nil, nil
		}
	}
	return true, nil
}

func (p *printer) record(shard string, r *kinesis.Record) error {
	if !p.whole {
		if users, ok := aggregate.Decode(r.Data); ok {
			for i := range users {
				if err := p.user(shard, r, users[i].PartitionKey, i, users[i].Data); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return p.user(shard, r, api.Val(r.PartitionKey), -1, r.Data)
}

// line is a record as --json prints it and export writes it. Data holds text,
// DataBase64 anything else.
type line struct {
	ShardID           string     `json:"shardId,omitempty"`
	SequenceNumber    string     `json:"sequenceNumber,omitempty"`
	SubSequenceNumber *int       `json:"subSequenceNumber,omitempty"`
	ArrivalTime       *time.Time `json:"arrivalTime,omitempty"`
	PartitionKey      string     `json:"partitionKey"`
	ExplicitHashKey   string     `json:"explicitHashKey,omitempty"`
	Data              *string    `json:"data,omitempty"`
	DataBase64        *string    `json:"dataBase64,omitempty"`
}

func newLine(shard string, r *kinesis.Record, key string, data []byte) line {
	l := line{ShardID: shard, SequenceNumber: api.Val(r.SequenceNumber), ArrivalTime: r.ApproximateArrivalTimestamp, PartitionKey: key}
	text := string(data)
	if !utf8.Valid(data) {
		text = base64.StdEncoding.EncodeToString(data)
		l.DataBase64 = &text
	} else {
		l.Data = &text
	}
	return l
}

func (p *printer) user(shard string, r *kinesis.Record, key string, sub int, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.each != nil {
		return p.each(shard, r, data)
	}
	if p.filter != nil {
		var v any
		if json.Unmarshal(data, &v) != nil {
			return nil
		}
		results := p.filter.Run(v)
		for {
			v, ok := results.Next()
			if !ok {
				return nil
			}
			// A record the expression does not fit is one it does not select. Said
			// once, since the expression may be what is wrong.
			if failed, ok := v.(error); ok {
				if !p.remarked {
					p.remarked = true
					fmt.Fprintf(p.remarks, "--jq: %v; records like this are left out\n", failed)
				}
				return nil
			}
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			if err := p.print(shard, r, key, sub, text); err != nil {
				return err
			}
		}
	}
	return p.print(shard, r, key, sub, data)
}

func (p *printer) print(shard string, r *kinesis.Record, key string, sub int, data []byte) error {
	if p.limit > 0 && p.printed >= p.limit {
		return errLimit
	}
	p.printed++
	var err error
	switch {
	case p.raw:
		_, err = p.w.Write(append(data[:len(data):len(data)], '\n'))
	case p.asJSON:
		l := newLine(shard, r, key, data)
		if sub >= 0 {
			l.SubSequenceNumber = &sub
		}
		err = writeLine(p.w, l)
	default:
		_, err = p.w.Write(append(readable(data, p.pretty), '\n'))
	}
	if err == nil && p.limit > 0 && p.printed == p.limit {
		return errLimit
	}
	return err
}

func writeLine(w io.Writer, l line) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(l)
}

// readable is data for eyes: JSON indented, other text as it is, the rest in
// base64.
func readable(data []byte, pretty bool) []byte {
	if !utf8.Valid(data) {
		return base64.StdEncoding.AppendEncode(nil, data)
	}
	var v json.RawMessage
	if pretty && len(data) > 0 && (data[0] == '{' || data[0] == '[') && json.Unmarshal(data, &v) == nil {
		if out, err := json.MarshalIndent(v, "", "  "); err == nil {
			return out
		}
	}
	return data[:len(data):len(data)]
}
