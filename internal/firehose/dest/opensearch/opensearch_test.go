package opensearch

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/firehose/dest/desttest"
	"github.com/millrace/millrace/internal/firehose/dest/desttest/searchnode"
	"github.com/millrace/millrace/internal/outbound"
)

var node *searchnode.Node // nil where it is not installed

func TestMain(m *testing.M) {
	code := searchnode.Main(m, func(n *searchnode.Node) { node = n })
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

func needNode(t *testing.T) {
	t.Helper()
	if node == nil {
		t.Skip(searchnode.ErrMissing)
	}
}

var indexes atomic.Int64

// index makes an index for the suite's records and returns its name.
func index(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("events%d", indexes.Add(1))
	node.Call(t, http.MethodPut, "/"+name, `{"settings":{"number_of_shards":1,"number_of_replicas":0},
		"mappings":{"properties":{"id":{"type":"integer"},"text":{"type":"keyword","index":false}}}}`, nil)
	return name
}

// stored are the documents of an index in the order of their last writes.
func stored(t *testing.T, index string) []desttest.Entry {
	t.Helper()
	var answer struct {
		Hits struct {
			Hits []struct {
				Source struct {
					ID   int
					Text string
				} `json:"_source"`
			}
		}
	}
	node.Call(t, http.MethodPost, "/"+index+"/_refresh", "", nil)
	node.Call(t, http.MethodPost, "/"+index+"/_search", `{"size":10000,"sort":[{"_seq_no":"asc"}]}`, &answer)
	var found []desttest.Entry
	for _, h := range answer.Hits.Hits {
		found = append(found, desttest.Seen(h.Source.ID, h.Source.Text))
	}
	return found
}

func open(t *testing.T, c Config) *Destination {
	t.Helper()
	d, err := New(c, Deps{Policy: outbound.Policy{AllowPrivate: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// relay passes requests on to the node.
func relay(t *testing.T) http.Handler {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.RequestURI = ""
		out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(node.URL, "http://")
		reply, err := transport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = reply.Body.Close() }()
		w.WriteHeader(reply.StatusCode)
		buffer := make([]byte, 64<<10)
		for {
			n, err := reply.Body.Read(buffer)
			_, _ = w.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	})
}

func TestContract(t *testing.T) {
	needNode(t)
	for _, noID := range []bool{false, true} {
		faults := desttest.HTTPFaults
		if noID {
			faults = nil
		}
		t.Run(fmt.Sprintf("NoDocumentID=%v", noID), func(t *testing.T) {
			desttest.Run(t, desttest.Harness{
				Open: func(t *testing.T) *desttest.Peer {
					name := index(t)
					server := desttest.NewHTTP(t, relay(t))
					return &desttest.Peer{
						Destination: open(t, Config{Endpoint: server.URL, Index: name, NoDocumentID: noID, RequestBytes: 1 << 20}),
						Stored:      func(t *testing.T) []desttest.Entry { return stored(t, name) },
						Break:       server.Break,
						Discard: func() func() int {
							return func() int {
								var answer struct{ Count int }
								node.Call(t, http.MethodPost, "/"+name+"/_refresh", "", nil)
								node.Call(t, http.MethodGet, "/"+name+"/_count", "", &answer)
								return answer.Count
							}
						},
					}
				},
				Refused:     func(n int) []byte { return fmt.Appendf(nil, `{"id":"number %d"}`+"\n", n) },
				RefusedCode: "400",
				Codes:       []string{"OS.", "400"},
				Duplicates:  noID,
				Faults:      faults,
				LargeBytes:  8 << 20,
			})
		})
	}
}
