package iceberg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/internal/objects"
)

// Catalog is where tables are found, as the operator says it: in the file of
// destinations, for the ARN or the URL that the API names.
type Catalog struct {
	// Type is rest, sql or files.
	Type string `yaml:"type"`
	// Warehouse is where tables lie: s3://bucket/prefix. A REST catalog may know
	// it better.
	Warehouse string `yaml:"warehouse"`

	// URI is that of a REST catalog. One of Token, Credential and SigV4 opens it.
	URI        string `yaml:"uri"`
	Prefix     string `yaml:"prefix"`
	Token      string `yaml:"token"`
	Credential string `yaml:"credential"` // client id and secret of OAuth 2: id:secret
	AuthURI    string `yaml:"auth_uri"`
	Scope      string `yaml:"scope"`
	// SigV4 signs requests for a service in a region, with Deps.Credentials.
	SigV4 SigV4 `yaml:"sigv4"`

	// DSN is the PostgreSQL server of a SQL catalog, and Name the catalog's in it.
	DSN  string `yaml:"dsn"`
	Name string `yaml:"name"`
}

// SigV4 says for what requests are signed.
type SigV4 struct {
	Region  string `yaml:"region"`
	Service string `yaml:"service"` // glue, s3tables
}

// The states of a catalog that are told apart.
var (
	errNoTable     = errors.New("table does not exist")
	errTableExists = errors.New("table already exists")
)

// state is a table as it was found.
type state struct {
	database, name string
	address        string // where its metadata is
	meta           *metadata
}

// tables is what a catalog does here. Its functions may run concurrently.
type tables interface {
	// load finds a table; it answers errNoTable if there is none.
	load(ctx context.Context, database, name string) (*state, error)
	// commit makes a change that was prepared for t and answers the table as it is
	// then. errCommit says that something else was changed in between, and that the
	// change has had no effect; after other errors it may have had.
	commit(ctx context.Context, t *state, c commit) (*state, error)
	// create makes a table, and its namespace if need be; errTableExists and
	// errCommit say that another was quicker.
	create(ctx context.Context, database, name string, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error
	close()
}

// openCatalog prepares a catalog. Nothing is connected yet.
func openCatalog(c Catalog, deps Deps) (tables, error) {
	c.Warehouse = strings.TrimRight(c.Warehouse, "/")
	switch c.Type {
	case "rest":
		if c.URI == "" {
			return nil, errors.New("iceberg: a REST catalog needs its uri")
		}
		if deps.Client == nil {
			return nil, errors.New("iceberg: there is no client to reach a REST catalog with")
		}
		if c.SigV4.Region != "" && deps.Credentials == nil {
			return nil, errors.New("iceberg: there are no credentials to sign with")
		}
		for _, address := range []string{c.URI, c.AuthURI} {
			if address != "" {
				if _, err := parseURL(address); err != nil {
					return nil, err
				}
			}
		}
		return &restTables{config: c, deps: deps}, nil
	case "sql":
		if c.DSN == "" || c.Warehouse == "" {
			return nil, errors.New("iceberg: a SQL catalog needs dsn and warehouse")
		}
		return openSQL(c, deps)
	case "files":
		if _, _, err := split(c.Warehouse + "/x"); err != nil {
			return nil, fmt.Errorf("iceberg: warehouse: %w", err)
		}
		return &fileTables{warehouse: c.Warehouse, store: deps.Store}, nil
	}
	return nil, fmt.Errorf("iceberg: there is no catalog of type %q; rest, sql and files there are", c.Type)
}

// fileTables is a catalog that is nothing but the files of its tables, in the
// layout of Hadoop's: metadata/vN.metadata.json, and a hint that names the last
// N. The next version can be created once only, which makes a commit atomic.
type fileTables struct {
	warehouse string
	store     objects.Store
}

func (c *fileTables) close() {}

func (c *fileTables) location(database, name string) string {
	return c.warehouse + "/" + database + "/" + name
}

func metadataName(location string, version int) string {
	return location + "/metadata/v" + strconv.Itoa(version) + ".metadata.json"
}

// maxHint bounds the file with the hint, in bytes.
const maxHint = 32

// version finds the last version of a table, 0 if there is none.
func (c *fileTables) version(ctx context.Context, location string) (int, error) {
	bucket, key, err := split(location + "/metadata/version-hint.text")
	if err != nil {
		return 0, err
	}
	version := 0
	body, _, err := c.store.Get(ctx, bucket, key, objects.Range{})
	switch {
	case err == nil:
		text, err := io.ReadAll(io.LimitReader(body, maxHint))
		_ = body.Close()
		if err != nil {
			return 0, err
		}
		version, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	case objects.Code(err) != objects.CodeNoSuchKey:
		return 0, err
	}
	// The hint may be behind, or missing.
	for next := max(1, version); ; next++ {
		bucket, key, err := split(metadataName(location, next))
		if err != nil {
			return 0, err
		}
		_, err = c.store.Head(ctx, bucket, key)
		switch {
		case err == nil:
			version = next
		case objects.Code(err) == objects.CodeNoSuchKey:
			if next == version { // the hint names what is not there
				return 0, fmt.Errorf("%w: %s is gone", errNoTable, key)
			}
			return version, nil
		default:
			return 0, err
		}
	}
}

func (c *fileTables) load(ctx context.Context, database, name string) (*state, error) {
	t, _, err := c.last(ctx, database, name)
	return t, err
}

// last is the table in its last version.
func (c *fileTables) last(ctx context.Context, database, name string) (*state, int, error) {
	location := c.location(database, name)
	version, err := c.version(ctx, location)
	if err != nil {
		return nil, 0, err
	}
	if version == 0 {
		return nil, 0, fmt.Errorf("%w: %s.%s", errNoTable, database, name)
	}
	t, err := loadFrom(ctx, database, name, metadataName(location, version), c.store)
	return t, version, err
}

// loadFrom reads the metadata at an address.
func loadFrom(ctx context.Context, database, name, address string, store objects.Store) (*state, error) {
	text, err := (&files{ctx: ctx, store: store}).read(address)
	if err != nil {
		if objects.Code(err) == objects.CodeNoSuchKey {
			return nil, fmt.Errorf("%w: %w", errNoTable, err)
		}
		return nil, err
	}
	m, err := parseMetadata(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	return &state{database, name, address, m}, nil
}

func (c *fileTables) commit(ctx context.Context, t *state, change commit) (*state, error) {
	now, version, err := c.last(ctx, t.database, t.name)
	if err != nil {
		return nil, err
	}
	next, err := advance(now.meta, change, now.address)
	if err != nil {
		return nil, err
	}
	location := c.location(t.database, t.name)
	if err := c.write(ctx, location, version+1, next); err != nil {
		return nil, err
	}
	return &state{t.database, t.name, metadataName(location, version+1), next}, nil
}

// write stores a version, which must not be there yet, and the hint.
func (c *fileTables) write(ctx context.Context, location string, version int, m *metadata) error {
	text, err := m.text()
	if err != nil {
		return err
	}
	bucket, key, err := split(metadataName(location, version))
	if err != nil {
		return err
	}
	_, err = c.store.Put(ctx, bucket, key, bytes.NewReader(text), int64(len(text)), objects.PutOptions{IfAbsent: true})
	if objects.Code(err) == objects.CodePrecondition {
		return fmt.Errorf("%w: version %d of the table was made by somebody else", errCommit, version)
	}
	if err != nil {
		return err
	}
	hint := strconv.Itoa(version)
	// Without the hint readers look for the last version themselves.
	_, _ = c.store.Put(ctx, bucket, strings.TrimSuffix(key, "v"+hint+".metadata.json")+"version-hint.text", strings.NewReader(hint), int64(len(hint)), objects.PutOptions{})
	return nil
}

func (c *fileTables) create(ctx context.Context, database, name string, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	location := c.location(database, name)
	m, err := makeMetadata(schema, spec, location)
	if err != nil {
		return err
	}
	return c.write(ctx, location, 1, m)
}

// sqlTables is the catalog in a database that Iceberg's libraries share: a row a
// table, which says where its metadata is.
type sqlTables struct {
	config Catalog
	deps   Deps
	pool   *pgxpool.Pool

	mu    sync.Mutex
	ready bool
	conns sync.WaitGroup
}

func openSQL(c Catalog, deps Deps) (*sqlTables, error) {
	if c.Name == "" {
		c.Name = "default"
	}
	config, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, errors.New("iceberg: the connection string of the catalog cannot be parsed")
	}
	t := &sqlTables{config: c, deps: deps}
	config.MaxConns, config.MinConns = 2, 0
	config.MaxConnIdleTime = time.Minute
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.ConnConfig.MaxProtocolMessageBodyLen = 8 << 20
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 30 * time.Second
	}
	if deps.Dial != nil {
		config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			return deps.Dial(ctx, network, address)
		}
	}
	config.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		t.conns.Go(func() { <-c.PgConn().CleanupDone() })
		return nil
	}
	if t.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		return nil, fmt.Errorf("iceberg: prepare connections: %w", err)
	}
	return t, nil
}

func (c *sqlTables) close() {
	c.pool.Close()
	c.conns.Wait()
}

// sqlSchema is that of the libraries for Java and Python.
var sqlSchema = []string{
	`CREATE TABLE IF NOT EXISTS iceberg_tables (
	catalog_name varchar(255) NOT NULL, table_namespace varchar(255) NOT NULL, table_name varchar(255) NOT NULL,
	metadata_location varchar(1000), previous_metadata_location varchar(1000), iceberg_type varchar(5) DEFAULT 'TABLE',
	PRIMARY KEY (catalog_name, table_namespace, table_name))`,
	`CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
	catalog_name varchar(255) NOT NULL, namespace varchar(255) NOT NULL, property_key varchar(255) NOT NULL, property_value varchar(1000) NOT NULL,
	PRIMARY KEY (catalog_name, namespace, property_key))`,
}

func (c *sqlTables) prepare(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready {
		return nil
	}
	for _, sql := range sqlSchema {
		if _, err := c.pool.Exec(ctx, sql); err != nil {
			return err
		}
	}
	c.ready = true
	return nil
}

func (c *sqlTables) load(ctx context.Context, database, name string) (*state, error) {
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	var address *string // null for a view
	err := c.pool.QueryRow(ctx, "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3",
		c.config.Name, database, name).Scan(&address)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && address == nil {
		return nil, fmt.Errorf("%w: %s.%s", errNoTable, database, name)
	}
	if err != nil {
		return nil, err
	}
	return loadFrom(ctx, database, name, *address, c.deps.Store)
}

func (c *sqlTables) commit(ctx context.Context, t *state, change commit) (*state, error) {
	now, err := c.load(ctx, t.database, t.name)
	if err != nil {
		return nil, err
	}
	next, err := advance(now.meta, change, now.address)
	if err != nil {
		return nil, err
	}
	address, err := c.write(ctx, next, now.address)
	if err != nil {
		return nil, err
	}
	tag, err := c.pool.Exec(ctx, `UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2
		WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $2`,
		address, now.address, c.config.Name, t.database, t.name)
	if err != nil {
		return nil, err
	}
	if tag.RowsAffected() == 0 {
		return nil, fmt.Errorf("%w: the table was changed by somebody else", errCommit)
	}
	return &state{t.database, t.name, address, next}, nil
}

// write stores metadata under a name that nobody else uses.
func (c *sqlTables) write(ctx context.Context, m *metadata, previous string) (string, error) {
	version := 0
	if i := strings.LastIndexByte(previous, '/'); previous != "" && len(previous) > i+6 {
		if n, err := strconv.Atoi(previous[i+1 : i+6]); err == nil {
			version = n + 1
		}
	}
	address := fmt.Sprintf("%s/%05d-%s.metadata.json", m.metadataPath(), version, uuid.NewString())
	text, err := m.text()
	if err != nil {
		return "", err
	}
	return address, (&files{ctx: ctx, store: c.deps.Store}).write(address, text)
}

func (c *sqlTables) create(ctx context.Context, database, name string, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	m, err := makeMetadata(schema, spec, c.config.Warehouse+"/"+database+"/"+name)
	if err != nil {
		return err
	}
	address, err := c.write(ctx, m, "")
	if err != nil {
		return err
	}
	if _, err := c.pool.Exec(ctx, `INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
		VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING`, c.config.Name, database); err != nil {
		return err
	}
	tag, err := c.pool.Exec(ctx, `INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)
		VALUES ($1, $2, $3, $4, 'TABLE') ON CONFLICT DO NOTHING`, c.config.Name, database, name, address)
	if err == nil && tag.RowsAffected() == 0 {
		return errTableExists
	}
	return err
}
