package objects

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/sigv4"
)

// body returns the request's body as the client means it: without the framing of
// chunks, with the declared hashes and signatures checked. A check that fails is
// the error in place of the end. size is the number of bytes announced.
func (q *request) body(most int64) (r io.Reader, size int64, err error) {
	b, size, err := q.checkedBody(most)
	if err != nil {
		return nil, 0, err
	}
	return b, size, nil
}

// checkedBody is body with the checksum that the client sends along.
func (q *request) checkedBody(most int64) (b *checkedBody, size int64, err error) {
	h := q.r.Header
	b = &checkedBody{r: q.r.Body}
	size = q.r.ContentLength
	payload := q.payload
	streaming := strings.HasPrefix(payload, "STREAMING-")
	if streaming || awsChunked(h) {
		text := h.Get("X-Amz-Decoded-Content-Length")
		if size, err = strconv.ParseInt(text, 10, 64); err != nil || size < 0 {
			return nil, 0, missingLength()
		}
		c := &chunkReader{r: bufio.NewReaderSize(q.r.Body, 8<<10), left: size}
		if q.h.o.Verifier != nil && payload != sigv4.StreamingUnsignedTrailer {
			if !streaming {
				return nil, 0, badRequest("InvalidRequest", "A body in chunks must be declared by x-amz-content-sha256.")
			}
			c.chunks = q.signed.Chunks()
		}
		c.trailing = strings.HasSuffix(payload, "-TRAILER")
		for _, name := range strings.Split(h.Get("X-Amz-Trailer"), ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
				continue
			}
			algorithm := algorithmOf(name)
			if algorithm == "" || b.algorithm != "" {
				return nil, 0, badRequest("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
			}
			b.expect(algorithm, func() (string, bool) { v, ok := c.trailers[name]; return v, ok })
		}
		b.r = c
	} else if size < 0 {
		return nil, 0, missingLength()
	}
	if size > most {
		return nil, 0, tooLarge(size, most)
	}
	if len(payload) == hex.EncodedLen(sha256.Size) && q.h.o.Verifier != nil {
		b.check(sha256.New(), func(sum []byte) error {
			if got := hex.EncodeToString(sum); !strings.EqualFold(got, payload) {
				return &Error{Code: "XAmzContentSHA256Mismatch", Status: http.StatusBadRequest, Message: "The provided 'x-amz-content-sha256' header does not match what was computed.",
					fields: []field{{"ClientComputedContentSHA256", payload}, {"S3ComputedContentSHA256", got}}}
			}
			return nil
		})
	}
	if text := h.Get("Content-Md5"); text != "" {
		want, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(want) != md5.Size {
			return nil, 0, badRequest("InvalidDigest", "The Content-MD5 you specified was invalid.")
		}
		b.check(md5.New(), func(sum []byte) error {
			if !bytes.Equal(sum, want) {
				return badRequest("BadDigest", "The Content-MD5 you specified did not match what we received.")
			}
			return nil
		})
	}
	for name, values := range h {
		algorithm := algorithmOf(name)
		if algorithm == "" {
			continue
		}
		if b.algorithm != "" {
			return nil, 0, badRequest("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		want := values[0]
		raw, err := base64.StdEncoding.DecodeString(want)
		if err != nil || len(raw) != algorithms[algorithm]().Size() {
			return nil, 0, badRequest("InvalidRequest", "Value for "+strings.ToLower(name)+" header is invalid.")
		}
		b.expect(algorithm, func() (string, bool) { return want, true })
	}
	return b, size, nil
}

func missingLength() error {
	return &Error{Code: "MissingContentLength", Status: http.StatusLengthRequired, Message: "You must provide the Content-Length HTTP header."}
}

func awsChunked(h http.Header) bool {
	for _, v := range h.Values("Content-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), "aws-chunked") {
				return true
			}
		}
	}
	return false
}

// checkedBody computes hashes of what passes through, and judges them at the end.
type checkedBody struct {
	r         io.Reader
	checks    []check
	algorithm string // of the client's checksum, empty if it sends none
	checksum  string // once it has been found right
	err       error
}

type check struct {
	hash.Hash
	judge func(sum []byte) error
}

func (b *checkedBody) check(h hash.Hash, judge func(sum []byte) error) {
	b.checks = append(b.checks, check{h, judge})
}

// expect holds the body to a checksum that is known at its end.
func (b *checkedBody) expect(algorithm string, want func() (string, bool)) {
	b.algorithm = algorithm
	b.check(algorithms[algorithm](), func(sum []byte) error {
		text, ok := want()
		if !ok {
			return badRequest("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		if b.checksum = base64.StdEncoding.EncodeToString(sum); text != b.checksum {
			return badRequest("BadDigest", "The "+algorithm+" you specified did not match the calculated checksum.")
		}
		return nil
	})
}

func (b *checkedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	for _, c := range b.checks {
		c.Write(p[:n])
	}
	if err == io.EOF {
		for _, c := range b.checks {
			if bad := c.judge(c.Sum(nil)); bad != nil {
				err = bad
				break
			}
		}
	}
	b.err = err
	return n, err
}

// chunkReader takes a body out of its chunks: each a line of its length in
// hexadecimal and perhaps its signature, the bytes, and an end of line; an empty
// one at the end, then perhaps trailing headers.
type chunkReader struct {
	r        *bufio.Reader
	chunks   *sigv4.Chunks // nil if signatures do not count
	trailing bool
	left     int64 // of the whole, as announced

	begun     bool
	chunk     int64 // left of the chunk
	signature string
	sum       hash.Hash
	trailers  map[string]string
	err       error
}

var errChunks = badRequest("InvalidChunk", "The body's chunks are not well-formed.")

const maxTrailers = 16

func (c *chunkReader) Read(p []byte) (n int, err error) {
	if c.err == nil {
		n, c.err = c.read(p)
	}
	if c.err != nil && n > 0 {
		return n, nil
	}
	return n, c.err
}

func (c *chunkReader) read(p []byte) (int, error) {
	if c.chunk == 0 {
		if err := c.nextChunk(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.chunk)])
	c.chunk -= int64(n)
	if c.sum != nil {
		c.sum.Write(p[:n])
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// nextChunk judges the chunk that has ended and reads the head of the next. At
// the end of the body it returns io.EOF.
func (c *chunkReader) nextChunk() error {
	if c.begun {
		if line, err := c.line(); err != nil {
			return err
		} else if line != "" {
			return errChunks
		}
		if err := c.endChunk(); err != nil {
			return err
		}
	}
	c.begun = true
	line, err := c.line()
	if err != nil {
		return err
	}
	length, extension, _ := strings.Cut(line, ";")
	size, err := strconv.ParseUint(strings.TrimSpace(length), 16, 63)
	if err != nil {
		return errChunks
	}
	c.signature, _ = strings.CutPrefix(strings.TrimSpace(extension), "chunk-signature=")
	if c.chunks != nil {
		c.sum = sha256.New()
	}
	c.chunk = int64(size)
	c.left -= c.chunk
	if c.left < 0 {
		return incompleteBody()
	}
	if size > 0 {
		return nil
	}
	if c.left > 0 {
		return incompleteBody()
	}
	if err := c.endChunk(); err != nil {
		return err
	}
	return c.end()
}

func (c *chunkReader) endChunk() error {
	if c.chunks == nil {
		return nil
	}
	if !c.chunks.Next([sha256.Size]byte(c.sum.Sum(nil)), c.signature) {
		return chunkMismatch()
	}
	return nil
}

func chunkMismatch() error {
	return &Error{Code: "SignatureDoesNotMatch", Status: http.StatusForbidden, Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method."}
}

// end reads what follows the last chunk. Some clients leave out the empty line.
func (c *chunkReader) end() error {
	c.trailers = map[string]string{}
	text := sha256.New()
	for {
		line, err := c.line()
		if errors.Is(err, io.ErrUnexpectedEOF) && !c.trailing {
			return io.EOF
		}
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || len(c.trailers) >= maxTrailers {
			return badRequest("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" {
			if c.chunks != nil && !c.chunks.Trailer([sha256.Size]byte(text.Sum(nil)), value) {
				return chunkMismatch()
			}
			c.chunks, c.trailing = nil, false
			continue
		}
		io.WriteString(text, name+":"+value+"\n")
		c.trailers[name] = value
	}
	if c.chunks != nil && c.trailing {
		// Signed trailers whose signature has not come.
		return chunkMismatch()
	}
	return io.EOF
}

// line reads a line without its end.
func (c *chunkReader) line() (string, error) {
	b, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errChunks
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
