package interop

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	moxdns "github.com/mjl-/mox/dns"
	moxsts "github.com/mjl-/mox/mtasts"
	moxrpt "github.com/mjl-/mox/tlsrpt"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/tlsrpt"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/returnpath"
)

// TestMoxMTASTS: mox fetches the policy that our Handler serves, and each
// reads what the other writes.
func TestMoxMTASTS(t *testing.T) {
	policy := &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.com", "*.example.net"}, MaxAge: 7 * 24 * time.Hour}
	// The certificate of httptest is for *.example.com.
	web := httptest.NewTLSServer(mtasts.Handler(func(_ context.Context, domain string) *mtasts.Policy {
		if domain == "example.com" {
			return policy
		}
		return nil
	}))
	defer web.Close()
	transport := web.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, web.Listener.Addr().String())
	}
	client := &http.Client{Transport: transport}
	c := &mtasts.Client{Resolver: mxtest.NewDNS(mxtest.Zone{"_mta-sts.example.com": {"TXT " + policy.Record().String()}}), HTTP: client}
	if p, err := c.Lookup(t.Context(), "example.com"); err != nil || p.String() != policy.String() {
		t.Errorf("ours: %v %v", p, err)
	}
	moxsts.HTTPClient = client
	p, text, err := moxsts.FetchPolicy(t.Context(), slog.New(slog.DiscardHandler), moxdns.Domain{ASCII: "example.com"})
	if err != nil || string(p.Mode) != "enforce" || len(p.MX) != 2 || p.MaxAgeSeconds != 7*24*3600 || text != policy.String() {
		t.Errorf("mox: %+v %q %v", p, text, err)
	}
	for _, host := range []string{"mx.example.com", "a.example.net", "example.net", "a.b.example.net", "other.test"} {
		if ours, theirs := policy.Match(host), p.Matches(moxdns.Domain{ASCII: host}); ours != theirs {
			t.Errorf("%s: ours %v, mox's %v", host, ours, theirs)
		}
	}
	if p, err := mtasts.ParsePolicy(p.String()); err != nil || p.String() != policy.String() {
		t.Errorf("ours reads mox's: %v %v", p, err)
	}
	rec, is, err := moxsts.ParseRecord(policy.Record().String())
	if err != nil || !is || rec.ID != policy.Record().ID {
		t.Errorf("mox reads our record: %+v %v", rec, err)
	}
	if r, err := mtasts.ParseRecord(rec.String()); err != nil || r.ID != rec.ID {
		t.Errorf("ours reads mox's record: %+v %v", r, err)
	}
}

// TestMoxTLSRPT: mox reads the mail that carries our report, and we read what
// mox makes of it.
func TestMoxTLSRPT(t *testing.T) {
	day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	store := new(tlsrpt.Memory)
	hop := &smtp.Hop{Name: "mx.example.com", TLS: 0x0304}
	sts := &mtasts.Policy{Mode: mtasts.Testing, MX: []string{"mx.example.com"}, MaxAge: time.Hour}
	for _, a := range []mx.Attempt{{Hop: hop, STS: sts}, {Hop: hop, STS: sts}, {Hop: hop, STS: sts, TLS: x509.UnknownAuthorityError{}},
		{Hop: hop, TLSA: []mx.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: bytes.Repeat([]byte{7}, 32)}}}} {
		a.Domain, a.Host = "example.com", "mx.example.com"
		store.Add(t.Context(), day, tlsrpt.Outcomes(a)...)
	}
	results, err := store.Results(t.Context(), day, "example.com")
	if err != nil {
		t.Fatal(err)
	}
	rep := &tlsrpt.Report{Organization: "Example", DateRange: tlsrpt.DateRange{Start: day, End: day.Add(24*time.Hour - time.Second)},
		Contact: "tls@sender.test", ID: "1.example", Policies: results}
	m, err := rep.Message("example.com", smtp.Address{Local: "tls", Domain: "sender.test"}, smtp.Address{Local: "rpt", Domain: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	theirs, err := moxrpt.ParseMessage(slog.New(slog.DiscardHandler), bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatalf("mox: %v\n%s", err, b.String())
	}
	r := theirs.Convert()
	if len(r.Policies) != 2 || r.Policies[0].Summary.TotalSuccessfulSessionCount != 2 || r.Policies[0].Summary.TotalFailureSessionCount != 1 ||
		string(r.Policies[0].FailureDetails[0].ResultType) != "certificate-not-trusted" || string(r.Policies[1].Policy.Type) != "tlsa" || r.ReportID != rep.ID {
		t.Errorf("mox: %+v", r)
	}
	rec, is, err := moxrpt.ParseRecord(tlsrpt.Record{RUA: []string{"mailto:a@example.com", "https://example.com/in"}}.String())
	if err != nil || !is || len(rec.RUAs) == 0 {
		t.Errorf("mox reads our record: %+v %v", rec, err)
	}
	if ours, err := tlsrpt.ParseRecord(rec.String()); err != nil || len(ours.RUA) != 2 {
		t.Errorf("ours reads mox's record: %+v %v", ours, err)
	}
}

// TestMailSRS: perl's Mail::SRS undoes what we make, and we what it makes.
func TestMailSRS(t *testing.T) {
	need(t, "perl")
	s := returnpath.SRS{Domain: "fwd.test", Secrets: [][]byte{[]byte("s3cret")}}
	now := time.Now()
	perl := func(method string, args ...string) string {
		script := `use Mail::SRS; my $s = new Mail::SRS(Secret => "s3cret", Separator => "="); print $s->` + method + `(@ARGV);`
		out, err := exec.Command("perl", append([]string{"-e", script}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("Mail::SRS: %v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, text := range []string{"ann@example.org", "a.b+c@sub.example.org", "x=y@example.org", "SRS0=AAAA=BB=x.test=ann@other.test", "SRS1=AAAA=first.test==BBBB=CC=x.test=ann@other.test"} {
		a, err := smtp.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := s.Forward(a, now)
		if err != nil {
			t.Fatal(err)
		}
		theirs := perl("forward", text, "fwd.test")
		if ours.String() != theirs {
			t.Errorf("%s: ours %s, theirs %s", text, ours, theirs)
		}
		back, err := s.Reverse(ours, now)
		if want := perl("reverse", theirs); err != nil || back.String() != want {
			t.Errorf("%s: ours %s %v, theirs %s", theirs, back, err, want)
		}
	}
}
