package tlsrpt

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// ErrRecord is wrapped by what [ParseRecord] returns.
var ErrRecord = errors.New("tlsrpt: malformed record")

// Record is the TXT record at "_smtp._tls." and the domain (RFC 8460 §3).
type Record struct {
	// RUA are the URIs that reports go to, "mailto:" or "https:" and others
	// that nobody knows of yet; at least one.
	RUA []string
}

const (
	recordVersion = "v=TLSRPTv1"
	maxRUA        = 10
)

// IsRecord reports whether a TXT record begins as one of TLS reporting does.
func IsRecord(txt string) bool {
	rest, ok := strings.CutPrefix(txt, recordVersion)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";")
}

// ParseRecord reads a TXT record, its strings joined. Unknown fields are
// passed over.
func ParseRecord(txt string) (Record, error) {
	var r Record
	if !IsRecord(txt) {
		return r, fmt.Errorf("%w: does not begin with %q", ErrRecord, recordVersion+";")
	}
	for f := range strings.SplitSeq(txt[strings.IndexByte(txt, ';')+1:], ";") {
		f = strings.Trim(f, " \t")
		name, value, ok := strings.Cut(f, "=")
		if f == "" {
			continue // RFC 8460 allows one at the end, senders meet them elsewhere
		}
		if !ok || name == "" {
			return Record{}, fmt.Errorf("%w: field %q", ErrRecord, f)
		}
		if name != "rua" || r.RUA != nil {
			continue
		}
		for u := range strings.SplitSeq(value, ",") {
			u = strings.Trim(u, " \t")
			parsed, err := url.Parse(u)
			if err != nil || parsed.Scheme == "" || strings.ContainsAny(u, " \t!") {
				return Record{}, fmt.Errorf("%w: rua %q is no URI", ErrRecord, u)
			}
			if len(r.RUA) < maxRUA {
				r.RUA = append(r.RUA, u)
			}
		}
	}
	if len(r.RUA) == 0 {
		return Record{}, fmt.Errorf("%w: no rua", ErrRecord)
	}
	return r, nil
}

// String returns the text of the record.
func (r Record) String() string { return recordVersion + "; rua=" + strings.Join(r.RUA, ",") }

// mailto returns the address of a mailto URI (RFC 6068): the first, if it has
// several.
func mailto(u string) (smtp.Address, bool) {
	parsed, err := url.Parse(u)
	if err != nil || !strings.EqualFold(parsed.Scheme, "mailto") {
		return smtp.Address{}, false
	}
	first, _, _ := strings.Cut(parsed.Opaque, ",")
	first, err = url.PathUnescape(first)
	if err != nil {
		return smtp.Address{}, false
	}
	a, err := smtp.ParseAddress(first)
	return a, err == nil && a.Domain != ""
}
