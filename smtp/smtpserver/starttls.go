package smtpserver

import (
	"context"

	"github.com/postrider/postrider/auth/login"
)

// starttls does STARTTLS (RFC 3207).
func (c *Conn) starttls(arg []byte) {
	switch {
	case c.tls != nil:
		c.bad(503, "5.5.1", "TLS is on already")
		return
	case !c.ext.has(extSTARTTLS):
		c.bad(502, "5.5.1", "STARTTLS not offered")
		return
	case c.r.Buffered() > 0:
		// What came in clear behind STARTTLS must not be taken for something
		// said under TLS, and who sends it is broken or a third person.
		c.bad(554, "5.5.1", "Nothing may follow STARTTLS before the handshake, closing connection")
		c.closing = true
		return
	}
	c.reply(220, "2.0.0", "Begin TLS")
	c.flush()
	if !c.handshake() {
		return
	}
	// RFC 3207 §4.2: nothing said before counts.
	c.state = stateNew
	c.hello, c.extended, c.ext = "", false, extensions{}
	c.identity, c.loggedIn = login.Identity{}, false
}

// handshake makes the connection TLS, or ends it.
func (c *Conn) handshake() bool {
	if c.srv.TLS == nil {
		c.log().Error("smtp: ImplicitTLS without a TLS configuration")
		c.closing = true
		return false
	}
	ctx := c.ctx
	if c.lim.handshake > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.lim.handshake)
		defer cancel()
	}
	// A peer that hangs here must not hold Shutdown up: nothing is lost yet.
	if !c.srv.conns.Idle(c.base, c.wake) {
		c.closing = true
		return false
	}
	t, cert, err := c.srv.handshakes.Handshake(ctx, c.nc, c.srv.TLS)
	c.srv.conns.Busy(c.base)
	if h := c.srv.Trace; h != nil && h.Handshake != nil {
		h.Handshake(c, err)
	}
	if err != nil {
		c.log().Info("smtp: TLS handshake failed", "err", err)
		c.closing = true
		return false
	}
	c.nc = t
	cs := t.ConnectionState()
	c.tls, c.cert = &cs, cert
	return true
}
