package snowflake

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/payload"
	"github.com/millrace/millrace/internal/outbound"
)

const (
	maxAnswer = 1 << 20
	agent     = "Amazon Kinesis Data Firehose Agent/1.0"
	// A token for the host of rows is used for this long, or until it expires.
	tokenLife = 45 * time.Minute
)

// session is where rows are taken and what opens the door there.
type session struct {
	gate chan struct{} // holds a token while nobody logs in

	mu      sync.Mutex
	host    *url.URL
	token   string
	expires time.Time
	login   login // that the token was made for
}

// login is the credentials of one moment.
type login struct{ user, key, passphrase string }

// reply is an answer, whose body is not larger than maxAnswer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// exchange makes one request.
func (a *attempt) exchange(method string, target *url.URL, header http.Header, length int64, body func() io.ReadCloser) (reply, error) {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	var written atomic.Int64
	start := time.Now()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { written.Store(int64(time.Since(start))) },
	})
	defer func() {
		if at := written.Load(); at > 0 {
			a.waited += max(0, time.Since(start)-time.Duration(at))
		}
	}()
	header.Set("User-Agent", agent)
	header.Set("Accept", "application/json")
	request := (&http.Request{Method: method, URL: target, Host: target.Host, Header: header}).WithContext(ctx)
	if body != nil {
		request.ContentLength, request.Body = length, body()
		request.GetBody = func() (io.ReadCloser, error) { return body(), nil }
	}
	response, err := a.client.Do(request)
	if err != nil {
		return reply{}, a.broken(err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return reply{}, a.broken(err)
	}
	if len(raw) > maxAnswer {
		return reply{}, &dest.Error{Code: "Snowflake.InvalidResponse", Message: "The answer is larger than 1 MiB."}
	}
	return reply{response.StatusCode, response.Header, raw}, nil
}

func fixed(b []byte) func() io.ReadCloser {
	return func() io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
}

// broken says what an exchange failed with that brought no answer.
func (a *attempt) broken(err error) error {
	if a.ctx.Err() != nil {
		return fmt.Errorf("deliver to %s: %w", a.base.Host, context.Cause(a.ctx))
	}
	code, message := "Snowflake.ConnectionFailed", "Snowflake cannot be reached"
	switch outbound.Explain(err) {
	case outbound.Refused:
		message = "This server is not allowed to connect to Snowflake"
	case outbound.BadURL:
		code, message = "Snowflake.InvalidUrl", "The account's URL is not one that a request can be made of"
	case outbound.Timeout, outbound.ConnectTimeout:
		code, message = "Snowflake.RequestTimeout", "Snowflake did not answer in time"
	case outbound.Reset:
		code, message = "Snowflake.ConnectionReset", "The connection to Snowflake broke"
	case outbound.TLSHandshake, outbound.TLSFailure, outbound.CertificatePath, outbound.CertificateInvalid:
		code, message = "Snowflake.SslFailure", "TLS with Snowflake failed"
	case outbound.IllegalStart, outbound.IllegalResponse, outbound.HeadersTooLarge:
		code, message = "Snowflake.InvalidResponse", "The answer is not a well-formed HTTP message"
	}
	return &dest.Error{Code: code, Message: message + ": " + outbound.Plain(err), Err: err}
}

// credentials are those of the configuration, or of the secret it names.
func (a *attempt) credentials() (login, error) {
	l := login{a.config.User, a.config.PrivateKey, a.config.Passphrase}
	if a.config.Secret == "" {
		return l, nil
	}
	failed := func(err error) error {
		return &dest.Error{Code: "Snowflake.InvalidUser", Message: "The credentials could not be read: " + err.Error(), Err: err}
	}
	if a.deps.Secrets == nil {
		return l, failed(errors.New("there are no secrets"))
	}
	values, err := a.deps.Secrets.Resolve(a.ctx, a.config.Secret)
	if err != nil {
		return l, failed(err)
	}
	return login{values["user"], values["private_key"], values["key_passphrase"]}, nil
}

// connect makes sure that there is a session, for the credentials of now.
func (a *attempt) connect() error {
	l, err := a.credentials()
	if err != nil {
		return err
	}
	s := &a.session
	if s.stands(l) {
		return nil
	}
	select {
	case <-s.gate:
		defer func() { s.gate <- struct{}{} }()
	case <-a.ctx.Done():
		return fmt.Errorf("log in at %s: %w", a.base.Host, context.Cause(a.ctx))
	}
	if s.stands(l) { // somebody else has just logged in
		return nil
	}
	if l.user == "" {
		return &dest.Error{Code: "Snowflake.InvalidUser", Message: "There is no user to log in as.", Permanent: true}
	}
	key, err := parseKey(l.key, l.passphrase)
	if err != nil {
		return &dest.Error{Code: "Snowflake.InvalidPrivateKeyOrPassphrase", Message: "The private key cannot be used: " + err.Error(), Permanent: true, Err: err}
	}
	jwt, err := signToken(key, accountOf(a.config.AccountURL), l.user, time.Now())
	if err != nil {
		return &dest.Error{Code: "Snowflake.InvalidPrivateKeyOrPassphrase", Message: "The private key cannot sign: " + err.Error(), Permanent: true, Err: err}
	}
	header := func() http.Header {
		return http.Header{"Authorization": {"Bearer " + jwt}, "X-Snowflake-Authorization-Token-Type": {"KEYPAIR_JWT"}}
	}
	got, err := a.exchange(http.MethodGet, a.base.JoinPath("/v2/streaming/hostname"), header(), 0, nil)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return denied(got)
	}
	host, err := ingestHost(a.base, textOr(got.body, "hostname"))
	if err != nil {
		return &dest.Error{Code: "Snowflake.InvalidResponse", Message: err.Error()}
	}
	form := []byte(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "scope": {host.Host}}.Encode())
	h := header()
	h.Set("Content-Type", "application/x-www-form-urlencoded")
	got, err = a.exchange(http.MethodPost, a.base.JoinPath("/oauth/token"), h, int64(len(form)), fixed(form))
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return denied(got)
	}
	token := textOr(got.body, "token")
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return &dest.Error{Code: "Snowflake.InvalidResponse", Message: "Snowflake answered with no token."}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host, s.token, s.login, s.expires = host, token, l, expiry(token, time.Now())
	return nil
}

// stands tells whether there is a session for these credentials.
func (s *session) stands(l login) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token != "" && s.login == l && time.Now().Before(s.expires)
}

// textOr is the member of a JSON object, or the whole text where the body is
// not JSON: the interface has answered with either.
func textOr(body []byte, member string) string {
	var object map[string]json.RawMessage
	var text string
	switch {
	case json.Unmarshal(body, &object) == nil:
		_ = json.Unmarshal(object[member], &text)
	case json.Unmarshal(body, &text) == nil:
	default:
		text = string(bytes.TrimSpace(body))
	}
	return text
}

// ingestHost is where rows are taken. Underscores of account names are hyphens
// in host names. A host that is the one connected to keeps its port.
func ingestHost(base *url.URL, host string) (*url.URL, error) {
	host = strings.ToLower(strings.ReplaceAll(host, "_", "-"))
	if host == "" || len(host) > 255 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-:") != "" {
		return nil, errors.New("Snowflake answered with no host name")
	}
	if host == strings.ToLower(base.Hostname()) {
		host = base.Host
	}
	return &url.URL{Scheme: base.Scheme, Host: host}, nil
}

// expiry is when a token has to be made anew: before it says that it ends.
func expiry(token string, now time.Time) time.Time {
	at := now.Add(tokenLife)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return at
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Expires <= 0 {
		return at
	}
	if ends := time.Unix(claims.Expires, 0).Add(-time.Minute); ends.Before(at) {
		at = ends
	}
	return at
}

// accountOf is the account's name in tokens: the first label of its host,
// without region and cloud.
func accountOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	account, rest, _ := strings.Cut(u.Hostname(), ".")
	if strings.HasPrefix(rest, "global.") {
		account, _, _ = strings.Cut(account, "-")
	}
	return strings.ToUpper(account)
}

// fault is the body of an error.
type fault struct {
	Code    string `json:"code"`
	Other   string `json:"error_code"`
	Message string `json:"message"`
}

func decodeFault(body []byte) fault {
	var f struct {
		Code    any    `json:"code"`
		Other   any    `json:"error_code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &f) != nil {
		return fault{Message: strings.ToValidUTF8(string(body[:min(len(body), 1000)]), "�")}
	}
	text := func(v any) string {
		if v == nil {
			return ""
		}
		return fmt.Sprint(v)
	}
	return fault{text(f.Code), text(f.Other), f.Message[:min(len(f.Message), 4000)]}
}

func (f fault) code() string {
	if f.Code != "" {
		return f.Code
	}
	return f.Other
}

// denied is what an answer of the account itself means that is no success.
func denied(r reply) error {
	f := decodeFault(r.body)
	e := &dest.Error{Code: "Snowflake.ServiceUnavailable", Message: describe("Snowflake", r.status, f)}
	switch {
	case r.status == http.StatusUnauthorized || r.status == http.StatusForbidden:
		e.Code, e.Permanent = "Snowflake.InvalidUser", true
		if strings.Contains(strings.ToLower(f.Message), "jwt") {
			e.Code = "Snowflake.InvalidPrivateKeyOrPassphrase"
		}
		if strings.Contains(strings.ToLower(f.Message), "role") {
			e.Code = "Snowflake.InvalidRole"
		}
	case r.status == http.StatusNotFound || r.status >= 300 && r.status < 400:
		e.Code, e.Permanent = "Snowflake.InvalidUrl", true
	case r.status == http.StatusOK:
		e.Code = "Snowflake.InvalidResponse"
	}
	return e
}

func describe(who string, status int, f fault) string {
	text := fmt.Sprintf("%s answered with status %d", who, status)
	if c := f.code(); c != "" {
		text += " and " + c
	}
	if f.Message != "" {
		text += ": " + f.Message
	}
	return text
}

// refusedBy is what an answer of the host of rows means that is no success.
func (a *attempt) refusedBy(r reply) error {
	f := decodeFault(r.body)
	e := &dest.Error{Code: "Snowflake.ServiceUnavailable", Message: describe("Snowflake", r.status, f)}
	code := strings.ToUpper(f.code())
	has := func(part string) bool { return strings.Contains(code, part) }
	switch {
	case r.status == http.StatusUnauthorized:
		// The token has come to its end early; the next attempt makes another.
		a.session.mu.Lock()
		a.session.token = ""
		a.session.mu.Unlock()
		e.Code = "Snowflake.InvalidUser"
	case has("STALE_CONTINUATION_TOKEN"), has("CHANNEL"), has("SEQUENCER"):
		e.Code = "Snowflake.ChannelInvalid" // opened again by the next attempt
	case has("DATABASE"):
		e.Code, e.Permanent = "Snowflake.InvalidDatabase", true
	case has("SCHEMA"):
		e.Code, e.Permanent = "Snowflake.InvalidSchema", true
	case has("TABLE_TYPE"), has("TYPE_NOT_SUPPORTED"):
		e.Code, e.Permanent = "Snowflake.InvalidTableType", true
	case has("TABLE"), has("PIPE"):
		e.Code, e.Permanent = "Snowflake.InvalidTable", true
	case has("ROLE"):
		e.Code, e.Permanent = "Snowflake.InvalidRole", true
	case r.status == http.StatusForbidden:
		e.Code, e.Permanent = "Snowflake.InvalidRole", true
	case r.status == http.StatusNotFound:
		e.Code, e.Permanent = "Snowflake.InvalidTable", true
	case r.status == http.StatusTooManyRequests:
		e.Code = "Snowflake.Throttled"
	case r.status == http.StatusBadRequest && code != "":
		e.Code, e.Permanent = "Snowflake.InvalidInput", true
	case r.status < 400:
		e.Code = "Snowflake.InvalidResponse"
	}
	return e
}

// refusal is what the message of a refused row means.
func refusal(message string) (code, text string) {
	m := strings.ToLower(message)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(m, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("extra column", "unknown column", "not found in table"):
		code = "Snowflake.ExtraColumns"
	case has("missing", "not nullable", "non-nullable", "null result"):
		code = "Snowflake.MissingColumns"
	case has("cast", "value", "numeric", "out of range", "too long", "parse", "format"):
		code = "Snowflake.IncorrectValue"
	case has("column"):
		code = "Snowflake.InvalidColumns"
	default:
		code = "Snowflake.InvalidInput"
	}
	if message == "" {
		return code, "No reason was given."
	}
	return code, "The last reason given was: " + message
}

// channelStatus is what the other side knows of a channel.
type channelStatus struct {
	StatusCode   string `json:"channel_status_code"`
	Committed    string `json:"last_committed_offset_token"`
	RowErrors    int64  `json:"rows_error_count"`
	RowsErrors   int64  `json:"rows_errors"` // its other name
	ErrorBound   string `json:"last_error_offset_upper_bound"`
	ErrorMessage string `json:"last_error_message"`
}

func (s channelStatus) refused() int64 { return max(s.RowErrors, s.RowsErrors) }

// fault tells a channel that takes no rows.
func (s channelStatus) fault(a *attempt) error {
	if !strings.HasPrefix(strings.ToUpper(s.StatusCode), "ERR") {
		return nil
	}
	body, _ := json.Marshal(map[string]string{"code": s.StatusCode, "message": "the channel is not active"})
	return a.refusedBy(reply{status: http.StatusConflict, body: body})
}

func (a *attempt) target(parts ...string) *url.URL {
	a.session.mu.Lock()
	u := *a.session.host
	a.session.mu.Unlock()
	var raw, plain strings.Builder
	for _, p := range parts {
		raw.WriteString("/" + url.PathEscape(p))
		plain.WriteString("/" + p)
	}
	u.Path, u.RawPath = plain.String(), raw.String()
	return &u
}

func (a *attempt) header(contentType string) http.Header {
	a.session.mu.Lock()
	defer a.session.mu.Unlock()
	h := http.Header{"Authorization": {"Bearer " + a.session.token}, "Content-Type": {contentType}}
	if a.config.Role != "" {
		h["X-Snowflake-Role"] = []string{a.config.Role}
	}
	return h
}

// openChannel opens the channel, which ends everything that was under way on it.
func (a *attempt) openChannel() error {
	c := a.config
	target := a.target("v2", "streaming", "databases", c.Database, "schemas", c.Schema, "pipes", c.Pipe, "channels", a.channel.name)
	got, err := a.exchange(http.MethodPut, target, a.header("application/json"), 2, fixed([]byte("{}")))
	if err != nil {
		return err
	}
	if got.status != http.StatusOK && got.status != http.StatusCreated {
		return a.refusedBy(got)
	}
	continuation, status, err := decodeOpen(got.body)
	if err != nil {
		return &dest.Error{Code: "Snowflake.InvalidResponse", Message: "The answer to opening a channel " + err.Error()}
	}
	if err := status.fault(a); err != nil {
		return err
	}
	ch := a.channel
	ch.open, ch.continuation = true, continuation
	ch.committed, ch.errors, ch.lastError = status.Committed, status.refused(), status.ErrorMessage
	return nil
}

func decodeOpen(body []byte) (string, channelStatus, error) {
	var answer struct {
		Continuation string         `json:"next_continuation_token"`
		Status       *channelStatus `json:"channel_status"`
	}
	switch err := json.Unmarshal(body, &answer); {
	case err != nil:
		return "", channelStatus{}, errors.New("is not what it should be")
	case answer.Continuation == "":
		return "", channelStatus{}, errors.New("has no continuation token")
	case answer.Status == nil || answer.Status.refused() < 0:
		return "", channelStatus{}, errors.New("has no status of the channel")
	}
	return answer.Continuation, *answer.Status, nil
}

// appendRows sends rows, and gives the number of bytes that travelled.
func (a *attempt) appendRows(rows []byte, token string) (int64, error) {
	c := a.config
	target := a.target("v2", "streaming", "data", "databases", c.Database, "schemas", c.Schema, "pipes", c.Pipe, "channels", a.channel.name, "rows")
	target.RawQuery = url.Values{
		"continuationToken": {a.channel.continuation}, "offsetToken": {token},
		"endOffsetToken": {token}, // its name of today
	}.Encode()
	var blocks payload.Blocks
	z := compress.NewWriter(compress.GZIP, &blocks, "")
	_, err := z.Write(rows)
	if e := z.Close(); err == nil {
		err = e
	}
	if err != nil {
		blocks.Free()
		return 0, err
	}
	var last io.ReadCloser
	defer func() {
		if last != nil {
			_ = last.Close()
		}
		blocks.Free()
	}()
	header := a.header("application/x-ndjson")
	header["Content-Encoding"] = []string{"gzip"}
	got, err := a.exchange(http.MethodPost, target, header, blocks.Len(), func() io.ReadCloser {
		if last != nil {
			_ = last.Close()
		}
		last = blocks.Reader()
		return last
	})
	if err != nil {
		return 0, err
	}
	if got.status != http.StatusOK {
		return 0, a.refusedBy(got)
	}
	var answer struct {
		Continuation string `json:"next_continuation_token"`
	}
	if json.Unmarshal(got.body, &answer) != nil || answer.Continuation == "" {
		return 0, &dest.Error{Code: "Snowflake.InvalidResponse", Message: "The answer to sending rows has no continuation token."}
	}
	a.channel.continuation = answer.Continuation
	return blocks.Len(), nil
}

// status asks how far the channel is.
func (a *attempt) status() (channelStatus, error) {
	c := a.config
	question, _ := json.Marshal(map[string][]string{"channel_names": {a.channel.name}})
	target := a.target("v2", "streaming", "databases", c.Database, "schemas", c.Schema, "pipes", c.Pipe+":bulk-channel-status")
	got, err := a.exchange(http.MethodPost, target, a.header("application/json"), int64(len(question)), fixed(question))
	if err != nil {
		return channelStatus{}, err
	}
	if got.status != http.StatusOK {
		return channelStatus{}, a.refusedBy(got)
	}
	s, err := decodeStatus(got.body, a.channel.name)
	if err != nil {
		return channelStatus{}, &dest.Error{Code: "Snowflake.InvalidResponse", Message: "The answer to asking for a channel's status " + err.Error()}
	}
	return s, s.fault(a)
}

func decodeStatus(body []byte, name string) (channelStatus, error) {
	var answer struct {
		Statuses map[string]*channelStatus `json:"channel_statuses"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return channelStatus{}, errors.New("is not what it should be")
	}
	s := answer.Statuses[name]
	for other, status := range answer.Statuses {
		if s == nil && strings.EqualFold(other, name) {
			s = status
		}
	}
	if s == nil || s.refused() < 0 {
		return channelStatus{}, errors.New("does not know the channel")
	}
	return *s, nil
}
