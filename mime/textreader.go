package mime

import (
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

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
