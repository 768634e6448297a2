package server

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/catalog"
	"github.com/millrace/millrace/internal/firehose/convert"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/memory"
	"github.com/millrace/millrace/internal/vfs"
)

// TestConversionReadsTheCatalogAsItsRole holds that a schema is read only by a role
// that may, and that faults have the codes of conversions.
func TestConversionReadsTheCatalogAsItsRole(t *testing.T) {
	log := shardlog.New(memory.New(memory.Options{}), shardlog.Options{})
	store, err := meta.Open(t.Context(), log, vfs.NewMemory(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(store.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	}()
	tables := catalog.New(catalog.Options{Meta: store})
	call := &api.Call{Account: "111122223333", Region: "us-east-1"}
	if _, err := tables.CreateDatabase(t.Context(), call, &glue.CreateDatabaseInput{DatabaseInput: &glue.DatabaseInput{Name: api.Ptr("db")}}); err != nil {
		t.Fatal(err)
	}
	input := &glue.TableInput{Name: api.Ptr("t"), StorageDescriptor: &glue.StorageDescriptor{Columns: []glue.Column{{Name: api.Ptr("a"), Type: api.Ptr("int")}}}}
	if _, err := tables.CreateTable(t.Context(), call, &glue.CreateTableInput{DatabaseName: api.Ptr("db"), TableInput: input}); err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	may := func(role, action, resource, account string) iam.Decision {
		asked[resource+" "+account] = true
		return iam.Decision{Allowed: role == "reader" && action == "glue:GetTableVersions" && account == "111122223333"}
	}
	for _, c := range []struct {
		name  string
		table convert.Table
		may   func(role, action, resource, account string) iam.Decision
		want  string // a column, or the code of a fault
	}{
		{"everything is permitted", convert.Table{Account: "111122223333", Database: "DB", Name: "T"}, nil, "a"},
		{"a role that may", convert.Table{Account: "111122223333", Database: "DB", Name: "T", RoleARN: "reader"}, may, "a"},
		{"a role that may not", convert.Table{Account: "111122223333", Database: "db", Name: "t", RoleARN: "other"}, may, "AccessDenied"},
		{"another account", convert.Table{Account: "999999999999", Database: "db", Name: "t", RoleARN: "reader"}, may, "AccessDenied"},
		{"no table", convert.Table{Account: "111122223333", Database: "db", Name: "u", RoleARN: "reader"}, may, "EntityNotFound"},
		{"no version", convert.Table{Account: "111122223333", Database: "db", Name: "t", Version: "7"}, nil, "EntityNotFound"},
		{"a bad version", convert.Table{Account: "111122223333", Database: "db", Name: "t", Version: "x"}, nil, "InvalidVersionId"},
		{"a pinned version", convert.Table{Account: "111122223333", Database: "db", Name: "t", Version: "0"}, nil, "a"},
	} {
		c.table.Region = "us-east-1"
		schema, err := schemas{tables, c.may}.Schema(context.Background(), c.table)
		got := ""
		var fault *convert.SchemaError
		switch {
		case errors.As(err, &fault):
			got = fault.Code
		case err != nil:
			got = err.Error()
		default:
			got = schema.Columns[0].Name
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if !asked["arn:aws:glue:us-east-1:111122223333:table/db/t 111122223333"] {
		t.Errorf("asked about %v", asked)
	}
}
