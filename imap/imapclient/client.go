package imapclient

import (
	"bufio"
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

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// Errors of a Client that are not an *imap.Error. After ErrProtocol, and
// after errors of the network and of the context, the Client is of no more
// use.
var (
	ErrNoTLS    = errors.New("imapclient: the server does not offer TLS")
	ErrProtocol = errors.New("imapclient: the server broke the protocol")
	ErrBusy     = errors.New("imapclient: a command is running")
	ErrClosed   = errors.New("imapclient: closed")
	ErrArgument = errors.New("imapclient: argument cannot be sent")
)

const bufferSize = 16 << 10

// Client is a connection to a server. It is used by one goroutine at a time;
// only Close may be called from another. It has no goroutine of its own.
type Client struct {
	br       *bufio.Reader
	bw       *bufio.Writer
	dec      *imapwire.Decoder
	enc      *imapwire.Encoder
	tls      *tls.ConnectionState
	timeout  time.Duration
	handler  Handler
	caps     imap.Caps
	preauth  bool
	selected *imap.SelectData // nil = no mailbox is open
	tags     int
	cmd      *command // that runs
	err      error    // why the Client is of no more use

	mu     sync.Mutex // guards what follows, and deadlines
	nc     net.Conn
	ctx    context.Context // of the command that runs
	stop   func() bool
	busy   bool
	closed bool
}

// command is one command and what it does with the responses.
type command struct {
	name string
	args func(e *imapwire.Encoder) // nil = none; begins behind the name

	// untagged takes the data of a response, named in upper case, from
	// behind its name; false = not of this command. numbered likewise, with
	// the number before the name.
	untagged func(name string) bool
	fetch    func(m *imap.FetchData)
	body     func(m *imap.FetchData, s *imap.Section, r io.Reader)
	expunge  func(seq uint32)
	code     func(code imap.Code, arg string) // of any OK
	// resume answers a continuation request; nil = a literal of args waits
	// for it.
	resume func(text string) error
	after  func() error // before the next command, when it was OK

	tag  string
	more bool // a continuation request came
	done bool
	res  *imap.Error // of Type OK, NO or BAD
}

// TLS returns the state of TLS, nil in plain text.
func (c *Client) TLS() *tls.ConnectionState { return c.tls }

// Mailbox returns what is known of the mailbox that is open, nil when none
// is. Messages is kept up to date. It is valid until the next command.
func (c *Client) Mailbox() *imap.SelectData { return c.selected }

// begin starts a command: from here to end, the end of ctx interrupts reads
// and writes.
func (c *Client) begin(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case c.busy:
		return ErrBusy
	case c.err != nil:
		return c.err
	case ctx.Err() != nil:
		return fmt.Errorf("imapclient: %w", ctx.Err())
	}
	c.busy, c.ctx = true, ctx
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
	c.ctx, c.busy = nil, false
	c.mu.Unlock()
}

// arm gives the next step its time.
func (c *Client) arm() { c.armFor(c.timeout) }

func (c *Client) armFor(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	if c.ctx != nil && c.ctx.Err() != nil {
		deadline = time.Unix(1, 0)
	}
	c.nc.SetDeadline(deadline)
}

// fail makes the Client unusable and returns why.
func (c *Client) fail(err error) error {
	if c.err != nil {
		return c.err
	}
	var syntax *imapwire.SyntaxError
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
	case errors.As(err, &syntax), errors.Is(err, imapwire.ErrLineTooLong), errors.Is(err, imapwire.ErrLiteralTooBig):
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	c.mu.Unlock()
	if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrProtocol) {
		err = fmt.Errorf("imapclient: %w", err)
	}
	c.err = err
	c.nc.Close()
	return err
}

// run runs a command to its tagged response; NO and BAD are *imap.Error.
func (c *Client) run(ctx context.Context, cmd *command) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	finished := false
	defer func() {
		if c.cmd = nil; !finished {
			c.fail(errors.New("command was abandoned")) // a callback panicked
		}
	}()
	err := c.exchange(cmd)
	finished = true
	return err
}

func (c *Client) exchange(cmd *command) error {
	c.tags++
	cmd.tag = "a" + strconv.Itoa(c.tags)
	c.cmd = cmd
	c.enc.Reset(c.bw)
	// A literal waits for the server's consent, unless it is small enough.
	c.enc.Wait = func() error { return c.await() }
	switch {
	case c.caps.Lists(imap.CapLiteralPlus):
		c.enc.NonSync = -1
	case c.caps.Has(imap.CapLiteralMinus):
		c.enc.NonSync = 4096
	default:
		c.enc.NonSync = 0
	}
	c.arm()
	c.enc.Atom(cmd.tag).SP().Atom(cmd.name)
	if cmd.args != nil {
		cmd.args(c.enc)
	}
	err := c.enc.CRLF()
	if err == nil {
		err = c.enc.Flush()
	}
	if err != nil && !cmd.done { // done: the server refused a literal
		return c.fail(err)
	}
	for !cmd.done {
		if err := c.read(); err != nil {
			return err
		}
		if cmd.more {
			return c.fail(fmt.Errorf("%w: continuation request for %s", ErrProtocol, cmd.name))
		}
	}
	if cmd.res.Type != imap.OK {
		return cmd.res
	}
	if cmd.after != nil {
		return cmd.after()
	}
	return nil
}

var errRefused = errors.New("literal refused")

// await reads until the server lets a literal come, or ends the command.
func (c *Client) await() error {
	for !c.cmd.done {
		if err := c.read(); err != nil {
			return err
		}
		if c.cmd.more {
			c.cmd.more = false
			c.arm()
			return nil
		}
	}
	return errRefused
}

// areWords tells whether each of words can be sent as an atom, a flag or the
// name of an item: what has a space or a line end in it would be something
// else to the server.
func areWords[T ~string](words ...T) bool {
	for _, w := range words {
		s := strings.TrimPrefix(string(w), `\`)
		if s == "" {
			return false
		}
		for i := range len(s) {
			if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\`, c) >= 0 {
				return false
			}
		}
	}
	return true
}

// simple runs a command with nothing but a tagged response.
func (c *Client) simple(ctx context.Context, name string, args func(e *imapwire.Encoder)) error {
	return c.run(ctx, &command{name: name, args: args})
}

// Capabilities returns what the server can do, asking it if it has not told
// since the connection or the user changed (RFC 9051 §6.1.1).
func (c *Client) Capabilities(ctx context.Context) (imap.Caps, error) {
	if c.caps == nil {
		if err := c.simple(ctx, "CAPABILITY", nil); err != nil {
			return nil, err
		}
	}
	return c.caps, nil
}

// Enable turns extensions on and returns those that are (RFC 9051 §6.3.1).
func (c *Client) Enable(ctx context.Context, caps ...imap.Cap) (imap.Caps, error) {
	if !areWords(caps...) {
		return nil, ErrArgument
	}
	var on imap.Caps
	err := c.run(ctx, &command{
		name: "ENABLE",
		args: func(e *imapwire.Encoder) {
			for _, cp := range caps {
				e.SP().Atom(string(cp))
			}
		},
		untagged: func(name string) bool {
			if name != "ENABLED" {
				return false
			}
			on = append(on, c.capList()...)
			return true
		},
	})
	if err != nil {
		return nil, err
	}
	if on.Lists(imap.CapIMAP4rev2) || on.Lists(imap.CapUTF8Accept) {
		c.dec.UTF8, c.enc.UTF8 = true, true
	}
	return on, nil
}

// Noop does nothing, but lets the server tell what is new (RFC 9051 §6.1.2).
func (c *Client) Noop(ctx context.Context) error { return c.simple(ctx, "NOOP", nil) }

// Logout ends the session and closes the connection.
func (c *Client) Logout(ctx context.Context) error {
	err := c.simple(ctx, "LOGOUT", nil)
	if errors.Is(err, ErrBusy) {
		return err
	}
	c.Close()
	return err
}

// Close closes the connection; a command that runs returns ErrClosed. It may
// be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.nc.Close()
	}
	return nil
}
