package mxtest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// TestWorld: outages, greylisting, bad certificates and stripped TLS, each in
// a line.
func TestWorld(t *testing.T) {
	w, err := mxtest.NewWorld(map[string][]string{"a.test": {"mx1.a.test", "mx2.a.test"}, "b.test": {"mx2.a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	expired, err := w.CA.IssueFor(time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, -1), "mx1.a.test")
	if err != nil {
		t.Fatal(err)
	}
	deliver := func(need smtpclient.Security, to string) string {
		s := &mx.Sender{Resolver: w.DNS, Need: need, Dialer: smtpclient.Dialer{DialContext: w.DialContext, TLS: w.ClientTLS()}}
		a, _ := smtp.ParseAddress(to)
		res := s.Deliver(t.Context(), &smtp.Envelope{From: smtp.Address{Local: "x", Domain: "x.test"}, To: []smtp.Recipient{{Address: a}}}, strings.NewReader("Subject: x\r\n\r\n"))[0]
		var e *smtp.Error
		if errors.As(res.Err, &e) {
			return fmt.Sprint(e.Code, " ", e.Enhanced)
		}
		return res.Hop.Name + " " + res.Hop.Auth
	}
	check := func(what string, need smtpclient.Security, to, want string) {
		t.Helper()
		if got := deliver(need, to); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	// Before the first connection.
	w.Host("mx1.a.test").Certificate = expired
	w.Host("mx2.a.test").Without = []string{"SIZE"}
	check("expired", smtpclient.Opportunistic, "c@a.test", "mx1.a.test ")
	check("expired, the next has a good one", smtpclient.Verified, "c@a.test", "mx2.a.test pkix")
	w.Cut("mx1.a.test")
	check("cut", smtpclient.Opportunistic, "c@a.test", "mx2.a.test pkix")
	w.Host("mx2.a.test").Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: "450 4.7.1 Greylisted", Times: 1})
	check("greylisted", smtpclient.Opportunistic, "c@b.test", "450 4.7.1")
	check("again", smtpclient.Opportunistic, "c@b.test", "mx2.a.test pkix")
	w.Cut("mx2.a.test")
	check("all cut", smtpclient.Opportunistic, "c@b.test", "451 4.4.1")
	w.Mend("mx1.a.test", "mx2.a.test")
	check("mended", smtpclient.Opportunistic, "c@a.test", "mx1.a.test ")
	if w.Host("other") != nil {
		t.Error("a host that nobody asked for")
	}

	plain, err := mxtest.NewWorld(map[string][]string{"a.test": {"mx1.a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	w = plain
	w.Host("mx1.a.test").STARTTLS = false
	check("no TLS", smtpclient.Encrypted, "c@a.test", "451 4.7.4")
}
