package pop3client

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
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/pop3"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

// script plays a server: lines "C: …" are expected, "S: …" are sent; "S- …"
// is sent without CRLF. At its end the connection is closed.
func script(t testing.TB, lines string) net.Conn {
	t.Helper()
	cl, srv := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer srv.Close()
		r := bufio.NewReader(srv)
		for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
			line = strings.TrimSpace(line)
			text, _ := strings.CutPrefix(line[2:], " ")
			switch line[:2] {
			case "C:":
				got, err := r.ReadString('\n')
				if got != text+"\r\n" {
					t.Errorf("client sent %q (%v), want %q", got, err, text)
					return
				}
			case "S:":
				io.WriteString(srv, strings.NewReplacer(`\n`, "\n", `\0`, "\x00").Replace(text)+"\r\n")
			case "S-":
				io.WriteString(srv, text)
			}
		}
	}()
	t.Cleanup(func() { cl.Close(); <-done })
	return cl
}

func client(t testing.TB, lines string) *Client {
	t.Helper()
	d := &Dialer{Security: Plain, Timeout: 5 * time.Second, MaxMessages: 3}
	c, err := d.Client(t.Context(), script(t, "S: +OK ready\n"+lines), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSession(t *testing.T) {
	ctx := t.Context()
	c := client(t, `C: CAPA
		S: +OK
		S: UIDL
		S: SASL PLAIN
		S: .
		C: USER alice
		S: +OK
		C: PASS sec ret
		S: +OK
		C: STAT
		S: +OK 2 320
		C: LIST
		S: +OK 2 messages
		S: 1 120
		S: 2 200 extra
		S: .
		C: UIDL
		S: +OK
		S: 1 abc
		S: 2 def
		S: .
		C: RETR 1
		S: +OK
		S: Subject: x
		S: 
		S: ..dot
		S: .
		C: TOP 2 0
		S: +OK
		S: Subject: y
		S: 
		S: .
		C: DELE 1
		S: +OK
		C: DELE 9
		S: -ERR [SYS/PERM] no
		C: RSET
		S: +OK
		C: NOOP
		S: +OK
		C: QUIT
		S: +OK bye`)
	if c.Greeting() != "ready" || c.TLS() != nil {
		t.Error(c.Greeting())
	}
	caps, err := c.Capabilities(ctx)
	if err != nil || !caps.HasMechanism("PLAIN") {
		t.Fatal(caps, err)
	}
	if err := c.Login(ctx, "alice", "sec ret"); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Stat(ctx); err != nil || s != (pop3.Stat{Messages: 2, Size: 320}) {
		t.Fatal(s, err)
	}
	if l, err := c.List(ctx); err != nil || !reflect.DeepEqual(l, []pop3.Listing{{Number: 1, Size: 120}, {Number: 2, Size: 200}}) {
		t.Fatal(l, err)
	}
	if l, err := c.UIDL(ctx); err != nil || !reflect.DeepEqual(l, []pop3.UniqueID{{Number: 1, ID: "abc"}, {Number: 2, ID: "def"}}) {
		t.Fatal(l, err)
	}
	r, err := c.Retr(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Noop(ctx); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "Subject: x\r\n\r\n.dot\r\n" {
		t.Fatalf("%q %v", b, err)
	}
	r.Close()
	if r, err = c.Top(ctx, 2, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // unread
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Error("read after Close:", err)
	}
	if err := c.Dele(ctx, 1); err != nil {
		t.Fatal(err)
	}
	var e *pop3.Error
	if err := c.Dele(ctx, 9); !errors.As(err, &e) || e.Code != pop3.SysPerm || e.Text != "no" {
		t.Fatal(err)
	}
	for _, f := range []func(context.Context) error{c.Rset, c.Noop, c.Quit} {
		if err := f(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Noop(ctx); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestAuth(t *testing.T) {
	ctx := t.Context()
	c := client(t, "C: AUTH PLAIN AGEAYg==\nS: +OK")
	if err := c.Auth(ctx, sasl.NewPlainClient("", "a", "b")); err != nil {
		t.Error(err)
	}
	c = client(t, "C: AUTH PLAIN AGEAYg==\nS: -ERR [AUTH] no")
	var e *pop3.Error
	if err := c.Auth(ctx, sasl.NewPlainClient("", "a", "b")); !errors.As(err, &e) || e.Code != pop3.Auth {
		t.Error(err)
	}
	// An initial response too long for a command line comes by itself.
	long := strings.Repeat("p", 300)
	c = client(t, "C: AUTH PLAIN\nS: + \nC: AGEAcHBw"+strings.Repeat("cHBw", 99)+"\nS: +OK")
	if err := c.Auth(ctx, sasl.NewPlainClient("", "a", long)); err != nil {
		t.Error(err)
	}
	// A challenge that the mechanism does not expect cancels it.
	c = client(t, "C: AUTH PLAIN AGEAYg==\nS: + eHg=\nC: *\nS: -ERR cancelled\nC: NOOP\nS: +OK")
	if err := c.Auth(ctx, sasl.NewPlainClient("", "a", "b")); !errors.Is(err, sasl.ErrUnexpectedServerChallenge) {
		t.Error(err)
	}
	if err := c.Noop(ctx); err != nil {
		t.Error(err)
	}
	c = client(t, "C: AUTH LOGIN YQ==\nS: + UGFzc3dvcmQ6\nC: Yg==\nS: +OK")
	if err := c.Auth(ctx, sasl.NewLoginClient("a", "b")); err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	c := client(t, "S: +OK")
	for _, a := range [][2]string{{"a\r\nDELE 1", "b"}, {"a", "b\nQUIT"}, {"", "b"}, {"a b", "c"}, {"a", strings.Repeat("x", 5000)}, {"a\x00", "b"}} {
		if err := c.Login(t.Context(), a[0], a[1]); !errors.Is(err, ErrArgument) {
			t.Errorf("%q: %v", a, err)
		}
	}
}

// What a server may send to break a client: each is an error, soon.
func TestHostileServer(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		lines string
		do    func(c *Client) error
		want  error
	}{
		"no status":        {"C: NOOP\nS: * OK IMAP", func(c *Client) error { return c.Noop(ctx) }, ErrProtocol},
		"bare LF":          {`C: NOOP` + "\n" + `S: +OK\n+OK`, func(c *Client) error { return c.Noop(ctx) }, ErrProtocol},
		"NUL":              {`C: NOOP` + "\n" + `S: +OK \0`, func(c *Client) error { return c.Noop(ctx) }, ErrProtocol},
		"long line":        {"C: NOOP\nS: +OK " + strings.Repeat("x", 20_000), func(c *Client) error { return c.Noop(ctx) }, ErrProtocol},
		"endless line":     {"C: NOOP\nS: +OK " + strings.Repeat("x", 3<<20), func(c *Client) error { return c.Noop(ctx) }, io.ErrUnexpectedEOF},
		"too many lines":   {"C: LIST\nS: +OK\nS: 1 1\nS: 2 1\nS: 3 1\nS: 4 1\nS: .", func(c *Client) error { _, err := c.List(ctx); return err }, ErrProtocol},
		"no listing":       {"C: LIST\nS: +OK\nS: one 1", func(c *Client) error { _, err := c.List(ctx); return err }, pop3.ErrListing},
		"no stat":          {"C: STAT\nS: +OK many", func(c *Client) error { _, err := c.Stat(ctx); return err }, ErrProtocol},
		"cut status":       {"C: NOOP\nS- +O", func(c *Client) error { return c.Noop(ctx) }, io.ErrUnexpectedEOF},
		"gone":             {"C: NOOP", func(c *Client) error { return c.Noop(ctx) }, io.ErrUnexpectedEOF},
		"bad challenge":    {"C: AUTH PLAIN AGEAYg==\nS: + !", func(c *Client) error { return c.Auth(ctx, sasl.NewPlainClient("", "a", "b")) }, ErrProtocol},
		"half a message":   {"C: RETR 1\nS: +OK\nS: Subject: x", retr, io.ErrUnexpectedEOF},
		"half a final dot": {"C: RETR 1\nS: +OK\nS: Subject: x\nS- .", retr, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			c0 := client(t, c.lines)
			if err := c.do(c0); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func retr(c *Client) error {
	r, err := c.Retr(context.Background(), 1)
	if err != nil {
		return err
	}
	_, err = io.ReadAll(r)
	if cerr := r.Close(); cerr == nil {
		return fmt.Errorf("Close hid %w", err)
	}
	return err
}

func TestHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl, srv := net.Pipe()
		defer srv.Close()
		start := time.Now()
		_, err := (&Dialer{Security: Plain}).Client(t.Context(), cl, "localhost")
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Error(err, time.Since(start))
		}
		cl, srv2 := net.Pipe()
		defer srv2.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		_, err = (&Dialer{Security: ImplicitTLS}).Client(ctx, cl, "localhost")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Error(err, time.Since(start))
		}
	})
}

func TestCancelWhileReading(t *testing.T) {
	cl, srv := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.WriteString(srv, "+OK\r\n")
		bufio.NewReader(srv).ReadString('\n')
		io.WriteString(srv, "+OK\r\nSubject: x\r\n")
	})
	c, err := (&Dialer{Security: Plain}).Client(t.Context(), cl, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := c.Retr(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	time.AfterFunc(0, cancel)
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.Noop(t.Context()); !errors.Is(err, context.Canceled) {
		t.Error("the connection is of no more use:", err)
	}
	c.Close()
	srv.Close()
}

func TestNoTLS(t *testing.T) {
	_, err := new(Dialer).Client(t.Context(), script(t, "S: +OK\nC: STLS\nS: -ERR what?"), "localhost")
	if !errors.Is(err, ErrNoTLS) {
		t.Error(err)
	}
	// Plain text behind the answer to STLS is an attack.
	_, err = new(Dialer).Client(t.Context(), script(t, `S: +OK
		C: STLS
		S: +OK\n+OK`), "localhost")
	if !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

// The client against pop3server over memstore, over real sockets.
func TestAgainstServer(t *testing.T) {
	ctx := t.Context()
	st := memstore.New()
	if err := st.CreateAccount(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	acc, err := st.Account(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 20 {
		m := fmt.Sprintf("Subject: %d\r\n\r\n.\r\n..\r\n%s\r\n", i, strings.Repeat("line\r\n.line\r\n", i*i*100))
		want = append(want, m)
		if _, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: strings.NewReader(m)}}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	hash, err := login.Hash("secret")
	if err != nil {
		t.Fatal(err)
	}
	users := &login.Passwords{Lookup: func(_ context.Context, user string) (login.Record, error) {
		if user != "alice" {
			return login.Record{}, login.ErrNoUser
		}
		return login.Record{Hash: hash}, nil
	}}
	cert, pool := certificate(t)
	for _, security := range []Security{StartTLS, ImplicitTLS, Plain} {
		srv := &pop3server.Server{Store: st, Auth: users, TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
			ImplicitTLS: security == ImplicitTLS, InsecureAuth: security == Plain, Log: slog.New(slog.DiscardHandler)}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		d := &Dialer{Security: security, TLS: &tls.Config{RootCAs: pool}}
		if security != Plain {
			bad := &Dialer{Security: security} // does not know the certificate
			if _, err := bad.Dial(ctx, l.Addr().String()); err == nil {
				t.Error("unknown certificate accepted")
			}
		}
		c, err := d.Dial(ctx, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if (c.TLS() != nil) != (security != Plain) {
			t.Error("TLS:", c.TLS())
		}
		var e *pop3.Error
		if err := c.Login(ctx, "alice", "wrong"); !errors.As(err, &e) || e.Code != pop3.Auth {
			t.Error(err)
		}
		if err := c.Auth(ctx, sasl.NewPlainClient("", "alice", "secret")); err != nil {
			t.Fatal(err)
		}
		ids, err := c.UIDL(ctx)
		if err != nil || len(ids) != len(want) {
			t.Fatal(len(ids), err)
		}
		sizes, err := c.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range want {
			r, err := c.Retr(ctx, i+1)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); err != nil || string(b) != m || sizes[i].Size != int64(len(m)) {
				t.Fatalf("message %d: %d octets, want %d: %v", i+1, len(b), len(m), err)
			}
		}
		last := len(want)
		if err := c.Dele(ctx, last); err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(ctx); err != nil {
			t.Fatal(err)
		}
		want = want[:last-1]
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, pop3server.ErrServerClosed) {
			t.Error(err)
		}
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// FuzzClient has a server say anything.
func FuzzClient(f *testing.F) {
	f.Add([]byte("+OK\r\n+OK 1 2\r\n+OK\r\n1 2\r\n.\r\n+OK\r\n1 x\r\n.\r\n+OK\r\nSubject: x\r\n\r\n..\r\n.\r\n+OK\r\n"))
	f.Add([]byte("+OK\r\n-ERR [AUTH] x\r\n+OK\r\n.\r\n-ERR\r\n+OK\r\n.\r\n"))
	f.Add([]byte("+OK\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := &Dialer{Security: Plain, MaxMessages: 100}
		c, err := d.Client(t.Context(), saysConn{strings.NewReader(string(in))}, "")
		if err != nil {
			return
		}
		defer c.Close()
		c.Stat(t.Context())
		if l, err := c.List(t.Context()); err == nil && len(l) > 100 {
			t.Error(len(l))
		}
		c.UIDL(t.Context())
		if r, err := c.Retr(t.Context(), 1); err == nil {
			io.Copy(io.Discard, r)
			r.Close()
		}
		c.Auth(t.Context(), sasl.NewLoginClient("a", "b"))
		c.Capabilities(t.Context())
		c.Quit(t.Context())
		if err := c.Noop(t.Context()); err == nil {
			t.Error("alive after Quit")
		}
	})
}

// saysConn is a peer that says what it has to say, whatever it is told.
type saysConn struct{ io.Reader }

func (saysConn) Write(p []byte) (int, error)      { return len(p), nil }
func (saysConn) Close() error                     { return nil }
func (saysConn) LocalAddr() net.Addr              { return nil }
func (saysConn) RemoteAddr() net.Addr             { return nil }
func (saysConn) SetDeadline(time.Time) error      { return nil }
func (saysConn) SetReadDeadline(time.Time) error  { return nil }
func (saysConn) SetWriteDeadline(time.Time) error { return nil }
