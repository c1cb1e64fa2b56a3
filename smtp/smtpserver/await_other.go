//go:build !unix

package smtpserver

func (c *Conn) prepareAwait() {}
