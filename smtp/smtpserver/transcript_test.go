package smtpserver_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// session records what the server asks of it. Addresses and text choose its
// answers: see Rcpt and Data.
type session struct {
	c      *smtpserver.Conn
	b      *backend
	rcpts  int
	during func(ctx context.Context, r io.Reader) (smtp.Reply, error) // replaces Data
}

// backend makes sessions and collects their events.
type backend struct {
	mu     sync.Mutex
	events []string
	data   func(ctx context.Context, r io.Reader) (smtp.Reply, error)
	err    error // of NewSession
}

func (b *backend) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf(format, args...))
}

// log returns the events so far, one a line.
func (b *backend) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.events, "\n")
}

func (b *backend) NewSession(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	if b.err != nil {
		return nil, b.err
	}
	return &session{c: c, b: b, during: b.data}, nil
}

func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	if from.Local == "panic" {
		panic("mail")
	}
	if from.Local == "refused" {
		return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Not you"}
	}
	s.b.note("mail %s %s", from.Path(), showMail(o))
	s.rcpts = 0
	return nil
}

func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	switch to.Local {
	case "unknown":
		return fmt.Errorf("looking up: %w", &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 1, 1}, Text: "No such user", Err: errors.New("secret cause")})
	case "broken":
		return errors.New("secret: /srv/db7 is gone")
	case "later":
		return &smtp.Error{Code: 450, Enhanced: smtp.EnhancedCode{5, 2, 1}, Text: "Busy\nreally\r\nbusy"}
	case "closing":
		return &smtp.Error{Code: 421, Enhanced: smtp.EnhancedCode{4, 3, 2}, Text: "Going away"}
	}
	s.rcpts++
	s.b.note("rcpt %s %s", to.Path(), showRcpt(o))
	return nil
}

func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	if s.during != nil {
		return s.during(ctx, r)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		s.b.note("data failed: %v", err)
		return smtp.Reply{}, err
	}
	s.b.note("data %q", b)
	return smtp.Reply{}, nil
}

func (s *session) Reset() { s.b.note("reset") }

func (s *session) Close() error { s.b.note("close"); return nil }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// script runs a dialogue over net.Pipe, in a synctest bubble so that timeouts
// cost nothing:
//
//	> a line to send; consecutive ones leave in one write. \r, \n, \0 and \
//	  at the end (no CRLF) are understood
//	< a line to receive; … at its end stands for anything
//	@ 5m  wait
//	! the server has closed the connection
//	* the client starts TLS
//	x the client closes
func script(t *testing.T, s *smtpserver.Server, b *backend, text string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		dialogue(t, s, b, text)
	})
}

func dialogue(t *testing.T, s *smtpserver.Server, b *backend, text string) {
	t.Helper()
	if s.Backend == nil && b != nil {
		s.Backend = b
	}
	if s.Hostname == "" {
		s.Hostname = "mx.test"
	}
	if s.Log == nil {
		s.Log = quiet()
	}
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(theirs) }()
	p := &peer{Conn: ours, r: bufio.NewReader(ours)}
	if err := p.play(text); err != nil {
		t.Error(err)
	}
	p.Close()
	if err := <-done; err != nil {
		t.Errorf("ServeConn: %v", err)
	}
}

type peer struct {
	net.Conn
	r *bufio.Reader
}

var unescape = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00", `\t`, "\t", `\xff`, "\xff")

func (p *peer) play(text string) error {
	var out strings.Builder
	send := func() error {
		if out.Len() == 0 {
			return nil
		}
		_, err := io.WriteString(p, out.String())
		out.Reset()
		return err
	}
	for n, line := range strings.Split(strings.TrimSpace(text), "\n") {
		line = strings.TrimLeft(line, "\t ")
		if line == "" {
			continue
		}
		op, arg := line[0], strings.TrimPrefix(line[1:], " ")
		if op == '>' {
			if cut, ok := strings.CutSuffix(arg, `\`); ok {
				out.WriteString(unescape.Replace(cut))
			} else {
				out.WriteString(unescape.Replace(arg) + "\r\n")
			}
			continue
		}
		if err := send(); err != nil {
			return fmt.Errorf("line %d: sending: %w", n+1, err)
		}
		switch op {
		case '<':
			got, err := p.r.ReadString('\n')
			if err != nil {
				return fmt.Errorf("line %d: %q (%w), want %q", n+1, got, err, arg)
			}
			got, ok := strings.CutSuffix(got, "\r\n")
			if !ok {
				return fmt.Errorf("line %d: reply %q does not end with CRLF", n+1, got)
			}
			prefix, open := strings.CutSuffix(arg, "…")
			if got != arg && !(open && strings.HasPrefix(got, prefix)) {
				return fmt.Errorf("line %d: got %q, want %q", n+1, got, arg)
			}
		case '@':
			d, err := time.ParseDuration(arg)
			if err != nil {
				return err
			}
			time.Sleep(d) // of the bubble
		case '!':
			if b, err := p.r.ReadByte(); err == nil {
				rest, _ := p.r.ReadString('\n')
				return fmt.Errorf("line %d: got %q, want the end", n+1, string(b)+rest)
			}
		case '*':
			c := tls.Client(p.Conn, &tls.Config{InsecureSkipVerify: true})
			if err := c.Handshake(); err != nil {
				return fmt.Errorf("line %d: handshake: %w", n+1, err)
			}
			p.Conn, p.r = c, bufio.NewReader(c)
		case 'x':
			p.Close()
		case '#':
		default:
			return fmt.Errorf("line %d: what is %q?", n+1, line)
		}
	}
	return send()
}

// testTLS makes a configuration with a fresh certificate.
var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx.test"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}}
})

const hello = `
	< 220 mx.test ESMTP ready
	> EHLO client.test
	< 250-mx.test
	< 250-PIPELINING
	< 250-SIZE 52428800
	< 250-8BITMIME
	< 250-SMTPUTF8
	< 250-ENHANCEDSTATUSCODES
	< 250-DSN
	< 250-CHUNKING
	< 250 LIMITS RCPTMAX=1000
`

// showMail and showRcpt print options, those of the rarer extensions only
// when they are there.
func showMail(o smtp.MailOptions) string {
	s := fmt.Sprintf("{Size:%d Body:%s UTF8:%t Auth:%s Return:%s EnvelopeID:%s", o.Size, o.Body, o.UTF8, o.Auth, o.Return, o.EnvelopeID)
	if o.RequireTLS {
		s += " RequireTLS"
	}
	if !o.DeliverBy.IsZero() {
		s += " BY=" + o.DeliverByValue(time.Now())
	}
	if !o.HoldUntil.IsZero() {
		s += " Hold:" + o.HoldRequest + " in " + time.Until(o.HoldUntil).String()
	}
	if o.Priority != 0 {
		s += fmt.Sprintf(" Priority:%d", o.Priority)
	}
	if o.Solicit != "" {
		s += " Solicit:" + o.Solicit
	}
	return s + "}"
}

func showRcpt(o smtp.RcptOptions) string {
	s := fmt.Sprintf("{Notify:%s OriginalType:%s Original:%s", o.Notify, o.OriginalType, o.Original)
	if v := o.ValidSinceValue(); v != "" {
		s += " RRVS=" + v
	}
	return s + "}"
}
