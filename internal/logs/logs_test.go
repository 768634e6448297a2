package logs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/api"
	cwl "github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	*Service
	t    *testing.T
	call *api.Call

	mu  sync.Mutex
	now time.Time
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func open(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, call: &api.Call{Account: "123456789012", Region: "eu-west-1"}, now: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}
	log := shardlog.New(memory.New(memory.Options{Now: f.clock}), shardlog.Options{})
	store, err := meta.Open(t.Context(), log, vfs.NewMemory(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(store.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	if f.Service, err = New(t.Context(), Options{Log: log, Meta: store, Now: f.clock}); err != nil {
		t.Fatal(err)
	}
	return f
}

func p[T any](v T) *T { return &v }

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) create(group string, streams ...string) {
	f.t.Helper()
	if _, err := f.group(f.call, group); err != nil {
		_, err := f.CreateLogGroup(f.t.Context(), f.call, &cwl.CreateLogGroupInput{LogGroupName: &group})
		f.ok(err)
	}
	for _, s := range streams {
		_, err := f.CreateLogStream(f.t.Context(), f.call, &cwl.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &s})
		f.ok(err)
	}
}

// put writes messages, each a second after the one before, the last one now.
func (f *fixture) put(group, stream string, messages ...string) *cwl.PutLogEventsOutput {
	f.t.Helper()
	in := &cwl.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream}
	for i, m := range messages {
		in.LogEvents = append(in.LogEvents, cwl.InputLogEvent{Message: &m, Timestamp: p(f.clock().Add(-time.Duration(len(messages)-1-i) * time.Second).UnixMilli())})
	}
	out, err := f.PutLogEvents(f.t.Context(), f.call, in)
	f.ok(err)
	return out
}

func texts(events []cwl.OutputLogEvent) string {
	var all []string
	for _, e := range events {
		all = append(all, *e.Message)
	}
	return strings.Join(all, " ")
}

func code(err error) string {
	var e api.Error
	if errors.As(err, &e) {
		return e.ErrorCode() + ": " + e.ErrorMessage()
	}
	return fmt.Sprint(err)
}

func TestGroupsAndStreams(t *testing.T) {
	f := open(t)
	ctx := t.Context()
	f.create("/b/2", "s2", "s1")
	f.create("/a")
	f.create("/b/1")
	_, err := f.CreateLogGroup(ctx, f.call, &cwl.CreateLogGroupInput{LogGroupName: p("/a")})
	if got := code(err); got != "ResourceAlreadyExistsException: The specified log group already exists" {
		t.Error(got)
	}
	_, err = f.CreateLogStream(ctx, f.call, &cwl.CreateLogStreamInput{LogGroupName: p("/b/2"), LogStreamName: p("s1")})
	if got := code(err); got != "ResourceAlreadyExistsException: The specified log stream already exists" {
		t.Error(got)
	}
	_, err = f.CreateLogStream(ctx, f.call, &cwl.CreateLogStreamInput{LogGroupName: p("/none"), LogStreamName: p("s1")})
	if got := code(err); got != "ResourceNotFoundException: The specified log group does not exist." {
		t.Error(got)
	}
	_, err = f.CreateLogGroup(ctx, f.call, &cwl.CreateLogGroupInput{LogGroupName: p("/k"), KmsKeyId: p("arn:aws:kms:x")})
	if got := code(err); !strings.HasPrefix(got, "InvalidParameterException: Log groups have no keys") {
		t.Error(got)
	}
	names := func(in *cwl.DescribeLogGroupsInput) string {
		var all []string
		for {
			out, err := f.DescribeLogGroups(ctx, f.call, in)
			f.ok(err)
			for _, g := range out.LogGroups {
				all = append(all, *g.LogGroupName)
			}
			if in.NextToken = out.NextToken; out.NextToken == nil {
				return strings.Join(all, " ")
			}
			all = append(all, "|")
		}
	}
	for _, c := range []struct {
		in   cwl.DescribeLogGroupsInput
		want string
	}{
		{cwl.DescribeLogGroupsInput{}, "/a /b/1 /b/2"},
		{cwl.DescribeLogGroupsInput{Limit: p(int32(2))}, "/a /b/1 | /b/2"},
		{cwl.DescribeLogGroupsInput{LogGroupNamePrefix: p("/b")}, "/b/1 /b/2"},
		{cwl.DescribeLogGroupsInput{LogGroupNamePattern: p("B/2")}, "/b/2"},
		{cwl.DescribeLogGroupsInput{LogGroupIdentifiers: []string{"arn:aws:logs:eu-west-1:123456789012:log-group:/a:*"}}, "/a"},
		{cwl.DescribeLogGroupsInput{LogGroupClass: p(cwl.LogGroupClassInfrequentAccess)}, ""},
	} {
		if got := names(&c.in); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	other := &api.Call{Account: "123456789012", Region: "us-east-1"}
	if out, err := f.DescribeLogGroups(ctx, other, &cwl.DescribeLogGroupsInput{}); err != nil || len(out.LogGroups) != 0 {
		t.Errorf("another region sees %v, %v", out, err)
	}
	_, err = f.DeleteLogStream(ctx, f.call, &cwl.DeleteLogStreamInput{LogGroupName: p("/b/2"), LogStreamName: p("s1")})
	f.ok(err)
	_, err = f.DeleteLogGroup(ctx, f.call, &cwl.DeleteLogGroupInput{LogGroupName: p("/b/2")})
	f.ok(err)
	_, err = f.DeleteLogGroup(ctx, f.call, &cwl.DeleteLogGroupInput{LogGroupName: p("/b/2")})
	if got := code(err); !strings.HasPrefix(got, "ResourceNotFoundException") {
		t.Error(got)
	}
	if n := len(f.meta.List("logs-streams/", "", 0)) + len(f.meta.List("logs-trash/", "", 0)); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// What a crash left between the metadata and the engine is finished at the next
// start.
func TestRemovalsAreFinished(t *testing.T) {
	f := open(t)
	f.create("g", "s")
	row, err := f.stream(f.call, "g", "s")
	f.ok(err)
	_, err = f.meta.Commit(t.Context(), streams.Delete(row), waste.Put(trash{}, fmt.Sprint(uint64(row.Value.Shard))))
	f.ok(err)
	_, err = New(t.Context(), Options{Log: f.log, Meta: f.meta})
	f.ok(err)
	if _, err := f.log.Bounds(t.Context(), row.Value.Shard); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("the shard log is there: %v", err)
	}
}

func TestTags(t *testing.T) {
	f := open(t)
	ctx := t.Context()
	_, err := f.CreateLogGroup(ctx, f.call, &cwl.CreateLogGroupInput{LogGroupName: p("g"), Tags: map[string]string{"a": "1"}})
	f.ok(err)
	arn := "arn:aws:logs:eu-west-1:123456789012:log-group:g"
	_, err = f.TagResource(ctx, f.call, &cwl.TagResourceInput{ResourceArn: &arn, Tags: map[string]string{"b": "2", "a": "3"}})
	f.ok(err)
	_, err = f.UntagLogGroup(ctx, f.call, &cwl.UntagLogGroupInput{LogGroupName: p("g"), Tags: []string{"b", "c"}})
	f.ok(err)
	out, err := f.ListTagsForResource(ctx, f.call, &cwl.ListTagsForResourceInput{ResourceArn: &arn})
	if f.ok(err); fmt.Sprint(out.Tags) != "map[a:3]" {
		t.Errorf("%v", out.Tags)
	}
	if got := f.ConditionValues(&api.Call{Account: f.call.Account, Region: f.call.Region, Operation: cwl.OpPutLogEvents}, &cwl.PutLogEventsInput{LogGroupName: p("g")}); fmt.Sprint(got) != "map[aws:ResourceTag/a:[3]]" {
		t.Errorf("%v", got)
	}
	many := map[string]string{}
	for i := range 50 {
		many[strconv.Itoa(i)] = ""
	}
	_, err = f.TagLogGroup(ctx, f.call, &cwl.TagLogGroupInput{LogGroupName: p("g"), Tags: many})
	if got := code(err); !strings.HasPrefix(got, "TooManyTagsException") {
		t.Error(got)
	}
	_, err = f.TagLogGroup(ctx, f.call, &cwl.TagLogGroupInput{LogGroupName: p("g"), Tags: map[string]string{"AWS:x": ""}})
	if got := code(err); !strings.HasPrefix(got, "InvalidParameterException") {
		t.Error(got)
	}
}

func TestResources(t *testing.T) {
	f := open(t)
	for _, c := range []struct {
		op   *api.Operation
		in   api.Shape
		want string
	}{
		{cwl.OpPutLogEvents, &cwl.PutLogEventsInput{LogGroupName: p("g"), LogStreamName: p("s")}, "arn:aws:logs:eu-west-1:123456789012:log-group:g:log-stream:s"},
		{cwl.OpFilterLogEvents, &cwl.FilterLogEventsInput{LogGroupIdentifier: p("arn:aws:logs:eu-west-1:123456789012:log-group:g")}, "arn:aws:logs:eu-west-1:123456789012:log-group:g:*"},
		{cwl.OpTagResource, &cwl.TagResourceInput{ResourceArn: p("arn:aws:logs:eu-west-1:123456789012:log-group:g")}, "arn:aws:logs:eu-west-1:123456789012:log-group:g:*"},
		{cwl.OpDescribeLogGroups, &cwl.DescribeLogGroupsInput{}, "*"},
	} {
		call := *f.call
		call.Operation = c.op
		if got, owner := f.ResourceARN(&call, c.in); got != c.want || owner != f.call.Account {
			t.Errorf("%s: %s %s", c.op.Name, got, owner)
		}
	}
}

func TestPutsThatAreRefused(t *testing.T) {
	f := open(t)
	f.create("g", "s")
	now := f.clock().UnixMilli()
	big := strings.Repeat("x", 600<<10)
	for name, c := range map[string]struct {
		group, stream string
		events        []cwl.InputLogEvent
		want          string
	}{
		"group":     {"h", "s", []cwl.InputLogEvent{{Timestamp: &now, Message: p("x")}}, "ResourceNotFoundException: The specified log group does not exist."},
		"stream":    {"g", "t", []cwl.InputLogEvent{{Timestamp: &now, Message: p("x")}}, "ResourceNotFoundException: The specified log stream does not exist."},
		"order":     {"g", "s", []cwl.InputLogEvent{{Timestamp: &now, Message: p("x")}, {Timestamp: p(now - 1), Message: p("x")}}, "InvalidParameterException: Log events in a single PutLogEvents request must be in chronological order."},
		"span":      {"g", "s", []cwl.InputLogEvent{{Timestamp: p(now - 86_400_001), Message: p("x")}, {Timestamp: &now, Message: p("x")}}, "InvalidParameterException: The batch of log events in a single PutLogEvents request cannot span more than 24 hours."},
		"too large": {"g", "s", []cwl.InputLogEvent{{Timestamp: &now, Message: &big}, {Timestamp: &now, Message: &big}}, "InvalidParameterException: Upload too large: 1228852 bytes exceeds limit of 1048576"},
		"one event": {"g", "s", []cwl.InputLogEvent{{Timestamp: &now, Message: p(strings.Repeat("x", 1<<20))}}, "InvalidParameterException: Log event too large: 1048602 bytes exceeds limit of 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.PutLogEvents(t.Context(), f.call, &cwl.PutLogEventsInput{LogGroupName: &c.group, LogStreamName: &c.stream, LogEvents: c.events})
			if got := code(err); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestEventsOutOfTheWindowAreLeftOut(t *testing.T) {
	f := open(t)
	f.create("g", "s")
	put := func(ages ...time.Duration) string {
		in := &cwl.PutLogEventsInput{LogGroupName: p("g"), LogStreamName: p("s")}
		for _, d := range ages {
			in.LogEvents = append(in.LogEvents, cwl.InputLogEvent{Message: p("x"), Timestamp: p(f.clock().Add(-d).UnixMilli())})
		}
		out, err := f.PutLogEvents(t.Context(), f.call, in)
		f.ok(err)
		r := out.RejectedLogEventsInfo
		if r == nil {
			return "all"
		}
		show := func(n *int32) string {
			if n == nil {
				return "-"
			}
			return fmt.Sprint(*n)
		}
		return show(r.TooOldLogEventEndIndex) + " " + show(r.ExpiredLogEventEndIndex) + " " + show(r.TooNewLogEventStartIndex)
	}
	const day, hour = 24 * time.Hour, time.Hour
	if got := put(hour, 0, -hour); got != "all" {
		t.Error(got)
	}
	if got := put(hour, -2*hour-time.Second, -3*hour); got != "- - 1" {
		t.Error(got)
	}
	if got := put(14*day+hour, 14*day+time.Second, 14*day-hour); got != "2 - -" {
		t.Error(got)
	}
	_, err := f.PutRetentionPolicy(t.Context(), f.call, &cwl.PutRetentionPolicyInput{LogGroupName: p("g"), RetentionInDays: p(int32(1))})
	f.ok(err)
	if got := put(day+hour, day-hour); got != "- 1 -" {
		t.Error(got)
	}
	if got := put(15*day, 15*day-hour); got != "2 2 -" {
		t.Error(got)
	}
	_, err = f.PutRetentionPolicy(t.Context(), f.call, &cwl.PutRetentionPolicyInput{LogGroupName: p("g"), RetentionInDays: p(int32(2))})
	if got := code(err); !strings.Contains(got, "Value '2' at 'retentionInDays'") {
		t.Error(got)
	}
}

func TestReadingAStream(t *testing.T) {
	f := open(t)
	f.create("g", "s")
	get := func(in cwl.GetLogEventsInput) *cwl.GetLogEventsOutput {
		t.Helper()
		in.LogGroupName, in.LogStreamName = p("g"), p("s")
		out, err := f.GetLogEvents(t.Context(), f.call, &in)
		f.ok(err)
		return out
	}
	if out := get(cwl.GetLogEventsInput{}); len(out.Events) != 0 || *out.NextForwardToken == "" || *out.NextBackwardToken == "" {
		t.Errorf("an empty stream: %+v", out)
	}
	f.put("g", "s", "1", "2", "3")
	f.put("g", "s", "4")
	f.put("g", "s", "5", "6", "7")
	if got := texts(get(cwl.GetLogEventsInput{StartFromHead: p(true)}).Events); got != "1 2 3 4 5 6 7" {
		// Later batches hold earlier times; a page is sorted by them.
		if got != "1 5 2 6 3 4 7" {
			t.Error(got)
		}
	}
	// Forwards, in pages.
	var all []string
	var token *string
	for {
		out := get(cwl.GetLogEventsInput{StartFromHead: p(true), Limit: p(int32(2)), NextToken: token})
		if token != nil && *out.NextForwardToken == *token {
			break
		}
		token = out.NextForwardToken
		all = append(all, texts(out.Events))
	}
	if got := strings.Join(all, "|"); got != "1 2|3 4|5 6|7" {
		t.Error(got)
	}
	// What comes later is found with the token of the end.
	f.put("g", "s", "8")
	out := get(cwl.GetLogEventsInput{NextToken: token})
	if texts(out.Events) != "8" {
		t.Errorf("after the end: %s", texts(out.Events))
	}
	// Backwards from the end, which is the default.
	all, token = nil, nil
	for {
		out := get(cwl.GetLogEventsInput{Limit: p(int32(3)), NextToken: token})
		if token != nil && *out.NextBackwardToken == *token {
			break
		}
		token = out.NextBackwardToken
		all = append(all, texts(out.Events))
	}
	if got := strings.Join(all, "|"); got != "6 7 8|5 3 4|1 2" && got != "6 7 8|3 4 5|1 2" {
		t.Error(got)
	}
	now := f.clock().UnixMilli()
	if got := texts(get(cwl.GetLogEventsInput{StartTime: p(now - 1000), EndTime: p(now)}).Events); got != "2 6" {
		t.Errorf("in a period: %s", got)
	}
	for _, bad := range []string{"x", "f/1", "g/1/s", "f/x/s", "f/-1/s"} {
		_, err := f.GetLogEvents(t.Context(), f.call, &cwl.GetLogEventsInput{LogGroupName: p("g"), LogStreamName: p("s"), NextToken: &bad})
		if got := code(err); got != "InvalidParameterException: The specified nextToken is invalid." {
			t.Errorf("%s: %s", bad, got)
		}
	}
	d, err := f.DescribeLogStreams(t.Context(), f.call, &cwl.DescribeLogStreamsInput{LogGroupName: p("g")})
	f.ok(err)
	if s := d.LogStreams[0]; *s.FirstEventTimestamp != now-2000 || *s.LastEventTimestamp != now || *s.LastIngestionTime != now || *s.Arn != "arn:aws:logs:eu-west-1:123456789012:log-group:g:log-stream:s" {
		t.Errorf("%d %d %d %s", *s.FirstEventTimestamp, *s.LastEventTimestamp, *s.LastIngestionTime, *s.Arn)
	}
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	f := open(t)
	f.create("g", "s", "t")
	for i := range 5 {
		f.put("g", []string{"s", "t"}[i%2], fmt.Sprint(i)+strings.Repeat("x", 400<<10))
		f.pass(time.Second)
	}
	out, err := f.GetLogEvents(t.Context(), f.call, &cwl.GetLogEventsInput{LogGroupName: p("g"), LogStreamName: p("s")})
	f.ok(err)
	if len(out.Events) != 2 || (*out.Events[0].Message)[0] != '2' {
		t.Errorf("%d events", len(out.Events))
	}
	back, err := f.GetLogEvents(t.Context(), f.call, &cwl.GetLogEventsInput{LogGroupName: p("g"), LogStreamName: p("s"), NextToken: out.NextBackwardToken})
	f.ok(err)
	if len(back.Events) != 1 || (*back.Events[0].Message)[0] != '0' {
		t.Errorf("%d events", len(back.Events))
	}
	var all []string
	in := &cwl.FilterLogEventsInput{LogGroupName: p("g")}
	for pages := 0; ; pages++ {
		out, err := f.FilterLogEvents(t.Context(), f.call, in)
		f.ok(err)
		size := 0
		for _, e := range out.Events {
			all = append(all, (*e.Message)[:1])
			size += len(*e.Message)
		}
		if size > maxPageBytes {
			t.Errorf("a page of %d bytes", size)
		}
		if in.NextToken = out.NextToken; out.NextToken == nil {
			break
		}
	}
	if got := strings.Join(all, ""); got != "01234" {
		t.Errorf("got %s", got)
	}
}

// Whatever pages are asked for, every event that is wanted comes exactly once and
// in order.
func TestFilteringInPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	f := open(t)
	names := []string{"a", "b", "c/d", "e%", "é"}
	f.create("g", names...)
	var want []string
	for i := range 300 {
		if r.IntN(3) == 0 {
			f.pass(time.Duration(r.IntN(3)) * time.Millisecond)
		}
		s := names[r.IntN(len(names))]
		text := fmt.Sprintf("event %d", i)
		if r.IntN(2) == 0 {
			text += " wanted"
			want = append(want, text)
		}
		f.put("g", s, text)
	}
	for _, limit := range []int32{1, 3, 50, 10_000} {
		var got []string
		in := &cwl.FilterLogEventsInput{LogGroupName: p("g"), FilterPattern: p("wanted"), Limit: &limit}
		ids := map[string]bool{}
		for {
			out, err := f.FilterLogEvents(t.Context(), f.call, in)
			f.ok(err)
			if len(out.Events) > int(limit) {
				t.Fatalf("%d events with limit %d", len(out.Events), limit)
			}
			for _, e := range out.Events {
				got = append(got, *e.Message)
				ids[*e.EventId] = true
				if len(*e.EventId) != 56 {
					t.Fatalf("id %s", *e.EventId)
				}
			}
			if in.NextToken = out.NextToken; out.NextToken == nil {
				break
			}
		}
		slices.Sort(got)
		sortedWant := slices.Sorted(slices.Values(want))
		if !slices.Equal(got, sortedWant) || len(ids) != len(want) {
			t.Errorf("limit %d: %d events with %d ids, want %d", limit, len(got), len(ids), len(want))
		}
	}
	out, err := f.FilterLogEvents(t.Context(), f.call, &cwl.FilterLogEventsInput{LogGroupName: p("g"), LogStreamNamePrefix: p("c/")})
	f.ok(err)
	for _, e := range out.Events {
		if *e.LogStreamName != "c/d" {
			t.Errorf("of %s", *e.LogStreamName)
		}
	}
	_, err = f.FilterLogEvents(t.Context(), f.call, &cwl.FilterLogEventsInput{LogGroupName: p("g"), LogStreamNames: []string{"a", "nobody"}})
	if got := code(err); got != "ResourceNotFoundException: The specified log stream does not exist." {
		t.Error(got)
	}
	_, err = f.FilterLogEvents(t.Context(), f.call, &cwl.FilterLogEventsInput{LogGroupName: p("g"), FilterPattern: p("{ $.x")})
	if got := code(err); got != "InvalidParameterException: Invalid filter pattern: it ends too early" {
		t.Error(got)
	}
}

// A stream of which only a part can be looked at ends the page for all of them.
func TestSearchesAreBounded(t *testing.T) {
	f := open(t)
	f.create("g", "quiet", "loud")
	for i := range 20 {
		f.put("g", "loud", fmt.Sprint("noise ", i))
		f.pass(time.Millisecond)
		f.put("g", "quiet", fmt.Sprint("sound ", i))
		f.pass(time.Millisecond)
	}
	var got []string
	after := key{}
	for pages := 1; ; pages++ {
		q := &search{s: f.Service, after: after, when: period{0, 1 << 62}, pattern: &Pattern{}, limit: 100, share: 100}
		for _, name := range []string{"loud", "quiet"} {
			row, err := f.stream(f.call, "g", name)
			f.ok(err)
			f.ok(q.stream(t.Context(), group{}, named[stream]{name, row.Value}))
		}
		out := q.page()
		for _, e := range out.Events {
			got = append(got, *e.Message)
		}
		if out.NextToken == nil {
			if pages < 5 {
				t.Errorf("only %d pages", pages)
			}
			break
		}
		var err error
		after, err = readKey(out.NextToken)
		f.ok(err)
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("noise ", i), fmt.Sprint("sound ", i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestRetention(t *testing.T) {
	f := open(t)
	f.create("g", "s")
	_, err := f.PutRetentionPolicy(t.Context(), f.call, &cwl.PutRetentionPolicyInput{LogGroupName: p("g"), RetentionInDays: p(int32(1))})
	f.ok(err)
	f.put("g", "s", "old")
	f.pass(13 * time.Hour)
	f.put("g", "s", "young")
	f.pass(13 * time.Hour)
	read := func() string {
		out, err := f.GetLogEvents(t.Context(), f.call, &cwl.GetLogEventsInput{LogGroupName: p("g"), LogStreamName: p("s")})
		f.ok(err)
		return texts(out.Events)
	}
	if got := read(); got != "young" {
		t.Errorf("before a sweep: %s", got)
	}
	f.ok(f.Sweep(t.Context()))
	_, err = f.DeleteRetentionPolicy(t.Context(), f.call, &cwl.DeleteRetentionPolicyInput{LogGroupName: p("g")})
	f.ok(err)
	if got := read(); got != "young" {
		t.Errorf("after a sweep: %s", got)
	}
}

func TestTheServersOwnLogs(t *testing.T) {
	f := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- f.Run(ctx) }()
	buffer := []byte("one")
	f.Log(ctx, f.call.Account, f.call.Region, "/aws/lambda/f", "2026/[x]", f.clock(), buffer)
	copy(buffer, "???")
	f.Log(ctx, f.call.Account, f.call.Region, "/aws/lambda/f", "2026/[x]", f.clock(), []byte("two"))
	f.Log(ctx, f.call.Account, f.call.Region, "/aws/lambda/f", "2026/[x]", f.clock(), nil)
	cancel()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	out, err := f.GetLogEvents(t.Context(), f.call, &cwl.GetLogEventsInput{LogGroupName: p("/aws/lambda/f"), LogStreamName: p("2026/[x]")})
	f.ok(err)
	if got := texts(out.Events); got != "one two" {
		t.Errorf("got %s", got)
	}
	groups, err := f.DescribeLogGroups(t.Context(), f.call, &cwl.DescribeLogGroupsInput{})
	f.ok(err)
	if g := groups.LogGroups[0]; g.RetentionInDays == nil || *g.RetentionInDays != 30 {
		t.Errorf("%+v", g)
	}
	// Once its events have expired, a stream of the server's own goes as well.
	f.pass(31 * 24 * time.Hour)
	f.ok(f.Sweep(t.Context()))
	if _, err := f.stream(f.call, "/aws/lambda/f", "2026/[x]"); !errors.Is(err, errNoStream) {
		t.Errorf("%v", err)
	}
	for range maxQueued + 5 {
		f.Log(t.Context(), "1", "r", "g", "s", f.clock(), []byte("x"))
	}
	if f.queue.lost != 5 || len(f.queue.lines) != maxQueued {
		t.Errorf("%d waiting, %d lost", len(f.queue.lines), f.queue.lost)
	}
}

func TestEventFormat(t *testing.T) {
	b := appendEvent(nil, 1000, "hi")
	if got := hex.EncodeToString(b); got != "01d00f6869" {
		t.Error(got)
	}
	for text, want := range map[string]error{"": errEvent, "00d00f": errEvent, "01": errEvent, "01d0": errEvent, "02d00f": errEventVersion} {
		raw, _ := hex.DecodeString(text)
		if _, _, err := parseEvent(raw); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(appendEvent(nil, -5, "message"))
	f.Fuzz(func(t *testing.T, b []byte) {
		at, message, err := parseEvent(b)
		if err != nil {
			return
		}
		again, text, err := parseEvent(appendEvent(nil, at, string(message)))
		if err != nil || again != at || string(text) != string(message) {
			t.Fatal("not the same after writing it again")
		}
	})
}
