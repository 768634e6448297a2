package catalog

import (
	"context"
	"slices"
	"strconv"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
)

// version is version n of a table whose newest is current.
func (s *Service) version(account, region, databaseName, name string, current table, n int) (table, error) {
	if n == current.Version {
		return current, nil
	}
	row, ok, err := versions.Get(s.meta, account, region, databaseName, name, versionKey(n))
	if err == nil && !ok {
		err = notFound("Version %d of table %s not found.", n, name)
	}
	return row.Value, err
}

// GetTableVersion describes a version of a table, the newest without a VersionId.
func (s *Service) GetTableVersion(_ context.Context, call *api.Call, in *glue.GetTableVersionInput) (*glue.GetTableVersionOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), fold(in.TableName)
	row, err := s.table(account, call.Region, databaseName, name)
	if err != nil {
		return nil, err
	}
	t := row.Value
	if v := api.Val(in.VersionId); v != "" {
		n, err := parseVersion(v)
		if err != nil {
			return nil, err
		}
		if t, err = s.version(account, call.Region, databaseName, name, t, n); err != nil {
			return nil, err
		}
	}
	o := t.output(account, databaseName)
	return &glue.GetTableVersionOutput{TableVersion: &glue.TableVersion{Table: &o, VersionId: o.VersionId}}, nil
}

// GetTableVersions lists the versions of a table, the newest first.
func (s *Service) GetTableVersions(_ context.Context, call *api.Call, in *glue.GetTableVersionsInput) (*glue.GetTableVersionsOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), fold(in.TableName)
	row, err := s.table(account, call.Region, databaseName, name)
	if err != nil {
		return nil, err
	}
	after, err := decodeToken("versions", in.NextToken)
	if err != nil {
		return nil, err
	}
	below := row.Value.Version + 1
	if after != "" {
		if below, err = strconv.Atoi(after); err != nil {
			return nil, invalid("Invalid token.")
		}
	}
	old, err := versions.List(s.meta, "", 0, account, call.Region, databaseName, name)
	if err != nil {
		return nil, err
	}
	all := []table{row.Value}
	for _, v := range slices.Backward(old) {
		all = append(all, v.Value)
	}
	most := pageLimit(in.MaxResults)
	out := &glue.GetTableVersionsOutput{TableVersions: []glue.TableVersion{}}
	for i := range all {
		if all[i].Version >= below {
			continue
		}
		if len(out.TableVersions) == most {
			out.NextToken = encodeToken("versions", api.Val(out.TableVersions[most-1].VersionId))
			break
		}
		o := all[i].output(account, databaseName)
		out.TableVersions = append(out.TableVersions, glue.TableVersion{Table: &o, VersionId: o.VersionId})
	}
	return out, nil
}

// DeleteTableVersion deletes a version that is not the newest.
func (s *Service) DeleteTableVersion(ctx context.Context, call *api.Call, in *glue.DeleteTableVersionInput) (*glue.DeleteTableVersionOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), fold(in.TableName)
	n, err := parseVersion(api.Val(in.VersionId))
	if err != nil {
		return nil, err
	}
	return nil, retry(ctx, func() error {
		row, err := s.table(account, call.Region, databaseName, name)
		if err != nil {
			return err
		}
		if n == row.Value.Version {
			return invalid("The newest version of a table cannot be deleted.")
		}
		v, ok, err := versions.Get(s.meta, account, call.Region, databaseName, name, versionKey(n))
		if err != nil {
			return err
		}
		if !ok {
			return notFound("Version %d of table %s not found.", n, name)
		}
		return s.commit(ctx, versions.Delete(v))
	})
}
