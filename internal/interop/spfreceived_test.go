package interop

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
)

// TestReceivedSPF reads the Received-SPF fields of Mail::SPF and holds them
// against ours of the same checks.
func TestReceivedSPF(t *testing.T) {
	need(t, "perl")
	needPerl(t, "Mail::SPF")
	zone := map[string][]string{
		"pass.test":   {"TXT v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"},
		"soft.test":   {"TXT v=spf1 ~all"},
		"open.test":   {"TXT v=spf1 ip4:198.51.100.1"},
		"broken.test": {"TXT v=spf1 ip4:1.2.3 -all"},
		"none.test":   {"A 192.0.2.1"},
	}
	type question struct {
		IP   string `json:"ip"`
		From string `json:"from"`
		Helo string `json:"helo"`
	}
	var cases []question
	for _, ip := range []string{"192.0.2.10", "203.0.113.1", "2001:db8::10"} {
		for name := range zone {
			for _, local := range []string{"user", "user+tag", `"odd; one"`} {
				cases = append(cases, question{ip, local + "@" + name, "helo.test"})
			}
		}
	}
	dir := t.TempDir()
	in, err := json.Marshal(map[string]any{"zone": zone, "cases": cases})
	if err != nil {
		t.Fatal(err)
	}
	file, script := filepath.Join(dir, "in.json"), filepath.Join(dir, "received.pl")
	write(t, file, string(in))
	write(t, script, strings.Replace(spfPerl, "->code };", "->received_spf_header };", 1))
	lines := strings.Split(strings.TrimSpace(run(t, dir, "perl", script, file)), "\n")
	if len(lines) != len(cases) {
		t.Fatalf("%d fields for %d cases: %q", len(lines), len(cases), lines)
	}
	t.Logf("%d fields of Mail::SPF, the first: %s", len(lines), lines[0])
	dns := mxtest.NewDNS(zone)
	for i, c := range cases {
		from, err := smtp.ParseAddress(c.From)
		if err != nil {
			t.Fatal(err)
		}
		ours := (&spf.Checker{Resolver: dns, Receiver: "mx.test"}).Check(t.Context(), spf.Source{IP: netip.MustParseAddr(c.IP), Hello: c.Helo, From: from}).Received()
		value, ok := strings.CutPrefix(lines[i], spf.FieldName+":")
		theirs, err := spf.ParseReceived(value)
		if !ok || err != nil {
			t.Errorf("%q: %v", lines[i], err)
			continue
		}
		if theirs.Result != ours.Result || theirs.ClientIP != ours.ClientIP || theirs.EnvelopeFrom != c.From || theirs.Hello != c.Helo || theirs.Identity != spf.MailFrom || theirs.Receiver != "mx.test" ||
			theirs.Mechanism != "" && theirs.Mechanism != "default" && ours.Mechanism == "default" {
			t.Errorf("%q is %+v, ours %+v", lines[i], theirs, ours)
		}
	}
}
