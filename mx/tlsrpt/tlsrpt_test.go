package tlsrpt_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/dane"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/tlsrpt"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

func TestParseRecord(t *testing.T) {
	for txt, want := range map[string]string{
		"v=TLSRPTv1;rua=mailto:reports@example.com":                  "mailto:reports@example.com",
		"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt":    "https://reporting.example.com/v1/tlsrpt",
		"v=TLSRPTv1 ; new=x; rua=mailto:a@b.test , https://c.test/;": "mailto:a@b.test https://c.test/",
		"v=TLSRPTv1; rua=mailto:a@b.test; rua=mailto:c@d.test":       "mailto:a@b.test",
		"v=TLSRPTv1; rua=x:y":                                     "x:y",
		"v=TLSRPTv1":                                              "",
		"v=TLSRPTv1;":                                             "",
		"v=TLSRPTv1; rua=":                                        "",
		"v=TLSRPTv1; rua=nowhere":                                 "",
		"v=TLSRPTv1; rua=mailto:a@b.test,":                        "",
		"v=TLSRPTv1; rua=mailto:a b@b.test":                       "",
		"v=TLSRPTv1; rua=mailto:a!b@b.test":                       "",
		"v=TLSRPTv1; rua":                                         "",
		"v=TLSRPTv2; rua=mailto:a@b.test":                         "",
		"rua=mailto:a@b.test; v=TLSRPTv1":                         "",
		"v=TLSRPTv1; rua=" + strings.Repeat("x:y,", 5000) + "z:1": strings.TrimSpace(strings.Repeat("x:y ", 10)),
	} {
		r, err := tlsrpt.ParseRecord(txt)
		if strings.Join(r.RUA, " ") != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, tlsrpt.ErrRecord) {
			t.Errorf("%.60q: %q %v", txt, r.RUA, err)
		}
		if err == nil {
			if again, err := tlsrpt.ParseRecord(r.String()); err != nil || again.String() != r.String() {
				t.Errorf("%s: %v", r, err)
			}
		}
	}
}

// appendixB is the example of RFC 8460, Appendix B, its lines joined.
const appendixB = `{
  "organization-name": "Company-X",
  "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {"policy-type": "sts",
      "policy-string": ["version: STSv1","mode: testing","mx: *.mail.company-y.example","max_age: 86400"],
      "policy-domain": "company-y.example",
      "mx-host": "*.mail.company-y.example"},
    "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
    "failure-details": [{
      "result-type": "certificate-expired",
      "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example",
      "failed-session-count": 100
    }, {
      "result-type": "starttls-not-supported",
      "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example",
      "receiving-ip": "203.0.113.56",
      "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"
    }, {
      "result-type": "validation-failure",
      "sending-mta-ip": "198.51.100.62",
      "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example",
      "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    }]
  }]
}`

func TestReadReport(t *testing.T) {
	rep, err := tlsrpt.ReadReport(strings.NewReader(appendixB))
	if err != nil {
		t.Fatal(err)
	}
	p := rep.Policies[0]
	if p.Policy.MXHost[0] != "*.mail.company-y.example" || p.Summary.Failed != 303 || len(p.Failures) != 3 || p.Failures[2].Reason != "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED" {
		t.Errorf("%+v", rep)
	}
	const want = "2016-04-01, sts, by Company-X: 303 of 5629 sessions to company-y.example failed: certificate-expired 100, starttls-not-supported 200, validation-failure 3\n"
	if s := rep.Summarize(); s != want {
		t.Errorf("%q", s)
	}
	var b bytes.Buffer
	rep.WriteTo(&b)
	again, err := tlsrpt.ReadReport(&b)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(rep) {
		t.Errorf("%v, then %v, %v", rep, again, err)
	}

	for name, text := range map[string]string{
		"empty": "", "text": "hello", "no policies": `{"policies":[]}`, "half": appendixB[:300],
		"negative": strings.Replace(appendixB, "5326", "-1", 1), "text for a number": strings.Replace(appendixB, "5326", `"many"`, 1),
		"backwards": strings.Replace(appendixB, "2016-04-01T23", "2015-04-01T23", 1),
		"deep":      strings.Repeat("[", 100_000), "half gzip": "\x1f\x8b\x08\x00", "no date": strings.Replace(appendixB, "2016-04-01T00:00:00Z", "yesterday", 1),
		"many policies": `{"policies":[{}` + strings.Repeat(",{}", 20_000) + "]}",
	} {
		if _, err := tlsrpt.ReadReport(strings.NewReader(text)); !errors.Is(err, tlsrpt.ErrReport) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A bomb: 2 GB of spaces in 2 MB.
	pr, pw := io.Pipe()
	go func() {
		z := gzip.NewWriter(pw)
		space := bytes.Repeat([]byte(" "), 1<<20)
		for range 2048 {
			if _, err := z.Write(space); err != nil {
				return
			}
		}
		z.Close()
		pw.Close()
	}()
	if _, err := tlsrpt.ReadReport(pr); !errors.Is(err, tlsrpt.ErrReport) || !strings.Contains(err.Error(), "larger") {
		t.Error(err)
	}
	pr.Close()
}

// TestRealReports: what real reporters sent is read.
func TestRealReports(t *testing.T) {
	n := 0
	for _, dir := range []string{"mox-tlsrpt", "tlsrpt"} {
		files, err := filepath.Glob(filepath.Join(conformance.Path(t, "reports", dir), "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var rep *tlsrpt.Report
			if strings.HasSuffix(f, ".json") {
				rep, err = tlsrpt.ReadReport(bytes.NewReader(b))
			} else {
				rep, err = readMail(b)
			}
			if err != nil || rep.Organization == "" || rep.Policies[0].Policy.Domain == "" {
				t.Errorf("%s: %+v %v", f, rep, err)
			}
			n++
		}
	}
	if n < 5 {
		t.Errorf("%d reports", n)
	}
}

func readMail(b []byte) (*tlsrpt.Report, error) {
	r := bytes.NewReader(b)
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		return nil, err
	}
	return tlsrpt.ReadMessage(root, r)
}

func TestOutcomes(t *testing.T) {
	hop := &smtp.Hop{Name: "mx.a.test", TLS: 0x0304}
	sts := &mtasts.Policy{Mode: mtasts.Testing, MX: []string{"mx.a.test", "*.b.test"}, MaxAge: time.Hour}
	tlsa := []mx.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1, 2}}}
	addr := netip.MustParseAddrPort("192.0.2.1:25")
	wrap := func(err error) error { return fmt.Errorf("handshake: %w", err) }
	for _, tt := range []struct {
		a    mx.Attempt
		want string
	}{
		{mx.Attempt{}, ""},
		{mx.Attempt{Err: errors.New("connection refused")}, ""},
		{mx.Attempt{Hop: &smtp.Hop{}}, ""}, // plain text where nothing asks for more
		{mx.Attempt{Hop: hop}, "no-policy-found"},
		{mx.Attempt{Hop: hop, STS: sts}, "sts"},
		{mx.Attempt{Hop: hop, STS: sts, TLSA: tlsa}, "tlsa"},
		{mx.Attempt{Hop: hop, STS: &mtasts.Policy{Mode: mtasts.None}}, "no-policy-found"},
		{mx.Attempt{TLS: wrap(smtpclient.ErrTLSRequired), STS: sts}, "sts starttls-not-supported"},
		{mx.Attempt{TLS: wrap(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}), STS: sts}, "sts certificate-host-mismatch"},
		{mx.Attempt{TLS: wrap(mx.ErrNotInPolicy), STS: sts}, "sts certificate-host-mismatch"},
		{mx.Attempt{TLS: wrap(x509.CertificateInvalidError{Reason: x509.Expired}), STS: sts}, "sts certificate-expired"},
		{mx.Attempt{TLS: wrap(x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}), STS: sts}, "sts certificate-not-trusted"},
		{mx.Attempt{TLS: wrap(x509.UnknownAuthorityError{}), STS: sts}, "sts certificate-not-trusted"},
		{mx.Attempt{TLS: wrap(dane.ErrMismatch), TLSA: tlsa}, "tlsa validation-failure"},
		{mx.Attempt{Hop: hop, TLSA: []mx.TLSA{}}, "tlsa tlsa-invalid"},
		{mx.Attempt{Hop: hop, TLSA: []mx.TLSA{}, STS: sts}, "tlsa tlsa-invalid, sts"},
		{mx.Attempt{Hop: hop, TLSA: []mx.TLSA{}, STS: sts, TLS: wrap(x509.UnknownAuthorityError{})}, "tlsa tlsa-invalid, sts certificate-not-trusted"},
		{mx.Attempt{TLS: wrap(smtpclient.ErrTLSRequired), TLSA: []mx.TLSA{}}, "tlsa starttls-not-supported"},
		{mx.Attempt{TLS: wrap(mx.ErrBogus)}, "no-policy-found dnssec-invalid"},
		{mx.Attempt{TLS: errors.New("remote error: tls: handshake failure")}, "no-policy-found validation-failure"},
		{mx.Attempt{STSErr: &mtasts.Error{Reason: mtasts.Invalid, Err: errors.New("x")}}, "sts sts-policy-invalid only"},
		{mx.Attempt{STSErr: &mtasts.Error{Reason: mtasts.WebPKIInvalid, Err: errors.New("x")}, STS: sts, Hop: hop}, "sts sts-webpki-invalid only, sts"},
		{mx.Attempt{STSErr: &mtasts.Error{Reason: mtasts.FetchFailed, Err: errors.New("x")}, Hop: hop}, "sts sts-policy-fetch-error"},
	} {
		tt.a.Domain, tt.a.Host, tt.a.Addr = "a.test", "mx.a.test", addr
		var got []string
		for _, o := range tlsrpt.Outcomes(tt.a) {
			s := string(o.Policy.Type)
			if o.Failure != nil {
				s += " " + string(o.Failure.Type)
			}
			if o.Only {
				s += " only"
			}
			got = append(got, s)
			if o.Policy.Domain != "a.test" {
				t.Errorf("%+v", o)
			}
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%+v: %q, want %q", tt.a, s, tt.want)
		}
	}
	o := tlsrpt.Outcomes(mx.Attempt{Domain: "a.test", Host: "mx.a.test", Hop: hop, STS: sts})[0]
	if s := strings.Join(o.Policy.String, "|"); s != "version: STSv1|mode: testing|mx: mx.a.test|mx: *.b.test|max_age: 3600" {
		t.Error(s)
	}
}

// A day in the life: outcomes are counted, reported once to who asks, by mail
// or by POST, and forgotten.
func TestReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := mxtest.NewDNS(mxtest.Zone{
			"_smtp._tls.mail.test":   {"TXT v=TLSRPTv1; rua=mailto:tls%2Breports@mail.test"},
			"_smtp._tls.post.test":   {"TXT v=TLSRPTv1; rua=ftp://x/,https://post.test/in"},
			"_smtp._tls.broken.test": {"SERVFAIL"},
			"_smtp._tls.two.test":    {"TXT v=TLSRPTv1; rua=mailto:a@b.test", "TXT v=TLSRPTv1; rua=mailto:c@d.test"},
			"_smtp._tls.down.test":   {"TXT v=TLSRPTv1; rua=https://down.test/"},
		})
		var mu sync.Mutex
		var mails []*mime.Message
		var posts []*tlsrpt.Report
		store := new(tlsrpt.Memory)
		r := &tlsrpt.Reporter{
			Logger: slog.New(slog.DiscardHandler),
			Store:  store, Resolver: dns, Organization: "Käthes Post", Contact: smtp.Address{Local: "tls", Domain: "kaethe.test"},
			Send: func(_ context.Context, m *mime.Message) error {
				mu.Lock()
				defer mu.Unlock()
				mails = append(mails, m)
				return nil
			},
			HTTP: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				status := 201
				if req.URL.Host == "down.test" {
					status = 503
				} else if rep, err := tlsrpt.ReadReport(req.Body); err != nil {
					t.Error(err)
				} else {
					posts = append(posts, rep)
				}
				return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: http.NoBody}, nil
			})},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		day := tlsrpt.Day(time.Now())
		for i := range 10 {
			for _, d := range []string{"mail.test", "post.test", "broken.test", "two.test", "down.test", "silent.test"} {
				a := mx.Attempt{Domain: d, Host: "mx." + d, Hop: &smtp.Hop{TLS: 0x0304}}
				if i%3 == 0 {
					a.TLS = x509.UnknownAuthorityError{}
				}
				if err := store.Add(ctx, time.Now(), tlsrpt.Outcomes(a)...); err != nil {
					t.Error(err)
				}
			}
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		mu.Lock()
		if len(mails)+len(posts) > 0 {
			t.Error("reported before the day was over")
		}
		mu.Unlock()
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if len(mails) != 1 || len(posts) != 1 {
			t.Fatalf("%d mails, %d posts", len(mails), len(posts))
		}
		if d, _ := store.Domains(ctx, day); strings.Join(d, " ") != "broken.test down.test" {
			t.Errorf("left: %v", d)
		}
		p := posts[0].Policies[0]
		if p.Summary != (tlsrpt.Summary{Successful: 6, Failed: 4}) || len(p.Failures) != 1 || p.Failures[0].Sessions != 4 || p.Policy.Domain != "post.test" ||
			!posts[0].DateRange.Start.Equal(day) || !posts[0].DateRange.End.Equal(day.Add(24*time.Hour-time.Second)) {
			t.Errorf("%+v", posts[0])
		}
		var b bytes.Buffer
		if _, err := mails[0].WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		rep, err := readMail(b.Bytes())
		if err != nil || rep.Organization != "Käthes Post" || rep.Contact != "tls@kaethe.test" {
			t.Errorf("%+v %v", rep, err)
		}
		text := strings.ReplaceAll(b.String(), "\r\n ", " ")
		for _, want := range []string{"To: tls+reports@mail.test\r\n", "TLS-Report-Domain: mail.test\r\n", "TLS-Report-Submitter: kaethe.test\r\n",
			"TLS-Required: No\r\n", "Content-Type: multipart/report; report-type=tlsrpt;", "Subject: Report Domain: mail.test Submitter: kaethe.test Report-ID: <", "application/tlsrpt+gzip",
			"filename=\"kaethe.test!mail.test!" + fmt.Sprint(day.Unix())} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if d, _ := store.Days(ctx); len(d) != 0 {
			t.Errorf("not given up: %v", d)
		}
		if len(mails) != 1 || len(posts) != 1 {
			t.Error("reported again")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMemoryBounds(t *testing.T) {
	m := new(tlsrpt.Memory)
	now := time.Now()
	for i := range 5000 {
		m.Add(t.Context(), now, tlsrpt.Outcome{Policy: tlsrpt.Policy{Type: tlsrpt.PolicyNone, Domain: "a.test"},
			Failure: &tlsrpt.Failure{Type: tlsrpt.ValidationFailure, Reason: fmt.Sprint(i)}})
		m.Add(t.Context(), now, tlsrpt.Outcome{Policy: tlsrpt.Policy{Type: tlsrpt.PolicySTS, String: tlsrpt.Strings{fmt.Sprint(i)}, Domain: "a.test"}})
	}
	r, err := m.Results(t.Context(), tlsrpt.Day(now), "a.test")
	if err != nil || len(r) != 100 || len(r[0].Failures) != 1000 || r[0].Summary.Failed != 5000 {
		t.Errorf("%d policies, %d failures, %+v, %v", len(r), len(r[0].Failures), r[0].Summary, err)
	}
}

func FuzzReadReport(f *testing.F) {
	f.Add([]byte(appendixB))
	f.Add([]byte(`{"policies":[{"policy":{"policy-string":["a"],"mx-host":"b"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := tlsrpt.ReadReport(bytes.NewReader(b))
		if err != nil {
			return
		}
		rep.Summarize()
		var out bytes.Buffer
		if _, err := rep.WriteTo(&out); err != nil {
			return // a year that JSON cannot say
		}
		again, err := tlsrpt.ReadReport(&out)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(rep)
		y, _ := json.Marshal(again)
		if !bytes.Equal(x, y) {
			t.Errorf("%s\n%s", x, y)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:a@b.test , https://c.test/;")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := tlsrpt.ParseRecord(s)
		if err != nil {
			return
		}
		if again, err := tlsrpt.ParseRecord(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("%q: %v", r.String(), err)
		}
	})
}

func ExampleReadReport() {
	rep, err := tlsrpt.ReadReport(strings.NewReader(appendixB))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(rep.Summarize())
	// Output: 2016-04-01, sts, by Company-X: 303 of 5629 sessions to company-y.example failed: certificate-expired 100, starttls-not-supported 200, validation-failure 3
}

func BenchmarkAdd(b *testing.B) {
	m := new(tlsrpt.Memory)
	o := tlsrpt.Outcomes(mx.Attempt{Domain: "a.test", Hop: &smtp.Hop{TLS: 0x0304}})
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		m.Add(b.Context(), now, o...)
	}
}

// policies are those of all domains.
type policies struct{ p *mtasts.Policy }

func (p policies) Lookup(context.Context, string) (*mtasts.Policy, error) { return p.p, nil }

// TestTestingMode: while a policy is being tested the mail goes, and the report
// says what would have stopped it (RFC 8460 §4.3.1).
func TestTestingMode(t *testing.T) {
	for want, certify := range map[string]func(ca, other *mxtest.CA) (*tls.Certificate, error){
		"sts": func(ca, _ *mxtest.CA) (*tls.Certificate, error) { return ca.Issue("mx.a.test") },
		"sts certificate-expired": func(ca, _ *mxtest.CA) (*tls.Certificate, error) {
			return ca.IssueFor(time.Now().AddDate(-2, 0, 0), time.Now().AddDate(-1, 0, 0), "mx.a.test")
		},
		"sts certificate-host-mismatch": func(ca, _ *mxtest.CA) (*tls.Certificate, error) { return ca.Issue("mx.b.test") },
		"sts certificate-not-trusted":   func(_, other *mxtest.CA) (*tls.Certificate, error) { return other.Issue("mx.a.test") },
		"sts starttls-not-supported":    nil,
	} {
		w, err := mxtest.NewWorld(map[string][]string{"a.test": {"mx.a.test"}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		other, err := mxtest.NewCA()
		if err != nil {
			t.Fatal(err)
		}
		host := w.Host("mx.a.test")
		if host.STARTTLS = certify != nil; certify != nil {
			if host.Certificate, err = certify(w.CA, other); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		s := &mx.Sender{
			Resolver: w.DNS, Dialer: smtpclient.Dialer{DialContext: w.DialContext, TLS: w.ClientTLS()},
			STS: policies{&mtasts.Policy{Mode: mtasts.Testing, MX: []string{"mx.a.test"}, MaxAge: time.Hour}},
			OnAttempt: func(a mx.Attempt) {
				for _, o := range tlsrpt.Outcomes(a) {
					word := string(o.Policy.Type)
					if o.Failure != nil {
						word += " " + string(o.Failure.Type)
						if o.Failure.ReceivingMX != "mx.a.test" || o.Failure.Reason == "" {
							t.Errorf("%+v", o.Failure)
						}
					}
					got = append(got, word)
				}
			},
		}
		env := &smtp.Envelope{From: smtp.Address{Local: "x", Domain: "b.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "y", Domain: "a.test"}}}}
		if res := s.Deliver(t.Context(), env, strings.NewReader("Subject: x\r\n\r\n")); res[0].Err != nil {
			t.Errorf("%s: %v", want, res[0].Err)
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
