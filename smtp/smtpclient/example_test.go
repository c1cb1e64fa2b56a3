package smtpclient_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// A provider's submission service. Port 587 has STARTTLS; for port 465 set
// ImplicitTLS. The password is shown only when the certificate is good.
func ExampleRelay() {
	relay := &smtpclient.Relay{
		Addr: "smtp.example.com:587",
		Auth: &smtpclient.Auth{User: "alice", Password: "secret"},
		Pool: &smtpclient.Pool{},
	}
	env := &smtp.Envelope{
		From: smtp.Address{Local: "alice", Domain: "example.com"},
		To:   []smtp.Recipient{{Address: smtp.Address{Local: "bob", Domain: "example.org"}}},
	}
	body := strings.NewReader("From: alice@example.com\r\nTo: bob@example.org\r\nSubject: Hi\r\n\r\nHello!\r\n")
	send := func(ctx context.Context) {
		for i, res := range relay.Deliver(ctx, env, body) {
			var e *smtp.Error
			switch {
			case res.Err == nil:
				log.Printf("%v: %v", env.To[i], res.Reply)
			case errors.As(res.Err, &e) && e.Unsure:
				log.Printf("%v: perhaps delivered: %v", env.To[i], e)
			case errors.As(res.Err, &e) && e.Temporary():
				log.Printf("%v: try again later: %v", env.To[i], e)
			default:
				log.Printf("%v: refused: %v", env.To[i], res.Err)
			}
		}
	}
	_ = send
}

func ExampleConn_Send() {
	srv := &smtptest.Server{}
	defer srv.Close()
	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "nobody@", Reply: "550 5.1.1 No such user"})

	ctx := context.Background()
	d := &smtpclient.Dialer{DialContext: srv.DialContext}
	c, err := d.Dial(ctx, smtpclient.Target{Addr: "mx.test:25"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	env := &smtp.Envelope{To: []smtp.Recipient{
		{Address: smtp.Address{Local: "bob", Domain: "example.org"}},
		{Address: smtp.Address{Local: "nobody", Domain: "example.org"}},
	}}
	for i, res := range c.Send(ctx, env, strings.NewReader("Subject: Hi\r\n\r\nHello!\r\n")) {
		fmt.Println(env.To[i].Address, res.Reply.Code, res.Err)
	}
	// Output:
	// bob@example.org 250 <nil>
	// nobody@example.org 550 550 5.1.1 No such user
}
