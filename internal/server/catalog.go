package server

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/catalog"
	"github.com/millrace/millrace/internal/firehose/convert"
	"github.com/millrace/millrace/internal/iam"
)

// openCatalog serves databases and tables.
func (s *Server) openCatalog(context.Context) error {
	s.catalog = catalog.New(catalog.Options{Meta: s.meta, Now: s.options.Now})
	s.mux.Register(glue.Service, s.catalog, glue.Bind(s.catalog))
	return nil
}

// schemas is the catalog as format conversion sees it.
type schemas struct {
	tables catalog.Tables
	// may asks the policies of a role; nil permits everything.
	may func(role, action, resource, account string) iam.Decision
}

// readActions are what a role may have been given to read a table: any will do.
var readActions = []string{"glue:GetTable", "glue:GetTableVersion", "glue:GetTableVersions"}

// Schema implements convert.Schemas. It reads as the conversion's role, which has
// no way into the catalog of another account.
func (c schemas) Schema(ctx context.Context, t convert.Table) (*convert.Schema, error) {
	if c.may != nil {
		arn := "arn:aws:glue:" + t.Region + ":" + t.Account + ":table/" + strings.ToLower(t.Database) + "/" + strings.ToLower(t.Name)
		if !slices.ContainsFunc(readActions, func(action string) bool { return c.may(t.RoleARN, action, arn, t.Account).Allowed }) {
			return nil, &convert.SchemaError{Code: "AccessDenied", Message: "Access was denied when calling Glue. Please ensure that the role specified " +
				"in the data format conversion configuration has the necessary permissions."}
		}
	}
	table, err := c.tables.Table(ctx, t.Account, t.Region, t.Database, t.Name, t.Version)
	if err != nil {
		var missing *glue.EntityNotFoundException
		var modelled api.Error
		switch {
		case errors.As(err, &missing):
			return nil, &convert.SchemaError{Code: "EntityNotFound", Message: missing.Message}
		case errors.As(err, &modelled) && t.Version != "" && t.Version != convert.Latest:
			return nil, &convert.SchemaError{Code: "InvalidVersionId", Message: modelled.ErrorMessage()}
		case errors.As(err, &modelled):
			return nil, &convert.SchemaError{Code: "InvalidInput", Message: modelled.ErrorMessage()}
		}
		return nil, err
	}
	schema := &convert.Schema{Version: table.Version, Parameters: table.Parameters}
	for _, c := range table.Columns {
		schema.Columns = append(schema.Columns, convert.Column{Name: c.Name, Type: c.Type})
	}
	return schema, nil
}
