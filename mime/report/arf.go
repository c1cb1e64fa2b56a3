package report

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
)

// ErrNoFeedback says that a message holds no feedback report (RFC 5965).
var ErrNoFeedback = errors.New("report: message has no feedback report")

// FeedbackType is what a feedback report complains of, in lower case. IANA
// keeps the list.
type FeedbackType string

// The types of feedback.
const (
	FeedbackAbuse       FeedbackType = "abuse"        // the recipient calls it spam
	FeedbackFraud       FeedbackType = "fraud"        // phishing and the like
	FeedbackVirus       FeedbackType = "virus"        // malware
	FeedbackOther       FeedbackType = "other"        // none of these
	FeedbackNotSpam     FeedbackType = "not-spam"     // it was filed as spam and is none (RFC 6430)
	FeedbackAuthFailure FeedbackType = "auth-failure" // SPF, DKIM or DMARC failed (RFC 6591)
)

// ARF is a feedback report (RFC 5965): a complaint of a recipient, or of a
// receiving host that a message failed authentication (RFC 6591). The comments
// name its fields. Nothing in a report is proven: that it comes from who it
// says, and is about mail of yours, is for the reader to check.
type ARF struct {
	// Type must be set (Feedback-Type).
	Type FeedbackType
	// UserAgent is the program that made the report, "Name/1.0"; it must be
	// set (User-Agent).
	UserAgent string
	// Version is that of the format; "" = "1" (Version).
	Version string
	// EnvelopeID is the ENVID of the message (Original-Envelope-Id).
	EnvelopeID string
	// MailFrom is the reverse-path without its angle brackets; "<>" = the
	// null one, "" = not told (Original-Mail-From).
	MailFrom string
	// RcptTo are recipients without angle brackets (Original-Rcpt-To).
	RcptTo []string
	// Arrival is when the message came (Arrival-Date); zero = not told.
	Arrival time.Time
	// ReportingMTA is as in DSN, but need not be set (Reporting-MTA).
	ReportingMTA string
	// SourceIP is where the message came from (Source-IP), SourcePort the
	// port there (RFC 6692); zero = not told.
	SourceIP   netip.Addr
	SourcePort uint16
	// Incidents is how many the report stands for (Incidents); 0 = not told,
	// which means one.
	Incidents uint32
	// AuthenticationResults are values of fields of RFC 8601, unfolded.
	AuthenticationResults []string
	// ReportedDomains (Reported-Domain) and ReportedURIs (Reported-URI) are
	// what the report is about.
	ReportedDomains, ReportedURIs []string
	// Fields are all others, those of RFC 6591 §3.2 and RFC 9991 among them:
	// Auth-Failure, Delivery-Result, DKIM-Domain, SPF-DNS, Identity-Alignment
	// … A field that is also set above is an error when written. A long value
	// is folded at its spaces, so base64 should have some.
	Fields mime.Header

	// Text is what people read; "" = a text made from the rest. It is set as
	// that of DSN is.
	Text string

	// OriginalHeader is the header of the message that the report is about,
	// Original opens it in full. One of them must be set: RFC 5965 §2 asks
	// for it. See those of DSN.
	OriginalHeader mime.Header
	Original       func() (io.ReadCloser, error)
}

// ParseARF reads the feedback report that a message holds; the error is
// [ErrNoFeedback] or r's.
func ParseARF(r io.ReaderAt, size int64) (*ARF, error) {
	root, err := mime.Parse(r, size, mime.Limits{})
	if err != nil {
		return nil, err
	}
	return ReadARF(root, r)
}

// ReadARF is [ParseARF] for a message whose structure is known already, as
// [Read] is to [Parse].
func ReadARF(root *mime.Part, r io.ReaderAt) (*ARF, error) {
	found := find(root, "feedback-report")
	if found.status == nil {
		return nil, ErrNoFeedback
	}
	b, err := found.fields(r)
	if err != nil {
		return nil, err
	}
	a := new(ARF)
	a.read(b)
	if a.Text, err = found.prose(r); err != nil {
		return nil, err
	}
	a.OriginalHeader, a.Original, err = found.message(r)
	return a, err
}

func (a *ARF) read(b []byte) {
	var others []byte
	for h := range blocks(b) {
		for f := range h.Fields() {
			if !a.set(f) {
				others = append(others, f.Raw...)
			}
		}
	}
	a.Fields = mime.ParseHeader(others)
}

// set takes one field; false when the struct has no place for it.
func (a *ARF) set(f mime.Field) bool {
	// Of what may appear once the first counts (RFC 5965 §3.2); a second one
	// is dropped.
	once := func(dst *string, v string) {
		if *dst == "" {
			*dst = v
		}
	}
	many := func(dst *[]string, v string) {
		if v != "" {
			*dst = append(*dst, v)
		}
	}
	switch strings.ToLower(f.Name) {
	case "feedback-type":
		if a.Type == "" {
			a.Type = FeedbackType(strings.ToLower(firstWord(f.Value)))
		}
	case "user-agent":
		once(&a.UserAgent, f.Value)
	case "version":
		once(&a.Version, firstWord(f.Value))
	case "original-envelope-id":
		once(&a.EnvelopeID, f.Value)
	case "original-mail-from":
		once(&a.MailFrom, path(f.Value))
	case "original-rcpt-to":
		many(&a.RcptTo, path(f.Value))
	case "arrival-date", "received-date":
		if a.Arrival.IsZero() {
			a.Arrival, _ = mime.ParseDate(f.Value)
		}
	case "reporting-mta":
		kind, value := typed(f.Value)
		once(&a.ReportingMTA, hostName(kind, value))
	case "source-ip":
		if !a.SourceIP.IsValid() {
			a.SourceIP = addr(firstWord(f.Value))
		}
	case "source-port":
		if n, err := strconv.ParseUint(firstWord(f.Value), 10, 16); err == nil && a.SourcePort == 0 {
			a.SourcePort = uint16(n)
		}
	case "incidents":
		if n, err := strconv.ParseUint(firstWord(f.Value), 10, 32); err == nil && a.Incidents == 0 {
			a.Incidents = uint32(n)
		}
	case "authentication-results":
		many(&a.AuthenticationResults, f.Value)
	case "reported-domain":
		many(&a.ReportedDomains, f.Value)
	case "reported-uri":
		many(&a.ReportedURIs, f.Value)
	default:
		return false
	}
	return true
}

// firstWord returns a value without the comment and what else may follow it.
func firstWord(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.IndexAny(s, " \t(;"); i >= 0 {
		s = s[:i]
	}
	return s
}

// path removes the angle brackets, but those of the null path.
func path(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 2 && s[0] == '<' && s[len(s)-1] == '>' {
		return s[1 : len(s)-1]
	}
	return s
}

// bracket reverses path.
func bracket(s string) string {
	if s = path(s); s == "<>" {
		return s
	}
	return "<" + s + ">"
}

// addr reads an address as RFC 5321 §4.1.3 writes it, and as everybody does.
func addr(s string) netip.Addr {
	s = strings.Trim(s, "[]")
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		s = s[5:]
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return netip.Addr{}
	}
	return ip
}

// Message makes the report a message. Its subject is that of the original
// (RFC 5965 §2f).
func (a *ARF) Message(from mime.Address, to ...mime.Address) (*mime.Message, error) {
	c, err := a.Content()
	if err != nil {
		return nil, err
	}
	subject := "FW: " + oneLine(a.OriginalHeader.Text("Subject"))
	m := &mime.Message{From: []mime.Address{from}, To: to, Subject: subject, Parts: []mime.Content{c}}
	if err := m.Header.Add("Auto-Submitted", "auto-generated"); err != nil {
		return nil, err
	}
	return m, nil
}

// Content makes the report a multipart/report (RFC 6522) of the text, the
// fields, and the message it is about. The error is [ErrIncomplete] when a
// field or the message is missing that RFC 5965 §2 and §3.1, or for the type
// "auth-failure" RFC 6591 §3, ask for; or that of Original.
func (a *ARF) Content() (mime.Content, error) {
	var c mime.Content
	body, err := a.body()
	if err != nil {
		return c, err
	}
	original, ok, err := returned(a.OriginalHeader, a.Original, false)
	if err != nil {
		return c, err
	}
	if !ok {
		return c, fmt.Errorf("%w: the message", ErrIncomplete)
	}
	text := a.Text
	if text == "" {
		text = a.explain()
	}
	if err := c.Header.Add("Content-Type", "multipart/report; report-type=feedback-report"); err != nil {
		return c, err
	}
	c.Parts = []mime.Content{
		leaf("text/plain; charset=utf-8", "Notification", []byte(text)),
		leaf("message/feedback-report", "Feedback report", body),
		original,
	}
	return c, nil
}

func (a *ARF) body() ([]byte, error) {
	missing := func(name string) ([]byte, error) { return nil, fmt.Errorf("%w: %s", ErrIncomplete, name) }
	switch {
	case !token(string(a.Type)):
		return missing("Feedback-Type")
	case oneLine(a.UserAgent) == "":
		return missing("User-Agent")
	case a.Type != FeedbackAuthFailure:
	case oneLine(a.Fields.Get("Auth-Failure")) == "":
		return missing("Auth-Failure")
	case len(a.AuthenticationResults) == 0:
		return missing("Authentication-Results")
	}
	version := a.Version
	if version == "" {
		version = "1"
	}
	var w fields
	w.add("Feedback-Type", strings.ToLower(string(a.Type)))
	w.add("User-Agent", a.UserAgent)
	w.add("Version", version)
	for f := range a.Fields.Fields() {
		if new(ARF).set(f) {
			return nil, fmt.Errorf("report: %s is in Fields and has a field of its own", f.Name)
		}
		if !token(f.Name) {
			return nil, fmt.Errorf("report: %w", mime.ErrInjection)
		}
		w.add(f.Name, f.Value)
	}
	if a.EnvelopeID != "" {
		w.add("Original-Envelope-Id", a.EnvelopeID)
	}
	if a.MailFrom != "" {
		w.add("Original-Mail-From", bracket(a.MailFrom))
	}
	for _, s := range a.RcptTo {
		w.add("Original-Rcpt-To", bracket(s))
	}
	w.date("Arrival-Date", a.Arrival)
	if a.ReportingMTA != "" {
		w.add("Reporting-MTA", host(a.ReportingMTA))
	}
	if a.SourceIP.IsValid() {
		// Bare, as in the examples of the RFCs and all reports that are
		// seen, although the grammar has the brackets of RFC 5321.
		w.add("Source-IP", a.SourceIP.Unmap().WithZone("").String())
	}
	if a.SourcePort != 0 {
		w.add("Source-Port", strconv.Itoa(int(a.SourcePort)))
	}
	if a.Incidents != 0 {
		w.add("Incidents", strconv.FormatUint(uint64(a.Incidents), 10))
	}
	for _, s := range a.AuthenticationResults {
		w.add("Authentication-Results", s)
	}
	for _, s := range a.ReportedDomains {
		w.add("Reported-Domain", s)
	}
	for _, s := range a.ReportedURIs {
		w.add("Reported-URI", s)
	}
	return w.b, nil
}

// token reports whether s can stand as a field name and as a token of RFC
// 2045 §5.1.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=`, s[i]) >= 0 {
			return false
		}
	}
	return s != ""
}

// explain writes the text for people.
func (a *ARF) explain() string {
	var b strings.Builder
	what := "an email abuse report"
	switch a.Type {
	case FeedbackAuthFailure:
		what = "an authentication failure report"
	case FeedbackNotSpam:
		what = "a report that a message is not spam"
	}
	fmt.Fprintf(&b, "This is %s for an email message", what)
	if a.SourceIP.IsValid() {
		fmt.Fprintf(&b, " received from %s", a.SourceIP)
	}
	if !a.Arrival.IsZero() {
		fmt.Fprintf(&b, " on %s", mime.FormatDate(a.Arrival))
	}
	b.WriteString(".\n")
	if s := oneLine(a.OriginalHeader.Text("Subject")); s != "" {
		fmt.Fprintf(&b, "Its subject is %q.\n", s)
	}
	b.WriteString("The message, or its header, is attached. See RFC 5965 for this format.\n")
	return b.String()
}
