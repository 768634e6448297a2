package iceberg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/aws/aws-sdk-go-v2/aws"
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

// tables is what a catalog does here.
type tables interface {
	table.CatalogIO
	// create makes a table, and its namespace if need be.
	create(ctx context.Context, id table.Identifier, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error
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

// located is a function that gives the library its files.
func located(store objects.Store, t *tally) table.FSysF {
	return func(ctx context.Context) (iceio.IO, error) {
		return &files{ctx: ctx, store: store, tally: t}, nil
	}
}

// advance checks a commit against what is there and makes the next metadata.
func advance(current table.Metadata, requirements []table.Requirement, updates []table.Update, location string) (table.Metadata, error) {
	for _, r := range requirements {
		if err := r.Validate(current); err != nil {
			return nil, fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
		}
	}
	return table.UpdateTableMetadata(current, updates, location)
}

// fileTables is a catalog that is nothing but the files of its tables, in the
// layout of Hadoop's: metadata/vN.metadata.json, and a hint that names the last
// N. The next version can be created once only, which makes a commit atomic.
type fileTables struct {
	warehouse string
	store     objects.Store
}

func (c *fileTables) close() {}

func (c *fileTables) location(id table.Identifier) string {
	return c.warehouse + "/" + strings.Join(id, "/")
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
				return 0, fmt.Errorf("%w: %s is gone", catalog.ErrNoSuchTable, key)
			}
			return version, nil
		default:
			return 0, err
		}
	}
}

// LoadTable implements table.CatalogIO.
func (c *fileTables) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	location := c.location(id)
	version, err := c.version(ctx, location)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, fmt.Errorf("%w: %s", catalog.ErrNoSuchTable, strings.Join(id, "."))
	}
	return loadFrom(ctx, id, metadataName(location, version), c.store, c)
}

func loadFrom(ctx context.Context, id table.Identifier, address string, store objects.Store, c table.CatalogIO) (*table.Table, error) {
	text, err := (&files{ctx: ctx, store: store}).ReadFile(address)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", catalog.ErrNoSuchTable, err)
		}
		return nil, err
	}
	m, err := table.ParseMetadataBytes(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	return table.New(id, m, address, located(store, nil), c), nil
}

// CommitTable implements table.CatalogIO.
func (c *fileTables) CommitTable(ctx context.Context, id table.Identifier, requirements []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	location := c.location(id)
	version, err := c.version(ctx, location)
	if err != nil {
		return nil, "", err
	}
	if version == 0 {
		return nil, "", fmt.Errorf("%w: %s", catalog.ErrNoSuchTable, strings.Join(id, "."))
	}
	current, err := loadFrom(ctx, id, metadataName(location, version), c.store, c)
	if err != nil {
		return nil, "", err
	}
	next, err := advance(current.Metadata(), requirements, updates, current.MetadataLocation())
	if err != nil {
		return nil, "", err
	}
	address := metadataName(location, version+1)
	if err := c.write(ctx, location, version+1, next); err != nil {
		return nil, "", err
	}
	return next, address, nil
}

// write stores a version, which must not be there yet, and the hint.
func (c *fileTables) write(ctx context.Context, location string, version int, m table.Metadata) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	bucket, key, err := split(metadataName(location, version))
	if err != nil {
		return err
	}
	_, err = c.store.Put(ctx, bucket, key, bytes.NewReader(text), int64(len(text)), objects.PutOptions{IfAbsent: true})
	if objects.Code(err) == objects.CodePrecondition {
		return fmt.Errorf("%w: version %d of the table was made by somebody else", table.ErrCommitFailed, version)
	}
	if err != nil {
		return err
	}
	hint := strconv.Itoa(version)
	// Without the hint readers look for the last version themselves.
	_, _ = c.store.Put(ctx, bucket, strings.TrimSuffix(key, "v"+hint+".metadata.json")+"version-hint.text", strings.NewReader(hint), int64(len(hint)), objects.PutOptions{})
	return nil
}

func (c *fileTables) create(ctx context.Context, id table.Identifier, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	location := c.location(id)
	m, err := table.NewMetadata(schema, spec, table.UnsortedSortOrder, location, iceberg.Properties{"format-version": "2"})
	if err != nil {
		return err
	}
	return c.write(ctx, location, 1, m)
}

// restTables is a REST catalog, asked for its configuration when it is first
// needed.
type restTables struct {
	config Catalog
	deps   Deps

	mu     sync.Mutex
	client *rest.Catalog
}

func (c *restTables) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		_ = c.client.Close()
		c.client = nil
	}
	c.deps.Client.CloseIdleConnections()
}

func (c *restTables) open(ctx context.Context) (*rest.Catalog, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	o := []rest.Option{rest.WithCustomTransport(bounded{c.deps.Client.Transport})}
	if c.config.Warehouse != "" {
		o = append(o, rest.WithWarehouseLocation(c.config.Warehouse))
	}
	if c.config.Prefix != "" {
		o = append(o, rest.WithPrefix(c.config.Prefix))
	}
	switch {
	case c.config.Token != "":
		o = append(o, rest.WithOAuthToken(c.config.Token))
	case c.config.Credential != "":
		o = append(o, rest.WithCredential(c.config.Credential))
		if c.config.Scope != "" {
			o = append(o, rest.WithScope(c.config.Scope))
		}
	case c.config.SigV4.Region != "":
		o = append(o, rest.WithSigV4RegionSvc(c.config.SigV4.Region, c.config.SigV4.Service), rest.WithAwsConfig(aws.Config{
			Region:      c.config.SigV4.Region,
			Credentials: aws.CredentialsProviderFunc(c.deps.Credentials),
		}))
	}
	if c.config.AuthURI != "" {
		u, err := parseURL(c.config.AuthURI)
		if err != nil {
			return nil, err
		}
		o = append(o, rest.WithAuthURI(u))
	}
	client, err := rest.NewCatalog(ctx, "rest", c.config.URI, o...)
	if err != nil {
		return nil, err
	}
	c.client = client
	return client, nil
}

// bounded cuts answers off that are too large.
type bounded struct{ http.RoundTripper }

// maxAnswer bounds an answer of a REST catalog, in bytes; metadata of a table
// with many snapshots takes megabytes.
const maxAnswer = 32 << 20

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	reply, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	reply.Body = &boundedBody{reply.Body, maxAnswer}
	return reply, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the catalog's answer is larger than %d MiB", maxAnswer>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// LoadTable implements table.CatalogIO.
func (c *restTables) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	client, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	t, err := client.LoadTable(ctx, id)
	if err != nil {
		return nil, err
	}
	return table.New(id, t.Metadata(), t.MetadataLocation(), located(c.deps.Store, nil), c), nil
}

// CommitTable implements table.CatalogIO.
func (c *restTables) CommitTable(ctx context.Context, id table.Identifier, requirements []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	client, err := c.open(ctx)
	if err != nil {
		return nil, "", err
	}
	return client.CommitTable(ctx, id, requirements, updates)
}

func (c *restTables) create(ctx context.Context, id table.Identifier, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	client, err := c.open(ctx)
	if err != nil {
		return err
	}
	if err := client.CreateNamespace(ctx, id[:len(id)-1], nil); err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		return err
	}
	o := []catalog.CreateTableOpt{catalog.WithProperties(iceberg.Properties{"format-version": "2"})}
	if spec != nil {
		o = append(o, catalog.WithPartitionSpec(spec))
	}
	_, err = client.CreateTable(ctx, id, schema, o...)
	return err
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

func (c *sqlTables) find(ctx context.Context, id table.Identifier) (string, error) {
	if err := c.prepare(ctx); err != nil {
		return "", err
	}
	var address string
	err := c.pool.QueryRow(ctx, "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3",
		c.config.Name, id[0], id[1]).Scan(&address)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("%w: %s", catalog.ErrNoSuchTable, strings.Join(id, "."))
	}
	return address, err
}

// LoadTable implements table.CatalogIO.
func (c *sqlTables) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	address, err := c.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return loadFrom(ctx, id, address, c.deps.Store, c)
}

// CommitTable implements table.CatalogIO.
func (c *sqlTables) CommitTable(ctx context.Context, id table.Identifier, requirements []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	current, err := c.LoadTable(ctx, id)
	if err != nil {
		return nil, "", err
	}
	next, err := advance(current.Metadata(), requirements, updates, current.MetadataLocation())
	if err != nil {
		return nil, "", err
	}
	address, err := c.write(ctx, next, current.MetadataLocation())
	if err != nil {
		return nil, "", err
	}
	tag, err := c.pool.Exec(ctx, `UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2
		WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $2`,
		address, current.MetadataLocation(), c.config.Name, id[0], id[1])
	if err != nil {
		return nil, "", err
	}
	if tag.RowsAffected() == 0 {
		return nil, "", fmt.Errorf("%w: the table was changed by somebody else", table.ErrCommitFailed)
	}
	return next, address, nil
}

// write stores metadata under a name that nobody else uses.
func (c *sqlTables) write(ctx context.Context, m table.Metadata, previous string) (string, error) {
	provider, err := table.LoadLocationProvider(m.Location(), m.Properties())
	if err != nil {
		return "", err
	}
	version := 0
	if i := strings.LastIndexByte(previous, '/'); previous != "" && len(previous) > i+6 {
		if n, err := strconv.Atoi(previous[i+1 : i+6]); err == nil {
			version = n + 1
		}
	}
	address, err := provider.NewTableMetadataFileLocation(version)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	return address, (&files{ctx: ctx, store: c.deps.Store}).WriteFile(address, text)
}

func (c *sqlTables) create(ctx context.Context, id table.Identifier, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	location := c.config.Warehouse + "/" + strings.Join(id, "/")
	m, err := table.NewMetadata(schema, spec, table.UnsortedSortOrder, location, iceberg.Properties{"format-version": "2"})
	if err != nil {
		return err
	}
	address, err := c.write(ctx, m, "")
	if err != nil {
		return err
	}
	if _, err := c.pool.Exec(ctx, `INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value)
		VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING`, c.config.Name, id[0]); err != nil {
		return err
	}
	tag, err := c.pool.Exec(ctx, `INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)
		VALUES ($1, $2, $3, $4, 'TABLE') ON CONFLICT DO NOTHING`, c.config.Name, id[0], id[1], address)
	if err == nil && tag.RowsAffected() == 0 {
		return catalog.ErrTableAlreadyExists
	}
	return err
}
