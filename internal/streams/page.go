package streams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	// maxPageBytes bounds the data of a reply.
	maxPageBytes = 10 << 20
	// maxPageRecords bounds the records of a reply.
	maxPageRecords = 10_000
	// maxKeptBytes is how large a buffer may be to be used again.
	maxKeptBytes = 32 << 20
	// maxKeptEventBytes is the same for events, where a slow client keeps the
	// buffer for as long as it likes: one read for a full event, and not much more.
	maxKeptEventBytes = 2 * maxEventBytes
)

// page is some records of a shard on their way to a client, with the memory
// they need. Records point into buf and the arenas beside it; nothing is
// allocated for one. It is returned with release once the reply is encoded.
type page struct {
	records []kinesis.Record
	next    uint64 // index behind what was looked at
	lastAt  int64  // arrival of the last record, when there is one
	bytes   int    // of data in records
	behind  int64  // MillisBehindLatest
	atEnd   bool   // there is nothing at next and never will be

	buf     []byte
	numbers []byte
	parts   []recordParts
	times   []time.Time
	bound   []byte
	key     *keyring.ShardKey // of the last sealed record

	charged int64 // to pageMemory
	output  kinesis.GetRecordsOutput
	done    func() // release as a value, made once
}

// Pages live until their client has taken them, which may be minutes. So that
// clients who take nothing cannot fill the memory, pages get smaller as those
// that exist take more of it, and beyond twice the bound there are none: readers
// who keep up notice short pages at worst, which are legal at any time.
const (
	maxPageMemory = 512 << 20
	// minPageBytes is as small as pages get. Batches are read as a whole, so
	// smaller pages would read much more than they return.
	minPageBytes = 1 << 20
)

// pageMemory is what all pages take, with the replies that are made from them.
var pageMemory atomic.Int64

// pageCost is the memory of a page with so many bytes of data: as it was
// stored, and in base64.
func pageCost(n int) int64 { return int64(n) * 12 / 5 }

// reserve takes memory for a page and says how much data it may have.
func (p *page) reserve() (maxBytes int, err error) {
	used := pageMemory.Load()
	if used > 2*maxPageMemory {
		return 0, &unavailable{"Too many replies wait for their clients to take them; try again later."}
	}
	maxBytes = maxPageBytes
	if room := (maxPageMemory - used) / 4; room < pageCost(maxPageBytes) {
		maxBytes = max(int(room*5/12), minPageBytes)
	}
	p.charged = pageCost(maxBytes)
	pageMemory.Add(p.charged)
	return maxBytes, nil
}

// settle gives back what the page was granted and does not need.
func (p *page) settle() {
	needed := int64(len(p.buf)) + int64(p.replySize())
	pageMemory.Add(needed - p.charged)
	p.charged = needed
}

// replySize is about how long the reply with this page is.
func (p *page) replySize() int { return p.bytes/3*4 + len(p.records)*256 + 1024 }

var (
	pages sync.Pool
	// eventPages are apart: a subscriber that does not read must not sit on the
	// buffer of a large GetRecords.
	eventPages sync.Pool
)

// recordParts are what a record points to.
type recordParts struct {
	number string
	key    string
	hasKey bool
	time   int32 // place in page.times: records of a batch share one
}

func newPage() *page {
	if p, ok := pages.Get().(*page); ok {
		return p
	}
	p := new(page)
	p.done = p.release
	return p
}

func newEventPage() *page {
	if p, ok := eventPages.Get().(*page); ok {
		return p
	}
	return new(page)
}

func (p *page) release() {
	pageMemory.Add(-p.charged)
	p.charged = 0
	p.clear(maxKeptBytes)
	pages.Put(p)
}

func (p *page) releaseEvent() {
	p.clear(maxKeptEventBytes)
	eventPages.Put(p)
}

// clear forgets the records and keeps up to maxKept bytes of memory for the next.
func (p *page) clear(maxKept int) {
	clear(p.records)
	clear(p.parts)
	p.output = kinesis.GetRecordsOutput{}
	p.records, p.parts, p.times, p.numbers, p.key = p.records[:0], p.parts[:0], p.times[:0], p.numbers[:0], nil
	if cap(p.buf) > maxKept {
		p.buf = nil
	}
	p.buf = p.buf[:0]
}

var kmsEncryption = kinesis.EncryptionTypeKms

// readPage fills p with the records of a shard from next on: at most limit of
// them and maxBytes of data, but one in any case if one is there. Records below
// the trim horizon are skipped.
//
// The shard's state must have been taken before the call: that of a closed
// shard says that nothing follows what is there.
func (s *Service) readPage(ctx context.Context, p *page, st *stream, sh *shard, next uint64, limit, maxBytes int, now time.Time) error {
	horizon := st.trimHorizon(now)
	p.next, p.bytes, p.lastAt, p.behind, p.atEnd = max(next, 1), 0, 0, 0, false
	full := false
	for !full && len(p.records) < limit && p.bytes < maxBytes {
		// Small limits read little; what is missing is read in another round.
		want := min(maxBytes-p.bytes, max(64<<10, (limit-len(p.records))*2048))
		batches, buf, err := s.log.Read(ctx, sh.log, driver.Index(p.next), want, p.buf)
		if err != nil {
			return s.pageError(st, sh, err)
		}
		p.buf = buf
		if len(batches) == 0 {
			break
		}
		for i := range batches {
			b := &batches[i]
			if b.At < horizon {
				p.next = max(p.next, uint64(b.Next()))
				continue
			}
			if full, err = s.takeBatch(p, st, sh, *b, limit, maxBytes); err != nil {
				return err
			}
			if full {
				break
			}
		}
		if len(p.records) == 0 && p.next > 1 && batches[len(batches)-1].At < horizon {
			// Only expired records so far: go to the first that is not.
			first, err := s.log.FirstAt(ctx, sh.log, horizon)
			if err != nil {
				return s.pageError(st, sh, err)
			}
			p.next = max(p.next, uint64(first))
			p.buf = p.buf[:0]
		}
	}
	p.finishRecords()
	bounds, err := s.log.Bounds(ctx, sh.log)
	if err != nil {
		return s.pageError(st, sh, err)
	}
	if len(p.records) == 0 && p.next < uint64(bounds.Next) {
		// Either something has come since, or what is missing was damaged and left
		// out by a repair: a reader goes on behind it.
		more, buf, err := s.log.Read(ctx, sh.log, driver.Index(p.next), 1, p.buf)
		if err != nil {
			return s.pageError(st, sh, err)
		}
		if p.buf = buf; len(more) == 0 {
			p.next = uint64(bounds.Next)
		}
	}
	switch {
	case p.next >= uint64(bounds.Next):
		p.atEnd = sh.closed != 0 && len(p.records) == 0
	case len(p.records) > 0:
		p.behind = max(0, now.UnixMilli()-p.lastAt)
	default:
		p.behind = max(0, now.UnixMilli()-bounds.LastAt)
	}
	return nil
}

// takeBatch adds the records of a batch until the page is full.
func (s *Service) takeBatch(p *page, st *stream, sh *shard, b driver.StoredBatch, limit, maxBytes int) (full bool, err error) {
	first := true
	for r, err := range shardlog.Records(b) {
		if err != nil {
			return false, s.pageError(st, sh, err)
		}
		index := uint64(r.Index)
		if index < p.next {
			continue
		}
		if len(p.records) >= limit {
			return true, nil
		}
		rec, err := parseStored(r.Data)
		if err != nil {
			return false, damaged(sh, index, err)
		}
		size := len(rec.data)
		if rec.sealed {
			size -= keyring.Overhead
		}
		if len(p.records) > 0 && p.bytes+size > maxBytes {
			return true, nil
		}
		data := rec.data
		if rec.sealed {
			if data, err = s.unseal(p, st, sh, rec, index, b.At); err != nil {
				return false, err
			}
		}
		if first {
			p.times = append(p.times, time.UnixMilli(b.At).UTC())
			first = false
		}
		p.numbers = recordNumber(sh, index, b.At).appendTo(p.numbers)
		out := kinesis.Record{Data: data}
		if rec.sealed {
			out.EncryptionType = &kmsEncryption
		}
		p.records = append(p.records, out)
		p.parts = append(p.parts, recordParts{key: rec.key, hasKey: rec.hasKey, time: int32(len(p.times) - 1)})
		p.bytes += size
		p.next, p.lastAt = index+1, b.At
	}
	return false, nil
}

// finishRecords points the records into the arenas, which have stopped to grow.
func (p *page) finishRecords() {
	for i := range p.records {
		r, part := &p.records[i], &p.parts[i]
		part.number = unsafe.String(&p.numbers[i*sequenceDigits], sequenceDigits)
		r.SequenceNumber = &part.number
		r.ApproximateArrivalTimestamp = &p.times[part.time]
		if part.hasKey {
			r.PartitionKey = &part.key
		}
	}
}

func (s *Service) unseal(p *page, st *stream, sh *shard, rec storedRecord, index uint64, at int64) ([]byte, error) {
	if p.key == nil || p.key.ID != rec.dataKey || p.key.Version != rec.keyVersion {
		if s.keyring == nil {
			return nil, fmt.Errorf("shard %s of stream %s: no key ring to open records with", sh.id(), st.arn)
		}
		k, err := s.keyring.DataKeyVersion(rec.dataKey, rec.keyVersion)
		if err != nil {
			return nil, keyError(st, err)
		}
		p.key = k.Shard(uint64(sh.log))
	}
	p.bound = appendBound(p.bound[:0], st.id, sh.index, index, rec.header)
	data, err := p.key.Open(rec.data[:0], rec.data, index, at, p.bound)
	if err != nil {
		return nil, damaged(sh, index, err)
	}
	return data, nil
}

func damaged(sh *shard, index uint64, err error) error {
	return fmt.Errorf("record %d of shard %s: %w", index, sh.id(), err)
}

// pageError tells apart a shard that went away during the read.
func (s *Service) pageError(st *stream, sh *shard, err error) error {
	if errors.Is(err, driver.ErrNotFound) {
		return shardMissing(sh.index, st.place())
	}
	return storeError(err)
}
