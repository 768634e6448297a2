package httpendpoint

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/outbound"
)

func writeCA(t *testing.T, s *httptest.Server, name string) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// peer answers every request with what answer makes of its id, byte for byte.
func peer(t *testing.T, answer func(c net.Conn, id string)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				q, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, q.Body)
				answer(c, q.Header.Get("X-Amz-Firehose-Request-Id"))
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		group.Wait()
	})
	return "http://" + listener.Addr().String()
}

// reply is an answer with the headers of the contract; ID stands for the id and
// LEN for the length of the body.
func reply(status, head, body string) func(net.Conn, string) {
	return func(c net.Conn, id string) {
		body := strings.ReplaceAll(body, "ID", id)
		head := strings.ReplaceAll(strings.ReplaceAll(head, "\n", "\r\n"), "LEN", fmt.Sprint(len(body)))
		fmt.Fprintf(c, "HTTP/1.1 %s\r\n%sConnection: close\r\n\r\n%s", status, head, body)
	}
}

const (
	good = "Content-Type: application/json\nContent-Length: LEN\n"
	ok   = `{"requestId":"ID","timestamp":1578090903599}`
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, status, head, body string
		code, message            string
	}{
		{"success", "200 OK", good, ok, "", ""},
		{"parameters of the type", "200 OK", "Content-Type: application/json; charset=utf-8\nContent-Length: LEN\n", ok, "", ""},
		{"further members", "200 OK", good, `{"requestId":"ID","timestamp":1,"x":{},"errorMessage":null}`, "", ""},
		{"success with a message", "200 OK", good, `{"requestId":"ID","timestamp":1,"errorMessage":"fine"}`, "", ""},

		{"another 2xx", "202 Accepted", good, ok, "InvalidStatusCode", "202"},
		{"no content", "204 No Content", "", "", "InvalidStatusCode", "204"},
		{"a redirect", "307 Temporary Redirect", "Location: http://127.0.0.1:1/\nContent-Length: 0\n", "", "InvalidStatusCode", "not followed"},
		{"told what is wrong", "400 Bad Request", good, `{"requestId":"ID","timestamp":1,"errorMessage":"no such dataset"}`, "DestinationException", "no such dataset"},
		{"forbidden", "403 Forbidden", good, `{"requestId":"ID","timestamp":1,"errorMessage":"key"}`, "DestinationException", "403"},
		{"not told", "500 Internal Server Error", good, ok, "DestinationException", "500"},
		{"no body at all", "503 Service Unavailable", "Content-Length: 0\n", "", "DestinationException", "503"},
		{"an error page", "502 Bad Gateway", "Content-Type: text/html\nContent-Length: LEN\n", "<html>no</html>", "InvalidResponseFromDestination", "<html>no"},

		{"no body", "200 OK", "Content-Type: application/json\nContent-Length: 0\n", "", "InvalidResponseFromDestination", "no body"},
		{"no length", "200 OK", "Content-Type: application/json\n", ok, "InvalidResponseFromDestination", "no Content-Length"},
		{"in chunks", "200 OK", "Content-Type: application/json\nTransfer-Encoding: chunked\n", "2\r\n{}\r\n0\r\n\r\n", "InvalidResponseFromDestination", "no Content-Length"},
		{"encoded", "200 OK", good + "Content-Encoding: identity\n", ok, "InvalidResponseFromDestination", "Content-Encoding"},
		{"no type", "200 OK", "Content-Length: LEN\n", ok, "InvalidResponseFromDestination", "Content-Type"},
		{"another type", "200 OK", "Content-Type: text/plain\nContent-Length: LEN\n", ok, "InvalidResponseFromDestination", "Content-Type"},
		{"two types", "200 OK", good + "Content-Type: application/json\n", ok, "IllegalResponseFailure", "more than one Content-Type"},
		{"not JSON", "200 OK", good, "OK", "InvalidResponseFromDestination", "not a JSON object"},
		{"null", "200 OK", good, "null", "InvalidResponseFromDestination", "not a JSON object"},
		{"a list", "200 OK", good, "[]", "InvalidResponseFromDestination", "not a JSON object"},
		{"something behind it", "200 OK", good, ok + "x", "InvalidResponseFromDestination", "not a JSON object"},
		{"no id", "200 OK", good, `{"timestamp":1}`, "InvalidResponseFromDestination", "no requestId"},
		{"a number as id", "200 OK", good, `{"requestId":1,"timestamp":1}`, "InvalidResponseFromDestination", "no requestId"},
		{"another id", "200 OK", good, `{"requestId":"ed4acda5-034f-9f42-bba1-f29aea6d7d8f","timestamp":1}`, "InvalidResponseFromDestination", "not that of the request"},
		{"names in other case", "200 OK", good, `{"RequestId":"ID","timestamp":1}`, "InvalidResponseFromDestination", "no requestId"},
		{"no timestamp", "200 OK", good, `{"requestId":"ID"}`, "InvalidResponseFromDestination", "no timestamp"},
		{"a string as timestamp", "200 OK", good, `{"requestId":"ID","timestamp":"1578090903599"}`, "InvalidResponseFromDestination", "not a number"},
		{"a fraction as timestamp", "200 OK", good, `{"requestId":"ID","timestamp":1.5}`, "InvalidResponseFromDestination", "not a number"},
		{"null as timestamp", "200 OK", good, `{"requestId":"ID","timestamp":null}`, "InvalidResponseFromDestination", "not a number"},
		{"an endless message", "500 No", good, `{"requestId":"ID","timestamp":1,"errorMessage":"` + strings.Repeat("x", 8193) + `"}`, "InvalidResponseFromDestination", "longer than 8192"},
		{"a message that is none", "500 No", good, `{"requestId":"ID","timestamp":1,"errorMessage":{}}`, "InvalidResponseFromDestination", "not a string"},
		{"a long reason", "200 " + strings.Repeat("O", 65), good, ok, "ResponseReasonPhraseExceededLimit", "64"},
		{"just not too long a reason", "200 " + strings.Repeat("O", 64), good, ok, "", ""},
		{"a large body", "200 OK", good, `{"requestId":"ID","timestamp":1,"x":"` + strings.Repeat("x", 1<<20) + `"}`, "ResponseTooLarge", "1 MiB"},
		{"a large body in chunks", "200 OK", "Content-Type: application/json\nTransfer-Encoding: chunked\n", "200000\r\n" + strings.Repeat("x", 2<<20) + "\r\n0\r\n\r\n", "ResponseTooLarge", "1 MiB"},
		{"a large head", "200 OK", "X: " + strings.Repeat("x", 700<<10) + "\n" + good, `{"requestId":"ID","timestamp":1,"x":"` + strings.Repeat("x", 400<<10) + `"}`, "ResponseTooLarge", "1 MiB"},
		{"headers without end", "200 OK", "X: " + strings.Repeat("x", 2<<20) + "\n", "", "ResponseTooLarge", "1 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, Config{URL: peer(t, reply(c.status, c.head, c.body))})
			_, err := d.Deliver(t.Context(), batch(2, 10))
			var e *dest.Error
			switch {
			case c.code == "" && err != nil:
				t.Error(err)
			case c.code == "":
			case !errors.As(err, &e) || e.Code != "HttpEndpoint."+c.code || e.Permanent:
				t.Errorf("got %v, want %s", err, c.code)
			case !strings.Contains(e.Message, c.message):
				t.Errorf("no %q in %s", c.message, e.Message)
			case len(e.Message) > 10_000:
				t.Errorf("a message of %d bytes", len(e.Message))
			}
		})
	}
}

func TestStringTimestamps(t *testing.T) {
	d := open(t, Config{URL: peer(t, reply("200 OK", good, `{"requestId":"ID","timestamp":"1578090903599"}`)), StringTimestamps: true})
	if _, err := d.Deliver(t.Context(), batch(1, 1)); err != nil {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "100000": 2 * time.Minute, "-1": 0, "soon": 0} {
		d := open(t, Config{URL: peer(t, reply("429 Too Many", good+"Retry-After: "+header+"\n", ok))})
		_, err := d.Deliver(t.Context(), batch(1, 1))
		var e *dest.Error
		if !errors.As(err, &e) || e.After != want {
			t.Errorf("%s: %v", header, err)
		}
	}
}

// Peers that do everything wrong; none of them is told the records are safe, and
// none holds the delivery longer than it may.
func TestHostilePeers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(net.Conn, string)
		codes  string
	}{
		{"says nothing and closes", func(net.Conn, string) {}, "ConnectionReset"},
		{"closes within the head", func(c net.Conn, _ string) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y\r\n") }, "ConnectionReset"},
		{"closes within the body", func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		}, "ConnectionReset"},
		{"a body that is longer than it says", func(c net.Conn, id string) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{\"requestId\":%q,\"timestamp\":1}", id)
		}, "InvalidResponseFromDestination"},
		{"speaks something else", func(c net.Conn, _ string) { io.WriteString(c, "220 mail ESMTP\r\n") }, "IllegalMessageStart"},
		{"two lengths", reply("200 OK", good+"Content-Length: 3\n", ok), "IllegalResponseFailure"},
		{"a length that is none", reply("200 OK", "Content-Type: application/json\nContent-Length: many\n", ok), "IllegalResponseFailure"},
		{"a header without a colon", reply("200 OK", good+"nonsense\n", ok), "IllegalResponseFailure"},
		{"endless interim answers", func(c net.Conn, id string) {
			for range 1_000_000 {
				if _, err := io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return
				}
			}
		}, "ConnectionFailed ResponseTooLarge RequestTimeout ConnectionReset IllegalMessageStart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, Config{URL: peer(t, c.answer) + "/path/with/TOKEN?t=TOKEN", AccessKey: "SECRET", Timeout: 300 * time.Millisecond})
			result, err := d.Deliver(t.Context(), batch(2, 10))
			var e *dest.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v, %+v", err, result)
			}
			found := false
			for _, code := range strings.Fields(c.codes) {
				found = found || e.Code == "HttpEndpoint."+code
			}
			if !found || e.Permanent {
				t.Errorf("got %v, want %s", err, c.codes)
			}
			if strings.Contains(e.Message, "TOKEN") || strings.Contains(e.Message, "SECRET") {
				t.Errorf("the message tells secrets: %s", e.Message)
			}
		})
	}
}

// certificate makes a server that shows one, signed by an authority that goes
// into ca.
func certificate(t *testing.T, ca string, change func(*x509.Certificate)) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(leaf)
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(&receiver{t: t})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

func TestTLSFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		leaf   func(*x509.Certificate)
		server func(*httptest.Server)
		tls    outbound.TLS
		url    func(string) string
		want   string
	}{
		{"in order", nil, nil, outbound.TLS{}, nil, ""},
		{"an authority that is not ours", nil, nil, outbound.TLS{CAFile: "none"}, nil, "SSLHandshakeCertificatePathFailure"},
		{"not asked about", nil, nil, outbound.TLS{CAFile: "none", InsecureSkipVerify: true}, nil, ""},
		{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, nil, outbound.TLS{}, nil, "SSLHandshakeCertificatePathValidationFailure"},
		{"for another host", func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other.test"} }, nil, outbound.TLS{}, nil, "SSLHandshakeCertificatePathValidationFailure"},
		{"for the host that is meant", func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other.test"} }, nil, outbound.TLS{ServerName: "other.test"}, nil, ""},
		{"for clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, nil, outbound.TLS{}, nil, "SSLHandshakeCertificatePathValidationFailure"},
		{"an old protocol", nil, func(s *httptest.Server) { s.TLS.MinVersion, s.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, outbound.TLS{}, nil, "SSLHandshakeFailure"},
		{"clear text", nil, nil, outbound.TLS{}, func(u string) string { return u }, "SSLHandshakeFailure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := filepath.Join(t.TempDir(), "ca.pem")
			change := c.leaf
			if change == nil {
				change = func(*x509.Certificate) {}
			}
			s := certificate(t, ca, change)
			if c.server != nil {
				c.server(s)
			}
			if c.url != nil {
				s.Start()
			} else {
				s.StartTLS()
			}
			defer s.Close()
			if c.tls.CAFile == "none" {
				other := filepath.Join(t.TempDir(), "other.pem")
				certificate(t, other, func(*x509.Certificate) {}).Listener.Close()
				c.tls.CAFile = other
			} else {
				c.tls.CAFile = ca
			}
			d := open(t, Config{URL: strings.Replace(s.URL, "http:", "https:", 1), TLS: c.tls})
			_, err := d.Deliver(t.Context(), batch(1, 1))
			var e *dest.Error
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!errors.As(err, &e) || e.Code != "HttpEndpoint."+c.want || e.Permanent):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAddressesThatAreNotAllowed(t *testing.T) {
	hits := 0
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer inner.Close()
	for _, c := range []struct {
		url    string
		policy outbound.Policy
		code   string
	}{
		{"http://169.254.169.254/latest/meta-data/", anywhere, "ConnectionFailed"},
		{"http://[fd00:ec2::254]/", anywhere, "ConnectionFailed"},
		{inner.URL, outbound.Policy{}, "ConnectionFailed"},
		{"ftp://127.0.0.1/", anywhere, "MakeRequestFailure.IllegalUriException"},
		{"https://", anywhere, "MakeRequestFailure.IllegalUriException"},
		{"http://127.0.0.1:http/", anywhere, "MakeRequestFailure.IllegalUriException"},
		{"%zz", anywhere, "MakeRequestFailure.IllegalUriException"},
	} {
		d, err := New(Config{URL: c.url}, Deps{Policy: c.policy})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Deliver(t.Context(), batch(1, 1))
		var e *dest.Error
		if !errors.As(err, &e) || e.Code != "HttpEndpoint."+c.code {
			t.Errorf("%s: %v", c.url, err)
		}
	}
	// A redirect leads nowhere, and so does a key that breaks the header.
	redirect := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusFound))
	defer redirect.Close()
	if _, err := open(t, Config{URL: redirect.URL}).Deliver(t.Context(), batch(1, 1)); err == nil || hits != 0 {
		t.Errorf("%v, %d requests behind the redirect", err, hits)
	}
	_, err := open(t, Config{URL: inner.URL, AccessKey: "a\nX-Evil: 1"}).Deliver(t.Context(), batch(1, 1))
	var e *dest.Error
	if !errors.As(err, &e) || e.Code != "HttpEndpoint.MakeRequestFailure.IllegalCharacterInHeaderValue" || strings.Contains(e.Message, "Evil") {
		t.Errorf("%v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"requestId":"ID","timestamp":1}`, `{"requestId":"ID","timestamp":"1","errorMessage":"x"}`, `{}`, `null`, `[]`, `{"timestamp":1e400}`, `{"requestId":"ID","timestamp":"}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, lenient bool) {
		_, why := decode(body, "ID", lenient)
		if why == "" && (!bytes.Contains(body, []byte("timestamp")) && !bytes.Contains(body, []byte(`\u`))) {
			t.Errorf("%q passes", body)
		}
	})
}

func BenchmarkDeliver(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		answer(w, 200, q.Header.Get("X-Amz-Firehose-Request-Id"), "")
	}))
	defer server.Close()
	for _, zip := range []bool{false, true} {
		b.Run(fmt.Sprintf("size=1KiB/gzip=%v", zip), func(b *testing.B) {
			d, err := New(Config{URL: server.URL, GZIP: zip}, Deps{Policy: anywhere})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			in := batch(5000, 1024)
			b.SetBytes(5000 * 1024)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Deliver(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
