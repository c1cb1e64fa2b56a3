package imapclient

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// idleRenewal is how long one IDLE lasts: servers may log out after 30
// minutes (RFC 2177).
const idleRenewal = 28 * time.Minute

// Idle waits until the server tells something, which goes to the Handler, or
// until ctx is done; then it returns ctx's error, and the Client can be used
// on (RFC 9051 §6.3.13). The server has to have IDLE.
func (c *Client) Idle(ctx context.Context) error {
	for {
		told, err := c.idle(ctx)
		if err != nil {
			return err
		}
		if told {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("imapclient: %w", err)
		}
	}
}

// idle runs one IDLE.
func (c *Client) idle(ctx context.Context) (told bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("imapclient: %w", err)
	}
	// ctx ends the waiting only, not the command.
	cmd := &command{name: "IDLE"}
	cmd.resume = func(string) error {
		cmd.resume = nil
		var err error
		if told, err = c.wait(ctx); err != nil {
			return err
		}
		if cmd.done {
			return nil
		}
		c.arm()
		c.bw.WriteString("DONE\r\n")
		if err := c.bw.Flush(); err != nil {
			return c.fail(err)
		}
		return nil
	}
	err = c.run(context.WithoutCancel(ctx), cmd)
	return told, err
}

// wait waits for a response to begin, for idleRenewal at most, and reads it.
func (c *Client) wait(ctx context.Context) (told bool, err error) {
	c.armFor(idleRenewal)
	waiting := true // guarded by c.mu
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if waiting {
			c.nc.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	_, err = c.br.Peek(1)
	c.mu.Lock()
	waiting = false
	c.mu.Unlock()
	switch {
	case err == nil:
		return true, c.read()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, c.fail(err)
}
