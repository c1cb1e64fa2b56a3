package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// Resolver is what of *net.Resolver is needed. Names end with a dot.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Subject is what a list is asked about.
type Subject uint8

// Subjects.
const (
	Address Subject = 1 << iota // the peer's IP address (RFC 5782 §2)
	Hello                       // the domain in EHLO (RFC 5782 §3)
	Sender                      // the domain of the reverse-path
)

// List is one list in the DNS.
type List struct {
	Zone string
	// Of is what the list is about; 0 = Address.
	Of Subject
	// Weight is added when the list knows the subject; 0 = 1. That of a
	// white list is negative.
	Weight int
	// Answers are those that count, nil = all of 127.0.0.0/8 but
	// 127.255.255.0/24.
	Answers []netip.Prefix
}

// Checker asks lists. It may be used from many goroutines; its fields are
// read-only then.
type Checker struct {
	Lists []List
	// Threshold is the sum of weights at which a peer is refused; 0 = 1.
	Threshold int
	// Timeout bounds all questions about one subject; 0 = 5 s.
	Timeout  time.Duration
	Resolver Resolver // nil = net.DefaultResolver
	// Decide says what becomes of a recipient, nil = as Threshold says. It
	// is asked for each RCPT of who has not logged in; its error is the
	// reply. A Decide that returns nil can mark the message elsewhere.
	Decide func(ctx context.Context, c *smtpserver.Conn, to smtp.Address, r Result) error
	Log    *slog.Logger // nil = slog.Default()
}

// Hit is a list that knows a subject.
type Hit struct {
	List    *List
	Subject string       // the address or domain as it was asked about
	Answers []netip.Addr // what counted
	Text    string       // the list's reason, printable ASCII, "" = none
}

// Result is what the lists say.
type Result struct {
	Hits []Hit // in the order of Checker.Lists
	// Errs are those of lists that could not say.
	Errs  []error
	Score int // sum of the hits' weights
}

func (r *Result) add(o Result) {
	r.Hits = append(r.Hits, o.Hits...)
	r.Errs = append(r.Errs, o.Errs...)
	r.Score += o.Score
}

// ErrList is what an answer means that is no listing: the list is gone, or
// refuses to tell us.
var ErrList = errors.New("dnsbl: list does not serve us")

// LookupAddr asks all lists of addresses.
func (c *Checker) LookupAddr(ctx context.Context, ip netip.Addr) Result {
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() {
		return Result{}
	}
	return c.lookup(ctx, Address, reverse(ip), ip.String())
}

// LookupDomain asks all lists of one kind of domain, Hello or Sender. What is
// no domain, and an address literal, is in no list.
func (c *Checker) LookupDomain(ctx context.Context, of Subject, domain string) Result {
	d, err := smtp.ParseDomain(domain)
	if err != nil || d[0] == '[' || !strings.Contains(d, ".") {
		return Result{}
	}
	if _, err := netip.ParseAddr(d); err == nil {
		return Result{} // RFC 5782 §3: never ask about addresses as names
	}
	return c.lookup(ctx, of, d, d)
}

// lookup asks each list in a goroutine of its own and waits for all.
func (c *Checker) lookup(ctx context.Context, of Subject, name, subject string) Result {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	hits, errs := make([]*Hit, len(c.Lists)), make([]error, len(c.Lists))
	var wg sync.WaitGroup
	for i := range c.Lists {
		l := &c.Lists[i]
		if l.Of&of != 0 || l.Of == 0 && of == Address {
			wg.Go(func() { hits[i], errs[i] = c.ask(ctx, l, name, subject) })
		}
	}
	wg.Wait()
	var r Result
	for i, h := range hits {
		if h != nil {
			r.Hits = append(r.Hits, *h)
			r.Score += h.List.weight()
		}
		if errs[i] != nil {
			r.Errs = append(r.Errs, fmt.Errorf("%s: %w", c.Lists[i].Zone, errs[i]))
		}
	}
	return r
}

func (l *List) weight() int {
	if l.Weight == 0 {
		return 1
	}
	return l.Weight
}

var (
	loopback = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
	refusals = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 255, 255}), 24)
)

func (c *Checker) ask(ctx context.Context, l *List, name, subject string) (*Hit, error) {
	var r Resolver = net.DefaultResolver
	if c.Resolver != nil {
		r = c.Resolver
	}
	name += "." + strings.TrimSuffix(l.Zone, ".") + "."
	if len(name) > 254 {
		return nil, nil // there is no such name
	}
	answers, err := r.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return nil, nil
		}
		return nil, err
	}
	h := &Hit{List: l, Subject: subject}
	for _, a := range answers {
		a = a.Unmap()
		switch {
		case !loopback.Contains(a), refusals.Contains(a) && !l.wants(a):
			err = fmt.Errorf("%w: %s is %s", ErrList, name, a)
		case l.Answers == nil || l.wants(a):
			h.Answers = append(h.Answers, a)
		}
	}
	if err != nil || len(h.Answers) == 0 {
		return nil, err
	}
	// The reason is for the peer to read (RFC 5782 §2.1). White lists are not
	// quoted, and without a reason the listing holds too.
	if l.weight() > 0 {
		if txt, err := r.LookupTXT(ctx, name); err == nil && len(txt) > 0 {
			h.Text = clean(txt[0])
		}
	}
	return h, nil
}

func (l *List) wants(a netip.Addr) bool {
	for _, p := range l.Answers {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// reverse is an address as RFC 5782 §2.1 and §2.4 ask about it.
func reverse(ip netip.Addr) string {
	const hex = "0123456789abcdef"
	if ip.Is4() {
		b := ip.As4()
		return fmt.Sprintf("%d.%d.%d.%d", b[3], b[2], b[1], b[0])
	}
	b := ip.As16()
	out := make([]byte, 0, 64)
	for i := len(b) - 1; i >= 0; i-- {
		out = append(out, hex[b[i]&15], '.', hex[b[i]>>4], '.')
	}
	return string(out[:len(out)-1])
}

// clean makes text from the DNS fit to be repeated in a reply and a log.
func clean(s string) string {
	b := []byte(s[:min(len(s), 200)])
	for i, ch := range b {
		if ch < ' ' || ch >= 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}
