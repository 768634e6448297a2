package iceberg

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest/pgserver"
	"github.com/millrace/millrace/internal/outbound"
)

// restServer answers the part of the REST protocol that destinations use, over
// a catalog of files.
func restServer(t *testing.T, store *desttest.Store, token string) http.Handler {
	tables := &fileTables{warehouse: "s3://lake/rest", store: store}
	refuse := func(w http.ResponseWriter, status int, kind string, err error) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": err.Error(), "type": kind, "code": status}})
	}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	loadTable := func(w http.ResponseWriter, r *http.Request, id table.Identifier) {
		tab, err := tables.load(r.Context(), id[0], id[1])
		if errors.Is(err, errNoTable) {
			refuse(w, http.StatusNotFound, "NoSuchTableException", err)
			return
		}
		if err != nil {
			refuse(w, http.StatusInternalServerError, "InternalServerError", err)
			return
		}
		answer(w, map[string]any{"metadata-location": tab.address, "metadata": tab.meta.raw, "config": map[string]string{"s3.endpoint": "http://elsewhere"}})
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/config", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"defaults": map[string]string{}, "overrides": map[string]string{}})
	})
	m.HandleFunc("POST /v1/namespaces", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusConflict, "AlreadyExistsException", errors.New("it exists"))
	})
	m.HandleFunc("POST /v1/namespaces/{namespace}/tables", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name   string                 `json:"name"`
			Schema *iceberg.Schema        `json:"schema"`
			Spec   *iceberg.PartitionSpec `json:"partition-spec"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			refuse(w, http.StatusBadRequest, "BadRequestException", err)
			return
		}
		id := table.Identifier{r.PathValue("namespace"), in.Name}
		if err := tables.create(r.Context(), id[0], id[1], in.Schema, in.Spec); err != nil {
			refuse(w, http.StatusConflict, "AlreadyExistsException", err)
			return
		}
		loadTable(w, r, id)
	})
	m.HandleFunc("GET /v1/namespaces/{namespace}/tables/{table}", func(w http.ResponseWriter, r *http.Request) {
		loadTable(w, r, table.Identifier{r.PathValue("namespace"), r.PathValue("table")})
	})
	m.HandleFunc("POST /v1/namespaces/{namespace}/tables/{table}", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Requirements []json.RawMessage `json:"requirements"`
			Updates      table.Updates     `json:"updates"`
		}
		raw, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(raw, &in)
		}
		var requirements []table.Requirement
		for _, text := range in.Requirements {
			requirement, parseErr := table.ParseRequirementBytes(text)
			err = errors.Join(err, parseErr)
			requirements = append(requirements, requirement)
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, "BadRequestException", err)
			return
		}
		id := table.Identifier{r.PathValue("namespace"), r.PathValue("table")}
		if err := commitByLibrary(r.Context(), tables, id, requirements, in.Updates); err != nil {
			refuse(w, http.StatusConflict, "CommitFailedException", err)
			return
		}
		loadTable(w, r, id)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			refuse(w, http.StatusUnauthorized, "NotAuthorizedException", errors.New("who are you?"))
			return
		}
		m.ServeHTTP(w, r)
	})
}

// commitByLibrary does a commit the way Apache's library understands it.
func commitByLibrary(ctx context.Context, c *fileTables, id table.Identifier, requirements []table.Requirement, updates []table.Update) error {
	now, version, err := c.last(ctx, id[0], id[1])
	if err != nil {
		return err
	}
	text, err := now.meta.text()
	if err != nil {
		return err
	}
	m, err := table.ParseMetadataBytes(text)
	if err != nil {
		return err
	}
	for _, r := range requirements {
		if err := r.Validate(m); err != nil {
			return err
		}
	}
	if m, err = table.UpdateTableMetadata(m, updates, now.address); err != nil {
		return err
	}
	if text, err = json.Marshal(m); err != nil {
		return err
	}
	next, err := parseMetadata(text)
	if err != nil {
		return err
	}
	return c.write(ctx, c.location(id[0], id[1]), version+1, next)
}

// peer makes a peer of a catalog whose table of events is made through it.
func peer(t *testing.T, c Catalog, deps Deps) *desttest.Peer {
	t.Helper()
	d := open(t, Config{Catalog: c, Tables: []Table{{Database: "db", Name: "events"}}}, deps)
	if err := d.catalog.create(t.Context(), "db", "events", eventSchema, nil); err != nil {
		t.Fatal(err)
	}
	return &desttest.Peer{Destination: d, Stored: func(t *testing.T) []desttest.Entry { return scan(t, d) }}
}

// small is the suite for the slower catalogs.
func small(open func(t *testing.T) *desttest.Peer) desttest.Harness {
	return desttest.Harness{
		Open:        open,
		Refused:     func(int) []byte { return []byte(`{"id":"eleven","text":"x"}`) },
		RefusedCode: codeMismatch,
		Codes:       []string{codes, "S3.", codeCatalogAccess},
		Unordered:   true,
		LargeBytes:  4 << 20, Memory: 64 << 20,
	}
}

func client(t *testing.T) *http.Client {
	t.Helper()
	c, err := outbound.Client(outbound.Options{Policy: outbound.Policy{AllowPrivate: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestContractOverREST(t *testing.T) {
	h := small(func(t *testing.T) *desttest.Peer {
		store := &desttest.Store{}
		server := desttest.NewHTTP(t, restServer(t, store, "open sesame"))
		p := peer(t, Catalog{Type: "rest", URI: server.URL, Token: "open sesame"}, Deps{Store: store, Client: client(t)})
		p.Break = server.Break
		return p
	})
	h.Faults, h.Answers = desttest.HTTPFaults, 8*maxAnswer // metadata is read whole
	desttest.Run(t, h)
}

func TestRESTCatalogThatRefuses(t *testing.T) {
	store := &desttest.Store{}
	server := desttest.NewHTTP(t, restServer(t, store, "open sesame"))
	d := open(t, Config{Catalog: Catalog{Type: "rest", URI: server.URL, Token: "abracadabra"}}, Deps{Store: store, Client: client(t)})
	defer func() { _ = d.Close() }()
	_, err := d.Deliver(t.Context(), batch(0, do{"", `{"id":1}`}))
	var e *dest.Error
	if !errors.As(err, &e) || e.Code != codeCatalogAccess {
		t.Errorf("got %v, want %s", err, codeCatalogAccess)
	}
}

func TestContractOverSQL(t *testing.T) {
	if server == nil {
		t.Skip(pgserver.ErrMissing)
	}
	h := small(func(t *testing.T) *desttest.Peer {
		database := server.Database(t)
		tunnel := desttest.NewTCP(t, server.Addr)
		p := peer(t, Catalog{Type: "sql", DSN: strings.Replace(server.DSN(database), server.Addr, tunnel.Addr, 1), Warehouse: "s3://lake/sql"}, Deps{Store: &desttest.Store{}})
		p.Break = tunnel.Break
		return p
	})
	h.Faults = desttest.TCPFaults
	desttest.Run(t, h)
}

func TestBadConfigurations(t *testing.T) {
	for _, c := range []struct {
		catalog Catalog
		want    string
	}{
		{Catalog{}, `there is no catalog of type ""`},
		{Catalog{Type: "rest"}, "needs its uri"},
		{Catalog{Type: "rest", URI: "http://x"}, "no client"},
		{Catalog{Type: "sql", DSN: "postgres://x"}, "needs dsn and warehouse"},
		{Catalog{Type: "sql", DSN: "postgres://user:secret@:x", Warehouse: "s3://a/b"}, "cannot be parsed"},
		{Catalog{Type: "files", Warehouse: "/tmp/x"}, "no address of an object"},
	} {
		_, err := New(Config{Catalog: c.catalog}, Deps{Store: &desttest.Store{}})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %q", c.catalog, err, c.want)
		}
	}
}
