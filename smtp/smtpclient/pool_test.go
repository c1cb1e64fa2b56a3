package smtpclient_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

func TestPoolReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &smtptest.Server{}
		defer srv.Close()
		pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: srv.DialContext}, MaxMessages: 3}
		defer pool.Close()
		env := envelope(t, "a@b.test", "c@d.test")
		target := smtpclient.Target{Addr: "mx.test:25", Group: "site"}
		send := func(target smtpclient.Target, conns int) {
			t.Helper()
			check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
			if n := srv.Connections(); n != conns {
				t.Errorf("%d connections, want %d", n, conns)
			}
		}
		if idle := pool.Idle("site"); len(idle) != 0 {
			t.Errorf("idle %v", idle)
		}
		send(target, 1)
		if idle := pool.Idle("site"); len(idle) != 1 || idle[0].Addr != target.Addr {
			t.Errorf("idle %v", idle)
		}
		send(target, 1)
		send(target, 1) // its third and last
		synctest.Wait()
		if idle := pool.Idle("site"); len(idle) != 0 {
			t.Errorf("idle %v", idle)
		}
		send(target, 2)
		other := target
		other.Addr = "mx2.test:25"
		send(other, 3)
		login := target
		login.Auth = &smtpclient.Auth{User: "u", Password: "p", Insecure: true}
		if res := pool.Send(t.Context(), login, env, strings.NewReader(message)); !errors.Is(res[0].Err, smtpclient.ErrNoMechanism) {
			t.Errorf("%v", res[0].Err)
		}
		time.Sleep(29 * time.Second)
		send(target, 4)
		time.Sleep(31 * time.Second) // all idle ones are gone
		synctest.Wait()
		if idle := pool.Idle("site"); len(idle) != 0 {
			t.Errorf("idle %v", idle)
		}
		send(target, 5)
		// MaxAge: kept busy, but not for ever.
		for range 2 {
			time.Sleep(25 * time.Second)
			pool.Send(t.Context(), target, env, strings.NewReader(message))
		}
	})
}

// What a connection has proven decides whether it serves, not what it was
// opened for.
func TestPoolSecurity(t *testing.T) {
	srv := &smtptest.Server{STARTTLS: true}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{TLS: srv.ClientTLS()}}
	defer pool.Close()
	env := envelope(t, "a@b.test", "c@d.test")
	for _, tt := range []struct {
		name  string
		need  smtpclient.Security
		conns int
	}{
		{"mx.test", smtpclient.Plain, 1},
		{"mx.test", smtpclient.Opportunistic, 1},
		{"mx.test", smtpclient.Encrypted, 2}, // verified by the way
		{"mx.test", smtpclient.Verified, 2},
		{"localhost", smtpclient.Encrypted, 2},
		{"localhost", smtpclient.Verified, 3}, // for another name
		{"localhost", smtpclient.Verified, 3},
	} {
		check(t, pool.Send(t.Context(), smtpclient.Target{Addr: srv.Addr, Name: tt.name, Need: tt.need}, env, strings.NewReader(message)), "250")
		if n := srv.Connections(); n != tt.conns {
			t.Errorf("%v: %d connections", tt, n)
		}
	}
}

func TestPoolLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &smtptest.Server{}
		defer srv.Close()
		srv.Inject(smtptest.Fault{At: smtptest.Mail, Delay: time.Second})
		var mu sync.Mutex
		open, most := 0, 0
		pool := &smtpclient.Pool{MaxGroup: 3, MaxConns: 4, Dialer: smtpclient.Dialer{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := srv.DialContext(ctx, network, addr)
				mu.Lock()
				defer mu.Unlock()
				open++
				most = max(most, open)
				return &countedConn{Conn: nc, closed: sync.OnceFunc(func() { mu.Lock(); open--; mu.Unlock() })}, err
			}}}
		env := envelope(t, "a@b.test", "c@d.test")
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 12 {
			wg.Go(func() {
				// Two hosts of one site share its limit.
				target := smtpclient.Target{Addr: []string{"mx1.test:25", "mx2.test:25"}[i%2], Group: "site"}
				check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
			})
		}
		wg.Wait()
		if d := time.Since(start); d != 4*time.Second {
			t.Errorf("12 messages over 3 connections took %v", d)
		}
		if most > 3 {
			t.Errorf("%d connections at once", most)
		}
		// The limit for all gives way by ending idle ones of other groups.
		for i := range 6 {
			target := smtpclient.Target{Addr: string(rune('a'+i)) + ".test:25"}
			check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
		}
		// A waiter gives up with its context.
		for range 3 {
			wg.Go(func() {
				pool.Send(t.Context(), smtpclient.Target{Addr: "mx1.test:25", Group: "site"}, env, strings.NewReader(message))
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		res := pool.Send(ctx, smtpclient.Target{Addr: "mx1.test:25", Group: "site"}, env, strings.NewReader(message))
		check(t, res, "451 4.4.2 recipient")
		if !errors.Is(res[0].Err, context.DeadlineExceeded) {
			t.Errorf("%v", res[0].Err)
		}
		wg.Wait()
		if err := pool.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, pool.Send(t.Context(), smtpclient.Target{Addr: "mx1.test:25"}, env, strings.NewReader(message)), "451 4.4.2 recipient")
		if mu.Lock(); open != 0 {
			t.Errorf("%d connections after Shutdown", open)
		}
		mu.Unlock()
		pool.Close()
	})
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// An idle connection that died is replaced; one that dies in a transaction
// that the host had begun is not.
func TestPoolStale(t *testing.T) {
	first := ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 ok\n"
	for _, tt := range []struct{ name, end, want string }{
		{"closed", "CLOSE", "250"},
		{"421", "C: MAIL*\nC: RCPT*\nC: DATA\nS: 421 idle for too long", "250"},
		{"lost at RCPT", "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok", "451 4.4.2 host"},
		{"421 at RCPT", "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 421 no", "421 host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer := &smtptest.Peer{Scripts: []smtptest.Script{smtptest.Script(first + tt.end), smtptest.Script(first + "C: QUIT\nS: 221 bye")}}
				pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}}
				env := envelope(t, "a@b.test", "c@d.test")
				target := smtpclient.Target{Addr: "mx.test:25"}
				check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
				check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), tt.want)
				pool.Shutdown(t.Context())
				peer.Wait()
			})
		})
	}
}

// A connection that has waited is asked with RSET: in the same write as the
// envelope where that can be, and else for a round trip. What does not answer
// well is replaced.
func TestPoolHealth(t *testing.T) {
	message1 := "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 ok\n"
	slow := "S: 220 x\nC: EHLO*\nS: 250 x\n"
	slow1 := "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\n"
	bye := "C: QUIT\nS: 221 bye"
	for _, tt := range []struct {
		name    string
		wait    time.Duration
		scripts []string
	}{
		{"at once", 0, []string{ready + message1 + message1 + bye}},
		{"after a while", 5 * time.Second, []string{ready + message1 + "C: RSET\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 ok\n" + bye}},
		{"dead", 5 * time.Second, []string{ready + message1 + "CLOSE", ready + message1 + bye}},
		{"ends at RSET", 5 * time.Second, []string{ready + message1 + "C: RSET\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 421 too late", ready + message1 + bye}},
		{"refuses RSET", 5 * time.Second, []string{ready + message1 + "C: RSET\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 502 what?", ready + message1 + bye}},
		{"dies after RSET", 5 * time.Second, []string{ready + message1 + "C: RSET\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nCLOSE", ready + message1 + bye}},
		{"no pipelining", 5 * time.Second, []string{slow + slow1 + "C: RSET\nS: 250 ok\n" + slow1 + bye}},
		{"no pipelining, dead", 5 * time.Second, []string{slow + slow1 + "C: RSET\nCLOSE", slow + slow1 + bye}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer := &smtptest.Peer{}
				for _, s := range tt.scripts {
					peer.Scripts = append(peer.Scripts, smtptest.Script(s))
				}
				pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}}
				env := envelope(t, "a@b.test", "c@d.test")
				target := smtpclient.Target{Addr: "mx.test:25"}
				check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
				time.Sleep(tt.wait)
				check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
				pool.Shutdown(t.Context())
				if err := peer.Wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Shutdown waits for an unanswered dot and for what is behind it; Close cuts, and the outcome is Unsure.
func TestPoolShutdownAndClose(t *testing.T) {
	for _, cut := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv := &smtptest.Server{}
			defer srv.Close()
			srv.Inject(smtptest.Fault{At: smtptest.Dot, Delay: time.Minute})
			pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: srv.DialContext}, MaxGroup: 1}
			target := smtpclient.Target{Addr: "mx.test:25"}
			env := envelope(t, "a@b.test", "c@d.test")
			var res, waiting []smtp.Result
			var wg sync.WaitGroup
			wg.Go(func() { res = pool.Send(t.Context(), target, env, strings.NewReader(message)) })
			synctest.Wait()
			wg.Go(func() { waiting = pool.Send(t.Context(), target, env, strings.NewReader(message)) })
			synctest.Wait()
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := pool.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Shutdown: %v", err)
			}
			want := "250"
			if cut {
				pool.Close()
				want = "451 4.4.2 recipient unsure"
			} else if err := pool.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			took := time.Since(start)
			wg.Wait()
			check(t, res, want)
			// The one behind the dot is under way, and not unsure.
			if cut {
				want = "451 4.4.2 recipient"
			}
			check(t, waiting, want)
			if cut != (took == time.Second) {
				t.Errorf("took %v", took)
			}
			pool.Close()
		})
	}
}

// Close ends a Send that is dialling.
func TestPoolCloseWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}}
		done := make(chan []smtp.Result)
		go func() {
			done <- pool.Send(context.Background(), smtpclient.Target{Addr: "x:25"}, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message))
		}()
		synctest.Wait()
		pool.Close()
		check(t, <-done, "451 4.4.1 recipient")
	})
}

func TestPoolConcurrentTCP(t *testing.T) {
	srv := smtptest.New(t)
	pool := &smtpclient.Pool{MaxGroup: 4}
	relay := &smtpclient.Relay{Addr: srv.Addr, Pool: pool}
	env := envelope(t, "a@b.test", "c@d.test")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				check(t, relay.Deliver(t.Context(), env, strings.NewReader(message)), "250")
			}
		})
	}
	wg.Wait()
	if n, c := len(srv.Messages()), srv.Connections(); n != 320 || c > 8 {
		t.Errorf("%d messages over %d connections", n, c)
	}
	if err := pool.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// MaxGroup is the limit of a provider, and it counts a connection until that
// is closed: its successor waits for the goodbye.
func TestPoolGoodbyeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &smtptest.Server{}
		defer srv.Close()
		var mu sync.Mutex
		open, most := 0, 0
		pool := &smtpclient.Pool{MaxGroup: 2, MaxMessages: 1, Dialer: smtpclient.Dialer{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := srv.DialContext(ctx, network, addr)
				mu.Lock()
				defer mu.Unlock()
				open++
				most = max(most, open)
				return &countedConn{Conn: slowConn{nc}, closed: sync.OnceFunc(func() { mu.Lock(); open--; mu.Unlock() })}, err
			}}}
		env := envelope(t, "a@b.test", "c@d.test")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				check(t, pool.Send(t.Context(), smtpclient.Target{Addr: "mx.test:25"}, env, strings.NewReader(message)), "250")
			})
		}
		// Idle ones, of other hosts of the group, have to go first.
		pool.MaxMessages = 100
		for i := range 12 {
			wg.Go(func() {
				target := smtpclient.Target{Addr: string(rune('a'+i%6)) + ".test:25", Group: "mx.test:25"}
				check(t, pool.Send(t.Context(), target, env, strings.NewReader(message)), "250")
			})
		}
		wg.Wait()
		if most > 2 {
			t.Errorf("%d connections at once", most)
		}
		pool.Close()
		if open != 0 {
			t.Errorf("%d connections after Close", open)
		}
	})
}

// slowConn is far away.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond) // of the bubble
	return c.Conn.Write(p)
}
