package s3blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// Blobs keeps bodies as objects in a bucket. It is a pgstore.Blobs and a
// pgqueue.Blobs, and one value may serve both. It is safe for concurrent use.
type Blobs struct {
	// Client does the requests, with its credentials, endpoint and retries:
	// by default three tries each.
	Client *s3.Client
	// Bucket must exist.
	Bucket string
	// Prefix goes before the name of each object, as in "mail/".
	Prefix string
	// PartSize is how much of a body, in octets, is in memory and goes up at
	// once; 0 = 5 MiB, which is the least that S3 takes. S3 takes 10,000 parts.
	PartSize int
	// Timeout is how long one request may take, with its retries; 0 = one
	// minute, negative = no limit but the caller's.
	Timeout time.Duration
}

const (
	leastPart      = 5 << 20
	defaultTimeout = time.Minute
	// readTries is how often in a row a read is begun without getting on.
	readTries = 3
	// deleteMost is how many objects S3 deletes in one request.
	deleteMost = 1000
)

func (b *Blobs) partSize() int {
	if b.PartSize == 0 {
		return leastPart
	}
	return b.PartSize
}

// bounded gives ctx the Timeout.
func (b *Blobs) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	switch {
	case b.Timeout < 0:
		return context.WithCancel(ctx)
	case b.Timeout == 0:
		return context.WithTimeout(ctx, defaultTimeout)
	}
	return context.WithTimeout(ctx, b.Timeout)
}

// plain asks for checksums only where S3 requires them: many servers that speak
// its protocol know none.
func plain(o *s3.Options) {
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

func (b *Blobs) key(name string) *string { return aws.String(b.Prefix + name) }

// fail says what was done to what, and makes a missing object fs.ErrNotExist.
func fail(does, name string, err error) error {
	if err == nil {
		return nil
	}
	if is(err, "NoSuchKey", "NotFound") {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return fmt.Errorf("s3blobs: %s %s: %w", does, name, err)
}

// is reports whether the server said one of these.
func is(err error, codes ...string) bool {
	var e smithy.APIError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.ErrorCode() == c {
			return true
		}
	}
	return false
}

// ReadAt reads part of an object, with one request unless that is cut.
func (b *Blobs) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	n := 0
	for tries := 0; n < len(p); {
		m, err := b.read(ctx, name, p[n:], off+int64(n))
		n += m
		if n == len(p) {
			break
		}
		if tries++; m > 0 {
			tries = 1
		}
		if errors.Is(err, io.EOF) {
			return n, err
		}
		if !errors.Is(err, errCut) || tries == readTries || ctx.Err() != nil {
			return n, fail("reading", name, err)
		}
	}
	return n, nil
}

var (
	errCut   = errors.New("the answer was cut")
	errRange = errors.New("the server does not give the range that was asked for")
)

// read is one request. errCut says that another may get on.
func (b *Blobs) read(ctx context.Context, name string, p []byte, off int64) (int, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	want := fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1)
	out, err := b.Client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.Bucket, Key: b.key(name), Range: &want}, plain)
	if is(err, "InvalidRange") {
		return 0, io.EOF
	}
	if err != nil {
		return 0, err
	}
	defer out.Body.Close()
	size := int64(-1) // of the object
	if out.ContentRange == nil {
		// A server that knows no ranges gives all of it.
		if off != 0 {
			return 0, errRange
		}
		if out.ContentLength != nil {
			size = *out.ContentLength
		}
	} else {
		var first, last int64
		if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &first, &last, &size); err != nil || first != off || last >= off+int64(len(p)) {
			return 0, errRange
		}
	}
	n, err := io.ReadFull(out.Body, p)
	switch {
	case err == nil:
		return n, nil
	case size >= 0 && off+int64(n) >= size:
		return n, io.EOF
	}
	return n, fmt.Errorf("%w: %w", errCut, err)
}

// Delete removes objects, and gives up writes of theirs that are under way.
func (b *Blobs) Delete(ctx context.Context, names ...string) error {
	for len(names) > 0 {
		n := min(len(names), deleteMost)
		if err := b.delete(ctx, names[:n]); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

func (b *Blobs) delete(ctx context.Context, names []string) error {
	if err := b.abortAll(ctx, names); err != nil {
		return err
	}
	left := names
	if len(names) > 1 {
		var err error
		if left, err = b.deleteTogether(ctx, names); err != nil {
			return err
		}
	}
	for _, name := range left {
		if err := b.deleteOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (b *Blobs) deleteOne(ctx context.Context, name string) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	_, err := b.Client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.Bucket, Key: b.key(name)}, plain)
	if is(err, "NoSuchKey", "NotFound") {
		return nil
	}
	return fail("deleting", name, err)
}

// deleteTogether returns what is to be deleted alone: some servers do not know
// the request, or want its checksum to be another than S3 does.
func (b *Blobs) deleteTogether(ctx context.Context, names []string) (left []string, err error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	list := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		list[i].Key = b.key(names[i])
	}
	out, err := b.Client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &b.Bucket, Delete: &types.Delete{Objects: list, Quiet: aws.Bool(true)}}, plain)
	var answer smithy.APIError
	switch {
	case errors.As(err, &answer) && answer.ErrorFault() != smithy.FaultServer:
		return names, nil
	case err != nil:
		return nil, fail("deleting", names[0]+" and others", err)
	}
	for _, e := range out.Errors {
		if e.Key != nil && aws.ToString(e.Code) != "NoSuchKey" && len(*e.Key) >= len(b.Prefix) {
			left = append(left, (*e.Key)[len(b.Prefix):])
		}
	}
	return left, nil
}

// abortAll gives up uploads of several names. There are few at any time.
func (b *Blobs) abortAll(ctx context.Context, names []string) error {
	prefix := names[0]
	for _, name := range names[1:] {
		n := 0
		for n < min(len(prefix), len(name)) && prefix[n] == name[n] {
			n++
		}
		prefix = prefix[:n]
	}
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
	}
	for u, err := range b.uploads(ctx, prefix) {
		if err != nil {
			return err
		}
		name := (*u.Key)[len(b.Prefix):]
		if !gone[name] {
			continue
		}
		if err := b.abort(ctx, name, u.UploadId); err != nil {
			return err
		}
	}
	return nil
}

func (b *Blobs) abort(ctx context.Context, name string, id *string) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	_, err := b.Client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.Bucket, Key: b.key(name), UploadId: id}, plain)
	if is(err, "NoSuchUpload", "NoSuchKey", "NotFound") {
		return nil
	}
	return fail("giving up", name, err)
}

// uploads yields what is being written. A server without such a list has none.
func (b *Blobs) uploads(ctx context.Context, prefix string) iter.Seq2[types.MultipartUpload, error] {
	return func(yield func(types.MultipartUpload, error) bool) {
		in := &s3.ListMultipartUploadsInput{Bucket: &b.Bucket, Prefix: b.key(prefix)}
		for {
			out, err := b.uploadsPage(ctx, in)
			if is(err, "NotImplemented", "MethodNotAllowed") || status(err) == http.StatusNotImplemented {
				return
			}
			if err != nil {
				yield(types.MultipartUpload{}, fail("listing uploads", prefix, err))
				return
			}
			for _, u := range out.Uploads {
				if u.Key == nil || len(*u.Key) < len(b.Prefix) || u.UploadId == nil {
					continue
				}
				if !yield(u, nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextKeyMarker) == "" {
				return
			}
			in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
		}
	}
}

func (b *Blobs) uploadsPage(ctx context.Context, in *s3.ListMultipartUploadsInput) (*s3.ListMultipartUploadsOutput, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	return b.Client.ListMultipartUploads(ctx, in, plain)
}

// status is that of an answer, 0 = there was none.
func status(err error) int {
	var r interface{ HTTPStatusCode() int }
	if errors.As(err, &r) {
		return r.HTTPStatusCode()
	}
	return 0
}

// List yields the names of objects that were written before a time, and then
// those of unfinished writes that were begun before it.
func (b *Blobs) List(ctx context.Context, prefix string, before time.Time) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &b.Bucket, Prefix: b.key(prefix)}
		for {
			out, err := b.listPage(ctx, in)
			if err != nil {
				yield("", fail("listing", prefix, err))
				return
			}
			for _, o := range out.Contents {
				if o.Key == nil || len(*o.Key) < len(b.Prefix) || o.LastModified == nil || !o.LastModified.Before(before) {
					continue
				}
				if !yield((*o.Key)[len(b.Prefix):], nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextContinuationToken) == "" {
				break
			}
			in.ContinuationToken = out.NextContinuationToken
		}
		for u, err := range b.uploads(ctx, prefix) {
			if err != nil {
				yield("", err)
				return
			}
			if u.Initiated != nil && u.Initiated.Before(before) && !yield((*u.Key)[len(b.Prefix):], nil) {
				return
			}
		}
	}
}

func (b *Blobs) listPage(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	return b.Client.ListObjectsV2(ctx, in, plain)
}
