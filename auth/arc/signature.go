package arc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/smtp"
)

// maxNames bounds the h= list of a signature.
const maxNames = 256

// signature is the content of an ARC-Message-Signature or an ARC-Seal.
type signature struct {
	algorithm        string // a=, lower case
	domain, selector string // d=, s=, lower case A-labels
	status           auth.Result
	time, expires    time.Time
	signature        []byte
	from, to         int // where the value of b= lies in the raw field

	// Of an ARC-Message-Signature.
	relaxedHeader, relaxedBody bool
	fields                     []string
	length                     int64 // l=, -1 = the whole body
	bodyHash                   []byte
}

// name is where the key is published, absolute.
func (s *signature) name() string { return dkim.RecordName(s.selector, s.domain) + "." }

// parseTags is canon.ParseTags without its leniency about empty tags: what two
// hosts could read in two ways is no link of a chain.
func parseTags(list string) ([]canon.Tag, error) {
	tags, err := canon.ParseTags(list)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", dkim.ErrSyntax, err)
	}
	for {
		spec, rest, more := strings.Cut(list, ";")
		switch {
		case !more:
			return tags, nil
		case canon.TrimFWS(spec) == "":
			return nil, broken("an empty tag")
		}
		list = rest
	}
}

// instanceOf returns i= of a tag list, 0 when there is none that can be read.
func instanceOf(tags []canon.Tag) int {
	for _, t := range tags {
		if t.Name == "i" {
			return position(t.Value)
		}
	}
	return 0
}

// position is that of RFC 8617 §3.9 in [CFWS]; 0 when it is none.
func position(s string) int {
	s = trimCFWS(s)
	if s == "" || len(s) > 2 || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, _ := strconv.Atoi(s)
	if n > MaxSets {
		return 0
	}
	return n
}

// cutInstance splits the value of an ARC-Authentication-Results field into its
// instance and the rest; 0 when there is none that can be read.
func cutInstance(value string) (instance int, payload string) {
	head, payload, _ := strings.Cut(skipCFWS(value), ";")
	name, v, ok := strings.Cut(head, "=")
	if !ok || trimCFWS(name) != "i" {
		return 0, ""
	}
	return position(v), payload
}

// skipCFWS returns s without the white space and comments that it begins with.
func skipCFWS(s string) string {
	s = canon.TrimFWS(s)
	for strings.HasPrefix(s, "(") {
		depth, i := 0, 0
		for ; i < len(s); i++ {
			if s[i] == '(' {
				depth++
			} else if s[i] == ')' {
				if depth--; depth == 0 {
					break
				}
			}
		}
		s = canon.TrimFWS(s[min(i+1, len(s)):])
	}
	return s
}

// trimCFWS is skipCFWS on both sides.
func trimCFWS(s string) string {
	s = skipCFWS(s)
	if i := strings.IndexByte(s, '('); i > 0 && skipCFWS(s[i:]) == "" {
		s = canon.TrimFWS(s[:i])
	}
	return s
}

func broken(what string) error { return fmt.Errorf("%w: %s", dkim.ErrSyntax, what) }

// parse reads the tags of a field whose value begins at offset at of the raw
// field. Errors wrap dkim.ErrSyntax or dkim.ErrAlgorithm.
func parse(tags []canon.Tag, at int, seal bool) (*signature, error) {
	s := &signature{length: -1}
	need := []string{"a", "b", "d", "s", "bh", "h"}
	if seal {
		need = []string{"a", "b", "d", "s", "cv"}
	}
	for _, name := range need {
		if !slices.ContainsFunc(tags, func(t canon.Tag) bool { return t.Name == name }) {
			return s, broken("no " + name + "= tag")
		}
	}
	for _, t := range tags {
		if err := s.set(t, at, seal); err != nil {
			return s, err
		}
	}
	if !s.expires.IsZero() && !s.time.IsZero() && !s.expires.After(s.time) {
		return s, broken("x= is not after t=")
	}
	return s, nil
}

func (s *signature) set(t canon.Tag, at int, seal bool) (err error) {
	switch t.Name {
	case "a":
		s.algorithm = strings.ToLower(t.Value)
		if s.algorithm != dkim.RSASHA256 && s.algorithm != dkim.Ed25519SHA256 {
			return fmt.Errorf("%w: a=%.40q", dkim.ErrAlgorithm, t.Value)
		}
	case "b":
		s.from, s.to = at+t.From, at+t.To
		if s.signature, err = canon.DecodeBase64(t.Value); err != nil || len(s.signature) == 0 {
			return broken("b= is not base64")
		}
	case "d":
		if s.domain, err = smtp.ParseDomain(t.Value); err != nil || s.domain[0] == '[' {
			return broken("d=")
		}
	case "s":
		if s.selector, err = smtp.ParseDomain(t.Value); err != nil || s.selector[0] == '[' {
			return broken("s=")
		}
	case "t":
		if s.time, err = seconds(t.Value); err != nil {
			return broken("t=")
		}
	case "h":
		if seal {
			return broken("h= in a seal") // RFC 8617 §4.1.3
		}
		return s.setFields(t.Value)
	}
	if seal {
		if t.Name == "cv" {
			s.status = auth.Result(strings.ToLower(t.Value))
		}
		return nil
	}
	switch t.Name {
	case "bh":
		if s.bodyHash, err = canon.DecodeBase64(t.Value); err != nil || len(s.bodyHash) != 32 {
			return broken("bh= is not the base64 of a SHA-256")
		}
	case "c":
		header, body, two := strings.Cut(t.Value, "/")
		if s.relaxedHeader, err = relaxed(header); err == nil && two {
			s.relaxedBody, err = relaxed(body)
		}
		return err
	case "l":
		if t.Value == "" || len(t.Value) > 76 || strings.Trim(t.Value, "0123456789") != "" {
			return broken("l=")
		}
		if s.length, err = strconv.ParseInt(t.Value, 10, 64); err != nil {
			s.length = 1<<63 - 1 // longer than any body
		}
	case "q":
		if !slices.Contains(canon.SplitColon(strings.ToLower(t.Value)), "dns/txt") {
			return fmt.Errorf("%w: q=%.40q", dkim.ErrAlgorithm, t.Value)
		}
	case "x":
		if s.expires, err = seconds(t.Value); err != nil {
			return broken("x=")
		}
	}
	return nil
}

// body is the canonicalization of the body.
func (s *signature) body() dkim.Canonicalization {
	if s.relaxedBody {
		return dkim.Relaxed
	}
	return dkim.Simple
}

func relaxed(c string) (bool, error) {
	switch strings.ToLower(canon.TrimFWS(c)) {
	case "simple":
		return false, nil
	case "relaxed":
		return true, nil
	}
	return false, fmt.Errorf("%w: c=%.40q", dkim.ErrAlgorithm, c)
}

func seconds(v string) (time.Time, error) {
	if v == "" || len(v) > 12 || strings.Trim(v, "0123456789") != "" {
		return time.Time{}, dkim.ErrSyntax
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return time.Unix(n, 0), err
}

// setFields reads h=. It may be empty, and lack From. Of the fields of ARC,
// which must not be there (RFC 8617 §4.1.2), only seals are refused: early
// sealers signed the others, and that does no harm.
func (s *signature) setFields(v string) error {
	if strings.Count(v, ":") >= maxNames {
		return broken("h= is too long")
	}
	if v == "" {
		return nil
	}
	s.fields = canon.SplitColon(v)
	for _, name := range s.fields {
		if strings.EqualFold(name, SealField) {
			return broken("a seal in h=")
		}
	}
	return nil
}

// checkTime holds t= and x= against the clock (RFC 6376 §3.5).
func (s *signature) checkTime(now time.Time, skew time.Duration) error {
	switch {
	case !s.expires.IsZero() && now.Add(-skew).After(s.expires):
		return dkim.ErrExpired
	case s.time.After(now.Add(skew)):
		return dkim.ErrFuture
	}
	return nil
}
