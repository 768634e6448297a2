package snowflake

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/record"
	"github.com/millrace/millrace/internal/outbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anywhere = outbound.Policy{AllowPrivate: true}

// key is the user's, made once: it takes a while.
var key = sync.OnceValues(func() (*rsa.PrivateKey, string) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return k, base64.StdEncoding.EncodeToString(der)
})

// account is an account of Snowflake as its documentation tells: tokens, one
// pipe, channels with continuation and offset tokens, and rows that become
// visible some time after they were taken.
type account struct {
	t *testing.T

	mu       sync.Mutex
	tokens   int
	channels map[string]*remote
	rows     []string
	discard  bool
	count    int
	// lag is how many questions about a channel are answered before its rows are
	// committed.
	lag int
	// refuse tells rows that the table does not take, by the reason.
	refuse func(row string) string
	// spoil answers instead; an empty reply leaves it to the account.
	spoil func(q *http.Request) (status int, reply string)
	seen  []string
}

// remote is a channel over there.
type remote struct {
	sequencer         int // counts openings
	rowSequencer      int
	committed         string
	errors            int
	lastError, atMost string
	pending           []pending
	asked             int
}

type pending struct {
	rows  []string
	token string
}

func (r *remote) status(name string) map[string]any {
	return map[string]any{
		"database_name": "DB", "schema_name": "PUBLIC", "pipe_name": "T-STREAMING", "channel_name": name, "channel_status_code": "SUCCESS",
		"last_committed_offset_token": r.committed, "created_on_ms": 1783951509000, "rows_inserted": 1, "rows_parsed": 1,
		"rows_error_count": r.errors, "last_error_offset_upper_bound": r.atMost, "last_error_message": r.lastError, "snowflake_avg_processing_latency_ms": 7,
	}
}

func (a *account) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	reply := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(status int, code, message string) {
		reply(status, map[string]string{"code": code, "message": message})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, q.Method+" "+q.URL.EscapedPath())
	if a.spoil != nil {
		if status, text := a.spoil(q); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
			return
		}
	}
	bearer, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	switch q.URL.Path {
	case "/v2/streaming/hostname", "/oauth/token":
		if q.Header.Get("X-Snowflake-Authorization-Token-Type") != "KEYPAIR_JWT" || a.verify(bearer) != nil {
			refuse(401, "390144", fmt.Sprintf("JWT token is invalid. %v", a.verify(bearer)))
			return
		}
		if q.URL.Path == "/v2/streaming/hostname" {
			host, _, _ := strings.Cut(q.Host, ":")
			reply(200, map[string]string{"hostname": host})
			return
		}
		if q.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || q.FormValue("scope") != q.Host {
			refuse(400, "invalid_request", "grant type or scope")
			return
		}
		a.tokens++
		reply(200, map[string]string{"token": fmt.Sprint("scoped-", a.tokens)})
		return
	}
	if bearer != fmt.Sprint("scoped-", a.tokens) {
		refuse(401, "390303", "Invalid OAuth access token.")
		return
	}
	const pipe = "/databases/DB/schemas/PUBLIC/pipes/T-STREAMING"
	rest, ok := strings.CutPrefix(q.URL.Path, "/v2/streaming"+pipe)
	data, isData := strings.CutPrefix(q.URL.Path, "/v2/streaming/data"+pipe)
	name, opens := strings.CutPrefix(rest, "/channels/")
	switch {
	case isData && q.Method == http.MethodPost:
		name := strings.TrimSuffix(strings.TrimPrefix(data, "/channels/"), "/rows")
		a.append(w, q, name, reply, refuse)
	case ok && opens && q.Method == http.MethodPut:
		c := a.channels[name]
		if c == nil {
			if a.channels == nil {
				a.channels = map[string]*remote{}
			}
			c = &remote{}
			a.channels[name] = c
		}
		c.sequencer++
		c.rowSequencer, c.pending = 0, nil // what is under way is discarded
		reply(200, map[string]any{"next_continuation_token": c.continuation(), "channel_status": c.status(name)})
	case rest == ":bulk-channel-status" && q.Method == http.MethodPost:
		var in struct {
			Names []string `json:"channel_names"`
		}
		_ = json.NewDecoder(q.Body).Decode(&in)
		statuses := map[string]any{}
		for _, name := range in.Names {
			if c := a.channels[name]; c != nil {
				if c.asked++; c.asked > a.lag {
					a.commit(c)
				}
				statuses[name] = c.status(name)
			}
		}
		reply(200, map[string]any{"channel_statuses": statuses})
	default:
		refuse(404, "ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", "no such pipe "+q.URL.Path)
	}
}

func (r *remote) continuation() string { return fmt.Sprintf("%d_%d", r.sequencer, r.rowSequencer) }

func (a *account) append(_ http.ResponseWriter, q *http.Request, name string, reply func(int, any), refuse func(int, string, string)) {
	c := a.channels[name]
	if c == nil || q.URL.Query().Get("continuationToken") != c.continuation() {
		refuse(400, "STALE_CONTINUATION_TOKEN_SEQUENCER", "Channel sequencer in the continuation token is stale. Please reopen the channel")
		return
	}
	body := io.Reader(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(q.Body)
		if err != nil {
			refuse(400, "INVALID_PAYLOAD", err.Error())
			return
		}
		body = z
	}
	var rows []string
	size := 0
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		row := lines.Text()
		size += len(row) + 1
		var object map[string]any
		if json.Unmarshal([]byte(row), &object) != nil {
			a.t.Errorf("a row is %q", row)
		}
		rows = append(rows, row)
	}
	if lines.Err() != nil {
		return // the client gave up
	}
	if size > 4_000_000 || q.Header.Get("Content-Type") != "application/x-ndjson" {
		a.t.Errorf("%d bytes of rows as %s", size, q.Header.Get("Content-Type"))
	}
	c.rowSequencer++
	c.asked = 0
	c.pending = append(c.pending, pending{rows, q.URL.Query().Get("endOffsetToken")})
	reply(200, map[string]string{"next_continuation_token": c.continuation()})
}

func (a *account) commit(c *remote) {
	for _, p := range c.pending {
		for _, row := range p.rows {
			if a.refuse != nil {
				if why := a.refuse(row); why != "" {
					c.errors++
					c.lastError, c.atMost = why, p.token
					continue
				}
			}
			a.count++
			if !a.discard {
				a.rows = append(a.rows, row)
			}
		}
		c.committed = p.token
	}
	c.pending = nil
}

// verify checks a token as the account does.
func (a *account) verify(token string) error {
	k, _ := key()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("not a token")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&k.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		return err
	}
	var claims struct {
		Iss, Sub string
		Iat, Exp int64
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	if err := json.Unmarshal(raw, &claims); err != nil {
		return err
	}
	der, _ := x509.MarshalPKIXPublicKey(&k.PublicKey)
	fingerprint := sha256.Sum256(der)
	want := "AB12345.WRITER"
	if claims.Sub != want || claims.Iss != want+".SHA256:"+base64.StdEncoding.EncodeToString(fingerprint[:]) {
		return fmt.Errorf("subject %s, issuer %s", claims.Sub, claims.Iss)
	}
	if claims.Exp-claims.Iat > 3600 || claims.Exp <= claims.Iat {
		return errors.New("lifetime")
	}
	return nil
}

func (a *account) stored() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.rows)
}

func config(address string) Config {
	_, text := key()
	return Config{
		AccountURL: "https://ab12345.eu-central-1.snowflakecomputing.com", URL: address, User: "writer", PrivateKey: text,
		Database: "DB", Schema: "PUBLIC", Table: "T",
	}
}

func open(t *testing.T, c Config) *Destination {
	t.Helper()
	d, err := New(c, Deps{Policy: anywhere})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func serve(t *testing.T, a *account) string {
	t.Helper()
	a.t = t
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s.URL
}

func TestContract(t *testing.T) {
	desttest.Run(t, desttest.Harness{
		Open: func(t *testing.T) *desttest.Peer {
			a := &account{t: t, lag: 1}
			server := desttest.NewHTTP(t, a)
			d, err := New(config(server.URL), Deps{Policy: anywhere})
			if err != nil {
				t.Fatal(err)
			}
			return &desttest.Peer{
				Destination: d,
				Stored:      func(t *testing.T) []desttest.Entry { return desttest.Parse(t, []byte(strings.Join(a.stored(), "\n"))) },
				Break:       server.Break,
				Discard: func() func() int {
					a.mu.Lock()
					a.discard = true
					a.mu.Unlock()
					return func() int { a.mu.Lock(); defer a.mu.Unlock(); return a.count }
				},
			}
		},
		Refused:     func(n int) []byte { return fmt.Appendf(nil, `[%d]`, n) },
		RefusedCode: "Snowflake.InvalidInput",
		Codes:       []string{"Snowflake."},
		// A batch that went through is known by its token only until the next one.
		Duplicates: true,
		Faults:     desttest.HTTPFaults,
		Memory:     96 << 20, // the peer decodes rows
	})
}

// lane is one with a given name.
func batchOf(id int, first int, texts ...string) *record.Batch {
	var records []record.Record
	for i, text := range texts {
		records = append(records, record.Record{
			Data: []byte(text), Lane: desttest.Lane("shardId-000000000003"), Arrival: desttest.Arrival,
			Position: record.Position{Index: uint64(first + i)}, PartitionKey: []byte("k"),
		})
	}
	return record.Of(desttest.Stream, desttest.ID(id), records...)
}

func numbered(from, to int) []string {
	var list []string
	for n := from; n < to; n++ {
		list = append(list, fmt.Sprintf(`{"n":%d}`, n))
	}
	return list
}

func TestRows(t *testing.T) {
	for _, c := range []struct {
		name    string
		mapping Mapping
		source  string
		record  string
		want    string // empty: refused
	}{
		{"as it is", JSONMapping, "", `{"A":1,"b":"<&>"}`, `{"A":1,"b":"<&>"}`},
		{"in one line", JSONMapping, "", " {\"A\":\n 1}\r\n", `{"A":1}`},
		{"a list", JSONMapping, "", `[1]`, ""},
		{"two objects", JSONMapping, "", `{"A":1}{"A":2}`, ""},
		{"a text", JSONMapping, "", `"A"`, ""},
		{"nothing", JSONMapping, "", ``, ""},
		{"not closed", JSONMapping, "", `{"A":1`, ""},
		{"not UTF-8", JSONMapping, "", "{\"A\":\"\xff\"}", ""},
		{"in a column", ContentMapping, "", `{"A":1}`, `{"C\"1":{"A":1}}`},
		{"in a column, refused", ContentMapping, "", `{"A":}`, ""},
		{"with its origin", MetadataMapping, "", `{"A":1}`, `{"C\"1":{"A":1},"M":{"firehoseDeliveryStreamName":"suite","IngestionTime":1783951509000}}`},
		{"with its origin in a stream", MetadataMapping, "arn:aws:kinesis:us-east-1:000000000000:stream/source", `{"A":1}`,
			`{"C\"1":{"A":1},"M":{"kinesisStreamName":"source","kinesisShardId":"shardId-000000000003","kinesisPartitionKey":"k","kinesisSequenceNumber":"` +
				fmt.Sprintf("4%055d", 7) + `","subsequenceNumber":0,"IngestionTime":1783951509000}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &account{}
			k := config(serve(t, a))
			k.Mapping, k.ContentColumn, k.MetadataColumn = c.mapping, `C"1`, "M"
			b := batchOf(1, 7, c.record)
			b.Stream.SourceARN = c.source
			r, err := open(t, k).Deliver(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				if len(r.Failed) != 1 || r.Failed[0].Code != "Snowflake.InvalidInput" || r.Failed[0].Retry || len(a.rows) > 0 {
					t.Errorf("%+v, %q", r.Failed, a.rows)
				}
				return
			}
			if len(r.Failed) > 0 || !slices.Equal(a.rows, []string{c.want}) {
				t.Errorf("got %q, %+v", a.rows, r.Failed)
			}
		})
	}
}

// TestNothingTwice: whatever an attempt stumbles over, and whoever makes the next
// one, a row is there once.
func TestNothingTwice(t *testing.T) {
	for _, c := range []struct {
		name string
		// after is the request, counted from the end of the login, that fails; the
		// account has carried it out if done.
		after int
		done  bool
		lag   int
	}{
		{"opening", 1, false, 0},
		{"opening, answer lost", 1, true, 0},
		{"the first rows", 2, false, 0},
		{"the first rows, answer lost", 2, true, 0},
		{"later rows", 3, false, 0},
		{"later rows, answer lost", 3, true, 0},
		{"the question", 5, false, 0},
		{"the question, slow commit", 6, true, 3},
	} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, other life=%v", c.name, again), func(t *testing.T) {
				a := &account{lag: c.lag}
				address := serve(t, a)
				inner := a
				n := 0
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if strings.Contains(q.URL.Path, "/pipes/") {
						n++
					}
					if n == c.after && strings.Contains(q.URL.Path, "/pipes/") {
						if c.done {
							inner.ServeHTTP(httptest.NewRecorder(), q)
						} else {
							_, _ = io.Copy(io.Discard, q.Body)
						}
						http.Error(w, "lost", http.StatusBadGateway)
						return
					}
					inner.ServeHTTP(w, q)
				}))
				defer proxy.Close()
				_ = address
				const most = 100 // rows of a request
				life := func() *Destination { d := open(t, config(proxy.URL)); d.most = most; return d }
				d := life()
				rows := numbered(0, 3*most-5) // three requests
				b := batchOf(1, 100, rows...)
				if _, err := d.Deliver(t.Context(), b); err == nil {
					t.Fatal("Deliver succeeded")
				}
				if again {
					d = life()
				}
				r, err := d.Deliver(t.Context(), b)
				if err != nil || len(r.Failed) > 0 {
					t.Fatalf("%v, %d failed", err, len(r.Failed))
				}
				if got := a.stored(); !slices.Equal(got, rows) {
					t.Errorf("%d rows are there, want %d", len(got), len(rows))
				}
				// A third time, as after a crash before the checkpoint.
				if r, err = life().Deliver(t.Context(), b); err != nil || len(r.Failed) > 0 || len(a.stored()) != len(rows) {
					t.Errorf("once more: %v, %d rows", err, len(a.stored()))
				}
				// The batch may be longer in another life: it begins at the same place.
				longer := batchOf(1, 100, append(slices.Clone(rows), numbered(3*most-5, 3*most)...)...)
				if _, err = life().Deliver(t.Context(), longer); err != nil || len(a.stored()) != len(rows)+5 {
					t.Errorf("longer: %v, %d rows", err, len(a.stored()))
				}
			})
		}
	}
}

// Rows that the table refuses are reported, and the groups that they may be in
// become small.
func TestRowsThatTheTableRefuses(t *testing.T) {
	a := &account{refuse: func(row string) string {
		if strings.Contains(row, "bad") {
			return "Extra column: bad"
		}
		return ""
	}}
	d := open(t, config(serve(t, a)))
	rows := numbered(0, 1000)
	rows[500] = `{"bad":1}`
	r, err := d.Deliver(t.Context(), batchOf(1, 0, rows...))
	if err != nil || len(r.Failed) != 1000 || r.Failed[0].Code != "Snowflake.ExtraColumns" || r.Failed[0].Retry {
		t.Fatalf("%v, %d failed", err, len(r.Failed))
	}
	if !strings.Contains(r.Failed[0].Message, "1 of the 1000 rows") || !strings.Contains(r.Failed[0].Message, "Extra column: bad") {
		t.Error(r.Failed[0].Message)
	}
	// Now it is careful: the neighbours of a bad row are few.
	for n := range 6 {
		r, err = d.Deliver(t.Context(), batchOf(2+n, 1000+1000*n, rows...))
		if err != nil || len(r.Failed) == 0 || len(r.Failed) >= 1000 {
			t.Fatalf("%v, %d failed", err, len(r.Failed))
		}
		found := false
		for _, f := range r.Failed {
			found = found || f.Index == 500
		}
		if !found {
			t.Error("the bad row is not among the failed")
		}
	}
	if n := len(r.Failed); n > 300 {
		t.Errorf("after some batches still %d rows are failed for one", n)
	}
	// And bold again when all is well.
	for n := range 40 {
		if r, err = d.Deliver(t.Context(), batchOf(20+n, 100_000+1000*n, numbered(0, 1000)...)); err != nil || len(r.Failed) > 0 {
			t.Fatalf("%v, %d failed", err, len(r.Failed))
		}
	}
	a.mu.Lock()
	a.seen = nil
	a.mu.Unlock()
	if _, err = d.Deliver(t.Context(), batchOf(99, 200_000, numbered(0, 1000)...)); err != nil {
		t.Fatal(err)
	}
	if len(a.seen) > 4 {
		t.Errorf("a thousand good rows take %d requests", len(a.seen))
	}
}

// An attempt that dies after rows were refused leaves the knowledge in the
// token: nothing is silently gone.
func TestRefusedRowsAreNotForgotten(t *testing.T) {
	a := &account{refuse: func(row string) string {
		if row == `{"n":3}` {
			return "Numeric value 'x' is not recognized"
		}
		return ""
	}}
	address := serve(t, a)
	first := batchOf(1, 0, numbered(0, 5)...)
	if _, err := open(t, config(address)).Deliver(t.Context(), batchOf(9, 1000, `{"n":3}`)); err != nil { // of an earlier batch
		t.Fatal(err)
	}
	if _, err := open(t, config(address)).Deliver(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	// Another life delivers the same batch: its rows are there, except for one.
	r, err := open(t, config(address)).Deliver(t.Context(), first)
	if err != nil || len(r.Failed) != 5 || r.Failed[0].Code != "Snowflake.IncorrectValue" || r.Failed[0].Retry {
		t.Errorf("%v, %+v", err, r.Failed)
	}
	if n := len(a.stored()); n != 4 {
		t.Errorf("%d rows are there", n)
	}
	// A batch without a fault on the same channel is not blamed for it.
	clean := batchOf(2, 100, numbered(10, 15)...)
	for range 2 {
		if r, err := open(t, config(address)).Deliver(t.Context(), clean); err != nil || len(r.Failed) > 0 {
			t.Errorf("%v, %+v", err, r.Failed)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		path   string // of the request that is answered so
		status int
		reply  string
		want   string
	}{
		{"a key that is not known", "/hostname", 401, `{"code":"390144","message":"JWT token is invalid."}`, "Snowflake.InvalidPrivateKeyOrPassphrase, for good"},
		{"a user that is not known", "/hostname", 401, `{"code":"390100","message":"Incorrect username"}`, "Snowflake.InvalidUser, for good"},
		{"a role that is not granted", "/oauth/token", 403, `{"message":"The requested role is not granted"}`, "Snowflake.InvalidRole, for good"},
		{"no such account", "/hostname", 404, `<html>`, "Snowflake.InvalidUrl, for good"},
		{"moved", "/hostname", 302, ``, "Snowflake.InvalidUrl, for good"},
		{"out of order", "/hostname", 503, ``, "Snowflake.ServiceUnavailable"},
		{"no host name", "/hostname", 200, `{}`, "Snowflake.InvalidResponse"},
		{"a host name with a path", "/hostname", 200, `{"hostname":"a.test/x"}`, "Snowflake.InvalidResponse"},
		{"a host name that is not allowed", "/hostname", 200, `169.254.169.254`, ""}, // refused when connecting
		{"no token", "/oauth/token", 200, `{}`, "Snowflake.InvalidResponse"},
		{"a token that is none", "/oauth/token", 200, "a\nb", "Snowflake.InvalidResponse"},
		{"no table", "/channels/", 404, `{"code":"ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED","message":"no"}`, "Snowflake.InvalidTable, for good"},
		{"no pipe", "/channels/", 404, `{"code":"ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED","message":"no"}`, "Snowflake.InvalidTable, for good"},
		{"no database", "/channels/", 404, `{"code":"ERR_DATABASE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED","message":"no"}`, "Snowflake.InvalidDatabase, for good"},
		{"no schema", "/channels/", 404, `{"code":"ERR_SCHEMA_DOES_NOT_EXIST_OR_NOT_AUTHORIZED","message":"no"}`, "Snowflake.InvalidSchema, for good"},
		{"a kind of table", "/channels/", 400, `{"code":"ERR_TABLE_TYPE_NOT_SUPPORTED","message":"no"}`, "Snowflake.InvalidTableType, for good"},
		{"somebody else opens it", "/channels/", 409, `{"error_code":"ERR_OPEN_CHANNEL_IN_PROGRESS"}`, "Snowflake.ChannelInvalid"},
		{"not allowed", "/channels/", 403, ``, "Snowflake.InvalidRole, for good"},
		{"no continuation", "/channels/", 200, `{"channel_status":{}}`, "Snowflake.InvalidResponse"},
		{"no status", "/channels/", 200, `{"next_continuation_token":"a"}`, "Snowflake.InvalidResponse"},
		{"a channel in trouble", "/channels/", 200, `{"next_continuation_token":"a","channel_status":{"channel_status_code":"ERR_CHANNEL_MUST_BE_REOPENED"}}`, "Snowflake.ChannelInvalid"},
		{"a token at its end", "/rows", 401, ``, "Snowflake.InvalidUser"},
		{"stale", "/rows", 400, `{"code":"STALE_CONTINUATION_TOKEN_SEQUENCER","message":"Please reopen the channel"}`, "Snowflake.ChannelInvalid"},
		{"too fast", "/rows", 429, ``, "Snowflake.Throttled"},
		{"a row that is none", "/rows", 400, `{"code":"INVALID_PAYLOAD","message":"no"}`, "Snowflake.InvalidInput, for good"},
		{"no further token", "/rows", 200, `{}`, "Snowflake.InvalidResponse"},
		{"no content", "/rows", 204, ``, "Snowflake.InvalidResponse"},
		{"another channel", ":bulk-channel-status", 200, `{"channel_statuses":{"other":{}}}`, "Snowflake.InvalidResponse"},
		{"no JSON", ":bulk-channel-status", 200, `OK`, "Snowflake.InvalidResponse"},
		{"an endless answer", ":bulk-channel-status", 200, strings.Repeat(" ", 2<<20), "Snowflake.InvalidResponse"},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := true
			a := &account{spoil: func(q *http.Request) (int, string) {
				path := q.URL.Path
				if broken && (strings.HasSuffix(path, c.path) || c.path == "/channels/" && q.Method == http.MethodPut) {
					return c.status, c.reply
				}
				return 0, ""
			}}
			d := open(t, config(serve(t, a)))
			b := batchOf(1, 0, numbered(0, 3)...)
			_, err := d.Deliver(t.Context(), b)
			var e *dest.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			got := e.Code
			if e.Permanent {
				got += ", for good"
			}
			if got != c.want && c.want != "" {
				t.Errorf("got %s: %s; want %s", got, e.Message, c.want)
			}
			broken = false
			if r, err := d.Deliver(t.Context(), b); err != nil || len(r.Failed) > 0 || len(a.stored()) != 3 {
				t.Errorf("afterwards: %v, %d rows", err, len(a.stored()))
			}
		})
	}
}

func TestCommitThatNeverComes(t *testing.T) {
	a := &account{lag: 1 << 30}
	c := config(serve(t, a))
	c.CommitTimeout = 250 * time.Millisecond
	_, err := open(t, c).Deliver(t.Context(), batchOf(1, 0, numbered(0, 3)...))
	var e *dest.Error
	if !errors.As(err, &e) || e.Code != "Snowflake.CommitTimeout" || e.Permanent {
		t.Errorf("got %v", err)
	}
}

type secrets map[string]string

func (s secrets) Resolve(context.Context, string) (map[string]string, error) {
	if s == nil {
		return nil, errors.New("no such secret")
	}
	return s, nil
}

func TestSecretsAndSessions(t *testing.T) {
	a := &account{}
	c := config(serve(t, a))
	s := secrets{"user": "WRITER", "private_key": c.PrivateKey}
	c.User, c.PrivateKey, c.Secret = "other", "other", "arn:s"
	d, err := New(c, Deps{Policy: anywhere, Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for n := range 3 {
		if _, err := d.Deliver(t.Context(), batchOf(n, n, `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	if a.tokens != 1 {
		t.Errorf("%d logins for three batches", a.tokens)
	}
	s["user"] = "NOBODY" // another login: the session ends
	var e *dest.Error
	if _, err := d.Deliver(t.Context(), batchOf(7, 7, `{}`)); !errors.As(err, &e) || e.Code != "Snowflake.InvalidPrivateKeyOrPassphrase" {
		t.Errorf("another user: %v", err)
	}
	for _, broken := range []secrets{nil, {}, {"user": "WRITER", "private_key": "x"}} {
		d, err := New(c, Deps{Policy: anywhere, Secrets: broken})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Deliver(t.Context(), batchOf(1, 0, `{}`)); !errors.As(err, &e) {
			t.Errorf("%v: %v", broken, err)
		}
		_ = d.Close()
	}
}

// Lanes are independent: their channels are open at the same time, after one
// login.
func TestLanesAtTheSameTime(t *testing.T) {
	a := &account{lag: 2}
	d := open(t, config(serve(t, a)))
	var group sync.WaitGroup
	for n := range 8 {
		b := batchOf(n, 0, numbered(n*10, n*10+10)...)
		b.Lane = desttest.Lane(fmt.Sprint("lane", n))
		group.Go(func() {
			if r, err := d.Deliver(t.Context(), b); err != nil || len(r.Failed) > 0 {
				t.Errorf("lane %d: %v, %d failed", n, err, len(r.Failed))
			}
		})
	}
	group.Wait()
	if got := a.stored(); len(got) != 80 || a.tokens != 1 || len(a.channels) != 8 {
		t.Errorf("%d rows, %d logins, %d channels", len(got), a.tokens, len(a.channels))
	}
	// One who waits for a channel can give up.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := batchOf(9, 0, `{}`)
	c, err := d.borrow(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Deliver(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.busy <- struct{}{}
}

func TestChannelNames(t *testing.T) {
	s := desttest.Stream
	if got, want := channelName(s, "shardId-000000000003", ""), "firehose_000000000000_us-east-1_suite_shardId-000000000003"; got != want {
		t.Errorf("got %s", got)
	}
	s.Name = "a.b c"
	if got, want := channelName(s, "7", "year=2026/"), "firehose_000000000000_us-east-1_a_b_c_7_year_2026_"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestHosts(t *testing.T) {
	for _, c := range []struct{ base, host, want string }{
		{"https://ab12345.snowflakecomputing.com", "AB_12345.ingest.snowflakecomputing.com", "https://ab-12345.ingest.snowflakecomputing.com"},
		{"http://127.0.0.1:5401", "127.0.0.1", "http://127.0.0.1:5401"},
		{"https://a.test", "a.test:444", "https://a.test:444"},
		{"https://a.test", "", ""}, {"https://a.test", "a/b", ""}, {"https://a.test", "a@b", ""}, {"https://a.test", "a?b", ""},
	} {
		base, _ := url.Parse(c.base)
		got, err := ingestHost(base, c.host)
		if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	for address, want := range map[string]string{
		"https://ab12345.eu-central-1.aws.snowflakecomputing.com": "AB12345", "https://org-acct.snowflakecomputing.com": "ORG-ACCT",
		"https://acct-x1.global.snowflakecomputing.com": "ACCT", "https://ab12345.snowflakecomputing.com:443/": "AB12345", "%": "",
	} {
		if got := accountOf(address); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	token := func(exp int64) string {
		return "x." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp)) + ".y"
	}
	for text, want := range map[string]time.Duration{
		"opaque": tokenLife, "a.b.c": tokenLife, token(0): tokenLife, token(now.Unix() + 100_000): tokenLife,
		token(now.Unix() + 600): 9 * time.Minute, token(now.Unix() - 10): -70 * time.Second,
	} {
		if got := expiry(text, now).Sub(now); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// TestRecordedReplies decodes what servers have answered; testdata/README.md says
// which.
func TestRecordedReplies(t *testing.T) {
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, name := range []string{"open.documented.json", "open.snowduck.json"} {
		continuation, s, err := decodeOpen(read(name))
		if err != nil || continuation == "" || s.refused() < 0 {
			t.Errorf("%s: %q, %+v, %v", name, continuation, s, err)
		}
	}
	for name, want := range map[string]channelStatus{
		"status.documented.json": {StatusCode: "ACTIVE", Committed: "b/7.0/0", RowErrors: 0, RowsErrors: 2, ErrorBound: "b/5.0/0", ErrorMessage: "Numeric value 'abc' is not recognized"},
		"status.snowduck.json":   {StatusCode: "ACTIVE", Committed: "b/2.0/0"},
	} {
		got, err := decodeStatus(read(name), "millrace_c")
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	f := decodeFault(read("stale.documented.json"))
	if f.code() != "STALE_CONTINUATION_TOKEN_SEQUENCER" || f.Message == "" {
		t.Errorf("%+v", f)
	}
	if f := decodeFault(read("stale.snowduck.json")); f.code() != "STALE_CONTINUATION_TOKEN_SEQUENCER" {
		t.Errorf("%+v", f)
	}
	if got := textOr(read("hostname.snowduck.txt"), "hostname"); got != "127.0.0.1" {
		t.Errorf("host name %q", got)
	}
}

func TestRefusals(t *testing.T) {
	for message, want := range map[string]string{
		"Extra column: foo": "Snowflake.ExtraColumns", "Missing required column ID": "Snowflake.MissingColumns", "NULL result in a non-nullable column": "Snowflake.MissingColumns",
		"Numeric value 'abc' is not recognized": "Snowflake.IncorrectValue", "Failed to cast variant value": "Snowflake.IncorrectValue",
		"column of another kind": "Snowflake.InvalidColumns", "": "Snowflake.InvalidInput",
	} {
		if got, text := refusal(message); got != want || text == "" {
			t.Errorf("%s: %s, want %s", message, got, want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no recorded replies")
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if token, s, err := decodeOpen(body); err == nil && (token == "" || s.refused() < 0) {
			t.Errorf("%q: %q, %+v", body, token, s)
		}
		if s, err := decodeStatus(body, "millrace_c"); err == nil && s.refused() < 0 {
			t.Errorf("%q: %+v", body, s)
		}
		if m := decodeFault(body).Message; len(m) > 4000 {
			t.Errorf("a message of %d bytes", len(m))
		}
		_ = textOr(body, "token")
		_ = expiry(string(body), time.Unix(0, 0))
		_, _ = ingestHost(&url.URL{Scheme: "https", Host: "a"}, string(body))
		a := &attempt{channel: &channel{committed: string(body)}, batch: record.Of(record.Stream{}, "b")}
		if p, found := a.resume(); found && !strings.Contains(string(body), strconv.FormatUint(p.Index, 10)) && !strings.Contains(string(body), "0") {
			t.Errorf("%q resumes at %+v", body, p)
		}
	})
}

// The settings of an operator's file.
func TestSettings(t *testing.T) {
	var c Config
	err := yaml.UnmarshalWithOptions([]byte(`
account_url: https://ab12345.snowflakecomputing.com
user: u
private_key: k
key_passphrase: p
secret: arn:s
role: r
database: d
schema: s
table: t
mapping: VARIANT_CONTENT_MAPPING
content_column: c
metadata_column: m
url: http://localhost:8000
tls: {ca_file: ca.pem}
pipe: p
timeout: 10s
commit_timeout: 1m
`), &c, yaml.Strict())
	want := Config{
		AccountURL: "https://ab12345.snowflakecomputing.com", User: "u", PrivateKey: "k", Passphrase: "p", Secret: "arn:s", Role: "r",
		Database: "d", Schema: "s", Table: "t", Mapping: ContentMapping, ContentColumn: "c", MetadataColumn: "m",
		URL: "http://localhost:8000", TLS: outbound.TLS{CAFile: "ca.pem"}, Pipe: "p", Timeout: 10 * time.Second, CommitTimeout: time.Minute,
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
}
