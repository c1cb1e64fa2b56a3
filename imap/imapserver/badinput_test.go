package imapserver_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store"
)

// pipeServer serves one session over a pipe; cut ends it and waits for its
// end.
func pipeServer(t *testing.T, srv *imapserver.Server) (c *client, cut func()) {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { srv.ServeConn(far); close(done) }()
	c = newClient(t, near)
	c.line()
	return c, func() {
		t.Helper()
		near.Close()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end")
		}
	}
}

// TestAppendCut: of a message, or of several, that do not come whole nothing
// is stored, wherever the connection is cut.
func TestAppendCut(t *testing.T) {
	for _, sent := range []string{
		"a APPEND INBOX",
		"a APPEND INBOX (\\Seen) {10+}",
		"a APPEND INBOX {10+}\r\n",
		"a APPEND INBOX {10+}\r\nhalf",
		"a APPEND INBOX {10+}\r\n0123456789",
		"a APPEND INBOX {10+}\r\n0123456789\r",
		"a APPEND INBOX {10+}\r\n0123456789 {5+}\r\n",
		"a APPEND INBOX {10+}\r\n0123456789 (\\Seen) {5+}\r\nhal",
		"a APPEND INBOX {10+}\r\n0123456789 {5+}\r\nwhole",
		"a APPEND INBOX ~{10+}\r\n01234\x00",
		"a APPEND INBOX {300000+}\r\n" + strings.Repeat("x", 200000), // out of memory, into a file
	} {
		srv, _ := newServer(t)
		c, cut := pipeServer(t, srv)
		c.ok("LOGIN alice secret")
		c.write(sent)
		cut()
		c, cut = pipeServer(t, srv)
		c.ok("LOGIN alice secret")
		c.transact("STATUS INBOX (MESSAGES UIDNEXT)", "OK", "* STATUS INBOX (MESSAGES 0 UIDNEXT 1)")
		cut()
	}
	// The same with literals that wait for consent.
	srv, _ := newServer(t)
	c, cut := pipeServer(t, srv)
	c.ok("LOGIN alice secret")
	c.write("a APPEND INBOX {4}\r\n")
	c.want(c.line(), "+ **")
	c.write("some {9}\r\n")
	c.want(c.line(), "+ **")
	c.write("half")
	cut()
	c, cut = pipeServer(t, srv)
	c.ok("LOGIN alice secret")
	c.transact("STATUS INBOX (MESSAGES)", "OK", "* STATUS INBOX (MESSAGES 0)")
	cut()
}

// TestAppendRefused: each refusal leaves nothing stored, and the session in
// step.
func TestAppendRefused(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxMessage = 1000
	addr := serve(t, srv)
	c := start(t, addr)
	for _, x := range []struct{ command, want string }{
		{"APPEND INBOX {1001}", "NO [TOOBIG]"},                  // no consent
		{"APPEND INBOX {99999999999999999}", "NO [TOOBIG]"},     //
		{"APPEND INBOX {4+}\r\nsome {997}", "NO [TOOBIG]"},      // the second one, no consent
		{"APPEND INBOX {4+}\r\ns\x00me", "NO [CANNOT]"},         // NUL in a literal
		{"APPEND INBOX {4+}\r\ns\x00me {4}", "NO [CANNOT]"},     // and another one announced
		{"APPEND INBOX {4+}\r\nsome ~{2+}\r\n\x00\x00", "NO ["}, // NUL in a literal8, and no part that could be encoded
		{"APPEND INBOX {4+}\r\nsome{4+}\r\nmore", "BAD"},
		{"APPEND INBOX {4+}\r\nsome {0+}\r\n", "NO"},
	} {
		c.transact(x.command, x.want)
		c.transact("NOOP", "OK")
	}
	c.transact("STATUS INBOX (MESSAGES UIDNEXT)", "OK", "* STATUS INBOX (MESSAGES 0 UIDNEXT 1)")
	// What comes unasked and is not worth reading away, or nobody knows how
	// much of it, ends the session.
	for announced, want := range map[string]string{"{100000000+}": "z NO [TOOBIG] **", "{99999999999999999999+}": "z BAD **", "{x": "z BAD **"} {
		c := start(t, addr)
		c.write("z APPEND INBOX " + announced + "\r\n")
		c.want(c.line(), want)
		c.want(c.line(), "* BYE [TOOBIG] **")
		if _, err := c.readLine(); err == nil {
			t.Error("the connection is still open")
		}
	}
}

// TestStrangers: before a login little can be taken from the server.
func TestStrangers(t *testing.T) {
	srv, _ := newServer(t)
	addr := serve(t, srv)
	c := dial(t, addr)
	c.line()
	c.transact("LOGIN {9000}", "NO [TOOBIG]")
	c.transact("LOGIN {9000+}\r\n"+strings.Repeat("x", 9000)+" x", "NO [TOOBIG]")
	c.transact("LOGIN alice {5+}\r\nwrong", "NO [AUTHENTICATIONFAILED]")
	c.transact("LOGIN mallory {5+}\r\nwrong", "NO [AUTHENTICATIONFAILED]") // as of a wrong password
	c.transact("LOGIN ~{4+}\r\na\x00bc x", "BAD")
	c.transact("AUTHENTICATE PLAIN !", "BAD")
	c.transact("NOOP", "OK")
	c.write("y LOGIN {2000000+}\r\n")
	c.want(c.line(), "y NO [TOOBIG] **")
	c.want(c.line(), "* BYE [TOOBIG] **")
	if _, err := c.readLine(); err == nil {
		t.Error("the connection is still open")
	}
	c = dial(t, addr)
	c.line()
	go io.Copy(c.conn, strings.NewReader("y NOOP "+strings.Repeat("x", 3<<20)))
	c.want(c.line(), "y BAD **")
	c.want(c.line(), "* BYE [TOOBIG] **")
	c = dial(t, addr)
	c.line()
	c.ok("LOGIN {5+}\r\nalice secret")
	c.transact("SELECT {9000+}\r\n"+strings.Repeat("x", 9000), "NO [NONEXISTENT]")
}

// TestDrip: octets that come one by one do not hold a session for ever.
func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _ := newServer(t)
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { srv.ServeConn(far); close(done) }()
		c := &client{t: t, conn: near, r: bufio.NewReader(near)}
		c.line()
		c.ok("LOGIN alice secret")
		begin := time.Now()
		c.write("a APPEND INBOX {100000}\r\n")
		c.want(c.line(), "+ **")
		var drip sync.WaitGroup
		defer drip.Wait()
		drip.Go(func() {
			for {
				if _, err := near.Write([]byte("x")); err != nil {
					return
				}
				<-time.After(90 * time.Second) // by the bubble's clock
			}
		})
		c.want(c.line(), "* BYE Too slow")
		<-done
		if took := time.Since(begin); took > 3*time.Minute {
			t.Errorf("ended after %v", took)
		}
	})
}

// balanced tells whether a response is well-formed as far as parentheses,
// quoted strings and literals go.
func balanced(s string) error {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return fmt.Errorf("closed at %d", i)
			}
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
				if i < len(s) && (s[i] == '\r' || s[i] == '\n' || s[i] >= 0x80) {
					return fmt.Errorf("octet %#x in a quoted string", s[i])
				}
			}
		case '{':
			end := strings.Index(s[i:], "}\r\n")
			if end < 0 {
				return fmt.Errorf("no literal at %d", i)
			}
			n := 0
			fmt.Sscan(s[i+1:i+end], &n)
			if i += end + 2 + n; i >= len(s) {
				return fmt.Errorf("literal over the end")
			}
		case '\r', '\n', 0:
			return fmt.Errorf("octet %#x at %d", c, i)
		}
	}
	if depth != 0 {
		return fmt.Errorf("%d not closed", depth)
	}
	return nil
}

// TestUnparsableMessages fetches everything of messages that no parser likes.
func TestUnparsableMessages(t *testing.T) {
	var deep, many strings.Builder
	for i := range 400 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	many.WriteString("Content-Type: multipart/mixed; boundary=b\n\n")
	for range 12000 {
		many.WriteString("--b\n\n\n")
	}
	messages := []string{
		"x", "\n", "\n\n\n", ":\n", "no header at all", "\xff\xfe\xfd\x80\x81", strings.Repeat("(", 5000),
		"Subject: evil\r)\rx BAD\n\nx", "Subject: \"\\) {3}\n\nx", "From: \"a\\\n\" <\n\n", "From: <@,,@;;:><(((((\nTo: a:b:c;;;\n\n",
		"Content-Type: multipart/mixed\n\n--\n", "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\nx\n----\n",
		"Content-Type: multipart/mixed; boundary=b\n\nno delimiter", "Content-Type: multipart/mixed; boundary=b\n\n--b", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n--b--",
		"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n!!!!", "Content-Type: ))((; x=\")\"; =;;\n\n", "Content-Type: text/plain; charset*0*=%%; charset*1=x\nContent-Disposition: \"a\r\nb\n\n",
		"Content-Transfer-Encoding: base64\n\nA===A!\xff", "Content-Transfer-Encoding: quoted-printable\n\n=X=\n=", "Content-Transfer-Encoding: x-unknown\n\nx", "Content-Transfer-Encoding: \x00\n\n\x00",
		"Date: \x01\x02\nMessage-ID: <\nIn-Reply-To: >\n\n", deep.String(), many.String(), "A: " + strings.Repeat("x", 100000) + "\n\nx",
	}
	srv, st := newServer(t)
	srv.Log = panicLog(t)
	add(t, st, "INBOX", 0, messages...)
	addr := serve(t, srv)
	for _, first := range []string{"NOOP", "ENABLE UTF8=ACCEPT"} {
		c := start(t, addr)
		c.ok(first)
		c.ok("SELECT INBOX")
		for n := range messages {
			for _, items := range []string{"(ENVELOPE BODY BODYSTRUCTURE RFC822.SIZE INTERNALDATE)", "(BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT])", "(BODY.PEEK[1] BODY.PEEK[1.MIME] BODY.PEEK[1.1.MIME] BODY.PEEK[2.TEXT] BODY.PEEK[1.HEADER])",
				"(BODY.PEEK[HEADER.FIELDS (SUBJECT FROM {3+}\r\n\r)\n)])", "(BODY.PEEK[HEADER.FIELDS.NOT (DATE)]<1.20>)", "BINARY.PEEK[1]", "BINARY.SIZE[1]"} {
				un, tagged := c.cmd(fmt.Sprintf("FETCH %d %s", n+1, items))
				if !strings.HasPrefix(tagged, "OK") && !strings.HasPrefix(tagged, "NO [UNKNOWN-CTE]") && !strings.HasPrefix(tagged, "NO [NONEXISTENT]") {
					t.Errorf("message %d, %s: %s", n+1, items, tagged)
				}
				for _, l := range un {
					if err := balanced(l); err != nil && first == "NOOP" {
						t.Errorf("message %d, %s: %v in %.200q", n+1, items, err, l)
					}
				}
			}
		}
		c.ok("SEARCH TEXT x SENTSINCE 1-Jan-2020")
		c.ok("SEARCH OR FROM x HEADER Content-Type y")
	}
}

// TestManySections: no number of sections makes the server hold a message
// many times.
func TestManySections(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", store.Seen, "A: x\nB: "+strings.Repeat(strings.Repeat("y", 70)+"\n ", 10000)+"\n\n",
		"Content-Transfer-Encoding: base64\n\n"+strings.Repeat("QUFBQUFBQUFBQUFBQUFB\n", 30000))
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	// Of what takes memory for a while, too.
	limits := []uint64{10 << 20, 30 << 20}
	for n, item := range []string{"BODY.PEEK[HEADER.FIELDS.NOT (A)]", "BINARY.PEEK[1]"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.write(fmt.Sprintf("x FETCH %d (%s)\r\n", n+1, strings.TrimSpace(strings.Repeat(item+" ", 100))))
		got := 0
		for end := false; !end; {
			l, err := c.r.ReadSlice('\n')
			if err != nil && err != bufio.ErrBufferFull {
				t.Fatal(err)
			}
			got += len(l)
			end = bytes.HasPrefix(l, []byte("x OK"))
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; got < 40<<20 || took > limits[n] {
			t.Errorf("%s: %d octets of memory for an answer of %d", item, took, got)
		}
	}
}

// panicking is a store whose messages cannot be read without a panic.
type panicking struct{ store.Store }

func (p panicking) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := p.Store.Account(ctx, id)
	return panickingAccount{a}, err
}

type panickingAccount struct{ store.Account }

func (panickingAccount) Messages(context.Context, store.MailboxID, store.Query) iter.Seq2[store.Message, error] {
	panic("store is broken")
}

// TestPanic: a panic in a store ends its session, not the process.
func TestPanic(t *testing.T) {
	srv, st := newServer(t)
	srv.Store = panicking{st}
	addr := serve(t, srv)
	c := start(t, addr)
	c.write("a SELECT INBOX\r\n")
	c.want(c.line(), "* BYE [SERVERBUG] Internal error")
	if _, err := c.readLine(); err == nil {
		t.Error("the connection is still open")
	}
	start(t, addr).transact("NOOP", "OK")
}
