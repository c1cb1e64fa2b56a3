package delivery

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
)

func TestFilter(t *testing.T) {
	ctx := t.Context()
	s, rcpt := mailboxes(t, "alice", "bob", "carol", "dave")
	acc, err := s.Account(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	lists, err := acc.CreateMailbox(ctx, store.NewMailbox{Name: "Lists"})
	if err != nil {
		t.Fatal(err)
	}
	var sent []string
	var keys []string
	b := &Backend{Recipients: rcpt, Target: To(s)}
	b.Filter = func(ctx context.Context, in *Inbound, i int) error {
		r := &in.Recipients[i]
		switch r.Address.Local {
		case "alice": // file into, flag
			r.Targets[0].Mailbox, r.Targets[0].Flags = lists.ID, store.NewFlags(store.Flagged, "list")
		case "bob": // discard
			r.Targets = nil
		case "carol": // redirect and keep
			r.Redirect = []smtp.Address{{Local: "carol", Domain: "elsewhere.example"}}
		case "dave": // refuse
			return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Dave wants no such mail"}
		}
		return nil
	}
	b.Redirect = func(ctx context.Context, in *Inbound, i int, key string) error {
		body, err := io.ReadAll(io.NewSectionReader(in.Body, 0, in.Body.Size()))
		sent = append(sent, string(in.OnwardHead(i))+string(body))
		keys = append(keys, key)
		return err
	}
	c := dial(t, b, true)
	send := func(text string) {
		c.mail("alice", "bob", "carol", "dave")
		c.data(text, "250", "250", "250", "550 5.7.1")
	}
	send(message)
	if got := inbox(t, s, "alice", "INBOX"); len(got) != 0 {
		t.Errorf("alice's Inbox has %q", got)
	}
	n := 0
	for m, err := range acc.Messages(ctx, lists.ID, store.Query{}) {
		if err != nil || !m.Flags.System.Has(store.Flagged) || !m.Flags.Has("list") {
			t.Errorf("filed: %+v, %v", m, err)
		}
		n++
	}
	if bob, dave, carol := inbox(t, s, "bob", "INBOX"), inbox(t, s, "dave", "INBOX"), inbox(t, s, "carol", "INBOX"); n != 1 || len(bob) != 0 || len(dave) != 0 || len(carol) != 1 {
		t.Errorf("filed %d, bob has %q, dave %q, carol %q", n, bob, dave, carol)
	}
	if len(sent) != 1 || !strings.HasPrefix(sent[0], "Delivered-To: carol@example.org\r\n") ||
		!strings.Contains(sent[0], "\r\nReceived: ") && !strings.Contains(sent[0], "\nReceived:") || !strings.HasSuffix(sent[0], message) {
		t.Errorf("redirected %q", sent)
	}

	// The same again is the same to whoever queues it, another message is not.
	send(message)
	send("Subject: another\r\n\r\nx\r\n")
	if len(keys) != 3 || keys[0] != keys[1] || keys[1] == keys[2] {
		t.Errorf("keys are %q", keys)
	}
	// What was sent on comes back.
	c.mail("carol")
	c.data(sent[0], "554 5.4.6")
	if len(sent) != 3 {
		t.Error("a loop was redirected")
	}
	// What could not be sent on is not stored either: the sender tries again.
	before := len(inbox(t, s, "carol", "INBOX"))
	for _, f := range []func(context.Context, *Inbound, int, string) error{
		nil,
		func(context.Context, *Inbound, int, string) error { return errors.New("the queue is full") },
	} {
		b := &Backend{Recipients: rcpt, Target: To(s), Filter: b.Filter, Redirect: f}
		c := dial(t, b, false)
		c.mail("carol")
		c.data("Subject: third\r\n\r\nx\r\n", "451 4.3.0")
	}
	if after := len(inbox(t, s, "carol", "INBOX")); after != before {
		t.Errorf("carol has %d messages, had %d", after, before)
	}
}

func TestQuotaAtRcpt(t *testing.T) {
	s, rcpt := mailboxes(t, "alice", "bob")
	c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
	s.SetQuota("bob", 10_000)
	c.cmd("MAIL FROM:<sender@example.com> SIZE=20000", "250")
	c.cmd("RCPT TO:<bob@example.org>", "452 4.2.2")
	c.cmd("RCPT TO:<alice@example.org>", "250")
	c.cmd("RSET", "250")
	c.cmd("MAIL FROM:<sender@example.com> SIZE=2000", "250")
	c.cmd("RCPT TO:<bob@example.org>", "250")
	c.cmd("RSET", "250")
	gone := dial(t, &Backend{
		Recipients: func(context.Context, smtp.Address) ([]store.Target, error) {
			return []store.Target{{Account: "nobody"}}, nil
		},
		Target: To(s),
	}, false)
	gone.cmd("MAIL FROM:<sender@example.com>", "250")
	gone.cmd("RCPT TO:<x@example.org>", "550 5.1.1")
}
