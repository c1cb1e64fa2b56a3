package mxtest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
)

const master = `
$TTL 1h
@	IN SOA ns hostmaster ( 1 3600 600
		86400 60 ) ; over two lines
	IN MX 10 mx
	IN MX 20 mx.other.test.
	300 IN TXT "v=spf1 mx" " -all"
mx	A 192.0.2.1
	AAAA 2001:db8::1
_25._tcp.mx TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
*.wild	CNAME mx
$ORIGIN other.test.
mx	A 192.0.2.2
`

func TestParseZone(t *testing.T) {
	z, err := mxtest.ParseZone(strings.NewReader(master), "example.test")
	if err != nil {
		t.Fatal(err)
	}
	z["broken.example.test"] = []string{"SERVFAIL"}
	z["example.test"] = append(z["example.test"], "SECURE")
	d := mxtest.NewDNS(z)
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if a, err := d.Query(ctx, "example.test", dns.TypeMX); err != nil || len(a.MX) != 2 || a.MX[0].Host != "mx.example.test." || a.MX[1].Host != "mx.other.test." || a.TTL.Hours() != 1 || !a.Secure {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := d.Query(ctx, "example.test", dns.TypeTXT); err != nil || !slices.Equal(a.TXT, []string{"v=spf1 mx -all"}) || a.TTL.Minutes() != 5 {
		t.Errorf("%+v %v", a, err)
	}
	if list, err := d.LookupHost(ctx, "a.wild.example.test"); err != nil || !slices.Equal(list, []string{"192.0.2.1", "2001:db8::1"}) {
		t.Errorf("%v %v", list, err)
	}
	if list, err := d.LookupHost(ctx, "mx.other.test"); err != nil || !slices.Equal(list, []string{"192.0.2.2"}) {
		t.Errorf("%v %v", list, err)
	}
	if a, err := d.Query(ctx, "_25._tcp.mx.example.test", dns.TypeTLSA); err != nil || len(a.TLSA) != 1 {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := d.LookupMX(ctx, "broken.example.test"); !errors.Is(err, resolver.ErrServer) {
		t.Error(err)
	}
}

func TestParseZoneErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a A 192.0.2.1\nb A 1.2.3\n":         "line: 2",
		"a A 192.0.2.1\n\nb MX ten mx\n":     "line: 3",
		"a A 192.0.2.1\n$INCLUDE other\n":    "line: 2",
		"a CH TXT x\n":                       "class CH",
		"a SOA ns host ( 1 2 3 4 5\nb A 1\n": "line: ",
	} {
		if z, err := mxtest.ParseZone(strings.NewReader(text), "test"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", text, z, err)
		}
	}
}

// FuzzParseZone: what a master file gives is a Zone without errors.
func FuzzParseZone(f *testing.F) {
	f.Add(master)
	f.Add("a TXT \"\\200\\\"\" b\n")
	f.Add("$GENERATE 1-3 h$ A 192.0.2.$\n")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 10_000 || strings.Contains(strings.ToUpper(s), "$GENERATE") {
			return // may ask for 65,535 records
		}
		z, err := mxtest.ParseZone(strings.NewReader(s), "example.test")
		if err != nil {
			return
		}
		if err := mxtest.NewDNS(z).Err(); err != nil {
			t.Fatal(err)
		}
	})
}
