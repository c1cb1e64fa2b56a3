package submission_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
)

// The whole way over sockets: submitted over STARTTLS by a user, signed,
// queued, refused at first, sent; and a bounce for the recipient that is not
// there.
func TestOverSockets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	far := smtptest.New(t)
	far.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "bob@", Reply: "450 Greylisted", Times: 1})
	far.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "nobody@", Reply: "550 5.1.1 No such user"})

	log := slog.New(slog.DiscardHandler)
	pool := new(smtpclient.Pool)
	defer pool.Close()
	q := &queue.Queue{Storage: new(memqueue.Storage), Transport: &smtpclient.Relay{Addr: far.Addr, Pool: pool},
		Hostname: "mx.example.test", Retry: queue.Backoff(100*time.Millisecond, time.Second), Log: log}
	ran := make(chan error)
	go func() { ran <- q.Run(ctx) }()

	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sub := &submission.Submitter{Queue: q, Sign: func(_ context.Context, from smtp.Address) (submission.Signer, error) {
		return dkim.NewSigner(dkim.SignOptions{Domain: from.Domain, Selector: "s", Key: key})
	}}
	cert, roots, err := smtptest.Certificate("mx.example.test", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	srv := &smtpserver.Server{Backend: sub, Hostname: "mx.example.test", Auth: users{}, RequireAuth: true, Log: log,
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)

	mua := smtpclient.Pool{Dialer: smtpclient.Dialer{TLS: &tls.Config{RootCAs: roots}}}
	results := mua.Send(ctx, smtpclient.Target{Addr: l.Addr().String(), Name: "localhost", Need: smtpclient.Verified,
		Auth: &smtpclient.Auth{User: "alice@example.test", Password: "secret"}},
		&smtp.Envelope{From: smtp.Address{Local: "alice", Domain: "example.test"}, To: []smtp.Recipient{
			{Address: smtp.Address{Local: "bob", Domain: "far.test"}}, {Address: smtp.Address{Local: "nobody", Domain: "far.test"}}}},
		strings.NewReader(complete))
	for _, r := range results {
		if r.Err != nil || !strings.HasPrefix(r.Reply.Text, "OK queued as ") {
			t.Fatalf("submitted with %+v", r)
		}
	}
	mua.Close()

	arrived := far.Wait(ctx, 2)
	for _, m := range arrived {
		if m.Envelope.From.IsZero() {
			d, err := report.Parse(strings.NewReader(string(m.Data)), int64(len(m.Data)))
			if err != nil || len(d.Recipients) != 1 || d.Recipients[0].Final != "nobody@far.test" || d.Recipients[0].Status != (smtp.EnhancedCode{5, 1, 1}) ||
				m.Envelope.To[0].String() != "alice@example.test" {
				t.Errorf("notice %+v, %v", d, err)
			}
			continue
		}
		head, ok := strings.CutSuffix(string(m.Data), complete)
		if !ok || len(m.Envelope.To) != 1 || m.Envelope.To[0].Local != "bob" {
			t.Errorf("arrived for %v:\n%s", m.Envelope.To, m.Data)
		}
		received := strings.Index(head, "ESMTPSA")
		if signed := strings.Index(head, "DKIM-Signature: "); received < 0 || signed < received {
			t.Errorf("head %q", head)
		}
	}
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := q.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
