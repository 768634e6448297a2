package desttest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Fault is a way in which a peer goes wrong.
type Fault string

// The faults. Unavailable, Nonsense and Oversized need a peer that speaks HTTP
// or brings its own; the others work on any connection.
const (
	Unavailable Fault = "unavailable" // it answers 503, or what that is in its protocol
	Reset       Fault = "reset"       // connections are reset after the request has begun
	Closed      Fault = "closed"      // connections are closed at once, without a word
	Hang        Fault = "hang"        // it takes the request and does not answer
	Garbage     Fault = "garbage"     // bytes of no protocol
	Nonsense    Fault = "nonsense"    // a well-formed reply with a body that means nothing
	Oversized   Fault = "oversized"   // a reply without end
)

// HTTPFaults are those that [HTTP] makes, TCPFaults those of [TCP].
var (
	HTTPFaults = []Fault{Unavailable, Reset, Closed, Hang, Garbage, Nonsense, Oversized}
	TCPFaults  = []Fault{Reset, Closed, Hang, Garbage, Oversized}
)

// endless bounds a reply without end, so that a client which reads it all ends
// in an error of the test and not of the machine.
const endless = 192 << 20

// HTTP is an HTTP server whose answers can be spoilt.
type HTTP struct {
	*httptest.Server
	mu    sync.Mutex
	fault Fault
	heal  chan struct{} // closed when the fault ends
}

// NewHTTP serves handler in clear text, NewHTTPS over TLS with the certificate
// of httptest, until the test ends.
func NewHTTP(t *testing.T, handler http.Handler) *HTTP {
	return start(t, handler, (*httptest.Server).Start)
}

// NewHTTPS is NewHTTP over TLS, with HTTP/2 offered.
func NewHTTPS(t *testing.T, handler http.Handler) *HTTP {
	return start(t, handler, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		s.StartTLS()
	})
}

func start(t *testing.T, handler http.Handler, begin func(*httptest.Server)) *HTTP {
	h := &HTTP{heal: make(chan struct{})}
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		fault, heal := h.fault, h.heal
		h.mu.Unlock()
		if fault == "" {
			handler.ServeHTTP(w, r)
			return
		}
		spoil(w, r, fault, heal)
	}))
	begin(h.Server)
	t.Cleanup(func() {
		h.repair()
		h.CloseClientConnections()
		h.Server.Close()
	})
	return h
}

// Break fits Peer.Break.
func (h *HTTP) Break(_ *testing.T, f Fault) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
	return h.repair
}

func (h *HTTP) repair() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fault != "" {
		h.fault = ""
		close(h.heal)
		h.heal = make(chan struct{})
	}
}

func spoil(w http.ResponseWriter, r *http.Request, f Fault, heal <-chan struct{}) {
	if f != Reset && f != Closed {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	switch f {
	case Unavailable:
		http.Error(w, "not now", http.StatusServiceUnavailable)
	case Hang:
		select {
		case <-heal:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case Nonsense:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html><body>Sign in to the network</body></html>")
	case Oversized:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"`)
		fill := make([]byte, 64<<10)
		for i := range fill {
			fill[i] = 'a'
		}
		for range endless / len(fill) {
			if _, err := w.Write(fill); err != nil {
				break
			}
		}
		panic(http.ErrAbortHandler)
	case Reset, Closed, Garbage:
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil { // HTTP/2: the stream ends instead
			panic(http.ErrAbortHandler)
		}
		defer func() { _ = c.Close() }()
		if f == Garbage {
			_, _ = c.Write(garbage)
		}
		if f == Reset {
			abort(c)
		}
	default:
		panic("desttest: an HTTP peer has no fault " + f)
	}
}

// garbage begins no message of any protocol that a destination speaks.
var garbage = []byte("\x00\xff\xfe\x01GARBAGE\r\n\x00\x00\xff\xff\xff\xff\x80\x80\x80\r\n\r\n")

// abort makes the coming Close send a reset.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// TCP stands before any server and spoils its connections.
type TCP struct {
	// Addr is where clients connect, host and port.
	Addr     string
	upstream string
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex
	fault Fault
	heal  chan struct{}
	open  map[net.Conn]bool
	ended bool
}

// NewTCP passes connections on to the address upstream, until the test ends.
func NewTCP(t *testing.T, upstream string) *TCP {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &TCP{Addr: listener.Addr().String(), upstream: upstream, listener: listener, heal: make(chan struct{}), open: map[net.Conn]bool{}}
	p.group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			p.group.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		_ = listener.Close()
		p.repair()
		p.drop()
		p.group.Wait()
	})
	return p
}

// Break fits Peer.Break. Connections that stand are cut, except by Hang, which
// stops passing bytes on.
func (p *TCP) Break(_ *testing.T, f Fault) func() {
	p.mu.Lock()
	p.fault = f
	p.mu.Unlock()
	p.drop()
	return p.repair
}

func (p *TCP) repair() {
	p.mu.Lock()
	was := p.fault
	if was != "" {
		p.fault = ""
		close(p.heal)
		p.heal = make(chan struct{})
	}
	p.mu.Unlock()
	if was != "" {
		p.drop()
	}
}

// drop cuts all connections.
func (p *TCP) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		abort(c)
		_ = c.Close()
	}
}

// keep registers a connection; the result ends it.
func (p *TCP) keep(c net.Conn) func() {
	p.mu.Lock()
	p.open[c] = true
	if p.ended {
		_ = c.Close()
	}
	p.mu.Unlock()
	return func() {
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
		_ = c.Close()
	}
}

func (p *TCP) serve(c net.Conn) {
	defer p.keep(c)()
	p.mu.Lock()
	fault, heal := p.fault, p.heal
	p.mu.Unlock()
	switch fault {
	case "":
	case Reset:
		_, _ = io.ReadFull(c, make([]byte, 1))
		abort(c)
		return
	case Closed:
		return
	case Hang:
		<-heal
		return
	case Garbage:
		_, _ = c.Write(garbage)
		return
	case Oversized:
		fill := make([]byte, 64<<10)
		for i := range fill {
			fill[i] = 'R' // of a reply, in several protocols
		}
		for range endless / len(fill) {
			if _, err := c.Write(fill); err != nil {
				return
			}
		}
		return
	default:
		panic("desttest: a TCP peer has no fault " + fault)
	}
	up, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.upstream)
	if err != nil {
		return
	}
	defer p.keep(up)()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(c, up)
		_ = c.(*net.TCPConn).CloseWrite()
	})
	both.Wait()
}
