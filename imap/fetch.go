package imap

import (
	"strconv"
	"strings"
	"time"
)

// FetchOptions are the data items of FETCH (RFC 9051 §6.4.5). Macros are
// written out: see [FetchAll], [FetchFast], [FetchFull].
type FetchOptions struct {
	UID, Flags, InternalDate, Size bool
	Envelope                       bool
	Body                           bool // BODY: the structure without extension data
	BodyStructure                  bool
	Sections                       []Section // BODY[], BINARY[] and RFC822…
	BinarySizes                    [][]int   // BINARY.SIZE[part]
}

// FetchFast, FetchAll and FetchFull return the macros.
func FetchFast() FetchOptions { return FetchOptions{Flags: true, InternalDate: true, Size: true} }
func FetchAll() FetchOptions {
	return FetchOptions{Flags: true, InternalDate: true, Size: true, Envelope: true}
}
func FetchFull() FetchOptions {
	return FetchOptions{Flags: true, InternalDate: true, Size: true, Envelope: true, Body: true}
}

// SectionKind is what of a part a Section asks for.
type SectionKind string

// The kinds.
const (
	SectionAll       SectionKind = ""
	SectionHeader    SectionKind = "HEADER"
	SectionFields    SectionKind = "HEADER.FIELDS"
	SectionFieldsNot SectionKind = "HEADER.FIELDS.NOT"
	SectionText      SectionKind = "TEXT"
	SectionMIME      SectionKind = "MIME"
)

// Section names octets of a message: BODY[…]<…>, BINARY[…]<…>, or one of the
// old items RFC822, RFC822.HEADER and RFC822.TEXT.
type Section struct {
	Part    []int // 1-based; nil = the message itself
	Kind    SectionKind
	Fields  []string // of SectionFields and SectionFieldsNot
	Peek    bool     // do not set \Seen; not part of a response
	Binary  bool     // decoded (RFC 3516); Kind is SectionAll
	Partial *Partial
	Old     string // "RFC822", "RFC822.HEADER", "RFC822.TEXT": ask and answer by that name
}

// Partial is <Offset.Count> in a request, <Offset> in a response (Count 0).
type Partial struct{ Offset, Count int64 }

// String returns the item as FETCH has it in a request; in a response Peek is
// unset and Partial has no Count.
func (s *Section) String() string { return string(s.AppendItem(nil)) }

// AppendItem appends what String returns.
func (s *Section) AppendItem(b []byte) []byte {
	if s.Old != "" {
		return append(b, s.Old...)
	}
	if s.Binary {
		b = append(b, "BINARY"...)
	} else {
		b = append(b, "BODY"...)
	}
	if s.Peek {
		b = append(b, ".PEEK"...)
	}
	b = append(b, '[')
	b = appendPart(b, s.Part)
	if s.Kind != SectionAll {
		if len(s.Part) > 0 {
			b = append(b, '.')
		}
		b = append(b, s.Kind...)
	}
	if s.Kind == SectionFields || s.Kind == SectionFieldsNot {
		b = append(b, " ("...)
		for i, f := range s.Fields {
			if i > 0 {
				b = append(b, ' ')
			}
			b = appendField(b, f)
		}
		b = append(b, ')')
	}
	b = append(b, ']')
	if p := s.Partial; p != nil {
		b = append(b, '<')
		b = strconv.AppendInt(b, p.Offset, 10)
		if p.Count > 0 {
			b = append(b, '.')
			b = strconv.AppendInt(b, p.Count, 10)
		}
		b = append(b, '>')
	}
	return b
}

// appendField appends a field name as an atom where it is one, else quoted.
// What cannot be in a field name and would break the line is left out.
func appendField(b []byte, f string) []byte {
	if f != "" && strings.IndexFunc(f, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	}) < 0 {
		return append(b, f...)
	}
	b = append(b, '"')
	for i := range len(f) {
		switch c := f[i]; c {
		case '\r', '\n', 0:
		case '"', '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func appendPart(b []byte, part []int) []byte {
	for i, n := range part {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return b
}

// Envelope is the ENVELOPE item (RFC 9051 §7.5.2): header values as they
// stand, not decoded.
type Envelope struct {
	Date, Subject, InReplyTo, MessageID string
	From, Sender, ReplyTo, To, Cc, Bcc  []Address
}

// Address is one address of an Envelope. Host "" begins a group (Mailbox is
// its name) or ends it (Mailbox "" too).
type Address struct{ Name, Mailbox, Host string }

// BodyStructure is one node of the BODY and BODYSTRUCTURE items (RFC 9051
// §7.5.2). Type and Subtype are lower case.
type BodyStructure struct {
	Type, Subtype             string
	Params                    map[string]string // lower-case names
	ID, Description, Encoding string
	Size                      uint32 // octets of the encoded body
	Lines                     int64  // text/* and message/rfc822

	Envelope *Envelope        // of message/rfc822 and message/global
	Message  *BodyStructure   // its body
	Parts    []*BodyStructure // of multipart/*

	// Extension data, of BODYSTRUCTURE only.
	Extended          bool
	MD5               string
	Disposition       string // lower case, "" = NIL
	DispositionParams map[string]string
	Language          []string
	Location          string
}

// Walk calls f for each node with its part number (nil for a multipart at the
// top), until f returns false.
func (b *BodyStructure) Walk(f func(part []int, b *BodyStructure) bool) {
	if b.Type == "multipart" {
		b.walk(nil, f)
	} else {
		b.walk([]int{1}, f)
	}
}

func (b *BodyStructure) walk(part []int, f func([]int, *BodyStructure) bool) bool {
	if !f(part, b) {
		return false
	}
	parts := b.Parts
	if b.Message != nil {
		if b.Message.Type != "multipart" {
			return b.Message.walk(append(part[:len(part):len(part)], 1), f)
		}
		parts = b.Message.Parts
	}
	for i, p := range parts {
		if !p.walk(append(part[:len(part):len(part)], i+1), f) {
			return false
		}
	}
	return true
}

// FetchData is one FETCH response. Fields that were not sent are zero.
type FetchData struct {
	Seq           uint32
	UID           uint32
	Flags         []Flag
	HasFlags      bool
	InternalDate  time.Time
	Size          int64
	Envelope      *Envelope
	BodyStructure *BodyStructure // of BODY and BODYSTRUCTURE
	Sections      []SectionData
	BinarySizes   []BinarySize
}

// SectionData is the content of one section.
type SectionData struct {
	Section
	Data []byte
	Nil  bool // NIL was sent: the part does not exist
}

// BinarySize is BINARY.SIZE[part].
type BinarySize struct {
	Part []int
	Size int64
}
