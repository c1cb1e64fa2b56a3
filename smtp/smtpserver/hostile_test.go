package smtpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestOverlongLine: a command line that is too long is read away and refused;
// one without any end is refused, and the connection with it.
func TestOverlongLine(t *testing.T) {
	const tooLong = "< 500 5.5.2 Line too long\n"
	endless := strings.Repeat("> "+strings.Repeat("x", 1<<12)+"\\\n", 1<<8+2)
	script(t, &smtpserver.Server{}, &backend{}, hello+"> NOOP "+strings.Repeat("x", 4089)+"\n< 250 2.0.0 OK\n"+
		"> NOOP "+strings.Repeat("x", 4090)+"\n"+tooLong+"> "+strings.Repeat("x", 1<<19)+"\n"+tooLong+noop)
	addr := serve(t, &smtpserver.Server{Backend: &backend{}})
	dial(t, addr).must(t, hello+endless+tooLong+"!")
	// Without a limit the bound is what a line without end has.
	s := &smtpserver.Server{MaxLine: -1, Auth: &authenticator{mechs: []string{"PLAIN"}}, InsecureAuth: true}
	script(t, s, &backend{}, ehlo("AUTH PLAIN")+"> NOOP "+strings.Repeat("x", 100_000)+"\n< 250 2.0.0 OK"+noop)
}

// TestLastReplyArrives: who is cut for its errors is told so although it is
// still sending, and under TLS sees a proper end.
func TestLastReplyArrives(t *testing.T) {
	addr := serve(t, &smtpserver.Server{Backend: &backend{}, TLS: testTLS()})
	p := dial(t, addr)
	p.must(t, ehlo("STARTTLS")+"> STARTTLS\n< 220 2.0.0 Begin TLS\n*\n> EHLO x\n"+strings.SplitN(hello, "client.test\n", 2)[1])
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(p.Conn, strings.Repeat("XYZZY\r\n", 10_000))
	}()
	for range 20 {
		if line, err := p.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "500") {
			t.Fatalf("%q, %v", line, err)
		}
	}
	line, err := p.r.ReadString('\n')
	if err != nil || line != "421 4.7.0 Too many errors, closing connection\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := p.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v", err)
	}
	p.Close()
	<-sent
}

// wokenConn tells when a deadline in the past is set: the server is draining.
type wokenConn struct {
	net.Conn
	armed func() // called before a command is handed out
	woken chan struct{}
	once  sync.Once
}

func (c *wokenConn) SetReadDeadline(d time.Time) error {
	if d.Before(time.Now()) {
		defer c.once.Do(func() { close(c.woken) })
	}
	return c.Conn.SetReadDeadline(d)
}

func (c *wokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.HasPrefix(p[:n], []byte("DATA")) {
		c.armed()
		<-c.woken
	}
	return n, err
}

// TestShutdownBesideData: a Shutdown that comes at the same time as DATA does
// not spoil the message.
func TestShutdownBesideData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		s := &smtpserver.Server{Hostname: "mx.test", Backend: b, Log: quiet()}
		ours, theirs := net.Pipe()
		stopped := make(chan error, 1)
		nc := &wokenConn{Conn: theirs, woken: make(chan struct{})}
		nc.armed = func() { go func() { stopped <- s.Shutdown(context.Background()) }() }
		done := make(chan error, 1)
		go func() { done <- s.ServeConn(nc) }()
		p := &peer{Conn: ours, r: bufio.NewReader(ours)}
		p.must(t, ready+"@ 1s\n> text\n> .\n< 250 2.0.0 OK"+goodbye)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !strings.Contains(b.log(), `data "text\r\n"`) {
			t.Error(b.log())
		}
	})
}

// TestLogRemote: a peer without an IP address has a name in the log, too.
func TestLogRemote(t *testing.T) {
	for network, want := range map[string]string{"pipe": "remote=pipe ", "unix": "remote=unix ", "": "remote=unknown "} {
		var out bytes.Buffer
		s := &smtpserver.Server{Hostname: "mx.test", Backend: &backend{}, Log: slog.New(slog.NewTextHandler(&out, nil))}
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- s.ServeConn(&namedConn{theirs, network}) }()
		p := &peer{Conn: ours, r: bufio.NewReader(ours)}
		p.must(t, ready+"> .\n< 250 2.0.0 OK\n> QUIT\n< 221 2.0.0 Goodbye\n!")
		<-done
		if got := out.String(); !strings.Contains(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	}
}

// namedConn says that it is of some network.
type namedConn struct {
	net.Conn
	network string
}

func (c *namedConn) RemoteAddr() net.Addr {
	switch c.network {
	case "unix":
		return &net.UnixAddr{Net: "unix"} // a client without a name
	case "":
		return nil
	}
	return c.Conn.RemoteAddr()
}

// TestHugeSize: SIZE may have 20 digits (RFC 1870 §3), and then the message
// is too large, not the command malformed.
func TestHugeSize(t *testing.T) {
	script(t, &smtpserver.Server{}, &backend{}, hello+`
	> MAIL FROM:<a@one.test> SIZE=99999999999999999999
	< 552 5.3.4 Message exceeds the maximum size
	> MAIL FROM:<a@one.test> SIZE=999999999999999999999
	< 501 5.5.4 Malformed parameter SIZE
	> MAIL FROM:<a@one.test> SIZE=+1
	< 501 5.5.4 Malformed parameter SIZE`+noop)
}

// TestManyTooManyRecipients: those over the limit cost the others nothing
// (RFC 5321 §4.5.3.1.10).
func TestManyTooManyRecipients(t *testing.T) {
	b := &backend{}
	script(t, &smtpserver.Server{MaxRecipients: 2, MaxCommands: 10}, b, strings.Replace(hello, "1000", "2", 1)+`
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	> RCPT TO:<a@two.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	`+strings.Repeat("> RCPT TO:<c@two.test>\n< 452 4.5.3 Too many recipients\n", 20)+`
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> text
	> .
	< 250 2.0.0 OK`+noop)
	if !strings.Contains(b.log(), `data "text\r\n"`) {
		t.Error(b.log())
	}
}

// TestCutOutsideMessage: a peer that is gone in the middle of a line, or with
// a transaction open, leaves a session that is closed, and no command run.
func TestCutOutsideMessage(t *testing.T) {
	for text, want := range map[string]string{
		"< 220 …\nx":                                    "close",
		"< 220 …\n> EHLO cli\\\nx":                      "close",
		hello + "> MAIL FROM:<a@one.test>\\\nx":         "close",
		hello + "> MAIL FROM:<a@one.test>\\r\\\nx":      "close",
		hello + "> MAIL FROM:<>\n< 250 2.1.0 …\nx":      "mail <> {Size:0 Body: UTF8:false Auth: Return: EnvelopeID:}\nclose",
		hello + "> AUTH PLAIN\n< 334 \n> AGFsaWNl\\\nx": "close",
	} {
		b := &backend{}
		s := &smtpserver.Server{}
		if strings.Contains(text, "AUTH") {
			s.Auth, s.InsecureAuth = &authenticator{mechs: []string{"PLAIN"}}, true
			text = strings.Replace(text, hello, ehlo("AUTH PLAIN"), 1)
		}
		script(t, s, b, text)
		if b.log() != want {
			t.Errorf("%q: events\n%s", text, b.log())
		}
	}
}

// TestCertificateWithoutLeaf: a login may bind to our certificate also when
// whoever made the configuration did not parse it.
func TestCertificateWithoutLeaf(t *testing.T) {
	cfg := testTLS().Clone()
	cfg.Certificates = []tls.Certificate{cfg.Certificates[0]}
	cfg.Certificates[0].Leaf = nil
	a := &authenticator{mechs: []string{"PLAIN"}}
	script(t, &smtpserver.Server{TLS: cfg, ImplicitTLS: true, Auth: a}, &backend{}, "*\n"+ehlo("AUTH PLAIN")+noop)
	if a.conn.Cert == nil || a.conn.Cert.DNSNames[0] != "mx.test" {
		t.Errorf("certificate %v", a.conn.Cert)
	}
}
