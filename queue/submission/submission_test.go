package submission_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// users lets anybody in whose password is "secret".
type users struct{}

func (users) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }

func (users) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	x := new(exchange)
	x.Server = sasl.NewPlainServer(func(_, user, pass string) error {
		if pass != "secret" {
			return login.ErrCredentials
		}
		x.user = user
		return nil
	})
	return x, nil
}

type exchange struct {
	sasl.Server
	user string
}

func (x *exchange) Identity() login.Identity {
	return login.Identity{User: x.user, Login: x.user, Mechanism: "PLAIN"}
}

// world is a submitter behind a real server on a pipe.
type world struct {
	*testing.T
	st  *memqueue.Storage
	sub *submission.Submitter
	srv *smtpserver.Server
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, st: new(memqueue.Storage)}
	log := slog.New(slog.DiscardHandler)
	w.sub = &submission.Submitter{Queue: &queue.Queue{Storage: w.st, Log: log}}
	w.srv = &smtpserver.Server{Backend: w.sub, Hostname: "mx.example.test", Auth: users{}, InsecureAuth: true, Log: log}
	return w
}

// client speaks lines over a connection of its own.
type client struct {
	*world
	nc net.Conn
	r  *bufio.Reader
}

func (w *world) dial() *client {
	w.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.srv.ServeConn(theirs)
	}()
	w.Cleanup(func() {
		ours.Close()
		<-ended
	})
	ours.SetDeadline(time.Now().Add(20 * time.Second))
	c := &client{world: w, nc: ours, r: bufio.NewReader(ours)}
	c.expect("220")
	c.cmd("EHLO client.test", "250")
	return c
}

// expect reads one reply and returns its last line.
func (c *client) expect(code string) string {
	c.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.Fatalf("waiting for %s: %v", code, err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, code) {
			c.Fatalf("got %q, want %s", line, code)
		}
		return strings.TrimSpace(line)
	}
}

func (c *client) cmd(line, code string) string {
	c.Helper()
	go io.WriteString(c.nc, line+"\r\n")
	return c.expect(code)
}

func (c *client) login(user string) {
	c.Helper()
	c.cmd("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00secret")), "235")
}

// send submits a message from alice and returns the last reply.
func (c *client) send(text string, to ...string) string {
	c.Helper()
	c.cmd("MAIL FROM:<alice@example.test>", "250")
	for _, r := range to {
		c.cmd("RCPT TO:<"+r+">", "250")
	}
	c.cmd("DATA", "354")
	return c.cmd(strings.ReplaceAll(text, "\r\n.", "\r\n..")+"\r\n.", "")
}

// stored returns the only message in the queue and its entries, and drops it.
func (w *world) stored() (string, []*queue.Entry) {
	w.Helper()
	var entries []*queue.Entry
	for e := range w.st.List(w.Context(), queue.Filter{}) {
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		w.Fatal("nothing is queued")
	}
	b, err := w.st.Open(w.Context(), entries[0].Message)
	if err != nil {
		w.Fatal(err)
	}
	defer b.Close()
	text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		w.Fatal(err)
	}
	w.st.Edit(w.Context(), queue.Filter{}, queue.Edit{Drop: true})
	return string(text), entries
}

func (w *world) nothing() {
	w.Helper()
	if n := w.st.Used(); n != 0 {
		w.Errorf("%d octets were kept", n)
	}
}

const complete = "From: Alice <alice@example.test>\r\nTo: bob@far.test\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n" +
	"Message-ID: <1@example.test>\r\nSubject: x\r\n\r\nHello\r\n.dot\r\n"

func TestSubmit(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	c.login("alice@example.test")
	reply := c.send(complete, "bob@far.test")
	text, entries := w.stored()
	if want := "250 2.0.0 OK queued as " + entries[0].Message.ID.String(); reply != want {
		t.Errorf("reply %q, want %q", reply, want)
	}
	e := entries[0]
	if len(entries) != 1 || e.Envelope.From.String() != "alice@example.test" || e.Lane != (queue.Lane{Dest: "far.test", Tenant: "alice@example.test"}) {
		t.Errorf("entries %+v", e)
	}
	head, ok := strings.CutSuffix(text, complete+"\r\n")
	if !ok {
		t.Fatalf("the message was changed:\n%s", text)
	}
	if !strings.HasPrefix(head, "Received: from client.test") || strings.Count(head, "\r\n") != strings.Count(head, "\n") ||
		!strings.Contains(head, "ESMTPA") || !strings.Contains(head, e.Message.ID.String()) || !strings.Contains(head, "bob@far.test") {
		t.Errorf("head %q", head)
	}
	w.nothing()
}

func TestStrangers(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	c.cmd("MAIL FROM:<alice@example.test>", "530 5.7.0")
	c.cmd("MAIL FROM:<>", "530 5.7.0")
	c.cmd("RCPT TO:<bob@far.test>", "503")
	c.login("alice@example.test")
	c.cmd("MAIL FROM:<eve@example.test>", "550 5.7.1")
	c.cmd("MAIL FROM:<alice@other.test>", "550 5.7.1")
	c.cmd("MAIL FROM:<alice@example.test>", "250")
	c.cmd("RCPT TO:<bob@far>", "554 5.1.2")
	c.cmd("RSET", "250")
	c.cmd("MAIL FROM:<>", "250") // a notification
	w.nothing()
}

func TestComplete(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	c.login("alice@example.test")
	c.send("From: alice@example.test\r\nBcc: secret@far.test\r\nReturn-Path: <x@y.test>\r\nDate: yesterday\r\n\r\nHello", "bob@far.test", "secret@far.test")
	text, entries := w.stored()
	h := mime.ParseHeader([]byte(text))
	if _, err := h.Date(); err != nil {
		t.Errorf("Date: %q, %v", h.Get("Date"), err)
	}
	if ids := h.MessageIDs("Message-ID"); len(ids) != 1 || !strings.HasSuffix(ids[0], "@example.test") {
		t.Errorf("Message-ID %q", h.Get("Message-ID"))
	}
	if h.Has("Bcc") || h.Has("Return-Path") || strings.Contains(text, "secret") {
		t.Errorf("Bcc is still known:\n%s", text)
	}
	if len(entries) != 1 || len(entries[0].Envelope.To) != 2 {
		t.Errorf("entries %+v", entries)
	}
	if !strings.HasSuffix(text, "\r\n\r\nHello\r\n") {
		t.Errorf("body of %q", text)
	}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		name, header, reply, sender string
	}{
		{"plain", "From: alice@example.test", "250", ""},
		{"case", "From: Alice@EXAMPLE.test", "250", ""},
		{"folded", "From:\r\n alice@example.test\r\nTo: a@b.test,\r\n c@d.test", "250", ""},
		{"no recipients shown", "From: alice@example.test\r\nTo: undisclosed-recipients:;", "250", ""},
		{"two authors", "From: eve@example.test, alice@example.test", "250", "alice@example.test"},
		{"own sender", "From: alice@example.test\r\nSender: alice@example.test", "250", "alice@example.test"},
		{"foreign sender", "From: alice@example.test\r\nSender: eve@example.test", "250", "alice@example.test"},
		{"foreign author", "From: eve@example.test", "550 5.7.1", ""},
		{"foreign author, own sender", "From: eve@example.test\r\nSender: alice@example.test", "550 5.7.1", ""},
		{"no author", "Subject: x", "250", ""},
		{"empty author", "From: nobody:;", "554 5.6.0", ""},
		{"two From", "From: alice@example.test\r\nFrom: alice@example.test", "554 5.6.0", ""},
		{"two Subject", "From: alice@example.test\r\nSubject: x\r\nSubject: y", "554 5.6.0", ""},
		{"bad address", "From: alice@example.test\r\nTo: a@", "554 5.6.0", ""},
		{"unqualified", "From: alice@example.test\r\nCc: bob@local", "554 5.6.0", ""},
		{"no header", "Hello Bob,", "554 5.6.0", ""},
		{"mbox", "From alice Mon Nov 23\r\nFrom: alice@example.test", "554 5.6.0", ""},
		{"latin-1", "From: alice@example.test\r\nSubject: \xe4", "554 5.6.0", ""},
		{"loop", "From: alice@example.test" + strings.Repeat("\r\nReceived: x", 101), "554 5.4.6", ""},
		{"large header", "From: alice@example.test\r\nX: " + strings.Repeat("x", 3000), "552 5.3.4", ""},
		{"large header in lines", "From: alice@example.test\r\nX: " + strings.Repeat("x\r\n ", 1000), "552 5.3.4", ""},
		{"large body", "From: alice@example.test\r\n\r\n" + strings.Repeat("xxxxxxxx\r\n", 1000), "552 5.3.4", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.sub.MaxHeaderBytes, w.sub.MaxMessageBytes = 2500, 8000
			cl := w.dial()
			cl.login("alice@example.test")
			if got := cl.send(c.header+"\r\n\r\nHello", "bob@far.test"); !strings.HasPrefix(got, c.reply) {
				t.Errorf("reply %q, want %s", got, c.reply)
			}
			if c.reply != "250" {
				w.nothing()
				return
			}
			text, _ := w.stored()
			h := mime.ParseHeader([]byte(text))
			if from, err := h.Addresses("From"); err != nil || len(from) == 0 || !strings.Contains(strings.ToLower(h.Get("From")), "alice@example.test") {
				t.Errorf("From %q, %v", h.Get("From"), err)
			}
			if got := h.Get("Sender"); got != c.sender {
				t.Errorf("Sender %q, want %q", got, c.sender)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.sub.MaxRecipients, w.sub.MaxMessageBytes = 2, 1000
	c := w.dial()
	c.login("alice@example.test")
	c.cmd("MAIL FROM:<alice@example.test> SIZE=1001", "552 5.3.4")
	c.cmd("MAIL FROM:<alice@example.test> SIZE=1000", "250")
	c.cmd("RCPT TO:<a@far.test>", "250")
	c.cmd("RCPT TO:<b@far.test>", "250")
	c.cmd("RCPT TO:<c@far.test>", "452 4.5.3")
	w.nothing()

	full := newWorld(t)
	full.st.MaxBytes = 5000
	c = full.dial()
	c.login("alice@example.test")
	c.cmd("MAIL FROM:<alice@example.test> SIZE=6000", "452 4.3.1")
	if got := c.send(complete+strings.Repeat("xxxxxxxx\r\n", 600), "bob@far.test"); !strings.HasPrefix(got, "452 4.3.1") {
		t.Errorf("reply %q", got)
	}
	full.nothing()
	if got := c.send(complete, "bob@far.test"); !strings.HasPrefix(got, "250") {
		t.Errorf("reply %q after it was full", got)
	}
}

// Allow says who may be whom, in MAIL FROM, From and Sender.
func TestAllow(t *testing.T) {
	w := newWorld(t)
	w.sub.Allow = func(_ context.Context, id login.Identity, a smtp.Address) error {
		switch {
		case a.Domain == "lists.example.test" || a.Local == "alice":
			return nil // aliases
		case a.Local == "moved":
			return smtp.Errorf(551, smtp.EnhancedCode{5, 7, 1}, "Ask the new owner")
		case a.Local == "lost":
			return errors.New("the directory is away")
		}
		return submission.OwnAddress(t.Context(), id, a)
	}
	c := w.dial()
	c.login("alice@example.test")
	for from, want := range map[string]string{
		"alice@other.test": "250", "news@lists.example.test": "250", "bob@example.test": "550 5.7.1",
		"moved@example.test": "551 5.7.1", "lost@example.test": "451 4.3.0",
	} {
		c.cmd("MAIL FROM:<"+from+">", want)
		c.cmd("RSET", "250")
		// The same for the author.
		got := c.send("From: "+from+"\r\n\r\nx", "bob@far.test")
		if !strings.HasPrefix(got, want) || strings.Contains(got, "directory") {
			t.Errorf("From %s: %q, want %s", from, got, want)
		}
	}
}

// Each user has limits of their own, and what is refused costs nothing.
func TestUserLimits(t *testing.T) {
	w := newWorld(t)
	w.sub.MaxRecipients, w.sub.MaxMessageBytes = 2, 1000
	w.sub.Allow = func(context.Context, login.Identity, smtp.Address) error { return nil }
	w.sub.Limits = func(_ context.Context, id login.Identity) (submission.Limits, error) {
		switch id.User {
		case "bulk@example.test":
			return submission.Limits{MaxRecipients: 3, MaxMessageBytes: 2000}, nil
		case "lost@example.test":
			return submission.Limits{}, errors.New("the directory is away")
		}
		return submission.Limits{}, nil
	}
	long := "From: bulk@example.test\r\n\r\n" + strings.Repeat("xxxxxxxx\r\n", 150)
	for user, want := range map[string]string{"bulk@example.test": "250", "alice@example.test": "552 5.3.4"} {
		c := w.dial()
		c.login(user)
		if got := c.send(strings.Replace(long, "bulk", user[:strings.IndexByte(user, '@')], 1), "a@far.test", "b@far.test"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %s", user, got, want)
		}
		c.cmd("MAIL FROM:<"+user+">", "250")
		c.cmd("RCPT TO:<a@far.test>", "250")
		c.cmd("RCPT TO:<b@far.test>", "250")
		c.cmd("RCPT TO:<c@far.test>", map[string]string{"250": "250", "552 5.3.4": "452 4.5.3"}[want])
	}
	c := w.dial()
	c.login("lost@example.test")
	c.cmd("MAIL FROM:<lost@example.test>", "451 4.3.0")
}

func TestUserRates(t *testing.T) {
	w := newWorld(t)
	w.sub.Limiter = &queue.Rates{Rate: func(key string) queue.Rate {
		switch key {
		case "messages alice@example.test":
			return queue.Rate{N: 3, Per: time.Hour}
		case "recipients bulk@example.test":
			return queue.Rate{N: 4, Per: time.Hour}
		}
		return queue.Rate{}
	}}
	a := w.dial()
	a.login("alice@example.test")
	for range 5 { // what is given up or refused does not count
		a.cmd("MAIL FROM:<alice@example.test>", "250")
		a.cmd("RCPT TO:<bob@far.test>", "250")
		a.cmd("RSET", "250")
		a.send("From: eve@example.test\r\n\r\nx", "bob@far.test")
	}
	for range 3 {
		if got := a.send(complete, "bob@far.test"); !strings.HasPrefix(got, "250") {
			t.Errorf("reply %q", got)
		}
	}
	if got := a.cmd("MAIL FROM:<alice@example.test>", "450 4.7.1"); !strings.Contains(got, "20m") {
		t.Errorf("reply %q does not say when", got)
	}
	b := w.dial()
	b.login("bulk@example.test")
	b.cmd("MAIL FROM:<bulk@example.test>", "250")
	for range 4 {
		b.cmd("RCPT TO:<bob@far.test>", "250")
	}
	b.cmd("RCPT TO:<bob@far.test>", "450 4.7.1")
	b.cmd("RSET", "250")
	b.cmd("MAIL FROM:<bulk@example.test>", "250")
	b.cmd("RCPT TO:<bob@far.test>", "250")
}

// Who is suppressed is refused when nobody else is left.
func TestSuppressed(t *testing.T) {
	w := newWorld(t)
	list := new(queue.SuppressionList)
	list.Add("", smtp.Address{Local: "bob", Domain: "far.test"}, "complained")
	w.sub.Queue.Suppressor = list
	c := w.dial()
	c.login("alice@example.test")
	if got := c.send(complete, "bob@far.test"); !strings.HasPrefix(got, "550 5.7.1") || strings.Contains(got, "complained") {
		t.Errorf("reply %q", got)
	}
	w.nothing()
	if got := c.send(complete, "bob@far.test", "ann@far.test"); !strings.HasPrefix(got, "250") {
		t.Errorf("reply %q", got)
	}
	if _, entries := w.stored(); len(entries) != 1 || len(entries[0].Envelope.To) != 1 {
		t.Errorf("entries %+v", entries)
	}
}

// A connection that is cut in the middle of a message leaves nothing.
func TestCut(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	c.login("alice@example.test")
	c.cmd("MAIL FROM:<alice@example.test>", "250")
	c.cmd("RCPT TO:<bob@far.test>", "250")
	c.cmd("DATA", "354")
	if _, err := io.WriteString(c.nc, complete); err != nil {
		t.Fatal(err)
	}
	c.nc.Close()
	if err := w.srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.nothing()
}

func TestOptionsAreKept(t *testing.T) {
	w := newWorld(t)
	w.sub.Tenant = func(id login.Identity) string { return strings.SplitN(id.User, "@", 2)[1] }
	c := w.dial()
	c.login("alice@example.test")
	c.cmd("MAIL FROM:<alice@example.test> RET=HDRS ENVID=QQ+2B1 BODY=8BITMIME SMTPUTF8", "250")
	c.cmd("RCPT TO:<bob@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob@old.test", "250")
	c.cmd("DATA", "354")
	c.cmd("From: alice@example.test\r\nTLS-Required: No\r\nSubject: \u00e4\r\n\r\nx\r\n.", "250")
	_, entries := w.stored()
	e := entries[0]
	if e.Lane.Tenant != "example.test" || !e.Envelope.UTF8 || e.Envelope.Body != smtp.Body8Bit || e.Envelope.Return != smtp.ReturnHeaders ||
		e.Envelope.EnvelopeID != "QQ+1" || !e.Envelope.TLSOptional ||
		e.Envelope.To[0].Notify != smtp.NotifySuccess|smtp.NotifyDelay || e.Envelope.To[0].Original != "bob@old.test" {
		t.Errorf("envelope %+v", e.Envelope)
	}
}

// TestDeliveryOptions: what a client asks for with the extensions about time,
// priority and ownership is in the queue, and mail that is to be held is due
// then.
func TestDeliveryOptions(t *testing.T) {
	w := newWorld(t)
	w.srv.RequireAuth = true
	w.srv.Extensions = append(smtpserver.DefaultExtensions(), "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "RRVS", "NO-SOLICITING")
	c := w.dial()
	c.login("alice@example.test")
	c.cmd("MAIL FROM:<alice@example.test> BY=7200;RT HOLDFOR=3600 MT-PRIORITY=3 SOLICIT=org.example:ADV", "250")
	c.cmd("RCPT TO:<bob@far.test> RRVS=2014-04-03T23:01:00Z;C", "250")
	c.cmd("DATA", "354")
	c.cmd("From: alice@example.test\r\n\r\nx\r\n.", "250")
	_, entries := w.stored()
	e := entries[0]
	o, r := e.Envelope.MailOptions, e.Envelope.To[0]
	if !o.ByReturn || !o.ByTrace || o.DeliverBy.IsZero() || o.HoldRequest != "for;3600" || o.Priority != 3 || o.Solicit != "org.example:ADV" ||
		r.ValidSinceValue() != "2014-04-03T23:01:00Z;C" {
		t.Errorf("envelope %+v", e.Envelope)
	}
	if !e.Due.Equal(o.HoldUntil) || e.Lane.Priority != 3 {
		t.Errorf("due %v, held until %v, lane %+v", e.Due, o.HoldUntil, e.Lane)
	}
}

// seen is a Signer that keeps what it was given.
type seen struct {
	bytes.Buffer
	err error
}

func (s *seen) Signature() (string, error) { return "DKIM-Signature: x\r\n", s.err }

func TestSign(t *testing.T) {
	w := newWorld(t)
	var signer *seen
	var domain string
	w.sub.Sign = func(_ context.Context, from smtp.Address) (submission.Signer, error) {
		domain = from.Domain
		return signer, nil
	}
	signer = new(seen)
	c := w.dial()
	c.login("alice@example.test")
	c.send(complete, "bob@far.test")
	text, _ := w.stored()
	_, signed, ok := strings.Cut(text, "\r\nDKIM-Signature: x\r\n")
	if !ok || signed != signer.String() || signed != complete+"\r\n" || domain != "example.test" {
		t.Errorf("signed %q, sent %q", signer, text)
	}
	signer = &seen{err: errors.New("the key is locked away")}
	if got := c.send(complete, "bob@far.test"); !strings.HasPrefix(got, "451") || strings.Contains(got, "key") {
		t.Errorf("reply %q", got)
	}
	w.nothing()
}

func address(s string) mime.Address {
	a, err := mime.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestSend(t *testing.T) {
	w := newWorld(t)
	m := &mime.Message{From: []mime.Address{address("App <app@example.test>")}, To: []mime.Address{address("bob@far.test")},
		Bcc: []mime.Address{address("audit@other.test")}, Subject: "Grüße", Text: "Hello\n"}
	id, err := w.sub.Send(t.Context(), m, submission.Options{Tenant: "t", Key: "k",
		Envelope: smtp.Envelope{MailOptions: smtp.MailOptions{EnvelopeID: "e"}}})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.sub.Send(t.Context(), m, submission.Options{Tenant: "t", Key: "k"}); err != nil || again != id {
		t.Errorf("the same key again: %v, %v", again, err)
	}
	text, entries := w.stored()
	if len(entries) != 2 || entries[0].Message.ID != id || entries[0].Envelope.EnvelopeID != "e" || entries[0].Envelope.From.Local != "app" {
		t.Errorf("entries %+v", entries)
	}
	if strings.Contains(text, "audit") || !strings.Contains(text, "Hello") {
		t.Errorf("queued %q", text)
	}

	// Another envelope, as of a list.
	_, err = w.sub.Send(t.Context(), m, submission.Options{Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "x", Domain: "y.test"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, entries = w.stored(); len(entries) != 1 || entries[0].Lane.Dest != "y.test" || !entries[0].Envelope.From.IsZero() {
		t.Errorf("entries %+v", entries)
	}

	var refused *smtp.Error
	_, err = w.sub.Prepare(t.Context(), m, submission.Options{Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "x", Domain: "y"}}}}})
	if !errors.As(err, &refused) || refused.Code != 554 {
		t.Errorf("an unqualified recipient: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{complete, "From: a@b.test\n\nx", "From: a@b.test", "\r\n", "x", "From: a@b.test\r\nSender: x\r\nBcc: y\r\n z\r\n\r\n",
		"From: \"\r\n a\" <a@b.test>, c@d.test\r\nDate:\r\n\r\n", "From: g: a@b.test;\r\nMessage-ID: <>\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w := newWorld(t)
		w.sub.MaxHeaderBytes, w.sub.MaxMessageBytes = 4096, 8192
		sub, err := submission.PrepareRaw(w.sub, t.Context(), bytes.NewReader(text))
		if err != nil {
			if w.st.Used() != 0 {
				t.Fatalf("refused with %v, and kept %d octets", err, w.st.Used())
			}
			return
		}
		defer sub.Body.Close()
		out, err := io.ReadAll(io.NewSectionReader(sub.Body, 0, sub.Body.Size()))
		if err != nil {
			t.Fatal(err)
		}
		h := mime.ParseHeader(out)
		if from, err := h.Addresses("From"); err != nil || len(from) == 0 {
			t.Fatalf("From of %q: %v", out, err)
		}
		if _, err := h.Date(); err != nil {
			t.Fatalf("Date of %q: %v", out, err)
		}
		if len(h.MessageIDs("Message-ID")) == 0 || h.Has("Bcc") || len(h.Defects()) > 0 {
			t.Fatalf("header of %q", out)
		}
		// What was completed once is complete.
		again, err := submission.PrepareRaw(w.sub, t.Context(), bytes.NewReader(out))
		if err != nil {
			t.Fatalf("%q was made of %q and is refused: %v", out, text, err)
		}
		defer again.Body.Close()
		if twice, _ := io.ReadAll(io.NewSectionReader(again.Body, 0, again.Body.Size())); !bytes.Equal(out, twice) {
			t.Fatalf("%q became %q", out, twice)
		}
	})
}

func BenchmarkSubmit(b *testing.B) {
	st := new(memqueue.Storage)
	sub := &submission.Submitter{Queue: &queue.Queue{Storage: st}}
	text := []byte(complete + strings.Repeat("Some line of text, as mail has them.\r\n", 100))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := submission.PrepareRaw(sub, context.Background(), bytes.NewReader(text))
		if err != nil {
			b.Fatal(err)
		}
		s.Body.Close()
	}
}

func Example() {
	q := &queue.Queue{Storage: new(memqueue.Storage)} // and a Transport
	sub := &submission.Submitter{Queue: q}
	_, err := sub.Send(context.Background(), &mime.Message{
		From:    []mime.Address{{Name: "Shop", Address: smtp.Address{Local: "shop", Domain: "example.com"}}},
		To:      []mime.Address{{Address: smtp.Address{Local: "ann", Domain: "example.org"}}},
		Subject: "Your order",
		Text:    "It is on its way.\n",
	}, submission.Options{Key: "order-17-shipped"})
	fmt.Println(err)
	// Output: <nil>
}

// AUTH of MAIL names who submitted a message to the hosts that trust us: a
// user is believed for what they may send as, and for nothing else (RFC 4954
// §5).
func TestAuthParameter(t *testing.T) {
	for param, want := range map[string]string{
		"":                             "",
		" AUTH=<>":                     "<>",
		" AUTH=alice@example.test":     "alice@example.test",
		" AUTH=boss@example.test":      "<>",
		" AUTH=nonsense":               "<>",
		" AUTH=alice@example.test+20x": "<>",
	} {
		w := newWorld(t)
		c := w.dial()
		c.login("alice@example.test")
		c.cmd("MAIL FROM:<alice@example.test>"+param, "250")
		c.cmd("RCPT TO:<bob@far.test>", "250")
		c.cmd("DATA", "354")
		c.cmd(strings.ReplaceAll(complete, "\r\n.", "\r\n..")+".", "250")
		if _, entries := w.stored(); entries[0].Envelope.Auth != want {
			t.Errorf("%q: Auth %q, want %q", param, entries[0].Envelope.Auth, want)
		}
	}
}

// What goes wrong in or beside a message: the reply, a connection that goes
// on or is closed, and nothing that stays in the queue's storage.
func TestBadInput(t *testing.T) {
	header := "From: alice@example.test\r\n\r\n"
	for _, tt := range []struct{ name, text, want string }{
		{"NUL in the body", header + "a\x00b\r\n.", "554 5.6.0"},
		{"NUL in the header", "From: alice@example.test\r\nX: \x00\r\n\r\n.", "554 5.6.0"},
		{"bare LF", header + "a\nb\r\n.", "554 5.6.0"},
		{"bare CR", header + "a\rb\r\n.", "554 5.6.0"},
		{"bare CR at the end", header + strings.Repeat("x\r\n", 20_000) + "\r\r\n.", "554 5.6.0"},
		{"long line", header + strings.Repeat("x", 70_000) + "\r\n.", "554 5.6.0"},
		{"empty", ".", "554 5.6.0"},
		{"over the size", header + strings.Repeat("x\r\n", 100_000) + ".", "552 5.3.4"},
		{"broken MIME", "From: alice@example.test\r\nContent-Type: multipart/mixed; boundary=\"\r\n\r\n--x\r\n.", "250"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.srv.MaxMessageBytes = 250_000
			c := w.dial()
			c.login("alice@example.test")
			for range 2 { // the connection goes on
				c.cmd("MAIL FROM:<alice@example.test>", "250")
				c.cmd("RCPT TO:<bob@far.test>", "250")
				c.cmd("DATA", "354")
				c.cmd(tt.text, tt.want)
				if tt.want == "250" {
					if text, _ := w.stored(); !strings.HasSuffix(text, "\r\n--x\r\n") {
						t.Errorf("stored %q", text)
					}
				}
				w.nothing()
			}
		})
	}
	t.Run("wrong password and unknown user", func(t *testing.T) {
		w := newWorld(t)
		w.srv.AuthDelay = -1
		c := w.dial()
		c.cmd("AUTH PLAIN !", "501 5.5.2")
		c.cmd("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00alice@example.test\x00wrong")), "535 5.7.8")
		c.cmd("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00nobody@example.test\x00wrong")), "535 5.7.8")
		c.cmd("MAIL FROM:<alice@example.test>", "530 5.7.0")
		w.nothing()
	})
}
