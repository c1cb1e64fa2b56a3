package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
)

// far is the far side of a run without -relay: a few providers on loopback,
// each with its ways. They read messages and keep none.
//
//	north.example and all others take nearly everything
//	south.example greylists
//	west.example  is strict: unknown users, full mailboxes, spam
//	late.example  takes all, and bounces some later
//	down.example  does not answer
type far struct {
	bounceAddr string // where bounces go
	keys       []dkim.SignOptions

	pool    *smtpclient.Pool
	addrs   map[string]string // of domains
	servers []*smtpserver.Server
	back    chan bounced
	owed    atomic.Int64 // bounces that are to come
	wg      sync.WaitGroup

	mu       sync.Mutex
	seen     map[string]bool // whom south.example has put off
	received int
	lacking  int // of them: without List-Unsubscribe-Post, or not signed
}

// bounced is a message that comes back.
type bounced struct{ from, to smtp.Address }

func newFar(domain string) (*far, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, roots, err := smtptest.Certificate("127.0.0.1")
	if err != nil {
		return nil, err
	}
	f := &far{keys: []dkim.SignOptions{{Domain: domain, Selector: "demo", Key: key}}, addrs: map[string]string{},
		seen: map[string]bool{}, back: make(chan bounced, 64)}
	f.pool = &smtpclient.Pool{Dialer: smtpclient.Dialer{Hello: domain, TLS: &tls.Config{RootCAs: roots}}}
	for _, name := range []string{"north.example", "south.example", "west.example", "late.example", "down.example"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.close()
			return nil, err
		}
		f.addrs[name] = l.Addr().String()
		if name == "down.example" {
			l.Close()
			continue
		}
		s := &smtpserver.Server{Hostname: "mx." + name, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Log: slog.New(slog.DiscardHandler),
			Backend: smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
				return &farSession{far: f, provider: name}, nil
			})}
		f.servers = append(f.servers, s)
		f.wg.Go(func() { s.Serve(l) })
	}
	f.wg.Go(func() {
		for b := range f.back {
			f.bounce(b)
			f.owed.Add(-1)
		}
	})
	return f, nil
}

// transport leads to the providers, as an MX would.
func (f *far) transport() queue.Transport {
	return &mx.Sender{Pool: f.pool, Route: func(_ context.Context, _ smtp.Address, domain string) (*mx.Route, error) {
		addr, ok := f.addrs[domain]
		if !ok {
			addr = f.addrs["north.example"]
		}
		return mx.Via(addr)
	}}
}

// bounce tells a sender that a mailbox is not there, when it is too late for
// SMTP to say it.
func (f *far) bounce(b bounced) {
	dsn := report.DSN{ReportingMTA: "mx.late.example", Recipients: []report.Recipient{{Final: b.to.String(), Action: report.Failed,
		Status: smtp.EnhancedCode{5, 1, 1}, Diagnostic: "550 5.1.1 No such user here"}}}
	m, err := dsn.Message(mime.Address{Address: smtp.Address{Local: "mailer-daemon", Domain: "late.example"}}, b.from)
	if err != nil {
		slog.Error("far side: making a bounce", "err", err)
		return
	}
	var text bytes.Buffer
	if _, err := m.WriteTo(&text); err != nil {
		slog.Error("far side: making a bounce", "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	env := smtp.Envelope{To: []smtp.Recipient{{Address: b.from}}}
	for _, r := range f.pool.Send(ctx, smtpclient.Target{Addr: f.bounceAddr, Need: smtpclient.Plain}, &env, bytes.NewReader(text.Bytes())) {
		if r.Err != nil {
			slog.Error("far side: sending a bounce", "err", r.Err)
		}
	}
}

func (f *far) close() {
	for _, s := range f.servers {
		s.Close()
	}
	close(f.back) // no session is left
	f.wg.Wait()
	f.pool.Close()
}

// farSession is one connection to a provider.
type farSession struct {
	*far
	provider string
	from     smtp.Address
	to       []smtp.Address
}

func (s *farSession) Mail(_ context.Context, from smtp.Address, _ smtp.MailOptions) error {
	s.from = from
	return nil
}

// Rcpt answers by a number between 0 and 99 that is each address's own.
func (s *farSession) Rcpt(_ context.Context, to smtp.Address, _ smtp.RcptOptions) error {
	n := crc32.ChecksumIEEE([]byte(to.Local)) % 100
	switch {
	case s.provider == "north.example" && n < 2, s.provider == "west.example" && n < 10:
		return smtp.Errorf(550, smtp.EnhancedCode{5, 1, 1}, "No such user here")
	case s.provider == "west.example" && n < 15:
		return smtp.Errorf(552, smtp.EnhancedCode{5, 2, 2}, "Mailbox is full")
	case s.provider == "west.example" && n < 18:
		return smtp.Errorf(554, smtp.EnhancedCode{5, 7, 1}, "This looks like spam")
	case s.provider == "south.example" && s.first(to):
		return smtp.Errorf(450, smtp.EnhancedCode{4, 7, 1}, "Greylisted, try again later")
	}
	s.to = append(s.to, to)
	return nil
}

// first reports whether somebody was not written to before.
func (f *far) first(to smtp.Address) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := to.String()
	if f.seen[key] {
		delete(f.seen, key)
		return false
	}
	f.seen[key] = true
	return true
}

// Data reads the message and looks for what big providers ask of bulk mail.
func (s *farSession) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	br := bufio.NewReaderSize(r, 16<<10)
	top, _ := br.Peek(16 << 10)
	h := mime.ParseHeader(top)
	if _, err := io.Copy(io.Discard, br); err != nil {
		return smtp.Reply{}, err
	}
	s.mu.Lock()
	s.received++
	if !h.Has("DKIM-Signature") || !h.Has("List-Unsubscribe") || !strings.EqualFold(h.Get("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click") {
		s.lacking++
	}
	s.mu.Unlock()
	if s.provider != "late.example" {
		return smtp.Reply{}, nil
	}
	for _, to := range s.to {
		if crc32.ChecksumIEEE([]byte(to.Local))%100 < 10 {
			s.owed.Add(1)
			s.back <- bounced{s.from, to}
		}
	}
	return smtp.Reply{}, nil
}

func (s *farSession) Reset()       { s.from, s.to = smtp.Address{}, nil }
func (s *farSession) Close() error { return nil }
