package s3blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Writer is an object that is being written: it is there once Commit returned
// nil. Close without Commit gives it up.
type Writer = interface {
	io.Writer
	Commit(ctx context.Context) error
	Close() error
}

// Create begins an object. A short one is written by Commit; of a longer one
// each part goes up when it is full, within ctx. One goroutine writes.
func (b *Blobs) Create(ctx context.Context, name string) (Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &writer{b: b, ctx: ctx, name: name}, nil
}

type writer struct {
	b    *Blobs
	ctx  context.Context
	name string
	buf  []byte // the part that is being filled
	size int64

	upload *string               // of several parts
	parts  []types.CompletedPart // that are there
	done   bool
	closed bool
	err    error // of a Write: some octets are nowhere
}

var errClosed = errors.New("s3blobs: the object is complete or was given up")

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.done || w.closed {
		return 0, errClosed
	}
	if w.err != nil {
		return 0, w.err
	}
	written, most := len(p), w.b.partSize()
	for len(p) > 0 {
		// A full part goes up when more comes: so what just fills one is
		// written with one request.
		if len(w.buf) == most {
			if w.err = w.part(w.ctx); w.err != nil {
				return written - len(p), w.err
			}
		}
		n := min(len(p), most-len(w.buf))
		if need := len(w.buf) + n; need > cap(w.buf) {
			w.buf = slices.Grow(w.buf, min(max(need, 2*cap(w.buf)), most)-len(w.buf))
		}
		w.buf = append(w.buf, p[:n]...)
		w.size += int64(n)
		p = p[n:]
	}
	return written, nil
}

// part brings up what is in the buffer as the next part.
func (w *writer) part(ctx context.Context) error {
	ctx, cancel := w.b.bounded(ctx)
	defer cancel()
	if w.upload == nil {
		out, err := w.b.Client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &w.b.Bucket, Key: w.b.key(w.name), ContentType: contentType()}, plain)
		if err != nil {
			return fail("writing", w.name, err)
		}
		w.upload = out.UploadId
	}
	number := aws.Int32(int32(len(w.parts) + 1))
	out, err := w.b.Client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &w.b.Bucket, Key: w.b.key(w.name), UploadId: w.upload, PartNumber: number,
		Body: bytes.NewReader(w.buf), ContentLength: aws.Int64(int64(len(w.buf))),
	}, plain)
	if err != nil {
		return fail("writing", w.name, err)
	}
	w.parts = append(w.parts, types.CompletedPart{ETag: out.ETag, PartNumber: number})
	w.buf = w.buf[:0]
	return nil
}

func contentType() *string { return aws.String("message/rfc822") }

// Commit completes the object. After an error it may be called again.
func (w *writer) Commit(ctx context.Context) error {
	switch {
	case w.done:
		return nil
	case w.closed:
		return errClosed
	case w.err != nil:
		return w.err
	}
	if w.upload == nil {
		bounded, cancel := w.b.bounded(ctx)
		defer cancel()
		_, err := w.b.Client.PutObject(bounded, &s3.PutObjectInput{
			Bucket: &w.b.Bucket, Key: w.b.key(w.name), ContentType: contentType(),
			Body: bytes.NewReader(w.buf), ContentLength: aws.Int64(int64(len(w.buf))),
		}, plain)
		if err != nil {
			return fail("writing", w.name, err)
		}
	} else {
		if len(w.buf) > 0 {
			if err := w.part(ctx); err != nil {
				return err
			}
		}
		if err := w.complete(ctx); err != nil {
			return err
		}
	}
	w.done, w.buf = true, nil
	return nil
}

// complete makes the parts one object. An earlier try may have done so, and its
// answer been lost.
func (w *writer) complete(ctx context.Context) error {
	ctx, cancel := w.b.bounded(ctx)
	defer cancel()
	_, err := w.b.Client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &w.b.Bucket, Key: w.b.key(w.name), UploadId: w.upload, MultipartUpload: &types.CompletedMultipartUpload{Parts: w.parts},
	}, plain)
	if is(err, "NoSuchUpload") || status(err) == http.StatusNotFound {
		out, err2 := w.b.Client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &w.b.Bucket, Key: w.b.key(w.name)}, plain)
		if err2 == nil && aws.ToInt64(out.ContentLength) == w.size {
			return nil
		}
	}
	return fail("completing", w.name, err)
}

// Close gives up what was not committed: also when the caller has gone.
func (w *writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed, w.buf = true, nil
	if w.done || w.upload == nil {
		return nil
	}
	return w.b.abort(context.WithoutCancel(w.ctx), w.name, w.upload)
}
