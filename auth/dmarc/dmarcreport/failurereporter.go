package dmarcreport

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// FailureReporter sends failure reports to those who asked for them (ruf). It
// may be used from several goroutines at once; its fields must not change.
//
// Reports tell strangers about people's mail (RFC 9991 §7). By default a
// report has a part of the header, in which the local parts of recipients are replaced
// by a code that is the same for the same address (RFC 6590).
type FailureReporter struct {
	Submitter string       // the name of the reporting host; must be set
	From      mime.Address // must be set, in a domain for which DMARC passes
	Send      func(ctx context.Context, m *mime.Message) error
	// Evaluator checks whether external destinations have agreed; nil = one
	// with the system's resolver.
	Evaluator *dmarc.Evaluator
	// PerHour is how many reports a policy domain gets in an hour; 0 = 10.
	// What exceeds it is told of as Incidents of the next report.
	PerHour int
	// RedactionKey makes the codes; nil = a random one, so that they differ
	// after a restart.
	RedactionKey []byte
	// Unredacted puts in the whole header and body instead, if FailedMessage
	// has them.
	Unredacted bool

	mu    sync.Mutex
	rates map[string]*rate
	key   []byte
}

// FailedMessage is a message and what is needed of it beside the results.
type FailedMessage struct {
	Message
	Header     mime.Header
	Original   func() (io.ReadCloser, error) // nil = only the header is there
	EnvelopeID string
	// DeliveryResult is what became of it: delivered, spam, policy, reject or
	// other (RFC 6591 §3.2.2); "" = not told.
	DeliveryResult string
}

// rate counts what one policy domain got in one hour.
type rate struct {
	hour  int64
	sent  int
	quiet uint32 // not told of yet
}

// maxRates bounds how many domains are remembered.
const maxRates = 10_000

// Report sends failure reports about a message, if the policy asks for them
// (fo and ruf), and returns how many mails were sent. SPF and DKIM that could
// not be checked for now are no failure.
func (fr *FailureReporter) Report(ctx context.Context, m FailedMessage) (int, error) {
	if fr.Submitter == "" || fr.From.Address.Domain == "" || fr.Send == nil {
		return 0, ErrSender
	}
	failure := fr.failure(&m)
	if failure == nil {
		return 0, nil
	}
	// First of all: what is not told of costs no lookups either.
	incidents, ok := fr.allow(m.DMARC.PolicyDomain, m.Time)
	if !ok {
		return 0, nil
	}
	if incidents > 1 {
		failure.Incidents = incidents
	}
	e := fr.Evaluator
	if e == nil {
		e = new(dmarc.Evaluator)
	}
	to, failed := FailureDestinations(ctx, e, m.DMARC.PolicyDomain, m.DMARC.Record.FailureReports)
	if len(to) == 0 {
		return 0, failed
	}
	if s := m.SPF; s != nil && !m.DMARC.SPFAligned && kin(s.Domain, m.DMARC.PolicyDomain) {
		// RFC 9991 §4: required for the failure of an aligned identifier.
		failure.SPFDNS = spfRecords(s)
	}
	sent := 0
	for _, a := range to {
		mail, err := failure.Message(fr.From, a)
		if err == nil {
			err = fr.Send(ctx, mail)
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		sent++
	}
	return sent, failed
}

// Wanted reports whether a policy asks for a failure report about a message
// with these results (RFC 9989 §4.7, fo). Public suffix domains get none
// (RFC 9991 §2).
func Wanted(m *Message) bool {
	ev := m.DMARC
	if ev == nil || ev.Record == nil || len(ev.Record.FailureReports) == 0 || ev.Record.PSD == dmarc.PSDYes ||
		ev.Result != auth.Pass && ev.Result != auth.Fail {
		return false
	}
	for _, o := range ev.Record.FailureOptions {
		switch o {
		case "0":
			if !ev.DKIMAligned && !ev.SPFAligned {
				return true
			}
		case "1":
			if !ev.DKIMAligned || !ev.SPFAligned {
				return true
			}
		case "d":
			for i := range m.DKIM {
				if r := m.DKIM[i].Result; r == auth.Fail || r == auth.PermError || r == auth.Policy {
					return true
				}
			}
		case "s":
			if m.SPF != nil && (m.SPF.Result == auth.Fail || m.SPF.Result == auth.SoftFail || m.SPF.Result == auth.PermError) {
				return true
			}
		}
	}
	return false
}

// failure makes the report about a message, nil when none is wanted.
func (fr *FailureReporter) failure(m *FailedMessage) *Failure {
	if !Wanted(&m.Message) || !m.IP.IsValid() {
		return nil
	}
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	ev := m.DMARC
	f := &Failure{AuthFailure: "dmarc", DeliveryResult: m.DeliveryResult}
	f.ReportedDomains = []string{ev.Domain}
	f.SourceIP, f.ReportingMTA, f.Arrival, f.EnvelopeID = m.IP.Unmap().WithZone(""), fr.Submitter, m.Time, m.EnvelopeID
	f.AuthenticationResults = []string{fr.results(m)}
	if !ev.DKIMAligned {
		f.Unaligned = append(f.Unaligned, "dkim")
		// RFC 9991 §4: required for the failure of an aligned identifier.
		for i := range m.DKIM {
			if v := &m.DKIM[i]; v.Result != auth.Pass && kin(v.Signature.Domain, ev.PolicyDomain) {
				f.DKIMDomain, f.DKIMSelector, f.DKIMIdentity = v.Signature.Domain, v.Signature.Selector, v.Signature.Identity
				break
			}
		}
	}
	if !ev.SPFAligned {
		f.Unaligned = append(f.Unaligned, "spf")
	}
	if m.SPF != nil {
		if f.MailFrom = "<>"; m.SPF.Identity == spf.MailFrom {
			f.MailFrom = m.SPF.Sender
		}
	}
	if fr.Unredacted {
		f.OriginalHeader, f.Original = m.Header, m.Original
	} else {
		f.OriginalHeader = fr.redact(&m.Header)
		if local, host, ok := strings.Cut(f.MailFrom, "@"); ok && !strings.EqualFold(host, ev.Domain) {
			f.MailFrom = fr.code(local) + "@" + host
		}
	}
	return f
}

// results are the Authentication-Results of a message, without its sender:
// Original-Mail-From has that, redacted if need be.
func (fr *FailureReporter) results(m *FailedMessage) string {
	a := auth.AuthenticationResults{AuthServID: fr.Submitter, Results: []auth.MethodResult{m.DMARC.MethodResult()}}
	if m.SPF != nil {
		a.Results = append(a.Results, auth.MethodResult{Method: "spf", Result: m.SPF.Result,
			Props: []auth.Property{{Type: "smtp", Name: m.SPF.Identity, Value: m.SPF.Domain}}})
	}
	for i := range m.DKIM[:min(len(m.DKIM), 10)] {
		a.Results = append(a.Results, m.DKIM[i].MethodResult())
	}
	_, value, _ := strings.Cut(a.String(), ":")
	return strings.Join(strings.Fields(value), " ")
}

// spfRecords quotes the records behind an SPF result, each one that was used
// (RFC 6591 §3.2.6, SPF-DNS).
func spfRecords(ev *spf.Evaluation) []string {
	var out []string
	for i := range ev.Lookups {
		l := &ev.Lookups[i]
		if l.Record == "" || len(l.Record) >= 4096 || strings.ContainsFunc(l.Name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(":;()\"\\", r) }) {
			continue // macros make odd names, which the field has no way to quote
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable(l.Record))
		out = append(out, "txt : "+l.Name+" : \""+quoted+"\"")
	}
	return out
}

// allow counts one incident; false when it must not be told of now. n is how
// many the report stands for.
func (fr *FailureReporter) allow(domain string, now time.Time) (n uint32, ok bool) {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	limit := fr.PerHour
	if limit <= 0 {
		limit = 10
	}
	hour := now.Unix() / 3600
	r := fr.rates[domain]
	if r == nil {
		if fr.rates == nil {
			fr.rates = make(map[string]*rate)
		}
		if len(fr.rates) >= maxRates {
			for d, old := range fr.rates {
				if old.hour < hour {
					delete(fr.rates, d)
				}
			}
			if len(fr.rates) >= maxRates {
				return 0, false
			}
		}
		r = &rate{hour: hour}
		fr.rates[domain] = r
	}
	if hour > r.hour {
		r.hour, r.sent = hour, 0
	}
	if r.sent >= limit {
		r.quiet = min(r.quiet+1, math.MaxUint32-1)
		return 0, false
	}
	r.sent++
	n, r.quiet = r.quiet+1, 0
	return n, true
}

// told are the fields that a redacted header keeps.
var told = []string{"received", "dkim-signature", "authentication-results", "from", "sender", "reply-to", "to", "cc", "date", "subject",
	"message-id", "mime-version", "content-type", "content-transfer-encoding", "list-id", "list-post", "auto-submitted"}

// redact keeps the fields that help to find out what failed, without
// recipients.
func (fr *FailureReporter) redact(h *mime.Header) mime.Header {
	var out mime.Header
	for f := range h.Fields() {
		name := strings.ToLower(f.Name)
		if !slices.Contains(told, name) {
			continue
		}
		value := f.Value
		switch name {
		case "to", "cc":
			value = fr.addresses(f.Value)
		case "received":
			value = forClause.ReplaceAllString(value, "")
		}
		if value != "" {
			_ = out.Add(f.Name, value) // what cannot be written is left out
		}
	}
	return out
}

// forClause names the recipient in Received.
var forClause = regexp.MustCompile(`(?i)\bfor\s+<?[^\s<>;]+@[^\s<>;]+>?`)

func (fr *FailureReporter) addresses(value string) string {
	list, _ := mime.ParseAddressList(value)
	var out []string
	for _, a := range list {
		out = append(out, smtp.Address{Local: fr.code(a.Local), Domain: a.Domain}.String())
	}
	return strings.Join(out, ", ")
}

// code stands for a local part (RFC 6590 §3).
func (fr *FailureReporter) code(local string) string {
	fr.mu.Lock()
	if fr.key == nil {
		if fr.key = fr.RedactionKey; fr.key == nil {
			fr.key = []byte(rand.Text())
		}
	}
	key := fr.key
	fr.mu.Unlock()
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, strings.ToLower(local))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}
