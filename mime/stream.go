package mime

import "io"

// Stream reads a message that comes by only once, part by part, with a memory
// that depends on its headers alone:
//
//	s := mime.NewStream(r, mime.Limits{})
//	for {
//		part, err := s.Next()
//		if err == io.EOF {
//			break
//		}
//		if err != nil {
//			return err
//		}
//		io.Copy(dst, s.Decoded())
//	}
//
// It finds the same parts in the same order as [Parse]: each multipart or
// message before what is in it. Size, Lines and some Defects of a part are
// known once the next one was asked for.
type Stream struct {
	r    io.Reader
	p    Parser
	buf  []byte // octets of the message from base on
	base int64
	cur  *Part
	leaf bool  // cur has a body of its own
	at   int64 // what of it comes next
	err  error // of r
}

const streamBlock = 32 << 10

// NewStream returns a Stream over the message in r.
func NewStream(r io.Reader, l Limits) *Stream {
	return &Stream{r: r, p: Parser{Limits: l, watched: true}}
}

// Next goes on to the next part, past what was not read of the one before.
// At the end of the message the error is io.EOF; any other is r's.
func (s *Stream) Next() (*Part, error) {
	for {
		for len(s.p.events) > 0 {
			e := s.p.events[0]
			if s.p.events = s.p.events[1:]; e.ended {
				continue
			}
			s.cur, s.leaf, s.at = e.part, e.leaf, e.part.BodyOffset
			return e.part, nil
		}
		if s.err != nil {
			s.cur, s.leaf, s.buf = nil, false, nil
			return nil, s.err
		}
		s.leaf = false
		s.fill()
	}
}

// Read gives the body of the part as it stands. That of a multipart or
// message whose parts follow is empty.
func (s *Stream) Read(b []byte) (int, error) {
	if !s.leaf {
		return 0, io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		// The line end before a delimiter that may come is no part of it.
		end, ended := s.p.pos-2, len(s.p.events) > 0
		if ended {
			end = s.cur.BodyOffset + s.cur.Size
		}
		if s.at < end {
			n := copy(b, s.buf[s.at-s.base:end-s.base])
			s.at += int64(n)
			return n, nil
		}
		if ended {
			return 0, io.EOF
		}
		if s.err != nil {
			return 0, s.err
		}
		s.fill()
	}
}

// fill reads more of the message.
func (s *Stream) fill() {
	if s.buf == nil {
		s.buf = make([]byte, 0, streamBlock+2*maxDelimiter)
	}
	// What may still be asked for.
	low := max(s.p.pos-2, s.base)
	if s.leaf {
		low = min(low, s.at)
	}
	if low > s.base {
		s.buf = s.buf[:copy(s.buf, s.buf[low-s.base:])]
		s.base = low
	}
	s.p.events = nil
	if cap(s.buf)-len(s.buf) < streamBlock/2 {
		s.buf = append(make([]byte, 0, 2*cap(s.buf)), s.buf...)
	}
	room := s.buf[len(s.buf):cap(s.buf)]
	n, err := s.r.Read(room)
	s.buf = s.buf[:len(s.buf)+n]
	s.p.Write(room[:n])
	if err == io.EOF {
		s.p.Close()
	}
	s.err = err
}

// Decoded gives the body of the part as [Part.Decoded] does.
func (s *Stream) Decoded() io.Reader { return s.cur.decoded(s) }

// Text gives the body of the part as [Part.Text] does.
func (s *Stream) Text() io.Reader { return s.cur.text(s.Decoded()) }

// Root returns the structure of what was read so far; it is whole once Next
// returned io.EOF. No more can be read then.
func (s *Stream) Root() *Part { return s.p.Close() }
