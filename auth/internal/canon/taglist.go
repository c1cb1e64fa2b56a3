package canon

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// ErrTags is wrapped by what is wrong with a tag list.
var ErrTags = errors.New("malformed tag list")

// Tag is one tag=value of a list (RFC 6376 §3.2). from and to are where the
// value lies in the list, white space around it included.
type Tag struct {
	Name, Value string
	From, To    int
}

// maxTags bounds the work on one list; the longest in use have about 15.
const maxTags = 64

// ParseTags splits a tag list. Values come without the white space around
// them; folds inside are left in. A repeated name is an error.
func ParseTags(list string) ([]Tag, error) {
	return AppendTags(make([]Tag, 0, 12), list)
}

// AppendTags is ParseTags into the room that tags has.
func AppendTags(tags []Tag, list string) ([]Tag, error) {
	for pos := 0; pos < len(list); {
		end := strings.IndexByte(list[pos:], ';')
		if end < 0 {
			end = len(list)
		} else {
			end += pos
		}
		spec := list[pos:end]
		if TrimFWS(spec) != "" {
			name, value, ok := strings.Cut(spec, "=")
			t := Tag{Name: TrimFWS(name), Value: TrimFWS(value), From: pos + len(name) + 1, To: end}
			if !ok || !isTagName(t.Name) {
				return nil, fmt.Errorf("%w: %.40q is no tag", ErrTags, spec)
			}
			for _, other := range tags {
				if other.Name == t.Name {
					return nil, fmt.Errorf("%w: tag %s= twice", ErrTags, t.Name)
				}
			}
			if len(tags) == maxTags {
				return nil, fmt.Errorf("%w: too many tags", ErrTags)
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

func TrimFWS(s string) string {
	for len(s) > 0 && isFWS(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isFWS(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// DropFWS returns s without any white space.
func DropFWS(s string) string {
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

// SplitColon splits a colon-separated list with white space around its items.
func SplitColon(s string) []string {
	items := make([]string, 0, 1+strings.Count(s, ":"))
	for item := range strings.SplitSeq(s, ":") {
		items = append(items, TrimFWS(item))
	}
	return items
}

// DecodeBase64 decodes a base64string of RFC 6376 §2.10: white space anywhere.
func DecodeBase64(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for s != "" {
		n := 0
		for n < len(s) && s[n] > ' ' {
			n++
		}
		b = append(b, s[:n]...)
		for n < len(s) && isFWS(s[n]) {
			n++
		}
		if n < len(s) && s[n] <= ' ' {
			return nil, base64.CorruptInputError(0) // a control character
		}
		s = s[n:]
	}
	n, err := base64.StdEncoding.Decode(b, b) // in place: what is written is shorter than what was read
	return b[:n], err
}

// DecodeQP decodes dkim-quoted-printable (RFC 6376 §2.11).
func DecodeQP(s string) (string, error) {
	s = DropFWS(s)
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
			return "", fmt.Errorf("%w: quoted-printable", ErrTags)
		}
		hi, lo := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("%w: quoted-printable", ErrTags)
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	return string(b), nil
}

const hexDigits = "0123456789ABCDEF"

// EncodeQP is the inverse of DecodeQP.
func EncodeQP(s string) string {
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
