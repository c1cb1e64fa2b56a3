package smtpclient_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// dialScript opens a connection to a script in a bubble and runs f on it.
func dialScript(t *testing.T, script string, f func(t *testing.T, c *smtpclient.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		peer := &smtptest.Peer{Scripts: []smtptest.Script{smtptest.Script(greeting + script)}}
		c, err := (&smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}).Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25"})
		if err != nil {
			t.Fatal(err)
		}
		f(t, c)
		c.Close()
		if err := peer.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestCommand(t *testing.T) {
	dialScript(t, `S: 250 VRFY
		C: VRFY bob
		S: 252 2.1.5 perhaps
		C: EXPN list
		S: 250-<a@b.test>
		S: 250 <c@d.test>
		C: ETRN d.test
		S: 458 4.0.0 no
		C: QUIT
		S: 221 bye`, func(t *testing.T, c *smtpclient.Conn) {
		for _, tt := range []struct{ line, want string }{
			{"VRFY bob", "252 2.1.5 perhaps"}, {"EXPN list", "250 <a@b.test> <c@d.test>"}, {"ETRN d.test", "458 4.0.0 no"},
		} {
			if r, err := c.Command(t.Context(), tt.line); err != nil || r.String() != tt.want {
				t.Errorf("%s: %v %v", tt.line, r, err)
			}
		}
		for _, line := range []string{"", "data", "MAIL FROM:<>", "QUIT", "rset", "VRFY a\r\nQUIT", "NOOP\n", "STARTTLS", "BDAT 4 LAST", "NOOP " + strings.Repeat("x", 3000)} {
			if _, err := c.Command(t.Context(), line); !errors.Is(err, smtpclient.ErrCommand) {
				t.Errorf("%.20q: %v", line, err)
			}
		}
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
	dialScript(t, "S: 250 ok\nC: NOOP\nRAW \"huh\\r\\n\"", func(t *testing.T, c *smtpclient.Conn) {
		if _, err := c.Command(t.Context(), "NOOP"); !errors.Is(err, smtpclient.ErrProtocol) || c.Err() == nil {
			t.Error(err)
		}
	})
}

func TestXClient(t *testing.T) {
	list := []smtp.Attribute{{Name: "ADDR", Value: "192.0.2.1"}, {Name: "LOGIN", Value: "a b"}, {Name: "NAME", Value: smtp.AttributeUnavailable}}
	dialScript(t, `S: 250-XFORWARD NAME ADDR
		S: 250 XCLIENT NAME ADDR PORT
		C: XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]
		S: 220 mx.test again
		C: EHLO me.test
		S: 250-mx.test
		S: 250 DSN
		C: XFORWARD ADDR=192.0.2.9
		S: 250 ok
		C: QUIT
		S: 221 bye`, func(t *testing.T, c *smtpclient.Conn) {
		if err := c.XClient(t.Context(), list); err != nil || !c.Hop().DSN {
			t.Error(err, c.Hop())
		}
		if r, err := c.Command(t.Context(), "XFORWARD "+smtp.FormatAttributes([]smtp.Attribute{{Name: "ADDR", Value: "192.0.2.9"}})); err != nil || r.Code != 250 {
			t.Error(r, err)
		}
		if err := c.XClient(t.Context(), list); !errors.Is(err, smtpclient.ErrExtension) {
			t.Error(err)
		}
	})
	dialScript(t, "S: 250 XCLIENT ADDR\nC: XCLIENT*\nS: 550 5.7.0 no", func(t *testing.T, c *smtpclient.Conn) {
		if err := c.XClient(t.Context(), list[1:]); !errors.Is(err, smtpclient.ErrCommand) {
			t.Error(err)
		}
		var e *smtp.Error
		if err := c.XClient(t.Context(), list); !errors.As(err, &e) || e.Code != 550 || c.Err() == nil {
			t.Error(err)
		}
	})
}
