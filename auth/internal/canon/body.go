package canon

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"
)

// CRLF ends a line.
const CRLF = "\r\n"

// Body canonicalizes a body that is written to it in pieces of any size
// and hashes it, in the memory of one buffer. Text that is canonical already,
// nearly all of any real body, is handed to the hash where it lies.
type Body struct {
	h       hash.Hash
	Relaxed bool
	Limit   int64 // l=, or negative
	N       int64 // canonical octets so far, hashed or not

	// What has been seen and not emitted, in this order: that many CRLFs,
	// white space (relaxed only), a CR.
	crlfs int64
	wsp   bool
	cr    bool

	buf  [bodyBuf]byte
	used int

	Digest []byte // what Sum returned, in digest
	digest [sha256.Size]byte
}

// bodyBuf is the size of the buffer that gathers short runs, a multiple of the
// hash's block; longer ones go to the hash past it.
const bodyBuf = 1024

// NewBody returns the hasher of one body. h is SHA-256 for all but the historic
// rsa-sha1; limit is l=, negative for the whole body.
func NewBody(h hash.Hash, relaxed bool, limit int64) *Body {
	return &Body{h: h, Relaxed: relaxed, Limit: limit}
}

// Write takes the next piece of the body.
func (b *Body) Write(p []byte) {
	if !b.Relaxed {
		b.writeSimple(p)
		return
	}
	for i := 0; i < len(p); {
		if b.crlfs == 0 && !b.wsp && !b.cr {
			run := p[i : i+cleanPrefix(p[i:])]
			i += len(run)
			// Line ends at the end of the run may be those of the empty lines
			// that end the body.
			keep := len(run)
			for keep > 0 && (run[keep-1] == '\n' || run[keep-1] == '\r') {
				keep--
			}
			b.emit(run[:keep])
			for _, c := range run[keep:] {
				b.step(c)
			}
			if i == len(p) {
				return
			}
		}
		b.step(p[i])
		i++
	}
}

// writeSimple holds nothing back but the line ends at the end of p.
func (b *Body) writeSimple(p []byte) {
	keep := len(p)
	for keep > 0 && (p[keep-1] == '\n' || p[keep-1] == '\r') {
		keep--
	}
	if keep > 0 {
		// What was pending belongs before p, unless a CR of it is the first
		// half of a line end.
		head := 0
		for head < keep && (b.cr || b.crlfs > 0) {
			b.step(p[head])
			head++
		}
		b.emit(p[head:keep])
	}
	for _, c := range p[keep:] {
		b.step(c)
	}
}

// step takes one octet, whatever came before it.
func (b *Body) step(c byte) {
	if b.cr {
		b.cr = false
		if c == '\n' {
			b.wsp = false // white space at the end of a line goes
			b.crlfs++
			return
		}
		b.flushPending()
		b.emitByte('\r')
	}
	switch {
	case c == '\r':
		b.cr = true
	case b.Relaxed && (c == ' ' || c == '\t'):
		b.wsp = true
	default:
		b.flushPending()
		b.emitByte(c)
	}
}

func (b *Body) flushPending() {
	for ; b.crlfs > 0; b.crlfs-- {
		b.emitByte('\r')
		b.emitByte('\n')
	}
	if b.wsp {
		b.wsp = false
		b.emitByte(' ')
	}
}

// Sum ends the body and returns its hash and its canonical length.
func (b *Body) Sum() ([]byte, int64) {
	if b.cr {
		b.cr = false
		b.flushPending()
		b.emitByte('\r')
	}
	// RFC 6376 §3.4.3 and §3.4.4: one CRLF ends the body; an empty body is
	// one CRLF when simple, and nothing when relaxed.
	b.crlfs, b.wsp = 0, false
	if !b.Relaxed || b.N > 0 {
		b.emitByte('\r')
		b.emitByte('\n')
	}
	b.h.Write(b.buf[:b.used])
	b.used = 0
	b.Digest = b.h.Sum(b.digest[:0])
	return b.Digest, b.N
}

func (b *Body) emitByte(c byte) {
	b.N++
	if b.Limit >= 0 && b.N > b.Limit {
		return
	}
	if b.used == len(b.buf) {
		b.h.Write(b.buf[:])
		b.used = 0
	}
	b.buf[b.used] = c
	b.used++
}

func (b *Body) emit(p []byte) {
	before := b.N
	b.N += int64(len(p))
	if b.Limit >= 0 && b.N > b.Limit {
		p = p[:max(0, min(int64(len(p)), b.Limit-before))]
	}
	if len(p) == 0 {
		return
	}
	if len(p) > len(b.buf)-b.used {
		// Whole buffers only, so that the hash always gets whole blocks.
		if b.used > 0 {
			n := copy(b.buf[b.used:], p)
			b.h.Write(b.buf[:])
			b.used, p = 0, p[n:]
		}
		n := len(p) - len(p)%bodyBuf
		b.h.Write(p[:n])
		p = p[n:]
	}
	b.used += copy(b.buf[b.used:], p)
}

// cleanPrefix returns the length of a prefix of p that relaxed
// canonicalization leaves as it is: no tab in it, and no space that white
// space or a line end follows, or that ends p. Eight octets are looked at
// at a time; stopping too early is allowed, and only costs time.
func cleanPrefix(p []byte) int {
	// Base64 and the like have no white space for long stretches.
	i := bytes.IndexByte(p, ' ')
	if i < 0 {
		i = len(p)
	}
	if tab := bytes.IndexByte(p[:i], '\t'); tab >= 0 {
		return tab
	}
	for ; i+17 <= len(p); i += 16 {
		q := p[i : i+17 : i+17]
		if wspRun(binary.LittleEndian.Uint64(q), binary.LittleEndian.Uint64(q[1:]))|
			wspRun(binary.LittleEndian.Uint64(q[8:]), binary.LittleEndian.Uint64(q[9:])) != 0 {
			break
		}
	}
	for ; i+9 <= len(p); i += 8 {
		if m := wspRun(binary.LittleEndian.Uint64(p[i:]), binary.LittleEndian.Uint64(p[i+1:])); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(p); i++ {
		if p[i] == '\t' || p[i] == ' ' && (i+1 == len(p) || p[i+1] <= ' ') {
			return i
		}
	}
	return i
}

// wspRun marks the octets of x that are a tab, or a space whose successor in y
// is no visible octet. Only the lowest mark is exact: above it there may be
// too many, which at worst costs time.
func wspRun(x, y uint64) uint64 {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
		tabs  = 0x09 * ones
		sps   = 0x20 * ones
		above = 0x21 * ones // the first visible octet
	)
	// (v-ones) &^ v & highs marks the zero octets of v.
	t, s := x^tabs, x^sps
	return ((t-ones)&^t | (s-ones)&^s&((y-above)&^y)) & highs
}

// AppendField appends the canonical form of one raw field to dst. The line
// end is that of the field; the last field of a header may lack it.
func AppendField(dst, raw []byte, relaxed bool) []byte {
	raw = bytes.TrimSuffix(raw, []byte(CRLF))
	if !relaxed {
		dst = append(dst, raw...)
		return append(dst, CRLF...)
	}
	colon := bytes.IndexByte(raw, ':')
	if colon < 0 {
		colon = len(raw)
	}
	for _, ch := range bytes.TrimRight(raw[:colon], " \t\r\n") {
		if ch >= 'A' && ch <= 'Z' {
			ch += 'a' - 'A'
		}
		dst = append(dst, ch)
	}
	dst = append(dst, ':')
	value := raw[min(colon+1, len(raw)):]
	start := len(dst)
	space := false
	for i := 0; i < len(value); {
		switch ch := value[i]; {
		case ch == ' ' || ch == '\t':
			space = true
			i++
			continue
		case ch == '\r' && i+1 < len(value) && value[i+1] == '\n':
			// Inside a field a CRLF is always that of a fold.
			i += 2
			continue
		}
		if space {
			if len(dst) > start {
				dst = append(dst, ' ')
			}
			space = false
		}
		word := i
		for i++; i < len(value) && value[i] > ' '; i++ {
		}
		dst = append(dst, value[word:i]...)
	}
	return append(dst, CRLF...)
}
