package spf

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

func TestReceived(t *testing.T) {
	z := records{"example.org": txt("v=spf1 ip4:192.0.2.0/28 ~ip6:2001:db8::/32 ?ip4:198.51.100.1 include:slow.example -all"), "mail.example.org": txt("v=spf1"),
		"slow.example": {timeout: true}, "bad.example": txt("v=spf1 ipv4:1.2.3.4")}
	c := &Checker{Resolver: z, Receiver: "mx.example.net"}
	bad, none, null := source("192.0.2.1"), source("192.0.2.1"), source("192.0.2.1")
	bad.From = smtp.Address{Local: "a b", Domain: "bad.example"}
	none.From.Domain = "none.example"
	null.From = smtp.Address{}
	for _, x := range []struct {
		source Source
		want   string
	}{
		{source("::ffff:192.0.2.1"), "Received-SPF: pass (mx.example.net: domain of a@example.org designates\n 192.0.2.1 as permitted sender) receiver=mx.example.net; identity=mailfrom;\n" +
			" client-ip=192.0.2.1; envelope-from=\"a@example.org\"; helo=mail.example.org;\n mechanism=\"ip4:192.0.2.0/28\"\n"},
		{source("2001:db8::1"), "Received-SPF: softfail (mx.example.net: domain of a@example.org probably does\n not designate 2001:db8::1 as permitted sender) receiver=mx.example.net;\n" +
			" identity=mailfrom; client-ip=\"2001:db8::1\"; envelope-from=\"a@example.org\";\n helo=mail.example.org; mechanism=\"~ip6:2001:db8::/32\"\n"},
		{source("203.0.113.1"), "Received-SPF: temperror (mx.example.net: domain of a@example.org cannot be\n checked) receiver=mx.example.net; identity=mailfrom; client-ip=203.0.113.1;\n" +
			" envelope-from=\"a@example.org\"; helo=mail.example.org;\n problem=\"DNS lookup failed\"\n"},
		{bad, "Received-SPF: permerror (mx.example.net: domain of a b@bad.example cannot be\n checked) receiver=mx.example.net; identity=mailfrom; client-ip=192.0.2.1;\n" +
			" envelope-from=\"\\\"a b\\\"@bad.example\"; helo=mail.example.org;\n problem=\"syntax error\"\n"},
		{none, "Received-SPF: none (mx.example.net: domain of a@none.example designates no\n senders) receiver=mx.example.net; identity=mailfrom; client-ip=192.0.2.1;\n" +
			" envelope-from=\"a@none.example\"; helo=mail.example.org\n"},
		{null, "Received-SPF: neutral (mx.example.net: domain of postmaster@mail.example.org\n does not say whether 192.0.2.1 is a permitted sender)\n receiver=mx.example.net; identity=helo; client-ip=192.0.2.1;\n" +
			" helo=mail.example.org; mechanism=default\n"},
	} {
		r := c.Check(t.Context(), x.source).Received()
		if got := r.String(); got != strings.ReplaceAll(x.want, "\n", "\r\n") {
			t.Errorf("%q\nwant\n%q", got, x.want)
		}
		back, err := ParseReceived(strings.TrimPrefix(r.String(), FieldName+":"))
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%+v, %v\nwant\n%+v", back, err, r)
		}
	}
}

// TestReceivedHostile has RFC 7208 §9.1: no invalid characters, not too long,
// nothing malicious of the sender's.
func TestReceivedHostile(t *testing.T) {
	evil := "a\r\nX-Evil: yes\r\n\r\n\x00\x7f\u0085\u2028\xff\"\\();=" + strings.Repeat("\"", 5000)
	e := &Evaluation{Result: "pass\r\nX: y", Identity: evil, Sender: evil, Mechanism: evil, Receiver: evil, Err: ErrSyntax, Source: Source{Hello: evil, From: smtp.Address{Local: evil, Domain: evil}}}
	r := e.Received()
	r.Others = []Modifier{{"x-y", evil}, {evil, "x"}, {strings.Repeat("k", 100), "x"}, {"identity2", "..."}}
	text := r.String()
	wellFormed(t, text)
	if !strings.HasPrefix(text, "Received-SPF: none (") || strings.Contains(text, "\nX-Evil") || !strings.HasSuffix(text, "\r\n identity2=\"...\"\r\n") {
		t.Errorf("%q", text)
	}
	if _, err := ParseReceived(strings.TrimPrefix(text, FieldName+":")); err != nil {
		t.Error(err)
	}
}

func wellFormed(t *testing.T, field string) {
	t.Helper()
	body, ok := strings.CutSuffix(field, "\r\n")
	if !ok || !utf8.ValidString(field) {
		t.Fatalf("%q", field)
	}
	for i, line := range strings.Split(body, "\r\n") {
		if len(line) > 998 || i > 0 && (line == "" || line[0] != ' ') || strings.TrimSpace(line) == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Fatalf("line %d of %q", i, field)
		}
	}
}

func TestParseReceived(t *testing.T) {
	// The examples of RFC 7208 §9.1 and §9.2, and what others write.
	ip := netip.MustParseAddr("192.0.2.1")
	comment := "mybox.example.org: domain of myname@example.com designates 192.0.2.1 as permitted sender"
	for in, want := range map[string]Received{
		" pass (mybox.example.org: domain of\r\n    myname@example.com designates 192.0.2.1 as permitted sender)\r\n       receiver=mybox.example.org; client-ip=192.0.2.1;\r\n       envelope-from=\"myname@example.com\"; helo=foo.example.com;": {
			Result: auth.Pass, Comment: comment, Receiver: "mybox.example.org", ClientIP: ip, EnvelopeFrom: "myname@example.com", Hello: "foo.example.com"},
		" fail (mybox.example.org: domain of\r\n                     myname@example.com does not designate\r\n                     192.0.2.1 as permitted sender)\r\n                     identity=mailfrom; client-ip=192.0.2.1;\r\n                     envelope-from=\"myname@example.com\";": {
			Result: auth.Fail, Comment: strings.Replace(comment, "designates", "does not designate", 1), Identity: MailFrom, ClientIP: ip, EnvelopeFrom: "myname@example.com"},
		" pass (" + comment + ") receiver=mybox.example.org; client-ip=192.0.2.1; mechanism=ip4:192.0.2.1; envelope-from=\"myname@example.com\"; helo=foo.example.com;": {
			Result: auth.Pass, Comment: comment, Receiver: "mybox.example.org", ClientIP: ip, Mechanism: "ip4:192.0.2.1", EnvelopeFrom: "myname@example.com", Hello: "foo.example.com"},
		"none": {Result: auth.None},
		"(a)SoftFail(b (c) \\) d)(e) client-ip = 2001:db8::1 helo=x (y);; X-Some=\"a \\\"b\\\"\";client-ip=1.1.1.1": {Result: auth.SoftFail, Comment: "b (c) ) d", ClientIP: netip.MustParseAddr("2001:db8::1"), Hello: "x", Others: []Modifier{{"x-some", `a "b"`}}},
		"pass client-ip=nonsense; identity=HELO; problem=; y=":                                                      {Result: auth.Pass, Identity: Hello, Others: []Modifier{{"y", ""}}},
		"fail (open": {Result: auth.Fail, Comment: "open"},
	} {
		r, err := ParseReceived(in)
		if err != nil || !reflect.DeepEqual(*r, want) {
			t.Errorf("%q: %+v, %v", in, r, err)
		}
	}
	many := strings.Builder{}
	for i := range 100 {
		many.WriteString(" k" + strings.Repeat("x", i) + "=1;")
	}
	for _, in := range []string{"", "  ", "perhaps", "pass x", "pass x; y=1", "pass =1", "pass a=\"b", "pass;a b=c", "pass" + many.String(), "pass " + strings.Repeat("(", 1<<20) + "\\"} {
		r, err := ParseReceived(in)
		if strings.HasPrefix(in, "pass ((") {
			if err != nil || len(r.Comment) < 1<<20-1 {
				t.Errorf("nested: %v", err)
			}
			continue
		}
		if !errors.Is(err, ErrSyntax) {
			t.Errorf("%.40q: %v, %v", in, r, err)
		}
	}
}

func FuzzReceived(f *testing.F) {
	f.Add(" pass (x: domain of a@b designates 192.0.2.1) receiver=x; client-ip=192.0.2.1; envelope-from=\"a@b\"; helo=c; mechanism=\"ip4:1\"; problem=\"p q\"; x=y")
	f.Add("softfail (a (b) \\) c)\r\n\tidentity=helo; k=\"\\\"\"")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReceived(s)
		if err != nil {
			return
		}
		text := r.String()
		wellFormed(t, text)
		again, err := ParseReceived(strings.TrimPrefix(text, FieldName+":"))
		if err != nil || again.String() != text {
			t.Fatalf("%q is written as %q, and then as %q (%v)", s, text, again, err)
		}
		if again.Result != r.Result || again.ClientIP != r.ClientIP || again.Hello != clean(r.Hello) || again.Comment != strings.Join(strings.Fields(clean(r.Comment)), " ") {
			t.Fatalf("%+v came back as %+v", r, again)
		}
	})
}

// FuzzReceivedOf writes the field for senders of all kinds.
func FuzzReceivedOf(f *testing.F) {
	f.Add("alice", "example.org", "mail.example.org", "mx.example.net")
	f.Add("a\r\nb", "é.example", "x\"\\", "(")
	f.Fuzz(func(t *testing.T, local, domain, hello, receiver string) {
		c := &Checker{Resolver: records{}, Receiver: receiver}
		r := c.Check(context.Background(), Source{IP: netip.IPv6Loopback(), Hello: hello, From: smtp.Address{Local: local, Domain: domain}}).Received()
		text := r.String()
		wellFormed(t, text)
		again, err := ParseReceived(strings.TrimPrefix(text, FieldName+":"))
		if err != nil || again.Hello != clean(hello) || again.EnvelopeFrom != clean(r.EnvelopeFrom) || again.Receiver != clean(receiver) {
			t.Fatalf("%q: %+v, %v", text, again, err)
		}
	})
}
