package mime

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// BaseSubject returns what is left of a decoded subject without the marks of
// replies, forwards and lists (RFC 5256 §2.1: "Re: [list] Hello (fwd)" is
// "Hello"), and whether one of them was a mark of a reply or forward.
// Messages of one thread have the same, but for the case of letters.
func BaseSubject(subject string) (base string, reply bool) {
	s := strings.Join(strings.FieldsFunc(subject, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\r' || r == '\n'
	}), " ")
	for {
		// (2) the trailers
		for {
			if t := strings.TrimRight(s, " "); len(t) >= 5 && equalFold(t[len(t)-5:], "(fwd)") {
				s, reply = t[:len(t)-5], true
				continue
			} else if t != s {
				s = t
				continue
			}
			break
		}
		// (3) to (5) the leaders, and a blob unless it is all there is
		for {
			s = strings.TrimLeft(s, " ")
			if rest, ok := subjectLeader(s); ok {
				s, reply = rest, true
				continue
			}
			if n := subjectBlob(s); n > 0 && n < len(s) {
				s = s[n:]
				continue
			}
			break
		}
		// (6)
		if len(s) >= 6 && equalFold(s[:5], "[fwd:") && s[len(s)-1] == ']' {
			s, reply = s[5:len(s)-1], true
			continue
		}
		return s, reply
	}
}

// subjectBlob returns the length of "[text]" and the space after it.
func subjectBlob(s string) int {
	if s == "" || s[0] != '[' {
		return 0
	}
	i := strings.IndexAny(s[1:], "[]")
	if i < 0 || s[1+i] != ']' {
		return 0
	}
	i += 2
	for i < len(s) && s[i] == ' ' {
		i++
	}
	return i
}

// subjectLeader cuts off "Re:", "Fw:" or "Fwd:" with blobs before it and one
// before its colon.
func subjectLeader(s string) (rest string, ok bool) {
	for n := subjectBlob(s); n > 0; n = subjectBlob(s) {
		s = s[n:]
	}
	n := 2
	switch {
	case len(s) >= 3 && equalFold(s[:3], "fwd"):
		n = 3
	case len(s) < 2 || !equalFold(s[:2], "re") && !equalFold(s[:2], "fw"):
		return "", false
	}
	s = strings.TrimLeft(s[n:], " ")
	s = s[subjectBlob(s):]
	return strings.CutPrefix(s, ":")
}

// NewMessageID returns a new message identifier at that domain, without angle
// brackets: 128 random bits, so that it is unique without knowing the host
// (RFC 5322 §3.6.4). A domain that cannot stand in one becomes "localhost".
func NewMessageID(domain string) string {
	d, err := smtp.ParseDomain(domain)
	if err != nil {
		d = "localhost"
	}
	return randomHex() + "@" + d
}

func randomHex() string {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// appendMessageIDs collects what stands between angle brackets. A value
// without any gives itself when it is one word with an @.
func appendMessageIDs(ids []string, s string) []string {
	n := len(ids)
	for rest := s; ; {
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		j := strings.IndexAny(rest, "<>")
		if j < 0 {
			break
		}
		if rest[j] == '<' {
			rest = rest[j:]
			continue
		}
		if id := strings.TrimSpace(rest[:j]); id != "" {
			ids = append(ids, id)
		}
		rest = rest[j+1:]
	}
	if len(ids) == n {
		if s = strings.Trim(s, " \t<>"); strings.Contains(s, "@") && !strings.ContainsAny(s, " \t<>,;") {
			ids = append(ids, s)
		}
	}
	return ids
}
