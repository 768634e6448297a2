package objects

import (
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

const metadataPrefix = "X-Amz-Meta-"

// attributes reads what goes with an object from a request's headers.
func (q *request) attributes() (headers, metadata, tags map[string]string, err error) {
	h := q.r.Header
	headers = map[string]string{}
	for _, name := range []string{headerType, headerEncoding, headerDisposition, headerLanguage, headerCache, headerExpires, headerRedirect, headerStorage, headerSSE, headerKMSKey} {
		value := strings.Join(h.Values(name), ",")
		if name == headerEncoding {
			value = withoutChunked(value)
		}
		if len(value) > maxHeaderLength {
			return nil, nil, nil, badRequest("InvalidArgument", "A header is too long: "+name)
		}
		if value != "" {
			headers[name] = value
		}
	}
	if c := headers[headerStorage]; c == "STANDARD" {
		delete(headers, headerStorage)
	} else if !slices.Contains([]string{"", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE", "EXPRESS_ONEZONE", "OUTPOSTS"}, c) {
		return nil, nil, nil, badRequest("InvalidStorageClass", "The storage class you specified is not valid")
	}
	switch headers[headerSSE] {
	case "", "AES256", "aws:kms", "aws:kms:dsse":
	default:
		return nil, nil, nil, badRequest("InvalidEncryptionAlgorithmError", "The encryption request you specified is not valid. The valid value is AES256.")
	}
	size := 0
	for name, values := range h {
		switch {
		case strings.HasPrefix(name, metadataPrefix):
			key, value := strings.ToLower(name[len(metadataPrefix):]), strings.Join(values, ",")
			if size += len(key) + len(value); size > maxMetadata {
				return nil, nil, nil, &Error{Code: "MetadataTooLarge", Status: http.StatusBadRequest, Message: "Your metadata headers exceed the maximum allowed metadata size",
					fields: []field{{"Size", strconv.Itoa(size)}, {"MaxSizeAllowed", strconv.Itoa(maxMetadata)}}}
			}
			if metadata == nil {
				metadata = map[string]string{}
			}
			metadata[key] = value
		case strings.HasPrefix(name, "X-Amz-Server-Side-Encryption-Customer-"):
			return nil, nil, nil, notImplemented("encryption with keys of the customer's")
		case strings.HasPrefix(name, "X-Amz-Object-Lock-"):
			return nil, nil, nil, &Error{Code: "InvalidRequest", Status: http.StatusBadRequest, Message: "Bucket is missing Object Lock Configuration"}
		}
	}
	if text := h.Get("X-Amz-Tagging"); text != "" {
		values, err := url.ParseQuery(text)
		if err != nil {
			return nil, nil, nil, badRequest("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
		}
		var list []tag
		for key, all := range values {
			for _, v := range all {
				list = append(list, tag{key, v})
			}
		}
		if tags, err = tagMap(list, maxTags); err != nil {
			return nil, nil, nil, err
		}
	}
	return headers, metadata, tags, q.checkACL()
}

// withoutChunked removes the coding that is of the transfer only.
func withoutChunked(value string) string {
	var kept []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" && !strings.EqualFold(part, "aws-chunked") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ",")
}

// writeConditions reads the preconditions of something that is to be stored.
func (q *request) writeConditions() (ifAbsent bool, ifMatch string, err error) {
	h := q.r.Header
	if v := h.Get("If-None-Match"); v != "" {
		if v != "*" {
			return false, "", notImplemented("If-None-Match other than *")
		}
		ifAbsent = true
	}
	ifMatch = strings.Trim(h.Get("If-Match"), `"`)
	if ifAbsent && ifMatch != "" {
		return false, "", badRequest("InvalidRequest", "If-Match and If-None-Match exclude each other")
	}
	return ifAbsent, ifMatch, nil
}

// reflect tells the client how an object is encrypted, as far as it asked.
func reflectEncryption(h http.Header, headers map[string]string) {
	for _, name := range []string{headerSSE, headerKMSKey} {
		if v := headers[name]; v != "" {
			h.Set(name, v)
		}
	}
}

func (q *request) putObject() error {
	headers, metadata, tags, err := q.attributes()
	if err != nil {
		return err
	}
	if len(tags) > 0 {
		if err := q.authorise("s3:PutObjectTagging", q.bucket, q.key, nil); err != nil {
			return err
		}
	}
	p := putRequest{headers: headers, metadata: metadata, tags: tags}
	if p.ifAbsent, p.ifMatch, err = q.writeConditions(); err != nil {
		return err
	}
	body, size, err := q.checkedBody(MaxPartBytes)
	if err != nil {
		return err
	}
	p.algorithm, p.checksum = body.algorithm, func() string { return body.checksum }
	r, err := q.e.put(q.ctx, q.bucket, q.key, body, size, p)
	if err != nil {
		return err
	}
	h := q.w.Header()
	h["ETag"] = []string{`"` + r.ETag + `"`}
	checksumHeaders(h, r)
	reflectEncryption(h, r.Headers)
	return q.empty(http.StatusOK)
}

func checksumHeaders(h http.Header, r *objectRecord) {
	if r.Algorithm != "" && r.Checksum != "" {
		h.Set(checksumHeader(r.Algorithm), r.Checksum)
		h.Set("X-Amz-Checksum-Type", checksumType(r.Composite))
	}
}

// getObject answers GetObject and HeadObject.
func (q *request) getObject() error {
	o, done, err := q.e.pinned(q.bucket, q.key)
	if err != nil {
		return err
	}
	defer done()
	h := q.w.Header()
	if err := readConditions(q.r.Header, "", o); err != nil {
		if err.Status == http.StatusNotModified {
			h["ETag"] = []string{`"` + o.ETag + `"`}
			h.Set("Last-Modified", modified(o).Format(http.TimeFormat))
		}
		return err
	}
	offset, length, status := int64(0), o.Size, http.StatusOK
	if text := q.query.Get("partNumber"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxParts {
			return badRequest("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
		}
		if q.r.Header.Get("Range") != "" {
			return badRequest("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
		}
		if offset, length, err = o.part(n); err != nil {
			return err
		}
		status = http.StatusPartialContent
		if o.Parts {
			h.Set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(o.Segments)))
		}
	} else if r, ok := parseRange(q.r.Header.Get("Range")); ok && ifRange(q.r.Header, o) {
		var within bool
		if offset, length, within = r.within(o.Size); !within || o.Size == 0 {
			return &Error{Code: CodeInvalidRange, Status: http.StatusRequestedRangeNotSatisfiable, Message: "The requested range is not satisfiable",
				fields: []field{{"RangeRequested", clip(q.r.Header.Get("Range"))}, {"ActualObjectSize", strconv.FormatInt(o.Size, 10)}}}
		}
		status = http.StatusPartialContent
	}
	if err := q.objectHeaders(o); err != nil {
		return err
	}
	if status == http.StatusPartialContent && o.Size > 0 {
		h.Set("Content-Range", "bytes "+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(offset+length-1, 10)+"/"+strconv.FormatInt(o.Size, 10))
	}
	if strings.EqualFold(q.r.Header.Get("X-Amz-Checksum-Mode"), "enabled") && length == o.Size {
		checksumHeaders(h, o)
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	if q.r.Method == http.MethodHead {
		q.w.WriteHeader(status)
		return nil
	}
	body := q.e.blobs.reader(q.ctx, o.Segments, offset, length, func() {}).(*blobReader)
	defer body.Close()
	// What cannot be read at all is answered as an error.
	if length > 0 {
		if err := body.load(); err != nil {
			for name := range h {
				if strings.HasPrefix(name, "Content-") || name == "ETag" || name == "Last-Modified" {
					h.Del(name)
				}
			}
			delete(h, "ETag")
			return err
		}
	}
	q.w.WriteHeader(status)
	if _, err := body.WriteTo(q.w); err != nil {
		if body.err != nil && body.err != io.EOF && q.ctx.Err() == nil {
			q.h.o.Logger.Error("object cannot be read to its end", "request", q.call.RequestID, "bucket", q.bucket, "key", clip(q.key), "error", body.err)
		}
		// The reply has begun: that it ends early is all that can be said.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// objectHeaders sets the headers that describe an object.
func (q *request) objectHeaders(o *objectRecord) error {
	h := q.w.Header()
	h.Set(headerType, "binary/octet-stream")
	for name, value := range o.Headers {
		h.Set(name, value)
	}
	for name, value := range o.Metadata {
		h["x-amz-meta-"+name] = []string{value}
	}
	h["ETag"] = []string{`"` + o.ETag + `"`}
	h.Set("Last-Modified", modified(o).Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	if len(o.Tags) > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(len(o.Tags)))
	}
	for name, header := range map[string]string{
		"response-content-type": headerType, "response-content-encoding": headerEncoding, "response-content-disposition": headerDisposition,
		"response-content-language": headerLanguage, "response-cache-control": headerCache, "response-expires": headerExpires,
	} {
		if v := q.query.Get(name); v != "" {
			if q.signed == nil {
				return badRequest("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
			}
			h.Set(header, v)
		}
	}
	return nil
}

func modified(o *objectRecord) time.Time { return time.UnixMilli(o.Modified).UTC() }

// part is the place of a part in an object that was uploaded in parts; one that
// was not is a part of its own.
func (r *objectRecord) part(n int) (offset, length int64, err error) {
	if !r.Parts && n == 1 {
		return 0, r.Size, nil
	}
	if !r.Parts || n > len(r.Segments) {
		return 0, 0, &Error{Code: "InvalidPartNumber", Status: http.StatusRequestedRangeNotSatisfiable, Message: "The requested partnumber is not satisfiable",
			fields: []field{{"PartNumberRequested", strconv.Itoa(n)}, {"ActualPartCount", strconv.Itoa(max(len(r.Segments), 1))}}}
	}
	for _, s := range r.Segments[:n-1] {
		offset += s.Size
	}
	return offset, r.Segments[n-1].Size, nil
}

// parseRange reads a header of one range. Anything else is passed over, as the
// rules for the header have it.
func parseRange(text string) (r Range, ok bool) {
	spec, ok := strings.CutPrefix(strings.TrimSpace(text), "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return r, false
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return r, false
	}
	number := func(s string) (int64, bool) {
		n, err := strconv.ParseUint(s, 10, 63)
		return int64(n), err == nil || errors.Is(err, strconv.ErrRange)
	}
	if first == "" {
		n, ok := number(last)
		if n == 0 {
			return Range{Length: -1}, ok // no bytes: nothing satisfies it
		}
		return Range{Offset: -n}, ok
	}
	from, ok := number(first)
	if !ok {
		return r, false
	}
	if last == "" {
		return Range{Offset: from}, true
	}
	to, ok := number(last)
	if !ok || to < from {
		return r, false
	}
	// A length that is no number any more reaches to the end in any case.
	return Range{Offset: from, Length: max(to-from+1, 0)}, true
}

func ifRange(h http.Header, o *objectRecord) bool {
	v := h.Get("If-Range")
	if v == "" {
		return true
	}
	if t, err := http.ParseTime(v); err == nil {
		return !modified(o).Truncate(time.Second).After(t)
	}
	return strings.Trim(v, `"`) == o.ETag
}

// readConditions judges the conditions of a read, or, with the prefix of those
// headers, of a copy's source. Tags of entities outweigh dates.
func readConditions(h http.Header, prefix string, o *objectRecord) *Error {
	at := modified(o).Truncate(time.Second)
	unmodified := func(name string) *Error {
		if prefix != "" {
			return precondition(name)
		}
		return &Error{Code: "NotModified", Status: http.StatusNotModified}
	}
	if v := h.Get(prefix + "If-Match"); v != "" {
		if !etagListed(v, o.ETag) {
			return precondition("If-Match")
		}
	} else if t, err := http.ParseTime(h.Get(prefix + "If-Unmodified-Since")); err == nil && at.After(t) {
		return precondition("If-Unmodified-Since")
	}
	if v := h.Get(prefix + "If-None-Match"); v != "" {
		if etagListed(v, o.ETag) {
			return unmodified("If-None-Match")
		}
	} else if t, err := http.ParseTime(h.Get(prefix + "If-Modified-Since")); err == nil && !at.After(t) {
		return unmodified("If-Modified-Since")
	}
	return nil
}

func etagListed(list, etag string) bool {
	for part := range strings.SplitSeq(list, ",") {
		part = strings.Trim(strings.TrimPrefix(strings.TrimSpace(part), "W/"), `"`)
		if part == "*" || part == etag {
			return true
		}
	}
	return false
}

func (q *request) deleteObject() error {
	err := q.e.delete(q.bucket, q.key, strings.Trim(q.r.Header.Get("If-Match"), `"`))
	if err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// parallelDeletes is how many objects of one request are deleted at a time: they
// share the writes that make it durable.
const parallelDeletes = 16

func (q *request) deleteObjects() error {
	var in struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool     `xml:"Quiet"`
		Objects []struct {
			Key       string `xml:"Key"`
			VersionID string `xml:"VersionId"`
			ETag      string `xml:"ETag"`
		} `xml:"Object"`
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	if len(in.Objects) == 0 || len(in.Objects) > maxListed {
		return malformedXML()
	}
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	errs := make([]error, len(in.Objects))
	var work errgroup.Group
	work.SetLimit(parallelDeletes)
	for i, o := range in.Objects {
		work.Go(func() error {
			err := q.authorise("s3:DeleteObject", q.bucket, o.Key, nil)
			if err == nil && o.VersionID != "" && o.VersionID != "null" {
				err = &Error{Code: "NoSuchVersion", Status: http.StatusNotFound, Message: "The specified version does not exist."}
			}
			if err == nil {
				err = q.e.delete(q.bucket, o.Key, strings.Trim(o.ETag, `"`))
			}
			errs[i] = err
			return nil
		})
	}
	_ = work.Wait() // errors are in errs
	x := newDocument()
	x.root("DeleteResult")
	for i, o := range in.Objects {
		if errs[i] == nil {
			if !in.Quiet {
				x.open("Deleted")
				x.text("Key", o.Key)
				if o.VersionID != "" {
					x.text("VersionId", o.VersionID)
				}
				x.close("Deleted")
			}
			continue
		}
		e, ok := errors.AsType[*Error](errs[i])
		if !ok {
			return errs[i]
		}
		if e.Err != nil {
			q.h.o.Logger.Error("object not deleted", "request", q.call.RequestID, "bucket", q.bucket, "key", clip(o.Key), "error", e.Err)
		}
		x.open("Error")
		x.text("Key", o.Key)
		x.text("Code", e.Code)
		x.text("Message", e.Message)
		x.close("Error")
	}
	x.close("DeleteResult")
	q.answer(http.StatusOK, x)
	return nil
}

// source finds the object that a copy is made of, and keeps its files until done
// is called.
func (q *request) source() (o *objectRecord, bucket, key string, done func(), err error) {
	text := q.r.Header.Get("X-Amz-Copy-Source")
	path, version, _ := strings.Cut(text, "?")
	path, err = url.PathUnescape(path)
	invalid := func() (*objectRecord, string, string, func(), error) {
		return nil, "", "", nil, badRequest("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	if err != nil {
		return invalid()
	}
	bucket, key, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || bucket == "" || key == "" {
		return invalid()
	}
	if v, ok := strings.CutPrefix(version, "versionId="); ok && v != "null" {
		return nil, "", "", nil, &Error{Code: "NoSuchVersion", Status: http.StatusNotFound, Message: "The specified version does not exist."}
	}
	if err := q.authorise("s3:GetObject", bucket, key, nil); err != nil {
		return nil, "", "", nil, err
	}
	if o, done, err = q.e.pinned(bucket, key); err != nil {
		return nil, "", "", nil, err
	}
	if err := readConditions(q.r.Header, "X-Amz-Copy-Source-", o); err != nil {
		done()
		return nil, "", "", nil, err
	}
	return o, bucket, key, done, nil
}

// summed computes a checksum of what is read.
func summed(r io.Reader, algorithm string) (io.Reader, func() string) {
	if algorithm == "" {
		return r, nil
	}
	h := algorithms[algorithm]()
	return io.TeeReader(r, h), func() string { return checksumText(h) }
}

func (q *request) copyObject() error {
	headers, metadata, tags, err := q.attributes()
	if err != nil {
		return err
	}
	o, bucket, key, done, err := q.source()
	if err != nil {
		return err
	}
	defer done()
	directive := func(name string) (replace bool, err error) {
		switch v := q.r.Header.Get(name); v {
		case "", "COPY":
			return false, nil
		case "REPLACE":
			return true, nil
		default:
			return false, badRequest("InvalidArgument", "Unknown directive in "+strings.ToLower(name)+".")
		}
	}
	replace, err := directive("X-Amz-Metadata-Directive")
	if err != nil {
		return err
	}
	replaceTags, err := directive("X-Amz-Tagging-Directive")
	if err != nil {
		return err
	}
	_, otherClass := headers[headerStorage]
	_, encrypts := headers[headerSSE]
	if bucket == q.bucket && key == q.key && !replace && !otherClass && !encrypts {
		return badRequest("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if o.Size > MaxPartBytes {
		return badRequest("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: "+strconv.Itoa(MaxPartBytes))
	}
	p := putRequest{headers: headers, metadata: metadata, tags: o.Tags, algorithm: o.Algorithm}
	if replaceTags {
		p.tags = tags
	}
	if !replace {
		p.metadata = o.Metadata
		p.headers = maps.Clone(o.Headers)
		if p.headers == nil {
			p.headers = map[string]string{}
		}
		for _, name := range []string{headerStorage, headerSSE, headerKMSKey, headerRedirect} {
			delete(p.headers, name)
			if v := headers[name]; v != "" {
				p.headers[name] = v
			}
		}
	}
	if p.ifAbsent, p.ifMatch, err = q.writeConditions(); err != nil {
		return err
	}
	if name := q.r.Header.Get("X-Amz-Checksum-Algorithm"); name != "" {
		if algorithms[name] == nil {
			return badChecksumAlgorithm()
		}
		p.algorithm = name
	}
	body := q.e.blobs.reader(q.ctx, o.Segments, 0, o.Size, func() {})
	defer body.Close()
	var r io.Reader
	r, p.checksum = summed(body, p.algorithm)
	stored, err := q.e.put(q.ctx, q.bucket, q.key, r, o.Size, p)
	if err != nil {
		return err
	}
	reflectEncryption(q.w.Header(), stored.Headers)
	x := newDocument()
	x.root("CopyObjectResult")
	x.text("ETag", `"`+stored.ETag+`"`)
	x.time("LastModified", modified(stored))
	if stored.Algorithm != "" {
		x.text("ChecksumType", checksumType(false))
		x.text("Checksum"+stored.Algorithm, stored.Checksum)
	}
	x.close("CopyObjectResult")
	q.answer(http.StatusOK, x)
	return nil
}

func badChecksumAlgorithm() error {
	return badRequest("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
}

func (q *request) getObjectTagging() error {
	o, err := q.e.object(q.bucket, q.key)
	if err != nil {
		return err
	}
	return q.answerTags(o.Tags)
}

func (q *request) putObjectTagging() error {
	var in tagging
	if err := q.decode(&in); err != nil {
		return err
	}
	tags, err := tagMap(in.Tags, maxTags)
	if err != nil {
		return err
	}
	if err := q.e.updateObject(q.bucket, q.key, func(r *objectRecord) { r.Tags = tags }); err != nil {
		return err
	}
	return q.empty(http.StatusOK)
}

func (q *request) deleteObjectTagging() error {
	if err := q.e.updateObject(q.bucket, q.key, func(r *objectRecord) { r.Tags = nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) getObjectAttributes() error {
	o, err := q.e.object(q.bucket, q.key)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, v := range q.r.Header.Values("X-Amz-Object-Attributes") {
		for name := range strings.SplitSeq(v, ",") {
			wanted[strings.TrimSpace(name)] = true
		}
	}
	if len(wanted) == 0 {
		return badRequest("InvalidArgument", "Invalid attribute name specified.")
	}
	q.w.Header().Set("Last-Modified", modified(o).Format(http.TimeFormat))
	x := newDocument()
	x.root("GetObjectAttributesResponse")
	if wanted["ETag"] {
		x.text("ETag", o.ETag)
	}
	if wanted["Checksum"] && o.Algorithm != "" {
		x.open("Checksum")
		x.text("Checksum"+o.Algorithm, o.Checksum)
		x.text("ChecksumType", checksumType(o.Composite))
		x.close("Checksum")
	}
	if wanted["ObjectParts"] && o.Parts {
		if err := q.objectParts(x, o); err != nil {
			return err
		}
	}
	if wanted["StorageClass"] {
		x.text("StorageClass", storageClass(o.Headers))
	}
	if wanted["ObjectSize"] {
		x.number("ObjectSize", o.Size)
	}
	x.close("GetObjectAttributesResponse")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) objectParts(x *document, o *objectRecord) error {
	after, most := 0, maxListed
	for name, into := range map[string]*int{"X-Amz-Part-Number-Marker": &after, "X-Amz-Max-Parts": &most} {
		if text := q.r.Header.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				return badRequest("InvalidArgument", "The value of "+strings.ToLower(name)+" is invalid.")
			}
			*into = n
		}
	}
	after, most = min(after, len(o.Segments)), min(most, maxListed)
	end := min(after+most, len(o.Segments))
	x.open("ObjectParts")
	x.number("TotalPartsCount", int64(len(o.Segments)))
	x.number("PartNumberMarker", int64(after))
	x.number("NextPartNumberMarker", int64(end))
	x.number("MaxParts", int64(most))
	x.flag("IsTruncated", end < len(o.Segments))
	for i := after; i < end; i++ {
		x.open("Part")
		x.number("PartNumber", int64(i+1))
		x.number("Size", o.Segments[i].Size)
		if len(o.PartSums) == len(o.Segments) {
			x.text("Checksum"+o.Algorithm, o.PartSums[i])
		}
		x.close("Part")
	}
	x.close("ObjectParts")
	return nil
}

func (q *request) createMultipartUpload() error {
	headers, metadata, tags, err := q.attributes()
	if err != nil {
		return err
	}
	u := uploadRecord{Owner: q.call.Principal.ARN, Headers: headers, Metadata: metadata, Tags: tags}
	if name := q.r.Header.Get("X-Amz-Checksum-Algorithm"); name != "" {
		if algorithms[name] == nil {
			return badChecksumAlgorithm()
		}
		u.Algorithm = name
		cyclic := strings.HasPrefix(name, "CRC")
		switch kind := q.r.Header.Get("X-Amz-Checksum-Type"); {
		case kind == "" || kind == "COMPOSITE" && name != "CRC64NVME":
			u.Composite = name != "CRC64NVME"
		case kind == "FULL_OBJECT" && cyclic:
		default:
			return badRequest("InvalidRequest", "The "+clip(kind)+" checksum type cannot be used with the "+strings.ToLower(name)+" checksum algorithm.")
		}
	}
	id, err := q.e.createUpload(q.ctx, q.bucket, q.key, u)
	if err != nil {
		return err
	}
	h := q.w.Header()
	if u.Algorithm != "" {
		h.Set("X-Amz-Checksum-Algorithm", u.Algorithm)
		h.Set("X-Amz-Checksum-Type", checksumType(u.Composite))
	}
	reflectEncryption(h, headers)
	x := newDocument()
	x.root("InitiateMultipartUploadResult")
	x.text("Bucket", q.bucket)
	x.text("Key", q.key)
	x.text("UploadId", id)
	x.close("InitiateMultipartUploadResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) partNumber() (int, error) {
	n, err := strconv.Atoi(q.query.Get("partNumber"))
	if err != nil || n < 1 || n > MaxParts {
		return 0, &Error{Code: "InvalidArgument", Status: http.StatusBadRequest, Message: "Part number must be an integer between 1 and 10000, inclusive",
			fields: []field{{"ArgumentName", "partNumber"}, {"ArgumentValue", clip(q.query.Get("partNumber"))}}}
	}
	return n, nil
}

func (q *request) uploadPart() error {
	number, err := q.partNumber()
	if err != nil {
		return err
	}
	id := q.query.Get("uploadId")
	u, err := q.e.upload(q.bucket, q.key, id)
	if err != nil {
		return err
	}
	body, size, err := q.checkedBody(MaxPartBytes)
	if err != nil {
		return err
	}
	algorithm, checksum := body.algorithm, func() string { return body.checksum }
	var r io.Reader = body
	if u.Algorithm != "" && algorithm == "" {
		algorithm = u.Algorithm
		r, checksum = summed(body, algorithm)
	}
	if u.Algorithm != "" && algorithm != u.Algorithm {
		return badRequest("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: "+strings.ToLower(u.Algorithm)+", actual checksum Type: "+strings.ToLower(algorithm))
	}
	p, err := q.e.putPart(q.ctx, q.bucket, q.key, id, number, r, size, algorithm, checksum)
	if err != nil {
		return err
	}
	h := q.w.Header()
	h["ETag"] = []string{`"` + p.ETag + `"`}
	if p.Algorithm != "" {
		h.Set(checksumHeader(p.Algorithm), p.Checksum)
	}
	return q.empty(http.StatusOK)
}

func (q *request) uploadPartCopy() error {
	number, err := q.partNumber()
	if err != nil {
		return err
	}
	id := q.query.Get("uploadId")
	u, err := q.e.upload(q.bucket, q.key, id)
	if err != nil {
		return err
	}
	o, _, _, done, err := q.source()
	if err != nil {
		return err
	}
	defer done()
	offset, length := int64(0), o.Size
	if text := q.r.Header.Get("X-Amz-Copy-Source-Range"); text != "" {
		r, ok := parseRange(text)
		if !ok || r.Offset < 0 || r.Length <= 0 {
			return badRequest("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
		}
		if r.Offset+r.Length > o.Size || r.Offset+r.Length < 0 {
			return &Error{Code: CodeInvalidRange, Status: http.StatusRequestedRangeNotSatisfiable, Message: "Range specified is not valid for source object of size: " + strconv.FormatInt(o.Size, 10)}
		}
		offset, length = r.Offset, r.Length
	}
	if length > MaxPartBytes {
		return badRequest("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: "+strconv.Itoa(MaxPartBytes))
	}
	body := q.e.blobs.reader(q.ctx, o.Segments, offset, length, func() {})
	defer body.Close()
	r, checksum := summed(body, u.Algorithm)
	p, err := q.e.putPart(q.ctx, q.bucket, q.key, id, number, r, length, u.Algorithm, checksum)
	if err != nil {
		return err
	}
	x := newDocument()
	x.root("CopyPartResult")
	x.text("ETag", `"`+p.ETag+`"`)
	x.time("LastModified", time.UnixMilli(p.Modified))
	if p.Algorithm != "" {
		x.text("Checksum"+p.Algorithm, p.Checksum)
	}
	x.close("CopyPartResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) completeMultipartUpload() error {
	var in struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Parts   []struct {
			PartNumber        int    `xml:"PartNumber"`
			ETag              string `xml:"ETag"`
			ChecksumCRC32     string `xml:"ChecksumCRC32"`
			ChecksumCRC32C    string `xml:"ChecksumCRC32C"`
			ChecksumCRC64NVME string `xml:"ChecksumCRC64NVME"`
			ChecksumSHA1      string `xml:"ChecksumSHA1"`
			ChecksumSHA256    string `xml:"ChecksumSHA256"`
		} `xml:"Part"`
	}
	// The checksum headers of this request are about the object, not its body.
	declared := map[string]string{}
	for name := range q.r.Header {
		if a := algorithmOf(name); a != "" {
			declared[a] = q.r.Header.Get(name)
			q.r.Header.Del(name)
		}
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	if len(in.Parts) == 0 || len(in.Parts) > MaxParts {
		return malformedXML()
	}
	parts := make([]completedPart, len(in.Parts))
	for i, p := range in.Parts {
		parts[i] = completedPart{number: p.PartNumber, etag: p.ETag}
		for _, sum := range []string{p.ChecksumCRC32, p.ChecksumCRC32C, p.ChecksumCRC64NVME, p.ChecksumSHA1, p.ChecksumSHA256} {
			if sum != "" {
				parts[i].checksum = sum
			}
		}
	}
	ifAbsent, ifMatch, err := q.writeConditions()
	if err != nil {
		return err
	}
	verify := func(r *objectRecord) error {
		if want := declared[r.Algorithm]; r.Algorithm != "" && want != "" && want != r.Checksum && want+"-"+strconv.Itoa(len(parts)) != r.Checksum {
			return badRequest("BadDigest", "The "+r.Algorithm+" you specified did not match the calculated checksum.")
		}
		if text := q.r.Header.Get("X-Amz-Mp-Object-Size"); text != "" && text != strconv.FormatInt(r.Size, 10) {
			return badRequest("InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match what was computed.")
		}
		return nil
	}
	id := q.query.Get("uploadId")
	r, err := q.e.completeUpload(q.ctx, q.bucket, q.key, id, parts, ifAbsent, ifMatch, verify)
	if Code(err) == "NoSuchUpload" {
		// A client that has not heard the answer asks again: if the object is the
		// one its parts make, that is the answer.
		if have, found := q.e.completed(q.bucket, q.key, parts); found {
			r, err = have, nil
		}
	}
	if err != nil {
		return err
	}
	reflectEncryption(q.w.Header(), r.Headers)
	x := newDocument()
	x.root("CompleteMultipartUploadResult")
	scheme := "http"
	if q.r.TLS != nil {
		scheme = "https"
	}
	x.text("Location", (&url.URL{Scheme: scheme, Host: q.r.Host, Path: q.r.URL.Path}).String())
	x.text("Bucket", q.bucket)
	x.text("Key", q.key)
	x.text("ETag", `"`+r.ETag+`"`)
	if r.Algorithm != "" {
		x.text("Checksum"+r.Algorithm, r.Checksum)
		x.text("ChecksumType", checksumType(r.Composite))
	}
	x.close("CompleteMultipartUploadResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) abortMultipartUpload() error {
	if err := q.e.abortUpload(q.ctx, q.bucket, q.key, q.query.Get("uploadId")); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}
