package eventstream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func payload(s string) func([]byte) []byte {
	return func(dst []byte) []byte { return append(dst, s...) }
}

// The bytes of the first frame of every subscription, worked out from the layout.
func TestInitialResponseBytes(t *testing.T) {
	got, err := AppendEvent([]byte("before"), InitialResponse, "application/x-amz-json-1.1", payload("{}"))
	if err != nil {
		t.Fatal(err)
	}
	want := "0000007200000060" + "ab820d9e" +
		"0d" + hex.EncodeToString([]byte(":message-type")) + "070005" + hex.EncodeToString([]byte("event")) +
		"0b" + hex.EncodeToString([]byte(":event-type")) + "070010" + hex.EncodeToString([]byte("initial-response")) +
		"0d" + hex.EncodeToString([]byte(":content-type")) + "07001a" + hex.EncodeToString([]byte("application/x-amz-json-1.1")) +
		"7b7d" + "e16e66e4"
	if hex.EncodeToString(got[6:]) != want {
		t.Errorf("got  %x\nwant %s", got[6:], want)
	}
}

// The smallest frame, as the published test vectors of the format have it.
func TestEmptyMessageBytes(t *testing.T) {
	got, err := Append(nil, &Message{})
	if want := "000000100000000005c248eb7d98c8ff"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got %x, %v, want %s", got, err, want)
	}
}

func TestMessagesSurviveTheWire(t *testing.T) {
	var wire []byte
	var err error
	if wire, err = AppendEvent(wire, "SubscribeToShardEvent", "application/x-amz-json-1.1", payload(strings.Repeat("x", 200_000))); err != nil {
		t.Fatal(err)
	}
	if wire, err = AppendException(wire, "ResourceInUseException", "application/x-amz-json-1.1", payload(`{"message":"taken over"}`)); err != nil {
		t.Fatal(err)
	}
	r := NewReader(iotest.HalfReader(bytes.NewReader(wire)))
	m, err := r.Next()
	if err != nil || m.Header(HeaderMessageType) != TypeEvent || m.Header(HeaderEventType) != "SubscribeToShardEvent" || len(m.Payload) != 200_000 {
		t.Fatalf("first message: %v, %v", m, err)
	}
	m, err = r.Next()
	if err != nil || m.Header(HeaderExceptionType) != "ResourceInUseException" || string(m.Payload) != `{"message":"taken over"}` || m.Header("other") != "" {
		t.Fatalf("second message: %v, %v", m, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

func TestEveryFlippedBitAndEveryCutIsNoticed(t *testing.T) {
	wire, err := AppendEvent(nil, "e", "t", payload("data"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(wire) * 8 {
		bad := bytes.Clone(wire)
		bad[i/8] ^= 1 << (i % 8)
		if m, _, err := Decode(bad); err == nil {
			t.Errorf("bit %d flipped: read %v", i, m)
		}
	}
	for n := range wire {
		if _, err := NewReader(bytes.NewReader(wire[:n])).Next(); n == 0 && err != io.EOF || n > 0 && err != io.ErrUnexpectedEOF {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		if _, _, err := Decode(wire[:n]); err != io.ErrUnexpectedEOF {
			t.Errorf("decoding %d bytes: %v", n, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	for name, m := range map[string]*Message{
		"payload":       {Payload: make([]byte, MaxPayload+1)},
		"header value":  {Headers: []Header{{"a", strings.Repeat("x", 1<<15)}}},
		"header name":   {Headers: []Header{{strings.Repeat("x", 256), ""}}},
		"all headers":   {Headers: slicesRepeat(Header{"a", strings.Repeat("x", 30_000)}, 5)},
		"unnamed value": {Headers: []Header{{"", "x"}}},
	} {
		if got, err := Append([]byte("kept"), m); !errors.Is(err, ErrTooLarge) || string(got) != "kept" {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
	}
}

func slicesRepeat(h Header, n int) (out []Header) {
	for range n {
		out = append(out, h)
	}
	return out
}

// A frame that announces much and delivers little costs little.
func TestAnnouncedLengthDoesNotAllocate(t *testing.T) {
	m := &Message{Payload: make([]byte, MaxPayload)}
	wire, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(bytes.NewReader(wire[:100]))
	if _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if cap(r.buf) > 1<<20 {
		t.Errorf("buffer of %d bytes for 100 that arrived", cap(r.buf))
	}
}

func FuzzDecode(f *testing.F) {
	seed, err := AppendEvent(nil, InitialResponse, "application/x-amz-json-1.1", payload("{}"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff"))
	f.Add(append(bytes.Clone(seed), seed...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, rest, err := Decode(b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatal("a message took no bytes")
		}
		again, err := Append(nil, m)
		if err != nil {
			return // headers of other types may not fit into strings
		}
		m2, rest, err := Decode(again)
		if err != nil || len(rest) != 0 || len(m2.Headers) != len(m.Headers) || !bytes.Equal(m2.Payload, m.Payload) {
			t.Fatalf("%v written and read again is %v, %v", m, m2, err)
		}
	})
}

func BenchmarkAppendEvent(b *testing.B) {
	body := make([]byte, 64<<10)
	var dst []byte
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendEvent(dst[:0], "SubscribeToShardEvent", "application/x-amz-json-1.1", func(d []byte) []byte { return append(d, body...) }); err != nil {
			b.Fatal(err)
		}
	}
}
