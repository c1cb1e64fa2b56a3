// Package s3blobs keeps large message bodies in an object store that speaks the
// protocol of Amazon S3, for pgstore and pgqueue alike: small bodies stay in
// PostgreSQL, chosen by their Options.BlobsAbove.
//
//	client := s3.New(s3.Options{…}) // or s3.NewFromConfig
//	blobs := &s3blobs.Blobs{Client: client, Bucket: "mail"}
//	s, err := pgstore.Open(ctx, pool, pgstore.Options{Blobs: blobs})
//	q, err := pgqueue.Open(ctx, pool, pgqueue.Options{Blobs: blobs})
//
// An object is a body as it was received, and is written before the row that
// names it is committed. A body goes up in parts, so that its size needs not be
// known and one part of it is in memory; it is read in ranges, no more of them
// than what is asked for, with blocks of 64 KiB whose checksums are in
// PostgreSQL. The sweeps of pgstore and pgqueue delete what is not needed any
// more, and what a crash left behind.
//
// Needed are the rights to get, put, delete and list objects, and to abort and
// list multipart uploads. S3's own checksums are used only where it requires
// them, since many servers know none. Let the bucket keep no versions: what is
// deleted would stay. A copy of a database must not be opened with the bucket of
// the original, or each would take the other's objects for forgotten ones.
package s3blobs
