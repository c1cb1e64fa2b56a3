package ratelimit

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// Rate is N in Per. The zero Rate is no limit.
type Rate struct {
	N   int
	Per time.Duration // 0 = 1 minute
	// Burst is how many may come at once after a rest; 0 = N.
	Burst int
}

// Limiter counts and refuses. The zero value limits nothing. All fields are
// read-only once it is used; its methods may be called from many goroutines.
type Limiter struct {
	// Connections is per network address; one more gets the banner 421.
	Connections Rate
	// Messages is of MAIL commands and Recipients of RCPT commands, both per
	// user or network address, whatever the backend says to them; one more
	// gets 450 4.7.1, which tells the peer to come again.
	Messages, Recipients Rate
	// Prefix4 and Prefix6 are how many bits of an address make a peer;
	// 0 = 32 and 64.
	Prefix4, Prefix6 int
	// Exempt says who is not counted, nil = nobody. It is asked at each
	// count, so that it can look at the login.
	Exempt func(c *smtpserver.Conn) bool
	// Storage keeps the counts; nil = a Memory of this Limiter. When it
	// fails, mail goes on: the failure is logged.
	Storage Storage
	Log     *slog.Logger // nil = slog.Default()

	memory Memory
}

// Storage keeps one time per key. It is used from many goroutines.
type Storage interface {
	// Take takes n from what key may have at rate r, all or nothing. When
	// there is not enough it returns how long to wait until there is. Take
	// is atomic: two at the same time count as one after the other.
	//
	// The generic cell rate algorithm needs one value: the time at which all
	// that was taken is paid back (Next computes it); after that time the key
	// can be forgotten.
	Take(ctx context.Context, key string, n int, r Rate, now time.Time) (wait time.Duration, err error)
}

// Next is the arithmetic of Storage.Take. paid is the time kept for the key,
// zero if there is none; it returns the time to keep instead, or how long to
// wait and paid as it was.
func (r Rate) Next(paid time.Time, n int, now time.Time) (next time.Time, wait time.Duration) {
	per, burst := r.Per, r.Burst
	if per <= 0 {
		per = time.Minute
	}
	if burst <= 0 {
		burst = r.N
	}
	if r.N <= 0 || n <= 0 {
		return paid, 0
	}
	each := max(per/time.Duration(r.N), 1)
	if paid.Before(now) {
		paid = now
	}
	next = paid.Add(saturate(each, n))
	if wait = next.Sub(now) - saturate(each, burst); wait > 0 {
		return paid, wait
	}
	return next, 0
}

// saturate is each × n without overflow; a hundred years are enough.
func saturate(each time.Duration, n int) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	if int64(n) > int64(most/each) {
		return most
	}
	return each * time.Duration(n)
}

// Take takes n from what a peer may have at rate r, for other counts than
// SMTP's: failed logins, say. A key names both peer and purpose.
func (l *Limiter) Take(ctx context.Context, key string, n int, r Rate) (wait time.Duration, err error) {
	if r.N <= 0 {
		return 0, nil
	}
	s := l.Storage
	if s == nil {
		s = &l.memory
	}
	return s.Take(ctx, key, n, r, time.Now())
}

// Wrap counts what one connection brings; it is a smtpserver.Wrapper.
func (l *Limiter) Wrap(ctx context.Context, c *smtpserver.Conn, inner smtpserver.Session) (smtpserver.Session, error) {
	if wait := l.count(ctx, c, "connections", l.Connections, l.network(c.Remote().Addr())); wait > 0 {
		return nil, &smtp.Error{Code: 421, Enhanced: smtp.EnhancedCode{4, 7, 0}, Scope: smtp.ScopeHost,
			Text: "Too many connections, try again in " + round(wait).String()}
	}
	return &session{Inner: smtpserver.Inner{Session: inner}, l: l, c: c}, nil
}

// count returns how long the peer has to wait, 0 = not at all.
func (l *Limiter) count(ctx context.Context, c *smtpserver.Conn, what string, r Rate, peer string) time.Duration {
	if r.N <= 0 || peer == "" || l.Exempt != nil && l.Exempt(c) {
		return 0
	}
	wait, err := l.Take(ctx, what+" "+peer, 1, r)
	log := l.Log
	if log == nil {
		log = slog.Default()
	}
	switch {
	case err != nil:
		log.Warn("ratelimit: not counted", "what", what, "peer", peer, "err", err)
		return 0
	case wait > 0:
		log.Info("ratelimit: refused", "what", what, "peer", peer, "wait", wait)
	}
	return wait
}

// peer is who is counted: a user wherever they come from, else a network.
func (l *Limiter) peer(c *smtpserver.Conn) string {
	if id, ok := c.Identity(); ok && id.User != "" {
		return "user " + id.User
	}
	return l.network(c.Remote().Addr())
}

// network is "" for what has no IP address (pipes, Unix sockets): those who
// may connect that way are ours.
func (l *Limiter) network(a netip.Addr) string {
	bits := l.Prefix4
	if a = a.Unmap().WithZone(""); a.Is6() {
		if bits = l.Prefix6; bits <= 0 || bits > 128 {
			bits = 64
		}
	} else if bits <= 0 || bits > 32 {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil || !p.IsValid() {
		return ""
	}
	return p.String()
}

// round makes a time that can be said to a peer.
func round(d time.Duration) time.Duration {
	return max((d + time.Second - 1).Truncate(time.Second), time.Second)
}

type session struct {
	smtpserver.Inner
	l *Limiter
	c *smtpserver.Conn
}

func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	if wait := s.l.count(ctx, s.c, "messages", s.l.Messages, s.l.peer(s.c)); wait > 0 {
		return later("Too many messages", wait, smtp.ScopeHost)
	}
	return s.Inner.Mail(ctx, from, o)
}

// Rcpt counts before the backend is asked, which may not hear of a recipient
// that is refused after all.
func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if wait := s.l.count(ctx, s.c, "recipients", s.l.Recipients, s.l.peer(s.c)); wait > 0 {
		return later("Too many recipients", wait, smtp.ScopeRecipient)
	}
	return s.Inner.Rcpt(ctx, to, o)
}

func later(text string, wait time.Duration, scope smtp.Scope) error {
	return &smtp.Error{Code: 450, Enhanced: smtp.EnhancedCode{4, 7, 1}, Scope: scope,
		Text: text + ", try again in " + round(wait).String()}
}
