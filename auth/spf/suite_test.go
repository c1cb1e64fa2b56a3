package spf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/smtp"
)

// This file reads the two suites and runs them. They are YAML; the reader
// knows as much of it as they use and refuses the rest.

type yamlLine struct {
	indent, number int
	text           string
}

type yamlReader struct {
	lines []yamlLine
	i     int
}

// pair keeps the order of a mapping, and repeated keys.
type pair struct {
	key   string
	value any // string, []any or []pair
}

// readYAML returns the documents of a file.
func readYAML(file []byte) (docs [][]pair, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("YAML: %v", r)
		}
	}()
	var r yamlReader
	flush := func() {
		if r.i = 0; r.skip() {
			docs = append(docs, r.block(0).([]pair))
			if r.i != len(r.lines) {
				panic(fmt.Sprintf("line %d is not understood", r.lines[r.i].number))
			}
		}
		r.lines = nil
	}
	for i, l := range strings.Split(string(file), "\n") {
		if l == "---" {
			flush()
			continue
		}
		text := strings.TrimLeft(l, " ")
		r.lines = append(r.lines, yamlLine{len(l) - len(text), i + 1, strings.TrimRight(text, " \r")})
	}
	flush()
	return docs, nil
}

// skip passes over empty lines and comments.
func (r *yamlReader) skip() bool {
	for r.i < len(r.lines) && (r.lines[r.i].text == "" || r.lines[r.i].text[0] == '#') {
		r.i++
	}
	return r.i < len(r.lines)
}

// block reads a list or a mapping that is indented by at least min.
func (r *yamlReader) block(min int) any {
	if !r.skip() || r.lines[r.i].indent < min {
		return ""
	}
	indent := r.lines[r.i].indent
	if strings.HasPrefix(r.lines[r.i].text, "- ") {
		var list []any
		for r.skip() && r.lines[r.i].indent == indent && strings.HasPrefix(r.lines[r.i].text, "- ") {
			l := &r.lines[r.i]
			inner := strings.TrimLeft(l.text[2:], " ")
			l.indent += len(l.text) - len(inner)
			l.text = inner
			if _, _, ok := cutKey(inner); ok {
				list = append(list, r.block(l.indent))
			} else {
				r.i++
				list = append(list, r.scalar(inner, indent))
			}
		}
		return list
	}
	var m []pair
	for r.skip() && r.lines[r.i].indent == indent {
		l := &r.lines[r.i]
		if key, ok := strings.CutPrefix(l.text, "? "); ok {
			r.i++
			l = &r.lines[r.i]
			if !strings.HasPrefix(l.text, ": ") {
				panic(fmt.Sprintf("line %d", l.number))
			}
			l.indent, l.text = l.indent+2, l.text[2:]
			m = append(m, pair{key, r.block(l.indent)})
			continue
		}
		key, rest, ok := cutKey(l.text)
		if !ok {
			panic(fmt.Sprintf("line %d", l.number))
		}
		r.i++
		var v any
		if rest == "" {
			min := indent + 1
			if r.skip() && strings.HasPrefix(r.lines[r.i].text, "- ") {
				min = indent // a list may stand as far left as its key
			}
			v = r.block(min)
		} else {
			v = r.scalar(rest, indent)
		}
		m = append(m, pair{key, v})
	}
	return m
}

func cutKey(s string) (key, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s[1:], '"') + 1
		if end > 0 && strings.HasPrefix(s[end+1:], ":") {
			return s[1:end], strings.TrimSpace(s[end+2:]), true
		}
		return "", "", false
	}
	i := strings.Index(s+" ", ": ")
	if i < 0 || s[0] == '[' || s[0] == '\'' {
		return "", "", false
	}
	return s[:i], strings.TrimSpace(s[i+1:]), true
}

// scalar reads a value that begins with text; lines indented more than indent
// belong to it.
func (r *yamlReader) scalar(text string, indent int) any {
	var more []string
	for r.i < len(r.lines) && (r.lines[r.i].indent > indent || r.lines[r.i].text == "") {
		more = append(more, r.lines[r.i].text)
		r.i++
	}
	switch text[0] {
	case '>':
		return strings.TrimSpace(strings.Join(more, " "))
	case '|':
		return strings.TrimSpace(strings.Join(more, "\n"))
	case '!', '&', '*', '{':
		panic("not used by the suites: " + text)
	}
	text = strings.TrimSpace(strings.Join(append([]string{text}, more...), " "))
	if text[0] != '[' {
		return unquote(text)
	}
	var list []any
	inner := strings.TrimSpace(strings.TrimSuffix(text[1:], "]"))
	for inner != "" {
		n := strings.IndexByte(inner, ',')
		if inner[0] == '"' || inner[0] == '\'' {
			end := strings.IndexByte(inner[1:], inner[0]) + 2
			if n = strings.IndexByte(inner[end:], ','); n >= 0 {
				n += end
			}
		}
		if n < 0 {
			n = len(inner)
		}
		list = append(list, unquote(strings.TrimSpace(inner[:n])))
		inner = strings.TrimSpace(strings.TrimPrefix(inner[n:], ","))
	}
	return list
}

func unquote(s string) string {
	switch {
	case strings.HasPrefix(s, "'"):
		return strings.ReplaceAll(s[1:len(s)-1], "''", "'")
	case strings.HasPrefix(s, `"`):
		v, err := strconv.Unquote(strings.ReplaceAll(s, `\0`, `\x00`))
		if err != nil {
			panic(s + ": " + err.Error())
		}
		return v
	}
	return s
}

// records is the zone of one scenario: lower-case name to its records.
type records map[string]*recordSet

type recordSet struct {
	txt, spf []string
	noTXT    bool
	timeout  bool
	a        []netip.Addr
	mx       []*net.MX
	ptr      []string
	cname    string
}

type nxdomain struct{ name string }

func (e nxdomain) Error() string  { return "no such domain: " + e.name }
func (e nxdomain) NXDomain() bool { return true }

func (z records) find(name string) (*recordSet, error) {
	name, absolute := strings.CutSuffix(strings.ToLower(name), ".")
	if !absolute {
		return nil, errors.New("name is not absolute: " + name)
	}
	for range 10 {
		rs, ok := z[name]
		if !ok {
			return nil, nxdomain{name}
		}
		if rs.cname == "" {
			return rs, nil
		}
		name = strings.ToLower(rs.cname)
	}
	return nil, errors.New("CNAME loop")
}

func (rs *recordSet) answer(n int) error {
	if n == 0 && rs.timeout {
		return &net.DNSError{Err: "i/o timeout", IsTimeout: true}
	}
	return nil
}

func (z records) LookupTXT(_ context.Context, name string) ([]string, error) {
	rs, err := z.find(name)
	if err != nil {
		return nil, err
	}
	txt := rs.txt
	if len(txt) == 0 && !rs.noTXT {
		txt = rs.spf
	}
	return txt, rs.answer(len(txt))
}

func (z records) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	rs, err := z.find(name)
	if err != nil {
		return nil, err
	}
	return rs.mx, rs.answer(len(rs.mx))
}

func (z records) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	rs, err := z.find(host)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range rs.a {
		if a.Is4() == (network == "ip4") {
			out = append(out, a)
		}
	}
	return out, rs.answer(len(out))
}

func (z records) LookupAddr(_ context.Context, addr string) ([]string, error) {
	ip := netip.MustParseAddr(addr)
	var name string
	if ip.Is4() {
		b := ip.As4()
		name = fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa.", b[3], b[2], b[1], b[0])
	} else {
		nibbles := strings.Split(dottedIP(ip), ".")
		slices.Reverse(nibbles)
		name = strings.Join(nibbles, ".") + ".ip6.arpa."
	}
	rs, err := z.find(name)
	if err != nil {
		return nil, err
	}
	return rs.ptr, rs.answer(len(rs.ptr))
}

func zoneOf(data any) records {
	z := make(records)
	if data == "" {
		return z
	}
	for _, p := range data.([]pair) {
		rs := new(recordSet)
		z[strings.ToLower(p.key)] = rs
		list, _ := p.value.([]any)
		for _, item := range list {
			if item == "TIMEOUT" {
				rs.timeout = true
				continue
			}
			rr := item.([]pair)[0]
			text, _ := rr.value.(string)
			var parts []string
			if l, ok := rr.value.([]any); ok {
				for _, s := range l {
					parts = append(parts, s.(string))
				}
				text = strings.Join(parts, "")
			}
			switch rr.key {
			case "TXT":
				if text == "NONE" {
					rs.noTXT = true
				} else {
					rs.txt = append(rs.txt, text)
				}
			case "SPF":
				rs.spf = append(rs.spf, text)
			case "A", "AAAA":
				rs.a = append(rs.a, netip.MustParseAddr(text))
			case "MX":
				n, err := strconv.Atoi(parts[0])
				if err != nil {
					panic(err)
				}
				rs.mx = append(rs.mx, &net.MX{Pref: uint16(n), Host: parts[1] + "."})
			case "PTR":
				rs.ptr = append(rs.ptr, text+".")
			case "CNAME":
				rs.cname = text
			case "TIMEOUT":
				rs.timeout = true
			default:
				panic("record type " + rr.key)
			}
		}
	}
	return z
}

func get(m []pair, key string) any {
	for _, p := range m {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// forEachCase calls f for every case of a suite.
func forEachCase(tb testing.TB, file string, f func(name string, z records, s Source, results []string, explanation string)) {
	b, err := os.ReadFile(conformance.Path(tb, "spf", file))
	if err != nil {
		tb.Fatal(err)
	}
	docs, err := readYAML(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	if err != nil {
		tb.Fatal(err)
	}
	for _, doc := range docs {
		z := zoneOf(get(doc, "zonedata"))
		for _, test := range get(doc, "tests").([]pair) {
			c := test.value.([]pair)
			str := func(key string) string { s, _ := get(c, key).(string); return s }
			var from smtp.Address
			if mf := str("mailfrom"); mf != "" {
				if at := strings.LastIndexByte(mf, '@'); at >= 0 {
					from = smtp.Address{Local: mf[:at], Domain: mf[at+1:]}
				} else {
					from = smtp.Address{Domain: mf}
				}
			}
			var results []string
			switch v := get(c, "result").(type) {
			case string:
				results = []string{v}
			case []any:
				for _, r := range v {
					results = append(results, r.(string))
				}
			}
			f(str("description")+"/"+test.key, z,
				Source{IP: netip.MustParseAddr(str("host")), Hello: str("helo"), From: from}, results, str("explanation"))
		}
	}
}

// TestSuites runs the RFC 7208 test suite and the cases of mailauth.
func TestSuites(t *testing.T) {
	for _, suite := range []struct {
		file  string
		cases int
	}{{"rfc7208-tests.yml", 203}, {"mailauth-1.yml", 88}} {
		total, passed := 0, 0
		forEachCase(t, suite.file, func(name string, z records, s Source, results []string, explanation string) {
			total++
			c := &Checker{Resolver: z, Receiver: "receiver.example.net"}
			e := c.Check(t.Context(), s)
			ok := slices.Contains(results, string(e.Result))
			if e.Result == auth.Fail && explanation != "" {
				if explanation == "DEFAULT" {
					explanation = ""
				}
				ok = ok && e.Explanation == explanation
			}
			if ok != (ok && (e.Err != nil) == (e.Result == auth.TempError || e.Result == auth.PermError)) {
				t.Errorf("%s: %s with error %v", name, e.Result, e.Err)
			}
			if ok {
				passed++
			} else {
				t.Errorf("%s: %s (%v) %q, want %v %q, lookups %v", name, e.Result, e.Err, e.Explanation, results, explanation, e.Lookups)
			}
		})
		t.Logf("spf/%s: %d of %d", suite.file, passed, total)
		if total != suite.cases {
			t.Errorf("%s: %d cases read, want %d", suite.file, total, suite.cases)
		}
	}
}
