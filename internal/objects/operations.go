package objects

import "net/http"

// operation finds out what a request asks for: by its method, by whether it
// names a bucket and a key, and by the subresource in its query. Nil if there is
// no such operation.
func (q *request) operation() *operation {
	level := bucketOperations
	switch {
	case q.bucket == "":
		if q.r.Method == http.MethodGet && q.key == "" {
			return opListBuckets
		}
		return nil
	case q.key != "":
		level = objectOperations
	}
	for _, c := range level[q.r.Method] {
		if c.query == "" || q.query.Has(c.query) && (c.query != "list-type" || q.query.Get(c.query) == "2") {
			if c.header == "" || q.r.Header.Get(c.header) != "" {
				return c.operation
			}
		}
	}
	return nil
}

// choice is an operation and what a request must have for it.
type choice struct {
	query, header string
	*operation
}

var opListBuckets = op("ListBuckets", "ListAllMyBuckets", (*request).listBuckets)

var bucketOperations = map[string][]choice{
	http.MethodGet: {
		{"location", "", op("GetBucketLocation", "GetBucketLocation", (*request).getBucketLocation)},
		{"versioning", "", op("GetBucketVersioning", "GetBucketVersioning", (*request).getBucketVersioning)},
		{"policyStatus", "", op("GetBucketPolicyStatus", "GetBucketPolicyStatus", (*request).getBucketPolicyStatus)},
		{"policy", "", op("GetBucketPolicy", "GetBucketPolicy", (*request).getBucketPolicy)},
		{"acl", "", op("GetBucketAcl", "GetBucketAcl", (*request).getACL)},
		{"tagging", "", op("GetBucketTagging", "GetBucketTagging", (*request).getBucketTagging)},
		{"publicAccessBlock", "", op("GetPublicAccessBlock", "GetBucketPublicAccessBlock", (*request).getDocument)},
		{"ownershipControls", "", op("GetBucketOwnershipControls", "GetBucketOwnershipControls", (*request).getDocument)},
		{"encryption", "", op("GetBucketEncryption", "GetEncryptionConfiguration", (*request).getUnset)},
		{"cors", "", op("GetBucketCors", "GetBucketCORS", (*request).getUnset)},
		{"lifecycle", "", op("GetBucketLifecycleConfiguration", "GetLifecycleConfiguration", (*request).getUnset)},
		{"website", "", op("GetBucketWebsite", "GetBucketWebsite", (*request).getUnset)},
		{"replication", "", op("GetBucketReplication", "GetReplicationConfiguration", (*request).getUnset)},
		{"object-lock", "", op("GetObjectLockConfiguration", "GetBucketObjectLockConfiguration", (*request).getUnset)},
		{"logging", "", op("GetBucketLogging", "GetBucketLogging", (*request).getUnset)},
		{"notification", "", op("GetBucketNotificationConfiguration", "GetBucketNotification", (*request).getUnset)},
		{"accelerate", "", op("GetBucketAccelerateConfiguration", "GetAccelerateConfiguration", (*request).getUnset)},
		{"requestPayment", "", op("GetBucketRequestPayment", "GetBucketRequestPayment", (*request).getUnset)},
		{"uploads", "", op("ListMultipartUploads", "ListBucketMultipartUploads", (*request).listMultipartUploads)},
		{"versions", "", op("ListObjectVersions", "ListBucketVersions", (*request).listObjectVersions)},
		{"list-type", "", op("ListObjectsV2", "ListBucket", (*request).listObjectsV2)},
		{"", "", op("ListObjects", "ListBucket", (*request).listObjects)},
	},
	http.MethodHead: {{"", "", op("HeadBucket", "ListBucket", (*request).headBucket)}},
	http.MethodPut: {
		{"policy", "", op("PutBucketPolicy", "PutBucketPolicy", (*request).putBucketPolicy)},
		{"tagging", "", op("PutBucketTagging", "PutBucketTagging", (*request).putBucketTagging)},
		{"acl", "", op("PutBucketAcl", "PutBucketAcl", (*request).putACL)},
		{"versioning", "", op("PutBucketVersioning", "PutBucketVersioning", (*request).putBucketVersioning)},
		{"publicAccessBlock", "", op("PutPublicAccessBlock", "PutBucketPublicAccessBlock", (*request).putDocument)},
		{"ownershipControls", "", op("PutBucketOwnershipControls", "PutBucketOwnershipControls", (*request).putDocument)},
		{"encryption", "", op("PutBucketEncryption", "PutEncryptionConfiguration", (*request).refuseDocument)},
		{"cors", "", op("PutBucketCors", "PutBucketCORS", (*request).refuseDocument)},
		{"lifecycle", "", op("PutBucketLifecycleConfiguration", "PutLifecycleConfiguration", (*request).refuseDocument)},
		{"website", "", op("PutBucketWebsite", "PutBucketWebsite", (*request).refuseDocument)},
		{"replication", "", op("PutBucketReplication", "PutReplicationConfiguration", (*request).refuseDocument)},
		{"object-lock", "", op("PutObjectLockConfiguration", "PutBucketObjectLockConfiguration", (*request).refuseDocument)},
		{"logging", "", op("PutBucketLogging", "PutBucketLogging", (*request).refuseDocument)},
		{"notification", "", op("PutBucketNotificationConfiguration", "PutBucketNotification", (*request).refuseDocument)},
		{"accelerate", "", op("PutBucketAccelerateConfiguration", "PutAccelerateConfiguration", (*request).refuseDocument)},
		{"requestPayment", "", op("PutBucketRequestPayment", "PutBucketRequestPayment", (*request).refuseDocument)},
		{"", "", op("CreateBucket", "CreateBucket", (*request).createBucket)},
	},
	http.MethodDelete: {
		{"policy", "", op("DeleteBucketPolicy", "DeleteBucketPolicy", (*request).deleteBucketPolicy)},
		{"tagging", "", op("DeleteBucketTagging", "PutBucketTagging", (*request).deleteBucketTagging)},
		{"publicAccessBlock", "", op("DeletePublicAccessBlock", "PutBucketPublicAccessBlock", (*request).deleteDocument)},
		{"ownershipControls", "", op("DeleteBucketOwnershipControls", "PutBucketOwnershipControls", (*request).deleteDocument)},
		{"encryption", "", op("DeleteBucketEncryption", "PutEncryptionConfiguration", (*request).deleteUnset)},
		{"cors", "", op("DeleteBucketCors", "PutBucketCORS", (*request).deleteUnset)},
		{"lifecycle", "", op("DeleteBucketLifecycle", "PutLifecycleConfiguration", (*request).deleteUnset)},
		{"website", "", op("DeleteBucketWebsite", "DeleteBucketWebsite", (*request).deleteUnset)},
		{"replication", "", op("DeleteBucketReplication", "PutReplicationConfiguration", (*request).deleteUnset)},
		{"", "", op("DeleteBucket", "DeleteBucket", (*request).deleteBucket)},
	},
	http.MethodPost: {{"delete", "", op("DeleteObjects", "DeleteObject", (*request).deleteObjects)}},
}

var objectOperations = map[string][]choice{
	http.MethodGet: {
		{"uploadId", "", op("ListParts", "ListMultipartUploadParts", (*request).listParts)},
		{"acl", "", op("GetObjectAcl", "GetObjectAcl", (*request).getACL)},
		{"tagging", "", op("GetObjectTagging", "GetObjectTagging", (*request).getObjectTagging)},
		{"attributes", "", op("GetObjectAttributes", "GetObjectAttributes", (*request).getObjectAttributes)},
		{"legal-hold", "", op("GetObjectLegalHold", "GetObjectLegalHold", (*request).getUnset)},
		{"retention", "", op("GetObjectRetention", "GetObjectRetention", (*request).getUnset)},
		{"torrent", "", op("GetObjectTorrent", "GetObjectTorrent", (*request).refuseDocument)},
		{"", "", op("GetObject", "GetObject", (*request).getObject)},
	},
	http.MethodHead: {{"", "", op("HeadObject", "GetObject", (*request).getObject)}},
	http.MethodPut: {
		{"acl", "", op("PutObjectAcl", "PutObjectAcl", (*request).putACL)},
		{"tagging", "", op("PutObjectTagging", "PutObjectTagging", (*request).putObjectTagging)},
		{"legal-hold", "", op("PutObjectLegalHold", "PutObjectLegalHold", (*request).refuseDocument)},
		{"retention", "", op("PutObjectRetention", "PutObjectRetention", (*request).refuseDocument)},
		{"uploadId", "X-Amz-Copy-Source", op("UploadPartCopy", "PutObject", (*request).uploadPartCopy)},
		{"uploadId", "", op("UploadPart", "PutObject", (*request).uploadPart)},
		{"", "X-Amz-Copy-Source", op("CopyObject", "PutObject", (*request).copyObject)},
		{"", "", op("PutObject", "PutObject", (*request).putObject)},
	},
	http.MethodDelete: {
		{"uploadId", "", op("AbortMultipartUpload", "AbortMultipartUpload", (*request).abortMultipartUpload)},
		{"tagging", "", op("DeleteObjectTagging", "DeleteObjectTagging", (*request).deleteObjectTagging)},
		{"", "", op("DeleteObject", "DeleteObject", (*request).deleteObject)},
	},
	http.MethodPost: {
		{"uploads", "", op("CreateMultipartUpload", "PutObject", (*request).createMultipartUpload)},
		{"uploadId", "", op("CompleteMultipartUpload", "PutObject", (*request).completeMultipartUpload)},
		{"select", "", op("SelectObjectContent", "GetObject", (*request).refuseDocument)},
		{"restore", "", op("RestoreObject", "RestoreObject", (*request).refuseDocument)},
	},
}
