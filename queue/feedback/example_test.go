package feedback_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/feedback"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/smtp"
)

// Whoever bounced for good, or complained, is not written to again.
func Example() {
	m := &feedback.Matcher{Base: smtp.Address{Local: "b", Domain: "mail.example"}, Key: []byte("secret")}
	suppressed := new(queue.SuppressionList)
	q := &queue.Queue{Storage: new(memqueue.Storage), ReturnPath: m.ReturnPath, Suppressor: suppressed} // and a Transport
	ann := smtp.Address{Local: "ann", Domain: "example.org"}
	id, _ := q.Enqueue(context.Background(), queue.Mail{
		Envelope: smtp.Envelope{From: smtp.Address{Local: "shop", Domain: "shop.example"}, To: []smtp.Recipient{{Address: ann}}},
		Body:     strings.NewReader("Subject: Hello\r\n\r\n"),
	})

	// Later mail comes to the return path, here a bounce as a host in the world
	// writes them.
	path := m.ReturnPath(&queue.Message{ID: id}, smtp.Address{}, ann)
	bounce := []byte("From: MAILER-DAEMON@example.org\r\nSubject: Undelivered Mail Returned to Sender\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n--x\r\n\r\nSorry.\r\n" +
		"--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.org\r\n\r\n" +
		"Final-Recipient: rfc822; ann@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n--x--\r\n")
	list, err := m.Read(context.Background(), path, bytes.NewReader(bounce), int64(len(bounce)))
	if err != nil {
		fmt.Println(err)
	}
	for _, f := range list {
		fmt.Println(f.Message == id, f.Recipient, f.Class)
		if f.Class.Hard() || f.Class == report.Complaint {
			suppressed.Add("", f.Recipient, string(f.Class))
		}
	}
	// Output: true ann@example.org bad-mailbox
}
