package resolver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
)

// secureServers serves d over TLS and over HTTPS, with a certificate for
// example.com, and counts the connections of the former.
func secureServers(t *testing.T, d *mxtest.DNS) (tlsAddr, url string, web *httptest.Server, conns *atomic.Int32) {
	t.Helper()
	web = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/dns-message" || !bytes.Equal(b[:2], []byte{0, 0}) {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		if bytes.Contains(b, []byte("\x05error")) {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		nc, _ := d.DialContext(r.Context(), "tcp", "")
		nc.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		out, _ := io.ReadAll(nc)
		w.Header().Set("Content-Type", "application/dns-message")
		w.Write(out[2:])
	}))
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := d.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	conns = new(atomic.Int32)
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); d.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			wg.Go(func() {
				defer nc.Close()
				to, err := net.Dial("tcp", plain)
				if err != nil {
					return
				}
				defer to.Close()
				go io.Copy(to, nc)
				io.Copy(nc, to)
			})
		}
	})
	return l.Addr().String(), web.URL + "/dns-query", web, conns
}

// TestSecureServers: DNS over TLS and over HTTPS, with certificates that are
// looked at.
func TestSecureServers(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{"a.test": {"SECURE", "A 192.0.2.1"}, "b.test": {"A 192.0.2.2"}, "big.test": {"TXT " + strings.Repeat("x", 5000)}})
	tlsAddr, url, web, conns := secureServers(t, d)
	roots := web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, server := range []string{"tls://" + tlsAddr + "#example.com", url} {
		r := &resolver.Resolver{Servers: []string{server}, TLS: &tls.Config{RootCAs: roots}, HTTP: web.Client(), Attempts: 1}
		a, err := r.Query(t.Context(), "a.test", dns.TypeA)
		if err != nil || len(a.Addr) != 1 {
			t.Fatalf("%s: %+v %v", server, a, err)
		}
		if txt, err := r.LookupTXT(t.Context(), "big.test"); err != nil || len(txt[0]) != 5000 {
			t.Errorf("%s: %v", server, err)
		}
		if _, err := r.LookupTXT(t.Context(), "none.test"); !errors.Is(err, resolver.ErrNXDomain) {
			t.Errorf("%s: %v", server, err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d TLS connections for 3 questions", n)
	}
	for _, server := range []string{"tls://" + tlsAddr + "#example.org", "tls://" + tlsAddr} {
		r := &resolver.Resolver{Servers: []string{server}, Attempts: 1}
		if server != "tls://"+tlsAddr {
			r.TLS = &tls.Config{RootCAs: roots}
		}
		var ce *tls.CertificateVerificationError
		if _, err := r.LookupTXT(t.Context(), "a.test"); !errors.As(err, &ce) {
			t.Errorf("%s: %v", server, err)
		}
	}
	r := &resolver.Resolver{Servers: []string{url}, HTTP: web.Client(), Attempts: 1}
	if _, err := r.LookupTXT(t.Context(), "error.test"); !errors.Is(err, resolver.ErrServer) {
		t.Error(err)
	}
	if _, err := (&resolver.Resolver{Servers: []string{"quic://x"}}).LookupTXT(t.Context(), "a.test"); err == nil {
		t.Error("an unknown scheme is taken")
	}
	if _, err := (&resolver.Resolver{Servers: []string{}}).LookupTXT(t.Context(), "a.test"); err == nil {
		t.Error("no servers, and an answer")
	}
}

// TestHealth: a server that gave no answer comes last for a while.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mxtest.NewDNS(mxtest.Zone{"*.test": {"A 192.0.2.1"}})
		var asked []string
		r := &resolver.Resolver{Servers: []string{"10.0.0.1", "10.0.0.2"}, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			asked = append(asked, addr)
			if addr == "10.0.0.1:53" {
				return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
			}
			return d.DialContext(ctx, network, addr)
		}}
		look := func(name string) string {
			asked = nil
			if _, err := r.LookupNetIP(t.Context(), "ip4", name); err != nil {
				t.Error(err)
			}
			return strings.Join(asked, " ")
		}
		if s := look("a.test"); s != "10.0.0.1:53 10.0.0.2:53" {
			t.Error(s)
		}
		if s := look("b.test"); s != "10.0.0.2:53" {
			t.Error(s)
		}
		time.Sleep(3 * time.Second)
		if s := look("c.test"); s != "10.0.0.1:53 10.0.0.2:53" {
			t.Error(s)
		}
		time.Sleep(3 * time.Second) // twice as long now
		if s := look("d.test"); s != "10.0.0.2:53" {
			t.Error(s)
		}
	})
}

// TestRotate: each question begins with another server.
func TestRotate(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{"*.test": {"A 192.0.2.1"}})
	counts := map[string]int{}
	r := &resolver.Resolver{Servers: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, Rotate: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		counts[addr]++
		return d.DialContext(ctx, network, addr)
	}}
	for i := range 9 {
		if _, err := r.LookupNetIP(t.Context(), "ip4", fmt.Sprintf("a%d.test", i)); err != nil {
			t.Error(err)
		}
	}
	if len(counts) != 3 || counts["10.0.0.2:53"] != 3 {
		t.Errorf("%v", counts)
	}
}

// TestMixCase: the case of the question comes back, or the answer is a stray.
func TestMixCase(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{"abcdefghijklmnopqrstuvwxyz.test": {"A 192.0.2.1"}})
	r := &resolver.Resolver{Servers: []string{"127.0.0.1"}, MixCase: true, CacheSize: -1, DialContext: d.DialContext}
	for range 5 {
		if a, err := r.LookupNetIP(t.Context(), "ip4", "abcdefghijklmnopqrstuvwxyz.test"); err != nil || len(a) != 1 {
			t.Errorf("%v %v", a, err)
		}
	}
}

// TestBogus: forged answers are told from servers that fail.
func TestBogus(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{"forged.test": {"BOGUS"}, "broken.test": {"SERVFAIL"}})
	_, err := d.LookupTXT(t.Context(), "forged.test.")
	var ne *net.DNSError
	if !errors.Is(err, resolver.ErrBogus) || !errors.As(err, &ne) || ne.IsNotFound || !ne.IsTemporary {
		t.Errorf("%v", err)
	}
	if _, err := d.LookupTXT(t.Context(), "broken.test."); errors.Is(err, resolver.ErrBogus) || !errors.Is(err, resolver.ErrServer) {
		t.Errorf("%v", err)
	}
}

// BenchmarkMemory tells what 100,000 names in the cache take.
func BenchmarkMemory(b *testing.B) {
	const names = 100_000
	d := mxtest.NewDNS(mxtest.Zone{"*.test": {"3600 MX 10 mx.example.test"}})
	var before, after runtime.MemStats
	for b.Loop() {
		r := &resolver.Resolver{Servers: []string{"127.0.0.1"}, CacheSize: 2 * names, DialContext: d.DialContext}
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range names {
			if _, err := r.Query(b.Context(), fmt.Sprintf("domain-%d.test.", i), dns.TypeMX); err != nil {
				b.Fatal(err)
			}
		}
		asked := len(d.Questions())
		runtime.GC()
		runtime.ReadMemStats(&after)
		if _, err := r.Query(b.Context(), "domain-0.test.", dns.TypeMX); err != nil || len(d.Questions()) != asked {
			b.Fatal("not kept", err)
		}
		runtime.KeepAlive(r)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/names, "B/name")
}

// TestUnpredictable: each question has an id and a source port that cannot be
// guessed from those before it (RFC 5452 §9.2).
func TestUnpredictable(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	const questions = 40
	ids, ports := map[uint16]int{}, map[string]int{}
	served := make(chan struct{})
	go func() {
		defer close(served)
		buf := make([]byte, 1500)
		for range questions {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q, m := new(dns.Msg), new(dns.Msg)
			if err := q.Unpack(buf[:n]); err != nil {
				return
			}
			ids[q.Id]++
			ports[from.String()]++
			m.SetRcode(q, dns.RcodeNameError)
			b, _ := m.Pack()
			pc.WriteTo(b, from)
		}
	}()
	r := &resolver.Resolver{Servers: []string{pc.LocalAddr().String()}, CacheSize: -1}
	for range questions {
		if _, err := r.LookupTXT(t.Context(), "a.test"); !errors.Is(err, resolver.ErrNXDomain) {
			t.Fatal(err)
		}
	}
	<-served
	// By chance two of forty are the same now and then, and never five.
	if len(ids) < questions-4 || len(ports) < questions-4 {
		t.Errorf("%d ids, %d ports for %d questions", len(ids), len(ports), questions)
	}
}
