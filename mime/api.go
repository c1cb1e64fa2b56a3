// Package mime reads and writes Internet messages (RFC 5322, RFC 2045-2049).
//
// SKELETON: the owner of this package splits this file into its rooms.
package mime

import (
	"io"
	"iter"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Header is a header block as received: order, spelling and folding are kept.
// The zero Header is empty and ready. Values returned are unfolded.
type Header struct{}

// ParseHeader reads a raw block: fields with CRLF (or LF) line ends, with or
// without the empty line at its end. It never fails: lines that are no field
// are kept as Defects.
func ParseHeader(block []byte) Header { panic("todo") }

// Field is one field. Raw is all of it with its line ends; Value is the
// unfolded text after the colon, not decoded, without surrounding space.
type Field struct {
	Name  string
	Raw   []byte
	Value string
}

func (h *Header) Len() int                                 { panic("todo") }
func (h *Header) Fields() iter.Seq[Field]                  { panic("todo") }
func (h *Header) Get(name string) string                   { panic("todo") } // first, "" = absent
func (h *Header) Has(name string) bool                     { panic("todo") }
func (h *Header) All(name string) iter.Seq[Field]          { panic("todo") }
func (h *Header) Text(name string) string                  { panic("todo") } // first, RFC 2047 decoded to UTF-8
func (h *Header) Addresses(name string) ([]Address, error) { panic("todo") } // all fields of that name; groups flattened
func (h *Header) Date() (time.Time, error)                 { panic("todo") } // RFC 5322 and obsolete forms
func (h *Header) MessageIDs(name string) []string          { panic("todo") } // without <>
func (h *Header) Add(name, value string) error             { panic("todo") } // at the end; folds; encodes non-ASCII (RFC 2047); ErrInjection on CR, LF, NUL
func (h *Header) Prepend(name, value string) error         { panic("todo") }
func (h *Header) Set(name, value string) error             { panic("todo") }
func (h *Header) Del(name string)                          { panic("todo") }
func (h *Header) Bytes() []byte                            { panic("todo") } // the block, CRLF line ends, without the empty line

// Address is a mailbox as a header shows it: display name and address.
type Address struct {
	Name string // decoded
	smtp.Address
}

func ParseAddress(s string) (Address, error)       { panic("todo") }
func ParseAddressList(s string) ([]Address, error) { panic("todo") }
func (a Address) String() string                   { panic("todo") } // encoded for a header

func EncodeWord(s string) string            { panic("todo") }
func DecodeText(s string) string            { panic("todo") } // all encoded words of an unstructured field
func FormatDate(t time.Time) string         { panic("todo") }
func ParseDate(s string) (time.Time, error) { panic("todo") }
func NewMessageID(domain string) string     { panic("todo") } // without <>

// Message is a message to be composed.
//
//	m := &mime.Message{From: …, To: …, Subject: "Grüße", Text: "Hi", HTML: "<p>Hi"}
//	m.WriteTo(w)
type Message struct {
	From                  []Address
	Sender                *Address
	To, Cc, Bcc, ReplyTo  []Address
	Subject               string
	Date                  time.Time // zero = now
	MessageID             string    // without <>; "" = made anew, from the domain of From
	InReplyTo, References []string
	Header                Header // further fields
	Text, HTML            string
	Inline, Attachments   []File    // Inline files are related to HTML by ContentID
	Parts                 []Content // when set: the content itself, Text/HTML/Inline/Attachments must be empty
}

// Content is a leaf or multipart of the caller's own making (multipart/report …).
type Content struct {
	Header Header // Content-Type, …
	Body   func() (io.ReadCloser, error)
	Parts  []Content
}

// File is a file to go with a message.
type File struct {
	Name      string
	Type      string // "" = by name, then application/octet-stream
	ContentID string // without <>
	Data      []byte
	Open      func() (io.ReadCloser, error) // instead of Data
}

func (m *Message) WriteTo(w io.Writer) (int64, error) { panic("todo") } // CRLF; constant memory; the same bytes each time
func (m *Message) Envelope() (smtp.Envelope, error)   { panic("todo") } // To, Cc, Bcc to recipients; Bcc is never written by WriteTo

// Part is one node of a parsed message. Offsets are octets from the beginning
// of the message.
type Part struct {
	Type, Subtype                            string            // lower case; "text", "plain" when absent
	Params                                   map[string]string // lower-case names, RFC 2231 decoded
	Disposition                              string            // lower case, "" = absent
	DispositionParams                        map[string]string
	ID, Description, Encoding, MD5, Location string // Content-*; Encoding lower case, "7bit" when absent
	Language                                 []string
	Header                                   Header
	HeaderOffset, BodyOffset, Size           int64     // Size of the body as it stands, in octets
	Lines                                    int64     // of the body
	Parts                                    []*Part   // of a multipart, in order
	Message                                  *Part     // of message/rfc822 and message/global
	Envelope                                 *Envelope // of a message: the root, and every Message
	Defects                                  []Defect
}

// Defect is something wrong that was put up with.
type Defect struct {
	Offset int64
	Text   string
}

// Envelope is what IMAP calls ENVELOPE (RFC 9051 §7.5.2): values as they stand, not decoded.
type Envelope struct {
	Date, Subject, InReplyTo, MessageID string
	From, Sender, ReplyTo, To, Cc, Bcc  []EnvelopeAddress
}

// EnvelopeAddress is one address; Host "" begins (Mailbox = group name) or ends (both "") a group.
type EnvelopeAddress struct{ Name, Mailbox, Host string }

// Limits bound the parser; 0 = default.
type Limits struct {
	HeaderBytes, Depth, Parts int
}

// Parse reads the structure of a message. It never refuses one: what is wrong
// becomes a Defect. The error is r's.
func Parse(r io.ReaderAt, size int64, l Limits) (*Part, error) { panic("todo") }

// Parser is Parse as an io.Writer, for one pass with other consumers.
type Parser struct{ Limits Limits }

func (p *Parser) Write(b []byte) (int, error) { panic("todo") } // never fails
func (p *Parser) Close() *Part                { panic("todo") } // the structure

// Raw returns the body as it stands; Decoded without transfer encoding; Text
// further in UTF-8. r is the message Parse read.
func (p *Part) Raw(r io.ReaderAt) *io.SectionReader { panic("todo") }
func (p *Part) Decoded(r io.ReaderAt) io.Reader     { panic("todo") }
func (p *Part) Text(r io.ReaderAt) io.Reader        { panic("todo") }
func (p *Part) FileName() string                    { panic("todo") }

// Summary is the structure with its envelopes, encoded compactly for a store
// to keep beside a message. The root's header keeps Date, Subject, From,
// Sender, Reply-To, To, Cc, Bcc, In-Reply-To, Message-ID, References,
// Content-* only.
func (p *Part) Summary() []byte { panic("todo") }

// DecodeSummary fails on a damaged or future one: parse the message again then.
func DecodeSummary(b []byte) (*Part, error) { panic("todo") }
