package mime

import (
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/transform"
)

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
