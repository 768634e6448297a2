package snowflake

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Keys in testdata were made with OpenSSL, whose command stands in each name's
// line of testdata/README.md; the passphrase of all is "correct horse".
func TestParseKey(t *testing.T) {
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	bare := func(pem string) string {
		var b strings.Builder
		for line := range strings.Lines(pem) {
			if !strings.HasPrefix(line, "-----") {
				b.WriteString(strings.TrimSpace(line))
			}
		}
		return b.String()
	}
	plain := read("key.plain.pem")
	want, err := parseKey(plain, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text, passphrase, err string
	}{
		{"PEM", plain, "", ""},
		{"without armour and line breaks", bare(plain), "", ""},
		{"AES-256", read("key.aes256.pem"), "correct horse", ""},
		{"AES-256, without armour", bare(read("key.aes256.pem")), "correct horse", ""},
		{"AES-128", read("key.aes128.pem"), "correct horse", ""},
		{"triple DES, SHA-1", read("key.des3.pem"), "correct horse", ""},
		{"SHA-512, many rounds", read("key.sha512.pem"), "correct horse", ""},
		{"another passphrase", read("key.aes256.pem"), "wrong", "passphrase"},
		{"no passphrase", read("key.aes256.pem"), "", "encrypted with another passphrase"},
		{"a passphrase too many", plain, "correct horse", "not encrypted as PKCS#8 with PBES2"},
		{"stretched with scrypt", read("key.scrypt.pem"), "correct horse", "PBKDF2"},
		{"another kind of key", read("key.ec.pem"), "", "not an RSA key"},
		{"not base64", "?", "", "not base64"},
		{"nothing", "", "", "not base64"},
		{"something else", base64.StdEncoding.EncodeToString([]byte("hello")), "", "not PKCS#8"},
		{"far too long", strings.Repeat("A", 40_000), "", "too long"},
		{"cut short", bare(read("key.aes256.pem"))[:800], "correct horse", "PBES2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseKey(c.text, c.passphrase)
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got %v, want %q", err, c.err)
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err == "" && !got.Equal(want):
				t.Error("another key")
			}
		})
	}
}

func FuzzParseKey(f *testing.F) {
	files, err := filepath.Glob("testdata/key.*.pem")
	if err != nil || len(files) == 0 {
		f.Fatal("no keys")
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var b strings.Builder
		for line := range strings.Lines(string(raw)) {
			if !strings.HasPrefix(line, "-----") {
				b.WriteString(strings.TrimSpace(line))
			}
		}
		der, err := base64.StdEncoding.DecodeString(b.String())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		text := base64.StdEncoding.EncodeToString(der)
		if key, err := parseKey(text, ""); (key == nil) == (err == nil) {
			t.Errorf("%v, %v", key, err)
		}
		if len(der) < 400 { // the work of a key is bounded, but not small
			return
		}
	})
}
