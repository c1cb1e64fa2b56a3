package imapserver

import (
	"log/slog"
	"strconv"
	"strings"

	"github.com/postrider/postrider/imap"
)

// extensions are announced in every state: what clients may use without
// asking again after login.
const extensions = "LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE UNSELECT UIDPLUS MOVE MULTIAPPEND BINARY ESEARCH SEARCHRES CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE STATUS=SIZE UTF8=ACCEPT"

// capabilities lists what is offered now (RFC 9051 §7.2.2).
func (s *session) capabilities() string {
	var b strings.Builder
	b.WriteString("IMAP4rev1 IMAP4rev2 ")
	b.WriteString(extensions)
	if n := limit(s.srv.MaxMessage, defaultMaxMessage); n > 0 {
		b.WriteString(" APPENDLIMIT=" + strconv.FormatInt(n, 10))
	} else {
		b.WriteString(" APPENDLIMIT")
	}
	if s.state != notAuthenticated {
		return b.String()
	}
	if s.srv.TLS != nil && s.tls == nil {
		b.WriteString(" STARTTLS")
	}
	plain := false
	for _, m := range s.mechanisms() {
		b.WriteString(" AUTH=" + m)
		plain = plain || strings.EqualFold(m, "PLAIN")
	}
	if !plain {
		b.WriteString(" LOGINDISABLED")
	}
	return b.String()
}

// writeCaps writes the list with a space before it.
func (s *session) writeCaps() { s.enc.SP().Atom(s.capabilities()) }

func (s *session) capability() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	s.enc.Atom("* CAPABILITY")
	s.writeCaps()
	s.enc.Atom("\r\n")
	return result{}, nil
}

// noop is NOOP and CHECK; the news come before the tagged OK.
func (s *session) noop() (result, error) {
	s.dec.ExpectCRLF()
	return result{}, s.dec.Err()
}

func (s *session) logout() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	s.enc.Atom("* BYE Logging out\r\n")
	s.unselect()
	s.state = loggedOut
	return result{}, nil
}

// identify is ID (RFC 2971). What the client says goes to the log.
func (s *session) identify() (result, error) {
	if !s.dec.ExpectSP() {
		return result{}, s.dec.Err()
	}
	var args []any
	field, n := "", 0
	if !s.dec.List(func() bool {
		var v string
		if n%2 == 0 {
			n++
			return s.dec.ExpectString(&field)
		}
		if !s.dec.ExpectNString(&v) {
			return false
		}
		// RFC 2971 §3.3 allows 30 fields of 30 and 1,024 octets.
		if n++; n > 60 || len(field) > 30 || len(v) > 1024 {
			return s.dec.Fail("too long")
		}
		args = append(args, oneLine(field), oneLine(v))
		return true
	}) && s.dec.Err() == nil {
		var none string
		if s.dec.ExpectAtom(&none); !strings.EqualFold(none, "NIL") {
			s.dec.Fail("expected a list or NIL")
		}
	}
	if n%2 != 0 {
		s.dec.Fail("field without a value")
	}
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	if len(args) > 0 {
		s.log.Debug("client", slog.Group("id", args...))
	}
	s.enc.Atom(`* ID ("name" "Postrider")` + "\r\n")
	return result{}, nil
}

// enable is ENABLE (RFC 9051 §6.3.1): what is not known is passed over.
func (s *session) enable() (result, error) {
	var on []string
	rev2, utf8, n := false, false, 0
	for s.dec.SP() {
		var c string
		if !s.dec.ExpectKeyword(&c) {
			break
		}
		n++
		switch imap.Cap(c) {
		case "IMAP4REV2":
			rev2 = true
			on = append(on, "IMAP4rev2")
		case imap.CapUTF8Accept:
			utf8 = true
			on = append(on, c)
		}
	}
	if n == 0 {
		s.dec.Fail("expected a capability")
	}
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	s.rev2, s.utf8 = s.rev2 || rev2, s.utf8 || utf8
	s.dec.UTF8 = s.rev2 || s.utf8
	s.enc.UTF8 = s.dec.UTF8
	s.enc.Atom("* ENABLED")
	for _, c := range on {
		s.enc.SP().Atom(c)
	}
	s.enc.Atom("\r\n")
	return result{}, nil
}
