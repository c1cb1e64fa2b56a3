package mime

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/smtp"
)

// appendHeader writes the fields of the message before MIME-Version.
func (m *Message) appendHeader(dst []byte) ([]byte, error) {
	if len(m.From) == 0 {
		return nil, messageError("no From")
	}
	if len(m.From) > 1 && m.Sender == nil {
		return nil, messageError("more than one From but no Sender (RFC 5322 §3.6.2)")
	}
	own := func(name string) bool { return m.Header.Has(name) }
	if m.Date.IsZero() && !own("Date") {
		m.Date = time.Now().Truncate(time.Second)
	}
	if m.MessageID == "" {
		if ids := m.Header.MessageIDs("Message-ID"); ids != nil {
			m.MessageID = ids[0]
		} else {
			m.MessageID = NewMessageID(m.From[0].Domain)
		}
	}
	f := folder{dst: dst, utf8: m.Allow.UTF8}
	twice := ""
	field := func(name string, set bool) bool {
		if !set {
			return false
		}
		if own(name) {
			twice = name
			return false
		}
		f.begin(name)
		return true
	}
	if field("Date", !m.Date.IsZero()) {
		f.words("", FormatDate(m.Date))
		f.end()
	}
	addresses := func(name string, list []Address) {
		if field(name, len(list) > 0) {
			f.addresses(list)
			f.end()
		}
	}
	addresses("From", m.From)
	if m.Sender != nil {
		addresses("Sender", []Address{*m.Sender})
	}
	addresses("Reply-To", m.ReplyTo)
	addresses("To", m.To)
	addresses("Cc", m.Cc)
	if field("Subject", m.Subject != "") {
		f.text(strings.Trim(m.Subject, " \t"), true)
		f.end()
	}
	ids := func(name string, list []string) {
		if field(name, len(list) > 0) {
			sep := ""
			for _, id := range list {
				f.messageID(sep, id)
				sep = " "
			}
			f.end()
		}
	}
	if !own("Message-ID") {
		ids("Message-ID", []string{m.MessageID})
	}
	ids("In-Reply-To", m.InReplyTo)
	ids("References", m.References)
	if field("List-Unsubscribe", len(m.Unsubscribe) > 0) {
		if err := f.unsubscribe(m.Unsubscribe); err != nil {
			return nil, err
		}
	}
	if m.OneClick {
		if !slices.ContainsFunc(m.Unsubscribe, isHTTPS) {
			return nil, messageError("OneClick without an https URI in Unsubscribe (RFC 8058 §3.1)")
		}
		if field("List-Unsubscribe-Post", true) {
			f.word("", oneClick)
			f.end()
		}
	}
	if strings.ContainsAny(m.Subject, "\r\n\x00") {
		return nil, ErrInjection
	}
	if twice != "" {
		return nil, messageError("%s is in the Header too", twice)
	}
	if f.err != nil {
		return nil, f.err
	}
	for _, a := range m.Bcc {
		if err := checkAddress(a); err != nil {
			return nil, err
		}
	}
	for h := range m.Header.Fields() {
		switch {
		case equalFold(h.Name, "Bcc"), equalFold(h.Name, "MIME-Version"):
			continue
		case len(h.Name) >= 8 && equalFold(h.Name[:8], "Content-"):
			return nil, messageError("%s is in the Header: use Parts", h.Name)
		}
		var err error
		if f.dst, err = appendRaw(f.dst, h); err != nil {
			return nil, err
		}
	}
	return f.dst, nil
}

func (f *folder) addresses(list []Address) {
	sep := ""
	for i, a := range list {
		if err := checkAddress(a); err != nil {
			f.err = err
			return
		}
		var buf [128]byte
		// Encoded words are made to fit a line of their own, or the first.
		col := 1
		if i == 0 {
			col = f.col
		}
		s := a.appendTo(buf[:0], col, f.utf8)
		if i < len(list)-1 {
			s = append(s, ',')
		}
		if len(s) < foldColumns {
			f.word(sep, string(s))
		} else {
			f.words(sep, string(s))
		}
		sep = " "
	}
}

// checkAddress refuses what would end an address early.
func checkAddress(a Address) error {
	if a.Local == "" || a.Domain == "" {
		return fmt.Errorf("%w: %q", ErrAddress, a.Address.String())
	}
	for i := 0; i < len(a.Local); i++ {
		if a.Local[i] < ' ' || a.Local[i] == 0x7f {
			return ErrInjection
		}
	}
	if _, ok := plainDomain(a.Domain); !ok {
		if _, err := smtp.ParseDomain(a.Domain); err != nil {
			return fmt.Errorf("%w: %q", ErrAddress, a.Address.String())
		}
	}
	return nil
}

// messageID writes <id>, which may have no white space and no brackets in it,
// and is UTF-8: there is no way to encode one.
func (f *folder) messageID(sep, id string) {
	if !utf8.ValidString(id) {
		f.err = messageError("the identifier %q is not UTF-8", id)
		return
	}
	for i := 0; i < len(id); i++ {
		if id[i] <= ' ' || id[i] == '<' || id[i] == '>' || id[i] == 0x7f {
			f.err = ErrInjection
			return
		}
	}
	f.word(sep, "<"+id+">")
}

func isHTTPS(u string) bool { return len(u) > 8 && equalFold(u[:8], "https://") }

// unsubscribe writes URIs, each between angle brackets.
func (f *folder) unsubscribe(uris []string) error {
	for i, u := range uris {
		if scheme, _, ok := strings.Cut(u, ":"); !ok || !isHTTPS(u) && !equalFold(scheme, "mailto") && !equalFold(scheme, "http") {
			return messageError("Unsubscribe has %q, which is neither mailto: nor https:", u)
		}
		for i := 0; i < len(u); i++ {
			if u[i] <= ' ' || u[i] >= 0x7f || u[i] == '<' || u[i] == '>' {
				return fmt.Errorf("%w: %q is no URI", ErrInjection, u)
			}
		}
		sep, end := "", ""
		if i > 0 {
			sep = " "
		}
		if i < len(uris)-1 {
			end = ","
		}
		f.word(sep, "<"+u+">"+end)
	}
	f.end()
	return nil
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}
