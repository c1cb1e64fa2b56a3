package mime

import (
	"io"
	"strings"
	"unicode/utf16"
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

// toUTF8Reader reads r, which is in the charset that t decodes, as UTF-8.
func toUTF8Reader(r io.Reader, t transform.Transformer) io.Reader {
	if t == transform.Transformer(guess{}) || t == transform.Transformer(validUTF8Only{}) {
		return &utf8Reader{r: r, t: t}
	}
	return transform.NewReader(r, t)
}

// validUTF8Only decodes UTF-8: what is none becomes U+FFFD.
type validUTF8Only struct{}

func (validUTF8Only) Reset() {}

func (validUTF8Only) Transform(dst, src []byte, atEOF bool) (int, int, error) {
	return unicode.UTF8.NewDecoder().Transform(dst, src, atEOF)
}

// utf8Reader hands UTF-8 through as it is; only what is none goes through t.
type utf8Reader struct {
	r    io.Reader
	t    transform.Transformer
	held [utf8.UTFMax]byte // the beginning of a character
	n    int
	out  []byte // from t, not read yet
	err  error
	to   utf8Writer // of WriteTo
}

func (u *utf8Reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if len(u.out) > 0 {
			n := copy(b, u.out)
			u.out = u.out[n:]
			return n, nil
		}
		if u.err != nil {
			if u.n > 0 {
				u.replace(u.held[:u.n])
				u.n = 0
				continue
			}
			return 0, u.err
		}
		buf := b
		var small [64]byte
		if len(b) < len(small) {
			buf = small[:]
		}
		n := copy(buf, u.held[:u.n])
		k, err := u.r.Read(buf[n:])
		u.err = err
		text, ok := u.take(buf[:n+k])
		switch {
		case !ok:
			u.replace(text)
		case len(b) < len(small):
			u.out = append(u.out, text...)
		case len(text) > 0:
			return len(text), nil
		}
	}
}

// take holds back the beginning of a character at the end of b and reports
// whether the rest is UTF-8.
func (u *utf8Reader) take(b []byte) (text []byte, ok bool) {
	u.n = 0
	for i := 1; i <= min(len(b), utf8.UTFMax-1); i++ {
		if c := b[len(b)-i]; c >= 0xc0 {
			if !utf8.FullRune(b[len(b)-i:]) {
				u.n = copy(u.held[:], b[len(b)-i:])
				b = b[:len(b)-i]
			}
			break
		} else if c < 0x80 {
			break
		}
	}
	return b, utf8.Valid(b)
}

func (u *utf8Reader) replace(b []byte) {
	u.out = u.out[:0]
	u.t.Reset()
	if out, _, err := transform.Append(u.t, u.out, b); err == nil {
		u.out = out
	}
}

// WriteTo saves io.Copy a buffer, and text that is UTF-8 a copy.
func (u *utf8Reader) WriteTo(w io.Writer) (int64, error) {
	to := &u.to
	*to = utf8Writer{u: u, w: w}
	if _, err := io.Copy(to, u.r); err != nil {
		return to.total, err
	}
	if u.n > 0 {
		u.replace(u.held[:u.n])
		u.n = 0
		if err := to.write(u.out); err != nil {
			return to.total, err
		}
		u.out = nil
	}
	return to.total, nil
}

type utf8Writer struct {
	u     *utf8Reader
	w     io.Writer
	total int64
}

func (w *utf8Writer) write(b []byte) error {
	n, err := w.w.Write(b)
	w.total += int64(n)
	return err
}

func (w *utf8Writer) Write(b []byte) (int, error) {
	size := len(b)
	if u := w.u; u.n > 0 || len(u.out) > 0 {
		if len(u.out) > 0 {
			if err := w.write(u.out); err != nil {
				return 0, err
			}
			u.out = nil
		}
		b = append(u.held[:u.n:u.n], b...) // copied: it is longer than held
	}
	text, ok := w.u.take(b)
	if !ok {
		w.u.replace(text)
		text, w.u.out = w.u.out, nil
	}
	if err := w.write(text); err != nil {
		return 0, err
	}
	return size, nil
}

// utf7 decodes UTF-7 (RFC 2152). What is no UTF-7 comes out as it is or as
// U+FFFD.
type utf7 struct {
	shifted bool   // between "+" and what ends it
	empty   bool   // nothing came after "+" yet
	bits    uint32 // bits not used up
	n       uint
	high    rune // a high surrogate that waits for its low one
}

func (u *utf7) Reset() { *u = utf7{} }

func (u *utf7) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		// One octet gives at most a dangling surrogate and itself.
		if len(dst)-nDst < 2*utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		c := src[nSrc]
		nSrc++
		if !u.shifted {
			if c == '+' {
				u.shifted, u.empty, u.bits, u.n = true, true, 0, 0
			} else {
				nDst += u.literal(dst[nDst:], c)
			}
			continue
		}
		v := base64Value[c]
		if v >= 64 {
			u.shifted = false
			nDst += u.dangling(dst[nDst:])
			switch {
			case c == '-' && u.empty:
				dst[nDst] = '+'
				nDst++
			case c == '-':
			default:
				nDst += u.literal(dst[nDst:], c)
			}
			continue
		}
		u.empty = false
		u.bits = u.bits<<6 | uint32(v)
		if u.n += 6; u.n < 16 {
			continue
		}
		u.n -= 16
		nDst += u.unit(dst[nDst:], rune(u.bits>>u.n&0xffff))
	}
	if atEOF && u.high != 0 {
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += u.dangling(dst[nDst:])
	}
	return nDst, nSrc, nil
}

// unit writes one UTF-16 unit.
func (u *utf7) unit(dst []byte, r rune) int {
	if u.high != 0 {
		high := u.high
		u.high = 0
		if c := utf16.DecodeRune(high, r); c != utf8.RuneError {
			return utf8.EncodeRune(dst, c)
		}
		n := utf8.EncodeRune(dst, utf8.RuneError)
		return n + u.unit(dst[n:], r)
	}
	if r >= 0xd800 && r < 0xdc00 {
		u.high = r
		return 0
	}
	return utf8.EncodeRune(dst, r) // a lone low surrogate becomes U+FFFD
}

func (u *utf7) dangling(dst []byte) int {
	if u.high == 0 {
		return 0
	}
	u.high = 0
	return utf8.EncodeRune(dst, utf8.RuneError)
}

func (u *utf7) literal(dst []byte, c byte) int {
	if c >= utf8.RuneSelf {
		return utf8.EncodeRune(dst, utf8.RuneError)
	}
	dst[0] = c
	return 1
}
