package searchtext

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/postrider/postrider/mime"
)

// Visitor takes the texts of a message, one after the other. Those of the
// message's own headers are not in the body, nor are those of its parts; all
// others are, the headers of an attached message too.
type Visitor interface {
	// Wants reports whether there is any use for more texts, in the body or
	// outside of it.
	Wants(inBody bool) bool
	// Begin says that another text begins. Nothing is found across it. A text
	// may come twice, the first time not to its end.
	Begin(inBody bool)
	// Write takes more of the text: UTF-8, mostly.
	Write(p []byte)
}

// Scanner reads messages, one after the other; the zero value is ready. It
// holds nothing but a buffer.
type Scanner struct {
	// Header reads the whole header of a part; nil = it is read from the
	// message. Its error ends the scan.
	Header func(p *mime.Part) (*mime.Header, error)

	buf []byte
}

// maxHeader bounds the header that is taken into memory.
const maxHeader = 2 << 20

const bufSize = 32 << 10

// Scan gives v the texts of a message. root is its structure, from mime.Parse
// or a Summary, r the message. Errors are r's. It ends early when v wants no
// more.
func (s *Scanner) Scan(root *mime.Part, r io.ReaderAt, v Visitor) error {
	if err := s.header(root, r, v, false); err != nil {
		return err
	}
	return s.part(root, r, v)
}

func (s *Scanner) part(p *mime.Part, r io.ReaderAt, v Visitor) error {
	if !v.Wants(true) {
		return nil
	}
	for _, c := range p.Parts {
		if err := s.header(c, r, v, false); err != nil {
			return err
		}
		if err := s.part(c, r, v); err != nil {
			return err
		}
	}
	if p.Message != nil {
		if err := s.header(p.Message, r, v, true); err != nil {
			return err
		}
		return s.part(p.Message, r, v)
	}
	if p.Type != "text" || !v.Wants(true) {
		return nil
	}
	if asciiCompatible(p.Params["charset"]) {
		plain, err := s.read(p.Decoded(r), v, true)
		if plain || err != nil {
			return err
		}
	}
	_, err := s.read(p.Text(r), v, false)
	return err
}

// header looks through the header of a part.
func (s *Scanner) header(p *mime.Part, r io.ReaderAt, v Visitor, inBody bool) error {
	if !v.Wants(inBody) {
		return nil
	}
	read := s.Header
	if read == nil {
		read = func(p *mime.Part) (*mime.Header, error) { return ReadHeader(p, r) }
	}
	h, err := read(p)
	if err != nil {
		return err
	}
	for f := range h.Fields() {
		v.Begin(inBody)
		v.Write([]byte(f.Name + ": " + mime.DecodeText(f.Value)))
	}
	return nil
}

// ReadHeader reads the whole header of p, of which a Summary has only some,
// from the message; up to 2 MiB, as mime.Parse does.
func ReadHeader(p *mime.Part, r io.ReaderAt) (*mime.Header, error) {
	n := min(p.BodyOffset-p.HeaderOffset, maxHeader)
	block := make([]byte, max(n, 0))
	if k, err := r.ReadAt(block, p.HeaderOffset); int64(k) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading a header: %w", err)
	}
	h := mime.ParseHeader(block)
	return &h, nil
}

// read looks through r. With ascii it stops, and returns false, where
// something else comes: then it takes a charset to read it.
func (s *Scanner) read(r io.Reader, v Visitor, ascii bool) (bool, error) {
	if s.buf == nil {
		s.buf = make([]byte, bufSize)
	}
	v.Begin(true)
	for v.Wants(true) {
		n, err := r.Read(s.buf)
		if ascii && !isASCII(s.buf[:n]) {
			return false, nil
		}
		v.Write(s.buf[:n])
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// asciiCompatible tells whether octets below 0x80 are US-ASCII in a charset.
// Those that it does not know are decoded in any case.
func asciiCompatible(charset string) bool {
	c := strings.ToLower(charset)
	return c == "" || c == "us-ascii" || c == "utf-8" || strings.HasPrefix(c, "iso-8859-") || strings.HasPrefix(c, "windows-125")
}

func isASCII(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return false
		}
		p = p[8:]
	}
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
