package catalog

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

var update = flag.Bool("update", false, "rewrite goldens")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	*Service
	t    *testing.T
	call *api.Call
}

func open(t *testing.T) *fixture {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }
	log := shardlog.New(memory.New(memory.Options{Now: now}), shardlog.Options{})
	store, err := meta.Open(t.Context(), log, vfs.NewMemory(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(store.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	call := &api.Call{Account: "123456789012", Region: "eu-west-1", Principal: api.Principal{ARN: "arn:aws:iam::123456789012:user/u"}}
	return &fixture{Service: New(Options{Meta: store, Now: now}), t: t, call: call}
}

// must fails the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// code is the modelled error's name and text.
func code(err error) string {
	var e api.Error
	if errors.As(err, &e) {
		return e.ErrorCode() + ": " + e.ErrorMessage()
	}
	return fmt.Sprint(err)
}

func (f *fixture) refused(want string, err error) {
	f.t.Helper()
	if got := code(err); got != want {
		f.t.Errorf("got %s, want %s", got, want)
	}
}

func (f *fixture) createDatabase(name string) error {
	_, err := f.CreateDatabase(f.t.Context(), f.call, &glue.CreateDatabaseInput{DatabaseInput: &glue.DatabaseInput{Name: &name}})
	return err
}

func tableInput(name string, columns ...string) *glue.TableInput {
	in := &glue.TableInput{Name: &name, StorageDescriptor: &glue.StorageDescriptor{Location: api.Ptr("s3://b/" + name)}, TableType: api.Ptr("EXTERNAL_TABLE")}
	for _, c := range columns {
		n, typ, _ := strings.Cut(c, " ")
		in.StorageDescriptor.Columns = append(in.StorageDescriptor.Columns, glue.Column{Name: &n, Type: &typ})
	}
	return in
}

func (f *fixture) createTable(database, name string, columns ...string) error {
	_, err := f.CreateTable(f.t.Context(), f.call, &glue.CreateTableInput{DatabaseName: &database, TableInput: tableInput(name, columns...)})
	return err
}

func (f *fixture) update(database string, in *glue.TableInput, change func(*glue.UpdateTableInput)) error {
	req := &glue.UpdateTableInput{DatabaseName: &database, TableInput: in}
	if change != nil {
		change(req)
	}
	_, err := f.UpdateTable(f.t.Context(), f.call, req)
	return err
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestDatabases(t *testing.T) {
	f := open(t)
	f.ok(f.createDatabase("Rivers"))
	f.refused("AlreadyExistsException: Database already exists.", f.createDatabase("rivers"))
	f.refused("InvalidInputException: Database name cannot be empty.", f.createDatabase(""))
	f.refused(`InvalidInputException: Database name "a/b" has characters that are not allowed.`, f.createDatabase("a/b"))
	db := must[*glue.GetDatabaseOutput](t)(f.GetDatabase(t.Context(), f.call, &glue.GetDatabaseInput{Name: api.Ptr("RIVERS")})).Database
	if api.Val(db.Name) != "rivers" || api.Val(db.CatalogId) != "123456789012" || db.CreateTime == nil {
		t.Errorf("database %+v", db)
	}
	_, err := f.GetDatabase(t.Context(), f.call, &glue.GetDatabaseInput{Name: api.Ptr("lakes")})
	f.refused("EntityNotFoundException: Database lakes not found.", err)
	_, err = f.UpdateDatabase(t.Context(), f.call, &glue.UpdateDatabaseInput{Name: api.Ptr("rivers"), DatabaseInput: &glue.DatabaseInput{Name: api.Ptr("rivers"), Description: api.Ptr("all")}})
	f.ok(err)
	db = must[*glue.GetDatabaseOutput](t)(f.GetDatabase(t.Context(), f.call, &glue.GetDatabaseInput{Name: api.Ptr("rivers")})).Database
	if api.Val(db.Description) != "all" {
		t.Errorf("description %q", api.Val(db.Description))
	}
	_, err = f.UpdateDatabase(t.Context(), f.call, &glue.UpdateDatabaseInput{Name: api.Ptr("rivers"), DatabaseInput: &glue.DatabaseInput{Name: api.Ptr("lakes")}})
	f.refused("InvalidInputException: A database cannot be renamed.", err)
	_, err = f.GetDatabase(t.Context(), f.call, &glue.GetDatabaseInput{Name: api.Ptr("rivers"), CatalogId: api.Ptr("999999999999")})
	f.refused("AccessDeniedException: Cross account access to the catalog 999999999999 is not permitted.", err)
	elsewhere := *f.call
	elsewhere.Region = "us-east-1"
	_, err = f.GetDatabase(t.Context(), &elsewhere, &glue.GetDatabaseInput{Name: api.Ptr("rivers")})
	f.refused("EntityNotFoundException: Database rivers not found.", err)
}

func TestTablesAndVersions(t *testing.T) {
	f := open(t)
	f.refused("EntityNotFoundException: Database db not found.", f.createTable("db", "t", "a int"))
	f.ok(f.createDatabase("db"))
	f.ok(f.createTable("DB", "Events", "A int", "b string"))
	f.refused("AlreadyExistsException: Table already exists.", f.createTable("db", "events", "a int"))
	f.refused("InvalidInputException: Duplicate column name: a", f.createTable("db", "u", "a int", "A int"))
	get := func(name string) (*glue.Table, error) {
		out, err := f.GetTable(t.Context(), f.call, &glue.GetTableInput{DatabaseName: api.Ptr("Db"), Name: &name})
		if err != nil {
			return nil, err
		}
		return out.Table, nil
	}
	table := must[*glue.Table](t)(get("EVENTS"))
	if api.Val(table.Name) != "events" || api.Val(table.DatabaseName) != "db" || api.Val(table.VersionId) != "0" || api.Val(table.CreatedBy) != "arn:aws:iam::123456789012:user/u" ||
		len(table.StorageDescriptor.Columns) != 2 || api.Val(table.StorageDescriptor.Columns[0].Name) != "A" {
		t.Errorf("table %+v", table)
	}
	_, err := get("none")
	f.refused("EntityNotFoundException: Table none not found.", err)

	f.refused("EntityNotFoundException: Table none not found.", f.update("db", tableInput("none"), nil))
	f.ok(f.update("db", tableInput("events", "a int", "b string", "c date"), nil))
	f.ok(f.update("db", tableInput("events", "a bigint"), func(in *glue.UpdateTableInput) { in.VersionId = api.Ptr("1") }))
	f.refused("ConcurrentModificationException: Update table failed due to concurrent modifications.",
		f.update("db", tableInput("events", "x int"), func(in *glue.UpdateTableInput) { in.VersionId = api.Ptr("1") }))
	f.ok(f.update("db", tableInput("events", "a double"), func(in *glue.UpdateTableInput) { in.SkipArchive = api.Ptr(true) }))
	if v := api.Val(must[*glue.Table](t)(get("events")).VersionId); v != "2" {
		t.Errorf("version %s, want 2", v)
	}

	var got []string
	in := &glue.GetTableVersionsInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("events"), MaxResults: api.Ptr(int32(2))}
	for {
		out := must[*glue.GetTableVersionsOutput](t)(f.GetTableVersions(t.Context(), f.call, in))
		for _, v := range out.TableVersions {
			got = append(got, api.Val(v.VersionId)+" "+api.Val(v.Table.StorageDescriptor.Columns[0].Type))
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if want := []string{"2 double", "1 int", "0 int"}; !slices.Equal(got, want) {
		t.Errorf("versions %q, want %q", got, want)
	}
	version := func(id *string) (string, error) {
		out, err := f.GetTableVersion(t.Context(), f.call, &glue.GetTableVersionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("events"), VersionId: id})
		if err != nil {
			return "", err
		}
		return api.Val(out.TableVersion.VersionId) + " " + fmt.Sprint(len(out.TableVersion.Table.StorageDescriptor.Columns)), nil
	}
	for id, want := range map[string]string{"0": "0 2", "1": "1 3", "2": "2 1", "": "2 1"} {
		if got := must[string](t)(version(&id)); got != want {
			t.Errorf("version %q is %s, want %s", id, got, want)
		}
	}
	_, err = version(api.Ptr("7"))
	f.refused("EntityNotFoundException: Version 7 of table events not found.", err)
	_, err = version(api.Ptr("x"))
	f.refused(`InvalidInputException: Version id "x" is not a number.`, err)

	_, err = f.DeleteTableVersion(t.Context(), f.call, &glue.DeleteTableVersionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("events"), VersionId: api.Ptr("2")})
	f.refused("InvalidInputException: The newest version of a table cannot be deleted.", err)
	_, err = f.DeleteTableVersion(t.Context(), f.call, &glue.DeleteTableVersionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("events"), VersionId: api.Ptr("0")})
	f.ok(err)
	_, err = version(api.Ptr("0"))
	f.refused("EntityNotFoundException: Version 0 of table events not found.", err)

	// What conversion reads.
	for version, want := range map[string]string{"": "2 double", "LATEST": "2 double", "1": "1 int"} {
		out := must[*Table](t)(f.Table(t.Context(), "123456789012", "eu-west-1", "DB", "EVENTS", version))
		if got := out.Version + " " + out.Columns[0].Type; got != want || out.Name != "events" || out.Location != "s3://b/events" {
			t.Errorf("table %q: %s, want %s", version, got, want)
		}
	}
	_, err = f.Table(t.Context(), "123456789012", "eu-west-1", "db", "none", "")
	f.refused("EntityNotFoundException: Table none not found.", err)

	_, err = f.DeleteTable(t.Context(), f.call, &glue.DeleteTableInput{DatabaseName: api.Ptr("db"), Name: api.Ptr("Events")})
	f.ok(err)
	_, err = f.DeleteTable(t.Context(), f.call, &glue.DeleteTableInput{DatabaseName: api.Ptr("db"), Name: api.Ptr("Events")})
	f.refused("EntityNotFoundException: Table events not found.", err)
	if n := len(f.meta.List("catalog.version", "", 0)); n != 0 {
		t.Errorf("%d versions of a deleted table are left", n)
	}
}

func TestListing(t *testing.T) {
	f := open(t)
	f.ok(f.createDatabase("a"))
	f.ok(f.createDatabase("ab"))
	f.ok(f.createDatabase("b"))
	for i := range 7 {
		f.ok(f.createTable("a", fmt.Sprintf("t%d", i), "x int"))
	}
	f.ok(f.createTable("ab", "other", "x int"))
	tables := func(expression *string) string {
		var names []string
		in := &glue.GetTablesInput{DatabaseName: api.Ptr("a"), Expression: expression, MaxResults: api.Ptr(int32(3))}
		for {
			out := must[*glue.GetTablesOutput](t)(f.GetTables(t.Context(), f.call, in))
			if len(out.TableList) > 3 {
				t.Errorf("a page of %d", len(out.TableList))
			}
			for _, table := range out.TableList {
				names = append(names, api.Val(table.Name))
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return strings.Join(names, " ")
			}
		}
	}
	for expression, want := range map[string]string{"": "t0 t1 t2 t3 t4 t5 t6", "t*": "t0 t1 t2 t3 t4 t5 t6", "t[2-4]": "t2 t3 t4", "T5": "t5", "t": "", "t1|t6": "t1 t6", "*3": "t3", "other": ""} {
		if got := tables(&expression); got != want {
			t.Errorf("%q: %s, want %s", expression, got, want)
		}
	}
	_, err := f.GetTables(t.Context(), f.call, &glue.GetTablesInput{DatabaseName: api.Ptr("a"), Expression: api.Ptr("t[")})
	f.refused(`InvalidInputException: Expression "t[" is not a regular expression.`, err)
	_, err = f.GetTables(t.Context(), f.call, &glue.GetTablesInput{DatabaseName: api.Ptr("a"), NextToken: api.Ptr("x")})
	f.refused("InvalidInputException: Invalid token.", err)
	_, err = f.GetTables(t.Context(), f.call, &glue.GetTablesInput{DatabaseName: api.Ptr("none")})
	f.refused("EntityNotFoundException: Database none not found.", err)
	out := must[*glue.GetDatabasesOutput](t)(f.GetDatabases(t.Context(), f.call, &glue.GetDatabasesInput{MaxResults: api.Ptr(int32(2))}))
	if len(out.DatabaseList) != 2 || out.NextToken == nil {
		t.Fatalf("page %+v", out)
	}
	out = must[*glue.GetDatabasesOutput](t)(f.GetDatabases(t.Context(), f.call, &glue.GetDatabasesInput{MaxResults: api.Ptr(int32(2)), NextToken: out.NextToken}))
	if len(out.DatabaseList) != 1 || api.Val(out.DatabaseList[0].Name) != "b" || out.NextToken != nil {
		t.Errorf("second page %+v", out)
	}
	names := must[*glue.GetTablesOutput](t)(f.GetTables(t.Context(), f.call, &glue.GetTablesInput{DatabaseName: api.Ptr("a"), AttributesToGet: []glue.TableAttributes{glue.TableAttributesName}}))
	if first := names.TableList[0]; first.StorageDescriptor != nil || api.Val(first.Name) != "t0" {
		t.Errorf("names only: %+v", first)
	}

	batch := must[*glue.BatchDeleteTableOutput](t)(f.BatchDeleteTable(t.Context(), f.call, &glue.BatchDeleteTableInput{DatabaseName: api.Ptr("a"), TablesToDelete: []string{"T0", "none", "t1"}}))
	if len(batch.Errors) != 1 || api.Val(batch.Errors[0].TableName) != "none" || api.Val(batch.Errors[0].ErrorDetail.ErrorCode) != "EntityNotFoundException" {
		t.Errorf("errors %+v", batch.Errors)
	}
	_, err = f.DeleteDatabase(t.Context(), f.call, &glue.DeleteDatabaseInput{Name: api.Ptr("A")})
	f.ok(err)
	f.refused("EntityNotFoundException: Database a not found.", f.createTable("a", "t", "x int"))
	if left := f.meta.List("catalog.table", "", 0); len(left) != 1 || !strings.Contains(left[0].Key, "/ab/other") {
		t.Errorf("tables left: %v", left)
	}
}

func TestSearch(t *testing.T) {
	f := open(t)
	f.ok(f.createDatabase("one"))
	f.ok(f.createDatabase("two"))
	f.ok(f.createTable("one", "orders", "id int", "customer string"))
	f.ok(f.createTable("two", "customers", "id int"))
	f.ok(f.createTable("two", "items", "id int"))
	search := func(in *glue.SearchTablesInput) string {
		var names []string
		for {
			out := must[*glue.SearchTablesOutput](t)(f.SearchTables(t.Context(), f.call, in))
			for _, table := range out.TableList {
				names = append(names, api.Val(table.Name))
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return strings.Join(names, " ")
			}
		}
	}
	for _, c := range []struct {
		in   glue.SearchTablesInput
		want string
	}{
		{glue.SearchTablesInput{SearchText: api.Ptr("customer")}, "orders customers"},
		{glue.SearchTablesInput{SearchText: api.Ptr(`"Customer"`)}, "orders"},
		{glue.SearchTablesInput{Filters: []glue.PropertyPredicate{{Key: api.Ptr("DatabaseName"), Value: api.Ptr("two")}}}, "customers items"},
		{glue.SearchTablesInput{Filters: []glue.PropertyPredicate{{Key: api.Ptr("name"), Value: api.Ptr("items"), Comparator: api.Ptr(glue.ComparatorGreaterThan)}}}, "orders"},
		{glue.SearchTablesInput{MaxResults: api.Ptr(int32(2)), SortCriteria: []glue.SortCriterion{{FieldName: api.Ptr("Name"), Sort: api.Ptr(glue.SortDesc)}}}, "orders items customers"},
	} {
		if got := search(&c.in); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestPartitions(t *testing.T) {
	f := open(t)
	f.ok(f.createDatabase("db"))
	in := tableInput("t", "x int")
	in.PartitionKeys = []glue.Column{{Name: api.Ptr("year"), Type: api.Ptr("int")}, {Name: api.Ptr("Day"), Type: api.Ptr("string")}}
	_, err := f.CreateTable(t.Context(), f.call, &glue.CreateTableInput{DatabaseName: api.Ptr("db"), TableInput: in,
		PartitionIndexes: []glue.PartitionIndex{{IndexName: api.Ptr("i"), Keys: []string{"month"}}}})
	f.refused("InvalidInputException: The key month of a partition index is not a partition key of the table.", err)
	_, err = f.CreateTable(t.Context(), f.call, &glue.CreateTableInput{DatabaseName: api.Ptr("db"), TableInput: in})
	f.ok(err)
	var list []glue.PartitionInput
	for _, y := range []string{"9", "2025", "2026"} {
		for _, d := range []string{"a", "b'c", "d/e"} {
			list = append(list, glue.PartitionInput{Values: []string{y, d}, StorageDescriptor: in.StorageDescriptor})
		}
	}
	list = append(list, list[0], glue.PartitionInput{Values: []string{"2026"}})
	out := must[*glue.BatchCreatePartitionOutput](t)(f.BatchCreatePartition(t.Context(), f.call, &glue.BatchCreatePartitionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("t"), PartitionInputList: list}))
	var codes []string
	for _, e := range out.Errors {
		codes = append(codes, api.Val(e.ErrorDetail.ErrorCode)+": "+api.Val(e.ErrorDetail.ErrorMessage))
	}
	if want := []string{"AlreadyExistsException: Partition already exists.", "InvalidInputException: The number of partition keys do not match the number of partition values"}; !slices.Equal(codes, want) {
		t.Errorf("errors %q", codes)
	}
	get := func(expression string, most int32, segment *glue.Segment) (string, error) {
		var got []string
		in := &glue.GetPartitionsInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("T"), Expression: &expression, MaxResults: &most, Segment: segment}
		for {
			out, err := f.GetPartitions(t.Context(), f.call, in)
			if err != nil {
				return "", err
			}
			for _, p := range out.Partitions {
				got = append(got, strings.Join(p.Values, "|"))
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				slices.Sort(got)
				return strings.Join(got, " "), nil
			}
		}
	}
	const all = "2025|a 2025|b'c 2025|d/e 2026|a 2026|b'c 2026|d/e 9|a 9|b'c 9|d/e"
	for expression, want := range map[string]string{
		"":                       all,
		"year = 2025":            "2025|a 2025|b'c 2025|d/e",
		"year > 2025":            "2026|a 2026|b'c 2026|d/e",
		"year<10 and DAY='b''c'": "9|b'c",
		"year = 9 or year >= 2026 AND NOT (day = 'a' OR day like '%/%')": "2026|b'c 9|a 9|b'c 9|d/e",
		"year between 10 and 2025 and day in ('a', 'd/e')":               "2025|a 2025|d/e",
		"year not in (9, 2025) and day <> 'a'":                           "2026|b'c 2026|d/e",
		"day not like '_' and year != 9.0":                               "2025|b'c 2025|d/e 2026|b'c 2026|d/e",
		"day is null":                                                    "",
		"`year` = '2025' and day is not null and day <= \"a\"":           "2025|a",
	} {
		if got := must[string](t)(get(expression, 2, nil)); got != want {
			t.Errorf("%s: %s, want %s", expression, got, want)
		}
	}
	for expression, want := range map[string]string{
		"month = 1":                         "InvalidInputException: Unsupported expression 'month = 1': 'month' is not a partition key.",
		"year =":                            "InvalidInputException: Unsupported expression 'year =': it ends too early.",
		"year = 1 day":                      "InvalidInputException: Unsupported expression 'year = 1 day': 'day' is not expected.",
		"year ~ 1":                          "InvalidInputException: Unsupported expression 'year ~ 1': '~' is not a comparison.",
		"(year = 1":                         "InvalidInputException: Unsupported expression '(year = 1': it ends too early.",
		"day = 'x":                          "InvalidInputException: Unsupported expression 'day = 'x': ''x' is not expected.",
		"year in 1":                         "InvalidInputException: Unsupported expression 'year in 1': '1' is not expected.",
		strings.Repeat("(", 100) + "year=1": "InvalidInputException: Unsupported expression: it nests deeper than 64.",
	} {
		_, err := get(expression, 2, nil)
		f.refused(want, err)
	}
	var parts []string
	for i := range int32(3) {
		if s := must[string](t)(get("", 100, &glue.Segment{SegmentNumber: &i, TotalSegments: api.Ptr(int32(3))})); s != "" {
			parts = append(parts, s)
		}
	}
	joined := strings.Fields(strings.Join(parts, " "))
	slices.Sort(joined)
	if got := strings.Join(joined, " "); got != all {
		t.Errorf("segments together: %s", got)
	}
	one := must[*glue.GetPartitionOutput](t)(f.GetPartition(t.Context(), f.call, &glue.GetPartitionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("t"), PartitionValues: []string{"2025", "d/e"}}))
	if !reflect.DeepEqual(one.Partition.Values, []string{"2025", "d/e"}) || one.Partition.CreationTime == nil {
		t.Errorf("partition %+v", one.Partition)
	}
	_, err = f.GetPartition(t.Context(), f.call, &glue.GetPartitionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("t"), PartitionValues: []string{"2025", "x"}})
	f.refused("EntityNotFoundException: Partition 2025/x not found.", err)
	_, err = f.DeleteTable(t.Context(), f.call, &glue.DeleteTableInput{DatabaseName: api.Ptr("db"), Name: api.Ptr("t")})
	f.ok(err)
	if n := len(f.meta.List("catalog.partition", "", 0)); n != 0 {
		t.Errorf("%d partitions are left", n)
	}
}

func TestTags(t *testing.T) {
	f := open(t)
	name := "db"
	_, err := f.CreateDatabase(t.Context(), f.call, &glue.CreateDatabaseInput{DatabaseInput: &glue.DatabaseInput{Name: &name}, Tags: map[string]string{"a": "1"}})
	f.ok(err)
	f.ok(f.createTable("db", "t", "x int"))
	for arn, first := range map[string]map[string]string{
		"arn:aws:glue:eu-west-1:123456789012:database/db": {"a": "1"}, "arn:aws:glue:eu-west-1:123456789012:table/db/t": {},
	} {
		get := func() map[string]string {
			return must[*glue.GetTagsOutput](t)(f.GetTags(t.Context(), f.call, &glue.GetTagsInput{ResourceArn: &arn})).Tags
		}
		if got := get(); !reflect.DeepEqual(got, first) {
			t.Errorf("%s: %v", arn, got)
		}
		_, err := f.TagResource(t.Context(), f.call, &glue.TagResourceInput{ResourceArn: &arn, TagsToAdd: map[string]string{"a": "2", "b": "3"}})
		f.ok(err)
		_, err = f.UntagResource(t.Context(), f.call, &glue.UntagResourceInput{ResourceArn: &arn, TagsToRemove: []string{"a"}})
		f.ok(err)
		if got := get(); !reflect.DeepEqual(got, map[string]string{"b": "3"}) {
			t.Errorf("%s: %v", arn, got)
		}
		if got := f.ConditionValues(f.call, &glue.TagResourceInput{ResourceArn: &arn, TagsToAdd: map[string]string{"x": "y"}}); !reflect.DeepEqual(got,
			map[string][]string{"aws:ResourceTag/b": {"3"}, "aws:RequestTag/x": {"y"}, "aws:TagKeys": {"x"}}) {
			t.Errorf("%s: condition values %v", arn, got)
		}
	}
	_, err = f.GetTags(t.Context(), f.call, &glue.GetTagsInput{ResourceArn: api.Ptr("arn:aws:glue:eu-west-1:123456789012:job/x")})
	f.refused("InvalidInputException: arn:aws:glue:eu-west-1:123456789012:job/x is not the ARN of a database or a table.", err)
	_, err = f.GetTags(t.Context(), f.call, &glue.GetTagsInput{ResourceArn: api.Ptr("arn:aws:glue:eu-west-1:999999999999:database/db")})
	f.refused("EntityNotFoundException: arn:aws:glue:eu-west-1:999999999999:database/db not found.", err)
}

// TestUpdatesAtOnceAreAllKept updates one table from many sides: every update is a
// version, none is lost, and none has the number of another.
func TestUpdatesAtOnceAreAllKept(t *testing.T) {
	f := open(t)
	f.ok(f.createDatabase("db"))
	f.ok(f.createTable("db", "t", "x int"))
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for j := range 5 {
				in := tableInput("t", "x int")
				in.Description = api.Ptr(fmt.Sprintf("%d/%d", i, j))
				if err := f.update("db", in, nil); err != nil {
					t.Error(err)
				}
				if err := f.createTable("db", fmt.Sprintf("t%d-%d", i, j), "x int"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	out := must[*glue.GetTableVersionsOutput](t)(f.GetTableVersions(t.Context(), f.call, &glue.GetTableVersionsInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("t")}))
	seen := map[string]bool{}
	for i, v := range out.TableVersions {
		if api.Val(v.VersionId) != fmt.Sprint(20-i) {
			t.Errorf("version %s at place %d", api.Val(v.VersionId), i)
		}
		seen[api.Val(v.Table.Description)] = true
	}
	if len(seen) != 21 {
		t.Errorf("%d descriptions, want 21", len(seen))
	}
}

// TestStoredForm pins what is stored, and that it is read again.
func TestStoredForm(t *testing.T) {
	f := open(t)
	f.ok(f.createDatabase("db"))
	in := tableInput("t", "a int")
	in.PartitionKeys = []glue.Column{{Name: api.Ptr("day"), Type: api.Ptr("string")}}
	_, err := f.CreateTable(t.Context(), f.call, &glue.CreateTableInput{DatabaseName: api.Ptr("db"), TableInput: in})
	f.ok(err)
	_, err = f.TagResource(t.Context(), f.call, &glue.TagResourceInput{ResourceArn: api.Ptr("arn:aws:glue:eu-west-1:123456789012:table/db/t"), TagsToAdd: map[string]string{"k": "v"}})
	f.ok(err)
	f.ok(f.update("db", tableInput("t", "a bigint"), nil))
	_, err = f.BatchCreatePartition(t.Context(), f.call, &glue.BatchCreatePartitionInput{DatabaseName: api.Ptr("db"), TableName: api.Ptr("t"), PartitionInputList: []glue.PartitionInput{{Values: []string{"x"}}}})
	f.ok(err)
	var b strings.Builder
	for _, r := range f.meta.List("catalog.", "", 0) {
		fmt.Fprintf(&b, "%s %d %s\n", r.Key, r.Value[0], r.Value[1:])
	}
	path := filepath.Join("testdata", "stored.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("stored:\n%s\nwant:\n%s", b.String(), want)
	}
	for line := range strings.Lines(string(want)) {
		key, rest, _ := strings.Cut(line, " ")
		_, value, _ := strings.Cut(strings.TrimSpace(rest), " ")
		var err error
		switch stored := append([]byte{1}, value...); {
		case strings.HasPrefix(key, "catalog.database/"):
			_, err = databases.Decode(key, stored)
		case strings.HasPrefix(key, "catalog.partition/"):
			_, err = partitions.Decode(key, stored)
		default:
			_, err = tables.Decode(key, stored)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := tables.Decode("k", []byte("\x02{}")); !errors.Is(err, driver.ErrNewerVersion) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestResourceARN(t *testing.T) {
	f := open(t)
	for _, c := range []struct {
		in   api.Shape
		want string
	}{
		{&glue.GetTableInput{DatabaseName: api.Ptr("DB"), Name: api.Ptr("T")}, "table/db/t"},
		{&glue.CreateTableInput{DatabaseName: api.Ptr("db"), TableInput: &glue.TableInput{Name: api.Ptr("t")}}, "table/db/t"},
		{&glue.UpdateTableInput{DatabaseName: api.Ptr("db"), Name: api.Ptr("t")}, "table/db/t"},
		{&glue.GetTablesInput{DatabaseName: api.Ptr("db")}, "database/db"},
		{&glue.CreateDatabaseInput{DatabaseInput: &glue.DatabaseInput{Name: api.Ptr("db")}}, "database/db"},
		{&glue.GetDatabasesInput{}, "catalog"},
		{&glue.SearchTablesInput{}, "catalog"},
	} {
		if arn, owner := f.ResourceARN(f.call, c.in); arn != "arn:aws:glue:eu-west-1:123456789012:"+c.want || owner != "123456789012" {
			t.Errorf("%T: %s of %s", c.in, arn, owner)
		}
	}
	if arn, owner := f.ResourceARN(f.call, &glue.GetDatabaseInput{CatalogId: api.Ptr("999999999999"), Name: api.Ptr("db")}); arn != "arn:aws:glue:eu-west-1:999999999999:database/db" || owner != "999999999999" {
		t.Errorf("another's: %s of %s", arn, owner)
	}
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{"year = 1", "a in ('x','y') and not (b between 1 and 2 or b is null)", "`a` like '%_%'", "'"} {
		f.Add(s, "2026")
	}
	keys := []glue.Column{{Name: api.Ptr("a"), Type: api.Ptr("string")}, {Name: api.Ptr("b"), Type: api.Ptr("int")}, {Name: api.Ptr("year"), Type: api.Ptr("int")}}
	f.Fuzz(func(t *testing.T, text, value string) {
		c, err := parseExpression(text, keys)
		if err != nil {
			return
		}
		c([]string{value, value, value})
	})
}
