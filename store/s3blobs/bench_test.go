package s3blobs_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/postrider/postrider/internal/objects"
)

// Each beside the bare call of the SDK that does the same.

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		body := octets(size)
		b.Run(fmt.Sprintf("blobs/%dK", size>>10), func(b *testing.B) {
			blobs, _ := bucket(b, transport(b))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				put(b, blobs, fmt.Sprint(i), body)
			}
		})
		b.Run(fmt.Sprintf("sdk/%dK", size>>10), func(b *testing.B) {
			blobs, _ := bucket(b, transport(b))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, err := blobs.Client.PutObject(b.Context(), &s3.PutObjectInput{Bucket: &blobs.Bucket, Key: aws.String(fmt.Sprint(i)), Body: bytes.NewReader(body)})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		body := octets(size)
		var sums objects.Sums
		sums.Write(body)
		buf := make([]byte, size)
		b.Run(fmt.Sprintf("blobs/%dK", size>>10), func(b *testing.B) {
			blobs, _ := bucket(b, transport(b))
			put(b, blobs, "x", body)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r := objects.Reader{Blobs: blobs, Name: "x", Size: int64(size), Sums: sums.Sum()}
				if _, err := r.ReadAt(b.Context(), buf, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("sdk/%dK", size>>10), func(b *testing.B) {
			blobs, _ := bucket(b, transport(b))
			put(b, blobs, "x", body)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				out, err := blobs.Client.GetObject(b.Context(), &s3.GetObjectInput{Bucket: &blobs.Bucket, Key: aws.String("mail/x")})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(out.Body, buf); err != nil {
					b.Fatal(err)
				}
				out.Body.Close()
			}
		})
	}
}
