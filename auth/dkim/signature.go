package dkim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/smtp"
)

// FieldName is the name of the header field that carries a signature.
const FieldName = "DKIM-Signature"

// What can be wrong with a signature or its key. The errors of this package
// wrap them.
var (
	ErrSyntax      = errors.New("dkim: syntax error")
	ErrAlgorithm   = errors.New("dkim: algorithm not supported")
	ErrExpired     = errors.New("dkim: signature expired")
	ErrFuture      = errors.New("dkim: signature from the future")
	ErrKeyMissing  = errors.New("dkim: no key for signature")
	ErrKeyRevoked  = errors.New("dkim: key revoked")
	ErrKeyUnfit    = errors.New("dkim: key is not for this signature")
	ErrKeyWeak     = errors.New("dkim: key too short")
	ErrKeyLookup   = errors.New("dkim: key lookup failed")
	ErrBodyHash    = errors.New("dkim: body hash did not verify")
	ErrBodyPartial = errors.New("dkim: signature covers the beginning of the body only")
	ErrSignature   = errors.New("dkim: signature did not verify")
)

// The signature algorithms (RFC 8301 §3.1, RFC 8463 §3). The historic
// rsa-sha1 is neither made nor accepted.
const (
	RSASHA256     = "rsa-sha256"
	Ed25519SHA256 = "ed25519-sha256"
)

// rsaSHA1 is verified only to be reported (Verifier.ReportWeak).
const rsaSHA1 = "rsa-sha1"

// errSHA1 is ErrAlgorithm when all that is wrong is rsa-sha1.
var errSHA1 = fmt.Errorf("%w: rsa-sha1", ErrAlgorithm)

// hashName is the hash of a=, as h= of a key record has it.
func (s *Signature) hashName() string {
	if s.Algorithm == rsaSHA1 {
		return "sha1"
	}
	return "sha256"
}

// maxNames bounds the h= list of a signature; the longest in use have about 50.
const maxNames = 256

// Signature is the content of a DKIM-Signature field (RFC 6376 §3.5).
type Signature struct {
	Algorithm    string           // a=, lower case
	Domain       string           // d=, lower case A-labels
	Selector     string           // s=, lower case A-labels
	Identity     string           // i=, decoded; "@" and d= when not given
	Header, Body Canonicalization // c=
	Fields       []string         // h=, as spelled
	BodyLength   int64            // l=, -1 = not given: the whole body
	Time         time.Time        // t=, zero = not given
	Expires      time.Time        // x=, zero = not given
	BodyHash     []byte           // bh=
	Signature    []byte           // b=

	// Where the value of b= lies in what was parsed.
	from, to int
}

// ParseSignature parses the value of a DKIM-Signature field: what follows the
// colon, folded or not. Errors wrap ErrSyntax, or ErrAlgorithm when all that
// is wrong is an algorithm, canonicalization or query method not known here.
// Signature is non-nil with every error as far as it could be read.
func ParseSignature(value string) (*Signature, error) {
	s := &Signature{Header: Simple, Body: Simple, BodyLength: -1}
	var room [maxTags]canon.Tag
	tags, err := appendTags(room[:0], value)
	if err != nil {
		return s, err
	}
	var later error // of the kind that other errors outrank
	// d= and s= first, so that whatever else is wrong can be attributed.
	for _, t := range tags {
		switch t.Name {
		case "d":
			if s.Domain, err = smtp.ParseDomain(t.Value); err != nil || s.Domain[0] == '[' {
				s.Domain = ""
				return s, fmt.Errorf("%w: d=", ErrSyntax)
			}
			s.Identity = "@" + s.Domain
		case "s":
			if s.Selector, err = smtp.ParseDomain(t.Value); err != nil || s.Selector[0] == '[' {
				s.Selector = ""
				return s, fmt.Errorf("%w: s=", ErrSyntax)
			}
		}
	}
	identity := ""
	for _, t := range tags {
		switch t.Name {
		case "v":
			if t.Value != "1" {
				return s, fmt.Errorf("%w: v= is not 1", ErrSyntax)
			}
		case "a":
			s.Algorithm = strings.ToLower(t.Value)
			switch {
			case s.Algorithm == rsaSHA1 && later == nil:
				later = errSHA1
			case s.Algorithm != RSASHA256 && s.Algorithm != Ed25519SHA256:
				later = fmt.Errorf("%w: a=%.40q", ErrAlgorithm, t.Value)
			}
		case "b":
			s.from, s.to = t.From, t.To
			if s.Signature, err = canon.DecodeBase64(t.Value); err != nil || len(s.Signature) == 0 {
				return s, fmt.Errorf("%w: b= is not base64", ErrSyntax)
			}
		case "bh":
			if s.BodyHash, err = canon.DecodeBase64(t.Value); err != nil || len(s.BodyHash) == 0 {
				return s, fmt.Errorf("%w: bh= is not base64", ErrSyntax)
			}
		case "c":
			if later2 := s.parseCanonicalization(t.Value); later2 != nil {
				later = later2
			}
		case "h":
			if err := s.parseFields(t.Value); err != nil {
				return s, err
			}
		case "i":
			if identity, err = canon.DecodeQP(t.Value); err != nil {
				return s, err
			}
		case "l":
			if s.BodyLength, err = parseNumber(t.Value, 76); err != nil {
				s.BodyLength = -1
				return s, fmt.Errorf("%w: l=", ErrSyntax)
			}
		case "q":
			if !listHas(t.Value, "dns/txt") {
				later = fmt.Errorf("%w: q=%.40q", ErrAlgorithm, t.Value)
			}
		case "t":
			n, err := parseNumber(t.Value, 12)
			if err != nil {
				return s, fmt.Errorf("%w: t=", ErrSyntax)
			}
			s.Time = time.Unix(n, 0)
		case "x":
			n, err := parseNumber(t.Value, 12)
			if err != nil {
				return s, fmt.Errorf("%w: x=", ErrSyntax)
			}
			s.Expires = time.Unix(n, 0)
		}
	}
	for _, name := range [...]string{"v", "a", "b", "bh", "d", "h", "s"} {
		if !slices.ContainsFunc(tags, func(t canon.Tag) bool { return t.Name == name }) {
			return s, fmt.Errorf("%w: no %s= tag", ErrSyntax, name)
		}
	}
	if identity != "" {
		if err := s.setIdentity(identity); err != nil {
			return s, err
		}
	}
	if !s.Expires.IsZero() && !s.Time.IsZero() && !s.Expires.After(s.Time) {
		return s, fmt.Errorf("%w: x= is not after t=", ErrSyntax)
	}
	return s, later
}

func (s *Signature) parseCanonicalization(v string) error {
	header, body, two := strings.Cut(v, "/")
	s.Header = Canonicalization(strings.ToLower(canon.TrimFWS(header)))
	if two {
		s.Body = Canonicalization(strings.ToLower(canon.TrimFWS(body)))
	}
	if !s.Header.known() || !s.Body.known() {
		return fmt.Errorf("%w: c=%.40q", ErrAlgorithm, v)
	}
	return nil
}

func (c Canonicalization) known() bool { return c == Simple || c == Relaxed }

func (s *Signature) parseFields(v string) error {
	if strings.Count(v, ":") >= maxNames {
		return fmt.Errorf("%w: h= is too long", ErrSyntax)
	}
	s.Fields = canon.SplitColon(v)
	from := false
	for _, name := range s.Fields {
		if name == "" {
			return fmt.Errorf("%w: empty name in h=", ErrSyntax)
		}
		from = from || strings.EqualFold(name, "From")
	}
	if !from {
		return fmt.Errorf("%w: From is not in h=", ErrSyntax)
	}
	return nil
}

// setIdentity checks that i= is within d= (RFC 6376 §3.5).
func (s *Signature) setIdentity(identity string) error {
	at := strings.LastIndexByte(identity, '@')
	if at < 0 {
		return fmt.Errorf("%w: i= has no @", ErrSyntax)
	}
	domain, err := smtp.ParseDomain(identity[at+1:])
	if err != nil || domain != s.Domain && !strings.HasSuffix(domain, "."+s.Domain) {
		return fmt.Errorf("%w: i= is not within d=", ErrSyntax)
	}
	s.Identity = identity[:at+1] + domain
	return nil
}

// identityDomain is the domain of i=.
func (s *Signature) identityDomain() string {
	return s.Identity[strings.LastIndexByte(s.Identity, '@')+1:]
}

// listHas reports whether a colon-separated list has an item; case does not
// matter.
func listHas(list, item string) bool {
	for s := range strings.SplitSeq(list, ":") {
		if strings.EqualFold(canon.TrimFWS(s), item) {
			return true
		}
	}
	return false
}

// parseNumber parses up to digits decimal digits; what does not fit is the
// largest number, as good as infinite for lengths and times.
func parseNumber(s string, digits int) (int64, error) {
	if s == "" || len(s) > digits || strings.Trim(s, "0123456789") != "" {
		return 0, ErrSyntax
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 1<<63 - 1, nil
	}
	return n, err
}

// prefix returns the beginning of b=, by which RFC 6008 tells signatures of
// one domain apart.
func (s *Signature) prefix() string {
	if len(s.Signature) < 6 {
		return ""
	}
	return base64.StdEncoding.EncodeToString(s.Signature[:6])
}
