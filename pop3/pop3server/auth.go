package pop3server

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/internal/netserve"
)

func (c *conn) loginConn() *login.Conn {
	return &login.Conn{
		Protocol: "pop3",
		Local:    netserve.AddrPort(c.nc.LocalAddr()),
		Remote:   netserve.AddrPort(c.nc.RemoteAddr()),
		TLS:      c.tls,
		Cert:     c.cert,
	}
}

// mechanisms lists what is offered now.
func (c *conn) mechanisms() []string {
	if c.srv.Auth == nil {
		return nil
	}
	m := c.srv.Auth.Mechanisms(c.loginConn())
	if c.tls != nil || c.srv.InsecureAuth {
		return m
	}
	return slices.DeleteFunc(slices.Clone(m), login.Cleartext)
}

func (c *conn) offers(mech string) bool {
	return slices.ContainsFunc(c.mechanisms(), func(m string) bool { return strings.EqualFold(m, mech) })
}

// passwords reports whether USER and PASS may be used, and says so if not.
func (c *conn) passwords() bool {
	if c.offers("PLAIN") {
		return true
	}
	if c.tls == nil && c.srv.TLS != nil {
		c.reject("passwords need TLS: use STLS first")
	} else {
		c.reject("passwords are not accepted here")
	}
	return false
}

func (c *conn) cmdUser(arg []byte) {
	if !c.passwords() {
		return
	}
	if len(arg) == 0 {
		c.reject("user name expected")
		return
	}
	c.user = string(arg)
	c.line("+OK")
}

func (c *conn) cmdPass(arg []byte) {
	if !c.passwords() {
		return
	}
	if c.user == "" {
		c.reject("USER comes first")
		return
	}
	user := c.user
	c.user = ""
	id, err := login.Password(c.ctx, c.srv.Auth, c.loginConn(), user, string(arg))
	c.finishLogin(id, err)
}

// cmdAuth runs a SASL exchange (RFC 5034).
func (c *conn) cmdAuth(arg []byte) {
	mech, initial, has := strings.Cut(string(arg), " ")
	switch {
	case mech == "":
		c.reject("mechanism expected")
		return
	case !c.offers(mech):
		c.reject("mechanism not offered")
		return
	}
	c.user = ""
	x, err := c.srv.Auth.Start(c.ctx, strings.ToUpper(mech), c.loginConn())
	if err != nil {
		c.finishLogin(login.Identity{}, err)
		return
	}
	var response []byte
	if has {
		if response, err = decode(initial); err != nil {
			c.reject("initial response is not base64")
			return
		}
		if initial == "=" {
			response = []byte{}
		}
	}
	for {
		challenge, done, err := x.Next(response)
		if err != nil || done && len(challenge) == 0 {
			c.finishLogin(x.Identity(), err)
			return
		}
		c.w.WriteString("+ ")
		c.line(base64.StdEncoding.EncodeToString(challenge))
		line, err := c.readLine(maxSASLLine)
		if err != nil {
			if errors.Is(err, lineio.ErrTooLong) || errors.Is(err, lineio.ErrBareCR) ||
				errors.Is(err, lineio.ErrBareLF) || errors.Is(err, lineio.ErrNUL) {
				c.reject(err.Error())
			} else {
				c.done = true
			}
			return
		}
		if bytes.Equal(line, []byte("*")) {
			c.line("-ERR authentication cancelled")
			return
		}
		if response, err = decode(string(line)); err != nil {
			c.reject("response is not base64")
			return
		}
		if done { // the challenge was the server's last word
			c.finishLogin(x.Identity(), nil)
			return
		}
	}
}

// decode decodes base64; "=" is the empty initial response. The result is
// never nil.
func decode(s string) ([]byte, error) {
	if s == "=" {
		return []byte{}, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// finishLogin answers and, if err is nil, opens the maildrop.
func (c *conn) finishLogin(id login.Identity, err error) {
	if err == nil {
		c.id = id
		err = c.open(id)
	}
	if err == nil {
		c.srv.log().Info("pop3: login", "user", id.User, "mechanism", id.Mechanism, "remote", c.nc.RemoteAddr(), "tls", c.tls != nil)
		c.line("+OK logged in")
		return
	}
	c.srv.log().Info("pop3: login failed", "remote", c.nc.RemoteAddr(), "error", err)
	c.id = login.Identity{}
	c.failures++
	if m := limit(c.srv.AuthAttempts, 3); m > 0 && c.failures >= m {
		c.done = true
	}
	c.line(replyFor(err).Status())
}

func (c *conn) open(id login.Identity) error {
	m, err := c.srv.maildrop(c.ctx, id)
	if err != nil {
		return err
	}
	d, err := openDrop(c.ctx, m, limit(c.srv.MaxMessages, 1_000_000))
	if err != nil {
		(&drop{Maildrop: m}).close()
		return err
	}
	c.drop = d
	return nil
}

// cmdSTLS starts TLS (RFC 2595 §4). What the client sent behind the command
// in plain text is dropped, not run.
func (c *conn) cmdSTLS(arg []byte) {
	if !c.noArg(arg) {
		return
	}
	switch {
	case c.srv.TLS == nil:
		c.reject("TLS is not offered")
		return
	case c.tls != nil:
		c.reject("TLS is active already")
		return
	}
	c.line("+OK begin TLS")
	c.user = ""
	if c.w.Flush() != nil || !c.startTLS() {
		c.done = true
	}
}
