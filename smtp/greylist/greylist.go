package greylist

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// Greylist decides who has to come again. The zero value is ready. All fields
// are read-only once it is used; its methods may be called from many
// goroutines.
type Greylist struct {
	// Delay is how long the first attempt must lie back; 0 = 1 minute, and
	// negative none. Many senders wait longer by themselves.
	Delay time.Duration
	// Window is how long a first attempt is remembered; 0 = 2 days, longer
	// than which no honest sender waits between two attempts.
	Window time.Duration
	// Keep is how long a network stays known since its last mail; 0 = 36
	// days, so that a monthly newsletter is never late again.
	Keep time.Duration
	// Prefix4 and Prefix6 are how many bits of an address make a network,
	// since large senders come again from a neighbour; 0 = 24 and 64.
	Prefix4, Prefix6 int
	// Exempt says who need not wait, nil = nobody: those on a white list,
	// say, or recipients who want no delay.
	Exempt func(ctx context.Context, c *smtpserver.Conn, from, to smtp.Address) bool
	// Storage remembers; nil = a Memory of this Greylist. When it fails, mail
	// goes on: the failure is logged.
	Storage Storage
	Log     *slog.Logger // nil = slog.Default()

	memory Memory
}

// Storage keeps for each key when it was first seen, and until when to
// remember that. It is used from many goroutines. A key is printable text
// of at most about 800 octets.
type Storage interface {
	// First returns when key was first seen. One that is not known, or was
	// to be remembered until a time before now, is first seen now, is to be
	// remembered until then, and known is false.
	First(ctx context.Context, key string, now, until time.Time) (first time.Time, known bool, err error)
	// Known returns whether key is remembered, and if so moves the time until
	// which it is: never back.
	Known(ctx context.Context, key string, now, until time.Time) (bool, error)
	// Keep remembers key until a time, whether it was known or not.
	Keep(ctx context.Context, key string, now, until time.Time) error
}

// Check returns how long a peer has to wait before it may bring mail for a
// recipient, 0 when it need not. It counts as an attempt.
func (g *Greylist) Check(ctx context.Context, peer netip.Addr, from, to smtp.Address) (wait time.Duration, err error) {
	network := g.network(peer)
	if network == "" {
		return 0, nil
	}
	s := g.Storage
	if s == nil {
		s = &g.memory
	}
	now := time.Now()
	keep := now.Add(orDefault(g.Keep, 36*24*time.Hour))
	net := networkPrefix + network
	if known, err := s.Known(ctx, net, now, keep); known || err != nil {
		return 0, err
	}
	first, known, err := s.First(ctx, "triplet "+network+" "+key(from)+" "+key(to), now, now.Add(orDefault(g.Window, 48*time.Hour)))
	if err != nil {
		return 0, err
	}
	if wait = first.Add(orDefault(g.Delay, time.Minute)).Sub(now); wait > 0 {
		return wait, nil
	}
	// Without a delay the very first attempt passes, and proves nothing.
	if !known {
		return 0, nil
	}
	return 0, s.Keep(ctx, net, now, keep)
}

func orDefault(d, def time.Duration) time.Duration {
	switch {
	case d == 0:
		return def
	case d < 0:
		return 0
	}
	return d
}

// networkPrefix begins the keys of networks, the others are of triplets.
const networkPrefix = "network "

// key is an address as one word of bounded length. Case is folded, in the
// local part too: to guess wrongly there costs a delay at most.
func key(a smtp.Address) string {
	s := strings.ToLower(a.Path())
	return strings.ReplaceAll(s[:min(len(s), 350)], " ", "_")
}

// network is "" for what has no IP address.
func (g *Greylist) network(a netip.Addr) string {
	bits := g.Prefix4
	if a = a.Unmap().WithZone(""); a.Is6() {
		if bits = g.Prefix6; bits <= 0 || bits > 128 {
			bits = 64
		}
	} else if bits <= 0 || bits > 32 {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil || !p.IsValid() {
		return ""
	}
	return p.String()
}

// Wrap greylists one connection; it is a smtpserver.Wrapper.
func (g *Greylist) Wrap(_ context.Context, c *smtpserver.Conn, inner smtpserver.Session) (smtpserver.Session, error) {
	return &session{Inner: smtpserver.Inner{Session: inner}, g: g, c: c}, nil
}

type session struct {
	smtpserver.Inner
	g    *Greylist
	c    *smtpserver.Conn
	from smtp.Address
}

func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	s.from = from
	return s.Inner.Mail(ctx, from, o)
}

func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if wait := s.wait(ctx, to); wait > 0 {
		wait = max((wait + time.Second - 1).Truncate(time.Second), time.Second)
		return &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 1}, Scope: smtp.ScopeRecipient,
			Text: "Greylisted, try again in " + wait.String()}
	}
	return s.Inner.Rcpt(ctx, to, o)
}

func (s *session) wait(ctx context.Context, to smtp.Address) time.Duration {
	if _, ok := s.c.Identity(); ok {
		return 0
	}
	if s.g.Exempt != nil && s.g.Exempt(ctx, s.c, s.from, to) {
		return 0
	}
	log := s.g.Log
	if log == nil {
		log = slog.Default()
	}
	wait, err := s.g.Check(ctx, s.c.Remote().Addr(), s.from, to)
	switch {
	case err != nil:
		log.Warn("greylist: not checked", "remote", s.c.Remote(), "err", err)
		return 0
	case wait > 0:
		log.Info("greylist: has to wait", "remote", s.c.Remote(), "from", s.from.String(), "to", to.String(), "wait", wait)
	}
	return wait
}
