package conformance

import (
	"testing"

	"github.com/millrace/millrace/test/harness"
)

var catalogs = &service{name: "glue", target: "AWSGlue"}

// usual are the clients of services that stand beside delivery streams.
func (s *service) usual() []way {
	return []way{
		{"boto3/http", subprocess("python", false, nil, s.python("boto3")), `^$`},
		{"boto3/tls", subprocess("python", true, nil, s.python("boto3")), `^$`},
		{"cli/http", subprocess("python", false, nil, s.python("cli")), `^$`},
		{"raw/json-h1", s.raw(jsonType, "h1"), `^$`},
		{"raw/json-h2c", s.raw(jsonType, "h2c"), `^$`},
	}
}

// TestEveryCatalogOperationThroughEveryClient makes databases, tables and
// partitions, changes them and deletes them.
func TestEveryCatalogOperationThroughEveryClient(t *testing.T) {
	catalogs.prove(t, catalogs.usual(), 22, "proven-glue.txt", (*scenario).catalog)
}

// names lists a member of the structures of a list.
func names(v any, member string) (all []string) {
	for _, e := range v.([]any) {
		all = append(all, text(e, member))
	}
	return all
}

func (s *scenario) catalog() {
	const database, table = "waters", "levels"
	columns := func(names ...string) []any {
		var all []any
		for _, n := range names {
			all = append(all, M{"Name": n, "Type": "string"})
		}
		return all
	}
	described := func(columnNames ...string) M {
		return M{
			"Name": table, "TableType": "EXTERNAL_TABLE", "Parameters": M{"classification": "parquet"},
			"PartitionKeys":     []any{M{"Name": "day", "Type": "string"}},
			"StorageDescriptor": M{"Columns": columns(columnNames...), "Location": "s3://waters/levels/"},
		}
	}
	in := func(more M) M {
		m := M{"DatabaseName": database}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	s.check("databases", func() {
		s.call("CreateDatabase", M{"DatabaseInput": M{"Name": database, "Description": "first"}})
		s.refuse("CreateDatabase", M{"DatabaseInput": M{"Name": database}}, "AlreadyExistsException", "")
		s.call("UpdateDatabase", M{"Name": database, "DatabaseInput": M{"Name": database, "Description": "second"}})
		d := s.call("GetDatabase", M{"Name": database})
		want(text(d, "Database", "Description") == "second" && text(d, "Database", "CatalogId") == harness.Account, "database %v", d)
		all := s.call("GetDatabases", M{})
		want(len(list(all, "DatabaseList")) == 1 && text(all, "DatabaseList", 0, "Name") == database, "databases %v", all)
		s.refuse("GetDatabase", M{"Name": "missing"}, "EntityNotFoundException", "")
	})
	s.check("tables", func() {
		s.call("CreateTable", in(M{"TableInput": described("place")}))
		s.refuse("CreateTable", in(M{"TableInput": described("place")}), "AlreadyExistsException", "")
		s.call("CreateTable", in(M{"TableInput": M{"Name": "other", "StorageDescriptor": M{"Columns": columns("x")}}}))
		s.call("UpdateTable", in(M{"TableInput": described("place", "metres")}))
		d := s.call("GetTable", in(M{"Name": table}))
		want(text(d, "Table", "VersionId") == "1" && len(list(d, "Table", "StorageDescriptor", "Columns")) == 2, "table %v", d)
		want(text(d, "Table", "PartitionKeys", 0, "Name") == "day" && text(d, "Table", "Parameters", "classification") == "parquet", "table %v", d)
		all := names(at(s.call("GetTables", in(M{})), "TableList"), "Name")
		want(len(all) == 2 && all[0] == table && all[1] == "other", "tables %v", all)
		found := s.call("SearchTables", M{"SearchText": "level"})
		want(len(list(found, "TableList")) == 1 && text(found, "TableList", 0, "Name") == table, "found %v", found)
		s.refuse("GetTable", in(M{"Name": "missing"}), "EntityNotFoundException", "")
	})
	s.check("versions", func() {
		v := s.call("GetTableVersion", in(M{"TableName": table, "VersionId": "0"}))
		want(len(list(v, "TableVersion", "Table", "StorageDescriptor", "Columns")) == 1, "version %v", v)
		all := s.call("GetTableVersions", in(M{"TableName": table}))
		want(len(list(all, "TableVersions")) == 2, "versions %v", all)
		s.call("DeleteTableVersion", in(M{"TableName": table, "VersionId": "0"}))
		s.refuse("GetTableVersion", in(M{"TableName": table, "VersionId": "0"}), "EntityNotFoundException", "")
	})
	s.check("partitions", func() {
		partition := func(day string) M {
			return M{"Values": []any{day}, "StorageDescriptor": M{"Columns": columns("place", "metres"), "Location": "s3://waters/levels/day=" + day}}
		}
		s.call("CreatePartition", in(M{"TableName": table, "PartitionInput": partition("1")}))
		out := s.call("BatchCreatePartition", in(M{"TableName": table, "PartitionInputList": []any{partition("1"), partition("2")}}))
		want(len(list(out, "Errors")) == 1 && text(out, "Errors", 0, "ErrorDetail", "ErrorCode") == "AlreadyExistsException", "errors %v", out)
		p := s.call("GetPartition", in(M{"TableName": table, "PartitionValues": []any{"2"}}))
		want(text(p, "Partition", "StorageDescriptor", "Location") == "s3://waters/levels/day=2", "partition %v", p)
		all := s.call("GetPartitions", in(M{"TableName": table}))
		want(len(list(all, "Partitions")) == 2, "partitions %v", all)
	})
	s.check("tags", func() {
		arn := "arn:aws:glue:" + s.region + ":" + harness.Account + ":database/" + database
		s.call("TagResource", M{"ResourceArn": arn, "TagsToAdd": M{"river": "rhine", "unit": "m"}})
		s.call("UntagResource", M{"ResourceArn": arn, "TagsToRemove": []any{"river"}})
		out := s.call("GetTags", M{"ResourceArn": arn})
		tags, _ := at(out, "Tags").(M)
		want(len(tags) == 1 && text(tags, "unit") == "m", "tags %v", out)
	})
	s.check("deletion", func() {
		s.call("DeleteTable", in(M{"Name": "other"}))
		out := s.call("BatchDeleteTable", in(M{"TablesToDelete": []any{table, "missing"}}))
		want(len(list(out, "Errors")) == 1 && text(out, "Errors", 0, "TableName") == "missing", "errors %v", out)
		s.call("DeleteDatabase", M{"Name": database})
		s.refuse("GetTable", in(M{"Name": table}), "EntityNotFoundException", "")
	})
}
