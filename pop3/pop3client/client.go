package pop3client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/pop3"
)

// Errors of a Client that are not a *pop3.Error. After ErrProtocol, and after
// errors of the network and of the context, the Client is of no more use.
var (
	ErrNoTLS    = errors.New("pop3client: the server does not offer TLS")
	ErrProtocol = errors.New("pop3client: the server broke the protocol")
	ErrBusy     = errors.New("pop3client: a message is still being read")
	ErrClosed   = errors.New("pop3client: closed")
	ErrArgument = errors.New("pop3client: argument cannot be sent") // a CR, LF or NUL in it, or too long
)

const (
	readSize  = 16 << 10
	maxLine   = 8 << 10  // octets of a reply line; RFC 2449 §4 has 512
	maxCaps   = 200      // lines of CAPA
	maxUnread = 64 << 20 // octets of a message that Close reads away
)

// Client is a connection to a server. It is used by one goroutine at a time;
// only Close may be called from another.
//
// Message numbers begin at 1 and stay what they are to the end of the
// session (RFC 1939 §4).
type Client struct {
	rw          net.Conn // nc, or TLS over it
	r           *lineio.Reader
	tls         *tls.ConnectionState
	greeting    string
	timeout     time.Duration
	maxMessages int
	err         error // why the Client is of no more use
	msg         *message

	mu     sync.Mutex // guards what follows, and deadlines
	nc     net.Conn
	ctx    context.Context // of the command that runs
	stop   func() bool
	closed bool
}

// Greeting returns the text of the server's first line.
func (c *Client) Greeting() string { return c.greeting }

// TLS returns the state of TLS, nil in plain text.
func (c *Client) TLS() *tls.ConnectionState { return c.tls }

func (c *Client) raw() net.Conn { return c.nc }

// begin starts a command: from here to end, the end of ctx interrupts reads
// and writes.
func (c *Client) begin(ctx context.Context) error {
	if c.msg != nil {
		return ErrBusy
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case c.err != nil:
		return c.err
	case ctx.Err() != nil:
		return fmt.Errorf("pop3client: %w", ctx.Err())
	}
	c.ctx = ctx
	c.stop = context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ctx == ctx {
			c.nc.SetDeadline(time.Unix(1, 0))
		}
	})
	return nil
}

func (c *Client) end() {
	c.mu.Lock()
	c.stop()
	c.ctx = nil
	c.mu.Unlock()
}

// arm gives the next step its time.
func (c *Client) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var deadline time.Time
	if c.timeout > 0 {
		deadline = time.Now().Add(c.timeout)
	}
	if c.ctx != nil && c.ctx.Err() != nil {
		deadline = time.Unix(1, 0)
	}
	c.nc.SetDeadline(deadline)
}

// fail makes the Client unusable and returns why.
func (c *Client) fail(err error) error {
	c.mu.Lock()
	switch {
	case c.closed:
		err = ErrClosed
	case c.ctx != nil && c.ctx.Err() != nil:
		err = c.ctx.Err()
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no answer in %v: %w", c.timeout, err)
	}
	c.mu.Unlock()
	if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrProtocol) {
		err = fmt.Errorf("pop3client: %w", err)
	}
	if c.err == nil {
		c.err = err
	}
	c.nc.Close()
	return err
}

// line reads one line.
func (c *Client) line() (string, error) {
	c.arm()
	b, err := c.r.ReadLine(maxLine)
	switch {
	case err == nil:
		return string(b), nil
	case errors.Is(err, lineio.ErrTooLong), errors.Is(err, lineio.ErrBareCR), errors.Is(err, lineio.ErrBareLF), errors.Is(err, lineio.ErrNUL):
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return "", c.fail(err)
}

// status reads the first line of a reply.
func (c *Client) status() (string, error) {
	line, err := c.line()
	if err != nil {
		return "", err
	}
	text, err := pop3.ParseStatus(line)
	if errors.Is(err, pop3.ErrStatus) {
		return "", c.fail(fmt.Errorf("%w: %.80q is no status line", ErrProtocol, line))
	}
	return text, err
}

// lines reads a multi-line reply; f gets each line.
func (c *Client) lines(max int, f func(line string) error) error {
	for n := 0; ; n++ {
		line, err := c.line()
		switch {
		case err != nil:
			return err
		case line == ".":
			return nil
		case max >= 0 && n >= max:
			return c.fail(fmt.Errorf("%w: reply of more than %d lines", ErrProtocol, max))
		}
		if err := f(strings.TrimPrefix(line, ".")); err != nil {
			return c.fail(fmt.Errorf("%w: %w: %.80q", ErrProtocol, err, line))
		}
	}
}

// send writes one line.
func (c *Client) send(line string) error {
	c.arm()
	if _, err := io.WriteString(c.rw, line+"\r\n"); err != nil {
		return c.fail(err)
	}
	return nil
}

// command sends a line and reads the status.
func (c *Client) command(line string) (text string, err error) {
	if err := c.send(line); err != nil {
		return "", err
	}
	return c.status()
}

// do is a command with a reply of one line.
func (c *Client) do(ctx context.Context, line string) (string, error) {
	if err := c.begin(ctx); err != nil {
		return "", err
	}
	defer c.end()
	return c.command(line)
}

// Capabilities asks for the server's capabilities (CAPA, RFC 2449 §5). They
// may change with TLS and with login.
func (c *Client) Capabilities(ctx context.Context) (pop3.Capabilities, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	defer c.end()
	if _, err := c.command("CAPA"); err != nil {
		return nil, err
	}
	var caps pop3.Capabilities
	err := c.lines(maxCaps, func(line string) error {
		if cp, ok := pop3.ParseCapability(line); ok {
			caps = append(caps, cp)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return caps, nil
}

// Stat returns the number and size of the messages (STAT).
func (c *Client) Stat(ctx context.Context) (pop3.Stat, error) {
	text, err := c.do(ctx, "STAT")
	if err != nil {
		return pop3.Stat{}, err
	}
	s, err := pop3.ParseStat(text)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return s, nil
}

// List returns number and size of each message (LIST).
func (c *Client) List(ctx context.Context) ([]pop3.Listing, error) {
	return list(ctx, c, "LIST", pop3.ParseListing)
}

// UIDL returns number and unique-id of each message (UIDL).
func (c *Client) UIDL(ctx context.Context) ([]pop3.UniqueID, error) {
	return list(ctx, c, "UIDL", pop3.ParseUniqueID)
}

func list[T any](ctx context.Context, c *Client, name string, parse func(string) (T, error)) ([]T, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	defer c.end()
	if _, err := c.command(name); err != nil {
		return nil, err
	}
	var all []T
	err := c.lines(c.maxMessages, func(line string) error {
		v, err := parse(line)
		all = append(all, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Dele marks message n to be removed when the session ends with Quit (DELE).
func (c *Client) Dele(ctx context.Context, n int) error {
	_, err := c.do(ctx, "DELE "+strconv.Itoa(n))
	return err
}

// Rset takes all marks of Dele back (RSET).
func (c *Client) Rset(ctx context.Context) error {
	_, err := c.do(ctx, "RSET")
	return err
}

// Noop shows that the connection is alive (NOOP).
func (c *Client) Noop(ctx context.Context) error {
	_, err := c.do(ctx, "NOOP")
	return err
}

// Quit ends the session, removes what was marked, and closes the connection
// (QUIT). After an error nothing may be taken for removed.
func (c *Client) Quit(ctx context.Context) error {
	_, err := c.do(ctx, "QUIT")
	if errors.Is(err, ErrBusy) {
		return err
	}
	c.Close()
	return err
}

// Close closes the connection without QUIT: nothing is removed. It may be
// called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.nc.Close()
	}
	return nil
}
