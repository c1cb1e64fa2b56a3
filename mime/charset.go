package mime

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// charsetDecoder returns what turns the named charset into UTF-8; nil when
// nobody knows it. No charset and US-ASCII are read as UTF-8 where the octets
// are that, and as windows-1252 where not.
func charsetDecoder(name string) transform.Transformer {
	name = charsetName(name)
	switch name {
	case "", "us-ascii", "ascii", "ansi_x3.4-1968", "unknown-8bit", "x-unknown", "8bit", "binary":
		return guess{}
	case "utf-8", "utf8", "unicode-1-1-utf-8":
		return validUTF8Only{}
	case "utf-7", "unicode-1-1-utf-7", "utf7":
		return new(utf7)
	case "utf-16":
		// Big endian without a byte order mark (RFC 2781 §4.3).
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewDecoder()
	case "hz-gb-2312":
		return simplifiedchinese.HZGB2312.NewDecoder() // WHATWG forbids it, mail has it
	case "cp437", "ibm437", "437":
		return charmap.CodePage437.NewDecoder()
	case "cp850", "ibm850", "850":
		return charmap.CodePage850.NewDecoder()
	case "cp936", "936":
		return simplifiedchinese.GBK.NewDecoder()
	}
	for _, n := range [...]string{name, strings.Replace(name, "cp125", "windows-125", 1), strings.ReplaceAll(name, "_", "-")} {
		// The index of WHATWG comes first: it reads ISO-8859-1 as
		// windows-1252 and GB2312 as GBK, as those who wrote it meant.
		if e, err := htmlindex.Get(n); err == nil && e != encoding.Replacement {
			return e.NewDecoder()
		}
		if e, err := ianaindex.MIME.Encoding(n); err == nil && e != nil {
			return e.NewDecoder()
		}
	}
	return nil
}

func charsetName(name string) string {
	name = lower(strings.Trim(name, " \t\"'"))
	return strings.TrimPrefix(name, "charset=") // charset="charset=utf-8"
}

// undeclared reports names that say nothing about a text that is not ASCII.
func undeclared(name string) bool {
	return name == "" || charsetDecoder(name) == transform.Transformer(guess{})
}

// invalidUTF8 returns the offset of the first octet that is no UTF-8, or -1.
func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i := 0; ; {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
}

// decodeCharset turns b into UTF-8; false when the charset is not known.
func decodeCharset(name string, b []byte) (string, bool) {
	t := charsetDecoder(name)
	if t == nil {
		return "", false
	}
	if out, _, err := transform.Bytes(t, b); err == nil {
		return string(out), true
	}
	return toUTF8(string(b)), true
}

// toUTF8 reads octets of no declared charset.
func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out, _, _ := transform.String(guess{}, s)
	return out
}

// guess keeps what is valid UTF-8 and reads every other octet as
// windows-1252, so that text of either kind comes out right.
type guess struct{}

func (guess) Reset() {}

func (guess) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if c := src[nSrc]; c < utf8.RuneSelf {
			if nDst >= len(dst) {
				return nDst, nSrc, transform.ErrShortDst
			}
			dst[nDst] = c
			nDst++
			nSrc++
			continue
		}
		r, n := utf8.DecodeRune(src[nSrc:])
		if r == utf8.RuneError && n == 1 {
			if !atEOF && !utf8.FullRune(src[nSrc:]) {
				return nDst, nSrc, transform.ErrShortSrc
			}
			r = charmap.Windows1252.DecodeByte(src[nSrc])
		}
		if nDst+utf8.RuneLen(r) > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], r)
		nSrc += n
	}
	return nDst, nSrc, nil
}
