package tlsrpt

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrReport is wrapped by what [ReadReport] and [ReadMessage] return.
var ErrReport = errors.New("tlsrpt: malformed report")

// ResultType says what went wrong (RFC 8460 §4.3).
type ResultType string

// The result types.
const (
	STARTTLSNotSupported ResultType = "starttls-not-supported"
	HostMismatch         ResultType = "certificate-host-mismatch"
	Expired              ResultType = "certificate-expired"
	NotTrusted           ResultType = "certificate-not-trusted"
	ValidationFailure    ResultType = "validation-failure"
	TLSAInvalid          ResultType = "tlsa-invalid"
	DNSSECInvalid        ResultType = "dnssec-invalid"
	DANERequired         ResultType = "dane-required"
	STSFetchError        ResultType = "sts-policy-fetch-error"
	STSInvalid           ResultType = "sts-policy-invalid"
	STSWebPKIInvalid     ResultType = "sts-webpki-invalid"
)

// PolicyType says what kind of policy was applied.
type PolicyType string

// The policy types.
const (
	PolicyTLSA PolicyType = "tlsa"
	PolicySTS  PolicyType = "sts"
	PolicyNone PolicyType = "no-policy-found"
)

// Report is an aggregate report (RFC 8460 §4.4).
type Report struct {
	Organization string         `json:"organization-name"`
	DateRange    DateRange      `json:"date-range"`
	Contact      string         `json:"contact-info"`
	ID           string         `json:"report-id"`
	Policies     []PolicyResult `json:"policies"`
}

// DateRange is what a report covers, usually a day of UTC.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// PolicyResult is how it went under one policy.
type PolicyResult struct {
	Policy   Policy    `json:"policy"`
	Summary  Summary   `json:"summary"`
	Failures []Failure `json:"failure-details,omitempty"`
}

// Policy is what was applied.
type Policy struct {
	Type PolicyType `json:"policy-type"`
	// String is the policy: the lines of an MTA-STS policy, or TLSA records
	// in the form of master files.
	String Strings `json:"policy-string,omitempty"`
	Domain string  `json:"policy-domain"`
	MXHost Strings `json:"mx-host,omitempty"` // the patterns of an MTA-STS policy
}

// Summary counts sessions.
type Summary struct {
	Successful int64 `json:"total-successful-session-count"`
	Failed     int64 `json:"total-failure-session-count"`
}

// Failure counts the sessions that failed for one reason. What is not known is
// empty.
type Failure struct {
	Type          ResultType `json:"result-type"`
	SendingIP     string     `json:"sending-mta-ip,omitempty"`
	ReceivingMX   string     `json:"receiving-mx-hostname,omitempty"`
	ReceivingHelo string     `json:"receiving-mx-helo,omitempty"`
	ReceivingIP   string     `json:"receiving-ip,omitempty"`
	Sessions      int64      `json:"failed-session-count"`
	Information   string     `json:"additional-information,omitempty"` // a URI
	Reason        string     `json:"failure-reason-code,omitempty"`
}

// Strings is an array of strings; some reporters write a single one.
type Strings []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *Strings) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*s = Strings{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return err
	}
	*s = many
	return nil
}

// Bounds of what is read: a report over them is no report of this world.
const (
	maxReport   = 20 << 20 // octets of JSON
	maxPolicies = 10_000
	maxFailures = 100_000
)

// ReadReport reads a report, JSON or gzip of it, whatever its name says. It
// takes at most 20 MiB of JSON.
func ReadReport(r io.Reader) (*Report, error) {
	br := bufio.NewReader(io.LimitReader(r, maxReport))
	var in io.Reader = br
	if magic, _ := br.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrReport, err)
		}
		in = z
	}
	limited := &io.LimitedReader{R: in, N: maxReport + 1}
	b, err := io.ReadAll(limited)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("%w: larger than %d octets", ErrReport, maxReport)
	}
	rep := new(Report)
	if err := json.Unmarshal(b, rep); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	failures := 0
	for i := range rep.Policies {
		p := &rep.Policies[i]
		failures += len(p.Failures)
		p.Policy.Domain = strings.ToLower(strings.TrimSuffix(p.Policy.Domain, "."))
		if p.Summary.Successful < 0 || p.Summary.Failed < 0 {
			return nil, fmt.Errorf("%w: a negative count", ErrReport)
		}
	}
	switch {
	case len(rep.Policies) == 0:
		return nil, fmt.Errorf("%w: no policies", ErrReport)
	case len(rep.Policies) > maxPolicies || failures > maxFailures:
		return nil, fmt.Errorf("%w: %d policies, %d failures", ErrReport, len(rep.Policies), failures)
	case rep.DateRange.End.Before(rep.DateRange.Start):
		return nil, fmt.Errorf("%w: it ends before it begins", ErrReport)
	}
	return rep, nil
}

// WriteTo writes the report as JSON.
func (rep *Report) WriteTo(w io.Writer) (int64, error) {
	b, err := json.Marshal(rep)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(append(b, '\n'))
	return int64(n), err
}

// Summarize returns one line for each policy: what a person asks first.
func (rep *Report) Summarize() string {
	var b strings.Builder
	for _, p := range rep.Policies {
		total := p.Summary.Successful + p.Summary.Failed
		fmt.Fprintf(&b, "%s, %s, by %s: %d of %d sessions to %s failed", rep.DateRange.Start.UTC().Format(time.DateOnly),
			p.Policy.Type, rep.Organization, p.Summary.Failed, total, p.Policy.Domain)
		sums := map[ResultType]int64{}
		var order []ResultType
		for _, f := range p.Failures {
			if _, ok := sums[f.Type]; !ok {
				order = append(order, f.Type)
			}
			sums[f.Type] += f.Sessions
		}
		for i, t := range order {
			sep := ", "
			if i == 0 {
				sep = ": "
			}
			fmt.Fprintf(&b, "%s%s %d", sep, t, sums[t])
		}
		b.WriteByte('\n')
	}
	return b.String()
}
