package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const report = `<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0"><report_metadata><org_name>mx.example.net</org_name><email>d@mx.example.net</email><report_id>1</report_id>
<date_range><begin>1777852800</begin><end>1777939199</end></date_range></report_metadata>
<policy_published><domain>example.org</domain><p>none</p></policy_published>
<record><row><source_ip>192.0.2.9</source_ip><count>12</count><policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
<identifiers><header_from>example.org</header_from></identifiers>
<auth_results><spf><domain>bounce.shop.example</domain><result>pass</result></spf></auth_results></record></feedback>`

func TestRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.xml":   report,
		"b.eml":   "From: d@mx.example.net\r\nSubject: Report Domain: example.org\r\nContent-Type: text/xml\r\n\r\n" + strings.Replace(report, "<report_id>1", "<report_id>2", 1),
		"bad.xml": "no report",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page := filepath.Join(t.TempDir(), "page.html")
	var out, warn bytes.Buffer
	if err := run(t.Context(), &out, &warn, page, "", []string{dir}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "bounce.shop.example  24 ") || strings.Count(warn.String(), "\n") != 1 || !strings.Contains(warn.String(), "bad.xml") {
		t.Errorf("%s\n%s", out.String(), warn.String())
	}
	if b, err := os.ReadFile(page); err != nil || !bytes.Contains(b, []byte("<svg")) {
		t.Errorf("no page: %v", err)
	}
}

type one string

func (o one) LookupTXT(context.Context, string) ([]string, error) {
	return []string{"something else", string(o)}, nil
}

func TestLint(t *testing.T) {
	var out bytes.Buffer
	if err := lint(t.Context(), &out, "example.org", one("v=DMARC1; p=reject; pct=0; rua=r@example.org")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "advice: pct: ") || !strings.Contains(out.String(), "wrong: rua: ") {
		t.Error(out.String())
	}
}
