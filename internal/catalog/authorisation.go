package catalog

import (
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
)

// ResourceARN is the ARN of the table or else the database that a call is about,
// that of the catalog for calls about neither, and the account that owns it. It
// does not look whether anything is there.
func (s *Service) ResourceARN(call *api.Call, in api.Shape) (arn, owner string) {
	owner = call.Account
	name := func(catalogID, databaseName, tableName *string) string {
		if id := api.Val(catalogID); id != "" {
			owner = id
		}
		switch {
		case api.Val(tableName) != "":
			return "table/" + fold(databaseName) + "/" + fold(tableName)
		case api.Val(databaseName) != "":
			return "database/" + fold(databaseName)
		}
		return "catalog"
	}
	what := "catalog"
	switch in := in.(type) {
	case *glue.CreateDatabaseInput:
		if in.DatabaseInput != nil {
			what = name(in.CatalogId, in.DatabaseInput.Name, nil)
		}
	case *glue.GetDatabaseInput:
		what = name(in.CatalogId, in.Name, nil)
	case *glue.GetDatabasesInput:
		what = name(in.CatalogId, nil, nil)
	case *glue.UpdateDatabaseInput:
		what = name(in.CatalogId, in.Name, nil)
	case *glue.DeleteDatabaseInput:
		what = name(in.CatalogId, in.Name, nil)
	case *glue.CreateTableInput:
		if in.TableInput != nil {
			what = name(in.CatalogId, in.DatabaseName, in.TableInput.Name)
		} else {
			what = name(in.CatalogId, in.DatabaseName, in.Name)
		}
	case *glue.GetTableInput:
		what = name(in.CatalogId, in.DatabaseName, in.Name)
	case *glue.GetTablesInput:
		what = name(in.CatalogId, in.DatabaseName, nil)
	case *glue.UpdateTableInput:
		if in.TableInput != nil {
			what = name(in.CatalogId, in.DatabaseName, in.TableInput.Name)
		} else {
			what = name(in.CatalogId, in.DatabaseName, in.Name)
		}
	case *glue.DeleteTableInput:
		what = name(in.CatalogId, in.DatabaseName, in.Name)
	case *glue.BatchDeleteTableInput:
		what = name(in.CatalogId, in.DatabaseName, nil)
	case *glue.SearchTablesInput:
		what = name(in.CatalogId, nil, nil)
	case *glue.GetTableVersionInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.GetTableVersionsInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.DeleteTableVersionInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.CreatePartitionInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.BatchCreatePartitionInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.GetPartitionInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.GetPartitionsInput:
		what = name(in.CatalogId, in.DatabaseName, in.TableName)
	case *glue.GetTagsInput:
		return api.Val(in.ResourceArn), owner
	case *glue.TagResourceInput:
		return api.Val(in.ResourceArn), owner
	case *glue.UntagResourceInput:
		return api.Val(in.ResourceArn), owner
	}
	return "arn:aws:glue:" + call.Region + ":" + owner + ":" + what, owner
}

// ResourcePolicy finds none: the catalog is its account's alone.
func (s *Service) ResourcePolicy(string) (policy string, ok bool) { return "", false }

// ConditionValues are aws:ResourceTag/… of the database or table, and
// aws:RequestTag/… and aws:TagKeys of the tags that a call brings or takes.
func (s *Service) ConditionValues(call *api.Call, in api.Shape) map[string][]string {
	values := map[string][]string{}
	arn, owner := s.ResourceARN(call, in)
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 && owner == call.Account {
		names := strings.Split(parts[5], "/")
		var tags map[string]string
		switch {
		case len(names) == 2 && names[0] == "database":
			if row, err := s.database(call.Account, call.Region, names[1]); err == nil {
				tags = row.Value.Tags
			}
		case len(names) == 3 && names[0] == "table":
			if row, err := s.table(call.Account, call.Region, names[1], names[2]); err == nil {
				tags = row.Value.Tags
			}
		}
		for k, v := range tags {
			values["aws:ResourceTag/"+k] = []string{v}
		}
	}
	var keys []string
	brings := func(tags map[string]string) {
		for k, v := range tags {
			values["aws:RequestTag/"+k] = []string{v}
			keys = append(keys, k)
		}
	}
	switch in := in.(type) {
	case *glue.CreateDatabaseInput:
		brings(in.Tags)
	case *glue.TagResourceInput:
		brings(in.TagsToAdd)
	case *glue.UntagResourceInput:
		keys = in.TagsToRemove
	}
	if len(keys) > 0 {
		values["aws:TagKeys"] = keys
	}
	return values
}
