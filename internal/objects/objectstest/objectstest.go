// Package objectstest is the contract of an objects.Store as a suite. Every
// store runs it: the embedded one in memory and on disk, and the remote one
// against a server.
//
// The one idea: a test sees a store through its interface only, so that what
// passes here can stand in for another. Crashes and failing disks are not here:
// they are of the embedded store alone. Start reading at Run.
package objectstest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/objects"
)

// Bucket exists in every store that is tested; Missing does not.
const (
	Bucket  = "contract"
	Missing = "no-such-bucket"
)

// Bytes are n bytes that do not repeat within a block.
func Bytes(n int) []byte {
	b := make([]byte, n)
	seed := [32]byte{byte(n), byte(n >> 8), byte(n >> 16)}
	rand.NewChaCha8(seed).Read(b)
	return b
}

// unsized hides what a reader is, and delivers it in odd pieces.
type unsized struct{ r io.Reader }

func (u unsized) Read(p []byte) (int, error) { return u.r.Read(p[:min(len(p), 7919)]) }

func read(t *testing.T, s objects.Store, key string, r objects.Range) ([]byte, objects.Info) {
	t.Helper()
	body, info, err := s.Get(t.Context(), Bucket, key, r)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	b, err := io.ReadAll(body)
	if closeErr := body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return b, info
}

func put(t *testing.T, s objects.Store, key string, b []byte) objects.Info {
	t.Helper()
	info, err := s.Put(t.Context(), Bucket, key, bytes.NewReader(b), int64(len(b)), objects.PutOptions{})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return info
}

// Run runs the suite. open returns a store with an empty bucket named Bucket.
func Run(t *testing.T, open func(t *testing.T) objects.Store) {
	t.Run("what is put is read", func(t *testing.T) {
		s := open(t)
		for _, n := range []int{0, 1, 65535, 65536, 65537, 4*65536 + 1, 1 << 20, 9 << 20, 17 << 20} {
			for _, sized := range []bool{true, false} {
				if n > 8<<20 && sized != (n < 16<<20) {
					continue // one of each is enough
				}
				want, key := Bytes(n), fmt.Sprintf("size/%d/%t", n, sized)
				size := int64(n)
				if !sized {
					size = -1
				}
				info, err := s.Put(t.Context(), Bucket, key, unsized{bytes.NewReader(want)}, size, objects.PutOptions{})
				if err != nil {
					t.Fatalf("put %s: %v", key, err)
				}
				got, head := read(t, s, key, objects.Range{})
				if !bytes.Equal(got, want) || head.Size != int64(n) || head.ETag != info.ETag || info.Size != int64(n) {
					t.Errorf("%s: %d bytes of %d, etag %s and %s", key, len(got), head.Size, head.ETag, info.ETag)
				}
				sum := md5.Sum(want)
				if !strings.Contains(info.ETag, "-") && info.ETag != hex.EncodeToString(sum[:]) {
					t.Errorf("%s: etag %s is not the digest", key, info.ETag)
				}
			}
		}
	})
	t.Run("attributes come back", func(t *testing.T) {
		s := open(t)
		want := objects.Attributes{
			ContentType: "application/x-ndjson", ContentEncoding: "gzip", ContentDisposition: `attachment; filename="a.gz"`,
			ContentLanguage: "da", CacheControl: "max-age=60", Metadata: map[string]string{"source": "shard 1", "x": ""},
		}
		for _, n := range []int{3, 9 << 20} {
			key := fmt.Sprint("attributes/", n)
			if _, err := s.Put(t.Context(), Bucket, key, bytes.NewReader(Bytes(n)), int64(n), objects.PutOptions{Attributes: want}); err != nil {
				t.Fatal(err)
			}
			_, info := read(t, s, key, objects.Range{})
			head, err := s.Head(t.Context(), Bucket, key)
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []objects.Info{info, head} {
				if fmt.Sprint(got.Attributes) != fmt.Sprint(want) {
					t.Errorf("%d bytes: %v, not %v", n, got.Attributes, want)
				}
				if got.Modified.IsZero() {
					t.Error("no time")
				}
			}
		}
	})
	t.Run("ranges", func(t *testing.T) {
		s := open(t)
		all := Bytes(3*65536 + 100)
		put(t, s, "ranges", all)
		n := int64(len(all))
		for _, c := range []struct {
			r        objects.Range
			from, to int64
		}{
			{objects.Range{}, 0, n}, {objects.Range{Length: 1}, 0, 1}, {objects.Range{Offset: 1, Length: 1}, 1, 2}, {objects.Range{Offset: 65535, Length: 2}, 65535, 65537},
			{objects.Range{Offset: 65536, Length: 65536}, 65536, 131072}, {objects.Range{Offset: n - 1}, n - 1, n}, {objects.Range{Offset: 10, Length: 10 * n}, 10, n},
			{objects.Range{Offset: -5}, n - 5, n}, {objects.Range{Offset: -5, Length: 2}, n - 5, n - 3}, {objects.Range{Offset: -10 * n}, 0, n},
		} {
			got, info := read(t, s, "ranges", c.r)
			if !bytes.Equal(got, all[c.from:c.to]) || info.Size != n {
				t.Errorf("%+v: %d bytes of %d", c.r, len(got), info.Size)
			}
		}
		for _, r := range []objects.Range{{Offset: n}, {Offset: n + 1, Length: 1}} {
			if _, _, err := s.Get(t.Context(), Bucket, "ranges", r); objects.Code(err) != objects.CodeInvalidRange {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
	t.Run("refusals", func(t *testing.T) {
		s := open(t)
		ctx := t.Context()
		for name, c := range map[string]struct {
			want string
			do   func() error
		}{
			"put without a bucket": {objects.CodeNoSuchBucket, func() error {
				_, err := s.Put(ctx, Missing, "k", strings.NewReader("x"), 1, objects.PutOptions{})
				return err
			}},
			"get": {objects.CodeNoSuchKey, func() error { _, _, err := s.Get(ctx, Bucket, "none", objects.Range{}); return err }},
			"get without a bucket": {objects.CodeNoSuchBucket, func() error {
				_, _, err := s.Get(ctx, Missing, "none", objects.Range{})
				return err
			}},
			"head":                    {objects.CodeNoSuchKey, func() error { _, err := s.Head(ctx, Bucket, "none"); return err }},
			"head without a bucket":   {objects.CodeNoSuchBucket, func() error { _, err := s.Head(ctx, Missing, "none"); return err }},
			"list without a bucket":   {objects.CodeNoSuchBucket, func() error { _, _, err := s.List(ctx, Missing, "", "", 1); return err }},
			"delete without a bucket": {objects.CodeNoSuchBucket, func() error { return s.Delete(ctx, Missing, "k") }},
			"missing bucket":          {objects.CodeNoSuchBucket, func() error { return s.HeadBucket(ctx, Missing) }},
			"bucket":                  {"", func() error { return s.HeadBucket(ctx, Bucket) }},
			"delete of nothing":       {"", func() error { return s.Delete(ctx, Bucket, "none") }},
		} {
			err := c.do()
			if got := objects.Code(err); got != c.want {
				t.Errorf("%s: %v", name, err)
			}
			if _, typed := errors.AsType[*objects.Error](err); err != nil && !typed {
				t.Errorf("%s: an error of type %T", name, err)
			}
		}
	})
	t.Run("bodies that fail leave what was there", func(t *testing.T) {
		s := open(t)
		put(t, s, "kept", []byte("old"))
		broken := errors.New("broken")
		for _, n := range []int{10, 100_000, 9 << 20} {
			for name, c := range map[string]struct {
				body io.Reader
				size int64
			}{
				"cut off":               {io.MultiReader(bytes.NewReader(Bytes(n)), failing{io.ErrUnexpectedEOF}), -1},
				"failing":               {io.MultiReader(bytes.NewReader(Bytes(n)), failing{broken}), int64(n) + 10},
				"shorter than promised": {bytes.NewReader(Bytes(n)), int64(n) + 1},
				"longer than promised":  {bytes.NewReader(Bytes(n)), int64(n) - 1},
			} {
				if _, err := s.Put(t.Context(), Bucket, "kept", c.body, c.size, objects.PutOptions{}); err == nil {
					t.Errorf("%s of %d is stored", name, n)
				}
			}
		}
		if got, _ := read(t, s, "kept", objects.Range{}); string(got) != "old" {
			t.Errorf("the object holds %d bytes", len(got))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Put(ctx, Bucket, "kept", bytes.NewReader(Bytes(100)), 100, objects.PutOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("a put that is called off: %v", err)
		}
	})
	t.Run("lists in order, page by page", func(t *testing.T) {
		s := open(t)
		var want []string
		for _, k := range []string{"a", "a!", "a/b", "a/b/c", "a/c", "a0", "b", "B", "z/1", "z/2", "ø", "日本", "\U0001f600", "a b", "a+b", "a%2Fb", "q?x=1&y", "..", "../x", "./x", "//", "/lead", "trail/", "<&>'\"", strings.Repeat("k", 1024)} {
			put(t, s, k, []byte(k))
			want = append(want, k)
		}
		slices.Sort(want)
		for _, max := range []int{1, 3, 100} {
			var got []string
			after, more := "", true
			for more {
				var page []objects.Info
				var err error
				if page, more, err = s.List(t.Context(), Bucket, "", after, max); err != nil {
					t.Fatal(err)
				}
				if len(page) > max || more && len(page) == 0 {
					t.Fatalf("a page of %d", len(page))
				}
				for _, o := range page {
					got = append(got, o.Key)
					after = o.Key
					if o.Size != int64(len(o.Key)) || o.ETag == "" || o.Modified.IsZero() {
						t.Errorf("%q is listed as %+v", o.Key, o)
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d: %q, not %q", max, got, want)
			}
		}
		list, more, err := s.List(t.Context(), Bucket, "a/", "a/b", 10)
		if err != nil || more || len(list) != 2 || list[0].Key != "a/b/c" {
			t.Errorf("from within a prefix: %v, %t, %v", list, more, err)
		}
		for _, k := range want {
			if got, info := read(t, s, k, objects.Range{}); string(got) != k || info.Key != k {
				t.Errorf("%q reads %q", k, got)
			}
			if err := s.Delete(t.Context(), Bucket, k); err != nil {
				t.Errorf("delete %q: %v", k, err)
			}
			if _, err := s.Head(t.Context(), Bucket, k); objects.Code(err) != objects.CodeNoSuchKey {
				t.Errorf("%q after its end: %v", k, err)
			}
		}
		if list, more, err := s.List(t.Context(), Bucket, "", "", 10); err != nil || more || len(list) != 0 {
			t.Errorf("an empty bucket lists %v, %t, %v", list, more, err)
		}
	})
	t.Run("only if absent", func(t *testing.T) {
		s := open(t)
		var wins, losses int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				_, err := s.Put(t.Context(), Bucket, "once", strings.NewReader(fmt.Sprint(i)), 1, objects.PutOptions{IfAbsent: true})
				mu.Lock()
				defer mu.Unlock()
				switch objects.Code(err) {
				case "":
					wins++
				case objects.CodePrecondition:
					losses++
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if wins != 1 || losses != 7 {
			t.Errorf("%d puts of 8 won, %d lost", wins, losses)
		}
	})
	t.Run("readers see one object or the other", func(t *testing.T) {
		s := open(t)
		put(t, s, "turns", bytes.Repeat([]byte{0}, 300_000))
		var all sync.WaitGroup
		for w := range 2 {
			all.Go(func() {
				for i := range 15 {
					b := bytes.Repeat([]byte{byte(1 + w*15 + i)}, 300_000)
					if _, err := s.Put(t.Context(), Bucket, "turns", bytes.NewReader(b), int64(len(b)), objects.PutOptions{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				for range 40 {
					body, _, err := s.Get(t.Context(), Bucket, "turns", objects.Range{})
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(body)
					body.Close()
					if err != nil || len(b) != 300_000 || bytes.Count(b, b[:1]) != len(b) {
						t.Errorf("%d bytes, not all alike: %v", len(b), err)
					}
				}
			})
		}
		all.Wait()
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
