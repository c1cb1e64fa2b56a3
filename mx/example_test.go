package mx_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// A sender as a mail server has it.
func ExampleSender() {
	sender := &mx.Sender{
		Resolver: &resolver.Resolver{},
		Pool:     &smtpclient.Pool{Dialer: smtpclient.Dialer{Hello: "mx.example.org"}},
		Names:    []string{"mx.example.org"},
	}
	defer sender.Pool.Close()
}

// The same against a domain of one's own making, in memory.
func ExampleSender_Deliver() {
	srv := &smtptest.Server{}
	defer srv.Close()
	sender := &mx.Sender{
		Resolver: mxtest.NewDNS(mxtest.Zone{
			"example.test":    {"MX 10 mx.example.test"},
			"mx.example.test": {"A 127.0.0.1"},
			"closed.test":     {"MX 0 ."},
		}),
		Dialer: smtpclient.Dialer{DialContext: srv.DialContext},
	}
	env := &smtp.Envelope{
		From: smtp.Address{Local: "alice", Domain: "example.org"},
		To: []smtp.Recipient{
			{Address: smtp.Address{Local: "bob", Domain: "example.test"}},
			{Address: smtp.Address{Local: "eve", Domain: "closed.test"}},
		},
	}
	for i, res := range sender.Deliver(context.Background(), env, strings.NewReader("Subject: Hi\r\n\r\nHello!\r\n")) {
		fmt.Println(env.To[i].Address, res.Err)
	}
	// Output:
	// bob@example.test <nil>
	// eve@closed.test 556 5.1.10 Domain closed.test does not accept mail: mx: null MX
}

func ExampleLookup() {
	dns := mxtest.NewDNS(mxtest.Zone{"example.test": {"MX 20 backup.test", "MX 10 mx.example.test"}})
	route, err := mx.Lookup(context.Background(), dns, "example.test")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, h := range route.Hosts {
		fmt.Println(h.Pref, h.Name)
	}
	// Output:
	// 10 mx.example.test
	// 20 backup.test
}
