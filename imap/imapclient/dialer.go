package imapclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// Security says how a connection is protected.
type Security uint8

// The kinds of protection.
const (
	StartTLS    Security = iota // STARTTLS before anything else, port 143; a server without it is an error
	ImplicitTLS                 // the handshake comes first, port 993 (RFC 8314 §3.2)
	Plain                       // none: passwords and mail can be read on the wire
)

// Handler gets what a server sends unasked, while a command or Idle runs, on
// the caller's goroutine. Its functions may be nil and must not use the
// Client.
type Handler struct {
	Exists  func(messages uint32)   // the mailbox has so many messages now
	Expunge func(seq uint32)        // the message is gone; those behind it move up
	Fetch   func(m *imap.FetchData) // flags that changed, mostly
	Alert   func(text string)       // to be shown to the user (RFC 9051 §7.1)
}

// Dialer opens connections. The zero value is ready and insists on STARTTLS.
type Dialer struct {
	Security Security
	// TLS is the configuration; nil = the default one. An empty ServerName
	// is set to the host that is dialled.
	TLS *tls.Config
	// DialContext connects; nil = a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout is how long the server may take for the handshake, for each
	// response, and for each further part of a literal. 0 = 1 minute;
	// negative = no limit but that of the context.
	Timeout time.Duration
	// MaxLiteral bounds the literals of one response that are taken into
	// memory, in octets, and MaxLine the rest of it. 0 = 64 MiB and 16 MiB,
	// negative = no limit.
	MaxLiteral int64
	MaxLine    int

	Handler Handler
}

// Dial connects to addr, "host:port", protects the connection and reads the
// greeting. ctx bounds this, not the Client.
func (d *Dialer) Dial(ctx context.Context, addr string) (*Client, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("imapclient: address: %w", err)
	}
	dial := d.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("imapclient: %w", err)
	}
	return d.Client(ctx, nc, host)
}

// Client is Dial on a connection that is there already, to host. It owns nc
// from then on, and closes it after an error.
func (d *Dialer) Client(ctx context.Context, nc net.Conn, host string) (*Client, error) {
	c := &Client{nc: nc, timeout: d.Timeout, handler: d.Handler, br: bufio.NewReaderSize(nc, bufferSize), bw: bufio.NewWriterSize(nc, bufferSize)}
	if c.timeout == 0 {
		c.timeout = time.Minute
	}
	c.dec, c.enc = imapwire.NewDecoder(c.br), imapwire.NewEncoder(c.bw)
	if c.dec.MaxLiteral = d.MaxLiteral; d.MaxLiteral == 0 {
		c.dec.MaxLiteral = 64 << 20
	}
	if c.dec.MaxLine = d.MaxLine; d.MaxLine == 0 {
		c.dec.MaxLine = 16 << 20
	}
	if err := d.open(ctx, c, host); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (d *Dialer) open(ctx context.Context, c *Client, host string) error {
	cfg := d.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	err := func() error {
		defer c.end()
		if d.Security == ImplicitTLS {
			if err := c.handshake(cfg); err != nil {
				return err
			}
		}
		return c.greeting()
	}()
	if err != nil || d.Security != StartTLS {
		return err
	}
	if c.preauth { // STARTTLS is not possible any more (RFC 9051 §6.2.1)
		return fmt.Errorf("%w: PREAUTH before it", ErrNoTLS)
	}
	return c.startTLS(ctx, cfg)
}

func (c *Client) handshake(cfg *tls.Config) error {
	t := tls.Client(c.nc, cfg)
	c.arm()
	if err := t.Handshake(); err != nil {
		return c.fail(fmt.Errorf("TLS handshake: %w", err))
	}
	state := t.ConnectionState()
	c.tls = &state
	c.br.Reset(t)
	c.bw.Reset(t)
	c.dec.Reset(c.br)
	c.enc.Reset(c.bw)
	return nil
}

// startTLS protects the connection (RFC 9051 §6.2.1). What was known before
// is forgotten.
func (c *Client) startTLS(ctx context.Context, cfg *tls.Config) error {
	cmd := &command{name: "STARTTLS"}
	cmd.after = func() error {
		if n := c.br.Buffered(); n > 0 {
			return c.fail(fmt.Errorf("%w: %d octets of plain text behind STARTTLS", ErrProtocol, n))
		}
		c.caps = nil
		return c.handshake(cfg)
	}
	if err := c.run(ctx, cmd); err != nil {
		if c.err != nil {
			return c.err
		}
		return fmt.Errorf("%w: %w", ErrNoTLS, err)
	}
	return nil
}
