package analytics

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

func quotaText(account string, limit int) string {
	return fmt.Sprintf("Account %s has %d applications in this region, which is the limit.", account, limit)
}

// mergeTags is old with tags added.
func mergeTags(old map[string]string, tags []kinesisanalytics.Tag) (map[string]string, error) {
	next := maps.Clone(old)
	if next == nil {
		next = map[string]string{}
	}
	seen := map[string]bool{}
	for _, t := range tags {
		key := api.Val(t.Key)
		if seen[key] {
			return nil, invalid("The tag key %s is given twice.", key)
		}
		seen[key] = true
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return nil, invalid("The tag key %s begins with aws:, which is reserved.", key)
		}
		next[key] = api.Val(t.Value)
	}
	if len(next) > maxTags {
		return nil, &kinesisanalytics.TooManyTagsException{Message: fmt.Sprintf("An application can have at most %d tags.", maxTags)}
	}
	return next, nil
}

// tagged finds the application of an ARN.
func (s *Service) tagged(call *api.Call, arn *string) (*application, error) {
	name, ok := parseARN(api.Val(arn))
	if !ok {
		return nil, invalid("ResourceARN %s is not the ARN of an application.", api.Val(arn))
	}
	a := s.registry.application(name)
	if a == nil || name.account != call.Account {
		return nil, missing("Resource %s not found.", *arn)
	}
	return a, nil
}

// changeTags stores what change makes of the tags of an application. Tags are no
// part of the configuration: they make no version, and a program that runs keeps
// the dialect that it was started with.
func (s *Service) changeTags(ctx context.Context, call *api.Call, arn *string, change func(tags map[string]string) (map[string]string, error)) error {
	for {
		a, err := s.tagged(call, arn)
		if err != nil {
			return err
		}
		if a.record.Status == deleting {
			return passing(a)
		}
		next := a.record
		if next.Tags, err = change(a.record.Tags); err != nil {
			return err
		}
		if maps.Equal(next.Tags, a.record.Tags) {
			return nil
		}
		conflict, err := s.commit(ctx, a.update(&next))
		if err != nil || !conflict {
			return err
		}
	}
}

func (s *Service) addTags(ctx context.Context, call *api.Call, arn *string, tags []kinesisanalytics.Tag) error {
	return s.changeTags(ctx, call, arn, func(old map[string]string) (map[string]string, error) { return mergeTags(old, tags) })
}

func (s *Service) removeTags(ctx context.Context, call *api.Call, arn *string, keys []string) error {
	return s.changeTags(ctx, call, arn, func(old map[string]string) (map[string]string, error) {
		next := maps.Clone(old)
		for _, k := range keys {
			delete(next, k)
		}
		return next, nil
	})
}

// tags are an application's tags by key.
func (s *Service) tags(call *api.Call, arn *string) ([]kinesisanalytics.Tag, error) {
	a, err := s.tagged(call, arn)
	if err != nil {
		return nil, err
	}
	list := []kinesisanalytics.Tag{}
	for _, k := range slices.Sorted(maps.Keys(a.record.Tags)) {
		list = append(list, kinesisanalytics.Tag{Key: api.Ptr(k), Value: api.Ptr(a.record.Tags[k])})
	}
	return list, nil
}
