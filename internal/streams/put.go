package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/keyring"
	"github.com/millrace/millrace/internal/shardlog"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

const (
	// maxPutBytes bounds data and partition keys of a PutRecords call.
	maxPutBytes = 10 << 20
	// maxReroutes bounds how often a record looks for its shard again; the time
	// between grows to maxReroutePause. A resharding takes a commit or two.
	maxReroutes     = 600
	maxReroutePause = 16 * time.Millisecond
	// putSlots is the size of the table from shards to groups: twice the largest
	// request, rounded up.
	putSlots = 1024
)

// put is one PutRecord or PutRecords call at work: records chained into one
// group a shard, each of them a batch of the log. All of its memory is used
// again; a call allocates nothing that grows with its records. Records alias the
// request, which outlives the call.
type put struct {
	stream  *stream
	records []putRecord
	groups  []putGroup
	batches []driver.Batch
	refs    []*driver.Batch

	table  [putSlots]uint32 // place in groups + 1, of calls of this turn
	turns  [putSlots]uint32
	turn   uint32
	now    time.Time
	failed int
	bytes  int // of data, accepted

	// The reply.
	numbers []byte
	names   []byte   // of shards
	texts   []string // number by number; shard names behind
	results []kinesis.PutRecordsResultEntry
	output  kinesis.PutRecordsOutput
	count   int32
	done    func()
}

// putRecord is one record of a call.
type putRecord struct {
	data   []byte
	key    string
	hasKey bool
	forced bool // hash is an ExplicitHashKey
	ok     bool // stored
	hash   hashKey
	next   int32 // next record of the same group, -1 for none
	group  int32 // -1: not in one, because it was refused
	err    *string
	reason *string
}

// putGroup is what one shard gets. It is the batch's payload.
type putGroup struct {
	put         *put
	shard       *shard
	name        string
	first, last int32
	count, size int
	key         *keyring.ShardKey // nil: stored as it is
}

var puts sync.Pool

func newPut() *put {
	if p, ok := puts.Get().(*put); ok {
		return p
	}
	p := new(put)
	p.done = p.release
	return p
}

func (p *put) release() {
	clear(p.records)
	clear(p.groups)
	clear(p.batches)
	clear(p.refs)
	clear(p.results)
	clear(p.texts)
	p.records, p.groups, p.batches, p.refs = p.records[:0], p.groups[:0], p.batches[:0], p.refs[:0]
	p.results, p.texts, p.numbers = p.results[:0], p.texts[:0], p.numbers[:0]
	p.names = p.names[:0]
	p.stream, p.output, p.failed, p.bytes = nil, kinesis.PutRecordsOutput{}, 0, 0
	puts.Put(p)
}

// Encode writes the group's records into the log's memory.
func (g *putGroup) Encode(dst []byte, base driver.Index, at int64) {
	var bound []byte // grows for sealed records only
	index := uint64(base)
	for i := g.first; i >= 0; {
		r := &g.put.records[i]
		dst = dst[shardlog.PutFrame(dst, storedSize(r.key, r.hasKey, len(r.data), g.key != nil)):]
		n := putStoredHeader(dst, r.key, r.hasKey, g.key)
		if g.key == nil {
			n += copy(dst[n:], r.data)
		} else {
			bound = appendBound(bound[:0], g.put.stream.id, g.shard.index, index, dst[:n])
			n += len(g.key.Seal(dst[n:n:n+len(r.data)+keyring.Overhead], r.data, index, at, bound))
		}
		dst = dst[n:]
		index++
		i = r.next
	}
}

var (
	codeThrottled = "ProvisionedThroughputExceededException"
	codeInternal  = "InternalFailure"
	textInternal  = "Internal service failure."
)

// refuse marks a record as not stored.
func (p *put) refuse(r *putRecord, code, reason *string) {
	r.group, r.err, r.reason = -1, code, reason
}

// begin readies p for a stream.
func (p *put) begin(st *stream, now time.Time) {
	p.stream, p.now = st, now
	p.groups = p.groups[:0]
	p.turn++
	if p.turn == 0 {
		clear(p.turns[:])
		p.turn = 1
	}
}

// place puts a record into the group of its shard. False if the stream has no
// shard for it, which is so only for a moment at its creation.
func (p *put) place(i int32) bool {
	r := &p.records[i]
	sh := p.stream.routeFast(r.hash)
	if sh == nil {
		return false
	}
	slot := sh.index * 0x9e3779b1 >> 22
	var g *putGroup
	for ; ; slot = (slot + 1) % putSlots {
		if p.turns[slot] != p.turn {
			p.turns[slot] = p.turn
			p.groups = append(p.groups, putGroup{put: p, shard: sh, first: i, last: -1})
			p.table[slot] = uint32(len(p.groups))
			g = &p.groups[len(p.groups)-1]
			break
		}
		if g = &p.groups[p.table[slot]-1]; g.shard == sh {
			break
		}
	}
	r.group = int32(p.table[slot]) - 1
	r.next = -1
	if g.last >= 0 {
		p.records[g.last].next = i
	}
	g.last = i
	g.count++
	g.size += shardlog.FrameSize(storedSize(r.key, r.hasKey, len(r.data), p.stream.encryption != nil))
	return true
}

// putAll stores the records of p and marks each as stored or refused. An error
// is of the call as a whole.
func (s *Service) putAll(ctx context.Context, p *put) error {
	st := p.stream
	pending := len(p.records)
	pause := time.Millisecond
	for round := 0; pending > 0; round++ {
		if round > 0 {
			// A fence stands before the new map does.
			if round > maxReroutes {
				p.refusePending()
				return nil
			}
			if err := sleep(ctx, pause); err != nil {
				return storeError(err)
			}
			pause = min(pause*2, maxReroutePause)
			now := s.current(st)
			if now == nil || !now.readable() {
				return streamNotFound(st.account, st.name)
			}
			st = now
			p.begin(st, p.now)
		}
		for i := range p.records {
			r := &p.records[i]
			if r.ok || r.err != nil {
				continue
			}
			if !p.place(int32(i)) {
				p.refuse(r, &codeInternal, &textInternal)
			}
		}
		if len(p.groups) == 0 {
			return nil
		}
		if round == 0 && !s.quota.Enforced() {
			for i := range p.groups {
				g := &p.groups[i]
				if r := &p.records[g.first]; g.count == 1 {
					s.quota.Write(uint64(g.shard.log), len(r.data)+len(r.key), st.maxRecordBytes)
				} else {
					s.quota.CountWrites(uint64(g.shard.log), g.sizes, st.maxRecordBytes)
				}
			}
		}
		var err error
		if pending, err = s.putGroups(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// putGroups appends the groups and returns how many records must be routed
// again.
func (s *Service) putGroups(ctx context.Context, p *put) (again int, err error) {
	st := p.stream
	if st.encryption != nil {
		if s.keyring == nil {
			return 0, fmt.Errorf("stream %s: no key ring to seal records with", st.arn)
		}
		k, err := s.keyring.DataKey(st.encryption.dataKey)
		if err != nil {
			return 0, keyError(st, err)
		}
		for i := range p.groups {
			p.groups[i].key = k.Shard(uint64(p.groups[i].shard.log))
		}
	}
	p.batches, p.refs = p.batches[:0], p.refs[:0]
	for i := range p.groups {
		g := &p.groups[i]
		p.batches = append(p.batches, driver.Batch{Shard: g.shard.log, Count: g.count, Size: g.size, Payload: g})
	}
	for i := range p.batches {
		p.refs = append(p.refs, &p.batches[i])
	}
	if err := s.log.Append(ctx, p.refs); err != nil {
		return 0, storeError(err)
	}
	for i := range p.groups {
		g, b := &p.groups[i], &p.batches[i]
		switch {
		case b.Err == nil:
			g.name = p.name(g.shard.index)
			index := uint64(b.Base)
			for j := g.first; j >= 0; j = p.records[j].next {
				r := &p.records[j]
				r.ok = true
				p.bytes += len(r.data)
				at := int(j) * sequenceDigits
				recordNumber(g.shard, index, b.At).appendTo(p.numbers[at : at : at+sequenceDigits])
				p.texts[j] = unsafe.String(&p.numbers[at], sequenceDigits)
				p.texts[len(p.records)+int(j)] = g.name
				index++
			}
			s.countPut(st, g)
		case errors.Is(b.Err, shardlog.ErrFenced), errors.Is(b.Err, driver.ErrNotFound):
			again += g.count
		default:
			s.logger.ErrorContext(ctx, "records could not be stored", "stream", st.arn, "shard", g.shard.id(), "error", b.Err)
			for j := g.first; j >= 0; {
				r := &p.records[j]
				j = r.next
				p.refuse(r, &codeInternal, &textInternal)
			}
		}
	}
	return again, nil
}

// name is a shard's name in the call's memory. Earlier names stay valid when the
// arena grows: they keep what they point into.
func (p *put) name(index uint32) string {
	const zeros = "shardId-000000000000"
	at := len(p.names)
	p.names = append(p.names, zeros...)
	name := p.names[at:]
	for i := len(name) - 1; index > 0; i-- {
		name[i] = '0' + byte(index%10)
		index /= 10
	}
	return unsafe.String(unsafe.SliceData(name), len(name))
}

// refusePending gives up on records that found no shard.
func (p *put) refusePending() {
	for i := range p.records {
		if r := &p.records[i]; !r.ok && r.err == nil {
			p.refuse(r, &codeInternal, &textInternal)
		}
	}
}

// reserve makes room for what is found out about every record.
func (p *put) reserve() {
	n := len(p.records)
	if cap(p.numbers) < n*sequenceDigits {
		p.numbers = make([]byte, 0, max(n, 16)*sequenceDigits)
	}
	p.numbers = p.numbers[:n*sequenceDigits]
	if cap(p.texts) < 2*n {
		p.texts = make([]string, 0, max(2*n, 32))
	}
	p.texts = p.texts[:2*n]
	// Payloads are pointers into groups, which must not move any more.
	if cap(p.groups) < n {
		p.groups = make([]putGroup, 0, max(n, 16))
	}
}

// sizes are what the group's records count for in quotas.
func (g *putGroup) sizes(yield func(int) bool) {
	for j := g.first; j >= 0; {
		r := &g.put.records[j]
		if !yield(len(r.data) + len(r.key)) {
			return
		}
		j = r.next
	}
}

// admit asks the shard's quota for every record. Where nothing is refused, records
// are counted shard by shard when they have been routed: see putAll.
func (s *Service) admit(p *put) (throttled int) {
	if !s.quota.Enforced() {
		return 0
	}
	st := p.stream
	var last *shard
	var reason string
	for i := range p.records {
		r := &p.records[i]
		sh := st.routeFast(r.hash)
		if sh == nil || s.quota.Write(uint64(sh.log), len(r.data)+len(r.key), st.maxRecordBytes) {
			continue
		}
		if sh != last {
			last, reason = sh, rateExceeded(sh.index, st.place())
		}
		text := reason
		p.refuse(r, &codeThrottled, &text)
		throttled++
		s.shardMetric(st, sh, kinesis.MetricsNameWriteProvisionedThroughputExceeded, WriteProvisionedThroughputExceeded, 1)
	}
	return throttled
}

func (s *Service) countPut(st *stream, g *putGroup) {
	if len(st.monitoring) == 0 {
		return
	}
	var bytes int
	for j := g.first; j >= 0; j = g.put.records[j].next {
		bytes += len(g.put.records[j].data)
	}
	s.shardMetric(st, g.shard, kinesis.MetricsNameIncomingBytes, IncomingBytes, float64(bytes))
	s.shardMetric(st, g.shard, kinesis.MetricsNameIncomingRecords, IncomingRecords, float64(g.count))
}

// add takes in a record of the call. The stream's rules have been checked.
func (p *put) add(s *Service, st *stream, data []byte, key, explicit *string) error {
	r := putRecord{data: data, next: -1, group: -1}
	if key != nil {
		r.key, r.hasKey = *key, true
	}
	if explicit != nil {
		h, ok := parseHashKey(*explicit)
		if !ok {
			return invalidArgument("Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was %s", *explicit)
		}
		r.hash, r.forced = h, true
	}
	switch {
	case st.autoDistribution:
		// One shard after the other: the range is walked in steps of the golden
		// ratio, which spreads evenly over any number of shards.
		r.hash = hashKey{hi: s.spread.Add(1) * 0x9e3779b97f4a7c15}
	case !r.forced:
		r.hash = hashOf(r.key)
	}
	p.records = append(p.records, r)
	return nil
}

// writable finds the stream of a put.
func writable(st *stream, err error) (*stream, error) {
	if err != nil {
		return nil, err
	}
	if !st.readable() {
		return nil, streamNotFound(st.account, st.name)
	}
	return st, nil
}

// failures collects broken constraints that depend on the stream, in the words
// of the model's.
type failures struct {
	n    int
	text strings.Builder
}

func (f *failures) add(text string) {
	if f.n == 10 {
		return
	}
	if f.n > 0 {
		f.text.WriteString("; ")
	}
	f.n++
	f.text.WriteString(text)
}

func (f *failures) err() error {
	switch f.n {
	case 0:
		return nil
	case 1:
		return &kinesis.ValidationException{Message: "1 validation error detected: " + f.text.String()}
	}
	return &kinesis.ValidationException{Message: fmt.Sprintf("%d validation errors detected: %s", f.n, f.text.String())}
}

// check adds what the stream refuses about a record at a path.
func (f *failures) check(st *stream, path func() string, data []byte, key *string) {
	if len(data) > st.maxRecordBytes {
		f.add(fmt.Sprintf("Value at '%sdata' failed to satisfy constraint: Member must have length less than or equal to %d", path(), st.maxRecordBytes))
	}
	if key == nil && !st.autoDistribution {
		f.add(fmt.Sprintf("Value null at '%spartitionKey' failed to satisfy constraint: Member must not be null", path()))
	}
	if key != nil && (len(*key) > maxStoredKey || len(*key) > 256 && utf8.RuneCountInString(*key) > 256) {
		f.add(fmt.Sprintf("Value at '%spartitionKey' failed to satisfy constraint: Member must have length less than or equal to 256", path()))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
