// Package iceberg delivers records as rows of Apache Iceberg tables.
//
// The one idea: what a batch does to a table is one snapshot. Its rows become
// data files, its updates and deletes equality-delete files, and one commit
// makes all of them visible. The snapshot's summary says which records are in
// it; so a batch that comes again after a lost answer or a crash, however it is
// cut then, adds only what is not there.
//
// A record is one JSON object. Which table it goes to and what it does there is
// said by the record, or by the one table that is configured. Within a batch the
// records of a key take effect in order; between batches order is not kept.
//
// Start at Destination.Deliver, then change.go for one table's part of a batch.
// values.go has JSON as columns, data.go the files that rows become, metadata.go
// what a table says of itself and how that goes on, snapshot.go the manifests
// between the two; catalog.go and rest.go are the catalogs.
package iceberg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
	"github.com/millrace/millrace/internal/outbound"
)

// Config is an Iceberg destination.
type Config struct {
	Catalog Catalog
	// Tables are those of DestinationTableConfigurationList. Records that name no
	// table go to the only one of them.
	Tables []Table
	// AppendOnly refuses updates and deletes.
	AppendOnly bool
	// SchemaEvolution adds columns for members that the table does not know;
	// TableCreation makes tables that are missing.
	SchemaEvolution, TableCreation bool
}

// Table is what is configured for a table.
type Table struct {
	Database, Name string
	// UniqueKeys are the columns by which rows are found for updates and deletes;
	// without them those of the table's identifier fields.
	UniqueKeys []string
	// Partition lists columns by whose values a new table is partitioned.
	Partition []string
	// ErrorOutput names the error output of what this table does not take; empty is
	// that of the destination.
	ErrorOutput string
}

// Deps is what a destination is given by the server.
type Deps struct {
	Store objects.Store
	// Client reaches a REST catalog; a client of package outbound.
	Client *http.Client
	// Credentials sign requests to a REST catalog.
	Credentials func(ctx context.Context) (aws.Credentials, error)
	// Dial, if set, makes connections to the database of a SQL catalog.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const codes = "Iceberg."

// The codes of failures.
const (
	codeNoSuchTable    = codes + "NoSuchTable"
	codeTableName      = codes + "InvalidTableName"
	codeMissingColumn  = codes + "MissingColumnWithinRecord"
	codeMalformed      = codes + "MalformedData"
	codeMismatch       = codes + "InvalidColumnValue"
	codeOperation      = codes + "InvalidOperation"
	codeUniqueKeys     = codes + "InvalidUniqueKeys"
	codeConflict       = codes + "CommitConflict"
	codeUnavailable    = codes + "CatalogUnavailable"
	codeInternal       = codes + "InternalError"
	codeCatalogAccess  = "Glue.AccessDenied"
	maxTablesInOneTime = 100
)

// Destination writes to the tables of one catalog.
type Destination struct {
	config  Config
	deps    Deps
	catalog tables

	mu    sync.Mutex
	locks map[string]chan struct{} // by table: its commits here come one after another
}

// New makes a destination. Nothing is connected yet.
func New(c Config, deps Deps) (*Destination, error) {
	if deps.Store == nil {
		return nil, errors.New("iceberg: there is no object store")
	}
	t, err := openCatalog(c.Catalog, deps)
	if err != nil {
		return nil, err
	}
	return &Destination{config: c, deps: deps, catalog: t, locks: map[string]chan struct{}{}}, nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.catalog.close()
	return nil
}

// Check says whether a table is there and can be written: what creating a
// delivery stream asks. Its error is a *dest.Error.
func (d *Destination) Check(ctx context.Context, database, name string) error {
	t, err := d.catalog.load(ctx, database, name)
	if err == nil {
		err = usable(t)
	}
	if err != nil && errors.Is(err, errNoTable) && d.config.TableCreation {
		return nil
	}
	if err != nil {
		return explain(err)
	}
	return nil
}

// usable refuses tables of the first format version, and those of versions that
// are not known here.
func usable(t *state) error {
	if v := t.meta.Version; v < 2 || v > 3 {
		return &dest.Error{Code: codeTableName, Message: fmt.Sprintf("table %s.%s has format version %d; 2 is needed", t.database, t.name, v)}
	}
	return nil
}

// maxName is how long names of databases and tables may be.
const maxName = 255

// isName says that a name is one of a database or a table: of letters, digits,
// dots and underscores, without a dot at its beginning.
func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.' && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// place is a table and what is to be done to it.
type place struct{ database, name, operation string }

// route says where a record goes; reason is not empty if nowhere.
func (d *Destination) route(r *record.Record) (p place, code, reason string) {
	p.operation = "insert"
	if r.Table != nil {
		p.database, p.name = r.Table.Database, r.Table.Name
		if r.Table.Operation != "" {
			p.operation = strings.ToLower(r.Table.Operation)
		}
	}
	if p.database == "" && p.name == "" {
		if len(d.config.Tables) != 1 {
			return p, codeTableName, fmt.Sprintf("the record names no table, and %d tables are configured", len(d.config.Tables))
		}
		p.database, p.name = d.config.Tables[0].Database, d.config.Tables[0].Name
	}
	if !isName(p.database) || !isName(p.name) {
		return p, codeTableName, fmt.Sprintf("%q.%q names no table; letters, digits, dots and underscores do", clip(p.database), clip(p.name))
	}
	switch p.operation {
	case "insert":
	case "update", "delete":
		if d.config.AppendOnly {
			return p, codeOperation, "the delivery stream takes inserts only, the record is an " + p.operation
		}
	default:
		return p, codeOperation, fmt.Sprintf("%q is no operation; insert, update and delete are", clip(p.operation))
	}
	return p, "", ""
}

func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// settings are those configured for a table.
func (d *Destination) settings(p place) Table {
	for _, t := range d.config.Tables {
		if t.Database == p.database && t.Name == p.name {
			return t
		}
	}
	return Table{Database: p.database, Name: p.name}
}

// ErrorOutput implements dest.Placer.
func (d *Destination) ErrorOutput(r *record.Record) string {
	p, _, _ := d.route(r)
	return d.settings(p).ErrorOutput
}

// FailureFields implements dest.Annotator.
func (d *Destination) FailureFields(r *record.Record) []dest.Field {
	sequence := ""
	if r.Lane != nil {
		sequence = r.Lane.SequenceNumber(r.Index, r.Arrival)
	}
	return []dest.Field{{Name: "EventId", Value: sequence + "." + strconv.FormatUint(uint64(r.Sub), 10)}}
}

// errBatch is an error of reading the batch.
type errBatch struct{ error }

func (e *errBatch) Unwrap() error { return e.error }

// Deliver implements dest.Destination: a commit for every table that the batch
// touches. If all of them fail the attempt has failed; if some do, their records
// have, and may be sent again.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	result, err := d.deliver(ctx, b)
	if err != nil {
		var buffer *errBatch
		if errors.As(err, &buffer) {
			return dest.Result{}, fmt.Errorf("read the batch: %w", buffer.error)
		}
		if ctx.Err() != nil {
			return dest.Result{}, &dest.Error{Code: codeUnavailable, Message: "no answer in time", Err: errors.Join(context.Cause(ctx), err)}
		}
		return dest.Result{}, explain(err)
	}
	slices.SortFunc(result.Failed, func(a, b dest.Failure) int { return a.Index - b.Index })
	return result, nil
}

// part is a table's part of a batch.
type part struct {
	place
	indexes []int
	changes bool // there are updates or deletes
}

func (d *Destination) deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	if err := ctx.Err(); err != nil {
		return dest.Result{}, err
	}
	var result dest.Result
	parts, err := d.parts(b, &result)
	if err != nil {
		return dest.Result{}, &errBatch{err}
	}
	var first error
	good := len(parts) == 0
	for _, p := range parts {
		object, failed, err := d.change(ctx, b, p)
		var buffer *errBatch
		switch {
		case errors.As(err, &buffer), err != nil && ctx.Err() != nil:
			return dest.Result{}, err
		case err != nil:
			if first == nil {
				first = err
			}
			e := explain(err)
			for _, i := range p.indexes {
				result.Failed = append(result.Failed, dest.Failure{Index: i, Code: e.Code, Message: e.Message, Retry: !e.Permanent})
			}
			continue
		}
		good = true
		result.Failed = append(result.Failed, failed...)
		if object.Records > 0 {
			result.Objects = append(result.Objects, object)
		}
	}
	if !good {
		return dest.Result{}, first
	}
	return result, nil
}

// parts sorts a batch's records by table.
func (d *Destination) parts(b *record.Batch, result *dest.Result) ([]*part, error) {
	var parts []*part
	by := map[place]*part{} // without the operation
	err := b.Each(func(i int, r *record.Record) error {
		p, code, reason := d.route(r)
		if reason != "" {
			result.Failed = append(result.Failed, dest.Failure{Index: i, Code: code, Message: reason})
			return nil
		}
		key := place{p.database, p.name, ""}
		t := by[key]
		if t == nil {
			if len(parts) == maxTablesInOneTime {
				result.Failed = append(result.Failed, dest.Failure{Index: i, Code: codeConflict, Message: fmt.Sprintf("the batch touches more than %d tables", maxTablesInOneTime), Retry: true})
				return nil
			}
			t = &part{place: key}
			by[key], parts = t, append(parts, t)
		}
		t.indexes = append(t.indexes, i)
		t.changes = t.changes || p.operation != "insert"
		return nil
	})
	return parts, err
}

// lock waits for a table's turn.
func (d *Destination) lock(ctx context.Context, database, name string) (unlock func(), err error) {
	key := database + "/" + name
	d.mu.Lock()
	turn := d.locks[key]
	if turn == nil {
		turn = make(chan struct{}, 1)
		d.locks[key] = turn
	}
	d.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("iceberg: %q is no URL", clip(text))
	}
	return u, nil
}

// explain names what went wrong with a table; nil stays nil.
func explain(err error) *dest.Error {
	if err == nil {
		return nil
	}
	var (
		known   *dest.Error
		object  *objects.Error
		server  *pgconn.PgError
		refused *refusedError
	)
	e := &dest.Error{Code: codeInternal, Message: clipMessage(err.Error()), Err: err}
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, errNoTable):
		e.Code = codeNoSuchTable
	case errors.Is(err, errCommit), errors.Is(err, errTableExists):
		e.Code = codeConflict
	case errors.As(err, &refused) && refused.access():
		e.Code = codeCatalogAccess
	case errors.As(err, &object):
		e.Code, e.Message = "S3."+object.Code, object.Message
		if object.Code == objects.CodeInternal {
			e.Code, e.Message = codeInternal, object.Error()
		}
	case errors.As(err, &server) && (strings.HasPrefix(server.Code, "28") || server.Code == "42501"):
		e.Code = codeCatalogAccess
	case errors.As(err, &server), refused != nil, outbound.Explain(err) != 0:
		e.Code = codeUnavailable
	}
	return e
}

func clipMessage(s string) string {
	if len(s) > 500 {
		return strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
