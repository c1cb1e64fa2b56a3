package imap

import (
	"encoding/base64"
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrUTF7 is what DecodeUTF7 returns for a name that is no modified UTF-7.
var ErrUTF7 = errors.New("imap: malformed modified UTF-7")

var utf7Encoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding).Strict()

// EncodeUTF7 turns a mailbox name into the modified UTF-7 of IMAP4rev1 (RFC
// 3501 §5.1.3). What is no valid UTF-8 becomes U+FFFD.
func EncodeUTF7(s string) string {
	plain := true
	for i := range len(s) {
		if s[i] == '&' || s[i] < ' ' || s[i] > '~' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var out, u16 []byte
	flush := func() {
		if len(u16) > 0 {
			out = append(out, '&')
			out = utf7Encoding.AppendEncode(out, u16)
			out = append(out, '-')
			u16 = u16[:0]
		}
	}
	for _, r := range s {
		if r >= ' ' && r <= '~' {
			flush()
			if out = append(out, byte(r)); r == '&' {
				out = append(out, '-')
			}
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			u16 = append(u16, byte(u>>8), byte(u))
		}
	}
	flush()
	return string(out)
}

// DecodeUTF7 turns modified UTF-7 into UTF-8. It takes the one encoding that
// a name has: no base64 of printable US-ASCII, no two shifts in a row, no
// unpaired surrogates, no bits left over (RFC 3501 §5.1.3).
func DecodeUTF7(s string) (string, error) {
	var out []byte
	shiftEnd := -1 // where the last base64 run ended
	for i := 0; i < len(s); {
		c := s[i]
		if c < ' ' || c > '~' {
			return "", ErrUTF7
		}
		if c != '&' {
			out = append(out, c)
			i++
			continue
		}
		end := i + 1
		for end < len(s) && s[end] != '-' {
			end++
		}
		if end == len(s) {
			return "", ErrUTF7
		}
		if end == i+1 {
			out = append(out, '&')
		} else {
			if shiftEnd == i {
				return "", ErrUTF7
			}
			var err error
			if out, err = appendUTF16(out, s[i+1:end]); err != nil {
				return "", err
			}
			shiftEnd = end + 1
		}
		i = end + 1
	}
	return string(out), nil
}

func appendUTF16(out []byte, b64 string) ([]byte, error) {
	b, err := utf7Encoding.DecodeString(b64)
	if err != nil || len(b)%2 != 0 {
		return nil, ErrUTF7
	}
	for i := 0; i < len(b); i += 2 {
		r := rune(b[i])<<8 | rune(b[i+1])
		if utf16.IsSurrogate(r) {
			if i += 2; i >= len(b) {
				return nil, ErrUTF7
			}
			if r = utf16.DecodeRune(r, rune(b[i])<<8|rune(b[i+1])); r == utf8.RuneError {
				return nil, ErrUTF7
			}
		} else if r >= ' ' && r <= '~' {
			return nil, ErrUTF7
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}
