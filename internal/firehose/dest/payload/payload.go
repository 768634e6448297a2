// Package payload turns a batch into the bodies of requests.
//
// The one idea: a batch is read twice. The first time it is cut into parts that
// fit a request, whose encoded length is then known; the second time each part
// is encoded while it is sent. So a body has a Content-Length, can be sent again
// from its beginning, and never stands in memory, however large the batch is.
// Only what must be compressed first is kept, in pooled blocks.
//
// Start reading at Plan, then Source.
package payload

import (
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/millrace/millrace/internal/firehose/record"
)

// Form is how a record looks in a body.
type Form interface {
	// Size is the length of what Append appends for the same record, or negative
	// for a record that this form does not take.
	Size(r *record.Record, first bool) int
	// Append appends the record's form. first says that it opens a body.
	Append(body []byte, r *record.Record, first bool) []byte
}

// Limits bound a part.
type Limits struct {
	Records int
	Bytes   int64 // encoded, without what surrounds the records
}

// Part is a run of a batch's records that travel together.
type Part struct {
	From, To int   // indexes, To behind the last
	Bytes    int64 // encoded
	Data     int64 // of the records themselves
	// First and Last are the places of the outermost records.
	First, Last record.Position
}

// Records counts the part's records.
func (p Part) Records() int { return p.To - p.From }

var errStop = errors.New("far enough")

// Plan cuts the records from … to-1 of a batch into parts within limits. Records
// that the form does not take, or that do not fit alone, are in none of them;
// refused lists their indexes.
func Plan(b *record.Batch, from, to int, f Form, l Limits) (parts []Part, refused []int, err error) {
	var p Part
	open := false
	flush := func() {
		if open {
			parts = append(parts, p)
			open = false
		}
	}
	err = b.Each(func(i int, r *record.Record) error {
		if i >= to {
			return errStop
		}
		if i < from {
			return nil
		}
		if !open || p.Records() == l.Records {
			flush()
		}
		size := int64(f.Size(r, !open))
		if open && size >= 0 && p.Bytes+size > l.Bytes {
			flush()
			size = int64(f.Size(r, true))
		}
		if size < 0 || size > l.Bytes {
			flush()
			refused = append(refused, i)
			return nil
		}
		if !open {
			p, open = Part{From: i, First: r.Position}, true
		}
		p.To, p.Bytes, p.Data, p.Last = i+1, p.Bytes+size, p.Data+int64(len(r.Data)), r.Position
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, nil, err
	}
	flush()
	return parts, refused, nil
}

// Halve cuts a part of at least two records in two.
func Halve(b *record.Batch, p Part, f Form) ([]Part, error) {
	half := (p.Records() + 1) / 2
	parts, _, err := Plan(b, p.From, p.To, f, Limits{Records: half, Bytes: p.Bytes + 1024})
	return parts, err
}

// blockBytes is how much is encoded at a time.
const blockBytes = 32 << 10

// Source encodes parts of one batch. Going through the parts in order reads the
// batch once.
type Source struct {
	batch *record.Batch
	form  Form

	mu       sync.Mutex // a transport reads in goroutines of its own
	next     func() ([]byte, bool)
	stop     func()
	from, at int // indexes of the next record wanted, and of the one behind the last encoded
	end      int // where the current part ends
	current  *body
	err      error
	buffer   []byte
}

// NewSource encodes b's records with f. Close it.
func NewSource(b *record.Batch, f Form) *Source { return &Source{batch: b, form: f} }

// Err is the first error of reading the batch.
func (s *Source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends reading. Bodies that are still around fail.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart()
	s.current = nil
	if cap(s.buffer) > 0 && cap(s.buffer) <= maxKept {
		b := s.buffer
		buffers.Put(&b)
	}
	s.buffer = nil
}

func (s *Source) restart() {
	if s.stop != nil {
		s.stop()
		s.next, s.stop = nil, nil
	}
}

// Body is prefix, the part's records and suffix. A new body ends the one before
// it. Reading fails with the batch's error.
func (s *Source) Body(prefix []byte, p Part, suffix []byte) io.ReadCloser {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = &body{source: s, part: p, rest: prefix, suffix: suffix}
	return s.current
}

// begin makes the next block start with p's first record.
func (s *Source) begin(p Part) {
	if s.stop == nil || p.From < s.at || s.at != s.end {
		s.restart()
		s.at = 0
		s.next, s.stop = iter.Pull(s.blocks)
	}
	s.from, s.end = p.From, p.To
}

// blocks yields encoded records in pieces that do not cross s.end. Between the
// end of a part and the next piece, the consumer moves s.from and s.end.
func (s *Source) blocks(yield func([]byte) bool) {
	if s.buffer == nil {
		s.buffer = *buffers.Get().(*[]byte)
	}
	s.buffer = s.buffer[:0]
	first := true
	err := s.batch.Each(func(i int, r *record.Record) error {
		if i < s.from {
			return nil
		}
		s.buffer = s.form.Append(s.buffer, r, first)
		s.at, first = i+1, i+1 == s.end
		if !first && len(s.buffer) < blockBytes {
			return nil
		}
		if !yield(s.buffer) {
			return errStop
		}
		s.buffer = s.buffer[:0]
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		s.err = err
	}
}

// body reads one part.
type body struct {
	source *Source
	part   Part
	rest   []byte // of the current block
	suffix []byte
	state  int
}

const (
	atPrefix = iota
	atRecords
	atSuffix
	atEnd
)

var errClosed = errors.New("the body is closed")

func (b *body) Read(p []byte) (int, error) {
	s := b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != b {
		return 0, errClosed
	}
	for len(b.rest) == 0 {
		switch {
		case b.state == atPrefix:
			s.begin(b.part)
			b.state = atRecords
		case b.state == atRecords && s.at < b.part.To:
			block, ok := s.next()
			if !ok {
				if s.err == nil {
					s.err = errors.New("the batch has become shorter")
				}
				return 0, s.err
			}
			b.rest = block
		case b.state == atRecords:
			b.rest, b.state = b.suffix, atSuffix
		default:
			b.state = atEnd
			return 0, io.EOF
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close implements io.Closer; it waits for a Read that is under way.
func (b *body) Close() error {
	s := b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == b {
		s.current = nil
		if b.state != atPrefix && b.state != atEnd && b.state != atSuffix {
			s.restart()
		}
	}
	return nil
}

// maxKept is the largest buffer that is used again.
const maxKept = 1 << 20

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, blockBytes+4096); return &b }}

// Blocks is memory that grows in pieces, for bodies whose length is not known
// before they are made. The zero value is empty.
type Blocks struct {
	list [][]byte
	size int64
}

var pieces = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

// Write implements io.Writer; it does not fail.
func (b *Blocks) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if k := len(b.list); k == 0 || len(b.list[k-1]) == cap(b.list[k-1]) {
			b.list = append(b.list, (*pieces.Get().(*[]byte))[:0])
		}
		last := &b.list[len(b.list)-1]
		k := min(len(p), cap(*last)-len(*last))
		*last = append(*last, p[:k]...)
		p = p[k:]
	}
	b.size += int64(n)
	return n, nil
}

// Len is how much was written.
func (b *Blocks) Len() int64 { return b.size }

// Reader reads from the beginning. Any number of readers may be around, until Free.
func (b *Blocks) Reader() io.ReadCloser { return &blocksReader{list: b.list} }

// Free gives the memory back. Nobody reads any more.
func (b *Blocks) Free() {
	for _, p := range b.list {
		pieces.Put(&p)
	}
	*b = Blocks{}
}

// blocksReader can be closed while a transport still reads; after Close it does
// not touch the blocks.
type blocksReader struct {
	mu     sync.Mutex
	list   [][]byte
	at     int // in the first of them
	closed bool
}

func (r *blocksReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, errClosed
	}
	for len(r.list) > 0 && r.at == len(r.list[0]) {
		r.list, r.at = r.list[1:], 0
	}
	if len(r.list) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.list[0][r.at:])
	r.at += n
	return n, nil
}

func (r *blocksReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.list = true, nil
	return nil
}
