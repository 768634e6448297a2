package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// selfSigned is a certificate for loopback.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// forms are the five ways to connect to one port.
func forms() map[string]func() http.RoundTripper {
	insecure := func(protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	}
	return map[string]func() http.RoundTripper{
		"h1":           func() http.RoundTripper { return &http.Transport{} },
		"h2c":          func() http.RoundTripper { return h2cTransport() },
		"tls h1":       func() http.RoundTripper { return &http.Transport{TLSClientConfig: insecure("http/1.1")} },
		"tls h1 plain": func() http.RoundTripper { return &http.Transport{TLSClientConfig: insecure()} },
		"tls h2":       func() http.RoundTripper { return &http2.Transport{TLSClientConfig: insecure("h2")} },
		"tls h2 without alpn": func() http.RoundTripper {
			return &http2.Transport{DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
				return (&tls.Dialer{Config: insecure()}).DialContext(ctx, network, address)
			}}
		},
	}
}

func h2cTransport() *http2.Transport {
	return &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

type idleCloser interface{ CloseIdleConnections() }

func TestOnePortServesEveryForm(t *testing.T) {
	w := newWorld(t, worldOptions{server: ServerOptions{TLS: selfSigned(t)}})
	for name, transport := range forms() {
		t.Run(name, func(t *testing.T) {
			rt := transport()
			defer rt.(idleCloser).CloseIdleConnections()
			for range 3 {
				r := w.request(t, prefix+"ListStreams", typeJSON, []byte(`{}`))
				overTLS := strings.HasPrefix(name, "tls")
				if overTLS {
					r.URL.Scheme = "https"
				}
				reply, err := rt.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(reply.Body)
				reply.Body.Close()
				if err != nil || reply.StatusCode != 200 {
					t.Fatalf("%d %s %v", reply.StatusCode, body, err)
				}
				wantMajor := 1
				if strings.Contains(name, "h2") {
					wantMajor = 2
				}
				if reply.ProtoMajor != wantMajor {
					t.Errorf("served over HTTP/%d", reply.ProtoMajor)
				}
				if want := fmt.Sprintf(`"HasMoreStreams":%v`, overTLS); !bytes.Contains(body, []byte(want)) {
					t.Errorf("the call does not know about TLS: %s", body)
				}
			}
		})
	}
}

func TestWithoutTLSAHandshakeIsCutOff(t *testing.T) {
	w := newWorld(t, worldOptions{})
	c, err := tls.Dial("tcp", w.address, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		c.Close()
		t.Fatal("handshake succeeded")
	}
}

// dial opens a raw connection and returns when the server has closed it.
func (w *world) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(30 * time.Second)) // ends a test that has failed
	return c
}

func TestSlowClientsAreCutOff(t *testing.T) {
	w := newWorld(t, worldOptions{server: ServerOptions{TLS: selfSigned(t), HeaderTimeout: 100 * time.Millisecond, IdleTimeout: 100 * time.Millisecond}})
	for name, begin := range map[string]string{
		"says nothing":        "",
		"half a method":       "PO",
		"half a preface":      "PRI * HT",
		"half the headers":    "POST / HTTP/1.1\r\nHost: a\r\nX-",
		"half a handshake":    "\x16\x03\x01\x02",
		"idle after a reply":  "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n",
		"preface and no more": http2.ClientPreface,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := w.dial(t)
			if _, err := io.WriteString(c, begin); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the server keeps the connection: %v", err)
			}
		})
	}
}

func TestOversizeHeadersAreRefused(t *testing.T) {
	w := newWorld(t, worldOptions{})
	huge := strings.Repeat("a", 256<<10)
	t.Run("h1", func(t *testing.T) {
		c := w.dial(t)
		var sending sync.WaitGroup
		sending.Go(func() { io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nX-Big: "+huge+"\r\n\r\n") })
		defer sending.Wait()
		reply, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		if reply.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", reply.StatusCode)
		}
	})
	t.Run("h2", func(t *testing.T) {
		rt := h2cTransport()
		defer rt.CloseIdleConnections()
		r := w.request(t, prefix+"ListStreams", typeJSON, []byte(`{}`))
		r.Header.Set("X-Big", huge)
		reply, err := rt.RoundTrip(r)
		if err != nil {
			return // the client itself may see the advertised limit
		}
		defer reply.Body.Close()
		if reply.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", reply.StatusCode)
		}
	})
}

func TestOversizeBodies(t *testing.T) {
	w := newWorld(t, worldOptions{wire: Options{MaxBody: 1 << 20}})
	for _, chunked := range []bool{false, true} {
		r := w.request(t, prefix+"ListStreams", typeJSON, make([]byte, 1<<20+1))
		if chunked {
			r.ContentLength = -1
		}
		if a := w.do(t, r); a.status != 413 || len(a.body) != 0 {
			t.Errorf("chunked %v: %d %q", chunked, a.status, a.body)
		}
	}
	// A length is not believed until the bytes come.
	c := w.dial(t)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999\r\n\r\n")
	reply, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != 413 {
		t.Errorf("status %d", reply.StatusCode)
	}
}

func TestBodiesTogetherHaveABound(t *testing.T) {
	m := NewMux(Options{MaxBody: 4 << 20, BodyMemory: 4 << 20})
	var first body
	if err := m.grow(t.Context(), &first, 4<<20); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var second body
	if err := m.grow(ctx, &second, 4096); err != nil {
		t.Errorf("a small body waits for large ones: %v", err)
	}
	if err := m.grow(ctx, &second, 1<<20); !errors.Is(err, errNoMemory) {
		t.Errorf("a body beyond the bound gets %v", err)
	}
	m.release(&first)
	if err := m.grow(t.Context(), &second, 4<<20); err != nil {
		t.Errorf("memory did not come back: %v", err)
	}
	m.release(&second)
	m.release(&second)
	if !m.memory.TryAcquire(4<<20) || !m.smallMemory.TryAcquire(1<<20) {
		t.Error("memory is not whole again")
	}
}

// A client that announces much and sends little holds little: what it announces
// is no reason to keep memory from others.
func TestAnnouncedBodiesHoldWhatWasSent(t *testing.T) {
	w := newWorld(t, worldOptions{wire: Options{MaxBody: 16 << 20, BodyMemory: 16 << 20}})
	for range 200 {
		c := w.dial(t)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 15000000\r\n\r\n{")
	}
	for w.mux.InFlight() < 200 {
		runtime.Gosched()
	}
	if !w.mux.memory.TryAcquire(16 << 20) {
		t.Fatal("bodies that have not come hold the memory for those that have")
	}
	w.mux.memory.Release(16 << 20)
}

func TestConnectionsAboveTheLimitAreClosed(t *testing.T) {
	w := newWorld(t, worldOptions{server: ServerOptions{MaxConnections: 2}})
	var kept []net.Conn
	for range 2 {
		c := w.dial(t)
		io.WriteString(c, "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, c)
	}
	if n, err := w.dial(t).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a third connection reads %d, %v", n, err)
	}
	if n := w.server.Connections(); n != 2 {
		t.Errorf("%d connections counted", n)
	}
	kept[0].Close()
	kept[1].Close()
}

// A client that opens and resets streams as fast as it can does not keep others
// from being served, and does not pile up handlers.
func TestRapidResetHurtsNobodyElse(t *testing.T) {
	w := newWorld(t, worldOptions{server: ServerOptions{MaxStreams: 100}})
	c := w.dial(t)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(c, c)
	framer.WriteSettings()
	var drained sync.WaitGroup
	drained.Go(func() { io.Copy(io.Discard, c) })
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range uint32(20_000) {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "a"}} {
			encoder.WriteField(f)
		}
		id := 2*i + 1
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}) != nil ||
			framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // the server has had enough
		}
		if n := w.mux.InFlight(); n > 500 {
			t.Fatalf("%d handlers at once", n)
		}
	}
	if a := w.do(t, w.request(t, prefix+"ListStreams", typeJSON, []byte(`{}`))); a.status != 200 {
		t.Errorf("another client gets %d", a.status)
	}
	c.Close()
	drained.Wait()
}

func TestManyStreamsOnOneConnection(t *testing.T) {
	w := newWorld(t, worldOptions{})
	rt := h2cTransport()
	rt.StrictMaxConcurrentStreams = true
	defer rt.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	const n = 1000
	w.streams = make(chan struct{}, n)
	for range n {
		r := w.request(t, prefix+"SubscribeToShard", typeJSON, subscription("idle")).WithContext(ctx)
		clients.Go(func() {
			reply, err := rt.RoundTrip(r)
			if err == nil {
				io.Copy(io.Discard, reply.Body)
				reply.Body.Close()
			}
		})
	}
	for range n {
		<-w.streams
	}
	if c := w.server.Connections(); c != 1 {
		t.Errorf("%d connections for %d streams", c, n)
	}
	cancel()
	clients.Wait()
}
