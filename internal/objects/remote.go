package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	// firstPart is the size of the first parts; what fits into one is stored in
	// one request. It doubles every partStep parts, so that a body of unknown
	// length has room to grow and memory goes to those who need it.
	firstPart = 8 << 20
	partStep  = 1000
	maxPart   = 128 << 20
	// parallelParts is how many parts of an object are on their way at once.
	parallelParts = 3
	// abortTime is how long ending a failed upload may take.
	abortTime = 30 * time.Second
)

// RemoteOptions are where another store is and how to speak to it.
type RemoteOptions struct {
	// Endpoint is its URL; empty is the cloud's of the credentials.
	Endpoint string
	// Region of the requests; empty is that of the environment, else us-east-1.
	Region string
	// PathStyle names buckets in the path, not in the host.
	PathStyle bool
	// AccessKey, SecretKey and SessionToken; empty are the environment's, by the
	// usual chain.
	AccessKey, SecretKey, SessionToken string
	// Client makes the requests; the SDK's own if nil.
	Client *http.Client
	// Memory bounds the parts of all objects being stored, in bytes; default
	// 256 MiB, and never less than the largest part.
	Memory int64
	// Attempts of a request, the first included; default 3.
	Attempts int
}

// Remote is a store behind an endpoint that speaks the S3 protocol. A body is
// held in memory a part at a time, so that a part can be sent again; large ones
// are uploaded in parts, and become an object with the last request.
type Remote struct {
	client *s3.Client
	memory *semaphore.Weighted
	total  int64 // of memory
	parts  sync.Pool
}

// NewRemote prepares a client; it connects with the first request.
func NewRemote(ctx context.Context, o RemoteOptions) (*Remote, error) {
	var load []func(*config.LoadOptions) error
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.AccessKey != "" {
		load = append(load, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, o.SessionToken)))
	}
	if o.Attempts > 0 {
		load = append(load, config.WithRetryMaxAttempts(o.Attempts))
	}
	c, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("object store: %w", err)
	}
	if c.Region == "" {
		c.Region = defaultRegion
	}
	if o.Memory <= 0 {
		o.Memory = 256 << 20
	}
	o.Memory = max(o.Memory, maxPart)
	r := &Remote{memory: semaphore.NewWeighted(o.Memory), total: o.Memory}
	r.parts.New = func() any { b := make([]byte, firstPart); return &b }
	r.client = s3.NewFromConfig(c, func(s *s3.Options) {
		s.UsePathStyle = o.PathStyle
		if o.Client != nil {
			s.HTTPClient = o.Client
		}
		if o.Endpoint != "" {
			s.BaseEndpoint = aws.String(o.Endpoint)
		}
		// Stores other than the cloud's own do not know its newer checksums.
		s.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		s.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return r, nil
}

// Close lets go of connections.
func (r *Remote) Close() error { return nil }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// partSize is the size of part number n, from 1.
func partSize(n int, size int64) int64 {
	// A length that is known is cut into as many parts as there may be.
	if need := (size + MaxParts - 1) / MaxParts; need > firstPart {
		return min((need+firstPart-1)/firstPart*firstPart, MaxPartBytes)
	}
	return min(int64(firstPart)<<min((n-1)/partStep, 16), maxPart)
}

// take reads the next part into memory of the budget.
func (r *Remote) take(ctx context.Context, body io.Reader, n int64) (p *part, end bool, err error) {
	// Parts of the largest objects are larger than the budget; each has it alone.
	weight := min(n, r.total)
	if err := r.memory.Acquire(ctx, weight); err != nil {
		return nil, false, err
	}
	p = &part{r: r, weight: weight}
	if n == firstPart {
		p.pooled = r.parts.Get().(*[]byte)
		p.data = *p.pooled
	} else {
		p.data = make([]byte, n)
	}
	m, err := fill(body, p.data)
	if err != nil && err != io.EOF {
		p.release()
		return nil, false, err
	}
	p.data = p.data[:m]
	return p, err == io.EOF, nil
}

type part struct {
	r      *Remote
	data   []byte
	pooled *[]byte
	weight int64
}

func (p *part) release() {
	if p.pooled != nil {
		p.r.parts.Put(p.pooled)
		p.pooled = nil
	}
	p.data = nil
	p.r.memory.Release(p.weight)
}

// Put implements Store.
func (r *Remote) Put(ctx context.Context, bucket, key string, body io.Reader, size int64, o PutOptions) (Info, error) {
	if size > MaxObjectBytes {
		return Info{}, tooLarge(size, MaxObjectBytes)
	}
	counted := &countedBody{r: body, size: size}
	first, end, err := r.take(ctx, counted, partSize(1, size))
	if err != nil {
		return Info{}, err
	}
	if !end && int64(len(first.data)) < partSize(1, size) {
		end = true
	}
	info := Info{Key: key, Attributes: o.Attributes}
	if end {
		defer first.release()
		in := &s3.PutObjectInput{
			Bucket: &bucket, Key: &key, Body: bytes.NewReader(first.data), ContentLength: aws.Int64(int64(len(first.data))),
			ContentType: optional(o.ContentType), ContentEncoding: optional(o.ContentEncoding), ContentDisposition: optional(o.ContentDisposition),
			ContentLanguage: optional(o.ContentLanguage), CacheControl: optional(o.CacheControl), Metadata: o.Metadata,
			ExpectedBucketOwner: optional(o.BucketOwner), StorageClass: types.StorageClass(o.StorageClass),
		}
		if t, err := http.ParseTime(o.Expires); err == nil {
			in.Expires = &t
		}
		if o.KMSKey != "" {
			in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryptionAwsKms, &o.KMSKey
		}
		if o.IfAbsent {
			in.IfNoneMatch = aws.String("*")
		}
		out, err := r.client.PutObject(ctx, in)
		if err != nil {
			return Info{}, remoteError(ctx, err, false)
		}
		info.Size, info.ETag, info.Modified = int64(len(first.data)), strings.Trim(aws.ToString(out.ETag), `"`), time.Now().UTC()
		return info, nil
	}
	return r.upload(ctx, bucket, key, counted, first, o, info)
}

// countedBody holds a body to its length.
type countedBody struct {
	r    io.Reader
	size int64 // -1 if unknown
	read int64
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.read += int64(n)
	if c.size >= 0 && (c.read > c.size || err == io.EOF && c.read < c.size) {
		return n, incompleteBody()
	}
	if c.read > MaxObjectBytes {
		return n, tooLarge(c.read, MaxObjectBytes)
	}
	return n, err
}

// upload stores a body part by part.
func (r *Remote) upload(ctx context.Context, bucket, key string, body *countedBody, first *part, o PutOptions, info Info) (_ Info, err error) {
	in := &s3.CreateMultipartUploadInput{
		Bucket: &bucket, Key: &key,
		ContentType: optional(o.ContentType), ContentEncoding: optional(o.ContentEncoding), ContentDisposition: optional(o.ContentDisposition),
		ContentLanguage: optional(o.ContentLanguage), CacheControl: optional(o.CacheControl), Metadata: o.Metadata,
		ExpectedBucketOwner: optional(o.BucketOwner), StorageClass: types.StorageClass(o.StorageClass),
	}
	if t, err := http.ParseTime(o.Expires); err == nil {
		in.Expires = &t
	}
	if o.KMSKey != "" {
		in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryptionAwsKms, &o.KMSKey
	}
	begun, err := r.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		first.release()
		return Info{}, remoteError(ctx, err, false)
	}
	defer func() {
		if err == nil {
			return
		}
		// Parts that nobody asks for cost their owner money.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		_, abortErr := r.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: begun.UploadId})
		if e, ok := errors.AsType[*Error](err); ok && abortErr != nil {
			e.Err = errors.Join(e.Err, fmt.Errorf("abort upload: %w", abortErr))
		}
	}()
	var mu sync.Mutex
	var done []types.CompletedPart
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(parallelParts)
	send := func(number int, p *part) {
		work.Go(func() error {
			defer p.release()
			out, err := r.client.UploadPart(workCtx, &s3.UploadPartInput{
				Bucket: &bucket, Key: &key, UploadId: begun.UploadId, PartNumber: aws.Int32(int32(number)),
				Body: bytes.NewReader(p.data), ContentLength: aws.Int64(int64(len(p.data))),
			})
			if err != nil {
				return remoteError(ctx, err, false)
			}
			mu.Lock()
			defer mu.Unlock()
			done = append(done, types.CompletedPart{PartNumber: aws.Int32(int32(number)), ETag: out.ETag})
			return nil
		})
	}
	send(1, first)
	var readErr error
	for number, end := 2, false; !end && readErr == nil; number++ {
		if number > MaxParts {
			readErr = tooLarge(body.read, MaxObjectBytes)
			break
		}
		var p *part
		if p, end, readErr = r.take(workCtx, body, partSize(number, body.size)); readErr != nil {
			break
		}
		if len(p.data) == 0 {
			p.release()
			break
		}
		send(number, p)
	}
	// A part that failed is why reading stopped, not the other way round.
	if err := work.Wait(); err != nil && (readErr == nil || errors.Is(readErr, context.Canceled) && ctx.Err() == nil) {
		return Info{}, err
	}
	if readErr != nil {
		return Info{}, readErr
	}
	sort.Slice(done, func(i, j int) bool { return *done[i].PartNumber < *done[j].PartNumber })
	complete := &s3.CompleteMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}}
	if o.IfAbsent {
		complete.IfNoneMatch = aws.String("*")
	}
	out, err := r.client.CompleteMultipartUpload(ctx, complete)
	if err != nil {
		return Info{}, remoteError(ctx, err, false)
	}
	info.Size, info.ETag, info.Modified = body.read, strings.Trim(aws.ToString(out.ETag), `"`), time.Now().UTC()
	return info, nil
}

// Get implements Store.
func (r *Remote) Get(ctx context.Context, bucket, key string, want Range) (io.ReadCloser, Info, error) {
	in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
	switch {
	case want.Length < 0:
		return nil, Info{}, invalidRange(0)
	case want.Offset < 0 && want.Length > 0:
		// The protocol has no words for a piece counted from the end.
		head, err := r.Head(ctx, bucket, key)
		if err != nil {
			return nil, Info{}, err
		}
		offset, length, ok := want.within(head.Size)
		if !ok {
			return nil, Info{}, invalidRange(head.Size)
		}
		in.Range, in.IfMatch = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)), aws.String(`"`+head.ETag+`"`)
	case want.Offset < 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d", want.Offset))
	case want.Length > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", want.Offset, want.Offset+want.Length-1))
	case want.Offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", want.Offset))
	}
	out, err := r.client.GetObject(ctx, in)
	if err != nil {
		return nil, Info{}, remoteError(ctx, err, false)
	}
	info := Info{Key: key, Size: aws.ToInt64(out.ContentLength), ETag: strings.Trim(aws.ToString(out.ETag), `"`), Modified: aws.ToTime(out.LastModified).UTC(), Attributes: Attributes{
		ContentType: aws.ToString(out.ContentType), ContentEncoding: aws.ToString(out.ContentEncoding), ContentDisposition: aws.ToString(out.ContentDisposition),
		ContentLanguage: aws.ToString(out.ContentLanguage), CacheControl: aws.ToString(out.CacheControl), Expires: aws.ToString(out.ExpiresString), Metadata: lowerKeys(out.Metadata),
	}}
	if _, total, ok := strings.Cut(aws.ToString(out.ContentRange), "/"); ok {
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			info.Size = n
		}
	}
	return out.Body, info, nil
}

func lowerKeys(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	all := make(map[string]string, len(m))
	for k, v := range m {
		all[strings.ToLower(k)] = v
	}
	return all
}

// Head implements Store.
func (r *Remote) Head(ctx context.Context, bucket, key string) (Info, error) {
	out, err := r.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		err = remoteError(ctx, err, false)
		// A reply without a body does not say what it is that is missing.
		if Code(err) == CodeNoSuchKey {
			if bucketErr := r.HeadBucket(ctx, bucket); Code(bucketErr) == CodeNoSuchBucket {
				return Info{}, bucketErr
			}
		}
		return Info{}, err
	}
	return Info{Key: key, Size: aws.ToInt64(out.ContentLength), ETag: strings.Trim(aws.ToString(out.ETag), `"`), Modified: aws.ToTime(out.LastModified).UTC(), Attributes: Attributes{
		ContentType: aws.ToString(out.ContentType), ContentEncoding: aws.ToString(out.ContentEncoding), ContentDisposition: aws.ToString(out.ContentDisposition),
		ContentLanguage: aws.ToString(out.ContentLanguage), CacheControl: aws.ToString(out.CacheControl), Expires: aws.ToString(out.ExpiresString), Metadata: lowerKeys(out.Metadata),
	}}, nil
}

// Delete implements Store.
func (r *Remote) Delete(ctx context.Context, bucket, key string) error {
	_, err := r.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	if err = remoteError(ctx, err, false); Code(err) == CodeNoSuchKey {
		return nil
	}
	return err
}

// List implements Store.
func (r *Remote) List(ctx context.Context, bucket, prefix, after string, most int) (list []Info, more bool, err error) {
	in := &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: optional(prefix), StartAfter: optional(after)}
	for len(list) < most {
		in.MaxKeys = aws.Int32(int32(min(most-len(list), maxListed)))
		out, err := r.client.ListObjectsV2(ctx, in)
		if err != nil {
			return nil, false, remoteError(ctx, err, true)
		}
		for _, o := range out.Contents {
			list = append(list, Info{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), ETag: strings.Trim(aws.ToString(o.ETag), `"`), Modified: aws.ToTime(o.LastModified).UTC()})
		}
		if more = aws.ToBool(out.IsTruncated); !more {
			break
		}
		in.ContinuationToken, in.StartAfter = out.NextContinuationToken, nil
	}
	return list, more, nil
}

// HeadBucket implements Store.
func (r *Remote) HeadBucket(ctx context.Context, bucket string) error {
	_, err := r.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	return remoteError(ctx, err, true)
}

// remoteError is an error of the SDK in the words of a Store. ofBucket says that
// what a reply without a body misses is the bucket.
func remoteError(ctx context.Context, err error, ofBucket bool) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &Error{Err: err}
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		e.Status = response.HTTPStatusCode()
	}
	if refusal, ok := errors.AsType[smithy.APIError](err); ok {
		e.Code, e.Message = refusal.ErrorCode(), refusal.ErrorMessage()
	}
	switch {
	case e.Code == "NotFound" || e.Code == "" && e.Status == http.StatusNotFound:
		e.Code = CodeNoSuchKey
		if ofBucket {
			e.Code = CodeNoSuchBucket
		}
	case e.Code == "Forbidden" || e.Code == "" && e.Status == http.StatusForbidden:
		e.Code = CodeAccessDenied
	case e.Code == "InternalServerError" || e.Code == "BadGateway" || e.Code == "GatewayTimeout":
		e.Code = CodeInternal // what the SDK makes of a reply without a body
	case e.Code == "" || e.Code == "UnknownError":
		e.Code = CodeInternal
		switch {
		case e.Status == 0:
			// It was not reached, or broke off.
			e.Code, e.Status = CodeServiceUnavailable, http.StatusServiceUnavailable
		case e.Status == http.StatusServiceUnavailable:
			e.Code = CodeSlowDown
		}
	}
	if e.Status == 0 {
		e.Status = http.StatusInternalServerError
	}
	if e.Message == "" {
		e.Message = err.Error()
	}
	return e
}
