package login_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/pop3"
	"github.com/postrider/postrider/pop3/pop3client"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
	"github.com/postrider/postrider/store/memstore"
)

// servers are one of each protocol over one Authenticator.
type servers struct {
	addr map[string]string
	mu   sync.Mutex
	ids  []login.Identity // of SMTP, IMAP and POP3 logins, as they come
}

func (s *servers) saw(id login.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, id)
}

func (s *servers) last() (id login.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) > 0 {
		id = s.ids[len(s.ids)-1]
	}
	s.ids = nil
	return id
}

type nobody struct {
	s *servers
	c *smtpserver.Conn
}

func (n nobody) Mail(context.Context, smtp.Address, smtp.MailOptions) error {
	if id, ok := n.c.Identity(); ok {
		n.s.saw(id)
	}
	return errors.New("no mail here")
}
func (nobody) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error { return nil }
func (nobody) Data(context.Context, io.Reader) (r smtp.Reply, err error)  { return }
func (nobody) Reset()                                                     {}
func (nobody) Close() error                                               { return nil }

func startServers(t *testing.T, auth login.Authenticator, cfg *tls.Config) *servers {
	s := &servers{addr: map[string]string{}}
	log := slog.New(slog.DiscardHandler)
	st := memstore.New()
	for _, user := range []string{"alice", "guest"} {
		if err := st.CreateAccount(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	serve := func(name string, f func(net.Listener) error, stop func() error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.addr[name] = l.Addr().String()
		var wg sync.WaitGroup
		wg.Go(func() { f(l) })
		t.Cleanup(func() { stop(); wg.Wait() })
	}
	ss := &smtpserver.Server{Hostname: "mx.test", Auth: auth, TLS: cfg, Log: log, AuthDelay: -1, Backend: smtpserver.BackendFunc(
		func(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) { return nobody{s, c}, nil })}
	serve("smtp", ss.Serve, ss.Close)
	is := &imapserver.Server{Store: st, Auth: sawIMAP{auth, s}, TLS: cfg, Log: log}
	serve("imap", is.Serve, is.Close)
	ps := &pop3server.Server{Store: st, Auth: sawIMAP{auth, s}, TLS: cfg, Log: log}
	serve("pop3", ps.Serve, ps.Close)
	return s
}

// sawIMAP notes the identities of servers whose sessions do not show them.
type sawIMAP struct {
	login.Authenticator
	s *servers
}

func (a sawIMAP) Start(ctx context.Context, mech string, c *login.Conn) (login.Exchange, error) {
	x, err := a.Authenticator.Start(ctx, mech, c)
	if err != nil {
		return nil, err
	}
	return sawExchange{x, a.s}, nil
}

type sawExchange struct {
	login.Exchange
	s *servers
}

func (x sawExchange) Next(b []byte) ([]byte, bool, error) {
	ch, done, err := x.Exchange.Next(b)
	if done {
		x.s.saw(x.Identity())
	}
	return ch, done, err
}

// dial logs in with what choose returns, over TLS.
func (s *servers) dial(ctx context.Context, proto string, cfg *tls.Config, choose func(offered []string, st *tls.ConnectionState) (sasl.Client, error)) error {
	addr := s.addr[proto]
	switch proto {
	case "smtp":
		d := &smtpclient.Dialer{Hello: "me.test", TLS: cfg}
		c, err := d.Dial(ctx, smtpclient.Target{Addr: addr, Name: cfg.ServerName, Need: smtpclient.Verified, Auth: &smtpclient.Auth{Client: choose}})
		if err != nil {
			return err
		}
		defer c.Close()
		env := &smtp.Envelope{From: smtp.Address{Local: "a", Domain: "b.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "a", Domain: "b.test"}}}}
		c.Send(ctx, env, strings.NewReader("x\r\n"))
		return nil
	case "imap":
		c, err := (&imapclient.Dialer{TLS: cfg}).Dial(ctx, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		caps, err := c.Capabilities(ctx)
		if err != nil {
			return err
		}
		m, err := choose(caps.Mechanisms(), c.TLS())
		if err != nil {
			return err
		}
		return c.Authenticate(ctx, m)
	case "pop3":
		c, err := (&pop3client.Dialer{TLS: cfg}).Dial(ctx, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		caps, err := c.Capabilities(ctx)
		if err != nil {
			return err
		}
		offered, _ := caps.Args(pop3.CapSASL)
		m, err := choose(offered, c.TLS())
		if err != nil {
			return err
		}
		return c.Auth(ctx, m)
	}
	return errors.New("no such protocol")
}

var protocols = []string{"smtp", "imap", "pop3"}

// everything is an Authenticator with every mechanism, for alice, "secret".
func everything(t *testing.T) login.All {
	var keys []string
	for _, mech := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		k, err := login.SCRAM(mech, "secret")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return login.All{
		&login.Certificates{Identify: func(_ context.Context, c *login.Conn, user string) (login.Identity, error) {
			if name := c.TLS.PeerCertificates[0].DNSNames[0]; name != "alice.test" || user != "" && user != "alice" {
				return login.Identity{}, login.ErrCredentials
			}
			return login.Identity{User: "alice"}, nil
		}},
		&login.Passwords{
			Offer: []string{"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5"},
			Lookup: func(ctx context.Context, user string) (login.Record, error) {
				switch user {
				case "alice":
					return login.Record{SCRAM: keys, Password: "secret"}, nil
				case "slow":
					<-ctx.Done()
					return login.Record{}, ctx.Err()
				}
				return login.Record{}, login.ErrNoUser
			},
			AddrFailures: -1, UserFailures: -1,
		},
		&login.Tokens{Verify: func(_ context.Context, _ *login.Conn, user, token string) (login.Identity, error) {
			if user != "alice" || token != "t0ken" {
				return login.Identity{}, login.ErrCredentials
			}
			return login.Identity{User: user}, nil
		}, AddrFailures: -1, UserFailures: -1},
		&login.Anonymous{Admit: func(context.Context, *login.Conn, string) (login.Identity, error) {
			return login.Identity{User: "guest"}, nil
		}},
	}
}

func serverTLS(t *testing.T) (server, client *tls.Config) {
	cert, pool, err := smtptest.Certificate("mx.test", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	mine, mypool, err := smtptest.Certificate("alice.test")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: mypool, ClientAuth: tls.VerifyClientCertIfGiven},
		&tls.Config{RootCAs: pool, ServerName: "mx.test", Certificates: []tls.Certificate{mine}}
}

// One value serves three protocols with every mechanism, right and wrong.
func TestEveryMechanismEverywhere(t *testing.T) {
	sc, cc := serverTLS(t)
	s := startServers(t, everything(t), sc)
	type attempt struct {
		mech string
		cred login.Credentials
		user string
		ok   bool
	}
	token := func(s string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return s, nil }
	}
	var tries []attempt
	for _, m := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"} {
		tries = append(tries,
			attempt{m, login.Credentials{User: "alice", Password: "secret"}, "alice", true},
			attempt{m, login.Credentials{User: "alice", Password: "Secret"}, "", false},
			attempt{m, login.Credentials{User: "mallory", Password: "secret"}, "", false})
	}
	for _, m := range []string{"OAUTHBEARER", "XOAUTH2"} {
		tries = append(tries,
			attempt{m, login.Credentials{User: "alice", Token: token("t0ken")}, "alice", true},
			attempt{m, login.Credentials{User: "alice", Token: token("t1ken")}, "", false})
	}
	tries = append(tries,
		attempt{"EXTERNAL", login.Credentials{Certificate: true}, "alice", true},
		attempt{"EXTERNAL", login.Credentials{Certificate: true, ActAs: "bob"}, "", false},
		attempt{"ANONYMOUS", login.Credentials{}, "guest", true})
	for _, proto := range protocols {
		for _, try := range tries {
			t.Run(fmt.Sprintf("%s/%s/%s %v", proto, try.mech, try.cred.User, try.ok), func(t *testing.T) {
				s.last()
				err := s.dial(t.Context(), proto, cc, func(offered []string, st *tls.ConnectionState) (sasl.Client, error) {
					// -PLUS offered and not taken is no attack when the client
					// says that it cannot bind.
					if !slices.Contains(offered, try.mech) {
						return nil, fmt.Errorf("%s is not in %v", try.mech, offered)
					}
					if try.mech == "ANONYMOUS" {
						return sasl.NewAnonymousClient("me"), nil
					}
					if strings.HasPrefix(try.mech, "SCRAM") && !strings.HasSuffix(try.mech, "-PLUS") {
						return try.cred.Client(t.Context(), []string{try.mech}, nil)
					}
					return try.cred.Client(t.Context(), []string{try.mech}, st)
				})
				id := s.last()
				if (err == nil) != try.ok || id.User != try.user || try.ok && id.Mechanism != try.mech {
					t.Errorf("%+v, %v", id, err)
				}
			})
		}
	}
}

// The best is chosen, bound to TLS: by the exporter with TLS 1.3, by the
// certificate with TLS 1.2, and on a resumed connection too.
func TestChannelBinding(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			sc, cc := serverTLS(t)
			loaded := sc.Certificates[0]
			loaded.Leaf = nil
			sc.Certificates = nil // loaded anew for each connection
			sc.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &loaded, nil }
			sc.MaxVersion = version
			s := startServers(t, everything(t), sc)
			cc.Certificates = nil
			for _, proto := range protocols {
				cc := cc.Clone()
				cc.ClientSessionCache = tls.NewLRUClientSessionCache(4)
				resumed := false
				for range 3 {
					s.last()
					cred := &login.Credentials{User: "alice", Password: "secret"}
					err := s.dial(t.Context(), proto, cc, func(offered []string, st *tls.ConnectionState) (sasl.Client, error) {
						resumed = resumed || st.DidResume
						return cred.Client(t.Context(), offered, st)
					})
					if id := s.last(); err != nil || id.User != "alice" || id.Mechanism != "SCRAM-SHA-256-PLUS" {
						t.Errorf("%s: %+v, %v", proto, id, err)
					}
				}
				if !resumed && version == tls.VersionTLS12 {
					t.Errorf("%s: no connection was resumed", proto)
				}
			}
		})
	}
}

// Whoever stands in the middle with a certificate that the client trusts, and
// takes -PLUS out of the list, or leaves it in, does not get in.
func TestManInTheMiddle(t *testing.T) {
	sc, cc := serverTLS(t)
	s := startServers(t, everything(t), sc)
	for _, proto := range protocols {
		cred := &login.Credentials{User: "alice", Password: "secret"}
		// Struck from the list: "y".
		err := s.dial(t.Context(), proto, cc, func(offered []string, st *tls.ConnectionState) (sasl.Client, error) {
			offered = slices.DeleteFunc(slices.Clone(offered), func(m string) bool { return strings.HasSuffix(m, "-PLUS") })
			return cred.Client(t.Context(), offered, st)
		})
		if err == nil || s.last().User != "" {
			t.Errorf("%s: downgrade was not seen", proto)
		}
		// Another connection's binding.
		var foreign *tls.ConnectionState
		s.dial(t.Context(), proto, cc, func(_ []string, st *tls.ConnectionState) (sasl.Client, error) {
			foreign = st
			return nil, errors.New("enough")
		})
		err = s.dial(t.Context(), proto, cc, func(offered []string, _ *tls.ConnectionState) (sasl.Client, error) {
			return cred.Client(t.Context(), offered, foreign)
		})
		if err == nil || s.last().User != "" {
			t.Errorf("%s: bound to another connection", proto)
		}
	}
}

// What the user database waits for ends with the client's patience or the
// server, and is no wrong password.
func TestLookupCancelled(t *testing.T) {
	auth := everything(t)
	for _, mech := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		x, err := auth.Start(ctx, mech, &login.Conn{})
		if err != nil {
			t.Fatal(err)
		}
		cl, err := (&login.Credentials{User: "slow", Password: "x"}).Client(ctx, []string{mech}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, resp, _ := cl.Start()
		for range 4 {
			var ch []byte
			if ch, _, err = x.Next(resp); err != nil {
				break
			}
			if resp, err = cl.Next(ch); err != nil {
				break
			}
		}
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, login.ErrCredentials) {
			t.Errorf("%s: %v", mech, err)
		}
	}

	// On the wire: the server is closed while the database is asked.
	srv := &smtpserver.Server{Hostname: "mx.test", Auth: auth, InsecureAuth: true, Log: slog.New(slog.DiscardHandler), Backend: smtpserver.BackendFunc(
		func(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
			return nobody{&servers{}, c}, nil
		})}
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { srv.ServeConn(ours) })
	done := make(chan error, 1)
	go func() {
		_, err := (&smtpclient.Dialer{Hello: "me.test"}).Client(t.Context(), theirs, smtpclient.Target{Addr: "mx.test:25", Auth: &smtpclient.Auth{
			Insecure: true,
			Client: func([]string, *tls.ConnectionState) (sasl.Client, error) {
				wg.Go(func() { srv.Close() })
				return sasl.NewPlainClient("", "slow", "x"), nil
			}}})
		done <- err
	}()
	if err := <-done; err == nil {
		t.Error("logged in")
	}
	wg.Wait()
}

// TestAttemptsWithoutPassword: who guesses with EXTERNAL or ANONYMOUS is
// turned away after as many tries as with a password.
func TestAttemptsWithoutPassword(t *testing.T) {
	sc, cc := serverTLS(t)
	guests := &login.Anonymous{Admit: func(_ context.Context, _ *login.Conn, trace string) (login.Identity, error) {
		if trace != "friend" {
			return login.Identity{}, login.ErrCredentials
		}
		return login.Identity{User: "guest"}, nil
	}}
	s := startServers(t, append(everything(t)[:1], guests), sc)
	b64 := base64.StdEncoding.EncodeToString
	for _, mech := range []struct{ name, wrong, right string }{
		{"EXTERNAL", b64([]byte("mallory")), b64([]byte("alice"))},
		{"ANONYMOUS", b64([]byte("foe")), b64([]byte("friend"))},
	} {
		talk := func(lines ...string) (codes string) {
			nc, err := net.Dial("tcp", s.addr["smtp"])
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			var c io.ReadWriter = nc
			r := bufio.NewReader(nc)
			reply := func() string {
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return "cut"
					}
					if line[3] == ' ' {
						return line[:3]
					}
				}
			}
			say := func(line string) string {
				io.WriteString(c, line+"\r\n")
				return reply()
			}
			reply()
			say("EHLO x")
			say("STARTTLS")
			tc := tls.Client(nc, cc)
			c, r = tc, bufio.NewReader(tc)
			say("EHLO x")
			for _, l := range lines {
				codes += " " + say(l)
			}
			return codes + " " + reply()
		}
		wrong := "AUTH " + mech.name + " " + mech.wrong
		if got := talk(wrong, wrong, wrong); got != " 535 535 535 421" {
			t.Errorf("%s: %s", mech.name, got)
		}
		if got := talk(wrong, wrong, "AUTH "+mech.name+" "+mech.right, wrong, "QUIT"); got != " 535 535 235 503 221 cut" {
			t.Errorf("%s: %s", mech.name, got)
		}
		if got := talk("AUTH "+mech.name+" %%%", "AUTH "+mech.name, "*", "QUIT"); got != " 501 334 501 221 cut" {
			t.Errorf("%s, malformed: %s", mech.name, got)
		}
	}
}
