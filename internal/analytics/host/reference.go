package host

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/millrace/millrace/internal/analytics/app"
	"github.com/millrace/millrace/internal/analytics/plan"
	"github.com/millrace/millrace/internal/analytics/run"
)

// parseError is the name of the error of a record that cannot be read.
const parseError = "PARSE_ERROR"

// references loads the reference tables; false if the application ends first.
// Nothing is read before: a row that came too early would find no partner.
func (r *application) references() bool {
	for _, ref := range r.a.References {
		part := "reference " + ref.ID
		for attempt := 0; ; attempt++ {
			err := r.reference(part, ref)
			if err == nil {
				r.problem(part, "", "", "")
				break
			}
			if r.ctx.Err() != nil {
				return false
			}
			r.problem(part, ref.ID, "ReferenceDataError", err.Error())
			if !r.pause(attempt) {
				return false
			}
		}
	}
	return true
}

// reference loads one table. What of the object cannot be read as rows is left out,
// and told.
func (r *application) reference(part string, ref app.Reference) error {
	if r.h.o.OpenObject == nil {
		return errors.New("there is no object store")
	}
	body, err := r.h.o.OpenObject(r.ctx, r.a, ref)
	if err != nil {
		return err
	}
	defer body.Close()
	limit := r.h.o.MaxReference
	if m := r.h.o.MemoryLimit; m > 0 {
		limit = min(limit, m)
	}
	raw, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return err
	}
	if int64(len(raw)) > limit {
		return fmt.Errorf("object %s in bucket %s is larger than the %d bytes that a reference table may have", ref.Key, ref.Bucket, limit)
	}
	parser, err := run.NewParser(ref.Format)
	if err != nil {
		return err
	}
	var columns []plan.ColumnInfo
	for _, c := range ref.Format.Columns {
		columns = append(columns, plan.ColumnInfo{Name: c.Name, Type: c.Type})
	}
	rows := run.NewRows(columns)
	now := r.now()
	refused, first := 0, ""
	for text := string(raw); text != ""; {
		rest := ""
		parser.Parse(rows, text, now, nil, func(name, message, row string) {
			if name == parseError && !ref.Format.CSV {
				// Nobody knows where the next document of a record begins. An object's are
				// on lines of their own, more often than not.
				row, rest, _ = strings.Cut(row, "\n")
			}
			if refused++; refused == 1 {
				first = message
			}
			r.engine.Refuse(name, message, row, now)
		})
		text = rest
	}
	if err := r.engine.SetTable(ref.Table, rows); err != nil {
		return fmt.Errorf("object %s in bucket %s: %w", ref.Key, ref.Bucket, err)
	}
	if refused > 0 {
		r.problem("rows of "+part, ref.ID, "ReferenceDataError", fmt.Sprintf("object %s in bucket %s: %d of its rows could not be read and are not in the table, the first because %s", ref.Key, ref.Bucket, refused, first))
		r.problem("rows of "+part, "", "", "")
	}
	return nil
}
