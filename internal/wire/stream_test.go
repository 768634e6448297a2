package wire

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/wire/eventstream"
)

func subscription(shard string) []byte {
	return []byte(`{"ConsumerARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1","ShardId":"` + shard + `","StartingPosition":{"Type":"LATEST"}}`)
}

// events reads a whole stream as "event name payload" lines.
func events(t *testing.T, r io.Reader) []string {
	t.Helper()
	var list []string
	for reader := eventstream.NewReader(r); ; {
		m, err := reader.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			return append(list, "broken: "+err.Error())
		}
		name := m.Header(eventstream.HeaderEventType) + m.Header(eventstream.HeaderExceptionType)
		list = append(list, m.Header(eventstream.HeaderMessageType)+" "+name+" "+m.Header(eventstream.HeaderContentType)+" "+string(m.Payload))
	}
}

func TestEventStreams(t *testing.T) {
	w := newWorld(t, worldOptions{server: ServerOptions{TLS: selfSigned(t)}})
	const initial = "event initial-response application/x-amz-json-1.1 {}"
	const first = `event SubscribeToShardEvent application/x-amz-json-1.1 {"Records":[],"ContinuationSequenceNumber":"1","MillisBehindLatest":0}`
	for form, transport := range forms() {
		for shard, want := range map[string][]string{
			"short":  {initial, first},
			"fails":  {initial, first, `exception ResourceNotFoundException application/x-amz-json-1.1 {"__type":"ResourceNotFoundException","message":"consumer went away"}`},
			"breaks": {initial, first, `exception InternalFailureException application/x-amz-json-1.1 {"__type":"InternalFailureException"}`},
		} {
			t.Run(form+"/"+shard, func(t *testing.T) {
				rt := transport()
				defer rt.(idleCloser).CloseIdleConnections()
				r := w.request(t, prefix+"SubscribeToShard", typeJSON, subscription(shard))
				if strings.HasPrefix(form, "tls") {
					r.URL.Scheme = "https"
				}
				reply, err := rt.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				defer reply.Body.Close()
				if reply.Header.Get("Content-Type") != "application/vnd.amazon.eventstream" || reply.Header.Get("X-Amzn-Requestid") == "" {
					t.Errorf("headers %v", reply.Header)
				}
				got := events(t, reply.Body)
				if len(got) != len(want) {
					t.Fatalf("got %q", got)
				}
				for i := range want {
					if i > 0 && strings.HasPrefix(want[i], "event Sub") {
						if !strings.HasPrefix(got[i], "event SubscribeToShardEvent application/x-amz-json-1.1 {") {
							t.Errorf("got  %s", got[i])
						}
						continue
					}
					if got[i] != want[i] {
						t.Errorf("got  %s\nwant %s", got[i], want[i])
					}
				}
			})
		}
	}
}

func TestSubscribeAnswersJSONToCBOR(t *testing.T) {
	w := newWorld(t, worldOptions{})
	body := []byte{0xa3}
	for _, kv := range [][2]string{{"ConsumerARN", "arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1"}, {"ShardId", "missing"}} {
		for _, s := range kv {
			if len(s) < 24 {
				body = append(body, 0x60|byte(len(s)))
			} else {
				body = append(body, 0x78, byte(len(s)))
			}
			body = append(body, s...)
		}
	}
	body = append(body, "\x70StartingPosition\xa1\x64Type\x66LATEST"...)
	a := w.do(t, w.request(t, prefix+"SubscribeToShard", typeCBOR, body))
	if a.header.Get("Content-Type") != typeJSON || string(a.body) != `{"__type":"ResourceNotFoundException","message":"no such shard"}` {
		t.Errorf("%s %s", a.header.Get("Content-Type"), a.body)
	}
	for _, broken := range [][]byte{nil, {0xa1}} {
		a := w.do(t, w.request(t, prefix+"SubscribeToShard", typeCBOR, broken))
		if a.header.Get("Content-Type") != typeJSON || string(a.body) != `{"__type":"SerializationException"}` {
			t.Errorf("%x: %s %s", broken, a.header.Get("Content-Type"), a.body)
		}
	}
}

// Frames leave when they are sent, not when the stream ends; a stop ends the
// stream after its last frame; and Shutdown does not wait for its five minutes.
func TestStopEndsStreamsCleanly(t *testing.T) {
	for form, transport := range forms() {
		t.Run(form, func(t *testing.T) {
			w := newWorld(t, worldOptions{server: ServerOptions{TLS: selfSigned(t)}})
			rt := transport()
			defer rt.(idleCloser).CloseIdleConnections()
			r := w.request(t, prefix+"SubscribeToShard", typeJSON, subscription("idle"))
			if strings.HasPrefix(form, "tls") {
				r.URL.Scheme = "https"
			}
			reply, err := rt.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer reply.Body.Close()
			reader := eventstream.NewReader(reply.Body)
			for range 2 {
				if _, err := reader.Next(); err != nil {
					t.Fatalf("a frame did not come while the stream is open: %v", err)
				}
			}
			w.mux.Drain()
			if m, err := reader.Next(); err != io.EOF {
				t.Errorf("after the stop comes %v, %v", m, err)
			}
			reply.Body.Close()
			rt.(idleCloser).CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := w.server.Shutdown(ctx); err != nil {
				t.Errorf("shutdown: %v", err)
			}
		})
	}
}

func TestClientThatLeavesEndsItsStream(t *testing.T) {
	w := newWorld(t, worldOptions{server: ServerOptions{TLS: selfSigned(t)}})
	for form, transport := range forms() {
		for _, shard := range []string{"idle", "flood"} {
			rt := transport()
			ctx, cancel := context.WithCancel(t.Context())
			r := w.request(t, prefix+"SubscribeToShard", typeJSON, subscription(shard)).WithContext(ctx)
			if strings.HasPrefix(form, "tls") {
				r.URL.Scheme = "https"
			}
			reply, err := rt.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			<-w.streams
			cancel()
			reply.Body.Close()
			rt.(idleCloser).CloseIdleConnections()
		}
	}
	// Every handler returns: the connections close without being cut off.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.server.Shutdown(ctx); err != nil {
		t.Errorf("handlers are left: %v", err)
	}
	for _, o := range w.outcomes {
		if o.Status != http.StatusOK || o.Code != "ClientGone" {
			t.Errorf("outcome %d %s %v", o.Status, o.Code, o.Err)
		}
	}
	if log := w.log.String(); strings.Contains(log, "ERROR") {
		t.Errorf("a client that leaves is no error: %s", log)
	}
}
