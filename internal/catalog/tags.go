package catalog

import (
	"context"
	"maps"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
)

// tagged changes the tags of what an ARN names: arn:aws:glue:region:account:
// database/name or table/database/name. A nil change only reads.
func (s *Service) tagged(ctx context.Context, call *api.Call, arn string, change func(map[string]string) error) (tags map[string]string, err error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "glue" {
		return nil, invalid("%s is not the ARN of a database or a table.", arn)
	}
	if parts[3] != call.Region || parts[4] != call.Account {
		return nil, notFound("%s not found.", arn)
	}
	names := strings.Split(strings.ToLower(parts[5]), "/")
	err = retry(ctx, func() error {
		switch {
		case len(names) == 2 && names[0] == "database":
			row, err := s.database(call.Account, call.Region, names[1])
			if err != nil {
				return err
			}
			if tags = maps.Clone(row.Value.Tags); change == nil {
				return nil
			}
			if tags == nil {
				tags = map[string]string{}
			}
			if err := change(tags); err != nil {
				return err
			}
			row.Value.Tags = tags
			return s.commit(ctx, databases.Update(row))
		case len(names) == 3 && names[0] == "table":
			row, err := s.table(call.Account, call.Region, names[1], names[2])
			if err != nil {
				return err
			}
			if tags = maps.Clone(row.Value.Tags); change == nil {
				return nil
			}
			if tags == nil {
				tags = map[string]string{}
			}
			if err := change(tags); err != nil {
				return err
			}
			row.Value.Tags = tags
			return s.commit(ctx, tables.Update(row))
		}
		return invalid("%s is not the ARN of a database or a table.", arn)
	})
	return tags, err
}

// GetTags lists the tags of a database or a table.
func (s *Service) GetTags(ctx context.Context, call *api.Call, in *glue.GetTagsInput) (*glue.GetTagsOutput, error) {
	tags, err := s.tagged(ctx, call, api.Val(in.ResourceArn), nil)
	if err != nil {
		return nil, err
	}
	if tags == nil {
		tags = map[string]string{}
	}
	return &glue.GetTagsOutput{Tags: tags}, nil
}

// TagResource sets tags of a database or a table.
func (s *Service) TagResource(ctx context.Context, call *api.Call, in *glue.TagResourceInput) (*glue.TagResourceOutput, error) {
	_, err := s.tagged(ctx, call, api.Val(in.ResourceArn), func(tags map[string]string) error {
		maps.Copy(tags, in.TagsToAdd)
		if len(tags) > maxTags {
			return invalid("A resource has at most %d tags.", maxTags)
		}
		return nil
	})
	return nil, err
}

// UntagResource takes tags from a database or a table.
func (s *Service) UntagResource(ctx context.Context, call *api.Call, in *glue.UntagResourceInput) (*glue.UntagResourceOutput, error) {
	_, err := s.tagged(ctx, call, api.Val(in.ResourceArn), func(tags map[string]string) error {
		for _, key := range in.TagsToRemove {
			delete(tags, key)
		}
		return nil
	})
	return nil, err
}
