package mime

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// ErrMessage says that a Message cannot be written as it is filled in.
var ErrMessage = errors.New("mime: message cannot be written")

// Message is a message to be composed.
//
//	m := &mime.Message{
//		From:    []mime.Address{from},
//		To:      []mime.Address{to},
//		Subject: "Grüße",
//		Text:    "Hi\n",
//		HTML:    "<p>Hi",
//	}
//	m.WriteTo(w)
//
// Text and HTML are alternatives when both are given, Inline files are
// related to HTML, Attachments stand beside all that: there are only as many
// multiparts as that needs.
//
// WriteTo, Size and Envelope choose what is left open in Date and MessageID
// and fill it in; from then on every WriteTo writes the same octets, and they
// may be called from many goroutines if the fields are left alone. Two
// messages that are equal in all fields are written alike: with Date and
// MessageID, the seed of all boundaries, the output is deterministic.
type Message struct {
	From                 []Address
	Sender               *Address // needed when From has more than one
	To, Cc, Bcc, ReplyTo []Address
	Subject              string
	Date                 time.Time // zero = now
	MessageID            string    // without <>; "" = made anew, from the domain of From
	InReplyTo            []string  // without <>
	References           []string  // without <>

	// Header has further fields; they are written as they stand. A field
	// that is also set above is an error, Bcc and MIME-Version are left out.
	Header Header

	// Unsubscribe are URIs, mailto: and https:, for List-Unsubscribe (RFC
	// 2369 §3.2). With OneClick one POST to the first https: one, which
	// must be there, unsubscribes (RFC 8058 §3.1); both fields must be
	// signed with DKIM then.
	Unsubscribe []string
	OneClick    bool

	// Text and HTML are UTF-8; their line ends become CRLF.
	Text, HTML string
	// Flowed writes Text in format=flowed (RFC 3676): its lines are
	// paragraphs that readers wrap to their own width.
	Flowed bool
	// Calendar is an invitation or an answer to one, beside Text and HTML as
	// an alternative (iMIP, RFC 6047).
	Calendar *Calendar
	// Inline are files that HTML refers to as "cid:" and their ContentID.
	Inline []File
	// Attachments are files beside the text.
	Attachments []File
	// Parts is the content itself when it is set; Text, HTML, Calendar,
	// Inline and Attachments must be empty then. One is the body of the message, more
	// become a multipart/mixed.
	Parts []Content

	// Allow says what the receiver is known to take.
	Allow Allow
}

// Allow is what a receiver takes besides ASCII lines, as its SMTP server
// announces it. The zero Allow is right for all receivers.
type Allow struct {
	// EightBit lets text be 8bit (8BITMIME, RFC 6152).
	EightBit bool
	// Binary lets files, and text with lines of any length, be binary
	// (BINARYMIME, RFC 3030). It implies EightBit.
	Binary bool
	// UTF8 lets header fields have UTF-8 instead of encoded words and RFC
	// 2231 (SMTPUTF8, RFC 6531 and RFC 6532).
	UTF8 bool
}

// Calendar is an object of iCalendar (RFC 5545) that is mailed (RFC 6047).
type Calendar struct {
	// Method is that of Data: REQUEST, REPLY, CANCEL …; "" = read from
	// Data. It is an error when the two differ (RFC 6047 §2.4).
	Method string
	Data   []byte // UTF-8
}

// Content is a leaf or multipart of the caller's own making.
type Content struct {
	// Header has Content-Type and other Content-* fields, no others. The
	// boundary of a multipart is added to its Content-Type, which is
	// multipart/mixed when absent. A leaf without Content-Type is
	// text/plain in UTF-8.
	//
	// Content-Transfer-Encoding says how a leaf shall be encoded: 7bit,
	// 8bit, quoted-printable or base64; when absent that is chosen.
	Header Header
	// Body opens the content of a leaf, not encoded. It may be called more
	// than once and must give the same octets each time. Line ends of text
	// and of messages become CRLF.
	Body func() (io.ReadCloser, error)
	// Parts make it a multipart; Body must be nil then.
	Parts []Content
	// Entity opens content with its header, the empty line and the body as
	// they shall be, with CRLF line ends: what was signed or encrypted. The
	// other fields must be empty. It may be called more than once and must
	// give the same octets each time.
	Entity func() (io.ReadCloser, error)
}

// File is a file to go with a message.
type File struct {
	Name      string
	Type      string // media type; "" = by the ending of Name, else application/octet-stream
	ContentID string // without <>; "" for an Inline file = its Name
	Data      []byte
	// Open is used instead of Data. It may be called more than once and must
	// give the same octets each time.
	Open func() (io.ReadCloser, error)

	once bool // Open gives the octets only once
}

// WriteTo writes the message with CRLF line ends and no line of more than 998
// octets. Files are streamed: memory does not depend on their size. The error
// is w's, that of a file, or wraps [ErrMessage] (or [ErrInjection],
// [ErrLineLength]), in which case nothing was written.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	root, _, err := m.plan()
	if err != nil {
		return 0, err
	}
	out := output{w: w}
	root.write(&out)
	return out.finish()
}

// WriteContent writes the content of the message alone, with the Content-*
// fields as its header: what S/MIME and PGP/MIME sign or encrypt (RFC 8551
// §3.1, RFC 3156 §5), and [Content.Entity] takes back. Errors are as those of
// WriteTo.
func (m *Message) WriteContent(w io.Writer) (int64, error) {
	root, _, err := m.plan()
	if err != nil {
		return 0, err
	}
	root.header = root.header[root.content:]
	out := output{w: w}
	root.write(&out)
	return out.finish()
}

// Size returns how many octets WriteTo writes. It composes the message to
// know, and reads its files.
func (m *Message) Size() (int64, error) { return m.WriteTo(io.Discard) }

// Envelope returns the SMTP envelope of the message: From is Sender, or the
// first of From; the recipients are those of To, Cc and Bcc, each once. UTF8
// is set when an address or a field needs SMTPUTF8 (RFC 6531), and Body to
// 8BITMIME when the message has 8-bit octets, or to BINARYMIME.
func (m *Message) Envelope() (smtp.Envelope, error) {
	_, eight, err := m.plan()
	if err != nil {
		return smtp.Envelope{}, err
	}
	var env smtp.Envelope
	env.UTF8 = eight.header
	if eight.header || eight.body {
		env.Body = smtp.Body8Bit
	}
	if eight.binary {
		env.Body = smtp.BodyBinary
	}
	env.From = m.From[0].Address
	if m.Sender != nil {
		env.From = m.Sender.Address
	}
	seen := make(map[smtp.Address]bool)
	for _, list := range [...][]Address{m.To, m.Cc, m.Bcc} {
		for _, a := range list {
			if !seen[a.Address] {
				seen[a.Address] = true
				env.To = append(env.To, smtp.Recipient{Address: a.Address})
				env.UTF8 = env.UTF8 || !a.ASCII()
			}
		}
	}
	if len(env.To) == 0 {
		return smtp.Envelope{}, fmt.Errorf("%w: no recipients", ErrMessage)
	}
	return env, nil
}

// Template is what a *template.Template of text/template or html/template is.
type Template interface {
	Execute(w io.Writer, data any) error
}

// SetText makes Text from a template; when that fails, Text stays as it is.
// Use text/template: what html/template escapes is not for plain text.
func (m *Message) SetText(t Template, data any) error { return execute(&m.Text, t, data) }

// SetHTML makes HTML from a template; when that fails, HTML stays as it is.
// Use html/template, which escapes the data. The package mime/htmlmail puts
// the pictures into the message that the HTML refers to.
func (m *Message) SetHTML(t Template, data any) error { return execute(&m.HTML, t, data) }

func execute(to *string, t Template, data any) error {
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return err
	}
	*to = b.String()
	return nil
}

// FileFS is a file of a file system, which is opened when the message is
// written. Its Name is the last element of name.
func FileFS(fsys fs.FS, name string) File {
	return File{Name: path.Base(name), Open: func() (io.ReadCloser, error) { return fsys.Open(name) }}
}

// FileReader is a file that comes from a reader, read to its end when the
// message is written. A reader that cannot seek can be read only once: so can
// the message be written once, and Size and Envelope come too late or spend
// it. A message/* from such a reader becomes application/octet-stream.
func FileReader(name string, r io.Reader) File {
	f := File{Name: name}
	seeker, ok := r.(io.ReadSeeker)
	f.once = !ok
	var start int64
	begun := false
	f.Open = func() (io.ReadCloser, error) {
		switch {
		case !begun && ok:
			var err error
			if start, err = seeker.Seek(0, io.SeekCurrent); err != nil {
				return nil, err
			}
		case begun && ok:
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return nil, err
			}
		case begun:
			return nil, &fs.PathError{Op: "read again", Path: name, Err: os.ErrClosed}
		}
		begun = true
		return io.NopCloser(r), nil
	}
	return f
}
