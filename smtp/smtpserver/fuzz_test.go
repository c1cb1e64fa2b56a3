package smtpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// strict is a session that fails when the server breaks Session's contract.
type strict struct {
	fail            func(format string, args ...any)
	open, closed    bool
	rcpts, messages int
	early           bool
	ends            smtpserver.LineEnds
	binary          bool
}

func (s *strict) check(what string, open bool) {
	if s.closed {
		s.fail("%s after Close", what)
	}
	if s.open != open {
		s.fail("%s with transaction open: %v", what, s.open)
	}
}

func (s *strict) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	s.check("Mail", false)
	if !from.Valid() {
		s.fail("Mail from %+v", from)
	}
	if from.Local == "no" {
		return errors.New("no")
	}
	s.open, s.rcpts, s.binary = true, 0, o.Body == smtp.BodyBinary
	return nil
}

func (s *strict) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	s.check("Rcpt", true)
	if !to.Valid() || to.IsZero() {
		s.fail("Rcpt to %+v", to)
	}
	if to.Local == "no" {
		return errors.New("no")
	}
	s.rcpts++
	return nil
}

func (s *strict) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	s.check("Data", true)
	if s.rcpts == 0 {
		s.fail("Data without recipients")
	}
	if s.early {
		return smtp.Reply{}, errors.New("no")
	}
	b, err := io.ReadAll(r)
	if err == nil {
		s.messages++
		if s.binary || s.ends == smtpserver.LineEndsAllow {
			return smtp.Reply{}, nil
		}
		if rest := bytes.ReplaceAll(b, []byte("\r\n"), nil); bytes.ContainsAny(rest, "\r\n\x00") {
			s.fail("message %q", b)
		}
	}
	return smtp.Reply{}, err
}

func (s *strict) Reset() { s.check("Reset", true); s.open = false }

func (s *strict) Close() error {
	if s.closed {
		s.fail("Close twice")
	}
	s.closed = true
	return nil
}

// FuzzSession feeds octets to a whole server. The session's contract holds,
// every reply is well formed, and the server ends when the peer does.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"", "QUIT\r\n", "EHLO x\r\nQUIT\r\n", "HELO x\r\nMAIL FROM:<>\r\nRSET\r\n", "EHLO \r\n\n\x00\r\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.test> SIZE=1 BODY=8BITMIME RET=FULL ENVID=x\r\nRCPT TO:<c@d.test> NOTIFY=DELAY ORCPT=rfc822;x\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n",
		"EHLO x\r\nMAIL FROM:<no@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nNOOP\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<no@d.test>\r\nDATA\r\nRCPT TO:<\"a b\"@[IPv6:::1]>\r\nDATA\r\n..\r\n.\n.\r\nNOOP\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<@x,@y:c@d.test>\r\nDATA\r\na\n.\nb\r\n.\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<Postmaster>\r\nDATA\r\nhalf",
		"EHLO x\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN =\r\nAUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<a@b.test> AUTH=<>\r\n",
		"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b.test>\r\n", "EHLO x\r\nSTARTTLS\r\n\x16\x03\x01\x00\x05hello",
		"EHLO x\r\nMAIL FROM:<\xc3\xbc@b.test> SMTPUTF8\r\nRCPT TO:<\xc3\xbc@\xc3\xbc.test>\r\nVRFY x\r\nEXPN x\r\nHELP\r\nDATA\r\n.\r\n",
		"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n.\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.test> BODY=BINARYMIME BY=5;N MT-PRIORITY=3 SOLICIT=a:B\r\nRCPT TO:<c@d.test> RRVS=2014-04-03T23:01:00Z\r\nBDAT 3\r\n\n\r\x00BDAT 0 LAST\r\nQUIT\r\n",
		"EHLO x\r\nBDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b.test>\r\nBDAT 1\r\nxRCPT TO:<c@d.test>\r\nBDAT 3\r\na\r\nNOOP\r\nBDAT 2\r\na\rRSET\r\nBDAT 3 LAST\r\na\r\nBDAT x\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 1200\r\n" + strings.Repeat("x", 1200) + "BDAT 2 LAST\r\n\r\nETRN x\r\nXCLIENT ADDR=1.2.3.4\r\n",
		"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\na\r\n",
		strings.Repeat("x", 5000) + "\r\nEHLO x\r\nDATA\r\n",
		"XCLIENT NAME=a.test ADDR=IPV6:2001:db8::1 PORT=25 HELO=c.test LOGIN=bob DESTADDR=192.0.2.7 DESTPORT=587\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nXCLIENT ADDR=1.2.3.4\r\nDATA\r\n.\r\nXCLIENT ADDR=[UNAVAILABLE] LOGIN=[TEMPUNAVAIL]\r\nEHLO x\r\nMAIL FROM:<a@b.test>\r\n",
		"EHLO x\r\nXFORWARD NAME=a+20b ADDR=1.2.3.4 IDENT=x SOURCE=REMOTE\r\nXFORWARD HELO=y\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n.\r\nXCLIENT ADDR=x\r\nXCLIENT PORT=99999\r\nXCLIENT HELO=+00\r\nXCLIENT NAME=refuse.test\r\nNOOP\r\n",
	} {
		for mode := range byte(32) {
			f.Add([]byte(s), mode)
		}
	}
	tlsConfig := testTLS()
	f.Fuzz(func(t *testing.T, in []byte, mode byte) {
		var sessions []*strict
		s := &smtpserver.Server{
			Hostname: "mx.test", Log: quiet(), LMTP: mode&1 != 0, TLS: tlsConfig,
			Auth: &authenticator{mechs: []string{"PLAIN", "SCRAM-TEST"}}, InsecureAuth: true, AuthDelay: -1,
			MaxMessageBytes: 1000, MaxTextLine: 100, MaxHeaderBytes: 300, LineEnds: smtpserver.LineEnds((mode >> 2) % 3),
			Extensions: append(smtpserver.DefaultExtensions(), "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "RRVS", "NO-SOLICITING"),
			Trusted:    []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			Backend: smtpserver.BackendFunc(func(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
				// XCLIENT begins another, when the one before has ended.
				if n := len(sessions); n > 0 && !sessions[n-1].closed {
					t.Error("a session beside another")
				}
				if c.Name() == "refuse.test" {
					return nil, &smtp.Error{Code: 550, Text: "no"}
				}
				if mode&16 == 0 && (c.Name() != "" || c.Peer() != c.Remote() || c.Forwarded() != nil) {
					t.Error("a stranger speaks for another")
				}
				st := &strict{fail: t.Errorf, early: mode&2 != 0, ends: smtpserver.LineEnds((mode >> 2) % 3)}
				sessions = append(sessions, st)
				return st, nil
			}),
		}
		ours, theirs := net.Pipe()
		read := make(chan struct{})
		go func() {
			defer close(read)
			checkReplies(t, ours)
		}()
		from := &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 4711}
		if mode&16 != 0 {
			from.IP = net.IPv4(192, 0, 2, 1)
		}
		s.ServeConn(&eofConn{Conn: theirs, r: bytes.NewReader(in), from: from})
		ours.Close()
		<-read
		for _, st := range sessions {
			if !st.closed {
				t.Error("session not closed")
			}
		}
	})
}

// eofConn reads from r, then the end.
type eofConn struct {
	net.Conn
	r    io.Reader
	from net.Addr
}

func (c *eofConn) RemoteAddr() net.Addr { return c.from }

func (c *eofConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// checkReplies reads to the end and fails at what is no reply.
func checkReplies(t *testing.T, r io.Reader) {
	br := bufio.NewReader(r)
	for n := 0; ; n++ {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		if line[0] == 0x15 || line[0] == 0x16 {
			io.Copy(io.Discard, br) // TLS
			return
		}
		if len(line) < 6 || len(line) > 512 || !strings.HasSuffix(line, "\r\n") || line[3] != ' ' && line[3] != '-' || line[0] < '2' || line[0] > '5' {
			t.Errorf("reply line %d: %q", n, line)
		}
	}
}

var _ login.Authenticator = (*authenticator)(nil)
