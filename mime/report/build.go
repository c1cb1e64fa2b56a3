package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// Message makes the notice a message from one address, usually the
// postmaster's, to the sender of the original. It must be sent with the null
// reverse-path (RFC 3464 §2), not with the From of its Envelope. The error is
// [ErrIncomplete] or that of Original.
func (d *DSN) Message(from mime.Address, to smtp.Address) (*mime.Message, error) {
	c, err := d.Content()
	if err != nil {
		return nil, err
	}
	m := &mime.Message{
		From:    []mime.Address{from},
		To:      []mime.Address{{Address: to}},
		Subject: d.subject(),
		Parts:   []mime.Content{c},
	}
	// RFC 3834 §3.1.7 and §5: nobody's vacation may answer this.
	if err := m.Header.Add("Auto-Submitted", "auto-replied"); err != nil {
		return nil, err
	}
	if id := writableID(d.OriginalHeader.MessageIDs("Message-ID")); id != "" {
		m.InReplyTo = []string{id}
		m.References = m.InReplyTo
	}
	return m, nil
}

// Content makes the notice a multipart/report (RFC 6522) of the text, the
// delivery status, and the message it is about, as far as that is given.
func (d *DSN) Content() (mime.Content, error) {
	var c mime.Content
	status, err := d.status()
	if err != nil {
		return c, err
	}
	text := d.Text
	if text == "" {
		text = d.explain()
	}
	global := ""
	if d.UTF8 {
		global = "global-"
	}
	if err := c.Header.Add("Content-Type", "multipart/report; report-type="+global+"delivery-status"); err != nil {
		return c, err
	}
	c.Parts = append(c.Parts,
		leaf("text/plain; charset=utf-8", "Notification", []byte(text)),
		leaf("message/"+global+"delivery-status", "Delivery report", status))
	original, ok, err := returned(d.OriginalHeader, d.Original, d.UTF8)
	if err != nil {
		return c, err
	}
	if ok {
		c.Parts = append(c.Parts, original)
	}
	return c, nil
}

// writableID returns the first identifier that can stand in a field.
func writableID(ids []string) string {
	for _, id := range ids {
		if id != "" && len(id) < 900 && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == '<' || r == '>' || r == 0x7f }) {
			return id
		}
	}
	return ""
}

func leaf(mediaType, description string, body []byte) mime.Content {
	c := mime.Content{Body: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(body)), nil
	}}
	// These values are our own: they can always be written.
	_ = c.Header.Add("Content-Type", mediaType)
	_ = c.Header.Add("Content-Description", description)
	return c
}

// returned makes the third part; false when there is nothing to return.
func returned(h mime.Header, open func() (io.ReadCloser, error), utf8 bool) (mime.Content, bool, error) {
	if open != nil {
		ok, err := carriable(open)
		if err != nil {
			return mime.Content{}, false, err
		}
		if ok {
			mediaType := "message/rfc822"
			if utf8 {
				mediaType = "message/global"
			}
			c := leaf(mediaType, "Original message", nil)
			c.Body = open
			return c, true, nil
		}
	}
	header := h.Bytes()
	if len(header) == 0 {
		return mime.Content{}, false, nil
	}
	if utf8 {
		c := leaf("message/global-headers", "Original message headers", header)
		_ = c.Header.Add("Content-Transfer-Encoding", "base64") // RFC 6533 §4 allows any
		return c, true, nil
	}
	return leaf("text/rfc822-headers", "Original message headers", header), true, nil
}

// carriable reports whether a message can stand within another one without an
// encoding: lines of at most 998 octets, no NUL, no lone CR.
func carriable(open func() (io.ReadCloser, error)) (bool, error) {
	r, err := open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	buf := make([]byte, 16<<10)
	line, cr := 0, false
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			if c == '\n' {
				line, cr = 0, false
				continue
			}
			if line++; c == 0 || cr || line > 998 {
				return false, nil
			}
			if cr = c == '\r'; cr {
				line--
			}
		}
		if err == io.EOF {
			return !cr, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// status writes the groups of fields of RFC 3464 §2.1.
func (d *DSN) status() ([]byte, error) {
	if d.ReportingMTA == "" || len(d.Recipients) == 0 {
		return nil, ErrIncomplete
	}
	w := fields{utf8: d.UTF8}
	if d.EnvelopeID != "" {
		w.add("Original-Envelope-Id", d.EnvelopeID)
	}
	w.add("Reporting-MTA", host(d.ReportingMTA))
	if d.ReceivedFrom != "" {
		w.add("Received-From-MTA", host(d.ReceivedFrom))
	}
	w.date("Arrival-Date", d.Arrival)
	w.date("Deliver-By-Date", d.DeliverBy)
	if d.FutureRelease != "" {
		w.add("Future-Release-Request", d.FutureRelease)
	}
	for _, r := range d.Recipients {
		if r.Final == "" || r.Action == "" {
			return nil, ErrIncomplete
		}
		w.b = append(w.b, "\r\n"...)
		if r.Original != "" {
			w.address("Original-Recipient", r.OriginalType, r.Original)
		}
		w.address("Final-Recipient", r.FinalType, r.Final)
		w.add("Action", string(r.Action))
		w.add("Status", r.code())
		if r.RemoteMTA != "" {
			w.add("Remote-MTA", host(r.RemoteMTA))
		}
		if r.Diagnostic != "" {
			t := r.DiagnosticType
			if t == "" {
				t = "smtp"
			}
			w.add("Diagnostic-Code", t+"; "+r.Diagnostic)
		}
		w.date("Last-Attempt-Date", r.LastAttempt)
		w.date("Will-Retry-Until", r.RetryUntil)
	}
	return w.b, nil
}

// code returns the status; without one, that of the action.
func (r *Recipient) code() string {
	if r.Status != (smtp.EnhancedCode{}) {
		return r.Status.String()
	}
	switch r.Action {
	case Failed:
		return "5.0.0"
	case Delayed:
		return "4.0.0"
	}
	return "2.0.0"
}

// host writes the name of a host with its type.
func host(s string) string {
	if strings.Contains(s, ";") {
		return s
	}
	return "dns; " + s
}

// fields writes the fields of a delivery status.
type fields struct {
	b    []byte
	utf8 bool
}

func (w *fields) date(name string, t time.Time) {
	if !t.IsZero() {
		w.add(name, mime.FormatDate(t))
	}
}

func (w *fields) address(name, kind, addr string) {
	ascii := isASCII(addr)
	switch {
	case kind == "" && ascii:
		kind = "rfc822"
	case kind == "":
		kind = "utf-8"
	}
	if !ascii && !w.utf8 {
		addr = escapeAddress(addr)
	}
	w.add(name, kind+"; "+addr)
}

// add writes one field, folded at white space. What would break the field
// becomes a space, and without UTF-8 what is not ASCII a question mark.
func (w *fields) add(name, value string) {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(value, "?") {
		switch {
		case r < ' ' || r == 0x7f:
			r = ' '
		case r >= 0x80 && !w.utf8:
			r = '?'
		}
		b.WriteRune(r)
	}
	w.b = append(append(w.b, name...), ':')
	col := len(name) + 1
	const columns, limit = 76, 900
	for word := range strings.FieldsSeq(b.String()) {
		for word != "" {
			n := min(len(word), limit)
			for n > 0 && n < len(word) && word[n]&0xc0 == 0x80 {
				n-- // not within a character
			}
			if col+1+n > columns && col > len(name)+1 || col+1+n > 998 {
				w.b = append(w.b, "\r\n"...)
				col = 0
			}
			w.b = append(append(w.b, ' '), word[:n]...)
			col += 1 + n
			word = word[n:]
		}
	}
	w.b = append(w.b, "\r\n"...)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// escapeAddress writes utf-8-addr-xtext (RFC 6533 §3): characters that are
// not ASCII, and those that it uses itself, as \x{HEX}.
func escapeAddress(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 0x7f || r <= ' ' || r == '\\' || r == '+' || r == '=' {
			fmt.Fprintf(&b, `\x{%X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// worst returns the action that matters most to the reader.
func (d *DSN) worst() Action {
	worst := Delivered
	for _, r := range d.Recipients {
		switch r.Action {
		case Failed:
			return Failed
		case Delayed:
			worst = Delayed
		}
	}
	return worst
}

func (d *DSN) subject() string {
	switch d.worst() {
	case Failed:
		return "Undelivered mail"
	case Delayed:
		return "Delayed mail (still being retried)"
	}
	return "Successful mail delivery report"
}

// explain writes the text for people.
func (d *DSN) explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "This is the mail system at %s.\n", oneLine(d.ReportingMTA))
	if s := oneLine(d.OriginalHeader.Text("Subject")); s != "" {
		fmt.Fprintf(&b, "It writes about your message %q.\n", s)
	}
	for _, group := range [...]struct {
		action []Action
		text   string
	}{
		{[]Action{Failed}, "It could not be delivered to the following recipients, and will not be tried again:"},
		{[]Action{Delayed}, "It could not be delivered yet to the following recipients. It is being tried again; you need not send it once more:"},
		{[]Action{Delivered, Expanded}, "It was delivered to:"},
		{[]Action{Relayed}, "It was handed on to a host that sends no delivery reports, for:"},
	} {
		head := false
		for _, r := range d.Recipients {
			if r.Action != group.action[0] && r.Action != group.action[len(group.action)-1] {
				continue
			}
			if !head {
				fmt.Fprintf(&b, "\n%s\n\n", group.text)
				head = true
			}
			fmt.Fprintf(&b, "  %s\n", oneLine(r.Final))
			if r.Original != "" && r.Original != r.Final {
				fmt.Fprintf(&b, "    (you wrote to %s)\n", oneLine(r.Original))
			}
			if r.Diagnostic != "" {
				said := "    "
				if r.RemoteMTA != "" {
					said += oneLine(r.RemoteMTA) + " said: "
				}
				fmt.Fprintf(&b, "%s%s\n", said, oneLine(r.Diagnostic))
			}
			if r.Action == Delayed && !r.RetryUntil.IsZero() {
				fmt.Fprintf(&b, "    It will be given up on %s.\n", mime.FormatDate(r.RetryUntil))
			}
		}
	}
	return b.String()
}

// oneLine makes text of others fit into ours.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
}
