package smtpserver_test

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// willing is a session with every optional command.
type willing struct{ *session }

func (willing) Verify(_ context.Context, name string) (smtp.Reply, error) {
	if name == "nobody" {
		return smtp.Reply{}, &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 1, 1}, Text: "No such user"}
	}
	return smtp.Reply{Text: "Fred <" + name + "@two.test>"}, nil
}

func (willing) Expand(_ context.Context, list string) (smtp.Reply, error) {
	return smtp.Reply{Text: "<a@two.test>\n<b@two.test>"}, nil
}

func (willing) Help(_ context.Context, topic string) (smtp.Reply, error) {
	return smtp.Reply{Text: "About " + topic}, nil
}

func (willing) Turn(_ context.Context, node string) (smtp.Reply, error) {
	if node == "#none" {
		return smtp.Reply{}, &smtp.Error{Code: 459, Enhanced: smtp.EnhancedCode{4, 5, 1}, Text: "Node not allowed"}
	}
	return smtp.Reply{}, nil
}

// outer is a wrapper with nothing of its own.
type outer struct{ smtpserver.Inner }

func wrapped(s smtpserver.Session) smtpserver.Session {
	return &outer{smtpserver.Inner{Session: s}}
}

func willingBackend(b *backend) smtpserver.Backend {
	inner := smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
		return willing{&session{c: c, b: b}}, nil
	})
	pass := func(ctx context.Context, c *smtpserver.Conn, s smtpserver.Session) (smtpserver.Session, error) {
		return wrapped(s), nil
	}
	none := func(ctx context.Context, c *smtpserver.Conn, s smtpserver.Session) (smtpserver.Session, error) {
		return nil, nil
	}
	return smtpserver.Wrap(inner, pass, none, pass)
}

// TestOptionalCommands: what a session has a method for is there, also behind
// two wrappers.
func TestOptionalCommands(t *testing.T) {
	script(t, &smtpserver.Server{Backend: willingBackend(&backend{})}, nil, ehlo("VRFY", "EXPN", "HELP", "ETRN")+`
	> VRFY fred
	< 250 2.0.0 Fred <fred@two.test>
	> VRFY nobody
	< 550 5.1.1 No such user
	> VRFY
	< 501 5.5.4 Syntax: VRFY <address>
	> VRFY ü
	< 501 5.5.4 Syntax: VRFY <address>
	> VRFY ü SMTPUTF8
	< 250 2.0.0 Fred <ü@two.test>
	> EXPN list
	< 250-2.0.0 <a@two.test>
	< 250 2.0.0 <b@two.test>
	> EXPN
	< 501 5.5.4 Syntax: EXPN <list>
	> HELP MAIL
	< 214 2.0.0 About MAIL
	> ETRN two.test
	< 250 2.0.0 Queuing for two.test started
	> ETRN #none
	< 459 4.5.1 Node not allowed
	> ETRN
	< 501 5.5.4 Syntax: ETRN [@|#]<node>
	> MAIL FROM:<>
	< 250 2.1.0 …
	> ETRN two.test
	< 503 5.5.1 …`)
	script(t, &smtpserver.Server{}, &backend{}, hello+`
	> VRFY fred
	< 252 2.5.2 …
	> EXPN list
	< 502 5.5.1 …
	> ETRN two.test
	< 502 5.5.1 …
	> HELP
	< 214 2.0.0 See RFC 5321`)
}

// TestWrap: a wrapper that fails closes what it was to wrap, and DataLMTP
// falls back to Data.
func TestWrap(t *testing.T) {
	b := &backend{}
	fail := func(context.Context, *smtpserver.Conn, smtpserver.Session) (smtpserver.Session, error) {
		return nil, &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Not from there"}
	}
	script(t, &smtpserver.Server{Backend: smtpserver.Wrap(b, fail)}, nil, `
	< 554 5.7.1 Not from there
	> BDAT 4
	> QU
	> QUIT
	< 503 5.5.1 Only QUIT is possible here
	< 221 2.0.0 Goodbye
	!`)
	if b.log() != "close" {
		t.Error(b.log())
	}
	var s smtpserver.Session = &session{b: b}
	r := smtpserver.DataLMTP(t.Context(), s, strings.NewReader("x"), 2)
	if len(r) != 2 || r[0].Err != nil || r[1].Err != nil {
		t.Error(r)
	}
	s = &session{b: b, during: func(context.Context, io.Reader) (smtp.Reply, error) { return smtp.Reply{Code: 452}, nil }}
	if r := smtpserver.DataLMTP(t.Context(), s, strings.NewReader("x"), 1); smtp.ReplyFor(r[0].Err).Code != 452 {
		t.Error(r)
	}
	if _, ok := smtpserver.As[smtpserver.VerifySession](s); ok {
		t.Error("VRFY from nowhere")
	}
}

// TestInner: in LMTP each accepted recipient has its answer through two
// wrappers, message after message, whether the session within gives one for
// each or one for all.
func TestInner(t *testing.T) {
	pass := func(_ context.Context, _ *smtpserver.Conn, s smtpserver.Session) (smtpserver.Session, error) {
		return wrapped(s), nil
	}
	message := func(answers ...string) string {
		s := `
		> MAIL FROM:<a@one.test>
		< 250 2.1.0 Sender OK
		> RCPT TO:<named@two.test>
		< 250 2.1.5 Recipient OK
		> RCPT TO:<unknown@two.test>
		< 550 5.1.1 No such user
		> RCPT TO:<full@two.test>
		< 250 2.1.5 Recipient OK
		> DATA
		< 354 End data with <CR><LF>.<CR><LF>
		> x
		> .
		`
		for _, a := range answers {
			s += "< " + a + "\n"
		}
		return s
	}
	lhlo := "< 220 mx.test LMTP ready\n> LHLO x\n< 250-mx.test\n< 250-PIPELINING\n< 250-SIZE 52428800\n< 250-8BITMIME\n< 250-SMTPUTF8\n< 250-ENHANCEDSTATUSCODES\n< 250-DSN\n< 250-CHUNKING\n< 250 LIMITS RCPTMAX=1000\n"
	backend := func(each bool) smtpserver.Backend {
		b := &backend{}
		return smtpserver.Wrap(smtpserver.BackendFunc(func(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
			s := &session{c: c, b: b}
			if each {
				return &lmtpSession{session: s}, nil
			}
			return s, nil
		}), pass, pass)
	}
	one, all := []string{"250 2.1.5 Stored", "452 4.2.2 Mailbox full"}, []string{"250 2.0.0 OK", "250 2.0.0 OK"}
	script(t, &smtpserver.Server{LMTP: true, Backend: backend(true)}, nil, lhlo+message(one...)+"> RSET\n< 250 2.0.0 OK\n"+noop)
	script(t, &smtpserver.Server{LMTP: true, Backend: backend(false)}, nil, lhlo+message(all...)+message(all...)+noop)
}

// TestExtensions: the parameters of the named extensions, on the commands
// where the RFCs put them, and what each refuses.
func TestExtensions(t *testing.T) {
	b := &backend{}
	s := &smtpserver.Server{TLS: testTLS(), RequireAuth: true, InsecureAuth: true, Auth: &authenticator{mechs: []string{"PLAIN"}}, Extensions: append(smtpserver.DefaultExtensions(),
		"BINARYMIME", "REQUIRETLS", "DELIVERBY 60", "FUTURERELEASE 86400", "MT-PRIORITY MIXER", "RRVS", "NO-SOLICITING net.example:ADV", "X-OURS")}
	rest := "DELIVERBY 60\nFUTURERELEASE 86400 2000-01-02T00:00:00Z\nMT-PRIORITY MIXER\nRRVS\nNO-SOLICITING net.example:ADV\nX-OURS"
	more := func(s string) []string { return strings.Split(s, "\n") }
	script(t, s, b, ehlo(more("BINARYMIME\n"+rest+"\nSTARTTLS\nAUTH PLAIN")...)+`
	> MAIL FROM:<a@one.test> REQUIRETLS
	< 530 5.7.0 …
	> STARTTLS
	< 220 2.0.0 …
	*
	> EHLO client.test
	`+strings.SplitN(ehlo(more("BINARYMIME\nREQUIRETLS\n"+rest+"\nAUTH PLAIN")...), "client.test\n", 2)[1]+`
	> AUTH PLAIN AGFsaWNlAHNlY3JldA==
	< 235 2.7.0 …
	> MAIL FROM:<a@one.test> REQUIRETLS BY=120;RT HOLDFOR=60 MT-PRIORITY=5 SOLICIT=org.example:ADV,b BODY=BINARYMIME
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test> RRVS=2014-04-03T23:01:00Z;C
	< 250 2.1.5 Recipient OK
	> RCPT TO:<b@two.test> RRVS=2014
	< 501 5.5.4 Malformed parameter RRVS
	> RCPT TO:<b@two.test> MT-PRIORITY=3
	< 555 5.5.4 …
	> RCPT TO:<b@two.test> BY=120;R
	< 555 5.5.4 …
	> DATA
	< 503 5.5.1 A message with BODY=BINARYMIME comes with BDAT
	> RSET
	< 250 2.0.0 OK
	> MAIL FROM:<a@one.test> RRVS=2014-04-03T23:01:00Z
	< 555 5.5.4 …
	> MAIL FROM:<a@one.test> NOTIFY=NEVER
	< 555 5.5.4 …
	> MAIL FROM:<a@one.test> REQUIRETLS=yes
	< 501 5.5.4 …
	> MAIL FROM:<a@one.test> BY=30;R
	< 555 5.5.4 BY is below the minimum of DELIVERBY
	> MAIL FROM:<a@one.test> BY=0;R
	< 501 5.5.4 Malformed parameter BY
	> MAIL FROM:<a@one.test> HOLDFOR=86401
	< 501 5.5.4 Malformed parameter HOLDFOR
	> MAIL FROM:<a@one.test> HOLDUNTIL=2001-01-01T00:00:00Z
	< 501 5.5.4 Malformed parameter HOLDUNTIL
	> MAIL FROM:<a@one.test> HOLDFOR=5 HOLDUNTIL=2000-01-01T00:00:10Z
	< 501 5.5.4 …
	> MAIL FROM:<a@one.test> HOLDFOR=500 BY=100;N
	< 501 5.5.4 …
	> MAIL FROM:<a@one.test> MT-PRIORITY=10
	< 501 5.5.4 …
	> MAIL FROM:<a@one.test> MT-PRIORITY=1 MT-PRIORITY=1
	< 501 5.5.4 …
	> MAIL FROM:<a@one.test> SOLICIT=9
	< 501 5.5.4 …
	> MAIL FROM:<a@one.test> HOLDUNTIL=2000-01-01T00:01:00Z
	< 250 2.1.0 Sender OK`)
	want := `mail <a@one.test> {Size:0 Body:BINARYMIME UTF8:false Auth: Return: EnvelopeID: RequireTLS BY=120;RT Hold:for;60 in 1m0s Priority:5 Solicit:org.example:ADV,b}
rcpt <b@two.test> {Notify: OriginalType: Original: RRVS=2014-04-03T23:01:00Z;C}
reset
mail <a@one.test> {Size:0 Body: UTF8:false Auth: Return: EnvelopeID: Hold:until;2000-01-01T00:01:00Z in 1m0s}`
	if got := b.log(); !strings.HasPrefix(got, want) {
		t.Errorf("events\n%s\nwant\n%s", got, want)
	}
}

// TestExtensionsNarrow: FUTURERELEASE outside of submission, REQUIRETLS in
// plain text and BINARYMIME without CHUNKING are not announced, whatever is
// named; a stranger's priority is lowered and said so.
func TestExtensionsNarrow(t *testing.T) {
	b := &backend{}
	script(t, &smtpserver.Server{Extensions: []string{"REQUIRETLS", "FUTURERELEASE", "BINARYMIME", "MT-PRIORITY"}}, b, `
	< 220 mx.test ESMTP ready
	> EHLO client.test
	< 250-mx.test
	< 250 MT-PRIORITY
	> MAIL FROM:<a@one.test> REQUIRETLS
	< 555 5.5.4 …
	> MAIL FROM:<a@one.test> MT-PRIORITY=4
	< 250 2.3.6 0 is the priority without a login
	> RSET
	< 250 2.0.0 OK
	> MAIL FROM:<a@one.test> MT-PRIORITY=-4
	< 250 2.1.0 Sender OK`)
	if strings.Contains(b.log(), "Priority:4") || !strings.Contains(b.log(), "Priority:-4") {
		t.Error(b.log())
	}
}

func TestXCLIENT(t *testing.T) {
	b := &backend{}
	var seen []string
	s := &smtpserver.Server{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
		id, _ := c.Identity()
		seen = append(seen, c.Remote().String()+" "+c.Name()+" "+c.Hello()+" "+id.User)
		return b.NewSession(ctx, c)
	})}
	p := dial(t, serve(t, s))
	const x = `XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT`
	const f = `XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE`
	p.must(t, ehlo(x, f)+`
	> XCLIENT ADDR=nonsense
	< 501 5.5.4 Malformed attribute ADDR
	> XCLIENT WHAT=x
	< 501 5.5.4 Malformed or unknown attribute
	> XCLIENT NAME=spike.example ADDR=IPV6:2001:db8::1 PORT=77 HELO=spike+2Eexample LOGIN=bob
	< 220 mx.test ESMTP ready
	> MAIL FROM:<a@one.test>
	< 503 5.5.1 Say EHLO first
	> EHLO again
	`+strings.SplitN(ehlo(x, f), "client.test\n", 2)[1]+`
	> XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7
	< 250 2.0.0 OK
	> XFORWARD HELO=x+0Ay
	< 501 5.5.4 …
	> XFORWARD ADDR=192.0.2.8 IDENT=Q1
	< 250 2.0.0 OK
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 …
	> XCLIENT ADDR=192.0.2.1
	< 503 5.5.1 …
	> QUIT
	< 221 2.0.0 …
	!`)
	s.Close()
	if len(seen) != 2 || seen[1] != "[2001:db8::1]:77 spike.example spike.example bob" {
		t.Errorf("sessions %q", seen)
	}
	if n := strings.Count(b.log(), "close"); n != 2 {
		t.Error(b.log())
	}
	// A stranger is told nothing of it, and may not.
	p = dial(t, serve(t, &smtpserver.Server{Backend: b}))
	p.must(t, hello+"> XCLIENT ADDR=192.0.2.1\n< 550 5.7.0 Not authorized to use XCLIENT\n> XFORWARD ADDR=192.0.2.1\n< 550 5.7.0 …\n")
}

func TestEarlyTalker(t *testing.T) {
	s := func() *smtpserver.Server { return &smtpserver.Server{BannerDelay: 5 * time.Second} }
	script(t, s(), &backend{}, "@ 4s\n> EHLO client.test\n< 554 5.5.1 Protocol error: you talk before the banner\n!")
	script(t, s(), &backend{}, hello+noop)
	script(t, s(), &backend{}, "@ 1s\nx")
}

// TestErrorDelay: the third wrong command and those after it are answered late.
func TestErrorDelay(t *testing.T) {
	tests := func(n int) time.Duration {
		var took time.Duration
		synctestRun(t, func(t *testing.T) {
			begin := time.Now()
			dialogue(t, &smtpserver.Server{ErrorDelay: time.Second}, &backend{}, hello+strings.Repeat("> XYZZY\n< 500 …\n", n))
			took = time.Since(begin)
		})
		return took
	}
	if d := tests(2); d >= time.Second {
		t.Errorf("2 errors took %v", d)
	}
	if d := tests(5); d < 3*time.Second || d >= 4*time.Second {
		t.Errorf("5 errors took %v", d)
	}
}

// TestTrace: the hooks see a whole connection, and no secret.
func TestTrace(t *testing.T) {
	var b strings.Builder
	note := func(s string) { b.WriteString(s + "\n") }
	tr := &smtpserver.Trace{
		Open:      func(*smtpserver.Conn) { note("open") },
		Close:     func(*smtpserver.Conn) { note("close") },
		Command:   func(_ *smtpserver.Conn, line []byte) { note("C " + string(line)) },
		Reply:     func(_ *smtpserver.Conn, wire []byte) { note("S " + string(wire[:3])) },
		Handshake: func(_ *smtpserver.Conn, err error) { note("tls") },
		Login:     func(_ *smtpserver.Conn, mech string, err error) { note("login " + mech) },
		Message: func(_ *smtpserver.Conn, m smtpserver.MessageEvent) {
			note("message " + m.From.String() + " " + m.Reply.String())
		},
	}
	s := &smtpserver.Server{Trace: tr, TLS: testTLS(), Auth: &authenticator{mechs: []string{"PLAIN"}}}
	script(t, s, &backend{}, ehlo("STARTTLS")+`
	> STARTTLS
	< 220 2.0.0 …
	*
	> EHLO client.test
	`+strings.SplitN(ehlo("AUTH PLAIN"), "client.test\n", 2)[1]+`
	> AUTH PLAIN AGFsaWNlAHNlY3JldA==
	< 235 2.7.0 …
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 …
	> RCPT TO:<b@two.test>
	< 250 2.1.5 …
	> BDAT 3 LAST
	> x
	< 250 2.0.0 OK
	> QUIT
	< 221 2.0.0 Goodbye
	!`)
	want := `open
S 220
C EHLO client.test
S 250
C STARTTLS
S 220
tls
C EHLO client.test
S 250
C AUTH PLAIN (hidden)
login PLAIN
S 235
C MAIL FROM:<a@one.test>
S 250
C RCPT TO:<b@two.test>
S 250
C BDAT 3 LAST
S 250
message a@one.test 250 2.0.0 OK
C QUIT
S 221
close
`
	if b.String() != want {
		t.Errorf("trace\n%s", b.String())
	}
}
