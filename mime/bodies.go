package mime

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
)

// Raw returns the body as it stands. r is the message that was parsed.
func (p *Part) Raw(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, p.BodyOffset, p.Size)
}

// Decoded returns the body without its transfer encoding. Damage is put up
// with as [NewBase64Reader] and [NewQuotedPrintableReader] say; a body in an
// unknown encoding, and that of a multipart, comes as it stands. Errors are
// r's. r is the message that was parsed.
func (p *Part) Decoded(r io.ReaderAt) io.Reader {
	if p.Type != "multipart" && (p.Encoding == "base64" || p.Encoding == "quoted-printable") {
		d := &decoder{body: *p.Raw(r), size: p.Size, qp: p.Encoding != "base64"}
		d.r = &d.body
		return d
	}
	return p.decoded(p.Raw(r))
}

// decoded decodes a body.
func (p *Part) decoded(raw io.Reader) io.Reader {
	if p.Type == "multipart" {
		return raw
	}
	switch p.Encoding {
	case "base64":
		return NewBase64Reader(raw)
	case "quoted-printable":
		return NewQuotedPrintableReader(raw)
	case uuencode:
		return NewUUReader(raw)
	}
	return raw
}

// ErrNoMessage says that a part holds no message.
var ErrNoMessage = errors.New("mime: part holds no message")

// Nested returns the message that p holds and what its offsets are of: Message
// and r where that was parsed with the rest, else the message in a
// message/rfc822 with a transfer encoding, which RFC 2046 §5.2.1 forbids and
// people write all the same, or in one that a limit kept closed. That is decoded
// and parsed now, and is kept in memory: at most Size octets. r is the message
// that was parsed; errors are r's, and [ErrNoMessage].
func (p *Part) Nested(r io.ReaderAt, l Limits) (*Part, io.ReaderAt, error) {
	if p.Message != nil {
		return p.Message, r, nil
	}
	if p.Type != "message" || p.Subtype != "rfc822" && p.Subtype != "global" {
		return nil, nil, ErrNoMessage
	}
	b, err := io.ReadAll(p.Decoded(r))
	if err != nil {
		return nil, nil, err
	}
	return ParseBytes(b, l), bytes.NewReader(b), nil
}

// Text returns the body as [Part.Decoded] does, and further in UTF-8. What is
// no text of the declared charset becomes U+FFFD; without a charset, or with
// one that nobody knows, octets that are no UTF-8 are read as windows-1252.
// Line ends are not changed. r is the message that was parsed. [Reading] has
// more to offer.
func (p *Part) Text(r io.ReaderAt) io.Reader {
	return p.text(p.Decoded(r))
}

func (p *Part) text(decoded io.Reader) io.Reader {
	t := charsetDecoder(p.Params["charset"])
	if t == nil {
		t = guess{}
	}
	return toUTF8Reader(decoded, t)
}

// Bodies are the parts of a message as people see it, by the algorithm of
// RFC 8621 §4.1.4. A part may be in more than one list.
type Bodies struct {
	// Text and HTML are what to show, one after another, to whom likes
	// plain text or HTML better; both have all that there is only once.
	// They may have pictures, sound and films in them.
	Text, HTML []*Part
	// Attachments are all other parts.
	Attachments []*Part
	// Inline are those of the Attachments that HTML refers to by their ID,
	// unless they say that they are attachments.
	Inline []*Part
}

// Bodies sorts the parts of the message or part p. What is in an attached
// message is not looked at; Bodies of its Message does.
func (p *Part) Bodies() Bodies {
	var b Bodies
	b.sort([]*Part{p}, "mixed", false, &b.HTML, &b.Text)
	for _, a := range b.Attachments {
		if a.ID != "" && a.Disposition != "attachment" {
			b.Inline = append(b.Inline, a)
		}
	}
	return b
}

func (b *Bodies) sort(parts []*Part, multipart string, inAlternative bool, html, text *[]*Part) {
	texts, htmls := -1, -1
	if text != nil {
		texts = len(*text)
	}
	if html != nil {
		htmls = len(*html)
	}
	for i, p := range parts {
		plain := p.Type == "text" && p.Subtype == "plain"
		isHTML := p.Type == "text" && p.Subtype == "html"
		media := p.Type == "image" || p.Type == "audio" || p.Type == "video"
		inline := p.Disposition != "attachment" && (plain || isHTML || media) &&
			(i == 0 || multipart != "related" && (media || p.FileName() == ""))
		switch {
		case p.IsMultipart() && p.Parts != nil:
			b.sort(p.Parts, p.Subtype, inAlternative || p.Subtype == "alternative", html, text)
		case p.IsMultipart() && p.Size == 0:
		case !inline:
			b.Attachments = append(b.Attachments, p)
		case multipart == "alternative" && plain:
			push(text, p)
		case multipart == "alternative" && isHTML:
			push(html, p)
		case multipart == "alternative":
			b.Attachments = append(b.Attachments, p)
		default:
			if inAlternative && plain {
				html = nil
			}
			if inAlternative && isHTML {
				text = nil
			}
			push(text, p)
			push(html, p)
			if (text == nil || html == nil) && media {
				b.Attachments = append(b.Attachments, p)
			}
		}
	}
	if multipart == "alternative" && text != nil && html != nil {
		if texts == len(*text) && htmls != len(*html) {
			*text = append(*text, (*html)[htmls:]...)
		} else if htmls == len(*html) && texts != len(*text) {
			*html = append(*html, (*text)[texts:]...)
		}
	}
}

func push(list *[]*Part, p *Part) {
	if list != nil {
		*list = append(*list, p)
	}
}

// ContentID returns ID without angle brackets, "" when there is none.
func (p *Part) ContentID() string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(p.ID), "<"), ">")
}

// Find returns the part within p, or p itself, that a "cid:" URL refers to
// (RFC 2392); with or without "cid:" and angle brackets, nil when there is
// none.
func (p *Part) Find(cid string) *Part {
	if len(cid) > 4 && equalFold(cid[:4], "cid:") {
		cid = string(appendUnescaped(nil, cid[4:]))
	}
	cid = strings.TrimSuffix(strings.TrimPrefix(cid, "<"), ">")
	if cid == "" {
		return nil
	}
	for q := range p.All() {
		if q.ContentID() == cid {
			return q
		}
	}
	return nil
}

// All yields p and every part and message in it, in their order in the
// message.
func (p *Part) All() iter.Seq[*Part] {
	return func(yield func(*Part) bool) {
		stack := []*Part{p}
		for len(stack) > 0 {
			p := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !yield(p) {
				return
			}
			if p.Message != nil {
				stack = append(stack, p.Message)
			}
			for _, c := range slices.Backward(p.Parts) {
				stack = append(stack, c)
			}
		}
	}
}
