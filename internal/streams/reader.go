package streams

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// Reader reads one stream for another service of the same server, without
// iterators, quotas and metrics: by the place of a record in its shard, which
// begins at 1 and stays what it is for as long as the record is there. Its
// methods may be called concurrently.
type Reader struct {
	s    *Service
	name streamName
	id   uint64 // of the incarnation
	gone chan struct{}
}

// OpenReader finds a stream by its ARN. The reader is bound to the stream as it
// is now: it does not continue with one that is made anew under the same name.
// ResourceNotFoundException if there is none that can be read.
func (s *Service) OpenReader(arn string) (*Reader, error) {
	n, ok := parseStreamARN(arn)
	if !ok {
		return nil, invalidArgument("StreamARN %s is not the ARN of a stream.", arn)
	}
	st := s.registry.stream(n)
	if st == nil || !st.readable() {
		return nil, streamNotFound(n.account, n.name)
	}
	return &Reader{s: s, name: n, id: st.id, gone: st.gone}, nil
}

// ID is unique among all streams that ever were: it tells a stream from one that
// had its name before.
func (r *Reader) ID() uint64 { return r.id }

// Gone is closed when the stream is being deleted.
func (r *Reader) Gone() <-chan struct{} { return r.gone }

// Resharded is closed when a shard of any stream was made or closed after the
// call: a reason to look at Shards, and at the end of shards that are read.
func (r *Reader) Resharded() <-chan struct{} { return r.s.resharded.wait() }

// ReaderShard is one shard as a reader sees it.
type ReaderShard struct {
	Number     uint32
	Name       string
	Parents    []uint32 // none, one after a split, two after a merge; they may have expired
	Start, End [16]byte // hash key range, big endian, inclusive
	Closed     bool
}

// Shards are the shards that can be read, by number; a shard that closed before
// the trim horizon is not among them.
func (r *Reader) Shards() ([]ReaderShard, error) {
	st, err := r.stream()
	if err != nil {
		return nil, err
	}
	visible := st.visible(r.s.now())
	shards := make([]ReaderShard, 0, len(visible))
	for _, sh := range visible {
		out := ReaderShard{Number: sh.index, Name: sh.id(), Closed: sh.closed != 0}
		for _, p := range []int64{sh.parent, sh.adjacent} {
			if p >= 0 {
				out.Parents = append(out.Parents, uint32(p))
			}
		}
		out.Start, out.End = sh.start.bytes(), sh.end.bytes()
		shards = append(shards, out)
	}
	return shards, nil
}

func (h hashKey) bytes() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], h.hi)
	binary.BigEndian.PutUint64(b[8:], h.lo)
	return b
}

// HashOf is the place of a partition key in the hash space, big endian.
func HashOf(partitionKey string) [16]byte { return hashOf(partitionKey).bytes() }

// ParseHashKey reads a hash key as callers write it.
func ParseHashKey(text string) (key [16]byte, ok bool) {
	h, ok := parseHashKey(text)
	return h.bytes(), ok
}

func (r *Reader) stream() (*stream, error) {
	st := r.s.registry.stream(r.name)
	if st == nil || st.id != r.id || !st.readable() {
		return nil, streamNotFound(r.name.account, r.name.name)
	}
	return st, nil
}

func (r *Reader) shard(number uint32) (*stream, *shard, error) {
	st, err := r.stream()
	if err != nil {
		return nil, nil, err
	}
	sh := st.listed(number, r.s.now())
	if sh == nil {
		return nil, nil, shardMissing(number, r.name)
	}
	return st, sh, nil
}

// At is the index of the first record of a shard that arrived at or after at; of
// the record that comes next, if there is none. At of the zero time is 1.
func (r *Reader) At(ctx context.Context, number uint32, at time.Time) (uint64, error) {
	_, sh, err := r.shard(number)
	if err != nil {
		return 0, err
	}
	if at.IsZero() {
		return 1, nil
	}
	millis := at.UnixMilli()
	if at.After(time.UnixMilli(millis)) {
		millis++ // a record of this millisecond is before the wanted time
	}
	index, err := r.s.log.FirstAt(ctx, sh.log, millis)
	if err != nil {
		return 0, r.s.pageError(nil, sh, err)
	}
	return uint64(index), nil
}

// Tail returns the index that the next record of a shard will have, and a
// channel that is closed when there may be more; see shardlog.Log.Tail. A shard
// that closes without another record shows in Resharded only. Of a shard that is
// not there, the channel is closed already.
func (r *Reader) Tail(number uint32) (next uint64, changed <-chan struct{}) {
	_, sh, err := r.shard(number)
	if err != nil {
		c := make(chan struct{})
		close(c)
		return 0, c
	}
	index, changed := r.s.log.Tail(sh.log)
	return uint64(index), changed
}

// Admit counts one read of a shard against its quotas, as a GetRecords call does,
// and tells whether it is within them. Read itself counts nothing.
func (r *Reader) Admit(number uint32) bool {
	_, sh, err := r.shard(number)
	return err != nil || r.s.quota.Read(uint64(sh.log))
}

// SequenceNumber is the number of a record on the wire; arrival is in
// milliseconds since 1970. Empty if the shard is not there any more.
func (r *Reader) SequenceNumber(number uint32, index uint64, arrival int64) string {
	st := r.s.registry.stream(r.name)
	if st == nil || st.id != r.id {
		return ""
	}
	sh := st.shard(number)
	if sh == nil {
		return ""
	}
	return recordNumber(sh, index, arrival).String()
}

// ReaderRecord is one record. Key and Data point into their page.
type ReaderRecord struct {
	Index   uint64
	Arrival int64  // milliseconds since 1970
	Key     []byte // partition key, nil if there is none
	Data    []byte
}

// ReaderPage is what one Read gave, and the memory that the next one may use
// again. Its zero value is ready.
type ReaderPage struct {
	Records []ReaderRecord
	// First is the index of the first record that was looked at: above what was
	// asked for when records have expired or were left out by a repair.
	First uint64
	// Next is where to go on.
	Next uint64
	// Tail is the index that the shard's next record will have.
	Tail uint64
	// End says that the shard is closed and nothing follows Next.
	End bool

	buf   []byte
	bound []byte
	key   *keyring.ShardKey
}

// Read reads records of a shard from an index on: whole stored batches, until
// they hold maxBytes, but one in any case if one is there. Sealed records are
// opened. Records below the trim horizon are skipped, which Next shows.
func (r *Reader) Read(ctx context.Context, number uint32, from uint64, maxBytes int, p *ReaderPage) error {
	st, sh, err := r.shard(number) // before reading: see readPage
	if err != nil {
		return err
	}
	clear(p.Records)
	from = max(from, 1)
	p.Records, p.First, p.Next, p.End, p.key = p.Records[:0], from, from, false, nil
	batches, buf, err := r.s.log.Read(ctx, sh.log, driver.Index(from), maxBytes, p.buf[:0])
	p.buf = buf
	if err != nil {
		return r.s.pageError(st, sh, err)
	}
	horizon := st.trimHorizon(r.s.now())
	if len(batches) > 0 && batches[len(batches)-1].At < horizon {
		// Only expired records: go to the first that is not.
		first, err := r.s.log.FirstAt(ctx, sh.log, horizon)
		if err != nil {
			return r.s.pageError(st, sh, err)
		}
		p.Next = max(uint64(first), uint64(batches[len(batches)-1].Next()))
		if batches, p.buf, err = r.s.log.Read(ctx, sh.log, driver.Index(p.Next), maxBytes, p.buf[:0]); err != nil {
			return r.s.pageError(st, sh, err)
		}
	}
	var opened page // what unseal keeps of a key
	opened.bound, opened.key = p.bound, p.key
	for _, b := range batches {
		if b.At < horizon {
			p.Next = max(p.Next, uint64(b.Next()))
			continue
		}
		for stored, err := range shardlog.Records(b) {
			if err != nil {
				return r.s.pageError(st, sh, err)
			}
			index := uint64(stored.Index)
			if index < p.Next {
				continue
			}
			rec, err := parseStored(stored.Data)
			if err != nil {
				return damaged(sh, index, err)
			}
			out := ReaderRecord{Index: index, Arrival: b.At, Data: rec.data}
			if rec.hasKey {
				out.Key = unsafe.Slice(unsafe.StringData(rec.key), len(rec.key))
			}
			if rec.sealed {
				if out.Data, err = r.s.unseal(&opened, st, sh, rec, index, b.At); err != nil {
					return err
				}
			}
			if len(p.Records) == 0 {
				p.First = index
			}
			p.Records = append(p.Records, out)
			p.Next = index + 1
		}
	}
	p.bound, p.key = opened.bound, opened.key
	bounds, err := r.s.log.Bounds(ctx, sh.log)
	if err != nil {
		return r.s.pageError(st, sh, err)
	}
	p.Tail = uint64(bounds.Next)
	if len(p.Records) == 0 && p.Next < p.Tail && len(batches) == 0 {
		// Either something has come since, or what is missing was left out by a
		// repair: a reader goes on behind it.
		more, buf, err := r.s.log.Read(ctx, sh.log, driver.Index(p.Next), 1, p.buf[:0])
		if p.buf = buf; err != nil {
			return r.s.pageError(st, sh, err)
		}
		if len(more) == 0 {
			p.Next = p.Tail
		}
	}
	if len(p.Records) == 0 {
		p.First = p.Next
	}
	p.End = sh.closed != 0 && p.Next >= p.Tail && len(p.Records) == 0
	return nil
}

// IsGone reports whether an error of a Reader or Writer means that the stream or
// shard is not there any more, so that trying again is of no use.
func IsGone(err error) bool {
	var coded interface{ ErrorCode() string }
	return errors.As(err, &coded) && coded.ErrorCode() == "ResourceNotFoundException"
}

// Writer writes to one stream for another service of the same server.
type Writer struct{ r Reader }

// OpenWriter finds a stream by its ARN, as OpenReader does.
func (s *Service) OpenWriter(arn string) (*Writer, error) {
	r, err := s.OpenReader(arn)
	if err != nil {
		return nil, err
	}
	return &Writer{*r}, nil
}

// WriteRecord is one record to be written.
type WriteRecord struct {
	Key  string // partition key, 1 to 256 characters
	Data []byte
}

// WriteResult says what became of one record: its sequence number and shard, or
// why it was refused.
type WriteResult struct {
	SequenceNumber string
	Shard          string
	Code, Message  string // empty if it was stored
	// Retry says that the same record may be taken later.
	Retry bool
}

// Write stores records and returns when they are durable, with one result for
// each of them in order. Records of one key keep their order. A record that is
// too large or has no key, and one that a quota refuses, does not keep the
// others from being stored. The error is of the whole, of which nothing is known
// to be stored. Data is not kept.
func (w *Writer) Write(ctx context.Context, records []WriteRecord) ([]WriteResult, error) {
	s := w.r.s
	results := make([]WriteResult, len(records))
	for at := 0; at < len(records); {
		end, size := at, 0
		for end < len(records) && end-at < maxWriteRecords {
			size += len(records[end].Data) + len(records[end].Key)
			if size > maxPutBytes && end > at {
				break
			}
			end++
		}
		if err := w.write(ctx, s, records[at:end], results[at:end]); err != nil {
			return nil, fmt.Errorf("write to stream %s: %w", w.r.name.name, err)
		}
		at = end
	}
	return results, nil
}

// maxWriteRecords is how many records are stored at a time: as many as a
// PutRecords takes.
const maxWriteRecords = 500

func (w *Writer) write(ctx context.Context, s *Service, records []WriteRecord, results []WriteResult) error {
	st, err := w.r.stream()
	if err != nil {
		return err
	}
	p := newPut()
	defer p.release()
	places := make([]int, 0, len(records)) // in results, of the put's records
	for i := range records {
		r := &records[i]
		var bad failures
		bad.check(st, func() string { return "" }, r.Data, &r.Key)
		if len(r.Key) == 0 && !st.autoDistribution {
			bad.add("Value '' at 'partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1")
		}
		if err := bad.err(); err != nil {
			results[i] = WriteResult{Code: "ValidationException", Message: err.Error()}
			continue
		}
		if err := p.add(s, st, r.Data, &r.Key, nil); err != nil {
			return err
		}
		places = append(places, i)
	}
	if len(places) == 0 {
		return nil
	}
	start := s.now()
	p.reserve()
	p.begin(st, start)
	throttled := s.admit(p)
	if err := s.putAll(ctx, p); err != nil {
		return err
	}
	p.failed = 0
	for n, i := range places {
		r := &p.records[n]
		if r.ok {
			results[i] = WriteResult{SequenceNumber: string([]byte(p.texts[n])), Shard: string([]byte(p.texts[len(places)+n]))}
			continue
		}
		p.failed++
		results[i] = WriteResult{Code: *r.err, Message: *r.reason, Retry: true}
	}
	s.countPutRecords(st, p, throttled, float64(s.now().Sub(start).Microseconds())/1000)
	return nil
}
