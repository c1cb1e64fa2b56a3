// Package submission takes mail from those who may send it, completes and
// signs it, and queues it (RFC 6409).
//
// A [Submitter] has two faces over one pipeline: it is the smtpserver.Backend
// of a submission server for authenticated users, and Send and Prepare serve
// Go programs.
//
//	sub := &submission.Submitter{Queue: q}
//	srv := &smtpserver.Server{Backend: sub, Auth: users, TLS: tc, RequireAuth: true}
//
//	id, err := sub.Send(ctx, &mime.Message{From: …, To: …, Text: "Hi"}, submission.Options{})
//
// A message goes through once, streaming: only its header is held in memory.
package submission
