package smtpserver_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	netsmtp "net/smtp"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// inbox takes mail for one domain and prints it.
type inbox struct{ domain string }

func (in inbox) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error { return nil }

// Rcpt is where a server decides what it is responsible for: to accept
// everything here would make an open relay.
func (in inbox) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if to.Domain != in.domain {
		return smtp.Errorf(550, smtp.EnhancedCode{5, 7, 1}, "Relaying denied")
	}
	return nil
}

func (in inbox) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	text, err := io.ReadAll(r)
	if err == nil { // only then is it a whole message
		fmt.Printf("%q\n", text)
	}
	return smtp.Reply{}, err
}

func (in inbox) Reset()       {}
func (in inbox) Close() error { return nil }

func Example() {
	s := &smtpserver.Server{
		Hostname: "mx.example.org",
		Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
			return inbox{domain: "example.org"}, nil
		}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(l)
	defer s.Close()

	// Any client will do; this is the standard library's.
	addr, msg := l.Addr().String(), []byte("Subject: Hello\r\n\r\nHow are you?\r\n")
	err = netsmtp.SendMail(addr, nil, "alice@example.com", []string{"bob@example.org"}, msg)
	fmt.Println(err)
	err = netsmtp.SendMail(addr, nil, "alice@example.com", []string{"carol@example.net"}, msg)
	fmt.Println(err)
	// Output:
	// "Subject: Hello\r\n\r\nHow are you?\r\n"
	// <nil>
	// 550 "5.7.1 Relaying denied"
}
