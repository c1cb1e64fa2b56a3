package login

import (
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
)

// cheapSCRAM derives with few iterations.
func cheapSCRAM(mech, password string) string {
	return deriveSCRAM(mech, password, []byte("saltsaltsaltsalt"), minIterations).String()
}

// The conversations printed in RFC 5802 §5 and RFC 7677 §3, seen from the
// client, and their credentials seen from the server.
func TestSCRAMVectors(t *testing.T) {
	for _, v := range []struct{ mech, nonce, first, final, server string }{
		{"SCRAM-SHA-1", "fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="},
		{"SCRAM-SHA-256", "rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		x := &scramClient{ctx: t.Context(), c: &Credentials{User: "user", Password: "pencil"}, mech: v.mech, flag: "n"}
		if mech, ir, _ := x.Start(); mech != v.mech || !strings.HasPrefix(string(ir), "n,,n=user,r=") {
			t.Errorf("first %q %q", mech, ir)
		}
		x.nonce, x.bare = v.nonce, "n=user,r="+v.nonce
		if got, err := x.Next([]byte(v.first)); err != nil || string(got) != v.final {
			t.Errorf("%s: final %q %v", v.mech, got, err)
		}
		if x.Proven() {
			t.Error("proven too early")
		}
		if got, err := x.Next([]byte(v.server)); err != nil || len(got) != 0 || got == nil || !Proven(x) {
			t.Errorf("%s: end %q %v", v.mech, got, err)
		}

		// The server, with its half of the nonce put in.
		salt, _ := base64.StdEncoding.DecodeString(strings.Split(strings.Split(v.first, "s=")[1], ",")[0])
		p := &Passwords{Offer: []string{v.mech}, Lookup: func(context.Context, string) (Record, error) {
			return Record{SCRAM: []string{deriveSCRAM(v.mech, "pencil", salt, 4096).String()}}, nil
		}}
		ex, err := p.Start(t.Context(), v.mech, &Conn{})
		if err != nil {
			t.Fatal(err)
		}
		s := ex.(*scram)
		if _, _, err := s.Next([]byte("n,,n=user,r=" + v.nonce)); err != nil {
			t.Fatal(err)
		}
		s.nonce = strings.TrimPrefix(strings.Split(v.first, ",")[0], "r=")
		s.auth = "n=user,r=" + v.nonce + "," + v.first + ","
		if got, done, err := s.Next([]byte(v.final)); string(got) != v.server || done || err != nil {
			t.Errorf("%s: server %q %v %v", v.mech, got, done, err)
		}
		if s.Identity().User != "" {
			t.Error("identity before the end")
		}
		if _, done, err := s.Next([]byte{}); !done || err != nil || s.Identity().User != "user" {
			t.Errorf("%s: end %v %v %+v", v.mech, done, err, s.Identity())
		}
	}
}

// run drives a client against an Authenticator.
func run(t testing.TB, a Authenticator, c *Conn, cl sasl.Client) (Identity, error) {
	t.Helper()
	mech, resp, err := cl.Start()
	if err != nil {
		return Identity{}, err
	}
	x, err := a.Start(t.Context(), mech, c)
	if err != nil {
		return Identity{}, err
	}
	for range 5 {
		ch, done, err := x.Next(resp)
		if err != nil {
			return Identity{}, err
		}
		if done {
			if !Proven(cl) {
				t.Error("the server did not prove itself")
			}
			return x.Identity(), nil
		}
		if resp, err = cl.Next(ch); err != nil {
			return Identity{}, err
		}
	}
	t.Fatal("endless exchange")
	return Identity{}, nil
}

func scramUsers() *Passwords {
	rec := Record{SCRAM: []string{cheapSCRAM("SCRAM-SHA-256", "secret"), cheapSCRAM("SCRAM-SHA-1", "secret")}, Password: "secret", Value: 7}
	return &Passwords{
		Offer: []string{"scram-sha-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5", "NTLM"},
		Lookup: func(_ context.Context, user string) (Record, error) {
			switch user {
			case "alice", "a,b=c":
				return rec, nil
			case "hashonly":
				return Record{Hash: "$2a$"}, nil
			case "broken":
				return Record{SCRAM: []string{"SCRAM-SHA-256$x"}}, nil
			case "down":
				return Record{}, context.DeadlineExceeded
			}
			return Record{}, ErrNoUser
		},
		ActAs: func(_ context.Context, id Identity, user string) (Identity, error) {
			if user != "shared" {
				return Identity{}, ErrCredentials
			}
			id.User = user
			return id, nil
		},
		UserFailures: -1, AddrFailures: -1,
		Iterations: minIterations,
	}
}

func TestSCRAM(t *testing.T) {
	p := scramUsers()
	for _, c := range []struct {
		user, pass, as string
		want           error
		got            string
	}{
		{"alice", "secret", "", nil, "alice"},
		{"ALICE", "secret", "", nil, "alice"},
		{"a,b=c", "secret", "", nil, "a,b=c"},
		{"alice", "secret", "alice", nil, "alice"},
		{"alice", "secret", "shared", nil, "shared"},
		{"alice", "secret", "b,=ob", ErrCredentials, ""},
		{"alice", "Secret", "", ErrCredentials, ""},
		{"mallory", "secret", "", ErrCredentials, ""},
		{"hashonly", "secret", "", ErrCredentials, ""},
		{"a b", "secret", "", ErrCredentials, ""},
		{"", "secret", "", ErrMalformed, ""},
		{"broken", "secret", "", ErrHash, ""},
		{"down", "secret", "", context.DeadlineExceeded, ""},
		{"alice", "", "", ErrPassword, ""},
	} {
		for _, mech := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256"} {
			if c.user == "broken" && mech == "SCRAM-SHA-1" {
				continue
			}
			cl, err := (&Credentials{User: c.user, Password: c.pass, ActAs: c.as}).Client(t.Context(), []string{"PLAIN", mech, "X"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			id, err := run(t, p, &Conn{}, cl)
			if !errors.Is(err, c.want) || id.User != c.got || err == nil && (id.Mechanism != mech || id.Value != 7) {
				t.Errorf("%s %q %q as %q: %+v, %v", mech, c.user, c.pass, c.as, id, err)
			}
		}
	}
}

// A user that does not exist looks the same each time, and like one that does.
func TestSCRAMUnknownUser(t *testing.T) {
	first := func(p *Passwords, user string) (salt, rest string) {
		x, err := p.Start(t.Context(), "SCRAM-SHA-256", &Conn{})
		if err != nil {
			t.Fatal(err)
		}
		ch, _, err := x.Next([]byte("n,,n=" + user + ",r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Split(string(ch), ",")
		return f[1], f[2]
	}
	p, q := scramUsers(), scramUsers()
	p.Secret, q.Secret = []byte("same"), []byte("same")
	s1, i1 := first(p, "mallory")
	s2, _ := first(p, "mallory")
	s3, _ := first(q, "mallory")
	s4, _ := first(p, "trudy")
	real, i5 := first(p, "alice")
	s6, _ := first(scramUsers(), "mallory")
	if s1 != s2 || s1 != s3 || s1 == s4 || s1 == s6 || len(s1) != len(real) || i1 != i5 {
		t.Errorf("salts %s %s %s %s %s %s, iterations %s %s", s1, s2, s3, s4, real, s6, i1, i5)
	}
}

func TestSCRAMMalformed(t *testing.T) {
	for _, c := range []struct {
		first, last string
		want        error
	}{
		{"", "", ErrMalformed},
		{"n", "", ErrMalformed},
		{"n,,", "", ErrMalformed},
		{"n,,n=alice", "", ErrMalformed},
		{"n,,n=alice,r=", "", ErrMalformed},
		{"n,,n=alice,r=a\x7f", "", ErrMalformed},
		{"n,,n=a=2Xb,r=abc", "", ErrMalformed},
		{"n,,n=a=,r=abc", "", ErrMalformed},
		{"n,x=alice,n=alice,r=abc", "", ErrMalformed},
		{"n,,m=ext,n=alice,r=abc", "", ErrMalformed},
		{"x,,n=alice,r=abc", "", ErrMalformed},
		{"p=tls-exporter,,n=alice,r=abc", "", ErrMalformed}, // not with the plain mechanism
		{"n,,n=\xff,r=abc", "", ErrMalformed},
		{"n,,n=alice,r=" + strings.Repeat("a", 9000), "", ErrMalformed},
		{"n,,n=alice,r=abc", "c=biws", ErrCredentials},
		{"n,,n=alice,r=abc", "c=biws,r=abc,p=" + strings.Repeat("A", 43) + "=", ErrCredentials}, // the nonce was cut
		{"n,,n=alice,r=abc", "c=biws,r=NONCE,p=AAAA", ErrCredentials},
		{"n,,n=alice,r=abc", "c=biws,r=NONCE,p=%", ErrCredentials},
		{"n,,n=alice,r=abc", "c=%,r=NONCE,p=" + strings.Repeat("A", 43) + "=", ErrCredentials},
		{"n,,n=alice,r=abc", "c=eSws,r=NONCE,p=" + strings.Repeat("A", 43) + "=", ErrCredentials}, // "y,,"
		{"n,,n=alice,r=abc", "c=biws,r=NONCE,p=" + strings.Repeat("A", 43) + "=", ErrCredentials},
	} {
		x, err := scramUsers().Start(t.Context(), "SCRAM-SHA-256", &Conn{})
		if err != nil {
			t.Fatal(err)
		}
		if ch, done, err := x.Next(nil); ch == nil || len(ch) > 0 || done || err != nil {
			t.Fatal("no empty challenge")
		}
		ch, done, err := x.Next([]byte(c.first))
		if c.last != "" && err == nil {
			nonce := strings.TrimPrefix(strings.Split(string(ch), ",")[0], "r=")
			_, done, err = x.Next([]byte(strings.ReplaceAll(c.last, "NONCE", nonce)))
		}
		if !errors.Is(err, c.want) || done || x.Identity().User != "" {
			t.Errorf("%q %q: %v %v", c.first, c.last, done, err)
		}
		if _, _, err := x.Next([]byte{}); !errors.Is(err, sasl.ErrUnexpectedClientResponse) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// A server that is not the user's, or wants us to work for it.
func TestSCRAMClientHostile(t *testing.T) {
	for _, s := range []string{
		"", "r=", "r=NONCE", "r=NONCEx,s=c2FsdA==", "r=NONCE,s=c2FsdA==,i=4096", "r=other,s=c2FsdA==,i=4096", "r=NONCEx,s=%,i=4096", "r=NONCEx,s=,i=4096",
		"r=NONCEx,s=c2FsdA==,i=1", "r=NONCEx,s=c2FsdA==,i=2000000000", "r=NONCEx,s=c2FsdA==,i=-4096", "m=ext,r=NONCEx,s=c2FsdA==,i=4096", "e=other-error",
		"r=NONCE" + strings.Repeat("x", 9000) + ",s=c2FsdA==,i=4096",
	} {
		cl, _ := (&Credentials{User: "alice", Password: "secret"}).Client(t.Context(), []string{"SCRAM-SHA-1"}, nil)
		_, ir, _ := cl.Start()
		_, nonce, _ := strings.Cut(string(ir), ",r=")
		if _, err := cl.Next([]byte(strings.Replace(s, "NONCE", nonce, 1))); !errors.Is(err, ErrServer) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"v=AAAA", "", "e=invalid-proof", "v=%"} {
		cl, _ := (&Credentials{User: "alice", Password: "secret"}).Client(t.Context(), []string{"SCRAM-SHA-1"}, nil)
		_, ir, _ := cl.Start()
		_, nonce, _ := strings.Cut(string(ir), ",r=")
		if _, err := cl.Next([]byte("r=" + nonce + "x,s=c2FsdA==,i=4096")); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Next([]byte(s)); !errors.Is(err, ErrServer) || Proven(cl) {
			t.Errorf("%q: %v", s, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cl, _ := (&Credentials{User: "alice", Password: "secret"}).Client(ctx, []string{"SCRAM-SHA-1"}, nil)
	_, ir, _ := cl.Start()
	_, nonce, _ := strings.Cut(string(ir), ",r=")
	if _, err := cl.Next([]byte("r=" + nonce + "x,s=c2FsdA==,i=4096")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSCRAMStorage(t *testing.T) {
	for _, mech := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256"} {
		s, err := SCRAM(mech, "pässwört")
		if err != nil || !strings.HasPrefix(s, mech+"$65536:") {
			t.Fatal(s, err)
		}
		k, err := parseSCRAM(s)
		if err != nil || k.String() != s {
			t.Errorf("%v, %s", err, k)
		}
		if ok, err := Verify(s, "pässwört"); !ok || err != nil {
			t.Error(ok, err)
		}
		if ok, err := Verify(s, "passwort"); ok || err != nil {
			t.Error(ok, err)
		}
	}
	if _, err := SCRAM("SCRAM-SHA-256", "a\x00b"); !errors.Is(err, ErrPassword) {
		t.Error(err)
	}
	if _, err := SCRAM("SCRAM-MD5", "ab"); !errors.Is(err, ErrMechanism) {
		t.Error(err)
	}
	good := cheapSCRAM("SCRAM-SHA-256", "secret")
	for _, s := range []string{"SCRAM-SHA-512$4096:c2FsdA==$x:y", "SCRAM-SHA-256", "SCRAM-SHA-256$4096$x", strings.Replace(good, "4096", "0", 1),
		strings.Replace(good, "4096", "99999999", 1), good + "AAAA", good[:len(good)-5], strings.Replace(good, "$4096:", "$4096:%", 1), good + strings.Repeat("x", 2000)} {
		if _, err := parseSCRAM(s); !errors.Is(err, ErrHash) {
			t.Errorf("%q: %v", s, err)
		}
	}
	// PLAIN with nothing but keys, and with nothing but the password.
	p := scramUsers()
	if id, err := run(t, p, &Conn{}, sasl.NewPlainClient("", "alice", "secret")); err != nil || id.User != "alice" {
		t.Error(id, err)
	}
	if _, err := run(t, p, &Conn{}, sasl.NewPlainClient("", "alice", "wrong")); !errors.Is(err, ErrCredentials) {
		t.Error(err)
	}
	p.Lookup = func(context.Context, string) (Record, error) { return Record{Password: "secret"}, nil }
	if _, err := run(t, p, &Conn{}, sasl.NewPlainClient("", "alice", "secret")); err != nil {
		t.Error(err)
	}
	if _, err := run(t, p, &Conn{}, sasl.NewPlainClient("", "alice", "secreT")); !errors.Is(err, ErrCredentials) {
		t.Error(err)
	}
}

func TestSCRAMLimits(t *testing.T) {
	p := scramUsers()
	p.UserFailures, p.AddrFailures = 2, 3
	try := func(addr, user, pass string) error {
		cl, _ := (&Credentials{User: user, Password: pass}).Client(t.Context(), []string{"SCRAM-SHA-256"}, nil)
		_, err := run(t, p, from(addr), cl)
		return err
	}
	for i, c := range []struct {
		addr, user, pass string
		want             error
	}{
		{"192.0.2.1:1", "alice", "secret", nil},
		{"192.0.2.2:1", "alice", "x", ErrCredentials},
		{"192.0.2.2:1", "alice", "y", ErrCredentials},
		{"192.0.2.2:1", "alice", "secret", ErrTooMany},
		{"192.0.2.1:1", "alice", "secret", nil}, // from where she has been before
		{"192.0.2.2:1", "mallory", "x", ErrCredentials},
		{"192.0.2.2:1", "trudy", "x", ErrTooMany}, // by address
		{"192.0.2.3:1", "mallory", "x", ErrCredentials},
		{"192.0.2.4:1", "mallory", "x", ErrTooMany}, // an unknown user too
	} {
		if err := try(c.addr, c.user, c.pass); !errors.Is(err, c.want) {
			t.Errorf("%d: %v, want %v", i, err, c.want)
		}
	}
}

// The example of RFC 2195 §2, and the refusals.
func TestCRAMMD5(t *testing.T) {
	cl := &cramClient{c: &Credentials{User: "tim", Password: "tanstaaftanstaaf"}}
	if got, err := cl.Next([]byte("<1896.697170952@postoffice.reston.mci.net>")); err != nil || string(got) != "tim b913a602c7eda7a495b4e6e7334d3890" {
		t.Errorf("%q %v", got, err)
	}
	p := scramUsers()
	for _, c := range []struct {
		user, pass string
		want       error
	}{{"alice", "secret", nil}, {"alice", "x", ErrCredentials}, {"mallory", "secret", ErrCredentials}, {"hashonly", "-", ErrCredentials}, {"down", "x", context.DeadlineExceeded}} {
		cl, err := (&Credentials{User: c.user, Password: c.pass}).Client(t.Context(), []string{"CRAM-MD5", "PLAIN"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := run(t, p, &Conn{}, cl); !errors.Is(err, c.want) || err == nil && (id.Mechanism != "CRAM-MD5" || id.User != "alice") {
			t.Errorf("%+v: %+v %v", c, id, err)
		}
	}
	// RFC 2195 §2: random digits, the time and a host, as a msg-id; no two alike.
	form, seen := regexp.MustCompile(`^<[0-9]{8,40}\.[0-9]{10}@[a-z.]+>$`), map[string]bool{}
	for range 20 {
		x, _ := p.Start(t.Context(), "CRAM-MD5", &Conn{})
		b, _, err := x.Next(nil)
		if !form.Match(b) || seen[string(b)] || err != nil {
			t.Errorf("challenge %q %v", b, err)
		}
		seen[string(b)] = true
	}
	for _, s := range []string{"", "alice", " " + strings.Repeat("0", 32), "alice zz", "alice " + strings.Repeat("0", 30), "\xff " + hex.EncodeToString(make([]byte, md5.Size))} {
		x, _ := p.Start(t.Context(), "CRAM-MD5", &Conn{})
		x.Next(nil)
		if _, _, err := x.Next([]byte(s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := users(t, nil).Start(t.Context(), "CRAM-MD5", &Conn{}); !errors.Is(err, ErrMechanism) {
		t.Error("offered by default")
	}
}

func TestTokens(t *testing.T) {
	down := errors.New("issuer is down")
	a := &Tokens{Verify: func(_ context.Context, c *Conn, user, token string) (Identity, error) {
		switch {
		case token == "down":
			return Identity{}, down
		case token == "good.token~+/=" && (user == "" || user == "alice"):
			return Identity{User: "alice"}, nil
		}
		return Identity{}, ErrCredentials
	}, UserFailures: -1, AddrFailures: -1}
	for _, offered := range [][]string{{"PLAIN", "XOAUTH2"}, {"XOAUTH2", "OAUTHBEARER"}} {
		want := offered[1]
		for _, c := range []struct {
			user, token string
			want        error
		}{{"Alice", "good.token~+/=", nil}, {"", "good.token~+/=", nil}, {"bob", "good.token~+/=", ErrCredentials}, {"alice", "bad", ErrCredentials}, {"alice", "down", down},
			{"a b", "good.token~+/=", ErrCredentials}, {"alice", "", ErrMalformed}, {"alice", "a\x01b", ErrMalformed}, {"alice", "a b", ErrMalformed}} {
			cred := &Credentials{User: c.user, Token: func(context.Context) (string, error) { return c.token, nil }}
			cl, err := cred.Client(t.Context(), offered, &tls.ConnectionState{ServerName: "mx.test"})
			if err != nil {
				t.Fatal(err)
			}
			id, err := run(t, a, &Conn{}, cl)
			if !errors.Is(err, c.want) || err == nil && (id.User != "alice" || id.Login != "alice" || id.Mechanism != want) {
				t.Errorf("%s %+v: %+v, %v", want, c, id, err)
			}
		}
	}
	// go-sasl's client, with the challenge of a failure.
	for _, tok := range []string{"good.token~+/=", "bad"} {
		cl := sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: "alice", Token: tok, Host: "mx.test", Port: 587})
		if id, err := run(t, a, &Conn{}, cl); (err == nil) != (tok != "bad") || tok != "bad" && id.User != "alice" {
			t.Errorf("%s: %+v %v", tok, id, err)
		}
	}
	for _, s := range []string{"", "n,,\x01", "n,,\x01\x01", "n,,\x01auth=Bearer x\x01", "p=tls-exporter,,\x01auth=Bearer x\x01\x01", "n,a=x\x01auth=Bearer x\x01\x01",
		"n,b=x,\x01auth=Bearer x\x01\x01", "n,,\x01auth=Basic x\x01\x01", "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "n,,\x01host\x01auth=Bearer x\x01\x01", "n,,\x01auth=Bearer \xff\x01\x01"} {
		x, _ := a.Start(t.Context(), "OAUTHBEARER", &Conn{})
		if _, _, err := x.Next([]byte(s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", s, err)
		}
	}
	a = &Tokens{Verify: a.Verify, UserFailures: 1}
	for _, want := range []error{ErrCredentials, ErrTooMany} {
		cred := &Credentials{User: "alice", Token: func(context.Context) (string, error) { return "bad", nil }}
		cl, _ := cred.Client(t.Context(), []string{"XOAUTH2"}, nil)
		if _, err := run(t, a, from("192.0.2.1:1"), cl); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func TestAll(t *testing.T) {
	guest := &Anonymous{Admit: func(_ context.Context, _ *Conn, trace string) (Identity, error) {
		return Identity{User: "guest", Value: trace}, nil
	}}
	certs := &Certificates{Identify: func(context.Context, *Conn, string) (Identity, error) { return Identity{User: "x"}, nil }}
	all := All{certs, scramUsers(), guest, users(t, nil)}
	if got := strings.Join(all.Mechanisms(&Conn{}), " "); got != "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN CRAM-MD5 ANONYMOUS" {
		t.Error(got)
	}
	id, err := run(t, all, &Conn{}, sasl.NewAnonymousClient("me@here"))
	if err != nil || id.User != "guest" || id.Value != "me@here" || id.Mechanism != "ANONYMOUS" {
		t.Error(id, err)
	}
	if _, err := run(t, all, &Conn{}, sasl.NewAnonymousClient(strings.Repeat("x", 300))); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if _, err := run(t, all, &Conn{TLS: &tls.ConnectionState{}}, sasl.NewExternalClient("")); !errors.Is(err, ErrMechanism) {
		t.Error("EXTERNAL without a certificate", err)
	}
	if id, err := run(t, all, &Conn{}, sasl.NewPlainClient("", "alice", "secret")); err != nil || id.User != "alice" {
		t.Error(id, err)
	}
}

// What is chosen of what is offered.
func TestCredentials(t *testing.T) {
	with := &tls.ConnectionState{Version: tls.VersionTLS13}
	for _, c := range []struct {
		c       Credentials
		offered string
		tls     *tls.ConnectionState
		want    string
	}{
		{Credentials{}, "PLAIN LOGIN SCRAM-SHA-1 SCRAM-SHA-256", nil, "SCRAM-SHA-256"},
		{Credentials{}, "plain scram-sha-1", nil, "SCRAM-SHA-1"},
		{Credentials{}, "PLAIN LOGIN CRAM-MD5", nil, "CRAM-MD5"},
		{Credentials{}, "PLAIN LOGIN CRAM-MD5", with, "PLAIN"},
		{Credentials{}, "LOGIN CRAM-MD5", with, "LOGIN"},
		{Credentials{}, "CRAM-MD5", with, "CRAM-MD5"},
		{Credentials{ActAs: "x"}, "LOGIN CRAM-MD5", with, ""},
		{Credentials{ActAs: "x"}, "PLAIN", with, "PLAIN"},
		{Credentials{}, "NTLM", with, ""},
		{Credentials{}, "", with, ""},
		{Credentials{Certificate: true}, "PLAIN EXTERNAL", with, "EXTERNAL"},
		{Credentials{Certificate: true}, "PLAIN EXTERNAL", nil, ""},
		{Credentials{Certificate: true}, "PLAIN", with, ""},
		{Credentials{Token: func(context.Context) (string, error) { return "t", nil }}, "PLAIN", with, ""},
	} {
		cl, err := c.c.Client(t.Context(), strings.Fields(c.offered), c.tls)
		got := ""
		if err == nil {
			got, _, _ = cl.Start()
		} else if !errors.Is(err, ErrMechanism) {
			t.Error(err)
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.offered, got, c.want)
		}
	}
}

// FuzzMechanisms feeds any two responses to every mechanism: nobody gets in.
func FuzzMechanisms(f *testing.F) {
	for _, s := range []string{"n,,n=alice,r=abc|c=biws,r=abc,p=AAAA", "p=tls-exporter,,n=alice,r=x|c=,r=,p=", "\x00alice\x00x|", "alice|x", "n,a=alice,\x01auth=Bearer x\x01\x01|\x01", "user=a\x01auth=Bearer x\x01\x01|"} {
		a, b, _ := strings.Cut(s, "|")
		f.Add([]byte(a), []byte(b))
	}
	all := All{scramUsers(), &Tokens{UserFailures: -1, AddrFailures: -1, Verify: func(context.Context, *Conn, string, string) (Identity, error) {
		return Identity{}, ErrCredentials
	}}}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if strings.Contains(string(a)+string(b), "secret") {
			return
		}
		for _, m := range all.Mechanisms(&Conn{}) {
			x, err := all.Start(t.Context(), m, &Conn{})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range [][]byte{a, b, {}} {
				_, done, err := x.Next(r)
				if done || x.Identity().User != "" {
					t.Fatalf("%s let %q %q in", m, a, b)
				}
				if err != nil {
					break
				}
			}
		}
	})
}

// FuzzSCRAMKeys reads stored keys: what is taken is written back as it was.
func FuzzSCRAMKeys(f *testing.F) {
	f.Add(cheapSCRAM("SCRAM-SHA-256", "x"))
	f.Add(cheapSCRAM("SCRAM-SHA-1", "x"))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := parseSCRAM(s)
		if err != nil {
			if !errors.Is(err, ErrHash) {
				t.Fatal(err)
			}
			return
		}
		again, err := parseSCRAM(k.String())
		if err != nil || again.String() != k.String() {
			t.Fatalf("%q → %q: %v", s, k, err)
		}
	})
}

func BenchmarkSCRAM(b *testing.B) {
	p := scramUsers()
	b.ReportAllocs()
	for b.Loop() {
		x, _ := p.Start(b.Context(), "SCRAM-SHA-256", &Conn{})
		ch, _, err := x.Next([]byte("n,,n=alice,r=abc"))
		if err != nil {
			b.Fatal(err)
		}
		nonce, _, _ := strings.Cut(string(ch), ",")
		x.Next([]byte("c=biws," + nonce + ",p=" + strings.Repeat("A", 43) + "="))
	}
}
