package smtpclient_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// two sends two messages at the same time over a pool with one connection to
// scripted peers, and returns their results, first and second in the order in
// which they began.
func two(t *testing.T, ctx context.Context, scripts ...smtptest.Script) (first, second []smtp.Result, took [2]time.Duration) {
	t.Helper()
	peer := &smtptest.Peer{Scripts: scripts}
	pool := &smtpclient.Pool{MaxGroup: 1, Dialer: smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}}
	target := smtpclient.Target{Addr: "mx.test:25"}
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		first = pool.Send(t.Context(), target, envelope(t, "first@b.test", "c@d.test"), strings.NewReader(message))
		took[0] = time.Since(start)
	})
	synctest.Wait()
	wg.Go(func() {
		second = pool.Send(ctx, target, envelope(t, "second@b.test", "c@d.test"), strings.NewReader(message))
		took[1] = time.Since(start)
	})
	wg.Wait()
	pool.Close()
	if err := peer.Wait(); err != nil {
		t.Error(err)
	}
	return first, second, took
}

const firstSent = ready + "C: MAIL FROM:<first*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\n"

// The next envelope follows an unanswered dot, and replies come in order.
func TestBehindTheDot(t *testing.T) {
	const next = "C: MAIL FROM:<second*\nC: RCPT*\nC: DATA\n" // read before the dot is answered
	for _, tt := range []struct {
		name          string
		scripts       []smtptest.Script
		first, second string
	}{
		{"both taken", []smtptest.Script{firstSent + next + "S: 250 one\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "250", "250"},
		{"first refused", []smtptest.Script{firstSent + next + "S: 554 no\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "554 message", "250"},
		{"second refused", []smtptest.Script{firstSent + next + "S: 250 one\nS: 250 ok\nS: 550 5.1.1 no\nS: 554 nobody"}, "250", "550 5.1.1 recipient"},
		{"second deferred at the dot", []smtptest.Script{firstSent + next + "S: 250 one\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 451 4.3.0 full"}, "250", "451 4.3.0 host"},
		// 421 between the two: the first is taken, the second goes elsewhere.
		{"421 between", []smtptest.Script{firstSent + next + "S: 250 one\nS: 421 4.7.0 enough", ready + next + "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "250", "250"},
		{"421 to the dot", []smtptest.Script{firstSent + next + "S: 421 4.3.2 bye", ready + next + "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "421 4.3.2 host", "250"},
		{"421 at RCPT", []smtptest.Script{firstSent + next + "S: 250 one\nS: 250 ok\nS: 421 4.7.0 enough"}, "250", "421 4.7.0 host"},
		// The connection goes: only the first's dot was sent.
		{"dies after the dot", []smtptest.Script{firstSent + next + "CLOSE", ready + next + "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "451 4.4.2 host unsure", "250"},
		{"dies after the first reply", []smtptest.Script{firstSent + next + "S: 250 one\nCLOSE", ready + next + "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "250", "250"},
		{"dies in the second envelope", []smtptest.Script{firstSent + next + "S: 250 one\nS: 250 ok\nCLOSE"}, "250", "451 4.4.2 host"},
		{"dies after the second dot", []smtptest.Script{firstSent + next + "S: 250 one\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nCLOSE"}, "250", "451 4.4.2 host unsure"},
		{"no new connection", []smtptest.Script{firstSent + next + "CLOSE"}, "451 4.4.2 host unsure", "451 4.4.1 host"},
		{"garbage", []smtptest.Script{firstSent + next + "S: 250 one\nRAW \"hello\\r\\n\""}, "250", "451 4.4.1 host"},
		// LIMITS MAILMAX: no second one here.
		{"MAILMAX", []smtptest.Script{
			greeting + "S: 250-PIPELINING\nS: 250 LIMITS MAILMAX=1\nC: MAIL FROM:<first*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nWAIT 1s\nS: 250 one\nC: QUIT\nS: 221 bye",
			ready + next + "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 two"}, "250", "250"},
		// Without PIPELINING it waits for the reply.
		{"no pipelining", []smtptest.Script{greeting + "S: 250 SIZE\nC: MAIL FROM:<first*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nWAIT 1s\nS: 250 one\n" +
			"C: MAIL FROM:<second*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 two\nHANG"}, "250", "250"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for i, s := range tt.scripts {
					if !strings.Contains(string(s), "CLOSE") && !strings.Contains(string(s), "421") && !strings.Contains(string(s), "RAW") && !strings.Contains(string(s), "QUIT") {
						tt.scripts[i] += "\nHANG"
					}
				}
				first, second, _ := two(t, t.Context(), tt.scripts...)
				check(t, first, tt.first)
				check(t, second, tt.second)
			})
		})
	}
}

// A context that ends while others' dot is unanswered ends only its own Send,
// at once; the dot is waited for, and then the connection is of no more use.
func TestBehindCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first, second, took := two(t, ctx, firstSent+"C: MAIL FROM:<second*\nC: RCPT*\nC: DATA\nWAIT 1m\nS: 250 one\nHANG")
		check(t, first, "250")
		check(t, second, "451 4.4.2 recipient")
		if !errors.Is(second[0].Err, context.DeadlineExceeded) || took[0] != time.Minute || took[1] != time.Second {
			t.Errorf("took %v, %v", took, second[0].Err)
		}
	})
}

// Many senders over one connection to a real server: none lost, none doubled,
// and few round trips.
func TestBehindMany(t *testing.T) {
	srv := smtptest.New(t)
	pool := &smtpclient.Pool{MaxGroup: 1, MaxMessages: 7}
	relay := &smtpclient.Relay{Addr: srv.Addr, Pool: pool}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				env := envelope(t, "a@b.test", string(rune('a'+g))+"-"+strings.Repeat("x", i+1)+"@d.test")
				check(t, relay.Deliver(t.Context(), env, strings.NewReader(message)), "250")
			}
		})
	}
	wg.Wait()
	if err := pool.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	seen := map[string]int{}
	for _, m := range srv.Messages() {
		seen[m.Envelope.To[0].String()]++
	}
	for to, n := range seen {
		if n != 1 {
			t.Errorf("%s: %d times", to, n)
		}
	}
	if len(seen) != 200 || srv.Connections() > 40 {
		t.Errorf("%d messages, %d connections", len(seen), srv.Connections())
	}
}

// A context that is done before anything was said costs no connection.
func TestDoneBefore(t *testing.T) {
	srv := (&smtptest.Server{Without: []string{"DSN"}}).Run(t)
	pool := &smtpclient.Pool{}
	defer pool.Close()
	relay := &smtpclient.Relay{Addr: srv.Addr, Pool: pool}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		res := relay.Deliver(t.Context(), envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message))
		check(t, res, "250")
		if res[0].Hop.DSN {
			t.Error("a hop without DSN has it") // RFC 3461 §5.2.2: who relayed it owes the notice
		}
		check(t, relay.Deliver(done, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "451 4.4.2 recipient")
	}
	if n := srv.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// One that is done already goes behind an unanswered dot, and out of the way of
// the next.
func TestDoneBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &smtptest.Server{}
		defer srv.Close()
		srv.Inject(smtptest.Fault{At: smtptest.Dot, Delay: time.Minute, Times: 1})
		c, err := (&smtpclient.Dialer{DialContext: srv.DialContext}).Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		done, cancel := context.WithCancel(t.Context())
		cancel()
		env := envelope(t, "a@b.test", "c@d.test")
		var wg sync.WaitGroup
		for _, s := range []struct {
			ctx  context.Context
			want string
		}{{t.Context(), "250"}, {done, "451 4.4.2 recipient"}, {t.Context(), "250"}} {
			wg.Go(func() { check(t, c.Send(s.ctx, env, strings.NewReader(message)), s.want) })
			synctest.Wait()
		}
		wg.Wait()
	})
}

// LIMITS splits transactions by recipients and by their domains.
func TestLimitsDomains(t *testing.T) {
	const ok = "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 taken\n"
	res := play(t, smtpclient.Target{}, envelope(t, "a@b.test", "1@x.test", "2@x.test", "3@y.test", "4@z.test"), message,
		greeting+"S: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=9 RCPTDOMAINMAX=1\n"+
			"C: MAIL*\nC: RCPT TO:<1@*\nC: RCPT TO:<2@*\nC: DATA\nS: 250 ok\n"+ok+
			"C: MAIL*\nC: RCPT TO:<3@*\nC: DATA\n"+ok+"C: MAIL*\nC: RCPT TO:<4@*\nC: DATA\n"+ok+"C: QUIT\nS: 221 bye")
	check(t, res, "250", "250", "250", "250")
	res = play(t, smtpclient.Target{}, envelope(t, "a@b.test", "1@x.test", "2@x.test"), message,
		greeting+"S: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=1 MAILMAX=1\nC: MAIL*\nC: RCPT*\nC: DATA\n"+ok)
	check(t, res, "250", "451 4.5.3 recipient")
}

// BINARYMIME goes in chunks, as it is, the next before the reply to the last.
func TestChunks(t *testing.T) {
	env := envelope(t, "a@b.test", "c@d.test", "e@f.test")
	env.Body = smtp.BodyBinary
	const bin = "a\x00b\n.\r\nc"
	const hello = greeting + "S: 250-PIPELINING\nS: 250-CHUNKING\nS: 250 BINARYMIME\nC: MAIL FROM:<a@b.test> BODY=BINARYMIME\nC: RCPT*\nC: RCPT*\nS: 250 ok\nS: 250 ok\n"
	const quit = "C: QUIT\nS: 221 bye"
	big := strings.Repeat("\x00\r.\n", 700_000) // 2.8 MB: three chunks
	const one = "S: 550 5.1.1 no\nC: BDAT 8 LAST\nCHUNK 8\n"
	for _, tt := range []struct {
		name, body, script string
		first              string
	}{
		{"small", bin, hello + one + "S: 250 ok\n" + quit, "250"},
		{"refused", bin, hello + one + "S: 552 5.3.4 big\n" + quit, "552 5.3.4 message"},
		{"421", bin, hello + one + "S: 421 4.3.2 bye", "421 4.3.2 host"},
		{"dies", bin, hello + one + "CLOSE", "451 4.4.2 host unsure"},
		{"hangs", bin, hello + one + "HANG", "451 4.4.2 host unsure"},
		{"odd reply", bin, hello + one + "S: 354 go", "451 4.5.0 host unsure"},
		{"empty", "", hello + "S: 550 5.1.1 no\nC: BDAT 0 LAST\nS: 250 ok\n" + quit, "250"},
		{"three chunks", big, hello + "S: 550 5.1.1 no\nC: BDAT 1048576\nCHUNK 1048576\nC: BDAT 1048576\nS: 250 ok\nCHUNK 1048576\nS: 250 ok\nC: BDAT 702848 LAST\nCHUNK 702848\nS: 250 ok\n" + quit, "250"},
		{"first refused", big, hello + "S: 550 5.1.1 no\nC: BDAT 1048576\nCHUNK 1048576\nS: 452 4.3.1 full\nC: BDAT 1048576\nCHUNK 1048576\nS: 503 no\n" + quit, "452 4.3.1 host"},
		// It may have the last one too, but not all of it.
		{"second refused", big, hello + "S: 550 5.1.1 no\nC: BDAT 1048576\nCHUNK 1048576\nS: 250 ok\nC: BDAT 1048576\nCHUNK 1048576\nS: 552 big\nHANG", "552 message"},
		{"dies in the second", big, hello + "S: 550 5.1.1 no\nC: BDAT 1048576\nCHUNK 1048576\nS: 250 ok\nC: BDAT 1048576\nCHUNK 10\nCLOSE", "451 4.4.2 host"},
		{"hangs in the second", big, hello + "S: 550 5.1.1 no\nC: BDAT 1048576\nCHUNK 1048576\nC: BDAT 1048576\nCHUNK 1048576\nHANG", "451 4.4.2 host"},
		{"nobody", bin, hello + "S: 550 no\n" + quit, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := tt.script
			first, second := tt.first, "550 5.1.1 recipient"
			if tt.name == "nobody" {
				script = strings.Replace(script, "S: 250 ok\nS: 250 ok\nS: 550", "S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1", 1)
				first = second
			}
			res := play(t, smtpclient.Target{}, env, tt.body, smtptest.Script(script))
			check(t, res, first, second)
		})
	}
	for _, tt := range []struct {
		body string
		text bool
	}{
		{"", true}, {message, true}, {"a\r\n.\r\n" + strings.Repeat("x", 998) + "\r\n", true}, {"Content-Transfer-Encoding: 7bit\r\n\r\n", true},
		{"content-TRANSFER-encoding:  BINARY\r\n\r\n", false}, {"Content-Transfer-Encoding:\r\n binary\r\n\r\n", false},
		{"Content-Transfer-Encoding: binary (x)\r\n\r\n", false}, {strings.Repeat("x", 999) + "\r\n", false},
		{"a\rb\r\n", false}, {"a\nb\r\n", false}, {"a\x00\r\n", false}, {"a", false}, {"a\r", false}, {"a\r\r\n", false},
	} {
		want, script := "554 5.6.3 message", "C: QUIT\nS: 221 bye"
		if tt.text {
			want, script = "250", "C: MAIL FROM:<a@b.test>\nC: RCPT*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 ok\n"+script
		}
		t.Run(fmt.Sprintf("to a host without: %.20q", tt.body), func(t *testing.T) {
			check(t, play(t, smtpclient.Target{}, env, tt.body, smtptest.Script(greeting+"S: 250 PIPELINING\n"+script)), want, want)
		})
	}
	for _, ext := range []string{"250 PIPELINING", "250 CHUNKING", "250 BINARYMIME"} {
		res := play(t, smtpclient.Target{}, env, bin, smtptest.Script(greeting+"S: "+ext+"\nC: QUIT\nS: 221 bye"))
		check(t, res, "554 5.6.3 message", "554 5.6.3 message")
		if !errors.Is(res[0].Err, smtpclient.ErrExtension) {
			t.Error(res[0].Err)
		}
	}
}

// As long as there may be more connections, nobody waits behind another's
// dot; and what is idle and what may be followed can be asked for.
func TestBehindOnlyWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &smtptest.Server{}
		defer srv.Close()
		srv.Inject(smtptest.Fault{At: smtptest.Dot, Delay: time.Minute})
		pool := &smtpclient.Pool{MaxGroup: 2, MaxIdle: time.Hour, Dialer: smtpclient.Dialer{DialContext: srv.DialContext}}
		target := smtpclient.Target{Addr: "mx.test:25", Group: "g"}
		start := time.Now()
		var wg sync.WaitGroup
		var took [3]time.Duration
		for i := range took {
			wg.Go(func() {
				check(t, pool.Send(t.Context(), target, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "250")
				took[i] = time.Since(start)
			})
			synctest.Wait()
			if n := len(pool.Idle("g")); i == 0 && n != 0 || i == 1 && n != 2 {
				t.Errorf("%d may take a message after %d", n, i+1)
			}
		}
		wg.Wait()
		if took[0] != time.Minute || took[1] != time.Minute || took[2] != 2*time.Minute || srv.Connections() != 2 {
			t.Errorf("took %v over %d connections", took, srv.Connections())
		}
		if n := len(pool.Idle("g")); n != 2 {
			t.Errorf("%d idle", n)
		}
		pool.Close()
	})
}
