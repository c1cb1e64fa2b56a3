package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
)

// spfPy answers python3-spf's look-ups from a zone and prints one result per
// line: argv is a file with {zone, cases} as JSON.
const spfPy = `
import sys, json, spf
data = json.load(open(sys.argv[1]))
zone = {n.lower(): r for n, r in data['zone'].items()}
def lookup(name, qtype, strict=True, timeout=None, level=0):
    name = name.lower().rstrip('.')
    for r in zone.get(name, []):
        if r == 'TIMEOUT':
            raise spf.TempError('DNS timeout')
        t, v = r.split(' ', 1)
        if t == qtype:
            if t == 'MX':
                p, h = v.split()
                v = (int(p), h)
            elif t in ('TXT', 'SPF'):
                v = (v.encode(),)
            yield ((name, t), v)
        elif t == 'CNAME' and level < 10:
            yield ((name, t), v)
            yield from lookup(v, qtype, strict, timeout, level + 1)
spf.DNSLookup = lookup
for c in data['cases']:
    print(spf.check2(i=c['ip'], s=c['from'], h=c['helo'])[0])
`

// TestSPF asks python3-spf and us the same questions over the same zone.
func TestSPF(t *testing.T) {
	need(t, "/usr/bin/python3")
	zone := map[string][]string{
		"all.test":               {"TXT v=spf1 -all"},
		"soft.test":              {"TXT v=spf1 ip4:192.0.2.0/25 ~all"},
		"neutral.test":           {"TXT v=spf1 ?all"},
		"none.test":              {"TXT something else"},
		"two.test":               {"TXT v=spf1 -all", "TXT v=spf1 +all"},
		"a.test":                 {"TXT v=spf1 a -all", "A 192.0.2.1", "AAAA 2001:db8::1"},
		"a24.test":               {"TXT v=spf1 a/24//64 -all", "A 192.0.2.200", "AAAA 2001:db8::1"},
		"mx.test":                {"TXT v=spf1 mx -all", "MX 10 host.mx.test", "MX 20 six.mx.test"},
		"host.mx.test":           {"A 192.0.2.1"},
		"six.mx.test":            {"AAAA 2001:db8::1"},
		"inc.test":               {"TXT v=spf1 include:a.test include:soft.test -all"},
		"incnone.test":           {"TXT v=spf1 include:none.test -all"},
		"redir.test":             {"TXT v=spf1 redirect=a.test"},
		"redirnone.test":         {"TXT v=spf1 redirect=none.test"},
		"loop.test":              {"TXT v=spf1 include:loop.test -all"},
		"exists.test":            {"TXT v=spf1 exists:%{ir}.%{l}.ex.test -all"},
		"macro.test":             {"TXT v=spf1 exists:%{l1r-}.%{d2}.m.test -all"},
		"syntax.test":            {"TXT v=spf1 ip4:192.0.2 -all"},
		"unknown.test":           {"TXT v=spf1 foo:bar -all"},
		"modifier.test":          {"TXT v=spf1 foo=bar +all"},
		"timeout.test":           {"TIMEOUT"},
		"inctime.test":           {"TXT v=spf1 include:timeout.test -all"},
		"cname.test":             {"CNAME a.test"},
		"ip6.test":               {"TXT v=spf1 ip6:2001:db8::/32 -all"},
		"case.test":              {"TXT V=SPF1 IP4:192.0.2.1 -ALL"},
		"many.test":              {"TXT v=spf1 " + strings.Repeat("a:host.mx.test ", 11) + "-all"},
		"ten.test":               {"TXT v=spf1 " + strings.Repeat("a:other.mx.test a:host.mx.test ", 1) + "-all"},
		"other.mx.test":          {"A 198.51.100.7"},
		"1.2.0.192.user.ex.test": {"A 127.0.0.2"},
		"user.macro.test.m.test": {"A 127.0.0.2"},
	}
	type question struct {
		IP   string `json:"ip"`
		From string `json:"from"`
		Helo string `json:"helo"`
	}
	var cases []question
	for name := range zone {
		if strings.Contains(name, ".ex.") || strings.HasSuffix(name, ".m.test") {
			continue
		}
		for _, ip := range []string{"192.0.2.1", "192.0.2.201", "2001:db8::1", "203.0.113.9"} {
			cases = append(cases, question{ip, "user@" + name, "helo.test"}, question{ip, "", name})
		}
	}
	dir := t.TempDir()
	in, err := json.Marshal(map[string]any{"zone": zone, "cases": cases})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "in.json"), string(in))
	theirs := strings.Fields(run(t, dir, "/usr/bin/python3", "-c", spfPy, filepath.Join(dir, "in.json")))
	if len(theirs) != len(cases) {
		t.Fatalf("python3-spf gave %d results for %d cases: %v", len(theirs), len(cases), theirs)
	}
	dns := mxtest.NewDNS(zone)
	if err := dns.Err(); err != nil {
		t.Fatal(err)
	}
	checker := &spf.Checker{Resolver: dns}
	seen := map[string]int{}
	for i, c := range cases {
		from, err := smtp.ParseAddress(c.From)
		if err != nil {
			t.Fatal(err)
		}
		ours := fmt.Sprint(checker.Check(context.Background(), spf.Source{IP: netip.MustParseAddr(c.IP), Hello: c.Helo, From: from}).Result)
		seen[ours]++
		if ours != theirs[i] {
			t.Errorf("%s from %q helo %s: %s, python3-spf says %s", c.IP, c.From, c.Helo, ours, theirs[i])
		}
	}
	t.Logf("conformance: %d SPF questions, results %v", len(cases), seen)
	if len(seen) < 6 {
		t.Errorf("the questions bring out few results only: %v", seen)
	}
}
