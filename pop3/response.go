package pop3

import (
	"errors"
	"strings"
)

// ResponseCode says why a command failed, in brackets at the beginning of the
// text (RFC 2449 §8); "" = none was given. It is compared without regard to
// case; ParseStatus gives it in upper case.
type ResponseCode string

// The registered response codes.
const (
	LoginDelay ResponseCode = "LOGIN-DELAY" // logged in too recently (RFC 2449 §8.1.1)
	InUse      ResponseCode = "IN-USE"      // another session has the maildrop (RFC 2449 §8.1.2)
	SysTemp    ResponseCode = "SYS/TEMP"    // try again later (RFC 3206 §4)
	SysPerm    ResponseCode = "SYS/PERM"    // somebody has to mend something (RFC 3206 §4)
	Auth       ResponseCode = "AUTH"        // wrong credentials (RFC 3206 §4)
	UTF8       ResponseCode = "UTF8"        // needs UTF8 first (RFC 6856 §5)
)

// Error is an -ERR reply. A server's backend returns one to choose the reply;
// a client gets one for each that the server sent.
type Error struct {
	Code ResponseCode
	Text string // for the peer; without the code
	Err  error  // the private cause, for the log; nil in a client
}

// Error returns the text with its code and, in a server, the cause.
func (e *Error) Error() string {
	s := "pop3: " + e.Status()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Status returns the reply's line without its CRLF: "-ERR [AUTH] no". What
// cannot stand in a line is replaced.
func (e *Error) Status() string {
	var b strings.Builder
	b.WriteString("-ERR")
	if e.Code != "" {
		b.WriteString(" [" + printable(string(e.Code)) + "]")
	}
	if e.Text != "" {
		b.WriteString(" " + printable(e.Text))
	}
	return b.String()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Temporary reports whether trying the same later may help: the codes
// LOGIN-DELAY, IN-USE and SYS/TEMP.
func (e *Error) Temporary() bool {
	switch ResponseCode(strings.ToUpper(string(e.Code))) {
	case LoginDelay, InUse, SysTemp:
		return true
	}
	return false
}

// ErrStatus: a line that is neither +OK nor -ERR.
var ErrStatus = errors.New("pop3: neither +OK nor -ERR")

// ParseStatus parses the first line of a reply, given without its CRLF
// (RFC 1939 §3). An -ERR is returned as an *Error, anything that is not a
// status line as ErrStatus.
func ParseStatus(line string) (text string, err error) {
	status, text, _ := strings.Cut(line, " ")
	switch {
	case strings.EqualFold(status, "+OK"):
		return text, nil
	case strings.EqualFold(status, "-ERR"):
		e := &Error{Text: text}
		if rest, ok := strings.CutPrefix(text, "["); ok {
			if code, rest, ok := strings.Cut(rest, "]"); ok {
				e.Code, e.Text = ResponseCode(strings.ToUpper(code)), strings.TrimPrefix(rest, " ")
			}
		}
		return "", e
	}
	return "", ErrStatus
}
