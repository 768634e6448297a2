package objects

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/objects/index"
	"github.com/millrace/millrace/internal/vfs"
)

// Bounds of the protocol.
const (
	MaxObjectBytes  = 5 << 40
	MaxPartBytes    = 5 << 30 // of one request's body
	MinPartBytes    = 5 << 20 // except the last
	MaxParts        = 10_000
	MaxKeyBytes     = 1024
	maxMetadata     = 2 << 10
	maxTags         = 10
	maxListed       = 1000
	uploadIDBytes   = 32
	lockStripes     = 256
	maxHeaderLength = 8 << 10
)

// Options of an Embedded store.
type Options struct {
	// Files is the folder of the store; required.
	Files vfs.FS
	// LowWatermark is how many bytes stay free on the device: what would take
	// them is refused with ServiceUnavailable.
	LowWatermark int64
	Logger       *slog.Logger
	Now          func() time.Time // time.Now if nil
}

// Embedded is a store in files. Buckets, objects, uploads and their parts are
// entries of an index; the bytes of an object lie in one file, or in one for
// each of its parts. A file is written under a number that nothing refers to,
// synced, and becomes an object, or a part, by the commit of the entry that
// names it. So an object is there as a whole or not at all, and what a crash
// leaves is a file without an entry, which the next start removes.
//
// The other way round, the commit that replaces or removes an entry writes down
// which files are dead with it; they are removed after it, once nobody reads
// them, or by the next start.
type Embedded struct {
	fs      vfs.FS
	options Options
	logger  *slog.Logger
	index   *index.Store
	blobs   blobs
	minPart int64 // MinPartBytes; less in tests

	// buckets is held for reading by commits that need their bucket to stay, and
	// for writing by those that change one. It comes before the locks below.
	buckets sync.RWMutex
	uploads locks // by id; come before those of objects
	objects locks // by bucket and key

	stop     context.CancelFunc
	sweeping sync.WaitGroup
}

// bucketRecord is an entry of the index, like the others below. Names are short
// because there may be millions of them.
type bucketRecord struct {
	Account string            `json:"a"`
	Region  string            `json:"r,omitempty"`
	Created int64             `json:"t"` // Unix milliseconds
	Policy  string            `json:"p,omitempty"`
	Tags    map[string]string `json:"g,omitempty"`
	// Documents are configurations that are kept and returned as they came, by
	// the name of their subresource.
	Documents map[string]string `json:"d,omitempty"`
}

type segment struct {
	ID   uint64 `json:"i"`
	Size int64  `json:"n"`
}

type objectRecord struct {
	Size     int64             `json:"n,omitempty"`
	ETag     string            `json:"e"`
	Modified int64             `json:"t"` // Unix milliseconds
	Segments []segment         `json:"s,omitempty"`
	Parts    bool              `json:"p,omitempty"` // segments are the parts of an upload
	Headers  map[string]string `json:"h,omitempty"` // attributes, by header
	Metadata map[string]string `json:"m,omitempty"`
	Tags     map[string]string `json:"g,omitempty"`
	// Checksum is what the client asked to keep: algorithm, value as on the wire,
	// and whether it is that of the whole object or of its parts' checksums.
	Algorithm string   `json:"c,omitempty"`
	Checksum  string   `json:"v,omitempty"`
	Composite bool     `json:"o,omitempty"`
	PartSums  []string `json:"q,omitempty"`
}

type uploadRecord struct {
	Initiated int64             `json:"t"`
	Owner     string            `json:"a,omitempty"` // ARN
	Headers   map[string]string `json:"h,omitempty"`
	Metadata  map[string]string `json:"m,omitempty"`
	Tags      map[string]string `json:"g,omitempty"`
	Algorithm string            `json:"c,omitempty"`
	Composite bool              `json:"o,omitempty"`
}

type partRecord struct {
	Size      int64    `json:"n,omitempty"`
	ETag      string   `json:"e"`
	Modified  int64    `json:"t"`
	Segment   *segment `json:"s,omitempty"` // nil if empty
	Algorithm string   `json:"c,omitempty"`
	Checksum  string   `json:"v,omitempty"`
}

// Keys of the index. Names of buckets have no NUL, upload ids a fixed length.
func bucketKey(bucket string) string          { return "b\x00" + bucket }
func objectPrefix(bucket string) string       { return "o\x00" + bucket + "\x00" }
func objectKey(bucket, key string) string     { return objectPrefix(bucket) + key }
func uploadPrefix(bucket string) string       { return "u\x00" + bucket + "\x00" }
func uploadKey(bucket, key, id string) string { return uploadPrefix(bucket) + key + "\x00" + id }
func partPrefix(upload string) string         { return "p\x00" + upload + "\x00" }
func partKey(upload string, number int) string {
	return partPrefix(upload) + fmt.Sprintf("%05d", number)
}
func encodeRecord(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("objects: record: " + err.Error())
	}
	return b
}

// Open opens the store in o.Files and begins to remove what a crash has left.
func Open(o Options) (*Embedded, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Embedded{fs: o.Files, options: o, logger: o.Logger, minPart: MinPartBytes}
	e.uploads.seed, e.objects.seed = maphash.MakeSeed(), maphash.MakeSeed()
	for _, dir := range []string{indexDir, dataDir} {
		if err := o.Files.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("open object store: %w", err)
		}
	}
	var err error
	e.index, err = index.Open(vfs.Sub(o.Files, indexDir), index.Options{Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("open the index of objects: %w", err)
	}
	swept, err := e.blobs.start(vfs.Sub(o.Files, dataDir), e.index, o.LowWatermark)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open object store: %w", err), e.index.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.sweeping.Go(func() {
		removed, err := swept(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			e.logger.Warn("files of interrupted writes stay until the next start", "error", err)
		case removed > 0:
			e.logger.Info("files of interrupted writes removed", "files", removed)
		}
	})
	return e, nil
}

// Close ends background work and closes the files.
func (e *Embedded) Close() error {
	e.stop()
	e.sweeping.Wait()
	e.blobs.close()
	return e.index.Close()
}

const (
	indexDir = "index"
	dataDir  = "data"
)

// locks are as many as are needed for names to seldom share one.
type locks struct {
	seed maphash.Seed
	all  [lockStripes]sync.Mutex
}

// lock holds the lock of a name, and returns what lets go of it.
func (l *locks) lock(name string) (unlock func()) {
	m := &l.all[maphash.String(l.seed, name)%lockStripes]
	m.Lock()
	return m.Unlock
}

// read decodes a record; found is false if there is none.
func (e *Embedded) read(key string, record any) (found bool, err error) {
	raw, ok, err := e.index.Get(key)
	if err != nil {
		return false, e.failure("read the index of objects", err)
	}
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, record); err != nil {
		return false, e.failure("read the index of objects", fmt.Errorf("entry %q: %w", key, err))
	}
	return true, nil
}

// failure makes an error of a failure: the client's, the disk's, or ours.
func (e *Embedded) failure(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return asError(doing, err)
}

// bodyError is a body that could not be read.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

func asError(doing string, err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	if vfs.IsNoSpace(err) {
		return noRoom(err)
	}
	timeout, timed := errors.AsType[net.Error](err)
	_, ofBody := errors.AsType[*bodyError](err)
	switch {
	case timed && timeout.Timeout():
		return &Error{Code: "RequestTimeout", Status: http.StatusBadRequest, Message: "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.", Err: err}
	case ofBody:
		return &Error{Code: CodeIncompleteBody, Status: http.StatusBadRequest, Message: "The request body terminated unexpectedly", Err: err}
	}
	return &Error{Code: CodeInternal, Status: http.StatusInternalServerError, Message: "We encountered an internal error. Please try again.", Err: fmt.Errorf("%s: %w", doing, err)}
}

func noRoom(err error) *Error {
	return &Error{Code: CodeServiceUnavailable, Status: http.StatusServiceUnavailable, Message: "There is no room left for objects. Please try again later.", Err: err}
}

func noSuchBucket(bucket string) error {
	return &Error{Code: CodeNoSuchBucket, Status: http.StatusNotFound, Message: "The specified bucket does not exist", fields: []field{{"BucketName", bucket}}}
}

func noSuchKey(key string) error {
	return &Error{Code: CodeNoSuchKey, Status: http.StatusNotFound, Message: "The specified key does not exist.", fields: []field{{"Key", key}}}
}

func badRequest(code, text string) *Error {
	return &Error{Code: code, Status: http.StatusBadRequest, Message: text}
}

func precondition(condition string) *Error {
	return &Error{Code: CodePrecondition, Status: http.StatusPreconditionFailed, Message: "At least one of the pre-conditions you specified did not hold", fields: []field{{"Condition", condition}}}
}

// bucket reads a bucket that must exist.
func (e *Embedded) bucket(name string) (*bucketRecord, error) {
	r := &bucketRecord{}
	found, err := e.read(bucketKey(name), r)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noSuchBucket(name)
	}
	return r, nil
}

func checkKey(key string) error {
	switch {
	case key == "":
		return badRequest("InvalidArgument", "An object's key must not be empty.")
	case len(key) > MaxKeyBytes:
		return &Error{Code: "KeyTooLongError", Status: http.StatusBadRequest, Message: "Your key is too long",
			fields: []field{{"Size", strconv.Itoa(len(key))}, {"MaxSizeAllowed", strconv.Itoa(MaxKeyBytes)}}}
	case !utf8.ValidString(key):
		return badRequest("InvalidURI", "Couldn't parse the specified URI.")
	}
	return nil
}

// BucketInfo describes a bucket.
type BucketInfo struct {
	Name    string
	Account string
	Region  string
	Created time.Time
}

// CreateBucket makes a bucket. One that the account has already is
// BucketAlreadyOwnedByYou, another's BucketAlreadyExists.
func (e *Embedded) CreateBucket(ctx context.Context, name, account, region string) error {
	if err := checkBucketName(name); err != nil {
		return err
	}
	e.buckets.Lock()
	defer e.buckets.Unlock()
	var have bucketRecord
	found, err := e.read(bucketKey(name), &have)
	if err != nil {
		return err
	}
	if found {
		if have.Account == account {
			return &Error{Code: "BucketAlreadyOwnedByYou", Status: http.StatusConflict, Message: "Your previous request to create the named bucket succeeded and you already own it.", fields: []field{{"BucketName", name}}}
		}
		return &Error{Code: "BucketAlreadyExists", Status: http.StatusConflict, Message: "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.", fields: []field{{"BucketName", name}}}
	}
	var b index.Batch
	b.Put(bucketKey(name), encodeRecord(bucketRecord{Account: account, Region: region, Created: e.now()}))
	if err := e.blobs.commit(&b); err != nil {
		return e.failure("create bucket", err)
	}
	return nil
}

// checkBucketName holds a name to the rules for names in addresses.
func checkBucketName(name string) error {
	ok := len(name) >= 3 && len(name) <= 63 && !strings.Contains(name, "..")
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && i < len(name)-1 && (c == '-' || c == '.')
	}
	if ok {
		// What looks like an IP address would be taken for a host.
		parts := strings.Split(name, ".")
		numeric := len(parts) == 4
		for _, p := range parts {
			_, err := strconv.Atoi(p)
			numeric = numeric && err == nil
		}
		ok = !numeric
	}
	if !ok {
		return &Error{Code: "InvalidBucketName", Status: http.StatusBadRequest, Message: "The specified bucket is not valid.", fields: []field{{"BucketName", clip(name)}}}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 1<<10 {
		s = s[:1<<10]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (e *Embedded) now() int64 { return e.options.Now().UnixMilli() }

// DeleteBucket removes a bucket, which must be empty. Unfinished uploads end
// with it.
func (e *Embedded) DeleteBucket(ctx context.Context, name string) error {
	e.buckets.Lock()
	defer e.buckets.Unlock()
	if _, err := e.bucket(name); err != nil {
		return err
	}
	i := e.index.Iterate()
	defer i.Close()
	if prefix := objectPrefix(name); i.Seek(prefix) && strings.HasPrefix(i.Key(), prefix) {
		return &Error{Code: "BucketNotEmpty", Status: http.StatusConflict, Message: "The bucket you tried to delete is not empty", fields: []field{{"BucketName", name}}}
	}
	// Uploads go one by one before the bucket does: there may be many, each with
	// many parts.
	prefix := uploadPrefix(name)
	for ok := i.Seek(prefix); ok && strings.HasPrefix(i.Key(), prefix); ok = i.Next() {
		key, id := splitUploadKey(i.Key()[len(prefix):])
		if err := e.dropUpload(name, key, id); err != nil {
			return err
		}
	}
	if err := i.Err(); err != nil {
		return e.failure("read the index of objects", err)
	}
	var b index.Batch
	b.Delete(bucketKey(name))
	if err := e.blobs.commit(&b); err != nil {
		return e.failure("delete bucket", err)
	}
	return nil
}

// updateBucket changes a bucket's record.
func (e *Embedded) updateBucket(name string, change func(*bucketRecord) error) error {
	e.buckets.Lock()
	defer e.buckets.Unlock()
	r, err := e.bucket(name)
	if err != nil {
		return err
	}
	if err := change(r); err != nil {
		return err
	}
	var b index.Batch
	b.Put(bucketKey(name), encodeRecord(r))
	if err := e.blobs.commit(&b); err != nil {
		return e.failure("change bucket", err)
	}
	return nil
}

// Buckets lists up to max buckets that come after the one named after.
func (e *Embedded) Buckets(ctx context.Context, prefix, after string, max int) (list []BucketInfo, more bool, err error) {
	i := e.index.Iterate()
	defer i.Close()
	from := bucketKey(prefix)
	if after >= prefix {
		from = bucketKey(after) + "\x00"
	}
	for ok := i.Seek(from); ok && strings.HasPrefix(i.Key(), bucketKey(prefix)); ok = i.Next() {
		if len(list) == max {
			return list, true, nil
		}
		var r bucketRecord
		if err := json.Unmarshal(i.Value(), &r); err != nil {
			return nil, false, e.failure("read the index of objects", err)
		}
		list = append(list, BucketInfo{Name: i.Key()[2:], Account: r.Account, Region: r.Region, Created: time.UnixMilli(r.Created).UTC()})
	}
	if err := i.Err(); err != nil {
		return nil, false, e.failure("read the index of objects", err)
	}
	return list, false, ctx.Err()
}

// HeadBucket implements Store.
func (e *Embedded) HeadBucket(ctx context.Context, bucket string) error {
	_, err := e.bucket(bucket)
	return err
}

// putRequest is a Put with everything the protocol can say about it.
type putRequest struct {
	headers   map[string]string
	metadata  map[string]string
	tags      map[string]string
	ifAbsent  bool
	ifMatch   string // an ETag, or "*"
	algorithm string // of the checksum that goes with the object
	// checksum returns what verified reader found once the body has been read.
	checksum func() string
}

// Put implements Store.
func (e *Embedded) Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o PutOptions) (Info, error) {
	p := putRequest{headers: o.headers(), metadata: o.Metadata, ifAbsent: o.IfAbsent}
	if o.KMSKey != "" {
		p.headers[headerSSE], p.headers[headerKMSKey] = "aws:kms", o.KMSKey
	}
	if o.StorageClass != "" && o.StorageClass != "STANDARD" {
		p.headers[headerStorage] = o.StorageClass
	}
	if o.BucketOwner != "" {
		b, err := e.bucket(bucket)
		if err != nil {
			return Info{}, err
		}
		if b.Account != o.BucketOwner {
			return Info{}, accessDenied("The bucket is not that of account " + o.BucketOwner + ".")
		}
	}
	r, err := e.put(ctx, bucket, key, body, size, p)
	if err != nil {
		return Info{}, err
	}
	return r.info(key), nil
}

func (e *Embedded) put(ctx context.Context, bucket, key string, body io.Reader, size int64, p putRequest) (*objectRecord, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if _, err := e.bucket(bucket); err != nil {
		return nil, err
	}
	// What is refused anyhow is refused before the body is stored; what counts is
	// the check with the lock held.
	if err := e.checkConditions(bucket, key, p.ifAbsent, p.ifMatch); err != nil {
		return nil, err
	}
	sum := md5.New()
	seg, err := e.blobs.write(ctx, io.TeeReader(body, sum), size, MaxObjectBytes)
	if err != nil {
		return nil, e.failure("store object", err)
	}
	r := &objectRecord{Size: seg.Size, ETag: hex.EncodeToString(sum.Sum(nil)), Headers: p.headers, Metadata: p.metadata, Tags: p.tags, Algorithm: p.algorithm}
	if p.algorithm != "" {
		r.Checksum = p.checksum()
	}
	if seg.Size > 0 {
		r.Segments = []segment{seg}
	}
	e.buckets.RLock()
	defer e.buckets.RUnlock()
	err = e.commitObject(bucket, key, r, p.ifAbsent, p.ifMatch, nil)
	return r, err
}

// commitObject makes a record the object of its name. The lock of buckets is
// held. more adds to the commit and names further dead files; without it, the
// record's files are new, and removed if the commit is refused.
func (e *Embedded) commitObject(bucket, key string, r *objectRecord, ifAbsent bool, ifMatch string, more func(*index.Batch) []segment) error {
	defer e.objects.lock(objectKey(bucket, key))()
	refuse := func(err error) error {
		if more == nil {
			e.blobs.discard(r.Segments)
		}
		return err
	}
	if _, err := e.bucket(bucket); err != nil {
		return refuse(err)
	}
	var old objectRecord
	found, err := e.read(objectKey(bucket, key), &old)
	if err != nil {
		return refuse(err)
	}
	if err := conditions(key, found, &old, ifAbsent, ifMatch); err != nil {
		return refuse(err)
	}
	r.Modified = e.now()
	var b index.Batch
	b.Put(objectKey(bucket, key), encodeRecord(r))
	dead := old.Segments
	if more != nil {
		dead = append(slices.Clone(dead), more(&b)...)
	}
	if err := e.blobs.commit(&b, dead...); err != nil {
		// Whether it happened will be known after the next start: the files stay.
		return e.failure("store object", err)
	}
	e.blobs.settled(r.Segments)
	return nil
}

func (e *Embedded) checkConditions(bucket, key string, ifAbsent bool, ifMatch string) error {
	if !ifAbsent && ifMatch == "" {
		return nil
	}
	var old objectRecord
	found, err := e.read(objectKey(bucket, key), &old)
	if err != nil {
		return err
	}
	return conditions(key, found, &old, ifAbsent, ifMatch)
}

func conditions(key string, found bool, old *objectRecord, ifAbsent bool, ifMatch string) error {
	switch {
	case ifAbsent && found:
		return precondition("If-None-Match")
	case ifMatch != "" && !found:
		return noSuchKey(key)
	case ifMatch != "" && ifMatch != "*" && ifMatch != old.ETag:
		return precondition("If-Match")
	}
	return nil
}

// object reads the record of an object that must exist.
func (e *Embedded) object(bucket, key string) (*objectRecord, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	r := &objectRecord{}
	found, err := e.read(objectKey(bucket, key), r)
	if err != nil {
		return nil, err
	}
	if found {
		return r, nil
	}
	if _, err := e.bucket(bucket); err != nil {
		return nil, err
	}
	return nil, noSuchKey(key)
}

// Head implements Store.
func (e *Embedded) Head(ctx context.Context, bucket, key string) (Info, error) {
	r, err := e.object(bucket, key)
	if err != nil {
		return Info{}, err
	}
	return r.info(key), nil
}

// Get implements Store.
func (e *Embedded) Get(ctx context.Context, bucket, key string, r Range) (io.ReadCloser, Info, error) {
	o, done, err := e.pinned(bucket, key)
	if err != nil {
		return nil, Info{}, err
	}
	offset, length, ok := r.within(o.Size)
	if !ok {
		done()
		return nil, Info{}, invalidRange(o.Size)
	}
	return e.blobs.reader(ctx, o.Segments, offset, length, done), o.info(key), nil
}

func invalidRange(size int64) error {
	return &Error{Code: CodeInvalidRange, Status: http.StatusRequestedRangeNotSatisfiable, Message: "The requested range is not satisfiable",
		fields: []field{{"ActualObjectSize", strconv.FormatInt(size, 10)}}}
}

// within returns the range's place in an object; ok is false if it has none.
func (r Range) within(size int64) (offset, length int64, ok bool) {
	offset = r.Offset
	if offset < 0 {
		offset = max(size+offset, 0)
	}
	if r.Length < 0 || offset > size || offset == size && (size > 0 || r.Length > 0) {
		return 0, 0, false
	}
	length = size - offset
	if r.Length > 0 {
		length = min(length, r.Length)
	}
	return offset, length, true
}

// pinned reads an object's record and keeps its files until done is called.
func (e *Embedded) pinned(bucket, key string) (o *objectRecord, done func(), err error) {
	for {
		if o, err = e.object(bucket, key); err != nil {
			return nil, nil, err
		}
		done = e.blobs.pin(o.Segments)
		// A commit that came between the two has perhaps removed the files
		// already. One that comes from here on sees the pins.
		again, err := e.object(bucket, key)
		if err != nil {
			done()
			return nil, nil, err
		}
		if slices.Equal(o.Segments, again.Segments) {
			return again, done, nil
		}
		done()
	}
}

// Delete implements Store.
func (e *Embedded) Delete(ctx context.Context, bucket, key string) error {
	return e.delete(bucket, key, "")
}

func (e *Embedded) delete(bucket, key, ifMatch string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if _, err := e.bucket(bucket); err != nil {
		return err
	}
	defer e.objects.lock(objectKey(bucket, key))()
	var old objectRecord
	found, err := e.read(objectKey(bucket, key), &old)
	if err != nil {
		return err
	}
	if err := conditions(key, found, &old, false, ifMatch); err != nil {
		return err
	}
	if !found {
		return nil
	}
	var b index.Batch
	b.Delete(objectKey(bucket, key))
	if err := e.blobs.commit(&b, old.Segments...); err != nil {
		return e.failure("delete object", err)
	}
	return nil
}

// updateObject changes an object's record, but not its bytes.
func (e *Embedded) updateObject(bucket, key string, change func(*objectRecord)) error {
	defer e.objects.lock(objectKey(bucket, key))()
	r, err := e.object(bucket, key)
	if err != nil {
		return err
	}
	change(r)
	var b index.Batch
	b.Put(objectKey(bucket, key), encodeRecord(r))
	if err := e.blobs.commit(&b); err != nil {
		return e.failure("change object", err)
	}
	return nil
}

// List implements Store.
func (e *Embedded) List(ctx context.Context, bucket, prefix, after string, max int) ([]Info, bool, error) {
	page, err := e.list(ctx, bucket, prefix, "", after, max)
	if err != nil {
		return nil, false, err
	}
	return page.objects, page.more, nil
}

// page is a part of a listing.
type page struct {
	objects  []Info
	records  []listedRecord // of the objects
	prefixes []string
	more     bool
	last     string // the last key or common prefix
}

// listedRecord is what lists show of an objectRecord, which may be long.
type listedRecord struct {
	Size      int64             `json:"n"`
	ETag      string            `json:"e"`
	Modified  int64             `json:"t"`
	Algorithm string            `json:"c"`
	Composite bool              `json:"o"`
	Headers   map[string]string `json:"h"`
}

// list goes through keys in order. Keys that have the delimiter after the prefix
// are rolled up into the part up to it, which counts as one. after may be a key
// or a common prefix: what it stands for is passed over.
func (e *Embedded) list(ctx context.Context, bucket, prefix, delimiter, after string, most int) (p page, err error) {
	if _, err := e.bucket(bucket); err != nil {
		return p, err
	}
	i := e.index.Iterate()
	defer i.Close()
	base := objectPrefix(bucket)
	from := prefix
	if after >= prefix && after != "" {
		from = after + "\x00"
		if delimiter != "" && strings.HasPrefix(after, prefix) && strings.HasSuffix(after, delimiter) && strings.Index(after[len(prefix):], delimiter) == len(after)-len(prefix)-len(delimiter) {
			from = successor(after)
		}
	}
	ok := i.Seek(base + from)
	for ok && strings.HasPrefix(i.Key(), base) {
		key := i.Key()[len(base):]
		if !strings.HasPrefix(key, prefix) {
			break
		}
		if len(p.objects)+len(p.prefixes) >= most {
			p.more = true
			return p, nil
		}
		if delimiter != "" {
			if at := strings.Index(key[len(prefix):], delimiter); at >= 0 {
				common := key[:len(prefix)+at+len(delimiter)]
				p.prefixes, p.last = append(p.prefixes, common), common
				next := successor(common)
				if next == "" {
					break
				}
				ok = i.Seek(base + next)
				continue
			}
		}
		var r listedRecord
		if err := json.Unmarshal(i.Value(), &r); err != nil {
			return p, e.failure("read the index of objects", fmt.Errorf("entry %q: %w", i.Key(), err))
		}
		p.objects = append(p.objects, Info{Key: key, Size: r.Size, ETag: r.ETag, Modified: time.UnixMilli(r.Modified).UTC()})
		p.records = append(p.records, r)
		p.last = key
		ok = i.Next()
	}
	if err := i.Err(); err != nil {
		return p, e.failure("read the index of objects", err)
	}
	return p, ctx.Err()
}

// successor is the least text greater than every one that begins with s; empty
// if there is none.
func successor(s string) string {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] != 0xff {
			return s[:i] + string([]byte{s[i] + 1})
		}
	}
	return ""
}

// The attributes as headers, in the spelling of Go's header maps.
const (
	headerType        = "Content-Type"
	headerEncoding    = "Content-Encoding"
	headerDisposition = "Content-Disposition"
	headerLanguage    = "Content-Language"
	headerCache       = "Cache-Control"
	headerExpires     = "Expires"
	headerSSE         = "X-Amz-Server-Side-Encryption"
	headerKMSKey      = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	headerRedirect    = "X-Amz-Website-Redirect-Location"
	headerStorage     = "X-Amz-Storage-Class"
)

func (a *Attributes) headers() map[string]string {
	all := map[string]string{}
	for name, value := range map[string]string{
		headerType: a.ContentType, headerEncoding: a.ContentEncoding, headerDisposition: a.ContentDisposition,
		headerLanguage: a.ContentLanguage, headerCache: a.CacheControl, headerExpires: a.Expires,
	} {
		if value != "" {
			all[name] = value
		}
	}
	return all
}

func (r *objectRecord) info(key string) Info {
	h := r.Headers
	return Info{Key: key, Size: r.Size, ETag: r.ETag, Modified: time.UnixMilli(r.Modified).UTC(), Attributes: Attributes{
		ContentType: h[headerType], ContentEncoding: h[headerEncoding], ContentDisposition: h[headerDisposition],
		ContentLanguage: h[headerLanguage], CacheControl: h[headerCache], Expires: h[headerExpires], Metadata: r.Metadata,
	}}
}
