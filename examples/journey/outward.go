package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/examples/internal/page"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// trip is what the steps hand on to each other.
type trip struct {
	*page.Page
	world        *world
	north, south *domain

	message  *mime.Message
	composed []byte // the message as it was submitted
	second   []byte // another, for implicit TLS

	idle      *imapclient.Client // of the recipient, in IDLE since step 4
	exists    chan uint32        // what it is told
	endIdle   context.CancelFunc
	idling    chan error
	submitted time.Time   // when the message was
	started   time.Time   // when the receiver came up
	arrived   smtp.Result // the transfer
}

func (t *trip) prepare(ctx context.Context) error {
	var err error
	if t.world, err = newWorld(); err != nil {
		return err
	}
	if t.north, err = newDomain(ctx, t.world, t.Page, north, sender.Address.String()); err != nil {
		return err
	}
	if t.south, err = newDomain(ctx, t.world, t.Page, south, recipient.Address.String()); err != nil {
		return err
	}
	// Port 25 needs privileges: here each knows where the other listens.
	fmt.Sscan(port(t.south.mxAddr), &t.north.sender.Port)
	fmt.Sscan(port(t.north.mxAddr), &t.south.sender.Port)
	for _, d := range []*domain{t.north, t.south} {
		t.Tell("%-14s MX %s, submission %s and %s, IMAP %s, POP3 %s", d.name, port(d.mxAddr), port(d.addr["submission"]),
			port(d.addr["submissions"]), port(d.addr["imaps"]), port(d.addr["pop3s"]))
	}
	t.Tell("%-14s UDP and TCP %s", "DNS", port(t.world.dnsAddr))
	return nil
}

// compose writes the message and reads it back.
func (t *trip) compose(context.Context) error {
	t.message = compose()
	var b bytes.Buffer
	if _, err := t.message.WriteTo(&b); err != nil {
		return err
	}
	t.composed = b.Bytes()
	root, err := mime.Parse(bytes.NewReader(t.composed), int64(len(t.composed)), mime.Limits{})
	if err != nil {
		return err
	}
	t.Tell("%s", strings.TrimRight(outline(root, ""), "\n"))
	from, err := root.Header.Addresses("From")
	t.Check(err == nil && len(from) == 1 && from[0] == sender, "From reads %s", sender.Name)
	t.Check(root.Header.Text("Subject") == subject, "Subject reads %s", subject)
	parts := leaves(root)
	t.Check(len(parts) == 4 && parts[3].FileName() == fileName, "the attachment is called %s", fileName)
	t.Check(!slices.ContainsFunc(t.composed, func(c byte) bool { return c >= 0x80 }), "%d octets, all of them ASCII", len(t.composed))
	return t.Save("1-composed.eml", t.composed)
}

// submit sends the message to two recipients, and another over implicit TLS.
func (t *trip) submit(ctx context.Context) error {
	env, err := t.message.Envelope()
	if err != nil {
		return err
	}
	d := smtpclient.Dialer{Hello: "laptop.north.example", TLS: &tls.Config{RootCAs: t.world.roots}, Trace: smtpTrace(t.Page, "2-smtp-submission")}
	user := &smtpclient.Auth{User: t.north.user, Password: password}

	plain, err := d.Dial(ctx, smtpclient.Target{Addr: t.north.addr["submission"], Name: t.north.host, Need: smtpclient.Plain})
	if err != nil {
		return err
	}
	_, offered := plain.Extension("AUTH")
	t.Check(!offered, "without TLS no password is asked for")
	plain.Close()

	_, err = d.Dial(ctx, smtpclient.Target{Addr: t.north.addr["submission"], Name: t.north.host, Auth: &smtpclient.Auth{User: t.north.user, Password: "wrong"}})
	t.Check(errors.Is(err, smtpclient.ErrAuth), "a wrong password is refused")

	c, err := d.Dial(ctx, smtpclient.Target{Addr: t.north.addr["submission"], Name: t.north.host, Need: smtpclient.Verified, Auth: user})
	if err != nil {
		return err
	}
	defer c.Close()
	t.submitted = time.Now()
	for i, r := range c.Send(ctx, &env, bytes.NewReader(t.composed)) {
		t.Check(r.Err == nil, "STARTTLS, for %s: %s", env.To[i].Address, r.Reply)
	}

	another := &mime.Message{From: t.message.From, To: t.message.To, Subject: "Postscript", Text: "One more thing.\n"}
	var b bytes.Buffer
	if _, err := another.WriteTo(&b); err != nil {
		return err
	}
	t.second = b.Bytes()
	if env, err = another.Envelope(); err != nil {
		return err
	}
	ci, err := d.Dial(ctx, smtpclient.Target{Addr: t.north.addr["submissions"], Name: t.north.host, ImplicitTLS: true, Need: smtpclient.Verified, Auth: user})
	if err != nil {
		return err
	}
	defer ci.Close()
	for i, r := range ci.Send(ctx, &env, bytes.NewReader(t.second)) {
		t.Check(r.Err == nil, "implicit TLS, for %s: %s", env.To[i].Address, r.Reply)
	}
	return nil
}

// sign looks at what lies in the queue.
func (t *trip) sign(ctx context.Context) error {
	entries := 0
	for e, err := range t.north.queued.List(ctx, queue.Filter{}) {
		if err != nil {
			return err
		}
		entries++
		blob, err := t.north.queued.Open(ctx, e.Message)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
		blob.Close()
		if err != nil {
			return err
		}
		if !bytes.HasSuffix(text, t.composed) {
			continue
		}
		head := mime.ParseHeader(text[:len(text)-len(t.composed)])
		var added []string
		for f := range head.Fields() {
			added = append(added, f.Name)
		}
		t.Tell("queue id %s, %d recipients, lane %s", e.Message.ID, len(e.Envelope.To), e.Lane.Dest)
		t.Check(slices.Contains(added, "Received"), "in front of the message, which is untouched, stand now %s", strings.Join(added, ", "))
		v := &dkim.Verifier{Resolver: &resolver.Resolver{Servers: []string{t.world.dnsAddr}}}
		pass := v.Begin(ctx)
		if _, err := pass.Write(text); err != nil {
			return err
		}
		sigs, err := pass.Results()
		if err != nil {
			return err
		}
		t.Check(len(sigs) == 2, "it has %d signatures", len(sigs))
		for _, s := range sigs {
			t.Check(s.Result == auth.Pass, "the signature with %s verifies", s.Signature.Algorithm)
		}
		if err := t.Save("3-queued.eml", text); err != nil {
			return err
		}
	}
	t.Check(entries == 2, "the queue holds both messages")
	return nil
}

// wait lets the queue try in vain, then brings the receiver up.
func (t *trip) wait(ctx context.Context) error {
	if err := t.startIdle(ctx); err != nil {
		return err
	}
	for n := 1; n <= 2; n++ {
		e, err := t.north.waitFor(ctx, func(e queue.Event) bool {
			return e.Kind == queue.EventDeferred && e.To == recipient.Address && e.Attempt == n
		})
		if err != nil {
			return err
		}
		t.Check(e.Next.After(e.Time), "attempt %d after %s: %s; next in %s", n, page.Span(e.Time.Sub(t.submitted)), smtp.ReplyFor(e.Result.Err), page.Span(e.Next.Sub(e.Time)))
	}
	for _, d := range []*domain{t.north, t.south} {
		if err := d.up(ctx); err != nil {
			return err
		}
	}
	t.started = time.Now()
	t.Tell("%s is up", t.south.host)
	delivered, failed := 0, 0
	for delivered < 2 || failed < 1 {
		e, err := t.north.waitFor(ctx, func(e queue.Event) bool {
			return e.Kind == queue.EventDelivered && e.To.Domain == south || e.Kind == queue.EventFailed
		})
		if err != nil {
			return err
		}
		if e.Kind == queue.EventFailed {
			failed++
			t.Check(e.To == stranger.Address, "%s is refused for good: %s", e.To, e.Result.Reply)
			continue
		}
		delivered++
		t.arrived = e.Result
		t.Check(e.To == recipient.Address, "%s has it %s later, at attempt %d", e.To, page.Span(e.Time.Sub(t.started)), e.Attempt)
	}
	return t.bounce(ctx)
}
