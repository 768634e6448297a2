package logs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	cwl "github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// CreateLogGroup makes a group. Groups are not encrypted by keys of their own, and
// not protected from deletion: asking for either is refused.
func (s *Service) CreateLogGroup(ctx context.Context, call *api.Call, in *cwl.CreateLogGroupInput) (*cwl.CreateLogGroupOutput, error) {
	if in.KmsKeyId != nil {
		return nil, invalidf("Log groups have no keys of their own here; leave kmsKeyId out")
	}
	if in.DeletionProtectionEnabled != nil && *in.DeletionProtectionEnabled {
		return nil, invalidf("Log groups cannot be protected from deletion here; leave deletionProtectionEnabled out")
	}
	g := group{Created: s.now().UnixMilli(), Tags: in.Tags, Class: string(cwl.LogGroupClassStandard)}
	if in.LogGroupClass != nil {
		g.Class = string(*in.LogGroupClass)
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	return nil, s.createGroup(ctx, call, *in.LogGroupName, g)
}

func (s *Service) createGroup(ctx context.Context, call *api.Call, name string, g group) error {
	if err := checkTags(g.Tags); err != nil {
		return err
	}
	if _, err := s.group(call, name); err == nil {
		return &cwl.ResourceAlreadyExistsException{Message: "The specified log group already exists"}
	}
	if all := s.meta.List(groups.Key(call.Account, call.Region)+"/", "", maxGroups); len(all) >= maxGroups {
		return &cwl.LimitExceededException{Message: "Resource limit exceeded."}
	}
	_, err := s.meta.Commit(ctx, groups.Insert(g, call.Account, call.Region, name))
	return conflict(err)
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return invalidf("A log group has at most %d tags", maxTags)
	}
	for k := range tags {
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return invalidf("Tag keys must not begin with aws:")
		}
	}
	return nil
}

// DeleteLogGroup removes a group with its streams and events.
func (s *Service) DeleteLogGroup(ctx context.Context, call *api.Call, in *cwl.DeleteLogGroupInput) (*cwl.DeleteLogGroupOutput, error) {
	s.admin.Lock()
	defer s.admin.Unlock()
	row, err := s.group(call, *in.LogGroupName)
	if err != nil {
		return nil, err
	}
	list, err := streams.List(s.meta, "", 0, call.Account, call.Region, *in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if err := s.remove(ctx, list...); err != nil {
		return nil, err
	}
	_, err = s.meta.Commit(ctx, groups.Delete(row))
	return nil, conflict(err)
}

// CreateLogStream makes a stream in a group.
func (s *Service) CreateLogStream(ctx context.Context, call *api.Call, in *cwl.CreateLogStreamInput) (*cwl.CreateLogStreamOutput, error) {
	s.admin.Lock()
	defer s.admin.Unlock()
	return nil, s.createStream(ctx, call, *in.LogGroupName, *in.LogStreamName, false)
}

func (s *Service) createStream(ctx context.Context, call *api.Call, group, name string, own bool) error {
	g, err := s.group(call, group)
	if err != nil {
		return err
	}
	if _, err := s.stream(call, group, name); err == nil {
		return &cwl.ResourceAlreadyExistsException{Message: "The specified log stream already exists"}
	}
	if all := s.meta.List(streams.Key(call.Account, call.Region, group)+"/", "", maxStreams); len(all) >= maxStreams {
		return &cwl.LimitExceededException{Message: "Resource limit exceeded."}
	}
	id, err := s.meta.NextShardID(ctx, 1)
	if err != nil {
		return err
	}
	if err := s.log.Create(ctx, []driver.Shard{{ID: id, Retention: retention(g.Value.Retention)}}); err != nil {
		return err
	}
	_, err = s.meta.Commit(ctx, streams.Insert(stream{Created: s.now().UnixMilli(), Shard: id, Own: own}, call.Account, call.Region, group, name))
	if err != nil {
		return errors.Join(conflict(err), s.log.Delete(ctx, id))
	}
	return nil
}

func retention(days int32) time.Duration { return time.Duration(days) * 24 * time.Hour }

// DeleteLogStream removes a stream with its events.
func (s *Service) DeleteLogStream(ctx context.Context, call *api.Call, in *cwl.DeleteLogStreamInput) (*cwl.DeleteLogStreamOutput, error) {
	s.admin.Lock()
	defer s.admin.Unlock()
	if _, err := s.group(call, *in.LogGroupName); err != nil {
		return nil, err
	}
	row, err := s.stream(call, *in.LogGroupName, *in.LogStreamName)
	if err != nil {
		return nil, err
	}
	return nil, s.remove(ctx, row)
}

// allowedRetention are the numbers of days that the service knows.
var allowedRetention = []int32{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// PutRetentionPolicy sets for how many days a group keeps events.
func (s *Service) PutRetentionPolicy(ctx context.Context, call *api.Call, in *cwl.PutRetentionPolicyInput) (*cwl.PutRetentionPolicyOutput, error) {
	if !slices.Contains(allowedRetention, *in.RetentionInDays) {
		return nil, invalidf("1 validation error detected: Value '%d' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: %v", *in.RetentionInDays, allowedRetention)
	}
	return nil, s.setRetention(ctx, call, *in.LogGroupName, *in.RetentionInDays)
}

// DeleteRetentionPolicy has a group keep its events for ever.
func (s *Service) DeleteRetentionPolicy(ctx context.Context, call *api.Call, in *cwl.DeleteRetentionPolicyInput) (*cwl.DeleteRetentionPolicyOutput, error) {
	return nil, s.setRetention(ctx, call, *in.LogGroupName, 0)
}

func (s *Service) setRetention(ctx context.Context, call *api.Call, name string, days int32) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	row, err := s.group(call, name)
	if err != nil {
		return err
	}
	row.Value.Retention = days
	if _, err := s.meta.Commit(ctx, groups.Update(row)); err != nil {
		return conflict(err)
	}
	list, err := streams.List(s.meta, "", 0, call.Account, call.Region, name)
	if err != nil || len(list) == 0 {
		return err
	}
	ids := make([]driver.ShardID, len(list))
	for i, r := range list {
		ids[i] = r.Value.Shard
	}
	return s.log.SetRetention(ctx, retention(days), ids...)
}

// DescribeLogGroups lists groups by name.
func (s *Service) DescribeLogGroups(_ context.Context, call *api.Call, in *cwl.DescribeLogGroupsInput) (*cwl.DescribeLogGroupsOutput, error) {
	if in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil {
		return nil, invalidf("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	limit := 50
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	after, err := readNameToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	rows, err := groups.List(s.meta, "", 0, call.Account, call.Region)
	if err != nil {
		return nil, err
	}
	out := &cwl.DescribeLogGroupsOutput{LogGroups: []cwl.LogGroup{}}
	last := ""
	for _, r := range sorted(rows, func(name string, g group) bool {
		switch {
		case name <= after && after != "":
			return false
		case in.LogGroupNamePrefix != nil && !strings.HasPrefix(name, *in.LogGroupNamePrefix):
			return false
		case in.LogGroupNamePattern != nil && !strings.Contains(strings.ToLower(name), strings.ToLower(*in.LogGroupNamePattern)):
			return false
		case in.LogGroupClass != nil && string(*in.LogGroupClass) != g.Class:
			return false
		}
		return in.LogGroupIdentifiers == nil || slices.ContainsFunc(in.LogGroupIdentifiers, func(id string) bool { return fromARN(id) == name })
	}) {
		if len(out.LogGroups) == limit {
			out.NextToken = nameToken(last)
			break
		}
		out.LogGroups = append(out.LogGroups, describeGroup(call, r.name, r.value))
		last = r.name
	}
	return out, nil
}

// named is a row with the last part of its key.
type named[T any] struct {
	name  string
	value T
}

// sorted are the rows that keep wants, by name. Keys are escaped, so their order
// is not always that of names.
func sorted[T any](rows []meta.Row[T], keep func(string, T) bool) []named[T] {
	var all []named[T]
	for _, r := range rows {
		parts, err := meta.SplitKey(r.Key)
		if err != nil {
			continue // not a key that this package writes
		}
		if name := parts[len(parts)-1]; keep(name, r.Value) {
			all = append(all, named[T]{name, r.Value})
		}
	}
	slices.SortFunc(all, func(a, b named[T]) int { return strings.Compare(a.name, b.name) })
	return all
}

func describeGroup(call *api.Call, name string, g group) cwl.LogGroup {
	arn, all := groupARN(call, name), groupARN(call, name)+":*"
	class, filters := cwl.LogGroupClass(g.Class), int32(0)
	d := cwl.LogGroup{LogGroupName: &name, CreationTime: &g.Created, Arn: &all, LogGroupArn: &arn, LogGroupClass: &class, MetricFilterCount: &filters}
	if g.Retention > 0 {
		d.RetentionInDays = &g.Retention
	}
	return d
}

// DescribeLogStreams lists the streams of a group, by name or by the time of their
// latest event.
func (s *Service) DescribeLogStreams(ctx context.Context, call *api.Call, in *cwl.DescribeLogStreamsInput) (*cwl.DescribeLogStreamsOutput, error) {
	name, err := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	g, err := s.group(call, name)
	if err != nil {
		return nil, err
	}
	byTime := in.OrderBy != nil && *in.OrderBy == cwl.OrderByLastEventTime
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalidf("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	descending := in.Descending != nil && *in.Descending
	limit := 50
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	rows, err := streams.List(s.meta, "", 0, call.Account, call.Region, name)
	if err != nil {
		return nil, err
	}
	list := sorted(rows, func(name string, _ stream) bool {
		return in.LogStreamNamePrefix == nil || strings.HasPrefix(name, *in.LogStreamNamePrefix)
	})
	latest := map[string]int64{}
	if byTime {
		for _, r := range list {
			bounds, err := s.log.Bounds(ctx, r.value.Shard)
			if err != nil && !errors.Is(err, driver.ErrNotFound) {
				return nil, err
			}
			if bounds.Next > 1 {
				latest[r.name] = bounds.LastAt
			}
		}
		slices.SortStableFunc(list, func(a, b named[stream]) int {
			return int(min(max(latest[a.name]-latest[b.name], -1), 1))
		})
	}
	if descending {
		slices.Reverse(list)
	}
	after, err := readNameToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	if after != "" {
		i := slices.IndexFunc(list, func(r named[stream]) bool { return r.name == after })
		if i < 0 {
			return nil, invalidf("The specified nextToken is invalid.")
		}
		list = list[i+1:]
	}
	out := &cwl.DescribeLogStreamsOutput{LogStreams: []cwl.LogStream{}}
	for i, r := range list {
		if i == limit {
			out.NextToken = nameToken(list[i-1].name)
			break
		}
		d, err := s.describeStream(ctx, call, name, r, s.expired(g.Value))
		if err != nil {
			return nil, err
		}
		out.LogStreams = append(out.LogStreams, d)
	}
	return out, nil
}

// expired is the arrival before which a group's events are not shown any more.
func (s *Service) expired(g group) int64 {
	if g.Retention == 0 {
		return 0
	}
	return s.now().Add(-retention(g.Retention)).UnixMilli()
}

func (s *Service) describeStream(ctx context.Context, call *api.Call, group string, r named[stream], expired int64) (cwl.LogStream, error) {
	arn := groupARN(call, group) + ":log-stream:" + r.name
	d := cwl.LogStream{LogStreamName: &r.name, CreationTime: &r.value.Created, Arn: &arn, StoredBytes: new(int64)}
	bounds, err := s.log.Bounds(ctx, r.value.Shard)
	if err == nil && expired > 0 {
		bounds.First, err = s.log.FirstAt(ctx, r.value.Shard, expired)
	}
	if errors.Is(err, driver.ErrNotFound) || err == nil && bounds.First >= bounds.Next {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	token := sequenceToken(bounds.Next)
	d.UploadSequenceToken = &token
	first, err := s.at(ctx, r.value.Shard, bounds.First)
	if err != nil {
		return d, err
	}
	last, err := s.at(ctx, r.value.Shard, bounds.Next-1)
	if err != nil {
		return d, err
	}
	d.FirstEventTimestamp, d.LastEventTimestamp, d.LastIngestionTime = &first, &last, &bounds.LastAt
	return d, nil
}

// ListTagsLogGroup is the older form of ListTagsForResource.
func (s *Service) ListTagsLogGroup(_ context.Context, call *api.Call, in *cwl.ListTagsLogGroupInput) (*cwl.ListTagsLogGroupOutput, error) {
	tags, err := s.tags(call, *in.LogGroupName)
	return &cwl.ListTagsLogGroupOutput{Tags: tags}, err
}

// ListTagsForResource lists the tags of a group.
func (s *Service) ListTagsForResource(_ context.Context, call *api.Call, in *cwl.ListTagsForResourceInput) (*cwl.ListTagsForResourceOutput, error) {
	tags, err := s.tags(call, fromARN(*in.ResourceArn))
	return &cwl.ListTagsForResourceOutput{Tags: tags}, err
}

func (s *Service) tags(call *api.Call, name string) (map[string]string, error) {
	row, err := s.group(call, name)
	if err != nil {
		return nil, err
	}
	if row.Value.Tags == nil {
		return map[string]string{}, nil
	}
	return row.Value.Tags, nil
}

// TagLogGroup is the older form of TagResource.
func (s *Service) TagLogGroup(ctx context.Context, call *api.Call, in *cwl.TagLogGroupInput) (*cwl.TagLogGroupOutput, error) {
	return nil, s.retag(ctx, call, *in.LogGroupName, in.Tags, nil)
}

// TagResource sets tags of a group.
func (s *Service) TagResource(ctx context.Context, call *api.Call, in *cwl.TagResourceInput) (*cwl.TagResourceOutput, error) {
	return nil, s.retag(ctx, call, fromARN(*in.ResourceArn), in.Tags, nil)
}

// UntagLogGroup is the older form of UntagResource.
func (s *Service) UntagLogGroup(ctx context.Context, call *api.Call, in *cwl.UntagLogGroupInput) (*cwl.UntagLogGroupOutput, error) {
	return nil, s.retag(ctx, call, *in.LogGroupName, nil, in.Tags)
}

// UntagResource removes tags of a group; those that are not there are no error.
func (s *Service) UntagResource(ctx context.Context, call *api.Call, in *cwl.UntagResourceInput) (*cwl.UntagResourceOutput, error) {
	return nil, s.retag(ctx, call, fromARN(*in.ResourceArn), nil, in.TagKeys)
}

func (s *Service) retag(ctx context.Context, call *api.Call, name string, set map[string]string, remove []string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	row, err := s.group(call, name)
	if err != nil {
		return err
	}
	if err := checkTags(set); err != nil {
		return err
	}
	tags := maps.Clone(row.Value.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, set)
	for _, k := range remove {
		delete(tags, k)
	}
	if len(tags) > maxTags {
		return &cwl.TooManyTagsException{Message: "Resource has too many tags.", ResourceName: &name}
	}
	row.Value.Tags = tags
	_, err = s.meta.Commit(ctx, groups.Update(row))
	return conflict(err)
}
