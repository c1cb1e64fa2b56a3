package dkim

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// tag is one tag=value of a list (RFC 6376 §3.2). from and to are where the
// value lies in the list, white space around it included.
type tag struct {
	name, value string
	from, to    int
}

// maxTags bounds the work on one list; the longest in use have about 15.
const maxTags = 64

// parseTags splits a tag list. Values come without the white space around
// them; folds inside are left in. A repeated name is an error.
func parseTags(list string) ([]tag, error) {
	tags := make([]tag, 0, 12)
	for pos := 0; pos < len(list); {
		end := strings.IndexByte(list[pos:], ';')
		if end < 0 {
			end = len(list)
		} else {
			end += pos
		}
		spec := list[pos:end]
		if trimFWS(spec) != "" {
			name, value, ok := strings.Cut(spec, "=")
			t := tag{name: trimFWS(name), value: trimFWS(value), from: pos + len(name) + 1, to: end}
			if !ok || !isTagName(t.name) {
				return nil, fmt.Errorf("%w: %.40q is no tag", ErrSyntax, spec)
			}
			for _, other := range tags {
				if other.name == t.name {
					return nil, fmt.Errorf("%w: tag %s= twice", ErrSyntax, t.name)
				}
			}
			if len(tags) == maxTags {
				return nil, fmt.Errorf("%w: too many tags", ErrSyntax)
			}
			tags = append(tags, t)
		}
		pos = end + 1
	}
	return tags, nil
}

func isTagName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		alpha := c >= 'a' && c <= 'z'
		if !alpha && (i == 0 || !(s[i] >= '0' && s[i] <= '9' || s[i] == '_')) {
			return false
		}
	}
	return s != ""
}

func isFWS(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func trimFWS(s string) string {
	for len(s) > 0 && isFWS(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isFWS(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// dropFWS returns s without any white space.
func dropFWS(s string) string {
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if !isFWS(s[i]) {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// splitColon splits a colon-separated list with white space around its items.
func splitColon(s string) []string {
	items := make([]string, 0, 1+strings.Count(s, ":"))
	for item := range strings.SplitSeq(s, ":") {
		items = append(items, trimFWS(item))
	}
	return items
}

// decodeBase64 decodes a base64string of RFC 6376 §2.10: white space anywhere.
func decodeBase64(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if !isFWS(s[i]) {
			b = append(b, s[i])
		}
	}
	n, err := base64.StdEncoding.Decode(b, b) // in place: what is written is shorter than what was read
	return b[:n], err
}

// decodeQP decodes dkim-quoted-printable (RFC 6376 §2.11).
func decodeQP(s string) (string, error) {
	s = dropFWS(s)
	if !strings.Contains(s, "=") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%w: quoted-printable", ErrSyntax)
		}
		hi, lo := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("%w: quoted-printable", ErrSyntax)
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	return string(b), nil
}

const hexDigits = "0123456789ABCDEF"

// encodeQP is the inverse of decodeQP.
func encodeQP(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c == ';' || c == '=' || c == 0x7f {
			b = append(b, '=', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		b = append(b, c)
	}
	return string(b)
}
