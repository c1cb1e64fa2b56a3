package report_test

import (
	"fmt"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

// Tell a sender that a recipient is unknown. The notice is sent with the null
// reverse-path.
func ExampleDSN() {
	d := &report.DSN{
		ReportingMTA: "mx.example.com",
		Recipients: []report.Recipient{{
			Final:      "bob@example.net",
			Action:     report.Failed,
			Status:     smtp.EnhancedCode{5, 1, 1},
			RemoteMTA:  "in.example.net",
			Diagnostic: "550 5.1.1 no such user",
		}},
		OriginalHeader: mime.ParseHeader([]byte("Subject: Hello\r\nMessage-ID: <1@example.org>\r\n")),
	}
	from := mime.Address{Name: "Mail Delivery System", Address: smtp.Address{Local: "postmaster", Domain: "mx.example.com"}}
	m, err := d.Message(from, smtp.Address{Local: "ann", Domain: "example.org"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var b strings.Builder
	m.WriteTo(&b)

	// What the sender's side makes of it.
	got, err := report.Parse(strings.NewReader(b.String()), int64(b.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range got.Recipients {
		fmt.Println(r.Final, r.Action, r.Status, r.Diagnostic)
	}
	fmt.Println(got.OriginalHeader.Get("Message-ID"))
	// Output:
	// bob@example.net failed 5.1.1 550 5.1.1 no such user
	// <1@example.org>
}

// Find out whether to write to an address again.
func ExampleClassify() {
	const msg = `From: MAILER-DAEMON@mx.example.net
To: ann@example.org
Subject: failure notice

Hi. This is the qmail-send program at mx.example.net.

<bob@example.net>:
192.0.2.7 does not like recipient.
Remote host said: 550 sorry, no mailbox here by that name

--- Below this line is a copy of the message.

Message-ID: <1@example.org>
`
	root, err := mime.Parse(strings.NewReader(msg), int64(len(msg)), mime.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	n, err := report.Classify(root, strings.NewReader(msg))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("about", n.MessageID)
	for _, b := range n.Recipients {
		fmt.Println(b.Recipient, b.Class, "hard:", b.Class.Hard())
	}
	// Output:
	// about 1@example.org
	// bob@example.net bad-mailbox hard: true
}
