package smtpclient_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

const message = "From: a@b.test\r\nSubject: x\r\n\r\nHello\r\n.dot\r\n"

func addr(t testing.TB, s string) smtp.Address {
	t.Helper()
	a, err := smtp.ParseAddress(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return a
}

func envelope(t testing.TB, from string, to ...string) *smtp.Envelope {
	t.Helper()
	env := &smtp.Envelope{From: addr(t, from)}
	for _, s := range to {
		env.To = append(env.To, smtp.Recipient{Address: addr(t, s)})
	}
	return env
}

// play sends env to a scripted peer over a pipe, in a bubble.
func play(t *testing.T, target smtpclient.Target, env *smtp.Envelope, body string, scripts ...smtptest.Script) (results []smtp.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		peer := &smtptest.Peer{Scripts: scripts}
		d := &smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}
		target.Addr = "mx.test:25"
		c, err := d.Dial(t.Context(), target)
		if err != nil {
			results = make([]smtp.Result, len(env.To))
			for i := range results {
				results[i].Err = err
			}
		} else {
			results = c.Send(t.Context(), env, strings.NewReader(body))
			c.Close()
		}
		if err := peer.Wait(); err != nil {
			t.Error(err)
		}
	})
	return results
}

// check compares results with their short form: "250", or "550 5.1.1 host
// unsure".
func check(t *testing.T, results []smtp.Result, want ...string) {
	t.Helper()
	if len(results) != len(want) {
		t.Fatalf("%d results, want %d", len(results), len(want))
	}
	for i, r := range results {
		got := "250"
		if r.Err != nil {
			var e *smtp.Error
			if !errors.As(r.Err, &e) {
				t.Errorf("result %d: %T is no *smtp.Error", i, r.Err)
				continue
			}
			got = smtp.Reply{Code: e.Code, Enhanced: e.Enhanced}.String() + " " + e.Scope.String()
			if e.Unsure {
				got += " unsure"
			}
		}
		if got != want[i] {
			t.Errorf("result %d: %q, want %q (%v)", i, got, want[i], r.Err)
		}
	}
}

func TestSendTCP(t *testing.T) {
	srv := smtptest.New(t)
	c, err := (&smtpclient.Dialer{Hello: "me.test"}).Dial(t.Context(), smtpclient.Target{Addr: srv.Addr, Name: "mx.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		res := c.Send(t.Context(), envelope(t, "a@b.test", "c@d.test", "e@f.test"), strings.NewReader(message))
		check(t, res, "250", "250")
		if h := res[0].Hop; h == nil || h.Name != "mx.test" || h.Addr.String() != srv.Addr || h.TLS != 0 || !h.DSN {
			t.Errorf("hop %+v", h)
		}
		if res[1].Reply.Code != 250 {
			t.Errorf("reply %v", res[1].Reply)
		}
	}
	m := srv.Wait(t.Context(), 3)[2]
	if string(m.Data) != message || len(m.Envelope.To) != 2 || m.Hello != "me.test" || m.Envelope.Size != int64(len(message)) {
		t.Errorf("%+v %q", m.Envelope, m.Data)
	}
	if res := c.Send(t.Context(), &smtp.Envelope{}, strings.NewReader(message)); len(res) != 0 {
		t.Errorf("no recipients: %v", res)
	}
}

const greeting = "S: 220 mx.test\nC: EHLO me.test\nS: 250-mx.test\n"

func TestTranscripts(t *testing.T) {
	env := func(edit func(*smtp.Envelope), to ...string) *smtp.Envelope {
		e := envelope(t, "a@b.test", to...)
		if edit != nil {
			edit(e)
		}
		return e
	}
	for _, tt := range []struct {
		name   string
		target smtpclient.Target
		env    *smtp.Envelope
		body   string
		script smtptest.Script
		want   []string
	}{
		{name: "pipelined", env: env(nil, "c@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL FROM:<a@b.test>
			C: RCPT TO:<c@d.test>
			C: DATA
			S: 250 2.1.0 ok
			S: 250 2.1.5 ok
			S: 354 go
			C: From: a@b.test
			C: Subject: x
			C:
			C: Hello
			C: ..dot
			C: .
			S: 250 2.0.0 queued
			C: QUIT
			S: 221 bye`, want: []string{"250"}},
		{name: "one by one", env: env(nil, "c@d.test", "e@f.test"), script: greeting + `S: 250 HELP
			C: MAIL FROM:<a@b.test>
			S: 250 ok
			C: RCPT TO:<c@d.test>
			S: 550-5.1.1 no
			S: 550 5.1.1 such user
			C: RCPT TO:<e@f.test>
			S: 251 will forward
			C: DATA
			S: 354 go
			BODY
			S: 250 ok
			C: QUIT
			S: 221 bye`, want: []string{"550 5.1.1 recipient", "250"}},
		{name: "HELO", env: env(nil, "c@d.test"), script: `S: 220-mx.test
			S: 220 hello
			C: EHLO me.test
			S: 502 what?
			C: HELO me.test
			S: 250 mx.test
			C: MAIL FROM:<a@b.test>
			S: 250 ok
			C: RCPT TO:<c@d.test>
			S: 250 ok
			C: DATA
			S: 354 go
			BODY
			S: 250 ok
			C: QUIT
			S: 221`, want: []string{"250"}},
		{name: "nobody accepted, lone dot", env: env(nil, "c@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: DATA
			S: 250 ok
			S: 450 4.7.1 greylisted
			S: 354 go
			C: .
			S: 554 no recipients
			C: QUIT
			S: 221 bye`, want: []string{"450 4.7.1 recipient"}},
		{name: "MAIL refused", env: env(nil, "c@d.test", "e@f.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: RCPT*
			C: DATA
			S: 550 5.7.1 no
			S: 503 bad sequence
			S: 503 bad sequence
			S: 503 bad sequence
			C: QUIT
			S: 221 bye`, want: []string{"550 5.7.1 message", "550 5.7.1 message"}},
		{name: "MAIL refused, one by one", env: env(nil, "c@d.test"), script: greeting + `S: 250 SIZE
			C: MAIL FROM:<a@b.test> SIZE=*
			S: 451 4.3.1 full
			C: QUIT
			S: 221 bye`, want: []string{"451 4.3.1 host"}},
		{name: "DATA refused", env: env(nil, "c@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 451 4.7.1 not now
			C: QUIT
			S: 221 bye`, want: []string{"451 4.7.1 message"}},
		{name: "message refused", env: env(nil, "c@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 354 ok
			BODY
			S: 554 5.7.1 spam
			C: QUIT
			S: 221 bye`, want: []string{"554 5.7.1 message"}},
		{name: "452 4.5.3: next transaction", env: env(nil, "c1@d.test", "c2@d.test", "c3@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT TO:<c1@d.test>
			C: RCPT TO:<c2@d.test>
			C: RCPT TO:<c3@d.test>
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 452 4.5.3 too many
			S: 452 4.5.3 too many
			S: 354 ok
			BODY
			S: 250 first
			C: MAIL*
			C: RCPT TO:<c2@d.test>
			C: RCPT TO:<c3@d.test>
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 550 5.1.1 unknown
			S: 354 ok
			BODY
			S: 250 second
			C: QUIT
			S: 221 bye`, want: []string{"250", "250", "550 5.1.1 recipient"}},
		{name: "452 4.2.2 is the recipient's own", env: env(nil, "c1@d.test", "c2@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: RCPT*
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 452 4.2.2 full
			S: 354 ok
			BODY
			S: 250 first
			C: QUIT
			S: 221 bye`, want: []string{"250", "452 4.2.2 recipient"}},
		{name: "too large", env: env(nil, "c@d.test"), script: greeting + `S: 250 SIZE 10
			C: QUIT
			S: 221 bye`, want: []string{"552 5.3.4 message"}},
		{name: "8-bit", env: env(nil, "c@d.test"), body: "\r\n\xc3\xa4\r\n", script: greeting + `S: 250 8BITMIME
			C: MAIL FROM:<a@b.test> BODY=8BITMIME
			S: 250 ok
			C: RCPT*
			S: 250 ok
			C: DATA
			S: 354 ok
			BODY
			S: 250 ok
			C: QUIT
			S: 221 bye`, want: []string{"250"}},
		{name: "8-bit without 8BITMIME", env: env(nil, "c@d.test"), body: "\r\n\xc3\xa4\r\n", script: greeting + `S: 250 HELP
			C: QUIT
			S: 221 bye`, want: []string{"554 5.6.3 message"}},
		{name: "binary", env: env(func(e *smtp.Envelope) { e.Body = smtp.BodyBinary }, "c@d.test"), body: "\r\na\x00b\r\n", script: greeting + `S: 250 8BITMIME
			C: QUIT
			S: 221 bye`, want: []string{"554 5.6.3 message"}},
		{name: "SMTPUTF8", env: env(nil, "dörte@d.test", "c@d.test"), script: greeting + `S: 250-8BITMIME
			S: 250 SMTPUTF8
			C: MAIL FROM:<a@b.test> SMTPUTF8
			S: 250 ok
			C: RCPT TO:<dörte@d.test>
			S: 250 ok
			C: RCPT*
			S: 250 ok
			C: DATA
			S: 354 ok
			BODY
			S: 250 ok
			C: QUIT
			S: 221 bye`, want: []string{"250", "250"}},
		{name: "no SMTPUTF8, ASCII header", env: env(nil, "dörte@d.test", "c@d.test"), body: "Subject: x\r\n\r\n\xc3\xa4", script: greeting + `S: 250 8BITMIME
			C: MAIL FROM:<a@b.test> BODY=8BITMIME
			S: 250 ok
			C: RCPT TO:<c@d.test>
			S: 250 ok
			C: DATA
			S: 354 ok
			BODY
			S: 250 ok
			C: QUIT
			S: 221 bye`, want: []string{"553 5.6.7 recipient", "250"}},
		{name: "no SMTPUTF8, UTF-8 header", env: env(func(e *smtp.Envelope) { e.UTF8 = true }, "c@d.test"), body: "Subject: \xc3\xa4\r\n\r\nx", script: greeting + `S: 250 8BITMIME
			C: QUIT
			S: 221 bye`, want: []string{"550 5.6.7 message"}},
		{name: "no SMTPUTF8, UTF-8 sender", env: envelope(t, "dörte@b.test", "c@d.test"), script: greeting + `S: 250 8BITMIME
			C: QUIT
			S: 221 bye`, want: []string{"550 5.6.7 message"}},
		{name: "DSN", env: env(func(e *smtp.Envelope) {
			e.Return, e.EnvelopeID = smtp.ReturnHeaders, "id=1 ü"
			e.To[0].Notify, e.To[0].Original = smtp.NotifySuccess|smtp.NotifyDelay, "c+x@d.test"
			e.To[1].Notify = smtp.NotifyNever
		}, "c@d.test", "e@f.test"), script: greeting + `S: 250 DSN
			C: MAIL FROM:<a@b.test> RET=HDRS ENVID=id+3D1+20+C3+BC
			S: 250 ok
			C: RCPT TO:<c@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+2Bx@d.test
			S: 250 ok
			C: RCPT TO:<e@f.test> NOTIFY=NEVER
			S: 250 ok
			C: DATA
			S: 354 ok
			BODY
			S: 250 ok
			C: QUIT
			S: 221 bye`, want: []string{"250", "250"}},
		{name: "ORCPT of an internationalized address under SMTPUTF8", env: env(func(e *smtp.Envelope) {
			e.UTF8 = true
			e.To[0].OriginalType, e.To[0].Original = smtp.AddressUTF8, "dörte+x@d.test"
			e.To[1].OriginalType, e.To[1].Original = "no type", "e@f.test" // nobody could read it
		}, "c@d.test", "e@f.test"), script: greeting + `S: 250-SMTPUTF8
			S: 250 DSN
			C: MAIL FROM:<a@b.test> SMTPUTF8
			S: 250 ok
			C: RCPT TO:<c@d.test> ORCPT=utf-8;dörte\x{2B}x@d.test
			S: 250 ok
			C: RCPT TO:<e@f.test>
			S: 250 ok
			C: DATA
			S: 354 ok
			BODY
			S: 250 ok
			C: QUIT
			S: 221 bye`, want: []string{"250", "250"}},
		{name: "ORCPT of an internationalized address without SMTPUTF8", env: env(func(e *smtp.Envelope) {
			e.To[0].OriginalType, e.To[0].Original = smtp.AddressUTF8, "dörte@d.test"
		}, "c@d.test"), script: greeting + `S: 250-SMTPUTF8
			S: 250 DSN
			C: MAIL FROM:<a@b.test>
			S: 250 ok
			C: RCPT TO:<c@d.test> ORCPT=utf-8;d\x{F6}rte@d.test
			S: 550 no
			C: QUIT
			S: 221 bye`, want: []string{"550 recipient"}},
		{name: "DSN parameters are not for every host", env: env(func(e *smtp.Envelope) { e.To[0].Notify = smtp.NotifyNever }, "c@d.test"), script: greeting + `S: 250 HELP
			C: MAIL FROM:<a@b.test>
			S: 550 no
			C: QUIT
			S: 221 bye`, want: []string{"550 message"}},
		{name: "DELIVERBY", env: env(func(e *smtp.Envelope) { e.DeliverBy = time.Date(2000, 1, 1, 0, 2, 0, 0, time.UTC) }, "c@d.test"), script: greeting + `S: 250 DELIVERBY
			C: MAIL FROM:<a@b.test> BY=120;N
			S: 550 no
			C: QUIT
			S: 221 bye`, want: []string{"550 message"}},
		{name: "REQUIRETLS in plain text", env: env(func(e *smtp.Envelope) { e.RequireTLS = true }, "c@d.test"), script: greeting + `S: 250 REQUIRETLS
			C: QUIT
			S: 221 bye`, want: []string{"550 5.7.10 host"}},
		{name: "null sender, quoted local part", env: envelope(t, "", `"a b\"c"@d.test`), script: greeting + `S: 250 HELP
			C: MAIL FROM:<>
			S: 250 ok
			C: RCPT TO:<"a b\"c"@d.test>
			S: 550 no
			C: QUIT
			S: 221 bye`, want: []string{"550 recipient"}},
		{name: "RSET after a refusal", env: env(nil, "c@d.test"), script: greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: DATA
			S: 421-4.3.2 going
			S: 421 4.3.2 down`, want: []string{"421 4.3.2 host"}},
		{name: "TLS required", target: smtpclient.Target{Need: smtpclient.Encrypted}, env: env(nil, "c@d.test"),
			script: greeting + "S: 250 HELP", want: []string{"451 4.7.4 host"}},
		{name: "STARTTLS refused, opportunistic", env: env(nil, "c@d.test"), script: greeting + `S: 250 STARTTLS
			C: STARTTLS
			S: 454 not now
			C: MAIL*
			S: 550 no
			C: QUIT
			S: 221 bye`, want: []string{"550 message"}},
		{name: "STARTTLS refused, needed", target: smtpclient.Target{Need: smtpclient.Encrypted}, env: env(nil, "c@d.test"), script: greeting + `S: 250 STARTTLS
			C: STARTTLS
			S: 554 never`, want: []string{"451 4.7.4 host"}},
		{name: "data behind STARTTLS", env: env(nil, "c@d.test"), script: greeting + `S: 250 STARTTLS
			C: STARTTLS
			RAW "220 go\r\n250 injected\r\n"`, want: []string{"451 4.5.0 host"}},
		{name: "LMTP", target: smtpclient.Target{LMTP: true}, env: env(nil, "c1@d.test", "c2@d.test", "c3@d.test"), script: `S: 220 lmtp
			C: LHLO me.test
			S: 250-mx.test
			S: 250 PIPELINING
			C: MAIL*
			C: RCPT TO:<c1*
			C: RCPT TO:<c2*
			C: RCPT TO:<c3*
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 550 no
			S: 250 ok
			S: 354 go
			BODY
			S: 250 stored
			S: 452 4.2.2 full
			C: QUIT
			S: 221 bye`, want: []string{"250", "550 recipient", "452 4.2.2 recipient"}},
		{name: "LMTP ends between replies", target: smtpclient.Target{LMTP: true}, env: env(nil, "c1@d.test", "c2@d.test"), script: `S: 220 lmtp
			C: LHLO me.test
			S: 250 PIPELINING
			C: MAIL*
			S: 250 ok
			C: RCPT*
			S: 250 ok
			C: RCPT*
			S: 250 ok
			C: DATA
			S: 354 go
			BODY
			S: 250 stored`, want: []string{"250", "451 4.4.2 host unsure"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.body == "" {
				tt.body = message
			}
			check(t, play(t, tt.target, tt.env, tt.body, tt.script), tt.want...)
		})
	}
}

// RSET is owed after a transaction that came to nothing, and goes out with
// the next one.
func TestResetBeforeNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &smtptest.Peer{Scripts: []smtptest.Script{greeting + `S: 250 PIPELINING
			C: MAIL*
			C: RCPT*
			C: DATA
			S: 250 ok
			S: 550 no
			S: 503 no recipients
			C: RSET
			C: MAIL*
			C: RCPT*
			C: DATA
			S: 250 ok
			S: 250 ok
			S: 250 ok
			S: 354 ok
			BODY
			S: 250 ok
			C: RSET
			S: 250 ok
			C: QUIT
			S: 221 bye`}}
		c, err := (&smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}).Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25"})
		if err != nil {
			t.Fatal(err)
		}
		env := envelope(t, "a@b.test", "c@d.test")
		check(t, c.Send(t.Context(), env, strings.NewReader(message)), "550 recipient")
		check(t, c.Send(t.Context(), env, strings.NewReader(message)), "250")
		if err := c.Reset(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
		c.Close()
		check(t, c.Send(t.Context(), env, strings.NewReader(message)), "451 4.4.2 recipient")
		if err := peer.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// An address cannot end the command it stands in.
func TestNoInjection(t *testing.T) {
	bad := []smtp.Address{
		{Local: "a\r\nRCPT TO:<evil@x.test>", Domain: "d.test"},
		{Local: "a\nb", Domain: "d.test"}, {Local: "a\x00b", Domain: "d.test"},
		{Local: "a", Domain: "d.test>\r\nDATA"}, {Local: "a", Domain: "d.test> SIZE=1"},
		{Local: "a", Domain: "d\x7f.test"}, {Local: "a"}, {},
		{Local: "a\xff", Domain: "d.test"}, {Local: strings.Repeat("x", 300), Domain: "d.test"},
	}
	env := envelope(t, "a@b.test")
	want := make([]string, len(bad))
	for i, a := range bad {
		env.To = append(env.To, smtp.Recipient{Address: a})
		want[i] = "501 5.1.3 recipient"
	}
	const quit = greeting + "S: 250-DSN\nS: 250 PIPELINING\nC: QUIT\nS: 221 bye"
	check(t, play(t, smtpclient.Target{}, env, message, quit), want...)
	for _, a := range bad[:4] {
		env := envelope(t, "a@b.test", "c@d.test")
		env.From = a
		check(t, play(t, smtpclient.Target{}, env, message, quit), "501 5.1.7 message")
	}
	// Parameters are encoded.
	env = envelope(t, "a@b.test", "c@d.test")
	env.EnvelopeID, env.Return = "x\r\nDATA", "FULL\r\nDATA"
	env.To[0].Original, env.To[0].OriginalType = "x", "a b\r\nDATA"
	check(t, play(t, smtpclient.Target{}, env, message, greeting+`S: 250-DSN
		S: 250 HELP
		C: MAIL FROM:<a@b.test> ENVID=x+0D+0ADATA
		S: 250 ok
		C: RCPT TO:<c@d.test>
		S: 550 no
		C: QUIT
		S: 221 bye`), "550 recipient")
	for _, hello := range []string{"a b", "a\r\nQUIT", "ä.test"} {
		d := &smtpclient.Dialer{Hello: hello, DialContext: (&smtptest.Peer{Scripts: []smtptest.Script{"S: 220 hi\nHANG"}}).DialContext}
		if _, err := d.Dial(t.Context(), smtpclient.Target{Addr: "x:25"}); err == nil {
			t.Errorf("Hello %q was sent", hello)
		}
	}
}

// Thousands of recipients go out together, and neither side waits for the
// other to read.
func TestManyRecipients(t *testing.T) {
	srv := &smtptest.Server{MaxRecipients: 70}
	defer srv.Close()
	d := &smtpclient.Dialer{DialContext: srv.DialContext}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := d.Dial(ctx, smtpclient.Target{Addr: "mx.test:25"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	env := envelope(t, "a@b.test")
	want := make([]string, 2000)
	for i := range want {
		env.To = append(env.To, smtp.Recipient{Address: smtp.Address{Local: "user" + strings.Repeat("x", i%50), Domain: "d.test"}})
		want[i] = "250"
	}
	check(t, c.Send(ctx, env, strings.NewReader(message)), want...)
	n := 0
	for _, m := range srv.Messages() {
		n += len(m.Envelope.To)
	}
	if n != len(want) || len(srv.Messages()) != 29 {
		t.Errorf("%d recipients in %d messages", n, len(srv.Messages()))
	}
}

func TestUnixSocketAndDialError(t *testing.T) {
	path := t.TempDir() + "/lmtp"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skip(err)
	}
	done := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err == nil {
			err = smtptest.Script("S: 220 hi\nC: LHLO localhost\nS: 250 hi\nC: QUIT\nS: 221 bye").Serve(nc)
		}
		done <- err
	}()
	c, err := (&smtpclient.Dialer{Hello: "localhost"}).Dial(t.Context(), smtpclient.Target{Addr: path, LMTP: true})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.Close()
	_, err = (&smtpclient.Dialer{}).Dial(t.Context(), smtpclient.Target{Addr: path})
	var e *smtp.Error
	if !errors.As(err, &e) || e.Code != 451 || e.Enhanced != (smtp.EnhancedCode{4, 4, 1}) || e.Scope != smtp.ScopeHost {
		t.Errorf("%#v", err)
	}
}

// A refusal in place of the banner is the host's own words too.
func TestUnsentResults(t *testing.T) {
	srv := smtptest.New(t)
	srv.Inject(smtptest.Fault{At: smtptest.Connect, Reply: "421 4.3.2 Full"})
	env := envelope(t, "a@b.test", "c@d.test", "e@f.test")
	relay := &smtpclient.Relay{Addr: srv.Addr}
	for range 2 {
		res := relay.Deliver(t.Context(), env, strings.NewReader(message))
		check(t, res, "421 4.3.2 host", "421 4.3.2 host")
		if r := res[1]; r.Reply.Code != 421 || r.Reply.Text != "Full" || r.Hop == nil || r.Hop.Addr.String() != srv.Addr {
			t.Errorf("%+v %+v", r.Reply, r.Hop)
		}
		relay.Pool = &smtpclient.Pool{}
		defer relay.Pool.Close()
	}
	srv.Close()
	if r := relay.Deliver(t.Context(), env, strings.NewReader(message))[0]; r.Hop != nil || r.Reply.Code != 0 || r.Err == nil {
		t.Errorf("%+v", r)
	}
}

// LMTP, with a reply for each recipient.
func TestLMTP(t *testing.T) {
	srv := &smtptest.Server{LMTP: true}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	srv.Inject(smtptest.Fault{At: smtptest.Dot, Match: "full@", Reply: "452 4.2.2 Over quota"})
	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "nobody@", Reply: "550 5.1.1 Unknown"})
	pool := &smtpclient.Pool{}
	defer pool.Close()
	relay := &smtpclient.Relay{Addr: srv.Addr, LMTP: true, Pool: pool}
	env := envelope(t, "a@b.test", "one@d.test", "nobody@d.test", "full@d.test", "two@d.test")
	for range 2 {
		check(t, relay.Deliver(t.Context(), env, strings.NewReader(message)), "250", "550 5.1.1 recipient", "452 4.2.2 recipient", "250")
	}
	if n := srv.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Whatever stands in a message, it stays one message.
func TestNoSmuggling(t *testing.T) {
	srv := smtptest.New(t)
	relay := &smtpclient.Relay{Addr: srv.Addr}
	for _, end := range []string{"\r\n.\r\n", "\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\n.\r"} {
		body := "Subject: x\r\n\r\nfirst" + end + "MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nsecond\r\n.\r\n"
		before := len(srv.Messages())
		check(t, relay.Deliver(t.Context(), envelope(t, "a@b.test", "c@d.test"), strings.NewReader(body)), "250")
		list := srv.Messages()
		if len(list) != before+1 || list[before].Envelope.From.Local != "a" || !strings.Contains(string(list[before].Data), "second\r\n.\r\n") {
			t.Errorf("%q: %d messages, %q", end, len(list)-before, list[len(list)-1].Data)
		}
	}
}
