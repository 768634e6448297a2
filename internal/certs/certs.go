// Package certs gives the server the certificates it serves TLS with.
//
// The one idea: a server that nobody gave a certificate is its own authority.
// The authority is made once and kept, so that clients which were told to trust
// it go on doing so; the certificate that it issues is made again whenever the
// names change or its end comes near. Files given by the operator are used
// instead, and read again when they change.
//
// Start reading at Open (own authority) and Watch (files).
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of the files in the data directory.
const (
	Directory = "tls"
	caCert    = "ca.pem"
	caKey     = "ca-key.pem"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 397 * 24 * time.Hour // the longest that browsers take
	renewal  = 30 * 24 * time.Hour  // before the end
	backdate = time.Hour            // for clients whose clocks are behind
)

// Authority issues the server's certificate.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	pem   []byte
	names []string
	now   func() time.Time

	mu     sync.Mutex
	issued *tls.Certificate
}

// Open reads the authority from dir, or makes it there. An empty dir keeps it
// in memory. names are host names and addresses for the certificate.
func Open(dir string, names []string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	a := &Authority{names: names, now: now}
	if dir != "" {
		err := a.read(dir)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return a, err
		}
	}
	if err := a.create(); err != nil {
		return nil, err
	}
	if dir == "" {
		return a, nil
	}
	return a, a.write(dir)
}

// ReadPEM returns the authority's certificate that dir holds.
func ReadPEM(dir string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, caCert)) }

// PEM is the authority's certificate, which clients must trust.
func (a *Authority) PEM() []byte { return slices.Clone(a.pem) }

func (a *Authority) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of the certificate authority: %w", err)
	}
	host, _ := os.Hostname()
	now := a.now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "millrace authority of " + host, Organization: []string{"millrace"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the certificate authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return nil
}

func (a *Authority) read(dir string) error {
	certFile, keyFile := filepath.Join(dir, caCert), filepath.Join(dir, caKey)
	raw, err := os.ReadFile(certFile)
	if err != nil {
		return err
	}
	rawKey, err := os.ReadFile(keyFile)
	if err != nil {
		// Not wrapped: a missing key is not a missing authority.
		return fmt.Errorf("certificate authority: %s is there but its key cannot be read: %v", certFile, errors.Unwrap(err))
	}
	pair, err := tls.X509KeyPair(raw, rawKey)
	if err != nil {
		return fmt.Errorf("certificate authority in %s: %w; remove the directory to have a new one made", dir, err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return fmt.Errorf("certificate authority in %s: not an authority; remove the directory to have a new one made", dir)
	}
	if a.now().After(pair.Leaf.NotAfter) {
		return fmt.Errorf("certificate authority in %s: expired on %s; remove the directory to have a new one made", dir, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	a.cert, a.key, a.pem = pair.Leaf, signer, raw
	return nil
}

// write stores the key first: a certificate is proof of a complete authority.
func (a *Authority) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("store the certificate authority: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("store the certificate authority: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{caKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600},
		{caCert, a.pem, 0o644},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path+".new", f.data, f.mode); err != nil {
			return fmt.Errorf("store the certificate authority: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("store the certificate authority: %w", err)
		}
	}
	return nil
}

// Certificate implements tls.Config.GetCertificate. It issues the certificate
// when it is first needed and again before it ends.
func (a *Authority) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.issued != nil && a.now().Before(a.issued.Leaf.NotAfter.Add(-renewal)) {
		return a.issued, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the certificate's key: %w", err)
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "millrace"},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(certLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range a.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a.issued = &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return a.issued, nil
}

func serial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:])
	raw[0] &= 0x7f
	return new(big.Int).SetBytes(raw[:])
}

// Names are what a certificate of this machine should be for: localhost in all
// its forms, the machine's name, and further names, each once.
func Names(further ...string) []string {
	names := []string{"localhost", "*.localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	for _, n := range further {
		n = strings.Trim(n, "[]")
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Files is a certificate that somebody else maintains.
type Files struct {
	cert, key string
	now       func() time.Time

	mu      sync.Mutex
	looked  time.Time
	changed [2]time.Time
	pair    *tls.Certificate
	failed  func(error)
}

// lookEvery bounds how often files are looked at, and how old a certificate can
// be.
const lookEvery = 5 * time.Second

// Watch reads a certificate chain and its key, and reads them again when one of
// the files has changed. A change that cannot be read is given to failed and the
// former certificate served on.
func Watch(cert, key string, now func() time.Time, failed func(error)) (*Files, error) {
	if now == nil {
		now = time.Now
	}
	f := &Files{cert: cert, key: key, now: now, failed: failed}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Files) load() error {
	f.looked = f.now()
	var changed [2]time.Time
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		changed[i] = info.ModTime()
	}
	if f.pair != nil && changed == f.changed {
		return nil
	}
	f.changed = changed
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", f.cert, f.key, err)
	}
	f.pair = &pair
	return nil
}

// Certificate implements tls.Config.GetCertificate.
func (f *Files) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.looked) >= lookEvery {
		if err := f.load(); err != nil {
			f.failed(err)
		}
	}
	return f.pair, nil
}
