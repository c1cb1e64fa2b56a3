package smtptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Stage is a moment of a connection.
type Stage uint8

// The stages, and what a Fault's Match is compared with there.
const (
	Connect Stage = iota // before the banner: the peer's address, "pipe" in memory
	TLS                  // the handshake, which fails; nothing
	Mail                 // MAIL: the sender
	Rcpt                 // RCPT: the recipient
	Data                 // the message begins: the sender
	Dot                  // the message has been read: the sender, with LMTP each recipient
	Auth                 // AUTH: the mechanism
)

// Fault is something that goes wrong. Delay comes first, then Drop or Reply;
// a Fault with neither only delays, except at TLS.
type Fault struct {
	At Stage
	// Match must be in what stands at the stage; "" = always.
	Match string
	// Reply refuses, with "450 4.7.1 Greylisted" or "550 No such user"; at
	// Connect it is the banner. What is no such reply is answered with 451.
	// At Auth a 5xx is 535 on the wire, and any other reply 454.
	Reply string
	// Drop closes the connection: at Data within the message, at Dot after
	// its end, with no reply.
	Drop bool
	// Delay waits.
	Delay time.Duration
	// Times is how often it happens; 0 = always. Greylisting is a 450 at
	// Rcpt, once.
	Times int
}

// Inject makes f happen from now on. The first of several that match counts.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

var errDropped = errors.New("smtptest: connection dropped")

// hit carries out the fault for a stage, if there is one.
func (s *Server) hit(ctx context.Context, at Stage, subject string, nc net.Conn) error {
	f, ok := s.match(at, subject)
	if !ok {
		return nil
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case f.Drop:
		nc.Close()
		return errDropped
	case at == TLS:
		return errors.New("smtptest: bad TLS")
	case f.Reply != "":
		return refusal(f.Reply)
	}
	return nil
}

// refusal turns "550 5.1.1 No such user" into an error.
func refusal(reply string) error {
	e := &smtp.Error{}
	code, text, _ := strings.Cut(reply, " ")
	e.Code, _ = strconv.Atoi(code)
	e.Text = text
	var x smtp.EnhancedCode
	if n, _ := fmt.Sscanf(text, "%d.%d.%d", &x[0], &x[1], &x[2]); n == 3 {
		_, e.Text, _ = strings.Cut(text, " ")
		e.Enhanced = x
	}
	return e
}

func (s *Server) match(at Stage, subject string) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.At != at || !strings.Contains(subject, f.Match) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return *f, true
	}
	return Fault{}, false
}
