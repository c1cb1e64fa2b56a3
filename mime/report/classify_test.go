package report_test

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

func classify(t testing.TB, b []byte) *report.Notice {
	t.Helper()
	root, err := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := report.Classify(root, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// line writes a notice for a table.
func line(n *report.Notice) string {
	s := string(n.Class) + " <" + n.MessageID + ">"
	for _, b := range n.Recipients {
		s += "\n" + string(b.Class) + " " + b.Recipient + " " + cmp.Or(b.Status.String(), "-")
		if b.RemoteHost != "" {
			s += " " + b.RemoteHost
		}
	}
	return s
}

// TestClassifyCorpus classifies every message of the corpus: those in the
// table are notices, and no other one is.
func TestClassifyCorpus(t *testing.T) {
	root := filepath.Dir(conformance.Path(t, "mime"))
	want := map[string]string{
		"mime/dsn/delayed_dsn.eml":                              "delayed <>\ndelayed thomas@de-montfort.ac.uk 4.0.0",
		"mime/dsn/simple_dsn.eml":                               "temporary <>\ntemporary louisl@larry.slip.umd.edu 4.0.0",
		"mime/dsn/dsn_with_multipart_alternative.eml":           "bad-mailbox <>\nbad-mailbox non-existing@example.com 5.1.10",
		"mime/dsn/multi_recipient_dsn.eml":                      "bad-mailbox <>\nbad-mailbox arathib@vnet.ibm.com 5.0.0 vnet.ibm.com\ndelayed johnh@hpnjld.njd.hp.com 4.0.0\nbad-mailbox wsnell@sdcc13.ucsd.edu 5.0.0 sdcc13.ucsd.edu",
		"mime/torture/dsn.eml":                                  "bad-mailbox <>\nbad-mailbox x@example.net 5.1.1\ndelayed y@example.net 4.4.1",
		"mime/mimekit/delivery-status.eml":                      "bad-mailbox <31FC7EB4.41C6@netscape.com>\nbad-mailbox newsletter-request@imusic.com -",
		"mime/mimekit/delivery-status-no-blank-line.eml":        "bad-mailbox <31FC7EB4.41C6@netscape.com>\nbad-mailbox newsletter-request@imusic.com -",
		"mime/mimekit/delivery-status-multiple-blank-lines.eml": "unknown <>\nunknown orig_recip@customer.com 5.5.0",
		"mime/mimekit/delivery-status2.eml":                     "bad-mailbox <>\nbad-mailbox source@domain.com 5.0.0",
		"mime/enmime/mail_multipart-wo-boundary.eml":            "unknown <>",
		"mime/mimekit/disposition-notification.eml":             "delivered <199509192301.23456@example.org>\ndelivered Joe_Recipient@example.com -",
		"mime/mimekit/feedback-report.eml":                      "complaint <8787KJKJ3K4J3K4J3K4J3.mail@example.net>\ncomplaint user@example.com -",
		"reports/parsedmarc/failure/DMARC_Failure_Report_for_domain.de_(mail-from=sharepoint@domain.de,_ip=10.10.10.10).eml": "auth-failure <>\nauth-failure peter.pan@domain.de -",
		"reports/parsedmarc/failure/dmarc_ruf_report_linkedin.crlf.eml":                                                      "auth-failure <01010101010101010101010101010101@ABAB01MS0016.someserver.loc>\nauth-failure recipient@linkedin.com -",
		"reports/parsedmarc/failure/dmarc_ruf_report_linkedin.eml":                                                           "auth-failure <01010101010101010101010101010101@ABAB01MS0016.someserver.loc>\nauth-failure recipient@linkedin.com -",
		"mime/mimekit/bounce.eml":           "bad-mailbox <44565655.JitbitHelpdesk.13439.691a0afc-a0a0-457c-8208-f20b7c4a4cb1@jitbit.com>\nbad-mailbox netec.test@netecgc.com 5.1.1 https://urldefense.proofpoint.com/v2/url?u=http-3A__mx1-2Deu1.ppe-2Dhosted.com&d=DwICAQ&c=euGZstcaTDllvimEN8b7jXrwqOf-v5A_CdpgnVfiiMM&r=xGEu8UUVNHyj_BIRW7SVPK81Hnp-FSanq3-_T1am-Kg&m=RMniPmjTykiwdgbzUU7Cewy0BeD_osytuQLS6cflj30&s=0Q-rn8HZSqF10OISjAJdmdg7HT9iADG2jsaaaxtt7tE&e=",
		"mime/go-mail/multipart-report.eml": "bad-domain <CAF3FwwGeAJzEe3WGGLmRbrhu2ieCHOmW_7SUj2jevXYuMSvang@mail.gmail.com>\nbad-domain bounce@example.com 5.1.10",
		"reports/arf/001.eml":               "complaint <8787KJKJ3K4J3K4J3K4J3.mail@example.net>",
		"reports/arf/002.eml":               "complaint <>\ncomplaint user@example.com -",
		"reports/arf/004.eml":               "auth-failure <>",
		"reports/arf/005.eml":               "auth-failure <87913910.1318094604546@out.sender.example>",
	}
	var names []string
	for _, pattern := range []string{"mime/*/*.eml", "reports/*/*.eml", "reports/*/*/*.eml"} {
		m, _ := filepath.Glob(filepath.Join(root, pattern))
		names = append(names, m...)
	}
	notices, unknown := 0, 0
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root, name)
		n := classify(t, b)
		if n.Class != "" {
			if notices++; n.Class == report.Unknown {
				unknown++
			}
		}
		got := line(n)
		if _, ok := want[rel]; !ok {
			if n.Class == "" {
				continue
			}
			t.Errorf("%s is\n%s", rel, got)
			continue
		}
		if got != want[rel] {
			t.Errorf("%s is\n%s\nwant\n%s", rel, got, want[rel])
		}
	}
	if notices != len(want) {
		t.Errorf("%d notices of %d in the table", notices, len(want))
	}
	t.Logf("%d messages, %d notices, %d of unknown class (%.0f %%)", len(names), notices, unknown, 100*float64(unknown)/float64(notices))
}

// TestClassifyShapes reads what the mail systems of the world write when they
// write no delivery status.
func TestClassifyShapes(t *testing.T) {
	for _, c := range []struct{ name, msg, want string }{
		{"qmail", `Return-Path: <>
From: MAILER-DAEMON@mx.example.net
To: ann@example.org
Subject: failure notice

Hi. This is the qmail-send program at mx.example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<bob@example.net>:
192.0.2.7 does not like recipient.
Remote host said: 550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown
Giving up on 192.0.2.7.

<carol@nowhere.example>:
Sorry, I couldn't find any host named nowhere.example. (#5.1.2)

--- Below this line is a copy of the message.

Return-Path: <ann@example.org>
From: ann@example.org
Message-ID: <q1@example.org>
To: bob@example.net

dave@example.net
`, "bad-mailbox <q1@example.org>\nbad-mailbox bob@example.net 5.1.1 192.0.2.7\nbad-domain carol@nowhere.example 5.1.2"},
		{"qmail full", `From: MAILER-DAEMON@mx.example.net
To: ann@example.org
Subject: failure notice

Hi. This is the qmail-send program at mx.example.net.

<bob@example.net>:
user is over quota

--- Below this line is a copy of the message.

Message-ID: <q2@example.org>

`, "mailbox-full <q2@example.org>\nmailbox-full bob@example.net -"},
		{"exim", `From: Mail Delivery System <Mailer-Daemon@mx.example.net>
To: ann@example.org
X-Failed-Recipients: bob@example.net
Auto-Submitted: auto-replied
Subject: Mail delivery failed: returning message to sender

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  bob@example.net
    host in.example.net [192.0.2.7]
    SMTP error from remote mail server after RCPT TO:<bob@example.net>:
    554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org

------ This is a copy of the message, including all the headers. ------

Return-path: <ann@example.org>
Message-ID: <e1@example.org>

hi
`, "spam <e1@example.org>\nspam bob@example.net 5.7.1 in.example.net"},
		{"exim delay", `From: Mail Delivery System <Mailer-Daemon@mx.example.net>
To: ann@example.org
Auto-Submitted: auto-replied
Subject: Warning: message 1ABC-000 delayed 24 hours

This message was created automatically by mail delivery software.
A message that you sent has not yet been delivered to one or more of its
recipients after more than 24 hours on the queue on mx.example.net.

The address to which the message has not yet been delivered is:

  bob@example.net
    Delay reason: Connection timed out

No action is required on your part.
`, "delayed <>\ndelayed bob@example.net -"},
		{"exchange", `From: postmaster@corp.example
To: ann@example.org
Subject: Undeliverable: Hello
In-Reply-To: <x1@example.org>
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

Your message did not reach some or all of the intended recipients.

      Subject:  Hello
      Sent:     1/2/2006 3:04 PM

The following recipient(s) could not be reached:

      bob@corp.example on 1/2/2006 3:04 PM
            The e-mail account does not exist at the organization this message was sent to.  Check the e-mail address.
            <mail.corp.example #5.1.1>

--b--
`, "bad-mailbox <x1@example.org>\nbad-mailbox bob@corp.example 5.1.1"},
		{"exchange html", `From: postmaster@corp.example
To: ann@example.org
Subject: Undeliverable: Hello
Content-Type: text/html

<html><body><p><b>Delivery has failed to these recipients or groups:</b></p>
<p><a href="mailto:bob@corp.example">bob@corp.example</a></p>
<p>The recipient's mailbox is full and can't accept messages now. Please try resending later.</p>
<p>Remote Server returned '550 5.2.2 STOREDRV.Deliver; mailbox full'</p></body></html>
`, "mailbox-full <>\nmailbox-full bob@corp.example 5.2.2"},
		{"gmail", `From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
To: ann@example.org
X-Failed-Recipients: bob@gmail.example
Auto-Submitted: auto-replied
Subject: Delivery Status Notification (Failure)

Delivery to the following recipient failed permanently:

     bob@gmail.example

Technical details of permanent failure:
Google tried to deliver your message, but it was rejected by the server for the recipient domain gmail.example by in.gmail.example. [192.0.2.9].

The error that the other server returned was:
550-5.1.1 The email account that you tried to reach does not exist. Please try
550-5.1.1 double-checking the recipient's email address for typos or
550 5.1.1 unnecessary spaces.

----- Original message -----

From: ann@example.org
Message-ID: <g1@example.org>
`, "bad-mailbox <g1@example.org>\nbad-mailbox bob@gmail.example 5.1.1 in.gmail.example"},
		{"yahoo", `From: MAILER-DAEMON@yahoo.example
To: ann@example.org
Subject: Failure Notice

Sorry, we were unable to deliver your message to the following address.

<bob@yahoo.example>:
554: delivery error: dd This user doesn't have a yahoo.example account (bob@yahoo.example) [0] - mta1.mail.yahoo.example

--- Below this line is a copy of the message.

Message-ID: <y1@example.org>
`, "bad-mailbox <y1@example.org>\nbad-mailbox bob@yahoo.example -"},
		{"postfix as text", `From: MAILER-DAEMON@mx.example.net (Mail Delivery System)
To: ann@example.org
Subject: Undelivered Mail Returned to Sender

This is the Postfix program at host mx.example.net.

I'm sorry to have to inform you that your message could not be
delivered to one or more recipients.

<bob@example.net>: host in.example.net[192.0.2.7] said: 552 5.3.4 Message size
    exceeds fixed limit (in reply to MAIL FROM command)
`, "too-large <>\ntoo-large bob@example.net 5.3.4 in.example.net"},
		{"vacation", "From: bob@example.net\nTo: ann@example.org\nSubject: away\nAuto-Submitted: auto-replied (vacation)\nIn-Reply-To: <v1@example.org>\n\nBack on Monday.\n", "auto-reply <v1@example.org>"},
		{"vacation by subject", "From: bob@example.net\nTo: ann@example.org\nSubject: Out of Office: Hello\n\nBack on Monday.\n", "auto-reply <>"},
		{"challenge", "From: bob@example.net\nTo: ann@example.org\nSubject: Please confirm your message\nIn-Reply-To: <c1@example.org>\n\nClick.\n", "challenge <c1@example.org>"},
		{"generated is no answer", "From: shop@example.net\nTo: ann@example.org\nSubject: Your order\nAuto-Submitted: auto-generated\n\nThanks\n", " <>"},
		{"person", "From: bob@example.net\nTo: ann@example.org\nSubject: Re: undelivered parcel\n\nThe 550 5.1.1 user unknown is odd.\n", " <>"},
		{"postmaster writes", "From: postmaster@example.net\nTo: ann@example.org\nSubject: New office\n\nWe have moved.\n", " <>"},
		{"sieve reject", "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n--b\n\nNo.\n--b\nContent-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; bob@example.net\nOriginal-Message-ID: <s1@example.org>\nDisposition: automatic-action/MDN-sent-automatically; deleted\n\n--b--\n", "policy <s1@example.org>\npolicy bob@example.net -"},
	} {
		if got := line(classify(t, []byte(c.msg))); got != c.want {
			t.Errorf("%s is\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestClassOf(t *testing.T) {
	for _, c := range []struct {
		code smtp.EnhancedCode
		text string
		want report.Class
	}{
		{smtp.EnhancedCode{}, "550 5.1.1 <x@y.example>: Recipient address rejected: User unknown in local recipient table", report.BadMailbox},
		{smtp.EnhancedCode{5, 1, 10}, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", report.BadMailbox},
		{smtp.EnhancedCode{5, 1, 10}, "Domain y.example does not accept mail (nullMX)", report.BadDomain},
		{smtp.EnhancedCode{5, 4, 1}, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", report.BadMailbox},
		{smtp.EnhancedCode{5, 4, 310}, "DNS domain y.example does not exist", report.BadDomain},
		{smtp.EnhancedCode{5, 4, 4}, "Host or domain name not found. Name service error for name=y.example type=A: Host not found", report.BadDomain},
		{smtp.EnhancedCode{5, 2, 1}, "550-5.2.1 The email account that you tried to reach is disabled.", report.Inactive},
		{smtp.EnhancedCode{5, 2, 1}, "", report.Inactive},
		{smtp.EnhancedCode{}, "452-4.2.2 The email account that you tried to reach is over quota", report.MailboxFull},
		{smtp.EnhancedCode{}, "552 5.2.2 mailbox full", report.MailboxFull},
		{smtp.EnhancedCode{}, "552 Message exceeds maximum fixed size", report.TooLarge},
		{smtp.EnhancedCode{5, 7, 26}, "550-5.7.26 This mail is unauthenticated, which poses a security risk", report.AuthFailure},
		{smtp.EnhancedCode{5, 7, 1}, "550 5.7.1 Unauthenticated email from example.org is not accepted due to domain's DMARC policy", report.AuthFailure},
		{smtp.EnhancedCode{5, 1, 1}, "550 5.1.1 rejected: your IP is listed at zen.spamhaus.org", report.Spam},
		{smtp.EnhancedCode{}, "554 5.7.1 This message has been blocked because it contains a virus", report.Spam},
		{smtp.EnhancedCode{}, "550 5.7.1 relaying denied", report.Policy},
		{smtp.EnhancedCode{5, 7, 133}, "Sender not authenticated for group", report.AuthFailure},
		{smtp.EnhancedCode{}, "421 4.7.28 unusual rate of unsolicited mail", report.RateLimit},
		{smtp.EnhancedCode{}, "450 4.2.0 Greylisted, see http://postgrey.example", report.RateLimit},
		{smtp.EnhancedCode{4, 4, 1}, "connect to mx.y.example[192.0.2.1]:25: Connection timed out", report.Temporary},
		{smtp.EnhancedCode{4, 4, 7}, "Message expired", report.Temporary},
		{smtp.EnhancedCode{5, 4, 6}, "mail for y.example loops back to myself", report.System},
		{smtp.EnhancedCode{}, "554 5.4.14 Hop count exceeded - possible mail loop", report.System},
		{smtp.EnhancedCode{}, "421 mx.y.example Service not available", report.Temporary},
		{smtp.EnhancedCode{}, "556 host takes no mail", report.BadDomain},
		{smtp.EnhancedCode{}, "550 no thanks", report.Unknown},
		{smtp.EnhancedCode{}, "", report.Unknown},
		{smtp.EnhancedCode{}, "connected to 5.1.1.1 on port 2500", report.Unknown},
	} {
		if got := report.ClassOf(c.code, c.text); got != c.want {
			t.Errorf("%v %q: %s, want %s", c.code, c.text, got, c.want)
		}
	}
	for _, c := range []report.Class{report.BadMailbox, report.Inactive, report.BadDomain} {
		if !c.Hard() {
			t.Error(c)
		}
	}
	for _, c := range []report.Class{report.MailboxFull, report.Spam, report.Complaint, report.Unknown, report.Success, ""} {
		if c.Hard() {
			t.Error(c)
		}
	}
}

// TestClassifyBounds reads a bounce that names very many addresses.
func TestClassifyBounds(t *testing.T) {
	var b strings.Builder
	b.WriteString("From: MAILER-DAEMON@x.example\nSubject: failure notice\n\n")
	for i := range 20_000 {
		b.WriteString("<")
		b.WriteString(strings.Repeat("a", i%50+1))
		b.WriteString("@example.net>:\nuser unknown\n\n")
	}
	if n := classify(t, []byte(b.String())); len(n.Recipients) != 50 {
		t.Errorf("%d recipients", len(n.Recipients))
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte("From: MAILER-DAEMON@x\nSubject: failure notice\n\n<b@c.example>:\n1.2.3.4 does not like recipient: 550 5.1.1 no\n--- Below this line is a copy\n\nMessage-ID: <a@b>\n"))
	f.Add([]byte("X-Failed-Recipients: a@b.example\nContent-Type: text/html\n\n<p>a@b.example<br>host x.y said: 452 4.2.2 full</p>"))
	f.Add(write(f, notice()))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := classify(t, b)
		if n.Class == "" && len(n.Recipients) > 0 {
			t.Fatalf("%+v", n)
		}
		for _, r := range n.Recipients {
			if r.Class == "" {
				t.Fatalf("%+v", n)
			}
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	msg := []byte("From: MAILER-DAEMON@mx.example.net\nTo: ann@example.org\nSubject: failure notice\n\nHi. This is the qmail-send program.\n\n<bob@example.net>:\nRemote host said: 550 no such user here\n\n--- Below this line is a copy of the message.\n\nMessage-ID: <a@b>\n" + strings.Repeat("text\n", 500))
	root, _ := mime.Parse(bytes.NewReader(msg), int64(len(msg)), mime.Limits{})
	b.ReportAllocs()
	for b.Loop() {
		report.Classify(root, bytes.NewReader(msg))
	}
}
