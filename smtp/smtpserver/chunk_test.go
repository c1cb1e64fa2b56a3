package smtpserver_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func synctestRun(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

const begun = `
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 …
	> RCPT TO:<b@two.test>
	< 250 2.1.5 …
	`

// TestBDAT: whatever becomes of a chunk, its octets are never commands.
func TestBDAT(t *testing.T) {
	boom := func(context.Context, io.Reader) (smtp.Reply, error) {
		return smtp.Reply{}, fmt.Errorf("spool: %w", &smtp.Error{Code: 452, Enhanced: smtp.EnhancedCode{4, 3, 1}, Text: "Disk full"})
	}
	early := func(context.Context, io.Reader) (smtp.Reply, error) { return smtp.Reply{Text: "queued as Q1"}, nil }
	for _, tt := range []struct {
		name, text, want string // want is the log of events, "" = not looked at
		server           *smtpserver.Server
		data             func(context.Context, io.Reader) (smtp.Reply, error)
	}{
		{name: "one chunk", text: begun + "> BDAT 7 LAST\n> hello\n< 250 2.0.0 OK" + noop, want: "data \"hello\\r\\n\"\nreset\nclose"},
		{name: "three, pipelined", text: begun + "> BDAT 7\n> hello\n> BDAT 7\n> QUIT.\n> BDAT 0 LAST\n< 250 2.0.0 Chunk received\n< 250 2.0.0 Chunk received\n< 250 2.0.0 OK" + noop, want: "data \"hello\\r\\nQUIT.\\r\\n\"\nreset\nclose"},
		{name: "dots are no end", text: begun + "> BDAT 7 LAST\n> .\n> .x\n> \\\n< 250 2.0.0 OK" + noop},
		{name: "NOOP between", text: begun + "> BDAT 3\n> a\n< 250 2.0.0 Chunk received\n> NOOP\n< 250 2.0.0 OK\n> bdat 3 last\n> b\n< 250 2.0.0 OK", want: "data \"a\\r\\nb\\r\\n\"\nreset\nclose"},
		{name: "RSET between", text: begun + "> BDAT 3\n> a\n< 250 2.0.0 Chunk received\n> RSET\n< 250 2.0.0 OK\n> BDAT 6 LAST\n> QUIT\n< 503 5.5.1 Say MAIL first" + begun + "> BDAT 3 LAST\n> b\n< 250 2.0.0 OK"},
		{name: "QUIT between", text: begun + "> BDAT 3\n> a\n< 250 2.0.0 Chunk received\n> QUIT\n< 221 2.0.0 Goodbye\n!", want: "data failed: smtpserver: QUIT before the last chunk\nclose"},
		{name: "others between", text: begun + "> BDAT 3\n> a\n< 250 2.0.0 Chunk received\n> MAIL FROM:<x@y.test>\n< 503 5.5.1 Only BDAT, RSET, NOOP and QUIT before the last chunk\n> DATA\n< 503 5.5.1 …\n> a\\0b\n< 500 5.5.2 …\n> BDAT 0 LAST\n< 250 2.0.0 OK", want: "data \"a\\r\\n\"\nreset\nclose"},
		{name: "cut", text: begun + "> BDAT 30\n> a\nx", want: "data failed: unexpected EOF\nclose"},
		{name: "cut between", text: begun + "> BDAT 3\n> a\n< 250 2.0.0 Chunk received\nx", want: "data failed: smtpserver: connection given up within a message\nclose"},
		{name: "before EHLO's MAIL", text: "> BDAT 12\n> MAIL FROM:\n< 503 5.5.1 Say MAIL first" + noop, want: "close"},
		{name: "without recipients", text: "> MAIL FROM:<a@one.test>\n< 250 2.1.0 …\n> BDAT 6 LAST\n> RSET\n< 554 5.5.1 No valid recipients" + noop},
		{name: "no size", text: begun + "> BDAT\n> QUIT\n< 501 5.5.4 Syntax: BDAT size [LAST], closing connection since the chunk has no end\n!"},
		{name: "negative size", text: begun + "> BDAT -1\n< 501 5.5.4 …\n!"},
		{name: "signed size", text: begun + "> BDAT +1 LAST\n< 501 5.5.4 …\n!"},
		{name: "what behind", text: begun + "> BDAT 6 FIRST\n> RSET\n< 501 5.5.4 …\n!"},
		{name: "absurd size", text: begun + "> BDAT 99999999999999999999 LAST\n< 552 5.3.4 …\n!"},
		{name: "session refuses at once", data: boom, text: begun + "> BDAT 6\n> RSET\n> BDAT 6\n> QUIT\n> BDAT 6 LAST\n> RSET\n< 452 4.3.1 Disk full\n< 503 5.5.1 Say MAIL first\n< 503 5.5.1 Say MAIL first" + noop},
		{name: "session refuses the last", data: boom, text: begun + "> BDAT 6 LAST\n> RSET\n< 452 4.3.1 Disk full" + noop},
		{name: "session is content early", data: early, text: begun + "> BDAT 6\n> QUIT\n> BDAT 6 LAST\n> QUIT\n< 250 2.0.0 Chunk received\n< 250 2.0.0 queued as Q1" + noop},
		{name: "session is content, and then it is too big", data: early, server: &smtpserver.Server{MaxMessageBytes: 10}, text: begun + "> BDAT 6\n> QUIT\n> BDAT 6 LAST\n> QUIT\n< 250 2.0.0 Chunk received\n< 552 5.3.4 …" + noop},
		{name: "too big", server: &smtpserver.Server{MaxMessageBytes: 10}, text: begun + "> BDAT 12\n> QUITQUITQU\n< 552 5.3.4 …\n> BDAT 6 LAST\n> QUIT\n< 503 5.5.1 …" + noop},
		{name: "bare LF", text: begun + "> BDAT 5 LAST\n> a\\nb\n< 554 5.6.0 Message has an LF without CR" + noop},
		{name: "bare CR at the end", text: begun + "> BDAT 2 LAST\n> a\\r\\\n< 554 5.6.0 Message has a CR without LF" + noop},
		{name: "CR LF in two chunks", text: begun + "> BDAT 2\n> a\\r\\\n> BDAT 1 LAST\n> \\n\\\n< 250 2.0.0 Chunk received\n< 250 2.0.0 OK" + noop},
		{name: "NUL", text: begun + "> BDAT 5 LAST\n> a\\0b\n< 554 5.6.0 Message has a NUL" + noop},
		{name: "line too long", server: &smtpserver.Server{MaxTextLine: 4}, text: begun + "> BDAT 5 LAST\n> abc\n< 554 5.6.0 Message has a line that is too long" + noop},
		{name: "fixed", server: &smtpserver.Server{LineEnds: smtpserver.LineEndsFix}, text: begun + "> BDAT 5\n> a\\nb\\0\\r\\\n> BDAT 2 LAST\n> c\\r\\\n< 250 2.0.0 Chunk received\n< 250 2.0.0 OK", want: "data \"a\\r\\nb\\r\\nc\\r\\n\"\nreset\nclose"},
		{name: "many small chunks", server: &smtpserver.Server{MaxCommands: 8}, text: begun + strings.Repeat("> BDAT 1\n> x\\\n< 250 2.0.0 Chunk received\n", 5) + "> BDAT 1\n> x\\\n< 421 4.7.0 …\n!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &backend{data: tt.data}
			h := hello
			if tt.server == nil {
				tt.server = &smtpserver.Server{}
			}
			if tt.server.MaxMessageBytes > 0 {
				h = strings.Replace(h, "52428800", fmt.Sprint(tt.server.MaxMessageBytes), 1)
			}
			script(t, tt.server, b, h+tt.text)
			_, events, _ := strings.Cut(b.log(), "Original:}\n")
			if tt.want != "" && events != tt.want && b.log() != tt.want {
				t.Errorf("events\n%s\nwant\n%s", b.log(), tt.want)
			}
		})
	}
}

func TestBDATBinary(t *testing.T) {
	b := &backend{}
	s := &smtpserver.Server{Extensions: []string{"CHUNKING", "BINARYMIME", "8BITMIME"}}
	script(t, s, b, "< 220 …\n> EHLO x\n< 250-mx.test\n< 250-CHUNKING\n< 250-BINARYMIME\n< 250 8BITMIME\n> MAIL FROM:<> BODY=BINARYMIME\n< 250 …\n> RCPT TO:<b@two.test>\n< 250 …\n> BDAT 6 LAST\n> \\n\\r\\0\\nx\\r\\\n< 250 2.0.0 OK")
	if want := `data "\n\r\x00\nx\r"`; !strings.Contains(b.log(), want) {
		t.Error(b.log())
	}
}

func TestBDATNotOffered(t *testing.T) {
	s := &smtpserver.Server{Extensions: []string{"PIPELINING"}}
	script(t, s, &backend{}, "< 220 …\n> EHLO x\n< 250-mx.test\n< 250 PIPELINING\n"+begun+"> BDAT 6 LAST\n> QUIT\n< 502 5.5.1 BDAT not offered"+noop)
}

func TestBDATLMTP(t *testing.T) {
	two := strings.Replace(begun, "\t> RCPT", "\t> RCPT TO:<c@two.test>\n< 250 2.1.5 …\n\t> RCPT", 1)
	h := strings.Replace(strings.Replace(hello, "EHLO", "LHLO", 1), "ESMTP", "LMTP", 1)
	script(t, &smtpserver.Server{LMTP: true}, &backend{}, h+two+"> BDAT 3\n> a\n< 250 2.0.0 Chunk received\n> BDAT 3 LAST\n> b\n< 250 2.0.0 OK\n< 250 2.0.0 OK"+
		"\n> MAIL FROM:<>\n< 250 …\n> BDAT 6 LAST\n> QUIT\n< 503 5.5.1 No valid recipients"+noop)
	b := &backend{data: func(context.Context, io.Reader) (smtp.Reply, error) { return smtp.Reply{Code: 550}, nil }}
	script(t, &smtpserver.Server{LMTP: true}, b, h+two+"> BDAT 3\n> a\n< 550 5.0.0 Refused\n> BDAT 3 LAST\n> b\n< 503 …"+two+"> BDAT 3 LAST\n> a\n< 550 5.0.0 Refused\n< 550 5.0.0 Refused"+noop)
}

// TestLineEnds: the vectors of SEC Consult's SMTP smuggling (2023) and of its
// variants in Postfix, Exim and Sendmail, each with a second message behind
// its false end. It is one message always, refused, mended or as it came.
func TestLineEnds(t *testing.T) {
	for name, end := range map[string]string{
		"LF dot LF": `\n.\n`, "LF dot CRLF": `\n.\r\n`, "CRLF dot LF": `\r\n.\n`, "CR dot CR": `\r.\r`, "CRLF dot CR": `\r\n.\r`, "CR dot CRLF": `\r.\r\n`,
		"LF dot CR": `\n.\r`, "CR dot LF": `\r.\n`, "CRLF dot CR CRLF": `\r\n.\r\r\n`, "CR CRLF dot CRLF": `\r\r\n.x\r\n`, "CRLF NUL dot CRLF": `\r\n\0.\r\n`,
		"CRLF dot NUL CRLF": `\r\n.\0\r\n`, "LF CR dot LF CR": `\n\r.\n\r`, "LF LF dot LF LF": `\n\n.\n\n`,
	} {
		text := "> DATA\n< 354 …\n> a" + end + `MAIL FROM:<admin@two.test>\r\nRCPT TO:<victim@two.test>\r\nDATA\r\nevil` + "\n> .\n< %s" + noop
		for _, mode := range []smtpserver.LineEnds{smtpserver.LineEndsRefuse, smtpserver.LineEndsFix, smtpserver.LineEndsAllow} {
			t.Run(fmt.Sprint(name, mode), func(t *testing.T) {
				b := &backend{}
				want := "250 2.0.0 OK"
				if mode == smtpserver.LineEndsRefuse {
					want = "554 5.6.0 …"
				}
				script(t, &smtpserver.Server{LineEnds: mode}, b, hello+begun+fmt.Sprintf(text, want))
				log := b.log()
				if strings.Count(log, "mail <") != 1 || strings.Contains(log, "victim@two.test> {") {
					t.Fatalf("smuggled:\n%s", log)
				}
				_, data, _ := strings.Cut(log, `data "`)
				data, _, _ = strings.Cut(data, "\"\n")
				switch mode {
				case smtpserver.LineEndsRefuse:
					if data != "" {
						t.Errorf("taken: %s", data)
					}
				case smtpserver.LineEndsFix:
					clean := strings.ReplaceAll(data, `\r\n`, "")
					if !strings.Contains(data, "evil") || strings.Contains(clean, `\r`) || strings.Contains(clean, `\n`) || strings.Contains(clean, `\x00`) {
						t.Errorf("not mended: %s", data)
					}
				case smtpserver.LineEndsAllow:
					if !strings.Contains(data, "evil") {
						t.Errorf("lost: %s", data)
					}
				}
			})
		}
	}
	// A command line stays strict in each mode.
	script(t, &smtpserver.Server{LineEnds: smtpserver.LineEndsAllow}, &backend{}, hello+"> NOOP\\nNOOP\n< 500 5.5.2 …\n< 250 2.0.0 OK")
}

func TestMaxHeaderBytes(t *testing.T) {
	s := func() *smtpserver.Server { return &smtpserver.Server{MaxHeaderBytes: 20} }
	script(t, s(), &backend{}, hello+begun+"> DATA\n< 354 …\n> Subject: 0123456789\n> More: x\n>\n> .\n< 552 5.3.4 Header of the message exceeds the maximum size"+noop)
	script(t, s(), &backend{}, hello+begun+"> DATA\n< 354 …\n> Subject: 01\n>\n> "+strings.Repeat("x", 500)+"\n> .\n< 250 2.0.0 OK"+noop)
	script(t, s(), &backend{}, hello+begun+"> BDAT 29 LAST\n> Subject: 01234567890123456789\\\n< 552 5.3.4 …"+noop)
}
