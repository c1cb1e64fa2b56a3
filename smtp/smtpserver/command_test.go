package smtpserver_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func TestTransaction(t *testing.T) {
	b := &backend{}
	script(t, &smtpserver.Server{}, b, hello+`
	> MAIL FROM:<a@one.test> SIZE=100 BODY=8BITMIME
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> Subject: x
	>
	> ..stuffed
	> .
	< 250 2.0.0 OK
	> QUIT
	< 221 2.0.0 Goodbye
	!
	`)
	want := `mail <a@one.test> {Size:100 Body:8BITMIME UTF8:false Auth: Return: EnvelopeID:}
rcpt <b@two.test> {Notify: OriginalType: Original:}
data "Subject: x\r\n\r\n.stuffed\r\n"
reset
close`
	if got := b.log(); got != want {
		t.Errorf("events\n%s\nwant\n%s", got, want)
	}
}

// TestCommands walks through every command in every state.
func TestCommands(t *testing.T) {
	const mail = `
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	`
	const rcpt = mail + `
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	`
	tests := []struct{ name, text string }{
		{"before EHLO", `
		< 220 mx.test ESMTP ready
		> MAIL FROM:<a@one.test>
		< 503 5.5.1 Say EHLO first
		> RCPT TO:<a@one.test>
		< 503 5.5.1 Say EHLO first
		> DATA
		< 503 5.5.1 Say EHLO first
		> AUTH PLAIN
		< 503 5.5.1 Say EHLO first
		> STARTTLS
		< 503 5.5.1 Say EHLO first
		> NOOP
		< 250 2.0.0 OK
		> RSET
		< 250 2.0.0 OK
		> HELP MAIL
		< 214 2.0.0 See RFC 5321
		> VRFY someone
		< 252 2.5.2 Cannot verify, but will take a message and try
		> QUIT
		< 221 2.0.0 Goodbye
		!`},
		{"HELO", `
		< 220 mx.test ESMTP ready
		> HELO client.test
		< 250 mx.test
		> MAIL FROM:<a@one.test> SIZE=1
		< 555 5.5.4 Parameter not recognized
		> MAIL FROM:<a@one.test>
		< 250 2.1.0 Sender OK
		> RCPT TO:<b@two.test>
		< 250 2.1.5 Recipient OK`},
		{"after EHLO", hello + `
		> RCPT TO:<a@one.test>
		< 503 5.5.1 Say MAIL first
		> DATA
		< 503 5.5.1 Say MAIL first
		> AUTH PLAIN
		< 502 5.5.1 AUTH not offered
		> STARTTLS
		< 502 5.5.1 STARTTLS not offered
		> EXPN list
		< 502 5.5.1 Command not implemented
		> BDAT 0 LAST
		< 503 5.5.1 Say MAIL first
		> XYZZY
		< 500 5.5.1 Command not recognized
		> STARTTLSX
		< 500 5.5.1 Command not recognized
		> \
		>
		< 500 5.5.1 Command not recognized
		> LHLO client.test
		< 500 5.5.1 This is not LMTP: say EHLO
		> noop anything goes
		< 250 2.0.0 OK
		> EHLO
		< 501 5.5.4 Say your name: one word of at most 255 characters
		> EHLO two words
		< 501 5.5.4 Say your name: one word of at most 255 characters
		> VRFY
		< 501 5.5.4 Syntax: VRFY <address>
		> DATA now
		< 503 5.5.1 Say MAIL first
		> RSET now
		< 501 5.5.4 This command takes no argument
		> QUIT   \t
		< 221 2.0.0 Goodbye
		!`},
		{"after MAIL", hello + mail + `
		> MAIL FROM:<c@one.test>
		< 503 5.5.1 Not during a transaction: finish it or say RSET
		> AUTH PLAIN
		< 503 5.5.1 Not during a transaction: finish it or say RSET
		> STARTTLS
		< 503 5.5.1 Not during a transaction: finish it or say RSET
		> DATA
		< 554 5.5.1 No valid recipients
		> VRFY x
		< 252 2.5.2 Cannot verify, but will take a message and try
		> RSET
		< 250 2.0.0 OK
		> RCPT TO:<b@two.test>
		< 503 5.5.1 Say MAIL first`},
		{"after RCPT", hello + rcpt + `
		> MAIL FROM:<c@one.test>
		< 503 5.5.1 Not during a transaction: finish it or say RSET
		> DATA x
		< 501 5.5.4 This command takes no argument
		> HELO client.test
		< 250 mx.test
		> DATA
		< 503 5.5.1 Say MAIL first`},
		{"session's answers", hello + `
		> MAIL FROM:<refused@one.test>
		< 550 5.7.1 Not you
		> RCPT TO:<b@two.test>
		< 503 5.5.1 Say MAIL first
		> MAIL FROM:<>
		< 250 2.1.0 Sender OK
		> RCPT TO:<unknown@two.test>
		< 550 5.1.1 No such user
		> RCPT TO:<broken@two.test>
		< 451 4.3.0 Local error, try again later
		> RCPT TO:<later@two.test>
		< 450-4.2.1 Busy
		< 450-4.2.1 really
		< 450 4.2.1 busy
		> DATA
		< 554 5.5.1 No valid recipients
		> RCPT TO:<closing@two.test>
		< 421 4.3.2 Going away
		!`},
		{"pipelined", hello + `
		> MAIL FROM:<a@one.test>
		> RCPT TO:<unknown@two.test>
		> RCPT TO:<b@two.test>
		> DATA
		< 250 2.1.0 Sender OK
		< 550 5.1.1 No such user
		< 250 2.1.5 Recipient OK
		< 354 End data with <CR><LF>.<CR><LF>
		> hi
		> .
		> MAIL FROM:<a@one.test>
		> RCPT TO:<b@two.test>
		> DATA
		> .
		> QUIT
		< 250 2.0.0 OK
		< 250 2.1.0 Sender OK
		< 250 2.1.5 Recipient OK
		< 354 End data with <CR><LF>.<CR><LF>
		< 250 2.0.0 OK
		< 221 2.0.0 Goodbye
		!`},
		{"malformed lines", hello + `
		> NOOP\nNOOP\n\
		< 500 5.5.2 Line must end with CRLF and have no other control characters
		< 500 5.5.2 Line must end with CRLF and have no other control characters
		> NO\rOP
		< 500 5.5.2 Line must end with CRLF and have no other control characters
		> NO\0OP
		< 500 5.5.2 Line must end with CRLF and have no other control characters
		> NOOP
		< 250 2.0.0 OK
		> NOOP ` + strings.Repeat("x", 4089) + `
		< 250 2.0.0 OK
		> NOOP ` + strings.Repeat("x", 4090) + `
		< 500 5.5.2 Line too long
		> NOOP ` + strings.Repeat("x", 20000) + `
		< 500 5.5.2 Line too long
		> QUIT
		< 221 2.0.0 Goodbye
		!`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { script(t, &smtpserver.Server{}, &backend{}, tt.text) })
	}
}

// TestAddresses shows each form of path, as the session sees it.
func TestAddresses(t *testing.T) {
	long := strings.Repeat("l", 300)
	tests := []struct{ path, reply, seen string }{
		{"<b@two.test>", "250 2.1.5 Recipient OK", "<b@two.test>"},
		{"<B@TWO.test>", "250 2.1.5 Recipient OK", "<B@two.test>"},
		{" <b@two.test>", "250 2.1.5 Recipient OK", "<b@two.test>"},
		{"<Postmaster>", "250 2.1.5 Recipient OK", "<Postmaster>"},
		{"<postmaster@two.test>", "250 2.1.5 Recipient OK", "<postmaster@two.test>"},
		{"<@one.test,@two.test:b@three.test>", "250 2.1.5 Recipient OK", "<b@three.test>"},
		{`<"a b"@two.test>`, "250 2.1.5 Recipient OK", `<"a b"@two.test>`},
		{`<"a\"\\>b"@two.test>`, "250 2.1.5 Recipient OK", `<"a\"\\>b"@two.test>`},
		{`<"plain"@two.test>`, "250 2.1.5 Recipient OK", `<plain@two.test>`},
		{"<b@[192.0.2.1]>", "250 2.1.5 Recipient OK", "<b@[192.0.2.1]>"},
		{"<b@[IPv6:2001:DB8::1]>", "250 2.1.5 Recipient OK", "<b@[IPv6:2001:db8::1]>"},
		{"<a!b%c+d=e@two_x.test>", "250 2.1.5 Recipient OK", "<a!b%c+d=e@two_x.test>"},
		{"<>", "501 5.1.3 Malformed recipient address", ""},
		{"b@two.test", "501 5.1.3 Malformed recipient address", ""},
		{"<b@two.test", "501 5.1.3 Malformed recipient address", ""},
		{"<b@two.test>x", "501 5.1.3 Malformed recipient address", ""},
		{"<b@two..test>", "501 5.1.3 Malformed recipient address", ""},
		{"<b.@two.test>", "501 5.1.3 Malformed recipient address", ""},
		{"<b>", "501 5.1.3 Malformed recipient address", ""},
		{"<b@[192.0.2]>", "501 5.1.3 Malformed recipient address", ""},
		{"<@one.test b@two.test>", "501 5.1.3 Malformed recipient address", ""},
		{"<" + long + "@two.test>", "501 5.1.3 Malformed recipient address", ""},
		{"<ü@two.test>", "553 5.6.7 Address needs SMTPUTF8", ""},
		{"<b@zwö.test>", "553 5.6.7 Address needs SMTPUTF8", ""},
		{"", "501 5.1.3 Malformed recipient address", ""},
	}
	for _, tt := range tests {
		b := &backend{}
		script(t, &smtpserver.Server{}, b, hello+`
		> MAIL FROM:<>
		< 250 2.1.0 Sender OK
		> RCPT TO:`+tt.path+`
		< `+tt.reply)
		_, seen, _ := strings.Cut(b.log(), "rcpt ")
		seen, _, _ = strings.Cut(seen, " {")
		if seen != tt.seen {
			t.Errorf("%s: session saw %s, want %s", tt.path, seen, tt.seen)
		}
	}
	script(t, &smtpserver.Server{}, &backend{}, hello+`
	> RCPT <b@two.test>
	< 503 5.5.1 Say MAIL first
	> MAIL <a@one.test>
	< 501 5.5.4 Syntax: MAIL FROM:<address> [parameters]
	> MAIL FROM:<Postmaster>
	< 501 5.1.7 Malformed sender address
	> MAIL FROM:<a@one.test>SIZE=1
	< 501 5.1.7 Malformed sender address
	> MAIL FROM:<ä@one.test>
	< 553 5.6.7 Address needs SMTPUTF8
	> mail from:<ä@öne.test> smtputf8
	< 250 2.1.0 Sender OK
	> RCPT <b@two.test>
	< 501 5.5.4 Syntax: RCPT TO:<address> [parameters]
	> rcpt to:<ü@zwö.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<\xff@two.test>
	< 501 5.1.3 Malformed recipient address
	`)
}

// TestParameters checks MAIL's and RCPT's parameters one by one.
func TestParameters(t *testing.T) {
	const (
		bad     = "501 5.5.4 Malformed parameter "
		unknown = "555 5.5.4 Parameter not recognized"
		ok      = "250 2.1.0 Sender OK"
	)
	for params, reply := range map[string]string{
		"SIZE=0":                                 ok,
		"SIZE=52428800":                          ok,
		"SIZE=52428801":                          "552 5.3.4 Message exceeds the maximum size",
		"SIZE=9223372036854775807":               "552 5.3.4 Message exceeds the maximum size",
		"SIZE=99999999999999999999":              "552 5.3.4 Message exceeds the maximum size",
		"SIZE=":                                  bad + "SIZE",
		"SIZE":                                   bad + "SIZE",
		"SIZE=-1":                                bad + "SIZE",
		"SIZE=+1":                                bad + "SIZE",
		"SIZE=1 SIZE=1":                          bad + "SIZE",
		"BODY=7BIT":                              ok,
		"body=8bitmime":                          ok,
		"BODY=BINARYMIME":                        bad + "BODY",
		"BODY=7BIT BODY=7BIT":                    bad + "BODY",
		"SMTPUTF8":                               ok,
		"SMTPUTF8=yes":                           bad + "SMTPUTF8",
		"SMTPUTF8 SMTPUTF8":                      bad + "SMTPUTF8",
		"RET=FULL ENVID=a+20b":                   ok,
		"RET=HDRS":                               ok,
		"RET=SOME":                               bad + "RET",
		"RET=FULL RET=FULL":                      bad + "RET",
		"ENVID=a+2":                              bad + "ENVID",
		"ENVID=a+0D+0Ab":                         bad + "ENVID",
		"ENVID=" + strings.Repeat("x", 100):      ok,
		"ENVID=" + strings.Repeat("x", 101):      bad + "ENVID",
		"AUTH=<>":                                unknown,
		"XYZZY=1":                                unknown,
		"NOTIFY=NEVER":                           unknown,
		"REQUIRETLS":                             unknown,
		"  SIZE=1   BODY=7BIT  ":                 ok,
		"=":                                      unknown,
		"SIZE=1 BODY=8BITMIME RET=HDRS SMTPUTF8": ok,
	} {
		script(t, &smtpserver.Server{}, &backend{}, hello+"> MAIL FROM:<a@one.test> "+params+"\n< "+reply)
	}
	const rok = "250 2.1.5 Recipient OK"
	for params, reply := range map[string]string{
		"NOTIFY=NEVER":                             rok,
		"NOTIFY=success,Failure,DELAY":             rok,
		"NOTIFY=NEVER,DELAY":                       bad + "NOTIFY",
		"NOTIFY=":                                  bad + "NOTIFY",
		"NOTIFY":                                   bad + "NOTIFY",
		"NOTIFY=SOMETIMES":                         bad + "NOTIFY",
		"NOTIFY=DELAY NOTIFY=DELAY":                bad + "NOTIFY",
		"ORCPT=rfc822;b+2Bc@two.test":              rok,
		`ORCPT=utf-8;\x{FC}@two.test`:              rok,
		"ORCPT=utf-8;ü@two.test":                   bad + "ORCPT",
		"ORCPT=rfc822":                             bad + "ORCPT",
		"ORCPT=;b":                                 bad + "ORCPT",
		"ORCPT=rfc822;b+0A":                        bad + "ORCPT",
		"ORCPT=rfc822;a ORCPT=rfc822;b":            bad + "ORCPT",
		"ORCPT=rfc822;" + strings.Repeat("x", 500): bad + "ORCPT",
		"NOTIFY=DELAY ORCPT=rfc822;b@two.test":     rok,
		"SIZE=1":                                   unknown,
		"RRVS=2014-04-03T23:01:00Z":                unknown,
	} {
		script(t, &smtpserver.Server{}, &backend{}, hello+"> MAIL FROM:<a@one.test>\n< "+ok+"\n> RCPT TO:<b@two.test> "+params+"\n< "+reply)
	}
	b := &backend{}
	script(t, &smtpserver.Server{}, b, hello+`
	> MAIL FROM:<a@one.test> RET=HDRS ENVID=QQ+20314159
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@two.test
	< 250 2.1.5 Recipient OK`)
	for _, want := range []string{"Return:HDRS EnvelopeID:QQ 314159", "{Notify:SUCCESS,DELAY OriginalType:rfc822 Original:Bob+x@two.test}"} {
		if !strings.Contains(b.log(), want) {
			t.Errorf("no %q in\n%s", want, b.log())
		}
	}
}

// decliner is a session without DSN and SMTPUTF8, on a server that has them.
type decliner struct{ *session }

func (decliner) Extensions(offered []string) []string {
	return append([]string{"XINVENTED"}, offered[:3]...)
}

func TestExtensionSession(t *testing.T) {
	b := &backend{}
	s := &smtpserver.Server{Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
		return decliner{&session{c: c, b: b}}, nil
	})}
	script(t, s, nil, `
	< 220 mx.test ESMTP ready
	> EHLO client.test
	< 250-mx.test
	< 250-PIPELINING
	< 250-SIZE 52428800
	< 250 8BITMIME
	> MAIL FROM:<a@one.test> RET=FULL
	< 555 5.5.4 Parameter not recognized
	> MAIL FROM:<a@one.test> SMTPUTF8
	< 555 5.5.4 Parameter not recognized
	> MAIL FROM:<a@one.test> SIZE=1
	< 250 2.1.0 Sender OK`)
}

func TestBanner(t *testing.T) {
	refusal := &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Go away"}
	script(t, &smtpserver.Server{}, &backend{err: refusal}, `
	< 554 5.7.1 Go away
	> EHLO client.test
	< 503 5.5.1 Only QUIT is possible here
	> XYZZY
	< 503 5.5.1 Only QUIT is possible here
	> QUIT
	< 221 2.0.0 Goodbye
	!`)
	script(t, &smtpserver.Server{}, &backend{err: &smtp.Error{Code: 450, Text: "Later"}}, `
	< 421 4.0.0 Later
	!`)
	script(t, &smtpserver.Server{}, &backend{err: errSecret}, `
	< 421 4.3.0 Local error, try again later
	!`)
	script(t, &smtpserver.Server{}, nil, `
	< 421 4.3.5 Service not available
	!`)
	script(t, &smtpserver.Server{Backend: smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return nil, nil })}, nil, `
	< 421 4.3.0 Local error, try again later
	!`)
}

var errSecret = errors.New("secret")
