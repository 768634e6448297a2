package awsjson

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzBase64 holds the in-place decoder against the standard library: the same
// texts are accepted, and a refused text is left as it was.
func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "AAAA", "AAA=", "AA==", "AAB=", "A===", "====", "AA=A", "AAA", "QUJD\n\n\n\n", "QUJD\r\nAA", strings.Repeat("QUJD", 40) + "!AAA" + strings.Repeat("QUJD", 40)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkBase64(t, text) })
}

func checkBase64(t *testing.T, text []byte) {
	t.Helper()
	want, err := base64.StdEncoding.Strict().DecodeString(string(text))
	valid := err == nil && !bytes.ContainsAny(text, "\r\n")
	for _, inPlace := range []bool{true, false} {
		src := bytes.Clone(text)
		dst := src
		if !inPlace {
			dst = make([]byte, len(src)/4*3)
		}
		n, bad := decodeBase64(dst, src)
		if valid != (bad == nil) {
			t.Fatalf("in place %v: %q: valid is %v, got %v", inPlace, text, valid, bad)
		}
		if valid && !bytes.Equal(dst[:n], want) {
			t.Fatalf("in place %v: %q decodes to %x, want %x", inPlace, text, dst[:n], want)
		}
		if !valid && !bytes.Equal(src, text) {
			t.Fatalf("in place %v: %q was left as %q", inPlace, text, src)
		}
	}
}

// Every length with a mistake at every place, and none.
func TestBase64AgreesWithTheStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for size := range 200 {
		raw := make([]byte, size)
		for i := range raw {
			raw[i] = byte(rng.Uint32())
		}
		text := []byte(base64.StdEncoding.EncodeToString(raw))
		checkBase64(t, text)
		for at := range text {
			for _, c := range []byte("=-\n\x00\xff B") {
				bad := bytes.Clone(text)
				bad[at] = c
				checkBase64(t, bad)
			}
		}
		for cut := 1; cut < 4 && cut <= len(text); cut++ {
			checkBase64(t, text[:len(text)-cut])
		}
	}
}
