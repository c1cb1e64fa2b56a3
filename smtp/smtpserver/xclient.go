package smtpserver

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
)

// The attributes that are announced with XCLIENT and XFORWARD.
const (
	xclientNames  = " NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
	xforwardNames = " NAME ADDR PORT PROTO HELO IDENT SOURCE"
)

// trusted reports whether the true peer may speak for others.
func (c *Conn) trusted() bool {
	addr := c.peer.Addr()
	return addr.IsValid() && slices.ContainsFunc(c.srv.Trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Forwarded returns what XFORWARD said of the client of a trusted peer, for
// the log of a filter; nil when nothing. Decisions go by XCLIENT instead.
func (c *Conn) Forwarded() []smtp.Attribute { return c.forwarded }

// Peer returns the address that the connection truly comes from; Remote
// differs from it after XCLIENT.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// xforward does XFORWARD: attributes add up until the next message is done.
func (c *Conn) xforward(arg []byte) {
	list, ok := c.attributes(arg, smtp.ExtXFORWARD, xforwardNames)
	if !ok {
		return
	}
	for _, a := range list {
		i := slices.IndexFunc(c.forwarded, func(b smtp.Attribute) bool { return a.Name == b.Name })
		if i < 0 {
			c.forwarded = append(c.forwarded, a)
		} else {
			c.forwarded[i] = a
		}
	}
	c.reply(250, "2.0.0", "OK")
}

func (c *Conn) attributes(arg []byte, command, names string) ([]smtp.Attribute, bool) {
	if !c.trusted() {
		c.bad(550, "5.7.0", "Not authorized to use "+command)
		return nil, false
	}
	list, err := smtp.ParseAttributes(string(arg))
	if err == nil {
		for _, a := range list {
			if !strings.Contains(names+" ", " "+a.Name+" ") {
				err = smtp.ErrParameter
			}
		}
	}
	if err != nil {
		c.bad(501, "5.5.4", "Malformed or unknown attribute")
		return nil, false
	}
	return list, true
}

// xclient does XCLIENT: the connection begins anew, as that of the client
// which the peer names.
func (c *Conn) xclient(arg []byte) {
	list, ok := c.attributes(arg, smtp.ExtXCLIENT, xclientNames)
	if !ok {
		return
	}
	addr, port := c.remote.Addr(), c.remote.Port()
	dest, destPort := c.local.Addr(), c.local.Port()
	hello := ""
	var identity login.Identity
	name := c.name
	for _, a := range list {
		if a.Value == smtp.AttributeUnavailable || a.Value == smtp.AttributeTempUnavail {
			a.Value = ""
		}
		ok := true
		switch a.Name {
		case "ADDR":
			addr, ok = parseAttributeAddr(a.Value)
		case "DESTADDR":
			dest, ok = parseAttributeAddr(a.Value)
		case "PORT":
			port, ok = parseAttributePort(a.Value)
		case "DESTPORT":
			destPort, ok = parseAttributePort(a.Value)
		case "NAME":
			name = a.Value
		case "HELO":
			hello = a.Value
			ok = hello == "" || printable([]byte(hello))
		case "LOGIN":
			identity = login.Identity{User: a.Value, Login: a.Value, Mechanism: "XCLIENT"}
		}
		if !ok {
			c.bad(501, "5.5.4", "Malformed attribute "+a.Name)
			return
		}
	}
	c.remote, c.local, c.name = netip.AddrPortFrom(addr, port), netip.AddrPortFrom(dest, destPort), name
	c.identity, c.loggedIn = identity, identity.User != ""
	c.hello, c.extended, c.ext = hello, false, extensions{}
	c.forwarded = nil
	c.state = stateNew
	c.closeSession()
	c.session = nil
	if !c.greet() {
		c.closing = true
	}
}

// Name returns the host name that XCLIENT gave the client, "" without one.
func (c *Conn) Name() string { return c.name }

func parseAttributeAddr(s string) (netip.Addr, bool) {
	if s == "" {
		return netip.Addr{}, true
	}
	if len(s) > 5 && strings.EqualFold(s[:5], "IPV6:") {
		s = s[5:]
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil && a.Zone() == ""
}

func parseAttributePort(s string) (uint16, bool) {
	if s == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}
