package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
)

type callFunc func(w http.ResponseWriter, r *http.Request) string

func (f callFunc) ServeCall(w http.ResponseWriter, r *http.Request, call *api.Call) (resource, code string) {
	return "", f(w, r)
}

// streaming serves a handler that gets its bodies unread, for paths below /s/.
func streaming(t *testing.T, outcomes chan *Outcome, f callFunc) (address string) {
	t.Helper()
	mux := NewMux(Options{MaxBody: 1 << 10, Observe: func(o *Outcome) {
		if outcomes != nil {
			copied := *o
			outcomes <- &copied
		}
	}})
	mux.RouteStream(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/s/") }, f)
	server := NewServer(ServerOptions{Handler: mux})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestStreamedBodiesAreTheHandlers(t *testing.T) {
	outcomes := make(chan *Outcome, 10)
	address := streaming(t, outcomes, func(w http.ResponseWriter, r *http.Request) string {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, n)
		return ""
	})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	// More than the pipeline would take.
	for _, n := range []int{0, 1, 5 << 20} {
		reply, err := client.Post("http://"+address+"/s/x", "", strings.NewReader(strings.Repeat("x", n)))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(reply.Body)
		reply.Body.Close()
		if string(b) != fmt.Sprint(n) || reply.Header.Get("X-Amzn-Requestid") == "" {
			t.Errorf("%d bytes: %s", n, b)
		}
		if o := <-outcomes; o.BytesIn != int64(n) || o.Status != 200 || o.BytesOut != int64(len(b)) {
			t.Errorf("%d bytes are observed as %d in, %d out, status %d", n, o.BytesIn, o.BytesOut, o.Status)
		}
	}
	reply, err := client.Post("http://"+address+"/other", "", strings.NewReader(strings.Repeat("x", 2<<10)))
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("other requests are bounded as before: %d", reply.StatusCode)
	}
}

// A client that is refused before the end of its body still reads why.
func TestRefusalsBeforeTheEndOfABodyArrive(t *testing.T) {
	address := streaming(t, nil, func(w http.ResponseWriter, r *http.Request) string {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "no")
		return "No"
	})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const size = 8 << 20
	fmt.Fprintf(c, "PUT /s/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
	// All of it, whatever the answer is.
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatalf("the body is not taken: %v", err)
	}
	reply, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(reply.Body)
	reply.Body.Close()
	if reply.StatusCode != 403 || string(b) != "no" || !reply.Close {
		t.Errorf("%d %q, closing %t", reply.StatusCode, b, reply.Close)
	}
}

// botocore waits for leave to send a body that is empty, and does not recover
// from a final reply in its place.
func TestEmptyBodiesAreAskedForToo(t *testing.T) {
	address := streaming(t, nil, func(w http.ResponseWriter, r *http.Request) string {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "0")
		return ""
	})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	replies := bufio.NewReader(c)
	for _, body := range []string{"", "x", ""} {
		fmt.Fprintf(c, "PUT /s/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
		for _, want := range []int{100, 200} {
			reply, err := http.ReadResponse(replies, nil)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			if reply.StatusCode != want {
				t.Fatalf("%d, not %d", reply.StatusCode, want)
			}
			if want == 100 {
				io.WriteString(c, body)
			}
		}
	}
}
