package report

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// Class is why mail did not reach a recipient, or what else a notice says. It
// is made for one decision: whether to write to that address again.
type Class string

// The classes. Hard ones say that the address is no good; all others say
// nothing against it.
const (
	BadMailbox  Class = "bad-mailbox"  // hard: there is no such mailbox
	Inactive    Class = "inactive"     // hard: the mailbox is disabled or takes no mail
	BadDomain   Class = "bad-domain"   // hard: there is no such domain, or it takes no mail
	MailboxFull Class = "mailbox-full" // soft: over its quota
	TooLarge    Class = "too-large"    // soft: this message is too big
	Spam        Class = "spam"         // soft: content or reputation of the sender, block lists
	AuthFailure Class = "auth-failure" // soft: SPF, DKIM, DMARC or reverse DNS of the sender
	Policy      Class = "policy"       // soft: refused by rule, relaying denied, closed lists
	RateLimit   Class = "rate-limit"   // soft: too much at once, greylisting
	Temporary   Class = "temporary"    // soft: host or network, given up after a time
	System      Class = "system"       // soft: loops, configuration, protocol errors
	Late        Class = "delayed"      // not given up yet
	Success     Class = "delivered"    // delivered, relayed, or read
	AutoReply   Class = "auto-reply"   // somebody is away
	Challenge   Class = "challenge"    // wants the sender to confirm
	Complaint   Class = "complaint"    // a feedback report: do not write again, although the address is good
	Unknown     Class = "unknown"      // soft: not delivered, and nothing tells why
)

// Hard reports whether the address itself is no good, so that mail to it will
// not be delivered later either.
func (c Class) Hard() bool { return c == BadMailbox || c == Inactive || c == BadDomain }

// Notice is what a message says about another one that was sent.
type Notice struct {
	// Class is that of the recipients; when they differ a hard one, else the
	// first. It is "" when the message is no notice at all.
	Class Class
	// MessageID is that of the original, without <>; "" = not told.
	MessageID string
	// EnvelopeID is the ENVID of the original; "" = not told.
	EnvelopeID string
	// Recipients may be missing: not every notice says whom it is about.
	Recipients []Bounce
}

// Bounce is what a notice says about one recipient.
type Bounce struct {
	Class Class
	// Recipient is the address as the sender gave it, as far as that is
	// known; Final the one that was tried in the end.
	Recipient, Final string
	// Status is zero when not told.
	Status smtp.EnhancedCode
	// RemoteHost gave the answer Diagnostic; "" = not told.
	RemoteHost, Diagnostic string
}

// Classify reads a message that came back: the reports of this package, and
// the bounces and automatic replies of those who follow no standard. root is
// what mime.Parse gave for r. The error is r's.
//
// Anybody can write a bounce. Act on one only when it came to an address of
// yours that proves it (VERP, BATV), or MessageID or EnvelopeID are yours.
func Classify(root *mime.Part, r io.ReaderAt) (*Notice, error) {
	d, err := Read(root, r)
	if err == nil && len(d.Recipients) > 0 {
		return d.notice(), nil
	}
	if err != nil && !errors.Is(err, ErrNoReport) {
		return nil, err
	}
	a, err := ReadARF(root, r)
	if err == nil {
		return a.notice(), nil
	}
	if !errors.Is(err, ErrNoFeedback) {
		return nil, err
	}
	m, err := ReadMDN(root, r)
	if err == nil {
		return m.notice(), nil
	}
	if !errors.Is(err, ErrNoDisposition) {
		return nil, err
	}
	return readProse(root, r)
}

// ClassOf returns the class of one answer of a host, as it stands in a bounce
// or in the error of a client: an enhanced code (zero = unknown) and the text
// with or without its codes.
func ClassOf(code smtp.EnhancedCode, text string) Class {
	basic := replyCode(text)
	if code == (smtp.EnhancedCode{}) {
		code = enhancedCode(text)
	}
	text = foldSpace(text)
	// What clears the address wins over codes, since many hosts give 5.1.1
	// to all that they refuse.
	if c := match(text, strong); c != "" {
		return c
	}
	if c := byCode(code); c != "" {
		return c
	}
	if c := match(text, weak); c != "" {
		return c
	}
	if c := byDetail(code); c != "" {
		return c
	}
	switch basic {
	case 421, 432, 441, 442, 450, 451, 454:
		return Temporary
	case 452, 552:
		return MailboxFull
	case 500, 501, 502, 503, 504:
		return System
	case 521, 556:
		return BadDomain
	}
	if code[0] == 4 || basic >= 400 && basic < 500 {
		return Temporary
	}
	return Unknown
}

// byCode returns the class of codes that are clear (RFC 3463, RFC 7372, RFC
// 7505 and the codes of large hosts).
func byCode(c smtp.EnhancedCode) Class {
	if c[0] == 2 {
		return Success
	}
	switch [2]uint16{c[1], c[2]} {
	case [2]uint16{1, 1}, [2]uint16{1, 3}, [2]uint16{1, 4}, [2]uint16{1, 6}:
		return BadMailbox
	case [2]uint16{1, 2}, [2]uint16{4, 310}:
		if c[0] == 5 {
			return BadDomain
		}
		return Temporary
	case [2]uint16{1, 7}, [2]uint16{1, 8}:
		return Policy // it is the sender's address
	case [2]uint16{1, 9}, [2]uint16{7, 27}:
		return Policy
	case [2]uint16{2, 2}:
		return MailboxFull
	case [2]uint16{2, 3}, [2]uint16{3, 4}:
		return TooLarge
	case [2]uint16{4, 6}, [2]uint16{4, 14}, [2]uint16{4, 8}:
		return System // loops
	case [2]uint16{4, 7}:
		return Temporary
	case [2]uint16{7, 20}, [2]uint16{7, 21}, [2]uint16{7, 22}, [2]uint16{7, 23}, [2]uint16{7, 24}, [2]uint16{7, 25},
		[2]uint16{7, 26}, [2]uint16{7, 29}, [2]uint16{7, 509}, [2]uint16{7, 515}:
		return AuthFailure
	case [2]uint16{7, 28}:
		return RateLimit
	}
	return ""
}

// byDetail returns what is left to be said of a code whose text says nothing.
func byDetail(c smtp.EnhancedCode) Class {
	if c[0] != 5 && c[0] != 4 {
		return ""
	}
	switch c[1] {
	case 1:
		if c[0] == 4 {
			return Temporary
		}
		return BadMailbox
	case 2:
		if c[2] == 1 && c[0] == 5 {
			return Inactive
		}
		if c[2] == 4 {
			return System
		}
	case 3, 5, 6:
		if c[0] == 5 && c[2] != 0 {
			return System
		}
	case 4:
		if c[0] == 5 && c[2] == 4 {
			return BadDomain // no route: RFC 3463 §3.5
		}
		return Temporary
	case 7:
		return Policy
	}
	if c[0] == 4 {
		return Temporary
	}
	return ""
}

type phrases struct {
	class Class
	any   []string
}

// strong are words that say more than a code; in lower case. The first that
// is found counts.
func strong() []phrases {
	return []phrases{
		{AuthFailure, []string{"dmarc", "spf check", "spf fail", "spf:", " spf ", "dkim", "sender policy framework", "unauthenticated email", "not authenticated", "reverse dns", "ptr record", "fcrdns", "openspf"}},
		{RateLimit, []string{"rate limit", "ratelimit", "rate that", "too many messages", "too many connections", "too many recipients", "throttl", "greylist", "graylist", "grey list", "try again in", "unusual rate", "temporarily deferred due to", "exceeded the max"}},
		{Spam, []string{"spam", "blacklist", "blocklist", "block list", "black list", "blocked using", "spamhaus", "spamcop", "barracuda", "dnsbl", " rbl", "reputation", "unsolicited", "bulk mail", "virus", "malware", "phish", "jmrp", "listed at", "poor reputation", "banned sender", "blocked by our content", "s3140", "s3150", "content rejected", "blocked for abuse"}},
		{BadDomain, []string{"null mx", "nullmx", "does not accept mail (nullmx)"}},
		{BadMailbox, []string{"recipientnotfound", "recipnotfound", "resolver.adr.exrecipnotfound"}},
		{TooLarge, []string{"message size", "too large", "too big", "exceeds size", "size limit", "maximum size", "max message size", "exceeds maximum"}},
		{MailboxFull, []string{"mailbox full", "mailbox is full", "mailbox for user is full", "quota", "out of storage", "insufficient storage", "over the allowed", "no space left in mailbox", "storage space", "inbox is full", "mailbox size"}},
	}
}

// weak are words that count when the code is not clear.
func weak() []phrases {
	return []phrases{
		{System, []string{"loop", "too many hops", "hop count"}},
		{BadDomain, []string{
			"host unknown", "unknown host", "domain not found", "no such domain", "name or service not known", "host or domain name not found",
			"couldn't find any host", "could not find any host", "domain does not exist", "unrouteable mail domain", "nxdomain", "host not found",
			"no mx record", "bad destination host", "domain name not found", "unrouteable domain", "couldn't be found", "domain isn't in my list", "invalid domain",
			"all relevant mx records point to non-existent hosts", "no mail server",
		}},
		{Inactive, []string{
			"disabled", "inactive", "suspended", "deactivated", "no longer active", "account is locked", "not active", "discontinued", "account expired",
			"no longer in use", "no longer valid", "mailbox is closed", "account has been closed", "account closed", "no longer employed",
		}},
		{BadMailbox, []string{
			"user unknown", "unknown user", "no such user", "nosuchuser", "does not exist", "doesn't exist", "unknown recipient", "recipient unknown",
			"no such mailbox", "mailbox unavailable", "mailbox not found", "user not found", "recipient not found", "invalid recipient", "no mailbox here", "unknown address",
			"address unknown", "no such recipient", "addressee unknown", "invalid mailbox", "unknown mailbox", "unknown or illegal alias", "not a registered", "not our customer",
			"doesn't have a", "no such person", "not known", "unknown local", "no such address", "bad address", "user doesn't", "unrouteable address", "user invalid",
			"account that you tried to reach", "not listed in", "recipient address rejected", "recipient rejected", "not a valid mailbox", "mailbox does not", "isn't a valid", "address not found",
			"wasn't found at", "invalid address", "no longer available", "no account by that name", "unknown account", "account not found", "recipient is not exist", "undeliverable address", "invalid user",
		}},
		{Policy, []string{
			"relay", "access denied", "not permitted", "not allowed", "policy", "prohibited", "administratively", "only members", "restricted", "permission", "blocked",
			"refused by", "rejected", "denied", "sender address", "unauthorized", "not authorized", "requires authentication", "must authenticate", "rejected by recipient",
		}},
		{Temporary, []string{
			"timed out", "timeout", "connection refused", "connect to", "connection lost", "no route to host", "network is unreachable", "temporar", "try again", "too long",
			"retry time", "couldn't establish", "not responding", "lookup failure", "could not be reached", "unreachable", "try later", "service unavailable", "expired", "connection dropped",
			"deferred", "lost connection", "internal error", "not been able to", "server busy", "resources",
		}},
	}
}

// match returns the class of the first phrase in text, which is in lower case
// with single spaces.
func match(text string, table func() []phrases) Class {
	for _, p := range table() {
		if slices.ContainsFunc(p.any, func(s string) bool { return strings.Contains(text, s) }) {
			return p.class
		}
	}
	return ""
}

// foldSpace writes text in lower case on one line, with a space at either end.
func foldSpace(text string) string {
	return " " + strings.ToLower(strings.Join(strings.Fields(text), " ")) + " "
}

// replyCode finds an SMTP reply code such as 550, 0 when there is none.
func replyCode(s string) int {
	for i := 0; i+3 <= len(s); i++ {
		if (s[i] == '4' || s[i] == '5') && s[i+1] >= '0' && s[i+1] <= '7' && isDigit(s, i+2) &&
			!wordOctet(s, i-1) && !wordOctet(s, i+3) && !isDigit(s, i+4) {
			return int(s[i]-'0')*100 + int(s[i+1]-'0')*10 + int(s[i+2]-'0')
		}
	}
	return 0
}

// enhancedCode finds a code such as 5.1.1 that is no part of an address.
func enhancedCode(s string) smtp.EnhancedCode {
	for i := range len(s) {
		if s[i] < '2' || s[i] > '5' || s[i] == '3' || !strings.HasPrefix(s[i+1:], ".") || wordOctet(s, i-1) || i > 0 && s[i-1] == '.' {
			continue
		}
		n := i
		for n < len(s) && (s[n] == '.' || isDigit(s, n)) {
			n++
		}
		word := strings.TrimRight(s[i:n], ".")
		if strings.Count(word, ".") == 2 && len(word) <= 9 && !wordOctet(s, n) {
			if c := status(word); c != (smtp.EnhancedCode{}) {
				return c
			}
		}
	}
	return smtp.EnhancedCode{}
}

func isDigit(s string, i int) bool { return i >= 0 && i < len(s) && s[i] >= '0' && s[i] <= '9' }

// wordOctet reports whether s[i] continues a word or number.
func wordOctet(s string, i int) bool {
	return isDigit(s, i) || i >= 0 && i < len(s) && (s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z' || s[i] >= 0x80 || s[i] == '_' || s[i] == '@')
}

// notice classifies a delivery status notification.
func (d *DSN) notice() *Notice {
	n := &Notice{EnvelopeID: d.EnvelopeID, MessageID: writableID(d.OriginalHeader.MessageIDs("Message-ID"))}
	for i := range d.Recipients {
		r := &d.Recipients[i]
		b := Bounce{Recipient: r.Original, Final: r.Final, Status: r.Status, RemoteHost: r.RemoteMTA, Diagnostic: r.Diagnostic}
		if b.Recipient == "" || r.OriginalType == "unknown" {
			b.Recipient = r.Final
		}
		switch r.Action {
		case Delivered, Relayed, Expanded:
			b.Class = Success
		case Delayed:
			b.Class = Late
		default:
			b.Class = ClassOf(r.Status, r.Diagnostic)
			if (b.Class == Unknown || b.Class == Temporary && r.Diagnostic == "") && len(d.Recipients) == 1 {
				// The status says little: what people are told may say more.
				text := d.Text
				if i := cut(text); i >= 0 {
					text = text[:i]
				}
				if c := ClassOf(smtp.EnhancedCode{}, text); c != Unknown {
					b.Class = c
				}
			}
			if b.Class == Success {
				b.Class = Unknown // "failed" with a status of success
			}
		}
		n.Recipients = append(n.Recipients, b)
	}
	n.sum()
	return n
}

// sum sets the class of the whole.
func (n *Notice) sum() {
	for _, b := range n.Recipients {
		if n.Class == "" || b.Class.Hard() && !n.Class.Hard() {
			n.Class = b.Class
		}
	}
}

func (a *ARF) notice() *Notice {
	n := &Notice{Class: Complaint, EnvelopeID: a.EnvelopeID, MessageID: writableID(a.OriginalHeader.MessageIDs("Message-ID"))}
	switch a.Type {
	case FeedbackAuthFailure:
		n.Class = AuthFailure
	case FeedbackNotSpam:
		n.Class = Success
	}
	rcpt := a.RcptTo
	if len(rcpt) == 0 {
		for _, name := range []string{"Removal-Recipient", "X-Removal-Recipient"} {
			if s := path(a.Fields.Get(name)); s != "" {
				rcpt = []string{s}
			}
		}
	}
	for _, s := range rcpt {
		n.Recipients = append(n.Recipients, Bounce{Class: n.Class, Recipient: s, Final: s})
	}
	return n
}

func (m *MDN) notice() *Notice {
	n := &Notice{Class: Success, MessageID: m.messageID()}
	if m.Automatic && m.Disposition == Deleted {
		n.Class = Policy // the reject of Sieve (RFC 5429 §2.1)
	}
	b := Bounce{Class: n.Class, Recipient: m.Original, Final: m.Final, Diagnostic: strings.Join(m.Errors, " ")}
	if b.Recipient == "" {
		b.Recipient = b.Final
	}
	if b.Recipient != "" {
		n.Recipients = []Bounce{b}
	}
	return n
}
