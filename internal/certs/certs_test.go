package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// verify checks a certificate the way a client with only the authority would.
func verify(t *testing.T, c *tls.Certificate, authority []byte, name string, at time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("the authority is no PEM")
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at})
	return err
}

func TestTheIssuedCertificateIsForAllNames(t *testing.T) {
	a, err := Open("", Names("kinesis.example.com", "10.0.0.7"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "x.localhost", "kinesis.example.com", "10.0.0.7", host} {
		if err := verify(t, c, a.PEM(), name, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if verify(t, c, a.PEM(), "other.example.com", time.Now()) == nil {
		t.Error("the certificate is for every name")
	}
}

func TestTheAuthorityStaysAndTheNamesMayChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	first, err := Open(dir, Names(), nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(dir, Names("new.example.com"), nil)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := ReadPEM(dir)
	if err != nil || !bytes.Equal(first.PEM(), second.PEM()) || !bytes.Equal(stored, first.PEM()) {
		t.Fatalf("the authority changed, %v", err)
	}
	c, err := second.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, c, first.PEM(), "new.example.com", time.Now()); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, caKey)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
}

func TestTheCertificateIsIssuedAgainBeforeItsEnd(t *testing.T) {
	now := time.Now()
	a, err := Open("", Names(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, _ := a.Certificate(nil)
	now = now.Add(certLife - renewal - 2*time.Hour)
	if same, _ := a.Certificate(nil); same != first {
		t.Error("issued again too early")
	}
	now = now.Add(4 * time.Hour)
	again, err := a.Certificate(nil)
	if err != nil || again == first {
		t.Fatalf("not issued again: %v", err)
	}
	if err := verify(t, again, a.PEM(), "localhost", now.Add(renewal)); err != nil {
		t.Error(err)
	}
}

func TestDamagedAuthoritiesAreNotReplaced(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"key gone":     func(dir string) error { return os.Remove(filepath.Join(dir, caKey)) },
		"cert garbled": func(dir string) error { return os.WriteFile(filepath.Join(dir, caCert), []byte("x"), 0o600) },
		"foreign key": func(dir string) error {
			other, err := Open("", nil, nil)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, caCert), other.PEM(), 0o600)
		},
	} {
		dir := t.TempDir()
		if _, err := Open(dir, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, nil, nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	written := time.Unix(1_700_000_000, 0)
	write := func() {
		a, err := Open("", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.Certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		written = written.Add(time.Minute)
		for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, written, written); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	now := time.Now()
	var failure error
	f, err := Watch(cert, key, func() time.Time { return now }, func(err error) { failure = err })
	if err != nil {
		t.Fatal(err)
	}
	first, _ := f.Certificate(nil)
	write()
	if same, _ := f.Certificate(nil); same != first {
		t.Error("read again at once")
	}
	now = now.Add(lookEvery)
	second, _ := f.Certificate(nil)
	if second == first || failure != nil {
		t.Fatalf("not read again: %v", failure)
	}
	written = written.Add(time.Minute)
	os.WriteFile(cert, []byte("x"), 0o600)
	os.Chtimes(cert, written, written)
	now = now.Add(lookEvery)
	if kept, err := f.Certificate(nil); kept != second || err != nil || failure == nil {
		t.Errorf("a broken file: %v, %v", err, failure)
	}
	if _, err := Watch(filepath.Join(dir, "none"), key, nil, nil); err == nil {
		t.Error("a missing file is accepted")
	}
}
