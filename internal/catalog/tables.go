package catalog

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/meta"
)

// table reads one; it is an EntityNotFoundException if there is none.
func (s *Service) table(account, region, databaseName, name string) (meta.Row[table], error) {
	row, ok, err := tables.Get(s.meta, account, region, databaseName, name)
	if err != nil || ok {
		return row, err
	}
	if _, err := s.database(account, region, databaseName); err != nil {
		return row, err
	}
	return row, notFound("Table %s not found.", name)
}

// checkTable checks and folds what a table is to be. name is that of the request
// beside it, which may be absent.
func checkTable(in *glue.TableInput, name *string) error {
	if in == nil {
		return invalid("TableInput is required.")
	}
	if in.FederatedTable != nil {
		return invalid("Federated tables are not supported by this catalog.")
	}
	in.Name = api.Ptr(fold(in.Name))
	if name != nil && fold(name) != *in.Name {
		return invalid("The table's name in the request is not that of its input.")
	}
	if err := mustName("Table", *in.Name); err != nil {
		return err
	}
	seen := map[string]bool{}
	check := func(list []glue.Column) error {
		for _, c := range list {
			n := fold(c.Name)
			if n == "" {
				return invalid("A column has no name.")
			}
			if seen[n] {
				return invalid("Duplicate column name: %s", n)
			}
			seen[n] = true
		}
		return nil
	}
	if in.StorageDescriptor != nil {
		if err := check(in.StorageDescriptor.Columns); err != nil {
			return err
		}
	}
	return check(in.PartitionKeys)
}

// CreateTable makes a table in a database. Its name must be free there.
func (s *Service) CreateTable(ctx context.Context, call *api.Call, in *glue.CreateTableInput) (*glue.CreateTableOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	if in.OpenTableFormatInput != nil {
		return nil, invalid("Tables of open formats are made through their own catalog.")
	}
	if err := checkTable(in.TableInput, in.Name); err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), *in.TableInput.Name
	keys := map[string]bool{}
	for _, c := range in.TableInput.PartitionKeys {
		keys[fold(c.Name)] = true
	}
	for _, index := range in.PartitionIndexes {
		for _, k := range index.Keys {
			if !keys[strings.ToLower(k)] {
				return nil, invalid("The key %s of a partition index is not a partition key of the table.", k)
			}
		}
	}
	return nil, retry(ctx, func() error {
		parent, err := s.database(account, call.Region, databaseName)
		if err != nil {
			return err
		}
		if _, ok, err := tables.Get(s.meta, account, call.Region, databaseName, name); err != nil {
			return err
		} else if ok {
			return &glue.AlreadyExistsException{Message: "Table already exists."}
		}
		if !s.room(tables.Key(account, call.Region, databaseName)+"/", maxTables) {
			return limit("TABLE", maxTables)
		}
		now := s.now().UnixMilli()
		t := table{Input: *in.TableInput, Created: now, Updated: now, CreatedBy: call.Principal.ARN, Indexes: in.PartitionIndexes}
		return s.commit(ctx, databases.Update(parent), tables.Insert(t, account, call.Region, databaseName, name))
	})
}

func (t *table) output(account, databaseName string) glue.Table {
	in := &t.Input
	out := glue.Table{
		Name: in.Name, DatabaseName: &databaseName, Description: in.Description, Owner: in.Owner,
		CreateTime: millis(t.Created), UpdateTime: millis(t.Updated), LastAccessTime: in.LastAccessTime, LastAnalyzedTime: in.LastAnalyzedTime,
		Retention: in.Retention, StorageDescriptor: in.StorageDescriptor, PartitionKeys: in.PartitionKeys,
		ViewOriginalText: in.ViewOriginalText, ViewExpandedText: in.ViewExpandedText, TableType: in.TableType, Parameters: in.Parameters,
		IsRegisteredWithLakeFormation: api.Ptr(false), TargetTable: in.TargetTable, CatalogId: &account, VersionId: api.Ptr(strconv.Itoa(t.Version)),
		IsMultiDialectView: api.Ptr(false),
	}
	if t.CreatedBy != "" {
		out.CreatedBy = &t.CreatedBy
	}
	if out.Retention == nil {
		out.Retention = api.Ptr(int32(0))
	}
	if out.PartitionKeys == nil {
		out.PartitionKeys = []glue.Column{}
	}
	return out
}

// GetTable describes the newest version of a table.
func (s *Service) GetTable(_ context.Context, call *api.Call, in *glue.GetTableInput) (*glue.GetTableOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName := fold(in.DatabaseName)
	row, err := s.table(account, call.Region, databaseName, fold(in.Name))
	if err != nil {
		return nil, err
	}
	return &glue.GetTableOutput{Table: api.Ptr(row.Value.output(account, databaseName))}, nil
}

// pattern tells names that an expression of GetTables covers: a regular
// expression over the whole name, or Hive's form of it, where * stands for
// anything.
func pattern(expression *string) (func(name string) bool, error) {
	if expression == nil || *expression == "" {
		return func(string) bool { return true }, nil
	}
	text := strings.ToLower(*expression)
	whole, err := regexp.Compile("(?i)^(?:" + *expression + ")$")
	if err != nil && !strings.Contains(text, "*") {
		return nil, invalid("Expression %q is not a regular expression.", *expression)
	}
	var parts []string
	for part := range strings.SplitSeq(text, "|") {
		parts = append(parts, strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, ".*"))
	}
	hive := regexp.MustCompile("^(?:" + strings.Join(parts, "|") + ")$")
	return func(name string) bool {
		return whole != nil && whole.MatchString(name) || hive.MatchString(name)
	}, nil
}

// GetTables lists the tables of a database by name, a page at a time.
func (s *Service) GetTables(_ context.Context, call *api.Call, in *glue.GetTablesInput) (*glue.GetTablesOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName := fold(in.DatabaseName)
	if _, err := s.database(account, call.Region, databaseName); err != nil {
		return nil, err
	}
	matches, err := pattern(in.Expression)
	if err != nil {
		return nil, err
	}
	after, err := decodeToken("tables", in.NextToken)
	if err != nil {
		return nil, err
	}
	if after != "" {
		after = tables.Key(account, call.Region, databaseName, after)
	}
	most := pageLimit(in.MaxResults)
	namesOnly := len(in.AttributesToGet) > 0 && !slices.Contains(in.AttributesToGet, glue.TableAttributesDefault)
	out := &glue.GetTablesOutput{TableList: []glue.Table{}}
	for {
		rows, err := tables.List(s.meta, after, pageSize, account, call.Region, databaseName)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			t := &rows[i].Value
			if !matches(api.Val(t.Input.Name)) {
				continue
			}
			if len(out.TableList) == most {
				out.NextToken = encodeToken("tables", api.Val(out.TableList[most-1].Name))
				return out, nil
			}
			o := t.output(account, databaseName)
			if namesOnly {
				short := glue.Table{Name: o.Name, DatabaseName: o.DatabaseName, CatalogId: o.CatalogId}
				if slices.Contains(in.AttributesToGet, glue.TableAttributesTableType) {
					short.TableType = o.TableType
				}
				o = short
			}
			out.TableList = append(out.TableList, o)
		}
		if len(rows) < pageSize {
			return out, nil
		}
		after = rows[len(rows)-1].Key
	}
}

// UpdateTable replaces what a table is. The version before is kept, unless
// SkipArchive says otherwise: then the number stays too. With a VersionId, the
// table must still have that version.
func (s *Service) UpdateTable(ctx context.Context, call *api.Call, in *glue.UpdateTableInput) (*glue.UpdateTableOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	if in.UpdateOpenTableFormatInput != nil {
		return nil, invalid("Tables of open formats are changed through their own catalog.")
	}
	if err := checkTable(in.TableInput, in.Name); err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), *in.TableInput.Name
	return nil, retry(ctx, func() error {
		row, err := s.table(account, call.Region, databaseName, name)
		if err != nil {
			return err
		}
		if v := api.Val(in.VersionId); v != "" && v != strconv.Itoa(row.Value.Version) {
			return &glue.ConcurrentModificationException{Message: "Update table failed due to concurrent modifications."}
		}
		var ops []meta.Op
		if !api.Val(in.SkipArchive) {
			if !s.room(versions.Key(account, call.Region, databaseName, name)+"/", maxVersions) {
				return limit("TABLE_VERSION", maxVersions)
			}
			old := row.Value
			ops = append(ops, versions.Put(old, account, call.Region, databaseName, name, versionKey(old.Version)))
			row.Value.Version++
		}
		row.Value.Input, row.Value.Updated = *in.TableInput, s.now().UnixMilli()
		return s.commit(ctx, append(ops, tables.Update(row))...)
	})
}

// deleteTable deletes a table, its versions and its partitions.
func (s *Service) deleteTable(ctx context.Context, account, region, databaseName, name string) error {
	return retry(ctx, func() error {
		row, err := s.table(account, region, databaseName, name)
		if err != nil {
			return err
		}
		for _, prefix := range []string{partitions.Key(account, region, databaseName, name), versions.Key(account, region, databaseName, name)} {
			if err := s.clear(ctx, prefix+"/"); err != nil {
				return err
			}
		}
		return s.commit(ctx, tables.Delete(row))
	})
}

// DeleteTable deletes a table with its versions and partitions.
func (s *Service) DeleteTable(ctx context.Context, call *api.Call, in *glue.DeleteTableInput) (*glue.DeleteTableOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	return nil, s.deleteTable(ctx, account, call.Region, fold(in.DatabaseName), fold(in.Name))
}

// BatchDeleteTable deletes tables of a database. What could not be deleted is in
// the reply.
func (s *Service) BatchDeleteTable(ctx context.Context, call *api.Call, in *glue.BatchDeleteTableInput) (*glue.BatchDeleteTableOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName := fold(in.DatabaseName)
	if _, err := s.database(account, call.Region, databaseName); err != nil {
		return nil, err
	}
	out := &glue.BatchDeleteTableOutput{}
	for _, name := range in.TablesToDelete {
		err := s.deleteTable(ctx, account, call.Region, databaseName, fold(&name))
		if detail := errorDetail(err); detail != nil {
			out.Errors = append(out.Errors, glue.TableError{TableName: api.Ptr(name), ErrorDetail: detail})
		} else if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// errorDetail is a modelled error as part of a reply; nil for other errors.
func errorDetail(err error) *glue.ErrorDetail {
	var e api.Error
	if errors.As(err, &e) {
		return &glue.ErrorDetail{ErrorCode: api.Ptr(e.ErrorCode()), ErrorMessage: api.Ptr(e.ErrorMessage())}
	}
	return nil
}

// SearchTables lists tables of all databases that a text, filters and properties
// cover.
func (s *Service) SearchTables(_ context.Context, call *api.Call, in *glue.SearchTablesInput) (*glue.SearchTablesOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	after, err := decodeToken("search", in.NextToken)
	if err != nil {
		return nil, err
	}
	skip := 0
	if after != "" {
		if skip, err = strconv.Atoi(after); err != nil || skip < 0 {
			return nil, invalid("Invalid token.")
		}
	}
	for _, c := range in.SortCriteria {
		if _, ok := tableProperty(&glue.Table{}, api.Val(c.FieldName)); !ok {
			return nil, invalid("Tables cannot be sorted by %s.", api.Val(c.FieldName))
		}
	}
	dbs, err := databases.List(s.meta, "", 0, account, call.Region)
	if err != nil {
		return nil, err
	}
	var found []glue.Table
	for _, db := range dbs {
		name := api.Val(db.Value.Input.Name)
		rows, err := tables.List(s.meta, "", 0, account, call.Region, name)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if o := rows[i].Value.output(account, name); covered(&o, in) {
				found = append(found, o)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b glue.Table) int {
		for _, c := range in.SortCriteria {
			x, _ := tableProperty(&a, api.Val(c.FieldName))
			y, _ := tableProperty(&b, api.Val(c.FieldName))
			n := cmp.Compare(x, y)
			if api.Val(c.Sort) == glue.SortDesc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return 0
	})
	found = found[min(skip, len(found)):]
	most := pageLimit(in.MaxResults)
	out := &glue.SearchTablesOutput{TableList: found}
	if len(found) > most {
		out.TableList, out.NextToken = found[:most], encodeToken("search", strconv.Itoa(skip+most))
	}
	if out.TableList == nil {
		out.TableList = []glue.Table{}
	}
	return out, nil
}

// tableProperty is a property of a table that searches know by name. Times are
// in a form that sorts.
func tableProperty(t *glue.Table, name string) (value string, ok bool) {
	const form = "2006-01-02T15:04:05.000Z07:00"
	switch strings.ToLower(name) {
	case "name":
		return api.Val(t.Name), true
	case "databasename":
		return api.Val(t.DatabaseName), true
	case "description":
		return api.Val(t.Description), true
	case "owner":
		return api.Val(t.Owner), true
	case "tabletype":
		return api.Val(t.TableType), true
	case "createtime":
		return api.Val(t.CreateTime).UTC().Format(form), true
	case "updatetime":
		return api.Val(t.UpdateTime).UTC().Format(form), true
	}
	value, ok = t.Parameters[name]
	return value, ok
}

func covered(t *glue.Table, in *glue.SearchTablesInput) bool {
	for _, f := range in.Filters {
		value, ok := tableProperty(t, api.Val(f.Key))
		want := api.Val(f.Value)
		n := cmp.Compare(strings.ToLower(value), strings.ToLower(want))
		switch api.Val(f.Comparator) {
		case glue.ComparatorGreaterThan:
			ok = ok && n > 0
		case glue.ComparatorLessThan:
			ok = ok && n < 0
		case glue.ComparatorGreaterThanEquals:
			ok = ok && n >= 0
		case glue.ComparatorLessThanEquals:
			ok = ok && n <= 0
		case glue.ComparatorEquals:
			ok = ok && n == 0
		default: // without a comparator, a part is enough
			ok = ok && strings.Contains(strings.ToLower(value), strings.ToLower(want))
		}
		if !ok {
			return false
		}
	}
	text := strings.ToLower(api.Val(in.SearchText))
	if text == "" {
		return true
	}
	whole := len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"'
	words := []string{api.Val(t.Name), api.Val(t.DatabaseName), api.Val(t.Description)}
	for k, v := range t.Parameters {
		words = append(words, k, v)
	}
	all := slices.Clone(t.PartitionKeys)
	if t.StorageDescriptor != nil {
		all = append(all, t.StorageDescriptor.Columns...)
	}
	for _, c := range all {
		words = append(words, api.Val(c.Name), api.Val(c.Comment))
	}
	for _, w := range words {
		w = strings.ToLower(w)
		if whole && w == text[1:len(text)-1] || !whole && strings.Contains(w, text) {
			return true
		}
	}
	return false
}
