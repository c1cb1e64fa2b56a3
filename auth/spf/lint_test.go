package spf

import (
	"fmt"
	"strings"
	"testing"
)

// line has what a test compares of problems.
func lines(problems []Problem) string {
	var out []string
	for _, p := range problems {
		mark := "?"
		if p.Wrong {
			mark = "!"
		}
		s := mark + string(p.Kind)
		if p.Domain != "" {
			s += " " + p.Domain
		}
		if p.Term != "" {
			s += " " + p.Term
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

func TestLint(t *testing.T) {
	eleven := ""
	for i := range 11 {
		eleven += fmt.Sprintf(" include:i%d.example", i)
	}
	for in, want := range map[string]string{
		"v=spf1 -all":                                  "",
		"V=SPF1 mx ip4:198.51.100.0/24 ~ALL":           "",
		"v=spf1 redirect=_spf.example.org":             "",
		"v=spf1 ip4:198.51.100.1 a:x.org/24//64 -all":  "",
		"v=spf1 include:%{d}.x.org ?exists:a.org ~all": "",
		"":                              "!malformed",
		"v=spf1x":                       "!malformed",
		"v=spf1; -all":                  "!malformed",
		"v=spf1":                        "?no-end",
		"v=spf1 mx":                     "?no-end",
		"v=spf1 +all":                   "?weak-all +all",
		"v=spf1 all":                    "?weak-all all",
		"v=spf1 ?all":                   "?weak-all ?all",
		"v=spf1 -all mx":                "!unreachable mx",
		"v=spf1 -all redirect=x.org":    "!unreachable redirect=x.org",
		"v=spf1 redirect=x.org -all":    "!unreachable redirect=x.org",
		"v=spf1 ptr -all":               "?discouraged ptr",
		"v=spf1 exists:%{p}.x.org -all": "?discouraged exists:%{p}.x.org",
		"v=spf1 -all exp=%{p}.x.org":    "?discouraged exp=%{p}.x.org",
		"v=spf1 -all a=1":               "!unknown-modifier a=1",
		"v=spf1 -all op=pra":            "?unknown-modifier op=pra",
		"v=spf1 include=x.org -all":     "!unknown-modifier include=x.org",
		"v=spf1 ipv4=198.51.100.1 -all": "!unknown-modifier ipv4=198.51.100.1",
		"v=spf1 mx v=spf1 -all":         "!unknown-modifier v=spf1",
		"v=spf1 mx MX -all":             "?duplicate MX",
		"v=spf1 mx -mx -all":            "",
		"v=spf1 ip4:8.8.0.0/16 -ip4:8.8.8.8 ip4:8.8.0.0/16 -all":                            "?duplicate -ip4:8.8.8.8\n?duplicate ip4:8.8.0.0/16",
		"v=spf1 ip4:8.8.8.8/16 -all":                                                        "?network ip4:8.8.8.8/16",
		"v=spf1 ip4:10.0.0.0/8 ip4:127.0.0.1 ip6:fc00::/7 -all":                             "?network ip4:10.0.0.0/8\n?network ip4:127.0.0.1\n?network ip6:fc00::/7",
		"v=spf1 ip4:0.0.0.0/0 ip6:2000::/3 -all":                                            "?network ip4:0.0.0.0/0\n?network ip6:2000::/3",
		"v=spf1 -ip4:0.0.0.0/0 a/0 -all":                                                    "?network a/0",
		"v=spf1" + eleven + " -all":                                                         "!too-many-lookups include:i10.example",
		"v=spf1" + strings.TrimSuffix(eleven, " include:i10.example") + " -all exp=x.org":   "",
		"v=spf1" + strings.TrimSuffix(eleven, " include:i10.example") + " redirect=x.org":   "!too-many-lookups redirect=x.org",
		"v=spf1 exists:%{i}.a.org a:%{l}.b.org mx:%{o}.c.org -all":                          "?too-many-voids",
		"v=spf1 exists:%{i}.a.org a:%{l}.b.org -all":                                        "",
		"v=spf1 a:" + strings.Repeat("a.", 130) + "org -all":                                "?too-long",
		"v=spf1 a:" + strings.Repeat("a.", 300) + "org -all":                                "?too-long",
		"v=spf1 ip5:1 nonsense ip4:2001:db8::1 ip6:8.8.8.8 a:8.8.8.8 ipv4:8.8.8.8 include:": "!malformed ip5:1\n!malformed nonsense\n!malformed ip4:2001:db8::1\n!malformed ip6:8.8.8.8\n!malformed a:8.8.8.8\n!malformed ipv4:8.8.8.8\n!malformed include:\n?no-end",
		"v=spf1\tmx -all":                  "!malformed",
		"v=spf1 mx\u00a0-all":              "!malformed mx\u00a0-all\n?no-end",
		"v=spf1 exp=a.org exp=b.org -all;": "!malformed exp=b.org\n!malformed -all;\n?no-end",
		"v=spf1 - + -all":                  "!malformed -\n!malformed +",
	} {
		problems := Lint(in)
		if got := lines(problems); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", in, got, want)
		}
		_, err := ParseRecord(in)
		malformed := strings.Contains(lines(problems), string(Malformed))
		if (err != nil) != malformed {
			t.Errorf("%q: Lint says %v, ParseRecord %v", in, problems, err)
		}
		for _, p := range problems {
			if p.Text == "" || !strings.Contains(p.String(), p.Text) || !strings.Contains(p.String(), p.Term) {
				t.Errorf("%q: %v", in, p)
			}
		}
	}
	// The commonest mistakes have a text of their own.
	for in, want := range map[string]string{
		"ip4:2001:db8::1": "IPv6", "ip6:8.8.8.8": "IPv4", "mx:8.8.8.8": "belongs into ip4", "ipv6:::1": "called ip4 and ip6", "include": "lacks", "-all,": "does not belong there",
		"nonsense": "no mechanism", "ip4:1.2.3.4/33": "no valid term", "exp=%": "no valid term", "m\x00x": "not printable",
	} {
		if p := Lint("v=spf1 " + in + " -all"); len(p) != 1 || !strings.Contains(p[0].Text, want) {
			t.Errorf("%q: %v", in, p)
		}
	}
	// Bounded, whatever it is given.
	for _, term := range []string{"a", "x", "ip4:8.8.8.8", "x=y", "%", "-all", "include:a.b"} {
		if n := len(Lint("v=spf1 " + strings.Repeat(term+" ", (64<<10)/(len(term)+1)))); n == 0 || n > maxProblems {
			t.Errorf("%s: %d problems", term, n)
		}
	}
	var networks strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&networks, " ip4:8.8.%d.%d", i/256, i%256)
	}
	if p := Lint("v=spf1" + networks.String() + " -all"); len(p) != 1 || p[0].Kind != TooLong {
		t.Error(p)
	}
}

func FuzzLint(f *testing.F) {
	f.Add("v=spf1 a mx/24 ip4:1.2.3.4/8 ip6:::1 include:%{d}.x exists:%{ir}.%{p}.y ptr redirect=z.z exp=e.e x=y +all")
	f.Add("v=spf1 - ip4= -all; v=spf1 include: exp= exp=a.b redirect=%{l}")
	f.Fuzz(func(t *testing.T, text string) {
		problems := Lint(text)
		malformed := false
		for _, p := range problems {
			malformed = malformed || p.Kind == Malformed
			if p.Text == "" {
				t.Fatalf("%+v", p)
			}
		}
		r, err := ParseRecord(text)
		if (err != nil) != malformed && len(problems) < maxProblems {
			t.Fatalf("%q: %v, but %v", text, problems, err)
		}
		if err == nil && strings.Join(r.Strings(), "") != r.String() {
			t.Fatalf("%q", r.Strings())
		}
	})
}
