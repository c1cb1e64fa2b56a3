package login

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	"golang.org/x/crypto/bcrypt"
)

// cheap makes a hash that costs next to nothing.
func cheap(t testing.TB, password string) string {
	t.Helper()
	pw, err := preparePassword(password)
	if err != nil {
		t.Fatal(err)
	}
	h := &argon{memoryKiB: 8, time: 1, threads: 1, salt: []byte("saltsalt"), key: make([]byte, 32)}
	h.key = h.derive(pw)
	return h.String()
}

func users(t testing.TB, passwords map[string]string) *Passwords {
	hashes := map[string]string{}
	for u, p := range passwords {
		hashes[u] = cheap(t, p)
	}
	return &Passwords{Lookup: func(_ context.Context, user string) (Record, error) {
		if h, ok := hashes[user]; ok {
			return Record{Hash: h, Value: len(user)}, nil
		}
		return Record{}, ErrNoUser
	}}
}

func from(addr string) *Conn { return &Conn{Remote: netip.MustParseAddrPort(addr)} }

func TestPlain(t *testing.T) {
	p := users(t, map[string]string{"alice@example.test": "secret", "jürgen": "pässwört"})
	for _, c := range []struct {
		name, response string
		want           error
		user           string
	}{
		{"right", "\x00alice@example.test\x00secret", nil, "alice@example.test"},
		{"case of the name", "\x00Alice@EXAMPLE.test\x00secret", nil, "alice@example.test"},
		{"same authzid", "alice@example.test\x00alice@example.test\x00secret", nil, "alice@example.test"},
		{"same authzid in other case", "ALICE@example.test\x00alice@example.test\x00secret", nil, "alice@example.test"},
		{"Unicode", "\x00jürgen\x00pässwört", nil, "jürgen"},
		{"Unicode, decomposed", "\x00ju\u0308rgen\x00pa\u0308sswo\u0308rt", nil, "jürgen"},
		{"other authzid", "bob\x00alice@example.test\x00secret", ErrCredentials, ""},
		{"bad authzid", "a b\x00alice@example.test\x00secret", ErrCredentials, ""},
		{"wrong password", "\x00alice@example.test\x00Secret", ErrCredentials, ""},
		{"unknown user", "\x00mallory\x00secret", ErrCredentials, ""},
		{"name with a space", "\x00a b\x00secret", ErrCredentials, ""},
		{"empty password", "\x00alice@example.test\x00", ErrCredentials, ""},
		{"control in password", "\x00alice@example.test\x00sec\x07ret", ErrCredentials, ""},
		{"password not UTF-8", "\x00alice@example.test\x00\xff", ErrCredentials, ""},
		{"empty name", "\x00\x00secret", ErrMalformed, ""},
		{"name not UTF-8", "\x00\xff\x00secret", ErrMalformed, ""},
		{"empty", "", ErrMalformed, ""},
		{"two fields", "alice@example.test\x00secret", ErrMalformed, ""},
		{"four fields", "\x00alice@example.test\x00secret\x00", ErrMalformed, ""},
		{"long name", "\x00" + strings.Repeat("a", 5000) + "\x00x", ErrMalformed, ""},
		{"long password", "\x00alice@example.test\x00" + strings.Repeat("a", 5000), ErrMalformed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, err := p.Start(t.Context(), "plain", &Conn{})
			if err != nil {
				t.Fatal(err)
			}
			_, done, err := x.Next([]byte(c.response))
			if !errors.Is(err, c.want) || done != (c.want == nil) {
				t.Fatalf("done %v, error %v, want %v", done, err, c.want)
			}
			if id := x.Identity(); id.User != c.user {
				t.Errorf("identity %+v, want user %q", id, c.user)
			} else if c.user != "" && (id.Mechanism != "PLAIN" || id.Value != len(c.user)) {
				t.Errorf("identity %+v", id)
			}
			if _, _, err := x.Next([]byte(c.response)); !errors.Is(err, sasl.ErrUnexpectedClientResponse) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// The clients of go-sasl, with and without initial response.
func TestSASLClients(t *testing.T) {
	p := users(t, map[string]string{"alice": "secret"})
	for _, initial := range []bool{true, false} {
		for _, cl := range []sasl.Client{sasl.NewPlainClient("", "alice", "secret"), sasl.NewLoginClient("alice", "secret")} {
			mech, resp, _ := cl.Start()
			x, err := p.Start(t.Context(), mech, &Conn{})
			if err != nil {
				t.Fatal(err)
			}
			if !initial {
				if ch, done, err := x.Next(nil); err != nil || done || mech == "PLAIN" && len(ch) != 0 {
					t.Fatalf("%s: first challenge %q %v %v", mech, ch, done, err)
				}
			}
			for range 3 {
				ch, done, err := x.Next(resp)
				if err != nil {
					t.Fatal(mech, err)
				}
				if done {
					break
				}
				if resp, err = cl.Next(ch); err != nil {
					t.Fatal(mech, err)
				}
			}
			if x.Identity().User != "alice" || x.Identity().Mechanism != mech {
				t.Errorf("%s: %+v", mech, x.Identity())
			}
		}
	}
}

func TestLoginMechanism(t *testing.T) {
	p := users(t, map[string]string{"alice": "secret"})
	for _, c := range []struct {
		responses []string
		want      error
	}{
		{[]string{"alice", "wrong"}, ErrCredentials},
		{[]string{"", "secret"}, ErrMalformed},
		{[]string{"al\x00ice"}, ErrMalformed},
		{[]string{"alice", "sec\x00ret"}, ErrMalformed},
		{[]string{strings.Repeat("a", 2000)}, ErrMalformed},
	} {
		x, _ := p.Start(t.Context(), "LOGIN", &Conn{})
		var err error
		for _, r := range c.responses {
			_, _, err = x.Next([]byte(r))
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.responses, err, c.want)
		}
	}
	if _, err := p.Start(t.Context(), "CRAM-MD5", &Conn{}); !errors.Is(err, ErrMechanism) {
		t.Error(err)
	}
}

func TestPassword(t *testing.T) {
	p := users(t, map[string]string{"alice": "secret"})
	if id, err := Password(t.Context(), p, &Conn{}, "alice", "secret"); err != nil || id.User != "alice" {
		t.Error(id, err)
	}
	if _, err := Password(t.Context(), p, &Conn{}, "alice", "x"); !errors.Is(err, ErrCredentials) {
		t.Error(err)
	}
	if _, err := Password(t.Context(), p, &Conn{}, "a\x00alice", "secret"); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestActAs(t *testing.T) {
	p := users(t, map[string]string{"admin": "secret", "bob": "x"})
	p.ActAs = func(_ context.Context, id Identity, user string) (Identity, error) {
		if id.Login != "admin" {
			return Identity{}, ErrCredentials
		}
		id.User = user
		return id, nil
	}
	next := func(resp string) (Identity, error) {
		x, _ := p.Start(t.Context(), "PLAIN", &Conn{})
		_, _, err := x.Next([]byte(resp))
		return x.Identity(), err
	}
	if id, err := next("Bob\x00admin\x00secret"); err != nil || id.User != "bob" || id.Login != "admin" {
		t.Error(id, err)
	}
	if id, err := next("admin\x00bob\x00x"); !errors.Is(err, ErrCredentials) || id.User != "" {
		t.Error(id, err)
	}
}

func TestAlias(t *testing.T) {
	h := cheap(t, "secret")
	p := &Passwords{Lookup: func(context.Context, string) (Record, error) { return Record{Hash: h, User: "account-7"}, nil }}
	id, err := Password(t.Context(), p, &Conn{}, "alice", "secret")
	if err != nil || id.User != "account-7" || id.Login != "alice" {
		t.Error(id, err)
	}
}

// countingHash counts how often it is computed.
type countingHash struct{ n *int }

func (h countingHash) matches(string) bool { *h.n++; return true }
func (h countingHash) memory() int64       { return 1 }

// Each way to fail computes exactly one hash, of the same kind, and a match
// of the stand-in is no login.
func TestUnknownUserCostsAHash(t *testing.T) {
	p := users(t, map[string]string{"alice": "secret"})
	p.UserFailures = -1
	n := 0
	for i, c := range [][2]string{{"nobody", "secret"}, {"no body", "secret"}, {"nobody", ""}} {
		p.sample.store(countingHash{&n})
		if _, err := Password(t.Context(), p, &Conn{}, c[0], c[1]); !errors.Is(err, ErrCredentials) {
			t.Error(c, err)
		}
		if n != i+1 {
			t.Errorf("%q: %d hashes computed, want %d", c, n, i+1)
		}
	}
	// The stand-in is what was checked last.
	Password(t.Context(), p, &Conn{}, "alice", "secret")
	if h, ok := p.sample.load().(*argon); !ok || h.memoryKiB != 8 {
		t.Errorf("stand-in %#v", p.sample.load())
	}
}

func TestHash(t *testing.T) {
	h, err := Hash("correct horse")
	if err != nil || !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatal(h, err)
	}
	if h2, _ := Hash("correct horse"); h2 == h {
		t.Error("two hashes are equal: no salt")
	}
	for pw, want := range map[string]bool{"correct horse": true, "correct\u00a0horse": true, "correct": false, "": false} {
		if ok, err := Verify(h, pw); err != nil || ok != want {
			t.Errorf("%q: %v %v", pw, ok, err)
		}
	}
	for _, pw := range []string{"", "a\x00b", "\xff", "tab\t"} {
		if _, err := Hash(pw); !errors.Is(err, ErrPassword) {
			t.Errorf("Hash(%q): %v", pw, err)
		}
	}
}

// Vectors of the reference implementation, p=4 and p=1.
func TestArgonVectors(t *testing.T) {
	for _, h := range []string{
		"$argon2id$v=19$m=65536,t=2,p=4$c29tZXNhbHQ$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo",
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
	} {
		if ok, err := Verify(h, "password"); !ok || err != nil {
			t.Error(h, ok, err)
		}
	}
}

func TestBcrypt(t *testing.T) {
	b, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		h := prefix + string(b[4:])
		if ok, err := Verify(h, "secret"); !ok || err != nil {
			t.Error(prefix, ok, err)
		}
		if ok, err := Verify(h, "Secret"); ok || err != nil {
			t.Error(prefix, ok, err)
		}
	}
}

func TestHostileHashes(t *testing.T) {
	b64 := base64.RawStdEncoding.EncodeToString
	salt, key := b64(make([]byte, 16)), b64(make([]byte, 32))
	for _, h := range []string{
		"", "secret", "$", "$argon2id$", "$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=4294967295,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=4294967295,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=255$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=7,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=-1,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$t=1,m=64,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=1$" + b64(make([]byte, 4)) + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + b64(make([]byte, 4096)),
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "=",
		"$2a$31$" + strings.Repeat("a", 53), "$2a$04$short", "$2x$04$" + strings.Repeat("a", 53),
	} {
		if ok, err := Verify(h, "x"); ok || !errors.Is(err, ErrHash) {
			t.Errorf("%.60q: %v %v", h, ok, err)
		}
		p := &Passwords{Lookup: func(context.Context, string) (Record, error) { return Record{Hash: h}, nil }}
		if _, err := Password(t.Context(), p, &Conn{}, "alice", "x"); !errors.Is(err, ErrHash) || errors.Is(err, ErrCredentials) {
			t.Errorf("%.60q: %v", h, err)
		}
	}
}

func TestLookupFails(t *testing.T) {
	broken := errors.New("database is down")
	p := &Passwords{UserFailures: 1, Lookup: func(context.Context, string) (Record, error) { return Record{}, broken }}
	for range 3 { // it counts for no failure
		if _, err := Password(t.Context(), p, from("192.0.2.1:1"), "alice", "x"); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if _, err := Password(t.Context(), &Passwords{}, &Conn{}, "alice", "x"); err == nil {
		t.Error("no Lookup, no error")
	}
}

func TestCancelled(t *testing.T) {
	p := &Passwords{UserFailures: 1, Lookup: func(ctx context.Context, _ string) (Record, error) {
		<-ctx.Done()
		return Record{}, ctx.Err()
	}}
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(0, cancel)
		if _, err := Password(ctx, p, &Conn{}, "alice", "x"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	// While it waits for memory.
	p = users(t, map[string]string{"alice": "secret"})
	p.HashMemory = 1
	p.init()
	leave, _ := p.gate.enter(t.Context(), 1)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(0, cancel)
	if _, err := Password(ctx, p, &Conn{}, "alice", "secret"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	leave()
	if _, err := Password(t.Context(), p, &Conn{}, "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	if p.gate.used != 0 || p.gate.queue.Len() != 0 {
		t.Errorf("gate: %d used, %d waiting", p.gate.used, p.gate.queue.Len())
	}
}

func TestFailuresDecay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := users(t, map[string]string{"alice": "secret"})
		p.UserFailures, p.FailureDecay = 3, time.Minute
		try := func(pass string) error {
			_, err := Password(t.Context(), p, &Conn{}, "alice", pass)
			return err
		}
		want := func(pass string, target error) {
			t.Helper()
			if err := try(pass); !errors.Is(err, target) {
				t.Fatalf("at %v: %v, want %v", time.Now(), err, target)
			}
		}
		for range 3 {
			want("wrong", ErrCredentials)
		}
		want("wrong", ErrTooMany)
		want("secret", ErrTooMany)
		time.Sleep(59 * time.Second)
		want("secret", ErrTooMany)
		time.Sleep(time.Second)
		want("secret", nil) // one is forgotten, and a success counts for none
		want("secret", nil)
		want("wrong", ErrCredentials)
		want("secret", ErrTooMany)
		time.Sleep(time.Hour)
		for range 3 {
			want("wrong", ErrCredentials)
		}
		want("wrong", ErrTooMany)
	})
}

func TestFailuresByAddress(t *testing.T) {
	p := users(t, map[string]string{"alice": "secret", "bob": "secret"})
	p.UserFailures, p.AddrFailures = 2, 4
	try := func(addr, user, pass string) error {
		_, err := Password(t.Context(), p, from(addr), user, pass)
		return err
	}
	// alice has logged in from home: an attack from elsewhere does not lock
	// her out there.
	if err := try("192.0.2.1:1000", "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		try("198.51.100.1:1", "alice", "guess")
	}
	if err := try("198.51.100.1:1", "alice", "secret"); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if err := try("192.0.2.1:2000", "alice", "secret"); err != nil {
		t.Error(err)
	}
	// The address is counted over all users, known or not; IPv6 by /64.
	for i := range 4 {
		if err := try(fmt.Sprintf("[2001:db8::%d]:1", i), fmt.Sprint("user", i), "guess"); !errors.Is(err, ErrCredentials) {
			t.Error(err)
		}
	}
	if err := try("[2001:db8::ffff]:1", "bob", "secret"); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if err := try("[2001:db8:0:1::1]:1", "bob", "secret"); err != nil {
		t.Error(err)
	}
}

// Attempts at the same time do not slip through together.
func TestFailuresAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := cheap(t, "secret")
		var mu sync.Mutex
		looked := 0
		p := &Passwords{UserFailures: 5, Lookup: func(context.Context, string) (Record, error) {
			mu.Lock()
			looked++
			mu.Unlock()
			time.Sleep(time.Millisecond)
			return Record{Hash: h}, nil
		}}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { Password(t.Context(), p, &Conn{}, "alice", "guess") })
		}
		wg.Wait()
		if looked != 5 {
			t.Errorf("%d guesses were checked, want 5", looked)
		}
	})
}

func TestTrackedIsBounded(t *testing.T) {
	c := newCounter(1, time.Hour)
	for i := range maxTracked + 100 {
		c.take(fmt.Sprint(i))
		c.trust(fmt.Sprint(i))
	}
	if len(c.count.m) != maxTracked || c.count.order.Len() != maxTracked || len(c.pairs.m) != maxTracked {
		t.Error(len(c.count.m), c.count.order.Len(), len(c.pairs.m))
	}
	if c.trusted("0") || !c.trusted(fmt.Sprint(maxTracked)) {
		t.Error("the wrong ones were forgotten")
	}
}

func TestGateKeepsOrderAndSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(10)
		var mu sync.Mutex
		var order []int64
		var used, most int64
		var wg sync.WaitGroup
		for i, need := range []int64{6, 5, 100, 1, 4} {
			time.Sleep(time.Microsecond) // one after the other
			wg.Go(func() {
				leave, err := g.enter(t.Context(), need)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, need)
				used += min(need, 10)
				most = max(most, used)
				mu.Unlock()
				time.Sleep(time.Duration(i+1) * time.Second)
				mu.Lock()
				used -= min(need, 10)
				mu.Unlock()
				leave()
			})
		}
		wg.Wait()
		if fmt.Sprint(order) != "[6 5 100 1 4]" && fmt.Sprint(order) != "[6 5 100 4 1]" || most > 10 {
			t.Error(order, most)
		}
	})
}

func TestCleartext(t *testing.T) {
	for m, want := range map[string]bool{"PLAIN": true, "login": true, "XOAUTH2": true, "X-NEW": true, "SCRAM-SHA-256-PLUS": false, "EXTERNAL": false} {
		if Cleartext(m) != want {
			t.Error(m)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	h, _ := Hash("x")
	f.Add(h)
	f.Add("$2a$04$" + strings.Repeat("a", 53))
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHash(s)
		if err != nil {
			if !errors.Is(err, ErrHash) {
				t.Error(err)
			}
			return
		}
		if h.memory() > maxHashMemory<<10 {
			t.Errorf("%d octets", h.memory())
		}
		if a, ok := h.(*argon); ok {
			b, err := parseArgon(a.String())
			if err != nil || b.String() != a.String() {
				t.Errorf("%s: %v", a, err)
			}
		}
	})
}

func FuzzExchange(f *testing.F) {
	f.Add("PLAIN", []byte("\x00alice\x00secret"), []byte("alice"), []byte("secret"))
	f.Add("LOGIN", []byte("alice"), []byte("secret"), []byte{})
	f.Fuzz(func(t *testing.T, mech string, a, b, c []byte) {
		p := users(t, map[string]string{"alice": "secret"})
		x, err := p.Start(t.Context(), mech, &Conn{})
		if err != nil {
			return
		}
		for _, r := range [][]byte{nil, a, b, c} {
			_, done, err := x.Next(r)
			if done != (x.Identity().User != "") {
				t.Fatalf("done %v, identity %+v, error %v", done, x.Identity(), err)
			}
			if done || err != nil {
				return
			}
		}
	})
}

func BenchmarkPasswordArgon2id(b *testing.B) {
	h, _ := Hash("secret")
	p := &Passwords{Lookup: func(context.Context, string) (Record, error) { return Record{Hash: h}, nil }}
	for b.Loop() {
		if _, err := Password(b.Context(), p, from("192.0.2.1:1"), "alice", "secret"); err != nil {
			b.Fatal(err)
		}
	}
}

// Everything but the hash.
func BenchmarkPasswordOverhead(b *testing.B) {
	h := cheap(b, "secret")
	p := &Passwords{Lookup: func(context.Context, string) (Record, error) { return Record{Hash: h}, nil }}
	for b.Loop() {
		if _, err := Password(b.Context(), p, from("192.0.2.1:1"), "alice", "secret"); err != nil {
			b.Fatal(err)
		}
	}
}
