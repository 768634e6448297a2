// Package logs keeps log groups, log streams and their events, and serves the part
// of the CloudWatch Logs API that writes and reads them.
//
// The one idea: a log stream is a shard log like any other. An event gets the
// durability, the order and the retention of the engine below, and a place (its
// index) that paging tokens can name; what is kept about groups and streams is
// metadata.
//
// Events stand in a stream in the order of their arrival. Pages are cut in that
// order, which is what makes tokens exact, and sorted by the events' own times
// before they are returned; so the times of two pages overlap where somebody wrote
// events late.
//
// The server itself logs here too, through Log: what functions print, and why
// deliveries fail. Such groups are made when they are first written to, with a
// retention of 30 days.
//
// Not kept: encryption keys, metric filters, subscriptions, insights. Requests
// that name a key are refused rather than stored in clear text.
//
// # Locks
//
// Service.admin is held while groups and streams are made and removed; entry.mu
// while events are appended to one stream. Log's queue has a lock of its own, under
// which nothing else is taken.
//
// Start reading at put.go for the way in and read.go for the way out.
package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/api"
	cwl "github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	maxGroups  = 10_000  // in one account and region
	maxStreams = 100_000 // in one group
	maxTags    = 50
	// ownRetention is the retention, in days, of groups that the server makes.
	ownRetention = 30
	// sweepEvery is how often what has expired is given back.
	sweepEvery = 10 * time.Minute
)

// Options of a Service.
type Options struct {
	Log  *shardlog.Log
	Meta *meta.Store
	Now  func() time.Time // time.Now if nil
	// Logger gets what could not be logged here; nil discards.
	Logger *slog.Logger
}

// Service serves the operations. It is made by New; Run must run for Log and for
// retention.
type Service struct {
	log    *shardlog.Log
	meta   *meta.Store
	now    func() time.Time
	logger *slog.Logger
	queue  queue

	admin sync.Mutex
}

var _ cwl.Handler = (*Service)(nil)

// New makes a Service, and gives back what a removal that was cut short left.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{log: o.Log, meta: o.Meta, now: o.Now, logger: o.Logger}
	s.queue.signal = make(chan struct{}, 1)
	if err := s.emptyTrash(ctx); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	return s, nil
}

// group is what is kept about a log group.
type group struct {
	Created   int64             // milliseconds since 1970
	Retention int32             `json:",omitempty"` // days; 0 keeps events for ever
	Class     string            `json:",omitempty"`
	Tags      map[string]string `json:",omitempty"`
	Own       bool              `json:",omitempty"` // made by the server
}

// stream is what is kept about a log stream.
type stream struct {
	Created int64
	Shard   driver.ShardID
	Own     bool `json:",omitempty"`
}

// trash is a shard log that nobody needs any more.
type trash struct{}

var (
	groups  = meta.Table[group]{Prefix: "logs-groups", Format: 1}
	streams = meta.Table[stream]{Prefix: "logs-streams", Format: 1}
	waste   = meta.Table[trash]{Prefix: "logs-trash", Format: 1}
)

func invalidf(format string, args ...any) error {
	return &cwl.InvalidParameterException{Message: fmt.Sprintf(format, args...)}
}

var (
	errNoGroup  = &cwl.ResourceNotFoundException{Message: "The specified log group does not exist."}
	errNoStream = &cwl.ResourceNotFoundException{Message: "The specified log stream does not exist."}
)

func (s *Service) group(call *api.Call, name string) (meta.Row[group], error) {
	row, ok, err := groups.Get(s.meta, call.Account, call.Region, name)
	if err == nil && !ok {
		err = errNoGroup
	}
	return row, err
}

func (s *Service) stream(call *api.Call, group, name string) (meta.Row[stream], error) {
	row, ok, err := streams.Get(s.meta, call.Account, call.Region, group, name)
	if err == nil && !ok {
		err = errNoStream
	}
	return row, err
}

func groupARN(call *api.Call, name string) string {
	partition := call.Partition
	if partition == "" {
		partition = "aws"
	}
	return "arn:" + partition + ":logs:" + call.Region + ":" + call.Account + ":log-group:" + name
}

// groupName finds the group that a request names by name or by identifier.
func groupName(name, identifier *string) (string, error) {
	switch {
	case name != nil && identifier != nil:
		return "", invalidf("LogGroupName and logGroupIdentifier cannot both be set")
	case name != nil:
		return *name, nil
	case identifier == nil:
		return "", invalidf("One of logGroupName and logGroupIdentifier must be set")
	}
	return fromARN(*identifier), nil
}

// fromARN is the group of an ARN; what is none is a name.
func fromARN(text string) string {
	parts := strings.SplitN(text, ":", 7)
	if len(parts) == 7 && parts[0] == "arn" && parts[2] == "logs" && parts[5] == "log-group" {
		name, _, _ := strings.Cut(parts[6], ":")
		return name
	}
	return text
}

// ResourceARN names the group, or the stream of a group, that a call is about.
func (s *Service) ResourceARN(call *api.Call, in api.Shape) (arn, owner string) {
	owner = call.Account
	ref, kind := call.Operation.Resource(in)
	switch kind {
	case api.ResourceARN:
		return strings.TrimSuffix(ref, ":*") + ":*", owner
	case api.ResourceLogGroup:
		arn = groupARN(call, fromARN(ref))
	default:
		return "*", owner
	}
	var name *string
	switch in := in.(type) {
	case *cwl.PutLogEventsInput:
		name = in.LogStreamName
	case *cwl.GetLogEventsInput:
		name = in.LogStreamName
	case *cwl.CreateLogStreamInput:
		name = in.LogStreamName
	case *cwl.DeleteLogStreamInput:
		name = in.LogStreamName
	}
	if name != nil {
		return arn + ":log-stream:" + *name, owner
	}
	return arn + ":*", owner
}

// ResourcePolicy finds none: groups carry no policies.
func (s *Service) ResourcePolicy(string) (string, bool) { return "", false }

// ConditionValues are the tags of the group that a call is about.
func (s *Service) ConditionValues(call *api.Call, in api.Shape) map[string][]string {
	ref, kind := call.Operation.Resource(in)
	if kind == api.ResourceNone {
		return nil
	}
	row, err := s.group(call, fromARN(ref))
	if err != nil {
		return nil
	}
	values := map[string][]string{}
	for k, v := range row.Value.Tags {
		values["aws:ResourceTag/"+k] = []string{v}
	}
	return values
}

// Run writes what Log was given and gives back what has expired, until ctx ends;
// then it writes what is left.
func (s *Service) Run(ctx context.Context) error {
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() { s.write(ctx) })
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.logger.Error("expired log events not given back", "error", err)
			}
		}
	}
}

// Sweep gives back the space of expired events, and removes streams that the
// server made and that hold nothing any more.
func (s *Service) Sweep(ctx context.Context) error {
	rows, err := groups.List(s.meta, "", 0)
	if err != nil {
		return err
	}
	for _, g := range rows {
		if g.Value.Retention == 0 {
			continue
		}
		parts, err := meta.SplitKey(strings.TrimPrefix(g.Key, groups.Prefix+"/"))
		if err != nil || len(parts) != 3 {
			return fmt.Errorf("key %q of a log group: %w", g.Key, errors.Join(err, errEvent))
		}
		call := &api.Call{Account: parts[0], Region: parts[1]}
		before := s.now().Add(-time.Duration(g.Value.Retention) * 24 * time.Hour).UnixMilli()
		list, err := streams.List(s.meta, "", 0, parts...)
		if err != nil {
			return err
		}
		for _, row := range list {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.sweepStream(ctx, call, parts[2], row, before); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) sweepStream(ctx context.Context, call *api.Call, group string, row meta.Row[stream], before int64) error {
	first, err := s.log.FirstAt(ctx, row.Value.Shard, before)
	if err == nil {
		err = s.log.Truncate(ctx, row.Value.Shard, first)
	}
	if errors.Is(err, driver.ErrNotFound) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	bounds, err := s.log.Bounds(ctx, row.Value.Shard)
	if err != nil || !row.Value.Own || bounds.First < bounds.Next || row.Value.Created >= before {
		return err
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	return s.remove(ctx, row)
}

// remove removes streams: first from the metadata, with a note of what is left to
// do, then from the engine.
func (s *Service) remove(ctx context.Context, rows ...meta.Row[stream]) error {
	const atOnce = 500
	for len(rows) > 0 {
		part := rows[:min(atOnce, len(rows))]
		rows = rows[len(part):]
		var ops []meta.Op
		for _, r := range part {
			ops = append(ops, streams.Delete(r), waste.Put(trash{}, fmt.Sprint(uint64(r.Value.Shard))))
		}
		if _, err := s.meta.Commit(ctx, ops...); err != nil {
			return conflict(err)
		}
	}
	return s.emptyTrash(ctx)
}

func (s *Service) emptyTrash(ctx context.Context) error {
	rows, err := waste.List(s.meta, "", 0)
	if err != nil || len(rows) == 0 {
		return err
	}
	var ids []driver.ShardID
	var ops []meta.Op
	for _, r := range rows {
		var id uint64
		if _, err := fmt.Sscan(strings.TrimPrefix(r.Key, waste.Prefix+"/"), &id); err != nil {
			return fmt.Errorf("key %q: %w", r.Key, err)
		}
		ids = append(ids, driver.ShardID(id))
		ops = append(ops, waste.Delete(r))
	}
	if err := s.log.Delete(ctx, ids...); err != nil {
		return err
	}
	_, err = s.meta.Commit(ctx, ops...)
	return err
}

// conflict turns a lost race into the answer for it.
func conflict(err error) error {
	var lost *meta.ConflictError
	if errors.As(err, &lost) {
		return &cwl.OperationAbortedException{Message: "A conflicting operation is currently in progress against this resource. Please try again."}
	}
	return err
}
