package compress

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

var update = flag.Bool("update", false, "rewrite golden files")

var formats = []Format{None, GZIP, ZIP, Snappy, HadoopSnappy, Zstd}

// read takes an object apart with the readers of other people, and the block
// formats by their description.
func read(t *testing.T, f Format, object []byte, name string) []byte {
	t.Helper()
	var out []byte
	var err error
	switch f {
	case None:
		return object
	case GZIP:
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(object)); err == nil {
			out, err = io.ReadAll(r)
		}
	case ZIP:
		var r *zip.Reader
		if r, err = zip.NewReader(bytes.NewReader(object), int64(len(object))); err != nil {
			break
		}
		if len(r.File) != 1 || r.File[0].Name != name || r.File[0].Method != zip.Deflate {
			t.Fatalf("the archive holds %d entries, the first %+v", len(r.File), r.File[0].FileHeader)
		}
		var e io.ReadCloser
		if e, err = r.File[0].Open(); err == nil {
			out, err = io.ReadAll(e)
		}
	case Snappy:
		const header = "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
		if !bytes.HasPrefix(object, []byte(header)) {
			t.Fatalf("the stream begins with %x", object[:min(len(object), 16)])
		}
		for object = object[len(header):]; len(object) > 0; {
			n := binary.BigEndian.Uint32(object)
			var block []byte
			if block, err = snappy.Decode(nil, object[4:4+n]); err != nil {
				break
			}
			if len(block) > 32<<10 {
				t.Errorf("a block of %d bytes", len(block))
			}
			out, object = append(out, block...), object[4+n:]
		}
	case HadoopSnappy:
		for len(object) > 0 {
			size, n := binary.BigEndian.Uint32(object), binary.BigEndian.Uint32(object[4:])
			var block []byte
			if block, err = snappy.Decode(nil, object[8:8+n]); err != nil {
				break
			}
			if len(block) != int(size) || size > 256<<10 || n > 256<<10 {
				t.Errorf("a block of %d bytes says %d, compressed %d", len(block), size, n)
			}
			out, object = append(out, block...), object[8+n:]
		}
	case Zstd:
		var r *zstd.Decoder
		if r, err = zstd.NewReader(nil); err == nil {
			defer r.Close()
			out, err = r.DecodeAll(object, nil)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return out
}

func write(t testing.TB, f Format, pieces ...[]byte) []byte {
	t.Helper()
	var object bytes.Buffer
	w := NewWriter(f, &object, "entry")
	for _, p := range pieces {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("%s: wrote %d of %d: %v", f, n, len(p), err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return object.Bytes()
}

func TestObjectsAreReadBack(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 700<<10)
	_, _ = random.Read(noise)
	text := []byte(strings.Repeat(`{"TICKER_SYMBOL":"QXZ","SECTOR":"HEALTHCARE","CHANGE":-0.05,"PRICE":84.51}`+"\n", 9000))
	cases := map[string][][]byte{
		"nothing":           nil,
		"empty writes":      {nil, {}},
		"one byte":          {[]byte("a")},
		"text":              {text},
		"noise":             {noise},
		"text in pieces":    bytes.SplitAfter(text, []byte("\n")),
		"an xerial block":   {text[:xerialBlock]},
		"one more byte":     {text[:xerialBlock+1]},
		"a hadoop block":    {noise[:hadoopBlock]},
		"and one more byte": {noise[:100], noise[100 : hadoopBlock+1]},
	}
	for _, f := range formats {
		for name, pieces := range cases {
			t.Run(fmt.Sprintf("%s/%s", f, name), func(t *testing.T) {
				object := write(t, f, pieces...)
				if want := bytes.Join(pieces, nil); !bytes.Equal(read(t, f, object, "entry"), want) {
					t.Error("what was written is not what is read")
				}
				if !bytes.Equal(object, write(t, f, pieces...)) {
					t.Error("the same writes gave other bytes")
				}
			})
		}
	}
}

// The bytes of a small object, so that a change of the library or of a header is
// seen.
func TestGoldenObjects(t *testing.T) {
	var got strings.Builder
	for _, f := range formats {
		fmt.Fprintf(&got, "== %s extension=%q encoding=%q\n%s", f, Extension(f), ContentEncoding(f), hex.Dump(write(t, f, []byte("abcabcabcabc\n"), []byte("abcabcabcabc\n"))))
	}
	golden := filepath.Join("testdata", "objects.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("objects are\n%s\nwant\n%s", got.String(), want)
	}
}

func TestNamesOfFormats(t *testing.T) {
	for _, f := range formats {
		if got, err := Parse(string(f)); got != f || err != nil {
			t.Errorf("%s: %s, %v", f, got, err)
		}
	}
	if f, err := Parse(""); f != None || err != nil {
		t.Errorf("empty: %s, %v", f, err)
	}
	for _, name := range []string{"SNAPPY", "gzip", "LZ4"} {
		if _, err := Parse(name); err == nil {
			t.Errorf("%s is a format", name)
		}
	}
}

type brokenWriter struct{ left int }

var errBroken = errors.New("broken")

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errBroken
	}
	return len(b), nil
}

// A writer that failed goes back to the pool; the next one must not see it.
func TestAFailureStaysWithItsObject(t *testing.T) {
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	for _, f := range formats {
		w := NewWriter(f, &brokenWriter{left: 1000}, "entry")
		_, err := w.Write(noise)
		err = errors.Join(err, w.Close())
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", f, err)
		}
		if f != None {
			if _, err := w.Write([]byte("x")); err == nil {
				t.Errorf("%s: a closed writer writes", f)
			}
			if err := w.Close(); err != nil && f != ZIP {
				t.Errorf("%s: second Close: %v", f, err)
			}
		}
		if got := read(t, f, write(t, f, noise), "entry"); !bytes.Equal(got, noise) {
			t.Errorf("%s: the next object is damaged", f)
		}
	}
}

func TestWritersAtTheSameTime(t *testing.T) {
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			f := formats[i%len(formats)]
			data := bytes.Repeat(fmt.Appendf(nil, "writer %d ", i), 20_000)
			if !bytes.Equal(read(t, f, write(t, f, data[:77], data[77:]), "entry"), data) {
				t.Errorf("%s: writer %d reads another's object", f, i)
			}
		})
	}
	group.Wait()
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("abc"), 1)
	f.Add(bytes.Repeat([]byte("abc"), 100_000), 32<<10)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		cut = min(max(cut, 0), len(data))
		for _, format := range formats {
			if !bytes.Equal(read(t, format, write(t, format, data[:cut], data[cut:]), "entry"), data) {
				t.Errorf("%s: not what was written", format)
			}
		}
	})
}

// logLine looks like what people send: half the values differ from line to line.
func logLines(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for len(b) < size {
		b = fmt.Appendf(b, `{"timestamp":"2026-07-13T14:%02d:%02d.%03dZ","level":"INFO","service":"checkout","host":"ip-10-0-%d-%d","requestId":"%016x","path":"/api/v1/orders/%d","status":%d,"latencyMs":%.3f,"userAgent":"Mozilla/5.0 (X11; Linux x86_64)"}`+"\n",
			random.IntN(60), random.IntN(60), random.IntN(1000), random.IntN(255), random.IntN(255), random.Uint64(), random.IntN(100000), 200+random.IntN(5), random.Float64()*100)
	}
	return b[:size]
}

func BenchmarkWrite(b *testing.B) {
	data := logLines(8 << 20)
	for _, f := range formats {
		b.Run("format="+string(f), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n = len(write(b, f, data))
			}
			b.ReportMetric(float64(len(data))/float64(n), "ratio")
		})
	}
}
