package objects

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/iam"
)

func (q *request) listBuckets() error {
	most := 10_000
	if text := q.query.Get("max-buckets"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return badRequest("InvalidArgument", "max-buckets must be between 1 and 10000")
		}
		most = n
	}
	prefix := q.query.Get("prefix")
	x := newDocument()
	x.root("ListAllMyBucketsResult")
	q.owner(x, "Owner")
	x.open("Buckets")
	after, shown := q.query.Get("continuation-token"), 0
	last, next := "", ""
	for more := true; more && next == ""; {
		list, further, err := q.e.Buckets(q.ctx, prefix, after, 1000)
		if err != nil {
			return err
		}
		more = further
		for _, b := range list {
			after = b.Name
			if b.Account != q.call.Account {
				continue
			}
			if shown == most {
				next = last
				break
			}
			shown++
			last = b.Name
			x.open("Bucket")
			x.text("Name", b.Name)
			x.time("CreationDate", b.Created)
			x.text("BucketRegion", regionOr(b.Region))
			x.close("Bucket")
		}
	}
	x.close("Buckets")
	if next != "" {
		x.text("ContinuationToken", next)
	}
	if prefix != "" {
		x.text("Prefix", prefix)
	}
	x.close("ListAllMyBucketsResult")
	q.answer(http.StatusOK, x)
	return nil
}

func regionOr(region string) string {
	if region == "" {
		return defaultRegion
	}
	return region
}

// owner writes who owns what is asked about: its account.
func (q *request) owner(x *document, name string) {
	account := q.call.Account
	if q.bucket != "" {
		if b, err := q.e.bucket(q.bucket); err == nil {
			account = b.Account
		}
	}
	x.open(name)
	x.text("ID", account)
	x.text("DisplayName", account)
	x.close(name)
}

func (q *request) createBucket() error {
	var in struct {
		XMLName            xml.Name `xml:"CreateBucketConfiguration"`
		LocationConstraint string   `xml:"LocationConstraint"`
		Tags               []tag    `xml:"Tags>Tag"`
	}
	region := q.call.Region
	if q.r.ContentLength != 0 {
		b, err := q.readDocument()
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(b))) > 0 {
			if xml.Unmarshal(b, &in) != nil {
				return malformedXML()
			}
		}
		if in.LocationConstraint != "" {
			region = in.LocationConstraint
		}
	}
	if len(region) > 64 {
		return badRequest("InvalidLocationConstraint", "The specified location-constraint is not valid")
	}
	if err := q.checkACL(); err != nil {
		return err
	}
	if strings.EqualFold(q.r.Header.Get("X-Amz-Bucket-Object-Lock-Enabled"), "true") {
		return notImplemented("object lock")
	}
	tags, err := tagMap(in.Tags, 50)
	if err != nil {
		return err
	}
	err = q.e.CreateBucket(q.ctx, q.bucket, q.call.Account, region)
	if Code(err) == "BucketAlreadyOwnedByYou" && region == defaultRegion {
		err = nil // as that region answers
	} else if err == nil && len(tags) > 0 {
		err = q.e.updateBucket(q.bucket, func(r *bucketRecord) error { r.Tags = tags; return nil })
	}
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", "/"+q.bucket)
	return q.empty(http.StatusOK)
}

func (q *request) headBucket() error {
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	q.w.Header().Set("X-Amz-Bucket-Region", regionOr(b.Region))
	q.w.Header().Set("X-Amz-Access-Point-Alias", "false")
	q.w.Header().Set("Content-Type", "application/xml")
	return q.empty(http.StatusOK)
}

func (q *request) deleteBucket() error {
	if err := q.e.DeleteBucket(q.ctx, q.bucket); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) getBucketLocation() error {
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	x := newDocument()
	region := b.Region
	if region == defaultRegion {
		region = "" // as the service says it
	}
	x.root("LocationConstraint")
	x.escape(region)
	x.close("LocationConstraint")
	q.answer(http.StatusOK, x)
	return nil
}

// getBucketVersioning says what is so: objects have one version.
func (q *request) getBucketVersioning() error {
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	x := newDocument()
	x.root("VersioningConfiguration")
	x.close("VersioningConfiguration")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) putBucketVersioning() error {
	var in struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		Status  string   `xml:"Status"`
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	switch in.Status {
	case "Suspended", "":
		return q.empty(http.StatusOK)
	case "Enabled":
		return notImplemented("versioning")
	}
	return malformedXML()
}

func (q *request) getBucketPolicy() error {
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	if b.Policy == "" {
		return &Error{Code: "NoSuchBucketPolicy", Status: http.StatusNotFound, Message: "The bucket policy does not exist", fields: []field{{"BucketName", q.bucket}}}
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.w.Header().Set("Content-Length", strconv.Itoa(len(b.Policy)))
	q.w.WriteHeader(http.StatusOK)
	// A client that has gone away is no news.
	_, _ = q.w.Write([]byte(b.Policy))
	return nil
}

// getBucketPolicyStatus says that no bucket is public: nobody gets in without
// credentials.
func (q *request) getBucketPolicyStatus() error {
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	if b.Policy == "" {
		return q.getBucketPolicy()
	}
	x := newDocument()
	x.root("PolicyStatus")
	x.flag("IsPublic", false)
	x.close("PolicyStatus")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) putBucketPolicy() error {
	raw, err := q.readDocument()
	if err != nil {
		return err
	}
	if len(raw) > iam.MaxPolicyBytes {
		return badRequest("PolicyTooLarge", "Policies must not be larger than 20 KB.")
	}
	if _, err := iam.ParsePolicy(string(raw), iam.ResourcePolicy); err != nil {
		return badRequest("MalformedPolicy", err.Error())
	}
	if err := q.e.updateBucket(q.bucket, func(r *bucketRecord) error { r.Policy = string(raw); return nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) deleteBucketPolicy() error {
	if err := q.e.updateBucket(q.bucket, func(r *bucketRecord) error { r.Policy = ""; return nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// getACL says what is so for every bucket and object: the owner may do all.
// Whatever else may be done is a matter of policies.
func (q *request) getACL() error {
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	if q.key != "" {
		if _, err := q.e.object(q.bucket, q.key); err != nil {
			return err
		}
	}
	x := newDocument()
	x.root("AccessControlPolicy")
	q.owner(x, "Owner")
	x.open("AccessControlList")
	x.open("Grant")
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	x.open(`Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"`)
	x.text("ID", b.Account)
	x.text("DisplayName", b.Account)
	x.close("Grantee")
	x.text("Permission", "FULL_CONTROL")
	x.close("Grant")
	x.close("AccessControlList")
	x.close("AccessControlPolicy")
	q.answer(http.StatusOK, x)
	return nil
}

// putACL accepts what is so already.
func (q *request) putACL() error {
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	if q.key != "" {
		if _, err := q.e.object(q.bucket, q.key); err != nil {
			return err
		}
	}
	if err := q.checkACL(); err != nil {
		return err
	}
	if q.r.Header.Get("X-Amz-Acl") == "" {
		return noACLs()
	}
	return q.empty(http.StatusOK)
}

// checkACL refuses access lists that would give something to others.
func (q *request) checkACL() error {
	switch q.r.Header.Get("X-Amz-Acl") {
	case "", "private", "bucket-owner-full-control":
	default:
		return noACLs()
	}
	for name := range q.r.Header {
		if strings.HasPrefix(name, "X-Amz-Grant-") {
			return noACLs()
		}
	}
	return nil
}

func noACLs() error {
	return badRequest("AccessControlListNotSupported", "The bucket does not allow ACLs")
}

type tag struct {
	Key   string `xml:"Key"`
	Value string `xml:"Value"`
}

type tagging struct {
	XMLName xml.Name `xml:"Tagging"`
	Tags    []tag    `xml:"TagSet>Tag"`
}

func tagMap(list []tag, most int) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > most {
		return nil, badRequest("BadRequest", "Object tags cannot be greater than "+strconv.Itoa(most))
	}
	all := make(map[string]string, len(list))
	for _, t := range list {
		if t.Key == "" || len([]rune(t.Key)) > 128 {
			return nil, badRequest("InvalidTag", "The TagKey you have provided is invalid")
		}
		if len([]rune(t.Value)) > 256 {
			return nil, badRequest("InvalidTag", "The TagValue you have provided is invalid")
		}
		if _, twice := all[t.Key]; twice {
			return nil, badRequest("InvalidTag", "Cannot provide multiple Tags with the same key")
		}
		all[t.Key] = t.Value
	}
	return all, nil
}

func (q *request) answerTags(tags map[string]string) error {
	x := newDocument()
	x.root("Tagging")
	x.open("TagSet")
	for _, k := range sortedKeys(tags) {
		x.open("Tag")
		x.text("Key", k)
		x.text("Value", tags[k])
		x.close("Tag")
	}
	x.close("TagSet")
	x.close("Tagging")
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) getBucketTagging() error {
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	if len(b.Tags) == 0 {
		return &Error{Code: "NoSuchTagSet", Status: http.StatusNotFound, Message: "The TagSet does not exist", fields: []field{{"BucketName", q.bucket}}}
	}
	return q.answerTags(b.Tags)
}

func (q *request) putBucketTagging() error {
	var in tagging
	if err := q.decode(&in); err != nil {
		return err
	}
	tags, err := tagMap(in.Tags, 50)
	if err != nil {
		return err
	}
	if err := q.e.updateBucket(q.bucket, func(r *bucketRecord) error { r.Tags = tags; return nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) deleteBucketTagging() error {
	if err := q.e.updateBucket(q.bucket, func(r *bucketRecord) error { r.Tags = nil; return nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// The subresources without an effect of their own here: what is stored under
// them says how things are in any case (nothing is public, the bucket's owner
// owns its objects), so it is kept for those who ask.
var keptDocuments = map[string]struct{ root, missing, text string }{
	"publicAccessBlock": {"PublicAccessBlockConfiguration", "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"},
	"ownershipControls": {"OwnershipControls", "OwnershipControlsNotFoundError", "The bucket ownership controls were not found"},
}

func (q *request) keptDocument() string {
	for name := range keptDocuments {
		if q.query.Has(name) {
			return name
		}
	}
	return ""
}

func (q *request) getDocument() error {
	b, err := q.e.bucket(q.bucket)
	if err != nil {
		return err
	}
	name := q.keptDocument()
	text, ok := b.Documents[name]
	if !ok {
		return &Error{Code: keptDocuments[name].missing, Status: http.StatusNotFound, Message: keptDocuments[name].text, fields: []field{{"BucketName", q.bucket}}}
	}
	x := &document{}
	x.b.WriteString(text)
	q.answer(http.StatusOK, x)
	return nil
}

func (q *request) putDocument() error {
	name := q.keptDocument()
	var in struct {
		XMLName xml.Name
		Inner   []byte `xml:",innerxml"`
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	if in.XMLName.Local != keptDocuments[name].root || len(in.Inner) > 8<<10 {
		return malformedXML()
	}
	text := xml.Header + "<" + in.XMLName.Local + ` xmlns="` + namespace + `">` + string(in.Inner) + "</" + in.XMLName.Local + ">"
	err := q.e.updateBucket(q.bucket, func(r *bucketRecord) error {
		if r.Documents == nil {
			r.Documents = map[string]string{}
		}
		r.Documents[name] = text
		return nil
	})
	if err != nil {
		return err
	}
	return q.empty(http.StatusOK)
}

func (q *request) deleteDocument() error {
	name := q.keptDocument()
	if err := q.e.updateBucket(q.bucket, func(r *bucketRecord) error { delete(r.Documents, name); return nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// unset says how the service answers for a configuration that nobody has made:
// by an error, or by a document.
var unset = map[string]struct{ code, text, document string }{
	"encryption":     {"ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found", ""},
	"cors":           {"NoSuchCORSConfiguration", "The CORS configuration does not exist", ""},
	"lifecycle":      {"NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist", ""},
	"website":        {"NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration", ""},
	"replication":    {"ReplicationConfigurationNotFoundError", "The replication configuration was not found", ""},
	"object-lock":    {"ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket", ""},
	"legal-hold":     {"NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration", ""},
	"retention":      {"NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration", ""},
	"logging":        {"", "", `<BucketLoggingStatus xmlns="` + namespace + `"></BucketLoggingStatus>`},
	"notification":   {"", "", `<NotificationConfiguration xmlns="` + namespace + `"></NotificationConfiguration>`},
	"accelerate":     {"", "", `<AccelerateConfiguration xmlns="` + namespace + `"></AccelerateConfiguration>`},
	"requestPayment": {"", "", `<RequestPaymentConfiguration xmlns="` + namespace + `"><Payer>BucketOwner</Payer></RequestPaymentConfiguration>`},
}

func (q *request) getUnset() error {
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	if q.key != "" {
		if _, err := q.e.object(q.bucket, q.key); err != nil {
			return err
		}
	}
	for name, u := range unset {
		if !q.query.Has(name) {
			continue
		}
		if u.code != "" {
			return &Error{Code: u.code, Status: http.StatusNotFound, Message: u.text, fields: []field{{"BucketName", q.bucket}}}
		}
		x := newDocument()
		x.b.WriteString(u.document)
		q.answer(http.StatusOK, x)
		return nil
	}
	return notImplemented("this subresource")
}

// deleteUnset removes a configuration that there cannot be.
func (q *request) deleteUnset() error {
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// refuseDocument refuses what would be accepted without effect: a client that
// asks for encryption or expiry had better know.
func (q *request) refuseDocument() error {
	if _, err := q.e.bucket(q.bucket); err != nil {
		return err
	}
	for name := range q.query {
		if len(name) < 32 {
			return notImplemented(strings.ToLower(clip(name)))
		}
	}
	return notImplemented("this subresource")
}
