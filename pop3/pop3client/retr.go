package pop3client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/postrider/postrider/internal/lineio"
)

// Retr returns message n (RETR), which is streamed as it is read. It ends
// with io.EOF only when the whole message was there. Until it has been read to
// its end, or closed, all other commands return ErrBusy. ctx also bounds the
// reading.
func (c *Client) Retr(ctx context.Context, n int) (io.ReadCloser, error) {
	return c.open(ctx, "RETR "+strconv.Itoa(n))
}

// Top returns the header of message n and the first lines of its body (TOP),
// as Retr does.
func (c *Client) Top(ctx context.Context, n, lines int) (io.ReadCloser, error) {
	return c.open(ctx, "TOP "+strconv.Itoa(n)+" "+strconv.Itoa(lines))
}

func (c *Client) open(ctx context.Context, command string) (io.ReadCloser, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	if _, err := c.command(command); err != nil {
		c.end()
		return nil, err
	}
	c.msg = &message{c: c, dot: lineio.NewDotReader(c.r, 0)}
	return c.msg, nil
}

// message is a message while it is read.
type message struct {
	c   *Client
	dot *lineio.DotReader
	err error
}

func (m *message) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	m.c.arm()
	n, err := m.dot.Read(p)
	if err != nil {
		m.finish(err)
		err = m.err
	}
	return n, err
}

func (m *message) finish(err error) {
	if err != io.EOF {
		err = m.c.fail(err)
	}
	m.err = err
	m.c.end()
	m.c.msg = nil
}

// Close reads the rest of the message away, or closes the connection when
// that is more than 64 MiB.
func (m *message) Close() error {
	if m.err == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(m, maxUnread))
		if m.err == nil && err == nil {
			m.finish(fmt.Errorf("more than %d octets unread", maxUnread))
		}
	}
	if errors.Is(m.err, io.EOF) || errors.Is(m.err, errDone) {
		m.err = errDone
		return nil
	}
	return m.err
}

var errDone = errors.New("pop3client: message is closed")
