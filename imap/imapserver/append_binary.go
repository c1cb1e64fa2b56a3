package imapserver

import (
	"bytes"
	"encoding/base64"
	"io"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
)

// encodeBinary turns the parts with the transfer encoding "binary" of an
// appended message into base64, so that it has no NUL any more. A message
// that cannot be mended so is refused.
func (s *session) encodeBinary(u *upload, root *mime.Part) (*mime.Part, error) {
	out, err := s.stage(-1)
	if err != nil {
		return nil, err
	}
	e := encoding{src: u.body, dst: out}
	e.part(root)
	e.copyTo(u.body.Size())
	if e.err == nil && e.nul {
		e.err = no(imap.CodeUnknownCTE, "NUL outside a part with the transfer encoding binary")
	}
	if e.err != nil {
		out.Close()
		return nil, e.err
	}
	u.body.Close()
	u.body = out
	return e.parser.Close(), nil
}

// encoding copies a message and changes parts of it; the first error sticks.
type encoding struct {
	src    store.Body
	dst    io.Writer
	parser mime.Parser
	at     int64 // what was copied of src
	nul    bool
	err    error
}

func (e *encoding) Write(p []byte) (int, error) {
	if e.err == nil {
		_, e.err = e.dst.Write(p)
	}
	e.parser.Write(p)
	e.nul = e.nul || bytes.IndexByte(p, 0) >= 0
	return len(p), e.err
}

// copyTo copies up to offset end.
func (e *encoding) copyTo(end int64) {
	if e.err == nil && end > e.at {
		_, e.err = io.Copy(struct{ io.Writer }{e}, io.NewSectionReader(e.src, e.at, end-e.at))
	}
	e.at = max(e.at, end)
}

func (e *encoding) part(p *mime.Part) {
	if e.err != nil {
		return
	}
	leaf := !p.IsMultipart() && p.Message == nil
	if p.Encoding == "binary" {
		e.copyTo(p.HeaderOffset)
		cte := "8bit"
		if leaf {
			cte = "base64"
		}
		h := p.Header
		if err := h.Set("Content-Transfer-Encoding", cte); err != nil && e.err == nil {
			e.err = err
		}
		e.Write(h.Bytes())
		e.Write([]byte("\r\n"))
		e.at = p.BodyOffset
		if leaf {
			e.base64(p)
			return
		}
	}
	for _, c := range p.Parts {
		e.part(c)
	}
	if p.Message != nil {
		e.part(p.Message)
	}
}

// base64 writes the body of p encoded, in lines.
func (e *encoding) base64(p *mime.Part) {
	lines := &lineWriter{w: e}
	enc := base64.NewEncoder(base64.StdEncoding, lines)
	if _, err := io.Copy(struct{ io.Writer }{enc}, p.Raw(e.src)); err != nil && e.err == nil {
		e.err = err
	}
	enc.Close()
	e.at = p.BodyOffset + p.Size
}

// lineWriter breaks what it writes into lines of 76 octets.
type lineWriter struct {
	w io.Writer
	n int
}

func (l *lineWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if l.n == 76 {
			if _, err := l.w.Write([]byte("\r\n")); err != nil {
				return 0, err
			}
			l.n = 0
		}
		k := min(76-l.n, len(rest))
		if _, err := l.w.Write(rest[:k]); err != nil {
			return 0, err
		}
		l.n += k
		rest = rest[k:]
	}
	return len(p), nil
}
