package mime

import (
	"io"
	"slices"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// Reply begins the answer to the message with the header h: To is its
// Reply-To, else its From; Subject, In-Reply-To and References are set (RFC
// 5322 §3.6.4). From is self.
func Reply(h *Header, self Address) *Message {
	m := &Message{From: []Address{self}}
	m.To, _ = h.Addresses("Reply-To")
	if len(m.To) == 0 {
		m.To, _ = h.Addresses("From")
	}
	if len(m.To) == 0 {
		m.To, _ = h.Addresses("Sender")
	}
	m.Subject = h.cleanText("Subject")
	if len(m.Subject) < 3 || !equalFold(m.Subject[:3], "re:") {
		m.Subject = strings.TrimRight("Re: "+m.Subject, " ")
	}
	m.InReplyTo, m.References = h.thread()
	return m
}

// ReplyAll is [Reply] also to the other recipients: those of To come after
// the author, those of Cc get a copy again. The addresses of self, of which
// the first is the author of the answer, are left out, and so is what would
// stand twice. The answer to a message of one's own goes to its To.
func ReplyAll(h *Header, self Address, others ...Address) *Message {
	m := Reply(h, self)
	seen := map[smtp.Address]bool{}
	me := func(a Address) bool {
		return a.Address == self.Address || slices.ContainsFunc(others, func(o Address) bool { return o.Address == a.Address })
	}
	author := m.To
	m.To = nil
	add := func(to *[]Address, list []Address) {
		for _, a := range list {
			if !me(a) && !seen[a.Address] {
				seen[a.Address] = true
				*to = append(*to, a)
			}
		}
	}
	add(&m.To, author)
	to, _ := h.Addresses("To")
	add(&m.To, to)
	cc, _ := h.Addresses("Cc")
	add(&m.Cc, cc)
	if len(m.To) == 0 {
		m.To, m.Cc = m.Cc, nil
	}
	if len(m.To) == 0 {
		m.To = author // a note to oneself
	}
	return m
}

// Forward begins a message that has the message root as an attachment, as it
// was received. Its Subject is "Fwd: " and that of root; its References name
// it. r is the message that was parsed.
func Forward(root *Part, r io.ReaderAt, self Address) *Message {
	h := &root.Header
	subject := h.cleanText("Subject")
	m := &Message{From: []Address{self}, Subject: strings.TrimRight("Fwd: "+subject, " ")}
	if _, fwd, ok := strings.Cut(lower(subject), "fwd:"); ok && len(fwd)+4 == len(subject) {
		m.Subject = subject
	}
	_, m.References = h.thread()
	size := root.BodyOffset - root.HeaderOffset + root.Size
	m.Attachments = []File{{
		Name: "message.eml",
		Type: "message/rfc822",
		Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(r, root.HeaderOffset, size)), nil
		},
	}}
	return m
}

// Quote returns text with "> " before each line, as an answer has it; what is
// quoted already gets one more ">".
func Quote(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n \t")
		b.WriteByte('>')
		if line != "" && line[0] != '>' {
			b.WriteByte(' ')
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// cleanText is Text fit for a Message.
func (h *Header) cleanText(name string) string {
	return strings.TrimSpace(strings.ToValidUTF8(h.Text(name), "\ufffd"))
}

// maxReferences bounds the References of an answer: the first, which began
// the thread, and the last ones stay.
const maxReferences = 50

// thread returns In-Reply-To and References of an answer (RFC 5322 §3.6.4).
func (h *Header) thread() (inReplyTo, references []string) {
	ids := h.MessageIDs("Message-ID")
	references = h.MessageIDs("References")
	if len(references) == 0 {
		if r := h.MessageIDs("In-Reply-To"); len(r) == 1 {
			references = r
		}
	}
	if len(ids) > 0 {
		inReplyTo = ids[:1]
		references = slices.DeleteFunc(references, func(id string) bool { return id == ids[0] })
		references = append(references, ids[0])
	}
	// What cannot be written again is no reason to refuse to answer.
	odd := func(id string) bool {
		return len(id) > 900 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == '<' || r == '>' || r >= 0x7f })
	}
	inReplyTo = slices.DeleteFunc(slices.Clone(inReplyTo), odd)
	references = slices.DeleteFunc(references, odd)
	if n := len(references); n > maxReferences {
		references = slices.Delete(references, 1, n-maxReferences+1)
	}
	return inReplyTo, references
}
