package smtpserver_test

import (
	"context"
	"strings"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestRevisedSMTP goes through what the revision of RFC 5321
// (draft-ietf-emailcore-rfc5321bis) changes or settles for a server, one item
// after the other. What it changes for a sender is in smtpclient and mx: null
// MX (556), the reading of 521, and no source routes, which have no place in
// an smtp.Address. Trace fields are in TestReceived.
func TestRevisedSMTP(t *testing.T) {
	const rcpt = "> MAIL FROM:<a@one.test>\n< 250 2.1.0 Sender OK\n"
	for _, tt := range []struct {
		name, text string
		rcpts      int    // MaxRecipients
		err        error  // of NewSession
		seen       string // the session saw this
	}{
		// RFC 7504 and 1846 are part of it: 521 in the banner of a host that
		// takes no mail at all, beside 554 for those that are not wanted.
		{name: "521 banner", err: &smtp.Error{Code: 521, Enhanced: smtp.EnhancedCode{5, 3, 2}, Text: "Host does not accept mail"},
			text: "< 521 5.3.2 Host does not accept mail\n> EHLO x\n< 503 5.5.1 …\n> QUIT\n< 221 2.0.0 Goodbye\n!"},
		{name: "554 banner", err: &smtp.Error{Code: 550, Text: "Not you"}, text: "< 554 5.0.0 Not you\n> QUIT\n< 221 2.0.0 Goodbye\n!"},
		// RFC 7505 is: a session that finds a null MX says 556.
		{name: "556 at RCPT", text: hello + rcpt + "> RCPT TO:<nullmx@two.test>\n< 556 5.1.10 Domain does not accept mail"},
		// Source routes are history (appendix F.2 of the old text): nobody
		// has to route by them, what precedes the mailbox is ignored.
		{name: "source route", text: hello + rcpt + "> RCPT TO:<@relay.test,@other.test:b@two.test>\n< 250 2.1.5 Recipient OK", seen: "rcpt <b@two.test>"},
		{name: "source route of the sender", text: hello + "> MAIL FROM:<@relay.test:a@one.test>\n< 250 2.1.0 Sender OK", seen: "mail <a@one.test>"},
		{name: "broken source route", text: hello + rcpt + "> RCPT TO:<@relay.test b@two.test>\n< 501 5.1.3 Malformed recipient address"},
		// EHLO takes a domain or an address literal. One that is wrong, or not
		// the client's, is no reason to refuse mail: it is what the trace
		// shows and no more.
		{name: "EHLO with a literal", text: strings.Replace(hello, "EHLO client.test", "EHLO [192.0.2.1]", 1)},
		{name: "EHLO with a name that is no domain", text: strings.Replace(hello, "EHLO client.test", "EHLO my_pc", 1) + rcpt},
		{name: "EHLO without a name", text: "< 220 mx.test ESMTP ready\n> EHLO\n< 501 5.5.4 Say your name: one word of at most 255 characters"},
		// EHLO again begins anew, as RSET does, and keeps what was said in the
		// right order.
		{name: "EHLO again", text: hello + rcpt + strings.Replace(hello, "< 220 mx.test ESMTP ready", "", 1) + "> RCPT TO:<b@two.test>\n< 503 5.5.1 Say MAIL first", seen: "reset"},
		// A line ends with CRLF and with nothing else, in commands and in the
		// message, and no CR or LF stands alone (§2.3.8).
		{name: "LF in a command", text: hello + "> NOOP\\n\\\n< 500 5.5.2 Line must end with CRLF and have no other control characters"},
		{name: "CR in a command", text: hello + "> NO\\rOP\n< 500 5.5.2 Line must end with CRLF and have no other control characters"},
		{name: "LF.LF in a message", text: ready + "> x\\n.\\nMAIL FROM:<evil@one.test>\n> .\n< 554 5.6.0 Message has an LF without CR", seen: "data failed"},
		// Verbs and keywords have no case, local parts do.
		{name: "case", text: hello + "> mAiL fRoM:<A.b@ONE.test> bOdY=8bitmime\n< 250 2.1.0 Sender OK", seen: "mail <A.b@one.test> {Size:0 Body:8BITMIME"},
		// Postmaster without a domain is there in any case of letters.
		{name: "postmaster", text: hello + rcpt + "> RCPT TO:<pOSTmaster>\n< 250 2.1.5 Recipient OK", seen: "rcpt <pOSTmaster>"},
		// IPv6 literals: one group of zeros may be compressed too.
		{name: "IPv6 literal", text: hello + rcpt + "> RCPT TO:<b@[IPv6:1:2:3:4:5:6:7::]>\n< 250 2.1.5 Recipient OK", seen: "rcpt <b@[IPv6:1:2:3:4:5:6:7:0]>"},
		// VRFY stays, and need not tell anything: 252 is no lie.
		{name: "VRFY", text: hello + "> VRFY b\n< 252 2.5.2 Cannot verify, but will take a message and try"},
		// TURN, SEND, SOML and SAML are gone.
		{name: "obsolete commands", text: hello + "> TURN\n< 502 5.5.1 Command not implemented\n> SOML FROM:<a@one.test>\n< 502 5.5.1 Command not implemented"},
		// A parameter of an extension that was not offered: 555. MAIL and RCPT
		// after HELO have none at all.
		{name: "parameters after HELO", text: "< 220 mx.test ESMTP ready\n> HELO x\n< 250 mx.test\n> MAIL FROM:<a@one.test> SIZE=1\n< 555 5.5.4 Parameter not recognized"},
		// Too many recipients is 452, and those before it have the message.
		{name: "too many recipients", rcpts: 1, text: strings.Replace(hello, "1000", "1", 1) + rcpt +
			"> RCPT TO:<b@two.test>\n< 250 2.1.5 Recipient OK\n> RCPT TO:<c@two.test>\n< 452 4.5.3 Too many recipients\n> DATA\n< 354 …\n> x\n> .\n< 250 2.0.0 OK", seen: `data "x\r\n"`},
		// DATA without a recipient is 554 (or 503), NOOP's argument is ignored,
		// trailing white space is tolerated.
		{name: "small things", text: hello + rcpt + "> DATA\n< 554 5.5.1 No valid recipients\n> NOOP whatever\n< 250 2.0.0 OK\n> RSET \n< 250 2.0.0 OK"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &backend{}
			script(t, &smtpserver.Server{MaxRecipients: tt.rcpts, Backend: smtpserver.BackendFunc(func(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
				if tt.err != nil {
					return nil, tt.err
				}
				return nullMX{&session{c: c, b: b}}, nil
			})}, nil, tt.text)
			if !strings.Contains(b.log(), tt.seen) {
				t.Errorf("no %q in\n%s", tt.seen, b.log())
			}
		})
	}
}

// nullMX knows a domain that does not want mail.
type nullMX struct{ *session }

func (s nullMX) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if to.Local == "nullmx" {
		return &smtp.Error{Code: 556, Enhanced: smtp.EnhancedCode{5, 1, 10}, Text: "Domain does not accept mail"}
	}
	return s.session.Rcpt(ctx, to, o)
}
