package mx_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// TestOtherFamilyNext: a retry begins with the other family of addresses after
// a failure that may be about the one used, and with IPv6 else.
func TestOtherFamilyNext(t *testing.T) {
	const six, four = "fd00::1", "10.0.0.1"
	refuse := func(at smtptest.Stage, reply string) smtptest.Fault {
		return smtptest.Fault{At: at, Reply: reply}
	}
	for _, tt := range []struct {
		name   string
		faulty string // "" = none
		fault  smtptest.Fault
		// dialled by each of a row of deliveries
		dialled []string
	}{
		{name: "no failure", dialled: []string{six, six}},
		{name: "refused by policy", faulty: six, fault: refuse(smtptest.Rcpt, "450 4.7.1 No reverse name"), dialled: []string{six, four, four, "after an hour", six, four}},
		{name: "no reason", faulty: six, fault: refuse(smtptest.Mail, "451 Try later"), dialled: []string{six, four}},
		{name: "IPv4 too", faulty: "both", fault: refuse(smtptest.Rcpt, "450 4.7.1 Greylisted"), dialled: []string{six, four, six, four}},
		{name: "host down", faulty: six, fault: refuse(smtptest.Connect, "421 4.3.2 Down"), dialled: []string{six + " " + four, four, four}},
		{name: "mailbox full", faulty: six, fault: refuse(smtptest.Rcpt, "452 4.2.2 Full"), dialled: []string{six, six}},
		{name: "no such mailbox", faulty: six, fault: refuse(smtptest.Rcpt, "550 5.1.1 No"), dialled: []string{six, six}},
	} {
		for _, pooled := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := &network{servers: map[string]*smtptest.Server{six: {}, four: {}}}
					defer n.close()
					for ip, srv := range n.servers {
						if tt.faulty == ip || tt.faulty == "both" {
							srv.Inject(tt.fault)
						}
					}
					s := &mx.Sender{Resolver: mxtest.NewDNS(mxtest.Zone{"a.test": {"MX 10 mx.a.test"}, "mx.a.test": {"A " + four, "AAAA " + six}})}
					if pooled {
						s.Pool = &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
						defer s.Pool.Close()
					} else {
						s.Dialer.DialContext = n.DialContext
					}
					for i, want := range tt.dialled {
						if strings.HasPrefix(want, "after") {
							time.Sleep(time.Hour)
							continue
						}
						s.Deliver(t.Context(), envelope(t, "c@a.test"), strings.NewReader(message))
						got := n.take()
						if pooled && got == "" { // a connection that was kept
							continue
						}
						if got != want {
							t.Errorf("pool %v, delivery %d: dialled %q, want %q", pooled, i, got, want)
						}
					}
				})
			})
		}
	}
}
