package mime

import "strings"

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
