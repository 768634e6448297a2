package objects

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/objects/index"
)

// An upload puts an object together from parts that come one by one. Each part
// is a file of its own, durable when it is acknowledged, and stays one: the
// object is the list of them.

func splitUploadKey(s string) (key, id string) {
	n := max(len(s)-uploadIDBytes-1, 0)
	return s[:n], s[min(n+1, len(s)):]
}

func noSuchUpload(id string) error {
	return &Error{Code: "NoSuchUpload", Status: 404, Message: "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
		fields: []field{{"UploadId", clip(id)}}}
}

// createUpload begins an upload.
func (e *Embedded) createUpload(ctx context.Context, bucket, key string, r uploadRecord) (id string, err error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	e.buckets.RLock()
	defer e.buckets.RUnlock()
	if _, err := e.bucket(bucket); err != nil {
		return "", err
	}
	var raw [uploadIDBytes / 2]byte
	rand.Read(raw[:])
	id = hex.EncodeToString(raw[:])
	r.Initiated = e.now()
	var b index.Batch
	b.Put(uploadKey(bucket, key, id), encodeRecord(r))
	if err := e.blobs.commit(&b); err != nil {
		return "", e.failure("begin upload", err)
	}
	return id, nil
}

// upload reads an upload that must exist.
func (e *Embedded) upload(bucket, key, id string) (*uploadRecord, error) {
	if len(id) != uploadIDBytes {
		return nil, noSuchUpload(id)
	}
	r := &uploadRecord{}
	found, err := e.read(uploadKey(bucket, key, id), r)
	if err != nil {
		return nil, err
	}
	if !found {
		if _, err := e.bucket(bucket); err != nil {
			return nil, err
		}
		return nil, noSuchUpload(id)
	}
	return r, nil
}

// putPart stores a part, replacing one of the same number.
func (e *Embedded) putPart(ctx context.Context, bucket, key, id string, number int, body io.Reader, size int64, algorithm string, checksum func() string) (*partRecord, error) {
	if number < 1 || number > MaxParts {
		return nil, badRequest("InvalidArgument", fmt.Sprintf("Part number must be an integer between 1 and %d, inclusive", MaxParts))
	}
	if _, err := e.upload(bucket, key, id); err != nil {
		return nil, err
	}
	sum := md5.New()
	seg, err := e.blobs.write(ctx, io.TeeReader(body, sum), size, MaxPartBytes)
	if err != nil {
		return nil, e.failure("store part", err)
	}
	r := &partRecord{Size: seg.Size, ETag: hex.EncodeToString(sum.Sum(nil)), Algorithm: algorithm}
	if algorithm != "" {
		r.Checksum = checksum()
	}
	var written []segment
	if seg.Size > 0 {
		r.Segment, written = &seg, []segment{seg}
	}
	defer e.uploads.lock(id)()
	if _, err := e.upload(bucket, key, id); err != nil {
		e.blobs.discard(written)
		return nil, err
	}
	var old partRecord
	if _, err := e.read(partKey(id, number), &old); err != nil {
		e.blobs.discard(written)
		return nil, err
	}
	var dead []segment
	if old.Segment != nil {
		dead = append(dead, *old.Segment)
	}
	r.Modified = e.now()
	var b index.Batch
	b.Put(partKey(id, number), encodeRecord(r))
	if err := e.blobs.commit(&b, dead...); err != nil {
		return nil, e.failure("store part", err)
	}
	e.blobs.settled(written)
	return r, nil
}

type numberedPart struct {
	number int
	partRecord
}

// parts lists up to max parts of an upload with numbers above after.
func (e *Embedded) parts(id string, after, most int) (list []numberedPart, more bool, err error) {
	i := e.index.Iterate()
	defer i.Close()
	prefix := partPrefix(id)
	for ok := i.Seek(partKey(id, after+1)); ok && strings.HasPrefix(i.Key(), prefix); ok = i.Next() {
		if len(list) == most {
			return list, true, nil
		}
		number, err := strconv.Atoi(i.Key()[len(prefix):])
		p := numberedPart{number: number}
		if err == nil {
			err = json.Unmarshal(i.Value(), &p.partRecord)
		}
		if err != nil {
			return nil, false, e.failure("read the index of objects", fmt.Errorf("entry %q: %w", i.Key(), err))
		}
		list = append(list, p)
	}
	if err := i.Err(); err != nil {
		return nil, false, e.failure("read the index of objects", err)
	}
	return list, false, nil
}

// completedPart is a part as the client names it.
type completedPart struct {
	number   int
	etag     string
	checksum string // of the upload's algorithm; empty if none was named
}

// completeUpload makes an object of the parts named, and ends the upload.
// verify is asked about the checksum before it is kept.
func (e *Embedded) completeUpload(ctx context.Context, bucket, key, id string, wanted []completedPart, ifAbsent bool, ifMatch string, verify func(r *objectRecord) error) (*objectRecord, error) {
	e.buckets.RLock()
	defer e.buckets.RUnlock()
	defer e.uploads.lock(id)()
	u, err := e.upload(bucket, key, id)
	if err != nil {
		return nil, err
	}
	have, _, err := e.parts(id, 0, MaxParts)
	if err != nil {
		return nil, err
	}
	invalid := func(number int) error {
		return &Error{Code: "InvalidPart", Status: 400, Message: "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
			fields: []field{{"UploadId", id}, {"PartNumber", strconv.Itoa(number)}}}
	}
	byNumber := make(map[int]*numberedPart, len(have))
	for i := range have {
		byNumber[have[i].number] = &have[i]
	}
	r := &objectRecord{Parts: true, Headers: u.Headers, Metadata: u.Metadata, Tags: u.Tags}
	sums := md5.New()
	var chosen []*numberedPart
	for i := 1; i < len(wanted); i++ {
		if wanted[i].number <= wanted[i-1].number {
			return nil, badRequest("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.")
		}
	}
	for i, want := range wanted {
		p := byNumber[want.number]
		if p == nil || strings.Trim(want.etag, `"`) != p.ETag || want.checksum != "" && want.checksum != p.Checksum {
			return nil, invalid(want.number)
		}
		if p.Size < e.minPart && i < len(wanted)-1 {
			return nil, &Error{Code: "EntityTooSmall", Status: 400, Message: "Your proposed upload is smaller than the minimum allowed size",
				fields: []field{{"ProposedSize", strconv.FormatInt(p.Size, 10)}, {"MinSizeAllowed", strconv.FormatInt(e.minPart, 10)}, {"PartNumber", strconv.Itoa(p.number)}, {"ETag", p.ETag}}}
		}
		raw, err := hex.DecodeString(p.ETag)
		if err != nil {
			return nil, e.failure("complete upload", err)
		}
		sums.Write(raw)
		r.Size += p.Size
		if p.Segment != nil {
			r.Segments = append(r.Segments, *p.Segment)
		}
		chosen = append(chosen, p)
	}
	if r.Size > MaxObjectBytes {
		return nil, tooLarge(r.Size, MaxObjectBytes)
	}
	r.ETag = hex.EncodeToString(sums.Sum(nil)) + "-" + strconv.Itoa(len(chosen))
	combineChecksums(r, u, chosen)
	if err := verify(r); err != nil {
		return nil, err
	}
	err = e.commitObject(bucket, key, r, ifAbsent, ifMatch, func(b *index.Batch) (dead []segment) {
		b.Delete(uploadKey(bucket, key, id))
		kept := make(map[int]bool, len(chosen))
		for _, p := range chosen {
			kept[p.number] = true
		}
		for _, p := range have {
			b.Delete(partKey(id, p.number))
			if !kept[p.number] && p.Segment != nil {
				dead = append(dead, *p.Segment)
			}
		}
		return dead
	})
	return r, err
}

// completed finds the object that an upload of these parts has become.
func (e *Embedded) completed(bucket, key string, parts []completedPart) (*objectRecord, bool) {
	sums := md5.New()
	for _, p := range parts {
		raw, err := hex.DecodeString(strings.Trim(p.etag, `"`))
		if err != nil {
			return nil, false
		}
		sums.Write(raw)
	}
	o, err := e.object(bucket, key)
	if err != nil || o.ETag != hex.EncodeToString(sums.Sum(nil))+"-"+strconv.Itoa(len(parts)) {
		return nil, false
	}
	return o, true
}

// abortUpload ends an upload and removes its parts.
func (e *Embedded) abortUpload(ctx context.Context, bucket, key, id string) error {
	if _, err := e.upload(bucket, key, id); err != nil {
		return err
	}
	return e.dropUpload(bucket, key, id)
}

func (e *Embedded) dropUpload(bucket, key, id string) error {
	defer e.uploads.lock(id)()
	have, _, err := e.parts(id, 0, MaxParts)
	if err != nil {
		return err
	}
	var b index.Batch
	b.Delete(uploadKey(bucket, key, id))
	var dead []segment
	for _, p := range have {
		b.Delete(partKey(id, p.number))
		if p.Segment != nil {
			dead = append(dead, *p.Segment)
		}
	}
	if err := e.blobs.commit(&b, dead...); err != nil {
		return e.failure("abort upload", err)
	}
	return nil
}

// UploadInfo describes an unfinished upload.
type UploadInfo struct {
	Key, ID   string
	Initiated time.Time
	Algorithm string
	Composite bool
}

// listUploads lists unfinished uploads in the order of their keys, and of their ids
// for one key, after a key and id. after alone passes over all of that key.
func (e *Embedded) listUploads(ctx context.Context, bucket, prefix, delimiter, after, afterID string, most int) (list []UploadInfo, prefixes []string, more bool, err error) {
	if _, err := e.bucket(bucket); err != nil {
		return nil, nil, false, err
	}
	i := e.index.Iterate()
	defer i.Close()
	base := uploadPrefix(bucket)
	from := base + prefix
	if after >= prefix && after != "" {
		from = base + after + "\x00" + afterID + "\x00"
		if afterID == "" {
			from = base + after + "\x01"
		}
	}
	for ok := i.Seek(from); ok && strings.HasPrefix(i.Key(), base+prefix); {
		if len(list)+len(prefixes) == most {
			return list, prefixes, true, nil
		}
		key, id := splitUploadKey(i.Key()[len(base):])
		if delimiter != "" && len(key) >= len(prefix) {
			if at := strings.Index(key[len(prefix):], delimiter); at >= 0 {
				common := key[:len(prefix)+at+len(delimiter)]
				next := successor(common)
				if common > after {
					prefixes = append(prefixes, common)
				}
				if next == "" {
					break
				}
				ok = i.Seek(base + next)
				continue
			}
		}
		var r uploadRecord
		if err := json.Unmarshal(i.Value(), &r); err != nil {
			return nil, nil, false, e.failure("read the index of objects", err)
		}
		list = append(list, UploadInfo{Key: key, ID: id, Initiated: time.UnixMilli(r.Initiated).UTC(), Algorithm: r.Algorithm, Composite: r.Composite})
		ok = i.Next()
	}
	if err := i.Err(); err != nil {
		return nil, nil, false, e.failure("read the index of objects", err)
	}
	return list, prefixes, false, ctx.Err()
}
