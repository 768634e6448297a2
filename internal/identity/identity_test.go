package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/sigv4"
)

const seed = `
users:
  - name: alice
    keys: [{id: AKIAALICEALICE000000, secret: alice-secret}]
    policies:
      - name: all
        document: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}
  - name: bob
    keys: [{id: AKIABOBBOBBOB0000000, secret: bob-secret}]
roles:
  - name: reader
    trust:
      Version: "2012-10-17"
      Statement:
        - {Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "123456789012"}}
        - Effect: Allow
          Action: "sts:AssumeRoleWithWebIdentity"
          Principal: {Federated: "arn:aws:iam::123456789012:oidc-provider/token.example.com"}
          Condition: {StringEquals: {"token.example.com:aud": millrace, "token.example.com:sub": job-1}}
`

func newDirectory(t *testing.T) *iam.Directory {
	t.Helper()
	d, err := iam.Open(context.Background(), &iam.MemoryStore{}, iam.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	s, err := iam.ParseSeed([]byte(seed), "123456789012")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return d
}

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// issuer makes a key pair; the second result signs claims with it.
func issuer(t *testing.T) (Issuer, func(header, claims map[string]any) string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeySet([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return Issuer{URL: "https://token.example.com", Keys: keys}, func(header, claims map[string]any) string {
		text := part(header) + "." + part(claims)
		return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(text)))
	}
}

func python(t *testing.T, arguments ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("python3 with boto3 is needed: %v %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "python3", append([]string{"testdata/calls.py"}, arguments...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWithBoto3(t *testing.T) {
	d := newDirectory(t)
	trusted, sign := issuer(t)
	token := filepath.Join(t.TempDir(), "token")
	text := sign(map[string]any{"alg": "EdDSA", "kid": "k"}, map[string]any{
		"iss": trusted.URL, "sub": "job-1", "aud": "millrace", "exp": time.Now().Add(time.Hour).Unix(),
	})
	if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("verified", func(t *testing.T) {
		s := httptest.NewServer(New(Options{Directory: d, Verifier: sigv4.NewVerifier(d, sigv4.Options{}), Issuers: []Issuer{trusted}}))
		defer s.Close()
		python(t, s.URL, "verified", token)
	})
	t.Run("open", func(t *testing.T) {
		s := httptest.NewServer(New(Options{Directory: d}))
		defer s.Close()
		python(t, s.URL, "open")
	})
}

func TestWebIdentityRefusals(t *testing.T) {
	trusted, sign := issuer(t)
	trusted.Audiences = []string{"millrace"}
	now := time.Unix(1_700_000_000, 0)
	h := New(Options{Issuers: []Issuer{trusted}, Now: func() time.Time { return now }})
	for _, c := range []struct {
		name  string
		alg   string
		claim string
		value any
		want  string
	}{
		{name: "good"},
		{name: "list of audiences", claim: "aud", value: []string{"x", "millrace"}},
		{name: "no algorithm", alg: "none", want: "InvalidIdentityToken"},
		{name: "shared secret", alg: "HS256", want: "InvalidIdentityToken"},
		{name: "another algorithm", alg: "RS256", want: "InvalidIdentityToken"},
		{name: "another issuer", claim: "iss", value: "https://evil", want: "InvalidIdentityToken"},
		{name: "another audience", claim: "aud", value: "x", want: "InvalidIdentityToken"},
		{name: "expired", claim: "exp", value: now.Unix() - 61, want: "ExpiredTokenException"},
		{name: "never expires", claim: "exp", want: "InvalidIdentityToken"},
		{name: "not yet", claim: "nbf", value: now.Unix() + 61, want: "InvalidIdentityToken"},
		{name: "nobody", claim: "sub", want: "InvalidIdentityToken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims := map[string]any{"iss": trusted.URL, "sub": "job", "aud": "millrace", "exp": now.Unix() + 10}
			if c.claim != "" {
				claims[c.claim] = c.value
			}
			header := map[string]any{"alg": "EdDSA", "kid": "k"}
			if c.alg != "" {
				header["alg"] = c.alg
			}
			_, _, err := h.verifyToken(sign(header, claims))
			var f *fault
			switch {
			case c.want == "" && err != nil, c.want != "" && (!errors.As(err, &f) || f.code != c.want):
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
	none := New(Options{})
	if _, _, err := none.verifyToken("a.b.c"); err == nil || !strings.Contains(err.Error(), "trusts no issuer") {
		t.Errorf("without issuers: %v", err)
	}
}

func TestReplies(t *testing.T) {
	h := New(Options{Directory: newDirectory(t), RequestID: func() string { return "ID" }})
	const auth = "AWS4-HMAC-SHA256 Credential=123456789012/20260304/us-east-1/sts/aws4_request, SignedHeaders=host, Signature=0"
	for _, c := range []struct {
		name, query, auth string
		body              io.Reader
		status            int
		want              string
	}{
		{name: "by GET", query: "Action=GetCallerIdentity&Version=2011-06-15", auth: auth, status: 200,
			want: `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:root</Arn><UserId>123456789012</UserId><Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>ID</RequestId></ResponseMetadata></GetCallerIdentityResponse>` + "\n"},
		{name: "no authentication", query: "Action=GetCallerIdentity&Version=2011-06-15", status: 403,
			want: `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>MissingAuthenticationToken</Code><Message>Missing Authentication Token</Message></Error><RequestId>ID</RequestId></ErrorResponse>` + "\n"},
		{name: "unknown action", query: "Action=%3Cb%3E&Version=2011-06-15", auth: auth, status: 400,
			want: `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>Could not find operation &lt;b&gt; for version 2011-06-15</Message></Error><RequestId>ID</RequestId></ErrorResponse>` + "\n"},
		{name: "large body", query: "", auth: auth, body: strings.NewReader(strings.Repeat("a", maxBody+1)), status: 413,
			want: `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>RequestEntityTooLarge</Code><Message>The body is too large.</Message></Error><RequestId>ID</RequestId></ErrorResponse>` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?"+c.query, c.body)
			r.Header.Set("Authorization", c.auth)
			r.Header.Set("X-Amz-Date", "20260304T050607Z")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || w.Body.String() != c.want {
				t.Errorf("got  %d %s\nwant %d %s", w.Code, w.Body, c.status, c.want)
			}
		})
	}
}

func TestRecognises(t *testing.T) {
	const form = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
	for i, c := range []struct {
		query, auth, target, contentType, body string
		want                                   bool
	}{
		{auth: "AWS4-HMAC-SHA256 Credential=a/b/c/sts/aws4_request", want: true},
		{auth: "AWS4-HMAC-SHA256 Credential=a/b/c/kinesis/aws4_request"},
		{query: form, want: true},
		{query: "Action=PutMetricData&Version=2010-08-01"},
		{contentType: "application/x-www-form-urlencoded; charset=utf-8", body: form, want: true},
		{contentType: "application/json", body: form},
		{target: "Kinesis_20131202.PutRecord", query: form},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?"+c.query, nil)
		for name, v := range map[string]string{"Authorization": c.auth, "X-Amz-Target": c.target, "Content-Type": c.contentType} {
			if v != "" {
				r.Header.Set(name, v)
			}
		}
		if got := Recognises(r, []byte(c.body)); got != c.want {
			t.Errorf("case %d: %v, want %v", i, got, c.want)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add("a.b.c")
	f.Add(part(map[string]any{"alg": "EdDSA"}) + "." + part(map[string]any{"iss": "https://token.example.com", "exp": 1}) + ".AAAA")
	h := New(Options{Issuers: []Issuer{{URL: "https://token.example.com"}}})
	f.Fuzz(func(t *testing.T, token string) {
		if _, _, err := h.verifyToken(token); err == nil {
			t.Error("accepted")
		}
	})
}

func FuzzForm(f *testing.F) {
	d, err := iam.Open(context.Background(), &iam.MemoryStore{}, iam.Options{})
	if err != nil {
		f.Fatal(err)
	}
	h := New(Options{Directory: d})
	for name := range iamOperations {
		f.Add("Action=" + name + "&Version=" + iamVersion + "&UserName=a&RoleName=a&PolicyName=p&PolicyDocument={}")
	}
	for name := range stsOperations {
		f.Add("Action=" + name + "&Version=" + stsVersion + "&RoleArn=" + url.QueryEscape("arn:aws:iam::123456789012:role/a") + "&RoleSessionName=me&WebIdentityToken=a.b.c&Tags.member.1.Key=k")
	}
	f.Fuzz(func(t *testing.T, form string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(form))
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=123456789012/20260304/us-east-1/sts/aws4_request, SignedHeaders=host, Signature=0")
		r.Header.Set("X-Amz-Date", "20260304T050607Z")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Error(fmt.Sprint(w.Code, w.Body))
		}
	})
}

func number(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

// Every algorithm of a key set verifies what was signed with it, and nothing
// else.
func TestTokensOfEveryKeyType(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p256, p384 := ecKey(elliptic.P256()), ecKey(elliptic.P384())
	sum := func(h crypto.Hash, text string) []byte {
		w := h.New()
		w.Write([]byte(text))
		return w.Sum(nil)
	}
	withRSA := func(h crypto.Hash) func(string) []byte {
		return func(text string) []byte {
			signature, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, h, sum(h, text))
			if err != nil {
				t.Fatal(err)
			}
			return signature
		}
	}
	withEC := func(k *ecdsa.PrivateKey, h crypto.Hash) func(string) []byte {
		return func(text string) []byte {
			r, s, err := ecdsa.Sign(rand.Reader, k, sum(h, text))
			if err != nil {
				t.Fatal(err)
			}
			n := (k.Params().BitSize + 7) / 8
			return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
		}
	}
	file := fmt.Sprintf(`{"issuers":[{"url":"https://token.example.com","audiences":["millrace"],"keys":[
		{"kty":"RSA","kid":"rsa","use":"sig","alg":"RS256","n":%q,"e":"AQAB"},
		{"kty":"EC","kid":"p256","crv":"P-256","x":%q,"y":%q},
		{"kty":"EC","kid":"p384","crv":"P-384","x":%q,"y":%q},
		{"kty":"RSA","kid":"other","use":"enc","n":"AQAB","e":"AQAB"}]}]}`,
		number(rsaKey.N), number(p256.X), number(p256.Y), number(p384.X), number(p384.Y))
	issuers, err := ParseIssuers([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	h := New(Options{Issuers: issuers, Now: func() time.Time { return now }})
	for _, c := range []struct {
		kid, alg string
		sign     func(string) []byte
		good     bool
	}{
		{"rsa", "RS256", withRSA(crypto.SHA256), true},
		{"rsa", "RS384", withRSA(crypto.SHA384), true},
		{"rsa", "RS512", withRSA(crypto.SHA512), true},
		{"p256", "ES256", withEC(p256, crypto.SHA256), true},
		{"p384", "ES384", withEC(p384, crypto.SHA384), true},
		{"rsa", "RS512", withRSA(crypto.SHA256), false},
		{"rsa", "ES256", withRSA(crypto.SHA256), false},
		{"p256", "ES384", withEC(p256, crypto.SHA384), false},
		{"p384", "ES256", withEC(p384, crypto.SHA256), false},
		{"p256", "ES256", withEC(p384, crypto.SHA256), false},
		{"p256", "RS256", withEC(p256, crypto.SHA256), false},
		{"p256", "none", func(string) []byte { return nil }, false},
		{"p256", "ES256", func(string) []byte { return make([]byte, 64) }, false},
		{"rsa", "RS256", func(string) []byte { return nil }, false},
		{"other", "RS256", withRSA(crypto.SHA256), false},
		{"", "RS256", withRSA(crypto.SHA256), false},
	} {
		text := part(map[string]any{"alg": c.alg, "kid": c.kid}) + "." +
			part(map[string]any{"iss": "https://token.example.com", "sub": "job-1", "aud": "millrace", "exp": now.Unix() + 60})
		got, _, err := h.verifyToken(text + "." + base64.RawURLEncoding.EncodeToString(c.sign(text)))
		if (err == nil) != c.good {
			t.Errorf("%s with key %q: %v", c.alg, c.kid, err)
		}
		if c.good && got != nil && got.Subject != "job-1" {
			t.Errorf("%s: subject %q", c.alg, got.Subject)
		}
	}
}

func TestBadIssuerFiles(t *testing.T) {
	const key = `{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`
	const good = `{"url":"https://a","keys":[` + key + `]}`
	if _, err := ParseIssuers([]byte(`{"issuers":[` + good + `]}`)); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		``:                                  "EOF",
		`[]`:                                "cannot unmarshal",
		`{}`:                                "it names no issuers",
		`{"issuers":[` + good + `]} x`:      "something follows",
		`{"issuers":[],"isuers":[]}`:        "unknown field",
		`{"issuers":[{"url":"a"}]}`:         `issuer 1: "a" is not a URL`,
		`{"issuers":[{"url":"https://a"}]}`: "issuer https://a: key set: has no signing keys",
		`{"issuers":[` + good + `,` + good + `]}`:                                                 "stands there twice",
		`{"issuers":[{"url":"https://a","keys":[{"kty":"oct"}]}]}`:                                "type oct is not supported",
		`{"issuers":[{"url":"https://a","keys":[{"kty":"EC","crv":"P-521"}]}]}`:                   "curve P-521 is not supported",
		`{"issuers":[{"url":"https://a","keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}]}`: "not a point",
		`{"issuers":[{"url":"https://a","keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}]}`:          "2048 bits",
		`{"issuers":[{"url":"https://a","keys":[{"kty":"OKP","crv":"Ed25519","x":"AQ"}]}]}`:       "not an Ed25519 key",
	} {
		if _, err := ParseIssuers([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}
