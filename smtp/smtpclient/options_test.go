package smtpclient_test

import (
	"errors"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// What the options of an envelope become on the wire, and what happens where
// the host lacks the extension. In a bubble it is 2000-01-01 00:00 UTC.
func TestOptions(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }
	for _, tt := range []struct {
		name, ext  string
		edit       func(*smtp.Envelope)
		mail, rcpt string // "" = nothing is sent
		want       string // what comes of it then
	}{
		{"by, notify", "DELIVERBY", func(e *smtp.Envelope) { e.DeliverBy = at(time.Minute) }, " BY=60;N", "", ""},
		{"by, notify and trace", "DELIVERBY 240", func(e *smtp.Envelope) { e.DeliverBy, e.ByTrace = at(time.Minute), true }, " BY=60;NT", "", ""},
		{"by, notify, over", "DELIVERBY", func(e *smtp.Envelope) { e.DeliverBy = at(-time.Minute) }, " BY=-60;N", "", ""},
		{"by, notify, not offered", "HELP", func(e *smtp.Envelope) { e.DeliverBy = at(time.Minute) }, "", "", ""},
		{"by, return", "DELIVERBY 240", func(e *smtp.Envelope) { e.DeliverBy, e.ByReturn = at(time.Hour), true }, " BY=3600;R", "", ""},
		{"by, return, not offered", "HELP", func(e *smtp.Envelope) { e.DeliverBy, e.ByReturn = at(time.Hour), true }, "", "", "554 5.3.3 host"},
		{"by, return, too little left", "DELIVERBY 240", func(e *smtp.Envelope) { e.DeliverBy, e.ByReturn = at(time.Minute), true }, "", "", "554 5.3.3 host"},
		{"by, return, over", "DELIVERBY", func(e *smtp.Envelope) { e.DeliverBy, e.ByReturn = at(0), true }, "", "", "554 5.4.7 message"},
		{"hold", "FUTURERELEASE 86400 2000-06-01T00:00:00Z", func(e *smtp.Envelope) { e.HoldUntil = at(time.Hour) }, " HOLDUNTIL=2000-01-01T01:00:00Z", "", ""},
		{"hold, over", "HELP", func(e *smtp.Envelope) { e.HoldUntil = at(-time.Hour) }, "", "", ""},
		{"hold, not offered", "HELP", func(e *smtp.Envelope) { e.HoldUntil = at(time.Hour) }, "", "", "554 5.3.3 host"},
		{"hold, for too long", "FUTURERELEASE 3600 2000-06-01T00:00:00Z", func(e *smtp.Envelope) { e.HoldUntil = at(2 * time.Hour) }, "", "", "554 5.3.3 host"},
		{"hold, until too late", "FUTURERELEASE 864000 2000-01-01T01:00:00Z", func(e *smtp.Envelope) { e.HoldUntil = at(2 * time.Hour) }, "", "", "554 5.3.3 host"},
		{"priority", "MT-PRIORITY NSEP", func(e *smtp.Envelope) { e.Priority = -3 }, " MT-PRIORITY=-3", "", ""},
		{"priority, not offered", "HELP", func(e *smtp.Envelope) { e.Priority = 3 }, "", "", ""},
		{"solicit", "NO-SOLICITING", func(e *smtp.Envelope) { e.Solicit = "org.example:ADV" }, " SOLICIT=org.example:ADV", "", ""},
		{"solicit, not offered", "HELP", func(e *smtp.Envelope) { e.Solicit = "org.example:ADV" }, "", "", ""},
		{"solicit, malformed", "NO-SOLICITING", func(e *smtp.Envelope) { e.Solicit = "a b\r\nRSET" }, "", "", "501 5.5.4 message"},
		{"rrvs", "RRVS", func(e *smtp.Envelope) { e.To[0].ValidSince = at(-time.Hour) }, "", " RRVS=1999-12-31T23:00:00Z", ""},
		{"rrvs, or else", "RRVS", func(e *smtp.Envelope) { e.To[0].ValidSince, e.To[0].RelayUnchecked = at(-time.Hour), true }, "", " RRVS=1999-12-31T23:00:00Z;C", ""},
		{"rrvs, not offered", "HELP", func(e *smtp.Envelope) { e.To[0].ValidSince = at(-time.Hour) }, "", "", "550 5.7.19 recipient"},
		{"rrvs, or else, not offered", "HELP", func(e *smtp.Envelope) { e.To[0].ValidSince, e.To[0].RelayUnchecked = at(-time.Hour), true }, "", "", ""},
		{"size", "SIZE 1000", nil, " SIZE=52", "", ""},
		{"size, over", "SIZE 51", nil, "", "", "552 5.3.4 message"},
		{"8-bit, declared", "8BITMIME", func(e *smtp.Envelope) { e.Body = smtp.Body8Bit }, " BODY=8BITMIME", "", ""},
		{"8-bit, not offered", "HELP", func(e *smtp.Envelope) { e.Body = smtp.Body8Bit }, "", "", "554 5.6.3 message"},
		{"requiretls, a bounce", "REQUIRETLS", func(e *smtp.Envelope) { e.From, e.RequireTLS = smtp.Address{}, true }, "", "", ""},
		{"auth, not logged in", "AUTH PLAIN", func(e *smtp.Envelope) { e.Auth = "x@y.test" }, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := envelope(t, "a@b.test", "c@d.test")
			if tt.edit != nil {
				tt.edit(env)
			}
			script := "S: 250 " + tt.ext + "\n"
			want := "250"
			if tt.want == "" {
				script += "C: MAIL FROM:" + env.From.Path() + tt.mail + "\nS: 250 ok\nC: RCPT TO:<c@d.test>" + tt.rcpt + "\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\n"
			} else {
				want = tt.want
			}
			res := play(t, smtpclient.Target{}, env, message+"padding\r\n", smtptest.Script(greeting+script+"C: QUIT\nS: 221 bye"))
			check(t, res, want)
			if (want[:3] == "554" || want[:3] == "550") && tt.name != "by, return, over" && !errors.Is(res[0].Err, smtpclient.ErrExtension) {
				t.Errorf("cause %v", res[0].Err)
			}
		})
	}
}
