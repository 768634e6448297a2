package streams

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
	"github.com/millrace/millrace/internal/shardlog/driver"
)

// A queue hands out the records of a stream one delivery at a time, to any
// number of callers, and again until they are acknowledged.
//
// What it has to remember is small: for each shard the cursor behind which no
// record has been handed out yet, and a delivery for each record that was handed
// out and not acknowledged. Both are metadata, so a queue goes on after a restart
// where it was, and a receive is one conditional commit: two servers cannot hand
// out the same delivery.
//
//	queue.queue/{account}/{region}/{name}
//	queue.cursor/{queue id}/{shard}
//	queue.delivery/{queue id}/{shard}/{index}
const queuePrefix = "queue."

var (
	queueTable    = meta.Table[queueRecord]{Prefix: "queue.queue", Format: 1}
	cursorTable   = meta.Table[cursorRecord]{Prefix: "queue.cursor", Format: 1}
	deliveryTable = meta.Table[deliveryRecord]{Prefix: "queue.delivery", Format: 1}
)

const (
	defaultVisibility      = 30 // seconds
	defaultMaxReceiveCount = 6
	// maxDeliveries bounds what a queue has handed out and not got back; at the
	// bound it hands out nothing new.
	maxDeliveries = 120_000
)

// queueRecord is a queue as it is stored. Times are milliseconds since 1970.
type queueRecord struct {
	ID         string                            `json:"id"`
	Stream     string                            `json:"stream"`
	StreamID   uint64                            `json:"streamId"`
	StreamMade int64                             `json:"streamMade"`
	Start      kinesis.QueueStartingPositionType `json:"start"`
	StartAt    int64                             `json:"startAt"`         // what Start came to
	Asked      int64                             `json:"asked,omitempty"` // the timestamp as it was given
	CreatedAt  int64                             `json:"createdAt"`
	Visibility int32                             `json:"visibility"`           // seconds
	MaxReceive int32                             `json:"maxReceive,omitempty"` // 0: no dead letters
	Status     kinesis.QueueStatus               `json:"status"`
	Due        int64                             `json:"due,omitempty"` // when the status changes; 0 while ACTIVE
}

// cursorRecord is the first index of a shard that was not handed out yet.
type cursorRecord struct {
	Next uint64 `json:"next"`
}

// deliveryRecord is a record that was handed out and not acknowledged.
type deliveryRecord struct {
	VisibleAt int64  `json:"visibleAt"` // milliseconds
	FirstAt   int64  `json:"firstAt"`   // first receive
	Arrival   int64  `json:"arrival"`
	Count     int32  `json:"count"`
	Dead      bool   `json:"dead,omitempty"`
	Receipt   uint64 `json:"receipt"` // of the newest delivery
}

// place is a record's place in a queue's stream.
type place struct {
	shard uint32
	index driver.Index
}

// due orders deliveries by when they become visible.
type due struct {
	at int64
	place
}

func (d due) less(o due) bool {
	if d.at != o.at {
		return d.at < o.at
	}
	if d.shard != o.shard {
		return d.shard < o.shard
	}
	return d.index < o.index
}

type delivery struct {
	deliveryRecord
	version meta.Version
}

type cursor struct {
	next    driver.Index
	version meta.Version
}

// queue is what is known of one queue. The maps are guarded by queues.mu; the
// record is replaced, never changed.
type queue struct {
	name       streamName // of the queue: account, region and its own name
	arn        string
	record     queueRecord
	version    meta.Version
	cursors    map[uint32]cursor
	deliveries map[place]delivery
	visible    [2]*btree.BTreeG[due] // by when they become visible: live ones, dead ones

	receiving chan struct{} // holds one token: receives of a queue follow each other
	changed   chan struct{} // closed and replaced when something may have become visible
	next      uint32        // index of the shard that fresh records are looked for in first
}

// queues is what metadata says about queues. It changes only in apply.
type queues struct {
	service *Service
	cancel  func()

	mu     sync.RWMutex
	byID   map[string]*queue
	byName map[streamName]*queue
	err    error // the first record that could not be read
}

func (q *queues) open(s *Service) error {
	q.service = s
	q.byID, q.byName = map[string]*queue{}, map[streamName]*queue{}
	q.cancel = s.meta.Watch(queuePrefix, q.apply)
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.err != nil {
		q.cancel()
	}
	return q.err
}

func (q *queues) apply(changes []meta.Change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fail := func(c meta.Change, err error) {
		if err != nil && q.err == nil {
			q.err = fmt.Errorf("read %q: %w", c.Key, err)
		}
	}
	touched := map[*queue]bool{}
	// Queues first: at the start, deliveries come before them in key order.
	for _, c := range changes {
		if !strings.HasPrefix(c.Key, queueTable.Prefix+"/") {
			continue
		}
		parts, err := meta.SplitKey(c.Key)
		if err != nil || len(parts) != 4 {
			fail(c, fmt.Errorf("not the key of a queue"))
			continue
		}
		name := streamName{parts[1], parts[2], parts[3]}
		old := q.byName[name]
		if c.Deleted {
			if old != nil {
				delete(q.byName, name)
				delete(q.byID, old.record.ID)
				touched[old] = true
			}
			continue
		}
		record, err := queueTable.Decode(c.Key, c.Value)
		if err != nil {
			fail(c, err)
			continue
		}
		if old == nil || old.record.ID != record.ID {
			old = newQueue(name, record.ID)
		}
		old.record, old.version = record, c.Version
		q.byName[name], q.byID[record.ID] = old, old
		touched[old] = true
	}
	for _, c := range changes {
		parts, err := meta.SplitKey(c.Key)
		if err != nil {
			fail(c, err)
			continue
		}
		switch parts[0] {
		case cursorTable.Prefix:
			if qu, shard, ok := q.locate(parts, 3); ok {
				fail(c, qu.applyCursor(c, shard))
			}
		case deliveryTable.Prefix:
			qu, shard, ok := q.locate(parts, 4)
			if !ok {
				continue
			}
			index, err := strconv.ParseUint(parts[3], 16, 64)
			if err == nil {
				err = qu.applyDelivery(c, place{shard, driver.Index(index)})
			}
			fail(c, err)
			touched[qu] = true
		}
	}
	for qu := range touched {
		close(qu.changed)
		qu.changed = make(chan struct{})
	}
}

// locate finds the queue and shard that a key is about; no queue has the key of
// one that was deleted in the same commit.
func (q *queues) locate(parts []string, n int) (*queue, uint32, bool) {
	if len(parts) != n {
		return nil, 0, false
	}
	shard, err := strconv.ParseUint(parts[2], 16, 32)
	qu := q.byID[parts[1]]
	return qu, uint32(shard), err == nil && qu != nil
}

func newQueue(name streamName, id string) *queue {
	qu := &queue{
		name: name, arn: "arn:aws:kinesis:" + name.region + ":" + name.account + ":queue/" + id,
		cursors: map[uint32]cursor{}, deliveries: map[place]delivery{},
		receiving: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	for i := range qu.visible {
		qu.visible[i] = btree.NewBTreeGOptions(due.less, btree.Options{NoLocks: true})
	}
	return qu
}

func (qu *queue) applyCursor(c meta.Change, shard uint32) error {
	if c.Deleted {
		delete(qu.cursors, shard)
		return nil
	}
	record, err := cursorTable.Decode(c.Key, c.Value)
	if err != nil {
		return err
	}
	qu.cursors[shard] = cursor{driver.Index(record.Next), c.Version}
	return nil
}

func (qu *queue) applyDelivery(c meta.Change, p place) error {
	if old, ok := qu.deliveries[p]; ok {
		qu.visible[deadIndex(old.Dead)].Delete(due{old.VisibleAt, p})
		delete(qu.deliveries, p)
	}
	if c.Deleted {
		return nil
	}
	record, err := deliveryTable.Decode(c.Key, c.Value)
	if err != nil {
		return err
	}
	qu.deliveries[p] = delivery{record, c.Version}
	qu.visible[deadIndex(record.Dead)].Set(due{record.VisibleAt, p})
	return nil
}

func deadIndex(dead bool) int {
	if dead {
		return 1
	}
	return 0
}

// status is the queue's status at a time: a change that is due has happened,
// whether or not its record has been brought up to date. A queue that is gone
// has no status.
func (r *queueRecord) status(now time.Time) kinesis.QueueStatus {
	if r.Due == 0 || now.UnixMilli() < r.Due {
		return r.Status
	}
	if r.Status == kinesis.QueueStatusDeleting {
		return ""
	}
	return kinesis.QueueStatusActive
}

// queueStatus is a status with its end. Without a delay it is the one that follows.
func (s *Service) queueStatus(status kinesis.QueueStatus) (kinesis.QueueStatus, int64) {
	if s.stateDelay <= 0 {
		return kinesis.QueueStatusActive, 0
	}
	return status, s.now().Add(s.stateDelay).UnixMilli()
}

// count is how many queues a stream has, in any state.
func (q *queues) count(stream uint64) int {
	q.mu.RLock()
	defer q.mu.RUnlock()
	now, n := q.service.now(), 0
	for _, qu := range q.byID {
		if qu.record.StreamID == stream && qu.record.status(now) != "" {
			n++
		}
	}
	return n
}

// queueView is a queue's record at one moment.
type queueView struct {
	*queue
	record  queueRecord
	version meta.Version
}

// all returns the queues of an account in a region by name, those that are gone
// left out.
func (q *queues) all(a accountName) []queueView {
	now := q.service.now()
	q.mu.RLock()
	defer q.mu.RUnlock()
	var out []queueView
	for name, qu := range q.byName {
		if name.account == a.account && name.region == a.region && qu.record.status(now) != "" {
			out = append(out, queueView{qu, qu.record, qu.version})
		}
	}
	slices.SortFunc(out, func(a, b queueView) int { return strings.Compare(a.name.name, b.name.name) })
	return out
}

// find returns the queue with an ARN.
func (q *queues) find(call *api.Call, arn string) (queueView, error) {
	region, account, kind, ok := parseARN(arn)
	id, isQueue := strings.CutPrefix(kind, "queue/")
	if !ok || !isQueue {
		return queueView{}, invalidArgument("QueueARN %s is not the ARN of a queue.", arn)
	}
	now := q.service.now()
	q.mu.RLock()
	defer q.mu.RUnlock()
	qu := q.byID[id]
	if qu == nil || qu.arn != arn || region != call.Region || qu.record.status(now) == "" {
		return queueView{}, resourceNotFound("Queue %s, account %s not found.", id, account)
	}
	return queueView{qu, qu.record, qu.version}, nil
}

// deliverable is find for calls that take records out: the queue is ACTIVE or
// UPDATING.
func (q *queues) deliverable(call *api.Call, arn string) (queueView, error) {
	v, err := q.find(call, arn)
	if err != nil {
		return v, err
	}
	switch status := v.record.status(q.service.now()); status {
	case kinesis.QueueStatusActive, kinesis.QueueStatusUpdating:
		return v, nil
	default:
		return v, resourceNotFound("Queue %s, account %s is in state %s and delivers no records.", v.name.name, v.name.account, status)
	}
}

// resource is what tags and policies of a queue hang on.
func (q *queues) resource(arn string) (resource, bool) {
	_, _, kind, _ := parseARN(arn)
	now := q.service.now()
	q.mu.RLock()
	defer q.mu.RUnlock()
	qu := q.byID[strings.TrimPrefix(kind, "queue/")]
	if qu == nil || qu.arn != arn || qu.record.status(now) == "" {
		return resource{}, false
	}
	r := resource{arn: arn, account: qu.name.account, what: "queue " + qu.name.name, guard: queueView{qu, qu.record, qu.version}.update(qu.record)}
	if status := qu.record.status(now); status != kinesis.QueueStatusActive {
		r.busy = resourceInUse("Queue %s under account %s not ACTIVE, instead in state %s", qu.name.name, qu.name.account, status)
	}
	return r, true
}

// update writes the queue's record if it still is as in v.
func (v queueView) update(r queueRecord) meta.Op {
	return queueTable.Update(meta.Row[queueRecord]{Key: queueTable.Key(v.name.account, v.name.region, v.name.name), Version: v.version, Value: r})
}

func cursorParts(id string, shard uint32) []string {
	return []string{id, fmt.Sprintf("%08x", shard)}
}

func deliveryParts(id string, p place) []string {
	return []string{id, fmt.Sprintf("%08x", p.shard), fmt.Sprintf("%016x", uint64(p.index))}
}

// describeQueue is the queue for those who ask about it.
func (s *Service) describeQueue(v queueView) *kinesis.QueueDescription {
	status := v.record.status(s.now())
	position := &kinesis.QueueStartingPosition{Type: api.Ptr(v.record.Start)}
	switch {
	case status != kinesis.QueueStatusCreating:
		position.Timestamp = api.Ptr(time.UnixMilli(v.record.StartAt).UTC())
	case v.record.Asked != 0:
		position.Timestamp = api.Ptr(time.UnixMilli(v.record.Asked).UTC())
	}
	dead := &kinesis.DeadLetterConfiguration{TargetType: api.Ptr(kinesis.TargetTypeNone)}
	if v.record.MaxReceive > 0 {
		dead = &kinesis.DeadLetterConfiguration{TargetType: api.Ptr(kinesis.TargetTypeBuiltIn), MaxReceiveCount: api.Ptr(v.record.MaxReceive)}
	}
	return &kinesis.QueueDescription{
		QueueName: api.Ptr(v.name.name), QueueARN: api.Ptr(v.arn), QueueStatus: &status,
		QueueCreationTimestamp:  api.Ptr(time.UnixMilli(v.record.CreatedAt).UTC()),
		StreamConfigurationList: []kinesis.QueueStreamConfiguration{{StreamARN: api.Ptr(v.streamName().arn()), StartingPosition: position}},
		QueueAttributes:         &kinesis.QueueAttributes{VisibilityTimeoutSeconds: api.Ptr(v.record.Visibility), DeadLetterConfiguration: dead},
	}
}

// streamName is the stream that the queue reads.
func (v queueView) streamName() streamName {
	return streamName{v.name.account, v.name.region, v.record.Stream}
}

// setQueueAttributes writes what is given of a queue's attributes into a record.
func setQueueAttributes(r *queueRecord, a *kinesis.QueueAttributes) error {
	if a == nil {
		return nil
	}
	if a.VisibilityTimeoutSeconds != nil {
		r.Visibility = *a.VisibilityTimeoutSeconds
	}
	if d := a.DeadLetterConfiguration; d != nil {
		switch {
		case *d.TargetType == kinesis.TargetTypeNone && d.MaxReceiveCount != nil:
			return validation("MaxReceiveCount must not be set when TargetType is NONE.")
		case *d.TargetType == kinesis.TargetTypeNone:
			r.MaxReceive = 0
		case d.MaxReceiveCount == nil:
			return validation("MaxReceiveCount must be set when TargetType is BUILT_IN.")
		default:
			r.MaxReceive = *d.MaxReceiveCount
		}
	}
	return nil
}

// newQueueID is the part of an ARN that names a queue.
func newQueueID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// receipt names one delivery of one record to those who received it.
type receipt struct {
	place
	id uint64
}

const (
	receiptBytes = 4 + 8 + 8
	receiptCode  = 16
)

// sealReceipt makes a receipt handle; only the queue it is for accepts it.
func (s *Service) sealReceipt(queue string, r receipt) string {
	b := make([]byte, receiptBytes, receiptBytes+receiptCode)
	binary.BigEndian.PutUint32(b, r.shard)
	binary.BigEndian.PutUint64(b[4:], uint64(r.index))
	binary.BigEndian.PutUint64(b[12:], r.id)
	return base64.RawURLEncoding.EncodeToString(append(b, s.receiptCode(queue, b)...))
}

func (s *Service) openReceipt(queue, handle string) (receipt, bool) {
	b, err := base64.RawURLEncoding.DecodeString(handle)
	if err != nil || len(b) != receiptBytes+receiptCode || !hmac.Equal(b[receiptBytes:], s.receiptCode(queue, b[:receiptBytes])) {
		return receipt{}, false
	}
	return receipt{
		place: place{binary.BigEndian.Uint32(b), driver.Index(binary.BigEndian.Uint64(b[4:]))},
		id:    binary.BigEndian.Uint64(b[12:]),
	}, true
}

func (s *Service) receiptCode(queue string, b []byte) []byte {
	code := hmac.New(sha256.New, s.tokens[:])
	code.Write([]byte("receipt/" + queue + "/"))
	code.Write(b)
	return code.Sum(nil)[:receiptCode]
}

// entryError is why one entry of a batch was not carried out.
type entryError struct{ code, message string }

// changeDeliveries applies change to the delivery of each handle and commits the
// results together; failures are per entry. change returns nil for a delivery
// that ends. A handle whose record is no longer with the queue is a failure
// unless goneIsFine.
func (s *Service) changeDeliveries(ctx context.Context, v queueView, dead bool, handles []string, newest, goneIsFine bool, change func(i int, d deliveryRecord) *deliveryRecord) ([]*entryError, error) {
	for {
		failed := make([]*entryError, len(handles))
		next := map[place]*deliveryRecord{}
		from := map[place]delivery{}
		s.queues.mu.RLock()
		for i, handle := range handles {
			r, ok := s.openReceipt(v.record.ID, handle)
			if !ok {
				failed[i] = &entryError{"InvalidArgumentException", "The receipt handle is not one of this queue."}
				continue
			}
			d, known := v.deliveries[r.place]
			if p, twice := next[r.place]; twice && p != nil {
				d.deliveryRecord = *p
			} else if twice {
				known = false
			}
			switch {
			case !known && goneIsFine:
			case !known:
				failed[i] = &entryError{"ResourceNotFoundException", "The record is no longer in the queue: it was acknowledged or its retention period has ended."}
			case d.Dead != dead && dead:
				failed[i] = &entryError{"ResourceNotFoundException", "The record is not a dead-letter record."}
			case d.Dead != dead:
				failed[i] = &entryError{"ResourceNotFoundException", "The record has become a dead-letter record."}
			case newest && d.Receipt != r.id:
				failed[i] = &entryError{"InvalidArgumentException", "The receipt handle is not the newest of its record, which was received again since."}
			default:
				if _, twice := from[r.place]; !twice {
					from[r.place] = d
				}
				next[r.place] = change(i, d.deliveryRecord)
			}
		}
		s.queues.mu.RUnlock()
		if len(next) == 0 {
			return failed, nil
		}
		ops := make([]meta.Op, 0, len(next))
		for p, record := range next {
			row := meta.Row[deliveryRecord]{Key: deliveryTable.Key(deliveryParts(v.record.ID, p)...), Version: from[p].version}
			if record == nil {
				ops = append(ops, deliveryTable.Delete(row))
				continue
			}
			row.Value = *record
			ops = append(ops, deliveryTable.Update(row))
		}
		conflict, err := s.commit(ctx, ops...)
		if err != nil {
			return nil, err
		}
		if !conflict {
			return failed, nil
		}
	}
}

// sweep removes what queues keep of records and shards that are gone, and
// finishes their changes.
func (q *queues) sweep(ctx context.Context) error {
	s := q.service
	now := s.now()
	q.mu.RLock()
	views := make([]queueView, 0, len(q.byID))
	for _, qu := range q.byID {
		views = append(views, queueView{qu, qu.record, qu.version})
	}
	q.mu.RUnlock()
	for _, v := range views {
		if v.record.status(now) == "" {
			if err := s.removeQueue(ctx, v); err != nil {
				return err
			}
			continue
		}
		st := s.registry.stream(v.streamName())
		if st == nil || st.id != v.record.StreamID {
			continue
		}
		horizon := st.trimHorizon(now)
		var ops []meta.Op
		q.mu.RLock()
		for p, d := range v.deliveries {
			if d.Arrival < horizon && len(ops) < deleteChunk {
				ops = append(ops, deliveryTable.Delete(meta.Row[deliveryRecord]{Key: deliveryTable.Key(deliveryParts(v.record.ID, p)...), Version: d.version}))
			}
		}
		for shard, c := range v.cursors {
			if st.listed(shard, now) == nil {
				ops = append(ops, cursorTable.Delete(meta.Row[cursorRecord]{Key: cursorTable.Key(cursorParts(v.record.ID, shard)...), Version: c.version}))
			}
		}
		q.mu.RUnlock()
		if len(ops) == 0 {
			continue
		}
		// Lost races are those with receives, and of no consequence: the next
		// sweep comes by.
		if _, err := s.commit(ctx, ops...); err != nil {
			return err
		}
	}
	return nil
}

// removeQueue deletes a queue with all it remembers; the queue's own record goes
// last, so that an interrupted removal is taken up again.
func (s *Service) removeQueue(ctx context.Context, v queueView) error {
	for _, prefix := range []string{deliveryTable.Key(v.record.ID) + "/", cursorTable.Key(v.record.ID) + "/"} {
		for {
			records := s.meta.List(prefix, "", deleteChunk)
			if len(records) == 0 {
				break
			}
			ops := make([]meta.Op, len(records))
			for i, r := range records {
				ops[i] = meta.Op{Key: r.Key, Delete: true}
			}
			if _, err := s.commit(ctx, ops...); err != nil {
				return err
			}
		}
	}
	_, err := s.commit(ctx,
		queueTable.Delete(meta.Row[queueRecord]{Key: queueTable.Key(v.name.account, v.name.region, v.name.name), Version: v.version}),
		meta.Op{Key: attributesTable.Key(v.arn), Delete: true})
	return err
}

// visibleIn is the end of a visibility timeout that begins now.
func (s *Service) visibleIn(seconds *int32) int64 {
	return s.now().Add(time.Duration(api.Val(seconds)) * time.Second).UnixMilli()
}
