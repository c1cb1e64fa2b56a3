package report

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/postrider/postrider/mime"
)

// ErrNoDisposition says that a message holds no disposition notification
// (RFC 8098).
var ErrNoDisposition = errors.New("report: message has no disposition notification")

// Disposition is what was done with a message after its delivery
// (RFC 8098 §3.2.6.2), in lower case.
type Disposition string

// The dispositions.
const (
	Displayed  Disposition = "displayed"  // shown to somebody
	Deleted    Disposition = "deleted"    // seen or not
	Dispatched Disposition = "dispatched" // printed, forwarded …
	Processed  Disposition = "processed"  // by rules or a program
)

// MDN is a message disposition notification (RFC 8098), a read receipt. The
// comments name its fields.
type MDN struct {
	// ReportingUA is the program that made it, "host; product"
	// (Reporting-UA); "" = not told.
	ReportingUA string
	// Gateway is the host that translated it from a foreign system
	// (MDN-Gateway), as DSN.ReportingMTA.
	Gateway string
	// Final (Final-Recipient, must be set) and Original (Original-Recipient)
	// are as in [Recipient].
	Final, FinalType       string
	Original, OriginalType string
	// MessageID is that of the message, without <> (Original-Message-ID). It
	// is taken from Message-ID of OriginalHeader when "".
	MessageID string

	// Automatic says that no user asked for what was done
	// ("automatic-action"), SentAutomatically that none agreed to this
	// notification ("MDN-sent-automatically"): RFC 8098 §3.2.6.1.
	Automatic, SentAutomatically bool
	// Disposition must be set.
	Disposition Disposition
	// Modifiers are in lower case: "error" and such.
	Modifiers []string
	// Errors are texts (Error).
	Errors []string

	// UTF8, Text, OriginalHeader and OriginalMessage are as UTF8, Text,
	// OriginalHeader and Original of [DSN].
	UTF8            bool
	Text            string
	OriginalHeader  mime.Header
	OriginalMessage func() (io.ReadCloser, error)
}

// ParseMDN reads the notification that a message holds; the error is
// [ErrNoDisposition] or r's.
func ParseMDN(r io.ReaderAt, size int64) (*MDN, error) {
	root, err := mime.Parse(r, size, mime.Limits{})
	if err != nil {
		return nil, err
	}
	return ReadMDN(root, r)
}

// ReadMDN is [ParseMDN] for a message whose structure is known already, as
// [Read] is to [Parse].
func ReadMDN(root *mime.Part, r io.ReaderAt) (*MDN, error) {
	found := find(root, "disposition-notification", "global-disposition-notification")
	if found.status == nil {
		return nil, ErrNoDisposition
	}
	b, err := found.fields(r)
	if err != nil {
		return nil, err
	}
	m := &MDN{UTF8: strings.HasPrefix(found.status.Subtype, "global-")}
	for h := range blocks(b) {
		for f := range h.Fields() {
			m.set(f)
		}
	}
	if m.Text, err = found.prose(r); err != nil {
		return nil, err
	}
	m.OriginalHeader, m.OriginalMessage, err = found.message(r)
	return m, err
}

func (m *MDN) set(f mime.Field) {
	kind, value := typed(f.Value)
	switch strings.ToLower(f.Name) {
	case "reporting-ua":
		m.ReportingUA = f.Value
	case "mdn-gateway":
		m.Gateway = hostName(kind, value)
	case "final-recipient":
		m.Final, m.FinalType = address(kind, value)
	case "original-recipient":
		m.Original, m.OriginalType = address(kind, value)
	case "original-message-id":
		m.MessageID = strings.Trim(f.Value, "<> \t")
	case "error", "failure", "warning":
		if f.Value != "" {
			m.Errors = append(m.Errors, f.Value)
		}
	case "disposition":
		modes, what, ok := strings.Cut(strings.ToLower(f.Value), ";")
		if !ok {
			modes, what = "", modes
		}
		m.Automatic = strings.Contains(modes, "automatic-action")
		m.SentAutomatically = strings.Contains(modes, "mdn-sent-automatically")
		what, modifiers, _ := strings.Cut(what, "/")
		m.Disposition = Disposition(firstWord(what))
		m.Modifiers = nil
		for s := range strings.SplitSeq(modifiers, ",") {
			if s = firstWord(s); s != "" {
				m.Modifiers = append(m.Modifiers, s)
			}
		}
	}
}

// Message makes the notification a message from the recipient of the original
// to who asked for it: the addresses of its Disposition-Notification-To. It
// must be sent with the null reverse-path (RFC 8098 §3).
func (m *MDN) Message(from mime.Address, to ...mime.Address) (*mime.Message, error) {
	c, err := m.Content()
	if err != nil {
		return nil, err
	}
	msg := &mime.Message{From: []mime.Address{from}, To: to, Subject: "Disposition notification", Parts: []mime.Content{c}}
	if s := oneLine(m.OriginalHeader.Text("Subject")); s != "" {
		msg.Subject = "Disposition notification: " + s
	}
	if err := msg.Header.Add("Auto-Submitted", "auto-replied"); err != nil {
		return nil, err
	}
	if id := m.messageID(); id != "" {
		msg.InReplyTo = []string{id}
		msg.References = msg.InReplyTo
	}
	return msg, nil
}

// messageID returns the identifier of the original; "" when it has none that
// can be written.
func (m *MDN) messageID() string {
	if m.MessageID != "" {
		return writableID([]string{m.MessageID})
	}
	return writableID(m.OriginalHeader.MessageIDs("Message-ID"))
}

// Content makes the notification a multipart/report (RFC 6522) of the text,
// the fields, and the message it is about, as far as that is given. The error
// is [ErrIncomplete] or that of OriginalMessage.
func (m *MDN) Content() (mime.Content, error) {
	var c mime.Content
	switch {
	case oneLine(m.Final) == "":
		return c, fmt.Errorf("%w: Final-Recipient", ErrIncomplete)
	case !token(string(m.Disposition)):
		return c, fmt.Errorf("%w: Disposition", ErrIncomplete)
	}
	for _, s := range m.Modifiers {
		if !token(s) {
			return c, fmt.Errorf("%w: a modifier of Disposition", ErrIncomplete)
		}
	}
	w := fields{utf8: m.UTF8}
	if m.ReportingUA != "" {
		w.add("Reporting-UA", m.ReportingUA)
	}
	if m.Gateway != "" {
		w.add("MDN-Gateway", host(m.Gateway))
	}
	if m.Original != "" {
		w.address("Original-Recipient", m.OriginalType, m.Original)
	}
	w.address("Final-Recipient", m.FinalType, m.Final)
	if id := m.messageID(); id != "" {
		w.add("Original-Message-ID", "<"+id+">")
	}
	d := "manual-action/"
	if m.Automatic {
		d = "automatic-action/"
	}
	if m.SentAutomatically {
		d += "MDN-sent-automatically; "
	} else {
		d += "MDN-sent-manually; "
	}
	d += string(m.Disposition)
	if len(m.Modifiers) > 0 {
		d += "/" + strings.Join(m.Modifiers, ",")
	}
	w.add("Disposition", d)
	for _, s := range m.Errors {
		w.add("Error", s)
	}

	text := m.Text
	if text == "" {
		text = m.explain()
	}
	global := ""
	if m.UTF8 {
		global = "global-"
	}
	if err := c.Header.Add("Content-Type", "multipart/report; report-type="+global+"disposition-notification"); err != nil {
		return c, err
	}
	c.Parts = []mime.Content{
		leaf("text/plain; charset=utf-8", "Notification", []byte(text)),
		leaf("message/"+global+"disposition-notification", "Disposition", w.b),
	}
	original, ok, err := returned(m.OriginalHeader, m.OriginalMessage, m.UTF8)
	if ok {
		c.Parts = append(c.Parts, original)
	}
	return c, err
}

// explain writes the text for people.
func (m *MDN) explain() string {
	var b strings.Builder
	b.WriteString("The message")
	if s := oneLine(m.OriginalHeader.Text("Subject")); s != "" {
		fmt.Fprintf(&b, " with the subject %q", s)
	}
	if t, err := m.OriginalHeader.Date(); err == nil {
		fmt.Fprintf(&b, " of %s", mime.FormatDate(t))
	}
	fmt.Fprintf(&b, " to %s was %s.\n", oneLine(m.Final), m.Disposition)
	if m.Disposition == Displayed {
		b.WriteString("That does not say that it was read or understood.\n")
	}
	for _, s := range m.Errors {
		fmt.Fprintf(&b, "%s\n", oneLine(s))
	}
	return b.String()
}
