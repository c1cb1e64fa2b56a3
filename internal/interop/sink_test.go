package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// sink is a server in this process that takes everything and keeps the
// envelopes: for what examples/mailserver, which is no relay, does not take.
type sink struct {
	addr, certFile string
	server         *smtpserver.Server

	mu    sync.Mutex
	mails []sunk
}

type sunk struct {
	protocol, user, hello string
	remote                string // address and port, and the name that XCLIENT gave
	from                  smtp.Address
	options               smtp.MailOptions
	to                    []smtp.Recipient
	text                  string
}

// startSink serves on loopback until the test ends; change may be nil.
func startSink(t testing.TB, change func(*smtpserver.Server)) *sink {
	t.Helper()
	k := &sink{}
	var keyFile string
	dir := t.TempDir()
	k.certFile, keyFile, _ = certificate(t, dir)
	cert, err := tls.LoadX509KeyPair(k.certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	k.server = &smtpserver.Server{
		Hostname: "sink.test", TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
		MaxConnections: 2000, MaxConnectionsPerIP: 2000, MaxCommands: -1,
		Log:     slog.New(slog.DiscardHandler),
		Backend: k.backend(),
	}
	if change != nil {
		change(k.server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		k.server.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		k.server.Close()
		<-done
	})
	return k
}

func (k *sink) backend() smtpserver.Backend {
	return smtpserver.BackendFunc(func(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
		return &sinkSession{k: k, c: c}, nil
	})
}

type sinkSession struct {
	k *sink
	c *smtpserver.Conn
	m sunk
}

func (s *sinkSession) Mail(_ context.Context, from smtp.Address, o smtp.MailOptions) error {
	s.m = sunk{from: from, options: o, hello: s.c.Hello(), remote: strings.TrimSpace(s.c.Remote().String() + " " + s.c.Name())}
	if id, ok := s.c.Identity(); ok {
		s.m.user = id.User + " " + id.Mechanism
	}
	return nil
}

func (s *sinkSession) Rcpt(_ context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if to.Local == "nobody" {
		return smtp.Errorf(550, smtp.EnhancedCode{5, 1, 1}, "No such user")
	}
	s.m.to = append(s.m.to, smtp.Recipient{Address: to, RcptOptions: o})
	return nil
}

func (s *sinkSession) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return smtp.Reply{}, err
	}
	s.m.text, s.m.protocol = string(b), s.c.Protocol()
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.k.mails = append(s.k.mails, s.m)
	return smtp.Reply{Code: 250, Text: fmt.Sprintf("queued as %d", len(s.k.mails))}, nil
}

func (s *sinkSession) Reset()       {}
func (s *sinkSession) Close() error { return nil }

// wait polls until n messages are here, and returns all.
func (k *sink) wait(t testing.TB, n int, limit time.Duration) []sunk {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		k.mu.Lock()
		m := k.mails[:len(k.mails):len(k.mails)]
		k.mu.Unlock()
		if len(m) >= n {
			return m
		}
		if time.Now().After(end) {
			t.Fatalf("%d messages came, want %d", len(m), n)
		}
	}
}

func (k *sink) port(t testing.TB) string {
	t.Helper()
	_, port, err := net.SplitHostPort(k.addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// relayed is how many messages the long relays move.
func relayed(t testing.TB) int {
	s := os.Getenv("POSTRIDER_RELAY")
	if s == "" {
		return 300
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("POSTRIDER_RELAY=%q is no number", s)
	}
	return n
}

var numbered = regexp.MustCompile(`(?mi)^Subject: number (\d+)\r?$`)

// exactlyOnce checks that the messages "number 0" to "number n-1" came once each.
func exactlyOnce(t testing.TB, n int, texts []string) {
	t.Helper()
	seen := make([]int, n)
	for _, text := range texts {
		m := numbered.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("a message without its number: %q", tail(text, 500))
		}
		i, _ := strconv.Atoi(m[1])
		if i >= n {
			t.Fatalf("number %d", i)
		}
		seen[i]++
	}
	lost, doubled := 0, 0
	for _, c := range seen {
		switch {
		case c == 0:
			lost++
		case c > 1:
			doubled++
		}
	}
	if lost+doubled > 0 {
		t.Errorf("of %d messages %d were lost and %d came twice", n, lost, doubled)
	}
}
