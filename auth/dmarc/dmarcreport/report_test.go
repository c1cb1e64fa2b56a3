package dmarcreport

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// zone answers TXT lookups. "*." names are wildcards, the text SERVFAIL is a
// failure.
type zone map[string]string

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	name = strings.TrimSuffix(name, ".")
	txt, ok := z[name]
	for up := name; !ok && up != ""; {
		_, up, _ = strings.Cut(up, ".")
		txt, ok = z["*."+up]
	}
	switch {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	case txt == "SERVFAIL":
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	return []string{txt}, nil
}

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func evaluate(t testing.TB, z zone, author string, ids dmarc.Identifiers) *dmarc.Evaluation {
	t.Helper()
	ev := (&dmarc.Evaluator{Resolver: z}).Evaluate(t.Context(), author, ids)
	if ev.Record == nil {
		t.Fatalf("no record for %s: %v", author, ev)
	}
	return ev
}

func pass(d string) dmarc.Identifier { return dmarc.Identifier{Result: auth.Pass, Domain: d} }

// outbox takes mails.
type outbox struct {
	mu    sync.Mutex
	mails []*mime.Message
	fail  error
}

func (o *outbox) send(_ context.Context, m *mime.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	o.mails = append(o.mails, m)
	return nil
}

func raw(t testing.TB, m *mime.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var reporter = mime.Address{Address: smtp.Address{Local: "dmarc", Domain: "mx.example.net"}}

// TestCollectAndSend goes from the results of messages to mails that are read
// back.
func TestCollectAndSend(t *testing.T) {
	z := zone{
		"_dmarc.example.org":                       "v=DMARC1; p=reject; sp=quarantine; fo=1; rua=mailto:r@example.org!10m,mailto:x@third.example,https://example.org/",
		"example.org._report._dmarc.third.example": "v=DMARC1; rua=mailto:other@third.example",
		"_dmarc.quiet.example":                     "v=DMARC1; p=reject",
		"_dmarc.testing.example":                   "v=DMARC1; p=reject; t=y; rua=mailto:r@testing.example",
		"_dmarc.broken.example":                    "v=DMARC1; rua=mailto:r@broken.example",
		"_dmarc.foreign.example":                   "v=DMARC1; p=none; rua=mailto:victim@example.com",
	}
	storage := new(Memory)
	c := &Collector{Storage: storage}
	ip := netip.MustParseAddr("192.0.2.1")
	add := func(m Message) {
		t.Helper()
		if !m.IP.IsValid() {
			m.IP = ip
		}
		m.Time = noon
		if err := c.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	good := Message{
		DMARC: evaluate(t, z, "example.org", dmarc.Identifiers{SPF: pass("example.org"), DKIM: []dmarc.Identifier{pass("example.org")}}),
		SPF:   &spf.Evaluation{Result: auth.Pass, Identity: spf.MailFrom, Domain: "bounce.example.org"},
		DKIM: []dkim.Verification{
			{Result: auth.Fail, Err: dkim.ErrBodyHash, Signature: &dkim.Signature{Domain: "list.example", Selector: "l"}},
			{Result: auth.PermError, Err: dkim.ErrSyntax, Signature: &dkim.Signature{}},
			{Result: auth.Pass, Signature: &dkim.Signature{Domain: "example.org", Selector: "s"}},
		},
	}
	for range 3 {
		add(good)
	}
	add(Message{DMARC: evaluate(t, z, "sub.example.org", dmarc.Identifiers{}), IP: netip.MustParseAddr("::ffff:198.51.100.7"),
		SPF: &spf.Evaluation{Result: auth.Fail, Identity: spf.Hello, Domain: "helo.example"}})
	add(Message{DMARC: evaluate(t, z, "example.org", dmarc.Identifiers{}), Applied: dmarc.NoPolicy, EnvelopeTo: "example.net"})
	add(Message{DMARC: evaluate(t, z, "example.org", dmarc.Identifiers{}), Applied: dmarc.NoPolicy, EnvelopeTo: "example.net",
		Reasons: []Reason{{MailingList, "looks like <list@example.com> & friends"}}})
	add(Message{DMARC: evaluate(t, z, "quiet.example", dmarc.Identifiers{})})
	add(Message{DMARC: evaluate(t, z, "testing.example", dmarc.Identifiers{})})
	add(Message{DMARC: evaluate(t, z, "broken.example", dmarc.Identifiers{})})
	add(Message{DMARC: evaluate(t, z, "foreign.example", dmarc.Identifiers{})})

	box := new(outbox)
	s := &Sender{Storage: storage, Submitter: "mx.example.net", From: reporter, Send: box.send,
		Evaluator: &dmarc.Evaluator{Resolver: z}, Contact: "https://mx.example.net/"}
	midnight := time.Date(2026, 5, 5, 0, 0, 0, 0, time.UTC)
	if n, err := s.SendDue(t.Context(), midnight.Add(9*time.Minute)); n != 0 || err != nil {
		t.Fatalf("%d reports before their time, %v", n, err)
	}
	n, err := s.SendDue(t.Context(), midnight.Add(10*time.Minute))
	if n != 4 || err != nil || len(box.mails) != 4 {
		t.Fatalf("%d reports, %v", n, err)
	}
	if again, err := s.SendDue(t.Context(), midnight.Add(time.Hour)); again != 0 || err != nil {
		t.Fatalf("%d reports again, %v", again, err)
	}
	byTo := map[string]*Report{}
	for _, m := range box.mails {
		text := raw(t, m)
		r, err := ReadMessage(bytes.NewReader(text), int64(len(text)), Limits{})
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if len(r.Defects) > 0 {
			t.Errorf("%v: defects %q", m.To, r.Defects)
		}
		if want := fmt.Sprintf("Report Domain: %s Submitter: mx.example.net Report-ID: <%s>", r.Policy.Domain, r.ID); m.Subject != want {
			t.Errorf("subject %q", m.Subject)
		}
		if want := "mx.example.net!" + r.Policy.Domain + "!1777852800!1777939199.xml.gz"; m.Attachments[0].Name != want {
			t.Errorf("file %q, want %q", m.Attachments[0].Name, want)
		}
		byTo[m.To[0].Address.String()] = r
	}
	if byTo["r@example.org"] == nil || byTo["other@third.example"] == nil || byTo["r@testing.example"] == nil || byTo["r@broken.example"] == nil {
		t.Fatalf("sent to %v", byTo)
	}
	want := `"mx.example.net" "dmarc@mx.example.net" "https://mx.example.net/" "1777852800-example.org@mx.example.net" 1777852800 1777939199 []
example.org r r reject quarantine false "1"
192.0.2.1 3 pass pass pass
example.org bounce.example.org 
dkim example.org s pass ""
dkim list.example l fail "body hash did not verify"
spf bounce.example.org mfrom pass ""
192.0.2.1 1 none fail fail localpolicy ""
example.org  example.net
192.0.2.1 1 none fail fail mailinglist "looks like <list@example.com> & friends"
example.org  example.net
198.51.100.7 1 quarantine fail fail
sub.example.org  
spf helo.example  fail ""
`
	if got := lines(byTo["r@example.org"]); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if r := byTo["r@testing.example"].Records[0]; r.Disposition != "quarantine" || len(r.Reasons) != 1 || r.Reasons[0].Type != TestMode {
		t.Errorf("testing: %+v", r)
	}
	if r := byTo["r@broken.example"]; len(r.Errors) != 1 || r.Policy.Policy != dmarc.NoPolicy {
		t.Errorf("broken: %+v", r)
	}
}

// TestRetry: what could not be sent is kept, and given up at last.
func TestRetry(t *testing.T) {
	z := zone{"_dmarc.example.org": "v=DMARC1; p=none; rua=mailto:r@example.org,mailto:x@down.example", "_dmarc.down.example": "SERVFAIL"}
	m := new(Memory)
	c := &Collector{Storage: m, Period: time.Hour}
	if err := c.Add(t.Context(), Message{Time: noon, IP: netip.MustParseAddr("192.0.2.1"), DMARC: evaluate(t, z, "example.org", dmarc.Identifiers{})}); err != nil {
		t.Fatal(err)
	}
	box := &outbox{fail: errors.New("queue is full")}
	s := &Sender{Storage: m, Submitter: "mx.example.net", From: reporter, Send: box.send, Evaluator: &dmarc.Evaluator{Resolver: z}, Delay: -1,
		Logger: slog.New(slog.DiscardHandler)}
	n, err := s.SendDue(t.Context(), noon.Add(time.Hour))
	if n != 0 || !errors.Is(err, box.fail) || !errors.Is(err, dmarc.ErrLookup) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.SendDue(t.Context(), noon.Add(72*time.Hour)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	// Once it has reached somebody it is done with, whatever the others do.
	box.fail = nil
	if n, err := s.SendDue(t.Context(), noon.Add(72*time.Hour)); n != 1 || !errors.Is(err, dmarc.ErrLookup) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.SendDue(t.Context(), noon.Add(72*time.Hour)); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	// It is given up at last.
	box.fail = errors.New("queue is full")
	if err := c.Add(t.Context(), Message{Time: noon, IP: netip.MustParseAddr("192.0.2.1"), DMARC: evaluate(t, z, "example.org", dmarc.Identifiers{})}); err != nil {
		t.Fatal(err)
	}
	for i, at := range []time.Duration{72 * time.Hour, 73 * time.Hour} {
		if n, err := s.SendDue(t.Context(), noon.Add(at)); n != 0 || !errors.Is(err, box.fail) {
			t.Errorf("%d, %v", n, err)
		}
		if due, _ := m.Due(t.Context(), noon.Add(at)); len(due) != 1-i {
			t.Errorf("after %v: %v", at, due)
		}
	}
	if _, err := (&Sender{Storage: m}).SendDue(t.Context(), noon); !errors.Is(err, ErrSender) {
		t.Error(err)
	}
}

// TestSplit: a report too large for one mail is sent as several, and no record
// is lost or doubled.
func TestSplit(t *testing.T) {
	z := zone{"_dmarc.example.org": "v=DMARC1; p=none; rua=mailto:r@example.org"}
	m := new(Memory)
	c := &Collector{Storage: m}
	const records = 3000
	ev := evaluate(t, z, "example.org", dmarc.Identifiers{})
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range records {
		ip := netip.AddrFrom4([4]byte{10, byte(rnd.Uint32()), byte(i >> 8), byte(i)})
		if err := c.Add(t.Context(), Message{Time: noon, IP: ip, DMARC: ev}); err != nil {
			t.Fatal(err)
		}
	}
	box := new(outbox)
	s := &Sender{Storage: m, Submitter: "mx.example.net", From: reporter, Send: box.send, Evaluator: &dmarc.Evaluator{Resolver: z}, MaxSize: 16 << 10}
	n, err := s.SendDue(t.Context(), noon.Add(24*time.Hour))
	if err != nil || n < 2 {
		t.Fatalf("%d, %v", n, err)
	}
	seen := map[netip.Addr]bool{}
	ids, names := map[string]bool{}, map[string]bool{}
	for _, m := range box.mails {
		if size, err := m.Size(); err != nil || size > 16<<10 {
			t.Errorf("%d octets, %v", size, err)
		}
		text := raw(t, m)
		r, err := ReadMessage(bytes.NewReader(text), int64(len(text)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		ids[r.ID], names[m.Attachments[0].Name] = true, true
		for _, rec := range r.Records {
			seen[rec.Source] = true
		}
	}
	if len(seen) != records || len(ids) != n || len(names) != n {
		t.Errorf("%d sources in %d reports with %d IDs and %d names", len(seen), n, len(ids), len(names))
	}
}

func TestMemoryLimit(t *testing.T) {
	m := &Memory{MaxRecords: 2}
	k := Key{Domain: "example.org", Begin: noon, End: noon.Add(time.Hour)}
	for i, want := range []error{nil, nil, ErrFull, nil} {
		if i == 3 {
			if err := m.Remove(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Add(t.Context(), k, Target{}, Record{Count: 1, HeaderFrom: fmt.Sprint(i)}); !errors.Is(err, want) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := m.Add(t.Context(), k, Target{}, Record{Count: 4, HeaderFrom: "3"}); err != nil {
		t.Error(err)
	}
	if _, records, _ := m.Load(t.Context(), k); len(records) != 1 || records[0].Count != 5 {
		t.Errorf("%+v", records)
	}
}

func gz(t testing.TB, r io.Reader) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

// spaces is an endless source of blanks.
type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

const minimal = "<feedback><report_metadata><report_id>1</report_id></report_metadata><policy_published><domain>example.org</domain></policy_published>"

// TestHostile: bombs and tricks end in an error or in text, at a bounded cost.
func TestHostile(t *testing.T) {
	l := Limits{Packed: 1 << 20, Size: 2 << 20, Records: 1000}
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	for i := range 3 {
		w, err := z.Create(fmt.Sprint(i, ".xml"))
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(w, spaces{}, 1<<20)
	}
	z.Close()
	bomb := gz(t, io.LimitReader(spaces{}, 3<<20))
	lol := "<!DOCTYPE feedback [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY x SYSTEM \"file:///etc/passwd\">]>"
	record := "<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>"
	for name, c := range map[string]struct {
		in  []byte
		err error
	}{
		"gzip bomb":             {bomb, ErrLimit},
		"zip bomb":              {zipped.Bytes(), ErrLimit},
		"gzip in gzip bomb":     {gz(t, bytes.NewReader(bomb)), ErrLimit},
		"packed for ever":       {gz(t, bytes.NewReader(gz(t, bytes.NewReader(gz(t, strings.NewReader(minimal)))))), ErrFormat},
		"deep":                  {[]byte(minimal + strings.Repeat("<a>", 1e5)), ErrLimit},
		"deep outside":          {[]byte(strings.Repeat("<a>", 1e5)), ErrLimit},
		"many records":          {[]byte(minimal + strings.Repeat(record, 1001) + "</feedback>"), ErrLimit},
		"larger than it may be": {bytes.Repeat([]byte(" "), 2<<20), ErrLimit},
		"no report":             {[]byte("<html><body>Hello</body></html>"), ErrFormat},
		"nothing":               {nil, ErrFormat},
		"text":                  {[]byte("Hello"), ErrFormat},
		"empty root":            {[]byte("<feedback/>"), ErrFormat},
		"half a gzip":           {gz(t, strings.NewReader(minimal))[:12], ErrFormat},
		"broken zip":            {zipped.Bytes()[:2000], ErrFormat},
		"many attributes":       {[]byte("<feedback " + strings.Repeat("a='b' ", 1e4) + ">"), ErrFormat},
	} {
		if r, err := Read(bytes.NewReader(c.in), l); !errors.Is(err, c.err) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l := (Limits{Size: -1}).or(); l.Packed != 16<<20 || l.Size != 1<<40 || l.Records != 100_000 {
		t.Errorf("limits %+v", l)
	}
	r, err := Read(strings.NewReader(lol+minimal+"<record><identifiers><header_from>&b;&x;&amp;&#65;</header_from></identifiers></record></feedback>"), Limits{})
	if err != nil || len(r.Records) != 1 || r.Records[0].HeaderFrom != "&b;&x;&a" {
		t.Errorf("entities: %+v, %v", r, err)
	}
	long := minimal + "<record><identifiers><header_from>" + strings.Repeat("x", 1<<20) + "</header_from></identifiers></record></feedback>"
	if r, err := Read(strings.NewReader(long), Limits{}); err != nil || len(r.Records[0].HeaderFrom) > maxValue {
		t.Errorf("long value: %v", err)
	}
	many := minimal + "<record><auth_results>" + strings.Repeat("<dkim><domain>x</domain></dkim>", 5000) + "</auth_results></record></feedback>"
	if r, err := Read(strings.NewReader(many), Limits{}); err != nil || len(r.Records[0].Signatures) > maxList {
		t.Errorf("many signatures: %v", err)
	}
}

// TestLenient reads what real reporters get wrong.
func TestLenient(t *testing.T) {
	head := "<report_metadata><org_name>AT&T <x@example.org> & \"Co\"</org_name><date_range><begin>1700000000000</begin><end>1700086399.5</end></date_range></report_metadata>" +
		"<policy_published><domain>Example.ORG.</domain><p>Reject</p></policy_published>"
	row := "<record><row><source_ip>[2001:db8::1]</source_ip><count>2</count><policy_evaluated><disposition>none</disposition><dkim>Pass</dkim></policy_evaluated></row></record>"
	for name, text := range map[string]string{
		"plain":            "<feedback>" + head + row + "</feedback>",
		"namespace":        "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\" xmlns:e=\"x:y\">" + head + "<extension><e:policy_published><domain>evil</domain></e:policy_published></extension>" + row + "</feedback>",
		"prefix":           "<d:feedback xmlns:d=\"http://dmarc.org/dmarc-xml/0.1\">" + head + row + "</d:feedback>",
		"cut":              "<feedback>" + head + row,
		"BOM":              "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><feedback>" + head + row + "</feedback>",
		"Latin-1":          "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><feedback>" + head + row + "</feedback>",
		"no charset":       "<?xml version=\"1.0\" encoding=\"x-unknown\"?><feedback>" + head + row + "</feedback>",
		"something before": "<?xml version=\"1.0\"?><x:y xmlns:x=\"z\">\n<feedback>" + head + row + "</feedback>",
	} {
		r, err := Read(strings.NewReader(text), Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Organization != "AT&T <x@example.org> & \"Co\"" || r.Policy.Domain != "example.org" || r.Policy.Policy != dmarc.Reject ||
			r.Begin.Unix() != 1700000000 || r.End.Unix() != 1700086399 || len(r.Records) != 1 || r.Records[0].Count != 2 ||
			r.Records[0].Source.String() != "2001:db8::1" || r.Records[0].DKIM != auth.Pass || r.Records[0].SPF != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(minimal + "<record><row><source_ip>192.0.2.1</source_ip><count>1</count><policy_evaluated><reason/></policy_evaluated></row></record></feedback>"))
	f.Add([]byte("<feedback>&b;<x@y></feedback>"))
	f.Add(gz(f, strings.NewReader(minimal)))
	l := Limits{Packed: 1 << 16, Size: 1 << 18, Records: 100}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(bytes.NewReader(b), l)
		if err != nil {
			if r != nil || !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrNoReport) {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		var out bytes.Buffer
		if err := r.WriteXML(&out); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&out, Limits{})
		if err != nil {
			t.Fatalf("not read again: %v", err)
		}
		if len(again.Records) != len(r.Records) {
			t.Fatalf("%d records, then %d", len(r.Records), len(again.Records))
		}
		s := Summarize([]*Report{r})
		if err := s.WriteText(io.Discard); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteHTML(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}
