package pop3client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/postrider/postrider/internal/lineio"
)

// Security says how a connection is protected.
type Security uint8

// The kinds of protection.
const (
	StartTLS    Security = iota // STLS before anything else, port 110 (RFC 2595); a server without it is an error
	ImplicitTLS                 // the handshake comes first, port 995 (RFC 8314 §3.1)
	Plain                       // none: passwords and mail can be read on the wire
)

// Dialer opens connections. The zero value is ready and insists on STLS.
type Dialer struct {
	Security Security
	// TLS is the configuration; nil = the default one. An empty ServerName
	// is set to the host that is dialled.
	TLS *tls.Config
	// DialContext connects; nil = a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout is how long the server may take for the handshake, for each
	// reply, and for each further part of a message. 0 = 1 minute; negative
	// = no limit but that of the context.
	Timeout time.Duration
	// MaxMessages is the longest listing that List and UIDL take, in
	// messages; 0 = 1,000,000, negative = no limit.
	MaxMessages int
}

// Dial connects to addr, "host:port", protects the connection and reads the
// greeting. ctx bounds this, not the Client.
func (d *Dialer) Dial(ctx context.Context, addr string) (*Client, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("pop3client: address: %w", err)
	}
	dial := d.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("pop3client: %w", err)
	}
	return d.Client(ctx, nc, host)
}

// Client is Dial on a connection that is there already, to host. It owns nc
// from then on, and closes it after an error.
func (d *Dialer) Client(ctx context.Context, nc net.Conn, host string) (*Client, error) {
	c := &Client{nc: nc, timeout: d.Timeout, maxMessages: d.MaxMessages}
	if c.timeout == 0 {
		c.timeout = time.Minute
	}
	if c.maxMessages == 0 {
		c.maxMessages = 1_000_000
	}
	if err := d.open(ctx, c, host); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (d *Dialer) open(ctx context.Context, c *Client, host string) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	cfg := d.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	c.attach(c.nc)
	if d.Security == ImplicitTLS {
		if err := c.handshake(cfg); err != nil {
			return err
		}
	}
	greeting, err := c.status()
	if err != nil {
		return err
	}
	c.greeting = greeting
	if d.Security != StartTLS {
		return nil
	}
	if _, err := c.command("STLS"); err != nil {
		if c.err != nil {
			return c.err
		}
		return fmt.Errorf("%w: %w", ErrNoTLS, err)
	}
	if n := c.r.Buffered(); n > 0 {
		return c.fail(fmt.Errorf("%w: %d octets of plain text behind STLS", ErrProtocol, n))
	}
	return c.handshake(cfg)
}

func (c *Client) handshake(cfg *tls.Config) error {
	t := tls.Client(c.raw(), cfg)
	c.arm()
	if err := t.Handshake(); err != nil {
		return c.fail(fmt.Errorf("TLS handshake: %w", err))
	}
	state := t.ConnectionState()
	c.tls = &state
	c.attach(t)
	return nil
}

// attach makes the buffers for nc.
func (c *Client) attach(nc net.Conn) {
	c.rw = nc
	c.r = lineio.NewReader(nc, readSize)
}
