package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
)

// spfPerl is spfPy for Mail::SPF.
const spfPerl = `
use strict; use warnings; use JSON::PP; use Net::DNS; use Mail::SPF;
my $d = decode_json(do { open my $f, '<', $ARGV[0] or die $!; local $/; <$f> });
my %zone = map { lc($_) => $d->{zone}{$_} } keys %{$d->{zone}};
package Zone { sub new { bless {}, shift } sub errorstring { $_[0]{error} // '' } sub send { my ($s, $name, $type) = @_;
	$name = lc $name; $name =~ s/\.$//; $s->{error} = '';
	my $p = Net::DNS::Packet->new($name, $type); $p->header->qr(1);
	$p->header->rcode('NXDOMAIN') unless $zone{$name} || grep { /\.\Q$name\E$/ } keys %zone;
	for my $r (@{$zone{$name} || []}) {
		my ($t, $v) = split / /, $r, 2;
		next unless $t eq $type;
		$p->push(answer => $t eq 'TXT'
			? Net::DNS::RR->new(name => $name, type => 'TXT', ttl => 60, txtdata => [ $v =~ /(.{1,250})/g ])
			: Net::DNS::RR->new("$name 60 IN $t $v"));
	}
	$p } }
package main;
my $server = Mail::SPF::Server->new(dns_resolver => Zone->new, query_rr_types => Mail::SPF::Server->query_rr_type_txt, hostname => 'mx.test');
for my $c (@{$d->{cases}}) {
	my $r = eval { $server->process(Mail::SPF::Request->new(versions => [1], scope => 'mfrom', identity => $c->{from}, ip_address => $c->{ip}, helo_identity => $c->{helo}))->code };
	my $e = $@; $e =~ s/\s+/_/g;
	print defined $r ? $r : "error:$e", "\n";
}
`

// randomSPF makes a zone of n records, most of them sound, some not.
func randomSPF(n int) map[string][]string {
	r := rand.New(rand.NewSource(7208))
	pick := func(list ...string) string { return list[r.Intn(len(list))] }
	zone := map[string][]string{
		"host.test": {"A 192.0.2.10", "AAAA 2001:db8::10"}, "four.test": {"A 192.0.2.77", "A 198.51.100.3"}, "six.test": {"AAAA 2001:db8:1::5"},
		"mail.test": {"MX 10 host.test", "MX 20 four.test"}, "mail6.test": {"MX 5 six.test"},
		"good.test": {"TXT v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/64 -all"}, "soft.test": {"TXT v=spf1 a:four.test ~all"}, "plain.test": {"TXT nothing to see"},
		"two.test": {"TXT v=spf1 -all", "TXT v=spf1 ?all"}, "broken.test": {"TXT v=spf1 ip4:1.2.3 -all"},
		"user.x.test": {"A 127.0.0.2"}, "10.2.0.192.x.test": {"A 127.0.0.2"}, "192.0.2.10.user.y.test": {"A 127.0.0.1"},
	}
	host := func() string { return pick("host.test", "four.test", "six.test", "none.test", "mail.test") }
	term := func() string {
		q := pick("", "", "", "+", "-", "~", "?")
		switch r.Intn(10) {
		case 0:
			return q + fmt.Sprintf("ip4:192.0.2.%d", r.Intn(256))
		case 1:
			return q + fmt.Sprintf("ip4:192.0.%d.0/%d", r.Intn(4), 16+r.Intn(17))
		case 2:
			return q + fmt.Sprintf("ip6:2001:db8:%x::/%d", r.Intn(3), 32+r.Intn(97))
		case 3:
			return q + "a:" + host() + pick("", "", "/24", "//64", "/16//48")
		case 4:
			return q + pick("mx:mail.test", "mx:mail6.test", "mx:host.test", "mx:mail.test/25//64")
		case 5:
			return q + "include:" + pick("good.test", "soft.test", "good.test", "two.test", "plain.test", "broken.test")
		case 6:
			return q + "exists:" + pick("%{l}.x.test", "%{ir}.x.test", "%{i}.%{l}.y.test", "%{d2}.z.test", "host.test", "%{o1r}.x.test")
		case 7:
			return q + pick("a", "mx", "a/24", "mx//96")
		case 8:
			return pick("x=%{d}", "unknown=1", "exp=host.test")
		}
		// What is not a term, now and then.
		if r.Intn(4) == 0 {
			return pick("ip4:300.1.1.1", "ip4:192.0.2.1/33", "ip6:2001::/129", "a:", "include:", "all:x", "foo", "exists:%{z}.test", "a:host.test/", "ip4", "mx/33", "exists:%x")
		}
		return q + "ip4:192.0.2.10"
	}
	for i := range n {
		terms := []string{"v=spf1"}
		exp := false
		for range r.Intn(6) {
			t := term()
			if strings.HasPrefix(t, "exp=") {
				if exp {
					continue
				}
				exp = true
			}
			terms = append(terms, t)
		}
		switch r.Intn(6) {
		case 0:
			terms = append(terms, "redirect="+pick("good.test", "soft.test", "none.test", "broken.test"))
		case 1:
		default:
			terms = append(terms, pick("-all", "~all", "?all", "+all", "all"))
		}
		name := fmt.Sprintf("d%d.test", i)
		zone[name] = append(zone[name], "TXT "+strings.Join(terms, pick(" ", " ", "  ")))
		if r.Intn(3) == 0 {
			zone[name] = append(zone[name], fmt.Sprintf("A 192.0.2.%d", r.Intn(256)))
		}
		if r.Intn(4) == 0 {
			zone[name] = append(zone[name], "MX 10 "+pick("host.test", "six.test", "none.test"))
		}
	}
	return zone
}

// spfExcused says where the other one departs from RFC 7208.
func spfExcused(program, result, record string) bool {
	switch program {
	case "python3-spf":
		// §6: modifiers that are not known are ignored, no matter how often.
		return result == "permerror" && (strings.Count(record, " x=") > 1 || strings.Count(record, " unknown=") > 1)
	case "Mail-SPF":
		// §4.6: syntax is checked for the whole record; it checks macros
		// where it comes to them.
		return strings.Contains(record, "%{z}") || strings.Contains(record, "%x")
	}
	return false
}

// TestSPFRandom asks two other implementations and us about a thousand
// records.
func TestSPFRandom(t *testing.T) {
	const records = 1000
	zone := randomSPF(records)
	type question struct {
		IP   string `json:"ip"`
		From string `json:"from"`
		Helo string `json:"helo"`
	}
	r := rand.New(rand.NewSource(4408))
	ips := []string{"192.0.2.10", "192.0.2.77", "192.0.3.9", "198.51.100.3", "2001:db8::10", "2001:db8:1::5", "203.0.113.1"}
	var cases []question
	for i := range records {
		for range 3 {
			cases = append(cases, question{ips[r.Intn(len(ips))], fmt.Sprintf("user@d%d.test", i), "helo.test"})
		}
	}
	dir := t.TempDir()
	in, err := json.Marshal(map[string]any{"zone": zone, "cases": cases})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "in.json")
	write(t, file, string(in))
	dns := mxtest.NewDNS(zone)
	if err := dns.Err(); err != nil {
		t.Fatal(err)
	}
	ours := make([]string, len(cases))
	seen := map[string]int{}
	for i, c := range cases {
		from, err := smtp.ParseAddress(c.From)
		if err != nil {
			t.Fatal(err)
		}
		ours[i] = string((&spf.Checker{Resolver: dns}).Check(context.Background(), spf.Source{IP: netip.MustParseAddr(c.IP), Hello: c.Helo, From: from}).Result)
		seen[ours[i]]++
	}
	if len(seen) < 5 {
		t.Errorf("the records bring out few results only: %v", seen)
	}
	for _, p := range []struct{ name, script, file, program string }{
		{"python3-spf", spfPy, "spfjobs.py", "/usr/bin/python3"},
		{"Mail-SPF", spfPerl, "spfjobs.pl", "perl"},
	} {
		t.Run(p.name, func(t *testing.T) {
			need(t, p.program)
			if p.program == "perl" {
				needPerl(t, "Mail::SPF")
			}
			script := filepath.Join(dir, p.file)
			write(t, script, p.script)
			theirs := strings.Fields(run(t, dir, p.program, script, file))
			if len(theirs) != len(cases) {
				t.Fatalf("%d results for %d cases: %.1000v", len(theirs), len(cases), theirs)
			}
			differ, excused := 0, 0
			for i, c := range cases {
				if ours[i] == theirs[i] {
					continue
				}
				name := strings.TrimPrefix(c.From, "user@")
				if spfExcused(p.name, theirs[i], zone[name][0]) {
					excused++
					continue
				}
				if differ++; differ <= 20 {
					t.Errorf("%s from %s: %s, %s says %s: %q", c.IP, name, ours[i], p.name, theirs[i], zone[name])
				}
			}
			t.Logf("conformance: %s: %d of %d questions about %d records agree, %d where it is wrong itself, results %v", p.name, len(cases)-differ-excused, len(cases), records, excused, seen)
		})
	}
}
