package interop

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// TestDMARCSchema validates reports, made from the results of messages, against
// the schema that RFC 9990 prints (Appendix A).
func TestDMARCSchema(t *testing.T) {
	need(t, "xmllint")
	dir := t.TempDir()
	schema, err := filepath.Abs(filepath.Join("testdata", "rfc9990.xsd"))
	if err != nil {
		t.Fatal(err)
	}
	validate := func(name, xml string) error {
		file := filepath.Join(dir, name)
		write(t, file, xml)
		_, err := try(t, dir, "xmllint", "--noout", "--nonet", "--schema", schema, file)
		return err
	}
	s := &dmarcreport.Sender{Submitter: "mx.example.net", From: mime.Address{Address: smtp.Address{Local: "d", Domain: "mx.example.net"}}, Contact: "https://mx.example.net/?a=1&b=<2>"}
	results := []auth.Result{auth.None, auth.Neutral, auth.Pass, auth.Fail, auth.SoftFail, auth.TempError, auth.PermError}
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	for name, policy := range map[string]string{
		"plain":  "v=DMARC1; p=reject; rua=mailto:r@example.org",
		"full":   "v=DMARC1; p=quarantine; sp=none; np=reject; adkim=s; aspf=s; t=y; psd=n; fo=1:d:s; rua=mailto:r@example.org; ruf=mailto:f@example.org",
		"broken": "v=DMARC1; sp=x; rua=mailto:r@example.org",
	} {
		e := &dmarc.Evaluator{Resolver: txtRecords{"_dmarc.example.org": policy}}
		storage := new(dmarcreport.Memory)
		c := &dmarcreport.Collector{Storage: storage}
		for i, r := range results {
			for _, aligned := range []string{"example.org", "other.example"} {
				dk := r
				if dk == auth.SoftFail {
					dk = auth.Policy // SPF alone has softfail, DKIM alone policy
				}
				ev := e.Evaluate(t.Context(), "example.org", dmarc.Identifiers{SPF: dmarc.Identifier{Result: r, Domain: aligned}, DKIM: []dmarc.Identifier{{Result: dk, Domain: aligned}}})
				m := dmarcreport.Message{Time: begin.Add(time.Hour), DMARC: ev, IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), EnvelopeTo: "example.net",
					SPF: &spf.Evaluation{Result: r, Identity: spf.MailFrom, Domain: aligned}}
				if i%2 == 1 {
					m.IP, m.Applied = netip.MustParseAddr("2001:db8::1"), dmarc.NoPolicy
					m.Reasons = []dmarcreport.Reason{{Type: dmarcreport.TrustedForwarder, Comment: "a <b> & \"c\" \x01 \u00fc"}}
				}
				m.DKIM = []dkim.Verification{{Result: dk, Signature: &dkim.Signature{Domain: aligned, Selector: "s"}}}
				if err := c.Add(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
		}
		keys, err := storage.Due(t.Context(), begin.AddDate(0, 0, 1))
		if err != nil || len(keys) != 1 {
			t.Fatalf("%v, %v", keys, err)
		}
		target, records, err := storage.Load(t.Context(), keys[0])
		if err != nil {
			t.Fatal(err)
		}
		var xml bytes.Buffer
		if err := s.Report(keys[0], target, records).WriteXML(&xml); err != nil {
			t.Fatal(err)
		}
		if err := validate(name+".xml", xml.String()); err != nil {
			out, _ := try(t, dir, "xmllint", "--noout", "--nonet", "--schema", schema, filepath.Join(dir, name+".xml"))
			t.Errorf("%s, %d records: %v\n%s", name, len(records), err, tail(out, 3000))
		}
		// The schema must be able to say no.
		if validate("bad.xml", string(bytes.Replace(xml.Bytes(), []byte("<org_name>"), []byte("<org_nome>"), 1))) == nil ||
			validate("bad.xml", string(bytes.Replace(xml.Bytes(), []byte("<disposition>"), []byte("<disposition>x"), 1))) == nil {
			t.Error("the schema takes anything")
		}
		t.Logf("conformance: %s: %d records are valid by RFC 9990's schema", name, len(records))
	}
}
