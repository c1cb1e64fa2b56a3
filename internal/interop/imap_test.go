package interop

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// imapConn is just enough IMAP to look into a mailbox without any code of
// ours: what a program wrote is judged by these few lines.
type imapConn struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
	n int
}

func (s *server) imap(t *testing.T, user, pass string) *imapConn {
	t.Helper()
	c, err := tls.Dial("tcp", s.addr["imaps"], s.tls())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ic := newIMAPConn(t, c)
	ic.ok("LOGIN " + user + " " + pass)
	return ic
}

// newIMAPConn reads the greeting of c.
func newIMAPConn(t *testing.T, c net.Conn) *imapConn {
	t.Helper()
	ic := &imapConn{t: t, c: c, r: bufio.NewReaderSize(c, 1<<16)}
	ic.line()
	return ic
}

// line reads one response line with the literals inside it.
func (c *imapConn) line() string {
	c.t.Helper()
	c.c.SetDeadline(time.Now().Add(time.Minute))
	var b strings.Builder
	for {
		s, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("imap: %v after %q", err, tail(b.String(), 200))
		}
		b.WriteString(s)
		s = strings.TrimRight(s, "\r\n")
		i := strings.LastIndexByte(s, '{')
		if i < 0 || !strings.HasSuffix(s, "}") {
			return strings.TrimSuffix(b.String(), "\r\n")
		}
		n, err := strconv.Atoi(strings.TrimSuffix(s[i+1:], "}"))
		if err != nil {
			return strings.TrimSuffix(b.String(), "\r\n")
		}
		if _, err := io.CopyN(&b, c.r, int64(n)); err != nil {
			c.t.Fatalf("imap: literal: %v", err)
		}
	}
}

// ok runs a command that must succeed and returns its untagged replies.
func (c *imapConn) ok(cmd string) []string {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("t%d", c.n)
	fmt.Fprintf(c.c, "%s %s\r\n", tag, cmd)
	var got []string
	for {
		l := c.line()
		if rest, ok := strings.CutPrefix(l, tag+" "); ok {
			if !strings.HasPrefix(rest, "OK") {
				c.t.Fatalf("imap: %s: %s", cmd, rest)
			}
			return got
		}
		got = append(got, l)
	}
}

// count returns how many messages a mailbox has.
func (c *imapConn) count(box string) int {
	c.t.Helper()
	for _, l := range c.ok("STATUS " + box + " (MESSAGES)") {
		if i := strings.Index(l, "MESSAGES "); i >= 0 {
			n, _ := strconv.Atoi(strings.TrimRight(l[i+9:], ")"))
			return n
		}
	}
	c.t.Fatalf("imap: no STATUS of %s", box)
	return 0
}

// wait polls until a mailbox has n messages; the queue delivers in its own
// time.
func (c *imapConn) wait(box string, n int) {
	c.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		if got := c.count(box); got >= n {
			if got > n {
				c.t.Fatalf("imap: %s has %d messages, want %d", box, got, n)
			}
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("imap: %s has %d messages, want %d", box, c.count(box), n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// message returns all octets of one message of the selected mailbox.
func (c *imapConn) message(seq int) string {
	c.t.Helper()
	for _, l := range c.ok(fmt.Sprintf("FETCH %d BODY.PEEK[]", seq)) {
		if i := strings.Index(l, "BODY[] {"); i >= 0 {
			s := l[i+8:]
			n, rest, _ := strings.Cut(s, "}\r\n")
			size, _ := strconv.Atoi(n)
			return rest[:size]
		}
	}
	c.t.Fatalf("imap: no message %d", seq)
	return ""
}

// append stores a message.
func (c *imapConn) append(box, flags, msg string) {
	c.t.Helper()
	c.n++
	fmt.Fprintf(c.c, "t%d APPEND %s (%s) {%d+}\r\n%s\r\n", c.n, box, flags, len(msg), msg)
	for {
		l := c.line()
		if rest, ok := strings.CutPrefix(l, fmt.Sprintf("t%d ", c.n)); ok {
			if !strings.HasPrefix(rest, "OK") {
				c.t.Fatalf("imap: APPEND: %s", rest)
			}
			return
		}
	}
}
