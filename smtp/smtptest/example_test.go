package smtptest_test

import (
	"context"
	"fmt"
	netsmtp "net/smtp"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp/smtptest"
)

// app is the program under test.
type app struct{ SMTPAddr string }

func (a *app) SignUp(to string) error {
	msg := "Subject: Welcome\r\n\r\nConfirm: https://shop.example/confirm?id=7\r\n"
	return netsmtp.SendMail(a.SMTPAddr, nil, "shop@example.org", []string{to}, []byte(msg))
}

func ExampleNew() {
	test := func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		app := &app{}

		srv := smtptest.New(t)
		app.SMTPAddr = srv.Addr
		app.SignUp("alice@example.org")
		m := srv.Wait(ctx, 1)[0]
		link := m.Links()[0]

		if link != "https://shop.example/confirm?id=7" {
			t.Errorf("link %s", link)
		}
	}
	_ = test
}

func ExampleServer_Inject() {
	srv := &smtptest.Server{}
	if err := srv.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	app := &app{SMTPAddr: srv.Addr}

	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: "450 Greylisted", Times: 1})
	fmt.Println("refused:", app.SignUp("alice@example.org") != nil)
	fmt.Println("refused:", app.SignUp("alice@example.org") != nil)
	fmt.Println(len(srv.Messages()), "message")
	// Output:
	// refused: true
	// refused: false
	// 1 message
}
