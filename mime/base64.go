package mime

import (
	"encoding/base64"
	"slices"
)

var stdBase64 = base64.StdEncoding

// base64Value gives what a character stands for; 64 and more is none.
var base64Value = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// base64Quad gives the value of a character in each place of a quad, shifted
// to where it goes; invalidQuad for what is none.
var base64Quad = func() (t [4][256]uint32) {
	for place := range t {
		for c := range t[place] {
			t[place][c] = invalidQuad
			if v := base64Value[c]; v < 64 {
				t[place][c] = uint32(v) << (18 - 6*place)
			}
		}
	}
	return t
}()

const invalidQuad = 1 << 31

// hexValue gives what a hexadecimal digit stands for; 16 and more is none.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 10 {
		t['0'+i] = byte(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = byte(10+i), byte(10+i)
	}
	return t
}()

// base64Decoder decodes the base64 of RFC 2045 §6.8: characters that are not
// of the alphabet are skipped, padding may be missing, and after padding a
// new piece may begin, as in encodings that were put one after another.
type base64Decoder struct {
	bits uint32 // of the quad begun
	n    int    // characters of it
}

// decode appends what src holds to dst, which may lie before src in the same
// memory, by decoderLead at least.
func (d *base64Decoder) decode(dst, src []byte) []byte {
	for len(src) > 0 {
		if d.n == 0 {
			var used int
			dst, used = decodeQuads(dst, src)
			src = src[used:]
			if len(src) == 0 {
				break
			}
		}
		c := src[0]
		src = src[1:]
		if v := base64Value[c]; v < 64 {
			d.bits = d.bits<<6 | uint32(v)
			if d.n++; d.n == 4 {
				dst = append(dst, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
				d.bits, d.n = 0, 0
			}
		} else if c == '=' {
			dst = d.flush(dst)
		}
	}
	return dst
}

// flush ends a quad that is not full: 2 characters hold an octet, 3 hold two.
func (d *base64Decoder) flush(dst []byte) []byte {
	switch d.n {
	case 2:
		dst = append(dst, byte(d.bits>>4))
	case 3:
		dst = append(dst, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return dst
}

// decodeQuads decodes whole quads, and line ends between them, up to the
// first thing that is neither. It returns how much of src it used.
func decodeQuads(dst, src []byte) ([]byte, int) {
	n := len(dst)
	dst = slices.Grow(dst, len(src)/4*3+8)
	out := dst[n:cap(dst)]
	t0, t1, t2, t3 := &base64Quad[0], &base64Quad[1], &base64Quad[2], &base64Quad[3]
	i, o := 0, 0
	for {
		for len(src)-i >= 8 && len(out)-o >= 8 {
			s := src[i : i+8 : i+8]
			a := t0[s[0]] | t1[s[1]] | t2[s[2]] | t3[s[3]]
			b := t0[s[4]] | t1[s[5]] | t2[s[6]] | t3[s[7]]
			if (a|b)&invalidQuad != 0 {
				break
			}
			v := uint64(a)<<40 | uint64(b)<<16
			w := out[o : o+8 : o+8]
			w[0], w[1], w[2], w[3] = byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32)
			w[4], w[5], w[6], w[7] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
			i, o = i+8, o+6
		}
		if len(src)-i >= 4 && len(out)-o >= 3 {
			if a := t0[src[i]] | t1[src[i+1]] | t2[src[i+2]] | t3[src[i+3]]; a&invalidQuad == 0 {
				out[o], out[o+1], out[o+2] = byte(a>>16), byte(a>>8), byte(a)
				i, o = i+4, o+3
			}
		}
		switch {
		case len(src)-i >= 2 && src[i] == '\r' && src[i+1] == '\n':
			i += 2
		case len(src)-i >= 1 && src[i] == '\n':
			i++
		default:
			return dst[:n+o], i
		}
	}
}
