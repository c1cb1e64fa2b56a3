package imapserver

import (
	"errors"

	"github.com/postrider/postrider/imap"
)

// idle is IDLE (RFC 9051 §6.3.13). No second goroutine waits: the store's
// watch and a shutdown end the read of DONE by its deadline.
func (s *session) idle() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	until := s.idleEnd()
	s.enc.Atom("+ idling\r\n")
	if s.box != nil {
		s.t.listen(true)
		defer s.t.listen(false)
		s.box.changed.Store(true) // what came between the last command and now
	}
	for {
		if s.box != nil {
			s.t.takeWoken()
			if err := s.update(true); err != nil {
				return result{}, &fatalError{err}
			}
			if s.state == loggedOut {
				return result{silent: true}, nil
			}
		}
		err := s.waitInput(until)
		switch {
		case err == nil:
			var word string
			s.dec.Begin()
			if !s.dec.ExpectKeyword(&word) || word != "DONE" || !s.dec.ExpectCRLF() {
				if derr := s.dec.Err(); isWireError(derr) {
					return result{}, &fatalError{derr}
				}
				return result{}, &imap.Error{Type: imap.BAD, Text: "Expected DONE"}
			}
			return result{text: "IDLE terminated"}, nil
		case errors.Is(err, errDraining):
			return result{silent: true, quiet: true}, s.bye("", "Server is shutting down")
		case !isTimeout(err):
			return result{}, &fatalError{err}
		case s.t.takeWoken():
			// News, or a shutdown: the loop finds out.
		default:
			return result{silent: true, quiet: true}, s.bye("", "Autologout; idle for too long")
		}
	}
}
