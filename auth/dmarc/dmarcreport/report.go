package dmarcreport

import (
	"net/netip"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc"
)

// Namespace is that of the XML of RFC 9990.
const Namespace = "urn:ietf:params:xml:ns:dmarc-2.0"

// Report is an aggregate report (RFC 9990 §3.1). The comments name the
// elements of the XML.
type Report struct {
	// Version is what the report says (version), "" = nothing. Write always
	// writes 1.0.
	Version string
	// Namespace is that of the root element: Namespace, "" in most reports
	// of RFC 7489. Write ignores it.
	Namespace string

	Organization string    // org_name
	Email        string    // email: whom to ask about the report
	Contact      string    // extra_contact_info
	ID           string    // report_id
	Begin, End   time.Time // date_range; End is the last second of it
	Errors       []string  // error
	Generator    string    // generator: the program

	Policy  Published // policy_published
	Records []Record  // record

	// Defects is what was wrong with the XML that was read: the report does
	// not follow its RFC, but could be made sense of.
	Defects []string
}

// Published is the policy of a domain as a receiver saw it
// (RFC 9990 §3.1.1.5). Zero values are what was not said.
type Published struct {
	Domain string
	// Method is how it was found (discovery_method): dmarc.TreeWalk or
	// dmarc.PublicSuffixList.
	Method                         string
	Policy, Subdomain, NonExistent dmarc.Policy    // p, sp, np
	DKIM, SPF                      dmarc.Alignment // adkim, aspf
	FailureOptions                 string          // fo, as in the record
	Testing                        bool            // testing
	// Percent is pct of RFC 7489, as it stands there.
	Percent string
}

// Record counts the messages that are alike in all else
// (RFC 9990 §3.1.1.7).
type Record struct {
	// Source is source_ip; SourceText is what stood there when that is no
	// address.
	Source     netip.Addr
	SourceText string
	Count      int64 // count

	// Disposition is what was done (disposition): none, quarantine, reject,
	// or pass for a message that passed a policy other than none.
	Disposition string
	// DKIM and SPF are Pass or Fail: whether there was a pass for a domain
	// that is aligned (policy_evaluated).
	DKIM, SPF auth.Result
	Reasons   []Reason // reason: why Disposition is not the policy

	HeaderFrom   string // header_from: the author domain
	EnvelopeFrom string // envelope_from, "" = null or not told
	EnvelopeTo   string // envelope_to

	Signatures []Signature // auth_results/dkim
	// Hosts is auth_results/spf: none or one in RFC 9990, any number in
	// RFC 7489.
	Hosts []Host
}

// Reason is why a policy was not applied (RFC 9990 §3.1.6).
type Reason struct {
	Type    ReasonType
	Comment string
}

// ReasonType is a kind of Reason.
type ReasonType string

// The kinds that RFC 9990 knows.
const (
	LocalPolicy      ReasonType = "local_policy"
	MailingList      ReasonType = "mailing_list"
	Other            ReasonType = "other"
	TestMode         ReasonType = "policy_test_mode"
	TrustedForwarder ReasonType = "trusted_forwarder"
)

// Signature is what was found out about one DKIM signature.
type Signature struct {
	Domain, Selector string
	Result           auth.Result
	Comment          string // human_result
}

// Host is what SPF said.
type Host struct {
	Domain  string
	Scope   string // mfrom; also helo in RFC 7489
	Result  auth.Result
	Comment string // human_result
}

// Aligned says whether the messages passed DMARC.
func (r *Record) Aligned() bool { return r.DKIM == auth.Pass || r.SPF == auth.Pass }
