package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Store keeps objects. All methods may be called concurrently. Refusals are of
// type *Error; errors of a context that ended are that context's.
type Store interface {
	// Put stores an object, replacing one of the same name. size is the length
	// of body in bytes, or -1 if it is not known; a body of another length is
	// an IncompleteBody. The object is visible only once all of it is stored,
	// and stored durably at return. With an error nothing is known: the old
	// object, or none, or the new one may be there, but never a part of it.
	// body is read once, from begin to end, and not after Put has returned.
	Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o PutOptions) (Info, error)
	// Get reads an object, or a range of it. Info.Size is that of the whole
	// object, whatever the range. The caller closes the reader; ctx must live as
	// long as it. What is read is what was stored: damage is a read error.
	Get(ctx context.Context, bucket, key string, r Range) (io.ReadCloser, Info, error)
	// Head describes an object.
	Head(ctx context.Context, bucket, key string) (Info, error)
	// Delete removes an object. One that does not exist is no error.
	Delete(ctx context.Context, bucket, key string) error
	// List returns up to max objects whose keys begin with prefix and come after
	// the key after, in the order of their keys' bytes, and whether more follow.
	// Infos of a list hold Key, Size, ETag and Modified only. max is 1 or more.
	List(ctx context.Context, bucket, prefix, after string, max int) (objects []Info, more bool, err error)
	// HeadBucket says whether a bucket exists and may be used: nil, NoSuchBucket
	// or AccessDenied.
	HeadBucket(ctx context.Context, bucket string) error
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64  // bytes
	ETag     string // without quotes; of parts put together, "…-N"
	Modified time.Time
	Attributes
}

// Attributes are what comes and goes with an object's bytes.
type Attributes struct {
	ContentType        string
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	CacheControl       string
	Expires            string
	// Metadata is the user's own: names in lower case, without "x-amz-meta-".
	Metadata map[string]string
}

// PutOptions are how an object is stored. The zero value is usable.
type PutOptions struct {
	Attributes
	// KMSKey asks for encryption under a key of the key service, by its id or
	// ARN. An embedded store records it and encrypts nothing by itself.
	KMSKey string
	// BucketOwner is the account that must own the bucket, else AccessDenied;
	// empty is any.
	BucketOwner string
	// StorageClass is one of the protocol's; empty is STANDARD. An embedded
	// store records it.
	StorageClass string
	// IfAbsent stores the object only if there is none of that name, and
	// otherwise fails with PreconditionFailed.
	IfAbsent bool
}

// Range selects bytes of an object. The zero value is all of it.
type Range struct {
	// Offset of the first byte. Negative: that many bytes before the end.
	Offset int64
	// Length in bytes, cut where the object ends; 0 reads to the end.
	Length int64
}

// The codes of Error that callers ask about.
const (
	CodeNoSuchBucket       = "NoSuchBucket"
	CodeNoSuchKey          = "NoSuchKey"
	CodeAccessDenied       = "AccessDenied"
	CodeSlowDown           = "SlowDown"
	CodeServiceUnavailable = "ServiceUnavailable"
	CodeInternal           = "InternalError"
	CodeInvalidRange       = "InvalidRange"
	CodePrecondition       = "PreconditionFailed"
	CodeIncompleteBody     = "IncompleteBody"
)

// Error is a refusal, in the codes of the S3 protocol.
type Error struct {
	Code    string // "NoSuchBucket", "NoSuchKey", "AccessDenied", "SlowDown" …
	Status  int    // of HTTP
	Message string
	// Err is the cause of a failure that is nobody's request; may be nil.
	Err error

	fields []field // further elements of the error document
}

type field struct{ name, value string }

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Err)
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Retryable says that the same call may succeed later.
func (e *Error) Retryable() bool {
	switch e.Code {
	case CodeSlowDown, CodeServiceUnavailable, CodeInternal, "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted":
		return true
	}
	return e.Status >= 500 && e.Status != http.StatusNotImplemented || e.Status == http.StatusTooManyRequests
}

// Code returns the code of a refusal: that of the *Error in err's chain,
// CodeInternal for any other error, and "" for nil.
func Code(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
