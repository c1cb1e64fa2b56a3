package s3blobs_test

import (
	"context"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/s3blobs"
)

// Small bodies are in PostgreSQL, large ones in a bucket, which the store and
// the queue may share.
func Example() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://mail@db.example.org/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	blobs := &s3blobs.Blobs{
		Client: s3.New(s3.Options{
			BaseEndpoint: aws.String("https://s3.example.org"), // not needed at Amazon's
			UsePathStyle: true,                                 // most other servers want it
			Region:       "eu-central-1",
			Credentials:  credentials.NewStaticCredentialsProvider("key", "secret", ""),
		}),
		Bucket: "mail",
	}
	s, err := pgstore.Open(ctx, pool, pgstore.Options{Blobs: blobs})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	q, err := pgqueue.Open(ctx, pool, pgqueue.Options{Blobs: blobs, BlobsAbove: 64 << 10})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	// srv := &imapserver.Server{Store: s, …}
}
