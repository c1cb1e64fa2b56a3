package mxtest

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Zone maps names, with or without a final dot, to their records, each as a
// type and its data in the form of master files (RFC 1035 §5.1):
//
//	"A 192.0.2.1", "AAAA 2001:db8::1", "MX 10 mx.example.test", "CNAME other.test",
//	"TXT v=DKIM1; p=…", `TXT "two" "strings"`, "TLSA 3 1 1 …", "PTR host.test"
//
// Names in the data are absolute, with or without a final dot. A TXT record
// that does not begin with a quote is taken as it stands, whatever its length.
// A number before the type is the time to live in seconds; 60 without one.
// "*.example.test" is a wildcard (RFC 4592).
//
// These words make a name misbehave, for all types or for the one that
// follows, as in "SERVFAIL MX":
//
//	SERVFAIL, REFUSED   the server answers so
//	BOGUS               SERVFAIL, because DNSSEC found the records forged
//	NXDOMAIN            there is no such name, whatever stands beside it
//	TIMEOUT             no answer; the resolver in memory fails at once
//	TRUNCATE            over UDP the answer is empty and says truncated
//	LAME                the server does not know, and names others
//	DELAY 200ms         the answer takes its time
//
// SECURE marks a name as proven by DNSSEC: answers that stay within such
// names have the AD bit.
type Zone map[string][]string

const defaultTTL = 60

// ParseZone reads records in the form of a master file (RFC 1035 §5.1), with
// $ORIGIN, $TTL and $GENERATE but without $INCLUDE. origin is where relative
// names are below, until the file says so itself; "" = the root. An error names
// the line. Words that make a name misbehave are added to the Zone afterwards.
func ParseZone(r io.Reader, origin string) (Zone, error) {
	z := Zone{}
	p := dns.NewZoneParser(r, dns.Fqdn(origin), "")
	p.SetDefaultTTL(defaultTTL)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			return nil, fmt.Errorf("mxtest: %s: class %s", h.Name, dns.Class(h.Class))
		}
		name := strings.TrimSuffix(canonical(h.Name), ".")
		line := fmt.Sprintf("%d %s %s", h.Ttl, dns.Type(h.Rrtype), strings.TrimPrefix(rr.String(), h.String()))
		if _, err := parseNode(dns.Fqdn(name), []string{line}); err != nil {
			return nil, err
		}
		z[name] = append(z[name], line)
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("mxtest: %w", err)
	}
	return z, nil
}

// node is what is known of one name.
type node struct {
	records []dns.RR
	faults  map[string]uint16 // word to type, dns.TypeANY = all
	secure  bool
	delay   time.Duration
}

func parseNode(name string, lines []string) (*node, error) {
	n := &node{faults: map[string]uint16{}}
	for _, line := range lines {
		if err := n.parse(name, line); err != nil {
			return nil, fmt.Errorf("mxtest: %s: record %q: %w", name, line, err)
		}
	}
	return n, nil
}

func (n *node) parse(name, line string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "SECURE":
		n.secure = true
		return nil
	case "DELAY":
		var err error
		n.delay, err = time.ParseDuration(rest)
		return err
	case "SERVFAIL", "REFUSED", "BOGUS", "NXDOMAIN", "TIMEOUT", "TRUNCATE", "LAME":
		qtype := dns.TypeANY
		if rest != "" {
			var ok bool
			if qtype, ok = dns.StringToType[rest]; !ok {
				return fmt.Errorf("unknown type %q", rest)
			}
		}
		n.faults[word] = qtype
		return nil
	}
	ttl := uint64(defaultTTL)
	if v, err := strconv.ParseUint(word, 10, 31); err == nil {
		ttl = v
		word, rest, _ = strings.Cut(rest, " ")
		rest = strings.TrimSpace(rest)
	}
	if word == "TXT" && !strings.HasPrefix(rest, `"`) {
		n.records = append(n.records, &dns.TXT{
			Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(ttl)},
			Txt: split(rest),
		})
		return nil
	}
	rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", name, ttl, word, rest))
	if err != nil {
		return err
	}
	if rr == nil {
		return fmt.Errorf("no record")
	}
	n.records = append(n.records, rr)
	return nil
}

// split cuts a text into strings of 255 octets, in the DNS library's
// presentation form.
func split(s string) []string {
	var out []string
	for {
		k := min(len(s), 255)
		out = append(out, strings.ReplaceAll(s[:k], `\`, `\\`))
		if s = s[k:]; s == "" {
			return out
		}
	}
}

func (n *node) fault(word string, qtype uint16) bool {
	t, ok := n.faults[word]
	return ok && (t == qtype || t == dns.TypeANY)
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }
