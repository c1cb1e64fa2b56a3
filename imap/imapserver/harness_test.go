package imapserver_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/storetest"
)

// testAuth knows alice and bob, whose password is "secret".
type testAuth struct{}

func (testAuth) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }

func (testAuth) Start(ctx context.Context, mech string, c *login.Conn) (login.Exchange, error) {
	if mech != "PLAIN" {
		return nil, login.ErrMechanism
	}
	x := &testExchange{}
	x.Server = sasl.NewPlainServer(func(identity, username, password string) error {
		if username != "alice" && username != "bob" || password != "secret" {
			return login.ErrCredentials
		}
		x.id = login.Identity{User: username, Login: username, Mechanism: mech}
		return nil
	})
	return x, nil
}

type testExchange struct {
	sasl.Server
	id login.Identity
}

func (x *testExchange) Identity() login.Identity { return x.id }

// newServer returns a server over a store with the accounts alice and bob.
func newServer(t testing.TB) (*imapserver.Server, *memstore.Store) {
	st := memstore.New()
	for _, a := range []string{"alice", "bob"} {
		if err := st.CreateAccount(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	var served store.Store = st
	if _, ok := t.(*testing.T); ok {
		served = storetest.StrictStore(st, storetest.StrictOptions{}) // nothing but the contract may be relied on
	}
	srv := &imapserver.Server{Store: served, Auth: testAuth{}, InsecureAuth: true, Log: slog.New(slog.DiscardHandler)}
	return srv, st
}

// serve lets srv listen, until the test ends, and returns its address.
func serve(t testing.TB, srv *imapserver.Server) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; err != imapserver.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return l.Addr().String()
}

// client speaks raw IMAP.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	n    int
}

func dial(t testing.TB, addr string) *client {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// start returns a client that is logged in as alice.
func start(t testing.TB, addr string) *client {
	c := dial(t, addr)
	c.want(c.line(), "* OK [CAPABILITY **")
	c.ok("LOGIN alice secret")
	return c
}

// line reads a response with its literals.
func (c *client) line() string {
	c.t.Helper()
	s, err := c.readLine()
	if err != nil {
		c.t.Fatalf("reading: %v (after %q)", err, s)
	}
	return s
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}\r\n$`)

func (c *client) readLine() (string, error) {
	var b bytes.Buffer
	for {
		l, err := c.r.ReadString('\n')
		b.WriteString(l)
		if err != nil {
			return b.String(), err
		}
		m := literalEnd.FindStringSubmatch(l)
		if m == nil {
			return strings.TrimSuffix(b.String(), "\r\n"), nil
		}
		var n int64
		fmt.Sscan(m[1], &n)
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			return b.String(), err
		}
	}
}

func (c *client) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

// cmd sends a command and returns the untagged lines and the tagged one
// without its tag.
func (c *client) cmd(command string) (untagged []string, tagged string) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("t%d", c.n)
	c.write(tag + " " + command + "\r\n")
	return c.answer(tag)
}

func (c *client) answer(tag string) (untagged []string, tagged string) {
	c.t.Helper()
	for {
		l := c.line()
		if rest, ok := strings.CutPrefix(l, tag+" "); ok {
			return untagged, rest
		}
		untagged = append(untagged, l)
	}
}

// match compares with a pattern in which ** is anything.
func match(pattern, s string) bool {
	parts := strings.Split(pattern, "**")
	if len(parts) == 1 {
		return pattern == s
	}
	last := parts[len(parts)-1]
	if !strings.HasPrefix(s, parts[0]) || !strings.HasSuffix(s, last) || len(s) < len(parts[0])+len(last) {
		return false
	}
	s = s[len(parts[0]) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

func (c *client) want(got, pattern string) {
	c.t.Helper()
	if !match(pattern, got) {
		c.t.Errorf("got  %q\nwant %q", got, pattern)
	}
}

// transact sends a command, and wants exactly these untagged lines in order
// and this beginning of the tagged one. In patterns ** is anything.
func (c *client) transact(command, tagged string, untagged ...string) {
	c.t.Helper()
	un, tag := c.cmd(command)
	if !strings.HasPrefix(tag, tagged) {
		c.t.Errorf("%s\ngot  %q\nwant %q", command, tag, tagged)
	}
	bad := len(un) != len(untagged)
	for i := 0; !bad && i < len(un); i++ {
		bad = !match(untagged[i], un[i])
	}
	if bad {
		c.t.Errorf("%s\ngot  %q\nwant %q", command, un, untagged)
	}
}

// ok sends a command that must end well, and returns the untagged lines.
func (c *client) ok(command string) []string {
	c.t.Helper()
	un, tagged := c.cmd(command)
	if !strings.HasPrefix(tagged, "OK ") {
		c.t.Fatalf("%s: %s", command, tagged)
	}
	return un
}

// add appends a message to a mailbox of alice behind the server's back.
func add(t testing.TB, st store.Store, box store.MailboxID, flags store.SystemFlags, messages ...string) {
	t.Helper()
	acc, err := st.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		m = strings.ReplaceAll(strings.ReplaceAll(m, "\r\n", "\n"), "\n", "\r\n")
		d := store.Draft{Body: bytes.NewReader([]byte(m)), Flags: store.Flags{System: flags}, InternalDate: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)}
		if _, err := acc.Append(t.Context(), box, []store.Draft{d}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func literal(s string) string { return fmt.Sprintf("{%d+}\r\n%s", len(s), s) }

const simple = "From: Ann <ann@example.org>\nTo: bob@example.org\nSubject: Hello\nDate: Mon, 1 Jan 2024 12:00:00 +0100\nMessage-ID: <1@example.org>\n\nHi there\n"

// panicLog fails the test when a session panicked.
func panicLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(&panicWriter{t}, nil))
}

type panicWriter struct{ t testing.TB }

func (w *panicWriter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("panic")) {
		w.t.Errorf("%s", p)
	}
	return len(p), nil
}
