package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	stdmime "mime"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store/memstore"
)

// sexp is what IMAP writes: nil for NIL, a string, or a list.
type sexp any

// parseSexp reads one value.
func parseSexp(s string) (v sexp, rest string, err error) {
	s = strings.TrimLeft(s, " ")
	switch {
	case s == "":
		return nil, "", fmt.Errorf("nothing there")
	case s[0] == '(':
		list := []sexp{}
		for s = strings.TrimLeft(s[1:], " "); !strings.HasPrefix(s, ")"); s = strings.TrimLeft(s, " ") {
			if v, s, err = parseSexp(s); err != nil {
				return nil, "", err
			}
			list = append(list, v)
		}
		return list, s[1:], nil
	case s[0] == '"':
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
				if i < len(s) {
					b.WriteByte(s[i])
				}
			case '"':
				return b.String(), s[i+1:], nil
			default:
				b.WriteByte(s[i])
			}
		}
		return nil, "", fmt.Errorf("no end of %.80q", s)
	case s[0] == '{':
		n, rest, _ := strings.Cut(s[1:], "}\r\n")
		size, err := strconv.Atoi(strings.TrimSuffix(n, "+"))
		if err != nil || size > len(rest) {
			return nil, "", fmt.Errorf("literal %.80q", s)
		}
		return rest[:size], rest[size:], nil
	}
	end := strings.IndexAny(s, " ()")
	if end < 0 {
		end = len(s)
	}
	if s[:end] == "NIL" {
		return nil, s[end:], nil
	}
	return s[:end], s[end:], nil
}

func show(v sexp) string {
	switch v := v.(type) {
	case nil:
		return "NIL"
	case string:
		return strconv.Quote(v)
	}
	var b strings.Builder
	for i, e := range v.([]sexp) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(show(e))
	}
	return "(" + b.String() + ")"
}

type anyUser struct{}

func (anyUser) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (anyUser) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return anyExchange{sasl.NewPlainServer(func(_, _, _ string) error { return nil })}, nil
}

type anyExchange struct{ sasl.Server }

func (anyExchange) Identity() login.Identity { return login.Identity{User: "ann", Mechanism: "PLAIN"} }

// ourStructures asks our server for what it says of messages.
func ourStructures(t *testing.T, messages [][]byte) (envelopes, bodies []sexp) {
	t.Helper()
	st := memstore.New()
	if err := st.CreateAccount(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	srv := &imapserver.Server{Store: st, Auth: anyUser{}, InsecureAuth: true, Log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ic := newIMAPConn(t, c)
	ic.ok("LOGIN ann x")
	for i, m := range messages {
		ic.n++
		tag := fmt.Sprintf("t%d", ic.n)
		fmt.Fprintf(c, "%s APPEND INBOX {%d+}\r\n%s\r\n", tag, len(m), m)
		for {
			line := ic.line()
			if rest, ok := strings.CutPrefix(line, tag+" "); ok {
				if !strings.HasPrefix(rest, "OK") {
					t.Fatalf("message %d: %s", i, rest)
				}
				break
			}
		}
	}
	ic.ok("SELECT INBOX")
	for _, line := range ic.ok("FETCH 1:* (ENVELOPE BODYSTRUCTURE)") {
		_, rest, ok := strings.Cut(line, " FETCH ")
		if !ok {
			continue
		}
		v, _, err := parseSexp(rest)
		if err != nil {
			t.Fatal(err)
		}
		list := v.([]sexp)
		for k := 0; k+1 < len(list); k += 2 {
			switch list[k] {
			case "ENVELOPE":
				envelopes = append(envelopes, list[k+1])
			case "BODYSTRUCTURE":
				bodies = append(bodies, list[k+1])
			}
		}
	}
	return envelopes, bodies
}

// dovecotStructures is what Dovecot says of them.
func dovecotStructures(t *testing.T, messages [][]byte) (envelopes, bodies []sexp) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "Maildir")
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range messages {
		write(t, filepath.Join(dir, "cur", fmt.Sprintf("%06d.a:2,S", i)), string(m))
	}
	out := doveadm(t, "maildir:"+dir, "-f", "json", "fetch", "uid imap.envelope imap.bodystructure", "mailbox", "INBOX")
	_, out, ok := strings.Cut(out, "[{")
	if !ok {
		t.Fatalf("no answer in %.2000q", out)
	}
	out = "[{" + out
	var rows []map[string]string
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		for _, key := range []string{"imap.envelope", "imap.bodystructure"} {
			v, _, err := parseSexp("(" + r[key] + ")")
			if err != nil {
				t.Fatalf("%s of %s: %v", key, r["uid"], err)
			}
			if key == "imap.envelope" {
				envelopes = append(envelopes, v)
			} else {
				bodies = append(bodies, v)
			}
		}
	}
	return envelopes, bodies
}

// parameters puts parameters in order and decodes them (RFC 2231, and the
// encoded words that some put there): our server gives them decoded, Dovecot
// only puts continuations together.
func parameters(v sexp) sexp {
	list, ok := v.([]sexp)
	if !ok {
		return v
	}
	values := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		name, value := strings.ToLower(list[i].(string)), list[i+1].(string)
		if bare, ok := strings.CutSuffix(name, "*"); ok {
			if charset, rest, ok := strings.Cut(value, "'"); ok {
				_, text, _ := strings.Cut(rest, "'")
				if text, err := url.PathUnescape(text); err == nil {
					e, err := htmlindex.Get(charset)
					if err != nil {
						e = unicode.UTF8
					}
					value, _ = e.NewDecoder().String(text)
				}
			}
			values[bare] = value
			continue
		}
		if decoded, err := new(stdmime.WordDecoder).DecodeHeader(value); err == nil {
			value = decoded
		}
		if _, ok := values[name]; !ok {
			values[name] = value
		}
	}
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(values)) {
		pairs = append(pairs, fmt.Sprintf("%s=%q", k, values[k]))
	}
	return strings.Join(pairs, "; ")
}

// normal makes a body structure one that can be compared: what may be written
// in two ways (RFC 9051 §7.5.2) is in one of them.
func normal(v sexp) sexp {
	list, ok := v.([]sexp)
	if !ok || len(list) == 0 {
		return v
	}
	out := slices.Clone(list)
	disposition := func(v sexp) sexp {
		if d, ok := v.([]sexp); ok && len(d) == 2 {
			return []sexp{d[0], parameters(d[1])}
		}
		return v
	}
	// One tag may stand alone or in a list.
	language := func(v sexp) sexp {
		if tag, ok := v.(string); ok {
			return []sexp{tag}
		}
		return v
	}
	if _, multi := list[0].([]sexp); multi {
		i := 0
		for ; i < len(out); i++ {
			if _, ok := out[i].([]sexp); !ok {
				break
			}
			out[i] = normal(out[i])
		}
		if i+3 < len(out) {
			out[i+1], out[i+2], out[i+3] = parameters(out[i+1]), disposition(out[i+2]), language(out[i+3])
		}
		return out
	}
	if len(out) < 7 {
		return out
	}
	if params, ok := out[2].([]sexp); ok && out[0] == "text" {
		// The default charset, which Dovecot states.
		var kept []sexp
		for i := 0; i+1 < len(params); i += 2 {
			if !strings.EqualFold(params[i].(string), "charset") || params[i+1] != "us-ascii" {
				kept = append(kept, params[i], params[i+1])
			}
		}
		if out[2] = kept; kept == nil {
			out[2] = nil
		}
	}
	for _, i := range []int{0, 1, 5} {
		if v, ok := out[i].(string); ok {
			out[i] = strings.ToLower(v)
		}
	}
	out[2] = parameters(out[2])
	k := 7
	switch {
	case out[0] == "text":
		k = 8
	case out[0] == "message" && len(out) > 9:
		if _, nested := out[8].([]sexp); nested {
			out[8] = normal(out[8])
			k = 10
		}
	}
	if len(out) == k {
		out = append(out, nil, nil, nil, nil) // the extension, where it is left out
	}
	if k+2 < len(out) {
		out[k+1], out[k+2] = disposition(out[k+1]), language(out[k+2])
	}
	return out
}

// TestDovecotStructure: ENVELOPE and BODYSTRUCTURE are what Dovecot's are, for
// the real messages and for built ones.
func TestDovecotStructure(t *testing.T) {
	need(t, "doveadm")
	files := corpus(t)
	var names []string
	var messages [][]byte
	for name, b := range files {
		if bytes.IndexByte(b, 0) < 0 && len(b) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		messages = append(messages, files[n])
	}
	_, raw, _ := built(t)
	for i, m := range raw {
		names = append(names, fmt.Sprintf("built %d", i))
		messages = append(messages, m)
	}
	oe, ob := ourStructures(t, messages)
	de, db := dovecotStructures(t, messages)
	if len(oe) != len(messages) || len(ob) != len(messages) || len(de) != len(messages) || len(db) != len(messages) {
		t.Fatalf("%d messages: %d %d %d %d", len(messages), len(oe), len(ob), len(de), len(db))
	}
	differ := map[string]bool{}
	compare := func(name, what string, ours, theirs sexp) {
		a, b := show(ours), show(theirs)
		if a == b {
			return
		}
		key := what + " " + name
		differ[key] = true
		if structureReasons[key] == "" {
			at := 0
			for at < min(len(a), len(b)) && a[at] == b[at] {
				at++
			}
			from := max(0, at-60)
			t.Errorf("%s:\n   ours …%.400s\nDovecot …%.400s", key, a[from:], b[from:])
		}
	}
	for i := range messages {
		compare(names[i], "ENVELOPE", oe[i], de[i])
		compare(names[i], "BODYSTRUCTURE", normal(ob[i]), normal(db[i]))
	}
	for key := range structureReasons {
		if !differ[key] {
			t.Errorf("%s is the same: it needs no reason", key)
		}
	}
	t.Logf("%d messages, %d differences with a reason", len(messages), len(differ))
}

// structureReasons say why an answer is not Dovecot's.
var structureReasons = func() map[string]string {
	const (
		noHeader  = "a first line that is no field begins the body for us; Dovecot takes it for a broken header, of which there is no end"
		badType   = "a Content-Type that cannot be read is text/plain (RFC 2045 §5.2), or what can be guessed of it; Dovecot gives an empty type"
		odd       = "we read more of a broken field"
		boundary  = "a delimiter is the whole line for us, so that the boundary of one multipart may begin with another's"
		depth     = "Dovecot looks 100 parts deep, we 250"
		first     = "of a field that stands twice the first counts for us, the last for Dovecot"
		bom       = "a byte order mark is no part of the first field's name for us"
		presented = "what the encoding means, in place of a misspelling of it"
	)
	return map[string]string{
		"BODYSTRUCTURE dsn/dsn_with_multipart_alternative.eml":        noHeader,
		"BODYSTRUCTURE dsn/multi_recipient_dsn.eml":                   noHeader,
		"BODYSTRUCTURE dsn/simple_dsn.eml":                            noHeader,
		"BODYSTRUCTURE enmime/mail_erroneous.eml":                     noHeader,
		"BODYSTRUCTURE enmime/mail_inlinemultipart.eml":               first,
		"BODYSTRUCTURE enmime/mail_mime-bad-content-type.eml":         badType,
		"BODYSTRUCTURE enmime/mail_mime-blank-media-name.eml":         badType,
		"BODYSTRUCTURE enmime/mail_mime-unquoted-tspecials-param.eml": odd,
		"BODYSTRUCTURE enmime/mail_qp-utf8-header-no-break.eml":       "a delimiter in the header ends it for us: its first part is not lost",
		"BODYSTRUCTURE enmime/parts_ctype-invalid-characters.eml":     badType,
		"BODYSTRUCTURE enmime/parts_empty-ctype-bad-content.eml":      badType,
		"BODYSTRUCTURE enmime/parts_missing-closing-param-quote.eml":  odd,
		"BODYSTRUCTURE enmime/parts_multi-malformed.eml":              noHeader,
		"BODYSTRUCTURE enmime/parts_unquoted-ctype-param-special.eml": odd,
		"BODYSTRUCTURE malformed/016.eml":                             boundary,
		"BODYSTRUCTURE malformed/017.eml":                             badType,
		"BODYSTRUCTURE malformed/019.eml":                             "multiparts in one another with the same boundary: a delimiter is the innermost's for Dovecot too, but it goes on in a part that is closed",
		"ENVELOPE malformed/019.eml":                                  first,
		"BODYSTRUCTURE malformed/022.eml":                             noHeader,
		"BODYSTRUCTURE mbox/content-length-summary.txt":               badType,
		"BODYSTRUCTURE mbox/content-length.mbox":                      "the separator line of an mbox file is passed over by us",
		"BODYSTRUCTURE mimekit/feedback-report.eml":                   "a display name without an address has its words together for us; Dovecot gives the first and an error",
		"ENVELOPE mimekit/feedback-report.eml":                        bom,
		"ENVELOPE mimekit/issue358.eml":                               odd,
		"BODYSTRUCTURE mimekit/missing-subtype.eml":                   badType,
		"ENVELOPE mimekit/stack-overflow.eml":                         odd,
		"BODYSTRUCTURE rfc/001.eml":                                   odd,
		"BODYSTRUCTURE rfc/008.eml":                                   "a message in base64 is not looked into by us (RFC 2046 §5.2.1 forbids it); Dovecot reads the base64 as a header",
		"BODYSTRUCTURE thirdparty/004.eml":                            presented,
		"ENVELOPE torture/8bit-latin1.eml":                            "octets of another charset do not pass through doveadm's JSON",
		"ENVELOPE torture/addr-odd.eml":                               "of several comments Dovecot gives the last as the name, we give all",
		"ENVELOPE torture/bom.eml":                                    bom,
		"ENVELOPE torture/cr-only.eml":                                odd,
		"BODYSTRUCTURE torture/ct-missing-sub.eml":                    badType,
		"BODYSTRUCTURE torture/cte-unknown.eml":                       "an unknown encoding makes it application/octet-stream (RFC 2045 §6.4)",
		"ENVELOPE torture/fold-ws-only.eml":                           "unfolding takes the line end away and nothing else (RFC 5322 §2.2.3)",
		"BODYSTRUCTURE torture/nest-multipart-100.eml":                depth,
		"BODYSTRUCTURE torture/nest-multipart-1000.eml":               depth,
		"BODYSTRUCTURE torture/nest-rfc822-200.eml":                   depth,
		"BODYSTRUCTURE torture/rfc2231-200.eml":                       "Dovecot puts 128 continuations together, we all",
	}
}()
