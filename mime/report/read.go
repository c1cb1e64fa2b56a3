package report

import (
	"bytes"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// Limits of what is read of a notice.
const (
	maxStatus     = 1 << 20 // octets of the delivery status
	maxText       = 64 << 10
	maxRecipients = 10_000
)

// Parse reads the notice that a message holds; the error is [ErrNoReport] or
// r's.
func Parse(r io.ReaderAt, size int64) (*DSN, error) {
	root, err := mime.Parse(r, size, mime.Limits{})
	if err != nil {
		return nil, err
	}
	return Read(root, r)
}

// Read is [Parse] for a message whose structure is known already: root is
// what mime.Parse or a mime.Parser gave for r. Of a message with more than
// one delivery status the first counts. Original of the result is set when
// the whole message was returned, and reads r.
func Read(root *mime.Part, r io.ReaderAt) (*DSN, error) {
	found := find(root, "delivery-status", "global-delivery-status")
	if found.status == nil {
		return nil, ErrNoReport
	}
	b, err := found.fields(r)
	if err != nil {
		return nil, err
	}
	d := &DSN{UTF8: strings.HasPrefix(found.status.Subtype, "global-")}
	d.read(b, false)
	if d.Text, err = found.prose(r); err != nil {
		return nil, err
	}
	d.OriginalHeader, d.Original, err = found.message(r)
	return d, err
}

// found are the parts of a report.
type found struct{ text, status, original *mime.Part }

// find looks for a report whose fields are in a part message/… of one of
// those subtypes; status is nil when there is none.
func find(root *mime.Part, subtypes ...string) *found {
	f := new(found)
	f.look(root, subtypes, false)
	return f
}

func (f *found) look(p *mime.Part, subtypes []string, within bool) {
	switch {
	case p.Type == "multipart":
		for _, c := range p.Parts {
			f.look(c, subtypes, true)
		}
	case p.Type == "message" && slices.Contains(subtypes, p.Subtype):
		if f.status == nil {
			f.status = p
		}
	case f.status == nil && p.Type == "text" && p.Subtype == "plain" && within:
		if f.text == nil {
			f.text = p
		}
	case f.status != nil && f.original == nil && isOriginal(p):
		f.original = p
	case p.Message != nil && f.status == nil:
		f.look(p.Message, subtypes, within) // a report that was forwarded
	}
}

// isOriginal reports whether p returns a message or its header.
func isOriginal(p *mime.Part) bool {
	switch p.Type + "/" + p.Subtype {
	case "message/rfc822", "message/global", "message/global-headers", "text/rfc822-headers":
		return true
	}
	return p.Message != nil
}

// fields returns what the part with the fields holds.
func (f *found) fields(r io.ReaderAt) ([]byte, error) {
	return io.ReadAll(io.LimitReader(f.status.Decoded(r), maxStatus))
}

// prose returns the text for people.
func (f *found) prose(r io.ReaderAt) (string, error) {
	if f.text == nil {
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(f.text.Text(r), maxText))
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(strings.ReplaceAll(string(b), "\r\n", "\n"), ""), nil
}

// message returns what was returned of the original message.
func (f *found) message(r io.ReaderAt) (mime.Header, func() (io.ReadCloser, error), error) {
	p := f.original
	if p == nil {
		return mime.Header{}, nil, nil
	}
	if p.Message != nil {
		return p.Message.Header, func() (io.ReadCloser, error) { return io.NopCloser(p.Raw(r)), nil }, nil
	}
	b, err := io.ReadAll(io.LimitReader(p.Decoded(r), maxStatus))
	if err != nil {
		return mime.Header{}, nil, err
	}
	h := mime.ParseHeader(b)
	if p.Type == "message" && p.Subtype != "global-headers" {
		// A message in a transfer encoding, as RFC 6532 §3.5 allows.
		return h, func() (io.ReadCloser, error) { return io.NopCloser(p.Decoded(r)), nil }, nil
	}
	return h, nil, nil
}

// blocks yields the groups of fields in b.
func blocks(b []byte) iter.Seq[mime.Header] {
	return func(yield func(mime.Header) bool) {
		for {
			b = bytes.TrimLeft(b, " \t\r\n")
			h := mime.ParseHeader(b)
			n := len(h.Bytes())
			if n == 0 || !yield(h) {
				return
			}
			b = b[n:]
		}
	}
}

// read takes the groups of fields. The empty lines between them are often
// missing or too many, so fields go where their names say.
// Gateways that take a group for the header of a part encode what follows it,
// in base64; decoded is set for what that was.
func (d *DSN) read(b []byte, decoded bool) {
	for {
		b = bytes.TrimLeft(b, " \t\r\n")
		h := mime.ParseHeader(b)
		block := len(h.Bytes())
		if block == 0 {
			return
		}
		b = b[block:]
		var rcpt *Recipient
		for f := range h.Fields() {
			kind, value := typed(f.Value)
			switch strings.ToLower(f.Name) {
			case "reporting-mta":
				if d.ReportingMTA == "" {
					d.ReportingMTA = hostName(kind, value)
				}
				continue
			case "received-from-mta":
				d.ReceivedFrom = hostName(kind, value)
				continue
			case "arrival-date":
				d.Arrival, _ = mime.ParseDate(f.Value)
			case "deliver-by-date":
				d.DeliverBy, _ = mime.ParseDate(f.Value)
			case "future-release-request":
				d.FutureRelease = strings.TrimSpace(f.Value)
				continue
			case "original-envelope-id":
				d.EnvelopeID = f.Value
				continue
			}
			if !recipientField(f.Name) {
				continue
			}
			final := strings.EqualFold(f.Name, "Final-Recipient")
			original := strings.EqualFold(f.Name, "Original-Recipient")
			if rcpt == nil || final && rcpt.Final != "" || original && rcpt.Final != "" && rcpt.Action != "" {
				if len(d.Recipients) == maxRecipients {
					return
				}
				d.Recipients = append(d.Recipients, Recipient{})
				rcpt = &d.Recipients[len(d.Recipients)-1]
			}
			rcpt.set(f, kind, value)
		}
		if !decoded && strings.EqualFold(h.Get("Content-Transfer-Encoding"), "base64") {
			inner, _ := io.ReadAll(mime.NewBase64Reader(bytes.NewReader(b)))
			b, decoded = inner, true
		}
	}
}

func recipientField(name string) bool {
	switch strings.ToLower(name) {
	case "final-recipient", "original-recipient", "action", "status", "remote-mta",
		"diagnostic-code", "last-attempt-date", "will-retry-until":
		return true
	}
	return false
}

func (r *Recipient) set(f mime.Field, kind, value string) {
	switch strings.ToLower(f.Name) {
	case "final-recipient":
		r.Final, r.FinalType = address(kind, value)
	case "original-recipient":
		r.Original, r.OriginalType = address(kind, value)
	case "action":
		word, _, _ := strings.Cut(f.Value, " ")
		r.Action = Action(strings.ToLower(strings.Trim(word, ";,.()")))
	case "status":
		r.Status = status(f.Value)
	case "remote-mta":
		r.RemoteMTA = hostName(kind, value)
	case "diagnostic-code":
		r.Diagnostic, r.DiagnosticType = value, kind
		if strings.ContainsAny(kind, " \t") {
			r.Diagnostic, r.DiagnosticType = f.Value, "" // no type, but a ";" in the text
		}
	case "last-attempt-date":
		r.LastAttempt, _ = mime.ParseDate(f.Value)
	case "will-retry-until":
		r.RetryUntil, _ = mime.ParseDate(f.Value)
	}
}

// typed divides "type; value".
func typed(s string) (kind, value string) {
	kind, value, ok := strings.Cut(s, ";")
	if !ok {
		return "", s
	}
	return strings.ToLower(strings.TrimSpace(kind)), strings.TrimSpace(value)
}

func hostName(kind, value string) string {
	if kind == "" || kind == "dns" {
		return value
	}
	return kind + "; " + value
}

func address(kind, s string) (addr, addrType string) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		s = s[1 : len(s)-1]
	}
	if kind == "utf-8" {
		s = unescapeAddress(s)
	}
	return s, kind
}

// unescapeAddress reverses escapeAddress.
func unescapeAddress(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, `\x{`)
		if i < 0 {
			break
		}
		hex, rest, ok := strings.Cut(s[i+3:], "}")
		n, err := strconv.ParseUint(hex, 16, 21)
		if !ok || err != nil || n < ' ' || n == 0x7f {
			b.WriteString(s[:i+3])
			s = s[i+3:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteRune(rune(n))
		s = rest
	}
	b.WriteString(s)
	return b.String()
}

// status reads "5.1.1" and what may stand around it.
func status(s string) smtp.EnhancedCode {
	s = strings.TrimSpace(s)
	var code smtp.EnhancedCode
	for i := range code {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		v, err := strconv.ParseUint(s[:n], 10, 16)
		if err != nil || i == 0 && v != 2 && v != 4 && v != 5 {
			return smtp.EnhancedCode{}
		}
		code[i] = uint16(v)
		s = s[n:]
		if i < 2 {
			if s == "" || s[0] != '.' {
				return smtp.EnhancedCode{}
			}
			s = s[1:]
		}
	}
	return code
}
