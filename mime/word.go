package mime

import (
	"strings"
	"unicode/utf8"
)

// maxWord bounds how far the end of an encoded word is looked for. RFC 2047
// allows 75 octets; whole subjects in one word are common.
const maxWord = 2048

// encodedWord is one encoded word of RFC 2047 §2 (with RFC 2231 §5).
type encodedWord struct {
	charset  string
	encoding byte // 'b' or 'q'
	text     string
	length   int
}

// parseWord reads the encoded word at the beginning of s.
func parseWord(s string) (w encodedWord, ok bool) {
	if len(s) > maxWord {
		s = s[:maxWord]
	}
	if !strings.HasPrefix(s, "=?") {
		return w, false
	}
	i := 2
	for i < len(s) && s[i] != '?' && s[i] > ' ' && i < 80 {
		i++
	}
	// "?q?" must follow.
	if i == 2 || i+3 > len(s) || s[i] != '?' || s[i+2] != '?' {
		return w, false
	}
	w.charset, _, _ = strings.Cut(s[2:i], "*")
	if w.encoding = s[i+1] | 0x20; w.encoding != 'b' && w.encoding != 'q' {
		return w, false
	}
	i += 3
	end := strings.Index(s[i:], "?=")
	if end < 0 {
		return w, false
	}
	w.text, w.length = s[i:i+end], i+end+2
	return w, true
}

// encodedWordEnd returns the length of the encoded word that s begins with,
// -1 when there is none.
func encodedWordEnd(s string) int {
	if w, ok := parseWord(s); ok {
		return w.length
	}
	return -1
}

func (w encodedWord) appendDecoded(dst []byte) []byte {
	if w.encoding == 'b' {
		var d base64Decoder
		dst = d.decode(dst, []byte(w.text))
		return d.flush(dst)
	}
	s := w.text
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '_':
			dst = append(dst, ' ')
		case '=':
			if i+2 < len(s) && hexValue[s[i+1]] < 16 && hexValue[s[i+2]] < 16 {
				dst = append(dst, hexValue[s[i+1]]<<4|hexValue[s[i+2]])
				i += 2
			} else {
				dst = append(dst, c)
			}
		case '\r', '\n':
			// A word that was folded although it must not be.
			for i+1 < len(s) && (s[i+1] == ' ' || s[i+1] == '\t' || s[i+1] == '\n') {
				i++
			}
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// DecodeText decodes the encoded words (RFC 2047) of an unstructured value to
// UTF-8 and unfolds it. Characters that were split between two words come out
// whole. Text that is not encoded is UTF-8 (RFC 6532), or windows-1252 where
// it cannot be. CR, LF and NUL, encoded or not, become spaces, so the result
// can be shown on a line. What cannot be decoded is left as it is.
func DecodeText(s string) string { return decodeText(s, decodeCharset, toUTF8) }

// decodeText decodes words with charset and reads text of no charset with
// plain.
func decodeText(s string, charsets func(name string, b []byte) (string, bool), plain func(string) string) string {
	i := strings.Index(s, "=?")
	if i < 0 {
		return plainText(s, plain)
	}
	var out strings.Builder
	var held []byte // decoded octets of held words, still in their charset
	var charset string
	flush := func() {
		if held == nil {
			return
		}
		t, ok := charsets(charset, held)
		if !ok {
			t = plain(string(held)) // nobody knows it; most are ASCII anyway
		}
		out.WriteString(plainText(t, toUTF8))
		held = nil
	}
	begin, from := 0, 0 // literal text begins, and is looked at from
	for {
		i := strings.Index(s[from:], "=?")
		if i < 0 {
			break
		}
		i += from
		w, ok := parseWord(s[i:])
		if !ok {
			from = i + 2
			continue
		}
		gap := s[begin:i]
		joined := held != nil && strings.Trim(gap, " \t\r\n") == ""
		if !joined || !equalFold(charset, w.charset) {
			flush()
		}
		if !joined {
			out.WriteString(plainText(gap, plain))
		}
		charset = w.charset
		if held == nil {
			held = []byte{}
		}
		held = w.appendDecoded(held)
		begin = i + w.length
		from = begin
	}
	flush()
	out.WriteString(plainText(s[begin:], plain))
	return out.String()
}

// plainText makes text that is not encoded fit to show: UTF-8 on one line.
func plainText(s string, plain func(string) string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] < utf8.RuneSelf && s[i] != '\r' && s[i] != '\n' && s[i] != 0
	}
	if clean {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\r', '\n':
			if c == '\r' && i+1 < len(s) && s[i+1] == '\n' {
				i++
			}
			// A fold goes, its white space stays.
			if i+1 < len(s) && (s[i+1] == ' ' || s[i+1] == '\t') {
				continue
			}
			b = append(b, ' ')
		case 0:
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return plain(string(b))
}

// EncodeWord returns s as encoded words (RFC 2047) in UTF-8 with a space
// between them, each at most 75 octets long, in the shorter of the Q and B
// encodings. Printable ASCII text that does not look like an encoded word is
// returned as it is.
func EncodeWord(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x7f || s[i] < ' ' || s[i] == '=' && i+1 < len(s) && s[i+1] == '?' {
			return string(appendWords(nil, s, 0))
		}
	}
	return s
}

const (
	wordLimit    = 75 // octets of an encoded word, RFC 2047 §2
	wordOverhead = len("=?utf-8?q?") + len("?=")
)

// appendWords writes s as encoded words; the first is made to fit after col
// columns when that leaves room for something.
func appendWords(dst []byte, s string, col int) []byte {
	s = strings.ToValidUTF8(s, "\ufffd")
	q := 0
	for i := 0; i < len(s); i++ {
		q += qLength(s[i])
	}
	useQ := q <= (len(s)+2)/3*4+4 // a little longer, but people can read it
	limit := min(wordLimit, wordLimit+1-col)
	if limit < wordOverhead+16 {
		limit = wordLimit
	}
	for first := true; first || s != ""; first = false {
		if !first {
			dst = append(dst, ' ')
			limit = wordLimit
		}
		room := limit - wordOverhead
		n := 0
		if useQ {
			for used := 0; n < len(s); {
				_, size := utf8.DecodeRuneInString(s[n:])
				need := 0
				for i := n; i < n+size; i++ {
					need += qLength(s[i])
				}
				if used+need > room {
					break
				}
				used += need
				n += size
			}
			dst = append(dst, "=?utf-8?q?"...)
			dst = appendQ(dst, s[:n])
		} else {
			for most := room / 4 * 3; n < len(s); {
				_, size := utf8.DecodeRuneInString(s[n:])
				if n+size > most {
					break
				}
				n += size
			}
			dst = append(dst, "=?utf-8?b?"...)
			dst = stdBase64.AppendEncode(dst, []byte(s[:n]))
		}
		dst = append(dst, "?="...)
		s = s[n:]
	}
	return dst
}

// qLength is what an octet takes in the Q encoding. Only what RFC 2047 §5 (3)
// allows within a phrase goes as it is.
func qLength(c byte) int {
	if c == ' ' || isQByte(c) {
		return 1
	}
	return 3
}

func isQByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '!' || c == '*' || c == '+' || c == '-' || c == '/'
}

const upperHex = "0123456789ABCDEF"

func appendQ(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ':
			dst = append(dst, '_')
		case isQByte(c):
			dst = append(dst, c)
		default:
			dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}
