package smtpserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// authenticator is a table of fake mechanisms. PLAIN wants alice and
// "secret"; SCRAM-TEST asks "one" and "two" and takes what is answered; DOWN
// and BUSY fail in their ways.
type authenticator struct {
	mechs []string
	conn  *login.Conn // as last seen
}

func (a *authenticator) Mechanisms(c *login.Conn) []string {
	a.conn = c
	return a.mechs
}

func (a *authenticator) Start(ctx context.Context, mech string, c *login.Conn) (login.Exchange, error) {
	switch {
	case mech == "DOWN":
		return nil, errSecret
	case !slices.Contains(a.mechs, mech):
		return nil, login.ErrMechanism
	}
	return &exchange{mech: mech}, nil
}

type exchange struct {
	mech  string
	round int
	got   []string
}

func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	e.round++
	if response == nil {
		e.got = append(e.got, "nil")
	} else {
		e.got = append(e.got, string(response))
	}
	switch e.mech {
	case "PLAIN":
		if response == nil {
			return []byte{}, false, nil
		}
		user, pass, ok := strings.Cut(strings.TrimPrefix(string(response), "\x00"), "\x00")
		switch {
		case !ok:
			return nil, false, login.ErrMalformed
		case user != "alice" || pass != "secret":
			return nil, false, fmt.Errorf("checking: %w", login.ErrCredentials)
		}
		return nil, true, nil
	case "BUSY":
		return nil, false, login.ErrTooMany
	case "ENDLESS":
		return []byte("again"), false, nil
	}
	switch e.round {
	case 1:
		return []byte("one"), false, nil
	case 2:
		return []byte("two"), false, nil
	}
	return nil, true, nil
}

func (e *exchange) Identity() login.Identity {
	return login.Identity{User: "alice@one.test", Login: strings.Join(e.got, "|"), Mechanism: e.mech}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// ehlo is hello with further lines at its end.
func ehlo(more ...string) string {
	s := strings.TrimSuffix(hello, "< 250 LIMITS RCPTMAX=1000\n")
	lines := append([]string{"LIMITS RCPTMAX=1000"}, more...)
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		s += "< 250" + sep + l + "\n"
	}
	return s
}

func TestAuth(t *testing.T) {
	all := []string{"SCRAM-TEST", "PLAIN", "DOWN", "BUSY", "ENDLESS"}
	start := ehlo("AUTH SCRAM-TEST PLAIN DOWN BUSY ENDLESS")
	good, wrong := b64("\x00alice\x00secret"), b64("\x00alice\x00wrong")
	tests := []struct{ name, text string }{
		{"initial response", `
		> AUTH PLAIN ` + good + `
		< 235 2.7.0 Authentication successful
		> AUTH PLAIN ` + good + `
		< 503 5.5.1 Already authenticated
		> EHLO again.test
		< 250-mx.test
		< 250-PIPELINING
		< 250-SIZE 52428800
		< 250-8BITMIME
		< 250-SMTPUTF8
		< 250-ENHANCEDSTATUSCODES
		< 250-DSN
		< 250-CHUNKING
		< 250 LIMITS RCPTMAX=1000`},
		{"challenge", `
		> auth plain
		< 334 
		> ` + good + `
		< 235 2.7.0 Authentication successful`},
		{"two rounds", `
		> AUTH SCRAM-TEST =
		< 334 b25l
		> eA==
		< 334 dHdv
		>
		< 235 2.7.0 Authentication successful`},
		{"cancelled", `
		> AUTH SCRAM-TEST
		< 334 b25l
		> *
		< 501 5.7.0 Authentication cancelled` + noop},
		{"bad base64", `
		> AUTH PLAIN !!!
		< 501 5.5.2 Malformed base64
		> AUTH PLAIN
		< 334 
		> YQ
		< 501 5.5.2 Malformed base64` + noop},
		{"malformed", `
		> AUTH PLAIN ` + b64("nonsense") + `
		< 501 5.5.2 Malformed authentication response
		> AUTH PLAIN =
		< 501 5.5.2 Malformed authentication response` + noop},
		{"unknown mechanism", `
		> AUTH XYZZY
		< 504 5.5.4 Authentication mechanism not offered
		> AUTH
		< 501 5.5.4 Syntax: AUTH mechanism [initial-response]` + noop},
		{"database away", `
		> AUTH DOWN
		< 454 4.7.0 Temporary authentication failure` + noop},
		{"too many", `
		> AUTH BUSY
		< 454 4.7.0 Too many failed logins, try again later` + noop},
		{"too long", `
		> AUTH PLAIN
		< 334 
		> ` + strings.Repeat("A", 12287) + `
		< 500 5.5.6 Authentication exchange line is too long
		> AUTH PLAIN ` + strings.Repeat("A", 10000) + `
		< 535 5.7.8 Authentication credentials invalid` + noop},
		{"bad line", `
		> AUTH PLAIN
		< 334 
		> a\nb
		< 500 5.5.2 Line must end with CRLF and have no other control characters
		< 500 5.5.1 Command not recognized` + noop},
		{"endless", `
		> AUTH ENDLESS` + strings.Repeat("\n< 334 YWdhaW4=\n>", 32) + `
		< 501 5.5.2 Malformed authentication response` + noop},
		{"wrong password until closed", `
		> AUTH PLAIN ` + wrong + `
		< 535 5.7.8 Authentication credentials invalid
		> AUTH PLAIN ` + wrong + `
		< 535 5.7.8 Authentication credentials invalid
		> AUTH PLAIN ` + wrong + `
		< 535 5.7.8 Authentication credentials invalid
		< 421 4.7.0 Too many failed logins, closing connection
		!`},
		{"wrong, then right", `
		> AUTH PLAIN ` + wrong + `
		< 535 5.7.8 Authentication credentials invalid
		> AUTH PLAIN ` + good + `
		< 235 2.7.0 Authentication successful`},
		{"not in a transaction", `
		> MAIL FROM:<a@one.test> AUTH=someone+40one.test
		< 250 2.1.0 Sender OK
		> AUTH PLAIN ` + good + `
		< 503 5.5.1 Not during a transaction: finish it or say RSET`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			script(t, &smtpserver.Server{Auth: &authenticator{mechs: all}, InsecureAuth: true}, &backend{}, start+tt.text)
		})
	}
	t.Run("after HELO", func(t *testing.T) {
		script(t, &smtpserver.Server{Auth: &authenticator{mechs: all}, InsecureAuth: true}, &backend{}, `
		< 220 mx.test ESMTP ready
		> HELO client.test
		< 250 mx.test
		> AUTH PLAIN `+good+`
		< 502 5.5.1 AUTH not offered`)
	})
}

// TestAuthParameter: MAIL's AUTH is believed of who is logged in only.
func TestAuthParameter(t *testing.T) {
	for _, in := range []bool{false, true} {
		b := &backend{}
		s := &smtpserver.Server{Auth: &authenticator{mechs: []string{"PLAIN"}}, InsecureAuth: true}
		text, want := ehlo("AUTH PLAIN"), "Auth:<>"
		if in {
			text += "> AUTH PLAIN " + b64("\x00alice\x00secret") + "\n< 235 2.7.0 Authentication successful\n"
			want = "Auth:bob@one.test"
		}
		script(t, s, b, text+`
		> MAIL FROM:<a@one.test> AUTH=bob+40one.test
		< 250 2.1.0 Sender OK
		> RSET
		< 250 2.0.0 OK
		> MAIL FROM:<a@one.test> AUTH=x+4
		< 501 5.5.4 Malformed parameter AUTH
		> MAIL FROM:<a@one.test> AUTH=x AUTH=x
		< 501 5.5.4 Malformed parameter AUTH`)
		if !strings.Contains(b.log(), want) {
			t.Errorf("no %q in %s", want, b.log())
		}
	}
}

// TestAuthNeedsTLS: what shows a secret is not offered in plain text.
func TestAuthNeedsTLS(t *testing.T) {
	a := &authenticator{mechs: []string{"PLAIN", "SCRAM-TEST"}}
	s := &smtpserver.Server{Auth: a, TLS: testTLS(), RequireAuth: true}
	script(t, s, &backend{}, ehlo("STARTTLS", "AUTH SCRAM-TEST")+`
	> AUTH PLAIN `+b64("\x00alice\x00secret")+`
	< 538 5.7.11 Encryption required for this mechanism
	> MAIL FROM:<a@one.test>
	< 530 5.7.0 Authentication required
	> STARTTLS
	< 220 2.0.0 Begin TLS
	*
	`+strings.TrimPrefix(ehlo("AUTH PLAIN SCRAM-TEST"), "\n\t< 220 mx.test ESMTP ready\n")+`
	> MAIL FROM:<a@one.test>
	< 530 5.7.0 Authentication required
	> AUTH PLAIN `+b64("\x00alice\x00secret")+`
	< 235 2.7.0 Authentication successful
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK`)
	if a.conn.Protocol != "smtp" || a.conn.TLS == nil || a.conn.Cert == nil {
		t.Errorf("login.Conn %+v", a.conn)
	}
	s = &smtpserver.Server{Auth: &authenticator{mechs: []string{"PLAIN"}}}
	script(t, s, &backend{}, hello+`
	> AUTH PLAIN `+b64("\x00alice\x00secret")+`
	< 504 5.5.4 Authentication mechanism not offered`)
}

// TestAuthDelay: each failure is answered later than the one before, and a
// server that stops does not wait for it.
func TestAuthDelay(t *testing.T) {
	const wrong = "\n> AUTH PLAIN AGEAYg==\n< 535 5.7.8 Authentication credentials invalid"
	synctest.Test(t, func(t *testing.T) {
		s := &smtpserver.Server{Auth: &authenticator{mechs: []string{"PLAIN"}}, InsecureAuth: true, AuthAttempts: -1}
		begin := time.Now()
		dialogue(t, s, &backend{}, ehlo("AUTH PLAIN")+strings.Repeat(wrong, 7))
		if took := time.Since(begin); took != (1+2+4+8+16+30+30)*time.Second {
			t.Errorf("7 failures took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &smtpserver.Server{Auth: &authenticator{mechs: []string{"PLAIN"}}, InsecureAuth: true, AuthDelay: -1}
		begin := time.Now()
		dialogue(t, s, &backend{}, ehlo("AUTH PLAIN")+wrong)
		if took := time.Since(begin); took != 0 {
			t.Errorf("a failure took %v", took)
		}
	})
	for _, stop := range []string{"Shutdown", "Close"} {
		synctest.Test(t, func(t *testing.T) {
			s := &smtpserver.Server{Auth: &authenticator{mechs: []string{"PLAIN"}}, InsecureAuth: true, AuthDelay: time.Hour}
			time.AfterFunc(time.Millisecond, func() {
				if stop == "Close" {
					s.Close()
				} else if err := s.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			})
			begin := time.Now()
			text := ehlo("AUTH PLAIN")
			if stop == "Shutdown" {
				text += wrong + "\n< 421 4.3.2 Service shutting down, closing transmission channel\n!"
			} else {
				text += "> AUTH PLAIN AGEAYg==\n!"
			}
			dialogue(t, s, &backend{}, text)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("%s took %v", stop, took)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	b := &backend{}
	var id login.Identity
	var in bool
	s := &smtpserver.Server{
		Auth: &authenticator{mechs: []string{"SCRAM-TEST"}},
		Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
			if _, in := c.Identity(); in {
				return nil, errors.New("identity before login")
			}
			return &identitySession{&session{c: c, b: b}, func() { id, in = c.Identity() }}, nil
		}),
	}
	script(t, s, nil, ehlo("AUTH SCRAM-TEST")+`
	> AUTH SCRAM-TEST
	< 334 b25l
	> eA==
	< 334 dHdv
	>
	< 235 2.7.0 Authentication successful
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK`)
	if want := (login.Identity{User: "alice@one.test", Login: "nil|x|", Mechanism: "SCRAM-TEST"}); !in || id != want {
		t.Errorf("identity %+v, %v", id, in)
	}
}

type identitySession struct {
	*session
	onReset func()
}

func (s *identitySession) Close() error { s.onReset(); return s.session.Close() }

func TestSTARTTLS(t *testing.T) {
	again := strings.TrimPrefix(hello, "\n\t< 220 mx.test ESMTP ready\n")
	b := &backend{}
	script(t, &smtpserver.Server{TLS: testTLS()}, b, ehlo("STARTTLS")+`
	> STARTTLS now
	< 501 5.5.4 This command takes no argument
	> STARTTLS
	< 220 2.0.0 Begin TLS
	*
	> MAIL FROM:<a@one.test>
	< 503 5.5.1 Say EHLO first
	> STARTTLS
	< 503 5.5.1 Say EHLO first
	`+again+`
	> STARTTLS
	< 503 5.5.1 TLS is on already
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> text
	> .
	< 250 2.0.0 OK
	> QUIT
	< 221 2.0.0 Goodbye
	!`)
	if !strings.Contains(b.log(), `data "text\r\n"`) || strings.Count(b.log(), "close") != 1 {
		t.Error(b.log())
	}
	// What an attacker puts behind STARTTLS is not executed under TLS.
	b = &backend{}
	script(t, &smtpserver.Server{TLS: testTLS()}, b, ehlo("STARTTLS")+`
	> STARTTLS
	> MAIL FROM:<attacker@one.test>
	< 554 5.5.1 Nothing may follow STARTTLS before the handshake, closing connection
	!`)
	if b.log() != "close" {
		t.Error(b.log())
	}
	// A handshake that fails ends the connection.
	script(t, &smtpserver.Server{TLS: testTLS()}, &backend{}, ehlo("STARTTLS")+`
	> STARTTLS
	< 220 2.0.0 Begin TLS
	> this is no ClientHello
	x`)
	// One that hangs, after HandshakeTimeout.
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		dialogue(t, &smtpserver.Server{TLS: testTLS()}, &backend{}, ehlo("STARTTLS")+`
		> STARTTLS
		< 220 2.0.0 Begin TLS
		!`)
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestImplicitTLS(t *testing.T) {
	b := &backend{}
	script(t, &smtpserver.Server{TLS: testTLS(), ImplicitTLS: true}, b, "*\n"+hello+`
	> STARTTLS
	< 503 5.5.1 TLS is on already
	> QUIT
	< 221 2.0.0 Goodbye
	!`)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		b := &backend{}
		dialogue(t, &smtpserver.Server{TLS: testTLS(), ImplicitTLS: true, HandshakeTimeout: time.Minute}, b, "!")
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("took %v", took)
		}
		if b.log() != "" {
			t.Errorf("a session before the handshake: %s", b.log())
		}
	})
	script(t, &smtpserver.Server{ImplicitTLS: true}, &backend{}, "!")
}
