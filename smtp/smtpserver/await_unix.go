//go:build unix

package smtpserver

import (
	"errors"
	"io"
	"syscall"
)

// prepareAwait looks whether await can work on the connection.
func (c *Conn) prepareAwait() {
	if sc, ok := c.base.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.awaited.raw, c.awaited.try = raw, c.tryRead
		}
	}
}

// tryRead reads once, and reports false when there is nothing yet.
func (c *Conn) tryRead(fd uintptr) bool {
	a := &c.awaited
	b := c.srv.blocks.get()
	var n int
	var err error
	for {
		n, err = syscall.Read(int(fd), b[:])
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		c.srv.blocks.Put(b)
		return false
	case err != nil:
		a.err = err
	case n == 0:
		a.err = io.EOF
	default:
		a.block, a.got = b, b[:n]
		return true
	}
	c.srv.blocks.Put(b)
	return true
}
