package imapserver_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/imap/imapserver"
)

func TestBadInput(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxErrors = -1
	c := start(t, serve(t, srv))
	for _, bad := range []string{"", " ", "a", "a ", "a\tNOOP", "(", "{", "a \"", "a NOOP x", "a NOOP {3+}\r\nabc", "a UID", "a UID ", "+ NOOP", "a LIST", "a SELECT \"\xff\"", "a SELECT {1+}\r\n\x00"} {
		c.write(bad + "\r\n")
		if l := c.line(); !match("a BAD **", l) && !match("* BAD **", l) {
			t.Errorf("%q: %s", bad, l)
		}
		c.transact("NOOP", "OK")
	}
	// A bare LF ends a line, a bare CR does not.
	c.write("x NOOP\n")
	c.want(c.line(), "x OK **")
	c.write("x NOOP\ry NOOP\r\n")
	c.want(c.line(), "x BAD **")
	c.transact("NOOP", "OK")
}

func TestLineTooLong(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxLine = 100
	c := start(t, serve(t, srv))
	c.transact("SELECT "+strings.Repeat("x", 100), "BAD Command line too long")
	c.transact("SELECT \""+strings.Repeat("x", 10000)+"\"", "BAD Command line too long")
	c.transact("NOOP", "OK")
}

func TestTooManyErrors(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxErrors = 3
	c := dial(t, serve(t, srv))
	c.line()
	c.transact("FROB", "BAD")
	c.transact("LOGIN alice wrong", "NO [AUTHENTICATIONFAILED]")
	c.write("a FROB\r\n")
	c.want(c.line(), "a BAD **")
	c.want(c.line(), "* BYE **")
	if _, err := c.readLine(); err == nil {
		t.Error("the connection is still open")
	}
}

func TestTooManyConnections(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxConnectionsPerIP = 1
	addr := serve(t, srv)
	start(t, addr)
	c := dial(t, addr)
	c.want(c.line(), "* BYE [UNAVAILABLE] **")
}

func TestPipelining(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple)
	c := start(t, serve(t, srv))
	c.write("a SELECT INBOX\r\nb FETCH 1 UID\r\nc STATUS INBOX (MESSAGES)\r\nd NOOP\r\n")
	for _, tag := range []string{"a", "b", "c", "d"} {
		if _, s := c.answer(tag); !match("OK **", s) {
			t.Errorf("%s %s", tag, s)
		}
	}
}

// TestTimeouts runs on a fake clock.
func TestTimeouts(t *testing.T) {
	for name, c := range map[string]struct {
		say  string
		wait time.Duration
		want string
	}{
		"silent before login":     {"", 2 * time.Minute, "* BYE Too slow to log in"},
		"busy but never logs in":  {"a NOOP\r\n", 2 * time.Minute, "* BYE Too slow to log in"},
		"half a command":          {"a NO", 2 * time.Minute, "* BYE Too slow"},
		"silent after login":      {"a LOGIN alice secret\r\n", 31 * time.Minute, "* BYE Autologout; idle for too long"},
		"half a command, logged":  {"a LOGIN alice secret\r\nb NO", 2 * time.Minute, "* BYE Too slow"},
		"silent in IDLE":          {"a LOGIN alice secret\r\nb IDLE\r\n", 31 * time.Minute, "* BYE Autologout; idle for too long"},
		"half a literal":          {"a LOGIN {5}\r\nal", 2 * time.Minute, "* BYE Too slow"},
		"half a SASL exchange":    {"a AUTHENTICATE PLAIN\r\n", 2 * time.Minute, "* BYE Too slow"},
		"half of a message":       {"a LOGIN alice secret\r\nb APPEND INBOX {50}\r\nhalf", 2 * time.Minute, "* BYE Too slow"},
		"selected and silent":     {"a LOGIN alice secret\r\nb SELECT INBOX\r\n", 31 * time.Minute, "* BYE Autologout; idle for too long"},
		"DONE that never ends":    {"a LOGIN alice secret\r\nb IDLE\r\nDO", 2 * time.Minute, ""},
		"authenticated, half way": {"a AUTHENTICATE PLAIN\r\nAGF", 2 * time.Minute, "* BYE Too slow"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, _ := newServer(t)
				near, far := net.Pipe()
				done := make(chan struct{})
				go func() { srv.ServeConn(far); close(done) }()
				lines := make(chan string, 100)
				cl := &client{t: t, conn: near}
				cl.r = bufio.NewReader(near)
				go func() {
					defer close(lines)
					for {
						l, err := cl.readLine()
						if err != nil {
							return
						}
						lines <- l
					}
				}()
				begin := time.Now()
				if c.say != "" {
					cl.write(c.say)
				}
				last := ""
				for l := range lines {
					last = l
				}
				<-done
				if took := time.Since(begin); took != c.wait || c.want != "" && last != c.want {
					t.Errorf("ended after %v with %q", took, last)
				}
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	srv, _ := newServer(t)
	addr := serve(t, srv)
	idle, waiting, inIdle := start(t, addr), dial(t, addr), start(t, addr)
	waiting.line()
	inIdle.ok("SELECT INBOX")
	inIdle.write("x IDLE\r\n")
	inIdle.want(inIdle.line(), "+ idling")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{idle, waiting, inIdle} {
		c.want(c.line(), "* BYE Server is shutting down")
		if _, err := c.readLine(); err == nil {
			t.Error("the connection is still open")
		}
	}
	if err := srv.ServeConn(pipeEnd(t)); err != imapserver.ErrServerClosed {
		t.Errorf("got %v", err)
	}
}

func pipeEnd(t *testing.T) net.Conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a
}

func testTLS(t *testing.T) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mail.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestStartTLS(t *testing.T) {
	srv, st := newServer(t)
	srv.InsecureAuth = false
	srv.TLS = testTLS(t)
	c := dial(t, serve(t, srv))
	if g := c.line(); !strings.Contains(g, " STARTTLS LOGINDISABLED]") || strings.Contains(g, "AUTH=PLAIN") {
		t.Errorf("greeting: %s", g)
	}
	c.transact("LOGIN alice secret", "NO [PRIVACYREQUIRED]")
	c.transact("AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==", "NO [PRIVACYREQUIRED]")
	// What is sent in plain text after STARTTLS must not be obeyed.
	c.write("s STARTTLS\r\nevil NOOP\r\n")
	c.want(c.line(), "s OK **")
	tc := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Skipf("the plain text was read as part of the handshake: %v", err)
	}
	c = newClient(t, tc)
	un, _ := c.cmd("CAPABILITY")
	if len(un) != 1 || strings.Contains(un[0], "STARTTLS") || !strings.Contains(un[0], "AUTH=PLAIN") {
		t.Errorf("after STARTTLS: %q", un)
	}
	c.transact("STARTTLS", "BAD")
	c.ok("LOGIN alice secret")
	// A wake-up by deadline must not break the TLS connection.
	c.ok("SELECT INBOX")
	c.write("i IDLE\r\n")
	c.want(c.line(), "+ idling")
	for range 3 {
		add(t, st, "INBOX", 0, simple)
		c.want(c.line(), "* ** EXISTS")
		c.want(c.line(), "* ** RECENT")
	}
	c.write("DONE\r\n")
	c.want(c.line(), "i OK **")
	c.transact("FETCH 1 UID", "OK", "* 1 FETCH (UID 1)")
}

func TestImplicitTLS(t *testing.T) {
	srv, _ := newServer(t)
	srv.InsecureAuth = false
	srv.TLS, srv.ImplicitTLS = testTLS(t), true
	addr := serve(t, srv)
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, conn)
	c.want(c.line(), "* OK [CAPABILITY ** AUTH=PLAIN] **")
	c.ok("LOGIN alice secret")
	c.transact("LOGOUT", "OK", "* BYE **")
}
