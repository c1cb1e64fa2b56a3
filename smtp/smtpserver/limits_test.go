package smtpserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

const timeoutLine = "\n< 421 4.4.2 Timeout, closing transmission channel\n!"

// TestTimeouts: a peer that hangs in any state is told so and cut.
func TestTimeouts(t *testing.T) {
	tests := []struct {
		name, text string
		took       time.Duration
	}{
		{"after the banner", "< 220 mx.test ESMTP ready" + timeoutLine, 5 * time.Minute},
		{"after EHLO", hello + timeoutLine, 5 * time.Minute},
		{"after some commands", hello + "@ 4m\n> NOOP\n< 250 2.0.0 OK\n@ 4m\n> NOOP\n< 250 2.0.0 OK" + timeoutLine, 13 * time.Minute},
		{"in a command, however it drips", hello + "> NO\\\n@ 3m\n> OP\\\n" + timeoutLine, 5 * time.Minute},
		{"in a login", ehlo("AUTH PLAIN") + "> AUTH PLAIN\n< 334 \n@ 1m" + timeoutLine, 5 * time.Minute},
		{"in a login, however it drips", ehlo("AUTH PLAIN") + "> AUTH PLAIN\n< 334 \n> AA\\\n@ 3m\n> AA\\\n" + timeoutLine, 5 * time.Minute},
		{"in a message", ready + "> text\n" + timeoutLine, 5 * time.Minute},
		{"in a slow message, without a floor", ready + "> text\n@ 4m\n> text\n@ 4m\n> text\n" + timeoutLine, 13 * time.Minute},
		{"in a slow message", ready + "> text\n@ 4m\n> text\n@ 4m\n> text\n" + timeoutLine, 8 * time.Minute},
		{"in a message that is only at times slow", ready + "> text\n@ 4m\n> " + strings.Repeat("x", 15000) + "\n@ 110s\n> text\n" + timeoutLine, 650 * time.Second},
		{"in a message, after the dot", ready + "> text\n> .\\\n" + timeoutLine, 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{}
				begin := time.Now()
				s := &smtpserver.Server{}
				if strings.Contains(tt.name, "floor") {
					s.MinDataRate = -1
				}
				if strings.Contains(tt.text, "AUTH") {
					s.Auth, s.InsecureAuth = &authenticator{mechs: []string{"PLAIN"}}, true
				}
				dialogue(t, s, b, tt.text)
				if took := time.Since(begin); took < tt.took-tt.took/32 || took > tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if log := b.log(); strings.Count(log, "close") != 1 || strings.Contains(log, `data "`) {
					t.Error(log)
				}
			})
		})
	}
}

// TestTimeoutInData: what Data reads then is a timeout, not an end.
func TestTimeoutInData(t *testing.T) {
	b := &backend{}
	var got error
	b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		_, got = io.ReadAll(r)
		return smtp.Reply{}, got
	}
	script(t, &smtpserver.Server{Timeout: time.Second}, b, ready+"> text\n"+timeoutLine)
	if !errors.Is(got, os.ErrDeadlineExceeded) {
		t.Errorf("Data read %v", got)
	}
}

// TestDeafPeer: one that takes no replies is cut, too.
func TestDeafPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &smtpserver.Server{Backend: &backend{}, Log: quiet()}
		ours, theirs := net.Pipe()
		defer ours.Close()
		begin := time.Now()
		if err := s.ServeConn(theirs); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 5*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

func TestSessionTimeout(t *testing.T) {
	// Busy with commands: at the end of the time.
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		dialogue(t, &smtpserver.Server{SessionTimeout: 10 * time.Minute}, &backend{},
			hello+strings.Repeat("@ 3m\n> NOOP\n< 250 2.0.0 OK\n", 3)+timeoutLine)
		if took := time.Since(begin); took != 10*time.Minute {
			t.Errorf("took %v", took)
		}
	})
	// In a message: the context ends, nothing is kept.
	b := &backend{}
	b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		_, err := io.ReadAll(r)
		<-ctx.Done()
		b.note("read %v, context %v", errors.Is(err, os.ErrDeadlineExceeded), ctx.Err())
		return smtp.Reply{}, err
	}
	script(t, &smtpserver.Server{SessionTimeout: time.Minute}, b, ready+"> text\n"+timeoutLine)
	if !strings.Contains(b.log(), "read true, context context canceled") && !strings.Contains(b.log(), "read true, context context deadline exceeded") {
		t.Error(b.log())
	}
	// In a commit: it is cancelled, and what came of it is still told.
	b = &backend{}
	b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		io.Copy(io.Discard, r)
		<-ctx.Done()
		return smtp.Reply{}, nil
	}
	script(t, &smtpserver.Server{SessionTimeout: time.Minute}, b, ready+"> text\n> .\n< 250 2.0.0 OK"+timeoutLine)
	// No limit at all.
	synctest.Test(t, func(t *testing.T) {
		dialogue(t, &smtpserver.Server{SessionTimeout: -1, Timeout: -1}, &backend{}, hello+"@ 100h\n> QUIT\n< 221 2.0.0 Goodbye\n!")
	})
}

func TestMaxErrors(t *testing.T) {
	script(t, &smtpserver.Server{}, &backend{}, hello+strings.Repeat("> XYZZY\n< 500 5.5.1 Command not recognized\n", 20)+`
	< 421 4.7.0 Too many errors, closing connection
	!`)
	script(t, &smtpserver.Server{MaxErrors: 2}, &backend{}, hello+`
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	> RCPT TO:<nonsense
	> RCPT TO:<b@two.test> X=1
	> RCPT TO:<b@two.test>
	< 501 5.1.3 Malformed recipient address
	< 555 5.5.4 Parameter not recognized
	< 421 4.7.0 Too many errors, closing connection
	!`)
	// A recipient that the session refuses is not an error of the protocol.
	script(t, &smtpserver.Server{MaxErrors: 2}, &backend{}, hello+`
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	`+strings.Repeat("> RCPT TO:<unknown@two.test>\n< 550 5.1.1 No such user\n", 10)+noop)
	script(t, &smtpserver.Server{MaxErrors: -1}, &backend{}, hello+strings.Repeat("> XYZZY\n< 500 5.5.1 Command not recognized\n", 100)+noop)
}

func TestMaxCommands(t *testing.T) {
	script(t, &smtpserver.Server{}, &backend{}, hello+strings.Repeat("> NOOP\n< 250 2.0.0 OK\n", 499)+`
	< 421 4.7.0 Too many commands without a message, closing connection
	!`)
	// Guessing addresses is bounded by it.
	script(t, &smtpserver.Server{MaxCommands: 10}, &backend{}, hello+`
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	`+strings.Repeat("> RCPT TO:<unknown@two.test>\n< 550 5.1.1 No such user\n", 8)+`
	< 421 4.7.0 Too many commands without a message, closing connection
	!`)
	// Accepted recipients and messages are not.
	script(t, &smtpserver.Server{MaxCommands: 5}, &backend{}, hello+strings.Repeat(`
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	`+strings.Repeat("> RCPT TO:<b@two.test>\n< 250 2.1.5 Recipient OK\n", 8)+`
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> .
	< 250 2.0.0 OK
	`, 4)+noop)
}

func TestMaxRecipients(t *testing.T) {
	script(t, &smtpserver.Server{MaxRecipients: 2}, &backend{}, strings.Replace(hello, "1000", "2", 1)+`
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	> RCPT TO:<a@two.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<c@two.test>
	< 452 4.5.3 Too many recipients
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> .
	< 250 2.0.0 OK
	> MAIL FROM:<>
	< 250 2.1.0 Sender OK
	> RCPT TO:<c@two.test>
	< 250 2.1.5 Recipient OK`)
}

// A message that was refused, or taken back, counts too: it has cost as much.
func TestMaxMessages(t *testing.T) {
	script(t, &smtpserver.Server{MaxMessages: 2}, &backend{}, strings.Replace(hello, "LIMITS ", "LIMITS MAILMAX=2 ", 1)+`
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RSET
	< 250 2.0.0 OK
	> MAIL FROM:<a
	< 501 5.1.7 Malformed sender address
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> .
	< 250 2.0.0 OK
	> MAIL FROM:<a@one.test>
	> RCPT TO:<b@two.test>
	< 421 4.7.0 Too many messages on this connection, open another
	!`)
}

// TestPanic: the connection ends, the session is closed once, and the server
// goes on.
func TestPanic(t *testing.T) {
	b := &backend{}
	script(t, &smtpserver.Server{}, b, hello+`
	> MAIL FROM:<panic@one.test>
	< 421 4.3.0 Internal error, closing connection
	!`)
	if b.log() != "close" {
		t.Error(b.log())
	}
	script(t, &smtpserver.Server{Backend: smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { panic("new") })}, nil, `
	< 421 4.3.0 Internal error, closing connection
	!`)
}
