package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// Client reaches one filter. All fields are read-only once it is used; its
// methods may be called from many goroutines.
type Client struct {
	Network, Address string // as for net.Dial: "unix" or "tcp"
	// DialContext connects; nil = net.Dialer's.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout bounds connecting and each answer of the filter; 0 = 30 s.
	Timeout time.Duration
	// EndTimeout bounds the answer to a whole message, and begins anew
	// whenever the filter says that it is still at work; 0 = 5 minutes.
	EndTimeout time.Duration
	// FailOpen lets mail pass when the filter cannot be used. A message that
	// the filter has looked at in part passes unchanged.
	FailOpen bool
	// Macros adds to what the filter is told, or replaces it: names as
	// Sendmail has them, "{daemon_name}" or "v". nil = nothing. What is told
	// anyhow: j, i, v, {daemon_name}, {client_addr}, {client_port},
	// {client_name}, {tls_version}, {cipher}, {cert_subject}, {auth_type},
	// {auth_authen}, {mail_addr}, {mail_host}, {rcpt_addr} and {rcpt_host}.
	Macros map[string]string
	// Quarantine is told of a message that the filter wants held, and why;
	// an error is the reply to the message, and after nil it goes on to the
	// backend. nil = filters are told that we have no quarantine.
	Quarantine func(ctx context.Context, c *smtpserver.Conn, reason string) error
	// MaxBody bounds what a filter may replace a body with, in octets;
	// 0 = 64 MiB.
	MaxBody int64
	// SpoolDir is where messages over 128 KiB lie meanwhile;
	// "" = os.TempDir.
	SpoolDir string
	Log      *slog.Logger // nil = slog.Default()
}

// Wrap filters one connection; it is a smtpserver.Wrapper.
func (m *Client) Wrap(_ context.Context, c *smtpserver.Conn, inner smtpserver.Session) (smtpserver.Session, error) {
	return &session{inner: inner, m: m, c: c}, nil
}

// Check connects and negotiates, to find out at start or for a health check
// whether the filter is there.
func (m *Client) Check(ctx context.Context) error {
	w, err := m.open(ctx)
	if err != nil {
		return err
	}
	w.quit()
	return nil
}

func (m *Client) open(ctx context.Context) (*wire, error) {
	timeout := orDefault(m.Timeout, 30*time.Second)
	dial := m.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	dialCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := dial(dialCtx, m.Network, m.Address)
	if err != nil {
		return nil, fmt.Errorf("milter: %w", err)
	}
	w := newWire(nc, timeout)
	offered := uint32(actAddHeaders | actBody | actAddRcpt | actDelRcpt | actChgHeaders | actFrom | actAddRcptArgs)
	if m.Quarantine != nil {
		offered |= actQuarantine
	}
	release := w.guard(ctx)
	err = w.negotiate(offered)
	release()
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("milter: negotiation: %w", err)
	}
	return w, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func (m *Client) log() *slog.Logger {
	if m.Log != nil {
		return m.Log
	}
	return slog.Default()
}

var errUnavailable = errors.New("milter: filter cannot be used")

// unavailable is the reply when a filter cannot be used.
func unavailable(err error) error {
	return &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 1}, Scope: smtp.ScopeMessage,
		Text: "Service unavailable, try again later", Err: errors.Join(errUnavailable, err)}
}
