package pop3server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/pop3"
	"github.com/postrider/postrider/store"
)

const greet = "S: +OK POP3 server ready\n"
const enter = greet + "C: USER alice\nS: +OK\nC: PASS secret\nS: +OK logged in\n"

func TestTranscripts(t *testing.T) {
	one := "Subject: one\r\n\r\nfirst\r\n.dot\r\n..\r\nlast\r\n"
	two := "Subject: two\r\n\r\nno end of line"
	for _, c := range []struct{ name, script string }{
		{"authorization", greet + `
			C: STAT
			S: -ERR log in first
			C: NOOP
			S: -ERR log in first
			C: PASS secret
			S: -ERR USER comes first
			C: USER
			S: -ERR user name expected
			C: user alice
			S: +OK
			C: pass wrong
			S: -ERR [AUTH] wrong user name or password
			C: PASS secret
			S: -ERR USER comes first
			C: USER mallory
			S: +OK
			C: PASS secret
			S: -ERR [AUTH] wrong user name or password
			C: USER alice
			S: +OK
			C: PASS secret
			S: +OK logged in
			C: USER alice
			S: -ERR already logged in
			C: QUIT
			S: +OK goodbye
			S: EOF`},
		{"quit at once", greet + `
			C: QUIT
			S: +OK goodbye
			S: EOF`},
		{"capa", greet + `
			C: CAPA
			S: +OK capabilities follow
			S: TOP
			S: UIDL
			S: RESP-CODES
			S: AUTH-RESP-CODE
			S: PIPELINING
			S: EXPIRE NEVER
			S: SASL PLAIN
			S: USER
			S: .
			C: CAPA x
			S: -ERR no argument expected`},
		{"sasl initial response", greet + `
			C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
			S: +OK logged in`},
		{"sasl challenge", greet + `
			C: auth plain
			S: +
			C: AGFsaWNlAHNlY3JldA==
			S: +OK logged in`},
		{"sasl errors", greet + `
			C: AUTH
			S: -ERR mechanism expected
			C: AUTH CRAM-MD5
			S: -ERR mechanism not offered
			C: AUTH PLAIN !!!!
			S: -ERR initial response is not base64
			C: AUTH PLAIN
			S: +
			C: *
			S: -ERR authentication cancelled
			C: AUTH PLAIN
			S: +
			C: no base64
			S: -ERR response is not base64
			C: AUTH PLAIN =
			S: -ERR malformed response
			C: AUTH PLAIN AGFsaWNlAHdyb25n
			S: -ERR [AUTH] wrong user name or password
			C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
			S: +OK logged in`},
		{"listings", enter + `
			C: STAT
			S: +OK 2 69
			C: LIST
			S: +OK
			S: 1 39
			S: 2 30
			S: .
			C: LIST 2
			S: +OK 2 30
			C: UIDL
			S: +OK
			S: 1 10
			S: 2 20
			S: .
			C: uidl 1
			S: +OK 1 10
			C: LIST 3
			S: -ERR no such message
			C: LIST 0
			S: -ERR no such message
			C: LIST x
			S: -ERR message number expected
			C: LIST 99999999999999999999999999
			S: -ERR message number expected
			C: LIST 1 2
			S: -ERR message number expected`},
		{"retr", enter + `
			C: RETR 1
			S: +OK 39 octets
			S: Subject: one
			S:
			S: first
			S: ..dot
			S: ...
			S: last
			S: .
			C: RETR 2
			S: +OK 30 octets
			S: Subject: two
			S:
			S: no end of line
			S: .
			C: RETR 1
			S: +OK 39 octets
			S: Subject: one
			S:
			S: first
			S: ..dot
			S: ...
			S: last
			S: .
			C: RETR
			S: -ERR message number expected
			C: RETR 3
			S: -ERR no such message`},
		{"top", enter + `
			C: TOP 1 0
			S: +OK
			S: Subject: one
			S:
			S: .
			C: TOP 1 2
			S: +OK
			S: Subject: one
			S:
			S: first
			S: ..dot
			S: .
			C: TOP 2 100
			S: +OK
			S: Subject: two
			S:
			S: no end of line
			S: .
			C: TOP 1
			S: -ERR message number and number of lines expected
			C: TOP 1 -1
			S: -ERR message number and number of lines expected
			C: TOP 9 1
			S: -ERR no such message`},
		{"dele and rset", enter + `
			C: DELE 1
			S: +OK deleted
			C: DELE 1
			S: -ERR message is deleted
			C: RETR 1
			S: -ERR message is deleted
			C: STAT
			S: +OK 1 30
			C: UIDL
			S: +OK
			S: 2 20
			S: .
			C: RSET
			S: +OK
			C: STAT
			S: +OK 2 69
			C: NOOP
			S: +OK`},
		{"bad lines", enter + `
			C: XYZZY
			S: -ERR unknown command
			C:
			S: -ERR unknown command
			C: NO\0OP
			S: -ERR NUL in line
			C: NO\rOP
			S: -ERR bare CR in line
			C: NOOP\nNOOP
			S: -ERR bare LF in line
			S: +OK
			C: NOOP
			S: +OK`},
	} {
		t.Run(c.name, func(t *testing.T) { transcript(t, dial(t, server(newBox(one, two))), c.script) })
	}
}

func TestStatusLineHasTrailingSpaceInChallenge(t *testing.T) {
	nc := dial(t, server(newBox()))
	r := bufio.NewReader(nc)
	r.ReadString('\n')
	io.WriteString(nc, "AUTH PLAIN\r\n")
	if got, _ := r.ReadString('\n'); got != "+ \r\n" { // RFC 5034 §4
		t.Errorf("%q", got)
	}
}

func TestQuitExpunges(t *testing.T) {
	b := newBox("1", "2", "3", "4")
	nc := dial(t, server(b))
	transcript(t, nc, enter+"C: DELE 2\nS: +OK deleted\nC: DELE 3\nS: +OK deleted\nC: QUIT\nS: +OK goodbye\nS: EOF")
	if len(b.bodies) != 2 || b.expunged != 1 || b.closed != 1 {
		t.Errorf("%d left, %d writes, closed %d times", len(b.bodies), b.expunged, b.closed)
	}
}

func TestWithoutQuitNothingIsRemoved(t *testing.T) {
	b := newBox("1", "2")
	s := server(b)
	nc := dial(t, s)
	transcript(t, nc, enter+"C: DELE 1\nS: +OK deleted")
	nc.Close()
	s.Close()
	if len(b.bodies) != 2 || b.expunged != 0 || b.closed != 1 {
		t.Errorf("%d left, %d writes, closed %d times", len(b.bodies), b.expunged, b.closed)
	}
}

func TestFailedExpunge(t *testing.T) {
	b := newBox("1", "2")
	nc := dial(t, server(b))
	transcript(t, nc, enter+"C: DELE 1\nS: +OK deleted")
	b.mu.Lock()
	b.broken = errors.New("disk on fire")
	b.mu.Unlock()
	transcript(t, nc, "C: QUIT\nS: -ERR [SYS/TEMP] messages could not be removed; all are kept\nS: EOF")
	if len(b.bodies) != 2 {
		t.Error("a message is gone")
	}
}

func TestStoreErrors(t *testing.T) {
	b := newBox("1", "2", "3")
	nc := dial(t, server(b))
	transcript(t, nc, enter)
	delete(b.bodies, 20) // another session removed it
	transcript(t, nc, `
		C: RETR 1
		S: +OK 1 octets
		S: 1
		S: .
		C: RETR 2
		S: -ERR [SYS/PERM] there is no such maildrop or message any more
		C: RETR 3
		S: +OK 1 octets
		S: 3
		S: .`)
	b.mu.Lock()
	b.broken = errors.New("secret detail of the database")
	b.mu.Unlock()
	transcript(t, nc, "C: RETR 1\nS: -ERR [SYS/TEMP] not possible now, try again later")
}

func TestLoginErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{login.ErrTooMany, "-ERR [SYS/TEMP] too many attempts, try again later"},
		{fmt.Errorf("database: %w", io.ErrClosedPipe), "-ERR [SYS/TEMP] not possible now, try again later"},
		{fmt.Errorf("x: %w", login.ErrCredentials), "-ERR [AUTH] wrong user name or password"},
	} {
		s := server(newBox())
		s.Auth = auth{err: c.err}
		transcript(t, dial(t, s), greet+"C: USER alice\nS: +OK\nC: PASS secret\nS: "+c.want)
	}
	s := server(nil)
	s.Maildrop = func(context.Context, login.Identity) (Maildrop, error) {
		return nil, &pop3.Error{Code: pop3.InUse, Text: "one session at a time", Err: io.EOF}
	}
	transcript(t, dial(t, s), greet+"C: USER alice\nS: +OK\nC: PASS secret\nS: -ERR [IN-USE] one session at a time\nC: STAT\nS: -ERR log in first")
	s.Maildrop = nil
	transcript(t, dial(t, s), greet+"C: USER alice\nS: +OK\nC: PASS secret\nS: -ERR [SYS/TEMP] not possible now, try again later")
	b := newBox("x")
	b.broken = errors.New("no")
	s = server(b)
	nc := dial(t, s)
	transcript(t, nc, greet+"C: USER alice\nS: +OK\nC: PASS secret\nS: -ERR [SYS/TEMP] not possible now, try again later")
	if b.closed != 1 {
		t.Error("maildrop left open")
	}
}

func TestLimits(t *testing.T) {
	s := server(newBox())
	s.MaxErrors = 3
	transcript(t, dial(t, s), greet+"C: X\nS: -ERR unknown command\nC: X\nS: -ERR unknown command\nC: X\nS: -ERR too many bad commands, goodbye\nS: EOF")
	s = server(newBox())
	s.AuthAttempts = 2
	transcript(t, dial(t, s), greet+"C: USER a\nS: +OK\nC: PASS a\nS: -ERR [AUTH]…\nC: USER a\nS: +OK\nC: PASS a\nS: -ERR [AUTH]…\nS: EOF")
	s = server(newBox())
	s.MaxLine = 100
	transcript(t, dial(t, s), greet+"C: USER "+strings.Repeat("a", 200)+"\nS: -ERR line too long\nC: USER alice\nS: +OK\n")
	transcript(t, dial(t, s), greet+"C: USER "+strings.Repeat("a", 20000)+"\nS: -ERR line too long\nC: USER alice\nS: +OK\n")

	// More messages than a session shows: the newest.
	var bodies []string
	for i := range 25 {
		bodies = append(bodies, fmt.Sprint(i))
	}
	s = server(newBox(bodies...))
	s.MaxMessages = 4
	transcript(t, dial(t, s), enter+"C: UIDL\nS: +OK\nS: 1 220\nS: 2 230\nS: 3 240\nS: 4 250\nS: .")
}

func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := dial(t, server(newBox()))
		transcript(t, nc, enter)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { // octets that come one by one do not buy time
			for {
				time.Sleep(59 * time.Second)
				if _, err := io.WriteString(nc, "x"); err != nil {
					return
				}
			}
		})
		transcript(t, nc, "S: EOF")
		if d := time.Since(start); d != 10*time.Minute {
			t.Errorf("closed after %v", d)
		}
		wg.Wait()
	})
}

func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(strings.Repeat("0123456789\r\n", 1<<20/12))
		s := server(b)
		nc := dial(t, s)
		transcript(t, nc, enter+"C: RETR 1")
		start := time.Now()
		synctest.Wait()
		time.Sleep(time.Hour)
		if s.conns.Len() != 0 {
			t.Error("session still there after", time.Since(start))
		}
	})
}

func TestShutdown(t *testing.T) {
	b := newBox("1")
	s := server(b)
	nc := dial(t, s)
	transcript(t, nc, enter+"C: DELE 1\nS: +OK deleted")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	transcript(t, nc, "S: EOF")
	if b.expunged != 0 {
		t.Error("a session without QUIT removed mail")
	}
	if err := s.ServeConn(nc); !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
	s.Close()
	s.Close()
}

func TestPasswordsNeedTLS(t *testing.T) {
	s := server(newBox())
	s.InsecureAuth = false
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	nc := dial(t, s)
	transcript(t, nc, greet+`
		C: USER alice
		S: -ERR passwords need TLS: use STLS first
		C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
		S: -ERR mechanism not offered
		C: CAPA
		S: +OK capabilities follow
		S: TOP
		S: UIDL
		S: RESP-CODES
		S: AUTH-RESP-CODE
		S: PIPELINING
		S: EXPIRE NEVER
		S: STLS
		S: .
		C: STLS now
		S: -ERR no argument expected
		C: STLS
		S: +OK begin TLS`)
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	transcript(t, tc, `
		C: STLS
		S: -ERR TLS is active already
		C: USER alice
		S: +OK
		C: PASS secret
		S: +OK logged in`)
	s.TLS = nil
	transcript(t, dial(t, s), greet+"C: USER alice\nS: -ERR passwords are not accepted here\nC: STLS\nS: -ERR TLS is not offered")
}

// Commands sent in plain text behind STLS are not run under TLS.
func TestSTLSDropsPlaintext(t *testing.T) {
	s := server(newBox())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	nc := dial(t, s)
	transcript(t, nc, greet)
	go io.WriteString(nc, "STLS\r\nUSER mallory\r\n")
	r := bufio.NewReader(nc)
	if l, _ := r.ReadString('\n'); l != "+OK begin TLS\r\n" {
		t.Fatal(l)
	}
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	transcript(t, tc, "C: PASS secret\nS: -ERR USER comes first")
}

func TestSTLSForgetsUser(t *testing.T) {
	s := server(newBox())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	nc := dial(t, s)
	transcript(t, nc, greet+"C: USER alice\nS: +OK\nC: STLS\nS: +OK begin TLS")
	transcript(t, tls.Client(nc, &tls.Config{InsecureSkipVerify: true}), "C: PASS secret\nS: -ERR USER comes first")
}

func TestImplicitTLS(t *testing.T) {
	s := server(newBox())
	s.TLS, s.ImplicitTLS, s.InsecureAuth = &tls.Config{Certificates: []tls.Certificate{certificate()}}, true, false
	nc := dial(t, s)
	transcript(t, tls.Client(nc, &tls.Config{InsecureSkipVerify: true}), enter)
	transcript(t, dial(t, &Server{ImplicitTLS: true, Log: quiet()}), "S: EOF")
}

// A pipelined group is answered in order, whatever its size, with bodies that
// ride along and bodies that do not.
func TestPipelining(t *testing.T) {
	for _, ride := range []bool{false, true} {
		var bodies []string
		for i := range 300 {
			bodies = append(bodies, fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", i)))
		}
		b := newBox(bodies...)
		b.ride = ride
		nc := dial(t, server(b))
		var cmds, want strings.Builder
		cmds.WriteString("USER alice\r\nPASS secret\r\n")
		want.WriteString("+OK POP3 server ready\r\n+OK\r\n+OK logged in\r\n")
		for i, s := range bodies {
			fmt.Fprintf(&cmds, "RETR %d\r\nDELE %d\r\n", i+1, i+1)
			fmt.Fprintf(&want, "+OK %d octets\r\n%s.\r\n+OK deleted\r\n", len(s), s)
		}
		cmds.WriteString("QUIT\r\n")
		want.WriteString("+OK goodbye\r\n")
		go io.WriteString(nc, cmds.String())
		got, err := io.ReadAll(nc)
		if err != nil || string(got) != want.String() {
			t.Errorf("ride %v: %d octets, want %d: %v", ride, len(got), want.Len(), err)
		}
		if len(b.bodies) != 0 {
			t.Errorf("%d messages left", len(b.bodies))
		}
	}
}

// A message that ends before its size is never given its final dot.
func TestShortBody(t *testing.T) {
	s := server(shortBox{newBox("0123456789")})
	transcript(t, dial(t, s), enter+"C: RETR 1\nS: +OK 10 octets\nS: EOF")
}

type shortBox struct{ *box }

func (shortBox) Open(context.Context, store.Message) (store.Blob, error) {
	return blob{strings.NewReader("0123"), 10}, nil
}

func TestTopper(t *testing.T) {
	msg := "A: b\r\n\r\n1\r\n\r\n3\r\n4"
	for lines, want := range []string{"A: b\r\n\r\n", "A: b\r\n\r\n1\r\n", "A: b\r\n\r\n1\r\n\r\n", "A: b\r\n\r\n1\r\n\r\n3\r\n", msg, msg} {
		for size := 1; size <= len(msg); size++ {
			top := &topper{lines: lines, empty: true}
			got := ""
			for rest := msg; rest != "" && !top.done(); {
				n := min(size, len(rest))
				got += string(top.cut([]byte(rest[:n])))
				rest = rest[n:]
			}
			if got != want {
				t.Errorf("%d lines in chunks of %d: %q, want %q", lines, size, got, want)
			}
		}
	}
}

// FuzzSession sends anything to a session that is logged in or not.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"USER alice\r\nPASS secret\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 2 1\r\nDELE 1\r\nRSET\r\nDELE 2\r\nQUIT\r\n",
		"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nLIST 1\r\nUIDL 2\r\nNOOP\r\nRETR 3\r\n",
		"AUTH PLAIN\r\n*\r\nAUTH PLAIN =\r\nCAPA\r\nSTLS\r\n", "\r\n\r\n", "RETR \x00\r\n", "USER a\nPASS b\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, loggedIn bool) {
		b := newBox("A: b\r\n\r\nbody\r\n", ".\r\n", "")
		if loggedIn {
			in = append([]byte("USER alice\r\nPASS secret\r\n"), in...)
		}
		out := &bytes.Buffer{}
		server(b).ServeConn(&scriptConn{Reader: bytes.NewReader(in), Writer: out})
		for line := range bytes.Lines(out.Bytes()) {
			if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.ContainsAny(line[:len(line)-2], "\r\n\x00") {
				t.Fatalf("line %q", line)
			}
		}
		if b.closed > 1 {
			t.Errorf("closed %d times", b.closed)
		}
	})
}

func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := dial(t, server(newBox()))
		start := time.Now()
		transcript(t, nc, greet)
		for range 3 { // commands do not buy time
			<-time.After(30 * time.Second)
			transcript(t, nc, "C: USER alice\nS: +OK")
		}
		transcript(t, nc, "S: EOF")
		if d := time.Since(start); d != 2*time.Minute {
			t.Errorf("closed after %v", d)
		}
	})
}

// A command that is cut is not run, and no mark survives its session.
func TestCutCommand(t *testing.T) {
	for _, half := range []string{"Q", "QUIT", "QUIT\r", "DELE 2", "RETR 1"} {
		b := newBox("1", "2")
		s := server(b)
		nc := dial(t, s)
		transcript(t, nc, enter+"C: DELE 1\nS: +OK deleted")
		io.WriteString(nc, half)
		nc.Close()
		s.Close()
		if len(b.bodies) != 2 || b.expunged != 0 || b.closed != 1 {
			t.Errorf("%q: %d left, %d writes, closed %d times", half, len(b.bodies), b.expunged, b.closed)
		}
	}
}

// Unknown users and wrong passwords look the same, malformed SASL does not
// count as either, and the session can go on.
func TestBadLogins(t *testing.T) {
	s := server(newBox("x"))
	s.AuthAttempts = -1
	transcript(t, dial(t, s), greet+`
		C: USER mallory
		S: +OK
		C: PASS secret
		S: -ERR [AUTH] wrong user name or password
		C: USER alice
		S: +OK
		C: PASS wrong
		S: -ERR [AUTH] wrong user name or password
		C: AUTH PLAIN !!!
		S: -ERR initial response is not base64
		C: AUTH PLAIN
		S: +
		C: AGFsaWNl!
		S: -ERR response is not base64
		C: AUTH PLAIN
		S: +
		C: *
		S: -ERR authentication cancelled
		C: AUTH PLAIN AGFsaWNl
		S: -ERR malformed response
		C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
		S: +OK logged in
		C: STAT
		S: +OK 1 1`)
}

// A line that goes on beyond all measure ends the session.
func TestEndlessLine(t *testing.T) {
	nc := dial(t, server(newBox()))
	transcript(t, nc, greet)
	go io.WriteString(nc, strings.Repeat("x", 2<<20))
	transcript(t, nc, "S: EOF")
}

type panicBox struct{ *box }

func (panicBox) Open(context.Context, store.Message) (store.Blob, error) { panic("broken") }

// A panic in a maildrop ends its session, and the maildrop is closed.
func TestPanic(t *testing.T) {
	b := panicBox{newBox("1")}
	s := server(b)
	transcript(t, dial(t, s), enter+"C: RETR 1\nS: EOF")
	s.Close()
	if b.closed != 1 {
		t.Errorf("closed %d times", b.closed)
	}
}

// The end of a TLS session is told as TLS tells it.
func TestCloseNotify(t *testing.T) {
	s := server(newBox())
	s.TLS, s.ImplicitTLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}, true
	tc := tls.Client(dial(t, s), &tls.Config{InsecureSkipVerify: true})
	transcript(t, tc, greet+"C: QUIT\nS: +OK goodbye")
	if _, err := tc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v", err)
	}
}
