package identity

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // hashes of the algorithms below
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// Issuer signs web identity tokens that are trusted. Its keys are configured:
// nothing is fetched.
type Issuer struct {
	URL       string   // the "iss" claim, "https://token.example.com"
	Audiences []string // accepted "aud" claims; any if empty
	Keys      KeySet
}

// KeySet holds the public keys of an issuer by their ids.
type KeySet struct{ keys map[string]crypto.PublicKey }

// ParseIssuers reads a file of issuers. Each entry is a key set with the issuer's
// URL and the audiences it may name:
//
//	{"issuers": [{"url": "https://token.example.com", "audiences": ["sts"], "keys": [{"kty": "RSA", …}]}]}
//
// Names that do not exist are errors, inside keys excepted: issuers put much
// there that does not matter here.
func ParseIssuers(data []byte) ([]Issuer, error) {
	var file struct {
		Issuers []struct {
			URL       string          `json:"url"`
			Audiences []string        `json:"audiences"`
			Keys      json.RawMessage `json:"keys"`
		} `json:"issuers"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the list of issuers")
	}
	list := make([]Issuer, 0, len(file.Issuers))
	for i, f := range file.Issuers {
		if u, err := url.Parse(f.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return nil, fmt.Errorf("issuer %d: %q is not a URL", i+1, f.URL)
		}
		for _, other := range list {
			if other.URL == f.URL {
				return nil, fmt.Errorf("issuer %s stands there twice", f.URL)
			}
		}
		keys, err := ParseKeySet([]byte(`{"keys":` + cmp.Or(string(f.Keys), "null") + "}"))
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", f.URL, err)
		}
		list = append(list, Issuer{URL: f.URL, Audiences: f.Audiences, Keys: keys})
	}
	if len(list) == 0 {
		return nil, errors.New("it names no issuers")
	}
	return list, nil
}

// ParseKeySet reads a JSON Web Key Set: RSA keys of at least 2048 bits, P-256
// and P-384, and Ed25519. Other keys are an error.
func ParseKeySet(data []byte) (KeySet, error) {
	var set struct {
		Keys []struct{ Kty, Kid, Use, Crv, N, E, X, Y string }
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return KeySet{}, fmt.Errorf("key set: %w", err)
	}
	result := KeySet{make(map[string]crypto.PublicKey)}
	for i, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		bad := func(why string) (KeySet, error) {
			return KeySet{}, fmt.Errorf("key set: key %d (%q): %s", i+1, k.Kid, why)
		}
		number := func(s string) *big.Int {
			b, err := base64.RawURLEncoding.DecodeString(s)
			if err != nil {
				return new(big.Int)
			}
			return new(big.Int).SetBytes(b)
		}
		switch k.Kty {
		case "RSA":
			key := &rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())}
			if key.N.BitLen() < 2048 || key.N.BitLen() > 16384 || key.E < 3 {
				return bad("is not an RSA key of 2048 bits or more")
			}
			result.keys[k.Kid] = key
		case "EC":
			curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}[k.Crv]
			if curve == nil {
				return bad("curve " + k.Crv + " is not supported")
			}
			key := &ecdsa.PublicKey{Curve: curve, X: number(k.X), Y: number(k.Y)}
			if _, err := key.ECDH(); err != nil {
				return bad("is not a point of its curve")
			}
			result.keys[k.Kid] = key
		case "OKP":
			raw, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil || k.Crv != "Ed25519" || len(raw) != ed25519.PublicKeySize {
				return bad("is not an Ed25519 key")
			}
			result.keys[k.Kid] = ed25519.PublicKey(raw)
		default:
			return bad("type " + k.Kty + " is not supported")
		}
	}
	if len(result.keys) == 0 {
		return KeySet{}, errors.New("key set: has no signing keys")
	}
	return result, nil
}

// claims of a verified token.
type claims struct {
	Issuer   string
	Subject  string
	Audience []string
}

const clockLeeway = time.Minute

// verifyToken checks a token and returns its claims with the issuer's name as
// conditions write it: the URL without its scheme.
func (h *Handler) verifyToken(token string) (*claims, string, error) {
	refuse := func(why string) (*claims, string, error) {
		return nil, "", badRequest("InvalidIdentityToken", "%s", why)
	}
	if len(h.o.Issuers) == 0 {
		return refuse("No OpenIDConnect provider found in your account: this server trusts no issuer of web identity tokens.")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return refuse("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	var header struct{ Alg, Kid string }
	var body struct {
		Iss, Sub string
		Aud      json.RawMessage
		Exp, Nbf json.Number
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decodePart(parts[0], &header) != nil || decodePart(parts[1], &body) != nil {
		return refuse("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	var issuer *Issuer
	for i := range h.o.Issuers {
		if h.o.Issuers[i].URL == body.Iss {
			issuer = &h.o.Issuers[i]
		}
	}
	if issuer == nil {
		return refuse("No OpenIDConnect provider found in your account for " + clip(body.Iss))
	}
	if !issuer.Keys.verify(header.Alg, header.Kid, parts[0]+"."+parts[1], signature) {
		return refuse("Couldn't retrieve verification key from your identity provider, or the signature does not match it")
	}
	expires, err := body.Exp.Float64()
	if err != nil {
		return refuse("Missing a required claim: exp")
	}
	now := float64(h.o.Now().Unix())
	if now >= expires+clockLeeway.Seconds() {
		return nil, "", badRequest("ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time")
	}
	if body.Nbf != "" {
		if from, err := body.Nbf.Float64(); err != nil || now < from-clockLeeway.Seconds() {
			return refuse("The ID Token is not valid yet")
		}
	}
	if body.Sub == "" {
		return refuse("Missing a required claim: sub")
	}
	result := &claims{Issuer: body.Iss, Subject: body.Sub}
	var one string
	if json.Unmarshal(body.Aud, &one) == nil {
		result.Audience = []string{one}
	} else if json.Unmarshal(body.Aud, &result.Audience) != nil {
		return refuse("Missing a required claim: aud")
	}
	if len(issuer.Audiences) > 0 && !intersect(issuer.Audiences, result.Audience) {
		return refuse("Incorrect token audience")
	}
	return result, strings.TrimPrefix(strings.TrimPrefix(body.Iss, "https://"), "http://"), nil
}

func intersect(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

func decodePart(s string, v any) error {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// verify checks a signature. The key decides which algorithms may be named, so
// that a public key is never taken for a shared secret.
func (k KeySet) verify(algorithm, id, signed string, signature []byte) bool {
	key, ok := k.keys[id]
	if !ok && id == "" && len(k.keys) == 1 {
		for _, key = range k.keys {
		}
	}
	sum := func(h crypto.Hash) []byte {
		w := h.New()
		w.Write([]byte(signed))
		return w.Sum(nil)
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		h, ok := map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512}[algorithm]
		return ok && rsa.VerifyPKCS1v15(key, h, sum(h), signature) == nil
	case *ecdsa.PublicKey:
		h := crypto.SHA256
		if key.Curve == elliptic.P384() {
			h = crypto.SHA384
		}
		if algorithm != map[crypto.Hash]string{crypto.SHA256: "ES256", crypto.SHA384: "ES384"}[h] {
			return false
		}
		n := (key.Curve.Params().BitSize + 7) / 8
		if len(signature) != 2*n {
			return false
		}
		return ecdsa.Verify(key, sum(h), new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
	case ed25519.PublicKey:
		return algorithm == "EdDSA" && ed25519.Verify(key, []byte(signed), signature)
	}
	return false
}
