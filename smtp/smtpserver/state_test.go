package smtpserver_test

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// The states of a session, and what leads there from the banner.
var states = []struct {
	name string
	in   []string
}{
	{"new", nil},
	{"helo", []string{"HELO x"}},
	{"ehlo", []string{"EHLO x"}},
	{"auth", []string{"EHLO x", "AUTH PLAIN " + b64("\x00alice\x00secret")}},
	{"tls", []string{"EHLO x", "STARTTLS", "*", "EHLO x"}},
	{"mail", []string{"EHLO x", "MAIL FROM:<a@one.test>"}},
	{"rcpt", []string{"EHLO x", "MAIL FROM:<a@one.test>", "RCPT TO:<b@two.test>"}},
	{"done", []string{"EHLO x", "MAIL FROM:<a@one.test>", "RCPT TO:<b@two.test>", "DATA", "x\r\n."}},
	{"chunk", []string{"EHLO x", "MAIL FROM:<a@one.test>", "RCPT TO:<b@two.test>", "BDAT 3\r\nx"}},
	{"login", []string{"EHLO x", "AUTH SCRAM-TEST"}},
	{"refused", nil},
}

// stateTable is what each command is answered in each state (RFC 5321 §4.1.4
// and the extensions' own words); a * says that the connection ends.
const stateTable = `
command                  new   helo  ehlo  auth  tls   mail  rcpt  done  chunk login refused
EHLO x                   250   250   250   250   250   250   250   250   503   501   503
HELO x                   250   250   250   250   250   250   250   250   503   501   503
LHLO x                   500   500   500   500   500   500   500   500   503   501   503
EHLO                     501   501   501   501   501   501   501   501   503   334   503
STARTTLS                 503   502   220*  220*  503   503   503   220*  503   334   503
STARTTLS x               503   501   501   501   501   503   503   501   503   501   503
AUTH PLAIN …             503   502   235   503   235   503   503   235   503   501   503
AUTH NONE                503   502   504   503   504   503   503   504   503   501   503
MAIL FROM:<a@one.test>   503   250   250   250   250   503   503   250   503   501   503
MAIL FROM:<a@one.test    503   501   501   501   501   503   503   501   503   501   503
RCPT TO:<b@two.test>     503   503   503   503   503   250   250   503   503   501   503
RCPT TO:b@               503   503   503   503   503   501   501   503   503   501   503
DATA                     503   503   503   503   503   554   354   503   503   334   503
DATA x                   503   503   503   503   503   501   501   503   503   501   503
BDAT 0                   503   503   503   503   503   554   250   503   250   501   503
BDAT 0 LAST              503   503   503   503   503   554   250   503   250   501   503
BDAT x                   501*  501*  501*  501*  501*  501*  501*  501*  501*  501   501*
RSET                     250   250   250   250   250   250   250   250   250   334   503
RSET x                   501   501   501   501   501   501   501   501   503   501   503
NOOP                     250   250   250   250   250   250   250   250   250   334   503
NOOP x                   250   250   250   250   250   250   250   250   250   501   503
VRFY x                   250   250   250   250   250   250   250   250   503   501   503
VRFY                     501   501   501   501   501   501   501   501   503   334   503
EXPN list                250   250   250   250   250   250   250   250   503   501   503
EXPN                     501   501   501   501   501   501   501   501   503   334   503
HELP                     214   214   214   214   214   214   214   214   503   334   503
ETRN x.test              503   250   250   250   250   503   503   250   503   501   503
ETRN                     503   501   501   501   501   503   503   501   503   334   503
XCLIENT ADDR=192.0.2.9   220   220   220   220   220   503   503   220   503   501   503
XFORWARD ADDR=192.0.2.9  503   250   250   250   250   503   503   250   503   501   503
XCLIENT x                501   501   501   501   501   503   503   501   503   501   503
TURN                     502   502   502   502   502   502   502   502   503   334   503
SEND FROM:<a@b.test>     502   502   502   502   502   502   502   502   503   501   503
XYZZY                    500   500   500   500   500   500   500   500   503   501   503
QUIT                     221*  221*  221*  221*  221*  221*  221*  221*  221*  334   221*
QUIT x                   501   501   501   501   501   501   501   501   503   501   501
*                        500   500   500   500   500   500   500   500   503   501   503
`

// TestCommandsInStates is the table, cell by cell.
func TestCommandsInStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := strings.Split(strings.TrimSpace(stateTable), "\n")
		if head := strings.Fields(lines[0]); len(head) != len(states)+1 {
			t.Fatal(head)
		}
		for _, line := range lines[1:] {
			command, rest := cut(line, 25)
			cells := strings.Fields(rest)
			if len(cells) != len(states) {
				t.Fatalf("%q", line)
			}
			for i, want := range cells {
				if got := inState(t, i, command); got != want {
					t.Errorf("%s in state %s: %s, want %s", command, states[i].name, got, want)
				}
			}
		}
	})
}

// cut splits a row of the table behind its first column.
func cut(line string, width int) (first, rest string) {
	n := 0
	for i := range line {
		if n == width {
			return strings.TrimSpace(line[:i]), line[i:]
		}
		n++
	}
	return line, ""
}

// inState returns the code of the reply to command in the i-th state.
func inState(t *testing.T, i int, command string) string {
	t.Helper()
	s := &smtpserver.Server{Hostname: "mx.test", Log: quiet(), TLS: testTLS(), InsecureAuth: true, AuthDelay: -1, Auth: &authenticator{mechs: []string{"PLAIN", "SCRAM-TEST"}},
		Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
			if states[i].name == "refused" {
				return nil, &smtp.Error{Code: 554, Text: "No service"}
			}
			return willing{&session{c: c, b: &backend{}}}, nil
		})}
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeConn(addrConn{theirs, "192.0.2.1"})
	}()
	p := &peer{Conn: ours, r: bufio.NewReader(ours)}
	defer func() {
		p.Close()
		<-done
	}()
	answer := func() string {
		t.Helper()
		for {
			line, err := p.r.ReadString('\n')
			if err != nil || len(line) < 4 {
				return "cut"
			}
			if line[3] == ' ' {
				return line[:3]
			}
		}
	}
	answer()
	for _, in := range states[i].in {
		if in == "*" {
			if err := p.play("*"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p.Write([]byte(in + "\r\n"))
		if code := answer(); code[0] > '3' {
			t.Fatalf("on the way to %s: %s to %q", states[i].name, code, in)
		}
	}
	p.Write([]byte(strings.Replace(command, "…", b64("\x00alice\x00secret"), 1) + "\r\n"))
	code := answer()
	go p.Write([]byte("QUIT\r\n"))
	if code[0] != '3' {
		if next := answer(); next == "cut" {
			code += "*"
		}
	}
	return code
}

type addrConn struct {
	net.Conn
	ip string
}

func (c addrConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 4711} }
