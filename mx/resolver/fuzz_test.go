package resolver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx/dane"
)

// answering is a server that answers every question with the same octets,
// but with the id of the question.
type answering struct {
	body []byte
	out  bytes.Reader
	tcp  bool
}

func (c *answering) Write(b []byte) (int, error) {
	id := b
	if c.tcp {
		id = b[2:]
	}
	m := append([]byte{id[0], id[1]}, c.body...)
	if c.tcp {
		m = append([]byte{byte(len(m) >> 8), byte(len(m))}, m...)
	}
	c.out.Reset(m)
	return len(b), nil
}

func (c *answering) Read(b []byte) (int, error) {
	n, err := c.out.Read(b)
	if err == io.EOF && !c.tcp {
		c.out.Seek(0, io.SeekStart) // the same stray datagram for ever
		n, err = c.out.Read(b)
	}
	return n, err
}
func (c *answering) Close() error                     { return nil }
func (c *answering) LocalAddr() net.Addr              { return nil }
func (c *answering) RemoteAddr() net.Addr             { return nil }
func (c *answering) SetDeadline(time.Time) error      { return nil }
func (c *answering) SetReadDeadline(time.Time) error  { return nil }
func (c *answering) SetWriteDeadline(time.Time) error { return nil }

func FuzzAnswer(f *testing.F) {
	seed := func(edit func(*dns.Msg), records ...string) {
		m := &dns.Msg{}
		m.SetQuestion("a.test.", dns.TypeMX)
		m.Response = true
		for _, s := range records {
			rr, err := dns.NewRR(s)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		if edit != nil {
			edit(m)
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[2:], uint16(dns.TypeMX))
	}
	seed(nil, "a.test. 60 IN MX 10 mx.a.test.", "a.test. 60 IN MX 0 .")
	seed(nil, "a.test. 60 IN CNAME b.test.", "b.test. 60 IN MX 1 c.test.")
	seed(nil, "a.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.test.")
	seed(nil, `a.test. 60 IN TXT "x\"\\\200" "y"`, "a.test. 60 IN A 192.0.2.1", "a.test. 60 IN AAAA ::1", "a.test. 60 IN TLSA 3 1 1 00ff")
	seed(func(m *dns.Msg) { m.Truncated = true })
	seed(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })
	seed(func(m *dns.Msg) { m.Rcode = dns.RcodeFormatError; m.Question = nil })
	f.Add([]byte{0x80}, uint16(1))
	f.Fuzz(func(t *testing.T, body []byte, qtype uint16) {
		if len(body) > 60_000 {
			return
		}
		r := &Resolver{Servers: []string{"127.0.0.1:53"}, Attempts: 1, DialContext: func(_ context.Context, network, _ string) (net.Conn, error) {
			return &answering{body: body, tcp: network == "tcp"}, nil
		}}
		a, err := r.Query(t.Context(), "a.test.", qtype)
		if (a == nil) == (err == nil) {
			t.Fatalf("%v %v", a, err)
		}
		if err != nil {
			if !errors.As(err, new(*Error)) {
				t.Fatalf("%T", err)
			}
			return
		}
		if a.TTL < 0 || a.TTL > maxTTL*time.Second || len(a.MX)+len(a.Addr)+len(a.TXT)+len(a.PTR)+len(a.TLSA) == 0 {
			t.Fatalf("%+v", a)
		}
	})
}

// FuzzTLSA: whatever a TLSA record holds on the wire, it is told as it is, or
// it is an error.
func FuzzTLSA(f *testing.F) {
	f.Add([]byte{3, 1, 1, 0xab})
	f.Add(append([]byte{2, 0, 2}, make([]byte, 64)...))
	f.Add([]byte{3, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, rdata []byte) {
		if len(rdata) > 60_000 {
			return
		}
		m := &dns.Msg{}
		m.SetQuestion("_25._tcp.a.test.", dns.TypeTLSA)
		m.Response, m.RecursionAvailable = true, true
		head, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		head[7] = 1 // one answer
		b := append(head, 0xc0, 12, 0, 52, 0, 1, 0, 0, 0, 60, byte(len(rdata)>>8), byte(len(rdata)))
		b = append(b, rdata...)
		r := &Resolver{Servers: []string{"127.0.0.1:53"}, Attempts: 1, DialContext: func(_ context.Context, network, _ string) (net.Conn, error) {
			return &answering{body: b[2:], tcp: network == "tcp"}, nil
		}}
		a, err := r.Query(t.Context(), "_25._tcp.a.test.", dns.TypeTLSA)
		if err != nil {
			if len(rdata) > 3 && len(b) <= udpSize {
				t.Fatalf("%x: %v", rdata, err)
			}
			return
		}
		if len(a.TLSA) != 1 {
			t.Fatalf("%+v", a)
		}
		got := a.TLSA[0]
		if len(rdata) < 4 {
			if got.Usable() {
				t.Fatalf("%x: usable", rdata)
			}
			return
		}
		if want := rdata[3:]; byte(got.Usage) != rdata[0] || byte(got.Selector) != rdata[1] || byte(got.MatchingType) != rdata[2] || !bytes.Equal(got.Data, want) {
			t.Fatalf("%x: %v", rdata, got)
		}
		dane.Usable(a.TLSA)
		again, err := dane.Parse(got.String())
		if len(got.Data) > 0 && (err != nil || again.String() != got.String()) {
			t.Fatalf("%v: %v", got, err)
		}
	})
}

func TestSystem(t *testing.T) {
	if s, err := readSystem("testdata/resolv.conf"); err != nil || len(s.servers) != 2 || s.servers[0] != "192.0.2.53" || s.servers[1] != "2001:db8::53" || !s.trustAD || s.rotate {
		t.Errorf("%+v %v", s, err)
	}
	if s, err := readSystem("testdata/none"); !errors.Is(err, errNoServers) {
		t.Errorf("%+v %v", s, err)
	}
	for text, want := range map[string]string{
		"192.0.2.53": "udp 192.0.2.53:53", "192.0.2.53:5353": "udp 192.0.2.53:5353", "2001:db8::53": "udp [2001:db8::53]:53", "[2001:db8::53]:5353": "udp [2001:db8::53]:5353",
		"tls://192.0.2.53#dns.example": "tls 192.0.2.53:853 dns.example", "tls://dns.example": "tls dns.example:853 dns.example", "tls://[2001:db8::53]:8853#a": "tls [2001:db8::53]:8853 a",
		"https://dns.example/dns-query": "https dns.example https://dns.example/dns-query", "quic://dns.example": "",
	} {
		s, err := parseServer(text)
		got := ""
		if err == nil {
			got = strings.Join(strings.Fields(s.via+" "+s.addr+" "+s.name+" "+s.url), " ")
		}
		if got != want {
			t.Errorf("%s: %q, want %q (%v)", text, got, want, err)
		}
	}
}

// Datagrams that answer something else are passed over, up to a bound.
func TestStray(t *testing.T) {
	q := &dns.Msg{}
	q.SetQuestion("a.test.", dns.TypeA)
	good := &dns.Msg{}
	good.SetReply(q)
	pack := func(m *dns.Msg) []byte {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	edit := func(f func(*dns.Msg)) []byte {
		m := good.Copy()
		f(m)
		return pack(m)
	}
	for name, b := range map[string][]byte{
		"id":       edit(func(m *dns.Msg) { m.Id++ }),
		"name":     edit(func(m *dns.Msg) { m.Question[0].Name = "b.test." }),
		"type":     edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }),
		"no reply": edit(func(m *dns.Msg) { m.Response = false }),
		"empty":    edit(func(m *dns.Msg) { m.Question = nil }),
		"short":    pack(good)[:11],
	} {
		if _, err := unpack(b, q, false); !errors.Is(err, errStray) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := unpack(edit(func(m *dns.Msg) { m.Question[0].Name = "A.tEst." }), q, false); err != nil {
		t.Error(err)
	}
	if _, err := unpack(edit(func(m *dns.Msg) { m.Question[0].Name = "A.tEst." }), q, true); !errors.Is(err, errStray) {
		t.Error(err)
	}
}
