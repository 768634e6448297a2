package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func policy(t *testing.T, mode string, allow ...string) Policy {
	t.Helper()
	p, err := ParsePolicy(mode, allow)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, host, addr string
		// allowed are the modes that allow it: o(pen), p(ublic), l(ist)
		allow   []string
		allowed string
	}{
		{"public", "example.com", "93.184.216.34:443", nil, "op"},
		{"public IPv6", "example.com", "[2606:2800:220:1::1]:443", nil, "op"},
		{"loopback", "localhost", "127.0.0.1:80", nil, "o"},
		{"loopback IPv6", "", "[::1]:80", nil, "o"},
		{"loopback, mapped", "", "[::ffff:127.0.0.1]:80", nil, "o"},
		{"private", "", "10.0.0.1:80", nil, "o"},
		{"private IPv6", "", "[fd12::1]:80", nil, "o"},
		{"carrier grade", "", "100.64.0.1:80", nil, "o"},
		{"this host", "", "0.0.0.0:80", nil, "o"},
		{"metadata", "", "169.254.169.254:80", nil, ""},
		{"metadata, mapped", "", "[::ffff:169.254.169.254]:80", nil, ""},
		{"metadata, translated", "", "[64:ff9b::a9fe:a9fe]:80", nil, ""},
		{"metadata, 6to4", "", "[2002:a9fe:a9fe::1]:80", nil, ""},
		{"metadata, compatible", "", "[::a9fe:a9fe]:80", nil, ""},
		{"metadata IPv6", "", "[fd00:ec2::254]:80", nil, ""},
		{"metadata of tasks", "", "169.254.170.2:80", nil, ""},
		{"metadata through a name", "metadata.example.com", "169.254.169.254:80", []string{"metadata.example.com"}, ""},
		{"metadata, meant", "", "169.254.169.254:80", []string{"169.254.169.254"}, "opl"},
		{"metadata, another port meant", "", "169.254.169.254:80", []string{"169.254.169.254:8080"}, ""},
		{"link-local IPv6", "", "[fe80::1%eth0]:80", nil, ""},
		{"multicast", "", "224.0.0.1:80", []string{"224.0.0.0/4"}, ""},
		{"broadcast", "", "255.255.255.255:80", []string{"0.0.0.0/0"}, ""},
		{"prefix", "", "10.1.2.3:80", []string{"10.1.0.0/16"}, "opl"},
		{"prefix, other port", "", "10.1.2.3:80", []string{"10.1.0.0/16:81"}, "o"},
		{"name", "Hec.Example.com.", "10.1.2.3:8088", []string{"hec.example.com:8088"}, "opl"},
		{"name, other port", "hec.example.com", "10.1.2.3:8089", []string{"hec.example.com:8088"}, "o"},
		{"below a name", "a.b.example.com", "10.1.2.3:80", []string{"*.example.com"}, "opl"},
		{"the name itself is not below it", "example.com", "10.1.2.3:80", []string{"*.example.com"}, "o"},
		{"a name that only ends alike", "badexample.com", "10.1.2.3:80", []string{"*.example.com"}, "o"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, mode := range []string{Open, Public, List} {
				err := policy(t, mode, c.allow...).Check(c.host, netip.MustParseAddrPort(c.addr))
				if want := strings.Contains(c.allowed, mode[:1]); (err == nil) != want {
					t.Errorf("%s: %v", mode, err)
				}
				var refused *RefusedError
				if err != nil && (!errors.As(err, &refused) || Explain(err) != Refused) {
					t.Errorf("%s: %T", mode, err)
				}
			}
		})
	}
}

func TestParseRule(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"10.1.2.3/8", "10.0.0.0/8"},
		{"10.1.2.3", "10.1.2.3/32"},
		{"10.1.2.3:80", "10.1.2.3/32:80"},
		{"10.1.0.0/16:80", "10.1.0.0/16:80"},
		{"::1", "::1/128"},
		{"[::1]:80", "[::1/128]:80"},
		{"[fd00::/8]:80", "[fd00::/8]:80"},
		{"::ffff:10.0.0.1", "10.0.0.1/32"},
		{"Example.COM.", "example.com"},
		{"*.example.com:443", "*.example.com:443"},
		{"", ""}, {"*", ""}, {"10.0.0.0/33", ""}, {"10.0.0.300", ""}, {"a b", ""}, {"http://a", ""}, {"a:0", ""}, {"a:http", ""}, {"a:70000", ""}, {"*.*.a", ""},
	} {
		r, err := ParseRule(c.text)
		if (err == nil) != (c.want != "") || (err == nil && r.String() != c.want) {
			t.Errorf("%q: %v, %v; want %q", c.text, r, err, c.want)
		}
		if err == nil {
			if again, err := ParseRule(r.String()); err != nil || again != r {
				t.Errorf("%q: read back as %v, %v", c.text, again, err)
			}
		}
	}
	if _, err := ParsePolicy("closed", nil); err == nil {
		t.Error("a mode that does not exist")
	}
	if _, err := ParsePolicy(List, []string{"10.0.0.0/99"}); err == nil {
		t.Error("a rule that does not exist")
	}
}

func client(t *testing.T, o Options) *http.Client {
	t.Helper()
	c, err := Client(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.Do(request)
	if err == nil {
		t.Cleanup(func() { _ = response.Body.Close() })
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	}
	return response, err
}

// The check stands behind the resolver: localhost is a name, its address is not
// seen before the connect call.
func TestTheResolvedAddressIsJudged(t *testing.T) {
	hits := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, c := range []struct {
		policy Policy
		ok     bool
	}{
		{policy(t, Open), true},
		{policy(t, Public), false},
		{policy(t, List), false},
		{policy(t, List, "localhost:"+port), true},
		{policy(t, Public, "127.0.0.0/8", "::1"), true},
		{Policy{}, false},
	} {
		before := hits
		_, err := get(t, client(t, Options{Policy: c.policy}), "http://localhost:"+port)
		if (err == nil) != c.ok || (hits > before) != c.ok {
			t.Errorf("%+v: %v, %d requests", c.policy, err, hits-before)
		}
		if !c.ok && Explain(err) != Refused {
			t.Errorf("%+v: kind %d of %v", c.policy, Explain(err), err)
		}
	}
	if _, err := (Policy{AllowPrivate: true}).DialContext(t.Context(), "udp", "127.0.0.1:53"); Explain(err) != Refused {
		t.Errorf("udp: %v", err)
	}
}

func TestRedirectsAndEncodingsAreAnswers(t *testing.T) {
	hits := 0
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer inner.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Values("Accept-Encoding"); len(v) != 0 {
			t.Errorf("Accept-Encoding %v", v)
		}
		http.Redirect(w, r, inner.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	t.Setenv("HTTP_PROXY", inner.URL)
	response, err := get(t, client(t, Options{Policy: policy(t, Open)}), server.URL)
	if err != nil || response.StatusCode != http.StatusTemporaryRedirect || hits != 0 {
		t.Errorf("%v, %v, %d requests behind the redirect", response, err, hits)
	}
}

// raw serves one answer for every connection, byte for byte.
func raw(t *testing.T, answer func(net.Conn)) string {
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
			answer(c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		group.Wait()
	})
	return listener.Addr().String()
}

func reply(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
	}
}

// Every kind is produced by a real peer, so that it shows when the library says
// it in other words.
func TestExplain(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer secure.Close()
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	mutual := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	mutual.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	mutual.StartTLS()
	defer mutual.Close()
	for _, s := range []*httptest.Server{secure, old, mutual} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
	}
	closed := raw(t, func(net.Conn) {})
	trust := func(s *httptest.Server, o *http.Client) {
		o.Transport.(*http.Transport).TLSClientConfig.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	for _, c := range []struct {
		name, url string
		adjust    func(*http.Client)
		header    string
		want      Fault
	}{
		{"unknown authority", secure.URL, nil, "", CertificatePath},
		{"another name", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), func(c *http.Client) { trust(secure, c) }, "", CertificateInvalid},
		{"too old", old.URL, func(c *http.Client) { trust(old, c) }, "", TLSHandshake},
		{"our certificate is wanted", mutual.URL, func(c *http.Client) { trust(mutual, c) }, "", TLSHandshake},
		{"clear text where TLS is meant", "https://" + raw(t, reply("HTTP/1.1 400 Bad Request\r\n\r\n")), nil, "", TLSHandshake},
		{"closed in the handshake", "https://" + closed, nil, "", Reset},
		{"nobody listens", "http://127.0.0.1:1", nil, "", ConnectFailed},
		{"no such name", "http://no-such-host.invalid", nil, "", ConnectFailed},
		{"closed without an answer", "http://" + closed, nil, "", Reset},
		{"closed within the head", "http://" + raw(t, reply("HTTP/1.1 200 OK\r\nX: y\r\n")), nil, "", Reset},
		{"no HTTP", "http://" + raw(t, reply("SSH-2.0-OpenSSH_9.2\r\n")), nil, "", IllegalStart},
		{"no status", "http://" + raw(t, reply("HTTP/1.1 abc OK\r\n\r\n")), nil, "", IllegalStart},
		{"a malformed header", "http://" + raw(t, reply("HTTP/1.1 200 OK\r\nno colon\r\n\r\n")), nil, "", IllegalResponse},
		{"two lengths", "http://" + raw(t, reply("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12")), nil, "", IllegalResponse},
		{"a length that is none", "http://" + raw(t, reply("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n12")), nil, "", IllegalResponse},
		{"a strange transfer encoding", "http://" + raw(t, reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: pigeon\r\n\r\n")), nil, "", IllegalResponse},
		{"headers without end", "http://" + raw(t, reply("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 256<<10)+"\r\n\r\n")), nil, "", HeadersTooLarge},
		{"another scheme", "ftp://127.0.0.1/", nil, "", BadURL},
		{"no host", "http:///x", nil, "", BadURL},
		{"not a URL", "http://127.0.0.1:x/", nil, "", BadURL},
		{"an illegal header", secure.URL, nil, "a\nb", BadHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := client(t, Options{Policy: policy(t, Open)})
			if c.adjust != nil {
				c.adjust(h)
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
			if err == nil {
				if c.header != "" {
					request.Header.Set("X-Test", c.header)
				}
				var response *http.Response
				if response, err = h.Do(request); err == nil {
					_ = response.Body.Close()
					t.Fatal("no error")
				}
			}
			if got := Explain(err); got != c.want {
				t.Errorf("kind %d, want %d: %v", got, c.want, err)
			}
		})
	}
}

func TestExplainTime(t *testing.T) {
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-held }))
	defer server.Close()
	defer close(held)
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	for _, c := range []struct {
		name string
		ctx  func() (context.Context, context.CancelFunc)
		want []Fault
	}{
		{"over before it begins", func() (context.Context, context.CancelFunc) { return ctx, func() {} }, []Fault{Timeout, ConnectTimeout}},
		{"no answer", func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), 50e6) }, []Fault{Timeout}},
		{"given up", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, func() {}
		}, []Fault{Canceled}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := c.ctx()
			defer cancel()
			request, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
			response, err := client(t, Options{Policy: policy(t, Open)}).Do(request)
			if err == nil {
				_ = response.Body.Close()
			}
			if got := Explain(err); !slices.Contains(c.want, got) {
				t.Errorf("kind %d of %v", got, err)
			}
		})
	}
	if Explain(nil) != Other || Explain(io.ErrShortBuffer) != Other {
		t.Error("what is nothing special is not Other")
	}
}

func TestTLSFiles(t *testing.T) {
	for _, c := range []struct {
		tls  TLS
		want string
	}{
		{TLS{CAFile: "missing.pem"}, "no such file"},
		{TLS{CAFile: "outbound.go"}, "holds no certificate"},
		{TLS{CertFile: "a.pem"}, "go together"},
		{TLS{CertFile: "a.pem", KeyFile: "b.pem"}, "no such file"},
	} {
		if _, err := Client(Options{TLS: c.tls}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.tls, err)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "[::1]:80", "*.a.b:1", "a", "::", "1.2.3.4/5:6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(text)
		if err != nil {
			return
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Errorf("%q is %q, which is %v, %v", text, r, again, err)
		}
	})
}
