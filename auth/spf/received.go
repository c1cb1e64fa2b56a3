package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

// FieldName is the name of the field that a Received is written as.
const FieldName = "Received-SPF"

// Received is the content of a Received-SPF field (RFC 7208 §9.1). The
// comments name the keys; "" = not given. Authentication-Results says less,
// and is what filters read.
type Received struct {
	Result       auth.Result
	Comment      string     // for humans, written in parentheses
	Receiver     string     // receiver: the host that checked
	Identity     string     // identity: MailFrom or Hello
	ClientIP     netip.Addr // client-ip
	EnvelopeFrom string     // envelope-from
	Hello        string     // helo
	Mechanism    string     // mechanism: what matched, "default" when nothing did
	Problem      string     // problem: why the result is an error
	// Others are the pairs that have no place above, in order.
	Others []Modifier
}

// Received returns the field that says what e does. It SHOULD stand above the
// Received field of the host that checked, and MUST above all other
// Received-SPF fields.
func (e *Evaluation) Received() *Received {
	r := &Received{Result: e.Result, Receiver: e.Receiver, Identity: e.Identity, ClientIP: e.Source.IP.Unmap().WithZone(""),
		Hello: e.Source.Hello, Mechanism: e.Mechanism, Problem: e.reason()}
	if e.Source.From != (smtp.Address{}) {
		r.EnvelopeFrom = e.Source.From.String()
	}
	client := "the client"
	if r.ClientIP.IsValid() {
		client = r.ClientIP.String()
	}
	domain := "domain of " + e.Sender
	switch e.Result {
	case auth.Pass:
		r.Comment = domain + " designates " + client + " as permitted sender"
	case auth.Fail:
		r.Comment = domain + " does not designate " + client + " as permitted sender"
	case auth.SoftFail:
		r.Comment = domain + " probably does not designate " + client + " as permitted sender"
	case auth.Neutral:
		r.Comment = domain + " does not say whether " + client + " is a permitted sender"
	case auth.None:
		r.Comment = domain + " designates no senders"
	default:
		r.Comment = domain + " cannot be checked"
	}
	if e.Receiver != "" {
		r.Comment = e.Receiver + ": " + r.Comment
	}
	switch e.Result {
	case auth.Pass, auth.Fail, auth.SoftFail, auth.Neutral:
		if r.Mechanism == "" {
			r.Mechanism = "default"
		}
	}
	return r
}

// reason is why the result is an error, in a few public words.
func (e *Evaluation) reason() string {
	for _, err := range [...]error{ErrSyntax, ErrMultiple, ErrNoRecord, ErrLimit, ErrVoid, ErrLookup} {
		if errors.Is(e.Err, err) {
			return strings.TrimPrefix(err.Error(), "spf: ")
		}
	}
	return ""
}

// foldAt is the line length that folding aims for (RFC 5322 §2.1.1), maxValue
// bounds one value, so that no line passes 998 octets even when each octet is
// quoted.
const (
	foldAt   = 78
	maxValue = 400
)

// String returns the whole field, folded, with its name and the final CRLF,
// ready to be put in front of a message. Whatever the values hold, the result
// is one well-formed field: control characters become spaces, what is no
// dot-atom is quoted, and no value is longer than 400 octets.
func (r *Received) String() string {
	var b strings.Builder
	b.WriteString(FieldName + ":")
	column := b.Len()
	word := func(s string) {
		if column+1+len(s) > foldAt && column > 0 {
			b.WriteString("\r\n")
			column = 0
		}
		b.WriteString(" " + s)
		column += 1 + len(s)
	}
	if result := auth.Result(strings.ToLower(string(r.Result))); isResult(result) {
		word(string(result))
	} else {
		word(string(auth.None)) // the field has no word for it
	}
	if c := strings.Join(strings.Fields(clean(r.Comment)), " "); c != "" {
		c = "(" + strings.NewReplacer(`\`, `\\`, `(`, `\(`, `)`, `\)`).Replace(c) + ")"
		for w := range strings.FieldsSeq(c) {
			word(w)
		}
	}
	pairs := make([]Modifier, 0, 7+len(r.Others))
	add := func(key, value string) {
		if value = clean(value); value != "" {
			pairs = append(pairs, Modifier{key, value})
		}
	}
	add("receiver", r.Receiver)
	add("identity", r.Identity)
	if r.ClientIP.IsValid() {
		add("client-ip", r.ClientIP.String())
	}
	add("envelope-from", r.EnvelopeFrom)
	add("helo", r.Hello)
	add("mechanism", r.Mechanism)
	add("problem", r.Problem)
	for _, o := range r.Others {
		if isKey(o.Name) && len(o.Name) <= maxKey && len(pairs) < maxPairs {
			add(strings.ToLower(o.Name), o.Value)
		}
	}
	for i, p := range pairs {
		end := ";"
		if i == len(pairs)-1 {
			end = ""
		}
		word(p.Name + "=" + quoted(p.Value) + end)
	}
	b.WriteString("\r\n")
	return b.String()
}

// quoted returns s as a dot-atom or a quoted-string of RFC 5322.
func quoted(s string) string {
	plain := s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] == '.' || isAtext(s[i])
	}
	if plain {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// isAtext is atext of RFC 5322 §3.2.3, widened to UTF-8 (RFC 6532).
func isAtext(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80 || c != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// clean makes a value safe for a header: valid UTF-8 without control
// characters, bounded.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 2*maxValue)], "?"))
	if len(s) > maxValue {
		s = strings.ToValidUTF8(s[:maxValue], "")
	}
	return strings.TrimSpace(s)
}

func isResult(r auth.Result) bool {
	switch r {
	case auth.None, auth.Neutral, auth.Pass, auth.Fail, auth.SoftFail, auth.TempError, auth.PermError:
		return true
	}
	return false
}

// maxPairs and maxKey bound what one field can hold.
const (
	maxPairs = 64
	maxKey   = 60
)

// isKey reports whether s is a name of RFC 7208 §9.1 and §4.6.1.
func isKey(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		alpha := c >= 'a' && c <= 'z'
		if !alpha && (i == 0 || !(s[i] >= '0' && s[i] <= '9') && strings.IndexByte("-_.", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

// ParseReceived parses the value of a Received-SPF field: what follows the
// colon, folded or not. Values are taken as they are found in practice
// (unquoted colons, a missing semicolon); a key that is there again is passed
// over. Errors wrap ErrSyntax.
func ParseReceived(value string) (*Received, error) {
	p := fieldParser{s: value}
	r := new(Received)
	p.cfws()
	r.Result = auth.Result(strings.ToLower(p.until(" \t\r\n(;")))
	if !isResult(r.Result) {
		return nil, fmt.Errorf("%w: Received-SPF without a result", ErrSyntax)
	}
	r.Comment = strings.Join(strings.Fields(p.cfws()), " ")
	seen := make(map[string]bool)
	for p.i < len(p.s) {
		if p.s[p.i] == ';' {
			p.i++
			p.cfws()
			continue
		}
		key := strings.ToLower(p.until(" \t\r\n(;=\""))
		p.cfws()
		if !isKey(key) || p.i == len(p.s) || p.s[p.i] != '=' {
			return nil, fmt.Errorf("%w: Received-SPF has %.40q where a key belongs", ErrSyntax, key)
		}
		p.i++
		p.cfws()
		v, ok := p.value()
		if !ok {
			return nil, fmt.Errorf("%w: Received-SPF has an open quoted string", ErrSyntax)
		}
		p.cfws()
		if seen[key] {
			continue
		}
		if len(seen) == maxPairs {
			return nil, fmt.Errorf("%w: Received-SPF has too many keys", ErrSyntax)
		}
		seen[key] = true
		r.set(key, v)
	}
	return r, nil
}

func (r *Received) set(key, v string) {
	switch key {
	case "receiver":
		r.Receiver = v
	case "identity":
		r.Identity = strings.ToLower(v)
	case "client-ip":
		if ip, err := netip.ParseAddr(v); err == nil {
			r.ClientIP = ip.WithZone("")
		}
	case "envelope-from":
		r.EnvelopeFrom = v
	case "helo":
		r.Hello = v
	case "mechanism":
		r.Mechanism = v
	case "problem":
		r.Problem = v
	default:
		r.Others = append(r.Others, Modifier{key, v})
	}
}

// fieldParser reads the parts of the field.
type fieldParser struct {
	s string
	i int
}

// until takes what stands before one of stop.
func (p *fieldParser) until(stop string) string {
	n := strings.IndexAny(p.s[p.i:], stop)
	if n < 0 {
		n = len(p.s) - p.i
	}
	p.i += n
	return p.s[p.i-n : p.i]
}

// cfws passes over white space and comments and returns the first comment.
// One that does not end goes on to the end.
func (p *fieldParser) cfws() string {
	var first []byte
	found, depth := false, 0
	for ; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		switch {
		case depth == 0 && c == '(':
			depth++
			continue
		case depth == 0 && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		case depth == 0:
			return string(first)
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			c = p.s[p.i]
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				found = true
				continue
			}
		}
		if !found {
			first = append(first, c)
		}
	}
	return string(first)
}

// value takes a quoted-string, or whatever stands there up to a semicolon or
// white space.
func (p *fieldParser) value() (string, bool) {
	if p.i == len(p.s) || p.s[p.i] != '"' {
		return p.until(" \t\r\n;"), true
	}
	var b []byte
	for p.i++; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		switch {
		case c == '"':
			p.i++
			return string(b), true
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			c = p.s[p.i]
		case c == '\r' || c == '\n':
			continue // a fold
		}
		b = append(b, c)
	}
	return "", false
}
