package iam

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/sigv4"
)

const sealingKeyName = "iam/sealing-key"

type sealingKey struct {
	Format int    `json:"format"`
	Key    []byte `json:"key,omitempty"`    // AES-256; not in a record that has Sealed
	Sealed []byte `json:"sealed,omitempty"` // Key as the Sealer wrote it
}

// session is what a token carries.
type session struct {
	AccessKey string            `json:"k"`
	Secret    string            `json:"s"`
	Expires   int64             `json:"e"` // Unix seconds
	Account   string            `json:"a"`
	User      string            `json:"u,omitempty"` // GetSessionToken: of whom; empty is the root
	Role      string            `json:"r,omitempty"` // ARN; AssumeRole
	RoleID    string            `json:"i,omitempty"`
	Name      string            `json:"n,omitempty"` // role session name
	Policies  []string          `json:"p,omitempty"` // session policies
	Source    string            `json:"o,omitempty"` // source identity
	Tags      map[string]string `json:"t,omitempty"`
	Open      bool              `json:"x,omitempty"` // made where nothing is verified

	parsed []*Policy
}

// NewSession describes a session to make.
type NewSession struct {
	Account        string
	User           string // whose; empty is the root, if there is no role
	RoleARN        string // arn:aws:iam::{account}:role/{name}, if a role is assumed
	RoleID         string
	Name           string // role session name
	Policies       []string
	SourceIdentity string
	Tags           map[string]string
	Duration       time.Duration
	// Unverified marks a session handed out where nothing is verified: its role
	// need not exist, and Secret does not know it.
	Unverified bool
}

// Credentials are temporary.
type Credentials struct {
	AccessKey    string // ASIA…
	SecretKey    string
	SessionToken string
	Expires      time.Time
}

const (
	tokenPrefix = "FwoM"
	maxToken    = 16 << 10
)

// sealer encrypts and authenticates sessions.
type sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) (*sealer, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("the key of session tokens has %d bytes, not 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead}, err
}

func (s *sealer) seal(plain []byte) string {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	rand.Read(nonce)
	return tokenPrefix + base64.StdEncoding.EncodeToString(s.aead.Seal(nonce, nonce, plain, []byte(tokenPrefix)))
}

var errToken = errors.New("not one of our session tokens")

func (s *sealer) open(token string) ([]byte, error) {
	if len(token) > maxToken || len(token) < len(tokenPrefix) || token[:len(tokenPrefix)] != tokenPrefix {
		return nil, errToken
	}
	raw, err := base64.StdEncoding.DecodeString(token[len(tokenPrefix):])
	if err != nil || len(raw) < s.aead.NonceSize() {
		return nil, errToken
	}
	n := s.aead.NonceSize()
	plain, err := s.aead.Open(nil, raw[:n], raw[n:], []byte(tokenPrefix))
	if err != nil {
		return nil, errToken
	}
	return plain, nil
}

// Issue makes temporary credentials. Nothing is stored: the token carries the
// session and outlives restarts.
func (d *Directory) Issue(n NewSession) (*Credentials, error) {
	expires := d.options.Now().Add(n.Duration).Truncate(time.Second)
	s := session{
		AccessKey: newID("ASIA", 16), Secret: newSecret(), Expires: expires.Unix(),
		Account: n.Account, User: n.User, Role: n.RoleARN, RoleID: n.RoleID, Name: n.Name,
		Policies: n.Policies, Source: n.SourceIdentity, Tags: n.Tags, Open: n.Unverified,
	}
	for _, p := range n.Policies {
		if _, err := ParsePolicy(p, IdentityPolicy); err != nil {
			return nil, err
		}
	}
	plain, err := json.Marshal(&s)
	if err != nil {
		return nil, err
	}
	d.mu.RLock()
	sealer := d.sealer
	d.mu.RUnlock()
	token := sealer.seal(plain)
	if len(token) > maxToken {
		return nil, &PolicyError{Text: "the session's policies and tags are too large together"}
	}
	return &Credentials{AccessKey: s.AccessKey, SecretKey: s.Secret, SessionToken: token, Expires: expires.UTC()}, nil
}

// session opens a token, and checks that it belongs to the key and has not
// expired.
func (d *Directory) session(accessKey, token string) (*session, error) {
	d.mu.RLock()
	s, sealer := d.sessions[token], d.sealer
	d.mu.RUnlock()
	if s == nil {
		plain, err := sealer.open(token)
		if err != nil {
			return nil, sigv4.ErrUnknownKey
		}
		s = new(session)
		if err := json.Unmarshal(plain, s); err != nil {
			return nil, fmt.Errorf("read a session token: %w", err)
		}
		for _, text := range s.Policies {
			p, err := ParsePolicy(text, IdentityPolicy)
			if err != nil {
				return nil, fmt.Errorf("read a session token: %w", err)
			}
			s.parsed = append(s.parsed, p)
		}
		d.mu.Lock()
		if len(d.sessions) >= maxOpenedSessions {
			clear(d.sessions)
		}
		d.sessions[string([]byte(token))] = s
		d.mu.Unlock()
	}
	if s.AccessKey != accessKey {
		return nil, sigv4.ErrUnknownKey
	}
	if d.options.Now().Unix() >= s.Expires {
		return nil, sigv4.ErrExpiredToken
	}
	return s, nil
}

func (d *Directory) sessionIdentity(s *session) (*Identity, error) {
	id := &Identity{}
	switch {
	case s.Role == "":
		d.mu.RLock()
		of, err := d.identityLocked(s.Account, s.User, s.AccessKey)
		d.mu.RUnlock()
		if err != nil {
			return nil, err
		}
		id = of
	default:
		r, ok := d.Role(s.Role)
		// A role that was deleted and made again is another one.
		if ok && r.ID == s.RoleID {
			id.Policies = r.parsed
		} else if !s.Open {
			return nil, sigv4.ErrUnknownKey
		}
		name := s.Role[strings.LastIndexByte(s.Role, '/')+1:]
		id.Principal = api.Principal{
			AccountID: s.Account, Type: "AssumedRole", AccessKey: s.AccessKey,
			ARN:    "arn:aws:sts::" + s.Account + ":assumed-role/" + name + "/" + s.Name,
			UserID: s.RoleID + ":" + s.Name, SessionIssuer: s.Role,
		}
	}
	id.Expires = time.Unix(s.Expires, 0).UTC()
	id.Session, id.Tags, id.SourceIdentity = s.parsed, s.Tags, s.Source
	return id, nil
}
