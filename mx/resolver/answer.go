package resolver

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/dane"
)

// collect takes the records of qtype for a.Name out of msg, following the
// aliases in it; a.Name becomes their end. found is false if there are none.
func collect(msg *dns.Msg, a *mx.Answer, qtype uint16, ttl *uint32, hops *int) (found bool, err error) {
	for {
		alias := ""
		for _, rr := range msg.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, a.Name) {
				continue
			}
			if c, ok := rr.(*dns.CNAME); ok && qtype != dns.TypeCNAME {
				alias = strings.ToLower(c.Target)
				*ttl = min(*ttl, h.Ttl)
				continue
			}
			if h.Rrtype == qtype && add(a, rr) {
				found = true
				*ttl = min(*ttl, h.Ttl)
			}
		}
		if found {
			slices.SortStableFunc(a.MX, func(x, y *net.MX) int { return int(x.Pref) - int(y.Pref) })
			return true, nil
		}
		if alias == "" {
			return false, nil
		}
		if *hops++; *hops > maxCNAME {
			return false, ErrMalformed
		}
		a.Name = alias
	}
}

// add puts one record into the answer; false if it is of no use.
func add(a *mx.Answer, rr dns.RR) bool {
	switch rr := rr.(type) {
	case *dns.A:
		if ip, ok := netip.AddrFromSlice(rr.A.To4()); ok {
			a.Addr = append(a.Addr, ip)
			return true
		}
	case *dns.AAAA:
		if ip, ok := netip.AddrFromSlice(rr.AAAA); ok {
			a.Addr = append(a.Addr, ip)
			return true
		}
	case *dns.MX:
		a.MX = append(a.MX, &net.MX{Host: rr.Mx, Pref: rr.Preference})
		return true
	case *dns.TXT:
		var b strings.Builder
		ends := make([]int, len(rr.Txt))
		for i, s := range rr.Txt {
			unescape(&b, s)
			ends[i] = b.Len()
		}
		joined, begin := b.String(), 0
		list := make([]string, len(ends))
		for i, end := range ends {
			list[i], begin = joined[begin:end], end
		}
		a.TXT, a.Strings = append(a.TXT, joined), append(a.Strings, list)
		return true
	case *dns.CNAME: // asked for by type
		return true
	case *dns.PTR:
		a.PTR = append(a.PTR, rr.Ptr)
		return true
	case *dns.TLSA:
		if data, err := hex.DecodeString(rr.Certificate); err == nil {
			a.TLSA = append(a.TLSA, mx.TLSA{Usage: dane.Usage(rr.Usage), Selector: dane.Selector(rr.Selector),
				MatchingType: dane.MatchingType(rr.MatchingType), Data: data})
			return true
		}
	}
	return false
}

// unescape turns the DNS library's presentation form back into octets.
func unescape(b *strings.Builder, s string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\\' || i+1 == len(s) {
			b.WriteByte(c)
			continue
		}
		i++
		if i+2 < len(s) && digit(s[i]) && digit(s[i+1]) && digit(s[i+2]) {
			b.WriteByte((s[i]-'0')*100 + (s[i+1]-'0')*10 + (s[i+2] - '0'))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// negativeTTL is how long "no" may be kept (RFC 2308 §5).
func negativeTTL(msg *dns.Msg) (uint32, bool) {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(soa.Hdr.Ttl, soa.Minttl, maxNegativeTTL), true
		}
	}
	return 0, false
}
