package smtpserver_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestNoForkNeeded has, one by one, why servers that were built on another
// library have a fork of it.
func TestNoForkNeeded(t *testing.T) {
	t.Run("context in every call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var end error
			s := &smtpserver.Server{SessionTimeout: time.Minute}
			b := &backend{data: func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
				if d, ok := ctx.Deadline(); !ok || time.Until(d) > time.Minute {
					t.Error("no deadline")
				}
				io.Copy(io.Discard, r)
				<-ctx.Done() // a database that hangs
				end = context.Cause(ctx)
				return smtp.Reply{}, end
			}}
			dialogue(t, s, b, ready+"> x\n> .\n< 421 4.3.2 …\n!")
			if end != context.DeadlineExceeded {
				t.Error(end)
			}
		})
	})
	t.Run("limits", func(t *testing.T) { // and TestConnectionLimits, TestMaxRecipients, TestMaxMessages, TestOverlongLine, TestMaxHeaderBytes
		script(t, &smtpserver.Server{MaxErrors: 3}, &backend{}, hello+"> X\n< 500 …\n> X\n< 500 …\n> X\n< 500 …\n< 421 4.7.0 Too many errors, closing connection\n!")
	})
	t.Run("a peer is refused before SMTP begins", func(t *testing.T) {
		script(t, &smtpserver.Server{}, &backend{err: &smtp.Error{Code: 421, Enhanced: smtp.EnhancedCode{4, 7, 0}, Text: "Not now"}}, "< 421 4.7.0 Not now\n!")
	})
	t.Run("a chunk that is refused is consumed", func(t *testing.T) {
		b := &backend{}
		script(t, &smtpserver.Server{}, b, hello+"> MAIL FROM:<a@one.test>\n> RCPT TO:<unknown@two.test>\n> BDAT 29 LAST\n> MAIL FROM:<evil@three.test>\n> NOOP\n"+
			"< 250 2.1.0 Sender OK\n< 550 5.1.1 No such user\n< 554 5.5.1 No valid recipients\n< 250 2.0.0 OK")
		if strings.Contains(b.log(), "evil") {
			t.Error(b.log())
		}
	})
	t.Run("parameters on the command they belong to", func(t *testing.T) {
		s := &smtpserver.Server{Extensions: []string{"DELIVERBY", "MT-PRIORITY"}}
		script(t, s, &backend{}, "< 220 …\n> EHLO x\n< 250-mx.test\n< 250-DELIVERBY\n< 250 MT-PRIORITY\n> MAIL FROM:<a@one.test> BY=100;N MT-PRIORITY=-1\n< 250 2.1.0 Sender OK\n"+
			"> RCPT TO:<b@two.test> BY=100;N\n< 555 5.5.4 Parameter not recognized\n> RCPT TO:<b@two.test> MT-PRIORITY=1\n< 555 5.5.4 Parameter not recognized\n> RCPT TO:<b@two.test>\n< 250 2.1.5 Recipient OK")
	})
	t.Run("wrapped errors keep their class, and causes stay private", func(t *testing.T) {
		b := &backend{data: func(context.Context, io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, fmt.Errorf("quota check on /srv/db7: %w", &smtp.Error{Code: 552, Enhanced: smtp.EnhancedCode{5, 2, 2}, Text: "Over quota"})
		}}
		script(t, &smtpserver.Server{}, b, ready+"> .\n< 552 5.2.2 Over quota")
		b = &backend{data: func(context.Context, io.Reader) (smtp.Reply, error) { return smtp.Reply{}, errSecret }}
		script(t, &smtpserver.Server{}, b, ready+"> .\n< 451 4.3.0 Local error, try again later")
	})
	t.Run("the zero value with a backend", func(t *testing.T) {
		dialogue(t, &smtpserver.Server{Backend: &backend{}}, nil, hello)
	})
	t.Run("a bare LF is not passed on", func(t *testing.T) {
		script(t, &smtpserver.Server{}, &backend{}, ready+"> a\\nb\n> .\n< 554 5.6.0 Message has an LF without CR")
	})
	t.Run("a panic ends one connection", func(t *testing.T) {
		script(t, &smtpserver.Server{}, &backend{}, hello+"> MAIL FROM:<panic@one.test>\n< 421 4.3.0 Internal error, closing connection\n!")
	})
}
