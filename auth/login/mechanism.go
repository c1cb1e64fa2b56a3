package login

import (
	"bytes"
	"context"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
)

// Longest name and password that a mechanism takes, in octets. RFC 4616 §2
// asks for 255 at least.
const (
	maxName     = 1024
	maxPassword = 4096
)

// Cleartext reports whether mech sends a secret that whoever reads the wire
// could use again: PLAIN, LOGIN and the bearer tokens of XOAUTH2 and
// OAUTHBEARER. A mechanism that is not known counts as such. Servers offer
// these under TLS only, unless they are told otherwise.
func Cleartext(mech string) bool {
	m := strings.ToUpper(mech)
	return m != "CRAM-MD5" && m != "EXTERNAL" && m != "ANONYMOUS" && !strings.HasPrefix(m, "SCRAM-")
}

// password is what PLAIN and LOGIN have in common.
type password struct {
	ctx  context.Context // of Start: it bounds the look-ups of the exchange
	p    *Passwords
	c    *Conn
	mech string
	id   Identity
	done bool
}

func (x *password) Identity() Identity { return x.id }

func (x *password) finish(authzid, name, pass string) ([]byte, bool, error) {
	x.done = true
	if name == "" || len(name) > maxName || len(pass) > maxPassword || len(authzid) > maxName ||
		!utf8.ValidString(name) || !utf8.ValidString(authzid) {
		return nil, false, ErrMalformed
	}
	id, err := x.p.check(x.ctx, x.c, x.mech, authzid, name, pass)
	if err != nil {
		return nil, false, err
	}
	x.id = id
	return nil, true, nil
}

// plain is PLAIN (RFC 4616).
type plain struct{ password }

func (x *plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if x.done {
		return nil, false, sasl.ErrUnexpectedClientResponse
	}
	if response == nil {
		return []byte{}, false, nil
	}
	part := bytes.SplitN(response, []byte{0}, 4)
	if len(part) != 3 {
		x.done = true
		return nil, false, ErrMalformed
	}
	return x.finish(string(part[0]), string(part[1]), string(part[2]))
}

// loginMech is LOGIN (draft-murchison-sasl-login): the name and the password
// in two steps, the name as an initial response if the client likes.
type loginMech struct {
	password
	asked bool // for the name
	named bool
	name  string
}

func (x *loginMech) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case x.done:
		return nil, false, sasl.ErrUnexpectedClientResponse
	case response == nil && !x.asked:
		x.asked = true
		return []byte("Username:"), false, nil
	case bytes.IndexByte(response, 0) >= 0:
		x.done = true
		return nil, false, ErrMalformed
	case !x.named:
		if len(response) > maxName {
			x.done = true
			return nil, false, ErrMalformed
		}
		x.named, x.asked, x.name = true, true, string(response)
		return []byte("Password:"), false, nil
	}
	return x.finish("", x.name, string(response))
}
