package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	blitiri "blitiri.com.ar/go/spf"
	msgauth "github.com/emersion/go-msgauth/dkim"
	moxdkim "github.com/mjl-/mox/dkim"
	moxdns "github.com/mjl-/mox/dns"
	moxsmtp "github.com/mjl-/mox/smtp"
	moxspf "github.com/mjl-/mox/spf"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/smtp"
)

const (
	goMsgauth = "go-msgauth 0.7.0"
	moxName   = "mox 0.0.17"
	bliti     = "blitiri spf 1.6.0"
)

// memory is DNS from a table, without a final dot in its names.
type memory struct {
	txt map[string]string
	mx  map[string]string
	ip  map[string]string
}

func (m *memory) find(of map[string]string, name string) (string, error) {
	if v, ok := of[strings.TrimSuffix(name, ".")]; ok {
		return v, nil
	}
	return "", &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (m *memory) LookupTXT(_ context.Context, name string) ([]string, error) {
	v, err := m.find(m.txt, name)
	if err != nil {
		return nil, err
	}
	return []string{v}, nil
}

// CachedTXT says at once what is known, as a resolver with a warm cache does.
func (m *memory) CachedTXT(name string) ([]string, bool, error) {
	txt, err := m.LookupTXT(context.Background(), name)
	return txt, true, err
}

func (m *memory) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	v, err := m.find(m.mx, name)
	if err != nil {
		return nil, err
	}
	return []*net.MX{{Host: v + ".", Pref: 10}}, nil
}

func (m *memory) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	v, err := m.find(m.ip, name)
	if err != nil || network == "ip6" {
		return nil, err
	}
	return []netip.Addr{netip.MustParseAddr(v)}, nil
}

func (m *memory) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
}

func (m *memory) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) { // of blitiri's resolver
	v, err := m.find(m.ip, name)
	if err != nil {
		return nil, err
	}
	return []net.IPAddr{{IP: net.ParseIP(v)}}, nil
}

// mox is the same table for mox.
func (m *memory) mox() moxdns.MockResolver {
	r := moxdns.MockResolver{TXT: map[string][]string{}, A: map[string][]string{}, MX: map[string][]*net.MX{}}
	for k, v := range m.txt {
		r.TXT[k+"."] = []string{v}
	}
	for k, v := range m.ip {
		r.A[k+"."] = []string{v}
	}
	for k, v := range m.mx {
		r.MX[k+"."] = []*net.MX{{Host: v + ".", Pref: 10}}
	}
	return r
}

// authKey is a key and where it is found.
type authKey struct {
	name     string
	selector string
	key      crypto.Signer
}

// authWorld is what all implementations work on.
type authWorld struct {
	dns  *memory
	mox  moxdns.MockResolver
	keys []authKey
	// messages by name, relaxed already so that the floor has the same octets
	// to hash.
	messages []authMessage
}

type authMessage struct {
	name string
	text []byte
	body []byte // what is behind the header
}

func newAuthWorld() (*authWorld, error) {
	w := &authWorld{dns: &memory{txt: map[string]string{}, mx: map[string]string{}, ip: map[string]string{}}}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	w.keys = []authKey{{"RSA-2048", "r", rsaKey}, {"Ed25519", "e", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))}}
	for _, k := range w.keys {
		r, err := dkim.NewRecord(k.key.Public())
		if err != nil {
			return nil, err
		}
		w.dns.txt[k.selector+"._domainkey.example.org"] = r.String()
	}
	w.dns.txt["_dmarc.example.org"] = "v=DMARC1; p=reject; rua=mailto:r@example.org"
	w.dns.txt["example.org"] = "v=spf1 ip4:192.0.2.1 -all"
	w.dns.txt["macro.example"] = "v=spf1 exists:%{ir}.%{l1r+-}._spf.%{d2} -all"
	w.dns.ip["1.2.0.192.user._spf.macro.example"] = "127.0.0.2"
	var includes strings.Builder
	for i := range 4 {
		w.dns.txt[fmt.Sprintf("i%d.example", i)] = fmt.Sprintf("v=spf1 ip4:198.51.100.%d a:h%d.example -all", i, i)
		w.dns.ip[fmt.Sprintf("h%d.example", i)] = fmt.Sprintf("203.0.113.%d", i)
		fmt.Fprintf(&includes, "include:i%d.example ", i)
	}
	w.dns.ip["h3.example"] = "192.0.2.1"
	w.dns.txt["eight.example"] = "v=spf1 " + includes.String() + "-all"
	w.mox = w.dns.mox()

	header := "From: Alice <alice@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: A message to be measured\r\n" +
		"Date: Mon, 4 May 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
	line := "The quick brown fox jumps over the lazy dog, and nobody knows what for.\r\n"
	random := make([]byte, 57)
	rand.Read(random)
	packed := base64.StdEncoding.EncodeToString(random) + "\r\n"
	for _, m := range []struct {
		name, line string
		size       int
	}{{"4 KB text", line, 4 << 10}, {"1 MB text", line, 1 << 20}, {"1 MB base64", packed, 1 << 20}} {
		body := strings.Repeat(m.line, m.size/len(m.line))
		w.messages = append(w.messages, authMessage{m.name, []byte(header + body), []byte(body)})
	}
	return w, w.check()
}

// ours signs with the given keys.
func (w *authWorld) sign(m *authMessage, keys ...authKey) (string, error) {
	opts := make([]dkim.SignOptions, len(keys))
	for i, k := range keys {
		opts[i] = dkim.SignOptions{Domain: "example.org", Selector: k.selector, Key: k.key}
	}
	s, err := dkim.NewSigner(opts...)
	if err != nil {
		return "", err
	}
	s.Write(m.text)
	return s.Signature()
}

func (w *authWorld) verify(msg []byte) error {
	p := (&dkim.Verifier{Resolver: w.dns}).Begin(context.Background())
	defer p.Close()
	p.Write(msg)
	results, err := p.Results()
	if err != nil {
		return err
	}
	for i := range results {
		if results[i].Result != auth.Pass {
			return results[i].Err
		}
	}
	if len(results) == 0 {
		return errors.New("no signature")
	}
	return nil
}

func (w *authWorld) msgauthSign(m *authMessage, k authKey, out io.Writer) error {
	return msgauth.Sign(out, bytes.NewReader(m.text), &msgauth.SignOptions{Domain: "example.org", Selector: k.selector, Signer: k.key, Hash: crypto.SHA256,
		HeaderCanonicalization: msgauth.CanonicalizationRelaxed, BodyCanonicalization: msgauth.CanonicalizationRelaxed})
}

func (w *authWorld) msgauthVerify(msg []byte) error {
	results, err := msgauth.VerifyWithOptions(bytes.NewReader(msg), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		return w.dns.LookupTXT(context.Background(), name)
	}})
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	if len(results) == 0 {
		return errors.New("no signature")
	}
	return nil
}

var quiet = slog.New(slog.DiscardHandler)

func (w *authWorld) moxSign(m *authMessage, k authKey) (string, error) {
	return moxdkim.Sign(context.Background(), quiet, "alice", moxdns.Domain{ASCII: "example.org"}, []moxdkim.Selector{{
		Hash: "sha256", HeaderRelaxed: true, BodyRelaxed: true, PrivateKey: k.key, Domain: moxdns.Domain{ASCII: k.selector},
		Headers: []string{"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"},
	}}, false, bytes.NewReader(m.text))
}

func (w *authWorld) moxVerify(msg []byte) error {
	results, err := moxdkim.Verify(context.Background(), quiet, w.mox, false, func(*moxdkim.Sig) error { return nil }, bytes.NewReader(msg), false)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Status != moxdkim.StatusPass {
			return fmt.Errorf("%s: %w", r.Status, r.Err)
		}
	}
	if len(results) == 0 {
		return errors.New("no signature")
	}
	return nil
}

// check makes sure that all do the same work before any is measured: each
// verifies what each has signed.
func (w *authWorld) check() error {
	for i := range w.messages {
		m := &w.messages[i]
		for _, k := range w.keys {
			ours, err := w.sign(m, k)
			if err != nil {
				return err
			}
			var theirs bytes.Buffer
			if err := w.msgauthSign(m, k, &theirs); err != nil {
				return fmt.Errorf("go-msgauth signs: %w", err)
			}
			moxs, err := w.moxSign(m, k)
			if err != nil {
				return fmt.Errorf("mox signs: %w", err)
			}
			for who, msg := range map[string][]byte{"Postrider": append([]byte(ours), m.text...), "go-msgauth": theirs.Bytes(), "mox": append([]byte(moxs), m.text...)} {
				for by, f := range map[string]func([]byte) error{"Postrider": w.verify, "go-msgauth": w.msgauthVerify, "mox": w.moxVerify} {
					if err := f(msg); err != nil {
						return fmt.Errorf("%s, %s, signed by %s, verified by %s: %w", m.name, k.name, who, by, err)
					}
				}
			}
		}
	}
	return nil
}

// floorSign and floorVerify are what nobody can do without: one hash over the
// body, one over a header of usual length, and the key.
func floorSign(m *authMessage, k authKey) error {
	sum := sha256.Sum256(m.body)
	head := sha256.Sum256(bytes.Repeat(sum[:], 20))
	var opts crypto.SignerOpts = crypto.SHA256
	if k.selector == "e" {
		opts = crypto.Hash(0)
	}
	_, err := k.key.Sign(rand.Reader, head[:], opts)
	return err
}

func floorVerify(m *authMessage, k authKey, sig []byte) error {
	sum := sha256.Sum256(m.body)
	return floorKey(sum, k, sig)
}

func floorKey(sum [32]byte, k authKey, sig []byte) error {
	head := sha256.Sum256(bytes.Repeat(sum[:], 20))
	if pub, ok := k.key.Public().(ed25519.PublicKey); ok {
		if !ed25519.Verify(pub, head[:], sig) {
			return errors.New("does not verify")
		}
		return nil
	}
	return rsa.VerifyPKCS1v15(k.key.Public().(*rsa.PublicKey), crypto.SHA256, head[:], sig)
}

func (w *authWorld) floorSignature(m *authMessage, k authKey) ([]byte, error) {
	sum := sha256.Sum256(m.body)
	head := sha256.Sum256(bytes.Repeat(sum[:], 20))
	var opts crypto.SignerOpts = crypto.SHA256
	if k.selector == "e" {
		opts = crypto.Hash(0)
	}
	return k.key.Sign(rand.Reader, head[:], opts)
}

// cpuPerOp measures f in microseconds of CPU time of the whole process, its
// other goroutines and the collector included: other load of the machine does
// not count, and nobody gains by using more cores.
func cpuPerOp(f func() error) func() (float64, error) {
	return func() (float64, error) {
		var used time.Duration
		var failed error
		r := testing.Benchmark(func(b *testing.B) {
			begin := cpuTime()
			for b.Loop() {
				if failed = f(); failed != nil {
					b.FailNow()
				}
			}
			used = cpuTime() - begin
		})
		if failed != nil || r.N == 0 {
			return 0, fmt.Errorf("the benchmark failed: %w", failed)
		}
		return float64(used.Nanoseconds()) / float64(r.N) / 1e3, nil
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loop makes a benchmark of f.
func loop(f func() error) func(b *testing.B) {
	return func(b *testing.B) {
		for b.Loop() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func authRows(r *run) ([]row, error) {
	w, err := newAuthWorld()
	if err != nil {
		return nil, err
	}
	var rows []row
	add := func(what, peer, unit string, theirs, ours func() error, g goal) {
		rows = append(rows, row{what: what, peer: peer, unit: unit, theirs: cpuPerOp(theirs), ours: cpuPerOp(ours), goal: g})
	}
	for i := range w.messages {
		m := &w.messages[i]
		floor, peer := goal{atMost: 1.4}, goal{atMost: 1}
		switch m.name {
		case "1 MB text":
			floor, peer = goal{atMost: 1.6}, goal{atMost: 0.33}
		case "1 MB base64":
			floor, peer = goal{atMost: 1.25}, goal{atMost: 0.33}
		}
		for _, k := range w.keys {
			what := "DKIM sign " + k.name + " " + m.name
			ours := func() error { _, err := w.sign(m, k); return err }
			signPeer := peer
			switch {
			case i == 0 && k.selector == "r":
				signPeer = goal{} // nearly all of it is the key, for everyone
			case m.name == "1 MB text" && k.selector == "r":
				signPeer = goal{atMost: 0.4} // the key alone is an eighth of what the peers need
			}
			add(what, "floor: hash and key", "µs CPU", func() error { return floorSign(m, k) }, ours, floor)
			add(what, goMsgauth, "µs CPU", func() error { return w.msgauthSign(m, k, io.Discard) }, ours, signPeer)
			add(what, moxName, "µs CPU", func() error { _, err := w.moxSign(m, k); return err }, ours, signPeer)

			field, err := w.sign(m, k)
			if err != nil {
				return nil, err
			}
			signed := append([]byte(field), m.text...)
			sig, err := w.floorSignature(m, k)
			if err != nil {
				return nil, err
			}
			what = "DKIM verify " + k.name + " " + m.name
			ours = func() error { return w.verify(signed) }
			add(what, "floor: hash and key", "µs CPU", func() error { return floorVerify(m, k, sig) }, ours, floor)
			add(what, goMsgauth, "µs CPU", func() error { return w.msgauthVerify(signed) }, ours, peer)
			add(what, moxName, "µs CPU", func() error { return w.moxVerify(signed) }, ours, peer)
			if i == 0 {
				rows = append(rows, row{what: what + ", allocations", peer: goMsgauth, unit: "allocs",
					theirs: allocsPerOp(loop(func() error { return w.msgauthVerify(signed) })), ours: allocsPerOp(loop(ours))},
					row{what: what + ", allocations", unit: "allocs", ours: allocsPerOp(loop(ours)), goal: goal{atMost: 40}},
					row{what: "DKIM sign " + k.name + " " + m.name + ", allocations", unit: "allocs",
						ours: allocsPerOp(loop(func() error { _, err := w.sign(m, k); return err })), goal: goal{atMost: 40}})
			}
		}
	}
	if err := authBoth(w, add); err != nil {
		return nil, err
	}
	return rows, authSPF(w, add)
}

type adder func(what, peer, unit string, theirs, ours func() error, g goal)

// authBoth measures what a second signature costs, and a whole verification.
func authBoth(w *authWorld, add adder) error {
	text := &w.messages[1]
	one, err := w.sign(text, w.keys[1])
	if err != nil {
		return err
	}
	two, err := w.sign(text, w.keys...)
	if err != nil {
		return err
	}
	first, both := append([]byte(one), text.text...), append([]byte(two), text.text...)
	add("DKIM verify 1 MB text, two signatures", "Postrider, one signature", "µs CPU",
		func() error { return w.verify(first) }, func() error { return w.verify(both) }, goal{atMost: 1.15})

	// A whole message: SPF, two signatures, DMARC. The floor is one hash of
	// the body and the two keys; at least 70 % of the work is to be that.
	small := &w.messages[0]
	field, err := w.sign(small, w.keys...)
	if err != nil {
		return err
	}
	msg := append([]byte(field), small.text...)
	var sigs [2][]byte
	for i, k := range w.keys {
		if sigs[i], err = w.floorSignature(small, k); err != nil {
			return err
		}
	}
	v := &verify.Verifier{Resolver: w.dns, AuthServID: "mx.example.net"}
	source := verify.Source{IP: netip.MustParseAddr("192.0.2.1"), Hello: "mail.example.org", From: smtp.Address{Local: "alice", Domain: "example.org"}}
	add("verify 4 KB: SPF, RSA and Ed25519, DMARC", "floor: hash and two keys", "µs CPU", func() error {
		sum := sha256.Sum256(small.body)
		return errors.Join(floorKey(sum, w.keys[0], sigs[0]), floorKey(sum, w.keys[1], sigs[1]))
	}, func() error {
		p := v.Begin(context.Background(), source)
		defer p.Close()
		p.Write(msg)
		r, err := p.Result()
		if err == nil && (r.DMARC.Result != auth.Pass || r.SPF.Result != auth.Pass || len(r.DKIM) != 2) {
			err = errors.New("not verified")
		}
		return err
	}, goal{atMost: 1.43})
	return nil
}

// authSPF measures SPF: a simple pass, a record with eight lookups, macros.
func authSPF(w *authWorld, add adder) error {
	ip := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct{ what, domain string }{{"SPF simple", "example.org"}, {"SPF eight lookups", "eight.example"}, {"SPF macros", "macro.example"}} {
		checker := &spf.Checker{Resolver: w.dns}
		source := spf.Source{IP: ip, Hello: "helo.example", From: smtp.Address{Local: "user", Domain: c.domain}}
		ours := func() error {
			if e := checker.Check(context.Background(), source); e.Result != auth.Pass {
				return fmt.Errorf("%s: %s: %v", c.domain, e.Result, e.Err)
			}
			return nil
		}
		sender := "user@" + c.domain
		theirs := func() error {
			if r, err := blitiri.CheckHostWithSender(net.IP(ip.AsSlice()), "helo.example", sender, blitiri.WithResolver(w.dns)); r != blitiri.Pass {
				return fmt.Errorf("blitiri: %s: %s: %w", c.domain, r, err)
			}
			return nil
		}
		args := moxspf.Args{RemoteIP: net.IP(ip.AsSlice()), MailFromLocalpart: moxsmtp.Localpart("user"), MailFromDomain: moxdns.Domain{ASCII: c.domain},
			HelloDomain: moxdns.IPDomain{Domain: moxdns.Domain{ASCII: "helo.example"}}, LocalIP: net.IPv4(127, 0, 0, 1), LocalHostname: moxdns.Domain{ASCII: "mx.example"}}
		moxs := func() error {
			if r, _, _, _, err := moxspf.Verify(context.Background(), quiet, w.mox, args); r.Result != moxspf.StatusPass {
				return fmt.Errorf("mox: %s: %s: %w", c.domain, r.Result, err)
			}
			return nil
		}
		for _, f := range []func() error{ours, theirs, moxs} {
			if err := f(); err != nil {
				return err
			}
		}
		add(c.what, bliti, "µs CPU", theirs, ours, goal{atMost: 1})
		add(c.what, moxName, "µs CPU", moxs, ours, goal{atMost: 1})
	}
	return nil
}
