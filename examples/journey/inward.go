package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/pop3/pop3client"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// dial opens a TLS connection whose lines, above TLS, go to the page.
func (t *trip) dial(ctx context.Context, d *domain, listener, name string) (net.Conn, error) {
	td := tls.Dialer{Config: &tls.Config{RootCAs: t.world.roots, ServerName: d.host}}
	c, err := td.DialContext(ctx, "tcp", d.addr[listener])
	if err != nil {
		return nil, err
	}
	return &recorder{Conn: c, p: t.Page, name: name}, nil
}

// imap logs a domain's user in and opens INBOX.
func (t *trip) imap(ctx context.Context, d *domain, name string, h imapclient.Handler) (*imapclient.Client, error) {
	nc, err := t.dial(ctx, d, "imaps", name)
	if err != nil {
		return nil, err
	}
	// TLS is below the recorder, so the client is told that there is none.
	dialer := imapclient.Dialer{Security: imapclient.Plain, Handler: h}
	c, err := dialer.Client(ctx, nc, d.host)
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx, d.user, password); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := c.Select(ctx, "INBOX"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// pop3 logs a domain's user in.
func (t *trip) pop3(ctx context.Context, d *domain, name string) (*pop3client.Client, error) {
	nc, err := t.dial(ctx, d, "pop3s", name)
	if err != nil {
		return nil, err
	}
	dialer := pop3client.Dialer{Security: pop3client.Plain}
	c, err := dialer.Client(ctx, nc, d.host)
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx, d.user, password); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// startIdle lets the recipient wait for mail (RFC 2177).
func (t *trip) startIdle(ctx context.Context) error {
	t.exists, t.idling = make(chan uint32, 10), make(chan error, 1)
	c, err := t.imap(ctx, t.south, "7-imap-idle", imapclient.Handler{Exists: func(n uint32) { t.exists <- n }})
	if err != nil {
		return err
	}
	t.Check(c.Mailbox().Messages == 0, "%s waits in IDLE, with an empty mailbox", t.south.user)
	t.idle = c
	ctx, t.endIdle = context.WithCancel(ctx)
	go func() {
		// Idle returns with each piece of news.
		for {
			if err := c.Idle(ctx); err != nil {
				t.idling <- err
				return
			}
		}
	}()
	return nil
}

// bounce reads what the sender is told of the recipient who was refused.
func (t *trip) bounce(ctx context.Context) error {
	if _, err := t.north.waitFor(ctx, func(e queue.Event) bool {
		return e.Kind == queue.EventDelivered && e.To == sender.Address
	}); err != nil {
		return err
	}
	c, err := t.pop3(ctx, t.north, "4-pop3-bounce")
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.Retr(ctx, 1)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := t.Save("4-bounce.eml", text); err != nil {
		return err
	}
	dsn, err := report.Parse(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return err
	}
	t.Check(bytes.HasPrefix(text, []byte("Return-Path: <>\r\n")), "a bounce arrived, from the null reverse-path")
	if len(dsn.Recipients) != 1 {
		return fmt.Errorf("the bounce speaks of %d recipients", len(dsn.Recipients))
	}
	rcpt := dsn.Recipients[0]
	t.Check(rcpt.Final == stranger.Address.String() && rcpt.Action == report.Failed && rcpt.Status == smtp.EnhancedCode{5, 1, 1},
		"it says: %s %s, %s", rcpt.Final, rcpt.Action, rcpt.Status)
	t.Check(dsn.OriginalHeader.Text("Subject") == subject, "it is about %q", dsn.OriginalHeader.Text("Subject"))
	return c.Quit(ctx)
}

// transfer tells how the message came over.
func (t *trip) transfer(context.Context) error {
	asked := map[string]bool{}
	for _, q := range t.world.dns.Questions() {
		asked[q.Type+" "+strings.TrimSuffix(q.Name, ".")] = true
	}
	t.Check(asked["MX "+south] && asked["A mx."+south], "DNS was asked for MX %s, then for A mx.%[1]s", south)
	hop := t.arrived.Hop
	if hop == nil {
		return errors.New("the queue names no host")
	}
	t.Check(hop.Name == t.south.host && hop.Addr.String() == t.south.mxAddr, "the host is %s, at %s", hop.Name, hop.Addr)
	t.Check(hop.TLS >= tls.VersionTLS12, "STARTTLS, %s", tls.VersionName(hop.TLS))
	t.Check(t.arrived.Reply.Code == 250, "its last word: %s", t.arrived.Reply)
	return nil
}

// store looks at what the receiver put in front of the message.
func (t *trip) store(ctx context.Context) error {
	c, err := t.imap(ctx, t.south, "6-imap-check", imapclient.Handler{})
	if err != nil {
		return err
	}
	defer c.Close()
	text, err := t.find(ctx, c, subject)
	if err != nil {
		return err
	}
	head := mime.ParseHeader(text[:len(text)-len(t.composed)])
	t.Check(head.Get("Return-Path") == sender.Address.Path(), "Return-Path: %s", head.Get("Return-Path"))
	hops := 0
	for f := range head.All("Received") {
		hops++
		t.Tell("Received: %s", strings.Join(strings.Fields(f.Value), " "))
	}
	t.Check(hops == 2, "%d Received fields, one for each hop", hops)
	results, err := auth.Parse(head.Get(auth.FieldName))
	if err != nil {
		return err
	}
	t.Check(results.AuthServID == t.south.host, "Authentication-Results by %s", results.AuthServID)
	for _, method := range []string{"spf", "dkim", "dmarc"} {
		passed := 0
		for _, r := range results.Results {
			if r.Method == method && r.Result == auth.Pass {
				passed++
			}
		}
		t.Check(passed > 0, "%s=pass", method)
	}
	return c.Logout(ctx)
}

// find returns the message with a subject, all of it.
func (t *trip) find(ctx context.Context, c *imapclient.Client, subject string) ([]byte, error) {
	found, err := c.Search(ctx, true, &imap.SearchCriteria{Header: []imap.SearchHeader{{Name: "Subject", Value: subject}}}, imap.SearchOptions{})
	if err != nil {
		return nil, err
	}
	for m, err := range c.Fetch(ctx, imap.UIDs(found.All), imap.FetchOptions{UID: true, Sections: []imap.Section{{Peek: true}}}) {
		if err != nil {
			return nil, err
		}
		return m.Sections[0].Data, nil
	}
	return nil, fmt.Errorf("no message with the subject %q", subject)
}

// read reads both messages over IMAP and POP3.
func (t *trip) read(ctx context.Context) error {
	var last uint32
	for last < 2 {
		select {
		case last = <-t.exists:
		case <-ctx.Done():
			return fmt.Errorf("IDLE told of %d messages: %w", last, ctx.Err())
		}
	}
	t.Check(last == 2, "IDLE announced %d messages, while they came", last)
	t.endIdle()
	if err := <-t.idling; err != nil && !errors.Is(err, context.Canceled) {
		return err
	}

	overIMAP, err := t.find(ctx, t.idle, subject)
	if err != nil {
		return err
	}
	t.Check(bytes.HasSuffix(overIMAP, t.composed), "IMAP: the message as it was composed, octet for octet, %d of %d", len(t.composed), len(overIMAP))
	second, err := t.find(ctx, t.idle, "Postscript")
	if err != nil {
		return err
	}
	t.Check(bytes.HasSuffix(second, t.second), "IMAP: the other one too")
	if err := t.structure(ctx); err != nil {
		return err
	}

	c, err := t.pop3(ctx, t.south, "7-pop3")
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	var sizes []int64
	same := 0
	for _, l := range list {
		r, err := c.Retr(ctx, l.Number)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		sizes = append(sizes, l.Size)
		if bytes.Equal(text, overIMAP) || bytes.Equal(text, second) {
			same++
		}
	}
	t.Check(same == 2, "POP3: both, the same octets as over IMAP")
	t.Check(slices.Contains(sizes, int64(len(overIMAP))), "POP3: the sizes are true: %d", sizes)
	if err := c.Quit(ctx); err != nil {
		return err
	}
	if err := t.Save("7-read.eml", overIMAP); err != nil {
		return err
	}
	return t.idle.Logout(ctx)
}

// structure asks IMAP for the parts and compares what is in them.
func (t *trip) structure(ctx context.Context) error {
	found, err := t.idle.Search(ctx, true, &imap.SearchCriteria{Body: []string{"ein punkt allein"}}, imap.SearchOptions{})
	if err != nil {
		return err
	}
	o := imap.FetchOptions{UID: true, Envelope: true, BodyStructure: true, Sections: []imap.Section{
		{Part: []int{1, 1}, Binary: true, Peek: true}, {Part: []int{1, 2, 2}, Binary: true, Peek: true}, {Part: []int{2}, Binary: true, Peek: true}}}
	for m, err := range t.idle.Fetch(ctx, imap.UIDs(found.All), o) {
		if err != nil {
			return err
		}
		t.Check(mime.DecodeText(m.Envelope.Subject) == subject, "ENVELOPE: %s", mime.DecodeText(m.Envelope.Subject))
		want := [][]byte{[]byte(strings.ReplaceAll(text, "\n", "\r\n")), sun(), []byte(csv)}
		for i, name := range []string{"the text", "the picture", "the attachment"} {
			ok := i < len(m.Sections) && bytes.Equal(m.Sections[i].Data, want[i])
			t.Check(ok, "BINARY[%s]: %s, %d octets", strings.Trim(strings.ReplaceAll(fmt.Sprint(o.Sections[i].Part), " ", "."), "[]"), name, len(want[i]))
		}
	}
	return nil
}

// close drains both domains.
func (t *trip) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for e, err := range t.north.queued.List(ctx, queue.Filter{}) {
		t.Check(false, "left in the queue: %v %v", e, err)
	}
	return errors.Join(t.north.shutdown(ctx), t.south.shutdown(ctx), t.world.dns.Close())
}
