package catalog

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/meta"
)

// database reads one; it is an EntityNotFoundException if there is none.
func (s *Service) database(account, region, name string) (meta.Row[database], error) {
	row, ok, err := databases.Get(s.meta, account, region, name)
	if err == nil && !ok {
		err = notFound("Database %s not found.", name)
	}
	return row, err
}

func checkDatabase(in *glue.DatabaseInput) error {
	if in.FederatedDatabase != nil {
		return invalid("Federated databases are not supported by this catalog.")
	}
	in.Name = api.Ptr(fold(in.Name))
	return mustName("Database", *in.Name)
}

// CreateDatabase makes a database. Its name must be free.
func (s *Service) CreateDatabase(ctx context.Context, call *api.Call, in *glue.CreateDatabaseInput) (*glue.CreateDatabaseOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	if err := checkDatabase(in.DatabaseInput); err != nil {
		return nil, err
	}
	name := *in.DatabaseInput.Name
	if len(in.Tags) > maxTags {
		return nil, invalid("A database has at most %d tags.", maxTags)
	}
	return nil, retry(ctx, func() error {
		if _, ok, err := databases.Get(s.meta, account, call.Region, name); err != nil {
			return err
		} else if ok {
			return &glue.AlreadyExistsException{Message: "Database already exists."}
		}
		if !s.room(databases.Key(account, call.Region)+"/", maxDatabases) {
			return limit("DATABASE", maxDatabases)
		}
		return s.commit(ctx, databases.Insert(database{Input: *in.DatabaseInput, Created: s.now().UnixMilli(), Tags: in.Tags}, account, call.Region, name))
	})
}

func (d *database) output(account string) glue.Database {
	return glue.Database{
		Name: d.Input.Name, Description: d.Input.Description, LocationUri: d.Input.LocationUri, Parameters: d.Input.Parameters,
		CreateTime: millis(d.Created), CreateTableDefaultPermissions: d.Input.CreateTableDefaultPermissions,
		TargetDatabase: d.Input.TargetDatabase, CatalogId: &account,
	}
}

// GetDatabase describes a database.
func (s *Service) GetDatabase(_ context.Context, call *api.Call, in *glue.GetDatabaseInput) (*glue.GetDatabaseOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	row, err := s.database(account, call.Region, fold(in.Name))
	if err != nil {
		return nil, err
	}
	return &glue.GetDatabaseOutput{Database: api.Ptr(row.Value.output(account))}, nil
}

// GetDatabases lists databases by name, a page at a time.
func (s *Service) GetDatabases(_ context.Context, call *api.Call, in *glue.GetDatabasesInput) (*glue.GetDatabasesOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	after, err := decodeToken("databases", in.NextToken)
	if err != nil {
		return nil, err
	}
	if after != "" {
		after = databases.Key(account, call.Region, after)
	}
	most := pageLimit(in.MaxResults)
	rows, err := databases.List(s.meta, after, most+1, account, call.Region)
	if err != nil {
		return nil, err
	}
	out := &glue.GetDatabasesOutput{DatabaseList: []glue.Database{}}
	for i := range rows {
		if i == most {
			out.NextToken = encodeToken("databases", api.Val(rows[i-1].Value.Input.Name))
			break
		}
		out.DatabaseList = append(out.DatabaseList, rows[i].Value.output(account))
	}
	return out, nil
}

// UpdateDatabase replaces what a database says of itself. Its name stays.
func (s *Service) UpdateDatabase(ctx context.Context, call *api.Call, in *glue.UpdateDatabaseInput) (*glue.UpdateDatabaseOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	if err := checkDatabase(in.DatabaseInput); err != nil {
		return nil, err
	}
	name := fold(in.Name)
	if *in.DatabaseInput.Name != name {
		return nil, invalid("A database cannot be renamed.")
	}
	return nil, retry(ctx, func() error {
		row, err := s.database(account, call.Region, name)
		if err != nil {
			return err
		}
		row.Value.Input = *in.DatabaseInput
		return s.commit(ctx, databases.Update(row))
	})
}

// DeleteDatabase deletes a database with its tables.
func (s *Service) DeleteDatabase(ctx context.Context, call *api.Call, in *glue.DeleteDatabaseInput) (*glue.DeleteDatabaseOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	name := fold(in.Name)
	return nil, retry(ctx, func() error {
		// The database is read first: a table made behind the back of this
		// deletion writes it, which the last commit notices.
		row, err := s.database(account, call.Region, name)
		if err != nil {
			return err
		}
		for _, prefix := range []string{
			partitions.Key(account, call.Region, name), versions.Key(account, call.Region, name), tables.Key(account, call.Region, name),
		} {
			if err := s.clear(ctx, prefix+"/"); err != nil {
				return err
			}
		}
		return s.commit(ctx, databases.Delete(row))
	})
}
