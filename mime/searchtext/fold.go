package searchtext

import (
	"slices"
	"unicode"
	"unicode/utf8"
)

// AppendFolded appends s with the case of letters taken away, as
// i;unicode-casemap (RFC 5051) has it, but for compositions. What is no UTF-8
// becomes U+FFFD, octet by octet. Text contains a string without regard to
// case when the one folded contains the other folded.
func AppendFolded(dst, s []byte) []byte {
	for len(s) > 0 {
		n := 0
		dst = slices.Grow(dst, len(s))
		ascii := dst[len(dst) : len(dst)+len(s)]
		for n < len(s) && s[n] < utf8.RuneSelf {
			ascii[n] = lowerASCII[s[n]]
			n++
		}
		dst, s = dst[:len(dst)+n], s[n:]
		if len(s) > 0 {
			r, size := utf8.DecodeRune(s)
			dst = utf8.AppendRune(dst, unicode.ToLower(unicode.ToUpper(r)))
			s = s[size:]
		}
	}
	return dst
}

var lowerASCII = func() (t [utf8.RuneSelf]byte) {
	for c := range t {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] += 'a' - 'A'
		}
	}
	return t
}()

// Folder folds a text that comes in pieces. The zero Folder is ready.
type Folder struct {
	rest  [utf8.UTFMax]byte // the beginning of a rune
	nrest int
}

// Append appends the next piece folded. The beginning of a character waits for
// its end.
func (f *Folder) Append(dst, p []byte) []byte {
	for f.nrest > 0 && len(p) > 0 {
		f.rest[f.nrest] = p[0]
		f.nrest++
		p = p[1:]
		// What turns out to be no character may be followed by the beginning of
		// one.
		for f.nrest > 0 && utf8.FullRune(f.rest[:f.nrest]) {
			_, size := utf8.DecodeRune(f.rest[:f.nrest])
			dst = AppendFolded(dst, f.rest[:size])
			f.nrest = copy(f.rest[:], f.rest[size:f.nrest])
		}
	}
	end := len(p)
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if utf8.RuneStart(p[len(p)-back]) {
			if !utf8.FullRune(p[len(p)-back:]) {
				end = len(p) - back
			}
			break
		}
	}
	dst = AppendFolded(dst, p[:end])
	f.nrest += copy(f.rest[f.nrest:], p[end:])
	return dst
}

// End appends what still waits, and begins another text.
func (f *Folder) End(dst []byte) []byte {
	dst = AppendFolded(dst, f.rest[:f.nrest])
	f.nrest = 0
	return dst
}
