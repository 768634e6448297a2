package objects

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/iam"
	"github.com/millrace/millrace/internal/vfs"
)

func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), int64(5), true)
	f.Add([]byte("5;chunk-signature=ab\r\nhello\r\n0;chunk-signature=cd\r\n\r\n"), int64(5), false)
	f.Add([]byte("ffffffffffffffff\r\n"), int64(1), false)
	f.Fuzz(func(t *testing.T, body []byte, left int64, trailing bool) {
		if left < 0 {
			return
		}
		c := &chunkReader{r: bufio.NewReaderSize(bytes.NewReader(body), 64), left: left, trailing: trailing}
		b, err := io.ReadAll(c)
		if err == nil && int64(len(b)) != left {
			t.Errorf("%d bytes, %d announced", len(b), left)
		}
		if len(b) > len(body) {
			t.Errorf("%d bytes of %d", len(b), len(body))
		}
	})
}

// Any request whatever is answered once, with a status there is.
func FuzzRequests(f *testing.F) {
	e, err := Open(Options{Files: vfs.NewMemory()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	directory, err := iam.Open(f.Context(), &iam.MemoryStore{}, iam.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(directory.Close)
	if err := e.CreateBucket(f.Context(), "bkt", "000000000000", "r"); err != nil {
		f.Fatal(err)
	}
	h := e.Handler(HandlerOptions{Directory: directory})
	f.Add("GET", "/bkt", "list-type=2&max-keys=3&delimiter=/", "Range", "bytes=0-", []byte(""))
	f.Add("POST", "/bkt", "delete", "Content-Md5", "", []byte("<Delete><Object><Key>k</Key></Object></Delete>"))
	f.Add("POST", "/bkt/k", "uploads", "X-Amz-Checksum-Algorithm", "CRC32", []byte(""))
	f.Add("POST", "/bkt/k", "uploadId=0123456789abcdef0123456789abcdef", "", "", []byte("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"))
	f.Add("PUT", "/bkt/k", "", "X-Amz-Copy-Source", "/bkt/other", []byte("x"))
	f.Add("PUT", "/bkt", "tagging", "X-Amz-Acl", "private", []byte("<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"))
	f.Fuzz(func(t *testing.T, method, path, query, name, value string, body []byte) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}, Host: "localhost", Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
		if name != "" {
			r.Header.Set(name, value)
		}
		w := &answer{header: http.Header{}}
		func() {
			defer func() {
				if v := recover(); v != nil && v != http.ErrAbortHandler {
					panic(v)
				}
			}()
			h.ServeCall(w, r.WithContext(t.Context()), &api.Call{})
		}()
		if w.times != 1 || w.status < 200 || w.status > 599 {
			t.Errorf("%s %s?%s: %d statuses, %d", method, path, query, w.times, w.status)
		}
		if w.status == 500 {
			t.Errorf("%s %s?%s: %s", method, path, query, w.body.String())
		}
	})
}

type answer struct {
	header http.Header
	status int
	times  int
	body   strings.Builder
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) WriteHeader(status int) {
	a.status = status
	a.times++
}
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

func FuzzRanges(f *testing.F) {
	f.Add("bytes=0-1", int64(10))
	f.Add("bytes=-9223372036854775808", int64(0))
	f.Fuzz(func(t *testing.T, text string, size int64) {
		if size < 0 {
			return
		}
		r, ok := parseRange(text)
		if !ok {
			return
		}
		if offset, length, ok := r.within(size); ok && (offset < 0 || length < 0 || offset+length > size || offset+length < 0) {
			t.Errorf("%q of %d is %d+%d", text, size, offset, length)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add("o\x00b\x00k", encodeRecord(objectRecord{Size: 1, Segments: []segment{{1, 1}}}))
	f.Add("p\x00id\x0000001", encodeRecord(partRecord{Size: 1, Segment: &segment{1, 1}}))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if key == "" {
			return
		}
		_, _ = segmentsOf(key, value)
		var r listedRecord
		_ = json.Unmarshal(value, &r)
		splitUploadKey(key)
	})
}
