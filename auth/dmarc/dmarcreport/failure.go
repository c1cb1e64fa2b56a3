package dmarcreport

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

// Failure is a failure report: one message, or several alike, that failed
// authentication (RFC 9991, RFC 6591). The comments name the fields.
type Failure struct {
	// ARF is the frame (RFC 5965), and what is said of the message. Type and
	// UserAgent have a default here; Fields are those of neither struct.
	report.ARF

	// AuthFailure is dmarc, spf, bodyhash, revoked, signature or adsp
	// (Auth-Failure).
	AuthFailure string
	// Unaligned are the mechanisms, dkim and spf, that gave no aligned pass
	// (Identity-Alignment).
	Unaligned []string
	// DeliveryResult is what became of the message: delivered, spam, policy,
	// reject or other (Delivery-Result).
	DeliveryResult string

	DKIMDomain   string   // DKIM-Domain
	DKIMIdentity string   // DKIM-Identity
	DKIMSelector string   // DKIM-Selector
	DKIMDNS      string   // DKIM-Selector-DNS: the key record
	DKIMHeader   []byte   // DKIM-Canonicalized-Header
	DKIMBody     []byte   // DKIM-Canonicalized-Body
	SPFDNS       []string // SPF-DNS: "txt : domain : record"
}

// ErrIncomplete is what Message returns for a report that lacks a field that
// this package asks for; those that its RFCs ask for are report.ErrIncomplete.
var ErrIncomplete = errors.New("dmarcreport: failure report lacks its source or domain")

// ReadFailure reads the failure report that a message holds, or any other
// feedback report: see its Type. The error is ErrNoReport, or that of r.
// Original of the result reads r.
func ReadFailure(r io.ReaderAt, size int64) (*Failure, error) {
	a, err := report.ParseARF(r, size)
	if errors.Is(err, report.ErrNoFeedback) {
		return nil, fmt.Errorf("%w: %w", ErrNoReport, err)
	}
	if err != nil {
		return nil, err
	}
	f := &Failure{ARF: *a}
	var others []byte
	n := 0
	for field := range a.Fields.Fields() {
		if n++; n > maxList {
			break
		}
		if !f.set(field.Name, strings.TrimSpace(field.Value)) {
			others = append(others, field.Raw...)
		}
	}
	f.Fields = mime.ParseHeader(others)
	return f, nil
}

// set takes one field; false when the struct has no place for it.
func (f *Failure) set(name, v string) bool {
	switch strings.ToLower(name) {
	case "auth-failure":
		f.AuthFailure = strings.ToLower(v)
	case "identity-alignment":
		for m := range strings.SplitSeq(strings.ToLower(v), ",") {
			if m = strings.TrimSpace(m); (m == "dkim" || m == "spf") && !slices.Contains(f.Unaligned, m) {
				f.Unaligned = append(f.Unaligned, m)
			}
		}
	case "delivery-result":
		f.DeliveryResult = strings.ToLower(v)
	case "dkim-domain":
		f.DKIMDomain = domain(v)
	case "dkim-identity":
		f.DKIMIdentity = v
	case "dkim-selector":
		f.DKIMSelector = v
	case "dkim-selector-dns":
		f.DKIMDNS = v
	case "dkim-canonicalized-header":
		f.DKIMHeader = unbase64(v)
	case "dkim-canonicalized-body":
		f.DKIMBody = unbase64(v)
	case "spf-dns":
		f.SPFDNS = append(f.SPFDNS, v)
	default:
		return false
	}
	return true
}

func unbase64(v string) []byte {
	b, err := io.ReadAll(mime.NewBase64Reader(strings.NewReader(v)))
	if err != nil {
		return nil
	}
	return b
}

// Message makes the report a mail from one address to another. It should be
// sent so that DMARC passes for it (RFC 9991 §5.1). The error wraps
// ErrIncomplete or report.ErrIncomplete, or says that a field cannot be
// written.
func (f *Failure) Message(from mime.Address, to smtp.Address) (*mime.Message, error) {
	if len(f.ReportedDomains) == 0 || !f.SourceIP.IsValid() {
		return nil, ErrIncomplete
	}
	a := f.ARF
	if a.Type == "" {
		a.Type = report.FeedbackAuthFailure
	}
	if a.UserAgent == "" {
		a.UserAgent = "Postrider/1.0"
	}
	var failed error
	add := func(name, value string) {
		if value != "" && failed == nil {
			failed = a.Fields.Add(name, value)
		}
	}
	add("Auth-Failure", f.AuthFailure)
	if f.AuthFailure == "dmarc" {
		alignment := strings.Join(f.Unaligned, ", ")
		if alignment == "" {
			alignment = "none"
		}
		add("Identity-Alignment", alignment)
	}
	add("Delivery-Result", f.DeliveryResult)
	add("DKIM-Domain", f.DKIMDomain)
	add("DKIM-Identity", f.DKIMIdentity)
	add("DKIM-Selector", f.DKIMSelector)
	add("DKIM-Selector-DNS", f.DKIMDNS)
	add("DKIM-Canonicalized-Header", inBase64(f.DKIMHeader))
	add("DKIM-Canonicalized-Body", inBase64(f.DKIMBody))
	for _, s := range f.SPFDNS {
		add("SPF-DNS", s)
	}
	if failed != nil {
		return nil, failed
	}
	return a.Message(from, mime.Address{Address: to})
}

// inBase64 has blanks where the field may be folded.
func inBase64(b []byte) string {
	var parts []string
	for chunk := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(b)), 64) {
		parts = append(parts, string(chunk))
	}
	return strings.Join(parts, " ")
}
