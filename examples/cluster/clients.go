package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/pop3/pop3client"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// text is a short message.
func text(from, to, subject string) string {
	return fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\n\r\nHello.\r\n", from, to, subject)
}

// world opens a connection to a node, as another server does.
func (c *cluster) world(ctx context.Context, n *process) (*smtpclient.Conn, error) {
	d := smtpclient.Dialer{Hello: "mx." + farDomain, TLS: &tls.Config{RootCAs: c.roots}}
	return d.Dial(ctx, smtpclient.Target{Addr: n.addr["smtp"], Name: n.host})
}

// submission opens one as alice does.
func (c *cluster) submission(ctx context.Context, n *process) (*smtpclient.Conn, error) {
	d := smtpclient.Dialer{Hello: "laptop." + domain, TLS: &tls.Config{RootCAs: c.roots}}
	return d.Dial(ctx, smtpclient.Target{Addr: n.addr["submissions"], Name: n.host, ImplicitTLS: true, Need: smtpclient.Verified,
		Auth: &smtpclient.Auth{User: alice, Password: c.password}})
}

// send sends a message.
func send(ctx context.Context, conn *smtpclient.Conn, from, to, subject string) error {
	var env smtp.Envelope
	var err error
	if env.From, err = smtp.ParseAddress(from); err != nil {
		return err
	}
	rcpt, err := smtp.ParseAddress(to)
	if err != nil {
		return err
	}
	env.To = []smtp.Recipient{{Address: rcpt}}
	return conn.Send(ctx, &env, strings.NewReader(text(from, to, subject)))[0].Err
}

// mailbox opens a user's INBOX over IMAP.
func (c *cluster) mailbox(ctx context.Context, n *process, user string, h imapclient.Handler) (*imapclient.Client, error) {
	d := imapclient.Dialer{Security: imapclient.ImplicitTLS, TLS: &tls.Config{RootCAs: c.roots, ServerName: n.host}, Handler: h}
	m, err := d.Dial(ctx, n.addr["imaps"])
	if err != nil {
		return nil, err
	}
	if err = m.Login(ctx, user, c.password); err == nil {
		_, err = m.Select(ctx, "INBOX")
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// uids lists a user's INBOX over IMAP.
func (c *cluster) uids(ctx context.Context, n *process, user string) ([]uint32, error) {
	m, err := c.mailbox(ctx, n, user, imapclient.Handler{})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var uids []uint32
	for f, err := range m.Fetch(ctx, imap.Seqs(imap.NumSet{{First: 1, Last: imap.Star}}), imap.FetchOptions{UID: true}) {
		if err != nil {
			return nil, err
		}
		uids = append(uids, f.UID)
	}
	return uids, m.Logout(ctx)
}

// uidls lists the same over POP3.
func (c *cluster) uidls(ctx context.Context, n *process, user string) ([]string, error) {
	d := pop3client.Dialer{Security: pop3client.ImplicitTLS, TLS: &tls.Config{RootCAs: c.roots, ServerName: n.host}}
	m, err := d.Dial(ctx, n.addr["pop3s"])
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := m.Login(ctx, user, c.password); err != nil {
		return nil, err
	}
	list, err := m.UIDL(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range list {
		ids = append(ids, l.ID)
	}
	return ids, m.Quit(ctx)
}

// watch is somebody who waits in IDLE.
type watch struct {
	client *imapclient.Client
	told   chan time.Time // when a new message was
	end    context.CancelFunc
	ended  chan struct{}
}

func (c *cluster) watch(ctx context.Context, n *process, user string) (*watch, error) {
	w := &watch{told: make(chan time.Time, 100), ended: make(chan struct{})}
	var err error
	w.client, err = c.mailbox(ctx, n, user, imapclient.Handler{Exists: func(uint32) { w.told <- time.Now() }})
	if err != nil {
		return nil, err
	}
	for len(w.told) > 0 { // what SELECT said
		<-w.told
	}
	ctx, w.end = context.WithCancel(ctx)
	go func() {
		defer close(w.ended)
		for w.client.Idle(ctx) == nil { // it returns with each piece of news
		}
	}()
	return w, nil
}

func (w *watch) close() {
	w.end()
	<-w.ended
	w.client.Close()
}

// announced sends messages to a node, one after the other, and returns how
// long after each one was accepted w was told.
func (c *cluster) announced(ctx context.Context, w *watch, at *process, messages int) ([]time.Duration, error) {
	conn, err := c.world(ctx, at)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var took []time.Duration
	for range messages {
		if err := send(ctx, conn, stranger, bob, "News"); err != nil {
			return nil, err
		}
		accepted := time.Now()
		select {
		case t := <-w.told:
			took = append(took, max(t.Sub(accepted), 0))
		case <-w.ended:
			return nil, fmt.Errorf("IDLE ended after %d messages", len(took))
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for IDLE to tell of message %d: %w", len(took)+1, ctx.Err())
		}
	}
	slices.Sort(took)
	return took, nil
}
