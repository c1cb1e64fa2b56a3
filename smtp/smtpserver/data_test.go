package smtpserver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

const ready = hello + `
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
`

// noop shows that the connection is in step and open.
const noop = `
	> NOOP
	< 250 2.0.0 OK
`

// TestMalformedMessage has the vectors of SMTP smuggling: whatever the line
// ends around the dot, nothing behind them becomes a command, and the message
// is refused after its true end.
func TestMalformedMessage(t *testing.T) {
	for _, end := range []string{
		`\n.\n`, `\n.\r\n`, `\r\n.\n`, `\r.\r`, `\r.\r\n`, `\r\n.\r`, `\n.\r`, `\r.\n`,
		`\r\r\n.\r\r\n`, `\r\n.\r\r\n`, `\r\n\0.\r\n`, `\r\n.\0\r\n`, `\0`, `\n\n.\r\n`, `\r\n\r.\r\n`,
	} {
		b := &backend{}
		script(t, &smtpserver.Server{}, b, ready+`
		> Subject: x
		>
		> text`+end+`MAIL FROM:<smuggler@one.test>
		> RCPT TO:<victim@two.test>
		> DATA
		> smuggled
		> .
		< 554 5.6.0 Message has …
		`+noop+`> QUIT
		< 221 2.0.0 Goodbye
		!`)
		if log := b.log(); strings.Contains(log, "smuggler") || strings.Contains(log, "data \"") || !strings.HasSuffix(log, "reset\nclose") {
			t.Errorf("%s: events\n%s", end, log)
		}
	}
}

// TestDotsInMessage: what only looks like an end is text, and accepted.
func TestDotsInMessage(t *testing.T) {
	b := &backend{}
	script(t, &smtpserver.Server{}, b, ready+`
	> ..
	> ...
	> .x
	> a.
	> .
	< 250 2.0.0 OK`+noop)
	if !strings.Contains(b.log(), `data ".\r\n..\r\nx\r\na.\r\n"`) {
		t.Error(b.log())
	}
}

func TestMessageSize(t *testing.T) {
	line := strings.Repeat("x", 98) // 100 octets with CRLF
	text := func(n int) string { return strings.Repeat("> "+line+"\n", n) }
	tests := []struct {
		name  string
		lines int
		reply string
	}{
		{"at the limit", 10, "250 2.0.0 OK" + noop},
		{"over it", 11, "552 5.3.4 Message exceeds the maximum size" + noop},
		{"far over it", 19, "552 5.3.4 Message exceeds the maximum size" + noop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &backend{}
			s := &smtpserver.Server{MaxMessageBytes: 1000}
			script(t, s, b, strings.ReplaceAll(ready, "52428800", "1000")+text(tt.lines)+"> .\n< "+tt.reply)
			if strings.HasPrefix(tt.reply, "552") && strings.Contains(b.log(), "data \"") {
				t.Error(b.log())
			}
		})
	}
	// Without an end: answered for good, and closed.
	b := &backend{}
	script(t, &smtpserver.Server{MaxMessageBytes: 1000}, b, strings.ReplaceAll(ready, "52428800", "1000")+text(30)+`
	< 552 5.3.4 Message exceeds the maximum size
	!`)
	if !strings.HasSuffix(b.log(), "reset\nclose") {
		t.Error(b.log())
	}
	// No limit.
	script(t, &smtpserver.Server{MaxMessageBytes: -1}, &backend{}, strings.ReplaceAll(ready, "SIZE 52428800", "SIZE")+text(30)+"> .\n< 250 2.0.0 OK")
}

func TestTextLine(t *testing.T) {
	for limit, longest := range map[int]int{0: 65536, 1000: 1000} {
		s := &smtpserver.Server{MaxTextLine: limit}
		script(t, s, &backend{}, ready+"> "+strings.Repeat("x", longest-2)+"\n> .\n< 250 2.0.0 OK")
		s = &smtpserver.Server{MaxTextLine: limit}
		script(t, s, &backend{}, ready+"> "+strings.Repeat("x", longest-1)+"\n> .\n< 554 5.6.0 Message has a line that is too long"+noop)
	}
	s := &smtpserver.Server{MaxTextLine: -1}
	script(t, s, &backend{}, ready+"> "+strings.Repeat("x", 100000)+"\n> .\n< 250 2.0.0 OK")
}

// TestDataReplies shows what the results of Data become.
func TestDataReplies(t *testing.T) {
	tests := []struct {
		name  string
		data  func(ctx context.Context, r io.Reader) (smtp.Reply, error)
		reply string
		open  bool // the connection stays
	}{
		{"own words", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			_, err := io.Copy(io.Discard, r)
			return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 6, 0}, Text: "queued as 42"}, err
		}, "250 2.6.0 queued as 42", true},
		{"text only", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			_, err := io.Copy(io.Discard, r)
			return smtp.Reply{Text: "queued as 42"}, err
		}, "250 2.0.0 queued as 42", true},
		{"refusing reply", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{Code: 554, Text: "No"}, nil
		}, "554 5.0.0 No", true},
		{"early error", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, smtp.Errorf(554, smtp.EnhancedCode{5, 7, 1}, "Spam")
		}, "554 5.7.1 Spam", true},
		{"early success", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, nil
		}, "250 2.0.0 OK", true},
		{"private error", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			io.Copy(io.Discard, r)
			return smtp.Reply{}, errSecret
		}, "451 4.3.0 Local error, try again later", true},
		{"a context of its own", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			<-ctx.Done()
			return smtp.Reply{}, ctx.Err()
		}, "451 4.3.0 Local error, try again later", true},
		{"wrong class", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, &smtp.Error{Code: 452, Enhanced: smtp.EnhancedCode{5, 3, 1}, Text: "Full"}
		}, "452 4.3.1 Full", true},
		{"no code at all", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, &smtp.Error{}
		}, "451 4.3.0 Local error, try again later", true},
		{"injection", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, &smtp.Error{Code: 550, Text: "a\r250 b\x00c ü"}
		}, "550 5.0.0 a?250 b?c ??", true},
		{"421", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			return smtp.Reply{}, &smtp.Error{Code: 421, Text: "Bye"}
		}, "421 4.0.0 Bye", false},
		{"panic", func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			io.Copy(io.Discard, r)
			panic("secret")
		}, "421 4.3.0 Internal error, closing connection", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after := "\n!"
			if tt.open {
				after = noop
			}
			b := &backend{data: tt.data}
			script(t, &smtpserver.Server{}, b, ready+"> text\n> .\n< "+tt.reply+after)
			if strings.Count(b.log(), "close") != 1 {
				t.Error(b.log())
			}
		})
	}
}

// TestEarlySuccess: a session that says yes before the end has not seen what
// is wrong behind it, and the message is refused all the same.
func TestEarlySuccess(t *testing.T) {
	for text, reply := range map[string]string{
		"> bare\\nLF": "554 5.6.0 Message has an LF without CR",
		"> " + strings.Repeat("x", 300) + "\n> " + strings.Repeat("x", 300): "552 5.3.4 Message exceeds the maximum size",
	} {
		b := &backend{data: func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			_, err := io.ReadFull(r, make([]byte, 400))
			return smtp.Reply{}, err
		}}
		script(t, &smtpserver.Server{MaxMessageBytes: 1000}, b, strings.ReplaceAll(ready, "52428800", "1000")+"> "+strings.Repeat("g", 400)+"\n"+text+"\n> .\n< "+reply+noop)
	}
}

// TestMessageReader holds what Data reads from to the rules of io.Reader.
func TestMessageReader(t *testing.T) {
	want := strings.Repeat("0123456789\r\n", 1000)
	var kept io.Reader
	b := &backend{data: func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		kept = r
		return smtp.Reply{}, iotest.TestReader(r, []byte(want))
	}}
	script(t, &smtpserver.Server{}, b, ready+strings.Repeat("> 0123456789\n", 1000)+"> .\n< 250 2.0.0 OK"+noop)
	if n, err := kept.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read after Data: %d, %v", n, err)
	}
	b = &backend{data: func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		var buf bytes.Buffer
		if n, err := io.Copy(&buf, r); err != nil || n != int64(len(want)) || buf.String() != want {
			t.Errorf("io.Copy: %d, %v", n, err)
		}
		_, err := io.Copy(iotest.TruncateWriter(io.Discard, 0), r)
		return smtp.Reply{}, err
	}}
	script(t, &smtpserver.Server{}, b, ready+strings.Repeat("> 0123456789\n", 1000)+"> .\n< 250 2.0.0 OK"+noop)
}

// TestCut ends the connection inside a message: Data never sees io.EOF,
// nothing is answered, and the session is closed once.
func TestCut(t *testing.T) {
	for _, text := range []string{"", "> half a line\\\n", "> a line\n", "> a line\n> .\\\n", `> a line
	> .\r\
	`} {
		b := &backend{}
		var got, after error
		b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			_, got = io.ReadAll(r)
			after = ctx.Err()
			return smtp.Reply{}, got
		}
		script(t, &smtpserver.Server{}, b, ready+text+"\nx")
		if !errors.Is(got, io.ErrUnexpectedEOF) {
			t.Errorf("%q: Data read %v", text, got)
		}
		if !errors.Is(after, context.Canceled) {
			t.Errorf("%q: context after the cut: %v", text, after)
		}
		if log := b.log(); strings.Contains(log, "reset") || !strings.HasSuffix(log, "\nclose") {
			t.Errorf("%q: events\n%s", text, log)
		}
	}
}

// TestGoneAfterDot: a peer that is gone does not cancel a commit.
func TestGoneAfterDot(t *testing.T) {
	b := &backend{}
	b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		io.Copy(io.Discard, r)
		time.Sleep(time.Minute) // of the bubble: the peer is long gone
		b.note("commit, context %v", ctx.Err())
		return smtp.Reply{}, nil
	}
	script(t, &smtpserver.Server{}, b, ready+"> text\n> .\nx")
	if !strings.Contains(b.log(), "commit, context <nil>\n") || !strings.HasSuffix(b.log(), "close") {
		t.Error(b.log())
	}
}

// lmtpSession answers for each recipient by its local part.
type lmtpSession struct {
	*session
	to []smtp.Address
}

func (s *lmtpSession) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	err := s.session.Rcpt(ctx, to, o)
	if err == nil {
		s.to = append(s.to, to)
	}
	return err
}

func (s *lmtpSession) DataLMTP(ctx context.Context, r io.Reader) (results []smtp.Result) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		s.b.note("data failed: %v", err)
	}
	for _, to := range s.to {
		switch to.Local {
		case "full":
			results = append(results, smtp.Result{Err: &smtp.Error{Code: 452, Enhanced: smtp.EnhancedCode{4, 2, 2}, Text: "Mailbox full"}})
		case "short":
			return results
		case "named":
			results = append(results, smtp.Result{Reply: smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 1, 5}, Text: "Stored"}})
		default:
			results = append(results, smtp.Result{})
		}
	}
	return results
}

func TestLMTP(t *testing.T) {
	b := &backend{}
	each := smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
		return &lmtpSession{session: &session{c: c, b: b}}, nil
	})
	lhlo := strings.Replace(strings.Replace(hello, "EHLO", "LHLO", 1), "ESMTP", "LMTP", 1)
	script(t, &smtpserver.Server{LMTP: true, Backend: each}, nil, strings.Replace(lhlo, "> LHLO", `> EHLO client.test
	< 500 5.5.1 This is LMTP: say LHLO
	> HELO client.test
	< 500 5.5.1 This is LMTP: say LHLO
	> MAIL FROM:<a@one.test>
	< 503 5.5.1 Say LHLO first
	> LHLO`, 1)+`
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<unknown@two.test>
	< 550 5.1.1 No such user
	> DATA
	< 503 5.5.1 No valid recipients
	> RCPT TO:<b@two.test>
	> RCPT TO:<full@two.test>
	> RCPT TO:<unknown@two.test>
	> RCPT TO:<named@two.test>
	> RCPT TO:<b@two.test>
	> DATA
	< 250 2.1.5 Recipient OK
	< 250 2.1.5 Recipient OK
	< 550 5.1.1 No such user
	< 250 2.1.5 Recipient OK
	< 250 2.1.5 Recipient OK
	< 354 End data with <CR><LF>.<CR><LF>
	> text
	> .
	< 250 2.0.0 OK
	< 452 4.2.2 Mailbox full
	< 250 2.1.5 Stored
	< 250 2.0.0 OK
	> MAIL FROM:<a@one.test>
	> RCPT TO:<b@two.test>
	> RCPT TO:<c@two.test>
	> DATA
	< 250 2.1.0 Sender OK
	< 250 2.1.5 Recipient OK
	< 250 2.1.5 Recipient OK
	< 354 End data with <CR><LF>.<CR><LF>
	> bare\nLF
	> .
	< 554 5.6.0 Message has an LF without CR
	< 554 5.6.0 Message has an LF without CR
	> QUIT
	< 221 2.0.0 Goodbye
	!`)
	// Too few results: the rest is a failure, never a success.
	script(t, &smtpserver.Server{LMTP: true, Backend: each}, nil, lhlo+`
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<short@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> .
	< 250 2.0.0 OK
	< 451 4.3.0 Local error, try again later`)
	// A session without DataLMTP: its answer is repeated.
	script(t, &smtpserver.Server{LMTP: true}, &backend{}, lhlo+`
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<b@two.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<c@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> .
	< 250 2.0.0 OK
	< 250 2.0.0 OK`+noop)
	// The same session on an SMTP server: Data, and one answer.
	script(t, &smtpserver.Server{Backend: each}, nil, ready+"> .\n< 250 2.0.0 OK"+noop)
}

// TestLog shows what is logged of a message: one line, nothing of the text.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	script(t, &smtpserver.Server{Log: log}, &backend{}, ready+"> private words\n> .\n< 250 2.0.0 OK")
	got := out.String()
	if strings.Count(got, "\n") != 1 || strings.Contains(got, "private") {
		t.Errorf("logged %q", got)
	}
	for _, want := range []string{"from=a@one.test", "recipients=1", "size=15", `reply="250 2.0.0 OK"`, "protocol=ESMTP", "hello=client.test"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	out.Reset()
	script(t, &smtpserver.Server{Log: log}, &backend{}, strings.Replace(ready, "<b@two.test>", "<broken@two.test>\n< 451 4.3.0 Local error, try again later\n> RCPT TO:<b@two.test>", 1)+"> .\n< 250 2.0.0 OK")
	if !strings.Contains(out.String(), "/srv/db7") {
		t.Errorf("the cause is not in %q", out.String())
	}
}
