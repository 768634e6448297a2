// Package catalog keeps databases and tables, and serves them through the Glue
// API: what a schema needs to have a name that clients, infrastructure tools and
// format conversion agree on.
//
// The one idea: a table is its newest version. Every update writes the table and,
// beside it, the version it was before, in one commit that fails if anybody else
// wrote the table meanwhile; so numbers of versions have no gaps that the caller
// did not make, and a reader of the newest version needs one look-up. Making
// something below a database or a table writes the parent too, unchanged, so that
// nothing can be made below what is being deleted.
//
// Names of databases and tables are folded to lower case when they are stored and
// when they are asked for. The catalog belongs to an account and a region; there
// is no sharing across accounts. Open table formats and federated objects are
// refused in words: their tables live in catalogs of their own.
//
// databases.go, tables.go, versions.go and partitions.go have the operations;
// expression.go reads the filters of GetPartitions.
package catalog

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/meta"
)

// Tables is what others read of a catalog.
type Tables interface {
	// Table reads a version of a table: a number, or "" or "LATEST" for the
	// newest. Errors are those of the API: *glue.EntityNotFoundException for a
	// database, table or version that is not there, *glue.InvalidInputException for
	// a version that is no number.
	Table(ctx context.Context, account, region, database, table, version string) (*Table, error)
}

// Table is a version of a table, as far as others need it.
type Table struct {
	Account, Region, Database, Name string
	Version                         string
	Columns                         []Column // of the data, without partition keys
	PartitionKeys                   []Column
	Location                        string
	Parameters                      map[string]string
}

// Column is a column as the catalog was told.
type Column struct{ Name, Type, Comment string }

// Limits on what is kept, per parent.
const (
	maxDatabases  = 10_000  // of an account and region
	maxTables     = 100_000 // of a database
	maxVersions   = 1_000   // of a table
	maxPartitions = 100_000 // of a table
	maxTags       = 50      // of a database or table
	// maxObject bounds the stored form of one object.
	maxObject = 2 << 20
	// pageSize is how many objects a page has, by default and at most.
	pageSize = 100
	// deleteChunk is how many objects a commit of a deletion removes.
	deleteChunk = 1000
)

// Options of a Service.
type Options struct {
	Meta *meta.Store
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Service is the catalog. All methods may be called concurrently.
type Service struct {
	meta *meta.Store
	now  func() time.Time
}

var (
	_ glue.Handler = (*Service)(nil)
	_ Tables       = (*Service)(nil)
)

// New makes a catalog over a store.
func New(o Options) *Service {
	s := &Service{meta: o.Meta, now: o.Now}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

// database, table and partition are as docs/formats/catalog.md describes. Inputs are
// kept as they were given, names folded.
type database struct {
	Input   glue.DatabaseInput `json:"input"`
	Created int64              `json:"createdAt"` // milliseconds since 1970
	Tags    map[string]string  `json:"tags,omitempty"`
}

type table struct {
	Input     glue.TableInput       `json:"input"`
	Created   int64                 `json:"createdAt"`
	Updated   int64                 `json:"updatedAt"`
	CreatedBy string                `json:"createdBy,omitempty"` // an ARN
	Version   int                   `json:"version"`
	Indexes   []glue.PartitionIndex `json:"indexes,omitempty"`
	Tags      map[string]string     `json:"tags,omitempty"`
}

type partition struct {
	Input   glue.PartitionInput `json:"input"`
	Created int64               `json:"createdAt"`
}

// The tables of metadata, keyed by account, region, database, table and what
// follows.
var (
	databases  = meta.Table[database]{Prefix: "catalog.database", Format: 1}
	tables     = meta.Table[table]{Prefix: "catalog.table", Format: 1}
	versions   = meta.Table[table]{Prefix: "catalog.version", Format: 1}
	partitions = meta.Table[partition]{Prefix: "catalog.partition", Format: 1}
)

func notFound(format string, args ...any) error {
	return &glue.EntityNotFoundException{Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return &glue.InvalidInputException{Message: fmt.Sprintf(format, args...)}
}

func limit(what string, most int) error {
	return &glue.ResourceNumberLimitExceededException{Message: fmt.Sprintf("Number of %s resources exceeds the account limit %d", what, most)}
}

// owner is the account whose catalog a call is about.
func owner(call *api.Call, catalogID *string) (string, error) {
	if id := api.Val(catalogID); id != "" && id != call.Account {
		return "", api.NewFrontError(api.CodeAccessDenied, "Cross account access to the catalog "+id+" is not permitted.")
	}
	return call.Account, nil
}

// fold is a name as it is stored.
func fold(name *string) string { return strings.ToLower(api.Val(name)) }

// mustName checks the name of something to be made.
func mustName(what, name string) error {
	if name == "" {
		return invalid("%s name cannot be empty.", what)
	}
	for _, r := range name {
		if r < 0x20 || r == '/' {
			return invalid("%s name %q has characters that are not allowed.", what, name)
		}
	}
	return nil
}

// commit writes and translates the store's refusals.
func (s *Service) commit(ctx context.Context, ops ...meta.Op) error {
	for i := range ops {
		if len(ops[i].Value) > maxObject {
			return invalid("The object is larger than %d bytes.", maxObject)
		}
		if len(ops[i].Key) > meta.MaxKeyBytes {
			return invalid("Names or values are too long.")
		}
	}
	_, err := s.meta.Commit(ctx, ops...)
	if err != nil {
		return fmt.Errorf("change the catalog: %w", err)
	}
	return nil
}

// retry runs f until it does not meet somebody else's change.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		var conflict *meta.ConflictError
		if !errors.As(err, &conflict) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// room says whether one more object fits below a key.
func (s *Service) room(prefix string, most int) bool {
	return len(s.meta.List(prefix, "", most)) < most
}

// clear deletes everything below a key.
func (s *Service) clear(ctx context.Context, prefix string) error {
	for {
		records := s.meta.List(prefix, "", deleteChunk)
		if len(records) == 0 {
			return nil
		}
		ops := make([]meta.Op, len(records))
		for i, r := range records {
			ops[i] = meta.Op{Key: r.Key, Delete: true}
		}
		if err := s.commit(ctx, ops...); err != nil {
			return err
		}
	}
}

// token is where a listing goes on.
type token struct {
	Kind  string `json:"k"`
	After string `json:"a"`
}

func encodeToken(kind, after string) *string {
	raw, err := json.Marshal(token{kind, after})
	if err != nil {
		panic("page token: " + err.Error())
	}
	return api.Ptr(base64.StdEncoding.EncodeToString(raw))
}

// decodeToken reads the token of a kind of listing; none is the beginning. It may
// be made up: it only says where to go on within what the call may see.
func decodeToken(kind string, text *string) (after string, err error) {
	if text == nil || *text == "" {
		return "", nil
	}
	var t token
	raw, err := base64.StdEncoding.DecodeString(*text)
	if err != nil || json.Unmarshal(raw, &t) != nil || t.Kind != kind {
		return "", invalid("Invalid token.")
	}
	return t.After, nil
}

func pageLimit(n *int32) int {
	if n == nil || *n <= 0 {
		return pageSize
	}
	return min(int(*n), pageSize)
}

func millis(ms int64) *time.Time { return api.Ptr(time.UnixMilli(ms)) }

// versionKey makes numbers sort.
func versionKey(n int) string { return fmt.Sprintf("%010d", n) }

func parseVersion(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, invalid("Version id %q is not a number.", text)
	}
	return n, nil
}

// Table implements Tables.
func (s *Service) Table(_ context.Context, account, region, databaseName, name, version string) (*Table, error) {
	databaseName, name = strings.ToLower(databaseName), strings.ToLower(name)
	row, err := s.table(account, region, databaseName, name)
	if err != nil {
		return nil, err
	}
	t := row.Value
	if version != "" && version != "LATEST" {
		n, err := parseVersion(version)
		if err != nil {
			return nil, err
		}
		if t, err = s.version(account, region, databaseName, name, t, n); err != nil {
			return nil, err
		}
	}
	out := &Table{
		Account: account, Region: region, Database: databaseName, Name: name, Version: strconv.Itoa(t.Version),
		PartitionKeys: columns(t.Input.PartitionKeys), Parameters: t.Input.Parameters,
	}
	if sd := t.Input.StorageDescriptor; sd != nil {
		out.Columns, out.Location = columns(sd.Columns), api.Val(sd.Location)
	}
	return out, nil
}

func columns(in []glue.Column) []Column {
	var out []Column
	for _, c := range in {
		out = append(out, Column{Name: api.Val(c.Name), Type: api.Val(c.Type), Comment: api.Val(c.Comment)})
	}
	return out
}
