package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"
	moxreport "github.com/mjl-/mox/dmarcrpt"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// cases are the verification matrix: what we and go-msgauth are both asked.
type dkimCase struct {
	ID     string
	File   string
	DNS    map[string]string
	Expect []string
	Clock  int64
}

type table map[string]string

func (t table) LookupTXT(_ context.Context, name string) ([]string, error) {
	switch txt, ok := t[strings.TrimSuffix(name, ".")]; {
	case !ok || txt == "NXDOMAIN":
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	case txt == "SERVFAIL":
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	default:
		return []string{txt}, nil
	}
}

// TestGoMsgauth asks go-msgauth and us about the whole matrix: where
// go-msgauth is right, we must be.
func TestGoMsgauth(t *testing.T) {
	b, err := os.ReadFile(conformance.Path(t, "dkim", "matrix", "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []dkimCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	right, theirs, same := 0, 0, 0
	var differ []string
	for _, c := range cases {
		msg, err := os.ReadFile(conformance.Path(t, "dkim", "matrix", c.File))
		if err != nil {
			t.Fatal(err)
		}
		a, b := ourResult(t, msg, c), msgauthResult(msg, c)
		if a == b || a != "pass" && b != "pass" {
			same++
		}
		ourRight, theirRight := slices.Contains(c.Expect, a), slices.Contains(c.Expect, b)
		if ourRight {
			right++
		}
		if theirRight {
			theirs++
			if !ourRight {
				t.Errorf("%s: %s, go-msgauth says %s, expected %s", c.ID, a, b, c.Expect)
			}
		}
		if (a == "pass") != (b == "pass") {
			differ = append(differ, c.ID+": "+a+", go-msgauth "+b+", expected "+strings.Join(c.Expect, " or "))
		}
	}
	t.Logf("of %d cases %d are right here and %d in go-msgauth; %d agree about pass. The others:\n%s", len(cases), right, theirs, same, strings.Join(differ, "\n"))
	if len(cases) < 100 || same < len(cases)*3/4 {
		t.Errorf("%d cases, %d agree", len(cases), same)
	}
}

// TestGoMsgauthSigns has each of us verify what the other signs: both kinds of
// keys, all canonicalizations, and messages with all that is odd.
func TestGoMsgauthSigns(t *testing.T) {
	w, err := newAuthWorld()
	if err != nil {
		t.Fatal(err)
	}
	const header = "From: Alice <alice@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: s\r\n"
	long := strings.Repeat("word ", 3000)
	messages := map[string]string{
		"plain":               header + "\r\nHello\r\n",
		"odd folding":         "FROM : Alice\r\n\t \t<alice@example.org>\r\nSubject:\r\n  a \t b\r\n\tc\r\nTo:bob@example.net\r\nX-Empty:\r\n\r\nHello\r\n",
		"empty body":          header + "\r\n",
		"empty lines":         header + "\r\n\r\n\r\n\r\n",
		"lines at the end":    header + "\r\na\r\n\r\n\r\n",
		"trailing space":      header + "\r\na \t\r\n \r\nb\t\r\n\t\r\n\r\n",
		"space inside":        header + "\r\n a  b\t\tc\r\n",
		"long lines":          header + "X-Long: " + long + "\r\n\r\n" + long + "\r\n" + long + "x\r\n",
		"8 bit":               header + "Content-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe \xff\xfe\r\n",
		"8 bit header":        header + "Comments: Gr\xc3\xbc\xc3\x9fe\r\n\r\nx\r\n",
		"no final CRLF":       header + "\r\nHello",
		"several of a name":   header + "Received: one\r\nReceived: two\r\nCc: a@example.net\r\nReceived: three\r\n\r\nHello\r\n",
		"signature-like body": header + "\r\nDKIM-Signature: v=1\r\n.\r\n..\r\n",
	}
	both := []dkim.Canonicalization{dkim.Simple, dkim.Relaxed}
	pairs := 0
	for name, msg := range messages {
		for _, k := range w.keys {
			for _, head := range both {
				for _, body := range both {
					what := name + ", " + k.name + ", " + string(head) + "/" + string(body)
					s, err := dkim.NewSigner(dkim.SignOptions{Domain: "example.org", Selector: k.selector, Key: k.key, Header: head, Body: body})
					if err != nil {
						t.Fatal(err)
					}
					s.Write([]byte(msg))
					field, err := s.Signature()
					if err != nil {
						t.Errorf("%s: %v", what, err)
						continue
					}
					pairs++
					if err := w.msgauthVerify([]byte(field + msg)); err != nil {
						t.Errorf("%s: go-msgauth says of ours: %v", what, err)
					}
					var theirs bytes.Buffer
					err = msgauth.Sign(&theirs, strings.NewReader(msg), &msgauth.SignOptions{Domain: "example.org", Selector: k.selector, Signer: k.key, Hash: crypto.SHA256,
						HeaderCanonicalization: msgauth.Canonicalization(head), BodyCanonicalization: msgauth.Canonicalization(body)})
					if err != nil {
						t.Errorf("%s: go-msgauth signs: %v", what, err)
						continue
					}
					if err := w.verify(theirs.Bytes()); err != nil {
						t.Errorf("%s: we say of go-msgauth's: %v\n%q", what, err, theirs.String())
					}
				}
			}
		}
	}
	t.Logf("%d signatures of each side verified by the other", pairs)
}

func ourResult(t *testing.T, msg []byte, c dkimCase) string {
	v := &dkim.Verifier{Resolver: table(c.DNS)}
	if c.Clock != 0 {
		v.Now = func() time.Time { return time.Unix(c.Clock, 0) }
	}
	p := v.Begin(t.Context())
	defer p.Close()
	p.Write(msg)
	results, err := p.Results()
	if err != nil || len(results) == 0 {
		return "none"
	}
	for i := range results {
		if results[i].Result == "pass" {
			return "pass"
		}
	}
	return string(results[0].Result)
}

func msgauthResult(msg []byte, c dkimCase) string {
	results, err := msgauth.VerifyWithOptions(bytes.NewReader(msg), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		return table(c.DNS).LookupTXT(context.Background(), name)
	}})
	if err != nil && !errors.Is(err, msgauth.ErrTooManySignatures) {
		return "permerror"
	}
	if len(results) == 0 {
		return "none"
	}
	for _, r := range results {
		if r.Err == nil {
			return "pass"
		}
	}
	switch e := results[0].Err; {
	case msgauth.IsTempFail(e):
		return "temperror"
	case msgauth.IsPermFail(e):
		return "permerror"
	}
	return "fail"
}

// TestReportForMox lets mox read a report that we made, as mail.
func TestReportForMox(t *testing.T) {
	r := &dmarcreport.Report{Organization: "mx.example.net", Email: "d@mx.example.net", ID: "1-example.org@mx.example.net",
		Begin: time.Unix(1777852800, 0), End: time.Unix(1777939199, 0),
		Policy: dmarcreport.Published{Domain: "example.org", Policy: "reject", Subdomain: "none", DKIM: "r", SPF: "s", Method: "treewalk"},
		Records: []dmarcreport.Record{{Source: netip.MustParseAddr("2001:db8::1"), Count: 7, Disposition: "quarantine", DKIM: "fail", SPF: "pass", HeaderFrom: "example.org",
			EnvelopeFrom: "b.example.org", Reasons: []dmarcreport.Reason{{Type: dmarcreport.Other, Comment: "<&>"}},
			Signatures: []dmarcreport.Signature{{Domain: "example.org", Selector: "s", Result: "fail", Comment: "c"}},
			Hosts:      []dmarcreport.Host{{Domain: "b.example.org", Scope: "mfrom", Result: "pass"}}}}}
	from := mime.Address{Address: smtp.Address{Local: "d", Domain: "mx.example.net"}}
	m, err := r.Message("mx.example.net", "", from, mime.Address{Address: smtp.Address{Local: "r", Domain: "example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := m.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	f, err := moxreport.ParseMessageReport(quiet, bytes.NewReader(text.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if f.ReportMetadata.ReportID != r.ID || f.ReportMetadata.DateRange.End != 1777939199 || f.PolicyPublished.Domain != "example.org" || f.PolicyPublished.Policy != "reject" ||
		len(f.Records) != 1 || f.Records[0].Row.Count != 7 || f.Records[0].Row.SourceIP != "2001:db8::1" || f.Records[0].Row.PolicyEvaluated.Reasons[0].Comment != "<&>" ||
		f.Records[0].AuthResults.DKIM[0].Selector != "s" || f.Records[0].Identifiers.EnvelopeFrom != "b.example.org" {
		t.Errorf("mox reads %+v", f)
	}
}
