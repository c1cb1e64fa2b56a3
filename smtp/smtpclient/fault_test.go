package smtpclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

const ready = greeting + "S: 250 PIPELINING\n"
const accepted = ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n"

// A host that ends, hangs or babbles, at each point. Unsure only when the
// dot was sent and nothing came.
func TestHostileHost(t *testing.T) {
	long := "RAW \"250 " + strings.Repeat("x", 5000) + "\\r\\n\"\nHANG"
	endless := "RAW \"" + strings.Repeat("250-x\\r\\n", 200) + "\"\nHANG"
	huge := "RAW \"" + strings.Repeat("250-"+strings.Repeat("y", 1000)+"\\r\\n", 50) + "\"\nHANG"
	for _, tt := range []struct {
		name, script, want string
		took               time.Duration
	}{
		{"closes at once", "CLOSE", "451 4.4.2 host", 0},
		{"half a banner", `RAW "220 mx"`, "451 4.4.2 host", 0},
		{"banner 554", "S: 554 go away", "554 host", 0},
		{"banner 521", "S: 521 5.3.2 host does not accept mail", "521 5.3.2 host", 0}, // RFC 7504 §3
		{"RCPT 556", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 556 5.1.10 domain does not accept mail\nS: 503 no", "556 5.1.10 recipient", 0},
		{"banner 421", "S: 421 4.3.2 later", "421 4.3.2 host", 0},
		{"banner 250", "S: 250 hi", "451 4.5.0 host", 0},
		{"banner hangs", "HANG", "451 4.4.2 host", 5 * time.Minute},
		{"banner is HTTP", `RAW "HTTP/1.1 400 Bad Request\r\n\r\n"`, "451 4.5.0 host", 0},
		{"banner is too long", long, "451 4.5.0 host", 0},
		{"banner never ends", endless, "451 4.5.0 host", 0},
		{"banner is huge", huge, "451 4.5.0 host", 0},
		{"code 199", `S: 199 x`, "451 4.5.0 host", 0},
		{"code 600", `S: 600 x`, "451 4.5.0 host", 0},
		{"EHLO closes", "S: 220 hi\nC: EHLO*", "451 4.4.2 host", 0},
		{"EHLO 421", "S: 220 hi\nC: EHLO*\nS: 421 bye", "421 host", 0},
		{"EHLO 550, HELO 550", "S: 220 hi\nC: EHLO*\nS: 550 no\nC: HELO*\nS: 550 never", "550 host", 0},
		{"EHLO hangs", "S: 220 hi\nC: EHLO*\nHANG", "451 4.4.2 host", 5 * time.Minute},
		{"EHLO never ends", "S: 220 hi\nC: EHLO*\n" + endless, "451 4.5.0 host", 0},
		{"two replies to EHLO", "S: 220 hi\nC: EHLO*\nRAW \"250 hi\\r\\n250 more\\r\\n\"", "451 4.5.0 host", 0},
		{"MAIL closes", ready + "C: MAIL*", "451 4.4.2 host", 0},
		{"MAIL 421", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 421 4.3.2 bye", "421 4.3.2 host", 0},
		{"MAIL 354", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 354 go", "451 4.5.0 host", 0},
		{"RCPT 421", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 421 bye", "421 host", 0},
		{"RCPT 354", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 354 go", "451 4.5.0 host", 0},
		{"RCPT hangs", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nHANG", "451 4.4.2 host", 5 * time.Minute},
		{"DATA 250", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok", "451 4.5.0 host", 0},
		{"DATA 421", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 421 bye", "421 host", 0},
		{"DATA hangs", ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nHANG", "451 4.4.2 host", 2 * time.Minute},
		{"does not read the message", accepted + "WAIT 20m", "451 4.4.2 host", 3 * time.Minute},
		{"closes before the message", accepted + "CLOSE", "451 4.4.2 host", 0},
		{"closes after the dot", accepted + "BODY\nCLOSE", "451 4.4.2 host unsure", 0},
		{"half a reply after the dot", accepted + "BODY\nRAW \"250 o\"", "451 4.4.2 host unsure", 0},
		{"garbage after the dot", accepted + "BODY\nRAW \"\\x00\\xff\\r\\n\"", "451 4.5.0 host unsure", 0},
		{"354 after the dot", accepted + "BODY\nS: 354 more", "451 4.5.0 host unsure", 0},
		{"421 after the dot", accepted + "BODY\nS: 421 4.3.2 no", "421 4.3.2 host", 0},
		{"hangs after the dot", accepted + "BODY\nHANG", "451 4.4.2 host unsure", 10 * time.Minute},
		{"drips a reply", "RAW \"2\"\nWAIT 4m\nRAW \"2\"\nWAIT 4m\nRAW \"0\"", "451 4.4.2 host", 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer := &smtptest.Peer{Scripts: []smtptest.Script{smtptest.Script(tt.script)}}
				relay := &smtpclient.Relay{Addr: "mx.test:25", Pool: &smtpclient.Pool{
					Dialer:  smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"},
					MaxIdle: -1,
				}}
				start := time.Now()
				body := message + strings.Repeat("0123456789abcdef\r\n", 10_000)
				check(t, relay.Deliver(t.Context(), envelope(t, "a@b.test", "c@d.test"), strings.NewReader(body)), tt.want)
				if d := time.Since(start).Round(time.Second); d != tt.took {
					t.Errorf("took %v, want %v", d, tt.took)
				}
				relay.Pool.Close()
				peer.Wait() // a script whose client has gone does not come true
			})
		})
	}
}

// What the host says before it closes under our writing is what is reported.
func TestLastWords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		smtptest.Script(ready + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: *\nS: 552 5.3.4 too much").Serve(nc)
	}()
	c, err := (&smtpclient.Dialer{Hello: "me.test"}).Dial(t.Context(), smtpclient.Target{Addr: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res := c.Send(t.Context(), envelope(t, "a@b.test", "c@d.test"), strings.NewReader(strings.Repeat("0123456789abcdef\r\n", 2_000_000)))
	var e *smtp.Error
	// A reset may overtake the reply: then the connection is lost, for sure
	// before the dot.
	if !errors.As(res[0].Err, &e) || e.Unsure || e.Code != 552 && e.Code != 451 {
		t.Errorf("%v", res[0].Err)
	}
}

func TestContext(t *testing.T) {
	send := func(t *testing.T, ctx context.Context, script string) ([]smtp.Result, time.Duration) {
		peer := &smtptest.Peer{Scripts: []smtptest.Script{smtptest.Script(script)}}
		c, err := (&smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}).Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25"})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		res := c.Send(ctx, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message))
		d := time.Since(start)
		c.Close()
		peer.Wait()
		return res, d
	}
	t.Run("ends it before the dot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			res, d := send(t, ctx, ready+"C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nHANG")
			check(t, res, "451 4.4.2 host")
			if d != time.Second || !errors.Is(res[0].Err, context.DeadlineExceeded) {
				t.Errorf("%v after %v", res[0].Err, d)
			}
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			res, _ := send(t, ctx, ready+"C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nHANG")
			check(t, res, "451 4.4.2 recipient")
			if !errors.Is(res[0].Err, context.Canceled) {
				t.Errorf("%v", res[0].Err)
			}
		})
	})
	t.Run("done before the dot: it is not sent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			peer := &smtptest.Server{}
			defer peer.Close()
			d := &smtpclient.Dialer{DialContext: peer.DialContext}
			c, err := d.Dial(ctx, smtpclient.Target{Addr: "mx.test:25"})
			if err != nil {
				t.Fatal(err)
			}
			body := &cancelBody{Reader: strings.NewReader(message), cancel: cancel, at: 3}
			check(t, c.Send(ctx, envelope(t, "a@b.test", "c@d.test"), body), "451 4.4.2 recipient")
			c.Close()
			synctest.Wait()
			if n := len(peer.Messages()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	})
	t.Run("the dot's reply is awaited", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			res, d := send(t, ctx, accepted+"BODY\nWAIT 9m\nS: 250 ok")
			check(t, res, "250")
			if d != 9*time.Minute {
				t.Errorf("after %v", d)
			}
		})
	})
	t.Run("dialling", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			peer := &smtptest.Peer{Scripts: []smtptest.Script{"HANG"}}
			start := time.Now()
			_, err := (&smtpclient.Dialer{DialContext: peer.DialContext}).Dial(ctx, smtpclient.Target{Addr: "mx.test:25"})
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			peer.Wait()
		})
	})
}

// cancelBody cancels during the at-th ReadAt.
type cancelBody struct {
	*strings.Reader
	cancel func()
	at     int
}

func (b *cancelBody) ReadAt(p []byte, off int64) (int, error) {
	if b.at--; b.at <= 1 {
		b.cancel()
	}
	return b.Reader.ReadAt(p, off)
}

type brokenBody struct{ *strings.Reader }

func (b brokenBody) Size() int64 { return b.Reader.Size() + 10 }

// A body that cannot be read in full is not sent as if it were one.
func TestBrokenBody(t *testing.T) {
	srv := &smtptest.Server{Without: []string{"8BITMIME"}}
	defer srv.Close()
	for _, size := range []int{10, 100_000} {
		c, err := (&smtpclient.Dialer{DialContext: srv.DialContext}).Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25"})
		if err != nil {
			t.Fatal(err)
		}
		env := envelope(t, "a@b.test", "c@d.test")
		env.Body = smtp.Body7Bit
		check(t, c.Send(t.Context(), env, brokenBody{strings.NewReader(strings.Repeat("x", size))}), "451 4.3.0 message")
		c.Close()
	}
	if n := len(srv.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestTLS(t *testing.T) {
	start := func(t *testing.T, s *smtptest.Server) *smtptest.Server {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	env := envelope(t, "a@b.test", "c@d.test")
	for _, tt := range []struct {
		name     string
		srv      *smtptest.Server
		fault    bool
		target   smtpclient.Target
		trust    bool
		proven   smtpclient.Security
		auth     string
		conns    int
		fallback bool
		fails    bool
	}{
		{name: "opportunistic", srv: &smtptest.Server{STARTTLS: true}, proven: smtpclient.Encrypted, conns: 1},
		{name: "opportunistic, happens to verify", srv: &smtptest.Server{STARTTLS: true}, trust: true, proven: smtpclient.Verified, auth: "pkix", conns: 1},
		{name: "opportunistic, broken", srv: &smtptest.Server{STARTTLS: true}, fault: true, proven: smtpclient.Plain, conns: 2, fallback: true},
		{name: "plain", srv: &smtptest.Server{STARTTLS: true}, target: smtpclient.Target{Need: smtpclient.Plain}, proven: smtpclient.Plain, conns: 1},
		{name: "encrypted", srv: &smtptest.Server{STARTTLS: true}, target: smtpclient.Target{Need: smtpclient.Encrypted}, proven: smtpclient.Encrypted, conns: 1},
		{name: "encrypted, broken", srv: &smtptest.Server{STARTTLS: true}, fault: true, target: smtpclient.Target{Need: smtpclient.Encrypted}, conns: 1, fails: true},
		{name: "verified", srv: &smtptest.Server{STARTTLS: true}, trust: true, target: smtpclient.Target{Need: smtpclient.Verified}, proven: smtpclient.Verified, auth: "pkix", conns: 1},
		{name: "verified, unknown authority", srv: &smtptest.Server{STARTTLS: true}, target: smtpclient.Target{Need: smtpclient.Verified}, conns: 1, fails: true},
		{name: "verified, other name", srv: &smtptest.Server{STARTTLS: true}, trust: true, target: smtpclient.Target{Need: smtpclient.Verified, Name: "other.test"}, conns: 1, fails: true},
		{name: "verified, by address", srv: &smtptest.Server{STARTTLS: true}, trust: true, target: smtpclient.Target{Need: smtpclient.Verified, Name: "127.0.0.1"}, proven: smtpclient.Verified, auth: "pkix", conns: 1},
		{name: "implicit", srv: &smtptest.Server{ImplicitTLS: true}, trust: true, target: smtpclient.Target{Need: smtpclient.Verified, ImplicitTLS: true}, proven: smtpclient.Verified, auth: "pkix", conns: 1},
		{name: "implicit, broken", srv: &smtptest.Server{ImplicitTLS: true}, fault: true, target: smtpclient.Target{ImplicitTLS: true}, conns: 1, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := start(t, tt.srv)
			if tt.fault {
				srv.Inject(smtptest.Fault{At: smtptest.TLS})
			}
			d := &smtpclient.Dialer{}
			if tt.trust {
				d.TLS = srv.ClientTLS()
			}
			tt.target.Addr = srv.Addr
			if tt.target.Name == "" {
				tt.target.Name = "mx.test"
			}
			c, err := d.Dial(t.Context(), tt.target)
			if tt.fails != (err != nil) {
				t.Fatalf("error %v", err)
			}
			if n := srv.Connections(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
			if err != nil {
				var te *smtpclient.TLSError
				if !errors.As(err, &te) {
					t.Errorf("no TLSError: %v", err)
				}
				return
			}
			defer c.Close()
			check(t, c.Send(t.Context(), env, strings.NewReader(message)), "250")
			h := c.Hop()
			if c.Security() != tt.proven || h.Auth != tt.auth || (h.TLS != 0) != (tt.proven > smtpclient.Plain) || (c.TLSError() != nil) != tt.fallback {
				t.Errorf("proven %v, hop %+v, fallback %v", c.Security(), h, c.TLSError())
			}
			if m := srv.Messages()[0]; m.TLS != (tt.proven > smtpclient.Plain) {
				t.Errorf("server saw TLS %v", m.TLS)
			}
		})
	}
}

func TestAuth(t *testing.T) {
	env := envelope(t, "a@b.test", "c@d.test")
	auth := &smtpclient.Auth{User: "u", Password: "p"}
	t.Run("PLAIN under TLS", func(t *testing.T) {
		srv := &smtptest.Server{STARTTLS: true, RequireAuth: true, Users: map[string]string{"u": "p"}}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{TLS: srv.ClientTLS()}}
		defer pool.Close()
		relay := &smtpclient.Relay{Addr: srv.Addr, Auth: auth, Pool: pool}
		check(t, relay.Deliver(t.Context(), env, strings.NewReader(message)), "250")
		if m := srv.Messages()[0]; m.User != "u" || !m.TLS {
			t.Errorf("%q %v", m.User, m.TLS)
		}
		// The same without trust: no password is shown.
		relay = &smtpclient.Relay{Addr: srv.Addr, Auth: auth}
		res := relay.Deliver(t.Context(), env, strings.NewReader(message))
		check(t, res, "451 4.7.5 host")
		// A wrong password is the configuration's fault: mail waits.
		relay = &smtpclient.Relay{Addr: srv.Addr, Auth: &smtpclient.Auth{User: "u", Password: "x"}, Pool: pool}
		res = relay.Deliver(t.Context(), env, strings.NewReader(message))
		check(t, res, "454 4.7.0 route")
		if !errors.Is(res[0].Err, smtpclient.ErrAuth) {
			t.Errorf("%v", res[0].Err)
		}
	})
	t.Run("the best mechanism", func(t *testing.T) {
		srv := (&smtptest.Server{STARTTLS: true, RequireAuth: true, Users: map[string]string{"u": "p"}, Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2"}}).Run(t)
		for _, tt := range []struct {
			auth smtpclient.Auth
			tls  bool
			want string
		}{
			{smtpclient.Auth{User: "u", Password: "p"}, true, "AUTH SCRAM-SHA-256-PLUS ***"},
			{smtpclient.Auth{User: "u", Password: "p", Insecure: true}, false, "AUTH SCRAM-SHA-256 ***"},
			{smtpclient.Auth{User: "u", Token: func(context.Context) (string, error) { return "p", nil }}, true, "AUTH XOAUTH2 ***"},
		} {
			var got string
			d := smtpclient.Dialer{TLS: srv.ClientTLS(), Trace: &smtpclient.Trace{Command: func(line string) {
				if strings.HasPrefix(line, "AUTH") {
					got = line
				}
			}}}
			to := smtpclient.Target{Addr: srv.Addr, Auth: &tt.auth}
			if !tt.tls {
				to.Need = smtpclient.Plain
			}
			check(t, d.Send(t.Context(), to, env, strings.NewReader(message)), "250")
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		}
	})
	t.Run("a server that proves nothing", func(t *testing.T) {
		// It says yes to everything: with SCRAM that is not enough.
		synctest.Test(t, func(t *testing.T) {
			peer := &smtptest.Peer{Scripts: []smtptest.Script{"S: 220 hi\nC: EHLO me.test\nS: 250-hi\nS: 250 AUTH SCRAM-SHA-256\nC: AUTH SCRAM-SHA-256 *\nS: 235 ok"}}
			d := &smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}
			_, err := d.Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25", Need: smtpclient.Plain, Auth: auth})
			if !errors.Is(err, login.ErrServer) || !errors.Is(err, smtpclient.ErrAuth) {
				t.Error(err)
			}
		})
	})
	const base = "S: 220 hi\nC: EHLO me.test\nS: 250-hi\n"
	dial := func(t *testing.T, target smtpclient.Target, script string) (err error) {
		synctest.Test(t, func(t *testing.T) {
			peer := &smtptest.Peer{Scripts: []smtptest.Script{smtptest.Script(base + script)}}
			d := &smtpclient.Dialer{DialContext: peer.DialContext, Hello: "me.test"}
			target.Addr = "mx.test:25"
			var c *smtpclient.Conn
			if c, err = d.Dial(t.Context(), target); err == nil {
				c.Close()
			}
			if perr := peer.Wait(); perr != nil {
				t.Error(perr)
			}
		})
		return err
	}
	insecure := &smtpclient.Auth{User: "u", Password: "p", Insecure: true}
	oauth := &smtpclient.Auth{User: "u", Insecure: true, Token: func(context.Context) (string, error) { return "tok", nil }}
	for _, tt := range []struct {
		name   string
		target smtpclient.Target
		script string
		want   error
	}{
		{"plain text", smtpclient.Target{Auth: auth, Need: smtpclient.Plain}, "S: 250 AUTH PLAIN LOGIN", smtpclient.ErrInsecureAuth},
		{"no TLS offered", smtpclient.Target{Auth: auth}, "S: 250 AUTH PLAIN", smtpclient.ErrTLSRequired},
		{"PLAIN is better than LOGIN", smtpclient.Target{Auth: insecure}, "S: 250 AUTH LOGIN PLAIN\nC: AUTH PLAIN AHUAcA==\nS: 235 ok\nC: QUIT\nS: 221 bye", nil},
		{"AUTH= of old", smtpclient.Target{Auth: insecure}, "S: 250 AUTH=LOGIN PLAIN\nC: AUTH PLAIN AHUAcA==\nS: 235 ok\nC: QUIT\nS: 221 bye", nil},
		{"LOGIN", smtpclient.Target{Auth: insecure}, "S: 250 AUTH LOGIN\nC: AUTH LOGIN*\nS: 334 VXNlcm5hbWU6\nC: dQ==\nS: 334 UGFzc3dvcmQ6\nC: cA==\nS: 235 ok\nC: QUIT\nS: 221 bye", nil},
		{"OAUTHBEARER", smtpclient.Target{Auth: oauth}, "S: 250 AUTH PLAIN OAUTHBEARER\nC: AUTH OAUTHBEARER *\nS: 235 ok\nC: QUIT\nS: 221 bye", nil},
		{"OAUTHBEARER refused", smtpclient.Target{Auth: oauth}, "S: 250 AUTH OAUTHBEARER\nC: AUTH OAUTHBEARER *\nS: 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=\nC: *\nS: 535 no", smtpclient.ErrAuth},
		{"none", smtpclient.Target{Auth: insecure}, "S: 250 HELP", smtpclient.ErrNoMechanism},
		{"none that suits", smtpclient.Target{Auth: insecure}, "S: 250 AUTH GSSAPI", smtpclient.ErrNoMechanism},
		{"refused", smtpclient.Target{Auth: insecure}, "S: 250 AUTH PLAIN\nC: AUTH*\nS: 535 5.7.8 no", smtpclient.ErrAuth},
		{"not base64", smtpclient.Target{Auth: insecure}, "S: 250 AUTH PLAIN\nC: AUTH*\nS: 334 !!!\nC: *\nS: 501 cancelled", smtpclient.ErrAuth},
		{"unexpected challenge", smtpclient.Target{Auth: insecure}, "S: 250 AUTH PLAIN\nC: AUTH*\nS: 334 AAAA\nC: *\nS: 501 cancelled", smtpclient.ErrAuth},
		{"421", smtpclient.Target{Auth: insecure}, "S: 250 AUTH PLAIN\nC: AUTH*\nS: 421 bye", nil},
		{"endless", smtpclient.Target{Auth: &smtpclient.Auth{Insecure: true, Client: func([]string, *tls.ConnectionState) (sasl.Client, error) {
			return chatty{}, nil
		}}}, "S: 250 AUTH X\nC: AUTH X\n" + strings.Repeat("S: 334 AAAA\nC: AAAA\n", 16) + "S: 334 AAAA", smtpclient.ErrProtocol},
		{"long initial response waits", smtpclient.Target{Auth: &smtpclient.Auth{User: strings.Repeat("u", 500), Insecure: true}},
			"S: 250 AUTH PLAIN\nC: AUTH PLAIN\nS: 334\nC: AHV1*\nS: 235 ok\nC: QUIT\nS: 221 bye", nil},
		{"unknown mechanism counts as clear text", smtpclient.Target{Need: smtpclient.Plain, Auth: &smtpclient.Auth{Client: func([]string, *tls.ConnectionState) (sasl.Client, error) {
			return chatty{}, nil
		}}}, "S: 250 AUTH X", smtpclient.ErrInsecureAuth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := dial(t, tt.target, tt.script)
			if tt.name == "421" {
				check(t, []smtp.Result{{Err: err}}, "421 host")
				return
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(fmt.Sprint(err), "cA==") {
				t.Error("the password is in the error")
			}
		})
	}
}

type chatty struct{}

func (chatty) Start() (string, []byte, error) { return "X", nil, nil }
func (chatty) Next(c []byte) ([]byte, error)  { return c, nil }

func TestTraceHidesSecrets(t *testing.T) {
	srv := &smtptest.Server{Users: map[string]string{"u": "secret"}}
	defer srv.Close()
	var lines []string
	var sent int64
	d := &smtpclient.Dialer{DialContext: srv.DialContext, Trace: &smtpclient.Trace{
		Command: func(l string) { lines = append(lines, "C: "+l) },
		Reply:   func(r smtp.Reply) { lines = append(lines, "S: "+r.String()) },
		Sent:    func(n int64) { sent = n },
	}}
	for _, mech := range []string{"PLAIN", "LOGIN"} {
		srv.Without = nil
		c, err := d.Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25", Auth: &smtpclient.Auth{Insecure: true,
			Client: func([]string, *tls.ConnectionState) (sasl.Client, error) {
				if mech == "LOGIN" {
					return sasl.NewLoginClient("u", "secret"), nil
				}
				return sasl.NewPlainClient("", "u", "secret"), nil
			}}})
		if err != nil {
			t.Fatal(err)
		}
		check(t, c.Send(t.Context(), envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "250")
		c.Close()
	}
	all := strings.Join(lines, "\n")
	for _, secret := range []string{"secret", "c2VjcmV0", "AHUAc2VjcmV0"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q in the trace", secret)
		}
	}
	for _, want := range []string{"C: EHLO ", "C: AUTH PLAIN ***", "C: MAIL FROM:<a@b.test>", "C: RCPT TO:<c@d.test>", "C: DATA", "S: 354 ", "C: QUIT"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in the trace:\n%s", want, all)
		}
	}
	if sent != int64(len(message)) {
		t.Errorf("sent %d", sent)
	}
}
