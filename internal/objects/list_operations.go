package objects

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// listing is what the lists have in common.
type listing struct {
	prefix, delimiter string
	most              int
	encoded           bool // keys are written as in addresses
}

func (q *request) listing(maxName string) (l listing, err error) {
	l = listing{prefix: q.query.Get("prefix"), delimiter: q.query.Get("delimiter"), most: maxListed}
	if text := q.query.Get(maxName); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return l, &Error{Code: "InvalidArgument", Status: http.StatusBadRequest, Message: "Argument " + maxName + " must be an integer between 0 and 2147483647",
				fields: []field{{"ArgumentName", maxName}, {"ArgumentValue", clip(text)}}}
		}
		l.most = int(min(n, maxListed))
	}
	switch e := q.query.Get("encoding-type"); e {
	case "":
	case "url":
		l.encoded = true
	default:
		return l, &Error{Code: "InvalidArgument", Status: http.StatusBadRequest, Message: "Invalid Encoding Method specified in Request", fields: []field{{"ArgumentName", "encoding-type"}, {"ArgumentValue", clip(e)}}}
	}
	if len(l.prefix) > MaxKeyBytes || len(l.delimiter) > MaxKeyBytes {
		return l, badRequest("KeyTooLongError", "Your key is too long")
	}
	return l, nil
}

// text is a key as the client asked for it.
func (l *listing) text(s string) string {
	if !l.encoded {
		return s
	}
	// Slashes stay, as the service leaves them.
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(s), "%2F", "/"), "%2A", "*")
}

func (l *listing) optional(x *document, name, value string) {
	if value != "" {
		x.text(name, l.text(value))
	}
}

func (q *request) page(l listing, after string) (page, error) {
	if l.most == 0 {
		_, err := q.e.bucket(q.bucket)
		return page{}, err
	}
	return q.e.list(q.ctx, q.bucket, l.prefix, l.delimiter, after, l.most)
}

func (q *request) listObjects() error {
	l, err := q.listing("max-keys")
	if err != nil {
		return err
	}
	marker := q.query.Get("marker")
	p, err := q.page(l, marker)
	if err != nil {
		return err
	}
	x := newDocument()
	x.root("ListBucketResult")
	x.text("Name", q.bucket)
	x.text("Prefix", l.text(l.prefix))
	x.text("Marker", l.text(marker))
	l.optional(x, "Delimiter", l.delimiter)
	x.number("MaxKeys", int64(l.most))
	if l.encoded {
		x.text("EncodingType", "url")
	}
	x.flag("IsTruncated", p.more)
	if p.more && l.delimiter != "" {
		x.text("NextMarker", l.text(p.last))
	}
	q.contents(x, l, p, true)
	x.close("ListBucketResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) listObjectsV2() error {
	l, err := q.listing("max-keys")
	if err != nil {
		return err
	}
	after, token := q.query.Get("start-after"), q.query.Get("continuation-token")
	if q.query.Has("continuation-token") {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) == 0 {
			return badRequest("InvalidArgument", "The continuation token provided is incorrect")
		}
		after = string(raw)
	}
	p, err := q.page(l, after)
	if err != nil {
		return err
	}
	x := newDocument()
	x.root("ListBucketResult")
	x.text("Name", q.bucket)
	x.text("Prefix", l.text(l.prefix))
	l.optional(x, "Delimiter", l.delimiter)
	x.number("MaxKeys", int64(l.most))
	if l.encoded {
		x.text("EncodingType", "url")
	}
	x.number("KeyCount", int64(len(p.objects)+len(p.prefixes)))
	x.flag("IsTruncated", p.more)
	if token != "" {
		x.text("ContinuationToken", token)
	}
	l.optional(x, "StartAfter", q.query.Get("start-after"))
	if p.more {
		x.text("NextContinuationToken", base64.RawURLEncoding.EncodeToString([]byte(p.last)))
	}
	q.contents(x, l, p, q.query.Get("fetch-owner") == "true")
	x.close("ListBucketResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) contents(x *document, l listing, p page, owner bool) {
	for i, o := range p.objects {
		x.open("Contents")
		x.text("Key", l.text(o.Key))
		x.time("LastModified", o.Modified)
		x.text("ETag", `"`+o.ETag+`"`)
		r := p.records[i]
		if r.Algorithm != "" {
			x.text("ChecksumAlgorithm", r.Algorithm)
			x.text("ChecksumType", checksumType(r.Composite))
		}
		x.number("Size", o.Size)
		if owner {
			q.owner(x, "Owner")
		}
		x.text("StorageClass", storageClass(r.Headers))
		x.close("Contents")
	}
	for _, common := range p.prefixes {
		x.open("CommonPrefixes")
		x.text("Prefix", l.text(common))
		x.close("CommonPrefixes")
	}
}

func storageClass(h map[string]string) string {
	if c := h[headerStorage]; c != "" {
		return c
	}
	return "STANDARD"
}

func checksumType(composite bool) string {
	if composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// listObjectVersions lists objects as the only versions of themselves.
func (q *request) listObjectVersions() error {
	l, err := q.listing("max-keys")
	if err != nil {
		return err
	}
	marker := q.query.Get("key-marker")
	p, err := q.page(l, marker)
	if err != nil {
		return err
	}
	x := newDocument()
	x.root("ListVersionsResult")
	x.text("Name", q.bucket)
	x.text("Prefix", l.text(l.prefix))
	x.text("KeyMarker", l.text(marker))
	x.text("VersionIdMarker", q.query.Get("version-id-marker"))
	l.optional(x, "Delimiter", l.delimiter)
	x.number("MaxKeys", int64(l.most))
	if l.encoded {
		x.text("EncodingType", "url")
	}
	x.flag("IsTruncated", p.more)
	if p.more {
		x.text("NextKeyMarker", l.text(p.last))
		x.text("NextVersionIdMarker", "null")
	}
	for i, o := range p.objects {
		x.open("Version")
		x.text("Key", l.text(o.Key))
		x.text("VersionId", "null")
		x.flag("IsLatest", true)
		x.time("LastModified", o.Modified)
		x.text("ETag", `"`+o.ETag+`"`)
		x.number("Size", o.Size)
		q.owner(x, "Owner")
		x.text("StorageClass", storageClass(p.records[i].Headers))
		x.close("Version")
	}
	for _, common := range p.prefixes {
		x.open("CommonPrefixes")
		x.text("Prefix", l.text(common))
		x.close("CommonPrefixes")
	}
	x.close("ListVersionsResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) listMultipartUploads() error {
	l, err := q.listing("max-uploads")
	if err != nil {
		return err
	}
	marker, idMarker := q.query.Get("key-marker"), q.query.Get("upload-id-marker")
	if l.most == 0 {
		l.most = maxListed
	}
	list, prefixes, more, err := q.e.listUploads(q.ctx, q.bucket, l.prefix, l.delimiter, marker, idMarker, l.most)
	if err != nil {
		return err
	}
	x := newDocument()
	x.root("ListMultipartUploadsResult")
	x.text("Bucket", q.bucket)
	x.text("KeyMarker", l.text(marker))
	x.text("UploadIdMarker", idMarker)
	l.optional(x, "Prefix", l.prefix)
	l.optional(x, "Delimiter", l.delimiter)
	x.number("MaxUploads", int64(l.most))
	if l.encoded {
		x.text("EncodingType", "url")
	}
	x.flag("IsTruncated", more)
	if more {
		last, id := "", ""
		if len(list) > 0 {
			last, id = list[len(list)-1].Key, list[len(list)-1].ID
		}
		if len(prefixes) > 0 && prefixes[len(prefixes)-1] > last {
			last, id = prefixes[len(prefixes)-1], ""
		}
		x.text("NextKeyMarker", l.text(last))
		x.text("NextUploadIdMarker", id)
	}
	for _, u := range list {
		x.open("Upload")
		x.text("Key", l.text(u.Key))
		x.text("UploadId", u.ID)
		q.owner(x, "Initiator")
		q.owner(x, "Owner")
		x.text("StorageClass", "STANDARD")
		x.time("Initiated", u.Initiated)
		if u.Algorithm != "" {
			x.text("ChecksumAlgorithm", u.Algorithm)
			x.text("ChecksumType", checksumType(u.Composite))
		}
		x.close("Upload")
	}
	for _, common := range prefixes {
		x.open("CommonPrefixes")
		x.text("Prefix", l.text(common))
		x.close("CommonPrefixes")
	}
	x.close("ListMultipartUploadsResult")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) listParts() error {
	l, err := q.listing("max-parts")
	if err != nil {
		return err
	}
	after := 0
	if text := q.query.Get("part-number-marker"); text != "" {
		if after, err = strconv.Atoi(text); err != nil || after < 0 {
			return badRequest("InvalidArgument", "Argument part-number-marker must be an integer between 0 and 2147483647")
		}
	}
	id := q.query.Get("uploadId")
	u, err := q.e.upload(q.bucket, q.key, id)
	if err != nil {
		return err
	}
	list, more, err := q.e.parts(id, min(after, MaxParts), max(l.most, 1))
	if err != nil {
		return err
	}
	if l.most == 0 {
		list, more = nil, false
	}
	x := newDocument()
	x.root("ListPartsResult")
	x.text("Bucket", q.bucket)
	x.text("Key", l.text(q.key))
	x.text("UploadId", id)
	q.owner(x, "Initiator")
	q.owner(x, "Owner")
	x.text("StorageClass", storageClass(u.Headers))
	x.number("PartNumberMarker", int64(after))
	if len(list) > 0 {
		x.number("NextPartNumberMarker", int64(list[len(list)-1].number))
	}
	x.number("MaxParts", int64(l.most))
	x.flag("IsTruncated", more)
	if u.Algorithm != "" {
		x.text("ChecksumAlgorithm", u.Algorithm)
		x.text("ChecksumType", checksumType(u.Composite))
	}
	for _, p := range list {
		x.open("Part")
		x.number("PartNumber", int64(p.number))
		x.time("LastModified", time.UnixMilli(p.Modified))
		x.text("ETag", `"`+p.ETag+`"`)
		x.number("Size", p.Size)
		if p.Algorithm != "" {
			x.text("Checksum"+p.Algorithm, p.Checksum)
		}
		x.close("Part")
	}
	x.close("ListPartsResult")
	q.answer(http.StatusOK, x)
	return nil
}
