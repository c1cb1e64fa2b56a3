package imapwire

import (
	"bufio"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/imap"
)

// Encoder writes commands or responses. Methods return the Encoder, so that
// a line is one expression; errors wait for CRLF.
type Encoder struct {
	// UTF8 writes mailbox names as UTF-8 and lets quoted strings hold it;
	// without it mailbox names are modified UTF-7.
	UTF8 bool
	// Wait, when not nil, is called after a synchronising literal was
	// announced and flushed: a client waits for the continuation there.
	Wait func() error
	// NonSync is the largest literal sent as {n+} when Wait is set; 0 = none,
	// negative = any (LITERAL+).
	NonSync int64

	w   *bufio.Writer
	err error
	num [64]byte
}

// NewEncoder returns an Encoder on w.
func NewEncoder(w *bufio.Writer) *Encoder { return &Encoder{w: w} }

// Reset makes e write to w: after STARTTLS.
func (e *Encoder) Reset(w *bufio.Writer) { e.w, e.err = w, nil }

// Err returns the first error.
func (e *Encoder) Err() error { return e.err }

// Flush sends what is buffered.
func (e *Encoder) Flush() error {
	if e.err == nil {
		e.err = e.w.Flush()
	}
	return e.err
}

// Atom writes s as it is.
func (e *Encoder) Atom(s string) *Encoder {
	if e.err == nil {
		_, e.err = e.w.WriteString(s)
	}
	return e
}

// Raw writes b as it is.
func (e *Encoder) Raw(b []byte) *Encoder {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
	return e
}

// AppendBuffer returns room in the writer's buffer to append to, flushing it
// first when there is less than n; hand the result to Raw at once. It spares
// hot paths a copy through memory of their own.
func (e *Encoder) AppendBuffer(n int) []byte {
	if e.err == nil && e.w.Available() < n {
		e.err = e.w.Flush()
	}
	return e.w.AvailableBuffer()
}

// Special writes one octet.
func (e *Encoder) Special(c byte) *Encoder {
	if e.err == nil {
		e.err = e.w.WriteByte(c)
	}
	return e
}

// SP writes a space.
func (e *Encoder) SP() *Encoder { return e.Special(' ') }

// CRLF ends the line and returns the first error. It does not flush.
func (e *Encoder) CRLF() error {
	e.Atom("\r\n")
	return e.err
}

// Number writes n.
func (e *Encoder) Number(n uint64) *Encoder {
	return e.Raw(strconv.AppendUint(e.num[:0], n, 10))
}

// Nil writes NIL.
func (e *Encoder) Nil() *Encoder { return e.Atom("NIL") }

// quotable says whether s may be a quoted string.
func (e *Encoder) quotable(s string) bool {
	if len(s) > 4096 {
		return false
	}
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0 || c == '\r' || c == '\n':
			return false
		case c >= 0x80:
			ascii = false
		}
	}
	return ascii || e.UTF8 && utf8.ValidString(s)
}

// Quoted writes s as a quoted string; what one cannot hold is left out.
func (e *Encoder) Quoted(s string) *Encoder {
	e.Special('"')
	from := 0
	for i := range len(s) {
		switch s[i] {
		case '"', '\\':
			e.Atom(s[from:i]).Special('\\')
			from = i
		case '\r', '\n', 0:
			e.Atom(s[from:i])
			from = i + 1
		}
	}
	return e.Atom(s[from:]).Special('"')
}

// String writes s quoted where that is possible, else as a literal.
func (e *Encoder) String(s string) *Encoder {
	if e.quotable(s) {
		return e.Quoted(s)
	}
	io.WriteString(e.Literal(int64(len(s)), false), s)
	return e
}

// NString writes NIL for "", else String.
func (e *Encoder) NString(s string) *Encoder {
	if s == "" {
		return e.Nil()
	}
	return e.String(s)
}

// AString writes s as an atom where it is one, else as a string.
func (e *Encoder) AString(s string) *Encoder {
	if s == "" || len(s) == 3 && upper(s) == "NIL" {
		return e.String(s)
	}
	for i := range len(s) {
		if !isAStringChar(s[i]) {
			return e.String(s)
		}
	}
	return e.Atom(s)
}

// Mailbox writes a mailbox name, from UTF-8.
func (e *Encoder) Mailbox(name string) *Encoder {
	if !e.UTF8 {
		name = imap.EncodeUTF7(name)
	}
	return e.AString(name)
}

// QuotedMailbox is Mailbox without the atom form: some clients read LIST
// only so.
func (e *Encoder) QuotedMailbox(name string) *Encoder {
	if !e.UTF8 {
		name = imap.EncodeUTF7(name)
	}
	return e.String(name)
}

// NumSet writes s.
func (e *Encoder) NumSet(s imap.NumSet) *Encoder {
	for i, r := range s {
		b := e.AppendBuffer(24)
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = imap.NumSet{r}.AppendText(b)
		e.Raw(b)
	}
	return e
}

// MessageSet writes s.
func (e *Encoder) MessageSet(s imap.MessageSet) *Encoder {
	if s.Saved {
		return e.Special('$')
	}
	return e.NumSet(s.Nums)
}

// Flags writes a parenthesised list.
func (e *Encoder) Flags(flags []imap.Flag) *Encoder {
	e.Special('(')
	for i, f := range flags {
		if i > 0 {
			e.SP()
		}
		e.Atom(string(f))
	}
	return e.Special(')')
}

// List writes a parenthesised list of n elements.
func (e *Encoder) List(n int, f func(i int)) *Encoder {
	e.Special('(')
	for i := range n {
		if i > 0 {
			e.SP()
		}
		f(i)
	}
	return e.Special(')')
}

// DateTime writes a quoted date-time.
func (e *Encoder) DateTime(t time.Time) *Encoder {
	b := append(e.num[:0], '"')
	b = t.AppendFormat(b, DateTimeLayout)
	return e.Raw(append(b, '"'))
}

// Literal announces a literal of size octets and returns where to write them;
// exactly size octets must be written before the Encoder is used again.
// binary is ~{n}. As a client (Wait is set) it waits for the continuation
// unless NonSync allows {n+}; when that fails, writes are dropped and CRLF
// returns the error.
func (e *Encoder) Literal(size int64, binary bool) io.Writer {
	if binary {
		e.Special('~')
	}
	e.Special('{').Raw(strconv.AppendInt(e.num[:0], size, 10))
	sync := e.Wait != nil && (e.NonSync >= 0 && size > e.NonSync || e.NonSync == 0)
	if e.Wait != nil && !sync {
		e.Special('+')
	}
	e.Atom("}\r\n")
	if sync && e.Flush() == nil {
		e.err = e.Wait()
	}
	return literalWriter{e}
}

type literalWriter struct{ e *Encoder }

func (l literalWriter) Write(p []byte) (int, error) {
	if l.e.err == nil {
		_, l.e.err = l.e.w.Write(p)
	}
	if l.e.err != nil {
		return 0, l.e.err
	}
	return len(p), nil
}

func (l literalWriter) WriteString(s string) (int, error) {
	if l.e.Atom(s).err != nil {
		return 0, l.e.err
	}
	return len(s), nil
}
