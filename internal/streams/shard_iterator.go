package streams

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/millrace/millrace/internal/api/kinesis"
)

// shardIterator is a place in a shard, handed to clients as sealed text. It
// carries all that a read needs, so nothing is remembered between two reads. The
// stream's creation number keeps iterators of a deleted stream from working on
// its successor of the same name.
//
// The text is base64 of
//
//	8 bytes   00 … 01, the version
//	12 bytes  nonce, random: no two iterators are alike
//	rest      AES-256-GCM of: issue time (8, ms), stream creation number (8), shard
//	          index (4), index of the next record (8), length and bytes of
//	          account, region and name (1 + n each)
type shardIterator struct {
	issued int64 // milliseconds since 1970
	stream streamName
	id     uint64 // the stream's creation number
	shard  uint32
	next   uint64 // index of the first record to return
}

const (
	// iteratorLife is how long an iterator can be used.
	iteratorLife = 300 * time.Second
	// maxIteratorText is the longest text the service hands out.
	maxIteratorText   = 512
	iteratorVersion   = 1
	iteratorHeader    = 8
	iteratorNonce     = 12
	iteratorFixed     = 8 + 8 + 4 + 8
	maxIteratorRegion = 64
)

// sealIterator makes the text of an iterator.
func (s *Service) sealIterator(it shardIterator) string {
	var room [maxIteratorText]byte
	b := binary.BigEndian.AppendUint64(room[:0], iteratorVersion)
	b = b[:iteratorHeader+iteratorNonce]
	rand.Read(b[iteratorHeader:])

	var plainRoom [maxIteratorText]byte
	plain := binary.BigEndian.AppendUint64(plainRoom[:0], uint64(it.issued))
	plain = binary.BigEndian.AppendUint64(plain, it.id)
	plain = binary.BigEndian.AppendUint32(plain, it.shard)
	plain = binary.BigEndian.AppendUint64(plain, it.next)
	for _, part := range [...]string{it.stream.account, it.stream.region, it.stream.name} {
		plain = append(plain, byte(len(part)))
		plain = append(plain, part...)
	}
	b = s.iterators.Seal(b, b[iteratorHeader:], plain, b[:iteratorHeader])
	return base64.StdEncoding.EncodeToString(b)
}

// openIterator reads the text of an iterator. One pair of quotes around it is
// forgiven, as the service does.
func (s *Service) openIterator(text string) (shardIterator, bool) {
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' {
		text = text[1 : n-1]
	}
	if len(text) > maxIteratorText {
		return shardIterator{}, false
	}
	var room [maxIteratorText]byte
	n, err := base64.StdEncoding.Strict().Decode(room[:], []byte(text))
	if err != nil || n < iteratorHeader+iteratorNonce+s.iterators.Overhead()+iteratorFixed {
		return shardIterator{}, false
	}
	b := room[:n]
	if binary.BigEndian.Uint64(b) != iteratorVersion {
		return shardIterator{}, false
	}
	sealed := b[iteratorHeader+iteratorNonce:]
	plain, err := s.iterators.Open(sealed[:0], b[iteratorHeader:iteratorHeader+iteratorNonce], sealed, b[:iteratorHeader])
	if err != nil {
		return shardIterator{}, false
	}
	it := shardIterator{
		issued: int64(binary.BigEndian.Uint64(plain)),
		id:     binary.BigEndian.Uint64(plain[8:]),
		shard:  binary.BigEndian.Uint32(plain[16:]),
		next:   binary.BigEndian.Uint64(plain[20:]),
	}
	plain = plain[iteratorFixed:]
	for _, part := range [...]*string{&it.stream.account, &it.stream.region, &it.stream.name} {
		if len(plain) == 0 || int(plain[0]) > len(plain)-1 {
			return shardIterator{}, false
		}
		*part = string(plain[1 : 1+plain[0]])
		plain = plain[1+plain[0]:]
	}
	return it, len(plain) == 0
}

// iteratorStream is the stream that an iterator names.
func (s *Service) iteratorStream(text string) (streamName, bool) {
	it, ok := s.openIterator(text)
	return it.stream, ok
}

// useIterator reads an iterator for a call that reads with it now.
func (s *Service) useIterator(text string, now time.Time) (shardIterator, error) {
	it, ok := s.openIterator(text)
	if !ok {
		return it, invalidArgument("Invalid ShardIterator.")
	}
	if now.UnixMilli()-it.issued > iteratorLife.Milliseconds() {
		const layout = "Mon Jan 02 15:04:05 UTC 2006"
		return it, &kinesis.ExpiredIteratorException{Message: "Iterator expired. The iterator was created at time " +
			time.UnixMilli(it.issued).UTC().Format(layout) + " while right now it is " + now.UTC().Format(layout) +
			" which is further in the future than the tolerated delay of 300000 milliseconds."}
	}
	return it, nil
}
