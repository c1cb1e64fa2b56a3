package delivery

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
)

// Backend is a smtpserver.Backend for inbound mail. Recipients and Target are
// needed, and the fields are read-only once it serves. It is safe for
// concurrent use.
type Backend struct {
	// Recipients tells where mail for an address goes: to one mailbox, or to
	// several for an alias. An error refuses the address: ErrRelay, ErrNoUser,
	// store.ErrQuota, or an *smtp.Error with words of its own; anything else
	// is a temporary failure. No targets and no error is ErrNoUser. It is
	// called at each RCPT, so make it quick.
	Recipients func(ctx context.Context, to smtp.Address) ([]store.Target, error)
	// OwnedSince tells since when an address that Recipients takes belongs
	// without a break to whom it belongs to now, zero when that was not
	// recorded: what is meant for an earlier owner is refused (RFC 7293). nil =
	// that is not looked at. Senders only ask where RRVS is among the server's
	// Extensions.
	OwnedSince func(ctx context.Context, to smtp.Address) (time.Time, error)
	// Target stores the message.
	Target Target
	// Verifier checks each message: SPF, DKIM, DMARC and the client's name;
	// nil = none of it. Over LMTP the client is a host of ours, so SPF and its
	// name say nothing and are left out.
	Verifier *verify.Verifier
	// Policy is asked when the message is here and checked, before Target. An
	// error refuses the message: best an *smtp.Error. It may also set in.Junk
	// and add fields to in.Trace. nil accepts all; see DMARC for a good start.
	Policy func(ctx context.Context, in *Inbound) error
	// Filter is asked for each recipient once Policy has let the message
	// through. It may change in.Recipients[i]: other Targets (mailboxes,
	// flags), none at all to discard the message, and Redirect. An error
	// refuses the message for this recipient. It is the place for users' own
	// rules; nil leaves all as it is.
	Filter func(ctx context.Context, in *Inbound, i int) error
	// Redirect sends the message on to in.Recipients[i].Redirect: in.OnwardHead
	// and in.Body, durably. It best queues it with key as the idempotency key,
	// for it is called again when the sender has to try again. While it is
	// nil, whatever is to be redirected is a temporary failure. A message that
	// the recipient has had before is not redirected: that is a loop.
	Redirect func(ctx context.Context, in *Inbound, i int, key string) error
	// AuthServID is our name in Authentication-Results (RFC 8601 §2.5); "" =
	// the Verifier's, else the server's host name.
	AuthServID string
	// MaxReceived is how many Received fields a message may have (RFC 5321
	// §6.3); 0 = 50, negative = no limit.
	MaxReceived int
	// Log gets one line for each message; nil = slog.Default().
	Log *slog.Logger
}

const defaultMaxReceived = 50

// NewSession implements smtpserver.Backend.
func (b *Backend) NewSession(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	s := &session{b: b, c: c, ctx: ctx, authServID: b.AuthServID}
	if s.authServID == "" && b.Verifier != nil {
		s.authServID = b.Verifier.AuthServID
	}
	if s.authServID == "" {
		s.authServID = c.Hostname()
	}
	return s, nil
}

func (b *Backend) log() *slog.Logger {
	if b.Log != nil {
		return b.Log
	}
	return slog.Default()
}

// session is one connection.
type session struct {
	b          *Backend
	c          *smtpserver.Conn
	ctx        context.Context // the connection's: checks outlive the command that begins them
	authServID string

	// Of the transaction.
	from  smtp.Address
	opts  smtp.MailOptions
	rcpt  []Recipient
	check *verify.Pass // nil = none, or not begun
}

var (
	_ smtpserver.LMTPSession      = (*session)(nil)
	_ smtpserver.ExtensionSession = (*session)(nil)
)

// Mail implements smtpserver.Session.
func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	s.Reset()
	s.from, s.opts = from, o
	return nil
}

// Rcpt implements smtpserver.Session.
func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	targets, err := s.b.Recipients(ctx, to)
	if err == nil && len(targets) == 0 {
		err = ErrNoUser
	}
	if check, ok := s.b.Target.(Checker); ok && err == nil {
		err = check.Check(ctx, targets, s.opts.Size)
	}
	if err == nil && !o.ValidSince.IsZero() {
		err = s.owned(ctx, to, o.ValidSince)
	}
	if err != nil {
		return refusal(err)
	}
	s.rcpt = append(s.rcpt, Recipient{Recipient: smtp.Recipient{Address: to, RcptOptions: o}, Targets: targets})
	if s.check == nil && s.b.Verifier != nil {
		// Not at MAIL: most of what is sent to unknown users is not worth a
		// look-up.
		src := verify.Source{Hello: s.c.Hello(), From: s.from}
		if !strings.Contains(s.c.Protocol(), "LMTP") {
			src.IP = s.c.Remote().Addr()
		}
		s.check = s.b.Verifier.Begin(s.ctx, src)
	}
	return nil
}

// owned is the continuous ownership test (RFC 7293 §5.1).
func (s *session) owned(ctx context.Context, to smtp.Address, since time.Time) error {
	if role(to.Local) || s.b.OwnedSince == nil {
		return nil
	}
	at, err := s.b.OwnedSince(ctx, to)
	switch {
	case err != nil:
		return err
	case at.IsZero():
		return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 19}, Text: "It is not known since when the mailbox has its owner"}
	case at.After(since):
		return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 17}, Text: "The mailbox has had another owner since"}
	}
	return nil
}

// role reports an address of an office, which has no owner (RFC 2142).
func role(local string) bool {
	switch strings.ToLower(local) {
	case "info", "marketing", "sales", "support", "abuse", "noc", "security",
		"postmaster", "hostmaster", "usenet", "news", "webmaster", "www", "uucp", "ftp":
		return true
	}
	return false
}

// Reset implements smtpserver.Session.
func (s *session) Reset() {
	if s.check != nil {
		s.check.Close()
	}
	s.from, s.opts, s.rcpt, s.check = smtp.Address{}, smtp.MailOptions{}, nil, nil
}

// Close implements smtpserver.Session.
func (s *session) Close() error {
	s.Reset()
	return nil
}

// Extensions implements smtpserver.ExtensionSession: notices of success (RFC
// 3461) are not sent from here, so DSN is not promised, nor is RRVS without
// OwnedSince.
func (s *session) Extensions(offered []string) []string {
	kept := make([]string, 0, len(offered))
	for _, e := range offered {
		if e != smtp.ExtDSN && (e != smtp.ExtRRVS || s.b.OwnedSince != nil) {
			kept = append(kept, e)
		}
	}
	return kept
}
