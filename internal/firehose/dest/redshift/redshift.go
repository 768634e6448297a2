// Package redshift loads batches into a Redshift cluster, or a PostgreSQL
// server in its place, through objects in a bucket.
//
// The one idea: what is loaded is always a manifest of staged objects. A batch
// is stored as an object; one COPY runs at a time, and when it ends the next
// takes all batches that are waiting, in one manifest. A cluster reads the objects
// itself. For a server that cannot, this package reads them, follows the same
// options, and sends the rows with COPY FROM STDIN; there a table remembers what
// was loaded, in the same transaction, so that nothing is loaded twice.
//
// Staged objects are never deleted. When delivery gives up, Abandon leaves a
// manifest under errors/ for whoever loads it by hand.
//
// Start at Destination.Deliver and load; the rows are package postgres's.
package redshift

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/postgres"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/objects"
)

// Config is a Redshift destination.
type Config struct {
	// URL is the ClusterJDBCURL: jdbc:redshift://host:port/database.
	URL string
	// Table, Columns and Options are those of the CopyCommand.
	Table, Columns, Options string
	// RoleARN is the role that the cluster reads the bucket with.
	RoleARN string
	// Bucket holds the staged objects and the manifests.
	Bucket string
	// Endpoint is what the operator has set for URL; the zero value connects to
	// the URL and has the server there read the bucket.
	Endpoint Endpoint
}

// Endpoint is an operator's override of a cluster's URL, in the file of
// destinations.
type Endpoint struct {
	// DSN is the connection string of a PostgreSQL-compatible server.
	DSN string `yaml:"dsn"`
	// ServerCopy has the server read the bucket, as Redshift does.
	ServerCopy bool `yaml:"server_copy"`
	// Ledger is the table that remembers what was loaded; millrace_loaded if
	// empty, "none" does without. It is of no use to ServerCopy.
	Ledger string `yaml:"ledger"`
	// Connections is how many there are at most; 2 if zero.
	Connections int `yaml:"connections"`
}

// Stage stores a batch as an object; package s3's Destination.
type Stage interface {
	Deliver(ctx context.Context, b *record.Batch) (dest.Result, error)
	Close() error
}

// Deps is what a destination is given by the server.
type Deps struct {
	Stage Stage
	// Store takes manifests and is read from.
	Store objects.Store
	// Credentials are asked before every connection; nil leaves it to the DSN.
	Credentials func(ctx context.Context) (user, password string, err error)
	// Dial, if set, makes connections to addresses that are allowed.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock; nil is that of the system.
	Now func() time.Time
}

const codes = "Redshift."

// mostObjects bounds the objects of one manifest.
const mostObjects = 500

// Retry is how a load is repeated: every five minutes, for so many seconds from
// the first attempt on.
func Retry(seconds int) dest.Retry {
	return dest.Retry{
		Duration: time.Duration(seconds) * time.Second, FromFirstAttempt: true,
		Initial: 5 * time.Minute, Max: 5 * time.Minute, Factor: 1, Jitter: 1e-6,
	}
}

// Destination loads batches into one table.
type Destination struct {
	config   Config
	deps     Deps
	database *postgres.Database
	target   postgres.Target // of loads by this package
	remote   bool            // the server reads the bucket
	problem  error           // options that cannot be followed: told at every attempt

	turn chan struct{} // holds a token while no COPY runs

	mu      sync.Mutex
	waiting []*load
	staged  map[string]dest.Object // by batch, until it is loaded
}

// load is a batch that waits for its COPY.
type load struct {
	batch  *record.Batch
	object dest.Object
	alone  bool          // it failed before: not with others
	ended  func() error  // whether its caller has given up
	abort  func()        // ends the COPY that it is part of
	done   chan struct{} // closed when err is set
	err    error
}

// New makes a destination. Nothing is connected yet.
func New(c Config, deps Deps) (*Destination, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	dsn := c.Endpoint.DSN
	remote := c.Endpoint.ServerCopy
	if dsn == "" {
		var err error
		if dsn, err = ConnectionString(c.URL); err != nil {
			return nil, err
		}
		remote = true
	}
	d := &Destination{config: c, deps: deps, remote: remote, turn: make(chan struct{}, 1), staged: map[string]dest.Object{}}
	d.turn <- struct{}{}
	connections := c.Endpoint.Connections
	if connections == 0 {
		connections = 2
	}
	var err error
	if d.database, err = postgres.Open(postgres.Options{DSN: dsn, Credentials: deps.Credentials, Dial: deps.Dial, Connections: connections, Codes: codes}); err != nil {
		return nil, fmt.Errorf("redshift: %w", err)
	}
	if remote {
		return d, nil
	}
	d.target = postgres.Target{Table: c.Table, Columns: c.Columns, Exactly: c.Endpoint.Ledger}
	switch c.Endpoint.Ledger {
	case "":
		d.target.Exactly = postgres.DefaultLedger
	case "none":
		d.target.Exactly = ""
	}
	// The service takes any options and finds out when it loads.
	if d.target.Options, err = postgres.ParseCopyOptions(c.Options); err != nil {
		d.problem = d.database.Explain(err)
	}
	return d, nil
}

// ConnectionString makes a connection string of a JDBC URL.
func ConnectionString(jdbc string) (string, error) {
	rest, ok := strings.CutPrefix(jdbc, "jdbc:")
	if !ok {
		return "", errors.New("redshift: the cluster's URL does not begin with jdbc:")
	}
	u, err := url.Parse(rest)
	if err != nil || u.Host == "" || u.Scheme != "redshift" && u.Scheme != "postgresql" {
		return "", errors.New("redshift: the cluster's URL should be jdbc:redshift://host:port/database")
	}
	q := url.Values{}
	q.Set("sslmode", "require")
	for name, values := range u.Query() {
		if mode := strings.ToLower(values[0]); strings.EqualFold(name, "sslmode") {
			switch mode {
			case "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
				q.Set("sslmode", mode)
			}
		}
	}
	port := u.Port()
	if port == "" {
		port = "5439"
	}
	return (&url.URL{Scheme: "postgres", Host: net.JoinHostPort(u.Hostname(), port), Path: u.Path, RawQuery: q.Encode()}).String(), nil
}

// Close implements dest.Destination.
func (d *Destination) Close() error {
	d.database.Close()
	return d.deps.Stage.Close()
}

// Deliver implements dest.Destination: it stages the batch, unless an earlier
// attempt has, and loads it in its turn.
func (d *Destination) Deliver(ctx context.Context, b *record.Batch) (dest.Result, error) {
	object, err := d.stage(ctx, b)
	if err != nil {
		return dest.Result{}, err
	}
	if d.problem != nil {
		return dest.Result{}, d.problem
	}
	l := &load{batch: b, object: object, alone: b.Attempt > 1, ended: ctx.Err, done: make(chan struct{})}
	d.mu.Lock()
	d.waiting = append(d.waiting, l)
	d.mu.Unlock()
	for {
		select {
		case <-l.done:
			return d.loaded(l)
		case <-ctx.Done():
			if d.withdraw(l) {
				return dest.Result{}, context.Cause(ctx)
			}
			// It is being loaded with others. That ends here, because the batch
			// must not be read any more when Deliver has returned; they begin again.
			l.abort()
			<-l.done
			return d.loaded(l)
		case <-d.turn:
		}
		loading, abort := context.WithCancel(ctx)
		if group := d.group(l, abort); group != nil {
			d.copy(loading, group)
		}
		abort()
		d.turn <- struct{}{}
	}
}

// loaded is the answer for a batch whose COPY has ended.
func (d *Destination) loaded(l *load) (dest.Result, error) {
	if l.err != nil {
		return dest.Result{}, l.err
	}
	d.mu.Lock()
	delete(d.staged, stageKey(l.batch))
	d.mu.Unlock()
	return dest.Result{Objects: []dest.Object{l.object}}, nil
}

// withdraw takes a batch out of those that wait, if it still does.
func (d *Destination) withdraw(l *load) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, w := range d.waiting {
		if w == l {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// group takes the batches of the next COPY from those that wait: l, and all
// others that may share its manifest. It is nil if l has been loaded meanwhile.
func (d *Destination) group(l *load, abort func()) []*load {
	d.mu.Lock()
	defer d.mu.Unlock()
	var group, rest []*load
	found := false
	for _, w := range d.waiting {
		if w == l {
			found = true
		}
		if w == l || !l.alone && !w.alone && len(group) < mostObjects-1 {
			w.abort = abort
			group = append(group, w)
		} else {
			rest = append(rest, w)
		}
	}
	if !found {
		return nil
	}
	d.waiting = rest
	return group
}

// copy loads a group. If it ends because somebody has given up, the others go
// back and are led by one of themselves.
func (d *Destination) copy(ctx context.Context, group []*load) {
	err := d.load(ctx, group)
	if err != nil && ctx.Err() != nil {
		var back, over []*load
		for _, l := range group {
			if l.ended() == nil {
				back = append(back, l)
			} else {
				over = append(over, l)
			}
		}
		d.mu.Lock()
		d.waiting = append(back, d.waiting...)
		d.mu.Unlock()
		group = over
	}
	for _, l := range group {
		l.err = err
		close(l.done)
	}
}

// stageKey tells batches apart: a part of a batch bears its name.
func stageKey(b *record.Batch) string {
	return fmt.Sprintf("%s/%d/%d.%d", b.ID, b.Count, b.Last.Index, b.Last.Sub)
}

// stage stores a batch as an object. The key follows from the batch, so that
// doing it again is harmless.
func (d *Destination) stage(ctx context.Context, b *record.Batch) (dest.Object, error) {
	key := stageKey(b)
	d.mu.Lock()
	object, ok := d.staged[key]
	d.mu.Unlock()
	if ok {
		return object, nil
	}
	r, err := d.deps.Stage.Deliver(ctx, b)
	if err != nil {
		return object, err
	}
	if len(r.Objects) != 1 || len(r.Failed) > 0 {
		return object, &dest.Error{Code: "InternalError", Message: fmt.Sprintf("staging made %d objects and refused %d records", len(r.Objects), len(r.Failed))}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.staged) >= 10_000 { // batches that were given up on elsewhere
		clear(d.staged)
	}
	d.staged[key] = r.Objects[0]
	return r.Objects[0], nil
}

// manifest is what COPY reads.
type manifest struct {
	Entries []entry `json:"entries"`
}

type entry struct {
	URL       string `json:"url"`
	Mandatory bool   `json:"mandatory"`
}

// putManifest stores the list of a group's objects under a prefix and returns
// its address.
func (d *Destination) putManifest(ctx context.Context, prefix string, group []*load) (address string, size int64, err error) {
	var m manifest
	for _, l := range group {
		m.Entries = append(m.Entries, entry{l.object.Name, true})
	}
	text, err := json.Marshal(m)
	if err != nil {
		return "", 0, err
	}
	b := group[0].batch
	at := time.UnixMilli(b.Oldest).UTC()
	key := prefix + at.Format("2006/01/02/15/") + naming.ObjectName(b.Stream.Name, b.Stream.Version, at, nil, b.ID, "")
	o := objects.PutOptions{Attributes: objects.Attributes{ContentType: "application/json"}}
	if _, err := d.deps.Store.Put(ctx, d.config.Bucket, key, bytes.NewReader(text), int64(len(text)), o); err != nil {
		return "", 0, storeError(err)
	}
	return "s3://" + d.config.Bucket + "/" + key, int64(len(text)), nil
}

// storeError names what went wrong with an object.
func storeError(err error) error {
	var o *objects.Error
	if !errors.As(err, &o) {
		return &dest.Error{Code: "InternalError", Message: err.Error(), Err: err}
	}
	code := "S3." + o.Code
	switch o.Code {
	case objects.CodeAccessDenied:
		code = codes + "S3BucketAccessDenied"
	case objects.CodeNoSuchKey:
		code = codes + "MissingS3File"
	}
	return &dest.Error{Code: code, Message: o.Error(), Err: err}
}

// load runs one COPY.
func (d *Destination) load(ctx context.Context, group []*load) error {
	address, _, err := d.putManifest(ctx, "manifests/", group)
	if err != nil {
		return err
	}
	if d.remote {
		return d.explain(d.database.Exec(ctx, d.statement(address)))
	}
	target := d.target
	if target.Options.Layout == postgres.JSONPaths {
		if target.JSONPaths, err = d.read(ctx, target.Options.JSONPaths); err != nil {
			return err
		}
	}
	files := make([]postgres.File, 0, len(group))
	for _, l := range group {
		files = append(files, postgres.File{Name: l.object.Name, Batch: l.batch, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return d.open(ctx, l.object.Name)
		}})
	}
	_, err = d.database.LoadFiles(ctx, target, files)
	return d.explain(err)
}

func (d *Destination) explain(err error) error {
	if postgres.OfBatch(err) {
		return fmt.Errorf("read the batch: %w", err)
	}
	return d.database.Explain(err)
}

// statement is the COPY of a manifest.
func (d *Destination) statement(manifest string) string {
	var b strings.Builder
	b.WriteString("COPY ")
	b.WriteString(d.config.Table)
	if columns := strings.TrimSpace(d.config.Columns); columns != "" {
		if !strings.HasPrefix(columns, "(") {
			columns = "(" + columns + ")"
		}
		b.WriteString(" " + columns)
	}
	b.WriteString(" FROM " + literal(manifest) + " CREDENTIALS " + literal("aws_iam_role="+d.config.RoleARN) + " MANIFEST")
	if d.config.Options != "" {
		b.WriteString(" " + strings.TrimRight(d.config.Options, "; \n"))
	}
	b.WriteString(";")
	return b.String()
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// split takes an address apart.
func split(address string) (bucket, key string, ok bool) {
	rest, ok := strings.CutPrefix(address, "s3://")
	if !ok {
		return "", "", false
	}
	bucket, key, ok = strings.Cut(rest, "/")
	return bucket, key, ok && bucket != "" && key != ""
}

func (d *Destination) open(ctx context.Context, address string) (io.ReadCloser, error) {
	bucket, key, ok := split(address)
	if !ok {
		return nil, &dest.Error{Code: codes + "MissingS3File", Message: address + " is no address of an object"}
	}
	body, _, err := d.deps.Store.Get(ctx, bucket, key, objects.Range{})
	if err != nil {
		return nil, storeError(err)
	}
	return body, nil
}

// maxPaths bounds a JSONPaths file, in bytes.
const maxPaths = 1 << 20

// read reads a JSONPaths file.
func (d *Destination) read(ctx context.Context, address string) ([]byte, error) {
	body, err := d.open(ctx, address)
	if err != nil {
		var e *dest.Error
		if errors.As(err, &e) && strings.HasSuffix(e.Code, "NoSuchKey") || errors.As(err, &e) && e.Code == codes+"MissingS3File" {
			return nil, &dest.Error{Code: codes + "IncorrectJsonPathsFile", Message: address + ": " + e.Message, Err: err}
		}
		return nil, err
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(io.LimitReader(body, maxPaths+1))
	if err != nil {
		return nil, storeError(err)
	}
	if _, err := postgres.ParseJSONPaths(text); err != nil {
		return nil, &dest.Error{Code: codes + "InvalidJsonPathFormat", Message: address + ": " + err.Error()}
	}
	return text, nil
}

// Abandon implements dest.Abandoner: the batch stays where it was staged, and a
// manifest under errors/ says so.
func (d *Destination) Abandon(ctx context.Context, b *record.Batch, _ error) (dest.Result, error) {
	object, err := d.stage(ctx, b)
	if err != nil {
		return dest.Result{}, err
	}
	address, size, err := d.putManifest(ctx, "errors/manifests/", []*load{{batch: b, object: object}})
	if err != nil {
		return dest.Result{}, err
	}
	d.mu.Lock()
	delete(d.staged, stageKey(b))
	d.mu.Unlock()
	return dest.Result{Objects: []dest.Object{{Name: address, Records: b.Count, Bytes: size}}}, nil
}
