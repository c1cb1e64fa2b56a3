package mime

import (
	"bytes"
	"errors"
	"io"
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
