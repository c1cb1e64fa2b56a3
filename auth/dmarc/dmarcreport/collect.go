package dmarcreport

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
)

// Message is what a receiver found out about one message, and what it did. The
// parts are those that verify.Result has.
type Message struct {
	Time  time.Time // zero = now
	IP    netip.Addr
	DMARC *dmarc.Evaluation
	SPF   *spf.Evaluation // of the MAIL FROM identity, nil = not checked
	DKIM  []dkim.Verification
	// EnvelopeTo is the domain of the recipient; "" leaves it out.
	EnvelopeTo string
	// Applied is what was done because of DMARC; "" = what the policy asked
	// for. Reasons say why that is something else; without any a deviation
	// is reported as LocalPolicy.
	Applied dmarc.Policy
	Reasons []Reason
}

// Collector counts messages for the reports. It may be used from several
// goroutines at once.
type Collector struct {
	Storage Storage
	// Period is what one report covers, counted from midnight UTC; 0 = 24 h.
	// It should divide a day.
	Period time.Duration
}

// Add counts a message, unless nobody asked for reports about it.
func (c *Collector) Add(ctx context.Context, m Message) error {
	if m.DMARC == nil || m.DMARC.Record == nil || len(m.DMARC.Record.AggregateReports) == 0 || !m.IP.IsValid() {
		return nil
	}
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	period := c.Period
	if period <= 0 {
		period = 24 * time.Hour
	}
	begin := m.Time.UTC().Truncate(period)
	k := Key{Domain: m.DMARC.PolicyDomain, Begin: begin, End: begin.Add(period)}
	return c.Storage.Add(ctx, k, target(m.DMARC), m.record())
}

func target(ev *dmarc.Evaluation) Target {
	r := ev.Record
	t := Target{
		Policy: Published{
			Domain: ev.PolicyDomain, Method: ev.Method,
			Policy: r.Policy, Subdomain: r.Subdomain, NonExistent: r.NonExistent,
			DKIM: r.DKIM, SPF: r.SPF, Testing: r.Testing,
			FailureOptions: strings.Join(r.FailureOptions, ":"),
		},
		Addresses: r.AggregateReports,
	}
	if r.Broken {
		t.Errors = []string{"p is missing, or p, sp or np is not valid: taken for p=none"}
		t.Policy.Policy = dmarc.NoPolicy
	}
	return t
}

// record makes a record of one message.
func (m *Message) record() Record {
	ev := m.DMARC
	r := Record{
		Source: m.IP.Unmap().WithZone(""), Count: 1,
		DKIM: auth.Fail, SPF: auth.Fail,
		HeaderFrom: ev.Domain, EnvelopeTo: m.EnvelopeTo,
		Reasons: m.Reasons,
	}
	if ev.DKIMAligned {
		r.DKIM = auth.Pass
	}
	if ev.SPFAligned {
		r.SPF = auth.Pass
	}
	r.Disposition = m.disposition(&r)
	if m.SPF != nil {
		h := Host{Domain: m.SPF.Domain, Result: m.SPF.Result}
		if m.SPF.Identity == spf.MailFrom {
			h.Scope, r.EnvelopeFrom = "mfrom", m.SPF.Domain
		}
		r.Hosts = []Host{h}
	}
	for i := range m.DKIM {
		v := &m.DKIM[i]
		if v.Signature.Domain == "" {
			continue // not even that could be read
		}
		s := Signature{Domain: v.Signature.Domain, Selector: v.Signature.Selector, Result: v.Result}
		if v.Err != nil {
			s.Comment = v.Reason()
		}
		r.Signatures = append(r.Signatures, s)
	}
	r.Signatures = preferred(r.Signatures, ev)
	return r
}

func (m *Message) disposition(r *Record) string {
	ev := m.DMARC
	if ev.Result == auth.Pass {
		if ev.Policy == dmarc.NoPolicy {
			return string(dmarc.NoPolicy)
		}
		return "pass"
	}
	applied := m.Applied
	if applied == "" {
		applied = ev.Disposition
	}
	if applied == "" {
		applied = dmarc.NoPolicy
	}
	if applied != ev.Policy && len(r.Reasons) == 0 {
		// RFC 9990 §3.1.1.9: there must be a reason then.
		switch {
		case ev.Result != auth.Fail:
			r.Reasons = []Reason{{Other, "DMARC could not be evaluated: " + string(ev.Result)}}
		case applied == ev.Disposition:
			r.Reasons = []Reason{{TestMode, ""}}
		default:
			r.Reasons = []Reason{{LocalPolicy, ""}}
		}
	}
	return string(applied)
}

// maxSignatures is how many signatures one record may have
// (RFC 9990 §3.1.3).
const maxSignatures = 100

// preferred sorts signatures as RFC 9990 §3.1.3 prefers them. A passing
// signature at or below the policy domain counts as aligned.
func preferred(list []Signature, ev *dmarc.Evaluation) []Signature {
	rank := func(s Signature) int {
		switch {
		case s.Result != auth.Pass:
			return 3
		case s.Domain == ev.Domain:
			return 0
		case s.Domain == ev.PolicyDomain || strings.HasSuffix(s.Domain, "."+ev.PolicyDomain):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(list, func(a, b Signature) int { return cmp.Compare(rank(a), rank(b)) })
	return list[:min(len(list), maxSignatures)]
}
