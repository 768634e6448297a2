package iceberg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// restTables is a REST catalog, asked for its configuration when it is first
// needed.
type restTables struct {
	config Catalog
	deps   Deps

	mu      sync.Mutex
	base    string // with the prefix; empty before the first answer
	token   string
	expires time.Time // zero for a token that does not
}

func (c *restTables) close() { c.deps.Client.CloseIdleConnections() }

// refusedError is an answer that is no success.
type refusedError struct {
	status        int
	kind, message string
}

func (e *refusedError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("the catalog answers %d %s: %s", e.status, e.kind, clip(e.message)), ": ")
}

// access says that the answer is about who asks.
func (e *refusedError) access() bool {
	const expired = 419 // as the protocol has it
	return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden || e.status == expired
}

// open finds out where the catalog's tables are.
func (c *restTables) open(ctx context.Context) (base string, err error) {
	c.mu.Lock()
	base = c.base
	c.mu.Unlock()
	if base != "" {
		return base, nil
	}
	root := strings.TrimRight(c.config.URI, "/")
	address := root + "/v1/config"
	if c.config.Warehouse != "" {
		address += "?warehouse=" + url.QueryEscape(c.config.Warehouse)
	}
	var answer struct {
		Defaults  map[string]string `json:"defaults"`
		Overrides map[string]string `json:"overrides"`
	}
	if err := c.call(ctx, http.MethodGet, address, nil, &answer); err != nil {
		return "", err
	}
	setting := func(name, configured string) string {
		for _, v := range []string{answer.Overrides[name], configured, answer.Defaults[name]} {
			if v != "" {
				return v
			}
		}
		return ""
	}
	base = strings.TrimRight(setting("uri", root), "/") + "/v1"
	if prefix := strings.Trim(setting("prefix", c.config.Prefix), "/"); prefix != "" {
		base += "/" + escapePath(prefix)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base = base
	return base, nil
}

// escapePath escapes what stands between slashes.
func escapePath(path string) string {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// maxAnswer bounds an answer of a REST catalog, in bytes; metadata of a table
// with many snapshots takes megabytes.
const maxAnswer = 32 << 20

// maxRefusal bounds what is read of an answer that is no success.
const maxRefusal = 64 << 10

// call sends a request and reads the answer. A token that has become invalid is
// renewed once.
func (c *restTables) call(ctx context.Context, method, address string, in, out any) error {
	err := c.once(ctx, method, address, in, out)
	var refused *refusedError
	if c.config.Credential != "" && errors.As(err, &refused) && refused.access() && refused.status != http.StatusForbidden {
		c.mu.Lock()
		c.token = ""
		c.mu.Unlock()
		err = c.once(ctx, method, address, in, out)
	}
	return err
}

func (c *restTables) once(ctx context.Context, method, address string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if err := c.authorize(ctx, request, body); err != nil {
		return err
	}
	return c.send(request, out)
}

// send does one request.
func (c *restTables) send(request *http.Request, out any) error {
	reply, err := c.deps.Client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode < 200 || reply.StatusCode > 299 {
		refused := &refusedError{status: reply.StatusCode, kind: http.StatusText(reply.StatusCode)}
		text, err := io.ReadAll(io.LimitReader(reply.Body, maxRefusal))
		var said struct {
			Error json.RawMessage `json:"error"` // of OAuth: a string
			Text  string          `json:"error_description"`
		}
		var detail struct {
			Message string `json:"message"`
			Type    string `json:"type"`
		}
		if err == nil && json.Unmarshal(text, &said) == nil {
			if json.Unmarshal(said.Error, &detail) == nil && detail.Type != "" {
				refused.kind = detail.Type
			}
			refused.message = detail.Message + said.Text
		}
		return refused
	}
	if out == nil {
		return nil
	}
	body := &io.LimitedReader{R: reply.Body, N: maxAnswer + 1}
	text, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read the catalog's answer: %w", err)
	}
	if body.N == 0 {
		return &refusedError{status: reply.StatusCode, kind: "with too much", message: fmt.Sprintf("more than %d MiB", maxAnswer>>20)}
	}
	if err := json.Unmarshal(text, out); err != nil {
		return &refusedError{status: reply.StatusCode, kind: "with what cannot be read", message: err.Error()}
	}
	return nil
}

// authorize shows the catalog who asks.
func (c *restTables) authorize(ctx context.Context, r *http.Request, body []byte) error {
	switch {
	case c.config.Token != "":
		r.Header.Set("Authorization", "Bearer "+c.config.Token)
	case c.config.Credential != "":
		token, err := c.login(ctx)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	case c.config.SigV4.Region != "":
		credentials, err := c.deps.Credentials(ctx)
		if err != nil {
			return fmt.Errorf("credentials of the catalog: %w", err)
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:])
		r.Header.Set("X-Amz-Content-Sha256", hash)
		return v4.NewSigner().SignHTTP(ctx, credentials, r, hash, c.config.SigV4.Service, c.config.SigV4.Region, time.Now())
	}
	return nil
}

// early is how long before its end a token is renewed.
const early = time.Minute

// login answers a token, by way of the client credentials of OAuth 2.
func (c *restTables) login(ctx context.Context) (string, error) {
	c.mu.Lock()
	token, expires := c.token, c.expires
	c.mu.Unlock()
	if token != "" && (expires.IsZero() || time.Now().Before(expires)) {
		return token, nil
	}
	address := c.config.AuthURI
	if address == "" {
		address = strings.TrimRight(c.config.URI, "/") + "/v1/oauth/tokens"
	}
	id, secret, ok := strings.Cut(c.config.Credential, ":")
	if !ok {
		id, secret = "", id
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_secret": {secret}, "scope": {"catalog"}}
	if id != "" {
		form.Set("client_id", id)
	}
	if c.config.Scope != "" {
		form.Set("scope", c.config.Scope)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	var refused *refusedError
	if err := c.send(request, &answer); errors.As(err, &refused) && refused.status == http.StatusBadRequest {
		return "", &refusedError{http.StatusUnauthorized, refused.kind, refused.message} // as OAuth has it
	} else if err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", &refusedError{http.StatusUnauthorized, "without a token", ""}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.expires = answer.Token, time.Time{}
	if s := answer.Seconds; s > 0 && s < 1<<31 {
		c.expires = time.Now().Add(max(time.Duration(s)*time.Second-early, time.Second))
	}
	return c.token, nil
}

// found is how a catalog shows a table.
type found struct {
	Address  string                     `json:"metadata-location"`
	Metadata map[string]json.RawMessage `json:"metadata"`
}

func (f *found) table(database, name string) (*state, error) {
	m, err := newMetadata(f.Metadata)
	if err != nil {
		return nil, &refusedError{http.StatusOK, "with metadata that cannot be read", err.Error()}
	}
	return &state{database, name, f.Address, m}, nil
}

func (c *restTables) table(ctx context.Context, method, database, name string, in any) (*state, error) {
	base, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	var answer found
	err = c.call(ctx, method, base+"/namespaces/"+url.PathEscape(database)+"/tables/"+url.PathEscape(name), in, &answer)
	var refused *refusedError
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s.%s", errNoTable, database, name)
	case errors.As(err, &refused) && refused.status == http.StatusConflict:
		return nil, fmt.Errorf("%w: %w", errCommit, err)
	case err != nil:
		return nil, err
	}
	return answer.table(database, name)
}

func (c *restTables) load(ctx context.Context, database, name string) (*state, error) {
	return c.table(ctx, http.MethodGet, database, name, nil)
}

func (c *restTables) commit(ctx context.Context, t *state, change commit) (*state, error) {
	return c.table(ctx, http.MethodPost, t.database, t.name, struct {
		Identifier map[string]any `json:"identifier"`
		commit
	}{map[string]any{"namespace": []string{t.database}, "name": t.name}, change})
}

func (c *restTables) create(ctx context.Context, database, name string, schema *iceberg.Schema, spec *iceberg.PartitionSpec) error {
	base, err := c.open(ctx)
	if err != nil {
		return err
	}
	schema, spec, err = number(schema, spec)
	if err != nil {
		return err
	}
	exists := func(err error) bool {
		var refused *refusedError
		return errors.As(err, &refused) && refused.status == http.StatusConflict
	}
	err = c.call(ctx, http.MethodPost, base+"/namespaces", map[string]any{"namespace": []string{database}, "properties": map[string]string{}}, nil)
	if err != nil && !exists(err) {
		return err
	}
	err = c.call(ctx, http.MethodPost, base+"/namespaces/"+url.PathEscape(database)+"/tables", map[string]any{
		"name": name, "schema": schema, "partition-spec": spec, "properties": map[string]string{"format-version": "2"},
	}, nil)
	if exists(err) {
		return fmt.Errorf("%w: %w", errTableExists, err)
	}
	return err
}
